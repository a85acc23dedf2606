//! The training graph and the packed engine are the same function, and the function is the one that is stated.

use std::sync::Arc;

use nanochat_engine::model::weights::Weights;
use nanochat_engine::workspace::sources::SourceFile;
use nanochat_engine::{Config, Model, Precision, Session, TokenId, Tokenizer};
use nanochat_kernels::autotune::Plans;
use nanochat_kernels::{KvBits, ScaleGroup, TernaryMatrix, Write};
use nanochat_train::backend::fused::FusedPass;
use nanochat_train::data::Batch;
use nanochat_train::data::DataRecipe;
use nanochat_train::data::documents::Documents;
use nanochat_train::data::tokenizer;
use nanochat_train::model::params::ParamLayout;
use nanochat_train::model::{Graph, Params};
use nanochat_train::optim::Update;
use nanochat_train::pool::Pool;
use nanochat_train::{Recipe, export};

// glibc gives large pages back on each free, which is 40 % of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TEXTS: [&str; 3] =
    [include_str!("../src/schedule.rs"), include_str!("../src/data/corpus.rs"), include_str!("../src/ops/linear.rs")];

struct Trained {
    params: Params,
    tokenizer: Arc<Tokenizer>,
    documents: Documents,
}

fn fresh(n_streams: usize, scales: ScaleGroup) -> Trained {
    let recipe = Recipe::load("test").expect("it is built in");
    let tokenizer = Arc::new(tokenizer::learn(TEXTS.into_iter(), recipe.model.vocab_size).expect("text has pairs"));
    let data = DataRecipe { seq_len: 64, ..recipe.data };
    let config = Config { n_streams, scales, vocab_size: tokenizer.vocab_size(), ..recipe.model };
    let files = TEXTS.map(|text| SourceFile { name: "a.rs".into(), path: "a.rs".into(), text: text.into() });
    let documents = Documents::new(tokenizer.clone(), &files, Arc::default(), &data, 1);
    Trained { params: Params::init(&config, 3), tokenizer, documents }
}

fn trained(n_streams: usize, scales: ScaleGroup, n_steps: usize) -> Trained {
    let mut trained = fresh(n_streams, scales);
    let optimizer = Recipe::load("test").expect("it is built in").optimizer;
    let pool = Pool::new(2).expect("threads start");
    let mut moments = optimizer.moments(&trained.params);
    for step in 0..n_steps {
        let mut gradients = gradients(&trained, step).1;
        let update = Update { factor: 1.0, precision: nanochat_kernels::Precision::F32, step: step + 1 };
        optimizer.step(&mut trained.params, &mut moments, &mut gradients, update, &pool);
    }
    trained
}

fn gradients(trained: &Trained, step: usize) -> (f64, Vec<Vec<f32>>) {
    let batch = trained.documents.batch(step, 0..8);
    let graph = Graph::new(&trained.params, nanochat_kernels::Precision::F32);
    graph.gradients(&batch, 1.0 / batch.weight()).expect("shapes agree")
}

/// Texts of few tokens, so that most of them meet no rounding that falls the other way.
fn samples(tokenizer: &Tokenizer) -> Vec<Vec<TokenId>> {
    let text = include_str!("../src/measure.rs");
    let tokens = tokenizer.encode(text.as_bytes());
    tokens.chunks_exact(12).take(40).map(<[_]>::to_vec).collect()
}

/// Largest |Δlogit| of each sample, and the largest |logit|. The graph does not round keys and values.
fn differences(graph: &Graph<'_>, weights: &Weights, tokenizer: &Tokenizer, kv: KvBits) -> (Vec<f32>, f32) {
    let precision = Precision { kv, ..Precision::default() };
    let mut session = Session::new(Model::with_precision(weights, 1, &Plans::default(), precision));
    let mut largest = 0.0f32;
    let mut differences = Vec::new();
    for tokens in samples(tokenizer) {
        let ours = graph.logits(&Batch::single(&tokens)).expect("shapes agree");
        let theirs = session.logits_of(&tokens);
        assert_eq!(ours.len(), theirs.len());
        largest = theirs.iter().fold(largest, |max, x| max.max(x.abs()));
        differences.push(ours.iter().zip(&theirs).fold(0.0f32, |max, (a, b)| max.max((a - b).abs())));
    }
    differences.sort_by(f32::total_cmp);
    (differences, largest)
}

/// What rounding to nearest may do, relative to the largest logit.
///
/// Both sides take quantised products over whole numbers, exactly, and scale them in the same order. What may
/// differ is f32: sums of squares, exponentials and softmax sums in another order, each within about 8 units of
/// 2⁻²⁴ of its result. A sample passes 2 layers of 2 sublayers with 3 such steps, and the head: 13 in all.
fn rounding_tolerance(largest: f32) -> f32 {
    13.0 * 8.0 * f32::EPSILON / 2.0 * largest
}

/// What activations may do that round the other way: at 127 steps to the largest activation, one flip moves
/// its vector by 1/127 of its largest entry. A handful of flips in one sample is what is allowed.
fn flip_tolerance(largest: f32) -> f32 {
    8.0 / 127.0 * largest
}

#[test]
fn the_training_graph_and_the_engine_agree() {
    for n_streams in [1, 2, 4] {
        for scales in [ScaleGroup::Matrix, ScaleGroup::Row] {
            let Trained { params, tokenizer, .. } = trained(n_streams, scales, 8);
            let mut graph = Graph::new(&params, nanochat_kernels::Precision::F32);
            let weights = export::weights(&params);
            let (found, largest) = differences(&graph, &weights, &tokenizer, KvBits::ThirtyTwo);
            let (median, worst) = (found[found.len() / 2], found[found.len() - 1]);
            let case = format!("n = {n_streams}, {scales:?}: median {median:e}, worst {worst:e} of {largest}");
            eprintln!("{case}");
            assert!(median <= rounding_tolerance(largest), "{case}");
            assert!(worst <= flip_tolerance(largest), "{case}");

            // Half a step of 127 in each query, key and value makes other activations round the other way too.
            let (found, largest) = differences(&graph, &weights, &tokenizer, KvBits::Eight);
            let worst = found[found.len() - 1];
            eprintln!("in 8 bits: median {:e}, worst {worst:e}", found[found.len() / 2]);
            assert!(worst <= flip_tolerance(largest), "{case}; in 8 bits {worst:e}");

            // A scale that is 1 % off must not pass. `down` is not followed by a norm of its own.
            let param_idx = ParamLayout::of(&params.config).blocks[0].mlp.down;
            let part = &graph.stack(param_idx).expect("a hidden matrix").parts[0];
            let scaled = part.scales().iter().map(|s| s * 1.01).collect();
            let wrong = TernaryMatrix::from_trits(part.shape(), part.group(), part.trits().to_vec(), scaled)
                .expect("only the scale changed");
            graph.set_stack(
                param_idx,
                nanochat_train::ops::linear::TernaryStack::from_parts(vec![wrong], nanochat_kernels::Precision::F32),
            );
            let (found, largest) = differences(&graph, &weights, &tokenizer, KvBits::ThirtyTwo);
            let median = found[found.len() / 2];
            assert!(median > 4.0 * rounding_tolerance(largest), "a planted error of 1 % passes: {median:e} ({case})");
        }
    }
}

#[test]
fn later_tokens_never_change_earlier_logits() {
    let Trained { params, tokenizer, .. } = trained(2, ScaleGroup::Matrix, 2);
    let graph = Graph::new(&params, nanochat_kernels::Precision::F32);
    let tokens = tokenizer.encode(&TEXTS[0].as_bytes()[..300]);
    let v = tokenizer.vocab_size();
    let whole = graph.logits(&Batch::single(&tokens)).expect("shapes agree");
    let mut other = tokens.clone();
    let n = tokens.len() / 2;
    other[n..].iter_mut().for_each(|t| *t = if *t == 100 { 101 } else { 100 });
    let changed = graph.logits(&Batch::single(&other)).expect("shapes agree");
    assert_eq!(whole[..n * v], changed[..n * v]);
    assert_ne!(whole[n * v..], changed[n * v..]);
}

#[test]
fn documents_of_one_sequence_do_not_see_each_other() {
    let Trained { params, tokenizer, .. } = trained(1, ScaleGroup::Matrix, 2);
    let graph = Graph::new(&params, nanochat_kernels::Precision::F32);
    let tokens = &tokenizer.encode(TEXTS[0].as_bytes())[..60];
    let mut packed = Batch::single(tokens);
    packed.starts = Arc::new((0..60).map(|i| if i < 35 { 0 } else { 35 }).collect());
    let v = tokenizer.vocab_size();
    let logits = graph.logits(&packed).expect("shapes agree");
    let alone = graph.logits(&Batch::single(&tokens[35..])).expect("shapes agree");
    // Softmax sums have other lengths of zeros before them, so not bit for bit; an activation may flip.
    let largest = alone.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let worst = logits[35 * v..].iter().zip(&alone).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(worst <= flip_tolerance(largest), "{worst} of {largest}");
    let unpacked = graph.logits(&Batch::single(tokens)).expect("shapes agree");
    let seen = unpacked[35 * v..].iter().zip(&alone).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(seen > 4.0 * worst, "the first document makes no difference at all: {seen}, {worst}");
}

#[test]
fn the_initial_loss_is_that_of_guessing() {
    for n_streams in [1, 2] {
        let trained = fresh(n_streams, ScaleGroup::Matrix);
        let guess = (trained.tokenizer.vocab_size() as f64).ln();
        let loss = gradients(&trained, 0).0;
        assert!((loss - guess).abs() < 0.1, "n = {n_streams}: {loss}, ln V = {guess}");
    }
}

/// Both call the same loops. What differs is the order of sums: of the residual's two gradients in each of 4 sublayers,
/// of the embedding's from both ends, and of micro-batches. A rounding in the residual is carried on by every product
/// after it, so each of the about 16 steps back may add a few units of 2⁻²⁴ of the largest.
#[test]
fn a_pass_takes_the_gradients_that_candle_takes() {
    for scales in [ScaleGroup::Matrix, ScaleGroup::Row, ScaleGroup::Columns(32)] {
        let trained = trained(1, scales, 4);
        let graph = Graph::new(&trained.params, nanochat_kernels::Precision::F32);
        let batches = [trained.documents.batch(5, 0..3), trained.documents.batch(6, 0..5)];
        let filled = |with: f32| -> Vec<Vec<f32>> {
            trained.params.list.iter().map(|param| vec![with; param.values.len()]).collect()
        };
        // What they held before the first batch must not show.
        let (mut found, mut expected) = (filled(f32::NAN), filled(0.0));
        let mut pass = FusedPass::default();
        for (batch, write) in batches.iter().zip([Write::Store, Write::Add]) {
            let loss = pass.gradients(&graph, &trained.params, batch, 0.01, &mut found, write);
            let (expected_loss, gradients) = graph.gradients(batch, 0.01).expect("shapes agree");
            assert!((loss - expected_loss).abs() <= 1e-6 * expected_loss, "{loss}, candle {expected_loss}");
            expected.iter_mut().flatten().zip(gradients.iter().flatten()).for_each(|(sum, g)| *sum += g);
        }
        for ((param, found), expected) in trained.params.list.iter().zip(&found).zip(&expected) {
            let largest = expected.iter().fold(0.0f32, |max, g| max.max(g.abs()));
            let worst = found.iter().zip(expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(
                largest > 0.0 && worst <= 16.0 * 8.0 * f32::EPSILON * largest,
                "{}: {worst} of {largest}",
                param.name
            );
        }
    }
}

/// A factor that is rounded to bf16 is off by at most 2⁻⁹ of itself, in a direction of its own: a sum of products of
/// two such is off by about 2⁻⁹ of its norm, and a gradient that came through the about 20 products of two layers by
/// √20 times as much, about 0.01. The forward pass but for attention is exact.
#[test]
fn a_pass_in_bf16_takes_nearly_the_same_gradients() {
    let trained = trained(1, ScaleGroup::Matrix, 4);
    let batch = trained.documents.batch(5, 0..4);
    let [(loss, exact), (rounded_loss, rounded)] =
        [nanochat_kernels::Precision::F32, nanochat_kernels::Precision::Bf16].map(|precision| {
            let graph = Graph::new(&trained.params, precision);
            let mut found: Vec<_> = trained.params.list.iter().map(|param| vec![0.0; param.values.len()]).collect();
            (FusedPass::default().gradients(&graph, &trained.params, &batch, 0.01, &mut found, Write::Store), found)
        });
    assert!((loss - rounded_loss).abs() <= 0.002 * loss, "{rounded_loss} for {loss}");
    for ((param, exact), rounded) in trained.params.list.iter().zip(&exact).zip(&rounded) {
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let off = norm(&mut exact.iter().zip(rounded).map(|(a, b)| a - b));
        let share = off / norm(&mut exact.iter().copied());
        assert!(share <= 0.05 && share > 0.0, "{}: {share}", param.name);
    }
}

#[test]
fn every_parameter_has_a_gradient_except_those_that_cannot() {
    let largest = |g: &[f32]| g.iter().fold(0.0f32, |max, g| max.max(g.abs()));
    // One step: before it `w` of mHC-lite is 0 and its alphas have no gradient.
    let plain = trained(1, ScaleGroup::Matrix, 1);
    for (param, g) in plain.params.list.iter().zip(gradients(&plain, 1).1) {
        assert!(largest(&g) > 0.0, "{} has no gradient", param.name);
    }
    let mixed = trained(2, ScaleGroup::Matrix, 1);
    let n = 2;
    let last = format!("block.{}.mlp.mhc", mixed.params.config.n_layers - 1);
    for (param, g) in mixed.params.list.iter().zip(gradients(&mixed, 1).1) {
        let width = 2 * n + 2;
        // Columns of `w` and entries of `b`: pre, post, res; `alpha` has one entry for each.
        let parts: [Vec<f32>; 3] = match param.name.rsplit('.').next() {
            Some("alpha") => [vec![g[0]], vec![g[1]], vec![g[2]]],
            Some("w" | "b") => [0..n, n..2 * n, 2 * n..width]
                .map(|columns| g.chunks_exact(width).flat_map(|row| row[columns.clone()].to_vec()).collect()),
            _ => {
                assert!(largest(&g) > 0.0, "{} has no gradient", param.name);
                continue;
            }
        };
        let [pre, post, res] = parts.map(|part| largest(&part));
        let scale = largest(&g).max(1e-12);
        let first = param.name.starts_with("block.0.attn.mhc");
        assert!(post > 0.0, "{}: post has no gradient", param.name);
        // The first sublayer's streams are copies of each other: mixing them changes nothing, and scaling them
        // is undone by the norm. The last one's mixing is undone by the sum. Rounding in f32 is what is left.
        if first || param.name.starts_with(&last) {
            assert!(res <= 1e-4 * scale, "{}: res has the gradient {res:e}, compared with {scale:e}", param.name);
        } else {
            assert!(res > 0.0, "{}: res has no gradient", param.name);
        }
        if first {
            // ε = 1e-5 next to an embedding of mean square 4e-4 leaves a few per cent of the scale to be seen. Next to
            // `b` alone: `alpha` and `w` meet numbers of both signs, and which sum is small depends on the text; so
            // does the largest of `b`, hence a quarter.
            assert!(
                !param.name.ends_with('b') || pre <= 0.25 * scale,
                "{}: pre has the gradient {pre:e}, compared with {scale:e}",
                param.name
            );
        } else {
            assert!(pre > 0.0, "{}: pre has no gradient", param.name);
        }
    }
}

#[test]
fn the_alphas_have_no_gradient_while_their_weights_are_zero() {
    let fresh = fresh(2, ScaleGroup::Matrix);
    for (param, g) in fresh.params.list.iter().zip(gradients(&fresh, 0).1) {
        if param.name.ends_with("mhc.alpha") {
            assert_eq!(g, [0.0; 3], "{}", param.name);
        }
    }
}

#[test]
fn streams_differ_after_training() {
    let Trained { params, documents, .. } = trained(2, ScaleGroup::Matrix, 4);
    let graph = Graph::new(&params, nanochat_kernels::Precision::F32);
    let (_, streams) = graph.hidden(&documents.batch(9, 0..1)).expect("shapes agree");
    let streams = streams.expect("there are two").to_vec3::<f32>().expect("f32");
    for token in streams {
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let apart = norm(&mut token[0].iter().zip(&token[1]).map(|(a, b)| a - b));
        let size = norm(&mut token[0].iter().copied());
        assert!(apart > 0.05 * size, "streams are {apart} apart at size {size}");
    }
}

#[test]
fn masters_made_from_weights_round_to_these_weights() {
    for (n_streams, scales) in [(1, ScaleGroup::Matrix), (2, ScaleGroup::Row), (4, ScaleGroup::Columns(16))] {
        let Trained { params, .. } = trained(n_streams, scales, 2);
        let stored = export::weights(&params);
        let again = export::weights(&Params::from_weights(&stored));
        assert_eq!(stored.embed.values, again.embed.values);
        for (a, b) in stored.blocks.iter().zip(&again.blocks) {
            for (a, b) in [(&a.attn.q, &b.attn.q), (&a.attn.o, &b.attn.o), (&a.mlp.up, &b.mlp.up)] {
                assert_eq!(a.trits(), b.trits());
                for (a, b) in a.scales().iter().zip(b.scales()) {
                    // γ/f and back: two roundings.
                    assert!((a - b).abs() <= 4.0 * f32::EPSILON * a, "{a} {b}");
                }
            }
            assert_eq!(a.mlp.mhc, b.mlp.mhc);
        }
    }
}
