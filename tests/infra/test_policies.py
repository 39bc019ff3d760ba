"""Least privilege: what each role may do, and what it may not.

The evaluator is MiniStack's, called as a function: its SimulateCustomPolicy takes no context entries.
"""

import json
import re
import shutil
import subprocess
import sys

import parliament
import pytest
from conftest import BIN, ROOT
from ministack.core.iam_evaluator import EvalContext, evaluate, evaluate_resource_policy, parse_policy_document
from samcli.yamlhelper import yaml_parse
from test_parameters import LONGEST, render

ACCOUNT = "111122223333"
INSTANCE = f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-0abc12345678def00"
ELSEWHERE = "arn:aws:ec2:eu-west-1:444455556666:instance/i-0abc12345678def00"
LICENSE = f"arn:aws:license-manager:eu-west-1:{ACCOUNT}:license-configuration:lic-0abc"
LICENSE_OF_ANOTHER = LICENSE.replace(ACCOUNT, "444455556666")
GROUP = f"arn:aws:resource-groups:eu-west-1:{ACCOUNT}:group/hosts"
KEY = "arn:aws:kms:us-east-1:111122223333:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
# The context in which EC2 calls KMS to start an instance with encrypted volumes (KMS developer guide, "Amazon EC2 example
# two").
GRANT = {
    "kms:GrantIsForAWSResource": "true",
    "kms:ViaService": "ec2.us-east-1.amazonaws.com",
    "kms:EncryptionContextKeys": ["aws:ebs:id"],
    "kms:GrantOperations": ["Decrypt"],
}
OURS_ORGANIZATION = {"aws:ResourceOrgID": "o-0a1b2c3d4e"}
STATE_MACHINE = "curfew-organization"
MEMBER = "arn:aws:iam::444455556666:role/organization/curfew-member"
STACK_SET = "arn:aws:cloudformation:us-east-1:{}:stackset/{}:0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
DATA_KEY = "arn:aws:kms:us-east-1:111122223333:key/4e5f6a7b-4e5f-6a7b-8c9d-4e5f6a7b8c9d"
OURS = {"aws:ResourceTag/curfew": "yes"}
MARK = {"aws:TagKeys": ["curfew:stopped-at"]}
ROLES = ["execution-role", "member-role"]
DEPLOYERS = ["deployer", "deployer-rest"]

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
    ("execution-role-events", "events:PutEvents", f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default", {}, True),
    ("execution-role-events", "events:PutEvents", f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/orders", {}, False),
    ("execution-role-events", "events:PutRule", f"arn:aws:events:us-east-1:{ACCOUNT}:rule/curfew-stop", {}, False),
    *[
        row
        for verb in ("kms:Decrypt", "kms:GenerateDataKey")
        for row in [
            ("data-key", verb, DATA_KEY, {"kms:ViaService": "sqs.us-east-1.amazonaws.com"}, True),
            ("data-key", verb, DATA_KEY, {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}, False),
            ("data-key", verb, DATA_KEY, {}, False),
            ("data-key", verb, KEY, {"kms:ViaService": "sqs.us-east-1.amazonaws.com"}, False),
        ]
    ],
    ("data-key", "kms:CreateGrant", DATA_KEY, {"kms:ViaService": "sqs.us-east-1.amazonaws.com"}, False),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, True),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing", {}, False),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew:tick", {}, True),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew:1", {}, False),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing:tick", {}, False),
    ("schedules-role", "lambda:UpdateFunctionCode", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, False),
    ("schedules-role", "ec2:StopInstances", INSTANCE, OURS, False),
    *[
        row
        for verb in ("sts:AssumeRole", "sts:SetSourceIdentity")
        for row in [
            ("execution-role-accounts", verb, MEMBER, OURS_ORGANIZATION, True),
            ("execution-role-accounts", verb, MEMBER, {"aws:ResourceOrgID": "o-ffffffffff"}, False),
            ("execution-role-accounts", verb, MEMBER, {}, False),
            ("execution-role-accounts", verb, MEMBER.replace("organization/", ""), OURS_ORGANIZATION, False),
            ("execution-role-accounts", verb, "arn:aws:iam::444455556666:role/admin", OURS_ORGANIZATION, False),
            ("execution-role-accounts", verb, f"{MEMBER}-of-another", OURS_ORGANIZATION, False),
        ]
    ],
    ("execution-role-accounts", "iam:PassRole", MEMBER, OURS_ORGANIZATION, False),
    ("organization-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-organization:live", {}, True),
    ("organization-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-organization", {}, False),
    ("organization-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew:live", {}, False),
    ("organization-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing", {}, False),
    ("organization-role", "lambda:UpdateFunctionCode", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, False),
    ("organization-role", "cloudformation:ListStackInstances", STACK_SET.format(ACCOUNT, "curfew-member"), {}, True),
    # A delegated administrator's StackSet belongs to the management account.
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
    ("organization-schedules-role", "sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-organization-DeadLetters", {}, True),
    ("organization-schedules-role", "sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-DeadLetters", {}, False),
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
    *[
        row
        for verb in ("PutRolePermissionsBoundary", "DeleteRolePermissionsBoundary")
        for row in [
            ("deployer", f"iam:{verb}", f"arn:aws:iam::{ACCOUNT}:role/curfew-ExecutionRole-1", {}, True),
            ("deployer", f"iam:{verb}", f"arn:aws:iam::{ACCOUNT}:role/admin", {}, False),
        ]
    ],
    *[
        row
        for verb in ("AssociateKmsKey", "DisassociateKmsKey", "PutRetentionPolicy")
        for row in [
            ("deployer", f"logs:{verb}", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/curfew", {}, True),
            ("deployer", f"logs:{verb}", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/billing", {}, False),
        ]
    ],
    ("deployer", "s3:PutObject", "arn:aws:s3:::example-artifacts/curfew/0a1b", {}, True),
    ("deployer", "s3:PutObject", "arn:aws:s3:::example-artifacts/billing/0a1b", {}, False),
    ("deployer", "s3:PutBucketPolicy", "arn:aws:s3:::example-artifacts", {}, False),
    ("deployer", "cloudformation:TagResource", f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/curfew/1", {}, True),
    ("deployer", "cloudformation:TagResource", f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/network/1", {}, False),
    ("deployer", "scheduler:CreateSchedule", f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/curfew-warn", {}, True),
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
    *[
        row
        for verb in ("Put", "Delete")
        for row in [
            ("deployer", f"lambda:{verb}FunctionConcurrency", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew", {}, True),
            ("deployer", f"lambda:{verb}FunctionConcurrency", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing", {}, False),
        ]
    ],
    ("deployer", "ec2:StopInstances", INSTANCE, OURS, False),
]
SNAPSHOT = "arn:aws:ec2:eu-west-1::snapshot/snap-0abc12345678def00"
DELETE_AFTER = {"aws:TagKeys": ["curfew:delete-after"]}
DUE = OURS | {"aws:ResourceTag/curfew:delete-after": "2026-11-20T03:00:00Z"}
SNAPSHOTS = [
    *[
        (f"ec2:Describe{what}", "*", {}, True)
        for what in ("FastSnapshotRestores", "Images", "LockedSnapshots", "Regions", "Snapshots", "Volumes")
    ],
    ("ec2:DescribeSnapshotAttribute", SNAPSHOT, {}, True),
    ("ec2:DeleteSnapshot", SNAPSHOT, DUE, True),
    # Not marked, not ours, exempt.
    ("ec2:DeleteSnapshot", SNAPSHOT, OURS, False),
    ("ec2:DeleteSnapshot", SNAPSHOT, {key: value for key, value in DUE.items() if key not in OURS}, False),
    ("ec2:DeleteSnapshot", SNAPSHOT, DUE | {"aws:ResourceTag/curfew": "no"}, False),
    *[("ec2:DeleteSnapshot", SNAPSHOT, DUE | {"aws:ResourceTag/curfew:exempt": value}, False) for value in ("", "true", "2026-11-20")],
    *[
        row
        for verb in ("ec2:CreateTags", "ec2:DeleteTags")
        for row in [
            (verb, SNAPSHOT, OURS | DELETE_AFTER, True),
            (verb, SNAPSHOT, DELETE_AFTER, False),
            (verb, SNAPSHOT, OURS, False),
            (verb, SNAPSHOT, OURS | {"aws:TagKeys": ["curfew"]}, False),
            (verb, SNAPSHOT, OURS | {"aws:TagKeys": ["curfew:delete-after", "curfew:exempt"]}, False),
            # A mark is deleted, and not written over: it may be a person's.
            (verb, SNAPSHOT, DUE | DELETE_AFTER, verb == "ec2:DeleteTags"),
            (verb, INSTANCE, OURS | DELETE_AFTER, False),
            (verb, f"arn:aws:ec2:eu-west-1:{ACCOUNT}:volume/vol-0abc", OURS | DELETE_AFTER, False),
        ]
    ],
    # What only the role that switches instances may do, and what none may.
    *[(f"ec2:{verb}Instances", INSTANCE, OURS, False) for verb in ("Describe", "Start", "Stop", "Terminate")],
    ("ec2:DeleteVolume", f"arn:aws:ec2:eu-west-1:{ACCOUNT}:volume/vol-0abc", DUE, False),
    ("ec2:DeregisterImage", "arn:aws:ec2:eu-west-1::image/ami-0abc", DUE, False),
    ("ec2:ModifySnapshotAttribute", SNAPSHOT, DUE, False),
    ("ec2:UnlockSnapshot", SNAPSHOT, DUE, False),
    ("ec2:DisableFastSnapshotRestores", SNAPSHOT, DUE, False),
    ("ec2:CopySnapshot", SNAPSHOT, DUE, False),
    ("logs:PutLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/curfew-snapshots:log-stream:a", {}, True),
    ("logs:PutLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/curfew:log-stream:a", {}, False),
    ("sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-DeadLetters", {}, True),
    ("sqs:ReceiveMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:curfew-DeadLetters", {}, False),
]
OTHERS += [
    *[("snapshots-role", *row) for row in SNAPSHOTS],
    # And the other way round.
    *[
        (role, verb, SNAPSHOT, DUE | DELETE_AFTER, False)
        for role in ROLES
        for verb in ("ec2:DeleteSnapshot", "ec2:CreateTags", "ec2:DeleteTags", "ec2:DescribeSnapshots")
    ],
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-snapshots", {}, True),
    ("schedules-role", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:billing-snapshots", {}, False),
    ("deployer", "lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew-snapshots", {}, True),
    ("deployer", "logs:FilterLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/curfew-snapshots:log-stream:", {}, True),
    ("deployer", "rbin:ListRules", "*", {}, True),
    ("deployer", "rbin:GetRule", f"arn:aws:rbin:us-east-1:{ACCOUNT}:rule/a1b2c3d4", {}, True),
    ("deployer", "rbin:DeleteRule", "*", {}, False),
    ("deployer", "ec2:DeleteSnapshot", SNAPSHOT, DUE, False),
]
CASES = [(role, *row) for role in ROLES for row in SWITCHING] + OTHERS


@pytest.mark.parametrize(("role", "action", "resource", "context", "allowed"), CASES, ids=str)
def test_a_role_may_do_what_it_must_and_no_more(rendered, role, action, resource, context, allowed):
    asked = asking(f"arn:aws:iam::{ACCOUNT}:role/{role}", action, resource, context)
    its = DEPLOYERS if role == "deployer" else [role]
    assert evaluate(asked, [policy(rendered, it) for it in its]).decision == ("Allow" if allowed else "ImplicitDeny")


@pytest.mark.parametrize("document", [*DEPLOYERS, "deployer-boundary"])
def test_each_of_the_deployers_documents_can_be_a_managed_policy(tmp_path, document):
    """IAM's quota: 6,144 characters without blanks. With the longest name of a stack, and of a partition."""
    assert render(tmp_path, "RolePath: /platform/\n", STACK=LONGEST).returncode == 0
    text = (tmp_path / "policy" / f"{document}.json").read_text().replace("arn:aws:", "arn:aws-us-gov:")
    assert LONGEST in text or document == "deployer-boundary"
    assert len(re.sub(r"\s", "", text)) <= 6144


def asking(who: str, action: str, resource: str, context: dict) -> EvalContext:
    return EvalContext(
        principal_arn=who,
        principal_type="AssumedRole",
        principal_account=who.split(":")[4],
        action=action,
        resource_arn=resource,
        region="eu-west-1",
        service_context={"aws:tagkeys": None, "aws:principalarn": who} | {key.lower(): value for key, value in context.items()},
    )


def policy(rendered, name: str):
    return parse_policy_document((rendered / "policy" / f"{name}.json").read_text())


# ---- The organization's policies, and the key's ----------------------------------------------------------------------------------------


CURFEW = f"arn:aws:iam::{ACCOUNT}:role/curfew-ExecutionRole-1"
ORGANIZATION = f"arn:aws:iam::{ACCOUNT}:role/organization/curfew-organization-ExecutionRole-1"
DEPLOYER, TAGGER = f"arn:aws:iam::{ACCOUNT}:role/platform-deployer", "arn:aws:iam::444455556666:role/platform-tagger"
ORGANIZATION_DEPLOYER = f"arn:aws:iam::{ACCOUNT}:role/organization-deployer"
STACKSETS = "arn:aws:iam::444455556666:role/stacksets-exec-0a1b2c"
SOMEBODY = "arn:aws:iam::444455556666:role/admin"
BACKUP = "arn:aws:iam::444455556666:role/service-role/AWSBackupDefaultServiceRole"
SNAPSHOTS_ROLE = f"arn:aws:iam::{ACCOUNT}:role/curfew-SnapshotsRole-1"
EXEMPT = {"aws:ResourceTag/curfew:exempt": "true"}
FUNCTION = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:curfew"
GUARDED = [
    # who, action, resource, context, allowed
    *[
        row
        for action in ("lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration", "lambda:DeleteFunction", "lambda:AddPermission",
                       "lambda:PutFunctionConcurrency", "lambda:PutFunctionEventInvokeConfig", "lambda:UpdateAlias", "lambda:PublishVersion")
        for row in [
            (DEPLOYER, action, FUNCTION, {}, True),
            (SOMEBODY, action, FUNCTION, {}, False),
            (SOMEBODY, action, f"{FUNCTION}:live", {}, False),
            (CURFEW, action, FUNCTION, {}, False),
            (SOMEBODY, action, f"{FUNCTION}-of-another", {}, True),
            *[
                (who, action, f"{FUNCTION}-snapshots{qualifier}", {}, who == DEPLOYER)
                for who in (DEPLOYER, SOMEBODY, CURFEW, ORGANIZATION_DEPLOYER)
                for qualifier in ("", ":$LATEST")
            ],
            (ORGANIZATION_DEPLOYER, action, f"{FUNCTION}-organization", {}, True),
            (ORGANIZATION_DEPLOYER, action, FUNCTION, {}, False),
            (DEPLOYER, action, f"{FUNCTION}-organization", {}, False),
            (SOMEBODY, action, f"{FUNCTION}-organization:live", {}, False),
        ]
    ],
    (SOMEBODY, "lambda:InvokeFunction", FUNCTION, {}, True),
    *[
        row
        for action in ("iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRole", "iam:DeleteRolePermissionsBoundary", "iam:PassRole",
                       "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole")
        for row in [
            (DEPLOYER, action, CURFEW, {}, True),
            (STACKSETS, action, MEMBER, {}, True),
            (ORGANIZATION_DEPLOYER, action, ORGANIZATION, {}, True),
            (DEPLOYER, action, ORGANIZATION, {}, False),
            (DEPLOYER, action, MEMBER, {}, False),
            (SOMEBODY, action, MEMBER, {}, False),
            (SOMEBODY, action, CURFEW, {}, False),
            (SOMEBODY, action, "arn:aws:iam::444455556666:role/web", {}, True),
            # Whom the policy excepts: else whoever may make roles makes himself one of them.
            *[
                (who, action, role.replace(ACCOUNT, "444455556666"), {}, who == ORGANIZATION_DEPLOYER)
                for who in (ORGANIZATION_DEPLOYER, SOMEBODY, DEPLOYER, TAGGER)
                for role in (DEPLOYER, TAGGER, ORGANIZATION_DEPLOYER, "arn:aws:iam::444455556666:role/stacksets-exec-mine")
            ],
        ]
    ],
    (SOMEBODY, "iam:GetRole", MEMBER, {}, True),
    *[
        row
        for action in ("ec2:CreateTags", "ec2:DeleteTags")
        for row in [
            (CURFEW, action, INSTANCE, MARK, True),
            (MEMBER, action, INSTANCE, MARK, True),
            (ORGANIZATION, action, INSTANCE, MARK, True),
            (TAGGER, action, INSTANCE, MARK, False),
            (SOMEBODY, action, INSTANCE, MARK, False),
            (SOMEBODY, action, INSTANCE, {"aws:TagKeys": ["Name", "curfew:stopped-at"]}, False),
            *[
                row
                for key in ("curfew", "curfew:exempt", "curfew:hours")
                for row in [
                    (TAGGER, action, INSTANCE, {"aws:TagKeys": [key]}, True),
                    (SOMEBODY, action, INSTANCE, {"aws:TagKeys": [key]}, False),
                    (MEMBER, action, INSTANCE, {"aws:TagKeys": [key]}, False),
                ]
            ],
            (SOMEBODY, action, INSTANCE, {"aws:TagKeys": ["Name", "team"]}, True),
            *[
                (who, action, SNAPSHOT, DELETE_AFTER, who == SNAPSHOTS_ROLE)
                for who in (SNAPSHOTS_ROLE, SOMEBODY, TAGGER, BACKUP)
            ],
            *[
                (who, action, SNAPSHOT, EXEMPT | {"aws:TagKeys": ["curfew:exempt"]}, who == TAGGER)
                for who in (TAGGER, SOMEBODY, SNAPSHOTS_ROLE)
            ],
            (SOMEBODY, action, SNAPSHOT, {"aws:TagKeys": ["Name", "team"]}, True),
            (SOMEBODY, action, f"arn:aws:ec2:eu-west-1:{ACCOUNT}:volume/vol-0abc", {"aws:TagKeys": ["curfew"]}, True),
        ]
    ],
    # Without a key, it would delete all tags.
    (SOMEBODY, "ec2:DeleteTags", INSTANCE, {}, False),
    (TAGGER, "ec2:DeleteTags", INSTANCE, {}, False),
    (SOMEBODY, "ec2:DeleteTags", SNAPSHOT, {}, False),
    (SOMEBODY, "ec2:DeleteTags", SNAPSHOT, {"aws:TagKeys": ["curfew"]}, False),
    (TAGGER, "ec2:DeleteTags", SNAPSHOT, {"aws:TagKeys": ["curfew"]}, True),
    # A backup copies the tags of what it backs up, and fails if it may not.
    (BACKUP, "ec2:CreateTags", SNAPSHOT, {"aws:TagKeys": ["curfew", "curfew:exempt", "curfew:hours", "Name"]}, True),
    (SOMEBODY, "ec2:StopInstances", INSTANCE, {}, True),
]


@pytest.mark.parametrize(("who", "action", "resource", "context", "left"), GUARDED, ids=str)
def test_the_organizations_policy_keeps_others_off_and_leaves_open_what_curfew_its_deployer_and_taggers_need(
    rendered, who, action, resource, context, left
):
    everything = parse_policy_document('{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}')
    asked = asking(who, action, resource, context)
    assert evaluate(asked, [everything], [everything, policy(rendered, "scp")]).decision == ("Allow" if left else "Deny")


@pytest.mark.parametrize("role", [*ROLES, "execution-role-accounts", "snapshots-role"])
def test_the_organizations_policy_denies_nothing_that_curfews_roles_are_allowed(rendered, role):
    """With each action that the role's statements allow, on what they allow it on, as they allow it."""
    who = {"member-role": MEMBER, "snapshots-role": SNAPSHOTS_ROLE}.get(role, CURFEW)
    mark = DELETE_AFTER if role == "snapshots-role" else MARK
    for statement in json.loads((rendered / "policy" / f"{role}.json").read_text())["Statement"]:
        its_actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        for action in its_actions:
            resource = statement["Resource"].replace("*", "0") if isinstance(statement["Resource"], str) else statement["Resource"][0]
            asked = asking(who, action, resource, mark if "Tags" in action else {})
            assert evaluate(asked, [policy(rendered, "scp")]).decision == "ImplicitDeny", action


def test_the_organizations_policy_fits():
    """AWS Organizations quotas: 5,120 characters, including blanks, unless the console saves it."""
    assert len(json.dumps(json.loads((ROOT / "policy/scp.json").read_text()), separators=(",", ":"))) < 5120


def test_the_tag_policy_fixes_key_and_value_that_the_roles_ask_for(rendered):
    [(key, rule)] = json.loads((rendered / "policy/tag-policy.json").read_text())["tags"].items()
    asked = policy_condition(rendered, "execution-role", "SwitchOnlyWhatCarriesTheTag")["StringEquals"]
    assert asked == {f"aws:ResourceTag/{rule['tag_key']['@@assign']}": rule["tag_value"]["@@assign"][0]}
    assert key == rule["tag_key"]["@@assign"] and rule["enforced_for"] == {"@@assign": ["ec2:instance"]}


def policy_condition(rendered, name: str, sid: str) -> dict:
    statements = json.loads((rendered / "policy" / f"{name}.json").read_text())["Statement"]
    return next(it["Condition"] for it in statements if it["Sid"] == sid)


BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/platform/boundary"


@pytest.mark.parametrize("action", ["iam:CreateRole", "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary"])
@pytest.mark.parametrize(
    ("context", "bounded", "unbounded"),
    [
        ({"iam:PermissionsBoundary": BOUNDARY}, "Allow", "Allow"),
        ({"iam:PermissionsBoundary": f"{BOUNDARY}-of-another"}, "Deny", "Allow"),
        ({}, "Deny", "Allow"),
    ],
)
def test_a_deployer_that_is_to_bound_its_roles_can_make_and_change_no_other(rendered, action, context, bounded, unbounded):
    """The second document is optional; the first alone requires no boundary."""
    asked = asking(DEPLOYER, action, CURFEW, context)
    assert evaluate(asked, [policy(rendered, "deployer")]).decision == unbounded
    assert evaluate(asked, [policy(rendered, "deployer"), policy(rendered, "deployer-boundary")]).decision == bounded


def test_a_deployer_that_is_to_bound_its_roles_can_neither_take_the_boundary_off_nor_widen_it(rendered):
    both = [policy(rendered, "deployer"), policy(rendered, "deployer-boundary")]
    of_boundary = {"iam:PermissionsBoundary": BOUNDARY}
    assert evaluate(asking(DEPLOYER, "iam:DeleteRolePermissionsBoundary", CURFEW, of_boundary), both).decision == "Deny"
    everything = parse_policy_document('{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}')
    for action in ("iam:CreatePolicyVersion", "iam:SetDefaultPolicyVersion", "iam:DeletePolicy"):
        assert evaluate(asking(DEPLOYER, action, BOUNDARY, {}), [everything, *both]).decision == "Deny"


def test_where_the_roles_have_a_path_the_deployer_and_the_organizations_policy_mean_those(tmp_path):
    ended = render(tmp_path, "RolePath: /platform/")
    assert ended.returncode == 0, ended.stderr
    there = CURFEW.replace("role/", "role/platform/")
    for resource, made in ((there, "Allow"), (CURFEW, "ImplicitDeny")):
        assert evaluate(asking(DEPLOYER, "iam:CreateRole", resource, {}), [policy(tmp_path, "deployer")]).decision == made
    # Nor may the deployer change the organization's roles, whatever their path.
    for path in ("organization/", "platform/organization/"):
        for name in ("organization-ExecutionRole-1", "member", "ExecutionRole-1"):
            its = f"arn:aws:iam::{ACCOUNT}:role/{path}curfew-{name}"
            assert evaluate(asking(DEPLOYER, "iam:PutRolePolicy", its, {}), [policy(tmp_path, "deployer")]).decision == "Deny"
    guards = [policy(tmp_path, "scp")]
    assert evaluate(asking(SOMEBODY, "iam:PutRolePolicy", there, {}), guards).decision == "Deny"
    for who, decision in ((there, "ImplicitDeny"), (CURFEW, "Deny")):
        assert evaluate(asking(who, "ec2:CreateTags", INSTANCE, MARK), guards).decision == decision


@pytest.mark.parametrize(
    ("service", "action", "context", "allowed"),
    [
        ("cloudwatch.amazonaws.com", "kms:Decrypt", {"aws:SourceAccount": ACCOUNT}, True),
        ("cloudwatch.amazonaws.com", "kms:GenerateDataKey", {"aws:SourceAccount": ACCOUNT}, True),
        ("cloudwatch.amazonaws.com", "kms:Decrypt", {"aws:SourceAccount": "444455556666"}, False),
        ("cloudwatch.amazonaws.com", "kms:CreateGrant", {"aws:SourceAccount": ACCOUNT}, False),
        ("events.amazonaws.com", "kms:GenerateDataKey", {}, True),
        ("events.amazonaws.com", "kms:CreateGrant", {}, False),
        ("logs.us-east-1.amazonaws.com", "kms:GenerateDataKey", "/aws/lambda/curfew", True),
        ("logs.us-east-1.amazonaws.com", "kms:Decrypt", "/aws/vendedlogs/states/curfew-organization", True),
        ("logs.us-east-1.amazonaws.com", "kms:Decrypt", "/aws/lambda/curfew-organization", True),
        ("logs.us-east-1.amazonaws.com", "kms:Decrypt", "/aws/lambda/curfew-snapshots", True),
        ("logs.us-east-1.amazonaws.com", "kms:Decrypt", "/aws/lambda/billing", False),
        ("logs.us-east-1.amazonaws.com", "kms:Decrypt", {}, False),
        ("logs.eu-west-1.amazonaws.com", "kms:Decrypt", "/aws/lambda/curfew", False),
        ("sns.amazonaws.com", "kms:Decrypt", {}, False),
    ],
)
def test_the_keys_policy_admits_log_alarms_and_rules_and_no_other_service(rendered, service, action, context, allowed):
    if isinstance(context, str):
        context = {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{context}"}
    asked = asking("arn:aws:iam::999999999999:root", action, DATA_KEY, context)
    answer = evaluate_resource_policy((rendered / "policy/data-key-policy.json").read_text(), asked, service)
    assert answer.decision == ("Allow" if allowed else "ImplicitDeny")


@pytest.mark.parametrize("template", ["curfew", "organization"])
def test_the_keys_policy_admits_every_log_group_that_has_the_key(rendered, template):
    """CloudWatch Logs refuses a group whose key does not admit it, and the stack rolls back."""
    groups = [it["Properties"] for it in yaml_parse((rendered / f"{template}.yaml").read_text())["Resources"].values() if "LogGroup" in it["Type"]]
    assert len(groups) == 2
    stack = {"curfew": "curfew", "organization": "curfew-organization"}[template]
    for it in groups:
        assert it["KmsKeyId"] == {"Fn::If": ["HasDataKey", {"Ref": "DataKeyArn"}, {"Ref": "AWS::NoValue"}]}
        group = it["LogGroupName"]["Fn::Sub"].replace("${AWS::StackName}", stack)
        context = {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}"}
        asked = asking("arn:aws:iam::999999999999:root", "kms:Encrypt", DATA_KEY, context)
        answer = evaluate_resource_policy((rendered / "policy/data-key-policy.json").read_text(), asked, "logs.us-east-1.amazonaws.com")
        assert answer.decision == "Allow", group


def test_the_keys_policy_leaves_the_accounts_own_roles_to_the_accounts_policies(rendered):
    """Otherwise data-key.json would allow the function's role nothing."""
    for account, decision in ((ACCOUNT, "Allow"), ("444455556666", "ImplicitDeny")):
        asked = asking(f"arn:aws:iam::{account}:root", "kms:GenerateDataKey", DATA_KEY, {})
        assert evaluate_resource_policy((rendered / "policy/data-key-policy.json").read_text(), asked).decision == decision


# ---- The policies' texts ----------------------------------------------------------------------------------------------------


def actions(policy: str) -> set[str]:
    statements = json.loads((ROOT / "policy" / f"{policy}.json").read_text())["Statement"]
    return {action for it in statements for action in ([it["Action"]] if isinstance(it["Action"], str) else it["Action"])}


def test_what_the_function_may_do_and_never_does_stands_in_the_list_with_its_reason():
    """That it makes every call that it may make on EC2, and no other, is checked where it makes them: tests/it/world.rs."""
    ours, _, _ = (ROOT / "policy/README.md").read_text().partition("## For the organization")
    listed = re.findall(r"^\| (`[a-z]+:.*?) \| .+ \|$", ours, re.MULTILINE)
    reasoned = {action for row in listed for action in re.findall(r"`([^`]+)`", row)}
    allowed = actions("execution-role") | actions("execution-role-kms") | actions("execution-role-events") | actions("data-key") | actions("snapshots-role")
    assert {it for it in allowed if not it.startswith("ec2:")} == reasoned


def test_the_member_role_may_do_on_ec2_exactly_what_the_execution_role_may():
    on_ec2 = [
        [it for it in json.loads((ROOT / "policy" / f"{role}.json").read_text())["Statement"] if "ec2:" in str(it["Action"])]
        for role in ROLES
    ]
    assert on_ec2[0] == on_ec2[1]


# Findings that are known to be false: parliament expects each statement with StartInstances to name an instance, and those
# about executions to name Map runs and Express, too; a transform's account is "aws" (CloudFormation user guide, "Control
# access"); and the IAM user guide compares boundaries as strings.
KNOWN = {
    "execution-role": ["RESOURCE_MISMATCH"],
    "member-role": ["RESOURCE_MISMATCH"],
    "organization-role": ["RESOURCE_MISMATCH"] * 2,
    "deployer": ["INVALID_ARN"],
    "deployer-boundary": ["MISMATCHED_TYPE_BUT_USABLE"],
}
# Not policies of roles: trust and key policies name principals, which parliament isn't made for; a tag policy has its own
# language.
OF_NO_ROLE = {"member-role-trust", "data-key-policy", "tag-policy"}


@pytest.mark.parametrize("policy", sorted({path.stem for path in (ROOT / "policy").glob("*.json")} - OF_NO_ROLE))
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
        ("policy/scp.json", "iam:PassRole", "iam:PasRole"),
        ("policy/data-key-policy.json", "kms:Decrypt", "kms:Decript"),
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
