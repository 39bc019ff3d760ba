//! Against code of others: the same texts, read by OpenStreetMap's own opening_hours.js.
//!
//! Texts whose spans end at midnight, in UTC: over midnight theirs belong to the day on which they end, and it knows no
//! clock but the machine's.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::reference::{MONTHS, parsed, rules, text};
use crate::hours::{Fault, Holidays, Hours};

const TEXTS: usize = 1_000;
/// How long each text is compared.
const DAYS: i64 = 120;

type Spans = Vec<(DateTime<Utc>, DateTime<Utc>)>;

/// Asks opening_hours.js; an error where it can't read a text.
fn ask(questions: &[(String, DateTime<Utc>, DateTime<Utc>)]) -> Vec<Result<Spans, String>> {
    let question = |(text, from, to): &(String, DateTime<Utc>, DateTime<Utc>)| {
        json!({ "text": text, "from": from.to_rfc3339(), "to": to.to_rfc3339() }).to_string()
    };
    let input: Vec<String> = questions.iter().map(question).collect();
    let output = super::ask_others(["node", "ask.js"], &input.join("\n"));
    let answer = |line: &str| {
        let moment = |value: &Value| super::at(value.as_str().expect("a moment"));
        match serde_json::from_str(line).expect("an answer") {
            Value::Array(spans) => {
                let mut spans: Spans = spans.iter().map(|span| (moment(&span[0]), moment(&span[1]))).collect();
                // Two holidays in a row are two spans to it, though they meet.
                spans.dedup_by(|next, before| {
                    let meets = next.0 == before.1;
                    if meets {
                        before.1 = next.1;
                    }
                    meets
                });
                Ok(spans)
            }
            other => Err(other["error"].to_string()),
        }
    };
    let answers: Vec<_> = output.lines().map(answer).collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

#[test]
fn a_thousand_texts_mean_what_opening_hours_js_reads() {
    let holidays = (2026..=2029).filter_map(|year| NaiveDate::from_ymd_opt(year, 3, 8));
    let holidays = Holidays::of("DE").expect("a country").with(holidays);
    let mut runner = TestRunner::deterministic();
    let mut questions = Vec::new();
    let mut ours = Vec::new();
    while questions.len() < TEXTS {
        let case = (rules(15, 1440), 0..600_i64).new_tree(&mut runner).expect("a case").current();
        let (rules, day) = case;
        let from = super::at("2026-01-01T00:00:00Z") + TimeDelta::days(day);
        let to = from + TimeDelta::days(DAYS);
        let as_written = parsed(std::slice::from_ref(&rules), Tz::UTC, &holidays);
        let Some(hours) = as_written.or_else(|| offered(&text(&rules), &holidays, from)) else { continue };
        ours.push(spans(&hours, from, to));
        questions.push((text(&rules), from, to));
    }
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for ((ours, theirs), (text, ..)) in ours.iter().zip(ask(&questions)).zip(&questions) {
        match class(text, ours, &theirs) {
            Some(class) => *explained.entry(class).or_default() += 1,
            None => unexplained.push(format!("{text}: {}", difference(ours, &theirs))),
        }
    }
    println!("{explained:#?}");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    assert!(explained[ALIKE] > TEXTS * 3 / 4, "{explained:?}");
}

/// Reads what is offered instead of a text with a step that leads out of its range, or with a cut that leads out of its day.
fn offered(text: &str, holidays: &Holidays, from: DateTime<Utc>) -> Option<Hours> {
    let bad = Hours::parse(text, Tz::UTC, holidays).err()?.advised(Tz::UTC, holidays, from);
    let is_about_it = matches!(bad.fault(), Fault::LongStep | Fault::CutOverMidnight);
    bad.write().filter(|_| is_about_it).map(|right| Hours::parse(right, Tz::UTC, holidays).expect("what is offered"))
}

fn spans(hours: &Hours, from: DateTime<Utc>, to: DateTime<Utc>) -> Spans {
    let until = hours.spans((from - TimeDelta::days(1)).date_naive(), to.date_naive());
    let clipped = until.into_iter().map(|(begin, end)| (begin.max(from), end.min(to)));
    clipped.filter(|(begin, end)| begin < end).collect()
}

#[test]
fn steps_out_of_a_range_and_cuts_out_of_a_day_are_met_with_what_opening_hours_js_reads() {
    let holidays = Holidays::of("DE").expect("a country");
    let (from, to) = (super::at("2026-11-23T00:00:00Z"), super::at("2027-12-20T00:00:00Z"));
    let mut texts: Vec<String> = Vec::new();
    for weeks in ["11-13/3", "11-12/2", "11-13/2", "11-14/3", "11-14/4", "1-53/2", "1-20/20", "11-12/9", "11-13/3,20"] {
        texts.push(format!("week {weeks} Mo-Fr 08:00-19:00"));
        texts.push(format!("24/7; week {weeks} off"));
        texts.push(format!("Mo-Fr 08:00-19:00; week {weeks} Sa 10:00-12:00"));
    }
    for years in ["2026-2029/4", "2027-2029/3", "2027-2029/2", "2026-2028/2"] {
        texts.push(format!("{years} Mo-Fr 08:00-19:00"));
    }
    for days in ["", "Mo", "Su", "Mo-Fr", "Fr-Mo", "Sa,Su", "Mo,We,Fr", "Mo-Su"] {
        for times in
            ["20:00-06:00", "20:00-30:00", "23:30-00:15", "12:00-13:00,20:00-06:00", "20:00-24:00", "08:00-07:00"]
        {
            for base in
                ["24/7", "00:00-24:00", "Mo-Sa 00:00-24:00", "Mo-Fr 05:00-22:00", "Tu 00:30-01:00; We 08:00-19:00"]
            {
                texts.push(format!("{base}; {days} {times} off").replace("  ", " "));
            }
        }
    }
    let questions: Vec<_> = texts.iter().map(|text| (text.clone(), from, to)).collect();
    let (mut as_written, mut instead, mut different) = (0, 0, Vec::new());
    for (text, theirs) in texts.iter().zip(ask(&questions)) {
        let hours = match Hours::parse(text, Tz::UTC, &holidays) {
            Ok(hours) => {
                as_written += 1;
                Some(hours)
            }
            Err(_) => {
                instead += 1;
                offered(text, &holidays, from)
            }
        };
        let ours = hours.map(|hours| spans(&hours, from, to));
        match ours {
            // To neither does it ever open.
            None if theirs.as_ref().is_ok_and(Vec::is_empty) => {}
            None => different.push(format!("{text}: nothing is offered")),
            Some(ours) if theirs.as_ref() != Ok(&ours) => {
                different.push(format!("{text}: {}", difference(&ours, &theirs)))
            }
            Some(_) => {}
        }
    }
    assert!(different.is_empty(), "{} of {}:\n{}", different.len(), texts.len(), different.join("\n"));
    assert!(as_written > 30 && instead > 100, "{as_written} as written, {instead} instead");
}

const ALIKE: &str = "alike";

/// Names why a text means something else to opening_hours.js, or nothing at all.
fn class(text: &str, ours: &Spans, theirs: &Result<Spans, String>) -> Option<&'static str> {
    // `Aug Su[4]`, as a date.
    let nth_date =
        MONTHS.iter().any(|month| text.match_indices(month).any(|(at, _)| text[at + 3..].get(3..4) == Some("[")));
    match theirs {
        Ok(theirs) if theirs == ours => Some(ALIKE),
        // Corpus Christi is 60 days after Easter, but it takes only the days next to a holiday, and the week after a weekday.
        Err(error) if error.contains("no reason to differ more than") => Some("it refuses to move a day so far"),
        Err(error) if error.contains("An additional rule") && nth_date => {
            Some("it can't read an nth weekday in a list of dates")
        }
        Err(error) if error.contains("in month range: event") => Some("it can't read Easter after months"),
        Err(error) if error.contains("in month range: year") => Some("it can't read a year after a comma"),
        // It takes the month for the date, and the weekday for one more of those that follow.
        Ok(_) if nth_date => {
            Some("it reads an nth weekday of a month as two selectors as soon as anything else is beside it")
        }
        // July has four Sundays: its fifth is the first of August for it.
        Ok(_) if text.contains("[5] ") || text.contains("[-5] ") => {
            Some("it moves a fifth weekday that the month has not")
        }
        _ => None,
    }
}

fn difference(ours: &Spans, theirs: &Result<Spans, String>) -> String {
    match theirs {
        Err(error) => error.clone(),
        Ok(theirs) => {
            let only = |a: &Spans, b: &Spans| a.iter().find(|span| !b.contains(span)).copied();
            format!("only ours {:?}, only theirs {:?}", only(ours, theirs), only(theirs, ours))
        }
    }
}
