//! Does it compile? The workspace is built once unchanged; then candidates are spliced into a copy, and their crates
//! are compiled to metadata with the command lines that cargo used, or by cargo where these cannot be read.

pub(crate) mod cache;
mod invocation;
mod messages;
mod batch;
mod tests_of;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use nanochat_engine::workspace::sources::{Package, unix_lines};
use nanochat_engine::{Cancel, Cancelled, Sources};

use crate::holes::hole::short_hash;
use crate::sandbox::{Access, Invocation, Mode, Origin, Sandbox, SandboxError, is_downloaded};
use cache::Cache;
use invocation::CrateUnit;

/// `rustc --version` may have to wait for a toolchain manager.
const VERSION_TIMEOUT: Duration = Duration::from_secs(60);

pub use batch::FilledHole;

/// A file's new text, to be compiled in place of the original.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Relative to the workspace's root, with `/`.
    pub file: String,
    /// The file's whole text.
    pub text: String,
}

/// The compiler's verdict on a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The compiler reports no error.
    Compiles,
    /// The compiler reports at least one error.
    Fails,
    /// The compiler was killed at the timeout.
    TimedOut,
}

/// The result of one compiler run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// Positions of the errors: file and byte range of each primary span, and of the macro calls around it.
    pub(crate) sites: Vec<(String, Range<usize>)>,
}

/// Time limits, parallelism and confinement of checks.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Time limit of one compiler run.
    pub timeout: Duration,
    /// Time limit of the first build, which compiles every dependency.
    pub build_timeout: Duration,
    /// Continue with the packages that compile if others do not.
    pub keep_going: bool,
    /// Call cargo with `--offline`.
    pub offline: bool,
    /// Number of parallel compilers, each with a copy of the tree.
    pub n_workers: usize,
    /// Copy files that ignore files exclude, too.
    pub with_ignored: bool,
    /// Build dependencies so that they can be linked: needed to run tests.
    pub linked: bool,
    /// Call cargo for every candidate instead of the compiler itself: slower, and the same verdicts.
    pub through_cargo: bool,
    /// The confinement that is required.
    pub sandbox: Mode,
    /// Folder that keeps built dependencies for the next run; `None` builds them each time and keeps nothing.
    pub cache: Option<PathBuf>,
}

/// A workspace in a sandbox that was built once and compiles.
#[derive(Debug)]
pub struct Checker {
    sandbox: Sandbox,
    options: CheckOptions,
    /// For each file cargo's `-p` argument for its package.
    packages: BTreeMap<String, String>,
    units: Vec<CrateUnit>,
    /// Indices in `units` of the crates that a file is part of.
    units_of: BTreeMap<String, Vec<usize>>,
    originals: BTreeMap<String, String>,
    rustc: String,
    /// A hash of the lock file, the compiler and the flags, as they were copied.
    locked: String,
    /// The result of [`Checker::compiled`], which is slow to compute.
    compiled: OnceLock<String>,
}

/// Why candidates cannot be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The folder has no manifest.
    #[error("no Cargo.toml in {root}; pass the root of a cargo workspace")]
    NoManifest {
        /// The folder that was searched.
        root: PathBuf,
    },
    /// The workspace does not compile as it is.
    #[error(
        "the workspace does not compile as it is, so nothing can be measured: {first}; what was compiled is a copy \
         without the files that ignore files name; if `cargo check` passes in place, copy them too with `--with-ignored`"
    )]
    Baseline {
        /// The first line of the first error.
        first: String,
    },
    /// The first build exceeded its time limit.
    #[error("the first build of the workspace took more than {minutes} minutes; allow more with `--build-timeout`")]
    BaselineTimeout {
        /// The limit in minutes.
        minutes: u64,
    },
    /// A spliced file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file in the sandbox.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The sandbox failed, or the caller cancelled.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl Checker {
    /// Copies the workspace and builds the packages that hold `files`, given relative to its root. Files that are
    /// missing in the copy or in every library and binary are not an error: see [`Checker::original`].
    pub fn new(
        sources: &Sources,
        files: &[String],
        options: CheckOptions,
        cancel: &Cancel,
    ) -> Result<Self, CheckError> {
        if !sources.root.join("Cargo.toml").is_file() {
            return Err(CheckError::NoManifest { root: sources.root.clone() });
        }
        let outside: Vec<PathBuf> = path_dependencies(sources).map(|package| package.folder.clone()).collect();
        let origin = Origin { root: &sources.root, path_dependencies: &outside, with_ignored: options.with_ignored };
        let sandbox = Sandbox::of(&origin, options.n_workers, options.sandbox)?;
        let packages: BTreeMap<String, String> =
            files.iter().filter_map(|file| Some((file.clone(), package_of(sources, file)?))).collect();
        let mut checker = Self {
            sandbox,
            options,
            packages,
            units: Vec::new(),
            units_of: BTreeMap::new(),
            originals: BTreeMap::new(),
            rustc: String::new(),
            locked: String::new(),
            compiled: OnceLock::new(),
        };
        checker.rustc = checker.rustc_version(cancel)?;
        checker.locked = checker.locked();
        checker.units = checker.build(cancel)?;
        checker.options.through_cargo |= checker.units.is_empty() && !checker.options.keep_going;
        let tree = checker.sandbox.tree(0);
        for file in files {
            let path = tree.join(file);
            let units = checker.units.iter().enumerate();
            let of_file: Vec<usize> =
                units.filter(|(_, unit)| unit.files.contains(&path)).map(|(unit_idx, _)| unit_idx).collect();
            let is_compiled = !of_file.is_empty() || checker.options.through_cargo;
            if !is_compiled || !checker.packages.contains_key(file) {
                continue;
            }
            if let Ok(text) = std::fs::read_to_string(&path) {
                checker.originals.insert(file.clone(), unix_lines(text));
                checker.units_of.insert(file.clone(), of_file);
            }
        }
        Ok(checker)
    }

    /// The text of a file as it was copied, with `\n` line ends; `None` if no library or binary is compiled from it.
    pub fn original(&self, file: &str) -> Option<&str> {
        self.originals.get(file).map(String::as_str)
    }

    /// Indices of the crates that a file is part of. Files with equal lists can be compiled together.
    pub(crate) fn units_of(&self, file: &str) -> &[usize] {
        self.units_of.get(file).map_or(&[], Vec::as_slice)
    }

    /// The sandbox in which every command runs.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The compiler, e.g. `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub fn rustc(&self) -> &str {
        &self.rustc
    }

    /// A hash of everything that a verdict depends on in addition to the candidate: all files that are compiled, the
    /// compiler, its flags and the time limit. The same in every copy.
    pub(crate) fn compiled(&self) -> &str {
        self.compiled.get_or_init(|| self.hash_compiled())
    }

    fn hash_compiled(&self) -> String {
        let base = self.sandbox.whole(0);
        let base = base.parent().unwrap_or(&base).to_string_lossy().into_owned();
        // The copy's path occurs in the output of build scripts, and for a package outside the root also in the hash
        // that names their output folder.
        let made_in: BTreeSet<(&str, &str)> = self
            .units
            .iter()
            .filter_map(|unit| Some((unit.variable("OUT_DIR")?, unit.variable("CARGO_PKG_NAME")?)))
            .collect();
        let anywhere = |text: &str| {
            let named = made_in.iter().fold(text.to_owned(), |text, (folder, package)| {
                text.replace(*folder, &format!("OUT_DIR of {package}"))
            });
            named.replace(&base, "")
        };
        let mut words: Vec<String> = vec![self.locked.clone(), self.options.timeout.as_secs().to_string()];
        let own = self.units.iter().flat_map(|unit| &unit.files).filter(|file| file.starts_with(&base)).cloned();
        // And what the commands do not name: features of dependencies, cargo's settings, and all files in case one of
        // the commands could not be read.
        let tree = ignore::WalkBuilder::new(self.sandbox.whole(0)).standard_filters(false).build();
        let is_read = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            ["Cargo.toml", "Cargo.lock", "config.toml"].iter().any(|read| name == *read)
                || path.extension().is_some_and(|extension| extension == "rs")
        };
        let tree = tree.flatten().map(ignore::DirEntry::into_path).filter(|path| path.is_file() && is_read(path));
        let hash = |file: PathBuf| {
            let text = std::fs::read(&file).unwrap_or_default();
            short_hash(&[&anywhere(&file.to_string_lossy()), &anywhere(&String::from_utf8_lossy(&text))])
        };
        // Sorted as hashes: neither the names of these folders nor the order of crates in cargo's output is stable.
        words.extend(own.chain(tree).collect::<BTreeSet<_>>().into_iter().map(hash).collect::<BTreeSet<_>>());
        // The hashes in the names of artefacts depend on the copy's path.
        let is_of_copy =
            |flag: &String| ["metadata=", "-filename=", ".rmeta", ".so", ".rlib"].iter().any(|of| flag.contains(of));
        let flags = |unit: &CrateUnit| {
            let flags = unit.invocation.args.iter().map(|flag| anywhere(&flag.to_string_lossy()));
            flags.filter(|flag| !is_of_copy(flag)).collect::<Vec<_>>().join("\n")
        };
        words.extend(self.units.iter().map(flags).collect::<BTreeSet<_>>());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        short_hash(&words)
    }

    /// One verdict per candidate, in their order. `done` is called with the number of finished ones.
    pub fn check(
        &self,
        candidates: &[Candidate],
        done: &mut dyn FnMut(usize),
        cancel: &Cancel,
    ) -> Result<Vec<Verdict>, CheckError> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            // An early return drops it, and the workers stop after their current candidate.
            let receiver = receiver;
            for tree_idx in 0..self.n_workers().min(candidates.len()) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while let idx = next.fetch_add(1, Ordering::Relaxed)
                        && let Some(candidate) = candidates.get(idx)
                        && sender.send((idx, self.check_one(candidate, tree_idx, cancel))).is_ok()
                    {}
                });
            }
            drop(sender);
            let mut verdicts = vec![Verdict::Fails; candidates.len()];
            for (n_done, (idx, verdict)) in receiver.iter().enumerate() {
                verdicts[idx] = verdict?;
                done(n_done + 1);
            }
            Ok(verdicts)
        })
    }

    /// Number of parallel workers. cargo locks its target folder and compares times, so it can use one tree only.
    fn n_workers(&self) -> usize {
        if self.options.through_cargo { 1 } else { self.sandbox.n_trees() }
    }

    fn check_one(&self, candidate: &Candidate, tree_idx: usize, cancel: &Cancel) -> Result<Verdict, CheckError> {
        if !self.originals.contains_key(&candidate.file) {
            return Ok(Verdict::Fails);
        }
        let texts = BTreeMap::from([(candidate.file.as_str(), candidate.text.as_str())]);
        self.compile(&texts, tree_idx, cancel).map(|outcome| outcome.verdict)
    }

    /// Compiles the crates that these files are part of, with these texts in their places, stopping at the first that
    /// does not compile. The files must be ones that [`Checker::original`] knows.
    pub(crate) fn compile(
        &self,
        texts: &BTreeMap<&str, &str>,
        tree_idx: usize,
        cancel: &Cancel,
    ) -> Result<Outcome, CheckError> {
        cancel.check().map_err(SandboxError::from)?;
        let tree = self.sandbox.tree(tree_idx);
        let write = |file: &str, text: &str| {
            let path = tree.join(file);
            std::fs::write(&path, text).map_err(|source| CheckError::Write { path, source })
        };
        let restore = || texts.keys().try_for_each(|file| write(file, &self.originals[*file]));
        let outcome = texts
            .iter()
            .try_for_each(|(file, text)| write(file, text))
            .and_then(|()| self.compile_as_written(texts.keys().copied(), tree_idx, cancel));
        restore()?;
        outcome
    }

    fn compile_as_written<'a>(
        &self,
        files: impl Iterator<Item = &'a str> + Clone,
        tree_idx: usize,
        cancel: &Cancel,
    ) -> Result<Outcome, CheckError> {
        let timeout = self.options.timeout;
        if self.options.through_cargo {
            let packages: BTreeSet<String> = files.map(|file| self.packages[file].clone()).collect();
            let packages: Vec<String> = packages.into_iter().collect();
            let finished = self.sandbox.run_as(Access::Cargo, &self.cargo(&packages), timeout, cancel)?;
            return Ok(messages::outcome(&finished, &finished.stdout));
        }
        let units: BTreeSet<usize> = files.flat_map(|file| self.units_of[file].iter().copied()).collect();
        for unit_idx in units {
            let invocation = self.moved(&self.units[unit_idx].invocation, tree_idx);
            let finished = self.sandbox.run(&invocation, timeout, cancel)?;
            let outcome = messages::outcome(&finished, &finished.stderr);
            if outcome.verdict != Verdict::Compiles {
                return Ok(outcome);
            }
        }
        Ok(Outcome { verdict: Verdict::Compiles, sites: Vec::new() })
    }

    /// The same command in another copy of the tree. cargo runs the compiler in the workspace's root.
    fn moved(&self, invocation: &Invocation, tree_idx: usize) -> Invocation {
        let (from, to) = (self.sandbox.whole(0), self.sandbox.whole(tree_idx));
        let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
        let shift = |text: &OsString| match text.to_str() {
            Some(text) => OsString::from(text.replace(from.as_ref(), &to)),
            None => text.clone(),
        };
        let mut args: Vec<OsString> = invocation.args.iter().map(shift).collect();
        args.extend(["--out-dir".into(), self.sandbox.scratch(tree_idx).into_os_string()]);
        Invocation {
            program: invocation.program.clone(),
            args,
            env: invocation.env.iter().map(|(name, value)| (name.clone(), shift(value))).collect(),
            folder: self.sandbox.tree(tree_idx),
        }
    }

    /// Builds the packages unchanged and returns the compiler's command lines.
    fn build(&self, cancel: &Cancel) -> Result<Vec<CrateUnit>, CheckError> {
        let mut packages: Vec<String> = self.packages.values().cloned().collect();
        packages.sort();
        packages.dedup();
        if packages.is_empty() {
            return Ok(Vec::new());
        }
        let mut invocation = self.cargo(&packages);
        if self.options.linked {
            invocation.args[0] = "build".into();
        }
        if self.options.keep_going {
            invocation.args.push("--keep-going".into());
        }
        let cache = self.options.cache.as_deref().map(|root| (Cache::new(root), self.locked.clone()));
        let is_warm = cache.as_ref().is_some_and(|(cache, key)| cache.take_build(key, &self.sandbox.target()));
        let finished = self.sandbox.run_as(Access::Build, &invocation, self.options.build_timeout, cancel)?;
        if finished.timed_out {
            return Err(CheckError::BaselineTimeout { minutes: self.options.build_timeout.as_secs() / 60 });
        }
        let stderr = String::from_utf8_lossy(&finished.stderr);
        let failed = messages::outcome(&finished, &finished.stdout).verdict != Verdict::Compiles;
        let (tree, whole) = (self.sandbox.tree(0), self.sandbox.whole(0));
        let (own, others): (Vec<CrateUnit>, Vec<CrateUnit>) =
            invocation::units(&stderr, &tree).into_iter().partition(|unit| unit.is_within(&whole));
        // If nothing at all was built, the cause is not a single package.
        if failed && (own.is_empty() || !self.options.keep_going) {
            let said = || stderr.lines().find(|line| line.starts_with("error")).map(str::to_owned);
            let first = messages::errors(&finished.stdout).next().map(|error| error.line).or_else(said);
            let first = first.unwrap_or_else(|| "cargo said nothing".to_owned());
            return Err(CheckError::Baseline { first });
        }
        // Kept before any candidate is compiled, so that it holds cargo's output only.
        if let Some((cache, key)) = cache
            && !(is_warm && others.is_empty())
        {
            let own: Vec<String> = own.iter().map(|unit| unit.extra.clone()).filter(|extra| extra.len() > 8).collect();
            cache.keep_build(&key, &self.sandbox.target(), &own);
        }
        Ok(own)
    }

    fn locked(&self) -> String {
        const FLAGS: [&str; 4] = [".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"];
        let tree = self.sandbox.tree(0);
        let read = |name: &str| std::fs::read_to_string(tree.join(name)).unwrap_or_default();
        let flags = FLAGS.map(read);
        let [a, b, c, d] = &flags;
        short_hash(&[&read("Cargo.lock"), &self.rustc, self.sandbox.level(), a, b, c, d])
    }

    fn cargo(&self, packages: &[String]) -> Invocation {
        let mut args: Vec<OsString> = ["check", "-vv", "--message-format", "json"].map(OsString::from).into();
        if self.options.offline {
            args.push("--offline".into());
        }
        for package in packages {
            args.extend(["-p".into(), package.into()]);
        }
        let env = [
            ("CARGO_TARGET_DIR", self.sandbox.target().into_os_string()),
            ("CARGO_INCREMENTAL", "0".into()),
            ("CARGO_TERM_COLOR", "never".into()),
            ("RUSTC_WRAPPER", "".into()), // a cache of compilations would answer for the compiler
            ("RUSTUP_AUTO_INSTALL", "0".into()), // a `rust-toolchain.toml` must not change the user's toolchains
        ];
        Invocation {
            program: "cargo".into(),
            args,
            env: env.map(|(name, value)| (name.into(), value)).into(),
            folder: self.sandbox.tree(0),
        }
    }

    fn rustc_version(&self, cancel: &Cancel) -> Result<String, CheckError> {
        let invocation = Invocation {
            program: "rustc".into(),
            args: vec!["--version".into()],
            env: Vec::new(),
            folder: self.sandbox.tree(0),
        };
        let finished = self.sandbox.run(&invocation, VERSION_TIMEOUT, cancel)?;
        Ok(String::from_utf8_lossy(&finished.stdout).trim().to_owned())
    }
}

impl CheckError {
    /// The cancellation, if that is the cause.
    pub fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Sandbox(SandboxError::Cancelled(cancelled)) => Some(*cancelled),
            _ => None,
        }
    }
}

/// The packages outside of the root that the workspace depends on by path. They are copied with it, since they may
/// change.
pub(crate) fn path_dependencies(sources: &Sources) -> impl Iterator<Item = &Package> {
    let is_outside =
        move |package: &&Package| !package.folder.starts_with(&sources.root) && !is_downloaded(&package.folder);
    sources.packages.iter().filter(is_outside)
}

/// The member that contains a file, in the form of cargo's `-p` argument.
fn package_of(sources: &Sources, file: &str) -> Option<String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let path = real(&sources.root.join(file));
    let folder = |package: &Package| real(&sources.root.join(&package.folder));
    let holds = sources.members().filter(|package| path.starts_with(folder(package)));
    let package = holds.max_by_key(|package| folder(package).components().count())?;
    Some(format!("{}@{}", package.name, package.version))
}
