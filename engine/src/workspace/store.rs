//! The user's data directory: keys, trust, version marks and each workspace's checkpoints.
//!
//! ```text
//! ~/.local/share/nanochat/            (or $NANOCHAT_HOME, passed in by the binary)
//!   key.secret                        not encrypted, mode 0600, made by the first `train`
//!   key.pub                           its minisign public key
//!   trust.toml                        trusted and revoked keys
//!   marks.toml                        highest version opened, per key and model
//!   lock                              held while one of these is changed
//!   workspaces/<name>-<hash of root>/ checkpoint.ncz, held_out.json (the files that training held out)
//!                                     training/ (its state), and trusted (its root, where the user lets cargo
//!                                     run what it configures)
//! ~/.cache/nanochat/                  (or $NANOCHAT_HOME too)
//!   tune.toml                         what the autotuner measured on this machine
//!   eval/                             dependencies that evaluations built, and which holes passed the filters
//!   memory/                           indexes of dependencies, for all workspaces
//! ```

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::Checkpoint;
use crate::checkpoint::{CheckpointError, KeyId, Manifest, PublicKey, SecretKey, SignError, Trust};

mod durable;
mod tables;

pub use durable::write_durably;

/// The data directory.
///
/// ```
/// use std::path::Path;
/// use nanochat_engine::workspace::store::Store;
///
/// let folder = tempfile::tempdir()?;
/// let store = Store::at(folder.path());
/// let (key, was_created) = store.load_key_or_create()?;
/// assert!(was_created);
/// assert!(store.load_trust()?.trusted(key.public().id()).is_some(), "users trust their own key");
/// assert!(store.checkpoint_path(Path::new("my-crate")).starts_with(folder.path()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
    /// Where data that can be recomputed is kept; below the root unless the platform has a place for it.
    cache: PathBuf,
}

/// Why an operation on the data directory failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The platform has no place for the user's data.
    #[error("there is no home directory to keep keys and checkpoints in; set NANOCHAT_HOME to a folder")]
    NoHome,
    /// The file system refused.
    #[error("cannot {action} {} ({source}); check the path, its permissions and the free space", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder that it was tried on.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// A key file does not hold a key.
    #[error("{}: {source}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        source: SignError,
    },
    /// Other users can read the signing key, and may have.
    #[error(
        "the signing key {} can be read by other users; delete it to have a new one made, or run `chmod 600` on it if nobody did (a file system without modes cannot keep it: set NANOCHAT_HOME to another)",
        path.display()
    )]
    KeyExposed {
        /// The key file.
        path: PathBuf,
    },
    /// `trust.toml` or `marks.toml` does not hold what it should.
    #[error("{} cannot be read ({reason}); correct it, or move it away to start with an empty one", path.display())]
    Table {
        /// The file that cannot be read.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two keys would have one id.
    #[error("another key with id {id} is already trusted as `{name}`; ask the owner of the new one to make another")]
    KeyIdTaken {
        /// The id that the two keys share.
        id: KeyId,
        /// The name under which the first is trusted.
        name: String,
    },
    /// The key was revoked before.
    #[error("key {id} is revoked; delete its entry in `trust.toml` if that was a mistake, or use another key")]
    Revoked {
        /// The id of the key.
        id: KeyId,
    },
    /// There is no checkpoint yet.
    #[error("there is no checkpoint at {}; run `cargo nanochat train`", path.display())]
    Missing {
        /// The path where it was expected.
        path: PathBuf,
    },
    /// The checkpoint is not usable, or could not be written.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The file of the checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        source: CheckpointError,
    },
}

impl Store {
    /// A store rooted at `root`, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { cache: root.clone(), root }
    }

    /// The store at `env_home` (the value of NANOCHAT_HOME), or where the platform keeps users' data.
    pub fn default_root(env_home: Option<PathBuf>) -> Result<Self, StoreError> {
        match env_home.filter(|home| !home.as_os_str().is_empty()) {
            Some(home) => {
                let root = std::path::absolute(&home).map_err(io_error("find", &home))?;
                Ok(Self::at(root))
            }
            None => {
                let strategy = etcetera::choose_base_strategy().map_err(|_| StoreError::NoHome)?;
                let [root, cache] = [strategy.data_dir(), strategy.cache_dir()].map(|dir| dir.join("nanochat"));
                Ok(Self { root, cache })
            }
        }
    }

    /// The root folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a workspace's checkpoint, whether or not it exists.
    pub fn checkpoint_path(&self, workspace_root: &Path) -> PathBuf {
        self.workspace_dir(workspace_root).join("checkpoint.ncz")
    }

    /// The folder of a workspace's training state, whether or not it exists.
    pub fn state_dir(&self, workspace_root: &Path) -> PathBuf {
        self.workspace_dir(workspace_root).join("training")
    }

    /// The path of the autotuner's table, whether or not it exists: see [`crate::tune`].
    pub fn tune_path(&self) -> PathBuf {
        self.cache.join("tune.toml")
    }

    /// The folder where evaluations keep what the next one can reuse, whether or not it exists.
    pub fn eval_cache_path(&self) -> PathBuf {
        self.cache.join("eval")
    }

    /// The folder of the indexes of dependencies: see [`crate::workspace::cache`].
    pub fn memory_dir(&self) -> PathBuf {
        self.cache.join("memory")
    }

    /// The path of the user's own public key, whether or not it exists; others need this file to trust the user.
    pub fn public_key_path(&self) -> PathBuf {
        self.root.join("key.pub")
    }

    /// The path of the user's own secret key, whether or not it exists.
    pub fn secret_key_path(&self) -> PathBuf {
        self.root.join("key.secret")
    }

    /// The user's own key, and whether it was made just now. Of processes that make one at the same time, the
    /// first wins and the others take its key. A key that other users can read is refused, not repaired: a
    /// silent `chmod` would hide that it may have been copied.
    pub fn load_key_or_create(&self) -> Result<(SecretKey, bool), StoreError> {
        let path = self.secret_key_path();
        let mut created = false;
        let key = match self.load_key()? {
            Some(key) => key,
            None => {
                let fresh = SecretKey::generate().map_err(|source| StoreError::Key { path: path.clone(), source })?;
                created =
                    durable::create_private(&path, fresh.to_text().as_bytes()).map_err(io_error("create", &path))?;
                // Read back: if another process was faster, it is that one's key.
                self.load_key()?.ok_or_else(|| StoreError::Missing { path: path.clone() })?
            }
        };
        let (path, text) = (self.public_key_path(), key.public().to_string());
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            write_file(&path, text.as_bytes())?;
        }
        Ok((key, created))
    }

    /// The user's own public key, if there is one.
    pub fn load_public_key(&self) -> Result<Option<PublicKey>, StoreError> {
        let path = self.public_key_path();
        let text = read_if_there(&path)?;
        text.map(|text| text.parse().map_err(|source| StoreError::Key { path, source })).transpose()
    }

    /// What this user trusts: their own key, those of `trust.toml`, and the marks of `marks.toml`.
    pub fn load_trust(&self) -> Result<Trust, StoreError> {
        let mut trust = self.load_tables()?;
        if let Some(key) = self.load_public_key()? {
            trust.keys.retain(|trusted| trusted.key.id() != key.id());
            trust.keys.insert(0, crate::checkpoint::TrustedKey { key, name: OWN_KEY.to_owned() });
        }
        Ok(trust)
    }

    /// Trusts a key from now on, or renames it.
    pub fn trust_key(&self, name: &str, key: PublicKey) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let known = self.load_trust()?;
        if known.is_revoked(&key) {
            return Err(StoreError::Revoked { id: key.id() });
        }
        if let Some(other) = known.trusted(key.id()).filter(|other| !other.key.is_same_key(&key)) {
            return Err(StoreError::KeyIdTaken { id: key.id(), name: other.name.clone() });
        }
        let mut trust = self.load_tables()?;
        trust.keys.retain(|trusted| !trusted.key.is_same_key(&key));
        trust.keys.push(crate::checkpoint::TrustedKey { key, name: name.to_owned() });
        self.save_keys(&trust)
    }

    /// Refuses a key from now on, trusted or not, the user's own included.
    pub fn revoke_key(&self, key: PublicKey) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut trust = self.load_tables()?;
        trust.keys.retain(|trusted| !trusted.key.is_same_key(&key));
        if !trust.is_revoked(&key) {
            trust.revoked.push(key);
        }
        self.save_keys(&trust)
    }

    /// Remembers that this version was opened: lower ones are refused from now on. A mark never falls.
    pub fn save_mark(&self, key: KeyId, model_id: &str, version: u64) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        self.raise_mark(key, model_id, version)
    }

    /// Signs a checkpoint with the next version and writes it to `path`, whole or not at all. The version is above
    /// every version that this key gave this model, and at least `checkpoint.manifest.version`.
    pub fn install(&self, checkpoint: &Checkpoint, key: &SecretKey, path: &Path) -> Result<Manifest, StoreError> {
        let _lock = self.lock()?;
        let trust = self.load_trust()?;
        let public = key.public();
        if trust.is_revoked(&public) {
            return Err(StoreError::Revoked { id: public.id() });
        }
        let mut next = checkpoint.clone();
        let mark = trust.mark(public.id(), &next.manifest.model_id);
        next.manifest.version = next.manifest.version.max(mark.saturating_add(1));
        let written = write_durably(path, |out| next.write(out, key));
        let manifest = written.map_err(|source| StoreError::Checkpoint { path: path.to_owned(), source })?;
        self.raise_mark(public.id(), &manifest.model_id, manifest.version)?;
        Ok(manifest)
    }

    /// Whether the user allowed cargo to run what this workspace configures. A workspace that moved is another one.
    pub fn trusts_workspace(&self, workspace_root: &Path) -> Result<bool, StoreError> {
        let record = read_if_there(&self.workspace_dir(workspace_root).join(TRUSTED))?;
        Ok(record.is_some_and(|record| record == trusted_text(workspace_root)))
    }

    /// Remembers that the user allowed cargo to run what this workspace configures.
    pub fn trust_workspace(&self, workspace_root: &Path) -> Result<(), StoreError> {
        let path = self.workspace_dir(workspace_root).join(TRUSTED);
        write_file(&path, trusted_text(workspace_root).as_bytes())
    }

    /// Opens a checkpoint with this user's trust, and remembers its version.
    pub fn open_checkpoint(&self, path: &Path) -> Result<Checkpoint, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(io_error("open", path)(error)),
        };
        let trust = self.load_trust()?;
        let (checkpoint, key) = Checkpoint::open_signed(BufReader::new(file), &trust)
            .map_err(|source| StoreError::Checkpoint { path: path.to_owned(), source })?;
        let Manifest { model_id, version, .. } = &checkpoint.manifest;
        if trust.mark(key, model_id) < *version {
            self.save_mark(key, model_id, *version)?;
        }
        Ok(checkpoint)
    }

    /// `workspaces/<name>-<hash>`: the name is for people, the hash of the whole path distinguishes equal names.
    fn workspace_dir(&self, workspace_root: &Path) -> PathBuf {
        let absolute = || std::path::absolute(workspace_root).unwrap_or_else(|_| workspace_root.to_owned());
        let root = fs::canonicalize(workspace_root).unwrap_or_else(|_| absolute());
        let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let slug = name.chars().take(40).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
        let hash = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        self.root.join("workspaces").join(format!("{}-{}", slug.collect::<String>(), &hash[..16]))
    }

    fn load_key(&self) -> Result<Option<SecretKey>, StoreError> {
        let path = self.secret_key_path();
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        if durable::is_exposed(&path).map_err(io_error("look at", &path))? {
            return Err(StoreError::KeyExposed { path });
        }
        SecretKey::from_text(&text).map(Some).map_err(|source| StoreError::Key { path, source })
    }

    fn load_tables(&self) -> Result<Trust, StoreError> {
        let (keys, marks) = (self.root.join(TRUST), self.root.join(MARKS));
        let mut trust = Trust::default();
        if let Some(text) = read_if_there(&keys)? {
            tables::read_keys(&text, &mut trust).map_err(|reason| StoreError::Table { path: keys, reason })?;
        }
        if let Some(text) = read_if_there(&marks)? {
            tables::read_marks(&text, &mut trust).map_err(|reason| StoreError::Table { path: marks, reason })?;
        }
        Ok(trust)
    }

    fn save_keys(&self, trust: &Trust) -> Result<(), StoreError> {
        write_file(&self.root.join(TRUST), tables::keys_text(trust).as_bytes())
    }

    /// The lock must be held.
    fn raise_mark(&self, key: KeyId, model_id: &str, version: u64) -> Result<(), StoreError> {
        let mut trust = self.load_tables()?;
        let mark = trust.marks.entry((key, model_id.to_owned())).or_default();
        if *mark >= version {
            return Ok(());
        }
        *mark = version;
        write_file(&self.root.join(MARKS), tables::marks_text(&trust).as_bytes())
    }

    /// Keeps other processes from changing the tables until it is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        fs::create_dir_all(&self.root).map_err(io_error("create", &self.root))?;
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(io_error("lock", &path))
    }
}

const TRUST: &str = "trust.toml";
const MARKS: &str = "marks.toml";
const TRUSTED: &str = "trusted";
/// The name of the user's own key.
const OWN_KEY: &str = "this user";

/// The whole path, since the folder is named by a short hash of it.
fn trusted_text(workspace_root: &Path) -> String {
    let root = fs::canonicalize(workspace_root).unwrap_or_else(|_| workspace_root.to_owned());
    format!("cargo may run what this workspace configures:\n{}\n", root.display())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

fn read_if_there(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_durably(path, |out| out.write_all(bytes)).map_err(io_error("write", path))
}

#[cfg(test)]
mod tests;
