//! How a node ends: the first signal or `atmo down` drains, the second ends at once.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::platform::EndSignals;

/// Shared by everything that has to end. Clones stand for the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    at_once: CancellationToken,
    failure: Arc<OnceLock<&'static str>>,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes no new work, finishes what runs.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Ends the node because it must not go on; the process exits with this reason. The first one counts.
    pub fn fail(&self, why: &'static str) {
        tracing::error!(why, "stopping");
        _ = self.failure.set(why);
        self.drain();
    }

    pub fn failure(&self) -> Option<&'static str> {
        self.failure.get().copied()
    }

    /// Drops what runs.
    fn end_at_once(&self) {
        self.drain.cancel();
        self.at_once.cancel();
    }

    /// Ready once draining began.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.drain.cancelled()
    }

    /// Ready once what runs is to be dropped.
    pub fn ending_at_once(&self) -> WaitForCancellationFuture<'_> {
        self.at_once.cancelled()
    }

    /// For parts that take a token; cancelled when draining begins.
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Listens for signals from now on, in a task of its own.
    pub fn obey_signals(&self) -> io::Result<()> {
        let mut signals = EndSignals::listen()?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            let signal = signals.next().await;
            tracing::info!(signal, "draining; once more ends at once");
            shutdown.drain();
            signals.next().await;
            shutdown.end_at_once();
        });
        Ok(())
    }
}
