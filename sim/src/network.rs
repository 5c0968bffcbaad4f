//! Virtual connections: ordered and reliable streams beside lossy datagrams, as QUIC gives them, over links with latency, jitter, loss and
//! bandwidth.
//!
//! A stream never loses anything while its connection stands: a lost packet is sent again after max(1.5 round trips + 25 ms, 60 ms), twice
//! that the next time, and everything behind it waits. Probes and keep-alives are datagrams, which are dropped instead and wait for nobody.
//! What a closed or timed-out connection had not delivered is gone. A barrier holds streams back until it is lifted or the transport gives
//! up. Congestion control is absent but for a window per direction and the bandwidth of each host's uplink: a writer that has neither is
//! not asked for more, which is how a state machine whose frames are pulled meets a slow peer.

use serde::Deserialize;

use crate::barriers::Barriers;
use crate::chance::{Purpose, between, draw, happens};

/// Payload of one packet.
const PACKET_BYTES: usize = 1_200;
/// Undelivered stream bytes of one direction: what a stream's flow control lets stand.
pub const WINDOW_BYTES: usize = 256 << 10;
/// A writer takes no more while the uplink is busy for longer than this.
const UPLINK_BACKLOG_US: u64 = 20_000;
/// A transport notices after this long that the other side is gone: the idle time-out of a QUIC connection.
pub const TRANSPORT_TIMEOUT_MS: u64 = 10_000;
/// What a datagram costs besides its frames: headers of UDP, IP and QUIC. Counted once for all frames that go to one peer in one moment.
pub const FLUSH_BYTES: u64 = 60;
/// Kinds of frames that travel as datagrams: probe, its reply, keep-alive.
const DATAGRAM_KINDS: [u8; 3] = [6, 7, 11];
/// Consecutive losses of one packet that are looked at.
const LOSSES_MAX: u32 = 8;

/// What all links of a world have in common.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkShape {
    /// One-way delay, drawn once per pair of nodes: what a home to a continent takes.
    pub latency_ms: [u64; 2],
    /// Most that is added to each packet anew.
    pub jitter_ms: u64,
    /// Share of packets that are lost.
    pub loss: f64,
    /// Uplink of each host.
    pub mbit_s: f64,
}

impl Default for LinkShape {
    fn default() -> Self {
        Self { latency_ms: [10, 50], jitter_ms: 3, loss: 0.01, mbit_s: 100.0 }
    }
}

/// One end's way to the other.
#[derive(Clone, Debug, Default)]
struct Way {
    /// Earliest delivery of the next stream bytes.
    next_ms: u64,
    in_flight_bytes: usize,
    held: Vec<Flight>,
    /// The writer waits for room.
    starved: bool,
    packets: u64,
    /// Since when nothing gets through.
    blocked_ms: Option<u64>,
}

/// A connection between two nodes, the smaller number first.
#[derive(Debug)]
struct Connection {
    number: u32,
    ends: [u32; 2],
    /// Which life of each end opened it.
    lives: [u32; 2],
    ways: [Way; 2],
}

/// Names a connection, and tells it from later ones in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionId {
    slot: u32,
    number: u32,
}

/// A frame under way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub from: u32,
    pub to: u32,
    pub connection: ConnectionId,
    pub bytes: Vec<u8>,
}

/// What a change of the barriers means for connections.
#[derive(Debug, Default)]
pub struct Changed {
    /// Ways on which nothing gets through since now; the transport gives up on them in [`TRANSPORT_TIMEOUT_MS`].
    pub stopped: Vec<(ConnectionId, u32)>,
    /// What was held back, and when it arrives.
    pub freed: Vec<(u64, Flight)>,
}

/// The frames that go to one peer in one moment, packed together.
#[derive(Debug, Default)]
pub struct Flush {
    frames: usize,
    offset_bytes: usize,
    packets: usize,
    delay_ms: u64,
}

impl Flush {
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }
}

/// Whether a writer may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Free,
    /// Told by a delivery when there is room again.
    Full,
    /// The uplink is busy until then.
    BusyUntil(u64),
}

pub struct Network {
    pub shape: LinkShape,
    pub barriers: Barriers,
    seed: u64,
    /// For each node its peers and where their connections are.
    peers: Vec<Vec<(u32, u32)>>,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    opened: u32,
    /// For each node until when its uplink is busy, and its bandwidth where it is not that of all.
    uplinks: Vec<(u64, Option<f64>)>,
}

impl Network {
    pub fn new(shape: LinkShape, nodes: usize, seed: u64) -> Self {
        Self {
            shape,
            barriers: Barriers::new(nodes),
            seed,
            peers: vec![Vec::new(); nodes],
            connections: Vec::new(),
            free: Vec::new(),
            opened: 0,
            uplinks: vec![(0, None); nodes],
        }
    }

    /// One way, without jitter.
    pub fn latency_ms(&self, a: u32, b: u32) -> u64 {
        let bits = draw(self.seed, Purpose::Latency, a.min(b).into(), a.max(b).into());
        between(bits, self.shape.latency_ms[0], self.shape.latency_ms[1])
    }

    pub fn set_uplink(&mut self, node: u32, mbit_s: f64) {
        self.uplinks[node as usize].1 = Some(mbit_s);
    }

    /// The connection between two nodes, if there is one.
    pub fn find(&self, a: u32, b: u32) -> Option<ConnectionId> {
        let (_, slot) = self.peers[a as usize].iter().find(|(peer, _)| *peer == b)?;
        Some(ConnectionId { slot: *slot, number: self.connections[*slot as usize].as_ref()?.number })
    }

    pub fn stands(&self, id: ConnectionId) -> bool {
        self.get(id).is_some()
    }

    /// The ends of a connection, and which life of each opened it.
    pub fn ends(&self, id: ConnectionId) -> Option<([u32; 2], [u32; 2])> {
        self.get(id).map(|connection| (connection.ends, connection.lives))
    }

    fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections[id.slot as usize].as_ref().filter(|connection| connection.number == id.number)
    }

    fn way(&mut self, id: ConnectionId, from: u32) -> Option<&mut Way> {
        let connection = self.connections[id.slot as usize].as_mut().filter(|connection| connection.number == id.number)?;
        Some(&mut connection.ways[usize::from(connection.ends[0] != from)])
    }

    /// Connects two nodes that are not connected.
    pub fn open(&mut self, a: u32, b: u32, lives: [u32; 2], now_ms: u64) {
        self.opened += 1;
        let (ends, lives) = if a < b { ([a, b], lives) } else { ([b, a], [lives[1], lives[0]]) };
        let way = Way { next_ms: now_ms, ..Way::default() };
        let connection = Connection { number: self.opened, ends, lives, ways: [way.clone(), way] };
        let slot = self.free.pop().unwrap_or(self.connections.len() as u32);
        if slot as usize == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[slot as usize] = Some(connection);
        self.peers[a as usize].push((b, slot));
        self.peers[b as usize].push((a, slot));
    }

    /// Takes a connection away with everything that it had not delivered.
    pub fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_none() {
            return;
        }
        if let Some(connection) = self.connections[id.slot as usize].take() {
            self.free.push(id.slot);
            connection.ends.iter().for_each(|end| self.peers[*end as usize].retain(|(_, slot)| *slot != id.slot));
        }
    }

    /// Who `node` is connected to.
    pub fn peers(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.peers[node as usize].iter().map(|(peer, _)| *peer)
    }

    /// Every connection.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, [u32; 2])> + '_ {
        let stands = self.connections.iter().enumerate().filter_map(|(slot, one)| Some((slot, one.as_ref()?)));
        stands.map(|(slot, one)| (ConnectionId { slot: slot as u32, number: one.number }, one.ends))
    }

    /// Undelivered stream bytes to and from a node.
    pub fn queued_bytes(&self, node: u32) -> usize {
        let connections = self.peers[node as usize].iter().filter_map(|(_, slot)| self.connections[*slot as usize].as_ref());
        connections.flat_map(|connection| &connection.ways).map(|way| way.in_flight_bytes).sum()
    }

    /// Whether `from` may write. A writer that may not is told later, by [`Network::delivered`] or at the given time.
    pub fn room(&mut self, id: ConnectionId, from: u32, now_ms: u64) -> Room {
        let busy_us = self.uplinks[from as usize].0;
        let Some(way) = self.way(id, from) else { return Room::Full };
        if way.in_flight_bytes >= WINDOW_BYTES {
            way.starved = true;
            return Room::Full;
        }
        if busy_us > now_ms * 1_000 + UPLINK_BACKLOG_US { Room::BusyUntil(busy_us / 1_000 + 1) } else { Room::Free }
    }

    /// Sends one frame: when it arrives, unless it is held back or lost.
    pub fn send(&mut self, id: ConnectionId, from: u32, flush: &mut Flush, bytes: Vec<u8>, now_ms: u64) -> Option<(u64, Flight)> {
        let [a, b] = self.get(id)?.ends;
        let to = if a == from { b } else { a };
        flush.frames += 1;
        let passes = self.barriers.passes(from, to);
        let latency_ms = self.latency_ms(from, to);
        let sent_ms = self.transmit(from, bytes.len(), now_ms);
        let (seed, shape, whose) = (self.seed, self.shape, u64::from(id.number) << 1 | u64::from(a != from));
        let way = self.way(id, from)?;
        let jitter_ms = between(draw(seed, Purpose::Jitter, whose, way.packets), 0, shape.jitter_ms);
        let at_ms = sent_ms + latency_ms + jitter_ms;
        let is_datagram = bytes.first().is_some_and(|kind| DATAGRAM_KINDS.contains(kind));
        let flight = Flight { from, to, connection: id, bytes };
        if is_datagram {
            way.packets += 1;
            let lost = !passes || happens(draw(seed, Purpose::Loss, whose, way.packets), shape.loss);
            return (!lost).then_some((at_ms, flight));
        }
        let retry_ms = (3 * latency_ms + 25).max(60);
        way.pack(flush, flight.bytes.len(), |packet| retransmission_ms(seed, whose, packet, shape.loss, retry_ms));
        way.in_flight_bytes += flight.bytes.len();
        if !passes {
            way.held.push(flight);
            return None;
        }
        way.next_ms = way.next_ms.max(at_ms + flush.delay_ms);
        Some((way.next_ms, flight))
    }

    /// When the last bit leaves the host.
    fn transmit(&mut self, from: u32, bytes: usize, now_ms: u64) -> u64 {
        let (busy_us, mbit_s) = &mut self.uplinks[from as usize];
        let takes_us = bytes as f64 * 8.0 / mbit_s.unwrap_or(self.shape.mbit_s);
        *busy_us = (now_ms * 1_000).max(*busy_us) + takes_us as u64;
        *busy_us / 1_000
    }

    /// A frame came in; whether its writer waited for that.
    pub fn delivered(&mut self, flight: &Flight) -> bool {
        let is_datagram = flight.bytes.first().is_some_and(|kind| DATAGRAM_KINDS.contains(kind));
        let Some(way) = self.way(flight.connection, flight.from).filter(|_| !is_datagram) else { return false };
        way.in_flight_bytes = way.in_flight_bytes.saturating_sub(flight.bytes.len());
        std::mem::take(&mut way.starved)
    }

    /// Notes what the barriers have stopped and freed.
    pub fn barriers_changed(&mut self, now_ms: u64) -> Changed {
        let mut changed = Changed::default();
        let ids: Vec<(ConnectionId, [u32; 2])> = self.connections().collect();
        for (id, [a, b]) in ids {
            for (from, to) in [(a, b), (b, a)] {
                let (passes, latency_ms) = (self.barriers.passes(from, to), self.latency_ms(from, to));
                let Some(way) = self.way(id, from) else { continue };
                if !passes && way.blocked_ms.is_none() {
                    way.blocked_ms = Some(now_ms);
                    changed.stopped.push((id, from));
                }
                if passes && way.blocked_ms.take().is_some() {
                    way.next_ms = way.next_ms.max(now_ms + latency_ms);
                    changed.freed.extend(std::mem::take(&mut way.held).into_iter().map(|flight| (way.next_ms, flight)));
                }
            }
        }
        changed
    }

    /// Whether nothing got through from `from` for as long as a transport waits.
    pub fn gave_up(&mut self, id: ConnectionId, from: u32, now_ms: u64) -> bool {
        self.way(id, from).and_then(|way| way.blocked_ms).is_some_and(|since| now_ms >= since + TRANSPORT_TIMEOUT_MS)
    }
}

impl Way {
    /// Puts a frame into the packets of a flush; `delay_ms` says how late a packet is.
    fn pack(&mut self, flush: &mut Flush, bytes: usize, delay_ms: impl Fn(u64) -> u64) {
        flush.offset_bytes += bytes;
        while flush.packets * PACKET_BYTES < flush.offset_bytes {
            flush.packets += 1;
            self.packets += 1;
            flush.delay_ms = flush.delay_ms.max(delay_ms(self.packets));
        }
    }
}

/// How much later a packet arrives for being lost, possibly several times.
fn retransmission_ms(seed: u64, whose: u64, packet: u64, loss: f64, retry_ms: u64) -> u64 {
    let lost = |attempt: &u32| happens(draw(seed, Purpose::Loss, whose, packet << 8 | u64::from(*attempt)), loss);
    (0..LOSSES_MAX).take_while(lost).map(|attempt| retry_ms << attempt).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(shape: LinkShape) -> (Network, ConnectionId) {
        let mut network = Network::new(shape, 2, 7);
        network.open(0, 1, [0, 0], 0);
        let id = network.find(0, 1).unwrap();
        (network, id)
    }

    fn frame(kind: u8, bytes: usize) -> Vec<u8> {
        [vec![kind], vec![0; bytes - 1]].concat()
    }

    #[test]
    fn streams_stay_in_order_and_lose_nothing_while_datagrams_are_lost() {
        let (mut network, id) = pair(LinkShape { loss: 0.2, ..LinkShape::default() });
        let mut arrivals = Vec::new();
        for now_ms in 0..1_000 {
            arrivals.extend(network.send(id, 0, &mut Flush::default(), frame(1, 100), now_ms).map(|(at_ms, _)| at_ms));
        }
        assert_eq!(arrivals.len(), 1_000);
        assert!(arrivals.is_sorted());
        let late = arrivals.iter().enumerate().filter(|(sent, at)| **at > *sent as u64 + 60).count();
        assert!(late > 300, "{late} of 1,000 waited for a packet that was lost");
        let probes = (0..1_000).filter(|now| network.send(id, 1, &mut Flush::default(), frame(6, 10), *now).is_some()).count();
        assert!((750..850).contains(&probes), "{probes}");
    }

    #[test]
    fn a_frame_of_many_packets_suffers_more_and_a_slow_uplink_delays() {
        let (mut network, id) = pair(LinkShape { loss: 0.0, mbit_s: 8.0, jitter_ms: 0, ..LinkShape::default() });
        let latency_ms = network.latency_ms(0, 1);
        let (at_ms, _) = network.send(id, 0, &mut Flush::default(), frame(1, 60_000), 0).unwrap();
        assert_eq!(at_ms, latency_ms + 60, "60 kB at 1 kB per millisecond");
        assert_eq!(network.room(id, 0, 0), Room::BusyUntil(61));
        assert_eq!(retransmission_ms(1, 1, 1, 1.0, 60), 60 * 255);
    }

    #[test]
    fn a_barrier_holds_streams_back_and_swallows_datagrams() {
        let (mut network, id) = pair(LinkShape::default());
        network.barriers.cut(0, 1);
        assert_eq!(network.barriers_changed(5).stopped, [(id, 0)]);
        assert!(network.send(id, 0, &mut Flush::default(), frame(1, 100), 10).is_none());
        assert!(network.send(id, 0, &mut Flush::default(), frame(6, 100), 10).is_none());
        assert!(network.send(id, 1, &mut Flush::default(), frame(1, 100), 10).is_some(), "the other way is open");
        assert!(!network.gave_up(id, 0, TRANSPORT_TIMEOUT_MS));
        assert!(network.gave_up(id, 0, TRANSPORT_TIMEOUT_MS + 5));
        network.barriers.open_all();
        let changed = network.barriers_changed(100);
        assert_eq!((changed.stopped.len(), changed.freed.len()), (0, 1));
    }

    #[test]
    fn a_writer_stops_at_the_window_and_goes_on_after_a_delivery() {
        let (mut network, id) = pair(LinkShape { mbit_s: 1e9, ..LinkShape::default() });
        let mut flights = Vec::new();
        while network.room(id, 0, 0) == Room::Free {
            flights.extend(network.send(id, 0, &mut Flush::default(), frame(1, 32 << 10), 0));
        }
        assert_eq!(flights.len(), WINDOW_BYTES / (32 << 10));
        assert!(network.delivered(&flights[0].1), "the writer waited");
        assert_eq!(network.room(id, 0, 0), Room::Free);
    }
}
