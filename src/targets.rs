//! Every account × region: describe → plan → execute.
//!
//! All targets are planned before any is acted on, because `max_changes` counts over all of them; and all at once,
//! because one whose EC2 is unwell must not cost the others their night.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use crate::deadline::Deadline;
use crate::ec2::{Aws, Ec2, Error, ErrorKind};
use crate::execute::{Class, Outcome, Outcomes, classify, decided_already, execute, may_pass};
use crate::instance::{Instance, State};
use crate::plan::{Plan, is_selected, plan, states};
use crate::request::{Action, Regions, Request};
use crate::select::Filters;

/// Pauses before EC2 is asked again for its instances; the SDK has repeated each call before.
const PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// What a run did, target by target.
#[derive(Debug, Default)]
pub struct Run {
    /// Every target, in the order in which it was worked on.
    pub targets: Vec<Worked>,
    /// The plan was larger than `max_changes`, and was not carried out.
    pub too_many_changes: bool,
    /// Nothing matched, though every target could be asked: this many instances would but for their state.
    pub in_goal_state: Option<usize>,
}

/// What became of one account and region.
#[derive(Debug)]
pub struct Worked {
    /// The region.
    pub region: String,
    /// What was planned: empty if it could not be.
    pub plan: Plan,
    /// What became of each instance of the plan.
    pub outcomes: Outcomes,
    /// Why the whole target could not be worked on.
    pub error: Option<Error>,
    /// Why it was passed over, if that is no error.
    pub note: Option<String>,
}

impl Worked {
    fn planned(region: String, planned: Result<Plan, Error>, every_region: bool) -> Self {
        let worked = Self { region, plan: Plan::default(), outcomes: Outcomes::new(), error: None, note: None };
        match planned {
            Ok(plan) => Self { plan, ..worked },
            // Who asks for every region means those that the organization lets him use.
            Err(error) if every_region && is_denied_by_organization(&error) => Self {
                note: Some(format!("passed over, a service control policy denies it ({})", error.code)),
                ..worked
            },
            Err(error) => Self { error: Some(error), ..worked },
        }
    }

    /// Tells whether the target could not be worked on, and a retry may find it well.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.error.as_ref().is_some_and(may_pass)
    }

    fn is_clean(&self) -> bool {
        self.error.is_none() && self.note.is_none()
    }
}

fn is_denied_by_organization(error: &Error) -> bool {
    classify(error) == Class::OneOrAll && error.message.contains("service control policy")
}

/// Works on every target of the request; `tell` hears of each as soon as it is done.
pub async fn run(
    request: &Request,
    aws: &Aws,
    deadline: Deadline,
    as_of: DateTime<Utc>,
    tell: impl Fn(&Worked),
) -> Run {
    // A region that doesn't answer at all must leave the others time to be worked on.
    let planning = deadline.first_half();
    let regions = match regions(request, aws, planning).await {
        Ok(regions) => regions,
        Err((region, error)) => {
            let worked = Worked::planned(region, Err(error), false);
            tell(&worked);
            return Run { targets: vec![worked], ..Run::default() };
        }
    };
    let every_region = request.regions == Regions::All;
    let mut targets: Vec<(Ec2, Worked)> = join_all(regions.into_iter().map(|region| async move {
        let mut ec2 = aws.ec2(&region, planning);
        let planned = select(&ec2, request, as_of).await;
        ec2.deadline = deadline;
        (ec2, Worked::planned(region, planned, every_region))
    }))
    .await;

    let changes: usize = targets.iter().map(|(_, worked)| worked.plan.changes()).sum();
    let matched: usize = targets.iter().map(|(_, worked)| worked.plan.matched()).sum();
    let too_many_changes = request.max_changes.is_some_and(|max| changes as u64 > max);
    join_all(targets.iter_mut().map(|(ec2, worked)| {
        let tell = &tell;
        async move {
            worked.outcomes = match too_many_changes {
                true => not_carried_out(&worked.plan),
                false => execute(ec2, request, as_of, &worked.plan).await,
            };
            tell(worked);
        }
    }))
    .await;
    let in_goal_state = match matched == 0 && targets.iter().all(|(_, worked)| worked.is_clean()) {
        true => count_in_goal_state(request, &targets).await,
        false => None,
    };
    Run { targets: targets.into_iter().map(|(_, worked)| worked).collect(), too_many_changes, in_goal_state }
}

/// Finds the regions to work in; an error belongs to the region that was asked.
async fn regions(request: &Request, aws: &Aws, deadline: Deadline) -> Result<Vec<String>, (String, Error)> {
    let own = aws.own_region().unwrap_or_default().to_owned();
    match &request.regions {
        Regions::Own => Ok(vec![own]),
        Regions::Named(names) => Ok(names.clone()),
        Regions::All => aws.ec2(&own, deadline).regions().await.map_err(|error| (own, error)),
    }
}

/// Asks EC2 for what the request selects, and plans.
async fn select(ec2: &Ec2, request: &Request, as_of: DateTime<Utc>) -> Result<Plan, Error> {
    // Who names instances wants to hear of each, whatever its state.
    let states = if request.selection.ids_alone() { &[] } else { states(request.action) };
    let mut instances = Vec::new();
    for filters in request.selection.calls(states) {
        instances.extend(matching(ec2, &filters).await?);
    }
    Ok(plan(request, instances, as_of))
}

/// Asks EC2 for what matches, and again where it is throttled or unwell.
async fn matching(ec2: &Ec2, filters: &Filters) -> Result<Vec<Instance>, Error> {
    for pause in PAUSES {
        match ec2.matching(filters).await {
            // Where no answer came at all, the SDK has spent time enough.
            Err(error) if may_pass(&error) && matches!(error.kind, ErrorKind::Refused { .. }) => {
                ec2.deadline.pause(pause).await?;
            }
            answer => return answer,
        }
    }
    ec2.matching(filters).await
}

/// Asks again without the state: "already stopped" and "no such instance" must read differently.
async fn count_in_goal_state(request: &Request, targets: &[(Ec2, Worked)]) -> Option<usize> {
    let mut count = 0;
    for (ec2, _) in targets {
        for filters in request.selection.calls(&[]) {
            let instances = ec2.matching(&filters).await.ok()?;
            let there = |state: &State| match request.action {
                Action::Stop { .. } => matches!(state, State::Stopping | State::Stopped),
                Action::Start => *state == State::Running,
            };
            let counts = |instance: &&Instance| is_selected(request, instance) && there(&instance.state);
            count += instances.iter().filter(counts).count();
        }
    }
    Some(count)
}

/// Books a plan that was larger than `max_changes`.
fn not_carried_out(plan: &Plan) -> Outcomes {
    let mut outcomes = decided_already(plan);
    for (instance, _) in &plan.decided {
        let unfinished = || Outcome::Unfinished { reason: "too_many_changes".to_owned() };
        outcomes.entry(instance.id.clone()).or_insert_with(unfinished);
    }
    outcomes
}
