//! What a training step costs, and where: `cargo bench -p nanochat-train --bench step -- [SHAPE …] [--threads N]`.
//!
//! Random tokens over random masters: the work does not depend on what they say. Prints tokens/s, 6·N·tokens/s per
//! thread, tokens per second of CPU time, and the shares of a pass and of the rest of the step, medians over repeated steps.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nanochat_engine::Config;
use nanochat_engine::rng::Rng;
use nanochat_train::Recipe;
use nanochat_train::gradients::Gradients;
use nanochat_train::model::{Batch, Graph, Params};
use nanochat_train::pool::Pool;

// glibc gives large pages back on each free, which is 40 % of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 6M and 20M parameters.
const SHAPES: [&str; 2] = ["d256 l5 h4 kv1 ff768 v8192 n1", "d384 l9 h6 kv2 ff1152 v8192 n1"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let value = |name: &str, default: usize| match args.iter().position(|arg| arg == name) {
        Some(at) => args.get(at + 1).map_or(Ok(default), |value| value.parse()),
        None => Ok(default),
    };
    let setting = Setting {
        n_threads: value("--threads", 1)?,
        seq_len: value("--seq", 512)?,
        sequences: value("--sequences", 16)?,
        micro: value("--micro", 2)?,
        n_steps: value("--steps", 5)?,
    };
    let named: Vec<&str> = args.iter().filter(|arg| arg.starts_with('d')).map(String::as_str).collect();
    for shape in if named.is_empty() { SHAPES.to_vec() } else { named } {
        measure(shape, &setting)?;
    }
    Ok(())
}

struct Setting {
    n_threads: usize,
    seq_len: usize,
    sequences: usize,
    micro: usize,
    n_steps: usize,
}

fn measure(shape: &str, setting: &Setting) -> Result<(), Box<dyn std::error::Error>> {
    let Setting { n_threads, seq_len, sequences, micro, n_steps } = *setting;
    let config = Config { context: seq_len, ..shape.parse()? };
    let mut params = Params::init(&config, 1);
    let optimizer = Recipe::load("default")?.optimizer;
    let pool = Pool::new(n_threads)?;
    let mut momenta: Vec<Vec<f32>> = params.list.iter().map(|param| vec![0.0; param.values.len()]).collect();
    let mut rng = Rng::new(1);
    let batches: Vec<Batch> = (0..sequences / micro).map(|_| random_batch(&mut rng, &config, seq_len, micro)).collect();
    let mut gradients = Gradients::new(&params, batches.len());
    let weight = 1.0 / (sequences * seq_len) as f32;
    let mut parts: [Vec<f64>; 5] = Default::default();
    let mut cpu = Vec::new();
    for _ in 0..=n_steps {
        let (begin, cpu_begin) = (Instant::now(), cpu_seconds());
        let mut laps = [Duration::ZERO; 5];
        let graph = Graph::new(&params)?;
        laps[0] = begin.elapsed();
        gradients.take(&graph, &params, &batches, weight, &pool)?;
        laps[1] = begin.elapsed();
        let sum = gradients.sum(&pool);
        laps[2] = begin.elapsed();
        optimizer.step(&mut params, &mut momenta, sum, 0.1, &pool);
        laps[3] = begin.elapsed();
        drop(graph);
        laps[4] = begin.elapsed();
        cpu.push(cpu_seconds() - cpu_begin);
        let mut before = Duration::ZERO;
        for (part, lap) in parts.iter_mut().zip(laps) {
            part.push((lap - before).as_secs_f64());
            before = lap;
        }
    }
    // The first step makes the buffers.
    let totals: Vec<f64> = (1..=n_steps).map(|step| parts.iter().map(|part| part[step]).sum()).collect();
    let total = median(&totals);
    let n_tokens = (sequences * seq_len) as f64;
    let rate = n_tokens / total;
    let flops = 6.0 * params.n_values() as f64 * rate / n_threads as f64;
    println!(
        "{shape}: {:.1}M, {n_threads} threads, {sequences} × {seq_len}: {rate:.0} tokens/s, {:.1} GFLOP/s per thread, {:.0} tokens per CPU second, peak {}",
        params.n_values() as f64 / 1e6,
        flops / 1e9,
        n_tokens / median(&cpu[1..]),
        peak_memory()
    );
    for (name, part) in ["round", "gradients", "sum", "optimizer", "free"].into_iter().zip(&parts) {
        println!("  {name:10} {:8.1} ms {:5.1} %", median(&part[1..]) * 1e3, median(&part[1..]) / total * 100.0);
    }
    Ok(())
}

fn random_batch(rng: &mut Rng, config: &Config, seq_len: usize, micro: usize) -> Batch {
    let mut tokens = || Arc::new((0..micro * seq_len).map(|_| rng.below(config.vocab_size) as u32).collect());
    Batch { tokens: tokens(), targets: tokens(), starts: Arc::new(vec![0; micro * seq_len]), seq_len }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What this process has used of all cores: on a machine with neighbours it says more than the clock.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields behind the name, which may hold anything, in hundredths of a second: user and system are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

/// The most memory this process ever held, as Linux says.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}
