//! A [`NodeRecord`] together with the signed bytes it came in.
//!
//! The bytes are what is kept, compared and passed on; the decoded record is a reading of them. Both are immutable and shared by `Arc`, so
//! that every link, table and (in a simulation) node that knows a record knows the same allocation.

use std::sync::Arc;

use crate::config::{ADDRESS_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, NEIGHBOURS_MAX};
use crate::envelope::{Envelope, EnvelopeError, kind};
use crate::identity::{MeshId, NodeKey};
use crate::record::{ADDRESSES_MAX, CAPABILITIES_MAX, NODE_RECORD_BYTES_MAX, NodeRecord};
use crate::wire::{Blob, Stamp};

/// The version of [`NodeRecord`] that this code writes.
const RECORD_VERSION: u8 = 1;

/// A signed record whose signature holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Announcement {
    pub record: NodeRecord,
    pub bytes: Blob,
    /// Of its [`Stamp`], for range sums.
    pub fingerprint: u128,
}

/// Why bytes are no usable record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("the signature over a node record does not hold")]
    Signature,
    #[error("a node record of another mesh")]
    OtherMesh,
    #[error("a node record with more {0} than are allowed")]
    TooMany(&'static str),
}

impl Announcement {
    /// Signs `record`, which must be within the limits.
    pub fn seal(record: NodeRecord, key: &NodeKey) -> Result<Self, RecordError> {
        within_limits(&record)?;
        let envelope = Envelope::seal(kind::NODE_RECORD, RECORD_VERSION, &record, key);
        if envelope.bytes().len() > NODE_RECORD_BYTES_MAX {
            return Err(EnvelopeError::TooLong { bytes: envelope.bytes().len(), max: NODE_RECORD_BYTES_MAX }.into());
        }
        Ok(Self::of(record, envelope))
    }

    /// Reads and verifies: the one expensive step (about 60 µs), done once per distinct bytes.
    pub fn open(bytes: &[u8], mesh: &MeshId) -> Result<Self, RecordError> {
        let envelope = Envelope::parse(bytes, NODE_RECORD_BYTES_MAX)?;
        let record: NodeRecord = envelope.decode(kind::NODE_RECORD, RECORD_VERSION)?;
        if record.mesh != *mesh {
            return Err(RecordError::OtherMesh);
        }
        within_limits(&record)?;
        if !envelope.verify(&record.node) {
            return Err(RecordError::Signature);
        }
        Ok(Self::of(record, envelope))
    }

    fn of(record: NodeRecord, envelope: Envelope) -> Self {
        let stamp = Stamp { origin: record.node, incarnation: record.incarnation, sequence: record.sequence };
        Self { fingerprint: stamp.fingerprint(), bytes: Blob(Arc::clone(envelope.bytes())), record }
    }

    pub fn stamp(&self) -> Stamp {
        Stamp { origin: self.record.node, incarnation: self.record.incarnation, sequence: self.record.sequence }
    }
}

fn within_limits(record: &NodeRecord) -> Result<(), RecordError> {
    let labels_fit = record.labels.iter().all(|(key, value)| key.len().max(value.len()) <= LABEL_BYTES_MAX);
    let addresses_fit = record.addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX);
    for (fits, what) in [
        (record.name.len() <= NAME_BYTES_MAX, "bytes in its name"),
        (record.labels.len() <= LABELS_MAX && labels_fit, "labels"),
        (record.addresses.len() <= ADDRESSES_MAX && addresses_fit, "addresses"),
        (record.neighbours.len() <= NEIGHBOURS_MAX, "neighbours"),
        (record.capabilities.len() <= CAPABILITIES_MAX, "capabilities"),
    ] {
        if !fits {
            return Err(RecordError::TooMany(what));
        }
    }
    Ok(())
}
