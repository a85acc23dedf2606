use proptest::prelude::*;

use super::*;
use crate::tokenizer::END;

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
