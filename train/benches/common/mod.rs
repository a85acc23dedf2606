//! What the benchmarks of a training step share: flags, random tokens, clocks and what is printed. A folder with a
//! `mod.rs`, because cargo takes each file next to it for a benchmark of its own.

pub(crate) mod cpu;

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use cpu::cpu_seconds;
use nanochat_engine::Config;
use nanochat_engine::rng::Rng;
use nanochat_train::data::Batch;
use nanochat_train::ops::MatmulPrecision;
use nanochat_train::recipe::StepPrecision;
use serde_json::{Map, Value};

/// 6M and 20M parameters.
const SHAPES: [&str; 2] = ["d256 l5 h4 kv1 ff768 v8192 n1", "d384 l9 h6 kv2 ff1152 v8192 n1"];

/// Share of the recipe's top rates that each step is made with.
pub(crate) const RATE: f64 = 0.1;

/// What is measured:
/// `[SHAPE …] [--threads N] [--seq N] [--sequences N] [--micro N] [--steps N] [--precision f32|bf16|int8] [--json]`.
pub(crate) struct Setting {
    pub(crate) shapes: Vec<String>,
    pub(crate) n_threads: usize,
    pub(crate) seq_len: usize,
    /// Sequences in one step.
    pub(crate) sequences: usize,
    /// Sequences whose gradients are taken together.
    pub(crate) micro: usize,
    /// Steps that are timed, after one that is not.
    pub(crate) n_steps: usize,
    /// What products are made in; the fastest by default.
    pub(crate) matmul: MatmulPrecision,
    /// One JSON object per shape instead of text.
    json: bool,
}

impl Setting {
    pub(crate) fn from_args() -> Result<Self, Box<dyn Error>> {
        let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let value = |name: &str, default: usize| match args.iter().position(|arg| arg == name) {
            Some(at) => args.get(at + 1).map_or(Ok(default), |value| value.parse()),
            None => Ok(default),
        };
        let mut shapes: Vec<String> = args.iter().filter(|arg| arg.starts_with('d')).cloned().collect();
        if shapes.is_empty() {
            shapes = SHAPES.map(String::from).to_vec();
        }
        let setting = Self {
            shapes,
            n_threads: value("--threads", 1)?,
            seq_len: value("--seq", 512)?,
            sequences: value("--sequences", 16)?,
            micro: value("--micro", 2)?,
            n_steps: value("--steps", 5)?,
            matmul: match args.iter().position(|arg| arg == "--precision").map(|at| args.get(at + 1)) {
                None => StepPrecision::Fastest,
                Some(Some(name)) if name == "f32" => StepPrecision::F32,
                Some(Some(name)) if name == "bf16" => StepPrecision::Bf16,
                Some(Some(name)) if name == "int8" => StepPrecision::Int8,
                Some(_) => return Err("--precision is f32, bf16 or int8".into()),
            }
            .resolve(),
            json: args.iter().any(|arg| arg == "--json"),
        };
        let Self { n_threads, sequences, micro, n_steps, .. } = setting;
        if n_threads == 0 || n_steps == 0 || micro == 0 || !sequences.is_multiple_of(micro) {
            return Err("--threads, --steps and --micro are at least 1, and --micro divides --sequences".into());
        }
        Ok(setting)
    }

    /// The architecture that `shape` names, at this length.
    pub(crate) fn config(&self, shape: &str) -> Result<Config, Box<dyn Error>> {
        Ok(Config { context: self.seq_len, ..shape.parse()? })
    }

    /// Random tokens after which random ones should follow: the micro-batches of a step, the same in each.
    pub(crate) fn batches(&self, config: &Config) -> Vec<Batch> {
        let mut rng = Rng::new(1);
        let n_rows = self.micro * self.seq_len;
        let mut tokens = || Arc::new((0..n_rows).map(|_| rng.below(config.vocab_size) as u32).collect());
        (0..self.sequences / self.micro)
            .map(|_| Batch {
                tokens: tokens(),
                targets: tokens(),
                weights: Arc::new(vec![1.0; n_rows]),
                starts: Arc::new(vec![0; n_rows]),
                seq_len: self.seq_len,
            })
            .collect()
    }

    /// The weight of one token's loss, so that a step's is their mean.
    pub(crate) fn weight(&self) -> f64 {
        1.0 / (self.sequences * self.seq_len) as f64
    }
}

/// Times of repeated steps, part by part.
#[derive(Default)]
pub(crate) struct Clock {
    parts: Vec<(&'static str, Vec<f64>)>,
    cpu: Vec<f64>,
    losses: Vec<f64>,
}

/// A step that is being timed.
pub(crate) struct Step<'a> {
    clock: &'a mut Clock,
    cpu_start: f64,
    last: Instant,
}

impl Clock {
    pub(crate) fn start(&mut self) -> Step<'_> {
        Step { clock: self, cpu_start: cpu_seconds(), last: Instant::now() }
    }

    /// Prints the medians of all steps but the first, which makes the buffers.
    pub(crate) fn report(&self, setting: &Setting, shape: &str, n_values: usize) {
        let Setting { n_threads, seq_len, sequences, micro, n_steps, matmul, .. } = *setting;
        let precision = match (matmul.precision, matmul.int8_gradients) {
            (nanochat_kernels::Precision::F32, false) => "f32",
            (nanochat_kernels::Precision::F32, true) => "f32 and int8",
            (nanochat_kernels::Precision::Bf16, false) => "bf16",
            (nanochat_kernels::Precision::Bf16, true) => "bf16 and int8",
        };
        let totals: Vec<f64> =
            (1..=n_steps).map(|step| self.parts.iter().map(|(_, times)| times[step]).sum()).collect();
        let total = median(&totals);
        let n_tokens = (sequences * seq_len) as f64;
        let rate = n_tokens / total;
        let gflops = 6.0 * n_values as f64 * rate / n_threads as f64 / 1e9;
        let cpu_rate = n_tokens / median(&self.cpu[1..]);
        let parts = self.parts.iter().map(|(name, times)| (*name, median(&times[1..]) * 1e3));
        let peak = nanochat_train::peak_memory().map(|bytes| bytes / 1024);
        if setting.json {
            let parts: Map<String, Value> = parts.map(|(name, ms)| (name.to_owned(), ms.into())).collect();
            let report = serde_json::json!({
                "shape": shape,
                "n_values": n_values,
                "threads": n_threads,
                "precision": precision,
                "sequences": sequences,
                "seq_len": seq_len,
                "micro": micro,
                "tokens_per_s": rate,
                "gflops_per_thread": gflops,
                "tokens_per_cpu_s": cpu_rate,
                "peak_kib": peak,
                "parts_ms": parts,
                "losses": self.losses,
            });
            println!("{report}");
            return;
        }
        println!(
            "{shape}: {:.1}M, {precision}, {n_threads} threads, {sequences} × {seq_len}: {rate:.0} tokens/s, {gflops:.1} GFLOP/s per thread, {cpu_rate:.0} tokens per CPU second, peak {}",
            n_values as f64 / 1e6,
            peak.map_or_else(|| "unknown".to_owned(), |kib| format!("{kib} kB")),
        );
        for (name, ms) in parts {
            println!("  {name:10} {ms:8.1} ms {:5.1} %", ms / total / 10.0);
        }
    }
}

impl Step<'_> {
    /// Ends a part. A step has the same parts each time.
    pub(crate) fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        let parts = &mut self.clock.parts;
        match parts.iter_mut().find(|(part, _)| *part == name) {
            Some((_, times)) => times.push(seconds),
            None => parts.push((name, vec![seconds])),
        }
    }

    /// Ends the step, whose mean loss tells whether two benchmarks do the same.
    pub(crate) fn end(self, loss: f64) {
        self.clock.cpu.push(cpu_seconds() - self.cpu_start);
        self.clock.losses.push(loss);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
