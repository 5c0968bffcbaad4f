//! Ollama: asked in its own words what it has, given work through its OpenAI routes.
//!
//! `GET /api/tags` lists the models, `POST /api/show` says what each can do; the latter is remembered by the model's digest, so that
//! looking again costs two small requests however many models there are. Nothing here loads a model. Deliberately absent: pulling,
//! creating and deleting models.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;

use crate::offer::{Catalogue, Listed};
use crate::openai::client::Client;
use crate::openai::{pass_on, types};
use crate::{Backend, BackendError, Call, Description, Health, Reply, Secret};

pub mod translate;

use translate::{Shown, Tag, listed, read_shown, read_tags};

/// Models asked about at once: each answer is read from a file by Ollama, more at once gain nothing.
const SHOW_AT_ONCE: usize = 4;
/// Models asked about in all; a node announces no more than 64.
const MODELS_MAX: usize = 128;
/// How long Ollama may take to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an Ollama is.
#[derive(Clone, Debug)]
pub struct OllamaConfig {
    /// Unique within the node.
    pub name: String,
    /// Without a path: `http://127.0.0.1:11434`. See [`translate::host_url`] for what users write in `OLLAMA_HOST`.
    pub url: String,
    pub api_key: Option<Secret>,
    /// Offer these and no others.
    pub models: Option<Vec<String>>,
}

/// An Ollama server.
pub struct Ollama {
    client: Client,
    models: Option<Vec<String>>,
    catalogue: RwLock<Catalogue>,
    /// By digest; forgotten with the model.
    shown: RwLock<BTreeMap<String, Shown>>,
}

impl Ollama {
    pub fn new(config: OllamaConfig) -> Self {
        let base = format!("{}/v1", config.url.trim_end_matches('/').trim_end_matches("/v1"));
        Self {
            client: Client::new(&config.name, &base, config.api_key),
            models: config.models,
            catalogue: RwLock::default(),
            shown: RwLock::default(),
        }
    }

    async fn ask(&self) -> Result<Description, BackendError> {
        let (version, tags) =
            tokio::try_join!(self.client.get_root_json("/api/version"), self.client.get_root_json("/api/tags"))?;
        let tags = read_tags(&tags).ok_or_else(|| self.client.not_the_protocol("JSON without a list of models"))?;
        let tags: Vec<Tag> = tags.into_iter().filter(|tag| self.wants(tag)).take(MODELS_MAX).collect();
        let shown = self.show_all(&tags).await;
        let listed: Vec<Listed> = tags.iter().map(|tag| listed(tag, shown.get(&tag.digest))).collect();
        *self.shown.write().expect("nothing panics while it holds what was shown") = shown;
        let catalogue = Catalogue::new(&listed);
        let offers = catalogue.offers.clone();
        *self.catalogue.write().expect("nothing panics while it holds the catalogue") = catalogue;
        let version = types::text(&version, "/version").unwrap_or_default();
        Ok(Description { engine: format!("ollama {version}").trim().to_owned(), offers })
    }

    fn wants(&self, tag: &Tag) -> bool {
        let named = |wanted: &String| *wanted == tag.name || tag.name.strip_suffix(":latest") == Some(wanted);
        self.models.as_ref().is_none_or(|models| models.iter().any(named))
    }

    /// What is known of each digest, asking only about new ones. A model that does not answer is offered by its name alone.
    async fn show_all(&self, tags: &[Tag]) -> BTreeMap<String, Shown> {
        let mut known = self.shown.read().expect("nothing panics while it holds what was shown").clone();
        known.retain(|digest, _| tags.iter().any(|tag| tag.digest == *digest));
        let new: Vec<Tag> = tags.iter().filter(|tag| !known.contains_key(&tag.digest)).cloned().collect();
        let answers = futures::stream::iter(new.into_iter().map(|tag| self.show(tag))).buffer_unordered(SHOW_AT_ONCE);
        known.extend(answers.filter_map(|answer| async { answer }).collect::<Vec<_>>().await);
        known
    }

    async fn show(&self, tag: Tag) -> Option<(String, Shown)> {
        let answer = self.client.post_root_json("/api/show", &json!({"model": tag.name})).await;
        let answer = answer.inspect_err(|error| tracing::debug!(model = tag.name, %error, "not described")).ok()?;
        Some((tag.digest, read_shown(&answer)))
    }

    fn known_name(&self, call: &Call) -> Option<String> {
        self.catalogue.read().expect("nothing panics while it holds the catalogue").engine_name(&call.slug).map(str::to_owned)
    }
}

#[async_trait::async_trait]
impl Backend for Ollama {
    fn name(&self) -> &str {
        self.client.backend()
    }

    async fn describe(&self) -> Result<Description, BackendError> {
        crate::in_time(self.name(), DESCRIBE_TIMEOUT, self.ask()).await
    }

    async fn health(&self) -> Health {
        match self.client.get_root_json("/api/version").await {
            Ok(_) => Health::Up,
            Err(error) => Health::Down(error.to_string()),
        }
    }

    async fn execute(&self, call: Call) -> Result<Reply, BackendError> {
        if self.known_name(&call).is_none() {
            self.describe().await?;
        }
        let model = self.known_name(&call).ok_or_else(|| self.client.not_offered(&call.slug))?;
        pass_on(&self.client, call, &model).await
    }
}
