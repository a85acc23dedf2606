//! Ternary matrices, unpacked: row-major int8 trits and f32 scales.

use serde::{Deserialize, Serialize};

/// The dimensions of a matrix: output × input features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Output features: the length of a row of results.
    pub rows: usize,
    /// Input features: the length of a row of x.
    pub cols: usize,
}

/// How many weights share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleGroup {
    /// The whole matrix has one scale (BitNet b1.58).
    Matrix,
    /// Each row has a scale of its own.
    Row,
    /// Each run of this many columns of a row has a scale. The width is a multiple of 16 that divides the columns, or
    /// all of them.
    Columns(usize),
}

impl ScaleGroup {
    /// The number of scales of a matrix of `shape`.
    pub fn n_scales(self, shape: Shape) -> usize {
        match self {
            Self::Matrix => 1,
            Self::Row => shape.rows,
            Self::Columns(width) => shape.rows * (shape.cols / width),
        }
    }

    /// The number of weights that share one scale.
    pub fn len(self, shape: Shape) -> usize {
        match self {
            Self::Matrix => shape.rows * shape.cols,
            Self::Row => shape.cols,
            Self::Columns(width) => width,
        }
    }
}

/// The most columns that a matrix may have. Above 2^31 / (64 · 127) columns a 32-bit sum of codes times int8 could
/// overflow, and above 2^31 / (85 · 127) its initial value; this is the largest power of two below both.
pub const MAX_COLS: usize = 1 << 17;

/// Why a shape, weights and scales do not form a ternary matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A dimension is 0, or the product overflows.
    #[error("a matrix cannot be {rows} × {cols}")]
    Shape {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
    },
    /// A row is longer than sums of 32 bits allow.
    #[error("rows of {cols} weights, where {MAX_COLS} is the maximum")]
    Wide {
        /// Columns asked for.
        cols: usize,
    },
    /// The scale group does not divide the columns, or cuts a block of 16.
    #[error("groups of {width} columns, where a multiple of 16 that divides {cols} is required")]
    Group {
        /// Columns in a group.
        width: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// A part has the wrong length.
    #[error("{what}: {found} where the shape needs {expected}")]
    Length {
        /// `weights`, `bytes` or `scales`.
        what: &'static str,
        /// What the shape needs.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A weight is not −1, 0 or +1.
    #[error("weight {index} is {value}, which is not ternary")]
    NotTernary {
        /// Row-major index.
        index: usize,
        /// The value found there.
        value: i8,
    },
    /// A byte that does not hold five trits.
    #[error("byte {value} does not hold five ternary weights")]
    Byte {
        /// The value of the byte.
        value: u8,
    },
    /// Trits other than 0 after the last weight.
    #[error("non-zero padding after the last weight")]
    Padding,
    /// A scale is negative, infinite or not a number.
    #[error("scale {index} is not a finite number of at least 0")]
    Scale {
        /// The index of the scale.
        index: usize,
    },
}

/// A ternary matrix in any form from which it can be prepared.
pub trait Ternary: Sync {
    /// The number of rows and columns.
    fn shape(&self) -> Shape;

    /// Which weights share a scale.
    fn group(&self) -> ScaleGroup;

    /// One scale per group, in row-major order of the groups.
    fn scales(&self) -> &[f32];

    /// Calls `put(row, codes)` for each row in order; a column's code is trit + 1.
    fn each_row(&self, put: &mut dyn FnMut(usize, &[u8]));
}

/// {−1, 0, +1} times a scale: `value = scale(group) · trit`. Immutable.
///
/// ```
/// use nanochat_kernels::{ScaleGroup, Shape, TernaryMatrix};
///
/// let shape = Shape { rows: 1, cols: 4 };
/// let matrix = TernaryMatrix::quantize(&[0.9, -1.1, 0.1, 1.9], shape, ScaleGroup::Matrix);
/// assert_eq!(matrix.trits(), [1, -1, 0, 1]);
/// assert_eq!(matrix.scales(), [1.0]); // the mean of the magnitudes
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TernaryMatrix {
    shape: Shape,
    group: ScaleGroup,
    trits: Vec<i8>,
    scales: Vec<f32>,
}

impl TernaryMatrix {
    /// Rounds weights to ternary: γ = mean|W| of the group, trit = clip(round(W/γ), −1, 1) (arXiv 2402.17764).
    /// γ is summed in f64 in row-major order, so it is the same wherever it is computed.
    ///
    /// # Panics
    /// If `weights` does not fit `shape`, or a group of columns does not divide the row.
    pub fn quantize(weights: &[f32], shape: Shape, group: ScaleGroup) -> Self {
        assert_eq!(weights.len(), shape.rows * shape.cols, "{} weights for {shape:?}", weights.len());
        if let ScaleGroup::Columns(width) = group {
            assert!(
                width > 0 && shape.cols.is_multiple_of(width),
                "groups of {width} columns do not divide {}",
                shape.cols
            );
        }
        let mut trits = Vec::with_capacity(weights.len());
        let mut scales = Vec::with_capacity(group.n_scales(shape));
        for part in weights.chunks_exact(group.len(shape)) {
            let gamma = (part.iter().map(|w| f64::from(w.abs())).sum::<f64>() / part.len() as f64) as f32;
            scales.push(gamma);
            let inverse = if gamma > 0.0 { 1.0 / gamma } else { 0.0 };
            trits.extend(part.iter().map(|w| (w * inverse).round().clamp(-1.0, 1.0) as i8));
        }
        Self { shape, group, trits, scales }
    }

    /// Takes weights that are already ternary, row-major, and their scales.
    pub fn from_trits(shape: Shape, group: ScaleGroup, trits: Vec<i8>, scales: Vec<f32>) -> Result<Self, PackError> {
        let n_weights = check_parts(shape, group, &scales)?;
        if trits.len() != n_weights {
            return Err(PackError::Length { what: "weights", expected: n_weights, found: trits.len() });
        }
        if let Some(index) = trits.iter().position(|t| !(-1..=1).contains(t)) {
            return Err(PackError::NotTernary { index, value: trits[index] });
        }
        Ok(Self { shape, group, trits, scales })
    }

    /// The number of rows and columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Which weights share a scale.
    pub fn group(&self) -> ScaleGroup {
        self.group
    }

    /// −1, 0 or +1, row-major.
    pub fn trits(&self) -> &[i8] {
        &self.trits
    }

    /// One scale per group, in row-major order of the groups.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The scale of each row as products use it, tiny ones as 0; `None` where a row has several scales.
    pub fn row_scales(&self) -> Option<Vec<f32>> {
        let scales = match self.group() {
            ScaleGroup::Matrix => vec![self.scales()[0]; self.shape().rows],
            ScaleGroup::Row => self.scales().to_vec(),
            ScaleGroup::Columns(_) => return None,
        };
        Some(scales.into_iter().map(usable_scale).collect())
    }

    /// Writes the weights as f32, row-major.
    ///
    /// # Panics
    /// If `out` does not hold `rows × cols` numbers.
    pub fn dequantize_into(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.trits.len(), "{} outputs for {:?}", out.len(), self.shape);
        let len = self.group.len(self.shape);
        for ((out, trits), scale) in out.chunks_exact_mut(len).zip(self.trits.chunks_exact(len)).zip(&self.scales) {
            for (out, trit) in out.iter_mut().zip(trits) {
                *out = scale * f32::from(*trit);
            }
        }
    }
}

impl Ternary for TernaryMatrix {
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
        let mut codes = Vec::with_capacity(self.shape.cols);
        for (row_idx, row) in self.trits.chunks_exact(self.shape.cols).enumerate() {
            codes.clear();
            codes.extend(row.iter().map(|trit| (trit + 1).cast_unsigned()));
            put(row_idx, &codes);
        }
    }
}

/// Smaller scales count as 0: dividing one by 64 would lose bits. 2^−126 is the smallest normal number.
pub(super) const MIN_SCALE: f32 = f32::MIN_POSITIVE * 64.0;

/// The scale as products use it: 0 where dividing it by a plane factor would lose bits.
pub(crate) fn usable_scale(scale: f32) -> f32 {
    if scale < MIN_SCALE { 0.0 } else { scale }
}

/// Checks shape, group and scales; returns the number of weights.
pub(crate) fn check_parts(shape: Shape, group: ScaleGroup, scales: &[f32]) -> Result<usize, PackError> {
    let Shape { rows, cols } = shape;
    let n_weights = rows.checked_mul(cols).filter(|n| *n > 0).ok_or(PackError::Shape { rows, cols })?;
    if cols > MAX_COLS {
        return Err(PackError::Wide { cols });
    }
    if let ScaleGroup::Columns(width) = group
        && (width == 0 || !cols.is_multiple_of(width) || !(width.is_multiple_of(16) || width == cols))
    {
        return Err(PackError::Group { width, cols });
    }
    if scales.len() != group.n_scales(shape) {
        return Err(PackError::Length { what: "scales", expected: group.n_scales(shape), found: scales.len() });
    }
    match scales.iter().position(|scale| !(scale.is_finite() && *scale >= 0.0)) {
        Some(index) => Err(PackError::Scale { index }),
        None => Ok(n_weights),
    }
}
