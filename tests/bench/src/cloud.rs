//! The simulated clouds for measuring, and the check that the work was done.

use ec2_sim::{Machine, Sim};
use serde_json::{Value, json};

use crate::function::Taken;

/// AWS's token buckets for StopInstances: size and refill per second, of calls and of instances (EC2 developer guide,
/// "Request throttling for the Amazon EC2 API").
pub(crate) const STOP: Buckets = Buckets { calls: (50.0, 5.0), instances: (1000.0, 20.0) };
/// The same for StartInstances.
pub(crate) const START: Buckets = Buckets { calls: (5.0, 2.0), instances: (1000.0, 2.0) };

/// The two token buckets of an action.
#[derive(Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) calls: (f64, f64),
    pub(crate) instances: (f64, f64),
}

impl Buckets {
    fn json(self, faster: f64) -> Value {
        let bucket = |(size, refill): (f64, f64)| json!({ "size": size, "refill": refill * faster });
        json!({ "calls": bucket(self.calls), "instances": bucket(self.instances) })
    }
}

/// Which way instances are switched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Stop,
    Start,
}

impl Way {
    /// Returns the event that switches everything.
    pub(crate) fn event(self) -> Value {
        let action = match self {
            Self::Stop => "stop",
            Self::Start => "start",
        };
        json!({ "action": action, "tags": { "curfew": "yes" } })
    }

    /// Returns the state of the instances before the run.
    pub(crate) fn before(self) -> &'static str {
        match self {
            Self::Stop => "running",
            Self::Start => "stopped",
        }
    }

    /// Returns the states of the instances after the run, which doesn't wait for a stop that EC2 has accepted.
    fn after(self) -> &'static [&'static str] {
        match self {
            Self::Stop => &["stopping", "stopped"],
            Self::Start => &["pending", "running"],
        }
    }
}

/// Returns the function's setting of EC2's limits for a simulated EC2 without token buckets: more than any row needs.
pub(crate) fn no_limits() -> Value {
    let ample = (1e6, 1e6);
    limits(Buckets { calls: ample, instances: ample }, Buckets { calls: ample, instances: ample }, 1.0)
}

/// Returns the function's setting of EC2's limits for AWS's token buckets, filled this many times faster.
pub(crate) fn aws_limits(faster: f64) -> Value {
    limits(STOP, START, faster)
}

fn limits(stop: Buckets, start: Buckets, faster: f64) -> Value {
    json!({ "StopInstances": stop.json(faster), "StartInstances": start.json(faster) })
}

/// Builds an instance that the events select, with a typical number of tags.
pub(crate) fn ours(number: usize, way: Way) -> Machine {
    let machine = Machine::named(&format!("web-{number}")).state(way.before());
    machine.tag("curfew", "yes").tag("Environment", "development").tag("Owner", "team-storefront")
}

/// Starts a cloud with this many instances in one account and region, without token buckets.
pub(crate) async fn cloud(count: usize, way: Way) -> Sim {
    let sim = Sim::start().await;
    sim.add_many(count, |number| ours(number, way));
    sim
}

/// Checks that every instance was switched, by what EC2 shows and by the function's answer.
///
/// # Errors
/// An instance was left out, or the answer counts differently.
pub(crate) fn check(sim: &Sim, way: Way, taken: &Taken) -> Result<(), String> {
    let machines = sim.machines();
    let ours = machines.iter().filter(|machine| machine.tags.contains_key("curfew"));
    let (done, left): (Vec<_>, Vec<_>) = ours.partition(|machine| way.after().contains(&machine.state.as_str()));
    let summary = &taken.answer["summary"];
    if !left.is_empty() || summary["changed"] != done.len() {
        return Err(format!("{} of {} were left, and it said {summary}", left.len(), left.len() + done.len()));
    }
    Ok(())
}
