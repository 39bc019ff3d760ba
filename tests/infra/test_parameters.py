"""Parameters that can't be right are refused by name before anything is created, both by us and by the template."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cfnlint
import pytest
import yaml
from conftest import ROOT
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

WARN = "cron(30 18 ? * * *)"
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
    ("SnapshotsAt", {"SnapshotsAt": "rate(1 day)"}),
    ("SnapshotsAt", {"SnapshotsAt": "cron(0 3 * * *)"}),
    ("SnapshotsAt", {"SnapshotsAt": ""}),
    ("SnapshotsAt", {"SnapshotsAt": "cron(0 24 ? * * *)"}),
    ("WarnAt", {"WarnAt": "cron(30 18 ? * *)", "Events": "yes"}),
    ("WarnAt", {"WarnAt": "cron(30 24 ? * * *)", "Events": "yes"}),
    ("WarnAt", {"WarnAt": WARN}),
    ("WarnAt", {"WarnAt": WARN, "Events": "yes", "StopAt": "off"}),
    ("Events", {"Events": "default"}),
    ("Events", {"Events": "arn:aws:events:us-east-1:111122223333:rule/office"}),
    ("LogDays", {"LogDays": "91"}),
    ("LogDays", {"LogDays": "0"}),
    ("DataKeyArn", {"DataKeyArn": "alias/platform"}),
    ("PermissionsBoundary", {"PermissionsBoundary": "arn:aws:iam::111122223333:policy/boundary"}),
    ("RolePath", {"RolePath": "platform/"}),
    ("RolePath", {"RolePath": "/platform"}),
    ("RolePath", {"RolePath": ""}),
    ("RolePath", {"RolePath": "/organization/"}),
    ("RolePath", {"RolePath": "/platform/organization/"}),
    ("ScheduleWith", {"ScheduleWith": "cron"}),
    ("Architecture", {"Architecture": "arm"}),
    ("Email", {"Email": "platform"}),
    ("KmsKeyArns", {"KmsKeyArns": "alias/ebs"}),
    ("EncryptedVolumes", {"EncryptedVolumes": "perhaps"}),
    ("Ec2Limits", {"Ec2Limits": "2000"}),
    ("Ec2Limits", {"Ec2Limits": "{StartInstances}"}),
    ("Ec2Limits", {"Ec2Limits": '{"StartInstances": {"instances": {"size": 2000, "refill": 10}}}'}),
    ("Ec2Limits", {"Ec2Limits": '{"RunInstances": {"calls": {"size": 5, "refill": 2}, "instances": {"size": 5, "refill": 2}}}'}),
    ("Ec2Limits", {"Ec2Limits": '{"StartInstances": {"calls": {"size": 5, "refill": 0}, "instances": {"size": 5, "refill": 2}}}'}),
    ("OrganizationId", {"OrganizationId": "0a1b2c3d4e"}),
    ("Targets", {"Targets": "all"}),
    ("MostUnreachable", {"MostUnreachable": "-1"}),
    ("RolloutTolerance", {"RolloutTolerance": "101"}),
    ("Live", {"Live": "perhaps"}),
    ("Live", {"Live": "yes"}),
    ("Paused", {"Paused": "yes"}),
    ("StoppAt", {"StoppAt": "off"}),
]
# What the template can't know: all time zones, cron's finer rules, this project's events, and how it is armed. (Unlike AWS,
# MiniStack doesn't refuse unknown parameters.)
OURS_ALONE = [
    {"Timezone": "Mars/Base"},
    {"ManagedTag": "team=platform"},
    {"StopAt": "cron(0 19 * * * *)"},
    {"StopAt": "cron(0 19 ? * ? *)"},
    {"StopAt": "cron(60 19 ? * * *)"},
    {"StopAt": "cron(0 24 ? * * *)"},
    {"SnapshotsAt": "cron(0 24 ? * * *)"},
    {"WarnAt": "cron(30 24 ? * * *)", "Events": "yes"},
    {"Ec2Limits": "{StartInstances}"},
    {"Ec2Limits": '{"StartInstances": {"instances": {"size": 2000, "refill": 10}}}'},
    {"Ec2Limits": '{"RunInstances": {"calls": {"size": 5, "refill": 2}, "instances": {"size": 5, "refill": 2}}}'},
    {"Ec2Limits": '{"StartInstances": {"calls": {"size": 5, "refill": 0}, "instances": {"size": 5, "refill": 2}}}'},
    # Those of the organization's template.
    {"OrganizationId": "0a1b2c3d4e"},
    {"Targets": "all"},
    {"MostUnreachable": "-1"},
    {"RolloutTolerance": "101"},
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
    """For people who deploy it without `make`. (The zip needs an S3 address, but CloudFormation checks parameters first.)"""
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


LONGEST = "c" * 36


@pytest.mark.parametrize(("name", "template"), [(LONGEST, "curfew.yaml"), (f"{'c' * 20}-organization", "organization.yaml")])
def test_a_stack_name_so_long_that_its_roles_would_be_called_otherwise_is_refused(tmp_path, rendered, name, template):
    """A role's name holds 64, of which CloudFormation takes two dashes and up to 13 characters; what is longer it shortens."""
    roles = [role for role, it in resources(rendered, template).items() if it["Type"] == "AWS::IAM::Role"]
    assert max(len(f"{name}-{role}-") for role in roles) + 13 <= 64
    its_own = "OrganizationId: o-0a1b2c3d4e\nTargets: r-0a1b\n"
    ended = render(tmp_path, its_own, STACK=name)
    assert ended.returncode == 0, ended.stderr
    ended = render(tmp_path, its_own, STACK=f"c{name}")
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


LIMITS = {"StartInstances": {"calls": {"size": 5, "refill": 2}, "instances": {"size": 2000, "refill": 10}}}


@pytest.mark.parametrize("limits", [LIMITS, json.dumps(LIMITS), {}, ""], ids=str)
def test_limits_may_be_written_as_yaml_or_as_json(tmp_path, limits):
    ended = render(tmp_path, yaml.safe_dump({"Ec2Limits": limits}))
    assert ended.returncode == 0, ended.stderr


def test_an_organizations_stack_needs_its_own_parameters_and_a_single_one_does_not_mind_them(tmp_path):
    ended = render(tmp_path, "", STACK="curfew-organization")
    assert ended.stderr.startswith("error: OrganizationId: missing; write it like ") and "Targets: missing; " in ended.stderr
    for stack in ("curfew", "curfew-organization"):
        ended = render(tmp_path, "OrganizationId: o-0a1b2c3d4e\nTargets: r-0a1b\n", STACK=stack)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("given", ["SnapshotsAt: cron(0 3 ? * * *)\n", "ScheduleWith: rule\n", ""])
def test_what_an_organizations_stack_has_not_is_said_where_one_file_serves_both(tmp_path, given):
    ended = render(tmp_path, f"OrganizationId: o-0a1b2c3d4e\nTargets: r-0a1b\n{given}", STACK="curfew-organization")
    assert ended.returncode == 0
    if given:
        key, value = given.strip().split(": ")
        assert ended.stderr.startswith(f"warning: {key}: {value!r} has no effect here: curfew-organization has ")
    assert len(ended.stderr.splitlines()) == bool(given)


def test_yaml_reads_off_and_no_as_false_and_we_as_what_was_written(tmp_path):
    ended = render(tmp_path, "StartAt: off\nEncryptedVolumes: no\n")
    assert ended.returncode == 0, ended.stderr


def shipped(event: str) -> dict:
    return json.loads((ROOT / "infra/events" / event).read_text())


def template(rendered, name: str = "curfew.yaml") -> dict:
    class Loader(yaml.SafeLoader):
        """Reads CloudFormation's short forms, like !Sub, as lists and texts."""

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


@pytest.mark.parametrize(("cron", "hours"), [("cron(0 19 ? * * *)", 26), ("cron(0 19 ? * MON-FRI *)", 74)])
def test_an_organizations_schedules_are_missed_as_soon_each_by_what_scheduler_counts_of_it_alone(tmp_path, cron, hours):
    """And not by what the function tells: a wave of one's own event by hand would count as a run of the schedule."""
    assert render(tmp_path, yaml.safe_dump({"StopAt": cron, "StartAt": cron})).returncode == 0
    them = resources(tmp_path, "organization.yaml")
    for name in ("Stop", "Start"):
        alarm, schedule = them[f"No{name}"], them[f"{name}Schedule"]["Properties"]
        assert alarm["Condition"] == f"{name}Runs"
        alarm = alarm["Properties"]
        assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]) == ("AWS/Scheduler", "InvocationAttemptCount", "Sum")
        assert alarm["Dimensions"] == [{"Name": "ScheduleGroup", "Value": schedule["GroupName"]}]
        assert alarm["EvaluationPeriods"] == hours and alarm["TreatMissingData"] == "breaching"
    groups = [it["Properties"]["GroupName"] for it in them.values() if it["Type"] == "AWS::Scheduler::Schedule"]
    assert len(groups) == len(set(groups)) == 4


@pytest.fixture(params=["curfew.yaml", "organization.yaml"])
def every_alarm(request, rendered) -> list[dict]:
    return [it["Properties"] for it in resources(rendered, request.param).values() if it["Type"] == "AWS::CloudWatch::Alarm"]


def test_no_alarm_looks_back_farther_than_cloudwatch_does(every_alarm):
    """PutMetricAlarm, "EvaluationPeriods": seven days if a period is an hour or longer, otherwise a day."""
    for it in every_alarm:
        assert it["Period"] * it["EvaluationPeriods"] <= 86400 * (7 if it["Period"] >= 3600 else 1), it["AlarmName"]


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
        named = {"Name": "name", "Value": shipped("reconcile.json")["name"]}
        assert it["Dimensions"] == [{"Name": "function", "Value": "Function"}, named, of_ticks]


def test_no_stacks_metrics_are_anothers(either):
    """Two in one account and region have schedules of the same names."""
    alarms = [it["Properties"] for it in either.values() if it["Properties"].get("Namespace") == "Curfew"]
    assert len(alarms) in (3, 9)
    for it in alarms:
        names, [function, *_] = [one["Name"] for one in it["Dimensions"]], it["Dimensions"]
        assert names == ["function", "name", "action"], it["AlarmName"]
        assert function["Value"] in either and either[function["Value"]]["Type"] == "AWS::Serverless::Function"
    text, _ = either["Dashboard"]["Properties"]["DashboardBody"]
    shown = [it["properties"]["metrics"][0] for it in json.loads(text)["widgets"] if it["type"] == "metric"]
    assert [it[2:4] for it in shown] == [["function", "${AWS::StackName}"]] * 2
    told = re.search(r'DIMENSIONS: .* = \[\[(.*?)\]\]', (ROOT / "src/telemetry.rs").read_text())[1]
    assert json.loads(f"[{told}]") == names


def test_ticks_tell_what_their_alarms_ask_for():
    tick = re.search(r"fn log_tick\(.*?^}", (ROOT / "src/telemetry.rs").read_text(), re.DOTALL | re.MULTILINE)[0]
    assert {"left", "bad_tag", "duration"} <= set(re.findall(r'\("(\w+)", "(?:Count|Milliseconds)"', tick))


def test_only_the_alarm_that_misses_ticks_goes_when_they_are_paused(rendered):
    them = resources(rendered)
    conditions = {name: them[name]["Condition"] for name in ("HoursNotKept", "HoursNotReadable", "NoReconcile")}
    assert conditions == {"HoursNotKept": "Reconciles", "HoursNotReadable": "Reconciles", "NoReconcile": "ReconcileRuns"}


@pytest.mark.parametrize("name", ["curfew.yaml", "organization.yaml"])
def test_every_schedule_can_be_paused_and_then_is_missed_by_nobody(rendered, name):
    them = resources(rendered, name)
    schedules = [it["Properties"] for it in them.values() if it["Type"] in ("AWS::Scheduler::Schedule", "AWS::Events::Rule")]
    states = {tuple(it["State"]) for it in schedules}
    # Warnings are sent only if the stop runs and is armed.
    assert states - {("WarnRuns", "ENABLED", "DISABLED")} == {("Runs", "ENABLED", "DISABLED")}
    assert template(rendered, name)["Conditions"].get("WarnRuns", ["Armed", "Runs"]) == ["Armed", "Runs"]
    missing = {it["Condition"] for it in them.values() if it["Properties"].get("TreatMissingData") == "breaching"}
    assert missing == {"StopRuns", "StartRuns", "ReconcileRuns"} | ({"SnapshotsRuns"} if name == "curfew.yaml" else set())


@pytest.mark.parametrize("name", ["curfew.yaml", "organization.yaml"])
def test_what_a_stack_says_of_itself_is_of_its_own_schedules_and_by_its_own_name(rendered, name):
    _, filled = resources(rendered, name)["Dashboard"]["Properties"]["DashboardBody"]
    assert filled["Title"] == [
        "Scheduled",
        [
            "Runs",
            ["Armed", "${AWS::StackName} is armed", "${AWS::StackName} rehearses: it stops and starts nothing"],
            "${AWS::StackName} is paused: its schedules are off",
        ],
        "${AWS::StackName} has no schedules: it runs by hand only",
    ]
    condition, [runs, [armed, *_], _], _ = template(rendered, name)["Outputs"]["Mode"]["Value"]
    assert (condition, runs, armed) == ("Scheduled", "Runs", "Armed")


# The bus that the parameter Events names, with the short forms as lists.
BUS = ["OnDefaultBus", "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default", "Events"]


def test_a_bus_hears_of_every_run_and_the_queue_that_raises_the_alarm_still_gets_what_failed(rendered):
    them = resources(rendered)
    config = them["FunctionEventInvokeConfig"]["Properties"]
    assert (config["FunctionName"], config["Qualifier"]) == ("Function", "$LATEST")
    assert config["DestinationConfig"] == {
        "OnSuccess": ["HasEvents", {"Destination": BUS}, "AWS::NoValue"],
        "OnFailure": {"Destination": ["HasEvents", BUS, "DeadLetters.Arn"]},
    }
    # Lambda feeds both: "in addition to or instead of a dead-letter queue" (API reference, PutFunctionEventInvokeConfig).
    assert them["Function"]["Properties"]["DeadLetterQueue"]["TargetArn"] == ["HasEvents", "DeadLetters.Arn", "AWS::NoValue"]
    allowed = them["ExecutionRole"]["Properties"]["Policies"]
    assert allowed[0] == "HasEvents" and allowed[1][0]["PolicyDocument"][1] == {"Bus": BUS}
    assert them["ReportNotHeard"]["Properties"]["MetricName"] == "DestinationDeliveryFailures"


def test_sam_makes_of_it_what_lambda_is_to_have(rendered, monkeypatch):
    """SAM reads both of the queue's properties, and could write an EventInvokeConfig of its own next to ours."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    text = (rendered / "curfew.yaml").read_text().replace("lambda/ec2-curfew/bootstrap.zip", "s3://bucket/bootstrap.zip")
    made = Translator({}, Parser()).translate(yaml_parse(text), {})["Resources"]
    queue = {"Fn::If": ["HasEvents", {"Fn::GetAtt": ["DeadLetters", "Arn"]}, {"Ref": "AWS::NoValue"}]}
    for name in ("Function", "SnapshotsFunction"):
        assert made[name]["Properties"]["DeadLetterConfig"] == {"TargetArn": queue}
    configs = {name: it["Properties"]["Qualifier"] for name, it in made.items() if it["Type"] == "AWS::Lambda::EventInvokeConfig"}
    assert configs == {"FunctionEventInvokeConfig": "$LATEST", "SnapshotsEventInvokeConfig": "$LATEST", "TickIsNotRepeated": "tick"}


def test_a_warning_is_a_stop_that_can_only_be_rehearsed_under_a_name_of_its_own(rendered):
    them = resources(rendered)
    stop = shipped("stop-7pm.json")
    meant = stop | {"name": f"{stop['name']}-warning", "max_delay_minutes": 20, "dry_run": True, "timezone": "${Timezone}"}
    [rule] = them["WarnRule"]["Properties"]["Targets"]
    for text in (them["WarnSchedule"]["Properties"]["Target"]["Input"], rule["InputTransformer"]["InputTemplate"]):
        assert json.loads(text.replace(":<time>", ':"<aws.scheduler.scheduled-time>"')) == meant
    assert rule["InputTransformer"]["InputTemplate"].count("<time>") == 1
    # Not a name whose runs an alarm expects, or finds late.
    names = {it["Value"] for alarm in them.values() for it in alarm["Properties"].get("Dimensions", []) if it["Name"] == "name"}
    assert names == {stop["name"], shipped("snapshots.json")["name"]}
    for it in (them["WarnSchedule"]["Properties"]["Target"], rule):
        assert (it["Arn"], it["RetryPolicy"]["MaximumEventAgeInSeconds"]) == ("Function.Arn", 1200)
    for it in ("WarnSchedule", "WarnRule"):
        assert them[it]["Properties"]["State"] == ["WarnRuns", "ENABLED", "DISABLED"]
    conditions = template(rendered)["Conditions"]
    assert conditions["WarnRuns"] == ["Armed", "Runs"], "nobody is warned of what is only rehearsed"
    assert template(rendered)["Parameters"]["WarnAt"]["Default"] == "off"


def test_a_name_that_leaves_no_room_for_a_warning_is_refused(rendering):
    ended = rendering({"stop-7pm.json": shipped("stop-7pm.json") | {"name": "n" * 57}})
    assert ended.stderr.startswith("error: infra/events/stop-7pm.json: name: ") and "56 characters at most" in ended.stderr
    assert rendering({"stop-7pm.json": shipped("stop-7pm.json") | {"name": "n" * 56}}).returncode == 0


@pytest.mark.parametrize("name", ["curfew.yaml", "organization.yaml", "member-role.yaml"])
def test_every_role_has_the_boundary_and_the_path_that_are_asked_for(rendered, name):
    roles = {key: it["Properties"] for key, it in resources(rendered, name).items() if it["Type"] == "AWS::IAM::Role"}
    assert roles
    for role in roles.values():
        assert role["Path"] == ("RolePath" if name == "curfew.yaml" else "${RolePath}organization/")
        boundary = "arn:${AWS::Partition}:iam::${AWS::AccountId}:policy/${PermissionsBoundary}"
        assert role["PermissionsBoundary"] == ["IsBounded", boundary, "AWS::NoValue"]


def test_log_queue_and_topic_have_the_key_that_is_asked_for_and_logs_are_kept_as_long(rendered):
    them = resources(rendered)
    key = ["HasDataKey", "DataKeyArn", "AWS::NoValue"]
    assert (them["Log"]["Properties"]["KmsKeyId"], them["Alarms"]["Properties"]["KmsMasterKeyId"]) == (key, key)
    queue = them["DeadLetters"]["Properties"]
    # SQS accepts only one kind of encryption.
    assert (queue["KmsMasterKeyId"], queue["SqsManagedSseEnabled"]) == (key, ["HasDataKey", False, True])
    assert them["Log"]["Properties"]["RetentionInDays"] == "LogDays"
    organization = resources(rendered, "organization.yaml")
    for log in ("Log", "FunctionLog"):
        it = organization[log]["Properties"]
        assert (it["KmsKeyId"], it["RetentionInDays"]) == (key, "LogDays")
    for it in ("DeadLetters", "Alarms", "DataKeyPolicy"):
        ours, its = them[it]["Properties"], organization[it]["Properties"]
        assert {name: ours[name] for name in ours if name != "Roles"} == {name: its[name] for name in its if name != "Roles"}
    # Its function sends nothing to the queue.
    assert organization["DataKeyPolicy"]["Properties"]["Roles"] == ["SchedulesRole"]


def test_log_days_are_those_that_cloudwatch_logs_knows(rendered):
    schemas = Path(cfnlint.__file__).parent / "data/schemas"
    of_logs = json.loads((schemas / "providers/us-east-1.json").read_text())["AWS::Logs::LogGroup"]
    known = json.loads((schemas / f"resources/{of_logs}.json").read_text())["properties"]["RetentionInDays"]["enum"]
    for name in ("curfew.yaml", "organization.yaml"):
        assert template(rendered, name)["Parameters"]["LogDays"]["AllowedValues"] == [str(it) for it in known]


def test_the_organizations_stack_is_offered_what_curfews_own_stack_has(tmp_path):
    given = {"PermissionsBoundary": "platform/boundary", "LogDays": 30, "DataKeyArn": "arn:aws:kms:us-east-1:111122223333:key/0a1b"}
    given["RolePath"] = "/platform/"
    ended = render(tmp_path, yaml.safe_dump(given))
    assert ended.returncode == 0, ended.stderr
    parameters = template(tmp_path, "organization.yaml")["Parameters"]
    assert {key: parameters[key]["Default"] for key in given} == {key: str(it) for key, it in given.items()}


def test_a_tick_is_repeated_by_nobody_and_leaves_no_dead_letter(rendered):
    """It is retried neither by the schedule, if the function can't be called, nor by Lambda, if it fails: the next tick is
    the retry."""
    them = resources(rendered)
    [rule] = them["ReconcileRule"]["Properties"]["Targets"]
    for target in (them["ReconcileSchedule"]["Properties"]["Target"], rule):
        assert target["Arn"] == "Tick", "not the function's own name, whose events Lambda repeats"
        assert target["RetryPolicy"] == {"MaximumRetryAttempts": 0} and "DeadLetterConfig" not in target
    alias, config = them["Tick"]["Properties"], them["TickIsNotRepeated"]["Properties"]
    assert (alias["FunctionName"], alias["FunctionVersion"]) == ("Function", "$LATEST")
    told = config.pop("DestinationConfig")
    assert config == {"FunctionName": "Function", "Qualifier": alias["Name"], "MaximumEventAgeInSeconds": 300, "MaximumRetryAttempts": 0}
    assert told == ["HasEvents", {"OnSuccess": {"Destination": BUS}, "OnFailure": {"Destination": BUS}}, "AWS::NoValue"]
    assert them["ReconcileRuleMayInvoke"]["Properties"]["FunctionName"] == "Tick"
    # Stops and starts keep their retries.
    assert them["FunctionEventInvokeConfig"]["Properties"]["MaximumRetryAttempts"] == 2


@pytest.mark.parametrize("name", ["curfew.yaml", "organization.yaml"])
def test_no_change_of_clocks_takes_an_hour_of_ticks(tmp_path, name):
    """Scheduler runs only once what local time has twice, so ticks are in UTC. The hours are in the request's zone anyway."""
    assert render(tmp_path, "Timezone: Europe/Berlin").returncode == 0
    schedule = resources(tmp_path, name)["ReconcileSchedule"]["Properties"]
    assert (schedule["ScheduleExpression"], schedule["ScheduleExpressionTimezone"]) == ("ReconcileAt", "UTC")


def test_ticks_are_off_until_somebody_wants_them(rendered):
    for name in ("curfew.yaml", "organization.yaml"):
        assert template(rendered, name)["Parameters"]["ReconcileAt"]["Default"] == "off"


def test_snapshots_are_off_until_somebody_wants_them(rendered):
    it = template(rendered)
    assert it["Parameters"]["SnapshotsAt"]["Default"] == "off"
    theirs = {name: them.get("Condition") for name, them in it["Resources"].items() if "Snapshots" in name}
    assert len(theirs) == 12
    assert set(theirs.values()) == {"Snapshots", "SnapshotsAreTold", "SnapshotsByScheduler", "SnapshotsByRule", "SnapshotsRuns"}, theirs


def test_the_function_for_snapshots_is_the_same_code_with_a_role_that_the_other_has_not(rendered):
    them = resources(rendered)
    ours, theirs = (them[it]["Properties"] for it in ("SnapshotsFunction", "Function"))
    same = ("CodeUri", "Handler", "Runtime", "MemorySize", "Timeout")
    assert [ours[it] for it in same] == [theirs[it] for it in same]
    assert (ours["Role"], theirs["Role"]) == ("SnapshotsRole.Arn", "ExecutionRole.Arn")
    policies = {name: it["Properties"]["Roles"] for name, it in them.items() if it["Type"] == "AWS::IAM::Policy"}
    assert [name for name, roles in policies.items() if "SnapshotsRole" in roles] == ["SnapshotsPolicy"]
    # Sending to an encrypted queue requires the key.
    assert ["Snapshots", "SnapshotsRole", "AWS::NoValue"] in policies["DataKeyPolicy"]
    text = them["SnapshotsPolicy"]["Properties"]["PolicyDocument"][0]
    assert json.loads(text) == json.loads((ROOT / "policy/snapshots-role.json").read_text())
    [rule] = them["SnapshotsRule"]["Properties"]["Targets"]
    for target in (them["SnapshotsSchedule"]["Properties"]["Target"], rule):
        assert target["Arn"] == "SnapshotsFunction.Arn"
        assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 4 * 3600, "MaximumRetryAttempts": 185}
        assert target["DeadLetterConfig"] == {"Arn": "DeadLetters.Arn"}
    assert them["SnapshotsRuleMayInvoke"]["Properties"]["FunctionName"] == "SnapshotsFunction"

    # Its runs are reported to the same destinations as the other function's.
    def heard(name: str, config: str) -> dict:
        config = them[config]["Properties"]
        assert (config.pop("FunctionName"), config["Qualifier"]) == (name, "$LATEST")
        return config | {"DeadLetterQueue": them[name]["Properties"]["DeadLetterQueue"]}

    its, others = heard("SnapshotsFunction", "SnapshotsEventInvokeConfig"), heard("Function", "FunctionEventInvokeConfig")
    assert its == others and its["MaximumEventAgeInSeconds"] == 4 * 3600
    assert them["SnapshotsRole"]["Properties"]["Policies"] == them["ExecutionRole"]["Properties"]["Policies"]
    assert {**them["SnapshotsLog"]["Properties"], "LogGroupName": ""} == {**them["Log"]["Properties"], "LogGroupName": ""}


@pytest.mark.parametrize(("cron", "hours"), [("cron(0 3 ? * * *)", 26), ("cron(0 3 ? * MON-FRI *)", 74)])
def test_a_run_for_snapshots_that_is_late_dropped_or_missing_is_heard(tmp_path, cron, hours):
    assert render(tmp_path, yaml.safe_dump({"SnapshotsAt": cron})).returncode == 0
    them = resources(tmp_path)
    names = ("SnapshotsDropped", "SnapshotsNotHeard", "SnapshotsStale", "NoSnapshots")
    alarms = {name: them[name]["Properties"] for name in names}
    assert [it["MetricName"] for it in alarms.values()] == ["AsyncEventsDropped", "DestinationDeliveryFailures", "stale", "duration"]
    assert {alarms[name]["Dimensions"][0]["Value"] for name in names[:2]} == {"SnapshotsFunction"}
    assert alarms["NoSnapshots"]["EvaluationPeriods"] == hours and them["NoSnapshots"]["Condition"] == "SnapshotsRuns"
    for name in ("SnapshotsStale", "NoSnapshots"):
        told = [{"Name": "name", "Value": shipped("snapshots.json")["name"]}, {"Name": "action", "Value": "snapshots"}]
        assert alarms[name]["Dimensions"] == [{"Name": "function", "Value": "SnapshotsFunction"}, *told]


@pytest.fixture
def recycle_bin():
    """A double of the Recycle Bin that answers with these pages of rules; or that refuses, where there is an error instead."""
    pages: list[dict] = []
    rules: dict[str, dict] = {}

    class Bin(BaseHTTPRequestHandler):
        def do_POST(self):
            page = pages.pop(0)
            rules.update({rule["Identifier"]: rule for rule in page.get("Rules", [])})
            self.answer(page)

        def do_GET(self):
            self.answer(rules[self.path.removeprefix("/rules/")])

        def answer(self, it):
            body = json.dumps(it).encode()
            self.send_response(403 if "__type" in it else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Bin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        "AWS_ENDPOINT_URL_RBIN": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    yield pages, env
    server.shutdown()
    server.server_close()


NIGHTLY = "SnapshotsAt: cron(0 3 ? * * *)\n"


@pytest.mark.parametrize(
    ("parameters", "rules", "warned"),
    [
        (NIGHTLY, [{"Rules": []}], True),
        (NIGHTLY, [{"Rules": [], "NextToken": "more"}, {"Rules": [{"Identifier": "a"}]}], False),
        (NIGHTLY, [{"Rules": [{"Identifier": "a"}]}], False),
        (NIGHTLY, [{"Rules": [{"Identifier": "a", "ResourceTags": [{"ResourceTagKey": "curfew", "ResourceTagValue": "yes"}]}]}], False),
        (NIGHTLY, [{"Rules": [{"Identifier": "a", "ResourceTags": [{"ResourceTagKey": "team", "ResourceTagValue": "yes"}]}]}], True),
        (NIGHTLY, [{"Rules": [{"Identifier": "a", "ExcludeResourceTags": [{"ResourceTagKey": "curfew", "ResourceTagValue": "yes"}]}]}], True),
        (NIGHTLY, [{"Rules": [{"Identifier": "a", "ExcludeResourceTags": [{"ResourceTagKey": "team"}]}]}], False),
        ("", [], False),
    ],
    ids=str,
)
def test_who_deletes_snapshots_without_a_recycle_bin_is_warned(tmp_path, recycle_bin, parameters, rules, warned):
    pages, env = recycle_bin
    pages += rules
    ended = render(tmp_path, parameters, **env)
    assert ended.returncode == 0 and not pages
    assert ended.stderr.startswith("warning: no Recycle Bin rule keeps deleted snapshots in eu-west-1") == warned


def test_who_may_not_ask_for_the_recycle_bin_is_told(tmp_path, recycle_bin):
    pages, env = recycle_bin
    pages.append({"__type": "AccessDeniedException", "message": "no"})
    ended = render(tmp_path, NIGHTLY, **env)
    assert ended.returncode == 0
    assert ended.stderr.startswith("warning: whether a Recycle Bin rule keeps deleted snapshots in eu-west-1 could not be asked: rbin:ListRules is denied")


@pytest.mark.parametrize(
    ("regions", "pages", "warned"),
    [
        ("us-east-1", [{"Rules": []}], "in us-east-1, so"),
        (["us-east-1", "eu-north-1"], [{"Rules": []}] * 2, "in us-east-1, eu-north-1, so"),
        ("all", [{"Rules": []}] * 99, "us-west-2, so"),
    ],
)
def test_a_recycle_bin_is_asked_for_in_every_region_of_the_event(rendering, recycle_bin, monkeypatch, regions, pages, warned):
    answers, env = recycle_bin
    answers += pages
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ended = rendering({"snapshots.json": shipped("snapshots.json") | {"regions": regions}}, NIGHTLY)
    assert ended.returncode == 0 and ended.stderr.startswith("warning: no Recycle Bin rule") and warned in ended.stderr


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", None])
def test_without_an_account_at_hand_nobody_is_warned(tmp_path, monkeypatch, address):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    env = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    if address:
        env |= {"AWS_ENDPOINT_URL_RBIN": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-west-1"}
    ended = render(tmp_path, NIGHTLY, **env)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_every_schedule_carries_its_event_and_a_time(rendered):
    them = resources(rendered)
    carried = {name: it["Properties"]["Target"]["Input"] for name, it in them.items() if "Scheduler" in it["Type"]}
    ruled = {
        name: it["Properties"]["Targets"][0]["InputTransformer"]["InputTemplate"]
        for name, it in them.items()
        if it["Type"] == "AWS::Events::Rule"
    }
    files = {"Stop": "stop-7pm.json", "Start": "start-8am.json", "Reconcile": "reconcile.json", "Snapshots": "snapshots.json"}
    for it in (carried, ruled):
        # The warning has its own test.
        it.pop("WarnSchedule", it.pop("WarnRule", None))
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
    """Renders a copy of the project with other events."""
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


@pytest.mark.parametrize("name", ["stop-7pm.json", "start-8am.json", "reconcile.json", "snapshots.json"])
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
    """Otherwise a plain stop would switch instances with hours in the other tag. Events that name none mean the default."""
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
    """Returns the event of ticks, enlarged by a schedule's name to this size: in characters for a rule, else in bytes."""
    event = shipped("reconcile.json")
    carried = {"timezone": "UTC"} | event | {"dry_run": False}
    text = json.dumps(carried, separators=(",", ":"))
    now = len(text.replace('"<aws.scheduler.scheduled-time>"', "<time>")) if by_rule else len(text)
    # The name's entry has six more characters: quotes, colon and comma.
    name = ("é" * (size - now - 6)) if by_rule else "h" * (size - now - 6)
    return event | {"hours": event["hours"] | {name: ""}}


RULE = "ReconcileAt: cron(0/5 * * * ? *)\nScheduleWith: rule\n"


def test_an_event_too_large_for_a_rule_is_not_deployed(rendering):
    """Characters count, not bytes: é is two bytes."""
    assert rendering({"reconcile.json": sized(8192, by_rule=True)}, RULE).returncode == 0
    large = sized(8193, by_rule=True)
    ended = rendering({"reconcile.json": large}, RULE)
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: infra/events/reconcile.json: 8,193 characters, but a rule's input holds only 8,192; "
        "write 'ScheduleWith: scheduler', whose input holds 262,144 bytes, or fewer hours\n"
    )
    # Not if that schedule is off, or goes to Scheduler.
    assert rendering({"reconcile.json": large}, "ScheduleWith: rule\n").returncode == 0
    assert rendering({"reconcile.json": large}, "ReconcileAt: cron(0/5 * * * ? *)\n").returncode == 0


def test_an_event_too_large_for_a_schedule_is_not_deployed(rendering):
    assert rendering({"reconcile.json": sized(262_144, by_rule=False)}).returncode == 0
    ended = rendering({"reconcile.json": sized(262_145, by_rule=False)})
    assert ended.stderr == "error: infra/events/reconcile.json: 262,145 bytes, but a schedule's input holds only 262,144; write fewer hours\n"


def test_the_dashboard_asks_for_fields_that_the_log_lines_have():
    """CloudWatch's own fields begin with @; names given by `as` are the query's own."""
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
