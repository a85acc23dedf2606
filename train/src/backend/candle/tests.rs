use std::sync::Arc;

use nanochat_engine::rng::Rng;
use nanochat_kernels::{Precision, Write};

use super::*;
use crate::Recipe;
use crate::backend::Backend;
use crate::backend::fused::FusedPass;
use crate::model::Graph;
use crate::optim::Update;
use crate::pool::Pool;

const SEQ_LEN: usize = 24;

fn params(scales: ScaleGroup) -> Params {
    let shape: Config = "d64 l2 h4 kv2 ff96 v300 n1".parse().expect("a shape");
    Params::init(&Config { context: SEQ_LEN, scales, ..shape }, 3)
}

fn model(params: &Params) -> CandleModel {
    CandleModel::new(&params.config, SEQ_LEN, &Device::Cpu).expect("there is one stream")
}

/// Two sequences. Where `packed`, the first holds three documents, the second ends in one without targets, and every
/// eleventh row has none.
fn batch(seed: u64, packed: bool) -> Batch {
    let mut rng = Rng::new(seed);
    let n_rows = 2 * SEQ_LEN;
    let mut draw = || (0..n_rows).map(|_| rng.below(300) as u32).collect::<Vec<u32>>();
    let (tokens, mut targets) = (draw(), draw());
    let mut starts = vec![0; n_rows];
    if packed {
        starts[5..15].fill(5);
        starts[15..SEQ_LEN].fill(15);
        starts[SEQ_LEN + 17..].fill(17);
        targets[SEQ_LEN + 17..].fill(NO_TARGET);
        targets.iter_mut().step_by(11).for_each(|target| *target = NO_TARGET);
    }
    let weights = (0..n_rows).map(|row| if packed { 1.0 + (row % 7) as f32 / 2.0 } else { 1.0 }).collect();
    let [tokens, targets, starts] = [tokens, targets, starts].map(Arc::new);
    Batch { tokens, targets, weights: Arc::new(weights), starts, seq_len: SEQ_LEN }
}

/// The loss, and the gradient of each parameter.
fn taken(model: &CandleModel, params: &Params, batches: &[Batch], entropy: f64) -> (f64, Vec<Vec<f32>>) {
    let leaves = model.leaves(params).expect("shapes agree");
    let (loss, gradients) = model.gradients(&leaves, batches, 0.01, entropy).expect("shapes agree");
    let flat = |part: &Tensor| part.flatten_all().expect("a shape").to_vec1::<f32>().expect("f32");
    (loss, gradients.iter().map(|parts| parts.iter().flat_map(flat).collect()).collect())
}

fn fused(params: &Params, batches: &[Batch], entropy: f64) -> (f64, Vec<Vec<f32>>) {
    let mut graph = Graph::new(params, Precision::F32);
    graph.entropy = entropy as f32;
    let mut gradients: Vec<_> = params.list.iter().map(|param| vec![0.0; param.values.len()]).collect();
    let mut pass = FusedPass::default();
    let losses = batches.iter().map(|batch| pass.gradients(&graph, params, batch, 0.01, &mut gradients, Write::Add));
    (losses.sum(), gradients)
}

/// ‖a − b‖ / ‖b‖.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

fn furthest(params: &Params, a: &[Vec<f32>], b: &[Vec<f32>]) -> (f64, String) {
    let parts = params.list.iter().zip(a.iter().zip(b));
    let furthest = parts.map(|(param, (a, b))| (apart(a, b), param.name.clone()));
    furthest.max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are parameters")
}

/// How far a gradient may be from the fused one, as a share of its norm, where every activation is rounded to the same
/// int8: sums are taken in other orders, each within about 8 units of 2⁻²⁴ of its result, in some 20 steps forth and
/// back.
const ROUNDED: f64 = 20.0 * 8.0 * f32::EPSILON as f64 / 2.0;

/// The same where some are not. One that rounds the other way moves what follows in its row and in later ones of its
/// document, so that others do, too; at worst all roundings of a row are independent ones. Each is off by 1/127 of the
/// row's largest over √12 on either side, about 1 % of the root mean square; there are 9, which act on a gradient on
/// its way forth and back: √18 · 1 % = 4.3 %.
const FLIPPED: f64 = 0.05;

#[test]
fn loss_and_gradients_are_those_of_the_fused_operations() {
    let silu = Activation::Silu;
    for (scales, activation, entropy) in [
        (ScaleGroup::Matrix, silu, 0.0),
        (ScaleGroup::Row, silu, 0.0),
        (ScaleGroup::Columns(32), silu, 0.0),
        (ScaleGroup::Matrix, Activation::Relu2, 0.25),
    ] {
        let mut params = params(scales);
        params.config.activation = activation;
        let mut found = Vec::new();
        // All rows of a batch at once, and seven at a time.
        for (seed, chunk_rows) in (0..10).zip([CHUNK_ROWS, 7].into_iter().cycle()) {
            let batches = [batch(seed, true), batch(100 + seed, false)];
            let batches = &batches[..if seed == 0 { 2 } else { 1 }];
            let (expected_loss, expected) = fused(&params, batches, entropy);
            let (loss, gradients) = taken(&CandleModel { chunk_rows, ..model(&params) }, &params, batches, entropy);
            let (worst, name) = furthest(&params, &gradients, &expected);
            let case = format!("{scales:?}, batch {seed}: {loss} for {expected_loss}, {name} is {worst:e} off");
            eprintln!("{case}");
            // A loss is the mean of many rows', which are off in either direction.
            assert!((loss - expected_loss).abs() <= 0.1 * FLIPPED * expected_loss, "{case}");
            assert!(worst <= FLIPPED, "{case}");
            found.push(worst);
        }
        found.sort_by(f64::total_cmp);
        // An error would be in all of them; an activation that rounds the other way is in some.
        let quarter = found[found.len() / 4];
        assert!(quarter <= ROUNDED, "{scales:?}: three of four batches are {quarter:e} off or more");
    }
}

#[test]
fn documents_of_one_sequence_do_not_see_each_other() {
    let params = params(ScaleGroup::Matrix);
    let packed = batch(2, true);
    let (_, expected) = taken(&model(&params), &params, std::slice::from_ref(&packed), 0.0);
    let unpacked = Batch { starts: Arc::new(vec![0; packed.starts.len()]), ..packed };
    let (_, found) = taken(&model(&params), &params, &[unpacked], 0.0);
    let (worst, name) = furthest(&params, &found, &expected);
    assert!(worst > 4.0 * FLIPPED, "{name}, the furthest, is only {worst} off without the documents' limits");
}

#[test]
fn a_row_without_a_target_adds_nothing() {
    let params = params(ScaleGroup::Matrix);
    let model = model(&params);
    let empty = Batch { targets: Arc::new(vec![NO_TARGET; 2 * SEQ_LEN]), ..batch(1, true) };
    let (loss, gradients) = taken(&model, &params, std::slice::from_ref(&empty), 0.0);
    assert_eq!(loss, 0.0);
    assert!(gradients.iter().flatten().all(|g| *g == 0.0));
    let one = batch(2, true);
    assert_eq!(taken(&model, &params, &[empty, one.clone()], 0.0), taken(&model, &params, &[one], 0.0));
}

/// In f16, in place of the bf16 that candle multiplies on a GPU only. It rounds both sides of a product and its result,
/// each by up to 2⁻¹¹ of itself: with about 40 products forth and back, √120 · 2⁻¹¹ = 5e-3 of the norm, which is enough
/// for the activations of all rows to round as they will.
#[test]
fn products_in_16_bits_give_nearly_the_same() {
    let params = params(ScaleGroup::Matrix);
    let batches = [batch(1, false), batch(2, true)];
    let (expected_loss, expected) = taken(&model(&params), &params, &batches, 0.0);
    let (loss, found) = taken(&CandleModel { matmul_dtype: DType::F16, ..model(&params) }, &params, &batches, 0.0);
    let (worst, name) = furthest(&params, &found, &expected);
    assert!((loss - expected_loss).abs() <= 0.002 * expected_loss, "{loss} for {expected_loss}");
    eprintln!("{loss} for {expected_loss}, {name} is {worst} off");
    assert!(worst > 0.0 && worst <= FLIPPED + 5e-3, "{name} is {worst} off");
}

#[test]
fn thirty_steps_lower_the_loss() {
    let mut params = params(ScaleGroup::Matrix);
    let optimizer = Recipe::load("test").expect("it is built in").optimizer;
    let pool = Pool::new(1).expect("a thread starts");
    let mut moments = optimizer.moments(&params);
    let mut backend = Backend::candle(&params, model(&params));
    // Seven tokens in a round: what follows is known.
    let tokens: Vec<u32> = (0..2 * SEQ_LEN as u32).map(|i| i % 7).collect();
    let targets = tokens.iter().map(|token| (token + 1) % 7).collect();
    let batches = [Batch { tokens: Arc::new(tokens), targets: Arc::new(targets), ..batch(1, true) }];
    let weight = 1.0 / batches[0].weight();
    let mut losses = Vec::new();
    for step in 0..30 {
        losses.push(backend.gradients(&params, Precision::F32, &batches, weight, &pool).expect("shapes agree"));
        let update = Update { factor: 1.0, precision: Precision::F32, step: step + 1 };
        optimizer.step(&mut params, &mut moments, backend.sum(&pool), update, &pool);
    }
    assert!((losses[0] - 300f64.ln()).abs() < 0.2, "{losses:?}");
    assert!(losses[29] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn several_residual_streams_are_refused_with_a_way_out() {
    let config: Config = "d64 l2 h4 kv2 ff96 v300 n2".parse().expect("a shape");
    let Err(error) = CandleModel::new(&config, SEQ_LEN, &Device::Cpu) else { panic!("it knows one stream") };
    let text = error.to_string();
    assert!(matches!(error, BackendError::Streams { n_streams: 2 }), "{text}");
    assert!(text.contains("model.n_streams") && text.contains("--device cpu"), "{text}");
}

#[test]
fn sequences_of_another_length_are_refused() {
    let params = params(ScaleGroup::Matrix);
    let model = CandleModel::new(&params.config, 32, &Device::Cpu).expect("there is one stream");
    let leaves = model.leaves(&params).expect("shapes agree");
    let error = model.gradients(&leaves, &[batch(1, false)], 1.0, 0.0).expect_err("they have 24 tokens").to_string();
    assert!(error.contains("24 tokens where 32"), "{error}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn cuda_in_a_binary_without_it_says_how_to_build_one() {
    let Err(error) = Backend::for_device(crate::Device::Cuda, &params(ScaleGroup::Matrix), 1, SEQ_LEN) else {
        panic!("not built")
    };
    let text = error.to_string();
    assert!(matches!(error, BackendError::NotBuilt { feature: "cuda" }), "{text}");
    assert!(text.contains("train/cuda/build.sh") && text.contains("--features cuda"), "{text}");
}
