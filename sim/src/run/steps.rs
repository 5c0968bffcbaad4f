//! What each [`Step`] does and measures.

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Run, STEP_MS};
use crate::action::Action;
use crate::checks;
use crate::host::held_number;
use crate::meter::Arrival;
use crate::scenario::Step;

/// Kills and deaths that are timed at once, and observers that are asked: enough for a percentile.
const TIMED_MAX: usize = 64;
const ASKED_MAX: usize = 1_000;
/// How often they are asked.
const ASK_MS: u64 = 50;
/// The share of live nodes that may still route to a dead one when it counts as gone.
const STRAGGLERS: f64 = 0.01;
/// One node does not publish more often: an origin may change its record twice a second.
const PUBLISH_EVERY_MS: u64 = 600;
/// A publication must have reached everyone after this long.
const DELIVERED_MS_MAX: u64 = 15_000;
/// How often nodes that are not known to have a publication are asked for it.
const RECHECK_MS: u64 = 1_000;
/// How often it is looked whether everything has been delivered.
const LOOK_MS: u64 = 50;

impl Run<'_> {
    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Form { within_ms } => self.form(within_ms),
            Step::Wait { for_ms } => self.advance(for_ms),
            Step::Steady { for_ms } => self.count_bytes(|run| run.advance(for_ms)),
            Step::Publish { count, every_ms } => self.publish(count, every_ms),
            Step::Kill { share, within_ms } => self.kill_some(share, within_ms),
            Step::Converge { within_ms, heal } => self.converge(within_ms, heal),
            Step::Restart { over_ms, disk } => self.restart(over_ms, disk),
            Step::Revoke { share, within_ms, heal_after_ms } => self.revoke_some(share, within_ms, heal_after_ms),
            Step::Roll { share, every_ms, down_ms, politely } => self.roll(share, every_ms, down_ms, politely),
            Step::Wall { groups, ref walls } => self.world.act(&Action::Wall { groups, walls: walls.clone() }),
            Step::Cut { count, one_way } => self.cut(count, one_way),
            Step::Heal => self.world.act(&Action::Heal),
            Step::Churn { per_s, down_ms, for_ms, publish_every_ms } => {
                self.count_bytes(|run| run.churn(per_s, down_ms, for_ms, publish_every_ms));
                self.advance(down_ms + 1);
                self.await_delivery();
            }
            Step::Join { over_ms } => self.join(over_ms),
            Step::Flap { count, times, down_ms, up_ms } => self.flap(count, times, down_ms, up_ms),
            Step::Sleep { share, for_ms } => self.do_to(share, |node| Action::Sleep { node, for_ms }),
            Step::Skew { share, by_ms } => self.do_to(share, |node| Action::SkewClock { node, by_ms }),
            Step::Slow { share, every_ms } => self.do_to(share, |node| Action::Slow { node, every_ms }),
            Step::Uplink { share, mbit_s } => self.do_to(share, |node| Action::Uplink { node, mbit_s }),
            Step::Hot { share, every_ms, for_ms } => self.count_bytes(|run| run.run_hot(share, every_ms, for_ms)),
            Step::Lose { share } => self.world.act(&Action::Lose { share }),
        }
    }

    fn do_to(&mut self, share: f64, action: impl Fn(u32) -> Action) {
        self.some(share).into_iter().for_each(|node| self.world.act(&action(node)));
    }

    fn form(&mut self, within_ms: u64) {
        self.advance(self.scenario.hosts.start_over_ms + 1);
        self.report.formed_ms = self.settle(within_ms).map(|_| self.world.now_ms() - self.world.changed_ms);
    }

    fn converge(&mut self, within_ms: u64, heal: bool) {
        // What was true before the change is not what is waited for.
        self.advance(STEP_MS);
        let settled_ms = self.settle(within_ms).map(|_| self.world.now_ms() - self.world.changed_ms);
        if heal {
            self.report.heal_ms = self.report.heal_ms.max(settled_ms);
        }
    }

    // Publications

    fn publish(&mut self, count: usize, every_ms: u64) {
        self.world.meter.counts_copies = true;
        let every_ms = every_ms.max(PUBLISH_EVERY_MS / self.world.well().len().max(1) as u64);
        let mut begun = 0;
        while begun < count {
            begun += usize::from(self.publish_one());
            self.advance(every_ms);
        }
        self.await_delivery();
        self.world.meter.counts_copies = false;
    }

    /// Whether somebody could be found who is not about to publish already.
    fn publish_one(&mut self) -> bool {
        let Some(node) = self.someone() else { return false };
        let is_free = self.world.hosts[node as usize].unsigned.is_none() && !self.world.meter.is_under_way(node);
        if is_free {
            self.world.act(&Action::Publish { node });
        }
        is_free
    }

    fn await_delivery(&mut self) {
        let begun_ms = self.world.now_ms();
        self.advance(PUBLISH_EVERY_MS);
        while !self.world.meter.undelivered().is_empty() && self.world.now_ms() < begun_ms + DELIVERED_MS_MAX {
            self.advance(LOOK_MS);
            if (self.world.now_ms() - begun_ms).is_multiple_of(RECHECK_MS) {
                self.recheck_delivery();
            }
        }
        for (origin, number, lacking) in self.world.meter.undelivered() {
            let took_ms = self.world.now_ms() - begun_ms;
            self.world.violate(format!(
                "all live, connected nodes converge: after {took_ms} ms node {lacking} lacks record {number:?} of {origin}"
            ));
            self.world.meter.excuse(origin);
        }
    }

    /// A record that waited for its certificate counts without a push of its own.
    fn recheck_delivery(&mut self) {
        let now_ms = self.world.now_ms();
        for (origin, ..) in self.world.meter.undelivered() {
            let id = self.world.hosts[origin as usize].id;
            for at in self.world.meter.lacking(origin) {
                let held = self.world.hosts[at as usize].node.as_deref().and_then(|node| held_number(node, &id));
                if let Some(held) = held {
                    self.world.meter.reached(Arrival { from: origin, at, now_ms }, origin, held);
                }
            }
        }
    }

    // Deaths

    fn kill_some(&mut self, share: f64, within_ms: u64) {
        let victims = self.some(share);
        victims.iter().for_each(|node| self.kill(*node));
        let mut asked = self.world.well();
        asked.shuffle(&mut self.world.rng);
        asked.truncate(ASKED_MAX);
        let stragglers = (asked.len() as f64 * STRAGGLERS) as usize;
        let begun_ms = self.world.now_ms();
        let mut timed: Vec<(u32, Vec<u32>)> = victims.into_iter().take(TIMED_MAX).map(|node| (node, asked.clone())).collect();
        while !timed.is_empty() && self.world.now_ms() <= begun_ms + within_ms {
            self.advance(ASK_MS);
            let took_ms = self.world.now_ms() - begun_ms;
            timed.retain_mut(|(dead, showing)| !self.is_gone(*dead, showing, &asked, stragglers, took_ms));
        }
        for (dead, showing) in timed {
            let (who, count) = (showing.first().copied().unwrap_or_default(), showing.len());
            self.world.violate(format!(
                "no route points at the dead: after {within_ms} ms {count} nodes, {who} among them, route to {dead}"
            ));
        }
    }

    /// Whether nearly nobody routes to a dead node any more; those who did when last asked are asked again, and all of them in the end.
    fn is_gone(&mut self, dead: u32, showing: &mut Vec<u32>, asked: &[u32], stragglers: usize, took_ms: u64) -> bool {
        showing.retain(|observer| checks::routes_to(&self.world, *observer, dead));
        if showing.len() > stragglers {
            return false;
        }
        showing.clear();
        showing.extend(asked.iter().filter(|observer| checks::routes_to(&self.world, **observer, dead)));
        let gone = showing.len() <= stragglers;
        if gone {
            self.report.dead_removed_ms.add(took_ms);
        }
        gone
    }

    fn revoke_some(&mut self, share: f64, within_ms: u64, heal_after_ms: Option<u64>) {
        let mut revoked = self.some(share);
        for node in revoked.clone() {
            let Some(by) = self.well_but(&revoked) else { return };
            self.world.act(&Action::Revoke { node, by });
        }
        if let Some(after_ms) = heal_after_ms {
            self.advance(after_ms);
            self.world.act(&Action::Heal);
            revoked.iter().for_each(|node| self.world.hosts[*node as usize].revoked_ms = Some(self.world.now_ms()));
        }
        let begun_ms = self.world.now_ms();
        while !revoked.is_empty() && self.world.now_ms() <= begun_ms + within_ms {
            self.advance(ASK_MS);
            let took_ms = self.world.now_ms() - begun_ms;
            let (gone, left) = revoked.into_iter().partition::<Vec<u32>, _>(|node| checks::is_forgotten(&self.world, *node));
            gone.iter().for_each(|_| self.report.revoked_gone_ms.add(took_ms));
            revoked = left;
        }
        for node in revoked {
            self.world.violate(format!("nobody revoked is known: after {within_ms} ms somebody still knows {node}"));
        }
    }

    /// A random node that is well and none of these.
    fn well_but(&mut self, nodes: &[u32]) -> Option<u32> {
        let others: Vec<u32> = self.world.well().into_iter().filter(|node| !nodes.contains(node)).collect();
        others.choose(&mut self.world.rng).copied()
    }

    fn restart(&mut self, over_ms: u64, disk: bool) {
        let dead: Vec<u32> = std::mem::take(&mut self.dead).into_iter().map(|(node, _)| node).collect();
        let now_ms = self.world.now_ms();
        for node in dead {
            let at_ms = now_ms + self.world.rng.random_range(0..=over_ms);
            let action = if disk { Action::Restart { node } } else { Action::RestartWithoutDisk { node } };
            self.world.schedule(at_ms, action);
        }
        self.advance(over_ms);
    }

    fn roll(&mut self, share: f64, every_ms: u64, down_ms: u64, politely: bool) {
        for node in self.some(share) {
            let now_ms = self.world.now_ms();
            self.world.act(&if politely { Action::Leave { node } } else { Action::Kill { node } });
            self.world.schedule(now_ms + down_ms, Action::Restart { node });
            self.advance(every_ms);
        }
        self.advance(down_ms);
    }

    fn churn(&mut self, per_s: f64, down_ms: u64, for_ms: u64, publish_every_ms: u64) {
        let begun_ms = self.world.now_ms();
        let every_ms = (1_000.0 / (per_s * self.world.nodes() as f64)).max(1.0) as u64;
        let (mut kill_at_ms, mut publish_at_ms) = (begun_ms + every_ms, begun_ms);
        while self.world.now_ms() < begun_ms + for_ms {
            let now_ms = self.world.now_ms();
            if now_ms >= publish_at_ms {
                self.publish_one();
                publish_at_ms += publish_every_ms;
            }
            if now_ms >= kill_at_ms
                && let Some(node) = self.someone()
            {
                self.world.act(&Action::Kill { node });
                self.world.schedule(now_ms + down_ms, Action::Restart { node });
                kill_at_ms += every_ms;
            }
            let next_ms = kill_at_ms.min(publish_at_ms).min(begun_ms + for_ms);
            self.advance(next_ms.saturating_sub(now_ms).max(1));
        }
    }

    fn join(&mut self, over_ms: u64) {
        let now_ms = self.world.now_ms();
        let waiting: Vec<u32> =
            (0..self.world.nodes() as u32).filter(|node| self.world.hosts[*node as usize].life == 0).collect();
        for node in waiting {
            let at_ms = now_ms + self.world.rng.random_range(0..=over_ms);
            self.world.schedule(at_ms, Action::Restart { node });
        }
        self.advance(over_ms);
    }

    // Links

    /// Random connections that stand.
    fn some_links(&mut self, count: usize) -> Vec<(u32, u32)> {
        let mut links: Vec<(u32, u32)> = self.world.network.connections().map(|(_, [a, b])| (a, b)).collect();
        links.sort_unstable();
        links.shuffle(&mut self.world.rng);
        links.truncate(count);
        links
    }

    fn cut(&mut self, count: usize, one_way: bool) {
        for (from, to) in self.some_links(count) {
            self.world.act(&Action::Cut { from, to });
            if !one_way {
                self.world.act(&Action::Cut { from: to, to: from });
            }
        }
    }

    fn flap(&mut self, count: usize, times: usize, down_ms: u64, up_ms: u64) {
        let links = self.some_links(count);
        for _ in 0..times {
            for (from, to) in links.iter().copied() {
                self.world.act(&Action::Cut { from, to });
                self.world.act(&Action::Cut { from: to, to: from });
            }
            self.advance(down_ms);
            for (from, to) in links.iter().copied() {
                self.world.act(&Action::Mend { from, to });
                self.world.act(&Action::Mend { from: to, to: from });
            }
            self.advance(up_ms);
        }
    }

    fn run_hot(&mut self, share: f64, every_ms: u64, for_ms: u64) {
        let hot = self.some(share);
        hot.iter().for_each(|node| self.world.blamable[*node as usize] = true);
        let until_ms = self.world.now_ms() + for_ms;
        while self.world.now_ms() < until_ms {
            hot.iter().for_each(|node| self.world.act(&Action::Publish { node: *node }));
            self.advance(every_ms);
        }
        self.advance(PUBLISH_EVERY_MS);
        hot.iter().for_each(|node| self.world.meter.excuse(*node));
    }
}
