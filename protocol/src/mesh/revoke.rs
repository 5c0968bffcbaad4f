//! Revocations in the running mesh: how they spread, and what they end.
//!
//! On every link both sides tell the digest of what they hold: 36 bytes, and all there is to say where they agree. Where they differ, each
//! lists what it holds and is sent what it lacks. What is news goes to every other link at once, before anything else that is to be said
//! there, and what comes back is the peer's new digest, which acknowledges it.
//!
//! Whoever is revoked leaves every structure the moment the record is known. Its own link says one last thing, that record, and is closed a
//! moment later. A node that learns that it was revoked itself tells its peers so, lets go of them and dials nobody any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::vocabulary::{Blame, CloseReason, Event, Now, Output};
use super::{Mesh, Slot};
use crate::config::{LINKS_MAX, REVOCATIONS_ASK_MS, REVOCATIONS_ASK_MS_MAX, REVOKED_LAST_WORDS_MS};
use crate::distance::LinkId;
use crate::identity::NodeId;
use crate::membership::{Member, REVOCATION_BYTES_MAX, Revocation, RevocationId, Revocations};
use crate::record::NodeRecord;
use crate::timers::Timer;
use crate::wire::{Frame, RevocationNews, VerifiedChain};

/// Encoded bytes of a short id at most.
const SHORT_ID_BYTES: usize = 9;

/// What is revoked, and how far each peer knows it.
#[derive(Debug, Default)]
pub(super) struct Revoking {
    set: Arc<Revocations>,
    /// What ends this node's own membership.
    own: Option<Arc<Revocation>>,
    talks: BTreeMap<NodeId, Talk>,
    /// Revoked peers whose connection still stands.
    condemned: BTreeMap<NodeId, Condemned>,
}

/// With one linked peer.
#[derive(Debug)]
struct Talk {
    chain: Arc<VerifiedChain>,
    /// The digests that were last heard from and told to the peer.
    heard: Option<[u8; 32]>,
    told: Option<[u8; 32]>,
    /// What it lacks.
    queue: BTreeSet<RevocationId>,
    /// It is to be told what we hold, so that it sends us the rest.
    ask: bool,
    /// Not before this moment again, and the wait after that.
    ask_at_ms: u64,
    ask_wait_ms: u64,
}

#[derive(Debug)]
struct Condemned {
    last_words: Option<Vec<u8>>,
    close_ms: u64,
}

impl Talk {
    fn new(chain: Arc<VerifiedChain>) -> Self {
        let queue = BTreeSet::new();
        Self { chain, heard: None, told: None, queue, ask: false, ask_at_ms: 0, ask_wait_ms: REVOCATIONS_ASK_MS }
    }

    fn wants_to_say(&self, digest: [u8; 32]) -> bool {
        self.ask || !self.queue.is_empty() || self.told != Some(digest)
    }

    /// Whether the peer holds something else than we do, and not because something is still under way to it.
    fn differs(&self, digest: [u8; 32]) -> bool {
        self.queue.is_empty() && self.heard.is_some_and(|heard| heard != digest)
    }

    /// Two that cannot come to agree (one is full) ask each other ever more rarely.
    fn ask(&mut self, now_ms: u64) {
        if now_ms >= self.ask_at_ms {
            self.ask = true;
            self.ask_at_ms = now_ms + self.ask_wait_ms;
            self.ask_wait_ms = (2 * self.ask_wait_ms).min(REVOCATIONS_ASK_MS_MAX);
        }
    }

    fn heard(&mut self, digest: [u8; 32], ours: [u8; 32]) {
        self.heard = Some(digest);
        if digest == ours {
            self.queue.clear();
            self.ask = false;
            self.ask_wait_ms = REVOCATIONS_ASK_MS;
        }
    }
}

impl Revoking {
    pub fn link_up(&mut self, peer: NodeId, chain: Arc<VerifiedChain>) {
        self.talks.insert(peer, Talk::new(chain));
    }

    pub fn link_down(&mut self, peer: &NodeId) {
        self.talks.remove(peer);
        self.condemned.remove(peer);
    }

    pub fn wants_to_say(&self, peer: &NodeId) -> bool {
        self.talks.get(peer).is_some_and(|talk| talk.wants_to_say(self.set.digest()))
    }

    pub fn refuses(&self, member: &Member) -> bool {
        self.set.refuses(member).is_some()
    }

    pub fn refuses_key(&self, node: &NodeId) -> bool {
        self.set.refuses_key(node).is_some()
    }

    /// Whether nobody is to be dialled there: the node is revoked, or we are.
    pub fn keeps_apart(&self, node: &NodeId) -> bool {
        self.own.is_some() || self.refuses_key(node)
    }

    /// What a revoked peer is still told. Once.
    pub fn last_words(&mut self, peer: &NodeId) -> Option<Vec<u8>> {
        self.condemned.get_mut(peer)?.last_words.take()
    }

    /// The peer said that it holds what we hold, nothing less.
    fn agrees(&self, peer: &NodeId) -> bool {
        self.talks.get(peer).is_some_and(|talk| talk.heard == Some(self.set.digest()))
    }

    fn next_ms(&self) -> Option<u64> {
        let digest = self.set.digest();
        let asks = self.talks.values().filter(|talk| talk.differs(digest)).map(|talk| talk.ask_at_ms);
        asks.chain(self.condemned.values().map(|condemned| condemned.close_ms)).min()
    }
}

impl Mesh {
    /// Everything revoked in this mesh, as far as this node knows.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revoking.set
    }

    /// What ended this node's own membership, if anything did.
    pub fn own_revocation(&self) -> Option<&Arc<Revocation>> {
        self.revoking.own.as_ref()
    }

    /// Every linked peer, and whether it holds all revocations that this node does.
    pub fn revocations_agreed(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.revoking.talks.keys().map(|peer| (*peer, self.revoking.agrees(peer)))
    }

    /// Every node whose record counts, with what its certificate says; this one included.
    pub fn members(&self) -> impl Iterator<Item = (&NodeRecord, &Member)> {
        self.table.iter().filter_map(|(slot, origin)| Some((&origin.record?.record, &self.chains.at(slot)?.member)))
    }

    /// The chain that a node's record names.
    pub fn chain_of(&self, node: &NodeId) -> Option<&Arc<VerifiedChain>> {
        self.chains.at(self.table.slot(node)?)
    }

    /// Revocations whose signatures hold, from a peer or from elsewhere. What is news in this mesh is passed on and takes effect.
    pub(super) fn take_revocations(&mut self, mut revocations: Vec<Arc<Revocation>>, from: Option<NodeId>, now: Now) {
        revocations
            .retain(|revocation| revocation.record.mesh == self.own.mesh && self.revoking.set.get(&revocation.id).is_none());
        if revocations.is_empty() {
            return;
        }
        let news = Arc::make_mut(&mut self.revoking.set).extend(revocations, now.wall_ms);
        if news.is_empty() {
            return;
        }
        for (_, talk) in self.revoking.talks.iter_mut().filter(|(peer, _)| Some(**peer) != from) {
            talk.queue.extend(news.iter().map(|revocation| revocation.id));
        }
        self.outputs.push_back(Output::Revocations(Arc::clone(&self.revoking.set)));
        for revocation in news {
            if self.revoking.set.counts(&revocation) {
                self.event(Event::Revoked { revocation });
            }
        }
        self.end_memberships(now);
        self.arm_revoking(now);
    }

    /// Lets go of whoever is no member any more.
    fn end_memberships(&mut self, now: Now) {
        let set = Arc::clone(&self.revoking.set);
        let own = set.refuses(&self.own.chain.member).cloned();
        if own != self.revoking.own {
            self.revoking.own.clone_from(&own);
        }
        if let Some(own) = own {
            return self.end_own_membership(own, now);
        }
        let condemned: Vec<_> =
            self.revoking.talks.iter().filter_map(|(peer, talk)| Some((*peer, set.refuses(&talk.chain.member)?))).collect();
        for (peer, revocation) in condemned {
            self.condemn(peer, revocation, now);
        }
        let revoked: Vec<Slot> = self
            .table
            .iter()
            .filter(|(slot, _)| *slot != self.me)
            .filter_map(|(slot, origin)| {
                let chain = self.chains.at(slot);
                let refused =
                    set.refuses_key(&origin.id).is_some() || chain.is_some_and(|chain| set.refuses(&chain.member).is_some());
                refused.then_some(slot)
            })
            .collect();
        revoked.into_iter().for_each(|slot| self.forget(slot));
        self.pending.retain(|node, _| set.refuses_key(node).is_none());
        self.dialler.retain(|node| set.refuses_key(node).is_none());
    }

    /// Nobody is to be reached any more, and nobody tries. What this node offers stays its own.
    fn end_own_membership(&mut self, revocation: Arc<Revocation>, now: Now) {
        let peers: Vec<NodeId> = self.revoking.talks.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.condemn(peer, &revocation, now));
        let others: Vec<Slot> = self.table.iter().map(|(slot, _)| slot).filter(|slot| *slot != self.me).collect();
        others.into_iter().for_each(|slot| self.forget(slot));
        self.pending.clear();
        self.wants.clear();
        self.dialler.retain(|_| false);
    }

    /// Ends the link at once, and the connection once the peer was told why.
    fn condemn(&mut self, peer: NodeId, revocation: &Revocation, now: Now) {
        self.drop_link(peer, now);
        self.dialler.forget(&peer);
        if self.revoking.condemned.len() >= LINKS_MAX {
            self.outputs.push_back(Output::Close { peer, reason: CloseReason::Revoked });
            return;
        }
        let records = vec![revocation.bytes.clone()];
        let last_words = Frame::Revocations(RevocationNews { digest: self.revoking.set.digest(), held: None, records }).encode();
        let close_ms = now.mono_ms + REVOKED_LAST_WORDS_MS;
        self.revoking.condemned.insert(peer, Condemned { last_words: Some(last_words), close_ms });
        self.outputs.push_back(Output::WantsSend { peer });
        self.arm_revoking(now);
    }

    /// A link to or of somebody revoked ends before it began; whether it did.
    pub(super) fn condemn_if_revoked(&mut self, peer: NodeId, chain: &VerifiedChain, now: Now) -> bool {
        let revocation = self.revoking.own.clone().or_else(|| self.revoking.set.refuses(&chain.member).cloned());
        if let Some(revocation) = &revocation {
            self.condemn(peer, revocation, now);
        }
        revocation.is_some()
    }

    pub(super) fn receive_revocations(
        &mut self,
        peer: NodeId,
        digest: [u8; 32],
        held: Option<Vec<u64>>,
        records: Vec<Arc<Revocation>>,
        now: Now,
    ) {
        if let Some(talk) = self.revoking.talks.get_mut(&peer) {
            records.iter().for_each(|record| _ = talk.queue.remove(&record.id));
        }
        self.take_revocations(records, Some(peer), now);
        let set = &self.revoking.set;
        // What came may have ended the link it came on.
        let Some(talk) = self.revoking.talks.get_mut(&peer) else { return };
        talk.heard(digest, set.digest());
        if let Some(held) = held {
            let held: BTreeSet<u64> = held.into_iter().collect();
            talk.queue = set.all().map(|ours| ours.id).filter(|id| !held.contains(&id.short())).collect();
            let shared = set.len() - talk.queue.len();
            if shared < held.len() {
                talk.ask(now.mono_ms);
            }
        } else if talk.differs(set.digest()) {
            talk.ask(now.mono_ms);
        }
        self.arm_revoking(now);
    }

    /// The revocations that a peer lacks, or our digest, or what we hold.
    pub(super) fn revocation_frame(&mut self, id: LinkId, room: usize) -> Option<Frame> {
        let peer = self.links.get(&id)?.peer;
        let set = &self.revoking.set;
        let talk = self.revoking.talks.get_mut(&peer).filter(|talk| talk.wants_to_say(set.digest()))?;
        let held = std::mem::take(&mut talk.ask).then(|| set.all().map(|revocation| revocation.id.short()).collect::<Vec<u64>>());
        let mut left = room.saturating_sub(held.as_ref().map_or(0, |held| held.len() * SHORT_ID_BYTES));
        let mut records = Vec::new();
        while left >= REVOCATION_BYTES_MAX + 4 {
            let Some(revocation) = talk.queue.pop_first().map(|id| set.get(&id)) else { break };
            if let Some(revocation) = revocation {
                left -= revocation.bytes.0.len() + 4;
                records.push(revocation.bytes.clone());
            }
        }
        talk.told = Some(set.digest());
        Some(Frame::Revocations(RevocationNews { digest: set.digest(), held, records }))
    }

    /// A record of somebody revoked came in. It costs whoever had said that it holds the revocation.
    pub(super) fn refuse_revoked(&mut self, from: LinkId, now: Now) {
        self.refused.revoked += 1;
        let Some(sender) = self.links.get(&from).map(|link| link.peer) else { return };
        if self.revoking.agrees(&sender) {
            self.blame_peer(sender, Blame::RevokedOrigin, now);
        }
    }

    /// Closes what is due and asks again where views still differ.
    pub(super) fn attend_revoking(&mut self, now: Now) {
        let is_due = |condemned: &Condemned| condemned.close_ms <= now.mono_ms;
        let due: Vec<NodeId> =
            self.revoking.condemned.iter().filter(|(_, condemned)| is_due(condemned)).map(|(peer, _)| *peer).collect();
        for peer in due {
            self.revoking.condemned.remove(&peer);
            self.outputs.push_back(Output::Close { peer, reason: CloseReason::Revoked });
        }
        let digest = self.revoking.set.digest();
        self.revoking.talks.values_mut().filter(|talk| talk.differs(digest)).for_each(|talk| talk.ask(now.mono_ms));
        self.arm_revoking(now);
    }

    /// Forgets revocations of what has long expired by itself.
    pub(super) fn prune_revocations(&mut self, now: Now) {
        if self.revoking.set.has_outlived(now.wall_ms) {
            Arc::make_mut(&mut self.revoking.set).prune(now.wall_ms);
            self.outputs.push_back(Output::Revocations(Arc::clone(&self.revoking.set)));
            self.end_memberships(now);
        }
    }

    fn arm_revoking(&mut self, now: Now) {
        let at_ms = self.revoking.next_ms().map(|at_ms| at_ms.max(now.mono_ms + 1));
        self.timers.put(Timer::Revocations, at_ms);
    }
}
