//! The request of `"action": "snapshots"`: what it shares with the others is read by the same [`Reader`].

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::{Account, Mode, Reader, Refused, Regions};
use crate::select::{MAX_FILTER_VALUES, MAX_FILTERS, TagPatterns};

/// The action's name in requests and reports.
pub const ACTION: &str = "snapshots";
/// The fields that no other action has.
pub(super) const OWN_FIELDS: [&str; 3] = ["min_age_days", "grace_days", "archived"];
/// The fields that only other actions have.
const OTHERS_FIELDS: [&str; 7] = ["filters", "instance_ids", "hibernate", "remember", "hours_tag", "holidays", "hours"];
/// The default of `min_age_days`: half a year.
const MIN_AGE_DAYS: u64 = 180;
/// The least that `min_age_days` may be: nobody's work of this week.
const LEAST_AGE_DAYS: u64 = 7;
/// The default of `grace_days`: longer than a week's holiday.
const GRACE_DAYS: u64 = 14;
/// The most that either may be: ten years.
const MOST_DAYS: u64 = 3660;
/// A run may be this late: it changes nobody's working day.
const MAX_DELAY: Duration = Duration::from_secs(4 * 60 * 60);

/// Which snapshots may go, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The schedule's name.
    pub name: String,
    /// Every key must match one of its values: never empty.
    pub tags: TagPatterns,
    /// Any key that matches keeps the snapshot.
    pub except_tags: TagPatterns,
    /// In which regions.
    pub regions: Regions,
    /// In which accounts.
    pub accounts: Vec<Account>,
    /// For real, or to see what would happen.
    pub mode: Mode,
    /// How old a snapshot must be.
    pub min_age: TimeDelta,
    /// How long it stays after it was marked.
    pub grace: TimeDelta,
    /// Archived ones, too.
    pub archived: bool,
    /// The most snapshots to mark and to delete, over all targets.
    pub max_changes: Option<u64>,
    /// When the run should have begun, if anybody said so.
    pub scheduled_time: Option<DateTime<Utc>>,
    /// The field that said so.
    pub scheduled_by: &'static str,
    /// How much later than that it may begin.
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

    /// Reads tags, as many as one call takes.
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
