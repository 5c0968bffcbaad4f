//! The built-in engine: llama.cpp in a supervised child process, behind the same trait as every other engine.
//!
//! This side renders OpenAI's JSON and events; the worker ([`worker`]) knows tokens only. The process starts with the first request and
//! ends when nothing was asked for a while, so that an idle node stays small. Describing a model reads its file's header and needs no
//! worker. Embeddings, tools and images are refused by name, never ignored.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atmo_capabilities::capability::{Offer, facts};
use atmo_protocol::Slug;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::offer::{Catalogue, Listed};
use crate::{Backend, BackendError, Call, Description, Health, Operation, Reply};

mod answer;
mod chat;
pub mod engine;
pub mod frames;
pub mod gguf;
pub mod model_file;
mod process;
mod supervisor;
mod template;
mod text;
pub mod worker;

use answer::Answer;
use chat::{Asked, Unfit};
use engine::EngineSettings;
use frames::{Job, Prompt};
use gguf::Gguf;
use model_file::HeaderCache;
pub use model_file::{GgufModel, ModelSource};
use supervisor::{COMMANDS_MAX, Command, Event, Status, Supervisor};
pub use template::TemplateChoice;

/// What the built-in model is called.
pub const BUILT_IN_NAME: &str = "atmo-tiny";
/// Requests at once: 4 slots give half as much again as one on the tiny model, 8 little more.
const SLOTS: u16 = 4;
/// Tokens per slot asked for; the model's own limit is lower where it was trained on less.
const CONTEXT: u32 = 2_048;
/// The same for models by path: what a conversation with a few pages of text takes.
const FILE_CONTEXT: u32 = 4_096;
/// A worker that was asked nothing for this long is ended.
const IDLE_UNLOAD: Duration = Duration::from_secs(5 * 60);
/// The tiny model is too small to gain from a second thread.
const BUILT_IN_THREADS: u32 = 1;
/// The tiny model says what it learned when it is not made to guess.
const BUILT_IN_TEMPERATURE: f32 = 0.0;
/// What llama.cpp's own server uses.
const FILE_TEMPERATURE: f32 = 0.8;
/// Bytes of text per token of context beyond which a prompt cannot fit: no token stands for more.
const BYTES_PER_TOKEN_MAX: usize = 64;
/// How long the worker may take to end when the node does.
const SHUT_DOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How the worker is started: the node's own executable and `worker`.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// One model in one worker.
#[derive(Clone, Debug)]
pub struct LlamaCppConfig {
    /// Unique within the node.
    pub name: String,
    /// What users call the model; taken from the file where absent.
    pub model_name: Option<String>,
    pub model: ModelSource,
    pub worker: WorkerCommand,
    pub slots: u16,
    /// Tokens per slot, capped by what the model was trained for.
    pub context: u32,
    pub idle_unload: Duration,
}

impl LlamaCppConfig {
    /// The model inside the executable.
    pub fn built_in(worker: WorkerCommand) -> Self {
        Self {
            name: "builtin".to_owned(),
            model_name: Some(BUILT_IN_NAME.to_owned()),
            model: ModelSource::BuiltIn,
            worker,
            slots: SLOTS,
            context: CONTEXT,
            idle_unload: IDLE_UNLOAD,
        }
    }

    /// A model on disk.
    pub fn file(name: &str, model: GgufModel, worker: WorkerCommand) -> Self {
        Self {
            name: name.to_owned(),
            model_name: None,
            model: ModelSource::File(model),
            worker,
            slots: SLOTS,
            context: FILE_CONTEXT,
            idle_unload: IDLE_UNLOAD,
        }
    }

    fn display_name(&self) -> String {
        self.model_name.clone().or_else(|| file_name(&self.model)).unwrap_or_else(|| self.name.clone())
    }

    fn engine_settings(&self) -> EngineSettings {
        let (model, threads, template, temperature) = match &self.model {
            ModelSource::BuiltIn => (PathBuf::new(), BUILT_IN_THREADS, TemplateChoice::ChatMl, BUILT_IN_TEMPERATURE),
            ModelSource::File(model) => {
                let threads = crate::hardware::detect_cpu().cores.saturating_sub(1).max(1);
                (model.path.clone(), threads, TemplateChoice::OfModel, FILE_TEMPERATURE)
            }
        };
        EngineSettings { model, slots: self.slots.max(1), context: self.context, threads, template, temperature }
    }
}

/// The built-in engine with one model.
pub struct LlamaCpp {
    config: Arc<LlamaCppConfig>,
    slug: Slug,
    headers: Arc<HeaderCache>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    next_id: AtomicU64,
}

impl LlamaCpp {
    /// Starts the supervising task, but no worker. Must be called within a runtime.
    pub fn new(config: LlamaCppConfig) -> Self {
        let config = Arc::new(config);
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (publish, status) = watch::channel(Status::default());
        tokio::spawn(Supervisor::new(config.clone(), config.engine_settings(), received, publish).run());
        let slug = Slug::from_name(&config.display_name());
        Self { config, slug, headers: Arc::default(), commands, status, next_id: AtomicU64::new(1) }
    }

    /// The worker's process, while there is one.
    pub fn worker_pid(&self) -> Option<u32> {
        self.status.borrow().pid
    }

    /// The offer, read from the model's header.
    async fn offer(&self) -> Result<Offer, BackendError> {
        let (model, headers) = (self.config.model.clone(), self.headers.clone());
        let reading = tokio::task::spawn_blocking(move || headers.read(&model));
        let gguf = reading.await.map_err(|_| self.failed("reading the model file failed"))?;
        let gguf = gguf.map_err(|error| self.failed(error.to_string()))?;
        let listed = listed(&self.config, &gguf);
        Catalogue::new(&[listed])
            .offers
            .pop()
            .ok_or_else(|| self.failed("the model has no name: give it one in the configuration"))
    }

    async fn begin(&self, asked: &Asked) -> Result<Conversation, BackendError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // A slot gives at most one text per token, and a few words around them: nothing is ever lost for want of room.
        let (events, received) = mpsc::channel(self.config.context as usize + 8);
        let job = Job { id, prompt: asked.prompt.clone(), sampling: asked.sampling.clone() };
        let run = Command::Run { job, events };
        self.commands.try_send(run).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.busy(),
            mpsc::error::TrySendError::Closed(_) => self.failed("it was shut down"),
        })?;
        Ok(Conversation { id, events: received, commands: self.commands.clone(), ended: false })
    }

    /// A prompt that cannot fit is refused before the worker spends time on it.
    fn refuse_too_long(&self, asked: &Asked) -> Option<Reply> {
        let bytes = match &asked.prompt {
            Prompt::Chat(messages) => messages.iter().map(|message| message.content.len()).sum(),
            Prompt::Text(text) => text.len(),
        };
        let too_long = bytes > self.config.context as usize * BYTES_PER_TOKEN_MAX;
        let message =
            format!("the prompt is {bytes} bytes long and cannot fit into this model's context: shorten the conversation");
        too_long.then(|| refusal(&message, Some("messages"), "context_length_exceeded"))
    }

    fn answer(&self, call: &Call, asked: &Asked, id: u64) -> Answer {
        let prefix = if call.operation == Operation::Chat { "chatcmpl" } else { "cmpl" };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Answer {
            operation: call.operation,
            id: format!("{prefix}-{created}-{id}"),
            created,
            model: self.config.display_name(),
            include_usage: asked.include_usage,
        }
    }

    fn failed(&self, cause: impl Into<String>) -> BackendError {
        BackendError::Failed { backend: self.config.name.clone(), cause: cause.into() }
    }

    fn busy(&self) -> BackendError {
        BackendError::Busy { backend: self.config.name.clone(), retry_after: None }
    }

    fn timed_out(&self) -> BackendError {
        BackendError::TimedOut { backend: self.config.name.clone() }
    }
}

#[async_trait::async_trait]
impl Backend for LlamaCpp {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn describe(&self) -> Result<Description, BackendError> {
        let engine = match self.config.model {
            ModelSource::BuiltIn => "llama.cpp (built in)",
            ModelSource::File(_) => "llama.cpp",
        };
        Ok(Description { engine: engine.to_owned(), offers: vec![self.offer().await?] })
    }

    async fn health(&self) -> Health {
        match self.status.borrow().health.clone() {
            Health::Up => {}
            other => return other,
        }
        match &self.config.model {
            ModelSource::BuiltIn => Health::Up,
            // A file that went away is told before somebody asks for it.
            ModelSource::File(model) => match tokio::fs::metadata(&model.path).await {
                Ok(_) => Health::Up,
                Err(error) => Health::Down(format!("the model file {} cannot be read: {error}", model.path.display())),
            },
        }
    }

    async fn execute(&self, call: Call) -> Result<Reply, BackendError> {
        let deadline = Instant::now() + call.remaining;
        if self.slug != call.slug {
            return Err(BackendError::NotOffered { backend: self.config.name.clone(), slug: call.slug.to_string() });
        }
        let asked = match Asked::read(call.operation, &call.body) {
            Ok(asked) => asked,
            Err(Unfit { message, field, code }) => return Ok(refusal(&message, field.as_deref(), code)),
        };
        if let Some(refused) = self.refuse_too_long(&asked) {
            return Ok(refused);
        }
        let mut conversation = self.begin(&asked).await?;
        let answer = self.answer(&call, &asked, conversation.id);
        let first = timeout_at(deadline, conversation.next()).await.map_err(|_| self.timed_out())?;
        match first {
            Event::Busy => Err(self.busy()),
            Event::Failed(cause) => Err(self.failed(cause)),
            Event::Refused { message, code } => Ok(refusal(&message, None, &code)),
            _ if asked.stream => Ok(self.stream(conversation, answer, deadline)),
            _ => self.whole(conversation, answer, deadline).await,
        }
    }

    async fn shut_down(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::ShutDown { done }).await.is_ok() {
            let _ = tokio::time::timeout(SHUT_DOWN_TIMEOUT, ended).await;
        }
    }
}

impl LlamaCpp {
    fn stream(&self, conversation: Conversation, answer: Answer, deadline: Instant) -> Reply {
        let streaming =
            Streaming { backend: self.config.name.clone(), conversation, answer, deadline, opened: false, failed: None };
        Reply { status: 200, content_type: "text/event-stream".to_owned(), chunks: streaming.chunks() }
    }

    async fn whole(&self, mut conversation: Conversation, answer: Answer, deadline: Instant) -> Result<Reply, BackendError> {
        let mut text = String::new();
        loop {
            match timeout_at(deadline, conversation.next()).await.map_err(|_| self.timed_out())? {
                Event::Text(more) => text.push_str(&more),
                Event::Done { reason, usage } => return Ok(Reply::json(200, &answer.whole(&text, reason, usage))),
                Event::Failed(cause) => return Err(self.failed(cause)),
                Event::Started { .. } | Event::Refused { .. } | Event::Busy => {}
            }
        }
    }
}

/// One request in the supervisor's hands. Dropping it before its end cancels it.
struct Conversation {
    id: u64,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Sender<Command>,
    ended: bool,
}

impl Conversation {
    /// The next thing that becomes of it. Safe to drop.
    async fn next(&mut self) -> Event {
        let event = self.events.recv().await.unwrap_or_else(|| Event::Failed("it was shut down".to_owned()));
        self.ended = !matches!(event, Event::Started { .. } | Event::Text(_));
        event
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if !self.ended {
            // With the channel full the supervisor notices at the next text that nobody listens.
            let _ = self.commands.try_send(Command::Cancel { id: self.id });
        }
    }
}

/// An answer on its way, event by event.
struct Streaming {
    backend: String,
    conversation: Conversation,
    answer: Answer,
    deadline: Instant,
    opened: bool,
    /// To be said after the event that tells the client.
    failed: Option<BackendError>,
}

impl Streaming {
    fn chunks(self) -> BoxStream<'static, Result<Bytes, BackendError>> {
        futures::stream::unfold(self, |mut streaming| async move { streaming.next().await.map(|chunk| (chunk, streaming)) })
            .boxed()
    }

    async fn next(&mut self) -> Option<Result<Bytes, BackendError>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.conversation.ended {
            return None;
        }
        loop {
            match timeout_at(self.deadline, self.conversation.next()).await {
                Err(_) => return Some(self.fail(BackendError::TimedOut { backend: self.backend.clone() })),
                Ok(Event::Text(text)) => return Some(Ok(self.opened_with(self.answer.text(&text)))),
                Ok(Event::Done { reason, usage }) => return Some(Ok(self.opened_with(self.answer.closing(reason, usage)))),
                Ok(Event::Failed(cause)) => {
                    return Some(self.fail(BackendError::Failed { backend: self.backend.clone(), cause }));
                }
                Ok(Event::Started { .. } | Event::Refused { .. } | Event::Busy) => {}
            }
        }
    }

    /// Who speaks is said together with the first text: until then the request can still go elsewhere.
    fn opened_with(&mut self, bytes: Bytes) -> Bytes {
        if std::mem::replace(&mut self.opened, true) {
            return bytes;
        }
        [self.answer.opening(), bytes].concat().into()
    }

    /// Before the first byte an error is all; after it the client is told in the stream first.
    fn fail(&mut self, error: BackendError) -> Result<Bytes, BackendError> {
        self.stop();
        if !self.opened {
            return Err(error);
        }
        let event = self.answer.broken(&error.to_string());
        self.failed = Some(error);
        Ok(event)
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.conversation.ended, true) {
            let _ = self.conversation.commands.try_send(Command::Cancel { id: self.conversation.id });
        }
    }
}

fn refusal(message: &str, field: Option<&str>, code: &str) -> Reply {
    Reply::refusal(400, message, "invalid_request_error", field, Some(code))
}

fn listed(config: &LlamaCppConfig, gguf: &Gguf) -> Listed {
    let built_in = matches!(config.model, ModelSource::BuiltIn);
    let mut listed = Listed::from_name(&config.display_name(), config.slots);
    if built_in {
        listed.description = BUILT_IN_DESCRIPTION.to_owned();
        listed.set_fact(facts::DEMONSTRATION, true);
    }
    if !gguf.architecture.is_empty() {
        listed.set_fact(facts::FAMILY, &gguf.architecture);
    }
    let trained = gguf.context_length.unwrap_or(u64::MAX);
    listed.set_fact(facts::CONTEXT_LENGTH, trained.min(u64::from(config.context)));
    // As many digits as say something: the tiny model has 0.0027 billion.
    listed.set_fact(facts::PARAMETERS_BILLIONS, (gguf.parameters as f64 / 1e5).round() / 1e4);
    listed
}

/// Spelled out for the embedder.
const BUILT_IN_DESCRIPTION: &str = "The small built-in demonstration model of atmo: greetings, short questions, small sums, capitals of \
    countries, and questions about the mesh, its nodes and peers. It is tiny and works offline; any other model knows more.";

fn file_name(model: &ModelSource) -> Option<String> {
    match model {
        ModelSource::BuiltIn => None,
        ModelSource::File(model) => model.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_built_in_model_is_described_without_a_worker() {
        let worker = WorkerCommand { program: "/does/not/exist".into(), args: Vec::new() };
        let engine = LlamaCpp::new(LlamaCppConfig::built_in(worker));
        let description = engine.describe().await.unwrap();
        let offer = &description.offers[0];
        assert_eq!((offer.slug.as_str(), offer.body.kind.as_str(), offer.slots), ("atmo-tiny", "llm", 4));
        for (key, value) in [("demonstration", "true"), ("context_length", "1024"), ("parameters_b", "0.0027")] {
            assert!(offer.body.facts.contains(&(key.into(), value.into())), "{key}: {:?}", offer.body.facts);
        }
        assert_eq!((engine.health().await, engine.worker_pid()), (Health::Up, None));
    }

    #[tokio::test]
    async fn a_worker_that_does_not_start_is_told_and_waited_for() {
        let worker = WorkerCommand { program: "/does/not/exist".into(), args: Vec::new() };
        let engine = LlamaCpp::new(LlamaCppConfig::built_in(worker));
        let call = || Call {
            operation: Operation::Chat,
            slug: atmo_protocol::Slug::from_name(BUILT_IN_NAME),
            body: br#"{"messages":[{"role":"user","content":"hi"}]}"#[..].into(),
            remaining: Duration::from_secs(5),
            trace: "t".into(),
        };
        for _ in 0..4 {
            let error = engine.execute(call()).await.unwrap_err();
            assert!(matches!(&error, BackendError::Failed { .. }), "{error}");
        }
        let (Health::Degraded(reason) | Health::Down(reason)) = engine.health().await else { panic!("it is not up") };
        assert!(reason.contains("does not start"), "{reason}");
        engine.shut_down().await;
    }
}
