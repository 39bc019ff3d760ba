//! The shapes in which other tools write tags and filters: they are always refused, with the maps to write instead.
//!
//! Taken for a tag, such a shape would select nothing, or spare nothing. The advice is parsed like a request before it is given:
//! nobody is told to write what would be refused next.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Reader, STATE_FILTERS};
use crate::select::MAX_FILTER_VALUES;
use crate::wording::{clip, quote, quote_str};

/// Characters of the maps to write that a refusal shows.
const MAX_SHOWN: usize = 400;
/// Parts that describe-tags and Auto Scaling add to a tag without changing its meaning.
const BESIDE: [&str; 3] = ["resourceid", "resourcetype", "propagateatlaunch"];

/// Tags and filters, as Curfew has them.
#[derive(Default)]
struct Maps {
    tags: BTreeMap<String, Vec<Value>>,
    filters: BTreeMap<String, Vec<Value>>,
    /// A state was among the filters, which Curfew sets itself.
    state: bool,
}

/// There are no maps to advise, and why not, if that can be said.
struct Unclear(Option<String>);

/// Returns what is wrong with a field's value that isn't a map of names to values, and what to write; None for such a map.
///
/// `other` is what the request says of filters where the field is the tags, and of tags where it is the filters.
pub(super) fn refusal(field: &str, value: &Value, other: Option<&Value>) -> Option<String> {
    let read = match value {
        Value::Object(map) if map.is_empty() => return None,
        Value::Object(map) => of_object(field, map)?,
        Value::Array(items) if !items.is_empty() => of_list(field, items),
        Value::String(text) => of_texts(field, &[text]),
        _ => Err(Unclear(None)),
    };
    let fix = match read.and_then(|maps| written(field, maps, other)) {
        Ok(maps) => format!("write {maps}"),
        Err(Unclear(Some(why))) => why,
        Err(Unclear(None)) => format!("write it like \"{field}\": {}", like(field)),
    };
    Some(format!("{field}: expected a map of names to values, found {}; {fix}", quote(value)))
}

/// Returns an example of a field's value.
fn like(field: &str) -> &'static str {
    match field {
        "filters" => "{\"vpc-id\": \"vpc-0abc1234\"}",
        "except_tags" => "{\"Role\": \"bastion\"}",
        _ => "{\"curfew\": \"yes\"}",
    }
}

/// Reads an object in another tool's shape; None for a map of names to values.
fn of_object(field: &str, map: &Map<String, Value>) -> Option<Result<Maps, Unclear>> {
    let mut maps = Maps::default();
    if is_named(field, map) {
        return Some(add_named(field, map, &mut maps).map(|()| maps));
    }
    // Filters are checked one by one.
    if field == "filters" || !map.keys().any(|key| without_tag(key).is_some()) {
        return None;
    }
    for (key, values) in map {
        add(&mut maps.tags, without_tag(key).unwrap_or(key), values);
    }
    Some(Ok(maps))
}

fn of_list(field: &str, items: &[Value]) -> Result<Maps, Unclear> {
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    if let Some(texts) = texts {
        return of_texts(field, &texts);
    }
    let mut maps = Maps::default();
    for item in items {
        add_named(field, item.as_object().ok_or(Unclear(None))?, &mut maps)?;
    }
    Ok(maps)
}

/// Reads tags written `key=value`. A key alone stands for any value in `except_tags`, where the wider reading is the safe one.
fn of_texts(field: &str, texts: &[&str]) -> Result<Maps, Unclear> {
    let mut maps = Maps::default();
    for text in texts {
        let (key, value) = match text.split_once('=') {
            Some(tag) => tag,
            None if field == "except_tags" => (*text, "*"),
            None => return Err(Unclear(None)),
        };
        let is_tag = field != "filters" || without_tag(key).is_some();
        if !is_tag || [key, value].iter().any(|part| part.is_empty() || part.contains([',', ';', '=', ' '])) {
            return Err(Unclear(None));
        }
        add(&mut maps.tags, without_tag(key).unwrap_or(key), &json!(value));
    }
    Ok(maps)
}

/// Returns the plain name of a part: `TagKey`, `tag-key` and `tag_key` are the same.
fn plain(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// Returns the key in a name that begins with `tag:`, in upper or lower case and however often.
pub(super) fn without_tag(name: &str) -> Option<&str> {
    let (start, key) = name.split_at_checked(4)?;
    start.eq_ignore_ascii_case("tag:").then(|| without_tag(key).unwrap_or(key))
}

const NAMES: [&str; 4] = ["name", "key", "tagkey", "tagname"];
const VALUES: [&str; 3] = ["value", "values", "tagvalue"];

/// Whether an object is a single tag or filter, with a part for its name and one for its values. No EC2 filter has such a name.
fn is_named(field: &str, map: &Map<String, Value>) -> bool {
    let has = |parts: &[&str]| map.keys().any(|key| parts.contains(&plain(key).as_str()));
    let is_filter = |key: &str| field == "filters" && ["name", "key", "values", "value"].contains(&plain(key).as_str());
    // These are two filters, which are checked one by one.
    let two = field == "filters" && map.keys().any(|key| key == "tag-key" || key == "tag-value");
    (has(&NAMES) && has(&VALUES) && !two) || map.keys().any(|key| is_filter(key))
}

/// Reads `{"Name": …, "Values": …}`, which is a filter's, and `{"Key": …, "Value": …}`, which is a tag's.
fn add_named(field: &str, map: &Map<String, Value>, maps: &mut Maps) -> Result<(), Unclear> {
    let parts: BTreeMap<String, &Value> = map.iter().map(|(key, value)| (plain(key), value)).collect();
    let part = |wanted: &[&str]| {
        let mut found = parts.iter().filter(|(part, _)| wanted.contains(&part.as_str()));
        found.next().filter(|_| found.next().is_none())
    };
    let is_known = |part: &String| [&NAMES[..], &VALUES, &BESIDE].iter().any(|known| known.contains(&part.as_str()));
    let (Some((part_of_name, name)), Some((_, values))) = (part(&NAMES), part(&VALUES)) else {
        return Err(Unclear(None));
    };
    // An unknown part may change the meaning, such as an operator that negates.
    let Some(name) = name.as_str().filter(|_| parts.len() == map.len() && parts.keys().all(is_known)) else {
        return Err(Unclear(None));
    };
    let is_filters = part_of_name == "name";
    if let Some(key) = without_tag(name) {
        add(&mut maps.tags, key, values);
    } else if STATE_FILTERS.contains(&name) {
        maps.state = true;
    } else if is_filters && field == "filters" {
        add(&mut maps.filters, name, values);
    } else if (!is_filters && field != "filters") || !is_filter_name(name) {
        add(&mut maps.tags, name, values);
    } else {
        let elsewhere = if field == "tags" { ", and a filter under \"filters\"" } else { "" };
        return Err(Unclear(Some(format!(
            "{} may be a filter or a tag; write a tag under \"{}\", like {}{elsewhere}",
            quote_str(name),
            tags_field(field),
            like(tags_field(field))
        ))));
    }
    Ok(())
}

fn tags_field(field: &str) -> &str {
    if field == "except_tags" { field } else { "tags" }
}

/// Whether a name could be one of EC2's filters with more than one word.
fn is_filter_name(name: &str) -> bool {
    super::is_filter(name) && name.contains(['-', '.'])
}

/// Adds values to those that a name already has; any of them may match.
fn add(map: &mut BTreeMap<String, Vec<Value>>, name: &str, values: &Value) {
    let known = map.entry(name.to_owned()).or_default();
    for value in values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice) {
        let value = match value {
            Value::Bool(_) | Value::Number(_) => json!(value.to_string()),
            other => other.clone(),
        };
        // More than EC2 takes are more than a refusal shows.
        if known.len() <= MAX_FILTER_VALUES && !known.contains(&value) {
            known.push(value);
        }
    }
}

/// Writes the maps, together with what the request already says in the other field, if they make a valid request.
fn written(field: &str, maps: Maps, other: Option<&Value>) -> Result<String, Unclear> {
    let one = |(name, mut values): (String, Vec<Value>)| {
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        (name, value)
    };
    let map = |written: BTreeMap<String, Vec<Value>>| written.into_iter().map(one).collect::<Map<_, _>>();
    let (mut tags, mut filters) = (map(maps.tags), map(maps.filters));
    if maps.state && tags.is_empty() && filters.is_empty() {
        return Err(Unclear(Some("Curfew sets the state itself; leave it out".to_owned())));
    }
    let others = if field == "filters" { &mut tags } else { &mut filters };
    if let Some(other) = other.filter(|_| !others.is_empty()) {
        let Some(other) = other.as_object().filter(|other| other.keys().all(|key| !others.contains_key(key))) else {
            let why = "write tags under \"tags\" and filters under \"filters\", each name once";
            return Err(Unclear(Some(why.to_owned())));
        };
        others.extend(other.clone());
    }
    let fields = [(tags_field(field), tags), ("filters", filters)];
    let mut reader = Reader { fields: Map::new(), problems: Vec::new() };
    let mut text = Vec::new();
    for (field, map) in fields.into_iter().filter(|(_, map)| !map.is_empty()) {
        let map = Value::Object(map);
        text.push(format!("\"{field}\": {map}"));
        reader.fields.insert(field.to_owned(), map);
        reader.patterns(field, if field == "filters" { Reader::filter_name } else { Reader::tag_key }, None);
    }
    match reader.problems.into_iter().next() {
        None => Ok(clip(&text.join(", "), MAX_SHOWN)),
        Some(problem) => Err(Unclear(Some(format!("as a map, it has a problem: {problem}")))),
    }
}
