//! The one thread that writes the record.
//!
//! What it finds at its start decides where the chain goes on: behind the last whole line, or behind the place that the head names where
//! that is later, so that lines that are gone stay missing for good. Deliberately absent: anything that repairs or rewrites a line.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use atmo_protocol::NodeKey;

use super::event::{Event, Text};
use super::format::{self, Place, VERSION};
use super::{FOLDER, Message, Shared, lock};
use crate::driver::clock::wall_ms;
use crate::{platform, store};

/// Lines about requests are on disk within this time.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// A quiet record is signed after this time, a busy one after so many lines.
const SIGN_INTERVAL: Duration = Duration::from_secs(60);
const SIGN_LINES: u64 = 256;
/// While a summary of what was left out is due, it is looked for this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A disk that refused is left alone for so long.
const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// Events written in one go.
const BATCH_MAX: usize = 256;
/// Bytes of a torn line that are kept: more than most lines have.
const TORN_BYTES_KEPT: usize = 2048;

/// How large the record may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file beyond this is the last but one.
    pub file_bytes: u64,
    pub files: usize,
}

/// 256 MiB in all: some 600,000 requests, or years of everything else.
pub const LIMITS: Limits = Limits { file_bytes: 16 << 20, files: 16 };

/// Writes until nobody is left who could note anything.
pub(super) fn run(dir: PathBuf, key: NodeKey, shared: &Shared, waiting: &Receiver<Message>) {
    let mut writer = Writer::new(dir, key, LIMITS);
    // Of the events that were lost, so many stand in the record.
    let mut told = 0;
    loop {
        let untold = shared.lost.load(Ordering::Relaxed) > told;
        let look = (untold || shared.limiter().is_open()).then_some(LOOK_INTERVAL);
        let first = match writer.due().into_iter().chain(look).min() {
            Some(pause) => waiting.recv_timeout(pause),
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let ended = matches!(first, Err(RecvTimeoutError::Disconnected));
        let (mut events, settled) = gather(first.ok(), waiting);
        let noted = events.len() as u64;
        let settles = ended || !settled.is_empty();
        let lost = add_counts(&mut events, shared, told, settles);
        match writer.take(&events, settles) {
            Ok(()) => {
                told = lost;
                *lock(&shared.problem) = None;
            }
            Err(failed) => {
                let why = failed.told();
                *lock(&shared.problem) = Some(why.clone());
                if failed.lost && noted > 0 {
                    shared.lose(noted, &why);
                }
            }
        }
        shared.written.store(writer.written, Ordering::Relaxed);
        settled.iter().for_each(|done| _ = done.try_send(()));
        if ended {
            return;
        }
    }
}

/// An event and when it was noted, in unix milliseconds.
type Noted = (u64, Event);

/// What waits, up to a batch, and who waits for it.
fn gather(first: Option<Message>, waiting: &Receiver<Message>) -> (Vec<Noted>, Vec<SyncSender<()>>) {
    let (mut events, mut settled) = (Vec::new(), Vec::new());
    for message in first.into_iter().chain(std::iter::from_fn(|| waiting.try_recv().ok())) {
        match message {
            Message::Note(at_ms, event) => events.push((at_ms, *event)),
            Message::Settle(done) => settled.push(done),
        }
        if events.len() >= BATCH_MAX || !settled.is_empty() {
            break;
        }
    }
    (events, settled)
}

/// Adds how much was left out or lost beyond what is `told`; gives how much was lost by then.
fn add_counts(events: &mut Vec<Noted>, shared: &Shared, told: u64, all: bool) -> u64 {
    let now_ms = wall_ms();
    for left in shared.limiter().close(now_ms, all) {
        events.push((now_ms, Event::LeftOut { of: left.class.word(), count: left.count, from_ms: left.from_ms }));
    }
    let lost = shared.lost.load(Ordering::Relaxed);
    if lost > told {
        let why = lock(&shared.problem).clone().unwrap_or_else(|| "the disk did not keep up".to_owned());
        events.push((now_ms, Event::Lost { count: lost - told, why: Text::new(&why) }));
    }
    lost
}

/// The files, and where the chain has come to.
pub(super) struct Writer {
    dir: PathBuf,
    key: NodeKey,
    limits: Limits,
    /// Of the last line written.
    place: Place,
    open: Option<Open>,
    /// What was found at opening and is not in the record yet.
    found: Vec<Event>,
    /// Lines since the last checkpoint, and since when.
    unsigned: u64,
    unsigned_since: Instant,
    /// Lines since the last sync.
    unsynced: u64,
    synced: Option<Instant>,
    refused: Option<Instant>,
    /// Lines in all.
    pub written: u64,
}

/// The file that is written to.
struct Open {
    file: File,
    bytes: u64,
    /// All files there are; the last one is this.
    numbers: Vec<u64>,
}

/// Why a batch is not on disk.
pub(super) struct Failed {
    /// Whether its lines are in no file either.
    lost: bool,
    cause: io::Error,
}

impl Failed {
    fn told(&self) -> String {
        if platform::is_disk_full(&self.cause) { "no space left on the disk".to_owned() } else { self.cause.to_string() }
    }
}

impl Writer {
    pub fn new(dir: PathBuf, key: NodeKey, limits: Limits) -> Self {
        let place = Place::before_all(&key.id());
        let unsigned_since = Instant::now();
        Self {
            dir,
            key,
            limits,
            place,
            open: None,
            found: Vec::new(),
            unsigned: 0,
            unsigned_since,
            unsynced: 0,
            synced: None,
            refused: None,
            written: 0,
        }
    }

    /// When something is to be done although nothing happens.
    fn due(&self) -> Option<Duration> {
        let sync = (self.unsynced > 0).then(|| SYNC_INTERVAL.saturating_sub(elapsed(self.synced)));
        let sign = (self.unsigned > 0).then(|| SIGN_INTERVAL.saturating_sub(self.unsigned_since.elapsed()));
        let pause = if self.refused.is_some() { REFUSED_WAIT } else { Duration::from_millis(1) };
        sync.into_iter().chain(sign).min().map(|due| due.max(pause))
    }

    /// Writes a batch, and what is due. With `settles` all of it is signed and synced afterwards.
    pub fn take(&mut self, events: &[Noted], settles: bool) -> Result<(), Failed> {
        if self.refused.is_some_and(|at| at.elapsed() < REFUSED_WAIT) && !settles {
            return Err(Failed { lost: true, cause: io::Error::other("the disk refused a moment ago") });
        }
        let urgent = settles || events.iter().any(|(_, event)| event.is_urgent());
        let result = self.write(events).map_err(|cause| Failed { lost: true, cause });
        let result = result.and_then(|()| self.finish(urgent, settles).map_err(|cause| Failed { lost: false, cause }));
        self.refused = result.is_err().then(Instant::now);
        if result.is_err() {
            // Whatever state the file is in: it is looked at again before more is written.
            self.open = None;
        }
        result
    }

    fn write(&mut self, events: &[Noted]) -> io::Result<()> {
        // A file that was just begun gets its first line in any case.
        if events.is_empty() && self.open.as_ref().is_none_or(|open| open.bytes > 0) {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let (mut place, mut bytes, now_ms) = (self.place, Vec::new(), wall_ms());
        let mut add = |at_ms, event: &Event| -> io::Result<()> {
            let (line, next) = format::encode(&place, at_ms, event)?;
            bytes.extend_from_slice(&line);
            place = next;
            Ok(())
        };
        if open.bytes == 0 {
            let number = open.numbers.last().copied().unwrap_or(1);
            add(now_ms, &Event::File { number, version: VERSION, node: self.key.id().to_string() })?;
        }
        self.found.iter().try_for_each(|event| add(now_ms, event))?;
        events.iter().try_for_each(|(at_ms, event)| add(*at_ms, event))?;
        open.file.write_all(&bytes)?;
        self.found.clear();
        if self.unsigned == 0 {
            self.unsigned_since = Instant::now();
        }
        let lines = place.sequence - self.place.sequence;
        (self.unsigned, self.unsynced, self.written) = (self.unsigned + lines, self.unsynced + lines, self.written + lines);
        (self.place, open.bytes) = (place, open.bytes + bytes.len() as u64);
        self.open = Some(open);
        Ok(())
    }

    /// Signs, syncs and begins the next file, as far as it is time for that.
    fn finish(&mut self, urgent: bool, settles: bool) -> io::Result<()> {
        let full = self.open.as_ref().is_some_and(|open| open.bytes >= self.limits.file_bytes);
        let old = self.unsigned_since.elapsed() >= SIGN_INTERVAL;
        if self.unsigned > 0 && (settles || full || old || self.unsigned >= SIGN_LINES) {
            self.sign()?;
        }
        if self.unsynced > 0 && (urgent || full || elapsed(self.synced) >= SYNC_INTERVAL) {
            self.sync()?;
        }
        if full { self.begin_next() } else { Ok(()) }
    }

    fn sign(&mut self) -> io::Result<()> {
        let Place { sequence, hash } = self.place;
        let (node, signature) = (self.key.id().to_string(), self.place.sign(&self.key));
        let checkpoint = Event::Checkpoint { sequence, hash: hash.to_hex().to_string(), node, signature };
        self.write(&[(wall_ms(), checkpoint)])?;
        self.unsigned = 0;
        Ok(())
    }

    /// Lines first, then the place that they have come to.
    fn sync(&mut self) -> io::Result<()> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        open.file.sync_data()?;
        if platform::is_unlinked(&open.file)? {
            return Err(io::Error::other("a file of the audit was removed while it was written to"));
        }
        self.open = Some(open);
        store::save_audit_head(&self.dir, &self.place.head(&self.key)).map_err(io::Error::other)?;
        (self.unsynced, self.synced) = (0, Some(Instant::now()));
        Ok(())
    }

    /// Leaves a full file, and removes the oldest where there are too many.
    fn begin_next(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let number = open.numbers.last().copied().unwrap_or_default() + 1;
        open.numbers.push(number);
        self.open = Some(self.open_file(open.numbers)?);
        self.write(&[])?;
        self.sync()?;
        while let Some(open) = &self.open
            && open.numbers.len() > self.limits.files
        {
            let (oldest, next) = (open.numbers[0], open.numbers[1]);
            let (up_to, hash) = before(&self.dir, next)?;
            self.write(&[(wall_ms(), Event::Removed { number: oldest, up_to, hash })])?;
            self.sync()?;
            fs::remove_file(format::path(&self.dir, oldest))?;
            platform::sync_dir(&self.dir.join(FOLDER))?;
            if let Some(open) = &mut self.open {
                open.numbers.remove(0);
            }
        }
        Ok(())
    }

    /// Looks at what is there, and decides where the chain goes on.
    fn open(&mut self) -> io::Result<Open> {
        // What was torn is in no file any more; the rest is found again.
        self.found.retain(|event| matches!(event, Event::Torn { .. }));
        platform::create_private_dir(&self.dir.join(FOLDER))?;
        let (mut numbers, _) = format::files(&self.dir)?;
        let genesis = Place::before_all(&self.key.id());
        let head = self.head(&numbers)?;
        let tail = Tail::find(&self.dir, &numbers, head.as_ref())?;
        let last = tail.last.unwrap_or(genesis);
        self.place = match head {
            Some(head) if !tail.agrees => {
                let (from, to) = (head.sequence.min(last.sequence) + 1, head.sequence.max(last.sequence));
                self.found.push(Event::Gap { from, to });
                head
            }
            _ => last,
        };
        if numbers.is_empty() {
            numbers.push(1);
        }
        if !tail.torn.is_empty() {
            self.found.push(torn(&tail.torn));
            let number = numbers.last().copied().unwrap_or(1);
            let file = fs::OpenOptions::new().write(true).open(format::path(&self.dir, number))?;
            file.set_len(tail.whole_bytes)?;
        }
        self.open_file(numbers)
    }

    /// How far the record had come, by the head outside of it. A new record has one before its first line.
    fn head(&mut self, numbers: &[u64]) -> io::Result<Option<Place>> {
        let node = self.key.id();
        let unsigned = match store::audit_head(&self.dir) {
            Ok(Some(head)) => match Place::of_head(&head).filter(|place| place.is_signed(&node, &head.signature)) {
                Some(place) => return Ok(Some(place)),
                None => "its head is not signed by this node".to_owned(),
            },
            Ok(None) if numbers.is_empty() => {
                let genesis = Place::before_all(&node);
                store::save_audit_head(&self.dir, &genesis.head(&self.key)).map_err(io::Error::other)?;
                return Ok(Some(genesis));
            }
            Ok(None) => "its head was missing".to_owned(),
            Err(error) => error.to_string(),
        };
        self.found.push(Event::Unsigned { why: Text::new(&unsigned) });
        Ok(None)
    }

    fn open_file(&self, numbers: Vec<u64>) -> io::Result<Open> {
        let path = format::path(&self.dir, numbers.last().copied().unwrap_or(1));
        let file = platform::append_private_file(&path)?;
        let bytes = file.metadata()?.len();
        if bytes == 0 {
            platform::sync_dir(&self.dir.join(FOLDER))?;
        }
        Ok(Open { file, bytes, numbers })
    }
}

fn elapsed(since: Option<Instant>) -> Duration {
    since.map_or(Duration::MAX, |since| since.elapsed())
}

/// The number and the hash of the line before a file's first.
fn before(dir: &Path, number: u64) -> io::Result<(u64, String)> {
    let bytes = fs::read(format::path(dir, number))?;
    let first = format::lines(&bytes).0.first().and_then(|raw| format::decode(raw).ok());
    Ok(first.map_or_else(Default::default, |line| (line.place.sequence - 1, line.content.previous)))
}

fn torn(bytes: &[u8]) -> Event {
    let kept = &bytes[..bytes.len().min(TORN_BYTES_KEPT)];
    Event::Torn { bytes: bytes.len() as u64, hash: blake3::hash(bytes).to_hex().to_string(), hex: hex::encode(kept) }
}

/// What the last files end with.
struct Tail {
    /// The last whole line whose bytes give its hash.
    last: Option<Place>,
    /// Whether the line that the head names is there, or no head says otherwise.
    agrees: bool,
    /// Behind the last whole line.
    torn: Vec<u8>,
    /// Of the last file, without that.
    whole_bytes: u64,
}

impl Tail {
    /// From the end back to the line that `head` names: usually the last one. Where a file was just begun it is in the one before.
    fn find(dir: &Path, numbers: &[u64], head: Option<&Place>) -> io::Result<Self> {
        let agrees = head.is_none_or(|head| head.sequence == 0);
        let mut tail = Self { last: None, agrees, torn: Vec::new(), whole_bytes: 0 };
        for (age, number) in numbers.iter().rev().take(2).enumerate() {
            let bytes = fs::read(format::path(dir, *number))?;
            let (lines, rest) = format::lines(&bytes);
            if age == 0 {
                (tail.torn, tail.whole_bytes) = (rest.to_vec(), (bytes.len() - rest.len()) as u64);
            }
            for line in lines.iter().rev().filter_map(|raw| format::decode(raw).ok()) {
                tail.last.get_or_insert(line.place);
                if tail.agrees {
                    return Ok(tail);
                }
                if head.is_some_and(|head| head.sequence == line.place.sequence) {
                    tail.agrees = head == Some(&line.place);
                    return Ok(tail);
                }
            }
        }
        Ok(tail)
    }
}
