//! The request of `"action": "snapshots"`. The same [`Reader`] reads the fields that it shares with other actions.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::{Account, Mode, Reader, Refused, Regions};
use crate::select::{MAX_FILTER_VALUES, MAX_FILTERS, TagPatterns};

/// The action's name in requests and reports.
pub const ACTION: &str = "snapshots";
/// The fields that are only valid with this action.
pub(super) const OWN_FIELDS: [&str; 3] = ["min_age_days", "grace_days", "archived"];
/// The fields that are only valid with other actions.
const OTHERS_FIELDS: [&str; 7] = ["filters", "instance_ids", "hibernate", "remember", "hours_tag", "holidays", "hours"];
/// The default of `min_age_days`: half a year.
const MIN_AGE_DAYS: u64 = 180;
/// The least that `min_age_days` may be: nothing that anybody made in the past week is deleted.
const LEAST_AGE_DAYS: u64 = 7;
/// The default of `grace_days`: people who are away for a week can still object.
const GRACE_DAYS: u64 = 14;
/// The most that either may be: ten years.
const MOST_DAYS: u64 = 3660;
/// A run may be this late: nobody's working day depends on it.
const MAX_DELAY: Duration = Duration::from_secs(4 * 60 * 60);

/// Which snapshots may be deleted, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The schedule's name.
    pub name: String,
    /// The tags that select: for every key, one of the values must match. Never empty.
    pub tags: TagPatterns,
    /// The tags that keep a snapshot: one key that matches is enough.
    pub except_tags: TagPatterns,
    /// In which regions.
    pub regions: Regions,
    /// In which accounts.
    pub accounts: Vec<Account>,
    /// For real, or to see what would happen.
    pub mode: Mode,
    /// How old a snapshot must be.
    pub min_age: TimeDelta,
    /// How long a snapshot is kept after it was marked.
    pub grace: TimeDelta,
    /// Whether archived snapshots may be deleted, too.
    pub archived: bool,
    /// The most snapshots to change, marks and deletions counted together, in all targets together.
    pub max_changes: Option<u64>,
    /// When the run was due, if the request or its envelope says so.
    pub scheduled_time: Option<DateTime<Utc>>,
    /// The field that gave `scheduled_time`, as messages name it.
    pub scheduled_by: &'static str,
    /// How long after `scheduled_time` it may begin.
    pub max_delay: Duration,
    /// The time zone of dates in `curfew:exempt`.
    pub timezone: Tz,
}

/// Whether a request is about snapshots.
#[must_use]
pub fn is_meant(fields: &Map<String, Value>) -> bool {
    fields.get("action").is_some_and(|action| action == ACTION)
}

impl Request {
    /// Reads a request, as [`super::Request::parse`] does.
    ///
    /// # Errors
    /// All problems at once, each naming field, value and fix.
    pub fn parse(fields: Map<String, Value>, time: Option<Value>, now: DateTime<Utc>) -> Result<Self, Refused> {
        let mut reader = Reader { fields, problems: Vec::new() };
        let request = reader.snapshots(time, now);
        if reader.problems.is_empty() { Ok(request) } else { Err(Refused { problems: reader.problems }) }
    }
}

impl Reader {
    fn snapshots(&mut self, time: Option<Value>, now: DateTime<Utc>) -> Request {
        self.fields.remove("action");
        let misspelt = self.unknown_fields();
        self.refuse(&OTHERS_FIELDS, "not valid with \"snapshots\"; leave it out");
        let mode = if self.bool("dry_run").unwrap_or(false) { Mode::DryRun } else { Mode::Live };
        let archived = self.bool("archived").unwrap_or(false);
        let name = self.name();
        if !self.fields.contains_key("tags") && !misspelt.contains(&"tags") {
            self.problem(
                "tags: missing, an event without \"tags\" selects no snapshots; write it like {\"curfew\": \"yes\"}",
            );
        }
        let tags = self.bounded("tags");
        let except_tags = self.bounded("except_tags");
        let regions = self.regions();
        let accounts = self.accounts();
        let max_changes = self.whole_number("max_changes", 0, u64::MAX);
        let min_age = self.days("min_age_days", LEAST_AGE_DAYS, MIN_AGE_DAYS);
        let grace = self.days("grace_days", 1, GRACE_DAYS);
        let (scheduled_time, scheduled_by) = self.due(time, now);
        let max_delay = self.max_delay().unwrap_or(MAX_DELAY);
        let timezone = self.timezone();
        Request {
            name,
            tags,
            except_tags,
            regions,
            accounts,
            mode,
            min_age,
            grace,
            archived,
            max_changes,
            scheduled_time,
            scheduled_by,
            max_delay,
            timezone,
        }
    }

    /// Reads tags, and refuses more of them than fit into one call.
    fn bounded(&mut self, field: &str) -> TagPatterns {
        let tags = TagPatterns(self.patterns(field, Self::tag_key, None));
        let values: usize = tags.0.values().map(Vec::len).sum();
        if tags.0.len() > MAX_FILTERS || values > MAX_FILTER_VALUES {
            self.problem(format!(
                "{field}: {} keys and {values} values, at most {MAX_FILTERS} and {MAX_FILTER_VALUES}; write wildcards like \"web-*\"",
                tags.0.len()
            ));
        }
        tags
    }

    fn days(&mut self, field: &str, least: u64, default: u64) -> TimeDelta {
        let days = self.whole_number(field, least, MOST_DAYS).unwrap_or(default);
        TimeDelta::days(i64::try_from(days).unwrap_or(i64::MAX / 1_000_000_000))
    }
}
