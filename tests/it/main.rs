//! Curfew through its front door: the real binary under a Lambda host, against a double of EC2, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test that can't unwrap has failed")]

mod world;

mod accounts;
mod cargo_lambda;
mod errors;
mod mark;
mod model;
mod moto;
mod plans;
mod reasons;
mod refusals;
mod running;
mod soup;
mod told;
mod trouble;
mod wrappings;
