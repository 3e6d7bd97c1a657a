//! How often something allocates, and how much.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often `work` allocates, in all threads.
pub(crate) fn count(work: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    work();
    region.change().allocations
}

/// Prints what one of many calls of `work` allocates, after the first.
pub(crate) fn tell<T>(name: &str, work: impl FnMut() -> T) {
    repeat(name, 10, work);
}

/// The same, for so many calls after the first.
#[expect(clippy::print_stdout, reason = "this is the report")]
pub(crate) fn repeat<T>(name: &str, calls: usize, mut work: impl FnMut() -> T) {
    drop(work());
    let region = Region::new(ALLOCATOR);
    for _ in 0..calls {
        drop(work());
    }
    let spent = region.change();
    let (count, bytes) = (spent.allocations / calls, spent.bytes_allocated / calls);
    println!("{name}: {count} allocations, {bytes} bytes");
}
