//! Content-addressed things that many records refer to, capability bodies, each held once.
//!
//! Every item has a small number, so that "this peer has it" is one bit of a link. What no record names any more is swept out now and
//! then; numbers are used again only after every link has forgotten them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Items by key, each with a number.
#[derive(Debug)]
pub struct Interned<K, V> {
    index: BTreeMap<K, u32>,
    items: Vec<Option<Arc<V>>>,
    free: Vec<u32>,
    max: usize,
}

impl<K: Ord + Copy, V> Interned<K, V> {
    /// Holds at most `max` items.
    pub fn new(max: usize) -> Self {
        Self { index: BTreeMap::new(), items: Vec::new(), free: Vec::new(), max }
    }

    /// The number of the item, old or new; `None` when there is no room.
    pub fn insert(&mut self, key: K, value: Arc<V>) -> Option<u32> {
        if let Some(number) = self.index.get(&key) {
            return Some(*number);
        }
        if self.index.len() >= self.max {
            return None;
        }
        let number = self.free.pop().unwrap_or(self.items.len() as u32);
        if number as usize == self.items.len() {
            self.items.push(None);
        }
        self.items[number as usize] = Some(value);
        self.index.insert(key, number);
        Some(number)
    }

    pub fn number(&self, key: &K) -> Option<u32> {
        self.index.get(key).copied()
    }

    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.at(self.number(key)?)
    }

    pub fn at(&self, number: u32) -> Option<&Arc<V>> {
        self.items.get(number as usize)?.as_ref()
    }

    pub fn contains(&self, key: &K) -> bool {
        self.index.contains_key(key)
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Lets go of what is not needed and returns the numbers that became free.
    pub fn sweep(&mut self, needed: impl Fn(&K) -> bool) -> Vec<u32> {
        let mut freed = Vec::new();
        self.index.retain(|key, number| {
            let keep = needed(key);
            if !keep {
                freed.push(*number);
            }
            keep
        });
        for number in &freed {
            self.items[*number as usize] = None;
        }
        self.free.extend(&freed);
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reused_and_room_is_bounded() {
        let mut held = Interned::new(2);
        let numbers = [held.insert('a', Arc::new(1)), held.insert('b', Arc::new(2)), held.insert('a', Arc::new(1))];
        assert_eq!(numbers, [Some(0), Some(1), Some(0)]);
        assert_eq!(held.insert('c', Arc::new(3)), None, "full");
        assert_eq!(held.sweep(|key| *key == 'b'), [0]);
        assert_eq!(held.at(0), None);
        assert_eq!(held.insert('c', Arc::new(3)), Some(0));
        assert_eq!((held.get(&'c').map(|value| **value), held.len()), (Some(3), 2));
    }
}
