//! The mesh as one node sees it: one state machine, no I/O.
//!
//! Take `handle(now, input)` for every fact from outside, drain `poll_output()`, then sleep until `poll_timeout()` and call
//! `handle_timeout(now)`. Frames are *pulled*: after [`Output::WantsSend`] call `poll_send` whenever the link's writer is free, until it
//! returns `None`; what changes meanwhile is folded into what is still to be sent, so a slow peer costs dirty bits and never a backlog.
//!
//! Who is linked is decided in `active`, who is told of a new record in `spread`, what two neighbours lack of each other in `reconcile`,
//! who is alive in `standing`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

mod accept;
mod active;
mod blame;
mod dial;
mod doubt;
mod link;
mod loads;
mod look;
mod own;
mod receive;
mod reconcile;
mod revoke;
mod send;
mod snapshot;
mod spread;
mod standing;
mod vocabulary;

pub use look::OriginView;
pub use snapshot::{KnownMember, KnownNeighbour, Snapshot};
pub use spread::SpreadCount;
pub use vocabulary::{Blame, CloseReason, DeathCause, Event, Input, LinkLoss, MeshConfig, Now, Output};

use self::accept::{Pending, Proof, Want};
use self::active::Active;
use self::blame::Offences;
use self::dial::Dialler;
use self::link::Link;
use self::own::Own;
use self::revoke::Revoking;
use self::spread::Recent;
use crate::config::{
    BAN_MS, BANS_DOUBTED, BANS_MAX, BLAME_POINTS_MAX, BODIES_MAX, CLOCK_JUMP_MS, DIAL_PAUSE_MS, EVENTS_QUEUED_MAX, LATE_MS,
    LEASE_GRACE_MS, LEASE_RENEWAL_MS, LINKS_MAX, NEIGHBOURS_COALESCE_MS, NEIGHBOURS_COALESCE_PER_NODE_MS, PROBE_INTERVAL_MS,
    RECORD_COALESCE_MS, SILENCE_MS, SWEEP_INTERVAL_MS,
};
use crate::distance::{Distances, LinkId};
use crate::gossip::ranges::EVERYTHING;
use crate::gossip::{Chains, Interned};
use crate::gradient::{Gradient, NearLoads, Slot, Standing};
use crate::identity::{BodyHash, NodeId, Slug};
use crate::liveness::{Suspicions, short_number};
use crate::record::{CapabilityBody, Load, Offered};
use crate::timers::{Timer, Timers};
use crate::wire::{Body, NodeLoads, VerifiedChain};

/// One node's part in the mesh.
#[derive(Debug)]
pub struct Mesh {
    own: Own,
    me: Slot,
    table: Gradient,
    distances: Distances,
    suspicions: Suspicions,
    links: BTreeMap<LinkId, Link>,
    link_of: BTreeMap<NodeId, LinkId>,
    bodies: Interned<BodyHash, Body>,
    chains: Chains,
    pending: BTreeMap<NodeId, Pending>,
    wants: BTreeMap<Want, Option<LinkId>>,
    quarantined: BTreeMap<Slot, Proof>,
    bans: BTreeMap<NodeId, u64>,
    offences: Offences,
    revoking: Revoking,
    dialler: Dialler,
    dialled_ms: u64,
    /// What the dial timer was set by.
    dial_basis: Option<(u64, usize, usize)>,
    active: Active,
    /// When this node last signed anew because it was accused.
    refuted_ms: u64,
    recent: Recent,
    spread: SpreadCount,
    /// Origins that are believed to be alive, this node among them.
    alive: usize,
    /// When something is next said on every link.
    tick_at_ms: u64,
    own_loads: BTreeMap<Slug, Load>,
    near_loads: NearLoads,
    loads_told_ms: u64,
    /// When loads of others were last passed on.
    relayed_ms: u64,
    timers: Timers,
    /// Until when this node doubts itself and accuses nobody.
    doubt_until_ms: u64,
    /// Wall minus monotonic milliseconds, as last seen.
    clock_offset_ms: i64,
    /// Another process lives with this node's key: one last record, then both stop.
    second_holder: bool,
    outputs: VecDeque<Output>,
    roster_changed: bool,
    roster_generation: u64,
    condition_generation: u64,
    refused: Refused,
    rng: ChaCha12Rng,
}

/// What was not taken, for metrics. Costs nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refused {
    pub expired: u64,
    pub leased_too_far_ahead: u64,
    pub unknown_frames: u64,
    pub quarantined: u64,
    pub waiting_overflow: u64,
    /// Records of revoked nodes.
    pub revoked: u64,
    /// Distances of origins without a record, beyond what one link may tell.
    pub introduced_overflow: u64,
}

impl Mesh {
    /// Asks at once for its incarnation to be written down; says nothing to anybody before that is done.
    pub fn new(config: MeshConfig, now: Now) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(config.seed);
        let own = Own::new(config, now);
        let mut table = Gradient::default();
        let me = table.slot_or_new(own.id).expect("an empty table has room");
        let mut chains = Chains::default();
        chains.put(me, Arc::clone(&own.chain));
        let mut mesh = Self {
            me,
            table,
            distances: Distances::new(me),
            suspicions: Suspicions::default(),
            links: BTreeMap::new(),
            link_of: BTreeMap::new(),
            bodies: Interned::new(BODIES_MAX),
            chains,
            pending: BTreeMap::new(),
            wants: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            bans: BTreeMap::new(),
            offences: Offences::default(),
            revoking: Revoking::default(),
            dialler: Dialler::new(own.id),
            dialled_ms: 0,
            dial_basis: None,
            active: Active::default(),
            refuted_ms: 0,
            recent: Recent::default(),
            spread: SpreadCount::default(),
            alive: 0,
            tick_at_ms: now.mono_ms + rng.random_range(0..=PROBE_INTERVAL_MS),
            own_loads: BTreeMap::new(),
            near_loads: NearLoads::default(),
            loads_told_ms: 0,
            relayed_ms: 0,
            timers: Timers::default(),
            doubt_until_ms: 0,
            clock_offset_ms: offset_ms(now),
            second_holder: false,
            outputs: VecDeque::new(),
            roster_changed: false,
            roster_generation: 0,
            condition_generation: 0,
            refused: Refused::default(),
            own,
            rng,
        };
        mesh.outputs.push_back(Output::PersistIncarnation(mesh.own.incarnation()));
        mesh.timers.set(Timer::Sweep, now.mono_ms + SWEEP_INTERVAL_MS);
        mesh.timers.set(Timer::View, now.mono_ms);
        mesh.timers.set(Timer::Links, mesh.tick_at_ms);
        mesh.arm_digest(now);
        mesh
    }

    pub fn id(&self) -> NodeId {
        self.own.id
    }

    /// Takes one fact from outside, and whatever was due by `now`.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.advance(now);
        match input {
            Input::LinkUp { peer, chain, rtt_ms } => self.link_up(peer, chain, rtt_ms, now),
            Input::LinkDown { peer, cause } => self.link_down(peer, cause, now),
            Input::Frame { peer, frame } => self.receive(peer, frame, now),
            Input::BadFrame { peer, .. } => {
                self.blame_peer(peer, Blame::BadFrame, now);
                // What it said is lost, and everything after builds on it: the link begins anew.
                self.close(peer, CloseReason::Garbled);
            }
            Input::DialFailed { node } => self.dial_failed(node, now),
            Input::Offer(offers) => self.offer(offers, now),
            Input::Addresses(addresses) => self.address(addresses, now),
            Input::Rename(name) => self.amend_own(now, |own| own.rename(name)),
            Input::Mode(mode) => self.amend_own(now, |own| own.set_mode(mode)),
            Input::Labels(labels) => self.amend_own(now, |own| own.label(labels)),
            Input::Certificate(chain) => self.certify(chain, now),
            Input::LoadHeard { node, slug, load } => {
                self.receive_loads(node, NodeLoads { node, age_ms: 0, loads: vec![(slug, load)] }, now);
            }
            Input::Load(loads) => self.own_load(loads, now),
            Input::Rtt { peer, ms } => self.measured(peer, ms),
            Input::Found { node, addresses } => self.found(node, addresses, now),
            Input::IncarnationPersisted(incarnation) => self.persisted(incarnation, now),
            Input::Revoke(revocations) => self.take_revocations(revocations, None, now),
            Input::Leave => self.leave(now),
        }
        self.settle(now);
    }

    /// Does whatever is due by `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.advance(now);
        self.settle(now);
    }

    /// The next effect to have, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Mesh::handle_timeout`] at the latest, in monotonic milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    fn advance(&mut self, now: Now) {
        self.doubt_clocks(now);
        while let Some(timer) = self.timers.pop_due(now.mono_ms) {
            self.fire(timer, now);
        }
    }

    fn fire(&mut self, timer: Timer, now: Now) {
        match timer {
            Timer::Sign => self.sign(now),
            Timer::Links => self.check_links(now),
            Timer::Holds => self.distances.release(now.mono_ms),
            // What is due is announced after whatever fired.
            Timer::Distances => {}
            Timer::Verdicts => self.judge_suspects(now),
            Timer::Digest => self.start_digest(now),
            Timer::Fetch => self.ask_for_missing(now),
            Timer::Dial => self.dial(now),
            Timer::View => self.tend(now),
            Timer::Bootstrap => self.end_bootstrap(now),
            Timer::Loads => self.tell_loads(now),
            Timer::Revocations => self.attend_revoking(now),
            Timer::Sweep => self.sweep(now),
        }
    }

    /// What follows from any change: standings, deadlines, and whom there is something to say to.
    fn settle(&mut self, now: Now) {
        while let Some(slot) = self.distances.pop_changed() {
            self.distance_changed(slot, now);
        }
        self.timers.put(Timer::Holds, self.distances.release_at_ms());
        self.timers.put(Timer::Verdicts, self.suspicions.next_ms());
        self.arm_dial();
        self.announce_sends(now);
        if std::mem::take(&mut self.roster_changed) {
            self.event(Event::CapabilitiesChanged);
        }
    }

    fn arm_dial(&mut self) {
        let (wanted, links) = (self.active.wanted(), self.links.len());
        let basis = (self.dialler.generation(), wanted, links);
        if self.dial_basis != Some(basis) {
            self.dial_basis = Some(basis);
            let at_ms = self.dialler.next_ms(wanted, links).map(|at_ms| at_ms.max(self.dialled_ms + DIAL_PAUSE_MS));
            self.timers.put(Timer::Dial, at_ms);
        }
    }

    /// Our own timer far too late means that we slept, not that everyone else died.
    fn doubt_clocks(&mut self, now: Now) {
        let late = self.timers.next_ms().is_some_and(|due| now.mono_ms > due + LATE_MS);
        let jump_ms = offset_ms(now) - self.clock_offset_ms;
        let jumped = jump_ms.unsigned_abs() > CLOCK_JUMP_MS;
        if late || jumped {
            self.doubt_until_ms = now.mono_ms + SILENCE_MS;
            self.links.values_mut().for_each(|link| link.heard_ms = now.mono_ms);
        }
        if jumped {
            self.clock_offset_ms = offset_ms(now);
            self.event(Event::ClockDoubt { jump_ms });
            self.want_sign(RECORD_COALESCE_MS, now);
        }
    }

    fn doubts_itself(&self, now: Now) -> bool {
        now.mono_ms < self.doubt_until_ms
    }

    fn event(&mut self, event: Event) {
        if self.outputs.len() < EVENTS_QUEUED_MAX {
            self.outputs.push_back(Output::Event(event));
        }
    }

    // Links

    fn link_up(&mut self, peer: NodeId, chain: Arc<VerifiedChain>, rtt_ms: u32, now: Now) {
        self.drop_link(peer, now);
        if self.condemn_if_revoked(peer, &chain, now) {
            return;
        }
        match self.refuse_link(peer, &chain, now) {
            Some(reason) => self.outputs.push_back(Output::Close { peer, reason }),
            None => self.admit_link(peer, chain, rtt_ms, now),
        }
    }

    fn refuse_link(&mut self, peer: NodeId, chain: &VerifiedChain, now: Now) -> Option<CloseReason> {
        if peer == self.own.id {
            self.event(Event::SecondHolderOfKey);
            return Some(CloseReason::NotAdmitted);
        }
        let member = &chain.member;
        if member.node != peer || member.mesh != self.own.mesh || member.check_time(now.wall_ms, LEASE_GRACE_MS).is_err() {
            return Some(CloseReason::NotAdmitted);
        }
        if self.bans.get(&peer).is_some_and(|until| now.mono_ms < *until) {
            return Some(CloseReason::Misbehaved);
        }
        (self.links.len() >= LINKS_MAX).then_some(CloseReason::TooManyLinks)
    }

    fn admit_link(&mut self, peer: NodeId, chain: Arc<VerifiedChain>, rtt_ms: u32, now: Now) {
        let free = (0..=u8::MAX).map(LinkId).find(|id| !self.links.contains_key(id));
        let (Some(id), Some(slot)) = (free, self.slot_of_proven(peer)) else {
            self.outputs.push_back(Output::Close { peer, reason: CloseReason::TooManyLinks });
            return;
        };
        self.links.insert(id, Link::new(id, peer, slot, rtt_ms, now.mono_ms));
        self.link_of.insert(peer, id);
        self.revoking.link_up(peer, Arc::clone(&chain));
        self.dialler.linked(&peer);
        self.distances.link_up(id, slot, rtt_ms, now.mono_ms);
        self.refuted(slot, now);
        self.take_chain(chain, now);
        self.begin_bootstrap(id, now);
        self.greet(id, now);
        self.timers.sooner(Timer::Links, now.mono_ms);
        self.neighbours_changed(now);
        self.judge(slot, now);
        self.remember(slot);
    }

    /// The first words on a link: our own record, the peer's as we know it (a second holder of its key learns of the other so), and (one
    /// side only, or both would push the same) what we hold of the others.
    fn greet(&mut self, id: LinkId, now: Now) {
        let summary = self.table.range_summary(EVERYTHING.0, EVERYTHING.1, now.wall_ms);
        let (me, own_id) = (self.me, self.own.id);
        let signed = self.table.has_record(me);
        let has_loads = !self.own_loads.is_empty();
        let reconciles = own_id < self.links[&id].peer && self.active.may_reconcile(id);
        let Some(link) = self.links.get_mut(&id) else { return };
        if signed {
            link.outbox.records.insert(me.0);
        }
        if self.table.has_record(link.slot) {
            link.outbox.records.insert(link.slot.0);
        }
        link.outbox.loads = has_loads;
        link.outbox.alive = true;
        if reconciles {
            link.outbox.add_range(summary);
        }
    }

    fn link_down(&mut self, peer: NodeId, cause: LinkLoss, now: Now) {
        let Some(link) = self.drop_link(peer, now) else { return };
        if cause == LinkLoss::Lost && !link.closing && !self.doubts_itself(now) {
            self.suspect(link.slot, now);
        }
        self.judge(link.slot, now);
    }

    /// Takes a link out of every structure that knows it.
    fn drop_link(&mut self, peer: NodeId, now: Now) -> Option<Link> {
        self.revoking.link_down(&peer);
        let id = self.link_of.remove(&peer)?;
        let link = self.links.remove(&id)?;
        self.distances.link_down(id, now.mono_ms);
        self.forget_introduced(&link, now);
        // In a large mesh whoever is in the table is drawn from it like everyone else: views that go back to the same few fill them up.
        if self.active.is_partial() && self.table.has_record(link.slot) {
            self.dialler.forget(&peer);
        } else {
            self.dialler.lost(&peer, now.mono_ms);
        }
        self.neighbours_changed(now);
        self.tend_soon(now);
        Some(link)
    }

    fn link(&mut self, peer: &NodeId) -> Option<&mut Link> {
        self.links.get_mut(self.link_of.get(peer)?)
    }

    fn measured(&mut self, peer: NodeId, ms: u32) {
        if let Some(link) = self.link(&peer) {
            link.rtt_ms = ms;
            let id = link.id;
            self.distances.measured(id, ms);
            self.condition_generation += 1;
        }
    }

    fn close(&mut self, peer: NodeId, reason: CloseReason) {
        if let Some(link) = self.link(&peer).filter(|link| !link.closing) {
            link.closing = true;
            self.outputs.push_back(Output::Close { peer, reason });
        }
    }

    fn blame_peer(&mut self, peer: NodeId, why: Blame, now: Now) {
        if !self.link_of.contains_key(&peer) {
            return;
        }
        if self.offences.blame(peer, why.points(), now.mono_ms) >= BLAME_POINTS_MAX {
            self.ban(peer, now);
            self.close(peer, CloseReason::Misbehaved);
        }
        self.event(Event::Blamed { peer, why });
    }

    fn ban(&mut self, peer: NodeId, now: Now) {
        if self.bans.len() >= BANS_MAX {
            let first = self.bans.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.map(|first| self.bans.remove(&first));
        }
        self.bans.insert(peer, now.mono_ms + BAN_MS);
        // Who finds everyone guilty has reason to doubt what it hears itself.
        if self.bans.len() > self.links.len().max(BANS_DOUBTED) {
            self.bans.clear();
        }
    }

    // Dialling

    fn found(&mut self, node: NodeId, addresses: Vec<String>, now: Now) {
        if self.revoking.keeps_apart(&node) {
            return;
        }
        let mutual = self.table.record_of(&node).is_some();
        self.dialler.hear(node, addresses, mutual, now.mono_ms);
        if self.link_of.contains_key(&node) {
            self.dialler.linked(&node);
        }
        self.dial(now);
    }

    fn dial(&mut self, now: Now) {
        self.dialled_ms = now.mono_ms;
        for (node, addresses) in self.dialler.due(self.active.wanted(), self.links.len(), now.mono_ms, &mut self.rng) {
            self.outputs.push_back(Output::Dial { node, addresses });
        }
    }

    fn dial_failed(&mut self, node: NodeId, now: Now) {
        self.dialler.failed(&node, now.mono_ms, &mut self.rng);
        self.dial_confirms_doubt(&node, now);
        self.tend_soon(now);
    }

    /// Tells the address book of a linked peer's addresses.
    fn remember(&mut self, slot: Slot) {
        let Some(origin) = self.table.get(slot) else { return };
        let addresses = origin.record.map(|held| held.record.addresses.clone()).unwrap_or_default();
        if self.link_of.contains_key(&origin.id) && !addresses.is_empty() {
            self.outputs.push_back(Output::Remember { node: origin.id, addresses });
        }
    }

    // This node's own record

    fn amend_own(&mut self, now: Now, amend: impl FnOnce(&mut Own)) {
        amend(&mut self.own);
        self.want_sign(RECORD_COALESCE_MS, now);
    }

    fn offer(&mut self, offers: Vec<(Offered, Arc<CapabilityBody>)>, now: Now) {
        let mut offered = Vec::with_capacity(offers.len());
        for (offer, body) in offers {
            let Some(body) = Body::new(body).ok().filter(|body| body.hash == offer.body) else { continue };
            if self.bodies.insert(body.hash, Arc::new(body)).is_some() {
                offered.push(offer);
            }
        }
        if self.own.offer(offered) {
            self.want_sign(RECORD_COALESCE_MS, now);
        }
    }

    fn address(&mut self, addresses: Vec<String>, now: Now) {
        if self.own.address(addresses) {
            self.want_sign(RECORD_COALESCE_MS, now);
        }
    }

    /// The record that names the certificate is signed at once: the one before cannot be fetched from here any more.
    fn certify(&mut self, chain: Arc<VerifiedChain>, now: Now) {
        if chain.member.node == self.own.id && chain.member.mesh == self.own.mesh {
            self.chains.put(self.me, Arc::clone(&chain));
            self.own.chain = chain;
            self.sign(now);
        }
    }

    /// Of two holders of a key neither says goodbye: the other may still be there, and must see the last record.
    fn leave(&mut self, now: Now) {
        if !self.second_holder {
            self.own.leave();
            self.sign(now);
        }
    }

    fn persisted(&mut self, incarnation: u64, now: Now) {
        self.own.persisted(incarnation);
        self.want_sign(0, now);
    }

    fn neighbours_changed(&mut self, now: Now) {
        if self.table.has_record(self.me) {
            self.want_sign(NEIGHBOURS_COALESCE_MS.max(self.alive as u64 * NEIGHBOURS_COALESCE_PER_NODE_MS), now);
        }
    }

    fn want_sign(&mut self, wait_ms: u64, now: Now) {
        let at_ms = self.own.sign_at_ms(wait_ms, now.mono_ms);
        self.timers.sooner(Timer::Sign, at_ms);
    }

    fn sign(&mut self, now: Now) {
        if self.second_holder {
            self.event(Event::SecondHolderOfKey);
        }
        let heard = self.links.values().filter(|link| link.silent_since.is_none());
        let neighbours = heard.map(|link| short_number(&link.peer)).collect();
        let Some(signed) = self.own.sign(neighbours, now) else { return };
        self.timers.set(Timer::Sign, now.mono_ms + LEASE_RENEWAL_MS);
        self.put_record(self.me, Arc::new(signed), None, now);
        self.judge(self.me, now);
    }

    /// Every change of a standing goes through here: the living are counted.
    fn set_standing(&mut self, slot: Slot, standing: Standing) {
        let before = self.table.standing(slot);
        self.alive -= usize::from(before == Some(Standing::Alive));
        self.alive += usize::from(standing == Standing::Alive);
        self.table.set_standing(slot, standing);
    }
}

impl Blame {
    fn points(self) -> u32 {
        match self {
            Self::BadFrame | Self::BadContent | Self::NoRightToProvide | Self::RevokedOrigin => crate::config::BAD_FRAME_POINTS,
            Self::BadSignature => crate::config::BAD_SIGNATURE_POINTS,
            Self::ExcessRate | Self::Equivocation => 0,
        }
    }
}

fn offset_ms(now: Now) -> i64 {
    now.wall_ms.wrapping_sub(now.mono_ms).cast_signed()
}

#[cfg(test)]
mod tests;
