//! Who a node is, what a mesh is called, and the names of the things they offer.
//!
//! A node *is* its Ed25519 public key (RFC 8032); a mesh is the blake3 hash of its root's public key. Every identifier is 32 bytes and
//! prints as lower-case hex; people see the first ten characters.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// How many hex characters of an identifier people are shown.
pub const SHORT_ID_CHARS: usize = 10;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 32]);

        impl $name {
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first characters of the hex form, as shown to people.
            pub fn short(&self) -> String {
                let mut text = hex::encode(self.0);
                text.truncate(SHORT_ID_CHARS);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            fn from_str(text: &str) -> Result<Self, MalformedId> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| MalformedId)?;
                Ok(Self(bytes))
            }
        }
    };
}

identifier! {
    /// A node: its Ed25519 public key.
    NodeId
}
identifier! {
    /// A mesh: blake3 of its root's Ed25519 public key.
    MeshId
}
identifier! {
    /// The content address (blake3) of a [`CapabilityBody`](crate::CapabilityBody).
    BodyHash
}
identifier! {
    /// The content address (blake3) of an encoded certificate chain.
    CertificateHash
}

/// The text is not 64 hexadecimal characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: 64 hexadecimal characters are expected")]
pub struct MalformedId;

impl MeshId {
    /// The mesh founded by the holder of `root`.
    pub fn of_root(root: &NodeId) -> Self {
        Self(*blake3::hash(root.as_bytes()).as_bytes())
    }
}

impl NodeId {
    /// Checks `signature` (64 bytes) over `message` with strict rules: no malleable or small-order key passes.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

/// An Ed25519 secret key: of a node, of a mesh's root, or derived from a join code. Wiped from memory when dropped.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// From 32 secret bytes; where they come from is the caller's affair (this crate has no source of randomness).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The 32 secret bytes, for writing to a file that only its owner can read.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, secret not shown)", self.id().short())
    }
}

/// A node's own stable name for one of its capabilities: 1 to 64 of `a-z 0-9 . _ : -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Slug(String);

/// Longest [`Slug`], in bytes.
pub const SLUG_BYTES_MAX: usize = 64;

impl Slug {
    /// `text` as a slug, if it is one already.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= SLUG_BYTES_MAX && text.bytes().all(Self::allows);
        fits.then(|| Self(text.to_owned()))
    }

    /// The nearest slug to any name: lower case, everything else becomes `-`; too long is cut, nothing left becomes `capability`.
    pub fn from_name(name: &str) -> Self {
        let mut slug = String::with_capacity(name.len().min(SLUG_BYTES_MAX));
        for c in name.chars().flat_map(char::to_lowercase) {
            let c = if c.is_ascii() && Self::allows(c as u8) { c } else { '-' };
            if slug.len() < SLUG_BYTES_MAX && !(c == '-' && (slug.is_empty() || slug.ends_with('-'))) {
                slug.push(c);
            }
        }
        let slug = slug.trim_end_matches('-');
        Self(if slug.is_empty() { "capability".to_owned() } else { slug.to_owned() })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn allows(byte: u8) -> bool {
        matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b':' | b'-')
    }
}

impl<'de> Deserialize<'de> for Slug {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a slug"))
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// One thing that one node offers. Shown to people as `node name/slug`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CapabilityId {
    pub node: NodeId,
    pub slug: Slug,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_verifies_what_it_signed_and_nothing_else() {
        let key = NodeKey::from_seed([7; 32]);
        let signature = key.sign(b"hello");
        assert!(key.id().verify(b"hello", &signature));
        assert!(!key.id().verify(b"hullo", &signature));
        assert!(!NodeKey::from_seed([8; 32]).id().verify(b"hello", &signature));
        assert!(!key.id().verify(b"hello", &signature[..63]));
        assert!(!NodeId::from_bytes([0; 32]).verify(b"hello", &signature), "a small-order key verifies nothing");
    }

    #[test]
    fn identifiers_survive_text() {
        let id = NodeKey::from_seed([7; 32]).id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), SHORT_ID_CHARS);
        assert_eq!("xyz".parse::<NodeId>(), Err(MalformedId));
    }

    #[test]
    fn any_name_gives_a_slug() {
        for (name, slug) in [
            ("qwen2.5-coder:7b", "qwen2.5-coder:7b"),
            ("hf.co/Org/Some Model", "hf.co-org-some-model"),
            ("  ///  ", "capability"),
            ("Übung", "bung"),
        ] {
            assert_eq!(Slug::from_name(name).as_str(), slug);
            assert_eq!(Slug::parse(Slug::from_name(name).as_str()), Some(Slug::from_name(name)));
        }
        assert_eq!(Slug::from_name(&"x".repeat(200)).as_str().len(), SLUG_BYTES_MAX);
    }
}
