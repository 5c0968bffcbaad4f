//! One owner per data folder: a lock that the kernel ends with its process, so that nothing stale has to be cleaned up.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use super::{StoreError, document};
use crate::platform;

const LOCK_FILE: &str = "lock";
/// A short command may hold the folder for a moment; this is how long one waits for it.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Longest process number that is read back.
const HOLDER_BYTES_MAX: u64 = 16;

/// Held while this process owns the folder; dropping it lets go.
#[derive(Debug)]
pub(super) struct FolderLock(#[allow(dead_code, reason = "held for its lock")] File);

impl FolderLock {
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let named = |cause| document::io_error(path.clone(), cause);
        let mut file = platform::open_lock_file(&path).map_err(named)?;
        for _ in 0..LOCK_WAIT.as_millis() / LOCK_RETRY.as_millis() {
            if platform::try_lock(&file).map_err(named)? {
                // For the message that the next one gets; a full disk must not keep a node from starting to say so better.
                let _ = write_holder(&mut file);
                return Ok(Self(file));
            }
            std::thread::sleep(LOCK_RETRY);
        }
        Err(StoreError::Locked { dir: dir.to_owned(), holder: read_holder(&mut file) })
    }
}

/// The process that holds the folder's lock now: `Some(None)` when it did not leave its number, `None` when nobody does.
pub fn holder_of(dir: &Path) -> Option<Option<u32>> {
    let mut file = platform::open_existing_lock_file(&dir.join(LOCK_FILE)).ok()?;
    match platform::try_lock(&file) {
        Ok(false) => Some(read_holder(&mut file)),
        Ok(true) | Err(_) => None,
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(HOLDER_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
