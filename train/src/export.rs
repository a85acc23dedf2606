//! Masters to stored weights. Each matrix is rounded once, here, by the function that every step used: what
//! was trained is what is stored, and ternary values are never rounded again.

use std::sync::Arc;

use nanochat_engine::model::weights::{
    AttentionWeights, BlockWeights, MhcWeights, MlpWeights, Weights, n_permutations,
};
use nanochat_kernels::TernaryMatrix;

use crate::model::params::{MhcLayout, ParamLayout};
use crate::model::{Graph, Params};

/// The weights that the training graph computes with.
pub fn weights(params: &Params) -> Weights {
    let graph = Graph::new(params, nanochat_kernels::Precision::F32);
    let layout = ParamLayout::of(&params.config);
    let values = |param_idx: usize| params.list[param_idx].values.clone();
    let parts = |param_idx: usize| -> std::vec::IntoIter<TernaryMatrix> {
        graph.stack(param_idx).expect("a hidden matrix has a stack").parts.clone().into_iter()
    };
    let mut blocks = Vec::with_capacity(layout.blocks.len());
    for layout in &layout.blocks {
        let (attn, mlp) = (&layout.attn, &layout.mlp);
        let [mut qkv, mut o, mut gate_up, mut down] = [attn.qkv, attn.o, mlp.gate_up, mlp.down].map(&parts);
        let next = |parts: &mut std::vec::IntoIter<TernaryMatrix>| parts.next().expect("as many parts as named");
        blocks.push(BlockWeights {
            attn: AttentionWeights {
                mhc: attn.mhc.as_ref().map(|layout| mhc(params, layout)),
                norm: values(attn.norm),
                q: next(&mut qkv),
                k: next(&mut qkv),
                v: next(&mut qkv),
                norm_out: values(attn.norm_out),
                o: next(&mut o),
            },
            mlp: MlpWeights {
                mhc: mlp.mhc.as_ref().map(|layout| mhc(params, layout)),
                norm: values(mlp.norm),
                gate: next(&mut gate_up),
                up: next(&mut gate_up),
                norm_down: values(mlp.norm_down),
                down: next(&mut down),
            },
        });
    }
    Weights {
        config: params.config.clone(),
        embed: Arc::unwrap_or_clone(graph.head().rows.clone()),
        blocks,
        norm_final: values(layout.norm_final),
    }
}

fn mhc(params: &Params, layout: &MhcLayout) -> MhcWeights {
    let n = params.config.n_streams;
    let width = 2 * n + n_permutations(n);
    let [alpha, w, b] = [layout.alpha, layout.w, layout.b].map(|param_idx| &params.list[param_idx].values);
    let columns = |range: std::ops::Range<usize>| -> Vec<f32> {
        w.chunks_exact(width).flat_map(|row| row[range.clone()].iter().copied()).collect()
    };
    MhcWeights {
        alpha_pre: alpha[0],
        alpha_post: alpha[1],
        alpha_res: alpha[2],
        w_pre: columns(0..n),
        w_post: columns(n..2 * n),
        w_res: columns(2 * n..width),
        b_pre: b[..n].to_vec(),
        b_post: b[n..2 * n].to_vec(),
        b_res: b[2 * n..].to_vec(),
    }
}
