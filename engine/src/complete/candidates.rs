//! Candidates: the lines that could be the answer at one cursor, and where they come from.
//!
//! ```text
//! search    the most probable lines by the next-token distribution
//! infill    lines that occur elsewhere between the same text before and after the cursor
//! renamed   lines that are in the file under other names
//! ```

pub(super) mod search;
pub(super) mod infill;
pub(super) mod renamed;

use super::generated::GeneratedText;
use super::next_token::{ModelLogP, NextToken};
use super::{Completion, Limits, Stop, TokenSource};
use crate::kv::{BranchPos, Branches};
use crate::prompt::{Prompt, PromptTokens};
use crate::symbols::MemberCounts;
use crate::text::tokenizer::{END, MAX_TOKEN_BYTES, PREFIX, TokenId};
use crate::{Cancel, Sampling};

pub(super) use infill::InfillMatch;
pub(super) use renamed::CloneMatch;

/// Bytes of the suffix that are compared with other places.
const SUFFIX_BYTES: usize = 256;

/// Generated text, and what led to it.
#[derive(Clone)]
pub(super) struct Path {
    pub(super) tokens: Vec<TokenId>,
    /// One per token.
    pub(super) sources: Vec<TokenSource>,
    /// Σ ln p of all choices.
    pub(super) log_p: f32,
    /// The same by the model alone; `None` where it was not asked.
    pub(super) by_model: Option<ModelLogP>,
    /// Where the session has it; `None` without one.
    pub(super) pos: Option<BranchPos>,
    pub(super) text: GeneratedText,
}

/// A line that could be the answer.
pub(super) struct Candidate {
    pub(super) path: Path,
    pub(super) stop: Stop,
    /// Whether the search has found it.
    pub(super) is_searched: bool,
    /// Where it occurs elsewhere between the same texts.
    pub(super) infill: Option<InfillMatch>,
    /// Where it is under other names.
    pub(super) renamed: Option<CloneMatch>,
    /// Members that it names.
    pub(super) members: MemberCounts,
    /// What the reranker knows of it, where there is one.
    pub(super) features: Option<Vec<f32>>,
    /// The probability that it is the one that was meant.
    pub(super) p: f32,
}

impl Candidate {
    /// One that the search has found; its probability is that of its choices until it is reranked.
    pub(super) fn searched(path: Path, stop: Stop) -> Self {
        Self { p: path.log_p.exp().clamp(0.0, 1.0), is_searched: true, ..Self::new(path, stop) }
    }

    fn new(path: Path, stop: Stop) -> Self {
        Self {
            path,
            stop,
            is_searched: false,
            infill: None,
            renamed: None,
            members: MemberCounts::default(),
            features: None,
            p: 0.0,
        }
    }

    /// Whether nothing but a bracket that is not the text's own came next in the search.
    pub(super) fn closes_at_once(&self) -> bool {
        self.is_searched && self.stop == Stop::Bracket && self.path.text.new_text().trim().is_empty()
    }

    /// As it is shown; `None` if nothing of it is new.
    pub(super) fn into_completion(self, suffix: &str) -> Option<Completion> {
        let Self { path, stop, p, .. } = self;
        let Path { tokens, mut sources, text, .. } = path;
        // A source for each token that reaches into what is shown.
        let n_healed = text.healed.len();
        let token_ends = text.token_ends.clone();
        let text = text.trimmed(suffix)?;
        let n_before = token_ends.iter().take_while(|end| **end < n_healed + text.len()).count();
        sources.truncate(n_before + 1);
        Some(Completion { text, stop, confidence: p, sources, n_reused: 0, n_prompt: 0, n_generated: tokens.len() })
    }
}

/// One cursor: what all steps from decoding to reranking read and work with.
pub(super) struct Cursor<'a, 'n> {
    pub(super) next_token: NextToken<'n>,
    pub(super) prompt: &'a Prompt<'a>,
    pub(super) limits: &'a Limits,
    pub(super) cancel: &'a Cancel,
    /// Whether candidates of all kinds are found and reranked.
    pub(super) reranks: bool,
    /// The tokens of the prompt, followed by those of the candidate at hand.
    pub(super) all: Vec<TokenId>,
    /// Of these, the prompt's.
    pub(super) n_prompt: usize,
    /// Where the text of the live file starts in `all`.
    pub(super) file_start: usize,
    pub(super) newlines: Vec<TokenId>,
    /// What could come next if the rest of the cursor's line followed; empty where there is none or nothing is
    /// reranked.
    pub(super) rest: Vec<TokenId>,
    /// All that could come next if the line ended.
    pub(super) line_ends: Vec<TokenId>,
    /// The start of the suffix, and its bytes; empty where nothing is reranked.
    pub(super) suffix: Vec<TokenId>,
    pub(super) suffix_bytes: Vec<u8>,
    /// The model's logits after the prompt; `None` without one.
    pub(super) at_cursor: Option<(BranchPos, Vec<f32>)>,
    pub(super) kv_branches: Branches,
    /// The path that has no tokens yet.
    pub(super) start: Path,
}

impl<'a, 'n> Cursor<'a, 'n> {
    /// The session, if there is one, holds the prompt.
    pub(super) fn new(
        next_token: NextToken<'n>,
        prompt: &'a Prompt<'a>,
        prompt_tokens: PromptTokens,
        limits: &'a Limits,
        cancel: &'a Cancel,
    ) -> Self {
        let PromptTokens { tokens: all, healed } = prompt_tokens;
        let is_searched = limits.search_budget > 0 && limits.max_lines == 1 && limits.sampling == Sampling::Greedy;
        let reranks = is_searched && next_token.memory.is_some();
        let tokenizer = next_token.tokenizer;
        let newlines = tokenizer.tokens_compatible_with(b"\n");
        let rest = Some(rest_of_line(prompt.suffix)).filter(|rest| reranks && !rest.is_empty());
        let rest = rest.map_or_else(Vec::new, |rest| tokenizer.tokens_compatible_with(rest.as_bytes()));
        let (suffix, suffix_bytes) = if reranks { start_of(prompt.suffix, &next_token) } else { Default::default() };
        let at_cursor = next_token.session.as_ref().map(|session| (session.pos(), session.logits().to_vec()));
        let start = Path {
            tokens: Vec::new(),
            sources: Vec::new(),
            log_p: 0.0,
            by_model: (reranks && at_cursor.is_some()).then(ModelLogP::default),
            pos: at_cursor.as_ref().map(|(pos, _)| *pos),
            text: GeneratedText::new(prompt, limits.max_lines, healed),
        };
        Self {
            next_token,
            prompt,
            limits,
            cancel,
            reranks,
            n_prompt: all.len(),
            file_start: all.iter().rposition(|token| *token == PREFIX).map_or(0, |at| at + 1),
            all,
            line_ends: [&[END], &newlines[..], &rest].concat(),
            newlines,
            rest,
            suffix,
            suffix_bytes,
            at_cursor,
            kv_branches: Branches::default(),
            start,
        }
    }

    /// Whether text follows the cursor on its line.
    pub(super) fn is_within_line(&self) -> bool {
        !rest_of_line(self.prompt.suffix).is_empty()
    }

    /// A candidate that was not searched for, with the healed bytes first.
    fn candidate(&self, bytes: &[u8]) -> Candidate {
        let mut path = Path { by_model: None, ..self.start.clone() };
        let mut stop = Stop::Lines;
        for token in self.next_token.tokenizer.encode(bytes) {
            path.tokens.push(token);
            path.sources.push(TokenSource::Memory);
            if let Some(early) = path.text.push(token, self.next_token.tokenizer.token_bytes(token)) {
                stop = early;
                break;
            }
        }
        Candidate::new(path, stop)
    }
}

/// What follows the cursor on its line, as far as one token could reach.
fn rest_of_line(suffix: &str) -> &str {
    let rest = suffix.split('\n').next().unwrap_or_default().trim_end();
    &rest[..rest.floor_char_boundary(MAX_TOKEN_BYTES)]
}

/// The first tokens of what follows the cursor, and their bytes. The last token of a part could be longer in the whole.
fn start_of(suffix: &str, next_token: &NextToken<'_>) -> (Vec<TokenId>, Vec<u8>) {
    let part = &suffix[..suffix.floor_char_boundary(SUFFIX_BYTES)];
    let mut tokens = next_token.tokenizer.encode(part.as_bytes());
    if part.len() < suffix.len() {
        tokens.pop();
    }
    let bytes = next_token.tokenizer.decode(&tokens);
    (tokens, bytes)
}
