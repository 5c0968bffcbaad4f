//! Frames to be sent, made when a link can take them: the most urgent kind first, the bulk of bodies last.

use super::link::Link;
use super::vocabulary::{CloseReason, Now, Output};
use super::{Mesh, Slot};
use crate::config::{DISTANCES_GATHERED_MS, FRAME_BYTES_MAX, HAVE_MAX, RANGE_LISTED_MAX};
use crate::distance::LinkId;
use crate::identity::NodeId;
use crate::liveness::short_number;
use crate::record::{BODY_BYTES_MAX, NODE_RECORD_BYTES_MAX};
use crate::timers::Timer;
use crate::wire::{Alive, Digest, Frame, Probe, Push, Suspect, Ways};

/// Encoded bytes of one distance: an id and a byte.
const DISTANCE_BYTES: usize = 33;
/// Encoded bytes of a listed range at most.
const RANGE_BYTES: usize = 96 + RANGE_LISTED_MAX * 52;
/// What kind, version and lengths of a frame take.
const FRAME_OVERHEAD_BYTES: usize = 64;
/// The least room a frame gets, whatever the budget: a record, its chain and the lengths around them always fit.
const FRAME_BYTES_MIN: usize = 12 << 10;

impl Mesh {
    /// One encoded frame for `peer`, or `None` when there is nothing to say. `budget_bytes` is what the writer would like at most; a single
    /// record with its chain may take up to 12 KiB.
    pub fn poll_send(&mut self, now: Now, peer: NodeId, budget_bytes: usize) -> Option<Vec<u8>> {
        if let Some(frame) = self.revoking.last_words(&peer) {
            return Some(frame);
        }
        let id = *self.link_of.get(&peer)?;
        let room = budget_bytes.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX) - FRAME_OVERHEAD_BYTES;
        if let Some(bye) = self.last_word(id) {
            return Some(bye.encode());
        }
        let frame = self.next_frame(id, room, now);
        let link = self.links.get_mut(&id)?;
        match frame {
            Some(_) => link.said_ms = now.mono_ms,
            None => link.outbox.announced = false,
        }
        frame.map(|frame| frame.encode())
    }

    /// Tells the driver of every link that there is something for and that it does not know of.
    pub(super) fn announce_sends(&mut self, now: Now) {
        for link in self.links.values_mut() {
            let tells = self.distances.wants_to_tell(link.id);
            if tells && now.mono_ms < link.distances_at_ms {
                self.timers.sooner(Timer::Distances, link.distances_at_ms);
            }
            let tells = tells && now.mono_ms >= link.distances_at_ms;
            if !link.outbox.announced && (tells || !link.outbox.is_empty() || self.revoking.wants_to_say(&link.peer)) {
                link.outbox.announced = true;
                self.outputs.push_back(Output::WantsSend { peer: link.peer });
            }
        }
    }

    /// The link is surplus: nothing else is said on it.
    fn last_word(&mut self, id: LinkId) -> Option<Frame> {
        let link = self.links.get_mut(&id)?;
        if !std::mem::take(&mut link.outbox.bye) || link.closing {
            return None;
        }
        let peer = link.peer;
        self.close(peer, CloseReason::Surplus);
        Some(Frame::Bye)
    }

    fn next_frame(&mut self, id: LinkId, room: usize, now: Now) -> Option<Frame> {
        self.revocation_frame(id, room)
            .or_else(|| self.probe_frame(id))
            .or_else(|| self.suspect_frame(id))
            .or_else(|| self.record_frame(id, room, now))
            .or_else(|| self.distance_frame(id, room, now))
            .or_else(|| self.fetch_frame(id))
            .or_else(|| self.range_frame(id, room))
            .or_else(|| self.load_frame(id, now))
            .or_else(|| self.alive_frame(id))
            .or_else(|| self.body_frame(id, room))
    }

    fn probe_frame(&mut self, id: LinkId) -> Option<Frame> {
        let outbox = &mut self.links.get_mut(&id)?.outbox;
        let reply = outbox.reply.take().map(|nonce| Frame::ProbeReply(Probe { nonce }));
        reply.or_else(|| outbox.probe.take().map(|nonce| Frame::Probe(Probe { nonce })))
    }

    fn suspect_frame(&mut self, id: LinkId) -> Option<Frame> {
        let outbox = &mut self.links.get_mut(&id)?.outbox;
        while let Some(slot) = outbox.suspects.pop() {
            if let Some(held) = self.table.record(Slot(slot)) {
                return Some(Frame::Suspect(Suspect { accused: held.stamp() }));
            }
        }
        None
    }

    /// Records with the chains the peer lacks, and bodies for as long as there is room.
    fn record_frame(&mut self, id: LinkId, room: usize, now: Now) -> Option<Frame> {
        let (mut push, mut left) = (Push::default(), room);
        while left >= 2 * NODE_RECORD_BYTES_MAX {
            let Some(slot) = self.links.get_mut(&id)?.outbox.records.pop() else { break };
            left -= self.push_record(id, Slot(slot), &mut push, now);
        }
        self.push_chains(id, left, &mut push);
        if push == Push::default() {
            return None;
        }
        self.push_bodies(id, left.saturating_sub(push.chains.iter().map(|chain| chain.0.len() + 4).sum()), &mut push);
        Some(Frame::Push(push))
    }

    /// Adds one record and notes what goes with it; returns the bytes it takes.
    fn push_record(&mut self, id: LinkId, slot: Slot, push: &mut Push, now: Now) -> usize {
        let (Some(link), Some(held)) = (self.links.get_mut(&id), self.table.record(slot)) else { return 0 };
        let mut bytes = held.bytes.0.len() + 4;
        link.outbox.has_records.insert(slot.0);
        if link.outbox.has_chains.insert(slot.0)
            && let Some(chain) = self.chains.at(slot)
        {
            link.outbox.chains.remove(slot.0);
            bytes += chain.bytes.0.len() + 4;
            push.chains.push(chain.bytes.clone());
        }
        for body in held.record.capabilities.iter().filter_map(|offered| self.bodies.number(&offered.body)) {
            let bytes = self.bodies.at(body).map_or(0, |body| body.bytes.0.len());
            if !link.outbox.has_bodies.contains(body)
                && !link.outbox.bodies.contains(body)
                && link.unasked.take(bytes, now.mono_ms)
            {
                link.outbox.bodies.insert(body);
            }
        }
        push.records.push(held.bytes.clone());
        if let Some(second) = self.quarantined.get(&slot).and_then(|proof| proof.second.as_ref()) {
            bytes += second.bytes.0.len() + 4;
            push.records.push(second.bytes.clone());
        }
        bytes
    }

    fn push_chains(&mut self, id: LinkId, mut left: usize, push: &mut Push) {
        let Some(link) = self.links.get_mut(&id) else { return };
        while let Some(number) = link.outbox.chains.first() {
            let Some(chain) = self.chains.at(Slot(number)) else {
                link.outbox.chains.remove(number);
                continue;
            };
            if chain.bytes.0.len() + 4 > left {
                break;
            }
            left -= chain.bytes.0.len() + 4;
            link.outbox.chains.remove(number);
            link.outbox.has_chains.insert(number);
            push.chains.push(chain.bytes.clone());
        }
    }

    fn push_bodies(&mut self, id: LinkId, mut left: usize, push: &mut Push) {
        let Some(link) = self.links.get_mut(&id) else { return };
        while let Some(number) = link.outbox.bodies.first() {
            let Some(body) = self.bodies.at(number) else {
                link.outbox.bodies.remove(number);
                continue;
            };
            if body.bytes.0.len() + 4 > left {
                break;
            }
            left -= body.bytes.0.len() + 4;
            link.outbox.bodies.remove(number);
            link.outbox.has_bodies.insert(number);
            push.bodies.push(body.bytes.clone());
        }
    }

    fn body_frame(&mut self, id: LinkId, room: usize) -> Option<Frame> {
        debug_assert!(room > BODY_BYTES_MAX, "the least frame takes the largest body");
        let mut push = Push::default();
        self.push_bodies(id, room, &mut push);
        (push != Push::default()).then_some(Frame::Push(push))
    }

    /// Distances that changed, a while after the last were told; all of them, in as many frames as that takes.
    fn distance_frame(&mut self, id: LinkId, room: usize, now: Now) -> Option<Frame> {
        if now.mono_ms < self.links.get(&id)?.distances_at_ms {
            return None;
        }
        let (table, me) = (&self.table, self.me);
        let bootstrapping = self.active.is_bootstrapping();
        let known =
            |slot| if slot == me { None } else { table.has_record(slot).then_some(true).or((!bootstrapping).then_some(false)) };
        let (whole, told) = self.distances.tell(id, room / DISTANCE_BYTES, known)?;
        if !self.distances.wants_to_tell(id) {
            self.links.get_mut(&id)?.distances_at_ms = now.mono_ms + DISTANCES_GATHERED_MS;
        }
        let mut ways = Ways { whole, ..Ways::default() };
        for (slot, hops) in told {
            let Some(origin) = table.get(slot).map(|origin| origin.id) else { continue };
            // That its record was sent is not enough: it may wait there for its chain, and what is told of it meanwhile would be lost.
            if self.distances.is_known_to(id, slot) {
                ways.known.push((short_number(&origin).to_be_bytes(), hops));
            } else {
                ways.entries.push((origin, hops));
            }
        }
        Some(Frame::Ways(ways))
    }

    fn fetch_frame(&mut self, id: LinkId) -> Option<Frame> {
        self.links.get_mut(&id)?.outbox.take_fetch().map(Frame::Fetch)
    }

    fn range_frame(&mut self, id: LinkId, room: usize) -> Option<Frame> {
        let ranges = &mut self.links.get_mut(&id)?.outbox.ranges;
        let count = ranges.len().min((room / RANGE_BYTES).max(1));
        let ranges: Vec<_> = ranges.drain(..count).collect();
        (!ranges.is_empty()).then_some(Frame::Digest(Digest { ranges }))
    }

    fn load_frame(&mut self, id: LinkId, now: Now) -> Option<Frame> {
        self.take_busy(id, now).map(Frame::Busy)
    }

    /// That we are here, after the stamps that waited for this moment.
    fn alive_frame(&mut self, id: LinkId) -> Option<Frame> {
        if !self.links.get(&id)?.outbox.alive {
            return None;
        }
        if let Some(have) = self.take_haves(id, HAVE_MAX) {
            return Some(Frame::Have(have));
        }
        let links = u8::try_from(self.links.len()).unwrap_or(u8::MAX);
        self.links.get_mut(&id)?.outbox.alive = false;
        Some(Frame::Alive(Alive { links }))
    }

    /// Peers with a link, in order of link.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.links.values().map(|link: &Link| link.peer)
    }
}
