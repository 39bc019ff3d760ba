//! Text in columns and lines. Knows nothing about EC2.

/// The width of the demo's output, in characters.
pub(crate) const WIDTH: usize = 100;
const GAP: &str = "  ";

/// One row of the table, with a note below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row<const N: usize> {
    /// Whether it is marked with `!`.
    pub(crate) trouble: bool,
    /// The last one is wrapped.
    pub(crate) cells: [String; N],
    /// Wrapped, and indented to the second column.
    pub(crate) note: String,
}

/// Lays out the rows under their headings.
pub(crate) fn lines<const N: usize>(headings: [&str; N], rows: &[Row<N>]) -> Vec<String> {
    let headings = Row { trouble: false, cells: headings.map(String::from), note: String::new() };
    let rows: Vec<&Row<N>> = std::iter::once(&headings).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row.cells[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let before_last = 2 + widths[..N - 1].iter().map(|width| width + GAP.len()).sum::<usize>();
    let mut lines = Vec::new();
    for row in rows {
        let mark = if row.trouble { "!" } else { " " };
        let mut last = wrap(&row.cells[N - 1], WIDTH - before_last).into_iter();
        let mut cells: Vec<String> =
            row.cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells[N - 1] = last.next().unwrap_or_default();
        lines.push(format!("{mark} {}", cells.join(GAP)).trim_end().to_owned());
        lines.extend(last.map(|line| format!("{:before_last$}{line}", "")));
        let indent = 2 + widths[0] + GAP.len();
        let note = wrap(&row.note, WIDTH - indent);
        lines.extend(note.iter().map(|line| format!("{:indent$}{line}", "")));
    }
    lines
}

/// Joins names; more than two with consecutive numbers become `web-1 … -12`.
pub(crate) fn fold(names: &[&str]) -> String {
    let mut runs: Vec<Vec<&str>> = Vec::new();
    for name in names {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| follows(last, name)) => run.push(name),
            _ => runs.push(vec![name]),
        }
    }
    let told = runs.iter().map(|run| match run.as_slice() {
        [first, .., last] if run.len() > 2 => format!("{first} … -{}", split(last).1),
        few => few.join(", "),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Returns a name without its number.
pub(crate) fn stem(name: &str) -> &str {
    split(name).0
}

fn follows(last: &str, name: &str) -> bool {
    let ((stem, last), (same, next)) = (split(last), split(name));
    let number = |text: &str| text.parse::<u32>().ok();
    stem == same && number(last).and_then(|n| n.checked_add(1)).is_some_and(|n| number(next) == Some(n))
}

/// Splits `web-12` at its last hyphen, if a number follows it.
fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once('-') {
        Some((stem, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => (stem, number),
        Some(_) | None => (name, ""),
    }
}

/// Breaks a text into lines between words.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    // Quoted text is meant to be copied, so it stays on one line.
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(quote)
                if quote.matches('"').count() % 2 == 1 && quote.chars().count() + word.chars().count() < width =>
            {
                *quote += " ";
                *quote += word;
            }
            _ => words.push(word.to_owned()),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                *line += " ";
                *line += &word;
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_numbers_are_folded_and_gaps_are_not() {
        let web: Vec<String> = (1..=12).map(|n| format!("web-{n}")).collect();
        let web: Vec<&str> = web.iter().map(String::as_str).collect();
        assert_eq!(fold(&web), "web-1 … -12");
        assert_eq!(fold(&["asg-1", "asg-2"]), "asg-1, asg-2");
        assert_eq!(fold(&["db"]), "db");
        assert_eq!(fold(&["a-1", "a-2", "a-4", "a-5", "a-6", "b-7"]), "a-1, a-2, a-4 … -6, b-7");
        assert_eq!(fold(&["eks-node", "eks-node"]), "eks-node, eks-node");
        assert_eq!(fold(&["n-09", "n-10", "n-11"]), "n-09 … -11");
        assert_eq!(fold(&["a-4294967295", "a-0"]), "a-4294967295, a-0");
    }

    #[test]
    fn columns_line_up_and_notes_hang_beneath() {
        let row =
            |trouble, cells: [&str; 5], note: &str| Row { trouble, cells: cells.map(String::from), note: note.into() };
        let long = "word ".repeat(20);
        let rows = [
            row(false, ["web-1 … -12", "running", "stopping", "", ""], ""),
            row(true, ["db", "running", "running", "FAILED", "No"], &long),
        ];
        assert_eq!(
            lines(["NAME", "BEFORE", "NOW", "WHY", ""], &rows),
            [
                "  NAME         BEFORE   NOW       WHY",
                "  web-1 … -12  running  stopping",
                "! db           running  running   FAILED  No",
                &format!("{:15}{}", "", ["word"; 17].join(" ")),
                &format!("{:15}{}", "", ["word"; 3].join(" ")),
            ]
        );
    }
}
