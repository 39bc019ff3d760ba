//! YAML, as Cloud Custodian's reader (PyYAML, so YAML 1.1) understands it: `no` is false, and `<<` merges.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Value};

/// Values in a file, with those that an alias repeats: more is no policy, but an attack or an accident.
const MAX_VALUES: usize = 100_000;

/// Reads the first document.
///
/// # Errors
/// It is no YAML; with line and column.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), left: MAX_VALUES };
    while let Some(event) = reader.parser.next() {
        match event.map_err(said)?.0 {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd | Event::DocumentEnd => break,
            begun => return reader.value(begun),
        }
    }
    Ok(Value::Null)
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    left: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, begun: Event<'a>) -> Result<Value, String> {
        let (value, anchor) = match begun {
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().ok_or("an alias of what is not there yet")?;
                self.spend(count(&value))?;
                return Ok(value);
            }
            Event::Scalar(text, style, anchor, tag) => {
                // A tag says what it is, and none of ours is anything but text.
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (if plain { plain_scalar(&text) } else { Value::String(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                while let Some(item) = self.next_unless(&Event::SequenceEnd)? {
                    items.push(self.value(item)?);
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(anchor, _) => {
                let (mut own, mut merged) = (Map::new(), Map::new());
                while let Some(key) = self.next_unless(&Event::MappingEnd)? {
                    let key = match key {
                        Event::Scalar(text, ..) => text.into_owned(),
                        other => self.value(other)?.to_string(),
                    };
                    let begun = self.next_unless(&Event::MappingEnd)?.ok_or("a key without a value")?;
                    let value = self.value(begun)?;
                    let others = match (key.as_str(), value) {
                        ("<<", one @ Value::Object(_)) => vec![one],
                        ("<<", Value::Array(several)) => several,
                        (_, value) => {
                            own.insert(key, value);
                            continue;
                        }
                    };
                    for (key, value) in others.into_iter().filter_map(object).flatten() {
                        merged.entry(key).or_insert(value);
                    }
                }
                merged.extend(own);
                (Value::Object(merged), anchor)
            }
            other => return Err(format!("can't be read at {other:?}")),
        };
        self.spend(1)?;
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn next_unless(&mut self, end: &Event<'a>) -> Result<Option<Event<'a>>, String> {
        let (event, _) = self.parser.next().ok_or("it ends too soon")?.map_err(said)?;
        Ok(Some(event).filter(|event| event != end))
    }

    fn spend(&mut self, values: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(values).ok_or_else(|| format!("more than {MAX_VALUES} values"))?;
        Ok(())
    }
}

fn said(error: ScanError) -> String {
    format!("line {}, column {}: {}", error.marker().line(), error.marker().col() + 1, error.info())
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Reads a text without quotes (YAML 1.1, "bool", "null", "int"); a date stays text.
fn plain_scalar(text: &str) -> Value {
    match text.to_lowercase().as_str() {
        "" | "~" | "null" => Value::Null,
        "true" | "yes" | "on" => true.into(),
        "false" | "no" | "off" => false.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}
