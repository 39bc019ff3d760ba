//! A week in words: what grid, page, picture and calendar say alike.

use chrono::{DateTime, Datelike, TimeDelta, Utc, Weekday};
use ec2_curfew::outcome::Reason;

use super::forecast::{Kind, Line, Segment, Why};
use super::{Day, Figures, Row, Schedule, Week, hours};

/// What each kind is called, in a legend's order.
pub(crate) const KINDS: [(Kind, &str); 6] = [
    (Kind::On, "on"),
    (Kind::Off, "off"),
    (Kind::Holiday, "public holiday"),
    (Kind::Exempt, "exempt"),
    (Kind::LeftAlone, "left alone"),
    (Kind::BadTag, "bad tag"),
];

/// Returns what a kind is called.
pub(crate) fn kind(kind: Kind) -> &'static str {
    KINDS.iter().find(|(it, _)| *it == kind).map_or("", |(_, name)| name)
}

/// Returns the kinds that a week has, in a legend's order.
pub(crate) fn kinds(week: &Week) -> Vec<(Kind, &'static str)> {
    let lines = week.schedules.iter().flat_map(|it| it.rows.iter().map(|row| &row.line).chain([&it.line]));
    let found: Vec<Kind> = lines.flat_map(|line| &line.segments).map(|segment| segment.state).collect();
    KINDS.into_iter().filter(|(kind, _)| found.contains(kind)).collect()
}

/// Writes which week it is: `23–29 November 2026`.
pub(crate) fn dates(week: &Week) -> String {
    let (Some(first), Some(last)) = (week.days.first(), week.days.last()) else { return String::new() };
    let (first, last) = (first.date, last.date);
    let first = match (
        first.format("%Y").to_string() == last.format("%Y").to_string(),
        first.format("%m").to_string() == last.format("%m").to_string(),
    ) {
        (true, true) => first.format("%-d"),
        (true, false) => first.format("%-d %B"),
        _ => first.format("%-d %B %Y"),
    };
    format!("{first} – {}", last.format("%-d %B %Y"))
}

/// Writes a duration in hours, `55 h` or `7.5 h`.
pub(crate) fn in_hours(time: TimeDelta) -> String {
    format!("{} h", number((hours(time) * 100.0).round() / 100.0))
}

/// Writes a share in percent.
pub(crate) fn percent(figures: &Figures) -> String {
    figures.share_off().map_or_else(|| "–".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

/// Writes how long all instances run: `9 instances run 605 of 1,512 hours`.
pub(crate) fn sum(figures: &Figures) -> String {
    let (one, verb) = if figures.instances == 1 { ("instance", "runs") } else { ("instances", "run") };
    let [on, all] = [figures.on, figures.all].map(|time| number(hours(time).round()));
    format!("{} {one} {verb} {on} of {all} hours", number(figures.instances as f64))
}

/// Writes a number with commas between its thousands.
pub(crate) fn number(number: f64) -> String {
    let text = number.to_string();
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n) % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Writes why a line is left as it is, as far as it is.
pub(crate) fn why(week: &Week, line: &Line) -> Option<String> {
    let skip = match line.why.as_ref()? {
        Why::Skip(skip) => skip,
        Why::StartedByPeople => return Some("only people start it: its hours say \"start\": false".to_owned()),
        Why::NotYetAgain(said) => return Some(said.clone()),
        Why::NoStart => return Some("no start here selects it: it stays off until people start it".to_owned()),
        Why::NoStop => return Some("no stop here selects it: it runs until people stop it".to_owned()),
    };
    let until =
        || skip.until.map(|until| format!("exempt until {}", until.with_timezone(&week.zone).format("%a %-d %b %R")));
    let said = match skip.reason {
        Reason::Exempt => until().or_else(|| skip.message.clone())?,
        Reason::HasHours => "it has hours of its own, which no event here is about".to_owned(),
        Reason::InstanceStoreRoot => "its root disk would be lost".to_owned(),
        Reason::StartedSince => "its hours have not closed since it was started: it runs until they do".to_owned(),
        Reason::NotMarked => "not stopped by Curfew: it stays off until people start it".to_owned(),
        Reason::StoppedSince => {
            // What people do has EC2 say no more than that they did.
            let by_people = |said: &&String| said.starts_with("Client.") && said.contains("InitiatedShutdown");
            let said = skip.message.as_ref().filter(|said| !by_people(said));
            let said = said.map_or_else(String::new, |said| format!(" ({said})"));
            format!("not stopped by Curfew{said}: it stays off until people start it")
        }
        reason => skip.message.clone().unwrap_or_else(|| reason.as_str().replace('_', " ")),
    };
    Some(said)
}

/// Says what a forecast doesn't know; nothing, where there is no instance.
pub(crate) fn unforeseen(week: &Week) -> Option<&'static str> {
    let is_over = week.period().1 <= week.asked;
    (week.figures().instances > 0).then_some(match is_over {
        true => "That week is over: so it would have been, had people switched nothing by hand.",
        false => "By what EC2 shows now; what people will switch by hand is not foreseen.",
    })
}

/// Writes a schedule's name, and whose it is where others have it, too.
pub(crate) fn heading(schedule: &Schedule) -> String {
    let name = if schedule.name.trim().is_empty() { "(empty)".to_owned() } else { clean(&schedule.name) };
    match &schedule.whose {
        Some(whose) => format!("{name} ({})", clean(whose)),
        None => name,
    }
}

/// Writes the instances of a row, as many as go into so many characters: `web-1, web-2 and 4,988 more`.
pub(crate) fn names(row: &Row, room: usize) -> String {
    match labels(row, room) {
        (labels, 0) => labels.join(", "),
        (labels, more) => format!("{} and {} more", labels.join(", "), number(more as f64)),
    }
}

/// Returns the names of as many instances as go into so many characters, one at least, and how many there are more.
pub(crate) fn labels(row: &Row, room: usize) -> (Vec<String>, usize) {
    let (mut labels, mut taken) = (Vec::new(), 0);
    for (n, seen) in row.instances.iter().enumerate() {
        let label = clean(seen.label());
        let left = row.instances.len() - n - 1;
        taken += label.chars().count() + if n == 0 { 0 } else { ", ".len() };
        let more = if left == 0 { 0 } else { format!(" and {} more", number(left as f64)).len() };
        if n > 0 && taken + more > room {
            break;
        }
        labels.push(label);
    }
    let more = row.instances.len() - labels.len();
    (labels, more)
}

/// Takes out of a stranger's text what would move a terminal's cursor or turn its words around.
pub(crate) fn clean(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Returns what sorts names as people count: `web-2` before `web-10`.
pub(crate) fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
    let mut in_number = false;
    for c in name.chars() {
        match c.to_digit(10) {
            Some(digit) => {
                if let Some((_, number)) = parts.last_mut() {
                    *number = number.saturating_mul(10).saturating_add(digit.into());
                }
                in_number = true;
            }
            None => {
                if std::mem::take(&mut in_number) {
                    parts.push((String::new(), 0));
                }
                if let Some((text, _)) = parts.last_mut() {
                    text.push(c);
                }
            }
        }
    }
    parts
}

/// Writes a line in words: `Mon–Fri 08:00–19:00; Sat 10:00–14:00`.
pub(crate) fn line(week: &Week, line: &Line) -> String {
    if let [Segment { state, .. }] = &line.segments[..] {
        return format!("{} all week", kind(*state));
    }
    let nights = as_nights(week, line);
    let days = week.days.iter().map(|day| (day.date.weekday(), of_day(week, day, &nights)));
    let days: Vec<(Weekday, String)> = days.collect();
    let mut spans: Vec<(Weekday, Weekday, &str)> = Vec::new();
    for (day, said) in &days {
        match spans.last_mut() {
            Some((_, last, before)) if before == said => *last = *day,
            _ => spans.push((*day, *day, said)),
        }
    }
    // A week has no end: what goes on where it begins is one.
    if let [(_, end, first), .., (begin, _, last)] = spans[..]
        && first == last
    {
        spans.pop();
        spans[0] = (begin, end, first);
    }
    let parts = spans.into_iter().filter(|(.., said)| !said.is_empty()).map(|(first, last, said)| {
        let is_night = nights.segments.iter().any(|it| it.state == Kind::On && crosses_midnight(week, it));
        match first == last {
            _ if last.succ() == first => format!("every {} {said}", if is_night { "night" } else { "day" }),
            true => format!("{first} {said}"),
            false => format!("{first}–{last} {said}"),
        }
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// Returns a line in which the night that the week's beginning cuts is whole at its end, if it is as another night is.
fn as_nights(week: &Week, line: &Line) -> Line {
    let mut segments = line.segments.clone();
    let ((from, to), local) = (week.period(), |moment: DateTime<Utc>| moment.with_timezone(&week.zone).time());
    if let [first, middle @ .., last] = &mut segments[..]
        && first.state == Kind::On
        && last.state == Kind::On
        && middle.iter().any(|it| {
            let alike = local(it.from) == local(last.from) && local(it.to) == local(first.to);
            it.state == Kind::On && alike && crosses_midnight(week, it)
        })
    {
        last.to = to + (first.to - from);
        segments.remove(0);
    }
    Line { segments, why: None }
}

fn crosses_midnight(week: &Week, it: &Segment) -> bool {
    week.days.iter().any(|day| it.from < day.to && day.to < it.to)
}

/// Writes what a day has besides being off.
fn of_day(week: &Week, day: &Day, line: &Line) -> String {
    let mut parts: Vec<String> = Vec::new();
    let begin = week.period().0;
    for it in line.segments.iter().filter(|it| it.state != Kind::Off && it.from < day.to && it.to > day.from) {
        // A night belongs to the day on which it begins, as hours are written.
        let is_night = it.to - it.from < TimeDelta::hours(24);
        if is_night && it.from < day.from && it.from > begin {
            continue;
        }
        let (from, to) = (it.from.max(day.from), if is_night { it.to } else { it.to.min(day.to) });
        let time = |moment: DateTime<Utc>| moment.with_timezone(&week.zone).format("%R").to_string();
        let end = if to == day.to { "24:00".to_owned() } else { time(to) };
        let all_day = from == day.from && to == day.to;
        let said = match (it.state, all_day) {
            (Kind::On, true) => "all day".to_owned(),
            (Kind::On, false) => format!("{}–{end}", time(from)),
            // The hours that it takes away are no news.
            (Kind::Holiday, _) | (_, true) => kind(it.state).to_owned(),
            (other, false) => format!("{} {}–{end}", kind(other), time(from)),
        };
        if parts.last() != Some(&said) {
            parts.push(said);
        }
    }
    parts.join(", ")
}
