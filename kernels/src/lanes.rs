//! Sixteen f32 as one value: the unit of every floating-point loop that sums.
//!
//! A loop over sixteen-wide values is written once, generic over [`F32x16`], and compiled for each instruction set by
//! `compiled_per_isa`. Lanes never mix except in [`sum`], whose order is fixed, and `mul_add` rounds once everywhere:
//! all instruction sets agree bit for bit.

mod portable;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// The number of lanes of a value.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 in the registers of one instruction set.
///
/// # Safety
/// The methods of an implementation may be called only where its instruction set is available: only
/// `compiled_per_isa` names implementations.
pub(crate) unsafe trait F32x16: Copy {
    /// Whether one register holds all lanes and there are 32 of them: a tile of a gemm then has twice the rows.
    const HAS_32_REGISTERS: bool = false;

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
/// Added to the bits of n + ROUND, gives the exponent of 2^n before it is shifted into place.
const EXPONENT: i32 = 127i32.wrapping_sub(ROUND.to_bits() as i32);

/// The first `n` lanes hold the first `n` numbers, the others `rest`.
#[inline(always)]
pub(crate) fn load_padded<V: F32x16>(x: &[f32], rest: f32) -> V {
    let mut lanes = [rest; LANES];
    lanes[..x.len()].copy_from_slice(x);
    V::load(&lanes)
}

/// As [`crate::vector::exp`], bit for bit.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub(crate) fn exp<V: F32x16>(x: V) -> V {
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
pub(crate) fn exp2<V: F32x16>(x: V) -> V {
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
pub(crate) fn first_lanes(x: &[f32]) -> &[f32; LANES] {
    x.first_chunk().expect("at least sixteen numbers")
}

/// The first sixteen numbers.
#[inline(always)]
pub(crate) fn first_lanes_mut(x: &mut [f32]) -> &mut [f32; LANES] {
    x.first_chunk_mut().expect("at least sixteen numbers")
}

/// Adds lanes pairwise, in one order everywhere.
#[inline(always)]
pub(crate) fn sum(x: impl F32x16) -> f32 {
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

/// Sixteen columns of a row, or what is left at its end.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    pub(crate) from: usize,
    len: usize,
}

impl Chunk {
    /// Loads the columns of `x`; those past the end are 0.
    #[inline(always)]
    pub(crate) fn load<V: F32x16>(self, x: &[f32]) -> V {
        match x[self.from..].first_chunk() {
            Some(whole) if self.len == LANES => V::load(whole),
            _ => load_padded(&x[self.from..][..self.len], 0.0),
        }
    }

    /// Writes the columns that exist.
    #[inline(always)]
    pub(crate) fn store<V: F32x16>(self, x: V, out: &mut [f32]) {
        match out[self.from..].first_chunk_mut() {
            Some(whole) if self.len == LANES => x.store(whole),
            _ => {
                let mut lanes = [0.0; LANES];
                x.store(&mut lanes);
                out[self.from..][..self.len].copy_from_slice(&lanes[..self.len]);
            }
        }
    }
}

/// Calls `body` for the chunks of a row, in order. A body is `#[inline(always)]`: called, it could not use the
/// registers of the instruction set that it is compiled for.
#[inline(always)]
pub(crate) fn for_each_chunk<V: F32x16>(len: usize, mut body: impl FnMut(Chunk)) {
    for from in (0..len / LANES * LANES).step_by(LANES) {
        body(Chunk { from, len: LANES });
    }
    if !len.is_multiple_of(LANES) {
        body(Chunk { from: len / LANES * LANES, len: len % LANES });
    }
}

/// 1 / √(mean x² + eps), summed over fixed lanes.
#[inline(always)]
pub(crate) fn inverse_rms<V: F32x16>(x: &[f32], eps: f32) -> f32 {
    let mut squares = V::splat(0.0);
    for_each_chunk::<V>(
        x.len(),
        #[inline(always)]
        |chunk| {
            let x = chunk.load::<V>(x);
            squares = x.mul_add(x, squares);
        },
    );
    inverse_root(sum(squares), x.len(), eps)
}

/// 1 / √(squares / len + eps), where `squares` is a sum of `len` squares.
#[inline(always)]
pub(crate) fn inverse_root(squares: f32, len: usize, eps: f32) -> f32 {
    1.0 / (squares / len as f32 + eps).sqrt()
}

/// The sum of sixteen signed bytes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sum_i8(bytes: std::arch::x86_64::__m128i) -> i32 {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        // The instruction sums unsigned bytes: each is 128 too large.
        let halves = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128());
        _mm_cvtsi128_si32(_mm_add_epi32(halves, _mm_unpackhi_epi64(halves, halves))) - 16 * 128
    }
}
