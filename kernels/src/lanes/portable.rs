//! Portable Rust: what the other implementations must equal.

use super::{EXPONENT, F32x16, LANES, ROUND};

/// An array, left to the compiler to vectorise.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

// SAFETY: needs no instruction set.
unsafe impl F32x16 for Portable {
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
