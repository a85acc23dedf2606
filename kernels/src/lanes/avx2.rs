//! Sixteen f32 in two AVX2 registers.

use std::arch::x86_64::*;

use super::{EXPONENT, F32x16, LANES, sum_i8};

/// Two AVX2 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

// SAFETY: the trait's contract: called only where AVX2 and FMA are. Loads and stores are unaligned and within the
// arrays.
unsafe impl F32x16 for Avx2 {
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
