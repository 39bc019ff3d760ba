//! Curfew through its front door: the real binary under a Lambda host, against a double of EC2, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test that can't unwrap has failed")]

mod world;

mod accounts;
mod capacity;
mod cargo_lambda;
mod cli;
mod deadline;
mod guards;
mod hours;
mod isolation;
mod lost_answers;
mod mark;
mod model;
mod moto;
mod nights;
mod not_yet;
mod people;
mod permission;
mod plans;
mod reasons;
mod refusals;
mod running;
mod saved;
mod second_run;
mod seeds;
mod services;
mod snapshots;
mod snapshots_model;
mod soup;
mod starts;
mod suggest;
mod takeover;
mod throttling;
mod told;
mod transient;
mod week;
mod weeks;
mod wrappings;
