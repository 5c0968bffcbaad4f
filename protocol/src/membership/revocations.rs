//! What no longer holds although its signatures do: keys, single certificates and invitations.
//!
//! This is the list that admission asks. The signed, numbered records that fill it, and the exceptions they can name, are not here yet,
//! so in practice it is empty.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Member;
use crate::codec;
use crate::identity::NodeId;

const DIGEST_CONTEXT: &str = "atmosphere/1 revocations digest";

/// Everything revoked in one mesh, as far as this node knows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Revocations {
    keys: BTreeSet<NodeId>,
    /// (issuer, serial)
    certificates: BTreeSet<(NodeId, u64)>,
    invitations: BTreeSet<NodeId>,
}

/// What of a member's chain is revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revoked {
    /// The key of the member, or of one that admitted it.
    Key(NodeId),
    /// The certificate of the member, or of one that admitted it.
    Certificate { issuer: NodeId, serial: u64 },
}

impl Revocations {
    pub fn revoke_key(&mut self, key: NodeId) {
        self.keys.insert(key);
    }

    pub fn revoke_certificate(&mut self, issuer: NodeId, serial: u64) {
        self.certificates.insert((issuer, serial));
    }

    pub fn revoke_invitation(&mut self, invitation: NodeId) {
        self.invitations.insert(invitation);
    }

    /// The same on two nodes that know the same.
    pub fn digest(&self) -> [u8; 32] {
        blake3::derive_key(DIGEST_CONTEXT, &codec::encode(self))
    }

    /// The revocation nearest the root that ends this membership. Revoking an issuer ends that of all whom it admitted.
    pub fn refuses(&self, member: &Member) -> Option<Revoked> {
        member.lineage.iter().find_map(|issue| {
            if self.certificates.contains(&(issue.issuer, issue.serial)) {
                return Some(Revoked::Certificate { issuer: issue.issuer, serial: issue.serial });
            }
            self.keys.contains(&issue.node).then_some(Revoked::Key(issue.node))
        })
    }

    pub fn refuses_invitation(&self, invitation: &NodeId) -> bool {
        self.invitations.contains(invitation)
    }
}
