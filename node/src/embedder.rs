//! The embedder's life in the node: loaded when first needed, let go when idle, so that a node that routes nothing stays small.
//!
//! What capabilities announce about themselves is embedded once per text and kept on disk, so that a restart needs no model at all. Two
//! engines give the same vectors: ONNX Runtime where the machine has a library of it, else the one that is compiled in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atmo_capabilities::cache::IntentCache;
use atmo_capabilities::capability::embedded;
use atmo_capabilities::embed::ort::{OrtEmbedder, library_candidates};
use atmo_capabilities::embed::rten::{self, RtenEmbedder};
use atmo_capabilities::embed::{EmbedError, Embedder, MINILM_SPACE};
use atmo_capabilities::proof;
use atmo_protocol::record::CapabilityBody;
use tokio_util::sync::CancellationToken;

use crate::cli::environment;

/// With no request for this long the model is let go; loading it again takes about 100 ms.
const IDLE: Duration = Duration::from_secs(60);
/// Grows when a text gets another vector than before: long ones are read at both ends since 2.
const KEPT_VERSION: u32 = 2;
/// Texts whose vectors are kept on disk: 1.5 KB each.
const KEPT_MAX: usize = 512;

/// The one embedder of a node. Shared by all request handlers.
pub struct EmbedderSlot {
    loaded: Mutex<Loaded>,
    kept: Mutex<Kept>,
    asked: Mutex<IntentCache>,
    /// ONNX Runtime, where the machine has it.
    library: Option<PathBuf>,
}

#[derive(Default)]
struct Loaded {
    embedder: Option<Arc<Engine>>,
    /// A library that was found and could not be used, and why: it is not tried again.
    refused: Option<String>,
    used: Option<Instant>,
    failure: Option<EmbedError>,
}

/// Whatever runs the model.
type Engine = dyn Embedder + Sync;

/// Vectors of announced texts, by the hash of the text.
struct Kept {
    path: PathBuf,
    vectors: BTreeMap<[u8; 32], Vec<f32>>,
}

impl EmbedderSlot {
    pub fn new(data_dir: &Path) -> Self {
        let kept = Kept::read(data_dir.join(format!("vectors-{KEPT_VERSION}-{MINILM_SPACE}.bin")));
        Self { loaded: Mutex::default(), asked: Mutex::default(), kept: Mutex::new(kept), library: find_library() }
    }

    /// The vector of a request. `None` where the embedder cannot be used: the request can still fall back to a general model, and
    /// `atmo status` says so.
    pub async fn embed_one(self: &Arc<Self>, text: &str) -> Option<Arc<[f32]>> {
        if let Some(vector) = lock(&self.asked).get(text) {
            return Some(vector);
        }
        let (slot, wanted) = (Arc::clone(self), text.to_owned());
        let work = move || slot.get_for_request()?.embed(&[&wanted]).map(|mut vectors| vectors.pop().unwrap_or_default());
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(vector)) => {
                let vector: Arc<[f32]> = vector.into();
                lock(&self.asked).insert(text, Arc::clone(&vector));
                Some(vector)
            }
            Ok(Err(error)) => self.report(error),
            Err(panic) => self.report(EmbedError::Run(panic.to_string())),
        }
    }

    /// `bodies` as they are announced, with vectors from disk for texts that were embedded before.
    pub async fn embed_bodies(self: &Arc<Self>, bodies: Vec<CapabilityBody>) -> Result<Vec<CapabilityBody>, EmbedError> {
        let slot = Arc::clone(self);
        let work = move || {
            let bodies = bodies.into_iter().map(|body| embedded(body, &Recalling(&slot))).collect();
            // At start nobody has asked for anything yet: a node that only announces itself stays small.
            slot.let_go(|used| used.is_none());
            bodies
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(EmbedError::Run(panic.to_string())))
    }

    /// The text of `body` whose vector is not its own, if there is one.
    pub async fn disproved(self: &Arc<Self>, body: Arc<CapabilityBody>) -> Result<Option<String>, EmbedError> {
        let slot = Arc::clone(self);
        let work = move || proof::disproved(&body, &*slot.get_for_request()?);
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(EmbedError::Run(panic.to_string())))
    }

    /// For `atmo status`: the engine, whether it is loaded, and what is wrong.
    pub fn state(&self) -> String {
        let loaded = lock(&self.loaded);
        let engine = match (&self.library, &loaded.refused) {
            (Some(library), None) => format!("ort, {}", library.display()),
            (_, Some(refused)) => format!("rten, because {refused}"),
            (None, None) => "rten".to_owned(),
        };
        match (&loaded.failure, &loaded.embedder) {
            (Some(error), _) => format!("{engine}, failed: {error}; requests for `auto` go to a general model"),
            (None, Some(_)) => format!("{engine} (loaded)"),
            (None, None) => format!("{engine} (not loaded)"),
        }
    }

    /// Lets the model go when it is idle. Runs until `shutdown`.
    pub async fn let_go_when_idle(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(IDLE / 4);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.let_go(|used| used.is_none_or(|used| used.elapsed() >= IDLE));
        }
    }

    /// Drops the model and gives its memory back, if nobody is using it and `idle` says so of the last request for it.
    fn let_go(&self, idle: impl FnOnce(Option<Instant>) -> bool) {
        let mut loaded = lock(&self.loaded);
        let in_use = loaded.embedder.as_ref().is_some_and(|embedder| Arc::strong_count(embedder) > 1);
        if !in_use && idle(loaded.used) && loaded.embedder.take().is_some() {
            drop(loaded);
            crate::platform::release_unused_memory();
            crate::platform::release_static_range(rten::model_bytes());
            tracing::debug!("the idle embedder was let go");
        }
    }

    fn get(&self) -> Result<Arc<Engine>, EmbedError> {
        let mut loaded = lock(&self.loaded);
        if loaded.embedder.is_none() {
            let engine = self.load(&mut loaded)?;
            loaded.embedder = Some(engine);
        }
        let embedder = loaded.embedder.clone().expect("it was loaded one line above, under the lock");
        loaded.failure = None;
        Ok(embedder)
    }

    fn load(&self, loaded: &mut Loaded) -> Result<Arc<Engine>, EmbedError> {
        if let (Some(library), None) = (&self.library, &loaded.refused) {
            match OrtEmbedder::load(library) {
                Ok(engine) => return Ok(Arc::new(engine)),
                Err(error) => {
                    tracing::warn!(%error, library = %library.display(), "the engine that is compiled in is used instead");
                    loaded.refused = Some(error.to_string());
                }
            }
        }
        Ok(Arc::new(RtenEmbedder::load()?))
    }

    fn get_for_request(&self) -> Result<Arc<Engine>, EmbedError> {
        lock(&self.loaded).used = Some(Instant::now());
        self.get()
    }

    fn embed_or_recall(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let keys: Vec<[u8; 32]> = texts.iter().map(|text| *blake3::hash(text.as_bytes()).as_bytes()).collect();
        let missing: Vec<usize> =
            (0..texts.len()).filter(|place| !lock(&self.kept).vectors.contains_key(&keys[*place])).collect();
        if !missing.is_empty() {
            let wanted: Vec<&str> = missing.iter().map(|place| texts[*place]).collect();
            let vectors = self.get()?.embed(&wanted)?;
            let mut kept = lock(&self.kept);
            kept.make_room(missing.len(), &keys);
            kept.vectors.extend(missing.iter().map(|place| keys[*place]).zip(vectors));
            kept.write();
        }
        let kept = lock(&self.kept);
        keys.iter()
            .map(|key| kept.vectors.get(key).cloned().ok_or_else(|| EmbedError::Run("more texts than are kept".into())))
            .collect()
    }

    fn report<T>(&self, error: EmbedError) -> Option<T> {
        tracing::error!(%error, "requests for `auto` go to a general model");
        lock(&self.loaded).failure = Some(error);
        None
    }
}

/// The first library of ONNX Runtime that is there. The only candidate is one that was named: where it is missing, that is to be said.
fn find_library() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok();
    let mut candidates = library_candidates(&environment, executable.as_deref().and_then(Path::parent));
    if candidates.len() == 1 { candidates.pop() } else { candidates.into_iter().find(|path| path.is_file()) }
}

/// The embedder of announced texts: recalls what it can.
struct Recalling<'a>(&'a EmbedderSlot);

impl Embedder for Recalling<'_> {
    fn space(&self) -> &str {
        MINILM_SPACE
    }

    fn dims(&self) -> usize {
        rten::DIMS
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.embed_or_recall(texts)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves behind here is whole: a loaded model, or a map.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// A cache that cannot be read is an empty one.
    fn read(path: PathBuf) -> Self {
        let vectors = std::fs::read(&path).ok().and_then(|bytes| atmo_protocol::codec::decode(&bytes).ok()).unwrap_or_default();
        Self { path, vectors }
    }

    fn make_room(&mut self, needed: usize, wanted: &[[u8; 32]]) {
        let excess = (self.vectors.len() + needed).saturating_sub(KEPT_MAX);
        let unwanted: Vec<_> = self.vectors.keys().filter(|key| !wanted.contains(key)).take(excess).copied().collect();
        unwanted.iter().for_each(|key| _ = self.vectors.remove(key));
    }

    /// Written beside and renamed, so that a reader sees the old file or the new one. What is lost is only embedded again.
    fn write(&self) {
        let beside = self.path.with_extension("new");
        let written = std::fs::write(&beside, atmo_protocol::codec::encode(&self.vectors));
        if let Err(error) = written.and_then(|()| std::fs::rename(&beside, &self.path)) {
            tracing::warn!(%error, path = %self.path.display(), "embedded texts were not kept");
        }
    }
}
