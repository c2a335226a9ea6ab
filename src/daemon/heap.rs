//! Settings of the heap, whose defaults are made for busier programs. This is the one file of the daemon
//! with `unsafe` in it, for no crate wraps these calls. `tests/daemon/memory.rs` measures their effect.
#![allow(unsafe_code)]

/// Makes all threads use one heap. Call it before there is a second thread. By default each thread
/// gets a heap of its own, and the configurations of two reloads may lie in two heaps.
pub(super) fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes no pointer, and no other thread is in the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel. glibc does so by itself only at the end of the heap, and only
/// past twice the largest block ever unmapped (mallopt(3), `M_TRIM_THRESHOLD`). With 500 doors 0.4 MiB
/// would stay for good, and 1.0 MiB after a reload.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer, touches free memory alone and may be called
    // from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
