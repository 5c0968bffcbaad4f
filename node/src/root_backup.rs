//! The mesh's root key in a file that a passphrase opens: what brings a mesh back when the machine that founded it is gone.
//!
//! The construction is age's for passphrases with other parts: Argon2id (RFC 9106) makes a key of the passphrase, XChaCha20-Poly1305 seals
//! the root with it, and what stands in clear is authenticated along. The file is text, so that it can be printed.

use argon2::{Algorithm, Argon2, Params, Version};
use atmo_protocol::{MeshId, NodeKey};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Shortest passphrase: the file may fall into other hands, where nobody counts the tries.
pub const PASSPHRASE_CHARS_MIN: usize = 10;
/// Largest file that is read.
pub const BACKUP_BYTES_MAX: usize = 16 << 10;

const HEAD: &str = "atmosphere root backup 1";
/// RFC 9106's second recommendation: 64 MiB, three passes. A second on a small machine.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// A file may ask for no more: reading it must not take the machine's memory.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// What a backup holds.
pub struct Root {
    pub key: NodeKey,
    pub name: Option<String>,
}

/// Why there is no backup, or none that can be used. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    #[error("a passphrase has at least {PASSPHRASE_CHARS_MIN} characters: whoever gets the file may try as often as they like")]
    TooShort,
    #[error("this is no backup of a mesh's root; `atmo mesh backup` makes one")]
    NotABackup,
    #[error("this backup was made by a newer version of atmo; update this one")]
    Newer,
    #[error("the passphrase is another, or the file is damaged")]
    CannotOpen,
    #[error("the operating system gives no random bytes")]
    Randomness,
    #[error("not enough memory to make a key of the passphrase")]
    Memory,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clear {
    mesh: String,
    name: Option<String>,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    nonce: String,
}

/// Seals `root` with `passphrase`.
pub fn seal(root: &Root, passphrase: &str) -> Result<String, BackupError> {
    if passphrase.chars().count() < PASSPHRASE_CHARS_MIN {
        return Err(BackupError::TooShort);
    }
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut nonce)).map_err(|_| BackupError::Randomness)?;
    let clear = Clear {
        mesh: MeshId::of_root(&root.key.id()).to_string(),
        name: root.name.clone(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: hex::encode(salt),
        nonce: hex::encode(nonce),
    };
    let line = serde_json::to_string(&clear).map_err(|_| BackupError::NotABackup)?;
    let seed = Zeroizing::new(root.key.seed());
    let payload = Payload { msg: seed.as_slice(), aad: line.as_bytes() };
    let sealed = cipher(&clear, &salt, passphrase)?.encrypt(XNonce::from_slice(&nonce), payload);
    Ok(format!("{HEAD}\n{line}\n{}\n", hex::encode(sealed.map_err(|_| BackupError::CannotOpen)?)))
}

/// Opens what [`seal`] made.
pub fn open(text: &str, passphrase: &str) -> Result<Root, BackupError> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.next() {
        Some(HEAD) => {}
        Some(head) if head.starts_with(HEAD.trim_end_matches('1')) => return Err(BackupError::Newer),
        _ => return Err(BackupError::NotABackup),
    }
    let (Some(line), Some(sealed)) = (lines.next(), lines.next()) else { return Err(BackupError::NotABackup) };
    let clear: Clear = serde_json::from_str(line).map_err(|_| BackupError::NotABackup)?;
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    hex::decode_to_slice(&clear.salt, &mut salt).map_err(|_| BackupError::NotABackup)?;
    hex::decode_to_slice(&clear.nonce, &mut nonce).map_err(|_| BackupError::NotABackup)?;
    let sealed = hex::decode(sealed).map_err(|_| BackupError::NotABackup)?;
    let payload = Payload { msg: &sealed, aad: line.as_bytes() };
    let opened = cipher(&clear, &salt, passphrase)?.decrypt(XNonce::from_slice(&nonce), payload);
    let seed = Zeroizing::new(opened.map_err(|_| BackupError::CannotOpen)?);
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.as_slice().try_into().map_err(|_| BackupError::CannotOpen)?);
    let key = NodeKey::from_seed(*seed);
    if MeshId::of_root(&key.id()).to_string() != clear.mesh {
        return Err(BackupError::CannotOpen);
    }
    Ok(Root { key, name: clear.name })
}

fn cipher(clear: &Clear, salt: &[u8], passphrase: &str) -> Result<XChaCha20Poly1305, BackupError> {
    let Clear { memory_kib, passes, lanes, .. } = *clear;
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
        return Err(BackupError::NotABackup);
    }
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| BackupError::NotABackup)?;
    let mut key = Zeroizing::new([0; 32]);
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice()).map_err(|_| BackupError::Memory)?;
    Ok(XChaCha20Poly1305::new(key.as_slice().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passphrase_and_nothing_else_opens_it() {
        let root = Root { key: NodeKey::from_seed([7; 32]), name: Some("home".to_owned()) };
        assert_eq!(seal(&root, "too short").err(), Some(BackupError::TooShort));
        let text = seal(&root, "correct horse").expect("it is long enough");
        let opened = open(&text, "correct horse").expect("it is the one");
        assert_eq!((opened.key.id(), opened.name.as_deref()), (root.key.id(), Some("home")));
        assert!(!text.contains(&hex::encode([7; 32])));
        assert_eq!(open(&text, "correct house").err(), Some(BackupError::CannotOpen));
        assert_eq!(open(&text.replace("home", "away"), "correct horse").err(), Some(BackupError::CannotOpen));
        assert_eq!(open("hello", "correct horse").err(), Some(BackupError::NotABackup));
        assert_eq!(open(&text.replacen("backup 1", "backup 2", 1), "correct horse").err(), Some(BackupError::Newer));
        let greedy = text.replace("\"memory_kib\":65536", "\"memory_kib\":4000000");
        assert_eq!(open(&greedy, "correct horse").err(), Some(BackupError::NotABackup));
    }
}
