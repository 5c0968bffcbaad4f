//! An engine that answers at once: what remains is what stands before it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use futures::stream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The name of its model.
pub const MODEL: &str = "mock";
/// Tokens of a streamed answer.
pub const TOKENS: u32 = 50;
/// The field of a request that says how long to wait before each token, in microseconds. A field of OpenAI's API, so that it passes.
pub const PAUSE_FIELD: &str = "\"max_tokens\":";
const WHOLE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,"message":{"role":"assistant","content":"An answer."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#;
const LIST: &str = r#"{"object":"list","data":[{"id":"mock","object":"model","created":1,"owned_by":"llamacpp"}]}"#;
/// As llama-server says how much it takes on at once: more than the bench asks.
const PROPS: &str = r#"{"total_slots":8192,"default_generation_settings":{"n_ctx":8192}}"#;

/// Serves on a free port of loopback, which is printed, until the process is ended.
pub async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    crate::cli::print::line(&listener.local_addr()?.to_string())?;
    let router = Router::new()
        .route("/v1/models", get(models))
        .route("/props", get(props))
        .route("/health", get(|| async { "ok" }))
        .route("/v1/chat/completions", post(chat));
    crate::proxy::serve(listener, router, CancellationToken::new()).await;
    Ok(())
}

async fn models() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], LIST)
}

async fn props() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], PROPS)
}

async fn chat(body: Bytes) -> impl IntoResponse {
    let text = String::from_utf8_lossy(&body);
    if !text.contains("\"stream\":true") {
        return ([(CONTENT_TYPE, "application/json")], Body::from(WHOLE));
    }
    let pause =
        text.split_once(PAUSE_FIELD).map_or("0", |(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("0"));
    let pause = Duration::from_micros(pause.parse().unwrap_or(0));
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(tokens(pause)))
}

fn tokens(pause: Duration) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(0, move |token| async move {
        if token > TOKENS {
            return None;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let event = match token {
            TOKENS => "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".to_owned(),
            _ => format!("data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"t{token} \"}}}}]}}\n\n"),
        };
        Some((Ok(event.into()), token + 1))
    })
}
