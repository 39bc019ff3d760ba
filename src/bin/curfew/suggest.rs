//! `curfew suggest`: when instances look idle, and the running hours that would suit them.
//!
//! `idle.rs` finds the hours. This module asks CloudWatch, and puts instances with similar hours under one name.

mod idle;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Days, DurationRound, TimeDelta, Utc};
use chrono_tz::Tz;
use ec2_curfew::deadline::Deadline;
use ec2_curfew::ec2::{Billing, Ec2, Error};
use ec2_curfew::instance::{HOURS_TAG, Instance, InstanceId, RootDevice, State};
use serde_json::{Value, json};

use crate::account::Account;
use crate::arguments;
use crate::aws_json::{CLOUDWATCH, Client};
use crate::money::{Amounts, Money, Price, sum, written};
use crate::prices::{Key, Prices};
use crate::problem::Problem;
use crate::saved::{needs, said};
use crate::takeover::refused;
use crate::terminal::{self, Cell, FAINT, HEADING, Row, table};
use crate::week::words::{clean, natural, number};
use idle::{Confidence, Gain, Hour, Looks, Span};

/// How long looking may take: a large fleet takes minutes at most.
const LOOKING: Duration = Duration::from_secs(300);
/// The metrics of each instance, with the statistic over an hour.
const METRICS: [(&str, &str); 3] = [("CPUUtilization", "Average"), ("NetworkIn", "Sum"), ("NetworkOut", "Sum")];
/// How many instances' metrics are asked for in one call, which takes 500 (CloudWatch API reference, GetMetricData).
const INSTANCES_A_CALL: usize = 500 / METRICS.len();
/// How many metrics cost a cent (CloudWatch pricing: "$0.01 per 1,000 metrics requested").
const METRICS_A_CENT: usize = 1000;
/// Hours in a month, as AWS's Pricing Calculator counts them.
const MONTH: i64 = 730;
/// What the figures don't show, as the output says it.
const UNSEEN: &str = "CPU and network don't see everything: not a GPU at work, not memory that takes a day to fill again, not a database that nobody asks at night but for the one report. Ask whoever runs it before you tag it.";

/// Suggest running hours: when instances look idle
///
/// By their CPU and network, of all instances in the region but those that
/// have hours already, or that a group or a service runs. It says what it looks
/// like, and changes nothing. CloudWatch takes $0.01 for each 1,000 metrics,
/// three of each instance; permissions are in policy/read-only.json.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// How many days are looked at
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(u16).range(7..=90))]
    days: u16,
    /// The time zone of the hours
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = arguments::zone)]
    timezone: Tz,
    /// Prices, in place of asking AWS for them
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Write it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    account: Account,
}

/// What is suggested for a region, and what isn't.
struct Suggestions {
    region: String,
    days: u16,
    zone: Tz,
    groups: Vec<Group>,
    all_idle: Vec<Seen>,
    busy: Vec<Seen>,
    new: Vec<Seen>,
    /// Why instances were not looked at, and how many.
    left_out: BTreeMap<&'static str, usize>,
    notes: Vec<String>,
}

/// Instances that look idle at similar hours.
struct Group {
    span: Span,
    instances: Vec<(Seen, Gain, Option<Amounts>)>,
}

/// An instance.
#[derive(Clone)]
struct Seen {
    id: InstanceId,
    name: Option<String>,
    kind: String,
    price: Option<Price>,
}

/// Suggests hours. The exit status is 1 if prices could not be asked.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let mut prices = Prices::open(args.prices.as_deref())?;
    let access = args.account.open(None).await?;
    let region = access.aws.own_region().unwrap_or_default().to_owned();
    let waiting = terminal::spinner(format!("Looking at instances in {region}"));
    let cannot =
        |error| refused(&format!("EC2 in {region} does not show its instances"), &error, "ec2:DescribeInstances");
    let (ec2, until) = (access.aws.ec2(&region), Deadline::within(LOOKING));
    let states = [State::Pending, State::Running, State::Stopping, State::Stopped].map(|state| state.to_string());
    let filters = vec![("instance-state-name".to_owned(), states.to_vec())];
    let all = ec2.matching(&filters, Some, until).await.map_err(cannot)?;
    let mut left_out: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut instances: Vec<Instance> = Vec::new();
    for instance in all {
        match reason(&instance) {
            Some(why) => *left_out.entry(why).or_default() += 1,
            None => instances.push(instance),
        }
    }
    if instances.is_empty() {
        let out = if left_out.is_empty() { String::new() } else { format!(" but {}", in_words(&left_out)) };
        return Err(Problem::new(format!("there is no instance in {region}{out}")).help("--region names another"));
    }
    instances.sort_by_cached_key(|it| (natural(it.name().unwrap_or(it.id.as_str())), it.id));
    let billing = ec2.billing(&filters, until).await.map_err(cannot)?;
    let billing: BTreeMap<InstanceId, Billing> = billing.into_iter().map(|it| (it.id, it)).collect();
    waiting.finish_and_clear();

    let (n, metrics) = (instances.len(), instances.len() * METRICS.len());
    anstream::eprintln!(
        "CloudWatch takes $0.01 for each 1,000 metrics; {} of {}: {}",
        count(metrics, "metric"),
        count(n, "instance"),
        Price::parse(&format!("{:.2}", metrics.div_ceil(METRICS_A_CENT) as f64 / 100.0), "USD")
            .map_or_else(String::new, |price| price.written()),
    );
    let waiting = terminal::spinner("Asking CloudWatch");
    let to = Utc::now().duration_trunc(TimeDelta::hours(1)).unwrap_or_else(|_| Utc::now());
    let period = (to - Days::new(args.days.into()), to);
    let cloudwatch = Client::new(access.aws.config(), CLOUDWATCH, None);
    let hours = match cloudwatch {
        Ok(client) => ask(&client, &instances, period).await,
        Err(error) => Err(error),
    };
    let hours = hours
        .map_err(|error| refused("CloudWatch does not tell CPU and network", &error, "cloudwatch:GetMetricData"))?;
    waiting.set_message("Asking for prices");
    let mut notes = Vec::new();
    let of = |id: &InstanceId| billing.get(id).filter(|it| !it.spot && it.tenancy != "host");
    let keys: BTreeSet<Key> = instances.iter().filter_map(|it| Some(Key::of(&region, of(&it.id)?))).collect();
    if let Err(error) = prices.ask(&access.aws, &keys).await {
        notes.push(format!(
            "AWS's Price List doesn't tell prices: {}{} A file can tell them: --prices.",
            said(&error),
            needs(&error, "pricing:GetProducts")
        ));
    }
    waiting.finish_and_clear();
    let is_whole = notes.is_empty();
    let instances = instances.into_iter().map(|it| {
        let price = of(&it.id).and_then(|billing| prices.of(&Key::of(&region, billing)).cloned());
        let name = it.name().map(str::to_owned);
        Seen { id: it.id, name, kind: it.instance_type.to_string(), price }
    });
    let suggestions = Suggestions::of(instances.collect(), &hours, &args, region.clone(), left_out, notes);
    let text = match args.json {
        true => format!("{:#}\n", suggestions.json()),
        false => suggestions.table(terminal::width()),
    };
    terminal::print(&text)?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns why nothing is suggested for an instance, whatever its metrics look like.
fn reason(instance: &Instance) -> Option<&'static str> {
    match instance {
        it if it.tags.get(HOURS_TAG).is_some() => Some("with hours already"),
        it if it.tags.get("aws:autoscaling:groupName").is_some() => Some("in Auto Scaling groups"),
        it if it.controller().is_some() => Some("run by a service"),
        it if it.root_device == RootDevice::InstanceStore => Some("that EC2 can't stop"),
        _ => None,
    }
}

/// Asks CloudWatch for the hours in which instances ran, with their metrics.
async fn ask(
    client: &Client,
    instances: &[Instance],
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<BTreeMap<InstanceId, Vec<Hour>>, Error> {
    let mut all = BTreeMap::new();
    for instances in instances.chunks(INSTANCES_A_CALL) {
        let query = |n: usize, metric: usize| {
            let (name, statistic) = METRICS[metric];
            let dimension = json!({ "Name": "InstanceId", "Value": instances[n].id.as_str() });
            json!({
                "Id": format!("m{metric}i{n}"),
                "MetricStat": {
                    "Metric": { "Namespace": "AWS/EC2", "MetricName": name, "Dimensions": [dimension] },
                    "Period": 3600,
                    "Stat": statistic,
                },
            })
        };
        let queries: Vec<Value> =
            (0..instances.len()).flat_map(|n| (0..METRICS.len()).map(move |metric| query(n, metric))).collect();
        let mut input = json!({
            "MetricDataQueries": queries,
            "StartTime": from.timestamp(),
            "EndTime": to.timestamp(),
            "ScanBy": "TimestampAscending",
        });
        // The metrics' values, by the instance's index and the hour's Unix time.
        let mut found: BTreeMap<(usize, i64), [f64; METRICS.len()]> = BTreeMap::new();
        loop {
            let page = client.call("GetMetricData", &input).await?;
            for result in page["MetricDataResults"].as_array().into_iter().flatten() {
                let id = result["Id"].as_str().and_then(|id| id.strip_prefix('m')?.split_once('i'));
                let Some((Ok(metric), Ok(n))) = id.map(|(metric, n)| (metric.parse::<usize>(), n.parse::<usize>()))
                else {
                    continue;
                };
                if metric >= METRICS.len() || n >= instances.len() {
                    continue;
                }
                let times = result["Timestamps"].as_array().into_iter().flatten().filter_map(Value::as_f64);
                let values = result["Values"].as_array().into_iter().flatten().filter_map(Value::as_f64);
                for (time, value) in times.zip(values) {
                    found.entry((n, time as i64)).or_insert([f64::NAN, 0.0, 0.0])[metric] = value;
                }
            }
            match page["NextToken"].as_str().filter(|token| !token.is_empty()) {
                Some(token) if input["NextToken"] != token => input["NextToken"] = json!(token),
                _ => break,
            }
        }
        for ((n, time), [cpu, received, sent]) in found {
            // An hour without a value for CPU is one in which it did not run.
            if let (false, Some(at)) = (cpu.is_nan(), DateTime::from_timestamp(time, 0)) {
                all.entry(instances[n].id).or_insert_with(Vec::new).push(Hour { at, cpu, network: received + sent });
            }
        }
    }
    Ok(all)
}

impl Suggestions {
    fn of(
        instances: Vec<Seen>,
        hours: &BTreeMap<InstanceId, Vec<Hour>>,
        args: &Args,
        region: String,
        left_out: BTreeMap<&'static str, usize>,
        notes: Vec<String>,
    ) -> Self {
        let (days, zone) = (args.days, args.timezone);
        let mut all = Self {
            region,
            days,
            zone,
            groups: Vec::new(),
            all_idle: Vec::new(),
            busy: Vec::new(),
            new: Vec::new(),
            left_out,
            notes,
        };
        let hours_of = |seen: &Seen| hours.get(&seen.id).map(Vec::as_slice).unwrap_or_default();
        let mut spans: Vec<(Span, Seen)> = Vec::new();
        for seen in instances {
            match idle::judge(hours_of(&seen), zone) {
                Looks::Idle(span) => spans.push((span, seen)),
                Looks::AllIdle => all.all_idle.push(seen),
                Looks::Busy => all.busy.push(seen),
                Looks::New => all.new.push(seen),
            }
        }
        // Each is compared with the first of a group: compared with the last, a group could drift hour by hour.
        let mut groups: Vec<(Span, Span, Vec<Seen>)> = Vec::new();
        spans.sort_by(|one, other| one.0.cmp(&other.0));
        for (span, seen) in spans {
            match groups.iter_mut().find(|(first, ..)| first.is_like(&span)) {
                Some((_, common, members)) => {
                    *common = common.with(&span);
                    members.push(seen);
                }
                None => groups.push((span.clone(), span, vec![seen])),
            }
        }
        let mut by_span: BTreeMap<Span, Vec<Seen>> = BTreeMap::new();
        for (_, span, members) in groups {
            by_span.entry(span).or_default().extend(members);
        }
        for (span, mut members) in by_span {
            // Hours that the function couldn't read are not suggested.
            let Some(hours) = span.hours(zone) else {
                all.busy.extend(members);
                continue;
            };
            members.sort_by_cached_key(|seen| (natural(seen.label()), seen.id));
            let with_gain = |seen: Seen| {
                let gain = idle::gain(hours_of(&seen), &hours);
                let money = seen.price.as_ref().map(|price| {
                    // Its share of the days that were looked at, applied to a month.
                    let month = price.of(TimeDelta::hours(MONTH));
                    let share = i64::try_from(gain.outside).unwrap_or_default();
                    sum([(price.currency.as_str(), month.share(share, i64::from(days) * 24))])
                });
                (seen, gain, money)
            };
            let instances = members.into_iter().map(with_gain).collect();
            all.groups.push(Group { span, instances });
        }
        all.groups.sort_by_key(|group| {
            std::cmp::Reverse((group.money().values().copied().sum::<Money>(), group.instances.len()))
        });
        all
    }

    fn money(&self) -> Amounts {
        let all = self.groups.iter().map(Group::money).collect::<Vec<_>>();
        sum(all.iter().flatten().map(|(currency, money)| (currency.as_str(), *money)))
    }

    fn table(&self, width: Option<usize>) -> String {
        let (bold, faint) = (HEADING, FAINT);
        let found: usize = self.groups.iter().map(|group| group.instances.len()).sum();
        let all = found + self.all_idle.len() + self.busy.len() + self.new.len();
        let looks = if found == 1 { "looks" } else { "look" };
        let money = match self.money() {
            none if none.is_empty() => String::new(),
            money => format!(", about {} a month at list price", written(&money)),
        };
        let mut text = format!(
            "{bold}{found} of {} in {} {looks} idle at regular hours{bold:#}{money}\n",
            count(all, "instance"),
            self.region
        );
        for group in &self.groups {
            let money = written(&group.money());
            let money = if money.is_empty() { String::new() } else { format!("  {money} a month") };
            text.push_str(&format!("\n{bold}{}{bold:#}  {}{money}\n", group.span.name(), group.span.text()));
            let rows: Vec<Row<6>> = group.instances.iter().map(|it| row(it).into()).collect();
            text.push_str(&table(&rows, 2, width));
        }
        let others = [
            (
                &self.all_idle,
                "looks idle all the time: is it needed at all?",
                "look idle all the time: are they needed at all?",
            ),
            (
                &self.busy,
                "is busy most of the time, or at no regular hours",
                "are busy most of the time, or at no regular hours",
            ),
            (&self.new, "has run for less than a week of that time", "have run for less than a week of that time"),
        ];
        let others: Vec<String> = others
            .iter()
            .filter(|(seen, ..)| !seen.is_empty())
            .map(|(seen, one, many)| format!("{} {}", names(seen), if seen.len() == 1 { one } else { many }))
            .collect();
        if !others.is_empty() || !self.left_out.is_empty() || !self.notes.is_empty() {
            text.push('\n');
        }
        others.iter().for_each(|said| text.push_str(&terminal::wrapped(said, width)));
        if !self.left_out.is_empty() {
            text.push_str(&terminal::wrapped(&format!("Not looked at: {}", in_words(&self.left_out)), width));
        }
        self.notes.iter().for_each(|note| text.push_str(&terminal::wrapped(&clean(note), width)));
        if !self.groups.is_empty() {
            text.push_str(&format!(
                "\n{}",
                terminal::wrapped(
                    &format!("For the event of a reconcile, which switches what has the name in its tag {HOURS_TAG}:"),
                    width
                )
            ));
            text.push_str(&format!("  \"timezone\": {}, \"hours\": {}\n", json!(self.zone.name()), self.hours()));
        }
        text.push_str(&format!("\n{faint}{}{faint:#}\n", terminal::wrapped(UNSEEN, width).trim_end()));
        text
    }

    fn hours(&self) -> Value {
        self.groups
            .iter()
            .map(|group| (group.span.name(), json!(group.span.text())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn json(&self) -> Value {
        let amounts = |amounts: &Amounts| -> Value {
            amounts
                .iter()
                .map(|(currency, money)| (currency.clone(), json!(money.decimals())))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let seen = |seen: &Seen| json!({ "id": seen.id.as_str(), "name": seen.name, "type": seen.kind });
        let list = |all: &[Seen]| all.iter().map(seen).collect::<Vec<_>>();
        let groups = self.groups.iter().map(|group| {
            let instances = group.instances.iter().map(|(it, gain, money)| {
                let mut object = seen(it);
                object["hours_running_outside"] = json!(gain.outside);
                object["hours_idle_outside"] = json!(gain.idle);
                object["confidence"] = json!(gain.confidence);
                object["a_month"] = money.as_ref().map_or(Value::Null, amounts);
                object
            });
            json!({
                "name": group.span.name(), "hours": group.span.text(), "a_month": amounts(&group.money()),
                "instances": instances.collect::<Vec<_>>(),
            })
        });
        json!({
            "region": self.region,
            "days": self.days,
            "timezone": self.zone.name(),
            "a_month": amounts(&self.money()),
            "looks_idle": groups.collect::<Vec<_>>(),
            "looks_idle_all_the_time": list(&self.all_idle),
            "busy": list(&self.busy),
            "too_new": list(&self.new),
            "left_out": self.left_out,
            "hours": self.hours(),
            "notes": self.notes,
            "unseen": UNSEEN,
        })
    }
}

impl Group {
    fn money(&self) -> Amounts {
        let each = self.instances.iter().filter_map(|(_, _, money)| money.as_ref()).flatten();
        sum(each.map(|(currency, money)| (currency.as_str(), *money)))
    }
}

impl Seen {
    fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.as_str())
    }
}

fn row((seen, gain, money): &(Seen, Gain, Option<Amounts>)) -> [Cell; 6] {
    let id = if seen.name.is_some() { Cell::new(seen.id.as_str()).styled(FAINT) } else { Cell::default() };
    let share = (gain.idle * 100).checked_div(gain.outside).unwrap_or(100);
    let confidence = match gain.confidence {
        Confidence::High => "high confidence",
        Confidence::Medium => "medium confidence",
        Confidence::Low => "low confidence",
    };
    let idle = match gain.outside {
        0 => "off outside of them already".to_owned(),
        _ => format!("looks idle {share}% outside of them"),
    };
    let money = money.as_ref().map_or_else(|| Cell::new("no price").styled(FAINT), |money| Cell::new(written(money)));
    [Cell::name(seen.label()), id, Cell::new(&seen.kind), Cell::new(idle), Cell::new(confidence), money]
}

fn names(seen: &[Seen]) -> String {
    const NAMED: usize = 6;
    let named: Vec<String> = seen.iter().take(NAMED).map(|seen| clean(seen.label())).collect();
    match seen.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {} more", named.join(", "), number(more as f64)),
    }
}

fn in_words(counts: &BTreeMap<&'static str, usize>) -> String {
    counts.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
}

fn count(n: usize, what: &str) -> String {
    format!("{} {what}{}", number(n as f64), if n == 1 { "" } else { "s" })
}
