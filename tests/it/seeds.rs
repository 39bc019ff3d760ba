//! Random cases, each from a seed: lived through on all cores, judged, and made small where one fails.
//!
//! A failure prints its seed and the smallest case like it; `CURFEW_SEED=… CURFEW_CASES=1` repeats it.

use std::any::Any;
use std::collections::BTreeMap;
use std::env;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Real time in which a case is over, even on a busy machine.
const STUCK: Duration = Duration::from_secs(60);
/// Smaller cases that are tried.
const SHRINKS: usize = 3_000;

/// One kind of cases at a time: each has all cores, and panics are silenced for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// A kind of random cases.
pub(crate) struct Kind<C> {
    /// What they are called.
    pub(crate) noun: &'static str,
    pub(crate) case_of: fn(u64) -> C,
    /// Lives through a case and judges it.
    pub(crate) check: fn(&C) -> Result<(), String>,
    /// Gives smaller cases, one thing less in each.
    pub(crate) smaller: fn(&C) -> Vec<C>,
    pub(crate) told_of: fn(&C) -> String,
}

/// Runs a case under a clock that stands still while anybody works; a panic is a failure like others.
pub(crate) fn in_paused_time(case: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(case))).unwrap_or_else(|panic| Err(text_of(panic)))
}

fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text =
        panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
    text.unwrap_or_else(|| "a panic".to_owned())
}

/// The claim that is broken, without what it is told of.
fn claim(why: &str) -> String {
    let plain = why.split([':', '\n']).next().unwrap_or_default();
    plain.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn from_env(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

impl<C> Kind<C> {
    /// Finds a smaller case that breaks the same claim.
    fn shrink(&self, mut case: C, mut why: String) -> (C, String) {
        let mut tries = 0;
        'smaller: while tries < SHRINKS {
            for less in (self.smaller)(&case) {
                tries += 1;
                if let Err(same) = (self.check)(&less)
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

    /// Lives through as many cases as the environment says, and fails with the smallest of each kind of failure.
    pub(crate) fn explore(&self) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let noun = self.noun;
        let (first, count) = (from_env("CURFEW_SEED", 20_261_126), from_env("CURFEW_CASES", 1_000));
        let lanes = thread::available_parallelism().map_or(1, usize::from).min(8) as u64;
        println!("{count} {noun} from seed {first}");
        let begun = Instant::now();
        let next = AtomicU64::new(first);
        // Failures are told once, at the end, and smaller.
        let silent = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut failures = thread::scope(|scope| {
            let (beat, beats) = mpsc::channel();
            for lane in 0..lanes {
                let (next, beat) = (&next, beat.clone());
                let (case_of, check) = (self.case_of, self.check);
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
                        eprintln!("one of the {noun} {at:?} has no end");
                        std::process::exit(101);
                    }
                }
            }
        });
        failures.sort_by_key(|(seed, _)| *seed);
        let mut told = BTreeMap::<String, Vec<u64>>::new();
        for (seed, why) in &failures {
            told.entry(claim(why)).or_default().push(*seed);
        }
        println!("{:.0} {noun} a second", count as f64 / begun.elapsed().as_secs_f64());
        let mut text = String::new();
        for (claim, seeds) in &told {
            text += &format!("{} {noun}: {claim} {:?}\n", seeds.len(), &seeds[..seeds.len().min(12)]);
        }
        // The first of each kind.
        for seed in told.values().filter_map(|seeds| seeds.first()) {
            let Some((_, why)) = failures.iter().find(|(it, _)| it == seed) else { continue };
            let case = (self.case_of)(*seed);
            let (case, why) = match from_env("CURFEW_SHRINK", 1) {
                0 => (case, why.clone()),
                _ => self.shrink(case, why.clone()),
            };
            text += &format!("CURFEW_SEED={seed} CURFEW_CASES=1 fails: {why}\n{}\n", (self.told_of)(&case));
        }
        std::panic::set_hook(silent);
        assert!(failures.is_empty(), "{} of {count} {noun} fail:\n{text}", failures.len());
    }
}
