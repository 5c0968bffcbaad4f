//! The audit: what happened to this node's trust, and what it ran, in a record that shows every later change.
//!
//! Whoever does something worth recording calls [`Audit::note`], which never waits: the event goes into a bounded queue to one thread,
//! which alone writes below `audit/` in the data folder. Each line names the hash of the line before it and its own (blake3, over the
//! raw bytes); checkpoints are signed with the node's key; the latest place reached stands, signed, in a file outside `audit/`, so that
//! a cut tail is noticed as well. What could not be recorded (queue full, disk refused) is counted, shown by `atmo status`, logged, and
//! stands as a number in the record as soon as that can be written again.
//!
//! **When it is on disk.** Whatever changes who may do what is written and synced at once; lines about requests are written at once
//! and synced within a second, so that a power cut costs one second of them and `kill -9` at most what was still in the queue.
//!
//! **What it proves.** That nothing was changed by whoever lacks the node's key. Somebody who holds the key and the folder can write
//! another record: export it elsewhere where that matters. Deliberately absent: prompts, answers, texts of errors (engines quote
//! prompts), addresses.

pub mod event;
mod format;
mod limit;
pub mod read;
#[cfg(test)]
mod tests;
pub mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atmo_protocol::NodeKey;
use serde::{Deserialize, Serialize};

use crate::driver::clock::wall_ms;
pub use event::{Event, Text};
use limit::Limiter;

/// The folder of the record, in the data folder. Nothing else lies in it.
pub const FOLDER: &str = "audit";
/// Events that wait for the disk. At 200 bytes each this is a megabyte, and longer than any disk stalls that still works.
const WAITING_MAX: usize = 4096;
/// The writer uses little more than a line's worth of stack.
const STACK_BYTES: usize = 256 << 10;
/// The log says this often at most that events are being lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Takes events for the record. Clones stand for the same record; the last one to go waits until all is written.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    key: NodeKey,
    /// Begins with the first event: a command that only looks leaves no trace.
    running: OnceLock<Running>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Running {
    queue: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the writer both see.
#[derive(Debug, Default)]
struct Shared {
    /// Lines in files since this process began.
    written: AtomicU64,
    /// Events that are in no file.
    lost: AtomicU64,
    /// Why the last attempt to write failed; none while it works.
    problem: Mutex<Option<String>>,
    complained: Mutex<Option<Instant>>,
    limiter: Mutex<Limiter>,
}

enum Message {
    /// An event and when it was noted, in unix milliseconds.
    Note(u64, Box<Event>),
    /// Answered once everything before it is signed and synced.
    Settle(SyncSender<()>),
}

/// How far the record has come. Signed, and kept outside `audit/`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// The number of the last line that is known to be on disk; 0 where there is none yet.
    pub sequence: u64,
    /// Its hash, hexadecimal.
    pub hash: String,
    /// Of both, by the node's key, hexadecimal.
    pub signature: String,
}

/// How the record fares, for `atmo status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct State {
    /// Lines written since the node started.
    pub written: u64,
    /// Events since then that are not in the record.
    pub lost: u64,
    /// Why nothing can be written now.
    pub problem: Option<String>,
}

impl Audit {
    /// For the data folder `dir`, whose lock the caller holds. Touches nothing until the first event.
    pub fn new(dir: &Path, key: NodeKey) -> Self {
        Self(Arc::new(Inner { dir: dir.to_owned(), key, running: OnceLock::new(), shared: Arc::default() }))
    }

    /// Records an event. Never waits; an event that finds no room is counted as lost.
    pub fn note(&self, event: Event) {
        let shared = &self.0.shared;
        let now_ms = wall_ms();
        if let Some(class) = event.class()
            && !shared.limiter().admits(class, now_ms)
        {
            return;
        }
        match self.0.running().queue.try_send(Message::Note(now_ms, Box::new(event))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => shared.lose(1, "the disk does not keep up"),
            Err(TrySendError::Disconnected(_)) => shared.lose(1, "its writer has ended"),
        }
    }

    /// Waits until everything noted so far is signed and on disk, at most for `patience`. Blocks. Whether it is.
    pub fn settle(&self, patience: Duration) -> bool {
        let Some(running) = self.0.running.get() else { return true };
        let (done, settled) = mpsc::sync_channel(1);
        let began = Instant::now();
        // The queue may be full; what is in it goes first.
        while running.queue.try_send(Message::Settle(done.clone())).is_err() {
            if began.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        settled.recv_timeout(patience.saturating_sub(began.elapsed())).is_ok()
    }

    pub fn state(&self) -> State {
        let shared = &self.0.shared;
        State {
            written: shared.written.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            problem: lock(&shared.problem).clone(),
        }
    }
}

impl Inner {
    fn running(&self) -> &Running {
        self.running.get_or_init(|| {
            let (queue, waiting) = mpsc::sync_channel(WAITING_MAX);
            let (dir, key, shared) = (self.dir.clone(), self.key.clone(), Arc::clone(&self.shared));
            let builder = std::thread::Builder::new().name("atmo-audit".to_owned()).stack_size(STACK_BYTES);
            let thread = builder.spawn(move || writer::run(dir, key, &shared, &waiting));
            // Without a thread its end of the queue is gone, and every event counts as lost.
            Running { queue, thread: thread.ok() }
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(Running { queue, thread }) = self.running.take() else { return };
        drop(queue);
        if let Some(thread) = thread {
            _ = thread.join();
        }
    }
}

impl Shared {
    fn limiter(&self) -> std::sync::MutexGuard<'_, Limiter> {
        lock(&self.limiter)
    }

    /// Counts events that will be in no file, and says so in the log.
    fn lose(&self, events: u64, why: &str) {
        let lost = self.lost.fetch_add(events, Ordering::Relaxed) + events;
        let mut complained = lock(&self.complained);
        if complained.is_none_or(|at| at.elapsed() > COMPLAINT_INTERVAL) {
            *complained = Some(Instant::now());
            tracing::error!(lost, why, "the audit is incomplete");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
