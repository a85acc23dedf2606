//! The command line: what can be asked, and the help that says so.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use nanochat_engine::Config;
use nanochat_train::data::licence::PERMISSIVE;

use crate::command::eval::Eval;
use crate::position::Position;

/// Private Rust completions, trained on your own workspace, on your own machine.
///
/// `train` adapts a small ternary model to the workspace, `lsp` answers an editor's keystrokes with it,
/// `eval` measures what it gained. Nothing leaves the machine.
#[derive(Debug, Parser)]
#[command(
    name = "cargo-nanochat",
    bin_name = "cargo nanochat",
    display_name = "cargo-nanochat",
    version,
    styles = clap_cargo::style::CLAP_STYLING,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// The Cargo.toml of the workspace [default: the nearest one at or above the current folder]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) manifest_path: Option<PathBuf>,
    /// Let cargo use only what is already on this machine
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// Leave Cargo.lock as it is, which every command does without being asked
    #[arg(long, global = true)]
    pub(crate) locked: bool,
    /// Colour the output
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Colour::Auto, env = "CARGO_TERM_COLOR", hide_env = true, global = true)]
    pub(crate) color: Colour,
    /// Say less on stderr: errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more on stderr: counts and milliseconds (-vv: of each step)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Form of the data on stdout; `json` is one object per line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Human, global = true)]
    pub(crate) message_format: Format,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

/// Form of what is written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Complete(Complete),
    Try(Try),
    Train(Train),
    Eval(Box<Eval>),
    Pack(Pack),
    Verify(Verify),
    Key(Key),
    Bench(Bench),
    Tune(Tune),
    Lsp(Lsp),
}

/// Print one completion for a place in a file
///
/// Reads the file as it is on disk, puts the cursor at LINE:COL (both from 1; COL counts characters) and prints
/// the text that would be inserted. The workspace is the one the file lies in. Its other files and the sources of its
/// locked dependencies are the memory; the first time these are indexed, which takes seconds.
/// Prints nothing when silence is the better answer.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat complete src/lib.rs:12:9
  cargo nanochat complete src/lib.rs:12:9 --message-format json | jq .confidence
  cargo nanochat complete src/lib.rs:12:9 --model shared.ncz --max-lines 4

stdout: the completion. json: text, stop, confidence, sources (model or memory, per token), timings in ms.
Writes no file of the workspace. The cache folder keeps the index of the dependencies, and the data folder remembers
the version of a checkpoint that is new to it, so that an older one is refused from then on.")]
pub(crate) struct Complete {
    /// Where the cursor stands, e.g. `src/lib.rs:12:9`
    #[arg(value_name = "FILE:LINE:COL")]
    pub(crate) position: Position,
    /// Use this checkpoint instead of the workspace's own
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Most lines of the completion
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) max_lines: usize,
    /// Leave the dependencies out of the memory
    #[arg(long)]
    pub(crate) no_dependencies: bool,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// Train for a minute on this workspace, then complete places it has not seen
///
/// Holds whole files out, trains on the rest with a progress bar, signs, verifies and loads the checkpoint, then
/// completes places drawn by seed (not picked) from the held-out files and shows the truth beside each; of up to 200
/// it counts those that are exact. On a terminal it then completes what you type, until Ctrl-D.
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
pub(crate) struct Try {
    /// How long to train; the whole takes about half a minute more
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = duration)]
    pub(crate) time: Duration,
    /// Recipe to train with: a built-in name or a .toml file
    #[arg(long, value_name = "NAME", default_value = "try")]
    pub(crate) recipe: String,
    /// Held-out places to show; more are counted
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) places: usize,
    /// Which places are drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// Adapt the model to this workspace
///
/// Reads the .rs files of the workspace's members (not what .gitignore or .nanochatignore names, nor what is generated
/// or a copy), holds whole files out, trains, and installs a signed checkpoint that `complete`, `lsp` and `eval` then
/// use. The first run makes a signing key without a passphrase, readable by you only.
///
/// Ctrl-C stops after the current step and saves the state; the same command goes on from there. A second
/// Ctrl-C aborts at once. After a finished run it learns what has changed since, from the weights that it left;
/// where more than half of the code has changed, it begins afresh.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat train
  cargo nanochat train --time 10m
  cargo nanochat train --base team/base.ncz --time 10m
  cargo nanochat train --base team/base.ncz --forget src/keys
  cargo nanochat train --dependencies --time 1h
  cargo nanochat train --manifest-path ../other/Cargo.toml --recipe my.toml --restart
  cargo nanochat train --dependencies --pack corpus.ncs
  cargo nanochat train --packed corpus.ncs --recipe base --device cuda
  cargo nanochat train --message-format json | jq 'select(.event == \"step\") | .bits_per_byte'

stdout: the before/after table; with --forget also what has changed in the manifest.
json: one object per step (step, tokens, loss, bits_per_byte, tokens_per_s), then one with before,
after and checkpoint, with --forget also `forgot`.
With --pack the path on stdout; json: one object with file, files, tokens and bytes.
Writes to the data folder only: the key, the training state and the checkpoint; with --pack that file.")]
pub(crate) struct Train {
    /// Recipe: a built-in name or a .toml file [default: `default`, from a base `adapt`]
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
    /// Begin with the weights, the tokenizer and the shape of this checkpoint instead of fresh ones; `before` is what it
    /// is worth here
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// Train on the locked dependencies too whose licences are on this list of SPDX identifiers, parted by commas [default
    /// list: MIT, Apache-2.0, BSD-2-Clause, BSD-3-Clause, ISC, Zlib, Unlicense, 0BSD, CC0-1.0, MIT-0]
    #[arg(long, value_name = "LICENCES", num_args = 0..=1, value_delimiter = ',')]
    pub(crate) dependencies: Option<Vec<String>>,
    /// Optimizer steps, instead of the recipe's number
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) steps: Option<usize>,
    /// Stop by the clock instead, e.g. 90s, 10m, 1h30m; such a run is not repeatable bit for bit
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<Duration>,
    /// Seed of the weights and of the order of the data, instead of the recipe's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Start afresh even if an interrupted run could go on
    #[arg(long)]
    pub(crate) restart: bool,
    /// Try growing learning rates on at most 72 steps first, undo these, and use the recipe's rates times what was found
    #[arg(long)]
    pub(crate) find_lr: bool,
    /// Train afresh without this file or folder and keep it out of every later run; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) forget: Vec<PathBuf>,
    /// Let runs learn from a forgotten path again
    #[arg(long, value_name = "PATH")]
    pub(crate) remember: Vec<PathBuf>,
    /// Write what would be trained on to this file, as tokens without secrets, and train nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["packed", "forget", "remember"])]
    pub(crate) pack: Option<PathBuf>,
    /// Train on a file that `--pack` wrote, here or elsewhere, in place of the workspace's files. The checkpoint is the
    /// file's own, and its path is printed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dependencies", "forget", "remember"])]
    pub(crate) packed: Option<PathBuf>,
    /// Leave the machine to others: one worker at the lowest priority
    #[arg(long, conflicts_with = "threads")]
    pub(crate) background: bool,
    /// Where gradients are taken; `cuda` is the first NVIDIA GPU, in binaries that are built with it
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub(crate) device: Device,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

impl Train {
    /// The licences whose dependencies are trained on; `None` for the members alone.
    pub(crate) fn allowed_licences(&self) -> Option<Vec<String>> {
        let given = self.dependencies.clone()?;
        Some(if given.is_empty() { PERMISSIVE.iter().map(|name| (*name).to_owned()).collect() } else { given })
    }
}

/// Where the gradients of a step are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    Cpu,
    Cuda,
}

/// Write this workspace's checkpoint to a file that others can use
///
/// Verifies the installed checkpoint and writes it out, signed by your key. Whoever receives it runs
/// `cargo nanochat key trust` on your public key once.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat pack
  cargo nanochat pack -o team/model.ncz

stdout: the path. Writes that one file, whole or not at all.")]
pub(crate) struct Pack {
    /// Where to [default: NAME-vVERSION.ncz in the current folder]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Check a checkpoint's signature, trust and contents
///
/// Everything that loading does is done: bounded header, signature, trust and revocation, version mark, sizes,
/// hashes, decoding. Exit code 4 if anything is wrong. What a file by an unknown signer says of itself is shown,
/// as a claim.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat verify team/model.ncz && cp team/model.ncz /srv/models/

stdout: what the checkpoint says of itself. json: its manifest; by an unknown signer `{\"verified\":false,..}`
with the manifest in `claims`.
Writes no file.")]
pub(crate) struct Verify {
    /// The checkpoint
    pub(crate) file: PathBuf,
}

/// Signing keys: show yours, decide whom to trust
///
/// A checkpoint is loaded only if a trusted key signed it. Your own key is always trusted.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_long_help = "\
Examples:
  cargo nanochat key show > me.pub          give this file to your team
  cargo nanochat key trust colleague.pub
  cargo nanochat key revoke 1A2B3C4D5E6F7081

Public keys are in minisign's form. Writes to the data folder only."
)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) action: KeyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Print your public key; makes a key if there is none
    Show,
    /// List trusted and revoked keys
    List,
    /// Trust the public key in a file
    Trust {
        /// A minisign public key
        file: PathBuf,
        /// What to call it [default: the file's name]
        #[arg(long)]
        name: Option<String>,
    },
    /// Refuse a key from now on, whatever it signed
    Revoke {
        /// The key's id, as `key list` shows it
        id: String,
    },
}

/// Measure how fast this machine answers
///
/// Times a prompt from nothing and a keystroke behind 512 cached tokens, and sets both beside what this machine can
/// do at most, which is measured in the same run. A shape is measured with random weights: speed does not depend on
/// what a model has learned.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat bench
  cargo nanochat bench --shape d768l16h12kv3ff2048v16384n1 --threads 1
  cargo nanochat bench --model team.ncz --message-format json | jq .completion_ms_cached

stdout: the table. json: one object with decode_tokens_per_s, prompt_tokens_per_s, first_token_ms_cached,
completion_ms_cached, completion_ms_cold, peak_fraction (the prompt's, of the int8 peak), bandwidth_fraction
(decoding's, of the memory bandwidth; above 1 where caches serve it), resident_mb and what else the table shows.
Each time is the median of the runs. Writes to a temporary folder only, and removes it.")]
pub(crate) struct Bench {
    /// Width, layers, heads, key/value heads, MLP width, vocabulary, residual streams, and context if not 2048
    #[arg(long, value_name = "SHAPE", default_value = "d512l6h8kv2ff1536v12288n1", conflicts_with = "model")]
    pub(crate) shape: Config,
    /// Measure this checkpoint instead
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Completions to time, each from nothing and from the cache
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = at_least_one)]
    pub(crate) runs: usize,
}

/// Measure which routines are fastest here, and use them from now on
///
/// Times the routines that this processor has, in several block sizes, on the shapes of the workspace's checkpoint, in
/// about two seconds. The table is kept for this processor, number of cores and version; `complete`, `eval` and `lsp`
/// use it. What is suggested does not depend on it, only how fast. The server measures by itself when nobody types:
/// once, then when the table is a month old or the machine's speed is another by half.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat tune
  cargo nanochat tune --shape d512l6h8kv2ff1536v12288n1 --dry-run -v
  cargo nanochat tune --message-format json | jq '.candidates[] | select(.picked)'

stdout: what was picked; with -v, all that took part. json: one object with token_us, prompt_batch, was_busy,
candidates and table. stderr: progress.
Writes tune.toml in ~/.cache/nanochat or $NANOCHAT_HOME, whole or not at all.")]
pub(crate) struct Tune {
    /// Measure for this shape, not for the checkpoint's: width, layers, heads, key/value heads, MLP width, vocabulary,
    /// residual streams
    #[arg(long, value_name = "SHAPE")]
    pub(crate) shape: Option<Config>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Serve completions to an editor over stdin and stdout
///
/// Speaks the Language Server Protocol 3.18 (`textDocument/inlineCompletion`). An editor starts this; it ends
/// when the editor says so, closes stdin or dies.
#[derive(Debug, Args)]
#[command(after_long_help = "\
stdout belongs to the protocol; messages for people go to stderr.
Runs cargo only for a workspace that the editor says is trusted.")]
pub(crate) struct Lsp {
    /// For editors that insist on passing it; stdio is the only way
    #[arg(long, hide = true)]
    pub(crate) stdio: bool,
    /// End when this process ends
    #[arg(long, value_name = "PID", alias = "client-process-id", id = "clientProcessId")]
    pub(crate) client_process_id: Option<i32>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// Reads the command line. `cargo nanochat x` arrives as `cargo-nanochat nanochat x`; the bare form works too.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|arg| arg == "nanochat") {
        args.remove(1);
    }
    let mut command = Cli::command().after_long_help(after_help());
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn after_help() -> String {
    let mut text = String::from(
        "\
Examples:
  cargo nanochat try                        see it work, in about two minutes
  cargo nanochat train                      adapt it to this workspace
  cargo nanochat complete src/lib.rs:12:9   one completion, to stdout

Data goes to stdout; progress and messages to stderr.

Files:
  Keys, trust and each workspace's checkpoint lie in the data folder, ~/.local/share/nanochat on Linux, or in
  $NANOCHAT_HOME. What was measured of this machine lies in ~/.cache/nanochat, or there too. Workspaces themselves are
  only read.

Configuration (the first that says something holds):
  command line > NANOCHAT_RECIPE, NANOCHAT_SEED, NANOCHAT_THREADS > [package.metadata.nanochat] >
  [workspace.metadata.nanochat] > config.toml in ~/.config/nanochat or $NANOCHAT_HOME
  `train` reads recipe and seed; `train`, `try`, `eval`, `complete` and `tune` read threads. An editor's
  settings are those of `lsp`.

Exit codes:
",
    );
    for exit in crate::exit::Exit::ALL {
        text.push_str(&format!("  {:<3} {}\n", exit as u8, exit.meaning()));
    }
    text
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

/// `90`, `90s`, `10m`, `1h30m`: at most a week, so that sums cannot overflow.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a time; write it like 90s, 10m or 1h30m");
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let n_digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(n_digits);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let (unit, tail) = match tail.chars().next() {
            None => (1.0, tail),
            Some('s') => (1.0, &tail[1..]),
            Some('m') => (60.0, &tail[1..]),
            Some('h') => (3600.0, &tail[1..]),
            Some(_) => return Err(bad()),
        };
        seconds += number * unit;
        rest = tail;
    }
    if !(1.0..=7.0 * 24.0 * 3600.0).contains(&seconds) {
        return Err(if text.is_empty() { bad() } else { format!("`{text}` is not between a second and a week") });
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn both_argv_forms_say_the_same() {
        let through_cargo = parsed("cargo-nanochat nanochat verify --quiet x.ncz").expect("cargo's form");
        let bare = parsed("cargo-nanochat verify --quiet x.ncz").expect("the bare form");
        assert_eq!(format!("{through_cargo:?}"), format!("{bare:?}"));
    }

    #[test]
    fn dependencies_are_trained_on_by_the_list_or_the_default_one() {
        let allowed = |line: &str| match parsed(line).expect(line).command {
            Command::Train(train) => train.allowed_licences(),
            other => panic!("{other:?}"),
        };
        assert_eq!(allowed("cargo-nanochat train"), None);
        assert_eq!(allowed("cargo-nanochat train --dependencies --steps 3").expect("it was asked for"), PERMISSIVE);
        let list = allowed("cargo-nanochat train --dependencies MIT,MPL-2.0").expect("it was asked for");
        assert_eq!(list, ["MIT", "MPL-2.0"]);
        // The help states the list.
        let help = Cli::command().find_subcommand_mut("train").expect("a command").render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(&format!("[default list: {}]", PERMISSIVE.join(", "))), "{help}");
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        for line in ["cargo-nanochat --offline --color never train", "cargo-nanochat train --offline --color never"] {
            let cli = parsed(line).expect(line);
            assert!(cli.global.offline && cli.global.color == Colour::Never, "{line}");
        }
    }

    #[test]
    fn times_are_read_with_their_units() {
        let seconds = |text| duration(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("90"), Ok(90.0));
        assert_eq!(seconds("1.5m"), Ok(90.0));
        assert_eq!(seconds("1h30m5s"), Ok(5405.0));
        for text in ["", "0", "m", "-5s", "5d", "1e9", "999999999h", "nan", "1..5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
