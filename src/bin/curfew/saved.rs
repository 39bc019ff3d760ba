//! `curfew saved`: how long Curfew kept instances off, and what that would have cost.
//!
//! - `log.rs` reads the function's log, and `periods.rs` finds in it how long each instance was off.
//! - `billed.rs` asks Cost Explorer what was billed.
//! - `page.rs` shows it in a browser.

mod billed;
mod log;
mod page;
mod periods;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc};
use ec2_curfew::deadline::Deadline;
use ec2_curfew::ec2::{Aws, Billing, Error};
use serde_json::{Value, json};

use crate::account::{Access, Account};
use crate::arguments;
use crate::aws_json::{Client, LOGS};
use crate::money::{Amounts, Money, Price, sum, written};
use crate::prices::{Key, Prices};
use crate::problem::{Problem, is_denied};
use crate::takeover::refused;
use crate::terminal::{self, Cell, FAINT, HEADING, Row, table};
use crate::week::words::{clean, in_hours, natural, number};
use billed::Billed;
use periods::Who;

/// The log is read this far beyond both ends of the time asked about: an instance may have been stopped before it, and
/// the time of a start may only be in the line of the next stop.
const AROUND: Days = Days::new(14);
/// Days that the function's log is kept (infra/template.yaml).
const KEPT: u16 = 90;
/// The most ids in a filter (EC2 API reference, DescribeInstances: "up to 200 filter values").
const IDS: usize = 200;
/// How long looking may take in a region: everything that was switched in a month takes a minute at most.
const LOOKING: Duration = Duration::from_secs(300);

/// What the figures leave out, as the output says it.
const LEFT_OUT: [&str; 3] = [
    "It is today's On-Demand list price, for the hours from Curfew's stops to the next start, whoever's; what people stopped is not in it.",
    "Volumes, snapshots and public addresses are not in it: they cost the same while an instance is off.",
    "Savings Plans and Reserved Instances are not in it: they are paid for either way, and what they cover saves nothing (see --billed).",
];

/// Show what Curfew saved, in hours and money
///
/// How long it kept instances off, by the function's log, and what they would
/// have cost in that time, by today's list prices. Days are UTC's; permissions
/// are in policy/read-only.json.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// How many days, the last among them
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=i64::from(KEPT)))]
    days: u16,
    /// The last day, like 2026-10-31 [default: up to now]
    #[arg(long, value_name = "DATE", value_parser = arguments::date)]
    until: Option<NaiveDate>,
    /// The function's log group
    #[arg(long, value_name = "NAME", default_value = "/aws/lambda/curfew")]
    log_group: String,
    /// The role to assume in other accounts, as in the event
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Prices, in place of asking AWS for them
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Show what was billed in the last 14 days, too; each call costs $0.01
    #[arg(long)]
    billed: bool,
    /// Write it as JSON
    #[arg(long)]
    json: bool,
    /// Write a page for browsers, phones and paper
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    account: Account,
}

/// What was saved between two moments.
pub(crate) struct Saved {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// By the schedule's name.
    schedules: BTreeMap<String, Vec<Line>>,
    /// One for each day, without gaps.
    days: Vec<Day>,
    /// What is not counted, or could not be asked, and what to do about it.
    notes: Vec<String>,
    billed: Option<Billed>,
}

/// An instance, and how long a schedule kept it off.
struct Line {
    who: Who,
    name: Option<String>,
    time: TimeDelta,
    price: Result<(Key, Price), Unpriced>,
}

/// A day in UTC: how long all instances together were off, and the price of that time.
struct Day {
    date: NaiveDate,
    time: TimeDelta,
    saved: Amounts,
}

/// Why an instance has no price.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unpriced {
    /// EC2 no longer knows it, so its type is unknown.
    Gone,
    /// EC2 couldn't be asked about it.
    Unseen,
    /// It is a Spot Instance, whose price varies.
    Spot,
    /// It runs on a Dedicated Host, which is paid for instead of it.
    Host,
    /// No list price is known for it.
    Unknown(Key),
}

impl Unpriced {
    fn say(&self) -> String {
        match self {
            Self::Gone => "gone".to_owned(),
            Self::Unseen => "not seen".to_owned(),
            Self::Spot => "Spot".to_owned(),
            Self::Host => "Dedicated Host".to_owned(),
            Self::Unknown(key) => format!("no price of {}", key.kind),
        }
    }

    /// Returns a sentence that says what this means for so many instances.
    fn explain(&self, count: usize) -> String {
        let those = if count == 1 { "1 instance".to_owned() } else { format!("{count} instances") };
        match self {
            Self::Gone => format!("No money is counted for {those} gone by now: EC2 no longer tells the type."),
            Self::Unseen => format!("No money is counted for {those} in accounts that could not be looked at."),
            Self::Spot => {
                format!("No money is counted for {those} on the Spot market: its prices change all the time.")
            }
            Self::Host => format!("No money is counted for {those} on Dedicated Hosts: they are paid for either way."),
            Self::Unknown(Key { region, kind, operation, tenancy }) => format!(
                "No money is counted for {those} of {kind}: no price is known in {region} ({operation}, tenancy {tenancy}). A file can tell it: --prices."
            ),
        }
    }
}

/// Shows what was saved. The exit status is 1 if something could not be asked.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let now = Utc::now();
    let to = match args.until {
        Some(day) => day.succ_opt().map_or(now, |next| next.and_time(NaiveTime::MIN).and_utc()).min(now),
        None => now,
    };
    // Whole days, but for today.
    let last = (to - TimeDelta::seconds(1)).date_naive();
    let from = (last - Days::new(u64::from(args.days) - 1)).and_time(NaiveTime::MIN).and_utc();
    if args.until.is_some_and(|day| day > now.date_naive()) {
        return Err(Problem::new(format!("--until: {} has not come yet", args.until.unwrap_or_default())));
    }
    let mut prices = Prices::open(args.prices.as_deref())?;
    let access = args.account.open(None).await?;
    let waiting = terminal::spinner("Reading the log");
    let lines = read_log(&args, &access, (from, to), now).await?;
    waiting.set_message("Looking at instances");
    let mut notes = Notes::default();
    let ids: BTreeSet<&Who> = lines.iter().map(|line| &line.who).collect();
    let shown = look(&access, args.role.as_deref(), &ids, &mut notes).await;
    let counted = periods::count(&lines, &shown, (from, to));
    if counted.is_empty() {
        waiting.finish_and_clear();
        return Err(nothing(&args, &access, (from, to)));
    }
    waiting.set_message("Asking for prices");
    let keys = counted.keys().filter_map(|who| key(who, &shown)).collect();
    if let Err(error) = prices.ask(&access.aws, &keys).await {
        notes.trouble(format!(
            "AWS's Price List doesn't tell prices: {}{} A file can tell them: --prices.",
            said(&error),
            needs(&error, "pricing:GetProducts")
        ));
    }
    let billed = match args.billed {
        false => None,
        true => {
            waiting.set_message("Asking what was billed");
            anstream::eprintln!(
                "Cost Explorer takes $0.01 for each call: 2 of them here, or more for thousands of instances"
            );
            let known: BTreeSet<&str> = counted.keys().map(|who| who.2.as_str()).collect();
            match billed::ask(&access.aws, now.date_naive(), |id| known.contains(id)).await {
                Ok(billed) => Some(billed),
                Err(error) => {
                    let needs = needs(&error, "ce:GetCostAndUsageWithResources and ce:GetSavingsPlansUtilization");
                    // Which code it has where that is off, AWS doesn't document.
                    let data = match is_denied(&error.code) || error.code == "DataUnavailableException" {
                        true => {
                            " The account needs resource-level data, which the Cost Management preferences switch on."
                        }
                        false => "",
                    };
                    notes.trouble(format!("Cost Explorer doesn't tell what was billed: {}{needs}{data}", said(&error)));
                    None
                }
            }
        }
    };
    waiting.finish_and_clear();
    let seen = |who: &Who| !notes.unseen.contains(&(who.0.clone(), who.1.clone()));
    let mut saved = Saved::of(counted, &shown, &prices, seen, (from, to));
    saved.billed = billed;
    let troubles = notes.troubles;
    let is_whole = troubles.is_empty();
    saved.notes.splice(0..0, troubles);

    if let Some(file) = &args.html {
        let name = file.display();
        let page = page::page(&saved);
        std::fs::write(file, page).map_err(|error| Problem::new(format!("can't write {name}: {error}")))?;
        anstream::eprintln!("Wrote {name}");
    }
    if args.json {
        terminal::print(&format!("{:#}\n", saved.json()))?;
    } else if args.html.is_none() {
        terminal::print(&saved.table(terminal::width()))?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What could not be asked.
#[derive(Default)]
struct Notes {
    troubles: Vec<String>,
    /// Accounts and regions that could not be looked at.
    unseen: BTreeSet<(String, String)>,
}

impl Notes {
    fn trouble(&mut self, text: String) {
        self.troubles.push(text);
    }
}

/// Reads from the log what was switched.
///
/// # Errors
/// There is no such log group, or CloudWatch Logs refused; with what to do about it.
async fn read_log(
    args: &Args,
    access: &Access,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    now: DateTime<Utc>,
) -> Result<Vec<log::Switched>, Problem> {
    let group = &args.log_group;
    let cannot = |error: &_| refused(&format!("CloudWatch Logs does not show {group}"), error, "logs:FilterLogEvents");
    let logs = Client::new(access.aws.config(), LOGS, None).map_err(|error| cannot(&error))?;
    match log::read(&logs, group, (from - AROUND, (to + AROUND).min(now))).await {
        Ok(lines) => Ok(lines),
        Err(error) if log::is_missing(&error) => {
            let what = format!("there is no log group {group} in {}", logs.region());
            let problem =
                Problem::new(what).help("name the function's with --log-group, and where it is with --region");
            Err(match log::similar(&logs, group).await.as_slice() {
                [] => problem,
                names => problem.help(format!("there is {}", names.join(", "))),
            })
        }
        Err(error) => Err(cannot(&error)),
    }
}

/// Builds the problem that nothing was off in the time asked about.
fn nothing(args: &Args, access: &Access, (from, to): (DateTime<Utc>, DateTime<Utc>)) -> Problem {
    let (group, region) = (&args.log_group, access.aws.own_region().unwrap_or_default());
    let last = to - TimeDelta::seconds(1);
    Problem::new(format!("the log tells of nothing that was off from {} to {}", date(from), date(last)))
        .note(format!("{group} in {region} was read; rehearsals don't count"))
        .help("choose another time with --days and --until (the log is kept for 90 days), or another log with --log-group")
}

/// Looks at instances in all their accounts and regions; where that fails, it is noted.
async fn look(access: &Access, role: Option<&str>, ids: &BTreeSet<&Who>, notes: &mut Notes) -> BTreeMap<Who, Billing> {
    let mut by_place: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (account, region, id) in ids {
        by_place.entry((account, region)).or_default().push(id);
    }
    let mut roles: BTreeMap<&str, Result<Aws, String>> = BTreeMap::new();
    let mut shown = BTreeMap::new();
    for ((account, region), ids) in by_place {
        if !roles.contains_key(account) {
            roles.insert(account, assume(access, role, account).await);
        }
        let found = match &roles[account] {
            Ok(aws) => find(aws, region, &ids).await,
            Err(why) => Err(why.clone()),
        };
        match found {
            Ok(found) => shown
                .extend(found.into_iter().map(|it| ((account.to_owned(), region.to_owned(), it.id.to_string()), it))),
            Err(why) => {
                notes.trouble(format!("Account {account} in {region} could not be looked at: {why}"));
                notes.unseen.insert((account.to_owned(), region.to_owned()));
            }
        }
    }
    shown
}

async fn assume(access: &Access, role: Option<&str>, account: &str) -> Result<Aws, String> {
    let home = &access.home;
    // A function whose host gave no ARN wrote "unknown" into the log.
    if account == home.account || account == "unknown" {
        return Ok(access.aws.clone());
    }
    let Some(role) = role else { return Err("--role names the role to assume there.".to_owned()) };
    let arn = format!("arn:{}:iam::{account}:role/{role}", home.partition);
    access.aws.assume(account, &arn, "saved", Deadline::within(LOOKING)).await.map_err(|error| said(&error))
}

async fn find(aws: &Aws, region: &str, ids: &[&str]) -> Result<Vec<Billing>, String> {
    let (ec2, mut found) = (aws.ec2(region), Vec::new());
    for ids in ids.chunks(IDS) {
        // As a filter, with which an id that EC2 doesn't know is no error.
        let filters = vec![("instance-id".to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())];
        let page = ec2.billing(&filters, Deadline::within(LOOKING)).await;
        found.extend(page.map_err(|error| format!("{}{}", said(&error), needs(&error, "ec2:DescribeInstances")))?);
    }
    Ok(found)
}

/// Returns what an instance's price depends on; none if it is unknown, a Spot Instance or on a Dedicated Host.
fn key(who: &Who, shown: &BTreeMap<Who, Billing>) -> Option<Key> {
    let it = shown.get(who).filter(|it| !it.spot && it.tenancy != "host")?;
    Some(Key::of(&who.1, it))
}

/// Returns an error as a sentence with a full stop, to be put into a longer text.
pub(crate) fn said(error: &Error) -> String {
    format!("{}.", error.to_string().trim_end_matches('.'))
}

/// Says, after AWS's words, which permissions are missing, if they are.
pub(crate) fn needs(error: &Error, permissions: &str) -> String {
    if is_denied(&error.code) { format!(" These credentials need {permissions}.") } else { String::new() }
}

fn date(moment: DateTime<Utc>) -> String {
    moment.format("%-d %B %Y").to_string()
}

impl Saved {
    fn of(
        counted: BTreeMap<Who, periods::Instance>,
        shown: &BTreeMap<Who, Billing>,
        prices: &Prices,
        seen: impl Fn(&Who) -> bool,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
    ) -> Self {
        let first = from.date_naive();
        let last = (to - TimeDelta::seconds(1)).date_naive();
        let days = first.iter_days().take_while(|day| *day <= last);
        let days = days.map(|date| Day { date, time: TimeDelta::zero(), saved: Amounts::new() }).collect();
        let mut saved = Self { from, to, schedules: BTreeMap::new(), days, notes: Vec::new(), billed: None };
        let mut unpriced: BTreeMap<Unpriced, usize> = BTreeMap::new();
        let mut untold = 0;
        for (who, instance) in counted {
            untold += instance.untold;
            if instance.offs.is_empty() {
                continue;
            }
            let price = match shown.get(&who) {
                None if seen(&who) => Err(Unpriced::Gone),
                None => Err(Unpriced::Unseen),
                Some(it) if it.spot => Err(Unpriced::Spot),
                Some(it) if it.tenancy == "host" => Err(Unpriced::Host),
                Some(it) => {
                    let key = Key::of(&who.1, it);
                    prices.of(&key).map(|price| (key.clone(), price.clone())).ok_or(Unpriced::Unknown(key))
                }
            };
            if let Err(why) = &price {
                *unpriced.entry(why.clone()).or_default() += 1;
            }
            let mut by_schedule: BTreeMap<&str, TimeDelta> = BTreeMap::new();
            for off in &instance.offs {
                *by_schedule.entry(&off.schedule).or_default() += off.to - off.from;
                saved.spread(off, price.as_ref().ok().map(|(_, price)| price));
            }
            for (schedule, time) in by_schedule {
                let (who, name, price) = (who.clone(), instance.name.clone(), price.clone());
                saved.schedules.entry(schedule.to_owned()).or_default().push(Line { who, name, time, price });
            }
        }
        for lines in saved.schedules.values_mut() {
            lines.sort_by_cached_key(|line| {
                (std::cmp::Reverse(line.money().map(|(_, money)| money)), natural(line.label()), line.who.clone())
            });
        }
        saved.notes = unpriced.iter().map(|(why, count)| why.explain(*count)).collect();
        if untold > 0 {
            let times = if untold == 1 { "1 time".to_owned() } else { format!("{untold} times") };
            saved.notes.push(format!(
                "Not counted: {times} off of which nothing tells the beginning or the end. The instance is gone or was not seen, it was stopped long before, or it was started by hand while an earlier version wrote the log."
            ));
        }
        saved
    }

    /// Adds to each day its part of the time that an instance was off, and of the money.
    fn spread(&mut self, off: &periods::Off, price: Option<&Price>) {
        for day in &mut self.days {
            let begin = day.date.and_time(NaiveTime::MIN).and_utc();
            let time = off.to.min(begin + Days::new(1)) - off.from.max(begin);
            if time > TimeDelta::zero() {
                day.time += time;
                if let Some(price) = price {
                    *day.saved.entry(price.currency.clone()).or_default() += price.of(time);
                }
            }
        }
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.schedules.values().flatten()
    }

    /// Counts the instances, each once, even if several schedules kept it off.
    fn instances(&self) -> usize {
        self.lines().map(|line| &line.who).collect::<BTreeSet<_>>().len()
    }

    /// Returns the days that it is about, like `1 – 31 October 2026`.
    fn dates(&self) -> String {
        let (first, last) = (self.from.date_naive(), (self.to - TimeDelta::seconds(1)).date_naive());
        let day = |date: NaiveDate| date.format("%-d %B %Y").to_string();
        let alike = |format: &str| first.format(format).to_string() == last.format(format).to_string();
        let begin = match (alike("%Y"), alike("%Y %m")) {
            (_, true) => first.format("%-d").to_string(),
            (true, false) => first.format("%-d %B").to_string(),
            (false, false) => day(first),
        };
        if first == last { day(last) } else { format!("{begin} – {}", day(last)) }
    }

    /// Adds up the time and the money of some lines.
    fn sum<'a>(lines: impl Iterator<Item = &'a Line> + Clone) -> (TimeDelta, Amounts) {
        let time = lines.clone().map(|line| line.time).sum();
        (time, sum(lines.filter_map(Line::money)))
    }

    fn total(&self) -> (TimeDelta, Amounts) {
        Self::sum(self.lines().collect::<Vec<_>>().into_iter())
    }

    /// Returns sentences that say what was billed; none if that was not asked for.
    fn say_billed(&self) -> Vec<String> {
        let Some(billed) = &self.billed else { return Vec::new() };
        let mut said = Vec::new();
        let days = format!("{} – {}", billed.from, billed.to - Days::new(1));
        let ran = billed.instances.values().filter(|usage| usage.hours > 0.0);
        let (hours, cost) = ran.clone().fold((0.0, 0.0), |(hours, cost), it| (hours + it.hours, cost + it.cost));
        let list = self.list_price_of(billed);
        said.push(match ran.count() {
            0 => format!("Billed {days}: nothing for these instances, in the accounts that Cost Explorer shows."),
            n => {
                let beside = match list {
                    Some(list) if list > 0.0 => {
                        format!(
                            "; at list price {}: {:.0}% of it was paid",
                            amount(list, &billed.currency),
                            cost / list * 100.0
                        )
                    }
                    _ => String::new(),
                };
                let (hours, cost) = (number((hours * 100.0).round() / 100.0), amount(cost, &billed.currency));
                let those = if n == 1 { "1 of these instances" } else { &*format!("{n} of these instances") };
                format!("Billed {days}: {cost} for the {hours} h that {those} ran{beside}.")
            }
        });
        if let Some(utilization) = billed.utilization {
            let lowest = billed.savings_plans.iter().min_by(|one, other| one.1.total_cmp(&other.1));
            let lowest = lowest.map_or_else(String::new, |(day, share)| format!(", least on {day} ({share:.1}%)"));
            let means = match utilization < 99.95 || billed.savings_plans.iter().any(|(_, share)| *share < 99.95) {
                true => {
                    " What is not used is paid for all the same: part of the saving is fictional. AWS tells it by the day, not by the hour: at night it is less."
                }
                false => " All that was committed was used by something else while these were off: the saving is real.",
            };
            said.push(format!("Savings Plans: {utilization:.1}% of what is committed was used{lowest}.{means}"));
        } else {
            said.push("Savings Plans: none.".to_owned());
        }
        said
    }

    /// Returns the list price of the billed hours, in the bill's currency; none if any of the prices is unknown.
    fn list_price_of(&self, billed: &Billed) -> Option<f64> {
        let prices: BTreeMap<&str, &Price> =
            self.lines().filter_map(|line| Some((line.who.2.as_str(), &line.price.as_ref().ok()?.1))).collect();
        let ran = billed.instances.iter().filter(|(_, usage)| usage.hours > 0.0);
        let each = ran.map(|(id, usage)| {
            let price = prices.get(id.as_str()).filter(|price| price.currency == billed.currency)?;
            price.decimals().parse::<f64>().ok().map(|price| price * usage.hours)
        });
        each.sum()
    }

    fn table(&self, width: Option<usize>) -> String {
        let (time, saved) = self.total();
        let money = if saved.is_empty() { "no money counted".to_owned() } else { format!("{} saved", written(&saved)) };
        let (n, bold) = (self.instances(), HEADING);
        let those = if n == 1 { "1 instance".to_owned() } else { format!("{} instances", number(n as f64)) };
        let mut text = format!("{bold}{}: {money}{bold:#}, {those} off for {}\n", self.dates(), in_hours(time));
        for (schedule, lines) in &self.schedules {
            let (time, saved) = Self::sum(lines.iter());
            let money = if saved.is_empty() { String::new() } else { format!(", {}", written(&saved)) };
            text.push_str(&format!("\n{bold}{}{bold:#}  {}{money}\n", clean(schedule), in_hours(time)));
            let rows: Vec<Row<6>> = lines.iter().map(|line| line.row().into()).collect();
            text.push_str(&table(&rows, 2, width));
        }
        let faint = FAINT;
        for said in self.say_billed() {
            text.push_str(&format!("\n{}", terminal::wrapped(&said, width)));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&terminal::wrapped(&clean(note), width));
        }
        text.push('\n');
        for said in LEFT_OUT {
            let said = terminal::wrapped(said, width);
            text.push_str(&format!("{faint}{}{faint:#}\n", said.trim_end()));
        }
        text
    }

    fn json(&self) -> Value {
        let moment = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let amounts = |amounts: &Amounts| -> Value {
            amounts
                .iter()
                .map(|(currency, money)| (currency.clone(), json!(money.decimals())))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let line = |line: &Line| {
            let (account, region, id) = &line.who;
            let mut object = json!({ "id": id, "name": line.name, "account": account, "region": region, "hours_off": hours(line.time) });
            match &line.price {
                Ok((key, price)) => {
                    object["type"] = json!(key.kind);
                    object["operation"] = json!(key.operation);
                    object["tenancy"] = json!(key.tenancy);
                    object["price"] = json!(price.decimals());
                    object["currency"] = json!(price.currency);
                    object["saved"] = amounts(&sum(line.money()));
                }
                Err(why) => object["no_price"] = json!(why.say()),
            }
            object
        };
        let schedules = self.schedules.iter().map(|(name, lines)| {
            let (time, saved) = Self::sum(lines.iter());
            let lines: Vec<Value> = lines.iter().map(line).collect();
            json!({ "name": name, "hours_off": hours(time), "saved": amounts(&saved), "instances": lines })
        });
        let days = self
            .days
            .iter()
            .map(|day| json!({ "date": day.date, "hours_off": hours(day.time), "saved": amounts(&day.saved) }));
        let (time, saved) = self.total();
        let mut object = json!({
            "from": moment(self.from),
            "to": moment(self.to),
            "instances": self.instances(),
            "hours_off": hours(time),
            "saved": amounts(&saved),
            "schedules": schedules.collect::<Vec<_>>(),
            "days": days.collect::<Vec<_>>(),
            "notes": self.notes,
            "left_out": LEFT_OUT,
        });
        if let Some(billed) = &self.billed {
            object["billed"] = json!(billed);
            object["billed"]["says"] = json!(self.say_billed());
        }
        object
    }
}

impl Line {
    fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.who.2)
    }

    /// Returns the currency and the amount that was saved; none without a price.
    fn money(&self) -> Option<(&str, Money)> {
        let (_, price) = self.price.as_ref().ok()?;
        Some((&price.currency, price.of(self.time)))
    }

    fn row(&self) -> [Cell; 6] {
        let (_, region, id) = &self.who;
        let money = self.money().map_or_else(Cell::default, |(currency, money)| Cell::new(money.written(currency)));
        let price = match &self.price {
            Ok((key, price)) => format!("{} at {}", key.kind, price.written()),
            Err(why) => why.say(),
        };
        let id_beside = if self.name.is_some() { Cell::new(id).styled(FAINT) } else { Cell::default() };
        let time = Cell::new(in_hours(self.time));
        [Cell::name(self.label()), id_beside, Cell::new(region), time, money, Cell::new(price).styled(FAINT)]
    }
}

/// Returns a time in hours, with four decimals: a second is 0.0003 h.
fn hours(time: TimeDelta) -> f64 {
    (time.num_seconds() as f64 / 3600.0 * 10_000.0).round() / 10_000.0
}

fn amount(amount: f64, currency: &str) -> String {
    Price::parse(&format!("{amount:.10}"), currency)
        .map_or_else(String::new, |price| price.of(TimeDelta::hours(1)).written(currency))
}
