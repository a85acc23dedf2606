//! The most probable line, or token after token where more than a line is asked for and none are weighed.
//!
//! ```text
//! first ← the most probable choice at each place, to the end of the line     others → branches, by their bound
//! while a branch's bound is above the best line's probability, and tokens may be tried:
//!     follow it in the same way; give it up where it falls below the best
//! ```
//!
//! The bound of a branch is the probability of its tokens so far, which only falls: what is found within the tokens that
//! may be tried is the most probable of all lines that begin as a branch did. The end of a line counts as one choice,
//! whatever indentation follows it.
//!
//! The memory reads from left to right and cannot know what stands behind the cursor. So lines that are nearly as
//! probable as the best, lines that stand elsewhere between the same texts, and lines that stand in the file under other
//! names ([`super::analogy`]) are weighed by all that is known of them ([`super::rank`]). A line that breaks the brackets or
//! literals around it is not taken.
//!
//! Where text follows the cursor on its line, a text may end at any place where that could follow.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use super::analogy::{self, Alike, Analogy};
use super::fit::Surroundings;
use super::next_token::{ModelLogP, NextToken, p_of};
use super::rank::{self, Bridged, Evidence, N_FEATURES};
use super::text::Text;
use super::{Completion, Limits, Stop, TokenSource};
use crate::kv::{BranchPos, Branches};
use crate::memory::{InfillQuery, Tier};
use crate::prompt::{Prompt, PromptTokens};
use crate::rng::Rng;
use crate::symbols::{self, MemberCounts};
use crate::text::tokenizer::{END, MAX_TOKEN_BYTES, PREFIX, TokenId};
use crate::{Cancel, Cancelled, Sampling};

/// A choice that is less probable than this is not followed.
const LEAST_P: f32 = 0.02;
/// How much less probable (ln p) than the best a line may be for what follows the cursor to speak for it.
const WITHIN: f32 = 3.0;
/// Tokens of the suffix whose probability behind a line is asked for.
const N_BEHIND: usize = 4;
/// Bytes of the suffix that are compared with other places.
const BYTES_BEHIND: usize = 256;
/// Lines that stand elsewhere and were not found by the search, at most.
const MOST_BRIDGES: usize = 6;
/// For so many tokens that may be tried, the model is asked for one line that the search has not found.
const TRIED_FOR_ASKED: usize = 5;
/// Lines that the model is asked for in one pass.
const ASKED_TOGETHER: usize = 4;

/// Text so far.
#[derive(Clone)]
struct Path {
    tokens: Vec<TokenId>,
    sources: Vec<TokenSource>,
    /// Σ ln p of all choices.
    log_p: f32,
    /// Of the same by the model alone; `None` where it was not asked.
    by_model: Option<ModelLogP>,
    /// Where the session has it; `None` without one.
    place: Option<BranchPos>,
    text: Text,
}

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

struct Search<'a, 'v> {
    next_token: NextToken<'v>,
    limits: &'a Limits,
    cancel: &'a Cancel,
    rng: Rng,
    /// The prompt, and then what a path adds.
    all: Vec<TokenId>,
    n_prompt: usize,
    /// Where the text of the file at hand begins in `all`.
    file_start: usize,
    newlines: Vec<TokenId>,
    /// What could come next if the rest of the cursor's line followed, where there is one and lines are weighed.
    rest: Vec<TokenId>,
    /// All that could come next if the text ended.
    ends: Vec<TokenId>,
    branches: BinaryHeap<Branch>,
    n_branches: usize,
    kv_branches: Branches,
    /// The model's logits behind the prompt.
    at_cursor: Option<(BranchPos, Vec<f32>)>,
    /// Tokens that may still be tried; `None` while the first path is found.
    n_left: Option<usize>,
    best: f32,
    /// What follows the cursor, as far as it speaks for a line; empty where nothing does.
    behind: Vec<TokenId>,
    behind_bytes: Vec<u8>,
}

/// A line that was weighed against others.
pub(super) struct Line {
    path: Path,
    stop: Stop,
    is_searched: bool,
    bridge: Option<Bridged>,
    analogy: Option<Alike>,
    /// What is known of it, where lines were weighed.
    pub(super) features: Option<[f32; N_FEATURES]>,
    /// Of the members that it names.
    members: MemberCounts,
    /// The probability that it is the one that was meant.
    pub(super) p: f32,
}

impl Line {
    /// Whether the search came to the end of the text at once.
    pub(super) fn closes(&self) -> bool {
        self.is_searched && self.stop == Stop::Bracket && self.path.text.new_text().trim().is_empty()
    }
}

/// All lines that are possible here, those that were found first first. The session, if there is one, holds the prompt. Where
/// the text `goes_on`, more lines may stand between this one and the suffix; then also ln of how much more probable the model
/// holds the text's end here than a line break.
pub(super) fn search(
    next_token: NextToken<'_>,
    prompt: &Prompt<'_>,
    prompt_tokens: PromptTokens,
    limits: &Limits,
    goes_on: bool,
    cancel: &Cancel,
    on_token: &mut dyn FnMut(TokenId),
) -> Result<(Vec<Line>, Option<f32>), Cancelled> {
    let PromptTokens { tokens: all, healed } = prompt_tokens;
    let weighs = limits.search_budget > 0 && limits.max_lines == 1 && limits.sampling == Sampling::Greedy;
    let weighs = weighs && next_token.memory.is_some();
    let (behind, behind_bytes) = if weighs { behind(&next_token, prompt.suffix) } else { Default::default() };
    let within = if behind.is_empty() { 0.0 } else { WITHIN };
    let rest = if weighs { rest_of_line(prompt.suffix) } else { "" };
    let newlines = next_token.tokenizer.tokens_compatible_with(b"\n");
    let rest_tokens =
        if rest.is_empty() { Vec::new() } else { next_token.tokenizer.tokens_compatible_with(rest.as_bytes()) };
    let at_cursor = next_token.session.as_ref().map(|session| (session.place(), session.logits().to_vec()));
    let mut search = Search {
        ends: [&[END], &newlines[..], &rest_tokens].concat(),
        newlines,
        rest: rest_tokens,
        next_token,
        limits,
        cancel,
        rng: Rng::new(limits.seed),
        n_prompt: all.len(),
        file_start: all.iter().rposition(|token| *token == PREFIX).map_or(0, |at| at + 1),
        all,
        branches: BinaryHeap::new(),
        n_branches: 0,
        kv_branches: Branches::default(),
        at_cursor,
        n_left: None,
        best: f32::NEG_INFINITY,
        behind,
        behind_bytes,
    };
    let text = Text::new(prompt, limits.max_lines, healed);
    let has_model = search.next_token.session.is_some();
    let begin = Path {
        tokens: Vec::new(),
        sources: Vec::new(),
        log_p: 0.0,
        by_model: (weighs && has_model).then(ModelLogP::default),
        place: search.at_cursor.as_ref().map(|(place, _)| *place),
        text,
    };
    let odds_of_end = if goes_on { search.next_token.odds(&[END], &search.newlines) } else { None };
    let first = search.follow(begin.clone(), None, on_token)?;
    let Some((path, stop)) = first else { return Ok((Vec::new(), odds_of_end)) };
    search.best = path.log_p - within;
    search.n_left = Some(limits.search_budget);
    let mut found = vec![(path, stop)];
    while let Some(branch) = search.branches.pop().filter(|branch| branch.bound > search.best) {
        let Branch { mut path, choice, bound, .. } = branch;
        path.log_p = bound;
        search.all.truncate(search.n_prompt);
        search.all.extend_from_slice(&path.tokens);
        if let Some((path, stop)) = search.follow(path, Some(choice), &mut |_| ())? {
            search.best = search.best.max(path.log_p - within);
            found.push((path, stop));
        }
        if search.n_left == Some(0) {
            break;
        }
    }
    let line = |(path, stop): (Path, Stop)| Line {
        p: path.log_p.exp().clamp(0.0, 1.0),
        path,
        stop,
        is_searched: true,
        bridge: None,
        analogy: None,
        members: MemberCounts::default(),
        features: None,
    };
    let mut lines: Vec<Line> = found.into_iter().map(line).collect();
    if weighs {
        search.bridge(&begin, &mut lines);
        search.add_analogies(&begin, analogy::find(prompt), &mut lines);
    }
    let behind = begin.text.behind(prompt.suffix);
    lines.retain(|line| line.path.text.fits(&behind));
    if weighs {
        search.look_up_members(&mut lines, prompt);
        let place = match rest {
            _ if goes_on => rank::Place::Several,
            "" => rank::Place::Ends,
            _ => rank::Place::Within,
        };
        search.ask_model(&mut lines)?;
        search.weigh(&mut lines, &Surroundings::of(prompt), place, has_model);
    }
    Ok((lines, odds_of_end))
}

/// The most probable line that may be shown, as it is shown, or `None` where silence is the better answer. Of equals the
/// one found first.
pub(super) fn best(mut lines: Vec<Line>, suffix: &str, may_be_shown: impl Fn(&str) -> bool) -> Option<Completion> {
    // Stable.
    lines.sort_by(|a, b| b.p.total_cmp(&a.p));
    for line in lines {
        let found = finish(line, suffix)?;
        if may_be_shown(&found.text) {
            return Some(found);
        }
    }
    None
}

/// The first tokens of what follows the cursor, and their bytes. The last one of a part could be longer in the whole.
fn behind(next_token: &NextToken<'_>, suffix: &str) -> (Vec<TokenId>, Vec<u8>) {
    let part = &suffix[..suffix.floor_char_boundary(BYTES_BEHIND)];
    let mut tokens = next_token.tokenizer.encode(part.as_bytes());
    if part.len() < suffix.len() {
        tokens.pop();
    }
    let bytes = next_token.tokenizer.decode(&tokens);
    (tokens, bytes)
}

/// What stands behind the cursor on its line, as far as one token could reach.
fn rest_of_line(suffix: &str) -> &str {
    let rest = suffix.split('\n').next().unwrap_or_default().trim_end();
    &rest[..rest.floor_char_boundary(MAX_TOKEN_BYTES)]
}

/// What is new of a line.
pub(super) fn finish(line: Line, suffix: &str) -> Option<Completion> {
    let Line { path, stop, p, .. } = line;
    let Path { tokens, mut sources, text, .. } = path;
    // A source for each token that reaches into what is shown.
    let n_healed = text.healed.len();
    let ends = text.ends.clone();
    let text = text.finish(suffix)?;
    let n_before = ends.iter().take_while(|end| **end < n_healed + text.len()).count();
    sources.truncate(n_before + 1);
    Some(Completion { text, stop, confidence: p, sources, n_reused: 0, n_prompt: 0, n_generated: tokens.len() })
}

impl Search<'_, '_> {
    /// Adds lines that stand elsewhere between the same texts, and says of those that were found where they stand.
    fn bridge(&mut self, begin: &Path, lines: &mut Vec<Line>) {
        let Some(memory) = &self.next_token.memory else { return };
        let tokenizer = self.next_token.tokenizer;
        let mut bridges = Vec::new();
        let query = InfillQuery {
            before: &self.all[self.file_start..self.n_prompt],
            healed: &begin.text.healed,
            after: &self.behind,
            after_bytes: &self.behind_bytes,
            tokenizer,
        };
        memory.infill(&query, &mut bridges);
        let mut by_text: BTreeMap<Vec<u8>, Bridged> = BTreeMap::new();
        for bridge in bridges {
            let mut text = tokenizer.decode(&bridge.tokens);
            text.truncate(text.len() - bridge.n_cut);
            let text = text.trim_ascii_end();
            if !text.starts_with(&begin.text.healed) || text.len() == begin.text.healed.len() {
                continue;
            }
            let this = Bridged {
                n_before: bridge.n_before,
                n_behind: bridge.n_after,
                is_near: bridge.tier == Tier::File,
                n_places: 1,
            };
            match by_text.get_mut(text) {
                None => {
                    by_text.insert(text.to_vec(), this);
                }
                Some(best) => {
                    let n_places = best.n_places + 1;
                    if this.agreement() > best.agreement() {
                        *best = this;
                    }
                    best.n_places = n_places;
                }
            }
        }
        for line in lines.iter_mut() {
            line.bridge = by_text.remove(line.path.text.bytes.trim_ascii_end());
        }
        let mut others: Vec<(Vec<u8>, Bridged)> = by_text.into_iter().collect();
        // Stable: of equals in the order of their texts.
        others.sort_by_key(|(_, bridged)| Reverse(bridged.agreement()));
        for (text, bridged) in others.into_iter().take(MOST_BRIDGES) {
            lines.push(Line { bridge: Some(bridged), ..self.line(begin, &text) });
        }
    }

    /// Adds lines that stand in the file under other names, and says of those that were found that they do.
    fn add_analogies(&self, begin: &Path, analogies: Vec<Analogy>, lines: &mut Vec<Line>) {
        for Analogy { text, alike } in analogies {
            let bytes = [&begin.text.healed, text.as_bytes()].concat();
            let is_same = |line: &&mut Line| line.path.text.bytes.trim_ascii_end() == bytes.trim_ascii_end();
            if let Some(line) = lines.iter_mut().find(is_same) {
                // Of several that come to the same the first agrees with most.
                line.analogy = line.analogy.or(Some(alike));
                continue;
            }
            lines.push(Line { analogy: Some(alike), ..self.line(begin, &bytes) });
        }
    }

    /// A line that was not searched for, from what is healed on.
    fn line(&self, begin: &Path, bytes: &[u8]) -> Line {
        let mut path = Path { by_model: None, ..begin.clone() };
        let mut stop = Stop::Lines;
        for token in self.next_token.tokenizer.encode(bytes) {
            path.tokens.push(token);
            path.sources.push(TokenSource::Memory);
            if let Some(early) = path.text.push(token, self.next_token.tokenizer.token_bytes(token)) {
                stop = early;
                break;
            }
        }
        Line {
            path,
            stop,
            is_searched: false,
            bridge: None,
            analogy: None,
            members: MemberCounts::default(),
            features: None,
            p: 0.0,
        }
    }

    /// Looks up the members that lines name, and takes away those with one that is not there.
    fn look_up_members(&self, lines: &mut Vec<Line>, prompt: &Prompt<'_>) {
        let Some(memory) = &self.next_token.memory else { return };
        let line_start = prompt.prefix.rfind('\n').map_or(0, |at| at + 1);
        let (before, typed) = prompt.prefix.split_at(line_start);
        let (rest, behind) = prompt.suffix.split_once('\n').unwrap_or((prompt.suffix, ""));
        let around = symbols::CursorSymbols::of(memory.symbols(), prompt.path, before, behind);
        lines.retain_mut(|line| {
            let text = line.path.text.new_text();
            line.members = around.members(&[typed, text, rest].concat(), typed.len());
            line.members.n_missing == 0
        });
    }

    /// Asks the model for lines that the search has not found, several in a pass.
    fn ask_model(&mut self, lines: &mut [Line]) -> Result<(), Cancelled> {
        let Some((place, first)) = &self.at_cursor else { return Ok(()) };
        let context = self.next_token.session.as_ref().map_or(0, |session| session.model().config().context);
        let room = context.saturating_sub(self.n_prompt);
        let unasked = lines.iter_mut().filter(|line| line.path.by_model.is_none());
        let unasked = unasked.filter(|line| (1..=room).contains(&line.path.tokens.len()));
        let mut unasked: Vec<&mut Line> = unasked.take(self.limits.search_budget.div_ceil(TRIED_FOR_ASKED)).collect();
        for lines in unasked.chunks_mut(ASKED_TOGETHER) {
            let next: Vec<(BranchPos, &[TokenId])> = lines.iter().map(|line| (*place, &line.path.tokens[..])).collect();
            let Some(session) = &mut self.next_token.session else { break };
            let vocab_size = session.model().config().vocab_size;
            let (_, logits) = session.extend(&mut self.kv_branches, &next, self.cancel)?;
            let mut rows = logits.chunks_exact(vocab_size);
            for line in lines {
                let logits = std::iter::once(&first[..]).chain(rows.by_ref().take(line.path.tokens.len()));
                line.path.by_model = Some(self.next_token.by_model(logits, &line.path.tokens, &self.ends));
            }
        }
        Ok(())
    }

    /// Gives each line its probability.
    fn weigh(&mut self, lines: &mut [Line], around: &Surroundings<'_>, place: rank::Place, has_model: bool) {
        let searched = lines.iter().filter(|line| line.is_searched).map(|line| line.path.log_p);
        let best = searched.fold(f32::NEG_INFINITY, f32::max);
        let bridged = || lines.iter().filter_map(|line| line.bridge);
        let most = (
            bridged().map(|bridge| bridge.n_before).max().unwrap_or(0),
            bridged().map(|bridge| bridge.n_behind).max().unwrap_or(0),
        );
        let n_behind = self.behind.len().min(N_BEHIND);
        let by_model = lines.iter().filter_map(|line| line.path.by_model);
        let most_by_model = by_model.fold(f32::NEG_INFINITY, |most, by_model| most.max(by_model.log_p));
        let mut known = Vec::with_capacity(lines.len());
        for line in &*lines {
            self.all.truncate(self.n_prompt);
            self.all.extend_from_slice(&line.path.tokens);
            let log_p = self.next_token.log_p_of(&mut self.all, self.file_start, &self.behind[..n_behind]);
            let evidence = Evidence {
                searched: line.is_searched.then_some((line.path.log_p, best)),
                behind: (log_p, n_behind),
                by_model: line.path.by_model.map(|by_model| (by_model, most_by_model)),
                bridge: line.bridge,
                most,
                analogy: line.analogy,
                n_tokens: line.path.tokens.len(),
                n_own: line.path.sources.iter().filter(|source| **source == TokenSource::Model).count(),
                members: line.members,
                place,
                fit: around.fit(&line.path.text.bytes, line.path.text.healed.len()),
            };
            known.push(evidence.features());
        }
        let probabilities = rank::probabilities(has_model, &known);
        for ((line, features), p) in lines.iter_mut().zip(known).zip(probabilities) {
            (line.features, line.p) = (Some(features), p);
        }
    }

    /// Extends a path to its end, first by `choice` where there is one. `None` where it falls below the best or there is no more
    /// to try.
    fn follow(
        &mut self,
        mut path: Path,
        mut choice: Option<Choice>,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Option<(Path, Stop)>, Cancelled> {
        loop {
            self.cancel.check()?;
            let chosen = choice.take().or_else(|| self.choose(&mut path));
            if path.log_p < self.best {
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
            self.all.push(token);
            if let Some(stop) = path.text.push(token, self.next_token.tokenizer.token_bytes(token)) {
                return Ok(Some((path, stop)));
            }
            if path.tokens.len() >= self.limits.max_tokens {
                return Ok(Some((path, Stop::Tokens)));
            }
            if let Some(n_left) = &mut self.n_left {
                let Some(less) = n_left.checked_sub(1) else { return Ok(None) };
                *n_left = less;
            }
            match &mut self.next_token.session {
                None => {}
                Some(session) if self.n_left.is_none() => {
                    session.push(token);
                    path.place = path.place.map(BranchPos::next);
                }
                // Not where the first path is, which stays for others to go on from.
                Some(session) => {
                    let tokens = [token];
                    let next = path.place.map(|place| (place, &tokens[..]));
                    let (ends, logits) = session.extend(&mut self.kv_branches, next.as_slice(), self.cancel)?;
                    (path.place, self.next_token.branch_logits) = (ends.first().copied(), Some(logits));
                }
            }
        }
    }

    /// The most probable choice, which lowers the path's probability; the others become branches. `None` where nobody
    /// knows anything.
    fn choose(&mut self, path: &mut Path) -> Option<Choice> {
        if !self.next_token.next_distribution(&self.all[self.file_start..]) {
            return None;
        }
        let scale = path.text.forbid(self.next_token.tokenizer, &mut self.next_token.buffers.probabilities);
        if self.limits.sampling != Sampling::Greedy || self.limits.max_lines > 1 {
            let token = self.limits.sampling.choose(&self.next_token.buffers.probabilities, &mut self.rng)?;
            let p = self.next_token.buffers.probabilities[usize::from(token)];
            path.log_p += p.max(f32::MIN_POSITIVE).ln();
            return Some(Choice::Token(token, self.next_token.attribution(token, p * scale)));
        }
        let mut choices: Vec<(f32, Choice)> = Vec::new();
        if path.text.line_may_end() {
            let p = &mut self.next_token.buffers.probabilities;
            let end = std::mem::take(&mut p[usize::from(END)]);
            let newlines = self.newlines.iter().map(|token| p.get_mut(usize::from(*token)).map_or(0.0, std::mem::take));
            let newline: f32 = newlines.sum();
            // These may also belong to the text: their tokens stay.
            let rest = p_of(p, &self.rest);
            let stop = if end + rest > newline { Stop::End } else { Stop::Lines };
            choices.push((end + newline + rest, Choice::EndOfLine(stop)));
        }
        let token = Sampling::Greedy.choose(&self.next_token.buffers.probabilities, &mut self.rng);
        let p_at = |token: TokenId| self.next_token.buffers.probabilities[usize::from(token)];
        let choice = |token: TokenId| {
            (p_at(token), Choice::Token(token, self.next_token.attribution(token, p_at(token) * scale)))
        };
        choices.extend(token.map(choice));
        if self.limits.search_budget > 0 {
            let others = self.next_token.buffers.probabilities.iter().enumerate().filter(|(_, p)| **p >= LEAST_P);
            let others = others.map(|(other, _)| other as TokenId).filter(|other| Some(*other) != token);
            choices.extend(others.map(choice));
        }
        // Stable: of equals the end of the line comes first, and then the lower id.
        choices.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut choices = choices.into_iter();
        let (p, best) = choices.next().filter(|(p, _)| *p > 0.0)?;
        for (p, choice) in choices.filter(|(p, _)| *p >= LEAST_P && self.limits.search_budget > 0) {
            let bound = path.log_p + p.ln();
            if bound > self.best {
                let path = Path { by_model: self.by_model(path, choice), ..path.clone() };
                self.branches.push(Branch { path, choice, bound, age: self.n_branches });
                self.n_branches += 1;
            }
        }
        path.log_p += p.ln();
        path.by_model = self.by_model(path, best);
        Some(best)
    }

    /// What the model alone makes of a path behind one more choice, which the voices were just asked for.
    fn by_model(&self, path: &Path, choice: Choice) -> Option<ModelLogP> {
        let by_model = path.by_model?;
        let p = match choice {
            Choice::Token(token, _) => p_of(&self.next_token.buffers.by_model, &[token]),
            Choice::EndOfLine(_) => p_of(&self.next_token.buffers.by_model, &self.ends),
        };
        Some(by_model.then(p))
    }
}
