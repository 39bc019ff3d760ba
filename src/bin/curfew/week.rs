//! `curfew week`: the coming week, schedule by schedule and instance by instance.
//!
//! - `forecast.rs` applies the function's own rule to an instance; `cron.rs` says when the function is invoked.
//! - `grid.rs` shows the week in the terminal, `page.rs` in a browser, `picture.rs` as a picture, `calendar.rs` in
//!   calendars.

mod calendar;
mod cron;
mod forecast;
mod grid;
mod page;
mod picture;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Days, MappedLocalTime, NaiveDate, NaiveTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;
use ec2_curfew::deadline::Deadline;
use ec2_curfew::instance::{Instance, to_utc};
use ec2_curfew::request::{Action, Regions, Request};
use ec2_curfew::targets::{Look, look};
use serde::Serialize;
use serde_json::{Value, json};

use crate::account::Account;
use crate::arguments;
use crate::events::{self, EventFile};
use crate::problem::{PERMISSIONS, Problem, is_denied};
use crate::terminal;
use cron::{Cron, Parameters};
use forecast::{Line, Period, Rule, Why};

const DAYS: u64 = 7;
/// How long looking may take: somebody is waiting, and 100,000 instances are read in less.
const LOOKING: Duration = Duration::from_secs(300);

/// Show the coming week: when each schedule and instance is on
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Event files; - is standard input. A stop and a start of the same name are a pair
    #[arg(required = true, value_name = "EVENT.json")]
    events: Vec<PathBuf>,
    /// The week's first day, like 2026-11-23 [default: today]
    #[arg(long, value_name = "DATE", value_parser = arguments::date)]
    from: Option<NaiveDate>,
    /// When a stop or start comes, in the event's time zone: once for each of them, in their order
    #[arg(long, value_name = "CRON")]
    cron: Vec<String>,
    /// Where StopAt, StartAt and Timezone say when stop and start come
    #[arg(long, value_name = "FILE", default_value = "infra/parameters.yaml", conflicts_with = "cron")]
    parameters: PathBuf,
    /// Write it as JSON
    #[arg(long)]
    json: bool,
    /// Write a page for browsers, phones and paper
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a picture (SVG)
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write when each schedule is on, for calendars (iCalendar)
    #[arg(long, value_name = "FILE")]
    ics: Option<PathBuf>,
    #[command(flatten)]
    account: Account,
}

/// A week, and everything that is known about it.
pub(crate) struct Week {
    /// Its time zone.
    pub(crate) zone: Tz,
    /// Its days.
    pub(crate) days: Vec<Day>,
    /// The schedules that switch instances in it.
    pub(crate) schedules: Vec<Schedule>,
    /// The accounts and regions that could not be looked at, and why.
    pub(crate) unseen: Vec<Unseen>,
    /// When EC2 was asked.
    pub(crate) asked: DateTime<Utc>,
}

/// A day, of 23 to 25 hours.
pub(crate) struct Day {
    /// Its date.
    pub(crate) date: NaiveDate,
    /// Its first moment.
    pub(crate) from: DateTime<Utc>,
    /// The next day's first moment.
    pub(crate) to: DateTime<Utc>,
}

/// Running hours, or the crons of a stop and a start, and the instances that they concern.
pub(crate) struct Schedule {
    /// The event's name.
    pub(crate) event: String,
    /// The event's file, if its hours switch.
    file: String,
    /// What switches: `hours` or `crons`.
    pub(crate) by: &'static str,
    /// The hours tag's value; for crons, the event's name.
    pub(crate) name: String,
    /// Its hours or crons, unless the name already says them.
    pub(crate) says: Option<String>,
    /// Whose it is, where others have one of that name: the event, or the file.
    pub(crate) whose: Option<String>,
    /// What it says itself, whatever becomes of instances.
    pub(crate) line: Line,
    /// The instances, grouped by their week: first those with an ordinary week, then the largest row first.
    pub(crate) rows: Vec<Row>,
}

/// Instances with the same week.
pub(crate) struct Row {
    /// Sorted by name.
    pub(crate) instances: Vec<Seen>,
    /// Their week.
    pub(crate) line: Line,
}

/// An instance, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Seen {
    /// Its name, if it has one.
    pub(crate) name: Option<String>,
    /// Its id.
    pub(crate) id: String,
    /// Its account.
    pub(crate) account: String,
    /// Its region.
    pub(crate) region: String,
}

/// An account and region that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unseen {
    /// The account.
    pub(crate) account: String,
    /// The region.
    pub(crate) region: String,
    /// EC2's error code, or ours.
    pub(crate) code: String,
    /// The error's message.
    pub(crate) message: String,
}

/// Stops and starts of one name.
#[derive(Default)]
struct Pair<'a> {
    /// Each with its place among the events and its cron.
    requests: Vec<(usize, &'a Request, Cron)>,
    /// Instances, and which of them select each.
    found: BTreeMap<Seen, (Instance, BTreeSet<usize>)>,
}

/// Instances that the same events select, and what these do to them.
type Selected<'a> = (Rule<'a>, Vec<(Seen, Instance)>);

/// The hours of all instances, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// How many instances.
    pub(crate) instances: usize,
    /// How long the week is for all of them together.
    pub(crate) all: TimeDelta,
    /// How long of this they run.
    pub(crate) on: TimeDelta,
}

/// Shows the week. The exit status is 1 if something could not be looked at.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    // Whole seconds, as EC2 has them.
    let now = Utc::now().trunc_subsecs(0);
    let files = events::read_all(&args.events, now)?;
    let crons = crons(&args, &files)?;
    let zone = zone(&files, &crons);
    let from = args.from.unwrap_or_else(|| now.with_timezone(&zone).date_naive());
    let days = days(from, zone).ok_or_else(|| Problem::new(format!("{from}: no week begins on that day")))?;

    let access = args.account.open(region(&files)).await?;
    let waiting = terminal::spinner("Looking at instances");
    let mut looks = Vec::new();
    for file in &files {
        looks.push(look(&file.request, &access.aws, &access.home, Deadline::within(LOOKING)).await);
    }
    waiting.finish_and_clear();
    let week = Week::of(&files, &crons, looks, days, zone, now);
    week.tell_unseen();

    for (file, show) in [
        (&args.html, page::page as fn(&Week) -> String),
        (&args.svg, picture::picture),
        (&args.ics, calendar::calendar),
    ] {
        if let Some(file) = file {
            write(file, &show(&week))?;
        }
    }
    if args.json {
        terminal::print(&format!("{:#}\n", week.json()))?;
    } else if [&args.html, &args.svg, &args.ics].iter().all(|file| file.is_none()) {
        terminal::print(&grid::grid(&week, terminal::width()))?;
    }
    Ok(if week.unseen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the region to use if none is configured: the first that an event names.
fn region(files: &[EventFile]) -> Option<&str> {
    files.iter().find_map(|file| match &file.request.regions {
        Regions::Named(names) => names.first().map(String::as_str),
        Regions::Own | Regions::All => None,
    })
}

fn write(file: &Path, text: &str) -> Result<(), Problem> {
    let name = file.display();
    std::fs::write(file, text).map_err(|error| Problem::new(format!("can't write {name}: {error}")))?;
    anstream::eprintln!("Wrote {name}");
    Ok(())
}

/// Returns each event's cron; none for a reconcile, which comes every five minutes.
fn crons(args: &Args, files: &[EventFile]) -> Result<Vec<Option<Cron>>, Problem> {
    let plain = files.iter().filter(|file| !file.request.is_about_hours()).count();
    if !args.cron.is_empty() && args.cron.len() != plain {
        let (given, wanted) = (args.cron.len(), plain);
        return Err(Problem::new(format!("--cron: {given} given, for {wanted} stops and starts"))
            .help("give it once for each of them, in their order"));
    }
    let mut given = args.cron.iter();
    let mut parameters = None;
    let mut cron = |file: &EventFile| {
        if file.request.is_about_hours() {
            return Ok(None);
        }
        if let Some(text) = given.next() {
            return Cron::parse(text, file.request.timezone).map(Some);
        }
        let parameters = match &mut parameters {
            Some(known) => known,
            none => none.insert(Parameters::read(&args.parameters)?),
        };
        let text = if file.request.action == Action::Start { &parameters.start } else { &parameters.stop };
        Cron::parse(text, parameters.zone).map(Some)
    };
    files.iter().map(&mut cron).collect()
}

/// Returns the week's time zone: the first other than UTC of the events, else of the crons.
fn zone(files: &[EventFile], crons: &[Option<Cron>]) -> Tz {
    let named = files.iter().map(|file| file.request.timezone).chain(crons.iter().flatten().map(Cron::zone));
    named.into_iter().find(|zone| *zone != Tz::UTC).unwrap_or(Tz::UTC)
}

fn days(from: NaiveDate, zone: Tz) -> Option<Vec<Day>> {
    let midnight = |n| {
        let date = from.checked_add_days(Days::new(n))?;
        Some((date, to_utc(date.and_time(NaiveTime::MIN), zone, MappedLocalTime::earliest)?))
    };
    let midnights: Option<Vec<_>> = (0..=DAYS).map(midnight).collect();
    Some(midnights?.windows(2).map(|two| Day { date: two[0].0, from: two[0].1, to: two[1].1 }).collect())
}

impl Week {
    fn of(
        files: &[EventFile],
        crons: &[Option<Cron>],
        looks: Vec<Vec<Look>>,
        days: Vec<Day>,
        zone: Tz,
        asked: DateTime<Utc>,
    ) -> Self {
        let mut week = Self { zone, days, schedules: Vec::new(), unseen: Vec::new(), asked };
        let looks: Vec<Vec<(Seen, Instance)>> = looks.into_iter().map(|looks| week.found(looks)).collect();
        // Told of once, with their hours.
        let about_hours = files.iter().zip(&looks).filter(|(file, _)| file.request.is_about_hours());
        let have_hours: BTreeSet<Seen> =
            about_hours.flat_map(|(_, found)| found.iter().map(|(seen, _)| seen.clone())).collect();
        let mut pairs: BTreeMap<&str, Pair<'_>> = BTreeMap::new();
        for (nth, ((file, cron), found)) in files.iter().zip(crons).zip(looks).enumerate() {
            let Some(cron) = cron else {
                week.hours(file, found);
                continue;
            };
            let pair = pairs.entry(&file.request.name).or_default();
            pair.requests.push((nth, &file.request, cron.clone()));
            for (seen, instance) in found.into_iter().filter(|(seen, _)| !have_hours.contains(seen)) {
                pair.found.entry(seen).or_insert_with(|| (instance, BTreeSet::new())).1.insert(nth);
            }
        }
        for (name, pair) in pairs {
            week.pair(name, pair);
        }
        week.name_whose(files);
        week
    }

    /// Adds stops and starts of one name.
    fn pair(&mut self, name: &str, Pair { mut requests, found }: Pair<'_>) {
        // The stop is asked first why it leaves something alone.
        requests.sort_by_key(|(_, request, _)| request.action == Action::Start);
        let says = requests.iter().map(|(_, request, cron)| {
            let zone = if cron.zone() == self.zone { String::new() } else { format!(" {}", cron.zone()) };
            match (request.action, cron.text.as_str()) {
                (Action::Start, "off") => "never starts".to_owned(),
                (_, "off") => "never stops".to_owned(),
                (action, text) => format!("{} {text}{zone}", action.as_str()),
            }
        });
        let says = says.collect::<Vec<_>>().join(", ");
        let rule = |of: &dyn Fn(usize) -> bool| {
            let those = requests.iter().filter(|(nth, ..)| of(*nth));
            Rule::Crons(those.map(|(_, request, cron)| (*request, cron.clone())).collect())
        };
        let mut by_events: BTreeMap<BTreeSet<usize>, Vec<(Seen, Instance)>> = BTreeMap::new();
        for (seen, (instance, events)) in found {
            by_events.entry(events).or_default().push((seen, instance));
        }
        let selected = by_events.into_iter().map(|(events, found)| (rule(&|nth| events.contains(&nth)), found));
        let selected = selected.collect();
        let Some(line) = rule(&|_| true).plain_line("", self.time()) else { return };
        self.schedule(name, "crons", name, Some(says), line, selected);
    }

    /// Says whose schedules are that have the same name.
    fn name_whose(&mut self, files: &[EventFile]) {
        let of_hours = || self.schedules.iter().filter(|it| it.by == "hours");
        let alike = |it: &Schedule| of_hours().filter(|other| other.name == it.name).count();
        let alike: Vec<bool> = self.schedules.iter().map(|it| it.by == "hours" && alike(it) > 1).collect();
        let is_unique = |event: &str| files.iter().filter(|file| file.request.name == event).count() == 1;
        let whose: Vec<Option<String>> = self
            .schedules
            .iter()
            .zip(alike)
            .map(|(it, alike)| alike.then(|| if is_unique(&it.event) { it.event.clone() } else { it.file.clone() }))
            .collect();
        for (schedule, whose) in self.schedules.iter_mut().zip(whose) {
            schedule.whose = whose;
        }
    }

    /// Takes what was found of instances, and notes where nobody could look.
    fn found(&mut self, looks: Vec<Look>) -> Vec<(Seen, Instance)> {
        let mut all = Vec::new();
        for Look { account, region, found } in looks {
            match found {
                Ok(instances) => all.extend(instances.into_iter().map(|instance| {
                    let name = instance.name().map(str::to_owned);
                    let (account, region) = (account.clone(), region.clone());
                    (Seen { name, id: instance.id.to_string(), account, region }, instance)
                })),
                Err(why) => {
                    let unseen = Unseen { account, region, code: why.code, message: why.message };
                    if !self.unseen.contains(&unseen) {
                        self.unseen.push(unseen);
                    }
                }
            }
        }
        all
    }

    /// Adds the schedules of a reconcile: those that the event names, then the other values of the hours tag.
    fn hours(&mut self, file: &EventFile, found: Vec<(Seen, Instance)>) {
        let request = &file.request;
        let mut by_tag: BTreeMap<String, Vec<(Seen, Instance)>> = BTreeMap::new();
        for (seen, instance) in found {
            let tag = instance.tags.get(&request.hours_tag).unwrap_or_default().to_owned();
            by_tag.entry(tag).or_default().push((seen, instance));
        }
        let named: Vec<&str> = request.schedules.named().map(|(name, _)| name).collect();
        let of_name = named.into_iter().map(|name| {
            let instances = by_tag.remove(name).unwrap_or_default();
            (name.to_owned(), file.written.get("hours").and_then(|hours| hours.get(name)).map(in_words), instances)
        });
        let of_name: Vec<_> = of_name.collect();
        let others = by_tag.into_iter().map(|(text, instances)| (text, None, instances));
        for (name, says, instances) in of_name.into_iter().chain(others) {
            let rule = Rule::Hours(request);
            let Some(line) = rule.plain_line(&name, self.time()) else { continue };
            self.schedule(&request.name, "hours", &name, says, line, vec![(rule, instances)]);
            if let Some(schedule) = self.schedules.last_mut() {
                schedule.file.clone_from(&file.name);
            }
        }
    }

    fn schedule(
        &mut self,
        event: &str,
        by: &'static str,
        name: &str,
        says: Option<String>,
        line: Line,
        selected: Vec<Selected<'_>>,
    ) {
        let mut rows: Vec<Row> = Vec::new();
        for (rule, found) in selected {
            let (seen, instances): (Vec<Seen>, Vec<Instance>) = found.into_iter().unzip();
            let mut lines: BTreeMap<String, Line> = BTreeMap::new();
            let classes = rule.classes(&instances, self.time());
            for ((class, instance), seen) in classes.into_iter().zip(&instances).zip(seen) {
                let line = lines.entry(class).or_insert_with(|| rule.line(instance, self.time()));
                match rows.iter_mut().find(|row| row.line == *line) {
                    Some(row) => row.instances.push(seen),
                    None => rows.push(Row { instances: vec![seen], line: line.clone() }),
                }
            }
        }
        for row in &mut rows {
            row.instances.sort_by_cached_key(|seen| (words::natural(seen.label()), seen.clone()));
        }
        // What the schedule says, and then what is special.
        rows.sort_by_key(|row| {
            (!row.line.looks_like(&line), std::cmp::Reverse(row.instances.len()), row.instances[0].clone())
        });
        let (event, name) = (event.to_owned(), name.to_owned());
        self.schedules.push(Schedule { event, file: String::new(), by, name, says, whose: None, line, rows });
    }

    /// Returns from when to when it is, and when EC2 was asked.
    fn time(&self) -> Period {
        let (from, to) = self.period();
        Period { from, to, now: self.asked }
    }

    /// Returns its first moment, and the first moment after it.
    pub(crate) fn period(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let from = self.days.first().map_or(DateTime::UNIX_EPOCH, |day| day.from);
        (from, self.days.last().map_or(from, |day| day.to))
    }

    /// Returns how long it is, which a change of the clocks makes an hour shorter or longer.
    pub(crate) fn length(&self) -> TimeDelta {
        let (from, to) = self.period();
        to - from
    }

    /// Returns the figures of all instances, each counted once.
    pub(crate) fn figures(&self) -> Figures {
        let mut counted = BTreeSet::new();
        let mut all = Figures::default();
        for row in self.schedules.iter().flat_map(|schedule| &schedule.rows) {
            let new = row.instances.iter().filter(|seen| counted.insert(*seen)).count();
            let times = i32::try_from(new).unwrap_or(i32::MAX);
            let all_of_it = Figures { instances: new, all: self.length() * times, on: row.line.on() * times };
            all = all.plus(all_of_it);
        }
        all
    }

    fn tell_unseen(&self) {
        for Unseen { account, region, code, message } in &self.unseen {
            anstream::eprintln!("warning: {account} {region} is missing here: {code}: {message}");
        }
        if self.unseen.iter().any(|unseen| is_denied(&unseen.code)) {
            anstream::eprintln!("help: {PERMISSIONS}");
        }
    }

    fn json(&self) -> Value {
        let local = |moment: DateTime<Utc>| moment.with_timezone(&self.zone).to_rfc3339();
        let figures = |figures: Figures| json!({ "hours_on": hours(figures.on), "share_off": figures.share_off() });
        let line = |line: &Line| {
            let segments = line
                .segments
                .iter()
                .map(|it| json!({ "from": local(it.from), "to": local(it.to), "state": it.state, "runs": it.runs }));
            let segments: Vec<Value> = segments.collect();
            let mut object = figures(Figures { instances: 1, all: self.length(), on: line.on() });
            object["segments"] = json!(segments);
            object
        };
        let row = |row: &Row| {
            let mut told = line(&row.line);
            told["instances"] = json!(row.instances);
            told["why"] = json!(words::why(self, &row.line));
            told["reason"] = json!(row.line.why.as_ref().and_then(Why::reason));
            told
        };
        let schedule = |it: &Schedule| {
            let mut object = line(&it.line);
            object["event"] = json!(it.event);
            object["by"] = json!(it.by);
            object["name"] = json!(it.name);
            object["says"] = json!(it.says);
            object["rows"] = it.rows.iter().map(row).collect();
            object
        };
        let days = self.days.iter().map(|day| json!({ "date": day.date, "hours": hours(day.to - day.from) }));
        let all = self.figures();
        let mut object = figures(all);
        object["from"] = json!(local(self.period().0));
        object["to"] = json!(local(self.period().1));
        object["timezone"] = json!(self.zone.name());
        object["days"] = days.collect();
        object["instances"] = json!(all.instances);
        object["hours"] = json!(hours(all.all));
        object["schedules"] = self.schedules.iter().map(schedule).collect();
        object["unseen"] = json!(self.unseen);
        object
    }
}

impl Seen {
    /// Returns its name, else its id.
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

impl Figures {
    /// Returns the sum of both.
    fn plus(self, other: Self) -> Self {
        let Self { instances, all, on } = other;
        Self { instances: self.instances + instances, all: self.all + all, on: self.on + on }
    }

    /// Returns the share of the time in which they are off, from 0 to 1; none without instances.
    pub(crate) fn share_off(&self) -> Option<f64> {
        let (all, on) = (self.all.as_seconds_f64(), self.on.as_seconds_f64());
        // Four decimals are plenty: people are shown whole percents.
        (all > 0.0).then(|| ((1.0 - on / all) * 10_000.0).round() / 10_000.0)
    }
}

/// Returns a duration in hours.
pub(crate) fn hours(time: TimeDelta) -> f64 {
    time.as_seconds_f64() / 3600.0
}

/// Returns an event's text for a schedule as people read it.
fn in_words(hours: &Value) -> String {
    let texts = |value: &Value| match value {
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        text => text.as_str().unwrap_or_default().to_owned(),
    };
    let Value::Object(fields) = hours else { return texts(hours) };
    let mut said = vec![texts(&fields["open"])];
    said.extend(fields.get("timezone").and_then(Value::as_str).map(str::to_owned));
    if fields.get("start") == Some(&Value::Bool(false)) {
        said.push("started by people only".to_owned());
    }
    said.join(", ")
}
