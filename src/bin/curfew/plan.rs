//! `curfew plan`: what an event would switch if it came now, and why it would leave the rest alone.

mod instance;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Utc};
use ec2_curfew::deadline::Deadline;
use ec2_curfew::instance::{Instance, State};
use ec2_curfew::outcome::{Outcome, Settled, Skip};
use ec2_curfew::plan::Step;
use ec2_curfew::report::{Report, Verdict};
use ec2_curfew::request::{Regions, Request};
use ec2_curfew::targets::{self, Preview};

use crate::account::{Access, Account};
use crate::events::EventFile;
use crate::problem::{PERMISSIONS, Problem, is_denied};
use crate::terminal::{self, Cell, FAINT, HEADING, Row};
use crate::{events, words};

/// How long looking may take, throttling and outages included, before people would rather see an error.
const PATIENCE: Duration = Duration::from_secs(180);

/// Show what an event would switch now, and why it leaves the rest
///
/// Looks at EC2 as the function does, with your credentials, and leaves it at the
/// plan. What only EC2's answer to a stop or start would tell stays unknown: the
/// function's permissions, stop protection, one-time Spot requests, capacity.
///
/// Credentials and region are found as the AWS CLI finds them; for a login that only
/// it knows, such as IAM Identity Center's, it is asked for them. It takes the
/// permissions in policy/read-only.json.
///
/// Ends with 0; with 1 if something could not be looked at; with 2 if the function
/// would refuse the event.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// An event file; - is standard input
    #[arg(value_name = "EVENT.json")]
    event: PathBuf,
    /// Say of one instance why it would be switched, or not
    #[arg(long, value_name = "ID", conflicts_with = "json")]
    instance: Option<String>,
    /// Print the report of a dry run (infra/README.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    account: Account,
}

/// Plans an event.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let (begun, now) = (Instant::now(), Utc::now());
    let event = events::read(&args.event, now)?;
    let request = &event.request;
    let as_of = request.scheduled_time.map_or(now, |due| due.min(now));
    let late = (now - as_of).to_std().unwrap_or(Duration::ZERO);
    if let Some(id) = &args.instance {
        // If the event is stale, the question is what it would do if it came in time.
        let as_of = if late > request.max_delay { now } else { as_of };
        return instance::run(&event, id, &args.account, as_of, now).await;
    }
    if late > request.max_delay {
        let stale = Report::of_stale(request, late, begun.elapsed());
        return match args.json {
            true => print_json(&stale),
            false => print_stale(&stale),
        };
    }
    let access = args.account.open(first_region(request)).await?;
    let looking = terminal::spinner(format!("Looking at EC2 in {}", place(request, &access)));
    let preview = targets::preview(request, &access.aws, &access.home, Deadline::within(PATIENCE), as_of).await;
    looking.finish_and_clear();
    let report = Report::of_preview(request, &preview.run, begun.elapsed());
    if args.json {
        return print_json(&report);
    }
    terminal::print(&shown(&event, &access, &preview, &report, now))?;
    Ok(end(&report))
}

/// Returns the region to use if none is configured: the first that the event names.
fn first_region(request: &Request) -> Option<&str> {
    match &request.regions {
        Regions::Named(names) => names.first().map(String::as_str),
        Regions::Own | Regions::All => None,
    }
}

fn place(request: &Request, access: &Access) -> String {
    match &request.regions {
        Regions::Own => access.aws.own_region().unwrap_or_default().to_owned(),
        Regions::Named(names) => match names.as_slice() {
            few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
            many => format!("{} regions", many.len()),
        },
        Regions::All => "every region".to_owned(),
    }
}

fn print_json(report: &Report) -> Result<ExitCode, Problem> {
    let json = serde_json::to_string_pretty(report);
    terminal::print(&format!("{}\n", json.map_err(|error| Problem::new(format!("can't write the report: {error}")))?))?;
    Ok(end(report))
}

fn print_stale(report: &Report) -> Result<ExitCode, Problem> {
    terminal::print(&format!("{}\nLeave out the event's time to plan for now.\n", report.message))?;
    Ok(end(report))
}

/// Returns the exit status: 1 if something could not be looked at.
fn end(report: &Report) -> ExitCode {
    ExitCode::from(u8::from(report.targets.iter().any(|target| target.error.is_some())))
}

/// A section of the table, in the order shown: what people look for comes last, where the terminal's prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    LeftAlone,
    TooMany,
    Start,
    Hibernate,
    Stop,
    CanNot,
}

impl Section {
    fn heading(self) -> (&'static str, Style) {
        match self {
            Self::LeftAlone => ("LEFT ALONE", HEADING),
            Self::TooMany => ("NOT SWITCHED, BECAUSE THEY ARE TOO MANY", AnsiColor::Red.on_default().bold()),
            Self::Start => ("WOULD START", AnsiColor::Green.on_default().bold()),
            Self::Hibernate => ("WOULD HIBERNATE", AnsiColor::Yellow.on_default().bold()),
            Self::Stop => ("WOULD STOP", AnsiColor::Yellow.on_default().bold()),
            Self::CanNot => ("CAN'T BE SWITCHED", AnsiColor::Red.on_default().bold()),
        }
    }

    fn of(settled: &Settled) -> Self {
        match &settled.outcome {
            Outcome::Failed { .. } => Self::CanNot,
            Outcome::Unfinished { .. } => Self::TooMany,
            Outcome::Skipped(_) => Self::LeftAlone,
            Outcome::Changed { .. } | Outcome::WouldChange { .. } => match settled.task.map(|task| task.step) {
                Some(Step::Start) => Self::Start,
                Some(Step::Stop { hibernate: true }) => Self::Hibernate,
                Some(Step::Stop { hibernate: false }) | None => Self::Stop,
            },
        }
    }
}

/// The columns instance, name, account, zone, state and why.
type Cells = [Cell; 6];

fn shown(event: &EventFile, access: &Access, preview: &Preview, report: &Report, now: DateTime<Utc>) -> String {
    let width = terminal::width();
    let request = &event.request;
    let several = request.accounts.len() > 1;
    let mut sections: Vec<(Section, Cells)> = Vec::new();
    for (target, decided) in preview.run.targets.iter().zip(&preview.decided) {
        let account = if several { target.account.as_str() } else { "" };
        // Ids that EC2 doesn't know come last, and have no instance.
        let shown = decided.iter().map(|(instance, _)| Some(instance)).chain(std::iter::repeat(None));
        for (settled, instance) in target.settled.iter().zip(shown).filter(|(settled, _)| !settled.is_quiet()) {
            sections.push((Section::of(settled), cells(settled, instance, account, &target.region, request, now)));
        }
    }
    sections.sort_by_key(|(section, _)| *section);
    let reasons: BTreeSet<Section> =
        sections.iter().filter(|(_, cells)| !cells[5].is_empty()).map(|(section, _)| *section).collect();
    let silent = |section| !reasons.contains(&section);
    let of = |account: &str| if several { String::new() } else { format!(" of {account}") };
    let heading = format!(
        "{HEADING}{}{HEADING:#}: {}, in {}{}",
        event.name,
        words::sentence(request),
        place(request, access),
        of(&access.home.account)
    );
    let mut text = terminal::wrapped(&heading, width);
    let mut rows: Vec<Row<6>> = Vec::new();
    let mut last = None;
    for (section, cells) in sections {
        if last.replace(section) != Some(section) {
            let (heading, style) = section.heading();
            rows.push(Row::Across(String::new()));
            rows.push(Row::Across(format!("{style}{heading}{style:#}")));
            let mut headings = headings(several);
            if silent(section) {
                headings[5] = "";
            }
            rows.push(headings.map(|heading| Cell::new(heading).styled(FAINT)).into());
        }
        rows.push(cells.into());
    }
    text.push_str(&terminal::table(&rows, 2, width));
    text.push_str(&troubles(report, width));
    text.push('\n');
    text.push_str(&format!("{HEADING}{}{HEADING:#}\n", terminal::wrapped(&report.message, width).trim_end()));
    if report.outcome == Verdict::Complete && !report.suspicious {
        text.push_str(&unlisted(report));
    }
    text
}

fn headings(several: bool) -> [&'static str; 6] {
    ["INSTANCE", "NAME", if several { "ACCOUNT" } else { "" }, "ZONE", "STATE", "WHY"]
}

fn cells(
    settled: &Settled,
    instance: Option<&Instance>,
    account: &str,
    region: &str,
    request: &Request,
    now: DateTime<Utc>,
) -> Cells {
    let zone = instance.map(|instance| &*instance.zone).filter(|zone| !zone.is_empty()).unwrap_or(region);
    let state = instance.map_or("", |instance| instance.state.as_str());
    [
        Cell::new(settled.id.as_str()),
        Cell::name(settled.name.as_deref().unwrap_or_default()),
        Cell::new(account),
        Cell::new(zone),
        Cell::new(state),
        Cell::new(why(settled, instance, request, now)),
    ]
}

fn why(settled: &Settled, instance: Option<&Instance>, request: &Request, now: DateTime<Utc>) -> String {
    match &settled.outcome {
        Outcome::Skipped(skip) => why_left_alone(skip, request, now),
        Outcome::Failed { code, message } => format!("{code}: {message}"),
        Outcome::Unfinished { .. } => String::new(),
        Outcome::Changed { .. } | Outcome::WouldChange { .. } => match instance.map(|instance| &instance.state) {
            Some(State::Pending) => "once it runs".to_owned(),
            Some(State::Stopping) => "once it has stopped".to_owned(),
            _ => String::new(),
        },
    }
}

/// Returns a reason with everything that is known about it.
fn why_left_alone(skip: &Skip, request: &Request, now: DateTime<Utc>) -> String {
    let mut why = skip.reason.as_str().to_owned();
    if let Some(until) = skip.until {
        let until = (words::moment(until, request.timezone), words::from_now(until, now));
        why.push_str(&format!(" until {} {}, {}", until.0, request.timezone, until.1));
    }
    if let Some(message) = &skip.message {
        why.push_str(&format!(": {message}"));
    }
    why
}

/// Returns the section with the targets that could not be looked at, or were skipped.
fn troubles(report: &Report, width: Option<usize>) -> String {
    let red = AnsiColor::Red.on_default().bold();
    let mut rows: Vec<Row<3>> = Vec::new();
    for target in &report.targets {
        let said = match (&target.error, &target.note) {
            (Some(error), _) => Cell::new(format!("{}: {}", error.code, error.message)),
            (None, Some(note)) => Cell::new(note).styled(FAINT),
            (None, None) => continue,
        };
        rows.push([Cell::new(&target.account), Cell::new(&target.region), said].into());
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{red}NOT LOOKED AT{red:#}\n{}", terminal::table(&rows, 2, width));
    if report.targets.iter().filter_map(|target| target.error.as_ref()).any(|error| is_denied(&error.code)) {
        let help = AnsiColor::BrightCyan.on_default().bold();
        text.push_str(&format!("{help}help{help:#}: {PERMISSIONS}\n"));
    }
    text
}

/// Returns a line with the instances that are counted but not listed.
fn unlisted(report: &Report) -> String {
    let counted = ["as_scheduled", "moving"].iter().filter_map(|reason| Some((report.skipped_by.get(reason)?, reason)));
    let counted: Vec<String> = counted.map(|(count, reason)| format!("{count} {reason}")).collect();
    match counted.is_empty() {
        true => String::new(),
        false => format!("{FAINT}Not listed: {}{FAINT:#}\n", counted.join(", ")),
    }
}
