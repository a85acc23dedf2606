//! What is evaluated on: the suite, how much of it, and where the records go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use nanochat_engine::{Checkpoint, Sources};
use nanochat_eval::Knowledge;
use nanochat_eval::suite::{CrateList, List, Shard, Suite, SuiteError, touched_last};
use nanochat_lsp::workspace::{self, CargoUse};

use super::super::training::HeldOutList;
use crate::context::Context;
use crate::exit::InputError;
use crate::values::{at_least_one, duration};

/// Holes of a workspace, where no number is given.
const HOLES_OF_WORKSPACE: usize = 60;
/// Holes of each crate in a suite of crates, where no number is given.
const HOLES_OF_CRATE: usize = 120;
/// Holes of `--quick`.
const HOLES_OF_QUICK: usize = 32;

/// Flags of the suite and of the run's stages.
#[derive(Debug, Args)]
#[command(next_help_heading = "Suite")]
pub(super) struct SuiteArgs {
    /// `workspace`: files that training held out; `crates` or `develop`: published crates at locked versions;
    /// `humaneval-x`: functions with tests; FILE.toml: workspaces of your own
    #[arg(long, value_name = "NAME|FILE", default_value = "workspace")]
    suite: String,
    /// The data of `humaneval-x`, JSON by line
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Only this crate of a suite of crates; may be repeated
    #[arg(long = "crate", value_name = "NAME")]
    crates: Vec<String>,
    /// Let cargo download the sources of a suite of crates
    #[arg(long, conflicts_with = "offline")]
    fetch: bool,
    /// For the suite `workspace`, hold out this many files that git saw changed last instead; those that the checkpoint
    /// was trained on are dropped and counted
    #[arg(long, value_name = "FILES", value_parser = at_least_one)]
    touched_last: Option<usize>,
    /// Maximum number of holes, for a suite of crates per crate [default: 60, per crate 120]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    holes: Option<usize>,
    /// A quick look: 32 holes
    #[arg(long, conflicts_with = "holes")]
    quick: bool,
    /// What the systems know besides the current file [default: both; for humaneval-x nothing]
    #[arg(long, value_name = "WHAT", value_enum)]
    known: Option<KnownArg>,
    /// Seed of the random choice of holes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
    /// Longest time that one compiler run may take
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(super) timeout: Duration,
    /// Longest time that building the unchanged suite may take
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = duration)]
    pub(super) build_timeout: Duration,
    /// Also copy what ignore files name for checking: generated sources that the build needs
    #[arg(long)]
    pub(super) with_ignored: bool,
    /// Compilers that run at once; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) jobs: usize,
    /// Rebuild the suite's dependencies and filter every hole again, whatever an earlier run has cached
    #[arg(long)]
    pub(super) fresh: bool,
    /// Keep the records in this folder, and resume from those that are there
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// One part of the suite's projects, e.g. 1/4; `merge` puts the parts together
    #[arg(long, value_name = "I/N", requires = "out")]
    pub(super) shard: Option<Shard>,
    /// Afterwards compile N completions again, each alone, and report whether the verdicts agree
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(super) audit: Option<usize>,
    /// Baselines only: needs no checkpoint
    #[arg(long)]
    pub(super) without_model: bool,
    /// Evaluate this checkpoint in place of the workspace's
    #[arg(long, value_name = "FILE", conflicts_with = "without_model")]
    pub(super) checkpoint: Option<PathBuf>,
}

/// `--known`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KnownArg {
    /// The project's other files
    Files,
    /// The sources of its locked dependencies
    Dependencies,
    /// The project's other files and the sources of its dependencies
    Both,
    /// Only the current file
    Nothing,
}

impl SuiteArgs {
    /// Whether the suite is the current workspace, or the model is that of the workspace.
    pub(super) fn needs_workspace(&self) -> bool {
        self.suite == "workspace" || !(self.without_model || self.checkpoint.is_some())
    }

    /// The suite's projects, limited to what the systems may know of them. Only the suite `workspace` needs `workspace`
    /// and `checkpoint`.
    pub(super) fn suite(
        &self,
        context: &Context,
        workspace: Option<&Sources>,
        checkpoint: Option<&Checkpoint>,
    ) -> anyhow::Result<Suite> {
        let mut suite = self.projects(context, workspace, checkpoint)?;
        let knowledge = self.known.map(|known| match known {
            KnownArg::Files => Knowledge::Files,
            KnownArg::Dependencies => Knowledge::Dependencies,
            KnownArg::Both => Knowledge::Both,
            KnownArg::Nothing => Knowledge::Nothing,
        });
        if let Some(knowledge) = knowledge {
            suite.limit(knowledge);
        }
        Ok(suite)
    }

    fn projects(
        &self,
        context: &Context,
        workspace: Option<&Sources>,
        checkpoint: Option<&Checkpoint>,
    ) -> anyhow::Result<Suite> {
        let holes = |default| self.holes.unwrap_or(if self.quick { HOLES_OF_QUICK } else { default });
        match self.suite.as_str() {
            "workspace" => {
                let sources = workspace.ok_or_else(|| InputError("there is no workspace here".to_owned()))?;
                let held_out = match (self.touched_last, checkpoint) {
                    (Some(n), _) => touched_last(&sources.root, n)?,
                    (None, Some(checkpoint)) => HeldOutList::load(&context.store, &sources.root, checkpoint)?,
                    (None, None) => {
                        let why = "without a checkpoint nothing is held out; pass --touched-last FILES";
                        return Err(InputError(why.to_owned()).into());
                    }
                };
                Ok(Suite::workspace(sources, &held_out, holes(HOLES_OF_WORKSPACE))?)
            }
            "crates" => self.crates(context, CrateList::Report, holes(HOLES_OF_CRATE)),
            "humaneval-x" => {
                let data = self.data.as_deref().ok_or_else(|| {
                    InputError("humaneval-x needs its data; pass --data humaneval_rust.jsonl".to_owned())
                })?;
                let sources = self.sources(context, Suite::write_humaneval)?;
                Ok(Suite::humaneval(data, &sources)?)
            }
            "develop" => self.crates(context, CrateList::Develop, holes(HOLES_OF_CRATE)),
            file => {
                let path = Path::new(file);
                if path.extension().is_none_or(|extension| extension != "toml") {
                    let why = format!(
                        "there is no suite {file}; it is workspace, crates, develop, humaneval-x or a .toml file"
                    );
                    return Err(InputError(why).into());
                }
                let list = List::load(path)?;
                let sources: Vec<Sources> = list
                    .workspace
                    .iter()
                    .map(|workspace| Ok(context.workspace(&workspace.path)?.sources))
                    .collect::<anyhow::Result<_>>()?;
                Ok(Suite::listed(&list, &sources, holes(HOLES_OF_WORKSPACE))?)
            }
        }
    }

    fn crates(&self, context: &Context, list: CrateList, holes: usize) -> anyhow::Result<Suite> {
        let sources = self.sources(context, |folder| list.write(folder))?;
        Ok(Suite::crates(list, &sources, &self.crates, holes)?)
    }

    /// The sources of a package that `write` writes, with those of its dependencies that are on this machine.
    fn sources(
        &self,
        context: &Context,
        write: impl FnOnce(&Path) -> Result<(), SuiteError>,
    ) -> anyhow::Result<Sources> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        write(folder.path())?;
        let manifest = folder.path().join("Cargo.toml");
        if self.fetch {
            context.output.note("cargo downloads the suite's crates and their dependencies");
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let status = Command::new(cargo)
                .args(["fetch", "--locked", "--quiet", "--manifest-path"])
                .arg(&manifest)
                .stdout(std::process::Stdio::null())
                .status()
                .context("running cargo")?;
            if !status.success() {
                return Err(InputError("cargo could not download the suite's crates".to_owned()).into());
            }
        }
        Ok(workspace::load(&manifest, CargoUse::Run { offline: true, locked: true })?)
    }

    /// Folders of the user's own workspaces that cargo will be run in, found without running it.
    pub(super) fn folders(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        if self.needs_workspace() {
            folders.push(PathBuf::from("."));
        }
        let path = Path::new(&self.suite);
        if path.extension().is_some_and(|extension| extension == "toml") {
            folders.extend(List::load(path)?.workspace.into_iter().map(|workspace| workspace.path));
        }
        Ok(folders)
    }

    /// Whether cargo must not download: `--offline`, or a suite whose sources are there already or come by `--fetch`.
    pub(super) fn is_offline(&self, context: &Context) -> bool {
        context.is_offline() || matches!(self.suite.as_str(), "crates" | "develop" | "humaneval-x")
    }
}
