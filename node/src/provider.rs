//! Executing requests on this node's own backends, for the local user and for other nodes alike.
//!
//! Each capability has a fixed number of slots and a bounded queue before them; a request that finds the queue full is told so at once.
//! What is running and waiting *is* the load that this node announces.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use atmo_adapters::observe::{Observer, Usage};
use atmo_adapters::{Backend, BackendError, Call};
use atmo_protocol::Slug;
use atmo_protocol::record::Load;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, Fuse};
use tokio::sync::Notify;

use crate::caller::Caller;
use crate::exchange::Why;
use crate::metrics::Metrics;
use queue::{FairQueue, Full, Slot};

mod queue;

/// Requests that may wait for each slot: with more, the wait is longer than going elsewhere.
const WAITING_PER_SLOT: u16 = 4;
/// Weight of the newest observation of speed; old ones fade within about ten requests.
const SPEED_WEIGHT: f32 = 0.2;
/// What a busy executor suggests to wait where it has observed nothing yet.
const WAIT_GUESS: Duration = Duration::from_secs(1);

/// What this node offers, and how busy each of it is.
pub struct Provider {
    served: ArcSwap<BTreeMap<Slug, Arc<Served>>>,
    /// Gauges that may still be in use by requests of a capability that is not offered at the moment.
    gauges: Mutex<BTreeMap<Slug, Weak<Gauge>>>,
    /// Rung whenever a load changed.
    load_changed: Arc<Notify>,
    draining: AtomicBool,
    /// Backends whose last request failed, by name: what health checks alone do not see.
    troubles: Troubles,
    metrics: Metrics,
}

/// What went wrong with the last request of a backend.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub at: Instant,
    pub message: String,
}

/// By backend. As many as there are backends, and a backend that works is not in it.
type Troubles = Arc<Mutex<BTreeMap<String, Trouble>>>;

/// One capability with the backend behind it.
pub struct Served {
    pub slug: Slug,
    backend: Arc<dyn Backend>,
    /// What the backend itself calls it; differs where two backends offer the same name.
    backend_slug: Slug,
    gauge: Arc<Gauge>,
    troubles: Troubles,
    metrics: Metrics,
}

/// How busy one capability is.
struct Gauge {
    queue: Arc<FairQueue>,
    /// `f32` bits.
    tokens_per_second: AtomicU32,
    /// Moving mean of how long a request occupies its slot, seconds, `f32` bits.
    seconds: AtomicU32,
}

/// Why a request was not executed here. Nothing was done.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejection {
    Busy {
        wait_ms: u32,
        load: Load,
    },
    Refused {
        why: Why,
        message: String,
    },
    /// Its node never said that it received the request.
    Unanswered {
        message: String,
    },
}

/// A request being executed. Dropping it stops the engine and frees the slot.
pub struct Execution {
    pub status: u16,
    pub content_type: String,
    pub load: Load,
    served: Arc<Served>,
    first: Option<Bytes>,
    chunks: Fuse<BoxStream<'static, Result<Bytes, BackendError>>>,
    observer: Observer,
    ended: bool,
    occupied: Occupied,
}

/// A slot in use, and since when.
struct Occupied {
    gauge: Arc<Gauge>,
    since: Instant,
    first_byte: Option<Instant>,
    _slot: Slot,
}

impl Provider {
    pub fn new(metrics: Metrics) -> Self {
        Self {
            served: ArcSwap::default(),
            gauges: Mutex::default(),
            load_changed: Arc::default(),
            draining: false.into(),
            troubles: Arc::default(),
            metrics,
        }
    }

    /// Replaces what is offered. Capabilities that stay keep their counters and the requests they run.
    pub fn serve(&self, offers: Vec<(Slug, Arc<dyn Backend>, Slug, u16)>) {
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.retain(|_, gauge| gauge.strong_count() > 0);
        let mut now = BTreeMap::new();
        for (slug, backend, backend_slug, slots) in offers {
            let kept = gauges.get(&slug).and_then(Weak::upgrade).filter(|gauge| gauge.queue.slots() == slots.max(1));
            let gauge = kept.unwrap_or_else(|| Arc::new(Gauge::new(slots, self.load_changed.clone())));
            gauges.insert(slug.clone(), Arc::downgrade(&gauge));
            now.insert(
                slug.clone(),
                Arc::new(Served {
                    slug,
                    backend,
                    backend_slug,
                    gauge,
                    troubles: Arc::clone(&self.troubles),
                    metrics: self.metrics.clone(),
                }),
            );
        }
        self.served.store(Arc::new(now));
        self.load_changed.notify_one();
    }

    /// Resolves when some load changed since the last call, and not before `at`.
    pub async fn load_changed_after(&self, at: Instant) {
        tokio::time::sleep_until(at.into()).await;
        self.load_changed.notified().await;
    }

    pub fn loads(&self) -> Vec<(Slug, Load)> {
        self.served.load().values().map(|served| (served.slug.clone(), served.gauge.load())).collect()
    }

    /// How busy one capability is; `None` where it is not offered.
    pub fn load_of(&self, slug: &Slug) -> Option<Load> {
        self.served.load().get(slug).map(|served| served.gauge.load())
    }

    /// What went wrong with the last request of `backend`, if something did.
    pub fn trouble(&self, backend: &str) -> Option<Trouble> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).get(backend).cloned()
    }

    /// Requests running and waiting now, over all capabilities.
    pub fn load(&self) -> (usize, usize) {
        let served = self.served.load();
        let loads = served.values().map(|served| served.gauge.queue.load());
        loads.fold((0, 0), |(running, waiting), load| (running + usize::from(load.0), waiting + usize::from(load.1)))
    }

    /// From now on every new request is refused; what runs may finish.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Waits for a slot, then for the first byte of the answer. Cancelled by dropping the future.
    pub async fn execute(&self, call: Call, caller: &Caller) -> Result<Execution, Rejection> {
        let outcome = self.try_execute(call, caller).await;
        let label = match &outcome {
            Ok(_) => "accepted",
            Err(Rejection::Busy { .. }) => "busy",
            Err(Rejection::Refused { .. } | Rejection::Unanswered { .. }) => "refused",
        };
        self.metrics.served.with_label_values(&[label, caller.kind()]).inc();
        outcome
    }

    async fn try_execute(&self, call: Call, caller: &Caller) -> Result<Execution, Rejection> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Rejection::Refused { why: Why::Draining, message: "this node is shutting down".into() });
        }
        let served = self.served.load().get(&call.slug).cloned();
        let Some(served) = served else {
            let message = format!("this node no longer offers `{}`", call.slug);
            return Err(Rejection::Refused { why: Why::NotOffered, message });
        };
        served.execute(call, caller).await
    }
}

impl Served {
    async fn execute(self: &Arc<Self>, call: Call, caller: &Caller) -> Result<Execution, Rejection> {
        let deadline = Instant::now() + call.remaining;
        let since = Instant::now();
        let occupied = self.gauge.occupy(caller, call.remaining).await?;
        self.metrics.waited_in_queue(since.elapsed());
        let call =
            Call { slug: self.backend_slug.clone(), remaining: deadline.saturating_duration_since(Instant::now()), ..call };
        let reply = self.backend.execute(call).await;
        if let Err(error) = &reply {
            self.note(Some(error));
        }
        let reply = reply.map_err(|error| self.rejection(&error))?;
        let load = self.gauge.load();
        let mut execution = Execution {
            status: reply.status,
            observer: Observer::new(&reply.content_type),
            content_type: reply.content_type,
            first: None,
            chunks: reply.chunks.fuse(),
            served: Arc::clone(self),
            ended: false,
            load,
            occupied,
        };
        // What fails before the first byte has not begun: somebody else may be asked.
        execution.first = execution.next().await.transpose().map_err(|error| self.rejection(&error))?;
        Ok(execution)
    }

    /// A connection that ends in the middle of a stream looks like the end of the stream.
    fn cut_short(&self) -> BackendError {
        let cause = "its answer ended before it was complete".to_owned();
        BackendError::Failed { backend: self.backend.name().to_owned(), cause }
    }

    /// Remembers a failure until a request succeeds. A busy or slow backend is not in trouble.
    fn note(&self, error: Option<&BackendError>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => _ = troubles.remove(self.backend.name()),
            Some(BackendError::Busy { .. } | BackendError::TimedOut { .. } | BackendError::NotOffered { .. }) => {}
            Some(error) => {
                let trouble = Trouble { at: Instant::now(), message: error.to_string() };
                troubles.insert(self.backend.name().to_owned(), trouble);
            }
        }
    }

    fn rejection(&self, error: &BackendError) -> Rejection {
        let why = match error {
            BackendError::Busy { retry_after, .. } => return self.gauge.busy_for(*retry_after),
            BackendError::TimedOut { .. } => Why::TimedOut,
            BackendError::NotOffered { .. } => Why::NotOffered,
            _ => Why::BackendFailed,
        };
        Rejection::Refused { why, message: error.to_string() }
    }
}

impl Gauge {
    fn new(slots: u16, changed: Arc<Notify>) -> Self {
        let slots = slots.max(1);
        let queue = FairQueue::new(slots, slots.saturating_mul(WAITING_PER_SLOT), move || changed.notify_one());
        Self { queue, tokens_per_second: 0.into(), seconds: 0.into() }
    }

    fn load(&self) -> Load {
        let (running, waiting) = self.queue.load();
        let tokens_per_second = f32::from_bits(self.tokens_per_second.load(Ordering::Relaxed));
        Load { running, waiting, slots: self.queue.slots(), tokens_per_second }
    }

    /// A slot: at once, after waiting in the bounded queue, or not at all.
    async fn occupy(self: &Arc<Self>, caller: &Caller, patience: Duration) -> Result<Occupied, Rejection> {
        let slot = self.queue.enter(caller, patience).await.map_err(|Full| self.busy())?;
        Ok(Occupied { gauge: self.clone(), since: Instant::now(), first_byte: None, _slot: slot })
    }

    /// What the backend itself asked for beats our own guess.
    fn busy_for(&self, asked: Option<Duration>) -> Rejection {
        match (self.busy(), asked) {
            (Rejection::Busy { load, .. }, Some(asked)) => {
                Rejection::Busy { wait_ms: u32::try_from(asked.as_millis()).unwrap_or(u32::MAX), load }
            }
            (guessed, _) => guessed,
        }
    }

    fn busy(&self) -> Rejection {
        let load = self.load();
        let each = match f32::from_bits(self.seconds.load(Ordering::Relaxed)) {
            seconds if seconds > 0.0 => seconds,
            _ => WAIT_GUESS.as_secs_f32(),
        };
        let rounds = f32::from(load.waiting + 1) / f32::from(load.slots.max(1));
        Rejection::Busy { wait_ms: (each * rounds * 1000.0) as u32, load }
    }

    fn observe(cell: &AtomicU32, value: f32) {
        if !value.is_finite() || value <= 0.0 {
            return;
        }
        let old = f32::from_bits(cell.load(Ordering::Relaxed));
        let new = if old == 0.0 { value } else { old + SPEED_WEIGHT * (value - old) };
        cell.store(new.to_bits(), Ordering::Relaxed);
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        Gauge::observe(&self.gauge.seconds, self.since.elapsed().as_secs_f32());
    }
}

impl Execution {
    /// The next bytes of the answer, as the engine sent them; `None` at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BackendError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let piece = match self.chunks.next().await {
            Some(piece) => piece,
            // A refusal may come without a word.
            None if self.ended || self.status >= 400 || self.observer.is_complete() => return None,
            None => Err(self.served.cut_short()),
        };
        match &piece {
            Ok(bytes) => {
                self.occupied.first_byte.get_or_insert_with(Instant::now);
                self.observer.push(bytes);
            }
            Err(error) => {
                self.ended = true;
                self.served.note(Some(error));
            }
        }
        Some(piece)
    }

    /// Ends the request: what it used, and how busy the capability is afterwards.
    pub fn finish(self) -> (Usage, Load) {
        if !self.ended {
            self.served.note(None);
        }
        let usage = self.observer.usage();
        if let Some(first) = self.occupied.first_byte {
            let speed = usage.completion_tokens as f32 / first.elapsed().as_secs_f32();
            Gauge::observe(&self.occupied.gauge.tokens_per_second, speed);
            self.served.metrics.spoke_at(speed);
        }
        let gauge = self.occupied.gauge.clone();
        drop(self.occupied);
        (usage, gauge.load())
    }
}
