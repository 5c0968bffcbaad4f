//! Frames: what two linked nodes say to each other, and the bytes it is said in.
//!
//! A frame is `kind u8, version u8, payload`; payloads only ever grow at their end. A kind that this node does not know is skipped within
//! [`FRAME_BYTES_MAX`], so that version N talks to N-1. Signed records, bodies and chains ride inside as the bytes they were made in.
//!
//! Bytes become an [`Unverified`], and only [`Unverified::verify`], a pure function, makes the [`Verified`] that a
//! [`Mesh`](crate::mesh::Mesh) takes. Links, streams and their length prefixes are absent: they belong to whoever owns sockets.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::config::FRAME_BYTES_MAX;
use crate::identity::{BodyHash, CertificateHash, NodeId, Slug};
use crate::record::Load;

mod blob;
mod verify;

pub use blob::Blob;
pub(crate) use verify::Content;
pub use verify::{Body, BodyError, DirectVerifier, MemoVerifier, Unverified, Verified, VerifiedChain, Verifier};

/// The version that this code writes for every kind.
const FRAME_VERSION: u8 = 1;

/// Anything one node says to a neighbour.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    Push(Push),
    Digest(Digest),
    Fetch(Fetch),
    Distances(Distances),
    Ways(Ways),
    Loads(Loads),
    Probe(Probe),
    ProbeReply(Probe),
    Suspect(Suspect),
    Alive(Alive),
    Busy(Busy),
    Have(Have),
    /// "I gossip with enough others": the receiver ends the link too. Says nothing of anybody's health.
    Bye,
    Revocations(RevocationNews),
    /// A kind or version from a later release: skipped.
    Unknown {
        kind: u8,
        version: u8,
    },
}

/// Records, and what is needed to understand them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Push {
    pub chains: Vec<Blob>,
    pub bodies: Vec<Blob>,
    pub records: Vec<Blob>,
}

/// What the sender holds, range by range. A range names itself: what is absent outside it was not compared, and absence inside it is
/// not removal.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Digest {
    pub ranges: Vec<RangeDigest>,
}

/// One range of origins, both ends included.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RangeDigest {
    pub from: NodeId,
    pub to: NodeId,
    /// Wrapping sum of the fingerprints of all stamps in the range.
    pub fingerprint: u128,
    /// The stamps themselves, sorted by origin; `None` where only the sum is told.
    pub entries: Option<Vec<Stamp>>,
}

/// Which record of an origin is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Stamp {
    pub origin: NodeId,
    pub incarnation: u64,
    pub sequence: u64,
}

impl Stamp {
    /// What orders the records of one origin.
    pub fn number(&self) -> (u64, u64) {
        (self.incarnation, self.sequence)
    }

    /// 128 bits that stand for this stamp in a range's sum.
    pub fn fingerprint(&self) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.origin.as_bytes()).update(&self.incarnation.to_le_bytes()).update(&self.sequence.to_le_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// "Send me these." Answered by a [`Push`] of whatever the peer holds of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Fetch {
    pub chains: Vec<CertificateHash>,
    pub bodies: Vec<BodyHash>,
    pub records: Vec<NodeId>,
}

/// How far origins are from the sender, along ways that do not lead through the receiver.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Distances {
    /// The first frame of a whole vector: what was told before on this link is void.
    pub whole: bool,
    pub entries: Vec<(NodeId, u8)>,
}

/// What [`Distances`] say, in few bytes: the receiver holds a record of most origins, and knows them by less than an id. Takes their place;
/// they are still understood.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Ways {
    /// The first frame of a whole vector: what was told before on this link is void.
    pub whole: bool,
    pub entries: Vec<(NodeId, u8)>,
    /// Of origins of which the receiver itself spoke as known, by the first eight bytes of their ids.
    pub known: Vec<([u8; 8], u8)>,
}

/// How busy capabilities are, as the last release says it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Loads {
    pub nodes: Vec<NodeLoads>,
}

/// The loads of one node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeLoads {
    pub node: NodeId,
    /// How long ago the node itself said so.
    pub age_ms: u32,
    pub loads: Vec<(Slug, Load)>,
}

/// "Are you there?" and its answer, which repeats the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    pub nonce: u64,
}

/// "I am here", unasked, on a link on which nothing else was said for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alive {
    /// Links of the sender, so that neither side sheds one that the other needs.
    pub links: u8,
}

/// Which records the sender holds, for whoever should have them by now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Have {
    pub records: Vec<ShortStamp>,
}

/// A [`Stamp`] of a node that both sides know: 16 bytes instead of 48.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShortStamp {
    /// The first eight bytes of its id.
    pub origin: [u8; 8],
    pub incarnation: u64,
    pub sequence: u64,
}

impl ShortStamp {
    /// What orders the records of one origin.
    pub fn number(&self) -> (u64, u64) {
        (self.incarnation, self.sequence)
    }
}

impl From<Stamp> for ShortStamp {
    fn from(stamp: Stamp) -> Self {
        let mut origin = [0; 8];
        origin.copy_from_slice(&stamp.origin.as_bytes()[..8]);
        Self { origin, incarnation: stamp.incarnation, sequence: stamp.sequence }
    }
}

/// How busy nodes are, in few bytes: takes the place of [`Loads`], which is still understood.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Busy {
    pub nodes: Vec<BusyNode>,
}

/// The loads of one node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BusyNode {
    pub node: NodeId,
    /// How long ago the node itself said so.
    pub age_ms: u32,
    pub loads: Vec<BusyLoad>,
}

/// The load of one capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BusyLoad {
    pub slug: SlugHash,
    pub running: u16,
    pub waiting: u16,
    pub slots: u16,
    /// Tenths of tokens per second.
    pub speed: u16,
}

/// The first four bytes of a slug's blake3 hash: enough to tell one node's capabilities apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SlugHash([u8; 4]);

impl SlugHash {
    pub fn of(slug: &Slug) -> Self {
        let mut first = [0; 4];
        first.copy_from_slice(&blake3::hash(slug.as_str().as_bytes()).as_bytes()[..4]);
        Self(first)
    }
}

impl BusyNode {
    pub fn new(node: NodeId, age_ms: u64, loads: impl Iterator<Item = (SlugHash, Load)>) -> Self {
        let loads = loads.map(|(slug, load)| BusyLoad {
            slug,
            running: load.running,
            waiting: load.waiting,
            slots: load.slots,
            speed: (load.tokens_per_second * 10.0) as u16,
        });
        Self { node, age_ms: u32::try_from(age_ms).unwrap_or(u32::MAX), loads: loads.collect() }
    }
}

impl BusyLoad {
    pub fn load(self) -> Load {
        let tokens_per_second = f32::from(self.speed) / 10.0;
        Load { running: self.running, waiting: self.waiting, slots: self.slots, tokens_per_second }
    }
}

/// "I hear nothing of this node." It names the newest record that the accuser holds, so that a newer one refutes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suspect {
    pub accused: Stamp,
}

/// Revocations, and what the sender holds besides. Goes before everything else; with nothing but a digest it takes 36 bytes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RevocationNews {
    /// [`Revocations::digest`](crate::membership::Revocations::digest) of what the sender holds, these included.
    pub digest: [u8; 32],
    /// The [short ids](crate::membership::RevocationId::short) of what the sender holds, where the digests were seen to differ: "send me what
    /// I lack".
    pub held: Option<Vec<u64>>,
    pub records: Vec<Blob>,
}

/// Why bytes are no frame. The sender is to blame; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is larger than {FRAME_BYTES_MAX}; close the link if it goes on")]
    TooLarge(usize),
    #[error("a frame of {0} bytes has no room for kind and version")]
    TooShort(usize),
    #[error("the payload of frame kind {0} does not decode")]
    Malformed(u8),
}

const KIND_PUSH: u8 = 1;
const KIND_DIGEST: u8 = 2;
const KIND_FETCH: u8 = 3;
const KIND_DISTANCES: u8 = 4;
const KIND_LOADS: u8 = 5;
const KIND_PROBE: u8 = 6;
const KIND_PROBE_REPLY: u8 = 7;
const KIND_SUSPECT: u8 = 8;
const KIND_BYE: u8 = 9;
const KIND_ALIVE: u8 = 11;
const KIND_BUSY: u8 = 12;
const KIND_HAVE: u8 = 13;
const KIND_REVOCATIONS: u8 = 10;
const KIND_WAYS: u8 = 14;

/// Reads one frame. Signatures in it are not looked at yet.
pub fn decode(bytes: &[u8]) -> Result<Unverified, FrameError> {
    Frame::decode(bytes).map(Unverified::new)
}

impl Frame {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Push(body) => framed(KIND_PUSH, body),
            Self::Digest(body) => framed(KIND_DIGEST, body),
            Self::Fetch(body) => framed(KIND_FETCH, body),
            Self::Distances(body) => framed(KIND_DISTANCES, body),
            Self::Ways(body) => framed(KIND_WAYS, body),
            Self::Loads(body) => framed(KIND_LOADS, body),
            Self::Probe(body) => framed(KIND_PROBE, body),
            Self::ProbeReply(body) => framed(KIND_PROBE_REPLY, body),
            Self::Suspect(body) => framed(KIND_SUSPECT, body),
            Self::Alive(body) => framed(KIND_ALIVE, body),
            Self::Busy(body) => framed(KIND_BUSY, body),
            Self::Have(body) => framed(KIND_HAVE, body),
            Self::Bye => vec![KIND_BYE, FRAME_VERSION],
            Self::Revocations(body) => framed(KIND_REVOCATIONS, body),
            Self::Unknown { kind, version } => vec![*kind, *version],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge(bytes.len()));
        }
        let [kind, version, payload @ ..] = bytes else { return Err(FrameError::TooShort(bytes.len())) };
        let (kind, version) = (*kind, *version);
        Ok(match kind {
            _ if version == 0 => Self::Unknown { kind, version },
            KIND_PUSH => Self::Push(payload_of(kind, payload)?),
            KIND_DIGEST => Self::Digest(payload_of(kind, payload)?),
            KIND_FETCH => Self::Fetch(payload_of(kind, payload)?),
            KIND_DISTANCES => Self::Distances(payload_of(kind, payload)?),
            KIND_WAYS => Self::Ways(payload_of(kind, payload)?),
            KIND_LOADS => Self::Loads(payload_of(kind, payload)?),
            KIND_PROBE => Self::Probe(payload_of(kind, payload)?),
            KIND_PROBE_REPLY => Self::ProbeReply(payload_of(kind, payload)?),
            KIND_SUSPECT => Self::Suspect(payload_of(kind, payload)?),
            KIND_BYE => Self::Bye,
            KIND_ALIVE => Self::Alive(payload_of(kind, payload)?),
            KIND_BUSY => Self::Busy(payload_of(kind, payload)?),
            KIND_HAVE => Self::Have(payload_of(kind, payload)?),
            KIND_REVOCATIONS => Self::Revocations(payload_of(kind, payload)?),
            _ => Self::Unknown { kind, version },
        })
    }
}

fn framed<T: Serialize>(kind: u8, payload: &T) -> Vec<u8> {
    let mut bytes = vec![kind, FRAME_VERSION];
    bytes.extend(codec::encode(payload));
    debug_assert!(bytes.len() <= FRAME_BYTES_MAX, "frames are split before they are encoded");
    bytes
}

/// Bytes after the payload belong to a later release and are ignored.
fn payload_of<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, FrameError> {
    codec::decode_front(payload).map(|(value, _)| value).map_err(|_| FrameError::Malformed(kind))
}

#[cfg(test)]
impl Frame {
    pub(crate) fn decode_for_test(bytes: &[u8]) -> Self {
        Self::decode(bytes).expect("our own frames decode")
    }
}

#[cfg(test)]
mod tests;
