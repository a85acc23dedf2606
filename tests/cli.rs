//! The command line: its forms, its help, its exit codes. Bad input gives one line on stderr and a documented code.

use std::path::Path;
use std::process::Command;

use crate::support::{MANIFEST, Workspace, repository, trained};

const COMMANDS: [&str; 10] = ["complete", "try", "train", "eval", "pack", "verify", "key", "bench", "tune", "lsp"];
const INPUT: i32 = 3;
const REFUSED: i32 = 4;
const UNTRUSTED: i32 = 5;

fn small() -> Workspace {
    Workspace::new(&format!("{MANIFEST}//- /src/lib.rs\n/// é\npub fn f() -> u32 {{\n    1\n}}\n"))
}

#[test]
fn all_three_forms_of_the_command_work() {
    let workspace = small();
    let expected = workspace.run("--version").ok();
    assert!(expected.starts_with("cargo-nanochat 0."), "{expected}");
    assert_eq!(workspace.run("nanochat --version").ok(), expected);
    let binary = Path::new(env!("CARGO_BIN_EXE_cargo-nanochat"));
    let mut folders = vec![binary.parent().expect("a binary is in a folder").to_owned()];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    workspace.prepare(&mut cargo);
    cargo.args(["nanochat", "--version"]).env("PATH", std::env::join_paths(folders).expect("folders without colons"));
    assert_eq!(String::from_utf8(cargo.output().expect("cargo starts").stdout).expect("UTF-8"), expected);
}

#[test]
fn help_is_worth_reading() {
    let workspace = small();
    insta::assert_snapshot!("help", workspace.run("--help").ok());
    for command in COMMANDS {
        insta::assert_snapshot!(format!("help-{command}"), workspace.run(&format!("{command} --help")).ok());
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_built_in_is_refused_with_how_to_build_it() {
    let error = small().run("train --device cuda").fails(3);
    assert!(error.contains("without `cuda`") && error.contains("train/cuda/build.sh"), "{error}");
}

#[test]
fn bench_measures_random_weights_of_a_shape() {
    let workspace = small();
    let shape = "d64l2h4kv2ff128v300n2ctx600";
    let text = workspace.run(&format!("bench --shape {shape} --threads 1 --runs 1 --message-format json")).ok();
    let report: serde_json::Value = serde_json::from_str(&text).expect("one object");
    for figure in [
        "decode_tokens_per_s",
        "prompt_tokens_per_s",
        "completion_ms_cached",
        "completion_ms_cold",
        "peak_fraction",
        "bandwidth_fraction",
    ] {
        assert!(report[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} in {text}");
    }
    assert_eq!(report["shape"], "d64 l2 h4 kv2 ff128 v300 n2");
    assert_eq!(workspace.run("bench --shape d64l2h4kv2ff128v300n1ctx256 --runs 1").code, Some(1));
    assert_eq!(workspace.run("bench --shape d64l2h3").code, Some(2));
}

#[test]
fn every_exit_code_is_in_the_help() {
    let help = small().run("--help").ok();
    let codes = help.split_once("Exit codes:").expect("a list of exit codes").1;
    let codes: Vec<&str> = codes.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "6", "7", "130"]);
}

/// The page that documents the command line, without backticks.
fn page() -> String {
    std::fs::read_to_string(repository().join("docs/reference/cli.md")).expect("the page").replace('`', "")
}

#[test]
fn the_documentation_names_every_option_of_the_help() {
    let (workspace, page) = (small(), page());
    for command in COMMANDS {
        let help = workspace.run(&format!("{command} --help")).ok();
        // An option starts its line, after its short form if it has one.
        // `-q, --quiet`: the long form is the first word, or the one after the short form.
        let long =
            |line: &str| line.split_whitespace().take(2).find_map(|word| word.strip_prefix("--").map(str::to_owned));
        let options = help.lines().filter(|line| line.trim_start().starts_with('-')).filter_map(long);
        for option in options.map(|option| option.trim_end_matches(|c: char| !c.is_alphabetic()).to_owned()) {
            assert!(option == "help" || page.contains(&format!("--{option}")), "--{option} of {command}");
        }
    }
}

#[test]
fn the_documentation_states_the_exit_codes_of_the_help() {
    let page = page();
    let help = small().run("--help").ok().replace('`', "");
    for line in help.split_once("Exit codes:").expect("a list of exit codes").1.lines().filter(|line| !line.is_empty())
    {
        let (code, meaning) = line.trim().split_once(' ').expect("a code and its meaning");
        assert!(page.contains(&format!("| {code} | {} |", meaning.trim())), "{line}");
    }
}

#[test]
fn a_senseless_command_line_is_a_usage_error() {
    let workspace = small();
    for words in [
        "",
        "frobnicate",
        "complete src/lib.rs",
        "complete src/lib.rs:0:1",
        "train --steps 0",
        "train --time 5x",
        "-q -v train",
    ] {
        let ran = workspace.run(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{words}: {}", ran.stderr);
        assert!(ran.stderr.contains("Usage") || ran.stderr.contains("--help"), "{words}: {}", ran.stderr);
    }
}

#[test]
fn without_a_cargo_toml_there_is_no_workspace() {
    let workspace = Workspace::new("//- /notes.txt\nnothing\n");
    for words in ["train --offline", "eval --offline", "pack --offline", "try --offline"] {
        let message = workspace.run(words).fails(INPUT);
        assert!(message.contains("no Cargo.toml") && message.contains("--manifest-path"), "{words}: {message}");
    }
}

#[test]
fn an_empty_workspace_has_nothing_to_train_on() {
    let workspace = Workspace::new("//- /Cargo.toml\n[workspace]\nmembers = []\n");
    let message = workspace.run("train --offline --recipe test --quiet").fails(INPUT);
    assert!(message.contains("no packages"), "{message}");
    let workspace = Workspace::new(&format!("{MANIFEST}//- /src/lib.rs\n\n"));
    let message = workspace.run("train --offline --recipe test --quiet").fails(INPUT);
    assert!(message.contains("no .rs file"), "{message}");
    let workspace = Workspace::new(MANIFEST); // cargo itself finds no target
    workspace.run("train --offline --quiet").fails(INPUT);
}

#[test]
fn a_manifest_path_is_a_file() {
    let workspace = small();
    let message = workspace.run("train --offline --manifest-path .").fails(INPUT);
    assert!(message.contains("is a folder") && message.contains("Cargo.toml"), "{message}");
    let message = workspace.run("train --offline --manifest-path nowhere/Cargo.toml").fails(INPUT);
    assert!(message.contains("nowhere/Cargo.toml"), "{message}");
    workspace.run("train --offline --manifest-path src/lib.rs").fails(INPUT);
    // A bare name is the current folder's; what is then missing is the checkpoint.
    let message = workspace.run("pack --offline --manifest-path Cargo.toml").fails(REFUSED);
    assert!(message.contains("cargo nanochat train"), "{message}");
}

#[test]
fn misspelt_settings_are_errors() {
    let workspace = small();
    workspace.write(
        "Cargo.toml",
        b"[package]\nname = \"x\"\nedition = \"2024\"\n[package.metadata.nanochat]\nrecpie = \"y\"\n",
    );
    let message = workspace.run("train --offline").fails(INPUT);
    assert!(message.contains("recpie"), "{message}");
}

#[test]
fn an_unknown_recipe_is_named_with_those_there_are() {
    let message = small().run("train --offline --quiet --recipe nonsense").fails(INPUT);
    assert!(message.contains("nonsense") && message.contains("try"), "{message}");
}

#[test]
fn a_file_that_is_not_utf_8_is_refused() {
    let workspace = small();
    workspace.write("src/bad.rs", b"fn f() {} // \xff\xfe\n");
    let message = workspace.run("complete src/bad.rs:1:1 --offline").fails(INPUT);
    assert!(message.contains("src/bad.rs") && message.contains("UTF-8"), "{message}");
}

#[test]
fn a_position_outside_the_file_is_refused() {
    let workspace = small();
    let message = workspace.run("complete src/lib.rs:99:1 --offline").fails(INPUT);
    assert!(message.contains("no line 99"), "{message}");
    let message = workspace.run("complete src/lib.rs:1:7 --offline").fails(INPUT); // `/// é` is 5 characters, 6 bytes
    assert!(message.contains("no column 7"), "{message}");
    let message = workspace.run("complete src/none.rs:1:1 --offline").fails(INPUT);
    assert!(message.contains("src/none.rs"), "{message}");
}

#[test]
fn a_missing_checkpoint_says_how_to_make_one() {
    let workspace = small();
    for words in ["complete src/lib.rs:2:5 --offline", "eval --trust --offline", "pack --offline"] {
        let message = workspace.run(words).fails(REFUSED);
        assert!(message.contains("cargo nanochat train"), "{words}: {message}");
    }
    let message = workspace.run("verify none.ncz").fails(REFUSED);
    assert!(message.contains("none.ncz"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_workspace_runs_nothing_before_it_is_trusted() {
    use std::os::unix::fs::PermissionsExt as _;
    let workspace = small();
    let seen = workspace.home.with_file_name("seen");
    workspace.write("wrapper", format!("#!/bin/sh\ntouch '{}'\nexec \"$@\"\n", seen.display()).as_bytes());
    let wrapper = workspace.root.join("wrapper");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    workspace.write(".cargo/config.toml", format!("[build]\nrustc-wrapper = {wrapper:?}\n").as_bytes());
    let message = workspace.run("eval --offline").fails(UNTRUSTED);
    assert!(message.contains("not trusted") && message.contains("--trust"), "{message}");
    assert!(!seen.exists(), "cargo ran what the workspace configures");
    // Trust outlives the command that gave it; what is missing now is a checkpoint.
    for words in ["eval --trust --offline", "eval --offline"] {
        workspace.run(words).fails(REFUSED);
    }
}

#[test]
fn files_that_are_no_checkpoint_are_refused() {
    let workspace = small();
    workspace.write("empty.ncz", b"");
    workspace.write("text.ncz", b"this is not a checkpoint");
    workspace.write("zeros.ncz", &[0; 100_000]);
    for words in [
        "verify empty.ncz",
        "verify text.ncz",
        "verify zeros.ncz",
        "complete src/lib.rs:2:5 --model zeros.ncz --offline",
    ] {
        let message = workspace.run(words).fails(REFUSED);
        assert!(message.contains(".ncz"), "{words}: {message}");
    }
}

#[test]
fn truncated_and_foreign_checkpoints_are_refused() {
    let trained = trained();
    let workspace = small();
    let file = workspace.root.join("theirs.ncz");
    trained.run(&format!("pack --offline --output {}", file.display())).ok();
    let bytes = std::fs::read(&file).expect("the checkpoint");
    for n in [1, 16, 100, bytes.len() / 2, bytes.len() - 1] {
        workspace.write("short.ncz", &bytes[..n]);
        trained.run(&format!("verify {}", workspace.root.join("short.ncz").display())).fails(REFUSED);
    }
    // Once trusted, the same file is good.
    let key = trained.run("key show").ok();
    workspace.write("their.pub", key.as_bytes());
    workspace.run("key trust their.pub").ok();
    workspace.run("verify theirs.ncz").ok();
}

#[test]
fn what_a_file_by_an_unknown_signer_says_is_shown_as_a_claim() {
    let workspace = small();
    trained().run(&format!("pack --offline -o {}", workspace.root.join("theirs.ncz").display())).ok();
    let ran = workspace.run("verify theirs.ncz");
    assert_eq!(ran.code, Some(REFUSED), "{ran:?}");
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("not trusted"), "{ran:?}");
    let mut lines = ran.stdout.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("not verified")), "{ran:?}");
    assert!(lines.all(|line| line.starts_with("claimed ")), "{ran:?}");
    assert!(ran.stdout.contains("claimed licences    MIT"), "{ran:?}");

    let ran = workspace.run("verify theirs.ncz --message-format json");
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one object");
    assert_eq!((ran.code, &answer["verified"], &answer["is_whole"]), (Some(REFUSED), &false.into(), &true.into()));
    assert_eq!((answer["claims"]["licences"][0].as_str(), answer.get("licences")), (Some("MIT"), None));

    // A signer whose section is not what it names.
    let mut bytes = std::fs::read(workspace.root.join("theirs.ncz")).expect("the checkpoint");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    workspace.write("theirs.ncz", &bytes);
    let ran = workspace.run("verify theirs.ncz");
    assert!(ran.code == Some(REFUSED) && ran.stdout.contains("NOT those"), "{ran:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let workspace = small();
    let mut command = workspace.command();
    command.args(["key", "show"]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).contains("panicked")), (Some(0), false));
}
