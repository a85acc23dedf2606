//! stdout is data; stderr is for people.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use clap::builder::styling::{AnsiColor, Style};
use clap::{Args, ValueEnum};
use serde::Serialize;

/// How a command writes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct OutputArgs {
    /// Colour the output
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Colour::Auto, global = true)]
    #[arg(env = "CARGO_TERM_COLOR", hide_env = true)]
    pub(crate) color: Colour,
    /// Say less on stderr: errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more on stderr: counts and milliseconds (-vv: of each step)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Form of the data on stdout; `json` is one object per line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Human, global = true)]
    message_format: Format,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

/// `--message-format`: the form of the data on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Human,
    Json,
}

/// Writes data to stdout and messages for people to stderr, as the options ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    verbose: u8,
    colour_stdout: bool,
    colour_stderr: bool,
}

/// The reader of stdout has gone, as `head` does.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(crate) struct StdoutClosed;

/// Text from the model.
pub(crate) const MODEL: Style = AnsiColor::BrightCyan.on_default();
/// Text from the memory.
pub(crate) const MEMORY: Style = AnsiColor::BrightYellow.on_default();
/// Text around a completion, and other secondary text.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// A heading.
pub(crate) const HEADING: Style = Style::new().bold();

impl Output {
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let colour = |is_terminal: bool| match args.color {
            Colour::Always => true,
            Colour::Never => false,
            // no-color.org: set and not empty
            Colour::Auto => {
                is_terminal
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Self {
            format: args.message_format,
            quiet: args.quiet,
            verbose: args.verbose,
            colour_stdout: colour(io::stdout().is_terminal()),
            colour_stderr: colour(io::stderr().is_terminal()),
        }
    }

    /// The same without messages for people.
    pub(crate) fn silent(self) -> Self {
        Self { quiet: true, ..self }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Sends the libraries' log to stderr: `NANOCHAT_LOG`, or as much as `-q` and `-v` asked for.
    pub(crate) fn log(&self) {
        let filter = std::env::var("NANOCHAT_LOG").unwrap_or_else(|_| self.log_filter().to_owned());
        nanochat_lsp::log_to_stderr(Some(&filter));
    }

    fn log_filter(&self) -> &'static str {
        match self.verbose {
            0 if self.quiet => "error",
            0 => "warn",
            1 => "warn,nanochat=info",
            _ => "warn,nanochat=debug",
        }
    }

    /// Writes `text` to stdout unchanged, and flushes. A closed stdout is [`StdoutClosed`].
    pub(crate) fn data(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            other => Ok(other?),
        }
    }

    /// Writes one object and a newline to stdout.
    pub(crate) fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.data(&(serde_json::to_string(value)? + "\n"))
    }

    /// A message for people, one line.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            self.line(&text);
        }
    }

    /// A message for people who passed `-v`.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.verbose > 0 {
            self.line(&text);
        }
    }

    /// The one line that says why the command failed, with its causes.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let label = self.on_stderr(AnsiColor::Red.on_default().bold(), "error");
        self.line(&format_args!("{label}: {}", one_line(error)));
    }

    /// `text` in a style, where stdout shows styles.
    pub(crate) fn on_stdout(&self, style: Style, text: impl Display) -> String {
        paint(self.colour_stdout, style, text)
    }

    fn on_stderr(&self, style: Style, text: impl Display) -> String {
        paint(self.colour_stderr, style, text)
    }

    fn line(&self, text: &dyn Display) {
        // When stderr is closed, there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// A table whose first column is text and whose others are right-aligned.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The error and its causes. A cause that the error above it quotes is not repeated.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let message = cause.to_string();
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let message = lines.join("; ");
        if !text.contains(&message) {
            text = if text.is_empty() { message } else { format!("{text}: {message}") };
        }
    }
    text
}

fn paint(colour: bool, style: Style, text: impl Display) -> String {
    if colour { format!("{style}{text}{style:#}") } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_are_quoted_appear_once() {
        let cause = anyhow::anyhow!("disk full\n  really");
        assert_eq!(
            one_line(&cause.context("writing a (disk full; really)").context("no")),
            "no: writing a (disk full; really)"
        );
        assert_eq!(one_line(&anyhow::anyhow!("b").context("a")), "a: b");
    }

    #[test]
    fn quiet_leaves_errors_only_in_the_libraries_log() {
        let output =
            Output { format: Format::Human, quiet: false, verbose: 0, colour_stdout: false, colour_stderr: false };
        assert_eq!(output.log_filter(), "warn");
        assert_eq!(output.silent().log_filter(), "error");
        assert_eq!(Output { verbose: 1, ..output }.log_filter(), "warn,nanochat=info");
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let rows = [vec!["".to_owned(), "before".to_owned()], vec!["model".to_owned(), "2.1".to_owned()]];
        assert_eq!(table(&rows), "       before\nmodel     2.1\n");
    }
}
