//! How far every origin is, over which neighbour: distance vectors, one per link.
//!
//! A distance is the fewest live links to an origin: 1 only over a live link to the origin itself, anything heard is at least 2,
//! [`UNREACHABLE`] is no way at all. A way is not told to the neighbour it leads through (split horizon; told as unreachable, RFC 1058).
//!
//! Counting to infinity is prevented by the *feasibility condition* of DUAL and Babel (Garcia-Luna-Aceves 1993; RFC 8966): a neighbour's
//! way is taken at once only if it is shorter than the shortest that we ourselves ever told since the last hold, for then it cannot lead
//! through us. When a way is lost and no feasible one is there, the loss is told to everyone and the origin is *held* for [`HOLD_MS`]:
//! whatever depended on us learns of it meanwhile, so what is still offered afterwards stands on its own and is believed, however long. So
//! a triangle that loses its common neighbour says "gone" once instead of counting, and a detour is found after one hold. DUAL's
//! queries would make the wait exact; a fixed wait needs no replies and therefore cannot get stuck on a slow neighbour. If it was too
//! short, because some link was stuck for longer, a stale way is believed, lost and held again, each time twice as long
//! ([`HOLD_DOUBLINGS_MAX`]): after a mass death the ways of the dead are let go of in two or three rounds.
//!
//! Most ways are lost although their origin lives: a neighbour died or a surplus link ended. Then a way of *equal* length over another
//! neighbour, the loop-free alternate of RFC 5286, is taken without a hold, once: a neighbour that goes through us through others is two
//! hops further than the least we told, so only those can be mistaken that lost their way at the same moment, and they are found out by
//! the next frame. What was told to be gone, and a neighbour whose own link is gone, still need a feasible way: the dead have many equal
//! ways, all stale.
//!
//! One byte per (origin, link) is heard and one is told: the first is the set of alternatives, the second makes every update a difference.
//!
//! The poison says *why* a way is not offered: [`THROUGH_YOU`] makes the neighbour our parent for that origin. So every node knows its
//! children in a tree of fewest hops rooted at each origin, and news of the origin follows it: reverse path forwarding (Dalal and Metcalfe
//! 1978), with trees that heal as distances do and share the work between all links. A neighbour of the last release clamps what it does
//! not know to "unreachable", and is then sent everything.

use std::collections::BTreeMap;

use crate::config::{HOLD_DOUBLINGS_MAX, HOLD_MS, UNREACHABLE};

/// Told to the neighbour that our way leads through.
pub const THROUGH_YOU: u8 = UNREACHABLE + 1;
/// The same, and we hold no record of the origin yet: a request for it.
pub const THROUGH_YOU_UNSEEN: u8 = UNREACHABLE + 2;
/// Nothing was heard of an origin on a link.
const UNTOLD: u8 = u8::MAX;

/// What a neighbour has said about its way to an origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dependence {
    /// Its way leads through us: it hears of the origin from us.
    Child,
    /// It has a way of its own, or is the origin.
    Independent,
    /// It has no way, or has not said.
    Unknown,
}
use crate::gossip::Bits;
use crate::gradient::Slot;

/// A link's number while it stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinkId(pub u8);

/// Distances to all origins over all links.
#[derive(Clone, Debug)]
pub struct Distances {
    me: Slot,
    ways: Vec<Way>,
    vectors: BTreeMap<LinkId, Vector>,
    /// Origins whose loss is being told, and those for which it was lately.
    holds: BTreeMap<Slot, Hold>,
    /// The first moment at which one of them changes, or one before it.
    release_at_ms: Option<u64>,
    changed: Bits,
    /// Origins known to be dead: no way to them is believed.
    condemned: Bits,
}

/// What is believed and told about one origin.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// As told to others: unreachable while held.
    hops: u8,
    /// Only what is heard below this is taken without a hold.
    feasible: u8,
    via: Option<LinkId>,
}

/// The loss of an origin, told until `until_ms` and remembered for as long again.
#[derive(Clone, Copy, Debug)]
struct Hold {
    until_ms: u64,
    lasts_ms: u64,
    released: bool,
}

impl Hold {
    /// When it ends, or is forgotten.
    fn next_ms(&self) -> u64 {
        if self.released { self.until_ms + 2 * self.lasts_ms } else { self.until_ms }
    }
}

/// Why a way may have been lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    /// The origin may be gone: somebody said so, or its own link is.
    Gone,
    /// It is further that way, or that way is gone.
    Longer,
}

const NO_WAY: Way = Way { hops: UNREACHABLE, feasible: UNREACHABLE, via: None };

/// What is between us and one neighbour.
#[derive(Clone, Debug)]
struct Vector {
    /// Who is at the other end.
    peer: Slot,
    /// By slot; short means untold.
    heard: Vec<u8>,
    /// By slot; short means unreachable.
    told: Vec<u8>,
    /// Breaks ties between ways of equal length.
    rtt_ms: u32,
    /// Slots whose told value may be out of date.
    dirty: Bits,
    /// Nothing is heard from the peer at the moment: its ways do not count.
    muted: bool,
    /// The first frame of the vector is still to be sent.
    fresh: bool,
}

impl Vector {
    /// How far the peer says it is from `slot`.
    fn offers(&self, slot: Slot) -> u8 {
        match slot {
            _ if self.muted => UNREACHABLE,
            _ if slot == self.peer => 0,
            _ => self.heard(slot).min(UNREACHABLE),
        }
    }

    fn heard(&self, slot: Slot) -> u8 {
        self.heard.get(slot.0 as usize).copied().unwrap_or(UNTOLD)
    }

    fn told(&self, slot: Slot) -> u8 {
        self.told.get(slot.0 as usize).copied().unwrap_or(UNREACHABLE)
    }
}

fn set_value(values: &mut Vec<u8>, slot: Slot, hops: u8, unset: u8) {
    let at = slot.0 as usize;
    if values.len() <= at {
        grow(values, at + 1, unset);
    }
    values[at] = hops;
}

/// Lengthens by little more than is needed: these columns are most of what a known origin costs.
fn grow<T: Clone>(column: &mut Vec<T>, len: usize, unset: T) {
    if column.capacity() < len {
        column.reserve_exact(len + len / 16 - column.len());
    }
    column.resize(len, unset);
}

impl Distances {
    /// `me` is this node's own slot, which has no distance.
    pub fn new(me: Slot) -> Self {
        Self {
            me,
            ways: Vec::new(),
            vectors: BTreeMap::new(),
            holds: BTreeMap::new(),
            release_at_ms: None,
            changed: Bits::default(),
            condemned: Bits::default(),
        }
    }

    pub fn link_up(&mut self, link: LinkId, peer: Slot, rtt_ms: u32, now_ms: u64) {
        let mut dirty = Bits::default();
        (0..self.ways.len() as u32).for_each(|slot| _ = dirty.insert(slot));
        let vector = Vector { peer, heard: Vec::new(), told: Vec::new(), rtt_ms, dirty, muted: false, fresh: true };
        self.vectors.insert(link, vector);
        self.choose(peer, Loss::Gone, now_ms);
    }

    /// A link over which everything was said long ago. Call [`Distances::settle_restored`] after the last.
    pub fn restore_link(&mut self, link: LinkId, peer: Slot, rtt_ms: u32, heard: Vec<u8>, told: Vec<u8>) {
        let vector = Vector { peer, heard, told, rtt_ms, dirty: Bits::default(), muted: false, fresh: false };
        self.vectors.insert(link, vector);
    }

    /// Takes up the ways that were told before.
    pub fn settle_restored(&mut self) {
        let slots = self.vectors.values().map(|vector| vector.heard.len().max(vector.peer.0 as usize + 1)).max().unwrap_or(0);
        grow(&mut self.ways, slots, NO_WAY);
        for slot in (0..slots as u32).map(Slot).filter(|slot| *slot != self.me) {
            let told_through = |vector: &Vector| vector.told(slot) == THROUGH_YOU;
            let parent = self.vectors.iter().find(|(_, vector)| told_through(vector)).map(|(link, _)| *link);
            let best = self.best(slot);
            let via = parent.or(best.via);
            self.ways[slot.0 as usize] = Way { hops: best.hops, feasible: best.hops, via };
        }
    }

    pub fn link_down(&mut self, link: LinkId, now_ms: u64) {
        if let Some(vector) = self.vectors.remove(&link) {
            self.choose_all(vector.peer, now_ms);
        }
    }

    /// Leaves out, or takes in again, the ways over a link whose peer is silent.
    pub fn mute(&mut self, link: LinkId, muted: bool, now_ms: u64) {
        let Some(vector) = self.vectors.get_mut(&link) else { return };
        if vector.muted != muted {
            vector.muted = muted;
            let peer = vector.peer;
            self.choose_all(peer, now_ms);
        }
    }

    /// The peer starts over: what it told before is void. Call before the entries of that frame.
    pub fn forget_heard(&mut self, link: LinkId, now_ms: u64) {
        let Some(vector) = self.vectors.get_mut(&link) else { return };
        if !vector.heard.is_empty() {
            vector.heard.clear();
            let peer = vector.peer;
            self.choose_all(peer, now_ms);
        }
    }

    /// The round trip of a link was measured; ways in use stay.
    pub fn measured(&mut self, link: LinkId, rtt_ms: u32) {
        if let Some(vector) = self.vectors.get_mut(&link) {
            vector.rtt_ms = rtt_ms;
        }
    }

    /// The peer says that it is `hops` away from `slot`.
    pub fn heard(&mut self, link: LinkId, slot: Slot, hops: u8, now_ms: u64) {
        let Some(vector) = self.vectors.get_mut(&link) else { return };
        if slot == self.me || slot == vector.peer {
            return;
        }
        set_value(&mut vector.heard, slot, hops.clamp(1, THROUGH_YOU_UNSEEN), UNTOLD);
        self.make_room(slot);
        self.choose(slot, if hops < UNREACHABLE { Loss::Longer } else { Loss::Gone }, now_ms);
    }

    /// Believes what is offered for every origin that was held long enough.
    pub fn release(&mut self, now_ms: u64) {
        let over: Vec<Slot> = self.holds.iter().filter(|(_, hold)| hold.next_ms() <= now_ms).map(|(slot, _)| *slot).collect();
        for slot in over {
            match self.holds.get_mut(&slot) {
                Some(hold) if !hold.released => {
                    hold.released = true;
                    self.set_way(slot, |way, best| *way = Way { feasible: best.hops, ..best });
                }
                _ => _ = self.holds.remove(&slot),
            }
        }
        self.release_at_ms = self.holds.values().map(Hold::next_ms).min();
    }

    /// The way to `slot` is lost.
    fn hold(&mut self, slot: Slot, now_ms: u64) {
        let again_ms = self.holds.get(&slot).map(|before| (before.lasts_ms * 2).min(HOLD_MS << HOLD_DOUBLINGS_MAX));
        let lasts_ms = again_ms.unwrap_or(HOLD_MS);
        let until_ms = now_ms + lasts_ms;
        self.holds.insert(slot, Hold { until_ms, lasts_ms, released: false });
        self.release_at_ms = Some(self.release_at_ms.map_or(until_ms, |at_ms| at_ms.min(until_ms)));
        self.set_way(slot, |way, _| *way = Way { feasible: way.feasible, ..NO_WAY });
    }

    fn is_held(&self, slot: Slot) -> bool {
        self.holds.get(&slot).is_some_and(|hold| !hold.released)
    }

    /// The origin is known to be dead: ways to it are heard of, and neither believed nor passed on.
    pub fn condemn(&mut self, slot: Slot, now_ms: u64) {
        if self.condemned.insert(slot.0) {
            self.choose(slot, Loss::Gone, now_ms);
        }
    }

    /// The origin lives after all.
    pub fn pardon(&mut self, slot: Slot, now_ms: u64) {
        if self.condemned.remove(slot.0) {
            self.choose(slot, Loss::Gone, now_ms);
        }
    }

    /// Links whose peers offer a way to `slot`, believed or not.
    pub fn offering(&self, slot: Slot) -> impl Iterator<Item = LinkId> + '_ {
        self.vectors.iter().filter(move |(_, vector)| vector.offers(slot) < UNREACHABLE).map(|(link, _)| *link)
    }

    /// The link whose peer offers the shortest way to `slot`, believed or not.
    pub fn nearest_offer(&self, slot: Slot) -> Option<LinkId> {
        self.offering(slot).min_by_key(|link| self.vectors.get(link).map(|vector| (vector.offers(slot), vector.rtt_ms)))
    }

    /// When to call [`Distances::release`].
    pub fn release_at_ms(&self) -> Option<u64> {
        self.release_at_ms
    }

    /// The slot is given to another origin: nothing of the old one remains.
    pub fn forget_slot(&mut self, slot: Slot) {
        self.holds.remove(&slot);
        self.condemned.remove(slot.0);
        if let Some(way) = self.ways.get_mut(slot.0 as usize) {
            *way = NO_WAY;
        }
        for vector in self.vectors.values_mut() {
            set_value(&mut vector.heard, slot, UNTOLD, UNTOLD);
            set_value(&mut vector.told, slot, UNREACHABLE, UNREACHABLE);
            vector.dirty.remove(slot.0);
        }
    }

    /// Fewest hops known, tentative while held; `None` where there is no way.
    pub fn hops(&self, slot: Slot) -> Option<u8> {
        let hops = if self.is_held(slot) { self.best(slot).hops } else { self.way(slot).hops };
        (hops < UNREACHABLE).then_some(hops)
    }

    /// The neighbour through whom the shortest way leads.
    pub fn next_hop(&self, slot: Slot) -> Option<LinkId> {
        if self.is_held(slot) { self.best(slot).via } else { self.way(slot).via }
    }

    /// How many links offer a way.
    pub fn alternatives(&self, slot: Slot) -> usize {
        self.offering(slot).count()
    }

    /// Fewest hops to the peer of a link without that link.
    pub fn detour(&self, link: LinkId) -> Option<u8> {
        let peer = self.vectors.get(&link)?.peer;
        let others = self.vectors.iter().filter(|(other, _)| **other != link);
        others.map(|(_, vector)| vector.offers(peer).saturating_add(1)).min().filter(|hops| *hops < UNREACHABLE)
    }

    /// Bytes that the columns take.
    pub fn bytes(&self) -> usize {
        let vectors = self.vectors.values().map(|vector| vector.heard.capacity() + vector.told.capacity() + vector.dirty.bytes());
        self.ways.capacity() * size_of::<Way>()
            + vectors.sum::<usize>()
            + self.changed.bytes()
            + self.condemned.bytes()
            + self.holds.len() * 32
    }

    /// Whether the peer of `link` spoke of `slot` as one whose record it holds.
    pub fn is_known_to(&self, link: LinkId, slot: Slot) -> bool {
        self.vectors.get(&link).is_some_and(|vector| !matches!(vector.heard(slot), UNTOLD | THROUGH_YOU_UNSEEN))
    }

    /// What the peer of `link` last said about its way to `slot`.
    pub fn dependence(&self, link: LinkId, slot: Slot) -> Dependence {
        let Some(vector) = self.vectors.get(&link) else { return Dependence::Unknown };
        let heard = vector.heard(slot);
        if slot == vector.peer || heard < UNREACHABLE {
            Dependence::Independent
        } else if heard == THROUGH_YOU || heard == THROUGH_YOU_UNSEEN {
            Dependence::Child
        } else {
            Dependence::Unknown
        }
    }

    /// Tells every link about `slot` again if what it was told is out of date.
    pub fn touch(&mut self, slot: Slot) {
        self.vectors.values_mut().for_each(|vector| _ = vector.dirty.insert(slot.0));
    }

    /// The next slot whose distance may have changed since it was last asked for.
    pub fn pop_changed(&mut self) -> Option<Slot> {
        self.changed.pop().map(Slot)
    }

    /// Whether `tell` has something to say on this link.
    pub fn wants_to_tell(&self, link: LinkId) -> bool {
        self.vectors.get(&link).is_some_and(|vector| vector.fresh || !vector.dirty.is_empty())
    }

    /// Up to `max` differences from what the link was told, and whether this is the first frame of a whole vector. Slots whose record is
    /// not `known` stay unsaid until they are touched again, except to the neighbour that led us to them; where it answers `None`, to
    /// that one too.
    pub fn tell(&mut self, link: LinkId, max: usize, known: impl Fn(Slot) -> Option<bool>) -> Option<(bool, Vec<(Slot, u8)>)> {
        let mut entries = Vec::new();
        while entries.len() < max {
            let Some(slot) = self.vectors.get_mut(&link)?.dirty.pop().map(Slot) else { break };
            let Some(hops) = known(slot).and_then(|known| self.to_tell(link, slot, known)) else { continue };
            let vector = self.vectors.get_mut(&link)?;
            let told = vector.told(slot);
            if told == hops {
                continue;
            }
            set_value(&mut vector.told, slot, hops, UNREACHABLE);
            // That the record has arrived by now is what the neighbour expects.
            if (told, hops) != (THROUGH_YOU_UNSEEN, THROUGH_YOU) {
                entries.push((slot, hops));
            }
        }
        let whole = std::mem::take(&mut self.vectors.get_mut(&link)?.fresh);
        (whole || !entries.is_empty()).then_some((whole, entries))
    }

    fn to_tell(&self, link: LinkId, slot: Slot, known: bool) -> Option<u8> {
        let way = self.way(slot);
        let is_peer = self.vectors.get(&link).is_some_and(|vector| vector.peer == slot);
        match known {
            _ if slot == self.me || is_peer => Some(UNREACHABLE),
            true if way.via == Some(link) => Some(THROUGH_YOU),
            false if way.via == Some(link) => Some(THROUGH_YOU_UNSEEN),
            true => Some(way.hops),
            false => None,
        }
    }

    fn way(&self, slot: Slot) -> Way {
        self.ways.get(slot.0 as usize).copied().unwrap_or(NO_WAY)
    }

    /// The shortest way on offer; among equals the one in use, then the quickest.
    fn best(&self, slot: Slot) -> Way {
        if self.condemned.contains(slot.0) {
            return NO_WAY;
        }
        let current = self.way(slot).via;
        let offers =
            self.vectors.iter().map(|(link, vector)| (vector.offers(slot), current != Some(*link), vector.rtt_ms, *link));
        match offers.min() {
            Some((hops, _, _, link)) if hops + 1 < UNREACHABLE => Way { hops: hops + 1, feasible: UNREACHABLE, via: Some(link) },
            _ => NO_WAY,
        }
    }

    /// The link to `peer` changed.
    fn choose_all(&mut self, peer: Slot, now_ms: u64) {
        (0..self.ways.len() as u32).map(Slot).for_each(|slot| {
            self.choose(slot, if slot == peer { Loss::Gone } else { Loss::Longer }, now_ms);
        });
    }

    fn choose(&mut self, slot: Slot, loss: Loss, now_ms: u64) {
        if slot == self.me {
            return;
        }
        let (way, best) = (self.way(slot), self.best(slot));
        let unchanged = (way.hops, way.via) == (best.hops, best.via);
        let longest = if loss == Loss::Longer && way.hops < UNREACHABLE { way.feasible + 1 } else { way.feasible };
        let feasible = (best.hops <= longest || unchanged) && best.hops < UNREACHABLE;
        if feasible {
            if let Some(hold) = self.holds.get_mut(&slot) {
                hold.released = true;
            }
            self.set_way(slot, |way, best| *way = Way { feasible: way.feasible.min(best.hops), ..best });
        } else if way.hops < UNREACHABLE {
            self.hold(slot, now_ms);
        } else {
            self.changed.insert(slot.0);
        }
    }

    fn set_way(&mut self, slot: Slot, set: impl FnOnce(&mut Way, Way)) {
        let best = self.best(slot);
        self.make_room(slot);
        let way = &mut self.ways[slot.0 as usize];
        let before = *way;
        set(way, best);
        if (before.hops, before.via) != (way.hops, way.via) {
            self.touch(slot);
            self.changed.insert(slot.0);
        }
    }

    fn make_room(&mut self, slot: Slot) {
        let needed = slot.0 as usize + 1;
        if self.ways.len() < needed {
            grow(&mut self.ways, needed, NO_WAY);
        }
    }
}

#[cfg(test)]
mod tests;
