//! Transient failures of EC2 and of the network: waited out, and never taken for an answer.

use std::time::Duration;

use ec2_sim::{Fault, Host};
use serde_json::json;
use tokio::net::TcpListener;

use crate::world::*;

#[tokio::test]
async fn a_server_error_and_a_cut_connection_and_half_an_answer_are_repeated() {
    for fault in [
        Fault::refuse("StopInstances", "InternalError", "An internal error has occurred").status(500),
        Fault::cut("StopInstances"),
        Fault::garble("StopInstances"),
        Fault::cut("DescribeInstances"),
    ] {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.fault(fault.clone().times(1));
        let told = world.invoke(stop()).await;
        assert_eq!(
            (told.verdict().as_str(), told.names("changed")),
            ("complete", names(["web"])),
            "{fault:?}: {:#}",
            told.report
        );
    }
}

#[tokio::test]
async fn a_storm_of_server_errors_is_sat_out() {
    for (code, status) in [
        ("InternalError", 500),
        ("InternalFailure", 500),
        ("Unavailable", 503),
        ("ServiceUnavailable", 503),
        ("BadGateway", 502),
    ] {
        let mut world = World::new().await;
        world.sim.add_many(4, |n| ours(&format!("web-{n}")));
        world.sim.fault(Fault::refuse("StopInstances", code, "Not now.").status(status).times(5));
        let told = world.invoke(stop()).await;
        assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(4)), "{code}");
    }
}

#[tokio::test]
async fn a_storm_that_outlasts_the_run_ends_unfinished_with_its_code() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.fault(Fault::refuse("StopInstances", "InternalError", "Not now.").status(500));
    let told = world.within(Duration::from_secs(6), stop()).await;
    assert_eq!(told.verdict(), "Unfinished");
    assert_eq!(told.entry("unfinished", "web")["reason"], "InternalError");
}

#[tokio::test]
async fn answers_that_are_no_answers_are_asked_for_again() {
    let html = "<html><body>503 Service Temporarily Unavailable</body></html>";
    let other = "<StopInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><instancesSet/></StopInstancesResponse>";
    for (status, body) in
        [(200, ""), (200, "\u{0}\u{1}\u{2}"), (200, "<a><a><a>"), (200, html), (503, html), (502, ""), (200, other)]
    {
        let mut world = World::new().await;
        world.sim.add(ours("web"));
        world.sim.fault(Fault::answer("StopInstances", status, body).times(1));
        let told = world.invoke(stop()).await;
        assert_eq!(
            (told.verdict().as_str(), told.names("changed")),
            ("complete", names(["web"])),
            "{status} {body:?}: {:#}",
            told.report
        );
    }
}

#[tokio::test]
async fn half_a_list_of_instances_is_not_a_list_of_half_the_instances() {
    let mut world = World::new().await;
    world.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let first = "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><reservationSet>";
    world.sim.fault(Fault::answer("DescribeInstances", 200, first).times(1));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(3)), "asked again");

    world.sim.add(ours("late"));
    world.sim.fault(Fault::answer("DescribeInstances", 200, first));
    let told = world.invoke(stop()).await;
    assert_eq!(told.verdict(), "Unfinished", "never a quiet night");
    assert_eq!(told.report["targets"][0]["error"]["code"], "BrokenAnswer");
}

#[tokio::test]
async fn an_answer_that_trickles_in_is_read_to_its_end() {
    let mut world = World::new().await;
    world.sim.add_many(50, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::trickle(None, Duration::from_millis(800)));
    assert_eq!(world.invoke(stop()).await.report["summary"]["changed"], 50);
}

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_the_targets_error_and_not_a_killed_function() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let _accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(connection) = silent.accept().await {
            open.push(connection);
        }
    });
    let mut host = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &url)]).await;
    for seconds in [3, 30] {
        let told = Told::of(host.invoke(stop().to_string(), Duration::from_secs(seconds)).await);
        assert_eq!(told.verdict(), "Unfinished", "{seconds} s: {told:?}");
        let code = told.report["targets"][0]["error"]["code"].as_str().unwrap();
        assert_eq!(code, if seconds == 3 { "Deadline" } else { "Timeout" });
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_and_a_closed_port_are_the_targets_error() {
    for url in ["http://no-such-host.invalid", "http://127.0.0.1:9"] {
        let mut host = Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", url)]).await;
        let told = Told::of(host.invoke(stop().to_string(), Duration::from_secs(30)).await);
        assert_eq!(told.verdict(), "Unfinished", "{url}: {told:?}");
        assert_eq!(told.report["targets"][0]["error"]["code"], "NoConnection", "{url}");
    }
}

#[tokio::test]
async fn a_sick_ec2_is_not_flooded() {
    let mut world = World::new().await;
    world.sim.add_many(300, |n| ours(&format!("web-{n}")));
    world.sim.fault(Fault::refuse("StopInstances", "InternalError", "An internal error has occurred").status(500));
    let told = world.within(Duration::from_secs(15), stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["unfinished"]), ("Unfinished", &json!(300)));
    assert!(world.count("StopInstances") <= 40, "{} calls in 15 s", world.count("StopInstances"));
}

#[tokio::test]
async fn an_ec2_that_gets_well_again_finds_all_of_them_asked() {
    let mut world = World::new().await;
    world.sim.add_many(300, |n| ours(&format!("web-{n}")));
    let sick = Fault::refuse("StopInstances", "Unavailable", "The server is overloaded").status(503);
    world.sim.fault(sick.lasting(Duration::from_secs(6)));
    let told = world.invoke(stop()).await;
    assert_eq!((told.verdict().as_str(), &told.report["summary"]["changed"]), ("complete", &json!(300)));
    assert!(world.count("StopInstances") <= 60, "{} calls", world.count("StopInstances"));
}
