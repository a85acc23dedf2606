//! Completes the lines that the user types.

use std::io::{self, BufRead};

use nanochat_engine::{Cancel, Completer, Prompt};

use crate::completion::origin;
use crate::output::{FAINT, Output};

/// Maximum number of lines of a completion.
const MAX_LINES: usize = 4;

/// Runs until Ctrl-D. Lines accumulate in one text until an empty line clears it.
pub(super) fn run(output: &Output, completer: &mut Completer) -> anyhow::Result<()> {
    output.data(
        "\nYour turn: type Rust, and Enter completes it. Lines accumulate; an empty line starts over; Ctrl-D ends.\n",
    )?;
    let mut text = String::new();
    let mut lines = io::stdin().lock();
    loop {
        output.data(if text.is_empty() { "> " } else { ". " })?;
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return output.data("\n");
        }
        let Ok(line) = std::str::from_utf8(&line) else {
            output.note("that is not UTF-8");
            continue;
        };
        let line = line.trim_end_matches(['\n', '\r']);
        if line.trim().is_empty() {
            text.clear();
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
        let prompt = Prompt { path: "", snippets: &[], prefix: &text, suffix: "" };
        let timed = super::complete(completer, &prompt, MAX_LINES, &Cancel::new())?;
        match &timed.completion {
            Some(completion) => {
                let from = format!("{}; {}", origin(&completion.sources), super::first_token_text(&timed));
                let shown = super::painted(output, completion);
                output.data(&format!(
                    "{}{shown}\n{}\n",
                    output.on_stdout(FAINT, line),
                    output.on_stdout(FAINT, from)
                ))?;
            }
            None => output.data(&format!("{}\n", output.on_stdout(FAINT, "(nothing to suggest)")))?,
        }
    }
}
