//! Why a command fails, and what to do about it.

use anstyle::{AnsiColor, Style};

/// What looking takes.
pub(crate) const PERMISSIONS: &str = "looking takes the permissions in policy/read-only.json";

/// Whether a code of AWS's says that a permission is missing, and not that something else is wrong.
pub(crate) fn is_denied(code: &str) -> bool {
    matches!(code, "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "UnauthorizedOperation")
}

/// Something went wrong: told on standard error, and the command ends.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Styled; one or more whole lines.
    text: String,
    /// The exit status.
    code: u8,
}

impl Problem {
    /// Builds a problem that says what is wrong; its exit status is 1.
    pub(crate) fn new(what: impl AsRef<str>) -> Self {
        let error = AnsiColor::BrightRed.on_default().bold();
        let bold = Style::new().bold();
        Self { text: format!("{error}error{error:#}{bold}: {}{bold:#}\n", what.as_ref()), code: 1 }
    }

    /// Builds a problem from an event's refusal, already styled; its exit status is 2.
    pub(crate) fn refused(shown: String) -> Self {
        Self { text: shown, code: 2 }
    }

    /// Adds a note, like the message of a service.
    pub(crate) fn note(self, said: impl AsRef<str>) -> Self {
        self.line("note", AnsiColor::BrightGreen, said.as_ref())
    }

    /// Adds advice on what to do about it.
    pub(crate) fn help(self, fix: impl AsRef<str>) -> Self {
        self.line("help", AnsiColor::BrightCyan, fix.as_ref())
    }

    /// Adds which permissions it takes, if a code of AWS's says that one is missing.
    pub(crate) fn help_if_denied(self, code: &str, fix: impl AsRef<str>) -> Self {
        if is_denied(code) { self.help(fix) } else { self }
    }

    /// Tells it, and returns how the command ends: 1, or 2 where an event was refused.
    pub(crate) fn tell(&self) -> u8 {
        anstream::eprint!("{}", self.text);
        self.code
    }

    fn line(mut self, label: &str, color: AnsiColor, text: &str) -> Self {
        let style = color.on_default().bold();
        self.text.push_str(&format!("{style}{label}{style:#}: {text}\n"));
        self
    }
}
