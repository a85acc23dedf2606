use super::*;
use crate::weights::random;

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

const LIMITS: Limits = Limits { max_tokens: 80, max_lines: 1, sampling: Sampling::Greedy, seed: 0 };

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
fn a_bracket_that_the_suffix_closes_is_not_closed_again() {
    let mut completer = completer(&[("a.rs", "fn a() {\n    call(first, second);\n}\n")]);
    assert_eq!(check(&mut completer, "fn b() {\n    call(first, sec$0)\n}\n", &LIMITS).as_deref(), Some("ond"));
    assert_eq!(check(&mut completer, "fn b() {\n    call(first, sec$0\n}\n", &LIMITS).as_deref(), Some("ond);"));
}

#[test]
fn the_live_file_is_remembered_as_it_stands_and_not_as_it_was_saved() {
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

fn with_model(voices: Voices) -> Completer {
    let tokenizer = Arc::new(Tokenizer::bytes());
    let weights = random(&"d64 l2 h4 kv2 ff128 v300 n2 ctx256".parse().expect("a shape"), 11);
    let mut completer = Completer::without_model(Arc::clone(&tokenizer));
    completer.session = Some(Session::new(Model::new(&weights, 1)));
    completer.set_voices(voices);
    let known = b"fn known() -> usize { compute_everything(7) }\n";
    completer.set_memory(Arc::new(Memory::build(vec![("a.rs".to_owned(), tokenizer.encode(known))])));
    completer
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    let sampled = |seed| {
        let limits = Limits { sampling: Sampling::TopP { p: 1.0, temperature: 1.0 }, seed, ..LIMITS };
        check(&mut with_model(Voices::ModelOnly), "fn main() { $0", &limits)
    };
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
}

#[test]
fn a_cancelled_request_has_no_answer() {
    let cancel = Cancel::new();
    cancel.cancel();
    let prompt = Prompt { prefix: "fn main", ..Prompt::default() };
    let outcome = with_model(Voices::Both).complete(&prompt, &LIMITS, &cancel);
    assert_eq!(outcome, Err(CompleteError::Cancelled(Cancelled)));
}

#[test]
fn decoding_looks_at_the_flag_once_per_token() {
    let cancel = Cancel::new();
    let prompt = Prompt { prefix: "fn main", ..Prompt::default() };
    let mut n_tokens = 0;
    let outcome = with_model(Voices::ModelOnly).complete_streaming(&prompt, &LIMITS, &cancel, &mut |_| {
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
    for voices in [Voices::Both, Voices::ModelOnly, Voices::MemoryOnly] {
        let mut completer = with_model(voices);
        let mut seen = Vec::new();
        completer.observe("", &text, &mut |observation| seen.push(observation));
        assert_eq!(seen.iter().map(|seen| seen.token).collect::<Vec<_>>(), tokens, "each token once");
        // The first window holds 254 tokens; later ones begin 127 tokens before what they observe.
        for next in [0, 1, 100, 253, 254, 300, 380, 381, 500] {
            let start = if next < 254 { 0 } else { 127 * ((next - 254) / 127 + 1) };
            let prediction = match voices {
                Voices::ModelOnly => Prediction::default(),
                _ => {
                    let read = tokens[..next].to_vec();
                    completer.memory.with_overlay("<unnamed>".to_owned(), read.clone()).predict(&read, "")
                }
            };
            let input = [&[SUFFIX, PREFIX], &tokens[start..next]].concat();
            let session = completer.session.as_mut().expect("a model");
            session.rebase(&input, &Cancel::new()).expect("not cancelled");
            let mut probabilities = Vec::new();
            completer.probabilities(&prediction, &mut probabilities);
            let p = probabilities[usize::from(tokens[next])];
            if voices == Voices::MemoryOnly {
                let p_memory = seen[next].p_memory;
                assert!((p - p_memory).abs() < 1e-6, "token {next}: {p} and {p_memory}");
            } else {
                assert!((p - seen[next].p).abs() < 1e-6, "token {next}: {p} and {}", seen[next].p);
                let total: f32 = probabilities.iter().sum();
                assert!((total - 1.0).abs() < 1e-4, "{total}"); // 300 roundings
            }
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
fn a_loop_is_cut_where_it_begins_and_a_ruler_is_not_a_loop() {
    let prompt = Prompt::default();
    let write = |tokens: &[&str]| {
        let mut text = Text::new(&prompt, 9, Vec::new());
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
    let mut completer = with_model(Voices::Both);
    let prompt = Prompt { prefix: "fn known() -> usize { comp", ..Prompt::default() };
    let limits = Limits { max_tokens: 100_000, ..LIMITS };
    let completion = completer.complete(&prompt, &limits, &Cancel::new()).expect("answers");
    assert!(completion.is_none_or(|completion| completion.n_prompt > 10 && completion.n_generated <= 128));
}
