//! What a run measured, for people and for machines.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub seed: u64,
    pub nodes: usize,
    pub scenario: String,
    /// From the last start until every node could route to everything.
    pub formed_ms: Percentiles,
    /// Frames and bytes until then, in all.
    pub forming_frames: u64,
    pub forming_bytes: u64,
    /// Frames' bytes in a quiet stretch, loads and probes included; `null` where there was none.
    pub bytes_per_node_s: Option<f64>,
    pub dead_removed_ms: Percentiles,
    pub heal_ms: Percentiles,
    pub hop_exact: bool,
    pub virtual_ms: u64,
    /// Over everything that happened, in order.
    pub trace: String,
    pub violations: Vec<String>,
}

/// Of a few measurements; `null` where there was none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Percentiles {
    pub p50: Option<u64>,
    pub p99: Option<u64>,
    #[serde(skip)]
    samples: Vec<u64>,
}

impl Percentiles {
    pub fn add(&mut self, sample: u64) {
        let at = self.samples.partition_point(|other| *other < sample);
        self.samples.insert(at, sample);
        self.p50 = Some(self.samples[self.samples.len() / 2]);
        self.p99 = Some(self.samples[(self.samples.len() * 99).div_ceil(100) - 1]);
    }
}

impl Report {
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report of numbers and texts serialises")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "formed            {} ms, {} frames, {} bytes", self.formed_ms, self.forming_frames, self.forming_bytes)?;
        if let Some(bytes) = self.bytes_per_node_s {
            writeln!(f, "quiet             {bytes:.0} bytes/s per node")?;
        }
        writeln!(f, "dead removed      {} ms", self.dead_removed_ms)?;
        writeln!(f, "healed            {} ms", self.heal_ms)?;
        writeln!(f, "hops exact        {}", self.hop_exact)?;
        writeln!(f, "virtual time      {} ms, trace {}", self.virtual_ms, self.trace)?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "VIOLATED          {violation}"))
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.p50, self.p99) {
            (Some(p50), Some(p99)) => write!(f, "{p50} / {p99}"),
            _ => f.write_str("-"),
        }
    }
}
