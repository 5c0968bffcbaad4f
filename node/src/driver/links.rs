//! Control links: one task that writes and one that reads for each connected peer.
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
use libp2p::swarm::Stream;
use tokio::sync::mpsc::{self, Permit};
use tokio::task::AbortHandle;

use crate::peer::peer_id;
use crate::swarm::streams::{CONTROL, Opener};

/// Opening a control stream on a live connection takes a round trip.
const OPEN_WAIT: Duration = Duration::from_secs(5);
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
        frame: Verified,
    },
    BadFrame {
        peer: NodeId,
        error: FrameError,
    },
    /// A frame is out: the link takes the next one.
    Writable,
    /// The stream of this epoch broke.
    Broken {
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
    /// Readers of peers whose own connection event is still under way live here too.
    readers: BTreeMap<NodeId, AbortHandle>,
    /// When a peer's control stream broke last while its connection held.
    broken: BTreeMap<NodeId, Instant>,
    epoch: u64,
}

struct Link {
    epoch: u64,
    frames: mpsc::Sender<Vec<u8>>,
    writer: AbortHandle,
}

impl Links {
    pub fn new(opener: Opener, verifier: Arc<MemoVerifier>, events: mpsc::Sender<LinkEvent>) -> Self {
        Self { opener, verifier, events, links: BTreeMap::new(), readers: BTreeMap::new(), broken: BTreeMap::new(), epoch: 0 }
    }

    /// Begins to write to a peer that just connected.
    pub fn open(&mut self, peer: NodeId) {
        self.epoch += 1;
        let (frames, queue) = mpsc::channel(1);
        let writer = Writer { peer, epoch: self.epoch, queue, opener: self.opener.clone(), events: self.events.clone() };
        let writer = tokio::spawn(writer.run()).abort_handle();
        if let Some(old) = self.links.insert(peer, Link { epoch: self.epoch, frames, writer }) {
            old.writer.abort();
        }
    }

    /// Begins to read a control stream that the peer opened. True where it replaces an older one: the peer began the link anew.
    pub fn read(&mut self, peer: NodeId, stream: Stream) -> bool {
        let reader = read_frames(peer, stream, self.verifier.clone(), self.events.clone());
        let old = self.readers.insert(peer, tokio::spawn(reader).abort_handle());
        old.inspect(AbortHandle::abort).is_some()
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
            reader.abort();
        }
    }

    /// Another mesh: every link ends, and signatures are checked against the new root.
    pub fn restart(&mut self, verifier: Arc<MemoVerifier>) {
        let peers: Vec<NodeId> = self.links.keys().chain(self.readers.keys()).copied().collect();
        peers.iter().for_each(|peer| self.close(peer));
        self.verifier = verifier;
    }

    pub fn is_up(&self, peer: &NodeId) -> bool {
        self.links.contains_key(peer)
    }

    pub fn is_current(&self, peer: &NodeId, epoch: u64) -> bool {
        self.links.get(peer).is_some_and(|link| link.epoch == epoch)
    }

    /// Room for one frame, if the link has it now.
    pub fn place(&self, peer: &NodeId) -> Option<Permit<'_, Vec<u8>>> {
        self.links.get(peer)?.frames.try_reserve().ok()
    }

    /// Whether no frame waits for its writer.
    pub fn all_written(&self) -> bool {
        self.links.values().all(|link| link.frames.capacity() == link.frames.max_capacity())
    }
}

struct Writer {
    peer: NodeId,
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
        let mut stream = tokio::time::timeout(OPEN_WAIT, self.opener.open(peer_id(&self.peer), CONTROL)).await??;
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

/// Reads until the stream ends or a frame is too large to go on; then it is the writer's or the probes' affair to notice.
async fn read_frames(peer: NodeId, mut stream: Stream, verifier: Arc<MemoVerifier>, events: mpsc::Sender<LinkEvent>) {
    loop {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            _ = events.send(LinkEvent::BadFrame { peer, error: FrameError::TooLarge(length) }).await;
            return;
        }
        let mut bytes = vec![0; length];
        if stream.read_exact(&mut bytes).await.is_err() {
            return;
        }
        let event = match wire::decode(&bytes) {
            Ok(unverified) => LinkEvent::Frame { peer, frame: unverified.verify(&*verifier) },
            Err(error) => LinkEvent::BadFrame { peer, error },
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
