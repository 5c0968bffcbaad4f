//! What this machine can compute with, for `atmo doctor` and `status`.
//!
//! Text of the system and of vendors' tools is read by pure parsers; this file alone opens files and starts tools, each bounded in time.
//! Absent so far: AMD and Apple accelerators.

use std::process::Stdio;
use std::time::Duration;

pub mod cpu;
pub mod nvidia;

pub use cpu::Cpu;
pub use nvidia::NvidiaGpu;

/// How long a vendor's tool may take; a GPU that has gone to sleep takes a second or two.
const TOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// One machine.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize)]
pub struct Hardware {
    pub cpu: Cpu,
    /// 0 where the system does not say.
    pub memory_bytes: u64,
    pub memory_available_bytes: u64,
    pub nvidia: Vec<NvidiaGpu>,
}

/// Looks at this machine.
pub async fn detect() -> Hardware {
    let (memory_bytes, memory_available_bytes) = cpu::read_meminfo(&read("/proc/meminfo"));
    Hardware { cpu: detect_cpu(), memory_bytes, memory_available_bytes, nvidia: detect_nvidia().await }
}

/// The processor alone; fast.
pub fn detect_cpu() -> Cpu {
    let mut cpu = cpu::read_cpuinfo(&read("/proc/cpuinfo"));
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u32);
    // A container may use fewer than the machine has.
    cpu.threads = threads;
    cpu.cores = if cpu.cores == 0 { threads } else { cpu.cores.min(threads) };
    cpu
}

async fn detect_nvidia() -> Vec<NvidiaGpu> {
    let mut tool = tokio::process::Command::new("nvidia-smi");
    tool.args(nvidia::QUERY).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(TOOL_TIMEOUT, tool.output()).await {
        Ok(Ok(output)) if output.status.success() => nvidia::read_query(&String::from_utf8_lossy(&output.stdout)),
        _ => Vec::new(),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor() {
        let cpu = detect_cpu();
        assert!(cpu.cores >= 1 && cpu.threads >= cpu.cores, "{cpu:?}");
    }
}
