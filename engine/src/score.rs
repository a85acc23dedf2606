//! Bits per byte.

/// A sum over a text. Scores add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// Σ −log₂ p(token).
    pub bits: f64,
    /// Bytes of the text.
    pub bytes: usize,
    /// Tokens of the text.
    pub tokens: usize,
}

impl Score {
    /// Bits per byte; NaN for no bytes.
    pub fn bits_per_byte(&self) -> f64 {
        self.bits / self.bytes as f64
    }
}

impl std::ops::AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.bits += other.bits;
        self.bytes += other.bytes;
        self.tokens += other.tokens;
    }
}
