//! Event files: what the function would read of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ec2_curfew::event::{Event, unwrap};
use ec2_curfew::request::Request;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// An event, and the request that it is.
pub(crate) struct EventFile {
    /// The file's name, as it was given.
    pub(crate) name: String,
    /// What the function makes of it.
    pub(crate) request: Request,
    /// Its `hours`, as they are written.
    pub(crate) hours: Map<String, Value>,
}

/// Reads an event from a file, or from standard input where its name is `-`.
///
/// # Errors
/// The file can't be read, or the function would refuse the event; that is shown line by line.
pub(crate) fn read(path: &Path, now: DateTime<Utc>) -> Result<EventFile, Problem> {
    let name = if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() };
    let bytes = bytes(path).map_err(|error| Problem::new(format!("can't read {name}: {error}")))?;
    let unwrapped = unwrap(Event::read(&bytes));
    let hours = unwrapped.as_ref().ok().and_then(|it| it.request.get("hours")?.as_object().cloned()).unwrap_or_default();
    let request = unwrapped.and_then(|it| Request::parse(it.request, it.time, now));
    match request {
        Ok(request) => Ok(EventFile { name, request, hours }),
        Err(refused) => Err(Problem::refused(format!("{name}: {refused}\n"))),
    }
}

/// Reads several; the first problem of any ends it.
pub(crate) fn read_all(paths: &[PathBuf], now: DateTime<Utc>) -> Result<Vec<EventFile>, Problem> {
    paths.iter().map(|path| read(path, now)).collect()
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    if !is_stdin(path) {
        return std::fs::read(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}
