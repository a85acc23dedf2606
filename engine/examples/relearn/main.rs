//! Makes the weights that the engine ships with anew: `relearn blend|rerank|stop|all`; `--help` says the rest.
//!
//! `docs/design/learned-weights.md` says what they are, what they are made from and how they are checked.

#![expect(clippy::print_stdout, reason = "an example's output is its figures")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nanochat_engine::Checkpoint;
use nanochat_engine::complete::Predictors;
use nanochat_engine::workspace::store::Store;

mod blend;
mod holes;
mod network;
mod rerank;
mod stop;

const HELP: &str = "\
Learns the weights that the engine ships with anew, from the files of crates.

usage: relearn blend|rerank|stop|all [--store DIR] [--out FILE] --checkpoint FILE FOLDER...

  blend    how much the memory counts for the next token   engine/src/memory/blend/default.f32
  rerank   which of several candidate lines is right       engine/src/complete/rerank/default.f32
  stop     where a text of several lines ends              engine/src/complete/stop/default.f32
  all      the three, in this order; each is built in before the next one starts

  --checkpoint FILE  the model whose predictions are used; best one that was not trained on the crates
  --store DIR        the data directory whose keys are trusted (else $NANOCHAT_HOME, else that of the platform)
  --out FILE         where the weights are written, instead of the path above; not with `all`. For `blend` a name
                     that ends in .ncz is a copy of the checkpoint with the new weights, signed by the store's key
  FOLDER...          the crates, one folder each

What the weights are worth on crates or files that took no part is printed before they are written.
docs/design/learned-weights.md says how long it takes and how the weights are checked.
";

/// With a model and by the memory alone: each has weights of its own, in this order.
const PREDICTORS: [(Predictors, &str); 2] =
    [(Predictors::Blend, "with a model"), (Predictors::MemoryOnly, "memory only")];

/// What is to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Blend,
    Rerank,
    Stop,
}

impl Target {
    const ALL: [Self; 3] = [Self::Blend, Self::Rerank, Self::Stop];

    fn name(self) -> &'static str {
        match self {
            Self::Blend => "blend",
            Self::Rerank => "rerank",
            Self::Stop => "stop",
        }
    }

    /// Where the engine includes the weights from.
    fn default_path(self) -> PathBuf {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        src.join(match self {
            Self::Blend => "memory/blend/default.f32",
            Self::Rerank => "complete/rerank/default.f32",
            Self::Stop => "complete/stop/default.f32",
        })
    }
}

/// The parsed command line.
struct Arguments {
    /// One target, or [`Target::ALL`].
    targets: Vec<Target>,
    store: Option<PathBuf>,
    checkpoint: PathBuf,
    out: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() || words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let done = match parse(&words) {
        Ok(arguments) if arguments.targets.len() == 1 => learn(&arguments, arguments.targets[0]),
        Ok(arguments) => each_after_the_other(&arguments),
        Err(reason) => {
            eprintln!("relearn: {reason}; see --help");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relearn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Result<Arguments, String> {
    let mut words = words.iter();
    let what = words.next().map_or("", String::as_str);
    let targets: Vec<Target> =
        Target::ALL.into_iter().filter(|target| what == target.name() || what == "all").collect();
    if targets.is_empty() {
        return Err(format!("`{what}` is none of blend, rerank, stop and all"));
    }
    let (mut store, mut checkpoint, mut out, mut folders) = (None, None, None, Vec::new());
    while let Some(word) = words.next() {
        let option = match word.as_str() {
            "--store" => &mut store,
            "--checkpoint" => &mut checkpoint,
            "--out" => &mut out,
            option if option.starts_with('-') => return Err(format!("there is no option `{option}`")),
            folder => {
                folders.push(PathBuf::from(folder));
                continue;
            }
        };
        *option = Some(PathBuf::from(words.next().ok_or(format!("`{word}` needs a value"))?));
    }
    let checkpoint = checkpoint.ok_or("--checkpoint is missing")?;
    if folders.is_empty() {
        return Err("there is no folder to learn from".to_owned());
    }
    if targets.len() > 1 && out.is_some() {
        return Err("`all` writes to the source tree, without --out".to_owned());
    }
    Ok(Arguments { targets, store, checkpoint, out, folders })
}

fn learn(arguments: &Arguments, target: Target) -> Result<(), Box<dyn Error>> {
    let store = match &arguments.store {
        Some(root) => Store::at(root),
        None => Store::default_root(std::env::var_os("NANOCHAT_HOME").map(PathBuf::from))?,
    };
    let checkpoint = store.open_checkpoint(&arguments.checkpoint)?;
    let out = arguments.out.clone().unwrap_or_else(|| target.default_path());
    let bytes = match target {
        Target::Blend => {
            let blend = blend::learn(&checkpoint, &arguments.folders)?;
            if out.extension().is_some_and(|extension| extension == "ncz") {
                let (key, _) = store.load_key_or_create()?;
                store.install(&Checkpoint { blend, ..checkpoint }, &key, &out)?;
                return Ok(());
            }
            blend.weights().iter().flat_map(|weight| weight.to_le_bytes()).collect()
        }
        Target::Rerank => rerank::learn(&checkpoint, &arguments.folders)?,
        Target::Stop => stop::learn(&checkpoint, &arguments.folders)?,
    };
    std::fs::write(&out, bytes).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

/// Learns each target in a process of its own that cargo builds, so that it uses the weights that were learned before.
fn each_after_the_other(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    for target in &arguments.targets {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(["run", "--release", "--package", "nanochat-engine", "--example", "relearn", "--", target.name()]);
        if let Some(store) = &arguments.store {
            command.arg("--store").arg(std::path::absolute(store)?);
        }
        command.arg("--checkpoint").arg(std::path::absolute(&arguments.checkpoint)?);
        for folder in &arguments.folders {
            command.arg(std::path::absolute(folder)?);
        }
        println!("{}:", target.name());
        if !command.status()?.success() {
            return Err(format!("`relearn {}` failed, and the ones after it were not started", target.name()).into());
        }
    }
    Ok(())
}
