//! `try`: train → sign → verify → complete lines of held-out files → complete what the user types.

mod cuts;
mod prompting;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use nanochat_engine::complete::Predictors;
use nanochat_engine::workspace::sources::Role;
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Checkpoint, Completer, Completion, Limits, Prompt, TokenSource};
use nanochat_eval::known_files;
use nanochat_train::{HeldOut, Options};
use serde::Serialize;

use self::cuts::Cut;
use super::training::{gains, install, train};
use crate::completion::{completer, origin};
use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::output::{FAINT, HEADING, MEMORY, MODEL, Output};
use crate::progress::{bytes, rate};
use crate::values::duration;

/// Train for a minute on this workspace, then complete code it has not seen
///
/// Holds out whole files, trains on the rest with a progress bar, signs, verifies and loads the checkpoint, then
/// completes places drawn by seed (not picked) from the held-out files and shows the original text with each; among up
/// to 200 it counts exact matches. On a terminal it then completes what you type, until Ctrl-D.
///
/// Key and checkpoint live in a temporary folder that is removed at the end: the workspace's real checkpoint is
/// neither read nor changed. `cargo nanochat train` makes a real one.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat try
  cargo nanochat try --time 5m --places 50
  cargo nanochat try --message-format json | jq -s 'map(select(.event == \"place\"))'

stdout: the completions and the figures. stderr: progress. Keeps no file.")]
pub(crate) struct TryArgs {
    /// How long to train; the whole command takes about half a minute more
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = duration)]
    time: Duration,
    /// Recipe to train with: a built-in name or a .toml file
    #[arg(long, value_name = "NAME", default_value = "try")]
    recipe: String,
    /// Held-out places to show; more are counted
    #[arg(long, value_name = "N", default_value_t = 12)]
    places: usize,
    /// Seed of the random choice of places
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// The JSON object of one place.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "place")]
struct PlaceReport<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    prefix: &'a str,
    text: Option<&'a str>,
    truth: &'a str,
    exact: bool,
    confidence: Option<f32>,
    sources: &'a [TokenSource],
    /// `None` where no token was generated.
    first_token_ms: Option<f64>,
}

/// The last JSON object.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "tried")]
struct Tried {
    exact: Exact,
    n_params: usize,
    checkpoint_bytes: u64,
    first_token_ms: f64,
    tokens_per_s: f64,
    before: HeldOut,
    after: HeldOut,
}

/// How many of the same places are completed exactly: by the blend, and by each predictor alone.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Exact {
    places: usize,
    /// `both` is its name since before the mixture had one.
    #[serde(rename = "both")]
    blend: usize,
    model: usize,
    memory: usize,
}

/// A completion and the time it took.
struct Timed {
    completion: Option<Completion>,
    /// From the start of the request to the first token.
    first_token: Option<Duration>,
    /// Time of the tokens after the first, shown or not.
    rest: Duration,
    n_rest: usize,
}

/// Number of places over which exact matches are counted: those that are shown are too few for a rate.
const N_COUNTED: usize = 200;
/// Longest time that counting may take.
const COUNT_TIME: Duration = Duration::from_secs(15);

pub(crate) fn run(context: &Context, args: &TryArgs) -> anyhow::Result<()> {
    let output = &context.output;
    let workspace = context.current_workspace()?;
    let interrupt = Interrupt::install()?;
    // Removed when it is dropped, and at the second Ctrl-C, when nothing is dropped.
    let folder = tempfile::Builder::new().prefix("nanochat-try-").tempdir()?;
    interrupt.remove_at_exit(folder.path());
    let store = Store::at(folder.path());
    let options = Options {
        state_dir: store.state_dir(&workspace.sources.root),
        sources: workspace.sources,
        recipe: args.recipe.clone(),
        restart: true,
        seed: None,
        steps: None,
        time_budget_s: Some(args.time.as_secs_f64()),
        threads: args.threads.or(workspace.settings.threads).unwrap_or(0),
        base: None,
        dependencies: None,
        find_lr: false,
        forget: Vec::new(),
        remember: Vec::new(),
        device: nanochat_train::Device::Cpu,
        packed: None,
    };
    let outcome = train(output, &options, interrupt, "stopped; nothing is kept")?;
    let installed = install(&output.silent(), &store, &options, &outcome)?;
    let checkpoint = store.open_checkpoint(&installed.path)?;
    drop(folder);

    let (files, _) = options.sources.collect(&[Role::Member]);
    let (held_out, known) = known_files(files, &outcome.held_out);
    let plans = context.plans(&checkpoint.manifest.config, options.threads);
    let mut completer = completer(&checkpoint, &known, options.threads, &plans);
    let places = cuts::draw(&held_out, args.places.max(N_COUNTED), args.seed);
    let shown = &places[..args.places.min(places.len())];
    if places.is_empty() {
        output
            .note("no whole file is held out, so there is nothing to complete; a workspace of several files has some");
    }
    if !output.is_json() {
        output.data(&gains(&outcome.before, &outcome.after))?;
        output.data(&format!("\n{}\n", output.on_stdout(HEADING, heading(shown.len(), args.seed))))?;
    }
    let mut first_tokens = Vec::new();
    let (mut n_generated, mut generating) = (0, Duration::ZERO);
    for place in shown {
        let timed = complete(&mut completer, &place.prompt(), 1, interrupt.cancel())?;
        first_tokens.extend(timed.first_token);
        n_generated += timed.n_rest;
        generating += timed.rest;
        show(output, place, &timed)?;
    }
    let exact = count_exact(&mut completer, &places, interrupt.cancel())?;

    let tried = Tried {
        exact,
        n_params: checkpoint.manifest.config.n_params(),
        checkpoint_bytes: installed.n_bytes,
        first_token_ms: median_ms(first_tokens),
        tokens_per_s: if generating.is_zero() { 0.0 } else { n_generated as f64 / generating.as_secs_f64() },
        before: outcome.before,
        after: outcome.after,
    };
    if output.is_json() {
        output.json(&tried)?;
    } else {
        output.data(&summary(&tried, &checkpoint))?;
    }
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !output.is_json() {
        interrupt.leave_at_once();
        prompting::run(output, &mut completer)?;
    }
    Ok(())
}

/// Completes, and times the first token separately from the others.
fn complete(
    completer: &mut Completer,
    prompt: &Prompt<'_>,
    max_lines: usize,
    cancel: &Cancel,
) -> anyhow::Result<Timed> {
    let limits = Limits { max_lines, ..Limits::default() };
    let start = Instant::now();
    let mut times = Vec::new();
    let completion = completer.complete_streaming(prompt, &limits, cancel, &mut |_| times.push(start.elapsed()))?;
    let first_token = times.first().copied();
    let rest = times.last().zip(first_token).map_or(Duration::ZERO, |(last, first)| *last - first);
    Ok(Timed { completion, first_token, rest, n_rest: times.len().saturating_sub(1) })
}

/// Completes each place by the blend and by each predictor alone, until the time is up. Places are in random order, so
/// any number of them is a fair sample.
fn count_exact(completer: &mut Completer, places: &[Cut<'_>], cancel: &Cancel) -> anyhow::Result<Exact> {
    let mut exact = Exact::default();
    let start = Instant::now();
    for place in places.iter().take_while(|_| start.elapsed() < COUNT_TIME) {
        exact.places += 1;
        for (predictors, count) in [
            (Predictors::Blend, &mut exact.blend),
            (Predictors::ModelOnly, &mut exact.model),
            (Predictors::MemoryOnly, &mut exact.memory),
        ] {
            completer.set_predictors(predictors);
            let completion = completer.complete(&place.prompt(), &Limits::default(), cancel)?;
            *count += usize::from(place.is_exact(completion.as_ref()));
        }
    }
    completer.set_predictors(Predictors::Blend);
    Ok(exact)
}

fn heading(n_places: usize, seed: u64) -> String {
    format!("{n_places} places in held-out files, drawn with seed {seed}: the rest of the line")
}

fn show(output: &Output, place: &Cut<'_>, timed: &Timed) -> anyhow::Result<()> {
    let completion = timed.completion.as_ref();
    let is_exact = place.is_exact(completion);
    let first_token_ms = timed.first_token.map(ms);
    if output.is_json() {
        return output.json(&PlaceReport {
            file: &place.file.name,
            line: place.line,
            column: place.column,
            prefix: place.line_prefix(),
            text: completion.map(|c| c.text.as_str()),
            truth: place.truth(),
            exact: is_exact,
            confidence: completion.map(|c| c.confidence),
            sources: completion.map_or(&[], |c| &c.sources),
            first_token_ms,
        });
    }
    let shown = completion.map_or_else(|| output.on_stdout(FAINT, "(no suggestion)"), |c| painted(output, c));
    let from = completion.map_or_else(String::new, |c| {
        format!("{}{}; confidence {:.2}; ", if is_exact { "exact; " } else { "" }, origin(&c.sources), c.confidence)
    });
    let place_name = format!("{}:{}:{}", place.file.name, place.line, place.column);
    // The bar is the cursor.
    let before = output.on_stdout(FAINT, format_args!("{}│", place.line_prefix().trim_start()));
    output.data(&format!(
        "\n{}\n  written  {before}{shown}\n  truth    {before}{}\n  {}\n",
        output.on_stdout(HEADING, place_name),
        place.truth(),
        output.on_stdout(FAINT, format_args!("{from}{}", first_token_text(timed))),
    ))
}

/// In the colour of the source of most of its tokens.
fn painted(output: &Output, completion: &Completion) -> String {
    let n_model = completion.sources.iter().filter(|source| **source == TokenSource::Model).count();
    let style = if n_model * 2 > completion.sources.len() { MODEL } else { MEMORY };
    output.on_stdout(style, &completion.text)
}

fn summary(tried: &Tried, checkpoint: &Checkpoint) -> String {
    let Exact { places, blend, model, memory } = tried.exact;
    let [blend, model, memory] = [blend, model, memory].map(|n| n as f64 * 100.0 / places.max(1) as f64);
    let n_params = tried.n_params as f64 / 1e6;
    let size = bytes(tried.checkpoint_bytes as usize);
    let (config, rate) = (&checkpoint.manifest.config, rate(tried.tokens_per_s));
    let first = tried.first_token_ms;
    format!(
        "\nexact, {places} places: blend {blend:.1} %, model {model:.1} %, memory {memory:.1} %\n\
         model: {n_params:.1}M parameters, {config}, {size} signed and verified\n\
         speed: first token {first:.1} ms (median, prompt not cached), then {rate} tokens/s\n"
    )
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| ms(*time))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// `first token 9.9 ms`
fn first_token_text(timed: &Timed) -> String {
    timed.first_token.map_or_else(|| "no token".to_owned(), |time| format!("first token {:.1} ms", ms(time)))
}
