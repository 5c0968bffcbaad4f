//! Which peers requests run with, and since when none do: what decides which connection gives way to another.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use std::{fmt, io};

use atmo_protocol::NodeId;
use futures::{AsyncRead, AsyncWrite};

/// Counts the request streams of each peer, in either direction. Cheap to clone.
#[derive(Clone, Default)]
pub struct Usage(Arc<Mutex<BTreeMap<NodeId, Use>>>);

struct Use {
    streams: usize,
    since: Instant,
    /// The peer is not connected any more: forgotten with its last stream.
    gone: bool,
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Usage").field(&self.lock().len()).finish()
    }
}

impl Usage {
    /// The stream, counted until it is dropped.
    pub fn count<S>(&self, peer: NodeId, stream: S) -> Counted<S> {
        self.change(peer, |streams| streams + 1);
        Counted { stream, _held: Held { usage: self.clone(), peer } }
    }

    /// Somebody waits for this peer, or it came a moment ago.
    pub fn touch(&self, peer: NodeId) {
        self.change(peer, |streams| streams);
    }

    /// Since when nothing runs with the peer; `None` while something does.
    pub fn idle_since(&self, peer: &NodeId) -> Option<Instant> {
        self.lock().get(peer).filter(|used| used.streams == 0).map(|used| used.since)
    }

    /// The peer is gone; what still runs with it is counted to its end.
    pub fn forget(&self, peer: &NodeId) {
        let mut used = self.lock();
        match used.get_mut(peer) {
            Some(running) if running.streams > 0 => running.gone = true,
            _ => _ = used.remove(peer),
        }
    }

    fn change(&self, peer: NodeId, streams: impl FnOnce(usize) -> usize) {
        let mut used = self.lock();
        let before = used.get(&peer).map_or(0, |used| used.streams);
        used.insert(peer, Use { streams: streams(before), since: Instant::now(), gone: false });
    }

    fn end(&self, peer: &NodeId) {
        let mut used = self.lock();
        let Some(entry) = used.get_mut(peer) else { return };
        (entry.streams, entry.since) = (entry.streams.saturating_sub(1), Instant::now());
        if entry.gone && entry.streams == 0 {
            used.remove(peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is counted until it is dropped.
pub struct Counted<S> {
    stream: S,
    _held: Held,
}

struct Held {
    usage: Usage,
    peer: NodeId,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.usage.end(&self.peer);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_idle_while_no_stream_runs_with_it() {
        let (usage, peer) = (Usage::default(), NodeId::from_bytes([1; 32]));
        assert_eq!(usage.idle_since(&peer), None, "nothing is known of it");
        usage.touch(peer);
        let came = usage.idle_since(&peer).unwrap();
        let (first, second) = (usage.count(peer, ()), usage.count(peer, ()));
        drop(first);
        assert_eq!(usage.idle_since(&peer), None);
        drop(second);
        assert!(usage.idle_since(&peer).unwrap() >= came);
        let last = usage.count(peer, ());
        usage.forget(&peer);
        drop(last);
        assert!(usage.lock().is_empty(), "a peer that is gone is kept as long as its last stream");
    }
}
