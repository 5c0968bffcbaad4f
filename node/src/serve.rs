//! The executor's half of a request from another node: read it, run it, send the answer as it is made, stop when the asker stops.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use atmo_adapters::Call;
use atmo_adapters::Operation;
use atmo_adapters::observe::Usage;
use atmo_adapters::openai::form::Form;
use atmo_adapters::openai::types::known_fields;
use atmo_protocol::NodeId;
use atmo_protocol::membership::Roles;
use atmo_protocol::record::Load;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::admission::Gate;
use crate::audit::event::Served;
use crate::audit::{Audit, Event, Text};
use crate::caller::Caller;
use crate::data_plane::ByteStream;
use crate::exchange::{self, RequestHead, Trailer, Verdict, Why};
use crate::provider::{Execution, Provider, Rejection};

/// An asker has this long to send its head and body.
const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// Beyond the time for the request, for the last bytes to be taken.
const TAKING_WAIT: Duration = Duration::from_secs(5);
/// An asker that takes none of the answer for this long does not want it.
const CHUNK_WAIT: Duration = Duration::from_secs(20);
/// Askers that are being told that there is no room; beyond it streams are reset.
const REFUSALS_MAX: usize = 64;
/// A refusal is a few bytes.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);
/// What an asker that found no room should wait.
const REFUSED_WAIT_MS: u32 = 1_000;

/// Serves the streams that admitted peers open.
#[derive(Clone)]
pub struct Server {
    provider: Arc<Provider>,
    gate: Arc<Gate>,
    audit: Audit,
    limits: Limits,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// Requests of each peer, in any state.
    by_peer: Arc<Mutex<BTreeMap<NodeId, usize>>>,
    tasks: TaskTracker,
}

/// What a node takes on for others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests at once, in any state; one peer has half of them at most.
    pub requests: usize,
    /// Longest body of a request.
    pub body_bytes: usize,
    /// Longest that one request is served, whatever its asker says.
    pub request_time: Duration,
}

/// A peer's share of the places, given back on drop.
struct Share {
    by_peer: Arc<Mutex<BTreeMap<NodeId, usize>>>,
    peer: NodeId,
}

impl Share {
    fn take(by_peer: &Arc<Mutex<BTreeMap<NodeId, usize>>>, peer: NodeId, most: usize) -> Option<Self> {
        let mut counts = by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        (*count < most).then(|| *count += 1)?;
        Some(Self { by_peer: Arc::clone(by_peer), peer })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

impl Server {
    /// Requests run as `tasks`, which the node waits for when it drains.
    pub fn new(provider: Arc<Provider>, gate: Arc<Gate>, audit: Audit, tasks: TaskTracker, limits: Limits) -> Self {
        let (places, refusals) = (Arc::new(Semaphore::new(limits.requests)), Arc::new(Semaphore::new(REFUSALS_MAX)));
        Self { provider, gate, audit, limits, places, refusals, by_peer: Arc::default(), tasks }
    }

    /// Takes one stream, or tells its asker at once that there is no room.
    pub fn accept(&self, peer: NodeId, stream: ByteStream) {
        let share = Share::take(&self.by_peer, peer, self.limits.requests.div_ceil(2));
        let Some((share, place)) = share.zip(self.places.clone().try_acquire_owned().ok()) else {
            return self.refuse(peer, stream);
        };
        let server = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = server.serve(peer, stream).await {
                tracing::debug!(%peer, %error, "a request of another node ended early");
            }
            drop((share, place));
        });
    }

    fn refuse(&self, peer: NodeId, mut stream: ByteStream) {
        tracing::warn!(peer = peer.short(), "too many requests of other nodes at once: one was told to wait");
        let Ok(place) = self.refusals.clone().try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            let busy = Verdict::Busy { wait_ms: REFUSED_WAIT_MS, load: Load::default() };
            _ = tokio::time::timeout(REFUSAL_WAIT, exchange::write_verdict(&mut stream, &busy)).await;
            drop(place);
        });
    }

    async fn serve(&self, peer: NodeId, mut stream: ByteStream) -> io::Result<()> {
        let (head, body) = tokio::time::timeout(REQUEST_WAIT, self.receive(&mut stream)).await??;
        if let Some(refusal) = self.refusal(&peer, &head) {
            drop(Trail::new(self.audit.clone(), peer, &head, "refused"));
            return exchange::write_verdict(&mut stream, &refusal).await;
        }
        if head.version == exchange::QUOTE {
            return exchange::write_verdict(&mut stream, &self.quote(&head)).await;
        }
        let mut trail = Trail::new(self.audit.clone(), peer, &head, "abandoned");
        let (mut reading, mut writing) = stream.split();
        let remaining = Duration::from_millis(u64::from(head.remaining_ms)).min(self.limits.request_time);
        // An asker that takes the answer too slowly, or not at all, must not hold a slot for ever.
        let work = tokio::time::timeout(remaining + TAKING_WAIT, self.answer(head, body, remaining, &mut writing, &mut trail));
        tokio::select! {
            outcome = work => outcome?,
            () = hung_up(&mut reading) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the asker stopped")),
        }
    }

    /// Reads a request, and says so as soon as its head is here.
    async fn receive(&self, stream: &mut ByteStream) -> io::Result<(RequestHead, Vec<u8>)> {
        let head = exchange::read_head(stream).await?;
        exchange::write_verdict(stream, &Verdict::Received).await?;
        let body = exchange::read_body(stream, &head, self.limits.body_bytes).await?;
        Ok((head, body))
    }

    /// Members alone have streams at all; asking needs a role besides.
    fn refusal(&self, peer: &NodeId, head: &RequestHead) -> Option<Verdict> {
        let (why, message) = if ![exchange::VERSION, exchange::QUOTE].contains(&head.version) {
            (Why::Malformed, format!("this node speaks version {} of requests, not {}", exchange::VERSION, head.version))
        } else {
            match self.gate.roles(peer) {
                // What is not announced must not be had by guessing its name either.
                Some(_) if !self.gate.own_roles().contains(Roles::PROVIDE) => {
                    (Why::NotAllowed, "the certificate of this node lacks the role `provide`".to_owned())
                }
                Some(roles) if roles.contains(Roles::CONSUME) => return None,
                Some(_) => (Why::NotAllowed, "your certificate lacks the role `consume`".to_owned()),
                None => (Why::NotAllowed, "your membership, or that of this node, has ended".to_owned()),
            }
        };
        Some(Verdict::Refused { why, message })
    }

    /// How busy this node is with what is asked for.
    fn quote(&self, head: &RequestHead) -> Verdict {
        let not_offered =
            || Verdict::Refused { why: Why::NotOffered, message: format!("this node does not offer `{}`", head.slug) };
        self.provider.load_of(&head.slug).map_or_else(not_offered, |load| Verdict::Quote { load })
    }

    async fn answer(
        &self,
        head: RequestHead,
        body: Vec<u8>,
        remaining: Duration,
        writing: &mut (impl AsyncWrite + Unpin),
        trail: &mut Trail,
    ) -> io::Result<()> {
        // What a member asks for reaches a backend only as far as it is known to be harmless.
        let body = harmless(head.operation, &body);
        let call = Call { operation: head.operation, slug: head.slug, body: body.into(), remaining, trace: head.trace };
        match tokio::time::timeout(remaining, self.provider.execute(call, &Caller::Member(trail.peer))).await {
            Ok(Ok(execution)) => stream_answer(execution, writing, trail).await,
            Ok(Err(rejection)) => {
                trail.served.outcome = word(&rejection);
                exchange::write_verdict(writing, &verdict(rejection)).await
            }
            Err(_) => {
                trail.served.outcome = "timed_out";
                let message = "the time for the request ran out".to_owned();
                exchange::write_verdict(writing, &Verdict::Refused { why: Why::TimedOut, message }).await
            }
        }
    }
}

/// The body with what a member may set: nothing, where it cannot be read.
fn harmless(operation: Operation, body: &[u8]) -> Vec<u8> {
    let kept = match operation {
        Operation::Transcribe => Form::parse(body).ok().map(|form| form.known_parts()),
        _ => known_fields(body),
    };
    kept.unwrap_or_default()
}

async fn stream_answer(mut execution: Execution, writing: &mut (impl AsyncWrite + Unpin), trail: &mut Trail) -> io::Result<()> {
    let Execution { status, load, .. } = execution;
    let content_type = execution.content_type.clone();
    trail.served.status = Some(status);
    exchange::write_verdict(writing, &Verdict::Accepted { status, content_type, load }).await?;
    let mut error = None;
    while let Some(piece) = execution.next().await {
        match piece {
            Ok(bytes) => tokio::time::timeout(CHUNK_WAIT, exchange::write_chunk(writing, &bytes)).await??,
            Err(cause) => {
                error = Some(cause.to_string());
                break;
            }
        }
    }
    let (usage, load) = execution.finish();
    let Usage { prompt_tokens, completion_tokens } = usage;
    trail.served.outcome = if error.is_some() { "broken" } else { "whole" };
    (trail.served.prompt_tokens, trail.served.completion_tokens) = (prompt_tokens, completion_tokens);
    let trailer = Trailer { prompt_tokens, completion_tokens, load, error, extensions: Vec::new() };
    exchange::write_trailer(writing, &trailer).await
}

/// A request of another node under way. Dropping it writes the audit's line about it.
struct Trail {
    served: Served,
    peer: NodeId,
    audit: Audit,
    began: Instant,
}

impl Trail {
    /// `outcome`: what became of it, unless told otherwise.
    fn new(audit: Audit, peer: NodeId, head: &RequestHead, outcome: &'static str) -> Self {
        let served = Served {
            request: Text::new(&head.trace),
            operation: head.operation,
            capability: Text::new(head.slug.as_str()),
            node: Some(peer),
            outcome,
            status: None,
            milliseconds: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
        };
        Self { served, peer, audit, began: Instant::now() }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.served.milliseconds = self.began.elapsed().as_millis() as u64;
        let served = self.served.clone();
        // What cost its asker nothing is counted rather than listed where there is much of it.
        let turned_away = served.status.is_none() && matches!(served.outcome, "refused" | "busy");
        self.audit.note(if turned_away { Event::TurnedAway(served) } else { Event::Served(served) });
    }
}

fn word(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Busy { .. } => "busy",
        Rejection::Refused { why: Why::TimedOut, .. } => "timed_out",
        Rejection::Refused { why: Why::BackendFailed, .. } | Rejection::Unanswered { .. } => "broken",
        Rejection::Refused { .. } => "refused",
    }
}

fn verdict(rejection: Rejection) -> Verdict {
    match rejection {
        Rejection::Busy { wait_ms, load } => Verdict::Busy { wait_ms, load },
        Rejection::Refused { why, message } => Verdict::Refused { why, message },
        Rejection::Unanswered { message } => Verdict::Refused { why: Why::BackendFailed, message },
    }
}

/// Resolves when the asker closed or reset its half, or sent what it must not.
async fn hung_up(reading: &mut (impl AsyncRead + Unpin)) {
    _ = reading.read(&mut [0; 1]).await;
}
