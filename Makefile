# `make help` lists what people type; CI calls the same verbs.

# Always the same packages and features: anything else would compile the AWS SDK anew (minutes, gigabytes).
CARGO_FLAGS := --workspace --all-targets --locked
TARGET      := $(or $(CARGO_TARGET_DIR),target)
VENV        := .venv

.DEFAULT_GOAL := help
.PHONY: help run test soak lint

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/ready ## see 7 PM and 8 AM happen, against a pretend EC2 on this machine
	@cargo build $(CARGO_FLAGS)
	@$(TARGET)/debug/ec2-sim demo --binary $(TARGET)/debug/ec2-curfew --cargo-lambda $(VENV)/bin/cargo-lambda --events infra/events

test: $(VENV)/ready ## see it proven
	cargo test $(CARGO_FLAGS)

soak: $(VENV)/ready ## thousands of random nights and soups, from a seed that is printed (CASES=3000)
	CURFEW_SEED=$${SEED:-$$(date +%s)} CURFEW_CASES=$(or $(CASES),3000) \
	  cargo test $(CARGO_FLAGS) -- --nocapture model:: soup::

lint: ## formatting and warnings
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) -- -D warnings

# What a Rust toolchain doesn't bring: cargo-lambda and moto, pinned, in a folder of their own.
$(VENV)/ready: tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	touch $@
