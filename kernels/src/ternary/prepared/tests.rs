use proptest::prelude::*;

use super::*;
use crate::ternary::matrix::MIN_SCALE;
use crate::{Isa, TernaryMatrix};

/// Σ in i32 and scales in the documented order, from the unpacked matrix.
fn reference(matrices: &[&TernaryMatrix], x: &Int8Rows) -> Vec<f32> {
    let mut y = Vec::new();
    for row in 0..x.n_rows() {
        for matrix in matrices {
            let Shape { rows, cols } = matrix.shape();
            for out in 0..rows {
                let trits = &matrix.trits()[out * cols..][..cols];
                let width = match matrix.group() {
                    ScaleGroup::Columns(width) => width,
                    _ => cols,
                };
                let mut total = 0.0f32;
                for (group, (trits, x)) in trits.chunks(width).zip(x.row(row).chunks(width)).enumerate() {
                    let sum: i32 = trits.iter().zip(x).map(|(t, x)| i32::from(*t) * i32::from(*x)).sum();
                    let scale = match matrix.group() {
                        ScaleGroup::Matrix => matrix.scales()[0],
                        ScaleGroup::Row => matrix.scales()[out],
                        ScaleGroup::Columns(_) => matrix.scales()[out * (cols / width) + group],
                    };
                    let part = sum as f32 * scale;
                    total = if group == 0 { part } else { total + part };
                }
                y.push(total * x.scales()[row]);
            }
        }
    }
    y
}

fn matrix(shape: Shape, group: ScaleGroup, seed: usize) -> TernaryMatrix {
    let weights: Vec<f32> =
        (0..shape.rows * shape.cols).map(|i| ((i * 7919 + seed * 31) as f32 * 0.613).sin()).collect();
    TernaryMatrix::quantize(&weights, shape, group)
}

#[test]
fn a_matrix_on_several_memory_nodes_gives_the_same_bits() {
    let matrix = matrix(Shape { rows: 64 * 7 + 3, cols: 48 }, ScaleGroup::Row, 1);
    let x = rows(5, 48, |i| (i as f32 * 0.3).cos());
    let expected = reference(&[&matrix], &x);
    for nodes in [vec![], vec![vec![0], vec![0]], vec![vec![0], vec![0, 0], vec![0]], vec![vec![0]; 20]] {
        let topology = Topology::for_tests(&nodes);
        for superblocks_per_piece in [1, 3, 100] {
            let plan = Plan { superblocks_per_piece, ..Plan::default() };
            let mut y = vec![f32::NAN; expected.len()];
            Prepared::on(&[&matrix], plan, &topology).gemm(&Pool::on(3, &topology), &x, &mut y, Write::Store);
            assert_eq!(y, expected, "{} nodes, pieces of {superblocks_per_piece}", topology.n_nodes());
        }
    }
}

fn check(matrices: &[&TernaryMatrix], x: &Int8Rows) {
    let expected = reference(matrices, x);
    for n_threads in [1, 3] {
        let pool = Pool::new(n_threads);
        for isa in Isa::available() {
            let prepared = Prepared::new(matrices, Plan { isa, superblocks_per_piece: 1 });
            let mut y = vec![f32::NAN; expected.len()];
            prepared.gemm(&pool, x, &mut y, Write::Store);
            assert_eq!(y, expected, "{}, {n_threads} threads, {:?}", isa.name(), prepared.shape());
            prepared.gemm(&pool, x, &mut y, Write::Add);
            let doubled: Vec<f32> = expected.iter().map(|y| y + y).collect();
            assert_eq!(y, doubled, "{}, added", isa.name());
        }
    }
}

fn rows(n_rows: usize, cols: usize, value: impl Fn(usize) -> f32) -> Int8Rows {
    let x: Vec<f32> = (0..n_rows * cols).map(value).collect();
    let mut rows = Int8Rows::new(cols);
    rows.quantize(Isa::SCALAR, &Pool::new(1), &x);
    rows
}

#[test]
fn every_routine_equals_the_reference_at_every_tail() {
    let x = |i: usize| (i as f32 * 0.71).cos();
    for cols in 1..=66 {
        let matrix = matrix(Shape { rows: 65, cols }, ScaleGroup::Row, cols);
        check(&[&matrix], &rows(1 + cols % 8, cols, x));
    }
    for out in 1..=130 {
        let matrix = matrix(Shape { rows: out, cols: 20 }, ScaleGroup::Row, out);
        check(&[&matrix], &rows(1 + out % 4, 20, x));
    }
    for n_rows in 1..=27 {
        let matrix = matrix(Shape { rows: 70, cols: 300 }, ScaleGroup::Matrix, n_rows);
        check(&[&matrix], &rows(n_rows, 300, x));
    }
}

#[test]
fn saturated_input_does_not_overflow() {
    // bitnet.cpp's AVX2 routine overflows its 16-bit sums here at 2,560 columns and more.
    let shape = Shape { rows: 64, cols: 6912 };
    for sign in [-1, 1] {
        let matrix =
            TernaryMatrix::from_trits(shape, ScaleGroup::Matrix, vec![sign; 64 * 6912], vec![1.0]).expect("ternary");
        for n_rows in [1, 6] {
            check(&[&matrix], &rows(n_rows, 6912, |_| 1.0));
            check(&[&matrix], &rows(n_rows, 6912, |_| -1.0));
        }
    }
}

#[test]
fn the_widest_matrix_does_not_overflow() {
    let shape = Shape { rows: 3, cols: MAX_COLS };
    for sign in [-1, 1] {
        let trits = vec![sign; shape.rows * shape.cols];
        let matrix = TernaryMatrix::from_trits(shape, ScaleGroup::Matrix, trits, vec![1.0]).expect("ternary");
        check(&[&matrix], &rows(2, MAX_COLS, |i| if i < MAX_COLS { 1.0 } else { -1.0 }));
    }
}

#[test]
fn scales_too_small_to_divide_count_as_zero() {
    for (scale, expected) in [(f32::MIN_POSITIVE, 0.0), (MIN_SCALE, MIN_SCALE * 20.0 * 127.0)] {
        let shape = Shape { rows: 64, cols: 20 };
        let matrix =
            TernaryMatrix::from_trits(shape, ScaleGroup::Matrix, vec![1; 64 * 20], vec![scale]).expect("ternary");
        let x = rows(1, 20, |_| 127.0);
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; 64];
            let plan = Plan { isa, ..Plan::default() };
            Prepared::new(&[&matrix], plan).gemm(&Pool::new(1), &x, &mut y, Write::Store);
            assert_eq!(y, [expected; 64], "{}", isa.name());
        }
    }
}

#[test]
fn groups_of_columns_and_stacked_matrices_keep_their_scales() {
    for width in [16, 48, 64, 128, 192] {
        let group = ScaleGroup::Columns(width);
        let a = matrix(Shape { rows: 40, cols: 384 }, group, 1);
        let b = matrix(Shape { rows: 72, cols: 384 }, group, 2);
        check(&[&a, &b], &rows(7, 384, |i| (i as f32 * 0.3).sin()));
    }
    let a = matrix(Shape { rows: 40, cols: 100 }, ScaleGroup::Matrix, 3);
    let b = matrix(Shape { rows: 72, cols: 100 }, ScaleGroup::Row, 4);
    check(&[&a, &b, &a], &rows(2, 100, |i| (i as f32 * 0.3).sin()));
}

#[test]
fn the_product_agrees_with_f64_within_the_rounding_of_its_input() {
    let shape = Shape { rows: 96, cols: 512 };
    let matrix = matrix(shape, ScaleGroup::Row, 5);
    let floats: Vec<f32> = (0..512).map(|i| (i as f32 * 0.9).sin()).collect();
    let x = rows(1, 512, |i| floats[i]);
    let mut y = vec![0.0; 96];
    Prepared::new(&[&matrix], Plan::default()).gemm(&Pool::new(1), &x, &mut y, Write::Store);
    let mut weights = vec![0.0; 96 * 512];
    matrix.dequantize_into(&mut weights);
    for (row, y) in y.iter().enumerate() {
        let weights = &weights[row * 512..][..512];
        let exact: f64 = weights.iter().zip(&floats).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        // Each of at most 512 non-zero weights multiplies an input that is off by at most half a step.
        let bound = 0.5 * f64::from(x.scales()[0]) * weights.iter().map(|w| f64::from(w.abs())).sum::<f64>();
        assert!((f64::from(*y) - exact).abs() <= bound * 1.001, "row {row}: {y} for {exact} ± {bound}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_routine_equals_the_reference(
        out in 1usize..150,
        cols in 1usize..200,
        n_rows in 1usize..9,
        seed in 0usize..1000,
        saturate in any::<bool>(),
    ) {
        let matrix = matrix(Shape { rows: out, cols }, ScaleGroup::Row, seed);
        check(&[&matrix], &rows(n_rows, cols, |i| {
            let x = ((i + seed) as f32 * 1.37).sin();
            if saturate { x.signum() } else { x }
        }));
    }
}
