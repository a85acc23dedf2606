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
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; LANES]) -> Self;
    fn store(self, out: &mut [f32; LANES]);
    /// self · b + c, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn mul(self, b: Self) -> Self;
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
}

/// One AVX-512 register.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
// SAFETY: the trait's contract: called only where AVX-512 F is. Loads and stores are unaligned and within the arrays.
unsafe impl Lanes for Avx512 {
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
}
