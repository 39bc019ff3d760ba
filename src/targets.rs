//! Every account × region: look → plan → carry out.
//!
//! All targets are planned before any is acted on, because `max_changes` applies to all of them together. They are
//! worked on concurrently, so that a region where EC2 fails doesn't hold up the others.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;
use tracing::warn;

use crate::deadline::Deadline;
use crate::ec2::{
    Aws, AwsEc2, DRY_RUN_IGNORED, Ec2, Error, ErrorKind, Limits, TIMEOUT, is_denied_by_organization, may_pass,
};
use crate::engine::{Orders, carry_out};
use crate::instance::{Instance, InstanceId, Mark, Run, STOPPED_AT_TAG, State};
use crate::outcome::{self, Outcome, Reason, SecondLook, Skip, TargetRun, Trouble, cut};
use crate::plan::{AsOf, Decision, Plan, consider, decide_again, is_selected, plan_of, stale_mark, states};
use crate::request::{Account, Action, Mode, Regions, Request};
use crate::select::{Filters, MAX_FILTER_VALUES};

/// Pauses between the attempts of [`patiently`], 51 s in all; within each attempt the SDK has retried already.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(20),
];

/// Where the function itself lives, as its ARN says.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its account's twelve digits; `unknown` where the host gives no ARN (`cargo lambda watch` doesn't).
    pub account: String,
    /// Its partition, like `aws`, `aws-cn` or `aws-us-gov`; `aws` where the host gives no ARN.
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

/// An account and region, and how far the run has got there.
#[derive(Debug)]
struct Target {
    /// The role that acts there, as messages name it.
    role: String,
    /// Its EC2, and when the look that the plan is based on began; none if it can't be reached.
    way: Option<(AwsEc2, Instant)>,
    plan: Plan,
    /// The refusal by an organization's policy, where the request asks for every region.
    denied: Option<Error>,
    worked: TargetRun,
}

impl Target {
    fn new(account: &Account, home: &Home, region: String) -> Self {
        let role = match account {
            Account::Own => "the function's role".to_owned(),
            Account::Member { id, role } => format!("the role {role} of {id}"),
        };
        let account = account.id(home).to_owned();
        let worked = TargetRun { account, region, settled: Vec::new(), error: None, note: None };
        Self { role, way: None, plan: Plan::default(), denied: None, worked }
    }

    fn failed(self, error: &Error) -> Self {
        Self { worked: TargetRun { error: Some(trouble(error)), ..self.worked }, ..self }
    }

    /// Takes the plan, or the error that came in its place.
    fn planned(self, planned: Result<Plan, Error>, every_region: bool) -> Self {
        match planned {
            Ok(plan) => Self { plan, ..self },
            // "Every region" means those that the organization allows.
            Err(error) if every_region && is_denied_by_organization(&error) => {
                let note = Some(passed_over(&error));
                Self { denied: Some(error), worked: TargetRun { note, ..self.worked }, ..self }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Carries out the plan.
    async fn carry_out(&mut self, request: &Request, run: Moment, limits: Limits, deadline: Deadline) {
        let plan = std::mem::take(&mut self.plan);
        let Some((ec2, seen)) = &self.way else { return };
        let decide = |instance: &Instance| decide_again(request, instance, run.as_of());
        let mark = Mark::new(run.as_of, run.run);
        let tags = request.tags_in_looks();
        let orders = Orders {
            mode: request.mode,
            run: run.run,
            mark: &mark,
            decide: &decide,
            tags: &tags,
            in_ticks: request.is_about_hours(),
            limits,
            role: &self.role,
            clock: run.clock,
            deadline,
        };
        let (settled, error) = carry_out(ec2, orders, plan, *seen).await;
        self.worked.settled = settled;
        self.worked.error = self.worked.error.take().or_else(|| error.as_ref().map(trouble));
    }
}

/// Which run it is, and the moment that it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When it was due, or when it began if no time was scheduled.
    pub as_of: DateTime<Utc>,
    /// Which invocation it is.
    pub run: Run,
    /// When it began by the monotonic clock, and the time of day that this counts as: `as_of` for a tick of reconcile.
    pub clock: (Instant, DateTime<Utc>),
}

impl Moment {
    fn as_of(&self) -> AsOf {
        AsOf { at: self.as_of, run: Some(self.run) }
    }
}

/// What becomes of the other targets when one's EC2 has ignored DryRun.
fn not_asked() -> Outcome {
    let message = "not tried: in another region or account, EC2 carried out a dry run".into();
    Outcome::Failed { code: DRY_RUN_IGNORED.into(), message }
}

/// Returns the note about a region that an organization's policy denies.
pub(crate) fn passed_over(error: &Error) -> String {
    format!("skipped, a service control policy denies it ({})", error.code)
}

/// Converts an error into what the report says about a target.
pub(crate) fn trouble(error: &Error) -> Trouble {
    Trouble { code: error.code.clone(), message: cut(&error.message), may_pass: may_pass(error) }
}

/// Carries out the request in every target; `tell` is called with each target as soon as it is done.
pub async fn run(
    request: &Request,
    aws: &Aws,
    home: &Home,
    deadline: Deadline,
    moment: Moment,
    tell: impl Fn(&TargetRun),
) -> outcome::Run {
    let Planned { mut targets, too_many_changes, second_look } =
        plan_all(request, aws, home, deadline, moment.as_of()).await;
    let limits = aws.limits();
    let mut halted = false;
    let first = match request.mode {
        Mode::Live => 0,
        // One target with changes goes first, so that an EC2 that ignores DryRun is noticed before the others are
        // called.
        Mode::DryRun => targets.iter().position(|target| target.plan.changes() > 0).map_or(0, |first| first + 1),
    };
    let (one_by_one, at_once) = targets.split_at_mut(if too_many_changes.is_some() { 0 } else { first });
    for target in one_by_one {
        target.carry_out(request, moment, limits, deadline).await;
        halted |= target.worked.error.as_ref().is_some_and(|error| error.code == DRY_RUN_IGNORED);
        tell(&target.worked);
    }
    join_all(at_once.iter_mut().map(|target| {
        let tell = &tell;
        async move {
            if too_many_changes.is_some() {
                target.worked.settled = std::mem::take(&mut target.plan)
                    .not_carried_out(&Outcome::Unfinished { reason: "too_many_changes".into() });
            } else if halted {
                target.worked.settled = std::mem::take(&mut target.plan).not_carried_out(&not_asked());
            } else {
                target.carry_out(request, moment, limits, deadline).await;
            }
            tell(&target.worked);
        }
    }))
    .await;
    let targets = targets.into_iter().map(|target| target.worked).collect();
    outcome::Run { targets, too_many_changes, second_look }
}

/// What a run would do, and what it would do it to.
#[derive(Debug, Default)]
pub struct Preview {
    /// What would become of each instance if EC2 accepted every call.
    pub run: outcome::Run,
    /// The instances that EC2 showed, target by target, with the decision about each.
    pub decided: Vec<Vec<(Instance, Decision)>>,
}

/// Plans every target of the request without carrying anything out: EC2 is only asked what is there.
///
/// What an earlier tick has already reported is included.
pub async fn preview(request: &Request, aws: &Aws, home: &Home, deadline: Deadline, as_of: DateTime<Utc>) -> Preview {
    let planned = plan_all(request, aws, home, deadline, as_of.into()).await;
    let too_many = planned.too_many_changes.map(|_| Outcome::Unfinished { reason: "too_many_changes".into() });
    let mut preview = Preview::default();
    for target in planned.targets {
        let plan = target.plan.told_anew();
        preview.decided.push(plan.decided.clone());
        let settled = plan.previewed(too_many.as_ref());
        preview.run.targets.push(TargetRun { settled, ..target.worked });
    }
    preview.run.too_many_changes = planned.too_many_changes;
    preview.run.second_look = planned.second_look;
    preview
}

/// What a look for one instance found in an account and region.
#[derive(Debug)]
pub struct Sighting {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
    /// The instance as EC2 shows it, if it is there, and the names of the request's filters that exclude it; or why EC2
    /// couldn't be asked.
    pub found: Result<Option<(Instance, Vec<String>)>, Trouble>,
}

/// Looks for one instance in every target of the request, whether the request selects it or not.
pub async fn find(request: &Request, aws: &Aws, home: &Home, deadline: Deadline, id: InstanceId) -> Vec<Sighting> {
    let accounts = accounts_once(&request.accounts, home);
    let reached = accounts.iter().map(|account| reach(request, aws, home, account, deadline));
    let targets = join_all(reached).await.into_iter().flatten();
    let looks = targets.map(|Target { way, worked, .. }| async move {
        let found = match (way, worked.error) {
            (_, Some(trouble)) => Err(trouble),
            (None, None) => Ok(None),
            (Some((ec2, _)), None) => sight(&ec2, request, deadline, id).await.map_err(|error| trouble(&error)),
        };
        Sighting { account: worked.account, region: worked.region, found }
    });
    join_all(looks).await
}

/// Looks at an instance by its id, then once with each of the request's filters: only EC2 can evaluate most of them.
async fn sight(
    ec2: &AwsEc2,
    request: &Request,
    until: Deadline,
    id: InstanceId,
) -> Result<Option<(Instance, Vec<String>)>, Error> {
    let by_id = ("instance-id".to_owned(), vec![id.to_string()]);
    let look = async |filter: Option<(String, Vec<String>)>| {
        let filters: Filters = [by_id.clone()].into_iter().chain(filter).collect();
        patiently(until, || ec2.matching(&filters, Some, until)).await.map(|mut found| found.pop())
    };
    let Some(mut instance) = look(None).await? else { return Ok(None) };
    // An answer is only certain to show tags if a filter names one (cloud-custodian #252, #10909).
    if let Some(tagged) = look(Some(("tag-key".to_owned(), vec!["*".to_owned()]))).await? {
        instance = tagged;
    }
    let mut keep_out = Vec::new();
    for (name, values) in &request.selection.filters {
        if look(Some((name.clone(), values.clone()))).await?.is_none() {
            keep_out.push(name.clone());
        }
    }
    Ok(Some((instance, keep_out)))
}

/// Every target with its plan, before any is carried out.
struct Planned {
    targets: Vec<Target>,
    too_many_changes: Option<usize>,
    second_look: Option<Result<SecondLook, Trouble>>,
}

async fn plan_all(request: &Request, aws: &Aws, home: &Home, deadline: Deadline, as_of: AsOf) -> Planned {
    // One that doesn't answer at all must leave the others time to be worked on.
    let planning = deadline.first_half();
    let accounts = accounts_once(&request.accounts, home);
    let planned = accounts.iter().map(|account| plan_account(request, aws, home, account, planning, as_of));
    let mut targets: Vec<Target> = join_all(planned).await.into_iter().flatten().collect();
    all_denied_is_an_error(&mut targets);

    let mut second_look = None;
    if targets.iter().all(|target| target.plan.matched() == 0 && target.worked.error.is_none()) {
        match look_at_every_state(request, &mut targets, deadline, as_of).await {
            // The first look missed instances that are planned now, so there is no empty result to explain.
            Ok(_) if targets.iter().any(|target| target.plan.matched() > 0) => {}
            look => second_look = Some(look.map_err(|error| trouble(&error))),
        }
    }
    let changes: usize = targets.iter().map(|target| target.plan.changes()).sum();
    let too_many_changes = request.max_changes.filter(|max| changes as u64 > *max).map(|_| changes);
    Planned { targets, too_many_changes, second_look }
}

/// Lists the accounts to work in, each once: the function's own may also be named by its id.
pub(crate) fn accounts_once(accounts: &[Account], home: &Home) -> Vec<Account> {
    let mut seen = BTreeSet::new();
    let own = |account: &Account| match account {
        Account::Own => true,
        Account::Member { id, .. } => *id == home.account,
    };
    let accounts = accounts.iter().map(|account| if own(account) { Account::Own } else { account.clone() });
    accounts.filter(|account| seen.insert(account.clone())).collect()
}

/// Turns notes into errors if every region of every account is denied: nothing was looked at, which must not read as a
/// night with nothing to do.
fn all_denied_is_an_error(targets: &mut [Target]) {
    if all_passed_over(targets.iter().map(|target| target.denied.as_ref())) {
        for target in targets {
            target.worked.note = None;
            target.worked.error = target.denied.take().as_ref().map(trouble);
        }
    }
}

/// Whether every target was denied by an organization's policy.
pub(crate) fn all_passed_over<'a>(mut denied: impl Iterator<Item = Option<&'a Error>>) -> bool {
    denied.all(|denied| denied.is_some())
}

impl Account {
    /// Returns its twelve digits; `unknown` for the function's own where the host gives no ARN.
    pub(crate) fn id<'a>(&'a self, home: &'a Home) -> &'a str {
        match self {
            Self::Own => &home.account,
            Self::Member { id, .. } => id,
        }
    }
}

/// Plans every region of an account.
async fn plan_account(
    request: &Request,
    aws: &Aws,
    home: &Home,
    account: &Account,
    planning: Deadline,
    as_of: AsOf,
) -> Vec<Target> {
    let every_region = request.regions == Regions::All;
    let targets = reach(request, aws, home, account, planning).await;
    join_all(targets.into_iter().map(|target| async move {
        let Some((ec2, _)) = &target.way else { return target };
        let seen = Instant::now();
        let planned = select(ec2, request, planning, as_of).await;
        let way = target.way.map(|(ec2, _)| (ec2, seen));
        Target { way, ..target }.planned(planned, every_region)
    }))
    .await
}

/// Returns a target for every region of an account; an error is reported for the account and region that was asked.
async fn reach(request: &Request, aws: &Aws, home: &Home, account: &Account, planning: Deadline) -> Vec<Target> {
    let ways = ways(account, &request.regions, &request.name, aws, home, planning).await;
    let target = |(region, way)| {
        let target = Target::new(account, home, region);
        match way {
            Ok(ec2) => Target { way: Some((ec2, Instant::now())), ..target },
            Err(error) => target.failed(&error),
        }
    };
    ways.into_iter().map(target).collect()
}

/// Returns every region of an account with its EC2, or with the error if it can't be reached.
pub(crate) async fn ways(
    account: &Account,
    regions: &Regions,
    schedule: &str,
    aws: &Aws,
    home: &Home,
    planning: Deadline,
) -> Vec<(String, Result<AwsEc2, Error>)> {
    let own_region = aws.own_region().unwrap_or_default().to_owned();
    let assumed = match account {
        Account::Own => Ok(aws.clone()),
        Account::Member { id, role } => {
            let arn = format!("arn:{}:iam::{id}:role/{role}", home.partition);
            patiently(planning, || aws.assume(id, &arn, schedule, planning)).await
        }
    };
    let aws = match assumed {
        Ok(aws) => aws,
        Err(error) => {
            let regions = match regions {
                Regions::Named(names) => names.clone(),
                Regions::Own | Regions::All => vec![own_region],
            };
            return regions.into_iter().map(|region| (region, Err(error.clone()))).collect();
        }
    };
    let regions = match regions {
        Regions::Own => vec![own_region],
        Regions::Named(names) => names.clone(),
        Regions::All => {
            let ec2 = aws.ec2(&own_region);
            match patiently(planning, || ec2.regions(planning)).await {
                Ok(regions) if regions.is_empty() => {
                    let message = "EC2 lists no region as enabled for this account".to_owned();
                    let kind = ErrorKind::Refused { status: 200 };
                    return vec![(own_region, Err(Error { code: "NoRegions".to_owned(), message, kind }))];
                }
                Ok(regions) => regions,
                Err(error) => return vec![(own_region, Err(error))],
            }
        }
    };
    regions.into_iter().map(|region| (region.clone(), Ok(aws.ec2(&region)))).collect()
}

/// What EC2 shows in an account and region.
#[derive(Debug)]
pub struct Look {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
    /// What the request selects there, in any state but terminated; or why EC2 couldn't be asked.
    pub found: Result<Vec<Instance>, Trouble>,
}

/// Looks at everything that the request selects, in every target, without planning anything.
pub async fn look(request: &Request, aws: &Aws, home: &Home, until: Deadline) -> Vec<Look> {
    let accounts = accounts_once(&request.accounts, home);
    let reached = accounts.iter().map(|account| reach(request, aws, home, account, until));
    let targets = join_all(reached).await.into_iter().flatten();
    let looks = targets.map(|Target { way, worked, .. }| async move {
        let found = match (way, worked.error) {
            (_, Some(trouble)) => Err(trouble),
            (None, None) => Ok(Vec::new()),
            (Some((ec2, _)), None) => instances(&ec2, request, until).await.map_err(|error| trouble(&error)),
        };
        Look { account: worked.account, region: worked.region, found }
    });
    join_all(looks).await
}

async fn instances<E: Ec2>(ec2: &E, request: &Request, until: Deadline) -> Result<Vec<Instance>, Error> {
    // The decision only fills the place: it is dropped below.
    let selected = |instance: Instance| {
        let is_ours = is_selected(request, &instance) && !instance.state.is_gone();
        is_ours.then_some(Found::Planned(instance, Decision::Follow, None))
    };
    let states = states(Action::Reconcile { hibernate: false });
    let mut found = Vec::new();
    for filters in request.calls(states) {
        found.extend(patiently(until, || ec2.matching(&filters, tags_first(request, selected), until)).await?);
    }
    let plan = plan_of_found(ec2, request, until, found, selected).await?;
    Ok(plan.decided.into_iter().map(|(instance, _)| instance).collect())
}

/// An instance that a look found.
enum Found {
    /// It is in the plan.
    Planned(Instance, Decision, Option<Mark>),
    /// It showed no tags, and no filter named one: EC2 may have left them out.
    Bare(Instance),
}

/// Looks at what the request selects, and plans.
///
/// # Errors
/// EC2 refused, or did not answer in time.
pub async fn select<E: Ec2>(
    ec2: &E,
    request: &Request,
    until: Deadline,
    as_of: impl Into<AsOf>,
) -> Result<Plan, Error> {
    let as_of = as_of.into();
    // Whoever names instances wants to hear of each, whatever its state.
    let states = if request.selection.ids_alone() { &[] } else { states(request.action) };
    let planned = |instance: Instance| {
        let stale = stale_mark(request, &instance, as_of.at);
        let (instance, decision) = consider(request, instance, as_of)?;
        Some(Found::Planned(instance.without_other_tags(), decision, stale))
    };
    let mut found = Vec::new();
    for filters in request.calls(states) {
        let more = patiently(until, || ec2.matching(&filters, tags_first(request, planned), until)).await?;
        if found.is_empty() { found = more } else { found.extend(more) }
    }
    let mut plan = plan_of_found(ec2, request, until, found, planned).await?;
    if request.action == Action::Start && request.remember && request.mode == Mode::Live {
        match running_with_stale_marks(ec2, request, until, as_of.at).await {
            Ok(running) => {
                for (instance, mark) in running {
                    plan.stale.push((instance.id, mark));
                    plan.decided.push((instance, Decision::Leave(Skip::because(Reason::AlreadyDone).into())));
                }
            }
            // Not fatal: the next start looks for them again.
            Err(error) => {
                warn!(code = error.code, error = cut(&error.message), "could not look for marks on what runs")
            }
        }
    }
    Ok(plan)
}

/// Plans what shows its tags, and sets the rest aside: an answer is only certain to show tags if a filter names one.
fn tags_first<'a>(
    request: &'a Request,
    planned: impl Fn(Instance) -> Option<Found> + Copy + Send + 'a,
) -> impl Fn(Instance) -> Option<Found> + Copy + Send + 'a {
    let any_tags = !request.tags_in_looks().is_empty();
    move |instance| if any_tags || !instance.tags.is_empty() { planned(instance) } else { Some(Found::Bare(instance)) }
}

/// Plans what was found. Instances that showed no tags are looked at once more, with a filter that any tag matches.
///
/// That costs one call for every 199 instances without tags (200 filter values, less the one for the tag), and none
/// where `tags` selects.
async fn plan_of_found<E: Ec2>(
    ec2: &E,
    request: &Request,
    until: Deadline,
    found: Vec<Found>,
    planned: impl Fn(Instance) -> Option<Found> + Copy + Send,
) -> Result<Plan, Error> {
    let (mut decided, mut stale, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut take = |found, bare: &mut Vec<Instance>| match found {
        Found::Planned(instance, decision, mark) => {
            stale.extend(mark.map(|mark| (instance.id, mark)));
            decided.push((instance, decision));
        }
        Found::Bare(instance) => bare.push(instance),
    };
    for found in found {
        take(found, &mut bare);
    }
    for some in bare.chunks(MAX_FILTER_VALUES - 1) {
        let ids = some.iter().map(|instance| instance.id.to_string()).collect();
        let filters = vec![("instance-id".to_owned(), ids), ("tag-key".to_owned(), vec!["*".to_owned()])];
        let tagged = patiently(until, || ec2.matching(&filters, Some, until)).await?;
        let ids: BTreeSet<InstanceId> = tagged.iter().map(|instance| instance.id).collect();
        let untagged = some.iter().filter(|instance| !ids.contains(&instance.id)).cloned();
        for found in tagged.into_iter().chain(untagged).filter_map(planned) {
            take(found, &mut Vec::new());
        }
    }
    Ok(Plan { stale, ..plan_of(request, decided) })
}

/// Finds running instances with a mark so old that its stop can't be under way any more: that run died between marking
/// and stopping them.
async fn running_with_stale_marks<E: Ec2>(
    ec2: &E,
    request: &Request,
    until: Deadline,
    as_of: DateTime<Utc>,
) -> Result<Vec<(Instance, Mark)>, Error> {
    let keep = |instance: Instance| {
        let mark = stale_mark(request, &instance, as_of).filter(|_| is_selected(request, &instance))?;
        Some((instance.without_other_tags(), mark))
    };
    let mut found = Vec::new();
    // There are no such calls for ids alone, which were looked at in every state already.
    for filters in request.selection.marked_calls(STOPPED_AT_TAG, State::Running) {
        found.extend(patiently(until, || ec2.matching(&filters, keep, until)).await?);
    }
    Ok(found)
}

/// Makes a call, and repeats it after a pause while it is throttled or EC2 fails. If time runs out, the error is the
/// last one that EC2 or the network gave.
pub(crate) async fn patiently<T, F>(deadline: Deadline, ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut answer = ask().await;
    for pause in PAUSES {
        match &answer {
            // After a time-out the SDK's own retries have taken long enough.
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

/// Looks again, at instances in any state. Those that can be switched after all are planned.
async fn look_at_every_state(
    request: &Request,
    targets: &mut [Target],
    until: Deadline,
    as_of: AsOf,
) -> Result<SecondLook, Error> {
    let asked = targets.iter_mut().filter(|target| target.denied.is_none());
    let looks = asked.map(|target| async move {
        let Some((ec2, seen)) = &mut target.way else { return Ok::<_, Error>(Vec::new()) };
        *seen = Instant::now();
        let (found, others) = instances_of_all_states(request, ec2, until, as_of).await?;
        target.plan = found;
        Ok(others)
    });
    let found: Vec<State> = try_join_all(looks).await?.into_iter().flatten().collect();
    let mut look = SecondLook::default();
    if found.is_empty() && !request.is_about_hours() && targets.iter().all(|target| target.plan.matched() == 0) {
        // Most likely a typo or different case in a tag's value. It is only a hint, so errors are ignored.
        let asked = targets.iter().filter_map(|target| target.way.as_ref());
        for near in
            join_all(asked.map(|(ec2, _)| look_at_keys(request, ec2, until))).await.into_iter().flatten().flatten()
        {
            *look.near.entry(near).or_default() += 1;
        }
    }
    for state in found {
        match (request.action, state) {
            (Action::Stop { .. }, State::Stopping | State::Stopped) | (Action::Start, State::Running) => look.done += 1,
            (_, other) => *look.others.entry(other.to_string()).or_default() += 1,
        }
    }
    Ok(look)
}

/// Finds instances that have the keys of the request's tags with other values; returns those tags as text, for each.
async fn look_at_keys(request: &Request, ec2: &AwsEc2, until: Deadline) -> Result<Vec<String>, Error> {
    let mut near = Vec::new();
    for filters in request.selection.calls_by_keys() {
        let keep =
            |instance: Instance| request.selection.mismatch(&instance.tags).filter(|_| !instance.state.is_gone());
        near.extend(ec2.matching(&filters, keep, until).await?);
    }
    Ok(near)
}

async fn instances_of_all_states(
    request: &Request,
    ec2: &AwsEc2,
    until: Deadline,
    as_of: AsOf,
) -> Result<(Plan, Vec<State>), Error> {
    let others = Mutex::new(Vec::new());
    let planned = |instance: Instance| {
        if !states(request.action).contains(&instance.state) {
            if is_selected(request, &instance) {
                others.lock().unwrap_or_else(PoisonError::into_inner).push(instance.state);
            }
            return None;
        }
        let (instance, decision) = consider(request, instance, as_of)?;
        Some(Found::Planned(instance.without_other_tags(), decision, None))
    };
    let mut found = Vec::new();
    for filters in request.calls(&[]) {
        found.extend(patiently(until, || ec2.matching(&filters, tags_first(request, &planned), until)).await?);
    }
    let plan = plan_of_found(ec2, request, until, found, &planned).await?;
    Ok((plan, others.into_inner().unwrap_or_else(PoisonError::into_inner)))
}
