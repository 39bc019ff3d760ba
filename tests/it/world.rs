//! A cloud, a function in it, and the audit that every run goes through: what the report says must be what EC2 shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use ec2_sim::{Call, Fault, Host, Invocation, Machine, Outcome, Sim};
use serde_json::{Value, json};

use crate::snapshots;

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ec2-curfew"))
}

/// A timeout that is long enough for any test that isn't about time.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// Returns the moment this many minutes from now as events write it, in whole seconds.
pub(crate) fn in_minutes(minutes: i64) -> String {
    rfc3339(Utc::now() + TimeDelta::minutes(minutes))
}

pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The 7 PM event as it is shipped.
pub(crate) fn stop_7pm() -> Value {
    serde_json::from_str(include_str!("../../infra/events/stop-7pm.json")).unwrap()
}

/// The 8 AM event as it is shipped.
pub(crate) fn start_8am() -> Value {
    serde_json::from_str(include_str!("../../infra/events/start-8am.json")).unwrap()
}

/// An event with some fields added or replaced.
pub(crate) fn with(mut event: Value, fields: Value) -> Value {
    event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    event
}

/// The tag that says that Curfew stopped the instance, and when.
pub(crate) const MARK: &str = "curfew:stopped-at";

/// An event that marks what it stops, or starts only what is marked.
pub(crate) fn remembering(event: Value) -> Value {
    with(event, json!({"remember": true}))
}

pub(crate) fn stop() -> Value {
    json!({"action": "stop", "tags": {"curfew": "yes"}})
}

pub(crate) fn start() -> Value {
    json!({"action": "start", "tags": {"curfew": "yes"}})
}

/// A running instance that the usual events select.
pub(crate) fn ours(name: &str) -> Machine {
    Machine::named(name).tag("curfew", "yes")
}

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) host: Host,
    /// Whether DescribeInstances lags behind.
    pub(crate) lags: bool,
    /// The names of the instances that somebody else acts on during a run: their state afterwards proves nothing about
    /// what the run did.
    pub(crate) others_act_on: BTreeSet<String>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_env(&[]).await
    }

    pub(crate) async fn with_env(env: &[(&str, &str)]) -> Self {
        let sim = Sim::start().await;
        let url = sim.url();
        let mut all = vec![("AWS_ENDPOINT_URL_EC2", url.as_str()), ("AWS_ENDPOINT_URL_STS", url.as_str())];
        all.extend(env);
        let host = Host::start(binary(), &all).await;
        Self { sim, host, lags: false, others_act_on: BTreeSet::new() }
    }

    pub(crate) async fn invoke(&mut self, event: Value) -> Told {
        self.within(AMPLE, event).await
    }

    /// Hands over an event, and audits the run.
    pub(crate) async fn within(&mut self, time: Duration, event: Value) -> Told {
        self.bytes(time, event.to_string().into_bytes()).await
    }

    /// Hands over an event, and lets somebody else act during the run, after this time.
    pub(crate) async fn while_it_runs(&mut self, event: Value, after: Duration, act: impl FnOnce(&Sim)) -> Told {
        let before = self.states();
        let snapshots = snapshots::before(&self.sim);
        self.sim.forget_calls();
        let Self { sim, host, .. } = self;
        let acting = async {
            tokio::time::sleep(after).await;
            act(sim);
        };
        let (invocation, ()) = tokio::join!(host.invoke(event.to_string(), AMPLE), acting);
        let told = Told::of(invocation);
        self.audit(&before, &snapshots, &told);
        told
    }

    pub(crate) async fn bytes(&mut self, time: Duration, event: Vec<u8>) -> Told {
        let before = self.states();
        let snapshots = snapshots::before(&self.sim);
        self.sim.forget_calls();
        let told = Told::of(self.host.invoke(event, time).await);
        if told.report.is_object() {
            self.audit(&before, &snapshots, &told);
        }
        told
    }

    /// Hands an event over again as Lambda's own retries do, under the request id of the last one.
    pub(crate) async fn retry(&mut self, event: Value) -> Told {
        let before = self.states();
        let snapshots = snapshots::before(&self.sim);
        self.sim.forget_calls();
        let told = Told::of(self.host.retry(event.to_string(), AMPLE).await);
        self.audit(&before, &snapshots, &told);
        told
    }

    /// Starts another process of the function in the same cloud, as Lambda does for a second event at the same time.
    pub(crate) async fn second_host(&self) -> Host {
        let url = self.sim.url();
        Host::start(binary(), &[("AWS_ENDPOINT_URL_EC2", &url), ("AWS_ENDPOINT_URL_STS", &url)]).await
    }

    /// Hands over an event, holds up the first call of an action, lets somebody else act, and lets the call go on.
    pub(crate) async fn at_the_call(&mut self, action: &str, event: Value, act: impl FnOnce(&Sim)) -> Told {
        let before = self.states();
        let snapshots = snapshots::before(&self.sim);
        self.sim.forget_calls();
        let mut held = self.sim.hold(action);
        let Self { sim, host, .. } = self;
        let acting = async {
            held.arrived().await;
            act(sim);
            held.release();
        };
        let (invocation, ()) = tokio::join!(host.invoke(event.to_string(), AMPLE), acting);
        let told = Told::of(invocation);
        self.audit(&before, &snapshots, &told);
        told
    }

    /// Hands over an event, and kills the function at the first call of an action, which EC2 then does not get to see.
    pub(crate) async fn dies_before(&mut self, action: &str, event: &Value) {
        self.sim.forget_calls();
        self.sim.fault(Fault::cut(action));
        let mut held = self.sim.hold(action);
        let Self { host, .. } = self;
        tokio::select! {
            _ = host.invoke(event.to_string(), AMPLE) => panic!("it made no {action} call"),
            () = held.arrived() => {}
        }
        held.release();
        // Time for the call to fail before the fault that cuts it is removed.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.sim.clear_faults();
    }

    /// Hands over an event, and kills the function as soon as EC2 has decided on a call of this action.
    pub(crate) async fn dies_after_the(&mut self, action: &str, event: &Value) {
        self.sim.forget_calls();
        let Self { sim, host, .. } = self;
        let called = async {
            while sim.calls().iter().all(|call| call.action != action) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = host.invoke(event.to_string(), AMPLE) => panic!("it made no {action} call"),
            () = called => {}
        }
    }

    /// Hands over an event, and kills the function once EC2 has decided on this many calls, unless it ends before.
    pub(crate) async fn dies_after(&mut self, calls: usize, event: &Value) {
        self.sim.forget_calls();
        let Self { sim, host, .. } = self;
        let called = async {
            while sim.calls().len() < calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = host.invoke(event.to_string(), Duration::from_secs(12)) => {}
            () = called => {}
        }
        // A call that was in flight is still carried out: time for it to finish, so that it isn't counted as the next
        // attempt's.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn states(&self) -> BTreeMap<String, String> {
        self.sim.machines().into_iter().map(|machine| (machine.id, machine.state)).collect()
    }

    /// Compares the report with EC2: the counts, the states, the log of calls.
    fn audit(&self, before: &BTreeMap<String, String>, snapshots: &snapshots::Before, told: &Told) {
        if told.report["action"] == "snapshots" {
            return snapshots::audit(self, snapshots, told);
        }
        let (report, after) = (&told.report, self.states());
        let summary =
            |field: &str| report["summary"][field].as_u64().unwrap_or_else(|| panic!("no {field} in {report}"));
        let parts = ["changed", "would_change", "skipped", "failed", "unfinished"];
        assert_eq!(summary("matched"), parts.iter().map(|part| summary(part)).sum::<u64>(), "the sum of {report:#}");

        let truncated = report["targets"].as_array().unwrap().iter().any(|target| target["truncated"] != 0);
        // A tick counts what needs no change, but lists it only shortly after an edge, a launch or an exemption's end.
        let ticks = report["action"] == "reconcile";
        let mut listed = BTreeSet::new();
        for part in parts {
            let entries = told.entries(part);
            if !truncated && report.get("truncated_targets").is_none() {
                let quiet = ticks && ["skipped", "would_change"].contains(&part);
                let counted = summary(part);
                let whole = if quiet { entries.len() as u64 <= counted } else { entries.len() as u64 == counted };
                assert!(whole, "the list of {part} in {report:#}");
            }
            for entry in &entries {
                assert!(listed.insert(entry["id"].as_str().unwrap().to_owned()), "twice in {report:#}: {entry}");
            }
        }

        let stops = report["action"] == "stop";
        for entry in told.entries("changed").iter().filter(|entry| !self.is_others(entry)) {
            let state = &after[entry["id"].as_str().unwrap()];
            let stopped = stops || (ticks && entry["from"] == "running");
            let expected: &[&str] = if stopped { &["stopping", "stopped"] } else { &["running"] };
            assert!(expected.contains(&state.as_str()), "said changed, is {state}: {entry}");
        }
        for entry in &told.entries("failed") {
            // With lag, EC2 may refuse what an earlier attempt has done, while no look shows that yet.
            let Some(state) = after.get(entry["id"].as_str().unwrap()).filter(|_| !self.lags) else { continue };
            if self.is_others(entry) || ticks {
                continue;
            }
            let done: &[&str] = if stops { &["stopping", "stopped"] } else { &["running"] };
            assert!(!done.contains(&state.as_str()), "said failed, is {state}: {entry}");
        }
        for part in ["skipped", "would_change"] {
            for entry in told.entries(part).iter().filter(|entry| !self.is_others(entry)) {
                let id = entry["id"].as_str().unwrap();
                let switched = matches!(
                    (before[id].as_str(), after[id].as_str()),
                    ("running", "stopping" | "stopped") | ("stopped", "running" | "pending")
                );
                assert!(
                    !switched || entry["reason"] == "already_done",
                    "said {part}, went from {} to {}: {entry}",
                    before[id],
                    after[id]
                );
            }
        }

        if !ticks {
            self.no_mark_of_this_run_is_left_on_what_runs(told);
        }

        // Every instance that a call switched is in the report, and no call named one that is not.
        let policy = include_str!("../../policy/execution-role.json");
        for call in self.sim.calls() {
            if call.action == "AssumeRole" {
                assert!(include_str!("../../policy/execution-role-accounts.json").contains("\"sts:AssumeRole\""));
                continue;
            }
            assert!(policy.contains(&format!("\"ec2:{}\"", call.action)), "the policy doesn't allow {}", call.action);
            if !matches!(call.action.as_str(), "StopInstances" | "StartInstances" | "CreateTags" | "DeleteTags") {
                continue;
            }
            assert!(call.ids.len() <= 1000, "{} of {} instances", call.action, call.ids.len());
            assert!(!report["dry_run"].as_bool().unwrap() || call.dry_run, "a dry run called {}", call.action);
            assert!(!call.params.contains_key("Force"), "forced: {:?}", call.params);
            if call.action.ends_with("Tags") {
                let keys: Vec<_> = call.params.iter().filter(|(name, _)| name.ends_with(".Key")).collect();
                assert!(matches!(keys[..], [(_, key)] if key == "curfew:stopped-at"), "{}: {keys:?}", call.action);
                let named = call.params.get("Tag.1.Value").is_some_and(|value| !value.is_empty());
                assert!(named, "{} whatever the value: another run's mark may stand there by now", call.action);
            }
            // A tick doesn't list what it only marks, nor, as a dry run, what earlier ticks would have changed already.
            let counted = ticks && (call.action.ends_with("Tags") || call.dry_run);
            if !truncated && !counted {
                for id in &call.ids {
                    assert!(listed.contains(id), "{} of {id}, which the report doesn't list: {report:#}", call.action);
                }
            }
        }
    }

    /// Checks that no running instance has a mark of this run: with it, a later stop by hand would look like ours.
    fn no_mark_of_this_run_is_left_on_what_runs(&self, told: &Told) {
        let refused = |call: &Call| call.action == "DeleteTags" && call.code != "ok";
        if self.sim.calls().iter().any(refused) {
            return;
        }
        for machine in self.sim.machines().iter().filter(|machine| machine.state == "running") {
            let Some(mark) = machine.tags.get(MARK).filter(|mark| mark.ends_with(told.run())) else { continue };
            let others = self.others_act_on.contains(machine.name());
            assert!(others || !counts(machine), "{} runs, and is marked {mark}: {:#}", machine.name(), told.report);
        }
    }

    fn is_others(&self, entry: &Value) -> bool {
        entry["name"].as_str().is_some_and(|name| self.others_act_on.contains(name))
    }

    /// Returns the calls of an action, in their order.
    pub(crate) fn calls(&self, action: &str) -> Vec<Call> {
        self.sim.calls().into_iter().filter(|call| call.action == action).collect()
    }

    /// Returns the names of the instances in successful calls of an action, without dry runs.
    pub(crate) fn done(&self, action: &str) -> BTreeSet<String> {
        let calls =
            self.sim.calls().into_iter().filter(|call| call.action == action && call.code == "ok" && !call.dry_run);
        let id_to_name = |id: String| self.sim.machine(&id).name().to_owned();
        calls.flat_map(|call| call.ids).map(id_to_name).collect()
    }

    /// Counts the calls of an action.
    pub(crate) fn count(&self, action: &str) -> usize {
        self.sim.calls().iter().filter(|call| call.action == action).count()
    }

    /// Waits for a machine to settle in a state.
    pub(crate) async fn settled(&self, name: &str, state: &str) {
        for _ in 0..200 {
            if self.sim.state(name) == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is {}, not {state}", self.sim.state(name));
    }
}

/// What came of an invocation: its answer, and its log.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    /// The report, from its log line; null if there is none.
    pub(crate) report: Value,
    pub(crate) logs: Vec<Value>,
    /// The time from the event to the answer.
    pub(crate) took: Duration,
    /// Lambda's id of the invocation.
    pub(crate) request_id: String,
}

impl Told {
    pub(crate) fn of(invocation: Invocation) -> Self {
        let logs = invocation.json_logs();
        assert_eq!(logs.len(), invocation.logs.len(), "not every line is JSON: {:#?}", invocation.logs);
        let mut reports: Vec<Value> = logs.iter().filter(|line| line.get("targets").is_some()).cloned().collect();
        assert!(reports.len() <= 1, "one report a run");
        let mut report = reports.pop().unwrap_or_default();
        if let Value::Object(fields) = &mut report {
            fields.remove("timestamp");
            fields.remove("level");
        }
        match &invocation.outcome {
            Outcome::Answered(answer) => assert_eq!(answer, &report, "the answer is the report's line"),
            Outcome::Failed { message, .. } if report.is_object() => {
                assert_eq!(*message, report["message"], "the error's text is the report's sentence");
            }
            _ => {}
        }
        Self { outcome: invocation.outcome, report, logs, took: invocation.took, request_id: invocation.request_id }
    }

    /// Returns what a mark of this run ends with: the first eight hex digits of Lambda's request id.
    pub(crate) fn run(&self) -> &str {
        &self.request_id[..8]
    }

    pub(crate) fn message(&self) -> String {
        match &self.outcome {
            Outcome::Answered(report) => report["message"].as_str().unwrap().to_owned(),
            Outcome::Failed { message, .. } => message.clone(),
            other => panic!("neither answered nor failed: {other:?}"),
        }
    }

    /// Returns the report's outcome, like `complete`, for an invocation that succeeded; otherwise the error's type.
    pub(crate) fn verdict(&self) -> String {
        match &self.outcome {
            Outcome::Answered(report) => report["outcome"].as_str().unwrap().to_owned(),
            Outcome::Failed { error_type, .. } => error_type.clone(),
            other => panic!("neither answered nor failed: {other:?}"),
        }
    }

    /// Returns all targets' entries in one of the report's lists, like `changed`.
    pub(crate) fn entries(&self, list: &str) -> Vec<Value> {
        let targets = self.report["targets"].as_array().unwrap_or_else(|| panic!("no report: {self:?}"));
        targets.iter().flat_map(|target| target[list].as_array().unwrap().clone()).collect()
    }

    /// Returns the names in a list.
    pub(crate) fn names(&self, list: &str) -> BTreeSet<String> {
        self.entries(list).iter().map(|entry| entry["name"].as_str().unwrap_or("?").to_owned()).collect()
    }

    /// Returns the entry of an instance in a list.
    pub(crate) fn entry(&self, list: &str, name: &str) -> Value {
        let entries = self.entries(list);
        entries
            .iter()
            .find(|entry| entry["name"] == name)
            .cloned()
            .unwrap_or_else(|| panic!("no {name} among {list}: {:#}", self.report))
    }

    /// Returns the reason for which an instance was left alone.
    pub(crate) fn reason(&self, name: &str) -> String {
        self.entry("skipped", name)["reason"].as_str().unwrap().to_owned()
    }

    /// Returns the log line about an instance.
    pub(crate) fn line(&self, name: &str) -> &Value {
        self.logs
            .iter()
            .find(|line| line["name"] == name)
            .unwrap_or_else(|| panic!("no line about {name}: {:#?}", self.logs))
    }
}

/// Returns the moment in a mark, with or without the id of the run that wrote it; none if it can't be read.
pub(crate) fn moment(mark: &str) -> Option<DateTime<Utc>> {
    mark.split(' ').next()?.parse().ok()
}

/// Whether a machine has a mark that counts: one later than its last start.
pub(crate) fn counts(machine: &Machine) -> bool {
    machine.tags.get(MARK).and_then(|mark| moment(mark)).is_some_and(|moment| moment > machine.launch_time)
}

pub(crate) fn exempt(sim: &Sim, name: &str) {
    sim.edit(name, |machine| drop(machine.tags.insert("curfew:exempt".into(), "true".into())));
}

/// A set of names.
pub(crate) fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}
