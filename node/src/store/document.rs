//! One file of the data folder: a line that says what it is, then JSON.
//!
//! ```text
//! atmosphere mesh.json 1 9f86d081884c7d65
//! {"mesh": ...}
//! ```
//! The number is the format's version, the last word the start of the blake3 hash of all that follows the line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::StoreError;
use crate::platform;

/// More than the largest ledger of invitations takes as text; a longer file is not ours.
const FILE_BYTES_MAX: u64 = 80 << 20;
/// What a file is called until it is complete.
const UNFINISHED: &str = ".new";
const CHECK_CHARS: usize = 16;

/// The name and the format of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document {
    pub file: &'static str,
    pub version: u32,
}

#[derive(Debug)]
pub(super) enum DocumentError {
    Damaged { path: PathBuf, cause: String },
    Newer { path: PathBuf, found: u32, known: u32 },
    Io { path: PathBuf, cause: io::Error },
}

impl Document {
    /// `None` where there is no such file.
    pub fn read<T: DeserializeOwned>(self, dir: &Path) -> Result<Option<T>, DocumentError> {
        self.read_at(&dir.join(self.file))
    }

    /// The same under another name.
    pub fn read_at<T: DeserializeOwned>(self, path: &Path) -> Result<Option<T>, DocumentError> {
        let path = path.to_owned();
        let bytes = match read_bounded(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(DocumentError::Io { path, cause }),
        };
        match self.decode(&bytes) {
            Ok(content) => Ok(Some(content)),
            Err(Wrong::Damaged(cause)) => Err(DocumentError::Damaged { path, cause }),
            Err(Wrong::Newer(found)) => Err(DocumentError::Newer { path, found, known: self.version }),
        }
    }

    /// Replaces the file: afterwards it is the new one, also after a power cut; on an error it is the old one.
    pub fn write<T: Serialize>(self, dir: &Path, content: &T) -> Result<(), DocumentError> {
        self.write_at(&dir.join(self.file), content)
    }

    /// The same under another name.
    pub fn write_at<T: Serialize>(self, path: &Path, content: &T) -> Result<(), DocumentError> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.replace(dir, path, content).map_err(|cause| DocumentError::Io { path: path.to_owned(), cause })
    }

    pub fn remove(self, dir: &Path) -> Result<(), DocumentError> {
        let path = dir.join(self.file);
        match fs::remove_file(&path).and_then(|()| platform::sync_dir(dir)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(DocumentError::Io { path, cause }),
            _ => Ok(()),
        }
    }

    fn replace<T: Serialize>(self, dir: &Path, path: &Path, content: &T) -> io::Result<()> {
        let bytes = self.encode(content)?;
        let unfinished = dir.join(format!("{}{UNFINISHED}", self.file));
        let written = write_synced(&unfinished, &bytes).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written.and_then(|()| platform::sync_dir(dir))
    }

    fn encode<T: Serialize>(self, content: &T) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut body = Zeroizing::new(serde_json::to_vec_pretty(content)?);
        body.push(b'\n');
        let head = format!("atmosphere {} {} {}\n", self.file, self.version, check(&body));
        Ok(Zeroizing::new([head.as_bytes(), &body].concat()))
    }

    fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, Wrong> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Wrong::damaged("it has no first line"))?;
        let (head, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
        let words: Vec<&str> = head.split(' ').collect();
        let ["atmosphere", file, version, found_check] = words[..] else {
            return Err(Wrong::damaged("its first line is not ours"));
        };
        let version: u32 = version.parse().map_err(|_| Wrong::damaged("its first line has no version"))?;
        if file != self.file {
            return Err(Wrong::Damaged(format!("it holds {file}")));
        }
        if version > self.version {
            return Err(Wrong::Newer(version));
        }
        if found_check != check(body) {
            return Err(Wrong::damaged("its contents do not match their check value"));
        }
        serde_json::from_slice(body).map_err(|error| Wrong::Damaged(error.to_string()))
    }
}

/// Writes and removes a file of the size that documents have.
pub fn try_writing(dir: &Path) -> io::Result<()> {
    const BYTES: usize = 4096;
    let path = dir.join(format!("probe{UNFINISHED}"));
    let written = write_synced(&path, &[0; BYTES]);
    let removed = fs::remove_file(&path);
    written.and(removed)
}

enum Wrong {
    Damaged(String),
    Newer(u32),
}

impl Wrong {
    fn damaged(cause: &str) -> Self {
        Self::Damaged(cause.to_owned())
    }
}

fn check(body: &[u8]) -> String {
    let mut check = blake3::hash(body).to_hex().to_string();
    check.truncate(CHECK_CHARS);
    check
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes are far more than it can hold")));
    }
    fs::read(path)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = platform::create_private_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes what a killed process did not finish writing.
pub(super) fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(UNFINISHED)) {
        let _ = fs::remove_file(entry.path());
    }
}

/// An operating system's error, with the ones that have a plain cause and a next step told apart.
pub(super) fn io_error(path: PathBuf, cause: io::Error) -> StoreError {
    if platform::is_disk_full(&cause) { StoreError::DiskFull(path) } else { StoreError::Io { path, cause } }
}
