//! mHC-lite residual mixing; the formulas are at `engine::model::weights::MhcWeights`.

use candle_core::{D, Device, Result, Tensor};
use nanochat_engine::model::weights::n_permutations;

use super::Graph;
use super::params::MhcLayout;

/// The residual: `[N, d]` for one stream, `[N, n, d]` for several.
pub(super) struct Streams {
    x: Tensor,
    n: usize,
}

impl Streams {
    /// n copies of the embedding.
    pub(super) fn new(x: Tensor, n: usize) -> Result<Self> {
        let x = match n {
            1 => x,
            _ => {
                let (n_rows, d) = x.dims2()?;
                x.unsqueeze(1)?.broadcast_as((n_rows, n, d))?.contiguous()?
            }
        };
        Ok(Self { x, n })
    }

    /// Σ streams `[N, d]`, and the streams where there are several.
    pub(super) fn sum(self) -> Result<(Tensor, Option<Tensor>)> {
        if self.n == 1 { Ok((self.x, None)) } else { Ok((self.x.sum(1)?, Some(self.x))) }
    }
}

/// The coefficients of one sublayer, per token; none for a plain residual.
pub(super) struct Mixing(Option<Coefficients>);

struct Coefficients {
    pre: Tensor,  // [N, n]
    post: Tensor, // [N, n]
    res: Tensor,  // [N, n, n], doubly stochastic
}

impl Mixing {
    pub(super) fn new(graph: &Graph<'_>, layout: Option<&MhcLayout>, streams: &Streams) -> Result<Self> {
        let Some(layout) = layout else { return Ok(Self(None)) };
        let (n_rows, n, d) = streams.x.dims3()?;
        let p = n_permutations(n);
        let flat = streams.x.reshape((n_rows, n * d))?;
        let mean = flat.sqr()?.mean_keepdim(1)?;
        let normed = flat.broadcast_div(&(mean + f64::from(graph.config().norm_eps))?.sqrt()?)?;
        let products = normed.matmul(graph.var(layout.w)?)?; // [N, 2n + p]
        let (alpha, b) = (graph.var(layout.alpha)?, graph.var(layout.b)?);
        let term = |which: usize, start: usize, len: usize| {
            products
                .narrow(1, start, len)?
                .broadcast_mul(&alpha.narrow(0, which, 1)?)?
                .broadcast_add(&b.narrow(0, start, len)?)
        };
        let pre = sigmoid(&term(0, 0, n)?)?;
        let post = (sigmoid(&term(1, n, n)?)? * 2.0)?;
        let logits = term(2, 2 * n, p)?;
        let exp = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let c = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        let res = c.matmul(&permutation_matrices(n)?)?.reshape((n_rows, n, n))?;
        Ok(Self(Some(Coefficients { pre, post, res })))
    }

    /// What the sublayer reads, `[N, d]`.
    pub(super) fn mix_in(&self, streams: &Streams) -> Result<Tensor> {
        match &self.0 {
            None => Ok(streams.x.clone()),
            Some(c) => streams.x.broadcast_mul(&c.pre.unsqueeze(2)?)?.sum(1),
        }
    }

    /// The residual after a sublayer with output `f` `[N, d]`.
    pub(super) fn mix_out(&self, streams: Streams, f: &Tensor) -> Result<Streams> {
        let x = match &self.0 {
            None => (&streams.x + f)?,
            Some(c) => {
                let added = c.post.unsqueeze(2)?.broadcast_mul(&f.unsqueeze(1)?)?;
                (c.res.matmul(&streams.x)? + added)?
            }
        };
        Ok(Streams { x, n: streams.n })
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// All permutation matrices `[n!, n·n]` in lexicographic order: row i of matrix π has its one at π(i).
fn permutation_matrices(n: usize) -> Result<Tensor> {
    let all = permutations(n);
    let mut values = vec![0.0f32; all.len() * n * n];
    for (matrix, permutation) in values.chunks_exact_mut(n * n).zip(&all) {
        for (i, from) in permutation.iter().enumerate() {
            matrix[i * n + from] = 1.0;
        }
    }
    Tensor::from_vec(values, (all.len(), n * n), &Device::Cpu)
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for _ in 0..n {
        all = all
            .into_iter()
            .flat_map(|start: Vec<usize>| {
                let left: Vec<usize> = (0..n).filter(|i| !start.contains(i)).collect();
                left.into_iter().map(move |next| start.iter().copied().chain([next]).collect())
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_come_in_lexicographic_order() {
        assert_eq!(permutations(2), [[0, 1], [1, 0]]);
        let four = permutations(4);
        assert_eq!(four.len(), n_permutations(4));
        assert!(four.is_sorted());
        assert_eq!(four[0], [0, 1, 2, 3]);
    }
}
