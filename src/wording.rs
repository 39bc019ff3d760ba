//! How messages quote what people wrote, and guess what they meant.
//!
//! Must not know what the messages are about.

use serde_json::Value;

/// Characters of a value that a message quotes.
const MAX_QUOTED: usize = 60;

/// Quotes a value in a message: as JSON, and not at any length.
#[must_use]
pub fn quote(value: &Value) -> String {
    clip(&value.to_string(), MAX_QUOTED)
}

/// Quotes a text in a message.
#[must_use]
pub fn quote_str(text: &str) -> String {
    quote(&Value::String(text.to_owned()))
}

/// Cuts a text that people are to read.
#[must_use]
pub fn clip(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Writes a name of the request into a path: escaped, and not at any length.
#[must_use]
pub fn path_of(name: &str) -> String {
    if name.is_empty() {
        return "\"\"".to_owned();
    }
    let quoted = quote_str(name);
    quoted[1..].trim_end_matches('"').to_owned()
}

/// Finds the known word that was probably meant: letters alike but for case and punctuation, a plural, or a slip.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no slip of a known one, and comparing them costs their length.
    const LONGEST: usize = 40;
    if word.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let wanted = plain(word);
    known
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (strsim::damerau_levenshtein(&wanted, &plain(name)), name))
        .filter(|(distance, name)| *distance * 3 <= name.len().min(9))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
