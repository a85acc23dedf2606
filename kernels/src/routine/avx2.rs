//! AVX2 without VNNI: `vpmaddubsw` multiplies 8 rows × 4 columns into 16-bit pairs.
//!
//! ```text
//! s0 = s2 = −Σx,  s1 = s3 = −4 Σx                         the codes are trit + 1: Σx is taken off in advance
//! for run of up to 16 steps (64 columns), for half (8 of a plane's 16 rows):
//!     for step:  w = 32 bytes, v = w >> 4
//!         p0 += pairs(w & 3, x4)    p1 += pairs(w & 12, x4)    p2 += pairs(v & 3, x4)    p3 += pairs(v & 12, x4)
//!     s0 … s3 += p0 … p3, pairwise
//! y = S · scale                                           s1 and s3 are 4 times too large, their scales 4 times smaller
//! ```
//!
//! One shift serves four planes.
//!
//! Numeric hazard: the Ps are 16-bit. A pair of plane 1 or 3 is at most 2 · 8 · 127 = 2,032, as rows hold no −128; 16 steps
//! make 32,512, the last multiple below 2^15. Longer runs would be wrong on saturated input.

use std::arch::x86_64::*;

use super::{Output, Product, SCALE_BYTES};

/// Steps of 4 columns before the 16-bit sums are added to the 32-bit ones.
const RUN: usize = 16;

/// What the sums of the planes count by, and what they start at for Σx = −1.
pub(super) const UNITS: [i32; 4] = [1, 4, 1, 4];

/// # Safety
/// The CPU has AVX2, and the rest is as `Routine::run` checks it.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn ternary(product: &Product<'_>, out: Output) {
    let n_rows = product.n_rows();
    for superblock in 0..product.n_superblocks() {
        let mut row = 0;
        while row < n_rows {
            // SAFETY: the caller's promise; these rows and this superblock exist. Two rows are 8 accumulators, what 16
            // registers hold beside codes, masks and x.
            unsafe {
                if row + 2 <= n_rows {
                    tile::<2, 1>(product, superblock, row, out);
                } else {
                    tile::<1, 2>(product, superblock, row, out);
                }
            }
            row += 2;
        }
    }
}

/// `N` rows of x from `first` times one superblock, with `U` steps at once.
///
/// # Safety
/// As [`ternary`]; `first + N` rows and the superblock exist, and U divides 4.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const N: usize, const U: usize>(product: &Product<'_>, superblock: usize, first: usize, out: Output) {
    let &Product { n_groups, stride, .. } = product;
    let steps_per_group = stride / 4 / n_groups;
    let (low, high) = (_mm256_set1_epi8(3), _mm256_set1_epi8(12));
    let ones = _mm256_set1_epi16(1);
    // SAFETY: the superblock and the rows exist.
    let (mut codes, mut x) = unsafe {
        (
            product.superblocks.as_ptr().add(superblock * product.superblock_len()),
            product.x.as_ptr().add(first * stride),
        )
    };
    let mut total = [[[_mm256_setzero_ps(); 4]; 2]; N]; // [row][half][plane]
    for group in 0..n_groups {
        let mut sums = [[[_mm256_setzero_si256(); 4]; 2]; N];
        for row in 0..N {
            // SAFETY: this row has starts for this group.
            let starts = unsafe { product.starts.get_unchecked((first + row) * n_groups + group) };
            sums[row] = [starts.map(|start| _mm256_set1_epi32(start)); 2];
        }
        let mut n_left = steps_per_group;
        while n_left > 0 {
            let n_steps = n_left.min(RUN);
            for half in 0..2 {
                let mut acc = [[_mm256_setzero_si256(); 4]; N]; // [row][plane]
                for step in (0..n_steps).step_by(U) {
                    let mut pairs = [[_mm256_setzero_si256(); 4]; N]; // [row][plane]
                    for u in 0..U {
                        // SAFETY: `codes` has 64 bytes for each step of each group, each row of x 4. A prefetch never
                        // faults.
                        unsafe {
                            let codes = codes.add((step + u) * 64);
                            if N == 1 && half == 0 {
                                _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH).cast());
                            }
                            let w = _mm256_loadu_si256(codes.add(half * 32).cast());
                            let v = _mm256_srli_epi16::<4>(w);
                            let planes = [
                                _mm256_and_si256(w, low),
                                _mm256_and_si256(w, high),
                                _mm256_and_si256(v, low),
                                _mm256_and_si256(v, high),
                            ];
                            for row in 0..N {
                                let x4 = x.add(row * stride + (step + u) * 4).cast::<i32>().read_unaligned();
                                let x4 = _mm256_set1_epi32(x4);
                                for plane in 0..4 {
                                    let product = _mm256_maddubs_epi16(planes[plane], x4);
                                    pairs[row][plane] =
                                        if u == 0 { product } else { _mm256_add_epi16(pairs[row][plane], product) };
                                }
                            }
                        }
                    }
                    for row in 0..N {
                        for plane in 0..4 {
                            acc[row][plane] = _mm256_add_epi16(acc[row][plane], pairs[row][plane]);
                        }
                    }
                }
                for row in 0..N {
                    for plane in 0..4 {
                        let wide = _mm256_madd_epi16(acc[row][plane], ones);
                        sums[row][half][plane] = _mm256_add_epi32(sums[row][half][plane], wide);
                    }
                }
            }
            n_left -= n_steps;
            // SAFETY: both stay within, or one past, their slices.
            unsafe {
                codes = codes.add(n_steps * 64);
                x = x.add(n_steps * 4);
            }
        }
        // The scales stand behind the codes.
        let scales = codes.cast::<f32>();
        for row in 0..N {
            for half in 0..2 {
                for plane in 0..4 {
                    // SAFETY: the group has 64 scales.
                    let scale = unsafe { _mm256_loadu_ps(scales.add(plane * 16 + half * 8)) };
                    let part = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[row][half][plane]), scale);
                    total[row][half][plane] = _mm256_add_ps(total[row][half][plane], part);
                }
            }
        }
        // SAFETY: stays within, or one past, the slice.
        codes = unsafe { codes.add(SCALE_BYTES) };
    }
    for row in 0..N {
        // SAFETY: this row has a scale, and `out` 64 places for this row and superblock.
        unsafe {
            let row_scale = *product.row_scales.get_unchecked(first + row);
            let y = out.start.add((first + row) * out.stride + superblock * 64);
            for half in 0..2 {
                store(&total[row][half], row_scale, y.add(half * 8), out.add);
            }
        }
    }
}

/// y ← total · row scale, or += that, for the 8 rows of each plane that one half holds.
///
/// # Safety
/// The CPU has AVX2, and y is 56 numbers long or more.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn store(total: &[__m256; 4], row_scale: f32, y: *mut f32, add: bool) {
    let row_scale = _mm256_set1_ps(row_scale);
    for plane in 0..4 {
        let mut value = _mm256_mul_ps(total[plane], row_scale);
        // SAFETY: the caller's promise.
        unsafe {
            let y = y.add(plane * 16);
            if add {
                value = _mm256_add_ps(_mm256_loadu_ps(y), value);
            }
            _mm256_storeu_ps(y, value);
        }
    }
}

/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply_registers(n_steps: usize) -> usize {
    let w = std::hint::black_box(_mm256_set1_epi8(3));
    let x = std::hint::black_box(_mm256_set1_epi8(5));
    let mut acc = [_mm256_setzero_si256(); 12];
    for _ in 0..n_steps {
        for (i, acc) in acc.iter_mut().enumerate() {
            // Another operand each time, or the compiler would multiply once.
            let pairs = _mm256_maddubs_epi16(if i % 2 == 0 { w } else { *acc }, x);
            *acc = _mm256_add_epi16(*acc, pairs);
        }
    }
    std::hint::black_box(acc);
    n_steps * 12 * 32 * 2
}

/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn read(bytes: &[u8]) -> u64 {
    let mut acc = [_mm256_setzero_si256(); 8];
    for chunk in bytes.chunks_exact(256) {
        for (acc, line) in acc.iter_mut().zip(chunk.chunks_exact(32)) {
            // SAFETY: `line` is as long as the register. A prefetch never faults.
            *acc = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH).cast());
                _mm256_xor_si256(*acc, _mm256_loadu_si256(line.as_ptr().cast()))
            };
        }
    }
    let mut words = [0u64; 32];
    for (words, acc) in words.chunks_exact_mut(4).zip(acc) {
        // SAFETY: `words` is as long as the register.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), acc) };
    }
    words.iter().fold(0, |sum, word| sum ^ word)
}

/// Bytes ahead of the codes in use.
const PREFETCH: usize = 8192;

/// Both sides are signed here, so they are widened to 16 bits first: `vpmaddubsw` would saturate.
///
/// # Safety
/// The CPU has AVX2, and the lengths are as `dense` in the module above checks them.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn dense(weights: &[i8], x: &[i8], out: &mut [i32; 64]) {
    for part in 0..4 {
        let mut acc = [_mm256_setzero_si256(); 4]; // four rows each: sums of columns 0, 1 and of columns 2, 3
        for (step, x4) in x.chunks_exact(4).enumerate() {
            let x4 = x4.iter().rev().fold(0i64, |wide, x| wide << 16 | i64::from(i16::from(*x) as u16));
            let x4 = _mm256_set1_epi64x(x4);
            for quad in 0..4 {
                // SAFETY: `weights` has 256 bytes for every 4 of x.
                let w = unsafe { weights.as_ptr().add(step * 256 + part * 64 + quad * 16) };
                // SAFETY: as above.
                let w = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(w.cast()) });
                acc[quad] = _mm256_add_epi32(acc[quad], _mm256_madd_epi16(w, x4));
            }
        }
        for quad in 0..4 {
            let mut pairs = [0i32; 8];
            // SAFETY: `pairs` has the register's size.
            unsafe { _mm256_storeu_si256(pairs.as_mut_ptr().cast(), acc[quad]) };
            for row in 0..4 {
                out[part * 16 + quad * 4 + row] = pairs[2 * row] + pairs[2 * row + 1];
            }
        }
    }
}
