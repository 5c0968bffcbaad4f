//! The effects that nodes ask for, and what comes of them: dials, connections, frames.

use std::sync::Arc;

use atmo_capabilities::coordinator::{Input, Output};
use atmo_protocol::NodeId;
use atmo_protocol::config::ADDRESS_BOOK_MAX;
use atmo_protocol::mesh::{self, LinkLoss};
use atmo_protocol::wire;

use super::{ATTACK_EVERY_MS, Event, World};
use crate::adversary::{Attack, Scene};
use crate::chance::{Purpose, between, draw, happens};
use crate::host::held_number;
use crate::meter::Arrival;
use crate::network::{ConnectionId, FLUSH_BYTES, Flight, Flush, Room, TRANSPORT_TIMEOUT_MS};

/// What a writer takes at once.
const SEND_BUDGET_BYTES: usize = 32 << 10;
/// A host answers a dial to a node that is not there after this long.
const DIAL_REFUSED_MS: u64 = 1_000;
/// Who has been steady for this long is not to be taken for dead.
const STEADY_MS: u64 = 10_000;

impl World {
    /// Has the effects that a node asks for, and sees to it that it is woken.
    pub(super) fn drain(&mut self, node: u32) {
        while let Some(output) = self.hosts[node as usize].node.as_mut().and_then(|node| node.poll_output()) {
            match output {
                Output::Mesh(effect) => self.carry_out(node, effect),
                Output::Event(event) => self.note(node, &event),
                Output::ViewStale => {}
            }
        }
        self.publish_if_signed(node);
        let now_ms = self.now_ms();
        let host = &mut self.hosts[node as usize];
        let Some(at_ms) = host.node.as_ref().and_then(|node| node.poll_timeout()).map(|at_ms| at_ms.max(now_ms)) else { return };
        if host.wake_ms.is_none_or(|queued| at_ms < queued) {
            host.wake_ms = Some(at_ms);
            self.queue.add(at_ms, Event::Wake { node });
        }
    }

    fn carry_out(&mut self, node: u32, effect: mesh::Output) {
        match effect {
            mesh::Output::Dial { node: target, .. } => self.dial(node, &target),
            mesh::Output::Close { peer, reason } => {
                let Some(peer) = self.number_of(&peer) else { return };
                let now_ms = self.now_ms();
                self.log.note(now_ms, || format!("node {node} closes its link to {peer}: {reason}"));
                self.close(node, peer);
            }
            mesh::Output::PersistIncarnation(incarnation) => {
                let now = self.now(node);
                let host = &mut self.hosts[node as usize];
                host.stored_incarnation = incarnation;
                host.node.iter_mut().for_each(|node| node.handle(now, Input::IncarnationPersisted(incarnation)));
            }
            mesh::Output::WantsSend { peer } => {
                let Some(peer) = self.number_of(&peer) else { return };
                self.queue.add(self.now_ms(), Event::Pull { node, peer });
            }
            mesh::Output::Remember { node: peer, .. } => {
                let Some(peer) = self.number_of(&peer) else { return };
                self.hosts[node as usize].remember(peer, ADDRESS_BOOK_MAX);
            }
            mesh::Output::Event(_) => {}
        }
    }

    /// What nodes notice, as far as it should not be.
    fn note(&mut self, node: u32, event: &mesh::Event) {
        let now_ms = self.now_ms();
        if !matches!(event, mesh::Event::CapabilitiesChanged) {
            let named = |id: &NodeId| self.numbers.get(id).map_or_else(|| "a stranger".to_owned(), |number| number.to_string());
            self.log.note(now_ms, || format!("node {node} says {}", spoken(event, named)));
        }
        if !self.hosts[node as usize].is_honest() {
            return;
        }
        match event {
            mesh::Event::NodeDead { node: dead, why } => self.count_false_death(node, dead, *why),
            mesh::Event::Blamed { peer, why } => {
                let peer = self.number_of(peer);
                let honest = peer.is_some_and(|peer| self.hosts[peer as usize].is_honest() && !self.blamable[peer as usize]);
                if honest && !self.blamable[node as usize] {
                    self.violate(format!("nobody honest is blamed: node {node} blames {}: {why}", peer.unwrap_or_default()));
                }
            }
            mesh::Event::SecondHolderOfKey => {
                self.violate(format!("one life at a time: node {node} met another holder of its key"))
            }
            mesh::Event::ClockDoubt { jump_ms } if !self.clocks_jump => {
                self.violate(format!("clocks are steady: node {node} doubts its own by {jump_ms} ms"));
            }
            mesh::Event::TableFull { .. } if !self.hostile => {
                self.violate(format!("tables have room: node {node} refused an origin"));
            }
            _ => {}
        }
    }

    fn count_false_death(&mut self, observer: u32, dead: &NodeId, why: mesh::DeathCause) {
        let Some(dead) = self.number_of(dead) else { return };
        let steady = |node: u32| self.is_well(node) && self.now_ms() >= self.hosts[node as usize].steady_since_ms + STEADY_MS;
        let together = self.network.barriers.sides_join(self.network.barriers.side(observer), self.network.barriers.side(dead));
        if steady(observer) && steady(dead) && together {
            let now_ms = self.now_ms();
            self.log.note(now_ms, || format!("FALSE DEATH: node {observer} takes {dead} for dead: {why}"));
            self.meter.false_deaths += 1;
        }
    }

    // Connections

    fn dial(&mut self, from: u32, target: &NodeId) {
        let Some(to) = self.number_of(target) else { return };
        let (now_ms, life) = (self.now_ms(), self.hosts[from as usize].life);
        if self.is_running(to) && self.may_dial(from, to) {
            let round_trips_ms = 4 * self.network.latency_ms(from, to);
            let lives = [life, self.hosts[to as usize].life];
            self.queue.add(now_ms + round_trips_ms, Event::Connected { from, to, lives });
        } else {
            self.queue.add(now_ms + DIAL_REFUSED_MS, Event::DialFailed { node: from, target: to, life });
        }
    }

    pub(super) fn may_dial(&self, from: u32, to: u32) -> bool {
        let adjacent = self.neighbours.as_ref().is_none_or(|all| all[from as usize].contains(&to));
        adjacent && from != to && self.network.barriers.may_dial(from, to)
    }

    pub(super) fn dial_failed(&mut self, node: u32, target: u32) {
        let target = self.hosts[target as usize].id;
        self.tell(node, Input::DialFailed { node: target });
    }

    pub(super) fn connected(&mut self, from: u32, to: u32, lives: [u32; 2]) {
        if self.lives(from) != Some(lives[0]) {
            return;
        }
        if self.lives(to) != Some(lives[1]) || !self.may_dial(from, to) {
            self.dial_failed(from, to);
            return;
        }
        if let Some(old) = self.network.find(from, to) {
            let current = self.network.ends(old).map(|(ends, old)| if ends[0] == from { old } else { [old[1], old[0]] });
            if current == Some(lives) {
                return;
            }
            self.network.remove(old);
        }
        let now_ms = self.now_ms();
        self.network.open(from, to, lives, now_ms);
        self.log.note(now_ms, || format!("nodes {from} and {to} are connected"));
        let rtt_ms = 2 * self.network.latency_ms(from, to) as u32;
        for (node, peer) in [(from, to), (to, from)] {
            let peer = &self.hosts[peer as usize];
            let (peer, chain) = (peer.id, Arc::clone(&peer.chain));
            self.tell(node, Input::LinkUp { peer, chain, rtt_ms });
        }
    }

    /// Closed by `node`: it knows at once, the peer when word arrives.
    fn close(&mut self, node: u32, peer: u32) {
        let Some(connection) = self.network.find(node, peer) else { return };
        let word_gets_there = self.network.barriers.passes(node, peer);
        self.network.remove(connection);
        let id = self.hosts[peer as usize].id;
        let now = self.now(node);
        self.hosts[node as usize].node.iter_mut().for_each(|node| {
            node.handle(now, Input::LinkDown { peer: id, cause: LinkLoss::Closed });
        });
        let (delay_ms, cause) = if word_gets_there {
            (self.network.latency_ms(node, peer), LinkLoss::Closed)
        } else {
            (TRANSPORT_TIMEOUT_MS, LinkLoss::Lost)
        };
        self.tell_down(peer, node, connection, delay_ms, cause);
    }

    fn tell_down(&mut self, node: u32, peer: u32, connection: ConnectionId, delay_ms: u64, cause: LinkLoss) {
        let life = self.hosts[node as usize].life;
        self.queue.add(self.now_ms() + delay_ms, Event::LinkDown { node, peer, connection, life, cause });
    }

    pub(super) fn link_down(&mut self, node: u32, peer: u32, connection: ConnectionId, cause: LinkLoss) {
        match self.network.find(node, peer) {
            Some(current) if current != connection => return,
            Some(_) => self.network.remove(connection),
            None => {}
        }
        let peer = self.hosts[peer as usize].id;
        self.tell(node, Input::LinkDown { peer, cause });
    }

    /// The peers of a killed node notice when their transports give up.
    pub(super) fn abandon_connections(&mut self, node: u32) {
        let peers: Vec<u32> = self.network.peers(node).collect();
        for peer in peers {
            if let Some(connection) = self.network.find(node, peer) {
                self.tell_down(peer, node, connection, TRANSPORT_TIMEOUT_MS, LinkLoss::Lost);
            }
        }
    }

    /// A node that starts knows nothing of the connections of its former life: what comes in on them is answered with a reset.
    pub(super) fn forget_connections(&mut self, node: u32) {
        let peers: Vec<u32> = self.network.peers(node).collect();
        for peer in peers {
            if let Some(connection) = self.network.find(node, peer) {
                self.network.remove(connection);
                let delay_ms = 2 * self.network.latency_ms(node, peer);
                self.tell_down(peer, node, connection, delay_ms, LinkLoss::Lost);
            }
        }
    }

    /// The receiver's transport gives up; the sender's learns of it if it can.
    pub(super) fn time_out(&mut self, connection: ConnectionId, from: u32) {
        if !self.network.gave_up(connection, from, self.now_ms()) {
            return;
        }
        let Some((ends, _)) = self.network.ends(connection) else { return };
        let to = if ends[0] == from { ends[1] } else { ends[0] };
        self.network.remove(connection);
        self.tell_down(to, from, connection, 0, LinkLoss::Lost);
        let word_gets_back = self.network.barriers.passes(to, from);
        let delay_ms = if word_gets_back { self.network.latency_ms(to, from) } else { 0 };
        self.tell_down(from, to, connection, delay_ms, LinkLoss::Lost);
    }

    // Frames

    pub(super) fn pull(&mut self, node: u32, peer: u32) {
        let (now, now_ms) = (self.now(node), self.now_ms());
        let peer_id = self.hosts[peer as usize].id;
        let Some(connection) = self.network.find(node, peer) else { return };
        let mut flush = Flush::default();
        loop {
            match self.network.room(connection, node, now_ms) {
                Room::Free => {}
                Room::Full => break,
                Room::BusyUntil(at_ms) => {
                    self.queue.add(at_ms, Event::Pull { node, peer });
                    break;
                }
            }
            let Some(bytes) =
                self.hosts[node as usize].node.as_mut().and_then(|node| node.poll_send(now, peer_id, SEND_BUDGET_BYTES))
            else {
                break;
            };
            match &mut self.hosts[node as usize].adversary {
                None => self.send(node, connection, &mut flush, bytes),
                Some(adversary) => {
                    let distorted = adversary.outgoing(peer, bytes);
                    distorted.into_iter().for_each(|bytes| self.send(node, connection, &mut flush, bytes));
                }
            }
        }
        if !flush.is_empty() {
            self.hosts[node as usize].bytes_sent += FLUSH_BYTES;
        }
    }

    fn send(&mut self, node: u32, connection: ConnectionId, flush: &mut Flush, bytes: Vec<u8>) {
        self.hosts[node as usize].bytes_sent += bytes.len() as u64;
        let now_ms = self.now_ms();
        if let Some((at_ms, flight)) = self.network.send(connection, node, flush, bytes, now_ms) {
            self.queue.add(at_ms, Event::Arrive(flight));
        }
    }

    pub(super) fn arrive(&mut self, mut flight: Flight) {
        let (from, to) = (flight.from, flight.to);
        if !self.network.stands(flight.connection) || !self.is_running(to) {
            return;
        }
        if self.network.delivered(&flight) {
            self.queue.add(self.now_ms(), Event::Pull { node: from, peer: to });
        }
        self.garble(&mut flight);
        if let Some(adversary) = &mut self.hosts[to as usize].adversary {
            adversary.incoming(from, &flight.bytes);
        }
        let peer = self.hosts[from as usize].id;
        match wire::decode(&flight.bytes) {
            Ok(frame) => {
                let frame = frame.verify(&self.verifier);
                self.hear(from, to, Input::Frame { peer, frame });
            }
            Err(error) => self.tell(to, Input::BadFrame { peer, error }),
        }
    }

    /// Hands over a frame, and counts the records in it where somebody wants to know.
    fn hear(&mut self, from: u32, to: u32, input: Input) {
        let records = self.verifier.take_heard();
        if records.is_empty() || !self.meter.listens() || !self.hosts[to as usize].is_honest() {
            self.tell(to, input);
            return;
        }
        if let Some(node) = self.hosts[to as usize].node.as_deref().filter(|_| self.meter.counts_copies) {
            for record in &records {
                let held = held_number(node, &record.record.node);
                self.meter.count_copy(held.is_none_or(|held| held < record.stamp().number()));
            }
        }
        self.tell(to, input);
        let arrival = Arrival { from, at: to, now_ms: self.now_ms() };
        for record in &records {
            let Some(origin) = self.numbers.get(&record.record.node).filter(|origin| self.meter.is_under_way(*origin)) else {
                continue;
            };
            if let Some(held) = self.hosts[to as usize].node.as_deref().and_then(|node| held_number(node, &record.record.node)) {
                self.meter.reached(arrival, origin, held);
            }
        }
    }

    /// A broken network card flips a bit of some frames.
    fn garble(&mut self, flight: &mut Flight) {
        let share = self.hosts[flight.to as usize].garbled;
        if share <= 0.0 || flight.bytes.is_empty() {
            return;
        }
        let bits = draw(self.seed, Purpose::Garbling, flight.to.into(), self.now_ms() << 20 | u64::from(flight.from));
        if happens(bits, share) {
            let at = between(bits.rotate_left(32), 0, flight.bytes.len() as u64 * 8 - 1) as usize;
            flight.bytes[at / 8] ^= 1 << (at % 8);
        }
    }

    /// A publication that was asked for counts from the moment its origin holds the new record.
    fn publish_if_signed(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        let Some(before) = host.unsigned else { return };
        let Some(number) = host.own_number().filter(|number| *number > before) else { return };
        host.unsigned = None;
        let running: Vec<bool> = (0..self.nodes() as u32).map(|other| self.is_well(other)).collect();
        let now_ms = self.now_ms();
        self.log.note(now_ms, || format!("node {node} publishes its record {number:?}"));
        self.meter.publish(node, number, now_ms, running.into_iter());
    }

    // Adversaries

    pub(super) fn attack(&mut self, node: u32) {
        let (now, now_ms, seed) = (self.now(node), self.now_ms(), self.seed);
        let peers: Vec<u32> = self.network.peers(node).collect();
        let host = &mut self.hosts[node as usize];
        let Some(mut adversary) = host.adversary.take() else { return };
        let own = host.node.as_deref().and_then(|node| Some(node.mesh().origin(&host.id)?.record.clone()));
        let bits = draw(seed, Purpose::Attack, node.into(), now_ms);
        let scene = Scene { hosts: &self.hosts, me: node, own, now, peers: &peers, bits };
        let attacks = adversary.act(&scene, &mut self.ring);
        self.hosts[node as usize].adversary = Some(adversary);
        for attack in attacks {
            match attack {
                Attack::Dial { to } => {
                    let target = self.hosts[to as usize].id;
                    self.dial(node, &target);
                }
                Attack::Say { to, bytes } => self.say(node, to, bytes),
            }
        }
        let life = self.hosts[node as usize].life;
        self.queue.add(now_ms + ATTACK_EVERY_MS, Event::Attack { node, life });
    }

    /// What an adversary says of its own accord; its own transport bounds it like anyone's.
    fn say(&mut self, node: u32, peer: u32, bytes: Vec<u8>) {
        let Some(connection) = self.network.find(node, peer) else { return };
        let now_ms = self.now_ms();
        if self.network.room(connection, node, now_ms) == Room::Free {
            self.send(node, connection, &mut Flush::default(), bytes);
        }
    }
}

/// An event with numbers in place of ids.
fn spoken(event: &mesh::Event, named: impl Fn(&NodeId) -> String) -> String {
    match event {
        mesh::Event::NodeAlive { node } => format!("that {} is alive", named(node)),
        mesh::Event::NodeSuspected { node } => format!("that it suspects {}", named(node)),
        mesh::Event::NodeDead { node, why } => format!("that {} is dead: {why}", named(node)),
        mesh::Event::Blamed { peer, why } => format!("that {} is to blame: {why}", named(peer)),
        mesh::Event::TableFull { node } => format!("that its table has no room for {}", named(node)),
        other => format!("{other:?}"),
    }
}
