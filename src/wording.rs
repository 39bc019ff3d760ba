//! How messages quote what people wrote, and guess what they meant.
//!
//! Must not know what the messages are about.

use std::time::Duration;

use serde_json::Value;

/// Characters of a value that a message quotes.
const MAX_QUOTED: usize = 60;

/// Quotes a value in a message: as JSON, cut to a reasonable length, with invisible characters escaped.
#[must_use]
pub fn quote(value: &Value) -> String {
    clip(&seen(&clip(&value.to_string(), MAX_QUOTED)), MAX_QUOTED)
}

/// Escapes invisible characters, as JSON does.
fn seen(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if c != ' ' && is_hidden(c) => {
                text.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
            }
            c => text.push(c),
        }
    }
    text
}

/// Whether a character shows as a blank, doesn't show at all, or changes the direction of the text after it.
fn is_hidden(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Quotes a text in a message.
#[must_use]
pub fn quote_str(text: &str) -> String {
    quote(&Value::String(text.to_owned()))
}

/// Cuts a text for people to read.
#[must_use]
pub fn clip(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Writes a duration as people say it, in its two largest units: `1 hour 5 minutes`, `3 days 2 hours`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let units = if minutes < 24 * 60 {
        [(minutes / 60, "hour"), (minutes % 60, "minute")]
    } else {
        let (days, hours) = (minutes / (24 * 60), minutes / 60 % 24);
        // Of months, nobody counts the hours.
        [(days, "day"), (if days < 30 { hours } else { 0 }, "hour")]
    };
    let written = units.iter().filter(|(count, _)| *count > 0);
    let written: Vec<String> =
        written.map(|(count, unit)| format!("{count} {unit}{}", if *count == 1 { "" } else { "s" })).collect();
    if written.is_empty() { "0 minutes".to_owned() } else { written.join(" ") }
}

/// Writes a tag as a person would, its value in quotes where blanks could hide in it: `Environment=dev`, `AutoStop=""`.
#[must_use]
pub fn tag(key: &str, value: &str) -> String {
    let quoted = |text: &str| match text.is_empty() || text.contains(is_hidden) {
        true => seen(&Value::String(text.to_owned()).to_string()),
        false => text.to_owned(),
    };
    format!("{}={}", quoted(key), quoted(value))
}

/// Writes a name from the request into a path: escaped, cut to a reasonable length, and quoted where blanks could hide at an end.
#[must_use]
pub fn path_of(name: &str) -> String {
    let quoted = quote_str(name);
    if name.is_empty() || name.starts_with(is_hidden) || name.ends_with(is_hidden) {
        return quoted;
    }
    quoted[1..].trim_end_matches('"').to_owned()
}

/// Returns the known word that was probably meant: one that differs in case, punctuation or a plural, or by a slip.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words aren't a slip of a known one, and would be slow to compare.
    const LONGEST: usize = 40;
    if word.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let wanted = plain(word);
    if wanted.is_empty() {
        return None;
    }
    known
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (strsim::damerau_levenshtein(&wanted, &plain(name)), name))
        .filter(|(distance, name)| *distance * 3 <= name.chars().count().min(9))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let said = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(said(300), "5 minutes");
        assert_eq!(said(3600), "1 hour");
        assert_eq!(said(3660), "1 hour 1 minute");
        assert_eq!(said(2 * 86_400 + 3 * 3600), "2 days 3 hours");
        assert_eq!(said(86_400 + 3_600), "1 day 1 hour");
        assert_eq!(said(100 * 86_400 + 3_600), "100 days");
        assert_eq!(said(0), "0 minutes");
    }

    #[test]
    fn words_without_letters_are_not_near_to_any() {
        let near = |word| nearest(word, ["日本", "office"].into_iter());
        assert_eq!(near(""), None);
        assert_eq!(near(" - "), None);
        assert_eq!(near("東京"), None);
        assert_eq!(near("offcie"), Some("office"));
        assert_eq!(near("日本 "), Some("日本"));
    }

    #[test]
    fn values_are_quoted_where_blanks_could_hide() {
        assert_eq!(tag("Environment", "dev"), "Environment=dev");
        assert_eq!(tag("Environment", "dev "), "Environment=\"dev \"");
        assert_eq!(tag("AutoStop", ""), "AutoStop=\"\"");
        assert_eq!(tag("curfew", "yes\u{200b}"), r#"curfew="yes\u200b""#);
        assert_eq!(tag("\u{feff}curfew", "\u{202e}\u{e0001}sey"), r#""\ufeffcurfew"="\u202e\udb40\udc01sey""#);
        assert_eq!(tag("curfew", "büro"), "curfew=büro");
        assert_eq!(path_of("dry_run "), "\"dry_run \"");
        assert_eq!(path_of("dry_run\u{200b}"), "\"dry_run\\u200b\"");
        assert_eq!(path_of("dry run"), "dry run");
    }
}
