//! Small float routines over fixed lanes, the same on every instruction set.

use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::{self, F32x16, LANES, ROUND, first_lanes, first_lanes_mut, load_padded, sum};

#[inline(always)]
fn dot_body<V: F32x16>(x: &[f32], y: &[f32]) -> f32 {
    let n_whole = x.len() / LANES * LANES;
    let mut tail = [[0.0f32; LANES]; 2];
    for (tail, rest) in tail.iter_mut().zip([&x[n_whole..], &y[n_whole..]]) {
        tail[..rest.len()].copy_from_slice(rest);
    }
    let mut acc = V::load(&tail[0]).mul(V::load(&tail[1]));
    for (x, y) in x.chunks_exact(LANES).zip(y.chunks_exact(LANES)) {
        acc = V::load(first_lanes(x)).mul_add(V::load(first_lanes(y)), acc);
    }
    sum(acc)
}

compiled_per_isa! {
    /// The dot product Σ x·y.
    pub fn dot<V>(x: &[f32], y: &[f32]) -> f32 {
        dot_body::<V>(x, y)
    }
}

compiled_per_isa! {
    /// out `[rows]` = W `[rows, x.len()]` · x.
    pub fn matvec<V>(weights: &[f32], x: &[f32], out: &mut [f32]) {
        for (out, row) in out.iter_mut().zip(weights.chunks_exact(x.len())) {
            *out = dot_body::<V>(row, x);
        }
    }
}

compiled_per_isa! {
    /// 1 / √(mean x² + eps).
    pub fn inverse_rms<V>(x: &[f32], eps: f32) -> f32 {
        lanes::inverse_rms::<V>(x, eps)
    }
}

compiled_per_isa! {
    /// logits ← softmax(logits); returns log Σ exp(logits).
    pub fn softmax<V>(logits: &mut [f32]) -> f32 {
        softmax_body::<V>(logits)
    }
}

#[inline(always)]
pub(crate) fn softmax_body<V: F32x16>(logits: &mut [f32]) -> f32 {
    let n_whole = logits.len() / LANES * LANES;
    let mut top = load_padded::<V>(&logits[n_whole..], f32::NEG_INFINITY);
    for chunk in logits[..n_whole].chunks_exact(LANES) {
        top = V::load(first_lanes(chunk)).max(top);
    }
    let top = top.largest();
    let mut rest = [0.0; LANES];
    let tail = &mut logits[n_whole..];
    for (rest, x) in rest.iter_mut().zip(tail) {
        *x = exp(*x - top);
        *rest = *x;
    }
    let mut total = V::load(&rest);
    for chunk in logits[..n_whole].chunks_exact_mut(LANES) {
        let weights = lanes::exp(V::load(first_lanes(chunk)).add(V::splat(-top)));
        total = total.add(weights);
        weights.store(first_lanes_mut(chunk));
    }
    let total = sum(total);
    let inverse = 1.0 / total;
    for x in logits.iter_mut() {
        *x *= inverse;
    }
    top + total.ln()
}

/// e^x to 2 ulp within ±87; beyond, the value at the bound. Same bits on every machine.
///
/// x = n·ln 2 + r; e^r by a degree-6 polynomial (Cephes' `expf`); 2^n put into the exponent.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub fn exp(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 87.0 { x } else { 87.0 };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_375, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_15e-4f32;
    p = p.mul_add(r, 1.398_199_95e-3);
    p = p.mul_add(r, 8.333_451_9e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_55e-1);
    p = p.mul_add(r, 5.000_000_1e-1);
    let e = p.mul_add(r * r, r) + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    e * f32::from_bits(((exponent + 127) << 23) as u32)
}

/// 2^x to 2 ulp within ±126; beyond, the value at the bound. Same bits on every machine.
///
/// x = n + r; 2^r by a degree-6 polynomial (Cephes' `exp2f`); 2^n put into the exponent.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub fn exp2(x: f32) -> f32 {
    let x = if x > -126.0 { x } else { -126.0 };
    let x = if x < 126.0 { x } else { 126.0 };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let mut p = 1.535_336_188e-4f32;
    p = p.mul_add(r, 1.339_887_440e-3);
    p = p.mul_add(r, 9.618_437_357e-3);
    p = p.mul_add(r, 5.550_332_471e-2);
    p = p.mul_add(r, 2.402_264_791e-1);
    p = p.mul_add(r, 6.931_472_029e-1);
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    p.mul_add(r, 1.0) * f32::from_bits(((exponent + 127) << 23) as u32)
}

compiled_per_isa! {
    fn maximum<V>(x: &[f32]) -> f32 {
        let mut top = V::splat(f32::NEG_INFINITY);
        lanes::for_each_chunk::<V>(x.len() / LANES * LANES, #[inline(always)] |chunk| {
            top = chunk.load::<V>(x).max(top);
        });
        load_padded::<V>(&x[x.len() / LANES * LANES..], f32::NEG_INFINITY).max(top).largest()
    }
}

/// The index of the largest number, the first among equals; `None` if x holds no number.
pub fn argmax(isa: Isa, x: &[f32]) -> Option<usize> {
    let top = maximum(isa, x);
    x.iter().position(|x| *x == top)
}

#[cfg(test)]
mod tests {
    use super::*;

    compiled_per_isa! {
        fn exp_all<V>(x: &mut [f32]) {
            lanes::for_each_chunk::<V>(x.len(), #[inline(always)] |chunk| {
                let y = chunk.load::<V>(x);
                chunk.store(lanes::exp(y).add(lanes::exp2(y)), x);
            });
        }
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -870_000..=870_000 {
            let x = i as f32 * 1e-4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error <= 2.0 * f64::from(f32::EPSILON), "exp({x}): relative error {error}");
        }
    }

    #[test]
    fn exp2_is_within_two_ulp() {
        for i in -1_260_000..=1_260_000 {
            let x = i as f32 * 1e-4;
            let expected = f64::from(x).exp2();
            let error = (f64::from(exp2(x)) - expected).abs() / expected;
            assert!(error <= 2.0 * f64::from(f32::EPSILON), "exp2({x}): relative error {error}");
        }
        assert_eq!((exp2(0.0), exp2(f32::NEG_INFINITY)), (1.0, f32::MIN_POSITIVE));
    }

    #[test]
    fn the_first_of_the_largest_is_found_at_any_position() {
        for isa in Isa::available() {
            for n in [1, 2, 15, 16, 17, 33, 64] {
                for at in 0..n {
                    let mut x = vec![-1.0f32; n];
                    x[at..].iter_mut().step_by(3).for_each(|x| *x = -0.5);
                    assert_eq!(argmax(isa, &x), Some(at), "{} {n}", isa.name());
                    x[at] = f32::NAN;
                    assert_eq!(argmax(isa, &x).is_some_and(|i| i != at), n > 1, "a NaN is no number");
                }
            }
            assert_eq!((argmax(isa, &[]), argmax(isa, &[f32::NAN])), (None, None));
        }
    }

    #[test]
    fn all_instruction_sets_agree() {
        for n in [1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let results: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| {
                    let mut soft = x.clone();
                    let log_sum = softmax(isa, &mut soft);
                    soft.extend([log_sum, dot(isa, &x, &x), inverse_rms(isa, &x, 1e-6)]);
                    let mut powers = x.iter().map(|x| x * 100.0).collect::<Vec<_>>();
                    let expected: Vec<_> = powers.iter().map(|x| exp(*x) + exp2(*x)).collect();
                    exp_all(isa, &mut powers);
                    assert_eq!(powers, expected, "lane by lane as one by one");
                    soft.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                })
                .collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{n}");
        }
    }

    #[test]
    fn softmax_sums_to_one_and_returns_the_log_of_the_sum() {
        let mut x = vec![1.0f32, 2.0, -300.0, 5.0];
        let log_sum = softmax(Isa::best(), &mut x);
        assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((f64::from(log_sum) - (1f64.exp() + 2f64.exp() + 5f64.exp()).ln()).abs() < 1e-5);
    }
}
