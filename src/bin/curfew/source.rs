//! Shows a refusal as a compiler would: each problem with its place in the event's text.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use ec2_curfew::request::{MAX_PROBLEMS, Refused};
use ec2_curfew::wording::path_of;
use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde::de::IgnoredAny;

/// The width, in columns, if no terminal says its own.
const WIDTH: usize = 100;

/// Returns everything that is wrong with an event, each problem with its line and a caret under what it is about.
pub(crate) fn show(name: &str, text: &str, refused: &Refused, width: Option<usize>) -> String {
    let places = Places::of(text);
    let renderer = Renderer::styled().term_width(width.unwrap_or(WIDTH));
    let mut shown = String::new();
    let place = |problem: &String| places.of_problem(problem).or_else(|| of_syntax(text, problem));
    let mut problems: Vec<_> = refused.problems().iter().map(|problem| (place(problem), problem)).collect();
    problems.sort_by_key(|(place, _)| place.as_ref().map(|span| span.start));
    for (place, problem) in problems.into_iter().take(MAX_PROBLEMS) {
        let title = Level::ERROR.primary_title(problem.as_str());
        let group = match place {
            Some(span) => {
                let caret = AnnotationKind::Primary.span(on_one_line(text, span));
                title.element(Snippet::source(text).path(name).annotation(caret))
            }
            None => title.element(Origin::path(name)),
        };
        shown.push_str(&renderer.render(&[group]));
        shown.push_str("\n\n");
    }
    let count = refused.problems().len();
    if count > MAX_PROBLEMS {
        shown.push_str(&format!("and {} more\n\n", count - MAX_PROBLEMS));
    }
    let problems = if count == 1 { "problem" } else { "problems" };
    shown.push_str(&format!("{name}: {count} {problems}; the function would refuse it, and call nothing\n"));
    shown
}

/// A value in the text, and its key if it has one; ranges are in bytes.
struct Place {
    key: Option<Range<usize>>,
    value: Range<usize>,
}

/// Every value of an event's text.
struct Places {
    /// By their paths in the notation of the problems, like `tags.Environment[0]`.
    places: HashMap<String, Place>,
    /// The first key that repeats another.
    again: Option<Range<usize>>,
    /// The request, without any envelope.
    request: Option<Range<usize>>,
}

impl Places {
    fn of(text: &str) -> Self {
        let mut found = Self { places: HashMap::new(), again: None, request: None };
        // The parser below is lenient, but the function accepts only strict JSON.
        let event = serde_json::from_str::<IgnoredAny>(text).ok().and_then(|_| parse(text));
        if let Some(event) = event {
            found.request = Some(span(&event, &|at| at));
            found.walk("", &event, &|at| at);
            found.open_detail(&event);
        }
        found
    }

    /// Adds the values of an envelope's `detail`, if there is one: the problems' paths begin there.
    fn open_detail(&mut self, event: &Value) {
        let Value::Object(envelope) = event else { return };
        match envelope.properties.iter().find(|property| property.name.as_str() == "detail").map(|it| &it.value) {
            Some(detail @ Value::Object(_)) => {
                self.request = Some(span(detail, &|at| at));
                self.walk("", detail, &|at| at);
            }
            Some(Value::StringLit(text)) => {
                // A byte of the inner text is looked up at its place in the outer one, where escapes take more room.
                let from = text.range.start + 1;
                let Some(inner) = parse(&text.value) else { return };
                let starts = starts(&text.value, from, text.range.end - text.range.start - 2);
                let outside = |at: usize| starts.get(at).copied().unwrap_or(text.range.end - 1);
                self.request = Some(span(&inner, &outside));
                self.walk("", &inner, &outside);
            }
            _ => {}
        }
    }

    fn walk(&mut self, path: &str, value: &Value, outside: &dyn Fn(usize) -> usize) {
        match value {
            Value::Object(object) => {
                let mut keys = HashSet::new();
                for property in &object.properties {
                    let name = path_of(property.name.as_str());
                    let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                    let key = property.name.range();
                    let key = outside(key.start)..outside(key.end);
                    if !keys.insert(property.name.as_str()) {
                        self.again.get_or_insert(key.clone());
                    }
                    self.add(&path, Some(key), span(&property.value, outside));
                    self.walk(&path, &property.value, outside);
                }
            }
            Value::Array(array) => {
                for (nth, element) in array.elements.iter().enumerate() {
                    let path = format!("{path}[{nth}]");
                    self.add(&path, None, span(element, outside));
                    self.walk(&path, element, outside);
                }
            }
            _ => {}
        }
    }

    /// Adds a place. The request's replace those of its envelope, which is read first.
    fn add(&mut self, path: &str, key: Option<Range<usize>>, value: Range<usize>) {
        self.places.insert(path.to_owned(), Place { key, value });
    }

    /// Finds what a problem is about. A missing field is shown at the beginning of the request.
    fn of_problem(&self, problem: &str) -> Option<Range<usize>> {
        if problem.contains(" is written twice at ") {
            return self.again.clone();
        }
        // A key may look like a path, so several may fit: the longest is the one that was meant.
        let mut paths = problem.rmatch_indices(": ").map(|(end, _)| &problem[..end]);
        let Some((path, place)) = paths.find_map(|path| self.places.get_key_value(path)) else {
            return self.request.clone().map(|whole| whole.start..whole.start + 1);
        };
        let said = &problem[path.len() + 2..];
        let about_key = ["unknown field", "only valid with", "can't be combined"].iter().any(|it| said.starts_with(it));
        Some(place.key.clone().filter(|_| about_key).unwrap_or_else(|| place.value.clone()))
    }
}

fn parse(text: &str) -> Option<Value<'_>> {
    parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default()).ok()?.value
}

fn span(value: &Value, outside: &dyn Fn(usize) -> usize) -> Range<usize> {
    let range = value.range();
    outside(range.start)..outside(range.end)
}

/// Returns where each byte of a JSON string's value is written: `from` is its first byte in the text, and `written` the
/// length there. Empty if the string contains escapes that this doesn't know.
fn starts(value: &str, from: usize, written: usize) -> Vec<usize> {
    let mut at = from;
    let mut starts = Vec::with_capacity(value.len());
    for c in value.chars() {
        starts.extend(std::iter::repeat_n(at, c.len_utf8()));
        at += match c {
            '"' | '\\' | '\n' | '\t' | '\r' | '\u{8}' | '\u{c}' => 2,
            c => c.len_utf8(),
        };
    }
    // Other escapes, such as \u0022 or \/, don't add up: then the string as a whole has to do.
    if at == from + written { starts } else { Vec::new() }
}

/// Finds where parsing stopped, in a text that is not JSON.
fn of_syntax(text: &str, problem: &str) -> Option<Range<usize>> {
    let at = match problem.rsplit_once(" at line ").and_then(|(_, place)| place.split_once(" column ")) {
        Some((line, column)) => {
            let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
            let (line, column): (usize, usize) = (line.parse().ok()?, column[..digits].parse().ok()?);
            let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
            before + column.saturating_sub(1)
        }
        // The event ended before the text did.
        None => {
            let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
            values.next()?.ok()?;
            let over = values.byte_offset();
            over + text[over..].find(|c: char| !c.is_whitespace())?
        }
    };
    let at = text.floor_char_boundary(at.min(text.len()));
    let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
    Some(at..end)
}

/// Cuts a span to the line on which it begins.
fn on_one_line(text: &str, span: Range<usize>) -> Range<usize> {
    match text.get(span.clone()).and_then(|inside| inside.find('\n')) {
        Some(_) => span.start..span.start + 1,
        None => span,
    }
}
