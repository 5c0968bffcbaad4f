//! A growing set of small numbers, one bit each: what a link still has to send costs a bit per origin, whatever happens meanwhile.

/// A set of `u32`, dense from zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    /// Whether `at` was absent.
    pub fn insert(&mut self, at: u32) -> bool {
        let (word, mask) = Self::place(at);
        if self.words.len() <= word {
            self.words.reserve_exact(word + 1 - self.words.len());
            self.words.resize(word + 1, 0);
        }
        let absent = self.words[word] & mask == 0;
        self.words[word] |= mask;
        self.count += usize::from(absent);
        absent
    }

    /// Whether `at` was present.
    pub fn remove(&mut self, at: u32) -> bool {
        let (word, mask) = Self::place(at);
        let present = self.contains(at);
        if present {
            self.words[word] &= !mask;
            self.count -= 1;
        }
        present
    }

    pub fn contains(&self, at: u32) -> bool {
        let (word, mask) = Self::place(at);
        self.words.get(word).is_some_and(|bits| bits & mask != 0)
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    pub fn clear(&mut self) {
        self.words.clear();
        self.count = 0;
    }

    /// The members at or above `from`, in order.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = u32> {
        let (first, _) = Self::place(from);
        self.words
            .iter()
            .enumerate()
            .skip(first)
            .flat_map(|(word, bits)| Members { bits: *bits, base: word as u32 * 64 })
            .filter(move |at| *at >= from)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.iter_from(0)
    }

    /// The smallest member.
    pub fn first(&self) -> Option<u32> {
        self.iter().next()
    }

    /// Takes out the smallest member.
    pub fn pop(&mut self) -> Option<u32> {
        let first = self.first()?;
        self.remove(first);
        Some(first)
    }

    fn place(at: u32) -> (usize, u64) {
        (at as usize / 64, 1 << (at % 64))
    }
}

struct Members {
    bits: u64,
    base: u32,
}

impl Iterator for Members {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.bits == 0 {
            return None;
        }
        let at = self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        Some(self.base + at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u32..300), 0..200), from in 0_u32..300) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (insert, at) in steps {
                let (ours, theirs) = if insert { (bits.insert(at), set.insert(at)) } else { (bits.remove(at), set.remove(&at)) };
                prop_assert_eq!(ours, theirs);
            }
            prop_assert_eq!(bits.is_empty(), set.is_empty());
            prop_assert!(bits.iter().eq(set.iter().copied()));
            prop_assert!(bits.iter_from(from).eq(set.range(from..).copied()));
            prop_assert_eq!(bits.pop(), set.pop_first());
        }
    }
}
