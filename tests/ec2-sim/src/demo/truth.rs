//! What was told beside what is so: the report, and the states read back from the simulated EC2.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use chrono::{DateTime, Utc};
use ec2_sim::Machine;
use serde::Deserialize;

use super::moment;
use super::report::{Report, Told};
use super::table::{Row, fold, stem};

/// As much of an event as tells whom it concerns.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    action: Action,
    tags: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Stop,
    Start,
}

/// One machine around an invocation, and what the report told of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) before: Machine,
    pub(crate) now: Machine,
    pub(crate) told: Option<Told>,
}

impl Event {
    /// Reads an event file.
    ///
    /// # Errors
    /// It is missing, or is no plain stop or start by tags.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Tells whether a machine carries the event's tags.
    pub(crate) fn selects(&self, machine: &Machine) -> bool {
        self.tags.iter().all(|(key, value)| machine.tags.get(key) == Some(value))
    }

    pub(crate) fn done(&self) -> &'static str {
        match self.action {
            Action::Stop => "stopped",
            Action::Start => "started",
        }
    }

    /// Tells whether there was anything to do about a machine in this state.
    fn acts_on(&self, state: &str) -> bool {
        match self.action {
            Action::Stop => matches!(state, "pending" | "running"),
            Action::Start => matches!(state, "pending" | "stopping" | "stopped"),
        }
    }

    /// Tells whether a machine has got where the event wants it.
    fn is_fulfilled_by(&self, state: &str) -> bool {
        match self.action {
            // A stop is told as soon as EC2 said so.
            Action::Stop => matches!(state, "stopping" | "stopped"),
            Action::Start => state == "running",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags: Vec<String> = self.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&tags.join(" and "))
    }
}

/// Puts states and words side by side; both lists of machines are in the order of their ids.
pub(crate) fn pair(before: Vec<Machine>, now: Vec<Machine>, report: &Report) -> Vec<Seen> {
    let mut told = report.told();
    let both = before.into_iter().zip(now);
    both.map(|(before, now)| Seen { told: told.remove(&before.id), before, now }).collect()
}

/// Finds what the report told and is not so, and what is so and was not told.
pub(crate) fn disagreements(event: &Event, seen: &[Seen], report: &Report) -> Vec<String> {
    let mut found: Vec<String> = seen.iter().filter_map(|seen| seen.disagreement(event)).collect();
    let told = report.told().len();
    let known = seen.iter().filter(|seen| seen.told.is_some()).count();
    if told != known {
        found.push(format!("it names {} instances that do not exist", told - known));
    }
    let summary = &report.summary;
    let sum = summary.changed + summary.would_change + summary.skipped + summary.failed + summary.unfinished;
    if summary.matched != sum || sum != told {
        found.push(format!("it counts {} matched, {sum} in the parts, and lists {told}", summary.matched));
    }
    if report.version != env!("CARGO_PKG_VERSION") {
        found.push(format!("it is from Curfew {}: build the binary again", report.version));
    }
    found
}

impl Seen {
    fn disagreement(&self, event: &Event) -> Option<String> {
        let (before, now) = (self.before.state.as_str(), self.now.state.as_str());
        let is_wrong = match &self.told {
            _ if self.before.id != self.now.id => true,
            Some(_) if !event.selects(&self.before) => true,
            Some(Told::Changed { from, to }) => {
                from != before || !event.is_fulfilled_by(to) || !event.is_fulfilled_by(now)
            }
            // A start that failed has renewed its mark.
            Some(Told::WouldChange | Told::Failed { .. }) => before != now,
            // Not known to be done: either may be so.
            Some(Told::Unfinished { .. }) => false,
            None if event.selects(&self.before) && event.acts_on(before) => true,
            Some(Told::Skipped { .. }) | None => before != now || self.before.tags != self.now.tags,
        };
        let told = match &self.told {
            Some(told) => format!("the report says {told:?}"),
            None => "the report does not name it".to_owned(),
        };
        is_wrong.then(|| format!("{} was {before}, is {now}, tags {:?}: {told}", self.now.name(), self.now.tags))
    }

    /// Where it belongs in the table.
    fn rank(&self) -> u8 {
        match self.told {
            Some(Told::Changed { .. } | Told::WouldChange) => 0,
            Some(Told::Skipped { .. }) => 1,
            Some(Told::Failed { .. } | Told::Unfinished { .. }) => 2,
            None => 3,
        }
    }

    /// Its line of the table: name, before, now, reason, plain words; the name is still missing.
    fn row(&self, event: &Event, now: DateTime<Utc>) -> Row<5> {
        let (mut trouble, mut note) = (false, String::new());
        let (reason, words) = match &self.told {
            Some(Told::Changed { .. }) => Default::default(),
            Some(Told::WouldChange) => ("would change".to_owned(), String::new()),
            Some(Told::Skipped { reason, until, message }) => {
                let until = until.as_deref().and_then(|until| moment(until, now));
                let words = until.unwrap_or_else(|| plain_words(reason, message.as_deref(), &self.before));
                (reason.clone(), words)
            }
            Some(Told::Failed { code, message }) => {
                trouble = true;
                note = message.trim_start_matches(&format!("{code}: ")).to_owned();
                ("FAILED".to_owned(), code.clone())
            }
            Some(Told::Unfinished { reason }) => {
                trouble = true;
                ("UNFINISHED".to_owned(), reason.clone())
            }
            None if event.selects(&self.before) && event.acts_on(&self.before.state) => {
                trouble = true;
                ("UNTOLD".to_owned(), "the report does not name it".to_owned())
            }
            None if event.selects(&self.before) => (String::new(), format!("{} already", self.before.state)),
            None => (String::new(), format!("not tagged {event}")),
        };
        let cells = [String::new(), self.before.state.clone(), self.now.state.clone(), reason, words];
        Row { trouble, cells, note }
    }
}

/// Explains a reason to somebody who reads it for the first time.
fn plain_words(reason: &str, message: Option<&str>, machine: &Machine) -> String {
    match (reason, message) {
        ("autoscaling_member", _) => "its group would replace it".into(),
        // The message explains at length how to write it right.
        ("exempt", Some(_)) => match machine.tags.get("curfew:exempt") {
            Some(value) => format!("{value:?} is not a time: spared to be safe"),
            None => "by the event's except_tags".into(),
        },
        ("exempt", None) => "always".into(),
        ("has_hours", _) => "it has hours of its own".into(),
        ("instance_store_root", _) => "its disk would be lost".into(),
        ("not_marked", _) => "Curfew did not stop it".into(),
        ("spot_one_time", _) => "EC2 cannot stop these".into(),
        ("started_since", _) => "somebody started it since".into(),
        ("stop_protected", _) => "disableApiStop is set".into(),
        (_, message) => message.unwrap_or_default().into(),
    }
}

/// Makes the table's rows: alike machines with running numbers on one, those that the report does not name last.
pub(crate) fn rows(event: &Event, seen: &[Seen], now: DateTime<Utc>) -> Vec<Row<5>> {
    let mut groups: Vec<(Row<5>, Vec<&Seen>)> = Vec::new();
    let mut sorted: Vec<&Seen> = seen.iter().collect();
    sorted.sort_by_key(|seen| seen.rank());
    for seen in sorted {
        let row = seen.row(event, now);
        let joins = |(other, members): &&mut (Row<5>, Vec<&Seen>)| {
            *other == row && (seen.told.is_none() || stem(members[0].now.name()) == stem(seen.now.name()))
        };
        match groups.iter_mut().find(joins) {
            Some((_, members)) => members.push(seen),
            None => groups.push((row, vec![seen])),
        }
    }
    let name = |(mut row, members): (Row<5>, Vec<&Seen>)| {
        row.cells[0] = match (&members[0].told, members.len()) {
            (Some(_), _) => fold(&members.iter().map(|seen| seen.now.name()).collect::<Vec<_>>()),
            (None, 1) => "(1 other)".to_owned(),
            (None, n) => format!("({n} others)"),
        };
        row
    };
    groups.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop() -> Event {
        Event { action: Action::Stop, tags: [("curfew".to_owned(), "yes".to_owned())].into() }
    }

    fn seen(name: &str, before: &str, now: &str, told: Option<Told>) -> Seen {
        let machine = |state| Machine::named(name).tag("curfew", "yes").state(state);
        Seen { before: machine(before), now: machine(now), told }
    }

    fn changed() -> Option<Told> {
        Some(Told::Changed { from: "running".into(), to: "stopping".into() })
    }

    fn skipped() -> Option<Told> {
        Some(Told::Skipped { reason: "stop_protected".into(), until: None, message: None })
    }

    #[test]
    fn what_the_report_says_and_what_is_so_are_compared() {
        for (is_true, before, now, told) in [
            (true, "running", "stopping", changed()),
            (true, "running", "stopped", changed()),
            (false, "running", "running", changed()),
            (false, "stopped", "stopped", changed()),
            (true, "running", "running", skipped()),
            (false, "running", "stopping", skipped()),
            (true, "stopped", "stopped", None),
            (false, "running", "running", None),
            (false, "running", "stopping", None),
        ] {
            let seen = seen("web", before, now, told);
            assert_eq!(seen.disagreement(&stop()).is_none(), is_true, "{seen:?}");
        }
    }

    #[test]
    fn what_the_event_does_not_select_may_not_be_named_or_touched() {
        let mut bystander = seen("mail", "running", "running", None);
        (bystander.before.tags, bystander.now.tags) = Default::default();
        assert_eq!(bystander.disagreement(&stop()), None);
        bystander.now.tags.insert("curfew:stopped-at".into(), "2026-11-20T19:00:00Z".into());
        assert!(bystander.disagreement(&stop()).is_some());
        bystander.now.tags.clear();
        bystander.told = skipped();
        assert!(bystander.disagreement(&stop()).is_some());
    }

    #[test]
    fn alike_machines_share_a_row() {
        let office = [
            seen("db", "running", "running", Some(Told::Failed { code: "No".into(), message: "No: not this".into() })),
            seen("web-1", "running", "stopping", changed()),
            seen("web-2", "running", "stopping", changed()),
            seen("web-3", "running", "stopping", changed()),
            seen("build-1", "running", "stopping", changed()),
            seen("vault", "running", "running", skipped()),
            seen("old", "stopped", "stopped", None),
            seen("older", "stopped", "stopped", None),
            seen("lost", "running", "running", None),
        ];
        let rows = rows(&stop(), &office, DateTime::UNIX_EPOCH);
        let told: Vec<String> = rows.iter().map(|row| row.cells.join("|") + "|" + &row.note).collect();
        assert_eq!(
            told,
            [
                "web-1 … -3|running|stopping|||",
                "build-1|running|stopping|||",
                "vault|running|running|stop_protected|disableApiStop is set|",
                "db|running|running|FAILED|No|not this",
                "(2 others)|stopped|stopped||stopped already|",
                "(1 other)|running|running|UNTOLD|the report does not name it|",
            ]
        );
    }
}
