//! The executor's half of a request from another node: read it, run it, send the answer as it is made, stop when the asker stops.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atmo_adapters::Call;
use atmo_adapters::observe::Usage;
use atmo_protocol::NodeId;
use atmo_protocol::membership::Roles;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::admission::Gate;
use crate::data_plane::ByteStream;
use crate::exchange::{self, RequestHead, Trailer, Verdict, Why};
use crate::provider::{Execution, Provider, Rejection};

/// An asker has this long to send its head and body.
const REQUEST_WAIT: Duration = Duration::from_secs(30);

/// Serves the streams that admitted peers open.
#[derive(Clone)]
pub struct Server {
    provider: Arc<Provider>,
    gate: Arc<Gate>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Server {
    /// Requests run as `tasks`, which the node waits for when it drains, at most `requests_max` at once in any state.
    pub fn new(provider: Arc<Provider>, gate: Arc<Gate>, tasks: TaskTracker, requests_max: usize) -> Self {
        Self { provider, gate, places: Arc::new(Semaphore::new(requests_max)), tasks }
    }

    /// Takes one stream. Over the limit it is reset at once, which the asker sees as a lost connection and tries elsewhere.
    pub fn accept(&self, peer: NodeId, stream: ByteStream) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "too many requests of other nodes at once: one was reset");
            return;
        };
        let server = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = server.serve(peer, stream).await {
                tracing::debug!(%peer, %error, "a request of another node ended early");
            }
            drop(place);
        });
    }

    async fn serve(&self, peer: NodeId, mut stream: ByteStream) -> io::Result<()> {
        let (head, body) = tokio::time::timeout(REQUEST_WAIT, exchange::read_request(&mut stream)).await??;
        if let Some(refusal) = self.refusal(&peer, &head) {
            return exchange::write_verdict(&mut stream, &refusal).await;
        }
        let (mut reading, mut writing) = stream.split();
        let work = self.answer(head, body, &mut writing);
        tokio::select! {
            outcome = work => outcome,
            () = hung_up(&mut reading) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the asker stopped")),
        }
    }

    /// Members alone have streams at all; asking needs a role besides.
    fn refusal(&self, peer: &NodeId, head: &RequestHead) -> Option<Verdict> {
        let (why, message) = if head.version != exchange::VERSION {
            (Why::Malformed, format!("this node speaks version {} of requests, not {}", exchange::VERSION, head.version))
        } else if !self.gate.roles(peer).is_some_and(|roles| roles.contains(Roles::CONSUME)) {
            (Why::NotAllowed, "your certificate lacks the role `consume`".to_owned())
        } else {
            return None;
        };
        Some(Verdict::Refused { why, message })
    }

    async fn answer(&self, head: RequestHead, body: Vec<u8>, writing: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let call = Call {
            operation: head.operation,
            slug: head.slug,
            body: body.into(),
            remaining: Duration::from_millis(u64::from(head.remaining_ms)),
            trace: head.trace,
        };
        let deadline = tokio::time::Instant::now() + call.remaining;
        match tokio::time::timeout_at(deadline, self.provider.execute(call)).await {
            Ok(Ok(execution)) => stream_answer(execution, writing).await,
            Ok(Err(rejection)) => exchange::write_verdict(writing, &verdict(rejection)).await,
            Err(_) => {
                let message = "the time for the request ran out".to_owned();
                exchange::write_verdict(writing, &Verdict::Refused { why: Why::TimedOut, message }).await
            }
        }
    }
}

async fn stream_answer(mut execution: Execution, writing: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let Execution { status, load, .. } = execution;
    let content_type = execution.content_type.clone();
    exchange::write_verdict(writing, &Verdict::Accepted { status, content_type, load }).await?;
    let mut error = None;
    while let Some(piece) = execution.next().await {
        match piece {
            Ok(bytes) => exchange::write_chunk(writing, &bytes).await?,
            Err(cause) => {
                error = Some(cause.to_string());
                break;
            }
        }
    }
    let (usage, load) = execution.finish();
    let Usage { prompt_tokens, completion_tokens } = usage;
    let trailer = Trailer { prompt_tokens, completion_tokens, load, error, extensions: Vec::new() };
    exchange::write_trailer(writing, &trailer).await
}

fn verdict(rejection: Rejection) -> Verdict {
    match rejection {
        Rejection::Busy { wait_ms, load } => Verdict::Busy { wait_ms, load },
        Rejection::Refused { why, message } => Verdict::Refused { why, message },
    }
}

/// Resolves when the asker closed or reset its half, or sent what it must not.
async fn hung_up(reading: &mut (impl AsyncRead + Unpin)) {
    _ = reading.read(&mut [0; 1]).await;
}
