//! The search: the most probable line, and those that are nearly as probable.
//!
//! ```text
//! first ← the most probable choice at each place, to the end of the line     others → branches, by their bound
//! while a branch's bound is above the best line's probability, and the budget lasts:
//!     follow it in the same way; give it up where it falls below the best
//! ```
//!
//! The bound of a branch is the probability of its tokens so far, which only falls: what is found within the budget is
//! the most probable of all lines that start as a branch did. The end of a line counts as one choice, whatever
//! indentation follows it. Where text follows the cursor on its line, a text may end at any place where that could
//! follow.
//!
//! The memory reads from left to right and does not know what follows the cursor. So where candidates are reranked,
//! lines that are nearly as probable as the best are kept too.
//!
//! Where more than a line is asked for at once, or tokens are sampled, there is one path, token after token.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Candidate, Cursor, Path};
use crate::complete::next_token::{ModelLogP, p_of};
use crate::complete::{Stop, TokenSource};
use crate::kv::BranchPos;
use crate::rng::Rng;
use crate::text::tokenizer::{END, TokenId};
use crate::{Cancelled, Sampling};

/// A choice that is less probable than this is not followed.
const LEAST_P: f32 = 0.02;
/// How much less probable (ln p) than the best a line may be if it is reranked by what follows the cursor.
const MARGIN: f32 = 3.0;

#[derive(Clone, Copy)]
enum Choice {
    Token(TokenId, TokenSource),
    EndOfLine(Stop),
}

/// A choice that was not taken.
struct Branch {
    path: Path,
    choice: Choice,
    bound: f32,
    /// Of equal bounds the earlier branch is the greater.
    age: usize,
}

impl PartialEq for Branch {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Branch {}

impl Ord for Branch {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bound.total_cmp(&other.bound).then(other.age.cmp(&self.age))
    }
}

impl PartialOrd for Branch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Search<'c, 'a, 'n> {
    cursor: &'c mut Cursor<'a, 'n>,
    rng: Rng,
    queue: BinaryHeap<Branch>,
    n_branches: usize,
    /// Tokens that may still be tried; `None` while the first path is found.
    budget: Option<usize>,
    /// ln p below which a path is given up.
    least: f32,
}

/// The lines that the search finds, in the order in which it finds them. `on_token` is called with each token of the
/// first.
pub(in crate::complete) fn decode(
    cursor: &mut Cursor<'_, '_>,
    on_token: &mut dyn FnMut(TokenId),
) -> Result<Vec<Candidate>, Cancelled> {
    let start = cursor.start.clone();
    let margin = if cursor.suffix.is_empty() { 0.0 } else { MARGIN };
    let mut search = Search {
        rng: Rng::new(cursor.limits.seed),
        queue: BinaryHeap::new(),
        n_branches: 0,
        budget: None,
        least: f32::NEG_INFINITY,
        cursor,
    };
    let Some((path, stop)) = search.follow(start, None, on_token)? else { return Ok(Vec::new()) };
    search.least = path.log_p - margin;
    search.budget = Some(search.cursor.limits.search_budget);
    let mut found = vec![Candidate::searched(path, stop)];
    while let Some(branch) = search.queue.pop().filter(|branch| branch.bound > search.least) {
        let Branch { mut path, choice, bound, .. } = branch;
        path.log_p = bound;
        search.cursor.all.truncate(search.cursor.n_prompt);
        search.cursor.all.extend_from_slice(&path.tokens);
        if let Some((path, stop)) = search.follow(path, Some(choice), &mut |_| ())? {
            search.least = search.least.max(path.log_p - margin);
            found.push(Candidate::searched(path, stop));
        }
        if search.budget == Some(0) {
            break;
        }
    }
    Ok(found)
}

impl Search<'_, '_, '_> {
    /// Extends a path to its end, first by `choice` where there is one. `None` where it falls too far below the best or
    /// the budget is spent.
    fn follow(
        &mut self,
        mut path: Path,
        mut choice: Option<Choice>,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Option<(Path, Stop)>, Cancelled> {
        loop {
            self.cursor.cancel.check()?;
            let chosen = choice.take().or_else(|| self.choose(&mut path));
            if path.log_p < self.least {
                return Ok(None);
            }
            let (token, source) = match chosen {
                None => return Ok(Some((path, Stop::Silence))),
                Some(Choice::EndOfLine(stop)) => return Ok(Some((path, stop))),
                Some(Choice::Token(END, _)) => return Ok(Some((path, Stop::End))),
                Some(Choice::Token(token, source)) => (token, source),
            };
            on_token(token);
            path.tokens.push(token);
            path.sources.push(source);
            self.cursor.all.push(token);
            if let Some(stop) = path.text.push(token, self.cursor.next_token.tokenizer.token_bytes(token)) {
                return Ok(Some((path, stop)));
            }
            if path.tokens.len() >= self.cursor.limits.max_tokens {
                return Ok(Some((path, Stop::Tokens)));
            }
            if let Some(budget) = &mut self.budget {
                let Some(less) = budget.checked_sub(1) else { return Ok(None) };
                *budget = less;
            }
            self.extend(&mut path, token)?;
        }
    }

    /// Lets the model read the token that a path was extended by.
    fn extend(&mut self, path: &mut Path, token: TokenId) -> Result<(), Cancelled> {
        let Cursor { next_token, kv_branches, cancel, .. } = &mut *self.cursor;
        match &mut next_token.session {
            None => {}
            Some(session) if self.budget.is_none() => {
                session.push(token);
                path.pos = path.pos.map(BranchPos::next);
            }
            // Not in the active sequence, which stays for others to branch from.
            Some(session) => {
                let tokens = [token];
                let next = path.pos.map(|pos| (pos, &tokens[..]));
                let (ends, logits) = session.extend(kv_branches, next.as_slice(), cancel)?;
                (path.pos, next_token.branch_logits) = (ends.first().copied(), Some(logits));
            }
        }
        Ok(())
    }

    /// The most probable choice, which lowers the path's probability; the others become branches. `None` where neither
    /// model nor memory can predict.
    fn choose(&mut self, path: &mut Path) -> Option<Choice> {
        let Cursor { next_token, all, file_start, limits, newlines, rest, .. } = &mut *self.cursor;
        if !next_token.next_distribution(&all[*file_start..]) {
            return None;
        }
        let scale = path.text.forbid(next_token.tokenizer, &mut next_token.buffers.probabilities);
        if limits.sampling != Sampling::Greedy || limits.max_lines > 1 {
            let token = limits.sampling.choose(&next_token.buffers.probabilities, &mut self.rng)?;
            let p = next_token.buffers.probabilities[usize::from(token)];
            path.log_p += p.max(f32::MIN_POSITIVE).ln();
            return Some(Choice::Token(token, next_token.attribution(token, p * scale)));
        }
        let mut choices: Vec<(f32, Choice)> = Vec::new();
        if path.text.line_may_end() {
            let p = &mut next_token.buffers.probabilities;
            let end = std::mem::take(&mut p[usize::from(END)]);
            let newlines = newlines.iter().map(|token| p.get_mut(usize::from(*token)).map_or(0.0, std::mem::take));
            let newline: f32 = newlines.sum();
            // These may also belong to the text: their tokens stay.
            let rest = p_of(p, rest);
            let stop = if end + rest > newline { Stop::End } else { Stop::Lines };
            choices.push((end + newline + rest, Choice::EndOfLine(stop)));
        }
        let token = Sampling::Greedy.choose(&next_token.buffers.probabilities, &mut self.rng);
        let p_at = |token: TokenId| next_token.buffers.probabilities[usize::from(token)];
        let choice =
            |token: TokenId| (p_at(token), Choice::Token(token, next_token.attribution(token, p_at(token) * scale)));
        choices.extend(token.map(choice));
        let branches = limits.search_budget > 0;
        if branches {
            let others = next_token.buffers.probabilities.iter().enumerate().filter(|(_, p)| **p >= LEAST_P);
            let others = others.map(|(other, _)| other as TokenId).filter(|other| Some(*other) != token);
            choices.extend(others.map(choice));
        }
        // Stable: of equals the end of the line comes first, and then the lower id.
        choices.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut choices = choices.into_iter();
        let (p, best) = choices.next().filter(|(p, _)| *p > 0.0)?;
        for (p, choice) in choices.filter(|(p, _)| *p >= LEAST_P && branches) {
            let bound = path.log_p + p.ln();
            if bound > self.least {
                let path = Path { by_model: self.by_model(path, choice), ..path.clone() };
                self.queue.push(Branch { path, choice, bound, age: self.n_branches });
                self.n_branches += 1;
            }
        }
        path.log_p += p.ln();
        path.by_model = self.by_model(path, best);
        Some(best)
    }

    /// What the model alone gives a path with one more choice, by the distribution at hand.
    fn by_model(&self, path: &Path, choice: Choice) -> Option<ModelLogP> {
        let by_model = path.by_model?;
        let p = &self.cursor.next_token.buffers.by_model;
        let p = match choice {
            Choice::Token(token, _) => p_of(p, &[token]),
            Choice::EndOfLine(_) => p_of(p, &self.cursor.line_ends),
        };
        Some(by_model.then(p))
    }
}
