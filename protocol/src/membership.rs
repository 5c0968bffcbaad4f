//! Who belongs to a mesh and may do what: roles, certificates, and chains of them up to the mesh's root.
//!
//! A mesh is the hash of its root's public key. The root signs the founder's [`Certificate`]; whoever holds the role `issue` signs those
//! of others. A [`Chain`] carries the root's public key and the certificates from the one that the root signed to the member's own, so it
//! proves membership to anyone who knows the [`MeshId`], without a directory and offline. The idea is that of X.509 path validation
//! (RFC 5280) with everything but the path left out.
//!
//! [`Chain::verify`] is a pure check of signatures and rules: it costs about 60 µs per certificate, so the result, a [`Member`], is kept.
//! Time and revocation change while a chain does not; both are asked of the member: [`Member::check_time`], [`Revocations::refuses`].
//!
//! A certificate had to be issued within its issuer's validity, but an issuer's expiry does not end what it signed before. An issuer can
//! put an earlier date on a certificate than the true one; what bounds that is its own validity, the longest life and revocation.
//! Whoever may issue also renews: a new certificate for the same key with the same roles or fewer, from a third of a life left on.
//!
//! - [`Revocation`]: a signed statement that a key, a certificate or an invitation no longer holds
//! - [`Revocations`]: all that a node knows of, and what follows from them

mod revocation;
mod revocations;
mod roles;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use revocation::{
    HONOURED_MAX, Order, REVOCATION_BYTES_MAX, REVOCATION_NAME_BYTES_MAX, REVOKED_REMEMBERED_MS, Revocation, RevocationError,
    RevocationId, RevocationRecord, SPARED_MAX, Target,
};
pub use revocations::{REVOCATIONS_MAX, Revocations, RevocationsError, Taken};
pub use roles::{Roles, UnknownRole};

use crate::codec::{self, CodecError};
use crate::envelope::{Envelope, EnvelopeError, kind};
use crate::identity::{CertificateHash, MeshId, NodeId, NodeKey};
use crate::record::Extensions;

/// How long a certificate lasts that says nothing else: the founder's, which the root's key beside it renews.
pub const CERTIFICATE_LIFE_MS: u64 = 365 * 24 * 3_600_000;
/// The longest life that is accepted in anyone's certificate: bounds what a backdated one is worth.
pub const CERTIFICATE_LIFE_MS_MAX: u64 = 400 * 24 * 3_600_000;
/// A certificate is renewed from this part of its life left: time enough for a laptop that is away for weeks.
const RENEWED_FROM_LAST: u64 = 3;
/// Most certificates in a chain: founder, its issuer, that one's issuer, a member.
pub const CHAIN_LENGTH_MAX: usize = 4;
/// Largest encoded chain. Four certificates without extensions take about 800 bytes.
pub const CHAIN_BYTES_MAX: usize = 4 << 10;
/// Extensions of a certificate from this number on restrict it: a reader that does not know one must refuse the chain.
pub const CRITICAL_EXTENSION: u16 = 0x8000;

const CERTIFICATE_VERSION: u8 = 1;
const CHAIN_VERSION: u8 = 1;

/// `issuer` states that `node` is a member of `mesh`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Certificate {
    pub mesh: MeshId,
    pub node: NodeId,
    pub roles: Roles,
    /// Unix milliseconds.
    pub not_before_ms: u64,
    /// Unix milliseconds.
    pub expires_ms: u64,
    /// Distinct among the certificates of one issuer; how a single one is revoked.
    pub serial: u64,
    /// The root's public key, or the member that issued this.
    pub issuer: NodeId,
    /// Numbers from [`CRITICAL_EXTENSION`] on are refused where unknown.
    pub extensions: Extensions,
}

/// The certificates that lead from a mesh's root to one member, and the bytes they came in. Unverified until [`Chain::verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    bytes: Arc<[u8]>,
    root: NodeId,
    links: Vec<Issued>,
}

/// A certificate and the signed bytes it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Issued {
    certificate: Certificate,
    envelope: Envelope,
}

/// How a chain is encoded.
#[derive(Serialize, Deserialize)]
struct ChainBlob {
    version: u8,
    root: NodeId,
    /// The one signed by the root first.
    certificates: Vec<Envelope>,
}

/// What a verified chain says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub mesh: MeshId,
    pub node: NodeId,
    pub roles: Roles,
    /// Unix milliseconds.
    pub not_before_ms: u64,
    /// Unix milliseconds.
    pub expires_ms: u64,
    /// The hash of the whole encoded chain.
    pub certificate: CertificateHash,
    /// Every certificate of the chain, that of the founder first, the member's own last.
    pub lineage: Vec<Issue>,
}

/// One act of issuing, as far as revocation needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Issue {
    pub node: NodeId,
    pub issuer: NodeId,
    pub serial: u64,
}

/// Why bytes are no chain, or a chain proves nothing. The sender made a bad chain, or speaks of another mesh; asking again does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("the certificate chain cannot be read: {0}")]
    Encoding(#[from] CodecError),
    #[error("a certificate cannot be read: {0}")]
    Certificate(#[from] EnvelopeError),
    #[error("the certificate chain has version {0}, which is older than any understood here")]
    TooOld(u8),
    #[error("the certificate chain has {0} certificates; 1 to {CHAIN_LENGTH_MAX} are allowed")]
    Length(usize),
    #[error("the certificate chain belongs to another mesh")]
    OtherMesh,
    #[error("certificate {0} of the chain was not issued by the one before it")]
    BrokenLink(usize),
    #[error("certificate {0} of the chain is not signed by its issuer")]
    Signature(usize),
    #[error("certificate {0} of the chain was issued by a member without the role `issue`")]
    MayNotIssue(usize),
    #[error("certificate {0} of the chain grants roles that its issuer lacks")]
    MoreRoles(usize),
    #[error("certificate {0} of the chain was issued outside its issuer's validity")]
    IssuedOutside(usize),
    #[error("certificate {0} of the chain ends before it begins, or lasts longer than allowed")]
    Life(usize),
    #[error(
        "certificate {position} of the chain has a restriction (number {number}) that only newer versions know: update this node"
    )]
    UnknownRestriction { position: usize, number: u16 },
}

/// A member's certificate does not hold at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutsideValidity {
    #[error("the certificate begins in {in_ms} ms")]
    NotYet { in_ms: u64 },
    #[error("the certificate expired {ago_ms} ms ago")]
    Expired { ago_ms: u64 },
}

/// Why no certificate was issued. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error("this node's own certificate does not hold: {0}")]
    OwnChain(#[from] ChainError),
    #[error("this node's own certificate belongs to another key")]
    OtherKey,
    #[error(
        "this node may not admit others: its certificate lacks the role `issue`; ask one that has it (`atmo nodes` shows roles)"
    )]
    MayNotIssue,
    #[error("this node has only the roles {own} and cannot grant {asked}")]
    MoreRoles { asked: Roles, own: Roles },
    #[error("this node's own certificate has expired")]
    Expired,
    #[error(
        "this node stands {CHAIN_LENGTH_MAX} certificates away from the mesh's root and cannot admit others; ask one nearer to it"
    )]
    ChainFull,
}

/// The first certificate of a new mesh: `root` grants `founder` every role.
pub fn found_mesh(root: &NodeKey, founder: &NodeId, now_ms: u64) -> Chain {
    const FIRST_SERIAL: u64 = 1;
    issue_from_root(root, founder, Roles::ALL, now_ms, FIRST_SERIAL)
}

/// A certificate signed by the mesh's root itself.
pub fn issue_from_root(root: &NodeKey, subject: &NodeId, roles: Roles, now_ms: u64, serial: u64) -> Chain {
    let certificate = Certificate {
        mesh: MeshId::of_root(&root.id()),
        node: *subject,
        roles,
        not_before_ms: now_ms,
        expires_ms: now_ms.saturating_add(CERTIFICATE_LIFE_MS),
        serial,
        issuer: root.id(),
        extensions: Vec::new(),
    };
    Chain::assemble(root.id(), vec![certificate.seal(root)])
}

/// A certificate for `subject`, signed by a member that may issue, at the end of that member's chain.
///
/// A clock that stands before the issuer's own certificate began gives that beginning as date, so that the chain stays valid.
pub fn issue(
    key: &NodeKey,
    chain: &Chain,
    subject: &NodeId,
    roles: Roles,
    now_ms: u64,
    serial: u64,
) -> Result<Chain, IssueError> {
    issue_lasting(key, chain, Subject { node: *subject, roles, life_ms: CERTIFICATE_LIFE_MS }, now_ms, serial)
}

/// Whom a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    pub node: NodeId,
    pub roles: Roles,
    /// At most [`CERTIFICATE_LIFE_MS_MAX`]; what is longer is cut.
    pub life_ms: u64,
}

/// [`issue`] with a life of the issuer's choice.
pub fn issue_lasting(key: &NodeKey, chain: &Chain, subject: Subject, now_ms: u64, serial: u64) -> Result<Chain, IssueError> {
    let Subject { node, roles, life_ms } = subject;
    let issuer = chain.verify(&chain.mesh())?;
    if issuer.node != key.id() {
        return Err(IssueError::OtherKey);
    }
    if !issuer.roles.contains(Roles::ISSUE) {
        return Err(IssueError::MayNotIssue);
    }
    if !issuer.roles.contains(roles) {
        return Err(IssueError::MoreRoles { asked: roles, own: issuer.roles });
    }
    if now_ms >= issuer.expires_ms {
        return Err(IssueError::Expired);
    }
    if chain.links.len() >= CHAIN_LENGTH_MAX {
        return Err(IssueError::ChainFull);
    }
    let not_before_ms = now_ms.max(issuer.not_before_ms);
    let certificate = Certificate {
        mesh: issuer.mesh,
        node,
        roles,
        not_before_ms,
        expires_ms: not_before_ms.saturating_add(life_ms.min(CERTIFICATE_LIFE_MS_MAX)),
        serial,
        issuer: issuer.node,
        extensions: Vec::new(),
    };
    let above = chain.links.iter().map(|link| link.envelope.clone());
    Ok(Chain::assemble(chain.root, above.chain([certificate.seal(key)]).collect()))
}

impl Certificate {
    fn seal(&self, issuer: &NodeKey) -> Envelope {
        Envelope::seal(kind::CERTIFICATE, CERTIFICATE_VERSION, self, issuer)
    }

    /// From when on it is renewed, unix milliseconds.
    pub fn renewed_from_ms(&self) -> u64 {
        renewed_from_ms(self.not_before_ms, self.expires_ms)
    }

    fn lasts_as_allowed(&self) -> bool {
        self.expires_ms > self.not_before_ms && self.expires_ms - self.not_before_ms <= CERTIFICATE_LIFE_MS_MAX
    }

    fn unknown_restriction(&self) -> Option<u16> {
        self.extensions.iter().map(|(number, _)| *number).find(|number| *number >= CRITICAL_EXTENSION)
    }
}

impl Chain {
    fn assemble(root: NodeId, certificates: Vec<Envelope>) -> Self {
        let bytes = codec::encode(&ChainBlob { version: CHAIN_VERSION, root, certificates });
        Self::decode(&bytes).expect("a chain that was just encoded within its limits decodes")
    }

    /// Reads a chain; the bytes are kept as they are. Nothing is verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        if bytes.len() > CHAIN_BYTES_MAX {
            return Err(CodecError::TooLong { bytes: bytes.len(), max: CHAIN_BYTES_MAX }.into());
        }
        let (blob, used) = codec::decode_front::<ChainBlob>(bytes)?;
        if blob.version < CHAIN_VERSION {
            return Err(ChainError::TooOld(blob.version));
        }
        if blob.version == CHAIN_VERSION && used < bytes.len() {
            return Err(CodecError::Trailing(bytes.len() - used).into());
        }
        if !(1..=CHAIN_LENGTH_MAX).contains(&blob.certificates.len()) {
            return Err(ChainError::Length(blob.certificates.len()));
        }
        let links = blob.certificates.into_iter().map(Issued::read).collect::<Result<_, _>>()?;
        Ok(Self { bytes: bytes.into(), root: blob.root, links })
    }

    /// The encoded chain, as it was received.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The name of the encoded chain.
    pub fn hash(&self) -> CertificateHash {
        CertificateHash::from_bytes(*blake3::hash(&self.bytes).as_bytes())
    }

    /// The mesh that the chain claims to be of.
    pub fn mesh(&self) -> MeshId {
        MeshId::of_root(&self.root)
    }

    /// Every certificate, that of the founder first; claims, until the chain is verified.
    pub fn certificates(&self) -> impl DoubleEndedIterator<Item = &Certificate> + ExactSizeIterator {
        self.links.iter().map(|link| &link.certificate)
    }

    /// Every act of issuing, that of the founder's certificate first; claims, until the chain is verified.
    pub fn lineage(&self) -> Vec<Issue> {
        self.certificates().map(Certificate::act).collect()
    }

    /// Checks every signature and rule but time and revocation, which change while the chain does not.
    pub fn verify(&self, mesh: &MeshId) -> Result<Member, ChainError> {
        if self.mesh() != *mesh {
            return Err(ChainError::OtherMesh);
        }
        let mut above: Option<&Certificate> = None;
        for (position, link) in (1..).zip(&self.links) {
            link.certificate.check(position, mesh, &self.root, above)?;
            if !link.envelope.verify(&link.certificate.issuer) {
                return Err(ChainError::Signature(position));
            }
            above = Some(&link.certificate);
        }
        let own = above.ok_or(ChainError::Length(0))?;
        Ok(Member {
            mesh: *mesh,
            node: own.node,
            roles: own.roles,
            not_before_ms: own.not_before_ms,
            expires_ms: own.expires_ms,
            certificate: self.hash(),
            lineage: self.lineage(),
        })
    }
}

impl Issued {
    fn read(envelope: Envelope) -> Result<Self, ChainError> {
        let certificate = envelope.decode(kind::CERTIFICATE, CERTIFICATE_VERSION)?;
        Ok(Self { certificate, envelope })
    }
}

impl Certificate {
    /// Every rule that needs no cryptography. `above` is the issuer's own certificate; none for the one that the root signed.
    fn check(&self, position: usize, mesh: &MeshId, root: &NodeId, above: Option<&Certificate>) -> Result<(), ChainError> {
        if self.mesh != *mesh {
            return Err(ChainError::OtherMesh);
        }
        if self.issuer != above.map_or(*root, |above| above.node) {
            return Err(ChainError::BrokenLink(position));
        }
        if !self.lasts_as_allowed() {
            return Err(ChainError::Life(position));
        }
        if let Some(number) = self.unknown_restriction() {
            return Err(ChainError::UnknownRestriction { position, number });
        }
        above.map_or(Ok(()), |above| self.check_issuer(position, above))
    }

    fn check_issuer(&self, position: usize, issuer: &Certificate) -> Result<(), ChainError> {
        if !issuer.roles.contains(Roles::ISSUE) {
            return Err(ChainError::MayNotIssue(position));
        }
        if !issuer.roles.contains(self.roles) {
            return Err(ChainError::MoreRoles(position));
        }
        if !(issuer.not_before_ms..issuer.expires_ms).contains(&self.not_before_ms) {
            return Err(ChainError::IssuedOutside(position));
        }
        Ok(())
    }

    fn act(&self) -> Issue {
        Issue { node: self.node, issuer: self.issuer, serial: self.serial }
    }
}

fn renewed_from_ms(not_before_ms: u64, expires_ms: u64) -> u64 {
    expires_ms - expires_ms.saturating_sub(not_before_ms) / RENEWED_FROM_LAST
}

impl Member {
    /// From when on the certificate is renewed, unix milliseconds.
    pub fn renewed_from_ms(&self) -> u64 {
        renewed_from_ms(self.not_before_ms, self.expires_ms)
    }

    /// Whether the certificate holds now, give or take what clocks may differ by.
    pub fn check_time(&self, now_ms: u64, skew_ms: u64) -> Result<(), OutsideValidity> {
        if now_ms.saturating_add(skew_ms) < self.not_before_ms {
            return Err(OutsideValidity::NotYet { in_ms: self.not_before_ms - now_ms });
        }
        if now_ms > self.expires_ms.saturating_add(skew_ms) {
            return Err(OutsideValidity::Expired { ago_ms: now_ms - self.expires_ms });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
