//! The tokens of pre-tokens seen before. Identifiers repeat, so nearly every lookup hits.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::TokenId;

/// Pre-tokens that are kept before the cache is emptied; about 2 MB.
const CAPACITY: usize = 1 << 15;

/// A bounded map from pre-tokens to tokens.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Pre-token → where its tokens start in `tokens`, and how many there are.
    spans: HashMap<Box<[u8]>, (u32, u8), BuildHasherDefault<Words>>,
    tokens: Vec<TokenId>,
}

impl Cache {
    /// Appends the tokens of `pretoken` to `out`; false if it is not known.
    pub(super) fn copy(&self, pretoken: &[u8], out: &mut Vec<TokenId>) -> bool {
        let Some(&(start, len)) = self.spans.get(pretoken) else { return false };
        out.extend_from_slice(&self.tokens[start as usize..][..usize::from(len)]);
        true
    }

    /// Remembers the tokens of `pretoken`; a pre-token has at most `MAX_PRETOKEN` of them.
    pub(super) fn keep(&mut self, pretoken: &[u8], tokens: &[TokenId]) {
        if self.spans.len() >= CAPACITY {
            self.spans.clear();
            self.tokens.clear();
        }
        let len = u8::try_from(tokens.len()).expect("a pre-token has at most 64 bytes");
        self.spans.insert(pretoken.into(), (self.tokens.len() as u32, len));
        self.tokens.extend_from_slice(tokens);
    }
}

/// A hash of eight bytes at a time. Keys are at most 64 bytes and the map is bounded, so a text made to
/// collide costs time only within its own request; SipHash costs every request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Words(u64);

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        // Odd multiplier from the golden ratio; the rotation brings high bits to where the map looks.
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
