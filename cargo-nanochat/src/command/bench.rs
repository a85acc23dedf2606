//! `bench`: how fast this machine answers with a model, and how far that is from what the machine can do.
//!
//! ```text
//! --shape → random weights → a signed checkpoint in a temporary folder → this program again, with --model
//! --model → verify, load → a prompt with an empty cache, then after 512 cached tokens → tokens/s, ms, shares of peaks
//! ```
//!
//! A shape is measured in a second process, so that the memory it takes is that of loading a checkpoint and no more.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use nanochat_engine::checkpoint::{Manifest, PackedWeights, Training};
use nanochat_engine::kernels::{Isa, Pool, ceiling};
use nanochat_engine::memory::Blend;
use nanochat_engine::rng::Rng;
use nanochat_engine::text::tokenizer::{FIRST_BYTE, FIRST_MERGE};
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Checkpoint, Config, Model, Sampling, Session, TokenId, Tokenizer, model::weights};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, InputError, Interrupted};
use crate::interrupt::Interrupt;
use crate::values::at_least_one;

/// Measure how fast this machine answers
///
/// Times a prompt with an empty cache and a keystroke after 512 cached tokens, and compares both with the peak of this
/// machine, which is measured in the same run. A shape is measured with random weights: speed does not depend on what
/// a model has learned.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat bench
  cargo nanochat bench --shape d768l16h12kv3ff2048v16384n1 --threads 1
  cargo nanochat bench --model team.ncz --message-format json | jq .completion_ms_cached

stdout: the table. json: one object with decode_tokens_per_s, prompt_tokens_per_s, first_token_ms_cached,
completion_ms_cached, completion_ms_cold, peak_fraction (the prompt's, of the int8 peak), bandwidth_fraction
(decoding's, of the memory bandwidth; above 1 where caches serve it), resident_mb and all else that the table shows.
Each time is the median of the runs. Writes to a temporary folder only, and removes it.")]
pub(crate) struct BenchArgs {
    /// Width, layers, heads, key/value heads, MLP width, vocabulary, residual streams, and context if not 2048
    #[arg(long, value_name = "SHAPE", default_value = "d512l6h8kv2ff1536v12288n1", conflicts_with = "model")]
    shape: Config,
    /// Measure this checkpoint instead
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Completions to time, each with an empty cache and with a filled one
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = at_least_one)]
    runs: usize,
}

/// The model id of a checkpoint that was made for measuring.
const RANDOM: &str = "random weights";
/// Tokens that are cached when a keystroke arrives.
const N_CACHED: usize = 512;
/// New tokens of a keystroke's prompt: healing takes a few back, and the window's end moves.
const N_NEW: usize = 16;
/// Tokens generated for a completion.
const N_GENERATED: usize = 24;

/// The object that `--message-format json` prints.
#[derive(Clone, Debug, Serialize)]
struct Report {
    model: String,
    shape: String,
    threads: usize,
    isa: &'static str,
    /// Of a prompt with an empty cache.
    prompt_tokens_per_s: f64,
    /// Of tokens that follow a context of `N_CACHED + N_NEW` tokens.
    decode_tokens_per_s: f64,
    /// The first token of a completion whose prompt is cached but for its last 16 tokens.
    first_token_ms_cached: f64,
    completion_ms_cached: f64,
    completion_ms_cold: f64,
    /// The share of the machine's int8 peak that the prompt's multiplications reach.
    peak_fraction: f64,
    /// The share of the machine's memory bandwidth that decoding reaches by reading the weights; above 1 where caches
    /// serve it.
    bandwidth_fraction: f64,
    int8_gops_peak: f64,
    read_gb_per_s_peak: f64,
    load_ms: f64,
    weights_mb: f64,
    /// Resident memory of the process with a full context; `None` where the system does not report it.
    resident_mb: Option<f64>,
    resident_tokens: usize,
}

pub(crate) fn run(context: &Context, args: &BenchArgs) -> anyhow::Result<Exit> {
    let interrupt = Interrupt::install()?;
    match &args.model {
        Some(path) => {
            let start = Instant::now();
            let checkpoint = context.store.open_checkpoint(path)?;
            let report = measure(context, args, checkpoint, start, interrupt.cancel())?;
            if context.output.is_json() {
                context.output.json(&report)?;
            } else {
                context.output.data(&human(&report))?;
            }
            Ok(Exit::Ok)
        }
        None => in_a_second_process(context, args, interrupt),
    }
}

/// Writes a checkpoint of random weights and measures it as any other.
fn in_a_second_process(context: &Context, args: &BenchArgs, interrupt: &Interrupt) -> anyhow::Result<Exit> {
    let folder = tempfile::Builder::new().prefix("nanochat-bench-").tempdir()?;
    interrupt.remove_at_exit(folder.path());
    let store = Store::at(folder.path());
    let path = folder.path().join("random.ncz");
    context.output.detail(format_args!("random weights of {}", args.shape));
    {
        let weights = PackedWeights::pack(&weights::random(&args.shape, 1))?;
        let checkpoint = Checkpoint {
            manifest: Manifest::new(RANDOM, args.shape.clone(), Training::default()),
            tokenizer: Arc::new(pairs_of_bytes(args.shape.vocab_size)?),
            weights: Arc::new(weights),
            blend: Blend::default(),
        };
        let (key, _) = store.load_key_or_create()?;
        store.install(&checkpoint, &key, &path)?;
    }
    // What the autotuner picked on this machine is right for the second process too. There may be no table to copy.
    let _ = std::fs::copy(context.store.tune_path(), store.tune_path());
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bench").arg("--model").arg(&path).arg("--runs").arg(args.runs.to_string());
    command.args(args.threads.map(|n| format!("--threads={n}")));
    command.args(context.output.is_json().then_some("--message-format=json"));
    command.args(context.output.is_quiet().then_some("--quiet"));
    let status = command
        .env("NANOCHAT_HOME", folder.path())
        .stdin(Stdio::null())
        .status()
        .context("this program cannot start itself a second time")?;
    if interrupt.cancel().is_cancelled() {
        return Err(Interrupted("stopped; nothing is kept").into());
    }
    // The second process has printed what went wrong.
    Ok(if status.success() { Exit::Ok } else { Exit::Failed })
}

/// A tokenizer of the right size; what its merges are does not matter to a model that has learned nothing.
fn pairs_of_bytes(vocab_size: usize) -> anyhow::Result<Tokenizer> {
    let n_merges = vocab_size - usize::from(FIRST_MERGE);
    let merges = (0..n_merges).map(|i| (FIRST_BYTE + (i / 256) as TokenId, FIRST_BYTE + (i % 256) as TokenId));
    Ok(Tokenizer::from_merges(merges.collect())?)
}

fn measure(
    context: &Context,
    args: &BenchArgs,
    checkpoint: Checkpoint,
    start: Instant,
    cancel: &Cancel,
) -> anyhow::Result<Report> {
    let config = checkpoint.manifest.config.clone();
    if config.context < N_CACHED + N_NEW + N_GENERATED {
        return Err(InputError(format!(
            "the model's context is {} tokens; the measurement needs {}",
            config.context,
            N_CACHED + N_NEW + N_GENERATED
        ))
        .into());
    }
    let name = checkpoint.manifest.model_id.clone();
    let n_threads = args.threads.unwrap_or(0);
    let model = Model::with_plans(&checkpoint.weights.view(), n_threads, &context.plans(&config, n_threads));
    drop(checkpoint);
    let mut session = Session::new(Arc::clone(&model));
    let load_ms = ms_since(start);

    // Before the runs, whose caches the session keeps too.
    session.rebase(&tokens(config.context, 0, config.vocab_size), cancel)?;
    let resident_mb = resident_mb();
    let mut runs = Runs::default();
    for run in 0..args.runs {
        runs.add(&mut session, run, cancel)?;
        context.output.detail(format_args!("run {} of {}", run + 1, args.runs));
    }

    let n_threads = model.n_threads();
    let int8_gops_peak = ceiling::int8_gops(Isa::best()) * n_threads as f64;
    let read_gb_per_s_peak = ceiling::read_gb_per_s(&Pool::new(n_threads));
    let prompt_tokens_per_s = N_CACHED as f64 / median(&mut runs.prompt_s);
    let decode_tokens_per_s = N_GENERATED as f64 / median(&mut runs.decode_s);
    Ok(Report {
        model: name,
        shape: config.to_string(),
        threads: n_threads,
        isa: model.isa().name(),
        prompt_tokens_per_s,
        decode_tokens_per_s,
        first_token_ms_cached: median(&mut runs.first_ms),
        completion_ms_cached: median(&mut runs.cached_ms),
        completion_ms_cold: median(&mut runs.cold_ms),
        peak_fraction: prompt_tokens_per_s * prompt_ops(&config) / 1e9 / int8_gops_peak,
        bandwidth_fraction: decode_tokens_per_s * model.n_bytes() as f64 / 1e9 / read_gb_per_s_peak,
        int8_gops_peak,
        read_gb_per_s_peak,
        load_ms,
        weights_mb: model.n_bytes() as f64 / 1e6,
        resident_mb,
        resident_tokens: config.context,
    })
}

/// Times of each run, for medians.
#[derive(Debug, Default)]
struct Runs {
    prompt_s: Vec<f64>,
    decode_s: Vec<f64>,
    first_ms: Vec<f64>,
    cached_ms: Vec<f64>,
    cold_ms: Vec<f64>,
}

impl Runs {
    /// A completion with an empty cache, then one whose first `N_CACHED` tokens are cached.
    fn add(&mut self, session: &mut Session, run: usize, cancel: &Cancel) -> anyhow::Result<()> {
        let vocab_size = session.model().config().vocab_size;
        // A first token of its own makes each run start with an empty cache.
        let cached = tokens(N_CACHED, run + 1, vocab_size);
        session.model().announce();
        let start = Instant::now();
        session.rebase(&cached, cancel)?;
        self.prompt_s.push(start.elapsed().as_secs_f64());
        let cached_start = Instant::now();
        session.rebase(&[&cached[..], &tokens(N_NEW, run + 77, vocab_size)].concat(), cancel)?;
        let mut token = chosen(session);
        self.first_ms.push(ms_since(cached_start));
        let decode_start = Instant::now();
        for _ in 0..N_GENERATED {
            session.push(token);
            token = chosen(session);
        }
        self.decode_s.push(decode_start.elapsed().as_secs_f64());
        self.cached_ms.push(ms_since(cached_start));
        self.cold_ms.push(ms_since(start));
        Ok(())
    }
}

fn chosen(session: &Session) -> TokenId {
    Sampling::Greedy.choose(session.logits(), &mut Rng::new(0)).unwrap_or(FIRST_BYTE)
}

/// Tokens without a pattern that two calls with other seeds share.
fn tokens(n: usize, seed: usize, vocab_size: usize) -> Vec<TokenId> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % vocab_size) as TokenId).collect()
}

/// Multiplications and additions of one prompt token: its ternary products, and attention over half of the prompt.
fn prompt_ops(config: &Config) -> f64 {
    let ternary = config.n_params() - config.vocab_size * config.d_model;
    2.0 * (ternary + config.n_layers * config.d_model * N_CACHED) as f64
}

/// Resident memory of this process; `None` where the system does not report it.
fn resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

fn human(report: &Report) -> String {
    let percent = |fraction: f64| format!("{:.0} %", fraction * 100.0);
    let row = |name: &str, value: String, note: String| {
        let line = format!("{name:<24} {value:>16}  {note}");
        line.trim_end().to_owned() + "\n"
    };
    let rows = [
        row("prompt", format!("{:.0} tokens/s", report.prompt_tokens_per_s), {
            format!("{} of {:.0} GOPS", percent(report.peak_fraction), report.int8_gops_peak)
        }),
        row("decode", format!("{:.0} tokens/s", report.decode_tokens_per_s), {
            format!("{} of {:.0} GB/s", percent(report.bandwidth_fraction), report.read_gb_per_s_peak)
        }),
        row("first token, cached", format!("{:.2} ms", report.first_token_ms_cached), String::new()),
        row("completion, cached", format!("{:.2} ms", report.completion_ms_cached), {
            format!("{N_NEW} new prompt tokens after {N_CACHED} cached, {N_GENERATED} generated")
        }),
        row("completion, empty cache", format!("{:.2} ms", report.completion_ms_cold), {
            format!("{} prompt tokens, {N_GENERATED} generated", N_CACHED + N_NEW)
        }),
        row("load", format!("{:.1} ms", report.load_ms), String::new()),
        row("weights", format!("{:.1} MB", report.weights_mb), String::new()),
        row("resident", report.resident_mb.map_or("unknown".to_owned(), |mb| format!("{mb:.1} MB")), {
            format!("with {} tokens of context", report.resident_tokens)
        }),
    ];
    let Report { model, shape, threads, isa, .. } = report;
    format!("{model}: {shape}, {threads} threads, {isa}; medians\n{}", rows.concat())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
