//! Guesses at the next tokens, which the model checks several at a time.
//!
//! ```text
//! context → Draft::propose → tokens ┐
//! Costs (measured) × acceptance ────┴→ as many as are expected to pay → Session::push_ahead
//! ```
//!
//! A guess that is wrong costs time and changes nothing: each token is chosen from the same logits, to the bit, as without
//! guesses (Leviathan et al. 2022 for the idea; greedy choice needs no correction).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::memory::{Lookup, MAX_MATCH, Memory};
use crate::text::tokenizer::{N_SPECIALS, PREFIX, TokenId};
use crate::{Cancel, Model, Session};

/// Most tokens guessed at once.
pub const MOST_GUESSED: usize = 8;

/// Where guesses come from.
pub trait Draft: Send {
    /// Appends at most `most` tokens that may follow `context`, which is the prompt and what was generated after it.
    fn propose(&mut self, context: &[TokenId], most: usize, guess: &mut Vec<TokenId>);
}

impl<F: FnMut(&[TokenId], usize, &mut Vec<TokenId>) + Send> Draft for F {
    fn propose(&mut self, context: &[TokenId], most: usize, guess: &mut Vec<TokenId>) {
        self(context, most, guess);
    }
}

/// What followed the last tokens where they stood before in the prompt: the latest of the longest matches.
#[derive(Clone, Copy, Debug)]
pub struct PromptLookup {
    /// Tokens that must match at least.
    pub least: usize,
}

impl Default for PromptLookup {
    fn default() -> Self {
        Self { least: 3 }
    }
}

impl Draft for PromptLookup {
    fn propose(&mut self, context: &[TokenId], most: usize, guess: &mut Vec<TokenId>) {
        let Some((last, before)) = context.split_last() else { return };
        let (mut longest, mut at) = (self.least.max(1) - 1, None);
        for end in (1..=before.len()).rev().filter(|end| before[end - 1] == *last) {
            let pairs = before[..end].iter().rev().zip(context.iter().rev());
            let n_equal = pairs.take(LONGEST_MATCH).take_while(|(a, b)| a == b).count();
            if n_equal > longest {
                (longest, at) = (n_equal, Some(end));
            }
        }
        if let Some(end) = at {
            guess.extend(context[end..].iter().take(most));
        }
    }
}

/// What most often followed the longest match in the memory, token after token, as long as matches are long.
#[derive(Clone, Debug)]
pub struct MemoryLookup<'a> {
    memory: &'a Memory,
    least: u32,
}

impl<'a> MemoryLookup<'a> {
    /// Tokens that must match at least.
    const LEAST: u32 = 4;

    /// What `memory` says.
    pub fn new(memory: &'a Memory) -> Self {
        Self { memory, least: Self::LEAST }
    }
}

impl Draft for MemoryLookup<'_> {
    fn propose(&mut self, context: &[TokenId], most: usize, guess: &mut Vec<TokenId>) {
        // The memory knows the text of the file, not the prompt around it; and no more of it than it can match.
        let start = context.iter().rposition(|token| *token == PREFIX).map_or(0, |at| at + 1);
        let start = start.max(context.len().saturating_sub(MAX_MATCH));
        let mut text = context[start..].to_vec();
        let mut lookup = Lookup::default();
        for _ in 0..most {
            self.memory.lookup(&text, "", &mut lookup);
            let Some(token) = lookup.favourite().filter(|_| lookup.longest() >= self.least) else { break };
            text.push(token);
            guess.push(token);
        }
    }
}

/// A match is not followed further back than this.
const LONGEST_MATCH: usize = 16;

/// Seconds that a model takes on this machine.
#[derive(Clone, PartialEq)]
pub struct Costs {
    /// A token pushed with i guesses, and its logits.
    push: [f64; MOST_GUESSED + 1],
    /// A token that was guessed: its logits.
    guessed: f64,
}

impl Costs {
    /// Measures on a session of its own: the least of a few rounds, in the time of about a hundred tokens.
    pub fn measure(model: &Arc<Model>) -> Self {
        const N_BEFORE: usize = 64;
        const MEASURED: [usize; 5] = [0, 1, 2, 4, MOST_GUESSED];
        let n_before = N_BEFORE.min(model.config().context / 2);
        let tokens: Vec<TokenId> = (0..n_before).map(|i| (i * 31 % model.config().vocab_size) as TokenId).collect();
        let guess = &tokens[..MOST_GUESSED];
        let mut session = Session::new(Arc::clone(model));
        let mut costs = Self { push: [f64::MAX; MOST_GUESSED + 1], guessed: f64::MAX };
        for _ in 0..3 {
            for n_guessed in MEASURED {
                session.rebase(&tokens, &Cancel::new()).expect("nobody else has this flag");
                let start = Instant::now();
                session.push_ahead(tokens[0], &guess[..n_guessed]);
                let seconds = start.elapsed().as_secs_f64();
                costs.push[n_guessed] = costs.push[n_guessed].min(seconds);
                if n_guessed > 0 {
                    let start = Instant::now();
                    session.push(guess[0]);
                    costs.guessed = costs.guessed.min(start.elapsed().as_secs_f64());
                }
            }
        }
        for pair in MEASURED.windows(2) {
            for between in pair[0] + 1..pair[1] {
                let share = (between - pair[0]) as f64 / (pair[1] - pair[0]) as f64;
                costs.push[between] = costs.push[pair[0]] * (1.0 - share) + costs.push[pair[1]] * share;
            }
        }
        costs
    }

    /// How many times faster tokens come with `n_guessed` guesses at a time, each right with this probability if those
    /// before it are.
    pub fn gain(&self, n_guessed: usize, acceptance: f64) -> f64 {
        let n_right: f64 = (1..=n_guessed as i32).map(|i| acceptance.powi(i)).sum();
        (1.0 + n_right) * self.push[0] / (self.push[n_guessed] + n_right * self.guessed)
    }

    /// The number of guesses, at most `most`, that gains most, where any gains as much as is worth it.
    pub fn best(&self, most: usize, acceptance: f64) -> usize {
        let gains = (1..=most.min(MOST_GUESSED)).map(|n| (n, self.gain(n, acceptance)));
        gains.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, gain)| *gain >= LEAST_GAIN).map_or(0, |(n, _)| n)
    }
}

impl fmt::Debug for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let push: Vec<u64> = self.push.iter().map(|seconds| (seconds * 1e6) as u64).collect();
        write!(f, "a token with 0 to {MOST_GUESSED} guesses {push:?} µs, a guessed one {:.0} µs", self.guessed * 1e6)
    }
}

/// Below this, what was measured may be noise.
const LEAST_GAIN: f64 = 1.05;
/// How much one guess changes what is believed of its source.
const RATE: f64 = 0.1;
/// What is believed of a source that was not asked for long, so that it gets another chance.
const PRIOR: f64 = 0.7;
/// How fast it comes back to that, per token without a guess.
const FORGETTING: f64 = 0.005;

/// A source, what guesses cost, and how often they were right.
pub struct Drafts {
    /// `None` is the memory.
    source: Option<Box<dyn Draft>>,
    costs: Costs,
    acceptance: f64,
    n_guessed: u64,
    n_right: u64,
}

impl Drafts {
    /// A source of which nothing is known yet.
    pub fn new(source: Box<dyn Draft>, costs: Costs) -> Self {
        Self { source: Some(source), ..Self::of_memory(costs) }
    }

    /// The memory as a source, of which nothing is known yet.
    pub fn of_memory(costs: Costs) -> Self {
        Self { source: None, costs, acceptance: PRIOR, n_guessed: 0, n_right: 0 }
    }

    /// Share of the guesses of late that were right.
    pub fn acceptance(&self) -> f64 {
        self.acceptance
    }

    /// As many tokens as pay, at most `most`; none that is a special or not below `vocab_size`.
    pub fn guess(
        &mut self,
        memory: Option<&Memory>,
        context: &[TokenId],
        most: usize,
        vocab_size: usize,
    ) -> Vec<TokenId> {
        let mut guess = Vec::new();
        let n = self.costs.best(most, self.acceptance);
        if n > 0 {
            match (&mut self.source, memory) {
                (Some(source), _) => source.propose(context, n, &mut guess),
                (None, Some(memory)) => MemoryLookup::new(memory).propose(context, n, &mut guess),
                (None, None) => {}
            }
            guess.truncate(n);
            let is_usable = |token: &TokenId| *token >= N_SPECIALS && usize::from(*token) < vocab_size;
            guess.truncate(guess.iter().take_while(|token| is_usable(token)).count());
        }
        if guess.is_empty() {
            self.acceptance += FORGETTING * (PRIOR - self.acceptance);
        }
        guess
    }

    /// Learns whether a guess was right.
    pub fn learn(&mut self, was_right: bool) {
        self.n_guessed += 1;
        self.n_right += u64::from(was_right);
        self.acceptance += RATE * (f64::from(u8::from(was_right)) - self.acceptance);
    }
}

impl fmt::Debug for Drafts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acceptance, n_guessed, n_right, .. } = self;
        write!(f, "{n_right} of {n_guessed} guesses right, {acceptance:.2} of late")
    }
}

#[cfg(test)]
impl Costs {
    /// Guesses that cost nothing.
    pub(crate) fn none() -> Self {
        Self { push: [1.0; MOST_GUESSED + 1], guessed: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(context: &[TokenId], most: usize) -> Vec<TokenId> {
        let mut guess = Vec::new();
        PromptLookup::default().propose(context, most, &mut guess);
        guess
    }

    #[test]
    fn the_longest_match_is_continued_and_of_equal_ones_the_latest() {
        assert_eq!(lookup(&[1, 2, 3, 4, 5, 9, 2, 3, 4, 6, 1, 2, 3, 4], 2), [5, 9]);
        assert_eq!(lookup(&[1, 2, 3, 7, 8, 1, 2, 3, 8, 7, 1, 2, 3], 9), [8, 7, 1, 2, 3]);
        assert!(lookup(&[1, 2, 7, 1, 2], 9).is_empty(), "two tokens are no match");
        assert_eq!(lookup(&[5, 5, 5, 5], 2), [5], "a run continues itself");
        assert!(lookup(&[], 2).is_empty());
    }

    #[test]
    fn the_memory_is_continued_as_long_as_matches_are_long() {
        let memory =
            Memory::build(vec![("a.rs".to_owned(), (20..40).collect()), ("b.rs".to_owned(), vec![22, 23, 50])]);
        let propose = |context: &[TokenId], most| {
            let mut guess = Vec::new();
            MemoryLookup::new(&memory).propose(context, most, &mut guess);
            guess
        };
        assert_eq!(propose(&[20, 21, 22, 23], 3), [24, 25, 26]);
        assert_eq!(propose(&[9, PREFIX, 20, 21, 22, 23], 9).len(), 9);
        assert!(propose(&[21, 22, 23], 3).is_empty(), "three tokens are no match");
        assert!(propose(&[20, 21, PREFIX, 22, 23], 3).is_empty(), "what is before the file is not its text");
        assert_eq!(propose(&[34, 35, 36, 37], 9), [38, 39], "a file ends");
        let mut drafts = Drafts::of_memory(Costs::none());
        assert_eq!(drafts.guess(Some(&memory), &[20, 21, 22, 23], 2, 400), [24, 25]);
        assert!(drafts.guess(None, &[20, 21, 22, 23], 2, 400).is_empty());
    }

    #[test]
    fn guesses_are_made_where_they_pay_and_only_there() {
        // A pass that costs as much for nine tokens as for one, and logits a third of it.
        let flat = Costs { push: [3.0; MOST_GUESSED + 1], guessed: 1.0 };
        assert_eq!(flat.best(8, 0.95), 8);
        assert_eq!(flat.best(3, 0.95), 3);
        assert_eq!(flat.best(8, 0.0), 0);
        // All eight right: nine tokens in 3 + 8 where they took 27.
        assert!((flat.gain(8, 1.0) - 27.0 / 11.0).abs() < 1e-9);
        let steep = Costs { push: std::array::from_fn(|i| 3.0 + 2.0 * i as f64), guessed: 1.0 };
        assert_eq!(steep.best(8, 1.0), 0, "a guessed token costs what a token costs");
        assert_eq!(flat.best(0, 1.0), 0);
    }

    #[test]
    fn a_source_that_is_wrong_is_not_asked_and_gets_another_chance() {
        let costs = Costs { push: std::array::from_fn(|i| 3.0 + 0.5 * i as f64), guessed: 1.0 };
        let mut drafts = Drafts::new(Box::new(|_: &[TokenId], _, guess: &mut Vec<TokenId>| guess.push(300)), costs);
        let ask = |drafts: &mut Drafts| drafts.guess(None, &[9, 9], 4, 400).len();
        assert_eq!(ask(&mut drafts), 1);
        (0..30).for_each(|_| drafts.learn(false));
        assert_eq!(ask(&mut drafts), 0);
        assert!((0..1000).any(|_| ask(&mut drafts) == 1));
    }

    #[test]
    fn tokens_that_no_model_knows_are_not_guessed() {
        let source = |_: &[TokenId], _: usize, guess: &mut Vec<TokenId>| guess.extend([20, 21, 400, 22]);
        let mut drafts = Drafts::new(Box::new(source), Costs::none());
        assert_eq!(drafts.guess(None, &[9], 8, 400), [20, 21]);
        assert_eq!(drafts.guess(None, &[9], 1, 400), [20], "a source that gives more than it was asked for is cut");
    }
}
