//! The week as a picture, and the bars that the page has too.

use chrono::{DateTime, Utc};
use maud::{Markup, PreEscaped, html};

use super::forecast::{Kind, Line};
use super::{Week, words};

/// Of a bar, and of a day's name above it.
pub(crate) const BAR: u32 = 20;
pub(crate) const AXIS: u32 = 18;

/// The picture's, with names on the left and hours on the right.
const WIDTH: u32 = 860;
const LEFT: u32 = 168;
const RIGHT: u32 = 62;
const ROW: u32 = 32;
const HEAD: u32 = 64;

/// Colours that can be read on white and on black: nobody knows where a picture is shown.
const STYLE: &str = "\
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #757d87 }
.name, .title { font-weight: 600 }
.title { font-size: 15px }
.end { text-anchor: end }
.axis text { font-size: 12px; text-anchor: middle }
.track { fill: #8b949e; fill-opacity: .17 }
.night { stroke: #8b949e; stroke-opacity: .55 }
.noon { stroke: #8b949e; stroke-opacity: .22 }
.on { fill: #2f81f7 }
.holiday { fill: url(#holiday); stroke: #1a9f6c }
.exempt { fill: url(#exempt); stroke: #c67a15 }
.left_alone { fill: url(#left_alone); stroke: #8b949e }
.bad_tag { fill: url(#bad_tag); stroke: #e5484d }
#holiday path { stroke: #1a9f6c }
#exempt path { stroke: #c67a15 }
#left_alone path { stroke: #8b949e }
#bad_tag path { stroke: #e5484d }
";

/// Draws a week.
pub(crate) fn picture(week: &Week) -> String {
    let mut rows: Vec<(String, &Line)> = Vec::new();
    for schedule in &week.schedules {
        let name = words::heading(schedule);
        if schedule.rows.is_empty() {
            rows.push((name.clone(), &schedule.line));
        }
        let label = |n: usize, row| {
            if n == 0 && schedule.rows[0].line.looks_like(&schedule.line) {
                name.clone()
            } else {
                words::names(row, 19)
            }
        };
        rows.extend(schedule.rows.iter().enumerate().map(|(n, row)| (label(n, row), &row.line)));
    }
    let figures = week.figures();
    let title = format!("{}, {}", words::dates(week), week.zone.name());
    let sum = match figures.instances {
        0 => String::new(),
        _ => format!("{}: off {}", words::sum(&figures), words::percent(&figures)),
    };
    let described = rows.iter().map(|(name, line)| format!("{name}: {}.", words::line(week, line)));
    let described = described.chain([sum.clone()]).collect::<Vec<_>>().join(" ");
    let bars = WIDTH - LEFT - RIGHT;
    let below = HEAD + u32::try_from(rows.len()).unwrap_or(1) * ROW;
    let height = below + 34;
    let drawn = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}")) width=(WIDTH) height=(height) role="img" aria-labelledby="t d" {
            title id="t" { "A week of running hours: " (title) }
            desc id="d" { (described) }
            style { (PreEscaped(STYLE)) }
            (patterns())
            text.title x="0" y="16" { (title) }
            text.end x=(WIDTH) y="16" { (sum) }
            svg.axis x=(LEFT) y=(HEAD - AXIS - 8) width=(bars) height=(AXIS) { (axis(week)) }
            @for (n, (name, line)) in (0u32..).zip(&rows) {
                @let y = HEAD + n * ROW;
                text.name x="0" y=(y + 15) { (cut(name)) }
                svg x=(LEFT) y=(y) width=(bars) height=(BAR) { (bar(week, line)) }
                text.end x=(WIDTH) y=(y + 15) { (words::in_hours(line.on())) }
            }
            @for (x, kind, name) in legend(week) {
                svg x=(x) y=(below + 10) width="18" height="12" { (swatch(kind)) }
                text x=(x + 25) y=(below + 20) { (name) }
            }
        }
    };
    drawn.into_string() + "\n"
}

/// Places the kinds of a legend beside each other: a character is about so wide.
fn legend(week: &Week) -> Vec<(usize, Kind, &'static str)> {
    let placed = words::kinds(week).into_iter().scan(LEFT as usize, |next, (kind, name)| {
        let x = *next;
        *next += 50 + name.len() * 7;
        Some((x, kind, name))
    });
    placed.collect()
}

fn cut(name: &str) -> String {
    match name.chars().count() {
        ..=19 => name.to_owned(),
        _ => name.chars().take(18).chain(['…']).collect(),
    }
}

/// Returns how a kind is named in styles.
pub(crate) fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::On => "on",
        Kind::Off => "off",
        Kind::Holiday => "holiday",
        Kind::Exempt => "exempt",
        Kind::LeftAlone => "left_alone",
        Kind::BadTag => "bad_tag",
    }
}

/// Draws the hatches by which kinds differ without colours, too.
pub(crate) fn patterns() -> Markup {
    let hatches = [
        (Kind::Holiday, "M-2 2L2 -2M0 8L8 0M6 10L10 6"),
        (Kind::Exempt, "M-2 6L2 10M0 0L8 8M6 -2L10 2"),
        (Kind::LeftAlone, "M0 2H8M0 6H8"),
        (Kind::BadTag, "M0 0L8 8M8 0L0 8"),
    ];
    html! {
        defs {
            @for (kind, path) in hatches {
                pattern id=(class(kind)) width="8" height="8" patternUnits="userSpaceOnUse" {
                    path d=(path) stroke-width="1.6" fill="none" {}
                }
            }
        }
    }
}

/// Draws a line, as wide as what it is drawn into.
pub(crate) fn bar(week: &Week, line: &Line) -> Markup {
    let local = |moment: DateTime<Utc>| moment.with_timezone(&week.zone);
    let noons = week.days.iter().map(|day| day.from + (day.to - day.from) / 2);
    html! {
        rect.track width="100%" height=(BAR) rx="4" {}
        @for noon in noons {
            line.noon x1=(at(week, noon)) x2=(at(week, noon)) y1="0" y2=(BAR) {}
        }
        @for it in line.segments.iter().filter(|it| it.state != Kind::Off) {
            rect class=(class(it.state)) x=(at(week, it.from)) width=(span(week, it.from, it.to)) y="3" height=(BAR - 6) rx="3" {
                title { (words::kind(it.state)) " " (local(it.from).format("%a %R")) " – " (local(it.to).format("%a %R")) }
            }
        }
        @for day in week.days.iter().skip(1) {
            line.night x1=(at(week, day.from)) x2=(at(week, day.from)) y1="0" y2=(BAR) {}
        }
    }
}

/// Draws the names of the days above bars.
pub(crate) fn axis(week: &Week) -> Markup {
    html! {
        @for day in &week.days {
            text x=(at(week, day.from + (day.to - day.from) / 2)) y=(AXIS - 5) { (day.date.format("%a %-d")) }
        }
    }
}

/// Draws a kind for a legend.
pub(crate) fn swatch(kind: Kind) -> Markup {
    html! {
        @match kind {
            Kind::Off => rect.track width="18" height="12" rx="3" {},
            _ => rect class=(class(kind)) x="0.5" y="0.5" width="17" height="11" rx="3" {},
        }
    }
}

fn at(week: &Week, moment: DateTime<Utc>) -> String {
    span(week, week.period().0, moment)
}

fn span(week: &Week, from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let share = (to - from).as_seconds_f64() / week.length().as_seconds_f64();
    format!("{:.3}%", share * 100.0)
}
