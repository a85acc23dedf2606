//! The product, and the product with one of its voices silent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use nanochat_engine::complete::Voices;
use nanochat_engine::score::Score;
use nanochat_engine::{Cancel, Completer, Limits, Prompt};

use super::{Contestant, FillError, Scene, Task, limits};
use crate::known::memory_of;
use crate::record::Answer;

/// The product's name in reports.
pub const PRODUCT: &str = "nanochat";

/// A checkpoint and a memory of what each project's scene says may be known.
#[derive(Debug)]
pub struct Model<'a> {
    name: String,
    voices: Voices,
    shared: Rc<RefCell<Shared<'a>>>,
    /// By file of the project, the bits of each token and where it ends.
    costs: HashMap<String, Vec<(usize, f64)>>,
}

/// What a model and its ablations have in common, so that it is built once.
#[derive(Debug)]
struct Shared<'a> {
    completer: &'a mut Completer,
    /// Which project the memory is of.
    project: Option<String>,
}

impl<'a> Model<'a> {
    /// With both voices, under the product's name. The completer's memory is replaced.
    pub fn new(completer: &'a mut Completer) -> Self {
        Self::named(PRODUCT, completer)
    }

    /// Under another name, as a base checkpoint has.
    pub fn named(name: &str, completer: &'a mut Completer) -> Self {
        let shared = Rc::new(RefCell::new(Shared { completer, project: None }));
        Self { name: name.to_owned(), voices: Voices::Both, shared, costs: HashMap::new() }
    }

    /// The same checkpoint and memory with one of the two silent.
    pub fn ablation(&self, voices: Voices) -> Self {
        let suffix = match voices {
            Voices::Both => "",
            Voices::ModelOnly => "-without-memory",
            Voices::MemoryOnly => "-without-model",
        };
        let name = format!("{}{suffix}", self.name);
        Self { name, voices, shared: Rc::clone(&self.shared), costs: HashMap::new() }
    }
}

impl Contestant for Model<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn enter(&mut self, scene: &Scene<'_>, cancel: &Cancel) -> Result<(), FillError> {
        cancel.check()?;
        self.costs.clear();
        let mut shared = self.shared.borrow_mut();
        if shared.project.as_deref() != Some(scene.project) {
            let memory = memory_of(shared.completer.tokenizer(), scene.known);
            shared.completer.set_memory(Arc::new(memory));
            shared.project = Some(scene.project.to_owned());
        }
        Ok(())
    }

    fn fill(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Answer, FillError> {
        let prompt = Prompt { path: task.file, snippets: &[], prefix: task.prefix, suffix: task.suffix };
        let super::AnswerLimits { max_tokens, max_lines } = limits(task.kind);
        let limits = Limits { max_tokens, max_lines, ..Limits::default() };
        let completer = &mut self.shared.borrow_mut().completer;
        completer.set_voices(self.voices);
        let completion = completer.complete(&prompt, &limits, cancel)?;
        Ok(completion.map_or_else(Answer::default, |completion| Answer {
            tokens: Some(completion.n_generated),
            confidence: Some(f64::from(completion.confidence)),
            ..Answer::from(Some(completion.text))
        }))
    }

    /// The file is read once from its beginning, and each of its holes is charged its part.
    fn cost(&mut self, task: &Task<'_>, truth: &str, cancel: &Cancel) -> Result<Option<Score>, FillError> {
        cancel.check()?;
        if !self.costs.contains_key(task.file) {
            let text = [task.prefix, truth, task.suffix].concat();
            let completer = &mut self.shared.borrow_mut().completer;
            completer.set_voices(self.voices);
            let tokenizer = Arc::clone(completer.tokenizer());
            let (mut end, mut costs) = (0, Vec::new());
            completer.observe(task.file, text.as_bytes(), &mut |observation| {
                end += tokenizer.token_bytes(observation.token).len();
                costs.push((end, -f64::from(observation.p.max(f32::MIN_POSITIVE)).log2()));
            });
            self.costs.insert(task.file.to_owned(), costs);
        }
        let start = task.prefix.len();
        Ok(Some(super::part(&self.costs[task.file], start..start + truth.len())))
    }
}
