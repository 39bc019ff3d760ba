//! AWS Instance Scheduler's schedules and periods → running hours.
//!
//! Its rules are those of its implementation guide, "Schedule reference" and "Period reference": a period wants its
//! instances on or off, or has no say; of several, on goes before no say, and that before off.

use std::collections::{BTreeMap, BTreeSet};

use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::event::{Event, Hours, Notes, Texts};
use super::week::{DAY, Want, carry_on, joined, ranges, times, weekday, weekdays};
use crate::problem::Problem;

/// Characters of a text of hours, and texts of a schedule: what the function takes.
const MAX_TEXT: usize = 256;
const MAX_TEXTS: usize = 24;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Days of each month, in a leap year.
const DAYS: [usize; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// An item of the table: its fields by name, in small letters without underscores, as its command line writes them
/// otherwise than its table does.
type Item = BTreeMap<String, Value>;

/// What its table holds.
#[derive(Debug, Default)]
pub(super) struct Table {
    schedules: BTreeMap<String, Item>,
    periods: BTreeMap<String, Item>,
    settings: Item,
}

impl Table {
    /// Takes in a document: the answer of a scan, or what `describe-schedules` or `describe-periods` print.
    ///
    /// # Errors
    /// It is none of these, in words.
    pub(super) fn add(&mut self, document: Value) -> Result<(), String> {
        let Value::Object(mut document) = document else {
            return Err("expected an object with Items, Schedules or Periods".to_owned());
        };
        let mut known = false;
        for (key, kind) in [("Items", None), ("Schedules", Some("schedule")), ("Periods", Some("period"))] {
            match document.remove(key) {
                None => continue,
                Some(Value::Array(items)) => items.into_iter().for_each(|item| self.add_item(item, kind)),
                Some(_) => return Err(format!("{key}: expected a list")),
            }
            known = true;
        }
        if known { Ok(()) } else { Err("it has none of Items, Schedules and Periods".to_owned()) }
    }

    fn add_item(&mut self, item: Value, kind: Option<&str>) {
        let Value::Object(fields) = item else { return };
        let plain = |(key, value): (String, Value)| (key.to_lowercase().replace('_', ""), untyped(value));
        let item: Item = fields.into_iter().map(plain).collect();
        let kind = kind.or_else(|| text(&item, "type")).unwrap_or_default().to_owned();
        let name = text(&item, "name").unwrap_or_default().to_owned();
        match kind.as_str() {
            "schedule" => drop(self.schedules.insert(name, item)),
            "period" => drop(self.periods.insert(name, item)),
            "config" => self.settings = item,
            _ => {}
        }
    }

    /// Whether it holds no schedule.
    pub(super) fn is_empty(&self) -> bool {
        self.schedules.is_empty()
    }

    /// Makes an event of it; `tag` and `zone` go before what its settings say.
    ///
    /// # Errors
    /// No schedule of it can be carried over.
    pub(super) fn event(&self, tag: Option<&str>, zone: Option<Tz>, notes: &mut Notes) -> Result<Event, Problem> {
        let tag = tag.or_else(|| text(&self.settings, "tagname")).unwrap_or("Schedule");
        let default = zone.map(|zone| zone.name().to_owned());
        let default = default.or_else(|| text(&self.settings, "defaulttimezone").map(str::to_owned));
        let mut event = Event::new(tag, default.as_deref().unwrap_or("UTC"));
        event.regions = texts(&self.settings, "regions");
        self.what_settings_lose(notes);
        let (mut hibernating, mut others) = (Vec::new(), 0);
        for (name, schedule) in &self.schedules {
            if default.is_none() && text(schedule, "timezone").is_none() {
                notes.lost(
                    name,
                    "time zone",
                    "the table doesn't say the default one: UTC is taken, or what --timezone says",
                );
            }
            match self.hours(name, schedule, &event.timezone, notes) {
                Ok(Some(hours)) => {
                    event.hours.insert(name.clone(), hours);
                    if flag(schedule, "hibernate") == Some(true) { hibernating.push(name) } else { others += 1 }
                }
                Ok(None) => event.except(name),
                Err((what, why)) => {
                    notes.left_out(name, what, why);
                    event.except(name);
                }
            }
            if name.is_empty() || name.chars().count() > MAX_TEXT {
                event.hours.remove(name);
                notes.left_out(name, "name", "no tag can have it as its value");
            }
            if event.hours.contains_key(name) {
                what_is_lost(name, schedule, notes);
            }
        }
        event.hibernate = others == 0 && !hibernating.is_empty();
        for name in hibernating.into_iter().filter(|_| others > 0) {
            notes.lost(name, "hibernate", "an event hibernates all that are configured for it or none: give these an event of their own, with \"hibernate\": true");
        }
        Ok(event)
    }

    /// Notes what its settings say that an event made of them doesn't.
    fn what_settings_lose(&self, notes: &mut Notes) {
        let settings = &self.settings;
        let mut lost = |what: String, why: &str| notes.lost("its configuration", what, why);
        if settings.is_empty() {
            lost(
                "accounts and regions".to_owned(),
                "what was given doesn't tell them: the event is about the function's own account and region; write \"accounts\", \"role\" and \"regions\" into it",
            );
        }
        for (field, name) in [("remoteaccountids", "remote_account_ids"), ("crossaccountroles", "cross_account_roles")]
        {
            let accounts = texts(settings, field);
            if !accounts.is_empty() {
                lost(
                    format!("{name} {}", accounts.join(", ")),
                    "the event is about the function's own account: once these have a role for it, write \"accounts\" and \"role\" into the event (infra/README.md, \"An organization, and thousands of instances\")",
                );
            }
        }
        if let Some(organization) = text(settings, "organizationid").filter(|id| !id.is_empty()) {
            lost(
                format!("organization_id {organization}"),
                "its accounts don't report themselves: infra/organization.yaml brings them the role, and runs over all that have it",
            );
        }
        if flag(settings, "schedulelambdaaccount") == Some(false) {
            lost(
                "schedule_lambda_account false".to_owned(),
                "it leaves out the account that it is in; the event is about the function's own",
            );
        }
        let mut services = texts(settings, "scheduledservices");
        services.retain(|service| service != "ec2");
        if !services.is_empty() {
            lost(
                format!("scheduled_services {}", services.join(", ")),
                "Curfew switches EC2 instances only: for these, leave Instance Scheduler on",
            );
        }
        for (field, name) in [("startedtags", "started_tags"), ("stoppedtags", "stopped_tags")] {
            if let Some(tags) = text(settings, field).filter(|tags| !tags.is_empty()) {
                lost(format!("{name} {tags}"), "Curfew writes no tag but its own, curfew:stopped-at");
            }
        }
    }

    /// Makes hours of a schedule; none where it is spared.
    fn hours(
        &self,
        name: &str,
        schedule: &Item,
        zone: &str,
        notes: &mut Notes,
    ) -> Result<Option<Hours>, (String, String)> {
        let own = text(schedule, "timezone").unwrap_or(zone);
        if own.parse::<Tz>().is_err() {
            return Err((
                format!("time zone {own:?}"),
                "it is no zone of the IANA's: write one like Europe/Berlin".to_owned(),
            ));
        }
        match text(schedule, "overridestatus").map(str::to_lowercase).as_deref() {
            None | Some("") => {}
            Some("running") => {
                notes.lost(
                    name,
                    "override_status running",
                    "its instances are spared (except_tags): nothing stops them, and nothing starts them",
                );
                return Ok(None);
            }
            Some("stopped") => {
                notes.left_out(
                    name,
                    "override_status stopped",
                    "hours that never open are none: stop these by hand, then they stay off",
                );
                return Ok(None);
            }
            Some(other) => {
                return Err((format!("override_status {other:?}"), "it is neither running nor stopped".to_owned()));
            }
        }
        let mut periods = Vec::new();
        for reference in texts(schedule, "periods") {
            let (period, kind) =
                reference.split_once('@').map_or((reference.as_str(), None), |(name, kind)| (name, Some(kind)));
            if let Some(kind) = kind {
                notes.lost(name, format!("{period}@{kind}"), "Curfew never changes an instance's type");
            }
            let Some(item) = self.periods.get(period) else {
                return Err((
                    format!("period {period:?}"),
                    "there is no such period: where it was exported alone, give the file with the periods, too"
                        .to_owned(),
                ));
            };
            periods.push(Period::read(item).map_err(|why| (format!("period {period:?}"), why))?);
        }
        if periods.is_empty() {
            return Err(("periods".to_owned(), "it has none".to_owned()));
        }
        let (texts, start) = hours_of(name, &periods, notes)?;
        if texts.len() > MAX_TEXTS {
            let why = format!("it takes {} texts to say, a schedule has at most {MAX_TEXTS}", texts.len());
            return Err(("periods".to_owned(), why));
        }
        Ok(Some(Hours::new(Texts(texts), own, zone, start)))
    }
}

/// Notes what a schedule says beside its hours.
fn what_is_lost(name: &str, schedule: &Item, notes: &mut Notes) {
    if flag(schedule, "enforced") == Some(true) {
        notes.lost(name, "enforced", "an opening or a closing acts once; between them people decide");
    }
    if flag(schedule, "retainrunning") == Some(true) {
        notes.lost(name, "retain_running", "what people have started before an opening is stopped at the next closing: tag it curfew:exempt, with an end or without");
    }
    if flag(schedule, "stopnewinstances") != Some(false) {
        notes.lost(name, "stop_new_instances", "what is launched in closed hours runs to the next closing");
    }
    let windows = texts(schedule, "ssmmaintenancewindow");
    if !windows.is_empty() {
        let what = format!("ssm_maintenance_window {}", windows.join(", "));
        notes.lost(name, what, "write its times into the schedule's list, or let the window write curfew:exempt with an end when it begins");
    } else if flag(schedule, "usemaintenancewindow") == Some(true) {
        notes.lost(
            name,
            "use_maintenance_window",
            "it is about RDS alone here, as no window of Systems Manager is named; Curfew switches EC2 instances only",
        );
    }
    if flag(schedule, "usemetrics") == Some(true) {
        notes.lost(name, "use_metrics", "Curfew's metrics are those of its runs");
    }
}

/// Makes texts of periods, and whether an opening starts.
fn hours_of(name: &str, periods: &[Period], notes: &mut Notes) -> Result<(Vec<String>, bool), (String, String)> {
    if periods.iter().all(|period| period.dates.is_none() && period.plain_weekdays().is_some()) {
        return weekly(name, periods, notes);
    }
    let no = |what: &str, why: &str| Err((what.to_owned(), why.to_owned()));
    let stop_only = periods.iter().all(|period| period.begin.is_none() && period.end.is_some());
    if !stop_only && periods.iter().any(|period| period.is_one_sided()) {
        return no(
            "begintime or endtime alone",
            "with months, days of the month or nth weekdays its hours can't be said: write both times into the period",
        );
    }
    let mut all = Vec::new();
    for period in periods {
        let from = period.begin.unwrap_or(0);
        let end = period.end.unwrap_or(DAY);
        // Adjacent periods, a minute apart: it doesn't stop in between.
        let bridged = periods.iter().any(|next| next.begin == Some(end + 1));
        let text = period.texts(&times(from, end + usize::from(bridged)))?;
        all.extend(text);
    }
    match all.is_empty() {
        true => no("months and monthdays", "there is no such day"),
        false => Ok((all, !stop_only)),
    }
}

/// Makes a text of periods that know weekdays only: exactly, minute by minute.
fn weekly(name: &str, periods: &[Period], notes: &mut Notes) -> Result<(Vec<String>, bool), (String, String)> {
    let week = 7 * DAY;
    let at = |minute: usize| {
        let wants = periods.iter().map(|period| period.wants(minute / DAY, minute % DAY));
        wants.fold(Want::Off, |all, want| match (all, want) {
            (Want::On, _) | (_, Want::On) => Want::On,
            (Want::Any, _) | (_, Want::Any) => Want::Any,
            (Want::Off, Want::Off) => Want::Off,
        })
    };
    let raw: Vec<Want> = (0..week).map(at).collect();
    let is_on = |minute: usize| raw[minute % week] == Want::On;
    // Adjacent periods, a minute apart: it doesn't stop in between.
    let bridged = |minute: usize| periods.len() > 1 && is_on(minute + week - 1) && is_on(minute + 1);
    let wants: Vec<Want> = (0..week)
        .map(|minute| if raw[minute] == Want::Off && bridged(minute) { Want::On } else { raw[minute] })
        .collect();
    let has = |want| wants.contains(&want);
    match (has(Want::On), has(Want::Off), has(Want::Any)) {
        (true, false, true) => {
            return Err(("begintime alone, every day".to_owned(), "started by hours, stopped by people: hours do both; write a plain start instead, with \"action\": \"start\"".to_owned()));
        }
        (false, _, true) => {
            let open: Vec<bool> = wants.iter().map(|want| *want == Want::Any).collect();
            let text = super::week::Week(open).write().unwrap_or_default();
            return Ok((vec![text], false));
        }
        _ => {}
    }
    let folded = carry_on(&wants).ok_or_else(|| ("periods".to_owned(), "they say nothing".to_owned()))?;
    let before = |minute: usize| (minute + week - 1) % week;
    let comes = |to: Want, open: bool| {
        (0..week).find(|minute| {
            wants[*minute] == to && wants[before(*minute)] == Want::Any && folded.0[before(*minute)] == open
        })
    };
    let clock = |minute: usize| format!("{} {:02}:{:02}", weekday(minute / DAY), minute % DAY / 60, minute % 60);
    if let Some(minute) = comes(Want::On, true) {
        notes.lost(
            name,
            "begintime alone",
            format!("at {} it starts what people have stopped since; in open hours that stays off here", clock(minute)),
        );
    }
    if let Some(minute) = comes(Want::Off, false) {
        notes.lost(
            name,
            "endtime alone",
            format!(
                "at {} it stops what people have started since; in closed hours that runs to the next closing here",
                clock(minute)
            ),
        );
    }
    match folded.write() {
        Some(text) if text.len() <= MAX_TEXT => Ok((vec![text], true)),
        Some(_) => {
            Err(("periods".to_owned(), "their week is too long for one text: write the hours by hand".to_owned()))
        }
        None => Err(("periods".to_owned(), "they are never on: what should stay off is stopped by hand".to_owned())),
    }
}

/// A weekday, or one of a month's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weekday {
    Every(usize),
    Nth(usize, usize),
    Last(usize),
}

/// A day of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MonthDay {
    Day(usize),
    Last,
    /// The workday nearest to it, in the same month.
    Workday(usize),
}

/// Months, January being 0, and days in them; all of them where there are none.
#[derive(Clone, Debug)]
struct Dates {
    months: Option<BTreeSet<usize>>,
    days: Option<BTreeSet<MonthDay>>,
}

/// When instances should run; a condition that is missing always holds.
#[derive(Clone, Debug)]
struct Period {
    begin: Option<usize>,
    end: Option<usize>,
    weekdays: Option<BTreeSet<Weekday>>,
    dates: Option<Dates>,
}

impl Period {
    fn read(item: &Item) -> Result<Self, String> {
        let set = |field: &str| Some(texts(item, field)).filter(|texts| !texts.is_empty());
        let time =
            |field: &str| text(item, field).filter(|text| !text.is_empty()).map(|text| clock(field, text)).transpose();
        let begin = time("begintime")?;
        // A minute before midnight is its way to say midnight, and what it runs at is minutes later.
        let end = time("endtime")?.map(|end| if end == DAY - 1 { DAY } else { end });
        if let (Some(begin), Some(end)) = (begin, end)
            && begin >= end
        {
            return Err(
                "it ends before it begins: hours over midnight take two periods there, and one text here".to_owned()
            );
        }
        let weekdays = set("weekdays").map(|texts| read_weekdays(&texts)).transpose()?.flatten();
        let months = set("months").map(|texts| read_months(&texts)).transpose()?.flatten();
        let days = set("monthdays").map(|texts| read_days(&texts)).transpose()?.flatten();
        let dates = (months.is_some() || days.is_some()).then_some(Dates { months, days });
        if begin.is_none()
            && end.is_none()
            && weekdays.is_none()
            && dates.is_none()
            && ["weekdays", "months", "monthdays"].iter().all(|field| set(field).is_none())
        {
            return Err("it has no condition at all".to_owned());
        }
        Ok(Self { begin, end, weekdays, dates })
    }

    fn is_one_sided(&self) -> bool {
        self.begin.is_some() != self.end.is_some()
    }

    /// Returns its weekdays, if no month counts.
    fn plain_weekdays(&self) -> Option<Vec<usize>> {
        let Some(weekdays) = &self.weekdays else { return Some((0..7).collect()) };
        weekdays
            .iter()
            .map(|day| match day {
                Weekday::Every(day) => Some(*day),
                Weekday::Nth(..) | Weekday::Last(_) => None,
            })
            .collect()
    }

    /// Returns what it wants at a minute of a weekday.
    fn wants(&self, day: usize, minute: usize) -> Want {
        if !self.plain_weekdays().is_some_and(|days| days.contains(&day)) {
            return Want::Off;
        }
        match (self.begin, self.end) {
            (None, None) => Want::On,
            (Some(begin), None) if minute >= begin => Want::On,
            (None, Some(end)) if minute >= end => Want::Off,
            (Some(_), None) | (None, Some(_)) => Want::Any,
            (Some(begin), Some(end)) if begin <= minute && minute < end => Want::On,
            (Some(_), Some(_)) => Want::Off,
        }
    }

    /// Writes it as texts, with these times.
    fn texts(&self, times: &str) -> Result<Vec<String>, (String, String)> {
        let Some(dates) = &self.dates else {
            return Ok(vec![
                [self.weekdays_text(None).unwrap_or_else(|| "Mo-Su".to_owned()), times.to_owned()].join(" "),
            ]);
        };
        let mut texts = Vec::new();
        for (dates, only) in dates.clauses()? {
            let weekdays = match only {
                None => self.weekdays_text(None),
                Some(only) => {
                    let Some(plain) = self.plain_weekdays() else {
                        return Err((
                            "monthdays with W".to_owned(),
                            "together with nth weekdays it can't be said".to_owned(),
                        ));
                    };
                    let both: Vec<usize> = plain.into_iter().filter(|day| only.contains(day)).collect();
                    if both.is_empty() {
                        continue;
                    }
                    self.weekdays_text(Some(&both))
                }
            };
            let tail = weekdays.map_or_else(|| format!(" {times}"), |days| format!(": {days} {times}"));
            let mut some = String::new();
            for date in dates {
                if !some.is_empty() && some.len() + 1 + date.len() + tail.len() > MAX_TEXT {
                    texts.push(std::mem::take(&mut some) + &tail);
                }
                some = if some.is_empty() { date } else { format!("{some},{date}") };
            }
            if !some.is_empty() {
                texts.push(some + &tail);
            }
        }
        Ok(texts)
    }

    /// Writes its weekdays, or these of them; nothing if any will do.
    fn weekdays_text(&self, these: Option<&[usize]>) -> Option<String> {
        let plain: Vec<usize> = match (these, &self.weekdays) {
            (Some(these), _) => these.to_vec(),
            (None, None) => return None,
            (None, Some(days)) => {
                days.iter().filter_map(|day| if let Weekday::Every(day) = day { Some(*day) } else { None }).collect()
            }
        };
        let mut parts = if plain.is_empty() { Vec::new() } else { vec![weekdays(&plain)] };
        for day in self.weekdays.iter().flatten().filter(|_| these.is_none()) {
            match day {
                // What is there in every week needs no counting.
                Weekday::Nth(day, _) | Weekday::Last(day) if plain.contains(day) => {}
                Weekday::Every(_) => {}
                Weekday::Nth(day, n) => parts.push(format!("{}[{n}]", weekday(*day))),
                Weekday::Last(day) => parts.push(format!("{}[-1]", weekday(*day))),
            }
        }
        Some(parts.join(","))
    }
}

/// Dates, as they are written one after the other, and the weekdays that they have to be.
type Clause = (Vec<String>, Option<Vec<usize>>);

impl Dates {
    fn clauses(&self) -> Result<Vec<Clause>, (String, String)> {
        let months: Vec<usize> =
            self.months.as_ref().map_or_else(|| (0..12).collect(), |months| months.iter().copied().collect());
        let Some(days) = &self.days else {
            let names =
                ranges(&months).into_iter().map(|(first, last)| joined(MONTHS[first], MONTHS[last], last - first));
            return Ok(vec![(names.collect(), None)]);
        };
        let (mut plain, mut friday, mut monday, mut workday) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for month in months {
            let date = |day: usize| format!("{} {day}", MONTHS[month]);
            let mut numbers = BTreeSet::new();
            for day in days {
                match *day {
                    MonthDay::Day(day) => drop(numbers.insert(day)),
                    // February's last day has two dates.
                    MonthDay::Last if month == 1 => plain.push("Mar 1 -1 day".to_owned()),
                    MonthDay::Last => drop(numbers.insert(DAYS[month])),
                    MonthDay::Workday(day) if month == 1 && day >= 28 => {
                        return Err((
                            format!("monthdays {day}W"),
                            "in February, whose end moves, it can't be said: leave February out, or write dates"
                                .to_owned(),
                        ));
                    }
                    MonthDay::Workday(day) if day > DAYS[month] => {}
                    MonthDay::Workday(day) => {
                        workday.push(date(day));
                        if day > 1 {
                            friday.push(date(day - 1))
                        } else {
                            monday.push(date(3))
                        }
                        if day < DAYS[month] { monday.push(date(day + 1)) } else { friday.push(date(day - 2)) }
                    }
                }
            }
            let numbers: Vec<usize> = numbers.into_iter().filter(|day| *day <= DAYS[month]).collect();
            plain.extend(ranges(&numbers).into_iter().map(|range| match range {
                (1, last) if last == DAYS[month] => MONTHS[month].to_owned(),
                (first, last) if first == last => date(first),
                (first, last) => format!("{} {first}-{last}", MONTHS[month]),
            }));
        }
        let clauses =
            [(plain, None), (workday, Some((0..5).collect())), (friday, Some(vec![4])), (monday, Some(vec![0]))];
        Ok(clauses.into_iter().filter(|(dates, _)| !dates.is_empty()).collect())
    }
}

/// Reads a time as minutes of the day.
fn clock(field: &str, text: &str) -> Result<usize, String> {
    let (hours, minutes) = text.split_once(':').unwrap_or((text, ""));
    // A row of older versions may have seconds.
    let minutes = minutes.strip_suffix(":00").unwrap_or(minutes);
    match (hours.parse(), minutes.parse()) {
        (Ok(hours @ 0..24usize), Ok(minutes @ 0..60usize)) => Ok(hours * 60 + minutes),
        _ => Err(format!("{field} {text:?}: it is no time like 09:00")),
    }
}

/// Reads weekdays; none if every one is meant.
fn read_weekdays(texts: &[String]) -> Result<Option<BTreeSet<Weekday>>, String> {
    let one = |name: &str| Values::WEEKDAYS.one(name);
    let mut days = BTreeSet::new();
    for text in texts {
        if let Some((day, n)) = text.split_once('#') {
            match (one(day), n.parse()) {
                (Some(day), Ok(n @ 1..=5)) => drop(days.insert(Weekday::Nth(day, n))),
                _ => return Err(format!("weekdays {text:?}: it is no nth weekday like mon#1")),
            }
        } else if let Some(day) = text.strip_suffix(['l', 'L']).and_then(one) {
            days.insert(Weekday::Last(day));
        } else {
            let values = Values::WEEKDAYS.read(text).ok_or_else(|| format!("weekdays {text:?}: it can't be read"))?;
            days.extend(values.into_iter().map(Weekday::Every));
        }
    }
    let every = (0..7).all(|day| days.contains(&Weekday::Every(day)));
    Ok((!every).then_some(days))
}

fn read_months(texts: &[String]) -> Result<Option<BTreeSet<usize>>, String> {
    let mut months = BTreeSet::new();
    for text in texts {
        months.extend(Values::MONTHS.read(text).ok_or_else(|| format!("months {text:?}: it can't be read"))?);
    }
    Ok((months.len() < 12).then_some(months))
}

fn read_days(texts: &[String]) -> Result<Option<BTreeSet<MonthDay>>, String> {
    let mut days = BTreeSet::new();
    for text in texts {
        let workday = text.strip_suffix(['w', 'W']).and_then(|day| Values::DAYS.one(day));
        match workday {
            Some(day) => drop(days.insert(MonthDay::Workday(day))),
            None if text.eq_ignore_ascii_case("l") => drop(days.insert(MonthDay::Last)),
            None => {
                let values = Values::DAYS.read(text).ok_or_else(|| format!("monthdays {text:?}: it can't be read"))?;
                days.extend(values.into_iter().map(MonthDay::Day));
            }
        }
    }
    let every = (1..=31).all(|day| days.contains(&MonthDay::Day(day)));
    Ok((!every).then_some(days))
}

/// Values that may be written by number or by name, in ranges and in steps.
struct Values {
    names: &'static [&'static str],
    /// What the first is written as, by number.
    offset: usize,
    first: usize,
    last: usize,
    /// Whether a range may go over the end.
    wraps: bool,
}

impl Values {
    const WEEKDAYS: Self = Self { names: &WEEKDAYS, offset: 0, first: 0, last: 6, wraps: true };
    const MONTHS: Self = Self { names: &MONTHS, offset: 1, first: 0, last: 11, wraps: true };
    const DAYS: Self = Self { names: &[], offset: 0, first: 1, last: 31, wraps: false };

    fn one(&self, text: &str) -> Option<usize> {
        let text = text.trim();
        // Of a name, three letters count.
        let name = text.get(..3).filter(|_| text.chars().all(|c| c.is_ascii_alphabetic()));
        if let Some(name) = name {
            return self.names.iter().position(|it| it.eq_ignore_ascii_case(name));
        }
        let value = text.parse::<usize>().ok()?.checked_sub(self.offset)?;
        (self.first..=self.last).contains(&value).then_some(value)
    }

    fn read(&self, text: &str) -> Option<Vec<usize>> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step.trim().parse().ok().filter(|step| *step > 0)?)),
            None => (text, None),
        };
        let end = |text: &str| if text.trim().eq_ignore_ascii_case("l") { Some(self.last) } else { self.one(text) };
        let (first, last) = match (range.trim(), range.split_once('-')) {
            ("*" | "?", _) => (self.first, self.last),
            (_, Some((first, last))) => (self.one(first)?, end(last)?),
            (one, None) => (end(one)?, if step.is_some() { self.last } else { end(one)? }),
        };
        let values: Vec<usize> = match first <= last {
            true => (first..=last).collect(),
            false if self.wraps => (first..=self.last).chain(self.first..=last).collect(),
            false => return None,
        };
        Some(values.into_iter().step_by(step.unwrap_or(1)).collect())
    }
}

fn text<'a>(item: &'a Item, field: &str) -> Option<&'a str> {
    item.get(field).and_then(Value::as_str)
}

fn flag(item: &Item, field: &str) -> Option<bool> {
    match item.get(field)? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.to_lowercase().parse().ok(),
        _ => None,
    }
}

/// Returns a set's texts, or those of a list with commas.
fn texts(item: &Item, field: &str) -> Vec<String> {
    let texts: Vec<&str> = match item.get(field) {
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => vec![text],
        _ => Vec::new(),
    };
    let mut texts: Vec<String> =
        texts.iter().flat_map(|text| text.split(',')).map(|text| text.trim().to_owned()).collect();
    texts.retain(|text| !text.is_empty());
    // A set has no order.
    texts.sort();
    texts
}

/// Takes DynamoDB's type from a value that has one.
fn untyped(value: Value) -> Value {
    const TYPES: [&str; 9] = ["S", "N", "BOOL", "SS", "NS", "L", "M", "NULL", "B"];
    match value {
        Value::Object(typed) if typed.len() == 1 && typed.keys().all(|key| TYPES.contains(&key.as_str())) => {
            typed.into_iter().next().map_or(Value::Null, |(kind, value)| match (kind.as_str(), value) {
                ("NULL", _) => Value::Null,
                ("L", Value::Array(values)) => values.into_iter().map(untyped).collect(),
                ("M", Value::Object(fields)) => {
                    fields.into_iter().map(|(key, value)| (key, untyped(value))).collect::<Map<_, _>>().into()
                }
                (_, value) => value,
            })
        }
        value => value,
    }
}
