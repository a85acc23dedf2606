//! Byte-level BPE that gives back every byte string exactly.
//!
//! Ids: specials `0..8`, bytes `8..264`, then one id per merge in rank order. The byte map is ours:
//! no text is ever required to be UTF-8. Pre-tokens keep a newline and the indentation after it together.

mod cache;
mod split;

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Mutex;

use cache::{Cache, Words};
pub use split::{MAX_PRETOKEN, pretokens};

/// The id of a token. Vocabularies stay below 32,768.
pub type TokenId = u16;

/// The end of a document, or of the middle: the model predicts it where the suffix should follow.
pub const END: TokenId = 0;
/// Precedes the text after the cursor.
pub const SUFFIX: TokenId = 1;
/// Precedes the text before the cursor; generation continues from there.
pub const PREFIX: TokenId = 2;
/// Precedes a context snippet.
pub const SNIPPET: TokenId = 3;
/// Ids below this are specials (4..8 are reserved); they decode to nothing.
pub const N_SPECIALS: TokenId = 8;
/// The id of byte 0.
pub const FIRST_BYTE: TokenId = N_SPECIALS;
/// The id of the first merge.
pub const FIRST_MERGE: TokenId = FIRST_BYTE + 256;
/// Vocabularies are smaller than this.
pub const VOCAB_LIMIT: usize = 32_768;
/// No token is longer than this, in bytes; no pre-token is, so a longer one could never be used.
pub const MAX_TOKEN_BYTES: usize = MAX_PRETOKEN;

/// A map of pairs, of which there are at most as many as merges.
type Pairs = HashMap<(TokenId, TokenId), TokenId, BuildHasherDefault<Words>>;

/// Text to tokens and back.
///
/// ```
/// use nanochat_engine::Tokenizer;
/// use nanochat_engine::text::tokenizer::{FIRST_BYTE, FIRST_MERGE, TokenId};
///
/// // One merge: `f` and `n` become one token.
/// let byte = |byte: u8| FIRST_BYTE + TokenId::from(byte);
/// let tokenizer = Tokenizer::from_merges(vec![(byte(b'f'), byte(b'n'))])?;
/// let tokens = tokenizer.encode(b"fn f");
/// assert_eq!(tokens, [FIRST_MERGE, byte(b' '), byte(b'f')]);
/// assert_eq!(tokenizer.decode(&tokens), b"fn f");
/// # Ok::<(), nanochat_engine::text::tokenizer::TokenizerError>(())
/// ```
pub struct Tokenizer {
    merges: Vec<(TokenId, TokenId)>,
    /// Pair → the token that it becomes; a lower id is an earlier rank.
    pairs: Pairs,
    /// The bytes of all tokens, in id order; token i is `bytes[ends[i - 1]..ends[i]]`.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Byte and merge tokens in the order of their bytes.
    sorted: Vec<TokenId>,
    hash: [u8; 32],
    /// Pre-token → tokens. A thread that finds it locked works without it, so no thread waits for another.
    cache: Mutex<Cache>,
}

/// Why a list of merges does not make a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// A merge uses an id that is not defined before it, or a special.
    #[error("merge {index} joins a token that is not defined before it")]
    Undefined {
        /// The rank of the merge.
        index: usize,
    },
    /// Two tokens have the same bytes.
    #[error("merge {index} makes a token that is already there")]
    Duplicate {
        /// The rank of the merge.
        index: usize,
    },
    /// There are too many merges, or a token is too long.
    #[error("merge {index} is beyond the limit on vocabulary or token length")]
    TooLarge {
        /// The rank of the merge.
        index: usize,
    },
}

impl Tokenizer {
    /// The tokenizer without merges: one token per byte.
    pub fn bytes() -> Self {
        Self::from_merges(Vec::new()).expect("an empty list of merges is valid")
    }

    /// A tokenizer from its merges in rank order. Merge i makes the token `FIRST_MERGE + i`.
    pub fn from_merges(merges: Vec<(TokenId, TokenId)>) -> Result<Self, TokenizerError> {
        let mut bytes: Vec<u8> = (0..=255).collect();
        let mut ends: Vec<u32> = [0; N_SPECIALS as usize].into_iter().chain(1..=256).collect();
        let mut pairs = Pairs::with_capacity_and_hasher(merges.len().min(VOCAB_LIMIT), BuildHasherDefault::default());
        let mut failure = None;
        for (index, &(left, right)) in merges.iter().enumerate() {
            let made = usize::from(FIRST_MERGE) + index;
            let is_defined = |id: TokenId| (usize::from(FIRST_BYTE)..made).contains(&usize::from(id));
            let range = |id: TokenId| ends[usize::from(id) - 1] as usize..ends[usize::from(id)] as usize;
            failure = if made + 1 >= VOCAB_LIMIT {
                Some(TokenizerError::TooLarge { index })
            } else if !is_defined(left) || !is_defined(right) {
                Some(TokenizerError::Undefined { index })
            } else if range(left).len() + range(right).len() > MAX_TOKEN_BYTES {
                Some(TokenizerError::TooLarge { index })
            } else {
                None
            };
            if failure.is_some() {
                break;
            }
            bytes.extend_from_within(range(left));
            bytes.extend_from_within(range(right));
            ends.push(bytes.len() as u32);
            pairs.insert((left, right), made as TokenId);
        }
        let sorted = sorted(&bytes, &ends);
        let of = |id: TokenId| &bytes[ends[usize::from(id) - 1] as usize..ends[usize::from(id)] as usize];
        // Of equal tokens the later one is in error; of several such errors the first is reported.
        let duplicates = sorted.windows(2).filter(|pair| of(pair[0]) == of(pair[1])).map(|pair| pair[1]);
        if let Some(id) = duplicates.min() {
            return Err(TokenizerError::Duplicate { index: usize::from(id - FIRST_MERGE) });
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut hasher = blake3::Hasher::new();
        for (left, right) in &merges {
            hasher.update(&left.to_le_bytes());
            hasher.update(&right.to_le_bytes());
        }
        Ok(Self { merges, pairs, bytes, ends, sorted, hash: *hasher.finalize().as_bytes(), cache: Mutex::default() })
    }

    /// The merges in rank order.
    pub fn merges(&self) -> &[(TokenId, TokenId)] {
        &self.merges
    }

    /// How many tokens there are: specials, bytes and merges.
    pub fn vocab_size(&self) -> usize {
        self.ends.len()
    }

    /// The tokens of any byte string; never a special.
    pub fn encode(&self, text: &[u8]) -> Vec<TokenId> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_into(text, &mut tokens, |_, _| ());
        tokens
    }

    /// Appends the tokens of a byte string. `each` is called per pre-token with its bytes and the number of tokens
    /// after it. Which pre-token starts at a byte depends on nothing before that byte.
    pub fn encode_into(&self, text: &[u8], tokens: &mut Vec<TokenId>, mut each: impl FnMut(usize, usize)) {
        let mut shared = self.cache.try_lock();
        let mut own = Cache::default();
        let cache = match &mut shared {
            Ok(shared) => &mut **shared,
            Err(_) => &mut own,
        };
        for pretoken in pretokens(text) {
            if !cache.copy(pretoken, tokens) {
                let start = tokens.len();
                self.merge(pretoken, tokens);
                cache.keep(pretoken, &tokens[start..]);
            }
            each(pretoken.len(), tokens.len());
        }
    }

    /// The bytes of tokens; specials and ids beyond the vocabulary give nothing.
    pub fn decode(&self, tokens: &[TokenId]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 * tokens.len());
        tokens.iter().for_each(|token| bytes.extend_from_slice(self.token_bytes(*token)));
        bytes
    }

    /// The bytes of one token, empty for a special.
    pub fn token_bytes(&self, token: TokenId) -> &[u8] {
        let token = usize::from(token);
        if token < usize::from(FIRST_BYTE) || token >= self.ends.len() {
            return &[];
        }
        &self.bytes[self.ends[token - 1] as usize..self.ends[token] as usize]
    }

    /// blake3 of the merges, which identifies the tokenizer.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The tokens that may come next where `bytes` are still to be written: those that start with them or are a prefix
    /// of them. In id order; all but the specials where `bytes` is empty.
    pub fn tokens_compatible_with(&self, bytes: &[u8]) -> Vec<TokenId> {
        let below = |limit: &[u8]| self.sorted.partition_point(|&id| self.token_bytes(id) < limit);
        let start = below(bytes);
        let longer = self.sorted[start..].partition_point(|&id| self.token_bytes(id).starts_with(bytes));
        let mut found = self.sorted[start..start + longer].to_vec();
        for len in 1..bytes.len().min(MAX_TOKEN_BYTES + 1) {
            let prefix = &bytes[..len];
            let at = below(prefix);
            found.extend(self.sorted.get(at).filter(|&&id| self.token_bytes(id) == prefix));
        }
        found.sort_unstable();
        found
    }

    /// Joins the pair of lowest rank, leftmost first, until none is left. Quadratic in a pre-token, which
    /// `MAX_PRETOKEN` bounds.
    fn merge(&self, pretoken: &[u8], out: &mut Vec<TokenId>) {
        const NONE: TokenId = TokenId::MAX;
        let start = out.len();
        out.extend(pretoken.iter().map(|&byte| FIRST_BYTE + TokenId::from(byte)));
        if self.pairs.is_empty() {
            return;
        }
        let joined = |left, right| self.pairs.get(&(left, right)).copied().unwrap_or(NONE);
        // `made[i]` is what tokens i and i + 1 would become.
        let mut made: Vec<TokenId> = out[start..].windows(2).map(|pair| joined(pair[0], pair[1])).collect();
        while let Some((at, &best)) = made.iter().enumerate().min_by_key(|&(_, id)| *id) {
            if best == NONE {
                break;
            }
            out[start + at] = best;
            out.remove(start + at + 1);
            made.remove(at);
            if at > 0 {
                made[at - 1] = joined(out[start + at - 1], best);
            }
            if at < made.len() {
                made[at] = joined(best, out[start + at + 1]);
            }
        }
    }
}

impl Clone for Tokenizer {
    fn clone(&self) -> Self {
        Self {
            merges: self.merges.clone(),
            pairs: self.pairs.clone(),
            bytes: self.bytes.clone(),
            ends: self.ends.clone(),
            sorted: self.sorted.clone(),
            hash: self.hash,
            cache: Mutex::default(),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// All tokens but the specials in the order of their bytes, equal ones in the order of their ids.
fn sorted(bytes: &[u8], ends: &[u32]) -> Vec<TokenId> {
    let first = usize::from(FIRST_BYTE);
    // Most comparisons are decided by the first eight bytes, kept with the id.
    let mut keyed: Vec<(u64, &[u8], TokenId)> = (first..ends.len())
        .map(|id| {
            let token = &bytes[ends[id - 1] as usize..ends[id] as usize];
            let mut key = [0; 8];
            let len = token.len().min(8);
            key[..len].copy_from_slice(&token[..len]);
            (u64::from_be_bytes(key), token, id as TokenId)
        })
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, _, id)| id).collect()
}

#[cfg(test)]
pub(crate) mod tests;
