//! The heap after a configuration was read: the one file of the daemon with `unsafe` in it, for
//! no crate wraps this call.
#![allow(unsafe_code)]

/// Gives back to the kernel what is free. glibc does so by itself only at the end of the heap,
/// and only past twice the largest block ever unmapped (mallopt(3), `M_TRIM_THRESHOLD`): of
/// 500 doors 0.8 MiB would stay for good.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer, touches free memory alone and may be called
    // from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
