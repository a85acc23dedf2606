use proptest::prelude::*;

use super::*;
use crate::checkpoint::tests::tiny_config;
use crate::memory::N_WEIGHTS;

fn blend(count: u32, weights: &[f32]) -> Vec<u8> {
    count.to_le_bytes().into_iter().chain(weights.iter().flat_map(|weight| weight.to_le_bytes())).collect()
}

fn merges(pairs: &[(u16, u16)]) -> Vec<u8> {
    encode_items(pairs, |(left, right)| [left.to_le_bytes(), right.to_le_bytes()].concat())
}

#[test]
fn a_blend_reads_back_bit_for_bit() {
    let rough = Blend::rough();
    assert_eq!(decode_blend(&blend(N_WEIGHTS as u32, &rough.weights())), Ok(rough));
}

#[test]
fn a_count_that_is_not_that_of_the_bytes_is_refused() {
    let length = |expected, found| Err(SectionError::Length { expected, found });
    assert_eq!(decode_blend(&blend(3, &[0.5, 0.5])), length(16, 12));
    assert_eq!(decode_blend(&blend(1, &[0.5, 0.5])), length(8, 12));
    assert_eq!(decode_blend(&blend(u32::MAX, &[0.5])), length(4 + 4 * u64::from(u32::MAX), 8));
    assert_eq!(decode_blend(&blend(1, &[0.5])[..7]), length(8, 7));
    assert_eq!(decode_blend(&[0; 3]), length(4, 3));
}

#[test]
fn weights_of_the_memory_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, -1e30] {
        let weights = [&Blend::rough().weights()[1..], &[bad]].concat();
        let refused = SectionError::Blend(BlendError::OutOfRange { index: N_WEIGHTS - 1 });
        assert_eq!(decode_blend(&blend(N_WEIGHTS as u32, &weights)), Err(refused));
    }
    assert_eq!(decode_blend(&blend(0, &[])), Err(SectionError::Blend(BlendError::Length { n_weights: 0 })));
}

#[test]
fn merges_that_make_no_tokenizer_are_refused() {
    let config = tiny_config();
    let undefined = decode_tokenizer(&merges(&[(8, 600)]), &config);
    assert!(matches!(undefined, Err(SectionError::Tokenizer(TokenizerError::Undefined { index: 0 }))));
}

#[test]
fn a_tokenizer_larger_than_the_vocabulary_is_refused() {
    let config = Config { vocab_size: 265, ..tiny_config() };
    let fits = decode_tokenizer(&merges(&[(8, 9)]), &config).expect("265 tokens for 265 rows");
    assert_eq!(fits.merges(), [(8, 9)]);
    let larger = decode_tokenizer(&merges(&[(8, 9), (8, 10)]), &config);
    assert!(matches!(larger, Err(SectionError::Vocabulary { found: 266, limit: 265 })));
}

#[test]
fn sizes_beyond_any_model_are_refused_before_a_byte_is_read() {
    let config = tiny_config();
    let weights = weights_size(&config).expect("tiny");
    assert!(check_sizes(&config, [4, weights, 4]).is_ok());
    for sizes in [
        [u64::MAX, weights, 4],
        [4, weights, 4 + 4 * (MAX_ITEMS + 1)],
        [6, weights, 4],
        [4, weights, 0],
        [4, weights - 1, 4],
        [4, u64::MAX, 4],
    ] {
        assert!(check_sizes(&config, sizes).is_err(), "{sizes:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_sections_never_panic(
        tokenizer in proptest::collection::vec(any::<u8>(), 0..64),
        weights in proptest::collection::vec(any::<u8>(), 0..64),
        blend in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = decode_tokenizer(&tokenizer, &tiny_config());
        let _ = PackedWeights::from_bytes(&tiny_config(), weights.as_slice().into());
        let _ = decode_blend(&blend);
    }
}
