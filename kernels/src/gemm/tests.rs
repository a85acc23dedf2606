use super::pack::blocks;
use super::*;

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + seed) * 7919) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// Σ over k in order, rounded as the routines do: blocks of k are summed by themselves.
fn expected(m: usize, k: Range<usize>, n: Range<usize>, lhs: impl Fn(usize, usize) -> f32, rhs: &[f32]) -> Vec<f32> {
    let n_all = rhs.len() / k.end;
    let one = |row: usize, col: usize| {
        blocks(k.clone(), f32::K_BLOCK).fold(0.0f32, |sum, block| {
            sum + block.fold(0.0f32, |sum, i| lhs(row, i - k.start).mul_add(rhs[i * n_all + col], sum))
        })
    };
    (0..m).flat_map(|row| n.clone().map(move |col| (row, col))).map(|(row, col)| one(row, col)).collect()
}

#[test]
fn every_instruction_set_sums_in_the_stated_order_at_awkward_shapes() {
    for (m, k, n) in [(1, 1, 1), (5, 3, 17), (6, 16, 16), (13, 300, 40), (97, 40, 33), (110, 257, 16), (7, 30, 150)] {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let (mut by_rows, mut by_columns) = (Panels::default(), Panels::default());
        by_columns.fill_rows(300, 50, &numbers(15_000, 3), 50); // what it held before must not show
        by_rows.fill_rows(k, n, &b, n);
        by_columns.fill_columns(k, n, &transposed, k);
        let sums = expected(m, 0..k, 0..n, |row, i| a[row * k + i], &b);
        let sums_of_columns = expected(m, 0..k, 0..n, |row, i| a[i * m + row], &b);
        for isa in Isa::available() {
            for rhs in [&by_rows, &by_columns] {
                let mut out = vec![f32::NAN; m * n];
                Gemm::new(m, Lhs::Rows(&a, k), rhs).write(isa, &mut out, n, Write::Store, &mut PackBuffer::default());
                assert_eq!(out, sums, "{} {m} × {k} × {n}", isa.name());
                Gemm::new(m, Lhs::Columns(&a, m), rhs).write(
                    isa,
                    &mut out,
                    n,
                    Write::Store,
                    &mut PackBuffer::default(),
                );
                assert_eq!(out, sums_of_columns, "{} {m} × {k} × {n}, columns", isa.name());
            }
        }
    }
}

#[test]
fn a_part_of_the_right_side_is_added_and_the_rest_of_the_output_is_untouched() {
    let (m, k, n) = (7, 40, 50);
    let (a, b) = (numbers(m * k, 4), numbers(k * n, 5));
    let mut rhs = Panels::default();
    rhs.fill_rows(k, n, &b, n);
    let part = Gemm { m, lhs: Lhs::Rows(&a, k), rhs: &rhs, k: 8..31, n: 16..39 };
    let sums = expected(m, 8..31, 16..39, |row, i| a[row * k + i], &b[..31 * n]);
    for isa in Isa::available() {
        let mut out = vec![1.0; m * 30];
        part.write(isa, &mut out, 30, Write::Add, &mut PackBuffer::default());
        for (row, sums) in out.chunks_exact(30).zip(sums.chunks_exact(23)) {
            let added: Vec<f32> = sums.iter().map(|sum| 1.0 + sum).collect();
            assert_eq!(row[..23], added);
            assert_eq!(row[23..], [1.0; 7]);
        }
    }
}

#[test]
fn a_matrix_packed_once_gives_the_same_products() {
    let mut matrix = PackedMatrix::default();
    for precision in [Precision::F32, Precision::Bf16] {
        matrix.resize(precision, 70, 300);
        matrix.pack(Isa::best(), 0..300, &[f32::NAN; 70 * 300], 300); // what it held before must not show
        for (rows, cols) in [(1, 1), (37, 600), (290, 512), (300, 270)] {
            let a = numbers(rows * cols, 1);
            for isa in Isa::available() {
                matrix.resize(precision, rows, cols);
                for columns in blocks(0..cols, PackedMatrix::COLUMNS) {
                    matrix.pack(isa, columns.clone(), &a[columns.start..], cols);
                }
                let sides = [
                    (rows, cols, matrix.as_is(), Lhs::Rows(&a, cols)),
                    (cols, rows, matrix.transposed(), Lhs::Columns(&a, cols)),
                ];
                for (m, k, packed, lhs) in sides {
                    let mut rhs = Panels::new(precision);
                    rhs.fill_rows(k, 20, &numbers(k * 20, 2), 20);
                    let [mut found, mut expected] = [(); 2].map(|()| vec![0.5; m * 20]);
                    for (out, lhs) in [(&mut found, packed), (&mut expected, lhs)] {
                        Gemm::new(m, lhs, &rhs).write(isa, out, 20, Write::Add, &mut PackBuffer::default());
                    }
                    assert_eq!(found, expected, "{precision:?} {} {m} × {k}", isa.name());
                }
            }
        }
    }
}

#[test]
fn an_empty_sum_is_zero() {
    let mut rhs = Panels::default();
    rhs.fill_rows(4, 16, &numbers(64, 1), 16);
    let product = Gemm { m: 2, lhs: Lhs::Rows(&[], 0), rhs: &rhs, k: 2..2, n: 0..16 };
    let mut out = [1.0; 32];
    product.write(Isa::best(), &mut out, 16, Write::Add, &mut PackBuffer::default());
    assert_eq!(out, [1.0; 32]);
    product.write(Isa::best(), &mut out, 16, Write::Store, &mut PackBuffer::default());
    assert_eq!(out, [0.0; 32]);
}
