//! The function's log, as far as it tells what was switched (infra/README.md, "The log").

use chrono::{DateTime, SubsecRound, Utc};
use ec2_curfew::ec2::Error;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::aws_json::Client;

/// Lines of instances that were switched: a report's are deeper down, and what failed has no `to`.
const PATTERN: &str = r#"{ $.id = "i-*" && $.from = "*" && $.to = "*" }"#;

/// An instance was switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Switched {
    /// When the function said so, in whole seconds, as launch times are.
    pub(super) at: DateTime<Utc>,
    /// Its account, region and id.
    pub(super) who: (String, String, String),
    /// Its name.
    pub(super) name: Option<String>,
    /// By which schedule.
    pub(super) schedule: String,
    /// What to.
    pub(super) to: To,
}

/// What an instance was switched to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// Off; it had been started then. Lines of earlier versions don't say when.
    Off {
        /// When, if it is told.
        launched: Option<DateTime<Utc>>,
    },
    /// On.
    On,
}

/// A line; what else it has doesn't matter.
#[derive(Deserialize)]
struct Line {
    timestamp: DateTime<Utc>,
    id: String,
    name: Option<String>,
    account: String,
    region: String,
    schedule: String,
    to: String,
    launched: Option<DateTime<Utc>>,
    #[serde(default)]
    dry_run: bool,
}

/// Reads a line, if it tells that an instance was switched.
fn read_line(text: &str) -> Option<Switched> {
    let line: Line = serde_json::from_str(text).ok()?;
    let to = match line.to.as_str() {
        _ if line.dry_run => return None,
        "stopping" | "stopped" => To::Off { launched: line.launched },
        "pending" | "running" => To::On,
        _ => return None,
    };
    let who = (line.account, line.region, line.id);
    Some(Switched { at: line.timestamp.trunc_subsecs(0), who, name: line.name, schedule: line.schedule, to })
}

/// Reads the log of some time, in order.
///
/// # Errors
/// CloudWatch Logs refused, or didn't answer.
pub(super) async fn read(
    logs: &Client,
    group: &str,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<Switched>, Error> {
    let mut input = json!({
        "logGroupName": group,
        "startTime": from.timestamp_millis(),
        "endTime": to.timestamp_millis(),
        "filterPattern": PATTERN,
    });
    let mut lines = Vec::new();
    loop {
        let page = logs.call("FilterLogEvents", &input).await?;
        let texts = page["events"].as_array().into_iter().flatten().filter_map(|event| event["message"].as_str());
        lines.extend(texts.filter_map(read_line));
        // An empty page may have a token too.
        match page["nextToken"].as_str() {
            Some(token) if input["nextToken"] != token => input["nextToken"] = json!(token),
            _ => break,
        }
    }
    lines.sort_by_key(|line| line.at);
    Ok(lines)
}

/// Whether the error says that there is no such log.
pub(super) fn is_missing(error: &Error) -> bool {
    error.code == "ResourceNotFoundException"
}

/// Returns the log groups whose names have something in common with one, as far as they may be seen.
pub(super) async fn similar(logs: &Client, group: &str) -> Vec<String> {
    let prefix = group.rsplit_once('/').map_or("", |(folder, _)| folder);
    let input = json!({ "logGroupNamePrefix": if prefix.is_empty() { group } else { prefix }, "limit": 50 });
    let Ok(page) = logs.call("DescribeLogGroups", &input).await else { return Vec::new() };
    let groups: Vec<Value> = page["logGroups"].as_array().cloned().unwrap_or_default();
    let names = groups.iter().filter_map(|it| it["logGroupName"].as_str().map(str::to_owned));
    names.filter(|name| name.to_ascii_lowercase().contains("curfew")).collect()
}
