//! Every routine equals the scalar one bit for bit, on buffers that begin and end at pages that fault.
//!
//! With AddressSanitizer, where a nightly toolchain is installed (the standard library itself is not instrumented):
//! `RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p nanochat-kernels --lib --target x86_64-unknown-linux-gnu`

use std::ffi::c_void;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;

const PAGE: usize = 64 << 10; // the largest of the systems that have routines

/// Numbers between two pages that fault when they are touched.
struct Guarded {
    mapping: *mut c_void,
    n_bytes: usize,
    at_end: bool,
}

impl Guarded {
    /// Room for `n_bytes`, at the end of a page or at the start of one.
    fn new(n_bytes: usize, at_end: bool) -> Self {
        let n_pages = n_bytes.div_ceil(PAGE);
        let flags = MprotectFlags::empty();
        // SAFETY: a mapping of our own; its first and last page become inaccessible.
        unsafe {
            let mapping = mmap_anonymous(
                std::ptr::null_mut(),
                (n_pages + 2) * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
            .expect("the system has memory");
            mprotect(mapping, PAGE, flags).expect("a page of ours");
            mprotect(mapping.byte_add((n_pages + 1) * PAGE), PAGE, flags).expect("a page of ours");
            Self { mapping, n_bytes, at_end }
        }
    }

    fn start(&self) -> *mut u8 {
        let gap = if self.at_end { self.n_bytes.next_multiple_of(PAGE) - self.n_bytes } else { 0 };
        self.mapping.cast::<u8>().wrapping_add(PAGE + gap)
    }

    /// A copy of `values`, whose length times size is `n_bytes`.
    fn fill<T: Copy>(values: &[T], at_end: bool) -> (Self, &'static mut [T]) {
        let guarded = Self::new(size_of_val(values), at_end);
        // SAFETY: the mapping holds so many bytes, aligned because the length is a multiple of the size; the slice is used
        // only while `guarded` lives (the tests below).
        let slice = unsafe { std::slice::from_raw_parts_mut(guarded.start().cast(), values.len()) };
        slice.copy_from_slice(values);
        (guarded, slice)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no longer used.
        unsafe { munmap(self.mapping, (self.n_bytes.div_ceil(PAGE) + 2) * PAGE) }.expect("a mapping of ours");
    }
}

/// A sequence that looks random and is the same everywhere.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 24
    }
}

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
    let routine = ternary(isa);
    let mut random = noise(stride as u64);
    let mut superblocks = Vec::new();
    for _ in 0..n_superblocks * n_groups {
        superblocks
            .extend((0..stride / n_groups * 16).map(|_| (0..4).fold(0, |byte, _| byte << 2 | (random() % 3) as u8)));
        for lane in 0..64 {
            let scale = (random() % 1000) as f32 * 1e-3 / routine.units()[lane / 16] as f32;
            superblocks.extend(scale.to_ne_bytes());
        }
    }
    let x: Vec<i8> = (0..n_rows * stride).map(|_| (random() % 255) as i8).map(|x| x.max(-127)).collect();
    let starts: Vec<[i32; 4]> = x
        .chunks_exact(stride / n_groups)
        .map(|group| routine.starts(group.iter().map(|x| i32::from(*x)).sum()))
        .collect();
    let row_scales: Vec<f32> = (0..n_rows).map(|row| 0.25 + row as f32 * 0.1).collect();
    let y: Vec<f32> = (0..n_rows * n_superblocks * 64).map(|i| i as f32 * 0.125).collect();
    let (_superblocks, superblocks) = Guarded::fill(&superblocks, at_end);
    let (_x, x) = Guarded::fill(&x, at_end);
    let (_starts, starts) = Guarded::fill(&starts, at_end);
    let (_row_scales, row_scales) = Guarded::fill(&row_scales, at_end);
    let (_y, y) = Guarded::fill(&y, at_end);
    let product = Product { superblocks, n_groups, x, stride, starts, row_scales };
    // SAFETY: y has 64 numbers for each row and superblock, and rows follow each other.
    unsafe { routine.run(&product, Output { start: y.as_mut_ptr(), stride: n_superblocks * 64, add }) };
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

/// Rows and columns.
fn run_dense(isa: Isa, (n_rows, stride): (usize, usize), at_end: bool) -> Vec<f32> {
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
    let product = Dense { weights, row_sums, scales, x, stride, row_scales };
    // SAFETY: y has 64 numbers for each row, and rows follow each other.
    unsafe { dense(isa, &product, Output { start: y.as_mut_ptr(), stride: 64, add: false }) };
    y.to_vec()
}

#[test]
fn dense_products_stay_within_their_buffers_and_agree() {
    for stride in [4, 16, 20, 64, 132, 512] {
        for n_rows in (1..=7).chain([13]) {
            let expected = run_dense(Isa::SCALAR, (n_rows, stride), true);
            for isa in Isa::available() {
                for at_end in [false, true] {
                    let y = run_dense(isa, (n_rows, stride), at_end);
                    assert_eq!(y, expected, "{} {n_rows} rows of {stride}", isa.name());
                }
            }
        }
    }
}
