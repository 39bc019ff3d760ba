//! `curfew week` through its front door: the real tool against the simulated EC2.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use chrono::DateTime;
use ec2_sim::{Machine, Sim};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::*;

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("curfew-week-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, value: &Value) -> String {
        let file = self.0.join(name);
        std::fs::write(&file, value.to_string()).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `curfew week`, in Curfew's folder.
async fn run(sim: &Sim, args: &[&str], env: &[(&str, &str)]) -> Output {
    let url = sim.url();
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command.arg("week").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_clear();
    command.envs([("AWS_ENDPOINT_URL_EC2", url.as_str()), ("AWS_ENDPOINT_URL_STS", &url), ("AWS_REGION", "us-east-1")]);
    command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    command.envs(env.iter().copied()).output().await.unwrap()
}

/// Runs it, and returns what it printed.
async fn shown(sim: &Sim, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = run(sim, args, env).await;
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {text}\n{errors}");
    text
}

async fn json_of(sim: &Sim, args: &[&str]) -> Value {
    serde_json::from_str(&shown(sim, &[args, &["--json"]].concat(), &[]).await).unwrap()
}

fn hours_event() -> Value {
    json!({
        "action": "reconcile", "name": "office", "tags": {"curfew": "yes"}, "remember": true,
        "timezone": "America/New_York", "holidays": "US", "max_delay_minutes": 500_000,
        "hours": {
            "office": "Mo-Fr 08:00-19:00; PH off",
            "lab": "Mo-Fr 08:00-19:00; Sa 10:00-14:00; PH off",
            "support": ["Mo-Fr 06:00-22:00", "Sa,Su 10:00-16:00"],
            "by hand": {"open": "Mo-Fr 08:00-19:00", "start": false},
        },
    })
}

/// The fleet of README's picture.
fn fleet(sim: &Sim) {
    let launched = DateTime::parse_from_rfc3339("2026-08-20T12:00:00-04:00").unwrap().to_utc();
    let add = |name: &str, hours: &str| ours(name).tag("curfew:hours", hours).launched(launched);
    for n in 1..=12 {
        sim.add(add(&format!("web-{n}"), "office"));
    }
    sim.add(add("demo", "office").tag("curfew:exempt", "2026-09-05T14:00"));
    sim.add(add("lab", "lab"));
    sim.add(add("helpdesk", "support"));
    sim.add(add("batch-1", "Mo-Fr 22:00-06:00"));
    sim.add(add("batch-2", "Mo-Fr 22:00-06:00"));
    sim.add(add("crm", "Mon-Fri 8-19"));
}

/// The week before Labor Day, and that day.
const FROM: &str = "--from=2026-09-02";

/// Returns what a line of the JSON says of a moment: the state, and whether it runs.
fn at(line: &Value, moment: &str) -> (String, bool) {
    let moment = DateTime::parse_from_rfc3339(moment).unwrap();
    let time = |value: &Value| DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    let segments = line["segments"].as_array().unwrap();
    let of = segments.iter().find(|it| time(&it["from"]) <= moment && moment < time(&it["to"])).unwrap();
    (of["state"].as_str().unwrap().to_owned(), of["runs"].as_bool().unwrap())
}

fn row_of<'a>(week: &'a Value, name: &str) -> &'a Value {
    let rows = week["schedules"].as_array().unwrap().iter().flat_map(|schedule| schedule["rows"].as_array().unwrap());
    let is_in = |row: &&Value| row["instances"].as_array().unwrap().iter().any(|it| it["name"] == name);
    rows.clone().find(is_in).unwrap_or_else(|| panic!("{name} is missing in {week:#}"))
}

/// The local times at which a line begins to run, and ends, in its own offset.
fn runs(line: &Value) -> Vec<String> {
    let segments = line["segments"].as_array().unwrap().iter().filter(|it| it["runs"] == true);
    let time = |value: &Value| DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    segments.map(|it| format!("{}-{}", time(&it["from"]).format("%a %R"), time(&it["to"]).format("%a %R"))).collect()
}

#[tokio::test]
async fn the_week_in_a_terminal_a_narrow_one_a_pipe_and_without_colours() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    fleet(&sim);
    sim.add(ours("asg").tag("curfew:hours", "office").tag("aws:autoscaling:groupName", "shop"));
    sim.add(ours("old-1"));
    sim.add(ours("old-2"));
    let hours = folder.write("hours.json", &hours_event());
    let args = [&*hours, "infra/events/stop-7pm.json", "infra/events/start-8am.json", FROM];
    let narrow = shown(&sim, &args, &[("COLUMNS", "80")]).await;
    insta::assert_snapshot!("narrow", narrow);
    let pipe = shown(&sim, &args, &[]).await;
    insta::assert_snapshot!("pipe", pipe);
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    assert!(pipe.lines().all(|line| line.chars().count() <= 120), "{pipe}");

    let colours = shown(&sim, &args, &[("COLUMNS", "80"), ("CLICOLOR_FORCE", "1")]).await;
    assert!(colours.contains("\u{1b}[32m") && !narrow.contains('\u{1b}'), "{colours}");
    let no_colours = shown(&sim, &args, &[("COLUMNS", "80"), ("NO_COLOR", "1")]).await;
    assert_eq!(no_colours, narrow);
    // Nothing is done, nor asked about.
    let calls = sim.calls();
    assert!(!calls.is_empty());
    assert!(calls.iter().all(|it| ["DescribeInstances", "GetCallerIdentity"].contains(&&*it.action)), "{calls:#?}");
}

#[tokio::test]
async fn the_week_comes_as_it_was_shown() {
    let (mut world, folder) = (World::new().await, Folder::new());
    fleet(&world.sim);
    let launched = DateTime::parse_from_rfc3339("2026-08-20T12:00:00-04:00").unwrap();
    let add = |machine: Machine| world.sim.add(machine.launched(launched.to_utc()));
    add(ours("asg").tag("curfew:hours", "office").tag("aws:autoscaling:groupName", "shop"));
    add(ours("hand").tag("curfew:hours", "by hand"));
    add(ours("always").tag("curfew:hours", "24/7"));
    add(ours("forever").tag("curfew:hours", "office").tag("curfew:exempt", ""));
    add(ours("unclear").tag("curfew:hours", "office").tag("curfew:exempt", "tomorrow"));
    let event = hours_event();
    let from = DateTime::parse_from_rfc3339("2026-09-02T00:00:00-04:00").unwrap();
    world.sim.set_clock(from.to_utc());
    let week = json_of(&world.sim, &[&folder.write("hours.json", &event), FROM]).await;

    let mut switched = 0;
    for hour in 0..7 * 24 {
        let moment = from + chrono::TimeDelta::hours(hour);
        world.sim.set_clock(moment.to_utc());
        let told = world.invoke(with(event.clone(), json!({"scheduled_time": moment.to_rfc3339()}))).await;
        switched += told.report["summary"]["changed"].as_u64().unwrap();
        for machine in world.sim.machines() {
            let runs = matches!(machine.state.as_str(), "pending" | "running");
            let (state, shown) = at(row_of(&week, machine.name()), &moment.to_rfc3339());
            assert_eq!(runs, shown, "{} at {moment}: shown {state}, is {}", machine.name(), machine.state);
        }
    }
    assert!(switched > 100, "{switched}");
}

#[tokio::test]
async fn figures_are_sums_of_what_is_shown_and_each_instance_counts_once() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    fleet(&sim);
    let hours = folder.write("hours.json", &hours_event());
    // Twice the same, and a pair that leaves them to their hours.
    let again = folder.write("again.json", &with(hours_event(), json!({"name": "again"})));
    let week =
        json_of(&sim, &[&hours, &again, "infra/events/stop-7pm.json", "infra/events/start-8am.json", FROM]).await;
    let sum = |line: &Value| {
        let time = |value: &Value| DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
        let running = line["segments"].as_array().unwrap().iter().filter(|it| it["runs"] == true);
        running.map(|it| (time(&it["to"]) - time(&it["from"])).num_minutes()).sum::<i64>() as f64 / 60.0
    };
    let mut on = 0.0;
    for machine in sim.machines() {
        let row = row_of(&week, machine.name());
        assert_eq!(row["hours_on"].as_f64().unwrap(), sum(row), "{row:#}");
        on += sum(row);
    }
    assert_eq!(week["instances"], 18);
    assert_eq!(week["hours"], 18.0 * 168.0);
    assert_eq!(week["hours_on"], on);
    assert!((week["share_off"].as_f64().unwrap() - (1.0 - on / (18.0 * 168.0))).abs() < 0.0001, "{week:#}");
    // Four days of eleven hours: Labor Day is off.
    assert_eq!(row_of(&week, "web-1")["hours_on"], 44.0);
    assert_eq!(at(row_of(&week, "web-1"), "2026-09-07T09:00:00-04:00"), ("holiday".to_owned(), false));
    assert_eq!(at(row_of(&week, "web-1"), "2026-09-07T07:00:00-04:00"), ("off".to_owned(), false));
    assert_eq!(at(row_of(&week, "helpdesk"), "2026-09-07T09:00:00-04:00"), ("on".to_owned(), true));
    assert_eq!(at(row_of(&week, "demo"), "2026-09-05T13:59:59-04:00"), ("exempt".to_owned(), true));
    assert_eq!(at(row_of(&week, "demo"), "2026-09-05T14:00:00-04:00"), ("off".to_owned(), false));
    assert_eq!(row_of(&week, "crm")["reason"], "bad_tag");
}

#[tokio::test]
async fn weeks_of_clock_changes_have_days_of_23_and_25_hours() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let event = json!({
        "action": "reconcile", "tags": {"curfew": "yes"}, "timezone": "Europe/Berlin",
        "hours": {"days": "08:00-19:00", "always": "24/7", "nights": "Sa 22:00-06:00"},
    });
    let event = folder.write("hours.json", &event);
    for (from, sunday, week_hours, night) in [("2026-10-19", 25.0, 169.0, 9.0), ("2027-03-22", 23.0, 167.0, 7.0)] {
        let week = json_of(&sim, &[&event, "--from", from]).await;
        assert_eq!(week["days"][6]["hours"], sunday);
        assert_eq!(week["days"][5]["hours"], 24.0);
        let on = |name: &str| {
            let schedule = week["schedules"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
            schedule["hours_on"].as_f64().unwrap()
        };
        assert_eq!([on("always"), on("days"), on("nights")], [week_hours, 77.0, night]);
        let text = shown(&sim, &[&event, "--from", from], &[]).await;
        let days = text.lines().find(|line| line.starts_with("  (no instance)")).unwrap();
        assert_eq!(days.matches('█').count(), 7 * 12, "{text}");
    }
}

#[tokio::test]
async fn a_pair_is_shown_by_its_crons_as_eventbridge_reads_them() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    sim.add(ours("web"));
    // Weeks of long ago: in one to come it matters what runs now.
    let event = |action: &str, zone: &str| json!({"action": action, "name": "pair", "tags": {"curfew": "yes"}, "remember": true, "timezone": zone});
    let of = async |zone: &str, from: &str, stop: &str, start: &str| {
        let (one, other) =
            (folder.write("stop.json", &event("stop", zone)), folder.write("start.json", &event("start", zone)));
        runs(row_of(&json_of(&sim, &[&one, &other, "--cron", stop, "--cron", start, "--from", from]).await, "web"))
    };
    let workdays = [
        "Mon 08:00-Mon 19:00",
        "Tue 08:00-Tue 19:00",
        "Wed 08:00-Wed 19:00",
        "Thu 08:00-Thu 19:00",
        "Fri 08:00-Fri 19:00",
    ];
    // Sunday is 1: by numbers and by names.
    for days in ["MON-FRI", "2-6", "2,3,4,5,6", "mon-fri"] {
        let stop = format!("cron(0 19 ? * {days} *)");
        let found = of("UTC", "2020-11-23", &stop, &format!("cron(0 8 ? * {days} *)")).await;
        assert_eq!(found, workdays, "{days}");
    }
    // What the pair did the week before still holds.
    assert_eq!(
        of("UTC", "2020-11-23", "cron(0 19 ? * 4 *)", "cron(0 8 ? * 1 *)").await,
        ["Mon 00:00-Wed 19:00", "Sun 08:00-Mon 00:00"]
    );
    let starts = async |from: &str, start: &str| of("UTC", from, "cron(0 23 * * ? *)", start).await;
    // November's last Friday, its last day, its second Tuesday, the workday nearest to Sunday the 15th.
    assert_eq!(starts("2020-11-23", "cron(0 8 ? * 6L *)").await, ["Fri 08:00-Fri 23:00"]);
    assert_eq!(starts("2020-11-30", "cron(0 8 L * ? *)").await, ["Mon 08:00-Mon 23:00"]);
    assert_eq!(starts("2020-11-09", "cron(0 8 ? * 3#2 *)").await, ["Tue 08:00-Tue 23:00"]);
    assert_eq!(starts("2020-11-16", "cron(0 8 15W * ? *)").await, ["Mon 08:00-Mon 23:00"]);
    assert_eq!(starts("2020-11-23", "cron(0 8 ? * L *)").await, ["Sat 08:00-Sat 23:00"]);
    assert_eq!(starts("2020-11-23", "cron(0 8 * * ? 2027)").await, Vec::<String>::new());
    assert_eq!(starts("2020-11-23", "off").await, Vec::<String>::new());
    // A time that the clock change skips is skipped; one that it repeats counts once, the first time.
    let found = of("Europe/Berlin", "2021-03-27", "cron(0 23 * * ? *)", "cron(30 2 * * ? *)").await;
    assert_eq!(found[..2], ["Sat 02:30-Sat 23:00", "Mon 02:30-Mon 23:00"]);
    let (one, other) = (
        folder.write("stop.json", &event("stop", "Europe/Berlin")),
        folder.write("start.json", &event("start", "Europe/Berlin")),
    );
    let args = [&*one, &other, "--cron", "cron(0 23 * * ? *)", "--cron", "cron(30 2 * * ? *)", "--from", "2020-10-25"];
    let week = json_of(&sim, &args).await;
    assert_eq!(row_of(&week, "web")["segments"][1]["from"], "2020-10-25T02:30:00+02:00");
    // The shipped pair, by the shipped parameters.
    let shipped =
        json_of(&sim, &["infra/events/stop-7pm.json", "infra/events/start-8am.json", "--from", "2020-11-23"]).await;
    assert_eq!(runs(row_of(&shipped, "web")), workdays);
    assert_eq!(shipped["schedules"][0]["says"], "stop cron(0 19 ? * * *), start cron(0 8 ? * MON-FRI *)");
}

/// A Monday that no clock has reached: what runs now begins it.
const TO_COME: &str = "--from=2099-11-23";

/// Of each machine: how long it runs in that week, the reason, and why.
fn told_of(week: &Value, name: &str) -> (f64, Value, String) {
    let row = row_of(week, name);
    (row["hours_on"].as_f64().unwrap(), row["reason"].clone(), row["why"].as_str().unwrap_or_default().to_owned())
}

/// A machine that has been off for a day, with a mark or without.
fn off(name: &str, marked: bool) -> Machine {
    let day = chrono::TimeDelta::days(1);
    let machine = ours(name).launched(chrono::Utc::now() - day * 2).state("stopped");
    if !marked {
        return machine;
    }
    machine.tag("curfew:stopped-at", &(chrono::Utc::now() - day).to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

#[tokio::test]
async fn a_request_switches_only_what_it_selects() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    sim.add(ours("both").tag("auto", "yes"));
    sim.add(ours("stop-only"));
    sim.add(Machine::named("start-only").tag("auto", "yes"));
    sim.add(Machine::named("start-only-off").tag("auto", "yes").state("stopped"));
    let event = |action: &str, tags: Value| json!({"action": action, "name": "p", "tags": tags});
    let stop = folder.write("stop.json", &event("stop", json!({"curfew": "yes"})));
    let start = folder.write("start.json", &event("start", json!({"auto": "yes"})));
    let crons = ["--cron", "cron(0 19 ? * * *)", "--cron", "cron(0 8 ? * MON-FRI *)"];
    let week = json_of(&sim, &[&[&*stop, &start, TO_COME], &crons[..]].concat()).await;
    assert_eq!(told_of(&week, "both"), (55.0, Value::Null, String::new()));
    let never_started = "no start here selects it: it stays off until people start it";
    assert_eq!(told_of(&week, "stop-only"), (0.0, Value::Null, never_started.to_owned()));
    let never_stopped = "no stop here selects it: it runs until people stop it";
    for name in ["start-only", "start-only-off"] {
        assert_eq!(told_of(&week, name), (168.0, Value::Null, never_stopped.to_owned()), "{name}");
    }
    // Today it still runs, until the stop.
    let hour = (chrono::Utc::now() + chrono::TimeDelta::hours(2)).format("%-H").to_string();
    let soon = format!("cron(0 {hour} ? * * *)");
    let week = json_of(&sim, &[&stop, "--cron", &soon]).await;
    let (on, _, why) = told_of(&week, "stop-only");
    assert!((1.0..=2.0).contains(&on), "{week:#}");
    assert_eq!(why, never_started);
}

#[tokio::test]
async fn what_people_have_switched_is_foreseen_as_the_plan_has_it() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    sim.add(off("by-hand", false).tag("curfew:hours", "office"));
    sim.add(off("ours", true).tag("curfew:hours", "office"));
    sim.add(off("people", true).tag("curfew:hours", "people"));
    sim.add(ours("people-on").tag("curfew:hours", "people"));
    sim.add(off("plain-by-hand", false));
    sim.add(off("plain", true));
    let event = |remember: bool| {
        json!({
            "action": "reconcile", "tags": {"curfew": "yes"}, "remember": remember,
            "hours": {"office": "Mo-Fr 08:00-19:00", "people": {"open": "Mo-Fr 08:00-19:00", "start": false}},
        })
    };
    let hours = folder.write("hours.json", &event(true));
    let week = json_of(&sim, &[&hours, "infra/events/stop-7pm.json", "infra/events/start-8am.json", TO_COME]).await;
    let stays_off = "not stopped by Curfew: it stays off until people start it".to_owned();
    assert_eq!(told_of(&week, "by-hand"), (0.0, json!("stopped_since"), stays_off.clone()));
    assert_eq!(told_of(&week, "plain-by-hand"), (0.0, json!("not_marked"), stays_off));
    for name in ["ours", "plain"] {
        assert_eq!(told_of(&week, name), (55.0, Value::Null, String::new()), "{name}");
    }
    let by_people = "only people start it: its hours say \"start\": false".to_owned();
    for name in ["people", "people-on"] {
        assert_eq!(told_of(&week, name), (0.0, json!("as_scheduled"), by_people.clone()), "{name}");
    }
    // What a schedule says itself has nothing to do with what became of its instances.
    let on = |name: &str| {
        let of = |it: &&Value| it["name"] == name && it["by"] == "hours";
        week["schedules"].as_array().unwrap().iter().find(of).unwrap()["hours_on"].as_f64().unwrap()
    };
    assert_eq!([on("office"), on("people")], [55.0, 55.0]);
    // Without remember, an opening starts whatever is off.
    let week = json_of(&sim, &[&folder.write("all.json", &event(false)), TO_COME]).await;
    assert_eq!(told_of(&week, "by-hand"), (55.0, Value::Null, String::new()));
    let text = shown(&sim, &[&hours, TO_COME], &[("COLUMNS", "80")]).await;
    insta::assert_snapshot!("by_hand", text);
}

#[tokio::test]
async fn what_was_started_in_closed_hours_runs_until_they_close_next() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let now = chrono::Utc::now();
    let time = |hours: i64| (now + chrono::TimeDelta::hours(hours)).format("%H:00").to_string();
    // Closed for two hours or three, and open again in the same.
    let text = format!("{}-{}", time(4), time(-1));
    sim.add(ours("worked").launched(now).tag("curfew:hours", &text));
    sim.add(ours("forgotten").launched(now - chrono::TimeDelta::days(9)).tag("curfew:hours", &text));
    let event = json!({"action": "reconcile", "tags": {"curfew": "yes"}, "remember": true, "holidays": "DE"});
    let week = json_of(&sim, &[&folder.write("hours.json", &event)]).await;
    let soon = (now + chrono::TimeDelta::minutes(30)).to_rfc3339();
    assert_eq!(at(row_of(&week, "worked"), &soon), ("on".to_owned(), true));
    assert_eq!(told_of(&week, "worked").1, "started_since");
    assert_eq!(at(row_of(&week, "forgotten"), &soon), ("off".to_owned(), false));
    // What a mark tells of what is over: it was off, though its hours were open.
    let since = now - chrono::TimeDelta::minutes(30);
    let mark = format!("{} 7f3a9c12", since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    let launched = now - chrono::TimeDelta::days(2);
    let off = ours("off").launched(launched).state("stopped").tag("curfew:stopped-at", &mark);
    sim.add(off.tag("curfew:hours", &format!("{}-{}", time(-3), time(3))));
    let from = (since - chrono::TimeDelta::days(1)).format("%Y-%m-%d").to_string();
    let week = json_of(&sim, &[&folder.write("hours.json", &event), "--from", &from]).await;
    for (minutes, runs) in [(-40, true), (-20, false), (10, true)] {
        let moment = (now + chrono::TimeDelta::minutes(minutes)).to_rfc3339();
        assert_eq!(at(row_of(&week, "off"), &moment).1, runs, "{minutes}: {week:#}");
    }
}

#[tokio::test]
async fn hours_that_open_next_year_are_off_until_then_and_what_runs_is_not_stopped_before() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let event = json!({
        "action": "reconcile", "name": "yearly", "tags": {"curfew": "yes"},
        "hours": {"next year": "2027 Jan 04 08:00-10:00"},
    });
    let hours = folder.write("hours.json", &event);
    let ics = folder.file("week.ics");
    let args = [&*hours, "--from=2026-11-23"];
    let week = json_of(&sim, &args).await;
    assert_eq!(
        (&week["schedules"][0]["hours_on"], &week["schedules"][0]["segments"][0]["state"]),
        (&json!(0.0), &json!("off"))
    );
    shown(&sim, &[&args[..], &["--ics", &ics]].concat(), &[]).await;
    assert!(!std::fs::read_to_string(&ics).unwrap().contains("VEVENT"));
    sim.add(ours("web").tag("curfew:hours", "next year"));
    let (on, reason, _) = told_of(&json_of(&sim, &args).await, "web");
    assert_eq!((on, reason), (168.0, json!("started_since")));
}

#[tokio::test]
async fn a_week_in_words_is_short_whatever_day_it_begins_on() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let event = json!({
        "action": "reconcile", "tags": {"curfew": "yes"},
        "hours": {
            "days": "Mo-Fr 08:00-19:00", "every day": "08:00-19:00", "every night": "22:00-06:00",
            "week's nights": "Mo-Fr 22:00-06:00", "sunday's night": "Su 22:00-06:00", "always": "24/7",
        },
    });
    let event = folder.write("hours.json", &event);
    let mut said = String::new();
    for from in ["2026-11-23", "2026-11-26", "2026-11-29"] {
        let file = folder.file("week.html");
        shown(&sim, &[&event, "--from", from, "--html", &file], &[]).await;
        let page = std::fs::read_to_string(&file).unwrap();
        let texts = |from: &str, to: &str| -> Vec<String> {
            page.split(from).skip(1).map(|rest| rest.split(to).next().unwrap().to_owned()).collect()
        };
        for (name, line) in texts("<h2>", "</h2>").iter().zip(texts("<p class=\"says\">", "</p>")) {
            said += &format!("{from} {name}: {line}\n");
        }
    }
    insta::assert_snapshot!("in_words", said);
}

#[tokio::test]
async fn a_cron_that_is_off_never_fires_and_says_so() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let event = |action: &str| json!({"action": action, "name": "p", "tags": {"curfew": "yes"}});
    let files = ["stop", "start"].map(|action| folder.write(&format!("{action}.json"), &event(action)));
    let args = [&*files[0], &files[1], FROM, "--cron", "off", "--cron", "cron(0 8 ? * MON-FRI *)"];
    let week = json_of(&sim, &args).await;
    assert_eq!(week["schedules"][0]["says"], "never stops, start cron(0 8 ? * MON-FRI *)");
    assert_eq!(week["schedules"][0]["hours_on"], 168.0);
}

#[tokio::test]
async fn schedules_of_one_name_say_whose_they_are() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    sim.add(ours("web").tag("curfew:hours", ""));
    let event = |name: &str| json!({"action": "reconcile", "name": name, "tags": {"curfew": "yes"}, "hours": {"office": "Mo-Fr 08:00-19:00"}});
    let files = ["one", "other"].map(|name| folder.write(&format!("{name}.json"), &event(name)));
    let text = shown(&sim, &[&files[0], &files[1], FROM], &[]).await;
    for heading in ["\noffice (one)  Mo-Fr", "\noffice (other)  Mo-Fr", "\n(empty) (one)\n"] {
        assert!(text.contains(heading), "{heading:?} in {text}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let mut said = String::new();
    let stop = "infra/events/stop-7pm.json";
    for args in [
        &[stop, "--cron", "0 19 * * 1-5"][..],
        &[stop, "--cron", "cron(0 19 * * MON-FRI)"],
        &[stop, "--cron", "cron(0 19 * * MON-FRI *)"],
        &[stop, "--cron", "cron(0 19 ? * ? *)"],
        &[stop, "--cron", "cron(0 25 ? * MON-FRI *)"],
        &[stop, "--cron", "cron(60 19 ? * MON-FRI *)"],
        &[stop, "--cron", "cron(0 19 32 * ? *)"],
        &[stop, "--cron", "cron(0 19 ? 13 MON-FRI *)"],
        &[stop, "--cron", "cron(0 19 ? * MO-FR *)"],
        &[stop, "--cron", "cron(0 19 ? * MON-FRI 26)"],
        &[stop, "--cron", "rate(5 minutes)"],
        &[stop, "--cron", "off", "--cron", "off"],
        &[stop, "--parameters", "no-such-file.yaml"],
        &[stop, "--parameters", "Cargo.toml"],
        &[stop, "--from", "tomorrow"],
        &[stop, "--from", "26-11-23"],
        &[stop, "--from", "2026-02-29"],
        &[stop, "--html", "no-such-folder/week.html"],
    ] {
        let output = run(&sim, args, &[]).await;
        assert!(!output.status.success(), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        said += &format!("$ curfew week {}\n{}\n", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    insta::assert_snapshot!("wrong", said);
    assert!(!folder.0.join("week.html").exists());
}

#[tokio::test]
async fn a_region_that_does_not_answer_is_missing_and_said_to_be() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    fleet(&sim);
    sim.fault(ec2_sim::Fault::refuse("DescribeInstances", "UnauthorizedOperation", "You are not authorized."));
    let output =
        run(&sim, &[&folder.write("hours.json", &hours_event()), FROM, "--html", &folder.file("week.html")], &[]).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("us-east-1") && errors.contains("UnauthorizedOperation"), "{errors}");
    let page = std::fs::read_to_string(folder.file("week.html")).unwrap();
    assert!(page.contains("Not shown: account 123456789012 in us-east-1. UnauthorizedOperation"), "{page}");
    let hint = "help: looking takes the permissions in policy/read-only.json\n";
    assert!(errors.contains(hint), "{errors}");
    // That none is selected is not known.
    let output = run(&sim, &[&folder.write("hours.json", &hours_event()), FROM], &[]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("No instance could be seen: these are the schedules alone.\n"), "{text}");
    // Permissions are no cure for what breaks.
    sim.clear_faults();
    sim.fault(ec2_sim::Fault::refuse("DescribeInstances", "InvalidParameterValue", "No."));
    let output = run(&sim, &[&folder.write("hours.json", &hours_event()), FROM], &[]).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("InvalidParameterValue") && !errors.contains(hint), "{errors}");
}

#[tokio::test]
async fn five_thousand_instances_are_a_few_rows_and_none_are_the_schedules() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let hours = folder.write("hours.json", &hours_event());
    let none = shown(&sim, &[&hours, FROM], &[("COLUMNS", "80")]).await;
    insta::assert_snapshot!("none", none);
    sim.add_many(4_989, |n| ours(&format!("web-{n}")).tag("curfew:hours", "office"));
    sim.add_many(11, |n| ours(&format!("batch-{n}")).tag("curfew:hours", &format!("Mo-Fr {:02}:00-23:00", n + 1)));
    let begun = Instant::now();
    let text = shown(&sim, &[&hours, FROM], &[("COLUMNS", "80")]).await;
    assert!(text.contains("web-1 and 4,988 more"), "{text}");
    assert!(text.lines().count() < 60, "{text}");
    // Twenty times what it takes.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    let week = json_of(&sim, &[&hours, FROM]).await;
    assert_eq!(week["instances"], 5_000);
    let page = folder.file("week.html");
    shown(&sim, &[&hours, FROM, "--html", &page], &[]).await;
    assert!(std::fs::metadata(&page).unwrap().len() < 100_000, "a page that can be sent around");
}

#[tokio::test]
async fn what_strangers_write_into_tags_stays_text() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let name = "</style></title><script>alert(1)</script>\"'&\u{1b}[31m\u{202e}\u{7}";
    sim.add(ours(name).tag("curfew:hours", "<img src=x onerror=alert(2)>;\\,\n"));
    let hours = folder.write("hours.json", &hours_event());
    let files = ["week.html", "week.svg", "week.ics"].map(|name| folder.file(name));
    let args = [&*hours, FROM, "--html", &files[0], "--svg", &files[1], "--ics", &files[2]];
    shown(&sim, &args, &[]).await;
    let [page, picture, calendar] = files.map(|file| std::fs::read_to_string(file).unwrap());
    for text in [&page, &picture] {
        for word in ["<script", "<img", "\u{1b}", "\u{202e}", "\u{7}"] {
            assert!(!text.contains(word), "{word:?} in {text}");
        }
    }
    roxmltree::Document::parse(&picture).unwrap();
    assert!(calendar.lines().all(|line| !line.contains('\u{1b}')));
    let text = shown(&sim, &[&hours, FROM], &[]).await;
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
    // No script, nothing from elsewhere.
    for word in ["<script", "http://", "https://", "@import", "src="] {
        assert!(!page.replace("&lt;img src=", "").contains(word), "{word} in {page}");
    }
}

#[tokio::test]
async fn a_calendar_takes_each_period_of_each_schedule_once() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    let [stop, start, hours] = ["stop-7pm", "start-8am", "reconcile"].map(|name| format!("infra/events/{name}.json"));
    let uids = async |events: &[&str]| {
        let file = folder.file("week.ics");
        shown(&sim, &[events, &["--from", "2026-11-23", "--ics", &file]].concat(), &[]).await;
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().filter(|line| line.starts_with("UID:")).map(str::to_owned).collect::<Vec<_>>()
    };
    // The pair and the hours have one name, and begin at the same times.
    let all = uids(&[&stop, &start, &hours, &hours]).await;
    assert_eq!(all.len(), 10, "{all:?}");
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 10, "{all:?}");
    assert_eq!(uids(&[&hours]).await.iter().filter(|uid| all.contains(uid)).count(), 5, "they stay what they are");
}

/// `INSTA_UPDATE=always` writes it anew.
#[tokio::test]
async fn the_picture_in_the_readme_is_what_the_tool_draws() {
    let (sim, folder) = (Sim::start().await, Folder::new());
    fleet(&sim);
    let mut event = hours_event();
    event["hours"].as_object_mut().unwrap().remove("by hand");
    let file = folder.file("week.svg");
    shown(&sim, &[&folder.write("hours.json", &event), FROM, "--svg", &file], &[]).await;
    let drawn = std::fs::read(&file).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/week.svg");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&kept, &drawn).unwrap();
    }
    assert!(
        std::fs::read(&kept).unwrap_or_default() == drawn,
        "{} is another; INSTA_UPDATE=always draws it",
        kept.display()
    );
}
