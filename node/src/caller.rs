//! Whose request it is: what queues are fair between, and whom limits are kept for.

use atmo_protocol::NodeId;

/// Somebody who asks this node for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever sits at this machine: goes first.
    Owner,
    /// The holder of an API key, by the key's id, with what people call it.
    Key { id: String, name: String },
    /// Another node of the mesh.
    Member(NodeId),
}

impl Caller {
    /// For metrics: few words, however many callers there are.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Key { .. } => "key",
            Self::Member(_) => "member",
        }
    }
}
