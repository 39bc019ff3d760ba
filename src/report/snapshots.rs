//! The report of a run about snapshots: the same shape, and what the snapshots cost.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serializer;

use super::{Changed, Failed, MAX_LISTED, Report, Skipped, Storage, Target, Unfinished, list};
use crate::instance::rfc3339;
use crate::outcome::{Skip, Trouble};
pub(super) use crate::request::snapshots::ACTION;
use crate::request::snapshots::Request;
use crate::snapshots::rule::{GIB, VOLUME_GONE};
use crate::snapshots::{Change, Outcome, Run, Settled, TargetRun};
use crate::wording::{clip, tag};

/// What a GiB costs a month at list price in most regions, in millionths of a dollar (EBS pricing, "EBS Snapshots").
const STANDARD_MICRO_DOLLARS: u64 = 50_000;
/// The same in the archive.
const ARCHIVE_MICRO_DOLLARS: u64 = 12_500;

impl Storage {
    fn add(&mut self, settled: &Settled) {
        let price = if settled.archived { ARCHIVE_MICRO_DOLLARS } else { STANDARD_MICRO_DOLLARS };
        let micro_dollars = u128::from(settled.bytes) * u128::from(price) / u128::from(GIB);
        self.snapshots += 1;
        self.up_to_bytes = self.up_to_bytes.saturating_add(settled.bytes);
        let micro_dollars = u64::try_from(micro_dollars).unwrap_or(u64::MAX);
        self.up_to_micro_dollars = self.up_to_micro_dollars.saturating_add(micro_dollars);
    }
}

/// Writes millionths of a dollar as dollars and cents.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(super) fn dollars<S: Serializer>(micro: &u64, json: S) -> Result<S::Ok, S::Error> {
    json.serialize_f64(in_cents(*micro) as f64 / 100.0)
}

fn in_cents(micro: u64) -> u64 {
    micro.saturating_add(5_000) / 10_000
}

/// Puts what became of a target's snapshots into its lists.
fn listed(worked: &TargetRun) -> Target {
    let mut target = Target::empty(&worked.account, &worked.region, worked.error.as_ref(), worked.note.as_ref());
    for settled in &worked.settled {
        let (id, name): (Box<str>, _) = (settled.id.as_str().into(), settled.name.as_deref().map(str::to_owned));
        let change = |change: Change| {
            let (from, to, until) = match change {
                Change::Mark { until } => ("completed", "marked", Some(rfc3339(until))),
                Change::Delete => ("marked", "deleted", None),
            };
            let (from, to) = (from.into(), to.into());
            Changed { id: id.clone(), name: name.clone(), from, to, reason: Some(VOLUME_GONE), until, message: None }
        };
        let listed = match settled.outcome.clone() {
            Outcome::Changed(it) => list(MAX_LISTED, &mut target.changed, change(it)),
            Outcome::WouldChange(it) => list(MAX_LISTED, &mut target.would_change, change(it)),
            Outcome::Skipped(Skip { reason, until, message, .. }) => {
                list(MAX_LISTED, &mut target.skipped, Skipped { id, name, reason, until: until.map(rfc3339), message })
            }
            Outcome::Failed { code, message } => {
                list(MAX_LISTED, &mut target.failed, Failed { id, name, code, message })
            }
            Outcome::Unfinished { reason } => list(MAX_LISTED, &mut target.unfinished, Unfinished { id, name, reason }),
        };
        target.truncated += usize::from(!listed);
    }
    target
}

impl Report {
    /// Reports a run about snapshots.
    #[must_use]
    pub fn of_snapshots(request: &Request, run: &Run, duration: Duration) -> Self {
        let mut report = Self::about_snapshots(request, duration);
        let (mut marked, mut deleted) = (Storage::default(), Storage::default());
        let summary = &mut report.summary;
        for settled in run.targets.iter().flat_map(|worked| &worked.settled) {
            summary.matched += 1;
            let count = match &settled.outcome {
                Outcome::Changed(change) | Outcome::WouldChange(change) => {
                    match change {
                        Change::Mark { .. } => marked.add(settled),
                        Change::Delete => deleted.add(settled),
                    }
                    let is_done = matches!(settled.outcome, Outcome::Changed(_));
                    if is_done { &mut summary.changed } else { &mut summary.would_change }
                }
                Outcome::Skipped(skip) => {
                    *report.skipped_by.entry(skip.reason.as_str()).or_default() += 1;
                    &mut summary.skipped
                }
                Outcome::Failed { .. } => &mut summary.failed,
                Outcome::Unfinished { .. } => &mut summary.unfinished,
            };
            *count += 1;
        }
        (summary.marked, summary.deleted) = (Some(marked), Some(deleted));
        let errors: Vec<&Trouble> = run.targets.iter().filter_map(|worked| worked.error.as_ref()).collect();
        report.outcome = report.summary.verdict(run.too_many_changes.is_some(), &errors);
        report.suspicious = report.summary.matched == 0;
        report.targets = run.targets.iter().map(listed).collect();
        report.message = report.sentence_about_snapshots(request, run, marked, deleted);
        report.truncate();
        report
    }

    /// Reports that a run about snapshots came too late to begin.
    #[must_use]
    pub fn of_stale_snapshots(request: &Request, late: Duration, duration: Duration) -> Self {
        let Request { scheduled_by, max_delay, .. } = request;
        Self::about_snapshots(request, duration).stale("deleted", scheduled_by, late, *max_delay)
    }

    fn about_snapshots(request: &Request, duration: Duration) -> Self {
        let Request { name, mode, scheduled_time, .. } = request;
        Self::of_nothing(name, ACTION, *mode, *scheduled_time, duration)
    }

    fn sentence_about_snapshots(&self, request: &Request, run: &Run, marked: Storage, deleted: Storage) -> String {
        let dry = if self.dry_run { "dry run, " } else { "" };
        let accounts = run.targets.iter().map(|worked| worked.account.as_str()).collect::<BTreeSet<_>>().len();
        let mut parts = Vec::new();
        if let Some(planned) = run.too_many_changes {
            let max = request.max_changes.unwrap_or_default();
            parts.push(format!(
                "{dry}nothing marked or deleted: would change {planned} snapshots, more than max_changes ({max})"
            ));
        } else if self.summary.matched == 0 && run.targets.iter().all(|worked| worked.error.is_none()) {
            let place = match (accounts, run.targets.as_slice()) {
                (1, [one]) => one.region.clone(),
                (1, many) => format!("{} regions", many.len()),
                (accounts, _) => format!("{accounts} accounts"),
            };
            let tags =
                request.tags.0.iter().map(|(key, values)| {
                    values.iter().map(|value| tag(key, &value.0)).collect::<Vec<_>>().join(" or ")
                });
            let tags = clip(&tags.collect::<Vec<_>>().join(" and "), super::MAX_QUOTED_SELECTION);
            parts.push(format!("{dry}nothing to delete, no snapshot in {place} has {tags}; is that what was meant?"));
        } else if self.saw_nothing() {
            parts.extend(dry.strip_suffix(", ").map(str::to_owned));
        } else {
            let (mark, delete) = if self.dry_run { ("would mark", "would delete") } else { ("marked", "deleted") };
            let of = self.summary.matched;
            parts.push(format!("{dry}{delete} {}, {mark} {} of {of} snapshots", costing(deleted), costing(marked)));
        }
        if self.summary.skipped > 0 {
            let mut reasons: Vec<_> = self.skipped_by.iter().collect();
            reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), **reason));
            let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            parts.push(format!("kept {} ({})", self.summary.skipped, reasons.join(", ")));
        }
        parts.extend(self.troubles(accounts, run.too_many_changes.is_none()));
        format!("{}: {}", self.name, parts.join("; "))
    }
}

/// Writes a number of snapshots with what they cost at most.
fn costing(storage: Storage) -> String {
    let Storage { snapshots, up_to_bytes, up_to_micro_dollars } = storage;
    if snapshots == 0 {
        return "0".to_owned();
    }
    let (tenths, cents) = (up_to_bytes.saturating_mul(10) / GIB, in_cents(up_to_micro_dollars));
    format!("{snapshots} (up to {}.{} GiB, ${}.{:02} a month)", tenths / 10, tenths % 10, cents / 100, cents % 100)
}
