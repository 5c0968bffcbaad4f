//! A request's life: route, attempt, first byte, stream.
//!
//! Until the first byte of an answer is here, a failed candidate is replaced by the next best one, within the deadline; after it, never.
//! Dropping an [`Answer`] at any point stops the engine that makes it, on this machine or another.

mod remote;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use atmo_adapters::{Call, Operation};
use atmo_capabilities::intent::{self, Constraints, Intent, ModelChoice};
use atmo_capabilities::route::{Candidate, Decision, Refusal, decide};
use atmo_capabilities::view::RoutingView;
use atmo_protocol::{CertificateHash, NodeId};
use bytes::Bytes;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use crate::data_plane::DataPlane;
use crate::embedder::EmbedderSlot;
use crate::exchange::Why;
use crate::feedback::{Experiences, InFlight};
use crate::metrics::Metrics;
use crate::provider::{Execution, Provider, Rejection};
use remote::RemoteAnswer;
pub use remote::{LOADS_WAITING_MAX, LoadsHeard};

/// Candidates tried for one request. With four broken ones the mesh has a problem that a fifth attempt does not solve.
const ATTEMPTS_MAX: usize = 4;
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
    pub embedder: Arc<EmbedderSlot>,
    pub metrics: Metrics,
    /// False in provider mode: own requests never leave.
    pub may_ask_others: bool,
    /// For a request that names no deadline.
    pub request_max: Duration,
}

/// One request as a handler took it in.
#[derive(Clone, Debug)]
pub struct Ask {
    pub operation: Operation,
    pub model: ModelChoice,
    pub constraints: Constraints,
    /// What decides the route: the last user message.
    pub text: String,
    /// The OpenAI request body.
    pub body: Bytes,
    pub deadline: Instant,
    pub trace: String,
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
    Busy { wait_ms: u32 },
    TimedOut,
    Broken,
}

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Nobody was asked: the decision says why.
    #[error("{}", .0.reason)]
    NothingFits(Box<Decision>),
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
    /// Decides without running.
    pub async fn route(&self, ask: &Ask) -> Decision {
        let intent = self.intent(ask).await;
        self.decide(&intent)
    }

    /// Runs the request until the first byte of its answer. Dropping the future cancels.
    pub async fn run(&self, ask: Ask) -> Result<Answer, ExecuteError> {
        let outcome = self.try_candidates(ask).await;
        let label = match &outcome {
            Ok(_) => "answered",
            Err(ExecuteError::NothingFits(_)) => "nothing_fits",
            Err(ExecuteError::AllFailed(_)) => "failed",
        };
        self.metrics.asked.with_label_values(&[label]).inc();
        outcome
    }

    async fn try_candidates(&self, ask: Ask) -> Result<Answer, ExecuteError> {
        let mut intent = self.intent(&ask).await;
        let mut failed = Vec::new();
        let mut first_decision = None;
        while failed.len() < ATTEMPTS_MAX && Instant::now() < ask.deadline {
            let decision = self.decide(&intent);
            let Some(candidate) = decision.chosen().cloned() else {
                return Err(if failed.is_empty() {
                    ExecuteError::NothingFits(decision.into())
                } else {
                    ExecuteError::AllFailed(failed)
                });
            };
            let decision_has_others = decision.candidates.len() > 1;
            let decision = first_decision.get_or_insert(decision);
            // One that accepts and stays silent must leave time for the others.
            let remaining = ask.deadline.saturating_duration_since(Instant::now());
            let patience = if decision_has_others { remaining / 2 } else { remaining };
            match self.attempt(&candidate, &ask, patience).await {
                Ok(begun) => return Ok(begun.into_answer(decision.clone(), candidate, failed, ask.deadline)),
                Err((why, message)) => {
                    tracing::info!(trace = ask.trace, capability = candidate.name, %message, "attempt failed");
                    intent.constraints.exclude.push(candidate.id.clone());
                    failed.push(Attempt { name: candidate.name, why, message });
                }
            }
        }
        Err(ExecuteError::AllFailed(failed))
    }

    fn decide(&self, intent: &Intent) -> Decision {
        let mut rng = ChaCha12Rng::from_seed(crate::chance::random_bytes());
        decide(&self.view.load(), intent, &self.experiences.feedback(), &mut rng)
    }

    /// Embeds what has to be matched by meaning; a named model never waits for the embedder.
    async fn intent(&self, ask: &Ask) -> Intent {
        let vector = match ask.model {
            ModelChoice::Auto if !self.view.load().entries().is_empty() => self.embedder.embed_one(&ask.text).await,
            _ => None,
        };
        let mut constraints = ask.constraints.clone();
        constraints.local_only |= !self.may_ask_others;
        let operation = match ask.operation {
            Operation::Chat => intent::Operation::Chat,
            Operation::Complete => intent::Operation::Complete,
            Operation::Embed => intent::Operation::Embed,
        };
        Intent { text: ask.text.clone(), vector, model: ask.model.clone(), operation, constraints, ..Intent::default() }
    }

    /// Sends the request to one candidate and waits for the first byte.
    async fn attempt(&self, candidate: &Candidate, ask: &Ask, patience: Duration) -> Result<Begun, (Failure, String)> {
        let in_flight = self.experiences.start(&candidate.id);
        let begin = async {
            if candidate.id.node == self.me {
                self.begin_here(candidate, ask).await
            } else {
                self.begin_there(candidate, ask).await
            }
        };
        let outcome = match tokio::time::timeout(patience, begin).await {
            Ok(outcome) => outcome,
            Err(_) => Err((Failure::TimedOut, "no first byte within its time".to_owned())),
        };
        match outcome {
            Ok((status, content_type, first, rest)) => {
                in_flight.succeeded();
                Ok(Begun { status, content_type, first, rest, in_flight })
            }
            Err((why, message)) => {
                if !matches!(why, Failure::Busy { .. }) {
                    in_flight.failed();
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
        let mut execution = self.provider.execute(self.call(candidate, ask)).await.map_err(rejected)?;
        let first = execution.next().await.transpose().map_err(|error| (Failure::Broken, error.to_string()))?;
        Ok((execution.status, execution.content_type.clone(), first, Source::Here(execution.into())))
    }

    async fn begin_there(&self, candidate: &Candidate, ask: &Ask) -> Result<Beginning, (Failure, String)> {
        let stream = self.data_plane.open(&candidate.id.node).await;
        let stream = stream.map_err(|error| (Failure::Broken, format!("cannot reach {}: {error}", candidate.node_name)))?;
        let certificate = **self.certificate.load();
        let (call, loads) = (self.call(candidate, ask), self.loads_heard.clone());
        let mut answer = RemoteAnswer::ask(stream, call, certificate, candidate.id.clone(), loads).await.map_err(rejected)?;
        let first = answer.next().await.transpose().map_err(|BrokenOff(cause)| (Failure::Broken, cause))?;
        Ok((answer.status, answer.content_type.clone(), first, Source::There(answer.into())))
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

impl Begun {
    fn into_answer(self, decision: Decision, by: Candidate, failed: Vec<Attempt>, deadline: Instant) -> Answer {
        let Self { status, content_type, first, rest, in_flight } = self;
        Answer { decision, by, failed, status, content_type, first, rest, in_flight, deadline }
    }
}

fn rejected(rejection: Rejection) -> (Failure, String) {
    match rejection {
        Rejection::Busy { wait_ms, load } => {
            let message = format!("busy: {} running, {} waiting, about {wait_ms} ms", load.running, load.waiting);
            (Failure::Busy { wait_ms }, message)
        }
        Rejection::Refused { why: Why::TimedOut, message } => (Failure::TimedOut, message),
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
        let piece = tokio::time::timeout_at(self.deadline.into(), next).await.unwrap_or_else(|_| late());
        if let Some(Err(_)) = &piece {
            self.in_flight.failed();
        }
        piece
    }

    /// Ends the request and learns from it; call after [`next`](Self::next) gave `None`.
    pub fn finish(self) {
        if let Source::Here(execution) = self.rest {
            execution.finish();
        }
    }
}

impl ExecuteError {
    /// Why nobody was asked, if so.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::NothingFits(decision) => decision.refusal(),
            Self::AllFailed(_) => None,
        }
    }
}
