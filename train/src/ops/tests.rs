//! Gradients against central differences of slow f64 references.
//!
//! Rounding has no useful derivative, so each reference is the function whose gradient the straight-through
//! rule states: x and gains see the unrounded path with the rounded weights fixed, weights see the rounded
//! activations. The differences are exact to about h² = 1e-8; what remains is f32 in the operation, relative
//! 2⁻²⁴ per sum of up to 64 terms, so 1e-4 of the largest gradient is allowed.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use nanochat_engine::rng::Rng;
use nanochat_kernels::{Activation, Int8Rows, Isa, Norm, Pool, ScaleGroup, Write};

use super::Scratch;
use super::attention::{Attention, AttentionOp};
use super::embed::Embed;
use super::glu::Glu;
use super::head::{CrossEntropy, HeadTargets, Int8Head};
use super::linear::{NormLinear, TernaryStack};
use crate::data::batch::NO_TARGET;

const EPS: f32 = 1e-5;

fn normals(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn var(values: &[f32], shape: &[usize]) -> Var {
    Var::from_vec(values.to_vec(), shape, &Device::Cpu).expect("the shape fits")
}

/// Σ weights ∘ y, so that each output's gradient is another number.
fn weighted(y: &Tensor, weights: &[f32]) -> Tensor {
    let weights = Tensor::from_vec(weights.to_vec(), y.dims(), &Device::Cpu).expect("the shape fits");
    (y * weights).and_then(|t| t.sum_all()).expect("shapes agree")
}

fn gradient(loss: &Tensor, var: &Var) -> Vec<f32> {
    let store = loss.backward().expect("every operation has a backward pass");
    let gradient = store.get(var).expect("the variable was used");
    gradient.flatten_all().and_then(|g| g.to_vec1()).expect("f32")
}

fn assert_gradient(what: &str, found: &[f32], at: &[f32], f: impl Fn(&[f64]) -> f64) {
    const H: f64 = 1e-4;
    let mut at = wide(at);
    let expected: Vec<f64> = (0..at.len())
        .map(|i| {
            let x = at[i];
            at[i] = x + H;
            let above = f(&at);
            at[i] = x - H;
            let below = f(&at);
            at[i] = x;
            (above - below) / (2.0 * H)
        })
        .collect();
    let largest = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
    assert!(largest > 1e-3, "{what}: the reference has no gradient to compare with");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() <= 1e-4 * largest, "{what}[{i}]: {found}, expected {expected}");
    }
}

fn rms_norm(x: &[f64], gain: &[f64]) -> Vec<f64> {
    let d = gain.len();
    x.chunks_exact(d)
        .flat_map(|row| {
            let inv = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / d as f64 + f64::from(EPS)).sqrt();
            row.iter().zip(gain).map(move |(x, g)| x * inv * g).collect::<Vec<_>>()
        })
        .collect()
}

/// a `[N, k]` · wᵀ `[rows, k]`.
fn product(a: &[f64], w: &[f64], k: usize) -> Vec<f64> {
    let dot = |a: &[f64], w: &[f64]| a.iter().zip(w).map(|(a, w)| a * w).sum::<f64>();
    a.chunks_exact(k).flat_map(|a| w.chunks_exact(k).map(move |w| dot(a, w)).collect::<Vec<_>>()).collect()
}

fn dot(y: &[f64], weights: &[f32]) -> f64 {
    y.iter().zip(weights).map(|(y, w)| y * f64::from(*w)).sum()
}

/// The rounded activations as the operation uses them.
fn rounded(x: &[f32], gain: &[f32]) -> Vec<f64> {
    let mut q = Int8Rows::new(gain.len());
    q.rms_norm(Isa::SCALAR, &Pool::new(1), x, Norm { gain, eps: EPS });
    let row = |row_idx: usize| q.row(row_idx).iter().map(move |v| f64::from(*v)).collect::<Vec<_>>();
    (0..q.n_rows()).flat_map(|i| row(i).into_iter().map(|v| v * f64::from(q.scales()[i])).collect::<Vec<_>>()).collect()
}

#[test]
fn norm_linear_has_the_straight_through_gradient() {
    let (n, k, parts) = (5, 32, [7usize, 3]);
    let rows: usize = parts.iter().sum();
    for group in [ScaleGroup::Matrix, ScaleGroup::Row, ScaleGroup::Columns(16)] {
        let mut rng = Rng::new(11);
        let (x, gain, w) = (normals(&mut rng, n * k), normals(&mut rng, k), normals(&mut rng, rows * k));
        let c = normals(&mut rng, n * rows);
        let stack = Arc::new(TernaryStack::quantize(&w, &parts, k, group, nanochat_kernels::Precision::F32));
        let mut fixed = vec![0.0; rows * k];
        let mut at = 0;
        for part in &stack.parts {
            part.dequantize_into(&mut fixed[at..at + part.trits().len()]);
            at += part.trits().len();
        }
        let fixed = wide(&fixed);
        let (vx, vg, vw) = (var(&x, &[n, k]), var(&gain, &[k]), var(&w, &[rows, k]));
        let y = vx.apply_op3(&vg, &vw, NormLinear::new(stack, EPS)).expect("shapes agree");

        let values: Vec<f32> = y.flatten_all().and_then(|y| y.to_vec1()).expect("f32");
        for (found, expected) in values.iter().zip(product(&rounded(&x, &gain), &fixed, k)) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{group:?}: {found}, expected {expected}");
        }
        let loss = weighted(&y, &c);
        assert_gradient("x", &gradient(&loss, &vx), &x, |x| dot(&product(&rms_norm(x, &wide(&gain)), &fixed, k), &c));
        assert_gradient("gain", &gradient(&loss, &vg), &gain, |g| {
            dot(&product(&rms_norm(&wide(&x), g), &fixed, k), &c)
        });
        assert_gradient("weights", &gradient(&loss, &vw), &w, |w| dot(&product(&rounded(&x, &gain), w, k), &c));
    }
}

#[test]
fn gated_units_have_their_gradients() {
    let (n, ff) = (3, 19);
    let mut rng = Rng::new(5);
    let (x, c) = (normals(&mut rng, n * 2 * ff), normals(&mut rng, n * ff));
    for activation in [Activation::Silu, Activation::Relu2] {
        let f = |x: f64| match activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Relu2 => x.max(0.0).powi(2),
        };
        let v = var(&x, &[n, 2 * ff]);
        let loss = weighted(&v.apply_op1(Glu(activation)).expect("shapes agree"), &c);
        assert_gradient(&format!("{activation:?}"), &gradient(&loss, &v), &x, |x| {
            let m: Vec<f64> = x
                .chunks_exact(2 * ff)
                .flat_map(|row| (0..ff).map(|i| f(row[i]) * row[ff + i]).collect::<Vec<_>>())
                .collect();
            dot(&m, &c)
        });
    }
}

#[test]
fn attention_has_its_gradient_and_stays_within_documents() {
    let (t, heads, kv, hd) = (9usize, 4usize, 2usize, 8usize);
    let (n, width) = (2 * t, (heads + 2 * kv) * hd);
    let starts: Vec<u32> = [vec![0; t], vec![0, 0, 0, 3, 3, 3, 3, 7, 7]].concat();
    let mut rng = Rng::new(9);
    let (x, c) = (normals(&mut rng, n * width), normals(&mut rng, n * heads * hd));
    let config: nanochat_engine::Config = "d32 l1 h4 kv2 ff32 v300 n1".parse().expect("a valid shape");
    let rope = crate::model::rope::table(&config, t);
    let v = var(&x, &[n, width]);
    let op = Attention {
        n_heads: heads,
        n_kv_heads: kv,
        head_dim: hd,
        seq_len: t,
        starts: Arc::new(starts.clone()),
        rope: rope.clone(),
        precision: nanochat_kernels::Precision::F32,
    };
    let loss = weighted(&v.apply_op1(AttentionOp::new(op)).expect("shapes agree"), &c);
    assert_gradient("x", &gradient(&loss, &v), &x, |x| {
        let head = |row: usize, head: usize, position: Option<usize>| -> Vec<f64> {
            let values = &x[row * width + head * hd..][..hd];
            let Some(p) = position else { return values.to_vec() };
            let angle = |i: usize| (f64::from(rope.0[p * hd / 2 + i]), f64::from(rope.1[p * hd / 2 + i]));
            (0..hd)
                .map(|i| {
                    let (cos, sin) = angle(i % (hd / 2));
                    if i < hd / 2 {
                        values[i] * cos - values[i + hd / 2] * sin
                    } else {
                        values[i] * cos + values[i - hd / 2] * sin
                    }
                })
                .collect()
        };
        let mut out = Vec::new();
        for row in 0..n {
            let (sequence, i) = (row / t, row % t);
            let start = starts[row] as usize;
            for h in 0..heads {
                let q = head(row, h, Some(i - start));
                let kv_head = heads + h / (heads / kv);
                let key = |j: usize| head(sequence * t + j, kv_head, Some(j - start));
                let dots = (start..=i).map(|j| q.iter().zip(key(j)).map(|(q, k)| q * k).sum::<f64>());
                let scores: Vec<f64> = dots.map(|s| (s / (hd as f64).sqrt()).exp()).collect();
                let total: f64 = scores.iter().sum();
                let mut o = vec![0.0; hd];
                for (j, s) in (start..=i).zip(&scores) {
                    let value = head(sequence * t + j, kv_head + kv, None);
                    o.iter_mut().zip(value).for_each(|(o, v)| *o += s / total * v);
                }
                out.extend(o);
            }
        }
        dot(&out, &c)
    });
}

#[test]
fn embed_has_the_straight_through_gradient() {
    let (v, d) = (6, 16);
    let mut rng = Rng::new(2);
    let embed = normals(&mut rng, v * d);
    let head = Int8Head::quantize(&embed, v, d, nanochat_kernels::Precision::F32);
    let tokens = vec![3u32, 1, 3, 5];
    let c = normals(&mut rng, tokens.len() * d);
    let ve = var(&embed, &[v, d]);
    let x = ve.apply_op1(Embed { rows: head.rows.clone(), tokens: Arc::new(tokens.clone()) }).expect("shapes agree");
    let loss = weighted(&x, &c);
    assert_gradient("embed", &gradient(&loss, &ve), &embed, |e| {
        tokens.iter().zip(c.chunks_exact(d)).map(|(t, c)| dot(&e[*t as usize * d..][..d], c)).sum()
    });
}

#[test]
fn cross_entropy_has_the_straight_through_gradient_with_and_without_a_share_of_entropy() {
    for entropy in [0.0, 0.3] {
        assert_cross_entropy_gradient(entropy);
    }
}

fn assert_cross_entropy_gradient(entropy: f32) {
    let (n, v, d) = (6, 40, 16);
    let mut rng = Rng::new(4);
    let (x, gain, embed) = (normals(&mut rng, n * d), normals(&mut rng, d), normals(&mut rng, v * d));
    let targets = vec![3u32, 39, NO_TARGET, 0, 3, 7];
    let weight = 0.25;
    let head = Arc::new(Int8Head::quantize(&embed, v, d, nanochat_kernels::Precision::F32));
    let mut fixed = vec![0.0; v * d];
    fixed.chunks_exact_mut(d).enumerate().for_each(|(row, out)| head.rows.row_into(row, out));
    let fixed = wide(&fixed);
    let loss_of = |logits: Vec<f64>| -> f64 {
        let rows = logits.chunks_exact(v).zip(&targets).filter(|(_, t)| **t != NO_TARGET);
        let of_row = |row: &[f64], t: usize| {
            let ln_sum = row.iter().map(|l| l.exp()).sum::<f64>().ln();
            let h: f64 = row.iter().map(|l| (l - ln_sum).exp() * (ln_sum - l)).sum();
            ln_sum - row[t] - f64::from(entropy) * h
        };
        rows.map(|(row, t)| of_row(row, *t as usize)).sum::<f64>() * f64::from(weight)
    };
    let (vx, vg, ve) = (var(&x, &[n, d]), var(&gain, &[d]), var(&embed, &[v, d]));
    let mut op = CrossEntropy::new(head, Arc::new(targets.clone()), weight, EPS, true);
    op.entropy = entropy;
    let loss = vx.apply_op3(&vg, &ve, op).expect("shapes agree");
    let value = f64::from(loss.to_vec1::<f32>().expect("one number")[0]);
    let expected = loss_of(product(&rounded(&x, &gain), &fixed, d));
    assert!((value - expected).abs() < 1e-5 * expected, "{value}, expected {expected}");

    // dlogits come from the rounded activations: the differences are taken of the loss linearised there.
    let at = product(&rounded(&x, &gain), &fixed, d);
    let slope: Vec<f32> = (0..at.len())
        .map(|i| {
            let moved = |h: f64| {
                let mut logits = at.clone();
                logits[i] += h;
                loss_of(logits)
            };
            ((moved(1e-4) - moved(-1e-4)) / 2e-4) as f32
        })
        .collect();
    let loss = loss.sum_all().expect("one number");
    assert_gradient("x", &gradient(&loss, &vx), &x, |x| dot(&product(&rms_norm(x, &wide(&gain)), &fixed, d), &slope));
    assert_gradient("gain", &gradient(&loss, &vg), &gain, |g| {
        dot(&product(&rms_norm(&wide(&x), g), &fixed, d), &slope)
    });
    assert_gradient("embed", &gradient(&loss, &ve), &embed, |e| dot(&product(&rounded(&x, &gain), e, d), &slope));
}

#[test]
fn a_logit_far_above_the_first_ones_of_its_row_is_no_infinity() {
    let (n, v, d) = (5, 1100, 16);
    let mut rng = Rng::new(5);
    let (x, gain, mut embed) = (normals(&mut rng, n * d), normals(&mut rng, d), normals(&mut rng, v * d));
    embed[1000 * d..][..d].iter_mut().for_each(|e| *e *= 100.0);
    let targets = vec![1000u32, 3, NO_TARGET, 1099, 600];
    let weight = 0.25;
    for precision in [nanochat_kernels::Precision::F32, nanochat_kernels::Precision::Bf16] {
        let head = Int8Head::quantize(&embed, v, d, precision);
        let mut fixed = vec![0.0; v * d];
        fixed.chunks_exact_mut(d).enumerate().for_each(|(row, out)| head.rows.row_into(row, out));
        let fixed = wide(&fixed);
        let logits = product(&rounded(&x, &gain), &fixed, d);
        let largest = |logits: &[f64]| logits.iter().fold(f64::NEG_INFINITY, |m, l| m.max(*l));
        let (mut loss, mut da, mut farthest) = (0.0, vec![0.0; n * d], 0.0f64);
        for (row, logits) in logits.chunks_exact(v).enumerate().filter(|(row, _)| targets[*row] != NO_TARGET) {
            let (max, target) = (largest(logits), targets[row] as usize);
            farthest = farthest.max(max - largest(&logits[..512]));
            let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
            loss += sum.ln() + max - logits[target];
            for i in 0..d {
                let mean: f64 = (0..v).map(|t| (logits[t] - max).exp() / sum * fixed[t * d + i]).sum();
                da[row * d + i] = weight * (mean - fixed[target * d + i]);
            }
        }
        assert!(farthest > 100.0, "{farthest} nats do not leave f32");
        let scratch = &mut Scratch::default();
        let mut q = Int8Rows::new(d);
        q.rms_norm(scratch.isa, &scratch.pool, &x, Norm { gain: &gain, eps: EPS });
        let (mut found, mut d_embed) = (vec![0.0; n * d], vec![0.0; v * d]);
        let given = HeadTargets { tokens: &targets, counts: &[1.0; 5], weight: weight as f32, entropy: 0.0 };
        let value = head.loss(&q, given, Some((&mut found, &mut d_embed, Write::Store)), scratch).cross_entropy;
        assert!((value - loss).abs() < 1e-5 * loss, "{value}, expected {loss}");
        // Exponentials and weights in bf16 are off by 2⁻⁹ each; a mean of weights is no larger than the largest.
        let bound = weight * fixed.iter().fold(0.0f64, |m, w| m.max(w.abs())) / 128.0;
        for (found, expected) in found.iter().zip(&da) {
            assert!((f64::from(*found) - expected).abs() < bound, "{found}, expected {expected}");
        }
        assert!(d_embed.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn entropy_regularisation_keeps_predictions_from_collapsing() {
    let (n, v, d) = (4, 40, 16);
    let mut rng = Rng::new(8);
    let gain = vec![1.0; d];
    let (start_x, mut start) = (normals(&mut rng, n * d), normals(&mut rng, v * d));
    start.iter_mut().for_each(|e| *e *= 0.1);
    let targets = vec![3u32, 39, 0, 7];
    let mean_entropy = |entropy: f32| -> f64 {
        let (mut x, mut embed) = (start_x.clone(), start.clone());
        let scratch = &mut Scratch::default();
        let mut last = 0.0;
        for _ in 0..400 {
            let head = Int8Head::quantize(&embed, v, d, nanochat_kernels::Precision::F32);
            let mut q = Int8Rows::new(d);
            q.rms_norm(scratch.isa, &scratch.pool, &x, Norm { gain: &gain, eps: EPS });
            let (mut da, mut d_embed) = (vec![0.0; n * d], vec![0.0; v * d]);
            let given = HeadTargets { tokens: &targets, counts: &[1.0; 4], weight: 0.25, entropy };
            head.loss(&q, given, Some((&mut da, &mut d_embed, Write::Store)), scratch);
            embed.iter_mut().zip(&d_embed).for_each(|(e, g)| *e -= 0.3 * g);
            x.iter_mut().zip(&da).for_each(|(x, g)| *x -= 0.3 * g);
            // The entropy itself is counted where it has a weight, however small.
            let counted = HeadTargets { tokens: &targets, counts: &[1.0; 4], weight: 0.25, entropy: 1e-9 };
            last = head.loss(&q, counted, None, scratch).entropy / n as f64;
        }
        last
    };
    let [without, with, more] = [0.0, 0.1, 0.5].map(mean_entropy);
    assert!(without < 0.1 && with > 2.0 * without && more > 2.0 * with, "{without}, {with}, {more}");
    assert!(more < (v as f64).ln(), "the targets still count: {more}");
}
