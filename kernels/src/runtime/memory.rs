//! Buffers aligned to pairs of cache lines: short-lived ones on the heap, long-lived ones in large pages.

mod large;
mod node_chunks;
mod region;

pub use large::LargeBytes;
pub(crate) use node_chunks::NodeChunks;

use std::ptr::NonNull;

use region::Allocation;

/// 128 bytes on a 128-byte boundary: two cache lines, the unit of the adjacent-line prefetcher.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Pair([u8; 128]);

/// The smallest buffer, in bytes, for which large pages are worth a system call.
const LARGE: usize = 1 << 20;

/// Zeroed bytes that start on a 128-byte boundary.
pub(crate) struct AlignedBytes {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

enum Owner {
    Heap(Vec<Pair>),
    Region(#[expect(dead_code, reason = "held for its drop")] Allocation),
}

// SAFETY: `start` points into `owner`, which this value owns alone: the bytes are reached through borrows of it only.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above; `&AlignedBytes` only reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` zeroed bytes on the heap.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut bytes = Self::default();
        bytes.resize(len);
        bytes
    }

    /// In 2 MB pages where the system gives them, packed together with other weights; on the heap otherwise. Best for
    /// what lives as long as a model. Buffers with different `node`s share no page; the thread that first writes to a
    /// page decides on which node it is.
    pub(crate) fn for_weights(len: usize, node: usize) -> Self {
        match region::take(len, node) {
            Some(allocation) => Self { start: allocation.start(), len, owner: Owner::Region(allocation) },
            None => Self::zeroed(len),
        }
    }

    /// In 2 MB pages of its own, untouched; `None` if the system gives none or `len` is too small to matter.
    fn own_pages(len: usize) -> Option<Self> {
        let allocation = if len < LARGE { None } else { region::take_region(len) };
        allocation.map(|allocation| Self { start: allocation.start(), len, owner: Owner::Region(allocation) })
    }

    /// Changes the length to `len`. Existing bytes are kept; new ones are zero, or hold what an earlier, longer buffer
    /// held.
    pub(crate) fn resize(&mut self, len: usize) {
        if let Owner::Region(_) = self.owner {
            let mut pairs = vec![Pair([0; 128]); self.len.div_ceil(128)];
            // SAFETY: `pairs` has at least `self.len` bytes, and the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr(), pairs.as_mut_ptr().cast(), self.len) };
            self.owner = Owner::Heap(pairs);
        }
        if let Owner::Heap(pairs) = &mut self.owner {
            pairs.resize(len.div_ceil(128), Pair([0; 128]));
            self.start = start_of(pairs);
            self.len = len;
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the owner has at least `len` initialised bytes at `start`; `Pair` has no padding.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; the borrow of `self` is unique, and so is the owner.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn as_i8(&self) -> &[i8] {
        // SAFETY: as in `as_slice`; every byte is a valid i8.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }
}

fn start_of(pairs: &mut [Pair]) -> NonNull<u8> {
    NonNull::new(pairs.as_mut_ptr().cast()).expect("a slice's pointer is never null")
}

impl Default for AlignedBytes {
    fn default() -> Self {
        let mut pairs = Vec::new();
        Self { start: start_of(&mut pairs), len: 0, owner: Owner::Heap(pairs) }
    }
}

impl Clone for AlignedBytes {
    /// A copy on the heap, wherever the original is.
    fn clone(&self) -> Self {
        let mut bytes = Self::zeroed(self.len);
        bytes.as_mut_slice().copy_from_slice(self.as_slice());
        bytes
    }
}

/// Reinterprets bytes as two's-complement numbers, which is how files store int8 values.
pub fn as_i8(bytes: &[u8]) -> &[i8] {
    // SAFETY: u8 and i8 have the same size and alignment, and every byte is a valid i8.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// A mutable slice that several workers write to at the same time, each its own disjoint part.
pub(crate) struct DisjointMut<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: the parts handed out are disjoint (the caller of `part` promises it), so this is a `&mut [T]` split among
// threads.
unsafe impl<T: Send> Sync for DisjointMut<T> {}

impl<T> DisjointMut<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// A pointer to the first element.
    pub(crate) fn pointer(&self) -> *mut T {
        self.start
    }

    /// The elements `from..from + len`.
    ///
    /// # Safety
    /// The slice given to [`DisjointMut::new`] is still mutably borrowed, and no two parts that live at the same time
    /// overlap.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from.checked_add(len).is_some_and(|end| end <= self.len), "{from} + {len} of {}", self.len);
        // SAFETY: in bounds by the assertion, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_zero_aligned_and_disjoint_wherever_they_are_allocated() {
        for len in [0, 1, 127, 128, 4096, 5000, 3 << 20] {
            let mut all: Vec<_> = (0..3).map(|_| AlignedBytes::for_weights(len, 0)).collect();
            all.push(AlignedBytes::zeroed(len));
            for (i, bytes) in all.iter_mut().enumerate() {
                assert_eq!(bytes.as_slice().len(), len);
                assert!(bytes.as_slice().as_ptr().addr().is_multiple_of(128));
                assert!(bytes.as_slice().iter().all(|byte| *byte == 0));
                bytes.as_mut_slice().fill(i as u8 + 1);
            }
            let copies: Vec<_> = all.iter().map(AlignedBytes::clone).collect();
            for (i, bytes) in all.iter().chain(&copies).enumerate() {
                assert!(bytes.as_slice().iter().all(|byte| usize::from(*byte) == i % 4 + 1), "{len} bytes, buffer {i}");
            }
        }
    }

    #[test]
    fn growing_keeps_the_existing_bytes() {
        for mut bytes in [AlignedBytes::for_weights(300, 0), AlignedBytes::zeroed(300)] {
            bytes.as_mut_slice().fill(7);
            bytes.resize(100_000);
            assert!(bytes.as_slice()[..300].iter().all(|byte| *byte == 7));
            assert!(bytes.as_slice()[300..].iter().all(|byte| *byte == 0));
            bytes.resize(10);
            assert_eq!(bytes.as_i8(), [7; 10]);
        }
    }
}
