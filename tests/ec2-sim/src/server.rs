//! The cloud's HTTP server, where faults are injected: `/` is EC2 and STS.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use crate::api::{Answer, Request};
use crate::cloud::{Call, Cloud};
use crate::control;
use crate::fault::{Refusal, Then};
use crate::place::Place;
use crate::sts;
use crate::trickle::Trickle;
use crate::wire::{self, Query, Service};

/// The cloud, shared by the server and the test.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Cloud>>);

impl Shared {
    /// Locks the cloud, even if a test panicked while it held the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Cloud> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn router(shared: Shared) -> Router {
    let routes = control::routes().route("/", post(aws));
    routes.layer(DefaultBodyLimit::disable()).with_state(shared)
}

async fn aws(State(shared): State<Shared>, headers: HeaderMap, form: Bytes) -> Response {
    let header = |name| headers.get(name).and_then(|text: &HeaderValue| text.to_str().ok()).unwrap_or_default();
    let query = Query::new(header(AUTHORIZATION.as_str()), header("x-amz-security-token"), &form);
    // In its own task, because AWS carries out a call even if the caller has stopped waiting.
    match tokio::spawn(Passage::new(shared, query).play()).await {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => cut_connection(),
    }
}

/// Closes the TCP connection without answering a single byte.
///
/// Neither HTTP nor axum has a way to say this, but a handler that unwinds ends the task that serves its connection,
/// and closes the socket. `panic!` would do the same, but print a message.
fn cut_connection() -> ! {
    resume_unwind(Box::new("the connection is cut on purpose"))
}

struct Reply {
    status: u16,
    xml: String,
}

impl Reply {
    fn send(self) -> Response {
        send(self.status, self.xml)
    }
}

fn send(status: u16, body: impl Into<Body>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(CONTENT_TYPE, "text/xml;charset=UTF-8")], body.into()).into_response()
}

/// A call that is being handled.
struct Passage {
    shared: Shared,
    query: Query,
    place: Place,
}

impl Passage {
    fn new(shared: Shared, query: Query) -> Self {
        let account = match query.service() {
            Service::Ec2 => shared.lock().sessions.account(&query.credentials.key).to_owned(),
            Service::Sts => sts::role_account(&query.params).to_owned(),
        };
        let place = Place { account, region: query.region.clone() };
        Self { shared, query, place }
    }

    /// Handles the call, with the faults that strike it; none means that the connection is to be cut.
    async fn play(self) -> Option<Response> {
        let (gate, faults, latency) = {
            let mut cloud = self.shared.lock();
            let gate = cloud.gates.iter().position(|gate| gate.action == self.query.action);
            let gate = gate.map(|nth| cloud.gates.remove(nth));
            (gate, cloud.strike(&self.query.action, &self.place, &self.query.ids()), cloud.settings.latency)
        };
        if let Some(gate) = gate {
            gate.pass().await;
        }
        pause(latency).await;
        for (fault, ids) in faults {
            match fault {
                Then::Stall { ms } => pause(Duration::from_millis(ms)).await,
                Then::Refuse(no) => return Some(self.refuse(no, &ids).send()),
                Then::RefuseAfter(no) => return Some(self.do_and_refuse(no).send()),
                Then::Hang => {
                    self.record(&mut self.shared.lock(), "hang");
                    std::future::pending::<()>().await;
                }
                Then::HangAfter => {
                    self.decide(Some("hang_after"));
                    std::future::pending::<()>().await;
                }
                Then::LoseAnswer => {
                    self.decide(Some("lost"));
                    return None;
                }
                Then::CutConnection => {
                    self.record(&mut self.shared.lock(), "cut");
                    return None;
                }
                Then::Garble => {
                    let whole = self.decide(Some("garbled")).xml;
                    let half: String = whole.chars().take(whole.chars().count() / 2).collect();
                    return Some(send(200, half));
                }
                Then::Trickle { ms } => {
                    let Reply { status, xml } = self.decide(None);
                    return Some(send(status, Body::new(Trickle::new(xml, Duration::from_millis(ms)))));
                }
                Then::Answer { status, body } => {
                    self.record(&mut self.shared.lock(), "scripted");
                    return Some(send(status, body));
                }
            }
        }
        Some(self.decide(None).send())
    }

    /// Lets the cloud decide; a fault that will spoil the answer is recorded instead of its code.
    fn decide(&self, fault: Option<&str>) -> Reply {
        let mut cloud = self.shared.lock();
        let answer = self.answer(&mut cloud);
        self.reply(cloud, answer, fault)
    }

    fn answer(&self, cloud: &mut Cloud) -> Result<Answer, Refusal> {
        let Query { credentials, params, .. } = &self.query;
        match self.query.service() {
            Service::Ec2 => {
                let request = self.request(cloud)?;
                cloud.answer(&request)
            }
            Service::Sts if self.query.action == "GetCallerIdentity" => {
                cloud.caller_identity(credentials).map(Answer::Caller)
            }
            Service::Sts => cloud.assume_role(credentials, params).map(Answer::Assumed),
        }
    }

    /// Parses a call to EC2, and checks its credentials.
    fn request(&self, cloud: &Cloud) -> Result<Request, Refusal> {
        let caller = cloud.sessions.caller(&self.query.credentials).ok_or_else(|| {
            let message = "AWS was not able to validate the provided access credentials";
            Refusal::new("AuthFailure", message).with_status(401)
        })?;
        self.query.request(caller)
    }

    /// Refuses the call because of these machines.
    fn refuse(&self, no: Refusal, bad: &[String]) -> Reply {
        let mut cloud = self.shared.lock();
        if let Ok(request) = self.request(&cloud) {
            cloud.stop_elsewhere(&request, &request.ids, bad);
        }
        self.reply(cloud, Err(no), None)
    }

    /// Lets the cloud decide, and then refuses the call whatever was decided.
    fn do_and_refuse(&self, no: Refusal) -> Reply {
        let mut cloud = self.shared.lock();
        // The answer doesn't matter, even if it is a refusal itself: the caller can't know what was done.
        drop(self.answer(&mut cloud));
        self.reply(cloud, Err(no), None)
    }

    /// Records an answer, and writes it after unlocking the cloud, so that no other call has to wait.
    fn reply(&self, mut cloud: MutexGuard<Cloud>, answer: Result<Answer, Refusal>, fault: Option<&str>) -> Reply {
        let code = match &answer {
            Ok(_) => "ok",
            Err(refusal) => &refusal.code,
        };
        let request_id = self.record(&mut cloud, fault.unwrap_or(code));
        drop(cloud);
        match answer {
            Ok(answer) => {
                let xml = wire::answer(&self.query.action, &request_id, &answer);
                Reply { status: 200, xml }
            }
            Err(refusal) => {
                let xml = wire::refusal(self.query.service(), &request_id, &refusal);
                Reply { status: refusal.status, xml }
            }
        }
    }

    /// Adds the call to the log, and returns its request id.
    fn record(&self, cloud: &mut Cloud, code: &str) -> String {
        let Self { query, place, .. } = self;
        cloud.calls.push(Call {
            at: cloud.clock.now(),
            action: query.action.clone(),
            account: place.account.clone(),
            region: place.region.clone(),
            dry_run: query.flag("DryRun"),
            ids: query.ids(),
            params: query.params.clone(),
            code: code.to_owned(),
        });
        format!("00000000-0000-4000-8000-{:012x}", cloud.calls.len())
    }
}

/// Waits in real time.
async fn pause(time: Duration) {
    // Even a sleep of zero takes up to a millisecond.
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
