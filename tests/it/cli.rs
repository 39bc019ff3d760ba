//! The command-line tool through its front door: the real `curfew` against a double of EC2, in a terminal or a pipe.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use chrono::{DateTime, Datelike, Days, NaiveTime, TimeDelta, Utc, Weekday};
use ec2_sim::{Fault, Machine, Sim};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::world::*;

/// The only actions that the tool may call.
const LOOKS: [&str; 4] = ["AssumeRole", "DescribeInstances", "DescribeRegions", "GetCallerIdentity"];

/// What a command printed, and its exit status.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

/// A user's machine: an AWS account, a home directory, an environment.
pub(crate) struct Desk {
    pub(crate) sim: Sim,
    /// Holds an empty home directory, and the only folder in `PATH`.
    pub(crate) folder: PathBuf,
    env: BTreeMap<String, String>,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        let sim = Sim::start().await;
        let name = sim.url().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("curfew-{}-{name}", std::process::id()));
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        let env = [
            ("AWS_ENDPOINT_URL", sim.url()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("HOME", folder.display().to_string()),
            ("PATH", folder.join("bin").display().to_string()),
        ];
        Self { sim, folder, env: env.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(self.folder.join(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
        command.args(args).current_dir(&self.folder).env_clear().envs(&self.env).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command with this on its standard input.
    pub(crate) async fn with_input(&self, args: &[&str], input: &str) -> Said {
        let mut child = self.command(args).spawn().unwrap();
        // Writing fails if the command doesn't read its standard input.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()).await);
        let output = tokio::time::timeout(AMPLE, child.wait_with_output()).await.unwrap().unwrap();
        for call in self.sim.calls() {
            assert!(
                LOOKS.contains(&call.action.as_str()) && !call.dry_run,
                "it only looks, and called {}",
                call.action
            );
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap() }
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Said {
        self.with_input(args, "").await
    }

    /// Plans an event.
    async fn plan(&self, event: &Value, args: &[&str]) -> Said {
        self.with_input(&[&["plan", "-"], args].concat(), &event.to_string()).await
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[test]
fn the_function_has_nothing_of_the_tools_in_it() {
    let holds = |binary: &str, word: &str| {
        let bytes = std::fs::read(binary).unwrap();
        bytes.windows(word.len()).any(|window| window == word.as_bytes())
    };
    for word in ["clap_builder", "indicatif", "annotate_snippets", "jsonc_parser"] {
        assert!(holds(env!("CARGO_BIN_EXE_curfew"), word), "{word} is not in the tool");
        assert!(!holds(env!("CARGO_BIN_EXE_ec2-curfew"), word), "{word} is in the function");
    }
}

/// One of each kind that people ask about.
fn an_office(sim: &Sim) {
    for n in 1..=3 {
        sim.add(ours(&format!("web-{n}")).zone("us-east-1b"));
    }
    sim.add(ours("booting").state("pending"));
    sim.add(ours("asg-1").tag("aws:autoscaling:groupName", "shop"));
    sim.add(ours("demo").tag("curfew:exempt", "true"));
    sim.add(ours("release").tag("curfew:exempt", "2099-12-31 22:00"));
    sim.add(ours("sandbox").tag("curfew:exempt", "tomorrow"));
    sim.add(ours("late-shift").tag("curfew:hours", "Mo-Fr 14:00-22:00"));
    sim.add(ours("node").tag("eks:nodegroup-name", "workers"));
    sim.add(ours("scratch").instance_store());
    sim.add(ours("just-now"));
    sim.edit("just-now", |machine| machine.launch_time = Utc::now() + TimeDelta::minutes(2));
    sim.add(ours("off").state("stopped"));
    sim.add(Machine::named("bastion"));
    sim.add(Machine::named("cased").tag("Curfew", "yes"));
}

/// Replaces what differs from run to run: moments, and how far away they are.
fn still(text: &str) -> String {
    let mut still = String::new();
    for line in text.lines() {
        let line = match line.split_once("last started ") {
            Some((before, _)) => format!("{before}last started [when]"),
            None => match line.split_once(" UTC, in ") {
                Some((before, _)) => format!("{before} UTC, in [time]"),
                None => line.to_owned(),
            },
        };
        still.push_str(&line);
        still.push('\n');
    }
    still
}

fn id_of(sim: &Sim, name: &str) -> String {
    sim.machine(name).id
}

#[tokio::test]
async fn a_plan_reads_well_in_eighty_columns_and_in_a_hundred_and_twenty() {
    let desk = Desk::new().await.env("COLUMNS", "80");
    an_office(&desk.sim);
    let event = remembering(stop());
    let narrow = desk.plan(&event, &[]).await;
    assert_eq!((narrow.err.as_str(), narrow.code), ("", 0));
    insta::assert_snapshot!("plan_80", still(&narrow.out));
    for line in narrow.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert_eq!(line.trim_end(), line);
    }
    let wide = desk.env("COLUMNS", "120").plan(&event, &[]).await;
    insta::assert_snapshot!("plan_120", still(&wide.out));
}

#[tokio::test]
async fn a_plan_says_what_the_function_says_of_the_same_event() {
    for (action, regions) in [("stop", json!("us-east-1")), ("start", json!(["us-east-1", "eu-west-1"]))] {
        let mut world = World::new().await;
        an_office(&world.sim);
        world.sim.add(ours("ours").state("stopped").tag(MARK, &in_minutes(-60)));
        world.sim.add(ours("going").state("stopping").tag(MARK, &in_minutes(-60)));
        world.sim.add(ours("far").region("eu-west-1"));
        let event = json!({"action": action, "tags": {"curfew": "yes"}, "remember": true, "regions": regions});
        let told = world.invoke(with(event.clone(), json!({"dry_run": true}))).await;

        let mut desk = Desk::new().await;
        desk.env.insert("AWS_ENDPOINT_URL".to_owned(), world.sim.url());
        let said = desk.plan(&event, &["--json"]).await;
        let report: Value = serde_json::from_str(&said.out).unwrap();
        for field in ["outcome", "action", "dry_run", "summary", "skipped_by", "targets", "version", "name"] {
            assert_eq!(report[field], told.report[field], "{action}: {field}");
        }
        let message = told.report["message"].as_str().unwrap().replace("dry run, ", "");
        assert_eq!(report["message"], message.as_str());
        assert!(report["summary"]["would_change"].as_u64().unwrap() > 1, "{report:#}");
    }
}

#[tokio::test]
async fn nothing_but_looks_goes_out_whatever_the_event_asks_for() {
    let desk = Desk::new().await;
    an_office(&desk.sim);
    desk.sim.add(ours("stale").tag(MARK, &in_minutes(-600)));
    desk.sim.add(ours("off-hours").state("stopped").tag("curfew:hours", "24/7"));
    let mut asked = BTreeSet::new();
    for action in ["stop", "start", "reconcile"] {
        for fields in [json!({}), json!({"dry_run": true}), json!({"remember": true}), json!({"regions": "all"})] {
            let event = with(json!({"action": action, "tags": {"curfew": "yes"}}), fields);
            for args in [&[][..], &["--json"], &["--instance", &id_of(&desk.sim, "web-1")]] {
                let said = desk.plan(&event, args).await;
                assert_eq!(said.code, 0, "{said:?}");
            }
        }
    }
    // `with_input` has checked each of them against the list.
    asked.extend(desk.sim.calls().into_iter().map(|call| call.action));
    assert_eq!(asked, names(["DescribeInstances", "DescribeRegions", "GetCallerIdentity"]));
    // GetCallerIdentity needs no permission.
    let policy: Value = serde_json::from_str(include_str!("../../policy/read-only.json")).unwrap();
    let allowed = &policy["Statement"][0]["Action"];
    assert_eq!(allowed, &json!(["ec2:DescribeInstances", "ec2:DescribeRegions"]));
}

#[tokio::test]
async fn what_ticks_have_told_of_before_is_told_anew() {
    let mut world = World::new().await;
    world.sim.add(ours("lab").tag("curfew:hours", "lab"));
    world.sim.add(ours("late").tag("curfew:hours", "lab").tag("curfew:exempt", "true"));
    world.sim.add(ours("always").tag("curfew:hours", "24/7"));
    // Closed for two hours.
    let at = |hours| (Utc::now() - TimeDelta::hours(hours)).format("%H:%M").to_string();
    let event = json!({
        "action": "reconcile", "tags": {"curfew": "yes"}, "hours": {"lab": format!("Mo-Su {}-{}", at(5), at(2))}
    });
    let told = world.invoke(with(event.clone(), json!({"dry_run": true}))).await;
    assert_eq!((told.names("would_change"), told.names("skipped")), (names([]), names([])), "a tick is quiet by now");

    let mut desk = Desk::new().await;
    desk.env.insert("AWS_ENDPOINT_URL".to_owned(), world.sim.url());
    let said = desk.plan(&event, &[]).await;
    for name in ["lab", "late"] {
        assert!(said.out.lines().any(|line| line.contains(&format!("  {name} "))), "{name}: {}", said.out);
    }
    let end = "curfew: would stop 1 of 3; left 1 alone (1 exempt)\nNot listed: 1 as_scheduled\n";
    assert!(said.out.ends_with(end), "{}", said.out);
}

#[tokio::test]
async fn in_a_pipe_there_is_a_line_for_each_instance_no_colour_and_no_progress() {
    let desk = Desk::new().await;
    an_office(&desk.sim);
    desk.sim.fault(Fault::stall("DescribeInstances", Duration::from_millis(1500)).times(1));
    let piped = desk.plan(&stop(), &[]).await;
    assert_eq!(piped.err, "", "no spinner");
    assert!(!piped.out.contains('\u{1b}'), "{}", piped.out);
    for name in ["web-1", "asg-1", "sandbox"] {
        let lines: Vec<_> = piped.out.lines().filter(|line| line.contains(&id_of(&desk.sim, name))).collect();
        assert!(matches!(lines[..], [line] if line.contains(name)), "{name}: {lines:?}");
    }
    let sandbox = piped.out.lines().find(|line| line.contains("sandbox")).unwrap();
    assert!(sandbox.ends_with("correct it, or delete the tag"), "all of it in its line: {sandbox}");

    let coloured = Desk { env: desk.env.clone(), sim: Sim::start().await, folder: desk.folder.clone() };
    let coloured = coloured.env("CLICOLOR_FORCE", "1");
    assert!(coloured.plan(&stop(), &[]).await.out.contains("\u{1b}["));
    let plain = coloured.env("NO_COLOR", "1");
    assert!(!plain.plan(&stop(), &[]).await.out.contains('\u{1b}'));
}

#[tokio::test]
async fn five_thousand_instances_are_all_there_in_the_table_and_in_json() {
    let desk = Desk::new().await;
    desk.sim.add_many(5000, |n| ours(&format!("web-{n}")));
    let begun = Instant::now();
    let said = desk.plan(&stop(), &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(said.out.lines().filter(|line| line.contains("i-")).count(), 5000);
    assert_eq!(said.out.lines().last(), Some("curfew: would stop 5000 of 5000"));
    let report: Value = serde_json::from_str(&desk.plan(&stop(), &["--json"]).await.out).unwrap();
    assert_eq!(report["targets"][0]["would_change"].as_array().unwrap().len(), 5000);
    assert_eq!(report["targets"][0]["truncated"], 0);
}

#[tokio::test]
async fn who_has_read_enough_closes_the_pipe_and_nothing_panics() {
    let desk = Desk::new().await;
    desk.sim.add_many(2000, |n| ours(&format!("web-{n}")));
    let mut child = desk.command(&["plan", "-"]).spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(stop().to_string().as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), ("", Some(0)));
}

#[tokio::test]
async fn where_nothing_matches_it_says_what_is_there_instead() {
    let desk = Desk::new().await;
    desk.sim.add(Machine::named("web").tag("curfew", "on"));
    let said = desk.plan(&stop(), &[]).await;
    assert_eq!(said.code, 0);
    insta::assert_snapshot!(said.out, @r"
    <stdin>: stop what runs and has curfew=yes, in us-east-1 of 123456789012

    curfew: nothing to stop, no instance in us-east-1 has curfew=yes, but 1 instance has curfew=on
    ");
}

#[tokio::test]
async fn a_long_name_is_cut_in_a_terminal_and_whole_in_a_pipe() {
    let desk = Desk::new().await;
    let long = "a-name-of-200-characters".repeat(10)[..200].to_owned();
    let ids = [&*long, "web", &long[..49]].map(|name| desk.sim.add(ours(name)));
    desk.sim.add(ours("spared").tag("curfew:exempt", "true"));
    let said = desk.plan(&stop(), &[]).await;
    assert!(said.out.contains(&long), "{}", said.out);
    let desk = desk.env("COLUMNS", "80");
    let said = desk.plan(&stop(), &[]).await;
    assert!(said.out.lines().all(|line| line.chars().count() <= 80), "{}", said.out);
    assert!(
        ids.iter().all(|id| said.out.contains(id.as_str())) && said.out.contains("a-name-of-200-character"),
        "{}",
        said.out
    );
}

#[tokio::test]
async fn a_name_cannot_write_on_the_terminal() {
    let desk = Desk::new().await.env("CLICOLOR_FORCE", "1");
    desk.sim.add(ours("web\u{7}\u{1b}[2J\nall is well"));
    let said = desk.plan(&stop(), &[]).await;
    assert!(said.out.contains(r"web\u{7}\u{1b}[2J\nall is well"), "{}", said.out);
}

#[tokio::test]
async fn too_many_changes_and_a_late_event_read_as_the_function_would_say_it() {
    let desk = Desk::new().await;
    desk.sim.add_many(3, |n| ours(&format!("web-{n}")));
    let said = desk.plan(&with(stop(), json!({"max_changes": 2})), &[]).await;
    assert!(said.out.contains("NOT SWITCHED, BECAUSE THEY ARE TOO MANY"), "{}", said.out);
    assert!(said.out.ends_with("curfew: nothing stopped: would stop 3, more than max_changes (2)\n"), "{}", said.out);

    desk.sim.forget_calls();
    let said = desk.plan(&with(stop(), json!({"scheduled_time": in_minutes(-90)})), &[]).await;
    assert!(said.out.contains("nothing stopped, this run was due at"), "{}", said.out);
    assert!(said.out.ends_with("Leave out the event's time to plan for now.\n"), "{}", said.out);
    assert_eq!((said.code, desk.sim.calls().len()), (0, 0));
}

#[tokio::test]
async fn an_account_that_cannot_be_looked_at_is_said_and_the_others_are_planned() {
    let desk = Desk::new().await.env("COLUMNS", "100");
    for account in ["123456789012", "111111111111", "222222222222"] {
        desk.sim.add(ours(&format!("web-{}", &account[..1])).account(account));
    }
    desk.sim.settings(|settings| settings.denied_accounts = vec!["111111111111".to_owned()]);
    desk.sim.fault(
        Fault::refuse(
            "DescribeInstances",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
        )
        .status(403)
        .region("eu-west-1"),
    );
    let event = with(
        stop(),
        json!({"accounts": ["self", "111111111111", "222222222222"], "role": "curfew-member", "regions": ["us-east-1", "eu-west-1"]}),
    );
    let said = desk.plan(&event, &[]).await;
    assert_eq!(said.code, 1);
    insta::assert_snapshot!("plan_accounts", said.out);
}

#[tokio::test]
async fn why_not_mine_is_answered_for_each_reason() {
    let desk = Desk::new().await.env("COLUMNS", "100");
    an_office(&desk.sim);
    desk.sim.add(ours("unmarked"));
    desk.sim.switch_off("unmarked");
    let event = remembering(stop());
    let mut all = String::new();
    for name in
        ["web-1", "asg-1", "demo", "release", "sandbox", "late-shift", "node", "scratch", "off", "bastion", "cased"]
    {
        let said = desk.plan(&event, &["--instance", &id_of(&desk.sim, name)]).await;
        assert_eq!((said.err.as_str(), said.code), ("", 0), "{name}");
        all.push_str(&format!("{}\n----\n", still(&said.out)));
    }
    let start = with(remembering(start()), json!({"filters": {"instance-type": "m5.*"}}));
    let said = desk.plan(&start, &["--instance", &id_of(&desk.sim, "unmarked")]).await;
    all.push_str(&format!("{}\n----\n", still(&said.out)));
    let said = desk.plan(&remembering(self::start()), &["--instance", &id_of(&desk.sim, "unmarked")]).await;
    all.push_str(&still(&said.out));
    insta::assert_snapshot!("instances", all);
}

#[tokio::test]
async fn an_instance_with_hours_hears_its_next_edge_and_one_with_a_bad_tag_what_to_write() {
    let desk = Desk::new().await.env("COLUMNS", "100");
    desk.sim.add(ours("open").tag("curfew:hours", "always").state("stopped"));
    desk.sim.add(ours("bad").tag("curfew:hours", "Mon-Fri 8-19"));
    desk.sim.add(ours("none"));
    let event = json!({"action": "reconcile", "tags": {"curfew": "yes"}, "hours": {"always": "Mo-Su 00:00-23:59"}});
    let of = async |name| desk.plan(&event, &["--instance", &id_of(&desk.sim, name)]).await.out;
    let open = of("open").await;
    let closes = Utc::now().date_naive().format("closes %a %-d %b 23:59, in ").to_string();
    assert!(open.contains("curfew:hours=always: open since ") && open.contains(&closes), "{open}");
    let bad = of("bad").await;
    assert!(bad.contains("left alone, bad_tag") && bad.contains("'Key=curfew:hours,Value=Mo-Fr 08:00-19:00'"), "{bad}");
    let none = of("none").await;
    assert!(none.contains("not selected") && none.contains("it has no tag curfew:hours"), "{none}");
    assert!(none.contains("--tags Key=curfew:hours,Value=always"), "{none}");
}

#[tokio::test]
async fn an_instance_that_only_people_start_is_told_so_and_one_without_tags_what_it_takes() {
    let desk = Desk::new().await.env("COLUMNS", "100");
    desk.sim.add(ours("by-hand").tag("curfew:hours", "by hand").state("stopped"));
    desk.sim.add(Machine::named("bare"));
    let event = json!({
        "action": "reconcile", "tags": {"curfew": "yes"}, "remember": true,
        "hours": {"always": "24/7", "by hand": {"open": "Mo-Su 00:00-23:59", "start": false}},
    });
    let of = async |name| desk.plan(&event, &["--instance", &id_of(&desk.sim, name)]).await.out;
    let said = of("by-hand").await;
    let why = "by-hand: left alone, as_scheduled: its hours are open, but only people start it\n";
    assert!(said.contains(why), "{said}");
    assert!(said.contains("\"start\": false, only people start it"), "{said}");
    assert!(said.contains("\nWhoever may start it can do so now; whoever writes the event's hours can"), "{said}");
    // Once, with both commands; and not with hours in which nothing is ever stopped.
    let said = of("bare").await;
    let (_, fix) = said.split_once("To have it selected:\n").unwrap();
    assert!(!fix.contains("To have it selected"), "{said}");
    let tags: Vec<&str> = fix.lines().filter_map(|line| line.split_once("--tags ")).map(|(_, tags)| tags).collect();
    assert_eq!(tags, ["Key=curfew,Value=yes", "'Key=curfew:hours,Value=by hand'"]);
}

#[tokio::test]
async fn an_instance_elsewhere_is_found_there() {
    let desk = Desk::new().await;
    let id = desk.sim.add(ours("far").region("eu-west-1"));
    let said = desk.plan(&stop(), &["--instance", &id]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.contains(&format!("error: {id} is not where the event looks: us-east-1")), "{}", said.err);
    assert!(said.err.contains("help: it is in eu-west-1 of 123456789012: add eu-west-1 to"), "{}", said.err);
    let said = desk.plan(&stop(), &["--instance", "i-0123456789abcdef0"]).await;
    assert!(said.err.contains("help: no other region of these accounts has it"), "{}", said.err);
    let said = desk.plan(&stop(), &["--instance", "web-1"]).await;
    assert!(said.err.contains("write it like i-0abc12345678def00"), "{}", said.err);
}

#[tokio::test]
async fn what_stands_in_the_way_of_aws_is_said_with_what_to_do() {
    let mut all = String::new();
    let mut book = |what: &str, desk: &Desk, said: Said| {
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{what}: {said:?}");
        all.push_str(&format!("{what}\n{}\n", said.err.replace(&desk.sim.url(), "[url]")));
    };
    let desk = Desk::new().await;
    book("# no profile at all", &desk, desk.plan(&stop(), &["--profile", "dev"]).await);
    std::fs::create_dir_all(desk.folder.join(".aws")).unwrap();
    desk.file(".aws/config", "[default]\nregion = eu-west-1\n[profile develop]\nsso_session = x\n");
    book("# no such profile", &desk, desk.plan(&stop(), &["--profile", "nope"]).await);
    book("# a slip", &desk, desk.plan(&stop(), &["--profile", "develpo"]).await);
    book("# one without a login", &desk, desk.plan(&stop(), &["--profile", "develop"]).await);
    desk.sim.fault(
        Fault::refuse("GetCallerIdentity", "ExpiredToken", "The security token included in the request is expired")
            .status(403),
    );
    book("# expired credentials", &desk, desk.plan(&stop(), &[]).await);
    desk.sim.clear_faults();
    desk.sim.fault(
        Fault::refuse(
            "GetCallerIdentity",
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )
        .status(403),
    );
    book("# unknown credentials", &desk, desk.plan(&stop(), &[]).await);
    let desk = Desk::new().await.without("AWS_ACCESS_KEY_ID");
    book("# no credentials", &desk, desk.plan(&stop(), &[]).await);
    let desk = desk.env("AWS_PROFILE", "nope");
    book("# no such profile in the environment", &desk, desk.plan(&stop(), &[]).await);
    let desk = Desk::new().await.without("AWS_REGION");
    book("# no region", &desk, desk.plan(&stop(), &[]).await);
    let desk = Desk::new().await.env("AWS_REGION", "");
    book("# an empty region", &desk, desk.plan(&stop(), &[]).await);
    let desk = Desk::new().await.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    book("# nobody there", &desk, desk.plan(&stop(), &[]).await);
    insta::assert_snapshot!("aws", all);
}

#[tokio::test]
async fn an_event_that_names_regions_needs_no_other() {
    let desk = Desk::new().await.without("AWS_REGION");
    desk.sim.add(ours("web").region("eu-west-1"));
    let said = desk.plan(&with(stop(), json!({"regions": ["eu-west-1"]})), &[]).await;
    assert!(said.out.ends_with("would stop 1 of 1\n"), "{said:?}");
    let said = desk.plan(&stop(), &["--region", "eu-west-1"]).await;
    assert!(said.out.ends_with("would stop 1 of 1\n"), "{said:?}");
}

#[tokio::test]
async fn a_profile_of_the_aws_cli_brings_keys_and_region_and_goes_before_the_environment() {
    let desk = Desk::new().await.without("AWS_REGION").env("AWS_ACCESS_KEY_ID", "ASIANOSESSION");
    desk.sim.add(ours("web").region("eu-west-1"));
    desk.file(".aws/config", "[profile dev]\nregion = eu-west-1\n");
    desk.file(".aws/credentials", "[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = secret\n");
    let said = desk.plan(&stop(), &["--profile", "dev"]).await;
    assert!(said.out.ends_with("would stop 1 of 1\n"), "{said:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_login_that_only_the_aws_cli_knows_is_asked_of_it() {
    use std::os::unix::fs::PermissionsExt;

    let desk = Desk::new().await.without("AWS_ACCESS_KEY_ID");
    desk.sim.add(ours("web"));
    let sso = "[profile sso]\nsso_session = it\nsso_account_id = 123456789012\nsso_role_name = look\nregion = us-east-1\n\
               [sso-session it]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n";
    desk.file(".aws/config", sso);
    let script = |text: &str| {
        desk.file("bin/aws", &format!("#!/bin/sh\necho \"$@\" >> asked\n{text}\n"));
        let aws = desk.folder.join("bin/aws");
        std::fs::set_permissions(aws, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let asked = || std::fs::read_to_string(desk.folder.join("asked")).unwrap_or_default();

    let none = desk.plan(&stop(), &["--profile", "sso"]).await;
    assert!(none.err.contains("the AWS CLI, which knows more kinds of login, is not installed"), "{}", none.err);

    script(
        r#"echo '{"Version": 1, "AccessKeyId": "AKIASSO", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": "2099-01-01T00:00:00Z"}'"#,
    );
    let said = desk.plan(&stop(), &["--profile", "sso"]).await;
    assert!(said.out.ends_with("would stop 1 of 1\n"), "{said:?}");
    assert_eq!(asked(), "configure export-credentials --format process --profile sso\n");

    script("echo 'Error when retrieving token from sso: Token has expired and refresh failed' >&2; exit 255");
    let expired = desk.plan(&stop(), &["--profile", "sso"]).await;
    assert_eq!(expired.code, 1);
    assert!(
        expired.err.contains("note: the AWS CLI says: Error when retrieving token from sso: Token has expired"),
        "{}",
        expired.err
    );
    assert!(expired.err.contains("log in, as with `aws sso login --profile sso`"), "{}", expired.err);
}

#[tokio::test]
async fn the_shipped_events_are_good_and_read_as_what_they_do() {
    let desk = Desk::new().await.env("COLUMNS", "80");
    let events = concat!(env!("CARGO_MANIFEST_DIR"), "/infra/events/");
    let mut all = String::new();
    for name in ["stop-7pm.json", "start-8am.json", "reconcile.json", "snapshots.json"] {
        let said = desk.run(&["check", &format!("{events}{name}")]).await;
        assert_eq!((said.err.as_str(), said.code), ("", 0));
        // What follows depends on the current time.
        let steady = said.out.split("\n\n").next().unwrap().replace(events, "infra/events/");
        all.push_str(&format!("{steady}\n\n"));
    }
    insta::assert_snapshot!("check", all);
    assert!(desk.sim.calls().is_empty(), "nobody is asked");
}

#[tokio::test]
async fn an_event_about_snapshots_is_neither_planned_nor_shown_as_a_week() {
    let desk = Desk::new().await;
    desk.file("snapshots.json", &json!({"action": "snapshots", "tags": {"curfew": "yes"}}).to_string());
    desk.file("stop.json", &stop().to_string());
    for args in [
        &["plan", "snapshots.json"][..],
        &["plan", "snapshots.json", "--instance", "i-0abc12345678def00"],
        &["week", "stop.json", "snapshots.json"],
    ] {
        let said = desk.run(args).await;
        assert_eq!((said.out.as_str(), said.code), ("", 1), "{args:?}");
        assert_eq!(
            said.err,
            "error: snapshots.json is about snapshots, which only the function looks at\n\
             help: run it as a rehearsal: make invoke EVENT=…\n"
        );
    }
    assert!(desk.sim.calls().is_empty(), "nobody is asked");
    desk.file("wrong.json", r#"{"action": "snapshots", "tags": {"curfew": "yes"}, "min_age_days": 3}"#);
    let said = desk.run(&["plan", "wrong.json"]).await;
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("wrong.json: 1 problem; the function would refuse it"), "{}", said.err);
}

#[tokio::test]
async fn hours_show_their_next_five_edges_and_the_holidays_among_them_in_their_own_zone() {
    let desk = Desk::new().await;
    let now = Utc::now();
    let berlin = |at: DateTime<Utc>| at.with_timezone(&chrono_tz::Europe::Berlin);
    // A holiday on the next working day after tomorrow.
    let working = |day: &chrono::NaiveDate| !matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
    let today = berlin(now).date_naive();
    let holiday = (today + Days::new(2)).iter_days().find(working).unwrap();
    let event = json!({
        "action": "reconcile", "tags": {"curfew": "yes"}, "holidays": {"add": [holiday.to_string()]},
        "hours": {"berlin": {"open": "Mo-Fr 07:00-20:00; PH off", "timezone": "Europe/Berlin", "start": false}}
    });
    let said = desk.with_input(&["check", "-"], &event.to_string()).await;
    let (_, hours) = said.out.split_once("\n\n").unwrap();
    let open = today.iter_days().take(30).filter(|day| working(day) && *day != holiday);
    let edges = open.flat_map(|day| [(day, 7, "opens"), (day, 20, "closes")]);
    let time = |hour| NaiveTime::from_hms_opt(hour, 0, 0).unwrap();
    let next = edges.filter(|(day, hour, _)| day.and_time(time(*hour)) > berlin(now).naive_local());
    let mut expected: Vec<String> = next
        .take(5)
        .map(|(day, hour, word)| {
            let note = if word == "opens" { "  starts nothing" } else { "" };
            format!("{word} {} {hour:02}:00{note}", day.format("%a %-d %b"))
        })
        .collect();
    let lines: Vec<String> =
        hours.lines().map(|line| line.trim().replacen("  ", " ", 1).replacen("  ", " ", 1)).collect();
    assert_eq!(hours.lines().next(), Some("  berlin  Mo-Fr 07:00-20:00; PH off  Europe/Berlin"), "{hours}");
    let shown_holiday = hours.lines().find(|line| line.contains("holiday")).unwrap();
    assert!(shown_holiday.contains(&holiday.format("%a %-d %b").to_string()), "{hours}");
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: Vec<String> =
        lines[2..].iter().map(|line| squeeze(line)).filter(|line| !line.starts_with("holiday")).collect();
    expected.iter_mut().for_each(|line| *line = squeeze(line));
    assert_eq!(shown, expected, "{hours}");
}

#[tokio::test]
async fn hours_that_never_open_are_refused() {
    let desk = Desk::new().await.env("COLUMNS", "120");
    for text in ["2020 Mo 08:00-19:00", "Mo-Fr 08:00-19:00; Mo-Fr off"] {
        let event = json!({"action": "reconcile", "tags": {"curfew": "yes"}, "hours": {"old": text}});
        let said = desk.with_input(&["check", "-"], &event.to_string()).await;
        assert!(said.code == 2 && said.err.contains("never open"), "{}", said.err);
    }
}

#[tokio::test]
async fn a_refusal_shows_the_line_and_points_at_the_value() {
    let desk = Desk::new().await.env("COLUMNS", "100");
    desk.file(
        "office.json",
        r#"{
  "tag": { "curfew": "yes" },
  "regions": ["us-east-1", "eu-west"],
  "hibernate": "yes",
  "hours": {
    "office": "Mon-Fri 8-19",
    "a.b: c": { "open": ["Mo-Fr 08:00-19:00",
                         "Sa 10-14"] }
  },
  "filters": {
    "vpc-id": []
  }
}
"#,
    );
    desk.file(
        "envelope.json",
        r#"{ "detail-type": "Scheduled Event", "source": "aws.scheduler",
  "detail": "{\"action\": \"stop\", \"tags\": {\"cürfew\": 3}, \"regionz\": []}" }"#,
    );
    desk.file(
        "object.json",
        r#"{"detail-type": "x", "source": "my.app", "detail": {"action": "halt", "tags": {"a": "b"}}}"#,
    );
    desk.file("comma.json", "{\"action\": \"stop\",\n \"tags\": {\"curfew\": \"yes\",}}");
    desk.file("twice.json", "{\"action\": \"stop\",\n \"action\": \"start\"}");
    desk.file("brace.json", "{\"action\": \"stop\",\n \"tags\": {\"curfew\": \"yes\"}}}");
    desk.file("bom.json", "\u{feff}{\"action\": 1, \"tags\": {\"a\": \"b\"}}");
    desk.file("empty.json", "");
    desk.file("shell.json", "{\n \\\"action\\\": \\\"stop\\\"}");
    desk.file(
        "beside.json",
        r#"{"detail-type": "x", "detail": {"action": "stop", "tags": {"a": "b"}}, "dryRun": true}"#,
    );
    let mut all = String::new();
    for name in ["office", "envelope", "object", "comma", "twice", "brace", "bom", "empty", "shell", "beside"] {
        let said = desk.run(&["check", &format!("{name}.json")]).await;
        assert_eq!((said.out.as_str(), said.code), ("", 2), "{name}: {said:?}");
        all.push_str(&said.err);
        all.push_str("----\n");
    }
    insta::assert_snapshot!("check_refusals", all);
}

#[tokio::test]
async fn whatever_bytes_it_is_given_it_answers() {
    let desk = Desk::new().await;
    for text in [
        "{\"action\": \"\\ud83d\\ude00\", \"tags\": {\"a\": \"b\"}}".to_owned(),
        "{\"detail\": \"{\\u0022action\\u0022: 1}\", \"detail-type\": \"\"}".to_owned(),
        "{\"detail\": \"{\\\"äö\\\\u0000\\\": 1}\", \"detail-type\": \"\"}".to_owned(),
        "[".repeat(10_000),
        format!("{}1", "{\"a\":".repeat(120)),
        "// {}\n{'a': 1}".to_owned(),
        "\u{0}\u{1b}[31m{".to_owned(),
        "\"x\" \"y\"".to_owned(),
        format!("{{\"action\": \"{}\"}}", "é".repeat(5000)),
    ] {
        let said = desk.with_input(&["check", "-"], &text).await;
        assert_eq!(said.code, 2, "{text}: {said:?}");
        assert!(said.err.starts_with("error: ") && !said.err.contains("panicked"), "{text}: {}", said.err);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_ends_neither_the_check_of_the_others_nor_well() {
    let desk = Desk::new().await;
    desk.file("good.json", &stop().to_string());
    desk.file("events/x.json", "{}");
    let said = desk.run(&["check", "gone.json", "events", "good.json"]).await;
    assert!(said.out.contains("good.json: good, stop"), "{}", said.out);
    insta::assert_snapshot!(said.err, @r"
    error: there is no file gone.json
    help: the shipped ones are in infra/events, such as infra/events/stop-7pm.json
    error: events is a directory
    help: name an event file in it
    ");
    assert_eq!(said.code, 1);
    let said = desk.run(&["check", "events/x.json", "gone.json", "good.json"]).await;
    assert_eq!(said.code, 2, "a refusal weighs more");
}

#[tokio::test]
async fn help_the_manual_and_completions_know_every_command() {
    let desk = Desk::new().await;
    let help = desk.run(&["--help"]).await.out;
    insta::assert_snapshot!("help", help);
    insta::assert_snapshot!("help_plan", desk.run(&["plan", "--help"]).await.out);
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let manual = desk.run(&["man"]).await.out;
    let of_plan = desk.run(&["man", "plan"]).await.out;
    assert!(of_plan.contains("curfew\\-plan") && of_plan.contains("\\-\\-instance"), "{of_plan}");
    assert_eq!(desk.run(&["man", "plans"]).await.code, 1);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = desk.run(&["completions", shell]).await;
        for command in ["check", "plan", "takeover", "suggest", "saved"] {
            assert!(script.out.contains(command) && script.code == 0, "{shell}: {command}");
            assert!(manual.contains(command), "{command} in the manual");
        }
    }
    assert_eq!(desk.run(&["plan"]).await.code, 2);
}
