//! Lambda's Runtime API, as one process sees it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::Utc;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};

use super::Outcome;

/// Lambda's limit for an answer, in bytes (Lambda developer guide, "Lambda quotas").
const ANSWER_LIMIT: usize = 6 * 1024 * 1024;
const FUNCTION_ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:curfew";

/// An event, and the time that the function has for it.
pub(super) struct Event {
    pub(super) body: Vec<u8>,
    pub(super) timeout: Duration,
    pub(super) request_id: String,
}

pub(super) enum Happening {
    /// The process asked for an event.
    Asked,
    /// The process got one, and its time starts.
    HandedOver,
    Ended(Outcome),
    Exited(String),
    TimedOut,
}

#[derive(Clone)]
struct Desk {
    waiting: Arc<Mutex<mpsc::UnboundedReceiver<Event>>>,
    told: mpsc::UnboundedSender<Happening>,
}

/// Builds the API, which serves the waiting events and reports what happens.
pub(super) fn runtime_api(waiting: mpsc::UnboundedReceiver<Event>, told: mpsc::UnboundedSender<Happening>) -> Router {
    let version = Router::new()
        .route("/invocation/next", get(next))
        .route("/invocation/{id}/response", post(response))
        .route("/invocation/{id}/error", post(error))
        .route("/init/error", post(error))
        .layer(DefaultBodyLimit::max(ANSWER_LIMIT))
        .with_state(Desk { waiting: Arc::new(Mutex::new(waiting)), told });
    Router::new().nest("/2018-06-01/runtime", version)
}

impl Desk {
    fn tell(&self, happening: Happening) -> StatusCode {
        match self.told.send(happening) {
            Ok(()) => StatusCode::ACCEPTED,
            Err(_) => StatusCode::GONE,
        }
    }
}

async fn next(State(desk): State<Desk>) -> Response {
    desk.tell(Happening::Asked);
    let Some(event) = desk.waiting.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    desk.tell(Happening::HandedOver);
    let deadline = Utc::now() + event.timeout;
    let headers = [
        ("lambda-runtime-aws-request-id", event.request_id.as_str()),
        ("lambda-runtime-deadline-ms", &deadline.timestamp_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", FUNCTION_ARN),
        ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0"),
    ];
    (headers, event.body).into_response()
}

async fn response(State(desk): State<Desk>, body: Bytes) -> StatusCode {
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    let answer = serde_json::from_slice(&body).unwrap_or_else(|_| text());
    desk.tell(Happening::Ended(Outcome::Answered(answer)))
}

async fn error(State(desk): State<Desk>, body: Bytes) -> StatusCode {
    let error: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    let (error_type, message) = (text("errorType"), text("errorMessage"));
    desk.tell(Happening::Ended(Outcome::Failed { error_type, message }))
}
