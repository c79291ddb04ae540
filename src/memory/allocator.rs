#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "asks the C library's allocator"))]

/// Has the allocator give memory that is free back to the kernel: it keeps what was freed for what comes next, which counts as
/// in use. Takes as long as going through all that is free.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes a number and the allocator's own locks, and moves nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    /// Bytes that the process has in memory.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn what_is_free_goes_back_to_the_kernel() {
        const EACH: usize = 16 * 1024;
        if !cfg!(target_env = "gnu") {
            return;
        }
        let mut blocks: Vec<Vec<u8>> = (0..8192).map(|_| vec![1; EACH]).collect();
        // The last one stays, and keeps the allocator from giving back by itself what lies before it.
        let last = blocks.pop();
        drop(blocks);
        let before = resident();
        super::give_back();
        let after = resident();
        assert!(after + 64 * 1024 * 1024 < before, "{before} bytes before, {after} after");
        drop(last);
    }
}
