//! From the start of a process to its answer: a cold start, except for fetching the code.

use std::time::Duration;

use super::{Measured, stop_fleet};
use crate::Bench;
use crate::function::{Function, Taken};
use crate::table::{Row, median, megabytes};

/// So few instances that the start takes most of the time.
const INSTANCES: usize = 10;
/// How many processes of each function; they take milliseconds.
const RUNS: u16 = 20;

/// What the processes of one function cost.
#[derive(Default)]
struct Starts {
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
    memory: u64,
}

impl Starts {
    fn note(&mut self, taken: &Taken) {
        self.wall.push(taken.since_start);
        self.cpu.push(taken.cpu);
        self.memory = self.memory.max(taken.memory);
    }
}

/// Measures process start to answer, against boto3.
pub(crate) async fn start(bench: &Bench) -> Measured {
    let [ours, rival] = race([&bench.ours, &bench.rival], bench.runs(RUNS)).await?;
    Ok(vec![
        Row::share(
            format!("process start to answer, {INSTANCES} instances, against boto3"),
            median(ours.wall),
            median(rival.wall),
            20.0,
        ),
        Row::share("the same, CPU", median(ours.cpu), median(rival.cpu), 25.0),
        Row::stated("the same, peak memory", megabytes(ours.memory), megabytes(rival.memory)),
    ])
}

/// Measures process start to answer of several builds, each against the first.
pub(crate) async fn settings(bench: &Bench) -> Measured {
    let [first, others @ ..] = bench.variants.as_slice() else {
        return Err("name the builds: --variant shipped=FILE --variant other=FILE".to_owned());
    };
    let mut rows = Vec::new();
    for other in others {
        let [base, tried] = race([first, other], bench.runs(RUNS)).await?;
        let against = format!("start of {}, against {}", other.described(), first.described());
        rows.push(Row::beside(against, median(tried.wall), median(base.wall)));
        rows.push(Row::beside("the same, CPU", median(tried.cpu), median(base.cpu)));
        rows.push(Row::stated("the same, peak memory", megabytes(tried.memory), megabytes(base.memory)));
    }
    Ok(rows)
}

/// Runs two functions in turn, so that other load on the machine affects both alike.
async fn race(functions: [&Function; 2], runs: u16) -> Result<[Starts; 2], String> {
    let mut starts = [Starts::default(), Starts::default()];
    // The first run of each, which isn't counted, fills the kernel's file cache and Python's bytecode cache.
    for run in 0..=runs {
        for (function, starts) in functions.iter().zip(&mut starts) {
            let (taken, _) = stop_fleet(function, INSTANCES).await?;
            if run > 0 {
                starts.note(&taken);
            }
        }
    }
    Ok(starts)
}
