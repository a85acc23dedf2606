//! What the reranker and the stop classifier learn from: the features of candidates and of line ends in text that is
//! known.

use super::multiline::WrittenLines;
use super::{CompleteError, Completer, Limits};
use crate::Cancel;
use crate::prompt::Prompt;

/// A candidate with what the reranker knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredLine {
    /// As it would be shown; empty if nothing of it is new.
    pub text: String,
    /// In the order in which the reranker's weights have them.
    pub features: Vec<f32>,
}

/// A place in a text of several lines at which it could end.
#[derive(Clone, Debug, PartialEq)]
pub struct StopSample {
    /// In the order in which the stop classifier's weights have them.
    pub features: Vec<f32>,
    /// Whether the text ends there.
    pub is_end: bool,
}

impl Completer {
    /// The candidates that [`Completer::complete`] chooses from; of several lines those that could be the first. Empty
    /// where nothing is reranked: see [`Limits::search_budget`].
    pub fn scored_lines(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Vec<ScoredLine>, CompleteError> {
        let ranked = self.with_declared(prompt, limits.max_tokens, |this, prompt| {
            this.rank(prompt, limits, limits.max_tokens, cancel, &mut |_| ())
        })?;
        let scored = ranked.candidates.into_iter().filter_map(|mut candidate| {
            let features = candidate.features.take()?;
            let text = candidate.into_completion(prompt.suffix).map_or_else(String::new, |found| found.text);
            Some(ScoredLine { text, features })
        });
        Ok(scored.collect())
    }

    /// The places after a line of `truth`, a text of several lines, at which it could end.
    pub fn stop_samples(
        &mut self,
        prompt: &Prompt<'_>,
        truth: &str,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Vec<StopSample>, CompleteError> {
        self.with_declared(prompt, limits.max_tokens, |this, prompt| {
            let (mut text, mut samples) = (WrittenLines::after(prompt.prefix), Vec::new());
            let mut lines = truth.lines().peekable();
            while let Some(line) = lines.next() {
                text.push(line);
                // No blank line is ever a candidate.
                if !text.may_end() || lines.peek().is_some_and(|next| next.trim().is_empty()) {
                    continue;
                }
                let here = Prompt { prefix: &text.prefix, ..*prompt };
                let ranked = this.rank(&here, limits, limits.max_tokens, cancel, &mut |_| ())?;
                let (log_odds, closes) = (ranked.log_odds_of_end, ranked.closes_at_once());
                let Some(next) = ranked.best(prompt.suffix, |_| true) else { continue };
                let features = text.stop_features(&next, log_odds, closes, prompt.suffix).values().to_vec();
                samples.push(StopSample { features, is_end: lines.peek().is_none() });
            }
            Ok(samples)
        })
    }
}
