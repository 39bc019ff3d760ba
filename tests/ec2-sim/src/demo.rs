//! `ec2-sim demo`: a night, a morning and a long weekend, with the real function and the real `cargo lambda`.
//!
//! Every state shown is read back from the simulated EC2, every reason from the function's own report. If the two
//! disagree, the demo says so and fails.

mod processes;
mod report;
mod table;
mod truth;
mod weekend;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use clap::Args;
use ec2_sim::{Call, Fleet, Sim};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use processes::{Data, Ended, Processes};
use report::{Report, Told};
use truth::{Event, Seen};

const HEADINGS: [&str; 5] = ["NAME", "BEFORE", "NOW", "WHY", ""];
const OFFICE: &str = include_str!("../office.json");
/// How long the night may take: the office's transitions take 1.5 seconds.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
const CTRL_C_GRACE: Duration = Duration::from_millis(100);
/// The exit status after Ctrl-C, as a shell reports it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

const NEXT: &str = "
Everything is shut down again. Next:
  make test                        see it proven
  cargo run -p ec2-sim -- --help   play with the simulated EC2 yourself";

/// The files that the demo needs.
#[derive(Args)]
pub(crate) struct Demo {
    /// The function, as built for this machine
    #[arg(long, value_name = "FILE", default_value = "target/debug/ec2-curfew")]
    binary: PathBuf,
    /// The executable of cargo lambda
    #[arg(long, value_name = "FILE", default_value = ".venv/bin/cargo-lambda")]
    cargo_lambda: PathBuf,
    /// The folder with stop-7pm.json, start-8am.json and reconcile.json
    #[arg(long, value_name = "FOLDER", default_value = "infra/events")]
    events: PathBuf,
    /// The tool that only looks, as built for this machine
    #[arg(long, value_name = "FILE", default_value = "target/debug/curfew")]
    curfew: PathBuf,
    /// Where to write the weekend's week as a page
    #[arg(long, value_name = "FILE", default_value = "target/week.html")]
    week: PathBuf,
}

/// One invocation, and what it did to the office.
struct Act {
    event: Event,
    seen: Vec<Seen>,
    report: Report,
    calls: Vec<Call>,
    ended: Ended,
}

impl Demo {
    /// Runs the demo, and leaves no process behind, however it ends.
    pub(crate) async fn run(&self) -> ExitCode {
        let mut processes = Processes::default();
        let mut interrupted = pin!(interrupted());
        let end = tokio::select! {
            biased;
            () = &mut interrupted => None,
            shown = self.show(&mut processes) => Some(shown),
        };
        // Ctrl-C reaches all processes in the terminal at once, so a child's end may be noticed before the signal.
        let end = match end {
            Some(Err(_)) if timeout(CTRL_C_GRACE, interrupted).await.is_ok() => None,
            end => end,
        };
        processes.end().await;
        let end = end.map(|shown| shown.and_then(|()| say(NEXT)));
        match end {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(problem)) => {
                eprintln!("\nerror: {problem}");
                ExitCode::FAILURE
            }
            None => INTERRUPTED.into(),
        }
    }

    async fn show(&self, processes: &mut Processes) -> Result<(), String> {
        let (stop, start) = (self.events.join("stop-7pm.json"), self.events.join("start-8am.json"));
        let sim = Sim::start().await;
        let office: Fleet = serde_json::from_str(OFFICE).map_err(|error| format!("office.json: {error}"))?;
        sim.load(office);
        let until = (Utc::now() + TimeDelta::hours(3)).trunc_subsecs(0);
        sim.edit("demo", |machine| machine.tags.insert("curfew:exempt".into(), until.to_rfc3339()));

        say(&header(&sim, &Event::read(&stop)?))?;
        processes.start(&self.binary, &self.cargo_lambda, &sim.url()).await?;

        let evening = act("7 PM  stop ", &stop, &sim, processes).await?;
        say(&night(&sim, &evening).await?)?;
        act("8 AM  start", &start, &sim, processes).await?;
        weekend::show(&self.events.join("reconcile.json"), &sim, processes).await?;
        weekend::page(&self.events.join("reconcile.json"), &sim, &self.curfew, &self.week).await
    }
}

/// Waits for a signal to end: SIGINT, SIGTERM or SIGHUP.
async fn interrupted() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = wait(SignalKind::interrupt()) => {}
        _ = wait(SignalKind::terminate()) => {}
        _ = wait(SignalKind::hangup()) => {}
    }
}

/// Prints to standard output; `println!` would panic on a closed pipe.
fn say(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}

fn header(sim: &Sim, event: &Event) -> String {
    let machines = sim.machines();
    let selected: Vec<_> = machines.iter().filter(|machine| event.selects(machine)).collect();
    let running = selected.iter().filter(|machine| machine.state == "running").count();
    format!(
        "Curfew {} against a simulated EC2 on this machine. No AWS account needed.\n\
         {} instances; {} carry {event}, {running} of them running.",
        env!("CARGO_PKG_VERSION"),
        machines.len(),
        selected.len(),
    )
}

/// Invokes the function once, and shows what it did to the office.
///
/// # Errors
/// It could not be invoked, or its report and the simulated EC2 disagree.
async fn act(hour: &str, file: &Path, sim: &Sim, processes: &mut Processes) -> Result<Act, String> {
    let event = Event::read(file)?;
    say(&format!("\n{hour}  cargo lambda invoke --data-file {}\n", file.display()))?;
    sim.forget_calls();
    let before = sim.machines();
    let ended = processes.invoke(Data::File(file)).await?;
    let (now, calls) = (sim.machines(), sim.calls());
    let report = processes.report(&ended).await?;

    let seen = truth::pair(before, now, &report);
    for line in table::lines(HEADINGS, &truth::rows(&event, &seen, Utc::now())) {
        say(&line)?;
    }
    let act = Act { event, seen, report, calls, ended };
    say(&format!("\n{}", act.summary()))?;
    let mut lies = truth::disagreements(&act.event, &act.seen, &act.report);
    lies.extend(act.ended.disagreement(&act.report));
    if !lies.is_empty() {
        let lies = lies.iter().map(|lie| format!("\n  {lie}")).collect::<String>();
        return Err(format!(
            "THE REPORT AND THE SIMULATED EC2 DISAGREE:{lies}\nThe report says: {}",
            act.report.message
        ));
    }
    Ok(act)
}

impl Act {
    fn summary(&self) -> String {
        let (done, summary) = (self.event.done(), &self.report.summary);
        let mut counts = vec![format!("{done} {} of {}", summary.changed, summary.matched)];
        let others = [
            (summary.would_change, "would change"),
            (summary.skipped, "left alone"),
            (summary.failed, "failed"),
            (summary.unfinished, "unfinished"),
        ];
        counts.extend(others.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        let calls = match self.calls.len() {
            1 => "1 call".to_owned(),
            n => format!("{n} calls"),
        };
        let took = seconds(Duration::from_millis(self.report.duration_ms));
        let mut lines = vec![format!("{:<60}  {took}, {calls} to EC2", counts.join(" · "))];
        if let Some(sentence) = self.fallen_back() {
            lines.push(sentence);
        }
        if let Ended::Failed(error_type) = &self.ended {
            let left = self.names_of(|told| matches!(told, Told::Failed { .. } | Told::Unfinished { .. }));
            let mut text = format!(
                "cargo lambda printed \"Error: {error_type}\". The invocation fails on purpose, so that Lambda tries again \
                 what is left ({left}), and an alarm can hear of it."
            );
            if summary.failed == 1 && summary.changed > 0 {
                text.push_str(" One bad instance held up no other.");
            }
            lines.extend(table::wrap(&text, table::WIDTH - 2));
        }
        format!("  {}", lines.join("\n  "))
    }

    /// Returns a sentence about starts that EC2 accepted but that did not lead to a running instance; none if all did.
    fn fallen_back(&self) -> Option<String> {
        let starts = || self.calls.iter().filter(|call| call.action == "StartInstances" && !call.dry_run);
        let ids = |call: &Call| call.ids.clone();
        let asked: BTreeSet<String> = starts().flat_map(ids).collect();
        let accepted: BTreeSet<String> = starts().filter(|call| call.code == "ok").flat_map(ids).collect();
        let runs = |id: &String| self.seen.iter().any(|seen| seen.now.id == *id && seen.now.state == "running");
        let fallen = accepted.iter().filter(|id| !runs(id)).count();
        let all = match accepted.len() == asked.len() {
            true => format!("all {}", asked.len()),
            false => format!("{} of {}", accepted.len(), asked.len()),
        };
        (fallen > 0)
            .then(|| format!("EC2 accepted {all} starts. Curfew kept looking, and saw that {fallen} did not run."))
    }

    fn names_of(&self, wanted: impl Fn(&Told) -> bool) -> String {
        let seen = self.seen.iter().filter(|seen| seen.told.as_ref().is_some_and(&wanted));
        table::fold(&seen.map(|seen| seen.now.name()).collect::<Vec<_>>())
    }
}

/// Waits until all transitions are over, and returns a sentence about the result.
async fn night(sim: &Sim, evening: &Act) -> Result<String, String> {
    let begun = Instant::now();
    while sim.machines().iter().any(|machine| matches!(machine.state.as_str(), "pending" | "stopping")) {
        if begun.elapsed() > SETTLE_LIMIT {
            return Err("some instances of the simulated EC2 never settled".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    if evening.report.summary.changed == 0 {
        return Err("nothing was stopped, so there is no morning to show".into());
    }
    let changed = evening.seen.iter().filter(|seen| matches!(seen.told, Some(Told::Changed { .. })));
    let states: Vec<String> = changed.map(|seen| sim.state(&seen.now.id)).collect();
    let stopped = states.iter().filter(|state| *state == "stopped").count();
    if stopped < states.len() {
        return Err(format!("only {stopped} of {} have stopped", states.len()));
    }
    let waited = begun.elapsed();
    let later = if waited < Duration::from_millis(50) { String::new() } else { format!(" {} later", seconds(waited)) };
    Ok(format!("\nAll {stopped} have stopped{later}. Here the night ends at once."))
}

fn seconds(time: Duration) -> String {
    match time.as_millis() {
        millis @ ..100 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// Returns a moment in UTC and how far away it is, since the reader may be in any time zone; none if it isn't RFC 3339.
fn moment(text: &str, now: DateTime<Utc>) -> Option<String> {
    let until = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let minutes = (until - now + TimeDelta::seconds(30)).num_minutes();
    let ahead = match minutes {
        ..90 => format!("{minutes} minutes"),
        _ => format!("{} hours", (minutes + 30) / 60),
    };
    Some(format!("until {} UTC, {ahead} from now", until.format("%H:%M")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_office_is_a_fleet() {
        let office: Fleet = serde_json::from_str(OFFICE).expect("a fleet");
        assert_eq!(office.faults.len(), 1);
    }

    #[test]
    fn a_moment_is_told_in_utc_and_from_now() {
        let now = DateTime::parse_from_rfc3339("2026-11-20T19:00:03Z").expect("a time").to_utc();
        assert_eq!(moment("2026-11-20T22:00:00Z", now).as_deref(), Some("until 22:00 UTC, 3 hours from now"));
        assert_eq!(moment("2026-11-20T19:20:00Z", now).as_deref(), Some("until 19:20 UTC, 20 minutes from now"));
        assert_eq!(moment("soon", now), None);
    }
}
