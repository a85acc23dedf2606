//! Workspace → training → signed checkpoint → completion.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{MANIFEST, Ran, WORDS, Workspace, sample, trained};

const REFUSED: i32 = 4;
const INPUT: i32 = 3;

fn lines(json: &str) -> Vec<Value> {
    json.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect()
}

#[test]
fn a_completion_contains_an_identifier_that_only_this_workspace_has() {
    let workspace = trained();
    // A function body in a new file: `self.` is followed by the one field that all parts have.
    let text = format!(
        "use crate::part0::{node};\n\nimpl {node} {{\n    pub fn first(&self) -> Option<u32> {{\n        self.{}",
        &WORDS[4][..3],
        node = WORDS[1]
    );
    workspace.write("src/fresh.rs", text.as_bytes());
    let column = text.lines().last().expect("a last line").chars().count() + 1;
    let answer = workspace.run(&format!("complete src/fresh.rs:5:{column} --offline --message-format json")).ok();
    std::fs::remove_file(workspace.root.join("src/fresh.rs")).expect("the file was written above");
    let answer: Value = serde_json::from_str(&answer).expect("an object");
    let completed = format!("{}{}", &WORDS[4][..3], answer["text"].as_str().expect("text"));
    assert!(completed.contains(WORDS[4]), "{answer}");
    let sources = answer["sources"].as_array().expect("a source for each token");
    assert!(!sources.is_empty() && sources.iter().all(|s| s == "model" || s == "memory"), "{answer}");
    assert!(answer["confidence"].as_f64().is_some_and(|c| (0.0..=1.0).contains(&c)), "{answer}");
}

#[test]
fn the_same_question_has_the_same_answer() {
    let workspace = trained();
    let ask = || workspace.run("complete src/part3.rs:24:9 --offline").ok();
    assert_eq!(ask(), ask());
}

#[test]
fn training_reports_each_step_and_ends_with_a_checkpoint_that_verifies() {
    let workspace = Workspace::new(&sample());
    workspace.write("src/odd.rs", b"// \xff\n");
    let ran = workspace.run("train --recipe test --steps 4 --offline --message-format json");
    assert!(ran.stderr.contains("odd.rs"), "what is left out is reported: {}", ran.stderr);
    let reports = lines(&ran.ok());
    let steps: Vec<&Value> = reports.iter().filter(|report| report["event"] == "step").collect();
    assert_eq!(steps.len(), 4);
    for step in &steps {
        assert!(["step", "tokens", "loss", "tokens_per_s"].iter().all(|key| step[key].is_number()), "{step}");
    }
    assert!(steps.iter().any(|step| step["bits_per_byte"].is_number()));
    let last = reports.last().expect("a last report");
    assert_eq!(last["event"], "trained");
    assert!(last["after"]["model"].as_f64() < last["before"]["model"].as_f64(), "{last}");
    let checkpoint = last["checkpoint"].as_str().expect("a path");
    assert!(checkpoint.starts_with(workspace.home.to_str().expect("UTF-8")), "{checkpoint}");
    let manifest: Value =
        serde_json::from_str(&workspace.run(&format!("verify {checkpoint} --message-format json")).ok()).expect("json");
    assert_eq!(manifest["training"]["n_steps"], 4);
    assert_eq!(manifest["licences"][0], "MIT");
}

#[test]
fn a_later_run_learns_what_has_changed_and_a_forgotten_file_is_out_of_the_manifest() {
    let workspace = Workspace::new(&sample());
    let train = |more: &str| workspace.run(&format!("train --recipe test --steps 4 --offline {more}"));
    train("").ok();
    workspace
        .write("src/fresh.rs", "pub fn freshly_written(value: u32) -> u32 {\n    value + 1\n}\n".repeat(9).as_bytes());
    let update = train("--message-format json");
    let updated = lines(&update.ok());
    let event = updated.iter().find(|report| report["event"] == "updated").expect("a part has changed");
    let n_changed = event["n_changed_files"].as_u64().expect("a number");
    assert!(n_changed <= 1, "the file may be held out: {event}");

    let forgetting = lines(&train("--message-format json --forget src/part0.rs").ok());
    let last = forgetting.last().expect("a last report");
    let forgot = &last["forgot"];
    assert_eq!(forgot["paths"][0], "src/part0.rs");
    assert_ne!(forgot["before"]["corpus_hash"], forgot["after"]["corpus_hash"]);
    let held_out = last["held_out"].as_array().expect("a list");
    assert!(held_out.iter().all(|file| file != "src/part0.rs"), "{last}");
    let unknown = train("--remember src/part1.rs");
    let error = unknown.fails(INPUT);
    assert!(error.contains("src/part1.rs: it was not forgotten"), "{error}");
}

#[test]
fn training_starts_from_a_base() {
    let trained = trained();
    let work = Workspace::new(&sample());
    let file = work.root.join("base.ncz");
    trained.run(&format!("pack --offline -o {}", file.display())).ok();
    work.run("train --base base.ncz --recipe test --offline").fails(REFUSED);
    work.write("key.pub", trained.run("key show").ok().as_bytes());
    work.run("key trust key.pub").ok();
    let reports =
        lines(&work.run("train --base base.ncz --recipe test --steps 2 --offline --message-format json").ok());
    let last = reports.last().expect("a last report");
    let [before, unigram] = ["model", "unigram"].map(|key| last["before"][key].as_f64().expect("a number"));
    assert!(before < unigram, "the base knows this code before the first step: {last}");
    let checkpoint = last["checkpoint"].as_str().expect("a path");
    let manifest: Value =
        serde_json::from_str(&work.run(&format!("verify {checkpoint} --message-format json")).ok()).expect("json");
    assert_eq!(manifest["lineage"].as_array().map(Vec::len), Some(1), "{manifest}");
}

#[test]
fn evaluation_judges_the_held_out_files_and_compares_with_baselines() {
    // Files that differ: one that repeats what training saw would be dropped as a leak.
    let mut files = sample();
    for i in 0..12 {
        files += &format!("//- /src/other{i}.rs\n");
        for k in 0..6 {
            let (name, seed) = (format!("mix_{i}_{k}"), 7 * i + k + 1);
            files += &format!(
                "/// Part {i}, mixture {k}.\n\
                 pub fn {name}(values: &[u32]) -> u32 {{\n    \
                     let mut sum_{i} = {seed};\n    \
                     for (at_{k}, value) in values.iter().enumerate() {{\n        \
                         sum_{i} ^= value.rotate_left({seed} + at_{k} as u32);\n    \
                     }}\n    \
                     sum_{i}.wrapping_mul({seed} + {i})\n\
                 }}\n\n"
            );
        }
    }
    let modules: String = (0..12).map(|i| format!("pub mod other{i};\n")).collect();
    let workspace = Workspace::new(&files.replacen("//! A sample.\n", &format!("//! A sample.\n{modules}"), 1));
    workspace.run("train --recipe test --steps 4 --offline").ok();
    let report = workspace.run("eval --trust --holes 2 --offline --message-format json").ok();
    let report: Value = serde_json::from_str(&report).expect("one object");
    let systems: Vec<&str> =
        report["systems"].as_array().expect("systems").iter().filter_map(|s| s["name"].as_str()).collect();
    for name in ["truth", "empty", "copy-longest-match", "nanochat"] {
        assert!(systems.contains(&name), "{systems:?}");
    }
    // Neither training nor evaluation has left a Cargo.lock or a target folder in the workspace.
    let mut names = names(&workspace.root);
    names.sort();
    assert_eq!(names, ["Cargo.toml", "src"]);
}

#[cfg(unix)]
#[test]
fn the_signing_key_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let key = trained().home.join("key.secret");
    assert_eq!(std::fs::metadata(key).expect("the key").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_tampered_byte_anywhere_is_refused_and_the_message_says_what_to_do() {
    let trained = trained();
    let work = Workspace::new(MANIFEST);
    let file = work.root.join("model.ncz");
    trained.run(&format!("pack --offline -o {}", file.display())).ok();
    let bytes = std::fs::read(&file).expect("the checkpoint");
    // Header, signature, manifest and sections, spread evenly; the last byte too.
    for at in (0..24).map(|i| i * (bytes.len() - 1) / 23) {
        let mut tampered = bytes.clone();
        tampered[at] ^= 0x10;
        std::fs::write(&file, &tampered).expect("the file");
        let message = trained.run(&format!("verify {}", file.display())).fails(REFUSED);
        assert!(message.contains("model.ncz") && message.contains(';'), "byte {at}: {message}");
    }
    std::fs::write(&file, &bytes).expect("the file");
    trained.run(&format!("verify {}", file.display())).ok();
}

#[test]
fn a_packed_checkpoint_serves_another_workspace_that_trusts_its_key() {
    let trained = trained();
    let other = Workspace::new(&sample());
    let file = other.root.join("shared.ncz");
    trained.run(&format!("pack --offline -o {}", file.display())).ok();
    let question = "complete src/part1.rs:24:9 --offline --model shared.ncz";
    other.run(question).fails(REFUSED);
    other.write("key.pub", trained.run("key show").ok().as_bytes());
    other.run("key trust key.pub").ok();
    assert_eq!(other.run(question).ok(), trained.run("complete src/part1.rs:24:9 --offline").ok());
}

#[test]
fn a_data_folder_that_cannot_be_written_does_not_keep_complete_from_answering() {
    let trained = trained();
    let other = Workspace::new(&sample());
    let file = other.root.join("shared.ncz");
    trained.run(&format!("pack --offline -o {}", file.display())).ok();
    std::fs::create_dir_all(other.home.join("lock")).expect("a folder"); // where the store's lock would be
    std::fs::write(other.home.join("key.pub"), trained.run("key show").ok()).expect("a key that is trusted");
    let ran = other.run("complete src/part1.rs:24:9 --offline --model shared.ncz");
    assert!(ran.stderr.contains("not remembered"), "{ran:?}");
    assert_eq!(ran.ok(), trained.run("complete src/part1.rs:24:9 --offline").ok());
}

#[test]
fn a_revoked_key_is_refused_whatever_it_signed() {
    let trained = trained();
    let other = Workspace::new(MANIFEST);
    let file = other.root.join("shared.ncz");
    trained.run(&format!("pack --offline -o {}", file.display())).ok();
    other.write("key.pub", trained.run("key show").ok().as_bytes());
    other.run("key trust key.pub").ok();
    other.run("verify shared.ncz").ok();
    let keys = lines(&other.run("key list --message-format json").ok());
    let id = keys.iter().find(|key| key["name"] == "key").expect("the key is listed")["id"].as_str().expect("an id");
    other.run(&format!("key revoke {id}")).ok();
    let message = other.run("verify shared.ncz").fails(REFUSED);
    assert!(message.contains("revoked"), "{message}");
}

#[test]
fn a_reader_that_leaves_early_interrupts_training() {
    let workspace = Workspace::new(&sample());
    let mut command = workspace.command();
    command.args(["train", "--recipe", "test", "--steps", "100000", "--offline", "--message-format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    drop(child.stdout.take());
    let ran = child.wait_with_output().expect("it ends");
    let message = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(130), "{message}");
    assert!(message.contains("stdout is closed") && message.contains("resumes from there"), "{message}");
}

/// A `try` that has a folder for temporary files of its own.
fn a_try(workspace: &Workspace, words: &str) -> (Command, PathBuf) {
    let temporary = workspace.home.join("temporary");
    std::fs::create_dir_all(&temporary).expect("a folder");
    let mut command = workspace.command();
    command.env("TMPDIR", &temporary).args(["try", "--recipe", "test", "--offline", "--message-format", "json"]);
    command.args(words.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
    (command, temporary)
}

fn names(folder: &Path) -> Vec<OsString> {
    std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name()).collect()
}

#[test]
fn a_try_counts_more_places_than_it_shows_and_leaves_nothing_behind() {
    let workspace = Workspace::new(&sample());
    let (mut command, temporary) = a_try(&workspace, "--time 2s --places 3");
    let reports = lines(&Ran::from(command.output().expect("the binary starts")).ok());
    let shown: Vec<&Value> = reports.iter().filter(|report| report["event"] == "place").collect();
    let last = reports.last().expect("a last report");
    assert_eq!((shown.len(), &last["event"]), (3, &"tried".into()), "{last}");
    let exact = &last["exact"];
    let n_places = exact["places"].as_u64().expect("a number");
    let n_exact = shown.iter().filter(|place| place["exact"] == true).count() as u64;
    assert!(n_places > 3 && (n_exact..=n_places).contains(&exact["both"].as_u64().expect("a number")), "{last}");
    assert!(shown.iter().all(|place| place["first_token_ms"].as_f64() > Some(0.0)), "{shown:?}");
    assert!(last["tokens_per_s"].as_f64() > Some(0.0), "{last}");
    assert_eq!((names(&temporary), names(&workspace.home)), (vec![], vec!["temporary".into()]));
}

#[cfg(unix)]
#[test]
fn a_try_that_is_interrupted_twice_leaves_nothing_behind() {
    use std::io::{BufRead, BufReader};
    let workspace = Workspace::new(&sample());
    let (mut command, temporary) = a_try(&workspace, "--time 60s");
    let mut child = command.spawn().expect("the binary starts");
    let mut reports = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    assert!(reports.any(|line| line.expect("UTF-8").contains("\"event\":\"step\"")), "training starts");
    assert_eq!(names(&temporary).len(), 1);
    let id = child.id().to_string();
    // Two signals of one kind may arrive as one.
    let script = "kill -INT $0; kill -TERM $0";
    assert!(Command::new("sh").args(["-c", script, &id]).status().expect("a shell").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(names(&temporary).len(), 0);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_its_state_and_resumes() {
    use std::io::{BufRead, BufReader};
    let workspace = Workspace::new(&sample());
    let mut command = workspace.command();
    command.args(["train", "--recipe", "test", "--steps", "100000", "--offline", "--message-format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let mut reports = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let is_step = |line: &str| line.contains("\"event\":\"step\"");
    let first = reports.by_ref().map(|line| line.expect("UTF-8")).find(|line| is_step(line));
    assert!(first.is_some(), "training starts");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill is there").success());
    let n_more = reports.filter(|line| line.as_ref().is_ok_and(|line| is_step(line))).count();
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(n_more < 100_000 - 1);
    let resumed =
        lines(&workspace.run("train --recipe test --steps 100000 --time 1s --offline --message-format json").ok());
    assert!(resumed.iter().any(|report| report["event"] == "resumed"), "{:?}", resumed.first());
}
