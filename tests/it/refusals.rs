//! Bad input: one clear message each, and not a single call.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::Utc;
use ec2_curfew::event::{Event, unwrap};
use ec2_curfew::request::{Request, snapshots};
use ec2_curfew::select::{Pattern, TagPatterns};
use ec2_sim::Machine;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::world::*;

/// Malformed events, as they were sent.
const MALFORMED: &[&str] = &[
    // Not an object, or no JSON at all
    r#""#,
    r#"{"action": "stop", "#,
    r#"{'action': 'stop'}"#,
    r#"{"action": "stop",}"#,
    r#"null"#,
    r#""stop""#,
    r#"["stop"]"#,
    r#"42"#,
    r#"{}"#,
    r#"{"action": "stop", "action": "start", "tags": {"curfew": "yes"}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes", "curfew": "no"}}"#,
    // Wrappings
    r#"{"detail-type": "Scheduled Event", "source": "aws.events", "time": "2026-11-20T19:00:00Z", "detail": {}}"#,
    r#"{"detail-type": "Scheduled Event", "source": "aws.scheduler", "time": "2026-11-20T19:00:00Z", "detail": "{}"}"#,
    r#"{"detail-type": "Scheduled Event", "source": "aws.events"}"#,
    r#"{"detail-type": "x", "detail": "stop"}"#,
    r#"{"detail-type": "x", "detail": "[1]"}"#,
    r#"{"detail-type": "x", "detail": 7}"#,
    r#"{"detail-type": "x", "time": "yesterday", "detail": {"action": "stop", "tags": {"curfew": "yes"}}}"#,
    r#"{"detail-type": "x", "time": 5, "detail": {"action": "stop", "tag": {"curfew": "yes"}}}"#,
    r#"{"detail": {"action": "stop"}, "tags": {"curfew": "yes"}}"#,
    r#"{"detail-type": "x", "detail": null}"#,
    r#"{"detail-type": "x", "detail": {"action": "stop", "tags": {"curfew": "yes"}}, "dryRun": true, "exceptTags": {"Role": "bastion"}, "foo": 1}"#,
    r#"{"detail-type": "x", "time": "2999-01-01T00:00:00Z", "detail": {"action": "stop", "tags": {"curfew": "yes"}}}"#,
    r#"{"detail-type": "x", "detail": "action: stop"}"#,
    r#"{"detail-type": "x", "detail": "eyJhY3Rpb24iOiAic3RvcCJ9"}"#,
    r#"{"detail-type": "x", "detail": "{'action': 'stop'}"}"#,
    r#"{"detail-type": "x", "detail": "{\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}}}"}"#,
    r#"{"detail-type": "x", "detail": "\"{\\\"action\\\": \\\"stop\\\"}\""}"#,
    r#"{"detail-type": "Lambda Function Invocation Result - Failure", "source": "lambda", "detail": {"version": "1.0", "requestPayload": {"action": "stop", "tags": {"curfew": "yes"}}, "responsePayload": {}}}"#,
    r#"{"detail-type": "x", "detail": {"action": "stop", "tags": {"curfew": "yes"}}, "dry_run": true}"#,
    r#"{"detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "detail": {"instance-id": "i-abcd1111", "state": "pending"}}"#,
    // The action, and fields of another
    r#"{"tags": {"curfew": "yes"}}"#,
    r#"{"action": "terminate", "tags": {"curfew": "yes"}}"#,
    r#"{"action": "Stop", "tags": {"curfew": "yes"}}"#,
    r#"{"action": "delete_snapshots", "tags": {"curfew": "yes"}}"#,
    r#"{"action": "Snapshots", "tags": {"curfew": "yes"}, "min_age_days": 30}"#,
    r#"{"action": null, "tags": {"curfew": "yes"}}"#,
    r#"{"action": "start", "tags": {"curfew": "yes"}, "hibernate": true}"#,
    // Running hours
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "hours": {"office": "Mo-Fr 08:00-19:00"}, "holidays": "DE"}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "hours": {}}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "hours": "Mo-Fr 08:00-19:00"}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "hours": {"office": "Mon-Fri 8-19", "": "24/7", "never": "off"}}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "hours": {"berlin": {"opens": "Mo-Fr 07:00-20:00", "timezone": "Europe/Berln", "start": "no"}}}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "hours": {"berlin": {"open": ["Mo-Fr 07:00-20:00", 7], "holidays": {"country": "Germany", "add": ["24.12.2026"]}}}}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "holidays": "XX", "timezone": "CEST"}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "hours": {"office": "Mo-Fr 08:00-19:00; PH off"}}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "hours_tag": "curfew:exempt"}"#,
    r#"{"action": "start", "tags": {"curfew": "yes"}, "hours_tag": ""}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "hours": {"office": "24/7"}}"#,
    // Snapshots, and fields of another
    r#"{"action": "snapshot", "tags": {"curfew": "yes"}}"#,
    r#"{"action": "snapshots"}"#,
    r#"{"action": "snapshots", "tag": {"curfew": "yes"}}"#,
    r#"{"action": "snapshots", "tags": {}}"#,
    r#"{"action": "snapshots", "tags": {"curfew": "yes"}, "min_age_days": 6}"#,
    r#"{"action": "snapshots", "tags": {"curfew": "yes"}, "grace_days": 0, "archived": "yes", "min_age_days": "180"}"#,
    r#"{"action": "snapshots", "tags": {"curfew": "yes"}, "min_age": 180, "graceDays": 14, "older_than": 3}"#,
    r#"{"action": "snapshots", "tags": {"curfew": "yes"}, "hibernate": true, "remember": true, "hours": {"office": "24/7"}}"#,
    r#"{"action": "snapshots", "instance_ids": "i-0abc12345678def00", "filters": {"volume-id": "vol-0abc"}}"#,
    r#"{"action": "snapshots", "tags": {"curfew": "yes"}, "accounts": "111122223333", "regions": "eu-west", "max_changes": -1}"#,
    r#"{"action": "snapshots", "tags": {"curfew": "yes"}, "scheduled_time": "19:00", "timezone": "CEST7"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "min_age_days": 180}"#,
    r#"{"action": "reconcile", "tags": {"curfew": "yes"}, "grace_days": 14, "archived": true}"#,
    // The selection
    r#"{"action": "stop"}"#,
    r#"{"action": "stop", "tags": {}}"#,
    r#"{"action": "stop", "tags": "curfew=yes"}"#,
    r#"{"action": "stop", "tags": [{"Key": "curfew", "Value": "yes"}]}"#,
    r#"{"action": "stop", "tags": {"curfew": true}}"#,
    r#"{"action": "stop", "tags": {"curfew": []}}"#,
    r#"{"action": "stop", "tags": {"curfew": 7}}"#,
    r#"{"action": "stop", "filters": {"vpc-id": ""}}"#,
    // Other tools' shapes of tags and filters
    r#"{"action": "stop", "tags": {"tag:Environment": "dev"}}"#,
    r#"{"action": "stop", "tags": {"Key": "tostop", "Value": "true"}}"#,
    r#"{"action": "stop", "tags": {"Name": "tag:x", "Values": ["y"]}}"#,
    r#"{"action": "stop", "tags": [{"Name": "tag:x", "Values": ["y"]}, {"Key": "z", "Value": "1"}]}"#,
    r#"{"action": "stop", "tags": [{"key": "z", "value": "1"}]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {"Key": "Role", "Value": "bastion"}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {"Key": "Role", "Value": "bastion", "ResourceType": "instance"}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {"TagKey": "Role", "TagValue": "bastion"}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {"Tag:Role": "bastion", "Team": "oncall"}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": [{"Key": "Role", "Value": "bastion"}, {"Key": "Role", "Value": "db"}]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {"Name": "vpc-id", "Values": ["vpc-0abc1234"]}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {"Name": "tag:Role", "Values": ["db"], "Operator": "NotEquals"}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": ["Role"]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": "Role"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": ["Role=bastion", "tag:Role=db"]}"#,
    r#"{"action": "stop", "tags": ["curfew"]}"#,
    r#"{"action": "stop", "tags": "Name=tag:curfew,Values=yes"}"#,
    r#"{"action": "stop", "tags": {"tag-key": "AutoStop", "tag-value": "yes"}}"#,
    r#"{"action": "stop", "tags": {"Key": "tag:curfew", "Values": ["yes"]}}"#,
    r#"{"action": "stop", "tags": {"Name": "AutoStop", "Value": "yes"}}"#,
    r#"{"action": "stop", "tags": {"Name": "vpc-id", "Values": ["vpc-0abc1234"]}}"#,
    r#"{"action": "stop", "tags": {"Key": "x", "Value": true, "PropagateAtLaunch": true}}"#,
    r#"{"action": "stop", "tags": {"Key": "x", "Value": null}}"#,
    r#"{"action": "stop", "tags": {"Key": "", "Value": "x"}}"#,
    r#"{"action": "stop", "tags": {"curfew": null}}"#,
    r#"{"action": "stop", "tags": null}"#,
    r#"{"action": "stop", "filters": {"Name": "instance-state-name", "Values": ["running"]}}"#,
    r#"{"action": "stop", "filters": [{"Name": "instance-state-name", "Values": ["running"]}]}"#,
    r#"{"action": "stop", "filters": {"Name": "tag:Env"}}"#,
    r#"{"action": "stop", "filters": {"Tag:Env": "dev", "VpcId": "vpc-0abc1234"}}"#,
    r#"{"action": "stop", "filters": {"Key": "Env", "Value": "dev"}}"#,
    r#"{"action": "stop", "filters": [{"Name": "tag-key", "Values": ["AutoStop"]}, {"Name": "tag-value", "Values": ["yes"]}]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "filters": [{"Name": "tag:Env", "Values": ["dev"]}, {"Name": "vpc-id", "Values": ["vpc-0abc1234"]}]}"#,
    r#"{"action": "stop", "tags": {"Env": "dev"}, "filters": [{"Name": "tag:Env", "Values": ["test"]}]}"#,
    r#"{"action": "snapshots", "tags": {"Key": "Env", "Value": "dev", "ResourceType": "snapshot"}}"#,
    r#"{"action": "stop", "filters": {"Name": "vpc-id", "Values": ["vpc-0abc1234"]}}"#,
    r#"{"action": "stop", "filters": {"tag-key": "AutoStop", "tag-value": "yes"}}"#,
    r#"{"action": "stop", "instance_ids": "i-0abc12345678def00,i-0abc12345678def01"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": "us-east-1, eu-west-1"}"#,
    r#"{"Action": "stop", "Tags": {"curfew": "yes"}, "DryRun": true, "InstanceIds": ["i-0abc12345678def00"]}"#,
    r#"{"action": "stop", "tags": {"curfew": ["yes", "yes"]}}"#,
    r#"{"action": "stop", "tags": {"curfew": ["yes", 3]}}"#,
    r#"{"action": "stop", "tags": {"": "yes"}}"#,
    r#"{"action": "stop", "except_tags": {"Role": "bastion"}}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {}}"#,
    r#"{"action": "stop", "filters": {"instance-state-name": "running"}}"#,
    r#"{"action": "stop", "filters": {"tag:Environment": "dev"}}"#,
    r#"{"action": "stop", "filters": [{"Name": "vpc-id", "Values": ["vpc-0abc1234"]}]}"#,
    r#"{"action": "stop", "filters": [{"Name": "tag:Environment", "Values": ["dev"]}, {"Name": "instance-state-name", "Values": ["running"]}, {"Name": "vpc-id", "Values": ["vpc-0abc1234"]}]}"#,
    r#"{"action": "stop", "instance_ids": []}"#,
    r#"{"action": "stop", "instance_ids": ["i-123", "web-1"]}"#,
    r#"{"action": "stop", "instance_ids": ["i-0abc12345678def00", "i-0abc12345678def00"]}"#,
    r#"{"action": "stop", "instance_ids": "i-0abc12345678def00", "regions": ["us-east-1", "eu-west-1"]}"#,
    r#"{"action": "stop", "instance_ids": "i-0abc12345678def00", "regions": "all"}"#,
    // Where
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": "eu-west"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": ["all", "us-east-1"]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": []}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": null}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": ["us-east-1", 3, "", "eu-west"]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "accounts": ["111122223333"]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "role": "curfew-member"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "accounts": "self", "role": "curfew-member"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "accounts": [111122223333, "1111", "all"], "role": "arn:aws:iam::111122223333:role/curfew-member"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "accounts": [], "role": "curfew-member"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "accounts": ["self", "self"]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "accounts": ["111122223333"], "role": ""}"#,
    r#"{"action": "stop", "instance_ids": "i-0abc12345678def00", "accounts": ["self", "111122223333"], "role": "curfew-member"}"#,
    // How and when
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "dry_run": "true"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "dryRun": true}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "remember": 1}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "max_changes": -1}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "max_changes": 2.5}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "max_delay_minutes": 0}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "max_delay_minutes": "60"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "scheduled_time": "19:00"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "scheduled_time": 1763665200}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "scheduled_time": "2999-01-01T00:00:00Z"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "timezone": "Europe/Berln"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "timezone": "CEST7"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "timezone": "europe/berlin"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "timezone": "PST"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "timezone": "UTC+1"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "timezone": "Asia/Bangalore"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "max_changes": "100"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": "N. Virginia"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": ["us-east-1;eu-west-1", ["us-east-1"]]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "regions": ["us-east-1 ", "ALL", "EU-West-1"]}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "dry_run ": true, "remember\u200b": true}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "exclude_tags": {"Role": "bastion"}, "ignore": [], "max_delay": 5, "role_arn": "x"}"#,
    r#"{"action": "stop", "ids": "i-0abc12345678def00", "tag_filters": []}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "name": "büro"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "name": ""}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "name": "the office"}"#,
    r#"{"action": "stop", "tags": {"curfew": "yes"}, "force": true}"#,
    // What follows the event
    r#"{"action":"stop","tags":{"curfew":"yes"}}, "dry_run": true}"#,
    r#"{"action":"stop","tags":{"curfew":"yes"}}{"action":"start","tags":{"curfew":"yes"}}"#,
    // Encodings
    r#"'{"action": "stop", "tags": {"curfew": "yes"}}'"#,
    r#"eyJhY3Rpb24iOiAic3RvcCIsICJ0YWdzIjogeyJjdXJmZXciOiAieWVzIn19"#,
    r#""eyJhY3Rpb24iOiAic3RvcCIsICJ0YWdzIjogeyJjdXJmZXciOiAieWVzIn19""#,
    r#""{\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}}""#,
    r#""\"{\\\"action\\\": \\\"stop\\\"}\"""#,
    "ewAiAGEAYwB0AGkAbwBuACIAOgAiAHMAdABvAHAAIgB9AA==",
    "//57ACIAYQBjAHQAaQBvAG4AIgA6ACIAcwB0AG8AcAAiAH0A",
    "77u/eyJhY3Rpb24iOiJzdG9wIn0=",
    "IHsiYWN0aW9uIjoic3RvcCJ9",
    "W3siYWN0aW9uIjoic3RvcCJ9XQ==",
    "action: stop\ntags:\n  curfew: yes\n",
    "- action: stop\n",
    "action : stop\n",
    "%YAML 1.2\n---\naction: stop\n",
    "{action: stop}",
    // What shells and editors do to JSON
    "{action:stop,tags:{curfew:yes}}",
    r#"{\"action\":\"stop\"}"#,
    r#"{“action”: “stop”}"#,
    r#"{ 'action': "stop"}"#,
    r#"{"action": 'stop'}"#,
    r#"{"action": "stop", "dry_run": True}"#,
    r#"{"action": "stop", "dry_run": truth}"#,
    "// stops\n{\"action\": \"stop\"}",
    "{\n  \"action\": \"stop\", # stops\n  \"tags\": {}\n}",
    r#""action": "stop", "tags": {"curfew": "yes"}"#,
    r#"{"action": "stop""#,
    "file://event.json",
    "{file://event.json}",
    "stop",
    // Other services' events
    r#"{"key1": "value1", "key2": "value2", "key3": "value3"}"#,
    r#"{"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "{}"}}]}"#,
    r#"{"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}"#,
    r#"{"Records": [{"eventSource": "aws:s3", "s3": {}}]}"#,
    r#"{"Records": [{"eventSource": "aws:kinesis"}]}"#,
    r#"{"version": "2.0", "rawPath": "/", "requestContext": {"http": {"method": "POST"}}, "body": "{}", "isBase64Encoded": false}"#,
    r#"{"httpMethod": "POST", "body": "{}", "path": "/"}"#,
    r#"{"source": "aws.cloudwatch", "alarmArn": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:idle", "alarmData": {}}"#,
    r#"{"version": "1.0", "requestContext": {"condition": "RetriesExhausted"}, "requestPayload": {"action": "stop", "tags": {"curfew": "yes"}}, "responsePayload": {}}"#,
    r#"{"FunctionName": "curfew", "Payload": {"action": "stop", "tags": {"curfew": "yes"}}}"#,
    r#"{"awslogs": {"data": "H4sIAAAA"}}"#,
    r#"{"RequestType": "Create", "ResponseURL": "https://example.com/", "StackId": "x"}"#,
    r#"{"invokingEvent": "{}", "ruleParameters": "{}"}"#,
    r#"{"Input": "{\"action\": \"stop\"}"}"#,
    r#"{"payload": {"action": "stop"}}"#,
    r#"{"body": "eyJhY3Rpb24iOiAic3RvcCJ9", "isBase64Encoded": true}"#,
    r#"{"body": "{\"action\": \"stop\"}"}"#,
    r#"{"Detail": "{\"action\": \"stop\"}", "DetailType": "x", "Source": "my.app"}"#,
    r#"{"Entries": [{"Detail": "{\"action\": \"stop\"}", "DetailType": "x", "Source": "my.app"}]}"#,
    r#"{"Messages": [{"Body": "{\"action\": \"stop\"}"}]}"#,
    r#"{"Type": "Notification", "Message": "{\"action\": \"stop\"}"}"#,
    r#"[{"action": "stop", "tags": {"curfew": "yes"}}]"#,
    r#"["{\"action\": \"stop\"}"]"#,
    // Several at once, as README.md quotes it
    r#"{"tag": {"curfew": "yes"}, "regions": ["us-east-1", "eu-west"]}"#,
];

/// What differs from run to run.
fn still(message: &str) -> String {
    let mut words: Vec<&str> = message.split(' ').collect();
    for at in 1..words.len() {
        if words[at - 1] == "now" && words[at].ends_with(");") {
            words[at] = "[now]);";
        }
        if words[at - 1] == "like" && words[at].starts_with("\"20") && message.contains("RFC 3339") {
            words[at] = "[now]";
        }
    }
    words.join(" ")
}

#[tokio::test]
async fn every_malformed_event_is_refused_in_words_that_help_and_no_call_leaves() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let mut all = String::new();
    for event in MALFORMED {
        let told = world.bytes(AMPLE, event.as_bytes().to_vec()).await;
        assert_eq!(told.verdict(), "InvalidRequest", "{event}: {told:?}");
        assert_eq!(told.logs.len(), 1, "{event}: {:?}", told.logs);
        assert_eq!(
            (told.logs[0]["level"].as_str(), told.logs[0]["message"].as_str()),
            (Some("ERROR"), Some(told.message().as_str()))
        );
        assert_eq!(world.sim.calls().len(), 0, "{event}");
        writeln!(all, "{event}\n    {}\n", still(&told.message())).unwrap();
    }
    insta::assert_snapshot!("refusals", all);
}

/// Reads an event as the function does.
fn read(event: &Value) -> Result<Request, Vec<String>> {
    let unwrapped = unwrap(Event::Json(event.clone())).map_err(|refused| refused.problems().to_vec())?;
    Request::parse(unwrapped.request, unwrapped.time, Utc::now()).map_err(|refused| refused.problems().to_vec())
}

/// Reads an event of any action, and returns what is wrong with it.
fn problems_of(event: &Value) -> Vec<String> {
    match unwrap(Event::Json(event.clone())) {
        Ok(it) if snapshots::is_meant(&it.request) => {
            snapshots::Request::parse(it.request, it.time, Utc::now()).err().map(|refused| refused.problems().to_vec())
        }
        _ => read(event).err(),
    }
    .unwrap_or_default()
}

/// The fields that a problem says to write as they stand.
fn advised(problem: &str) -> Option<Map<String, Value>> {
    let fields = ["; write it like \"", "; write \""].iter().find_map(|start| problem.split_once(start));
    serde_json::from_str(&format!("{{\"{}}}", fields?.1)).ok()
}

/// The value that a problem says to write, in full or as an example.
fn advised_value(problem: &str) -> Option<Value> {
    let starts = ["write it like ", "write a list like ", "write "];
    let at = starts.iter().find_map(|start| problem.rfind(start).map(|at| at + start.len()))?;
    first(&problem[at..])
}

/// The JSON with which a text begins.
fn first<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

/// Puts a value where a problem's path says: `regions`, `regions[1]`, `tags.curfew`.
fn put(event: &mut Value, path: &str, value: Value) {
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    match event.pointer_mut(&pointer) {
        Some(place) => *place = value,
        None => event[path] = value,
    }
}

#[test]
fn whoever_does_as_a_refusal_says_is_not_refused_for_it_again() {
    let mut done = 0;
    for text in MALFORMED {
        let Event::Json(event) = Event::read(text.as_bytes()) else { continue };
        // Advice about an envelope or a missing action concerns more than one field.
        if event.get("action").is_none_or(|action| action == "snapshots") || event.get("detail").is_some() {
            continue;
        }
        for problem in read(&event).expect_err(text) {
            let (path, _) = problem.split_once(": ").unwrap();
            let mut better = event.clone();
            if let Some(fields) = advised(&problem) {
                better.as_object_mut().unwrap().remove(path);
                better.as_object_mut().unwrap().extend(fields);
            } else if let Some((_, name)) =
                problem.split_once(": unknown field, did you mean ").filter(|_| !path.contains('.'))
            {
                let field: String = first(name).unwrap();
                let written = serde_json::from_str(path).unwrap_or(path.to_owned());
                let value = better.as_object_mut().unwrap().remove(&written).expect(&problem);
                better[field] = value;
            } else if problem.contains("unknown field") {
                continue;
            } else if let Some((_, name)) = problem.split_once(" did you mean ") {
                put(&mut better, path, first(name).unwrap());
            } else if let Some(value) = advised_value(&problem) {
                put(&mut better, path, value);
            } else {
                continue;
            }
            let again = problems_of(&better);
            assert!(
                !again.iter().any(|again| again.starts_with(&format!("{path}: "))),
                "{problem}\n{better}\n{again:?}"
            );
            done += 1;
        }
    }
    assert!(done > 60, "{done}");
}

#[test]
fn the_maps_to_write_mean_what_was_written() {
    let rest = json!({"action": "stop", "tags": {"curfew": "yes"}, "filters": {"vpc-id": "vpc-0abc1234"}});
    let long: Vec<String> = (0..30).map(|n| format!("value-{n}-longer-than-it-has-to-be")).collect();
    let cases = [
        (json!({"except_tags": {"tag:Role": ["bastion", "db"]}}), json!({"except_tags": {"Role": ["bastion", "db"]}})),
        (
            json!({"except_tags": [{"TagKey": "Role", "TagValue": "db", "PropagateAtLaunch": false}]}),
            json!({"except_tags": {"Role": "db"}}),
        ),
        (
            json!({"except_tags": [{"Key": "Role", "Value": "db"}, {"Key": "Role", "Value": "bastion"}, {"Key": "Role", "Value": "db"}]}),
            json!({"except_tags": {"Role": ["db", "bastion"]}}),
        ),
        (json!({"except_tags": ["Role", "Team=oncall"]}), json!({"except_tags": {"Role": "*", "Team": "oncall"}})),
        (json!({"tags": {"Name": "tag:Env", "Values": ["dev"]}}), json!({"tags": {"Env": "dev"}})),
        (json!({"tags": {"name": "AutoStop", "value": 1}}), json!({"tags": {"AutoStop": "1"}})),
        (json!({"tags": "tag:Env=dev"}), json!({"tags": {"Env": "dev"}})),
        (
            json!({"filters": [{"Name": "tag:Env", "Values": ["dev"]}, {"Name": "subnet-id", "Values": ["a", "b"]}, {"Name": "instance-state-name", "Values": ["running"]}]}),
            json!({"tags": {"curfew": "yes", "Env": "dev"}, "filters": {"subnet-id": ["a", "b"]}}),
        ),
    ];
    for (theirs, ours) in cases {
        let refused = read(&with(rest.clone(), theirs.clone())).expect_err("another tool's shape");
        let fields = refused.iter().find_map(|problem| advised(problem)).unwrap_or_else(|| panic!("{refused:?}"));
        let (told, meant) = (with(rest.clone(), Value::Object(fields)), with(rest.clone(), ours));
        let (told, meant) = (read(&told).expect("as told"), read(&meant).expect("as meant"));
        assert_eq!((told.selection, told.except_tags), (meant.selection, meant.except_tags), "{theirs}");
    }
    // Refused however long it is.
    for theirs in
        [json!({"tag:Role": long}), json!({"Key": "Role", "Values": long}), json!({"Name": "tag:Role", "Values": long})]
    {
        for field in ["tags", "except_tags", "filters"] {
            let refused = read(&with(rest.clone(), json!({field: theirs}))).expect_err("another tool's shape");
            assert!(refused.iter().all(|problem| problem.starts_with(field) && problem.len() < 700), "{refused:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tags_in_any_tools_shape_are_refused_with_the_map_that_selects_the_same(
        tags in prop::collection::vec(("[AB][ab:/ -]{0,1}", ".{0,6}"), 1..5),
        shape in 0..4_usize,
        field in prop::sample::select(vec!["tags", "except_tags"]),
    ) {
        let parts = [("Key", "Value"), ("TagKey", "TagValue"), ("name", "values")].get(shape);
        let theirs = match parts {
            Some((name, value)) => {
                let start = if *name == "name" { "tag:" } else { "" };
                tags.iter().map(|(key, text)| json!({*name: format!("{start}{key}"), *value: text})).collect()
            }
            None => {
                let mut map = Map::new();
                for (key, text) in &tags {
                    let known = map.entry(format!("tag:{key}")).or_insert_with(|| json!([]));
                    known.as_array_mut().unwrap().push(json!(text));
                }
                Value::Object(map)
            }
        };
        let mut meant: BTreeMap<String, Vec<Pattern>> = BTreeMap::new();
        for (key, text) in tags {
            let known = meant.entry(key).or_default();
            if !known.contains(&Pattern(text.clone())) {
                known.push(Pattern(text));
            }
        }
        let event = json!({"action": "stop", "filters": {"vpc-id": "vpc-0abc1234"}, field: theirs});
        let refused = read(&event).expect_err("another tool's shape");
        prop_assert_eq!(refused.len(), 1, "{:?}", refused);
        let told = advised(&refused[0]).map(|fields| read(&with(event, Value::Object(fields))).expect("as told"));
        let told = told.map(|told| if field == "tags" { told.selection.tags } else { told.except_tags });
        prop_assert_eq!(told, Some(TagPatterns(meant)), "{:?}", refused);
    }
}

/// A byte order mark in UTF-8, and encodings other than UTF-8.
#[tokio::test]
async fn a_byte_order_mark_is_read_past_and_other_encodings_are_named() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let event = stop().to_string();
    let utf_16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        [mark, &event.encode_utf16().flat_map(bytes).collect::<Vec<_>>()].concat()
    };
    for bytes in [
        utf_16(b"\xFF\xFE", u16::to_le_bytes),
        utf_16(b"\xFE\xFF", u16::to_be_bytes),
        utf_16(b"", u16::to_le_bytes),
        utf_16(b"", u16::to_be_bytes),
    ] {
        let told = world.bytes(AMPLE, bytes).await;
        assert_eq!(
            told.message(),
            "1 problem, nothing was called: the event is not usable JSON: it is UTF-16 text; save it as UTF-8"
        );
        assert_eq!(world.sim.calls().len(), 0);
    }
    let told = world.bytes(AMPLE, b"{\"action\": \"stop\", \"tags\": {\"caf\xE9\": \"yes\"}}".to_vec()).await;
    assert!(told.message().contains("invalid unicode"), "{}", told.message());
    let told = world.bytes(AMPLE, [b"\xEF\xBB\xBF", event.as_bytes()].concat()).await;
    assert_eq!(told.names("changed"), names(["web"]));
}

#[tokio::test]
async fn a_tag_with_an_empty_value_can_be_meant() {
    let mut world = World::new().await;
    world.sim.add(Machine::named("empty").tag("AutoStop", ""));
    world.sim.add(Machine::named("spared").tag("AutoStop", "").tag("Keep", ""));
    world.sim.add(Machine::named("no").tag("AutoStop", "no"));
    let told = world.invoke(json!({"action": "stop", "tags": {"AutoStop": ""}, "except_tags": {"Keep": ""}})).await;
    assert_eq!((told.names("changed"), told.reason("spared").as_str()), (names(["empty"]), "exempt"));
    assert_eq!(world.sim.state("no"), "running");
}

#[tokio::test]
async fn hostile_events_are_refused_in_few_words_and_the_next_event_works() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let many_values: Vec<String> = (0..201).map(|n| format!("v{n}")).collect();
    let many_keys: serde_json::Map<String, Value> = (0..51).map(|n| (format!("k{n}"), json!("v"))).collect();
    let many_unknown: serde_json::Map<String, Value> = (0..5000).map(|n| (format!("unknown-{n}"), json!(1))).collect();
    let events: Vec<(Vec<u8>, &str)> = vec![
        (
            [b"{\"action\": \"stop\", \"tags\": ".to_vec(), b"[".repeat(10_000), b"]".repeat(10_000), b"}".to_vec()]
                .concat(),
            "nested too deeply",
        ),
        (b"{\"action\": \"stop\", \"tags\": {\"curfew\": \"\xff\xfe\"}}".to_vec(), "unicode"),
        (
            b"{\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}, \"max_changes\": 1e400}".to_vec(),
            "number out of range",
        ),
        (
            b"{\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}, \"max_changes\": 99999999999999999999999}"
                .to_vec(),
            "max_changes: expected a whole number",
        ),
        (
            json!({"action": "stop", "tags": {"curfew": "x".repeat(6_000_000)}}).to_string().into_bytes(),
            "longer than EC2's 255 characters",
        ),
        (
            json!({"action": "stop", "tags": {"x".repeat(129): "yes"}}).to_string().into_bytes(),
            "a key of 129 characters",
        ),
        (
            json!({"action": "stop", "tags": {"curfew": many_values}}).to_string().into_bytes(),
            "201 values in all, but EC2 takes 200",
        ),
        (
            json!({"Records": [{"eventSource": "z".repeat(3_000_000)}]}).to_string().into_bytes(),
            "Records: this is a batch of records",
        ),
        (
            json!({"detail-type": "x".repeat(3_000_000), "source": format!("aws.{}", "y".repeat(3_000_000)), "detail": {"a": 1}})
                .to_string()
                .into_bytes(),
            "whose detail is no request",
        ),
        (
            json!({"action": "stop", "tags": {"curfew": "yes"}, "except_tags": {"tag:Role": ["z".repeat(3_000_000)]}})
                .to_string()
                .into_bytes(),
            "except_tags: ",
        ),
        (
            json!({"action": "stop", "tags": {"tag:Role": (0..200_000).map(|n| n.to_string()).collect::<Vec<_>>()}})
                .to_string()
                .into_bytes(),
            "write \"tags\": {\"Role\":[\"0\",",
        ),
        (json!({"action": "stop", "tags": many_keys}).to_string().into_bytes(), "51 in all, but EC2 takes 50"),
        (Value::Object(many_unknown).to_string().into_bytes(), "5002 problems, nothing was called"),
        (
            json!({"action": "stop", "tags": {"curfew": "yes"}, "name": "a".repeat(65)}).to_string().into_bytes(),
            "name: ",
        ),
    ];
    for (event, expected) in events {
        let told = world.bytes(AMPLE, event).await;
        assert_eq!(told.verdict(), "InvalidRequest", "{told:?}");
        assert!(told.message().contains(expected), "{expected:?} in {}", told.message());
        assert!(told.message().len() < 5000, "{} characters", told.message().len());
        assert_eq!(world.sim.calls().len(), 0);
    }
    assert_eq!(world.invoke(stop()).await.verdict(), "complete");
}
