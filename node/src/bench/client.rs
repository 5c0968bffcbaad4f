//! A client that adds as little as it can: one kept connection of HTTP/1.1, written and read by hand.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::mock::{MODEL, PAUSE_FIELD};

/// A request takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
}

/// What one streamed answer took.
#[derive(Debug, Clone, Default)]
pub struct Streamed {
    /// To the first token.
    pub first: Duration,
    /// Between tokens that came one after another.
    pub gaps: Vec<Duration>,
    pub tokens: u32,
}

impl Connection {
    /// For a short chat request, whole or streamed with a pause before each token.
    pub async fn open(address: SocketAddr, streamed: bool, pause: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let body = format!(
            r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"What is a mesh?"}}],"stream":{streamed},{PAUSE_FIELD}{}}}"#,
            pause.as_micros()
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Ok(Self { stream, request: [head.into_bytes(), body.into_bytes()].concat(), received: Vec::with_capacity(16 << 10) })
    }

    /// One whole answer.
    pub async fn ask(&mut self) -> io::Result<Duration> {
        tokio::time::timeout(PATIENCE, self.ask_whole()).await?
    }

    async fn ask_whole(&mut self) -> io::Result<Duration> {
        let since = Instant::now();
        self.stream.write_all(&self.request).await?;
        self.received.clear();
        loop {
            self.read_more().await?;
            if let Some(head) = find(&self.received, b"\r\n\r\n") {
                let (status, length) = read_head(&self.received[..head])?;
                if status != 200 {
                    return Err(io::Error::other(String::from_utf8_lossy(&self.received).into_owned()));
                }
                let complete = match length {
                    Some(length) => self.received.len() >= head + 4 + length,
                    None => self.received.ends_with(b"0\r\n\r\n"),
                };
                if complete {
                    return Ok(since.elapsed());
                }
            }
        }
    }

    /// One streamed answer, to its end.
    pub async fn stream(&mut self) -> io::Result<Streamed> {
        tokio::time::timeout(PATIENCE, self.read_stream()).await?
    }

    async fn read_stream(&mut self) -> io::Result<Streamed> {
        let since = Instant::now();
        self.stream.write_all(&self.request).await?;
        self.received.clear();
        let (mut streamed, mut last, mut read) = (Streamed::default(), since, 0);
        loop {
            self.read_more().await?;
            let new = count(&self.received[read..], b"\"content\":");
            if new > 0 {
                let now = Instant::now();
                if streamed.tokens == 0 {
                    streamed.first = now - since;
                } else {
                    streamed.gaps.push(now - last);
                }
                last = now;
                streamed.tokens += new;
                // What stands before the last token's end is not counted again.
                read = self.received.windows(2).rposition(|two| two == b"\n\n").map_or(read, |at| at + 2);
            }
            if self.received.ends_with(b"\r\n0\r\n\r\n") {
                return Ok(streamed);
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Status and `content-length`.
fn read_head(head: &[u8]) -> io::Result<(u16, Option<usize>)> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, length))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn count(bytes: &[u8], what: &[u8]) -> u32 {
    bytes.windows(what.len()).filter(|window| *window == what).count() as u32
}
