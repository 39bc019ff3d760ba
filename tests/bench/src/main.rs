//! Measures what the function costs, compared with the same function in boto3 and with what EC2 allows.
//!
//! Runs the release binary under the simulated Lambda host against the simulated EC2, observes its process from outside
//! ([`process`]), and prints one table. What is measured and how is in tests/bench/README.md.

mod cloud;
mod function;
mod machine;
mod other;
mod process;
mod rows;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use function::Function;
use table::{Row, Verdict};

/// Measures the function ec2-curfew, and prints a table in Markdown. Progress goes to stderr.
#[derive(Parser)]
struct Arguments {
    /// The function's release binary
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The Python that has boto3 for the rival, in an environment with nothing else
    #[arg(long, value_name = "FILE", default_value = ".venv-bench/bin/python3")]
    python: PathBuf,
    /// Only these rows; all but `settings` by default
    #[arg(long, value_name = "ROW")]
    only: Vec<RowName>,
    /// How often each measurement is repeated, instead of what suits its row
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// How many times faster than AWS's the token buckets fill, for ec2-sim and the function alike
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    scale: u8,
    /// For the row `settings`: builds of the function to compare, each against the first
    #[arg(long, value_name = "NAME=FILE", value_parser = variant)]
    variant: Vec<(String, PathBuf)>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RowName {
    /// Process start to answer, 10 instances, against boto3
    Start,
    /// CPU for 10,000 instances against boto3, and for 100,000 against 10,000
    Cpu,
    /// Peak memory and descriptions, 100,000 instances
    Memory,
    /// Stopping 5,000 and starting 1,500 within AWS's token buckets
    Buckets,
    /// The same while another client takes a fifth
    Shared,
    /// Stopping 5,000 of which EC2 refuses 3 %, against stopping 5,000
    Poison,
    /// 500 accounts in 4 regions
    Accounts,
    /// A quiet tick of running hours, 10,000 instances with 50 schedules, against a dry-run stop of the same
    Tick,
    /// Process start to answer of several builds
    Settings,
}

/// The settings of all rows.
struct Bench {
    ours: Function,
    rival: Function,
    runs: Option<u16>,
    scale: f64,
    variants: Vec<Function>,
}

impl Bench {
    fn runs(&self, usual: u16) -> u16 {
        self.runs.unwrap_or(usual)
    }
}

fn variant(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write it like small=target/small/ec2-curfew")?;
    Ok((name.to_owned(), path.into()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut only = arguments.only;
    if only.is_empty() {
        only = RowName::value_variants().to_vec();
        only.retain(|row| *row != RowName::Settings || !arguments.variant.is_empty());
    }
    let heading = machine::heading(&arguments.binary, &arguments.python, arguments.scale);
    let bench = Bench {
        ours: Function::ours("ours", &arguments.binary),
        rival: Function::rival(&arguments.python),
        runs: arguments.runs,
        scale: arguments.scale.into(),
        variants: arguments.variant.iter().map(|(name, path)| Function::ours(name, path)).collect(),
    };
    let mut table = Vec::new();
    for row in only {
        let (what, measured) = match row {
            RowName::Start => ("start", rows::start(&bench).await),
            RowName::Cpu => ("cpu", rows::cpu(&bench).await),
            RowName::Memory => ("memory", rows::memory(&bench).await),
            RowName::Buckets => ("buckets", rows::buckets(&bench).await),
            RowName::Shared => ("shared", rows::shared(&bench).await),
            RowName::Poison => ("poison", rows::poison(&bench).await),
            RowName::Accounts => ("accounts", rows::accounts(&bench).await),
            RowName::Tick => ("tick", rows::tick(&bench).await),
            RowName::Settings => ("settings", rows::settings(&bench).await),
        };
        table.extend(measured.unwrap_or_else(|problem| {
            eprintln!("{what}: {problem}");
            vec![Row::failed(what)]
        }));
    }
    println!("{heading}\n\n{}", table::markdown(&table));
    match table.iter().any(|row| matches!(row.verdict, Verdict::Over | Verdict::Failed)) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
