//! The two integer products of attention, over blocks of 64 positions.

use crate::isa::{Isa, Level};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

/// Positions of a block of the cache.
pub(crate) const POSITIONS: usize = 64;
/// Query rows that share each load of keys or values: 4 × 4 accumulators.
pub(crate) const QUERY_ROWS: usize = 4;

/// The two routines of an instruction set: scores and weighted sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dots(Isa);

impl Dots {
    pub(crate) fn of(isa: Isa) -> Self {
        Self(isa)
    }

    /// out `[R][64]` = Σ over features of q · (key − 128). Keys are `[width/4][64][4]` and never 0, queries
    /// `[R, width]` and never −128; R is at most [`QUERY_ROWS`]. `query_sums` are Σ of each query.
    pub(crate) fn scores(
        self,
        keys: &[u8],
        queries: &[i8],
        query_sums: impl Iterator<Item = i32>,
        out: &mut [[i32; POSITIONS]],
    ) {
        let n = out.len();
        let width = keys.len() / POSITIONS;
        assert!((1..=QUERY_ROWS).contains(&n) && width.is_multiple_of(4));
        assert!(keys.len() == width * POSITIONS && queries.len() == n * width);
        for (out, sum) in out.iter_mut().zip(query_sums) {
            out[0] = -128 * sum; // the initial value of sums over keys as stored, which are 128 too large
        }
        match self.0.level() {
            Level::Scalar => scalar::scores(keys, queries, out),
            #[cfg(target_arch = "aarch64")]
            // The compiler uses NEON for the portable loops.
            Level::NeonDotprod => scalar::scores(keys, queries, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: either level proves AVX2; the lengths were checked above.
            Level::Avx2 | Level::AvxVnni => unsafe {
                match n {
                    1 => avx2::scores::<1>(keys, queries, out),
                    2 => avx2::scores::<2>(keys, queries, out),
                    3 => avx2::scores::<3>(keys, queries, out),
                    _ => avx2::scores::<4>(keys, queries, out),
                }
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level proves AVX-512 with VNNI; the lengths were checked above.
            Level::Avx512 => unsafe {
                match n {
                    1 => avx512::scores::<1>(keys, queries, out),
                    2 => avx512::scores::<2>(keys, queries, out),
                    3 => avx512::scores::<3>(keys, queries, out),
                    _ => avx512::scores::<4>(keys, queries, out),
                }
            },
        }
    }

    /// out `[R, width]` = Σ over positions of weight · value. Values are `[64/4][width][4]`, width a multiple of 16; R
    /// is at most [`QUERY_ROWS`].
    pub(crate) fn weighted(self, values: &[i8], weights: &[[u8; POSITIONS]], out: &mut [i32]) {
        let n = weights.len();
        let width = values.len() / POSITIONS;
        assert!((1..=QUERY_ROWS).contains(&n) && width.is_multiple_of(16));
        assert!(values.len() == width * POSITIONS && out.len() == n * width);
        match self.0.level() {
            Level::Scalar => scalar::weighted(values, weights, out),
            #[cfg(target_arch = "aarch64")]
            // The compiler uses NEON for the portable loops.
            Level::NeonDotprod => scalar::weighted(values, weights, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: either level proves AVX2; the lengths were checked above.
            Level::Avx2 | Level::AvxVnni => unsafe {
                match n {
                    1 => avx2::weighted::<1>(values, weights, out),
                    2 => avx2::weighted::<2>(values, weights, out),
                    3 => avx2::weighted::<3>(values, weights, out),
                    _ => avx2::weighted::<4>(values, weights, out),
                }
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level proves AVX-512 with VNNI; the lengths were checked above.
            Level::Avx512 => unsafe {
                match n {
                    1 => avx512::weighted::<1>(values, weights, out),
                    2 => avx512::weighted::<2>(values, weights, out),
                    3 => avx512::weighted::<3>(values, weights, out),
                    _ => avx512::weighted::<4>(values, weights, out),
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_routine_equals_the_reference_sums_at_every_width_and_when_saturated() {
        for width in [16, 32, 48, 64, 80, 96, 112, 128, 144] {
            for n in 1..=QUERY_ROWS {
                for saturated in [false, true] {
                    let byte = |i: usize, salt: usize| {
                        let pseudo = (i * 2_654_435_761 + salt * 97) >> 7;
                        if saturated { [127, -127][pseudo % 7 / 6] } else { (pseudo % 255) as i32 - 127 }
                    };
                    let keys: Vec<u8> = (0..width * POSITIONS).map(|i| (byte(i, 1) + 128) as u8).collect();
                    let values: Vec<i8> = (0..width * POSITIONS).map(|i| byte(i, 2) as i8).collect();
                    let queries: Vec<i8> = (0..n * width).map(|i| byte(i, 3) as i8).collect();
                    let weights: Vec<[u8; POSITIONS]> =
                        (0..n).map(|row| std::array::from_fn(|i| (byte(row * POSITIONS + i, 4) + 128) as u8)).collect();
                    let key = |t: usize, d: usize| i32::from(keys[d / 4 * 256 + t * 4 + d % 4]) - 128;
                    let value = |t: usize, d: usize| i32::from(values[t / 4 * width * 4 + d * 4 + t % 4]);
                    for isa in Isa::available() {
                        let dots = Dots::of(isa);
                        let mut scores = vec![[i32::MIN; POSITIONS]; n];
                        let sums = queries.chunks(width).map(|q| q.iter().map(|q| i32::from(*q)).sum());
                        dots.scores(&keys, &queries, sums, &mut scores);
                        let mut weighted = vec![i32::MIN; n * width];
                        dots.weighted(&values, &weights, &mut weighted);
                        for row in 0..n {
                            for t in 0..POSITIONS {
                                let sum: i32 =
                                    (0..width).map(|d| i32::from(queries[row * width + d]) * key(t, d)).sum();
                                assert_eq!(scores[row][t], sum, "{} {width} × {n}", isa.name());
                            }
                            for d in 0..width {
                                let sum: i32 = (0..POSITIONS).map(|t| i32::from(weights[row][t]) * value(t, d)).sum();
                                assert_eq!(weighted[row * width + d], sum, "{} {width} × {n}", isa.name());
                            }
                        }
                    }
                }
            }
        }
    }
}
