//! Several lines, one after the other: each is chosen among candidates after those before it, until the text after the
//! cursor should come next.

use super::filter::writes_secret;
use super::pipeline::Ranked;
use super::stop::{StopFeatures, p_of_end};
use super::{CompleteError, Completion, Limits, Stop};
use crate::prompt::Prompt;
use crate::text::Scanner;

/// A text of several lines, as far as it is written.
pub(super) struct WrittenLines {
    /// With the text before the cursor.
    pub(super) prefix: String,
    /// Where its first line starts.
    start: usize,
    /// What the text opens it closes before the suffix may follow.
    brackets: Scanner,
    n_lines: usize,
}

impl WrittenLines {
    /// None yet.
    pub(super) fn after(prefix: &str) -> Self {
        let start = prefix.rfind('\n').map_or(0, |at| at + 1);
        Self { prefix: prefix.to_owned(), start, brackets: Scanner::default(), n_lines: 0 }
    }

    pub(super) fn push(&mut self, line: &str) {
        self.n_lines += 1;
        for text in [line, "\n"] {
            self.brackets.feed(text);
            self.prefix.push_str(text);
        }
    }

    /// Whether all brackets are closed again.
    pub(super) fn may_end(&self) -> bool {
        self.n_lines > 0 && self.brackets.depth() == 0
    }

    /// What is known here of whether the text ends, where `next` would be the next line.
    pub(super) fn stop_features<'a>(
        &'a self,
        next: &'a Completion,
        log_odds_of_end: Option<f32>,
        closes: bool,
        suffix: &'a str,
    ) -> StopFeatures<'a> {
        let (written, next) = (&self.prefix[self.start..], (&*next.text, next.confidence));
        StopFeatures { log_odds_of_end, next, closes, written, n_lines: self.n_lines, suffix }
    }
}

/// Lines until the suffix should follow. `rank` gives the candidates at a prompt of which so many tokens may be
/// written.
pub(super) fn complete(
    prompt: &Prompt<'_>,
    limits: &Limits,
    has_model: bool,
    rank: &mut dyn FnMut(&Prompt<'_>, usize) -> Result<Ranked, CompleteError>,
) -> Result<Option<Completion>, CompleteError> {
    let mut text = WrittenLines::after(prompt.prefix);
    let mut whole: Option<Completion> = None;
    let mut left = limits.max_tokens;
    for _ in 0..limits.max_lines {
        let here = Prompt { prefix: &text.prefix, ..*prompt };
        let ranked = rank(&here, left)?;
        let (log_odds, closes) = (ranked.log_odds_of_end, ranked.closes_at_once());
        let line = ranked.best(prompt.suffix, |text| !writes_secret(&here, text));
        let Some(mut line) = line else { break };
        if let Some(whole) = whole.as_mut().filter(|_| text.may_end()) {
            let p_of_end = p_of_end(has_model, &text.stop_features(&line, log_odds, closes, prompt.suffix));
            if p_of_end >= 0.5 {
                whole.confidence *= p_of_end;
                break;
            }
            line.confidence *= 1.0 - p_of_end;
        }
        text.push(&line.text);
        left = left.saturating_sub(line.n_generated);
        let stop = line.stop;
        whole = Some(match whole {
            None => line,
            Some(whole) => joined(whole, line),
        });
        if !matches!(stop, Stop::Lines | Stop::End) || left == 0 {
            break;
        }
    }
    Ok(whole)
}

/// One text of lines and the line after them. Prompt tokens are those of the first line, at which the prompt was new.
fn joined(mut whole: Completion, line: Completion) -> Completion {
    whole.text.push('\n');
    whole.text.push_str(&line.text);
    whole.sources.extend(line.sources);
    Completion {
        stop: line.stop,
        confidence: whole.confidence * line.confidence,
        n_generated: whole.n_generated + line.n_generated,
        ..whole
    }
}
