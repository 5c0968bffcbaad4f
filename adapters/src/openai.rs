//! Any server that speaks the OpenAI API: vLLM, llama-server, SGLang, LM Studio, LocalAI, another company's cloud.
//!
//! Which one it is gets guessed from what it answers, never from its port, and only to know how much it can do at once and how long its
//! context is; everything works without knowing. Requests pass through with nothing changed but `model`. There is deliberately no
//! translation, no retry and no queue here: those belong to whoever chooses between backends.

use std::sync::RwLock;
use std::time::Duration;

use atmo_capabilities::capability::facts;
use serde_json::Value;

use crate::model_name::Kind;
use crate::offer::{Catalogue, Listed};
use crate::{Backend, BackendError, Call, Description, Health, Operation, Reply, Secret};

pub mod client;
pub mod form;
pub mod types;

use client::{Client, Post};
use form::Form;
use types::{ModelEntry, RequestBody, read_models, text};

/// How long a server may take to describe itself, all questions together.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take over questions that only tell which software it is.
const IDENTIFY_TIMEOUT: Duration = Duration::from_millis(700);
/// Requests at once to an engine that batches continuously; measured servers take more, a guess on the careful side.
const BATCHING_SLOTS: u16 = 32;
/// Requests at once to an engine of which nothing is known; a guess.
const UNKNOWN_SLOTS: u16 = 4;

/// One server.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// Unique within the node.
    pub name: String,
    /// Its base, ending in `/v1`.
    pub url: String,
    pub api_key: Option<Secret>,
    /// Offer these and no others; where absent the server is asked.
    pub models: Option<Vec<String>>,
}

/// A server that speaks the OpenAI API.
pub struct OpenAi {
    client: Client,
    models: Option<Vec<String>>,
    /// What `describe` found last; `execute` needs it to know what the server calls a slug.
    catalogue: RwLock<Catalogue>,
    /// Found out once: an engine does not turn into another while it stays up.
    engine: RwLock<Option<Engine>>,
}

/// Which software answers, and what it says of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Engine {
    /// `vllm 0.11.0`, `llama-server`; `openai-compatible` where nothing is known.
    pub name: String,
    pub slots: u16,
    /// Of the loaded model, where there is only one.
    pub context_length: Option<u64>,
    pub vision: bool,
}

impl OpenAi {
    pub fn new(config: OpenAiConfig) -> Self {
        Self {
            client: Client::new(&config.name, &config.url, config.api_key),
            models: config.models,
            catalogue: RwLock::default(),
            engine: RwLock::default(),
        }
    }

    /// The base that requests go to, ending in `/v1`.
    pub fn url(&self) -> &str {
        self.client.base()
    }

    async fn ask(&self) -> Result<Description, BackendError> {
        let entries = self.entries().await.inspect_err(|_| self.forget_engine())?;
        let engine = self.engine(&entries).await;
        let listed: Vec<Listed> = entries.iter().map(|entry| listed(entry, &engine, entries.len())).collect();
        let catalogue = Catalogue::new(&listed);
        let offers = catalogue.offers.clone();
        *self.catalogue.write().expect("nothing panics while it holds the catalogue") = catalogue;
        Ok(Description { engine: engine.name, offers })
    }

    /// What the server lists, or what the configuration names, with what the server adds to those.
    async fn entries(&self) -> Result<Vec<ModelEntry>, BackendError> {
        let asked = self
            .client
            .get_json("/models")
            .await
            .and_then(|list| read_models(&list).ok_or_else(|| self.client.not_the_protocol("JSON without a list of models")));
        let Some(wanted) = &self.models else { return asked };
        let known = match asked {
            Ok(known) => known,
            Err(error @ BackendError::Unreachable { .. }) => return Err(error),
            // Some servers list nothing; the configuration knows better.
            Err(_) => Vec::new(),
        };
        let entry = |id: &String| known.iter().find(|entry| entry.id == *id).cloned();
        Ok(wanted.iter().map(|id| entry(id).unwrap_or_else(|| ModelEntry { id: id.clone(), ..ModelEntry::default() })).collect())
    }

    async fn engine(&self, entries: &[ModelEntry]) -> Engine {
        let known = self.engine.read().expect("nothing panics while it holds the engine").clone();
        if let Some(engine) = known {
            return engine;
        }
        let identified = tokio::time::timeout(IDENTIFY_TIMEOUT, identify(&self.client, entries)).await;
        let engine = identified.unwrap_or_else(|_| unknown("openai-compatible"));
        *self.engine.write().expect("nothing panics while it holds the engine") = Some(engine.clone());
        engine
    }

    /// Whatever answers here next may be another software.
    fn forget_engine(&self) {
        *self.engine.write().expect("nothing panics while it holds the engine") = None;
    }

    async fn engine_name(&self, call: &Call) -> Result<String, BackendError> {
        if let Some(name) = self.known_name(call) {
            return Ok(name);
        }
        // Never described, or changed since: ask once.
        self.describe().await?;
        self.known_name(call).ok_or_else(|| self.client.not_offered(&call.slug))
    }

    fn known_name(&self, call: &Call) -> Option<String> {
        self.catalogue.read().expect("nothing panics while it holds the catalogue").engine_name(&call.slug).map(str::to_owned)
    }
}

#[async_trait::async_trait]
impl Backend for OpenAi {
    fn name(&self) -> &str {
        self.client.backend()
    }

    async fn describe(&self) -> Result<Description, BackendError> {
        crate::in_time(self.name(), DESCRIBE_TIMEOUT, self.ask()).await
    }

    async fn health(&self) -> Health {
        self.client.health("/models").await
    }

    async fn execute(&self, call: Call) -> Result<Reply, BackendError> {
        let model = self.engine_name(&call).await?;
        pass_on(&self.client, call, &model).await
    }
}

/// Sends a request on as it is, but for the engine's own name of the model.
pub(crate) async fn pass_on(client: &Client, call: Call, model: &str) -> Result<Reply, BackendError> {
    let read = if call.operation == Operation::Transcribe { form_for(&call.body, model) } else { json_for(&call.body, model) };
    let (body, content_type, streams) = match read {
        Ok(read) => read,
        Err(why) => return Ok(Reply::refusal(400, &why, "invalid_request_error", None, None)),
    };
    let post = Post {
        path: call.operation.path(),
        streams: streams && matches!(call.operation, Operation::Chat | Operation::Complete | Operation::Transcribe),
        body,
        content_type: &content_type,
        plain: call.operation == Operation::Transcribe,
        headers: &[],
        remaining: call.remaining,
        trace: &call.trace,
    };
    client.post(post).await
}

/// The body for the model that the engine calls `model`, its content type, and whether it asks for a stream.
type Prepared = (Vec<u8>, String, bool);

fn json_for(body: &[u8], model: &str) -> Result<Prepared, String> {
    let mut body = RequestBody::parse(body).map_err(|error| error.to_string())?;
    body.set("model", &Value::from(model));
    Ok((body.to_bytes(), "application/json".to_owned(), body.streams()))
}

fn form_for(body: &[u8], model: &str) -> Result<Prepared, String> {
    let form = Form::parse(body).map_err(|error| error.to_string())?;
    Ok((form.with_model(model), form.content_type(), form.streams()))
}

fn listed(entry: &ModelEntry, engine: &Engine, entries: usize) -> Listed {
    let mut listed = Listed::from_name(&entry.id, engine.slots);
    let only = engine.context_length.filter(|_| entries == 1);
    // What a server is set to is less than what the model was trained for.
    if let Some(context) = [only, entry.context_length].into_iter().flatten().min() {
        listed.set_fact(facts::CONTEXT_LENGTH, context);
    }
    if let Some(parameters) = entry.parameters {
        listed.set_fact(facts::PARAMETERS_BILLIONS, (parameters as f64 / 1e7).round() / 100.0);
    }
    if engine.vision && entries == 1 {
        listed.set_fact(facts::VISION, true);
    }
    if let Some(dimensions) = entry.dimensions.filter(|_| listed.kind == Kind::Embedding.word()) {
        listed.set_fact(facts::DIMENSIONS, dimensions);
    }
    listed
}

/// Tells engines apart by what they answer. Never fails: an unknown engine is `openai-compatible`.
async fn identify(client: &Client, entries: &[ModelEntry]) -> Engine {
    let owner = entries.iter().find_map(|entry| entry.owned_by.as_deref()).unwrap_or_default().to_lowercase();
    match owner.as_str() {
        "vllm" => batching(versioned("vllm", client.get_root_json("/version").await.ok(), "/version")),
        "sglang" => batching(versioned("sglang", client.get_root_json("/get_server_info").await.ok(), "/version")),
        "llamacpp" => llama_server(client.get_root_json("/props").await.ok().as_ref()),
        "organization_owner" => unknown("lm-studio"),
        "library" => unknown("ollama"),
        _ => identify_by_routes(client).await,
    }
}

async fn identify_by_routes(client: &Client) -> Engine {
    let questions = (client.get_root_json("/props"), client.get_root_json("/api/v0/models"));
    match tokio::join!(questions.0, questions.1) {
        (Ok(props), _) if props.get("default_generation_settings").is_some() => llama_server(Some(&props)),
        (_, Ok(models)) if models.get("data").is_some() => unknown("lm-studio"),
        _ => unknown("openai-compatible"),
    }
}

fn llama_server(props: Option<&Value>) -> Engine {
    let number = |pointer: &str| props.and_then(|props| props.pointer(pointer)).and_then(Value::as_u64);
    let build = props.and_then(|props| text(props, "/build_info"));
    Engine {
        name: build.map_or("llama-server".to_owned(), |build| format!("llama-server {}", short(&build))),
        slots: number("/total_slots").and_then(|slots| u16::try_from(slots).ok()).filter(|slots| *slots > 0).unwrap_or(1),
        context_length: number("/default_generation_settings/n_ctx"),
        vision: props.and_then(|props| props.pointer("/modalities/vision")).and_then(Value::as_bool).unwrap_or(false),
    }
}

fn versioned(name: &str, answer: Option<Value>, pointer: &str) -> String {
    let version = answer.and_then(|answer| text(&answer, pointer));
    version.map_or(name.to_owned(), |version| format!("{name} {}", short(&version)))
}

/// A version as shown to people: a server's own text, so bounded.
fn short(version: &str) -> String {
    version.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn batching(name: String) -> Engine {
    Engine { name, slots: BATCHING_SLOTS, context_length: None, vision: false }
}

fn unknown(name: &str) -> Engine {
    Engine { name: name.to_owned(), slots: UNKNOWN_SLOTS, context_length: None, vision: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(text: &str) -> Value {
        serde_json::from_str(text).expect("a fixture is JSON")
    }

    #[test]
    fn llama_server_tells_slots_context_and_sight() {
        let engine = llama_server(Some(&fixture(include_str!("../testdata/llama_server/props.json"))));
        assert_eq!((engine.slots, engine.context_length, engine.vision), (2, Some(8192), false));
        let entries = read_models(&fixture(include_str!("../testdata/llama_server/models.json"))).unwrap();
        let offered = Catalogue::new(&[listed(&entries[0], &engine, 1)]).offers.remove(0);
        assert_eq!(offered.slots, 2);
        assert!(offered.body.facts.contains(&("context_length".into(), "8192".into())), "{:?}", offered.body.facts);
        assert!(offered.body.facts.contains(&("parameters_b".into(), "7.62".into())), "{:?}", offered.body.facts);
    }

    #[test]
    fn vllm_tells_its_context() {
        let entries = read_models(&fixture(include_str!("../testdata/vllm/models.json"))).unwrap();
        let listed = listed(&entries[0], &batching("vllm".into()), 1);
        assert_eq!(listed.facts.get("context_length").map(String::as_str), Some("32768"));
        assert_eq!((entries[0].owned_by.as_deref(), listed.slots), (Some("vllm"), BATCHING_SLOTS));
    }
}
