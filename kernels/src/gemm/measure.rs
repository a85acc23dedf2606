//! Which precision is faster on this CPU, measured once.

use std::sync::OnceLock;
use std::time::Instant;

use super::Gemm;
use super::pack::{Lhs, PackBuffer, Panels};
use super::precision::Precision;
use super::unit;
use crate::isa::Isa;
use crate::output::Write;

impl Precision {
    /// The instructions that multiply bf16 on this CPU, if it has any: `amx` or `avx512bf16`.
    pub fn bf16_unit() -> Option<&'static str> {
        unit::name()
    }

    /// The faster precision on this CPU, by a measurement of about a millisecond that runs once: there are CPUs
    /// whose bf16 instructions take four times as long as those of f32.
    pub fn fastest() -> Self {
        static FASTEST: OnceLock<Precision> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            if Self::bf16_unit().is_none() {
                return Self::F32;
            }
            let [f32, bf16] = [Self::F32, Self::Bf16].map(Self::gflops);
            if 0.8 * bf16 > f32 { Self::Bf16 } else { Self::F32 }
        })
    }

    /// The best throughput of a small product in cache over a dozen trials on this core, in GFLOP/s, including packing
    /// the left side each time.
    pub fn gflops(self) -> f64 {
        const SIDE: usize = 128;
        let lhs = vec![1.0; SIDE * SIDE];
        let (mut rhs, mut out, mut buffer) = (Panels::new(self), vec![0.0; SIDE * SIDE], PackBuffer::default());
        rhs.fill_rows(SIDE, SIDE, &lhs, SIDE);
        let product = Gemm::new(SIDE, Lhs::Rows(&lhs, SIDE), &rhs);
        let once = |_| {
            let start = Instant::now();
            product.write(Isa::best(), &mut out, SIDE, Write::Store, &mut buffer);
            start.elapsed().as_secs_f64()
        };
        2e-9 * (SIDE * SIDE * SIDE) as f64 / (0..12).map(once).fold(f64::INFINITY, f64::min)
    }
}
