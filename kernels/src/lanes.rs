//! Sixteen f32 side by side: the unit of every floating-point loop that sums.
//!
//! A loop over sixteen-wide values is written once, generic over [`Lanes`], and compiled for each instruction set by
//! `compiled_per_isa`. Lanes never mix except in [`sum`], whose order is fixed, and `mul_add` rounds once everywhere:
//! all instruction sets agree bit for bit.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Lanes of a value.
pub(crate) const LANES: usize = 16;

/// Sixteen f32.
///
/// # Safety
/// The methods of an implementation may be called only where its instruction set is available: only
/// `compiled_per_isa` names implementations.
pub(crate) unsafe trait Lanes: Copy {
    /// One register holds all lanes, and there are thirty-two of them: a tile of a product has twice the rows.
    const TALL: bool = false;

    fn splat(x: f32) -> Self;
    fn load(x: &[f32; LANES]) -> Self;
    fn store(self, out: &mut [f32; LANES]);
    /// Whole numbers, rounded to nearest.
    fn from_i32(x: &[i32; LANES]) -> Self;
    /// self · b + c, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn add(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// The larger of each pair; b where one is not a number.
    fn max(self, b: Self) -> Self;
    /// The smaller of each pair; b where one is not a number.
    fn min(self, b: Self) -> Self;
    fn abs(self) -> Self;
    /// The largest lane.
    fn largest(self) -> f32;
    /// 2^n for lanes that hold n + [`ROUND`], n a whole number within ±126.
    fn power_of_two(self) -> Self;
    /// Rounds half to even and stores; returns the sum of what was stored. Lanes are within ±127.
    fn store_i8(self, out: &mut [i8; LANES]) -> i32;
    /// Rounds half to even and stores. Lanes are within 0..=255.
    fn store_u8(self, out: &mut [u8; LANES]);
}

/// 1.5 · 2²³: adding it leaves a number below 2²² rounded half to even in the low bits of the sum.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// What turns the bits of n + ROUND into the exponent of 2^n, before it is shifted into place.
const EXPONENT: i32 = 127i32.wrapping_sub(ROUND.to_bits() as i32);

/// The first `n` lanes hold the first `n` numbers, the others `rest`.
#[inline(always)]
pub(crate) fn load_part<V: Lanes>(x: &[f32], rest: f32) -> V {
    let mut lanes = [rest; LANES];
    lanes[..x.len()].copy_from_slice(x);
    V::load(&lanes)
}

/// As [`crate::vector::exp`], bit for bit.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub(crate) fn exp<V: Lanes>(x: V) -> V {
    let x = x.max(V::splat(-87.0)).min(V::splat(87.0));
    let shifted = x.mul_add(V::splat(std::f32::consts::LOG2_E), V::splat(ROUND));
    let n = shifted.add(V::splat(-ROUND));
    let r = n.mul_add(V::splat(-0.693_359_375), x);
    let r = n.mul_add(V::splat(2.121_944_4e-4), r);
    let p = V::splat(1.987_569_15e-4).mul_add(r, V::splat(1.398_199_95e-3));
    let p = p.mul_add(r, V::splat(8.333_451_9e-3));
    let p = p.mul_add(r, V::splat(4.166_579_6e-2));
    let p = p.mul_add(r, V::splat(1.666_666_55e-1));
    let p = p.mul_add(r, V::splat(5.000_000_1e-1));
    // e^r = 1 + r + r²·p
    let e = p.mul_add(r.mul(r), r).add(V::splat(1.0));
    e.mul(shifted.power_of_two())
}

/// As [`crate::vector::exp2`], bit for bit.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub(crate) fn exp2<V: Lanes>(x: V) -> V {
    let x = x.max(V::splat(-126.0)).min(V::splat(126.0));
    let shifted = x.add(V::splat(ROUND));
    let r = x.add(shifted.add(V::splat(-ROUND)).mul(V::splat(-1.0)));
    let p = V::splat(1.535_336_188e-4).mul_add(r, V::splat(1.339_887_440e-3));
    let p = p.mul_add(r, V::splat(9.618_437_357e-3));
    let p = p.mul_add(r, V::splat(5.550_332_471e-2));
    let p = p.mul_add(r, V::splat(2.402_264_791e-1));
    let p = p.mul_add(r, V::splat(6.931_472_029e-1));
    p.mul_add(r, V::splat(1.0)).mul(shifted.power_of_two())
}

/// The first sixteen numbers.
#[inline(always)]
pub(crate) fn head(x: &[f32]) -> &[f32; LANES] {
    x.first_chunk().expect("at least sixteen numbers")
}

/// The first sixteen numbers.
#[inline(always)]
pub(crate) fn head_mut(x: &mut [f32]) -> &mut [f32; LANES] {
    x.first_chunk_mut().expect("at least sixteen numbers")
}

/// Adds lanes pairwise, in one order everywhere.
#[inline(always)]
pub(crate) fn sum(x: impl Lanes) -> f32 {
    let mut lanes = [0.0; LANES];
    x.store(&mut lanes);
    sum_array(lanes)
}

/// As [`sum`].
#[inline(always)]
pub(crate) fn sum_array(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

// SAFETY: needs no instruction set.
unsafe impl Lanes for Plain {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        *out = self.0;
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].mul_add(b.0[lane], c.0[lane])))
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * b.0[lane]))
    }

    #[inline(always)]
    fn from_i32(x: &[i32; LANES]) -> Self {
        Self(x.map(|x| x as f32))
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + b.0[lane]))
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] / b.0[lane]))
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] > b.0[lane] { self.0[lane] } else { b.0[lane] }))
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] < b.0[lane] { self.0[lane] } else { b.0[lane] }))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        Self(self.0.map(|x| f32::from_bits(((x.to_bits() as i32).wrapping_add(EXPONENT) << 23) as u32)))
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; LANES]) -> i32 {
        *out = self.0.map(|x| (x + ROUND).to_bits() as i8);
        out.iter().map(|x| i32::from(*x)).sum()
    }

    #[inline(always)]
    fn store_u8(self, out: &mut [u8; LANES]) {
        *out = self.0.map(|x| (x + ROUND).to_bits() as u8);
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.iter().fold(f32::NEG_INFINITY, |top, x| if *x > top { *x } else { top })
    }
}

/// Two AVX2 registers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

#[cfg(target_arch = "x86_64")]
// SAFETY: the trait's contract: called only where AVX2 and FMA are. Loads and stores are unaligned and within the arrays.
unsafe impl Lanes for Avx2 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        // SAFETY: as stated at the implementation.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), self.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn from_i32(x: &[i32; LANES]) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe {
            let half = |i: usize| _mm256_cvtepi32_ps(_mm256_loadu_si256(x.as_ptr().add(i).cast()));
            Self(half(0), half(8))
        }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Self(_mm256_andnot_ps(sign, self.0), _mm256_andnot_ps(sign, self.1))
        }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe {
            let power = |x| {
                let exponent = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(EXPONENT));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            };
            Self(power(self.0), power(self.1))
        }
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; LANES]) -> i32 {
        // SAFETY: as stated at the implementation.
        unsafe {
            let words = self.words();
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
            sum_i8(bytes)
        }
    }

    #[inline(always)]
    fn store_u8(self, out: &mut [u8; LANES]) {
        // SAFETY: as stated at the implementation.
        unsafe {
            let words = self.words();
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as stated at the implementation.
        unsafe {
            let x = _mm256_max_ps(self.0, self.1);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
}

/// One AVX-512 register.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
// SAFETY: the trait's contract: called only where AVX-512 F is. Loads and stores are unaligned and within the arrays.
unsafe impl Lanes for Avx512 {
    const TALL: bool = true;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_loadu_ps(x.as_ptr())) }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        // SAFETY: as stated at the implementation.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_mul_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn from_i32(x: &[i32; LANES]) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_loadu_si512(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_add_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_div_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_max_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_min_ps(self.0, b.0)) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe { Self(_mm512_abs_ps(self.0)) }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: as stated at the implementation.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(EXPONENT));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; LANES]) -> i32 {
        // SAFETY: as stated at the implementation.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
            sum_i8(bytes)
        }
    }

    #[inline(always)]
    fn store_u8(self, out: &mut [u8; LANES]) {
        // SAFETY: as stated at the implementation.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as stated at the implementation.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Rounded to sixteen 16-bit numbers, in order.
    ///
    /// # Safety
    /// AVX2 is available.
    #[inline(always)]
    unsafe fn words(self) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            // Packing works within 128 bits: put the middle quarters back in order.
            _mm256_permute4x64_epi64::<0b11_01_10_00>(words)
        }
    }
}

/// The sum of sixteen signed bytes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sum_i8(bytes: __m128i) -> i32 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        // The instruction sums unsigned bytes: each is 128 too large.
        let halves = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128());
        _mm_cvtsi128_si32(_mm_add_epi32(halves, _mm_unpackhi_epi64(halves, halves))) - 16 * 128
    }
}
