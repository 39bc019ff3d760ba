//! Random stories of running hours: ticks against a double of EC2 in this process, under tokio's paused clock.
//!
//! Ticks that are missed, late, repeated, out of order or die; people who start, stop, retag and exempt; refusals,
//! failing starts, stripped marks. `hours` is an independent reference for what hours mean; `judge` says what must
//! always be true; `found` keeps what it has found.

use crate::seeds::{Kind, in_paused_time};

mod dice;
mod found;
mod hours;
mod judge;
mod story;

use dice::{smaller, story_of};
use judge::judge;
use story::{Story, live};

/// Runs a story and judges it.
fn check(story: &Story) -> Result<(), String> {
    in_paused_time(async {
        let (cloud, rans) = live(story).await;
        judge(story, &cloud, &rans)
    })
}

/// Returns a story as text, a line for each thing in it that is out of the ordinary.
fn told_of(story: &Story) -> String {
    let Story { remember, hibernate, step, manner, fleet, ticks, acts, .. } = story;
    let mut text = format!("remember {remember}, hibernate {hibernate}, {manner:?}\n");
    fleet.iter().for_each(|it| text += &format!("  {it:?}\n"));
    let (first, last) = (ticks.first().map(|it| it.due), ticks.last().map(|it| it.due));
    text += &format!("  ticks every {step} minutes, from {first:?} to {last:?}\n");
    for pair in ticks.windows(2).filter(|pair| pair[1].due - pair[0].due != *step) {
        text += &format!("  after {} comes {}\n", pair[0].due, pair[1].due);
    }
    ticks.iter().filter(|it| !it.is_plain()).for_each(|it| text += &format!("  {it:?}\n"));
    let utc = |at: &std::time::Duration| hours::moment(0) + chrono::TimeDelta::from_std(*at).unwrap();
    acts.iter().for_each(|(at, n, act)| text += &format!("  {} {n} {act:?}\n", utc(at)));
    text
}

#[test]
fn whatever_goes_wrong_hours_are_kept() {
    Kind { noun: "stories", case_of: story_of, check, smaller, told_of }.explore();
}
