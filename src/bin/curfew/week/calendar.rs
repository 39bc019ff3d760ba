//! The week for calendars: when each schedule is on (RFC 5545).

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::forecast::Kind;
use super::{Week, words};

/// Octets of a line (RFC 5545, "Content Lines").
const MAX_LINE: usize = 75;

/// Writes the periods in which each schedule is on.
pub(crate) fn calendar(week: &Week) -> String {
    let utc = |moment: DateTime<Utc>| moment.format("%Y%m%dT%H%M%SZ").to_string();
    let mut lines =
        vec!["BEGIN:VCALENDAR".to_owned(), "VERSION:2.0".to_owned(), "PRODID:-//Curfew//week//EN".to_owned()];
    // Two events may name one schedule, in two regions.
    let mut written = BTreeSet::new();
    for schedule in &week.schedules {
        let of_schedule = hash(&format!("{}\n{}\n{}", schedule.by, schedule.event, schedule.name));
        let name = text(&words::heading(schedule));
        let description = text(&words::line(week, &schedule.line));
        for on in schedule.line.segments.iter().filter(|segment| segment.state == Kind::On) {
            // The same of every week's file, so that a calendar takes it once.
            let uid = format!("{}-{of_schedule:016x}@curfew", utc(on.from));
            if !written.insert(uid.clone()) {
                continue;
            }
            lines.extend([
                "BEGIN:VEVENT".to_owned(),
                format!("UID:{uid}"),
                format!("DTSTAMP:{}", utc(week.asked)),
                format!("DTSTART:{}", utc(on.from)),
                format!("DTEND:{}", utc(on.to)),
                format!("SUMMARY:{name} on"),
                format!("DESCRIPTION:{description}"),
                "TRANSP:TRANSPARENT".to_owned(),
                "END:VEVENT".to_owned(),
            ]);
        }
    }
    lines.push("END:VCALENDAR".to_owned());
    lines.iter().map(|line| fold(line) + "\r\n").collect()
}

/// Escapes a text (RFC 5545, "Text").
fn text(text: &str) -> String {
    let mut escaped = String::new();
    for c in words::clean(&text.replace("\r\n", "\n").replace('\n', " ")).chars() {
        if matches!(c, '\\' | ';' | ',') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Breaks a line, between characters, where it is too long.
fn fold(line: &str) -> String {
    let (mut folded, mut octets) = (String::new(), 0);
    for c in line.chars() {
        if octets + c.len_utf8() > MAX_LINE {
            folded.push_str("\r\n ");
            octets = 1;
        }
        octets += c.len_utf8();
        folded.push(c);
    }
    folded
}

/// FNV-1a: names of schedules have characters that a UID hasn't.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
