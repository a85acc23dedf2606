//! What README and CONTRIBUTING promise about the repository, checked.

mod modules;
mod length;
mod words;
mod packages;
mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::support::repository;

/// Every edge between our crates; invariant: they point one way.
const EDGES: [(&str, &[&str]); 6] = [
    ("cargo-nanochat", &["nanochat-engine", "nanochat-eval", "nanochat-lsp", "nanochat-train"]),
    ("nanochat-engine", &["nanochat-kernels"]),
    ("nanochat-eval", &["nanochat-engine"]),
    ("nanochat-kernels", &[]),
    ("nanochat-lsp", &["nanochat-engine"]),
    ("nanochat-train", &["nanochat-engine", "nanochat-eval", "nanochat-kernels"]),
];

/// Who alone may use what directly, by the start of the dependency's name.
const OWNED: [(&str, &[&str]); 2] = [
    ("nanochat-train", &["candle", "mpi", "cudarc"]),
    ("nanochat-lsp", &["tower-lsp", "tokio", "cargo_metadata", "lsp-types", "gen-lsp-types"]),
];

#[test]
fn dependencies_between_our_crates_are_exactly_the_stated_ones() {
    let metadata = metadata();
    let found: BTreeMap<String, BTreeSet<String>> = members(&metadata)
        .into_iter()
        .map(|package| (package.name.to_string(), shipped(package).filter(|name| is_ours(name)).collect()))
        .collect();
    let stated = EDGES
        .iter()
        .map(|(from, to)| ((*from).to_owned(), to.iter().map(|name| (*name).to_owned()).collect()))
        .collect();
    assert_eq!(found, stated);
}

#[test]
fn only_one_crate_knows_candle_and_only_one_knows_the_editor() {
    let metadata = metadata();
    for package in members(&metadata) {
        for (owner, owned) in OWNED {
            if package.name.as_str() == owner {
                continue;
            }
            for dependency in &package.dependencies {
                // This very test reads `cargo metadata`.
                let is_this_test =
                    dependency.kind == DependencyKind::Development && dependency.name == "cargo_metadata";
                let is_owned = owned.iter().any(|name| dependency.name.starts_with(name));
                assert!(!is_owned || is_this_test, "{} has {}, which is {owner}'s", package.name, dependency.name);
            }
        }
    }
}

#[test]
fn an_editor_only_build_has_no_candle() {
    let metadata = metadata();
    let closure = closure(&metadata, "nanochat-lsp");
    assert!(closure.contains("nanochat-engine") && closure.contains("tokio"), "the closure is read: {closure:?}");
    let heavy: Vec<_> = closure.iter().filter(|name| name.starts_with("candle") || *name == "mpi").collect();
    assert!(heavy.is_empty(), "{heavy:?}");
    assert!(self::closure(&metadata, "nanochat-train").iter().any(|name| name.starts_with("candle")));
}

#[test]
fn the_engine_knows_no_runtime_no_network_and_no_terminal() {
    let closure = closure(&metadata(), "nanochat-engine");
    for name in ["tokio", "reqwest", "ureq", "hyper", "clap", "indicatif", "cargo_metadata", "socket2"] {
        assert!(!closure.contains(name), "{name}");
    }
}

#[test]
fn the_settings_that_vs_code_offers_are_those_of_the_server() {
    let text = std::fs::read_to_string(repository().join("editors/vscode/package.json")).expect("package.json");
    let package: serde_json::Value = serde_json::from_str(&text).expect("package.json is json");
    let offered = package["contributes"]["configuration"]["properties"].as_object().expect("an object");
    let mut stated = nanochat_lsp::settings::schema();
    let stated = stated.as_object_mut().expect("an object");
    // VS Code has a notion of trust of its own, which the extension passes to the server.
    stated.remove("trusted").expect("the server has it");
    for (key, property) in stated.iter() {
        let offered = &offered[&format!("nanochat.{key}")];
        for (field, value) in property.as_object().expect("an object") {
            assert_eq!(&offered[field], value, "{field} of nanochat.{key}");
        }
    }
    let others: Vec<_> =
        offered.keys().filter(|key| !stated.contains_key(key.trim_start_matches("nanochat."))).collect();
    assert_eq!(others, ["nanochat.server.path"]);
}

#[test]
fn the_readme_shows_the_folders_that_are_there() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md");
    let tree = tree_of(&readme).expect("a fenced block of README.md has a line that starts with `kernels/`");
    let on_disk: BTreeSet<String> = std::fs::read_dir(repository())
        .expect("the repository")
        .map(|entry| entry.expect("a readable entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target" && name != "node_modules")
        .collect();
    assert_eq!(tree, on_disk);
}

#[test]
fn a_tree_is_read_from_its_fence() {
    let readme =
        "```sh\nls kernels/\n```\ntext\n```\nCargo.toml   table\nkernels/     arrays\n  src/\nengine/      text\n```\n";
    assert_eq!(tree_of(readme), Some(["engine".to_owned(), "kernels".to_owned()].into()));
}

#[test]
fn every_library_says_what_it_does_not_know() {
    for folder in ["kernels", "engine", "eval", "train", "lsp"] {
        let text = std::fs::read_to_string(repository().join(folder).join("src/lib.rs")).expect("a library's root");
        let doc: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("//!")).flat_map(str::split_whitespace).collect();
        let doc = doc.join(" ");
        assert!(doc.contains("knows no") || doc.contains("does not know"), "{folder}: {doc}");
    }
}

#[test]
fn comments_give_reasons_not_plans() {
    let found: Vec<String> = sources(&repository())
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).expect("sources are UTF-8");
            let found: Vec<String> = comments(path, &text)
                .filter(|(_, comment)| plan_in(comment).is_some())
                .map(|(line, comment)| format!("{}:{line}: {comment}", path.display()))
                .collect();
            found
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_is_left_unwritten() {
    for path in sources(&repository()) {
        let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
        let is_left = |line: &str| line.trim_start().starts_with(concat!("unimplemented", "!("));
        assert!(!text.lines().any(is_left), "{}", path.display());
    }
}

#[test]
fn plans_are_distinguished_from_reasons() {
    for plan in ["TODO: x", "a FIXME", "works for now", "Phase 2 brings it", "P1 improvement", "in a later issue"] {
        assert!(plan_in(plan).is_some(), "{plan}");
    }
    for reason in
        ["the prompt phase looks once per layer", "todos los bytes", "the file need not exist yet", "P10 of the table"]
    {
        assert!(plan_in(reason).is_none(), "{reason}");
    }
}

/// The words by which a comment announces a plan, if any.
fn plan_in(comment: &str) -> Option<&'static str> {
    const WHOLE_WORDS: [&str; 8] = ["TODO", "FIXME", "XXX", "HACK", "WIP", "P0", "P1", "P2"];
    const PHRASES: [&str; 9] = [
        "for now",
        "phase 0",
        "phase 1",
        "phase 2",
        "phase 3",
        "milestone",
        "later issue",
        "next issue",
        "follow-up issue",
    ];
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let lower = comment.to_lowercase();
    WHOLE_WORDS
        .into_iter()
        .find(|word| comment.split(|c| !is_letter(c)).any(|found| found == *word))
        .or_else(|| PHRASES.into_iter().find(|phrase| lower.contains(phrase)))
}

/// (line number, comment) of one file, by its extension's comment sign.
fn comments<'a>(path: &Path, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let sign = match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs" | "ts") => "//",
        Some("lua") => "--",
        _ => "#",
    };
    text.lines().enumerate().filter_map(move |(i, line)| line.split_once(sign).map(|(_, comment)| (i + 1, comment)))
}

/// Our source files, sorted.
fn sources(folder: &Path) -> Vec<PathBuf> {
    files(folder, &["rs", "ts", "lua", "toml", "sh", "yml", "py"])
}

/// The `.rs` files in a folder, sorted.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files(folder, &["rs"])
}

/// Files with one of these extensions, sorted; not what is built, downloaded or generated.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_symlink() || ["target", "node_modules", "dist", ".git"].contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Folders that are named at the start of a line as `name/`, in the fenced block that has `kernels/` there.
fn tree_of(readme: &str) -> Option<BTreeSet<String>> {
    let blocks = readme.split("```").skip(1).step_by(2);
    let folders = |block: &str| -> BTreeSet<String> {
        block
            .lines()
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| line.split_whitespace().next()?.strip_suffix('/'))
            .map(str::to_owned)
            .collect()
    };
    blocks.map(folders).find(|folders| folders.contains("kernels"))
}

/// Locked, and for this machine only: what a build has fetched suffices.
fn metadata() -> Metadata {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc is there").stdout;
    let version = String::from_utf8(version).expect("rustc prints UTF-8");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), host.to_owned()])
        .exec()
        .expect("cargo metadata")
}

fn members(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

fn is_ours(name: &str) -> bool {
    EDGES.iter().any(|(ours, _)| *ours == name)
}

/// Dependencies of what is built, without those of tests.
fn shipped(package: &Package) -> impl Iterator<Item = String> {
    let is_shipped = |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Build);
    package.dependencies.iter().filter(move |dependency| is_shipped(dependency.kind)).map(|d| d.name.clone())
}

/// Names of all packages that `root` is built from.
fn closure(metadata: &Metadata, root: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("metadata resolves");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut open = vec![&members(metadata).into_iter().find(|p| p.name.as_str() == root).expect("a member").id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let is_shipped = |kinds: &[cargo_metadata::DepKindInfo]| {
                kinds.iter().any(|kind| matches!(kind.kind, DependencyKind::Normal | DependencyKind::Build))
            };
            open.extend(nodes[id].deps.iter().filter(|dep| is_shipped(&dep.dep_kinds)).map(|dep| &dep.pkg));
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}
