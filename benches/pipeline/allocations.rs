//! How often something allocates, and how much.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Prints what one of many calls of `work` allocates, after the first.
#[expect(clippy::print_stdout, reason = "this is the report")]
pub(crate) fn tell<T>(name: &str, mut work: impl FnMut() -> T) {
    const CALLS: usize = 10;
    drop(work());
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS {
        drop(work());
    }
    let spent = region.change();
    let (count, bytes) = (spent.allocations / CALLS, spent.bytes_allocated / CALLS);
    println!("{name}: {count} allocations, {bytes} bytes");
}
