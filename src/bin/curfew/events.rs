//! Event files, read as the function would read them.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ec2_curfew::event::{self, unwrap};
use ec2_curfew::request::{Request, snapshots};
use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::{source, terminal};

/// An event about instances, and its request.
#[derive(Debug)]
pub(crate) struct EventFile {
    /// The file's name as given, or `<stdin>`.
    pub(crate) name: String,
    /// The request as the function reads it.
    pub(crate) request: Request,
    /// The request's JSON, without any envelope.
    pub(crate) written: Map<String, Value>,
}

/// An event that the function would accept.
#[derive(Debug)]
pub(crate) enum Event {
    /// About instances.
    Instances(EventFile),
    /// About snapshots: the file's name, and the request.
    Snapshots(String, snapshots::Request),
}

/// Reads an event about instances.
///
/// # Errors
/// As for [`read_any`]; or the event is about snapshots.
pub(crate) fn read(path: &Path, now: DateTime<Utc>) -> Result<EventFile, Problem> {
    match read_any(path, now)? {
        Event::Instances(event) => Ok(event),
        Event::Snapshots(name, _) => {
            Err(Problem::new(format!("{name} is about snapshots, which only the function looks at"))
                .help("run it as a rehearsal: make invoke EVENT=…"))
        }
    }
}

/// Reads an event from a file, or from standard input if its name is `-`.
///
/// # Errors
/// The file can't be read, or the function would refuse the event; then the problem shows the lines concerned.
pub(crate) fn read_any(path: &Path, now: DateTime<Utc>) -> Result<Event, Problem> {
    let name = if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() };
    let bytes = bytes(path).map_err(|error| unreadable(&name, path, &error))?;
    let read = unwrap(event::Event::read(&bytes)).and_then(|it| {
        if snapshots::is_meant(&it.request) {
            let request = snapshots::Request::parse(it.request, it.time, now)?;
            return Ok(Event::Snapshots(name.clone(), request));
        }
        let written = it.request.clone();
        let request = Request::parse(it.request, it.time, now)?;
        Ok(Event::Instances(EventFile { name: name.clone(), request, written }))
    });
    match read {
        Ok(event) => Ok(event),
        Err(refused) => {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_start_matches('\u{feff}');
            Err(Problem::refused(source::show(&name, text, &refused, terminal::width())))
        }
    }
}

/// Reads several events.
///
/// # Errors
/// The first problem with any of them.
pub(crate) fn read_all(paths: &[PathBuf], now: DateTime<Utc>) -> Result<Vec<EventFile>, Problem> {
    paths.iter().map(|path| read(path, now)).collect()
}

fn unreadable(name: &str, path: &Path, error: &std::io::Error) -> Problem {
    let events = "the shipped ones are in infra/events, such as infra/events/stop-7pm.json";
    match error.kind() {
        ErrorKind::NotFound => Problem::new(format!("there is no file {name}")).help(events),
        _ if path.is_dir() => Problem::new(format!("{name} is a directory")).help("name an event file in it"),
        _ => Problem::new(format!("can't read {name}: {error}")),
    }
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
