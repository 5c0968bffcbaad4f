//! What a run measured, for people and for machines.

use std::fmt;

use serde::Serialize;

/// The fields up to `violations` are what runs are compared by; more may follow behind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub seed: u64,
    pub nodes: usize,
    pub scenario: String,
    /// From a record's signing until the last live node holds it.
    pub delivery_ms: Percentiles,
    /// Sent by one node in a second of the steady window.
    pub bytes_per_node_s: Spread,
    /// Copies received for each that was news, less one.
    pub redundancy: Option<f64>,
    /// Hops that the last copy of a publication travelled, on average.
    pub last_delivery_hop: Option<f64>,
    /// From a kill until 99 % of the live nodes no longer route to the killed one.
    pub dead_removed_ms: Percentiles,
    /// From a change (heal, mass death, restart) until every table is right again; the worst where there were several.
    pub heal_ms: Option<u64>,
    /// Distances equalled breadth-first search whenever the world was at rest.
    pub hop_exact: bool,
    /// What a node holds of each known node and shares with nobody.
    pub table_bytes: Option<u64>,
    pub violations: Vec<String>,
    /// From the last start until every table was right.
    pub formed_ms: Option<u64>,
    /// From a revocation until nobody knows the revoked; absent where nobody was revoked.
    #[serde(skip_serializing_if = "Percentiles::is_empty")]
    pub revoked_gone_ms: Percentiles,
    pub false_deaths: u64,
    /// Origins that found no room, over all nodes.
    pub refused: u64,
    pub virtual_ms: u64,
    /// Real time.
    pub wall_ms: u64,
    /// Over everything that happened, in order.
    pub trace: String,
}

/// Of a number of measurements; `null` where there was none.
#[derive(Clone, Debug, Default)]
pub struct Percentiles(Vec<u64>);

/// Over nodes; `null` where nothing was measured.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    pub mean: Option<f64>,
    pub p99: Option<f64>,
}

impl Percentiles {
    pub fn add(&mut self, sample: u64) {
        let at = self.0.partition_point(|other| *other < sample);
        self.0.insert(at, sample);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn p50(&self) -> Option<u64> {
        self.rank(50)
    }

    pub fn p99(&self) -> Option<u64> {
        self.rank(99)
    }

    /// The smallest sample that so many percent do not exceed.
    fn rank(&self, percent: usize) -> Option<u64> {
        self.0.get((self.0.len() * percent).div_ceil(100).saturating_sub(1)).copied()
    }
}

impl Serialize for Percentiles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            p50: Option<u64>,
            p99: Option<u64>,
        }
        Shown { p50: self.p50(), p99: self.p99() }.serialize(serializer)
    }
}

impl Spread {
    /// Mean and 99th percentile, rounded to whole numbers.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        let p99 = samples.get((samples.len() * 99).div_ceil(100).saturating_sub(1)).copied();
        Self { mean: p99.map(|_| mean.round()), p99: p99.map(f64::round) }
    }
}

impl Report {
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report of numbers and texts serialises")
    }

    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// One line for lists of runs.
    pub fn line(&self) -> String {
        let verdict = if self.is_good() { "ok  " } else { "FAIL" };
        let Self { scenario, nodes, seed, delivery_ms, dead_removed_ms, wall_ms, .. } = self;
        let (heal_ms, bytes) = (shown(self.heal_ms), shown(self.bytes_per_node_s.mean));
        let mut line = format!(
            "{verdict} {scenario} nodes {nodes} seed {seed}: delivery {delivery_ms} ms, {bytes} B/s, dead removed \
             {dead_removed_ms} ms, healed {heal_ms} ms; {wall_ms} ms real"
        );
        self.violations.iter().for_each(|violation| line.push_str(&format!("\n     {violation}")));
        line
    }
}

fn shown<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (redundancy, last_hop) = (self.redundancy.map(|r| (r * 100.0).round() / 100.0), self.last_delivery_hop);
        writeln!(f, "formed            {} ms", shown(self.formed_ms))?;
        writeln!(f, "delivery          {} ms (p50 / p99), last hop {}", self.delivery_ms, shown(last_hop))?;
        writeln!(f, "redundancy        {}", shown(redundancy))?;
        let Spread { mean, p99 } = self.bytes_per_node_s;
        writeln!(f, "steady            {} / {} bytes/s per node (mean / p99)", shown(mean), shown(p99))?;
        writeln!(f, "dead removed      {} ms (p50 / p99)", self.dead_removed_ms)?;
        if !self.revoked_gone_ms.is_empty() {
            writeln!(f, "revoked gone      {} ms (p50 / p99)", self.revoked_gone_ms)?;
        }
        writeln!(f, "healed            {} ms", shown(self.heal_ms))?;
        writeln!(f, "hops exact        {}", self.hop_exact)?;
        writeln!(f, "table             {} bytes per known node", shown(self.table_bytes))?;
        writeln!(f, "false deaths      {}, refused {}", self.false_deaths, self.refused)?;
        writeln!(f, "virtual time      {} ms, trace {}; {} ms real", self.virtual_ms, self.trace, self.wall_ms)?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "VIOLATED          {violation}"))
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", shown(self.p50()), shown(self.p99()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let mut samples = Percentiles::default();
        assert_eq!((samples.p50(), samples.p99()), (None, None));
        (1..=200).rev().for_each(|sample| samples.add(sample));
        assert_eq!((samples.p50(), samples.p99()), (Some(100), Some(198)));
        let spread = Spread::of(vec![1.0, 3.0]);
        assert_eq!((spread.mean, spread.p99), (Some(2.0), Some(3.0)));
    }

    #[test]
    fn the_fields_that_runs_are_compared_by_come_first_and_in_order() {
        let json = Report::default().json();
        let at = |field: &str| json.find(&format!("\"{field}\":")).unwrap_or_else(|| panic!("no {field} in {json}"));
        let fields = [
            "seed",
            "nodes",
            "scenario",
            "delivery_ms",
            "bytes_per_node_s",
            "redundancy",
            "last_delivery_hop",
            "dead_removed_ms",
            "heal_ms",
            "hop_exact",
            "table_bytes",
            "violations",
        ];
        assert!(fields.map(at).is_sorted());
    }
}
