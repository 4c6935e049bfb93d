//! The allocator of the process: mimalloc, asked plainly.
//!
//! The usual wrapper asks for each block by its alignment. Of blocks beyond 1 KiB whose class is no
//! power of two mimalloc then takes more and has to find the beginning again when they are freed,
//! though all that it gives out is aligned to 16 octets anyway, which is what nearly everything
//! needs.
#![expect(unsafe_code, reason = "an allocator hands out memory")]

use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::c_void,
};

use libmimalloc_sys as mi;

/// What mimalloc gives without being asked (its `MI_MAX_ALIGN_SIZE`), for blocks that are as large.
const ALIGN: usize = 16;

/// From so many octets on, memory that is to be zero is not written: its pages go back to the
/// system, and come as zeros when they are first touched. Buffers of which little is ever used
/// (quinn's, for what comes in one call: 3 MiB an endpoint) take as little as they use, also where
/// the allocator had the place in use before.
const RENEWED: usize = 1 << 20;
/// A multiple of every size of pages there is.
const PAGES: usize = 64 << 10;

/// # Safety
/// `block` must have `size` octets that nobody else uses, in private memory without a file.
unsafe fn renew(block: *mut u8, size: usize) {
    let head = block.addr().wrapping_neg() % PAGES;
    let whole = size.saturating_sub(head) / PAGES * PAGES;
    // SAFETY: all of it lies inside the block; only whole pages of it go.
    unsafe {
        let gone = libc::madvise(block.add(head).cast(), whole, libc::MADV_DONTNEED);
        if gone == 0 {
            block.write_bytes(0, head);
            block.add(head + whole).write_bytes(0, size - head - whole);
        } else {
            block.write_bytes(0, size);
        }
    }
}

/// For `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

unsafe extern "C" {
    /// Of the allocator, but not among what its crate declares.
    fn mi_collect(force: bool);
}

/// Gives back what the calling thread holds and does not use, and to the system what no thread
/// does.
pub(crate) fn collect() {
    // SAFETY: it may be called at any time, whichever allocator the process uses.
    unsafe { mi_collect(true) }
}

const fn is_plain(align: usize, size: usize) -> bool {
    align <= ALIGN && align <= size
}

// SAFETY: mimalloc gives blocks of at least the size, or null; they are aligned to `ALIGN` or, if
// they are smaller, to their size rounded up to a power of two, and otherwise as asked. Blocks of
// both kinds are freed and resized by the same functions.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: any size and any alignment that a layout has are allowed.
        unsafe {
            if is_plain(align, size) {
                mi::mi_malloc(size).cast()
            } else {
                mi::mi_malloc_aligned(size, align).cast()
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`; what is renewed was just taken.
        unsafe {
            if size >= RENEWED {
                let block = self.alloc(layout);
                if !block.is_null() {
                    renew(block, size);
                }
                return block;
            }
            if is_plain(align, size) {
                mi::mi_zalloc(size).cast()
            } else {
                mi::mi_zalloc_aligned(size, align).cast()
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the block came from one of the above.
        unsafe { mi::mi_free(block.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast::<c_void>(), layout.align());
        // SAFETY: the block came from one of the above; what is plain stays aligned when it moves.
        unsafe {
            if is_plain(align, size) {
                mi::mi_realloc(block, size).cast()
            } else {
                mi::mi_realloc_aligned(block, size, align).cast()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_zero_also_where_others_were() {
        for size in [RENEWED, RENEWED + 1, 3_014_656, (5 << 20) + 4097] {
            for align in [1, 64, 4096] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                for _ in 0..4 {
                    // SAFETY: as below; what is read was given as zeros.
                    unsafe {
                        let block = Allocator.alloc_zeroed(layout);
                        assert!(!block.is_null() && block.addr().is_multiple_of(align));
                        assert!((0..size).all(|at| block.add(at).read() == 0));
                        block.write_bytes(7, size);
                        Allocator.dealloc(block, layout);
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        for align in (0..=12).map(|bits| 1 << bits) {
            for size in [1, 7, 8, 15, 16, 24, 48, 100, 1024, 1025, 4712, 70_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                let more = Layout::from_size_align(size * 3, align).expect("a layout");
                // SAFETY: no size is zero; each block is used within its size and freed once.
                unsafe {
                    let block = Allocator.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    block.write_bytes(7, size);
                    let block = Allocator.realloc(block, layout, size * 3);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    assert!((0..size).all(|at| block.add(at).read() == 7));
                    Allocator.dealloc(block, more);
                    let block = Allocator.alloc_zeroed(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    assert!((0..size).all(|at| block.add(at).read() == 0));
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }
}
