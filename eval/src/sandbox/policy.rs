//! What one command may do, in the form in which the helper receives it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::layers::Layer;

/// What kind of command runs. `Build` runs the user's own code, the others code from a system under evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Builds the unchanged workspace, which the user trusts: cargo may fetch crates and write its home. Resources are
    /// limited and no process survives; files and network are the user's.
    Build,
    /// Runs cargo with a candidate in the tree: the copy and the target folder are writable.
    Cargo,
    /// Runs the compiler with a candidate: the scratch folder of its tree is writable.
    Compile,
    /// Runs a program that contains a candidate: it can write to memory only.
    Execute,
}

/// The first argument of a helper process. No subcommand has such a name by accident.
pub(super) const MARK: &str = "--nanochat-sandbox-helper";
/// The same for the first process of the new process namespace.
pub(super) const INNER_MARK: &str = "--nanochat-sandbox-inner";
/// Id of the user that root switches to: the last but one that a container usually maps. The last is `nobody`, who
/// often owns services.
pub(super) const UNPRIVILEGED: u32 = 65_533;

/// Upper bounds for each process, or for all of them together where noted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Bounds {
    pub(super) address_space: u64, // bytes
    pub(super) cpu: Option<u64>,   // seconds
    pub(super) file: u64,          // bytes
    pub(super) open_files: Option<u64>,
    pub(super) n_processes: Option<u64>, // all together, threads included
}

/// The helper's instructions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Policy {
    /// The process that waits for the helper; when it is gone, so is the helper.
    pub(super) parent: u32,
    /// The layers to apply.
    pub(super) layers: Vec<Layer>,
    /// A layer that fails is reported and left out instead of ending the helper. Only for probing the machine.
    pub(super) is_probe: bool,
    /// Whether network and files are the user's: [`Access::Build`].
    pub(super) is_open: bool,
    /// Whether we are root for the kernel, whose processes it does not count.
    pub(super) is_root: bool,
    pub(super) bounds: Bounds,
    /// An empty folder in which the new root is assembled.
    pub(super) root_at: PathBuf,
    /// Folders and files to read and execute.
    pub(super) read: Vec<PathBuf>,
    /// Folders that are writable too.
    pub(super) write: Vec<PathBuf>,
    /// A folder in memory, and its size in bytes.
    pub(super) memory: Option<(PathBuf, u64)>,
}

/// A line that the helper writes to its status pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Status {
    /// The layers are applied, the command starts next.
    Confined { on: Vec<Layer>, missing: Vec<(Layer, String)> },
    /// A layer cannot be applied: nothing was run.
    Refused { layer: Option<Layer>, reason: String },
    /// The command cannot be started (`errno`).
    NotStarted { errno: i32 },
}

/// Address space of one process. The first build links and runs build scripts, rustc maps less than 2 GiB on large
/// crates, and a memory bomb has no end.
pub(super) const MAX_BUILD_ADDRESS_SPACE: u64 = 16 << 30;
const MAX_ADDRESS_SPACE: u64 = 8 << 30;
/// Largest file that one process may write.
pub(super) const MAX_FILE_BYTES: u64 = 2 << 30;
/// rustc starts a few threads per core, tests one; a fork bomb has no end.
const MAX_PROCESSES: u64 = 512;
const MAX_OPEN_FILES: u64 = 1024;
/// The temporary folder of a candidate's command. It counts as memory.
const MAX_TEMPORARY: u64 = 512 << 20;

impl Policy {
    /// The policy for one command and the folders that it works in.
    pub(super) fn new(access: Access, layers: &[Layer], timeout: Duration, paths: &SandboxPaths) -> Self {
        let candidate = Bounds {
            address_space: MAX_ADDRESS_SPACE,
            // Several threads may use several cores for as long as the clock allows.
            cpu: Some(timeout.as_secs().saturating_mul(8).saturating_add(10)),
            file: MAX_FILE_BYTES,
            open_files: Some(MAX_OPEN_FILES),
            n_processes: Some(MAX_PROCESSES),
        };
        let bounds = match access {
            Access::Build => Bounds {
                address_space: MAX_BUILD_ADDRESS_SPACE,
                cpu: None,
                file: MAX_FILE_BYTES,
                open_files: None,
                n_processes: None,
            },
            Access::Cargo | Access::Compile => candidate,
            Access::Execute => Bounds { file: MAX_TEMPORARY, ..candidate },
        };
        let layers = match access {
            Access::Build => {
                layers.iter().copied().filter(|layer| matches!(layer, Layer::Limits | Layer::Namespaces)).collect()
            }
            _ => layers.to_vec(),
        };
        let write = match access {
            Access::Build | Access::Execute => Vec::new(),
            Access::Cargo => vec![paths.tree.clone(), paths.target.clone(), paths.scratch.clone()],
            Access::Compile => vec![paths.scratch.clone()],
        };
        let mut read = paths.read.clone();
        read.extend([&paths.tree, &paths.scratch, &paths.target].map(Clone::clone));
        if access == Access::Cargo {
            // It may contain a token, but without it cargo does not know its registries.
            read.extend(["config.toml", "config"].map(|name| paths.cargo_home.join(name)));
        }
        read.retain(|path| path.exists());
        Self {
            parent: std::process::id(),
            layers,
            is_probe: false,
            is_open: access == Access::Build,
            is_root: paths.is_root,
            bounds,
            root_at: paths.root_at.clone(),
            read,
            write,
            memory: (access != Access::Build).then(|| (paths.temp.clone(), MAX_TEMPORARY)),
        }
    }
}

/// The folders that a policy refers to.
#[derive(Clone, Debug)]
pub(super) struct SandboxPaths {
    pub(super) is_root: bool,
    pub(super) root_at: PathBuf,
    pub(super) tree: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) target: PathBuf,
    pub(super) temp: PathBuf,
    pub(super) cargo_home: PathBuf,
    pub(super) read: Vec<PathBuf>,
}

/// What every command may read: the system's programs and libraries, the toolchain, the sources of crates. Nothing
/// here is the user's own, as credentials and settings are.
pub(super) fn readable(variable: impl Fn(&str) -> Option<OsString>) -> (Vec<PathBuf>, PathBuf) {
    const SYSTEM: [&str; 14] = [
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/nix/store",
        "/run/current-system",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/alternatives",
        "/etc/localtime",
    ];
    let home = variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let under_home = |name: &str| home.as_ref().map(|home| home.join(name)).unwrap_or_default();
    let of = |name: &str, default: &str| match variable(name).map(PathBuf::from) {
        Some(path) if path.is_absolute() => path,
        _ => under_home(default),
    };
    let (rustup, cargo) = (of("RUSTUP_HOME", ".rustup"), of("CARGO_HOME", ".cargo"));
    let mut paths: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    let toolchains = rustup.join("toolchains");
    // A linked toolchain is stored elsewhere.
    let linked = std::fs::read_dir(&toolchains).into_iter().flatten().flatten();
    paths.extend(linked.map(|entry| entry.path()).filter(|path| path.is_symlink()));
    paths.push(rustup);
    paths.extend(["bin", "registry", "git"].map(|name| cargo.join(name)));
    // A folder of programs is readable unless it is, or contains, the home folder.
    let is_private = |path: &Path| home.as_ref().is_some_and(|home| home.starts_with(path));
    let programs = variable("PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&programs).filter(|path| path.is_absolute() && !is_private(path)));
    let real: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    paths.extend(real.into_iter().filter(|path| !is_private(path)));
    paths.retain(|path| path.is_absolute() && path.exists());
    paths.sort();
    paths.dedup();
    // Folders inside a readable folder are redundant; parents sort before their children.
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.iter().any(|kept| path.starts_with(kept) && !kept.is_symlink()) {
            kept.push(path);
        }
    }
    (kept, cargo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_files_are_not_readable() {
        let home = tempfile::tempdir().expect("a temporary folder");
        for name in [".ssh", ".cargo/registry", ".cargo/bin", ".rustup/toolchains/x", "bin"] {
            std::fs::create_dir_all(home.path().join(name)).expect("a folder");
        }
        std::fs::write(home.path().join(".cargo/credentials.toml"), "token").expect("a file");
        let path = std::env::join_paths([home.path().to_path_buf(), home.path().join("bin"), "/".into(), "x".into()]);
        let path = path.expect("no colon");
        let (paths, cargo) = readable(|name| match name {
            "HOME" => Some(home.path().into()),
            "PATH" => Some(path.clone()),
            _ => None,
        });
        assert_eq!(cargo, home.path().join(".cargo"));
        for (name, allowed) in [
            (".ssh/id", false),
            (".cargo/credentials.toml", false),
            (".cargo/registry/src/a", true),
            (".rustup/toolchains/x/bin/rustc", true),
            ("bin/tool", true),
        ] {
            let path = home.path().join(name);
            assert_eq!(paths.iter().any(|root| path.starts_with(root)), allowed, "{name} in {paths:?}");
        }
    }
}
