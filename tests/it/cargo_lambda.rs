//! `make run`: the real binary under `cargo lambda watch`, invoked by `cargo lambda invoke`.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::process::Command;

use crate::world::*;

/// Something that `make test` has installed into `.venv`.
pub(crate) fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(name);
    assert!(path.exists(), "{} is missing; `make test` installs it", path.display());
    path
}

/// Runs the demo in a process group of its own, which must be empty afterwards.
async fn demo() -> Output {
    static PAGES: AtomicUsize = AtomicUsize::new(0);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = format!("curfew-demo-{}-{}.html", std::process::id(), PAGES.fetch_add(1, Ordering::Relaxed));
    let page = std::env::temp_dir().join(page);
    let child = Command::new(binary().with_file_name("ec2-sim"))
        .arg("demo")
        .args(["--binary".as_ref(), binary().as_os_str()])
        .args(["--cargo-lambda".as_ref(), installed("cargo-lambda").as_os_str()])
        .args(["--events".as_ref(), root.join("infra/events").as_os_str()])
        .args(["--curfew", env!("CARGO_BIN_EXE_curfew"), "--week"])
        .arg(&page)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = child.id().unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(!group_lives(group), "the demo left something running");
    let text = String::from_utf8_lossy(&output.stdout);
    let written = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    std::fs::remove_file(&page).unwrap();
    assert!(text.contains(&page.display().to_string()), "it says where the page is: {text}");
    assert!(written.contains("helpdesk") && written.contains("<footer>"), "{written}");
    output
}

/// Tells whether any process of a group is left (Linux: the third field after the name in /proc/…/stat).
fn group_lives(group: u32) -> bool {
    std::fs::read_dir("/proc").is_ok_and(|processes| {
        processes.flatten().any(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.split_whitespace().nth(2) == Some(&group.to_string())
        })
    })
}

fn shows_the_night_the_morning_and_the_weekend(output: &Output) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    for wanted in [
        "stop-7pm.json",
        "start-8am.json",
        "autoscaling_member",
        "exempt",
        "has_hours",
        "instance_store_root",
        "not_marked",
        "service_managed",
        "spot_one_time",
        "stop_protected",
        "UnauthorizedOperation",
        "Client.InternalError",
        "kms:CreateGrant",
        "make test",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not shown in:\n{text}");
    }
    let weekend = text.lines().skip_while(|line| !line.contains("WHEN")).skip(1).take_while(|line| !line.is_empty());
    let weekend: Vec<String> = weekend.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    // Which holiday it is depends on the day of the test.
    let weekend = weekend.join("\n").replace("Memorial Day", "Labor Day");
    assert_eq!(
        weekend,
        r#"! Fri 12:00 crm BAD TAG "Mon-Fri 8-19": can't be read as hours; write
"Mo-Fr 08:00-19:00"
Fri 19:00 web-1 … -3 stopped office closes
Fri 19:00 lab stopped lab closes
Fri 19:00 helpdesk stopped support closes
Fri 19:00 demo left alone exempt until Saturday 14:00
Fri 20:50 lab started by a person, who works late
Fri 21:00 lab left alone started by a person at 20:50: on until next closing
Fri 22:00 batch-1, batch-2 started its own tag says "Mo-Fr 22:00-06:00"
Sat 06:00 batch-1, batch-2 stopped its own tag says "Mo-Fr 22:00-06:00"
Sat 14:00 demo stopped its exemption ends, and office is closed
Sat 14:00 lab stopped lab closes
Mon 08:00 helpdesk started support opens
Mon 08:00 web-1 … -3, demo, lab stays off Labor Day: on another Monday they would start"#,
        "{text}"
    );
}

#[tokio::test]
async fn make_run_shows_a_night_a_morning_and_a_weekend_and_leaves_nothing_running() {
    shows_the_night_the_morning_and_the_weekend(&demo().await);
}

#[tokio::test]
async fn two_copies_of_make_run_do_not_meet() {
    let (one, other) = tokio::join!(demo(), demo());
    shows_the_night_the_morning_and_the_weekend(&one);
    shows_the_night_the_morning_and_the_weekend(&other);
}
