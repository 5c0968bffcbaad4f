//! The 32 secret bytes of a key, in memory no longer than needed and never printed.

use std::fmt;
use std::io;

use atmo_protocol::NodeKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// The seed of an Ed25519 key. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// A new one from the operating system's randomness.
    pub fn random() -> io::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(io::Error::from)?;
        Ok(Self(seed))
    }

    pub fn of(key: &NodeKey) -> Self {
        Self(Zeroizing::new(key.seed()))
    }

    pub fn key(&self) -> NodeKey {
        NodeKey::from_seed(*self.0)
    }

    pub fn into_key(self) -> NodeKey {
        self.key()
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(not shown)")
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(*self.0)))
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let mut seed = Zeroizing::new([0; 32]);
        // The cause could quote what it read, and that is the secret.
        hex::decode_to_slice(text.as_str(), seed.as_mut_slice()).map_err(|_| serde::de::Error::custom("not a key"))?;
        Ok(Self(seed))
    }
}
