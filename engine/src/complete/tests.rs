use std::sync::Arc;

use super::filter::writes_secret;
use super::next_token::NextToken;
use super::*;
use crate::model::weights::random;
use crate::text::tokenizer::{PREFIX, SUFFIX, TokenId};
use crate::workspace::sources::SourceFile;
use crate::{Cancel, Cancelled, Memory, Model, Prompt, Sampling, Session, Tokenizer};

/// A tokenizer whose every token is a byte, and files that the memory knows.
fn completer(files: &[(&str, &str)]) -> Completer {
    let tokenizer = Arc::new(Tokenizer::bytes());
    let mut completer = Completer::without_model(Arc::clone(&tokenizer));
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), tokenizer.encode(text.as_bytes()))).collect();
    completer.set_memory(Arc::new(Memory::build(files)));
    completer
}

/// Completes at `$0`; the text, or nothing.
fn check(completer: &mut Completer, text: &str, limits: &Limits) -> Option<String> {
    let (prefix, suffix) = text.split_once("$0").expect("a cursor");
    let prompt = Prompt { path: "live.rs", prefix, suffix, ..Prompt::default() };
    completer.complete(&prompt, limits, &Cancel::new()).expect("not cancelled").map(|completion| completion.text)
}

const LIMITS: Limits = Limits { max_tokens: 80, max_lines: 1, sampling: Sampling::Greedy, seed: 0, search_budget: 0 };

#[test]
fn what_was_written_before_is_completed_to_the_end_of_its_line() {
    let mut completer = completer(&[("a.rs", "fn main() {\n    let value = compute_everything(7);\n    done();\n}\n")]);
    let text = check(&mut completer, "fn other() {\n    let value = comp$0\n}\n", &LIMITS);
    assert_eq!(text.as_deref(), Some("ute_everything(7);"));
}

#[test]
fn the_limit_on_lines_is_kept() {
    let source = "fn a() {\n    one_thing();\n    two_things();\n    three_things();\n}\n";
    let mut completer = completer(&[("a.rs", source)]);
    let two = Limits { max_lines: 2, ..LIMITS };
    assert_eq!(check(&mut completer, "fn b() {\n    one_$0", &two).as_deref(), Some("thing();\n    two_things();"));
}

#[test]
fn lines_are_chosen_one_after_the_other_until_the_suffix_follows() {
    let source = "fn a() {\n    one_thing();\n    two_things(1);\n    three_things();\n}\n";
    let mut completer = completer(&[("a.rs", source)]);
    let several = Limits { max_lines: 8, search_budget: 64, ..LIMITS };
    let all = "one_thing();\n    two_things(1);\n    three_things();";
    assert_eq!(check(&mut completer, "fn b() {\n    $0\n}\n", &several).as_deref(), Some(all));
    let two = Limits { max_lines: 2, ..several };
    assert_eq!(
        check(&mut completer, "fn b() {\n    $0\n}\n", &two).as_deref(),
        Some("one_thing();\n    two_things(1);")
    );
    let start = check(&mut completer, "fn b() {\n    one_$0\n    three_things();\n}\n", &several);
    assert_eq!(start.as_deref(), Some("thing();\n    two_things(1);"), "the next line is there already");
    let few = Limits { max_tokens: 20, ..several };
    let start = check(&mut completer, "fn b() {\n    $0\n}\n", &few).expect("there is room for a line");
    assert!(all.starts_with(&start) && start.len() < all.len(), "{start}");
}

#[test]
fn several_lines_longer_than_the_context_end_without_a_panic() {
    let long =
        "    some_call_with_a_long_name(of_many_arguments, and_another_one, and_one_more_that_is_long);\n".repeat(12);
    let source = format!("fn a() {{\n{long}}}\n");
    let mut completer = with_model(Predictors::Blend);
    let tokens = completer.tokenizer().encode(source.as_bytes());
    completer.set_memory(Arc::new(Memory::build(vec![("a.rs".to_owned(), tokens)])));
    // However full the prompt is, a line from elsewhere may be longer than what is left.
    for n in 0..100 {
        let padding = "x".repeat(n);
        let limits = Limits { max_tokens: 1 + n % 3, max_lines: 12, search_budget: 64, ..LIMITS };
        check(&mut completer, &format!("fn b() {{\n{long}{long}    // {padding}\n    $0\n}}\n"), &limits);
    }
}

#[test]
fn a_line_with_a_member_that_is_not_there_is_not_offered() {
    let types = "pub struct Store {\n    pub root: PathBuf,\n}\n";
    let other = "fn g(store: &Index) {\n    let found = store.rooms;\n}\n";
    let file = |name: &str, text: &str| SourceFile { name: name.into(), path: name.into(), text: text.into() };
    let mut completer = Completer::without_model(Arc::new(Tokenizer::bytes()));
    let files = [file("types.rs", types), file("other.rs", other)];
    completer.set_memory(Arc::new(Memory::of_files(&files, completer.tokenizer())));
    let limits = Limits { search_budget: 64, ..LIMITS };
    let of = |completer: &mut Completer, type_: &str| {
        check(completer, &format!("fn f(store: &{type_}) {{\n    let found = store.roo$0\n}}\n"), &limits)
    };
    assert_eq!(of(&mut completer, "Index").as_deref(), Some("ms;"));
    assert_ne!(of(&mut completer, "Store").as_deref(), Some("ms;"));
}

#[test]
fn a_bracket_that_the_suffix_closes_is_not_closed_again() {
    let mut completer = completer(&[("a.rs", "fn a() {\n    call(first, second);\n}\n")]);
    assert_eq!(check(&mut completer, "fn b() {\n    call(first, sec$0)\n}\n", &LIMITS).as_deref(), Some("ond"));
    assert_eq!(check(&mut completer, "fn b() {\n    call(first, sec$0\n}\n", &LIMITS).as_deref(), Some("ond);"));
}

#[test]
fn the_live_file_is_remembered_as_it_is_and_not_as_it_was_saved() {
    let mut completer = completer(&[("live.rs", "let stale_name = old_value_of_it;\n")]);
    let live = "let fresh_name = new_value_of_it;\nlet stale_name = 1;\nlet fresh_name = n$0";
    assert_eq!(check(&mut completer, live, &LIMITS).as_deref(), Some("ew_value_of_it;"));
    let stale = "let x = 1;\nlet stale_name = o$0";
    assert_ne!(check(&mut completer, stale, &LIMITS).as_deref(), Some("ld_value_of_it;"));
}

#[test]
fn nothing_to_answer_from_is_an_error_and_no_match_is_silence() {
    let prompt = Prompt { prefix: "let x", ..Prompt::default() };
    let mut empty = Completer::without_model(Arc::new(Tokenizer::bytes()));
    assert_eq!(empty.complete(&prompt, &LIMITS, &Cancel::new()), Err(CompleteError::Nothing));
    let mut completer = completer(&[("a.rs", "\u{1}\u{2}")]);
    assert_eq!(check(&mut completer, "$0", &LIMITS), None);
}

fn with_model(predictors: Predictors) -> Completer {
    let tokenizer = Arc::new(Tokenizer::bytes());
    let weights = random(&"d64 l2 h4 kv2 ff128 v300 n2 ctx256".parse().expect("a shape"), 11);
    let mut completer = Completer::without_model(Arc::clone(&tokenizer));
    completer.session = Some(Session::new(Model::new(&weights, 1)));
    completer.set_predictors(predictors);
    let known = b"fn known() -> usize { compute_everything(7) }\n";
    completer.set_memory(Arc::new(Memory::build(vec![("a.rs".to_owned(), tokenizer.encode(known))])));
    completer
}

#[test]
fn the_model_reads_what_types_near_the_cursor_have() {
    let types = "pub struct Store {\n    pub root: PathBuf,\n}\n";
    let types = SourceFile { name: "types.rs".into(), path: "types.rs".into(), text: types.into() };
    // Of the text before the cursor eight lines at a time are looked at.
    let text = format!("{}fn f(store: &Store) {{\n    let found = $0\n}}\n", "\n".repeat(7));
    for (predictors, is_told) in [(Predictors::Blend, true), (Predictors::ModelOnly, false)] {
        let mut completer = with_model(predictors);
        completer.set_memory(Arc::new(Memory::of_files(std::slice::from_ref(&types), completer.tokenizer())));
        check(&mut completer, &text, &LIMITS);
        let tokens = completer.session.as_ref().expect("there is a model").tokens();
        let read = String::from_utf8_lossy(&completer.tokenizer.decode(tokens)).into_owned();
        assert_eq!(read.contains("root"), is_told, "{read}");
    }
}

#[test]
fn what_is_declared_follows_the_text_and_the_memory() {
    let types = |name: &str, field: &str| {
        let text = format!("pub struct {name} {{\n    pub {field}: PathBuf,\n}}\n");
        SourceFile { name: "types.rs".into(), path: "types.rs".into(), text }
    };
    let mut completer = with_model(Predictors::Blend);
    let mut declared = |files: Option<&[SourceFile]>, prefix: &str, suffix: &str| {
        if let Some(files) = files {
            completer.set_memory(Arc::new(Memory::of_files(files, completer.tokenizer())));
        }
        completer.declared(&Prompt { prefix, suffix, ..Prompt::default() }, 16).to_string()
    };
    let prefix = format!("{}fn f(store: &Store) {{\n    let found = ", "\n".repeat(7));
    let files = [types("Store", "root"), types("Walk", "depth")];
    let first = declared(Some(&files[..1]), &prefix, "\n}\n");
    assert!(first.contains(".root") && !first.contains(".depth"), "{first}");
    assert_eq!(declared(None, &format!("{prefix}s"), "\n}\n"), first);
    let other = declared(Some(&[types("Store", "folder")]), &prefix, "\n}\n");
    assert!(other.contains(".folder") && !other.contains(".root"), "{other}");
    declared(Some(&files), &prefix, "\n}\n");
    let both = declared(None, &prefix, "\n}\nfn g(walk: Walk) {}\n");
    assert!(both.contains(".root") && both.contains(".depth"), "{both}");
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    let sampled = |seed| {
        let limits = Limits { sampling: Sampling::TopP { p: 1.0, temperature: 1.0 }, seed, ..LIMITS };
        check(&mut with_model(Predictors::ModelOnly), "fn main() { $0", &limits)
    };
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
}

#[test]
fn a_cancelled_request_has_no_answer() {
    let cancel = Cancel::new();
    cancel.cancel();
    let prompt = Prompt { prefix: "fn main", ..Prompt::default() };
    let outcome = with_model(Predictors::Blend).complete(&prompt, &LIMITS, &cancel);
    assert_eq!(outcome, Err(CompleteError::Cancelled(Cancelled)));
}

#[test]
fn decoding_looks_at_the_flag_once_per_token() {
    let cancel = Cancel::new();
    let prompt = Prompt { prefix: "fn main", ..Prompt::default() };
    let mut n_tokens = 0;
    let outcome = with_model(Predictors::ModelOnly).complete_streaming(&prompt, &LIMITS, &cancel, &mut |_| {
        n_tokens += 1;
        if n_tokens == 3 {
            cancel.cancel();
        }
    });
    assert_eq!((outcome, n_tokens), (Err(CompleteError::Cancelled(Cancelled)), 3));
}

#[test]
fn observed_probabilities_are_those_of_decoding() {
    let text = b"fn known() -> usize { compute_everything(9) }\nlet after = 1;\n".repeat(9); // longer than the context
    let tokens = Tokenizer::bytes().encode(&text);
    for predictors in [Predictors::Blend, Predictors::ModelOnly, Predictors::MemoryOnly] {
        let mut completer = with_model(predictors);
        let mut seen = Vec::new();
        completer.observe("", &text, &mut |observation| seen.push(observation));
        assert_eq!(seen.iter().map(|seen| seen.token).collect::<Vec<_>>(), tokens, "each token once");
        // The first window holds 254 tokens; later ones start 127 tokens before what they observe.
        for next in [0, 1, 100, 253, 254, 300, 380, 381, 500] {
            let start = if next < 254 { 0 } else { 127 * ((next - 254) / 127 + 1) };
            let input = [&[SUFFIX, PREFIX], &tokens[start..next]].concat();
            let read = tokens[..next].to_vec();
            let memory = completer.memory.with_overlay("<unnamed>".to_owned(), read.clone());
            let session = completer.session.as_mut().expect("a model");
            session.rebase(&input, &Cancel::new()).expect("not cancelled");
            let mut next_token = NextToken {
                branch_logits: None,
                tokenizer: &completer.tokenizer,
                session: Some(session).filter(|_| predictors != Predictors::MemoryOnly),
                memory: Some(memory).filter(|_| predictors != Predictors::ModelOnly),
                blend: &completer.blend,
                buffers: &mut completer.buffers,
            };
            next_token.next_distribution(&read);
            let probabilities = &completer.buffers.probabilities;
            let p = probabilities[usize::from(tokens[next])];
            assert!((p - seen[next].p).abs() < 1e-6, "token {next}: {p} and {}", seen[next].p);
            let total: f32 = probabilities.iter().sum();
            assert!((total - 1.0).abs() < 1e-4, "{total}"); // 300 roundings
        }
        let bits: f64 = seen.iter().map(|seen| -f64::from(seen.p).log2()).sum();
        let score = completer.score("", &text);
        assert!((score.bits - bits).abs() < 1e-6 && score.bytes == text.len());
    }
}

#[test]
fn the_memory_learns_from_the_text_that_it_is_scored_on_as_it_is_read() {
    let mut completer = completer(&[("a.rs", "unrelated")]);
    let line = b"let value = compute_everything(7);\n";
    let once = completer.score("b.rs", line).bits;
    let thrice = completer.score("b.rs", &line.repeat(3)).bits;
    assert!(thrice < 1.5 * once, "{thrice} bits for three lines, {once} for one");
}

#[test]
fn a_loop_is_cut_where_it_starts_and_a_ruler_is_not_a_loop() {
    let prompt = Prompt::default();
    let write = |tokens: &[&str]| {
        let mut text = generated::GeneratedText::new(&prompt, 9, Vec::new());
        let stop = tokens.iter().enumerate().find_map(|(i, bytes)| {
            let id = tokens.iter().position(|other| other == bytes).expect("it is there");
            text.push(1000 + id as TokenId, bytes.as_bytes()).map(|stop| (i, stop))
        });
        (stop, String::from_utf8(text.bytes).expect("text"))
    };
    let body = ["let ", "x", " = ", "1; "];
    let mut looped = vec!["fn ", "a_long_name_before ", "{ "];
    looped.extend(body.repeat(5));
    let (stop, text) = write(&looped);
    assert_eq!(stop, Some((3 + 4 * 4 - 1, Stop::Repeat)));
    assert_eq!(text, "fn a_long_name_before { let x = 1; ");
    assert_eq!(write(&["="].repeat(40)).0, None);
    assert_eq!(write(&["0, ", "1, "].repeat(20)).0, None);
}

#[test]
fn every_shown_token_has_a_source_even_one_that_is_cut() {
    let mut completer = completer(&[("a.rs", "fn a() {\n    call(first, second);\n}\n")]);
    let prompt = Prompt { prefix: "fn b() {\n    call(first, sec", suffix: ")\n}\n", ..Prompt::default() };
    let completion = completer.complete(&prompt, &LIMITS, &Cancel::new()).expect("answers").expect("a completion");
    assert_eq!((completion.text.as_str(), completion.stop), ("ond", Stop::Bracket));
    // The word is written again from the space before it, one token a byte here.
    assert_eq!(completion.sources, vec![TokenSource::Memory; " second".len()]);
    assert!(completion.confidence > 0.0 && completion.confidence <= 1.0);
    assert_eq!(completion.n_generated, " second)".len());
}

#[test]
fn a_limit_beyond_the_context_leaves_room_for_the_prompt() {
    let mut completer = with_model(Predictors::Blend);
    let prompt = Prompt { prefix: "fn known() -> usize { comp", ..Prompt::default() };
    let limits = Limits { max_tokens: 100_000, ..LIMITS };
    let completion = completer.complete(&prompt, &limits, &Cancel::new()).expect("answers");
    assert!(completion.is_none_or(|completion| completion.n_prompt > 10 && completion.n_generated <= 128));
}

#[test]
fn a_secret_of_another_file_is_not_suggested() {
    let key = format!("sk_{}_{}", "live", "Zq81RkT0vWmB5yXc7NdJ2pLe");
    let file = format!("fn a() {{\n    let client = connect(\"{key}\");\n    let value = compute_everything(7);\n}}\n");
    let cursor = "fn b() {\n    let client = con$0\n}\n";
    let mut plain = completer(&[("a.rs", file.replace(&key, "the primary store").as_str())]);
    assert_eq!(check(&mut plain, cursor, &LIMITS).as_deref(), Some("nect(\"the primary store\");"));
    let mut completer = completer(&[("a.rs", file.as_str())]);
    assert_eq!(check(&mut completer, cursor, &LIMITS), None);
    let within = format!("fn b() {{\n    let client = connect(\"{}$0\n}}\n", &key[..20]);
    assert_eq!(check(&mut completer, &within, &LIMITS), None);
    // One before the cursor is there already.
    let after = format!("fn b() {{\n    let client = connect(\"{key}\"); let value = comp$0\n}}\n");
    assert_eq!(check(&mut completer, &after, &LIMITS).as_deref(), Some("ute_everything(7);"));
}

#[test]
fn the_lines_of_a_private_key_are_a_secret_and_those_of_a_certificate_are_not() {
    let mut rng = crate::rng::Rng::new(1);
    let mut line = || (0..64).map(|_| char::from(b"ABCDEFGHabcdefgh01234567+/"[rng.below(26)])).collect::<String>();
    let (first, second) = (line(), line());
    for (label, is_secret) in [("PRIVATE KEY", true), ("CERTIFICATE", false)] {
        let header = format!("{}-----BEGIN {label}-----\n", "fn é() {}\n".repeat(1000));
        for (written, text) in [
            (String::new(), format!("{first}\n{second}")),
            (format!("{first}\n"), second.clone()),
            (format!("{first}\n{}", &second[..9]), second[9..].to_owned()),
        ] {
            let prefix = format!("{header}{written}");
            let prompt = Prompt { prefix: &prefix, ..Prompt::default() };
            assert_eq!(writes_secret(&prompt, &text), is_secret, "{label}: {written} ← {text}");
        }
    }
    let check = |prefix: &str, text: &str| writes_secret(&Prompt { prefix, ..Prompt::default() }, text);
    let named = format!("let token =\n    \"{}", &first[..40]);
    assert!(check(&named[..30], &named[30..]), "its name is on the line before");
    assert!(!check(&named, "\";"), "nothing of it is written");
}

#[test]
fn typing_in_a_long_file_recomputes_few_tokens_for_each_key() {
    let line = |i: usize| format!("        let value_{i} = self.table.get({i}).unwrap_or(&default_{});\n", i % 7);
    let file: String = (0..2000).map(line).collect();
    let typed = "let total = self.values.iter().map(|value| value.len() + 1).sum::<usize>();\n        ".repeat(4);
    let middle = file[..file.len() / 2].rfind('\n').expect("lines") + 1;
    let (before, suffix) = file.split_at(middle);
    let tokenizer = Arc::new(merged_tokenizer(&file, 500));
    let config = format!("d32 l1 h2 kv1 ff32 v{} n1 ctx2048", tokenizer.vocab_size());
    let model = Model::new(&random(&config.parse().expect("a shape"), 1), 1);
    let mut completer = Completer::without_model(tokenizer);
    completer.session = Some(Session::new(model));
    completer.set_predictors(Predictors::ModelOnly);
    let mut prefix = before.to_owned() + "        ";
    let mut n_computed = Vec::new();
    for key in typed.chars().take(300) {
        prefix.push(key);
        let prompt = Prompt { path: "live.rs", prefix: &prefix, suffix, ..Prompt::default() };
        let limits = Limits { max_tokens: 48, ..LIMITS };
        let prompt_tokens = prompt.tokens(&completer.tokenizer, 2048 - 48).tokens;
        let session = completer.session.as_mut().expect("a model");
        let n_kept = session.rebase(&prompt_tokens, &Cancel::new()).expect("not cancelled");
        n_computed.push(prompt_tokens.len() - n_kept);
        assert!(prompt_tokens.len() > 1000, "the window is well filled: {}", prompt_tokens.len());
        // What is generated takes its place in the cache and is rolled back by the next key.
        if n_computed.len() % 10 == 1 {
            completer.complete(&prompt, &limits, &Cancel::new()).expect("not cancelled");
        }
    }
    let first = n_computed.remove(0);
    let total: usize = n_computed.iter().sum();
    let n_jumps = n_computed.iter().filter(|n| **n > 32).count();
    assert!(first > 1000 && n_jumps <= 1, "{n_computed:?}");
    // One jump recomputes the prefix, five eighths of the context at most; the other keys a token or two.
    assert!(total <= n_jumps * 1300 + 3 * n_computed.len(), "{n_computed:?}");
}

/// A tokenizer whose merges join the most frequent pair of a text, again and again.
fn merged_tokenizer(text: &str, n_merges: usize) -> Tokenizer {
    let mut merges = Vec::new();
    let mut words: Vec<Vec<TokenId>> = crate::text::tokenizer::pretokens(&text.as_bytes()[..20_000])
        .map(|word| Tokenizer::bytes().encode(word))
        .collect();
    for made in (0..n_merges).map(|i| crate::text::tokenizer::FIRST_MERGE + i as TokenId) {
        let mut counts = std::collections::BTreeMap::new();
        words
            .iter()
            .flat_map(|word| word.windows(2))
            .for_each(|pair| *counts.entry([pair[0], pair[1]]).or_insert(0) += 1);
        let Some((pair, _)) = counts.into_iter().max_by_key(|(_, n)| *n) else { break };
        merges.push((pair[0], pair[1]));
        for word in &mut words {
            while let Some(at) = word.windows(2).position(|other| other == pair) {
                word.splice(at..at + 2, [made]);
            }
        }
    }
    Tokenizer::from_merges(merges).expect("each pair is joined once")
}

#[test]
fn a_line_that_is_in_the_file_under_other_names_is_offered() {
    let text = "impl From<io::Error> for Error {\n    fn from(io: io::Error) -> Self {\n        Self::Io(io)\n    }\n}\n\n\
        impl From<fmt::Error> for Error {\n    fn from(fmt: fmt::Error) -> Self {\n        ";
    let prompt = Prompt { path: "live.rs", prefix: text, suffix: "\n    }\n}\n", ..Prompt::default() };
    for mut completer in [completer(&[("a.rs", "fn other() {}\n")]), with_model(Predictors::Blend)] {
        let scored = completer.scored_lines(&prompt, &Limits::default(), &Cancel::new()).expect("not cancelled");
        assert!(scored.iter().any(|line| line.text == "Self::Fmt(fmt)"), "{scored:?}");
        let width = scored[0].features.len();
        assert!(scored.iter().all(|line| line.features.len() == width && line.features.iter().all(|f| f.is_finite())));
    }
}

#[test]
fn a_text_may_end_where_the_rest_of_the_line_could_follow() {
    let mut completer = completer(&[("a.rs", "fn a() {\n    call(first, second);\n}\n")]);
    let prompt =
        Prompt { path: "live.rs", prefix: "fn b() {\n    call(", suffix: ", third);\n}\n", ..Prompt::default() };
    let scored = completer.scored_lines(&prompt, &Limits::default(), &Cancel::new()).expect("not cancelled");
    assert!(scored.iter().any(|line| line.text == "first"), "{scored:?}");
}

#[test]
fn predictors_are_serialised_under_the_name_that_reports_have() {
    assert_eq!(serde_json::to_string(&Predictors::Blend).expect("text"), "\"both\"");
    for (name, predictors) in [
        ("both", Predictors::Blend),
        ("blend", Predictors::Blend),
        ("model_only", Predictors::ModelOnly),
        ("memory_only", Predictors::MemoryOnly),
    ] {
        assert_eq!(serde_json::from_str::<Predictors>(&format!("\"{name}\"")).expect(name), predictors);
    }
}
