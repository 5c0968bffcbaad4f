//! What keeps nodes apart: cut pairs, walls between groups, sleep, and address translation that lets nobody dial in.
//!
//! Everything here is directed: a cut may swallow what `a` says to `b` while `b` is heard by `a`.

use std::collections::BTreeSet;

/// How a node can be dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Nat {
    #[default]
    Open,
    /// Only those of the same house can dial in.
    House(u16),
    /// Nobody can dial in.
    Closed,
}

#[derive(Debug)]
pub struct Barriers {
    cuts: BTreeSet<(u32, u32)>,
    /// The group of each node.
    sides: Vec<u8>,
    /// From group to group.
    walls: BTreeSet<(u8, u8)>,
    asleep: Vec<bool>,
    nat: Vec<Nat>,
}

impl Barriers {
    pub fn new(nodes: usize) -> Self {
        Self {
            cuts: BTreeSet::new(),
            sides: vec![0; nodes],
            walls: BTreeSet::new(),
            asleep: vec![false; nodes],
            nat: vec![Nat::Open; nodes],
        }
    }

    /// Whether packets get from one node to another.
    pub fn passes(&self, from: u32, to: u32) -> bool {
        !self.asleep[from as usize] && !self.asleep[to as usize] && self.is_open(from, to)
    }

    /// As [`Barriers::passes`], were everyone awake.
    pub fn is_open(&self, from: u32, to: u32) -> bool {
        let walled = !self.walls.is_empty() && self.walls.contains(&(self.side(from), self.side(to)));
        !walled && (self.cuts.is_empty() || !self.cuts.contains(&(from, to)))
    }

    /// Whether `from` may open a connection to `to`.
    pub fn may_dial(&self, from: u32, to: u32) -> bool {
        let admits = match self.nat[to as usize] {
            Nat::Open => true,
            house @ Nat::House(_) => self.nat[from as usize] == house,
            Nat::Closed => false,
        };
        admits && self.passes(from, to) && self.passes(to, from)
    }

    pub fn side(&self, node: u32) -> u8 {
        self.sides[node as usize]
    }

    /// Whether two groups see each other both ways.
    pub fn sides_join(&self, a: u8, b: u8) -> bool {
        a == b || !(self.walls.contains(&(a, b)) || self.walls.contains(&(b, a)))
    }

    pub fn stands_open(&self) -> bool {
        self.cuts.is_empty() && self.walls.is_empty()
    }

    pub fn is_asleep(&self, node: u32) -> bool {
        self.asleep[node as usize]
    }

    pub fn set_asleep(&mut self, node: u32, asleep: bool) {
        self.asleep[node as usize] = asleep;
    }

    pub fn set_nat(&mut self, node: u32, nat: Nat) {
        self.nat[node as usize] = nat;
    }

    pub fn cut(&mut self, from: u32, to: u32) {
        self.cuts.insert((from, to));
    }

    pub fn mend(&mut self, from: u32, to: u32) {
        self.cuts.remove(&(from, to));
    }

    /// Puts walls between groups.
    pub fn wall(&mut self, sides: Vec<u8>, walls: impl IntoIterator<Item = (u8, u8)>) {
        self.sides = sides;
        self.walls = walls.into_iter().collect();
    }

    /// Takes every wall and cut away.
    pub fn open_all(&mut self) {
        self.walls.clear();
        self.cuts.clear();
    }
}
