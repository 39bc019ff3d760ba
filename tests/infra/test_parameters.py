"""Parameters that can't be right are refused before anything is created, by name; twice: by us and by the template."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml
from conftest import ROOT

WRONG = [
    ("Timezone", {"Timezone": "Mars/Base"}),
    ("Timezone", {"Timezone": ""}),
    ("Timezone", {"ScheduleWith": "rule", "Timezone": "Europe/Berlin"}),
    ("ManagedTag", {"ManagedTag": "curfew="}),
    ("ManagedTag", {"ManagedTag": "=yes"}),
    ("ManagedTag", {"ManagedTag": "curfew"}),
    ("ManagedTag", {"ManagedTag": "aws:curfew=yes"}),
    ("ManagedTag", {"ManagedTag": "team=platform"}),
    ("StopAt", {"StopAt": "cron(0 19 ? * *)"}),
    ("StopAt", {"StopAt": "0 19 ? * * *"}),
    ("StopAt", {"StopAt": "rate(1 day)"}),
    ("StopAt", {"StopAt": ""}),
    ("StopAt", {"StopAt": "cron(0 19 * * * *)"}),
    ("StopAt", {"StopAt": "cron(0 19 ? * ? *)"}),
    ("StopAt", {"StopAt": "cron(60 19 ? * * *)"}),
    ("StopAt", {"StopAt": "cron(0 24 ? * * *)"}),
    ("StopAt", {"StopAt": "cron(0 7pm ? * * *)"}),
    ("StartAt", {"StartAt": "cron(0 8 ? * MON-FRI)"}),
    ("ReconcileAt", {"ReconcileAt": "rate(5 minutes)"}),
    ("ReconcileAt", {"ReconcileAt": "cron(0/5 * * * *)"}),
    ("ReconcileAt", {"ReconcileAt": "cron(0/5 * ? * ? *)"}),
    ("ReconcileAt", {"ReconcileAt": "cron(0/10 * * * ? *)"}),
    ("ReconcileAt", {"ReconcileAt": "cron(5/5 * * * ? *)"}),
    ("ReconcileAt", {"ReconcileAt": "cron(0/5 7-19 * * ? *)"}),
    ("ReconcileAt", {"ReconcileAt": "cron(0/5 * ? * MON-FRI *)"}),
    ("ReconcileAt", {"ReconcileAt": ""}),
    ("ScheduleWith", {"ScheduleWith": "cron"}),
    ("Architecture", {"Architecture": "arm"}),
    ("Email", {"Email": "platform"}),
    ("KmsKeyArns", {"KmsKeyArns": "alias/ebs"}),
    ("EncryptedVolumes", {"EncryptedVolumes": "perhaps"}),
    ("Live", {"Live": "perhaps"}),
    ("Live", {"Live": "yes"}),
    ("Paused", {"Paused": "yes"}),
    ("StoppAt", {"StoppAt": "off"}),
]
# What the template can't know: all zones of the world, cron's finer rules, this project's events, and who says that it is
# armed. (A typo AWS refuses, MiniStack doesn't.)
OURS_ALONE = [
    {"Timezone": "Mars/Base"},
    {"ManagedTag": "team=platform"},
    {"StopAt": "cron(0 19 * * * *)"},
    {"StopAt": "cron(0 19 ? * ? *)"},
    {"StopAt": "cron(60 19 ? * * *)"},
    {"StopAt": "cron(0 24 ? * * *)"},
    {"Live": "yes"},
    {"Paused": "yes"},
    {"StoppAt": "off"},
]


PARAMETERS = re.findall(r"^  (\w+):$", re.search(r"^Parameters:\n(.*?)^\w", (ROOT / "infra/template.yaml").read_text(), re.M | re.S)[1], re.M)


def render(folder, parameters: str, **env: str):
    path = folder / "parameters.yaml"
    path.write_text(parameters)
    return subprocess.run(
        [sys.executable, ROOT / "infra/stack.py", "render", folder],
        cwd=ROOT,
        env=os.environ | {"PARAMETERS": str(path)} | env,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("name", "parameters"), WRONG, ids=str)
def test_a_parameter_that_cannot_be_right_is_refused_by_name(tmp_path, name, parameters):
    ended = render(tmp_path, yaml.safe_dump(parameters))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {name}: "), ended.stderr
    if name in PARAMETERS and parameters not in ({"Live": "yes"}, {"Paused": "yes"}):
        assert repr(parameters.get(name, "")) in ended.stderr, "the value is quoted"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("name", "parameters"), [it for it in WRONG if it[1] not in OURS_ALONE], ids=str)
def test_the_template_refuses_it_too(cloud, rendered, name, parameters):
    """For who deploys it without `make`. (The zip must be in S3 for that; CloudFormation looks at parameters first.)"""
    template = (rendered / "curfew.yaml").read_text().replace("lambda/ec2-curfew/bootstrap.zip", "s3://bucket/bootstrap.zip")
    cloudformation = cloud.client("cloudformation")
    with pytest.raises(cloudformation.exceptions.ClientError) as refused:
        cloudformation.create_change_set(
            StackName="wrong",
            ChangeSetName="wrong",
            ChangeSetType="CREATE",
            TemplateBody=template,
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
    assert name in str(refused.value)


def test_a_stack_name_that_is_too_long_for_what_is_named_after_it_is_refused(tmp_path):
    ended = render(tmp_path, "", STACK="c" * 51)
    assert ended.returncode == 1 and ended.stderr.startswith("error: STACK: ")


def test_what_is_built_for_another_machine_is_not_deployed(tmp_path):
    (tmp_path / "lambda/ec2-curfew").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "lambda/ec2-curfew/bootstrap.zip", "w") as it:
        it.writestr("bootstrap", b"\x7fELF" + bytes(14) + (0x3E).to_bytes(2, "little"))
    (tmp_path / "parameters.yaml").write_text('Architecture: "arm64"')
    ended = subprocess.run(
        [sys.executable, ROOT / "infra/stack.py", "deploy"],
        env=os.environ | {"PARAMETERS": str(tmp_path / "parameters.yaml"), "CARGO_TARGET_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.stderr == "error: Architecture: 'arm64', but the function is built for x86_64; run `make build`\n"


def test_all_problems_come_in_one_message(tmp_path):
    ended = render(tmp_path, "StopAt: never\nEmail: me\n", LIVE="perhaps")
    assert [it in ended.stderr for it in ("Live: ", "StopAt: ", "Email: ")] == [True, True, True]


def test_a_file_that_is_no_yaml_is_refused_by_its_name(tmp_path):
    ended = render(tmp_path, "StopAt: [")
    assert ended.returncode == 1 and ended.stderr.startswith(f"error: {tmp_path / 'parameters.yaml'}: ")


@pytest.mark.parametrize("cron", ["off", "cron(0/5 * * * ? *)", "cron(0/5 * ? * * *)", "cron(4/5 * * * ? *)", "cron(* * * * ? *)"])
def test_ticks_may_come_more_often_and_at_other_minutes(tmp_path, cron):
    ended = render(tmp_path, yaml.safe_dump({"ReconcileAt": cron}))
    assert ended.returncode == 0, ended.stderr


def test_yaml_reads_off_and_no_as_false_and_we_as_what_was_written(tmp_path):
    ended = render(tmp_path, "StartAt: off\nEncryptedVolumes: no\n")
    assert ended.returncode == 0, ended.stderr


def shipped(event: str) -> dict:
    return json.loads((ROOT / "infra/events" / event).read_text())


def template(rendered, name: str = "curfew.yaml") -> dict:
    class Loader(yaml.SafeLoader):
        """CloudFormation's short forms, as lists and texts."""

    def plain(loader, _, node):
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_mapping(node, deep=True)

    Loader.add_multi_constructor("!", plain)
    return yaml.load((rendered / name).read_text(), Loader)


def resources(rendered, name: str = "curfew.yaml") -> dict:
    return template(rendered, name)["Resources"]


def test_the_shipped_schedules_are_missed_after_a_day_and_after_a_weekend(rendered):
    them = resources(rendered)
    hours = {name: them[name]["Properties"]["EvaluationPeriods"] for name in ("NoStop", "NoStart")}
    assert hours == {"NoStop": 26, "NoStart": 74}


@pytest.fixture(params=["curfew.yaml", "organization.yaml"])
def either(request, rendered) -> dict:
    return resources(rendered, request.param)


def test_hours_that_are_not_kept_are_heard_after_three_ticks_bad_ones_at_once_and_silence_after_half_an_hour(either):
    of_ticks = {"Name": "action", "Value": "reconcile"}
    alarms = [it["Properties"] for it in either.values() if of_ticks in it["Properties"].get("Dimensions", [])]
    heard = {
        it["MetricName"]: (it["EvaluationPeriods"], it["Period"], it["Statistic"], it["ComparisonOperator"], it["TreatMissingData"])
        for it in alarms
    }
    assert heard == {
        "left": (3, 300, "Maximum", "GreaterThanOrEqualToThreshold", "notBreaching"),
        "bad_tag": (1, 3600, "Maximum", "GreaterThanOrEqualToThreshold", "notBreaching"),
        "duration": (6, 300, "SampleCount", "LessThanThreshold", "breaching"),
    }
    for it in alarms:
        assert (it["Namespace"], it["Threshold"], it["AlarmActions"]) == ("Curfew", 1, ["Alarms"])
        assert it["Dimensions"] == [{"Name": "name", "Value": shipped("reconcile.json")["name"]}, {"Name": "action", "Value": "reconcile"}]


def test_ticks_tell_what_their_alarms_ask_for():
    tick = re.search(r"fn log_tick\(.*?^}", (ROOT / "src/telemetry.rs").read_text(), re.DOTALL | re.MULTILINE)[0]
    assert {"left", "bad_tag", "duration"} <= set(re.findall(r'\("(\w+)", "(?:Count|Milliseconds)"', tick))


def test_only_the_alarm_that_misses_ticks_goes_when_they_are_paused(rendered):
    them = resources(rendered)
    conditions = {name: them[name]["Condition"] for name in ("HoursNotKept", "HoursNotReadable", "NoReconcile")}
    assert conditions == {"HoursNotKept": "Reconciles", "HoursNotReadable": "Reconciles", "NoReconcile": "ReconcileRuns"}
    for it in ("ReconcileSchedule", "ReconcileRule"):
        assert them[it]["Properties"]["State"] == ["Runs", "ENABLED", "DISABLED"]


def test_a_tick_is_repeated_by_nobody_and_leaves_no_dead_letter(rendered):
    """Neither by the schedule, if the function can't be called, nor by Lambda, if it fails: the next tick does it."""
    them = resources(rendered)
    [rule] = them["ReconcileRule"]["Properties"]["Targets"]
    for target in (them["ReconcileSchedule"]["Properties"]["Target"], rule):
        assert target["Arn"] == "Tick", "not the function's own name, whose events Lambda repeats"
        assert target["RetryPolicy"] == {"MaximumRetryAttempts": 0} and "DeadLetterConfig" not in target
    alias, config = them["Tick"]["Properties"], them["TickIsNotRepeated"]["Properties"]
    assert (alias["FunctionName"], alias["FunctionVersion"]) == ("Function", "$LATEST")
    assert config == {"FunctionName": "Function", "Qualifier": alias["Name"], "MaximumEventAgeInSeconds": 300, "MaximumRetryAttempts": 0}
    assert them["ReconcileRuleMayInvoke"]["Properties"]["FunctionName"] == "Tick"
    # Stops and starts keep their retries.
    assert them["Function"]["Properties"]["EventInvokeConfig"]["MaximumRetryAttempts"] == 2


@pytest.mark.parametrize("name", ["curfew.yaml", "organization.yaml"])
def test_no_change_of_clocks_takes_an_hour_of_ticks(tmp_path, name):
    """Scheduler runs once what local time shows twice. The hours themselves are in the request's zone."""
    assert render(tmp_path, "Timezone: Europe/Berlin").returncode == 0
    schedule = resources(tmp_path, name)["ReconcileSchedule"]["Properties"]
    assert (schedule["ScheduleExpression"], schedule["ScheduleExpressionTimezone"]) == ("ReconcileAt", "UTC")


def test_ticks_are_off_until_somebody_wants_them(rendered):
    for name in ("curfew.yaml", "organization.yaml"):
        assert template(rendered, name)["Parameters"]["ReconcileAt"]["Default"] == "off"


def test_every_schedule_carries_its_event_and_a_time(rendered):
    them = resources(rendered)
    carried = {name: it["Properties"]["Target"]["Input"] for name, it in them.items() if "Scheduler" in it["Type"]}
    ruled = {
        name: it["Properties"]["Targets"][0]["InputTransformer"]["InputTemplate"]
        for name, it in them.items()
        if it["Type"] == "AWS::Events::Rule"
    }
    files = {"Stop": "stop-7pm.json", "Start": "start-8am.json", "Reconcile": "reconcile.json"}
    assert set(carried) == {f"{it}Schedule" for it in files} and set(ruled) == {f"{it}Rule" for it in files}
    for name, (text, filled) in (carried | ruled).items():
        assert filled == {"DryRun": ["Armed", "false", "true"]}, "it rehearses until it is armed"
        file = files[re.sub("Schedule|Rule", "", name)]
        event = json.loads(text.replace("${DryRun}", "true").replace(":<time>", ':"<aws.scheduler.scheduled-time>"'))
        assert event.pop("dry_run") is True and event.pop("timezone") == "${Timezone}"
        assert event == shipped(file)
        assert ("<time>" in text) == (name in ruled)


@pytest.fixture
def rendering(tmp_path):
    """Renders a copy of the project in which events are others."""
    for part in ("infra", "policy"):
        shutil.copytree(ROOT / part, tmp_path / part)

    def rendering(events: dict[str, dict], parameters: str = ""):
        for name, event in events.items():
            (tmp_path / "infra/events" / name).write_text(json.dumps(event))
        (tmp_path / "infra/parameters.yaml").write_text(parameters)
        return subprocess.run(
            [sys.executable, tmp_path / "infra/stack.py", "render", tmp_path / "rendered"], capture_output=True, text=True
        )

    return rendering


@pytest.mark.parametrize("name", ["stop-7pm.json", "start-8am.json", "reconcile.json"])
def test_an_event_without_a_time_is_not_deployed(rendering, name):
    ended = rendering({name: {key: it for key, it in shipped(name).items() if key != "scheduled_time"}})
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: infra/events/{name}: scheduled_time: missing")


def test_an_event_of_another_action_is_not_deployed(rendering):
    ended = rendering({"reconcile.json": shipped("stop-7pm.json")})
    assert ended.stderr == 'error: infra/events/reconcile.json: action: expected "reconcile", found "stop"\n'


def test_the_managed_tag_must_be_what_all_three_select(rendering):
    ended = rendering({"reconcile.json": shipped("reconcile.json") | {"tags": {"team": "platform"}}})
    assert ended.stderr.startswith("error: ManagedTag: 'curfew=yes' is not what infra/events/reconcile.json selects")


def test_events_that_name_different_tags_for_hours_are_not_deployed(rendering):
    """A plain stop would switch what has hours by the other tag. Who names none means the default."""
    other = {"hours_tag": "Schedule"}
    ended = rendering({"reconcile.json": shipped("reconcile.json") | other})
    assert ended.stderr == (
        'error: hours_tag: "curfew:hours" in infra/events/stop-7pm.json, "curfew:hours" in infra/events/start-8am.json, '
        '"Schedule" in infra/events/reconcile.json; write the same in all, or two schedules will switch the same instances\n'
    )
    names = ("stop-7pm.json", "start-8am.json", "reconcile.json")
    assert rendering({it: shipped(it) | other for it in names}).returncode == 0
    default = {"hours_tag": "curfew:hours"}
    assert rendering({names[0]: shipped(names[0]) | default} | {it: shipped(it) for it in names[1:]}).returncode == 0


def sized(size: int, by_rule: bool) -> dict:
    """The event of ticks, with hours until it is so large where it goes: characters in a rule, bytes in a schedule."""
    event = shipped("reconcile.json")
    carried = {"timezone": "UTC"} | event | {"dry_run": False}
    text = json.dumps(carried, separators=(",", ":"))
    now = len(text.replace('"<aws.scheduler.scheduled-time>"', "<time>")) if by_rule else len(text)
    # Six more: quotes, colon and comma.
    name = ("é" * (size - now - 6)) if by_rule else "h" * (size - now - 6)
    return event | {"hours": event["hours"] | {name: ""}}


RULE = "ReconcileAt: cron(0/5 * * * ? *)\nScheduleWith: rule\n"


def test_an_event_too_large_for_a_rule_is_not_deployed(rendering):
    """It is characters that count: é is two bytes."""
    assert rendering({"reconcile.json": sized(8192, by_rule=True)}, RULE).returncode == 0
    large = sized(8193, by_rule=True)
    ended = rendering({"reconcile.json": large}, RULE)
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: infra/events/reconcile.json: 8,193 characters, but a rule's input holds only 8,192; "
        "write 'ScheduleWith: scheduler', whose input holds 262,144 bytes, or fewer hours\n"
    )
    # With the rest as it is: that schedule is off, or is another's.
    assert rendering({"reconcile.json": large}, "ScheduleWith: rule\n").returncode == 0
    assert rendering({"reconcile.json": large}, "ReconcileAt: cron(0/5 * * * ? *)\n").returncode == 0


def test_an_event_too_large_for_a_schedule_is_not_deployed(rendering):
    assert rendering({"reconcile.json": sized(262_144, by_rule=False)}).returncode == 0
    ended = rendering({"reconcile.json": sized(262_145, by_rule=False)})
    assert ended.stderr == "error: infra/events/reconcile.json: 262,145 bytes, but a schedule's input holds only 262,144; write fewer hours\n"


def test_the_dashboard_asks_for_fields_that_the_log_lines_have():
    """CloudWatch's own fields begin with @; what a query names by `as` is its own too."""
    told = "".join(path.read_text() for path in (ROOT / "tests/it/snapshots").glob("it__told__*.snap"))
    have = set(re.findall(r'^ *"(\w+)":', told, re.MULTILINE))
    # The keys of skipped_by.
    have |= set(re.findall(r'Self::\w+ => "(\w+)"', (ROOT / "src/outcome.rs").read_text()))
    widgets = json.loads((ROOT / "infra/dashboard.json").read_text())["widgets"]
    queries = [it["properties"]["query"] for it in widgets if it["type"] == "log"]
    assert len(queries) == 5
    for query in queries:
        asked = set(re.findall(r"(?:ispresent|count_distinct|latest)\((\w+)\)", query))
        for summed in re.findall(r"\bmax\((.+?)\)", query):
            asked |= set(re.findall(r"\w+", summed))
        asked |= set(re.findall(r"(\w+) (?:!=|=|>) ", query))
        for listed in re.findall(r"(?:display|\bby) ([\w@, ]+?)(?:\||$)", query):
            asked |= {it.strip() for it in listed.split(",") if not it.strip().startswith("@")}
        asked |= set(re.findall(r"(\w+) like /", query))
        assert asked and asked <= have, f"{asked - have} in {query}"
