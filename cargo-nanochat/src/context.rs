//! What every command starts from: the output, the data folder, the workspace.

use std::path::{Path, PathBuf};

use clap::Args;
use etcetera::BaseStrategy as _;
use nanochat_engine::tune::{self, Plans};
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Config, Sources};
use nanochat_lsp::workspace::{self, CargoUse};

use crate::exit::InputError;
use crate::output::Output;
use crate::settings::Settings;

/// Which workspace, and what cargo may do with it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct WorkspaceArgs {
    /// The Cargo.toml of the workspace [default: the nearest one at or above the current folder]
    #[arg(long, value_name = "PATH", global = true)]
    manifest_path: Option<PathBuf>,
    /// Let cargo use only what is already on this machine
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// Leave Cargo.lock unchanged, which every command does anyway
    #[arg(long, global = true)]
    locked: bool,
}

/// The parsed common options, ready to use.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) output: Output,
    pub(crate) store: Store,
    args: WorkspaceArgs,
}

/// The workspace that a command works on.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) sources: Sources,
    pub(crate) settings: Settings,
}

impl Context {
    pub(crate) fn new(args: WorkspaceArgs, output: Output) -> anyhow::Result<Self> {
        Ok(Self { output, store: Store::default_root(home())?, args })
    }

    /// Whether cargo is to use only what is on this machine.
    pub(crate) fn is_offline(&self) -> bool {
        self.args.offline
    }

    /// What the autotuner picked for a model on this machine. A table that cannot be used is reported, and the defaults
    /// are taken.
    pub(crate) fn plans(&self, config: &Config, n_threads: usize) -> Plans {
        let (plans, complaint) = tune::plans(&self.store.tune_path(), config, n_threads);
        if let Some(complaint) = complaint {
            self.output.note(complaint);
        }
        plans
    }

    /// The workspace of `--manifest-path` or of the current folder.
    pub(crate) fn current_workspace(&self) -> anyhow::Result<Workspace> {
        self.workspace(Path::new("."))
    }

    /// A file in the place of a workspace; cargo is not asked about it.
    pub(crate) fn file_as_workspace(&self, file: &Path) -> anyhow::Result<Workspace> {
        let file = file.canonicalize().map_err(|error| InputError(format!("{}: {error}", file.display())))?;
        Ok(Workspace { sources: Sources::folder(&file), settings: Settings::of_user(&config_file()?)? })
    }

    /// The root of [`Context::workspace`], found without running anything that it configures.
    pub(crate) fn unrun_root(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let manifest = self.manifest(folder)?;
        Ok(workspace::load(&manifest, CargoUse::Never)?.root)
    }

    fn manifest(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        Ok(match &self.args.manifest_path {
            Some(path) => checked_manifest(path)?,
            None => workspace::find_manifest(&absolute(folder)?)?,
        })
    }

    /// The workspace of `--manifest-path`, or the one that contains `folder`. The user runs this command, so cargo may
    /// be run.
    pub(crate) fn workspace(&self, folder: &Path) -> anyhow::Result<Workspace> {
        let manifest = self.manifest(folder)?;
        let cargo = CargoUse::Run { offline: self.args.offline, locked: self.args.locked };
        let sources = workspace::load(&manifest, cargo)?;
        let settings = Settings::load(&manifest, &sources.root, &config_file()?)?;
        Ok(Workspace { sources, settings })
    }
}

/// An absolute path, so that a bare `Cargo.toml` has a folder.
fn checked_manifest(path: &Path) -> Result<PathBuf, InputError> {
    if path.is_dir() {
        let inside = path.join("Cargo.toml");
        return Err(InputError(format!("{} is a folder; pass its manifest: {}", path.display(), inside.display())));
    }
    if !path.is_file() {
        return Err(InputError(format!("there is no manifest at {}", path.display())));
    }
    if path.file_name().is_none_or(|name| name != "Cargo.toml") {
        return Err(InputError(format!("{} is not a Cargo.toml", path.display())));
    }
    absolute(path)
}

/// The absolute form of `path`, which need not exist.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, InputError> {
    std::path::absolute(path).map_err(|error| InputError(format!("{}: {error}", path.display())))
}

fn config_file() -> Result<PathBuf, InputError> {
    if let Some(home) = home() {
        return Ok(home.join("config.toml"));
    }
    let base = etcetera::choose_base_strategy()
        .map_err(|_| InputError("there is no home folder to look for settings in; set NANOCHAT_HOME".to_owned()))?;
    Ok(base.config_dir().join("nanochat/config.toml"))
}

/// `$NANOCHAT_HOME`: one folder for data, cache and configuration.
fn home() -> Option<PathBuf> {
    std::env::var_os("NANOCHAT_HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}
