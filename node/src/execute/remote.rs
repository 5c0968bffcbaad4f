//! The asker's half of a request to another node.

use std::io;
use std::time::Duration;

use atmo_adapters::Call;
use atmo_protocol::record::Load;
use atmo_protocol::{CapabilityId, CertificateHash};
use bytes::Bytes;
use futures::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::BrokenOff;
use crate::data_plane::ByteStream;
use crate::exchange::{self, Piece, RequestHead, Trailer, Verdict, Why};
use crate::provider::Rejection;

/// Where to tell how busy a capability was when its node last answered.
pub type LoadsHeard = mpsc::Sender<(CapabilityId, Load)>;

/// The executor has this long to take the request.
const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// Replies whose loads may wait for the driver; what does not fit is told by the next frame of gossip anyway.
pub const LOADS_WAITING_MAX: usize = 64;

/// An answer that another node is sending. Dropping it tells that node to stop.
pub struct RemoteAnswer {
    pub status: u16,
    pub content_type: String,
    from: CapabilityId,
    loads: LoadsHeard,
    stream: ByteStream,
    trailer: Option<Trailer>,
}

impl RemoteAnswer {
    /// Sends the request to the node of `from` and waits for its verdict; for `receipt_wait` at most until that node says that it is there.
    pub async fn ask(
        mut stream: ByteStream,
        call: Call,
        certificate: CertificateHash,
        from: CapabilityId,
        loads: LoadsHeard,
        receipt_wait: Duration,
    ) -> Result<Self, Rejection> {
        let head = RequestHead {
            version: exchange::VERSION,
            request: crate::chance::random_bytes(),
            remaining_ms: u32::try_from(call.remaining.as_millis()).unwrap_or(u32::MAX),
            trace: call.trace,
            certificate,
            operation: call.operation,
            slug: call.slug,
            body_bytes: call.body.len() as u32,
            extensions: Vec::new(),
        };
        let verdict = exchange_request(&mut stream, &head, &call.body, receipt_wait).await;
        match verdict? {
            Verdict::Accepted { status, content_type, load } => {
                _ = loads.try_send((from.clone(), load));
                Ok(Self { status, content_type, from, loads, stream, trailer: None })
            }
            Verdict::Busy { wait_ms, load } => {
                _ = loads.try_send((from, load));
                Err(Rejection::Busy { wait_ms, load })
            }
            Verdict::Refused { why, message } => Err(Rejection::Refused { why, message }),
            Verdict::Received => Err(lost(io::Error::new(io::ErrorKind::InvalidData, "it acknowledged the request twice"))),
            Verdict::Quote { .. } => Err(lost(io::Error::new(io::ErrorKind::InvalidData, "it answered what was not asked"))),
        }
    }

    pub async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        if self.trailer.is_some() {
            return None;
        }
        match exchange::read_piece(&mut self.stream).await {
            Ok(Piece::Chunk(bytes)) => Some(Ok(bytes.into())),
            Ok(Piece::End(trailer)) => {
                let error = trailer.error.clone();
                _ = self.loads.try_send((self.from.clone(), trailer.load));
                self.trailer = Some(trailer);
                error.map(|cause| Err(BrokenOff(cause)))
            }
            Err(error) => {
                self.trailer = Some(Trailer::default());
                Some(Err(BrokenOff(format!("the connection to the executing node was lost ({error})"))))
            }
        }
    }
}

/// Writes the request while listening for the first word, and gives the verdict.
async fn exchange_request(
    stream: &mut ByteStream,
    head: &RequestHead,
    body: &[u8],
    receipt_wait: Duration,
) -> Result<Verdict, Rejection> {
    let (mut reading, mut writing) = stream.split();
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the node does not answer");
    let first = async { tokio::time::timeout(receipt_wait, exchange::read_verdict(&mut reading)).await.map_err(silent)? };
    let write =
        async { tokio::time::timeout(REQUEST_WAIT, exchange::write_request(&mut writing, head, body)).await.map_err(silent)? };
    let ((), received) = tokio::try_join!(write, first).map_err(unanswered)?;
    let verdict = match received {
        Verdict::Received => exchange::read_verdict(&mut reading).await,
        verdict => Ok(verdict),
    };
    verdict.map_err(lost)
}

fn unanswered(error: io::Error) -> Rejection {
    Rejection::Unanswered { message: format!("the request did not arrive ({error})") }
}

fn lost(error: io::Error) -> Rejection {
    let message = format!("the connection was lost before an answer began ({error})");
    Rejection::Refused { why: Why::BackendFailed, message }
}
