//! `curfew week`: when events keep instances on in the coming week.

use std::path::PathBuf;
use std::process::ExitCode;

use chrono::Utc;

use crate::events;
use crate::problem::Problem;

/// Show the coming week: when each schedule and instance is on
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Event files; - is standard input
    #[arg(required = true, value_name = "EVENT.json")]
    events: Vec<PathBuf>,
}

/// Shows the week.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    events::read_all(&args.events, Utc::now())?;
    Ok(ExitCode::SUCCESS)
}
