//! What becomes of a record, a chain or a body that came in.
//!
//! A record counts once its chain is held, names the same node and has not expired. Stale, repeated and expired ones cost nobody; what no
//! honest node would have passed on costs the sender; changing too fast and signing one number twice cost the origin.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::own::Echo;
use super::vocabulary::{Blame, Event, Now, Output};
use super::{Mesh, Slot};
use crate::config::{
    FETCH_DELAY_MS, LAST_RECORD_MS, LEASE_AHEAD_MS_MAX, LEASE_GRACE_MS, LEASE_MS, PENDING_MAX, PENDING_MS,
    PENDING_PER_SENDER_MAX, PROOFS_MAX, QUARANTINE_MS, RECORD_COALESCE_MS, WANTED_MAX,
};
use crate::distance::LinkId;
use crate::gradient::Standing;
use crate::identity::{BodyHash, CertificateHash, NodeId};
use crate::membership::Roles;
use crate::record::Announcement;
use crate::timers::Timer;
use crate::wire::{Body, VerifiedChain};

/// A record that waits for its chain.
#[derive(Debug)]
pub(super) struct Pending {
    announcement: Arc<Announcement>,
    from: NodeId,
    since_ms: u64,
}

impl Pending {
    /// Whether its chain may still come.
    pub fn is_fresh(&self, now: Now) -> bool {
        now.mono_ms < self.since_ms + PENDING_MS
    }
}

/// Something named by a record and not held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Want {
    Chain(CertificateHash),
    Body(BodyHash),
}

/// Two records of one origin with one number: the one in the table and this one.
#[derive(Debug)]
pub(super) struct Proof {
    pub second: Option<Arc<Announcement>>,
    since_ms: u64,
}

impl Mesh {
    pub(super) fn take_record(&mut self, announcement: Arc<Announcement>, from: LinkId, now: Now) {
        self.spread.received += 1;
        if let Some(slot) = self.table.slot(&announcement.record.node)
            && let Some(link) = self.links.get_mut(&from)
        {
            link.outbox.has_records.insert(slot.0);
            link.outbox.has_chains.insert(slot.0);
        }
        let record = &announcement.record;
        if self.revoking.refuses_key(&record.node) {
            self.refuse_revoked(from, now);
        } else if now.wall_ms > record.lease_until_ms.saturating_add(LEASE_GRACE_MS) {
            self.refused.expired += 1;
        } else if record.lease_until_ms > now.wall_ms + LEASE_AHEAD_MS_MAX {
            self.refused.leased_too_far_ahead += 1;
        } else if record.node == self.own.id {
            self.take_echo(&announcement, from, now);
        } else {
            self.compare_record(announcement, from, now);
        }
    }

    fn compare_record(&mut self, announcement: Arc<Announcement>, from: LinkId, now: Now) {
        let held = self.table.slot(&announcement.record.node).and_then(|slot| Some((slot, self.table.record(slot)?)));
        let Some((slot, held)) = held else {
            self.check_record(announcement, from, now);
            return;
        };
        match announcement.stamp().number().cmp(&held.stamp().number()) {
            std::cmp::Ordering::Less => self.say_record(slot, from),
            std::cmp::Ordering::Equal if announcement.bytes == held.bytes => self.peer_has(slot, from),
            std::cmp::Ordering::Equal => self.quarantine(slot, announcement, now),
            std::cmp::Ordering::Greater if self.is_quarantined(slot, &announcement, now) => self.refused.quarantined += 1,
            std::cmp::Ordering::Greater => self.check_record(announcement, from, now),
        }
    }

    /// The sender is behind.
    fn say_record(&mut self, slot: Slot, to: LinkId) {
        if let Some(link) = self.links.get_mut(&to) {
            link.outbox.records.insert(slot.0);
        }
    }

    fn peer_has(&mut self, slot: Slot, peer: LinkId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.outbox.records.remove(slot.0);
        }
    }

    /// A record that would be news: does its chain allow it?
    fn check_record(&mut self, announcement: Arc<Announcement>, from: LinkId, now: Now) {
        let Some(sender) = self.links.get(&from).map(|link| link.peer) else { return };
        let record = &announcement.record;
        let Some(chain) = self.chains.get(self.table.slot(&record.node), &record.certificate) else {
            self.await_chain(announcement, from, sender, now);
            return;
        };
        let member = &chain.member;
        if self.revoking.refuses(member) {
            self.refuse_revoked(from, now);
        } else if member.node != record.node {
            self.blame_peer(sender, Blame::BadContent, now);
        } else if member.check_time(now.wall_ms, LEASE_GRACE_MS).is_err() {
            self.refused.expired += 1;
        } else if !record.capabilities.is_empty() && !member.roles.contains(Roles::PROVIDE) {
            self.blame_peer(sender, Blame::NoRightToProvide, now);
        } else {
            self.admit_record(announcement, from, now);
        }
    }

    fn await_chain(&mut self, announcement: Arc<Announcement>, from: LinkId, sender: NodeId, now: Now) {
        let (node, certificate) = (announcement.record.node, announcement.record.certificate);
        if !self.has_room_to_wait(&node, &sender) {
            self.refused.waiting_overflow += 1;
            return;
        }
        self.pending.insert(node, Pending { announcement, from: sender, since_ms: now.mono_ms });
        if let Some(link) = self.links.get_mut(&from) {
            link.outbox.want_chain(certificate);
        }
        self.want(Want::Chain(certificate), Some(from), now);
    }

    /// Whether a record of `node` that `sender` brought may wait for its chain.
    fn has_room_to_wait(&self, node: &NodeId, sender: &NodeId) -> bool {
        let before = self.pending.get(node);
        let from_sender = self.pending.values().filter(|pending| pending.from == *sender).count();
        let within_share = from_sender < PENDING_PER_SENDER_MAX || before.is_some_and(|before| before.from == *sender);
        within_share && (self.pending.len() < PENDING_MAX || before.is_some())
    }

    fn admit_record(&mut self, announcement: Arc<Announcement>, from: LinkId, now: Now) {
        let node = announcement.record.node;
        let Some(slot) = self.slot_of_proven(node) else {
            self.event(Event::TableFull { node });
            return;
        };
        if !self.table.within_rate(slot, now.mono_ms) {
            self.event(Event::Blamed { peer: node, why: Blame::ExcessRate });
            return;
        }
        self.put_record(slot, announcement, Some(from), now);
        self.refuted(slot, now);
        self.suspicions.reachable(slot, self.distances.hops(slot).is_some(), now.mono_ms);
        self.judge(slot, now);
    }

    /// A newer record takes its place, and is news to every link that did not bring it and is not a neighbour of its origin.
    pub(super) fn put_record(&mut self, slot: Slot, announcement: Arc<Announcement>, from: Option<LinkId>, now: Now) {
        let before = self.table.put_record(slot, Arc::clone(&announcement));
        // Accusations under way are of the record before.
        self.links.values_mut().for_each(|link| _ = link.outbox.suspects.remove(slot.0));
        if self.chains.settle(slot, &announcement.record.certificate) {
            self.links.values_mut().for_each(|link| _ = link.outbox.has_chains.remove(slot.0));
        }
        if self.table.standing(slot) == Some(Standing::Quarantined) {
            self.set_standing(slot, Standing::Suspected);
            self.quarantined.remove(&slot);
        }
        let offers_changed = before.as_ref().is_none_or(|before| {
            let (before, after) = (&before.record, &announcement.record);
            (&before.capabilities, &before.name, before.mode, &before.labels)
                != (&after.capabilities, &after.name, after.mode, &after.labels)
        });
        self.roster_changed |= offers_changed;
        self.roster_generation += u64::from(offers_changed);
        match &before {
            Some(before) => {
                let (before, after) = (&before.record.capabilities, &announcement.record.capabilities);
                self.near_loads.moved(slot, before, after, now.mono_ms);
            }
            None => self.distances.touch(slot),
        }
        if before.is_none() {
            self.links.values_mut().for_each(|link| _ = link.introduced.remove(slot.0));
        }
        if let Some(from) = from {
            self.spread.news += 1;
            self.bootstrap_goes_on(from, now);
        }
        let is_new_life = before.as_ref().is_none_or(|before| before.record.incarnation < announcement.record.incarnation);
        self.spread(slot, is_new_life, from, now);
        self.want_bodies(&announcement, now);
        self.learn_addresses(slot, before.as_deref(), &announcement, now);
    }

    fn want_bodies(&mut self, announcement: &Announcement, now: Now) {
        for offered in &announcement.record.capabilities {
            if !self.bodies.contains(&offered.body) {
                self.want(Want::Body(offered.body), None, now);
            }
        }
    }

    fn want(&mut self, want: Want, asked: Option<LinkId>, now: Now) {
        if self.wants.len() < WANTED_MAX && !self.wants.contains_key(&want) {
            self.wants.insert(want, asked);
            self.timers.sooner(Timer::Fetch, now.mono_ms + FETCH_DELAY_MS);
        }
    }

    fn learn_addresses(&mut self, slot: Slot, before: Option<&Announcement>, now_held: &Announcement, now: Now) {
        let record = &now_held.record;
        if slot == self.me || before.is_some_and(|before| before.record.addresses == record.addresses) {
            return;
        }
        if self.active.is_partial() {
            self.dialler.update(&record.node, &record.addresses);
        } else {
            self.dialler.learn(record.node, record.addresses.clone(), true, now.mono_ms);
        }
        if self.link_of.contains_key(&record.node) {
            self.dialler.linked(&record.node);
        }
        self.remember(slot);
    }

    /// Our own record came back. Older: the sender is behind. Newer, or the same number with other bytes: somebody lives with our key.
    fn take_echo(&mut self, announcement: &Announcement, from: LinkId, now: Now) {
        let seen = announcement.stamp().number();
        let ours = self.table.record(self.me).map(|held| (held.stamp().number(), held.bytes == announcement.bytes));
        let incarnation = self.own.incarnation();
        match ours {
            Some((number, _)) if seen < number => self.say_record(self.me, from),
            Some((number, true)) if seen == number => {}
            None if seen.0 < incarnation => {}
            _ if seen.0 < incarnation => {}
            _ if self.second_holder => {}
            _ => {
                let signed_ms = announcement.record.lease_until_ms.saturating_sub(LEASE_MS);
                self.second_holder = self.own.seen_newer(seen.0, signed_ms, now) == Echo::SecondHolder;
                self.outputs.push_back(Output::PersistIncarnation(self.own.incarnation()));
                let wait_ms = if self.second_holder { LAST_RECORD_MS } else { RECORD_COALESCE_MS };
                self.want_sign(wait_ms, now);
            }
        }
    }

    fn is_quarantined(&self, slot: Slot, announcement: &Announcement, now: Now) -> bool {
        let quarantined = self.table.standing(slot) == Some(Standing::Quarantined);
        let higher_life = self.table.record(slot).is_some_and(|held| announcement.record.incarnation > held.record.incarnation);
        let served = self.quarantined.get(&slot).is_none_or(|proof| now.mono_ms >= proof.since_ms + QUARANTINE_MS);
        quarantined && !(higher_life && served)
    }

    /// Nothing an origin says counts once it signed two things with one number. Both are passed on: together they are the proof.
    fn quarantine(&mut self, slot: Slot, second: Arc<Announcement>, now: Now) {
        let Some(peer) = self.table.get(slot).filter(|origin| origin.standing != Standing::Quarantined).map(|origin| origin.id)
        else {
            return;
        };
        self.set_standing(slot, Standing::Quarantined);
        let second = (self.quarantined.len() < PROOFS_MAX).then_some(second);
        self.quarantined.insert(slot, Proof { second, since_ms: now.mono_ms });
        self.links.values_mut().for_each(|link| _ = link.outbox.records.insert(slot.0));
        self.roster_changed = true;
        self.condition_generation += 1;
        self.event(Event::Blamed { peer, why: Blame::Equivocation });
    }

    /// A chain that a link showed. Records that waited for it are looked at again.
    pub(super) fn take_chain(&mut self, chain: Arc<VerifiedChain>, now: Now) {
        let hash = chain.hash();
        let slot = self.table.slot(&chain.member.node);
        if self.chains.get(slot, &hash).is_some() {
            return;
        }
        self.chains.keep(chain, now.mono_ms);
        if self.wants.remove(&Want::Chain(hash)).is_some() {
            self.retry_pending(hash, now);
        }
    }

    fn retry_pending(&mut self, hash: CertificateHash, now: Now) {
        let waits = |pending: &Pending| pending.announcement.record.certificate == hash;
        let ready: Vec<NodeId> = self.pending.iter().filter(|(_, pending)| waits(pending)).map(|(node, _)| *node).collect();
        for node in ready {
            let Some(pending) = self.pending.remove(&node) else { continue };
            if let Some(from) = self.link_of.get(&pending.from).or(self.link_of.values().next()).copied() {
                self.take_record(pending.announcement, from, now);
            }
        }
    }

    /// A body counts only where some record that is held names it.
    pub(super) fn take_body(&mut self, body: Arc<Body>, from: LinkId, now: Now) {
        let hash = body.hash;
        let wanted = self.wants.remove(&Want::Body(hash)).is_some();
        if let Some(link) = self.links.get_mut(&from).filter(|_| wanted) {
            link.brought_ms = now.mono_ms;
        }
        if wanted && self.bodies.insert(hash, body).is_some() {
            self.roster_changed = true;
            self.roster_generation += 1;
        }
        let Some(number) = self.bodies.number(&hash) else { return };
        if let Some(link) = self.links.get_mut(&from) {
            link.outbox.has_bodies.insert(number);
            link.outbox.bodies.remove(number);
        }
    }

    /// Lets go of bodies, chains and wishes that no record names any more.
    pub(super) fn sweep_stores(&mut self, now: Now) {
        let mut bodies = BTreeSet::new();
        let records = self.table.iter().filter_map(|(_, origin)| origin.record);
        for record in records.chain(self.pending.values().map(|pending| &pending.announcement)).map(|held| &held.record) {
            bodies.extend(record.capabilities.iter().map(|offered| offered.body));
        }
        let awaited: BTreeSet<_> = self.pending.values().map(|pending| pending.announcement.record.certificate).collect();
        self.wants.retain(|want, _| match want {
            Want::Chain(hash) => awaited.contains(hash),
            Want::Body(hash) => bodies.contains(hash),
        });
        self.chains.sweep(now.mono_ms);
        let freed = self.bodies.sweep(|hash| bodies.contains(hash));
        for link in self.links.values_mut() {
            for number in &freed {
                link.outbox.bodies.remove(*number);
                link.outbox.has_bodies.remove(*number);
            }
        }
    }
}
