//! Every account × region: describe → plan → execute.
//!
//! All targets are planned before any is acted on, because `max_changes` counts over all of them; and all at once,
//! because one whose EC2 is unwell must not cost the others their night.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::ec2::{Aws, Ec2, Error, ErrorKind, TIMEOUT};
use crate::execute::{Class, Outcome, Outcomes, classify, decided_already, execute, may_pass};
use crate::instance::{Instance, State};
use crate::plan::{Plan, consider, is_selected, plan_of, states};
use crate::request::{Account, Action, Regions, Request};

/// Pauses before EC2 is asked again for its instances; the SDK has repeated each call before.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(20),
];

/// What a run did, target by target.
#[derive(Debug, Default)]
pub struct Run {
    /// Every target, in the order in which it was worked on.
    pub targets: Vec<Worked>,
    /// The plan was larger than `max_changes`, and was not carried out.
    pub too_many_changes: bool,
    /// Nothing matched, though every target could be asked: what a look at every state found.
    pub second_look: Option<Result<SecondLook, Error>>,
}

/// What the request selects where the state doesn't count: "already stopped" and "no such instance" must read differently.
#[derive(Debug, Default)]
pub struct SecondLook {
    /// Instances already in the state in which the action ends well.
    pub done: usize,
    /// Those in other states, by state.
    pub others: BTreeMap<String, usize>,
}

/// Where the function itself lives, as its ARN says.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its account; `unknown` where a host gives no ARN (`cargo lambda watch` doesn't).
    pub account: String,
    /// Its partition: `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
}

impl Home {
    /// Reads an ARN like `arn:aws:lambda:us-east-1:123456789012:function:curfew`.
    #[must_use]
    pub fn of(arn: &str) -> Self {
        let parts: Vec<&str> = arn.split(':').collect();
        match parts.as_slice() {
            ["arn", partition, _, _, account, ..] if account.len() == 12 => {
                Self { account: (*account).to_owned(), partition: (*partition).to_owned() }
            }
            _ => Self { account: "unknown".to_owned(), partition: "aws".to_owned() },
        }
    }
}

/// What became of one account and region.
#[derive(Debug)]
pub struct Worked {
    /// The account.
    pub account: String,
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
    fn planned(account: &str, region: String, planned: Result<Plan, Error>, every_region: bool) -> Self {
        let (account, plan) = (account.to_owned(), Plan::default());
        let worked = Self { account, region, plan, outcomes: Outcomes::new(), error: None, note: None };
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
}

/// A target, and the way to it if there is one, with the moment at which it was asked for what was planned.
type Target = (Option<(Ec2, Instant)>, Worked);

fn is_denied_by_organization(error: &Error) -> bool {
    classify(error) == Class::OneOrAll && error.message.contains("service control policy")
}

/// Works on every target of the request; `tell` hears of each as soon as it is done.
pub async fn run(
    request: &Request,
    aws: &Aws,
    home: &Home,
    deadline: Deadline,
    as_of: DateTime<Utc>,
    tell: impl Fn(&Worked),
) -> Run {
    // One that doesn't answer at all must leave the others time to be worked on.
    let planning = deadline.first_half();
    let accounts = accounts(request, home);
    let planned = accounts.iter().map(|account| plan_account(request, aws, home, account, planning, as_of));
    let mut targets: Vec<Target> = join_all(planned).await.into_iter().flatten().collect();

    let changes: usize = targets.iter().map(|(_, worked)| worked.plan.changes()).sum();
    let matched: usize = targets.iter().map(|(_, worked)| worked.plan.matched()).sum();
    let too_many_changes = request.max_changes.is_some_and(|max| changes as u64 > max);
    join_all(targets.iter_mut().map(|(ec2, worked)| {
        let tell = &tell;
        async move {
            if too_many_changes {
                worked.outcomes = not_carried_out(&worked.plan);
            } else if let Some((ec2, seen)) = ec2 {
                ec2.deadline = deadline;
                let (outcomes, error) = execute(ec2, request, as_of, &worked.plan, *seen).await;
                worked.outcomes = outcomes;
                worked.error = worked.error.take().or(error);
            }
            tell(worked);
        }
    }))
    .await;
    let second_look = match matched == 0 && targets.iter().all(|(_, worked)| worked.error.is_none()) {
        true => Some(look_at_every_state(request, &targets).await),
        false => None,
    };
    Run { targets: targets.into_iter().map(|(_, worked)| worked).collect(), too_many_changes, second_look }
}

/// Lists the accounts to work in, each once: the function's own may be named by its id too.
fn accounts(request: &Request, home: &Home) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ids = request.accounts.iter().map(|account| match account {
        Account::Own => home.account.clone(),
        Account::Id(id) => id.clone(),
    });
    ids.filter(|id| seen.insert(id.clone())).collect()
}

/// Plans every region of an account; what goes wrong belongs to the account and region that was asked.
async fn plan_account(
    request: &Request,
    aws: &Aws,
    home: &Home,
    account: &str,
    planning: Deadline,
    as_of: DateTime<Utc>,
) -> Vec<Target> {
    let own_region = aws.own_region().unwrap_or_default().to_owned();
    let failed = |region, error| (None, Worked::planned(account, region, Err(error), false));
    let assumed = match &request.role {
        Some(role) if account != home.account => {
            let arn = format!("arn:{}:iam::{account}:role/{role}", home.partition);
            patiently(planning, || aws.assume(account, &arn, &request.name, planning)).await
        }
        _ => Ok(aws.clone()),
    };
    let aws = match assumed {
        Ok(aws) => aws,
        Err(error) => {
            let regions = match &request.regions {
                Regions::Named(names) => names.clone(),
                Regions::Own | Regions::All => vec![own_region],
            };
            return regions.into_iter().map(|region| failed(region, error.clone())).collect();
        }
    };
    let regions = match &request.regions {
        Regions::Own => vec![own_region],
        Regions::Named(names) => names.clone(),
        Regions::All => {
            let ec2 = aws.ec2(&own_region, planning);
            match patiently(planning, || ec2.regions()).await {
                Ok(regions) => regions,
                Err(error) => return vec![failed(own_region, error)],
            }
        }
    };
    let every_region = request.regions == Regions::All;
    join_all(regions.into_iter().map(|region| {
        let ec2 = aws.ec2(&region, planning);
        async move {
            let seen = Instant::now();
            let planned = select(&ec2, request, as_of).await;
            (Some((ec2, seen)), Worked::planned(account, region, planned, every_region))
        }
    }))
    .await
}

/// Asks EC2 for what the request selects, and plans.
async fn select(ec2: &Ec2, request: &Request, as_of: DateTime<Utc>) -> Result<Plan, Error> {
    // Who names instances wants to hear of each, whatever its state.
    let states = if request.selection.ids_alone() { &[] } else { states(request.action) };
    let keep = |instance| {
        let (instance, decision) = consider(request, instance, as_of)?;
        Some((instance.without_other_tags(), decision))
    };
    let mut decided = Vec::new();
    for filters in request.selection.calls(states) {
        let more = patiently(ec2.deadline, || ec2.matching(&filters, keep)).await?;
        if decided.is_empty() { decided = more } else { decided.extend(more) }
    }
    Ok(plan_of(request, decided))
}

/// Asks EC2, and again where it is throttled or unwell; the error is then the last that EC2 or the network gave.
async fn patiently<T, F>(deadline: Deadline, ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut answer = ask().await;
    for pause in PAUSES {
        match &answer {
            // Where no answer came for so long, the SDK has spent time enough.
            Err(error) if may_pass(error) && error.code != TIMEOUT && deadline.pause(pause).await.is_ok() => {}
            _ => break,
        }
        match ask().await {
            Err(error) if error.kind == ErrorKind::TooLate => break,
            again => answer = again,
        }
    }
    answer
}

/// Asks again without the state.
async fn look_at_every_state(request: &Request, targets: &[Target]) -> Result<SecondLook, Error> {
    let asked = targets.iter().filter(|(_, worked)| worked.note.is_none()).filter_map(|(ec2, _)| ec2.as_ref());
    let states = asked.map(|(ec2, _)| states_of_all(request, ec2));
    let mut look = SecondLook::default();
    for state in try_join_all(states).await?.into_iter().flatten() {
        match (request.action, state) {
            (Action::Stop { .. }, State::Stopping | State::Stopped) | (Action::Start, State::Running) => look.done += 1,
            (_, other) => *look.others.entry(other.to_string()).or_default() += 1,
        }
    }
    Ok(look)
}

async fn states_of_all(request: &Request, ec2: &Ec2) -> Result<Vec<State>, Error> {
    let keep = |instance: Instance| is_selected(request, &instance).then_some(instance.state);
    let mut states = Vec::new();
    for filters in request.selection.calls(&[]) {
        states.extend(patiently(ec2.deadline, || ec2.matching(&filters, keep)).await?);
    }
    Ok(states)
}

/// Books a plan that was larger than `max_changes`.
fn not_carried_out(plan: &Plan) -> Outcomes {
    let mut outcomes = decided_already(plan);
    for (instance, _) in &plan.decided {
        let unfinished = || Outcome::Unfinished { reason: "too_many_changes".to_owned() };
        outcomes.entry(instance.id).or_insert_with(unfinished);
    }
    outcomes
}
