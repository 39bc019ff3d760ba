//! What a takeover comes to: the event, and what doesn't carry over.

use std::collections::{BTreeMap, BTreeSet};

use anstyle::{AnsiColor, Style};
use chrono::Utc;
use ec2_curfew::request::Request;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::shown;
use crate::problem::Problem;

/// The event of a reconcile, in the order in which people read it.
#[derive(Debug, Serialize)]
pub(super) struct Event {
    action: &'static str,
    pub(super) tags: BTreeMap<String, Texts>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) filters: BTreeMap<String, Texts>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) except_tags: BTreeMap<String, Texts>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) regions: Vec<String>,
    pub(super) hours_tag: String,
    pub(super) timezone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) holidays: Option<Holidays>,
    pub(super) hours: BTreeMap<String, Hours>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) hibernate: bool,
    // Both of them start whatever is off when hours open, and what they have stopped has no mark.
    remember: bool,
    scheduled_time: &'static str,
}

/// Texts; one of them needs no list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts(pub(super) Vec<String>);

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

/// Holidays that are listed.
#[derive(Debug, Serialize)]
pub(super) struct Holidays {
    pub(super) add: BTreeSet<String>,
}

/// A schedule, as short as it can be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Hours {
    /// Nothing but texts.
    Texts(Texts),
    /// Texts, and more to say.
    Map {
        /// The texts.
        open: Texts,
        #[serde(skip_serializing_if = "Option::is_none")]
        timezone: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        start: Option<bool>,
    },
}

impl Hours {
    /// Builds a schedule; it says its zone and that it doesn't start only where that isn't understood.
    pub(super) fn new(texts: Texts, zone: &str, events: &str, start: bool) -> Self {
        match zone == events && start {
            true => Self::Texts(texts),
            false => Self::Map {
                open: texts,
                timezone: (zone != events).then(|| zone.to_owned()),
                start: (!start).then_some(false),
            },
        }
    }
}

impl Event {
    /// Builds an event without schedules, about all that carry the tag.
    pub(super) fn new(hours_tag: &str, timezone: &str) -> Self {
        Self {
            action: "reconcile",
            tags: BTreeMap::from([(hours_tag.to_owned(), Texts(vec!["*".to_owned()]))]),
            filters: BTreeMap::new(),
            except_tags: BTreeMap::new(),
            regions: Vec::new(),
            hours_tag: hours_tag.to_owned(),
            timezone: timezone.to_owned(),
            holidays: None,
            hours: BTreeMap::new(),
            hibernate: false,
            remember: false,
            scheduled_time: "<aws.scheduler.scheduled-time>",
        }
    }

    /// Spares what carries the hours tag with this very value.
    pub(super) fn except(&mut self, value: &str) {
        self.except_tags.entry(self.hours_tag.clone()).or_default().0.push(literal(value));
    }

    /// Writes it as a file.
    pub(super) fn write(&self) -> Result<String, Problem> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| Problem::new(format!("can't write the event: {error}")))
    }

    /// Reads it as the function does.
    ///
    /// # Errors
    /// The function would refuse it: too many schedules, say.
    pub(super) fn request(&self) -> Result<Request, Problem> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => Request::parse(fields, None, Utc::now())
                .map_err(|refused| Problem::new(format!("the function would refuse what this becomes: {refused}"))),
            other => Err(Problem::new(format!("the event is no object: {other:?}"))),
        }
    }
}

/// Writes a text so that no character of it is a wildcard.
pub(super) fn literal(value: &str) -> String {
    value.chars().flat_map(|c| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c])).collect()
}

/// Something that doesn't carry over.
#[derive(Debug)]
struct Note {
    /// The schedule, the tag's value or the policy that has it.
    of: String,
    what: String,
    /// Why, and what to do.
    why: String,
    /// Its instances are left alone.
    left_out: bool,
}

/// All that doesn't carry over.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    /// Notes what is lost of a schedule that is carried over.
    pub(super) fn lost(&mut self, of: &str, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Note { of: of.to_owned(), what: what.into(), why: why.into(), left_out: false });
    }

    /// Notes what is left out.
    pub(super) fn left_out(&mut self, of: &str, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Note { of: of.to_owned(), what: what.into(), why: why.into(), left_out: true });
    }

    /// Counts what is left out.
    pub(super) fn count_left_out(&self) -> usize {
        self.0.iter().filter(|note| note.left_out).map(|note| &note.of).collect::<BTreeSet<_>>().len()
    }

    /// Writes them for people: the same of several together.
    pub(super) fn write(&self) -> String {
        let mut text = String::new();
        for (left_out, title) in [(true, "Left out, and left alone by Curfew:"), (false, "Doesn't carry over:")] {
            let mut groups: Vec<(&Note, Vec<&str>)> = Vec::new();
            for note in self.0.iter().filter(|note| note.left_out == left_out) {
                match groups.iter_mut().find(|(it, _)| (&it.what, &it.why) == (&note.what, &note.why)) {
                    Some((_, of)) if !of.contains(&note.of.as_str()) => of.push(&note.of),
                    Some(_) => {}
                    None => groups.push((note, vec![&note.of])),
                }
            }
            if groups.is_empty() {
                continue;
            }
            let warning = AnsiColor::Yellow.on_default().bold();
            let bold = Style::new().bold();
            text.push_str(&format!("{warning}{title}{warning:#}\n"));
            for (note, of) in groups {
                let of = match of.as_slice() {
                    few if few.len() <= 4 => few.join(", "),
                    many => format!("{} and {} more", many[..3].join(", "), many.len() - 3),
                };
                let (what, of, why) = (shown(&note.what), shown(&of), shown(&note.why));
                text.push_str(&format!("  {bold}{what}{bold:#} ({of})\n      {why}\n"));
            }
        }
        text
    }
}
