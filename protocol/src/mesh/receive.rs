//! Frames that came in, kind by kind.

use std::sync::Arc;

use super::Mesh;
use super::vocabulary::{Blame, CloseReason, Now};
use crate::config::{ACCUSATION_INTERVAL_MS, INTRODUCED_MAX, RECORD_COALESCE_MS, UNREACHABLE};
use crate::distance::LinkId;
use crate::gradient::Slot;
use crate::identity::NodeId;
use crate::wire::{Content, Distances, Frame, Suspect, Verified, Ways};

impl Mesh {
    pub(super) fn receive(&mut self, peer: NodeId, frame: Verified, now: Now) {
        let Some(id) = self.link_of.get(&peer).copied() else { return };
        self.link_heard(id, now);
        frame.faults.iter().for_each(|fault| self.blame_peer(peer, *fault, now));
        match frame.content {
            Content::Push { chains, bodies, records } => {
                chains.into_iter().for_each(|chain| self.take_chain(chain, now));
                records.into_iter().for_each(|record| self.take_record(record, id, now));
                bodies.into_iter().for_each(|body| self.take_body(body, id, now));
            }
            Content::Revocations { digest, held, records } => self.receive_revocations(peer, digest, held, records, now),
            Content::Plain(frame) => self.receive_plain(id, peer, frame, now),
        }
    }

    fn receive_plain(&mut self, id: LinkId, peer: NodeId, frame: Frame, now: Now) {
        match frame {
            Frame::Push(_) | Frame::Revocations(_) => self.blame_peer(peer, Blame::BadFrame, now),
            Frame::Digest(digest) => self.receive_digest(id, digest, now),
            Frame::Fetch(fetch) => self.receive_fetch(id, fetch),
            Frame::Distances(Distances { whole, entries }) => {
                self.receive_ways(id, Ways { whole, entries, known: Vec::new() }, now);
            }
            Frame::Ways(ways) => self.receive_ways(id, ways, now),
            Frame::Loads(loads) => loads.nodes.into_iter().for_each(|node| self.receive_loads(peer, node, now)),
            Frame::Probe(probe) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.outbox.reply = Some(probe.nonce);
                }
            }
            Frame::ProbeReply(_) => {}
            Frame::Alive(alive) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.peer_links = Some(alive.links);
                }
            }
            Frame::Busy(busy) => self.receive_busy(peer, busy, now),
            Frame::Have(have) => self.receive_have(id, have),
            Frame::Suspect(suspect) => self.receive_suspect(id, peer, suspect, now),
            Frame::Bye => self.close(peer, CloseReason::Surplus),
            Frame::Unknown { .. } => self.refused.unknown_frames += 1,
        }
    }

    fn receive_ways(&mut self, id: LinkId, ways: Ways, now: Now) {
        if ways.whole {
            self.distances.forget_heard(id, now.mono_ms);
        }
        for (origin, hops) in ways.entries {
            if let Some(slot) = self.slot_told(id, origin, hops) {
                self.receive_way(id, slot, hops, now);
            }
        }
        for (short, hops) in ways.known {
            let known = self.table.slot_of_short(u64::from_be_bytes(short)).filter(|slot| self.table.has_record(*slot));
            if let Some(slot) = known {
                self.receive_way(id, slot, hops, now);
            }
        }
    }

    fn receive_way(&mut self, id: LinkId, slot: Slot, hops: u8, now: Now) {
        let before = self.distances.dependence(id, slot);
        self.distances.heard(id, slot, hops, now.mono_ms);
        self.way_told(id, slot, before, hops, now);
    }

    /// The slot of an origin that a link tells a distance of. Those without a record count against every link that tells of them, whoever
    /// was first, until they are forgotten or their record arrives.
    fn slot_told(&mut self, id: LinkId, origin: NodeId, hops: u8) -> Option<Slot> {
        let known = self.table.slot(&origin);
        if hops >= UNREACHABLE || known.is_some_and(|slot| slot == self.me || self.table.has_record(slot)) {
            return known;
        }
        let link = self.links.get_mut(&id)?;
        let counted = known.is_some_and(|slot| link.introduced.contains(slot.0));
        if !counted && link.introduced.len() >= INTRODUCED_MAX {
            self.refused.introduced_overflow += 1;
            return None;
        }
        let slot = self.table.slot_or_new(origin)?;
        link.introduced.insert(slot.0);
        Some(slot)
    }

    fn receive_suspect(&mut self, id: LinkId, peer: NodeId, suspect: Suspect, now: Now) {
        let accused = suspect.accused;
        if accused.origin == self.own.id {
            self.refute(accused.number(), now);
            return;
        }
        let Some(slot) = self.table.slot(&accused.origin) else { return };
        let Some(held) = self.table.record(slot).map(Arc::clone) else { return };
        if held.stamp().number() > accused.number() {
            if let Some(link) = self.links.get_mut(&id) {
                link.outbox.records.insert(slot.0);
            }
        } else {
            self.accused_by(slot, peer, now);
        }
    }

    /// Somebody believes us dead: a newer record says otherwise. A number that we never signed is nobody's news, and however many accuse us,
    /// we sign at most once in [`ACCUSATION_INTERVAL_MS`].
    fn refute(&mut self, accused: (u64, u64), now: Now) {
        let Some(number) = self.table.record(self.me).map(|held| held.stamp().number()) else { return };
        if number > accused {
            self.links.values_mut().for_each(|link| _ = link.outbox.records.insert(self.me.0));
        } else if number == accused && now.mono_ms >= self.refuted_ms {
            let wait_ms = (self.refuted_ms + ACCUSATION_INTERVAL_MS).saturating_sub(now.mono_ms).max(RECORD_COALESCE_MS);
            self.refuted_ms = now.mono_ms + wait_ms;
            self.want_sign(wait_ms, now);
        }
    }
}
