//! `/_sim/…`: the control API, in JSON, for programs in other processes. It offers part of what [`Sim`](crate::Sim)
//! does.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cloud::Call;
use crate::fault::Fault;
use crate::fleet::Fleet;
use crate::machine::Machine;
use crate::server::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/_sim/health", get(async || "ok"))
        .route("/_sim/instances", get(instances))
        .route("/_sim/fleet", put(replace_fleet))
        .route("/_sim/faults", post(add_faults).delete(clear_faults))
        .route("/_sim/calls", get(calls).delete(forget_calls))
        .route("/_sim/clock", get(clock).put(set_clock))
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    #[serde(flatten)]
    machine: &'a Machine,
}

async fn instances(State(shared): State<Shared>) -> Response {
    // On copies: writing many takes a while, and calls would have to wait for the lock.
    let machines: Vec<Machine> = shared.lock().machines().cloned().collect();
    let listed: Vec<_> = machines.iter().map(|machine| Listed { name: machine.name(), machine }).collect();
    Json(listed).into_response()
}

type Accepted = Result<StatusCode, (StatusCode, String)>;

async fn replace_fleet(State(shared): State<Shared>, body: Bytes) -> Accepted {
    let fleet: Fleet = parse(&body, "a fleet")?;
    shared.lock().load(fleet);
    Ok(StatusCode::NO_CONTENT)
}

async fn add_faults(State(shared): State<Shared>, body: Bytes) -> Accepted {
    let faults: Vec<Fault> = match body.trim_ascii_start().first() {
        Some(b'[') => parse(&body, "a list of faults")?,
        Some(_) | None => vec![parse(&body, "a fault")?],
    };
    shared.lock().faults.extend(faults);
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(shared): State<Shared>) -> StatusCode {
    shared.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn calls(State(shared): State<Shared>) -> Json<Vec<Call>> {
    Json(shared.lock().calls.clone())
}

async fn forget_calls(State(shared): State<Shared>) -> StatusCode {
    shared.lock().calls.clear();
    StatusCode::NO_CONTENT
}

async fn clock(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({ "now": shared.lock().clock.now() }))
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClockChange {
    Now(DateTime<Utc>),
    AdvanceS(u32),
}

async fn set_clock(State(shared): State<Shared>, body: Bytes) -> Accepted {
    let change = parse(&body, "{\"now\": …} or {\"advance_s\": …}")?;
    let clock = &mut shared.lock().clock;
    clock.set(match change {
        ClockChange::Now(now) => now,
        ClockChange::AdvanceS(seconds) => clock.now() + TimeDelta::seconds(seconds.into()),
    });
    Ok(StatusCode::NO_CONTENT)
}

fn parse<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body).map_err(|error| (StatusCode::BAD_REQUEST, format!("not {what}: {error}\n")))
}
