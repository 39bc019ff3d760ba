//! The reference: when a few texts are open, by its own arithmetic. Knows nothing about how Curfew reads or decides.
//!
//! Minutes count from when the clock of a case begins, on Friday, 20 November 2026, at 18:00 UTC. No zone changes its
//! clocks in the weeks around it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use ec2_curfew::instance::Tags;
use serde_json::{Value, json};

use crate::nights::cloud::midnight;

/// The tag with the hours.
pub(crate) const HOURS: &str = "curfew:hours";
/// The exemption.
pub(crate) const EXEMPT: &str = "curfew:exempt";

/// The days, counted from the first, for which openings are known.
const DAYS: std::ops::RangeInclusive<i64> = -10..=8;
/// 20 November 2026 is a Friday; Monday is 0.
const FIRST: i64 = 4;
/// The zone of hours that name none, and its minutes ahead of UTC: its full hours are at a quarter past UTC's.
pub(crate) const ZONE: &str = "Asia/Kathmandu";
const AHEAD: i64 = 345;

const MO_FR: &[i64] = &[0, 1, 2, 3, 4];
const MO_SU: &[i64] = &[0, 1, 2, 3, 4, 5, 6];
const SA: &[i64] = &[5];
const SU: &[i64] = &[6];

/// Hours as the tag writes them, as the request does, and as the reference computes them.
#[derive(Clone, Copy, Debug)]
struct Known {
    tag: &'static str,
    /// The name's hours in the request; none if the tag itself holds the hours.
    named: Option<&'static str>,
    ahead: i64,
    /// On which days of the week, from when and to when, in minutes since the day's midnight.
    weekly: &'static [(&'static [i64], i64, i64)],
    /// Only on this day, counted from the first; or not on it.
    only: Option<i64>,
    off: Option<i64>,
    start: bool,
}

const PLAIN: Known = Known { tag: "", named: None, ahead: AHEAD, weekly: &[], only: None, off: None, start: true };

const KNOWN: &[Known] = &[
    Known {
        tag: "office",
        named: Some(r#"{"open": "Mo-Fr 08:00-19:00", "timezone": "UTC"}"#),
        ahead: 0,
        weekly: &[(MO_FR, 480, 1140)],
        ..PLAIN
    },
    Known {
        tag: "berlin",
        named: Some(r#"{"open": "Mo-Fr 07:00-20:00", "timezone": "Europe/Berlin"}"#),
        ahead: 60,
        weekly: &[(MO_FR, 420, 1200)],
        ..PLAIN
    },
    Known {
        tag: "daily",
        named: Some(r#"{"open": "Mo-Su 07:30-20:30", "timezone": "America/New_York"}"#),
        ahead: -300,
        weekly: &[(MO_SU, 450, 1230)],
        ..PLAIN
    },
    Known {
        tag: "shared",
        named: Some(
            r#"{"open": ["Mo-Fr 09:00-17:00", "Sa 10:00-14:00", "Su 22:00-02:00"], "timezone": "Asia/Kolkata"}"#,
        ),
        ahead: 330,
        weekly: &[(MO_FR, 540, 1020), (SA, 600, 840), (SU, 1320, 1560)],
        ..PLAIN
    },
    Known {
        tag: "by-hand",
        named: Some(r#"{"open": "Mo-Su 08:00-19:00", "start": false}"#),
        weekly: &[(MO_SU, 480, 1140)],
        start: false,
        ..PLAIN
    },
    Known {
        tag: "gaps",
        named: Some(r#"{"open": "Mo-Su 06:00-10:00,12:00-13:00,13:05-18:00,21:00-23:30", "timezone": "UTC"}"#),
        ahead: 0,
        weekly: &[(MO_SU, 360, 600), (MO_SU, 720, 780), (MO_SU, 785, 1080), (MO_SU, 1260, 1410)],
        ..PLAIN
    },
    Known {
        tag: "holiday",
        named: Some(r#"{"open": "Mo-Su 08:00-18:00; PH off", "holidays": {"add": ["2026-11-21"]}}"#),
        weekly: &[(MO_SU, 480, 1080)],
        off: Some(1),
        ..PLAIN
    },
    Known { tag: "mornings; all", named: Some(r#""Mo-Su 00:00-12:00""#), weekly: &[(MO_SU, 0, 720)], ..PLAIN },
    Known { tag: "24/7", weekly: &[(MO_SU, 0, 1440)], ..PLAIN },
    Known { tag: "Mo-Su 20:00-06:00", weekly: &[(MO_SU, 1200, 1800)], ..PLAIN },
    Known { tag: "Mo-Fr 08:00-19:00 / Sa 10:00-12:00", weekly: &[(MO_FR, 480, 1140), (SA, 600, 720)], ..PLAIN },
    Known { tag: "2026 Nov 21 10:00-16:00", weekly: &[(MO_SU, 600, 960)], only: Some(1), ..PLAIN },
];

/// Tags that can't be read as hours.
pub(crate) const UNREADABLE: &[&str] = &["Mon-Fri 8-19", "", "nights", "Mo-Fr 08:00-19:00 || Sa off"];

/// The openings of hours, from minute to minute, in order and without overlaps.
type Openings = Vec<(i64, i64)>;

static OPENINGS: LazyLock<BTreeMap<&'static str, (&'static Known, Openings)>> =
    LazyLock::new(|| KNOWN.iter().map(|known| (known.tag, (known, openings(known)))).collect());

fn openings(known: &Known) -> Openings {
    let mut all = Vec::new();
    for day in DAYS.filter(|day| known.only.is_none_or(|only| only == *day) && known.off != Some(*day)) {
        let midnight = day * 1440 - 18 * 60 - known.ahead;
        let on = known.weekly.iter().filter(|(days, ..)| days.contains(&(FIRST + day).rem_euclid(7)));
        all.extend(on.map(|(_, from, to)| (midnight + from, midnight + to)));
    }
    all.sort_unstable();
    let mut merged: Openings = Vec::new();
    for (from, to) in all {
        match merged.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// Returns the tags that can be read.
pub(crate) fn readable() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.tag)
}

/// Returns the request's `hours`.
pub(crate) fn named() -> Value {
    let named = KNOWN.iter().filter_map(|known| Some((known.tag.to_owned(), known.named?)));
    Value::Object(named.map(|(name, text)| (name, serde_json::from_str(text).unwrap())).collect())
}

/// Returns the minutes at which a tag's hours open or close.
pub(crate) fn edges(tag: &str) -> Vec<i64> {
    let all = OPENINGS.get(tag).into_iter().flat_map(|(_, openings)| openings);
    all.flat_map(|(from, to)| [*from, *to]).filter(|at| (1..6 * 1440).contains(at)).collect()
}

/// Converts a minute to a moment.
pub(crate) fn moment(minute: i64) -> DateTime<Utc> {
    midnight() + TimeDelta::minutes(minute)
}

/// What an instance's hours say at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) open: bool,
    /// The last edge; in closed hours the end of an exemption is one, too.
    pub(crate) edge: Option<DateTime<Utc>>,
    /// Whether an opening starts it.
    pub(crate) start: bool,
}

/// Returns what the hours mean for an instance with these tags; none if it is not to be touched.
pub(crate) fn said(tags: &Tags, at: DateTime<Utc>) -> Option<Said> {
    let until = match tags.get(EXEMPT) {
        None => None,
        Some(text) => {
            let until = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
            (until <= at).then_some(until)?.into()
        }
    };
    let (known, openings) = OPENINGS.get(tags.get(HOURS)?)?;
    let minute = (at - midnight()).num_seconds().div_euclid(60);
    let around_the_clock = openings.len() == 1 && known.only.is_none();
    let begun = openings.iter().rev().find(|(from, _)| *from <= minute).filter(|_| !around_the_clock);
    let open = around_the_clock || begun.is_some_and(|(_, to)| minute < *to);
    let edge = begun.map(|(from, to)| moment(if open { *from } else { *to }));
    let edge = if open { edge } else { edge.max(until) };
    Some(Said { open, edge, start: known.start })
}

/// The request.
pub(crate) fn request() -> Value {
    json!({
        "action": "reconcile", "tags": {"curfew": "yes"}, "timezone": ZONE, "hours": named(),
        "scheduled_time": "2026-11-20T18:00:00Z",
    })
}

#[test]
fn the_reference_knows_its_own_hours() {
    let tags = |tag: &'static str| -> Tags { [(HOURS, tag)].into_iter().collect() };
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    for (tag, moment, open, edge) in [
        ("office", "2026-11-20T18:59:00Z", true, "2026-11-20T08:00:00Z"),
        ("office", "2026-11-20T19:00:00Z", false, "2026-11-20T19:00:00Z"),
        ("office", "2026-11-23T07:59:00Z", false, "2026-11-20T19:00:00Z"),
        ("berlin", "2026-11-23T06:00:00Z", true, "2026-11-23T06:00:00Z"),
        ("daily", "2026-11-21T01:29:00Z", true, "2026-11-20T12:30:00Z"),
        ("shared", "2026-11-22T20:29:00Z", true, "2026-11-22T16:30:00Z"),
        ("holiday", "2026-11-21T12:00:00Z", false, "2026-11-20T12:15:00Z"),
        ("Mo-Su 20:00-06:00", "2026-11-21T00:15:00Z", false, "2026-11-21T00:15:00Z"),
    ] {
        let said = said(&tags(tag), at(moment)).unwrap();
        assert_eq!((said.open, said.edge), (open, Some(at(edge))), "{tag} at {moment}");
    }
    let always = said(&tags("24/7"), at("2026-11-21T12:00:00Z")).unwrap();
    assert_eq!((always.open, always.edge), (true, None));
    let not_yet = said(&tags("2026 Nov 21 10:00-16:00"), at("2026-11-20T20:00:00Z")).unwrap();
    assert_eq!((not_yet.open, not_yet.edge), (false, None));
}
