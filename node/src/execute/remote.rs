//! The asker's half of a request to another node.

use std::io;

use atmo_adapters::Call;
use atmo_protocol::CertificateHash;
use bytes::Bytes;

use super::BrokenOff;
use crate::data_plane::ByteStream;
use crate::exchange::{self, Piece, RequestHead, Trailer, Verdict, Why};
use crate::provider::Rejection;

/// An answer that another node is sending. Dropping it tells that node to stop.
pub struct RemoteAnswer {
    pub status: u16,
    pub content_type: String,
    stream: ByteStream,
    trailer: Option<Trailer>,
}

impl RemoteAnswer {
    /// Sends the request and waits for the executor's verdict.
    pub async fn ask(mut stream: ByteStream, call: Call, certificate: CertificateHash) -> Result<Self, Rejection> {
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
        let verdict = async {
            exchange::write_request(&mut stream, &head, &call.body).await?;
            exchange::read_verdict(&mut stream).await
        };
        match verdict.await.map_err(lost)? {
            Verdict::Accepted { status, content_type, .. } => Ok(Self { status, content_type, stream, trailer: None }),
            Verdict::Busy { wait_ms, load } => Err(Rejection::Busy { wait_ms, load }),
            Verdict::Refused { why, message } => Err(Rejection::Refused { why, message }),
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

fn lost(error: io::Error) -> Rejection {
    let message = format!("the connection was lost before an answer began ({error})");
    Rejection::Refused { why: Why::BackendFailed, message }
}
