//! Every path of the API, once: the router and the README's table are both made from here.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};

use super::{Api, anthropic, jobs, models, ollama, openai};

/// One path with one method.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub about: &'static str,
    handler: fn() -> MethodRouter<Arc<Api>>,
}

const fn route(method: &'static str, path: &'static str, about: &'static str, handler: fn() -> MethodRouter<Arc<Api>>) -> Route {
    Route { method, path, about, handler }
}

/// Open to whoever reaches the port.
const HEALTH: &[Route] = &[
    route("GET", "/", "Ollama: that it runs, which its clients ask first", || get(super::ollama::running)),
    route("GET", "/health", "the process answers", || get(super::health)),
    route("GET", "/ready", "200 once a request would find a model, else 503", || get(super::ready)),
];

const METRICS: &[Route] = &[route("GET", "/metrics", "counters for Prometheus", || get(super::metrics))];

const GUARDED: &[Route] = &[
    route("POST", "/v1/chat/completions", "OpenAI: chat, passed through", || post(openai::chat)),
    route("POST", "/v1/completions", "OpenAI: completions, passed through", || post(openai::complete)),
    route("POST", "/v1/embeddings", "OpenAI: embeddings, passed through", || post(openai::embed)),
    route("POST", "/v1/responses", "OpenAI: responses, told as chat; nothing is stored", || post(openai::responses)),
    route("POST", "/v1/rerank", "Jina's and Cohere's rerank, where a backend has it", || post(openai::rerank)),
    route("POST", "/v1/audio/transcriptions", "OpenAI: speech to text, where a backend has it", || post(openai::transcribe)),
    route("GET", "/v1/models", "every model of the mesh once, with the nodes that have it", || get(models::list)),
    route("GET", "/v1/models/{*id}", "one of them", || get(models::one)),
    route("POST", "/v1/messages", "Anthropic: messages, told as chat", || post(anthropic::messages)),
    route("POST", "/v1/messages/count_tokens", "Anthropic: an estimate", || post(anthropic::count_tokens)),
    route("POST", "/api/chat", "Ollama: chat", || post(ollama::chat)),
    route("POST", "/api/generate", "Ollama: generate", || post(ollama::generate)),
    route("POST", "/api/embed", "Ollama: embed", || post(ollama::embed)),
    route("POST", "/api/embeddings", "Ollama: embeddings as they were before `embed`", || post(ollama::embeddings)),
    route("GET", "/api/tags", "Ollama: every model of the mesh", || get(ollama::tags)),
    route("GET", "/api/ps", "Ollama: the same; engines load when asked", || get(ollama::ps)),
    route("POST", "/api/show", "Ollama: one model", || post(ollama::show)),
    route("GET", "/api/version", "Ollama: the version whose API is spoken", || get(ollama::version)),
    route("POST", "/v1/jobs", "begin work that outlives its client", || post(jobs::create)),
    route("GET", "/v1/jobs", "your jobs", || get(jobs::list)),
    route("GET", "/v1/jobs/{id}", "one of them, with what it has answered so far", || get(jobs::one)),
    route("GET", "/v1/jobs/{id}/stream", "its events from the beginning, or after `Last-Event-ID`", || get(jobs::watch)),
    route("DELETE", "/v1/jobs/{id}", "cancel it", || delete(jobs::cancel)),
];

pub(super) fn health() -> Router<Arc<Api>> {
    routed(HEALTH)
}

pub(super) fn metrics() -> Router<Arc<Api>> {
    routed(METRICS)
}

pub(super) fn guarded() -> Router<Arc<Api>> {
    routed(GUARDED)
}

fn routed(routes: &[Route]) -> Router<Arc<Api>> {
    routes.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
}

/// All of them as a Markdown table.
pub fn table() -> String {
    let rows = GUARDED.iter().chain(HEALTH).chain(METRICS);
    let rows = rows.map(|route| format!("| `{} {}` | {} |\n", route.method, route.path.replace("{*id}", "{id}"), route.about));
    format!("| path | what it does |\n|---|---|\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_has_every_route() {
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&super::table()), "the README's table of routes should be:\n{}", super::table());
    }
}
