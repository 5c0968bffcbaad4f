//! The engines of this machine: configured, found on loopback, or built in; asked again and again what they offer and how they are.
//!
//! What they offer is embedded, given to the provider to execute and to the driver to announce, and only when it changed. A backend that
//! cannot be reached offers nothing until it can; a found one that stays away is forgotten.

mod about;
mod build;
#[cfg(feature = "llama-cpp")]
mod model_files;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atmo_adapters::{Backend, BackendError, Description, Health};
use atmo_capabilities::capability::Offer;
use atmo_protocol::Slug;
use atmo_protocol::record::{CAPABILITIES_MAX, CapabilityBody, Offered};
use atmo_protocol::wire::Body;
use futures::future::join_all;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::driver::DriverHandle;
use crate::embedder::EmbedderSlot;
use crate::provider::Provider;
use crate::store::Store;

/// Every backend is asked this often what it offers; a new model or a dead engine is noticed within it.
const DESCRIBE_INTERVAL: Duration = Duration::from_secs(2);
/// Loopback is searched every so many rounds.
const DISCOVER_EVERY: u32 = 5;
/// A found backend that could not be reached this many times in a row is forgotten, until it is found again.
const FORGET_AFTER: u32 = 20;
/// A node says that it is ready after this long, whatever its backends do.
const FIRST_LOOK_MAX: Duration = Duration::from_millis(1500);
/// No backend may hold up the others for longer.
const DESCRIBE_MAX: Duration = Duration::from_secs(6);

/// All backends of a node.
pub struct Backends {
    settings: build::Settings,
    known: Mutex<Vec<Known>>,
    /// Those that cannot even be asked.
    broken: Mutex<Vec<BackendStatus>>,
    store: Arc<Store>,
    /// Whether every backend was asked once and what they offer was announced.
    looked: watch::Sender<bool>,
}

/// One backend and what it said last.
#[derive(Clone)]
struct Known {
    backend: Arc<dyn Backend>,
    /// Found on loopback rather than configured.
    found: bool,
    said: Result<Description, BackendError>,
    health: Health,
    missed: u32,
}

/// A backend as `atmo status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackendStatus {
    pub name: String,
    pub engine: String,
    /// `up`, `degraded` or `down`.
    pub state: &'static str,
    /// What is wrong, where something is.
    pub detail: Option<String>,
    pub offers: usize,
    /// Found on loopback rather than configured.
    pub found: bool,
}

/// One offer with the backend behind it, under the name that this node announces.
struct Placed {
    slug: Slug,
    backend: Arc<dyn Backend>,
    offer: Offer,
}

impl Backends {
    /// The configured ones and the built-in one. `api_port` is never searched: the node would find itself.
    pub fn new(config: &Config, api_port: u16, store: Arc<Store>) -> Self {
        let settings = build::Settings::new(config, &[api_port]);
        let known = settings.configured.iter().map(|backend| Known::new(Arc::clone(backend), false)).collect();
        Self {
            broken: Mutex::new(settings.broken.clone()),
            settings,
            known: Mutex::new(known),
            store,
            looked: watch::Sender::new(false),
        }
    }

    pub fn statuses(&self) -> Vec<BackendStatus> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.lock().iter().map(Known::status).chain(broken).collect()
    }

    /// Keeps the provider and the driver informed until `end`.
    pub async fn watch(
        self: Arc<Self>,
        provider: Arc<Provider>,
        embedder: Arc<EmbedderSlot>,
        driver: DriverHandle,
        end: CancellationToken,
    ) {
        let mut rounds = tokio::time::interval(DESCRIBE_INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut announced = Vec::new();
        let look = async {
            for round in 0_u32.. {
                rounds.tick().await;
                if round % DISCOVER_EVERY == 0 {
                    self.discover().await;
                }
                self.describe().await;
                self.announce(&provider, &embedder, &driver, &mut announced).await;
                self.looked.send_replace(true);
            }
        };
        // A model of many gigabytes takes minutes to import, which holds up nobody else.
        end.run_until_cancelled(async { tokio::join!(look, self.import_models()) }).await;
    }

    /// Waits until every backend was asked once, for a bounded time: a first command should not find an empty mesh.
    pub async fn first_look(&self) {
        let mut looked = self.looked.subscribe();
        _ = tokio::time::timeout(FIRST_LOOK_MAX, looked.wait_for(|looked| *looked)).await;
    }

    /// Ends what the backends started themselves.
    pub async fn shut_down(&self) {
        let backends: Vec<_> = self.lock().iter().map(|known| Arc::clone(&known.backend)).collect();
        join_all(backends.iter().map(|backend| backend.shut_down())).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads configured model files whole, the first time; until then they are not offered.
    async fn import_models(&self) {
        for (name, path) in &self.settings.files {
            #[cfg(feature = "llama-cpp")]
            let built = model_files::of_file(name, path, &self.store).await;
            #[cfg(not(feature = "llama-cpp"))]
            let built = Err(format!("{}: {} ({})", path.display(), build::WITHOUT_ENGINE, self.store.dir().display()));
            match built {
                Ok(backend) => self.lock().push(Known::new(backend, false)),
                Err(cause) => {
                    tracing::error!(backend = name, cause, "a configured model cannot be used");
                    self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(BackendStatus::broken(name, cause));
                }
            }
        }
    }

    async fn discover(&self) {
        let found = self.settings.discover().await;
        let mut known = self.lock();
        for backend in found {
            if known.iter().all(|known| known.backend.name() != backend.name()) {
                tracing::info!(backend = backend.name(), "found an engine on this machine");
                known.push(Known::new(backend, true));
            }
        }
    }

    /// Asks all at once, each for a bounded time.
    async fn describe(&self) {
        let backends: Vec<_> = self.lock().iter().map(|known| Arc::clone(&known.backend)).collect();
        let answers = join_all(backends.iter().map(|backend| describe_one(&**backend))).await;
        let mut known = self.lock();
        for (backend, (said, health)) in backends.iter().zip(answers) {
            if let Some(known) = known.iter_mut().find(|known| Arc::ptr_eq(&known.backend, backend)) {
                known.take(said, health);
            }
        }
        known.retain(|known| !known.found || known.missed < FORGET_AFTER);
    }

    async fn announce(
        &self,
        provider: &Provider,
        embedder: &Arc<EmbedderSlot>,
        driver: &DriverHandle,
        announced: &mut Vec<(Slug, String, Offer)>,
    ) {
        let placed = self.placed();
        let now: Vec<_> = placed.iter().map(|p| (p.slug.clone(), p.backend.name().to_owned(), p.offer.clone())).collect();
        if now == *announced {
            return;
        }
        let served =
            placed.iter().map(|p| (p.slug.clone(), Arc::clone(&p.backend), p.offer.slug.clone(), p.offer.slots)).collect();
        provider.serve(served);
        // At once by name; by meaning as soon as the texts are embedded, which may need the model to be loaded first.
        let bodies: Vec<CapabilityBody> = placed.iter().map(|p| p.offer.body.clone()).collect();
        _ = driver.offer(offered(&placed, &bodies)).await;
        match embedder.embed_bodies(bodies).await {
            Ok(bodies) => {
                _ = driver.offer(offered(&placed, &bodies)).await;
                *announced = now;
            }
            Err(error) => tracing::error!(%error, "what this node offers is announced without its meaning"),
        }
    }

    /// Every offer under a slug of its own, configured backends first; as many as a record holds.
    fn placed(&self) -> Vec<Placed> {
        let mut taken = BTreeSet::new();
        let mut placed = Vec::new();
        for known in self.lock().iter() {
            for offer in known.offers() {
                let slug = free_slug(&offer.slug, &mut taken);
                let mut offer = offer.clone();
                about::amend(&mut offer, self.settings.said_of(known.backend.name()), self.settings.announce_titles);
                placed.push(Placed { slug, backend: Arc::clone(&known.backend), offer });
            }
        }
        if placed.len() > CAPABILITIES_MAX {
            tracing::warn!(offered = placed.len(), "more is offered than a node can announce: the first {CAPABILITIES_MAX} are");
            placed.truncate(CAPABILITIES_MAX);
        }
        placed
    }
}

async fn describe_one(backend: &dyn Backend) -> (Result<Description, BackendError>, Health) {
    let timed_out = || BackendError::TimedOut { backend: backend.name().to_owned() };
    let said = tokio::time::timeout(DESCRIBE_MAX, backend.describe()).await.unwrap_or_else(|_| Err(timed_out()));
    let health = match &said {
        Err(error) => Health::Down(error.to_string()),
        Ok(_) => match tokio::time::timeout(DESCRIBE_MAX, backend.health()).await {
            Ok(health) => health,
            Err(_) => Health::Degraded("it does not say how it is".to_owned()),
        },
    };
    (said, health)
}

impl Known {
    fn new(backend: Arc<dyn Backend>, found: bool) -> Self {
        Self { backend, found, said: Ok(Description::default()), health: Health::Degraded("not asked yet".to_owned()), missed: 0 }
    }

    fn take(&mut self, said: Result<Description, BackendError>, health: Health) {
        if health != self.health {
            match &health {
                Health::Up => tracing::info!(backend = self.backend.name(), "backend is up"),
                Health::Degraded(why) | Health::Down(why) => {
                    tracing::warn!(backend = self.backend.name(), why, "backend has trouble")
                }
            }
        }
        self.missed = if said.is_ok() { 0 } else { self.missed.saturating_add(1) };
        // An engine under load may be late once; its requests need not go elsewhere for that.
        if !(matches!(said, Err(BackendError::TimedOut { .. })) && self.missed == 1) {
            self.said = said;
            self.health = health;
        }
    }

    /// Nothing while it is down.
    fn offers(&self) -> &[Offer] {
        match (&self.said, &self.health) {
            (Ok(description), Health::Up | Health::Degraded(_)) => &description.offers,
            _ => &[],
        }
    }

    fn status(&self) -> BackendStatus {
        let (state, detail) = match &self.health {
            Health::Up => ("up", None),
            Health::Degraded(why) => ("degraded", Some(why.clone())),
            Health::Down(why) => ("down", Some(why.clone())),
        };
        BackendStatus {
            name: self.backend.name().to_owned(),
            engine: self.said.as_ref().map(|said| said.engine.clone()).unwrap_or_default(),
            state,
            detail,
            offers: self.offers().len(),
            found: self.found,
        }
    }
}

impl BackendStatus {
    /// A backend that cannot even be asked.
    fn broken(name: &str, cause: String) -> Self {
        Self { name: name.to_owned(), engine: String::new(), state: "down", detail: Some(cause), offers: 0, found: false }
    }
}

/// `wanted`, or with a number behind it where another backend took it.
fn free_slug(wanted: &Slug, taken: &mut BTreeSet<Slug>) -> Slug {
    let numbered = (2_u32..).map(|number| Slug::from_name(&format!("{:.56}-{number}", wanted.as_str())));
    let free =
        std::iter::once(wanted.clone()).chain(numbered).find(|slug| !taken.contains(slug)).expect("numbers do not run out");
    taken.insert(free.clone());
    free
}

/// What the driver announces.
fn offered(placed: &[Placed], bodies: &[CapabilityBody]) -> Vec<(Offered, Arc<CapabilityBody>)> {
    let one = |(placed, body): (&Placed, &CapabilityBody)| match Body::new(Arc::new(body.clone())) {
        Ok(body) => {
            let offered =
                Offered { slug: placed.slug.clone(), body: body.hash, cost: placed.offer.cost, slots: placed.offer.slots };
            Some((offered, body.body))
        }
        Err(error) => {
            tracing::warn!(slug = %placed.slug, %error, "this cannot be announced");
            None
        }
    };
    placed.iter().zip(bodies).filter_map(one).collect()
}
