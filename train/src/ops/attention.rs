//! Rotary embedding and causal softmax attention within documents, over packed sequences.
//!
//! ```text
//! per sequence and group of heads that share one key and value head:
//! q, k = rope(q), rope(k)     S = q·kᵀ / √hd     P = softmax(S over start..=i)     o = P·v
//! dv = Pᵀ·do    dP = do·vᵀ    dS = P ∘ (dP − Σ do∘o)    dq = dS·k / √hd    dk = dSᵀ·q / √hd
//! ```
//!
//! P is made again in the backward pass: keeping it costs more memory traffic than the product.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{matrix, simd, slice, with_slice};

/// The operation: `[N, d + 2·kv_dim]` (queries, keys, values side by side) → `[N, d]`.
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows in one sequence; divides N.
    pub seq_len: usize,
    /// For each row, where in its sequence its document begins.
    pub starts: Arc<Vec<u32>>,
    /// cos and sin, `[seq_len, head_dim / 2]` each.
    pub rope: Arc<(Vec<f32>, Vec<f32>)>,
}

/// Query heads of one group `[rep·T, hd]`, its keys and values `[T, hd]`.
struct Group {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Attention {
    fn width(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    fn rep(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Copies the columns of `head` out of one sequence's rows.
    fn read(&self, rows: &[f32], width: usize, head: usize, out: &mut Vec<f32>) {
        for row in rows.chunks_exact(width) {
            out.extend_from_slice(&row[head * self.head_dim..][..self.head_dim]);
        }
    }

    fn write(&self, rows: &mut [f32], width: usize, head: usize, values: &[f32]) {
        for (row, value) in rows.chunks_exact_mut(width).zip(values.chunks_exact(self.head_dim)) {
            row[head * self.head_dim..][..self.head_dim].copy_from_slice(value);
        }
    }

    /// Rotates `[.., hd]` rows (a multiple of T) in place; `sign` −1 rotates back.
    fn rotate(&self, values: &mut [f32], starts: &[u32], sign: f32) {
        let (hd, half) = (self.head_dim, self.head_dim / 2);
        simd::dispatch(|| {
            for (row_idx, row) in values.chunks_exact_mut(hd).enumerate() {
                let i = row_idx % self.seq_len;
                let position = i - starts[i] as usize; // positions count from the document's begin, as in the engine
                let cos = &self.rope.0[position * half..][..half];
                let sin = &self.rope.1[position * half..][..half];
                let (low, high) = row.split_at_mut(half);
                for c in 0..half {
                    let (a, b) = (low[c], high[c]);
                    low[c] = a * cos[c] - b * sin[c] * sign;
                    high[c] = b * cos[c] + a * sin[c] * sign;
                }
            }
        });
    }

    fn group(&self, rows: &[f32], starts: &[u32], kv: usize) -> Result<Group> {
        let (t, hd) = (self.seq_len, self.head_dim);
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for head in kv * self.rep()..(kv + 1) * self.rep() {
            self.read(rows, self.width(), head, &mut q);
        }
        self.read(rows, self.width(), self.n_heads + kv, &mut k);
        self.read(rows, self.width(), self.n_heads + self.n_kv_heads + kv, &mut v);
        self.rotate(&mut q, starts, 1.0);
        self.rotate(&mut k, starts, 1.0);
        Ok(Group { q: matrix(q, self.rep() * t, hd)?, k: matrix(k, t, hd)?, v: matrix(v, t, hd)? })
    }

    /// P `[rep·T, T]`.
    fn probabilities(&self, group: &Group, starts: &[u32]) -> Result<Vec<f32>> {
        let t = self.seq_len;
        let scores = group.q.matmul(&group.k.t()?)?;
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        with_slice(&scores, |scores| {
            let mut p = vec![0.0; scores.len()];
            simd::dispatch(|| {
                for (row_idx, (p, s)) in p.chunks_exact_mut(t).zip(scores.chunks_exact(t)).enumerate() {
                    let seen = seen(starts, row_idx % t);
                    let (p, s) = (&mut p[seen.clone()], &s[seen]);
                    let max = simd::max(s, f32::NEG_INFINITY, |x| x) * scale;
                    for (p, s) in p.iter_mut().zip(s) {
                        *p = simd::exp(s * scale - max);
                    }
                    let inv = 1.0 / simd::sum(p, |x| x);
                    for p in p.iter_mut() {
                        *p *= inv;
                    }
                }
            });
            p
        })
    }

    fn sequences(&self, n_rows: usize) -> impl Iterator<Item = Range<usize>> {
        let t = self.seq_len;
        (0..n_rows / t).map(move |b| b * t..(b + 1) * t)
    }
}

/// What row `i` attends to.
#[inline(always)]
fn seen(starts: &[u32], i: usize) -> Range<usize> {
    starts[i] as usize..i + 1
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n_rows, width) = layout.shape().dims2()?;
        let (x, d, t) = (slice(x, layout)?, self.n_heads * self.head_dim, self.seq_len);
        let mut out = vec![0.0; n_rows * d];
        for range in self.sequences(n_rows) {
            let rows = &x[range.start * width..range.end * width];
            let starts = &self.starts[range.clone()];
            for kv in 0..self.n_kv_heads {
                let group = self.group(rows, starts, kv)?;
                let p = matrix(self.probabilities(&group, starts)?, self.rep() * t, t)?;
                let o = p.matmul(&group.v)?;
                with_slice(&o, |o| {
                    for (r, o) in o.chunks_exact(t * self.head_dim).enumerate() {
                        self.write(&mut out[range.start * d..range.end * d], d, kv * self.rep() + r, o);
                    }
                })?;
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((n_rows, d))))
    }

    fn bwd(&self, x: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (n_rows, width) = x.dims2()?;
        let mut dx = vec![0.0; n_rows * width];
        with_slice(x, |x| {
            with_slice(res, |o| {
                with_slice(grad, |grad| {
                    for range in self.sequences(n_rows) {
                        self.sequence_backward(range, x, o, grad, &mut dx)?;
                    }
                    Ok::<(), candle_core::Error>(())
                })
            })
        })????;
        Ok(Some(matrix(dx, n_rows, width)?))
    }
}

impl Attention {
    fn sequence_backward(&self, range: Range<usize>, x: &[f32], o: &[f32], grad: &[f32], dx: &mut [f32]) -> Result<()> {
        let (width, d, t, hd, rep) =
            (self.width(), self.n_heads * self.head_dim, self.seq_len, self.head_dim, self.rep());
        let starts = &self.starts[range.clone()];
        let rows = &x[range.start * width..range.end * width];
        let (o, grad) = (&o[range.start * d..range.end * d], &grad[range.start * d..range.end * d]);
        let dx = &mut dx[range.start * width..range.end * width];
        let scale = 1.0 / (hd as f32).sqrt();
        for kv in 0..self.n_kv_heads {
            let group = self.group(rows, starts, kv)?;
            let p = self.probabilities(&group, starts)?;
            let (mut o_heads, mut d_heads) = (Vec::new(), Vec::new());
            for head in kv * rep..(kv + 1) * rep {
                self.read(o, d, head, &mut o_heads);
                self.read(grad, d, head, &mut d_heads);
            }
            let d_o = matrix(d_heads, rep * t, hd)?;
            let d_p = d_o.matmul(&group.v.t()?)?;
            let mut d_s = vec![0.0; rep * t * t];
            with_slice(&d_p, |d_p| {
                with_slice(&d_o, |d_o| {
                    simd::dispatch(|| {
                        for (row_idx, d_s) in d_s.chunks_exact_mut(t).enumerate() {
                            let along =
                                simd::sum2(&d_o[row_idx * hd..][..hd], &o_heads[row_idx * hd..][..hd], |a, b| a * b);
                            let seen = seen(starts, row_idx % t);
                            let p = &p[row_idx * t..][..t][seen.clone()];
                            let d_p = &d_p[row_idx * t..][..t][seen.clone()];
                            for ((d_s, p), d_p) in d_s[seen].iter_mut().zip(p).zip(d_p) {
                                *d_s = p * (d_p - along) * scale;
                            }
                        }
                    });
                })
            })??;
            let p = matrix(p, rep * t, t)?;
            let d_s = matrix(d_s, rep * t, t)?;
            let d_v = p.t()?.matmul(&d_o)?;
            let mut d_q = d_s.matmul(&group.k)?.flatten_all()?.to_vec1::<f32>()?;
            let mut d_k = d_s.t()?.matmul(&group.q)?.flatten_all()?.to_vec1::<f32>()?;
            self.rotate(&mut d_q, starts, -1.0);
            self.rotate(&mut d_k, starts, -1.0);
            for (r, d_q) in d_q.chunks_exact(t * hd).enumerate() {
                self.write(dx, width, kv * rep + r, d_q);
            }
            self.write(dx, width, self.n_heads + kv, &d_k);
            with_slice(&d_v, |d_v| self.write(dx, width, self.n_heads + self.n_kv_heads + kv, d_v))?;
        }
        Ok(())
    }
}
