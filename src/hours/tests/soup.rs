//! Texts of any kind: none may panic, none may take long, and what is offered instead can be read.

use std::process::Command;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::reference::{cases, rules, text};
use crate::hours::read::Schedules;
use crate::hours::{BadHours, Holidays, Hours};

/// What texts are made of: the grammar's words, and what people write instead.
const WORDS: [&str; 76] = [
    "Mo",
    "Tu",
    "We",
    "Th",
    "Fr",
    "Sa",
    "Su",
    "Mo-Fr",
    "PH",
    "SH",
    "off",
    "closed",
    "open",
    "unknown",
    "24/7",
    "Jan",
    "Feb",
    "Dec",
    "Jan-Mar",
    "week",
    "easter",
    "2026",
    "2027",
    "9999",
    "1900",
    "08:00",
    "19:00",
    "00:00",
    "24:00",
    "26:00",
    "48:00",
    "48:59",
    "8",
    "29",
    "30",
    "31",
    "53",
    "08:00-19:00",
    "22:00-06:00",
    "[1]",
    "[-1]",
    "[5]",
    "[1,3]",
    "[1-2]",
    "+1 day",
    "-1 day",
    " +9999 days",
    "-9999 days",
    "+Su",
    "-Su",
    "+",
    "-",
    "/",
    "/2",
    "/01:30",
    ",",
    ", ",
    ";",
    "; ",
    ":",
    ": ",
    "||",
    " ",
    " ",
    " ",
    "\"",
    "\"x\"",
    "sunrise",
    "(dusk-01:00)",
    "Monday",
    "9am",
    "5pm",
    "to",
    "and",
    "\u{2013}",
    "\u{1f4a9}",
];

fn soup() -> impl Strategy<Value = String> {
    let words = prop::collection::vec(prop::sample::select(&WORDS[..]), 0..24).prop_map(|words| words.concat());
    // A right text with something else in it.
    let spoilt = (rules(5, 2880), any::<prop::sample::Index>(), prop::sample::select(&WORDS[..])).prop_map(
        |(rules, at, word)| {
            let mut text = text(&rules);
            let at = at.index(text.len() + 1);
            if text.is_char_boundary(at) {
                text.insert_str(at, word);
            }
            text
        },
    );
    prop_oneof![2 => words, 2 => spoilt, 1 => any::<String>(), 1 => rules(5, 2880).prop_map(|rules| text(&rules))]
}

/// Does with a text what a run does with a tag.
fn use_of(text: &str, holidays: &Holidays) -> Result<(Hours, bool), BadHours> {
    let now = super::at(super::NOW);
    let zone = Tz::Europe__Berlin;
    let hours = Hours::parse(text, zone, holidays).map_err(|bad| bad.advised(zone, holidays, now))?;
    let never = hours.never_open(now);
    Ok((hours, never))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_and_what_is_offered_instead_can_be_read(text in soup()) {
        let holidays = super::of("DE");
        match use_of(&text, &holidays) {
            Ok((hours, never)) => {
                let now = super::at(super::NOW);
                let state = hours.state_at(now);
                prop_assert!(state.edge.is_none_or(|edge| edge <= now && edge > now - TimeDelta::days(402)));
                prop_assert!(!never || !state.open);
                if let Some(edge) = hours.next_edge(now) {
                    prop_assert!(edge.at > now && edge.opens != state.open);
                }
            }
            Err(bad) => {
                prop_assert!(!bad.to_string().is_empty() && bad.to_string().len() < 1_500);
                if let Some(right) = bad.write() {
                    let opens = use_of(right, &holidays).is_ok_and(|(_, never)| !never);
                    prop_assert!(opens, "{:?} for {:?}", right, text);
                }
            }
        }
    }
}

/// Texts that are read, and are as long as a tag's value may be, beside soup.
fn costly() -> impl Strategy<Value = String> {
    prop_oneof![2 => soup().boxed(), 1 => prop::collection::vec(rules(5, 2880), 1..8).prop_map(|all| {
        let mut text = all.iter().map(|rules| text(rules)).collect::<Vec<_>>().join(";").replace("; ", ";");
        while text.chars().count() > 256 {
            text = text.rsplit_once(';').map_or_else(String::new, |(rest, _)| rest.to_owned());
        }
        text
    }).boxed()]
}

/// Whether this process is one that runs a single test, so that what it takes is that test's.
const ALONE: &str = "CURFEW_TEST_ALONE";

#[test]
fn no_text_takes_20_ms_or_15_mb() {
    if std::env::var_os(ALONE).is_none() {
        let alone = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "hours::tests::soup::no_text_takes_20_ms_or_15_mb", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .expect("a process");
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(
            alone.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&alone.stderr)
        );
        return;
    }
    // Built for development, all of this takes many times as long as where it is deployed: 30 ms at most.
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 20 });
    let holidays = super::of("DE");
    let epoch = Instant::now();
    let timed = |text: &str| {
        let begun = on_a_core(epoch);
        let _ = use_of(text, &holidays);
        on_a_core(epoch) - begun
    };
    let before = peak_kib();
    // A country's holidays are unpacked once.
    timed("Mo-Fr 08:00-19:00; PH off");
    let mut runner = TestRunner::deterministic();
    let many = costly();
    let mut longest = Duration::ZERO;
    for _ in 0..cases(500) {
        let text = many.new_tree(&mut runner).expect("a text").current();
        let time = timed(&text);
        assert!(time < limit, "{time:?}: {text}");
        longest = longest.max(time);
    }
    let more = peak_kib() - before;
    println!("{longest:?} at most, {more} KiB more");
    assert!(more < 15 * 1000, "{more} KiB more than before");
}

/// How long this thread has had a core, so that nothing else on the machine counts; where Linux doesn't tell, how long ago
/// an epoch was.
fn on_a_core(epoch: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds.map_or_else(|| epoch.elapsed(), Duration::from_nanos)
}

/// The most memory that this process has had, where Linux tells.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "measures: cargo test --release --lib hours_cost -- --ignored --nocapture"]
fn hours_cost() {
    let holidays = super::of("DE");
    let now = super::at(super::NOW);
    let timed = |name: &str, work: &dyn Fn()| {
        let (begun, mut times) = (Instant::now(), 0_u32);
        while begun.elapsed() < Duration::from_millis(300) {
            work();
            times += 1;
        }
        println!("{:>9.1} µs  {name}", begun.elapsed().as_secs_f64() * 1e6 / f64::from(times));
    };
    let begun = Instant::now();
    let _ = Hours::parse("PH 08:00-19:00", Tz::UTC, &holidays);
    println!("{:>9.1} µs  first use of a country", begun.elapsed().as_secs_f64() * 1e6);
    for text in [
        "24/7",
        "Mo-Fr 08:00-19:00",
        "Mo-Fr 08:00-19:00; PH off",
        "Mo-Fr 22:00-06:00; Fr[-1] off; PH off",
        "Jan 1 08:00-19:00",
        "Feb 29 08:00-19:00",
    ] {
        let hours = Hours::parse(text, Tz::Europe__Berlin, &holidays).expect("hours");
        timed(&format!("read      {text}"), &|| drop(Hours::parse(text, Tz::Europe__Berlin, &holidays)));
        timed(&format!("state_at  {text}"), &|| assert!(hours.state_at(now).edge.is_none_or(|edge| edge <= now)));
        timed(&format!("both ways {text}"), &|| assert!(!hours.never_open(now) || !hours.state_at(now).open));
    }
    timed("read      Mon-Fri 8-19", &|| drop(Hours::parse("Mon-Fri 8-19", Tz::UTC, &holidays)));

    for count in [50, 1_000] {
        let hours: serde_json::Map<_, _> = (0..count)
            .map(|n| (format!("team-{n}"), format!("Mo-Fr 08:00-{:02}:00; PH off", 10 + n % 14).into()))
            .collect();
        timed(&format!("read      {count} schedules"), &|| {
            let mut problems = Vec::new();
            let _ = Schedules::read(hours.clone().into(), Tz::UTC, holidays.clone(), now, &mut problems);
            assert!(problems.is_empty());
        });
    }

    let mut runner = TestRunner::new(ProptestConfig::default());
    let many = costly();
    let (mut worst, mut good, texts) = (Vec::new(), 0, cases(100_000));
    for _ in 0..texts {
        let text = many.new_tree(&mut runner).expect("a text").current();
        good += u32::from(use_of(&text, &holidays).is_ok());
        let time = || {
            let begun = Instant::now();
            let _ = use_of(&text, &holidays);
            begun.elapsed()
        };
        // Once more where it was slow: another process may have had the core.
        let first = time();
        let slow = first > Duration::from_millis(1);
        worst.push((if slow { (0..5).map(|_| time()).fold(first, Duration::min) } else { first }, text));
        worst.sort_by(|a, b| b.cmp(a));
        worst.truncate(5);
    }
    println!("{texts} texts at {}, of which {good} can be read; the slowest:", Utc::now().date_naive());
    for (time, text) in worst {
        println!("{time:?}  {text}");
    }
}
