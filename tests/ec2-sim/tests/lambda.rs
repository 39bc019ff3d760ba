//! What the simulated Lambda promises, tried with a function in plain bash.

use std::path::Path;
use std::time::Duration;

use ec2_sim::{Host, Outcome};
use serde_json::json;

const SOON: Duration = Duration::from_secs(5);

async fn host() -> Host {
    let function = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/function.sh");
    Host::start(&function, &[("LANG", "C")]).await
}

#[tokio::test]
async fn an_invocation_ends_with_the_answer_and_every_line_written_before_it() {
    let mut host = host().await;

    let done = host.invoke("answer", SOON).await;

    assert_eq!(done.outcome, Outcome::Answered(json!({ "done": true })));
    assert_eq!(done.logs, ["started", r#"{"level": "INFO"}"#, "trouble"]);
    assert_eq!(done.json_logs(), [json!({ "level": "INFO" })]);
    let again = host.invoke("answer", SOON).await;
    assert_eq!(again.logs, [r#"{"level": "INFO"}"#, "trouble"], "the same process, its new lines");
}

#[tokio::test]
async fn an_error_comes_back_with_its_type_and_text_and_the_process_lives_on() {
    let mut host = host().await;

    let failed = host.invoke("fail", SOON).await;

    let (error_type, message) = ("Unfinished".into(), "2 left".into());
    assert_eq!(failed.outcome, Outcome::Failed { error_type, message });
    assert!(!host.invoke("answer", SOON).await.logs.contains(&"started".into()));
}

#[tokio::test]
async fn a_process_that_misses_its_deadline_is_killed_and_the_next_event_gets_a_new_one() {
    let mut host = host().await;

    let killed = host.invoke("dawdle", Duration::from_millis(50)).await;

    assert_eq!(killed.outcome, Outcome::Killed);
    assert!(killed.took >= Duration::from_millis(50));
    assert_eq!(host.invoke("answer", SOON).await.logs[0], "started");
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_told_from_one_that_answers() {
    let mut host = host().await;

    let exited = host.invoke("exit", SOON).await;

    assert_eq!(exited.outcome, Outcome::Exited("exit status: 3".into()));
    assert_eq!(host.invoke("answer", SOON).await.logs[0], "started");
}

#[tokio::test]
async fn a_process_killed_between_two_events_or_amid_one_is_replaced() {
    let mut host = host().await;
    host.kill().await;
    assert_eq!(host.invoke("answer", SOON).await.logs[0], "started");

    let cut_short = tokio::time::timeout(Duration::from_millis(50), host.invoke("dawdle", SOON));

    assert!(cut_short.await.is_err());
    assert_eq!(host.invoke("answer", SOON).await.logs[0], "started");
}

#[tokio::test]
async fn nothing_of_the_callers_environment_leaks_in_but_the_path() {
    let mut host = host().await;

    let mut names = host.invoke("names", SOON).await.logs;

    // What bash itself exports.
    names.retain(|name| !["started", "OLDPWD", "PWD", "SHLVL", "_"].contains(&name.as_str()));
    names.sort();
    let expected = [
        "AWS_ACCESS_KEY_ID",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "LANG",
        "PATH",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn every_invocation_has_an_id_of_its_own_that_only_a_retry_keeps() {
    let mut host = host().await;

    let one = host.invoke("id", SOON).await;
    let retried = host.retry("id", SOON).await;
    host.kill().await;
    let retried_anew = host.retry("id", SOON).await;
    let two = host.invoke("id", SOON).await;

    assert_eq!(one.logs.last(), Some(&one.request_id), "the function was told it");
    assert_eq!(
        [&retried, &retried_anew].map(|it| (it.logs.last(), &it.request_id)),
        [(one.logs.last(), &one.request_id); 2]
    );
    assert_eq!(two.logs.last(), Some(&two.request_id));
    assert_ne!(one.request_id[..8], two.request_id[..8]);
    let groups: Vec<usize> = two.request_id.split('-').map(str::len).collect();
    assert_eq!((groups, &two.request_id[14..15]), (vec![8, 4, 4, 4, 12], "4"));
}
