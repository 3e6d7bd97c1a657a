//! Calls of the C library for the process, because of the threads that are inside of the driver.

/// Ends the process at once, without the destructors of libraries: those wait for a library that does not
/// finish loading, and would run while threads are inside of the driver.
pub fn exit_process(status: u8) -> ! {
    // SAFETY: the call has no preconditions.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Lets all threads share one heap. By default each thread of a new session gets one of up to eight heaps for
/// each core, in another order than before, so that each heap grows to the size of the largest of them.
pub fn share_heap() {
    // SAFETY: the call sets a number of the allocator; no other thread runs yet.
    let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    // Otherwise more memory is used.
    let _ = is_set;
}
