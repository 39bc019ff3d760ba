//! Output to the terminal: its width and colours, tables, wrapping and progress.

use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::time::Duration;

use anstyle::Style;
use console::{Term, measure_text_width, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::problem::Problem;

/// How long something takes before its progress is shown.
const SOON: Duration = Duration::from_secs(1);
/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// Blanks between columns.
const GAP: usize = 2;
/// The least width of a table's last column, in characters.
const LEAST: usize = 24;
/// Columns that names have at least, before they are cut.
const LEAST_NAME: usize = 12;
/// Lines beside the other columns; a longer text comes beneath them, where it has the whole width.
const MOST_LINES: usize = 2;
/// The style of headings.
pub(crate) const HEADING: Style = Style::new().bold();
/// The style of what matters less.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Returns how many characters wide a line may be: what `COLUMNS` says, else the terminal's width. None in a pipe without it,
/// whose reader wants one line for each instance.
pub(crate) fn width() -> Option<usize> {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    columns.or_else(|| Term::stdout().size_checked().map(|(_, columns)| usize::from(columns)))
}

/// Prints a command's output, in colour only where that is wanted (`NO_COLOR`, `CLICOLOR`, not in pipes).
///
/// # Errors
/// It can't be written. A reader that closes the pipe early, as `head` does, is no error.
pub(crate) fn print(text: &str) -> Result<(), Problem> {
    let mut out = anstream::AutoStream::auto(stdout().lock());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Problem::new(format!("can't print: {error}"))),
        _ => Ok(()),
    }
}

/// The text of a table's cell, with its style.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    /// Whether it may be cut where the line is too short: a name, whose id is beside it.
    is_name: bool,
}

impl Cell {
    /// Builds a cell. Control characters, which a tag's value could contain to move the cursor or colour the terminal,
    /// are escaped.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref().chars();
        let text = text.flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        });
        Self { text: text.collect(), style: Style::new(), is_name: false }
    }

    /// Builds one that may be cut.
    pub(crate) fn name(text: impl AsRef<str>) -> Self {
        Self { is_name: true, ..Self::new(text) }
    }

    /// Whether its text is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns it with this style.
    pub(crate) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:#}", self.style, self.text, self.style)
    }
}

/// A row of a table.
#[derive(Clone, Debug)]
pub(crate) enum Row<const N: usize> {
    /// A line across all columns.
    Across(String),
    /// A cell for each column.
    Cells([Cell; N]),
}

impl<const N: usize> From<[Cell; N]> for Row<N> {
    fn from(cells: [Cell; N]) -> Self {
        Self::Cells(cells)
    }
}

/// Lays out rows in columns. The last column is wrapped at the line's end; a long text, or one without room there, goes
/// below the other columns.
pub(crate) fn table<const N: usize>(rows: &[Row<N>], indent: usize, width: Option<usize>) -> String {
    let cells = || rows.iter().filter_map(|row| if let Row::Cells(cells) = row { Some(cells) } else { None });
    let of_column = |nth: usize| cells().map(|cells| measure_text_width(&cells[nth].text)).max().unwrap_or_default();
    let mut widths: [usize; N] = std::array::from_fn(of_column);
    // A column of nothing takes no room.
    let taken = |widths: &[usize; N]| -> usize {
        indent + widths[..N - 1].iter().filter(|width| **width > 0).map(|width| width + GAP).sum::<usize>()
    };
    let too_wide = width.map_or(0, |width| taken(&widths).saturating_sub(width + GAP));
    if let Some(names) = (0..N - 1).find(|nth| cells().any(|cells| cells[*nth].is_name)) {
        widths[names] = widths[names].min(widths[names].saturating_sub(too_wide).max(LEAST_NAME));
    }
    let before_last = taken(&widths);
    let room = |from: usize| width.map_or(usize::MAX, |width| width.saturating_sub(from).max(LEAST));
    let narrow = width.is_some_and(|width| width < before_last + LEAST.min(widths[N - 1]));
    let mut text = String::new();
    for row in rows {
        let cells = match row {
            Row::Cells(cells) => cells,
            Row::Across(line) => {
                push_line(&mut text, line);
                continue;
            }
        };
        let mut line = " ".repeat(indent);
        for (cell, width) in cells[..N - 1].iter().zip(widths).filter(|(_, width)| *width > 0) {
            let cell = Cell { text: truncate_str(&cell.text, width, "…").into_owned(), ..cell.clone() };
            let blanks = " ".repeat(width - measure_text_width(&cell.text) + GAP);
            line.push_str(&if cell.is_empty() { blanks } else { format!("{cell}{blanks}") });
        }
        let Cell { text: last, style, .. } = &cells[N - 1];
        let beside = wrap(last, room(before_last));
        let beneath = narrow || beside.len() > MOST_LINES;
        let hanging = if beneath { indent + 4 } else { before_last };
        let parts = if beneath { wrap(last, room(hanging)) } else { beside };
        for (nth, part) in parts.into_iter().enumerate() {
            if nth > 0 || (beneath && !part.is_empty()) {
                push_line(&mut text, &line);
                line = " ".repeat(hanging);
            }
            if !part.is_empty() {
                line.push_str(&format!("{style}{part}{style:#}"));
            }
        }
        push_line(&mut text, &line);
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Returns a text in lines of at most this width, with a newline at the end.
pub(crate) fn wrapped(text: &str, width: Option<usize>) -> String {
    format!("{}\n", wrap(text, width.unwrap_or(usize::MAX)).join("\n"))
}

/// Breaks a text into lines between words; a word longer than a line stays in one piece.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines
            .last_mut()
            .filter(|line| line.is_empty() || measure_text_width(line) + 1 + measure_text_width(word) <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Shows a spinner on standard error once something has taken a second; none if standard error is no terminal.
pub(crate) fn spinner(what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if !stderr().is_terminal() {
        return bar;
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what.into());
    let shown = bar.clone();
    std::thread::spawn(move || {
        std::thread::sleep(SOON);
        if !shown.is_finished() {
            shown.set_draw_target(ProgressDrawTarget::stderr());
            shown.enable_steady_tick(TICK);
        }
    });
    bar
}
