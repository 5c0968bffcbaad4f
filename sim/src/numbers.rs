//! Which number a node has in this world, by its id.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use atmo_protocol::NodeId;

#[derive(Debug, Default)]
pub struct Numbers(HashMap<NodeId, u32, BuildHasherDefault<FirstBytes>>);

impl Numbers {
    pub fn get(&self, id: &NodeId) -> Option<u32> {
        self.0.get(id).copied()
    }
}

impl FromIterator<(NodeId, u32)> for Numbers {
    fn from_iter<I: IntoIterator<Item = (NodeId, u32)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Ids are public keys, so their first bytes are hash enough.
#[derive(Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
