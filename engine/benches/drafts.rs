//! Tokens per second with and without guesses, on real code with a trained checkpoint:
//! `cargo bench -p nanochat-engine --bench drafts -- NANOCHAT_HOME CHECKPOINT FOLDER`.
//!
//! Completes at every 25th line of each Rust file of the folder, in the middle of the line, with the other files as memory.
//! The contestants take turns at each cursor. One thread, whose time on a core is counted from the first token on.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanochat_engine::draft::{Costs, Drafts, MOST_GUESSED, PromptLookup};
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Completer, Limits, Memory, Prompt};
use rustix::time::{ClockId, clock_gettime};

const LIMITS: Limits =
    Limits { max_tokens: 64, max_lines: 4, sampling: nanochat_engine::Sampling::Greedy, seed: 0, n_tried: 0 };

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [home, checkpoint, folder] = args.as_slice() else {
        println!("give a nanochat home, a checkpoint and a folder of Rust files; nothing was measured");
        return;
    };
    let store = Store::at(home);
    let checkpoint = store.open_checkpoint(Path::new(checkpoint)).expect("a checkpoint of this home");
    let mut paths = Vec::new();
    collect(Path::new(folder), &mut paths);
    paths.sort();
    let files: Vec<(String, String)> = paths
        .into_iter()
        .filter_map(|path| Some((path.display().to_string(), std::fs::read_to_string(path).ok()?)))
        .collect();
    let mut plain = Completer::new(&checkpoint, 1);
    let costs = Costs::measure(plain.model().expect("a checkpoint has a model"));
    println!("{}: {costs:.1?}", checkpoint.manifest.config);
    for acceptance in [1.0, 0.9, 0.8, 0.7, 0.6] {
        let gains: Vec<f64> = (1..=MOST_GUESSED).map(|n| costs.gain(n, acceptance)).collect();
        println!("  {acceptance} right: 1 to {MOST_GUESSED} guesses gain {gains:.2?}");
    }
    for least in [Some(4), Some(8), None] {
        let mut guessing = Completer::new(&checkpoint, 1);
        let drafts = match least {
            Some(least) => Drafts::new(Box::new(PromptLookup { least }), costs.clone()),
            None => Drafts::of_memory(costs.clone()),
        };
        guessing.set_drafts(Some(drafts));
        let (mut seconds, mut n_tokens, mut n_answers) = ([0.0; 2], 0, 0);
        for (path, text) in &files {
            let others = files.iter().filter(|(other, _)| other != path);
            let streams = others.map(|(name, text)| (name.clone(), checkpoint.tokenizer.encode(text.as_bytes())));
            let memory = Arc::new(Memory::build(streams.collect()));
            let mut start = 0;
            for (line_idx, line) in text.split_inclusive('\n').enumerate() {
                let at = start + line.len() / 3;
                start += line.len();
                if line_idx % 25 != 12 || line.trim().len() < 8 || !text.is_char_boundary(at) {
                    continue;
                }
                let prompt = Prompt { path, prefix: &text[..at], suffix: &text[start - 1..], ..Prompt::default() };
                let mut answers = Vec::new();
                for (completer, seconds) in [&mut plain, &mut guessing].into_iter().zip(&mut seconds) {
                    completer.set_memory(Arc::clone(&memory));
                    let (mut tokens, mut first) = (0, 0.0);
                    let each = &mut |_| {
                        tokens += 1;
                        if tokens == 1 {
                            first = on_core();
                        }
                    };
                    let answer = completer.complete_streaming(&prompt, &LIMITS, &Cancel::new(), each);
                    *seconds += on_core() - first;
                    let answer =
                        answer.expect("not cancelled").map(|answer| (answer.text, answer.confidence.to_bits()));
                    answers.push((answer, tokens));
                }
                assert!(answers[0] == answers[1], "guesses change nothing");
                n_tokens += answers[0].1 - 1;
                n_answers += 1;
            }
        }
        let rate = seconds.map(|seconds| n_tokens as f64 / seconds);
        println!(
            "{}: {n_answers} completions, {n_tokens} tokens; {:.0} tokens/s without guesses, {:.0} with; {:?}",
            least.map_or("the memory".to_owned(), |least| format!("matches of {least} in the prompt")),
            rate[0],
            rate[1],
            guessing.drafts()
        );
    }
}

fn on_core() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}
