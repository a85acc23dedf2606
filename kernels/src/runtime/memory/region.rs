//! Address space in 2 MB pages that weights share, allocated from the front.
//!
//! ```text
//! region      [2 MB-aligned, 32 MB or one large allocation]   reserved; a page takes memory once it is written to
//! allocation  [4 KB-aligned]                                  its pages are freed when it is dropped
//! ```
//!
//! A region is unmapped with its last allocation.
//!
//! One matrix is seldom 2 MB, so matrices of a model follow each other: a 25M model is six large pages, and at most one
//! of them is not full. On systems other than Linux there are no regions, and weights are on the heap.

use std::ptr::NonNull;

/// Bytes of a region, on small-page boundaries.
#[derive(Debug)]
pub(super) struct Allocation {
    start: NonNull<u8>,
    #[cfg(target_os = "linux")]
    n_bytes: usize,
    #[cfg(target_os = "linux")]
    _region: std::sync::Arc<linux::Region>,
}

impl Allocation {
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

/// `len` zeroed bytes, or `None` where the system has no such pages or refuses.
#[cfg(not(target_os = "linux"))]
pub(super) fn take(_len: usize, _node: usize) -> Option<Allocation> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn take_region(_len: usize) -> Option<Allocation> {
    None
}

#[cfg(target_os = "linux")]
pub(super) use linux::{take, take_region};

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::c_void;
    use std::ptr::NonNull;
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::Allocation;

    const LARGE_PAGE: usize = 2 << 20;
    /// A multiple of every machine's page size up to 64 KB: only whole pages can be freed.
    const PAGE: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };
    /// Address space of a region, in bytes; only what is written to takes memory.
    const REGION: usize = 32 << 20;

    /// An anonymous private mapping.
    #[derive(Debug)]
    pub(super) struct Region {
        start: NonNull<u8>,
        n_bytes: usize,
        /// The offset of the first free byte.
        used: Mutex<usize>,
    }

    // SAFETY: a region is address space; the allocations decide who may touch which bytes, and they are disjoint.
    unsafe impl Send for Region {}
    // SAFETY: as above; a lock guards `used`.
    unsafe impl Sync for Region {}

    /// The region that each node's next allocation is cut from.
    static CURRENT: Mutex<Vec<Weak<Region>>> = Mutex::new(Vec::new());

    pub(in crate::runtime::memory) fn take(len: usize, node: usize) -> Option<Allocation> {
        let n_bytes = len.checked_next_multiple_of(PAGE).filter(|n| *n > 0)?;
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if current.len() <= node {
            current.resize(node + 1, Weak::new());
        }
        if let Some(allocation) = current[node].upgrade().and_then(|region| cut(&region, n_bytes)) {
            return Some(allocation);
        }
        let region = Arc::new(Region::reserve(n_bytes.max(REGION).checked_next_multiple_of(LARGE_PAGE)?)?);
        current[node] = Arc::downgrade(&region);
        cut(&region, n_bytes)
    }

    /// As [`take`], in a region of its own: for short-lived buffers.
    pub(in crate::runtime::memory) fn take_region(len: usize) -> Option<Allocation> {
        let n_bytes = len.checked_next_multiple_of(PAGE).filter(|n| *n > 0)?;
        cut(&Arc::new(Region::reserve(n_bytes.checked_next_multiple_of(LARGE_PAGE)?)?), n_bytes)
    }

    fn cut(region: &Arc<Region>, n_bytes: usize) -> Option<Allocation> {
        let mut used = region.used.lock().unwrap_or_else(PoisonError::into_inner);
        if n_bytes > region.n_bytes - *used {
            return None;
        }
        // SAFETY: within the mapping by the comparison above.
        let start = unsafe { region.start.add(*used) };
        *used += n_bytes;
        Some(Allocation { start, n_bytes, _region: Arc::clone(region) })
    }

    impl Region {
        fn reserve(n_bytes: usize) -> Option<Self> {
            // Mappings start on small pages: one extra large page leaves room to start on a large one.
            let n_reserved = n_bytes.checked_add(LARGE_PAGE)?;
            let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
            // SAFETY: a new anonymous mapping at an address of the system's choice touches nothing that is there.
            let base = unsafe { mmap_anonymous(std::ptr::null_mut(), n_reserved, access, flags) }.ok()?;
            let before = base.cast::<u8>().align_offset(LARGE_PAGE);
            let after = LARGE_PAGE - before;
            let start = base.cast::<u8>().wrapping_add(before);
            for (from, n) in [(base.cast::<u8>(), before), (start.wrapping_add(n_bytes), after)] {
                if n > 0 {
                    // SAFETY: a part of the mapping just made, which nobody has a pointer to yet. If the system keeps
                    // it, untouched address space is lost and nothing else.
                    let _ = unsafe { munmap(from.cast::<c_void>(), n) };
                }
            }
            // SAFETY: the mapping is ours. Advice that is refused leaves small pages, which is slower and not wrong.
            let _ = unsafe { madvise(start.cast(), n_bytes, Advice::LinuxHugepage) };
            Some(Self { start: NonNull::new(start)?, n_bytes, used: Mutex::new(0) })
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: each allocation holds its region, so none is left that points into it.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.n_bytes) };
        }
    }

    impl Drop for Allocation {
        fn drop(&mut self) {
            // SAFETY: the pages are this allocation's alone and nobody borrows them any more. They are never given out
            // again, so it does not matter that they would read as zero.
            let _ = unsafe { madvise(self.start.as_ptr().cast(), self.n_bytes, Advice::LinuxDontNeed) };
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// A node that no other test uses.
        const NODE: usize = 77;

        #[test]
        fn allocations_share_a_region_that_ends_with_the_last_of_them() {
            let allocations: Vec<_> = (0..4).map(|i| take(100_000 + i, NODE).expect("memory")).collect();
            let region = Arc::downgrade(&allocations[0]._region);
            assert!(allocations.iter().all(|allocation| Arc::ptr_eq(&allocation._region, &allocations[0]._region)));
            assert!(allocations[0].start.addr().get().is_multiple_of(LARGE_PAGE));
            let mut starts: Vec<_> = allocations.iter().map(|allocation| allocation.start.addr().get()).collect();
            starts.sort_unstable();
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 100_000usize.next_multiple_of(PAGE)));
            let large = take(REGION + 1, NODE).expect("memory");
            assert!(!Arc::ptr_eq(&large._region, &allocations[0]._region), "it does not fit into the first");
            drop(large);
            for allocation in allocations {
                assert!(region.upgrade().is_some());
                drop(allocation);
            }
            assert!(region.upgrade().is_none());
        }

        #[test]
        fn sizes_that_no_machine_has_are_refused() {
            assert!(take(0, NODE + 1).is_none());
            assert!(take(usize::MAX, NODE + 1).is_none());
            assert!(take(usize::MAX - LARGE_PAGE * 2, NODE + 1).is_none());
        }
    }
}
