//! Whole runs: workspace in, checkpoint out; interrupted, resumed, refused.

use std::path::Path;

use nanochat_engine::memory::Memory;
use nanochat_engine::rng::Rng;
use nanochat_engine::workspace::sources::{Package, Role};
use nanochat_engine::{Cancel, Completer, Limits, Prompt, Sources};
use nanochat_train::backend::BackendError;
use nanochat_train::data::corpus::CorpusError;
use nanochat_train::{Device, Event, Options, Outcome, TrainError, pack, train};

// glibc gives large pages back on each free, which is 40 % of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A crate whose identifiers nobody has seen: seeded, so that a failure can be repeated.
fn random_crate(folder: &Path, seed: u64) -> (Sources, Vec<String>) {
    let mut rng = Rng::new(seed);
    let syllables = ["zor", "quim", "vap", "lud", "nex", "bri", "tof", "gax", "wem", "pid"];
    let names: Vec<String> =
        (0..6).map(|_| (0..4).map(|_| syllables[rng.below(syllables.len())]).collect::<String>()).collect();
    std::fs::create_dir_all(folder.join("src")).expect("a folder can be made");
    std::fs::write(folder.join("Cargo.toml"), "[package]\nname = \"x\"\nversion = \"0.1.0\"\n").expect("writable");
    for file in 0..12 {
        let mut text = format!("//! Part {file}.\n\n");
        for i in 0..10 {
            let (a, b) = (&names[rng.below(6)], &names[rng.below(6)]);
            text.push_str(&format!(
                "pub fn step_{file}_{i}(input: &{a}::State) -> u32 {{\n    let value = {a}::{b}(input, {i});\n    value + {file}\n}}\n\n"
            ));
        }
        std::fs::write(folder.join(format!("src/part{file}.rs")), text).expect("writable");
    }
    let package = Package {
        name: "x".into(),
        version: "0.1.0".into(),
        edition: "2024".into(),
        licence: Some("MIT".into()),
        folder: folder.to_owned(),
        role: Role::Member,
    };
    (Sources { root: folder.to_owned(), packages: vec![package] }, names)
}

fn options(sources: &Sources, state_dir: &Path, steps: usize) -> Options {
    Options {
        sources: sources.clone(),
        recipe: "test".into(),
        state_dir: state_dir.to_owned(),
        restart: false,
        seed: None,
        steps: Some(steps),
        time_budget_s: None,
        threads: 2,
        base: None,
        dependencies: None,
        find_lr: false,
        forget: Vec::new(),
        remember: Vec::new(),
        device: Device::Cpu,
        packed: None,
    }
}

fn run(options: &Options) -> Outcome {
    train(options, &mut |_| {}, &Cancel::new()).expect("training works")
}

#[test]
fn two_trainers_do_not_share_a_state() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (sources, _) = random_crate(folder.path(), 5);
    let options = options(&sources, &folder.path().join("state"), 2);
    let mut refused = Vec::new();
    let mut second = |event: Event| {
        if matches!(event, Event::Step { .. }) {
            refused.push(train(&options, &mut |_| {}, &Cancel::new()).expect_err("the first one trains").to_string());
        }
    };
    train(&options, &mut second, &Cancel::new()).expect("training works");
    assert!(refused.len() == 2 && refused[0].contains("another process"), "{refused:?}");
    run(&options);
}

/// Runs until `n` steps of this call are made, then cancels.
fn interrupt_after(options: &Options, n: usize) -> (Outcome, Vec<Event>) {
    let cancel = Cancel::new();
    let (mut seen, mut events) = (0, Vec::new());
    let mut sink = |event: Event| {
        seen += usize::from(matches!(event, Event::Step { .. }));
        if seen == n {
            cancel.cancel();
        }
        events.push(event);
    };
    let outcome = train(options, &mut sink, &cancel).expect("an interruption is no error");
    (outcome, events)
}

#[test]
fn a_run_that_was_interrupted_ends_with_the_same_weights() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 1);
    let straight = run(&options(&sources, &folder.path().join("a"), 12));
    assert!(straight.finished);

    let in_two = options(&sources, &folder.path().join("b"), 12);
    let (first, _) = interrupt_after(&in_two, 5);
    assert!(!first.finished);
    let (second, events) = interrupt_after(&Options { threads: 1, ..in_two }, usize::MAX);
    assert!(second.finished);
    assert!(events.iter().any(|event| matches!(event, Event::Resumed { step: 5 })), "{events:?}");
    assert_eq!(straight.checkpoint.weights, second.checkpoint.weights);
    assert_eq!(straight.checkpoint.blend, second.checkpoint.blend);
    assert_eq!(straight.after.model, second.after.model);
}

/// The test recipe with lines replaced; a line is given with enough of the text before it.
fn recipe_with(folder: &Path, changes: &[(&str, &str)]) -> String {
    let mut text = include_str!("../recipes/test.toml").to_owned();
    for (line, other) in changes {
        assert_eq!(text.matches(line).count(), 1, "{line}");
        text = text.replace(line, other);
    }
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).expect("writable");
    path.to_str().expect("a temporary folder has a plain name").to_owned()
}

#[test]
fn dependencies_are_trained_on_and_what_is_tokenised_once_is_kept() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (mut sources, _) = random_crate(&folder.path().join("w"), 12);
    let (dependency, _) = random_crate(&folder.path().join("dep"), 13);
    let package = Package { name: "dep".into(), licence: Some("ISC".into()), ..dependency.packages[0].clone() };
    sources.packages.push(Package { role: Role::Dependency, ..package });
    let with = |dependencies: Option<Vec<String>>, state: &str| Options {
        dependencies,
        ..options(&sources, &folder.path().join(state), 4)
    };
    let alone = run(&with(None, "a"));
    let none_allowed = run(&with(Some(vec!["MIT".into()]), "b"));
    assert_eq!(alone.checkpoint.manifest.training, none_allowed.checkpoint.manifest.training);
    let both = with(Some(vec!["ISC".into(), "MIT".into()]), "c");
    let (first, events) = interrupt_after(&both, 2);
    let tokenised = |events: &[Event]| {
        events.iter().find_map(|e| if let Event::Tokenised { n_files, .. } = e { Some(*n_files) } else { None })
    };
    assert!(!first.finished && tokenised(&events) == Some(24), "{events:?}");
    assert!(events.iter().any(|e| matches!(e, Event::Collected { n_dependency_files: 12, .. })), "{events:?}");
    let (second, events) = interrupt_after(&both, usize::MAX);
    assert!(second.finished && tokenised(&events) == Some(0), "{events:?}");
    assert_eq!(second.checkpoint.manifest.licences, ["ISC", "MIT"]);
    assert_eq!(second.held_out, alone.held_out);
    let n_files = |outcome: &Outcome| outcome.checkpoint.manifest.training.n_files;
    assert_eq!(n_files(&second), n_files(&alone) + 12);
    // A damaged file costs the tokenising, not the run.
    std::fs::write(both.state_dir.join("corpus.ncs"), b"NCSHARD1").expect("writable");
    let (third, events) = interrupt_after(&Options { steps: Some(8), ..both }, usize::MAX);
    assert!(third.finished && tokenised(&events) == Some(24), "{events:?}");
    let bad = with(Some(vec!["Mitt".into()]), "d");
    let error = train(&bad, &mut |_| {}, &Cancel::new()).expect_err("no licence").to_string();
    assert!(error.contains("`Mitt`"), "{error}");
}

/// The test recipe with other rates.
fn recipe_at(folder: &Path, lion: &str) -> String {
    let lr = include_str!("../recipes/test.toml").split_once("[optimizer.lion]\n").expect("it has lion").1;
    let lr = lr.lines().next().expect("a rate");
    let section = |lr: &str| format!("[optimizer.lion]\n{lr}");
    recipe_with(folder, &[(&section(lr), &section(&format!("lr = {lion}")))])
}

/// Changes two of the files that were trained on.
fn change_two(sources: &Sources, held_out: &[std::path::PathBuf]) {
    let is_held_out = |name: &str| held_out.iter().any(|path| path.as_path() == Path::new(name));
    let names = (0..12).map(|file| format!("src/part{file}.rs"));
    for name in names.filter(|name| !is_held_out(name)).take(2) {
        let path = sources.root.join(&name);
        let text = std::fs::read_to_string(&path).expect("it is there");
        std::fs::write(&path, text.replace("let value", "let other")).expect("writable");
    }
}

fn updates(events: &[Event]) -> Vec<(usize, usize)> {
    let of = |event: &Event| match event {
        Event::Updated { n_changed_files, steps, .. } => Some((*n_changed_files, *steps)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

fn n_steps(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Step { .. })).count()
}

#[test]
fn what_has_changed_is_learned_from_where_the_last_run_ended() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 9);
    let [straight, in_two] =
        ["a", "b"].map(|name| Options { steps: None, ..options(&sources, &folder.path().join(name), 0) });
    let first = run(&straight);
    run(&in_two);
    change_two(&sources, &first.held_out);
    let (second, events) = interrupt_after(&straight, usize::MAX);
    let [(2, steps)] = updates(&events)[..] else { panic!("{events:?}") };
    assert!(second.finished && n_steps(&events) == steps && steps >= 12, "{events:?}");
    assert_eq!(second.held_out, first.held_out);
    assert_ne!(second.checkpoint.weights, first.checkpoint.weights);

    let (half, _) = interrupt_after(&in_two, 5);
    let (rest, events) = interrupt_after(&in_two, usize::MAX);
    assert!(!half.finished && rest.finished && n_steps(&events) == steps - 5, "{events:?}");
    assert_eq!(rest.checkpoint.weights, second.checkpoint.weights);

    let (third, events) = interrupt_after(&straight, usize::MAX);
    assert_eq!((updates(&events), n_steps(&events)), (vec![(0, 0)], 0), "nothing has changed since");
    assert_eq!(third.checkpoint.weights, second.checkpoint.weights);
}

#[test]
fn a_packed_corpus_makes_the_weights_that_its_files_make() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (sources, _) = random_crate(&folder.path().join("w"), 11);
    // The seed decides what is held out.
    let here = Options { seed: Some(5), ..options(&sources, &folder.path().join("a"), 8) };
    let file = folder.path().join("corpus.ncs");
    let packed = pack(&here, &file, &mut |_| {}).expect("it can be written");
    let elsewhere = Sources::folder(&file);
    let there = options(&elsewhere, &folder.path().join("b"), 8);
    let there = Options { packed: Some(file.clone()), seed: Some(5), ..there };
    let (here, there) = (run(&here), run(&there));
    assert_eq!(packed.n_files as u64, here.checkpoint.manifest.training.n_files + here.held_out.len() as u64);
    assert_eq!(there.checkpoint.weights, here.checkpoint.weights);
    assert_eq!(there.checkpoint.manifest.training.corpus_hash, here.checkpoint.manifest.training.corpus_hash);
    assert_eq!((there.before, there.after, &there.held_out), (here.before, here.after, &here.held_out));

    std::fs::write(&file, "fn main() {}").expect("writable");
    let broken = Options { packed: Some(file), restart: true, ..options(&elsewhere, &folder.path().join("b"), 8) };
    let error = train(&broken, &mut |_| {}, &Cancel::new()).expect_err("it is no corpus").to_string();
    assert!(error.contains("is not a packed corpus") && error.contains("--pack"), "{error}");
}

#[test]
fn a_forgotten_path_leaves_the_weights_of_a_run_that_never_saw_it() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 10);
    let (never, _) = random_crate(&folder.path().join("v"), 10);
    for file in ["src/part3.rs", "src/part7.rs"] {
        std::fs::remove_file(never.root.join(file)).expect("it was written");
    }
    let never = run(&options(&never, &folder.path().join("a"), 12));
    let whole = options(&sources, &folder.path().join("b"), 12);
    let before = run(&whole);
    let forget = vec!["src/part3.rs".into(), sources.root.join("src/part7.rs")];
    let forgetting = Options { forget, ..whole.clone() };
    let stopped = Cancel::new();
    stopped.cancel();
    let outcome = train(&forgetting, &mut |_| {}, &stopped).expect("an interruption is no error");
    assert!(
        !outcome.finished,
        "it is stopped before its first save, and what had learned the files must not come back"
    );
    let after = run(&forgetting);
    assert_ne!(before.checkpoint.weights, never.checkpoint.weights);
    assert_eq!(after.checkpoint.weights, never.checkpoint.weights);
    assert_eq!(after.checkpoint.tokenizer.merges(), never.checkpoint.tokenizer.merges());
    assert_eq!(after.checkpoint.manifest.training.corpus_hash, never.checkpoint.manifest.training.corpus_hash);
    // It stays forgotten.
    assert_eq!(run(&whole).checkpoint.weights, never.checkpoint.weights);
    let (_, events) = interrupt_after(&Options { remember: vec!["src/part3.rs".into()], ..whole.clone() }, usize::MAX);
    assert_eq!(updates(&events).len(), 1, "what is remembered is new: {events:?}");
    let outside = Options { forget: vec!["../elsewhere.rs".into()], ..whole.clone() };
    let error = train(&outside, &mut |_| {}, &Cancel::new()).expect_err("it is no file of the workspace");
    assert!(matches!(error, TrainError::Path { .. }), "{error}");
    let unknown = Options { remember: vec!["src/part5.rs".into()], ..whole };
    assert!(matches!(train(&unknown, &mut |_| {}, &Cancel::new()), Err(TrainError::Path { .. })));
}

#[test]
fn dependencies_are_replayed_and_judged_by_files_held_out() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (mut sources, _) = random_crate(&folder.path().join("w"), 11);
    let (dependency, _) = random_crate(&folder.path().join("d"), 12);
    let own = run(&options(&sources, &folder.path().join("a"), 4));
    let package = &dependency.packages[0];
    sources.packages.push(Package { name: "dependency".into(), role: Role::Dependency, ..package.clone() });
    let recipe = recipe_with(folder.path(), &[("replay_share = 0.0", "replay_share = 0.5")]);
    let options = Options { recipe, ..options(&sources, &folder.path().join("b"), 4) };
    let (outcome, events) = interrupt_after(&options, usize::MAX);
    assert!(events.iter().any(|e| matches!(e, Event::Replayed { n_held_out_files: 1, .. })), "{events:?}");
    let general = |figures: nanochat_train::HeldOut| figures.general.expect("there are files to judge by");
    assert!(general(outcome.after) < general(outcome.before), "{:?} {:?}", outcome.before, outcome.after);
    assert_eq!(own.after.general, None);
    assert_ne!(outcome.checkpoint.weights, own.checkpoint.weights);
}

#[test]
fn a_run_that_learns_nothing_more_stops_with_its_best_masters() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 13);
    let muon = "[optimizer.muon]\nlr = 0.02";
    let changes = [("every = 30", "every = 1"), ("patience = 0", "patience = 3"), (muon, "[optimizer.muon]\nlr = 0.0")];
    let recipe = recipe_with(folder.path(), &changes);
    let text = std::fs::read_to_string(&recipe).expect("it was written");
    let (before, after) = text.split_once("[optimizer.lion]\n").expect("it has lion");
    let after = after.splitn(3, '\n').nth(2).expect("it has more numbers");
    std::fs::write(&recipe, format!("{before}[optimizer.lion]\nlr = 0.0\nlr_gains = 0.0\n{after}")).expect("writable");
    let options = Options { recipe, ..options(&sources, &folder.path().join("a"), 40) };
    let (outcome, events) = interrupt_after(&options, usize::MAX);
    let stopped = events.iter().find_map(|e| match e {
        Event::Stopped { step, best_step, .. } => Some((*step, *best_step)),
        _ => None,
    });
    let (step, best_step) = stopped.expect("nothing is learned at a rate of 0");
    assert!(outcome.finished && best_step == 1 && (4..40).contains(&step), "{step}, {best_step}");
}

#[test]
fn a_run_that_runs_away_goes_back_and_lowers_its_rates_and_one_that_continues_keeps_them() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 6);
    // Half of an embedding's logits change by whole numbers in each step.
    let recipe = recipe_at(folder.path(), "1.0");
    let options = Options { recipe, ..options(&sources, &folder.path().join("a"), 12) };
    let (outcome, events) = interrupt_after(&options, usize::MAX);
    let rates: Vec<f64> =
        events.iter().filter_map(|e| if let Event::RolledBack { rate, .. } = e { Some(*rate) } else { None }).collect();
    assert!(outcome.finished && !rates.is_empty(), "{events:?}");
    assert!(rates.iter().zip(1..).all(|(rate, n)| *rate == 0.5f64.powi(n)), "{rates:?}");
    let bound = 2.0 * (outcome.checkpoint.tokenizer.vocab_size() as f64).ln();
    let losses = events.iter().filter_map(|e| if let Event::Step { loss, .. } = e { Some(*loss) } else { None });
    assert!(losses.clone().all(|loss| loss < bound), "{:?}", losses.collect::<Vec<_>>());

    let in_two = Options { state_dir: folder.path().join("b"), ..options };
    let (first, _) = interrupt_after(&in_two, 7);
    let (second, _) = interrupt_after(&in_two, usize::MAX);
    assert!(!first.finished && second.finished);
    assert_eq!(outcome.checkpoint.weights, second.checkpoint.weights);
}

#[test]
fn rates_that_nothing_saves_are_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 7);
    let options =
        Options { recipe: recipe_at(folder.path(), "1e9"), ..options(&sources, &folder.path().join("a"), 12) };
    let error = train(&options, &mut |_| {}, &Cancel::new()).expect_err("it diverges");
    assert!(matches!(error, TrainError::Diverged { .. }) && error.to_string().contains("--find-lr"), "{error}");
}

#[test]
fn a_range_test_leaves_no_trace_but_its_rate() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 8);
    let searching = Options { find_lr: true, ..options(&sources, &folder.path().join("a"), 12) };
    let (outcome, events) = interrupt_after(&searching, usize::MAX);
    let found = events.iter().find_map(|e| if let Event::Found { rate } = e { Some(*rate) } else { None });
    let found = found.expect("it was asked for");
    assert!((1.0 / 64.0..=8.0).contains(&found), "{found}");
    let first = events
        .iter()
        .find_map(|e| if let Event::Step { step, tokens, .. } = e { Some((*step, *tokens)) } else { None });
    let plain = interrupt_after(&options(&sources, &folder.path().join("b"), 12), usize::MAX);
    let plain_first = plain
        .1
        .iter()
        .find_map(|e| if let Event::Step { step, tokens, .. } = e { Some((*step, *tokens)) } else { None });
    assert_eq!(first, plain_first);
    assert!(outcome.finished && outcome.curve.is_some_and(|curve| curve.is_file()));
    let (resumed, events) = interrupt_after(&Options { steps: Some(20), ..searching }, usize::MAX);
    assert!(resumed.finished && !events.iter().any(|e| matches!(e, Event::Searched { .. })), "{events:?}");
}

#[test]
fn a_longer_run_continues_from_before_the_decay() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 2);
    let longer = run(&options(&sources, &folder.path().join("a"), 20));
    run(&options(&sources, &folder.path().join("b"), 10)); // decays over the last 4
    let continued = run(&options(&sources, &folder.path().join("b"), 20));
    assert_eq!(longer.checkpoint.weights, continued.checkpoint.weights);
}

#[test]
fn training_beats_token_frequencies_and_completes_names_it_never_met_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, names) = random_crate(&folder.path().join("w"), 77);
    let outcome = run(&options(&sources, &folder.path().join("s"), 60));
    assert!(outcome.after.model < outcome.before.model, "{:?} {:?}", outcome.before, outcome.after);
    assert!(outcome.after.model < outcome.after.unigram, "{:?}", outcome.after);
    assert!(!outcome.held_out.is_empty());
    assert_eq!(outcome.checkpoint.manifest.version, 0);
    assert_eq!(outcome.checkpoint.manifest.licences, ["MIT"]);

    let (files, _) = sources.collect(&[Role::Member]);
    let tokenizer = &outcome.checkpoint.tokenizer;
    let streams = files
        .iter()
        .filter(|file| !outcome.held_out.iter().any(|held_out| held_out.as_path() == Path::new(&file.name)))
        .map(|file| (file.name.clone(), tokenizer.encode(file.text.as_bytes())))
        .collect();
    let mut completer = Completer::new(&outcome.checkpoint, 1);
    completer.set_memory(std::sync::Arc::new(Memory::build(streams)));
    let prefix = "pub fn step_9_9(input: &";
    let prompt = Prompt { prefix, ..Prompt::default() };
    let completion = completer
        .complete(&prompt, &Limits::default(), &Cancel::new())
        .expect("there is a model")
        .expect("there is something to say");
    assert!(names.iter().any(|name| completion.text.contains(name)), "{completion:?}, names {names:?}");
}

#[test]
fn a_state_of_another_workspace_is_refused_unless_its_run_is_over() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 3);
    let (other, _) = random_crate(&folder.path().join("v"), 4);
    let state_dir = folder.path().join("s");
    interrupt_after(&options(&sources, &state_dir, 4), 1);
    let error = train(&options(&other, &state_dir, 4), &mut |_| {}, &Cancel::new()).expect_err("another corpus");
    assert!(error.to_string().contains("--restart"), "{error}");
    assert!(run(&Options { restart: true, ..options(&other, &state_dir, 4) }).finished);
    assert!(run(&options(&sources, &state_dir, 4)).finished, "the finished run is in its checkpoint");
}

#[test]
fn an_empty_workspace_is_refused() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let sources = Sources { root: folder.path().to_owned(), packages: Vec::new() };
    let result = train(&options(&sources, &folder.path().join("s"), 1), &mut |_| {}, &Cancel::new());
    assert!(matches!(result, Err(TrainError::Corpus(CorpusError::Empty { .. }))));
}

#[test]
fn a_time_budget_ends_a_run() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 5);
    let options = Options { time_budget_s: Some(0.5), steps: None, ..options(&sources, &folder.path().join("s"), 0) };
    let outcome = run(&options);
    assert!(outcome.finished && outcome.checkpoint.manifest.training.n_steps > 0);
}

#[test]
fn a_time_budget_continues_from_before_the_decay() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 8);
    let by_steps = options(&sources, &folder.path().join("s"), 10);
    assert!(run(&by_steps).finished); // decays from step 6 on
    // By steps this schedule would have ended long ago; by the clock it starts.
    let by_time = Options { time_budget_s: Some(0.2), ..options(&sources, &folder.path().join("s"), 1) };
    let (outcome, events) = interrupt_after(&by_time, usize::MAX);
    assert!(outcome.finished);
    assert!(events.iter().any(|event| matches!(event, Event::Resumed { step: 6 })), "{events:?}");
}

#[test]
fn a_decay_that_was_interrupted_continues() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 9);
    let straight = run(&options(&sources, &folder.path().join("a"), 10));
    let in_two = options(&sources, &folder.path().join("b"), 10);
    assert!(!interrupt_after(&in_two, 8).0.finished); // it decays from step 6 on
    let (second, events) = interrupt_after(&in_two, usize::MAX);
    assert!(events.iter().any(|event| matches!(event, Event::Resumed { step: 8 })), "{events:?}");
    assert_eq!(straight.checkpoint.weights, second.checkpoint.weights);
}

#[test]
fn scoring_can_be_interrupted_and_is_made_up_for() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 10);
    let options = options(&sources, &folder.path().join("s"), 3);
    let cancelled = Cancel::new();
    cancelled.cancel();
    let first = train(&options, &mut |_| {}, &cancelled).expect("an interruption is no error");
    let has_state = || options.state_dir.join("state.nct").exists();
    assert!(!first.finished && !has_state(), "the first figures are missing, so there is no state yet");
    let (second, _) = interrupt_after(&options, 3); // after the last step
    assert!(!second.finished);
    let (third, events) = interrupt_after(&options, usize::MAX);
    assert!(third.finished && third.after.model > 0.0);
    assert!(events.iter().any(|event| matches!(event, Event::Resumed { step: 3 })), "{events:?}");
    assert_eq!(second.checkpoint.weights, third.checkpoint.weights);
}

#[test]
fn the_memory_of_a_single_file_is_its_start() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 11);
    let mut rng = Rng::new(11);
    let mut line = || (0..40).map(|_| char::from(b'a' + rng.below(26) as u8)).collect::<String>();
    let start: String = (0..60).map(|_| format!("// {}\n", line())).collect();
    let rest: String = (0..400).map(|_| format!("// {}\n", line())).collect();
    let src = folder.path().join("w/src");
    std::fs::remove_dir_all(&src).expect("removable");
    std::fs::create_dir(&src).expect("a folder can be made");
    std::fs::write(src.join("lib.rs"), [start.as_str(), &rest, &start].concat()).expect("writable");
    let outcome = run(&options(&sources, &folder.path().join("s"), 1));
    // The end is found in the start alone; to a memory without it, letters drawn at random are what they are.
    assert!(outcome.after.memory < outcome.after.unigram / 2.0, "{:?}", outcome.after);
}

#[test]
fn a_base_checkpoint_gives_its_tokenizer_and_its_weights() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sources, _) = random_crate(&folder.path().join("w"), 6);
    let base = run(&options(&sources, &folder.path().join("a"), 20));
    let adapted =
        run(&Options { base: Some(base.checkpoint.clone()), ..options(&sources, &folder.path().join("b"), 2) });
    assert_eq!(adapted.checkpoint.tokenizer.hash(), base.checkpoint.tokenizer.hash());
    assert_eq!(adapted.checkpoint.manifest.lineage, [base.checkpoint.manifest.hash()]);
    // Before any step the adapted model is the base: their figures differ by rounding alone.
    assert!((adapted.before.model - base.after.model).abs() < 1e-3, "{:?} {:?}", adapted.before, base.after);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_built_in_is_refused_before_any_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sources, _) = random_crate(folder.path(), 1);
    let options = Options { device: Device::Cuda, ..options(&sources, &folder.path().join("state"), 4) };
    let error = train(&options, &mut |event| panic!("{event:?}"), &Cancel::new()).expect_err("there is no cuda");
    assert!(matches!(error, TrainError::Backend(BackendError::NotBuilt { feature: "cuda" })), "{error}");
    assert!(!options.state_dir.exists());
}
