"""Parameters that can't be right are refused before anything is created, by name; twice: by us and by the template."""

import json
import os
import re
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
    ("ScheduleWith", {"ScheduleWith": "cron"}),
    ("Architecture", {"Architecture": "arm"}),
    ("Email", {"Email": "platform"}),
    ("KmsKeyArns", {"KmsKeyArns": "alias/ebs"}),
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
    assert ended.stderr == "error: Architecture: 'arm64', but the function is built for x86_64, write `make build`\n"


def test_all_problems_come_in_one_message(tmp_path):
    ended = render(tmp_path, "StopAt: never\nEmail: me\n", LIVE="perhaps")
    assert [it in ended.stderr for it in ("Live: ", "StopAt: ", "Email: ")] == [True, True, True]


def test_a_file_that_is_no_yaml_is_refused_by_its_name(tmp_path):
    ended = render(tmp_path, "StopAt: [")
    assert ended.returncode == 1 and ended.stderr.startswith(f"error: {tmp_path / 'parameters.yaml'}: ")


def test_yaml_reads_off_as_false_and_we_as_off(tmp_path):
    assert render(tmp_path, "StartAt: off\n").returncode == 0


def resources(rendered) -> dict:
    class Loader(yaml.SafeLoader):
        """CloudFormation's short forms, as lists and texts."""

    def plain(loader, _, node):
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_mapping(node, deep=True)

    Loader.add_multi_constructor("!", plain)
    return yaml.load((rendered / "curfew.yaml").read_text(), Loader)["Resources"]


def test_the_shipped_schedules_are_missed_after_a_day_and_after_a_weekend(rendered):
    them = resources(rendered)
    hours = {name: them[name]["Properties"]["EvaluationPeriods"] for name in ("NoStop", "NoStart")}
    assert hours == {"NoStop": 26, "NoStart": 74}


def test_every_schedule_carries_its_event_and_a_time(rendered):
    them = resources(rendered)
    carried = {name: it["Properties"]["Target"]["Input"][0] for name, it in them.items() if "Scheduler" in it["Type"]}
    ruled = {
        name: it["Properties"]["Targets"][0]["InputTransformer"]["InputTemplate"][0]
        for name, it in them.items()
        if it["Type"] == "AWS::Events::Rule"
    }
    assert set(carried) == {"StopSchedule", "StartSchedule"} and set(ruled) == {"StopRule", "StartRule"}
    for name, text in (carried | ruled).items():
        file = "stop-7pm.json" if name.startswith("Stop") else "start-8am.json"
        event = json.loads(text.replace("${DryRun}", "true").replace(":<time>", ':"<aws.scheduler.scheduled-time>"'))
        assert event.pop("dry_run") is True and event.pop("timezone") == "${Timezone}"
        assert event == json.loads((ROOT / "infra/events" / file).read_text())
        assert ("<time>" in text) == (name in ruled)


def test_an_event_without_a_time_is_not_deployed(tmp_path):
    """A copy of the project whose stop has lost its scheduled_time."""
    for folder in ("infra/events", "policy"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ["infra/stack.py", "infra/template.yaml", "infra/dashboard.json", "infra/parameters.yaml"]:
        (tmp_path / file).write_text((ROOT / file).read_text())
    for path in [*(ROOT / "infra/events").iterdir(), *(ROOT / "policy").glob("*.json")]:
        (tmp_path / path.relative_to(ROOT)).write_text(path.read_text())
    stop = tmp_path / "infra/events/stop-7pm.json"
    event = json.loads(stop.read_text())
    del event["scheduled_time"]
    stop.write_text(json.dumps(event))
    ended = subprocess.run(
        [sys.executable, tmp_path / "infra/stack.py", "render", tmp_path], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: infra/events/stop-7pm.json: scheduled_time: missing")


def test_the_dashboard_asks_for_fields_that_the_log_lines_have():
    """CloudWatch's own fields begin with @; what a query names by `as` is its own too."""
    told = "".join(path.read_text() for path in (ROOT / "tests/it/snapshots").glob("it__told__*.snap"))
    have = set(re.findall(r'^ *"(\w+)":', told, re.MULTILINE))
    widgets = json.loads((ROOT / "infra/dashboard.json").read_text())["widgets"]
    queries = [it["properties"]["query"] for it in widgets if it["type"] == "log"]
    assert len(queries) == 4
    for query in queries:
        asked = set(re.findall(r"(?:ispresent|count_distinct|latest)\((\w+)\)", query))
        for listed in re.findall(r"(?:display|\bby) ([\w@, ]+?)(?:\||$)", query):
            asked |= {it.strip() for it in listed.split(",") if not it.strip().startswith("@")}
        asked |= set(re.findall(r"(\w+) like /", query))
        assert asked and asked <= have, f"{asked - have} in {query}"
