//! Buffers on cache-line pairs.

/// 128 bytes on a 128-byte boundary: two lines, which is what the adjacent-line prefetcher fetches.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Pair([u8; 128]);

/// Zeroed bytes that begin on a 128-byte boundary.
#[derive(Clone, Default)]
pub(crate) struct AlignedBytes {
    pairs: Vec<Pair>,
    len: usize,
}

impl AlignedBytes {
    pub(crate) fn zeroed(len: usize) -> Self {
        Self { pairs: vec![Pair([0; 128]); len.div_ceil(128)], len }
    }

    /// Makes the length `len`. Bytes that were there stay; others are zero, or what stood there before.
    pub(crate) fn resize(&mut self, len: usize) {
        self.pairs.resize(len.div_ceil(128), Pair([0; 128]));
        self.len = len;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `pairs` owns at least `len` initialised bytes, contiguous because `Pair` has no padding.
        unsafe { std::slice::from_raw_parts(self.pairs.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; the borrow of `self` is unique.
        unsafe { std::slice::from_raw_parts_mut(self.pairs.as_mut_ptr().cast(), self.len) }
    }

    pub(crate) fn as_i8(&self) -> &[i8] {
        // SAFETY: as in `as_slice`; every byte is a valid i8.
        unsafe { std::slice::from_raw_parts(self.pairs.as_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// A mutable slice that several workers write to, each its own part.
pub(crate) struct Parts<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: the parts handed out are disjoint (the caller of `part` promises it), so this is `&mut [T]` cut up.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// The elements `from..from + len`.
    ///
    /// # Safety
    /// The slice given to [`Parts::new`] is still mutably borrowed, and no two parts that live at the same time overlap.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from.checked_add(len).is_some_and(|end| end <= self.len), "{from} + {len} of {}", self.len);
        // SAFETY: in bounds by the assertion, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}
