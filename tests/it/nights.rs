//! Random nights: the engine against an EC2 in this process, under a clock that stands still while anybody works.
//!
//! Fleets, refusals, plagues, deaths, Lambda's retries, a duplicate of the event, and people who switch instances at the
//! wrong moment. What must be true whatever happens is in `judge`; what it has found stays in `found`. How seeds are
//! lived through, and failures made small, is in `seeds.rs`.

use std::sync::atomic::Ordering;

use crate::seeds::{Kind, in_paused_time};

pub(crate) mod case;
pub(crate) mod cloud;
mod found;
mod judge;
mod price;

use case::{Case, case_of, live, smaller};
use judge::judge;

/// Lives through a case and judges it.
fn check(case: &Case) -> Result<(), String> {
    in_paused_time(async {
        let (cloud, rans) = live(case).await;
        judge(case, &cloud, &rans)
    })
}

/// Writes a case, a line each.
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
