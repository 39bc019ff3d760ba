//! Asking the simulated EC2 over HTTP as a program would.

use std::time::Duration;

use ec2_sim::Sim;

/// EC2's answer: its status and its XML.
pub(crate) struct Answer(pub(crate) u16, pub(crate) String);

impl Answer {
    pub(crate) fn texts(&self, element: &str) -> Vec<&str> {
        let rests = self.1.split(&format!("<{element}>")).skip(1).collect::<Vec<_>>();
        rests.into_iter().map(|rest| rest.split('<').next().unwrap_or_default()).collect()
    }

    /// The error's code, or `ok`.
    pub(crate) fn code(&self) -> &str {
        if self.0 == 200 { "ok" } else { self.texts("Code")[0] }
    }
}

pub(crate) async fn ask_in(region: &str, sim: &Sim, call: &str) -> reqwest::Result<Answer> {
    ask_as(("AKID", ""), region, sim, call).await
}

/// Asks with an access key id, and a session token unless that is blank.
pub(crate) async fn ask_as((key, token): (&str, &str), region: &str, sim: &Sim, call: &str) -> reqwest::Result<Answer> {
    let service = if call.starts_with("AssumeRole") { "sts" } else { "ec2" };
    let scope = format!("AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/{service}/aws4_request");
    let mut request = reqwest::Client::new().post(sim.url()).header("authorization", scope);
    if !token.is_empty() {
        request = request.header("x-amz-security-token", token);
    }
    let answer = request.body(format!("Action={call}")).send().await?;
    Ok(Answer(answer.status().as_u16(), answer.text().await?))
}

pub(crate) async fn ask(sim: &Sim, call: &str) -> Answer {
    ask_in("us-east-1", sim, call).await.expect("an answer")
}

/// A call with these machines' ids.
pub(crate) fn call(action: &str, sim: &Sim, names: &[&str]) -> String {
    let id = |(n, name): (usize, &&str)| format!("&InstanceId.{}={}", n + 1, sim.machine(name).id);
    format!("{action}{}", names.iter().enumerate().map(id).collect::<String>())
}

pub(crate) fn later(sim: &Sim) {
    sim.advance(Duration::from_secs(10));
}
