//! JSON → a [`Request`] whose every field is valid; the text of every refusal.
//!
//! Must not know EC2, the environment or the clock: what it needs from them is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use crate::hours::Holidays;
use crate::hours::read::{Schedules, zone};
use crate::instance::{EXEMPT_TAG, HOURS_TAG, InstanceId, STOPPED_AT_TAG, State, rfc3339};
use crate::select::{
    Filters, MAX_FILTER_VALUE_CHARS, MAX_FILTER_VALUES, MAX_FILTERS, Pattern, Selection, TagPatterns, literal,
};
use crate::wording::{clip, nearest, path_of, quote, quote_str};

mod shapes;
pub mod snapshots;

/// The placeholder that EventBridge Scheduler replaces with the scheduled time; it stays when a person sends the event.
const SCHEDULED_TIME_PLACEHOLDER: &str = "<aws.scheduler.scheduled-time>";
/// How far ahead of our clock a scheduled time may be: clocks differ, by seconds rather than minutes.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// A stop may be this late: even later, people may be back at work.
const STOP_MAX_DELAY: Duration = Duration::from_secs(60 * 60);
/// A start may be this late: a late start still serves the rest of the morning.
const START_MAX_DELAY: Duration = Duration::from_secs(4 * 60 * 60);
/// A tick may be this late: by then the next one has come.
const RECONCILE_MAX_DELAY: Duration = Duration::from_secs(5 * 60);
/// The largest `max_delay_minutes`: a year.
const MAX_DELAY_MINUTES: u64 = 366 * 24 * 60;
/// Characters in a tag's key (EC2 user guide, "Tag restrictions").
const MAX_TAG_KEY_CHARS: usize = 128;
/// Filters that Curfew sets itself, so that a request may not.
const STATE_FILTERS: [&str; 2] = ["instance-state-code", "instance-state-name"];
/// The most characters of a list that a refusal writes out.
const MAX_LIST: usize = 120;
/// The most problems that a refusal lists; the rest are only counted.
pub const MAX_PROBLEMS: usize = 50;

/// Every field a request may have.
pub const FIELDS: [&str; 22] = [
    "action",
    "name",
    "tags",
    "filters",
    "instance_ids",
    "except_tags",
    "regions",
    "accounts",
    "role",
    "dry_run",
    "hibernate",
    "remember",
    "max_changes",
    "scheduled_time",
    "max_delay_minutes",
    "timezone",
    "hours_tag",
    "holidays",
    "hours",
    "min_age_days",
    "grace_days",
    "archived",
];

/// What a run should do: to which instances, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Stop, start or reconcile.
    pub action: Action,
    /// The schedule's name.
    pub name: String,
    /// Which instances.
    pub selection: Selection,
    /// Which of them to leave alone: those that match any of these tags.
    pub except_tags: TagPatterns,
    /// In which regions.
    pub regions: Regions,
    /// In which accounts.
    pub accounts: Vec<Account>,
    /// For real, or to see what would happen.
    pub mode: Mode,
    /// Whether a stop marks what it stops, and a start starts only what is marked.
    pub remember: bool,
    /// The most instances to change, in all targets together.
    pub max_changes: Option<u64>,
    /// When the run was due, if the request or its envelope says so.
    pub scheduled_time: Option<DateTime<Utc>>,
    /// The field that gave `scheduled_time`, as messages name it.
    pub scheduled_by: &'static str,
    /// How long after `scheduled_time` it may begin.
    pub max_delay: Duration,
    /// The time zone of dates in `curfew:exempt`.
    pub timezone: Tz,
    /// The key of the tag that holds an instance's own running hours.
    pub hours_tag: String,
    /// The schedules that this tag may name; only reconcile uses them.
    pub schedules: Schedules,
}

impl Request {
    /// Whether the request switches instances by their own running hours. Such a request, a reconcile, switches only
    /// instances with the hours tag; a plain stop or start leaves those alone unless it names their ids.
    #[must_use]
    pub fn is_about_hours(&self) -> bool {
        matches!(self.action, Action::Reconcile { .. })
    }

    /// Returns the filters of the DescribeInstances calls that find what is selected, in these states; in any, if
    /// empty.
    #[must_use]
    pub fn calls(&self, states: &[State]) -> Vec<Filters> {
        self.selection.calls(states, self.tag_key())
    }

    /// Returns the tag filters that make EC2 show tags when instances are looked at by id; none if the request names no
    /// tag.
    #[must_use]
    pub fn tags_in_looks(&self) -> Filters {
        let mut filters = self.selection.tag_filters();
        let values: usize = filters.iter().map(|(_, values)| values.len()).sum();
        // Leaves room for this filter and for the one by id, each with at least one value.
        if let Some(key) =
            self.tag_key().filter(|_| values + 2 <= MAX_FILTER_VALUES && filters.len() + 2 <= MAX_FILTERS)
        {
            filters.push(("tag-key".to_owned(), vec![literal(key)]));
        }
        filters
    }

    /// Returns the tag key that everything selected carries; none for ids alone, since each of those is reported.
    fn tag_key(&self) -> Option<&str> {
        (self.is_about_hours() && !self.selection.ids_alone()).then_some(&*self.hours_tag)
    }
}

/// What to do with the instances selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Switch them off.
    Stop {
        /// Hibernate those configured for it.
        hibernate: bool,
    },
    /// Switch them on.
    Start,
    /// Switch each according to its own running hours.
    Reconcile {
        /// Hibernate those configured for it.
        hibernate: bool,
    },
}

impl Action {
    /// Returns its name in requests and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop { .. } => "stop",
            Self::Start => "start",
            Self::Reconcile { .. } => "reconcile",
        }
    }

    /// Returns the past tense of its name.
    #[must_use]
    pub fn past(self) -> &'static str {
        match self {
            Self::Stop { .. } => "stopped",
            Self::Start => "started",
            Self::Reconcile { .. } => "reconciled",
        }
    }
}

/// Whether anything may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Change what the plan says.
    Live,
    /// Ask EC2 whether the calls would be allowed, and change nothing.
    DryRun,
}

/// In which regions to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regions {
    /// The function's own.
    Own,
    /// Every region enabled for the account.
    All,
    /// These.
    Named(Vec<String>),
}

/// An account to work in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The function's own.
    Own,
    /// One in which a role is assumed; its id may turn out to be the function's own account.
    Member {
        /// Twelve digits.
        id: String,
        /// The role's name, with its path if it has one.
        role: String,
    },
}

/// Why a request is not carried out: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    problems: Vec<String>,
}

impl Refused {
    /// Builds a refusal with a single problem.
    #[must_use]
    pub fn one(problem: String) -> Self {
        Self::all(vec![problem])
    }

    /// Refuses for several.
    #[must_use]
    pub fn all(problems: Vec<String>) -> Self {
        Self { problems }
    }

    /// Returns everything that is wrong, each problem beginning with the field's path.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.problems.len().min(MAX_PROBLEMS);
        let plural = if self.problems.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {plural}, nothing was called: {}", self.problems.len(), self.problems[..shown].join("; "))?;
        match self.problems.len() - shown {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Refused {}

impl Request {
    /// Reads a request.
    ///
    /// `time` is the envelope's own time, which counts as the scheduled time unless the request has one. `now` is what
    /// both are compared with.
    ///
    /// # Errors
    /// All problems at once, each naming field, value and fix.
    pub fn parse(fields: Map<String, Value>, time: Option<Value>, now: DateTime<Utc>) -> Result<Self, Refused> {
        let mut reader = Reader { fields, problems: Vec::new() };
        let request = reader.request(time, now);
        match request {
            Some(request) if reader.problems.is_empty() => Ok(request),
            _ => Err(Refused { problems: reader.problems }),
        }
    }
}

/// Takes the fields out of the request one by one, and collects what is wrong.
struct Reader {
    fields: Map<String, Value>,
    problems: Vec<String>,
}

impl Reader {
    fn request(&mut self, time: Option<Value>, now: DateTime<Utc>) -> Option<Request> {
        let hibernate = self.bool("hibernate");
        let misspelt = self.unknown_fields();
        let action = self.action(hibernate, &misspelt);
        self.refuse(&snapshots::OWN_FIELDS, "only valid with \"snapshots\"; leave it out");
        let remember = self.bool("remember").unwrap_or(false);
        let mode = if self.bool("dry_run").unwrap_or(false) { Mode::DryRun } else { Mode::Live };
        let name = self.name();
        let selection = self.selection(&misspelt);
        let except_tags = TagPatterns(self.patterns("except_tags", Self::tag_key, None));
        let values: usize = except_tags.0.values().map(Vec::len).sum();
        if values > MAX_FILTER_VALUES {
            self.problem(format!(
                "except_tags: {values} values, at most {MAX_FILTER_VALUES}; write wildcards like \"web-*\", or tag the instances curfew:exempt"
            ));
        }
        let regions = self.regions();
        let accounts = self.accounts();
        if selection.ids_alone() && !selection.ids.is_empty() {
            let many = match &regions {
                Regions::Own => false,
                Regions::Named(names) => names.len() > 1,
                Regions::All => true,
            };
            if many {
                self.problem("instance_ids: without tags or filters, name exactly one region; write one in \"regions\", or add \"tags\"");
            }
            if accounts.len() > 1 {
                self.problem("instance_ids: without tags or filters, name exactly one account; write one in \"accounts\", or add \"tags\"");
            }
        }
        let max_changes = self.whole_number("max_changes", 0, u64::MAX);
        let (scheduled_time, scheduled_by) = self.due(time, now);
        let max_delay = self.max_delay();
        let timezone = self.timezone();
        let hours_tag = self.hours_tag();
        let schedules = self.schedules(action, timezone, scheduled_time.unwrap_or(now));

        let action = action?;
        let max_delay = max_delay.unwrap_or(match action {
            Action::Stop { .. } => STOP_MAX_DELAY,
            Action::Start => START_MAX_DELAY,
            Action::Reconcile { .. } => RECONCILE_MAX_DELAY,
        });
        Some(Request {
            action,
            name,
            selection,
            except_tags,
            regions,
            accounts,
            mode,
            remember,
            max_changes,
            scheduled_time,
            scheduled_by,
            max_delay,
            timezone,
            hours_tag,
            schedules,
        })
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn action(&mut self, hibernate: Option<bool>, misspelt: &[&str]) -> Option<Action> {
        const EXPECTED: &str = "write \"stop\", \"start\", \"reconcile\" or \"snapshots\"";
        let action = match self.fields.remove("action") {
            // Already reported as a misspelt field.
            None if misspelt.contains(&"action") => return None,
            None => {
                self.problem(format!("action: missing, {EXPECTED}"));
                return None;
            }
            Some(Value::String(text)) => match text.as_str() {
                "stop" => Action::Stop { hibernate: hibernate.unwrap_or(false) },
                "start" => Action::Start,
                "reconcile" => Action::Reconcile { hibernate: hibernate.unwrap_or(false) },
                other => {
                    let known = nearest(other, ["stop", "start", "reconcile", snapshots::ACTION].into_iter())
                        .or_else(|| other.to_ascii_lowercase().contains("snapshot").then_some(snapshots::ACTION));
                    let hint = known.map_or_else(|| EXPECTED.to_owned(), |known| format!("did you mean \"{known}\"?"));
                    self.problem(format!("action: {} is unknown, {hint}", quote_str(other)));
                    return None;
                }
            },
            Some(other) => {
                self.problem(format!("action: expected text, found {}; {EXPECTED}", quote(&other)));
                return None;
            }
        };
        if action == Action::Start && hibernate.is_some() {
            self.problem(
                "hibernate: only valid with \"stop\" and \"reconcile\"; a start resumes hibernated instances automatically; leave it out",
            );
        }
        Some(action)
    }

    fn hours_tag(&mut self) -> String {
        let Some(key) = self.text("hours_tag", "like \"curfew:hours\"") else { return HOURS_TAG.to_owned() };
        let problem = Self::tag_key(&key).or_else(|| {
            [STOPPED_AT_TAG, EXEMPT_TAG]
                .contains(&key.as_str())
                .then(|| "Curfew uses this tag for something else; write the tag with the hours".to_owned())
        });
        if let Some(problem) = problem {
            self.problem(format!("hours_tag: {problem}"));
        }
        key
    }

    /// Reads `holidays` and `hours`, which are only valid with reconcile.
    fn schedules(&mut self, action: Option<Action>, timezone: Tz, moment: DateTime<Utc>) -> Schedules {
        let (holidays, hours) = (self.fields.remove("holidays"), self.fields.remove("hours"));
        if let Some(Action::Stop { .. } | Action::Start) = action {
            for (field, value) in [("holidays", &holidays), ("hours", &hours)] {
                if value.is_some() {
                    self.problem(format!("{field}: only valid with \"reconcile\"; leave it out"));
                }
            }
            return Schedules::default();
        }
        let holidays = match holidays {
            None => Holidays::default(),
            Some(value) => Holidays::read("holidays", value, &mut self.problems).unwrap_or_default(),
        };
        match hours {
            None => Schedules::unnamed(timezone, holidays),
            Some(value) => Schedules::read(value, timezone, holidays, moment, &mut self.problems),
        }
    }

    fn name(&mut self) -> String {
        let name = self.text("name", "like \"office\"").unwrap_or_else(|| "curfew".to_owned());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.len() > 64 || name.is_empty() || !name.chars().all(allowed) {
            self.problem(format!(
                "name: {} is not 1 to 64 letters a–z or A–Z, digits, \".\", \"_\" or \"-\"; write it like \"office\"",
                quote_str(&name)
            ));
        }
        name
    }

    fn selection(&mut self, misspelt: &[&str]) -> Selection {
        let fields = ["tags", "filters", "instance_ids"];
        let given = fields.iter().any(|field| self.fields.contains_key(*field) || misspelt.contains(field));
        if !given {
            self.problem("tags: missing, an event without \"tags\", \"filters\" or \"instance_ids\" selects nothing; write it like {\"curfew\": \"yes\"}");
        }
        let written = ["tags", "filters"].map(|field| self.fields.get(field).cloned());
        let tags = self.patterns("tags", Self::tag_key, written[1].as_ref());
        let filters: BTreeMap<String, Vec<String>> = self
            .patterns("filters", Self::filter_name, written[0].as_ref())
            .into_iter()
            .map(|(name, values)| (name, values.into_iter().map(|value| value.0).collect()))
            .collect();
        let ids = self.instance_ids();

        let names = tags.len() + filters.len() + usize::from(!ids.is_empty());
        if names > MAX_FILTERS {
            self.problem(format!("tags and filters: {names} in all, but EC2 takes {MAX_FILTERS}; split the event"));
        }
        // Ids are split over several calls, so they need room for at least one.
        let values = tags.values().map(Vec::len).sum::<usize>()
            + filters.values().map(Vec::len).sum::<usize>()
            + usize::from(!ids.is_empty());
        if values > MAX_FILTER_VALUES {
            self.problem(format!(
                "tags and filters: {values} values in all, but EC2 takes {MAX_FILTER_VALUES}; write wildcards like \"web-*\", or split the event"
            ));
        }
        Selection { tags: TagPatterns(tags), filters, ids }
    }

    fn instance_ids(&mut self) -> BTreeSet<InstanceId> {
        let texts = self.texts("instance_ids", "like [\"i-0abc12345678def00\"]", |id| InstanceId::parse(id).is_some());
        let mut ids = BTreeSet::new();
        for (path, text) in texts {
            match InstanceId::parse(&text) {
                Some(id) => {
                    ids.insert(id);
                }
                None => self.problem(format!(
                    "{path}: {} is not an instance id; write it like \"i-0abc12345678def00\"",
                    quote_str(&text)
                )),
            }
        }
        ids
    }

    fn regions(&mut self) -> Regions {
        if !self.fields.contains_key("regions") {
            return Regions::Own;
        }
        let names = self.texts("regions", "like [\"us-east-1\"], or \"all\"", |name| name == "all" || is_region(name));
        if names.iter().any(|(_, name)| name == "all") {
            if names.len() > 1 {
                self.problem(
                    "regions: \"all\" can't be combined with region names; write \"all\" alone, or only the names",
                );
            }
            return Regions::All;
        }
        for (path, name) in &names {
            if !is_region(name) {
                self.problem(format!("{path}: {} is not a region; write it like \"eu-west-1\"", quote_str(name)));
            }
        }
        Regions::Named(names.into_iter().map(|(_, name)| name).collect())
    }

    fn accounts(&mut self) -> Vec<Account> {
        let mut ids = Vec::new();
        if !self.fields.contains_key("accounts") {
            ids.push(None);
        }
        for (path, text) in
            self.texts("accounts", "like [\"self\", \"111122223333\"]", |id| id == "self" || is_account(id))
        {
            match text.as_str() {
                "self" => ids.push(None),
                id if is_account(id) => ids.push(Some(text)),
                _ => self.problem(format!(
                    "{path}: {} is not an account id; write twelve digits, or \"self\" for the function's own account",
                    quote_str(&text)
                )),
            }
        }
        let role = self.role(ids.iter().any(Option::is_some)).unwrap_or_default();
        ids.into_iter().map(|id| id.map_or(Account::Own, |id| Account::Member { id, role: role.clone() })).collect()
    }

    /// Reads the role; `others` says whether the request names accounts other than the function's own.
    fn role(&mut self, others: bool) -> Option<String> {
        let given = self.fields.contains_key("role");
        let role = self.text("role", "like \"curfew-member\"");
        match &role {
            None if others && !given => self.problem(
                "role: missing; \"accounts\" names other accounts, where a role has to be assumed; write it like \"curfew-member\"",
            ),
            Some(_) if !others && !self.problems.iter().any(|problem| problem.starts_with("accounts")) => self.problem(
                "role: only valid with other accounts, but \"accounts\" names none; name them, or leave it out",
            ),
            Some(role) if !is_role(role) => self.problem(format!(
                "role: {} is not a role's name, which is the same in every account; write it like \"curfew-member\"",
                quote_str(role)
            )),
            _ => {}
        }
        role
    }

    /// Returns when the run was due, and which field says so.
    fn due(&mut self, time: Option<Value>, now: DateTime<Utc>) -> (Option<DateTime<Utc>>, &'static str) {
        let requests_time = self.scheduled_time(now);
        let scheduled_by = if requests_time.is_some() { "scheduled_time" } else { "the envelope's time" };
        let scheduled_time = requests_time.or_else(|| self.envelopes_time(time?));
        if let Some(at) = scheduled_time
            && at.signed_duration_since(now) > MAX_AHEAD
        {
            let field = if scheduled_by == "scheduled_time" { scheduled_by } else { "time" };
            self.problem(format!(
                "{field}: {} is in the future (it is now {}); leave it out to run at once",
                rfc3339(at),
                rfc3339(now.trunc_subsecs(0))
            ));
        }
        (scheduled_time, scheduled_by)
    }

    fn max_delay(&mut self) -> Option<Duration> {
        let minutes = self.whole_number("max_delay_minutes", 1, MAX_DELAY_MINUTES)?;
        Some(Duration::from_secs(minutes * 60))
    }

    fn scheduled_time(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let text = self.text("scheduled_time", "like \"2026-11-20T19:00:00Z\"")?;
        if text == SCHEDULED_TIME_PLACEHOLDER {
            return None;
        }
        match DateTime::parse_from_rfc3339(&text) {
            Ok(moment) => Some(moment.to_utc()),
            Err(_) => {
                self.problem(format!(
                    "scheduled_time: {} is not an RFC 3339 time; write it like {}",
                    quote_str(&text),
                    quote_str(&rfc3339(now.trunc_subsecs(0)))
                ));
                None
            }
        }
    }

    fn envelopes_time(&mut self, time: Value) -> Option<DateTime<Utc>> {
        let moment = time.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        if moment.is_none() {
            self.problem(format!(
                "time: expected the envelope's time like \"2026-11-20T19:00:00Z\", found {}",
                quote(&time)
            ));
        }
        moment.map(|moment| moment.to_utc())
    }

    fn timezone(&mut self) -> Tz {
        let Some(text) = self.text("timezone", "like \"Europe/Berlin\"") else { return Tz::UTC };
        zone(&text).unwrap_or_else(|why| {
            self.problem(format!("timezone: {why}"));
            Tz::UTC
        })
    }

    /// Reads a map from names to a text or a list of texts; `check` returns what is wrong with a name.
    ///
    /// `other` is what the request says of filters where these are the tags, and of tags where these are the filters.
    fn patterns(
        &mut self,
        field: &str,
        check: fn(&str) -> Option<String>,
        other: Option<&Value>,
    ) -> BTreeMap<String, Vec<Pattern>> {
        let map = match self.fields.remove(field) {
            None => return BTreeMap::new(),
            Some(value) => value,
        };
        if let Some(problem) = shapes::refusal(field, &map, other) {
            self.problem(problem);
            return BTreeMap::new();
        }
        let Value::Object(map) = map else { return BTreeMap::new() };
        if map.is_empty() {
            self.problem(format!("{field}: empty; name at least one, or leave it out"));
        }
        let mut patterns = BTreeMap::new();
        for (name, values) in map {
            let path = format!("{field}.{}", path_of(&name));
            if let Some(problem) = check(&name) {
                self.problem(format!("{path}: {problem}"));
                continue;
            }
            let values = self.values_of(&path, values, field != "filters");
            for (path, value) in &values {
                if value.chars().count() > MAX_FILTER_VALUE_CHARS {
                    self.problem(format!("{path}: {} is longer than EC2's {MAX_FILTER_VALUE_CHARS} characters; shorten it with a wildcard \"*\"", quote_str(value)));
                }
            }
            patterns.insert(name, values.into_iter().map(|(_, value)| Pattern(value)).collect());
        }
        patterns
    }

    fn tag_key(key: &str) -> Option<String> {
        match key.chars().count() {
            0 => Some("a tag without a key; write the tag's key".to_owned()),
            1..=MAX_TAG_KEY_CHARS => None,
            n => Some(format!(
                "a key of {n} characters, but EC2's have at most {MAX_TAG_KEY_CHARS}; write the tag's key"
            )),
        }
    }

    fn filter_name(name: &str) -> Option<String> {
        if name.is_empty() {
            return Some(
                "a filter without a name; write one of DescribeInstances' filters, like \"vpc-id\"".to_owned(),
            );
        }
        if let Some(key) = shapes::without_tag(name) {
            return Some(format!("write a tag under \"tags\", like {{{}: …}}", quote_str(key)));
        }
        if name == "tag-value" {
            return Some(
                "it matches the value of any tag, even {\"Backup\": \"yes\"}; write the tag under \"tags\", like {\"AutoStop\": \"yes\"}"
                    .to_owned(),
            );
        }
        if !is_filter(name) {
            return Some(
                "not a filter's name, which EC2 writes with small letters and \"-\", like \"vpc-id\"; a tag belongs under \"tags\""
                    .to_owned(),
            );
        }
        STATE_FILTERS.contains(&name).then(|| "Curfew sets the state itself; leave it out".to_owned())
    }

    /// Reads a text or a list of texts, each with its path in the request; an absent field is an empty list.
    ///
    /// `like` says how to write the field, and `is_one` whether a text is valid in it.
    fn texts(&mut self, field: &str, like: &str, is_one: fn(&str) -> bool) -> Vec<(String, String)> {
        match self.fields.remove(field) {
            None => Vec::new(),
            Some(value) => self.list_of(field, value, like, is_one, false),
        }
    }

    /// Reads the values of a tag or a filter. A tag's value may be the empty text, which EC2 allows.
    fn values_of(&mut self, path: &str, value: Value, may_be_empty: bool) -> Vec<(String, String)> {
        self.list_of(path, value, "", |_| true, may_be_empty)
    }

    fn list_of(
        &mut self,
        path: &str,
        value: Value,
        like: &str,
        is_one: fn(&str) -> bool,
        may_be_empty: bool,
    ) -> Vec<(String, String)> {
        let write = if like.is_empty() { String::new() } else { format!("; write it {like}") };
        let is_listed = value.is_array();
        let values = match value {
            Value::Array(values) if values.is_empty() => {
                self.problem(format!(
                    "{path}: an empty list selects nothing{}",
                    if like.is_empty() { "; name a value" } else { &write }
                ));
                return Vec::new();
            }
            Value::Array(values) => {
                values.into_iter().enumerate().map(|(n, value)| (format!("{path}[{n}]"), value)).collect()
            }
            one => vec![(path.to_owned(), one)],
        };
        let (expected, write) = match is_listed {
            true => ("text", write.replace("write it", "write the list")),
            false => ("text or a list of texts", write),
        };
        let mut texts = Vec::new();
        let mut seen = BTreeSet::new();
        for (path, value) in values {
            match value {
                Value::String(text) if text.is_empty() && !may_be_empty => {
                    self.problem(format!(
                        "{path}: empty text{}",
                        if like.is_empty() { "; write a value" } else { &write }
                    ));
                }
                Value::String(text)
                    if !is_one(&text) && several(&text).is_some_and(|it| it.iter().all(|it| is_one(it))) =>
                {
                    let list = clip(&serde_json::json!(several(&text)).to_string(), MAX_LIST);
                    let list = if is_listed { list.trim_matches(['[', ']']) } else { &format!("a list like {list}") };
                    self.problem(format!("{path}: {} is one text; write {list}", quote_str(&text)));
                }
                Value::String(text) if !is_one(&text) && is_one(&text.trim().to_ascii_lowercase()) => {
                    self.problem(format!(
                        "{path}: {} has blanks or capital letters; write {}",
                        quote_str(&text),
                        quote_str(&text.trim().to_ascii_lowercase())
                    ));
                }
                Value::String(text) if !seen.insert(text.clone()) => {
                    self.problem(format!("{path}: {} is written twice; write it once", quote_str(&text)));
                }
                Value::String(text) => texts.push((path, text)),
                scalar @ (Value::Bool(_) | Value::Number(_)) if is_one(&scalar.to_string()) => {
                    self.problem(format!("{path}: expected text, found {scalar}; write \"{scalar}\""));
                }
                other => {
                    let write = if like.is_empty() { "; write its value, like \"yes\"" } else { &write };
                    self.problem(format!("{path}: expected {expected}, found {}{write}", quote(&other)))
                }
            }
        }
        texts
    }

    fn text(&mut self, field: &str, like: &str) -> Option<String> {
        match self.fields.remove(field)? {
            Value::String(text) if text.is_empty() => {
                self.problem(format!("{field}: empty; write it {like}, or leave it out"))
            }
            Value::String(text) => return Some(text),
            other => self.problem(format!("{field}: expected text, found {}; write it {like}", quote(&other))),
        }
        None
    }

    fn bool(&mut self, field: &str) -> Option<bool> {
        match self.fields.remove(field)? {
            Value::Bool(value) => Some(value),
            other => {
                self.problem(format!("{field}: expected true or false without quotes, found {}", quote(&other)));
                None
            }
        }
    }

    fn whole_number(&mut self, field: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.fields.remove(field)?;
        match value.as_u64() {
            Some(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                let upper = match max {
                    u64::MAX => " or more".to_owned(),
                    MAX_DELAY_MINUTES => format!(" to {max} (a year)"),
                    max => format!(" to {max}"),
                };
                let is_number = |text: &str| text.parse().is_ok_and(|number| (min..=max).contains(&number));
                let fix = if value.as_str().is_some_and(is_number) { "; write it without quotes" } else { "" };
                self.problem(format!("{field}: expected a whole number, {min}{upper}, found {}{fix}", quote(&value)));
                None
            }
        }
    }

    /// Refuses fields that belong to other actions.
    fn refuse(&mut self, fields: &[&str], why: &str) {
        for field in fields {
            if self.fields.remove(*field).is_some() {
                self.problem(format!("{field}: {why}"));
            }
        }
    }

    /// Refuses unknown fields; returns the fields that were probably meant.
    fn unknown_fields(&mut self) -> Vec<&'static str> {
        let unknown: Vec<String> =
            self.fields.keys().filter(|field| !FIELDS.contains(&field.as_str())).cloned().collect();
        let mut misspelt = Vec::new();
        for field in unknown {
            self.fields.remove(&field);
            let known = meant(&field);
            let hint = known.map_or_else(|| "remove it".to_owned(), |known| format!("did you mean \"{known}\"?"));
            self.problem(format!("{}: unknown field, {hint}", path_of(&field)));
            misspelt.extend(known);
        }
        misspelt
    }
}

/// How other tools' names for a field begin, without case and punctuation.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("except", "except_tags"),
    ("exclu", "except_tags"),
    ("ignore", "except_tags"),
    ("skip", "except_tags"),
    ("spare", "except_tags"),
    ("ids", "instance_ids"),
    ("maxdelay", "max_delay_minutes"),
    ("rolearn", "role"),
    ("tagfilter", "tags"),
];

/// Returns the field that was probably meant by a name.
#[must_use]
pub fn meant(field: &str) -> Option<&'static str> {
    let plain: String = field.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let other = || OTHER_NAMES.iter().find(|(start, _)| plain.starts_with(start)).map(|(_, known)| *known);
    nearest(field, FIELDS.iter().copied()).or_else(other)
}

/// Splits a text at commas, semicolons and blanks; None if it has only one part.
fn several(text: &str) -> Option<Vec<&str>> {
    let parts = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';')).filter(|part| !part.is_empty());
    let parts: Vec<&str> = parts.collect();
    (parts.len() > 1).then_some(parts)
}

/// Whether a text is an account's id.
fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a text has a region's shape, in any partition: `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let letters = |part: &str, length: std::ops::RangeInclusive<usize>| {
        length.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_lowercase())
    };
    match parts.as_slice() {
        [area, middle @ .., number] => {
            letters(area, 2..=4)
                && (1..=2).contains(&middle.len())
                && middle.iter().all(|part| letters(part, 2..=12))
                && matches!(number.len(), 1 | 2)
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        _ => false,
    }
}

/// Whether a text has the shape of the names of DescribeInstances' filters (EC2 API reference), but for `tag:…`.
fn is_filter(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

/// Whether a text is a role's name, with its path if it has one (IAM user guide, "IAM and STS quotas").
fn is_role(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    // A part made only of dots, like "..", could climb out of whatever the path is appended to.
    let name =
        |part: &str| (1..=64).contains(&part.len()) && part.chars().all(allowed) && !part.chars().all(|c| c == '.');
    text.len() <= 512 && text.split('/').all(name)
}
