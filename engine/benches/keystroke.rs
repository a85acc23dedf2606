//! From a keystroke to a completion, with the memory: `cargo bench -p nanochat-engine --bench keystroke --
//! NANOCHAT_HOME CHECKPOINT FOLDER [SHAPE] [THREADS]`.
//!
//! Types a character into lines of a file of 2,000 lines, made of the folder's largest ones, and asks for a line each
//! time; all other files are in the memory. The state before the keystroke is warm, as it is while one types. SHAPE is
//! a model of random weights in place of the checkpoint's; the tokenizer and the blend stay. Prints quantiles by the
//! clock.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nanochat_engine::checkpoint::PackedWeights;
use nanochat_engine::complete::Predictors;
use nanochat_engine::model::weights::random;
use nanochat_engine::rng::Rng;
use nanochat_engine::workspace::sources::Role;
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Checkpoint, Completer, Config, Limits, Memory, Prompt, Sources};

const N_LINES: usize = 2000;
const N_KEYSTROKES: usize = 300;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [home, checkpoint, folder, rest @ ..] = args.as_slice() else {
        println!("give a nanochat home, a checkpoint and a folder of Rust files; nothing was measured");
        return;
    };
    let mut checkpoint: Checkpoint =
        Store::at(home).open_checkpoint(Path::new(checkpoint)).expect("a checkpoint of this home");
    if let Some(shape) = rest.first() {
        let config: Config = shape.parse().expect("a shape");
        checkpoint.weights = PackedWeights::pack(&random(&config, 1)).expect("they fit").into();
    }
    let n_threads = rest.get(1).map_or(2, |n| n.parse().expect("a number of threads"));
    let (mut files, _) = Sources::folder(Path::new(folder)).collect(&[Role::Member]);
    files.sort_by_key(|file| std::cmp::Reverse(file.text.len()));
    let mut live = String::new();
    while live.lines().count() < N_LINES && !files.is_empty() {
        live.push_str(&files.remove(0).text);
    }
    let ends: Vec<usize> = live.match_indices('\n').map(|(at, _)| at).take(N_LINES).collect();
    live.truncate(ends.last().map_or(0, |end| end + 1));
    let streams = files.iter().map(|file| (file.name.clone(), checkpoint.tokenizer.encode(file.text.as_bytes())));
    let memory = Arc::new(Memory::build(streams.collect()));
    let mut completer = Completer::new(&checkpoint, n_threads);
    let config = completer.model().expect("a checkpoint has a model").config().to_string();
    println!("{config}, {n_threads} threads, {} lines, {} tokens of other files", ends.len(), memory.n_tokens());
    completer.set_memory(memory);
    for predictors in [Predictors::Blend, Predictors::MemoryOnly, Predictors::ModelOnly] {
        completer.set_predictors(predictors);
        let mut rng = Rng::new(7);
        let mut times = Vec::new();
        while times.len() < N_KEYSTROKES {
            let line = 1 + rng.below(ends.len() - 1);
            let (start, end) = (ends[line - 1] + 1, ends[line]);
            let content = live[start..end].trim_start();
            if content.len() < 8 || !content.is_ascii() {
                continue;
            }
            let at = end - content.len() + 1 + rng.below(content.len() - 2);
            let mut ask = |at: usize| {
                let prompt = Prompt { path: "live.rs", prefix: &live[..at], suffix: &live[end..], ..Prompt::default() };
                let start = Instant::now();
                completer.complete(&prompt, &Limits::default(), &Cancel::new()).expect("nobody cancels");
                1000.0 * start.elapsed().as_secs_f64()
            };
            ask(at);
            times.push(ask(at + 1));
        }
        times.sort_by(f64::total_cmp);
        let quantile = |percent: usize| times[(times.len() - 1) * percent / 100];
        let [p50, p95, p99] = [50, 95, 99].map(quantile);
        println!("  {predictors:?}: p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms");
    }
}
