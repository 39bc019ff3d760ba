//! The week in a terminal: a line for each schedule, one for the instances that it switches alike.

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Utc};
use console::{Alignment, pad_str};

use super::forecast::{Kind, Line};
use super::{Day, Week, words};
use crate::terminal;

/// Columns where nobody says how many there are: a pipe.
const IN_A_PIPE: usize = 120;
/// Cells of a day, the most that leave room for names.
const CELLS: [usize; 4] = [24, 12, 8, 6];
const NAMES: usize = 18;
const MOST_NAMES: usize = 36;
/// Before a row's name, and between it, the days and the hours.
const MARGIN: usize = 2;
/// After so many lines the days are named again: about a screen.
const REPEATED: usize = 30;
/// `  168 h`, with the blank after the days.
const HOURS: usize = 7;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

fn style(kind: Kind) -> Style {
    let color = match kind {
        Kind::On => AnsiColor::Green,
        Kind::Off => return DIM,
        Kind::Holiday => AnsiColor::Blue,
        Kind::Exempt => AnsiColor::Yellow,
        Kind::LeftAlone => AnsiColor::Magenta,
        Kind::BadTag => AnsiColor::Red,
    };
    color.on_default()
}

/// How a cell of one kind looks: different without colours, too.
fn cell(kind: Kind) -> char {
    match kind {
        Kind::On => '█',
        Kind::Off => '·',
        Kind::Holiday => '░',
        Kind::Exempt => '▒',
        Kind::LeftAlone => '=',
        Kind::BadTag => '!',
    }
}

/// Shows a week; a pipe has no width.
pub(crate) fn grid(week: &Week, width: Option<usize>) -> String {
    let width = width.unwrap_or(IN_A_PIPE);
    let days = |cells: usize| week.days.len() * (cells + 1);
    let room = |cells: usize| width.checked_sub(days(cells) + HOURS + MARGIN);
    let cells = CELLS.into_iter().find(|cells| room(*cells).is_some_and(|room| room >= NAMES)).unwrap_or(CELLS[3]);
    let names = room(cells).unwrap_or_default().clamp(NAMES, MOST_NAMES);

    let mut text = format!("{BOLD}{}{BOLD:#}, {}\n", words::dates(week), week.zone.name());
    let mut head = " ".repeat(MARGIN + names + 1);
    for day in &week.days {
        let date = match cells {
            ..8 => day.date.format("%a %-d").to_string(),
            8..12 => day.date.format("%a %d").to_string(),
            _ => day.date.format("%a %-d %b").to_string(),
        };
        head.push_str(&pad_str(&date, cells + 1, Alignment::Left, None));
    }
    let mut since_head: Option<usize> = None;
    for schedule in &week.schedules {
        let says = schedule.says.as_deref().map(|says| format!("  {DIM}{}{DIM:#}", words::clean(says)));
        let name = words::heading(schedule);
        if since_head.is_none_or(|begun| text[begun..].lines().count() > REPEATED) {
            text += &format!("\n{DIM}{}{DIM:#}", head.trim_end());
            since_head = Some(text.len());
        }
        text += &format!("\n{BOLD}{name}{BOLD:#}{}\n", says.unwrap_or_default());
        if schedule.rows.is_empty() {
            text += &row(week, "(no instance)", names, cells, &schedule.line);
        }
        for it in &schedule.rows {
            text += &row(week, &words::names(it, names), names, cells, &it.line);
            if let Some(why) = words::why(week, &it.line) {
                let bad = it.line.segments.iter().any(|segment| segment.state == Kind::BadTag);
                let style = if bad { style(Kind::BadTag) } else { DIM };
                for line in terminal::wrap(&words::clean(&why), width.saturating_sub(MARGIN * 2)) {
                    text += &format!("    {style}{line}{style:#}\n");
                }
            }
        }
    }
    let legend = words::kinds(week).into_iter().map(|(kind, name)| {
        let style = style(kind);
        format!("{style}{}{style:#} {name}", cell(kind))
    });
    text += &format!("\n{}\n", legend.collect::<Vec<_>>().join("   "));
    let figures = week.figures();
    match figures.instances {
        0 if week.unseen.is_empty() => text += "No instance is selected: these are the schedules alone.\n",
        0 => text += "No instance could be seen: these are the schedules alone.\n",
        _ => text += &format!("{BOLD}{}: off {}{BOLD:#}\n", words::sum(&figures), words::percent(&figures)),
    }
    if let Some(said) = words::unforeseen(week) {
        text += &format!("{DIM}{said}{DIM:#}\n");
    }
    text
}

fn row(week: &Week, label: &str, names: usize, cells: usize, line: &Line) -> String {
    let label = pad_str(label, names, Alignment::Left, Some("…"));
    let days: String = week.days.iter().map(|day| of_day(day, cells, line)).collect();
    // Half hours where there is room for them.
    let on = Some(words::in_hours(line.on())).filter(|on| on.len() < HOURS);
    let on = on.unwrap_or_else(|| format!("{:.0} h", super::hours(line.on())));
    format!("{}{label} {days}{on:>6}\n", " ".repeat(MARGIN))
}

/// Draws a day: each cell is two halves, and each half what it mostly is.
fn of_day(day: &Day, cells: usize, line: &Line) -> String {
    let halves: Vec<Kind> = (0..cells * 2).map(|n| mostly(day, n, cells * 2, line)).collect();
    let mut text = String::new();
    let mut last = None;
    for half in halves.chunks_exact(2) {
        let (kind, character) = match (half[0], half[1]) {
            (one, other) if one == other => (one, cell(one)),
            (Kind::On, _) => (Kind::On, '▌'),
            (_, Kind::On) => (Kind::On, '▐'),
            (Kind::Off, other) => (other, cell(other)),
            (one, _) => (one, cell(one)),
        };
        // Escapes only where the colour changes: a week is 168 cells.
        if last != Some(kind) {
            if let Some(last) = last {
                text.push_str(&format!("{:#}", style(last)));
            }
            text.push_str(&style(kind).to_string());
            last = Some(kind);
        }
        text.push(character);
    }
    last.map_or(String::new(), |last| format!("{text}{:#} ", style(last)))
}

/// Returns what a part of a day is for the most of it.
fn mostly(day: &Day, n: usize, parts: usize, line: &Line) -> Kind {
    let at = |n: usize| -> DateTime<Utc> {
        let (n, parts) = (i32::try_from(n).unwrap_or_default(), i32::try_from(parts).unwrap_or(1));
        day.from + (day.to - day.from) * n / parts
    };
    let (from, to) = (at(n), at(n + 1));
    let overlap = line.segments.iter().map(|it| (it.to.min(to) - it.from.max(from), it.state));
    // Of two halves of the half, what isn't off.
    overlap.max_by_key(|(time, kind)| (*time, *kind != Kind::Off)).map_or(Kind::Off, |(_, kind)| kind)
}
