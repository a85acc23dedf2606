//! Where a workspace's code is: the packages that `lsp::workspace` finds by asking cargo, and their files.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ignore::WalkBuilder;

pub use crate::text::SourceFile;

/// Larger files are tables or generated; they teach little and cost much.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The packages of one workspace and of its exactly locked dependencies.
///
/// ```
/// use nanochat_engine::Sources;
/// use nanochat_engine::workspace::sources::Role;
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("lib.rs"), "pub fn answer() -> u8 {\r\n    42\r\n}\r\n")?;
/// std::fs::write(folder.path().join("notes.md"), "not Rust")?;
/// let (files, skipped) = Sources::folder(folder.path()).collect(&[Role::Member]);
/// assert_eq!((files.len(), skipped.len()), (1, 0));
/// assert_eq!(files[0].name, "lib.rs");
/// assert_eq!(files[0].text, "pub fn answer() -> u8 {\n    42\n}\n", "line ends are those of Unix");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The workspace's root folder.
    pub root: PathBuf,
    /// Members first, then dependencies; each in name order.
    pub packages: Vec<Package>,
}

/// One package whose source is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The name in `Cargo.toml`.
    pub name: String,
    /// The version in `Cargo.toml` or `Cargo.lock`.
    pub version: String,
    /// The Rust edition, `2015` where none is stated.
    pub edition: String,
    /// The licence as an SPDX expression, where stated.
    pub licence: Option<String>,
    /// The folder that holds its `Cargo.toml`.
    pub folder: PathBuf,
    /// What it is to the workspace.
    pub role: Role,
}

/// What a package's files look like from outside, without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// A hash of the names, lengths and times of the `.rs` files; it differs where anything was changed.
    pub hash: [u8; 32],
    /// Bytes of these files together.
    pub n_bytes: u64,
}

impl Package {
    /// A stamp of what [`Sources::collect`] would read, without reading it. A missing folder has the stamp of no files.
    pub fn stamp(&self) -> Stamp {
        let is_source = |entry: &ignore::DirEntry| entry.path().extension().is_some_and(|extension| extension == "rs");
        let mut files = Vec::new();
        for entry in self.walk().filter_map(Result::ok).filter(is_source) {
            let Ok(metadata) = entry.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            let nanoseconds = age.map_or(0, |age| age.as_nanos());
            files.push((entry.into_path(), metadata.len(), nanoseconds));
        }
        files.sort();
        let mut hasher = blake3::Hasher::new();
        let mut n_bytes = 0u64;
        for (path, len, nanoseconds) in files {
            n_bytes = n_bytes.saturating_add(len);
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes()).update(path);
            hasher.update(&len.to_le_bytes()).update(&nanoseconds.to_le_bytes());
        }
        Stamp { hash: *hasher.finalize().as_bytes(), n_bytes }
    }

    fn walk(&self) -> ignore::Walk {
        let mut walk = WalkBuilder::new(&self.folder);
        // The user's own code follows the user's rules, with or without git. A dependency's package was
        // published as it is, so rules above it (a vendored folder is often ignored) do not concern it.
        let is_member = self.role == Role::Member;
        let is_package = |folder: &Path| folder.join("Cargo.toml").is_file();
        walk.follow_links(false)
            .hidden(true)
            .require_git(false)
            .parents(is_member)
            .git_global(false)
            .git_ignore(is_member)
            .git_exclude(is_member)
            .ignore(false)
            .filter_entry(move |entry| {
                let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
                // A package within a dependency is not part of it, and may be the workspace.
                let is_other = || entry.file_name() == "target" || !is_member && is_package(entry.path());
                !(is_folder && entry.depth() > 0 && is_other())
            });
        walk.add_custom_ignore_filename(".nanochatignore");
        walk.build()
    }
}

/// What a package is to the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The user's own code.
    Member,
    /// A locked dependency.
    Dependency,
}

impl Sources {
    /// One folder as a single member, whether or not cargo would take it for a package.
    pub fn folder(folder: &Path) -> Self {
        let package = Package {
            name: String::new(),
            version: String::new(),
            edition: String::new(),
            licence: None,
            folder: folder.to_owned(),
            role: Role::Member,
        };
        Self { root: folder.to_owned(), packages: vec![package] }
    }

    /// The workspace's own packages.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.role == Role::Member)
    }
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is on the disk.
    pub path: PathBuf,
    /// Why it was left out, for the user to read.
    pub reason: String,
}

/// A `.rs` file that was found and is not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// As [`SourceFile::name`].
    pub name: String,
    /// Where it is on the disk.
    pub path: PathBuf,
    /// The index of its package in [`Sources::packages`].
    pub package: usize,
}

impl Listed {
    /// The file with its text.
    pub fn read(self) -> Result<SourceFile, Skipped> {
        match read(&self.path) {
            Ok(text) => Ok(SourceFile { name: self.name, path: self.path, text }),
            Err(reason) => Err(Skipped { path: self.path, reason }),
        }
    }

    /// The files of several packages by name, each once: the files of a package inside another's folder are listed with
    /// both.
    pub fn joined(lists: impl IntoIterator<Item = Vec<Self>>) -> Vec<Self> {
        let mut seen = HashSet::new();
        let mut files = BTreeMap::new();
        for listed in lists.into_iter().flatten() {
            if seen.insert(listed.path.clone()) {
                files.insert(listed.name.clone(), listed);
            }
        }
        files.into_values().collect()
    }
}

impl Sources {
    /// The `.rs` files of packages with these roles, sorted by name, and what was left out: what `.gitignore`
    /// or `.nanochatignore` names and `target` folders silently; files that are not UTF-8, larger than 1 MiB,
    /// unreadable or outside the package (symlinks) with a reason.
    pub fn collect(&self, roles: &[Role]) -> (Vec<SourceFile>, Vec<Skipped>) {
        let mut skipped = BTreeMap::new();
        let mut skip = |skip: Skipped| {
            skipped.insert(skip.path, skip.reason);
        };
        let packages = (0..self.packages.len()).filter(|idx| roles.contains(&self.packages[*idx].role));
        let mut lists = Vec::new();
        for idx in packages {
            let (listed, left_out) = self.list(idx);
            lists.push(listed);
            left_out.into_iter().for_each(&mut skip);
        }
        let mut files = Vec::new();
        for listed in Listed::joined(lists) {
            match listed.read() {
                Ok(file) => files.push(file),
                Err(left_out) => skip(left_out),
            }
        }
        (files, skipped.into_iter().map(|(path, reason)| Skipped { path, reason }).collect())
    }

    /// The dependencies that no member's files were read from: one inside the workspace may be a part of a member.
    pub fn dependencies(&self, files: &[SourceFile]) -> Vec<Package> {
        let was_read = |package: &Package| files.iter().any(|file| file.path.starts_with(&package.folder));
        let is_other = |package: &&Package| !package.folder.starts_with(&self.root) || !was_read(package);
        self.packages.iter().filter(|package| package.role == Role::Dependency).filter(is_other).cloned().collect()
    }

    /// The `.rs` files of one package, without their text, and what was left out, by the rules of [`Sources::collect`].
    pub fn list(&self, package_idx: usize) -> (Vec<Listed>, Vec<Skipped>) {
        let package = &self.packages[package_idx];
        let (mut listed, mut skipped) = (Vec::new(), Vec::new());
        for entry in package.walk() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let reason = format!("cannot be read: {error}");
                    skipped.push(Skipped { path: package.folder.clone(), reason });
                    continue;
                }
            };
            let Some(kind) = entry.file_type() else { continue };
            let is_source = entry.path().extension().is_some_and(|extension| extension == "rs") && entry.depth() > 0;
            if !is_source || kind.is_dir() {
                continue;
            }
            let path = entry.into_path();
            if kind.is_symlink() {
                let reason = "it is a symlink, which may lead outside the package".to_owned();
                skipped.push(Skipped { path, reason });
            } else if let Some(name) = self.name_of(package, &path) {
                if kind.is_file() {
                    listed.push(Listed { name, path, package: package_idx });
                }
            } else {
                skipped.push(Skipped { path, reason: "its name is not UTF-8".to_owned() });
            }
        }
        (listed, skipped)
    }

    /// The file's name, with `/`: a member's relative to the workspace; that of a dependency, or of a member outside
    /// the workspace's folder, after `name-version` and relative to the package.
    fn name_of(&self, package: &Package, path: &Path) -> Option<String> {
        let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_str().map(str::to_owned)).collect();
        let in_workspace = if package.role == Role::Member { path.strip_prefix(&self.root).ok() } else { None };
        let parts: Vec<String> = match in_workspace {
            Some(relative) => parts(relative),
            None => {
                let mut names: Vec<String> = vec![format!("{}-{}", package.name, package.version)];
                let inside: Option<Vec<String>> = parts(path.strip_prefix(&package.folder).ok()?);
                names.extend(inside?);
                Some(names)
            }
        }?;
        Some(parts.join("/"))
    }
}

/// The text with `\n` for each `\r\n`: to the compiler they are the same, to a tokenizer they are not.
pub fn unix_lines(text: String) -> String {
    if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text }
}

/// A file's text; the reason where it is to be left out.
fn read(path: &Path) -> Result<String, String> {
    // Not the length in the metadata: the file may grow while it is read.
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("it is larger than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map(unix_lines).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn package(name: &str, folder: PathBuf, role: Role) -> Package {
        Package { name: name.into(), version: "1.2.3".into(), edition: "2024".into(), licence: None, folder, role }
    }

    /// Writes files, `//- path` before each, and gives a member at the root, one inside it, and a dependency outside.
    fn workspace(files: &str) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in files.split("//- ").skip(1) {
            let (path, text) = file.split_once('\n').expect("a path line");
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let root = folder.path().join("ws");
        fs::create_dir_all(root.join("inner")).expect("a folder");
        fs::create_dir_all(folder.path().join("registry/dep")).expect("a folder");
        let sources = Sources {
            packages: vec![
                package("outer", root.clone(), Role::Member),
                package("inner", root.join("inner"), Role::Member),
                package("dep", folder.path().join("registry/dep"), Role::Dependency),
            ],
            root,
        };
        (folder, sources)
    }

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn files_are_sorted_and_each_comes_once() {
        let (_folder, sources) = workspace(
            "//- ws/src/main.rs\nfn main() {}\n//- ws/build.rs\n//- ws/inner/src/lib.rs\n//- ws/README.md\n\
             //- registry/dep/src/lib.rs\npub fn dep() {}\n",
        );
        let (files, skipped) = sources.collect(&[Role::Member]);
        assert_eq!(names(&files), ["build.rs", "inner/src/lib.rs", "src/main.rs"]);
        assert_eq!(files[2].text, "fn main() {}\n");
        assert_eq!(skipped, []);
        assert_eq!(names(&sources.collect(&[Role::Dependency]).0), ["dep-1.2.3/src/lib.rs"]);
        assert_eq!(sources.collect(&[Role::Member, Role::Dependency]).0.len(), 4);
    }

    #[test]
    fn ignore_files_count_without_git_and_target_is_never_entered() {
        let (_folder, sources) = workspace(
            "//- ws/.gitignore\ngenerated.rs\n//- ws/inner/.nanochatignore\nsecret\n//- ws/src/generated.rs\n\
             //- ws/inner/src/generated.rs\n//- ws/inner/secret/key.rs\n//- ws/inner/src/lib.rs\n\
             //- ws/target/debug/out.rs\n//- ws/inner/target/out.rs\n//- ws/src/target.rs\n//- ws/.git/hook.rs\n",
        );
        let (files, skipped) = sources.collect(&[Role::Member]);
        assert_eq!(names(&files), ["inner/src/lib.rs", "src/target.rs"]);
        assert_eq!(skipped, []);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_reason() {
        let (folder, sources) = workspace("//- ws/src/lib.rs\n");
        let src = folder.path().join("ws/src");
        fs::write(src.join("latin1.rs"), b"// caf\xe9").expect("a file");
        fs::write(src.join("huge.rs"), vec![b' '; 1 + MAX_FILE_BYTES as usize]).expect("a file");
        fs::write(src.join("large.rs"), vec![b' '; MAX_FILE_BYTES as usize]).expect("a file");
        let (files, skipped) = sources.collect(&[Role::Member]);
        assert_eq!(names(&files), ["src/large.rs", "src/lib.rs"]);
        let reasons: Vec<_> =
            skipped.iter().map(|skip| (skip.path.strip_prefix(&src).expect("inside"), skip.reason.as_str())).collect();
        assert_eq!(
            reasons,
            [(Path::new("huge.rs"), "it is larger than 1 MiB"), (Path::new("latin1.rs"), "it is not UTF-8")]
        );
    }

    #[test]
    fn line_ends_are_the_same_on_every_system() {
        let (_folder, sources) = workspace("//- ws/src/lib.rs\nfn a() {}\r\n\r\nfn b() {}\r\n");
        assert_eq!(sources.collect(&[Role::Member]).0[0].text, "fn a() {}\n\nfn b() {}\n");
    }

    #[cfg(unix)]
    #[test]
    fn symlinks_are_not_followed() {
        let (folder, sources) = workspace("//- ws/src/lib.rs\n//- outside/secret.rs\n");
        let link = |to: &str, at: &str| {
            std::os::unix::fs::symlink(folder.path().join(to), folder.path().join(at)).expect("a symlink");
        };
        link("outside/secret.rs", "ws/src/secret.rs");
        link("outside", "ws/src/folder");
        let (files, skipped) = sources.collect(&[Role::Member]);
        assert_eq!(names(&files), ["src/lib.rs"]);
        assert_eq!(skipped.len(), 1);
        assert!(skipped[0].reason.contains("symlink"), "{skipped:?}");
    }

    #[test]
    fn a_member_outside_the_workspace_is_named_by_its_package() {
        let (folder, mut sources) = workspace("//- elsewhere/src/lib.rs\n//- ws/src/lib.rs\n");
        sources.packages.push(package("away", folder.path().join("elsewhere"), Role::Member));
        assert_eq!(names(&sources.collect(&[Role::Member]).0), ["away-1.2.3/src/lib.rs", "src/lib.rs"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let (folder, mut sources) = workspace("//- ws/src/lib.rs\n");
        sources.packages = vec![package("gone", folder.path().join("gone"), Role::Member)];
        let (files, skipped) = sources.collect(&[Role::Member]);
        assert_eq!((files.len(), skipped.len()), (0, 1));
    }

    #[test]
    fn a_dependency_in_the_workspace_that_was_read_as_a_part_of_a_member_is_none() {
        let (_folder, mut sources) = workspace("//- ws/src/lib.rs\n//- ws/vendor/a/src/lib.rs\nfn a() {}\n");
        let names = |sources: &Sources, files: &[SourceFile]| -> Vec<String> {
            sources.dependencies(files).into_iter().map(|package| package.name).collect()
        };
        for name in ["a", "b"] {
            sources.packages.push(package(name, sources.root.join("vendor").join(name), Role::Dependency));
        }
        let path = sources.root.join("vendor/a/src/lib.rs");
        let read = SourceFile { name: "vendor/a/src/lib.rs".into(), path, text: "fn a() {}\n".into() };
        assert_eq!(names(&sources, &[]), ["dep", "a", "b"]);
        assert_eq!(names(&sources, &[read]), ["dep", "b"]);
    }
}
