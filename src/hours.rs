//! Running hours: what people write into tags, whether it is open at a moment, and since when.
//!
//! Pure: must not know EC2, the environment, the request or the clock; the moment is an argument.
//!
//! - `osm.rs` reads a text: it alone names the crates that know OpenStreetMap's grammar and the calendar.
//! - `refusal.rs` says what is wrong with a text, and `repair.rs` finds the nearest right one; `words.rs` knows what
//!   people write instead.
//! - The evaluation is ours, in this file: the crate's own search is unbounded, and gives a span over midnight to the
//!   day on which it ends.
//! - `read.rs` reads the request's `hours` and `holidays`, and finds the schedule that a tag's value means.

mod osm;
pub mod read;
mod refusal;
mod repair;
mod words;

use chrono::{DateTime, Days, MappedLocalTime, Months, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;

pub use osm::Holidays;
pub use refusal::{BadHours, Fault};

use crate::instance::to_utc;

/// How many days to search for an edge, one attempt after the other: a week contains nearly all of them, a month most of
/// the others. An edge further away than the last doesn't count: nobody remembers what it meant.
const SEARCHED_DAYS: [u64; 3] = [8, 40, 400];

/// When something runs: one text or several in a time zone; it is open when any of them is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    texts: Vec<Rules>,
    zone: Tz,
    holidays: Holidays,
}

/// Whether hours are open at a moment, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether they are open.
    pub open: bool,
    /// The last edge at or before the moment; none if there was none within 400 days.
    pub edge: Option<DateTime<Utc>>,
}

/// The moment at which hours open or close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// When.
    pub at: DateTime<Utc>,
    /// Whether they open then.
    pub opens: bool,
}

/// A text's rules, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules(Vec<Rule>);

/// What a rule does to the days it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    days: osm::Days,
    effect: Effect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Effect {
    /// Replaces what the day had.
    Open(Vec<Span>),
    /// Clears the day.
    Off,
    /// Cuts these out of the day.
    Cut(Vec<Span>),
}

/// Minutes since the midnight with which a day begins, up to 48:00: a span belongs to the day on which it begins.
type Span = std::ops::Range<u16>;

impl Hours {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with the text, and where; [`BadHours::advised`] adds what to write instead.
    pub fn parse(text: &str, zone: Tz, holidays: &Holidays) -> Result<Self, BadHours> {
        Self::parse_all([text], zone, holidays).map_err(|mut errors| errors.swap_remove(0).1)
    }

    /// Reads several texts, of which at least one has to be open.
    ///
    /// # Errors
    /// What is wrong with each faulty text, by its index.
    pub fn parse_all<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        zone: Tz,
        holidays: &Holidays,
    ) -> Result<Self, Vec<(usize, BadHours)>> {
        let (mut read, mut errors) = (Vec::new(), Vec::new());
        for (index, text) in texts.into_iter().enumerate() {
            match osm::read(text, holidays) {
                Ok(rules) => read.push(rules),
                Err(found) => errors.push((index, BadHours::new(text, found))),
            }
        }
        if errors.is_empty() { Ok(Self { texts: read, zone, holidays: holidays.clone() }) } else { Err(errors) }
    }

    /// Returns the time zone in which they are written.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// Returns the public holidays from `first` to `last` that have a say in them.
    #[must_use]
    pub fn holidays(&self, first: NaiveDate, last: NaiveDate) -> Vec<NaiveDate> {
        let asked = self.texts.iter().flat_map(|rules| &rules.0).any(|rule| rule.days.know_holidays());
        let days = first.iter_days().take_while(|day| *day <= last);
        days.filter(|day| asked && self.holidays.contains(*day)).collect()
    }

    /// Returns whether they are open, and since when; an edge at the moment itself counts.
    #[must_use]
    pub fn state_at(&self, moment: DateTime<Utc>) -> State {
        let today = moment.with_timezone(&self.zone).date_naive();
        let mut open = false;
        for days in SEARCHED_DAYS {
            let Some(first) = today.checked_sub_days(Days::new(days)) else { break };
            // The day before is included for what it leaves open after midnight. It may itself have inherited something from
            // a day that isn't looked at, so an edge on it, or on the midnight after it, proves nothing.
            let spans = self.spans(first - Days::new(1), today);
            let running = spans.iter().find(|(from, to)| *from <= moment && moment < *to).map(|(from, _)| *from);
            open = running.is_some();
            let closed = || spans.iter().map(|(_, to)| *to).rfind(|to| *to <= moment);
            let edge = running.or_else(closed).filter(|edge| self.midnight(first).is_some_and(|begun| *edge > begun));
            if edge.is_some() {
                return State { open, edge };
            }
        }
        State { open, edge: None }
    }

    /// Returns the first edge after a moment; none if there is none within 400 days.
    #[must_use]
    pub fn next_edge(&self, moment: DateTime<Utc>) -> Option<Edge> {
        let today = moment.with_timezone(&self.zone).date_naive();
        SEARCHED_DAYS.iter().find_map(|days| {
            let last = today.checked_add_days(Days::new(*days))?;
            // What begins with the day after the last would merge with what ends there.
            let known = self.midnight(last.succ_opt()?)?;
            let edges = |(from, to)| [Edge { at: from, opens: true }, Edge { at: to, opens: false }];
            let mut edges = self.spans(today - Days::new(2), last).into_iter().flat_map(edges);
            edges.find(|edge| edge.at > moment).filter(|edge| edge.at < known)
        })
    }

    /// Whether they are closed for good: not open within 400 days of the moment, before or after it.
    ///
    /// Before it, because the last day of hours that end still has to close.
    #[must_use]
    pub fn never_open(&self, moment: DateTime<Utc>) -> bool {
        let State { open, edge } = self.state_at(moment);
        !open && edge.is_none() && self.next_edge(moment).is_none()
    }

    /// Whether they are open in no year at all: not in those whose days fall as in all others, nor in a past one that they
    /// name.
    ///
    /// Costs milliseconds where they are not.
    #[must_use]
    pub fn open_in_no_year(&self, moment: DateTime<Utc>) -> bool {
        // In 28 years each date is each day of the week, and there are seven leap years.
        let years = Months::new(12 * 28);
        let today = moment.date_naive();
        let (first, last) = (today.checked_sub_months(years), today.checked_add_months(years));
        let (Some(first), Some(last)) = (first, last) else { return false };
        let mut days = first.iter_days().take_while(|day| *day <= last);
        !days.any(|day| self.texts.iter().any(|rules| !rules.on(day).is_empty()))
    }

    /// Returns what each of their texts says alone.
    fn each(&self) -> impl Iterator<Item = Self> {
        let alone =
            |rules: &Rules| Self { texts: vec![rules.clone()], zone: self.zone, holidays: self.holidays.clone() };
        self.texts.iter().map(alone)
    }

    /// Returns what they would be if no day were a holiday.
    #[must_use]
    pub fn without_holidays(&self) -> Self {
        let rule = |rule: &Rule| Rule { days: rule.days.without_holidays(), effect: rule.effect.clone() };
        let texts = self.texts.iter().map(|rules| Rules(rules.0.iter().map(rule).collect())).collect();
        Self { texts, ..self.clone() }
    }

    /// Returns what is open on the days from `first` to `last`, in order and apart from each other.
    fn spans(&self, first: NaiveDate, last: NaiveDate) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        let days = first.iter_days().take_while(|day| *day <= last);
        let all = days.flat_map(|day| self.texts.iter().map(move |rules| (day, rules)));
        let mut spans: Vec<_> = all
            .flat_map(|(day, rules)| rules.on(day).into_iter().map(move |span| (day, span)))
            .filter_map(|(day, span)| Some((self.moment(day, span.start)?, self.moment(day, span.end)?)))
            // A clock change may skip it.
            .filter(|(from, to)| from < to)
            .collect();
        spans.sort_unstable();
        spans.dedup_by(|(from, to), (_, before)| {
            let meets = *from <= *before;
            if meets {
                *before = (*before).max(*to);
            }
            meets
        });
        spans
    }

    fn midnight(&self, day: NaiveDate) -> Option<DateTime<Utc>> {
        self.moment(day, 0)
    }

    /// Returns the moment of a local time: one that is skipped means the moment of the change, one that is repeated the
    /// later one.
    fn moment(&self, day: NaiveDate, minutes: u16) -> Option<DateTime<Utc>> {
        let local = day.and_time(NaiveTime::MIN).checked_add_signed(TimeDelta::minutes(minutes.into()))?;
        to_utc(local, self.zone, MappedLocalTime::latest)
    }
}

impl Rules {
    /// Whether two rules open a day, so that the later undoes the earlier.
    fn open_twice(&self, day: NaiveDate) -> bool {
        self.0.iter().filter(|rule| matches!(rule.effect, Effect::Open(_)) && rule.days.contains(day)).count() > 1
    }

    /// Returns the open spans that begin on a day.
    fn on(&self, day: NaiveDate) -> Vec<Span> {
        // Backwards: whatever comes before the last rule that replaces or clears doesn't matter.
        let mut cuts = Vec::new();
        for rule in self.0.iter().rev().filter(|rule| rule.days.contains(day)) {
            match &rule.effect {
                Effect::Off => return Vec::new(),
                Effect::Cut(spans) => cuts.extend(spans),
                Effect::Open(spans) => return spans.iter().flat_map(|span| without(span.clone(), &cuts)).collect(),
            }
        }
        Vec::new()
    }
}

/// Returns what is left of a span.
fn without(span: Span, cuts: &[&Span]) -> Vec<Span> {
    cuts.iter().fold(vec![span], |left, cut| {
        let parts = |span: Span| [span.start..span.end.min(cut.start), span.start.max(cut.end)..span.end];
        left.into_iter().flat_map(parts).filter(|part| !part.is_empty()).collect()
    })
}

#[cfg(test)]
mod tests;
