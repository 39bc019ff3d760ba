//! When a schedule's `cron(…)` fires, as EventBridge reads it.

use std::path::Path;

use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Direction;
use croner::parser::{CronParser, Seconds, Year};
use ec2_curfew::wording::quote_str;

use crate::problem::Problem;

/// The fields, and what they take (EventBridge user guide, "Cron expressions").
const FIELDS: [(&str, &str); 6] = [
    ("the minutes", "they are 0 to 59"),
    ("the hours", "they are 0 to 23"),
    ("the day of the month", "it is 1 to 31, L or W after a day"),
    ("the month", "it is 1 to 12, or JAN to DEC"),
    ("the day of the week", "it is 1 to 7, from Sunday on, or SUN to SAT"),
    ("the year", "it is 1970 to 2199"),
];
const YEARS: std::ops::RangeInclusive<u32> = 1970..=2199;
const LIKE: &str = "write it like \"cron(0 19 ? * MON-FRI *)\"";

fn cannot_be(nth: usize, text: &str) -> String {
    let (field, takes) = FIELDS[nth];
    format!("{field} can't be {}: {takes}", quote_str(text))
}

/// A cron in a time zone; none fires where it is `off`.
#[derive(Clone, Debug)]
pub(crate) struct Cron {
    /// As it is written.
    pub(crate) text: String,
    zone: Tz,
    cron: Option<croner::Cron>,
}

impl Cron {
    /// Reads one as it is given to EventBridge: six fields, Sunday is 1, one of the two days is `?`.
    ///
    /// # Errors
    /// What is wrong with it, and how it is written.
    pub(crate) fn parse(text: &str, zone: Tz) -> Result<Self, Problem> {
        let cron = if text == "off" { None } else { Some(Self::read(text)?) };
        Ok(Self { text: text.to_owned(), zone, cron })
    }

    fn read(text: &str) -> Result<croner::Cron, Problem> {
        let wrong = |why: &str| Problem::new(format!("{}: {why}", quote_str(text))).help(LIKE);
        let fields = text.trim().strip_prefix("cron(").and_then(|text| text.strip_suffix(')'));
        let fields: Vec<&str> =
            fields.ok_or_else(|| wrong("not a cron expression of EventBridge's"))?.split_whitespace().collect();
        let [minutes, hours, day, month, weekday, year] = fields[..] else {
            return Err(wrong(&format!("{} fields, EventBridge wants six", fields.len())));
        };
        if (day == "?") == (weekday == "?") {
            return Err(wrong("one of day of the month and day of the week must be \"?\", and only one"));
        }
        // What croner has and EventBridge hasn't.
        if weekday.starts_with('+') || text.contains('@') {
            return Err(wrong("not a cron expression of EventBridge's"));
        }
        // Alone it is the week's last day.
        let weekday = if weekday == "L" { "7" } else { weekday };
        let parser = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Required)
            .alternative_weekdays(true)
            .sloppy_ranges(true)
            .build();
        let fields = [minutes, hours, day, month, weekday, year];
        let parse = |fields: [&str; 6]| parser.parse(&format!("0 {}", fields.join(" ")));
        // Croner knows all years.
        let years = year.split([',', '-']).filter_map(|text| text.split('/').next()?.parse::<u32>().ok());
        if years.into_iter().any(|year| !YEARS.contains(&year)) {
            return Err(wrong(&cannot_be(5, year)));
        }
        // Which field it is, it doesn't say: the one that is wrong alone.
        let is_wrong = |nth: &usize| {
            let mut alone = ["*"; 6];
            alone[*nth] = fields[*nth];
            parse(alone).is_err()
        };
        parse(fields).map_err(|error| match (0..fields.len()).find(is_wrong) {
            Some(nth) => wrong(&cannot_be(nth, fields[nth])),
            None => wrong(&error.to_string()),
        })
    }

    /// Returns when it fires from a moment to before another; and, if that is earlier, when it did last.
    ///
    /// A time that a clock change skips is skipped; of one that it repeats, only the first counts (EventBridge Scheduler's
    /// user guide, "Daylight savings time").
    pub(crate) fn firings(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let Some(cron) = &self.cron else { return Vec::new() };
        // As if local time were UTC: what a clock change means is EventBridge's to say, not croner's.
        let as_utc = |moment: DateTime<Utc>| moment.with_timezone(&self.zone).naive_local().and_utc();
        let moment = |local: NaiveDateTime| self.zone.from_local_datetime(&local).earliest().map(|at| at.to_utc());
        let (first, last) = (as_utc(from), as_utc(to) + TimeDelta::days(1));
        let before = cron.find_previous_occurrence(&first, false).ok();
        let then = cron.iter_from(first, Direction::Forward).take_while(|at| *at < last);
        before.into_iter().chain(then).filter_map(|at| moment(at.naive_utc())).filter(|at| *at < to).collect()
    }

    /// Returns its time zone.
    pub(crate) fn zone(&self) -> Tz {
        self.zone
    }
}

/// What infra/parameters.yaml says of when the function is invoked.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// When it stops.
    pub(crate) stop: String,
    /// When it starts.
    pub(crate) start: String,
    /// The zone of both.
    pub(crate) zone: Tz,
}

impl Parameters {
    /// Reads them: a line for each, `Key: value  # comment`.
    ///
    /// # Errors
    /// There is no such file, or it doesn't name them.
    pub(crate) fn read(file: &Path) -> Result<Self, Problem> {
        let name = file.display();
        let help = "name the file with --parameters, or write when with --cron 'cron(0 19 ? * MON-FRI *)', once for each event";
        let text = std::fs::read_to_string(file)
            .map_err(|error| Problem::new(format!("can't read {name}: {error}")).help(help))?;
        let value = |key: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let value = rest.map(|rest| rest.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']));
            value.ok_or_else(|| Problem::new(format!("{name}: {key}: missing")).help(help))
        };
        let zone = value("Timezone")?;
        let zone = zone
            .parse()
            .map_err(|_| Problem::new(format!("{name}: Timezone: {} is not an IANA time zone", quote_str(zone))))?;
        Ok(Self { stop: value("StopAt")?.to_owned(), start: value("StartAt")?.to_owned(), zone })
    }
}
