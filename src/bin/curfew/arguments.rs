//! Arguments that clap doesn't know by itself, and what is wrong with them in words.

use chrono::NaiveDate;
use chrono_tz::Tz;
use ec2_curfew::wording::nearest;

/// Reads a date like 2026-11-23.
pub(crate) fn date(text: &str) -> Result<NaiveDate, String> {
    // Exactly this shape: chrono alone would read "26-11-23" as a day of the year 26.
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape != "0000-00-00" {
        return Err("write it like 2026-11-23".to_owned());
    }
    text.parse().map_err(|_| "there is no such day".to_owned())
}

/// Reads a time zone by its IANA name.
pub(crate) fn zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| {
        let near = nearest(text, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        let hint =
            near.map_or_else(|| "write one like Europe/Berlin".to_owned(), |name| format!("did you mean {name}?"));
        format!("it is not an IANA time zone; {hint}")
    })
}
