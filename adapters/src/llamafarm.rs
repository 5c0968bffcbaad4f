//! LlamaFarm: each project of the configured namespaces is offered, with its documents where it has some.
//!
//! Thin on purpose. Three habits of the server shape this file: an unknown path answers 200 with a web page, so content types are checked
//! first (in the shared client); a project with databases answers from its documents unless told otherwise, so `rag_enabled` is always
//! said; and it keeps the history of a conversation that the client sends anyway, so it is always told not to. It accepts sampling
//! parameters and drops them, which the offer's facts state.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::model_name::ModelName;
use crate::offer::{Catalogue, Listed};
use crate::openai::client::{Client, Post};
use crate::openai::types::{RequestBody, text};
use crate::{Backend, BackendError, Call, Description, Health, Operation, Reply};

/// Where LlamaFarm listens; before 2026-01-28 it was port 8000.
pub const DEFAULT_URL: &str = "http://127.0.0.1:14345";
/// The namespace that every installation has.
const DEFAULT_NAMESPACE: &str = "default";
/// Namespaces asked for at most.
const NAMESPACES_MAX: usize = 16;
/// How long the server may take to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at once for one project; the server does not say. A guess.
const SLOTS: u16 = 4;
/// How long titles are not asked for again: each project is a question of its own.
const TITLES_AGE: Duration = Duration::from_secs(60);
/// Projects whose titles are asked for, titles of each, and characters of each title.
const TITLED_PROJECTS_MAX: usize = 16;
const TITLES_MAX: usize = 64;
const TITLE_CHARS_MAX: usize = 128;
/// What it accepts and then ignores.
const IGNORED: &str = "temperature,top_p,stop,seed,tool_choice,response_format";

/// Where a LlamaFarm is, and which of its namespaces to offer.
#[derive(Clone, Debug)]
pub struct LlamaFarmConfig {
    /// Unique within the node.
    pub name: String,
    /// Without a path: `http://127.0.0.1:14345`.
    pub url: String,
    /// No route lists them; `default` is always among them.
    pub namespaces: Vec<String>,
    /// Whether to ask for the titles of documents.
    pub titles: bool,
}

/// A LlamaFarm server.
pub struct LlamaFarm {
    client: Client,
    namespaces: Vec<String>,
    titles: bool,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    catalogue: Catalogue,
    /// By engine name, `namespace/project`.
    projects: BTreeMap<String, Project>,
    titles: Titles,
}

/// Titles of documents by engine name.
#[derive(Clone, Default)]
struct Titles {
    by_project: BTreeMap<String, Vec<String>>,
    asked: Option<Instant>,
}

/// A project of `GET /v1/projects/{namespace}`.
#[derive(Clone, PartialEq, Debug)]
struct Project {
    namespace: String,
    name: String,
    /// Names of its databases; with any, it answers from documents.
    databases: Vec<String>,
    /// What the project calls its default model, and which model that is.
    model: Option<(String, String)>,
}

impl LlamaFarm {
    pub fn new(config: LlamaFarmConfig) -> Self {
        let mut namespaces = vec![DEFAULT_NAMESPACE.to_owned()];
        namespaces.extend(
            config.namespaces.into_iter().filter(|namespace| is_path_segment(namespace) && namespace != DEFAULT_NAMESPACE),
        );
        namespaces.truncate(NAMESPACES_MAX);
        let base = format!("{}/v1", config.url.trim_end_matches('/').trim_end_matches("/v1"));
        Self { client: Client::new(&config.name, &base, None), namespaces, titles: config.titles, known: RwLock::default() }
    }

    async fn ask(&self) -> Result<Description, BackendError> {
        let info = self.client.get_root_json("/info").await?;
        let version = version(&info).ok_or_else(|| self.client.not_the_protocol("JSON that is not LlamaFarm's"))?;
        let mut projects = Vec::new();
        for namespace in &self.namespaces {
            let answer = self.client.get_json(&format!("/projects/{namespace}")).await?;
            projects.extend(read_projects(&answer, namespace));
        }
        let titles = self.titles_of(&projects).await;
        let listed: Vec<Listed> = projects.iter().map(|project| project.listed(&titles)).collect();
        let catalogue = Catalogue::new(&listed);
        let offers = catalogue.offers.clone();
        let projects = projects.into_iter().map(|project| (project.engine_name(), project)).collect();
        *self.known.write().expect("nothing panics while it holds what is known") = Known { catalogue, projects, titles };
        Ok(Description { engine: format!("llamafarm {version}"), offers })
    }

    /// Those known, for a while; then those that the data sets of each project name. A project that does not say has none.
    async fn titles_of(&self, projects: &[Project]) -> Titles {
        let known = self.known.read().expect("nothing panics while it holds what is known").titles.clone();
        if !self.titles || known.asked.is_some_and(|asked| asked.elapsed() < TITLES_AGE) {
            return known;
        }
        let mut by_project = BTreeMap::new();
        for project in projects.iter().filter(|project| project.answers_from_documents()).take(TITLED_PROJECTS_MAX) {
            let path = format!("/projects/{}/{}/datasets/?include_extra_details=true", project.namespace, project.name);
            if let Ok(answer) = self.client.get_json(&path).await {
                by_project.insert(project.engine_name(), read_titles(&answer));
            }
        }
        Titles { by_project, asked: Some(Instant::now()) }
    }

    fn known_project(&self, call: &Call) -> Option<Project> {
        let known = self.known.read().expect("nothing panics while it holds what is known");
        known.projects.get(known.catalogue.engine_name(&call.slug)?).cloned()
    }

    async fn chat(&self, call: &Call, project: &Project) -> Result<Reply, BackendError> {
        let mut body = match RequestBody::parse(&call.body) {
            Ok(body) => body,
            Err(error) => return Ok(Reply::refusal(400, &error.to_string(), "invalid_request_error", None, None)),
        };
        project.prepare(&mut body);
        let path = format!("/projects/{}/{}/chat/completions", project.namespace, project.name);
        let post = Post {
            path: &path,
            streams: body.streams(),
            body: body.to_bytes(),
            content_type: "application/json",
            plain: false,
            headers: &[("x-no-session", "1")],
            remaining: call.remaining,
            trace: &call.trace,
        };
        self.client.post(post).await
    }
}

#[async_trait::async_trait]
impl Backend for LlamaFarm {
    fn name(&self) -> &str {
        self.client.backend()
    }

    async fn describe(&self) -> Result<Description, BackendError> {
        crate::in_time(self.name(), DESCRIBE_TIMEOUT, self.ask()).await
    }

    async fn health(&self) -> Health {
        match self.client.get_root_json("/health").await {
            Ok(answer) => read_health(&answer),
            Err(error) => Health::Down(error.to_string()),
        }
    }

    async fn execute(&self, call: Call) -> Result<Reply, BackendError> {
        if self.known_project(&call).is_none() {
            self.describe().await?;
        }
        let project = self.known_project(&call).ok_or_else(|| self.client.not_offered(&call.slug))?;
        if call.operation != Operation::Chat {
            let message = format!("LlamaFarm projects answer chat requests only, not `{}`", call.operation.path());
            return Ok(Reply::refusal(400, &message, "invalid_request_error", None, Some("unsupported_operation")));
        }
        self.chat(&call, &project).await
    }
}

impl Project {
    fn read(entry: &Value, namespace: &str) -> Option<Self> {
        let name = text(entry, "/name").filter(|name| is_path_segment(name))?;
        let databases = entry.pointer("/config/rag/databases").and_then(Value::as_array);
        let models = entry.pointer("/config/runtime/models").and_then(Value::as_array);
        let model = models.and_then(|models| models.iter().find(|model| is_default(model)).or_else(|| models.first()));
        Some(Self {
            namespace: namespace.to_owned(),
            databases: databases
                .map(|all| all.iter().filter_map(|database| text(database, "/name")).collect())
                .unwrap_or_default(),
            model: model.and_then(|model| Some((text(model, "/name")?, text(model, "/model")?))),
            name,
        })
    }

    fn engine_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn answers_from_documents(&self) -> bool {
        !self.databases.is_empty()
    }

    fn listed(&self, titles: &Titles) -> Listed {
        let model = self.model.as_ref().map(|(_, model)| ModelName::parse(model));
        let mut facts = model.as_ref().map(ModelName::facts).unwrap_or_default();
        facts.insert("ignores".to_owned(), IGNORED.to_owned());
        Listed {
            engine_name: self.engine_name(),
            name: self.name.clone(),
            kind: if self.answers_from_documents() { "rag" } else { "llm" }.to_owned(),
            description: self.description(model.as_ref()),
            facts,
            slots: SLOTS,
            titles: titles.by_project.get(&self.engine_name()).cloned().unwrap_or_default(),
        }
    }

    fn description(&self, model: Option<&ModelName>) -> String {
        let subject = self.name.replace(['-', '_'], " ");
        if self.answers_from_documents() {
            let databases = self.databases.join(", ").replace(['-', '_'], " ");
            return format!(
                "Answers questions about {subject} from its own documents (retrieval-augmented generation over {databases})."
            );
        }
        let model = model.map(|model| format!(" It runs on {}", model.description())).unwrap_or_default();
        format!("The project {subject}: a language model with a prompt of its own.{model}")
    }

    /// Says what the server would otherwise decide by itself.
    fn prepare(&self, body: &mut RequestBody) {
        body.set("rag_enabled", &Value::from(self.answers_from_documents()));
        match &self.model {
            Some((name, _)) => body.set("model", &Value::from(name.as_str())),
            None => body.remove("model"),
        }
    }
}

/// LlamaFarm's version, if this is what `GET /info` of a LlamaFarm answers.
pub fn version(info: &Value) -> Option<String> {
    text(info, "/data_directory")?;
    text(info, "/version")
}

fn read_projects(answer: &Value, namespace: &str) -> Vec<Project> {
    let entries = answer.get("projects").and_then(Value::as_array);
    entries.map(|entries| entries.iter().filter_map(|entry| Project::read(entry, namespace)).collect()).unwrap_or_default()
}

/// Of the documents in all data sets, as their files are called.
fn read_titles(answer: &Value) -> Vec<String> {
    let datasets = answer.get("datasets").and_then(Value::as_array);
    let files =
        |dataset: &Value| dataset.pointer("/details/files_metadata").and_then(Value::as_array).cloned().unwrap_or_default();
    let files = datasets.into_iter().flatten().flat_map(files);
    files.filter_map(|file| Some(title(&text(&file, "/original_file_name")?))).take(TITLES_MAX).collect()
}

/// `hr/Travel_Policy-2026.pdf` is "Travel Policy 2026".
fn title(file: &str) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.replace(['_', '-'], " ").split_whitespace().collect::<Vec<_>>().join(" ").chars().take(TITLE_CHARS_MAX).collect()
}

fn read_health(answer: &Value) -> Health {
    match text(answer, "/status").as_deref() {
        Some("healthy") => Health::Up,
        Some(status) => Health::Degraded(text(answer, "/summary").unwrap_or_else(|| status.to_owned())),
        None => Health::Degraded("it does not say how it is".to_owned()),
    }
}

fn is_default(model: &Value) -> bool {
    model.get("default").and_then(Value::as_bool).unwrap_or(false)
}

/// Names become part of a path; anything that could lead elsewhere is no name of ours.
fn is_path_segment(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projects() -> Vec<Project> {
        let answer: Value = serde_json::from_str(include_str!("../testdata/llamafarm/projects.json")).expect("a fixture is JSON");
        read_projects(&answer, "default")
    }

    #[test]
    fn a_project_with_databases_is_rag() {
        let projects = projects();
        assert_eq!(projects.iter().map(|project| project.name.as_str()).collect::<Vec<_>>(), ["support-handbook", "plain-chat"]);
        let listed: Vec<Listed> = projects.iter().map(|project| project.listed(&Titles::default())).collect();
        assert_eq!((listed[0].kind.as_str(), listed[1].kind.as_str()), ("rag", "llm"));
        assert!(listed[0].description.contains("support handbook"), "{}", listed[0].description);
        assert!(listed[1].description.contains("programming"), "{}", listed[1].description);
    }

    #[test]
    fn titles_are_what_files_are_called() {
        let answer: Value = serde_json::from_str(include_str!("../testdata/llamafarm/datasets.json")).expect("a fixture is JSON");
        assert_eq!(read_titles(&answer), ["Travel Policy 2026", "Parental leave"]);
        assert_eq!(read_titles(&serde_json::json!({"datasets": [{"name": "older", "files": ["9f86d08"]}]})), [""; 0]);
    }

    #[test]
    fn what_the_server_would_decide_is_said() {
        let mut body = RequestBody::parse(br#"{"model":"support-handbook","messages":[],"x":1}"#).unwrap();
        projects()[0].prepare(&mut body);
        assert_eq!(body.to_bytes(), br#"{"model":"fast","messages":[],"x":1,"rag_enabled":true}"#);
        let mut body = RequestBody::parse(br#"{"model":"plain-chat","rag_enabled":true}"#).unwrap();
        projects()[1].prepare(&mut body);
        assert_eq!(body.to_bytes(), br#"{"model":"code","rag_enabled":false}"#);
    }

    #[test]
    fn only_llamafarm_is_llamafarm() {
        let info: Value = serde_json::from_str(include_str!("../testdata/llamafarm/info.json")).expect("a fixture is JSON");
        assert_eq!(version(&info).as_deref(), Some("0.0.27"));
        assert_eq!(version(&serde_json::json!({"version": "1"})), None);
        let health: Value = serde_json::from_str(include_str!("../testdata/llamafarm/health.json")).expect("a fixture is JSON");
        assert_eq!(read_health(&health), Health::Degraded("1 of 3 components is degraded".into()));
        assert!(!is_path_segment("../x") && !is_path_segment("a/b") && !is_path_segment("a?b") && is_path_segment("a.b-c"));
    }
}
