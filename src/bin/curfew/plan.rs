//! `curfew plan`: what an event would switch if it came now, and why it leaves the rest.

use std::path::PathBuf;
use std::process::ExitCode;

use chrono::Utc;

use crate::account::Account;
use crate::problem::Problem;
use crate::{events, terminal};

/// Show what an event would switch now, and why it would leave the rest
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An event file; - is standard input
    #[arg(value_name = "EVENT.json")]
    event: PathBuf,
    #[command(flatten)]
    account: Account,
}

/// Plans an event.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let file = events::read(&args.event, Utc::now())?;
    let access = args.account.open(None).await?;
    terminal::print(&format!("{} {} {:?}\n", file.name, access.home.account, access.aws.own_region()))?;
    Ok(ExitCode::SUCCESS)
}
