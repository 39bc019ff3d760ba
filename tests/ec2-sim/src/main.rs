//! The program `ec2-sim`: serves the simulated EC2 to other programs, and runs the demo.

mod demo;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ec2_sim::{Fleet, Sim};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use demo::Demo;

/// A simulated EC2 on this computer, to try out programs that start, stop and tag instances. Costs nothing, breaks
/// nothing, and is gone when it ends.
#[derive(Parser)]
#[command(version, after_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLE: &str = r#"Example, with three simulated instances:
  echo '{"machines": [{"name": "web", "count": 3, "tags": {"curfew": "yes"}}]}' > fleet.json
  ec2-sim serve --port 4566 --fleet fleet.json
and in another terminal:
  export AWS_ENDPOINT_URL_EC2=http://127.0.0.1:4566
  export AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
  aws ec2 stop-instances --instance-ids i-0ec20000000000001
  curl $AWS_ENDPOINT_URL_EC2/_sim/instances"#;

#[derive(Subcommand)]
enum Verb {
    /// Answer as EC2 and STS do until Ctrl-C
    ///
    /// Listens on 127.0.0.1 only. Every account and region has instances of its own. Any credentials will do for the
    /// account 123456789012; AssumeRole has those for the others.
    ///
    /// From another process: GET /_sim/instances; PUT /_sim/fleet; POST or DELETE /_sim/faults; GET or DELETE
    /// /_sim/calls; GET or PUT /_sim/clock, with {"now": "2026-11-20T19:00:00Z"} or {"advance_s": 3600}.
    Serve {
        /// The port to listen on; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// A JSON file with the machines to begin with
        #[arg(long, value_name = "FILE")]
        fleet: Option<PathBuf>,
    },
    /// Show an evening, a morning and a weekend with Curfew: the real function, cargo lambda, and a simulated EC2
    Demo(Demo),
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    match Arguments::parse().verb {
        Verb::Serve { port, fleet } => serve(port, fleet).await.map(|()| ExitCode::SUCCESS),
        Verb::Demo(demo) => Ok(demo.run().await),
    }
}

async fn serve(port: u16, fleet: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    let fleet = match fleet {
        Some(path) => read_fleet(&path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => Fleet::default(),
    };
    let sim = Sim::listen(port).await.map_err(|error| format!("port {port}: {error}"))?;
    sim.load(fleet);
    println!("Simulated EC2 at {url}; AWS_ENDPOINT_URL_EC2={url}", url = sim.url());
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    Ok(())
}

fn read_fleet(path: &PathBuf) -> Result<Fleet, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}
