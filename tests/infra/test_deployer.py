"""What the deploying verbs ask of AWS is what policy/deployer.json and deployer-rest.json allow: each call that they made, replayed
against both, and each that CloudFormation makes in the deployer's name, as its registry has them.

The verbs run against MiniStack, which allows everything; botocore records the calls, both those of `make` and those of SAM.
"""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import cfnlint
import pytest
from conftest import Cloud
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document
from samcli.yamlhelper import yaml_parse

ACCOUNT = "111122223333"
RECORDER = """
import json, os
from botocore.client import BaseClient

make = BaseClient._make_api_call

def recorded(client, operation, parameters):
    call = [client.meta.service_model.service_name, operation, parameters]
    with open(os.environ["CALLS"], "a") as it:
        it.write(json.dumps(call, default=lambda _: None) + "\\n")
    return make(client, operation, parameters)

BaseClient._make_api_call = recorded
"""
# IAM's names for actions that differ from the operations' names.
ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
}


def asked(service: str, operation: str, it: dict) -> list[tuple[str, str]]:
    """Returns the actions that IAM checks for a call, each with its resource. Add a case for each new service."""
    action = ACTIONS.get(f"{service}:{operation}", f"{service}:{operation}")
    region = f"us-east-1:{ACCOUNT}"
    match service:
        case "cloudformation" if operation == "ValidateTemplate":
            return [(action, "*")]
        case "cloudformation":
            stack = it["StackName"].partition("stack/")[2].partition("/")[0] or it["StackName"]
            on = [(action, f"arn:aws:cloudformation:{region}:stack/{stack}/0a1b2c3d")]
            # The transform is also used for the stack's current template.
            if operation in ("CreateChangeSet", "CreateStack", "UpdateStack") and stack != "aws-sam-cli-managed-default":
                on.append((action, "arn:aws:cloudformation:us-east-1:aws:transform/Serverless-2016-10-31"))
            return on
        case "lambda":
            name = (it.get("FunctionName") or it["Resource"]).rpartition("function:")[2]
            qualifier = f":{it['Qualifier']}" if it.get("Qualifier") else ""
            return [(action, f"arn:aws:lambda:{region}:function:{name}{qualifier}")]
        case "s3":
            keys = [it["Key"]] if "Key" in it else [one["Key"] for one in it.get("Delete", {}).get("Objects", [])]
            return [(action, f"arn:aws:s3:::{it['Bucket']}" + (f"/{key}" if key else "")) for key in keys or [""]]
        case "logs":
            return [(action, f"arn:aws:logs:{region}:log-group:{it['logGroupName']}:*")]
        case "rbin":
            return [(action, f"arn:aws:rbin:{region}:rule/{it['Identifier']}" if "Identifier" in it else "*")]
        case "sts" if operation == "GetCallerIdentity":
            # It needs no permission.
            return []
    raise AssertionError(f"{service}:{operation}: who allows it?")


@pytest.fixture(scope="module")
def allows(rendered):
    both = [parse_policy_document((rendered / f"policy/{it}.json").read_text()) for it in ("deployer", "deployer-rest")]

    def allows(action: str, resource: str, **context: str) -> bool:
        it = EvalContext(
            principal_arn=f"arn:aws:iam::{ACCOUNT}:role/deployer",
            principal_type="AssumedRole",
            principal_account=ACCOUNT,
            action=action,
            resource_arn=resource,
            region="us-east-1",
            service_context={key.lower(): value for key, value in context.items()},
        )
        return evaluate(it, both).decision == "Allow"

    return allows


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Each verb's calls, from the first deployment until everything is removed."""
    folder = tmp_path_factory.mktemp("deployer")
    (folder / "sitecustomize.py").write_text(RECORDER)
    cloud = Cloud(folder)
    calls: dict[str, list] = {}
    never = {"StopAt": "cron(0 19 1 1 ? 2199)", "StartAt": "cron(0 8 1 1 ? 2199)", "SnapshotsAt": "cron(0 3 1 1 ? 2199)"}

    def run(name: str, verb: str, *arguments: str, **env: str):
        path = folder / f"{name}.jsonl"
        path.touch()
        ended = cloud.verb(verb, *arguments, parameters=never, PYTHONPATH=str(folder), CALLS=str(path), **env)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        calls[name] = [json.loads(line) for line in path.read_text().splitlines()]

    try:
        run("deploy", "deploy")
        run("deploy again", "deploy", LIVE="yes")
        run("invoke", "invoke", "EVENT=infra/events/stop-7pm.json")
        run("invoke for snapshots", "invoke", "EVENT=infra/events/snapshots.json")
        run("pause", "pause")
        run("resume", "resume")
        cloud.client("lambda").put_function_concurrency(FunctionName="curfew", ReservedConcurrentExecutions=7)
        run("halt", "halt")
        run("resume from a halt", "resume")
        run("undeploy", "undeploy")
        yield calls
    finally:
        cloud.end()


def test_the_deployer_may_make_each_call_that_its_verbs_make(recorded, allows):
    for verb, calls in recorded.items():
        assert calls, verb
        denied = {(action, resource) for call in calls for action, resource in asked(*call) if not allows(action, resource)}
        assert denied == set(), verb


def test_the_record_is_of_our_verbs_and_of_sam_alike(recorded):
    made = {verb: {f"{service}:{operation}" for service, operation, _ in calls} for verb, calls in recorded.items()}
    assert {"s3:PutObject", "cloudformation:CreateChangeSet"} <= made["deploy"], "SAM's"
    assert {"cloudformation:CreateChangeSet", "cloudformation:ExecuteChangeSet"} <= made["pause"]
    assert "cloudformation:UpdateStack" not in made["pause"] | made["resume"]
    assert {"lambda:PutFunctionConcurrency", "lambda:TagResource"} <= made["halt"]
    assert not {it for it in made["halt"] if it.startswith("cloudformation:")}, "the brake works without it"
    halted = {call[2]["FunctionName"] for call in recorded["halt"] if call[1] == "PutFunctionConcurrency"}
    assert {"curfew", "curfew-snapshots"} <= halted
    looked_for = {call[2]["StackName"] for call in recorded["undeploy"] if call[1] == "DescribeStacks"}
    assert [it for it in looked_for if re.fullmatch("curfew-[0-9a-f]{8}-CompanionStack", it)], "SAM looks for one"


# ---- CloudFormation's calls in the deployer's name -------------------------------------------------------------------

ARNS = {
    "AWS::CloudWatch::Alarm": f"arn:aws:cloudwatch:us-east-1:{ACCOUNT}:alarm:curfew a run failed",
    "AWS::CloudWatch::Dashboard": f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/curfew-us-east-1",
    "AWS::Events::Rule": f"arn:aws:events:us-east-1:{ACCOUNT}:rule/curfew-stop",
    "AWS::IAM::Policy": f"arn:aws:iam::{ACCOUNT}:role/curfew-ExecutionRole-0A1B2C3D4E5F",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/curfew-ExecutionRole-0A1B2C3D4E5F",
    "AWS::Lambda::Alias": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew",
    "AWS::Lambda::EventInvokeConfig": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew",
    "AWS::Lambda::Function": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew",
    "AWS::Lambda::Permission": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew",
    "AWS::Logs::LogGroup": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/curfew:*",
    "AWS::SNS::Subscription": f"arn:aws:sns:us-east-1:{ACCOUNT}:curfew-Alarms-0a1b",
    "AWS::SNS::Topic": f"arn:aws:sns:us-east-1:{ACCOUNT}:curfew-Alarms-0a1b",
    "AWS::SNS::TopicPolicy": f"arn:aws:sns:us-east-1:{ACCOUNT}:curfew-Alarms-0a1b",
    "AWS::SQS::Queue": f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-DeadLetters-0a1b",
    "AWS::SQS::QueuePolicy": f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-DeadLetters-0a1b",
    "AWS::Scheduler::Schedule": f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/curfew-stop",
}
# Permissions that a handler needs only for a property that our template doesn't set.
ONLY_FOR = {
    "codedeploy:*": "UpdatePolicy",
    "ec2:*": "VpcConfig",
    "elasticfilesystem:*": "FileSystemConfigs",
    "firehose:*": "LogGroupClass",
    "iam:AttachRolePolicy": "ManagedPolicyArns",
    "iam:DeleteRolePermissionsBoundary": "PermissionsBoundary",
    "iam:DetachRolePolicy": "ManagedPolicyArns",
    "iam:PutRolePermissionsBoundary": "PermissionsBoundary",
    "iam:*GroupPolicy": "Groups",
    "iam:*UserPolicy": "Users",
    "kms:*": "KmsKeyArn",
    "lambda:DeleteFunctionCodeSigningConfig": "CodeSigningConfigArn",
    "lambda:DeleteProvisionedConcurrencyConfig": "ProvisionedConcurrencyConfig",
    "lambda:GetCodeSigningConfig": "CodeSigningConfigArn",
    "lambda:GetLayerVersion": "Layers",
    "lambda:PassCapacityProvider": "CapacityProviderConfig",
    "lambda:PublishVersion": "PublishToLatestPublished",
    "lambda:PutFunctionCodeSigningConfig": "CodeSigningConfigArn",
    "lambda:PutFunctionRecursionConfig": "RecursiveLoop",
    "lambda:PutFunctionScalingConfig": "FunctionScalingConfig",
    "lambda:PutProvisionedConcurrencyConfig": "ProvisionedConcurrencyConfig",
    "lambda:PutRuntimeManagementConfig": "RuntimeManagementConfig",
    "logs:*AssociateKmsKey": "KmsKeyId",
    "logs:*IndexPolicy": "FieldIndexPolicies",
    "logs:*ResourcePolicy": "ResourcePolicyDocument",
    "logs:CreateLogDelivery": "LogGroupClass",
    "logs:DisassociateKmsKey": "KmsKeyId",
    "logs:PutBearerTokenAuthentication": "BearerTokenAuthenticationEnabled",
    "logs:PutDataProtectionPolicy": "DataProtectionPolicy",
    "logs:PutLogGroupDeletionProtection": "DeletionProtectionEnabled",
    "s3:REST.PUT.OBJECT": "LogGroupClass",
    "s3files:*": "FileSystemConfigs",
    "sns:PutDataProtectionPolicy": "DataProtectionPolicy",
    "sns:SetSubscriptionAttributes": "FilterPolicy",
}
# Needed for roles that our topic and subscriptions don't have, and to remove a retention, which never happens.
NEVER = {("AWS::SNS::Topic", "iam:GetRole"), ("AWS::SNS::Subscription", "iam:GetRole"), ("AWS::Logs::LogGroup", "logs:DeleteRetentionPolicy")}
# What SAM turns a function into.
MADE = {"AWS::Serverless::Function": ["AWS::Lambda::Function", "AWS::Lambda::EventInvokeConfig"]}


def handlers() -> dict[str, set[str]]:
    """Returns the actions with which CloudFormation creates, reads, updates and deletes resources, by type."""
    schemas = (json.loads(path.read_text()) for path in (Path(cfnlint.__file__).parent / "data/schemas/resources").glob("*.json"))
    return {
        it["typeName"]: {action for verb, one in it["handlers"].items() if verb != "list" for action in one["permissions"]}
        for it in schemas
        if it.get("typeName") in ARNS and "handlers" in it
    }


def test_the_deployer_may_make_each_call_that_cloudformation_makes_in_its_name(rendered, allows):
    resources = yaml_parse((rendered / "curfew.yaml").read_text())["Resources"]
    calls = handlers()
    assert {made for it in resources.values() for made in MADE.get(it["Type"], [it["Type"]])} == set(calls), "each type, and no other"
    denied = set()
    for name, it in resources.items():
        given = set(it) | set(it["Properties"])
        for made in MADE.get(it["Type"], [it["Type"]]):
            for action in calls[made]:
                needless = [by for what, by in ONLY_FOR.items() if fnmatchcase(action, what) and by not in given]
                if needless or (made, action) in NEVER:
                    continue
                on, context = ARNS[made], {}
                if name.startswith("Snapshots"):
                    on = re.sub(r"(function:|/aws/lambda/)curfew\b", r"\1curfew-snapshots", on)
                # Lambda asks by the qualified name, where there is one.
                if "Qualifier" in given and action.startswith("lambda:"):
                    on += f":{it['Properties']['Qualifier']}"
                if action == "iam:PassRole":
                    on, context = ARNS["AWS::IAM::Role"], {"iam:PassedToService": "lambda.amazonaws.com"}
                elif action.startswith("s3:"):
                    on = "arn:aws:s3:::aws-sam-cli-managed-default-samclisourcebucket-0a1b/curfew/0a1b"
                if not allows(action, on, **context):
                    denied.add((made, action))
    assert denied == set()


# ---- What belongs to the organization ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        *[
            (action, f"arn:aws:iam::{ACCOUNT}:role/{role}")
            for action in ("iam:PutRolePolicy", "iam:UpdateAssumeRolePolicy", "iam:DeleteRole", "iam:PassRole", "iam:CreateRole")
            for role in (
                "organization/curfew-organization-ExecutionRole-0A1B2C3D4E5F",
                "organization/curfew-member",
                "curfew-organization-ExecutionRole-0A1B2C3D4E5F",
                "curfew-member",
            )
        ],
        *[
            (f"lambda:{verb}", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-organization{qualifier}")
            for verb in ("UpdateFunctionCode", "UpdateAlias", "DeleteAlias", "CreateAlias", "PublishVersion", "InvokeFunction", "AddPermission")
            for qualifier in ("", ":live", ":1")
        ],
        *[
            (f"lambda:{verb}", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-organization")
            for verb in ("PutFunctionConcurrency", "DeleteFunctionConcurrency", "GetFunction", "UpdateFunctionConfiguration")
        ],
        *[
            (f"cloudformation:{verb}", f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/curfew-organization/0a1b")
            for verb in ("CreateChangeSet", "ExecuteChangeSet", "DeleteStack", "GetTemplate")
        ],
        ("scheduler:UpdateSchedule", f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/curfew-organization-stop/curfew-organization-stop"),
        ("scheduler:DeleteSchedule", f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/curfew-organization-reconcile"),
        ("sns:Subscribe", f"arn:aws:sns:us-east-1:{ACCOUNT}:curfew-organization-Alarms-0a1b"),
        ("sqs:DeleteQueue", f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-organization-DeadLetters-0a1b"),
        ("cloudwatch:DeleteAlarms", f"arn:aws:cloudwatch:us-east-1:{ACCOUNT}:alarm:curfew-organization a run failed"),
        ("cloudwatch:PutDashboard", f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/curfew-organization-us-east-1"),
        ("states:UpdateStateMachine", f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:curfew-organization"),
        # SAM uses whatever is there under the right name as if it had uploaded it.
        ("s3:PutObject", "arn:aws:s3:::aws-sam-cli-managed-default-samclisourcebucket-0a1b/curfew-organization/0a1b"),
    ],
    ids=str,
)
def test_whoever_deploys_one_accounts_curfew_owns_nothing_that_all_accounts_trust(allows, action, resource):
    context = {"iam:PassedToService": "lambda.amazonaws.com"} if action == "iam:PassRole" else {}
    assert not allows(action, resource, **context)


def test_but_sees_whether_the_organizations_runs(allows):
    """`make pause` has to be able to say what it didn't pause."""
    assert allows("cloudformation:DescribeStacks", f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/curfew-organization/0a1b")
    assert allows("lambda:GetFunctionConcurrency", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-organization")
