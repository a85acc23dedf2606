//! What the default gates of the blend were calibrated on: `calibrate STORE CHECKPOINT OUT FOLDER…`
//!
//! OUT is the gates' weights as in `engine/src/memory/blend/default.f32`, or, named `….ncz`, the checkpoint with them,
//! signed by the store's key.
//!
//! Each folder is a crate that the checkpoint was not trained on. Its files are read one at a time, each with the others
//! in the memory: at places where one would ask for a completion, and from their beginning. Every eighth file is held out
//! and says what the gates are worth. Counts besides how often the token that most often followed the longest match is
//! another one than the file's: what the copy that `eval` compares with must be taken to doubt.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanochat_engine::memory::{Blend, Lookup, Samples, Schedule};
use nanochat_engine::workspace::sources::SourceFile;
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Checkpoint, Completer, Memory, Prompt, Tokenizer};

mod holes;

use holes::{Hole, Kind};

/// Lines of one file, at most.
const N_LINES: usize = 22;
const N_FILES: usize = 12;
/// Bytes of one file's begin, at most.
const MAX_BYTES: usize = 3 << 10;

/// Of one half of the files: beside a model, and alone.
#[derive(Default)]
struct Half {
    beside: Samples,
    alone: Samples,
}

/// Tokens to be completed, by whether the token that most often followed the longest match is the right one.
#[derive(Default)]
struct Copied {
    right: usize,
    wrong: usize,
    /// Nothing matched.
    without: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [store, checkpoint, out, folders @ ..] = &arguments[..] else {
        return Err("usage: calibrate STORE CHECKPOINT OUT FOLDER…".into());
    };
    let checkpoint = Store::at(store).open_checkpoint(checkpoint)?;
    let mut completer = Completer::new(&checkpoint, 1);
    let (mut train, mut held_out, mut copied) = (Half::default(), Half::default(), Copied::default());
    for (n, folder) in folders.iter().enumerate() {
        read(&mut completer, folder, &mut train, &mut held_out, &mut copied)?;
        eprintln!("{} of {} crates, {} tokens", n + 1, folders.len(), train.alone.len());
    }
    let mut blend = Blend::rough();
    let [before_beside, before_alone] = blend.bits(&held_out.beside, &held_out.alone);
    blend.calibrate(&train.beside, &train.alone, Schedule::FRESH);
    let [beside, alone] = blend.bits(&held_out.beside, &held_out.alone);
    let model = held_out.beside.bits_of_base();
    eprintln!(
        "held-out bits/token of {} tokens: model {model:.3}; with the memory {before_beside:.3} → {beside:.3}; \
         memory alone {before_alone:.3} → {alone:.3}",
        held_out.alone.len(),
    );
    let Copied { right, wrong, without } = copied;
    eprintln!(
        "the longest match alone: {wrong} of {} tokens wrong, which is {:.3}; {without} without a match",
        right + wrong,
        wrong as f64 / (right + wrong).max(1) as f64,
    );
    if out.extension().is_some_and(|extension| extension == "ncz") {
        let store = Store::at(store);
        let (key, _) = store.load_key_or_create()?;
        store.install(&Checkpoint { blend, ..checkpoint }, &key, out)?;
    } else {
        std::fs::write(out, blend.weights().iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(())
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
        // Behind the others the line breaks.
        holes.retain(|(kind, _)| !matches!(kind, Kind::Within | Kind::Several));
        let half = if n % 8 == 7 { &mut *held_out } else { &mut *train };
        copied.count(&memory, &tokenizer, file, &holes);
        for (_, hole) in holes {
            let (prefix, suffix) = (&file.text[..hole.start], &file.text[hole.end..]);
            let prompt = Prompt { path: &file.name, prefix, suffix, ..Prompt::default() };
            let truth = &file.text[hole.clone()];
            completer.sample_at(&prompt, truth, &mut half.beside, &mut half.alone, &Cancel::new())?;
        }
        let begin = &file.text.as_bytes()[..file.text.len().min(MAX_BYTES)];
        completer.sample(&file.name, begin, &mut half.beside, &mut half.alone);
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
