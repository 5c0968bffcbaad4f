//! Who is alive, by evidence: own silence, no path, and what neighbours say.
//!
//! After SWIM and its Lifeguard extensions (Das 2002; Dadgar 2018): suspicion first, death only when it was not refuted for
//! [`DEATH_AFTER_MS`]. A suspicion takes a node out of what is listed as there, at once, but not out of the candidates: routing counts
//! half of what it would be worth, so it answers only where nothing better can, and a lost packet costs nobody a request. Death takes
//! it out, and so does having no path, suspected or not. A suspicion comes from this node's own link, or from distances: a killed node's
//! neighbours all lose it, so within one hold no path to it is left anywhere. One neighbour's word alone never makes anybody
//! suspected or dead; a majority of the neighbours that the accused itself names makes it dead. Any newer signed record clears
//! silence and accusations.
//!
//! A death of which others know too is *confirmed*: from then on nothing but a newer record of the node, or a link to it, revives it. A
//! path alone does not, so that nobody brings back the dead by offering one; whoever offers it is asked for that newer record.
//!
//! State is kept for nodes under suspicion alone. Probes belong to links, and the doubt of a slow observer to the mesh.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{ACCUSATION_INTERVAL_MS, ACCUSERS_MAX, ASK_INTERVAL_MS_MAX, DEATH_AFTER_MS, DOUBT_AGE_MS};
use crate::gradient::{Slot, Standing};
use crate::identity::NodeId;
use crate::mesh::DeathCause;

/// Evidence against every node that there is any against.
#[derive(Clone, Debug, Default)]
pub struct Suspicions {
    nodes: BTreeMap<Slot, Suspicion>,
    /// When each is to be looked at next.
    due: BTreeSet<(u64, Slot)>,
}

/// Evidence against one node; times are monotonic milliseconds.
#[derive(Clone, Debug, Default)]
struct Suspicion {
    silent_since: Option<u64>,
    unreachable_since: Option<u64>,
    accusers: BTreeMap<NodeId, u64>,
    /// When it was last told, by us or through us, that it is accused.
    told_at: Option<u64>,
    /// It was dialled because somebody accuses it.
    dialled: bool,
    confirmed: Option<Confirmed>,
    /// When it was last looked at, and when it is next.
    judged_ms: u64,
    due_ms: Option<u64>,
}

/// A death that only a newer record undoes.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    cause: DeathCause,
    /// When to ask those who offer a way, and how long after the last time.
    ask_at_ms: Option<u64>,
    asked_ms: u64,
    pause_ms: u64,
}

impl Suspicion {
    fn is_over(&self) -> bool {
        let silent = self.silent_since.is_some() || self.unreachable_since.is_some();
        !silent && self.accusers.is_empty() && self.confirmed.is_none()
    }

    /// There is a way to it nevertheless.
    fn is_contested(&self) -> bool {
        self.unreachable_since.is_none() && self.confirmed.is_none()
    }

    fn accused_since(&self) -> Option<u64> {
        self.accusers.values().min().copied()
    }

    /// When to see for oneself.
    fn dial_at(&self) -> Option<u64> {
        let is_open = self.is_contested() && !self.dialled && self.silent_since.is_none();
        self.accused_since().filter(|_| is_open).map(|since| since + DOUBT_AGE_MS)
    }

    /// The next moment at which something may change or is to be said again.
    fn next_ms(&self) -> Option<u64> {
        let deaths = [self.silent_since, self.unreachable_since, self.accused_since()].map(|since| Some(since? + DEATH_AFTER_MS));
        let asks = self.confirmed.and_then(|confirmed| confirmed.ask_at_ms);
        let once = deaths.into_iter().chain([asks]).flatten().filter(|at_ms| *at_ms > self.judged_ms);
        let accuses = self.silent_since.filter(|_| self.is_contested());
        let again = [self.dial_at(), accuses].into_iter().flatten();
        let again = again.map(|at_ms| if at_ms > self.judged_ms { at_ms } else { self.judged_ms + ACCUSATION_INTERVAL_MS });
        once.chain(again).min()
    }
}

impl Suspicions {
    /// Our own link to the node went silent or broke.
    pub fn silent(&mut self, slot: Slot, now_ms: u64) {
        self.add(slot, |suspicion| _ = suspicion.silent_since.get_or_insert(now_ms));
    }

    /// The node was heard, or a newer record of it: silence and what others say are refuted.
    pub fn refuted(&mut self, slot: Slot) {
        self.amend(slot, |suspicion| {
            suspicion.silent_since = None;
            suspicion.accusers.clear();
            suspicion.dialled = false;
            suspicion.confirmed = None;
        });
    }

    /// Whether there is a path to the node. Where there was none for long, nothing that was said before says anything more.
    pub fn reachable(&mut self, slot: Slot, reachable: bool, now_ms: u64) {
        if !reachable {
            self.add(slot, |suspicion| _ = suspicion.unreachable_since.get_or_insert(now_ms));
            return;
        }
        self.amend(slot, |suspicion| {
            if suspicion.unreachable_since.take().is_some_and(|since| now_ms >= since + DEATH_AFTER_MS) {
                suspicion.silent_since = None;
                suspicion.accusers.clear();
            }
        });
    }

    /// A linked peer says that it hears nothing of the node.
    pub fn accused(&mut self, slot: Slot, by: NodeId, now_ms: u64) {
        self.add(slot, |suspicion| {
            if suspicion.accusers.len() < ACCUSERS_MAX {
                suspicion.accusers.entry(by).or_insert(now_ms);
            }
        });
    }

    /// Whether the accused may be told (again) now; counts as told.
    pub fn may_tell(&mut self, slot: Slot, now_ms: u64) -> bool {
        let Some(suspicion) = self.nodes.get_mut(&slot) else { return false };
        let may = suspicion.told_at.is_none_or(|told| now_ms >= told + ACCUSATION_INTERVAL_MS);
        if may {
            suspicion.told_at = Some(now_ms);
        }
        may
    }

    /// Others know of the death too.
    pub fn confirm(&mut self, slot: Slot, cause: DeathCause) {
        let confirmed = Confirmed { cause, ask_at_ms: None, asked_ms: 0, pause_ms: 0 };
        self.add(slot, |suspicion| _ = suspicion.confirmed.get_or_insert(confirmed));
    }

    pub fn is_confirmed(&self, slot: Slot) -> bool {
        self.nodes.get(&slot).is_some_and(|suspicion| suspicion.confirmed.is_some())
    }

    /// Somebody offers a way to a node whose death is confirmed: it is to be asked, at once or a while after the last time.
    pub fn ask_soon(&mut self, slot: Slot, now_ms: u64) {
        self.amend(slot, |suspicion| {
            if let Some(confirmed) = suspicion.confirmed.as_mut() {
                confirmed.ask_at_ms.get_or_insert((now_ms + 1).max(confirmed.asked_ms + confirmed.pause_ms));
            }
        });
    }

    /// Whether it is time to ask those who offer a way to a node whose death is confirmed, and was before; counts as asked.
    pub fn take_ask(&mut self, slot: Slot, now_ms: u64) -> Option<bool> {
        let mut asked_before = None;
        self.amend(slot, |suspicion| {
            let Some(confirmed) = suspicion.confirmed.as_mut() else { return };
            if confirmed.ask_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                let pause_ms = (confirmed.pause_ms * 2).clamp(ACCUSATION_INTERVAL_MS, ASK_INTERVAL_MS_MAX);
                *confirmed = Confirmed { ask_at_ms: None, asked_ms: now_ms, pause_ms, ..*confirmed };
                asked_before = Some(pause_ms > ACCUSATION_INTERVAL_MS);
            }
        });
        asked_before
    }

    /// Whether somebody accuses the node and it did not refute that, although there is a way to it: it is to be dialled.
    pub fn is_to_be_dialled(&self, slot: Slot, now_ms: u64) -> bool {
        self.nodes.get(&slot).and_then(Suspicion::dial_at).is_some_and(|at_ms| at_ms <= now_ms)
    }

    pub fn dialled(&mut self, slot: Slot) {
        self.amend(slot, |suspicion| suspicion.dialled = true);
    }

    /// The accused was dialled and did not answer, nor did it refute anything meanwhile.
    pub fn is_convicted(&self, slot: Slot) -> bool {
        self.nodes.get(&slot).is_some_and(|suspicion| suspicion.dialled && !suspicion.accusers.is_empty())
    }

    /// Whether we ourselves hear nothing of the node although others say there is a path: it is to be told.
    pub fn is_to_be_accused(&self, slot: Slot) -> bool {
        self.nodes.get(&slot).is_some_and(|suspicion| suspicion.silent_since.is_some() && suspicion.is_contested())
    }

    /// The standing that the evidence amounts to. `neighbours` are the short ids that the node's own record names, `me` is ours.
    pub fn standing(&self, slot: Slot, neighbours: &[u64], me: u64, now_ms: u64) -> Standing {
        let Some(suspicion) = self.nodes.get(&slot) else { return Standing::Alive };
        let lasted = |since: Option<u64>| since.is_some_and(|since| now_ms >= since + DEATH_AFTER_MS);
        if let Some(confirmed) = suspicion.confirmed {
            Standing::Dead(confirmed.cause)
        } else if lasted(suspicion.unreachable_since) {
            Standing::Dead(DeathCause::Unreachable)
        } else if lasted(suspicion.silent_since) {
            Standing::Dead(DeathCause::Silent)
        } else if lasted(suspicion.accused_since()) && suspicion.condemned(neighbours, me) {
            Standing::Dead(DeathCause::Accused)
        } else if suspicion.silent_since.is_some() || suspicion.unreachable_since.is_some() {
            Standing::Suspected
        } else {
            Standing::Alive
        }
    }

    /// When [`Suspicions::take_due`] next has something.
    pub fn next_ms(&self) -> Option<u64> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }

    /// Nodes whose standing may have changed by now, or of whom something is to be said again.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<Slot> {
        let due: Vec<Slot> = self.due.iter().take_while(|(at_ms, _)| *at_ms <= now_ms).map(|(_, slot)| *slot).collect();
        for slot in &due {
            self.amend(*slot, |suspicion| suspicion.judged_ms = now_ms);
        }
        due
    }

    pub fn forget(&mut self, slot: Slot) {
        if let Some(due_ms) = self.nodes.remove(&slot).and_then(|suspicion| suspicion.due_ms) {
            self.due.remove(&(due_ms, slot));
        }
    }

    fn add(&mut self, slot: Slot, change: impl FnOnce(&mut Suspicion)) {
        self.nodes.entry(slot).or_default();
        self.amend(slot, change);
    }

    fn amend(&mut self, slot: Slot, change: impl FnOnce(&mut Suspicion)) {
        let Some(suspicion) = self.nodes.get_mut(&slot) else { return };
        change(suspicion);
        let next_ms = suspicion.next_ms();
        if next_ms != suspicion.due_ms {
            suspicion.due_ms.into_iter().for_each(|due_ms| _ = self.due.remove(&(due_ms, slot)));
            next_ms.into_iter().for_each(|next_ms| _ = self.due.insert((next_ms, slot)));
            suspicion.due_ms = next_ms;
        }
        if suspicion.is_over() {
            self.forget(slot);
        }
    }
}

impl Suspicion {
    /// Whether more than half of the named neighbours accuse, this node counted where its own link is silent.
    fn condemned(&self, neighbours: &[u64], me: u64) -> bool {
        let ours = self.silent_since.map(|_| me);
        let accusers = self.accusers.keys().map(short_number).chain(ours);
        let named = accusers.filter(|accuser| neighbours.contains(accuser)).count();
        !neighbours.is_empty() && named * 2 > neighbours.len()
    }
}

/// The first eight bytes of an id, as records name neighbours.
pub fn short_number(id: &NodeId) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: Slot = Slot(7);

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn standing(suspicions: &Suspicions, now_ms: u64) -> Standing {
        let neighbours: Vec<u64> = (1..=3).map(|n| short_number(&id(n))).collect();
        suspicions.standing(X, &neighbours, short_number(&id(9)), now_ms)
    }

    #[test]
    fn silence_suspects_at_once_and_kills_later() {
        let mut suspicions = Suspicions::default();
        suspicions.silent(X, 100);
        assert_eq!(standing(&suspicions, 100), Standing::Suspected);
        assert_eq!(standing(&suspicions, 100 + DEATH_AFTER_MS), Standing::Dead(DeathCause::Silent));
        suspicions.refuted(X);
        assert_eq!(standing(&suspicions, 9_999), Standing::Alive);
        assert_eq!(suspicions.next_ms(), None);
    }

    #[test]
    fn one_accuser_removes_nobody_and_a_majority_does() {
        let mut suspicions = Suspicions::default();
        suspicions.accused(X, id(1), 0);
        suspicions.accused(X, id(8), 0);
        assert_eq!(standing(&suspicions, 60_000), Standing::Alive, "one neighbour and a stranger to it");
        suspicions.accused(X, id(2), 10);
        assert_eq!(standing(&suspicions, DEATH_AFTER_MS - 1), Standing::Alive);
        assert_eq!(standing(&suspicions, DEATH_AFTER_MS), Standing::Dead(DeathCause::Accused));
    }

    #[test]
    fn a_path_that_returns_after_a_partition_revives() {
        let mut suspicions = Suspicions::default();
        suspicions.silent(X, 0);
        suspicions.reachable(X, false, 10);
        assert_eq!(standing(&suspicions, 5_000), Standing::Dead(DeathCause::Unreachable));
        suspicions.reachable(X, true, 5_000);
        assert_eq!(standing(&suspicions, 5_000), Standing::Alive);
        suspicions.silent(X, 6_000);
        suspicions.reachable(X, false, 6_000);
        suspicions.reachable(X, true, 6_100);
        assert_eq!(
            standing(&suspicions, 6_100),
            Standing::Suspected,
            "what others still believe does not outweigh our own silence"
        );
    }

    #[test]
    fn the_accused_is_told_once_in_a_while() {
        let mut suspicions = Suspicions::default();
        suspicions.accused(X, id(1), 0);
        let told: Vec<u64> = (0..3_000).step_by(100).filter(|now| suspicions.may_tell(X, *now)).collect();
        assert_eq!(told, [0, 1_000, 2_000]);
    }
}
