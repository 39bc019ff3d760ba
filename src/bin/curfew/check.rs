//! `curfew check`: an event in words, or what is wrong with it.

use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::AnsiColor;
use chrono::{DateTime, NaiveDate, Utc};
use ec2_curfew::hours::read::Schedule;
use ec2_curfew::request::snapshots;
use serde_json::Value;

use crate::events::{Event, EventFile};
use crate::problem::Problem;
use crate::terminal::{self, Cell, FAINT, HEADING, Row};
use crate::{events, words};

/// How many coming edges of each schedule are shown.
const EDGES: usize = 5;

/// Say what events mean, or what is wrong with them
///
/// Reads events as the function does, and asks nobody.
///
/// Ends with 0 if all are good; with 1 if one can't be read; with 2 if the function
/// would refuse one.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Event files; - is standard input
    #[arg(required = true, value_name = "EVENT.json")]
    events: Vec<PathBuf>,
}

/// Checks all events, even if one of them is wrong.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let (now, mut end) = (Utc::now(), 0);
    for (nth, path) in args.events.iter().enumerate() {
        if nth > 0 {
            terminal::print("\n")?;
        }
        match events::read_any(path, now) {
            Ok(Event::Instances(event)) => terminal::print(&shown(&event, now))?,
            Ok(Event::Snapshots(name, request)) => {
                let parts = words::parts_about_snapshots(&request);
                terminal::print(&good(&name, snapshots::ACTION, &request.name, parts))?;
            }
            Err(problem) => end = end.max(problem.tell()),
        }
    }
    Ok(ExitCode::from(end))
}

fn shown(event: &EventFile, now: DateTime<Utc>) -> String {
    let request = &event.request;
    let mut text = good(&event.name, request.action.as_str(), &request.name, words::parts(request));
    for (name, schedule) in request.schedules.named() {
        let written = event.written.get("hours").and_then(|hours| hours.get(name));
        let name = Cell::new(name).styled(HEADING);
        text.push_str(&format!(
            "\n  {name}  {}  {FAINT}{}{FAINT:#}\n",
            Cell::new(texts(written)),
            schedule.hours.zone()
        ));
        text.push_str(&terminal::table(&edges(schedule, now), 4, terminal::width()));
    }
    text
}

/// Returns the lines that say that an event is good, and what it means.
fn good(file: &str, action: &str, name: &str, parts: Vec<(&'static str, String)>) -> String {
    let good = AnsiColor::Green.on_default().bold();
    let heading = |text: &str| Cell::new(text).styled(FAINT);
    let parts = [("name", name.to_owned())].into_iter().chain(parts);
    let rows: Vec<Row<2>> = parts.map(|(part, said)| [heading(part), Cell::new(said)].into()).collect();
    let table = terminal::table(&rows, 2, terminal::width());
    format!("{HEADING}{file}{HEADING:#}: {good}good{good:#}, {action}\n{table}")
}

/// Returns a schedule's hours as the event writes them.
fn texts(written: Option<&Value>) -> String {
    match written {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(texts)) => texts.iter().map(text_or).collect::<Vec<_>>().join(", or "),
        Some(Value::Object(fields)) => texts(fields.get("open")),
        _ => String::new(),
    }
}

fn text_or(text: &Value) -> String {
    text.as_str().unwrap_or_default().to_owned()
}

/// Returns rows with the time since which a schedule is open or closed, its next edges, and the holidays until the
/// last.
fn edges(schedule: &Schedule, now: DateTime<Utc>) -> Vec<Row<3>> {
    let (hours, zone) = (&schedule.hours, schedule.hours.zone());
    let (open, closed) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default());
    let day = |moment: DateTime<Utc>| moment.with_timezone(&zone).date_naive();
    let state = hours.state_at(now);
    let (word, style) = if state.open { ("open", open) } else { ("closed", closed) };
    let since = state.edge.map(|edge| format!("since {}", words::moment(edge, zone)));
    let since = since.unwrap_or_else(|| "for more than 400 days".to_owned());
    let row = |word: &str, style, when: String, note: &str| {
        Row::from([Cell::new(word).styled(style), Cell::new(when), Cell::new(note)])
    };
    let mut rows = vec![(day(now), row(word, style, since, ""))];
    let mut at = now;
    for _ in 0..EDGES {
        let Some(edge) = hours.next_edge(at) else { break };
        at = edge.at;
        let (word, style) = if edge.opens { ("opens", open) } else { ("closes", closed) };
        let note = if edge.opens && !schedule.start { "starts nothing" } else { "" };
        rows.push((day(at), row(word, style, words::moment(at, zone), note)));
    }
    let named = |date: &NaiveDate| (*date, row("holiday", FAINT, date.format("%a %-d %b").to_string(), ""));
    rows.extend(hours.holidays(day(now), day(at)).iter().map(named));
    rows.sort_by_key(|(day, _)| *day);
    rows.into_iter().map(|(_, row)| row).collect()
}
