//! The signed wrapping of every record: who said it is checked here, what it says is not.
//!
//! Layout: kind u16, version u8, payload length u32 (all little-endian), payload, Ed25519 signature (RFC 8032, 64 bytes). The signature
//! covers `"atmosphere/1"` followed by everything before it *as received*. The domain in front keeps a record from passing for anything
//! else that the same key signs (admission proofs, TLS and noise bindings); the kind behind it keeps one kind of record from passing for
//! another. The bytes are kept and forwarded verbatim, those of unknown kinds and versions too, so that a node in the middle need not
//! understand what it carries.
//!
//! Which key must have signed stands in the payload or in the context; an envelope names no signer. There is no batching and no cache
//! of checked signatures here: both belong to the edge that calls [`Envelope::verify`].

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{self, CodecError};
use crate::identity::{NodeId, NodeKey};

/// What every signature over a record starts with.
pub const RECORD_DOMAIN: &[u8] = b"atmosphere/1";
/// Largest envelope of any kind; each kind may ask for less.
pub const ENVELOPE_BYTES_MAX: usize = 16 << 10;
/// Bytes that an envelope adds to its payload.
pub const ENVELOPE_OVERHEAD_BYTES: usize = HEADER_BYTES + SIGNATURE_BYTES;

const HEADER_BYTES: usize = 7;
const SIGNATURE_BYTES: usize = 64;

/// The kinds of record known to this version. Numbers are never reused.
pub mod kind {
    /// A [`NodeRecord`](crate::NodeRecord), signed by its node.
    pub const NODE_RECORD: u16 = 1;
    /// A [`Certificate`](crate::membership::Certificate), signed by its issuer.
    pub const CERTIFICATE: u16 = 2;
    /// An [`InvitationRecord`](crate::invitation::InvitationRecord), signed by its issuer.
    pub const INVITATION: u16 = 3;
    /// A [`RevocationRecord`](crate::membership::RevocationRecord), signed by the mesh's root or an admin.
    pub const REVOCATION: u16 = 4;
}

/// A record as it travels. Holding one says nothing about who signed it: ask [`Envelope::verify`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Envelope(Arc<[u8]>);

/// Why bytes are no envelope, or no envelope of the kind that was asked for. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("a record of {bytes} bytes, but at most {max} are accepted")]
    TooLong { bytes: usize, max: usize },
    #[error("a record that is cut short, or followed by something else")]
    WrongLength,
    #[error("a record of kind {found} where kind {expected} belongs")]
    OtherKind { found: u16, expected: u16 },
    #[error("a record of version {found}, older than any that is understood ({oldest})")]
    TooOld { found: u8, oldest: u8 },
    #[error("the contents of a record: {0}")]
    Payload(#[from] CodecError),
}

impl Envelope {
    /// Encodes `payload` and signs it.
    pub fn seal<T: Serialize>(kind: u16, version: u8, payload: &T, key: &NodeKey) -> Self {
        Self::seal_bytes(kind, version, &codec::encode(payload), key)
    }

    /// Signs a payload that is bytes already.
    pub fn seal_bytes(kind: u16, version: u8, payload: &[u8], key: &NodeKey) -> Self {
        let length = u32::try_from(payload.len()).expect("what we seal ourselves is bounded far below 4 GiB");
        let mut bytes = Vec::with_capacity(payload.len() + ENVELOPE_OVERHEAD_BYTES);
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.push(version);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(payload);
        let signature = key.sign(&signed_message(&bytes));
        bytes.extend_from_slice(&signature);
        Self(bytes.into())
    }

    /// Takes exactly `bytes`, of any kind and version, if their lengths agree and there are at most `bytes_max` of them.
    pub fn parse(bytes: &[u8], bytes_max: usize) -> Result<Self, EnvelopeError> {
        if bytes.len() > bytes_max {
            return Err(EnvelopeError::TooLong { bytes: bytes.len(), max: bytes_max });
        }
        let length = bytes.get(3..HEADER_BYTES).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
        let room = bytes.len().checked_sub(ENVELOPE_OVERHEAD_BYTES);
        match (length, room) {
            (Some(length), Some(room)) if usize::try_from(length) == Ok(room) => Ok(Self(bytes.into())),
            _ => Err(EnvelopeError::WrongLength),
        }
    }

    pub fn kind(&self) -> u16 {
        u16::from_le_bytes([self.0[0], self.0[1]])
    }

    pub fn version(&self) -> u8 {
        self.0[2]
    }

    pub fn payload(&self) -> &[u8] {
        &self.0[HEADER_BYTES..self.0.len() - SIGNATURE_BYTES]
    }

    /// The bytes as they were received, for forwarding and keeping.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }

    /// The content address of the received bytes.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.0).as_bytes()
    }

    /// Whether `signer` signed exactly these bytes.
    pub fn verify(&self, signer: &NodeId) -> bool {
        let (signed, signature) = self.0.split_at(self.0.len() - SIGNATURE_BYTES);
        signer.verify(&signed_message(signed), signature)
    }

    /// Decodes the payload, *verified or not*. Of `version` exactly, of a newer one by the fields that we know; older ones have no reader.
    pub fn decode<T: DeserializeOwned>(&self, kind: u16, version: u8) -> Result<T, EnvelopeError> {
        if self.kind() != kind {
            return Err(EnvelopeError::OtherKind { found: self.kind(), expected: kind });
        }
        if self.version() < version {
            return Err(EnvelopeError::TooOld { found: self.version(), oldest: version });
        }
        Ok(codec::decode_versioned(self.payload(), self.version(), version)?)
    }
}

fn signed_message(header_and_payload: &[u8]) -> Vec<u8> {
    [RECORD_DOMAIN, header_and_payload].concat()
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope(kind {}, version {}, {} bytes)", self.kind(), self.version(), self.0.len())
    }
}

/// As a length and the bytes, inside a frame or a file.
impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Self::parse(&bytes, ENVELOPE_BYTES_MAX).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNKNOWN_KIND: u16 = 0xfff0;

    fn key() -> NodeKey {
        NodeKey::from_seed([7; 32])
    }

    #[test]
    fn golden() {
        let sealed = Envelope::seal_bytes(UNKNOWN_KIND, 9, b"payload", &key());
        crate::golden::check("envelope", &sealed.bytes()[..]);
    }

    #[test]
    fn unknown_kinds_and_versions_are_kept_verbatim() {
        let sealed = Envelope::seal_bytes(UNKNOWN_KIND, 200, b"who knows", &key());
        let parsed = Envelope::parse(sealed.bytes(), ENVELOPE_BYTES_MAX).unwrap();
        assert_eq!(parsed, sealed);
        assert_eq!((parsed.kind(), parsed.version(), parsed.payload()), (UNKNOWN_KIND, 200, &b"who knows"[..]));
        assert!(parsed.verify(&key().id()));
    }

    #[test]
    fn the_limit_is_the_callers() {
        let sealed = Envelope::seal_bytes(1, 1, &[0; 100], &key());
        assert!(Envelope::parse(sealed.bytes(), 171).is_ok());
        assert_eq!(Envelope::parse(sealed.bytes(), 170), Err(EnvelopeError::TooLong { bytes: 171, max: 170 }));
    }

    #[test]
    fn contents_are_read_by_kind_and_version() {
        let sealed = Envelope::seal(3, 2, &("text".to_owned(), 5_u32), &key());
        assert_eq!(sealed.decode::<(String, u32)>(3, 2), Ok(("text".to_owned(), 5)));
        assert_eq!(sealed.decode::<String>(3, 1), Ok("text".to_owned()), "a newer version is read from the front");
        assert_eq!(sealed.decode::<String>(3, 2), Err(EnvelopeError::Payload(CodecError::Trailing(1))));
        assert_eq!(sealed.decode::<String>(3, 3), Err(EnvelopeError::TooOld { found: 2, oldest: 3 }));
        assert_eq!(sealed.decode::<String>(4, 2), Err(EnvelopeError::OtherKind { found: 3, expected: 4 }));
    }

    #[test]
    fn a_record_travels_inside_other_values() {
        let sealed = Envelope::seal_bytes(1, 1, b"x", &key());
        let bytes = codec::encode(&vec![sealed.clone(), sealed.clone()]);
        assert_eq!(codec::decode::<Vec<Envelope>>(&bytes), Ok(vec![sealed.clone(), sealed]));
    }

    proptest! {
        #[test]
        fn what_was_sealed_verifies(kind: u16, version: u8, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let sealed = Envelope::seal_bytes(kind, version, &payload, &key());
            let parsed = Envelope::parse(sealed.bytes(), ENVELOPE_BYTES_MAX).unwrap();
            prop_assert!(parsed.verify(&key().id()));
            prop_assert!(!parsed.verify(&NodeKey::from_seed([8; 32]).id()));
            prop_assert_eq!(parsed.payload(), &payload[..]);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(envelope) = Envelope::parse(&bytes, 200) {
                prop_assert!(!envelope.verify(&key().id()));
            }
        }

        #[test]
        fn what_was_changed_never_verifies(payload in proptest::collection::vec(any::<u8>(), 0..100), at: prop::sample::Index, bit in 0_u8..8) {
            let mut bytes = Envelope::seal_bytes(1, 1, &payload, &key()).bytes().to_vec();
            let cut = Envelope::parse(&bytes[..at.index(bytes.len())], ENVELOPE_BYTES_MAX);
            prop_assert!(cut.is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let flipped = Envelope::parse(&bytes, ENVELOPE_BYTES_MAX);
            prop_assert!(!flipped.is_ok_and(|envelope| envelope.verify(&key().id())));
        }
    }
}
