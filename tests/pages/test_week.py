"""The week's page in a real browser, and its calendar in a real parser: `curfew week` against the simulated EC2."""

import json
import os
import re
import subprocess
from datetime import datetime
from pathlib import Path

import icalendar
import pytest
from browser import browser, contrast, is_dark, opened, too_faint

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
STRANGE = "</style><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp;"

HOURS = {
    "action": "reconcile", "name": "office", "tags": {"curfew": "yes"}, "remember": True, "timezone": "Europe/Berlin",
    "holidays": {"country": "DE", "add": ["2026-10-23"]},
    "hours": {
        "office": "Mo-Fr 08:00-19:00; PH off",
        "Mo, Do; \\neue Schicht – für Zürich mit einem Namen, der länger ist als eine Zeile im Kalender": "Mo-Su 22:00-06:00",
    },
}


def machine(name: str, hours: str | None = "office", **tags: str) -> dict:
    own = {"curfew:hours": hours} if hours else {}
    return {"name": name, "tags": {"curfew": "yes", **own, **tags}}


FLEET = {
    "machines": [
        machine("web") | {"count": 40},
        machine("demo", **{"curfew:exempt": "2026-10-22 14:00"}),
        machine("asg", **{"aws:autoscaling:groupName": "shop-" + "x" * 200}),
        machine(STRANGE),
        machine("w" * 200),
        machine("crm", "Mon-Fri 8-19"),
        machine("night", "Mo-Fr 22:00-06:00"),
        machine("old", None),
    ]
}


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """The page, the calendar and the figures of the week in which Berlin's clocks go back."""
    folder = tmp_path_factory.mktemp("week")
    (folder / "fleet.json").write_text(json.dumps(FLEET))
    (folder / "hours.json").write_text(json.dumps(HOURS))
    serve = [TARGET / "debug/ec2-sim", "serve", "--fleet", folder / "fleet.json"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as sim:
        try:
            url = re.search(r"http://[\d.:]+", sim.stdout.readline()).group()
            env = {"AWS_ENDPOINT_URL_EC2": url, "AWS_ENDPOINT_URL_STS": url, "AWS_REGION": "us-east-1"}
            env |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
            events = [folder / "hours.json", "infra/events/stop-7pm.json", "infra/events/start-8am.json"]
            files = ["--html", folder / "week.html", "--ics", folder / "week.ics"]
            args = [TARGET / "debug/curfew", "week", *events, "--from", "2026-10-19", "--json", *files]
            told = subprocess.run(args, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE)
        finally:
            sim.terminate()
    return folder, json.loads(told.stdout)


@pytest.fixture(scope="module")
def written(week):
    return week[0] / "week.html"


# Returns the colours of the bars and their background (WCAG 2.2, 1.4.11).
BARS = """() => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const of = (selector, what) => rgb(getComputedStyle(document.querySelector(selector))[what]);
  const track = of('.bar .track', 'fill');
  return [['on', of('.bar .on', 'fill'), track]].concat(
    ['holiday', 'exempt', 'left_alone', 'bad_tag'].map(kind => [kind, of('#' + kind + ' path', 'stroke'), track]));
}"""


def is_legible(page):
    assert too_faint(page, at_least=40) == []
    assert [it for it in page.evaluate(BARS) if contrast(it[1], it[2]) < 3] == []


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
    # Days are wide enough to be told apart, and their names don't overlap.
    assert page.evaluate("document.querySelector('.bar').getBoundingClientRect().width") > 250
    names = page.evaluate("[...document.querySelector('.axis').querySelectorAll('text')].map(it => it.getBoundingClientRect()).map(it => [it.left, it.right])")
    assert len(names) == 7
    assert all(one[1] < other[0] for one, other in zip(names, names[1:]))


def test_it_prints_on_few_pages_black_on_white_whatever_the_theme(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # Otherwise browsers leave out backgrounds to save ink.
    assert page.evaluate("getComputedStyle(document.querySelector('.bar')).printColorAdjust") == "exact"
    is_legible(page)
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF-")
    # Two pages, or three where fonts are wider.
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) in (2, 3)


def test_its_figures_are_those_of_json(opened, week):
    page, told = opened(), week[1]
    figures = page.eval_on_selector_all(".figures dd", "all => all.map(it => it.textContent)")
    assert figures == [f"{told['share_off']:.0%}", f"{told['hours_on']:,.0f}", f"{told['instances']:,}"]
    assert page.get_by_text(f"of {told['hours']:,.0f} hours on").count() == 1

    sections = page.locator("section").all()
    assert len(sections) == len(told["schedules"])
    total = sum((day["hours"] for day in told["days"]), 0.0)
    assert total == 169
    begin = time_of(told["from"])
    for section, schedule in zip(sections, told["schedules"]):
        assert section.locator("h2").inner_text() == schedule["name"]
        rows = section.locator("tbody tr").all()
        shown = schedule["rows"] or [schedule]
        assert len(rows) == len(shown)
        for row, line in zip(rows, shown):
            assert row.locator(".sum").inner_text() == f"{line['hours_on']:g} h"
            drawn = row.locator(".bar rect:not(.track)").all()
            segments = [it for it in line["segments"] if it["state"] != "off"]
            assert [it.get_attribute("class") for it in drawn] == [it["state"] for it in segments]
            for bar, segment in zip(drawn, segments):
                from_, to = [(time_of(segment[end]) - begin).total_seconds() / 3600 / total * 100 for end in ("from", "to")]
                assert float(bar.get_attribute("x").rstrip("%")) == pytest.approx(from_, abs=0.001)
                assert float(bar.get_attribute("width").rstrip("%")) == pytest.approx(to - from_, abs=0.001)
            if line.get("why"):
                assert row.locator(".why").inner_text() == line["why"]


def test_it_needs_no_script_no_colour_and_no_sight(opened):
    page = opened(java_script_enabled=False)
    office = page.get_by_role("row").filter(has_text=STRANGE)
    # Friday is a holiday that the event adds.
    assert "Mon–Thu 08:00–19:00; Fri public holiday" in office.inner_text()
    assert office.get_by_role("rowheader").inner_text().endswith("more")
    assert "bad tag all week" in page.get_by_role("row").filter(has_text="crm").inner_text()
    # Each bar's content is also written below it, and what differs by colour also differs by hatching.
    assert page.locator("svg:not([aria-hidden=true])").count() == 0
    assert page.locator(".says").count() == page.locator("tbody tr").count()
    assert len({page.locator(f"#{kind} path").get_attribute("d") for kind in ["holiday", "exempt", "left_alone", "bad_tag"]}) == 4


def test_what_strangers_write_stays_text(opened):
    page = opened()
    assert page.title() == "Running hours, 19 – 25 October 2026"
    assert page.get_by_text(STRANGE).count() == 1
    assert page.locator("img, script").count() == 0


def test_the_calendar_says_when_each_schedule_is_on(week):
    folder, told = week
    written = (folder / "week.ics").read_bytes()
    assert all(len(line) <= 75 for line in written.split(b"\r\n")) and b"\n" not in written.replace(b"\r\n", b"")
    # Checked in the text, because parsers tolerate unescaped characters.
    assert b"SUMMARY:Mo\\, Do\\; \\\\neue" in written
    calendar = icalendar.Calendar.from_ical(written)
    assert not calendar.errors and "PRODID" in calendar and calendar["VERSION"] == "2.0"
    events = calendar.walk("VEVENT")
    assert len({event["UID"] for event in events}) == len(events)
    assert all(not event.errors and "DTSTAMP" in event for event in events)
    of = lambda event: (str(event["SUMMARY"]), event.decoded("DTSTART"), event.decoded("DTEND"))
    wanted = [
        (f"{schedule['name']} on", time_of(it["from"]), time_of(it["to"]))
        for schedule in told["schedules"]
        for it in schedule["segments"]
        if it["state"] == "on"
    ]
    assert len(wanted) > 20
    assert [of(event) for event in events] == wanted
