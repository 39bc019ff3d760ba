//! A process as the kernel counts it, from `/proc`: nothing is asked of the process itself.

use std::fs::{self, read_to_string};
use std::io;
use std::time::Duration;

/// The kernel's unit of time in `stat`, USER_HZ: 100 a second on every architecture that Lambda has.
const TICK: Duration = Duration::from_millis(10);

/// Gives the CPU time, user and system, that all threads of a process have taken.
///
/// Two truths, each a little too small: `schedstat` counts nanoseconds but only of the threads that still live, `stat`
/// counts them all but cuts to ticks. The larger is nearer.
pub(crate) fn cpu(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between being listed and being read.
        let Ok(text) = read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += number(text.split(' ').next())?;
    }
    let stat = read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything; utime and stime are the 12th and 13th after it.
    let mut after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
    let ticks = number(after_name.next())? + number(after_name.next())?;
    Ok(Duration::from_nanos(nanoseconds).max(TICK * ticks as u32))
}

/// Gives the most memory that a process has had at any time, in bytes.
pub(crate) fn peak_memory(pid: u32) -> io::Result<u64> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(number(line.and_then(|line| line.split_whitespace().next()))? * 1024)
}

/// Counts the files, sockets among them, that a process has open; none once it has ended.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn number(text: Option<&str>) -> io::Result<u64> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("/proc is not as it was"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_of_everything() {
        let own = std::process::id();
        assert!(cpu(own).is_ok_and(|cpu| !cpu.is_zero()));
        assert!(peak_memory(own).is_ok_and(|bytes| bytes > 100_000));
        assert!(open_files(own) > 2);
    }
}
