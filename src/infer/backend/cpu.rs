use std::fs;
use std::num::NonZero;
use std::thread;

/// What the CPU can do that matters to inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuFeatures {
    /// Integer and float vectors of 256 bits.
    pub avx2: bool,
    /// Vectors of 512 bits.
    pub avx512: bool,
    /// Dot products of 8-bit integers (AVX-512 or AVX).
    pub vnni: bool,
    /// Multiplies bfloat16 (AVX-512 or AMX), so that lower precision is faster.
    pub bf16: bool,
}

impl CpuFeatures {
    /// Of this machine, as the kernel lists them.
    #[must_use]
    pub fn detect() -> Self {
        fs::read_to_string("/proc/cpuinfo").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// This machine's processor, how many cores of it there are for this process, and what they can: what measurements
    /// depend on.
    #[must_use]
    pub fn machine() -> String {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        format!("{}, {cores} cores, {:?}", Self::name(), Self::detect())
    }

    /// Name of this machine's processor, as the kernel tells it.
    fn name() -> String {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
    }

    fn parse(cpuinfo: &str) -> Self {
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let has = |wanted: &[&str]| flags.split_whitespace().any(|flag| wanted.contains(&flag));
        Self {
            avx2: has(&["avx2"]),
            avx512: has(&["avx512f"]),
            vnni: has(&["avx512_vnni", "avx_vnni"]),
            bf16: has(&["avx512_bf16", "amx_bf16"]),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words() {
        let old = CpuFeatures::parse("processor\t: 0\nflags\t\t: fpu sse2 avx avx2 fma\n");
        assert_eq!(old, CpuFeatures { avx2: true, ..CpuFeatures::default() });
        let new = CpuFeatures::parse("flags\t: avx2 avx512f avx512_vnni amx_bf16\n");
        assert_eq!(new, CpuFeatures { avx2: true, avx512: true, vnni: true, bf16: true });
        assert_eq!(CpuFeatures::parse(""), CpuFeatures::default());
    }
}
