"""The organization's state machine, executed: which accounts it passes on, what it retries, when it gives up.

In two interpreters. moto's, in this process, honours TimeoutSeconds; in MiniStack the template is deployed, and the schedule
really starts the state machine. Where they differ from AWS: moto's StackSets know neither targets nor pages, so the list is
made here; it has no JSONata engine, so it gets MiniStack's; it runs no function without Docker, so the real one runs next to
it, against ec2-sim, or a scripted one where only the outcome matters. MiniStack's Step Functions can't list a StackSet's
instances and ignores TimeoutSeconds, its CloudFormation knows no StackSets. Neither limits payloads to 256 KB.
"""

import io
import json
import queue
import re
import subprocess
import threading
import time
import uuid
import zipfile
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import SimpleNamespace
from urllib.request import Request, urlopen

import boto3
import pytest
from conftest import ROOT, TARGET, Cloud, left, until, without_stack_sets
from jsonata import Jsonata
from ministack.core.iam_evaluator import EvalContext, evaluate_trust_policy
from ministack.services.stepfunctions import _register_sfn_jsonata_functions
from moto import mock_aws
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.stepfunctions.models import StepFunctionBackend
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_aws_sdk, state_task_service_events
from moto.stepfunctions.parser.asl.jsonata import jsonata as engine
from moto.stepfunctions.parser.asl.utils.boto_client import boto_client_for
from samcli.yamlhelper import yaml_parse

# moto's default account, in which everything here runs.
ACCOUNT = "123456789012"
REQUEST = {"action": "stop", "name": "office", "tags": {"curfew": "yes"}}
DUE = "2026-11-20T19:00:00Z"
LOOK = "curfew-look"
KEY = "arn:aws:kms:us-east-1:111122223333:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5"
PAYLOAD = 256 * 1024


def template(rendered, name: str = "organization") -> dict:
    return yaml_parse((rendered / f"{name}.yaml").read_text())


def filled(text: dict, **parameters: str) -> str:
    """What Fn::Sub makes of a text."""
    values = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": ACCOUNT, "AWS::StackName": "curfew-organization", "Curfew": "curfew"}
    values |= {"OrganizationId": "o-0a1b2c3d4e", "RolePath": "/"} | parameters
    text = text["Fn::Sub"] if isinstance(text["Fn::Sub"], str) else text["Fn::Sub"][0]
    return re.sub(r"\$\{([^}]+)\}", lambda it: values[it[1]], text)


def machine(rendered, **parameters: str) -> dict:
    """Returns the state machine, with the template's defaults for parameters that aren't given."""
    it = template(rendered)
    defaults = {key: str(one["Default"]) for key, one in it["Parameters"].items() if "Default" in one}
    text = it["Resources"]["StateMachine"]["Properties"]["DefinitionString"]
    return json.loads(filled(text, **(defaults | {"Targets": CANARY, "Bus": ""} | parameters)))


@pytest.fixture
def definition(rendered) -> dict:
    return machine(rendered)


# ---- In moto ----------------------------------------------------------------------------------------------------------


CANARY, TEST, PROD = "ou-0a1b-2c3d4e5f", "ou-0a1b-6a7b8c9d", "ou-0a1b-0e1f2a3b"
MEMBERS = [f"{n:012}" for n in range(1, 121)]


def instance(account: str, target: str = CANARY, status: str = "SUCCEEDED") -> dict:
    """Returns an instance as ListStackInstances shows it."""
    it = {"StackSetId": "curfew-member:0a1b", "Region": "us-east-1", "Account": account, "OrganizationalUnitId": target}
    return it | {"Status": "CURRENT", "StackInstanceStatus": {"DetailedStatus": status}}


@pytest.fixture
def organization(monkeypatch):
    """The instances of the StackSet: two pages of them, unless a test replaces them."""
    listed = SimpleNamespace(instances=[instance(it) for it in MEMBERS], calls=[])

    def list_stack_instances(response):
        asked = {it: response._get_param(it) for it in ("StackSetName", "CallAs", "MaxResults", "NextToken")}
        listed.calls.append(asked)
        begin = int(asked["NextToken"] or 0)
        end = begin + int(asked["MaxResults"])
        more = {"NextToken": str(end)} if end < len(listed.instances) else {}
        return ActionResult({"Summaries": listed.instances[begin:end]} | more)

    def evaluate(expression):
        it = Jsonata.jsonata(expression)
        _register_sfn_jsonata_functions(it)
        value = it.evaluate(None)
        assert value is not None, f"undefined, which Step Functions refuses: {expression}"
        return value

    def recased(it, first):
        if isinstance(it, list):
            return [recased(one, first) for one in it]
        return {first(key[0]) + key[1:]: recased(value, first) for key, value in it.items()} if isinstance(it, dict) else it

    def client(service: str, **kwargs):
        """Step Functions capitalizes all SDK field names, but moto passes those of Step Functions' own API as they are."""
        it = boto_client_for(service=service, **kwargs)
        if service != "stepfunctions":
            return it
        call = lambda name: lambda **asked: recased(getattr(it, name)(**recased(asked, str.lower)), str.upper)  # noqa: E731
        return SimpleNamespace(list_executions=call("list_executions"), describe_execution=call("describe_execution"))

    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}}):
        monkeypatch.setattr(engine, "_eval_jsonata", evaluate)
        monkeypatch.setattr(state_task_service_aws_sdk, "boto_client_for", client)
        monkeypatch.setattr(CloudFormationResponse, "list_stack_instances", list_stack_instances)
        yield listed


class Scripted:
    """A function that ends once with each word, and from then on with the last; its look reports `refused`."""

    def __init__(self, *words: str, refused=()):
        self.words, self.refused, self.runs = words, refused, 0

    def __call__(self, event: dict) -> dict:
        if event["name"] == LOOK:
            if isinstance(self.refused, str):
                return {"errorType": self.refused, "errorMessage": "curfew-look: …"}
            return {"outcome": "incomplete", "message": "curfew-look: …", "targets": list(self.refused)}
        self.runs += 1
        word = self.words[min(self.runs, len(self.words)) - 1]
        if word == "complete":
            return {"outcome": word, "message": "office: stopped 1 of 1"}
        return {"errorType": word, "errorMessage": "office: …"}


class Real:
    """The real function, between a double of Lambda's Runtime API and ec2-sim."""

    def __init__(self, folder, endpoint: str):
        self.endpoint = endpoint
        self.events, self.answers = queue.Queue(), queue.Queue()
        real = self

        class Api(BaseHTTPRequestHandler):
            def do_GET(self):
                event = real.events.get()
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4()))
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + 60) * 1000)))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew")
                self.end_headers()
                self.wfile.write(json.dumps(event).encode())

            def do_POST(self):
                real.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        with zipfile.ZipFile(TARGET / "lambda/ec2-curfew/bootstrap.zip") as it:
            it.extract("bootstrap", folder)
        (folder / "bootstrap").chmod(0o755)
        env = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": "curfew",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        self.process = subprocess.Popen([folder / "bootstrap"], env=env, stdout=subprocess.DEVNULL)

    def __call__(self, event: dict) -> dict:
        self.events.put(event)
        return self.answers.get(timeout=60)

    def fleet(self, accounts, denied=(), faults=()) -> None:
        """Loads a machine for each account; the roles of the denied accounts may not be assumed."""
        machines = [{"name": it, "account": it, "tags": {"curfew": "yes"}} for it in accounts]
        fleet = {"machines": machines, "faults": list(faults), "settings": {"denied_accounts": list(denied)}}
        urlopen(Request(f"{self.endpoint}/_sim/fleet", json.dumps(fleet).encode(), method="PUT"))

    def instances(self) -> list[dict]:
        return json.load(urlopen(f"{self.endpoint}/_sim/instances"))

    def end(self) -> None:
        self.process.kill()
        self.process.wait(20)
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def real(tmp_path, ec2_sim):
    it = Real(tmp_path, ec2_sim)
    yield it
    it.end()


@pytest.fixture
def execute(organization, definition, monkeypatch):
    """Executes the state machine; each definition gets a state machine of its own."""
    machines, names = {}, (f"run-{n}" for n in count())

    def execute(request: dict, *words: str, function=None, refused=(), machine: dict = definition, sleep=None):
        function = function or Scripted(*words, refused=refused)
        looks, events, waits = [], [], []

        def invoke(_, function_name, qualifier, body, headers, response_headers):
            assert function_name == "curfew-organization:live"
            event = json.loads(body)
            (looks if event["name"] == LOOK else events).append(event)
            answer = function(event)
            if "errorType" in answer:
                response_headers["x-amz-function-error"] = "Unhandled"
            return json.dumps(answer).encode()

        monkeypatch.setattr(LambdaSimpleBackend, "invoke", invoke)
        monkeypatch.setattr(retrier_decl, "time", SimpleNamespace(sleep=sleep or waits.append))
        sfn = boto3.client("stepfunctions", "us-east-1")
        text = json.dumps(machine)
        if text not in machines:
            role = f"arn:aws:iam::{ACCOUNT}:role/state-machine"
            machines[text] = sfn.create_state_machine(name=next(names), definition=text, roleArn=role)["stateMachineArn"]
        started = sfn.start_execution(stateMachineArn=machines[text], name=next(names), input=json.dumps(request))["executionArn"]
        while (it := sfn.describe_execution(executionArn=started))["status"] == "RUNNING":
            time.sleep(0.05)
        history = sfn.get_execution_history(executionArn=started)["events"]
        visited = [step["stateEnteredEventDetails"]["name"] for step in history if "stateEnteredEventDetails" in step]
        told = it.get("output") or it.get("cause") or "null"
        return SimpleNamespace(
            status=it["status"],
            error=it.get("error"),
            told=json.loads(told) if told[0] in "{n" else told,
            started=it["startDate"],
            looks=looks,
            events=events,
            waits=waits,
            visited=visited,
        )

    return execute


def test_the_accounts_that_have_the_role_are_passed_on_from_all_pages_and_no_suspended_one(organization, execute):
    first, last = MEMBERS[7], MEMBERS[-1]
    for one in organization.instances:
        if one["Account"] in (first, last):
            one["StackInstanceStatus"] = {"DetailedStatus": "SKIPPED_SUSPENDED_ACCOUNT"}
    run = execute(REQUEST, "complete")
    assert (run.status, len(organization.calls)) == ("SUCCEEDED", 2), run.told
    assert {(it["StackSetName"], it["CallAs"]) for it in organization.calls} == {("curfew-member", "SELF")}
    [event] = run.events
    assert sorted(event["accounts"]) == sorted([ACCOUNT] + [it for it in MEMBERS if it not in (first, last)])
    assert event | REQUEST == event, "the request itself is passed on as it is"
    assert event["role"] == "organization/curfew-member"
    assert sorted(run.looks[0]["accounts"]) == sorted(event["accounts"]), "whoever is asked is looked at before"


def test_one_account_is_still_a_list_and_one_with_an_instance_is_not_worked_on_twice(organization, execute):
    for instances in ([], [instance(ACCOUNT)]):
        organization.instances = instances
        run = execute(REQUEST, "complete")
        assert [it["accounts"] for it in run.looks + run.events] == [[ACCOUNT], [ACCOUNT]]


def test_accounts_excepted_are_left_alone_one_s_own_too(rendered, organization, execute):
    organization.instances = [instance(it) for it in MEMBERS[:3]]
    run = execute(REQUEST, "complete", machine=machine(rendered, ExceptAccounts=f"{MEMBERS[1]},{ACCOUNT}"))
    assert [it["accounts"] for it in run.looks + run.events] == [[MEMBERS[0], MEMBERS[2]]] * 2


@pytest.mark.parametrize("given", [["self", "111122223333"], ["111122223333"], ["self"], "self", []])
def test_accounts_in_the_request_are_taken_as_they_are_and_none_is_listed(execute, given):
    run = execute(REQUEST | {"accounts": given}, "complete")
    assert "ListInstances" not in run.visited
    assert run.events[0]["accounts"] == ([given] if given == "self" else given)
    # The function refuses a role if there are no other accounts.
    assert ("role" in run.events[0]) == ("role" in run.looks[0]) == ("111122223333" in given)


# ---- Waves ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def units(organization):
    """Four units with an account each, listed in another order than the targets; one's id is a prefix of another's."""
    targets = dict(zip((f"{CANARY}6", CANARY, TEST, PROD), MEMBERS))
    organization.instances = [instance(account, target) for target, account in reversed(targets.items())]
    return {"Targets": ",".join(targets)}


@pytest.mark.parametrize(
    ("at_once", "waves"),
    [("0", [[0], [1, 2, 3]]), ("1", [[0], [1], [2], [3]]), ("2", [[0], [1, 2], [3]]), ("9", [[0], [1, 2, 3]])],
)
def test_the_first_target_goes_first_and_the_others_in_their_order(rendered, execute, units, at_once, waves):
    run = execute(REQUEST, "complete", machine=machine(rendered, MaxConcurrency=at_once, **units))
    expected = [[MEMBERS[it] for it in wave] for wave in waves]
    expected[-1].append(ACCOUNT)
    assert [sorted(it["accounts"]) for it in run.events] == expected
    assert (run.status, [it["accounts"] for it in run.told["runs"]]) == ("SUCCEEDED", [len(it) for it in expected])
    assert len(run.looks) == 1, "all are looked at, once, before any is worked on"


def test_an_account_of_no_target_that_is_known_goes_last(rendered, organization, execute, units):
    organization.instances += [instance(MEMBERS[4], "ou-0a1b-ffffffff"), {**instance(MEMBERS[5]), "OrganizationalUnitId": ""}]
    run = execute(REQUEST, "complete", machine=machine(rendered, MaxConcurrency="1", **units))
    assert sorted(run.events[-1]["accounts"]) == sorted([MEMBERS[3], MEMBERS[4], MEMBERS[5], ACCOUNT])


def test_what_ec2_refuses_in_the_canary_holds_up_nobody_else(rendered, execute, units):
    run = execute(REQUEST, "Incomplete", "complete", machine=machine(rendered, MaxConcurrency="1", **units))
    assert (run.status, run.error, len(run.events)) == ("FAILED", "Incomplete", 4)
    assert [it["outcome"] for it in run.told["runs"]] == ["Incomplete", "complete", "complete", "complete"]
    assert (run.told["left"], "office: …" in run.told["runs"][0]["message"]) == (0, True)


@pytest.mark.parametrize("error", ["TooManyChanges", "Internal", "InvalidRequest"])
def test_a_canary_that_fails_otherwise_spares_the_rest_unless_that_is_tolerated(rendered, execute, units, error):
    run = execute(REQUEST, error, "complete", machine=machine(rendered, MaxConcurrency="1", **units))
    assert (run.status, run.error, len(run.events), run.told["left"]) == ("FAILED", error, 1, 3)
    tolerant = machine(rendered, MaxConcurrency="1", FailureTolerance="1", **units)
    run = execute(REQUEST, error, "Incomplete", "complete", machine=tolerant)
    assert (run.status, run.error, len(run.events), run.told["left"]) == ("FAILED", error, 4, 0)
    run = execute(REQUEST, "Incomplete", error, error, "complete", machine=tolerant)
    assert (run.status, run.error, len(run.events), run.told["left"]) == ("FAILED", error, 3, 1)


def test_what_is_unfinished_in_a_wave_is_repeated_before_the_next_begins(rendered, execute, units):
    run = execute(REQUEST, "Unfinished", "Unfinished", "complete", machine=machine(rendered, **units))
    assert (run.status, run.waits) == ("SUCCEEDED", [30, 60])
    assert [it["accounts"] for it in run.events[:3]] == [[MEMBERS[0]]] * 3 and len(run.events) == 4


# ---- Accounts that it can't reach ------------------------------------------------------------------------------------------------


def refusal(account: str, region: str = "us-east-1", code: str = "AccessDenied", message: str = "not authorized to perform: sts:AssumeRole") -> dict:
    return {"account": account, "region": region, "error": {"code": code, "message": message}}


def test_the_real_function_reaches_the_rest_and_it_rings_once_for_each_change(organization, execute, real):
    """Two member accounts, one of them quarantined."""
    one, two = MEMBERS[:2]
    organization.instances = [instance(one), instance(two)]

    def night(*quarantined: str):
        real.fleet([ACCOUNT, one, two], quarantined)
        run = execute(REQUEST, function=real)
        stopped = {it["account"] for it in real.instances() if it["state"] != "running"}
        assert stopped == {ACCOUNT, one, two} - set(quarantined)
        return run

    first = night(two)
    assert (first.status, first.error) == ("FAILED", "Unreachable")
    assert first.told["unreachable"] == {"count": 1, "accounts": [two], "changed": [two]}
    assert (first.told["runs"][0]["outcome"], first.told["runs"][0]["message"]) == ("complete", "office: stopped 2 of 2")
    for _ in range(2):
        same = night(two)
        assert (same.status, same.told["unreachable"]) == ("SUCCEEDED", {"count": 1, "accounts": [two], "changed": []})
    # As many as before, but another account.
    other = night(one)
    assert (other.status, other.error) == ("FAILED", "Unreachable")
    assert other.told["unreachable"] == {"count": 1, "accounts": [one], "changed": [one, two]}
    assert night(one).status == "SUCCEEDED"
    assert night().told["unreachable"] == {"count": 0, "accounts": [], "changed": [one]}
    assert night().status == "SUCCEEDED"


@pytest.mark.parametrize(
    ("regions", "action"),
    [
        ({"regions": "all"}, "DescribeRegions"),
        ({}, "DescribeInstances"),
        ({"regions": ["us-east-1", "eu-west-1"]}, "DescribeInstances"),
    ],
)
def test_the_real_function_passes_over_an_account_in_which_a_policy_denies_all(organization, execute, real, regions, action):
    one, two = MEMBERS[:2]
    organization.instances = [instance(one), instance(two)]
    message = f"You are not authorized to perform this operation. User: arn:aws:sts::{two}:assumed-role/curfew-member/curfew-office is not authorized to perform: ec2:{action} with an explicit deny in a service control policy."
    fault = {"action": action, "account": two, "then": {"refuse": {"code": "UnauthorizedOperation", "message": message, "status": 403}}}
    real.fleet([ACCOUNT, one, two], faults=[fault])
    assert execute(REQUEST | regions, function=real).error == "Unreachable"
    again = execute(REQUEST | regions, function=real)
    assert (again.status, again.told["unreachable"]["accounts"]) == ("SUCCEEDED", [two]), again.told
    assert again.events[0]["accounts"] == [ACCOUNT, one]


@pytest.mark.parametrize("accounts", ["self", ["self"], [ACCOUNT]])
def test_the_real_function_takes_one_s_own_account_alone(execute, real, accounts):
    real.fleet([ACCOUNT])
    run = execute(REQUEST | {"accounts": accounts}, function=real)
    assert (run.status, run.told["runs"][0]["message"]) == ("SUCCEEDED", "office: stopped 1 of 1"), run.told


def test_an_account_of_which_some_region_answers_is_worked_on(organization, execute):
    organization.instances = [instance(it) for it in MEMBERS[:3]]
    refused = [refusal(MEMBERS[0]), refusal(MEMBERS[1]), refusal(MEMBERS[1], "eu-west-1")]
    run = execute(REQUEST | {"regions": ["us-east-1", "eu-west-1"]}, "complete", refused=refused)
    assert run.told["unreachable"]["accounts"] == [MEMBERS[1]]
    one_region = [refusal(MEMBERS[0], message="not authorized to perform: ec2:DescribeInstances"), refusal(MEMBERS[1])]
    run = execute(REQUEST | {"regions": "all"}, "complete", refused=one_region)
    assert run.told["unreachable"]["accounts"] == [MEMBERS[1]]
    assert run.events[0]["accounts"] == [ACCOUNT, MEMBERS[0], MEMBERS[2]]


@pytest.mark.parametrize("refused", [[refusal(MEMBERS[0], code="Throttling")], [refusal(MEMBERS[0], code="InternalFailure")], "Internal", "Lambda.Unknown"])
def test_what_may_pass_leaves_nobody_out(organization, execute, refused):
    organization.instances = [instance(MEMBERS[0])]
    run = execute(REQUEST, "complete", refused=refused)
    assert (run.status, run.told["unreachable"]["count"], run.events[0]["accounts"]) == ("SUCCEEDED", 0, [ACCOUNT, MEMBERS[0]])


def test_more_than_are_borne_ring_each_time(rendered, organization, execute):
    organization.instances = [instance(it) for it in MEMBERS[:5]]
    refused = [refusal(it) for it in MEMBERS[:3]]
    two, three = machine(rendered, MostUnreachable="2"), machine(rendered, MostUnreachable="3")
    assert [execute(REQUEST, "complete", refused=refused, machine=two).error for _ in range(3)] == ["Unreachable"] * 3
    assert [execute(REQUEST, "complete", refused=refused, machine=three).error for _ in range(3)] == ["Unreachable", None, None]


def test_where_nobody_is_reached_it_rings_each_time_and_nothing_is_run(rendered, organization, execute):
    organization.instances = [instance(MEMBERS[0])]
    without = machine(rendered, ExceptAccounts=ACCOUNT)
    for _ in range(2):
        run = execute(REQUEST, "complete", refused=[refusal(MEMBERS[0])], machine=without)
        assert (run.error, run.events) == ("Unreachable", [])


def test_a_night_that_fails_remembers_too_whom_it_could_not_reach(execute):
    refused = [refusal(MEMBERS[0])]
    assert execute(REQUEST, "Incomplete", refused=refused).error == "Incomplete"
    run = execute(REQUEST, "complete", refused=refused)
    assert (run.status, run.told["unreachable"]) == ("SUCCEEDED", {"count": 1, "accounts": [MEMBERS[0]], "changed": []})


def test_a_request_for_some_accounts_forgets_none_of_the_others(execute):
    refused = [refusal(MEMBERS[0])]
    assert execute(REQUEST, "complete", refused=refused).error == "Unreachable"
    some = execute(REQUEST | {"accounts": [MEMBERS[1]]}, "complete")
    assert (some.status, some.told["unreachable"]) == ("SUCCEEDED", {"count": 1, "accounts": [MEMBERS[0]], "changed": []})
    assert execute(REQUEST, "complete", refused=refused).status == "SUCCEEDED"


def test_where_the_execution_before_can_t_be_asked_whoever_is_not_reached_rings_and_all_others_are_worked_on(execute, monkeypatch):
    refused = [refusal(MEMBERS[0])]
    for _ in range(2):
        run = execute(REQUEST, "complete", refused=refused)
    assert run.status == "SUCCEEDED"
    monkeypatch.setattr(StepFunctionBackend, "list_executions", lambda *_, **__: 1 / 0)
    run = execute(REQUEST, "complete", refused=refused)
    assert (run.error, len(run.events), run.told["unreachable"]["changed"]) == ("Unreachable", 1, [MEMBERS[0]])


def test_one_that_has_left_the_organization_is_no_change(organization, execute):
    refused = [refusal(MEMBERS[0])]
    assert execute(REQUEST, "complete", refused=refused).error == "Unreachable"
    organization.instances = organization.instances[1:]
    run = execute(REQUEST, "complete")
    assert (run.status, run.told["unreachable"]) == ("SUCCEEDED", {"count": 0, "accounts": [], "changed": []})


# ---- Retries ----------------------------------------------------------------------------------------------------


def test_what_is_unfinished_is_repeated_with_the_same_event_until_it_is_done(execute):
    run = execute(REQUEST | {"scheduled_time": DUE}, "Unfinished", "Unfinished", "complete")
    assert (run.status, run.told["runs"]) == ("SUCCEEDED", [{"accounts": 121, "outcome": "complete", "message": "office: stopped 1 of 1"}])
    assert run.waits == [30, 60]
    assert len(run.events) == 3 and run.events[0] == run.events[1] == run.events[2]
    assert run.visited.count("ListInstances") == 2, "listed once, page by page: a retry meets the accounts of the first run"


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
    definition["TimeoutSeconds"] = 6
    run = execute(REQUEST, "Unfinished", sleep=lambda _: time.sleep(0.2))
    assert run.status == "TIMED_OUT"
    assert len(run.events) > 2


def test_it_is_the_time_limit_that_ends_it_and_not_the_number_of_retries(execute, definition):
    """The number of retries is large enough even if each run ends at once."""
    run = execute(REQUEST, "Unfinished")
    assert sum(run.waits) > definition["TimeoutSeconds"]
    assert max(run.waits) == 300


def test_no_retry_comes_too_late_for_its_event(rendered, definition, execute):
    """A run that finds itself stale succeeds, with work left."""
    resources = template(rendered)["Resources"]
    schedules = [resources[it]["Properties"]["Target"]["RetryPolicy"] for it in ("StopSchedule", "StartSchedule")]
    [event] = execute(REQUEST | {"max_delay_minutes": 5}, "complete").events
    for schedule in schedules:
        # Scheduler's precision is a minute.
        latest = 60 + schedule["MaximumEventAgeInSeconds"] + definition["TimeoutSeconds"]
        assert latest < event["max_delay_minutes"] * 60


def test_a_tick_goes_to_all_accounts_and_is_late_after_five_minutes_as_everywhere(execute, rendered):
    """Until then, an invocation that Lambda refuses is retried. A tick that leaves something undone still succeeds."""
    tick = json.loads((ROOT / "infra/events/reconcile.json").read_text())
    run = execute(tick, "Lambda.TooManyRequestsException", "complete")
    assert (run.status, run.visited.count("ListInstances"), len(run.events)) == ("SUCCEEDED", 2, 2)
    assert (run.events[0]["max_delay_minutes"], run.events[0]["role"], len(run.events[0]["accounts"])) == (5, "organization/curfew-member", 121)
    target = template(rendered)["Resources"]["ReconcileSchedule"]["Properties"]["Target"]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 0} and "DeadLetterConfig" not in target


def test_a_stop_or_start_that_could_not_begin_rings_and_a_tick_only_where_six_did_not(rendered):
    resources = template(rendered)["Resources"]
    queues = {name: it["Properties"]["Target"].get("DeadLetterConfig") for name, it in resources.items() if it["Type"] == "AWS::Scheduler::Schedule"}
    queue = {"Arn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}}
    assert queues == {"StopSchedule": queue, "StartSchedule": queue, "WarnSchedule": queue, "ReconcileSchedule": None}
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
    """Otherwise a retry would stop at 10 PM what somebody started at 9."""
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


# ---- What others hear of it -------------------------------------------------------------------------------------------

BUS = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/platform"
WARNING = REQUEST | {"name": "office-warning", "dry_run": True, "max_delay_minutes": 20, "scheduled_time": DUE}


@pytest.fixture
def bus(monkeypatch):
    """What a bus is told, and whether it takes it."""
    it = SimpleNamespace(told=[], refuses=False)

    def put_events(Entries):
        it.told += Entries
        return {"FailedEntryCount": len(Entries) if it.refuses else 0, "Entries": [{"EventId": "0a1b"}]}

    monkeypatch.setattr(state_task_service_events, "boto_client_for", lambda **_: SimpleNamespace(put_events=put_events))
    return it


def test_the_bus_gets_the_report_of_each_wave_as_lambda_would_tell_it(rendered, execute, units, bus):
    run = execute(REQUEST, "complete", "Unfinished", "Incomplete", machine=machine(rendered, Bus=BUS, **units))
    assert (run.error, len(bus.told)) == ("Incomplete", 2), "a retry is not told"
    assert {(it["EventBusName"], it["Source"], it["DetailType"]) for it in bus.told} == {(BUS, "curfew", "Curfew Report")}
    first, second = (json.loads(it["Detail"]) for it in bus.told)
    function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-organization:live"
    assert first["requestContext"] | {"functionArn": function, "condition": "Success"} == first["requestContext"]
    assert first["responsePayload"] == {"outcome": "complete", "message": "office: stopped 1 of 1"}
    assert second["requestContext"]["condition"] == "RetriesExhausted"
    assert second["requestContext"]["execution"] == first["requestContext"]["execution"]
    assert second["responsePayload"] == {"errorType": "Incomplete", "errorMessage": "office: …"}


def test_without_a_bus_nobody_is_told_and_no_state_more_is_visited(execute, bus):
    run = execute(REQUEST, "complete")
    assert (run.status, bus.told, "Tell" in run.visited, run.visited.count("AreThereMoreWaves")) == ("SUCCEEDED", [], False, 2)


def test_a_bus_that_takes_nothing_holds_up_nobody_and_rings(rendered, execute, units, bus):
    bus.refuses = True
    run = execute(REQUEST, "complete", machine=machine(rendered, Bus=BUS, **units))
    assert (run.status, run.error, len(run.events), run.told["left"]) == ("FAILED", "NotHeard", 2, 0)
    assert run.told["unreachable"]["count"] == 0


def test_the_real_functions_report_reaches_the_bus_whole(rendered, organization, execute, real, bus):
    organization.instances = [instance(MEMBERS[0])]
    real.fleet([ACCOUNT, MEMBERS[0]])
    execute(WARNING | {"scheduled_time": datetime.now(timezone.utc).isoformat()}, function=real, machine=machine(rendered, Bus=BUS))
    [told] = bus.told
    report = json.loads(told["Detail"])["responsePayload"]
    assert (report["name"], report["dry_run"], report["summary"]["would_change"]) == ("office-warning", True, 2)
    assert sorted(it["account"] for it in report["targets"] if it["would_change"]) == sorted([ACCOUNT, MEMBERS[0]])
    assert {it["state"] for it in real.instances()} == {"running"}


def test_a_warning_is_none_any_more_after_its_own_minutes_and_any_other_request_has_time_for_its_retries(execute):
    assert execute(WARNING, "complete").events[0]["max_delay_minutes"] == 20
    for other in (WARNING | {"dry_run": False}, WARNING | {"name": "warning"}):
        assert execute(other, "complete").events[0]["max_delay_minutes"] == 240


def test_a_warning_tells_nobody_who_cannot_be_reached_so_that_the_stop_still_does(execute):
    refused = [refusal(MEMBERS[0])]
    for _ in range(2):
        warning = execute(WARNING, "complete", refused=refused)
        assert (warning.status, warning.told["unreachable"]) == ("SUCCEEDED", {"count": 0, "accounts": [], "changed": []})
    assert MEMBERS[0] not in warning.events[0]["accounts"]
    assert execute(REQUEST, "complete", refused=refused).error == "Unreachable"
    # Nor does one between two stops make them forget.
    assert execute(WARNING, "complete").told["unreachable"] == {"count": 1, "accounts": [MEMBERS[0]], "changed": []}
    assert execute(REQUEST, "complete", refused=refused).status == "SUCCEEDED"


def test_the_warning_is_the_stops_rehearsal_and_goes_to_whom_the_events_go(rendered):
    it = template(rendered)
    assert it["Parameters"]["WarnAt"]["Default"] == it["Parameters"]["Events"]["Default"] == "off"
    single = template(rendered, "curfew")
    assert it["Rules"]["SomebodyHearsTheWarning"] == single["Rules"]["SomebodyHearsTheWarning"]
    resources = it["Resources"]
    schedule, theirs = resources["WarnSchedule"]["Properties"], single["Resources"]["WarnSchedule"]["Properties"]
    assert (schedule["State"], it["Conditions"]["WarnRuns"]) == (theirs["State"], single["Conditions"]["WarnRuns"])
    assert schedule["GroupName"] != resources["StopSchedule"]["Properties"]["GroupName"], "its attempts would silence the alarm for the stop"
    target = schedule["Target"]
    assert (target["RetryPolicy"], target["DeadLetterConfig"]) == (theirs["Target"]["RetryPolicy"], theirs["Target"]["DeadLetterConfig"])
    text, filled = target["Input"]["Fn::Sub"]
    assert (text, filled) == (theirs["Target"]["Input"]["Fn::Sub"], {"Timezone": "UTC"})
    assert json.loads(text)["dry_run"] is True and json.loads(text)["name"].endswith("-warning")
    bus = single["Resources"]["ExecutionRole"]["Properties"]["Policies"]["Fn::If"][1][0]["PolicyDocument"]["Fn::Sub"]
    condition, told, otherwise = resources["StateMachineRole"]["Properties"]["Policies"][1]["Fn::If"]
    assert (condition, told["PolicyDocument"]["Fn::Sub"], otherwise) == ("HasEvents", bus, {"Ref": "AWS::NoValue"})
    _, given = resources["StateMachine"]["Properties"]["DefinitionString"]["Fn::Sub"]
    assert given["Bus"] == {"Fn::If": ["HasEvents", bus[1]["Bus"], ""]}


# ---- The roles --------------------------------------------------------------------------------------------------------


def test_the_state_machine_may_call_what_it_calls_and_nothing_else_but_its_log(definition):
    called = {re.sub(r"^arn:aws:states:::(aws-sdk:)?", "", it["Resource"]) for it in definition["States"].values() if "Resource" in it}
    # The last only with a bus, and then by execution-role-events.json.
    assert called == {"lambda:invoke", "cloudformation:listStackInstances", "sfn:listExecutions", "sfn:describeExecution", "events:putEvents"}
    statements = json.loads((ROOT / "policy/organization-role.json").read_text())["Statement"]
    allowed = {action for it in statements for action in ([it["Action"]] if isinstance(it["Action"], str) else it["Action"])}
    assert {it for it in allowed if not it.startswith("logs:")} == {
        "lambda:InvokeFunction",
        "cloudformation:ListStackInstances",
        # A delegated administrator needs it to list StackSets (terraform-provider-aws #32536).
        "organizations:ListDelegatedAdministrators",
        "states:DescribeExecution",
        "states:ListExecutions",
    }


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
    kms = member["Resources"]["MemberKmsPolicy"]
    assert kms["Properties"]["Roles"] == [{"Ref": "Member"}]
    assert json.loads(kms["Properties"]["PolicyDocument"]["Fn::Sub"][0]) == policy("execution-role-kms")


def test_the_role_is_called_the_same_where_it_is_made_assumed_and_allowed(rendered, execute):
    role = template(rendered, "member-role")["Resources"]["Member"]["Properties"]
    made = f"{filled(role['Path']).removeprefix('/')}{filled(role['RoleName'])}"
    assert execute(REQUEST, "complete").events[0]["role"] == made
    allowed = template(rendered)["Resources"]["ExecutionAccountsPolicy"]["Properties"]["PolicyDocument"]
    [statement] = json.loads(filled(allowed))["Statement"]
    assert statement["Resource"] == f"arn:aws:iam::*:role/{made}"


def test_a_role_with_a_path_is_assumed_by_it(rendered, execute):
    run = execute(REQUEST | {"accounts": ["self", "111122223333"]}, "complete", machine=machine(rendered, RolePath="/platform/"))
    assert run.looks[0]["role"] == run.events[0]["role"] == "platform/organization/curfew-member"
    allowed = template(rendered)["Resources"]["ExecutionAccountsPolicy"]["Properties"]["PolicyDocument"]
    [statement] = json.loads(filled(allowed, RolePath="/platform/"))["Statement"]
    assert statement["Resource"] == f"arn:aws:iam::*:role/{run.events[0]['role']}"


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        ({}, None),
        ({"EncryptedVolumes": "yes"}, ["arn:aws:kms:*:*:key/*"]),
        ({"EncryptedVolumes": "yes", "KmsKeyArns": f"{KEY}1,{KEY}2"}, [f"{KEY}1", f"{KEY}2"]),
        ({"KmsKeyArns": f"{KEY}1"}, [f"{KEY}1"]),
    ],
)
def test_an_account_s_role_may_start_encrypted_volumes_by_yes_and_only_with_the_keys_named(cloud, rendered, parameters, keys):
    cloudformation, iam = cloud.client("cloudformation"), cloud.client("iam")
    given = {"Curfew": "curfew", "CurfewAccount": ACCOUNT, "ExecutionRole": "curfew-1", "OrganizationId": "o-0a1b2c3d4e", "ManagedTag": "curfew=yes"}
    cloudformation.create_stack(
        StackName="member",
        TemplateBody=(rendered / "member-role.yaml").read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in (given | parameters).items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName="member", WaiterConfig={"Delay": 1})
    try:
        names = iam.list_role_policies(RoleName="curfew-member")["PolicyNames"]
        assert sorted(names) == (["curfew"] if keys is None else ["curfew", "curfew-kms"])
        if keys:
            [statement] = iam.get_role_policy(RoleName="curfew-member", PolicyName="curfew-kms")["PolicyDocument"]["Statement"]
            assert (statement["Action"], statement["Resource"]) == ("kms:CreateGrant", keys)
            assert statement["Condition"]["StringLike"] == {"kms:ViaService": "ec2.*.amazonaws.com"}
    finally:
        cloudformation.delete_stack(StackName="member")
        cloudformation.get_waiter("stack_delete_complete").wait(StackName="member", WaiterConfig={"Delay": 1})


def test_the_hub_s_role_may_start_encrypted_volumes_as_the_accounts_may(rendered):
    member = template(rendered, "member-role")
    for hub in (template(rendered, "curfew"), template(rendered)):
        for it in ("Encrypted", "HasKeys"):
            assert hub["Conditions"][it] == member["Conditions"][it]
        one, other = hub["Resources"]["ExecutionKmsPolicy"], member["Resources"]["MemberKmsPolicy"]
        assert (one["Condition"], one["Properties"]["PolicyDocument"]) == (other["Condition"], other["Properties"]["PolicyDocument"])
        assert one["Properties"]["Roles"] == [{"Ref": "ExecutionRole"}]
    assert template(rendered)["Resources"]["MemberRoles"]["Properties"]["Parameters"][-2:] == [
        {"ParameterKey": "EncryptedVolumes", "ParameterValue": {"Ref": "EncryptedVolumes"}},
        {"ParameterKey": "KmsKeyArns", "ParameterValue": {"Fn::Join": [",", {"Ref": "KmsKeyArns"}]}},
    ]


@pytest.mark.parametrize("action", ["sts:AssumeRole", "sts:SetSourceIdentity"])
@pytest.mark.parametrize(
    ("account", "role", "organization", "trusted"),
    [
        ("444455556666", "organization/curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", True),
        ("444455556666", "organization/curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-ffffffffff", False),
        ("444455556666", "organization/curfew-organization-ExecutionRole-FFFFFFFFFFFF", "o-0a1b2c3d4e", False),
        # The function's role in a stack of Curfew for that account alone, which others deploy.
        ("444455556666", "curfew-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", False),
        ("444455556666", "curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", False),
        ("444455556666", "admin", "o-0a1b2c3d4e", False),
        ("999999999999", "organization/curfew-organization-ExecutionRole-0A1B2C3D4E5F", "o-0a1b2c3d4e", False),
    ],
)
def test_only_the_functions_own_role_from_its_own_organization_may_assume_a_member_role(rendered, account, role, organization, trusted, action):
    caller = f"arn:aws:iam::{account}:role/{role}"
    asked = EvalContext(
        principal_arn=caller,
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn="*",
        region="us-east-1",
        service_context={"aws:principalarn": caller, "aws:principalorgid": organization},
    )
    trust = json.loads((rendered / "policy/member-role-trust.json").read_text())
    # The account's root stands for everybody in the account.
    assert evaluate_trust_policy(trust, f"arn:aws:iam::{account}:root", asked) == trusted


# ---- In MiniStack, deployed ---------------------------------------------------------------------------------------------

# What is promoted in the place of the deployed function: a bootstrap that logs each event and ends with the next word.
SCRIPTED = """#!/usr/bin/env python3
import json, os
from urllib.request import Request, urlopen

invocation = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
# The first is the look's.
for word in ("complete", "Unfinished", "Unfinished", "complete"):
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
    """The organization's stack, deployed by `make` without any other. Its stop is due in about two minutes."""
    cloud = Cloud(tmp_path_factory.mktemp("organization"), SFN_WAIT_SCALE="0.02")
    try:
        cloud.root = without_stack_sets(tmp_path_factory.mktemp("project"), ["self", "444455556666"])
        at = datetime.now(timezone.utc) + timedelta(seconds=130)
        parameters = {
            "OrganizationId": "o-0a1b2c3d4e",
            "Targets": "ou-0a1b-2c3d4e5f,ou-0a1b-6a7b8c9d",
            "StopAt": f"cron({at.minute} {at.hour} {at.day} {at.month} ? {at.year})",
            "WarnAt": "cron(30 18 ? * * *)",
            # If it didn't take the report, the execution would fail.
            "Events": "yes",
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
    look, *events = until("the function's log", 20, lambda: (them := cloud.lines("curfew-organization")) and len(them) == 4 and them)
    assert (look["name"], look["dry_run"], look["role"]) == (LOOK, True, "organization/curfew-member")
    assert events[0] == events[1] == events[2]
    shipped = json.loads((ROOT / "infra/events/stop-7pm.json").read_text())
    given = {"accounts": ["self", "444455556666"], "role": "organization/curfew-member", "max_delay_minutes": 240, "timezone": "UTC"}
    # A rehearsal, since LIVE wasn't given. MiniStack fills in no scheduled time, so it is the execution's start.
    assert events[0] == shipped | given | {"dry_run": True, "scheduled_time": events[0]["scheduled_time"]}
    assert datetime.fromisoformat(events[0]["scheduled_time"]) == execution["startDate"]
    history = sfn.get_execution_history(executionArn=execution["executionArn"])["events"]
    assert "Tell" in {it["stateEnteredEventDetails"]["name"] for it in history if "stateEnteredEventDetails" in it}
    # Nobody is warned of what a rehearsal stops.
    warning = cloud.client("scheduler").get_schedule(Name="curfew-organization-warn", GroupName="curfew-organization-warn")
    assert (warning["State"], json.loads(warning["Target"]["Input"])["name"]) == ("DISABLED", "office-warning")


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
    assert (statement["Action"], statement["Resource"]) == (["sts:AssumeRole", "sts:SetSourceIdentity"], "arn:aws:iam::*:role/organization/curfew-member")
    assert statement["Condition"] == {"StringEquals": {"aws:ResourceOrgID": "o-0a1b2c3d4e"}}


def test_undeployed_nothing_of_it_is_left(deployed):
    gone = deployed.verb("undeploy", **IT)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert left(deployed) == {}
    assert deployed.client("stepfunctions").list_state_machines()["stateMachines"] == []
