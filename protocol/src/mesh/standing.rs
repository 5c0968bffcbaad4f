//! Links that fall silent, nodes that are suspected, and what becomes of both.

use super::link::Link;
use super::vocabulary::{CloseReason, DeathCause, Event, Now};
use super::{Mesh, Slot};
use crate::config::{
    DEATH_AFTER_MS, LEASE_GRACE_MS, LOAD_REFRESH_MS, PROBE_INTERVAL_MS, PROBE_SILENCE_MS, SILENCE_MS, SWEEP_INTERVAL_MS,
    TOMBSTONE_EXTRA_MS,
};
use crate::distance::LinkId;
use crate::gradient::Standing;
use crate::identity::NodeId;
use crate::liveness::short_number;
use crate::timers::Timer;

impl Mesh {
    /// Says what is due on every link and suspects what is silent.
    pub(super) fn check_links(&mut self, now: Now) {
        if now.mono_ms >= self.tick_at_ms {
            self.tick(now);
        }
        let silent: Vec<LinkId> = self.links.values().filter(|link| link.fell_silent(now.mono_ms)).map(|link| link.id).collect();
        if !self.doubts_itself(now) {
            silent.into_iter().for_each(|id| self.link_silent(id, now));
        }
        let over: Vec<NodeId> =
            self.links.values().filter(|link| link.silent_for_good(now.mono_ms)).map(|link| link.peer).collect();
        over.into_iter().for_each(|peer| self.close(peer, CloseReason::Silent));
        let silence_ms = self.links.values().filter_map(Link::silence_ms).min().unwrap_or(u64::MAX);
        self.timers.set(Timer::Links, silence_ms.min(self.tick_at_ms).max(now.mono_ms + 1));
    }

    /// On every link: that we are here, our loads every other time, and a question where nothing was heard.
    fn tick(&mut self, now: Now) {
        self.tick_at_ms = now.mono_ms + PROBE_INTERVAL_MS;
        if now.mono_ms + PROBE_INTERVAL_MS / 2 >= self.loads_told_ms + LOAD_REFRESH_MS {
            self.tell_loads(now);
        }
        for link in self.links.values_mut() {
            link.outbox.alive = true;
            link.probe(now.mono_ms);
        }
    }

    fn link_silent(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.silent_since = Some(now.mono_ms);
        let slot = link.slot;
        self.distances.mute(id, true, now.mono_ms);
        self.suspect(slot, now);
        self.neighbours_changed(now);
        self.tend_soon(now);
    }

    /// Something came in on the link: whatever was held against its peer is refuted.
    pub(super) fn link_heard(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard_ms = now.mono_ms;
        let slot = link.slot;
        if link.silent_since.take().is_some() {
            self.distances.mute(id, false, now.mono_ms);
            self.refuted(slot, now);
            self.neighbours_changed(now);
            self.judge(slot, now);
        }
    }

    /// Our own evidence: suspected here and now, and the others are told.
    pub(super) fn suspect(&mut self, slot: Slot, now: Now) {
        self.suspicions.silent(slot, now.mono_ms);
        self.accuse(slot, now);
        self.judge(slot, now);
    }

    /// Tells every link but that to the accused; whoever has a way to it passes it on, so that it can refute.
    fn accuse(&mut self, slot: Slot, now: Now) {
        if self.doubts_itself(now) || !self.table.has_record(slot) || !self.suspicions.may_tell(slot, now.mono_ms) {
            return;
        }
        for link in self.links.values_mut().filter(|link| link.slot != slot && link.silent_since.is_none()) {
            link.outbox.suspects.insert(slot.0);
        }
    }

    /// A peer accuses `slot`: weighed here, and passed on towards the accused.
    pub(super) fn accused_by(&mut self, slot: Slot, by: NodeId, now: Now) {
        self.suspicions.accused(slot, by, now.mono_ms);
        if self.suspicions.may_tell(slot, now.mono_ms) {
            self.ask(slot, by);
        }
        self.judge(slot, now);
    }

    /// We hear the node ourselves: what others say of it does not matter.
    pub(super) fn hears(&self, slot: Slot) -> bool {
        self.links.values().any(|link| link.slot == slot && link.silent_since.is_none())
    }

    pub(super) fn judge_suspects(&mut self, now: Now) {
        for slot in self.suspicions.take_due(now.mono_ms) {
            if self.suspicions.is_to_be_accused(slot) {
                self.accuse(slot, now);
            }
            self.resolve_doubt(slot, now);
            self.judge(slot, now);
        }
    }

    pub(super) fn distance_changed(&mut self, slot: Slot, now: Now) {
        if self.table.has_record(slot) && slot != self.me {
            self.suspicions.reachable(slot, self.distances.hops(slot).is_some(), now.mono_ms);
            if self.suspicions.is_confirmed(slot) && self.distances.offering(slot).next().is_some() {
                self.suspicions.ask_soon(slot, now.mono_ms);
            }
            self.condition_generation += 1;
            self.judge(slot, now);
        }
    }

    /// Brings an origin's standing in line with the evidence and says so if it changed.
    pub(super) fn judge(&mut self, slot: Slot, now: Now) {
        let Some(origin) = self.table.get(slot) else { return };
        let (Some(held), before, id) = (origin.record, origin.standing, origin.id) else { return };
        if before == Standing::Quarantined {
            return;
        }
        let evidence = self.suspicions.standing(slot, &held.record.neighbours, short_number(&self.own.id), now.mono_ms);
        let after = match evidence {
            _ if slot == self.me => Standing::Alive,
            _ if held.record.lease_until_ms <= now.wall_ms => Standing::Dead(DeathCause::LeaseExpired),
            Standing::Dead(DeathCause::Accused) if self.hears(slot) => Standing::Alive,
            evidence => evidence,
        };
        if before != after {
            self.set_standing(slot, after);
            self.condition_generation += 1;
            self.tell_standing(id, before, after);
            match after {
                Standing::Alive => self.dialler.revived(&id, now.mono_ms),
                Standing::Dead(cause) => self.confirm_death(slot, cause, now),
                Standing::Suspected | Standing::Quarantined => {}
            }
        }
    }

    fn tell_standing(&mut self, node: NodeId, before: Standing, after: Standing) {
        match after {
            Standing::Alive => self.event(Event::NodeAlive { node }),
            Standing::Suspected if before == Standing::Alive => self.event(Event::NodeSuspected { node }),
            Standing::Dead(why) if !matches!(before, Standing::Dead(_)) => self.event(Event::NodeDead { node, why }),
            Standing::Suspected | Standing::Dead(_) | Standing::Quarantined => {}
        }
    }

    /// Expired leases, forgotten tombstones, bodies and chains that nobody names.
    pub(super) fn sweep(&mut self, now: Now) {
        self.timers.set(Timer::Sweep, now.mono_ms + SWEEP_INTERVAL_MS);
        let slots: Vec<Slot> = self.table.iter().map(|(slot, _)| slot).filter(|slot| *slot != self.me).collect();
        for slot in slots {
            if self.is_forgettable(slot, now) { self.forget(slot) } else { self.judge(slot, now) }
        }
        self.bans.retain(|_, until| *until > now.mono_ms);
        self.table.sweep(now.mono_ms);
        self.near_loads.sweep(now.mono_ms);
        self.offences.sweep(now.mono_ms);
        self.pending.retain(|_, pending| pending.is_fresh(now));
        self.prune_revocations(now);
        self.sweep_stores(now);
    }

    fn is_forgettable(&self, slot: Slot, now: Now) -> bool {
        if self.links.values().any(|link| link.slot == slot) {
            return false;
        }
        match self.table.record(slot) {
            Some(held) => now.wall_ms > held.record.lease_until_ms + LEASE_GRACE_MS + TOMBSTONE_EXTRA_MS,
            None => self.distances.alternatives(slot) == 0,
        }
    }

    /// A link is gone: names that it alone told of go with it, so that coming back does not add more.
    pub(super) fn forget_introduced(&mut self, link: &Link, now: Now) {
        for slot in link.introduced.iter().map(Slot) {
            if self.is_forgettable(slot, now) {
                self.forget(slot);
            }
        }
    }

    /// The slot of an origin that proved who it is. In a full table a name without a record gives way.
    pub(super) fn slot_of_proven(&mut self, id: NodeId) -> Option<Slot> {
        if self.table.is_full() && self.table.slot(&id).is_none() {
            self.mere_name().into_iter().for_each(|name| self.forget(name));
        }
        self.table.slot_or_new(id)
    }

    /// An origin without record or link, of the link that told of most.
    fn mere_name(&self) -> Option<Slot> {
        let most = self.links.values().max_by_key(|link| link.introduced.len())?;
        most.introduced.iter().map(Slot).find(|slot| !self.links.values().any(|link| link.slot == *slot))
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(origin) = self.table.get(slot).filter(|origin| origin.record.is_some()) {
            self.dialler.forget(&origin.id);
            self.pending.remove(&origin.id);
            self.roster_changed = true;
            self.roster_generation += 1;
        }
        self.set_standing(slot, Standing::Suspected);
        self.table.remove(slot);
        self.near_loads.forget(slot);
        self.chains.forget(slot);
        self.distances.forget_slot(slot);
        self.suspicions.forget(slot);
        self.quarantined.remove(&slot);
        self.links.values_mut().for_each(|link| link.forget_slot(slot));
    }
}

impl Link {
    fn fell_silent(&self, now_ms: u64) -> bool {
        self.silent_since.is_none() && now_ms >= self.heard_ms + SILENCE_MS
    }

    fn silent_for_good(&self, now_ms: u64) -> bool {
        self.silent_since.is_some_and(|since| now_ms >= since + DEATH_AFTER_MS)
    }

    fn probe(&mut self, now_ms: u64) {
        if now_ms >= self.heard_ms + PROBE_SILENCE_MS {
            self.nonce += 1;
            self.outbox.probe = Some(self.nonce);
        }
    }

    /// When its silence next means something.
    fn silence_ms(&self) -> Option<u64> {
        match self.silent_since {
            None => Some(self.heard_ms + SILENCE_MS),
            Some(_) if self.closing => None,
            Some(since) => Some(since + DEATH_AFTER_MS),
        }
    }
}
