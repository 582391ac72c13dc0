//! How much freed memory the gate keeps.

use std::hint::black_box;

/// glibc gives the free end of the heap back to the system when it is larger than a threshold, at first 128 KiB. A few large
/// bodies at a time free and take as much over and over, and each page that comes back costs a fault: 12 for each MiB.
const BLOCK_BYTES: usize = 4 << 20;

/// Has glibc keep up to 8 MiB of what is freed: twice the largest block that it has seen freed (`mallopt(3)`, "dynamic mmap
/// threshold"). With another allocator this does nothing.
pub(super) fn keep_what_is_freed() {
    drop(black_box(Vec::<u8>::with_capacity(BLOCK_BYTES)));
}
