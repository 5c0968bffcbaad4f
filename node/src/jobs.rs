//! Work that outlives its client: asked for, left, looked at again, cancelled.
//!
//! A job is one request of the API, run as a stream whose events are kept, so that whoever comes back reads them from the beginning or
//! from where the connection was lost. Everything is bounded: jobs, those running at once, what one keeps, how long one stays after its end.
//! Jobs live in memory and end with the node.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atmo_dialects::chat::refusal;
use atmo_dialects::sse::{SseParser, write_event};
use atmo_dialects::{Event, Reader};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caller::Caller;
use crate::execute::{Answer, Ask, ExecuteError, Executor};

/// Jobs that are known; the longest ended goes first.
pub const JOBS_MAX: usize = 256;
/// Jobs at work at once, and of one caller.
const RUNNING_MAX: usize = 64;
const RUNNING_MAX_OF_ONE: usize = 16;
/// A backend that is busy is asked again after its own estimate, within these.
const BUSY_WAIT_MIN: Duration = Duration::from_millis(250);
const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);
/// What all jobs together may keep once they are over; the longest ended goes first.
const KEPT_BYTES_MAX_OF_ALL: usize = 128 << 20;
/// What one job may say altogether.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// How long an ended job can still be read.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// The `object` of an event that is about the job itself.
const PROGRESS: &str = "job.progress";

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Being routed, or waiting for a slot.
    Queued,
    /// Its first byte is here.
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl JobState {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Why no job was made.
#[derive(Debug, thiserror::Error)]
#[error(
    "there are as many jobs at work as this node takes ({RUNNING_MAX_OF_ONE} of one caller, {RUNNING_MAX} in all); wait for one to end, or cancel one"
)]
pub struct TooManyJobs;

/// Says why nobody answered.
pub type Explain = Box<dyn Fn(&ExecuteError) -> Value + Send + Sync>;

/// All jobs of a node.
#[derive(Clone)]
pub struct Jobs {
    executor: Arc<Executor>,
    tasks: TaskTracker,
    /// Where jobs run: whoever asks for one may be on a thread that ends before.
    runtime: Handle,
    /// Newest last.
    known: Arc<Mutex<VecDeque<Arc<Job>>>>,
}

/// One of them.
pub struct Job {
    pub id: String,
    pub caller: Caller,
    created_s: u64,
    cancel: CancellationToken,
    told: Mutex<Told>,
    /// Rung whenever something was added.
    news: watch::Sender<()>,
}

/// What a job has said so far.
struct Told {
    state: JobState,
    /// JSON, one event each.
    events: Vec<Bytes>,
    bytes: usize,
    ended: Option<Instant>,
}

/// What the events of a job come to.
#[derive(Default)]
struct Summary {
    /// The text of its first choice.
    output: String,
    tool_calls: Vec<Value>,
    usage: Value,
    /// An answer that is no stream, such as embeddings.
    result: Value,
    error: Value,
}

impl Summary {
    fn of(events: &[Bytes]) -> Self {
        let mut summary = Self::default();
        let mut reader = Reader::new("text/event-stream");
        for event in events {
            let Ok(told) = serde_json::from_slice::<Value>(event) else { continue };
            match told.get("object").and_then(Value::as_str) {
                Some(PROGRESS) => {}
                _ if told.get("error").is_some_and(|error| !error.is_null()) => summary.error = told["error"].clone(),
                Some("chat.completion.chunk" | "text_completion") | None if told.get("choices").is_some() => {
                    summary.usage = told.get("usage").filter(|usage| !usage.is_null()).cloned().unwrap_or(summary.usage);
                    let said = reader.push(&write_event(&told.to_string())).unwrap_or_default();
                    said.into_iter().for_each(|said| summary.take(said));
                }
                _ => {
                    summary.usage = told.get("usage").cloned().unwrap_or_default();
                    summary.result = told;
                }
            }
        }
        summary
    }

    fn take(&mut self, said: Event) {
        match said {
            Event::Text(text) => self.output.push_str(&text),
            Event::Call { id, name, .. } => {
                self.tool_calls.push(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": "" } }));
            }
            Event::Arguments { place, json } => {
                if let Some(Value::String(arguments)) =
                    self.tool_calls.get_mut(place).map(|call| &mut call["function"]["arguments"])
                {
                    arguments.push_str(&json);
                }
            }
            _ => {}
        }
    }
}

impl Jobs {
    /// Must be called within the runtime that jobs are to run on.
    pub fn new(executor: Arc<Executor>, tasks: TaskTracker) -> Self {
        Self { executor, tasks, runtime: Handle::current(), known: Arc::default() }
    }

    /// Begins a job; it runs whether anybody reads it or not. `explain` says in OpenAI's shape why nobody answered;
    /// `lease` ends it as well as [`Job::cancel`] does.
    /// `place` is held until it is over.
    pub fn start<P: Send + 'static>(
        &self,
        ask: Ask,
        explain: Explain,
        lease: &CancellationToken,
        place: P,
    ) -> Result<Arc<Job>, TooManyJobs> {
        let job = Arc::new(Job::new(ask.caller.clone(), lease.child_token()));
        {
            let mut known = self.lock();
            let running = known.iter().filter(|job| !job.state().is_over());
            let (all, own) = running.fold((0, 0), |(all, own), job| (all + 1, own + usize::from(job.caller == ask.caller)));
            if all >= RUNNING_MAX || own >= RUNNING_MAX_OF_ONE {
                return Err(TooManyJobs);
            }
            forget_old(&mut known);
            known.push_back(Arc::clone(&job));
        }
        let (executor, running) = (Arc::clone(&self.executor), Arc::clone(&job));
        let work = async move {
            running.run(&executor, ask, explain).await;
            drop(place);
        };
        self.tasks.spawn_on(work, &self.runtime);
        Ok(job)
    }

    /// The jobs that `caller` may see, newest first: the owner sees all.
    pub fn list(&self, caller: &Caller) -> Vec<Arc<Job>> {
        let known = self.lock();
        known.iter().rev().filter(|job| job.is_visible_to(caller)).cloned().collect()
    }

    pub fn get(&self, id: &str, caller: &Caller) -> Option<Arc<Job>> {
        self.list(caller).into_iter().find(|job| job.id == id)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Job>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|job| !job.is_stale());
        known
    }
}

impl Job {
    fn new(caller: Caller, cancel: CancellationToken) -> Self {
        let told = Told { state: JobState::Queued, events: Vec::new(), bytes: 0, ended: None };
        let job = Self {
            id: format!("job_{}", hex::encode(crate::chance::random_bytes::<12>())),
            caller,
            created_s: crate::driver::clock::wall_ms() / 1000,
            cancel,
            told: Mutex::new(told),
            news: watch::Sender::new(()),
        };
        job.enter(JobState::Queued, json!({}));
        job
    }

    pub fn state(&self) -> JobState {
        self.lock().state
    }

    /// Ends the work at once. Nothing happens to a job that is over.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The job as it is now, without what it has answered.
    pub fn brief(&self) -> Value {
        json!({ "id": self.id, "object": "job", "status": self.state(), "created_at": self.created_s })
    }

    /// The job as it is now, with what it has answered so far.
    pub fn summary(&self) -> Value {
        let told = self.lock();
        let told_so_far = Summary::of(&told.events);
        json!({
            "id": self.id,
            "object": "job",
            "status": told.state,
            "created_at": self.created_s,
            "output": told_so_far.output,
            "tool_calls": told_so_far.tool_calls,
            "usage": told_so_far.usage,
            "result": told_so_far.result,
            "error": told_so_far.error,
        })
    }

    /// The events from the `from`th on, waiting for the first of them; `None` behind the last of a job that is over.
    pub async fn events(&self, from: usize) -> Option<Vec<Bytes>> {
        let mut news = self.news.subscribe();
        loop {
            {
                let told = self.lock();
                if told.events.len() > from {
                    return Some(told.events[from..].to_vec());
                }
                if told.state.is_over() {
                    return None;
                }
            }
            // The sender lives as long as we do.
            _ = news.changed().await;
        }
    }

    async fn run(&self, executor: &Executor, ask: Ask, explain: Explain) {
        let work = async {
            let answer = run_when_free(executor, ask).await.map_err(|error| explain(&error))?;
            self.enter(JobState::Running, json!({ "node": &*answer.by.node_name, "capability": answer.by.name }));
            self.keep_all(answer).await
        };
        let outcome = tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            outcome = work => Some(outcome),
        };
        match outcome {
            None => self.enter(JobState::Cancelled, json!({})),
            Some(Ok(())) => self.enter(JobState::Completed, json!({})),
            Some(Err(error)) => {
                self.add(&json!({ "error": error }));
                self.enter(JobState::Failed, json!({}));
            }
        }
    }

    /// Keeps every event of the answer; one that is no stream is one event.
    async fn keep_all(&self, mut answer: Answer) -> Result<(), Value> {
        let is_stream = answer.content_type.starts_with("text/event-stream");
        let (mut parser, mut whole) = (SseParser::new(), Vec::new());
        while let Some(piece) = answer.next().await {
            let bytes = piece.map_err(|error| message(&error.to_string()))?;
            if is_stream {
                let events = parser.push(&bytes).into_iter().filter(|event| event.data != atmo_dialects::sse::DONE);
                events.for_each(|event| self.add_bytes(event.data.into()));
            } else {
                whole.extend_from_slice(&bytes);
            }
            if self.lock().bytes + whole.len() > KEPT_BYTES_MAX {
                return Err(message(&format!("the answer is longer than {} MiB", KEPT_BYTES_MAX >> 20)));
            }
        }
        let refused = answer.status >= 400;
        answer.finish();
        if refused {
            return Err(message(&refusal(&whole)));
        }
        if !whole.is_empty() {
            let told: Value = serde_json::from_slice(&whole).map_err(|_| message("the backend's answer is not JSON"))?;
            self.add(&told);
        }
        Ok(())
    }

    fn enter(&self, state: JobState, more: Value) {
        let mut event = json!({ "object": PROGRESS, "id": self.id, "status": state });
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        self.add(&event);
        let mut told = self.lock();
        told.state = state;
        told.ended = state.is_over().then(Instant::now);
        drop(told);
        self.news.send_replace(());
    }

    fn add(&self, event: &Value) {
        self.add_bytes(event.to_string().into());
    }

    fn add_bytes(&self, event: Bytes) {
        let mut told = self.lock();
        told.bytes += event.len();
        told.events.push(event);
        drop(told);
        self.news.send_replace(());
    }

    fn is_stale(&self) -> bool {
        self.lock().ended.is_some_and(|ended| ended.elapsed() > KEPT_FOR)
    }

    fn is_visible_to(&self, caller: &Caller) -> bool {
        *caller == Caller::Owner || *caller == self.caller
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room among the jobs that are over, the longest ended first.
fn forget_old(known: &mut VecDeque<Arc<Job>>) {
    let kept = |known: &VecDeque<Arc<Job>>| known.iter().map(|job| job.lock().bytes).sum::<usize>();
    while (known.len() >= JOBS_MAX || kept(known) > KEPT_BYTES_MAX_OF_ALL)
        && let Some(at) = known.iter().position(|job| job.state().is_over())
    {
        known.remove(at);
    }
}

/// Nobody waits at the other end: a busy backend is asked again until the request's time is over.
async fn run_when_free(executor: &Executor, ask: Ask) -> Result<Answer, ExecuteError> {
    loop {
        let error = match executor.run(ask.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let wait = error.busy_for().map(|wait| wait.clamp(BUSY_WAIT_MIN, BUSY_WAIT_MAX));
        match wait {
            Some(wait) if Instant::now() + wait < ask.deadline => tokio::time::sleep(wait).await,
            _ => return Err(error),
        }
    }
}

fn message(text: &str) -> Value {
    json!({ "message": text, "type": "server_error" })
}
