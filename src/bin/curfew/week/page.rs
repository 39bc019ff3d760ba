//! The week as a page: one file that needs nothing else, no script either.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::forecast::Kind;
use super::picture::{AXIS, BAR, axis, bar, patterns, swatch};
use super::{Line, Row, Schedule, Week, words};

/// Characters of the names in a row; the rest is counted.
const NAMES: usize = 72;

/// Writes the page.
pub(crate) fn page(week: &Week) -> String {
    let figures = week.figures();
    let title = words::dates(week);
    let written = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Running hours, " (title) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                svg.defs width="0" height="0" aria-hidden="true" { (patterns()) }
                main {
                    header {
                        h1 { (title) }
                        p.soft { "When EC2 instances run · times in " (week.zone.name()) }
                        @if figures.instances > 0 {
                            dl.figures {
                                (figure("of the time off", &words::percent(&figures)))
                                (figure(&format!("of {} hours on", words::number(super::hours(figures.all).round())), &words::number(super::hours(figures.on).round())))
                                (figure(if figures.instances == 1 { "instance" } else { "instances" }, &words::number(figures.instances as f64)))
                            }
                        }
                    }
                    @for unseen in &week.unseen {
                        p.alert role="alert" {
                            "Not shown: account " (unseen.account) " in " (unseen.region) ". " (unseen.code) ": " (words::clean(&unseen.message))
                        }
                    }
                    ul.legend aria-label="Legend" {
                        @for (kind, name) in words::kinds(week) {
                            li { svg width="18" height="12" aria-hidden="true" { (swatch(kind)) } (name) }
                        }
                    }
                    @for schedule in &week.schedules { (section(week, schedule)) }
                    footer {
                        p {
                            @if let Some(said) = words::unforeseen(week) { (said) " " }
                            "EC2 was asked "
                            (week.asked.with_timezone(&week.zone).format("%-d %B %Y, %R")) ". Written by Curfew " (env!("CARGO_PKG_VERSION")) "."
                        }
                    }
                }
            }
        }
    };
    written.into_string() + "\n"
}

fn figure(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn section(week: &Week, schedule: &Schedule) -> Markup {
    html! {
        section {
            div.heading {
                h2 { (words::heading(schedule)) }
                @if let Some(says) = &schedule.says { code { (words::clean(says)) } }
            }
            table role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        th.who role="columnheader" scope="col" { "Instances" }
                        th.week role="columnheader" scope="col" aria-label="Week" {
                            svg.axis height=(AXIS) aria-hidden="true" { (axis(week)) }
                        }
                        th.sum role="columnheader" scope="col" { "On, each" }
                    }
                }
                tbody role="rowgroup" {
                    @if schedule.rows.is_empty() { (row(week, html! { "no instance" }, &schedule.line)) }
                    @for it in &schedule.rows { (row(week, names(it), &it.line)) }
                }
            }
        }
    }
}

/// Writes the names of instances, each whole on its line.
fn names(row: &Row) -> Markup {
    let (names, more) = words::labels(row, NAMES);
    html! {
        @for (n, name) in names.iter().enumerate() {
            // Its comma stays with it.
            span.name { (name) @if n + 1 < names.len() { "," } } " "
        }
        @if more > 0 { "and " (words::number(more as f64)) " more" }
    }
}

fn row(week: &Week, who: Markup, line: &Line) -> Markup {
    let is_bad = line.segments.iter().any(|segment| segment.state == Kind::BadTag);
    html! {
        tr.bad[is_bad] role="row" {
            th.who role="rowheader" scope="row" { (who) }
            td.week role="cell" {
                // Said in words below it.
                svg.bar height=(BAR) aria-hidden="true" { (bar(week, line)) }
                p.says { (words::line(week, line)) }
                @if let Some(why) = words::why(week, line) { p.why { (words::clean(&why)) } }
            }
            td.sum role="cell" { (words::in_hours(line.on())) }
        }
    }
}
