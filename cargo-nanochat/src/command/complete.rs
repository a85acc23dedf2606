//! `complete`: one completion for one position, to stdout.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use nanochat_engine::memory::Tier;
use nanochat_engine::workspace::cache::{self, Cache, Event};
use nanochat_engine::workspace::sources::{Package, Role};
use nanochat_engine::workspace::store::StoreError;
use nanochat_engine::{Cancel, Checkpoint, Completer, Limits, Memory, Prompt, Stop, TokenSource};
use serde::Serialize;

use crate::completion::completer;
use crate::context::{Context, absolute};
use crate::exit::InputError;
use crate::position::Position;
use crate::values::at_least_one;

/// Print one completion for a position in a file
///
/// Reads the file as it is on disk, puts the cursor at LINE:COL (both from 1; COL counts characters) and prints
/// the text that would be inserted. The workspace is the one that contains the file. Its other files and the sources of
/// its locked dependencies are the memory; the first time, the dependencies are indexed, which takes seconds.
/// Prints nothing where no suggestion is better than a doubtful one.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat complete src/lib.rs:12:9
  cargo nanochat complete src/lib.rs:12:9 --message-format json | jq .confidence
  cargo nanochat complete src/lib.rs:12:9 --model shared.ncz --max-lines 4

stdout: the completion. json: text, stop, confidence, sources (model or memory, per token), timings in ms.
Writes no file of the workspace. The cache folder keeps the index of the dependencies, and the data folder records
the version of a new checkpoint, so that an older one is refused from then on.")]
pub(crate) struct CompleteArgs {
    /// Position of the cursor, e.g. `src/lib.rs:12:9`
    #[arg(value_name = "FILE:LINE:COL")]
    position: Position,
    /// Use this checkpoint instead of the workspace's own
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Maximum number of lines of the completion
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    max_lines: usize,
    /// Leave the dependencies out of the memory
    #[arg(long)]
    no_dependencies: bool,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// A line of code is seldom longer, in tokens.
const TOKENS_PER_LINE: usize = 48;

/// Number of threads that index dependencies.
const N_INDEXING: usize = 2;

/// The object that `--message-format json` prints.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    file: &'a Path,
    line: usize,
    column: usize,
    /// `None` where there is nothing to suggest.
    text: Option<&'a str>,
    stop: Option<Stop>,
    confidence: Option<f32>,
    sources: &'a [TokenSource],
    n_prompt: usize,
    n_generated: usize,
    timings_ms: Timings,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Timings {
    /// cargo metadata and reading the files
    workspace: f64,
    /// verifying and unpacking the checkpoint, indexing the memory
    load: f64,
    /// prompt to text
    complete: f64,
}

pub(crate) fn run(context: &Context, args: &CompleteArgs) -> anyhow::Result<()> {
    let position = &args.position;
    let text = read_text(&position.file)?;
    let offset = position.offset(&text)?;

    let start = Instant::now();
    let path = absolute(&position.file)?;
    let path = path.canonicalize().unwrap_or(path);
    let workspace = context.workspace(path.parent().unwrap_or(&path))?;
    let model = args.model.clone().unwrap_or_else(|| context.store.checkpoint_path(&workspace.sources.root));
    let checkpoint = open_checkpoint(context, &model)?;
    let (files, _) = workspace.sources.collect(&[Role::Member]);
    let workspace_ms = ms_since(start);

    let start = Instant::now();
    let n_threads = args.threads.or(workspace.settings.threads).unwrap_or(0);
    let plans = context.plans(&checkpoint.manifest.config, n_threads);
    let mut completer = completer(&checkpoint, &files, n_threads, &plans);
    if !args.no_dependencies {
        let memory = with_dependencies(context, &completer, &workspace.sources.dependencies(&files))?;
        completer.set_memory(Arc::new(memory));
    }
    let load_ms = ms_since(start);

    let start = Instant::now();
    // A file outside the workspace is not in the memory, under whatever name.
    let name = files.iter().find(|file| file.path == path).map_or("", |file| &file.name);
    let prompt = Prompt { path: name, snippets: &[], prefix: &text[..offset], suffix: &text[offset..] };
    let limits = Limits {
        max_lines: args.max_lines,
        max_tokens: args.max_lines.saturating_mul(TOKENS_PER_LINE).min(checkpoint.manifest.config.context / 2),
        ..Limits::default()
    };
    let completion = completer.complete(&prompt, &limits, &Cancel::new())?;
    let timings_ms = Timings { workspace: workspace_ms, load: load_ms, complete: ms_since(start) };

    let Timings { workspace, load, complete } = timings_ms;
    context.output.detail(format_args!("workspace {workspace:.0} ms, load {load:.0} ms, completion {complete:.1} ms"));
    if context.output.is_json() {
        let completion = completion.as_ref();
        return context.output.json(&Answer {
            file: &position.file,
            line: position.line,
            column: position.column,
            text: completion.map(|c| c.text.as_str()),
            stop: completion.map(|c| c.stop),
            confidence: completion.map(|c| c.confidence),
            sources: completion.map_or(&[], |c| &c.sources),
            n_prompt: completion.map_or(0, |c| c.n_prompt),
            n_generated: completion.map_or(0, |c| c.n_generated),
            timings_ms,
        });
    }
    match completion {
        Some(completion) => context.output.data(&format!("{}\n", completion.text)),
        None => {
            context.output.note("nothing to suggest here");
            Ok(())
        }
    }
}

/// The completer's memory with the dependencies of its workspace, from the cache that the server uses too, or indexed
/// now.
fn with_dependencies(context: &Context, completer: &Completer, packages: &[Package]) -> anyhow::Result<Memory> {
    let cache = Cache::at(context.store.memory_dir());
    let (tokenizer, cancel) = (&**completer.tokenizer(), &Cancel::new());
    let request = cache::Request { packages, tokenizer, n_threads: N_INDEXING, cancel };
    let mut tell = |event: Event| match event {
        Event::Waiting => context.output.note("another process is indexing the dependencies; waiting for it"),
        Event::Skipped { what, reason } => {
            context.output.detail(format_args!("left out of the memory: {what}, {reason}"))
        }
        Event::Damaged { path, reason } => {
            context.output.detail(format_args!("{}: {reason}; it is rebuilt", path.display()));
        }
        Event::NotKept { reason } => context.output.note(format_args!("the index cannot be kept: {reason}")),
        Event::Partial(_) => {}
    };
    let library = cache.library(&request, &mut tell)?;
    let symbols = cache.symbols(&request, &mut tell)?;
    let memory = Memory::clone(completer.memory()).with_tier(Tier::Dependencies, library);
    Ok(memory.with_symbols(Tier::Dependencies, symbols))
}

/// Opens a checkpoint as the store does, except that a data folder that cannot be written does not prevent it.
fn open_checkpoint(context: &Context, path: &Path) -> anyhow::Result<Checkpoint> {
    match context.store.open_checkpoint(path) {
        Err(error @ StoreError::Io { .. }) => {
            let Ok(file) = File::open(path) else { return Err(error.into()) };
            let trust = context.store.load_trust()?;
            let checkpoint =
                Checkpoint::open(BufReader::new(file), &trust).with_context(|| path.display().to_string())?;
            context.output.note(format_args!("the checkpoint's version is not remembered: {error}"));
            Ok(checkpoint)
        }
        other => Ok(other?),
    }
}

fn read_text(path: &Path) -> Result<String, InputError> {
    let bytes = std::fs::read(path).map_err(|error| InputError(format!("{}: {error}", path.display())))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        InputError(format!("{} is not UTF-8 (byte {at}); convert it first", path.display()))
    })
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
