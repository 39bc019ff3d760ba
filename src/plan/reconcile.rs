//! The rule of running hours: what to do to an instance whose tag says when it should run.
//!
//! Nothing is stored: LaunchTime, one mark, the last edge of the hours and the time of the tick decide. So a late, lost or
//! repeated tick does no harm, and whatever people switch by hand between two edges stays as they left it.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Decision, Step, Task, leave_alone, nothing_to_do};
use crate::hours::State as Hours;
use crate::hours::read::Schedule;
use crate::instance::{Exemption, Instance, Mark, Run, State, StateReason, rfc3339};
use crate::outcome::{Reason, Skip};
use crate::request::{Action, Request};

/// If an instance that runs within its hours carries a valid mark older than this, no stop is under way: ticks are never
/// late.
const LONGEST_STOP: TimeDelta = TimeDelta::minutes(15);
/// An instance left alone is reported while its last edge, its start or the end of its exemption is this near: at every tick
/// it would be noise.
const TOLD: TimeDelta = TimeDelta::minutes(15);

/// Decides about one instance, as EC2 last showed it, for a run if there is one.
pub(super) fn decide(request: &Request, instance: &Instance, as_of: DateTime<Utc>, run: Option<Run>) -> Decision {
    let exempt_until = match instance.exemption(request.timezone) {
        Some(Exemption::Until(until)) => Some(until),
        _ => None,
    };
    let found = instance.tags.get(&request.hours_tag).map(|text| request.schedules.at(text, as_of));
    let edge = match &found {
        // An instance that an exemption has kept running is stopped when the exemption ends.
        Some(Ok((_, hours))) if !hours.open => hours.edge.max(exempt_until.filter(|until| *until <= as_of)),
        Some(Ok((_, hours))) => hours.edge,
        _ => None,
    };
    let is_near = |moment: DateTime<Utc>| (as_of - moment).abs() <= TOLD;
    let near = [edge, exempt_until, Some(instance.launch_time)].into_iter().flatten().any(is_near);

    let state = nothing_to_do(request.action, &instance.state);
    let decision = state.or_else(|| leave_alone(request, instance, as_of).map(|skip| Decision::Leave(skip.into())));
    let decision = decision.unwrap_or_else(|| match (found, &instance.state) {
        (None, _) => {
            let message = format!("it has no tag {}, so its hours are not known", request.hours_tag);
            Decision::Leave(Skip::saying(Reason::BadTag, message).into())
        }
        (Some(Err(bad)), _) => {
            let skip = Skip::saying(Reason::BadTag, bad.to_string());
            Decision::Leave(Skip { bad_tag: Some(bad), ..skip }.into())
        }
        (Some(Ok(_)), State::Pending | State::Stopping) => Decision::leave(Reason::Moving),
        (Some(Ok((schedule, hours))), _) => match hours {
            Hours { open: true, .. } => when_open(&schedule, instance, edge, as_of),
            Hours { open: false, .. } => when_closed(request, &schedule, instance, edge, (as_of, run)),
        },
    });
    match decision {
        Decision::Do(task) => Decision::Do(Task { quiet: !near, ..task }),
        Decision::Leave(skip) => {
            // Something that a person has to correct is reported once at an edge; without an edge, always.
            let wants_attention = skip.wants_attention && edge.is_none();
            let quiet = !near && skip.reason != Reason::BadTag && !wants_attention;
            Decision::Leave(Skip { quiet, ..*skip }.into())
        }
        other => other,
    }
}

fn when_closed(
    request: &Request,
    schedule: &Schedule,
    instance: &Instance,
    edge: Option<DateTime<Utc>>,
    (as_of, run): (DateTime<Utc>, Option<Run>),
) -> Decision {
    let launched = instance.launch_time;
    if instance.state == State::Stopped {
        let to_mark =
            !request.remember && schedule.start && instance.valid_mark().is_none() && !is_stopped_by_spot(instance);
        return if to_mark { Decision::Mark } else { Decision::leave(Reason::AsScheduled) };
    }
    let Some(edge) = edge.filter(|edge| launched < *edge) else {
        return Decision::leave(Reason::StartedSince);
    };
    let hibernate = matches!(request.action, Action::Reconcile { hibernate: true }) && instance.hibernation;
    // This run's own is seen at a second look, or when Lambda retries it: it goes on. The same tick delivered twice is two
    // runs, though their marks have the same time.
    let is_anothers = |mark: &Mark| mark.at() >= edge && !run.is_some_and(|run| mark.is_of(run));
    if let Some(tried) = instance.valid_mark().filter(is_anothers).map(|mark| mark.at()) {
        // Resuming a hibernated instance doesn't renew LaunchTime: somebody has resumed it.
        if hibernate {
            return Decision::leave(Reason::StartedSince);
        }
        if as_of - tried < tried - edge {
            let next = rfc3339(tried + (tried - edge));
            let message = format!("EC2 did not stop it at {}; next try at {next}", rfc3339(tried));
            return Decision::Leave(Skip::saying(Reason::Tried, message).into());
        }
    }
    Decision::Do(Task { step: Step::Stop { hibernate }, remembered: true, quiet: false })
}

fn when_open(schedule: &Schedule, instance: &Instance, edge: Option<DateTime<Utc>>, as_of: DateTime<Utc>) -> Decision {
    if instance.state == State::Running {
        return match instance.valid_mark().filter(|mark| as_of - mark.at() > LONGEST_STOP) {
            Some(mark) => Decision::Unmark(mark),
            None => Decision::leave(Reason::AsScheduled),
        };
    }
    let launched = instance.launch_time;
    let mark = instance.mark();
    let is_newer = |mark: &Mark| mark.at() > as_of;
    if !schedule.start || mark.as_ref().is_some_and(is_newer) {
        return Decision::leave(Reason::AsScheduled);
    }
    let reason = instance.state_reason.as_deref();
    let since = edge.filter(|edge| launched >= *edge);
    let failed = since.is_some() && reason.is_some_and(StateReason::is_failed_start);
    let is_ours = |mark: Mark| mark.at() > launched || failed;
    if is_stopped_by_spot(instance) || !mark.is_some_and(is_ours) {
        let message = reason.map(ToString::to_string);
        return Decision::Leave(Skip { message, ..Skip::because(Reason::StoppedSince) }.into());
    }
    // One that was stopped since its start, because its hours were different then, is not waited for.
    match since.filter(|_| reason.is_none_or(StateReason::is_failed_start)) {
        Some(edge) if as_of - launched < launched - edge => {
            let next = rfc3339(launched + (launched - edge));
            let (code, said) = reason.map_or(("NoStateReason", ""), |reason| (&reason.code, &reason.message));
            let said = if said.is_empty() { String::new() } else { format!("{said}; ") };
            let message =
                format!("{said}it was started at {} but did not stay on; next try at {next}", rfc3339(launched));
            Decision::Refuse { code: code.into(), message: message.into() }
        }
        _ => Decision::Do(Task { step: Step::Start, remembered: true, quiet: false }),
    }
}

/// Whether EC2 itself stopped it, for lack of Spot capacity or because of its price: then only EC2 may start it.
fn is_stopped_by_spot(instance: &Instance) -> bool {
    instance.state_reason.as_ref().is_some_and(|reason| reason.code.starts_with("Server.Spot"))
}
