//! A week, minute by minute: what others' schedules want in it → running hours as people would write them.

/// Minutes of a day.
pub(super) const DAY: usize = 24 * 60;
/// Minutes of a week, which begins on Monday.
pub(super) const WEEK: usize = 7 * DAY;
const NAMES: [&str; 7] = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];

/// What a schedule wants at a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Running.
    On,
    /// Stopped.
    Off,
    /// Nothing: it stays as it is.
    Any,
}

/// A week in which each minute is open or not.
pub(super) struct Week(pub(super) Vec<bool>);

/// Carries what is wanted on into the minutes at which nothing is; none if nothing ever is.
pub(super) fn carry_on(wants: &[Want]) -> Option<Week> {
    let first = wants.iter().position(|want| *want != Want::Any)?;
    let mut open = vec![false; wants.len()];
    let mut on = false;
    for minute in (first..wants.len()).chain(0..first) {
        match wants[minute] {
            Want::On => on = true,
            Want::Off => on = false,
            Want::Any => {}
        }
        open[minute] = on;
    }
    Some(Week(open))
}

impl Week {
    /// Returns what is open without a break: its first minute, and how many. Nothing if all or none is.
    fn runs(&self) -> Vec<(usize, usize)> {
        let n = self.0.len();
        let begins = (0..n).filter(|minute| self.0[*minute] && !self.0[(minute + n - 1) % n]);
        begins.map(|begin| (begin, (begin..).take_while(|minute| self.0[minute % n]).count())).collect()
    }

    /// Whether it is open for longer than a day at a stretch.
    pub(super) fn is_open_over_days(&self) -> bool {
        self.0.iter().all(|open| *open) || self.runs().iter().any(|(_, minutes)| *minutes > DAY)
    }

    /// Writes it as hours; none if it is never open.
    pub(super) fn write(&self) -> Option<String> {
        if self.0.iter().all(|open| *open) {
            return Some("24/7".to_owned());
        }
        let mut days: [Vec<(usize, usize)>; 7] = Default::default();
        for (begin, minutes) in self.runs() {
            let (day, from) = (begin / DAY, begin % DAY);
            // A night belongs to the day on which it begins.
            if minutes < DAY {
                days[day].push((from, from + minutes));
                continue;
            }
            let mut left = minutes;
            let mut from = from;
            for day in day.. {
                let today = left.min(DAY - from);
                days[day % 7].push((from, from + today));
                (left, from) = (left - today, 0);
                if left == 0 {
                    break;
                }
            }
        }
        let mut rules: Vec<(Vec<usize>, String)> = Vec::new();
        for (day, spans) in days.iter_mut().enumerate().filter(|(_, spans)| !spans.is_empty()) {
            spans.sort_unstable();
            let times = spans.iter().map(|(from, to)| times(*from, *to)).collect::<Vec<_>>().join(",");
            match rules.iter_mut().find(|(_, same)| *same == times) {
                Some((days, _)) => days.push(day),
                None => rules.push((vec![day], times)),
            }
        }
        let rules: Vec<_> = rules.iter().map(|(days, times)| format!("{} {times}", weekdays(days))).collect();
        (!rules.is_empty()).then(|| rules.join("; "))
    }
}

/// Writes times of a day, of which the end may be on the next.
pub(super) fn times(from: usize, to: usize) -> String {
    let to = if to > DAY { to - DAY } else { to };
    format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
}

/// Writes weekdays, Monday being 0.
pub(super) fn weekdays(days: &[usize]) -> String {
    ranges(days)
        .into_iter()
        .map(|(first, last)| joined(NAMES[first], NAMES[last], last - first))
        .collect::<Vec<_>>()
        .join(",")
}

/// Returns a weekday's name, Monday being 0.
pub(super) fn weekday(day: usize) -> &'static str {
    NAMES[day % 7]
}

/// Writes a first and a last as people do: one, two, or a range.
pub(super) fn joined(first: &str, last: &str, apart: usize) -> String {
    match apart {
        0 => first.to_owned(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    }
}

/// Returns the stretches of numbers that follow each other.
pub(super) fn ranges(numbers: &[usize]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}
