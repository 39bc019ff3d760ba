//! The rows of the table: what each sets up, runs and checks, and its bound.

mod accounts;
mod buckets;
mod fleet;
mod start;
mod tick;

pub(crate) use accounts::accounts;
pub(crate) use buckets::{buckets, poison, shared};
pub(crate) use fleet::{cpu, memory};
pub(crate) use start::{settings, start};
pub(crate) use tick::tick;

use crate::cloud::{self, Way};
use crate::function::{Function, Taken};
use crate::table::{Row, megabytes, time};

/// A measurement's rows, or why it has no figures.
type Measured = Result<Vec<Row>, String>;

/// Stops a fleet in a cloud without token buckets, in a new process; also counts its DescribeInstances calls.
async fn stop_fleet(function: &Function, count: usize) -> Result<(Taken, usize), String> {
    let sim = cloud::cloud(count, Way::Stop).await;
    let taken = function.run(&sim, &cloud::no_limits(), &Way::Stop.event()).await?;
    cloud::check(&sim, Way::Stop, &taken)?;
    let descriptions = sim.calls().iter().filter(|call| call.action == "DescribeInstances").count();
    tell(count, &function.name, &taken);
    Ok((taken, descriptions))
}

/// Prints on stderr what one run cost, since medians hide how much runs differ.
fn tell(count: usize, name: &str, taken: &Taken) {
    let Taken { since_start, event, cpu, memory, files, .. } = taken;
    eprintln!(
        "{count} instances, {name}: {} since its start, {} of them for the event; CPU {}; {}, {files} files",
        time(*since_start),
        time(*event),
        time(*cpu),
        megabytes(*memory),
    );
}
