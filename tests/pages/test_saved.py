"""`curfew saved` and `curfew suggest` against moto's Logs and CloudWatch, and the page of what was saved in a real browser."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from browser import browser, contrast, is_dark, opened, too_faint
from test_week import ROOT, STRANGE, TARGET

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
NOW = datetime.now(UTC).replace(microsecond=0)
NAMES = ["web-1", STRANGE, "w" * 200, "plain"]


def ident(n: int) -> str:
    return f"i-0ec2000000000{n + 1:04}"


def switched(n: int, at: datetime, to: str) -> dict:
    stop = to == "stopping"
    line = {
        "timestamp": at.isoformat().replace("+00:00", "Z"), "level": "INFO", "message": "switched", "id": ident(n), "name": NAMES[n],
        "account": "123456789012", "region": "us-east-1", "schedule": STRANGE if n == 3 else "office", "action": "stop" if stop else "start",
        "from": "running" if stop else "stopped", "to": to,
    }
    return line | ({"launched": (at - timedelta(hours=11)).isoformat().replace("+00:00", "Z")} if stop else {})


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    """moto, the simulated EC2, and the environment in which `curfew` finds both."""
    folder = tmp_path_factory.mktemp("saved")
    machines = [{"id": ident(n), "name": name, "kind": "m5.large"} for n, name in enumerate(NAMES)]
    (folder / "fleet.json").write_text(json.dumps({"machines": machines}))
    (folder / "prices.json").write_text(json.dumps({"prices": [{"region": "us-east-1", "type": "m5.large", "price": "0.096"}]}))
    serve = [TARGET / "debug/ec2-sim", "serve", "--fleet", folder / "fleet.json"]
    moto = [ROOT / ".venv/bin/moto_server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as sim, subprocess.Popen(moto, stderr=subprocess.PIPE, text=True) as aws:
        try:
            url = re.search(r"http://[\d.:]+", sim.stdout.readline()).group()
            for line in aws.stderr:
                if found := re.search(r"Running on (http://[\d.:]+)", line):
                    break
            env = KEYS | {"AWS_ENDPOINT_URL_EC2": url, "AWS_ENDPOINT_URL_STS": url, "AWS_ENDPOINT_URL": found.group(1), "HOME": str(folder)}
            yield folder, env
        finally:
            sim.terminate()
            aws.terminate()


def curfew(clouds, *args) -> dict:
    folder, env = clouds
    args = [TARGET / "debug/curfew", *args, "--json", "--prices", folder / "prices.json"]
    told = subprocess.run(args, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def client(clouds, service: str):
    env = clouds[1]
    return boto3.client(service, endpoint_url=env["AWS_ENDPOINT_URL"], region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")


@pytest.fixture(scope="module")
def saved(clouds):
    """The page and the figures of nine nights of thirteen hours, for four machines."""
    lines = []
    for night in range(10, 1, -1):
        begin = NOW - timedelta(days=night)
        for n in range(len(NAMES)):
            lines += [(begin, switched(n, begin, "stopping")), (begin + timedelta(hours=13), switched(n, begin + timedelta(hours=13), "running"))]
        lines.append((begin, {"timestamp": begin.isoformat(), "level": "INFO", "message": "office: metrics of a stop", "changed": 4}))
        lines.append((begin, switched(0, begin + timedelta(hours=1), "stopping") | {"dry_run": True}))
    logs = client(clouds, "logs")
    logs.create_log_group(logGroupName="/aws/lambda/curfew")
    logs.create_log_stream(logGroupName="/aws/lambda/curfew", logStreamName="a")
    events = [{"timestamp": int(at.timestamp() * 1000), "message": json.dumps(line)} for at, line in sorted(lines, key=lambda it: it[0])]
    logs.put_log_events(logGroupName="/aws/lambda/curfew", logStreamName="a", logEvents=events)
    return clouds[0], curfew(clouds, "saved", "--days", "14", "--html", "saved.html")


@pytest.fixture(scope="module")
def written(saved):
    return saved[0] / "saved.html"


def test_the_log_is_read_from_logs_that_we_did_not_write(saved):
    told = saved[1]
    # 4 × 9 × 13 h = 468 h; × $0.096 = $44.928
    assert (told["instances"], told["hours_off"], told["saved"]) == (4, 468.0, {"USD": "44.93"})
    assert [it["hours_off"] for it in told["schedules"]] == [117.0, 351.0]


def test_metrics_are_read_from_a_cloudwatch_that_we_did_not_write(clouds):
    cloudwatch = client(clouds, "cloudwatch")
    begin = (NOW - timedelta(days=14)).replace(minute=0, second=0)
    data = []
    for hour in range(14 * 24):
        at = begin + timedelta(hours=hour)
        busy = at.weekday() < 5 and 8 <= at.hour < 19
        for name, value in [("CPUUtilization", 40 if busy else 1), ("NetworkIn", 1e6), ("NetworkOut", 1e5)]:
            data.append({"MetricName": name, "Dimensions": [{"Name": "InstanceId", "Value": ident(0)}], "Timestamp": at, "Value": value})
    for some in range(0, len(data), 500):
        cloudwatch.put_metric_data(Namespace="AWS/EC2", MetricData=data[some : some + 500])
    told = curfew(clouds, "suggest")
    assert [(it["hours"], [one["name"] for one in it["instances"]]) for it in told["looks_idle"]] == [("Mo-Fr 08:00-19:00", ["web-1"])]
    assert len(told["too_new"]) == 3


def is_legible(page):
    assert too_faint(page, at_least=20) == []
    fill = lambda selector, what: page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}.match(/\\d+/g).map(Number)")
    assert contrast(fill(".chart .on", "fill"), fill("section", "backgroundColor")) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_legible(opened, scheme):
    page = opened(color_scheme=scheme)
    assert is_dark(page) == (scheme == "dark")
    is_legible(page)


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
def test_nothing_overflows_on_any_width(opened, width):
    page = opened(viewport={"width": width, "height": 844})
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    too_wide = "[...document.querySelectorAll('main *:not(svg *)')].filter(it => it.getBoundingClientRect().right > innerWidth).length"
    assert page.evaluate(too_wide) == 0
    # Cells don't overlap.
    for row in page.locator("tbody tr").all():
        cells = [it.bounding_box() for it in row.locator("th, td").all()]
        for one in cells:
            for other in cells:
                apart = one["x"] + one["width"] <= other["x"] + 0.5 or one["y"] + one["height"] <= other["y"] + 0.5
                assert one == other or apart or other["x"] + other["width"] <= one["x"] + 0.5 or other["y"] + other["height"] <= one["y"] + 0.5


def test_it_prints_black_on_white_whatever_the_theme(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    is_legible(page)
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) <= 2


def test_its_figures_are_those_of_json(opened, saved):
    page, told = opened(), saved[1]
    figures = page.eval_on_selector_all(".figures dd", "all => all.map(it => it.textContent)")
    assert figures == [f"${told['saved']['USD']}", f"{told['hours_off']:g} h", "4"]
    bars = page.eval_on_selector_all(".chart .on", "all => all.map(it => [Number(it.getAttribute('height')), it.textContent])")
    amounts = [float(day["saved"].get("USD", "0")) for day in told["days"]]
    assert [bar[0] for bar in bars] == pytest.approx([amount / max(amounts) * 160 for amount in amounts], abs=0.1)
    assert all(bar[1].endswith(f": ${amount:.2f}") for bar, amount in zip(bars, amounts))
    for section, schedule in zip(page.locator("section").all()[1:], told["schedules"]):
        assert section.locator("h2").inner_text() == schedule["name"]
        rows = section.locator("tbody tr").all()
        assert [row.locator(".sum").last.inner_text() for row in rows] == [f"${it['saved']['USD']}" for it in schedule["instances"]]


def test_it_needs_no_script_and_what_strangers_write_stays_text(opened):
    page = opened(java_script_enabled=False)
    assert page.get_by_text("Savings Plans and Reserved Instances are not in it").count() == 1
    assert page.get_by_role("img").get_attribute("aria-label").startswith("A bar for each day, the highest $")
    assert page.get_by_text(STRANGE).count() == 2
    assert page.locator("img, script").count() == 0
    assert page.title().startswith("Saved, ")


