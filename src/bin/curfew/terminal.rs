//! The terminal: its width, its colours, what is printed on it.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};

use crate::problem::Problem;

/// Returns the columns that a line may have: the terminal's, else what `COLUMNS` says. None in a pipe: what reads it wants
/// a line for each instance.
pub(crate) fn width() -> Option<usize> {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    columns.or_else(|| Term::stdout().size_checked().map(|(_, columns)| usize::from(columns)))
}

/// Prints a command's answer; its colours only where somebody sees them (`NO_COLOR`, `CLICOLOR`, pipes).
///
/// # Errors
/// It can't be written. Whoever has read enough, as `head` has, is no error.
pub(crate) fn print(text: &str) -> Result<(), Problem> {
    let mut out = anstream::AutoStream::auto(stdout().lock());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Problem::new(format!("can't print: {error}"))),
        _ => Ok(()),
    }
}

/// Shows that something is under way, on standard error, once it takes over a second; nothing in a pipe.
pub(crate) fn spinner(what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(what.into());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
