//! What a training step costs, and where:
//! `cargo bench -p nanochat-train --bench step -- [SHAPE …] [--threads N] [--json]`.
//!
//! Random tokens over random masters: the work does not depend on what they say. Prints tokens/s, 6·N·tokens/s per
//! thread, tokens per second of CPU time, and the shares of a pass and of the rest of the step, medians over repeated
//! steps. `candle.rs` measures the same step with candle as it is; `peers/step.py` runs PyTorch's, and interleaves both
//! with this one.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod common;

use std::error::Error;

use common::{Clock, RATE, Setting};
use nanochat_train::Recipe;
use nanochat_train::backend::Backend;
use nanochat_train::model::{Graph, Params};
use nanochat_train::optim::Update;
use nanochat_train::pool::Pool;

// glibc gives large pages back on each free, which is 40 % of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let setting = Setting::from_args()?;
    for shape in &setting.shapes {
        measure(shape, &setting)?;
    }
    Ok(())
}

fn measure(shape: &str, setting: &Setting) -> Result<(), Box<dyn Error>> {
    let config = setting.config(shape)?;
    let mut params = Params::init(&config, 1);
    let optimizer = Recipe::load("adapt")?.optimizer;
    let pool = Pool::new(setting.n_threads)?;
    let mut moments = optimizer.moments(&params);
    let batches = setting.batches(&config);
    let mut backend = Backend::fused(&params, batches.len());
    let mut clock = Clock::default();
    for step_idx in 0..=setting.n_steps {
        let mut step = clock.start();
        let graph = Graph::with_pool(&params, setting.matmul, &pool);
        step.lap("round");
        let loss = backend.gradients_rounded(&graph, &params, &batches, setting.weight() as f32, &pool)?;
        step.lap("gradients");
        let rounded = graph.into_rounded();
        let sum = backend.sum(&pool);
        step.lap("sum");
        let update = Update { factor: RATE, precision: setting.matmul.precision, step: step_idx + 1 };
        optimizer.step(&mut params, &mut moments, sum, update, &pool);
        step.lap("optimizer");
        drop(rounded);
        step.lap("free");
        step.end(loss);
    }
    clock.report(setting, shape, params.n_values());
    Ok(())
}
