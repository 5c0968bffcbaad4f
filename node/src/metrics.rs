//! What a node counts about itself, in Prometheus' text format below `/metrics`.
//!
//! Few series with bounded labels; more come with the first user who needs them. Gauges are read when they are asked for.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The counters of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests of this node's own users, by how they ended before their first byte.
    pub asked: IntCounterVec,
    /// Requests that reached this node's own backends, whoever asked, by what became of them.
    pub served: IntCounterVec,
    running: IntGauge,
    resident_bytes: IntGauge,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name, help| IntCounterVec::new(Opts::new(name, help), &["outcome"]).expect("the names are well formed");
        let gauge = |name, help| IntGauge::new(name, help).expect("the names are well formed");
        let metrics = Self {
            asked: counter("atmo_asked_total", "Requests of this node's users: answered, nothing_fits, failed"),
            served: counter("atmo_served_total", "Requests that reached this node's backends: accepted, busy, refused"),
            running: gauge("atmo_running_requests", "Requests that this node's backends execute now"),
            resident_bytes: gauge("atmo_resident_bytes", "Memory that the node's process holds"),
            registry,
        };
        for counter in [&metrics.asked, &metrics.served] {
            metrics.registry.register(Box::new(counter.clone())).expect("each name is registered once");
        }
        for gauge in [&metrics.running, &metrics.resident_bytes] {
            metrics.registry.register(Box::new(gauge.clone())).expect("each name is registered once");
        }
        metrics
    }

    /// Everything as text, with the gauges as they are now.
    pub fn render(&self, running: usize) -> String {
        self.running.set(running as i64);
        self.resident_bytes.set(crate::platform::resident_bytes().unwrap_or(0) as i64);
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted_by_outcome() {
        let metrics = Metrics::new();
        metrics.served.with_label_values(&["busy"]).inc();
        let text = metrics.render(3);
        assert!(text.contains("atmo_served_total{outcome=\"busy\"} 1"), "{text}");
        assert!(text.contains("atmo_running_requests 3"), "{text}");
    }
}
