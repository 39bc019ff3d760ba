//! The table. Knows how figures are written, and nothing of where they come from.

use std::time::Duration;

/// What became of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Over,
    /// There is no bound; the figure is stated.
    Stated,
    /// There is no figure.
    Failed,
}

/// A line of the table.
pub(crate) struct Row {
    pub(crate) verdict: Verdict,
    /// What was measured, ours, what it is held against, their ratio, the bound.
    cells: [String; 5],
}

impl Row {
    /// A time of ours that may be at most one `bound`th of the rival's.
    pub(crate) fn share(what: impl Into<String>, ours: Duration, rival: Duration, bound: f64) -> Self {
        let ratio = rival.as_secs_f64() / ours.as_secs_f64();
        let cells = [what.into(), time(ours), time(rival), format!("1/{ratio:.1}"), format!("1/{bound}")];
        Self { verdict: held(ratio >= bound), cells }
    }

    /// A time of ours that may be at most `bound` times another.
    pub(crate) fn times(what: impl Into<String>, ours: Duration, against: Duration, bound: f64) -> Self {
        let ratio = ours.as_secs_f64() / against.as_secs_f64();
        let cells = [what.into(), time(ours), time(against), format!("{ratio:.3}x"), format!("{bound}x")];
        Self { verdict: held(ratio <= bound), cells }
    }

    /// A figure that may be at most `bound`.
    pub(crate) fn at_most<T: Copy + PartialOrd>(
        what: impl Into<String>,
        ours: T,
        bound: T,
        write: impl Fn(T) -> String,
    ) -> Self {
        let cells = [what.into(), write(ours), String::new(), String::new(), write(bound)];
        Self { verdict: held(ours <= bound), cells }
    }

    /// A number of ours that may be at most `bound` times another.
    pub(crate) fn counts(what: impl Into<String>, ours: usize, against: usize, bound: f64) -> Self {
        let ratio = ours as f64 / against as f64;
        let cells = [what.into(), ours.to_string(), against.to_string(), format!("{ratio:.3}x"), format!("{bound}x")];
        Self { verdict: held(ratio <= bound), cells }
    }

    /// A time beside another, without a bound.
    pub(crate) fn beside(what: impl Into<String>, ours: Duration, against: Duration) -> Self {
        let ratio = ours.as_secs_f64() / against.as_secs_f64();
        let cells = [what.into(), time(ours), time(against), format!("{ratio:.3}x"), String::new()];
        Self { verdict: Verdict::Stated, cells }
    }

    /// A figure without a bound.
    pub(crate) fn stated(what: impl Into<String>, ours: impl Into<String>, against: impl Into<String>) -> Self {
        let cells = [what.into(), ours.into(), against.into(), String::new(), String::new()];
        Self { verdict: Verdict::Stated, cells }
    }

    /// A row that could not be measured.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, cells: [what.into(), "no figure".to_owned(), "".into(), "".into(), "".into()] }
    }

    fn texts(&self) -> [&str; 6] {
        let [what, ours, against, ratio, bound] = self.cells.each_ref().map(String::as_str);
        let verdict = match self.verdict {
            Verdict::Holds => "ok",
            Verdict::Over => "OVER",
            Verdict::Stated => "stated",
            Verdict::Failed => "FAILED",
        };
        [what, ours, against, ratio, bound, verdict]
    }
}

fn held(holds: bool) -> Verdict {
    if holds { Verdict::Holds } else { Verdict::Over }
}

/// Writes a time with three digits.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    let decimals = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.decimals$} {unit}")
}

/// Writes bytes as Lambda writes memory: MB, meaning 2^20 bytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / f64::from(1 << 20))
}

/// Gives the middle one; of an even number, the upper of the two in the middle.
pub(crate) fn median(mut figures: Vec<Duration>) -> Duration {
    figures.sort();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// Lays out the rows in Markdown, its columns in line.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let headings = ["what", "ours", "against", "ratio", "bound", ""];
    let rules = ["---", "--:", "--:", "--:", "--:", "---"];
    let rows: Vec<[&str; 6]> = [headings, rules].into_iter().chain(rows.iter().map(Row::texts)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |(n, row): (usize, &[&str; 6])| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match (n, column) {
            (1, 0 | 5) => "-".repeat(width),
            (1, _) => format!("{}:", "-".repeat(width - 1)),
            (_, 0 | 5) => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    rows.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_bound_is_held_to_the_last_digit_and_a_miss_shouts() {
        assert_eq!(Row::share("", ms(10), ms(200), 20.0).verdict, Verdict::Holds);
        assert_eq!(Row::share("", ms(10), ms(199), 20.0).verdict, Verdict::Over);
        assert_eq!(Row::times("", ms(105), ms(100), 1.05).verdict, Verdict::Holds);
        assert_eq!(Row::times("", ms(106), ms(100), 1.05).verdict, Verdict::Over);
        assert_eq!(Row::at_most("", 101, 100, |n| n.to_string()).verdict, Verdict::Over);
    }

    #[test]
    fn columns_line_up() {
        let rows = [Row::share("start", ms(28), ms(700), 20.0), Row::stated("memory", megabytes(3 << 20), "")];
        assert_eq!(
            markdown(&rows).lines().collect::<Vec<_>>(),
            [
                "| what   |    ours | against |  ratio | bound |        |",
                "| ------ | ------: | ------: | -----: | ----: | ------ |",
                "| start  | 28.0 ms |  700 ms | 1/25.0 |  1/20 | ok     |",
                "| memory |  3.0 MB |         |        |       | stated |",
            ]
        );
    }

    #[test]
    fn times_have_three_digits_and_the_median_is_one_that_was_measured() {
        assert_eq!([ms(41_234), ms(1_234), ms(28)].map(time), ["41.2 s", "1.23 s", "28.0 ms"]);
        assert_eq!(time(Duration::from_nanos(123_456)), "123 µs");
        assert_eq!(median(vec![ms(9), ms(1), ms(5)]), ms(5));
    }
}
