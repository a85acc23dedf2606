//! Paths to the names that files have in the memory and in prompts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nanochat_engine::workspace::sources::{Package, SourceFile};

/// Gives a path the name that its [`SourceFile`] has, or would have.
pub(super) struct FileNames {
    root: PathBuf,
    /// The collected files whose name is not their path from the root: those of members outside it.
    others: HashMap<PathBuf, String>,
    /// Folders of dependencies, and the prefix of the names of their files.
    dependencies: HashMap<PathBuf, String>,
}

impl FileNames {
    /// The names in the workspace at `root`: of its collected `files`, and of the files of `dependencies`.
    pub(super) fn new(root: PathBuf, files: &[SourceFile], dependencies: &[Package]) -> Self {
        let others = files.iter().filter(|file| file.path != root.join(&file.name));
        let others = others.map(|file| (file.path.clone(), file.name.clone())).collect();
        let prefix = |package: &Package| format!("{}-{}", package.name, package.version);
        let dependencies = dependencies.iter().map(|package| (package.folder.clone(), prefix(package))).collect();
        Self { root, others, dependencies }
    }

    /// A file's name: the one it was collected under, or else its path from the root, with `/`. `None` outside the
    /// workspace, where any name could be that of another file.
    pub(super) fn name(&self, path: &Path) -> Option<String> {
        // The root has no symbolic links in it; a file that is not saved yet has only its folder on disk.
        let folder = path.parent().and_then(|folder| std::fs::canonicalize(folder).ok());
        let real = folder.zip(path.file_name()).map(|(folder, file)| folder.join(file));
        let real = real.as_deref().unwrap_or(path);
        if let Some(name) = self.others.get(real) {
            return Some(name.clone());
        }
        let mut below_root = real.ancestors().skip(1).take_while(|folder| *folder != self.root);
        let found = below_root.find_map(|folder| Some((folder, self.dependencies.get(folder)?.as_str())));
        let (folder, prefix) = found.unwrap_or((&self.root, ""));
        let inside = real.strip_prefix(folder).ok()?.components().map(|part| part.as_os_str().to_string_lossy());
        let prefix = (!prefix.is_empty()).then(|| prefix.into());
        let parts: Vec<_> = prefix.into_iter().chain(inside).collect();
        Some(parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use nanochat_engine::Sources;
    use nanochat_engine::workspace::sources::Role;

    use super::*;

    #[test]
    fn a_file_has_the_name_it_was_collected_under_and_none_outside_the_workspace() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let base = std::fs::canonicalize(folder.path()).expect("it was made above");
        let package = |name: &str, role| {
            let folder = base.join(name);
            std::fs::create_dir_all(folder.join("src")).expect("a folder");
            std::fs::write(folder.join("src/lib.rs"), "").expect("a file");
            let (version, edition) = ("1.0.0".to_owned(), "2024".to_owned());
            Package { name: name.to_owned(), version, edition, licence: None, folder, role }
        };
        let packages = vec![package("ws", Role::Member), package("dep", Role::Dependency)];
        let sources = Sources { root: base.join("ws"), packages };
        let (files, root) = (sources.collect(&[Role::Member]).0, || sources.root.clone());
        let (own, all) = (FileNames::new(root(), &files, &[]), FileNames::new(root(), &files, &sources.packages[1..]));
        let name = |names: &FileNames, path: &str| names.name(&folder.path().join(path));
        assert_eq!(name(&own, "ws/src/lib.rs").as_deref(), Some("src/lib.rs"));
        assert_eq!(name(&own, "ws/src/unsaved.rs").as_deref(), Some("src/unsaved.rs"));
        assert_eq!(name(&all, "dep/src/lib.rs").as_deref(), Some("dep-1.0.0/src/lib.rs"));
        assert_eq!(name(&own, "dep/src/lib.rs"), None);
        // The workspace may have a file of that name at its root.
        assert_eq!(name(&all, "elsewhere/build.rs"), None);
        assert_eq!(all.name(Path::new("/")), None);
    }
}
