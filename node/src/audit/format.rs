//! A line of the record as bytes, the place it has in the chain, and what signs a place.
//!
//! ```text
//! {"sequence":7,"at_ms":1763700000000,"kind":"joined","fields":{...},"previous":"64 hex","hash":"64 hex"}
//! ```
//! `hash` is blake3 (in key derivation mode, so that no other hash of this program means the same) over every byte before `,"hash":`.
//! As `previous` is among them, a line stands for all before it. The first line's `previous` is the hash of the node's id.

use std::path::{Path, PathBuf};
use std::{fs, io};

use atmo_protocol::{NodeId, NodeKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Event;
use super::{FOLDER, Head};

/// Grows when lines change their meaning; what is merely added keeps it.
pub const VERSION: u32 = 1;
const LINE_CONTEXT: &str = "atmosphere 2026-11 audit line 1";
const GENESIS_CONTEXT: &str = "atmosphere 2026-11 audit genesis 1";
const SIGNED_CONTEXT: &[u8] = b"atmosphere audit checkpoint 1\0";
/// Before and behind the hash at the end of a line.
const HASH_BEFORE: &[u8] = br#","hash":""#;
const HASH_BEHIND: &[u8] = br#""}"#;
const HASH_CHARS: usize = 64;
const ENDING: &str = ".jsonl";

/// The place of a line: its number, from 1 on, and its hash. 0 is the place before the first line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub sequence: u64,
    pub hash: blake3::Hash,
}

/// A line that was read. What its hash says was checked, how it follows others was not.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    pub(super) place: Place,
    pub content: Content,
}

/// What a line says.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Content {
    pub sequence: u64,
    /// Unix milliseconds by the node's clock.
    pub at_ms: u64,
    pub kind: String,
    #[serde(default)]
    pub fields: Value,
    /// The hash of the line before it, hexadecimal.
    pub previous: String,
}

/// Why bytes are no line of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("this is no line of the record")]
    Form,
    #[error("the line was changed: its bytes do not give its hash")]
    Hash,
}

#[derive(Serialize)]
struct Written<'a> {
    sequence: u64,
    at_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
    previous: &'a str,
}

impl Place {
    pub fn before_all(node: &NodeId) -> Self {
        Self { sequence: 0, hash: blake3::Hash::from(blake3::derive_key(GENESIS_CONTEXT, node.as_bytes())) }
    }

    pub fn of_head(head: &Head) -> Option<Self> {
        Some(Self { sequence: head.sequence, hash: blake3::Hash::from_hex(&head.hash).ok()? })
    }

    pub fn sign(&self, key: &NodeKey) -> String {
        hex::encode(key.sign(&self.signed()))
    }

    pub fn is_signed(&self, node: &NodeId, signature: &str) -> bool {
        hex::decode(signature).is_ok_and(|signature| node.verify(&self.signed(), &signature))
    }

    pub fn head(&self, key: &NodeKey) -> Head {
        Head { sequence: self.sequence, hash: self.hash.to_hex().to_string(), signature: self.sign(key) }
    }

    fn signed(&self) -> Vec<u8> {
        [SIGNED_CONTEXT, &self.sequence.to_be_bytes(), self.hash.as_bytes()].concat()
    }
}

/// The bytes of the line that follows `before`, its end included, and its place.
pub fn encode(before: &Place, at_ms: u64, event: &Event) -> serde_json::Result<(Vec<u8>, Place)> {
    let sequence = before.sequence + 1;
    let mut bytes = serde_json::to_vec(&Written { sequence, at_ms, event, previous: &before.hash.to_hex() })?;
    bytes.pop();
    let hash = hash_of(&bytes);
    bytes.extend_from_slice(HASH_BEFORE);
    bytes.extend_from_slice(hash.to_hex().as_bytes());
    bytes.extend_from_slice(HASH_BEHIND);
    bytes.push(b'\n');
    Ok((bytes, Place { sequence, hash }))
}

/// `raw`: a line without its end.
pub fn decode(raw: &[u8]) -> Result<Line, Malformed> {
    let start = raw.len().checked_sub(HASH_BEFORE.len() + HASH_CHARS + HASH_BEHIND.len()).ok_or(Malformed::Form)?;
    let (body, rest) = raw.split_at(start);
    let rest = rest.strip_prefix(HASH_BEFORE).and_then(|rest| rest.strip_suffix(HASH_BEHIND)).ok_or(Malformed::Form)?;
    let hash = hash_of(body);
    // As text: upper-case digits would be a changed byte that means the same.
    if rest != hash.to_hex().as_bytes() {
        return Err(Malformed::Hash);
    }
    let content: Content = serde_json::from_slice(&[body, b"}"].concat()).map_err(|_| Malformed::Form)?;
    Ok(Line { place: Place { sequence: content.sequence, hash }, content })
}

fn hash_of(body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new_derive_key(LINE_CONTEXT).update(body).finalize()
}

/// The file of this number, from 1 on.
pub fn path(data_dir: &Path, number: u64) -> PathBuf {
    data_dir.join(FOLDER).join(name(number))
}

/// What it is called.
pub fn name(number: u64) -> String {
    format!("{number:08}{ENDING}")
}

/// The numbers of the files that are there, in order, and the names of whatever else is. Both are empty where there is no folder.
pub fn files(data_dir: &Path) -> io::Result<(Vec<u64>, Vec<String>)> {
    let entries = match fs::read_dir(data_dir.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        entries => entries?,
    };
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    for entry in entries {
        let found = entry?.file_name().to_string_lossy().into_owned();
        let number = found.strip_suffix(ENDING).and_then(|number| number.parse().ok());
        match number.filter(|number| *number > 0 && name(*number) == found) {
            Some(number) => numbers.push(number),
            None => others.push(found),
        }
    }
    numbers.sort_unstable();
    others.sort_unstable();
    Ok((numbers, others))
}

/// The whole lines of a file without their ends, and what stands behind the last end.
pub fn lines(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let rest = parts.pop().unwrap_or_default();
    (parts, rest)
}
