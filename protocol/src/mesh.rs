//! The mesh as one node sees it: one state machine, no I/O.
//!
//! Take `handle(now, input)` for every fact from outside, drain `poll_output()`, then sleep until `poll_timeout()` and call
//! `handle_timeout(now)`. Frames are *pulled*: after [`Output::WantsSend`] call `poll_send` whenever the link's writer is free, until it
//! returns `None`; what changes meanwhile is folded into what is still to be sent, so a slow peer costs dirty bits and never a backlog.

mod vocabulary;

pub use vocabulary::{Blame, CloseReason, DeathCause, Event, Input, LinkLoss, MeshConfig, Now, Output};

use crate::identity::NodeId;

/// One node's part in the mesh.
#[derive(Debug)]
pub struct Mesh {
    id: NodeId,
}

impl Mesh {
    pub fn new(config: MeshConfig, now: Now) -> Self {
        let _ = now;
        Self { id: config.key.id() }
    }

    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Takes one fact from outside, and whatever was due by `now`.
    pub fn handle(&mut self, now: Now, input: Input) {
        let _ = (now, input);
    }

    /// Does whatever is due by `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        let _ = now;
    }

    /// The next effect to have, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to call [`Mesh::handle_timeout`] at the latest, in monotonic milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        None
    }

    /// One encoded frame for `peer` of about `budget_bytes` at most, or `None` when there is nothing to say.
    pub fn poll_send(&mut self, now: Now, peer: NodeId, budget_bytes: usize) -> Option<Vec<u8>> {
        let _ = (now, peer, budget_bytes);
        None
    }
}
