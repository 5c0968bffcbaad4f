//! The task that owns the worker process: starts it when there is work, passes frames, restarts it after a crash, ends it when idle.
//!
//! All state lives in this one task; the backend talks to it over a bounded channel. A worker that crashes fails the requests it had and
//! nothing else. A worker that is silent for too long while it has work is killed, which is a crash like any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::engine::EngineSettings;
use super::frames::{FinishReason, FrameReader, FromWorker, Job, ToWorker, encode};
use super::model_file::{ModelFileError, ModelSource, PlacedModel, Verifier, place_built_in, verify_built_in};
use super::process::{self, Process, Started};
use super::{LlamaCppConfig, worker};
use crate::Health;
use crate::observe::Usage;
use crate::supervise::{Backoff, DOWN_AFTER_FAILURES};

/// Commands that may wait for the task, which answers within microseconds except while a model file is hashed.
pub const COMMANDS_MAX: usize = 256;
/// Requests that may wait in the worker beyond its slots; the node has a queue of its own before this one.
const WAITING_MAX: usize = 32;
/// Frames between the reading task and this one.
const FRAMES_MAX: usize = 256;
/// A request waits this long for a restart; beyond it another backend is the better choice.
const RESTART_WAIT_MAX: Duration = Duration::from_millis(300);
/// A worker with work whose engine says nothing for this long is stuck. Loading a large model from a slow disk takes minutes.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// A worker with work is asked this often whether it is there ...
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// ... and is killed when it has not answered for this long: its reading thread answers at once whatever the engine computes, so it is
/// stopped, or the machine cannot run it.
const UNANSWERED_MAX: Duration = Duration::from_secs(5);
/// How long a worker may take to end by itself.
const ENDING_MAX: Duration = Duration::from_secs(2);
/// How much of what the worker printed last is shown after a crash.
const LAST_WORDS_BYTES: usize = 400;
const READ_BYTES: usize = 16 << 10;

/// To the supervisor.
pub enum Command {
    Run {
        job: Job,
        events: mpsc::Sender<Event>,
    },
    Cancel {
        id: u64,
    },
    /// End the worker and this task; answered when the process is gone.
    ShutDown {
        done: oneshot::Sender<()>,
    },
}

/// What becomes of one request.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    Started { prompt_tokens: u32 },
    Text(String),
    Done { reason: FinishReason, usage: Usage },
    Refused { message: String, code: String },
    Failed(String),
    Busy,
}

/// How the worker is, for everyone to see.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    pub pid: Option<u32>,
    pub health: Health,
}

impl Default for Status {
    fn default() -> Self {
        Self { pid: None, health: Health::Up }
    }
}

/// The task's state.
pub struct Supervisor {
    config: Arc<LlamaCppConfig>,
    settings: EngineSettings,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Status>,
    verifier: Arc<Verifier>,
    worker: Option<Worker>,
    /// Everything the worker has not answered to the end, or has not been given yet.
    jobs: BTreeMap<u64, Running>,
    backoff: Backoff,
    /// Where the back-off's time begins.
    epoch: Instant,
    shutting_down: Option<oneshot::Sender<()>>,
}

/// A request in the worker's hands, or on its way there.
struct Running {
    events: mpsc::Sender<Event>,
    cancelled: bool,
    /// Present until the worker has it.
    frame: Option<Vec<u8>>,
}

/// The running process.
struct Worker {
    process: Arc<Process>,
    /// Dropping it closes the worker's input, which ends it.
    input: Option<mpsc::Sender<Vec<u8>>>,
    output: mpsc::Receiver<FromProcess>,
    since: Instant,
    /// When its engine last said anything, or was last given something while it had nothing to do.
    heard: Instant,
    /// When it last said anything at all, or began to have work.
    answered: Instant,
    pinged: Instant,
    /// Why we ended it, if so.
    killed: Option<&'static str>,
    /// Told to end; kill it at this time.
    ending: Option<Instant>,
}

enum FromProcess {
    Frame(FromWorker),
    Ended(String),
}

impl Supervisor {
    pub fn new(
        config: Arc<LlamaCppConfig>,
        settings: EngineSettings,
        commands: mpsc::Receiver<Command>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            config,
            settings,
            commands,
            status,
            verifier: Arc::default(),
            worker: None,
            jobs: BTreeMap::new(),
            backoff: Backoff::default(),
            epoch: Instant::now(),
            shutting_down: None,
        }
    }

    /// Runs until shut down, or until nobody holds the backend any more.
    pub async fn run(mut self) {
        loop {
            let wake = self.wake_at();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => break,
                },
                said = next_from(&mut self.worker) => self.hear(said).await,
                () = sleep_until(wake) => self.on_time().await,
            }
            self.publish();
            if self.shutting_down.is_some() && self.worker.is_none() {
                break;
            }
        }
        if let Some(worker) = &self.worker {
            worker.process.kill();
        }
        if let Some(done) = self.shutting_down.take() {
            let _ = done.send(());
        }
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Run { job, events } => self.take(job, events).await,
            Command::Cancel { id } => self.cancel(id),
            Command::ShutDown { done } => {
                self.shutting_down = Some(done);
                self.fail_all("the node is shutting down");
                self.end_worker();
            }
        }
    }

    async fn take(&mut self, job: Job, events: mpsc::Sender<Event>) {
        if self.jobs.len() >= usize::from(self.settings.slots) + WAITING_MAX {
            return tell(&events, Event::Busy);
        }
        if self.shutting_down.is_some() {
            return tell(&events, Event::Failed("the node is shutting down".to_owned()));
        }
        let id = job.id;
        let frame = match encode(&ToWorker::Run(job)) {
            Ok(frame) => frame,
            Err(error) => {
                return tell(&events, Event::Refused { message: error.to_string(), code: "context_length_exceeded".to_owned() });
            }
        };
        let wait = self.backoff.wait_at(self.epoch.elapsed());
        if self.worker.is_none() && wait > RESTART_WAIT_MAX {
            return tell(&events, Event::Failed(self.crash_sentence(wait)));
        }
        self.jobs.insert(id, Running { events, cancelled: false, frame: Some(frame) });
        self.advance().await;
    }

    /// Starts the worker if it is needed and may be, and gives it what waits.
    async fn advance(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        if self.worker.is_none() && self.backoff.wait_at(self.epoch.elapsed()).is_zero() {
            self.start().await;
        }
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        let Some(input) = &worker.input else { return };
        let idle = self.jobs.values().all(|job| job.frame.is_some());
        for job in self.jobs.values_mut() {
            let Some(frame) = job.frame.take() else { continue };
            if input.try_send(frame).is_err() {
                tell(&job.events, Event::Busy);
                job.cancelled = true;
            }
        }
        if idle {
            let now = Instant::now();
            (worker.heard, worker.answered) = (now, now);
        }
    }

    async fn start(&mut self) {
        match self.start_process().await {
            Ok(worker) => self.worker = Some(worker),
            Err(reason) => {
                self.backoff.failed(self.epoch.elapsed(), Duration::ZERO, reason.clone());
                self.fail_all(&reason);
            }
        }
    }

    async fn start_process(&mut self) -> Result<Worker, String> {
        let placed = self.place_model().await?;
        let mut settings = self.settings.clone();
        if let Some(placed) = &placed {
            settings.model.clone_from(&placed.path);
        }
        let mut args = self.config.worker.args.clone();
        args.extend(worker::arguments(&settings));
        let started = process::start(self.config.worker.program.clone().into_os_string(), args, placed).await;
        let started = started.map_err(|error| format!("the worker does not start: {error}"))?;
        tracing::info!(backend = self.config.name, pid = started.process.pid(), "worker started");
        Ok(Worker::of(started))
    }

    /// Checks the model, and puts the built-in one where the worker can open it.
    async fn place_model(&self) -> Result<Option<PlacedModel>, String> {
        let (source, verifier) = (self.config.model.clone(), self.verifier.clone());
        let placing = move || -> Result<Option<PlacedModel>, ModelFileError> {
            match source {
                ModelSource::File(model) => verifier.verify(&model).map(|()| None),
                ModelSource::BuiltIn => {
                    verify_built_in()?;
                    Ok(Some(place_built_in()?))
                }
            }
        };
        let placed = tokio::task::spawn_blocking(placing).await;
        placed.map_err(|_| "checking the model file failed".to_owned())?.map_err(|error| error.to_string())
    }

    async fn hear(&mut self, said: FromProcess) {
        match said {
            FromProcess::Frame(frame) => self.hear_frame(frame),
            FromProcess::Ended(how) => self.ended(how).await,
        }
    }

    fn hear_frame(&mut self, frame: FromWorker) {
        let now = Instant::now();
        if let Some(worker) = &mut self.worker {
            worker.answered = now;
            if frame != FromWorker::Pong {
                worker.heard = now;
            }
        }
        match frame {
            FromWorker::Pong => {}
            FromWorker::Ready { context } => tracing::debug!(backend = self.config.name, context, "worker ready"),
            FromWorker::Started { id, prompt_tokens } => self.pass(id, Event::Started { prompt_tokens }),
            FromWorker::Text { id, text } => self.pass(id, Event::Text(text)),
            FromWorker::Done { id, reason, prompt_tokens, completion_tokens } => {
                self.backoff.served(self.worker.as_ref().map_or(Duration::ZERO, |worker| worker.since.elapsed()));
                self.pass_last(id, Event::Done { reason, usage: Usage { prompt_tokens, completion_tokens } });
            }
            FromWorker::Refused { id, message, code } => self.pass_last(id, Event::Refused { message, code }),
            FromWorker::Failed { id, message } => self.pass_last(id, Event::Failed(message)),
            FromWorker::Fatal { message } => self.fail_all(&message),
        }
    }

    fn pass(&mut self, id: u64, event: Event) {
        let Some(job) = self.jobs.get(&id).filter(|job| !job.cancelled) else { return };
        if job.events.try_send(event).is_err() {
            // Nobody listens any more, and the message that says so was lost or is on its way.
            self.cancel(id);
        }
    }

    fn pass_last(&mut self, id: u64, event: Event) {
        if let Some(job) = self.jobs.remove(&id).filter(|job| !job.cancelled) {
            tell(&job.events, event);
        }
    }

    fn cancel(&mut self, id: u64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.frame.is_some() {
            self.jobs.remove(&id);
            return;
        }
        if !std::mem::replace(&mut job.cancelled, true) {
            let frame = encode(&ToWorker::Cancel { id }).expect("a cancellation is a short frame");
            let input = self.worker.as_ref().and_then(|worker| worker.input.as_ref());
            if input.is_some_and(|input| input.try_send(frame).is_err()) {
                tracing::warn!(backend = self.config.name, "the worker does not read; a cancelled request runs to its end");
            }
        }
    }

    async fn ended(&mut self, how: String) {
        let Some(worker) = self.worker.take() else { return };
        let asked_to = worker.ending.is_some();
        let how = worker.killed.map_or(how, str::to_owned);
        if asked_to {
            tracing::debug!(backend = self.config.name, "worker ended");
        } else {
            tracing::warn!(backend = self.config.name, how, "worker crashed");
            self.backoff.failed(self.epoch.elapsed(), worker.since.elapsed(), how.clone());
        }
        // Whoever is told of the crash finds it in the status already.
        self.publish();
        // What it never got can go to the next one.
        let had: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.frame.is_none()).map(|(id, _)| *id).collect();
        for id in had {
            self.pass_last(id, Event::Failed(format!("its worker crashed: {how}")));
        }
        self.advance().await;
    }

    fn fail_all(&mut self, reason: &str) {
        for job in std::mem::take(&mut self.jobs).into_values().filter(|job| !job.cancelled) {
            tell(&job.events, Event::Failed(reason.to_owned()));
        }
    }

    fn end_worker(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.input = None;
            worker.ending.get_or_insert_with(|| Instant::now() + ENDING_MAX);
        }
    }

    fn wake_at(&self) -> Instant {
        let far = Instant::now() + SILENCE_MAX;
        match &self.worker {
            Some(Worker { ending: Some(kill_at), .. }) => *kill_at,
            Some(worker) if self.jobs.is_empty() => worker.heard + self.config.idle_unload,
            Some(worker) => worker.pinged + PING_INTERVAL,
            // The end of the wait is news: from then on it is offered again.
            None => match self.backoff.wait_at(self.epoch.elapsed()) {
                Duration::ZERO if self.jobs.is_empty() => far,
                wait => Instant::now() + wait,
            },
        }
    }

    async fn on_time(&mut self) {
        let now = Instant::now();
        match &self.worker {
            None => self.advance().await,
            Some(worker) if worker.ending.is_some_and(|kill_at| kill_at <= now) => worker.process.kill(),
            Some(worker) if worker.ending.is_some() => {}
            Some(worker) if self.jobs.is_empty() => {
                if worker.heard + self.config.idle_unload <= now {
                    self.end_worker();
                }
            }
            Some(worker) if worker.heard + SILENCE_MAX <= now || worker.answered + UNANSWERED_MAX <= now => self.give_up(now),
            Some(_) => self.ping(now),
        }
    }

    fn give_up(&mut self, now: Instant) {
        if let Some(worker) = &mut self.worker {
            // Looked at again after the next interval: a process may take its time to die.
            worker.pinged = now;
            tracing::warn!(backend = self.config.name, "the worker does not answer: it is killed");
            worker.killed = Some("it did not answer any more and was killed");
            worker.process.kill();
        }
    }

    fn ping(&mut self, now: Instant) {
        let Some(worker) = self.worker.as_mut().filter(|worker| worker.pinged + PING_INTERVAL <= now) else { return };
        worker.pinged = now;
        let frame = encode(&ToWorker::Ping).expect("a ping is a short frame");
        // One that cannot be written is not answered either, which is what counts.
        let _ = worker.input.as_ref().map(|input| input.try_send(frame));
    }

    fn publish(&self) {
        let status = Status { pid: self.worker.as_ref().map(|worker| worker.process.pid()), health: self.health() };
        self.status.send_if_modified(|published| {
            let changed = *published != status;
            *published = status;
            changed
        });
    }

    fn health(&self) -> Health {
        let wait = self.backoff.wait_at(self.epoch.elapsed());
        match self.backoff.failures() {
            0 => Health::Up,
            // What is down is not offered, so it is down for no longer than it must wait: only a request starts it again.
            failures if failures >= DOWN_AFTER_FAILURES && !wait.is_zero() && self.worker.is_none() => {
                Health::Down(self.crash_sentence(wait))
            }
            _ => Health::Degraded(self.crash_sentence(wait)),
        }
    }

    fn crash_sentence(&self, wait: Duration) -> String {
        let failures = self.backoff.failures();
        let times = if failures == 1 { "once".to_owned() } else { format!("{failures} times lately") };
        let next = if self.worker.is_some() {
            "it runs again".to_owned()
        } else if wait.is_zero() {
            "it starts again with the next request".to_owned()
        } else {
            format!("next start in {:.1} s", wait.as_secs_f32())
        };
        format!("the worker failed {times}, last because {}; {next}", self.backoff.reason())
    }
}

impl Worker {
    fn of(started: Started) -> Self {
        let Started { process, stdin, stdout, stderr, ended } = started;
        let (input, frames) = mpsc::channel(FRAMES_MAX);
        let (said, output) = mpsc::channel(FRAMES_MAX);
        tokio::spawn(write_frames(stdin, frames));
        let last_words = tokio::spawn(read_last_words(stderr));
        let reading = process.clone();
        tokio::spawn(async move {
            let broken = read_frames(stdout, &said).await;
            if broken.is_some() {
                reading.kill();
            }
            let how = ended.await.unwrap_or_else(|_| "its end is unknown".to_owned());
            let words = last_words.await.unwrap_or_default();
            let _ = said.send(FromProcess::Ended(sentence(broken.unwrap_or(how), &words))).await;
        });
        let now = Instant::now();
        Self {
            process,
            input: Some(input),
            output,
            since: now,
            heard: now,
            answered: now,
            pinged: now,
            killed: None,
            ending: None,
        }
    }
}

fn sentence(how: String, last_words: &str) -> String {
    if last_words.is_empty() { how } else { format!("{how}; it said: {last_words}") }
}

async fn next_from(worker: &mut Option<Worker>) -> FromProcess {
    let Some(worker) = worker else { return std::future::pending().await };
    worker.output.recv().await.unwrap_or_else(|| FromProcess::Ended("its end is unknown".to_owned()))
}

async fn write_frames(mut stdin: ChildStdin, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if stdin.write_all(&frame).await.is_err() {
            // It is gone; the reading side tells how.
            return;
        }
    }
}

/// Passes frames on until the output ends. Gives a reason if it broke before.
async fn read_frames(mut stdout: ChildStdout, said: &mpsc::Sender<FromProcess>) -> Option<String> {
    let mut reader = FrameReader::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = stdout.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return None;
        }
        match reader.push(&buffer[..read]) {
            Err(error) => return Some(format!("it sent {error}")),
            Ok(frames) => {
                for frame in frames {
                    if said.send(FromProcess::Frame(frame)).await.is_err() {
                        return None;
                    }
                }
            }
        }
    }
}

/// Reads what the worker prints to its end, and gives the last of it on one line.
async fn read_last_words(mut stderr: ChildStderr) -> String {
    let mut last = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        tracing::debug!(words = %String::from_utf8_lossy(&buffer[..read]).trim_end(), "worker");
        last.extend_from_slice(&buffer[..read]);
        let excess = last.len().saturating_sub(LAST_WORDS_BYTES);
        last.drain(..excess);
    }
    String::from_utf8_lossy(&last).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A receiver that is gone or full needs no telling: its channel is as long as the longest answer.
fn tell(events: &mpsc::Sender<Event>, event: Event) {
    let _ = events.try_send(event);
}
