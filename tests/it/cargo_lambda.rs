//! `make run`: the real binary under `cargo lambda watch`, invoked by `cargo lambda invoke`.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let child = Command::new(binary().with_file_name("ec2-sim"))
        .arg("demo")
        .args(["--binary".as_ref(), binary().as_os_str()])
        .args(["--cargo-lambda".as_ref(), installed("cargo-lambda").as_os_str()])
        .args(["--events".as_ref(), root.join("infra/events").as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = child.id().unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(!group_lives(group), "the demo left something running");
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

fn shows_the_night_and_the_morning(output: &Output) {
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
}

#[tokio::test]
async fn make_run_shows_a_night_and_a_morning_and_leaves_nothing_running() {
    shows_the_night_and_the_morning(&demo().await);
}

#[tokio::test]
async fn two_copies_of_make_run_do_not_meet() {
    let (one, other) = tokio::join!(demo(), demo());
    shows_the_night_and_the_morning(&one);
    shows_the_night_and_the_morning(&other);
}
