//! A completer made from a checkpoint and a workspace's files, and the sources of its tokens as text.

use std::sync::Arc;

use nanochat_engine::tune::Plans;
use nanochat_engine::workspace::sources::SourceFile;
use nanochat_engine::{Checkpoint, Completer, TokenSource};
use nanochat_eval::memory_of;

/// A completer whose memory is `files`.
pub(crate) fn completer(checkpoint: &Checkpoint, files: &[SourceFile], n_threads: usize, plans: &Plans) -> Completer {
    let mut completer = Completer::with_plans(checkpoint, n_threads, plans);
    completer.set_memory(Arc::new(memory_of(completer.tokenizer(), files)));
    completer
}

/// The sources of a completion's tokens, in order: `model 2, memory 5, model 1`.
pub(crate) fn origin(sources: &[TokenSource]) -> String {
    let runs = sources.chunk_by(|a, b| a == b);
    let name = |source| match source {
        TokenSource::Model => "model",
        TokenSource::Memory => "memory",
    };
    runs.map(|run| format!("{} {}", name(run[0]), run.len())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed_in_order() {
        use TokenSource::{Memory, Model};
        assert_eq!(origin(&[Model, Model, Memory, Model]), "model 2, memory 1, model 1");
        assert_eq!(origin(&[]), "");
    }
}
