//! Which files are of one package, and the symbols of each package: the sources of snippets and declarations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nanochat_engine::memory::{N_TIERS, Tier};
use nanochat_engine::symbols::Symbols;
use nanochat_engine::workspace::sources::SourceFile;

use crate::pool::Pool;

/// Folders within a package that hold code; the path before it is the package.
const CODE_FOLDERS: [&str; 4] = ["src", "tests", "examples", "benches"];

/// Files by package.
#[derive(Default)]
pub struct Packages {
    /// Index of each file's package.
    of_file: Vec<Option<usize>>,
    packages: Vec<Package>,
}

/// The files of a package.
pub struct Package {
    /// Indices of its files.
    pub files: Vec<usize>,
    /// Its symbols, in the workspace tier.
    pub symbols: [Symbols; N_TIERS],
}

impl Packages {
    /// Groups files by their names; a file without a name belongs to no package. `text` gives the text of one.
    pub fn of<'a>(
        names: impl Iterator<Item = Option<&'a str>>,
        text: impl Fn(usize) -> String + Sync,
        pool: &Pool,
    ) -> Self {
        let mut of_file = Vec::new();
        let mut by_name: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
        for (idx, name) in names.enumerate() {
            of_file.push(None);
            if let Some(name) = name {
                by_name.entry(package(name)).or_default().push((idx, name));
            }
        }
        let packages: Vec<Vec<(usize, &str)>> = by_name.into_values().collect();
        for (idx, files) in packages.iter().enumerate() {
            files.iter().for_each(|(file, _)| of_file[*file] = Some(idx));
        }
        let packages = pool.map(packages.len(), |idx| {
            let file = |(idx, name): &(usize, &str)| SourceFile {
                name: (*name).to_owned(),
                path: PathBuf::new(),
                text: text(*idx),
            };
            let files: Vec<SourceFile> = packages[idx].iter().map(file).collect();
            let mut symbols: [Symbols; N_TIERS] = Default::default();
            symbols[Tier::Workspace as usize] = Symbols::of_files(&files, false);
            Package { files: packages[idx].iter().map(|(idx, _)| *idx).collect(), symbols }
        });
        Self { of_file, packages }
    }

    /// The package of a file.
    pub fn of_file(&self, idx: usize) -> Option<&Package> {
        self.of_file.get(idx).copied().flatten().map(|package| &self.packages[package])
    }
}

/// The folder of a file's package, by the file's name.
fn package(name: &str) -> &str {
    let mut at = 0;
    for part in name.split('/') {
        if CODE_FOLDERS.contains(&part) {
            return name[..at].trim_end_matches('/');
        }
        at += part.len() + 1;
    }
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_package_have_its_folder() {
        for (name, folder) in [
            ("src/lib.rs", ""),
            ("build.rs", ""),
            ("crates/a/src/deep/b.rs", "crates/a"),
            ("crates/a/tests/src/b.rs", "crates/a"),
            ("dep-1.0.0/src/lib.rs", "dep-1.0.0"),
            ("dep-1.0.0/build.rs", "dep-1.0.0"),
        ] {
            assert_eq!(package(name), folder, "{name}");
        }
    }

    #[test]
    fn a_file_without_a_name_is_in_no_package() {
        let names = [Some("a/src/a.rs"), None, Some("a/src/b.rs"), Some("b/src/a.rs")];
        let pool = Pool::new(2).expect("threads start");
        let packages = Packages::of(names.into_iter(), |idx| format!("struct S{idx} {{ a: u8 }}\n"), &pool);
        assert!(packages.of_file(1).is_none());
        let package = packages.of_file(2).expect("it has a name");
        assert_eq!(package.files, [0, 2]);
        assert_eq!(package.symbols[Tier::Workspace as usize].len(), 4);
        assert_eq!(packages.of_file(3).expect("it has a name").files, [3]);
    }
}
