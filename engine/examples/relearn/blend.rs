//! Mixing weights of the memory, from held-out code.
//!
//! Each folder is a crate that the checkpoint was not trained on. Its files are read one at a time, with the other
//! files in the memory: at places where one would ask for a completion, and from their start. Every eighth file is held
//! out and measures the weights. Also counts how often the token that most often followed the longest match is not the
//! file's: the doubt that the copy in `eval` must be given.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanochat_engine::memory::{Blend, Lookup, Samples, Schedule};
use nanochat_engine::text::SourceFile;
use nanochat_engine::{Cancel, Checkpoint, Completer, Memory, Prompt, Tokenizer};

use super::holes::{self, Hole, HoleKind};

/// Most lines of one file.
const N_LINES: usize = 22;
/// Most files of one crate.
const N_FILES: usize = 12;
/// Most bytes of the start of one file.
const MAX_BYTES: usize = 3 << 10;

/// Samples of the files that calibrate, or of those that are held out.
#[derive(Default)]
struct Half {
    with_model: Samples,
    memory_only: Samples,
}

/// Tokens to be completed, by whether the token that most often followed the longest match is the right one.
#[derive(Default)]
struct Copied {
    right: usize,
    wrong: usize,
    /// Tokens before which nothing matched.
    without: usize,
}

/// A blend that is calibrated from scratch; prints what it is worth on the held-out files.
pub(crate) fn learn(checkpoint: &Checkpoint, folders: &[PathBuf]) -> Result<Blend, Box<dyn Error>> {
    let mut completer = Completer::new(checkpoint, 1);
    let (mut train, mut held_out, mut copied) = (Half::default(), Half::default(), Copied::default());
    for (n, folder) in folders.iter().enumerate() {
        read(&mut completer, folder, &mut train, &mut held_out, &mut copied)?;
        eprintln!("{} of {} crates, {} tokens", n + 1, folders.len(), train.memory_only.len());
    }
    let mut blend = Blend::rough();
    let [with_model_before, memory_only_before] = blend.bits(&held_out.with_model, &held_out.memory_only);
    blend.calibrate(&train.with_model, &train.memory_only, Schedule::FRESH);
    let [with_model, memory_only] = blend.bits(&held_out.with_model, &held_out.memory_only);
    let model = held_out.with_model.bits_of_base();
    println!(
        "held-out bits/token of {} tokens: model {model:.3}; with the memory {with_model_before:.3} → {with_model:.3}; \
         memory alone {memory_only_before:.3} → {memory_only:.3}",
        held_out.memory_only.len(),
    );
    let Copied { right, wrong, without } = copied;
    println!(
        "the longest match alone: {wrong} of {} tokens wrong, which is {:.3}; {without} without a match",
        right + wrong,
        wrong as f64 / (right + wrong).max(1) as f64,
    );
    Ok(blend)
}

fn read(
    completer: &mut Completer,
    folder: &Path,
    train: &mut Half,
    held_out: &mut Half,
    copied: &mut Copied,
) -> Result<(), Box<dyn Error>> {
    let tokenizer = Arc::clone(completer.tokenizer());
    let krate = holes::Crate::read(folder);
    let memory = krate.memory(&tokenizer);
    completer.set_memory(Arc::clone(&memory));
    for (n, (file, mut holes)) in krate.holes(N_FILES, N_LINES).into_iter().enumerate() {
        // Only holes up to the end of a line: the samples include the line break.
        holes.retain(|(kind, _)| !matches!(kind, HoleKind::Within | HoleKind::Several));
        let half = if n % 8 == 7 { &mut *held_out } else { &mut *train };
        copied.count(&memory, &tokenizer, file, &holes);
        for (_, hole) in holes {
            let (prefix, suffix) = (&file.text[..hole.start], &file.text[hole.end..]);
            let prompt = Prompt { path: &file.name, prefix, suffix, ..Prompt::default() };
            let truth = &file.text[hole.clone()];
            completer.sample_at(&prompt, truth, &mut half.with_model, &mut half.memory_only, &Cancel::new())?;
        }
        let start = &file.text.as_bytes()[..file.text.len().min(MAX_BYTES)];
        completer.sample(&file.name, start, &mut half.with_model, &mut half.memory_only);
    }
    Ok(())
}

impl Copied {
    fn count(&mut self, memory: &Memory, tokenizer: &Tokenizer, file: &SourceFile, holes: &[Hole]) {
        let tokens = tokenizer.encode(file.text.as_bytes());
        let memory = memory.with_overlay(file.name.clone(), tokens.clone());
        let (mut lookup, mut end) = (Lookup::default(), 0);
        for (at, &token) in tokens.iter().enumerate() {
            let start = end;
            end += tokenizer.token_bytes(token).len();
            if !holes.iter().any(|(_, hole)| start < hole.end && hole.start < end) {
                continue;
            }
            memory.lookup_within(&tokens, at, &mut lookup);
            *match lookup.favourite() {
                Some(favourite) if favourite == token => &mut self.right,
                Some(_) => &mut self.wrong,
                None => &mut self.without,
            } += 1;
        }
    }
}
