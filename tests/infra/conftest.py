"""A cloud on this machine: MiniStack, which deploys the template and really fires the schedules."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def until(what: str, seconds: float, look):
    """Calls `look` every second until it returns something, and returns that."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(1)
    return seen


class Cloud:
    """One MiniStack, and the deploying verbs pointed at it."""

    def __init__(self, folder: Path, **env: str):
        port = free_port()
        self.folder = folder
        self.root = ROOT
        self.url = f"http://127.0.0.1:{port}"
        self.env = os.environ | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "YES": "yes",
        }
        self.env.pop("AWS_PROFILE", None)
        server = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0", "TMPDIR": str(folder)}
        self.log = open(folder / "ministack.log", "wb")
        self.process = subprocess.Popen(
            [BIN / "ministack"], env=self.env | server | env, stdout=self.log, stderr=self.log, start_new_session=True
        )
        until("MiniStack answers", 60, self.answers)

    def answers(self) -> bool:
        with socket.socket() as it:
            return it.connect_ex(("127.0.0.1", int(self.url.rpartition(":")[2]))) == 0

    def end(self) -> None:
        # The process and the functions that it runs, all in a session of their own.
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)
        self.log.close()

    def client(self, service: str, region: str = "us-east-1"):
        return boto3.client(
            service, region, endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def verb(self, verb: str, *arguments: str, region: str = "us-east-1", parameters: dict | None = None, **env: str):
        """Runs `make` with a deploying verb, as a person does, but without building."""
        path = self.folder / f"{env.get('STACK', 'curfew')}.yaml"
        path.write_text(yaml.safe_dump({"Architecture": os.uname().machine.replace("aarch64", "arm64")} | (parameters or {})))
        return subprocess.run(
            ["make", "--silent", "--old-file=build", verb, f"PARAMETERS={path}", *arguments],
            cwd=self.root,
            env=self.env | {"AWS_DEFAULT_REGION": region, "CARGO_TARGET_DIR": str(TARGET)} | env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def lines(self, stack: str, region: str = "us-east-1") -> list[dict]:
        """The function's log, line by line."""
        logs = self.client("logs", region)
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/lambda/{stack}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        lines = [line for event in events for line in event["message"].splitlines()]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def reports(self, stack: str, region: str = "us-east-1") -> list[dict]:
        return [line for line in self.lines(stack, region) if "outcome" in line]


def left(cloud: Cloud, region: str = "us-east-1") -> dict[str, list]:
    """Returns what is left in the account after undeploying."""
    of = lambda service: cloud.client(service, region)  # noqa: E731
    buckets = [it["Name"] for it in of("s3").list_buckets()["Buckets"]]
    found = {
        "functions": of("lambda").list_functions()["Functions"],
        "schedules": of("scheduler").list_schedules()["Schedules"],
        "rules": of("events").list_rules()["Rules"],
        "roles": [it for it in of("iam").list_roles()["Roles"] if it["RoleName"].startswith("curfew")],
        "queues": of("sqs").list_queues().get("QueueUrls", []),
        "topics": of("sns").list_topics()["Topics"],
        "alarms": of("cloudwatch").describe_alarms()["MetricAlarms"],
        "dashboards": of("cloudwatch").list_dashboards()["DashboardEntries"],
        "logs": of("logs").describe_log_groups()["logGroups"],
        "zips": [it["Key"] for bucket in buckets for it in of("s3").list_objects_v2(Bucket=bucket).get("Contents", [])],
    }
    return {what: them for what, them in found.items() if them}


def without_stack_sets(folder: Path, accounts: list[str]) -> Path:
    """Returns a copy of the project that MiniStack, which knows no StackSets, can deploy: the accounts are in the event, as
    they may be anyway."""
    for part in ("infra", "policy"):
        shutil.copytree(ROOT / part, folder / part)
    (folder / "tests").mkdir()
    for it in ("Makefile", *(str(it.relative_to(ROOT)) for it in (ROOT / "tests").glob("requirements*.txt"))):
        shutil.copy2(ROOT / it, folder / it)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    event = folder / "infra/events/stop-7pm.json"
    event.write_text(json.dumps(json.loads(event.read_text()) | {"accounts": accounts}))
    template = folder / "infra/organization.yaml"
    text = re.sub(r"^  MemberRoles:.*?(?=^  \w)", "", template.read_text(), flags=re.MULTILINE | re.DOTALL)
    template.write_text(text)
    return folder


@pytest.fixture(scope="session")
def cloud(tmp_path_factory):
    it = Cloud(tmp_path_factory.mktemp("cloud"))
    yield it
    it.end()


@pytest.fixture(scope="module")
def ec2_sim(tmp_path_factory):
    """The URL of an EC2 that knows DryRun, with three instances of ours and one of somebody else's, all running."""
    fleet = tmp_path_factory.mktemp("fleet") / "fleet.json"
    machines = [{"name": "web", "count": 3, "tags": {"curfew": "yes"}}, {"name": "other", "count": 1}]
    fleet.write_text(json.dumps({"machines": machines}))
    sim = subprocess.Popen(
        [TARGET / "debug/ec2-sim", "serve", "--fleet", fleet], stdout=subprocess.PIPE, text=True
    )
    yield re.search(r"http://\S+?(?=;)", sim.stdout.readline())[0]
    sim.terminate()
    sim.wait(20)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """The folder with the templates and the policies, filled in."""
    folder = tmp_path_factory.mktemp("rendered")
    subprocess.run([sys.executable, ROOT / "infra/stack.py", "render", folder], check=True, cwd=ROOT)
    return folder
