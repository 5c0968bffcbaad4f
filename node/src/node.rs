//! A running node: put together, announced as ready, drained at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use atmo_capabilities::embed::EmbeddingSpace;
use atmo_capabilities::view::RoutingView;
use atmo_protocol::{CapabilityId, Mode, NodeId, Revocations};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Gate;
use crate::audit::{Event, Text};
use crate::backends::Backends;
use crate::commands::Commands;
use crate::config::{Api, Config};
use crate::data_plane::{DataPlane, Nowhere, OverSwarm};
use crate::driver::clock::{Clock, wall_ms};
use crate::driver::{self, Driver, DriverHandle, Parts};
use crate::embedder::EmbedderSlot;
use crate::execute::{Asked, Executor, LOADS_WAITING_MAX, Proofs, Quotes, RecentModels};
use crate::feedback::Experiences;
use crate::jobs::Jobs;
use crate::keys::Keys;
use crate::mesh_change::{self, Current};
use crate::metrics::Metrics;
use crate::provider::Provider;
use crate::serve::{self, Server};
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::swarm::usage::Usage;
use crate::{control, grants, membership, peer, platform, proxy, renewal, swarm};

/// Running requests have this long to finish when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How often memory is looked at, and which part of the least it ever was is no matter.
const MEMORY_INTERVAL: Duration = Duration::from_secs(2);
const MEMORY_SLACK: u64 = 20;
/// Those that did not are told so within this time.
const CUT_MAX: Duration = Duration::from_millis(500);
/// The audit has this long to reach the disk.
const AUDIT_MAX: Duration = Duration::from_secs(2);
/// Then the mesh is told and the rest ends.
const END_MAX: Duration = Duration::from_secs(2);

/// What handlers hold of the running node.
pub struct Node {
    pub id: NodeId,
    pub name: String,
    pub mode: Mode,
    /// Where the API listens.
    pub api: SocketAddr,
    pub started: Instant,
    pub store: Arc<Store>,
    pub gate: Arc<Gate>,
    pub driver: DriverHandle,
    pub executor: Arc<Executor>,
    pub backends: Arc<Backends>,
    pub keys: Arc<Keys>,
    pub shutdown: Shutdown,
    current: Mutex<Arc<Current>>,
    /// Held while the node moves from one mesh to another.
    pub moving: Arc<tokio::sync::Mutex<()>>,
}

impl Node {
    /// The mesh that this node is in now.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on handlers act as members of this mesh; the gate, too, where the mesh or the certificate is another and what is revoked
    /// is given.
    pub fn set_current(&self, current: Arc<Current>, revocations: Option<Arc<Revocations>>) {
        self.executor.certificate.store(Arc::new(current.chain.hash()));
        self.executor.role_asks_others.store(current.may_ask(), Ordering::Relaxed);
        if let Some(revocations) = revocations {
            self.gate.enter(&current, revocations);
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// From now on handlers act by this certificate of the same mesh; whoever is connected stays so.
    pub fn set_renewed(&self, current: Arc<Current>) {
        self.gate.renew_own(&current);
        self.set_current(current, None);
    }

    /// `node/slug`, as people know it; the id's beginning where the node is not known any more.
    pub fn name_of(&self, id: &CapabilityId) -> String {
        let view = self.executor.view.load();
        let node = view.get(id).map_or_else(|| id.node.short(), |(entry, _)| entry.node_name.to_string());
        format!("{node}/{}", id.slug)
    }
}

/// What a start consists of, before anything runs.
struct Start {
    config: Config,
    store: Arc<Store>,
    keys: Arc<Keys>,
    current: Arc<Current>,
    api: TcpListener,
    api_address: SocketAddr,
    control: tokio::net::UnixListener,
}

/// Runs a node until a signal or `atmo down`. `ready` is called once everything listens.
pub async fn run(config: Config, store: Store, ready: impl FnOnce(&Node)) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.obey_signals()?;
    let store = Arc::new(store);
    let current = tokio::select! {
        current = mesh_change::at_start(&store, &config) => current?,
        () = shutdown.draining() => return Ok(()),
    };
    let keys = Arc::new(Keys::open(Arc::clone(&store))?);
    if config.api.needs_keys() && keys.is_empty() {
        anyhow::bail!(
            "the API at {} could be reached from other machines, and there is no key yet: make one with `atmo key create`, or leave --api out for loopback",
            config.api.address
        );
    }
    let (api, api_address) = bind_api(&config.api).await?;
    let control = control::bind(store.dir()).context("the control socket cannot be opened")?;
    let start = Start { config, store, keys, current, api, api_address, control };

    let tasks = Tasks {
        requests: TaskTracker::new(),
        background: TaskTracker::new(),
        cut: CancellationToken::new(),
        end: CancellationToken::new(),
    };
    let node = start.launch(&shutdown, &tasks)?;
    let audit = node.store.audit().clone();
    audit.note(started(&node));
    node.backends.first_look().await;
    ready(&node);
    shutdown.draining().await;
    node.executor.provider.drain();
    tasks.finish(&shutdown).await;
    node.backends.shut_down().await;
    audit.note(Event::Stopped {});
    // The process may end with tasks that hold the store: nobody else would wait for the record.
    if !tokio::task::spawn_blocking(move || audit.settle(AUDIT_MAX)).await.unwrap_or(false) {
        tracing::error!("the end of the audit may not be on disk");
    }
    shutdown.failure().map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
}

fn started(node: &Node) -> Event {
    let (name, mode) = (Text::new(&node.name), format!("{:?}", node.mode).to_lowercase());
    Event::Started { version: env!("CARGO_PKG_VERSION"), name, mode }
}

/// What runs, in the order in which it ends.
struct Tasks {
    /// Requests of anyone: these may finish.
    requests: TaskTracker,
    /// What requests need; ends after them.
    background: TaskTracker,
    /// Requests that did not finish are told so.
    cut: CancellationToken,
    end: CancellationToken,
}

impl Tasks {
    async fn finish(&self, shutdown: &Shutdown) {
        self.requests.close();
        tokio::select! {
            () = self.requests.wait() => {}
            () = tokio::time::sleep(DRAIN_MAX) => {
                tracing::warn!("requests that still run are cut off");
                self.cut.cancel();
                _ = tokio::time::timeout(CUT_MAX, self.requests.wait()).await;
            }
            () = shutdown.ending_at_once() => tracing::warn!("stopping at once"),
        }
        self.end.cancel();
        self.background.close();
        if tokio::time::timeout(END_MAX, self.background.wait()).await.is_err() {
            tracing::warn!("something did not end in time");
        }
    }
}

impl Start {
    fn launch(self, shutdown: &Shutdown, tasks: &Tasks) -> anyhow::Result<Arc<Node>> {
        let Self { config, store, keys, current, api, api_address, control } = self;
        let space = EmbeddingSpace::minilm();
        let id = store.node_id();
        let view = Arc::new(ArcSwap::from_pointee(RoutingView::empty(id, Arc::clone(&space))));
        let metrics = Metrics::new();
        let provider = Arc::new(Provider::new(metrics.clone()));
        // On disk before anything listens: a node that cannot write must not start.
        let incarnation = store.raise_incarnation((store.state()?.incarnation + 1).max(wall_ms() / 1000))?;
        let gate = Arc::new(Gate::new(store.identity().clone(), Arc::clone(&store), &current).issuing_for(config.mesh.life_ms()));
        gate.know_grants(grants::waiting(&store, &current.membership.mesh, wall_ms())?);
        gate.know(Arc::new(membership::revocations(&store, &current.membership.mesh, wall_ms())?));
        let keypair = peer::keypair(store.identity());
        let online = config.mode != Mode::Standalone;
        let unused_max = Duration::from_secs(config.network.unused_seconds);
        let (mut swarm, opener, accepted) = swarm::build_keeping(&keypair, Arc::clone(&gate), online && config.mdns, unused_max)?;
        if online {
            let kept = store.state()?.ports;
            let ports = driver::open_listeners(&mut swarm, &config.listen, kept)?;
            store.save_ports(ports.or(kept))?;
        }
        let request_max = Duration::from_secs(config.limits.request_seconds);
        let (loads_heard, loads) = mpsc::channel(LOADS_WAITING_MAX);
        let limits = serve::Limits {
            requests: config.limits.mesh_requests as usize,
            body_bytes: config.limits.body_bytes as usize,
            request_time: request_max,
        };
        let server = Server::new(Arc::clone(&provider), Arc::clone(&gate), store.audit().clone(), tasks.requests.clone(), limits);
        let (usage, clock) = (Usage::default(), Clock::start());
        let (driver, handle) = Driver::new(Parts {
            key: store.identity().clone(),
            name: config.name.clone(),
            mode: config.mode,
            labels: config.labels.clone().into_iter().collect(),
            membership: current.as_member(),
            incarnation,
            space,
            view: Arc::clone(&view),
            store: Arc::clone(&store),
            gate: Arc::clone(&gate),
            provider: Arc::clone(&provider),
            server,
            swarm,
            opener: opener.clone(),
            accepted,
            loads,
            found: mesh_change::known_nodes(&store, &current),
            shutdown: shutdown.clone(),
            may_dial: online,
            network: config.network,
            clock,
            usage: usage.clone(),
            metrics: metrics.clone(),
        });
        let data_plane: Arc<dyn DataPlane> =
            if online { Arc::new(OverSwarm { opener, driver: handle.clone(), usage }) } else { Arc::new(Nowhere) };
        let embedder = Arc::new(EmbedderSlot::new(store.dir()));
        let certificate = Arc::new(ArcSwap::from_pointee(current.chain.hash()));
        let quotes = Quotes {
            data_plane: Arc::clone(&data_plane),
            certificate: Arc::clone(&certificate),
            loads_heard: loads_heard.clone(),
            clock,
            stale_ms: config.network.load_stale_ms,
            asked: Asked::default(),
            counted: metrics.quotes.clone(),
        };
        let executor = Arc::new(Executor {
            me: id,
            view: Arc::clone(&view),
            certificate,
            provider: Arc::clone(&provider),
            data_plane,
            loads_heard,
            experiences: Experiences::default(),
            recent: RecentModels::default(),
            proofs: Proofs::new(handle.clone(), Arc::clone(&embedder)),
            quotes,
            embedder,
            metrics,
            audit: store.audit().clone(),
            mode_asks_others: !matches!(config.mode, Mode::Provider | Mode::Headless),
            role_asks_others: current.may_ask().into(),
            request_max,
            cut: tasks.cut.clone(),
        });
        let backends = Arc::new(Backends::new(&config, api_address.port(), Arc::clone(&store)));
        let node = Arc::new(Node {
            id,
            name: config.name.clone(),
            mode: config.mode,
            api: api_address,
            started: Instant::now(),
            store,
            gate,
            driver: handle,
            executor: Arc::clone(&executor),
            backends: Arc::clone(&backends),
            keys: Arc::clone(&keys),
            shutdown: shutdown.clone(),
            current: Mutex::new(current),
            moving: Arc::default(),
        });
        let (background, requests) = (&tasks.background, &tasks.requests);
        background.spawn(driver.run(shutdown.drain_token(), tasks.end.clone()));
        background.spawn(backends.watch(provider, Arc::clone(&executor.embedder), node.driver.clone(), tasks.end.clone()));
        background.spawn(Arc::clone(&executor.embedder).let_go_when_idle(tasks.end.clone()));
        if online {
            background.spawn(renewal::keep_renewed(Arc::clone(&node), tasks.end.clone()));
        }
        background.spawn(give_memory_back(Arc::clone(&executor), tasks.end.clone()));
        let commands = Arc::new(Commands { node: Arc::clone(&node) });
        requests.spawn(control::serve(control, commands, shutdown.drain_token()));
        let jobs = Jobs::new(Arc::clone(&executor), requests.clone());
        let router = proxy::router(executor, jobs, keys, proxy::Settings::of(&config));
        requests.spawn(proxy::serve(api, router, shutdown.drain_token()));
        Ok(node)
    }
}

/// After a burst the allocator keeps what it took; once nothing runs the system gets it back.
async fn give_memory_back(executor: Arc<Executor>, end: CancellationToken) {
    let resident = || platform::resident_bytes().unwrap_or(0);
    let mut usual = u64::MAX;
    while tokio::time::timeout(MEMORY_INTERVAL, end.cancelled()).await.is_err() {
        if executor.provider.load() == (0, 0) && resident() > usual.saturating_add(usual / MEMORY_SLACK) {
            platform::release_unused_memory();
            // What could not be given back is in use.
            usual = resident();
        }
        usual = usual.min(resident());
    }
}

/// The API's socket. A default port that is taken is replaced by a free one; one that was asked for must be free.
async fn bind_api(api: &Api) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = match proxy::bind(api.address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !api.explicit => {
            let listener = proxy::bind(SocketAddr::new(api.address.ip(), 0)).await?;
            tracing::warn!(taken = %api.address, instead = %listener.local_addr()?, "the API's port is taken: a free one is used");
            listener
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            anyhow::bail!("the API cannot listen on {}: the port is taken; choose another with --api", api.address)
        }
        other => other.with_context(|| format!("the API cannot listen on {}", api.address))?,
    };
    let address = listener.local_addr()?;
    Ok((listener, address))
}
