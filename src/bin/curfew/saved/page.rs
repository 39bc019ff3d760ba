//! What was saved, as a page: one file that needs nothing else, no script either; it looks as the week's.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{LEFT_OUT, Line, Saved};
use crate::money::{sum, written};
use crate::week::words::{clean, in_hours, number};

/// Of the chart.
const HEIGHT: f64 = 160.0;
/// Instances of a schedule that are listed; the rest is summed up.
const LISTED: usize = 200;

/// Writes the page.
pub(super) fn page(saved: &Saved) -> String {
    let (time, money) = saved.total();
    let instances = saved.instances();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Saved, " (saved.dates()) }
                style { (PreEscaped(include_str!("../week/page.css"))) (PreEscaped(include_str!("page.css"))) }
            }
            body {
                main {
                    header {
                        h1 { "What Curfew saved" }
                        p.soft { (saved.dates()) " · days in UTC" }
                        dl.figures {
                            @if !money.is_empty() { (figure("saved, at list price", &written(&money))) }
                            (figure("kept off", &in_hours(time)))
                            (figure(if instances == 1 { "instance" } else { "instances" }, &number(instances as f64)))
                        }
                    }
                    @for note in &saved.notes { p.alert role="note" { (clean(note)) } }
                    section {
                        div.heading { h2 { "Day by day" } }
                        (chart(saved))
                    }
                    @if saved.billed.is_some() {
                        section {
                            div.heading { h2 { "Billed" } }
                            @for said in saved.say_billed() { p.billed { (said) } }
                        }
                    }
                    @for (name, lines) in &saved.schedules { (section(name, lines)) }
                    footer {
                        @for said in LEFT_OUT { p { (said) } }
                        p { "Written by Curfew " (env!("CARGO_PKG_VERSION")) "." }
                    }
                }
            }
        }
    };
    markup.into_string() + "\n"
}

fn figure(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// Draws what each day saved; where no money is counted or several currencies are, how long instances were off.
fn chart(saved: &Saved) -> Markup {
    let (_, total) = saved.total();
    let currency = if total.len() == 1 { total.keys().next() } else { None };
    let values: Vec<(String, f64, String)> = saved
        .days
        .iter()
        .map(|day| {
            let label = day.date.format("%a %-d %b").to_string();
            match currency {
                Some(currency) => {
                    let money = day.saved.get(currency).copied().unwrap_or_default();
                    (label, money.cents() as f64, money.written(currency))
                }
                None => (label, day.time.num_seconds() as f64, in_hours(day.time)),
            }
        })
        .collect();
    let most = values.iter().max_by(|one, other| one.1.total_cmp(&other.1)).filter(|it| it.1 > 0.0);
    let Some((_, top, says)) = most else { return html! { p.soft { "Nothing" } } };
    let each = 100.0 / values.len() as f64;
    html! {
        svg.chart width="100%" height=(HEIGHT + 2.0) role="img" aria-label=(format!("A bar for each day, the highest {says}")) {
            line.top x1="0" x2="100%" y1="0.5" y2="0.5" {}
            @for (n, (label, value, says)) in values.iter().enumerate() {
                @let high = value / top * HEIGHT;
                rect.on x=(percent((n as f64 + 0.12) * each)) width=(percent(each * 0.76)) y=(format!("{:.1}", HEIGHT + 1.0 - high)) height=(format!("{high:.1}")) {
                    title { (label) ": " (says) }
                }
            }
            line.base x1="0" x2="100%" y1=(HEIGHT + 1.0) y2=(HEIGHT + 1.0) {}
        }
        p.ends {
            @if let (Some(first), Some(last)) = (values.first(), values.last()) {
                span { (first.0) } span { "highest " (says) } span { (last.0) }
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{share:.3}%")
}

fn section(name: &str, lines: &[Line]) -> Markup {
    let (time, money) = Saved::sum(lines.iter());
    let rest = lines.get(LISTED..).unwrap_or_default();
    html! {
        section {
            div.heading { h2 { (clean(name)) } span.soft { (in_hours(time)) @if !money.is_empty() { ", " (written(&money)) } } }
            table.saved role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        th.who role="columnheader" scope="col" { "Instance" }
                        th.what role="columnheader" scope="col" { "By the hour" }
                        th.sum role="columnheader" scope="col" { "Off" }
                        th.sum role="columnheader" scope="col" { "Saved" }
                    }
                }
                tbody role="rowgroup" {
                    @for line in lines.iter().take(LISTED) { (row(line)) }
                    @if !rest.is_empty() {
                        @let (time, money) = Saved::sum(rest.iter());
                        tr role="row" {
                            th.who role="rowheader" scope="row" { "and " (number(rest.len() as f64)) " more" }
                            td.what role="cell" {}
                            td.sum role="cell" { (in_hours(time)) }
                            td.sum role="cell" { (written(&money)) }
                        }
                    }
                }
            }
        }
    }
}

fn row(line: &Line) -> Markup {
    let (_, region, id) = &line.who;
    html! {
        tr role="row" {
            th.who role="rowheader" scope="row" {
                (clean(line.label()))
                @if line.name.is_some() { " " span.soft { (id) } }
            }
            td.what role="cell" {
                @match &line.price {
                    Ok((key, price)) => { (price.written()) " " span.soft { (key.kind) ", " (region) } }
                    Err(why) => span.soft { (why.say()) ", " (region) }
                }
            }
            td.sum role="cell" { (in_hours(line.time)) }
            td.sum role="cell" { @if let Some(money) = line.money() { (written(&sum([money]))) } @else { "–" } }
        }
    }
}
