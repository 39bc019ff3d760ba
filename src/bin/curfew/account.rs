//! The AWS account that a command looks at, with the credentials that the AWS CLI would use.

use std::process::Stdio;
use std::time::Duration;

use aws_runtime::env_config::file::EnvConfigFiles;
use aws_types::os_shim_internal::{Env, Fs};
use ec2_curfew::deadline::Deadline;
use ec2_curfew::ec2::Aws;
use ec2_curfew::targets::Home;
use ec2_curfew::wording::nearest;
use serde::Deserialize;
use tokio::process::Command;

use crate::problem::Problem;

/// How long GetCallerIdentity may take: STS answers in less than a second, its retries take a few.
const ASKING_WHO: Duration = Duration::from_secs(60);

/// How a command gets at AWS: as the AWS CLI does.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "AWS")]
pub(crate) struct Account {
    /// A profile, as for the AWS CLI [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME", help_heading = "AWS")]
    profile: Option<String>,
    /// Where the function is, or will be [env: AWS_REGION]
    #[arg(long, value_name = "REGION", help_heading = "AWS")]
    region: Option<String>,
}

/// Access to AWS, and the account that the credentials belong to.
#[derive(Debug)]
pub(crate) struct Access {
    /// Credentials and region.
    pub(crate) aws: Aws,
    /// The account, in the place of the function's own.
    pub(crate) home: Home,
}

impl Account {
    /// Finds credentials and region, and asks STS whose they are. `instead` is the region if none is configured.
    ///
    /// Credentials that the SDK's provider chain, as it is compiled for the function, can't find (IAM Identity Center,
    /// `aws login`, `credential_process`, MFA codes) come from the AWS CLI, which people have logged in with.
    ///
    /// # Errors
    /// There are no credentials or no region, or AWS doesn't accept the credentials; with what to do about it.
    pub(crate) async fn open(&self, instead: Option<&str>) -> Result<Access, Problem> {
        if let Some(name) = &self.profile {
            there_is(name).await?;
        }
        let mut aws = Aws::from_profile(self.profile.as_deref(), self.region.as_deref()).await;
        aws = match (aws.own_region().filter(|region| !region.is_empty()), instead) {
            (Some(_), _) => aws,
            (None, Some(region)) => aws.in_region(region),
            (None, None) => {
                return Err(Problem::new("no region: neither the event, nor AWS_REGION, nor the profile names one")
                    .help("name the region where the function is, or will be, like --region us-east-1"));
            }
        };
        if let Err(none) = aws.find_credentials().await {
            if let Some(name) = std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty()) {
                there_is(&name).await?;
            }
            let keys = self.ask_the_cli().await.map_err(|why| self.no_credentials(&none, &why))?;
            aws = aws.with_keys(&keys.access_key_id, &keys.secret_access_key, keys.session_token.as_deref());
        }
        let caller = aws.caller(Deadline::within(ASKING_WHO)).await;
        let home = Home::of(&caller.map_err(|error| self.refused(&error.code, &error.message))?);
        Ok(Access { aws, home })
    }

    /// Asks the AWS CLI for credentials; it may prompt for an MFA code on the terminal.
    async fn ask_the_cli(&self) -> Result<Keys, String> {
        let mut command = Command::new("aws");
        command.args(["configure", "export-credentials", "--format", "process"]);
        command.args(self.profile.iter().flat_map(|profile| ["--profile", profile]));
        let answer = command.stdin(Stdio::inherit()).output().await;
        let answer = answer.map_err(|_| "the AWS CLI, which knows more kinds of login, is not installed".to_owned())?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr);
            return Err(match said.contains("Invalid choice") {
                true => "the AWS CLI is too old to know `aws configure export-credentials`".to_owned(),
                // The error comes last, after warnings of what is deprecated.
                false => format!("the AWS CLI says: {}", said.trim().lines().last().unwrap_or("nothing")),
            });
        }
        serde_json::from_slice(&answer.stdout).map_err(|error| format!("the AWS CLI's answer can't be read: {error}"))
    }

    fn no_credentials(&self, none: &str, why: &str) -> Problem {
        let whose = self.profile.as_ref().map_or_else(String::new, |name| format!(" in profile {name}"));
        let problem = Problem::new(format!("no AWS credentials{whose}"));
        // That there are none, or that this program wasn't built for that kind of login, says nothing new.
        let says_more = !none.contains("was not enabled") && !none.contains("cargo feature");
        let problem = if says_more { problem.note(none) } else { problem };
        problem.note(why).help(format!("log in, as with `{}`, or name another profile with --profile", self.login()))
    }

    fn refused(&self, code: &str, message: &str) -> Problem {
        let said = format!("AWS says {code}: {message}");
        match code {
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Problem::new(
                "the AWS credentials have expired",
            )
            .note(said)
            .help(format!(
                "log in again, as with `{}`; credentials in AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN go before a login",
                self.login()
            )),
            "InvalidClientTokenId" | "UnrecognizedClientException" | "SignatureDoesNotMatch" | "AuthFailure" => {
                Problem::new("AWS doesn't accept these credentials")
                    .note(said)
                    .help("see whose they are with `aws configure list`, or name another profile with --profile")
            }
            "NoConnection" | "Timeout" => Problem::new("AWS can't be reached")
                .note(said)
                .help("check the network, HTTPS_PROXY, and that there is a region of that name"),
            "NotSent" => Problem::new("AWS can't be asked").note(said).help("is the region's name spelt right?"),
            _ => Problem::new("AWS doesn't say whose the credentials are").note(said),
        }
    }

    fn login(&self) -> String {
        let profile = self.profile.as_ref().map_or_else(String::new, |name| format!(" --profile {name}"));
        format!("aws sso login{profile}")
    }
}

/// Looks whether the AWS CLI's files have a profile.
///
/// # Errors
/// They haven't; with those that they have.
async fn there_is(profile: &str) -> Result<(), Problem> {
    // What can't be read, the SDK tells of.
    let Ok(all) = aws_config::profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None).await else {
        return Ok(());
    };
    if all.get_profile(profile).is_some() {
        return Ok(());
    }
    let mut names: Vec<&str> = all.profiles().collect();
    names.sort_unstable();
    let problem = Problem::new(format!("there is no profile {profile}"));
    Err(match nearest(profile, names.iter().copied()) {
        Some(name) => problem.help(format!("did you mean {name}?")),
        None if names.is_empty() => problem.help("there is none at all; `aws configure sso` makes one"),
        None => problem.help(format!("these are there: {}", names.join(", "))),
    })
}

/// What `aws configure export-credentials --format process` answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}
