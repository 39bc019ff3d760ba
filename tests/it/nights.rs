//! Random nights: the engine against an EC2 in this process, under a clock that stands still while anybody works.
//!
//! Fleets, refusals, plagues, deaths, Lambda's retries, a duplicate of the event, and people who switch instances at the
//! wrong moment. What must be true whatever happens is in `judge`; what it has found stays in `found`. A failure prints its
//! seed and the smallest case like it; `CURFEW_SEED=… CURFEW_CASES=1` repeats it.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

mod case;
mod cloud;
mod found;
mod judge;
mod price;

use case::{Case, case_of, live, smaller};
use judge::judge;

/// Real time in which a night is over, even on a busy machine.
const STUCK: Duration = Duration::from_secs(60);
/// Smaller cases that are tried.
const SHRINKS: usize = 3_000;

/// Lives through a case and judges it.
fn check(case: &Case) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let lived = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let (cloud, rans) = live(case).await;
            judge(case, &cloud, &rans)
        })
    }));
    lived.unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

/// The claim that is broken, without what it is told of.
fn claim(why: &str) -> String {
    let plain = why.split([':', '\n']).next().unwrap_or_default();
    plain.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Finds a smaller case that breaks the same claim.
fn shrink(mut case: Case, mut why: String) -> (Case, String) {
    let mut tries = 0;
    'smaller: while tries < SHRINKS {
        for less in smaller(&case) {
            tries += 1;
            if let Err(same) = check(&less)
                && claim(&same) == claim(&why)
            {
                (case, why) = (less, same);
                continue 'smaller;
            }
        }
        break;
    }
    (case, why)
}

/// Writes a case, a line each.
fn told_of(case: &Case) -> String {
    let mut text = format!("{:?}\n", case.manner);
    case.fleet.iter().for_each(|it| text += &format!("  {it:?}\n"));
    case.events.iter().for_each(|it| text += &format!("  {it:?}\n"));
    case.acts.iter().for_each(|it| text += &format!("  {it:?}\n"));
    text
}

fn from_env(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn whatever_goes_wrong_the_night_ends_as_it_must() {
    let (first, count) = (from_env("CURFEW_SEED", 20_261_126), from_env("CURFEW_CASES", 1_000));
    let lanes = thread::available_parallelism().map_or(1, usize::from).min(8) as u64;
    println!("{count} nights from seed {first}");
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    // Failures are told once, at the end, and smaller.
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut failures = thread::scope(|scope| {
        let (beat, beats) = mpsc::channel();
        for lane in 0..lanes {
            let (next, beat) = (&next, beat.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    drop(beat.send((lane, seed, None)));
                    if let Err(why) = check(&case_of(seed)) {
                        drop(beat.send((lane, seed, Some(why))));
                    }
                }
            });
        }
        drop(beat);
        let (mut failures, mut at) = (Vec::new(), vec![first; lanes as usize]);
        loop {
            match beats.recv_timeout(STUCK) {
                Ok((_, seed, Some(why))) => failures.push((seed, why)),
                Ok((lane, seed, None)) => at[lane as usize] = seed,
                Err(mpsc::RecvTimeoutError::Disconnected) => break failures,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    eprintln!("one of the nights {at:?} has no end");
                    std::process::exit(101);
                }
            }
        }
    });
    failures.sort_by_key(|(seed, _)| *seed);
    let mut told = std::collections::BTreeMap::<String, Vec<u64>>::new();
    for (seed, why) in &failures {
        told.entry(claim(why)).or_default().push(*seed);
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let lost = judge::LOST_TO_A_DUPLICATE.load(Ordering::Relaxed);
    println!("{rate:.0} nights a second; {lost} instances are not started because two runs of an evening met");
    let mut text = String::new();
    for (claim, seeds) in &told {
        text += &format!("{} nights: {claim} {:?}\n", seeds.len(), &seeds[..seeds.len().min(12)]);
    }
    // The first of each kind.
    for seed in told.values().filter_map(|seeds| seeds.first()) {
        let Some((_, why)) = failures.iter().find(|(it, _)| it == seed) else { continue };
        let (case, why) = match from_env("CURFEW_SHRINK", 1) {
            0 => (case_of(*seed), why.clone()),
            _ => shrink(case_of(*seed), why.clone()),
        };
        text += &format!("CURFEW_SEED={seed} CURFEW_CASES=1 fails: {why}\n{}\n", told_of(&case));
    }
    std::panic::set_hook(silent);
    assert!(failures.is_empty(), "{} of {count} nights fail:\n{text}", failures.len());
}
