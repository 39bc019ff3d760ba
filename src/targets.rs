//! Every account × region: describe → plan → execute.
//!
//! All targets are planned before any is acted on: `max_changes` counts over all of them.

use chrono::{DateTime, Utc};

use crate::deadline::Deadline;
use crate::ec2::{Aws, Ec2, Error};
use crate::execute::{Class, Outcome, Outcomes, classify, execute, may_pass};
use crate::instance::Instance;
use crate::plan::{Decision, Plan, is_selected, plan, states};
use crate::request::{Regions, Request};

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
    let regions = match regions(request, aws, deadline).await {
        Ok(regions) => regions,
        Err((region, error)) => {
            let worked = Worked::planned(region, Err(error), false);
            tell(&worked);
            return Run { targets: vec![worked], ..Run::default() };
        }
    };
    let every_region = request.regions == Regions::All;
    let mut targets: Vec<(Ec2, Worked)> = Vec::new();
    for region in regions {
        let ec2 = aws.ec2(&region, deadline);
        let planned = select(&ec2, request, as_of).await;
        targets.push((ec2, Worked::planned(region, planned, every_region)));
    }

    let changes: usize = targets.iter().map(|(_, worked)| worked.plan.changes()).sum();
    let matched: usize = targets.iter().map(|(_, worked)| worked.plan.matched()).sum();
    let too_many_changes = request.max_changes.is_some_and(|max| changes as u64 > max);
    for (ec2, worked) in &mut targets {
        worked.outcomes = match too_many_changes {
            true => not_carried_out(&worked.plan),
            false => execute(ec2, request, as_of, &worked.plan).await,
        };
        tell(worked);
    }
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
        instances.extend(ec2.matching(&filters).await?);
    }
    Ok(plan(request, instances, as_of))
}

/// Asks again without the state: "already stopped" and "no such instance" must read differently.
async fn count_in_goal_state(request: &Request, targets: &[(Ec2, Worked)]) -> Option<usize> {
    let mut count = 0;
    for (ec2, _) in targets {
        for filters in request.selection.calls(&[]) {
            let instances = ec2.matching(&filters).await.ok()?;
            let counts = |instance: &&Instance| is_selected(request, instance) && !instance.state.is_gone();
            count += instances.iter().filter(counts).count();
        }
    }
    Some(count)
}

/// Books a plan that was larger than `max_changes`.
fn not_carried_out(plan: &Plan) -> Outcomes {
    let unfinished = || Outcome::Unfinished { reason: "too_many_changes".to_owned() };
    let outcome = |decision: &Decision| match decision {
        Decision::Switch | Decision::WaitThenSwitch | Decision::Follow => unfinished(),
        Decision::Skip(skip) => Outcome::Skipped(skip.clone()),
        Decision::Fail { code, message } => Outcome::Failed { code: (*code).to_owned(), message: message.clone() },
    };
    let decided = plan.decided.iter().map(|(instance, decision)| (instance.id.clone(), outcome(decision)));
    decided.chain(plan.absent.iter().map(|id| (id.clone(), unfinished()))).collect()
}
