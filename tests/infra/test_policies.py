"""Least privilege: what each role may do, and what it may not.

The evaluator is the one inside MiniStack: its SimulateCustomPolicy takes no context entries, the function behind it does.
"""

import json
import re
import shutil
import subprocess
import sys

import parliament
import pytest
from conftest import BIN, ROOT
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document

ACCOUNT = "111122223333"
INSTANCE = f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-0abc12345678def00"
ELSEWHERE = "arn:aws:ec2:eu-west-1:444455556666:instance/i-0abc12345678def00"
LICENSE = f"arn:aws:license-manager:eu-west-1:{ACCOUNT}:license-configuration:lic-0abc"
LICENSE_OF_ANOTHER = LICENSE.replace(ACCOUNT, "444455556666")
GROUP = f"arn:aws:resource-groups:eu-west-1:{ACCOUNT}:group/hosts"
KEY = "arn:aws:kms:us-east-1:111122223333:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
# As EC2 asks for it where an instance with encrypted volumes starts (KMS developer guide, "Amazon EC2 example two").
GRANT = {
    "kms:GrantIsForAWSResource": "true",
    "kms:ViaService": "ec2.us-east-1.amazonaws.com",
    "kms:EncryptionContextKeys": ["aws:ebs:id"],
    "kms:GrantOperations": ["Decrypt"],
}
OURS_ORGANIZATION = {"aws:ResourceOrgID": "o-0a1b2c3d4e"}
# In the rendered policies every stack has the same name.
STATE_MACHINE = "curfew"
STACK_SET = "arn:aws:cloudformation:us-east-1:{}:stackset/{}:0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
OURS = {"aws:ResourceTag/curfew": "yes"}
MARK = {"aws:TagKeys": ["curfew:stopped-at"]}
ROLES = ["execution-role", "member-role"]

SWITCHING = [
    # action, resource, context, allowed
    ("ec2:DescribeInstances", "*", {}, True),
    ("ec2:DescribeRegions", "*", {}, True),
    *[
        row
        for verb in ("ec2:StopInstances", "ec2:StartInstances")
        for row in [
            (verb, INSTANCE, OURS, True),
            (verb, INSTANCE, {"aws:ResourceTag/curfew": "no"}, False),
            (verb, INSTANCE, {"aws:ResourceTag/Curfew": "Yes"}, False),
            (verb, INSTANCE, {}, False),
            (verb, ELSEWHERE, OURS, False),
        ]
    ],
    *[
        row
        for it in (LICENSE, LICENSE_OF_ANOTHER, GROUP, GROUP.replace(ACCOUNT, "444455556666"))
        for row in [("ec2:StartInstances", it, {}, True), ("ec2:StopInstances", it, {}, False), ("ec2:RunInstances", it, {}, False)]
    ],
    *[
        row
        for verb in ("ec2:CreateTags", "ec2:DeleteTags")
        for row in [
            (verb, INSTANCE, OURS | MARK, True),
            (verb, INSTANCE, MARK, False),
            (verb, ELSEWHERE, OURS | MARK, False),
            (verb, INSTANCE, OURS | {"aws:TagKeys": ["curfew"]}, False),
            (verb, INSTANCE, OURS | {"aws:TagKeys": ["curfew:stopped-at", "Name"]}, False),
            # DeleteTags without a key would delete all tags.
            (verb, INSTANCE, OURS, False),
            (verb, f"arn:aws:ec2:eu-west-1:{ACCOUNT}:volume/vol-0abc", OURS | MARK, False),
        ]
    ],
    ("ec2:TerminateInstances", INSTANCE, OURS, False),
    ("ec2:RebootInstances", INSTANCE, OURS, False),
    ("ec2:ModifyInstanceAttribute", INSTANCE, OURS, False),
    ("ec2:RunInstances", INSTANCE, OURS, False),
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/curfew", {}, False),
]
OTHERS = [
    ("execution-role", "logs:PutLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/curfew:log-stream:a", {}, True),
    ("execution-role", "logs:PutLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/other:log-stream:a", {}, False),
    ("execution-role", "sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-DeadLetters", {}, True),
    ("execution-role", "sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:orders", {}, False),
    ("execution-role", "sqs:ReceiveMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-DeadLetters", {}, False),
    ("execution-role", "kms:CreateGrant", KEY, GRANT, False),
    ("member-role", "kms:CreateGrant", KEY, GRANT, False),
    ("execution-role-kms", "kms:CreateGrant", KEY, GRANT, True),
    ("execution-role-kms", "kms:CreateGrant", KEY, GRANT | {"kms:ViaService": "ec2.eu-west-1.amazonaws.com"}, True),
    *[
        ("execution-role-kms", "kms:CreateGrant", KEY, GRANT | wrong, False)
        for wrong in (
            {"kms:GrantIsForAWSResource": "false"},
            {"kms:GrantIsForAWSResource": None},
            {"kms:ViaService": "rds.us-east-1.amazonaws.com"},
            {"kms:ViaService": None},
            {"kms:EncryptionContextKeys": ["aws:s3:arn"]},
            {"kms:EncryptionContextKeys": ["aws:ebs:id", "aws:s3:arn"]},
            {"kms:EncryptionContextKeys": None},
            {"kms:GrantOperations": ["Decrypt", "Encrypt"]},
            {"kms:GrantOperations": ["GenerateDataKey"]},
            {"kms:GrantOperations": None},
        )
    ],
    ("execution-role-kms", "kms:CreateGrant", KEY.replace("0a1b2c3d-", "ffffffff-", 1), GRANT, False),
    ("execution-role-kms", "kms:Decrypt", KEY, GRANT, False),
    ("execution-role-kms", "kms:RetireGrant", KEY, GRANT, False),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, True),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing", {}, False),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew:tick", {}, True),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew:1", {}, False),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing:tick", {}, False),
    ("schedules-role", "lambda:UpdateFunctionCode", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, False),
    ("schedules-role", "ec2:StopInstances", INSTANCE, OURS, False),
    ("execution-role-accounts", "sts:AssumeRole", "arn:aws:iam::444455556666:role/curfew-member", OURS_ORGANIZATION, True),
    ("execution-role-accounts", "sts:AssumeRole", "arn:aws:iam::444455556666:role/curfew-member", {"aws:ResourceOrgID": "o-ffffffffff"}, False),
    ("execution-role-accounts", "sts:AssumeRole", "arn:aws:iam::444455556666:role/curfew-member", {}, False),
    ("execution-role-accounts", "sts:AssumeRole", "arn:aws:iam::444455556666:role/admin", OURS_ORGANIZATION, False),
    ("execution-role-accounts", "sts:AssumeRole", "arn:aws:iam::444455556666:role/curfew-member-of-another", OURS_ORGANIZATION, False),
    ("execution-role-accounts", "iam:PassRole", "arn:aws:iam::444455556666:role/curfew-member", OURS_ORGANIZATION, False),
    ("organization-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, True),
    ("organization-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing", {}, False),
    ("organization-role", "lambda:UpdateFunctionCode", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, False),
    ("organization-role", "cloudformation:ListStackInstances", STACK_SET.format(ACCOUNT, "curfew-member"), {}, True),
    # A delegated administrator's StackSet is the management account's.
    ("organization-role", "cloudformation:ListStackInstances", STACK_SET.format("444455556666", "curfew-member"), {}, True),
    ("organization-role", "cloudformation:ListStackInstances", STACK_SET.format(ACCOUNT, "baseline"), {}, False),
    ("organization-role", "cloudformation:DeleteStackInstances", STACK_SET.format(ACCOUNT, "curfew-member"), {}, False),
    ("organization-role", "organizations:ListDelegatedAdministrators", "*", {}, True),
    ("organization-role", "organizations:ListAccounts", "*", {}, False),
    *[
        row
        for action, kind, name in (("ListExecutions", "stateMachine", "{}"), ("DescribeExecution", "execution", "{}:0a1b"))
        for row in [
            ("organization-role", f"states:{action}", f"arn:aws:states:us-east-1:{ACCOUNT}:{kind}:{name.format(STATE_MACHINE)}", {}, True),
            ("organization-role", f"states:{action}", f"arn:aws:states:us-east-1:{ACCOUNT}:{kind}:{name.format('billing')}", {}, False),
        ]
    ],
    ("organization-role", "states:StartExecution", f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:{STATE_MACHINE}", {}, False),
    ("organization-role", "organizations:CloseAccount", "*", {}, False),
    ("organization-role", "sts:AssumeRole", "arn:aws:iam::444455556666:role/curfew-member", {}, False),
    ("organization-role", "ec2:StopInstances", INSTANCE, OURS, False),
    ("organization-role", "logs:GetLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/other:log-stream:a", {}, False),
    ("organization-schedules-role", "states:StartExecution", f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:curfew-organization", {}, True),
    ("organization-schedules-role", "states:StartExecution", f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:billing", {}, False),
    ("organization-schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, False),
    *[("read-only", action, "*", {}, True) for action in ("ec2:DescribeInstances", "ec2:DescribeRegions")],
    *[
        ("read-only", action, INSTANCE, OURS | MARK, False)
        for action in ("ec2:StopInstances", "ec2:StartInstances", "ec2:CreateTags", "ec2:DeleteTags", "ec2:GetConsoleOutput")
    ],
    *[
        ("read-only", action, "*", {}, True)
        for action in ("cloudwatch:GetMetricData", "pricing:GetProducts", "ce:GetCostAndUsageWithResources", "ce:GetSavingsPlansUtilization")
    ],
    ("read-only", "logs:FilterLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/curfew", {}, True),
    ("read-only", "logs:FilterLogEvents", f"arn:aws-cn:logs:cn-north-1:{ACCOUNT}:log-group:/aws/lambda/curfew", {}, True),
    ("read-only", "logs:FilterLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/payroll", {}, False),
    *[
        ("read-only", action, "*", {}, False)
        for action in ("cloudwatch:PutMetricData", "logs:DeleteLogGroup", "logs:StartQuery", "ce:UpdatePreferences", "ce:GetCostAndUsage")
    ],
    ("read-only", "sts:AssumeRole", "arn:aws:iam::444455556666:role/curfew-member", {}, False),
    ("deployer", "cloudformation:DeleteStack", f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/curfew/1", {}, True),
    ("deployer", "cloudformation:DeleteStack", f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/network/1", {}, False),
    ("deployer", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/curfew-ExecutionRole-1", {"iam:PassedToService": "lambda.amazonaws.com"}, True),
    ("deployer", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/curfew-ExecutionRole-1", {"iam:PassedToService": "ec2.amazonaws.com"}, False),
    ("deployer", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", {"iam:PassedToService": "lambda.amazonaws.com"}, False),
    ("deployer", "iam:AttachRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/curfew-ExecutionRole-1", {}, False),
    ("deployer", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing", {}, False),
    *[
        row
        for verb in ("Create", "Get", "Update", "Delete")
        for row in [
            ("deployer", f"lambda:{verb}Alias", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, True),
            ("deployer", f"lambda:{verb}Alias", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing", {}, False),
        ]
    ],
    ("deployer", "lambda:PutFunctionEventInvokeConfig", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew:tick", {}, True),
    ("deployer", "lambda:PublishVersion", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, False),
    ("deployer", "ec2:StopInstances", INSTANCE, OURS, False),
]
CASES = [(role, *row) for role in ROLES for row in SWITCHING] + OTHERS


@pytest.mark.parametrize(("role", "action", "resource", "context", "allowed"), CASES, ids=str)
def test_a_role_may_do_what_it_must_and_no_more(rendered, role, action, resource, context, allowed):
    asked = EvalContext(
        principal_arn=f"arn:aws:iam::{ACCOUNT}:role/{role}",
        principal_type="AssumedRole",
        principal_account=ACCOUNT,
        action=action,
        resource_arn=resource,
        region="eu-west-1",
        service_context={"aws:tagkeys": None} | {key.lower(): value for key, value in context.items()},
    )
    policy = parse_policy_document((rendered / "policy" / f"{role}.json").read_text())
    assert evaluate(asked, [policy]).decision == ("Allow" if allowed else "ImplicitDeny")


def actions(policy: str) -> set[str]:
    statements = json.loads((ROOT / "policy" / f"{policy}.json").read_text())["Statement"]
    return {action for it in statements for action in ([it["Action"]] if isinstance(it["Action"], str) else it["Action"])}


def test_what_the_function_may_do_and_never_does_stands_in_the_list_with_its_reason():
    """The other half, that it makes each call on EC2 and no other, is proven where it makes them: tests/it/world.rs."""
    listed = re.findall(r"^\| (`[a-z]+:.*?) \| .+ \|$", (ROOT / "policy/README.md").read_text(), re.MULTILINE)
    reasoned = {action for row in listed for action in re.findall(r"`([^`]+)`", row)}
    allowed = actions("execution-role") | actions("execution-role-kms")
    assert {it for it in allowed if not it.startswith("ec2:")} == reasoned


def test_the_member_role_may_do_on_ec2_exactly_what_the_execution_role_may():
    on_ec2 = [
        [it for it in json.loads((ROOT / "policy" / f"{role}.json").read_text())["Statement"] if "ec2:" in str(it["Action"])]
        for role in ROLES
    ]
    assert on_ec2[0] == on_ec2[1]


# parliament wants every statement to name what StartInstances must have, an instance, and for executions those of Map
# runs and of Express, too; the account of a transform is "aws" (CloudFormation user guide, "Control access").
KNOWN = {
    "execution-role": ["RESOURCE_MISMATCH"],
    "member-role": ["RESOURCE_MISMATCH"],
    "organization-role": ["RESOURCE_MISMATCH"] * 2,
    "deployer": ["INVALID_ARN"],
}


@pytest.mark.parametrize("policy", sorted({path.stem for path in (ROOT / "policy").glob("*.json")} - {"member-role-trust"}))
def test_parliament_finds_nothing(rendered, policy):
    analyzed = parliament.analyze_policy_string((rendered / "policy" / f"{policy}.json").read_text())
    assert [it.issue for it in analyzed.findings] == KNOWN.get(policy, [])


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("infra/organization.asl.json", '"Arguments": {', '"Argumets": {'),
        ("infra/organization.asl.json", '"Assign": {', '"Asign": {'),
        ("policy/member-role.json", "ec2:StopInstances", "ec2:StopInstance"),
        ("policy/member-role-trust.json", "ArnLike", "ArnLiek"),
        ("policy/organization-role.json", "cloudformation:ListStackInstances", "cloudformation:ListStackInstance"),
    ],
)
def test_the_linter_looks_into_what_templates_hold_as_text(tmp_path, file, right, wrong):
    """As `make lint` does."""
    assert "objects.json" in re.search(r"^\t.*cfn-lint .*$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    for part in ("infra", "policy"):
        shutil.copytree(ROOT / part, tmp_path / part)

    def lint() -> int:
        subprocess.run([sys.executable, tmp_path / "infra/stack.py", "render", tmp_path], check=True)
        return subprocess.run([BIN / "cfn-lint", tmp_path / "objects.json"], stdout=subprocess.DEVNULL).returncode

    text = (tmp_path / file).read_text()
    assert right in text
    (tmp_path / file).write_text(text.replace(right, wrong))
    assert lint() != 0
    (tmp_path / file).write_text(text)
    assert lint() == 0
