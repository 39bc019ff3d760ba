//! Random snapshots and faults, night after night: nothing outside the rule is ever deleted, nothing is deleted in the
//! night after a reason to keep it has ended, and once the faults are over, everything inside the rule is.
//!
//! The model knows nothing about how Curfew works: it says which snapshots may be deleted. A failure prints its seed;
//! `CURFEW_SEED=… CURFEW_CASES=1` repeats it.

use std::env;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ec2_sim::{Fault, Sim, Snapshot};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use crate::snapshots::{DELETE_AFTER, QUESTIONS, event};
use crate::world::*;

/// How many cases run at a time: they mostly wait.
const AT_A_TIME: u64 = 8;

/// One snapshot of the model.
#[derive(Clone, Debug)]
struct Piece {
    selected: bool,
    marked: Mark,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    None,
    Due,
    Later,
    /// Later than the days of grace: a person's.
    Far,
    Odd,
    /// Overdue by a year.
    Stale,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Orphan,
    Young,
    VolumeExists,
    Image,
    Deprecated,
    Disabled,
    Backup,
    Dlm,
    Copied,
    Shared,
    Locked,
    Fast,
    Archived,
    /// Archived, and restored for some days.
    Restored,
    Exempt,
    /// Exempt, with its key written in another case.
    ExemptInCapitals,
    Velero,
    Pending,
    Strange,
    /// A person exempts it during the run, at one of its calls.
    ExemptedMeanwhile,
    /// A person makes an image of it during the run.
    ImagedMeanwhile,
    /// A person deletes its mark during the run.
    UnmarkedMeanwhile,
    /// A person shares it during the run: then neither EC2 nor the role's policy would keep it.
    SharedMeanwhile,
}

/// Something that goes wrong until the cloud recovers.
#[derive(Clone, Debug)]
struct Trouble {
    action: &'static str,
    what: What,
    victim: Option<usize>,
    times: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Refuse(&'static str, u16),
    RefuseAfter(&'static str, u16),
    LoseAnswer,
    Cut,
    Garble,
    Empty,
}

#[derive(Clone, Debug)]
struct Case {
    fleet: Vec<Piece>,
    troubles: Vec<Trouble>,
    lag: bool,
    small_pages: bool,
    dry_run: bool,
    /// The action at whose first call people act.
    at: &'static str,
    death: Option<usize>,
    /// So many snapshots, the first in EC2's lists, are refused whatever is to be done to them, for good.
    refused: usize,
    /// Marks can't be deleted, for good.
    stuck: bool,
}

fn pieces() -> impl Strategy<Value = Piece> {
    use Kind::*;
    let kinds = vec![
        Orphan,
        Orphan,
        Orphan,
        Orphan,
        Orphan,
        Orphan,
        Young,
        VolumeExists,
        Image,
        Deprecated,
        Disabled,
        Backup,
        Dlm,
        Copied,
        Shared,
        Locked,
        Fast,
        Archived,
        Restored,
        Restored,
        Exempt,
        ExemptInCapitals,
        Velero,
        Pending,
        Strange,
        ExemptedMeanwhile,
        ImagedMeanwhile,
        UnmarkedMeanwhile,
        SharedMeanwhile,
        SharedMeanwhile,
    ];
    let marks =
        vec![Mark::Due, Mark::Due, Mark::Due, Mark::Due, Mark::None, Mark::Later, Mark::Far, Mark::Odd, Mark::Stale];
    (prop::bool::weighted(0.9), prop::sample::select(marks), prop::sample::select(kinds))
        .prop_map(|(selected, marked, kind)| Piece { selected, marked, kind })
}

fn troubles() -> impl Strategy<Value = Vec<Trouble>> {
    let mut actions = vec!["DeleteSnapshot", "DeleteSnapshot", "DeleteSnapshot", "CreateTags", "DeleteTags"];
    actions.extend(QUESTIONS);
    let whats = vec![
        What::Refuse("UnauthorizedOperation", 403),
        What::Refuse("RequestLimitExceeded", 503),
        What::Refuse("InternalError", 500),
        What::Refuse("FutureError", 418),
        What::Refuse("InvalidSnapshot.InUse", 400),
        What::RefuseAfter("InternalError", 500),
        What::LoseAnswer,
        What::Cut,
        What::Garble,
        What::Empty,
    ];
    let victim = prop::option::weighted(0.5, 0..12_usize);
    let trouble = (prop::sample::select(actions), prop::sample::select(whats), victim, 1..6_u32, 0..4_u32);
    vec(trouble.prop_map(|(action, what, victim, times, after)| Trouble { action, what, victim, times, after }), 0..5)
}

fn cases() -> impl Strategy<Value = Case> {
    let mut at: Vec<&'static str> = QUESTIONS.into();
    at.extend(["DeleteSnapshot", "DeleteSnapshot", "CreateTags"]);
    let flags = (prop::bool::weighted(0.2), any::<bool>(), prop::bool::weighted(0.1));
    let death = prop::option::weighted(0.3, 1..25_usize);
    let for_good = (prop::option::weighted(0.3, 1..9_usize), prop::bool::weighted(0.15));
    (vec(pieces(), 1..14), troubles(), flags, prop::sample::select(at), death, for_good).prop_map(
        |(fleet, troubles, (lag, small_pages, dry_run), at, death, (refused, stuck))| Case {
            fleet,
            troubles,
            lag,
            small_pages,
            dry_run,
            at,
            death,
            refused: refused.unwrap_or(0),
            stuck,
        },
    )
}

fn name(n: usize) -> String {
    format!("s-{n}")
}

impl Piece {
    fn snapshot(&self, n: usize) -> Snapshot {
        let mut it = Snapshot::named(&name(n));
        if self.selected {
            it = it.tag("curfew", "yes");
        }
        it = match self.marked {
            Mark::None => it,
            Mark::Due => it.tag(DELETE_AFTER, &in_minutes(-1)),
            Mark::Later => it.tag(DELETE_AFTER, &in_minutes(600)),
            Mark::Far => it.tag(DELETE_AFTER, "2035-01-01T00:00:00Z"),
            Mark::Odd => it.tag(DELETE_AFTER, "when I say so"),
            Mark::Stale => it.tag(DELETE_AFTER, &in_minutes(-60 * 24 * 365)),
        };
        match self.kind {
            Kind::Young => it.started = Utc::now() - TimeDelta::days(179),
            Kind::Backup => it = it.tag("aws:backup:source-resource", "arn"),
            Kind::Dlm => it.description = "Created for policy: policy-1 schedule: x".into(),
            Kind::Copied => it.volume = "vol-ffffffff".into(),
            Kind::Shared => it.shared_with = vec!["111122223333".into()],
            Kind::Locked => it.lock = Some("governance".into()),
            Kind::Fast => it.fast = Some("enabled".into()),
            Kind::Archived => it.tier = "archive".into(),
            Kind::Restored => it.restored = Some(Utc::now() + TimeDelta::days(1)),
            Kind::ExemptInCapitals => it = it.tag("Curfew:Exempt", ""),
            Kind::Velero => it = it.tag("velero.io/backup", "nightly"),
            Kind::Exempt => it = it.tag("curfew:exempt", ""),
            Kind::Pending => it.state = "pending".into(),
            Kind::Strange => it.volume = "vol-X".into(),
            _ => {}
        }
        it
    }

    /// Whether it may be deleted, as far as is known before the run.
    fn may_go(&self) -> bool {
        self.selected && self.marked == Mark::Due && self.kind == Kind::Orphan
    }

    /// Ends whatever keeps it.
    fn set_free(&self, sim: &Sim, id: &str) {
        sim.forsake(id);
        sim.edit_snapshot(id, |it| {
            let free = Snapshot { id: it.id.clone(), tags: it.tags.clone(), ..Snapshot::named("") };
            *it = Snapshot { volume: "vol-0123456789abcdef0".into(), ..free };
            it.tags.retain(|key, _| [DELETE_AFTER, "curfew", "Name"].contains(&key.as_str()));
        });
    }

    /// Whether a person acts on it during the run. That may come too late, but then nothing kept it before.
    fn is_a_persons(&self) -> bool {
        matches!(
            self.kind,
            Kind::ExemptedMeanwhile | Kind::ImagedMeanwhile | Kind::UnmarkedMeanwhile | Kind::SharedMeanwhile
        )
    }
}

impl Trouble {
    fn fault(&self, ids: &[String]) -> Fault {
        let fault = match self.what {
            What::Refuse(code, status) => Fault::refuse(self.action, code, "Not today.").status(status),
            What::RefuseAfter(code, status) => Fault::refuse_after(self.action, code, "Not today.").status(status),
            What::LoseAnswer => Fault::lose_answer(self.action),
            What::Cut => Fault::cut(self.action),
            What::Garble => Fault::garble(self.action),
            What::Empty => Fault::answer(self.action, 200, ""),
        };
        let takes_ids =
            ["DeleteSnapshot", "CreateTags", "DeleteTags", "DescribeSnapshotAttribute"].contains(&self.action);
        let fault = match self.victim.filter(|_| takes_ids) {
            Some(victim) => fault.on([ids[victim % ids.len()].clone()]),
            None => fault,
        };
        fault.times(self.times).after(self.after)
    }
}

async fn check(case: Case) {
    let mut world = World::new().await;
    world.sim.settings(|settings| {
        settings.describe_lag = Duration::from_millis(if case.lag { 120 } else { 0 });
        settings.page_size = if case.small_pages { 3 } else { 1000 };
        settings.empty_pages = usize::from(case.small_pages);
        // As with the shipped role: what a person does at the last moment counts, because EC2 checks the tags itself.
        settings.guards_snapshots = true;
        settings.only_tagged = Some(("curfew".into(), "yes".into()));
    });
    let (mut ids, mut as_made) = (Vec::new(), Vec::new());
    for (n, piece) in case.fleet.iter().enumerate() {
        let snapshot = piece.snapshot(n);
        as_made.push(snapshot.tags.clone());
        let id = world.sim.add_snapshot(snapshot);
        match piece.kind {
            Kind::VolumeExists => world.sim.add_volume_of(&id),
            Kind::Image => drop(world.sim.add_image_of(&id, false, false)),
            Kind::Deprecated => drop(world.sim.add_image_of(&id, true, false)),
            Kind::Disabled => drop(world.sim.add_image_of(&id, false, true)),
            _ => {}
        }
        ids.push(id);
    }
    let for_good = |sim: &Sim| {
        let refuse = |action: &str| Fault::refuse(action, "UnauthorizedOperation", "{id} is not for you.").status(403);
        if case.refused > 0 {
            let first: Vec<String> = ids.iter().take(case.refused).cloned().collect();
            sim.fault(refuse("DeleteSnapshot").on(first.clone()));
            sim.fault(refuse("CreateTags").on(first));
        }
        if case.stuck {
            sim.fault(refuse("DeleteTags").on(ids.clone()));
        }
    };
    for_good(&world.sim);
    let event = with(event(), json!({"dry_run": case.dry_run}));
    world.others_act_on.extend(case.fleet.iter().enumerate().filter(|(_, it)| it.is_a_persons()).map(|(n, _)| name(n)));
    for trouble in &case.troubles {
        world.sim.fault(trouble.fault(&ids));
    }
    // The first night: faults, and people who act at one of its calls, if there is such a call.
    let mut theirs = vec![None; case.fleet.len()];
    let mut held = world.sim.hold(case.at);
    let (sim, host) = (&world.sim, &mut world.host);
    let run = host.invoke(event.to_string(), Duration::from_secs(10));
    let meanwhile = async {
        held.arrived().await;
        for (n, piece) in case.fleet.iter().enumerate() {
            theirs[n] = sim.snapshot(&ids[n]).map(|_| ()).filter(|()| piece.is_a_persons());
            match piece.kind {
                Kind::ExemptedMeanwhile => {
                    sim.edit_snapshot(&ids[n], |it| drop(it.tags.insert("curfew:exempt".into(), "true".into())));
                }
                Kind::UnmarkedMeanwhile => sim.edit_snapshot(&ids[n], |it| drop(it.tags.remove(DELETE_AFTER))),
                Kind::ImagedMeanwhile => drop(sim.add_image_of(&ids[n], false, false)),
                Kind::SharedMeanwhile => sim.edit_snapshot(&ids[n], |it| it.shared_with.push("all".into())),
                _ => {}
            }
        }
        held.release();
        std::future::pending::<()>().await;
    };
    let dies = async {
        match case.death {
            None => std::future::pending().await,
            Some(calls) => {
                while sim.calls().len() < calls {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    };
    tokio::select! {
        _ = run => {}
        () = meanwhile => {}
        () = dies => {}
    }
    tokio::time::sleep(Duration::from_millis(130)).await;
    let stands = |world: &World, when: &str| {
        for (n, piece) in case.fleet.iter().enumerate() {
            let is_there = world.sim.snapshot(&ids[n]).is_some();
            // What a person acted on before its deletion must still be there; sharing it at the deletion itself is too
            // late.
            let in_time = theirs[n].is_some() && (piece.kind != Kind::SharedMeanwhile || case.at != "DeleteSnapshot");
            let is_due = piece.selected && piece.marked == Mark::Due && (piece.may_go() || piece.is_a_persons());
            let must_stay = case.dry_run || in_time || !is_due;
            assert!(is_there || !must_stay, "{when} {} is gone: {piece:?}", name(n));
            if matches!(piece.marked, Mark::Far | Mark::Odd) && !piece.is_a_persons() {
                let mark = &world.sim.snapshot(&ids[n]).unwrap().tags[DELETE_AFTER];
                assert_eq!(*mark, as_made[n][DELETE_AFTER], "{when} the mark of {} is another", name(n));
            }
            if !piece.selected && !piece.is_a_persons() {
                assert_eq!(world.sim.snapshot(&ids[n]).unwrap().tags, as_made[n], "{} is none of ours", name(n));
            }
        }
    };
    stands(&world, "after the night of troubles");

    // Then the faults are over, and two retries come: what still lags at the first is deleted by the second.
    world.sim.clear_faults();
    for_good(&world.sim);
    world.sim.forget_calls();
    drop(world.sim.hold("NoCall"));
    let told = world.within(Duration::from_secs(20), event.clone()).await;
    assert!(["complete", "Incomplete"].contains(&told.verdict().as_str()), "{:#}", told.report);
    tokio::time::sleep(Duration::from_millis(130)).await;
    stands(&world, "after the retry");
    for (n, piece) in case.fleet.iter().enumerate() {
        let it = world.sim.snapshot(&ids[n]);
        let is_refused = n < case.refused;
        if piece.may_go() && !case.dry_run && !is_refused && !case.stuck {
            // If a fault said that it is in use, it was unmarked, and its days of grace have begun anew.
            let anew =
                it.as_ref().is_some_and(|it| it.tags.get(DELETE_AFTER).is_some_and(|mark| *mark > in_minutes(60)));
            assert!(it.is_none() || anew, "{} is left: {piece:?}, told {:#}", name(n), told.report);
        }
        if piece.selected && piece.kind == Kind::Orphan && !case.dry_run && !is_refused {
            let mark = it.and_then(|it| it.tags.get(DELETE_AFTER).cloned());
            match piece.marked {
                Mark::None => assert!(mark.is_some(), "{} is not marked", name(n)),
                Mark::Stale if !case.stuck => {
                    assert!(mark.is_some_and(|mark| mark > in_minutes(60)), "{} is not marked anew", name(n));
                }
                _ => {}
            }
        }
    }
    for entry in told.entries("failed").iter().filter(|entry| entry["code"] == "UnauthorizedOperation") {
        let (id, message) = (entry["id"].as_str().unwrap(), entry["message"].as_str().unwrap());
        assert!(message.contains(id), "another's refusal: {entry}");
    }

    // Then nothing keeps them any more: the days of grace of what was kept begin anew.
    let was_kept = |piece: &Piece| piece.selected && piece.kind != Kind::Orphan && !piece.is_a_persons();
    for (n, piece) in case.fleet.iter().enumerate().filter(|(_, piece)| was_kept(piece)) {
        piece.set_free(&world.sim, &ids[n]);
    }
    tokio::time::sleep(Duration::from_millis(130)).await;
    let told = world.within(Duration::from_secs(20), event.clone()).await;
    assert!(["complete", "Incomplete"].contains(&told.verdict().as_str()), "{:#}", told.report);
    stands(&world, "once nothing keeps them");
}

fn case_of(seed: u64) -> Case {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    cases().new_tree(&mut runner).unwrap().current()
}

fn from_env(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_nothing_outside_the_rule_is_ever_deleted() {
    let (first, count) = (from_env("CURFEW_SEED", 20_261_121), from_env("CURFEW_CASES", 200));
    println!("{count} cases from seed {first}");
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..AT_A_TIME {
        lanes.spawn(async move {
            for seed in (first + lane..first + count).step_by(AT_A_TIME as usize) {
                let case = case_of(seed);
                let shown = format!("{case:#?}");
                if tokio::spawn(check(case)).await.is_err() {
                    panic!("CURFEW_SEED={seed} CURFEW_CASES=1 fails: {shown}");
                }
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        assert!(lane.is_ok(), "a case failed, see above");
    }
}
