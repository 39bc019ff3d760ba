//! Many accounts and regions in one invocation, with the latency of a distant region.

use std::fs::read_to_string;
use std::time::Duration;

use ec2_sim::Sim;
use serde_json::json;

use super::{Measured, tell};
use crate::Bench;
use crate::cloud::{self, Way};
use crate::table::{Row, median, megabytes, time};

const ACCOUNTS: usize = 500;
const REGIONS: [&str; 4] = ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1"];
const INSTANCES: usize = 10;
const LATENCY: Duration = Duration::from_millis(50);
const RUNS: u16 = 3;
/// The bound on open files: Lambda allows 1,024 (Lambda developer guide, "Lambda quotas").
const MOST_FILES: usize = 900;
/// The open files that this process needs: the simulated EC2 has a socket for each of the function's.
const OWN_FILES: usize = 4096;

/// Measures 500 accounts in 4 regions.
pub(crate) async fn accounts(bench: &Bench) -> Measured {
    if may_open().is_some_and(|files| files < OWN_FILES) {
        return Err(format!("this process may open too few files: ulimit -n {OWN_FILES}"));
    }
    let ids: Vec<String> = (1..=ACCOUNTS).map(|n| format!("{:012}", 111_100_000_000 + n)).collect();
    let mut event = Way::Stop.event();
    event["accounts"] = json!(ids);
    event["role"] = json!("curfew-member");
    event["regions"] = json!(REGIONS);

    let (mut times, mut cpu, mut memory, mut files) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..bench.runs(RUNS) {
        let sim = Sim::start().await;
        sim.settings(|settings| settings.latency = LATENCY);
        for id in &ids {
            for region in REGIONS {
                sim.add_many(INSTANCES, |number| cloud::ours(number, Way::Stop).account(id).region(region));
            }
        }
        let taken = bench.ours.run(&sim, &cloud::no_limits(), &event).await?;
        tell(ACCOUNTS * REGIONS.len() * INSTANCES, &bench.ours.name, &taken);
        cloud::check(&sim, Way::Stop, &taken)?;
        times.push(taken.event);
        cpu.push(taken.cpu);
        memory = memory.max(taken.memory);
        files = files.max(taken.files);
    }
    let what = format!("{ACCOUNTS} accounts x {} regions x {INSTANCES} instances, 50 ms a call", REGIONS.len());
    Ok(vec![
        Row::at_most(what, median(times), Duration::from_secs(15), time),
        Row::at_most("the same, peak memory", memory, 256 << 20, megabytes),
        Row::at_most("the same, open files", files, MOST_FILES, |files| files.to_string()),
        Row::stated("the same, CPU", time(median(cpu)), ""),
    ])
}

/// Returns how many files this process may open, if there is a limit.
fn may_open() -> Option<usize> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}
