//! `curfew completions` and `curfew man`: the shell completions and the manual pages.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::problem::Problem;
use crate::{Cli, terminal};

/// Write completions for a shell: source <(curfew completions bash)
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    shell: Shell,
}

/// Write the manual, or a command's: curfew man plan | man -l -
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The command that it is about; none: all of them
    command: Option<String>,
}

/// Prints a shell's completions.
pub(crate) fn completions(args: CompletionsArgs) -> Result<ExitCode, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "curfew", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page of the tool, or of one command.
pub(crate) fn man(args: ManArgs) -> Result<ExitCode, Problem> {
    let mut cli = Cli::command();
    cli.build();
    let command = match args.command {
        None => cli,
        Some(name) => match cli.find_subcommand(&name) {
            Some(command) => command.clone(),
            None => return Err(Problem::new(format!("there is no command {name}")).help("see `curfew help`")),
        },
    };
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command).render(&mut page);
    written.map_err(|error| Problem::new(format!("can't write the manual: {error}")))?;
    terminal::print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
