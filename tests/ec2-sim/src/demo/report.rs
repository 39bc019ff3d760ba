//! The function's report, read from its log line.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) message: String,
    pub(crate) outcome: String,
    pub(crate) version: String,
    pub(crate) duration_ms: u64,
    pub(crate) summary: Summary,
    targets: Vec<Target>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Summary {
    pub(crate) matched: usize,
    pub(crate) changed: usize,
    pub(crate) would_change: usize,
    pub(crate) skipped: usize,
    pub(crate) failed: usize,
    pub(crate) unfinished: usize,
}

#[derive(Debug, Deserialize)]
struct Target {
    changed: Vec<Entry>,
    would_change: Vec<Entry>,
    skipped: Vec<Entry>,
    failed: Vec<Entry>,
    unfinished: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    reason: String,
    until: Option<String>,
    message: Option<String>,
}

type Tell = fn(&Entry) -> Told;

/// What a report says about one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Changed { from: String, to: String },
    WouldChange,
    Skipped { reason: String, until: Option<String>, message: Option<String> },
    Failed { code: String, message: String },
    Unfinished { reason: String },
}

impl Report {
    /// Reads a log line, if it is a whole report.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Returns what it says about each instance, by id.
    pub(crate) fn told(&self) -> BTreeMap<String, Told> {
        let mut told = BTreeMap::new();
        for target in &self.targets {
            let lists: [(&[Entry], Tell); 5] = [
                (&target.changed, |entry| Told::Changed { from: entry.from.clone(), to: entry.to.clone() }),
                (&target.would_change, |_| Told::WouldChange),
                (&target.skipped, |entry| Told::Skipped {
                    reason: entry.reason.clone(),
                    until: entry.until.clone(),
                    message: entry.message.clone(),
                }),
                (&target.failed, |entry| Told::Failed {
                    code: entry.code.clone(),
                    message: entry.message.clone().unwrap_or_default(),
                }),
                (&target.unfinished, |entry| Told::Unfinished { reason: entry.reason.clone() }),
            ];
            for (entries, tell) in lists {
                told.extend(entries.iter().map(|entry| (entry.id.clone(), tell(entry))));
            }
        }
        told
    }
}
