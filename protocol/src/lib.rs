//! What the nodes of a mesh say to each other, and what each then believes: identity, admission, signed records, gossip and the
//! gradient table.
//!
//! Everything here is sans-IO. A state machine takes `handle(now, input)`, is drained by `poll_output()`, asks to be woken by
//! `poll_timeout()` and gives frames to `poll_send(peer, budget)` when a link can take them. Time and randomness come in; nothing here
//! opens a socket, reads a clock or a file, or spawns.

pub mod admission;
pub mod codec;
pub mod config;
pub mod date;
pub mod distance;
pub mod envelope;
#[cfg(test)]
pub(crate) mod golden;
pub mod gossip;
pub mod gradient;
pub mod identity;
pub mod invitation;
pub mod liveness;
pub mod membership;
pub mod mesh;
pub mod record;
pub mod timers;
pub mod wire;

pub use envelope::{Envelope, EnvelopeError};
pub use identity::{BodyHash, CapabilityId, CertificateHash, MeshId, NodeId, NodeKey, Slug};
pub use invitation::{JoinCode, Ledger};
pub use membership::{Chain, Member, Revocation, Revocations, Roles};
pub use record::{CapabilityBody, Mode, NodeRecord};
