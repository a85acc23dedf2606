//! Where the standard library's source is, found as rustup finds it, without running anything.

use std::path::{Path, PathBuf};

use toml::Table;

/// The source of the standard library that the workspace at `root` is built with, or that of another toolchain if only
/// that one has it; `None` if none is installed.
pub(crate) fn std_source(root: &Path) -> Option<PathBuf> {
    let set = std::env::var_os("RUSTUP_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    find(root, &set.or_else(|| std::env::home_dir().map(|home| home.join(".rustup")))?)
}

fn find(root: &Path, rustup_home: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(rustup_home.join("toolchains")).ok()?.flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let wanted = channel(root).or_else(|| default_toolchain(rustup_home)).unwrap_or_else(|| "stable".to_owned());
    // `1.95` and `stable` are followed by the platform.
    let is_wanted = |name: &str| name == wanted || name.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('-'));
    names.sort_by_key(|name| (!is_wanted(name), std::cmp::Reverse(name.clone())));
    let source = |name: &String| rustup_home.join("toolchains").join(name).join("lib/rustlib/src/rust/library");
    names.iter().map(source).find(|library| library.is_dir())
}

/// The channel that the workspace's toolchain file names.
fn channel(root: &Path) -> Option<String> {
    let text = ["rust-toolchain.toml", "rust-toolchain"]
        .iter()
        .find_map(|name| std::fs::read_to_string(root.join(name)).ok())?;
    match text.parse::<Table>() {
        Ok(table) => Some(table.get("toolchain")?.get("channel")?.as_str()?.to_owned()),
        // The older form is the bare name.
        Err(_) => text.lines().next().map(|line| line.trim().to_owned()),
    }
}

fn default_toolchain(rustup_home: &Path) -> Option<String> {
    let table = std::fs::read_to_string(rustup_home.join("settings.toml")).ok()?.parse::<Table>().ok()?;
    Some(table.get("default_toolchain")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_s_toolchain_comes_first_and_any_other_after_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (root, home) = (folder.path().join("ws"), folder.path().join("rustup"));
        std::fs::create_dir(&root).expect("a folder");
        assert_eq!(find(&root, &home), None);
        let library = |name: &str| home.join("toolchains").join(name).join("lib/rustlib/src/rust/library");
        for name in ["1.90-x86_64", "nightly-x86_64", "stable-x86_64"] {
            std::fs::create_dir_all(library(name)).expect("a folder");
        }
        std::fs::create_dir_all(home.join("toolchains/1.95-x86_64")).expect("a folder");
        assert_eq!(find(&root, &home), Some(library("stable-x86_64")));
        std::fs::write(home.join("settings.toml"), "default_toolchain = \"nightly-x86_64\"\n").expect("a file");
        assert_eq!(find(&root, &home), Some(library("nightly-x86_64")));
        std::fs::write(root.join("rust-toolchain"), "1.90\n").expect("a file");
        assert_eq!(find(&root, &home), Some(library("1.90-x86_64")));
        // Its own source is not installed.
        std::fs::write(root.join("rust-toolchain.toml"), "[toolchain]\nchannel = \"1.95\"\n").expect("a file");
        assert_eq!(find(&root, &home), Some(library("stable-x86_64")));
        // A path is not the name of an installed toolchain.
        std::fs::write(root.join("rust-toolchain"), "../../elsewhere\n").expect("a file");
        std::fs::remove_file(root.join("rust-toolchain.toml")).expect("it was there");
        assert_eq!(find(&root, &home), Some(library("stable-x86_64")));
    }
}
