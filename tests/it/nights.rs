//! Random nights: the engine against a double of EC2 in this process, under tokio's paused clock.
//!
//! Fleets, refusals, outages, crashes, Lambda's retries, a duplicate of the event, and people who switch instances at
//! the wrong moment. `judge` says what must always be true; `found` keeps what it has found. `seeds.rs` runs the cases
//! and shrinks failures.

use std::sync::atomic::Ordering;

use crate::seeds::{Kind, in_paused_time};

pub(crate) mod case;
pub(crate) mod cloud;
mod found;
mod judge;
mod price;

use case::{Case, case_of, live, smaller};
use judge::judge;

/// Runs a case and judges it.
fn check(case: &Case) -> Result<(), String> {
    in_paused_time(async {
        let (cloud, rans) = live(case).await;
        judge(case, &cloud, &rans)
    })
}

/// Returns a case as text, a line for each machine, event and act.
fn told_of(case: &Case) -> String {
    let mut text = format!("{:?}\n", case.manner);
    case.fleet.iter().for_each(|it| text += &format!("  {it:?}\n"));
    case.events.iter().for_each(|it| text += &format!("  {it:?}\n"));
    case.acts.iter().for_each(|it| text += &format!("  {it:?}\n"));
    text
}

#[test]
fn whatever_goes_wrong_the_night_ends_as_it_must() {
    Kind { noun: "nights", case_of, check, smaller, told_of }.explore();
    let lost = judge::LOST_TO_A_DUPLICATE.load(Ordering::Relaxed);
    println!("{lost} instances are not started because two runs of an evening met");
}
