//! The effects that nodes ask for, and what they say of themselves that they should not have to.

use atmo_capabilities::coordinator::{Input, Output};
use atmo_protocol::NodeId;
use atmo_protocol::config::ADDRESS_BOOK_MAX;
use atmo_protocol::mesh;

use super::{Event, World};

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
            mesh::Output::Revocations(set) => self.hosts[node as usize].revocations = set.all().cloned().collect(),
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
