//! Pure: what was switched, and what EC2 shows → how long each instance was kept off.
//!
//! A stop of Curfew's counts, from the moment at which the function said so to the next launch, whoever's: the function's own
//! line tells it, or, to the second, the launch time in the next stop's, or EC2's. Where nothing tells, nothing is counted.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ec2_curfew::ec2::Billing;
use ec2_curfew::instance::State;

use super::log::{Switched, To};

/// When an instance was off because of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Off {
    /// The schedule that stopped it.
    pub(super) schedule: String,
    /// From when.
    pub(super) from: DateTime<Utc>,
    /// To when.
    pub(super) to: DateTime<Utc>,
}

/// An instance that was switched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instance {
    /// Its latest name.
    pub(super) name: Option<String>,
    /// When it was kept off, cut to the time that is looked at.
    pub(super) offs: Vec<Off>,
    /// Stops after which nothing tells when it was started again, or starts before which nothing tells when it was stopped.
    pub(super) untold: usize,
}

/// An instance's account, region and id.
pub(super) type Who = (String, String, String);

/// Returns how long each was kept off between two moments.
pub(super) fn count(
    lines: &[Switched],
    shown: &BTreeMap<Who, Billing>,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> BTreeMap<Who, Instance> {
    let mut by_instance: BTreeMap<&Who, Vec<&Switched>> = BTreeMap::new();
    for line in lines {
        by_instance.entry(&line.who).or_default().push(line);
    }
    let mut all = BTreeMap::new();
    for (who, lines) in by_instance {
        let mut instance =
            Instance { name: lines.iter().rev().find_map(|line| line.name.clone()), ..Instance::default() };
        let mut stopped: Option<&Switched> = None;
        for (n, line) in lines.iter().enumerate() {
            let before = stopped.take();
            match (before, &line.to) {
                (Some(stop), To::On) => {
                    // The line comes when the start is through, with those of others; EC2 knows the moment.
                    let launched = match lines.get(n + 1).map(|next| &next.to) {
                        Some(To::Off { launched }) => *launched,
                        Some(To::On) => None,
                        None => shown.get(who).map(|it| it.launch_time),
                    };
                    let exact = launched.filter(|launched| *launched > stop.at && *launched < line.at);
                    instance.add(stop, exact.unwrap_or(line.at), (from, to));
                }
                (None, To::On) => instance.cannot_tell(line.at, (from, to)),
                // A stop that was still under way, told twice: it was off all along.
                (Some(stop), To::Off { launched: Some(launched) }) if *launched <= stop.at => {
                    stopped = Some(stop);
                    continue;
                }
                (Some(stop), To::Off { launched: Some(launched) }) => instance.add(stop, *launched, (from, to)),
                (Some(stop), To::Off { launched: None }) => instance.cannot_tell(stop.at, (from, to)),
                (None, To::Off { .. }) => {}
            }
            stopped = matches!(line.to, To::Off { .. }).then_some(*line);
        }
        if let Some(stop) = stopped {
            match shown.get(who) {
                // Started since, even if it is off again by now: somebody else's doing.
                Some(it) if it.launch_time > stop.at => instance.add(stop, it.launch_time, (from, to)),
                Some(it) if matches!(it.state, State::Stopping | State::Stopped) => instance.add(stop, to, (from, to)),
                _ => instance.cannot_tell(stop.at, (from, to)),
            }
        }
        if !instance.offs.is_empty() || instance.untold > 0 {
            all.insert(who.clone(), instance);
        }
    }
    all
}

impl Instance {
    fn add(&mut self, stop: &Switched, end: DateTime<Utc>, (from, to): (DateTime<Utc>, DateTime<Utc>)) {
        let (begin, end) = (stop.at.max(from), end.min(to));
        if begin < end {
            self.offs.push(Off { schedule: stop.schedule.clone(), from: begin, to: end });
        }
    }

    fn cannot_tell(&mut self, at: DateTime<Utc>, (from, to): (DateTime<Utc>, DateTime<Utc>)) {
        self.untold += usize::from(from <= at && at < to);
    }
}
