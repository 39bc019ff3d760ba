//! Requests, reasons and moments in words.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use ec2_curfew::outcome::Reason;
use ec2_curfew::request::{Account, Action, Mode, Regions, Request, snapshots};
use ec2_curfew::select::{Selection, TagPatterns};
use ec2_curfew::wording::{duration, tag};

/// Returns what a request does, in a few words.
pub(crate) fn sentence(request: &Request) -> String {
    let selection = &request.selection;
    let has = if selection.ids_alone() { "is" } else { "has" };
    match request.action {
        Action::Stop { hibernate: false } => format!("stop what runs and {has} {selection}"),
        Action::Stop { hibernate: true } => format!("hibernate or stop what runs and {has} {selection}"),
        Action::Start => format!("start what is stopped and {has} {selection}"),
        Action::Reconcile { .. } => format!("keep to its hours what {has} {selection}"),
    }
}

/// Returns what a request means, in parts with a heading each.
pub(crate) fn parts(request: &Request) -> Vec<(&'static str, String)> {
    let mut spared = spared(&request.except_tags);
    if !request.is_about_hours() {
        spared.push(format!("{}, which only reconcile switches", request.hours_tag));
    }
    vec![
        ("which", which(request)),
        ("but not", format!("with {}", spared.join(", or "))),
        ("where", place(&request.regions, &request.accounts)),
        ("how", how(request)),
    ]
    .into_iter()
    .chain(at_most(request.max_changes))
    .chain([due(request.scheduled_time, request.max_delay, request.timezone)])
    .collect()
}

/// Returns what a request about snapshots means, in the same way.
pub(crate) fn parts_about_snapshots(request: &snapshots::Request) -> Vec<(&'static str, String)> {
    let selection = Selection { tags: request.tags.clone(), ..Selection::default() };
    let archived = if request.archived { "also" } else { "not" };
    let days = |span: TimeDelta| duration(span.to_std().unwrap_or_default());
    vec![
        (
            "which",
            format!(
                "{selection}, older than {}, of a volume that is gone; {archived} archived ones",
                days(request.min_age)
            ),
        ),
        ("but not", format!("with {}, or what anything else may need", spared(&request.except_tags).join(", or "))),
        ("where", place(&request.regions, &request.accounts)),
        (
            "how",
            format!(
                "{}; marks them, and deletes what is still marked {} later",
                mode(request.mode),
                days(request.grace)
            ),
        ),
    ]
    .into_iter()
    .chain(at_most(request.max_changes))
    .chain([due(request.scheduled_time, request.max_delay, request.timezone)])
    .collect()
}

fn at_most(max_changes: Option<u64>) -> Option<(&'static str, String)> {
    max_changes.map(|max| ("at most", format!("{max}; if more would change, nothing does")))
}

fn due(scheduled: Option<DateTime<Utc>>, max_delay: Duration, zone: Tz) -> (&'static str, String) {
    let late = duration(max_delay);
    match scheduled {
        Some(due) => ("due", format!("{} {zone}, and up to {late} later", moment(due, zone))),
        None => ("late", format!("up to {late} after it was due; later, nothing changes")),
    }
}

fn which(request: &Request) -> String {
    let hours = match request.is_about_hours() && !request.selection.ids_alone() {
        true => format!(" and a tag {}", request.hours_tag),
        false => String::new(),
    };
    format!("{}{hours}", request.selection)
}

/// Lists the tags that make Curfew leave alone whatever carries them.
fn spared(except_tags: &TagPatterns) -> Vec<String> {
    let mut spared: Vec<String> = Vec::new();
    for (key, values) in &except_tags.0 {
        let values: Vec<&str> = values.iter().map(|value| value.0.as_str()).collect();
        spared.push(tag(key, &values.join("|")));
    }
    spared.push("curfew:exempt".to_owned());
    spared
}

fn place(regions: &Regions, accounts: &[Account]) -> String {
    let own = |account: &Account| match account {
        Account::Own => "the function's account".to_owned(),
        Account::Member { id, role } => format!("{id} as {role}"),
    };
    let accounts: Vec<String> = accounts.iter().map(own).collect();
    let regions = match regions {
        Regions::Own => "the function's region".to_owned(),
        Regions::All => "every region enabled".to_owned(),
        Regions::Named(names) => names.join(", "),
    };
    format!("{regions}; {}", accounts.join(", "))
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => "for real",
        Mode::DryRun => "as a rehearsal, in which nothing changes",
    }
}

fn how(request: &Request) -> String {
    let mut how = mode(request.mode).to_owned();
    if let Action::Stop { hibernate: true } | Action::Reconcile { hibernate: true } = request.action {
        how.push_str("; hibernates what is configured for it");
    }
    how.push_str(match (request.action, request.remember) {
        (Action::Stop { .. }, true) => "; marks what it stops, so that a start knows it again",
        (Action::Stop { .. }, false) => "; without marks, so a start that remembers won't start it again",
        (Action::Start, true) => "; starts only what a stop has marked",
        (Action::Start, false) => "; starts whatever is stopped, also what people stopped",
        (Action::Reconcile { .. }, true) => "; starts only what Curfew stopped",
        (Action::Reconcile { .. }, false) => "; starts whatever is off when its hours open, also what people stopped",
    });
    how
}

/// Returns what a reason means, for when the plan gives no message of its own.
pub(crate) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::AlreadyDone => "there is nothing to do",
        Reason::AsScheduled => "it is as its hours want it",
        Reason::AutoscalingMember => "its group would replace it",
        Reason::BadTag => "its hours can't be read",
        Reason::Exempt => "a tag spares it",
        Reason::Gone => "it is gone",
        Reason::HasHours => "its own hours decide, which only reconcile acts on",
        Reason::InstanceStoreRoot => "its root disk would be lost, so EC2 can't stop it",
        Reason::Moving => "it is on its way",
        Reason::NotMarked => "no stop with \"remember\" has marked it",
        Reason::ServiceManaged => "a service runs it",
        Reason::SpotOneTime => "EC2 can't stop a one-time Spot Instance",
        Reason::StartedSince => "it was started since",
        Reason::StopProtected => "it is protected from being stopped",
        Reason::StoppedSince => "people stopped it since",
        Reason::Tried => "it was tried",
        Reason::UnknownState => "this version doesn't know its state",
        // Only snapshots have these reasons, and `curfew plan` is not about snapshots.
        Reason::Kept(_) => "it is kept",
    }
}

/// Returns a moment as people write it, like `Fri 27 Nov 08:00`; with the year if it is more than 300 days away.
pub(crate) fn moment(moment: DateTime<Utc>, zone: Tz) -> String {
    let local = moment.with_timezone(&zone);
    let year = if (moment - Utc::now()).num_days().abs() > 300 { " %Y" } else { "" };
    local.format(&format!("%a %-d %b{year} %H:%M")).to_string()
}

/// Returns how far away a moment is, like `in 3 hours 5 minutes` or `2 days ago`.
pub(crate) fn from_now(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let apart = (moment - now).abs().to_std().unwrap_or(Duration::ZERO);
    let apart = duration(apart);
    if moment > now { format!("in {apart}") } else { format!("{apart} ago") }
}
