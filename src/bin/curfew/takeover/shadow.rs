//! `--shadow`: what a reconcile would do now, beside what is running under the old tool.
//!
//! Nothing has a mark yet, so what is off in open hours is compared by its last start: a machine that has not been started
//! since its hours opened is one that the old tool would have started, by the same hours.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use ec2_curfew::deadline::Deadline;
use ec2_curfew::ec2::Ec2;
use ec2_curfew::instance::{Instance, State};
use ec2_curfew::outcome::Reason;
use ec2_curfew::plan::{Decision, Step, consider, states};
use ec2_curfew::request::{Regions, Request};
use serde::Serialize;

use crate::account::Access;
use crate::problem::Problem;
use crate::terminal;

/// Looking at a large fleet in every region takes minutes at most.
const PATIENCE: Duration = Duration::from_secs(300);

/// An instance that isn't as its hours say.
#[derive(Debug, Serialize)]
struct Difference {
    id: String,
    name: Option<String>,
    region: String,
    /// Its hours tag's value.
    tag: String,
    state: String,
    /// Whether its hours are open.
    open: bool,
    /// Since when.
    since: Option<String>,
}

/// What a look at a moment shows.
#[derive(Debug, Serialize)]
struct Comparison {
    time: String,
    /// Instances that are compared.
    compared: usize,
    /// Those whose hours have just opened or closed: the old tool may still be at it.
    settling: usize,
    /// Those that Curfew leaves alone, by reason.
    left_alone: BTreeMap<&'static str, usize>,
    differences: Vec<Difference>,
}

/// Compares, and tells; what changed within `settling` is not judged yet.
///
/// # Errors
/// EC2 was not to be asked.
pub(super) async fn compare(
    request: &Request,
    access: &Access,
    settling: TimeDelta,
    json: bool,
) -> Result<ExitCode, Problem> {
    let now = Utc::now();
    let mut seen = Comparison {
        time: rfc3339(now),
        compared: 0,
        settling: 0,
        left_alone: BTreeMap::new(),
        differences: Vec::new(),
    };
    let regions = match &request.regions {
        Regions::Named(names) => names.clone(),
        Regions::Own | Regions::All => vec![super::region(access)?],
    };
    for region in regions {
        let (ec2, until) = (access.aws.ec2(&region), Deadline::within(PATIENCE));
        for filters in request.calls(states(request.action)) {
            let _progress = terminal::spinner(format!("looking at {region}"));
            let found = ec2.matching(&filters, Some, until).await.map_err(|error| {
                super::refused(&format!("EC2 in {region} does not show its instances"), &error, "ec2:DescribeInstances")
            })?;
            found.into_iter().for_each(|instance| seen.judge(request, &region, instance, now, settling));
        }
    }
    seen.differences
        .sort_by(|one, other| (&one.region, &one.name, &one.id).cmp(&(&other.region, &other.name, &other.id)));
    let text = match json {
        true => serde_json::to_string(&seen).map_err(|error| Problem::new(format!("can't write it: {error}")))? + "\n",
        false => seen.write(&request.hours_tag),
    };
    terminal::print(&text)?;
    Ok(if seen.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Comparison {
    fn judge(&mut self, request: &Request, region: &str, instance: Instance, now: DateTime<Utc>, settling: TimeDelta) {
        let tag = instance.tags.get(&request.hours_tag).unwrap_or_default().to_owned();
        let Some((instance, decision)) = consider(request, instance, now) else { return };
        let differs = match &decision {
            Decision::Do(task) | Decision::Await(task) => match task.step {
                Step::Stop { .. } => true,
                Step::Start => instance.state == State::Stopped,
            },
            Decision::Leave(skip) => match skip.reason {
                Reason::StoppedSince => instance.state == State::Stopped,
                Reason::AsScheduled | Reason::StartedSince | Reason::Moving => false,
                other => {
                    *self.left_alone.entry(other.as_str()).or_default() += 1;
                    return;
                }
            },
            Decision::Follow | Decision::Mark | Decision::Unmark(_) | Decision::Refuse { .. } => false,
        };
        self.compared += 1;
        let Ok((schedule, state)) = request.schedules.at(&tag, now) else { return };
        if state.edge.is_some_and(|edge| now - edge < settling) {
            self.settling += 1;
            return;
        }
        let since_then = state.edge.is_some_and(|edge| instance.launch_time >= edge);
        // Stopped since by a person; or never to be started by hours.
        let by_a_person = instance.state == State::Stopped && (since_then || !schedule.start || state.edge.is_none());
        if differs && !by_a_person {
            self.differences.push(Difference {
                id: instance.id.to_string(),
                name: instance.name().map(str::to_owned),
                region: region.to_owned(),
                tag,
                state: instance.state.to_string(),
                open: state.open,
                since: state.edge.map(rfc3339),
            });
        }
    }

    fn write(&self, tag: &str) -> String {
        let mut text = match self.differences.len() {
            0 => "no differences".to_owned(),
            1 => "1 difference".to_owned(),
            n => format!("{n} differences"),
        };
        let instances = if self.compared == 1 { "instance" } else { "instances" };
        text.push_str(&format!(" among {} {instances} at {}", self.compared, self.time));
        if self.settling > 0 {
            text.push_str(&format!("; {} just opened or closed and not judged yet", self.settling));
        }
        if !self.left_alone.is_empty() {
            let reasons = self.left_alone.iter().map(|(reason, n)| format!("{n} {reason}"));
            let total: usize = self.left_alone.values().sum();
            text.push_str(&format!("; {total} left alone by Curfew ({})", reasons.collect::<Vec<_>>().join(", ")));
        }
        text.push('\n');
        let (bad, bold) = (AnsiColor::Red.on_default().bold(), Style::new().bold());
        for it in &self.differences {
            let name = it.name.as_ref().map_or_else(String::new, |name| super::shown(name) + " ");
            let since = it.since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
            let (hours, would) = match it.open {
                true => ("open", "started by its hours: it is off, and was not started when they opened"),
                false => ("closed", "stopped by its hours: it is on, and was on when they closed"),
            };
            let (id, region, value) = (&it.id, &it.region, super::shown(&it.tag));
            text.push_str(&format!(
                "{bad}!{bad:#} {bold}{name}{bold:#}{id} in {region}, {tag}={value}, {hours}{since}\n    would be {would}\n"
            ));
        }
        text
    }
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
