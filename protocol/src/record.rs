//! What a node announces: a signed [`NodeRecord`] that names content-addressed [`CapabilityBody`]s.
//!
//! The record changes often and is small; a body describes *what* is offered, is shared by every node that offers the same thing and is
//! fetched once. Both are immutable once decoded and travel as the bytes they arrived in.

use serde::{Deserialize, Serialize};

use crate::identity::{BodyHash, CertificateHash, MeshId, NodeId, Slug};

mod announcement;

pub use announcement::{Announcement, RecordError};

/// What a node does for others and for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A private mesh of one; touches no network.
    Standalone,
    /// Serves others; never routes its own requests out.
    Provider,
    /// Serves and asks.
    #[default]
    Participant,
    /// A provider without a local API: health and metrics alone.
    Headless,
}

/// Options that later versions append: (number, bytes). Unknown numbers are kept and passed on.
pub type Extensions = Vec<(u16, Vec<u8>)>;

/// One node's announcement of itself. The encoded, signed record is at most [`NODE_RECORD_BYTES_MAX`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    pub mesh: MeshId,
    pub node: NodeId,
    /// The chain that admits the node; fetched by this hash before the record counts.
    pub certificate: CertificateHash,
    /// Grows with every start of the node: max(stored + 1, unix seconds).
    pub incarnation: u64,
    /// Grows with every record of one incarnation.
    pub sequence: u64,
    /// Unix milliseconds after which the record no longer counts.
    pub lease_until_ms: u64,
    pub mode: Mode,
    /// What people call the node; need not be unique.
    pub name: String,
    pub labels: Vec<(String, String)>,
    /// Multiaddr texts, best first, loopback last; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<String>,
    /// First eight bytes (big-endian) of the ids of the neighbours that probe this node.
    pub neighbours: Vec<u64>,
    /// At most [`CAPABILITIES_MAX`].
    pub capabilities: Vec<Offered>,
    pub extensions: Extensions,
}

/// One capability in a [`NodeRecord`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Offered {
    pub slug: Slug,
    pub body: BodyHash,
    pub cost: Cost,
    /// Requests executed at once before others wait.
    pub slots: u16,
}

/// What a request costs the one who asks. Zero is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Millionths of a currency unit per 1,000 prompt tokens.
    pub prompt_micros_per_1k: u32,
    /// Millionths of a currency unit per 1,000 generated tokens.
    pub completion_micros_per_1k: u32,
}

/// How busy one capability is, as its node says. News nearby, noise far away: it travels inside links and replies, never in records.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Requests being executed now.
    pub running: u16,
    /// Requests waiting now.
    pub waiting: u16,
    /// Requests that can be executed at once.
    pub slots: u16,
    /// Observed generation speed of one request, tokens per second; 0 where nothing was observed.
    pub tokens_per_second: f32,
}

/// What a capability is, whoever offers it. At most [`BODY_BYTES_MAX`] encoded; its blake3 hash is its name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CapabilityBody {
    /// An open word: `llm`, `embedding`, `rag`, `agent`, `tool`, `classifier`, `sensor`, ...
    pub kind: String,
    /// What users call it, as in `/v1/models`: `qwen2.5:7b`.
    pub name: String,
    pub description: String,
    /// Sorted by key; the keys that routing knows stand in `atmo_capabilities::capability`.
    pub facts: Vec<(String, String)>,
    /// Exemplar sets that live in every binary, named by id; at most [`EXEMPLAR_SETS_MAX`].
    pub exemplars: Vec<String>,
    /// Its own vectors, each with the text it stands for; at most [`OWN_VECTORS_MAX`].
    pub vectors: Vec<BodyVector>,
    pub extensions: Extensions,
}

/// A text and where it lies in an embedding space.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BodyVector {
    pub text: String,
    /// The embedding space; vectors of different spaces are never compared.
    pub space: String,
    pub vector: QuantizedVector,
}

/// A vector as int8 with one scale: `value[i] = scale * values[i]`. 384 dimensions take 388 bytes; the cosine error is at most 0.0025.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QuantizedVector {
    pub scale: f32,
    pub values: Vec<i8>,
}

/// Largest encoded and signed [`NodeRecord`].
pub const NODE_RECORD_BYTES_MAX: usize = 4 << 10;
/// Largest encoded [`CapabilityBody`].
pub const BODY_BYTES_MAX: usize = 8 << 10;
/// Most addresses in a [`NodeRecord`].
pub const ADDRESSES_MAX: usize = 8;
/// Most capabilities in a [`NodeRecord`].
pub const CAPABILITIES_MAX: usize = 64;
/// Most vectors that a body brings of its own.
pub const OWN_VECTORS_MAX: usize = 4;
/// Most exemplar sets that a body names.
pub const EXEMPLAR_SETS_MAX: usize = 4;
