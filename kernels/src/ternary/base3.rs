//! Ternary matrices as files store them: five trits per byte.
//!
//! ```text
//! byte = Σ (trit_i + 1)·3^i, i < 5, trits in row-major order, zeros after the last
//! ```

use crate::ternary::matrix::{PackError, ScaleGroup, Shape, Ternary, check_parts};

/// A ternary matrix that borrows its bytes from a file's buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Base3Matrix<'a> {
    shape: Shape,
    group: ScaleGroup,
    bytes: &'a [u8],
    scales: Vec<f32>,
}

impl<'a> Base3Matrix<'a> {
    /// Checks bytes and scales once, so that later uses of the matrix need no checks.
    pub fn new(shape: Shape, group: ScaleGroup, bytes: &'a [u8], scales: Vec<f32>) -> Result<Self, PackError> {
        let n_weights = check_parts(shape, group, &scales)?;
        let expected = n_weights.div_ceil(5);
        if bytes.len() != expected {
            return Err(PackError::Length { what: "bytes", expected, found: bytes.len() });
        }
        if bytes.iter().fold(0, |max, byte| max.max(*byte)) > LARGEST {
            let value = bytes.iter().copied().find(|byte| *byte > LARGEST).unwrap_or(u8::MAX);
            return Err(PackError::Byte { value });
        }
        let n_in_last = n_weights - (expected - 1) * 5;
        if unpack_byte(bytes[expected - 1])[n_in_last..].iter().any(|trit| *trit != 0) {
            return Err(PackError::Padding);
        }
        Ok(Self { shape, group, bytes, scales })
    }

    /// −1, 0 or +1, row-major.
    pub fn trits(&self) -> Vec<i8> {
        let mut trits: Vec<i8> = self.bytes.iter().flat_map(|byte| unpack_byte(*byte)).collect();
        trits.truncate(self.shape.rows * self.shape.cols);
        trits
    }
}

impl Ternary for Base3Matrix<'_> {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn group(&self) -> ScaleGroup {
        self.group
    }

    fn scales(&self) -> &[f32] {
        &self.scales
    }

    fn each_row(&self, put: &mut dyn FnMut(usize, &[u8])) {
        let Shape { rows, cols } = self.shape;
        // Five rows are as many bytes as there are columns, so each five rows start on a byte boundary.
        let mut codes = vec![0; 5 * cols + SPILL];
        for (five_idx, bytes) in self.bytes.chunks(cols).enumerate() {
            for (i, byte) in bytes.iter().enumerate() {
                codes[5 * i..][..8].copy_from_slice(&CODES[usize::from(*byte)]);
            }
            for (i, row) in codes.chunks_exact(cols).enumerate().take((rows - five_idx * 5).min(5)) {
                put(five_idx * 5 + i, row);
            }
        }
    }
}

/// Packs trits five per byte; the last byte is padded with zeros.
pub fn pack(trits: &[i8]) -> Vec<u8> {
    let byte = |five: &[i8]| (0..5).rev().fold(0, |byte, i| byte * 3 + (five.get(i).unwrap_or(&0) + 1).cast_unsigned());
    trits.chunks(5).map(byte).collect()
}

/// The largest byte that holds five trits, 3^5 − 1.
const LARGEST: u8 = 242;

/// The five codes of each byte, in order. Eight are copied instead of five, which is a single store; the codes of the
/// next byte overwrite the excess.
const CODES: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut rest, mut i) = (byte, 0);
        while i < 5 {
            table[byte][i] = (rest % 3) as u8;
            rest /= 3;
            i += 1;
        }
        byte += 1;
    }
    table
};
/// Codes that the last copy of eight writes past the end.
const SPILL: usize = 3;

fn unpack_byte(byte: u8) -> [i8; 5] {
    let codes = CODES[usize::from(byte)];
    std::array::from_fn(|i| codes[i].cast_signed() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TernaryMatrix;

    fn trits(n: usize, seed: usize) -> Vec<i8> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i) % 3) as i8 - 1).collect()
    }

    fn codes(matrix: &impl Ternary) -> Vec<Vec<u8>> {
        let mut rows = Vec::new();
        matrix.each_row(&mut |row_idx, codes| {
            assert_eq!(row_idx, rows.len(), "rows come in order");
            rows.push(codes.to_vec());
        });
        rows
    }

    #[test]
    fn every_byte_below_243_is_five_trits_and_back() {
        for byte in 0..=LARGEST {
            assert_eq!(pack(&unpack_byte(byte)), [byte]);
        }
        assert_eq!(pack(&[-1, -1, -1, -1, -1]), [0]);
        assert_eq!(pack(&[1]), [2 + 3 + 9 + 27 + 81]);
    }

    #[test]
    fn malformed_matrices_are_refused() {
        let shape = Shape { rows: 2, cols: 16 };
        let good = pack(&trits(32, 1));
        let new = |bytes: &[u8], scales: &[f32]| {
            Base3Matrix::new(shape, ScaleGroup::Matrix, bytes, scales.to_vec()).map(|matrix| matrix.trits())
        };
        assert_eq!(new(&good, &[1.0]), Ok(trits(32, 1)));
        let mut over = good.clone();
        over[3] = 243;
        assert_eq!(new(&over, &[1.0]), Err(PackError::Byte { value: 243 }));
        let mut beyond = good.clone();
        beyond[6] = if beyond[6] >= 162 { beyond[6] - 81 } else { beyond[6] + 81 };
        assert_eq!(new(&beyond, &[1.0]), Err(PackError::Padding));
        assert_eq!(new(&good[1..], &[1.0]), Err(PackError::Length { what: "bytes", expected: 7, found: 6 }));
        assert_eq!(new(&good, &[f32::NAN]), Err(PackError::Scale { index: 0 }));
        assert_eq!(new(&good, &[]), Err(PackError::Length { what: "scales", expected: 1, found: 0 }));
    }

    proptest! {
        #[test]
        fn a_matrix_has_the_same_codes_from_bytes_as_from_trits(
            rows in 1usize..40, cols in 1usize..90, seed in 0usize..1000,
        ) {
            let shape = Shape { rows, cols };
            let trits = trits(rows * cols, seed);
            let bytes = pack(&trits);
            let packed = Base3Matrix::new(shape, ScaleGroup::Matrix, &bytes, vec![0.5]).expect("in order");
            prop_assert_eq!(packed.trits(), trits.clone());
            let plain =
                TernaryMatrix::from_trits(shape, ScaleGroup::Matrix, trits.clone(), vec![0.5]).expect("ternary");
            prop_assert_eq!(codes(&packed), codes(&plain));
            prop_assert!(codes(&plain).concat().iter().zip(&trits).all(|(code, trit)| code.cast_signed() - 1 == *trit));
        }
    }
}
