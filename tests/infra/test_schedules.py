"""The deployed stack does what was tested: its schedules fire, the right instances stop and start, and nothing is left.

Where MiniStack differs from AWS: it looks for what is due every ten seconds; it fills in no
`<aws.scheduler.scheduled-time>`, so that a run's time is its own; it knows UTC only; it asks for no capability; its EC2 switches at once and ignores
DryRun, which is why the rehearsal runs against ec2-sim; it retries no schedule.
"""

import json
from datetime import datetime, timedelta, timezone

import pytest
import requests
from conftest import ROOT, TARGET, Cloud, left, until

PATIENCE = 180
# The stacks of the tests that share one MiniStack, and their regions.
STACKS = {"curfew": "us-east-1", "curfew-rule": "eu-west-1", "curfew-hours": "eu-central-1"}


def test_the_zip_is_at_most_five_megabytes():
    assert (TARGET / "lambda/ec2-curfew/bootstrap.zip").stat().st_size <= 5 << 20


def run_instances(ec2, count: int, tags: dict[str, str]) -> list[str]:
    it = ec2.run_instances(
        ImageId="ami-12345678",
        InstanceType="t3.micro",
        MinCount=count,
        MaxCount=count,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        ],
    )
    return [instance["InstanceId"] for instance in it["Instances"]]


def states(ec2, ids: list[str]) -> set[str]:
    pages = ec2.describe_instances(InstanceIds=ids)["Reservations"]
    return {instance["State"]["Name"] for page in pages for instance in page["Instances"]}


def tag_keys(ec2, ids: list[str]) -> set[str]:
    pages = ec2.describe_instances(InstanceIds=ids)["Reservations"]
    return {tag["Key"] for page in pages for instance in page["Instances"] for tag in instance.get("Tags", [])}


def at(moment: datetime) -> str:
    return f"cron({moment.minute} {moment.hour} {moment.day} {moment.month} ? {moment.year})"


def ahead(seconds: int) -> datetime:
    """Returns the first full minute that is at least this far away."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds + 59)).replace(second=0, microsecond=0)


def shipped(event: str) -> dict:
    return json.loads((ROOT / "infra/events" / event).read_text())


@pytest.fixture(scope="module")
def armed(cloud):
    """An armed stack with Scheduler that stops within two minutes and starts a minute later."""
    ec2 = cloud.client("ec2")
    ours, others = run_instances(ec2, 3, {"curfew": "yes"}), run_instances(ec2, 2, {"Name": "somebody's"})
    stop = ahead(60)
    parameters = {"StopAt": at(stop), "StartAt": at(stop + timedelta(minutes=1))}
    deployed = cloud.verb("deploy", parameters=parameters, LIVE="yes")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "curfew: ARMED" in deployed.stdout
    return ec2, ours, others, parameters


def test_armed_with_scheduler_the_right_instances_stop_and_start_because_the_schedule_fired(cloud, armed):
    ec2, ours, others, _ = armed
    assert states(ec2, ours + others) == {"running"}
    schedule = cloud.client("scheduler").get_schedule(Name="curfew-stop")
    assert json.loads(schedule["Target"]["Input"]) == shipped("stop-7pm.json") | {"timezone": "UTC", "dry_run": False}
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert schedule["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] == 3600

    until("ours are stopped", PATIENCE, lambda: states(ec2, ours) == {"stopped"})
    assert states(ec2, others) == {"running"}
    assert "curfew:stopped-at" in tag_keys(ec2, ours)

    until("ours run again", PATIENCE, lambda: states(ec2, ours) == {"running"})
    until("the marks are gone", 20, lambda: "curfew:stopped-at" not in tag_keys(ec2, ours))
    stopped, started = until("both tell", 30, lambda: (them := cloud.reports("curfew")) and len(them) == 2 and them)
    assert (stopped["action"], stopped["summary"]["changed"], stopped["dry_run"]) == ("stop", 3, False)
    assert (started["action"], started["summary"]["changed"], started["dry_run"]) == ("start", 3, False)


def test_what_runs_unattended_is_heard(cloud, armed):
    alarms = {it["AlarmName"]: it for it in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert set(alarms) == {
        "curfew a run failed",
        "curfew an event was dropped",
        "curfew a stop came too late",
        "curfew a start came too late",
        "curfew did not run to stop",
        "curfew did not run to start",
    }
    [topic] = cloud.client("sns").list_topics()["Topics"]
    assert all(it["AlarmActions"] == [topic["TopicArn"]] for it in alarms.values())
    # These crons fire on one day only, so their alarms tolerate a weekend; test_parameters.py has the shipped ones.
    missed = alarms["curfew did not run to stop"]
    assert (missed["EvaluationPeriods"] * missed["Period"], missed["TreatMissingData"]) == (74 * 3600, "breaching")
    config = cloud.client("lambda").get_function_event_invoke_config(FunctionName="curfew", Qualifier="$LATEST")
    [queue] = cloud.client("sqs").list_queues()["QueueUrls"]
    assert config["DestinationConfig"]["OnFailure"]["Destination"].endswith(queue.rpartition("/")[2])
    assert config["MaximumEventAgeInSeconds"] == 14400


def test_the_alarms_ask_for_metrics_that_the_function_really_tells(cloud, armed):
    [told, *_] = until("metrics", PATIENCE, lambda: [line for line in cloud.lines("curfew") if "_aws" in line])
    [directive] = told["_aws"]["CloudWatchMetrics"]
    told_of = {(directive["Namespace"], it["Name"]) for it in directive["Metrics"]}
    for alarm in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]:
        if alarm["Namespace"].startswith("AWS/"):
            continue
        assert (alarm["Namespace"], alarm["MetricName"]) in told_of
        dimensions = {it["Name"]: it["Value"] for it in alarm["Dimensions"]}
        assert [sorted(dimensions)] == [sorted(it) for it in directive["Dimensions"]]
        assert dimensions["name"] == told["name"]


def test_paused_nothing_fires_and_nothing_is_missed_and_resumed_it_is_as_before(cloud, armed):
    def state():
        names = {it["AlarmName"] for it in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]}
        schedules = {it["Name"]: it["State"] for it in cloud.client("scheduler").list_schedules()["Schedules"]}
        return {it for it in names if "did not run" in it}, schedules

    before = state()
    paused = cloud.verb("pause")
    assert paused.returncode == 0, paused.stderr
    assert state() == (set(), {"curfew-stop": "DISABLED", "curfew-start": "DISABLED"})
    # Deploying again, even armed, doesn't resume what somebody has paused.
    again = cloud.verb("deploy", parameters=armed[3], LIVE="yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "(was armed; paused, and will stay paused)" in again.stdout
    assert state() == (set(), {"curfew-stop": "DISABLED", "curfew-start": "DISABLED"})
    resumed = cloud.verb("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert state() == before
    # Still armed: pausing changed nothing else.
    schedule = cloud.client("scheduler").get_schedule(Name="curfew-stop")
    assert json.loads(schedule["Target"]["Input"])["dry_run"] is False


def test_by_hand_it_is_a_dry_run_until_live_is_said(cloud, armed, tmp_path):
    ec2, ours, _, _ = armed
    invoked = cloud.verb("invoke", "EVENT=infra/events/start-8am.json")
    assert invoked.returncode == 0, invoked.stderr
    assert '"dry_run":true' in invoked.stdout.splitlines()[0]
    assert invoked.stdout.splitlines()[-1].startswith("office: dry run, ")
    live = cloud.verb("invoke", "EVENT=infra/events/start-8am.json", LIVE="yes")
    assert '"dry_run"' not in live.stdout.splitlines()[0]
    refused = cloud.verb("invoke", "EVENT=Cargo.toml")
    assert refused.returncode != 0 and refused.stderr.startswith("error: Cargo.toml: ")
    envelope = tmp_path / "envelope.json"
    envelope.write_text(json.dumps({"detail-type": "x", "detail": shipped("stop-7pm.json")}))
    refused = cloud.verb("invoke", f"EVENT={envelope}")
    assert refused.returncode != 0 and "this is an envelope; " in refused.stderr


def test_a_rule_fires_too_and_passes_its_time(cloud):
    ec2 = cloud.client("ec2", "eu-west-1")
    ours, others = run_instances(ec2, 2, {"curfew": "yes"}), run_instances(ec2, 1, {"curfew": "no"})
    parameters = {"StopAt": at(ahead(45)), "StartAt": "off", "ReconcileAt": "cron(* * * * ? *)", "ScheduleWith": "rule"}
    deployed = cloud.verb("deploy", parameters=parameters, region="eu-west-1", STACK="curfew-rule", LIVE="yes")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    rules = {it["Name"] for it in cloud.client("events", "eu-west-1").list_rules()["Rules"]}
    assert rules == {"curfew-rule-stop", "curfew-rule-reconcile"}
    until("ours are stopped", PATIENCE, lambda: states(ec2, ours) == {"stopped"})
    assert states(ec2, others) == {"running"}
    told = lambda action: [it for it in cloud.reports("curfew-rule", "eu-west-1") if it["action"] == action]  # noqa: E731
    [report] = until("it tells", 30, lambda: told("stop"))
    assert report["scheduled_time"], "the rule's time has arrived"
    assert report["summary"]["changed"] == 2
    tick = until("it ticks", PATIENCE, lambda: told("reconcile"))[0]
    assert tick["scheduled_time"] and tick["summary"]["matched"] == 0, "none has hours"


@pytest.fixture(scope="module")
def ticking(cloud):
    """A stack that ticks every minute, and instances whose hours end within two minutes and begin again a minute later."""
    ec2 = cloud.client("ec2", STACKS["curfew-hours"])
    close = ahead(60)
    # From the opening to the closing, over midnight: all but one minute of the day.
    hours = f"Mo-Su {close + timedelta(minutes=1):%H:%M}-{close:%H:%M}"
    machines = {
        "ours": run_instances(ec2, 2, {"curfew": "yes", "curfew:hours": hours}),
        "unreadable": run_instances(ec2, 1, {"curfew": "yes", "curfew:hours": "Mon-Fri 8-19"}),
        "others": run_instances(ec2, 1, {"curfew": "yes"}) + run_instances(ec2, 1, {"curfew:hours": hours}),
    }
    parameters = {"StopAt": "off", "StartAt": "off", "ReconcileAt": "cron(* * * * ? *)"}
    deployed = cloud.verb("deploy", parameters=parameters, region=STACKS["curfew-hours"], STACK="curfew-hours", LIVE="yes")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    return ec2, machines


def test_the_third_schedule_fires_and_switches_both_ways(cloud, ticking):
    ec2, machines = ticking
    region = STACKS["curfew-hours"]
    [schedule] = cloud.client("scheduler", region).list_schedules()["Schedules"]
    schedule = cloud.client("scheduler", region).get_schedule(Name=schedule["Name"])
    assert (schedule["Name"], schedule["State"]) == ("curfew-hours-reconcile", "ENABLED")
    assert json.loads(schedule["Target"]["Input"]) == shipped("reconcile.json") | {"timezone": "UTC", "dry_run": False}

    until("ours are stopped", PATIENCE, lambda: states(ec2, machines["ours"]) == {"stopped"})
    assert "curfew:stopped-at" in tag_keys(ec2, machines["ours"])
    until("ours run again", PATIENCE, lambda: states(ec2, machines["ours"]) == {"running"})
    assert states(ec2, machines["unreadable"] + machines["others"]) == {"running"}

    def told():
        reports = cloud.reports("curfew-hours", region)
        return [it for it in reports if it["summary"]["changed"]] if len(reports) > 2 else []

    stopped, started = until("both ticks tell", 60, lambda: len(it := told()) == 2 and it)
    assert stopped["message"].startswith("office: stopped 2 of 3; 1 bad tag: ")
    assert started["message"].startswith("office: started 2 of 3; 1 bad tag: ")
    assert {it["action"] for it in cloud.reports("curfew-hours", region)} == {"reconcile"}


def test_a_tick_is_repeated_by_nobody(cloud, ticking):
    region = STACKS["curfew-hours"]
    target = cloud.client("scheduler", region).get_schedule(Name="curfew-hours-reconcile")["Target"]
    assert target["Arn"].endswith(":function:curfew-hours:tick")
    assert target["RetryPolicy"]["MaximumRetryAttempts"] == 0 and "DeadLetterConfig" not in target
    lambdas = cloud.client("lambda", region)
    config = lambdas.get_function_event_invoke_config(FunctionName="curfew-hours", Qualifier="tick")
    assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (0, 300)
    assert "Destination" not in config.get("DestinationConfig", {}).get("OnFailure", {})
    # Events for the function's own name are still retried.
    assert lambdas.get_function_event_invoke_config(FunctionName="curfew-hours", Qualifier="$LATEST")["MaximumRetryAttempts"] == 2


def test_hours_that_are_not_kept_or_not_readable_and_missing_ticks_are_heard(cloud, ticking):
    region = STACKS["curfew-hours"]
    alarms = {it["MetricName"]: it for it in cloud.client("cloudwatch", region).describe_alarms()["MetricAlarms"] if it["Namespace"] == "Curfew"}
    names = {metric: it["AlarmName"] for metric, it in alarms.items()}
    assert names == {
        "left": "curfew-hours hours are not kept",
        "bad_tag": "curfew-hours hours can't be read",
        "duration": "curfew-hours did not run to reconcile",
    }
    lines = until("metrics", PATIENCE, lambda: [line for line in cloud.lines("curfew-hours", region) if "bad_tag" in line and "_aws" in line])
    [directive] = lines[0]["_aws"]["CloudWatchMetrics"]
    told = {it["Name"] for it in directive["Metrics"]}
    assert told >= {"duration", "bad_tag"} and "left" not in told, "what is zero is not told: the alarm's missing data"
    for alarm in alarms.values():
        dimensions = {it["Name"]: it["Value"] for it in alarm["Dimensions"]}
        assert dimensions == {it: lines[0][it] for [*them] in directive["Dimensions"] for it in them}
        assert alarm["Namespace"] == directive["Namespace"]


def test_paused_it_does_not_tick_and_is_not_missed(cloud, ticking):
    region = STACKS["curfew-hours"]

    def state():
        alarms = {it["MetricName"] for it in cloud.client("cloudwatch", region).describe_alarms()["MetricAlarms"]}
        return alarms & {"left", "bad_tag", "duration"}, cloud.client("scheduler", region).list_schedules()["Schedules"][0]["State"]

    assert cloud.verb("pause", region=region, STACK="curfew-hours").returncode == 0
    assert state() == ({"left", "bad_tag"}, "DISABLED")
    assert cloud.verb("resume", region=region, STACK="curfew-hours").returncode == 0
    assert state() == ({"left", "bad_tag", "duration"}, "ENABLED")


def test_undeployed_nothing_is_left_but_sams_empty_bucket(cloud, armed, ticking):
    for stack, region in STACKS.items():
        gone = cloud.verb("undeploy", region=region, STACK=stack)
        assert gone.returncode == 0, gone.stdout + gone.stderr
    assert [left(cloud, region) for region in STACKS.values()] == [{}, {}, {}]


def test_a_rehearsal_fires_and_changes_nothing(tmp_path, ec2_sim):
    """The default, without LIVE."""
    cloud = Cloud(tmp_path, AWS_ENDPOINT_URL_EC2=ec2_sim)
    try:
        soon = at(ahead(45))
        deployed = cloud.verb("deploy", parameters={"StopAt": soon, "StartAt": "off", "SnapshotsAt": soon})
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        assert "curfew: a rehearsal" in deployed.stdout
        body = cloud.client("cloudwatch").get_dashboard(DashboardName="curfew-us-east-1")["DashboardBody"]
        assert json.loads(body)["widgets"][0]["properties"]["markdown"].startswith("# curfew rehearses: it stops and starts nothing")
        until("it tells", PATIENCE, lambda: cloud.reports("curfew"))
        last = cloud.lines("curfew")[-1]
        assert last["message"].startswith("office: dry run, would stop 3 of 3")
        assert last["summary"]["would_change"] == 3
        assert {it["state"] for it in requests.get(f"{ec2_sim}/_sim/instances").json()} == {"running"}
        calls = requests.get(f"{ec2_sim}/_sim/calls").json()
        assert {(it["action"], it["code"]) for it in calls if not it["action"].startswith("Describe")} == {
            ("CreateTags", "DryRunOperation"),
            ("StopInstances", "DryRunOperation"),
        }
        # Snapshots have a function and a log of their own.
        until("it tells of snapshots, too", 60, lambda: cloud.reports("curfew-snapshots"))
        last = cloud.lines("curfew-snapshots")[-1]
        assert (last["action"], last["outcome"]) == ("snapshots", "complete")
        assert last["message"].startswith("snapshots: dry run, nothing to delete, no snapshot in us-east-1 has curfew=yes")
    finally:
        cloud.end()
