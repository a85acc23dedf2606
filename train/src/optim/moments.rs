//! Moments of the gradients: one or two running means per weight, in f32 or in 8 bits.
//!
//! In 8 bits, 64 numbers share a scale, the largest magnitude among them (arXiv 2110.02861 has the blocks; the codes
//! here are roots, not a table): a mean of gradients is ±(c / 127)² of it, a mean of squares (c / 127)⁴. Small numbers
//! are so kept apart, where even steps would make them zeros. A mean of squares is rounded up: what divides an update
//! must not vanish before the update does.

use serde::{Deserialize, Serialize};

use crate::ops::simd;

/// Number format of stored moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentFormat {
    /// 32-bit floats.
    F32,
    /// One byte per number, and an f32 scale per 64 of them.
    Int8,
}

/// Which moment an array holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentOrder {
    /// Running mean of gradients.
    First,
    /// Running mean of squared gradients.
    Second,
}

/// Numbers that share a scale.
const BLOCK: usize = 64;

/// Moments of one order of some neighbouring weights.
#[derive(Clone, Debug, PartialEq)]
pub enum MomentArray {
    /// Stored as 32-bit floats.
    F32(Vec<f32>),
    /// Stored in 8 bits.
    Int8 {
        /// One code per number.
        codes: Vec<i8>,
        /// Largest magnitude of each block.
        scales: Vec<f32>,
        /// Decides the root that the codes are of.
        order: MomentOrder,
    },
}

impl MomentArray {
    /// An array of `len` zeros.
    pub fn new(len: usize, order: MomentOrder, format: MomentFormat) -> Self {
        match format {
            MomentFormat::F32 => Self::F32(vec![0.0; len]),
            MomentFormat::Int8 => Self::Int8 { codes: vec![0; len], scales: vec![0.0; len.div_ceil(BLOCK)], order },
        }
    }

    /// Calls `f` with the numbers, which it may change.
    pub fn update(&mut self, f: impl FnOnce(&mut [f32])) {
        match self {
            Self::F32(values) => f(values),
            Self::Int8 { codes, scales, order } => {
                let mut values = vec![0.0; codes.len()];
                for ((values, codes), scale) in values.chunks_mut(BLOCK).zip(codes.chunks(BLOCK)).zip(&*scales) {
                    values.iter_mut().zip(codes).for_each(|(value, code)| *value = order.decode(*code, *scale));
                }
                f(&mut values);
                for ((values, codes), scale) in values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales) {
                    *scale = values.iter().fold(0.0, |max, x| x.abs().max(max));
                    let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
                    codes.iter_mut().zip(values).for_each(|(code, value)| *code = order.encode(value * inverse));
                }
            }
        }
    }

    /// Bytes that [`MomentArray::write`] appends.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::Int8 { codes, scales, .. } => codes.len() + 4 * scales.len(),
        }
    }

    /// Appends the stored bytes to `out`, little-endian.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut floats = |values: &[f32]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        match self {
            Self::F32(values) => floats(values),
            Self::Int8 { codes, scales, .. } => {
                floats(scales);
                out.extend(codes.iter().map(|code| *code as u8));
            }
        }
    }

    /// Takes what [`MomentArray::write`] wrote off the front of `bytes`; false if there is too little.
    pub fn read(&mut self, bytes: &mut &[u8]) -> bool {
        let Some((own, rest)) = bytes.split_at_checked(self.n_bytes()) else { return false };
        *bytes = rest;
        let floats = |values: &mut [f32], bytes: &[u8]| {
            values.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(v, b)| *v = f32::from_le_bytes(*b));
        };
        match self {
            Self::F32(values) => floats(values, own),
            Self::Int8 { codes, scales, .. } => {
                let (by_scale, by_code) = own.split_at(4 * scales.len());
                floats(scales, by_scale);
                codes.iter_mut().zip(by_code).for_each(|(code, byte)| *code = *byte as i8);
            }
        }
        true
    }
}

impl MomentOrder {
    fn decode(self, code: i8, scale: f32) -> f32 {
        let root = f32::from(code) / 127.0;
        match self {
            Self::First => root * root.abs() * scale,
            Self::Second => root * root * (root * root) * scale,
        }
    }

    /// `x` is within ±1.
    fn encode(self, x: f32) -> i8 {
        match self {
            Self::First => (127.0 * x.abs().sqrt()).round().copysign(x) as i8,
            Self::Second => (127.0 * x.max(0.0).sqrt().sqrt()).ceil() as i8,
        }
    }
}

/// The moments of all weights, in the parts that are updated by themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// One or two arrays per part.
    pub(super) parts: Vec<Vec<MomentArray>>,
}

impl Moments {
    /// Bytes that [`Moments::write`] appends, and that they take in memory.
    pub fn n_bytes(&self) -> usize {
        self.parts.iter().flatten().map(MomentArray::n_bytes).sum()
    }

    /// Appends the stored bytes of all arrays to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.parts.iter().flatten().for_each(|array| array.write(out));
    }

    /// Takes what [`Moments::write`] wrote off the front of `bytes`; false if there is too little.
    pub fn read(&mut self, bytes: &mut &[u8]) -> bool {
        self.parts.iter_mut().flatten().all(|array| array.read(bytes))
    }
}

/// average ← β average + (1 − β) values, β smaller in the first steps, so that the initial values are soon forgotten.
pub fn average(averages: &mut [f32], values: &[f32], beta: f64, step: usize) {
    let warm = (1.0 + step as f64) / (10.0 + step as f64);
    let share = (1.0 - beta.min(warm)) as f32;
    simd::dispatch(
        #[inline(always)]
        || averages.iter_mut().zip(values).for_each(|(average, value)| *average += share * (value - *average)),
    );
}

#[cfg(test)]
mod tests {
    use nanochat_engine::rng::Rng;

    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        let mut rng = Rng::new(4);
        // From 1 down to about e⁻⁶.
        (0..n).map(|_| rng.normal() * (-6.0 * rng.uniform()).exp()).collect()
    }

    fn of(order: MomentOrder, gradients: &[f32]) -> Vec<f32> {
        gradients.iter().map(|x| if order == MomentOrder::First { *x } else { x * x }).collect()
    }

    #[test]
    fn numbers_come_back_within_half_a_step_of_their_root() {
        let wanted = numbers(200);
        for order in [MomentOrder::First, MomentOrder::Second] {
            let wanted = of(order, &wanted);
            let mut array = MomentArray::new(wanted.len(), order, MomentFormat::Int8);
            array.update(|values| values.copy_from_slice(&wanted));
            array.update(|values| {
                for (found, wanted) in values.chunks(BLOCK).zip(wanted.chunks(BLOCK)) {
                    let largest = wanted.iter().fold(0.0f32, |max, x| x.abs().max(max));
                    for (found, wanted) in found.iter().zip(wanted) {
                        let root = |x: f32| match order {
                            MomentOrder::First => (x.abs() / largest).sqrt().copysign(x),
                            MomentOrder::Second => (x / largest).sqrt().sqrt(),
                        };
                        let (found, wanted) = (127.0 * root(*found), 127.0 * root(*wanted));
                        let within = match order {
                            MomentOrder::First => (found - wanted).abs() <= 0.501,
                            MomentOrder::Second => (-1e-3..1.001).contains(&(found - wanted)),
                        };
                        assert!(within, "{order:?}: {found} for {wanted}");
                    }
                }
            });
        }
    }

    #[test]
    fn what_is_written_is_read_and_too_little_is_refused() {
        for format in [MomentFormat::F32, MomentFormat::Int8] {
            let arrays = [MomentOrder::First, MomentOrder::Second].map(|order| {
                let mut array = MomentArray::new(100, order, format);
                array.update(|values| values.copy_from_slice(&of(order, &numbers(100))));
                array
            });
            let moments = Moments { parts: vec![arrays.to_vec()] };
            let mut bytes = Vec::new();
            moments.write(&mut bytes);
            assert_eq!(bytes.len(), moments.n_bytes());
            let zeros = [MomentOrder::First, MomentOrder::Second].map(|order| MomentArray::new(100, order, format));
            let mut empty = Moments { parts: vec![zeros.to_vec()] };
            assert!(empty.read(&mut &bytes[..]));
            assert_eq!(empty, moments);
            assert!(!empty.read(&mut &bytes[..bytes.len() - 1]));
        }
    }

    #[test]
    fn an_average_forgets_its_initial_values() {
        let mut averages = [100.0f32];
        for step in 0..2000 {
            average(&mut averages, &[1.0], 0.99, step);
        }
        assert!((averages[0] - 1.0).abs() < 1e-4, "{averages:?}");
    }
}
