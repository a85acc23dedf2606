//! Every routine equals the scalar one bit for bit, on buffers that start and end at pages that fault.

use super::*;
use crate::guarded::{Guarded, noise};

struct Case {
    n_superblocks: usize,
    n_groups: usize,
    stride: usize,
    n_rows: usize,
    add: bool,
}

/// y of `isa`, computed between guard pages.
fn run(isa: Isa, case: &Case, at_end: bool) -> Vec<f32> {
    let &Case { n_superblocks, n_groups, stride, n_rows, add } = case;
    let routine = routine(isa);
    let mut random = noise(stride as u64);
    let mut superblocks = Vec::new();
    for _ in 0..n_superblocks * n_groups {
        superblocks
            .extend((0..stride / n_groups * 16).map(|_| (0..4).fold(0, |byte, _| byte << 2 | (random() % 3) as u8)));
        for lane in 0..64 {
            let scale = (random() % 1000) as f32 * 1e-3 / routine.plane_factors()[lane / 16] as f32;
            superblocks.extend(scale.to_ne_bytes());
        }
    }
    let x: Vec<i8> = (0..n_rows * stride).map(|_| (random() % 255) as i8).map(|x| x.max(-127)).collect();
    let initial_sums: Vec<[i32; 4]> = x
        .chunks_exact(stride / n_groups)
        .map(|group| routine.initial_sums(group.iter().map(|x| i32::from(*x)).sum()))
        .collect();
    let row_scales: Vec<f32> = (0..n_rows).map(|row| 0.25 + row as f32 * 0.1).collect();
    let y: Vec<f32> = (0..n_rows * n_superblocks * 64).map(|i| i as f32 * 0.125).collect();
    let (_superblocks, superblocks) = Guarded::fill(&superblocks, at_end);
    let (_x, x) = Guarded::fill(&x, at_end);
    let (_starts, initial_sums) = Guarded::fill(&initial_sums, at_end);
    let (_row_scales, row_scales) = Guarded::fill(&row_scales, at_end);
    let (_y, y) = Guarded::fill(&y, at_end);
    let operands = TernaryOperands { superblocks, n_groups, x, stride, initial_sums, row_scales };
    // SAFETY: y has 64 numbers for each row and superblock, and rows follow each other.
    unsafe { routine.run(&operands, Output { start: y.as_mut_ptr(), stride: n_superblocks * 64, add }) };
    y.to_vec()
}

#[test]
fn products_stay_within_their_buffers_and_agree_bit_for_bit() {
    for (stride, n_groups) in [(16, 1), (48, 1), (48, 3), (64, 2), (80, 1), (128, 2), (192, 3), (272, 1), (512, 4)] {
        for n_rows in (1..=9).chain([13]) {
            let case = Case { n_superblocks: 1 + n_rows % 3, n_groups, stride, n_rows, add: n_rows % 2 == 0 };
            let expected = run(Isa::SCALAR, &case, true);
            for isa in Isa::available() {
                for at_end in [false, true] {
                    let y = run(isa, &case, at_end);
                    let same = y.iter().zip(&expected).all(|(y, expected)| y.to_bits() == expected.to_bits());
                    assert!(same, "{} {n_rows} rows of {stride} in {n_groups} groups", isa.name());
                }
            }
        }
    }
}
