//! What large fleets cost in CPU, memory and calls, without token buckets.

use super::{Measured, stop_fleet};
use crate::Bench;
use crate::table::{Row, median, megabytes};

const LARGE: usize = 10_000;
const HUGE: usize = 100_000;
/// Instances on EC2's largest page (API reference, DescribeInstances).
const PAGE: usize = 1000;
const RUNS: u16 = 5;

/// Measures CPU for a large fleet against boto3, and for a huge fleet against a large one.
pub(crate) async fn cpu(bench: &Bench) -> Measured {
    let (mut ours, mut rival, mut huge) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.runs(RUNS) {
        ours.push(stop_fleet(&bench.ours, LARGE).await?.0.cpu);
        rival.push(stop_fleet(&bench.rival, LARGE).await?.0.cpu);
        huge.push(stop_fleet(&bench.ours, HUGE).await?.0.cpu);
    }
    let (ours, rival, huge) = (median(ours), median(rival), median(huge));
    let each = "CPU per instance, 100,000 instances, against 10,000";
    Ok(vec![
        Row::share("CPU for 10,000 instances, against boto3", ours, rival, 12.0),
        Row::times(each, huge / HUGE as u32, ours / LARGE as u32, 1.15),
    ])
}

/// Measures peak memory and DescribeInstances calls for a huge fleet.
pub(crate) async fn memory(bench: &Bench) -> Measured {
    let (mut memory, mut descriptions) = (0, 0);
    for _ in 0..bench.runs(1) {
        let (taken, calls) = stop_fleet(&bench.ours, HUGE).await?;
        memory = memory.max(taken.memory);
        descriptions = descriptions.max(calls);
    }
    Ok(vec![
        Row::at_most("peak memory, 100,000 running instances to stop", memory, 64 << 20, megabytes),
        Row::at_most("the same, DescribeInstances calls", descriptions, HUGE.div_ceil(PAGE), |calls| calls.to_string()),
    ])
}
