//! Many machines, and many accounts: what each call costs must not grow with what it is not about.

mod ask;

use std::time::{Duration, Instant};

use ask::{ask, ask_as, ask_in, call, later};
use ec2_sim::{Machine, Sim};

/// The time for some calls about one machine, among them its transitions.
async fn time(sim: &Sim) -> Duration {
    sim.add(Machine::named("one"));
    let calls = ["StopInstances", "DescribeInstances", "StartInstances"].map(|action| call(action, sim, &["one"]));
    let begun = Instant::now();
    for _ in 0..50 {
        for call in &calls {
            assert_eq!(ask(sim, call).await.code(), "ok");
            later(sim);
        }
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_hundred_thousand_other_machines_cost_a_call_nothing() {
    let (empty, full) = (Sim::start().await, Sim::start().await);
    full.add_many(100_000, |n| Machine::named(&format!("web-{n}")));

    let (alone, crowded) = (time(&empty).await, time(&full).await);

    // Walking past them all in every call would take ten times as long.
    assert!(crowded < alone * 3 + Duration::from_secs(1), "{alone:?} alone, {crowded:?} among 100,000");
}

#[tokio::test]
async fn five_hundred_accounts_with_four_regions_each_show_their_own_ten_machines() {
    let sim = Sim::start().await;
    let regions = ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1"];
    let account = |n: usize| format!("{:012}", 200_000_000_000 + n);
    // One after the other in all places, so that no place's ids are in a row.
    let ids = sim.add_many(20_000, |n| {
        let place = n % 2000;
        Machine::named(&format!("web-{n}")).account(&account(place / 4)).region(regions[place % 4])
    });
    assert_eq!((ids.len(), ids[0].as_str()), (20_000, "i-0ec20000000000001"));
    sim.settings(|settings| settings.page_size = 7);

    for n in [0, 123, 499] {
        let role = format!("AssumeRole&RoleArn=arn:aws:iam::{}:role/member&RoleSessionName=curfew", account(n));
        let keys = ask(&sim, &role).await;
        let keys = (keys.texts("AccessKeyId")[0], keys.texts("SessionToken")[0]);
        for (offset, region) in regions.iter().enumerate() {
            let first = ask_as(keys, region, &sim, "DescribeInstances&MaxResults=1000").await.expect("a page");
            let next = format!("DescribeInstances&MaxResults=1000&NextToken={}", first.texts("nextToken")[0]);
            let second = ask_as(keys, region, &sim, &next).await.expect("a page");
            let seen = [first.texts("instanceId"), second.texts("instanceId")].concat();

            let own = (1..=20_000).filter(|number| number % 2000 == n * 4 + offset);
            assert_eq!(seen, own.map(|number| ids[number - 1].as_str()).collect::<Vec<_>>());
            assert!(second.texts("nextToken").is_empty());
        }
    }
    let own = ask_in("us-east-1", &sim, "DescribeInstances").await.expect("an answer");
    assert!(own.texts("instanceId").is_empty());
}
