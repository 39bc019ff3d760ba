//! What bad instances cost in calls and instance tokens: at most n + c · bad · log n. And that a failing EC2 isn't
//! flooded.

use std::time::Duration;

use ec2_curfew::instance::State;

use super::case::*;
use super::cloud::*;

/// How EC2 refuses the bad instances of a fleet.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Named,
    Unnamed,
    Sick,
    Room,
}

/// What a run cost: calls until the last good instance was switched, and in all.
#[derive(Debug)]
#[expect(dead_code, reason = "some figures are only printed")]
struct Price {
    /// How many good instances were not switched in time.
    left: usize,
    calls: usize,
    tokens: usize,
    calls_for_the_good: usize,
    most_for_one: usize,
}

/// Runs an evening or a morning in which `bad` of `n` instances, evenly spread, are always refused.
async fn price(n: usize, bad: usize, kind: Kind) -> Price {
    let (verb, no) = match kind {
        Kind::Named => (Verb::Stop, ("UnsupportedOperation", "The instance '{id}' can't be stopped.", 400)),
        Kind::Unnamed => (Verb::Stop, ("UnsupportedOperation", "The instance can't be stopped.", 400)),
        Kind::Sick => (Verb::Stop, ("", "", 500)),
        Kind::Room => (Verb::Start, ("InsufficientInstanceCapacity", "No room.", 500)),
    };
    let is_bad = |i: usize| bad > 0 && i * bad / n != (i + 1) * bad / n;
    let fleet = (0..n).map(|i| {
        let mut machine = Machine::new(i);
        machine.state = if verb == Verb::Stop { State::Running } else { State::Stopped };
        let no = match kind {
            Kind::Sick => No::Sick { done: false },
            _ => No::Refused { code: no.0, message: no.1, status: no.2 },
        };
        if is_bad(i) {
            machine.poisons.push(Poison { verb, no, until: None });
        }
        machine
    });
    let mut event = if verb == Verb::Stop { Event::evening() } else { Event::morning() };
    event.remember = false;
    let manner = Manner { latency: (5, 5), ..Manner::default() };
    let cloud = Cloud::new(fleet.collect(), manner, 1);
    let rans = Rans::default();
    tokio::time::sleep(event.due).await;
    invoke(&cloud, &rans, &event, 900, None).await;
    let world = cloud.world();
    let switches: Vec<&Called> = world.calls.iter().filter(|call| call.verb == verb).collect();
    let good = |call: &&Called| call.said == "yes";
    let accepted = world
        .machines
        .values()
        .filter(|machine| machine.log.iter().any(|(_, _, did)| matches!(did, Did::Stop { .. } | Did::Start { .. })))
        .count();
    let left = n - bad - accepted;
    let mut asked = std::collections::BTreeMap::<_, usize>::new();
    for call in &switches {
        // Capacity depends on zone and type, not on which instances were tried there.
        let again = call.ids.iter().all(|id| asked.contains_key(id)) && !matches!(kind, Kind::Room);
        assert!(
            !again || asked.len() == n,
            "{kind:?}, {bad} of {n}: {} wait behind {} of old",
            n - asked.len(),
            call.ids.len()
        );
        call.ids.iter().for_each(|id| *asked.entry(*id).or_default() += 1);
    }
    Price {
        left,
        calls: switches.len(),
        tokens: switches.iter().map(|call| call.ids.len()).sum(),
        calls_for_the_good: switches.iter().rposition(good).map_or(0, |at| at + 1),
        most_for_one: asked.values().copied().max().unwrap_or(0),
    }
}

#[tokio::test(start_paused = true)]
async fn bad_instances_cost_a_few_calls_and_tokens_each_times_log_n() {
    let mut worst = (0.0_f64, 0.0_f64);
    for kind in [Kind::Named, Kind::Unnamed, Kind::Sick, Kind::Room] {
        for (n, bad) in [(70, 1), (400, 0), (400, 1), (400, 4), (400, 20), (400, 60), (90, 60)] {
            let price = price(n, bad, kind).await;
            assert!(price.left == 0 || bad * 8 > n, "{kind:?}, {bad} of {n}: {price:?}");
            let log = (n as f64).log2();
            let calls = (price.calls as f64 - n.div_ceil(64) as f64) / (bad.max(1) as f64 * log);
            let tokens = (price.tokens as f64 - n as f64) / (bad.max(1) as f64 * log);
            println!("{kind:?} {bad} of {n}: {price:?}, c is {calls:.2} for calls, {tokens:.2} for tokens");
            worst = (worst.0.max(calls), worst.1.max(tokens));
        }
    }
    println!("c is {:.2} for calls, {:.2} for tokens at most", worst.0, worst.1);
    // A single instance may be retried until the deadline: fifty times in a quarter of an hour.
    assert!(worst.0 <= 9.0 && worst.1 <= 15.0, "{worst:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ec2_that_fails_as_a_whole_is_not_flooded() {
    for plague in [Plague::Sick, Plague::Cut, Plague::Throttled] {
        for verb in [Some(Verb::Stop), None] {
            let mut manner = Manner { latency: (5, 5), ..Manner::default() };
            // After the plan's look.
            let from = EVENING + Duration::from_millis(2_015);
            let trouble = Trouble { verb, plague: plague.clone(), from, until: from * 2, one_in: 1 };
            manner.troubles.push(trouble);
            let cloud = Cloud::new((0..500).map(Machine::new).collect(), manner, 1);
            let event = Event::evening();
            tokio::time::sleep(event.due + event.delay).await;
            invoke(&cloud, &Rans::default(), &event, 900, None).await;
            let calls = cloud.world().calls.len();
            println!("{plague:?} of {verb:?}: {calls} calls in a quarter of an hour");
            assert!(calls < 300, "{plague:?} of {verb:?}: {calls} calls");
        }
    }
}
