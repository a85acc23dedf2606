use proptest::prelude::*;

use super::*;
use crate::memory::{Lookup, Memory, Tier};

/// Texts of an editor, each with the cursor.
fn texts() -> impl Strategy<Value = Vec<(String, usize)>> {
    let piece = prop::sample::select(vec![
        "fn ", "a", "b", "()", " {", "\n", "\n    ", "  ", "let x", " = ", "1", ";", "}", "é", "\r\n", "::", "\t",
        "(((",
    ]);
    let text = prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat());
    let step = (text, any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let at = (0..=text.len()).rev().filter(|i| text.is_char_boundary(*i)).nth(at.index(text.len() + 1) / 2);
        let at = at.unwrap_or(0);
        (text, at)
    });
    prop::collection::vec(step, 1..6)
}

/// Few distinct tokens, so that matches are long; 0 is `END`.
fn stream(max_len: usize) -> impl Strategy<Value = Vec<TokenId>> {
    prop_oneof![
        prop::collection::vec(prop_oneof![1 => Just(END), 20 => 8..11u16], 0..max_len),
        prop::collection::vec(8..10u16, 1..4).prop_map(move |unit| unit.into_iter().cycle().take(max_len).collect()),
    ]
}

fn orders(live: &LiveBuffer, context: &[TokenId]) -> Vec<Order> {
    let mut orders = Vec::new();
    live.orders(context, &mut orders);
    orders
}

/// The orders of an index of the same tokens.
fn of_index(tokens: Vec<TokenId>, context: &[TokenId]) -> Vec<Order> {
    let mut lookup = Lookup::default();
    Memory::build(vec![("a".to_owned(), tokens)]).lookup(context, "", &mut lookup);
    std::mem::take(&mut lookup.tiers[Tier::Workspace as usize])
}

proptest! {
    #[test]
    fn edits_give_what_reading_anew_gives(texts in texts(), context in stream(20)) {
        let tokenizer = crate::text::tokenizer::tests::sample();
        let mut edited = LiveBuffer::default();
        for (text, at) in &texts {
            let (prefix, suffix) = text.as_bytes().split_at(*at);
            edited.update(&tokenizer, "a.rs", prefix, suffix);
            let mut fresh = LiveBuffer::default();
            fresh.update(&tokenizer, "a.rs", prefix, suffix);
            prop_assert_eq!(edited.prefix.tokens.tokens(), tokenizer.encode(prefix));
            let mut after = edited.suffix.tokens.tokens().to_vec();
            after.reverse();
            prop_assert_eq!(&after, &tokenizer.encode(suffix));
            for context in [&context[..], &tokenizer.encode(prefix)] {
                prop_assert_eq!(orders(&edited, context), orders(&fresh, context));
                let whole = [tokenizer.encode(prefix), vec![END], after.clone()].concat();
                prop_assert_eq!(orders(&edited, context), of_index(whole, context));
            }
        }
    }

    #[test]
    fn a_file_knows_what_an_index_of_it_knows(tokens in stream(300), context in stream(60)) {
        let live = LiveBuffer::of_tokens("a".to_owned(), &tokens);
        prop_assert_eq!(orders(&live, &context), of_index(tokens.clone(), &context));
        prop_assert_eq!(orders(&live, &tokens), of_index(tokens.clone(), &tokens));
    }

    #[test]
    fn reading_from_the_start_knows_nothing_of_what_comes(tokens in stream(120)) {
        let live = LiveBuffer::of_tokens("a".to_owned(), &tokens);
        for next in 0..=tokens.len() {
            let mut within = Vec::new();
            live.orders_within(next, &mut within);
            prop_assert_eq!(within, of_index(tokens[..next].to_vec(), &tokens[..next]));
        }
    }
}

#[test]
fn a_huge_file_is_remembered_around_the_cursor() {
    let tokenizer = Tokenizer::bytes();
    let mut live = LiveBuffer::default();
    let text = b"fn a() {}\n".repeat(5 << 20);
    live.update(&tokenizer, "a.rs", &text[..30 << 20], &text[30 << 20..]);
    // The first line may be cut off.
    assert!((2 * REACH - 10..2 * (REACH + GRID)).contains(&live.n_tokens()), "{}", live.n_tokens());
    let mut orders = Vec::new();
    live.orders(&tokenizer.encode(b"fn a("), &mut orders);
    assert_eq!(orders[0].next[0].0, tokenizer.encode(b")")[0]);
}
