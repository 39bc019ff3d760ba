//! The command-line tool `curfew`: it shows what the function would do, and only reads.
//!
//! Requests, plans, hours and reports are the function's own; this adds only what a terminal needs. Each command is a
//! module, with its arguments and its output.

mod account;
mod arguments;
mod aws_json;
mod check;
mod events;
mod money;
mod plan;
mod prices;
mod problem;
mod saved;
mod shell;
mod source;
mod suggest;
mod takeover;
mod terminal;
mod week;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// See what Curfew would switch off and on, and when, before it does.
///
/// It only looks: it never stops, starts or tags anything, not even as a dry run.
#[derive(Parser)]
#[command(name = "curfew", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Args),
    Plan(plan::Args),
    Week(week::Args),
    Takeover(takeover::Args),
    Suggest(suggest::Args),
    Saved(saved::Args),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Check(args) => check::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Week(args) => week::run(args).await,
        Command::Takeover(args) => takeover::run(args).await,
        Command::Suggest(args) => suggest::run(args).await,
        Command::Saved(args) => saved::run(args).await,
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    };
    done.unwrap_or_else(|problem| problem.tell().into())
}
