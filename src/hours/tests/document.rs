//! infra/hours.md, which people copy from: every text in it means what it says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{at, of, zone};
use crate::hours::read::Schedules;
use crate::hours::{Holidays, Hours};

const DOCUMENT: &str = include_str!("../../../infra/hours.md");
/// The moment from which its examples are seen.
const NOON: &str = "2026-12-23T11:00:00Z";

fn section(title: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap_or_default()
}

/// Returns the cells of a section's table, without its head.
fn rows(title: &str) -> Vec<Vec<String>> {
    let row = |line: &str| {
        let line = line.trim_matches('|').replace("\\|", "\u{0}");
        line.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    };
    section(title).lines().filter(|line| line.starts_with('|')).skip(2).map(row).collect()
}

/// Returns what stands in code, within a line.
fn codes(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns what stands in code and has times, as hours do.
fn texts(text: &str) -> Vec<&str> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let is_time = |text: &str| {
        let bytes = text.as_bytes();
        text.match_indices(':').any(|(at, _)| is_digit(bytes[..at].last()) && is_digit(bytes.get(at + 1)))
    };
    codes(text).into_iter().filter(|text| is_time(text) || *text == "24/7").collect()
}

fn read(texts: &[&str]) -> Hours {
    let read = Hours::parse_all(texts.iter().copied(), zone("Europe/Berlin"), &of("DE"));
    read.unwrap_or_else(|bad| panic!("{}", bad[0].1))
}

/// Writes the next edges as the document does: `off Wed 23 Dec 19:00`.
fn next(hours: &Hours, count: usize) -> Vec<String> {
    let edges = std::iter::successors(hours.next_edge(at(NOON)), |edge| hours.next_edge(edge.at));
    let written = edges.map(|edge| {
        let local = edge.at.with_timezone(&hours.zone).format("%a %-d %b %H:%M");
        format!("{} {local}", if edge.opens { "on" } else { "off" })
    });
    written.take(count).collect()
}

#[test]
fn ten_examples_do_next_what_the_document_says() {
    let rows = rows("Ten examples");
    assert_eq!(rows.len(), 10);
    let mut wrong = Vec::new();
    for row in &rows {
        let expected: Vec<&str> = row[2].split(", ").collect();
        let found = next(&read(&texts(&row[1])), expected.len().max(2));
        if found != expected {
            wrong.push(format!("{}: {}", row[1], found.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_document_calls_refused_is_and_what_it_offers_instead_is_offered() {
    let mut faults = BTreeSet::new();
    for row in rows("What is refused, and what to write instead") {
        let text = codes(&row[0])[0];
        let bad = super::bad(text);
        let instead = codes(&row[2])[0];
        match bad.write() {
            Some(right) => assert_eq!(right, instead, "{text}"),
            None if instead == "curfew:exempt" => {}
            None => drop(read(&[instead])),
        }
        let fault = format!("{:?}", bad.fault());
        faults.insert(fault.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned());
    }
    // All but what the sentences after the table say, and what only a defect in the crate could bring about.
    let expected = "BeginIsEnd CommaBlank Comment CutOverMidnight EveryDayAgain Fallback FarOffset FifthInRange \
                    HolidaysBesideDays HolidaysTooEarly Impossible LongStep MonthsWithoutColon NeverOpens NoSuchDay \
                    NoTimes OpenEnd Repeats SchoolHolidays SunTime Unknown Unreadable YearWithoutBlank";
    assert_eq!(faults.into_iter().collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn what_the_document_says_cannot_be_said_means_something_else() {
    let with_texts = rows("What can't be said").into_iter().filter(|row| !texts(&row[2]).is_empty());
    let mut compared = 0;
    for row in with_texts {
        let instead = texts(&row[2]);
        let right = read(&instead);
        for text in texts(&row[0]) {
            assert_ne!(next(&read(&[text]), 40), next(&right, 40), "{text}");
            compared += 1;
        }
    }
    assert_eq!(compared, 2);
    assert_eq!(next(&read(&["22:00-06:00; 02:00-03:00 off"]), 40), next(&read(&["22:00-06:00"]), 40));
    // The list is the night of workdays, with its break.
    let nights = read(&["Mo-Fr 22:00-02:00", "Tu-Sa 03:00-06:00"]);
    assert_eq!(
        next(&nights, 4),
        ["on Wed 23 Dec 22:00", "off Thu 24 Dec 02:00", "on Thu 24 Dec 03:00", "off Thu 24 Dec 06:00"]
    );
    let list = read(&["Mo-Fr 08:00-19:00", "Tu 20:00-22:00"]);
    assert_eq!(next(&read(&["Mo-Fr 08:00-19:00; Tu 08:00-19:00,20:00-22:00"]), 40), next(&list, 40));
}

#[test]
fn every_other_text_of_the_document_can_be_read() {
    let refused = rows("What is refused, and what to write instead");
    let is_refused = |text: &str| refused.iter().any(|row| codes(&row[0])[0] == text.replace("\\|", "|"));
    let prose = DOCUMENT.lines().flat_map(texts).filter(|text| !is_refused(text));
    let read_texts = prose.inspect(|text| drop(read(&[text]))).count();
    assert!(read_texts > 40, "{read_texts}");
}

#[test]
fn the_requests_of_the_document_are_read() {
    let blocks: Vec<&str> = DOCUMENT.split("```").skip(1).step_by(2).collect();
    let request = blocks.iter().find_map(|block| block.strip_prefix("json\n")).expect("a request");
    let request: Value = serde_json::from_str(request).expect("JSON");
    let hours = blocks.iter().find_map(|block| block.strip_prefix("jsonc\n")).expect("hours");
    let bare: Vec<&str> = hours.lines().map(|line| line.split(" // ").next().unwrap_or_default()).collect();
    let hours: Value = serde_json::from_str(&format!("{{{}}}", bare.concat())).expect("JSON");
    for (hours, names) in
        [(&request["hours"], &["office"][..]), (&hours["hours"], &["office", "berlin", "shared", "by-hand"])]
    {
        let mut problems = Vec::new();
        let schedules = Schedules::read(hours.clone(), zone("Europe/Berlin"), of("DE"), at(NOON), &mut problems);
        assert_eq!(problems, [""; 0]);
        for name in names {
            assert!(schedules.find(name, at(NOON)).is_ok(), "{name}");
        }
    }
}

#[test]
fn the_limits_of_holidays_are_those_that_the_document_names() {
    let holidays = section("Holidays");
    let letters = || b'A'..=b'Z';
    let all = letters().flat_map(|a| letters().map(move |b| format!("{}{}", char::from(a), char::from(b))));
    let known = all.filter(|code| Holidays::of(code).is_ok()).count();
    assert!(holidays.contains(&format!(" {known} countries")), "{known}");
    let unknown =
        codes(holidays).into_iter().filter(|code| code.len() == 2 && !["PH", "GB", "US", "JP"].contains(code));
    let unknown: Vec<&str> = unknown.inspect(|code| assert!(Holidays::of(code).is_err(), "{code}")).collect();
    assert_eq!(unknown.len(), 7);
    let open = Hours::parse("PH 00:00-24:00", zone("Europe/London"), &of("GB")).expect("hours");
    let is_holiday = |day: &str| open.state_at(at(&format!("{day}T12:00:00Z"))).open;
    // New Year's Day, Easter Monday and the August bank holiday; Good Friday and Christmas.
    assert!(!["2027-01-01", "2027-03-29", "2027-08-30"].into_iter().any(is_holiday));
    assert!(["2027-03-26", "2026-12-25"].into_iter().all(is_holiday));
    let contains = |country: &str, day: &str| of(country).contains(day.parse().expect("a date"));
    // Columbus Day, and Thanksgiving.
    assert!(!["2026-10-12", "2027-10-11"].into_iter().any(|day| contains("US", day)) && contains("US", "2026-11-26"));
    // Between Respect for the Aged Day and the equinox, and after an equinox on a Sunday; after other Sundays they are there.
    assert!(!["2026-09-22", "2027-03-22"].into_iter().any(|day| contains("JP", day)) && contains("JP", "2026-05-06"));
}
