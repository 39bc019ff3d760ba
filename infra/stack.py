"""What the Makefile's deployment commands do beyond calling a tool.

    stack.py deploy | pause | resume | halt | promote | invoke EVENT | undeploy | render FOLDER | architecture

Parameters are read from infra/parameters.yaml (set PARAMETERS for another file, STACK for another stack). A stack whose name
ends in -organization is one of infra/organization.yaml; what pauses, resumes or halts a stack does so to its organization's, too.
PACKAGE is a folder whose function is deployed instead of the one built here; TAGS is what `deploy` puts on the stack and
everything in it, like 'team=platform "owner=Jane Doe"'; BUCKET is where the zip goes instead of SAM's own bucket. Commands that
change something show what they will do and ask first, except halt, which is for emergencies; YES=yes in the environment answers
for you. What is known to be wrong is refused before AWS is called.
"""

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import uuid
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from zoneinfo import available_timezones

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from samcli.yamlhelper import yaml_parse

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = ROOT / os.environ.get("PARAMETERS", "infra/parameters.yaml")
TEMPLATE = ROOT / "infra/template.yaml"
ORGANIZATION_TEMPLATE = ROOT / "infra/organization.yaml"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILT = TARGET / "lambda/ec2-curfew/bootstrap.zip"
STACK = os.environ.get("STACK", "curfew")
CURFEW = STACK.removesuffix("-organization")
ORGANIZATION = f"{CURFEW}-organization"
# What a verb is about: a stack and its organization's, or that one alone.
MEANT = [CURFEW, ORGANIZATION] if STACK == CURFEW else [ORGANIZATION]
# Remembers what the template reserves while a function is halted.
RESERVE_TAG = "curfew:concurrency"
SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
# What each schedule carries.
EVENTS = {
    "StopAt": "infra/events/stop-7pm.json",
    "StartAt": "infra/events/start-8am.json",
    "ReconcileAt": "infra/events/reconcile.json",
    "SnapshotsAt": "infra/events/snapshots.json",
}
# Characters of a rule's input, bytes of a schedule's (quotas of EventBridge, and of EventBridge Scheduler).
RULE_HOLDS, SCHEDULER_HOLDS = 8192, 256 * 1024
# Minutes after which a warning is none any more, and characters of a request's name.
WARNING_HOLDS, NAME_HOLDS = 20, 64


# Whether it is armed or paused is up to a person, and must not change with a file; nor what it is called.
BY_HAND = {"Live": "`make deploy LIVE=yes`", "Paused": "`make pause`", "Curfew": "`make deploy STACK=…`"}


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
    for template in (ORGANIZATION_TEMPLATE.name, "member-role.yaml", "chat.yaml"):
        (folder / template).write_text(render(ROOT / "infra" / template, values))
    key, _, value = values["ManagedTag"].partition("=")
    account = {
        "AWS::Partition": "aws",
        "AWS::Region": "us-east-1",
        "AWS::URLSuffix": "amazonaws.com",
        "AWS::AccountId": "111122223333",
        "AWS::StackName": CURFEW,
        "TagKey": key,
        "TagValue": value,
        "KmsKeys": "arn:aws:kms:us-east-1:111122223333:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f",
        "DeadLetters.Arn": f"arn:aws:sqs:us-east-1:111122223333:{CURFEW}-DeadLetters",
        "Function.Arn": f"arn:aws:lambda:us-east-1:111122223333:function:{CURFEW}",
        "Curfew": CURFEW,
        "CurfewAccount": "444455556666",
        "ExecutionRole": f"{ORGANIZATION}-ExecutionRole-0A1B2C3D4E5F",
        "OrganizationId": "o-0a1b2c3d4e",
        "RolePath": values["RolePath"],
        "ExecutionRolePath": f"{values['RolePath']}organization/",
        "Bus": "arn:aws:events:us-east-1:111122223333:event-bus/default",
        "DataKeyArn": "arn:aws:kms:us-east-1:111122223333:key/4e5f6a7b-4e5f-6a7b-8c9d-4e5f6a7b8c9d",
        "Bucket": "example-artifacts",
        "Boundary": "arn:aws:iam::111122223333:policy/platform/boundary",
        "Deployer": "platform-deployer",
        "OrganizationDeployer": "organization-deployer",
        "Tagger": "platform-tagger",
        "StateMachine": f"arn:aws:states:us-east-1:111122223333:stateMachine:{ORGANIZATION}",
    }
    defaults = {key: str(it["Default"]) for key, it in declarations(ORGANIZATION_TEMPLATE).items() if "Default" in it}
    organization = defaults | account | {
        "AWS::StackName": ORGANIZATION,
        "DeadLetters.Arn": f"arn:aws:sqs:us-east-1:111122223333:{ORGANIZATION}-DeadLetters",
        "Targets": "ou-0a1b-2c3d4e5f",
    }

    def filled(path: Path) -> str:
        its = organization if path.name.startswith("organization") else account
        return re.sub(r"\$\{([^}]+)\}", lambda it: its[it[1]], path.read_text())

    policies = {it.name: filled(it) for it in sorted((ROOT / "policy").glob("*.json"))}
    for name, policy in policies.items():
        (folder / "policy" / name).write_text(policy)
    (folder / "objects.json").write_text(compact(objects(policies, filled(ROOT / "infra/organization.asl.json"))))


def objects(policies: dict[str, str], machine: str) -> dict:
    """A template that nobody deploys: in ours, policies and state machine are texts, which no linter looks into."""
    kinds = {
        "-trust.json": ("AWS::IAM::Role", "AssumeRolePolicyDocument", {}),
        "-key-policy.json": ("AWS::KMS::Key", "KeyPolicy", {}),
        # Not in IAM's language.
        "tag-policy.json": ("AWS::Organizations::Policy", "Content", {"Name": "curfew", "Type": "TAG_POLICY"}),
        # A service control policy, too, which is looked into only as one of these.
        "": ("AWS::IAM::ManagedPolicy", "PolicyDocument", {}),
    }
    resources = {}
    for name, policy in policies.items():
        kind, key, others = next(it for end, it in kinds.items() if name.endswith(end))
        resources[re.sub(r"\W", "", name.title())] = {"Type": kind, "Properties": {key: json.loads(policy)} | others}
    properties = {"RoleArn": "arn:aws:iam::111122223333:role/curfew", "Definition": json.loads(machine)}
    resources["StateMachine"] = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}


def insertion(what: str, values: dict[str, str]) -> str | int:
    if what.startswith("name of "):
        return read_json(what.removeprefix("name of ")).get("name", "curfew")
    if what.startswith("delay of "):
        return max(delay(request(path)) for path in what.removeprefix("delay of ").split(" and "))
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


def request(path: str) -> dict:
    """What a file of infra/events asks for; with " as a warning" behind its name, what it would do if it came now."""
    path, _, warning = path.partition(" as a ")
    it = read_json(path)
    if not warning:
        return it
    # Under its own name it would count as a run of the stop's, which an alarm misses.
    name = f"{it.get('name', 'curfew')}-warning"
    if len(name) > NAME_HOLDS:
        raise Wrong(f"{path}: name: {it['name']!r} leaves no room for \"-warning\"; write {NAME_HOLDS - len('-warning')} characters at most")
    return it | {"name": name, "max_delay_minutes": WARNING_HOLDS}


def event(path: str, by_rule: bool) -> str:
    """The event as a schedule carries it, for CloudFormation's Fn::Sub to fill in."""
    it = request(path)
    path, _, warning = path.partition(" as a ")
    action = Path(path).stem.partition("-")[0]
    if it.get("action") != action:
        raise Wrong(f'{path}: action: expected "{action}", found {json.dumps(it.get("action"))}')
    if it.get("scheduled_time") != SCHEDULED_TIME:
        raise Wrong(f'{path}: scheduled_time: missing; write "{SCHEDULED_TIME}", so that a run that comes hours late knows it')
    it = {"timezone": "${Timezone}"} | it
    if it.pop("dry_run", False):
        raise Wrong(f"{path}: dry_run: leave it out; a deployment rehearses anyway until LIVE=yes")
    text = compact(it | {"dry_run": "@dry_run"}).replace('"@dry_run"', "true" if warning else "${DryRun}")
    return text.replace(f'"{SCHEDULED_TIME}"', "<time>") if by_rule else text


def delay(it: dict) -> int:
    """Seconds after which the event does nothing any more; Lambda and Scheduler keep none longer than six hours."""
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
    """Those of infra/parameters.yaml, held against the templates' constraints. One file may serve both stacks."""
    try:
        given = yaml_parse(PARAMETERS.read_text()) or {}
    except Exception as error:
        raise Wrong(f"{PARAMETERS}: {error}") from error
    declared = declarations(ORGANIZATION_TEMPLATE) | declarations(TEMPLATE)
    values = {key: str(it["Default"]) for key, it in declared.items() if "Default" in it}
    values |= {"Live": os.environ.get("LIVE") or "no"} | {key: text(it, declared.get(key, {})) for key, it in given.items()}
    problems = [problem for key, value in values.items() for problem in check(key, value, declared)]
    problems += [f"{key}: can't be set in a file; use {how}" for key, how in BY_HAND.items() if key in given]
    if STACK == ORGANIZATION:
        missing = [key for key in declarations(ORGANIZATION_TEMPLATE) if key not in values]
        problems += [f"{key}: missing; {declared[key]['ConstraintDescription']}" for key in missing]
    # A role's name holds 64: with a longer one, CloudFormation would shorten it, and the policies not know it again.
    most = 20 if STACK == ORGANIZATION else 36
    if not re.fullmatch(rf"[A-Za-z][A-Za-z0-9-]{{0,{most - 1}}}", CURFEW):
        before = " before -organization" if STACK == ORGANIZATION else ""
        problems.append(f"STACK: {STACK!r} is not valid; begin with a letter, then use letters, digits and dashes, {most} characters at most{before}")
    if not problems:
        problems = agreements(values)
    if problems:
        raise Wrong("; ".join(problems))
    return values | {"Curfew": CURFEW}


def declarations(template: Path) -> dict[str, dict]:
    return yaml_parse(template.read_text())["Parameters"]


def text(it: object, declared: dict) -> str:
    if isinstance(it, dict):
        return compact(it)
    # YAML reads a bare yes as true, and off and no as false.
    no = "no" if "no" in declared.get("AllowedValues", []) else "off"
    return {True: "yes", False: no, None: ""}.get(it, it) if isinstance(it, bool | None) else str(it)


def check(key: str, value: str, declared: dict) -> list[str]:
    if key not in declared:
        return [f"{key}: unknown parameter; the template has {', '.join(declared)}"]
    it = declared[key]
    parts = value.split(",") if it["Type"] == "CommaDelimitedList" else [value]
    if "AllowedValues" in it:
        fits = value in it["AllowedValues"]
    elif it["Type"] == "Number":
        fits = value.isdecimal() and it["MinValue"] <= int(value) <= it.get("MaxValue", int(value))
    else:
        fits = all(re.search(it["AllowedPattern"], part) for part in parts)
    return [] if fits else [f"{key}: {value!r} is not valid; {it['ConstraintDescription']}"]


def agreements(values: dict[str, str]) -> list[str]:
    """What a template's constraints cannot say."""
    problems = []
    if values["Timezone"] not in available_timezones():
        problems.append(f"Timezone: {values['Timezone']!r} is not an IANA time zone; write one like 'Europe/Berlin'")
    if values["ScheduleWith"] == "rule" and values["Timezone"] != "UTC":
        problems.append(f"Timezone: {values['Timezone']!r} can't be used with ScheduleWith 'rule'; write 'UTC', and StopAt and StartAt in UTC")
    problems += [f"{key}: {values[key]!r} is not valid; {wrong}" for key in ("StopAt", "StartAt", "WarnAt", "SnapshotsAt") if (wrong := bad_cron(values[key]))]
    if values["WarnAt"] != "off":
        needs = {"Events": "nobody would get the warning", "StopAt": "there is no stop to warn of"}
        problems += [f"WarnAt: {values['WarnAt']!r}, but {key} is 'off': {why}" for key, why in needs.items() if values[key] == "off"]
    if values["Ec2Limits"] and not are_limits(values["Ec2Limits"]):
        wrong = declarations(TEMPLATE)["Ec2Limits"]["ConstraintDescription"]
        problems.append(f"Ec2Limits: {values['Ec2Limits']!r} is not valid; {wrong}")
    key, _, value = values["ManagedTag"].partition("=")
    for path in EVENTS.values():
        if read_json(path).get("tags", {}).get(key) != value:
            tags = f'"tags": {{"{key}": "{value}"}}'
            problems.append(f"ManagedTag: {values['ManagedTag']!r} is not what {path} selects; write {tags} there")
    switching = [path for key, path in EVENTS.items() if key != "SnapshotsAt"]
    named = [(path, json.dumps(read_json(path).get("hours_tag", "curfew:hours"))) for path in switching]
    if len({tag for _, tag in named}) > 1:
        found = ", ".join(f"{tag} in {path}" for path, tag in named)
        problems.append(f"hours_tag: {found}; write the same in all, or two schedules will switch the same instances")
    return problems or oversized(values)


def oversized(values: dict[str, str]) -> list[str]:
    """Events that have no room where they go."""
    problems = []
    for key, path in (EVENTS | ({} if values["WarnAt"] == "off" else {"WarnAt": f"{EVENTS['StopAt']} as a warning"})).items():
        by_rule = values["ScheduleWith"] == "rule" and values[key] != "off"
        text = event(path, by_rule).replace("${Timezone}", values["Timezone"]).replace("${DryRun}", "false")
        if by_rule and len(text) > RULE_HOLDS:
            holds = f"{len(text):,} characters, but a rule's input holds only {RULE_HOLDS:,}"
            problems.append(f"{path}: {holds}; write 'ScheduleWith: scheduler', whose input holds {SCHEDULER_HOLDS:,} bytes, or fewer hours")
        elif (size := len(text.encode())) > SCHEDULER_HOLDS:
            problems.append(f"{path}: {size:,} bytes, but a schedule's input holds only {SCHEDULER_HOLDS:,}; write fewer hours")
    return problems


def are_limits(text: str) -> bool:
    """Whether the function can begin with them: it reads them as strictly."""
    try:
        limits = json.loads(text)
        rates = [rate for action in limits.values() for rate in (action.pop("calls"), action.pop("instances"), *action.values())]
        return set(limits) <= {"StartInstances", "StopInstances"} and all(
            set(rate) == {"size", "refill"} and rate["size"] >= 1 and rate["refill"] > 0 for rate in rates
        ) and not any(limits.values())
    except (ValueError, AttributeError, KeyError, TypeError):
        return False


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


def warn_of_what_it_has_not(values: dict[str, str]) -> None:
    """Says which parameters an organization's stack has not, where one file serves both stacks."""
    has_not = {"SnapshotsAt": ("off", "no function for snapshots"), "ScheduleWith": ("scheduler", "schedules of EventBridge Scheduler only")}
    for key, (default, why) in has_not.items() if STACK == ORGANIZATION else ():
        if values[key] != default:
            print(f"warning: {key}: {values[key]!r} has no effect here: {STACK} has {why}", file=sys.stderr)


def warn_without_bin(values: dict[str, str]) -> None:
    """Says so if what is deleted can't be brought back: the account's Recycle Bin keeps no snapshots."""
    if values["SnapshotsAt"] == "off" or STACK == ORGANIZATION:
        return
    event = read_json(EVENTS["SnapshotsAt"])
    session, regions = boto3.session.Session(), event.get("regions") or []
    if regions == "all" and session.region_name:
        regions = session.get_available_regions("rbin", session.get_partition_for_region(session.region_name))
    regions = [regions] if isinstance(regions, str) else regions or [session.region_name]
    patience = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})
    try:
        bins = [session.client("rbin", region_name=region, config=patience) for region in regions]
    except BotoCoreError:
        return
    with ThreadPoolExecutor(8) as pool:
        answers = list(zip(regions, pool.map(lambda bin: keeps_snapshots(bin, event.get("tags", {})), bins)))
    for answer, warning in (
        (False, "no Recycle Bin rule keeps deleted snapshots in {}, so what SnapshotsAt deletes is gone for good"),
        ("refused", "whether a Recycle Bin rule keeps deleted snapshots in {} could not be asked: rbin:ListRules is denied"),
    ):
        if those := [region for region, it in answers if it == answer]:
            how = 'infra/README.md, "Snapshots", says how to make one'
            print(f"warning: {warning.format(', '.join(those))}; {how}", file=sys.stderr)


def keeps_snapshots(bin, tags: dict[str, str | list[str]]) -> bool | str | None:
    """Whether a Recycle Bin rule keeps snapshots with these tags; None without an account at hand, or where it has no such region."""
    try:
        pages = bin.get_paginator("list_rules").paginate(ResourceType="EBS_SNAPSHOT")
        return any(keeps(bin, rule["Identifier"], tags) for page in pages for rule in page["Rules"])
    except ClientError as error:
        return "refused" if error.response["Error"]["Code"].startswith("AccessDenied") else None
    except BotoCoreError:
        return None


def keeps(bin, rule: str, tags: dict[str, str | list[str]]) -> bool:
    """Whether a rule is for all snapshots, or for some of these tags, and doesn't leave them out."""
    try:
        it = bin.get_rule(Identifier=rule)
    except ClientError:
        # Without the right to look closer, it counts.
        return True

    def is_about(named: list[dict[str, str]]) -> bool:
        return any(
            "ResourceTagValue" not in tag or fnmatchcase(tag["ResourceTagValue"], pattern)
            for tag in named
            for patterns in [tags.get(tag["ResourceTagKey"], [])]
            for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        )

    named, spared = it.get("ResourceTags", []), it.get("ExcludeResourceTags", [])
    return (not named or is_about(named)) and not is_about(spared)


# ---- The verbs ----------------------------------------------------------------------------------------------------


def deploy() -> None:
    values = parameters()
    source = ORGANIZATION_TEMPLATE if STACK == ORGANIZATION else TEMPLATE
    template = TARGET / f"{STACK}.yaml"
    template.write_text(render(source, values))
    built = architecture_of(function(values["Architecture"]))
    if built != values["Architecture"]:
        raise Wrong(f"Architecture: {values['Architecture']!r}, but the function is built for {built}; run `make build`")
    now = deployed(STACK)
    if now.get("Live") == "yes" and not os.environ.get("LIVE"):
        if answered():
            raise Wrong(f"{STACK}: is ARMED, and YES=yes doesn't say whether it stays so; add LIVE=yes to keep it armed, LIVE=no to disarm it")
        ask(f"{STACK}: is ARMED; disarm it? (LIVE=yes keeps it armed)")
    print(f"{STACK}: {what_changes(values, now)}")
    before = reserves(STACK) if now else {}
    # A stack that is paused stays so.
    overrides = [f"{key}={quoted(values[key])}" for key in declarations(source) if key != "Paused"]
    # One option for all: of several, SAM takes the last.
    tags = [f'"{key}"="{value}"' for key, value in stack_tags().items()]
    sam(
        *["deploy", "--template-file", template, "--stack-name", STACK, "--s3-prefix", STACK],
        *(["--s3-bucket", bucket] if (bucket := os.environ.get("BUCKET")) else ["--resolve-s3"]),
        *(["--tags", *tags] if tags else []),
        *["--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset"],
        *["--no-confirm-changeset" if answered() else "--confirm-changeset"],
        *["--parameter-overrides", *overrides],
    )
    # So does a function that is halted, whatever CloudFormation makes of a reserve that it didn't set; a new one, where all were.
    all_were = set(before.values()) == {0}
    for name, reserve in reserves(STACK).items():
        if reserve != 0 and before.get(name, 0 if all_were else None) == 0:
            reserve_nothing(name)
    tell()


def quoted(value: str) -> str:
    """The value as SAM reads it."""
    return '"' + value.replace('"', '\\"') + '"'


def sam(*arguments: object) -> None:
    command = [Path(sys.executable).with_name("sam"), *arguments]
    # SAM's telemetry is nobody's business.
    if subprocess.run(command, env=os.environ | {"SAM_CLI_TELEMETRY": "0"}).returncode:
        raise Wrong(f"sam {arguments[0]} failed; see its output above")


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


def stack_tags() -> dict[str, str]:
    """Those of TAGS; without it, those that the stack has: SAM would take them off."""
    given = os.environ.get("TAGS", "")
    if not given:
        return {it["Key"]: it["Value"] for it in described(STACK).get("Tags", [])}
    try:
        pairs = [it.partition("=") for it in shlex.split(given)]
    except ValueError as error:
        raise Wrong(f"TAGS: {given!r}: {error}") from error
    for key, equals, value in pairs:
        # What CloudFormation takes.
        if not (equals and re.fullmatch(r"(?!aws:)[\w .:/=+@-]{1,128}", key) and re.fullmatch(r"[\w .:/=+@-]{1,256}", value)):
            raise Wrong(f"TAGS: {key + equals + value!r} is not valid; write key=value, like 'team=platform \"owner=Jane Doe\"'")
    return {key: value for key, _, value in pairs}


def architecture_of(built: Path) -> str:
    """What the binary says of itself: ELF's e_machine."""
    try:
        with zipfile.ZipFile(built) as it, it.open("bootstrap") as binary:
            machine = int.from_bytes(binary.read(20)[18:], "little")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise Wrong(f"{built}: contains no function; run `make build`") from error
    return {0x3E: "x86_64", 0xB7: "arm64"}.get(machine, f"machine {machine}")


def what_changes(values: dict[str, str], now: dict[str, str]) -> str:
    deletes = ", mark snapshots and delete them" if STACK != ORGANIZATION and values["SnapshotsAt"] != "off" else ""
    becomes = f"ARMED: it will stop and start instances{deletes}" if values["Live"] == "yes" else "a rehearsal: nothing will be stopped or started"
    if not now:
        return becomes
    was = "armed" if now.get("Live") == "yes" else "a rehearsal"
    paused = "; paused, and will stay paused" if now.get("Paused") == "yes" else ""
    return f"{becomes} (was {was}{paused})"


def deployed(stack: str) -> dict[str, str]:
    """The parameters of the stack as it stands, none if there is no stack."""
    return {it["ParameterKey"]: it["ParameterValue"] for it in described(stack).get("Parameters", [])}


def described(stack: str) -> dict:
    """The stack as it stands, empty if there is none."""
    try:
        it = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return {}
        raise
    # Its first deployment was shown and declined.
    return {} if it["StackStatus"] == "REVIEW_IN_PROGRESS" else it


def standing() -> dict[str, dict[str, str]]:
    """The stacks that are meant, with their parameters."""
    them = {stack: now for stack in MEANT if (now := deployed(stack))}
    if not them:
        raise Wrong(f"{STACK}: no such stack in {boto3.client('cloudformation').meta.region_name}")
    return them


def tell() -> None:
    """Says what each of both stacks is: nobody shall take one that runs for one that doesn't."""
    for stack in (CURFEW, ORGANIZATION):
        if now := deployed(stack):
            print(f"{stack}: {what_is(stack, now)}")


def what_is(stack: str, now: dict[str, str]) -> str:
    it = "armed" if now.get("Live") == "yes" else "a rehearsal"
    if now.get("Paused") == "yes":
        it += ", paused; `make resume` ends it"
    elif all(now.get(key, "off") == "off" for key in EVENTS):
        it += ", without a schedule"
    else:
        it += ", its schedules are on"
    if not (names := halted(stack)):
        return it
    whose = "no run" if names == list(reserves(stack)) else f"no run of {names[0]}"
    return f"{it}; HALTED: {whose} begins until `make resume`"


def pause() -> None:
    switch("yes", standing())
    print("A run that has begun goes on, with its retries; `make halt` lets none of these begin.")


def resume() -> None:
    them = standing()
    lifted = [name for stack in them for name in halted(stack)]
    switch("no", them, lifted)


def switch(paused: str, stacks: dict[str, dict[str, str]], lifted: Sequence[str] = ()) -> None:
    """Pauses or resumes stacks as they are deployed: nothing else of them changes."""
    change = [stack for stack, now in stacks.items() if now.get("Paused", "no") != paused]
    what = [f"{'disable' if paused == 'yes' else 'enable'} the schedules of {' and '.join(change)}"] * bool(change)
    what += [f"let {' and '.join(lifted)} run again"] * bool(lifted)
    if what:
        ask(f"{' and '.join(what)}?")
    failed = []
    for stack in stacks:
        try:
            for name in functions_of(stack):
                if name in lifted:
                    if stack == ORGANIZATION:
                        end_what_waits()
                    reserve_again(name)
            if stack in change:
                set_paused(stack, stacks[stack], paused)
        except (Wrong, ClientError, BotoCoreError) as error:
            failed.append(f"{stack}: NOT {'paused' if paused == 'yes' else 'resumed'}: {error}")
    tell()
    if failed:
        raise Wrong("; ".join(failed))


def set_paused(stack: str, now: dict[str, str], paused: str) -> None:
    """By a change set, as SAM deploys too: an update of a template with a transform would need leave of its own."""
    if "Paused" not in now:
        raise Wrong("deployed by a version that can't be; `make halt` stops it, `make deploy` makes it pausable")
    cloud = boto3.client("cloudformation")
    change = {"StackName": stack, "ChangeSetName": f"{'pause' if paused == 'yes' else 'resume'}-{uuid.uuid4()}"}
    kept = [{"ParameterKey": key, "UsePreviousValue": True} for key in now if key != "Paused"]
    cloud.create_change_set(
        **change,
        UsePreviousTemplate=True,
        Parameters=[*kept, {"ParameterKey": "Paused", "ParameterValue": paused}],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    cloud.get_waiter("change_set_create_complete").wait(**change, WaiterConfig={"Delay": 2})
    cloud.execute_change_set(**change)
    cloud.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig={"Delay": 5})


def halt() -> None:
    """At once, and without CloudFormation."""
    failed, found = [], False
    for name in [name for stack in MEANT for name in functions_of(stack)]:
        try:
            reserve_nothing(name)
            found = True
            print(f"{name}: HALTED; a run that has begun goes on for a quarter of an hour at most, no other begins until `make resume`")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                failed.append(f"{name}: NOT halted: {error}")
    if failed:
        raise Wrong("; ".join(failed))
    if not found:
        raise Wrong(f"{STACK}: no such function in {boto3.client('lambda').meta.region_name}")


def end_what_waits() -> None:
    """Ends the organization's executions: they would go on with what was due during the halt. What Lambda still runs is not ended."""
    machine = next(it["OutputValue"] for it in described(ORGANIZATION)["Outputs"] if it["OutputKey"] == "StateMachine")
    states = boto3.client("stepfunctions")
    pages = states.get_paginator("list_executions").paginate(stateMachineArn=machine, statusFilter="RUNNING")
    for arn in [it["executionArn"] for page in pages for it in page["executions"]]:
        states.stop_execution(executionArn=arn, error="Halted", cause="it waited for the halt to end; `make resume` has ended it instead")
        print(f"{ORGANIZATION}: ended what waited for the halt to end: {arn}")


def functions_of(stack: str) -> list[str]:
    """The names of its functions; there is one for snapshots only if SnapshotsAt is set."""
    return [stack] if stack == ORGANIZATION else [stack, f"{stack}-snapshots"]


def reserves(stack: str) -> dict[str, int | None]:
    """What is reserved for each of its functions that exist."""
    functions, them = boto3.client("lambda"), {}
    for name in functions_of(stack):
        try:
            them[name] = functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
        except functions.exceptions.ResourceNotFoundException:
            continue
    return them


def halted(stack: str) -> list[str]:
    """Those of its functions that are halted."""
    return [name for name, reserve in reserves(stack).items() if reserve == 0]


def reserve_nothing(name: str) -> None:
    functions = boto3.client("lambda")
    reserve = functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    if reserve:
        arn = functions.get_function_configuration(FunctionName=name)["FunctionArn"]
        functions.tag_resource(Resource=arn, Tags={RESERVE_TAG: str(reserve)})


def reserve_again(name: str) -> None:
    """What was reserved before, if anything was."""
    functions = boto3.client("lambda")
    function = functions.get_function(FunctionName=name)
    if reserve := function.get("Tags", {}).get(RESERVE_TAG):
        functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=int(reserve))
        functions.untag_resource(Resource=function["Configuration"]["FunctionArn"], TagKeys=[RESERVE_TAG])
    else:
        functions.delete_function_concurrency(FunctionName=name)


def promote() -> None:
    """Moves what runs in all accounts to what is deployed."""
    functions = boto3.client("lambda")
    try:
        now = functions.get_function_configuration(FunctionName=ORGANIZATION)
    except functions.exceptions.ResourceNotFoundException as error:
        raise Wrong(f"{ORGANIZATION}: no such function in {functions.meta.region_name}") from error
    meant = function(now["Architectures"][0])
    if meant.exists() and now["CodeSha256"] != (built := base64.b64encode(hashlib.sha256(meant.read_bytes()).digest()).decode()):
        raise Wrong(f"{ORGANIZATION}: has the code {now['CodeSha256']}, but {meant} is {built}; deploy that first, or say by PACKAGE= which is meant")
    live = functions.get_alias(FunctionName=ORGANIZATION, Name="live")["FunctionVersion"]
    ask(f"{ORGANIZATION}: let all accounts have the code {now['CodeSha256']}, deployed {now['LastModified']}, in place of version {live}?")
    # Lambda refuses it if somebody has deployed another meanwhile, and gives the last one again if nothing is new.
    version = functions.publish_version(FunctionName=ORGANIZATION, CodeSha256=now["CodeSha256"], RevisionId=now["RevisionId"])["Version"]
    functions.update_alias(FunctionName=ORGANIZATION, Name="live", FunctionVersion=version)
    print(f"{ORGANIZATION}: version {version} is live" + (", as before" if version == live else f"; before it was {live}"))


def undeploy() -> None:
    """Removes the one stack that is named."""
    bucket = os.environ.get("BUCKET")
    sam(
        *["delete", "--stack-name", STACK, *["--no-prompts"] * answered()],
        *(["--s3-bucket", bucket, "--s3-prefix", STACK] if bucket else []),
    )
    tell()


def invoke(path: str) -> None:
    it = read_json(path)
    if "detail" in it or "detail-type" in it:
        raise Wrong(f"{path}: this is an envelope; write the request itself, so that it can be sent as a dry run")
    live = os.environ.get("LIVE") == "yes"
    if not live:
        it["dry_run"] = True
    print(f"{STACK}: {compact(it)}")
    if live and not it.get("dry_run"):
        does = "delete these snapshots" if it.get("action") == "snapshots" else f"{it.get('action')} these instances"
        ask(f"{STACK}: {does} for real?")
    # One attempt: a second would be another run.
    client = boto3.client("lambda", config=Config(read_timeout=910, retries={"total_max_attempts": 1}))
    function = f"{STACK}-snapshots" if it.get("action") == "snapshots" else STACK
    answer = client.invoke(FunctionName=function, Payload=json.dumps(it))
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
                pause()
            case ["resume"]:
                resume()
            case ["halt"]:
                halt()
            case ["promote"]:
                promote()
            case ["undeploy"]:
                undeploy()
            case ["invoke", path]:
                invoke(path)
            case ["architecture"]:
                print(parameters()["Architecture"])
            case ["render", folder]:
                render_all(Path(folder))
                warn_of_what_it_has_not(parameters())
                warn_without_bin(parameters())
            case _:
                raise Wrong(__doc__.strip())
    except (Wrong, ClientError, BotoCoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
