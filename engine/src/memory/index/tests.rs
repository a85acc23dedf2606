use proptest::prelude::*;

use super::*;
use crate::Tokenizer;
use crate::memory::{InfillQuery, Tier};

proptest! {
    #[test]
    fn bytes_that_are_no_index_give_no_panic(
        n_tokens in 0..300u64, n_order in 0..300u64, n_files in 0..4u64, seed: u64, context in prop::collection::vec(0..4u16, 0..40),
    ) {
        let layout = Layout::new([n_tokens, n_order.min(n_tokens), n_files.min(n_tokens), 20]).expect("few enough");
        let mut rng = crate::rng::Rng::new(seed);
        // Small numbers, so that contexts match.
        let bytes = (0..layout.names.end).map(|i| if i % 2 == 0 { (rng.uniform() * 4.0) as u8 } else { 0 }).collect();
        let index = Index { bytes: Bytes::Heap(bytes), layout };
        let mut orders = Vec::new();
        let excluded = index.file("");
        index.orders(&context, &[], &mut orders);
        index.orders(&context, &[5..9, 20..90], &mut orders);
        let query = InfillQuery { before: &context, healed: b"", after: &context, after_bytes: &[], tokenizer: &Tokenizer::bytes() };
        index.infill(Tier::Workspace, &query, &[excluded], &mut Vec::new());
        index.n_tokens();
    }

    #[test]
    fn the_last_four_are_read_as_they_stand(tokens in prop::collection::vec(0..3u16, 0..12)) {
        let mut padded = vec![END; PAD];
        padded.extend(&tokens);
        let bytes: Vec<u8> = padded.iter().flat_map(|token| token.to_le_bytes()).collect();
        for at in PAD..=padded.len() {
            let (query, _) = backwards(&padded[..at]);
            prop_assert_eq!(last_four(&bytes, at), key_of(&query[..4]));
        }
    }
}

#[test]
fn counts_that_no_index_has_are_refused() {
    let most = format::MOST_TOKENS;
    assert!(Layout::new([most, most, 1, 1]).is_some());
    for counts in [[most + 1, 1, 1, 1], [5, 6, 1, 1], [5, 5, 6, 1], [5, 5, 1, u64::MAX], [u64::MAX; 4]] {
        assert!(Layout::new(counts).is_none(), "{counts:?}");
    }
}
