//! One request between two nodes, as bytes on a stream.
//!
//! ```text
//! asker    -> executor   head (<= 16 KiB) | body
//! executor -> asker      received | (accepted | busy | refused)      then, after accepted:  chunk* | 0 | trailer
//! ```
//! `received` follows the head at once, so that an asker with another choice need not wait for a node that is gone. It may be left out where
//! the verdict itself comes at once. A head may ask for a quote instead: its version is [`QUOTE`], there is no body, and the verdict says how
//! busy the capability is. Nodes that do not know that refuse it as any version that they do not speak.
//!
//! Every frame is a big-endian `u32` length and that many bytes; a chunk of length 0 announces the trailer. The asker keeps its half of
//! the stream open until it has read the trailer: closing or resetting it earlier means "stop, nobody listens any more".

use std::io;

use atmo_adapters::Operation;
use atmo_protocol::record::{Extensions, Load};
use atmo_protocol::{CertificateHash, Slug, codec};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What this build speaks.
pub const VERSION: u8 = 1;
/// In place of the version: nothing is to be done, only the load is asked for.
pub const QUOTE: u8 = 2;
/// Largest head, answer or trailer.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Largest piece of an answer in one frame; larger pieces are cut.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Largest request body; images in messages are why it is not smaller.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// What is asked, without the body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestHead {
    pub version: u8,
    pub request: [u8; 16],
    /// Time left when this was written; deadlines never travel as clock times.
    pub remaining_ms: u32,
    /// The same on every machine the request touches, for their logs.
    pub trace: String,
    pub certificate: CertificateHash,
    pub operation: Operation,
    pub slug: Slug,
    pub body_bytes: u32,
    pub extensions: Extensions,
}

/// The executor's word on whether it will.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    /// It began: the answer's bytes follow.
    Accepted { status: u16, content_type: String, load: Load },
    /// Queue full. Nothing was done.
    Busy { wait_ms: u32, load: Load },
    /// It cannot or must not. Nothing was done.
    Refused { why: Why, message: String },
    /// It is there and reads on; the verdict follows.
    Received,
    /// How busy the capability is. Nothing was done, and nothing was to be done.
    Quote { load: Load },
}

/// Why an executor refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It offers no such thing (any more).
    NotOffered,
    /// Its backend failed before the first byte.
    BackendFailed,
    /// The time left was not enough.
    TimedOut,
    /// The asker's certificate lacks the role `consume`.
    NotAllowed,
    /// It does not understand the request.
    Malformed,
    /// It is shutting down.
    Draining,
}

/// What stands behind the last byte of the answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Trailer {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub load: Load,
    /// Set where the answer broke off; what was sent before stands.
    pub error: Option<String>,
    pub extensions: Extensions,
}

/// A piece of an answer.
#[derive(Debug, PartialEq)]
pub enum Piece {
    Chunk(Vec<u8>),
    End(Trailer),
}

pub async fn write_request(io: &mut (impl AsyncWrite + Unpin), head: &RequestHead, body: &[u8]) -> io::Result<()> {
    let mut bytes = frame(head)?;
    bytes.extend_from_slice(body);
    io.write_all(&bytes).await?;
    io.flush().await
}

pub async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> io::Result<RequestHead> {
    read_frame(io).await
}

/// `body_bytes_max`: what this node takes, at most [`BODY_BYTES_MAX`].
pub async fn read_body(io: &mut (impl AsyncRead + Unpin), head: &RequestHead, body_bytes_max: usize) -> io::Result<Vec<u8>> {
    let length = head.body_bytes as usize;
    if length > body_bytes_max.min(BODY_BYTES_MAX) {
        return Err(malformed(format!("a request body of {length} bytes is too large")));
    }
    // Grown as bytes arrive: a claimed length alone reserves nothing.
    let mut body = Vec::new();
    io.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(body) }
}

pub async fn write_verdict(io: &mut (impl AsyncWrite + Unpin), verdict: &Verdict) -> io::Result<()> {
    io.write_all(&frame(verdict)?).await?;
    io.flush().await
}

pub async fn read_verdict(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Verdict> {
    read_frame(io).await
}

pub async fn write_chunk(io: &mut (impl AsyncWrite + Unpin), chunk: &[u8]) -> io::Result<()> {
    for piece in chunk.chunks(CHUNK_BYTES_MAX) {
        let mut bytes = Vec::with_capacity(piece.len() + 4);
        bytes.extend_from_slice(&(piece.len() as u32).to_be_bytes());
        bytes.extend_from_slice(piece);
        io.write_all(&bytes).await?;
    }
    io.flush().await
}

pub async fn write_trailer(io: &mut (impl AsyncWrite + Unpin), trailer: &Trailer) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    bytes.extend(frame(trailer)?);
    io.write_all(&bytes).await?;
    io.close().await
}

pub async fn read_piece(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Piece> {
    match read_length(io).await? {
        0 => read_frame(io).await.map(Piece::End),
        length if length > CHUNK_BYTES_MAX => Err(malformed(format!("a chunk of {length} bytes is too large"))),
        length => {
            let mut chunk = vec![0; length];
            io.read_exact(&mut chunk).await?;
            Ok(Piece::Chunk(chunk))
        }
    }
}

fn frame<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let payload = codec::encode(value);
    if payload.len() > FRAME_BYTES_MAX {
        return Err(malformed("a frame of our own is too large".into()));
    }
    let mut bytes = Vec::with_capacity(payload.len() + 4);
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

async fn read_frame<T: DeserializeOwned>(io: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = read_length(io).await?;
    if length > FRAME_BYTES_MAX {
        return Err(malformed(format!("a frame of {length} bytes is too large")));
    }
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    codec::decode(&bytes).map_err(|error| malformed(error.to_string()))
}

async fn read_length(io: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    Ok(u32::from_be_bytes(length) as usize)
}

fn malformed(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    async fn read_request(io: &mut Cursor<Vec<u8>>, body_bytes_max: usize) -> io::Result<(RequestHead, Vec<u8>)> {
        let head = read_head(io).await?;
        let body = read_body(io, &head, body_bytes_max).await?;
        Ok((head, body))
    }

    fn head(body_bytes: u32) -> RequestHead {
        RequestHead {
            version: VERSION,
            request: [1; 16],
            remaining_ms: 1000,
            trace: "t".into(),
            certificate: CertificateHash::from_bytes([2; 32]),
            operation: Operation::Chat,
            slug: Slug::from_name("qwen"),
            body_bytes,
            extensions: vec![],
        }
    }

    #[test]
    fn a_request_and_its_answer_survive_the_stream() {
        let mut wire = Cursor::new(Vec::new());
        block_on(write_request(&mut wire, &head(5), b"hello")).unwrap();
        wire.set_position(0);
        assert_eq!(block_on(read_request(&mut wire, 5)).unwrap(), (head(5), b"hello".to_vec()));

        let mut wire = Cursor::new(Vec::new());
        let verdict = Verdict::Busy { wait_ms: 7, load: Load::default() };
        let trailer = Trailer { completion_tokens: 3, ..Trailer::default() };
        block_on(write_verdict(&mut wire, &verdict)).unwrap();
        block_on(write_chunk(&mut wire, b"one")).unwrap();
        block_on(write_trailer(&mut wire, &trailer)).unwrap();
        wire.set_position(0);
        assert_eq!(block_on(read_verdict(&mut wire)).unwrap(), verdict);
        assert_eq!(block_on(read_piece(&mut wire)).unwrap(), Piece::Chunk(b"one".to_vec()));
        assert_eq!(block_on(read_piece(&mut wire)).unwrap(), Piece::End(trailer));
    }

    /// What crosses the wire today must be what crossed it yesterday.
    #[test]
    fn golden_bytes() {
        let accepted = Verdict::Accepted { status: 200, content_type: "application/json".into(), load: Load::default() };
        let refused = Verdict::Refused { why: Why::NotOffered, message: "no".into() };
        let trailer = Trailer { prompt_tokens: 2, completion_tokens: 300, error: Some("e".into()), ..Trailer::default() };
        for (bytes, golden) in [
            (
                frame(&head(5)),
                "0000003e0101010101010101010101010101010101fbe8030174020202020202020202020202020202020202020202020202020202020202020200047177656e0500",
            ),
            (frame(&accepted), "0000001a00c8106170706c69636174696f6e2f6a736f6e00000000000000"),
            (frame(&Verdict::Busy { wait_ms: 7, load: Load::default() }), "00000009010700000000000000"),
            (frame(&refused), "000000050200026e6f"),
            (frame(&Verdict::Received), "0000000103"),
            (
                frame(&Verdict::Quote { load: Load { running: 3, waiting: 1, slots: 4, ..Load::default() } }),
                "000000080403010400000000",
            ),
            (frame(&trailer), "0000000f02fb2c010000000000000001016500"),
        ] {
            assert_eq!(hex::encode(bytes.unwrap()), golden);
        }
    }

    #[test]
    fn lies_about_length_are_errors() {
        let mut short = Cursor::new(Vec::new());
        block_on(write_request(&mut short, &head(500), b"hello")).unwrap();
        short.set_position(0);
        assert_eq!(block_on(read_request(&mut short, 500)).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let mut huge = Cursor::new(u32::MAX.to_be_bytes().to_vec());
        assert_eq!(block_on(read_verdict(&mut huge)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        huge.set_position(0);
        assert_eq!(block_on(read_piece(&mut huge)).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
