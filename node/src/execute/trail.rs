//! What the audit is told of a request: one line at its end, however it ends.

use std::time::Instant;

use atmo_capabilities::route::Candidate;

use super::{Ask, ExecuteError};
use crate::audit::event::Asked;
use crate::audit::{Audit, Event, Text};

/// A request under way. Dropping it writes the line: without a word from anybody, its client hung up.
pub struct Trail {
    pub asked: Asked,
    audit: Audit,
    began: Instant,
}

impl Trail {
    pub fn new(audit: Audit, ask: &Ask) -> Self {
        Self { asked: Asked::new(&ask.trace, ask.operation, &ask.caller), audit, began: Instant::now() }
    }

    /// Somebody began to answer, after `failed` others did not.
    pub fn answered(&mut self, by: &Candidate, status: u16, failed: usize) {
        let asked = &mut self.asked;
        (asked.capability, asked.node) = (Some(Text::new(&by.name)), Some(by.id.node));
        (asked.status, asked.failed) = (Some(status), failed);
    }

    /// Nobody answered. Why each did not is for the log: engines quote what they were sent.
    pub fn failed(&mut self, error: &ExecuteError, outcome: &'static str) {
        self.asked.outcome = if error.busy_for().is_some() { "busy" } else { outcome };
        if let ExecuteError::AllFailed(attempts) = error {
            self.asked.failed = attempts.len();
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.asked.milliseconds = self.began.elapsed().as_millis() as u64;
        self.audit.note(Event::Asked(self.asked.clone()));
    }
}
