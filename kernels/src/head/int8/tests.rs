//! Every routine equals the scalar one, on buffers that start and end at pages that fault.

use super::*;
use crate::guarded::{Guarded, noise};

/// Rows and columns.
fn run(isa: Isa, (n_rows, stride): (usize, usize), at_end: bool) -> Vec<f32> {
    let mut random = noise(stride as u64);
    let weights: Vec<i8> = (0..stride * 64).map(|_| random() as i8).collect();
    let x: Vec<i8> = (0..n_rows * stride).map(|_| (random() % 255) as i8).map(|x| x.max(-127)).collect();
    let mut row_sums = [0i32; 64];
    for (i, weight) in weights.iter().enumerate() {
        row_sums[i % 256 / 4] += i32::from(*weight);
    }
    let scales: Vec<f32> = (0..64).map(|row| 0.5 + row as f32 * 0.01).collect();
    let row_scales: Vec<f32> = (0..n_rows).map(|row| 0.25 + row as f32 * 0.1).collect();
    let (_weights, weights) = Guarded::fill(&weights, at_end);
    let (_row_sums, row_sums) = Guarded::fill(&row_sums, at_end);
    let (_scales, scales) = Guarded::fill(&scales, at_end);
    let (_x, x) = Guarded::fill(&x, at_end);
    let (_row_scales, row_scales) = Guarded::fill(&row_scales, at_end);
    let (_y, y) = Guarded::fill(&vec![0.0f32; n_rows * 64], at_end);
    let operands = Int8Operands { weights, row_sums, scales, x, stride, row_scales };
    // SAFETY: y has 64 numbers for each row, and rows follow each other.
    unsafe { multiply(isa, &operands, Output { start: y.as_mut_ptr(), stride: 64, add: false }) };
    y.to_vec()
}

#[test]
fn products_stay_within_their_buffers_and_agree() {
    for stride in [4, 16, 20, 64, 132, 512] {
        for n_rows in (1..=7).chain([13]) {
            let expected = run(Isa::SCALAR, (n_rows, stride), true);
            for isa in Isa::available() {
                for at_end in [false, true] {
                    let y = run(isa, (n_rows, stride), at_end);
                    assert_eq!(y, expected, "{} {n_rows} rows of {stride}", isa.name());
                }
            }
        }
    }
}
