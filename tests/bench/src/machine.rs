//! The machine on which the figures were measured, in a few lines above the table.

use std::fs::{self, read_to_string};
use std::path::Path;
use std::process::Command;

/// Returns lines about the machine and the versions.
pub(crate) fn heading(binary: &Path, python: &Path, scale: u8) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = first_line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let kernel = first_line("/proc/sys/kernel/osrelease", "").unwrap_or_default();
    let load = first_line("/proc/loadavg", "").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let size = fs::metadata(binary).map_or(0, |file| file.len()) as f64 / 1e6;
    let versions = "import boto3, platform; print('Python', platform.python_version() + ', boto3', boto3.__version__)";
    let rival = Command::new(python).args(["-c", versions]).output();
    let rival = rival.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into());
    format!(
        "{arch}, {cores} cores, {cpuinfo}; Linux {kernel}; load {load} before it began.  \n\
         ec2-curfew {version}, {size:.1} MB; {rival}; buckets filled {scale} times as fast as AWS's.",
        arch = std::env::consts::ARCH,
        version = env!("CARGO_PKG_VERSION"),
        rival = rival.trim(),
    )
}

/// Returns what follows the colon on the first line that begins with `label`; the whole first line for an empty label.
fn first_line(path: &str, label: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(label))?;
    let value = if label.is_empty() { line } else { line.split_once(':')?.1 };
    Some(value.trim().to_owned())
}
