//! What we know about an instance, and the name and grammar of every `curfew:*` tag.
//!
//! Must not know how EC2 is called, what the request wants, or what time it is.

use std::fmt;
use std::sync::Arc;

use chrono::{
    DateTime, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, SubsecRound, TimeDelta, TimeZone,
    Timelike, Utc,
};
use chrono_tz::Tz;
use serde::{Serialize, Serializer};

/// The mark: when Curfew stopped the instance, and which run did; see [`Mark`].
pub const STOPPED_AT_TAG: &str = "curfew:stopped-at";
/// The exemption: left alone always, or until a moment.
pub const EXEMPT_TAG: &str = "curfew:exempt";
/// The name that people see.
pub(crate) const NAME_TAG: &str = "Name";
/// The instance's own running hours; only `reconcile` reads what they say.
pub const HOURS_TAG: &str = "curfew:hours";

/// An instance's id: `i-` and 8 or 17 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// Its characters; after a short one, zeros.
    text: [u8; 19],
}

impl InstanceId {
    /// Reads a text in the form of an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("i-")?;
        let hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let mut id = Self { text: [0; 19] };
        id.text.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        (hex && matches!(digits.len(), 8 | 17)).then_some(id)
    }

    /// Finds the ids in a text, as EC2's error messages name them.
    #[must_use]
    pub fn all_in(text: &str) -> Vec<Self> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter_map(Self::parse).collect()
    }

    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = if self.text[10] == 0 { 10 } else { 19 };
        std::str::from_utf8(&self.text[..length]).unwrap_or_default()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for InstanceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An instance's tags, in one allocation: a hundred thousand instances are held at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Each key and each value, followed by a NUL, which no tag has: neither EC2 nor XML allows one.
    text: Box<str>,
}

impl Tags {
    /// Returns the tags, key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.text.split_terminator('\0');
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns a tag's value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(it, _)| *it == key).map(|(_, value)| value)
    }

    /// Returns whether there is such a tag.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Tags {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(tags: T) -> Self {
        let mut text = String::new();
        for (key, value) in tags {
            for part in [key.as_ref(), value.as_ref()] {
                text.extend(part.chars().map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }));
                text.push('\0');
            }
        }
        Self { text: text.into() }
    }
}

/// A run, identified by the first eight hexadecimal digits of its Lambda request id: Lambda's retries keep the id, a
/// duplicate of the event has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run(u32);

impl Run {
    /// Reads a request id; one that doesn't begin with eight hexadecimal digits is hashed (FNV-1a).
    #[must_use]
    pub fn of(request_id: &str) -> Self {
        let digits = request_id.get(..8).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let hash =
            || request_id.bytes().fold(0x811c_9dc5, |hash: u32, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Self(digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_else(hash))
    }
}

/// The value of `curfew:stopped-at`: the time of a stop, and the run that made it, like `2026-11-20T19:00:00Z 7f3a9c12`.
///
/// A time alone, as earlier versions wrote it, counts too. The text is kept exactly as it is on the instance, because a
/// mark is deleted by its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(Arc<(DateTime<Utc>, Box<str>)>);

impl Mark {
    /// Builds a run's mark, rounded down to whole seconds like LaunchTime, with which it is compared.
    #[must_use]
    pub fn new(at: DateTime<Utc>, run: Run) -> Self {
        let at = at.trunc_subsecs(0);
        let text = format!("{} {:08x}", at.to_rfc3339_opts(SecondsFormat::Secs, true), run.0);
        Self(Arc::new((at, text.into())))
    }

    /// Reads a tag's value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let moment = match text.split_once(' ') {
            Some((moment, run)) if run.len() == 8 && run.bytes().all(|b| b.is_ascii_hexdigit()) => moment,
            Some(_) => return None,
            None => text,
        };
        let at = DateTime::parse_from_rfc3339(moment).ok()?.to_utc();
        Some(Self(Arc::new((at, text.into()))))
    }

    /// Returns the moment of the stop.
    #[must_use]
    pub fn at(&self) -> DateTime<Utc> {
        self.0.0
    }

    /// Whether a run wrote it; one of an earlier version names none.
    #[must_use]
    pub fn is_of(&self, run: Run) -> bool {
        self.as_str().split_once(' ').is_some_and(|(_, written)| u32::from_str_radix(written, 16) == Ok(run.0))
    }

    /// Returns the tag's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.1
    }
}

/// The state of an instance (EC2 user guide, "Instance lifecycle").
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "EC2's own names")]
pub enum State {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
    /// One that this version doesn't know: such an instance is left alone.
    Unknown(Box<str>),
}

impl State {
    /// Reads EC2's name for a state.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name {
            "pending" => Self::Pending,
            "running" => Self::Running,
            "stopping" => Self::Stopping,
            "stopped" => Self::Stopped,
            "shutting-down" => Self::ShuttingDown,
            "terminated" => Self::Terminated,
            other => Self::Unknown(other.into()),
        }
    }

    /// Returns EC2's name for it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Unknown(name) => name,
        }
    }

    /// Whether the instance is terminated, or about to be.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::ShuttingDown | Self::Terminated)
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the instance's root volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootDevice {
    /// A volume that outlives a stop.
    Ebs,
    /// A disk of the host: the instance can't be stopped, only lost.
    InstanceStore,
}

/// Why EC2 last changed the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReason {
    /// EC2's code, like `Client.UserInitiatedShutdown`.
    pub code: String,
    /// EC2's message.
    pub message: String,
}

impl StateReason {
    /// Whether it is EC2's code for a failed start: any but those for a stop that a person,
    /// the instance itself or EC2's own schedule wanted (EC2 API reference, StateReason).
    #[must_use]
    pub fn is_failed_start(&self) -> bool {
        !matches!(
            self.code.as_str(),
            "Client.InstanceInitiatedShutdown"
                | "Client.UserInitiatedHibernate"
                | "Client.UserInitiatedShutdown"
                | "Server.ScheduledStop"
                | "Server.SpotInstanceShutdown"
                | "Server.SpotInstanceStop"
        )
    }
}

impl fmt::Display for StateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // EC2's message mostly begins with the code.
        match self.message.strip_prefix(&self.code) {
            Some(_) => f.write_str(&self.message),
            None if self.message.is_empty() => f.write_str(&self.code),
            None => write!(f, "{}: {}", self.code, self.message),
        }
    }
}

/// An instance as DescribeInstances shows it, as far as Curfew looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// All its tags.
    pub tags: Tags,
    /// Its state.
    pub state: State,
    /// Why it is in that state, if EC2 says.
    pub state_reason: Option<Box<StateReason>>,
    /// When it was last started; every start renews it, a reboot does not.
    pub launch_time: DateTime<Utc>,
    /// Its instance type, like `t3.micro`.
    pub instance_type: Arc<str>,
    /// Its availability zone, like `us-east-1a`.
    pub zone: Arc<str>,
    /// What its root volume is.
    pub root_device: RootDevice,
    /// Whether it is a Spot Instance.
    pub spot: bool,
    /// Whether it was launched with hibernation configured.
    pub hibernation: bool,
    /// The AWS service that manages it, if EC2 says that one does.
    pub operator: Option<Box<str>>,
}

impl Instance {
    /// Returns the `Name` tag, if it has one that says something.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.tags.get(NAME_TAG).filter(|name| !name.is_empty())
    }

    /// Forgets the tags that nobody asks for once it is decided what becomes of it; one stays in any case, to say that it
    /// had some.
    #[must_use]
    pub fn without_other_tags(self) -> Self {
        let kept = |(key, _): &(&str, &str)| matches!(*key, NAME_TAG | STOPPED_AT_TAG);
        let mut tags: Tags = self.tags.iter().filter(kept).collect();
        if tags.is_empty() {
            tags = self.tags.iter().take(1).collect();
        }
        Self { tags, ..self }
    }

    /// Returns what the account's limits tell apart: the instance type, and whether it is a Spot Instance.
    #[must_use]
    pub fn kind(&self) -> (Arc<str>, bool) {
        (self.instance_type.clone(), self.spot)
    }

    /// Reads the mark, whether or not it still counts.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        Mark::parse(self.tags.get(STOPPED_AT_TAG)?)
    }

    /// Reads the mark, if it counts: any start since, whoever's, has renewed the launch time and voided it.
    #[must_use]
    pub fn valid_mark(&self) -> Option<Mark> {
        self.mark().filter(|mark| mark.at() > self.launch_time)
    }

    /// Whether its mark counts.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.valid_mark().is_some()
    }

    /// Reads the exemption.
    #[must_use]
    pub fn exemption(&self, timezone: Tz) -> Option<Exemption> {
        self.tags.get(EXEMPT_TAG).map(|value| Exemption::parse(value, timezone))
    }

    /// Finds who else switches it: an AWS service, or another controller.
    #[must_use]
    pub fn controller(&self) -> Option<&str> {
        let by_tag = |(key, _): (&str, &str)| {
            CONTROLLER_TAGS.iter().find(|(tag, _)| match tag.strip_suffix('*') {
                Some(prefix) => key.starts_with(prefix),
                None => key == *tag,
            })
        };
        self.operator.as_deref().or_else(|| self.tags.iter().find_map(by_tag).map(|(_, who)| *who))
    }
}

/// Tags by which other controllers mark what is theirs: a key, or a key's beginning and `*`; and whose it is.
const CONTROLLER_TAGS: [(&str, &str); 8] = [
    ("aws:ec2:fleet-id", "EC2 Fleet"),
    ("aws:ec2spot:fleet-request-id", "Spot Fleet"),
    ("aws:elasticmapreduce:*", "EMR"),
    ("aws:eks:cluster-name", "EKS"),
    ("eks:cluster-name", "EKS"),
    ("eks:nodegroup-name", "EKS"),
    ("karpenter.sh/nodepool", "Karpenter"),
    ("karpenter.sh/provisioner-name", "Karpenter"),
];

/// What `curfew:exempt` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// Empty or `true`.
    Always,
    /// Up to a moment, and no longer.
    Until(DateTime<Utc>),
    /// Something else, even `false`: left alone, because the other way might switch off the wrong machine.
    Unclear(String),
}

impl Exemption {
    /// Reads the tag's value; a date or a local time is in `timezone`.
    ///
    /// A date means its end. A local time that a clock change repeats means the later one, and one that it
    /// skips means the moment of the change: never shorter than what was written.
    #[must_use]
    pub fn parse(value: &str, timezone: Tz) -> Self {
        let text = value.trim();
        if text.is_empty() || text == "true" {
            return Self::Always;
        }
        // Exactly these shapes: chrono alone would read "21-11-26" as a day of the year 21.
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let local = |format| NaiveDateTime::parse_from_str(text, format).ok();
        let moment = match shape.as_str() {
            "0000-00-00" => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|date| {
                let midnight = date.succ_opt()?.and_time(NaiveTime::MIN);
                to_utc(midnight, timezone, MappedLocalTime::earliest)
            }),
            "0000-00-00 00:00" => local("%Y-%m-%d %H:%M").and_then(|at| to_utc(at, timezone, MappedLocalTime::latest)),
            "0000-00-00T00:00" => local("%Y-%m-%dT%H:%M").and_then(|at| to_utc(at, timezone, MappedLocalTime::latest)),
            "0000-00-00 00:00:00" => {
                local("%Y-%m-%d %H:%M:%S").and_then(|at| to_utc(at, timezone, MappedLocalTime::latest))
            }
            "0000-00-00T00:00:00" => {
                local("%Y-%m-%dT%H:%M:%S").and_then(|at| to_utc(at, timezone, MappedLocalTime::latest))
            }
            _ => DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.to_utc()),
        };
        moment.map_or_else(|| Self::Unclear(value.to_owned()), |moment| Self::Until(moment.min(LAST)))
    }
}

/// The last moment that RFC 3339 can write.
const LAST: DateTime<Utc> = DateTime::from_timestamp(253_402_300_799, 0).expect("a moment");

/// Returns the moment of a local time, as `choose` says if it is repeated; if it is skipped, that of the change.
pub fn to_utc(
    local: NaiveDateTime,
    timezone: Tz,
    choose: fn(MappedLocalTime<DateTime<Tz>>) -> Option<DateTime<Tz>>,
) -> Option<DateTime<Utc>> {
    let moment = |local| choose(timezone.from_local_datetime(&local)).map(|moment| moment.to_utc());
    // It is skipped: clocks change at whole quarters of an hour, and no zone has ever skipped more than a day (Samoa, 2011).
    let past_quarter = TimeDelta::seconds(i64::from(local.num_seconds_from_midnight() % 900));
    let quarters = || {
        (1..=96).find_map(|n| {
            moment(local.checked_sub_signed(past_quarter)?.checked_add_signed(TimeDelta::minutes(15 * n))?)
        })
    };
    moment(local).or_else(quarters)
}

/// Writes a moment as Curfew does everywhere: RFC 3339 in UTC, with milliseconds only where there are any.
#[must_use]
pub fn rfc3339(moment: DateTime<Utc>) -> String {
    let whole = moment.timestamp_subsec_millis() == 0;
    moment.to_rfc3339_opts(if whole { SecondsFormat::Secs } else { SecondsFormat::Millis }, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(value: &str, zone: &str) -> String {
        match Exemption::parse(value, zone.parse().expect("a zone")) {
            Exemption::Until(moment) => rfc3339(moment),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_exemption_ends_when_a_person_would_say_it_does() {
        for (value, zone, expected) in [
            ("", "UTC", "Always"),
            ("true", "UTC", "Always"),
            ("2026-11-20T22:00:00Z", "Europe/Berlin", "2026-11-20T22:00:00Z"),
            ("2026-11-20T22:00:00+01:00", "UTC", "2026-11-20T21:00:00Z"),
            ("2026-11-21", "UTC", "2026-11-22T00:00:00Z"),
            ("2026-11-21", "Europe/Berlin", "2026-11-21T23:00:00Z"),
            ("2026-11-21 22:00", "Europe/Berlin", "2026-11-21T21:00:00Z"),
            ("2026-12-31", "UTC", "2027-01-01T00:00:00Z"),
            ("2028-02-29", "UTC", "2028-03-01T00:00:00Z"),
            // skipped: 02:30 does not exist; 03:00 is the moment of the change
            ("2026-03-29 02:30", "Europe/Berlin", "2026-03-29T01:00:00Z"),
            ("2026-03-29 02:37", "Europe/Berlin", "2026-03-29T01:00:00Z"),
            ("2026-03-29T02:59:59", "Europe/Berlin", "2026-03-29T01:00:00Z"),
            // the day after begins twice in Havana: the first time, the day is over
            ("2027-11-06", "America/Havana", "2027-11-07T04:00:00Z"),
            // and once in Beirut, where the last hour of the day is repeated
            ("2026-10-24", "Asia/Beirut", "2026-10-24T22:00:00Z"),
            // the last day that RFC 3339 can write
            ("9999-12-31", "UTC", "9999-12-31T23:59:59Z"),
            // repeated: the later 02:30
            ("2026-10-25 02:30", "Europe/Berlin", "2026-10-25T01:30:00Z"),
            // a whole day that Samoa skipped
            ("2011-12-29", "Pacific/Apia", "2011-12-30T10:00:00Z"),
        ] {
            assert_eq!(until(value, zone), expected, "{value} in {zone}");
        }
    }

    #[test]
    fn what_is_no_exemption_still_spares_the_instance() {
        for value in [
            "false",
            "no",
            "TRUE",
            "tomorrow",
            "2026-02-29",
            "2026-11-21 25:00",
            "21.11.2026",
            "21-11-26",
            "2026-1-5",
            "-2026-11-21",
            "+2026-11-21",
            "2026-11-21 8:00",
            "2026-11-21  08:00",
            "2026-11-21T08",
        ] {
            assert_eq!(Exemption::parse(value, Tz::UTC), Exemption::Unclear(value.to_owned()));
        }
    }

    #[test]
    fn a_start_has_failed_unless_a_person_or_a_schedule_wanted_the_stop() {
        let failed = |code: &str| StateReason { code: code.to_owned(), message: String::new() }.is_failed_start();
        for code in ["Client.InternalError", "Server.InsufficientInstanceCapacity", "Client.InvalidKmsKey.InvalidState"]
        {
            assert!(failed(code), "{code}");
        }
        for code in ["Client.UserInitiatedShutdown", "Client.InstanceInitiatedShutdown", "Server.ScheduledStop"] {
            assert!(!failed(code), "{code}");
        }
    }

    #[test]
    fn ids_are_found_in_ec2s_messages() {
        let message = "The instance IDs 'i-0aaaaaaaaaaaaaaaa, i-0bbbbbbbbbbbbbbbb' do not exist (i-12345678; not i-xyz, ami-0aaaaaaaaaaaaaaaa)";
        let ids: Vec<String> = InstanceId::all_in(message).iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["i-0aaaaaaaaaaaaaaaa", "i-0bbbbbbbbbbbbbbbb", "i-12345678"]);
    }
}
