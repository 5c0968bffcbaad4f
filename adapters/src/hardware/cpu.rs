//! Reads `/proc/cpuinfo` and `/proc/meminfo`. Pure; where a system has neither, everything is unknown.

use std::collections::BTreeSet;

/// A machine's processors, taken together.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Cpu {
    pub model: String,
    /// Physical cores; 0 where unknown.
    pub cores: u32,
    /// What the system can run at once, hyper-threads included.
    pub threads: u32,
    /// AVX2 and FMA: what the built-in engine is compiled for on x86-64.
    pub avx2: bool,
    pub avx512: bool,
}

pub fn read_cpuinfo(text: &str) -> Cpu {
    let mut cores = BTreeSet::new();
    let mut cpu = Cpu::default();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let value = |key: &str| {
            block.lines().find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == key)).map(|(_, v)| v.trim())
        };
        if value("processor").is_none() {
            continue;
        }
        let unnumbered = cpu.threads.to_string();
        cpu.threads += 1;
        cores.insert((value("physical id").unwrap_or("0").to_owned(), value("core id").unwrap_or(&unnumbered).to_owned()));
        if cpu.model.is_empty() {
            cpu.model = value("model name").or_else(|| value("CPU implementer")).unwrap_or_default().to_owned();
            let flags: BTreeSet<&str> = value("flags").unwrap_or_default().split_whitespace().collect();
            cpu.avx2 = flags.contains("avx2") && flags.contains("fma");
            cpu.avx512 = flags.contains("avx512f");
        }
    }
    cpu.cores = cores.len() as u32;
    cpu
}

/// Total and available memory in bytes.
pub fn read_meminfo(text: &str) -> (u64, u64) {
    let kilobytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    let bytes = |key: &str| kilobytes(key).unwrap_or(0).saturating_mul(1024);
    (bytes("MemTotal"), bytes("MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_threads_are_not_cores() {
        let cpu = read_cpuinfo(include_str!("../../testdata/cpu/cpuinfo.txt"));
        assert_eq!((cpu.model.as_str(), cpu.cores, cpu.threads), ("AMD EPYC 9654 96-Core Processor", 2, 4));
        assert!(cpu.avx2 && cpu.avx512);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(read_meminfo("MemTotal:        8000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n"), (8_192_000, 4_096_000));
        assert_eq!(read_meminfo(""), (0, 0));
        assert_eq!(read_cpuinfo("garbage").cores, 0);
    }
}
