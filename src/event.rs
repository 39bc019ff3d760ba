//! What arrived, in its wrappings → the request's JSON, and the moment that its envelope names.
//!
//! Knows the shapes in which AWS delivers an event; must not know what a request means.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::request::{Refused, meant};
use crate::wording::{path_of, quote, quote_str};

mod foreign;

/// The bytes of an invocation, read as JSON as far as they could be.
///
/// Reading it never fails: what is not JSON must end in a refusal of ours, with our error type, and not in
/// the runtime's.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Well-formed JSON without a key written twice.
    Json(Value),
    /// Anything else, with what is wrong about it.
    Malformed(String),
}

impl Event {
    /// Reads an event as it arrived, to its last byte.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        json(bytes).map_or_else(Self::Malformed, Self::Json)
    }

    /// Writes bytes as a JSON text, a character for each of them, which is what [`Event`] is deserialized from.
    ///
    /// The runtime reads one JSON value of an invocation, and doesn't look at what follows it.
    #[must_use]
    pub fn wrapped_whole(bytes: &[u8]) -> Vec<u8> {
        let text: String = bytes.iter().copied().map(char::from).collect();
        Value::String(text).to_string().into_bytes()
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
        bytes.map(|bytes| Self::read(&bytes)).ok_or_else(|| de::Error::custom("not an event's bytes"))
    }
}

/// A request's fields, out of their wrapping.
#[derive(Debug)]
pub struct Unwrapped {
    /// The request as it was written.
    pub request: Map<String, Value>,
    /// The envelope's `time`, for a request that names none itself.
    pub time: Option<Value>,
}

/// The fields of an EventBridge event (user guide, "Events"); a replay adds its name.
const ENVELOPE: [&str; 10] =
    ["version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail", "replay-name"];

/// Takes the request out of whatever it came in.
///
/// # Errors
/// What arrived is not JSON, not an object, or an envelope with anything but a request in its `detail`, or beside it.
pub fn unwrap(event: Event) -> Result<Unwrapped, Refused> {
    let value = match event {
        Event::Malformed(why) => return Err(Refused::one(format!("the event is not usable JSON: {why}"))),
        Event::Json(value) => value,
    };
    let fields = object("the event", value)?;
    // Only an envelope has these; a request with a stray "detail" lands here too, and is refused below.
    if !fields.contains_key("detail-type") && !fields.contains_key("detail") {
        return Ok(Unwrapped { request: fields, time: None });
    }
    from_envelope(fields)
}

fn from_envelope(mut envelope: Map<String, Value>) -> Result<Unwrapped, Refused> {
    let beside = envelope.keys().filter(|field| !ENVELOPE.contains(&field.as_str())).map(|field| {
        let unknown = format!("{}: unknown field beside an envelope's \"detail\"", path_of(field));
        match meant(field) {
            Some(known) if known == field => format!(
                "{field}: can't be combined with an envelope's \"detail\"; write the whole request inside \"detail\", or send it bare"
            ),
            Some(known) => format!("{unknown}, did you mean \"{known}\"? write it inside \"detail\""),
            None => format!("{unknown}; write what belongs to the request inside \"detail\", or remove it"),
        }
    });
    let beside: Vec<String> = beside.collect();
    if !beside.is_empty() {
        return Err(Refused::all(beside));
    }
    let request = match envelope.remove("detail") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::String(text)) if text.trim().is_empty() => Map::new(),
        Some(Value::String(text)) => {
            let value = json(text.as_bytes());
            object("detail", value.map_err(|why| Refused::one(format!("detail: its text is not usable JSON: {why}")))?)?
        }
        Some(value) => object("detail", value)?,
    };
    if let Some(what) = foreign::detail(&envelope, &request) {
        return Err(Refused::one(what));
    }
    if request.is_empty() {
        return Err(Refused::one(
            "detail: empty; a schedule without an input says nothing: write the request, like \
             {\"action\": \"stop\", \"tags\": {\"curfew\": \"yes\"}}, into the rule target's or the schedule's Input"
                .to_owned(),
        ));
    }
    Ok(Unwrapped { request, time: envelope.remove("time") })
}

/// Takes an object that may be a request, or an envelope, out of what was read at a place.
fn object(place: &str, value: Value) -> Result<Map<String, Value>, Refused> {
    let what = match value {
        Value::Object(fields) => match foreign::object(&fields) {
            None => return Ok(fields),
            Some(what) => what,
        },
        other => match foreign::value(&other) {
            Some(what) => format!("{place}: {what}"),
            None => format!(
                "{place}: expected an object like {{\"action\": \"stop\", \"tags\": {{\"curfew\": \"yes\"}}}}, found {}",
                quote(&other)
            ),
        },
    };
    Err(Refused::one(what))
}

/// Reads JSON to its last byte, or says what is wrong with it.
fn json(bytes: &[u8]) -> Result<Value, String> {
    // Windows writes one in front of UTF-8; it carries no information.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Strict>();
    let why = match values.next() {
        Some(Ok(Strict(value))) => match bytes[values.byte_offset()..].trim_ascii() {
            [] => return Ok(value),
            [b':', ..] => "write braces { } around the names and values".to_owned(),
            rest => {
                let rest = quote_str(&String::from_utf8_lossy(rest));
                return Err(format!("it is over before {rest}; is there a brace too many, or a second event?"));
            }
        },
        Some(Err(error)) => foreign::syntax(bytes, &error),
        None => "it is empty".to_owned(),
    };
    Err(foreign::bytes(bytes).map_or(why, str::to_owned))
}

/// A JSON value in which no object names a key twice.
///
/// serde_json keeps the last of two silently; of two `tags` that would be half of what was meant.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(Value::Number(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(Value::String(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Strict(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
            if fields.contains_key(&key) {
                return Err(de::Error::custom(format!("{} is written twice", quote(&Value::String(key)))));
            }
            fields.insert(key, value);
        }
        Ok(Strict(Value::Object(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Unwrapped, Refused> {
        // As the runtime hands it over.
        let wrapped = Event::wrapped_whole(text.as_bytes());
        unwrap(serde_json::from_slice(&wrapped).expect("reading never fails"))
    }

    #[test]
    fn every_wrapping_holds_the_same_request() {
        let request = json!({"action": "stop", "tags": {"curfew": "yes"}});
        let wrappings = [
            request.clone(),
            json!({"detail-type": "Scheduled Event", "source": "aws.events", "time": "2026-11-20T19:00:00Z", "detail": request}),
            json!({"detail-type": "Scheduled Event", "source": "aws.scheduler", "time": "2026-11-20T19:00:00Z", "detail": request.to_string()}),
            json!({"detail-type": "curfew", "source": "my.app", "detail": request}),
        ];
        for wrapping in wrappings {
            let unwrapped = unwrap(Event::Json(wrapping.clone())).expect("a request");
            assert_eq!(Value::Object(unwrapped.request), request, "{wrapping}");
            assert_eq!(unwrapped.time.is_some(), wrapping.get("time").is_some());
        }
    }

    #[test]
    fn a_key_written_twice_is_refused_at_any_depth() {
        for text in
            [r#"{"action":"stop","action":"start"}"#, r#"{"tags":{"a":"1","a":"2"}}"#, r#"{"x":[{"a":1,"a":1}]}"#]
        {
            let refused = read(text).expect_err(text);
            assert!(refused.to_string().contains("is written twice"), "{refused}");
        }
    }

    #[test]
    fn nesting_beyond_reason_is_refused_and_does_not_overflow() {
        let refused = read(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))).expect_err("too deep");
        assert!(refused.to_string().contains("nested too deeply"), "{refused}");
    }
}
