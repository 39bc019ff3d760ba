"""The organization's state machine, executed: whom it passes on, what it repeats, when it gives up.

By two interpreters. moto's, in this process, has an organization to list and ends what takes too long; MiniStack's has
the template deployed, and the schedule really starts it. Where they differ from AWS: moto's pages hold 100 accounts,
AWS's 20; it brings no engine for JSONata, so it gets MiniStack's; it runs no function without Docker, so a scripted one
answers in its place. MiniStack's Step Functions can't call Organizations and knows no TimeoutSeconds, its
CloudFormation knows no StackSet. Neither holds a payload to 256 KB.
"""

import io
import json
import re
import time
import zipfile
from datetime import datetime, timedelta, timezone
from itertools import count
from types import SimpleNamespace

import boto3
import pytest
from conftest import ROOT, Cloud, left, until, without_stack_sets
from jsonata import Jsonata
from ministack.core.iam_evaluator import EvalContext, evaluate_trust_policy
from moto import mock_aws
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.organizations.models import FakeAccount
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.jsonata import jsonata as engine
from samcli.yamlhelper import yaml_parse

# moto's own, in which everything here runs.
ACCOUNT = "123456789012"
REQUEST = {"action": "stop", "name": "office", "tags": {"curfew": "yes"}}
DUE = "2026-11-20T19:00:00Z"
PAYLOAD = 256 * 1024


def template(rendered, name: str = "organization") -> dict:
    return yaml_parse((rendered / f"{name}.yaml").read_text())


def filled(text: dict, account: str = ACCOUNT) -> str:
    """What Fn::Sub makes of a text."""
    values = {"AWS::Partition": "aws", "AWS::AccountId": account, "AWS::StackName": "curfew-organization", "Curfew": "curfew"}
    return re.sub(r"\$\{([^}]+)\}", lambda it: values[it[1]], text["Fn::Sub"])


@pytest.fixture
def definition(rendered) -> dict:
    return json.loads(filled(template(rendered)["Resources"]["StateMachine"]["Properties"]["DefinitionString"]))


# ---- By moto ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def organization(monkeypatch):
    """The management account, and 120 that joined: two pages."""
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}}):
        monkeypatch.setattr(engine, "_eval_jsonata", lambda expression: Jsonata.jsonata(expression).evaluate(None))
        it = boto3.client("organizations", "us-east-1")
        it.create_organization(FeatureSet="ALL")
        created = [it.create_account(Email=f"{n}@example.com", AccountName=f"{n}") for n in range(120)]
        yield SimpleNamespace(client=it, members=[one["CreateAccountStatus"]["AccountId"] for one in created])


@pytest.fixture
def execute(organization, definition, monkeypatch):
    """Executes the state machine; its function ends once with each word, and with the last for ever."""
    names = (f"run-{n}" for n in count())

    def execute(request: dict, *words: str, machine: dict = definition, sleep=None):
        events, waits = [], []

        def invoke(_, function_name, qualifier, body, headers, response_headers):
            assert function_name == "curfew-organization:live"
            events.append(json.loads(body))
            word = words[min(len(events), len(words)) - 1]
            if word == "complete":
                return json.dumps({"outcome": word}).encode()
            response_headers["x-amz-function-error"] = "Unhandled"
            return json.dumps({"errorType": word, "errorMessage": "office: …"}).encode()

        monkeypatch.setattr(LambdaSimpleBackend, "invoke", invoke)
        monkeypatch.setattr(retrier_decl, "time", SimpleNamespace(sleep=sleep or waits.append))
        sfn = boto3.client("stepfunctions", "us-east-1")
        name = next(names)
        role = f"arn:aws:iam::{ACCOUNT}:role/state-machine"
        arn = sfn.create_state_machine(name=name, definition=json.dumps(machine), roleArn=role)["stateMachineArn"]
        started = sfn.start_execution(stateMachineArn=arn, name=name, input=json.dumps(request))["executionArn"]
        while (it := sfn.describe_execution(executionArn=started))["status"] == "RUNNING":
            time.sleep(0.05)
        history = sfn.get_execution_history(executionArn=started)["events"]
        visited = [step["stateEnteredEventDetails"]["name"] for step in history if "stateEnteredEventDetails" in step]
        return SimpleNamespace(
            status=it["status"],
            error=it.get("error"),
            output=json.loads(it.get("output", "null")),
            started=it["startDate"],
            events=events,
            waits=waits,
            visited=visited,
        )

    return execute


def test_the_active_accounts_of_all_pages_are_passed_on_and_no_suspended_one(organization, execute):
    first, last = organization.members[7], organization.members[-1]
    for closed in (first, last):
        organization.client.close_account(AccountId=closed)
    run = execute(REQUEST, "complete")
    assert (run.status, run.visited.count("ListAccounts")) == ("SUCCEEDED", 2)
    [event] = run.events
    assert event["accounts"] == [ACCOUNT] + [it for it in organization.members if it not in (first, last)]
    assert event | REQUEST == event, "the request itself is passed on as it is"
    assert event["role"] == "organization/curfew-member"


@pytest.mark.parametrize("retired", ["State", "Status"])
def test_an_account_is_active_by_its_state_and_by_its_status_where_there_is_no_state(organization, execute, monkeypatch, retired):
    """AWS has called it State since 2025 and announced that Status ends in September 2026."""
    organization.client.close_account(AccountId=organization.members[0])
    whole = FakeAccount.describe
    monkeypatch.setattr(FakeAccount, "describe", lambda it: {key: value for key, value in whole(it).items() if key != retired})
    [event] = execute(REQUEST, "complete").events
    assert event["accounts"] == [ACCOUNT, *organization.members[1:]]


def test_one_active_account_is_still_a_list(organization, execute):
    for member in organization.members:
        organization.client.close_account(AccountId=member)
    assert execute(REQUEST, "complete").events[0]["accounts"] == [ACCOUNT]


def test_from_a_delegated_administrator_the_management_account_is_left_out(rendered, organization, execute):
    """StackSets give it no role."""
    text = template(rendered)["Resources"]["StateMachine"]["Properties"]["DefinitionString"]
    run = execute(REQUEST, "complete", machine=json.loads(filled(text, organization.members[0])))
    assert run.events[0]["accounts"] == organization.members


@pytest.mark.parametrize("given", [["self", "111122223333"], "self", []])
def test_accounts_in_the_request_are_taken_as_they_are_and_none_is_listed(execute, given):
    run = execute(REQUEST | {"accounts": given}, "complete")
    assert "ListAccounts" not in run.visited
    assert run.events[0]["accounts"] == given


def test_what_is_unfinished_is_repeated_with_the_same_event_until_it_is_done(execute):
    run = execute(REQUEST | {"scheduled_time": DUE}, "Unfinished", "Unfinished", "complete")
    assert (run.status, run.output) == ("SUCCEEDED", {"outcome": "complete"})
    assert run.waits == [30, 60]
    assert len(run.events) == 3 and run.events[0] == run.events[1] == run.events[2]
    assert run.visited.count("ListAccounts") == 2, "listed once, page by page: a retry meets the accounts of the first run"


@pytest.mark.parametrize("error", ["Incomplete", "TooManyChanges", "InvalidRequest", "Internal"])
def test_what_a_retry_does_not_help_is_not_repeated_and_ends_failed(execute, error):
    run = execute(REQUEST, error, "complete")
    assert (run.status, run.error, len(run.events)) == ("FAILED", error, 1)


def test_unfinished_first_and_then_incomplete_ends_failed(execute):
    run = execute(REQUEST, "Unfinished", "Incomplete", "complete")
    assert (run.status, run.error, len(run.events)) == ("FAILED", "Incomplete", 2)


@pytest.mark.parametrize("error", ["Lambda.TooManyRequestsException", "Lambda.ServiceException", "Sandbox.Timedout"])
def test_a_run_that_lambda_refused_or_lost_is_repeated_but_not_for_ever(execute, error):
    assert execute(REQUEST, error, "Unfinished", error, "complete").status == "SUCCEEDED"
    run = execute(REQUEST, error)
    assert (run.status, run.error, len(run.events)) == ("FAILED", error, 7)


def test_the_time_limit_ends_it(execute, definition):
    definition["TimeoutSeconds"] = 2
    run = execute(REQUEST, "Unfinished", sleep=lambda _: time.sleep(0.2))
    assert run.status == "TIMED_OUT"
    assert len(run.events) > 2


def test_it_is_the_time_limit_that_ends_it_and_not_the_number_of_retries(execute, definition):
    """Even if each run ends at once."""
    run = execute(REQUEST, "Unfinished")
    assert sum(run.waits) > definition["TimeoutSeconds"]
    assert max(run.waits) == 300


def test_no_retry_comes_too_late_for_its_event(rendered, definition, execute):
    """A run that finds itself stale succeeds, with work left."""
    resources = template(rendered)["Resources"]
    schedules = [resources[it]["Properties"]["Target"]["RetryPolicy"] for it in ("StopSchedule", "StartSchedule")]
    [event] = execute(REQUEST | {"max_delay_minutes": 5}, "complete").events
    for schedule in schedules:
        # A minute is Scheduler's precision.
        latest = 60 + schedule["MaximumEventAgeInSeconds"] + definition["TimeoutSeconds"]
        assert latest < event["max_delay_minutes"] * 60


def test_a_tick_goes_to_all_accounts_and_is_late_after_five_minutes_as_everywhere(execute, rendered):
    """What Lambda refused is asked for again until then. That something is left, a tick only tells: it succeeds."""
    tick = json.loads((ROOT / "infra/events/reconcile.json").read_text())
    run = execute(tick, "Lambda.TooManyRequestsException", "complete")
    assert (run.status, run.visited.count("ListAccounts"), len(run.events)) == ("SUCCEEDED", 2, 2)
    assert (run.events[0]["max_delay_minutes"], run.events[0]["role"], len(run.events[0]["accounts"])) == (5, "organization/curfew-member", 121)
    target = template(rendered)["Resources"]["ReconcileSchedule"]["Properties"]["Target"]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 0} and "DeadLetterConfig" not in target


def test_a_stop_or_start_that_could_not_begin_rings_and_a_tick_only_where_six_did_not(rendered):
    resources = template(rendered)["Resources"]
    queues = {name: it["Properties"]["Target"].get("DeadLetterConfig") for name, it in resources.items() if it["Type"] == "AWS::Scheduler::Schedule"}
    queue = {"Arn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}}
    assert queues == {"StopSchedule": queue, "StartSchedule": queue, "ReconcileSchedule": None}
    alarm = resources["DeadLetterArrived"]["Properties"]
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["DeadLetters", "QueueName"]}}]
    assert (alarm["MetricName"], alarm["DatapointsToAlarm"], alarm["EvaluationPeriods"]) == ("NumberOfMessagesSent", 1, 3)


def test_every_schedule_carries_its_event_and_rehearses_until_it_is_armed(rendered):
    resources = template(rendered)["Resources"]
    for name, file in (("StopSchedule", "stop-7pm"), ("StartSchedule", "start-8am"), ("ReconcileSchedule", "reconcile")):
        text, filled = resources[name]["Properties"]["Target"]["Input"]["Fn::Sub"]
        assert filled == {"DryRun": {"Fn::If": ["Armed", "false", "true"]}, "Timezone": "UTC"}
        shipped = json.loads((ROOT / f"infra/events/{file}.json").read_text())
        assert json.loads(text.replace("${DryRun}", "true")) == {"timezone": "${Timezone}", "dry_run": True} | shipped


def test_all_retries_are_judged_as_of_one_moment(execute):
    """Else a retry would stop at 10 PM what somebody started at 9."""
    given = execute(REQUEST | {"scheduled_time": DUE}, "complete")
    assert given.events[0]["scheduled_time"] == DUE
    for unfilled in ({}, {"scheduled_time": "<aws.scheduler.scheduled-time>"}):
        run = execute(REQUEST | unfilled, "Unfinished", "complete")
        [moment] = {it["scheduled_time"] for it in run.events}
        assert abs(datetime.fromisoformat(moment) - run.started) < timedelta(milliseconds=1)


def test_ten_thousand_accounts_fit_into_a_payload(execute):
    accounts = [f"{n:012}" for n in range(10_000)]
    [event] = execute(REQUEST | {"accounts": accounts}, "complete").events
    assert event["accounts"] == accounts
    assert len(json.dumps(event, separators=(",", ":"))) < PAYLOAD * 0.6


# ---- The roles --------------------------------------------------------------------------------------------------------


def test_the_state_machine_may_call_what_it_calls_and_nothing_else_but_its_log(definition):
    called = {re.sub(r"^arn:aws:states:::(aws-sdk:)?", "", it["Resource"]) for it in definition["States"].values() if "Resource" in it}
    assert called == {"lambda:invoke", "organizations:listAccounts"}
    statements = json.loads((ROOT / "policy/organization-role.json").read_text())["Statement"]
    allowed = {action for it in statements for action in ([it["Action"]] if isinstance(it["Action"], str) else it["Action"])}
    assert {it for it in allowed if not it.startswith("logs:")} == {"lambda:InvokeFunction", "organizations:ListAccounts"}


def test_every_account_gets_the_role_of_the_policy_folder(rendered):
    member = template(rendered, "member-role")
    stack_set = template(rendered)["Resources"]["MemberRoles"]["Properties"]
    assert yaml_parse(stack_set["TemplateBody"]) == member
    assert {it["ParameterKey"] for it in stack_set["Parameters"]} == set(member["Parameters"])
    role = member["Resources"]["Member"]["Properties"]
    policy = lambda name: json.loads((ROOT / "policy" / f"{name}.json").read_text())  # noqa: E731
    assert json.loads(role["AssumeRolePolicyDocument"]["Fn::Sub"]) == policy("member-role-trust")
    [inline] = role["Policies"]
    assert json.loads(inline["PolicyDocument"]["Fn::Sub"][0]) == policy("member-role")


def test_the_role_is_called_the_same_where_it_is_made_assumed_and_allowed(rendered, execute):
    role = template(rendered, "member-role")["Resources"]["Member"]["Properties"]
    made = f"{role['Path'].removeprefix('/')}{filled(role['RoleName'])}"
    assert execute(REQUEST | {"accounts": "self"}, "complete").events[0]["role"] == made
    allowed = template(rendered)["Resources"]["ExecutionAccountsPolicy"]["Properties"]["PolicyDocument"]
    [statement] = json.loads(filled(allowed))["Statement"]
    assert statement["Resource"] == f"arn:aws:iam::*:role/{made}"


@pytest.mark.parametrize(
    ("account", "role", "organization", "trusted"),
    [
        ("444455556666", "organization/curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", True),
        ("444455556666", "organization/curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-ffffffffff", False),
        ("444455556666", "organization/curfew-organization-ExecutionRole-FFFFFFFFFFFF", "o-0a1b2c3d4e", False),
        # The function's of Curfew's stack for that account alone, which others deploy.
        ("444455556666", "curfew-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", False),
        ("444455556666", "curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", False),
        ("444455556666", "admin", "o-0a1b2c3d4e", False),
        ("999999999999", "organization/curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", False),
    ],
)
def test_only_the_functions_own_role_from_its_own_organization_may_assume_a_member_role(rendered, account, role, organization, trusted):
    caller = f"arn:aws:iam::{account}:role/{role}"
    asked = EvalContext(
        principal_arn=caller,
        principal_type="AssumedRole",
        principal_account=account,
        action="sts:AssumeRole",
        resource_arn="*",
        region="us-east-1",
        service_context={"aws:principalarn": caller, "aws:principalorgid": organization},
    )
    trust = json.loads((rendered / "policy/member-role-trust.json").read_text())
    # The account's root stands for all who are of it.
    assert evaluate_trust_policy(trust, f"arn:aws:iam::{account}:root", asked) == trusted


# ---- By MiniStack, deployed ---------------------------------------------------------------------------------------------

# What is promoted in place of the function that was deployed: a bootstrap that writes down each event and ends with the next word.
SCRIPTED = """#!/usr/bin/env python3
import json, os
from urllib.request import Request, urlopen

invocation = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
for word in ("Unfinished", "Unfinished", "complete"):
    with urlopen(f"{invocation}/next") as it:
        id, event = it.headers["Lambda-Runtime-Aws-Request-Id"], json.load(it)
    print(json.dumps(event), flush=True)
    done = word == "complete"
    answer = {"outcome": word} if done else {"errorType": word, "errorMessage": "office: …"}
    path = f"{invocation}/{id}/{'response' if done else 'error'}"
    urlopen(Request(path, json.dumps(answer).encode(), method="POST"))
"""
IT = {"STACK": "curfew-organization"}


def scripted() -> bytes:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as it:
        bootstrap = zipfile.ZipInfo("bootstrap")
        bootstrap.external_attr = 0o755 << 16
        it.writestr(bootstrap, SCRIPTED)
    return zipped.getvalue()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """By `make`, without another stack. It stops at the next minute but one."""
    cloud = Cloud(tmp_path_factory.mktemp("organization"), SFN_WAIT_SCALE="0.02")
    try:
        cloud.root = without_stack_sets(tmp_path_factory.mktemp("project"), ["self", "444455556666"])
        at = datetime.now(timezone.utc) + timedelta(seconds=130)
        parameters = {
            "OrganizationId": "o-0a1b2c3d4e",
            "Targets": "ou-0a1b-2c3d4e5f,ou-0a1b-6a7b8c9d",
            "StopAt": f"cron({at.minute} {at.hour} {at.day} {at.month} ? {at.year})",
            "Ec2Limits": {"StartInstances": {"calls": {"size": 5, "refill": 2}, "instances": {"size": 2000, "refill": 10}}},
        }
        ended = cloud.verb("deploy", parameters=parameters, **IT)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "curfew-organization: a rehearsal" in ended.stdout
        yield cloud
    finally:
        cloud.end()


def live(cloud) -> str:
    return cloud.client("lambda").get_alias(FunctionName="curfew-organization", Name="live")["FunctionVersion"]


def test_deployed_the_function_has_ec2s_limits_as_they_were_given(deployed):
    variables = deployed.client("lambda").get_function_configuration(FunctionName="curfew-organization")["Environment"]["Variables"]
    limits = {"StartInstances": {"calls": {"size": 5, "refill": 2}, "instances": {"size": 2000, "refill": 10}}}
    assert {name: json.loads(it) for name, it in variables.items()} == {"CURFEW_EC2_LIMITS": limits}


def test_deployed_all_accounts_get_new_code_only_when_it_is_promoted(deployed, tmp_path):
    functions = deployed.client("lambda")
    assert live(deployed) == "1"
    functions.update_function_code(FunctionName="curfew-organization", ZipFile=scripted())
    assert live(deployed) == "1"
    refused = deployed.verb("promote")
    assert refused.returncode != 0 and refused.stderr.startswith("error: curfew-organization: has the code ")
    assert live(deployed) == "1", "that is another than what is built here"
    (tmp_path / "lambda/ec2-curfew").mkdir(parents=True)
    (tmp_path / "lambda/ec2-curfew/bootstrap.zip").write_bytes(scripted())
    for said in ("version 2 is live; before it was 1\n", "version 2 is live, as before\n"):
        promoted = deployed.verb("promote", CARGO_TARGET_DIR=str(tmp_path))
        assert promoted.returncode == 0, promoted.stderr
        assert promoted.stdout.endswith(said)
        assert live(deployed) == "2"


def test_deployed_its_schedule_starts_it_and_it_repeats_the_function_until_it_is_done(deployed):
    cloud = deployed
    sfn = cloud.client("stepfunctions")
    [machine] = sfn.list_state_machines()["stateMachines"]
    assert machine["type"] == "STANDARD"

    def ended():
        executions = sfn.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]
        return [it for it in executions if it["status"] != "RUNNING"]

    [execution] = until("the schedule has started it, and it ended", 240, ended)
    assert execution["status"] == "SUCCEEDED"
    events = until("the function's log", 20, lambda: (them := cloud.lines("curfew-organization")) and len(them) == 3 and them)
    assert events[0] == events[1] == events[2]
    shipped = json.loads((ROOT / "infra/events/stop-7pm.json").read_text())
    given = {"accounts": ["self", "444455556666"], "role": "organization/curfew-member", "max_delay_minutes": 240, "timezone": "UTC"}
    # A rehearsal, as nobody has said LIVE. MiniStack fills in no scheduled time: the execution's start it is.
    assert events[0] == shipped | given | {"dry_run": True, "scheduled_time": events[0]["scheduled_time"]}
    assert datetime.fromisoformat(events[0]["scheduled_time"]) == execution["startDate"]


def test_deployed_what_runs_unattended_is_heard(deployed):
    alarms = deployed.client("cloudwatch").describe_alarms()["MetricAlarms"]
    [topic] = deployed.client("sns").list_topics()["Topics"]
    [queue] = deployed.client("sqs").list_queues()["QueueUrls"]
    assert all(it["AlarmActions"] == [topic["TopicArn"]] for it in alarms)
    [machine] = deployed.client("stepfunctions").list_state_machines()["stateMachines"]
    heard = {(it["MetricName"], *sorted(one["Value"] for one in it["Dimensions"])) for it in alarms}
    assert heard == {
        ("ExecutionsFailed", machine["stateMachineArn"]),
        ("ExecutionsTimedOut", machine["stateMachineArn"]),
        ("NumberOfMessagesSent", queue.rpartition("/")[2]),
        ("InvocationAttemptCount", "curfew-organization-stop"),
        ("InvocationAttemptCount", "curfew-organization-start"),
    }


def test_deployed_the_functions_role_may_assume_the_member_role_and_all_roles_are_out_of_a_deployers_reach(deployed):
    iam = deployed.client("iam")
    roles = [it for it in iam.list_roles()["Roles"] if "curfew" in it["RoleName"]]
    assert len(roles) == 3 and {it["Path"] for it in roles} == {"/organization/"}
    [name] = [it["RoleName"] for it in roles if "Execution" in it["RoleName"]]
    [statement] = iam.get_role_policy(RoleName=name, PolicyName="curfew-accounts")["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("sts:AssumeRole", "arn:aws:iam::*:role/organization/curfew-member")


def test_undeployed_nothing_of_it_is_left(deployed):
    gone = deployed.verb("undeploy", **IT)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert left(deployed) == {}
    assert deployed.client("stepfunctions").list_state_machines()["stateMachines"] == []
