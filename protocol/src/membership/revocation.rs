//! One revocation: a signed, numbered statement that a key, a certificate or an invitation of the mesh no longer holds.
//!
//! It is signed by the mesh's root, or by a member with the role `admin`, whose chain rides along, so that whoever knows the mesh can check
//! it without asking anybody. The record names that chain by its hash: what a signature says never depends on who passed it on. Nothing
//! here knows of other revocations; which of them count is for [`Revocations`](super::Revocations) to say.
//!
//! A revocation is dated by its signer, who may lie about that. Nothing is decided by the date but whether the signer's certificate held
//! then; who prevails among signers is decided by what they cannot choose themselves.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CRITICAL_EXTENSION, Chain, ChainError, Member, Roles};
use crate::codec::{self, CodecError};
use crate::date::rfc3339;
use crate::envelope::{Envelope, EnvelopeError, kind};
use crate::identity::{CertificateHash, MeshId, NodeId, NodeKey};
use crate::record::Extensions;
use crate::wire::Blob;

/// Largest revocation with its chain: it fits into the frame that refuses an admission (8 KiB).
pub const REVOCATION_BYTES_MAX: usize = 7_680;
/// Most keys that one revocation leaves untouched.
pub const SPARED_MAX: usize = 64;
/// Most signers of whom one revocation says how far they are honoured.
pub const HONOURED_MAX: usize = 16;
/// Longest name of the revoked, and of the node that revoked, in bytes.
pub const REVOCATION_NAME_BYTES_MAX: usize = 64;
/// How long the revocation of a certificate or an invitation is remembered after what it revokes has expired by itself.
pub const REVOKED_REMEMBERED_MS: u64 = 30 * 24 * 3_600_000;

const RECORD_VERSION: u8 = 1;
const BLOB_VERSION: u8 = 1;
/// How far a signer's clock may have been off when it dated its record. As in admission.
const CLOCK_SKEW_MS_MAX: u64 = 10 * 60_000;

const KIND_KEY: u8 = 1;
const KIND_CERTIFICATE: u8 = 2;
const KIND_INVITATION: u8 = 3;

/// What no longer holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// A node's key: it never is a member again.
    Key(NodeId),
    /// One certificate; its node may be given another.
    Certificate { issuer: NodeId, serial: u64 },
    /// An invitation, by its public key; whom it admitted before stays a member.
    Invitation(NodeId),
}

/// What whoever revokes decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    pub target: Target,
    /// Distinct among the revocations of one signer, and growing.
    pub number: u64,
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// Unix milliseconds after which nobody needs to remember it; [`u64::MAX`] for keys.
    pub until_ms: u64,
    /// Keys that stay members although the revoked admitted them, or one whom it admitted; at most [`SPARED_MAX`].
    pub spared: Vec<NodeId>,
    /// Signers of revocations that this one ends, and the last of their numbers that still counts; at most [`HONOURED_MAX`]. Of a signer
    /// that is not listed none counts.
    pub honoured: Vec<(NodeId, u64)>,
    /// What people call the revoked; may be empty, at most [`REVOCATION_NAME_BYTES_MAX`].
    pub name: String,
    /// What people call the node that revoked; as long.
    pub by: String,
}

/// The payload of a revocation. It only ever grows at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RevocationRecord {
    pub mesh: MeshId,
    /// The mesh's root, or the member that signed.
    pub signer: NodeId,
    /// The chain that makes the signer an admin; none where it is the root.
    pub certificate: Option<CertificateHash>,
    pub number: u64,
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// Unix milliseconds.
    pub until_ms: u64,
    kind: u8,
    /// The key, the certificate's issuer or the invitation.
    subject: NodeId,
    /// Of the certificate; else 0.
    serial: u64,
    pub spared: Vec<NodeId>,
    pub honoured: Vec<(NodeId, u64)>,
    pub name: String,
    pub by: String,
    /// A reader that does not know one from [`CRITICAL_EXTENSION`] on keeps the record and acts on none of it.
    pub extensions: Extensions,
}

/// How a revocation travels and is kept.
#[derive(Serialize, Deserialize)]
struct RevocationBlob {
    version: u8,
    record: Envelope,
    /// The signer's encoded chain; empty where the root signed.
    chain: Vec<u8>,
}

/// The name of a revocation: the hash of its signed record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RevocationId(pub [u8; 32]);

/// A revocation whose signature holds and whose signer had the right to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revocation {
    pub record: RevocationRecord,
    /// The admin that signed; none: the root.
    pub signer: Option<Member>,
    pub id: RevocationId,
    /// Record and chain, as they came.
    pub bytes: Blob,
}

/// Why bytes are no revocation of this mesh. Asking again for the same bytes gives the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error("the revocation cannot be read: {0}")]
    Encoding(#[from] CodecError),
    #[error("the revocation cannot be read: {0}")]
    Record(#[from] EnvelopeError),
    #[error("the revocation has version {0}, which is older than any understood here")]
    TooOld(u8),
    #[error("the revocation belongs to another mesh")]
    OtherMesh,
    #[error("the revocation has more {0} than are allowed")]
    TooMany(&'static str),
    #[error("the certificate of the revocation's signer: {0}")]
    Chain(#[from] ChainError),
    #[error("the revocation came with a certificate that is not its signer's")]
    OtherChain,
    #[error("the revocation is signed by a member without the role `admin`")]
    MayNotRevoke,
    #[error("the revocation is dated outside its signer's validity")]
    SignedOutside,
    #[error("the signature over a revocation does not hold")]
    Signature,
}

impl RevocationId {
    /// The first eight bytes (big-endian): enough to say which ones are held.
    pub fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Target {
    fn parts(self) -> (u8, NodeId, u64) {
        match self {
            Self::Key(node) => (KIND_KEY, node, 0),
            Self::Certificate { issuer, serial } => (KIND_CERTIFICATE, issuer, serial),
            Self::Invitation(invitation) => (KIND_INVITATION, invitation, 0),
        }
    }
}

impl Order {
    fn into_record(self, mesh: MeshId, signer: NodeId, certificate: Option<CertificateHash>) -> RevocationRecord {
        let Self { target, number, issued_ms, until_ms, spared, honoured, name, by } = self;
        let (kind, subject, serial) = target.parts();
        let extensions = Vec::new();
        RevocationRecord {
            mesh,
            signer,
            certificate,
            number,
            issued_ms,
            until_ms,
            kind,
            subject,
            serial,
            spared,
            honoured,
            name,
            by,
            extensions,
        }
    }
}

impl RevocationRecord {
    /// What is revoked; none where only newer versions know what is meant.
    pub fn target(&self) -> Option<Target> {
        if self.extensions.iter().any(|(number, _)| *number >= CRITICAL_EXTENSION) {
            return None;
        }
        match self.kind {
            KIND_KEY => Some(Target::Key(self.subject)),
            KIND_CERTIFICATE => Some(Target::Certificate { issuer: self.subject, serial: self.serial }),
            KIND_INVITATION => Some(Target::Invitation(self.subject)),
            _ => None,
        }
    }

    /// The last number of `signer` that counts although its membership ends.
    pub fn honours(&self, signer: &NodeId) -> u64 {
        self.honoured.iter().find(|(listed, _)| listed == signer).map_or(0, |(_, last)| *last)
    }

    fn within_limits(&self) -> Result<(), RevocationError> {
        for (fits, what) in [
            (self.spared.len() <= SPARED_MAX, "spared keys"),
            (self.honoured.len() <= HONOURED_MAX, "honoured signers"),
            (self.by.len().max(self.name.len()) <= REVOCATION_NAME_BYTES_MAX, "bytes in a name"),
        ] {
            if !fits {
                return Err(RevocationError::TooMany(what));
            }
        }
        Ok(())
    }
}

impl Revocation {
    /// Signed by the mesh's root.
    pub fn by_root(root: &NodeKey, order: Order) -> Result<Self, RevocationError> {
        let mesh = MeshId::of_root(&root.id());
        Self::seal(order.into_record(mesh, root.id(), None), root, &[])
    }

    /// Signed by the member that `chain` admits, which needs the role `admin`.
    pub fn by_admin(key: &NodeKey, chain: &Chain, order: Order) -> Result<Self, RevocationError> {
        Self::seal(order.into_record(chain.mesh(), key.id(), Some(chain.hash())), key, chain.bytes())
    }

    fn seal(record: RevocationRecord, key: &NodeKey, chain: &[u8]) -> Result<Self, RevocationError> {
        let sealed = Envelope::seal(kind::REVOCATION, RECORD_VERSION, &record, key);
        let blob = RevocationBlob { version: BLOB_VERSION, record: sealed, chain: chain.to_vec() };
        Self::open(&codec::encode(&blob), &record.mesh)
    }

    /// Reads and verifies everything but time and other revocations: a pure function of `bytes` and `mesh`. Costs about 60 µs for each
    /// signature, up to five of them.
    pub fn open(bytes: &[u8], mesh: &MeshId) -> Result<Self, RevocationError> {
        if bytes.len() > REVOCATION_BYTES_MAX {
            return Err(CodecError::TooLong { bytes: bytes.len(), max: REVOCATION_BYTES_MAX }.into());
        }
        let (blob, used) = codec::decode_front::<RevocationBlob>(bytes)?;
        if blob.version < BLOB_VERSION {
            return Err(RevocationError::TooOld(blob.version));
        }
        if blob.version == BLOB_VERSION && used < bytes.len() {
            return Err(CodecError::Trailing(bytes.len() - used).into());
        }
        let record: RevocationRecord = blob.record.decode(kind::REVOCATION, RECORD_VERSION)?;
        if record.mesh != *mesh {
            return Err(RevocationError::OtherMesh);
        }
        record.within_limits()?;
        let signer = signer(&record, &blob.chain)?;
        if !blob.record.verify(&record.signer) {
            return Err(RevocationError::Signature);
        }
        let id = RevocationId(blob.record.hash());
        Ok(Self { record, signer, id, bytes: Blob(bytes.into()) })
    }

    /// What prevails comes first: the root, then admins by how near to the root they stand, then by the age of their certificate, which
    /// their issuer wrote. No signer can choose a better place than it was given.
    pub(super) fn seniority(&self) -> (usize, u64, NodeId, u64, RevocationId) {
        let (depth, since) = self.signer.as_ref().map_or((0, 0), |signer| (signer.lineage.len(), signer.not_before_ms));
        (depth, since, self.record.signer, self.record.number, self.id)
    }

    /// What people call whoever revoked: the name it gave, cleaned of what could move a cursor, and what it signed as.
    pub fn revoker(&self) -> String {
        let signed_as = self.signer.as_ref().map_or_else(|| "the mesh's root".to_owned(), |admin| admin.node.short());
        named(&self.record.by, signed_as)
    }

    /// What was revoked: `node lost (0a1b2c3d4e)`.
    pub fn revoked(&self) -> String {
        let name = &self.record.name;
        match self.record.target() {
            Some(Target::Key(node)) => format!("node {}", named(name, node.short())),
            Some(Target::Certificate { issuer, serial }) => {
                format!("certificate {}", named(name, format!("{serial}@{}", issuer.short())))
            }
            Some(Target::Invitation(invitation)) => format!("invitation {}", named(name, invitation.short())),
            None => "something that only newer versions of atmo know".to_owned(),
        }
    }
}

/// What somebody called it, without what could move a cursor, and what it is.
fn named(name: &str, what: String) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { what } else { format!("{name} ({what})") }
}

/// `node lost (0a1b2c3d4e) was revoked on 2027-01-15T08:00:00Z by attic (the mesh's root)`
impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was revoked on {} by {}", self.revoked(), rfc3339(self.record.issued_ms), self.revoker())
    }
}

/// Who signed: the root, or the admin that `chain` proves.
fn signer(record: &RevocationRecord, chain: &[u8]) -> Result<Option<Member>, RevocationError> {
    let Some(certificate) = record.certificate else {
        let is_root = MeshId::of_root(&record.signer) == record.mesh;
        return if !is_root {
            Err(RevocationError::MayNotRevoke)
        } else if !chain.is_empty() {
            Err(RevocationError::OtherChain)
        } else {
            Ok(None)
        };
    };
    let chain = Chain::decode(chain)?;
    let member = chain.verify(&record.mesh)?;
    if chain.hash() != certificate || member.node != record.signer {
        return Err(RevocationError::OtherChain);
    }
    if !member.roles.contains(Roles::ADMIN) {
        return Err(RevocationError::MayNotRevoke);
    }
    member.check_time(record.issued_ms, CLOCK_SKEW_MS_MAX).map_err(|_| RevocationError::SignedOutside)?;
    Ok(Some(member))
}

/// Shared by whoever holds it.
pub(super) type Shared = Arc<Revocation>;

#[cfg(test)]
mod tests;
