//! Cloud Custodian's policies with `onhour` and `offhour`, and the tags on instances → running hours.
//!
//! Its rules are those of its documentation, "Resource scheduling offhours" and the module c7n.filters.offhours: a tag's value
//! names the hours at which an hourly run switches, and what it doesn't name is the policy's default.

use std::collections::{BTreeMap, BTreeSet};

use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::event::{Event, Holidays, Hours, Notes, Texts, literal};
use super::week::{DAY, WEEK, Want, Week, carry_on};
use crate::problem::Problem;

/// The tag that counts where a policy names none.
const DEFAULT_TAG: &str = "maid_offhours";
/// Where its clock is, if a policy doesn't say.
const DEFAULT_ZONE: &str = "et";
/// Characters of a name of hours: of a tag's value.
const MAX_NAME: usize = 256;
/// What it calls zones, beside their own names.
const ZONES: [(&str, &str); 27] = [
    ("pdt", "America/Los_Angeles"),
    ("pt", "America/Los_Angeles"),
    ("pst", "America/Los_Angeles"),
    ("ast", "America/Phoenix"),
    ("at", "America/Phoenix"),
    ("est", "America/New_York"),
    ("edt", "America/New_York"),
    ("et", "America/New_York"),
    ("cst", "America/Chicago"),
    ("cdt", "America/Chicago"),
    ("ct", "America/Chicago"),
    ("mst", "America/Denver"),
    ("mdt", "America/Denver"),
    ("mt", "America/Denver"),
    ("gmt", "Etc/GMT"),
    ("gt", "Etc/GMT"),
    ("bst", "Europe/London"),
    ("ist", "Europe/Dublin"),
    ("cet", "Europe/Berlin"),
    ("it", "Asia/Kolkata"),
    ("jst", "Asia/Tokyo"),
    ("kst", "Asia/Seoul"),
    ("sgt", "Asia/Singapore"),
    ("aet", "Australia/Sydney"),
    ("brt", "America/Sao_Paulo"),
    ("nzst", "Pacific/Auckland"),
    ("utc", "Etc/UTC"),
];
/// How it writes characters that some services don't take in tags.
const ESCAPES: [(&str, &str); 9] = [
    ("u28", "("),
    ("u29", ")"),
    ("u5b", "["),
    ("u5d", "]"),
    ("u2c", ","),
    ("u3b", ";"),
    ("u3d", "="),
    ("u2f", "/"),
    ("u2d", "-"),
];
const DAYS: &str = "mtwhfsu";

/// An instance, as far as its tags count.
#[derive(Clone, Debug)]
pub(super) struct Tagged {
    pub(super) id: String,
    pub(super) tags: BTreeMap<String, String>,
}

/// Whether a policy switches on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    On,
    Off,
}

/// A policy's filter on the hour, with what matters of the policy.
#[derive(Clone, Debug)]
struct Policy {
    name: String,
    side: Side,
    /// In small letters, as it compares them.
    tag: String,
    zone: String,
    /// Hours of a week, at which it switches by default.
    default: Vec<usize>,
    opt_out: bool,
    fallback: Option<String>,
    skip_days: BTreeSet<String>,
    hibernate: bool,
    /// What else an instance has to be, in the event's words.
    selection: Selection,
}

/// What a policy's other filters say: tags, filters of EC2's, tags that spare.
type Selection = [BTreeMap<String, Texts>; 3];

/// A policy file's policies on hours.
#[derive(Debug, Default)]
pub(super) struct Policies(Vec<Policy>);

impl Policies {
    /// Takes in a policy file.
    ///
    /// # Errors
    /// It is none, in words.
    pub(super) fn add(&mut self, file: &Value, notes: &mut Notes) -> Result<(), String> {
        let Some(policies) = file["policies"].as_array() else {
            return Err("expected a map with a list of policies".to_owned());
        };
        for policy in policies {
            let name = policy["name"].as_str().unwrap_or("a policy without a name").to_owned();
            let filters = flat(policy["filters"].as_array().map_or(&[][..], Vec::as_slice));
            let about_hours = |filter: &&Value| side(filter).is_some();
            let Some(filter) = filters.iter().copied().find(about_hours) else {
                if let Some((filter, inside)) = hidden_hours(&policy["filters"], "another filter") {
                    let what = format!("{filter} inside {inside}");
                    notes.left_out(&name, what, "only filters that all have to match can be said");
                }
                continue;
            };
            let resource = policy["resource"].as_str().unwrap_or_default();
            if !["ec2", "aws.ec2"].contains(&resource) {
                notes.left_out(&name, format!("resource {resource}"), "Curfew switches EC2 instances only");
                continue;
            }
            match read(&name, filter, &filters, policy, notes) {
                Ok(policy) => self.0.push(policy),
                Err((what, why)) => notes.left_out(&name, what, why),
            }
        }
        Ok(())
    }

    /// Whether none is about hours.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes an event of the policies on one tag, and of the values that instances have.
    ///
    /// # Errors
    /// They are about several tags, or about none of these.
    pub(super) fn event(&self, tag: Option<&str>, instances: &[Tagged], notes: &mut Notes) -> Result<Event, Problem> {
        let tags: BTreeSet<&str> = self.0.iter().map(|policy| policy.tag.as_str()).collect();
        let asked = tag.map(str::to_lowercase);
        let tag = match (&asked, tags.first(), tags.len()) {
            (Some(tag), ..) if tags.contains(tag.as_str()) => tag.as_str(),
            (None, Some(tag), 1) => tag,
            _ => {
                let tags = tags.into_iter().collect::<Vec<_>>().join(", ");
                let what = format!("the policies are about these tags, and an event is about one: {tags}");
                return Err(Problem::new(what).help("make an event for each, with --tag"));
            }
        };
        let on_tag = || self.0.iter().filter(|policy| policy.tag == tag);
        let [on, off] = [Side::On, Side::Off].map(|side| {
            let mut policies = on_tag().filter(|policy| policy.side == side);
            let first = policies.next();
            for other in policies {
                notes.left_out(
                    &other.name,
                    format!("a second policy on the tag {tag}"),
                    "an event has one set of defaults: make a file of each pair, and an event of each file",
                );
            }
            first
        });
        let Some(any) = on.or(off) else {
            return Err(Problem::new(format!("no policy is about the tag {tag}")));
        };
        if let (Some(on), Some(off)) = (on, off)
            && on.selection != off.selection
        {
            let what = format!("{} and {} differ in their other filters", on.name, off.name);
            return Err(Problem::new(what).help(
                "an event selects the same instances for both: make a copy of the file in which they are alike",
            ));
        }
        let mut event = Event::new(&key(tag, instances, notes), zone(&any.zone).map_or("UTC", Tz::name));
        let [tags, filters, except] = any.selection.clone();
        event.tags.extend(tags);
        event.filters = filters;
        event.except_tags = except;
        event.hibernate = off.is_some_and(|off| off.hibernate);
        skipped_days(on, off, &mut event, notes);
        event.except("off");

        let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::from([("on", Vec::new())]);
        let (mut untagged, mut empty) = (Vec::new(), Vec::new());
        for instance in instances {
            match instance.tags.get(&event.hours_tag).map(String::as_str) {
                None => untagged.push(instance.id.as_str()),
                Some("") => empty.push(instance.id.as_str()),
                Some(value) => values.entry(value).or_default().push(&instance.id),
            }
        }
        for (value, ids) in values {
            if plain(value) == "off" {
                if value != "off" {
                    event.except(value);
                }
                continue;
            }
            let of = if ids.is_empty() { value.to_owned() } else { format!("{value}, on {}", shortened(&ids)) };
            if value.chars().count() > MAX_NAME {
                notes.left_out(&of, "value", "it is too long for a name");
                continue;
            }
            match hours(value, on, off, event.holidays.is_some()) {
                Ok(found) => {
                    for (what, why) in found.lost {
                        notes.lost(value, what, why);
                    }
                    event.hours.insert(
                        value.to_owned(),
                        Hours::new(Texts(vec![found.text]), found.zone.name(), &event.timezone, found.start),
                    );
                }
                Err((what, why)) => {
                    notes.left_out(&of, what, why);
                    // Nothing to warn of every five minutes.
                    event.except(value);
                }
            }
        }
        if !empty.is_empty() {
            let why = format!("a name can't be empty: tag {} with \"on\", which means the same", shortened(&empty));
            notes.left_out("no value", format!("tag {}", event.hours_tag), why);
        }
        let by_default = [on, off].into_iter().flatten().find(|policy| policy.opt_out || policy.fallback.is_some());
        if let Some(policy) = by_default {
            let (what, value) = match &policy.fallback {
                Some(fallback) => ("fallback-schedule", fallback.as_str()),
                None => ("opt-out", "on"),
            };
            if let Ok(found) = hours(value, on, off, event.holidays.is_some()) {
                event.hours.entry(value.to_owned()).or_insert_with(|| {
                    Hours::new(Texts(vec![found.text]), found.zone.name(), &event.timezone, found.start)
                });
            }
            let whom = if untagged.is_empty() { "what has no tag".to_owned() } else { shortened(&untagged) };
            notes.left_out(
                &policy.name,
                what,
                format!("without the tag {} an instance has no hours: tag {whom} with {value:?}", event.hours_tag),
            );
        }
        Ok(event)
    }
}

/// Writes the first few ids, and counts the rest.
fn shortened(ids: &[&str]) -> String {
    match ids.len() {
        0..=3 => ids.join(", "),
        many => format!("{} and {} more", ids[..2].join(", "), many - 2),
    }
}

/// Returns the filters that all have to match, without the `and` around some.
fn flat(filters: &[Value]) -> Vec<&Value> {
    let both = |filter: &'_ Value| {
        filter.as_object().and_then(single).is_some_and(|(key, all)| key == "and" && all.is_array())
    };
    let mut flattened = Vec::new();
    for filter in filters {
        match filter["and"].as_array() {
            Some(all) if both(filter) => flattened.extend(flat(all)),
            _ => flattened.push(filter),
        }
    }
    flattened
}

fn side(filter: &Value) -> Option<Side> {
    match filter.as_str().or_else(|| filter["type"].as_str())? {
        "onhour" => Some(Side::On),
        "offhour" => Some(Side::Off),
        _ => None,
    }
}

/// Finds a filter on hours, and the innermost `or` or `not` that it is in.
fn hidden_hours(value: &Value, inside: &'static str) -> Option<(&'static str, &'static str)> {
    let within = |key: &str| match key {
        "or" => "an or",
        "not" => "a not",
        _ => inside,
    };
    match (side(value), value) {
        (Some(Side::On), _) => Some(("onhour", inside)),
        (Some(Side::Off), _) => Some(("offhour", inside)),
        (None, Value::Array(items)) => items.iter().find_map(|item| hidden_hours(item, inside)),
        (None, Value::Object(fields)) => fields.iter().find_map(|(key, value)| hidden_hours(value, within(key))),
        (None, _) => None,
    }
}

fn read(
    name: &str,
    filter: &Value,
    filters: &[&Value],
    policy: &Value,
    notes: &mut Notes,
) -> Result<Policy, (String, String)> {
    let no = |what: String, why: &str| Err((what, why.to_owned()));
    let side = side(filter).unwrap_or(Side::On);
    let (word, hour, action) = match side {
        Side::On => ("onhour", 7, "start"),
        Side::Off => ("offhour", 19, "stop"),
    };
    let text = |field: &str| filter[field].as_str().map(str::to_owned);
    let flag = |field: &str, default: bool| filter[field].as_bool().unwrap_or(default);
    let hour = match &filter[word] {
        Value::Null => hour,
        hour => match hour.as_u64() {
            Some(hour @ 0..24) => hour as usize,
            _ => return no(format!("{word} {hour}"), "it is no hour from 0 to 23"),
        },
    };
    let days: Vec<usize> = match (flag("weekends-only", false), flag("weekends", true), side) {
        (true, _, Side::On) => vec![0],
        (true, _, Side::Off) => vec![4],
        (false, true, _) => (0..5).collect(),
        (false, false, _) => (0..7).collect(),
    };
    let zone = text("default_tz").unwrap_or_else(|| DEFAULT_ZONE.to_owned());
    if self::zone(&zone).is_none() {
        return no(format!("default_tz {zone:?}"), "there is no such time zone");
    }
    if !filter["skip-days-from"].is_null() {
        notes.lost(
            name,
            "skip-days-from",
            "an event lists its days: write them into holidays.add, and \"; PH off\" behind the hours",
        );
    }
    let selection = selection(filters)?;
    let actions = policy["actions"].as_array().map_or(&[][..], Vec::as_slice);
    let kind = |action: &Value| action.as_str().or_else(|| action["type"].as_str()).unwrap_or_default().to_owned();
    let Some(switch) = actions.iter().find(|it| kind(it) == action) else {
        return no(format!("actions without {action}"), "it doesn't switch instances");
    };
    if switch["force"].as_bool() == Some(true) {
        notes.lost(name, "force", "Curfew never forces a stop");
    }
    for other in actions.iter().map(kind).filter(|other| other != action) {
        notes.lost(name, format!("action {other}"), "Curfew stops and starts, and nothing else");
    }
    let skip_days = filter["skip-days"].as_array().into_iter().flatten().filter_map(|day| day.as_str()?.get(..10));
    Ok(Policy {
        name: name.to_owned(),
        side,
        tag: text("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned()).to_lowercase(),
        zone,
        default: days.into_iter().map(|day| day * 24 + hour).collect(),
        opt_out: flag("opt-out", false),
        fallback: text("fallback-schedule").or_else(|| text("fallback_schedule")),
        skip_days: skip_days.map(str::to_owned).collect(),
        hibernate: switch["hibernate"].as_bool() == Some(true),
        selection,
    })
}

/// Says a policy's other filters in the event's words. One that can't be said would widen what is switched: then there is none.
fn selection(filters: &[&Value]) -> Result<Selection, (String, String)> {
    let mut selection = Selection::default();
    let [tags, filters_of_ec2, except] = &mut selection;
    for filter in filters.iter().filter(|filter| side(filter).is_none()) {
        let unsaid = || {
            (
                format!("filter {filter}"),
                "it can't be said of an event's instances: take it out of a copy of the file, if it doesn't matter"
                    .to_owned(),
            )
        };
        let (negated, filter) = match filter["not"].as_array().map(Vec::as_slice) {
            Some([one]) => (true, one),
            _ => (false, *filter),
        };
        let (key, op, value) = condition(filter).ok_or_else(unsaid)?;
        let values: Vec<String> = match (&value, op.as_str()) {
            (Value::String(value), "glob") => vec![value.clone()],
            (Value::String(value), _) => vec![literal(value)],
            (Value::Array(values), "in" | "not-in" | "ni") => {
                values.iter().map(|value| value.as_str().map(literal)).collect::<Option<_>>().ok_or_else(unsaid)?
            }
            (Value::Null, _) => vec!["*".to_owned()],
            _ => return Err(unsaid()),
        };
        let matches = match op.as_str() {
            "eq" | "equal" | "in" | "glob" | "present" | "not-null" => !negated,
            "ne" | "not-equal" | "not-in" | "ni" | "absent" | "empty" => negated,
            _ => return Err(unsaid()),
        };
        match (key.strip_prefix("tag:"), key.as_str(), matches) {
            // Of these Curfew sees to itself.
            (None, "State.Name", true) | (Some("aws:autoscaling:groupName"), _, false) => {}
            (Some(tag), _, true) => drop(tags.insert(tag.to_owned(), Texts(values))),
            (Some(tag), _, false) => except.entry(tag.to_owned()).or_default().0.extend(values),
            (None, "VpcId", true) => drop(filters_of_ec2.insert("vpc-id".to_owned(), Texts(values))),
            (None, "SubnetId", true) => drop(filters_of_ec2.insert("subnet-id".to_owned(), Texts(values))),
            (None, "InstanceType", true) => drop(filters_of_ec2.insert("instance-type".to_owned(), Texts(values))),
            _ => return Err(unsaid()),
        }
    }
    Ok(selection)
}

/// Reads a filter on a value: its key, how it is compared, with what.
fn condition(filter: &Value) -> Option<(String, String, Value)> {
    let fields = filter.as_object()?;
    let text = |field: &str| fields.get(field).and_then(Value::as_str);
    let by_word = |value: &Value, op: Option<&str>| match value.as_str() {
        Some(word @ ("present" | "absent" | "not-null" | "empty")) => (word.to_owned(), Value::Null),
        _ => (op.unwrap_or(if value.is_array() { "in" } else { "eq" }).to_owned(), value.clone()),
    };
    match text("type") {
        Some("value") if fields.keys().all(|key| ["type", "key", "op", "value"].contains(&key.as_str())) => {
            let (op, value) = by_word(fields.get("value")?, text("op"));
            Some((text("key")?.to_owned(), op, value))
        }
        Some("state-name") | Some(_) => None,
        None => single(fields).map(|(key, value)| {
            let (op, value) = by_word(value, None);
            (key.clone(), op, value)
        }),
    }
}

fn single(fields: &Map<String, Value>) -> Option<(&String, &Value)> {
    fields.iter().next().filter(|_| fields.len() == 1)
}

/// Finds how instances write the tag: its filters don't tell capital letters from small ones, and Curfew does.
fn key(tag: &str, instances: &[Tagged], notes: &mut Notes) -> String {
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for instance in instances {
        for key in instance.tags.keys().filter(|key| key.to_lowercase() == tag) {
            keys.entry(key).or_default().push(&instance.id);
        }
    }
    let most = keys.iter().max_by_key(|(_, ids)| ids.len()).map_or(tag, |(key, _)| *key);
    for (key, ids) in keys.iter().filter(|(key, _)| **key != most) {
        notes.left_out(
            key,
            format!("tag {key}"),
            format!("an event has one tag, {most}, and its case counts: give it to {}", shortened(ids)),
        );
    }
    most.to_owned()
}

fn skipped_days(on: Option<&Policy>, off: Option<&Policy>, event: &mut Event, notes: &mut Notes) {
    let days = |policy: Option<&Policy>| policy.map(|policy| policy.skip_days.clone()).unwrap_or_default();
    // Where only one side skips a day, that is the morning's: it stays off.
    let (days, stops_on) = if on.is_some() { (days(on), days(off)) } else { (days(off), BTreeSet::new()) };
    for day in stops_on.difference(&days) {
        let name = off.map_or("", |off| &off.name);
        notes.lost(
            name,
            format!("skip-days {day}"),
            "only the policy that stops skips it: an instance that is on is stopped on that day, too",
        );
    }
    if !days.is_empty() {
        event.holidays = Some(Holidays { add: days });
    }
}

/// What a tag's value comes to.
struct Found {
    text: String,
    zone: Tz,
    start: bool,
    lost: Vec<(String, String)>,
}

/// Makes hours of a tag's value, with what the policies say by default.
fn hours(value: &str, on: Option<&Policy>, off: Option<&Policy>, holidays: bool) -> Result<Found, (String, String)> {
    let edges = |policy: Option<&Policy>| policy.map(|policy| edges(&plain(value), policy)).transpose();
    let unread = |why: String| ("value".to_owned(), why);
    let (ons, offs) = (edges(on).map_err(unread)?, edges(off).map_err(unread)?);
    let zone = match (&ons, &offs) {
        (Some((on, _)), Some((off, _))) if on != off => {
            return Err((
                "default_tz".to_owned(),
                format!("it starts by {on} and stops by {off}: a schedule has one time zone"),
            ));
        }
        (Some((zone, _)), _) | (_, Some((zone, _))) => *zone,
        (None, None) => return Err(("policies".to_owned(), "there are none".to_owned())),
    };
    let hours_of = |side: Option<(Tz, Vec<usize>)>| side.map(|(_, hours)| hours).unwrap_or_default();
    let (ons, offs) = (hours_of(ons), hours_of(offs));
    let mut lost = Vec::new();
    let (week, start) = match (ons.is_empty(), offs.is_empty()) {
        (_, true) => {
            return Err(("onhour without offhour".to_owned(), "started by hours, stopped by people: hours do both; write a plain start instead, with \"action\": \"start\"".to_owned()));
        }
        (true, false) => (stops_only(&offs), false),
        (false, false) => {
            let mut wants = vec![Want::Any; WEEK];
            ons.iter().for_each(|hour| wants[hour * 60] = Want::On);
            for hour in &offs {
                if wants[hour * 60] == Want::On {
                    lost.push((
                        "on and off at the same hour".to_owned(),
                        "which comes last is chance there; here it is off".to_owned(),
                    ));
                }
                wants[hour * 60] = Want::Off;
            }
            let week = carry_on(&wants).ok_or_else(|| ("value".to_owned(), "it says nothing".to_owned()))?;
            (week, true)
        }
    };
    let mut text = week
        .write()
        .ok_or_else(|| ("value".to_owned(), "it is never on: what should stay off is stopped by hand".to_owned()))?;
    if holidays && week.is_open_over_days() {
        let why = "its hours last longer than a day: \"PH off\" would stop it on such a day, there it runs on; so these days are as others";
        lost.push(("skip-days".to_owned(), why.to_owned()));
    } else if holidays {
        text.push_str("; PH off");
    }
    Ok(Found { text, zone, start, lost })
}

/// Opens hours that only stop: from midnight to the hour, so that the next closing is always the next stop.
fn stops_only(offs: &[usize]) -> Week {
    let mut open = vec![false; WEEK];
    for end in offs.iter().map(|hour| hour * 60) {
        let midnight = if end % DAY == 0 { DAY } else { end % DAY };
        let before =
            offs.iter().map(|hour| (end + WEEK - hour * 60) % WEEK).filter(|ago| *ago > 0).min().unwrap_or(WEEK);
        // Two stops on a day need hours apart from each other.
        let minutes = midnight.min(before - 30);
        (1..=minutes).for_each(|ago| open[(end + WEEK - ago) % WEEK] = true);
    }
    Week(open)
}

/// Returns a value as it reads it: without its own escapes, quotes and capital letters.
fn plain(value: &str) -> String {
    let value =
        ESCAPES.iter().fold(value.to_lowercase(), |value, (escape, character)| value.replace(escape, character));
    value.trim_matches('\'').trim_matches('"').to_owned()
}

/// Returns the hours of a week at which a policy switches what has this value, and in which zone.
fn edges(value: &str, policy: &Policy) -> Result<(Tz, Vec<usize>), String> {
    let value = value.split(';').filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(";");
    let pairs = value
        .split([' ', ';'])
        .filter_map(|piece| Some(piece.split_once('=')?).filter(|(_, value)| !value.contains('=')));
    let pairs: BTreeMap<&str, &str> = pairs.collect();
    if let Some(key) = pairs.keys().find(|key| !["on", "off", "tz"].contains(key)) {
        return Err(format!("{key:?} is neither on, off nor tz, and Custodian leaves it alone, too"));
    }
    let word = if policy.side == Side::On { "on" } else { "off" };
    let mut hours = policy.default.clone();
    if pairs.contains_key(word) {
        for piece in value.split(';') {
            let parsed = match piece.split_once('=') {
                Some(("tz", zone)) if !zone.contains('=') => Some((word, None, zone)),
                Some((key, text)) => times(text).map(|times| (key, Some(times), text)),
                None => None,
            };
            match parsed {
                None => return Err(format!("{piece:?} can't be read, and Custodian leaves it alone, too")),
                Some((key, Some(times), _)) if key == word => hours = times,
                Some(_) => {}
            }
        }
    }
    let own = pairs.get("tz").copied().filter(|zone| !zone.is_empty());
    let zone = own.unwrap_or(&policy.zone);
    let zone = self::zone(zone)
        .ok_or_else(|| format!("there is no time zone {zone:?}, and Custodian leaves it alone, too"))?;
    Ok((zone, hours))
}

/// Reads times like `(m-f,19)` or `[(m-f,21),(u,18)]` as hours of a week.
fn times(text: &str) -> Option<Vec<usize>> {
    let mut hours = Vec::new();
    for part in text.replace(['[', ']'], "").split(",(") {
        let part = part.replace(['(', ')'], "");
        let (days, hour) = part.split_once(',')?;
        let hour = hour.parse::<usize>().ok().filter(|hour| *hour < 24)?;
        let day = |name: &str| DAYS.find(name).filter(|_| name.len() == 1);
        let days: Vec<usize> = match (day(days), days.split_once('-')) {
            (Some(day), _) => vec![day],
            (None, Some((first, last))) => match (day(first)?, day(last)?) {
                (first, last) if first <= last => (first..=last).collect(),
                (first, last) => (first..7).chain(0..=last).collect(),
            },
            (None, None) => return None,
        };
        hours.extend(days.into_iter().map(|day| day * 24 + hour));
    }
    Some(hours)
}

/// Finds a zone by what Custodian calls it.
fn zone(name: &str) -> Option<Tz> {
    let name = name.to_lowercase();
    let alias = ZONES.iter().find(|(alias, _)| *alias == name).map(|(_, zone)| *zone);
    let name = alias.unwrap_or(&name);
    chrono_tz::TZ_VARIANTS.into_iter().find(|zone| zone.name().eq_ignore_ascii_case(name))
}
