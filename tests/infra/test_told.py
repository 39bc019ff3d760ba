"""Event bus and chat get the runs' results, and the stack fits a platform team's rules: deployed once, with all parameters for
that.

MiniStack's Lambda sends no event bus how a run ended, so this file sends the record that Lambda would, as the Lambda developer
guide shows it, around a report that the function has really written. EventBridge, the rules of infra/chat.yaml and SNS are
MiniStack's; its input transformer knows no wildcards in paths, so those are evaluated by jsonpath-ng. Its CloudFormation
ignores a role's boundary, a topic's key and a function's dead-letter queue: test_parameters.py checks these.
"""

import json
import re
from datetime import datetime, timezone

import pytest
import requests
from cfnlint.api import lint_all
from conftest import ROOT, Cloud, until
from jsonpath_ng import parse
from samcli.yamlhelper import yaml_parse
from test_schedules import PATIENCE, ahead, at, shipped

ACCOUNT = "000000000000"
STACK = "curfew-told"
NEVER = "cron(0 19 1 1 ? 2099)"


@pytest.fixture(scope="module")
def told(tmp_path_factory, ec2_sim):
    """A stack that is armed, so that it warns, but whose stop is far away."""
    cloud = Cloud(tmp_path_factory.mktemp("told"), AWS_ENDPOINT_URL_EC2=ec2_sim)
    try:
        bus = cloud.client("events").create_event_bus(Name="platform")["EventBusArn"]
        key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
        cloud.client("s3").create_bucket(Bucket="platform-artifacts")
        parameters = {
            "StopAt": NEVER,
            "StartAt": "off",
            "WarnAt": at(ahead(60)),
            "Events": bus,
            "LogDays": 30,
            "DataKeyArn": key,
            "PermissionsBoundary": "platform/boundary",
            "RolePath": "/platform/",
        }
        env = {"STACK": STACK, "LIVE": "yes", "BUCKET": "platform-artifacts"}
        deployed = cloud.verb("deploy", parameters=parameters, TAGS='team=platform "owner=Jane Doe"', **env)
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr

        def again(**more):
            return cloud.verb("deploy", parameters=parameters, **env, **more)

        yield cloud, bus, key, again
    finally:
        cloud.end()


def test_every_role_has_its_path(told):
    cloud, *_ = told
    roles = [it for it in cloud.client("iam").list_roles()["Roles"] if it["RoleName"].startswith(STACK)]
    assert len(roles) == 2 and {it["Path"] for it in roles} == {"/platform/"}


def test_log_and_queue_are_encrypted_with_the_given_key_and_who_sends_to_the_queue_may_use_it(told):
    cloud, _, key, _ = told
    [log] = [it for it in cloud.client("logs").describe_log_groups()["logGroups"] if it["logGroupName"].endswith(STACK)]
    assert (log["kmsKeyId"], log["retentionInDays"]) == (key, 30)
    [queue] = cloud.client("sqs").list_queues(QueueNamePrefix=STACK)["QueueUrls"]
    attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert (attributes["KmsMasterKeyId"], attributes.get("SqsManagedSseEnabled", "false")) == (key, "false")
    iam = cloud.client("iam")
    for role in [it["RoleName"] for it in iam.list_roles()["Roles"] if it["RoleName"].startswith(STACK)]:
        [statement] = iam.get_role_policy(RoleName=role, PolicyName="curfew-data-key")["PolicyDocument"]["Statement"]
        assert (statement["Resource"], "kms:GenerateDataKey" in statement["Action"]) == (key, True)


def test_the_stack_has_the_tags_and_keeps_them_when_nobody_says_them_again(told):
    cloud, *_, again = told

    def tags() -> dict:
        [stack] = cloud.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        return {it["Key"]: it["Value"] for it in stack["Tags"]}

    assert tags() == {"team": "platform", "owner": "Jane Doe"}
    once_more = again()
    assert once_more.returncode == 0, once_more.stdout + once_more.stderr
    assert tags() == {"team": "platform", "owner": "Jane Doe"}


@pytest.mark.parametrize("tags", ["team", "aws:team=platform", "team=", "=platform", 'owner="Jane Doe'])
def test_tags_that_cannot_be_right_are_refused_before_anything_is_uploaded(told, tags):
    *_, again = told
    ended = again(TAGS=tags)
    assert ended.returncode != 0 and "error: TAGS: " in ended.stderr and "Uploading" not in ended.stdout + ended.stderr


def test_the_zip_is_in_a_bucket_of_ones_own_and_sam_has_made_none(told):
    cloud, *_ = told
    s3 = cloud.client("s3")
    assert [it["Name"] for it in s3.list_buckets()["Buckets"]] == ["platform-artifacts"]
    assert all(it["Key"].startswith(f"{STACK}/") for it in s3.list_objects_v2(Bucket="platform-artifacts")["Contents"])


def test_both_ends_of_a_run_are_told_to_the_bus(told):
    cloud, bus, *_ = told
    lambdas = cloud.client("lambda")
    config = lambdas.get_function_event_invoke_config(FunctionName=STACK, Qualifier="$LATEST")
    assert config["DestinationConfig"] == {"OnSuccess": {"Destination": bus}, "OnFailure": {"Destination": bus}}
    [role] = [it["RoleName"] for it in cloud.client("iam").list_roles()["Roles"] if it["RoleName"].startswith(f"{STACK}-Execution")]
    [statement] = cloud.client("iam").get_role_policy(RoleName=role, PolicyName="curfew-events")["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("events:PutEvents", bus)
    alarms = cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert "DestinationDeliveryFailures" in {it["MetricName"] for it in alarms}


# ---- Chat -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warning(told, ec2_sim) -> dict:
    """The report of the warning, which the schedule has fired."""
    cloud, *_ = told
    schedule = cloud.client("scheduler").get_schedule(Name=f"{STACK}-warn")
    assert schedule["State"] == "ENABLED" and json.loads(schedule["Target"]["Input"])["dry_run"] is True
    [report] = until("it warns", PATIENCE, lambda: cloud.reports(STACK))
    assert {it["state"] for it in requests.get(f"{ec2_sim}/_sim/instances").json()} == {"running"}
    return report


@pytest.fixture(scope="module")
def channel(told):
    """What a chat client gets: the messages of the topic in infra/chat.yaml, read from a queue."""
    cloud, bus, *_ = told
    cloudformation, sqs = cloud.client("cloudformation"), cloud.client("sqs")
    cloudformation.create_stack(
        StackName="chat",
        TemplateBody=(ROOT / "infra/chat.yaml").read_text(),
        Parameters=[{"ParameterKey": "Curfew", "ParameterValue": STACK}, {"ParameterKey": "Bus", "ParameterValue": bus}],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName="chat", WaiterConfig={"Delay": 1})
    [topic] = [it["OutputValue"] for it in cloudformation.describe_stacks(StackName="chat")["Stacks"][0]["Outputs"]]
    queue = sqs.create_queue(QueueName="channel")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    cloud.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    def heard() -> list[dict]:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        for it in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=it["ReceiptHandle"])
        return [json.loads(json.loads(it["Body"])["Message"]) for it in messages]

    def tell(detail: dict, source: str = "lambda") -> None:
        entry = {"Source": source, "DetailType": "Lambda Function Invocation Result", "Detail": json.dumps(detail), "EventBusName": bus}
        cloud.client("events").put_events(Entries=[entry])

    return tell, heard


def record(payload: dict, condition: str = "Success", function: str = STACK, qualifier: str = "$LATEST") -> dict:
    """Returns what Lambda sends to a destination (Lambda developer guide, "Capturing records of Lambda asynchronous
    invocations")."""
    return {
        "version": "1.0",
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "requestContext": {
            "requestId": "7f3a9c12-0a1b-2c3d-4e5f-0a1b2c3d4e5f",
            "functionArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{function}:{qualifier}",
            "condition": condition,
            "approximateInvokeCount": 1,
        },
        "requestPayload": shipped("stop-7pm.json"),
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": payload,
    }


def content(message: dict) -> dict:
    """Checks and returns a custom notification's content: Amazon Q Developer silently drops what doesn't fit its schema."""
    assert set(message) == {"version", "source", "content"} and (message["version"], message["source"]) == ("1.0", "custom")
    it = message["content"]
    assert set(it) <= {"textType", "title", "description", "nextSteps", "keywords"} and it["textType"] == "client-markdown"
    assert all(isinstance(it[key], str) for key in ("title", "description"))
    return it


def test_the_channel_is_warned_of_what_is_about_to_be_stopped_and_how_to_keep_it(channel, warning):
    assert (warning["name"], warning["dry_run"], warning["summary"]["would_change"]) == ("office-warning", True, 3)
    tell, heard = channel
    tell(record(warning))
    [message] = until("the channel hears", 20, heard)
    it = content(message)
    assert it["title"] == "Curfew is about to stop 3"
    assert "curfew:exempt" in it["description"] and "curfew:exempt" in it["nextSteps"][0]


def test_the_warning_lists_the_ids_of_all_accounts_and_regions(warning):
    [target] = yaml_parse((ROOT / "infra/chat.yaml").read_text())["Resources"]["Warned"]["Properties"]["Targets"]
    paths = target["InputTransformer"]["InputPathsMap"]
    [first] = warning["targets"]
    second = first | {"would_change": [{"id": "i-0abc12345678def00", "name": "db", "from": "running", "to": "stopping"}]}
    event = {"detail": record(warning | {"targets": [first, second]})}
    listed = lambda path: [it.value for it in parse(paths[path]).find(event)]  # noqa: E731
    assert len(listed("ids")) == 4 and listed("ids")[-1] == "i-0abc12345678def00"
    assert listed("count") == [3]
    for name in ("ids", "count"):
        assert f"<{name}>" in target["InputTransformer"]["InputTemplate"]


def test_what_may_have_quotes_in_it_is_never_a_part_of_a_text():
    """EventBridge doesn't escape what it puts into one: a name with a quote would be a message that no chat client reads."""
    harmless = {"type", "count", "ids"}
    for rule in yaml_parse((ROOT / "infra/chat.yaml").read_text())["Resources"].values():
        for target in rule["Properties"].get("Targets", []):
            text = target["InputTransformer"]["InputTemplate"] if "InputTransformer" in target else target["Input"]
            whole = re.sub(r'": <\w+>', '": "a whole value"', text)
            json.loads(whole)
            assert set(re.findall(r"<(\w+)>", whole)) <= harmless


def test_the_channel_hears_what_changed_and_what_failed_in_the_reports_words_quotes_and_all(channel, warning):
    tell, heard = channel
    words = 'office: stopped 2 of 3; 1 bad tag: "Mon-Fri 8-19" on crm: not hours that can be read'
    changed = warning | {"name": "office", "dry_run": False, "message": words, "summary": warning["summary"] | {"changed": 2}}
    # As an organization's state machine tells it.
    tell(record(changed, qualifier="live"), source="curfew")
    assert content(until("the wave's", 20, heard)[0])["description"] == words
    tell(record(changed))
    tell(record(changed, qualifier="tick"))
    both = until("the first", 20, heard)
    both += until("the second", 20, heard) if len(both) < 2 else []
    assert [content(it)["description"] for it in both] == [words, words]
    tell(record({"errorType": "Incomplete", "errorMessage": words}, condition="RetriesExhausted"))
    [message] = until("the failure", 20, heard)
    assert (content(message)["title"], content(message)["description"]) == ("Curfew failed: Incomplete", words)


def test_the_channel_hears_of_a_run_that_became_too_old_to_run(channel):
    """Which has no answer: the function never ran."""
    tell, heard = channel
    old = record({}, condition="EventAgeExceeded")
    tell({key: it for key, it in old.items() if key not in ("responsePayload", "responseContext")})
    [message] = until("the channel hears", 20, heard)
    assert content(message)["title"] == "Curfew failed: EventAgeExceeded"


def test_the_channel_hears_no_rehearsal_no_quiet_run_and_no_other_function(channel, warning):
    tell, heard = channel
    summary = warning["summary"]
    for quiet in (
        record(warning | {"name": "office"}),
        record(warning | {"summary": summary | {"would_change": 0}}),
        record(warning | {"name": "office", "dry_run": False, "summary": summary | {"changed": 0}}),
        record(warning, function=f"{STACK}-of-another"),
        record(warning, function=f"{STACK}-organization", qualifier="live"),
    ):
        tell(quiet)
    # The last one has arrived, so earlier ones would have, too.
    tell(record({"errorType": "Internal", "errorMessage": "the last"}, condition="RetriesExhausted"))
    assert [content(it)["description"] for it in until("the last", 20, heard)] == ["the last"]


def test_undeployed_the_zip_is_gone_from_the_bucket_too(told, channel):
    cloud, *_ = told
    gone = cloud.verb("undeploy", STACK=STACK, BUCKET="platform-artifacts")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert cloud.client("s3").list_objects_v2(Bucket="platform-artifacts").get("Contents", []) == []
    assert [it["RoleName"] for it in cloud.client("iam").list_roles()["Roles"] if it["RoleName"].startswith(STACK)] == []


# ---- Alarms about machines that are off -----------------------------------------------------------------------------------


def test_the_mute_rule_that_the_readme_shows_is_one_that_cloudformation_knows():
    shown = (ROOT / "infra/README.md").read_text().partition("AWS::CloudWatch::AlarmMuteRule")
    example = shown[0].rpartition("```yaml\n")[2] + shown[1] + shown[2].partition("```")[0]
    assert "Resources:" in example
    assert lint_all(example) == []
    [rule] = yaml_parse(example)["Resources"].values()
    schedule = rule["Properties"]["Rule"]["Schedule"]
    # Five fields, not six as EventBridge's.
    assert len(schedule["Expression"].removeprefix("cron(").removesuffix(")").split()) == 5
