//! One issuer's invitations and what became of them.
//!
//! Pure state: it is decided here, written to disk by the caller and only then spoken of. [`Ledger::redeem`] reserves the use before the
//! certificate exists, so that whatever fails in between costs the code nothing more: the same node comes back and gets its certificate.
//! A node that was granted one gets the very same again, also after the code expired or was used up: a reply can be lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{InvitationRecord, InvitationSecret, LABEL_BYTES_MAX, Terms};
use crate::admission::Refusal;
use crate::codec::{self, CodecError};
use crate::envelope::Envelope;
use crate::identity::{NodeId, NodeKey};
use crate::membership::{Chain, Member, Roles, issue};

/// Most invitations that can still be redeemed.
pub const INVITATIONS_LIVE_MAX: usize = 256;
/// Most uses of all invitations together, dead ones that are still remembered included: bounds the certificates kept.
pub const USES_TOTAL_MAX: u32 = 4096;
/// How long an expired invitation is remembered, so that a late comer hears "expired" and not "unknown".
pub const REMEMBERED_MS: u64 = 30 * 24 * 3_600_000;

const LEDGER_VERSION: u8 = 1;
/// Far above what the other limits allow: 4,096 chains of 4 KiB at most.
const LEDGER_BYTES_MAX: usize = 32 << 20;

/// The invitations of one issuer, ordered by their public keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// 1 belongs to the founder's certificate.
    next_serial: u64,
    held: BTreeMap<NodeId, Held>,
}

/// An invitation and its history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    pub record: InvitationRecord,
    pub sealed: Envelope,
    pub revoked: bool,
    /// Who redeemed it; with the encoded chain once there was one.
    redemptions: BTreeMap<NodeId, Option<Vec<u8>>>,
}

/// What became of an invitation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It admits whoever shows its code.
    Open,
    Revoked,
    Expired,
    UsedUp,
}

/// What a node gets for an invitation that it proved to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Redemption {
    /// The use is reserved. Issue a certificate with these, [`Ledger::granted`] it, write the ledger to disk, then reply.
    Fresh {
        roles: Roles,
        serial: u64,
    },
    /// It was granted before: this encoded chain.
    Again(Vec<u8>),
    Refused(Refusal),
}

/// Why no invitation was made. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    #[error("this node may not invite: its certificate lacks the role `issue`; run `atmo invite` on a node that has it")]
    MayNotIssue,
    #[error("this node cannot grant {asked}: it has only {own} itself")]
    MoreRoles { asked: Roles, own: Roles },
    #[error("an invitation needs at least one role")]
    NoRoles,
    #[error("an invitation can be used 1 to {USES_TOTAL_MAX} times")]
    Uses,
    #[error("an invitation cannot expire before it is made")]
    ExpiresAtOnce,
    #[error("a label has at most {LABEL_BYTES_MAX} bytes")]
    Label,
    #[error(
        "there are too many open invitations ({INVITATIONS_LIVE_MAX}, or {USES_TOTAL_MAX} uses in all); revoke some or let them expire"
    )]
    Full,
    #[error("this secret was used for an invitation before; take fresh random bytes")]
    SameSecret,
}

/// The stored ledger cannot be read. Do not replace it by an empty one: open codes would become unknown,
/// and serials would be given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger of invitations is damaged: {0}")]
    Encoding(#[from] CodecError),
    #[error("the ledger of invitations has version {0}, which this version of atmo does not know")]
    Version(u8),
}

impl Default for Ledger {
    fn default() -> Self {
        Self { next_serial: 2, held: BTreeMap::new() }
    }
}

impl Held {
    /// How many nodes redeemed it.
    pub fn spent(&self) -> u32 {
        u32::try_from(self.redemptions.len()).unwrap_or(u32::MAX)
    }

    /// Who redeemed it.
    pub fn redeemers(&self) -> impl Iterator<Item = &NodeId> {
        self.redemptions.keys()
    }

    /// The encoded chains of those who redeemed it.
    pub fn chains(&self) -> impl Iterator<Item = &[u8]> {
        self.redemptions.values().filter_map(|chain| chain.as_deref())
    }

    /// What a newcomer would be told.
    pub fn standing(&self, now_ms: u64) -> Standing {
        match self.refusal(now_ms) {
            _ if self.revoked => Standing::Revoked,
            None => Standing::Open,
            Some(Refusal::CodeUsedUp { .. }) => Standing::UsedUp,
            Some(_) => Standing::Expired,
        }
    }

    fn is_live(&self, now_ms: u64) -> bool {
        !self.revoked && now_ms < self.record.expires_ms
    }

    fn refusal(&self, now_ms: u64) -> Option<Refusal> {
        if now_ms >= self.record.expires_ms {
            return Some(Refusal::CodeExpired { ago_ms: now_ms - self.record.expires_ms });
        }
        (self.spent() >= self.record.uses).then_some(Refusal::CodeUsedUp { uses: self.record.uses })
    }
}

impl Ledger {
    /// Makes and remembers an invitation. Write the ledger to disk before the code is shown.
    pub fn invite(
        &mut self,
        key: &NodeKey,
        issuer: &Member,
        secret: &InvitationSecret,
        terms: Terms,
        now_ms: u64,
    ) -> Result<Envelope, InviteError> {
        check_terms(issuer, &terms, now_ms)?;
        self.make_room(terms.uses, now_ms)?;
        let record = InvitationRecord::new(issuer.mesh, issuer.node, secret, terms, now_ms);
        if self.held.contains_key(&record.invitation) {
            return Err(InviteError::SameSecret);
        }
        let sealed = record.seal(key);
        let held = Held { sealed: sealed.clone(), revoked: false, redemptions: BTreeMap::new(), record };
        self.held.insert(held.record.invitation, held);
        Ok(sealed)
    }

    /// What `node`, which proved to hold the key of `invitation`, is to get.
    pub fn redeem(&mut self, invitation: &NodeId, node: &NodeId, now_ms: u64) -> Redemption {
        let Some(held) = self.held.get_mut(invitation) else { return Redemption::Refused(Refusal::CodeUnknown) };
        if held.revoked {
            return Redemption::Refused(Refusal::CodeRevoked);
        }
        match held.redemptions.get(node) {
            Some(Some(chain)) => return Redemption::Again(chain.clone()),
            Some(None) => {}
            None => match held.refusal(now_ms) {
                Some(refusal) => return Redemption::Refused(refusal),
                None => drop(held.redemptions.insert(*node, None)),
            },
        }
        let (roles, serial) = (held.record.roles, self.next_serial);
        self.next_serial += 1;
        Redemption::Fresh { roles, serial }
    }

    /// Keeps the certificate that a fresh redemption led to. False if nothing was reserved for `node`: then it must not be sent.
    pub fn granted(&mut self, invitation: &NodeId, node: &NodeId, chain: &Chain) -> bool {
        let reserved = self.held.get_mut(invitation).and_then(|held| held.redemptions.get_mut(node));
        reserved.is_some_and(|kept| {
            kept.get_or_insert_with(|| chain.bytes().to_vec());
            kept.as_deref() == Some(&chain.bytes()[..])
        })
    }

    /// The whole of a redemption: the encoded chain for `node`, fresh or as before. Write the ledger to disk, then reply.
    ///
    /// `key` and `chain` are the issuer's own. Where they no longer allow to issue, the use stays reserved for `node`.
    pub fn admit(
        &mut self,
        key: &NodeKey,
        chain: &Chain,
        invitation: &NodeId,
        node: &NodeId,
        now_ms: u64,
    ) -> Result<Vec<u8>, Refusal> {
        let (roles, serial) = match self.redeem(invitation, node, now_ms) {
            Redemption::Fresh { roles, serial } => (roles, serial),
            Redemption::Again(chain) => return Ok(chain),
            Redemption::Refused(refusal) => return Err(refusal),
        };
        let certificate = issue(key, chain, node, roles, now_ms, serial).map_err(|_| Refusal::MayNotAdmit)?;
        self.granted(invitation, node, &certificate);
        Ok(certificate.bytes().to_vec())
    }

    /// From now on nobody is admitted by this invitation. False if it is not known.
    pub fn revoke(&mut self, invitation: &NodeId) -> bool {
        self.held.get_mut(invitation).map(|held| held.revoked = true).is_some()
    }

    /// A serial for a certificate outside any invitation.
    pub fn take_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial - 1
    }

    /// Everything remembered.
    pub fn invitations(&self) -> impl ExactSizeIterator<Item = &Held> {
        self.held.values()
    }

    /// Forgets what expired long ago.
    pub fn prune(&mut self, now_ms: u64) {
        self.held.retain(|_, held| now_ms < held.record.expires_ms.saturating_add(REMEMBERED_MS));
    }

    /// The ledger as bytes for the disk. It holds no secret: public keys and certificates alone.
    pub fn encode(&self) -> Vec<u8> {
        [&[LEDGER_VERSION], &codec::encode(self)[..]].concat()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, LedgerError> {
        match bytes.split_first() {
            Some((&LEDGER_VERSION, body)) => Ok(codec::decode_within::<Self, LEDGER_BYTES_MAX>(body)?),
            Some((&version, _)) => Err(LedgerError::Version(version)),
            None => Err(CodecError::CutShort.into()),
        }
    }

    /// Forgets dead invitations, the longest expired first, until one of `uses` fits.
    fn make_room(&mut self, uses: u32, now_ms: u64) -> Result<(), InviteError> {
        self.prune(now_ms);
        if self.held.values().filter(|held| held.is_live(now_ms)).count() >= INVITATIONS_LIVE_MAX {
            return Err(InviteError::Full);
        }
        let live: u32 = self.held.values().filter(|held| held.is_live(now_ms)).map(|held| held.record.uses).sum();
        if live + uses > USES_TOTAL_MAX {
            return Err(InviteError::Full);
        }
        while self.held.values().map(|held| held.record.uses).sum::<u32>() + uses > USES_TOTAL_MAX {
            let dead = self.held.values().filter(|held| !held.is_live(now_ms));
            let oldest = dead.min_by_key(|held| held.record.expires_ms).map(|held| held.record.invitation);
            self.held.remove(&oldest.ok_or(InviteError::Full)?);
        }
        Ok(())
    }
}

fn check_terms(issuer: &Member, terms: &Terms, now_ms: u64) -> Result<(), InviteError> {
    if !issuer.roles.contains(Roles::ISSUE) {
        return Err(InviteError::MayNotIssue);
    }
    if !issuer.roles.contains(terms.roles) {
        return Err(InviteError::MoreRoles { asked: terms.roles, own: issuer.roles });
    }
    if terms.roles.is_empty() {
        return Err(InviteError::NoRoles);
    }
    if !(1..=USES_TOTAL_MAX).contains(&terms.uses) {
        return Err(InviteError::Uses);
    }
    if terms.expires_ms <= now_ms {
        return Err(InviteError::ExpiresAtOnce);
    }
    if terms.label.len() > LABEL_BYTES_MAX {
        return Err(InviteError::Label);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
