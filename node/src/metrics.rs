//! What a node counts about itself, in Prometheus' text format below `/metrics`.
//!
//! Every label has a handful of values: no model, node or caller by name. Gauges are read when they are asked for.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The counters of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests of this node's own users, by how they ended before their first byte.
    pub asked: IntCounterVec,
    /// Answers of this node's own users, by how they ended after it: `whole`, `broken`, `abandoned`.
    pub ended: IntCounterVec,
    /// Requests that reached this node's own backends, by who asked and what became of them.
    pub served: IntCounterVec,
    attempts_failed: IntCounterVec,
    queue_wait: Histogram,
    first_token: Histogram,
    tokens_per_second: Histogram,
    running: IntGauge,
    waiting: IntGauge,
    circuits_open: IntGauge,
    resident_bytes: IntGauge,
    /// Peers that this node gossips with.
    pub links: IntGauge,
    /// Connections to other nodes, whatever for.
    pub connections: IntGauge,
    dials: IntCounterVec,
    /// Loads that were asked for, by outcome.
    pub quotes: IntCounterVec,
}

/// What gauges show at the moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    pub running: usize,
    pub waiting: usize,
    pub circuits_open: usize,
}

/// Seconds, from what nobody notices to what nobody waits for.
const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
const TOKENS_PER_SECOND: &[f64] = &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0];

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name, help, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels).expect("the names are well formed"))
        };
        let gauge = |name, help| registered(&registry, IntGauge::new(name, help).expect("the names are well formed"));
        let histogram = |name, help, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, Histogram::with_opts(options).expect("the buckets ascend"))
        };
        Self {
            asked: counter("atmo_asked_total", "Requests of this node's users: answered, nothing_fits, failed", &["outcome"]),
            ended: counter("atmo_answers_total", "Answers that began, by their end: whole, broken, abandoned", &["end"]),
            served: counter(
                "atmo_served_total",
                "Requests that reached this node's backends, by caller: accepted, busy, refused",
                &["outcome", "caller"],
            ),
            attempts_failed: counter("atmo_attempts_failed_total", "Candidates that did not answer, by cause", &["cause"]),
            queue_wait: histogram("atmo_queue_wait_seconds", "How long requests waited for a slot of this node", SECONDS),
            first_token: histogram("atmo_first_token_seconds", "From a request to the first byte of its answer", SECONDS),
            tokens_per_second: histogram("atmo_tokens_per_second", "How fast this node's backends answered", TOKENS_PER_SECOND),
            running: gauge("atmo_running_requests", "Requests that this node's backends execute now"),
            waiting: gauge("atmo_waiting_requests", "Requests that wait for a slot of this node's backends now"),
            circuits_open: gauge("atmo_circuits_open", "Capabilities that are left alone for a while because they failed"),
            resident_bytes: gauge("atmo_resident_bytes", "Memory that the node's process holds"),
            dials: counter(
                "atmo_dials_total",
                "Nodes that were dialled, for gossip (link) or for requests, and whether they were reached",
                &["purpose", "outcome"],
            ),
            quotes: counter(
                "atmo_quotes_total",
                "Loads asked of other nodes before a choice: answered, unanswered",
                &["outcome"],
            ),
            links: gauge("atmo_links", "Nodes that this node gossips with"),
            connections: gauge("atmo_connections", "Connections to other nodes, for gossip and for requests"),
            registry,
        }
    }

    pub fn attempt_failed(&self, cause: &str) {
        self.attempts_failed.with_label_values(&[cause]).inc();
    }

    pub fn dialled(&self, for_link: bool, reached: bool) {
        let purpose = if for_link { "link" } else { "request" };
        self.dials.with_label_values(&[purpose, if reached { "reached" } else { "failed" }]).inc();
    }

    pub fn waited_in_queue(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    pub fn first_byte_after(&self, wait: Duration) {
        self.first_token.observe(wait.as_secs_f64());
    }

    pub fn spoke_at(&self, tokens_per_second: f32) {
        if tokens_per_second.is_finite() && tokens_per_second > 0.0 {
            self.tokens_per_second.observe(tokens_per_second.into());
        }
    }

    /// Everything as text, with the gauges as they are now.
    pub fn render(&self, now: Now) -> String {
        self.running.set(now.running as i64);
        self.waiting.set(now.waiting as i64);
        self.circuits_open.set(now.circuits_open as i64);
        self.resident_bytes.set(crate::platform::resident_bytes().unwrap_or(0) as i64);
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
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
        metrics.served.with_label_values(&["busy", "owner"]).inc();
        metrics.waited_in_queue(Duration::from_millis(20));
        let text = metrics.render(Now { running: 3, ..Now::default() });
        assert!(text.contains("atmo_served_total{caller=\"owner\",outcome=\"busy\"} 1"), "{text}");
        assert!(text.contains("atmo_running_requests 3"), "{text}");
        assert!(text.contains("atmo_queue_wait_seconds_bucket{le=\"0.03\"} 1"), "{text}");
    }
}
