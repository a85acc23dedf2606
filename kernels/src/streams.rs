//! mHC-lite before a sublayer: several residual streams, mixed per token (after arXiv 2512.24880).
//!
//! ```text
//! for token, X [n, d] its streams, F [d] what the sublayer before gave, post and res that sublayer's coefficients:
//!     X_i    = post_i · F + Σ_j res_ij · X_j               and Σ X² on the way
//!     z [o]  = W · vec X / √(mean X² + eps) + b            o = n + n + n! outputs: pre, post, permutations
//!     pre, post = σ, 2σ      c = softmax      res = Σ_k c_k P_k
//!     h [d]  = Σ_i pre_i · X_i                             and Σ h², max |h · gain| on the way
//!     int8   = h · gain, rounded
//! ```
//!
//! One token's streams are in the first cache from the first line to the last, so each is read from further away once.

use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::{Chunk, F32x16, LANES, exp, for_each_chunk, inverse_root, sum};
use crate::rows::{Int8Rows, Norm, quantize_with};
use crate::runtime::memory::DisjointMut;
use crate::runtime::pool::Pool;
use crate::vector::softmax_body;

/// Outputs that are summed at the same time.
const AT_ONCE: usize = 8;
/// The largest number of streams.
const MAX: usize = 4;

/// The mixing weights of one sublayer.
#[derive(Clone, Debug)]
pub struct Mixer {
    n_streams: usize,
    d: usize,
    eps: f32,
    /// `[outputs / 8][d / 16][n][8][16]`, both padded with zeros.
    weights: Vec<f32>,
    /// `[n + n + n!]`
    biases: Vec<f32>,
    /// `[n!][n]`
    permutations: Vec<Vec<usize>>,
}

impl Mixer {
    /// Packs weights `[n + n + n!, n · d]` for pre, post and the permutations in this order; permutation π moves
    /// stream π(i) to position i.
    ///
    /// # Panics
    /// If lengths do not fit each other, or there are more than 4 streams.
    pub fn new(weights: &[f32], biases: &[f32], permutations: Vec<Vec<usize>>, eps: f32) -> Self {
        let n = permutations.first().map_or(0, Vec::len);
        let n_outputs = 2 * n + permutations.len();
        assert!((1..=MAX).contains(&n) && biases.len() == n_outputs, "{} biases for {n} streams", biases.len());
        assert!(weights.len().is_multiple_of(n * n_outputs), "{} weights for {n} streams", weights.len());
        let d = weights.len() / (n * n_outputs);
        let n_chunks = d.div_ceil(LANES);
        let mut packed = vec![0.0; n_outputs.div_ceil(AT_ONCE) * n_chunks * n * AT_ONCE * LANES];
        for (output, row) in weights.chunks_exact(n * d).enumerate() {
            for (stream, row) in row.chunks_exact(d).enumerate() {
                for (chunk, part) in row.chunks(LANES).enumerate() {
                    let block = (output / AT_ONCE * n_chunks + chunk) * n + stream;
                    packed[(block * AT_ONCE + output % AT_ONCE) * LANES..][..part.len()].copy_from_slice(part);
                }
            }
        }
        Self { n_streams: n, d, eps, weights: packed, biases: biases.to_vec(), permutations }
    }

    /// Coefficients that a token has between two sublayers: post `[n]`, then res `[n, n]`.
    pub fn n_coefficients(&self) -> usize {
        self.n_streams + self.n_streams * self.n_streams
    }
}

/// Streams and what belongs to them, for the same tokens.
#[derive(Debug)]
pub struct Streams<'a> {
    /// `[tokens, n, d]`
    pub x: &'a mut [f32],
    /// `[tokens, d]`: what the sublayer before gave; afterwards this sublayer's input before its norm.
    pub hidden: &'a mut [f32],
    /// `[tokens, n + n·n]`: on entry those of the previous sublayer, on return those of this one.
    pub coefficients: &'a mut [f32],
}

impl Int8Rows {
    /// Mixes streams with what the sublayer before gave (`has_output`; the first has none before it), and normalises
    /// and quantises this sublayer's input.
    ///
    /// # Panics
    /// If lengths do not fit each other.
    pub fn mixed_rms_norm(
        &mut self,
        isa: Isa,
        pool: &Pool,
        mixer: &Mixer,
        streams: Streams<'_>,
        has_output: bool,
        norm: Norm<'_>,
    ) {
        let (d, width, n_coefficients) = (mixer.d, mixer.d * mixer.n_streams, mixer.n_coefficients());
        let n_tokens = streams.hidden.len() / d;
        assert_eq!((self.cols(), norm.gain.len()), (d, d), "columns and gains");
        assert_eq!(streams.x.len(), n_tokens * width, "streams of {n_tokens} tokens");
        assert_eq!(streams.coefficients.len(), n_tokens * n_coefficients, "coefficients of {n_tokens} tokens");
        let (x, hidden) = (DisjointMut::new(streams.x), DisjointMut::new(streams.hidden));
        let coefficients = DisjointMut::new(streams.coefficients);
        self.fill(pool, n_tokens, |row_idx, values, sums| {
            // SAFETY: each token is handed to one piece, and the buffers are borrowed until `fill` returns.
            let token = unsafe {
                Streams {
                    x: x.part(row_idx * width, width),
                    hidden: hidden.part(row_idx * d, d),
                    coefficients: coefficients.part(row_idx * n_coefficients, n_coefficients),
                }
            };
            match mixer.n_streams {
                2 => enter_2(isa, mixer, token, has_output, norm, values, sums),
                4 => enter_4(isa, mixer, token, has_output, norm, values, sums),
                n => unreachable!("{n} streams: a mixer has 2 or 4"),
            }
        });
    }
}

/// out `[d]` = Σ_i X_i of one token after the last sublayer's output `hidden` is mixed in: streams `[n, d]`,
/// coefficients `[n + n·n]`.
///
/// # Panics
/// If lengths do not fit each other.
pub fn sum_streams(isa: Isa, mixer: &Mixer, x: &[f32], hidden: &[f32], coefficients: &[f32], out: &mut [f32]) {
    let d = mixer.d;
    assert_eq!((x.len(), coefficients.len()), (mixer.n_streams * d, mixer.n_coefficients()), "one token's streams");
    assert_eq!((hidden.len(), out.len()), (d, d), "columns");
    match mixer.n_streams {
        2 => leave_2(isa, x, hidden, coefficients, out),
        4 => leave_4(isa, x, hidden, coefficients, out),
        n => unreachable!("{n} streams: a mixer has 2 or 4"),
    }
}

compiled_per_isa! {
    fn enter_2<V>(
        mixer: &Mixer, token: Streams<'_>, has_output: bool, norm: Norm<'_>, values: &mut [i8], sums: &mut [i32],
    ) -> f32 {
        enter::<V, 2>(mixer, token, has_output, norm, values, sums)
    }
}

compiled_per_isa! {
    fn enter_4<V>(
        mixer: &Mixer, token: Streams<'_>, has_output: bool, norm: Norm<'_>, values: &mut [i8], sums: &mut [i32],
    ) -> f32 {
        enter::<V, 4>(mixer, token, has_output, norm, values, sums)
    }
}

compiled_per_isa! {
    fn leave_2<V>(x: &[f32], f: &[f32], coefficients: &[f32], out: &mut [f32]) {
        for_each_chunk::<V>(f.len(), #[inline(always)] |chunk| {
            let mixed = mixed::<V, 2>(chunk, x, f, coefficients);
            let mut total = mixed[0];
            for x in &mixed[1..] {
                total = total.add(*x);
            }
            chunk.store(total, out);
        });
    }
}

compiled_per_isa! {
    fn leave_4<V>(x: &[f32], f: &[f32], coefficients: &[f32], out: &mut [f32]) {
        for_each_chunk::<V>(f.len(), #[inline(always)] |chunk| {
            let mixed = mixed::<V, 4>(chunk, x, f, coefficients);
            let mut total = mixed[0];
            for x in &mixed[1..] {
                total = total.add(*x);
            }
            chunk.store(total, out);
        });
    }
}

#[inline(always)]
fn enter<V: F32x16, const N: usize>(
    mixer: &Mixer,
    token: Streams<'_>,
    has_output: bool,
    norm: Norm<'_>,
    values: &mut [i8],
    sums: &mut [i32],
) -> f32 {
    let Streams { x, hidden, coefficients } = token;
    let d = hidden.len();
    let mut squares = V::splat(0.0);
    if has_output {
        for_each_chunk::<V>(
            d,
            #[inline(always)]
            |chunk| {
                let mixed = mixed::<V, N>(chunk, x, hidden, coefficients);
                for (mixed, x) in mixed.into_iter().zip(x.chunks_exact_mut(d)) {
                    chunk.store(mixed, x);
                    squares = mixed.mul_add(mixed, squares);
                }
            },
        );
    } else {
        for_each_chunk::<V>(
            d,
            #[inline(always)]
            |chunk| {
                for stream in x.chunks_exact(d) {
                    let x = chunk.load::<V>(stream);
                    squares = x.mul_add(x, squares);
                }
            },
        );
    }
    let inverse_rms = inverse_root(sum(squares), x.len(), mixer.eps);
    let mut outputs = [0.0f32; 4 * AT_ONCE]; // n + n + n! of them: 32 for four streams
    let per_block = d.div_ceil(LANES) * N * AT_ONCE * LANES;
    for (outputs, weights) in outputs.chunks_exact_mut(AT_ONCE).zip(mixer.weights.chunks_exact(per_block)) {
        let (weights, _) = weights.as_chunks::<LANES>();
        let mut acc = [V::splat(0.0); AT_ONCE];
        for_each_chunk::<V>(
            d,
            #[inline(always)]
            |chunk| {
                let weights = &weights[chunk.from / LANES * N * AT_ONCE..][..N * AT_ONCE];
                for stream in 0..N {
                    let x = chunk.load::<V>(&x[stream * d..][..d]);
                    for output in 0..AT_ONCE {
                        acc[output] = V::load(&weights[stream * AT_ONCE + output]).mul_add(x, acc[output]);
                    }
                }
            },
        );
        for (output, acc) in outputs.iter_mut().zip(acc) {
            *output = sum(acc);
        }
    }
    for (output, bias) in outputs.iter_mut().zip(&mixer.biases) {
        *output = *output * inverse_rms + bias;
    }
    let n_outputs = 2 * N + mixer.permutations.len();
    softmax_body::<V>(&mut outputs[2 * N..n_outputs]);
    let mut gates = [0.0; LANES];
    gates[..2 * N].copy_from_slice(&outputs[..2 * N]);
    let one = V::splat(1.0);
    one.div(exp(V::load(&gates).mul(V::splat(-1.0))).add(one)).store(&mut gates);
    let (post, res) = coefficients.split_at_mut(N);
    for (post, gate) in post.iter_mut().zip(&gates[N..]) {
        *post = 2.0 * gate;
    }
    res.fill(0.0);
    for (weight, permutation) in outputs[2 * N..].iter().zip(&mixer.permutations) {
        for (to, from) in permutation.iter().enumerate() {
            res[to * N + from] += weight;
        }
    }
    let (mut squares, mut absmax) = (V::splat(0.0), V::splat(0.0));
    for_each_chunk::<V>(
        d,
        #[inline(always)]
        |chunk| {
            let mut h = V::splat(0.0);
            for stream in 0..N {
                h = V::splat(gates[stream]).mul_add(chunk.load(&x[stream * d..][..d]), h);
            }
            chunk.store(h, hidden);
            squares = h.mul_add(h, squares);
            absmax = h.mul(chunk.load(norm.gain)).abs().max(absmax);
        },
    );
    let rms = inverse_root(sum(squares), d, norm.eps);
    let hidden = &*hidden;
    quantize_with::<V>(
        d,
        absmax.largest(),
        rms,
        values,
        sums,
        #[inline(always)]
        |chunk| chunk.load::<V>(hidden).mul(chunk.load(norm.gain)),
    )
}

/// X_i = post_i · F + Σ_j res_ij · X_j, for sixteen columns.
#[inline(always)]
fn mixed<V: F32x16, const N: usize>(chunk: Chunk, x: &[f32], f: &[f32], coefficients: &[f32]) -> [V; N] {
    let d = f.len();
    let (post, res) = coefficients.split_at(N);
    let f = chunk.load::<V>(f);
    let mut streams = [f; N];
    for stream in 0..N {
        streams[stream] = chunk.load(&x[stream * d..][..d]);
    }
    let mut mixed = [f; N];
    for to in 0..N {
        mixed[to] = V::splat(post[to]).mul(f);
        for from in 0..N {
            mixed[to] = V::splat(res[to * N + from]).mul_add(streams[from], mixed[to]);
        }
    }
    mixed
}

#[cfg(test)]
mod tests;
