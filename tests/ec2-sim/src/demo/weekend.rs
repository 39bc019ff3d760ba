//! A long weekend of ticks, on the simulated EC2's clock: who was switched when, and why.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use chrono::{DateTime, Datelike, FixedOffset, Month, NaiveDate, SecondsFormat, TimeDelta, Utc, Weekday};
use ec2_sim::{Fleet, Machine, Settings, Sim, StateReason};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::Instant;

use super::processes::{Data, Processes};
use super::report::{Report, Told};
use super::table::{self, Row, fold};
use super::{say, seconds};

/// The hours that the event is given, and what each of them shows.
const HOURS: [(&str, &str, &str); 3] = [
    ("office", "Mo-Fr 08:00-19:00; PH off", "not on public holidays"),
    ("lab", "Mo-Fr 08:00-19:00; Sa 10:00-14:00; PH off", "on Saturdays, too"),
    ("support", "Mo-Fr 08:00-19:00", "whatever holiday it is"),
];
/// A night shift's, which its instances carry themselves.
const NIGHTS: &str = "Mo-Fr 22:00-06:00";
/// New York's in summer, when the two holidays are.
const SUMMER_TIME: FixedOffset = FixedOffset::west_opt(4 * 60 * 60).expect("less than a day");
/// From Friday noon to Monday noon.
const HOURS_LONG: i64 = 3 * 24;
/// What became of an instance, where it was not switched.
const LEFT_ALONE: &str = "left alone";
const BAD_TAG: &str = "BAD TAG";
/// A year, the longest that Curfew takes: the weekend is one of the last nine months.
const MAX_DELAY_MINUTES: u32 = 365 * 24 * 60;

/// A weekend that ends in a public holiday of the USA.
#[derive(Debug, PartialEq, Eq)]
struct LongWeekend {
    /// What they call the Monday.
    holiday: &'static str,
    friday_noon: DateTime<FixedOffset>,
}

/// A line of the table, but for the names of others to which the same happened.
struct Entry {
    at: DateTime<FixedOffset>,
    name: String,
    what: &'static str,
    why: String,
}

/// The weekend as it goes by.
struct Weekend<'a> {
    sim: &'a Sim,
    processes: &'a mut Processes,
    event: Value,
    entries: Vec<Entry>,
    /// What was left alone, and why: each is told once.
    told: BTreeSet<(String, String)>,
    /// Ticks that changed nothing, and their calls to EC2.
    quiet: (usize, usize),
}

impl LongWeekend {
    /// Finds the last one that is over: a tick of the future would be taken for one of now, and one that is older than a
    /// year is refused.
    fn before(now: DateTime<Utc>) -> Option<Self> {
        let year = now.year();
        let days = [year, year - 1].into_iter().flat_map(|year| {
            let monday = |month: Month, nth| {
                NaiveDate::from_weekday_of_month_opt(year, month.number_from_month(), Weekday::Mon, nth)
            };
            let last_of_may = monday(Month::May, 5).or_else(|| monday(Month::May, 4));
            [("Labor Day", monday(Month::September, 1)), ("Memorial Day", last_of_may)]
        });
        let weekends = days.filter_map(|(holiday, monday)| {
            let noon = monday?.and_hms_opt(12, 0, 0)?.and_local_timezone(SUMMER_TIME).single()?;
            Some(Self { holiday, friday_noon: noon - TimeDelta::days(3) })
        });
        weekends.filter(|it| it.monday(13) < now).max_by_key(|it| it.friday_noon)
    }

    /// An hour of the holiday.
    fn monday(&self, hour: i64) -> DateTime<FixedOffset> {
        self.friday_noon + TimeDelta::hours(60 + hour)
    }

    /// An hour of Friday.
    fn friday(&self, hour: i64) -> DateTime<FixedOffset> {
        self.friday_noon + TimeDelta::hours(hour - 12)
    }

    /// The instances, as the week has left them.
    fn machines(&self) -> Vec<Machine> {
        let tagged = |name: &str, hours: &str| {
            Machine::named(name).tag("curfew", "yes").tag("curfew:hours", hours).launched(self.friday(-24).to_utc())
        };
        let numbered = |stem: &str, hours: &str, count: usize| -> Vec<Machine> {
            (1..=count).map(|n| tagged(&format!("{stem}-{n}"), hours)).collect()
        };
        let stopped_by_curfew = |machine: Machine| {
            let mut machine = machine.state("stopped").tag("curfew:stopped-at", &rfc3339(self.friday(6)));
            let code = "Client.UserInitiatedShutdown";
            machine.state_reason =
                Some(StateReason { code: code.into(), message: format!("{code}: User initiated shutdown") });
            machine
        };
        let saturday = self.friday(24 + 14).format("%Y-%m-%dT%H:%M").to_string();
        let mut machines = vec![tagged("crm", "Mon-Fri 8-19")];
        machines.extend(numbered("web", "office", 3));
        machines.push(tagged("demo", "office").tag("curfew:exempt", &saturday));
        machines.push(tagged("lab", "lab"));
        machines.push(tagged("helpdesk", "support"));
        machines.extend(numbered("batch", NIGHTS, 2).into_iter().map(stopped_by_curfew));
        machines
    }
}

/// Shows it.
///
/// # Errors
/// The function could not be invoked, or its reports and the simulated EC2 disagree.
pub(super) async fn show(file: &Path, sim: &Sim, processes: &mut Processes) -> Result<(), String> {
    let long = LongWeekend::before(Utc::now()).ok_or("this machine's clock is in no year that has weekends")?;
    let begun = Instant::now();
    let mut weekend =
        Weekend { sim, processes, event: event(file)?, entries: Vec::new(), told: BTreeSet::new(), quiet: (0, 0) };
    sim.set_clock(long.friday(11).to_utc());
    sim.load(Fleet { machines: long.machines(), faults: Vec::new(), settings: Settings::default() });

    say(&format!(
        "\nA weekend    cargo lambda invoke, hour by hour: Friday noon to noon of {}, {}\n\n  \
         {} in New York, with these hours:\n",
        long.holiday,
        long.monday(12).format("%-d %B %Y"),
        file.display(),
    ))?;
    for (name, hours, what) in HOURS {
        say(&format!("  {name:<9}{hours:<43}{what}"))?;
    }
    say("")?;

    let late_evening = long.friday(21) - TimeDelta::minutes(10);
    let mut hours_on = 0;
    for tick in 0..=HOURS_LONG {
        let at = long.friday_noon + TimeDelta::hours(tick);
        if at - late_evening == TimeDelta::minutes(10) {
            weekend.person_starts("lab", late_evening)?;
        }
        weekend.tick(at).await?;
        if tick < HOURS_LONG {
            hours_on += sim.machines().iter().filter(|machine| is_on(machine)).count();
        }
        if at == long.monday(8) {
            weekend.what_if_it_were_no_holiday(at, &long).await?;
        }
    }
    for line in table::lines(["WHEN", "NAME", "WHAT", "WHY"], &rows(&weekend.entries)) {
        say(&line)?;
    }
    let (quiet, calls) = weekend.quiet;
    let (ticks, instances) = (HOURS_LONG + 1, sim.machines().len());
    say(&format!(
        "\n  {ticks} ticks in {}: {quiet} of them had nothing to do, and made {calls} calls to EC2, to look and no more.\n  \
         The {instances} instances ran {hours_on} of {} hours.",
        seconds(begun.elapsed()),
        instances as i64 * HOURS_LONG,
    ))
}

/// Writes the week of the weekend as a page, with the tool that only looks.
///
/// # Errors
/// The tool could not be run, or could not write it.
pub(super) async fn page(file: &Path, sim: &Sim, curfew: &Path, page: &Path) -> Result<(), String> {
    let long = LongWeekend::before(Utc::now()).ok_or("this machine's clock is in no year that has weekends")?;
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", curfew.display());
    // As on Friday noon: afterwards nobody sees that what was exempt has run.
    sim.load(Fleet { machines: long.machines(), faults: Vec::new(), settings: Settings::default() });
    let url = sim.url();
    let mut command = Command::new(curfew);
    command.args(["week", "-", "--from", &long.friday(0).format("%Y-%m-%d").to_string(), "--html"]).arg(page);
    // Nobody's account.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs([("AWS_ENDPOINT_URL_EC2", url.as_str()), ("AWS_ENDPOINT_URL_STS", &url), ("AWS_REGION", "us-east-1")]);
    command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| told(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(event(file)?.to_string().as_bytes()).await.map_err(|error| told(&error))?;
    }
    let output = child.wait_with_output().await.map_err(|error| told(&error))?;
    if !output.status.success() {
        return Err(told(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    say(&format!("\n  That week as a page to send around, by curfew week --html: {}", page.display()))
}

/// Reads the event that is shipped, and gives it what the weekend is to show.
fn event(file: &Path) -> Result<Value, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let bytes = std::fs::read(file).map_err(|error| told(&error))?;
    let mut event: Value = serde_json::from_slice(&bytes).map_err(|error| told(&error))?;
    let fields = event.as_object_mut().ok_or_else(|| told(&"no JSON object"))?;
    let hours: Value = HOURS.map(|(name, hours, _)| (name, hours)).into_iter().collect();
    fields.extend([
        ("hours".to_owned(), hours),
        ("timezone".to_owned(), json!("America/New_York")),
        ("holidays".to_owned(), json!("US")),
        ("max_delay_minutes".to_owned(), json!(MAX_DELAY_MINUTES)),
    ]);
    Ok(event)
}

impl Weekend<'_> {
    /// Lets it tick once, and notes who was switched.
    async fn tick(&mut self, at: DateTime<FixedOffset>) -> Result<(), String> {
        self.sim.set_clock(at.to_utc());
        self.sim.forget_calls();
        let before = self.sim.machines();
        let report = self.invoke(&self.event.clone(), at).await?;
        let now = self.sim.machines();
        let mut told = report.told();
        let mut outcomes = Vec::new();
        for (before, now) in before.iter().zip(&now) {
            let told = told.remove(&now.id);
            let outcome = outcome(at, before, now, told.as_ref()).map_err(|lie| disagree(at, &lie, &report))?;
            outcomes.extend(outcome.map(|(what, why)| (what, why, now)));
        }
        if let Some(id) = told.keys().next() {
            return Err(disagree(at, &format!("there is no {id}"), &report));
        }
        let is_switched = |what: &str| ![LEFT_ALONE, BAD_TAG].contains(&what);
        outcomes.sort_by_key(|(what, ..)| !is_switched(what));
        for (what, why, machine) in outcomes {
            if is_switched(what) || self.told.insert((machine.id.clone(), why.clone())) {
                self.note(at, machine, what, why);
            }
        }
        if report.summary.changed == 0 {
            let calls = self.sim.calls();
            if let Some(call) = calls.iter().find(|call| call.action != "DescribeInstances") {
                return Err(disagree(at, &format!("it called {}", call.action), &report));
            }
            self.quiet = (self.quiet.0 + 1, self.quiet.1 + calls.len());
        }
        Ok(())
    }

    /// Switches an instance on as a person would, between two ticks.
    fn person_starts(&mut self, name: &str, at: DateTime<FixedOffset>) -> Result<(), String> {
        self.sim.set_clock(at.to_utc());
        if self.sim.state(name) != "stopped" {
            return Err(format!(
                "{name} is not off at {}, so there is nothing for a person to start",
                at.format("%a %R")
            ));
        }
        self.sim.switch_on(name);
        self.note(at, &self.sim.machine(name), "started", "by a person, who works late".to_owned());
        Ok(())
    }

    /// Rehearses a tick as if the holiday were a working day: who would be started stays off because of it.
    async fn what_if_it_were_no_holiday(
        &mut self,
        at: DateTime<FixedOffset>,
        long: &LongWeekend,
    ) -> Result<(), String> {
        let mut event = self.event.clone();
        event["holidays"] = json!({ "country": "US", "except": [at.format("%Y-%m-%d").to_string()] });
        event["dry_run"] = json!(true);
        let told = self.invoke(&event, at).await?.told();
        for machine in self.sim.machines() {
            if told.get(&machine.id) == Some(&Told::WouldChange) && !is_on(&machine) {
                let why = format!("{}: on another Monday they would start", long.holiday);
                self.note(at, &machine, "stays off", why);
            }
        }
        Ok(())
    }

    async fn invoke(&mut self, event: &Value, at: DateTime<FixedOffset>) -> Result<Report, String> {
        let mut event = event.clone();
        event["scheduled_time"] = json!(rfc3339(at));
        let ended = self.processes.invoke(Data::Text(&event.to_string())).await?;
        let report = self.processes.report(&ended).await?;
        let lie = ended.disagreement(&report).or_else(|| {
            (report.outcome != "complete")
                .then(|| format!("nothing is in its way, and its outcome is {}", report.outcome))
        });
        match lie {
            Some(lie) => Err(disagree(at, &lie, &report)),
            None => Ok(report),
        }
    }

    fn note(&mut self, at: DateTime<FixedOffset>, machine: &Machine, what: &'static str, why: String) {
        self.entries.push(Entry { at, name: machine.name().to_owned(), what, why });
    }
}

fn disagree(at: DateTime<FixedOffset>, lie: &str, report: &Report) -> String {
    let when = at.format("%a %R");
    format!("THE REPORT AND THE SIMULATED EC2 DISAGREE, {when}:\n  {lie}\nThe report says: {}", report.message)
}

/// Tells what a tick did to an instance, and why; nothing, if the report told nothing and nothing was done.
///
/// # Errors
/// What the report told is not what was done.
fn outcome(
    at: DateTime<FixedOffset>,
    before: &Machine,
    now: &Machine,
    told: Option<&Told>,
) -> Result<Option<(&'static str, String)>, String> {
    match (is_on(before), is_on(now), told) {
        (true, false, Some(Told::Changed { .. })) => Ok(Some(("stopped", closing(now, at)))),
        (false, true, Some(Told::Changed { .. })) => Ok(Some(("started", opening(now)))),
        (on, still_on, Some(Told::Skipped { reason, until, message })) if on == still_on => {
            let what = if reason == "bad_tag" { BAD_TAG } else { LEFT_ALONE };
            Ok(Some((what, left(reason, until.as_deref(), message.as_deref(), now))))
        }
        (on, still_on, None) if on == still_on => Ok(None),
        _ => Err(format!("{} was {} and is {}, and told of it was {told:?}", now.name(), before.state, now.state)),
    }
}

fn is_on(machine: &Machine) -> bool {
    matches!(machine.state.as_str(), "pending" | "running")
}

/// Tells by an instance's tags why it is time to stop it.
fn closing(machine: &Machine, at: DateTime<FixedOffset>) -> String {
    let hour = at.format("%Y-%m-%dT%H:%M").to_string();
    match (machine.tags.get("curfew:exempt"), hours_of(machine)) {
        (Some(until), (name, _)) if *until == hour => format!("its exemption ends, and {name} is closed"),
        (_, (name, true)) => format!("{name} closes"),
        (_, (text, false)) => format!("its own tag says {text:?}"),
    }
}

/// Tells by an instance's tags why it is time to start it.
fn opening(machine: &Machine) -> String {
    match hours_of(machine) {
        (name, true) => format!("{name} opens"),
        (text, false) => format!("its own tag says {text:?}"),
    }
}

/// What its tag with the hours says, and whether that is a name.
fn hours_of(machine: &Machine) -> (&str, bool) {
    let text = machine.tags.get("curfew:hours").map_or("", String::as_str);
    (text, HOURS.iter().any(|(name, ..)| *name == text))
}

/// Says in plain words why the report left an instance alone.
fn left(reason: &str, until: Option<&str>, message: Option<&str>, machine: &Machine) -> String {
    let local = |at: DateTime<Utc>| at.with_timezone(&SUMMER_TIME);
    let until = until.and_then(|until| DateTime::parse_from_rfc3339(until).ok());
    match (reason, until, message) {
        ("exempt", Some(until), _) => format!("exempt until {}", local(until.to_utc()).format("%A %R")),
        ("started_since", ..) => {
            let since = local(machine.launch_time).format("%R");
            format!("started by a person at {since}: on until next closing")
        }
        (_, _, Some(message)) => message.to_owned(),
        (reason, _, None) => reason.to_owned(),
    }
}

/// Makes the table's rows: to whom the same happened at the same time on one.
fn rows(entries: &[Entry]) -> Vec<Row<4>> {
    let mut groups: Vec<(&Entry, Vec<&str>)> = Vec::new();
    for entry in entries {
        let same = |(other, _): &&mut (&Entry, Vec<&str>)| {
            (other.at, other.what, &other.why) == (entry.at, entry.what, &entry.why)
        };
        match groups.iter_mut().find(same) {
            Some((_, names)) => names.push(&entry.name),
            None => groups.push((entry, vec![&entry.name])),
        }
    }
    let row = |(entry, names): (&Entry, Vec<&str>)| Row {
        trouble: entry.what == BAD_TAG,
        cells: [entry.at.format("%a %R").to_string(), fold(&names), entry.what.to_owned(), entry.why.clone()],
        note: String::new(),
    };
    groups.into_iter().map(row).collect()
}

fn rfc3339(at: DateTime<FixedOffset>) -> String {
    at.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(moment: &str) -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339(moment).expect("a time")
    }

    #[test]
    fn the_last_long_weekend_is_over_and_less_than_a_year_ago() {
        for (now, holiday, friday) in [
            ("2026-11-26T09:00:00-05:00", "Labor Day", "2026-09-04T12:00:00-04:00"),
            ("2026-09-07T12:30:00-04:00", "Memorial Day", "2026-05-22T12:00:00-04:00"),
            ("2026-09-07T13:30:00-04:00", "Labor Day", "2026-09-04T12:00:00-04:00"),
            ("2027-02-01T00:00:00-05:00", "Labor Day", "2026-09-04T12:00:00-04:00"),
            // A Monday that is the fifth, and one that isn't.
            ("2027-06-15T00:00:00-04:00", "Memorial Day", "2027-05-28T12:00:00-04:00"),
            ("2028-06-15T00:00:00-04:00", "Memorial Day", "2028-05-26T12:00:00-04:00"),
        ] {
            let found = LongWeekend::before(at(now).to_utc());
            assert_eq!(found, Some(LongWeekend { holiday, friday_noon: at(friday) }), "{now}");
        }
        let monday = at("2026-09-07T08:00:00-04:00");
        assert_eq!(LongWeekend::before(monday.to_utc() + TimeDelta::days(1)).map(|it| it.monday(8)), Some(monday));
    }

    #[test]
    fn what_was_told_and_was_not_done_is_not_shown_nor_what_was_done_and_not_told() {
        let changed = Told::Changed { from: "running".into(), to: "stopping".into() };
        let exempt = Told::Skipped { reason: "exempt".into(), until: None, message: None };
        let at = at("2026-09-04T19:00:00-04:00");
        for (is_true, before, now, told) in [
            (true, "running", "stopping", Some(&changed)),
            (true, "stopped", "running", Some(&changed)),
            (true, "running", "running", Some(&exempt)),
            (true, "stopped", "stopped", None),
            (false, "running", "running", Some(&changed)),
            (false, "running", "stopping", Some(&exempt)),
            (false, "running", "stopping", None),
            (false, "stopped", "pending", None),
            (false, "running", "running", Some(&Told::WouldChange)),
        ] {
            let [before, now] = [before, now].map(|state| Machine::named("web").state(state));
            assert_eq!(outcome(at, &before, &now, told).is_ok(), is_true, "{before:?} {now:?} {told:?}");
        }
    }
}
