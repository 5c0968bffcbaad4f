//! When to start a child process again, and how its end is told. Pure: time comes in.
//!
//! The wait doubles from 250 ms to 30 s. A child that served a request and has lived for ten seconds counts as recovered; one that answers
//! and dies on the next request would otherwise be restarted at full speed for ever.

use std::time::Duration;

/// The first wait.
pub const WAIT_MIN: Duration = Duration::from_millis(250);
/// The longest wait.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// A child that lived this long and served somebody has recovered.
pub const RECOVERED_AFTER: Duration = Duration::from_secs(10);
/// From this many failures in a row the backend is down, not merely degraded.
pub const DOWN_AFTER_FAILURES: u32 = 3;

/// The restarts of one child.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Backoff {
    failures: u32,
    not_before: Duration,
    reason: String,
}

impl Backoff {
    /// The child ended unasked at `now`, having lived for `lived`.
    pub fn failed(&mut self, now: Duration, lived: Duration, reason: String) {
        if lived >= RECOVERED_AFTER {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + self.wait();
        self.reason = reason;
    }

    /// A child that has lived for `lived` served a request to its end.
    pub fn served(&mut self, lived: Duration) {
        if lived >= RECOVERED_AFTER {
            *self = Self::default();
        }
    }

    /// How long to wait at `now` before the next start.
    pub fn wait_at(&self, now: Duration) -> Duration {
        self.not_before.saturating_sub(now)
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Why the last one ended; empty while nothing failed.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn wait(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        WAIT_MIN.saturating_mul(1 << doublings).min(WAIT_MAX)
    }
}

/// How a process ended, in words that say what to do where that is known.
pub fn end_of_process(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (_, Some(signal)) => {
            let (name, hint) = signal_name(signal);
            format!("it was ended by {name}{hint}")
        }
        (Some(code), None) => format!("it exited with code {code}"),
        (None, None) => "it ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> (String, &'static str) {
    match signal {
        libc::SIGILL => ("SIGILL".into(), " (this CPU lacks AVX2, which the built-in engine was compiled for)"),
        libc::SIGABRT => ("SIGABRT".into(), " (the engine gave up on its input)"),
        libc::SIGSEGV => ("SIGSEGV".into(), " (a fault in the engine, or a damaged model file)"),
        libc::SIGBUS => ("SIGBUS".into(), " (the model file changed while it was in use)"),
        libc::SIGKILL => ("SIGKILL".into(), " (killed from outside; often the system ran out of memory)"),
        libc::SIGTERM => ("SIGTERM".into(), ""),
        libc::SIGFPE => ("SIGFPE".into(), ""),
        other => (format!("signal {other}"), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_its_bound() {
        let mut backoff = Backoff::default();
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..40 {
            backoff.failed(now, Duration::from_secs(1), "x".into());
            waits.push(backoff.wait_at(now));
            now += backoff.wait_at(now);
            assert_eq!(backoff.wait_at(now), Duration::ZERO);
        }
        assert_eq!(waits[..4], [250, 500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(waits[39], WAIT_MAX);
    }

    #[test]
    fn only_a_long_life_is_recovery() {
        let mut backoff = Backoff::default();
        backoff.failed(Duration::ZERO, Duration::ZERO, "x".into());
        backoff.served(RECOVERED_AFTER - Duration::from_millis(1));
        backoff.failed(Duration::ZERO, Duration::ZERO, "y".into());
        assert_eq!((backoff.failures(), backoff.reason()), (2, "y"));
        backoff.failed(Duration::ZERO, RECOVERED_AFTER, "z".into());
        assert_eq!((backoff.failures(), backoff.wait_at(Duration::ZERO)), (1, WAIT_MIN));
        backoff.served(RECOVERED_AFTER);
        assert_eq!(backoff, Backoff::default());
    }

    #[test]
    fn a_missing_instruction_set_is_named() {
        assert!(end_of_process(None, Some(libc::SIGILL)).contains("AVX2"));
        assert_eq!(end_of_process(Some(1), None), "it exited with code 1");
    }
}
