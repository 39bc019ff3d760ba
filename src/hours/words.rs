//! What people write → the language: `weekdays 9am to 5pm`, `8-20 Mo-Fr`, `Mon/Wed/Fri 9-17`.
//!
//! A text is cut into words, words into runs of days, times and `off`, and runs into rules. What no rule is made of, or
//! could be two, isn't guessed; neither is a word dropped that might say less than all of it: `every other Monday`.

use super::repair::{DAYS, MONTHS};

/// A piece of a text that people write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Days(String),
    Month(&'static str),
    /// A day of a month, or a year.
    Number(String),
    /// The first of a month, or its nth weekday: `1st`, `last`.
    Nth(i8),
    Time(Clock),
    /// Closed, before or after its days.
    Off,
    /// Closed, before its days: `except Sundays`.
    Except,
    /// `,`
    And,
    /// `-`
    To,
    /// `;`
    Then,
    /// What stays as it is: `[1]`, `week`, `easter`, `24/7`.
    Other(String),
}

/// A time as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    minutes: u16,
    /// Whether it is after noon, where that is written.
    pm: Option<bool>,
    /// Whether it may be in either half of the day: `9`, `9:30`, but not `09:30` or `19`.
    either: bool,
    /// Whether it has only hours, and so may be a number.
    bare: bool,
}

/// What a run of words says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Days,
    Times,
    Off,
    Except,
}

/// Words of one kind, and whether a comma stands before them.
#[derive(Clone, Debug)]
struct Run {
    kind: Kind,
    words: Vec<Word>,
    comma: bool,
}

/// Minutes of a day.
const NOON: u16 = 12 * 60;
const DAY: u16 = 24 * 60;

/// Writes the words that people use as the language's.
pub(super) fn written(text: &str) -> Option<String> {
    let words = words(text);
    let mut rules: Vec<String> = Vec::new();
    for part in words.split(|word| *word == Word::Then).filter(|part| !part.is_empty()) {
        let first = rules.len();
        for (days, times, off) in rules_of(&runs(part)?)? {
            let days = days.map_or_else(String::new, |run| days_of(&run.words));
            let times = times.map_or(Some(String::new()), |run| times_of(&run.words))?;
            match rules[first..].last_mut().filter(|last| !off && last.strip_prefix(&*days).is_some_and(is_times)) {
                // `Mo-Fr 8-12, Mo-Fr 13-17`.
                Some(last) if !times.is_empty() => last.push_str(&format!(",{times}")),
                _ => {
                    let parts = [days, times, if off { "off".to_owned() } else { String::new() }];
                    rules.push(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "));
                }
            }
        }
    }
    (!rules.is_empty()).then(|| rules.join("; "))
}

fn is_times(rest: &str) -> bool {
    rest.contains(':') && rest.chars().all(|c| c.is_ascii_digit() || ":-, ".contains(c))
}

/// Whether a text says at what time of the day something is, or may: `Dec 9-17`.
pub(super) fn have_times(text: &str) -> bool {
    let words = words(text);
    let is_hour = |word: &Word| matches!(word, Word::Number(day) if day.parse::<u8>().is_ok_and(|day| day <= 24));
    words.iter().any(|word| matches!(word, Word::Time(_)) || *word == Word::Other(ALWAYS.to_owned()))
        || words
            .windows(4)
            .any(|it| matches!(it, [Word::Month(_), begin, Word::To, end] if is_hour(begin) && is_hour(end)))
}

/// Whether a text says when something is.
pub(super) fn say_when(text: &str) -> bool {
    let other = |word: &Word| matches!(word, Word::Other(_) | Word::And | Word::To | Word::Then);
    words(text).iter().any(|word| !other(word))
}

const ALWAYS: &str = "24/7";
/// Stands for `24/7` while a text is cut.
const ALWAYS_CHAR: char = '\u{221e}';
/// Stands for `st`, `nd`, `rd` and `th` after a number.
const NTH_CHAR: char = '\u{ba}';

fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for piece in pieces(&plain(text)) {
        push(&mut words, &piece);
    }
    words
}

/// Writes what is more than one piece as one: dates, `9 a.m.`, `24x7`, `mo#1`, `friL`, `8h30`.
fn plain(text: &str) -> String {
    let mut text = text.replace(['_', '|'], " ");
    for (phrase, by) in [
        (" of the month", ""),
        (" of each month", ""),
        (" of every month", ""),
        ("every day", "daily"),
        ("a.m.", "am"),
        ("p.m.", "pm"),
        ("24x7", "24/7"),
        ("...", "-"),
        ("..", "-"),
    ] {
        while let Some(at) = text.to_ascii_lowercase().find(phrase) {
            text.replace_range(at..at + phrase.len(), by);
        }
    }
    let text = text.replace(ALWAYS, &ALWAYS_CHAR.to_string());
    let chars: Vec<char> = text.chars().collect();
    let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    let letter = |at: usize| chars.get(at).is_some_and(|c| c.is_alphabetic());
    let word = |from: usize, to: usize| chars.get(from..to).unwrap_or_default().iter().collect::<String>();
    let mut plain = String::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let starts = at == 0 || !digit(at - 1);
        let date = word(at, at + 10);
        let nth = word(at, at + 2).to_ascii_lowercase();
        if starts && !digit(at + 10) && is_date(&date) {
            let month = date[5..7].parse().ok().and_then(|month: usize| MONTHS.get(month.wrapping_sub(1)));
            match month {
                Some((month, _)) => plain.push_str(&format!("{} {month} {}", &date[..4], &date[8..])),
                None => plain.push_str(&date),
            }
            at += 10;
            continue;
        }
        if !starts && ["st", "nd", "rd", "th"].contains(&nth.as_str()) && !letter(at + 2) {
            plain.push(NTH_CHAR);
            at += 2;
            continue;
        }
        match c {
            'h' | 'H' if !starts && digit(at + 1) && digit(at + 2) && !digit(at + 3) => plain.push(':'),
            // `Mo-Fr:8-19`: no time's.
            ':' if starts => plain.push_str(": "),
            '#' if digit(at + 1) && !digit(at + 2) => {
                plain.push_str(&format!("[{}]", chars[at + 1]));
                at += 1;
            }
            // `friL`: the last of its weekday.
            'L' | 'l' if at >= 3 && !letter(at + 1) && is_day(&word(at - 3, at)) && !(at > 3 && letter(at - 4)) => {
                plain.push_str("[-1]");
            }
            c => plain.push(c),
        }
        at += 1;
    }
    plain
}

fn is_date(text: &str) -> bool {
    text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).eq("0000-00-00".chars())
}

fn is_day(word: &str) -> bool {
    DAYS.iter().any(|(_, names)| names.contains(&word.to_lowercase().as_str()))
}

/// Cuts a text at blanks and marks, and between letters and digits.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let kind = |c: char| match c {
        _ if c.is_ascii_digit() || c == ':' || c == '.' => 0,
        NTH_CHAR => 3,
        _ if c.is_alphabetic() => 1,
        '[' | ']' => 2,
        _ => 3,
    };
    let mut bracket = false;
    let mut joined = false;
    for c in text.chars() {
        if c == ' ' {
            joined = false;
            continue;
        }
        let same = pieces
            .last()
            .and_then(|piece| piece.chars().next_back())
            .is_some_and(|last| kind(last) == kind(c) && kind(c) < 2);
        match pieces.last_mut() {
            Some(piece) if bracket || (joined && same) => piece.push(c),
            _ => pieces.push(c.to_string()),
        }
        bracket = (bracket || c == '[') && c != ']';
        joined = true;
    }
    pieces
}

fn push(words: &mut Vec<Word>, piece: &str) {
    let lower = piece.trim_matches('.').to_lowercase();
    let day = DAYS.iter().find(|(_, names)| names.contains(&lower.as_str())).map(|(day, _)| *day);
    let is_month = |(short, long): &(&str, &str)| {
        lower.len() > 2 && (long.starts_with(&lower) || lower == format!("{}t", short.to_lowercase()))
    };
    let month = MONTHS.iter().position(is_month);
    let word = match lower.as_str() {
        "" => return,
        "weekday" | "weekdays" | "workday" | "workdays" => return push_days(words, "Mo-Fr"),
        "weekend" | "weekends" => return push_days(words, "Sa,Su"),
        "daily" | "everyday" => return push_days(words, "Mo-Su"),
        "ph" | "holiday" | "holidays" => return push_days(words, "PH"),
        "off" | "closed" | "close" => Word::Off,
        "except" | "excluding" | "without" | "not" | "no" => {
            // `but not`, `, except`.
            if words.last() == Some(&Word::And) {
                words.pop();
            }
            Word::Except
        }
        "to" | "until" | "till" | "through" | "thru" | "-" => Word::To,
        "and" | "&" | "," | "but" if words.last() == Some(&Word::And) => return,
        "and" | "&" | "," | "but" => Word::And,
        "/" | "+" if matches!(words.last(), Some(Word::Days(_) | Word::Time(_))) => Word::And,
        ";" => Word::Then,
        ":" if matches!(words.last(), Some(Word::Days(_))) => return,
        "from" | "between" | "at" | "on" | "open" | "public" | "bank" => return,
        // Only after a time: `business hours` says none.
        "hours" | "hrs" | "h" | "uhr" if matches!(words.last(), Some(Word::Time(_))) => return,
        "every" | "each" => Word::Other("every".to_owned()),
        "first" => Word::Nth(1),
        "second" => Word::Nth(2),
        "third" => Word::Nth(3),
        "fourth" => Word::Nth(4),
        "last" => Word::Nth(-1),
        "noon" => Word::Time(Clock { minutes: NOON, pm: None, either: false, bare: false }),
        "midnight" => {
            let minutes = if words.last() == Some(&Word::To) { DAY } else { 0 };
            Word::Time(Clock { minutes, pm: None, either: false, bare: false })
        }
        "am" | "a" => return half_day(words, false),
        "pm" | "p" => return half_day(words, true),
        _ if piece.starts_with(NTH_CHAR) => return nth(words),
        _ if piece.starts_with(ALWAYS_CHAR) => Word::Other(ALWAYS.to_owned()),
        _ if day.is_some() || month.is_some() => match (day, month) {
            (Some(day), _) => return push_days(words, day),
            (None, month) => return push_month(words, month.unwrap_or_default()),
        },
        _ if lower.starts_with(|c: char| c.is_ascii_digit()) => return number(words, &lower),
        _ => Word::Other(piece.to_owned()),
    };
    words.push(word);
}

/// `every Monday`, `first Monday`, `last Friday`.
fn push_days(words: &mut Vec<Word>, days: &str) {
    let days = Word::Days(days.to_owned());
    match words.last() {
        Some(Word::Nth(nth)) if is_one(&days) && !matches!(words.as_slice(), [.., Word::Other(_), _]) => {
            let nth = Word::Other(format!("[{nth}]"));
            words.pop();
            words.extend([days, nth]);
        }
        Some(Word::Other(other)) if other == "every" => {
            words.pop();
            words.push(days);
        }
        _ => words.push(days),
    }
}

fn is_one(days: &Word) -> bool {
    matches!(days, Word::Days(days) if days.len() == 2 && days != "PH")
}

/// `25 Dec`, `1st Jan`: a number at the beginning of a rule, or of one more date.
fn push_month(words: &mut Vec<Word>, month: usize) {
    let month = Word::Month(MONTHS[month].0);
    let day = match words.last() {
        Some(Word::Nth(day @ 1..)) => Some(day.to_string()),
        Some(Word::Time(Clock { minutes, bare: true, .. })) => Some((minutes / 60).to_string()),
        _ => None,
    };
    let begins = matches!(words.as_slice(), [_] | [.., Word::Then | Word::And | Word::Except | Word::Off, _]);
    match day {
        Some(day) if begins => {
            words.pop();
            words.extend([month, Word::Number(day)]);
        }
        _ => words.push(month),
    }
}

/// `Dec 25th`, `1st`.
fn nth(words: &mut [Word]) {
    let Some(last) = words.last_mut() else { return };
    if let Word::Time(Clock { minutes, bare: true, .. }) = last
        && let nth @ 1..=5 = *minutes / 60
    {
        *last = Word::Nth(nth as i8);
    }
}

/// `9 am`, `12 pm`.
fn half_day(words: &mut Vec<Word>, after_noon: bool) {
    match words.last_mut() {
        Some(Word::Time(clock)) => clock.pm = clock.pm.or(Some(after_noon)),
        // `Dec 24, 9am`: no day of a month.
        Some(last @ Word::Number(_)) => {
            let Word::Number(number) = &*last else { return };
            let minutes = number.parse::<u16>().map_or(0, |hour| hour.min(24) * 60);
            *last = Word::Time(Clock { minutes, pm: Some(after_noon), either: true, bare: true });
        }
        _ => words.push(Word::Other("am".to_owned())),
    }
}

/// A time, a day of the month or a year: after a month, and in its list or range, a day.
fn number(words: &mut Vec<Word>, digits: &str) {
    let parts: Vec<&str> = digits.split([':', '.']).collect();
    let value = |text: &str| text.parse::<u16>().ok();
    let time = match parts.as_slice() {
        [hours, minutes, ..] if minutes.len() == 2 => value(hours).zip(value(minutes)),
        [hours] if hours.len() <= 2 => value(hours).map(|hours| (hours, 0)),
        [both] if both.len() == 4 => value(&both[..2]).zip(value(&both[2..])),
        _ => None,
    };
    // `Jan/3`, as Instance Scheduler writes each third month.
    if let ([.., Word::Month(month), Word::Other(slash)], Some(step @ 1..=6)) = (words.as_slice(), value(digits))
        && slash == "/"
        && let Some(first) = MONTHS.iter().position(|(name, _)| name == month)
    {
        let others = MONTHS[first..].iter().step_by(step.into()).skip(1).map(|(month, _)| Word::Month(month));
        let others: Vec<Word> = others.flat_map(|month| [Word::And, month]).collect();
        words.pop();
        words.extend(others.into_iter().chain([Word::Other(":".to_owned())]));
        return;
    }
    let is_last = |word: &Word| matches!(word, Word::And | Word::To);
    let chain = words.iter().rev().take_while(|word| matches!(word, Word::Number(_) | Word::And)).count();
    let listed = matches!(words.get(words.len() - chain.min(words.len())..), Some([Word::Number(_), ..]))
        && matches!(words.get(words.len().wrapping_sub(chain + 1)), Some(Word::Month(_)));
    let of_month = parts.len() == 1
        && match words.as_slice() {
            [.., Word::Month(_)] => true,
            [.., Word::Month(_), Word::Number(_), last] => is_last(last),
            // `Dec 24, 25, 26`, `Dec 24-26, 31`.
            [.., Word::Number(_), Word::And] => listed || value(digits).is_some_and(|day| (25..=31).contains(&day)),
            _ => false,
        };
    let year = matches!(value(digits), Some(2000..=2099))
        && parts.len() == 1
        && !matches!(words.as_slice(), [.., Word::To | Word::Days(_)]);
    let hour = parts[0];
    words.push(match time {
        _ if year || of_month => Word::Number(digits.to_owned()),
        Some((hours, minutes)) if hours <= 48 && minutes < 60 => Word::Time(Clock {
            minutes: hours * 60 + minutes,
            pm: None,
            either: (1..=12).contains(&hours) && hour.len() <= 2 && !hour.starts_with('0'),
            bare: parts.len() == 1 && digits.len() <= 2,
        }),
        _ => Word::Other(digits.to_owned()),
    });
}

/// Parts words into runs of one kind.
fn runs(words: &[Word]) -> Option<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut between: Option<&Word> = None;
    for word in words {
        let kind = match word {
            Word::And | Word::To => {
                if between.is_some() {
                    return None;
                }
                between = Some(word);
                continue;
            }
            Word::Time(_) => Kind::Times,
            Word::Other(always) if always == ALWAYS => Kind::Times,
            Word::Off => Kind::Off,
            Word::Except => Kind::Except,
            Word::Days(_) | Word::Month(_) | Word::Number(_) | Word::Other(_) => Kind::Days,
            Word::Nth(_) | Word::Then => return None,
        };
        match runs.last_mut().filter(|run| run.kind == kind) {
            Some(run) => {
                // `08:00-12:00 13:00-17:00`; but in `1-5 8-19` those may be days.
                let missing = kind == Kind::Times && between.is_none();
                if missing && (run.words.last().is_some_and(is_bare) || is_bare(word)) {
                    return None;
                }
                run.words.extend(between.take().or(missing.then_some(&Word::And)).into_iter().chain([word]).cloned());
            }
            None => {
                // `Mo-Fr-8-19` is `Mo-Fr 8-19`.
                let comma = between.take() == Some(&Word::And);
                runs.push(Run { kind, words: vec![word.clone()], comma });
            }
        }
    }
    // `Mo-Fr 8-`
    (between != Some(&Word::To)).then_some(runs)
}

/// Whether a time may be any other number.
fn is_bare(word: &Word) -> bool {
    matches!(word, Word::Time(Clock { bare: true, pm: None, .. }))
}

/// Days, times, and whether they are off.
type Rule = (Option<Run>, Option<Run>, bool);

/// Parts runs into rules; none, if they could be parted in two ways.
fn rules_of(runs: &[Run]) -> Option<Vec<Rule>> {
    use Kind::{Days, Except, Off, Times};
    let run = |at: usize| runs.get(at).cloned();
    let kinds: Vec<Kind> = runs.iter().map(|run| run.kind).collect();
    let mut at = 0;
    let mut rules = Vec::new();
    match kinds.as_slice() {
        [Days] => return Some(vec![(run(0), None, false)]),
        [Times] => return Some(vec![(None, run(0), false)]),
        [Off] => return Some(vec![(None, None, true)]),
        [Times, Off] => return Some(vec![(None, run(0), true)]),
        [Days, Times, Off] if !runs[2].comma => return Some(vec![(run(0), run(1), true)]),
        // `8-19, Sa,Su off`; `9-5 Mon-Fri, Sat off`
        [Times, Days, Off] if runs[1].comma => return Some(vec![(None, run(0), false), (run(1), None, true)]),
        [Times, Days, Off] => {
            let mut parts = runs[1].words.split(|word| *word == Word::And);
            let (Some(on), Some(off), None) = (parts.next(), parts.next(), parts.next()) else { return None };
            let days = |words: &[Word]| Some(Run { kind: Days, words: words.to_vec(), comma: false });
            return Some(vec![(days(on), run(0), false), (days(off), None, true)]);
        }
        // `1-5 Jan 9-17`: those may be days.
        [Times, Days, ..] if matches!(runs[1].words[0], Word::Month(_)) && runs[0].words.iter().any(is_bare) => {
            return None;
        }
        [Times, Days, ..] => {
            while let Some([Times, Days]) = kinds.get(at..at + 2) {
                rules.push((run(at + 1), run(at), false));
                at += 2;
            }
        }
        [Times, Off | Except, Days, ..] => {
            rules.push((None, run(0), false));
            at = 1;
        }
        _ => {
            while let Some([Days, then @ (Times | Off)]) = kinds.get(at..at + 2) {
                rules.push((run(at), run(at + 1).filter(|_| *then == Times), *then == Off));
                at += 2;
            }
        }
    }
    while let Some([Off | Except, Days]) = kinds.get(at..at + 2) {
        rules.push((run(at + 1), None, true));
        at += 2;
    }
    (at == runs.len()).then_some(rules)
}

fn days_of(words: &[Word]) -> String {
    let mut text = String::new();
    // The month of the last date.
    let mut month = "";
    for (n, word) in words.iter().enumerate() {
        let previous = n.checked_sub(1).and_then(|n| words.get(n));
        match (previous, word) {
            (None | Some(Word::To | Word::And), _) | (_, Word::To | Word::And) => {}
            // `Mo[1]`, `Jan:`; `Mo Tu` is a list.
            (_, Word::Other(other)) if other.starts_with(['[', ':']) => {}
            (Some(Word::Days(_)), Word::Days(_)) => text.push(','),
            _ => text.push(' '),
        }
        match word {
            Word::Month(name) => {
                month = name;
                text.push_str(name);
            }
            // `Dec 24,25` is `Dec 24,Dec 25`.
            Word::Number(number) if previous == Some(&Word::And) && number.len() < 4 => {
                text.push_str(&format!("{month} {number}"));
            }
            Word::Days(written) | Word::Number(written) | Word::Other(written) => text.push_str(written),
            Word::And => text.push(','),
            Word::To => text.push('-'),
            Word::Nth(_) | Word::Time(_) | Word::Off | Word::Except | Word::Then => {}
        }
    }
    // `Jan/3`, where no days follow.
    text.trim_end_matches(':').to_owned()
}

/// `8-12 and 13-17`; nothing, if it isn't times with a begin and an end.
fn times_of(words: &[Word]) -> Option<String> {
    if let [Word::Other(always)] = words {
        return Some(always.clone());
    }
    let span = |words: &[Word]| match words {
        [Word::Time(begin), Word::To, Word::Time(end)] => between(*begin, *end),
        _ => None,
    };
    let spans: Vec<(u16, u16)> = words.split(|word| *word == Word::And).map(span).collect::<Option<_>>()?;
    let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    Some(spans.iter().map(|(from, to)| format!("{}-{}", time(*from), time(*to))).collect::<Vec<_>>().join(","))
}

/// Reads a begin and an end as people do: what has no half of the day is in the one in which the time between them is
/// shorter (`1-5pm`, `9am-5`), and `9-5` ends in the afternoon.
fn between(begin: Clock, end: Clock) -> Option<(u16, u16)> {
    let length = |from: u16, to: u16| (to + DAY - from % DAY) % DAY;
    let halves = |clock: Clock| [clock.minutes % NOON, clock.minutes % NOON + NOON];
    let written = |clock: Clock| match clock.pm.filter(|_| clock.minutes < 13 * 60) {
        Some(pm) => halves(clock)[usize::from(pm)],
        None => clock.minutes,
    };
    let nearest = |of: Clock, length: &dyn Fn(u16) -> u16| {
        let longer = halves(of).into_iter().filter(|time| length(*time) > 0);
        longer.min_by_key(|time| length(*time))
    };
    let (from, to) = (written(begin), written(end));
    let (from, to) = match (begin.pm, end.pm) {
        (Some(_), None) if end.either => (from, nearest(end, &|to| length(from, to))?),
        (None, Some(_)) if begin.either => (nearest(begin, &|from| length(from, to))?, to),
        (None, None) if end.either && to <= from && from <= NOON && to < NOON => (from, to + NOON),
        _ => (from, to),
    };
    // `12-12`: noon or midnight? A whole day is written 0-0, or 0-24.
    let same = from % DAY == to % DAY;
    (from < DAY && (!same || from == 0)).then_some((from, if same { DAY } else { to }))
}
