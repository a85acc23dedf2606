//! Who answers prompts: model, tokenizer, memory and what is kept from one prompt to the next.

use std::sync::Arc;

use nanochat_kernels::autotune::Plans;

use super::candidates::Cursor;
use super::filter::writes_secret;
use super::next_token::{Buffers, NextToken};
use super::pipeline::{self, Ranked};
use super::{CompleteError, Completion, FULL_BUDGET_PARAMS, Limits, Predictors, multiline};
use crate::memory::{Blend, LiveBuffer, Memory};
use crate::prompt::{self, DECLARED, Prompt, Snippet};
use crate::symbols::{declarations, settled};
use crate::text::tokenizer::TokenId;
use crate::{Cancel, Checkpoint, Model, Sampling, Session, Tokenizer};

/// Answers prompts, one at a time. Keeps a session, so the next prompt costs what changed.
///
/// ```
/// use std::sync::Arc;
///
/// use nanochat_engine::{Cancel, Completer, Limits, Memory, Prompt, Tokenizer};
///
/// // Without a model, from what other files have. Each token is a byte here.
/// let tokenizer = Arc::new(Tokenizer::bytes());
/// let mut completer = Completer::without_model(Arc::clone(&tokenizer));
/// let other = "fn main() {\n    let value = compute_everything(7);\n}\n";
/// completer.set_memory(Arc::new(Memory::build(vec![("main.rs".into(), tokenizer.encode(other.as_bytes()))])));
///
/// let prompt = Prompt { prefix: "fn other() {\n    let value = comp", suffix: "\n}\n", ..Prompt::default() };
/// let completion = completer.complete(&prompt, &Limits::default(), &Cancel::new())?.expect("it has such a line");
/// assert_eq!(completion.text, "ute_everything(7);");
/// assert!((0.0..=1.0).contains(&completion.confidence));
/// # Ok::<(), nanochat_engine::complete::CompleteError>(())
/// ```
#[derive(Debug)]
pub struct Completer {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) session: Option<Session>,
    pub(super) memory: Arc<Memory>,
    pub(super) blend: Blend,
    predictors: Predictors,
    pub(super) buffers: Buffers,
    live: Arc<LiveBuffer>,
    declared: Option<Declared>,
}

/// What was last declared near a cursor, which stays the same while a line is written.
#[derive(Debug)]
struct Declared {
    /// A hash of all that it was read from but the memory.
    read: blake3::Hash,
    text: Arc<str>,
}

impl Completer {
    /// A completer over a checkpoint's model, tokenizer and blend. `n_threads` 0: one per core.
    pub fn new(checkpoint: &Checkpoint, n_threads: usize) -> Self {
        Self::with_plans(checkpoint, n_threads, &Plans::default())
    }

    /// As [`Completer::new`], with what the autotuner picked: see [`crate::tune::plans`].
    pub fn with_plans(checkpoint: &Checkpoint, n_threads: usize, plans: &Plans) -> Self {
        let model = Model::with_plans(&checkpoint.weights.view(), n_threads, plans);
        Self {
            session: Some(Session::new(model)),
            blend: checkpoint.blend.clone(),
            predictors: Predictors::Blend,
            ..Self::without_model(Arc::clone(&checkpoint.tokenizer))
        }
    }

    /// A completer that has a memory only.
    pub fn without_model(tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            tokenizer,
            session: None,
            memory: Arc::new(Memory::default()),
            blend: Blend::default(),
            predictors: Predictors::MemoryOnly,
            buffers: Buffers::default(),
            live: Arc::default(),
            declared: None,
        }
    }

    /// The tokenizer that the memory must be built with.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model, if there is one.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.session.as_ref().map(Session::model)
    }

    /// What other files and edits are known from.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Replaces the memory.
    pub fn set_memory(&mut self, memory: Arc<Memory>) {
        if !Arc::ptr_eq(&self.memory, &memory) {
            self.declared = None;
        }
        self.memory = memory;
    }

    /// Replaces the blend.
    pub fn set_blend(&mut self, blend: Blend) {
        self.blend = blend;
    }

    /// Lets model or memory predict alone, for ablations. Without a model the memory always does.
    pub fn set_predictors(&mut self, predictors: Predictors) {
        self.predictors = predictors;
    }

    /// Bytes that the KV caches of all prompts may take together, instead of [`crate::kv::session::MOST_BYTES`].
    pub fn set_cache_bytes(&mut self, most_bytes: usize) {
        if let Some(session) = &mut self.session {
            session.set_most_bytes(most_bytes);
        }
    }

    /// A completion, or `None` where silence is the better answer. No text that would be part of a secret, which the
    /// memory may know from another file: the next candidate is taken.
    ///
    /// The live file of the prompt is remembered as it is there, not as it was saved.
    pub fn complete(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Option<Completion>, CompleteError> {
        self.complete_streaming(prompt, limits, cancel, &mut |_| ())
    }

    /// As [`Completer::complete`]; `on_token` is called with each token of the first text that is found.
    pub fn complete_streaming(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Option<Completion>, CompleteError> {
        self.with_declared(prompt, limits.max_tokens, |this, prompt| {
            if this.is_line_by_line(limits) {
                let has_model = this.predictors() == Predictors::Blend;
                let mut rank = |prompt: &Prompt<'_>, left| this.rank(prompt, limits, left, cancel, on_token);
                return multiline::complete(prompt, limits, has_model, &mut rank);
            }
            let ranked = this.rank(prompt, limits, limits.max_tokens, cancel, on_token)?;
            Ok(ranked.best(prompt.suffix, |text| !writes_secret(prompt, text)))
        })
    }

    /// Whether a text is written line by line, each chosen among candidates.
    fn is_line_by_line(&self, limits: &Limits) -> bool {
        let reranks = limits.search_budget > 0
            && limits.sampling == Sampling::Greedy
            && self.predictors() != Predictors::ModelOnly;
        limits.max_lines > 1 && reranks
    }

    /// The candidates at a cursor. Of the tokens that may be written `left` are left; the prompt leaves room for all of
    /// them, so that it stays the same while lines are added.
    pub(super) fn rank(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        left: usize,
        cancel: &Cancel,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Ranked, CompleteError> {
        let (predictors, is_multiline) = (self.predictors(), self.is_line_by_line(limits));
        if predictors == Predictors::MemoryOnly && self.memory.n_tokens() == 0 && self.session.is_none() {
            return Err(CompleteError::Nothing);
        }
        let (max_tokens, budget) = self.budget(limits.max_tokens);
        if let Some(session) = &self.session {
            session.model().announce();
        }
        let prompt_tokens = prompt.tokens(&self.tokenizer, budget);
        let (mut n_reused, mut n_prompt) = (0, 0);
        if predictors != Predictors::MemoryOnly
            && let Some(session) = &mut self.session
        {
            n_reused = session.rebase(&prompt_tokens.tokens, cancel)?;
            n_prompt = prompt_tokens.tokens.len() - n_reused;
        }
        let memory =
            (predictors != Predictors::ModelOnly).then(|| self.live_memory(prompt, prompt_tokens.healed.len()));
        let session = self.session.as_mut().filter(|_| predictors != Predictors::MemoryOnly);
        let n_params = session.as_ref().map_or(0, |session| session.model().config().n_params());
        let limits = Limits {
            max_tokens: max_tokens.min(left),
            search_budget: search_budget(limits.search_budget, n_params),
            max_lines: if is_multiline { 1 } else { limits.max_lines },
            ..*limits
        };
        let next_token = NextToken {
            tokenizer: &self.tokenizer,
            session,
            branch_logits: None,
            memory,
            blend: &self.blend,
            buffers: &mut self.buffers,
        };
        let cursor = Cursor::new(next_token, prompt, prompt_tokens, &limits, cancel);
        Ok(Ranked { n_reused, n_prompt, ..pipeline::rank(cursor, is_multiline, on_token)? })
    }

    /// Which of model and memory predict; the memory where there is no model.
    pub(super) fn predictors(&self) -> Predictors {
        if self.session.is_none() { Predictors::MemoryOnly } else { self.predictors }
    }

    /// Tokens that may be written where `max_tokens` are wanted, and those that are left for the prompt: at least half
    /// of the context.
    pub(super) fn budget(&self, max_tokens: usize) -> (usize, usize) {
        let context_len = self.session.as_ref().map_or(2048, |session| session.model().config().context);
        let max_tokens = max_tokens.min(context_len / 2);
        (max_tokens, context_len - max_tokens)
    }

    /// Calls `f` with the prompt and, as its last snippet, what is declared near its cursor.
    pub(super) fn with_declared<R>(
        &mut self,
        prompt: &Prompt<'_>,
        max_tokens: usize,
        f: impl FnOnce(&mut Self, &Prompt<'_>) -> R,
    ) -> R {
        let declared = self.declared(prompt, max_tokens);
        let declared = (!declared.is_empty()).then_some(Snippet { path: DECLARED, text: &declared });
        let snippets: Vec<Snippet<'_>> = prompt.snippets.iter().copied().chain(declared).collect();
        f(self, &Prompt { snippets: &snippets, ..*prompt })
    }

    /// What the model is told of the types near the cursor; nothing where it is not asked, or predicts alone.
    pub(super) fn declared(&mut self, prompt: &Prompt<'_>, max_tokens: usize) -> Arc<str> {
        if self.predictors() != Predictors::Blend {
            return Arc::default();
        }
        // With other snippets half of their share.
        let n_tokens = prompt::for_snippets(self.budget(max_tokens).1) / if prompt.snippets.is_empty() { 1 } else { 2 };
        // A token has two or three bytes there.
        let (before, most_bytes) = (settled(prompt.prefix), n_tokens * 5 / 2);
        let mut read = blake3::Hasher::new();
        for text in [prompt.path, before, prompt.suffix] {
            read.update(&text.len().to_le_bytes()).update(text.as_bytes());
        }
        let read = read.update(&most_bytes.to_le_bytes()).finalize();
        if let Some(last) = self.declared.as_ref().filter(|last| last.read == read) {
            return Arc::clone(&last.text);
        }
        let text: Arc<str> = declarations(self.memory.symbols(), prompt.path, before, prompt.suffix, most_bytes).into();
        self.declared = Some(Declared { read, text: Arc::clone(&text) });
        text
    }

    /// The memory with the prompt's file as it is now, without the bytes that are healed.
    pub(super) fn live_memory(&mut self, prompt: &Prompt<'_>, n_healed: usize) -> Memory {
        let prefix = &prompt.prefix.as_bytes()[..prompt.prefix.len() - n_healed];
        // Nobody else holds it between two requests, so it is changed in place.
        let live = Arc::make_mut(&mut self.live);
        live.update(&self.tokenizer, &overlay_path(prompt.path), prefix, prompt.suffix.as_bytes());
        self.memory.with_buffer(Arc::clone(&self.live))
    }
}

/// What is left of a search budget with a model of so many parameters; of one that is not 0, never nothing.
fn search_budget(whole: usize, n_params: usize) -> usize {
    whole.min((whole * FULL_BUDGET_PARAMS).div_ceil(n_params.max(FULL_BUDGET_PARAMS)))
}

/// A file without a name replaces none.
pub(super) fn overlay_path(path: &str) -> String {
    if path.is_empty() { "<unnamed>".to_owned() } else { path.to_owned() }
}
