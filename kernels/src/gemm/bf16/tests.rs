use super::*;
use crate::gemm::pack::Panels;
use crate::gemm::pack::bf16::rounded_bits;
use crate::gemm::precision::Precision;

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + seed) * 7919) % 1013) as f32 / 506.5 - 1.0).collect()
}

fn rounded(x: f32) -> f64 {
    f64::from(f32::from_bits(rounded_bits(x) << 16))
}

#[test]
fn rounding_is_to_nearest_even_and_keeps_nan() {
    for (x, expected) in [(0x3F80_8000, 0x3F80), (0x3F81_8000, 0x3F82), (0x3F80_8001, 0x3F81), (0xFF80_0000, 0xFF80)] {
        assert_eq!(rounded_bits(f32::from_bits(x)), expected, "{x:x}");
    }
    for bits in [0x7FFF_FFFF, 0x7F80_0001, 0xFFFF_FFFF] {
        assert!(rounded(f32::from_bits(bits)).is_nan());
    }
}

/// A sum in f32 of k products is off by at most k roundings of the sum of the absolute products.
#[test]
fn every_unit_sums_within_the_rounding_of_f32_at_awkward_shapes() {
    for (m, k, n) in [(1, 1, 1), (5, 3, 17), (32, 32, 32), (13, 300, 40), (129, 40, 33), (150, 257, 16), (7, 30, 150)] {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let [mut by_rows, mut by_columns] = [(); 2].map(|()| Panels::new(Precision::Bf16));
        by_columns.fill_rows(300, 50, &numbers(15_000, 3), 50); // what it held before must not show
        by_rows.fill_rows(k, n, &b, n);
        by_columns.fill_columns(k, n, &transposed, k);
        for (unit, isa) in
            Unit::available().iter().flat_map(|unit| Isa::available().into_iter().map(|isa| (*unit, isa)))
        {
            for rhs in [&by_rows, &by_columns] {
                for (columns, lhs) in [(false, Lhs::Rows(&a, k)), (true, Lhs::Columns(&a, m))] {
                    let mut out = vec![0.5; m * n];
                    write(&Gemm::new(m, lhs, rhs), unit, isa, &mut out, n, Write::Add, &mut Vec::new());
                    for (i, out) in out.iter().enumerate() {
                        let a =
                            |k_idx: usize| rounded(if columns { a[k_idx * m + i / n] } else { a[i / n * k + k_idx] });
                        let terms: Vec<f64> = (0..k).map(|k_idx| a(k_idx) * rounded(b[k_idx * n + i % n])).collect();
                        let sum = 0.5 + terms.iter().sum::<f64>();
                        let bound = (k + 2) as f64
                            * f64::from(f32::EPSILON)
                            * (0.5 + terms.iter().map(|t| t.abs()).sum::<f64>());
                        let off = (f64::from(*out) - sum).abs();
                        assert!(off <= bound, "{unit:?} {} {m} × {k} × {n} at {i}: {out} for {sum}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn whole_numbers_are_exact_in_a_part_and_the_rest_of_the_output_is_untouched() {
    let (m, k, n) = (37, 290, 70);
    let whole =
        |n: usize, seed: usize| -> Vec<f32> { (0..n).map(|i| ((i * 31 + seed * 7) % 255) as f32 - 127.0).collect() };
    let (a, b) = (whole(m * k, 1), whole(k * n, 2));
    let mut rhs = Panels::new(Precision::Bf16);
    rhs.fill_rows(k, n, &b, n);
    let part = Gemm { m, lhs: Lhs::Rows(&a, k), rhs: &rhs, k: 6..281, n: 16..59 };
    for unit in Unit::available() {
        let mut out = vec![7.0; m * 50];
        write(&part, *unit, Isa::best(), &mut out, 50, Write::Store, &mut Vec::new());
        for (row, out) in out.chunks_exact(50).enumerate() {
            for (column, out) in out.iter().enumerate() {
                let sum: f32 = (0..275).map(|i| a[row * k + i] * b[(i + 6) * n + column + 16]).sum();
                assert_eq!(*out, if column < 43 { sum } else { 7.0 }, "{unit:?} row {row} column {column}");
            }
        }
    }
}
