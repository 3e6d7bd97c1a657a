//! Counts heap allocations and allocated bytes.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations of all threads while `work` runs.
pub(crate) fn count(work: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    work();
    region.change().allocations
}

/// Prints the mean allocations and bytes of ten calls of `work`, after a warm-up call.
pub(crate) fn report<T>(name: &str, work: impl FnMut() -> T) {
    report_calls(name, 10, work);
}

/// Like [`report`], for `calls` calls.
#[expect(clippy::print_stdout, reason = "prints the report")]
pub(crate) fn report_calls<T>(name: &str, calls: usize, mut work: impl FnMut() -> T) {
    drop(work());
    let region = Region::new(ALLOCATOR);
    for _ in 0..calls {
        drop(work());
    }
    let spent = region.change();
    let (count, bytes) = (spent.allocations / calls, spent.bytes_allocated / calls);
    println!("{name}: {count} allocations, {bytes} bytes");
}
