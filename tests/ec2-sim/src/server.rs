//! The cloud's front door, where bad days are played: `/` is EC2.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use crate::api::Answer;
use crate::cloud::{Call, Cloud};
use crate::control;
use crate::fault::{Refusal, Then};
use crate::trickle::Trickle;
use crate::wire::{self, Query};

/// The one cloud, as the server and a test share it.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Cloud>>);

impl Shared {
    /// Locks the cloud; a test that panicked while it held it must not take the double down as well.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Cloud> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn router(shared: Shared) -> Router {
    let routes = control::routes().route("/", post(ec2));
    routes.layer(DefaultBodyLimit::disable()).with_state(shared)
}

async fn ec2(State(shared): State<Shared>, headers: HeaderMap, form: Bytes) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|text| text.to_str().ok());
    let query = Query::new(authorization.unwrap_or_default(), &form);
    // A task of its own: EC2 does what it was asked even if the caller has stopped waiting.
    match tokio::spawn(respond(shared, query)).await {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => cut_connection(),
    }
}

/// Closes the TCP connection without a byte of an answer.
///
/// HTTP has no word for it, and neither has axum: an unwinding handler takes down the task that serves its
/// connection, and the socket with it. Not a `panic!`, which would print one.
fn cut_connection() -> ! {
    resume_unwind(Box::new("the connection is cut on purpose"))
}

struct Reply {
    status: u16,
    xml: String,
}

fn send(status: u16, body: impl Into<Body>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], body.into()).into_response()
}

/// Plays a call through, bad days included; none means that the connection is to be cut.
async fn respond(shared: Shared, query: Query) -> Option<Response> {
    let decide = |fault| {
        let mut cloud = shared.lock();
        let answer = query.request().and_then(|request| cloud.answer(&request));
        reply(&mut cloud, &query, answer, fault)
    };
    let faults = shared.lock().strike(&query.action, &query.region, &query.ids());
    for (fault, ids) in faults {
        match fault {
            Then::Stall { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Then::Refuse(no) => {
                let mut cloud = shared.lock();
                if let Ok(request) = query.request() {
                    cloud.stop_elsewhere(&request, &request.ids, &ids);
                }
                let Reply { status, xml } = reply(&mut cloud, &query, Err(no), None);
                return Some(send(status, xml));
            }
            Then::Hang => {
                record(&mut shared.lock(), &query, "hang");
                std::future::pending::<()>().await;
            }
            Then::HangAfter => {
                decide(Some("hang_after"));
                std::future::pending::<()>().await;
            }
            Then::LoseAnswer => {
                decide(Some("lost"));
                return None;
            }
            Then::CutConnection => {
                record(&mut shared.lock(), &query, "cut");
                return None;
            }
            Then::Garble => {
                let whole = decide(Some("garbled")).xml;
                let half: String = whole.chars().take(whole.chars().count() / 2).collect();
                return Some(send(200, half));
            }
            Then::Trickle { ms } => {
                let Reply { status, xml } = decide(None);
                return Some(send(status, Body::new(Trickle::new(xml, Duration::from_millis(ms)))));
            }
            Then::Answer { status, body } => {
                record(&mut shared.lock(), &query, "scripted");
                return Some(send(status, body));
            }
        }
    }
    let Reply { status, xml } = decide(None);
    Some(send(status, xml))
}

/// Records and writes an answer; a fault that will spoil it is recorded in its place.
fn reply(cloud: &mut Cloud, query: &Query, answer: Result<Answer, Refusal>, fault: Option<&str>) -> Reply {
    let code = match &answer {
        Ok(_) => "ok",
        Err(refusal) => &refusal.code,
    };
    let request_id = record(cloud, query, fault.unwrap_or(code));
    match answer {
        Ok(answer) => {
            let xml = wire::answer(&query.action, &request_id, &answer);
            Reply { status: 200, xml }
        }
        Err(refusal) => {
            let xml = wire::refusal(&request_id, &refusal);
            Reply { status: refusal.status, xml }
        }
    }
}

/// Enters a call into the log, and returns its request id.
fn record(cloud: &mut Cloud, query: &Query, code: &str) -> String {
    cloud.calls.push(Call {
        at: cloud.clock.now(),
        action: query.action.clone(),
        region: query.region.clone(),
        dry_run: query.flag("DryRun"),
        ids: query.ids(),
        params: query.params.clone(),
        code: code.to_owned(),
    });
    format!("00000000-0000-4000-8000-{:012x}", cloud.calls.len())
}
