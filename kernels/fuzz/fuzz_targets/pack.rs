//! Bytes that claim to be a ternary matrix: refused with an error, or the same product from every form and routine.
//!
//! `kernels/fuzz/run.sh pack -max_total_time=300`
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanochat_kernels::{
    Base3Matrix, Int8Rows, Isa, Plan, Pool, Prepared, ScaleGroup, Shape, Ternary, TernaryMatrix, Write,
};

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_first_chunk::<8>() else { return };
    let wide = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    // Small shapes are the interesting ones; one bit asks for shapes that overflow.
    let huge = if head[7] & 0x80 != 0 { usize::MAX / 300 } else { 1 };
    let shape = Shape { rows: (wide(0) % 300).wrapping_mul(huge), cols: (wide(2) % 600).wrapping_mul(huge) };
    let group = match head[6] % 3 {
        0 => ScaleGroup::Matrix,
        1 => ScaleGroup::Row,
        _ => ScaleGroup::Columns(wide(4) % 300),
    };
    // Scales come first, four bytes each, any bits; what is missing is missing.
    let n_scales = (usize::from(head[7] & 0x7f) + 1) * if head[6] & 0x80 != 0 { 1 } else { shape.rows.min(300) };
    let (scales, bytes) = rest.split_at(rest.len().min(n_scales * 4));
    let scales: Vec<f32> =
        scales.chunks_exact(4).map(|scale| f32::from_le_bytes(scale.try_into().expect("four bytes"))).collect();
    let trits: Vec<i8> = bytes.iter().map(|byte| *byte as i8).collect();
    let _ = TernaryMatrix::from_trits(shape, group, trits, scales.clone());
    let Ok(packed) = Base3Matrix::new(shape, group, bytes, scales) else { return };
    let plain = TernaryMatrix::from_trits(shape, group, packed.trits(), packed.scales().to_vec())
        .expect("what one form takes, the other does too");
    let pool = Pool::new(1);
    let floats: Vec<f32> = (0..2 * shape.cols).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut x = Int8Rows::new(shape.cols);
    x.quantize(Isa::SCALAR, &pool, &floats);
    let mut outcomes = Vec::new();
    for isa in Isa::available() {
        let plan = Plan { isa, ..Plan::default() };
        for prepared in [Prepared::new(&[&packed], plan), Prepared::new(&[&plain], plan)] {
            let mut y = vec![0.0f32; 2 * shape.rows];
            prepared.gemm(&pool, &x, &mut y, Write::Store);
            outcomes.push(y.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        }
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{shape:?} {group:?}");
});
