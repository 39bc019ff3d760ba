//! A simulated EC2 and a simulated Lambda host, both on loopback, for tests, benchmarks and trying things out.
//!
//! [`Sim`] keeps state and answers as EC2 does: calls that fail as a whole, transitions that take time, pages that
//! may be empty, and any [`Fault`] that is injected. It has as many accounts as its machines name, and as much
//! of STS as it takes to work in them. [`Host`] runs a real Lambda binary as Lambda would.
//! Neither shares code with the function under test: the same mistake on both sides would go unnoticed.

mod api;
mod capacity;
mod clock;
mod cloud;
mod control;
mod describe;
mod fault;
mod filter;
mod fleet;
mod hold;
mod iam;
mod lambda;
mod machine;
mod past;
mod place;
mod roster;
mod server;
mod sim;
mod storage;
mod sts;
mod switching;
mod throttle;
mod trickle;
mod wire;

pub use capacity::Shortage;
pub use cloud::Call;
pub use fault::{Fault, Refusal, Then};
pub use fleet::{Fleet, Settings};
pub use hold::Held;
pub use lambda::{Host, Invocation, Outcome};
pub use machine::{Machine, Spot, StateReason};
pub use sim::Sim;
pub use storage::Snapshot;
