//! A simulated EC2 and a simulated Lambda host, both on loopback, for tests, benches and a look around.
//!
//! [`Sim`] keeps state and answers as EC2 does: calls that fail as a whole, transitions that take time, pages that
//! may be empty, and whatever [`Fault`] it is told to play. It has as many accounts as its machines name, and as much
//! of STS as it takes to work in them. [`Host`] runs a real Lambda binary as Lambda would.
//! Neither shares code with what they test: a mistake made twice would cancel itself out.

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
