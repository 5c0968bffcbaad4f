//! How someone is let in: an invitation, the join code that hands it over, and the ledger of what became of it.
//!
//! The code carries a 16-byte secret. The secret derives an Ed25519 key, and the [`InvitationRecord`] names only that key's public half, so
//! the record can be shown to every member while the code alone redeems it: whoever can sign with the key was given the code. What a code
//! grants, how often and until when is for its issuer's [`Ledger`] to say; the expiry in the code itself is a courtesy to its reader.
//!
//! - [`JoinCode`]: the text, its checks, and what it gives when it was mistyped
//! - [`Ledger`]: one issuer's invitations, what they still grant and to whom
//!
//! Absent: redemption by others than the issuer (the records and codes can say so already) and short codes for one room.

mod address;
mod code;
mod ledger;

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

pub use code::{
    CODE_ADDRESS_BYTES_MAX, CODE_ADDRESSES_MAX, CODE_CHARS_MAX, INTRODUCERS_MAX, Introducer, JoinCode, JoinCodeError,
};
pub use ledger::{
    Held, INVITATIONS_LIVE_MAX, InviteError, Ledger, LedgerError, REMEMBERED_MS, Redemption, Standing, USES_TOTAL_MAX,
};

use crate::envelope::{Envelope, EnvelopeError, kind};
use crate::identity::{MeshId, NodeId, NodeKey};
use crate::membership::Roles;
use crate::record::Extensions;

/// Largest sealed [`InvitationRecord`].
pub const INVITATION_BYTES_MAX: usize = 2 << 10;
/// Longest label of an invitation, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;

const INVITATION_VERSION: u8 = 1;
const KEY_CONTEXT: &str = "atmosphere/1 invitation key";

/// What a join code hands over. Wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationSecret([u8; 16]);

/// Who may admit the holder of a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Redeemers {
    /// The issuer alone: the count of uses is exact.
    #[default]
    Issuer,
    /// Any member with the role `issue`.
    Any,
}

/// What an invitation grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    pub roles: Roles,
    /// How many nodes may redeem it.
    pub uses: u32,
    /// Unix milliseconds.
    pub expires_ms: u64,
    pub redeemers: Redeemers,
    /// What its issuer calls it; may be empty, at most [`LABEL_BYTES_MAX`].
    pub label: String,
}

/// An issuer's statement that the holder of a key may join.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InvitationRecord {
    pub mesh: MeshId,
    /// The public half of the key that the secret derives.
    pub invitation: NodeId,
    pub issuer: NodeId,
    pub roles: Roles,
    pub uses: u32,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub expires_ms: u64,
    pub redeemers: Redeemers,
    pub label: String,
    pub extensions: Extensions,
}

impl InvitationSecret {
    /// From 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key of this invitation in `mesh`; the same secret gives another key in another mesh.
    pub fn key(&self, mesh: &MeshId) -> NodeKey {
        let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
        hasher.update(mesh.as_bytes()).update(&self.0);
        NodeKey::from_seed(*hasher.finalize().as_bytes())
    }
}

impl Drop for InvitationSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(not shown)")
    }
}

impl InvitationRecord {
    pub fn new(mesh: MeshId, issuer: NodeId, secret: &InvitationSecret, terms: Terms, created_ms: u64) -> Self {
        let Terms { roles, uses, expires_ms, redeemers, label } = terms;
        let invitation = secret.key(&mesh).id();
        Self { mesh, invitation, issuer, roles, uses, created_ms, expires_ms, redeemers, label, extensions: Vec::new() }
    }

    pub fn seal(&self, issuer: &NodeKey) -> Envelope {
        Envelope::seal(kind::INVITATION, INVITATION_VERSION, self, issuer)
    }

    /// Reads a record, *verified or not*: its signer must be [`InvitationRecord::issuer`].
    pub fn read(envelope: &Envelope) -> Result<Self, EnvelopeError> {
        envelope.decode(kind::INVITATION, INVITATION_VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_each_mesh_its_own_key() {
        let secret = InvitationSecret::from_bytes([1; 16]);
        let [one, other] = [MeshId::from_bytes([1; 32]), MeshId::from_bytes([2; 32])];
        assert_eq!(secret.key(&one).id(), secret.key(&one).id());
        assert_ne!(secret.key(&one).id(), secret.key(&other).id());
        assert_eq!(format!("{secret:?}"), "InvitationSecret(not shown)");
    }

    #[test]
    fn golden() {
        let issuer = NodeKey::from_seed([2; 32]);
        let terms =
            Terms { roles: Roles::MEMBER, uses: 3, expires_ms: 2000, redeemers: Redeemers::Issuer, label: "lab".to_owned() };
        let secret = InvitationSecret::from_bytes([1; 16]);
        let record = InvitationRecord::new(MeshId::from_bytes([9; 32]), issuer.id(), &secret, terms, 1000);
        let sealed = record.seal(&issuer);
        crate::golden::check("invitation", sealed.bytes());
        assert!(sealed.verify(&issuer.id()) && sealed.bytes().len() <= INVITATION_BYTES_MAX);
        assert_eq!(InvitationRecord::read(&sealed), Ok(record));
    }
}
