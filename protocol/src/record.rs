//! What a node announces: a signed [`NodeRecord`] that names content-addressed [`CapabilityBody`]s.
//!
//! The record changes often and is small; a body describes *what* is offered, is shared by every node that offers the same thing and is
//! fetched once. Both are immutable once decoded and travel as the bytes they arrived in.

use serde::{Deserialize, Serialize};

use crate::codec;
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
    /// The first of its own vectors, each with the text it stands for; at most [`INLINE_VECTORS_MAX`]. Read them all with
    /// [`own_vectors`](Self::own_vectors).
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
/// Most texts of its owner's that stand for a body beside what it says of itself.
pub const OWN_TEXTS_MAX: usize = 4;
/// Most vectors that a body brings of its own: of what it says of itself, of the same with its name, and of its owner's texts.
pub const OWN_VECTORS_MAX: usize = 2 + OWN_TEXTS_MAX;
/// Most of them in [`CapabilityBody::vectors`]: what every version reads.
pub const INLINE_VECTORS_MAX: usize = 4;
/// The extension of a body that holds those beyond.
const MORE_VECTORS: u16 = 1;
/// Most exemplar sets that a body names.
pub const EXEMPLAR_SETS_MAX: usize = 4;

impl CapabilityBody {
    /// All vectors of its own, in order. An extension that does not decode holds none; more than [`OWN_VECTORS_MAX`] may come back, and
    /// those beyond count for nothing.
    pub fn own_vectors(&self) -> Vec<BodyVector> {
        let more = self.extensions.iter().find(|(number, _)| *number == MORE_VECTORS);
        let more = more.and_then(|(_, bytes)| codec::decode_front::<Vec<BodyVector>>(bytes).ok());
        self.vectors.iter().cloned().chain(more.into_iter().flat_map(|(vectors, _)| vectors)).collect()
    }

    /// Replaces them: the first [`INLINE_VECTORS_MAX`] where every version finds them, the rest in an extension that older ones pass on.
    pub fn set_own_vectors(&mut self, mut vectors: Vec<BodyVector>) {
        let more = vectors.split_off(vectors.len().min(INLINE_VECTORS_MAX));
        self.vectors = vectors;
        self.extensions.retain(|(number, _)| *number != MORE_VECTORS);
        if !more.is_empty() {
            self.extensions.push((MORE_VECTORS, codec::encode(&more)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body() -> CapabilityBody {
        CapabilityBody {
            kind: "llm".into(),
            name: "m".into(),
            description: String::new(),
            facts: Vec::new(),
            exemplars: Vec::new(),
            vectors: Vec::new(),
            extensions: vec![(7, vec![1])],
        }
    }

    proptest! {
        #[test]
        fn own_vectors_come_back_as_they_were_set(texts in prop::collection::vec(any::<String>(), 0..=OWN_VECTORS_MAX)) {
            let vector = QuantizedVector { scale: 0.5, values: vec![1, -2] };
            let own: Vec<BodyVector> =
                texts.into_iter().map(|text| BodyVector { text, space: "s".into(), vector: vector.clone() }).collect();
            let mut body = body();
            body.set_own_vectors(own.clone());
            prop_assert!(body.vectors.len() <= INLINE_VECTORS_MAX && body.extensions[0] == (7, vec![1]));
            prop_assert_eq!(body.own_vectors(), own);
            body.set_own_vectors(Vec::new());
            prop_assert!(body.own_vectors().is_empty() && body.extensions.len() == 1);
        }

        #[test]
        fn any_extension_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = body();
            body.extensions.push((MORE_VECTORS, bytes));
            body.own_vectors();
        }
    }
}
