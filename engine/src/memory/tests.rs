use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::text::tokenizer::END;

/// What followed the longest match.
#[derive(Clone, Debug, Default, PartialEq)]
struct Prediction {
    /// Tokens of context that matched, at most [`MAX_MATCH`]; 0 with no prediction.
    match_len: usize,
    /// (token, probability), most probable first; sums to 1 when not empty.
    next: Vec<(TokenId, f32)>,
}

impl Memory {
    /// What followed the longest suffix of `context` that occurs, with a token after it, outside the file `exclude`.
    fn predict(&self, context: &[TokenId], exclude: &str) -> Prediction {
        let mut lookup = Lookup::default();
        self.lookup(context, exclude, &mut lookup);
        prediction(&lookup)
    }
}

/// Of the longest match of any tier.
fn prediction(lookup: &Lookup) -> Prediction {
    let match_len = lookup.longest();
    let longest = lookup.tiers.iter().filter_map(|orders| orders.first()).filter(|order| order.len == match_len);
    let tokens = longest.flat_map(|order| &order.next);
    let tokens = tokens.flat_map(|(token, count)| std::iter::repeat_n(*token, *count as usize)).collect();
    let order = index::order_of(match_len as usize, tokens);
    let next = order.next.iter().map(|(token, count)| (*token, *count as f32 / order.total as f32));
    Prediction { match_len: match_len as usize, next: next.collect() }
}

type Files = Vec<(String, Vec<TokenId>)>;

/// Looks at every position of every file.
fn slow(files: &Files, context: &[TokenId], exclude: &str) -> Prediction {
    let mut best = 0;
    let mut counts: BTreeMap<TokenId, u32> = BTreeMap::new();
    for (path, tokens) in files {
        if path == exclude {
            continue;
        }
        for at in 0..tokens.len() {
            let matching = tokens[..at].iter().rev().zip(context.iter().rev());
            let len = matching.take(MAX_MATCH).take_while(|(a, b)| a == b && **a != END).count();
            if tokens[at] == END || len == 0 || len < best {
                continue;
            }
            if len > best {
                counts.clear();
                best = len;
            }
            *counts.entry(tokens[at]).or_default() += 1;
        }
    }
    let total: u32 = counts.values().sum();
    let mut next: Vec<_> = counts.into_iter().map(|(token, count)| (token, count as f32 / total as f32)).collect();
    next.sort_by(|a, b| b.1.total_cmp(&a.1));
    Prediction { match_len: best, next }
}

/// Few distinct tokens, so that matches are long; 0 is `END`.
fn stream(max_len: usize) -> impl Strategy<Value = Vec<TokenId>> {
    prop_oneof![
        prop::collection::vec(prop_oneof![1 => Just(END), 20 => 8..11u16], 0..max_len),
        prop::collection::vec(8..10u16, 1..4).prop_map(move |unit| unit.into_iter().cycle().take(max_len).collect()),
    ]
}

fn files() -> impl Strategy<Value = Files> {
    prop::collection::vec(stream(90), 0..5).prop_map(|streams| {
        streams
            .into_iter()
            .enumerate()
            .map(|(i, tokens)| (format!("{}.rs", (b'a' + i as u8) as char), tokens))
            .collect()
    })
}

proptest! {
    #[test]
    fn predictions_are_those_of_a_full_search(files in files(), context in stream(60), exclude in "[a-e]\\.rs|") {
        let memory = Memory::build(files.clone());
        prop_assert_eq!(memory.predict(&context, &exclude), slow(&files, &context, &exclude));
        prop_assert_eq!(memory.n_tokens(), files.iter().map(|(_, tokens)| tokens.len()).sum::<usize>());
    }

    #[test]
    fn the_order_of_files_does_not_matter(files in files(), context in stream(60)) {
        let reversed = files.iter().rev().cloned().collect();
        prop_assert_eq!(Memory::build(files).predict(&context, "c.rs"), Memory::build(reversed).predict(&context, "c.rs"));
    }

    #[test]
    fn an_overlay_stands_for_its_file(
        files in files(), live in stream(90), path in "[a-f]\\.rs", context in stream(60), exclude in "[a-f]\\.rs|",
    ) {
        let mut replaced: Files = files.iter().filter(|(other, _)| *other != path).cloned().collect();
        replaced.push((path.clone(), live.clone()));
        let memory = Memory::build(files).with_overlay(path, live);
        prop_assert_eq!(memory.predict(&context, &exclude), slow(&replaced, &context, &exclude));
        prop_assert_eq!(memory.n_tokens(), replaced.iter().map(|(_, tokens)| tokens.len()).sum::<usize>());
    }

    #[test]
    fn a_prediction_sums_to_one(files in files(), context in stream(60)) {
        let prediction = Memory::build(files).predict(&context, "");
        let sum: f32 = prediction.next.iter().map(|(_, p)| p).sum();
        prop_assert_eq!(prediction.next.is_empty(), prediction.match_len == 0);
        prop_assert!(prediction.next.is_empty() || (sum - 1.0).abs() < 1e-5);
    }
}

/// The orders that the slowest code finds: every position of every file, every length.
fn slow_orders(files: &Files, context: &[TokenId]) -> Vec<Order> {
    let mut following: Vec<Vec<TokenId>> = vec![Vec::new(); MAX_MATCH + 1];
    for (_, tokens) in files {
        for at in 0..tokens.len() {
            let matching = tokens[..at].iter().rev().zip(context.iter().rev()).take(MAX_MATCH);
            let len = matching.take_while(|(a, b)| a == b && **a != END).count();
            if tokens[at] != END {
                following[..=len].iter_mut().for_each(|next| next.push(tokens[at]));
            }
        }
    }
    let mut orders: Vec<Order> = Vec::new();
    let longest = (1..=MAX_MATCH).rev().find(|len| !following[*len].is_empty()).unwrap_or(0);
    for len in (1..=longest).rev().filter(|len| *len == longest || lookup::LADDER.contains(len)) {
        let before = orders.last().map_or(0, |order| order.total);
        if orders.len() < lookup::MAX_ORDERS && before < lookup::ENOUGH && following[len].len() as u32 >= 2 * before {
            orders.push(index::order_of(len, following[len].clone()));
        }
    }
    orders
}

proptest! {
    #[test]
    fn orders_are_those_of_a_full_search(files in files(), context in stream(60)) {
        let mut lookup = Lookup::default();
        Memory::build(files.clone()).lookup(&context, "", &mut lookup);
        prop_assert_eq!(&lookup.tiers[Tier::Workspace as usize], &slow_orders(&files, &context));
        // With a context taken from a file, matches are long.
        for (_, tokens) in &files {
            Memory::build(files.clone()).lookup(tokens, "", &mut lookup);
            prop_assert_eq!(&lookup.tiers[Tier::Workspace as usize], &slow_orders(&files, tokens));
        }
    }

    #[test]
    fn an_open_file_counts_in_its_tier_only(files in files(), open in stream(90), context in stream(60)) {
        let (name, others) = ("c.rs", files.iter().filter(|(path, _)| path != "c.rs").cloned().collect::<Files>());
        let memory = Memory::build(files).with_open(OpenFiles::index(vec![(name.to_owned(), open.clone())]));
        let mut lookup = Lookup::default();
        memory.lookup(&context, "", &mut lookup);
        prop_assert_eq!(&lookup.tiers[Tier::Workspace as usize], &slow_orders(&others, &context));
        prop_assert_eq!(&lookup.tiers[Tier::Open as usize], &slow_orders(&vec![(name.to_owned(), open.clone())], &context));
        // The live file is in no other tier.
        let memory = memory.with_overlay(name.to_owned(), open);
        memory.lookup(&context, "", &mut lookup);
        prop_assert_eq!(&lookup.tiers[Tier::Open as usize], &vec![]);
        prop_assert_eq!(&lookup.tiers[Tier::Workspace as usize], &slow_orders(&others, &context));
    }
}

#[test]
fn a_large_index_is_searched_as_a_small_one() {
    // Runs of equal contexts longer than a block, and positions on both sides of each block's start.
    let mut rng = crate::rng::Rng::new(3);
    let tokens: Vec<TokenId> = (0..20_000).map(|_| 8 + (rng.uniform() * rng.uniform() * 6.0) as TokenId).collect();
    let files = vec![("a".to_owned(), tokens.clone()), ("b".to_owned(), vec![8; 3000])];
    let memory = Memory::build(files.clone());
    let mut lookup = Lookup::default();
    for end in (1..20_000).step_by(1237) {
        memory.lookup(&tokens[end - end.min(12)..end], "", &mut lookup);
        let (found, all) =
            (&lookup.tiers[Tier::Workspace as usize], slow_orders(&files, &tokens[end - end.min(12)..end]));
        let lens = |orders: &[Order]| orders.iter().map(|order| order.len).collect::<Vec<_>>();
        assert_eq!(lens(found), lens(&all));
        for (found, all) in found.iter().zip(&all).filter(|(_, all)| all.total <= 512) {
            assert_eq!(found, all);
        }
        assert!(found.iter().all(|order| order.total <= 512));
    }
}

#[test]
fn an_empty_memory_has_nothing_to_say() {
    assert_eq!(Memory::default().predict(&[8, 9], ""), Prediction::default());
    assert_eq!(Memory::build(vec![("a".into(), vec![])]).predict(&[8], "a"), Prediction::default());
    let mut lookup = Lookup::default();
    Memory::default().lookup(&[8, 9], "", &mut lookup);
    assert!(lookup.is_empty());
}

#[test]
fn the_few_occurrences_outside_a_large_excluded_file_are_found() {
    let mut live = [8, 9].repeat(5000);
    live.push(8);
    let memory = Memory::build(vec![("live".into(), live), ("other".into(), vec![8, 10])]);
    assert_eq!(memory.predict(&[9, 8], "live"), Prediction { match_len: 1, next: vec![(10, 1.0)] });
}
