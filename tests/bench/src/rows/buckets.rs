//! Switching more instances than EC2's token buckets hold, alone and next to another client.

use std::time::Duration;

use ec2_sim::{Fault, Sim};

use super::{Measured, tell};
use crate::Bench;
use crate::cloud::{self, Buckets, START, STOP, Way};
use crate::other::{Other, SHARE};
use crate::table::Row;

/// How long a start takes here; AWS's tens of seconds would only be added to the buckets' time.
const START_TAKES: Duration = Duration::from_millis(100);

/// An action on so many instances that it has to wait for tokens.
struct Job {
    what: &'static str,
    way: Way,
    count: usize,
    buckets: Buckets,
}

const JOBS: [Job; 2] = [
    Job { what: "stop 5,000 in one region", way: Way::Stop, count: 5000, buckets: STOP },
    Job { what: "start 1,500 in one region", way: Way::Start, count: 1500, buckets: START },
];

/// Measures each job as the only client.
pub(crate) async fn buckets(bench: &Bench) -> Measured {
    let mut rows = Vec::new();
    for job in &JOBS {
        for _ in 0..bench.runs(1) {
            let sim = job.cloud(bench).await;
            let took = job.run(bench, &sim).await?;
            rows.push(Row::times(format!("{}, against the bucket bound", job.what), took, job.bound(bench), 1.05));
            rows.push(Row::at_most("the same, throttled answers", throttled(&sim, None), 0, |calls| calls.to_string()));
        }
    }
    Ok(rows)
}

/// Measures each job while another client takes a fifth of what comes into the buckets.
pub(crate) async fn shared(bench: &Bench) -> Measured {
    let mut rows = Vec::new();
    for job in &JOBS {
        for _ in 0..bench.runs(1) {
            let sim = job.cloud(bench).await;
            let other = Other::join(&sim, job.way, job.buckets, bench.scale);
            let took = tokio::select! {
                took = job.run(bench, &sim) => took?,
                stopped = other.run() => return Err(format!("the other client gave up: {stopped:?}")),
            };
            let part = other.instances() as f64 / (job.buckets.instances.1 * bench.scale * took.as_secs_f64());
            rows.push(Row::times(format!("{}, another client takes a fifth", job.what), took, job.bound(bench), 1.35));
            rows.push(Row::stated(
                "the same, the other's part of the refill",
                format!("{:.1} %", part * 100.0),
                format!("{:.0} %", SHARE * 100.0),
            ));
            let throttled = throttled(&sim, Some(&other));
            rows.push(Row::stated("the same, throttled answers", throttled.to_string(), ""));
        }
    }
    Ok(rows)
}

/// In the row `poison`, one of this many is refused: 3 %, alternately with its id in the message and without.
const POISON: usize = 33;

/// Measures a stop in which EC2 refuses evenly spread instances, against the same stop without refusals.
pub(crate) async fn poison(bench: &Bench) -> Measured {
    let job = &JOBS[0];
    let mut rows = Vec::new();
    for _ in 0..bench.runs(1) {
        let mut figures = Vec::new();
        for poisoned in [true, false] {
            let sim = job.cloud(bench).await;
            let bad: Vec<String> =
                (1..=job.count).filter(|n| poisoned && n % POISON == 0).map(|n| format!("web-{n}")).collect();
            let (named, unnamed): (Vec<_>, Vec<_>) = bad.iter().enumerate().partition(|(n, _)| n % 2 == 0);
            for (_, name) in &named {
                sim.edit(name, |machine| machine.stop_protected = true);
            }
            if poisoned {
                let unnamed = unnamed.iter().map(|(_, name)| name.as_str());
                sim.fault(Fault::refuse("StopInstances", "UnsupportedOperation", "It can't be stopped.").on(unnamed));
            }
            let taken = bench.ours.run(&sim, &cloud::aws_limits(bench.scale), &job.way.event()).await?;
            tell(job.count, &bench.ours.name, &taken);
            let summary = &taken.answer["summary"];
            if summary["changed"] != job.count - bad.len() || summary["unfinished"] != 0 {
                return Err(format!("{} of {} are bad, and it said {summary}", bad.len(), job.count));
            }
            let calls = sim.calls();
            let stops: Vec<_> = calls.iter().filter(|call| call.action == "StopInstances").collect();
            figures.push((
                taken.event,
                stops.len(),
                stops.iter().map(|call| call.ids.len()).sum::<usize>(),
                calls.len(),
            ));
        }
        let [(took, stops, tokens, calls), (clean_took, clean_stops, clean_tokens, clean_calls)] = figures[..] else {
            return Err("two runs make a row".to_owned());
        };
        let what = format!("{}, 3 % of them refused, against none", job.what);
        rows.push(Row::times(what, took, clean_took, 2.0));
        rows.push(Row::counts("the same, instances' tokens", tokens, clean_tokens, 2.0));
        rows.push(Row::stated("the same, StopInstances calls", stops.to_string(), clean_stops.to_string()));
        rows.push(Row::stated("the same, all calls", calls.to_string(), clean_calls.to_string()));
    }
    Ok(rows)
}

impl Job {
    async fn cloud(&self, bench: &Bench) -> Sim {
        let sim = cloud::cloud(self.count, self.way).await;
        sim.settings(|settings| {
            settings.throttle = true;
            settings.throttle_refill = bench.scale;
            settings.start_takes = START_TAKES;
        });
        sim
    }

    /// Runs the function, checks that no instance was left out, and returns the time from event to answer.
    async fn run(&self, bench: &Bench, sim: &Sim) -> Result<Duration, String> {
        let taken = bench.ours.run(sim, &cloud::aws_limits(bench.scale), &self.way.event()).await?;
        tell(self.count, &bench.ours.name, &taken);
        cloud::check(sim, self.way, &taken)?;
        Ok(taken.event)
    }

    /// Returns the shortest possible time: the tokens that the full bucket does not hold have to come in first.
    fn bound(&self, bench: &Bench) -> Duration {
        let (size, refill) = self.buckets.instances;
        Duration::from_secs_f64((self.count as f64 - size) / (refill * bench.scale))
    }
}

/// Counts the function's throttled calls, and prints each on stderr.
fn throttled(sim: &Sim, other: Option<&Other>) -> usize {
    let calls = sim.calls();
    let begun = calls.first().map(|call| call.at);
    let refused = calls.iter().filter(|call| call.code == "RequestLimitExceeded");
    let refused: Vec<_> = refused.filter(|call| !other.is_some_and(|other| other.made(&call.ids))).collect();
    for call in &refused {
        let seconds = begun.map_or(0.0, |begun| (call.at - begun).as_seconds_f64());
        eprintln!("throttled at {seconds:.1} s: {} of {} instances", call.action, call.ids.len());
    }
    refused.len()
}
