//! What other services send and other tools write: told apart by what it carries, so that the refusal can say what it is
//! and what to send instead.

use serde_json::{Map, Value};

use crate::wording::quote_str;

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
    } else if has("requestContext")
        || (has("body") && ["httpMethod", "headers", "isBase64Encoded"].iter().any(|key| has(key)))
    {
        format!("requestContext: this is an HTTP request, from a function URL, API Gateway or a load balancer; {SEND}")
    } else if has("Entries") {
        "Entries: this is what put-events takes, not what it sends; send the value of \"Detail\" itself".to_owned()
    } else if has("Messages") {
        "Messages: this is what aws sqs receive-message prints; send what stands in \"Body\" itself".to_owned()
    } else if let Some((key, _)) = fields.iter().find(|(key, value)| is_wrapper(key, value)) {
        format!(
            "{key}: the request is wrapped in it, as Step Functions, SNS and SDKs do; send the value of \"{key}\" itself"
        )
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
        Some(other) => format!("a batch of records from {}", quote_str(other.trim_start_matches("aws:"))),
        None => "a batch of records".to_owned(),
    }
}

/// Whether a field wraps a request: it has a wrapper's name, and holds an object or a text that is one.
fn is_wrapper(key: &str, value: &Value) -> bool {
    let names = ["body", "detail", "event", "input", "message", "payload", "request"];
    key != "detail"
        && names.iter().any(|name| key.eq_ignore_ascii_case(name))
        && (value.is_object() || value.as_str().is_some_and(|text| is_encoded(text) || is_base64(text)))
}

/// Returns what a value is that isn't an object, if it can be told.
pub(super) fn value(value: &Value) -> Option<&'static str> {
    match value {
        Value::String(text) if is_encoded(text) => {
            Some("a text that holds an object, it was encoded twice; send the object itself")
        }
        Value::String(it) => text(it),
        Value::Array(items)
            if items.first().is_some_and(|it| it.is_object() || it.as_str().is_some_and(is_encoded)) =>
        {
            Some("a list, as EventBridge Pipes sends it; send one object, without a list around it")
        }
        _ => None,
    }
}

/// Whether a text holds an object, encoded once or several times.
fn is_encoded(text: &str) -> bool {
    text.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '\u{feff}')).starts_with('{')
}

/// Says what is in an envelope of an AWS service's own event, whose detail is no request.
pub(super) fn detail(envelope: &Map<String, Value>, detail: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| envelope.get(key).and_then(Value::as_str);
    let (source, kind) = (text("source")?, text("detail-type")?);
    let is_schedule = matches!(source, "aws.events" | "aws.scheduler");
    let is_foreign = source.starts_with("aws.") && !is_schedule && !detail.contains_key("action");
    is_foreign.then(|| {
        format!(
            "detail: this is the event {} of {}, whose detail is no request; write the request as the rule target's constant Input",
            quote_str(kind),
            quote_str(source)
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
    let bare = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | '\'' | '"'));
    if bare.starts_with("file://") || bare.starts_with("fileb://") {
        return Some(
            "the file's name arrived, not its content; send it with --payload file://event.json, without anything around it",
        );
    }
    if text.starts_with('\'') {
        return Some(
            "it is in single quotes, which cmd.exe doesn't remove; save it to a file and send file://event.json",
        );
    }
    if is_base64(text) {
        return Some(
            "it is base64; send the text itself (with AWS CLI version 2: --cli-binary-format raw-in-base64-out)",
        );
    }
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next()?;
    let key = line.split_once(':').map(|(key, rest)| (key.trim_end(), rest.is_empty() || rest.starts_with(' ')));
    let is_key =
        |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let is_yaml = ["---", "- ", "%YAML"].iter().any(|start| line.starts_with(start));
    if is_yaml || key.is_some_and(|(key, colon)| colon && is_key(key)) {
        return Some("it is YAML; write JSON, like {\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}}");
    }
    None
}

/// Whether a text is base64 of JSON, in whatever encoding that is.
fn is_base64(text: &str) -> bool {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let is_one = |c: u8| digit(c).is_some() || matches!(c, b'=' | b'\r' | b'\n');
    let head: Vec<u8> = text.bytes().filter_map(digit).take(24).collect();
    let bits = |four: &[u8]| four.iter().fold(0_u32, |bits, digit| (bits << 6) | u32::from(*digit)).to_be_bytes();
    let bytes = head.chunks_exact(4).flat_map(|four| bits(four).into_iter().skip(1));
    // Behind blanks, a byte order mark, and UTF-16's zeros.
    let first = bytes.into_iter().find(|byte| !b"\xEF\xBB\xBF\xFF\xFE\0 \t\r\n".contains(byte));
    text.len() >= 8 && matches!(first, Some(b'{' | b'[' | b'"')) && text.bytes().all(is_one)
}

/// What may stand where parsing failed, what to do about it there, and what else to say.
const WRONG: [(&[&str], &str, &str); 5] = [
    (&["'"], "write double quotes instead of single ones", ""),
    (&["“", "”", "„", "‘", "’"], "write straight quotes instead of typographic ones", ""),
    (
        &["\\\""],
        "remove the backslash before the quote",
        "; if a shell left it there, send a file with file://event.json",
    ),
    (&["//", "/*", "#"], "JSON has no comments; remove the one", ""),
    (&["True", "False", "None"], "write true, false or null in lower case", ""),
];

/// Returns why and where parsing failed.
pub(super) fn syntax(bytes: &[u8], error: &serde_json::Error) -> String {
    let said = error.to_string();
    let (line, column) = (error.line(), error.column());
    let start: usize = bytes.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let at = (start + column.saturating_sub(1)).min(bytes.len());
    // Where a word begins that was read in part.
    let word = bytes[..at].iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let rest = &bytes[at - word..];
    let starts = |start: &str| rest.starts_with(start.as_bytes());
    let is_outside_texts = said.starts_with("expected") || said.starts_with("key must");
    let wrong = WRONG.iter().find(|(starts_with, ..)| starts_with.iter().any(|it| starts(it)));
    let (what, more) = if error.is_eof() {
        ("it ends too early", "; a brace or quote is missing")
    } else if said.starts_with("recursion limit") {
        ("it is nested too deeply", "")
    } else if let Some((_, what, more)) = wrong.filter(|_| is_outside_texts) {
        (*what, *more)
    } else if is_outside_texts && !bytes.contains(&b'{') {
        return "expected an object like {\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}}".to_owned();
    } else if is_outside_texts && !said.contains("`,`") && rest.first().is_some_and(u8::is_ascii_alphabetic) {
        (
            "write double quotes around names and texts, the first",
            "; if a shell removed them, send a file with file://event.json",
        )
    } else {
        return said;
    };
    format!("{what} at line {line} column {column}{more}")
}
