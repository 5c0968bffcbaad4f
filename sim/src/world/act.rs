//! What [`Action`]s do.

use std::sync::Arc;

use atmo_capabilities::coordinator::Input;
use atmo_protocol::Revocation;
use atmo_protocol::membership::{Order, Target};

use super::{Event, World};
use crate::action::Action;
use crate::network::TRANSPORT_TIMEOUT_MS;

/// A process that said goodbye ends this much later: time for its last record to leave.
const GOODBYE_MS: u64 = 200;

impl World {
    pub fn act(&mut self, action: &Action) {
        let now_ms = self.now_ms();
        self.log.note(now_ms, || format!("ACTION {action:?}"));
        if !matches!(action, Action::Publish { .. }) {
            self.changed_ms = now_ms;
        }
        match action {
            Action::Publish { node } => self.publish(*node),
            Action::Kill { node } => self.kill(*node),
            Action::Leave { node } => {
                self.tell(*node, Input::Leave);
                self.schedule(now_ms + GOODBYE_MS, Action::Kill { node: *node });
            }
            Action::Revoke { node, by } => self.revoke(*node, *by),
            Action::Restart { node } => self.queue.add(now_ms, Event::Start { node: *node }),
            Action::RestartWithoutDisk { node } => self.restart_without_disk(*node),
            Action::Cut { from, to } => {
                self.network.barriers.cut(*from, *to);
                self.barriers_changed();
            }
            Action::Mend { from, to } => {
                self.network.barriers.mend(*from, *to);
                self.barriers_changed();
            }
            Action::Wall { groups, walls } => self.wall(*groups, walls),
            Action::Heal => {
                self.network.barriers.open_all();
                self.hosts.iter_mut().for_each(|host| host.steady_since_ms = now_ms);
                self.barriers_changed();
            }
            Action::Sleep { node, for_ms } => self.sleep(*node, *for_ms),
            Action::SkewClock { node, by_ms } => {
                self.clocks_jump = true;
                self.hosts[*node as usize].skew_ms += by_ms;
            }
            Action::Slow { node, every_ms } => self.hosts[*node as usize].slow_ms = (*every_ms).max(1),
            Action::Uplink { node, mbit_s } => self.network.set_uplink(*node, *mbit_s),
            Action::Lose { share } => self.network.shape.loss = *share,
        }
    }

    fn publish(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        // A node that has not signed anything yet publishes with its first record.
        host.unsigned = Some(host.own_number().unwrap_or_default());
        let text = self.now_ms().to_string();
        self.tell(node, Input::Labels(vec![("published".to_owned(), text)]));
    }

    fn revoke(&mut self, node: u32, by: u32) {
        let now_ms = self.now_ms();
        let order = Order {
            target: Target::Key(self.hosts[node as usize].id),
            number: self.hosts.iter().filter(|host| host.revoked_ms.is_some()).count() as u64 + 1,
            issued_ms: self.now(by).wall_ms,
            until_ms: u64::MAX,
            spared: Vec::new(),
            honoured: Vec::new(),
            name: self.hosts[node as usize].name(),
            by: self.hosts[by as usize].name(),
        };
        let revocation = Revocation::by_root(&self.root, order).expect("an order within every limit");
        self.hosts[node as usize].revoked_ms = Some(now_ms);
        self.meter.excuse(node);
        self.tell(by, Input::Revoke(vec![Arc::new(revocation)]));
    }

    fn kill(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        host.newest_before = host.newest_before.max(host.own_number());
        if host.node.take().is_none() {
            return;
        }
        host.wake_ms = None;
        self.network.barriers.set_asleep(node, false);
        self.postponed.retain(|(sleeper, _)| *sleeper != node);
        self.meter.excuse(node);
        self.abandon_connections(node);
    }

    fn restart_without_disk(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        if host.node.is_none() {
            host.stored_incarnation = 0;
            host.book.clear();
            self.queue.add(self.now_ms(), Event::Start { node });
        }
    }

    fn wall(&mut self, groups: u8, walls: &[(u8, u8)]) {
        let sides = (0..self.nodes()).map(|node| (node % usize::from(groups.max(1))) as u8).collect();
        self.network.barriers.wall(sides, walls.iter().copied());
        self.barriers_changed();
    }

    fn sleep(&mut self, node: u32, for_ms: u64) {
        if !self.is_running(node) || self.network.barriers.is_asleep(node) {
            return;
        }
        self.network.barriers.set_asleep(node, true);
        self.meter.excuse(node);
        self.barriers_changed();
        self.queue.add(self.now_ms() + for_ms, Event::Awake { node });
    }

    pub(super) fn awake(&mut self, node: u32) {
        if !self.network.barriers.is_asleep(node) {
            return;
        }
        let now_ms = self.now_ms();
        self.log.note(now_ms, || format!("node {node} wakes up"));
        self.changed_ms = now_ms;
        self.network.barriers.set_asleep(node, false);
        self.hosts[node as usize].steady_since_ms = now_ms;
        let (waited, others) = std::mem::take(&mut self.postponed).into_iter().partition(|(sleeper, _)| *sleeper == node);
        self.postponed = others;
        waited.into_iter().for_each(|(_, event)| self.queue.add(now_ms, event));
        self.barriers_changed();
    }

    fn barriers_changed(&mut self) {
        let now_ms = self.now_ms();
        let changed = self.network.barriers_changed(now_ms);
        for (connection, from) in changed.stopped {
            self.queue.add(now_ms + TRANSPORT_TIMEOUT_MS, Event::TimeOut { connection, from });
        }
        for (at_ms, flight) in changed.freed {
            self.queue.add(at_ms, Event::Arrive(flight));
        }
    }
}
