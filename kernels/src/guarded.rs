//! Buffers that start and end at pages that fault: a routine that reads or writes outside its operands crashes its
//! test.
//!
//! With AddressSanitizer, where a nightly toolchain is installed (the standard library itself is not instrumented):
//! `RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p nanochat-kernels --lib --target x86_64-unknown-linux-gnu`

use std::ffi::c_void;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE: usize = 64 << 10; // the largest of the systems that have routines

/// Numbers between two pages that fault when they are touched.
pub(crate) struct Guarded {
    mapping: *mut c_void,
    n_bytes: usize,
    at_end: bool,
}

impl Guarded {
    /// Room for `n_bytes`, at the end of a page or at the start of one.
    pub(crate) fn new(n_bytes: usize, at_end: bool) -> Self {
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
    pub(crate) fn fill<T: Copy>(values: &[T], at_end: bool) -> (Self, &'static mut [T]) {
        let guarded = Self::new(size_of_val(values), at_end);
        // SAFETY: the mapping holds so many bytes, aligned because the length is a multiple of the size; the slice is
        // used only while `guarded` lives (the tests below).
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
pub(crate) fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 24
    }
}
