mod custodian;
mod document;
mod js;
mod reference;
mod soup;
mod spellings;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::read::Schedules;
use super::{BadHours, Fault, Holidays, Hours};

fn at(moment: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(moment).expect("a moment").to_utc()
}

fn zone(name: &str) -> Tz {
    name.parse().expect("a zone")
}

fn of(country: &str) -> Holidays {
    Holidays::of(country).expect("a country")
}

fn hours(text: &str, zone_name: &str) -> Hours {
    Hours::parse(text, zone(zone_name), &of("DE")).unwrap_or_else(|error| panic!("{error}"))
}

/// Lists the next edges in the schedule's own time: `+` opens, `-` closes.
fn edges(hours: &Hours, from: &str, count: usize) -> Vec<String> {
    let mut moment = at(from);
    let next = |moment: &mut DateTime<Utc>| {
        let edge = hours.next_edge(*moment)?;
        *moment = edge.at;
        // What one search finds, the other must confirm.
        let state = hours.state_at(edge.at);
        assert_eq!((state.open, state.edge), (edge.opens, Some(edge.at)));
        let local = edge.at.with_timezone(&hours.zone).format("%a %F %R%:z").to_string();
        let local = local.strip_suffix(":00").unwrap_or(&local);
        Some(format!("{}{local}", if edge.opens { '+' } else { '-' }))
    };
    std::iter::from_fn(|| next(&mut moment)).take(count).collect()
}

#[track_caller]
fn opens(text: &str, zone: &str, from: &str, expected: &[&str]) {
    assert_eq!(edges(&hours(text, zone), from, expected.len()), expected, "{text} in {zone}");
}

fn bad(text: &str) -> BadHours {
    Hours::parse(text, Tz::UTC, &of("DE")).expect_err(text).advised(Tz::UTC, &of("DE"), at(NOW))
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(bad(text).to_string(), expected);
}

/// Asks code of others, which `make test` has installed: a program, and the script of tests/hours that it runs.
fn ask_others([program, script]: [&str; 2], input: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join(".venv-hours/bin").join(program);
    for installed in [&program, &root.join("tests/hours/node_modules/opening_hours")] {
        assert!(installed.exists(), "no {}: run `make test` once, which installs it", installed.display());
    }
    let mut child = Command::new(program)
        .arg(root.join("tests/hours").join(script))
        // What opening_hours.js takes for local.
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{script}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

// What is refused, and what to write instead.

#[test]
fn what_cannot_be_read_is_refused() {
    refused("Mon-Fri 8-19", r#""Mon-Fri 8-19": can't be read as hours; write "Mo-Fr 08:00-19:00""#);
    refused("Mo-Fr 8-19", r#""Mo-Fr 8-19": can't be read from "8-19" on (character 7); write "Mo-Fr 08:00-19:00""#);
    refused(
        "Mo-Fr 08:00-19:00 PH off",
        r#""Mo-Fr 08:00-19:00 PH off": can't be read from "PH off" on (character 19); write "Mo-Fr 08:00-19:00; PH off""#,
    );
    refused(
        "Mo-Fr 08:00-19:00; Xy off",
        r#""Mo-Fr 08:00-19:00; Xy off": can't be read from "Xy off" on (character 20); write hours like "Mo-Fr 08:00-19:00; PH off""#,
    );
    refused(
        "Mo-Fr 24:00-26:00",
        r#""Mo-Fr 24:00-26:00": can't be read from "24:00-26:00" on (character 7); write hours like "Mo-Fr 08:00-19:00; PH off""#,
    );
    refused("Mo-Fr 08:00-48:30", r#""Mo-Fr 08:00-48:30": 48:30 is after 48:00; write hours like "Mo-Fr 08:00-19:00""#);
    refused(
        "week 50-5 Mo 08:00-19:00",
        r#""week 50-5 Mo 08:00-19:00": week 50 is after week 5, over New Year they are 50-53,1-5; write hours like "Mo-Fr 08:00-19:00""#,
    );
    refused(
        "2027-2026 Mo 08:00-19:00",
        r#""2027-2026 Mo 08:00-19:00": 2027 is after 2026; write hours like "Mo-Fr 08:00-19:00""#,
    );
    refused("\u{1f4a9}", "\"\u{1f4a9}\": can't be read as hours; write hours like \"Mo-Fr 08:00-19:00; PH off\"");
}

#[test]
fn blank_is_refused() {
    for text in ["", " ", "\t\n", ";", " ; "] {
        let message = bad(text).to_string();
        assert!(message.ends_with(": blank; write hours like \"Mo-Fr 08:00-19:00\""), "{message}");
    }
}

#[test]
fn more_than_256_characters_are_refused() {
    let rule = "2026 Jan 01-2026 Dec 31 Mo-Fr 08:00-19:00";
    let text = [rule; 7].join("; ");
    refused(
        &text,
        r#""2026 Jan 01-2026 Dec 31 Mo-Fr 08:00-19:00; 2026 Jan 01-2026…: 299 characters, at most 256; split it into a list of texts under a name in "hours""#,
    );
}

#[test]
fn more_than_24_rules_are_refused() {
    assert!(Hours::parse(&["Mo 8:00-9:00"; 19].join(";"), Tz::UTC, &Holidays::default()).is_ok());
    assert_eq!(*bad(&["Mo off"; 25].join(";")).fault(), Fault::TooManyRules { rules: 25 });
}

#[test]
fn a_fallback_is_refused() {
    refused(
        "Mo-Fr 08:00-19:00 || Sa off",
        r#""Mo-Fr 08:00-19:00 || Sa off": "||" is not supported; separate rules with ";"; for each day, the last rule about it decides"#,
    );
}

#[test]
fn unknown_is_refused() {
    refused(
        "Mo-Fr 08:00-19:00 unknown",
        r#""Mo-Fr 08:00-19:00 unknown": "unknown" is neither open nor closed; leave it out, or write "off""#,
    );
}

#[test]
fn a_comment_is_refused() {
    refused(
        "Mo-Fr 08:00-19:00 \"by appointment\"; PH off",
        r#""Mo-Fr 08:00-19:00 \"by appointment\"; PH off": the comment "\"by appointment\"" is not supported; write "Mo-Fr 08:00-19:00; PH off""#,
    );
}

#[test]
fn quotes_around_a_text_are_refused() {
    refused(
        "\"Mo-Fr 08:00-19:00\"",
        r#""\"Mo-Fr 08:00-19:00\"": the quotes around it are part of it; write "Mo-Fr 08:00-19:00""#,
    );
    refused("'office'", r#""'office'": the quotes around it are part of it; leave them out"#);
    // What restricts the hours is no mere comment.
    for text in ["Mo-Fr 08:00-19:00 \"not in August\"", "Mo-Fr 08:00-19:00 \"until March 1\""] {
        assert_eq!(bad(text).write(), None, "{text}");
    }
}

#[test]
fn what_names_custodians_zone_is_refused_without_hours_that_would_be_read_in_another() {
    refused(
        "off=(M-F,19);on=(M-F,7);tz=pt",
        r#""off=(M-F,19);on=(M-F,7);tz=pt": Cloud Custodian's, with a time zone of its own; name it in the request's "hours", with its hours in "open" and its zone in "timezone""#,
    );
}

#[test]
fn a_step_out_of_its_range_is_refused() {
    let why = "the step leads out of the range, so that only its first would be meant";
    refused(
        "week 11-13/3 Mo-Fr 08:00-19:00",
        &format!(r#""week 11-13/3 Mo-Fr 08:00-19:00": "11-13/3": {why}; write "week 11 Mo-Fr 08:00-19:00""#),
    );
    refused(
        "2026-2029/4 Mo 08:00-19:00; week 20,30-40/11 off",
        &format!(
            r#""2026-2029/4 Mo 08:00-19:00; week 20,30-40/11 off": "2026-2029/4": {why}; write "2026 Mo 08:00-19:00; week 20,30 off""#
        ),
    );
    for text in ["week 11-14/3 Mo 08:00-19:00", "2027-2029/2 Mo 08:00-19:00", "week 2-52/2: Mo 08:00-19:00"] {
        assert!(Hours::parse(text, Tz::UTC, &of("DE")).is_ok(), "{text}");
    }
    // A step of nothing.
    for text in ["week 1-10/0 Mo 08:00-19:00", "2026-2029/0 Mo 08:00-19:00", "week 1/0 Mo 08:00-19:00"] {
        let step = Hours::parse(text, Tz::UTC, &of("DE")).map(|hours| hours.next_edge(at(NOW)));
        assert!(step.is_err(), "{text}: {step:?}");
    }
}

#[test]
fn a_cut_over_midnight_is_refused_where_the_next_morning_may_be_open() {
    refused(
        "24/7; Mo-Fr 20:00-06:00 off",
        r#""24/7; Mo-Fr 20:00-06:00 off": "Mo-Fr 20:00-06:00 off" ends at midnight: what begins on the next day is not cut; write "24/7; Mo-Fr 20:00-24:00 off; Tu-Sa 00:00-06:00 off""#,
    );
    refused(
        "24/7; 20:00-06:00 off",
        r#""24/7; 20:00-06:00 off": "20:00-06:00 off" ends at midnight: what begins on the next day is not cut; write "24/7; 00:00-06:00,20:00-24:00 off""#,
    );
    refused(
        "24/7; Dec 24 20:00-30:00 off",
        r#""24/7; Dec 24 20:00-30:00 off": "Dec 24 20:00-30:00 off" ends at midnight: what begins on the next day is not cut; write what is off after midnight as a rule of its own, about the day after"#,
    );
    // A night that is cut is one day's, and in closed hours there is nothing to cut.
    for text in ["Mo-Fr 18:00-30:00; We 23:00-26:00 off", "Mo-Fr 08:00-19:00; Fr 18:00-06:00 off"] {
        assert!(Hours::parse(text, Tz::UTC, &of("DE")).is_ok(), "{text}");
    }
}

#[test]
fn school_holidays_are_refused() {
    refused(
        "Mo-Fr 08:00-19:00; SH off",
        r#""Mo-Fr 08:00-19:00; SH off": "SH": school holidays are not known; write their dates like "Jul 20-Aug 31""#,
    );
}

#[test]
fn times_of_the_sun_are_refused() {
    for text in ["sunrise-sunset", "08:00-Sunset", "(dawn+01:00)-19:00", "Mo-Fr 08:00-dusk"] {
        assert_eq!(*bad(text).fault(), Fault::SunTime, "{text}");
    }
    refused(
        "Mo-Fr 08:00-sunset",
        r#""Mo-Fr 08:00-sunset": "sunset": the time of sunrise and sunset is not known; write times like "06:00""#,
    );
}

#[test]
fn an_open_end_is_refused() {
    refused("Mo 18:00+", r#""Mo 18:00+": "Mo 18:00+" has a "+" and so no end; write "Mo 18:00-24:00""#);
    refused(
        "Mo 08:00-18:00+",
        r#""Mo 08:00-18:00+": "Mo 08:00-18:00+" has a "+" and so no end; write "Mo 08:00-18:00""#,
    );
    refused(
        "Jan 15+ 08:00-18:00",
        r#""Jan 15+ 08:00-18:00": "Jan 15+ 08:00-18:00" has a "+" and so no end; write "Jan 15-Dec 31 08:00-18:00""#,
    );
    // From a year on is no open end: it has the end of each day.
    opens("2027+ Mo-Fr 08:00-18:00", "UTC", "2026-11-26T00:00:00Z", &["+Fri 2027-01-01 08:00+00"]);
}

#[test]
fn repeats_in_a_time_are_refused() {
    refused(
        "Mo 10:00-16:00/01:30",
        r#""Mo 10:00-16:00/01:30": "Mo 10:00-16:00/01:30" repeats within a time; write "Mo 10:00-16:00""#,
    );
}

#[test]
fn a_time_that_ends_when_it_begins_is_refused() {
    // Nothing, half a day or a whole one?
    refused(
        "Mo 08:00-08:00",
        r#""Mo 08:00-08:00": "Mo 08:00-08:00" ends when it begins; write a whole day as "00:00-24:00""#,
    );
    refused(
        "Sa,Su 00:00-00:00",
        r#""Sa,Su 00:00-00:00": "Sa,Su 00:00-00:00" ends when it begins; write "Sa,Su 00:00-24:00""#,
    );
}

#[test]
fn a_day_that_no_year_has_is_refused() {
    refused(
        "08:00-19:00; Feb 30 off",
        r#""08:00-19:00; Feb 30 off": there is no "Feb 30"; write "08:00-19:00; Feb 29 off""#,
    );
    refused("Apr 1-31 08:00-19:00", r#""Apr 1-31 08:00-19:00": there is no "Apr 31"; write "Apr 1-30 08:00-19:00""#);
    refused(
        "2027 Feb 29 08:00-19:00",
        r#""2027 Feb 29 08:00-19:00": there is no "2027 Feb 29"; write "2027 Feb 28 08:00-19:00""#,
    );
    assert!(Hours::parse("2028 Feb 29 08:00-19:00", Tz::UTC, &Holidays::default()).is_ok());
}

#[test]
fn public_holidays_of_nobody_are_refused() {
    let bad = Hours::parse("Mo-Fr 08:00-19:00; PH off", Tz::UTC, &Holidays::default()).expect_err("no holidays");
    assert_eq!(
        bad.to_string(),
        r#""Mo-Fr 08:00-19:00; PH off": "PH off": it isn't said whose public holidays "PH" means; name a country in the request's "holidays", like "DE""#
    );
}

#[test]
fn public_holidays_off_before_a_rule_that_opens_them_again_are_refused() {
    refused(
        "PH off; Mo-Fr 08:00-19:00",
        r#""PH off; Mo-Fr 08:00-19:00": "PH off" is undone by "Mo-Fr 08:00-19:00" after it; write "Mo-Fr 08:00-19:00; PH off""#,
    );
    // In these the order says what is meant.
    for text in ["08:00-19:00; PH off; Dec 24 off", "PH off; PH,Sa 08:00-12:00", "PH 08:00-12:00; Mo-Fr 08:00-19:00"] {
        assert!(Hours::parse(text, Tz::UTC, &of("DE")).is_ok(), "{text}");
    }
}

#[test]
fn a_rule_about_every_day_after_others_is_refused() {
    refused(
        "08:00-12:00; 13:00-17:00",
        r#""08:00-12:00; 13:00-17:00": "13:00-17:00" applies to every day and undoes the rules before it; write "08:00-12:00,13:00-17:00""#,
    );
    refused(
        "Mo-Fr 08:00-19:00; 24/7",
        r#""Mo-Fr 08:00-19:00; 24/7": "24/7" applies to every day and undoes the rules before it; write "24/7; Mo-Fr 08:00-19:00""#,
    );
}

#[test]
fn days_and_holidays_with_a_blank_between_them_are_refused() {
    refused(
        "PH Mo-Fr 08:00-12:00",
        r#""PH Mo-Fr 08:00-12:00": "PH Mo-Fr 08:00-12:00": with only a blank between them, it isn't clear whether both are meant; write "PH,Mo-Fr 08:00-12:00""#,
    );
    assert_eq!(*bad("Sa PH 08:00-12:00").fault(), Fault::HolidaysBesideDays);
    assert_eq!(*bad("PH -1 day Sa 08:00-12:00").fault(), Fault::HolidaysBesideDays);
}

#[test]
fn what_never_opens_is_refused() {
    let message = "never open; write when it should run; to stop it for good, stop it by hand";
    refused("off", &format!("\"off\": {message}"));
    refused("Mo-Fr off; PH 08:00-12:00 closed", &format!("\"Mo-Fr off; PH 08:00-12:00 closed\": {message}"));
    let now = at("2026-11-26T05:00:00Z");
    for (text, never) in [
        ("Mo-Fr 08:00-19:00; off", true),
        ("08:00-19:00; Jan-Dec off", true),
        ("2025 Oct 20 08:00-19:00", true),
        ("2028 Jan 1 08:00-19:00", true),
        // over, but the last closing is not yet forgotten; and what begins next year
        ("2025 Oct 24 08:00-19:00", false),
        ("2027 Dec 20 08:00-19:00", false),
        ("24/7", false),
    ] {
        assert_eq!(hours(text, "UTC").never_open(now), never, "{text}");
    }
}

#[test]
fn a_comma_and_a_blank_between_rules_or_days_are_refused() {
    let why = "ends the rule, so what is before it would be open round the clock";
    let another = "begins another rule, beside the one before it";
    refused(
        "Mo, We, Fr 08:00-19:00",
        &format!(r#""Mo, We, Fr 08:00-19:00": the blank after "Mo," {why}; write "Mo,We,Fr 08:00-19:00""#),
    );
    refused(
        "Mo-Fr 08:00-19:00, Sa 09:00-12:00",
        &format!(
            r#""Mo-Fr 08:00-19:00, Sa 09:00-12:00": the blank after "08:00-19:00," {another}; write "Mo-Fr 08:00-19:00; Sa 09:00-12:00""#
        ),
    );
    refused(
        "08:00-19:00; Dec 25, Dec 26 off",
        &format!(
            r#""08:00-19:00; Dec 25, Dec 26 off": the blank after "25," {why}; write "08:00-19:00; Dec 25,Dec 26 off""#
        ),
    );
    // OpenStreetMap's comma adds, a semicolon would take Monday's morning away.
    refused(
        "Mo-Th 08:00-12:00, Mo 13:00-17:00",
        &format!(
            r#""Mo-Th 08:00-12:00, Mo 13:00-17:00": the blank after "08:00-12:00," {another}; between days write "," without a blank, between rules ";"; for each day, the last rule about it decides"#
        ),
    );
    // Between times it is harmless.
    opens(
        "Mo 08:00-12:00, 13:00-17:00",
        "UTC",
        "2026-11-23T00:00:00Z",
        &["+Mon 2026-11-23 08:00+00", "-Mon 2026-11-23 12:00+00", "+Mon 2026-11-23 13:00+00"],
    );
}

#[test]
fn a_rule_without_times_is_refused() {
    refused("Mo-Fr", r#""Mo-Fr": "Mo-Fr" has no times; write "Mo-Fr 00:00-24:00""#);
    refused("Mo-Fr open", r#""Mo-Fr open": "Mo-Fr open" has no times; write "Mo-Fr 00:00-24:00""#);
    refused(
        "Dec 25; Dec 26 off",
        r#""Dec 25; Dec 26 off": "Dec 25" has no times; write "Dec 25 00:00-24:00; Dec 26 off""#,
    );
    for text in ["24/7", "24/7; PH off", "24/7; Sa,Su closed", "24/7 open", "24/7; Su OFF"] {
        assert!(Hours::parse(text, Tz::UTC, &of("DE")).is_ok(), "{text}");
    }
}

#[test]
fn months_before_an_nth_weekday_without_a_colon_are_refused() {
    refused(
        "Jan,Apr Mo[1] 08:00-19:00",
        r#""Jan,Apr Mo[1] 08:00-19:00": "Jan,Apr Mo[1] 08:00-19:00" means all days of the first months; write "Jan,Apr: Mo[1] 08:00-19:00""#,
    );
    opens(
        "Jan,Apr: Mo[1] 08:00-19:00",
        "UTC",
        "2027-01-01T00:00:00Z",
        &["+Mon 2027-01-04 08:00+00", "-Mon 2027-01-04 19:00+00", "+Mon 2027-04-05 08:00+00"],
    );
    // One month, or a range, means the same either way.
    opens("Apr Mo[1] 08:00-19:00", "UTC", "2027-01-01T00:00:00Z", &["+Mon 2027-04-05 08:00+00"]);
    opens(
        "Mar-Apr Mo[1] 08:00-19:00",
        "UTC",
        "2027-01-01T00:00:00Z",
        &["+Mon 2027-03-01 08:00+00", "-Mon 2027-03-01 19:00+00", "+Mon 2027-04-05 08:00+00"],
    );
}

#[test]
fn what_the_crate_counts_wrongly_is_refused() {
    refused(
        "2027Jan 08:00-19:00",
        r#""2027Jan 08:00-19:00": "2027Jan 08:00-19:00" needs a blank after the year; write "2027 Jan 08:00-19:00""#,
    );
    assert_eq!(*bad("easter +400 days 08:00-19:00").fault(), Fault::FarOffset);
    assert_eq!(*bad("Jan Mo[1]-Feb Mo[5] 08:00-19:00").fault(), Fault::FifthInRange);
}

#[test]
fn what_people_write_elsewhere_is_met_with_the_right_text() {
    for (text, right) in [
        ("weekdays 9am to 5pm", "Mo-Fr 09:00-17:00"),
        ("9-5", "09:00-17:00"),
        ("22-6", "22:00-06:00"),
        ("Monday to Friday, 8:00 - 18:00, Saturday 9-12", "Mo-Fr 08:00-18:00; Sa 09:00-12:00"),
        ("M-F 9-17", "Mo-Fr 09:00-17:00"),
        ("Mo-Fr 0800-1900", "Mo-Fr 08:00-19:00"),
        ("mo-fr 8.30-17.00", "Mo-Fr 08:30-17:00"),
        ("Mo-Fr 12pm-12am", "Mo-Fr 12:00-00:00"),
        ("Dec 24,25 off; 08:00-19:00", "08:00-19:00; Dec 24,Dec 25 off"),
        ("Sept 1-15 08:00-10:00", "Sep 1-15 08:00-10:00"),
        ("off=(M-F,19);on=(M-F,7)", "Mo-Fr 07:00-19:00"),
        ("off=(M-U,20);on=(M-U,8)", "Mo-Su 08:00-20:00"),
        // two faults at once
        ("Mon, Wed 8-19, holidays off", "Mo,We 08:00-19:00; PH off"),
    ] {
        assert_eq!(bad(text).write(), Some(right), "{text}");
    }
    for text in ["office", "", "7", "yes", "running", "Mo-Fr", "Montag 8-9"] {
        let write = bad(text).write().map(str::to_owned);
        assert_eq!(write.is_some(), text == "Mo-Fr", "{text}: {write:?}");
    }
}

#[test]
fn a_text_is_tidied_first() {
    let plain = hours("Mo-Fr 08:00-12:00,13:00-19:00; PH off", "UTC");
    for text in [
        " Mo-Fr  08:00-12:00,13:00-19:00;PH off ; ",
        "Mo\u{2013}Fr 08:00\u{2014}12:00,13:00 \u{2212} 19:00 / PH off",
        "Mo - Fr\t08:00 - 12:00, 13:00-19:00\n;\u{a0}PH off;",
    ] {
        let tidied = hours(text, "UTC");
        assert_eq!(edges(&tidied, "2026-12-20T00:00:00Z", 40), edges(&plain, "2026-12-20T00:00:00Z", 40), "{text}");
    }
    // Here the blank says that it is no range.
    opens("PH -1 day 08:00-19:00", "UTC", "2026-12-20T00:00:00Z", &["+Thu 2026-12-24 08:00+00"]);
    opens("PH - 1 day 08:00-19:00", "UTC", "2026-12-20T00:00:00Z", &["+Thu 2026-12-24 08:00+00"]);
    opens("24 / 7 / Su off", "UTC", "2026-11-26T00:00:00Z", &["-Sun 2026-11-29 00:00+00", "+Mon 2026-11-30 00:00+00"]);
}

// Which days.

#[test]
fn the_last_rule_about_a_day_decides() {
    opens(
        "Mo-Fr 08:00-19:00; We 10:00-12:00; Th off; Fr 12:00-13:00 off",
        "UTC",
        "2026-11-24T12:00:00Z",
        &[
            "-Tue 2026-11-24 19:00+00",
            "+Wed 2026-11-25 10:00+00",
            "-Wed 2026-11-25 12:00+00",
            "+Fri 2026-11-27 08:00+00",
            "-Fri 2026-11-27 12:00+00",
            "+Fri 2026-11-27 13:00+00",
            "-Fri 2026-11-27 19:00+00",
        ],
    );
}

#[test]
fn a_span_belongs_to_the_day_on_which_it_begins() {
    // Christmas is a Friday in 2026: Thursday's night ends on it, and nothing begins at the midnight after it.
    opens(
        "Mo-Fr 22:00-06:00; PH off",
        "Europe/Berlin",
        "2026-12-23T12:00:00Z",
        &[
            "+Wed 2026-12-23 22:00+01",
            "-Thu 2026-12-24 06:00+01",
            "+Thu 2026-12-24 22:00+01",
            "-Fri 2026-12-25 06:00+01",
            "+Mon 2026-12-28 22:00+01",
        ],
    );
    opens(
        "Fr 18:00-26:00; Sa off",
        "UTC",
        "2026-11-27T00:00:00Z",
        &["+Fri 2026-11-27 18:00+00", "-Sat 2026-11-28 02:00+00"],
    );
    opens("Fr 20:00-24:00", "UTC", "2026-11-27T00:00:00Z", &["+Fri 2026-11-27 20:00+00", "-Sat 2026-11-28 00:00+00"]);
    opens("Fr 20:00-48:00", "UTC", "2026-11-27T00:00:00Z", &["+Fri 2026-11-27 20:00+00", "-Sun 2026-11-29 00:00+00"]);
}

#[test]
fn what_meets_is_one() {
    opens(
        "Mo-Fr 00:00-24:00",
        "Europe/Berlin",
        "2026-11-22T12:00:00Z",
        &["+Mon 2026-11-23 00:00+01", "-Sat 2026-11-28 00:00+01", "+Mon 2026-11-30 00:00+01"],
    );
    opens(
        "Sa 20:00-24:00; Su 00:00-08:00",
        "UTC",
        "2026-11-27T00:00:00Z",
        &["+Sat 2026-11-28 20:00+00", "-Sun 2026-11-29 08:00+00"],
    );
    let now = at("2026-11-26T12:00:00Z");
    for text in ["24/7", "00:00-24:00", "Mo-Su 12:00-36:00", "08:00-20:00,20:00-32:00"] {
        let hours = hours(text, "Europe/London");
        let state = hours.state_at(now);
        assert!(state.open && state.edge.is_none() && hours.next_edge(now).is_none(), "{text}");
    }
}

#[test]
fn several_texts_are_open_when_any_is() {
    let texts = ["Mo-Fr 09:00-17:00", "Tu[4] 00:00-24:00", "We 16:00-18:00"];
    let hours = Hours::parse_all(texts, Tz::UTC, &Holidays::default()).expect("hours");
    assert_eq!(
        edges(&hours, "2026-11-23T12:00:00Z", 6),
        [
            "-Mon 2026-11-23 17:00+00",
            "+Tue 2026-11-24 00:00+00",
            "-Wed 2026-11-25 00:00+00",
            "+Wed 2026-11-25 09:00+00",
            "-Wed 2026-11-25 18:00+00",
            "+Thu 2026-11-26 09:00+00",
        ]
    );
    let errors = Hours::parse_all(["Mo 08:00-09:00", "x", "off"], Tz::UTC, &Holidays::default()).expect_err("bad");
    assert_eq!(errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn week_53_is_where_iso_8601_says() {
    opens(
        "week 53 Mo,Su 08:00-19:00",
        "UTC",
        "2026-11-26T00:00:00Z",
        &[
            "+Mon 2026-12-28 08:00+00",
            "-Mon 2026-12-28 19:00+00",
            "+Sun 2027-01-03 08:00+00",
            "-Sun 2027-01-03 19:00+00",
        ],
    );
    opens("week 1 Mo 08:00-19:00", "UTC", "2026-11-26T00:00:00Z", &["+Mon 2027-01-04 08:00+00"]);
    opens(
        "week 1-53/2 Mo 08:00-19:00",
        "UTC",
        "2026-12-10T00:00:00Z",
        &[
            "+Mon 2026-12-14 08:00+00",
            "-Mon 2026-12-14 19:00+00",
            "+Mon 2026-12-28 08:00+00",
            "-Mon 2026-12-28 19:00+00",
            "+Mon 2027-01-04 08:00+00",
        ],
    );
}

#[test]
fn the_29th_of_february_is_of_leap_years() {
    opens(
        "Feb 29 08:00-19:00",
        "UTC",
        "2027-06-01T00:00:00Z",
        &["+Tue 2028-02-29 08:00+00", "-Tue 2028-02-29 19:00+00"],
    );
    assert_eq!(edges(&hours("Feb 29 08:00-19:00", "UTC"), "2026-11-26T00:00:00Z", 1), [""; 0]);
    opens(
        "Feb 28-Mar 1 08:00-19:00",
        "UTC",
        "2027-02-01T00:00:00Z",
        &[
            "+Sun 2027-02-28 08:00+00",
            "-Sun 2027-02-28 19:00+00",
            "+Mon 2027-03-01 08:00+00",
            "-Mon 2027-03-01 19:00+00",
            "+Mon 2028-02-28 08:00+00",
        ],
    );
}

#[test]
fn weekdays_are_counted_from_the_first_and_from_the_last() {
    let from = "2026-11-26T00:00:00Z";
    opens("Mo[1] 08:00-09:00", "UTC", from, &["+Mon 2026-12-07 08:00+00"]);
    opens(
        "Fr[-1] 08:00-09:00",
        "UTC",
        from,
        &["+Fri 2026-11-27 08:00+00", "-Fri 2026-11-27 09:00+00", "+Fri 2026-12-25 08:00+00"],
    );
    opens(
        "Mo[5] 08:00-09:00",
        "UTC",
        from,
        &["+Mon 2026-11-30 08:00+00", "-Mon 2026-11-30 09:00+00", "+Mon 2027-03-29 08:00+00"],
    );
    opens("Tu[2] +5 days 08:00-09:00", "UTC", from, &["+Sun 2026-12-13 08:00+00"]);
    opens(
        "Mo[1] -1 day 08:00-09:00",
        "UTC",
        from,
        &["+Sun 2026-12-06 08:00+00", "-Sun 2026-12-06 09:00+00", "+Sun 2027-01-03 08:00+00"],
    );
}

#[test]
fn dates_run_over_new_year() {
    opens(
        "Dec 31-Jan 2 08:00-19:00",
        "UTC",
        "2026-11-26T00:00:00Z",
        &[
            "+Thu 2026-12-31 08:00+00",
            "-Thu 2026-12-31 19:00+00",
            "+Fri 2027-01-01 08:00+00",
            "-Fri 2027-01-01 19:00+00",
            "+Sat 2027-01-02 08:00+00",
            "-Sat 2027-01-02 19:00+00",
            "+Fri 2027-12-31 08:00+00",
        ],
    );
    opens(
        "Nov-Jan Mo[1] 08:00-19:00",
        "UTC",
        "2026-12-10T00:00:00Z",
        &["+Mon 2027-01-04 08:00+00", "-Mon 2027-01-04 19:00+00", "+Mon 2027-11-01 08:00+00"],
    );
    opens(
        "2026 Dec 31-2027 Jan 1 08:00-19:00",
        "UTC",
        "2026-12-31T12:00:00Z",
        &["-Thu 2026-12-31 19:00+00", "+Fri 2027-01-01 08:00+00", "-Fri 2027-01-01 19:00+00"],
    );
    opens(
        "Dec 31 22:00-26:00",
        "UTC",
        "2026-11-26T00:00:00Z",
        &["+Thu 2026-12-31 22:00+00", "-Fri 2027-01-01 02:00+00"],
    );
    opens("2026-2027 Jan-Mar Mo[1] 08:00-19:00", "UTC", "2026-11-26T00:00:00Z", &["+Mon 2027-01-04 08:00+00"]);
    opens(
        "2027 Jan-Mar Mo[1] 08:00-19:00",
        "UTC",
        "2026-11-26T00:00:00Z",
        &["+Mon 2027-01-04 08:00+00", "-Mon 2027-01-04 19:00+00", "+Mon 2027-02-01 08:00+00"],
    );
}

#[test]
fn holidays_are_a_countrys_in_the_schedules_zone() {
    // 3 October is Germany's; 26 November 2026 is Thanksgiving.
    let days = |country: &str, zone_name: &str, from: &str| {
        let hours = Hours::parse("08:00-19:00; PH off", zone(zone_name), &of(country)).expect("hours");
        edges(&hours, from, 2)
    };
    assert_eq!(
        days("DE", "Europe/Berlin", "2026-10-02T12:00:00Z"),
        ["-Fri 2026-10-02 19:00+02", "+Sun 2026-10-04 08:00+02"]
    );
    assert_eq!(
        days("US", "Europe/Berlin", "2026-10-02T12:00:00Z"),
        ["-Fri 2026-10-02 19:00+02", "+Sat 2026-10-03 08:00+02"]
    );
    assert_eq!(
        days("US", "America/New_York", "2026-11-25T15:00:00Z"),
        ["-Wed 2026-11-25 19:00-05", "+Fri 2026-11-27 08:00-05"]
    );
    assert_eq!(
        days("US", "Pacific/Auckland", "2026-11-25T03:00:00Z"),
        ["-Wed 2026-11-25 19:00+13", "+Fri 2026-11-27 08:00+13"]
    );
    assert_eq!(
        days("DE", "America/New_York", "2026-11-25T15:00:00Z"),
        ["-Wed 2026-11-25 19:00-05", "+Thu 2026-11-26 08:00-05"]
    );
}

#[test]
fn holidays_have_eves_and_mornings_after() {
    opens(
        "Mo-Fr 08:00-19:00; PH -1 day 08:00-12:00; PH off",
        "Europe/Berlin",
        "2026-12-24T00:00:00Z",
        &["+Thu 2026-12-24 08:00+01", "-Thu 2026-12-24 12:00+01", "+Mon 2026-12-28 08:00+01"],
    );
    // The crate's own way to write this rule can't be read again; ours is its text.
    opens(
        "PH +1 day 10:00-12:00",
        "UTC",
        "2026-12-20T00:00:00Z",
        &["+Sat 2026-12-26 10:00+00", "-Sat 2026-12-26 12:00+00", "+Sun 2026-12-27 10:00+00"],
    );
    opens("easter -2 days 10:00-12:00", "UTC", "2027-01-01T00:00:00Z", &["+Fri 2027-03-26 10:00+00"]);
}

#[test]
fn days_are_added_to_a_countrys_holidays_and_taken_out() {
    let day = |text: &str| text.parse().expect("a date");
    let holidays = of("DE").with([day("2026-12-24")]).without([day("2026-12-25")]);
    let hours = Hours::parse("08:00-19:00; PH off", Tz::UTC, &holidays).expect("hours");
    assert_eq!(
        edges(&hours, "2026-12-23T12:00:00Z", 4),
        [
            "-Wed 2026-12-23 19:00+00",
            "+Fri 2026-12-25 08:00+00",
            "-Fri 2026-12-25 19:00+00",
            "+Sun 2026-12-27 08:00+00"
        ]
    );
    let alone = Holidays::default().with([day("2026-12-24")]);
    let hours = Hours::parse("08:00-19:00; PH off", Tz::UTC, &alone).expect("hours");
    assert_eq!(edges(&hours, "2026-12-23T12:00:00Z", 2), ["-Wed 2026-12-23 19:00+00", "+Fri 2026-12-25 08:00+00"]);
}

#[test]
fn every_country_has_holidays() {
    let mut problems = Vec::new();
    for country in ["DE", "GB", "US", "FR", "JP", "BR", "AU", "CA", "CH", "NL"] {
        let hours = Hours::parse("PH 08:00-19:00", Tz::UTC, &of(country)).expect("hours");
        if hours.next_edge(at("2026-11-26T00:00:00Z")).is_none() {
            problems.push(country);
        }
    }
    assert_eq!(problems, [""; 0]);
    // Not known, and so to be listed in `add`.
    for country in ["IN", "AE", "IL", "SA", "TW", "TH", "MY"] {
        assert!(Holidays::of(country).is_err(), "{country}");
    }
}

// What clock changes do: a time that is skipped means the moment of the change, one that is repeated the later one.

#[test]
fn clocks_change_in_new_york() {
    let (spring, autumn) = ("2026-03-08T04:59:00Z", "2026-11-01T03:59:00Z");
    for (text, from, expected) in [
        ("02:30-04:00", spring, ["+Sun 2026-03-08 03:00-04", "-Sun 2026-03-08 04:00-04"]),
        ("01:00-02:30", spring, ["+Sun 2026-03-08 01:00-05", "-Sun 2026-03-08 03:00-04"]),
        // skipped altogether: the next day's
        ("02:00-03:00", spring, ["+Mon 2026-03-09 02:00-04", "-Mon 2026-03-09 03:00-04"]),
        ("01:30-05:00", autumn, ["+Sun 2026-11-01 01:30-05", "-Sun 2026-11-01 05:00-05"]),
        ("00:30-01:30", autumn, ["+Sun 2026-11-01 00:30-04", "-Sun 2026-11-01 01:30-05"]),
        ("01:00-02:00", autumn, ["+Sun 2026-11-01 01:00-05", "-Sun 2026-11-01 02:00-05"]),
        ("Sa 22:00-25:30", autumn, ["-Sun 2026-11-01 01:30-05", "+Sat 2026-11-07 22:00-05"]),
    ] {
        opens(text, "America/New_York", from, &expected);
    }
}

#[test]
fn clocks_change_in_london() {
    for (text, from, expected) in [
        ("01:30-02:30", "2026-03-29T00:00:00Z", ["+Sun 2026-03-29 02:00+01", "-Sun 2026-03-29 02:30+01"]),
        ("01:30-02:30", "2026-10-25T00:00:00Z", ["+Sun 2026-10-25 01:30+00", "-Sun 2026-10-25 02:30+00"]),
        ("08:00-19:00", "2026-03-28T20:00:00Z", ["+Sun 2026-03-29 08:00+01", "-Sun 2026-03-29 19:00+01"]),
        ("08:00-19:00", "2026-10-24T20:00:00Z", ["+Sun 2026-10-25 08:00+00", "-Sun 2026-10-25 19:00+00"]),
    ] {
        opens(text, "Europe/London", from, &expected);
    }
}

#[test]
fn clocks_change_by_half_an_hour_on_lord_howe() {
    for (text, from, expected) in [
        ("02:15-03:00", "2026-10-03T12:00:00Z", ["+Sun 2026-10-04 02:30+11", "-Sun 2026-10-04 03:00+11"]),
        ("02:00-02:30", "2026-10-03T12:00:00Z", ["+Mon 2026-10-05 02:00+11", "-Mon 2026-10-05 02:30+11"]),
        ("01:45-03:00", "2026-04-04T12:00:00Z", ["+Sun 2026-04-05 01:45+10:30", "-Sun 2026-04-05 03:00+10:30"]),
        ("00:00-01:40", "2026-04-04T12:00:00Z", ["+Sun 2026-04-05 00:00+11", "-Sun 2026-04-05 01:40+10:30"]),
    ] {
        opens(text, "Australia/Lord_Howe", from, &expected);
    }
}

#[test]
fn clocks_change_for_ramadan_in_casablanca() {
    for (text, from, expected) in [
        ("02:30-04:00", "2026-02-15T00:00:00Z", ["+Sun 2026-02-15 02:30+00", "-Sun 2026-02-15 04:00+00"]),
        ("01:00-02:30", "2026-02-14T23:59:00Z", ["+Sun 2026-02-15 01:00+01", "-Sun 2026-02-15 02:30+00"]),
        ("02:30-04:00", "2026-03-22T00:00:00Z", ["+Sun 2026-03-22 03:00+01", "-Sun 2026-03-22 04:00+01"]),
        ("08:00-19:00", "2026-03-01T00:00:00Z", ["+Sun 2026-03-01 08:00+00", "-Sun 2026-03-01 19:00+00"]),
    ] {
        opens(text, "Africa/Casablanca", from, &expected);
    }
}

#[test]
fn clocks_change_at_midnight_in_havana() {
    for (text, from, expected) in [
        // 00:00 to 01:00 is skipped
        ("Su 00:00-08:00", "2026-03-08T02:00:00Z", ["+Sun 2026-03-08 01:00-04", "-Sun 2026-03-08 08:00-04"]),
        ("Sa 20:00-24:00", "2026-03-08T00:00:00Z", ["+Sat 2026-03-07 20:00-05", "-Sun 2026-03-08 01:00-04"]),
        (
            "Sa 20:00-24:00; Su 00:00-08:00",
            "2026-03-08T00:00:00Z",
            ["+Sat 2026-03-07 20:00-05", "-Sun 2026-03-08 08:00-04"],
        ),
        // and comes twice
        ("Su 00:00-08:00", "2026-11-01T02:00:00Z", ["+Sun 2026-11-01 00:00-05", "-Sun 2026-11-01 08:00-05"]),
        ("Sa 20:00-24:00", "2026-10-31T20:00:00Z", ["+Sat 2026-10-31 20:00-04", "-Sun 2026-11-01 00:00-05"]),
        ("Su off; Mo-Sa 00:00-24:00", "2026-10-31T20:00:00Z", ["-Sun 2026-11-01 00:00-05", "+Mon 2026-11-02 00:00-05"]),
    ] {
        opens(text, "America/Havana", from, &expected);
    }
}

#[test]
fn clocks_change_at_midnight_in_cairo() {
    for (text, from, expected) in [
        ("Fr 00:00-06:00", "2026-04-23T12:00:00Z", ["+Fri 2026-04-24 01:00+03", "-Fri 2026-04-24 06:00+03"]),
        ("Th 08:00-24:00", "2026-04-23T01:00:00Z", ["+Thu 2026-04-23 08:00+02", "-Fri 2026-04-24 01:00+03"]),
        // 23:00 to 24:00 comes twice
        ("Th 23:30-26:00", "2026-10-29T12:00:00Z", ["+Thu 2026-10-29 23:30+02", "-Fri 2026-10-30 02:00+02"]),
        ("Th 08:00-24:00", "2026-10-29T01:00:00Z", ["+Thu 2026-10-29 08:00+03", "-Fri 2026-10-30 00:00+02"]),
        ("Th 08:00-23:15", "2026-10-29T01:00:00Z", ["+Thu 2026-10-29 08:00+03", "-Thu 2026-10-29 23:15+02"]),
    ] {
        opens(text, "Africa/Cairo", from, &expected);
    }
}

#[test]
fn a_whole_friday_was_skipped_in_apia() {
    let from = "2011-12-29T20:00:00Z";
    for (text, expected) in [
        ("08:00-19:00", ["-Thu 2011-12-29 19:00-10", "+Sat 2011-12-31 08:00+14"]),
        ("Fr 08:00-19:00", ["+Fri 2012-01-06 08:00+14", "-Fri 2012-01-06 19:00+14"]),
        ("Th 22:00-30:00", ["+Thu 2011-12-29 22:00-10", "-Sat 2011-12-31 00:00+14"]),
        ("Fr-Sa 00:00-24:00", ["+Sat 2011-12-31 00:00+14", "-Sun 2012-01-01 00:00+14"]),
    ] {
        opens(text, "Pacific/Apia", from, &expected);
    }
}

// Since when.

#[test]
fn an_edge_counts_from_its_very_second() {
    let office = hours("Mo-Fr 08:00-19:00", "UTC");
    for (moment, open, edge) in [
        ("2026-11-26T07:59:59.999Z", false, "2026-11-25T19:00:00Z"),
        ("2026-11-26T08:00:00Z", true, "2026-11-26T08:00:00Z"),
        ("2026-11-26T18:59:59Z", true, "2026-11-26T08:00:00Z"),
        ("2026-11-26T19:00:00Z", false, "2026-11-26T19:00:00Z"),
        ("2026-11-26T19:00:00.001Z", false, "2026-11-26T19:00:00Z"),
        ("2026-11-29T12:00:00Z", false, "2026-11-27T19:00:00Z"),
    ] {
        let state = office.state_at(at(moment));
        assert_eq!((state.open, state.edge), (open, Some(at(edge))), "{moment}");
    }
    let next =
        |moment: &str| office.next_edge(at(moment)).map(|edge| edge.at.to_rfc3339_opts(SecondsFormat::Secs, true));
    assert_eq!(next("2026-11-26T19:00:00Z").as_deref(), Some("2026-11-27T08:00:00Z"));
    assert_eq!(next("2026-11-26T18:59:59Z").as_deref(), Some("2026-11-26T19:00:00Z"));
}

#[test]
fn an_edge_is_remembered_for_400_days() {
    for (text, moment, open, edge) in [
        // found in the search of 8, 40 and 400 days
        ("Mo 08:00-19:00", "2026-11-29T00:00:00Z", false, Some("2026-11-23T19:00:00Z")),
        ("Mo[1] 08:00-19:00", "2026-11-29T00:00:00Z", false, Some("2026-11-02T19:00:00Z")),
        ("Jan 1 08:00-19:00", "2026-12-31T00:00:00Z", false, Some("2026-01-01T19:00:00Z")),
        ("Jan 2-Dec 31 00:00-24:00", "2026-12-31T00:00:00Z", true, Some("2026-01-02T00:00:00Z")),
        ("2025 Oct 23 08:00-19:00", "2026-11-27T00:00:00Z", false, Some("2025-10-23T19:00:00Z")),
        ("2025 Oct 22 08:00-19:00", "2026-11-27T00:00:00Z", false, None),
        ("2025 Oct 22-2030 Jan 1 00:00-24:00", "2026-11-27T00:00:00Z", true, None),
        ("2027 Jan 1 08:00-19:00", "2026-11-27T00:00:00Z", false, None),
    ] {
        let state = hours(text, "UTC").state_at(at(moment));
        assert_eq!((state.open, state.edge), (open, edge.map(at)), "{text}");
    }
}

// The request, and tags.

pub(super) const NOW: &str = "2026-11-26T05:00:00Z";

fn read(value: Value) -> (Schedules, Vec<String>) {
    let mut problems = Vec::new();
    let schedules = Schedules::read(value, Tz::UTC, of("DE"), at(NOW), &mut problems);
    (schedules, problems)
}

#[test]
fn schedules_are_a_text_a_list_or_a_map() {
    let (schedules, problems) = read(json!({
        "office": "Mo-Fr 08:00-19:00; PH off",
        "berlin": {
            "open": "Mo-Fr 07:00-20:00; PH off", "timezone": "Europe/Berlin",
            "holidays": { "country": "DE", "add": ["2026-12-24"], "except": [] }
        },
        "shared": { "open": ["Mo-Fr 09:00-17:00", "Tu[3] 00:00-24:00"] },
        "list": ["Mo 08:00-09:00", "Tu 08:00-09:00"],
        "by-hand": { "open": "Mo-Fr 08:00-19:00", "start": false },
        "off=(M-F,19);on=(M-F,7);tz=pt": { "open": "Mo-Fr 07:00-19:00", "timezone": "America/Los_Angeles" },
    }));
    assert_eq!(problems, [""; 0]);
    let find = |name: &str| schedules.find(name, at(NOW)).unwrap_or_else(|bad| panic!("{bad}"));
    let next = |name: &str| edges(&find(name).hours, "2026-12-23T23:30:00Z", 1).join("");
    assert_eq!(next("office"), "+Thu 2026-12-24 08:00+00");
    assert_eq!(next("berlin"), "+Mon 2026-12-28 07:00+01");
    assert_eq!(next("shared"), "+Thu 2026-12-24 09:00+00");
    assert_eq!(next("list"), "+Mon 2026-12-28 08:00+00");
    assert_eq!(next("off=(M-F,19);on=(M-F,7);tz=pt"), "-Wed 2026-12-23 19:00-08");
    assert_eq!((find("office").start, find("by-hand").start), (true, false));
    // Hours of its own, with the request's zone and holidays.
    assert_eq!(next("Mo-Fr 10:00-19:00 / PH off"), "+Thu 2026-12-24 10:00+00");
}

#[test]
fn hours_of_the_request_that_never_open_are_refused() {
    for text in [
        "Mo-Fr 08:00-19:00; Mo-Fr,PH off",
        "PH 08:00-19:00; PH off",
        "08:00-19:00; Jan-Dec off",
        "2020 Mo 08:00-19:00; 2020 off",
        "week 53 Mo 08:00-19:00; week 50-53 off",
        "Dec 25 Mo 08:00-19:00; Dec off",
        "Feb 29 08:00-19:00; Feb 29 off",
        "easter 08:00-19:00; Su off",
        "2020 Mo 08:00-19:00",
        "2040 Mo 08:00-19:00",
        "2024 PH 08:00-19:00",
    ] {
        let never = "never open; write when it should run; to stop it for good, stop it by hand";
        assert_eq!(read(json!({ "x": text })).1, [format!("hours.x: \"{text}\": {never}")]);
    }
    // In a list where others open, only what opens in no year.
    let (_, problems) = read(json!({ "x": ["Mo-Fr 08:00-19:00", "2020 Mo 08:00-19:00", "PH 08:00-19:00; PH off"] }));
    assert!(problems.len() == 1 && problems[0].starts_with("hours.x[2]: \"PH 08:00-19:00; PH off\": never open"));
    let (_, problems) = read(json!({ "x": ["2020 Mo 08:00-19:00", "Feb 29 08:00-19:00"] }));
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn everything_wrong_with_hours_is_told_at_once() {
    let (_, problems) = read(json!({
        "a": "Mon-Fri 8-19",
        "b": { "opn": "Mo 08:00-19:00", "timezone": "Europe/Berln", "holidays": "UK", "start": "no" },
        "c": { "open": ["Mo 08:00-19:00", "Mo-Fr"], "holidays": { "country": "Germany", "add": ["2026-02-30", 7], "exept": [] } },
        "c2": { "open": ["Mo 08:00-19:00", "Mo-Fr"] },
        "d": {},
        "e": [],
        "f": 7,
        "g": ["Mo 08:00-19:00", 7],
        "h": { "open": "Mo-Fr 08:00-19:00; off", "holidays": {} },
        "i": "Mo-Fr 08:00-19:00; off",
        "": "24/7",
        "j": { "open": "24/7", "holidays": { "add": "2026-12-24", "except": ["2026-12-24"] }, "timezone": 7 },
        "k": { "open": "24/7", "holidays": "IN" },
        "l": { "open": "24/7", "holidays": 7 },
    }));
    let expected = [
        r#"hours."": a schedule without a name; write what the tags say, like "office""#,
        r#"hours.a: "Mon-Fri 8-19": can't be read as hours; write "Mo-Fr 08:00-19:00""#,
        r#"hours.b.opn: unknown field, did you mean "open"?"#,
        r#"hours.b.timezone: "Europe/Berln" is not an IANA time zone; did you mean "Europe/Berlin"?"#,
        r#"hours.b.holidays: "UK" is not a country whose holidays are known; did you mean "GB"?"#,
        r#"hours.b.start: expected true or false without quotes, found "no""#,
        r#"hours.c.holidays.exept: unknown field, did you mean "except"?"#,
        r#"hours.c.holidays.country: "Germany" is not a country whose holidays are known; did you mean "DE"?"#,
        r#"hours.c.holidays.add[0]: "2026-02-30" is not a date; write it like "2026-12-24""#,
        r#"hours.c.holidays.add[1]: expected a date, found 7; write it like "2026-12-24""#,
        r#"hours.c2.open[1]: "Mo-Fr": "Mo-Fr" has no times; write "Mo-Fr 00:00-24:00""#,
        r#"hours.d.open: missing, write it like "Mo-Fr 08:00-19:00; PH off""#,
        r#"hours.e: an empty list is never open; write it like "Mo-Fr 08:00-19:00; PH off""#,
        r#"hours.f: expected text, a list of texts or a map, found 7; write it like "Mo-Fr 08:00-19:00; PH off""#,
        r#"hours.g[1]: expected text or a list of texts, found 7; write it like "Mo-Fr 08:00-19:00; PH off""#,
        r#"hours.h.holidays: empty; write it like "DE", or {"country": "DE", "add": ["2026-12-24"]}"#,
        r#"hours.i: "Mo-Fr 08:00-19:00; off": never open; write when it should run; to stop it for good, stop it by hand"#,
        r#"hours.j.timezone: expected text, found 7; write it like "Europe/Berlin""#,
        r#"hours.j.holidays: "2026-12-24" is in "add" and in "except"; leave it out of one"#,
        r#"hours.k.holidays: "IN" is not a country whose holidays are known; write two letters like "DE", or list the days in "add""#,
        r#"hours.l.holidays: expected a country's code or a map, found 7; write it like "DE", or {"country": "DE", "add": ["2026-12-24"]}"#,
    ];
    assert_eq!(problems, expected);
}

#[test]
fn hours_that_are_no_map_and_too_many_are_refused() {
    assert_eq!(read(json!({})).1, ["hours: empty; name at least one, or leave it out"]);
    assert_eq!(
        read(json!("Mo-Fr 08:00-19:00")).1,
        [r#"hours: expected a map, found "Mo-Fr 08:00-19:00"; write it like {"office": "Mo-Fr 08:00-19:00; PH off"}"#]
    );
    let many = |count: usize| Value::Object((0..count).map(|n| (format!("s{n}"), json!("24/7"))).collect());
    assert_eq!(read(many(2000)).1, ["hours: 2000 of them, at most 1000; split the event"]);
    assert_eq!(read(many(1000)).1, [""; 0]);
    let long = "x".repeat(300);
    let (_, problems) = read(json!({ &long: "24/7" }));
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].ends_with("x…: a name of 300 characters, but a tag's value has at most 256; shorten it"),
        "{problems:?}"
    );
    let texts: Vec<&str> = vec!["24/7"; 25];
    assert_eq!(read(json!({ "many": texts })).1, ["hours.many: 25 texts, at most 24; join some with \";\""]);
}

#[test]
fn a_bad_tag_is_met_with_the_nearest_name_or_the_nearest_right_text() {
    let (schedules, problems) = read(json!({ "office-hours": "Mo-Fr 08:00-19:00", "late": "Mo-Fr 12:00-24:00" }));
    assert_eq!(problems, [""; 0]);
    let bad = |value: &str| schedules.find(value, at(NOW)).expect_err(value);
    assert_eq!(
        bad("Office Hours").to_string(),
        r#""Office Hours": neither a name in the request's "hours" nor hours; did you mean "office-hours"?"#
    );
    assert_eq!(bad("Office Hours").in_short(), r#""Office Hours", write "office-hours""#);
    assert_eq!(bad("Mon-Fri 8-19").in_short(), r#""Mon-Fri 8-19", write "Mo-Fr 08:00-19:00""#);
    assert_eq!(
        bad("running").to_string(),
        r#""running": neither a name in the request's "hours" nor hours; write one of its names, or hours like "Mo-Fr 08:00-19:00""#
    );
    assert_eq!(bad("running").in_short(), r#""running""#);
    assert_eq!(bad("").to_string(), r#""": blank; write hours like "Mo-Fr 08:00-19:00""#);
    assert_eq!(
        bad("2020 08:00-19:00").to_string(),
        r#""2020 08:00-19:00": never open; write when it should run; to stop it for good, stop it by hand"#
    );
}
