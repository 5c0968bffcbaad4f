//! The node's end of the control socket.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{CONTROL_VERSION, CommandError, Envelope, LINE_BYTES_MAX, Line, Request};
use crate::platform;

/// Commands answered at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 32;
/// Pieces of an answer that wait for a slow reader before the work itself waits.
const DELTAS_WAITING_MAX: usize = 64;
/// A client has this long to say what it wants.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// Commands that are under way when the node ends have this long to finish.
const DRAIN_WAIT: Duration = Duration::from_secs(3);
/// After a failed `accept` (no file descriptors left), the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the running node does for each command. Dropping the future cancels the work.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    async fn handle(&self, request: Request, deltas: DeltaSender) -> Result<serde_json::Value, CommandError>;
}

/// Sends pieces of the answer while it is made. Waits when the reader is slow.
#[derive(Clone, Debug)]
pub struct DeltaSender(mpsc::Sender<String>);

/// The client hung up; its request is being cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client hung up")]
pub struct HungUp;

impl DeltaSender {
    pub async fn send(&self, text: impl Into<String>) -> Result<(), HungUp> {
        self.0.send(text.into()).await.map_err(|_| HungUp)
    }
}

/// Opens the control socket of the folder whose lock the caller holds; what a killed node left there is removed.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = platform::control_socket_path(data_dir)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = platform::bind_private_socket(&path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Answers commands until `shutdown`, then lets those under way finish for a moment.
pub async fn serve(listener: UnixListener, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => { connections.spawn(converse(stream, Arc::clone(&handler))); }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let _ = tokio::time::timeout(DRAIN_WAIT, async { while connections.join_next().await.is_some() {} }).await;
}

/// One connection: one request, one answer.
async fn converse(stream: UnixStream, handler: Arc<dyn Handler>) {
    if !stream.peer_cred().is_ok_and(|peer| platform::may_control(peer.uid())) {
        tracing::warn!("another user's process tried the control socket");
        return;
    }
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    let last = match tokio::time::timeout(REQUEST_WAIT, read_request(&mut reading)).await {
        Ok(Ok(Some(request))) => match answer(request, handler, &mut reading, &mut writing).await {
            Some(last) => last,
            None => return,
        },
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(error)) => Line::Error(error),
    };
    let _ = write_line(&mut writing, &last).await;
}

/// Runs the handler and passes its deltas on. `None` when the client hung up.
async fn answer(
    request: Request,
    handler: Arc<dyn Handler>,
    reading: &mut BufReader<OwnedReadHalf>,
    writing: &mut OwnedWriteHalf,
) -> Option<Line> {
    let (sender, mut deltas) = mpsc::channel(DELTAS_WAITING_MAX);
    let mut work = handler.handle(request, DeltaSender(sender));
    let mut rest = [0; 64];
    let outcome = loop {
        tokio::select! {
            biased;
            Some(text) = deltas.recv() => write_line(writing, &Line::Delta(text)).await.ok()?,
            outcome = &mut work => break outcome,
            // Nothing more is expected from the client: whatever ends the wait ends the request.
            _ = reading.read(&mut rest) => return None,
        }
    };
    drop(work);
    while let Ok(text) = deltas.try_recv() {
        write_line(writing, &Line::Delta(text)).await.ok()?;
    }
    Some(outcome.map_or_else(Line::Error, Line::Done))
}

/// The request, or `None` when the client said nothing.
async fn read_request(reading: &mut BufReader<OwnedReadHalf>) -> Result<Option<Request>, CommandError> {
    let Some(line) = read_line(reading).await.map_err(CommandError::failed)? else { return Ok(None) };
    let version = serde_json::from_slice::<VersionOnly>(&line).map_err(CommandError::usage)?.version;
    if version != CONTROL_VERSION {
        return Err(CommandError::failed(format_args!(
            "the running node speaks control version {CONTROL_VERSION}, this command version {version}: restart the node with this `atmo`"
        )));
    }
    serde_json::from_slice::<Envelope>(&line).map(|envelope| Some(envelope.request)).map_err(CommandError::usage)
}

#[derive(serde::Deserialize)]
struct VersionOnly {
    version: u32,
}

/// One line of at most [`LINE_BYTES_MAX`] without its end; `None` at the end of the stream.
pub(super) async fn read_line(reading: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reading.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        let cause =
            if read > LINE_BYTES_MAX { "a line of the control socket is too long" } else { "the connection ended in a line" };
        return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
    }
    Ok(Some(line))
}

async fn write_line(writing: &mut OwnedWriteHalf, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    if bytes.len() >= LINE_BYTES_MAX {
        let error = CommandError::failed("the answer is too long for the control socket");
        bytes = serde_json::to_vec(&Line::Error(error))?;
    }
    bytes.push(b'\n');
    writing.write_all(&bytes).await
}
