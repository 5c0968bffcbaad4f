//! Handshake frames over the first substreams of a multiplexed connection.
//!
//! Each side opens one substream for what it sends and accepts one for what it reads, so nobody has to be client or server. Frames are a
//! big-endian `u16` length and that many bytes. The multiplexer is polled while a substream is used: yamux makes no progress otherwise.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use atmo_protocol::admission::frame::FRAME_BYTES_MAX;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};

/// After a refusal the reason must arrive before the connection ends: an early drop loses it.
const LINGER: Duration = Duration::from_millis(500);
/// What is still read from a peer while lingering.
const LINGER_BYTES: usize = 16 << 10;

/// The two substreams that a handshake speaks over.
pub struct Channel {
    muxer: StreamMuxerBox,
    sending: Option<SubstreamBox>,
    receiving: Option<SubstreamBox>,
}

impl Channel {
    pub fn new(muxer: StreamMuxerBox) -> Self {
        Self { muxer, sending: None, receiving: None }
    }

    pub fn into_muxer(self) -> StreamMuxerBox {
        self.muxer
    }

    pub async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = u16::try_from(frame.len()).map_err(|_| io::Error::other("a frame of our own is too long"))?;
        let bytes = [&length.to_be_bytes(), frame].concat();
        let mut stream = match self.sending.take() {
            Some(stream) => stream,
            None => open(&mut self.muxer, true).await?,
        };
        let written = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        drive(&mut self.muxer, written).await?;
        self.sending = Some(stream);
        Ok(())
    }

    pub async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut stream = match self.receiving.take() {
            Some(stream) => stream,
            None => open(&mut self.muxer, false).await?,
        };
        let read = async {
            let mut length = [0; 2];
            stream.read_exact(&mut length).await?;
            let length = usize::from(u16::from_be_bytes(length));
            if length > FRAME_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a frame of {length} bytes is no part of an admission"),
                ));
            }
            let mut frame = vec![0; length];
            stream.read_exact(&mut frame).await?;
            Ok(frame)
        };
        let frame = drive(&mut self.muxer, read).await?;
        self.receiving = Some(stream);
        Ok(frame)
    }

    /// Ends both substreams; the connection goes on.
    pub async fn close_streams(&mut self) {
        if let (Some(mut sending), Some(mut receiving)) = (self.sending.take(), self.receiving.take()) {
            let closed = async { sending.close().await.and(receiving.close().await) };
            _ = tokio::time::timeout(LINGER, drive(&mut self.muxer, closed)).await;
        }
    }

    /// Says goodbye, waits for the peer to have read it, ends the connection.
    pub async fn hang_up(mut self) {
        if let Some(mut sending) = self.sending.take() {
            let mut receiving = self.receiving.take();
            let goodbye = async {
                sending.close().await?;
                if let Some(receiving) = &mut receiving {
                    let mut rest = [0; 512];
                    let mut left = LINGER_BYTES;
                    while left > 0 {
                        match receiving.read(&mut rest).await? {
                            0 => break,
                            read => left = left.saturating_sub(read),
                        }
                    }
                }
                Ok(())
            };
            _ = tokio::time::timeout(LINGER, drive(&mut self.muxer, goodbye)).await;
        }
        _ = tokio::time::timeout(LINGER, self.muxer.close()).await;
    }
}

/// A substream of our own, or the next that the peer opens.
async fn open(muxer: &mut StreamMuxerBox, ours: bool) -> io::Result<SubstreamBox> {
    poll_fn(|cx| {
        let stream = if ours { muxer.poll_outbound_unpin(cx) } else { muxer.poll_inbound_unpin(cx) };
        if stream.is_ready() {
            return stream;
        }
        // An address change is nothing to us; anything else the multiplexer reports is its end.
        while let Poll::Ready(event) = muxer.poll_unpin(cx) {
            event?;
        }
        Poll::Pending
    })
    .await
}

/// Runs `work` on a substream while polling the multiplexer.
async fn drive<T>(muxer: &mut StreamMuxerBox, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        while let Poll::Ready(event) = muxer.poll_unpin(cx) {
            if let Err(error) = event {
                // The connection is gone; what it already delivered (a refusal, say) may still be readable.
                return match work.as_mut().poll(cx) {
                    Poll::Pending => Poll::Ready(Err(error)),
                    ready => ready,
                };
            }
        }
        Poll::Pending
    })
    .await
}
