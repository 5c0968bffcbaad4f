//! Control links: one task that writes and one that reads for each peer that this node gossips with.
//!
//! A connection alone is no link. Whoever wants one *asks*: it opens a control stream. The other end *answers* with one of its own, on the
//! same connection, and with that the link stands on both sides; a new question begins it anew. A stream that was asked for is never itself
//! a question, so that two who ask each other at once are content with that. A link can end while its connection goes on.
//!
//! Frames travel as a big-endian `u32` length and that many bytes. The writer takes one frame at a time and asks for the next when it is
//! out, so what waits for a slow peer stays in the state machine as dirty bits. The reader checks signatures before the loop sees a frame.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atmo_protocol::NodeId;
use atmo_protocol::config::FRAME_BYTES_MAX;
use atmo_protocol::wire::{self, FrameError, MemoVerifier, Verified};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::mpsc::{self, Permit};
use tokio::task::AbortHandle;

use crate::peer::peer_id;
use crate::swarm::streams::{CONTROL, Opener};

/// Opening a control stream on a live connection takes a round trip.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// A peer that was asked for a link and does not answer by then is gone, or does not want one.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// The last frame of a link that ends has this long to be pulled, and again to be written.
pub const BYE_MAX: Duration = Duration::from_millis(500);
/// For this long a link that ended is still drained, so that the other end is not cut off before it has read why.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// A control stream that broke on a live connection is not opened again sooner.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// A second break within this time is no accident: the peer reads another stream in place of ours.
const BREAKS_APART: Duration = Duration::from_secs(10);
/// What a node that stops takes to tell its peers.
pub const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// What link tasks tell the loop.
pub enum LinkEvent {
    Frame {
        peer: NodeId,
        reader: u64,
        frame: Verified,
    },
    BadFrame {
        peer: NodeId,
        reader: u64,
        error: FrameError,
    },
    /// A frame is out: the link takes the next one.
    Writable,
    /// The stream of this epoch broke.
    Broken {
        peer: NodeId,
        epoch: u64,
    },
    /// The stream of this epoch is a question that had its time.
    Unanswered {
        peer: NodeId,
        epoch: u64,
    },
}

/// All control links of this node.
pub struct Links {
    opener: Opener,
    verifier: Arc<MemoVerifier>,
    events: mpsc::Sender<LinkEvent>,
    links: BTreeMap<NodeId, Link>,
    /// What the reader of another epoch reads is nobody's.
    readers: BTreeMap<NodeId, Reader>,
    /// When a peer's control stream broke last while its connection held.
    broken: BTreeMap<NodeId, Instant>,
    epoch: u64,
}

struct Link {
    epoch: u64,
    frames: mpsc::Sender<Vec<u8>>,
    writer: AbortHandle,
    /// The peer has not answered yet.
    asked: bool,
    /// The mesh was told that the link stands.
    up: bool,
}

struct Reader {
    epoch: u64,
    task: AbortHandle,
}

impl Links {
    pub fn new(opener: Opener, verifier: Arc<MemoVerifier>, events: mpsc::Sender<LinkEvent>) -> Self {
        Self { opener, verifier, events, links: BTreeMap::new(), readers: BTreeMap::new(), broken: BTreeMap::new(), epoch: 0 }
    }

    /// Asks `peer` for a link, on this connection or on the newest.
    pub fn ask(&mut self, peer: NodeId, connection: Option<ConnectionId>) {
        let up = self.is_up(&peer);
        let epoch = self.write(peer, connection, true, up);
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_WAIT).await;
            _ = events.send(LinkEvent::Unanswered { peer, epoch }).await;
        });
    }

    /// The peer opened a control stream: with that a link stands. Where it was not asked to, it is answered.
    pub fn take(&mut self, peer: NodeId, connection: ConnectionId, stream: Stream) {
        self.read(peer, stream);
        match self.links.get_mut(&peer).filter(|link| link.asked) {
            Some(link) => (link.asked, link.up) = (false, true),
            None => _ = self.write(peer, Some(connection), false, true),
        }
    }

    fn write(&mut self, peer: NodeId, connection: Option<ConnectionId>, asked: bool, up: bool) -> u64 {
        self.epoch += 1;
        let epoch = self.epoch;
        let (frames, queue) = mpsc::channel(1);
        let writer = Writer { peer, connection, epoch, queue, opener: self.opener.clone(), events: self.events.clone() };
        let writer = tokio::spawn(writer.run()).abort_handle();
        if let Some(old) = self.links.insert(peer, Link { epoch, frames, writer, asked, up }) {
            old.writer.abort();
        }
        epoch
    }

    fn read(&mut self, peer: NodeId, stream: Stream) {
        self.epoch += 1;
        let reading = FrameReader { peer, epoch: self.epoch, verifier: self.verifier.clone(), events: self.events.clone() };
        let task = tokio::spawn(reading.run(stream)).abort_handle();
        if let Some(old) = self.readers.insert(peer, Reader { epoch: self.epoch, task }) {
            old.task.abort();
        }
    }

    /// Ends the link and leaves the connection: what was pulled is written, and what the peer still says is not heard.
    pub fn end(&mut self, peer: &NodeId) {
        self.broken.remove(peer);
        if let Some(link) = self.links.remove(peer) {
            abort_after(BYE_MAX, link.writer);
        }
        if let Some(reader) = self.readers.remove(peer) {
            abort_after(DRAIN_MAX, reader.task);
        }
    }

    /// Notes that a stream to `peer` broke; whether one did a moment ago already.
    pub fn broke_again(&mut self, peer: NodeId) -> bool {
        let now = Instant::now();
        self.broken.insert(peer, now).is_some_and(|before| now - before < BREAKS_APART)
    }

    pub fn close(&mut self, peer: &NodeId) {
        self.broken.remove(peer);
        if let Some(link) = self.links.remove(peer) {
            link.writer.abort();
        }
        if let Some(reader) = self.readers.remove(peer) {
            reader.task.abort();
        }
    }

    /// Another mesh: every link ends, and signatures are checked against the new root.
    pub fn restart(&mut self, verifier: Arc<MemoVerifier>) {
        let peers: Vec<NodeId> = self.links.keys().chain(self.readers.keys()).copied().collect();
        peers.iter().for_each(|peer| self.close(peer));
        self.verifier = verifier;
    }

    /// Whether the mesh counts on this link.
    pub fn is_up(&self, peer: &NodeId) -> bool {
        self.links.get(peer).is_some_and(|link| link.up)
    }

    /// Whether there is a link, or one was asked for.
    pub fn has(&self, peer: &NodeId) -> bool {
        self.links.contains_key(peer)
    }

    /// How many links stand, and how many there are with those that were asked for.
    pub fn count(&self) -> (usize, usize) {
        (self.links.values().filter(|link| link.up).count(), self.links.len())
    }

    /// Whether the peer is to be heard on the stream that this reader reads.
    pub fn hears(&self, peer: &NodeId, reader: u64) -> bool {
        self.is_up(peer) && self.readers.get(peer).is_some_and(|current| current.epoch == reader)
    }

    pub fn is_current(&self, peer: &NodeId, epoch: u64) -> bool {
        self.links.get(peer).is_some_and(|link| link.epoch == epoch)
    }

    /// Whether the question of this epoch still waits for its answer.
    pub fn is_unanswered(&self, peer: &NodeId, epoch: u64) -> bool {
        self.links.get(peer).is_some_and(|link| link.epoch == epoch && link.asked)
    }

    /// Room for one frame, if the link stands and has it now.
    pub fn place(&self, peer: &NodeId) -> Option<Permit<'_, Vec<u8>>> {
        self.links.get(peer).filter(|link| !link.asked)?.frames.try_reserve().ok()
    }

    /// Whether no frame waits for its writer.
    pub fn all_written(&self) -> bool {
        self.links.values().all(|link| link.frames.capacity() == link.frames.max_capacity())
    }
}

fn abort_after(wait: Duration, task: AbortHandle) {
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        task.abort();
    });
}

struct Writer {
    peer: NodeId,
    connection: Option<ConnectionId>,
    epoch: u64,
    queue: mpsc::Receiver<Vec<u8>>,
    opener: Opener,
    events: mpsc::Sender<LinkEvent>,
}

impl Writer {
    async fn run(mut self) {
        if let Err(error) = self.write_frames().await {
            tracing::debug!(peer = self.peer.short(), %error, "the control stream broke");
            tokio::time::sleep(REOPEN_PAUSE).await;
            _ = self.events.send(LinkEvent::Broken { peer: self.peer, epoch: self.epoch }).await;
        }
    }

    async fn write_frames(&mut self) -> io::Result<()> {
        let open = self.opener.open_on(peer_id(&self.peer), self.connection, CONTROL);
        let mut stream = tokio::time::timeout(OPEN_WAIT, open).await??;
        // The peer learns of a stream by its first bytes alone.
        stream.flush().await?;
        while let Some(frame) = self.queue.recv().await {
            let mut bytes = Vec::with_capacity(frame.len() + 4);
            bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            bytes.extend(frame);
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            _ = self.events.send(LinkEvent::Writable).await;
        }
        stream.close().await
    }
}

/// Reads frames from one stream.
struct FrameReader {
    peer: NodeId,
    epoch: u64,
    verifier: Arc<MemoVerifier>,
    events: mpsc::Sender<LinkEvent>,
}

impl FrameReader {
    /// Reads until the stream ends or a frame is too large to go on; then it is the writer's or the probes' affair to notice.
    async fn run(self, mut stream: Stream) {
        let (peer, reader) = (self.peer, self.epoch);
        loop {
            let mut length = [0; 4];
            if stream.read_exact(&mut length).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes(length) as usize;
            if length > FRAME_BYTES_MAX {
                let error = FrameError::TooLarge(length);
                _ = self.events.send(LinkEvent::BadFrame { peer, reader, error }).await;
                return;
            }
            let mut bytes = vec![0; length];
            if stream.read_exact(&mut bytes).await.is_err() {
                return;
            }
            let event = match wire::decode(&bytes) {
                Ok(unverified) => LinkEvent::Frame { peer, reader, frame: unverified.verify(&*self.verifier) },
                Err(error) => LinkEvent::BadFrame { peer, reader, error },
            };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }
}
