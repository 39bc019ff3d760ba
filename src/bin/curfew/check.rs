//! `curfew check`: an event in words, or what is wrong with it.

use std::path::PathBuf;
use std::process::ExitCode;

use chrono::Utc;

use crate::problem::Problem;
use crate::{events, terminal};

/// Read events as the function does: say what they mean, or what is wrong with them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Event files; - is standard input
    #[arg(required = true, value_name = "EVENT.json")]
    events: Vec<PathBuf>,
}

/// Checks events.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Problem> {
    for file in events::read_all(&args.events, Utc::now())? {
        terminal::print(&format!("{}: {}\n", file.name, file.request.selection))?;
    }
    Ok(ExitCode::SUCCESS)
}
