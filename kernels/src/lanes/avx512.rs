//! Sixteen f32 in one AVX-512 register.

use std::arch::x86_64::*;

use super::{EXPONENT, F32x16, LANES, sum_i8};

/// One AVX-512 register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY: the trait's contract: called only where AVX-512 F is. Loads and stores are unaligned and within the arrays.
unsafe impl F32x16 for Avx512 {
    const HAS_32_REGISTERS: bool = true;

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
