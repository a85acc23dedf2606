use proptest::prelude::*;

use super::*;
use crate::checkpoint::tests::{random_weights, tiny_config};

fn configs() -> Vec<Config> {
    let groups = [ScaleGroup::Matrix, ScaleGroup::Row];
    let mut configs = Vec::new();
    for n_streams in [1, 2, 4] {
        for scales in groups {
            configs.push(Config { n_streams, scales, ..tiny_config() });
        }
        // 24 and 40 columns leave trits over in the last byte of a matrix; groups need multiples of 16.
        configs.push(Config { n_streams, d_model: 24, n_heads: 4, n_kv_heads: 2, d_ff: 40, ..tiny_config() });
        let scales = ScaleGroup::Columns(16);
        configs.push(Config { n_streams, d_model: 48, d_ff: 32, n_layers: 2, scales, ..tiny_config() });
    }
    configs
}

fn tiny() -> (Config, Vec<u8>) {
    let config = tiny_config();
    let bytes = encode_weights(&random_weights(&config, 1)).expect("they fit their configuration");
    (config, bytes)
}

/// Where the embedding's values end; its scales follow, then the first norm, then the first ternary matrix.
const EMBED: usize = 264 * 8;
const FIRST_NORM: usize = EMBED + 264 * 4;
const FIRST_TERNARY: usize = FIRST_NORM + 8 * 4;

#[test]
fn weights_read_back_bit_for_bit_in_every_shape() {
    for config in configs() {
        config.validate().expect("a possible shape");
        let weights = random_weights(&config, 7);
        let packed = PackedWeights::pack(&weights).expect("they fit their configuration");
        assert_eq!(Some(packed.as_bytes().len() as u64), weights_size(&config), "{config}");
        assert_eq!(packed.unpack(), weights, "{config}");
    }
}

#[test]
fn the_stated_shape_has_the_stated_size_on_disk() {
    // 18,087,936 ternary weights in fifths of a byte (each of 42 matrices rounded up, one scale each), and
    // 12,288 rows of 512 bytes with a scale, and per layer three norms of 512 and one of 1,536, and the last.
    let ternary = 6 * (2 * 52_429 + 2 * 13_108 + 3 * 157_287) + 42 * 4;
    let expected = ternary + 12_288 * (512 + 4) + 6 * 4 * (3 * 512 + 1536) + 512 * 4;
    assert_eq!(weights_size(&Config::default()), Some(expected));
}

#[test]
fn a_byte_above_242_is_refused() {
    let (config, mut bytes) = tiny();
    bytes[FIRST_TERNARY] = 243;
    assert_eq!(decode_weights(&bytes, &config), Err(SectionError::Trits { value: 243 }));
}

#[test]
fn a_weight_beyond_the_end_of_a_matrix_is_refused() {
    let (config, mut bytes) = tiny();
    // 64 weights are 12 full bytes and four trits of another; its fifth counts 81.
    let last = FIRST_TERNARY + 12;
    bytes[last] = if bytes[last] >= 162 { bytes[last] - 81 } else { bytes[last] + 81 };
    assert_eq!(decode_weights(&bytes, &config), Err(SectionError::Padding));
}

#[test]
fn minus_128_is_refused() {
    let (config, mut bytes) = tiny();
    bytes[5] = 0x80;
    assert_eq!(decode_weights(&bytes, &config), Err(SectionError::Int8));
}

#[test]
fn numbers_that_are_not_finite_and_negative_scales_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
        let (config, mut bytes) = tiny();
        bytes[EMBED..EMBED + 4].copy_from_slice(&bad.to_le_bytes());
        assert_eq!(decode_weights(&bytes, &config), Err(SectionError::Number { what: "a scale" }), "{bad}");
    }
    let (config, mut bytes) = tiny();
    bytes[FIRST_NORM..FIRST_NORM + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(decode_weights(&bytes, &config), Err(SectionError::Number { what: "a norm" }));

    let config = Config { n_streams: 2, ..tiny_config() };
    let mut bytes = encode_weights(&random_weights(&config, 1)).expect("they fit their configuration");
    bytes[FIRST_NORM..FIRST_NORM + 4].copy_from_slice(&f32::NAN.to_le_bytes()); // here the mixing starts
    let what = "a number of residual mixing";
    assert_eq!(decode_weights(&bytes, &config), Err(SectionError::Number { what }));
}

#[test]
fn a_length_that_the_configuration_does_not_have_is_refused() {
    let (config, mut bytes) = tiny();
    let expected = bytes.len() as u64;
    assert_eq!(decode_weights(&bytes[1..], &config), Err(SectionError::Length { expected, found: expected - 1 }));
    bytes.push(0);
    assert_eq!(decode_weights(&bytes, &config), Err(SectionError::Length { expected, found: expected + 1 }));
}

#[test]
fn weights_that_do_not_fit_their_own_configuration_are_not_written() {
    let weights = random_weights(&tiny_config(), 1);
    let other = random_weights(&Config { n_streams: 2, d_ff: 16, ..tiny_config() }, 1);
    let mut broken = vec![weights.clone(); 6];
    broken[0].norm_final.pop();
    broken[1].blocks.clear();
    broken[2].blocks[0].mlp.gate = other.blocks[0].mlp.gate.clone();
    broken[3].blocks[0].attn.mhc = other.blocks[0].attn.mhc.clone();
    broken[4].embed.scales.pop();
    broken[5].config.scales = ScaleGroup::Row;
    for (index, weights) in broken.iter().enumerate() {
        assert!(matches!(encode_weights(weights), Err(SectionError::Shape { .. })), "{index}");
    }
    let mut unmixed = other;
    unmixed.blocks[0].mlp.mhc = None;
    assert!(matches!(encode_weights(&unmixed), Err(SectionError::Shape { .. })));
}

proptest! {
    #[test]
    fn changed_bytes_decode_to_something_else_or_an_error_but_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let (config, mut bytes) = tiny();
        let original = bytes.clone();
        for (index, byte) in changes {
            *index.get_mut(&mut bytes) = byte;
        }
        match decode_weights(&bytes, &config) {
            // One form only: what decodes encodes to the same bytes.
            Ok(_) => {
                let packed = PackedWeights::from_bytes(&config, bytes.as_slice().into()).expect("it was decoded above");
                prop_assert_eq!(PackedWeights::pack(&packed.unpack()), Ok(packed));
            }
            Err(_) => prop_assert_ne!(bytes, original),
        }
    }
}
