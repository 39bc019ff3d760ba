//! What other services send and other tools write: told apart by what it carries, so that the refusal can say what it is
//! and what to send instead.

use serde_json::{Map, Value};

/// How a request is sent at all.
const SEND: &str = "send the request itself, like {\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}}, as a schedule's Input or with aws lambda invoke";

/// Says what an object is that another service or tool has made, and what to send instead; nothing if it is none that is
/// known, or if it may be a request.
pub(super) fn object(fields: &Map<String, Value>) -> Option<String> {
    if fields.contains_key("action") {
        return None;
    }
    let has = |key: &str| fields.contains_key(key);
    let sentence = if has("requestPayload") {
        "requestPayload: this is the record of an earlier invocation, from the dead-letter queue or a destination; to repeat it, send \
         what stands in \"requestPayload\" itself, with \"scheduled_time\" left out to run it now"
            .to_owned()
    } else if let Some(Value::Array(records)) = fields.get("Records") {
        format!("Records: this is {}; {SEND}", records_of(records))
    } else if has("awslogs") {
        format!("awslogs: this is a CloudWatch Logs subscription's data; {SEND}")
    } else if has("alarmArn") || has("alarmData") {
        format!("alarmArn: this is a CloudWatch alarm's action; {SEND}")
    } else if has("requestContext") || (has("httpMethod") && has("body")) {
        format!("requestContext: this is an HTTP request, from a function URL, API Gateway or a load balancer; {SEND}")
    } else if has("Payload") {
        "Payload: a request wrapped as for Step Functions or an SDK's invoke; send the value of \"Payload\" itself"
            .to_owned()
    } else if has("ResponseURL") && has("RequestType") {
        format!("RequestType: this is a CloudFormation custom resource's request; {SEND}")
    } else if has("invokingEvent") {
        format!("invokingEvent: this is an AWS Config rule's event; {SEND}")
    } else if fields.get("key1").is_some_and(|value| value == "value1") {
        "key1: this is the console's hello-world event; replace it with a request like {\"action\": \"stop\", \"tags\": \
         {\"curfew\": \"yes\"}, \"dry_run\": true}"
            .to_owned()
    } else {
        return None;
    };
    Some(sentence)
}

fn records_of(records: &[Value]) -> String {
    let source = |record: &Value| record.get("eventSource").or(record.get("EventSource"))?.as_str().map(str::to_owned);
    match records.first().and_then(source).as_deref() {
        Some("aws:sns") => "a notification from an SNS topic".to_owned(),
        Some("aws:sqs") => "a batch of messages from an SQS queue".to_owned(),
        Some("aws:s3") => "a notification from an S3 bucket".to_owned(),
        Some(other) => format!("a batch of records from {}", other.trim_start_matches("aws:")),
        None => "a batch of records".to_owned(),
    }
}

/// Says what is in an envelope of an AWS service's own event, whose detail is no request.
pub(super) fn detail(envelope: &Map<String, Value>, detail: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| envelope.get(key).and_then(Value::as_str);
    let (source, kind) = (text("source")?, text("detail-type")?);
    let is_schedule = matches!(source, "aws.events" | "aws.scheduler");
    let is_foreign = source.starts_with("aws.") && !is_schedule && !detail.contains_key("action");
    is_foreign.then(|| {
        format!(
            "detail: this is the event {kind:?} of {source}, whose detail is no request; write the request as the rule target's \
             constant Input"
        )
    })
}

/// Says what bytes are that are no JSON, if it can be told.
pub(super) fn bytes(bytes: &[u8]) -> Option<&'static str> {
    const UTF_16: &str = "it is UTF-16 text; save it as UTF-8";
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Some(UTF_16);
    }
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    if zeros > 0 && zeros * 3 > bytes.len() {
        return Some(UTF_16);
    }
    text(std::str::from_utf8(bytes).ok()?)
}

/// The same of a text.
pub(super) fn text(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.starts_with("'{") {
        return Some(
            "it is in single quotes, which cmd.exe doesn't remove; save it to a file and send file://event.json",
        );
    }
    if text.starts_with("{'") {
        return Some("JSON needs double quotes around names and texts, not single ones");
    }
    // An opening brace and what may follow it.
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '\r' | '\n');
    if ["eyI", "eyA", "ewo", "ew0", "ewk", "eyJ"].iter().any(|start| text.starts_with(start))
        && text.chars().all(is_base64)
    {
        return Some(
            "it is base64; send the text itself (with AWS CLI version 2: --cli-binary-format raw-in-base64-out)",
        );
    }
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next()?;
    let key = line.split_once(':').map(|(key, rest)| (key, rest.is_empty() || rest.starts_with(' ')));
    let is_key =
        |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if line == "---" || key.is_some_and(|(key, colon)| colon && is_key(key)) {
        return Some("it is YAML; write JSON, like {\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}}");
    }
    None
}
