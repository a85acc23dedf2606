//! The only description of the architecture. Training's twin, the engine and the manifest all use it.
//!
//! One token goes through (shapes for one token; `n` streams, see [`crate::model::mhc`]):
//!
//! ```text
//! X  [n, d]  = n copies of embed[token]                    int8 rows, one scale each
//! for layer in 0..n_layers:
//!     h  [d]       = mix_in(X)                             n = 1: X itself
//!     a  [d]       = rms_norm(h, attn.norm)        → int8
//!     q, k, v      = a·Wqᵀ, a·Wkᵀ, a·Wvᵀ                   ternary; [n_heads·hd], 2 × [n_kv_heads·hd]
//!     q, k         = rope(q), rope(k)                      halves rotate: (i, i + hd/2)
//!     o            = softmax(q·kᵀ / √hd)·v                 causal; heads share kv heads in order
//!     X            = mix_out(X, rms_norm(o, attn.norm_out)→int8 · Woᵀ)
//!     h  [d]       = mix_in(X)
//!     a  [d]       = rms_norm(h, mlp.norm)         → int8
//!     m  [d_ff]    = f(a·Wgateᵀ) ∘ (a·Wupᵀ)               f: `activation`
//!     X            = mix_out(X, rms_norm(m, mlp.norm_down)→int8 · Wdownᵀ)
//! x  [d]     = rms_norm(Σ streams, norm_final)     → int8
//! logits [V] = x·embedᵀ                                    tied, int8 × int8
//! ```
//!
//! `→ int8` is per token: s = max|x| / 127, q = round half to even(x · 127 / max|x|), all zero when max|x| = 0:
//! `nanochat_kernels::rows::quantize_row`. Ternary weights are γ = mean|W| per scale group, W̃ = clip(round(W/γ), −1,
//! 1) (BitNet b1.58, arXiv 2402.17764). A norm precedes each quantiser (SubLN).

use std::fmt;
use std::str::FromStr;

use nanochat_kernels::{Activation, ScaleGroup};
use serde::{Deserialize, Serialize};

/// Sizes of the decoder. Written `d512 l6 h8 kv2 ff1536 v12288 n1`, followed by `relu2` where that is the activation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks of attention and MLP.
    pub n_layers: usize,
    /// Heads of queries; divides `d_model`.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width inside the MLP.
    pub d_ff: usize,
    /// Rows of the tied embedding.
    pub vocab_size: usize,
    /// Residual streams of mHC-lite: 1 (a plain residual), 2 or 4.
    pub n_streams: usize,
    /// Most tokens a session holds.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Added under the square root of RMSNorm.
    pub norm_eps: f32,
    /// How many weights share one ternary scale.
    pub scales: ScaleGroup,
    /// Of the gates of the MLP. Checkpoints without it have [`Activation::Silu`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub activation: Activation,
}

fn is_default(activation: &Activation) -> bool {
    *activation == Activation::default()
}

/// A configuration that no model can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A size is zero or beyond what a checkpoint may ask for.
    #[error("{name} is {value}, which is not within {min}..={max}")]
    OutOfRange {
        /// The name of the field.
        name: &'static str,
        /// The value it has.
        value: usize,
        /// The smallest value allowed.
        min: usize,
        /// The largest value allowed.
        max: usize,
    },
    /// One size must divide another.
    #[error("{name} is {value}, which {divisor} = {by} does not divide evenly")]
    NotDivisible {
        /// The name of the field.
        name: &'static str,
        /// The value it has.
        value: usize,
        /// The field that should divide it.
        divisor: &'static str,
        /// That field's value.
        by: usize,
    },
    /// A real number is not usable.
    #[error("{name} is not a usable number")]
    NotANumber {
        /// The name of the field.
        name: &'static str,
    },
    /// A shape string is not of the form `d512 l6 h8 kv2 ff1536 v12288 n1`.
    #[error("`{0}` is not a shape; write it like `d512 l6 h8 kv2 ff1536 v12288 n1`")]
    Shape(String),
}

impl Config {
    /// Checks once what everything else relies on.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let within = |name, value, min, max| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::OutOfRange { name, value, min, max }) }
        };
        within("d_model", self.d_model, 8, 8192)?;
        within("n_layers", self.n_layers, 1, 128)?;
        within("n_heads", self.n_heads, 1, 128)?;
        within("n_kv_heads", self.n_kv_heads, 1, self.n_heads)?;
        within("d_ff", self.d_ff, 8, 32768)?;
        within("vocab_size", self.vocab_size, crate::text::tokenizer::FIRST_MERGE as usize, 32768)?;
        within("context", self.context, 16, 32768)?;
        if ![1, 2, 4].contains(&self.n_streams) {
            return Err(ConfigError::OutOfRange {
                name: "n_streams (1, 2 or 4)",
                value: self.n_streams,
                min: 1,
                max: 4,
            });
        }
        let divides = |name, value: usize, divisor, by: usize| {
            if value.is_multiple_of(by) { Ok(()) } else { Err(ConfigError::NotDivisible { name, value, divisor, by }) }
        };
        divides("d_model", self.d_model, "n_heads", self.n_heads)?;
        divides("n_heads", self.n_heads, "n_kv_heads", self.n_kv_heads)?;
        divides("head width", self.head_dim(), "2", 2)?;
        if let ScaleGroup::Columns(width) = self.scales {
            within("scale group", width, 16, 8192)?;
            divides("scale group", width, "16", 16)?;
            divides("d_model", self.d_model, "scale group", width)?;
            divides("d_ff", self.d_ff, "scale group", width)?;
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            return Err(ConfigError::NotANumber { name: "rope_theta" });
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return Err(ConfigError::NotANumber { name: "norm_eps" });
        }
        Ok(())
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Width of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim()
    }

    /// Trainable numbers in ternary matrices and the (tied) embedding; norms and mHC-lite are not counted.
    pub fn n_params(&self) -> usize {
        let attention = 2 * self.d_model * self.d_model + 2 * self.kv_dim() * self.d_model;
        let mlp = 3 * self.d_model * self.d_ff;
        self.n_layers * (attention + mlp) + self.vocab_size * self.d_model
    }
}

impl Default for Config {
    /// The shape that latency figures are about: 24.4M parameters.
    fn default() -> Self {
        Self {
            d_model: 512,
            n_layers: 6,
            n_heads: 8,
            n_kv_heads: 2,
            d_ff: 1536,
            vocab_size: 12288,
            n_streams: 1,
            context: 2048,
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
            scales: ScaleGroup::Matrix,
            activation: Activation::Silu,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { d_model, n_layers, n_heads, n_kv_heads, d_ff, vocab_size, n_streams, .. } = self;
        write!(f, "d{d_model} l{n_layers} h{n_heads} kv{n_kv_heads} ff{d_ff} v{vocab_size} n{n_streams}")?;
        match self.activation {
            Activation::Silu => Ok(()),
            Activation::Relu2 => f.write_str(" relu2"),
        }
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    /// Reads a shape, with or without spaces; what it leaves out is as in [`Config::default`].
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Shape(text.to_owned());
        let mut config = Self::default();
        let mut rest: &str = &text.replace([' ', ','], "");
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let name_len = rest.find(|c: char| c.is_ascii_digit()).ok_or_else(bad)?;
            let (name, tail) = rest.split_at(name_len);
            let value_len = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            let (value, tail) = tail.split_at(value_len);
            let value: usize = value.parse().map_err(|_| bad())?;
            match name {
                "d" => config.d_model = value,
                "l" => config.n_layers = value,
                "h" => config.n_heads = value,
                "kv" => config.n_kv_heads = value,
                "ff" => config.d_ff = value,
                "v" => config.vocab_size = value,
                "n" => config.n_streams = value,
                "ctx" => config.context = value,
                "relu" if value == 2 => config.activation = Activation::Relu2,
                _ => return Err(bad()),
            }
            rest = tail;
        }
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_reads_back_as_it_was_written() {
        let config: Config = "d768 l16 h12 kv3 ff2048 v16384 n2".parse().expect("a valid shape");
        assert_eq!(config.to_string(), "d768 l16 h12 kv3 ff2048 v16384 n2");
        assert_eq!("d768l16h12kv3ff2048v16384n2".parse(), Ok(config.clone()));
        let gated = Config { activation: Activation::Relu2, ..config };
        assert_eq!(gated.to_string().parse(), Ok(gated));
    }

    #[test]
    fn the_default_has_the_stated_size() {
        assert_eq!(Config::default().n_params(), 24_379_392);
    }

    #[test]
    fn shapes_that_no_model_can_have_are_refused() {
        for text in [
            "",
            "d512 l",
            "q7",
            "relu3",
            "d100 h8",
            "h8 kv3",
            "n3",
            "d0",
            "l9999999",
            "v10",
            "d99999999999999999999999",
        ] {
            assert!(text.parse::<Config>().is_err(), "{text}");
        }
    }
}
