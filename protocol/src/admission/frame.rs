//! The frames of an admission, and the bytes that its signatures cover.
//!
//! A frame is a bincode enum of at most [`FRAME_BYTES_MAX`]; the driver puts a length in front. The [`Hello`] must be readable by every
//! version for ever, so it only grows at its end. What follows is of the version that the two hellos settle.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::codec;
use crate::identity::{MeshId, NodeId, NodeKey};
use crate::membership::Revocation;
use crate::record::Extensions;

/// Largest frame of an admission.
pub const FRAME_BYTES_MAX: usize = 8 << 10;
/// What every hello starts with; tells a node from anything else that may answer at an address.
pub const MAGIC: [u8; 8] = *b"atmo/adm";
/// The versions of the handshake spoken here. The last two are kept.
pub const VERSION_MIN: u8 = 1;
pub const VERSION_MAX: u8 = 1;

/// Wants to be admitted as the member that it is.
pub const PURPOSE_MEMBER: u8 = 0;
/// Wants to become a member by a join code.
pub const PURPOSE_JOIN: u8 = 1;
/// Wants its certificate renewed, and nothing else: the one it has may have expired.
pub const PURPOSE_RENEW: u8 = 2;

const SIGNED_DOMAIN: &[u8] = b"atmosphere/admission/1";
const TRANSCRIPT_CONTEXT: &str = "atmosphere/admission/1 transcript";

/// Appending variants is a new version of the handshake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Frame {
    Hello(Hello),
    Proof(Proof),
    JoinProof(JoinProof),
    /// The peer's proof was accepted.
    Verdict(Verdict),
    Grant(Grant),
    Refused(RefusedFrame),
}

/// Says nothing that a stranger could use: not even which mesh it is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub magic: [u8; 8],
    pub version_min: u8,
    pub version_max: u8,
    pub nonce: [u8; 32],
    /// One of the `PURPOSE_*` numbers.
    pub purpose: u8,
    /// [`mesh_tag`] of the mesh that it is about.
    pub mesh_tag: [u8; 32],
    pub extensions: Extensions,
}

/// A member's proof.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// An encoded [`ProofBody`]; signed as these bytes.
    pub body: Vec<u8>,
    pub signature: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProofBody {
    /// The encoded certificate chain.
    pub chain: Vec<u8>,
    /// [`Revocations::digest`](crate::membership::Revocations::digest) of what the node knows.
    pub revocations: [u8; 32],
    /// The node's wall clock, unix milliseconds.
    pub clock_ms: u64,
    pub extensions: Extensions,
}

/// A newcomer's proof that it holds a join code, and its own key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinProof {
    /// An encoded [`JoinBody`]; signed as these bytes.
    pub body: Vec<u8>,
    /// By the key that the code's secret derives.
    pub invitation_signature: Vec<u8>,
    /// By the newcomer's node key. The connection proved it already where it is direct; it need not be.
    pub node_signature: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinBody {
    /// The public key of the invitation.
    pub invitation: NodeId,
    /// What the newcomer calls itself.
    pub name: String,
    /// The newcomer's wall clock, unix milliseconds.
    pub clock_ms: u64,
    pub extensions: Extensions,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub extensions: Extensions,
}

/// The newcomer's certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The encoded certificate chain.
    pub chain: Vec<u8>,
    pub extensions: Extensions,
}

/// The end. The extension [`REFUSED_REVOCATION`] carries the record that refuses, for whoever proved a key of the mesh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefusedFrame {
    pub code: u16,
    pub parameters: Vec<u64>,
    pub extensions: Extensions,
}

/// The encoded [`Revocation`] in a [`RefusedFrame`].
pub const REFUSED_REVOCATION: u16 = 1;

/// What a signature is for; part of what is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signing {
    MemberProof = 1,
    JoinByInvitation = 2,
    JoinByNode = 3,
}

impl RefusedFrame {
    /// The reason, with the record behind it where there is one that holds in `mesh`.
    pub fn refusal(&self, mesh: &MeshId) -> Refusal {
        let shown = self.extensions.iter().find(|(number, _)| *number == REFUSED_REVOCATION);
        match Refusal::from_wire(self.code, &self.parameters) {
            Refusal::Revoked(_) => {
                Refusal::Revoked(shown.and_then(|(_, bytes)| Revocation::open(bytes, mesh).ok()).map(Arc::new))
            }
            refusal => refusal,
        }
    }
}

/// Everything both sides said in their hellos, in an order that does not depend on who dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transcript([u8; 32]);

impl Frame {
    pub fn refused(refusal: &Refusal) -> Self {
        let (code, parameters) = refusal.to_wire();
        let record = refusal.revocation().map(|revocation| (REFUSED_REVOCATION, revocation.bytes.0.to_vec()));
        Self::Refused(RefusedFrame { code, parameters, extensions: record.into_iter().collect() })
    }

    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// A frame after the hellos: exactly `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        check_length(bytes)?;
        codec::decode(bytes).map_err(|_| Refusal::Malformed)
    }

    /// The first frame: a hello, of a newer version perhaps, or a refusal of everyone.
    pub fn decode_first(bytes: &[u8]) -> Result<Self, Refusal> {
        check_length(bytes)?;
        let (frame, used) = codec::decode_front::<Self>(bytes).map_err(|_| Refusal::NotAHandshake)?;
        match &frame {
            Self::Hello(hello) if hello.magic != MAGIC => Err(Refusal::NotAHandshake),
            Self::Hello(hello) if used == bytes.len() || hello.version_max > VERSION_MAX => Ok(frame),
            Self::Refused(_) => Ok(frame),
            Self::Hello(_) => Err(Refusal::Malformed),
            _ => Err(Refusal::OutOfOrder),
        }
    }
}

fn check_length(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() > FRAME_BYTES_MAX { Err(Refusal::FrameTooLong { bytes: bytes.len() }) } else { Ok(()) }
}

/// Hides a mesh from those who do not know it, and differs for every node and nonce.
pub fn mesh_tag(mesh: &MeshId, nonce: &[u8; 32], node: &NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(mesh.as_bytes());
    hasher.update(nonce).update(node.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The newest version that both hellos offer.
pub fn common_version(theirs: &Hello) -> Result<u8, Refusal> {
    let newest = theirs.version_max.min(VERSION_MAX);
    if newest >= theirs.version_min.max(VERSION_MIN) {
        Ok(newest)
    } else {
        Err(Refusal::NoCommonVersion { ours: VERSION_MAX, theirs: theirs.version_max })
    }
}

impl Transcript {
    /// Of two nodes and their hellos exactly as sent.
    pub fn new(one: (&NodeId, &[u8]), other: (&NodeId, &[u8])) -> Self {
        let (low, high) = if one.0 < other.0 { (one, other) } else { (other, one) };
        let mut hasher = blake3::Hasher::new_derive_key(TRANSCRIPT_CONTEXT);
        for (node, hello) in [low, high] {
            hasher.update(node.as_bytes()).update(&(hello.len() as u64).to_le_bytes()).update(hello);
        }
        Self(*hasher.finalize().as_bytes())
    }

    pub fn sign(&self, what: Signing, key: &NodeKey, node: &NodeId, body: &[u8]) -> Vec<u8> {
        key.sign(&self.message(what, node, body)).to_vec()
    }

    /// Whether `signer` signed `body` as said by `node`.
    pub fn verify(&self, what: Signing, signer: &NodeId, node: &NodeId, body: &[u8], signature: &[u8]) -> bool {
        signer.verify(&self.message(what, node, body), signature)
    }

    fn message(&self, what: Signing, node: &NodeId, body: &[u8]) -> Vec<u8> {
        [SIGNED_DOMAIN, &[what as u8], &self.0, node.as_bytes(), blake3::hash(body).as_bytes()].concat()
    }
}
