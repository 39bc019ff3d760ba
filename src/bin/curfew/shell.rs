//! `curfew completions` and `curfew man`: what a shell and a manual know of the command line.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::problem::Problem;
use crate::{Cli, terminal};

/// Write completions for a shell, such as `source <(curfew completions bash)`
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    shell: Shell,
}

/// Write the manual, such as `curfew man | man -l -`
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {}

/// Writes completions.
pub(crate) fn completions(args: CompletionsArgs) -> Result<ExitCode, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "curfew", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the manual.
pub(crate) fn man(ManArgs {}: ManArgs) -> Result<ExitCode, Problem> {
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(Cli::command()).render(&mut page);
    written.map_err(|error| Problem::new(format!("can't write the manual: {error}")))?;
    terminal::print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
