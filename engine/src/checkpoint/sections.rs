//! The bytes of each section, writer and reader together. All numbers are little-endian.
//!
//! ```text
//! tokenizer  count u32, then (left u16, right u16) per merge
//! weights    see `sections::weights`
//! blend      count u32, then f32 per number of its networks of mixing weights
//! ```

use nanochat_kernels::LargeBytes;

use super::CheckpointError;
use crate::Config;
use crate::memory::{Blend, BlendError};
use crate::text::tokenizer::{Tokenizer, TokenizerError};

mod weights;

use weights::weights_size;
pub use weights::{PackedWeights, WeightsView};

/// All sections, in file order.
pub(super) const NAMES: [&str; 3] = ["tokenizer", "weights", "blend"];

/// More merges than any vocabulary (32,768) has room for, and more weights than any match is long.
const MAX_ITEMS: u64 = 1 << 15;

/// Why the bytes of a section are not valid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SectionError {
    /// The section has too many bytes or too few.
    #[error("it has {found} bytes where {expected} are needed")]
    Length {
        /// The bytes that its content needs.
        expected: u64,
        /// The bytes that it has.
        found: u64,
    },
    /// The size is beyond that of any model.
    #[error("its size is beyond any model's")]
    TooLarge,
    /// A byte does not hold five trits.
    #[error("byte {value} does not hold five ternary weights")]
    Trits {
        /// The value of the byte.
        value: u8,
    },
    /// There are weights beyond the last one of a matrix.
    #[error("a matrix has weights beyond its end")]
    Padding,
    /// A weight is −128, which has no positive counterpart.
    #[error("an 8-bit weight is -128")]
    Int8,
    /// A number is infinite or not a number, or a scale is negative.
    #[error("{what} is not a finite number in its range")]
    Number {
        /// The kind of number.
        what: &'static str,
    },
    /// A part in memory does not have the shape of the configuration.
    #[error("{what} does not have the shape that the configuration says")]
    Shape {
        /// The kind of part.
        what: &'static str,
    },
    /// The merges do not make a tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The weights are not those of a blend.
    #[error(transparent)]
    Blend(#[from] BlendError),
    /// The tokenizer has more tokens than the model.
    #[error("its {found} tokens are more than the model's {limit}")]
    Vocabulary {
        /// How many tokens the tokenizer has.
        found: usize,
        /// How many rows the embedding has.
        limit: usize,
    },
}

/// What the sections hold.
pub(super) struct Contents {
    pub(super) tokenizer: Tokenizer,
    pub(super) weights: PackedWeights,
    pub(super) blend: Blend,
}

/// The bytes of the sections tokenizer and blend; the weights are packed already.
pub(super) fn encode(tokenizer: &Tokenizer, blend: &Blend) -> [Vec<u8>; 2] {
    [
        encode_items(tokenizer.merges(), |(left, right)| [left.to_le_bytes(), right.to_le_bytes()].concat()),
        encode_items(&blend.weights(), |weight| weight.to_le_bytes().to_vec()),
    ]
}

/// Refuses section sizes that do not fit this configuration.
pub(super) fn check_sizes(config: &Config, sizes: [u64; 3]) -> Result<(), CheckpointError> {
    let [tokenizer, weights, blend] = sizes;
    for (index, size) in [(0, tokenizer), (2, blend)] {
        if size < 4 || !size.is_multiple_of(4) || size > 4 + 4 * MAX_ITEMS {
            return Err(in_section(index)(SectionError::TooLarge));
        }
    }
    let expected = weights_size(config).ok_or_else(|| in_section(1)(SectionError::TooLarge))?;
    if weights != expected {
        return Err(in_section(1)(SectionError::Length { expected, found: weights }));
    }
    Ok(())
}

/// The content of the sections, given in the order of [`NAMES`], for a valid configuration.
pub(super) fn decode(config: &Config, sections: [LargeBytes; 3]) -> Result<Contents, CheckpointError> {
    let [tokenizer, weights, blend] = sections;
    let tokenizer = decode_tokenizer(tokenizer.as_slice(), config).map_err(in_section(0))?;
    let weights = PackedWeights::from_bytes(config, weights).map_err(in_section(1))?;
    let blend = decode_blend(blend.as_slice()).map_err(in_section(2))?;
    Ok(Contents { tokenizer, weights, blend })
}

/// Refuses what [`decode`] would refuse; the weights were checked when they were packed.
pub(super) fn check(config: &Config, tokenizer: &[u8], blend: &[u8]) -> Result<(), CheckpointError> {
    decode_tokenizer(tokenizer, config).map_err(in_section(0))?;
    decode_blend(blend).map_err(in_section(2))?;
    Ok(())
}

fn in_section(index: usize) -> impl Fn(SectionError) -> CheckpointError {
    move |source| CheckpointError::Section { section: NAMES[index], source }
}

fn decode_tokenizer(bytes: &[u8], config: &Config) -> Result<Tokenizer, SectionError> {
    let merges = decode_items(bytes, |[a, b, c, d]| (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))?;
    let tokenizer = Tokenizer::from_merges(merges)?;
    let (found, limit) = (tokenizer.vocab_size(), config.vocab_size);
    if found > limit { Err(SectionError::Vocabulary { found, limit }) } else { Ok(tokenizer) }
}

fn decode_blend(bytes: &[u8]) -> Result<Blend, SectionError> {
    Ok(Blend::from_weights(&decode_items(bytes, f32::from_le_bytes)?)?)
}

/// A count, then four bytes per item.
fn encode_items<T: Copy>(items: &[T], item: impl Fn(T) -> Vec<u8>) -> Vec<u8> {
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX); // what does not fit, the reader refuses
    count.to_le_bytes().into_iter().chain(items.iter().flat_map(|one| item(*one))).collect()
}

fn decode_items<T>(bytes: &[u8], item: impl Fn([u8; 4]) -> T) -> Result<Vec<T>, SectionError> {
    let found = bytes.len() as u64;
    let (count, rest) = bytes.split_first_chunk().ok_or(SectionError::Length { expected: 4, found })?;
    let expected = 4 + 4 * u64::from(u32::from_le_bytes(*count));
    let (items, tail) = rest.as_chunks();
    if expected != found || !tail.is_empty() {
        return Err(SectionError::Length { expected, found });
    }
    Ok(items.iter().map(|bytes| item(*bytes)).collect())
}

#[cfg(test)]
mod tests;
