//! Tokens per second of prompt and decode, on random weights: `cargo bench -p nanochat-engine --bench decode`.
//!
//! Prints the median of several runs, and what they amount to in operations of the ternary matrices.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::time::Instant;

use nanochat_engine::{Cancel, Config, Model, Session, TokenId, weights};

const CONTEXT: usize = 512;
const N_DECODED: usize = 64;
const N_RUNS: usize = 9;

fn main() {
    let shapes = ["d512 l6 h8 kv2 ff1536 v12288 n1", "d512 l6 h8 kv2 ff1536 v12288 n2"];
    println!(
        "{:<34} {:>7} {:>14} {:>14} {:>12} {:>12}",
        "shape", "threads", "prompt tok/s", "decode tok/s", "GOPS prompt", "cached ms"
    );
    for shape in shapes {
        let config: Config = shape.parse().expect("a valid shape");
        let weights = weights::random(&config, 1);
        for n_threads in [1, 2] {
            let mut session = Session::new(Model::new(&weights, n_threads));
            let tokens: Vec<TokenId> = (0..CONTEXT).map(|i| (i * 7919 % config.vocab_size) as TokenId).collect();
            let (mut prompt, mut decode, mut cached) = (Vec::new(), Vec::new(), Vec::new());
            for run in 0..N_RUNS {
                // A first token of its own makes each run start from nothing.
                let mut tokens = tokens.clone();
                tokens[0] = 300 + run as TokenId;
                let start = Instant::now();
                session.rebase(&tokens, &Cancel::new()).expect("not cancelled");
                prompt.push(CONTEXT as f64 / start.elapsed().as_secs_f64());
                let start = Instant::now();
                for i in 0..N_DECODED {
                    session.push((i * 31 % config.vocab_size) as TokenId);
                }
                decode.push(N_DECODED as f64 / start.elapsed().as_secs_f64());
                // A keystroke: 16 new prompt tokens, 24 generated.
                let next: Vec<TokenId> = tokens.iter().copied().chain(400..416).collect();
                let start = Instant::now();
                session.rebase(&next, &Cancel::new()).expect("not cancelled");
                for i in 0..24 {
                    session.push((i * 37 % config.vocab_size) as TokenId);
                }
                cached.push(start.elapsed().as_secs_f64() * 1e3);
            }
            let ternary = config.n_params() - config.vocab_size * config.d_model;
            let prompt = median(&mut prompt);
            println!(
                "{shape:<34} {n_threads:>7} {prompt:>14.0} {:>14.0} {:>12.0} {:>12.2}",
                median(&mut decode),
                prompt * 2.0 * ternary as f64 / 1e9,
                median(&mut cached)
            );
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
