//! The weights section: the numbers of [`Weights`] in the order of its fields, without shapes.
//!
//! ```text
//! int8 matrix     values i8, row-major; scale f32 per row
//! ternary matrix  five trits a byte, row-major, Σ (trit_i + 1)·3^i, zeros after the last; scale f32 per group
//! norm            f32 per channel
//! mHC             alpha_pre, alpha_post, alpha_res, w_pre, w_post, w_res, b_pre, b_post, b_res, all f32
//! ```
//!
//! The configuration alone gives the length, so it is compared before anything is decoded.

use std::fmt;

use nanochat_kernels::ternary::base3;
use nanochat_kernels::{Base3Matrix, LargeBytes, PackError, ScaleGroup, Shape, Ternary, TernaryMatrix, as_i8};

use super::SectionError;
use crate::Config;
use crate::model::weights::{
    AttentionWeights, BlockWeights, Int8Matrix, MhcWeights, MlpWeights, Weights, n_permutations,
};

/// Weights in a checkpoint's buffer: the bytes that the manifest's hash covers, checked and ready to be packed for the
/// kernels.
#[derive(Clone, PartialEq)]
pub struct PackedWeights {
    config: Config,
    bytes: LargeBytes,
}

/// Weights whose matrices are slices of a checkpoint's buffer.
pub type WeightsView<'a> = Weights<Base3Matrix<'a>, &'a [i8]>;

impl PackedWeights {
    /// Packs weights that have the shapes of their own configuration. Refuses what a reader would refuse.
    pub fn pack(weights: &Weights) -> Result<Self, SectionError> {
        Self::from_bytes(&weights.config, encode_weights(weights)?.as_slice().into())
    }

    /// Takes a section's bytes and checks every one of them against a valid configuration.
    pub(in crate::checkpoint) fn from_bytes(config: &Config, bytes: LargeBytes) -> Result<Self, SectionError> {
        decode_weights(bytes.as_slice(), config)?;
        Ok(Self { config: config.clone(), bytes })
    }

    /// The architecture of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bytes of the section.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Every part in place, checked once more, which costs a fraction of packing it for the kernels.
    pub fn view(&self) -> WeightsView<'_> {
        decode_weights(self.as_bytes(), &self.config).expect("the same bytes were checked when they were taken")
    }

    /// The unpacked form, from which training continues.
    pub fn unpack(&self) -> Weights {
        let WeightsView { config, embed, blocks, norm_final } = self.view();
        let Int8Matrix { rows, cols, values, scales } = embed;
        let plain = |matrix: Base3Matrix<'_>| {
            let (shape, group, scales) = (matrix.shape(), matrix.group(), matrix.scales().to_vec());
            TernaryMatrix::from_trits(shape, group, matrix.trits(), scales).expect("the same checks held before")
        };
        let block = |BlockWeights { attn, mlp }| {
            let AttentionWeights { mhc, norm, q, k, v, norm_out, o } = attn;
            let [q, k, v, o] = [q, k, v, o].map(plain);
            let attn = AttentionWeights { mhc, norm, q, k, v, norm_out, o };
            let MlpWeights { mhc, norm, gate, up, norm_down, down } = mlp;
            let [gate, up, down] = [gate, up, down].map(plain);
            BlockWeights { attn, mlp: MlpWeights { mhc, norm, gate, up, norm_down, down } }
        };
        let embed = Int8Matrix { rows, cols, values: values.to_vec(), scales };
        Weights { config, embed, blocks: blocks.into_iter().map(block).collect(), norm_final }
    }
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weights of {} in {} bytes", self.config, self.as_bytes().len())
    }
}

/// The bytes of the section; `None` if they overflow.
pub(super) fn weights_size(config: &Config) -> Option<u64> {
    let Config { d_model: d, d_ff: ff, n_streams: n, .. } = *config;
    let (kv, p) = (config.kv_dim(), n_permutations(n));
    let floats = |count: usize| (count as u64).checked_mul(4);
    let ternary = |rows: usize, cols: usize| {
        let n_weights = (rows as u64).checked_mul(cols as u64)?;
        let n_scales = match config.scales {
            ScaleGroup::Matrix => 1,
            ScaleGroup::Row => rows as u64,
            ScaleGroup::Columns(width) => n_weights / width as u64,
        };
        n_weights.div_ceil(5).checked_add(n_scales.checked_mul(4)?)
    };
    let sum = |parts: &[Option<u64>]| parts.iter().try_fold(0u64, |sum, part| sum.checked_add((*part)?));

    let mhc = if n == 1 { Some(0) } else { floats(3 + n * d * (n + n + p) + n + n + p) };
    let attn = sum(&[mhc, floats(d), ternary(d, d), ternary(kv, d), ternary(kv, d), floats(d), ternary(d, d)]);
    let mlp = sum(&[mhc, floats(d), ternary(ff, d), ternary(ff, d), floats(ff), ternary(d, ff)]);
    let block = sum(&[attn, mlp])?;
    let embed = (config.vocab_size as u64).checked_mul(d as u64 + 4);
    sum(&[embed, block.checked_mul(config.n_layers as u64), floats(d)])
}

/// Writes weights that have the shapes of their own configuration.
fn encode_weights(weights: &Weights) -> Result<Vec<u8>, SectionError> {
    let Weights { config, embed, blocks, norm_final } = weights;
    let Config { d_model: d, d_ff: ff, .. } = *config;
    let kv = config.kv_dim();
    let mut out = Encoder { config, bytes: Vec::new() };
    out.int8(embed, config.vocab_size, d)?;
    if blocks.len() != config.n_layers {
        return Err(SectionError::Shape { what: "the list of layers" });
    }
    for BlockWeights { attn, mlp } in blocks {
        out.mhc(attn.mhc.as_ref())?;
        out.floats(&attn.norm, d, "a norm")?;
        out.ternary(&attn.q, d, d)?;
        out.ternary(&attn.k, kv, d)?;
        out.ternary(&attn.v, kv, d)?;
        out.floats(&attn.norm_out, d, "a norm")?;
        out.ternary(&attn.o, d, d)?;
        out.mhc(mlp.mhc.as_ref())?;
        out.floats(&mlp.norm, d, "a norm")?;
        out.ternary(&mlp.gate, ff, d)?;
        out.ternary(&mlp.up, ff, d)?;
        out.floats(&mlp.norm_down, ff, "a norm")?;
        out.ternary(&mlp.down, d, ff)?;
    }
    out.floats(norm_final, d, "a norm")?;
    Ok(out.bytes)
}

/// Reads weights of a valid configuration; checks all bytes, copies none of a matrix.
pub(super) fn decode_weights<'a>(bytes: &'a [u8], config: &Config) -> Result<WeightsView<'a>, SectionError> {
    let Config { d_model: d, d_ff: ff, n_layers, .. } = *config;
    let kv = config.kv_dim();
    let found = bytes.len() as u64;
    let expected = weights_size(config).ok_or(SectionError::TooLarge)?;
    if found != expected {
        return Err(SectionError::Length { expected, found });
    }
    let mut input = Decoder { config, rest: bytes };
    let embed = input.int8(config.vocab_size, d)?;
    let mut blocks = Vec::with_capacity(n_layers);
    for _ in 0..n_layers {
        // Fields are read in the order in which they are written here.
        let attn = AttentionWeights {
            mhc: input.mhc()?,
            norm: input.floats(d, "a norm")?,
            q: input.ternary(d, d)?,
            k: input.ternary(kv, d)?,
            v: input.ternary(kv, d)?,
            norm_out: input.floats(d, "a norm")?,
            o: input.ternary(d, d)?,
        };
        let mlp = MlpWeights {
            mhc: input.mhc()?,
            norm: input.floats(d, "a norm")?,
            gate: input.ternary(ff, d)?,
            up: input.ternary(ff, d)?,
            norm_down: input.floats(ff, "a norm")?,
            down: input.ternary(d, ff)?,
        };
        blocks.push(BlockWeights { attn, mlp });
    }
    let norm_final = input.floats(d, "a norm")?;
    match input.rest.len() as u64 {
        0 => Ok(Weights { config: config.clone(), embed, blocks, norm_final }),
        left => Err(SectionError::Length { expected: found - left, found }),
    }
}

struct Encoder<'a> {
    config: &'a Config,
    bytes: Vec<u8>,
}

struct Decoder<'a, 'c> {
    config: &'c Config,
    rest: &'a [u8],
}

impl Encoder<'_> {
    fn floats(&mut self, numbers: &[f32], n: usize, what: &'static str) -> Result<(), SectionError> {
        if numbers.len() != n {
            return Err(SectionError::Shape { what });
        }
        self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        Ok(())
    }

    fn int8(&mut self, matrix: &Int8Matrix, rows: usize, cols: usize) -> Result<(), SectionError> {
        if (matrix.rows, matrix.cols) != (rows, cols) || Some(matrix.values.len()) != rows.checked_mul(cols) {
            return Err(SectionError::Shape { what: "the embedding" });
        }
        self.bytes.extend(matrix.values.iter().map(|value| value.cast_unsigned()));
        self.floats(&matrix.scales, rows, "the embedding")
    }

    fn ternary(&mut self, matrix: &TernaryMatrix, rows: usize, cols: usize) -> Result<(), SectionError> {
        let shape = Shape { rows, cols };
        if matrix.shape() != shape || matrix.group() != self.config.scales {
            return Err(SectionError::Shape { what: "a ternary matrix" });
        }
        self.bytes.extend(base3::pack(matrix.trits()));
        self.floats(matrix.scales(), matrix.group().n_scales(shape), "a ternary matrix")
    }

    fn mhc(&mut self, mhc: Option<&MhcWeights>) -> Result<(), SectionError> {
        let what = "residual mixing";
        let n = self.config.n_streams;
        let (wide, p) = (n * self.config.d_model, n_permutations(n));
        let Some(MhcWeights { alpha_pre, alpha_post, alpha_res, w_pre, w_post, w_res, b_pre, b_post, b_res }) = mhc
        else {
            return if n == 1 { Ok(()) } else { Err(SectionError::Shape { what }) };
        };
        if n == 1 {
            return Err(SectionError::Shape { what });
        }
        self.floats(&[*alpha_pre, *alpha_post, *alpha_res], 3, what)?;
        self.floats(w_pre, wide * n, what)?;
        self.floats(w_post, wide * n, what)?;
        self.floats(w_res, wide * p, what)?;
        self.floats(b_pre, n, what)?;
        self.floats(b_post, n, what)?;
        self.floats(b_res, p, what)
    }
}

impl<'a> Decoder<'a, '_> {
    fn take(&mut self, n_bytes: usize) -> Result<&'a [u8], SectionError> {
        let missing = SectionError::Length { expected: n_bytes as u64, found: self.rest.len() as u64 };
        let (taken, rest) = self.rest.split_at_checked(n_bytes).ok_or(missing)?;
        self.rest = rest;
        Ok(taken)
    }

    fn floats(&mut self, n: usize, what: &'static str) -> Result<Vec<f32>, SectionError> {
        let bytes = self.take(n.checked_mul(4).ok_or(SectionError::TooLarge)?)?;
        let (numbers, _) = bytes.as_chunks();
        let numbers: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(SectionError::Number { what }) }
    }

    fn scales(&mut self, n: usize) -> Result<Vec<f32>, SectionError> {
        let scales = self.floats(n, "a scale")?;
        if scales.iter().all(|scale| *scale >= 0.0) {
            Ok(scales)
        } else {
            Err(SectionError::Number { what: "a scale" })
        }
    }

    fn int8(&mut self, rows: usize, cols: usize) -> Result<Int8Matrix<&'a [i8]>, SectionError> {
        let values = as_i8(self.take(rows.checked_mul(cols).ok_or(SectionError::TooLarge)?)?);
        if values.contains(&i8::MIN) {
            return Err(SectionError::Int8);
        }
        Ok(Int8Matrix { rows, cols, values, scales: self.scales(rows)? })
    }

    fn ternary(&mut self, rows: usize, cols: usize) -> Result<Base3Matrix<'a>, SectionError> {
        let (shape, group) = (Shape { rows, cols }, self.config.scales);
        let n_weights = rows.checked_mul(cols).ok_or(SectionError::TooLarge)?;
        let bytes = self.take(n_weights.div_ceil(5))?;
        let scales = self.scales(group.n_scales(shape))?;
        Base3Matrix::new(shape, group, bytes, scales).map_err(|error| match error {
            PackError::Byte { value } => SectionError::Trits { value },
            PackError::Padding => SectionError::Padding,
            _ => SectionError::Shape { what: "a ternary matrix" },
        })
    }

    fn mhc(&mut self) -> Result<Option<MhcWeights>, SectionError> {
        let what = "a number of residual mixing";
        let n = self.config.n_streams;
        if n == 1 {
            return Ok(None);
        }
        let (wide, p) = (n * self.config.d_model, n_permutations(n));
        let alphas = self.floats(3, what)?;
        Ok(Some(MhcWeights {
            alpha_pre: alphas[0],
            alpha_post: alphas[1],
            alpha_res: alphas[2],
            w_pre: self.floats(wide * n, what)?,
            w_post: self.floats(wide * n, what)?,
            w_res: self.floats(wide * p, what)?,
            b_pre: self.floats(n, what)?,
            b_post: self.floats(n, what)?,
            b_res: self.floats(p, what)?,
        }))
    }
}

#[cfg(test)]
mod tests;
