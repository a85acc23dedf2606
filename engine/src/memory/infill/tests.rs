use proptest::prelude::*;

use super::*;
use crate::memory::{LiveBuffer, Memory};
use crate::text::tokenizer::FIRST_BYTE;

/// What was found between the two texts, the longest matches on both sides together first: (text, tokens before, tokens
/// after).
fn between(files: &[(&str, &str)], prefix: &str, healed: &str, suffix: &str) -> Vec<(String, usize, usize)> {
    between_with(&Tokenizer::bytes(), files, prefix, healed, suffix)
}

fn between_with(
    tokenizer: &Tokenizer,
    files: &[(&str, &str)],
    prefix: &str,
    healed: &str,
    suffix: &str,
) -> Vec<(String, usize, usize)> {
    let encode = |text: &str| tokenizer.encode(text.as_bytes());
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), encode(text))).collect();
    let mut live = LiveBuffer::default();
    live.update(tokenizer, "live.rs", prefix.as_bytes(), suffix.as_bytes());
    let memory = Memory::build(files).with_buffer(live.into());
    let (before, after) = (encode(prefix), encode(suffix));
    let query = InfillQuery {
        before: &before,
        healed: healed.as_bytes(),
        after: &after,
        after_bytes: suffix.as_bytes(),
        tokenizer,
    };
    let mut infill = Vec::new();
    memory.infill(&query, &mut infill);
    infill.sort_by_key(|candidate| std::cmp::Reverse(candidate.n_before + candidate.n_after));
    let text = |candidate: &InfillCandidate| {
        let mut text = tokenizer.decode(&candidate.tokens);
        text.truncate(text.len() - candidate.n_cut);
        String::from_utf8(text).expect("lines are whole here")
    };
    infill.iter().map(|candidate| (text(candidate), candidate.n_before as usize, candidate.n_after as usize)).collect()
}

#[test]
fn a_line_between_the_same_texts_is_found_from_either_side() {
    let file = "let a = 1;\n    foo(x);\nlet b = 2;\n";
    let found = between(&[("b.rs", file)], "let a = 1;\n    ", "", "\nlet b = 2;\n");
    assert_eq!(found[0], ("foo(x);".to_owned(), 15, 12));
    // Nothing before the cursor is known but its indentation.
    let found = between(&[("b.rs", file)], "unlike?\n    ", "", "\nlet b = 2;\n");
    assert_eq!(found[0], ("foo(x);".to_owned(), 5, 12));
    // Nothing after it is known.
    let found = between(&[("b.rs", file)], "let a = 1;\n    ", "", "?");
    assert_eq!(found[0], ("foo(x);".to_owned(), 15, 0));
}

#[test]
fn what_is_healed_is_written_again() {
    let file = "let a = 1;\n    foo(x);\nlet b = 2;\n    bar();\n";
    let found = between(&[("b.rs", file)], "let a = 1;", "\n    f", "\nlet b = 2;\n");
    assert_eq!(found[0], ("\n    foo(x);".to_owned(), 10, 12));
    assert!(found.iter().all(|(text, ..)| text.starts_with("\n    f")), "{found:?}");
}

#[test]
fn what_is_left_of_the_line_stays() {
    let found = between(&[("b.rs", "call(first, second);\n")], "call(", "", ", second);\n");
    assert_eq!(found[0], ("first".to_owned(), 5, 11));
}

#[test]
fn a_text_may_end_within_a_token() {
    let [close, semicolon] = [b')', b';'].map(|byte| FIRST_BYTE + TokenId::from(byte));
    let tokenizer = Tokenizer::from_merges(vec![(close, semicolon)]).expect("one merge");
    assert_eq!(tokenizer.encode(b"f();").len(), 3);
    let found = between_with(&tokenizer, &[("b.rs", "call(first());\n")], "call(", "", ");\n");
    assert_eq!(found[0].0, "first()");
    let found = between_with(&tokenizer, &[("b.rs", "call(first);\n")], "call(", "", ";\n");
    assert_eq!((&*found[0].0, found[0].2), ("first)", 2));
}

#[test]
fn the_cursor_is_no_occurrence() {
    assert_eq!(between(&[], "ab", "", "\ncd"), []);
    // What runs up to the cursor is no line.
    assert_eq!(between(&[], "x(ab x(", "", "\ncd"), []);
}

proptest! {
    /// Whatever is found occurs in one of the texts, with as much around it as it claims.
    #[test]
    fn every_candidate_occurs_where_it_says(
        file in "[ab\n]{0,60}", prefix in "[ab\n]{0,30}", suffix in "[ab\n]{0,30}", n_healed in 0..3usize,
    ) {
        let (prefix, healed) = prefix.split_at(prefix.len() - n_healed.min(prefix.len()));
        for (text, n_before, n_after) in between(&[("b.rs", &file)], prefix, healed, &suffix) {
            prop_assert!(text.len() > healed.len() && text.starts_with(healed) && !text[healed.len()..].contains('\n'));
            let whole = [&prefix[prefix.len() - n_before..], &text, &suffix[..n_after]].concat();
            prop_assert!([&*file, prefix, &suffix].iter().any(|text| text.contains(&whole)), "{whole:?}");
        }
    }

    /// A line that occurs once is found where both sides are the same.
    #[test]
    fn a_planted_line_is_found(around in "[ab\n]{0,40}", before in "[ab]{3,9}", after in "[ab]{3,9}") {
        let file = format!("{around}\n{before}\ncode();\n{after}\n{around}");
        let found = between(&[("b.rs", &file)], &format!("{before}\n"), "", &format!("\n{after}\n"));
        let expected = (before.len() + 1, after.len() + 2);
        prop_assert!(found.iter().any(|(text, n, m)| text == "code();" && (*n, *m) >= expected), "{found:?}");
    }
}
