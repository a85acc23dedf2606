//! The product, and the product with the model alone or the memory alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use nanochat_engine::complete::Predictors;
use nanochat_engine::score::Score;
use nanochat_engine::{Cancel, Completer, Limits, Prompt};

use super::{Completion, FileText, ProjectContext, System, SystemError, Task, limits};

/// The product's name in reports.
pub const PRODUCT: &str = "nanochat";

/// A checkpoint with a memory of what may be known of each project.
#[derive(Debug)]
pub struct Model<'a> {
    name: String,
    predictors: Predictors,
    shared: Rc<RefCell<Shared<'a>>>,
}

/// What a model and its ablations have in common, so that it is built once.
#[derive(Debug)]
struct Shared<'a> {
    completer: &'a mut Completer,
    /// For each file of the current project the probabilities of its tokens, by the model alone and by the blend:
    /// computing them is most of the work.
    observed: HashMap<String, Vec<Observed>>,
}

/// Probabilities of one token of a file.
#[derive(Clone, Copy, Debug)]
struct Observed {
    /// Byte offset of the token's end.
    end: usize,
    p_model: f32,
    p: f32,
}

impl<'a> Model<'a> {
    /// The blend of model and memory, under the product's name. The completer's memory is replaced.
    pub fn new(completer: &'a mut Completer) -> Self {
        Self::named(PRODUCT, completer)
    }

    /// The same under another name, for example for a base checkpoint.
    pub fn named(name: &str, completer: &'a mut Completer) -> Self {
        let shared = Rc::new(RefCell::new(Shared { completer, observed: HashMap::new() }));
        Self { name: name.to_owned(), predictors: Predictors::Blend, shared }
    }

    /// The same checkpoint and memory, with one of the two switched off.
    pub fn ablation(&self, predictors: Predictors) -> Self {
        let suffix = match predictors {
            Predictors::Blend => "",
            Predictors::ModelOnly => "-without-memory",
            Predictors::MemoryOnly => "-without-model",
        };
        let name = format!("{}{suffix}", self.name);
        Self { name, predictors, shared: Rc::clone(&self.shared) }
    }
}

impl System for Model<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn enter(&mut self, scene: &ProjectContext<'_>, cancel: &Cancel) -> Result<(), SystemError> {
        cancel.check()?;
        let mut shared = self.shared.borrow_mut();
        let memory = scene.known.memory(shared.completer.tokenizer());
        // A name does not identify a project: members of two workspaces may share it.
        if !Arc::ptr_eq(shared.completer.memory(), &memory) {
            shared.completer.set_memory(memory);
            shared.observed.clear();
        }
        Ok(())
    }

    fn complete(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError> {
        let prompt = Prompt { path: task.file, snippets: &[], prefix: task.prefix, suffix: task.suffix };
        let super::CompletionLimits { max_tokens, max_lines } = limits(task.kind);
        let limits = Limits { max_tokens, max_lines, ..Limits::default() };
        let completer = &mut self.shared.borrow_mut().completer;
        completer.set_predictors(self.predictors);
        let completion = completer.complete(&prompt, &limits, cancel)?;
        Ok(completion.map_or_else(Completion::default, |completion| Completion {
            tokens: Some(completion.n_generated),
            confidence: Some(f64::from(completion.confidence)),
            ..Completion::from(Some(completion.text))
        }))
    }

    /// The file is read once from its start, and each hole is charged for its tokens.
    fn costs(&mut self, text: &FileText<'_>, cancel: &Cancel) -> Result<Option<Vec<Score>>, SystemError> {
        cancel.check()?;
        let mut shared = self.shared.borrow_mut();
        let bits = |p: f32| -f64::from(p.max(f32::MIN_POSITIVE)).log2();
        let costs: Vec<(usize, f64)> = match self.predictors {
            Predictors::MemoryOnly => {
                shared.observe(text, Predictors::MemoryOnly).into_iter().map(|seen| (seen.end, bits(seen.p))).collect()
            }
            predictors => {
                if !shared.observed.contains_key(text.file) {
                    let observed = shared.observe(text, Predictors::Blend);
                    shared.observed.insert(text.file.to_owned(), observed);
                }
                let p = |seen: &Observed| if predictors == Predictors::ModelOnly { seen.p_model } else { seen.p };
                shared.observed[text.file].iter().map(|seen| (seen.end, bits(p(seen)))).collect()
            }
        };
        Ok(Some(text.scores(&costs)))
    }
}

impl Shared<'_> {
    fn observe(&mut self, text: &FileText<'_>, predictors: Predictors) -> Vec<Observed> {
        self.completer.set_predictors(predictors);
        let tokenizer = Arc::clone(self.completer.tokenizer());
        let (mut end, mut observed) = (0, Vec::new());
        self.completer.observe(text.file, text.to_last_hole().as_bytes(), &mut |observation| {
            end += tokenizer.token_bytes(observation.token).len();
            observed.push(Observed { end, p_model: observation.p_model, p: observation.p });
        });
        observed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nanochat_engine::Tokenizer;
    use nanochat_engine::workspace::sources::SourceFile;

    use super::*;
    use crate::suite::Known;

    #[test]
    fn projects_of_the_same_name_have_memories_of_their_own() {
        let line = "let total = sum(&values);\n";
        let known =
            |text: &str| Known::of(vec![SourceFile { name: "b.rs".into(), path: "b.rs".into(), text: text.into() }]);
        let (with, without) = (known(line), known("fn other() {}\n"));
        let mut completer = Completer::without_model(Arc::new(Tokenizer::bytes()));
        let mut model = Model::new(&mut completer);
        let mut bits = |known: &Known| {
            model.enter(&ProjectContext { texts: &BTreeMap::new(), known }, &Cancel::new()).expect("it can");
            let hole = 4..line.len() - 1;
            let text = FileText { file: "a.rs", text: line, holes: std::slice::from_ref(&hole) };
            model.costs(&text, &Cancel::new()).expect("it can").expect("it has probabilities")[0].bits
        };
        let seen = bits(&with);
        assert!(bits(&without) > seen);
        assert_eq!(bits(&with), seen);
    }
}
