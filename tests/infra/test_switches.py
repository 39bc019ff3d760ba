"""Pausing, halting and resuming Curfew: the verbs know both stacks, and say what each one's state is.

Where MiniStack differs from AWS: a function's reserved concurrency doesn't apply to its versions.
"""

import json
from collections.abc import Sequence

import pytest
from conftest import Cloud, without_stack_sets

NEVER = {
    "StopAt": "cron(0 19 1 1 ? 2199)",
    "StartAt": "cron(0 8 1 1 ? 2199)",
    "ReconcileAt": "cron(0/5 * * * ? *)",
    "SnapshotsAt": "cron(0 3 1 1 ? 2199)",
    "OrganizationId": "o-0a1b2c3d4e",
    "Targets": "r-0a1b",
}
ORGANIZATION = {"STACK": "curfew-organization"}
ON, OFF = {"ENABLED"}, {"DISABLED"}
FUNCTIONS = ["curfew", "curfew-snapshots", "curfew-organization"]


class Both:
    def __init__(self, cloud: Cloud):
        self.cloud = cloud

    def verb(self, verb: str, without: Sequence[str] = (), **env: str):
        return self.cloud.verb(verb, parameters={key: it for key, it in NEVER.items() if key not in without}, **env)

    def said(self, verb: str, **env: str) -> list[str]:
        ended = self.verb(verb, **env)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return [line for line in ended.stdout.splitlines() if line.startswith("curfew")]

    def refused(self, verb: str, **env: str) -> str:
        ended = self.verb(verb, **env)
        assert ended.returncode != 0, ended.stdout
        return next(line for line in ended.stderr.splitlines() if line.startswith("error: "))

    def schedules(self) -> list[set[str]]:
        """Returns the states of the schedules, of the one stack and of the organization's."""
        them = self.cloud.client("scheduler").list_schedules()["Schedules"]
        ours = {it["State"] for it in them if not it["Name"].startswith("curfew-organization")}
        return [ours, {it["State"] for it in them if it["Name"].startswith("curfew-organization")}]

    def missed(self) -> set[str]:
        """Returns the alarms that go off if nothing runs."""
        alarms = self.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
        return {it["AlarmName"] for it in alarms if "did not run" in it["AlarmName"]}

    def reserved(self, stack: str) -> int | None:
        it = self.cloud.client("lambda").get_function_concurrency(FunctionName=stack)
        return it.get("ReservedConcurrentExecutions")

    def title(self, stack: str) -> str:
        body = self.cloud.client("cloudwatch").get_dashboard(DashboardName=f"{stack}-us-east-1")["DashboardBody"]
        return json.loads(body)["widgets"][0]["properties"]["markdown"].splitlines()[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A stack that rehearses, and an organization's stack, armed."""
    cloud = Cloud(tmp_path_factory.mktemp("switches"))
    try:
        cloud.root = without_stack_sets(tmp_path_factory.mktemp("project"), ["self"])
        it = Both(cloud)
        it.said("deploy", **ORGANIZATION, LIVE="yes")
        said = it.said("deploy")
        assert said[-2:] == ["curfew: a rehearsal, its schedules are on", "curfew-organization: armed, its schedules are on"]
        yield it
    finally:
        cloud.end()


def test_each_dashboard_says_what_its_own_stack_is(both):
    assert both.title("curfew") == "# curfew rehearses: it stops and starts nothing"
    assert both.title("curfew-organization") == "# curfew-organization is armed"


def test_paused_both_are_paused_and_said_to_be(both):
    before = both.missed()
    assert len(before) == 7 and both.schedules() == [ON, ON]
    said = both.said("pause")
    assert said[-2:] == ["curfew: a rehearsal, paused; `make resume` ends it", "curfew-organization: armed, paused; `make resume` ends it"]
    assert (both.schedules(), both.missed()) == ([OFF, OFF], set())
    assert both.title("curfew-organization") == "# curfew-organization is paused: its schedules are off"
    assert both.said("pause") == said[-2:], "once more changes nothing"
    both.said("resume")
    assert (both.schedules(), both.missed()) == ([ON, ON], before)


def test_the_organizations_alone_is_paused_and_the_other_is_said_to_run(both):
    assert both.said("pause", **ORGANIZATION)[-2:] == [
        "curfew: a rehearsal, its schedules are on",
        "curfew-organization: armed, paused; `make resume` ends it",
    ]
    assert both.schedules() == [ON, OFF]
    # Deploying doesn't resume what somebody has paused.
    assert both.said("deploy", **ORGANIZATION, LIVE="yes")[-1] == "curfew-organization: armed, paused; `make resume` ends it"
    assert both.schedules() == [ON, OFF]
    both.said("resume", **ORGANIZATION)
    assert both.schedules() == [ON, ON]


def test_what_is_armed_is_not_disarmed_by_a_deployment_that_nobody_asks(both):
    """YES=yes confirms everything, so it must not decide this."""
    both.said("deploy", LIVE="yes")
    for env in ({}, ORGANIZATION):
        name = env.get("STACK", "curfew")
        assert both.refused("deploy", **env).startswith(f"error: {name}: is ARMED, and YES=yes doesn't say whether it stays so; ")
        assert "is ARMED; disarm it?" in both.verb("deploy", **env, YES="").stdout, "and without it, it asks"
        schedule = both.cloud.client("scheduler").get_schedule(Name=f"{name}-stop", GroupName=f"{name}-stop" if env else "default")
        assert json.loads(schedule["Target"]["Input"])["dry_run"] is False
    assert both.said("deploy", LIVE="no")[-2].startswith("curfew: a rehearsal, ")


def test_halted_no_run_begins_in_either_and_resumed_each_has_the_reserve_that_it_had(both):
    functions = both.cloud.client("lambda")
    functions.put_function_concurrency(FunctionName="curfew", ReservedConcurrentExecutions=3)
    for _ in range(2):
        said = both.said("halt", YES="")
        assert [it.partition(";")[0] for it in said] == ["curfew: HALTED", "curfew-snapshots: HALTED", "curfew-organization: HALTED"]
        assert [both.reserved(it) for it in FUNCTIONS] == [0, 0, 0]
    for name in FUNCTIONS:
        with pytest.raises(functions.exceptions.TooManyRequestsException):
            functions.invoke(FunctionName=name, Payload=b'{"action": "stop", "dry_run": true}')
    assert both.said("deploy")[-2].endswith("; HALTED: no run begins until `make resume`"), "and deploying lifts nothing"
    # A function that is new is halted where all are.
    assert both.verb("deploy", without=["SnapshotsAt"]).returncode == 0
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        both.reserved("curfew-snapshots")
    assert both.said("deploy")[-2].endswith("; HALTED: no run begins until `make resume`")
    assert [both.reserved(it) for it in FUNCTIONS[:2]] == [0, 0]
    # Whoever halts one by hand is told of that one, and deploying halts no other.
    functions.delete_function_concurrency(FunctionName="curfew")
    one = "; HALTED: no run of curfew-snapshots begins until `make resume`"
    assert both.said("pause", **ORGANIZATION)[-2].endswith(one)
    both.said("resume", **ORGANIZATION)
    assert both.said("deploy")[-2].endswith(one)
    assert [both.reserved(it) for it in FUNCTIONS[:2]] == [None, 0]
    both.said("halt")
    assert both.said("resume")[-2:] == ["curfew: a rehearsal, its schedules are on", "curfew-organization: armed, its schedules are on"]
    assert [both.reserved(it) for it in FUNCTIONS] == [3, None, None]
    assert "curfew:concurrency" not in functions.get_function(FunctionName="curfew").get("Tags", {})
    functions.delete_function_concurrency(FunctionName="curfew")


def test_resumed_the_organization_does_not_make_up_for_what_was_due_during_the_halt(both):
    """Its state machine repeats what Lambda refuses, for as long as twenty minutes."""
    states = both.cloud.client("stepfunctions")
    [machine] = [it["stateMachineArn"] for it in states.list_state_machines()["stateMachines"]]
    definition = states.describe_state_machine(stateMachineArn=machine)["definition"]
    waiting = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}
    states.update_state_machine(stateMachineArn=machine, definition=json.dumps(waiting))
    try:
        begun = states.start_execution(stateMachineArn=machine)["executionArn"]

        def status() -> str:
            return states.describe_execution(executionArn=begun)["status"]

        both.said("halt")
        assert status() == "RUNNING"
        both.said("pause")
        said = both.said("resume")
        assert f"curfew-organization: ended what waited for the halt to end: {begun}" in said
        assert status() == "ABORTED"
        # Without a halt, nothing is ended.
        begun = states.start_execution(stateMachineArn=machine)["executionArn"]
        both.said("pause")
        both.said("resume")
        assert status() == "RUNNING"
    finally:
        states.stop_execution(executionArn=begun)
        states.update_state_machine(stateMachineArn=machine, definition=definition)


def test_what_cannot_be_paused_is_not_said_to_be(both):
    """A stack of a version without the parameter Paused."""
    cloudformation = both.cloud.client("cloudformation")
    template = {"Parameters": {"Live": {"Type": "String"}}, "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    cloudformation.create_stack(
        StackName="old-organization",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": "Live", "ParameterValue": "yes"}],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName="old-organization", WaiterConfig={"Delay": 1})
    for stack in ("old", "old-organization"):
        assert both.refused("pause", STACK=stack).startswith("error: old-organization: NOT paused: deployed by a version that can't be; ")
    assert both.refused("pause", STACK="nothing") == "error: nothing: no such stack in us-east-1"
    assert both.refused("halt", STACK="nothing") == "error: nothing: no such function in us-east-1"
    assert both.refused("promote", STACK="nothing") == "error: nothing-organization: no such function in us-east-1"


# What AWS answers to somebody who may deploy only the one stack (policy/deployer.json, test_deployer.py).
DENIED = """
from botocore.client import BaseClient
from botocore.exceptions import ClientError

make = BaseClient._make_api_call

def denied(client, operation, parameters):
    if "curfew-organization" in parameters.values() and operation not in ("DescribeStacks", "GetFunctionConcurrency"):
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not authorized"}}, operation)
    return make(client, operation, parameters)

BaseClient._make_api_call = denied
"""


def test_who_may_not_switch_the_organizations_switches_the_other_and_hears_what_goes_on(both, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DENIED)
    for verb, of_it in (("pause", OFF), ("resume", ON)):
        # It could not do all that it was asked for, so it fails.
        if verb == "resume":
            both.said("pause", **ORGANIZATION)
        ended = both.verb(verb, PYTHONPATH=str(tmp_path))
        assert ended.returncode != 0
        assert f"error: curfew-organization: NOT {verb}d: An error occurred (AccessDenied)" in ended.stderr
        assert "curfew-organization: armed, " in ended.stdout
        assert both.schedules()[0] == of_it
    both.said("resume", **ORGANIZATION)
    ended = both.verb("halt", PYTHONPATH=str(tmp_path))
    assert ended.returncode != 0 and "curfew: HALTED; " in ended.stdout
    assert "error: curfew-organization: NOT halted: " in ended.stderr
    assert [both.reserved(it) for it in FUNCTIONS] == [0, 0, None]
    both.said("resume")


def test_one_undeployed_the_other_is_said_to_stay(both):
    assert both.said("undeploy")[-1] == "curfew-organization: armed, its schedules are on"
    assert both.schedules() == [set(), ON]
    assert both.said("pause") == ["curfew-organization: armed, paused; `make resume` ends it"], "it is found without the other"
    both.said("undeploy", **ORGANIZATION)
    assert both.schedules() == [set(), set()]
