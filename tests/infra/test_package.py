"""The package for installing without a compiler: complete, unaltered, reproducible, and deployed by CloudFormation alone."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import BIN, ROOT, TARGET, until
from test_schedules import PATIENCE, ahead, at, run_instances, states

# Regions that only the stacks of this file use.
REGION, REGION_WITHOUT_RUST = "ap-southeast-1", "ap-southeast-2"


@pytest.fixture(scope="module")
def package() -> Path:
    """A package with the function as it is already built."""
    packaged = subprocess.run(["make", "--silent", "--old-file=build", "package"], cwd=ROOT, capture_output=True, text=True)
    assert packaged.returncode == 0, packaged.stderr
    return Path(packaged.stdout.splitlines()[-1])


@pytest.fixture
def copy(package, tmp_path) -> Path:
    """A package that a test may spoil."""
    return shutil.copytree(package, tmp_path / package.name)


def zip_in(folder: Path) -> Path:
    [it] = folder.glob("*.zip")
    return it


def template_of(package: Path) -> dict:
    return yaml.safe_load((package / "curfew.yaml").read_text())


def stack_py(verb: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "infra/stack.py", verb, *arguments], env=os.environ | env, capture_output=True, text=True
    )


def test_its_files_are_those_that_its_page_names_and_the_sums_are_right(package):
    page = (package / "INSTALL.md").read_text()
    files = {it.name for it in package.iterdir()}
    assert files == {f"{package.name}.zip", "curfew.yaml", "curfew.cdx.json", "LICENSES.txt", "SHA256SUMS", "INSTALL.md"}
    assert all(f"`{it}`" in page for it in files - {"INSTALL.md"})
    assert len(page.splitlines()) <= 45, "one screen"
    assert not any(word in page for word in ("VERSION", "COMMIT", "COMPILER")) and "gh attestation verify ARCHIVE " in page
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=package, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count(": OK") == len(files) - 1


def test_what_the_page_says_to_type_can_be_copied_as_it_stands(tmp_path):
    """Out of the file itself, which has no copy buttons: a block is run here, with an `aws` that only says what it was given."""
    page = (ROOT / "infra/INSTALL.md").read_text()
    assert not [line for line in page.splitlines() if line.count("`") % 2], "code that goes on in the next line"
    for tool in ("aws", "sha256sum"):
        (tmp_path / tool).write_text('#!/bin/sh\nprintf "%s\\n" "$@" END >> "$CALLS"\n')
        (tmp_path / tool).chmod(0o755)
    blocks = re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    subprocess.run(["sh", "-euc", "\n".join(blocks)], env=env, check=True)
    calls = [call.split("\n")[:-1] for call in (tmp_path / "calls").read_text().split("END\n")[:-1]]
    assert [call[:2] for call in calls] == [["--check", "SHA256SUMS"], ["s3", "cp"], ["cloudformation", "deploy"], ["lambda", "invoke"]]
    invoked = calls[-1]
    assert json.loads(invoked[invoked.index("--payload") + 1])["dry_run"] is True and invoked[-1] == "/dev/stdout"


def test_built_elsewhere_and_at_another_time_it_is_the_same(package, tmp_path):
    target = tmp_path / "target"
    (target / "lambda/ec2-curfew").mkdir(parents=True)
    with zipfile.ZipFile(TARGET / "lambda/ec2-curfew/bootstrap.zip") as built:
        binary = built.read("bootstrap")
    with zipfile.ZipFile(target / "lambda/ec2-curfew/bootstrap.zip", "w") as later:
        it = zipfile.ZipInfo("bootstrap", date_time=(2031, 5, 6, 7, 8, 10))
        it.external_attr = 0o100700 << 16
        later.writestr(it, binary)
    packaged = subprocess.run(
        [sys.executable, ROOT / "infra/package.py", TARGET / "tools/bin/cargo-cyclonedx"],
        cwd=tmp_path,
        env=os.environ | {"CARGO_TARGET_DIR": str(target), "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
    )
    assert packaged.returncode == 0, packaged.stderr
    again = Path(packaged.stdout.strip())
    assert again != package
    for path in package.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_it_names_neither_the_machine_nor_its_folders(package):
    for path in package.iterdir():
        # A function built without the Makefile's flags may contain folder names, which is not the package's fault.
        if path.suffix != ".zip":
            text = path.read_text()
            assert not any(folder in text for folder in (str(ROOT), str(TARGET), str(Path.home()) + "/")), path.name


def test_the_function_in_it_is_what_was_built_and_may_be_executed(package):
    with zipfile.ZipFile(TARGET / "lambda/ec2-curfew/bootstrap.zip") as built, zipfile.ZipFile(zip_in(package)) as zipped:
        [it] = zipped.infolist()
        assert (it.filename, it.external_attr >> 16) == ("bootstrap", 0o100755)
        assert zipped.read("bootstrap") == built.read("bootstrap")
    assert zip_in(package).stat().st_size <= 5 << 20


# ---- The bill of materials, and the licences ----------------------------------------------------------------------


def crates_of(package: Path) -> set[tuple[str, str]]:
    triple = {"arm64": "aarch64", "x86_64": "x86_64"}[package.name.rpartition("-")[2]] + "-unknown-linux-gnu"
    command = ["cargo", "tree", "--locked", "-e", "normal", "-p", "ec2-curfew", "--target", triple, "--prefix", "none"]
    tree = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {tuple(line.replace(" v", " ").split()[:2]) for line in tree.splitlines()}


def test_the_bill_of_materials_is_valid_cyclonedx(package):
    # The validator is installed in checkov's environment.
    validate = (
        "import sys; from cyclonedx.schema import SchemaVersion; from cyclonedx.validation.json import JsonStrictValidator;"
        "sys.exit(str(JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read()) or '') or None)"
    )
    python = ROOT / ".venv-checkov/bin/python"
    bill = (package / "curfew.cdx.json").read_text()
    validated = lambda text: subprocess.run([python, "-c", validate], input=text, capture_output=True, text=True)  # noqa: E731
    ended = validated(bill)
    assert ended.returncode == 0, ended.stderr
    assert validated(bill.replace('"library"', '"librarian"')).returncode != 0, "the validator looks"


def test_the_bill_of_materials_and_the_licences_list_every_crate_of_the_function_and_no_other(package):
    bill = json.loads((package / "curfew.cdx.json").read_text())
    listed = [bill["metadata"]["component"], *bill["components"]]
    crates = crates_of(package)
    assert len(crates) > 100
    assert {(it["name"], it["version"]) for it in listed} == crates
    assert all(it["licenses"] for it in listed)
    assert {it["ref"] for it in bill["dependencies"]} == {it["bom-ref"] for it in listed}
    lines = (package / "LICENSES.txt").read_text().split("\n\n")[1].splitlines()
    assert {tuple(line.split()[:2]) for line in lines} == crates
    assert all(line.split()[2:] not in ([], ["None"]) for line in lines)


# ---- The template -------------------------------------------------------------------------------------------------


def test_the_template_is_plain_cloudformation(package):
    linted = subprocess.run([BIN / "cfn-lint", package / "curfew.yaml"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    template = template_of(package)
    assert "Transform" not in template
    types = {it["Type"] for it in template["Resources"].values()}
    assert "AWS::Lambda::Function" in types and not any(it.startswith("AWS::Serverless") for it in types)
    assert '"@' not in (package / "curfew.yaml").read_text(), "nothing is left to be filled in"
    architecture = package.name.rpartition("-")[2]
    for name in ("Function", "SnapshotsFunction"):
        function = template["Resources"][name]["Properties"]
        assert function["Architectures"] == [{"Ref": "Architecture"}] and "Tags" not in function
        assert function["Code"] == {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Ref": "CodeKey"}}
    assert template["Parameters"]["Architecture"]["AllowedValues"] == [architecture]
    assert template["Parameters"]["Live"]["Default"] == "no"
    assert template["Parameters"]["CodeKey"]["Default"] == f"{package.name}.zip"


def test_all_else_of_it_is_what_make_deploy_deploys(package, rendered):
    from samcli.yamlhelper import yaml_parse

    sam, plain = yaml_parse((rendered / "curfew.yaml").read_text()), template_of(package)
    assert set(plain["Resources"]) == {*sam["Resources"], "FunctionEventInvokeConfig"}
    assert set(plain["Parameters"]) == {*sam["Parameters"], "CodeBucket", "CodeKey"}
    assert plain["Outputs"] == sam["Outputs"]
    # Events depend on the tag's parameter, and alarms on the schedule's.
    other = {name for name in sam["Resources"] if plain["Resources"][name] != sam["Resources"][name]}
    schedules = {f"{action}{by}" for action in ("Stop", "Start", "Reconcile", "Snapshots", "Warn") for by in ("Schedule", "Rule")}
    assert other == {"Function", "SnapshotsFunction", "NoStop", "NoStart"} | schedules


def test_an_alarm_bears_a_weekend_where_the_schedule_is_not_the_packaged_one(package):
    template = template_of(package)
    assert template["Resources"]["NoStop"]["Properties"]["EvaluationPeriods"] == {"Fn::If": ["StopAtAsPackaged", 26, 74]}
    assert template["Resources"]["NoSnapshots"]["Properties"]["EvaluationPeriods"] == 74, "packaged as off"
    assert template["Conditions"]["StopAtAsPackaged"] == {"Fn::Equals": [{"Ref": "StopAt"}, "cron(0 19 ? * * *)"]}


# ---- Deploying it -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(cloud, package):
    """A stack installed as the package's page says: the zip in a bucket, and the template given to CloudFormation."""
    s3, formation, ec2 = (cloud.client(it, REGION) for it in ("s3", "cloudformation", "ec2"))
    s3.create_bucket(Bucket="somebodys", CreateBucketConfiguration={"LocationConstraint": REGION})
    for path in (zip_in(package), package / "curfew.yaml"):
        s3.upload_file(path, "somebodys", path.name)
    ours, others = run_instances(ec2, 2, {"team": "blue"}), run_instances(ec2, 1, {"curfew": "yes"})
    given = {"CodeBucket": "somebodys", "Live": "yes", "StopAt": at(ahead(45)), "StartAt": "off", "ManagedTag": "team=blue"}
    formation.create_stack(
        StackName="curfew-plain",
        # As `aws cloudformation deploy --s3-bucket` does with a template too large for a call.
        TemplateURL=f"https://s3.{REGION}.amazonaws.com/somebodys/curfew.yaml",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    formation.get_waiter("stack_create_complete").wait(StackName="curfew-plain", WaiterConfig={"Delay": 1})
    yield ec2, ours, others
    formation.delete_stack(StackName="curfew-plain")
    formation.get_waiter("stack_delete_complete").wait(StackName="curfew-plain", WaiterConfig={"Delay": 1})
    for name in (zip_in(package).name, "curfew.yaml"):
        s3.delete_object(Bucket="somebodys", Key=name)
    s3.delete_bucket(Bucket="somebodys")
    ec2.terminate_instances(InstanceIds=ours + others)


def test_cloudformation_alone_deploys_it_and_its_schedule_stops_what_the_parameters_say(cloud, installed, package):
    ec2, ours, others = installed
    function = cloud.client("lambda", REGION).get_function(FunctionName="curfew-plain")["Configuration"]
    assert base64.b64decode(function["CodeSha256"]).hex() == hashlib.sha256(zip_in(package).read_bytes()).hexdigest()
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    config = cloud.client("lambda", REGION).get_function_event_invoke_config(FunctionName="curfew-plain", Qualifier="$LATEST")
    assert config["DestinationConfig"]["OnFailure"]["Destination"]
    alarms = {it["AlarmName"]: it for it in cloud.client("cloudwatch", REGION).describe_alarms()["MetricAlarms"]}
    assert alarms["curfew-plain did not run to stop"]["EvaluationPeriods"] == 74
    until("ours are stopped", PATIENCE, lambda: states(ec2, ours) == {"stopped"})
    assert states(ec2, others) == {"running"}
    [report] = until("it tells", 30, lambda: cloud.reports("curfew-plain", REGION))
    assert (report["action"], report["summary"]["changed"]) == ("stop", 2)


def test_make_deploys_a_package_without_rust(cloud, package, tmp_path):
    # Any call of one of these tools fails.
    for tool in ("cargo", "rustc", "rustup"):
        (tmp_path / tool).write_text(f'#!/bin/sh\necho "{tool} was called" >&2\nexit 1\n')
        (tmp_path / tool).chmod(0o755)
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"Architecture": package.name.rpartition("-")[2]}))
    env = {"AWS_DEFAULT_REGION": REGION_WITHOUT_RUST, "PATH": f"{tmp_path}:{os.environ['PATH']}", "STACK": "curfew-package"}
    deployed = subprocess.run(
        ["make", "--silent", "deploy", f"PACKAGE={package}", f"PARAMETERS={parameters}"],
        cwd=ROOT, env=cloud.env | env, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    function = cloud.client("lambda", REGION_WITHOUT_RUST).get_function(FunctionName="curfew-package")["Configuration"]
    assert base64.b64decode(function["CodeSha256"]).hex() == hashlib.sha256(zip_in(package).read_bytes()).hexdigest()
    removed = cloud.verb("undeploy", region=REGION_WITHOUT_RUST, STACK="curfew-package")
    assert removed.returncode == 0, removed.stdout + removed.stderr


# ---- A package that is not what it should be ----------------------------------------------------------------------


def refused(folder: Path, tmp_path: Path, **parameters: str) -> str:
    """Returns what `make deploy` says before it calls AWS, which it couldn't: there is no such region, and no endpoint."""
    path = tmp_path / "given.yaml"
    path.write_text(yaml.safe_dump({"Architecture": folder.name.rpartition("-")[2]} | parameters))
    env = {"PACKAGE": str(folder), "PARAMETERS": str(path), "AWS_DEFAULT_REGION": "nowhere-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ended = stack_py("deploy", **env)
    assert ended.returncode == 1 and ended.stdout == ""
    return ended.stderr.strip()


def test_a_flipped_byte_is_refused_naming_the_file_both_sums_and_what_to_do(copy, tmp_path):
    zipped = zip_in(copy)
    content = bytearray(zipped.read_bytes())
    right = hashlib.sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    zipped.write_bytes(content)
    assert refused(copy, tmp_path) == (
        f"error: PACKAGE: {zipped}: its SHA-256 is {hashlib.sha256(content).hexdigest()}, but SHA256SUMS says {right}; "
        "download the package again and unpack it, or build it with `make package`"
    )


def test_what_is_missing_is_named_all_at_once(copy, tmp_path):
    (copy / "curfew.yaml").unlink()
    zip_in(copy).unlink()
    said = refused(copy, tmp_path)
    assert said.count("No such file or directory") == 2 and "/curfew.yaml: " in said and ".zip: " in said
    (copy / "SHA256SUMS").write_text("garbage\n")
    assert refused(copy, tmp_path).startswith(f"error: PACKAGE: {copy / 'SHA256SUMS'}: expected a sum and a name on every line; ")
    (copy / "SHA256SUMS").unlink()
    assert refused(copy, tmp_path).startswith(f"error: PACKAGE: {copy / 'SHA256SUMS'}: No such file or directory; download ")


def test_a_zip_that_no_sum_vouches_for_is_refused(copy, tmp_path):
    sums = copy / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if ".zip" not in line))
    assert refused(copy, tmp_path).endswith(f"has no zip, but this checkout and Architecture '{copy.name.rpartition('-')[2]}' ask for {copy.name}.zip")


def test_a_package_of_another_architecture_is_refused(copy, tmp_path):
    other = {"arm64": "x86_64", "x86_64": "arm64"}[copy.name.rpartition("-")[2]]
    assert f"has {copy.name}.zip, but this checkout and Architecture '{other}' ask for " in refused(copy, tmp_path, Architecture=other)
