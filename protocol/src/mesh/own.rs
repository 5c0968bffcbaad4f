//! This node's own record: what it says of itself, when it is signed, and under which incarnation.
//!
//! An incarnation is on disk before anything signed with it leaves, so that a restart never signs a number twice with other contents.

use std::sync::Arc;

use super::vocabulary::{MeshConfig, Now};
use crate::codec;
use crate::config::{
    ADDRESS_BYTES_MAX, INCARNATION_INTERVAL_MS, LABEL_BYTES_MAX, LABELS_MAX, LEASE_MS, NAME_BYTES_MAX, NEIGHBOURS_MAX,
    RECORD_INTERVAL_MS_MIN,
};
use crate::envelope::ENVELOPE_OVERHEAD_BYTES;
use crate::identity::{MeshId, NodeId, NodeKey};
use crate::membership::Roles;
use crate::record::{ADDRESSES_MAX, Announcement, CAPABILITIES_MAX, Mode, NODE_RECORD_BYTES_MAX, NodeRecord, Offered};
use crate::wire::VerifiedChain;

#[derive(Debug)]
pub(super) struct Own {
    key: NodeKey,
    pub id: NodeId,
    pub mesh: MeshId,
    pub chain: Arc<VerifiedChain>,
    name: String,
    mode: Mode,
    labels: Vec<(String, String)>,
    addresses: Vec<String>,
    offered: Vec<Offered>,
    incarnation: u64,
    /// The highest incarnation known to be on disk.
    persisted: u64,
    sequence: u64,
    leaving: bool,
    signed_ms: Option<u64>,
    raised_ms: Option<u64>,
    /// The wall clock when this life began.
    born_ms: u64,
    left_out: usize,
}

/// What a newer record of oneself means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Echo {
    /// An earlier life of this node whose number was lost.
    FormerLife,
    /// Another process lives with this key: it signed this while we lived, or outdoes a number that was raised already.
    SecondHolder,
}

impl Own {
    pub fn new(config: MeshConfig, now: Now) -> Self {
        let mut own = Self {
            id: config.key.id(),
            key: config.key,
            mesh: config.mesh,
            chain: config.chain,
            name: String::new(),
            mode: config.mode,
            labels: Vec::new(),
            addresses: Vec::new(),
            offered: Vec::new(),
            incarnation: (config.stored_incarnation + 1).max(now.wall_ms / 1_000),
            persisted: config.stored_incarnation,
            sequence: 0,
            leaving: false,
            signed_ms: None,
            raised_ms: None,
            born_ms: now.wall_ms,
            left_out: 0,
        };
        own.rename(config.name);
        own.label(config.labels);
        own
    }

    /// Goes on from a record that was signed before.
    pub fn resume(&mut self, record: &NodeRecord, now: Now) {
        self.incarnation = record.incarnation;
        self.persisted = record.incarnation;
        self.sequence = record.sequence;
        self.signed_ms = Some(now.mono_ms);
        self.addresses.clone_from(&record.addresses);
        self.offered.clone_from(&record.capabilities);
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub fn persisted(&mut self, incarnation: u64) {
        self.persisted = self.persisted.max(incarnation);
    }

    pub fn may_sign(&self) -> bool {
        self.persisted >= self.incarnation
    }

    /// When a change made now is signed at the earliest.
    pub fn sign_at_ms(&self, wait_ms: u64, now_ms: u64) -> u64 {
        let earliest = self.signed_ms.map_or(0, |signed| signed + RECORD_INTERVAL_MS_MIN);
        earliest.max(now_ms + wait_ms)
    }

    /// How many capabilities found no room in the record.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    pub fn rename(&mut self, mut name: String) {
        cut(&mut name, NAME_BYTES_MAX);
        self.name = name;
    }

    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    pub fn label(&mut self, mut labels: Vec<(String, String)>) {
        labels.truncate(LABELS_MAX);
        labels.iter_mut().for_each(|(key, value)| {
            cut(key, LABEL_BYTES_MAX);
            cut(value, LABEL_BYTES_MAX);
        });
        self.labels = labels;
    }

    /// Whether the addresses are other than before.
    pub fn address(&mut self, mut addresses: Vec<String>) -> bool {
        addresses.retain(|address| address.len() <= ADDRESS_BYTES_MAX);
        addresses.truncate(ADDRESSES_MAX);
        let changed = self.addresses != addresses;
        self.addresses = addresses;
        changed
    }

    /// Whether the offers are other than before. A node that may not provide offers nothing.
    pub fn offer(&mut self, mut offered: Vec<Offered>) -> bool {
        if !self.chain.member.roles.contains(Roles::PROVIDE) {
            offered.clear();
        }
        offered.sort_by(|a, b| a.slug.cmp(&b.slug));
        offered.dedup_by(|a, b| a.slug == b.slug);
        let changed = self.offered != offered;
        self.offered = offered;
        changed
    }

    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Signs the next record, if the incarnation may be used.
    pub fn sign(&mut self, neighbours: Vec<u64>, now: Now) -> Option<Announcement> {
        if !self.may_sign() {
            return None;
        }
        self.sequence += 1;
        self.signed_ms = Some(now.mono_ms);
        let record = self.fitting(self.record(neighbours, now));
        let sealed = Announcement::seal(record, &self.key);
        Some(sealed.expect("every field was cut to its limit before"))
    }

    /// A newer record of ourselves, or another one with our number, was seen; it was signed at `signed_ms`, unix milliseconds. Chooses a
    /// higher incarnation, which a second holder of the key cannot take for a former life of its own.
    pub fn seen_newer(&mut self, incarnation: u64, signed_ms: u64, now: Now) -> Echo {
        let raised_before = self.raised_ms.is_some_and(|raised| now.mono_ms < raised + INCARNATION_INTERVAL_MS);
        let outdone = raised_before || (self.raised_ms.is_some() && incarnation > self.incarnation);
        let in_our_life = signed_ms > self.born_ms;
        self.raised_ms = Some(now.mono_ms);
        self.incarnation = (incarnation.max(self.incarnation) + 1).max(now.wall_ms / 1_000);
        self.sequence = 0;
        if outdone || in_our_life { Echo::SecondHolder } else { Echo::FormerLife }
    }

    fn record(&self, mut neighbours: Vec<u64>, now: Now) -> NodeRecord {
        neighbours.truncate(NEIGHBOURS_MAX);
        let lease_ms = if self.leaving { 0 } else { LEASE_MS };
        NodeRecord {
            mesh: self.mesh,
            node: self.id,
            certificate: self.chain.hash(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            lease_until_ms: now.wall_ms + lease_ms,
            mode: self.mode,
            name: self.name.clone(),
            labels: self.labels.clone(),
            addresses: self.addresses.clone(),
            neighbours,
            capabilities: if self.leaving { Vec::new() } else { self.offered.clone() },
            extensions: Vec::new(),
        }
    }

    /// Leaves out labels and capabilities, last first, until the record fits.
    fn fitting(&mut self, mut record: NodeRecord) -> NodeRecord {
        let wished = record.capabilities.len();
        record.capabilities.truncate(CAPABILITIES_MAX);
        while codec::encode(&record).len() + ENVELOPE_OVERHEAD_BYTES > NODE_RECORD_BYTES_MAX {
            if record.capabilities.pop().is_none() && record.labels.pop().is_none() {
                record.addresses.pop();
            }
        }
        self.left_out = wished - record.capabilities.len();
        record
    }
}

/// Cuts `text` to at most `bytes`, between characters.
fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}
