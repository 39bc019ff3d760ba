//! Every way an event arrives.

use serde_json::{Value, json};

use crate::world::*;

async fn stops_web(wrapped: Value) -> Told {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    world.sim.add(Machine::named("other"));
    let told = world.invoke(wrapped).await;
    assert_eq!(told.verdict(), "complete", "{told:?}");
    assert_eq!(told.names("changed"), names(["web"]));
    assert_eq!(world.sim.state("other"), "running");
    told
}

use ec2_sim::Machine;

#[tokio::test]
async fn the_bare_object_typed_into_the_console() {
    let told = stops_web(stop()).await;
    assert_eq!(told.report["scheduled_time"], Value::Null);
}

#[tokio::test]
async fn the_shipped_event_with_its_placeholder_left_unfilled_means_now() {
    let told = stops_web(stop_7pm()).await;
    assert_eq!(told.report["scheduled_time"], Value::Null);
}

#[tokio::test]
async fn a_scheduler_input_with_its_scheduled_time_filled_in() {
    let at = in_minutes(-1);
    let told = stops_web(with(stop_7pm(), json!({"scheduled_time": at}))).await;
    assert_eq!(told.report["scheduled_time"], *at);
}

#[tokio::test]
async fn the_constant_input_of_a_rule_and_a_list_where_one_text_would_do() {
    stops_web(json!({"action": "stop", "tags": {"curfew": ["yes"]}, "regions": "us-east-1"})).await;
}

fn envelope(detail: Value) -> Value {
    json!({
        "version": "0", "id": "89d1a02d-5ec7-412e-82f5-13505f849b41", "detail-type": "Scheduled Event", "source": "aws.events",
        "account": "123456789012", "time": in_minutes(-2), "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/stop"], "detail": detail,
    })
}

#[tokio::test]
async fn an_envelope_with_the_request_as_its_detail_is_dated_by_its_time() {
    let wrapped = envelope(stop());
    let told = stops_web(wrapped.clone()).await;
    assert_eq!(told.report["scheduled_time"], wrapped["time"]);
}

#[tokio::test]
async fn an_envelope_with_the_request_as_text_as_scheduler_and_put_events_write_it() {
    let wrapped = envelope(json!(stop().to_string()));
    let told = stops_web(wrapped.clone()).await;
    assert_eq!(told.report["scheduled_time"], wrapped["time"]);
}

#[tokio::test]
async fn the_requests_own_time_goes_before_the_envelopes() {
    let at = in_minutes(-30);
    let told = stops_web(envelope(with(stop(), json!({"scheduled_time": at})))).await;
    assert_eq!(told.report["scheduled_time"], *at);
}

#[tokio::test]
async fn an_unfilled_placeholder_in_an_envelope_leaves_the_envelopes_time() {
    let wrapped = envelope(stop_7pm());
    let told = stops_web(wrapped.clone()).await;
    assert_eq!(told.report["scheduled_time"], wrapped["time"]);
}

#[tokio::test]
async fn a_late_envelope_is_stale() {
    let mut world = World::new().await;
    world.sim.add(ours("web"));
    let told = world.invoke(with(envelope(stop()), json!({"time": in_minutes(-90)}))).await;
    assert_eq!(told.verdict(), "stale");
    assert_eq!(world.sim.calls().len(), 0);
}
