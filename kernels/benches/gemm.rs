//! f32 and bf16 products at the shapes of a training step, one thread, including rounding and packing of the left
//! side: `cargo bench -p nanochat-kernels --bench gemm`. Rounds alternate; medians.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use nanochat_kernels::{Gemm, Isa, Lhs, PackBuffer, Panels, Precision, Write};

/// m, k, n, whether the left side is read by columns, and what it is there for.
const SHAPES: [(usize, usize, usize, bool, &str); 8] = [
    (1024, 256, 8192, false, "logits"),
    (1024, 8192, 256, false, "head, input"),
    (8192, 126, 256, true, "head, weights, few rows"),
    (8192, 1024, 256, true, "head, weights"),
    (1024, 1536, 256, false, "gate and up, input"),
    (1536, 1024, 256, true, "gate and up, weights"),
    (256, 1024, 768, true, "down, weights"),
    (1024, 2304, 384, false, "20M: gate and up, input"),
];
const N_ROUNDS: usize = 15;

fn main() {
    println!("bf16 by {}", Precision::bf16_unit().unwrap_or("f32 arithmetic"));
    println!("{:>24} {:>6} {:>6} {:>6} {:>12} {:>12}", "", "m", "k", "n", "f32 GFLOP/s", "bf16 GFLOP/s");
    for (m, k, n, by_columns, name) in SHAPES {
        let numbers = |len: usize| -> Vec<f32> { (0..len).map(|i| (i * 7919 % 1013) as f32 / 506.5 - 1.0).collect() };
        let (lhs, rhs) = (numbers(m * k), numbers(k * n));
        let mut storage = vec![0.0f32; m * n + 1024];
        let skip = storage.as_ptr().align_offset(64);
        let out = &mut storage[skip..];
        let mut buffer = PackBuffer::default();
        let mut seconds = [const { Vec::new() }; 2];
        let panels = [Precision::F32, Precision::Bf16].map(|precision| {
            let mut panels = Panels::new(precision);
            panels.fill_rows(k, n, &rhs, n);
            panels
        });
        for _ in 0..N_ROUNDS {
            for (panels, seconds) in panels.iter().zip(&mut seconds) {
                let lhs = if by_columns { Lhs::Columns(&lhs, m) } else { Lhs::Rows(&lhs, k) };
                let start = Instant::now();
                Gemm::new(m, lhs, panels).write(Isa::best(), out, n, Write::Store, &mut buffer);
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        let [f32, bf16] = seconds.map(|mut seconds: Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            2.0 * (m * k * n) as f64 / seconds[N_ROUNDS / 2] / 1e9
        });
        println!("{name:>24} {m:>6} {k:>6} {n:>6} {f32:>12.0} {bf16:>12.0}");
    }
}
