//! Small questions to the kernel: limits, io_uring's switches, file locks, socket buffers.
#![expect(unsafe_code, reason = "system calls that the standard library lacks")]

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

/// The limits of this process that a node depends on, as they stand after [`raise_limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory that may be locked, in bytes; `u64::MAX` for no limit.
    pub memlock_bytes: u64,
    /// Files that may be open.
    pub files: u64,
}

/// Raises the soft limits for locked memory and open files to the hard ones. Called once, when a
/// process starts. What cannot be raised stays; the answer says what there is.
pub fn raise_limits() -> Limits {
    Limits { memlock_bytes: raise(libc::RLIMIT_MEMLOCK), files: raise(libc::RLIMIT_NOFILE) }
}

fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let Some(mut limit) = limit(resource) else { return 0 };
    if limit.rlim_cur < limit.rlim_max {
        let soft = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to a live, initialised structure of the right type.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            limit.rlim_cur = soft;
        }
    }
    limit.rlim_cur
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live, initialised structure of the right type.
    (unsafe { libc::getrlimit(resource, &raw mut limit) } == 0).then_some(limit)
}

/// Keeps the kernel from giving this process huge pages: they take more than was asked for, and a fault that zeroes one
/// takes a hundred times as long as another.
pub fn forgo_huge_pages() {
    // SAFETY: this option takes integers only. Where the kernel does not know it, there is nothing to forgo.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// The soft limit for locked memory in bytes.
pub fn memlock_bytes() -> u64 {
    limit(libc::RLIMIT_MEMLOCK).map_or(0, |limit| limit.rlim_cur)
}

/// The value of `kernel.io_uring_disabled`, if the kernel has it.
pub fn io_uring_disabled() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Whether a file system lives in memory only, as far as the kernel says.
pub fn is_memory_backed(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    // SAFETY: all-zero bytes are a valid `statfs`, a structure of integers.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the pointer is to a live structure of the right type.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut status) };
    result == 0 && [libc::TMPFS_MAGIC, 0x8584_58f6_u32 as i64].contains(&(status.f_type as i64))
}

/// Reserves the blocks of a file, so that writes need not find them one by one.
pub fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open and nothing else is passed but integers.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks for socket buffers beyond the limit for ordinary users; without the right to do so the
/// ordinary request made before stands.
pub fn force_socket_buffers(socket: &impl AsRawFd, bytes: usize) {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        // SAFETY: the pointer is to a live integer of the length given.
        unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), length)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_raised_to_the_hard_ones() {
        let raised = raise_limits();
        assert_eq!(raised.memlock_bytes, memlock_bytes());
        assert_eq!(raised, raise_limits());
    }
}
