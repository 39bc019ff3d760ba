"""What the Makefile's deployment commands do beyond calling a tool.

    stack.py deploy | pause | resume | invoke EVENT | render FOLDER | architecture

Parameters are read from infra/parameters.yaml (set PARAMETERS for another file, STACK for another stack). Commands that change
something show what they will do and ask first; YES=yes in the environment answers for you. What is known to be wrong is
refused before AWS is called. PACKAGE is a folder whose function is deployed instead of the one built here.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from zoneinfo import available_timezones

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from samcli.yamlhelper import yaml_parse

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = ROOT / os.environ.get("PARAMETERS", "infra/parameters.yaml")
TEMPLATE = ROOT / "infra/template.yaml"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILT = TARGET / "lambda/ec2-curfew/bootstrap.zip"
STACK = os.environ.get("STACK", "curfew")
SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
# What each schedule carries.
EVENTS = {
    "StopAt": "infra/events/stop-7pm.json",
    "StartAt": "infra/events/start-8am.json",
    "ReconcileAt": "infra/events/reconcile.json",
}
# Characters of a rule's input, bytes of a schedule's (quotas of EventBridge, and of EventBridge Scheduler).
RULE_HOLDS, SCHEDULER_HOLDS = 8192, 256 * 1024


# Whether it is armed or paused is up to a person, and must not change with a file.
BY_HAND = {"Live": "`make deploy LIVE=yes`", "Paused": "`make pause`"}


class Wrong(Exception):
    """What a person has to put right."""


# ---- The template -------------------------------------------------------------------------------------------------


def render(template: Path, values: dict[str, str]) -> str:
    """The template, with what it names in texts like "@policy/execution-role.json" put in."""
    return re.sub(r'"@([^"]+)"', lambda it: json.dumps(insertion(it[1], values)), template.read_text())


def render_all(folder: Path) -> None:
    """Writes what linters and tests read: the templates, and the policies as an account would have them."""
    values = parameters()
    (folder / "policy").mkdir(parents=True, exist_ok=True)
    (folder / "curfew.yaml").write_text(render(TEMPLATE, values))
    for template in ("organization.yaml", "member-role.yaml"):
        (folder / template).write_text(render(ROOT / "infra" / template, values))
    key, _, value = values["ManagedTag"].partition("=")
    account = {
        "AWS::Partition": "aws",
        "AWS::Region": "us-east-1",
        "AWS::AccountId": "111122223333",
        "AWS::StackName": STACK,
        "AWS::URLSuffix": "amazonaws.com",
        "TagKey": key,
        "TagValue": value,
        "KmsKeys": "arn:aws:kms:us-east-1:111122223333:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f",
        "DeadLetters.Arn": f"arn:aws:sqs:us-east-1:111122223333:{STACK}-DeadLetters",
        "Function.Arn": f"arn:aws:lambda:us-east-1:111122223333:function:{STACK}",
        "Curfew": STACK,
        "CurfewAccount": "444455556666",
        "ExecutionRole": f"{STACK}-ExecutionRole-0A1B2C3D4E5F",
        "OrganizationId": "o-0a1b2c3d4e",
        "StateMachine": f"arn:aws:states:us-east-1:111122223333:stateMachine:{STACK}-organization",
    }
    defaults = yaml_parse((ROOT / "infra/organization.yaml").read_text())["Parameters"]
    account |= {key: str(it["Default"]) for key, it in defaults.items() if "Default" in it} | {"Targets": "ou-0a1b-2c3d4e5f"}

    def filled(path: Path) -> str:
        return re.sub(r"\$\{([^}]+)\}", lambda it: account[it[1]], path.read_text())

    policies = {it.name: filled(it) for it in sorted((ROOT / "policy").glob("*.json"))}
    for name, policy in policies.items():
        (folder / "policy" / name).write_text(policy)
    (folder / "objects.json").write_text(compact(objects(policies, filled(ROOT / "infra/organization.asl.json"))))


def objects(policies: dict[str, str], machine: str) -> dict:
    """A template that nobody deploys: in ours, policies and state machine are texts, which no linter looks into."""
    resources = {}
    for name, policy in policies.items():
        key = "AssumeRolePolicyDocument" if name.endswith("-trust.json") else "PolicyDocument"
        kind = "AWS::IAM::Role" if name.endswith("-trust.json") else "AWS::IAM::ManagedPolicy"
        resources[re.sub(r"\W", "", name.title())] = {"Type": kind, "Properties": {key: json.loads(policy)}}
    properties = {"RoleArn": "arn:aws:iam::111122223333:role/curfew", "Definition": json.loads(machine)}
    resources["StateMachine"] = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}


def insertion(what: str, values: dict[str, str]) -> str | int:
    if what.startswith("name of "):
        return read_json(what.removeprefix("name of ")).get("name", "curfew")
    if what.startswith("delay of "):
        return max(delay(path) for path in what.removeprefix("delay of ").split(" and "))
    if what.startswith("silence of "):
        return silence(values[what.removeprefix("silence of ")])
    if what.startswith("value of "):
        return values[what.removeprefix("value of ")]
    if what == "function":
        # From where the template is written to.
        return os.path.relpath(function(values["Architecture"]), TARGET)
    if what.endswith(".yaml"):
        return render(ROOT / what, values)
    if what.startswith("infra/events/"):
        return event(what.removesuffix(" of a rule"), by_rule=what.endswith(" of a rule"))
    return compact(read_json(what))


def event(path: str, by_rule: bool) -> str:
    """The event as a schedule carries it, for CloudFormation's Fn::Sub to fill in."""
    it = read_json(path)
    action = Path(path).stem.partition("-")[0]
    if it.get("action") != action:
        raise Wrong(f'{path}: action: expected "{action}", found {json.dumps(it.get("action"))}')
    if it.get("scheduled_time") != SCHEDULED_TIME:
        raise Wrong(f'{path}: scheduled_time: missing; write "{SCHEDULED_TIME}", so that a run that comes hours late knows it')
    it = {"timezone": "${Timezone}"} | it
    if it.pop("dry_run", False):
        raise Wrong(f"{path}: dry_run: leave it out; a deployment rehearses anyway until LIVE=yes")
    text = compact(it | {"dry_run": "@dry_run"}).replace('"@dry_run"', "${DryRun}")
    return text.replace(f'"{SCHEDULED_TIME}"', "<time>") if by_rule else text


def delay(path: str) -> int:
    """Seconds after which the event does nothing any more; Lambda and Scheduler keep none longer than six hours."""
    it = read_json(path)
    minutes = it.get("max_delay_minutes", {"stop": 60, "reconcile": 5}.get(it.get("action"), 240))
    return min(max(minutes * 60, 60), 6 * 3600)


def silence(cron: str) -> int:
    """Hours without a run that an alarm bears: a day and two hours; over a weekend, if it doesn't run every day."""
    fields = cron.removeprefix("cron(").removesuffix(")").split()
    daily = len(fields) == 6 and all(field in "*?" for field in fields[2:])
    return 26 if daily else 74


def read_json(path: str) -> dict:
    try:
        it = json.loads((ROOT / path).read_text())
    except OSError as error:
        raise Wrong(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Wrong(f"{path}: {error}") from error
    if not isinstance(it, dict):
        raise Wrong(f"{path}: expected an object")
    return it


def compact(it: dict) -> str:
    return json.dumps(it, separators=(",", ":"), ensure_ascii=False)


# ---- The parameters -----------------------------------------------------------------------------------------------


def parameters() -> dict[str, str]:
    """Those of infra/parameters.yaml, held against the template's constraints."""
    try:
        given = yaml_parse(PARAMETERS.read_text()) or {}
    except Exception as error:
        raise Wrong(f"{PARAMETERS}: {error}") from error
    declared = yaml_parse(TEMPLATE.read_text())["Parameters"]
    values = {key: it["Default"] for key, it in declared.items()}
    values |= {"Live": os.environ.get("LIVE") or "no"} | {key: text(it, declared.get(key, {})) for key, it in given.items()}
    problems = [problem for key, value in values.items() for problem in check(key, value, declared)]
    problems += [f"{key}: can't be set in a file; use {how}" for key, how in BY_HAND.items() if key in given]
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,49}", STACK):
        problems.append(f"STACK: {STACK!r} is not valid; begin with a letter, then use letters, digits and dashes, 50 characters at most")
    if not problems:
        problems = agreements(values)
    if problems:
        raise Wrong("; ".join(problems))
    return values


def text(it: object, declared: dict) -> str:
    # YAML reads a bare yes as true, and off and no as false.
    no = "no" if "no" in declared.get("AllowedValues", []) else "off"
    return {True: "yes", False: no, None: ""}.get(it, it) if isinstance(it, bool | None) else str(it)


def check(key: str, value: str, declared: dict) -> list[str]:
    if key not in declared:
        return [f"{key}: unknown parameter; the template has {', '.join(declared)}"]
    it = declared[key]
    parts = value.split(",") if it["Type"] == "CommaDelimitedList" else [value]
    fits = value in it["AllowedValues"] if "AllowedValues" in it else all(re.search(it["AllowedPattern"], part) for part in parts)
    return [] if fits else [f"{key}: {value!r} is not valid; {it['ConstraintDescription']}"]


def agreements(values: dict[str, str]) -> list[str]:
    """What a template's constraints cannot say."""
    problems = []
    if values["Timezone"] not in available_timezones():
        problems.append(f"Timezone: {values['Timezone']!r} is not an IANA time zone; write one like 'Europe/Berlin'")
    if values["ScheduleWith"] == "rule" and values["Timezone"] != "UTC":
        problems.append(f"Timezone: {values['Timezone']!r} can't be used with ScheduleWith 'rule'; write 'UTC', and StopAt and StartAt in UTC")
    problems += [f"{key}: {values[key]!r} is not valid; {wrong}" for key in ("StopAt", "StartAt") if (wrong := bad_cron(values[key]))]
    key, _, value = values["ManagedTag"].partition("=")
    for path in EVENTS.values():
        if read_json(path).get("tags", {}).get(key) != value:
            tags = f'"tags": {{"{key}": "{value}"}}'
            problems.append(f"ManagedTag: {values['ManagedTag']!r} is not what {path} selects; write {tags} there")
    named = [(path, json.dumps(read_json(path).get("hours_tag", "curfew:hours"))) for path in EVENTS.values()]
    if len({tag for _, tag in named}) > 1:
        found = ", ".join(f"{tag} in {path}" for path, tag in named)
        problems.append(f"hours_tag: {found}; write the same in all, or two schedules will switch the same instances")
    return problems or oversized(values)


def oversized(values: dict[str, str]) -> list[str]:
    """Events that have no room where they go."""
    problems = []
    for key, path in EVENTS.items():
        by_rule = values["ScheduleWith"] == "rule" and values[key] != "off"
        text = event(path, by_rule).replace("${Timezone}", values["Timezone"]).replace("${DryRun}", "false")
        if by_rule and len(text) > RULE_HOLDS:
            holds = f"{len(text):,} characters, but a rule's input holds only {RULE_HOLDS:,}"
            problems.append(f"{path}: {holds}; write 'ScheduleWith: scheduler', whose input holds {SCHEDULER_HOLDS:,} bytes, or fewer hours")
        elif (size := len(text.encode())) > SCHEDULER_HOLDS:
            problems.append(f"{path}: {size:,} bytes, but a schedule's input holds only {SCHEDULER_HOLDS:,}; write fewer hours")
    return problems


def bad_cron(cron: str) -> str | None:
    """What EventBridge would refuse, in the middle of a deployment."""
    if cron == "off":
        return None
    minutes, hours, day, _, weekday, _ = cron.removeprefix("cron(").removesuffix(")").split()
    if (day == "?") == (weekday == "?"):
        return 'write "?" for either the day of the month or the day of the week, not for both'
    for what, field, most in (("minutes", minutes, 59), ("hours", hours, 23)):
        if any(int(number) > most for number in re.findall(r"\d+", field)):
            return f"its {what} must not exceed {most}"
    return None


# ---- The verbs ----------------------------------------------------------------------------------------------------


def deploy() -> None:
    values = parameters()
    template = TARGET / "curfew.yaml"
    template.write_text(render(TEMPLATE, values))
    built = architecture_of(function(values["Architecture"]))
    if built != values["Architecture"]:
        raise Wrong(f"Architecture: {values['Architecture']!r}, but the function is built for {built}; run `make build`")
    print(f"{STACK}: {what_changes(values['Live'])}")
    # A stack that is paused stays so.
    overrides = [f'{key}="{value}"' for key, value in values.items() if key != "Paused"]
    command = ["deploy", "--template-file", template, "--stack-name", STACK, "--resolve-s3", "--s3-prefix", STACK]
    command += ["--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset"]
    command += ["--no-confirm-changeset" if answered() else "--confirm-changeset"]
    sam = Path(sys.executable).with_name("sam")
    # SAM's telemetry is nobody's business.
    ended = subprocess.run([sam, *command, "--parameter-overrides", *overrides], env=os.environ | {"SAM_CLI_TELEMETRY": "0"})
    if ended.returncode:
        raise Wrong("deployment failed; see sam's output above")


def function(architecture: str) -> Path:
    """Returns the zip to deploy: what was built here, or PACKAGE's, once every file there is what SHA256SUMS says."""
    if not os.environ.get("PACKAGE"):
        return BUILT
    folder = Path(os.environ["PACKAGE"]).resolve()
    zipped = f"curfew-{version()}-{architecture}.zip"
    again = "download the package again and unpack it, or build it with `make package`"
    try:
        sums = {name: digest for digest, name in map(str.split, (folder / "SHA256SUMS").read_text().splitlines())}
    except OSError as error:
        raise Wrong(f"PACKAGE: {folder / 'SHA256SUMS'}: {error.strerror}; {again}") from error
    except ValueError as error:
        raise Wrong(f"PACKAGE: {folder / 'SHA256SUMS'}: expected a sum and a name on every line; {again}") from error
    problems = [problem for name, digest in sums.items() if (problem := altered(folder / name, digest))]
    if problems:
        raise Wrong(f"PACKAGE: {'; '.join(problems)}; {again}")
    if zipped not in sums:
        found = ", ".join(name for name in sums if name.endswith(".zip")) or "no zip"
        raise Wrong(f"PACKAGE: {folder} has {found}, but this checkout and Architecture {architecture!r} ask for {zipped}")
    return folder / zipped


def altered(path: Path, expected: str) -> str | None:
    """What is wrong with a file of a package."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None if found == expected else f"{path}: its SHA-256 is {found}, but SHA256SUMS says {expected}"


def version() -> str:
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def architecture_of(built: Path) -> str:
    """What the binary says of itself: ELF's e_machine."""
    try:
        with zipfile.ZipFile(built) as it, it.open("bootstrap") as binary:
            machine = int.from_bytes(binary.read(20)[18:], "little")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise Wrong(f"{built}: contains no function; run `make build`") from error
    return {0x3E: "x86_64", 0xB7: "arm64"}.get(machine, f"machine {machine}")


def what_changes(live: str) -> str:
    becomes = "ARMED: it will stop and start instances" if live == "yes" else "a rehearsal: nothing will be stopped or started"
    now = deployed()
    if not now:
        return becomes
    was = "armed" if now.get("Live") == "yes" else "a rehearsal"
    paused = "; paused, and will stay paused" if now.get("Paused") == "yes" else ""
    return f"{becomes} (was {was}{paused})"


def deployed() -> dict[str, str]:
    """The parameters of the stack as it stands, none if there is no stack."""
    try:
        stack = boto3.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return {}
        raise
    return {it["ParameterKey"]: it["ParameterValue"] for it in stack.get("Parameters", [])}


def switch(paused: str) -> None:
    """Pauses or resumes as the stack is deployed: nothing else of it changes."""
    cloud = boto3.client("cloudformation")
    now = deployed()
    if not now:
        raise Wrong(f"{STACK}: no such stack in {cloud.meta.region_name}")
    if now.get("Paused") == paused:
        print(f"{STACK}: already {'paused' if paused == 'yes' else 'running'}")
        return
    ask(f"{STACK}: {'disable' if paused == 'yes' else 'enable'} the schedules?")
    kept = [{"ParameterKey": key, "UsePreviousValue": True} for key in now if key != "Paused"]
    cloud.update_stack(
        StackName=STACK,
        UsePreviousTemplate=True,
        Parameters=[*kept, {"ParameterKey": "Paused", "ParameterValue": paused}],
        # The second for SAM's transform: only a change set goes without.
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    cloud.get_waiter("stack_update_complete").wait(StackName=STACK, WaiterConfig={"Delay": 5})
    print(f"{STACK}: {'paused; run `make resume` to end it' if paused == 'yes' else 'running'}")


def invoke(path: str) -> None:
    it = read_json(path)
    if "detail" in it or "detail-type" in it:
        raise Wrong(f"{path}: this is an envelope; write the request itself, so that it can be sent as a dry run")
    live = os.environ.get("LIVE") == "yes"
    if not live:
        it["dry_run"] = True
    print(f"{STACK}: {compact(it)}")
    if live and not it.get("dry_run"):
        ask(f"{STACK}: {it.get('action')} these instances for real?")
    # One attempt: a second would be another run.
    client = boto3.client("lambda", config=Config(read_timeout=910, retries={"total_max_attempts": 1}))
    answer = client.invoke(FunctionName=STACK, Payload=json.dumps(it))
    report = json.loads(answer["Payload"].read())
    print(json.dumps(report, indent=2, ensure_ascii=False))
    if "FunctionError" in answer:
        raise Wrong(f"{report.get('errorType')}: {report.get('errorMessage')}")
    print(report["message"])


def ask(question: str) -> None:
    if answered():
        return
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Wrong("cancelled; nothing was changed")


def answered() -> bool:
    return os.environ.get("YES") == "yes"


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["deploy"]:
                deploy()
            case ["pause"]:
                switch("yes")
            case ["resume"]:
                switch("no")
            case ["invoke", path]:
                invoke(path)
            case ["architecture"]:
                print(parameters()["Architecture"])
            case ["render", folder]:
                render_all(Path(folder))
            case _:
                raise Wrong(__doc__.strip())
    except (Wrong, ClientError, BotoCoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
