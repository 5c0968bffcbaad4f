//! Everything revoked in one mesh, as far as this node knows, and what follows from it.
//!
//! The set only grows, up to a bound, and what counts is a pure function of the set: two nodes that hold the same records refuse the same
//! members, whatever came first. A record counts unless a record that prevails over its signer had ended that signer's membership with a
//! lower last number. The root prevails over everyone; between two admins that revoke each other the senior one prevails, the one nearer to
//! the root, then the one certified earlier. Both are written in certificates, so neither a wrong date nor haste wins (compare the "strong
//! removal" of group key agreement, which lets either side remove the other for ever).
//!
//! Revoking a member that admitted others ends their membership, too, and that of whomever these admitted, but for the keys that the record
//! spares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::revocation::{Revocation, RevocationError, RevocationId, Shared, Target};
use super::{Issue, Member};
use crate::codec::{self, CodecError};
use crate::identity::{MeshId, NodeId};
use crate::wire::Blob;

/// Most revocations that are held: at most 16 MB, typically one. Beyond it those of the most junior signers, latest first, are not held;
/// which is the same on every node that has heard of the same ones.
pub const REVOCATIONS_MAX: usize = 2_048;

const DIGEST_CONTEXT: &str = "atmosphere/1 revocations digest";
const STORED_VERSION: u8 = 1;
/// What [`REVOCATIONS_MAX`] of the largest take, and their lengths.
const STORED_BYTES_MAX: usize = 17 << 20;

/// See the module's head. Cheap to look into, shared by `Arc`.
#[derive(Clone, Debug)]
pub struct Revocations {
    held: BTreeMap<RevocationId, Shared>,
    /// Of `held` those that count.
    counted: Index,
    digest: [u8; 32],
}

/// Revocations by what they revoke.
#[derive(Clone, Debug, Default)]
struct Index {
    keys: BTreeMap<NodeId, Vec<Shared>>,
    /// (issuer, serial)
    certificates: BTreeMap<(NodeId, u64), Vec<Shared>>,
    invitations: BTreeMap<NodeId, Vec<Shared>>,
}

/// What became of a revocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Held from now on.
    News,
    /// Held already.
    Known,
    /// What it revokes has expired so long ago that nobody needs to remember it.
    Outlived,
    /// [`REVOCATIONS_MAX`] are held, none of them of a signer more junior.
    Full,
}

/// Stored revocations cannot be read. Going on without them would let in whoever was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationsError {
    #[error("the list of revocations is damaged: {0}")]
    Encoding(#[from] CodecError),
    #[error("the list of revocations has version {0}, which this version of atmo does not know")]
    Version(u8),
    #[error("the list of revocations holds one that proves nothing: {0}")]
    Revocation(#[from] RevocationError),
}

impl Default for Revocations {
    fn default() -> Self {
        let held = BTreeMap::new();
        Self { digest: digest(&held), held, counted: Index::default() }
    }
}

impl PartialEq for Revocations {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Revocations {}

impl Index {
    fn add(&mut self, revocation: &Shared) {
        let shared = Arc::clone(revocation);
        match revocation.record.target() {
            Some(Target::Key(node)) => self.keys.entry(node).or_default().push(shared),
            Some(Target::Certificate { issuer, serial }) => self.certificates.entry((issuer, serial)).or_default().push(shared),
            Some(Target::Invitation(invitation)) => self.invitations.entry(invitation).or_default().push(shared),
            None => {}
        }
    }

    /// Every revocation that ends a membership, that nearest the root first.
    fn ending<'a, 'l>(&'a self, lineage: &'l [Issue]) -> impl Iterator<Item = &'a Shared> + use<'a, 'l> {
        lineage.iter().enumerate().flat_map(move |(place, issue)| {
            let below = &lineage[place + 1..];
            let of_certificate = self.certificates.get(&(issue.issuer, issue.serial));
            let of_key = self.keys.get(&issue.node);
            let all = of_certificate.into_iter().chain(of_key).flatten();
            all.filter(move |revocation| !below.iter().any(|issue| revocation.record.spared.contains(&issue.node)))
        })
    }

    /// Whether the signer was no admin any more, as far as this revocation's number goes.
    fn voids(&self, revocation: &Revocation) -> bool {
        let Some(signer) = &revocation.signer else { return false };
        let (node, number) = (&signer.node, revocation.record.number);
        self.ending(&signer.lineage).any(|ending| ending.id != revocation.id && number > ending.record.honours(node))
    }
}

impl Revocations {
    /// Adds one; `now_ms` are unix milliseconds.
    pub fn take(&mut self, revocation: Arc<Revocation>, now_ms: u64) -> Taken {
        let taken = self.hold(revocation, now_ms);
        if taken == Taken::News {
            self.settle();
        }
        taken
    }

    /// Adds several and settles once; gives those that are news.
    pub fn extend(&mut self, revocations: impl IntoIterator<Item = Arc<Revocation>>, now_ms: u64) -> Vec<Arc<Revocation>> {
        let mut news = Vec::new();
        for revocation in revocations {
            if self.hold(Arc::clone(&revocation), now_ms) == Taken::News {
                news.push(revocation);
            }
        }
        if !news.is_empty() {
            self.settle();
            news.retain(|revocation| self.held.contains_key(&revocation.id));
        }
        news
    }

    fn hold(&mut self, revocation: Shared, now_ms: u64) -> Taken {
        if self.held.contains_key(&revocation.id) {
            return Taken::Known;
        }
        if revocation.is_outlived(now_ms) {
            return Taken::Outlived;
        }
        if self.held.len() >= REVOCATIONS_MAX {
            let last = self.held.values().max_by_key(|held| held.seniority()).map(|held| (held.seniority(), held.id));
            match last {
                Some((seniority, id)) if revocation.seniority() < seniority => drop(self.held.remove(&id)),
                _ => return Taken::Full,
            }
        }
        self.held.insert(revocation.id, revocation);
        Taken::News
    }

    /// Whether something is held that nobody needs to remember any more.
    pub fn has_outlived(&self, now_ms: u64) -> bool {
        self.held.values().any(|revocation| revocation.is_outlived(now_ms))
    }

    /// Forgets what nobody needs to remember; whether there was any.
    pub fn prune(&mut self, now_ms: u64) -> bool {
        let before = self.held.len();
        self.held.retain(|_, revocation| !revocation.is_outlived(now_ms));
        let pruned = self.held.len() < before;
        if pruned {
            self.settle();
        }
        pruned
    }

    /// Works out what counts. First the revocations that end a signer's own membership, those of senior signers first, each unless one before
    /// it voids it; then all others, unless one of the first voids them.
    fn settle(&mut self) {
        self.digest = digest(&self.held);
        let mut ordered: Vec<&Shared> = self.held.values().collect();
        ordered.sort_by_cached_key(|revocation| revocation.seniority());
        let touched = touched_signers(&ordered);
        let mut strikes = Index::default();
        let mut counted = Index::default();
        let (against_signers, others): (Vec<&Shared>, Vec<&Shared>) = ordered
            .into_iter()
            .partition(|revocation| revocation.record.target().is_some_and(|target| touched.contains(&target)));
        for revocation in against_signers {
            if !strikes.voids(revocation) {
                strikes.add(revocation);
                counted.add(revocation);
            }
        }
        for revocation in others.into_iter().filter(|revocation| !strikes.voids(revocation)) {
            counted.add(revocation);
        }
        self.counted = counted;
    }

    /// The same on two nodes that hold the same.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The revocation nearest the root that ends this membership. Revoking an issuer ends that of all whom it admitted, but for those whom it
    /// spares.
    pub fn refuses(&self, member: &Member) -> Option<&Arc<Revocation>> {
        self.refuses_lineage(&member.lineage)
    }

    /// The same of a chain that is known to hold.
    pub fn refuses_lineage(&self, lineage: &[Issue]) -> Option<&Arc<Revocation>> {
        self.counted.ending(lineage).next()
    }

    /// The revocation of this key, whatever certificate it has.
    pub fn refuses_key(&self, node: &NodeId) -> Option<&Arc<Revocation>> {
        self.counted.keys.get(node)?.first()
    }

    pub fn refuses_invitation(&self, invitation: &NodeId) -> Option<&Arc<Revocation>> {
        self.counted.invitations.get(invitation)?.first()
    }

    /// Whether `revocation` is held and counts: no one senior ended its signer's membership before it.
    pub fn counts(&self, revocation: &Revocation) -> bool {
        let among = |revocations: Option<&Vec<Shared>>| {
            revocations.is_some_and(|revocations| revocations.iter().any(|counted| counted.id == revocation.id))
        };
        match revocation.record.target() {
            Some(Target::Key(node)) => among(self.counted.keys.get(&node)),
            Some(Target::Certificate { issuer, serial }) => among(self.counted.certificates.get(&(issuer, serial))),
            Some(Target::Invitation(invitation)) => among(self.counted.invitations.get(&invitation)),
            None => false,
        }
    }

    /// Everything held, what does not count included.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<Revocation>> {
        self.held.values()
    }

    pub fn get(&self, id: &RevocationId) -> Option<&Arc<Revocation>> {
        self.held.get(id)
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The last number that `signer` gave a revocation; 0 where it gave none.
    pub fn last_number(&self, signer: &NodeId) -> u64 {
        let of_signer = self.held.values().filter(|revocation| revocation.record.signer == *signer);
        of_signer.map(|revocation| revocation.record.number).max().unwrap_or(0)
    }

    /// Every member that signed a revocation which is held, with the last of its numbers and how it was admitted.
    pub fn signers(&self) -> BTreeMap<NodeId, (u64, Member)> {
        let mut signers = BTreeMap::new();
        for revocation in self.held.values() {
            if let Some(signer) = &revocation.signer {
                let (last, _) = signers.entry(signer.node).or_insert_with(|| (0, signer.clone()));
                *last = revocation.record.number.max(*last);
            }
        }
        signers
    }

    /// For the disk. Holds no secret.
    pub fn encode(&self) -> Vec<u8> {
        let blobs: Vec<&Blob> = self.held.values().map(|revocation| &revocation.bytes).collect();
        [&[STORED_VERSION], &codec::encode(&blobs)[..]].concat()
    }

    /// What [`Revocations::encode`] wrote, checked anew, without what nobody needs to remember at `now_ms`.
    pub fn decode(bytes: &[u8], mesh: &MeshId, now_ms: u64) -> Result<Self, RevocationsError> {
        let blobs = match bytes.split_first() {
            Some((&STORED_VERSION, body)) => codec::decode_within::<Vec<Blob>, STORED_BYTES_MAX>(body)?,
            Some((&version, _)) => return Err(RevocationsError::Version(version)),
            None => return Err(CodecError::CutShort.into()),
        };
        let opened = blobs.iter().map(|blob| Revocation::open(&blob.0, mesh).map(Arc::new));
        let mut revocations = Self::default();
        revocations.extend(opened.collect::<Result<Vec<_>, _>>()?, now_ms);
        Ok(revocations)
    }
}

impl Revocation {
    fn is_outlived(&self, now_ms: u64) -> bool {
        now_ms > self.record.until_ms
    }
}

/// Everything that would end the membership of some signer, if it were revoked.
fn touched_signers(revocations: &[&Shared]) -> BTreeSet<Target> {
    let signers = revocations.iter().filter_map(|revocation| revocation.signer.as_ref());
    let acts = signers.flat_map(|signer| &signer.lineage);
    acts.flat_map(|issue| [Target::Key(issue.node), Target::Certificate { issuer: issue.issuer, serial: issue.serial }]).collect()
}

fn digest(held: &BTreeMap<RevocationId, Shared>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(DIGEST_CONTEXT);
    // What nodes without revocations have always told in their admission.
    hasher.update(&[0; 3]);
    for id in held.keys() {
        hasher.update(&id.0);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
