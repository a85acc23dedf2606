//! Small float routines over fixed lanes, the same on every instruction set.

use crate::isa::compiled_per_isa;
use crate::lanes::{LANES, Lanes, head, sum, sum_array};

#[inline(always)]
fn dot_body<V: Lanes>(x: &[f32], y: &[f32]) -> f32 {
    let n_whole = x.len() / LANES * LANES;
    let mut tail = [[0.0f32; LANES]; 2];
    for (tail, rest) in tail.iter_mut().zip([&x[n_whole..], &y[n_whole..]]) {
        tail[..rest.len()].copy_from_slice(rest);
    }
    let mut acc = V::load(&tail[0]).mul(V::load(&tail[1]));
    for (x, y) in x.chunks_exact(LANES).zip(y.chunks_exact(LANES)) {
        acc = V::load(head(x)).mul_add(V::load(head(y)), acc);
    }
    sum(acc)
}

compiled_per_isa! {
    /// Σ x·y.
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
        crate::rows::inverse_rms::<V>(x, eps)
    }
}

compiled_per_isa! {
    /// logits ← softmax(logits); returns log Σ exp(logits).
    pub fn softmax<V>(logits: &mut [f32]) -> f32 {
        softmax_body(logits)
    }
}

#[inline(always)]
pub(crate) fn softmax_body(logits: &mut [f32]) -> f32 {
    let mut tops = [f32::NEG_INFINITY; LANES];
    let mut lanes = [0.0f32; LANES];
    for chunk in logits.chunks(LANES) {
        for (top, x) in tops.iter_mut().zip(chunk) {
            *top = if *x > *top { *x } else { *top };
        }
    }
    let top = tops.iter().fold(f32::NEG_INFINITY, |top, x| top.max(*x));
    for chunk in logits.chunks_mut(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - top);
            *lane += *x;
        }
    }
    let sum = sum_array(lanes);
    let inverse = 1.0 / sum;
    for x in logits.iter_mut() {
        *x *= inverse;
    }
    top + sum.ln()
}

/// e^x to 2 ulp within ±87; beyond, the value at the bound. Same bits on every machine.
///
/// x = n·ln 2 + r; e^r by a degree-6 polynomial (Cephes' `expf`); 2^n put into the exponent.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³, see `rows::ROUND`
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

/// x · σ(x).
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

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
    fn all_instruction_sets_agree() {
        for n in [1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let results: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| {
                    let mut soft = x.clone();
                    let log_sum = softmax(isa, &mut soft);
                    soft.extend([log_sum, dot(isa, &x, &x), inverse_rms(isa, &x, 1e-6)]);
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
