use std::fs;

use super::*;

/// Makes a folder of files from a fixture (`//- /path` between files).
fn folder(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in fixture.split("//- /").skip(1) {
        let (path, text) = file.split_once('\n').expect("a path on its own line");
        let path = folder.path().join(path.trim());
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    folder
}

/// One line per package: role, name, version, edition, licence, folder from the root.
fn lines(sources: &Sources) -> Vec<String> {
    let line = |package: &Package| {
        let folder = package.folder.strip_prefix(&sources.root).unwrap_or(&package.folder);
        let Package { role, name, version, edition, licence, .. } = package;
        let last = folder.file_name().unwrap_or_default().to_string_lossy();
        format!("{role:?} {name} {version} {edition} {} {last}", licence.as_deref().unwrap_or("-"))
    };
    sources.packages.iter().map(line).collect()
}

const WORKSPACE: &str = r#"
//- /ws/Cargo.toml
[workspace]
members = ["crates/*", "tool"]
exclude = ["crates/old"]
[workspace.package]
version = "1.2.3"
edition = "2024"
license = "MIT"
[workspace.dependencies]
outside = { path = "../outside" }
//- /ws/crates/a/Cargo.toml
[package]
name = "a"
version.workspace = true
edition.workspace = true
license.workspace = true
[dependencies]
outside = { workspace = true }
[target.'cfg(unix)'.dependencies]
inner = { path = "../../inner" }
//- /ws/crates/a/src/lib.rs
//- /ws/crates/old/Cargo.toml
[package]
name = "old"
version = "0.1.0"
edition = "2021"
//- /ws/crates/old/src/lib.rs
//- /ws/inner/Cargo.toml
[package]
name = "inner"
version = "0.1.0"
//- /ws/inner/src/lib.rs
//- /ws/tool/Cargo.toml
[package]
name = "tool"
version = "0.2.0"
edition = "2021"
//- /ws/tool/src/lib.rs
//- /outside/Cargo.toml
[package]
name = "outside"
version = "0.3.0"
edition = "2021"
//- /outside/src/lib.rs
"#;

const LOCKED: &str = r#"
//- /ws/Cargo.lock
version = 4
[[package]]
name = "dep"
version = "4.5.6"
source = "registry+https://example.invalid/index"
[[package]]
name = "absent"
version = "1.0.0"
source = "sparse+https://example.invalid/index"
[[package]]
name = "../../outside"
version = "1"
source = "registry+https://example.invalid/index"
//- /home/registry/src/example-0123/dep-4.5.6/Cargo.toml
[package]
name = "dep"
version = "4.5.6"
edition = "2018"
license = "Apache-2.0"
"#;

#[test]
fn the_files_alone_give_members_and_locked_dependencies() {
    let folder = folder(&format!("{WORKSPACE}{LOCKED}"));
    let root = fs::canonicalize(folder.path()).expect("it was made above");
    let expected = [
        "Member a 1.2.3 2024 MIT a",
        "Member inner 0.1.0 2015 - inner",
        "Member tool 0.2.0 2021 - tool",
        "Dependency dep 4.5.6 2018 Apache-2.0 dep-4.5.6",
        "Dependency outside 0.3.0 2021 - outside",
    ];
    for manifest in ["ws/Cargo.toml", "ws/crates/a/Cargo.toml", "ws/inner/Cargo.toml"] {
        let mut sources = files::load(&root.join(manifest), Some(&root.join("home"))).expect(manifest);
        sources.packages.sort_by_key(|package| (package.role, package.name.clone()));
        assert_eq!(sources.root, root.join("ws"));
        assert_eq!(lines(&sources), expected, "{manifest}");
    }
}

#[test]
fn cargo_and_the_files_agree() {
    let folder = folder(WORKSPACE);
    let manifest = folder.path().join("ws/Cargo.toml");
    let from_cargo = load(&manifest, CargoUse::Run { offline: true, locked: false }).expect("cargo runs");
    assert!(!folder.path().join("ws/Cargo.lock").exists(), "only the members were requested");
    assert_eq!(load(&manifest, CargoUse::Never).expect("files"), from_cargo);
    assert_eq!(from_cargo.packages.len(), 4);
}

#[test]
fn cargo_does_not_resolve_dependencies() {
    // The lock file names packages that no registry here has, and lacks some that the manifests name.
    let folder = folder(&format!("{WORKSPACE}{LOCKED}"));
    let root = fs::canonicalize(folder.path()).expect("it was made above");
    let (manifest, home) = (root.join("ws/Cargo.toml"), root.join("home"));
    let lock = fs::read(root.join("ws/Cargo.lock")).expect("the fixture has one");
    for locked in [false, true] {
        let mut from_cargo = cargo::load(&manifest, true, locked, Some(&home)).expect("cargo runs");
        let mut read = files::load(&manifest, Some(&home)).expect("files");
        for sources in [&mut from_cargo, &mut read] {
            sources.packages.sort_by_key(|package| (package.role, package.name.clone()));
        }
        assert_eq!(from_cargo, read);
        assert!(lines(&from_cargo).iter().any(|line| line.starts_with("Dependency dep 4.5.6")), "{from_cargo:?}");
        assert_eq!(fs::read(root.join("ws/Cargo.lock")).expect("it is still there"), lock);
    }
}

#[test]
fn reading_never_runs_what_the_workspace_configures() {
    let folder = folder(&format!("{WORKSPACE}//- /ws/.cargo/config.toml\n[build]\nrustc = \"./evil.sh\"\n"));
    let manifest = folder.path().join("ws/Cargo.toml");
    load(&manifest, CargoUse::Never).expect("files");
    assert!(!folder.path().join("ws/Cargo.lock").exists(), "only cargo writes one");
}

#[test]
fn the_nearest_manifest_above_a_folder_is_found() {
    let folder = folder(WORKSPACE);
    let root = fs::canonicalize(folder.path()).expect("it was made above");
    let found = find_manifest(&folder.path().join("ws/crates/a/src")).expect("a manifest above");
    assert_eq!(found, root.join("ws/crates/a/Cargo.toml"));
}

#[test]
fn a_bare_manifest_name_means_the_current_folder() {
    // Cargo runs tests in the package's folder.
    let sources = load(Path::new("Cargo.toml"), CargoUse::Never).expect("this very workspace");
    assert!(sources.members().any(|package| package.name == "nanochat-lsp" && package.edition == "2024"));
    assert_eq!(find_manifest(Path::new("")).expect("here").file_name(), Some("Cargo.toml".as_ref()));
}

#[test]
fn an_unreadable_workspace_is_reported_in_one_line() {
    let folder = folder(
        "//- /empty/Cargo.toml\n[workspace]\n//- /broken/Cargo.toml\n[package]\nname = \n\
         //- /gone/Cargo.toml\n[workspace]\nmembers = [\"lost\"]\n",
    );
    let error = |manifest: &str| {
        let error = load(&folder.path().join(manifest), CargoUse::Never).expect_err(manifest);
        assert!(!error.to_string().contains('\n'), "{error}");
        error
    };
    assert!(matches!(error("empty/Cargo.toml"), WorkspaceError::Empty { .. }));
    assert!(
        matches!(error("gone/Cargo.toml"), WorkspaceError::Unreadable { path, .. } if path.ends_with("lost/Cargo.toml"))
    );
    assert!(matches!(error("none/Cargo.toml"), WorkspaceError::Unreadable { .. }));
    assert!(
        matches!(error("broken/Cargo.toml"), WorkspaceError::Unparsable { message, .. } if message.starts_with("line 2"))
    );
    let from_cargo = load(&folder.path().join("broken/Cargo.toml"), CargoUse::Run { offline: true, locked: false });
    assert!(matches!(from_cargo, Err(WorkspaceError::Cargo { .. })));
    assert!(matches!(find_manifest(&folder.path().join("void")), Err(WorkspaceError::Unreadable { .. })));
}
