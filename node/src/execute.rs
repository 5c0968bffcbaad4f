//! A request's life: route, attempt, first byte, stream.
//!
//! Until the first byte of an answer is here, a failed candidate is replaced by the next best one, within the deadline; after it, never.
//! Dropping an [`Answer`] at any point stops the engine that makes it, on this machine or another.

mod proofs;
mod quotes;
mod recent;
mod remote;
mod trail;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use atmo_adapters::{Call, Operation};
use atmo_capabilities::intent::{self, Constraints, Conversation, Intent, ModelChoice, PromptTokens};
use atmo_capabilities::route::{Candidate, Decision, Refusal};
use atmo_capabilities::view::RoutingView;
use atmo_protocol::{CertificateHash, NodeId};
use bytes::Bytes;
use prometheus::IntCounterVec;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::caller::Caller;
use crate::data_plane::DataPlane;
use crate::embedder::EmbedderSlot;
use crate::exchange::Why;
use crate::feedback::{Experiences, InFlight};
use crate::metrics::{Metrics, Now};
use crate::provider::{Execution, Provider, Rejection};
use proofs::CHECKS_MAX;
pub use proofs::Proofs;
pub use quotes::{Asked, Quotes};
pub use recent::RecentModels;
use remote::RemoteAnswer;
pub use remote::{LOADS_WAITING_MAX, LoadsHeard};
use trail::Trail;

/// Candidates tried for one request. With four broken ones the mesh has a problem that a fifth attempt does not solve.
const ATTEMPTS_MAX: usize = 4;
/// A node that has not said by now that it received the request is gone or stopped, where somebody else could answer: several round trips
/// around the world, and far less than gossip needs to notice.
const RECEIPT_WAIT: Duration = Duration::from_millis(1_500);
/// Where nobody else could answer, a slow link gets more time; then the client may try again, and by then gossip knows.
const RECEIPT_WAIT_ALONE: Duration = Duration::from_millis(3_000);

/// What handlers need to get a request answered. Shared by all of them.
pub struct Executor {
    pub me: NodeId,
    pub view: Arc<ArcSwap<RoutingView>>,
    /// Which chain other nodes admitted us by.
    pub certificate: Arc<ArcSwap<CertificateHash>>,
    pub provider: Arc<Provider>,
    pub data_plane: Arc<dyn DataPlane>,
    /// Goes to the driver.
    pub loads_heard: LoadsHeard,
    pub experiences: Experiences,
    pub recent: RecentModels,
    pub proofs: Proofs,
    pub quotes: Quotes,
    pub embedder: Arc<EmbedderSlot>,
    pub metrics: Metrics,
    pub audit: Audit,
    /// False in provider mode: own requests never leave.
    pub mode_asks_others: bool,
    /// Whether the certificate holds the role `consume`.
    pub role_asks_others: AtomicBool,
    /// For a request that names no deadline.
    pub request_max: Duration,
    /// Cuts what is still being answered when the node cannot wait any longer, so that every client is told.
    pub cut: CancellationToken,
}

/// One request as a handler took it in.
#[derive(Clone, Debug)]
pub struct Ask {
    pub operation: Operation,
    pub model: ModelChoice,
    pub constraints: Constraints,
    /// What decides the route: the last user message.
    pub text: String,
    /// How long the whole prompt is, and the longest answer that was asked for.
    pub prompt: PromptTokens,
    pub max_tokens: Option<u32>,
    pub conversation: Option<Conversation>,
    /// The OpenAI request body.
    pub body: Bytes,
    pub deadline: Instant,
    pub trace: String,
    pub caller: Caller,
}

/// An answer whose first byte has arrived.
pub struct Answer {
    pub decision: Decision,
    /// The candidate that answered; not `decision.chosen()` where that one failed.
    pub by: Candidate,
    /// Who was tried before and what each said.
    pub failed: Vec<Attempt>,
    pub status: u16,
    pub content_type: String,
    first: Option<Bytes>,
    rest: Source,
    in_flight: InFlight,
    deadline: Instant,
    cut: CancellationToken,
    end: End,
}

/// How an answer ended, counted when it is dropped: without a word, its client hung up.
struct End {
    word: &'static str,
    ended: IntCounterVec,
    trail: Trail,
}

impl Drop for End {
    fn drop(&mut self) {
        self.ended.with_label_values(&[self.word]).inc();
        self.trail.asked.outcome = self.word;
    }
}

/// A candidate that did not answer.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub name: String,
    pub why: Failure,
    pub message: String,
}

/// What kind of failure, for the status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Busy {
        wait_ms: u32,
    },
    TimedOut,
    /// It did not get the request, or did not say so.
    Unreachable,
    Broken,
}

impl Failure {
    fn word(self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
        }
    }
}

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Nobody was asked: the decision says why.
    #[error("{}", .0.reason)]
    NothingFits(Box<Decision>),
    /// Nothing here fits, and this node's certificate does not let it ask others.
    #[error(
        "this node's certificate lacks the role `consume`, so it may ask nobody but itself, and nothing of its own fits ({}); a member \
         with the role `admin` or `issue` can give it another certificate", .0.reason
    )]
    NoRole(Box<Decision>),
    /// Somebody who could have been asked failed several times and is left alone for a while.
    #[error("{}", .decision.reason)]
    Resting { decision: Box<Decision>, rest: Duration },
    /// The model was in the mesh a while ago.
    #[error("{model:?} is not offered right now; {node} offered it {ago_s} s ago")]
    Away { model: String, node: String, ago_s: u64 },
    /// Everyone who was asked failed before the first byte.
    #[error("{}", told(.0))]
    AllFailed(Vec<Attempt>),
}

/// The answer broke off after its first byte.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct BrokenOff(pub String);

enum Source {
    Here(Box<Execution>),
    There(Box<RemoteAnswer>),
}

fn told(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| format!("{}: {}", attempt.name, attempt.message)).collect::<Vec<_>>().join("; ")
}

impl Executor {
    /// Whether own requests may leave this node.
    pub fn may_ask_others(&self) -> bool {
        self.mode_asks_others && self.role_asks_others.load(Ordering::Relaxed)
    }

    /// What this node counts, with what is so at the moment.
    pub fn render_metrics(&self) -> String {
        let (running, waiting) = self.provider.load();
        self.metrics.render(Now { running, waiting, circuits_open: self.experiences.open_circuits().len() })
    }

    /// Decides without running.
    pub async fn route(&self, ask: &Ask) -> Decision {
        let mut intent = self.intent(ask).await;
        self.decide(&mut intent).await
    }

    /// Runs the request until the first byte of its answer. Dropping the future cancels.
    pub async fn run(&self, ask: Ask) -> Result<Answer, ExecuteError> {
        let since = Instant::now();
        let mut trail = Some(Trail::new(self.audit.clone(), &ask));
        let outcome = self.try_candidates(ask, &mut trail).await;
        if outcome.is_ok() {
            self.metrics.first_byte_after(since.elapsed());
        }
        let label = match &outcome {
            Ok(_) => "answered",
            Err(
                ExecuteError::NothingFits(_) | ExecuteError::NoRole(_) | ExecuteError::Away { .. } | ExecuteError::Resting { .. },
            ) => "nothing_fits",
            Err(ExecuteError::AllFailed(_)) => "failed",
        };
        self.metrics.asked.with_label_values(&[label]).inc();
        if let (Err(error), Some(trail)) = (&outcome, &mut trail) {
            trail.failed(error, label);
        }
        outcome
    }

    /// Takes `trail` where somebody answers.
    async fn try_candidates(&self, ask: Ask, trail: &mut Option<Trail>) -> Result<Answer, ExecuteError> {
        let mut intent = self.intent(&ask).await;
        let mut failed = Vec::new();
        let mut first_decision = None;
        while failed.len() < ATTEMPTS_MAX && Instant::now() < ask.deadline {
            let decision = self.decide(&mut intent).await;
            let Some(candidate) = decision.chosen().cloned() else {
                return Err(if failed.is_empty() { self.refused(decision, &ask.model) } else { ExecuteError::AllFailed(failed) });
            };
            self.recent.seen(&candidate.model, &candidate.node_name);
            let patience = Patience::new(decision.in_order().nth(1).is_some(), ask.deadline);
            let decision = first_decision.get_or_insert(decision);
            match self.attempt(&candidate, &ask, patience).await {
                Ok(begun) => {
                    let mut trail = trail.take().unwrap_or_else(|| Trail::new(self.audit.clone(), &ask));
                    trail.answered(&candidate, begun.status, failed.len());
                    let end = End { word: "abandoned", ended: self.metrics.ended.clone(), trail };
                    let (deadline, cut) = (ask.deadline, self.cut.clone());
                    let Begun { status, content_type, first, rest, in_flight } = begun;
                    let (decision, by) = (decision.clone(), candidate);
                    return Ok(Answer { decision, by, failed, status, content_type, first, rest, in_flight, deadline, cut, end });
                }
                Err((why, message)) => {
                    tracing::info!(trace = ask.trace, capability = candidate.name, %message, "attempt failed");
                    intent.constraints.exclude.push(candidate.id.clone());
                    self.metrics.attempt_failed(why.word());
                    failed.push(Attempt { name: candidate.name, why, message });
                }
            }
        }
        Err(ExecuteError::AllFailed(failed))
    }

    /// Whether others offer something that only this node's certificate keeps it from asking.
    fn role_forbids(&self) -> bool {
        let others_offer = || self.view.load().entries().iter().any(|entry| entry.id.node != self.me);
        self.mode_asks_others && !self.role_asks_others.load(Ordering::Relaxed) && others_offer()
    }

    /// A named model that nobody offers is either a mistake or away.
    fn refused(&self, decision: Decision, model: &ModelChoice) -> ExecuteError {
        if self.role_forbids() {
            return ExecuteError::NoRole(decision.into());
        }
        let unknown = match decision.refusal() {
            Some(Refusal::NoSuchModel { .. } | Refusal::NothingOffered) => true,
            // Known, and all who offer it are gone.
            Some(Refusal::AllExcluded(_)) => all_gone(&decision),
            _ => false,
        };
        let name = if let ModelChoice::Named(name) = model { Some(name).filter(|_| unknown) } else { None };
        match name.and_then(|name| Some((name, self.recent.last(name)?))) {
            Some((name, (node, ago))) => ExecuteError::Away { model: name.clone(), node, ago_s: ago.as_secs() },
            None => match self.shortest_rest(&decision) {
                Some(rest) => ExecuteError::Resting { decision: decision.into(), rest },
                None => ExecuteError::NothingFits(decision.into()),
            },
        }
    }

    /// How long the first of those rests whom nothing but their circuit keeps away.
    fn shortest_rest(&self, decision: &Decision) -> Option<Duration> {
        let resting = decision.excluded.iter().filter(|excluded| excluded.by == "circuit_open");
        resting.filter_map(|excluded| self.experiences.rests_for(&excluded.id)).min()
    }

    /// Decides, and once more where those who would be tried first had to be asked how busy they are.
    async fn decide(&self, intent: &mut Intent) -> Decision {
        let view = self.view.load_full();
        let decision = self.decide_by(&view, intent).await;
        let Some(pair) = self.quotes.wanted(self.me, &view, &decision) else { return decision };
        let quotes = self.quotes.ask(&view, pair).await;
        let heard: BTreeMap<_, _> = quotes.iter().filter_map(|quote| Some((quote.id.clone(), quote.load?))).collect();
        let decision =
            if heard.is_empty() { decision } else { self.decide_by(&self.view.load().with_loads(&heard), intent).await };
        Decision { quotes, ..decision }
    }

    /// Decides, and again without whoever was chosen for what it is not.
    async fn decide_by(&self, view: &RoutingView, intent: &mut Intent) -> Decision {
        let mut rng = ChaCha12Rng::from_seed(crate::chance::random_bytes());
        let mut checks = 0;
        loop {
            self.proofs.exclude_liars(view, intent);
            let decision = self.experiences.decide(view, intent, &mut rng);
            checks += 1;
            if checks > CHECKS_MAX || self.proofs.holds(view, &decision).await {
                return decision;
            }
        }
    }

    /// Embeds what has to be matched by meaning; a named model never waits for the embedder.
    async fn intent(&self, ask: &Ask) -> Intent {
        let vector = match ask.model {
            ModelChoice::Auto if !self.view.load().entries().is_empty() => self.embedder.embed_one(&ask.text).await,
            _ => None,
        };
        let mut constraints = ask.constraints.clone();
        constraints.local_only |= !self.may_ask_others();
        let operation = match ask.operation {
            Operation::Chat => intent::Operation::Chat,
            Operation::Complete => intent::Operation::Complete,
            Operation::Embed => intent::Operation::Embed,
            Operation::Rerank => intent::Operation::Rerank,
            Operation::Transcribe => intent::Operation::Transcribe,
        };
        Intent {
            text: ask.text.clone(),
            vector,
            model: ask.model.clone(),
            operation,
            constraints,
            prompt: Some(ask.prompt),
            max_tokens: ask.max_tokens,
            conversation: ask.conversation,
        }
    }

    /// Sends the request to one candidate and waits for the first byte.
    async fn attempt(&self, candidate: &Candidate, ask: &Ask, patience: Patience) -> Result<Begun, (Failure, String)> {
        let in_flight = self.experiences.start(candidate, ask.conversation);
        let begin = async {
            if candidate.id.node == self.me {
                self.begin_here(candidate, ask).await
            } else {
                self.begin_there(candidate, ask, patience.receipt).await
            }
        };
        let outcome = match tokio::time::timeout(patience.first_byte, begin).await {
            Ok(outcome) => outcome,
            Err(_) => Err((Failure::TimedOut, "no first byte within its time".to_owned())),
        };
        match outcome {
            Ok((status, content_type, first, rest)) => {
                in_flight.began();
                Ok(Begun { status, content_type, first, rest, in_flight })
            }
            Err((why, message)) => {
                match why {
                    Failure::Busy { wait_ms } => in_flight.busy(wait_ms),
                    Failure::TimedOut | Failure::Unreachable | Failure::Broken => in_flight.failed(),
                }
                Err((why, message))
            }
        }
    }

    fn call(&self, candidate: &Candidate, ask: &Ask) -> Call {
        Call {
            operation: ask.operation,
            slug: candidate.id.slug.clone(),
            body: ask.body.clone(),
            remaining: ask.deadline.saturating_duration_since(Instant::now()),
            trace: ask.trace.clone(),
        }
    }

    async fn begin_here(&self, candidate: &Candidate, ask: &Ask) -> Result<Beginning, (Failure, String)> {
        let mut execution = self.provider.execute(self.call(candidate, ask), &ask.caller).await.map_err(rejected)?;
        let first = execution.next().await.transpose().map_err(|error| (Failure::Broken, error.to_string()))?;
        Ok((execution.status, execution.content_type.clone(), first, Source::Here(execution.into())))
    }

    async fn begin_there(&self, candidate: &Candidate, ask: &Ask, receipt: Duration) -> Result<Beginning, (Failure, String)> {
        let stream = self.data_plane.open(&candidate.id.node, receipt).await;
        let stream = stream.map_err(|error| (Failure::Unreachable, format!("cannot reach {}: {error}", candidate.node_name)))?;
        let certificate = **self.certificate.load();
        let (call, loads) = (self.call(candidate, ask), self.loads_heard.clone());
        let answer = RemoteAnswer::ask(stream, call, certificate, candidate.id.clone(), loads, receipt).await;
        let mut answer = answer.map_err(rejected)?;
        let first = answer.next().await.transpose().map_err(|BrokenOff(cause)| (Failure::Broken, cause))?;
        Ok((answer.status, answer.content_type.clone(), first, Source::There(answer.into())))
    }
}

/// How long one candidate is waited for.
#[derive(Clone, Copy)]
struct Patience {
    /// For its node to say that it received the request.
    receipt: Duration,
    first_byte: Duration,
}

impl Patience {
    /// One that stays silent must leave time for the others, if there are any.
    fn new(has_others: bool, deadline: Instant) -> Self {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if has_others {
            Self { receipt: RECEIPT_WAIT, first_byte: remaining / 2 }
        } else {
            Self { receipt: RECEIPT_WAIT_ALONE.min(remaining), first_byte: remaining }
        }
    }
}

type Beginning = (u16, String, Option<Bytes>, Source);

/// An attempt whose first byte is here.
struct Begun {
    status: u16,
    content_type: String,
    first: Option<Bytes>,
    rest: Source,
    in_flight: InFlight,
}

fn all_gone(decision: &Decision) -> bool {
    decision.excluded_by.iter().all(|excluded| matches!(excluded.first.by, "dead" | "no_path"))
}

fn rejected(rejection: Rejection) -> (Failure, String) {
    match rejection {
        Rejection::Busy { wait_ms, load } => {
            let message = format!("busy: {} running, {} waiting, about {wait_ms} ms", load.running, load.waiting);
            (Failure::Busy { wait_ms }, message)
        }
        Rejection::Refused { why: Why::TimedOut, message } => (Failure::TimedOut, message),
        Rejection::Unanswered { message } => (Failure::Unreachable, message),
        Rejection::Refused { message, .. } => (Failure::Broken, message),
    }
}

impl Answer {
    /// The next bytes, as the engine sent them; `None` at the end. Safe to drop between calls.
    pub async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let next = async {
            match &mut self.rest {
                Source::Here(execution) => {
                    execution.next().await.map(|piece| piece.map_err(|error| BrokenOff(error.to_string())))
                }
                Source::There(answer) => answer.next().await,
            }
        };
        let late = || Some(Err(BrokenOff("the time for the request ran out".to_owned())));
        let stopping = || Some(Err(BrokenOff("this node is stopping".to_owned())));
        let piece = tokio::select! {
            biased;
            piece = tokio::time::timeout_at(self.deadline.into(), next) => piece.unwrap_or_else(|_| late()),
            () = self.cut.cancelled() => stopping(),
        };
        if let Some(Err(_)) = &piece {
            self.end.word = "broken";
            self.in_flight.failed();
        }
        piece
    }

    /// Ends the request and learns from it; call after [`next`](Self::next) gave `None`.
    pub fn finish(mut self) {
        self.end.word = "whole";
        self.in_flight.succeeded();
        if let Source::Here(execution) = self.rest {
            execution.finish();
        }
    }
}

impl ExecuteError {
    /// Whether it was only too long for everybody.
    pub fn is_too_long(&self) -> bool {
        let Self::NothingFits(decision) = self else { return false };
        !decision.excluded_by.is_empty() && decision.excluded_by.iter().all(|excluded| excluded.first.by == "context_tokens")
    }

    /// Whether all who could have been asked are on nodes that are gone: they may come back.
    pub fn is_away(&self) -> bool {
        if let Self::NothingFits(decision) = self { all_gone(decision) } else { false }
    }

    /// How long to wait where all who were asked were merely busy.
    pub fn busy_for(&self) -> Option<Duration> {
        let Self::AllFailed(attempts) = self else { return None };
        let waits = attempts.iter().map(|attempt| match attempt.why {
            Failure::Busy { wait_ms } => Some(Duration::from_millis(wait_ms.into())),
            Failure::TimedOut | Failure::Unreachable | Failure::Broken => None,
        });
        waits.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Why nobody was asked, if so.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::NothingFits(decision) => decision.refusal(),
            Self::NoRole(_) | Self::Resting { .. } | Self::Away { .. } | Self::AllFailed(_) => None,
        }
    }
}
