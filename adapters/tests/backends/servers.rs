//! Server-shaped backends against mocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use atmo_adapters::conformance::{Expected, body, call, chat, conforms, execute};
use atmo_adapters::llamafarm::{LlamaFarm, LlamaFarmConfig};
use atmo_adapters::ollama::{Ollama, OllamaConfig};
use atmo_adapters::openai::{OpenAi, OpenAiConfig};
use atmo_adapters::{Backend, BackendError, Call, Health, Secret};
use atmo_protocol::Slug;
use futures::StreamExt as _;
use serde_json::json;

use crate::harness::cases;
use crate::mock::{self, Answer, Mock, Request};

const CODER: Expected<'static> = Expected { chat_slug: "qwen2.5-coder:7b", kind: "llm" };

cases![
    an_openai_server_conforms,
    requests_pass_through_untouched_but_for_the_model,
    a_web_page_is_not_an_answer,
    statuses_are_sorted_by_what_to_do,
    a_slow_server_times_out,
    endless_answers_are_cut,
    hanging_up_is_noticed_at_once,
    bytes_are_passed_on_as_they_arrive,
    an_ollama_conforms_and_is_asked_once_about_each_model,
    a_llamafarm_conforms_and_is_told_what_it_would_decide,
];

fn openai(mock: &Mock) -> OpenAi {
    let api_key = Some(Secret::new("sk-test"));
    OpenAi::new(OpenAiConfig { name: "mock".into(), url: format!("{}/v1", mock.url), api_key, models: None })
}

async fn an_openai_server_conforms() {
    let mock = Mock::start(mock::openai).await;
    conforms(&openai(&mock), CODER).await;
    assert!(mock.asked("/v1/chat/completions").iter().all(|request| request.header("authorization") == Some("Bearer sk-test")));
}

async fn requests_pass_through_untouched_but_for_the_model() {
    let mock = Mock::start(mock::openai).await;
    let written = r#"{"z":1.000000000000000000000000001e10,"model":"auto","messages":[{"role":"user","content":"é"}],"future":{"a": [1,2]},"big":123456789012345678901}"#;
    let request = Call { body: written.into(), ..call(Slug::from_name(CODER.chat_slug), json!({})) };
    assert_eq!(execute(&openai(&mock), request).await.status, 200);
    let asked = mock.asked("/v1/chat/completions").remove(0);
    assert_eq!(asked.text(), written.replace("\"auto\"", "\"qwen2.5-coder:7b\""));
    assert_eq!((asked.header("x-request-id"), asked.header("content-type")), (Some("conformance"), Some("application/json")));
}

async fn a_web_page_is_not_an_answer() {
    let mock = Mock::start(|_| Answer::html()).await;
    let backend = openai(&mock);
    assert!(matches!(backend.describe().await, Err(BackendError::NotTheProtocol { .. })));
    assert!(matches!(backend.health().await, Health::Degraded(why) if why.contains("text/html")));
    let named = OpenAiConfig { name: "m".into(), url: format!("{}/v1", mock.url), api_key: None, models: Some(vec!["m".into()]) };
    let backend = OpenAi::new(named);
    let outcome = backend.execute(call(Slug::from_name("m"), json!({"messages": []}))).await;
    assert!(matches!(outcome, Err(BackendError::NotTheProtocol { .. })), "{outcome:?}");
}

async fn statuses_are_sorted_by_what_to_do() {
    let error = |status: u16| Answer::Whole(status, "application/json", br#"{"error":{"message":"out of memory"}}"#.to_vec());
    let mock = Mock::start(move |request| match (request.path.as_str(), request.header("x-request-id")) {
        ("/v1/chat/completions", Some(status)) => error(status.parse().expect("the test sends a status")),
        _ => mock::openai(request),
    })
    .await;
    let backend = openai(&mock);
    let answered = async |status: &str| backend.execute(Call { trace: status.into(), ..chat(CODER, json!({})) }).await;
    for status in ["429", "503"] {
        assert!(matches!(answered(status).await, Err(BackendError::Busy { .. })), "{status}");
    }
    assert!(matches!(answered("500").await, Err(BackendError::Failed { cause, .. }) if cause.contains("out of memory")));
    assert!(matches!(answered("401").await, Err(BackendError::Failed { cause, .. }) if cause.contains("api_key_file")));
    assert!(matches!(answered("302").await, Err(BackendError::NotTheProtocol { .. })));
    for status in [400, 404, 422] {
        let reply = answered(&status.to_string()).await.expect("the engine's refusal is passed on");
        assert_eq!(reply.status, status);
        assert!(String::from_utf8(body(reply).await).expect("it is text").contains("out of memory"));
    }
    let gone =
        OpenAi::new(OpenAiConfig { name: "gone".into(), url: "http://127.0.0.1:9/v1".into(), api_key: None, models: None });
    assert!(matches!(gone.describe().await, Err(BackendError::Unreachable { cause, .. }) if cause.contains("refused")));
    assert!(matches!(gone.health().await, Health::Down(_)));
}

async fn a_slow_server_times_out() {
    let mock = Mock::start(|request| if request.path == "/v1/models" { mock::openai(request) } else { Answer::Silence }).await;
    let start = Instant::now();
    let request = Call { remaining: Duration::from_millis(300), ..chat(CODER, json!({})) };
    let backend = openai(&mock);
    backend.describe().await.expect("a server whose other routes hang is described");
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
    let outcome = backend.execute(request).await;
    assert!(matches!(outcome, Err(BackendError::TimedOut { .. })), "{outcome:?}");

    let mock = Mock::start(|request| {
        if request.path == "/v1/models" { mock::openai(request) } else { mock::chat(request, Duration::from_millis(150)) }
    })
    .await;
    let request = Call { remaining: Duration::from_millis(400), ..chat(CODER, json!({"stream": true})) };
    let chunks: Vec<_> = execute(&openai(&mock), request).await.chunks.collect().await;
    assert!(matches!(chunks.last(), Some(Err(BackendError::TimedOut { .. }))), "{chunks:?}");
    assert!(chunks.len() > 1, "what came in time was passed on");
}

async fn endless_answers_are_cut() {
    let mock = Mock::start(|_| Answer::Endless(8 << 20)).await;
    let outcome = openai(&mock).describe().await;
    assert!(matches!(&outcome, Err(BackendError::Failed { cause, .. }) if cause.contains("4 MiB")), "{outcome:?}");

    let mock =
        Mock::start(|request| if request.path == "/v1/models" { mock::openai(request) } else { Answer::Endless(1 << 40) }).await;
    let mut chunks = execute(&openai(&mock), chat(CODER, json!({}))).await.chunks;
    let (mut bytes, mut error) = (0, None);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => bytes += chunk.len(),
            Err(cut) => error = Some(cut),
        }
    }
    assert!(bytes <= 64 << 20 && matches!(error, Some(BackendError::Failed { .. })), "{bytes} {error:?}");
}

async fn hanging_up_is_noticed_at_once() {
    let mut mock = Mock::start(|request| {
        if request.path == "/v1/models" { mock::openai(request) } else { mock::chat(request, Duration::from_millis(300)) }
    })
    .await;
    let backend = openai(&mock);
    let mut reply = execute(&backend, chat(CODER, json!({"stream": true}))).await;
    reply.chunks.next().await.expect("a chunk").expect("that is one");
    let dropped = Instant::now();
    drop(reply);
    let noticed = mock.hang_ups.recv().await.expect("the server lives");
    assert!(noticed - dropped < Duration::from_millis(100), "it took {:?}", noticed - dropped);

    // And before the engine has answered at all.
    let abandoned =
        tokio::time::timeout(Duration::from_millis(50), backend.execute(chat(CODER, json!({"stream": true, "slow": 1}))));
    let reply = abandoned.await.expect("headers come at once").expect("they do");
    let dropped = Instant::now();
    drop(reply);
    assert!(mock.hang_ups.recv().await.expect("the server lives") - dropped < Duration::from_millis(100));
}

async fn bytes_are_passed_on_as_they_arrive() {
    let pause = Duration::from_millis(100);
    let mock =
        Mock::start(move |request| if request.path == "/v1/models" { mock::openai(request) } else { mock::chat(request, pause) })
            .await;
    let mut chunks = execute(&openai(&mock), chat(CODER, json!({"stream": true}))).await.chunks;
    let mut arrivals = Vec::new();
    while let Some(chunk) = chunks.next().await {
        chunk.expect("the stream holds");
        arrivals.push(Instant::now());
    }
    assert_eq!(arrivals.len(), 6, "each event comes by itself");
    assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] > pause / 2), "none waits for the next");
}

async fn an_ollama_conforms_and_is_asked_once_about_each_model() {
    let shows = Arc::new(AtomicUsize::new(0));
    let counter = shows.clone();
    let mock = Mock::start(move |request| ollama(request, &counter)).await;
    let backend = Ollama::new(OllamaConfig { name: "ollama".into(), url: mock.url.clone(), api_key: None, models: None });
    conforms(&backend, CODER).await;
    assert_eq!(shows.load(Ordering::Relaxed), 2, "two models, asked about once each");
    let description = backend.describe().await.expect("it is up");
    assert_eq!(description.engine, "ollama 0.12.3");
    assert_eq!(description.offers[1].body.kind, "embedding");
    assert!(mock.asked("/v1/chat/completions")[0].text().contains(r#""model":"qwen2.5-coder:7b""#));
    let chosen =
        OllamaConfig { name: "o".into(), url: mock.url.clone(), api_key: None, models: Some(vec!["nomic-embed-text".into()]) };
    let description = Ollama::new(chosen).describe().await.expect("it is up");
    assert_eq!(description.offers.len(), 1, "only what was chosen is offered");
}

/// An Ollama with two models.
pub fn ollama(request: &Request, shows: &AtomicUsize) -> Answer {
    match request.path.as_str() {
        "/api/version" => Answer::json(include_str!("../../testdata/ollama/version.json")),
        "/api/tags" => Answer::json(include_str!("../../testdata/ollama/tags.json")),
        "/api/show" => {
            shows.fetch_add(1, Ordering::Relaxed);
            let nomic = request.text().contains("nomic");
            Answer::json(if nomic {
                include_str!("../../testdata/ollama/show_nomic.json")
            } else {
                include_str!("../../testdata/ollama/show_qwen.json")
            })
        }
        _ => mock::openai(request),
    }
}

async fn a_llamafarm_conforms_and_is_told_what_it_would_decide() {
    let mock = Mock::start(llamafarm).await;
    let config = LlamaFarmConfig { name: "farm".into(), url: mock.url.clone(), namespaces: vec!["../x".into()], titles: true };
    let backend = LlamaFarm::new(config);
    let health = backend.health().await;
    assert!(matches!(health, Health::Up), "{health:?}");
    conforms(&backend, Expected { chat_slug: "support-handbook", kind: "rag" }).await;
    let offers = backend.describe().await.expect("it describes itself").offers;
    assert_eq!(offers[0].titles, ["Travel Policy 2026", "Parental leave"]);
    assert_eq!(
        mock.asked("/v1/projects/default/support-handbook/datasets/?include_extra_details=true").len(),
        1,
        "not asked for again at once"
    );
    let asked = mock.asked("/v1/projects/default/support-handbook/chat/completions").remove(0);
    assert_eq!(asked.header("x-no-session"), Some("1"));
    assert!(asked.text().contains(r#""rag_enabled":true"#) && asked.text().contains(r#""model":"fast""#), "{}", asked.text());
    let page = Mock::start(|_| Answer::html()).await;
    let trap =
        LlamaFarm::new(LlamaFarmConfig { name: "trap".into(), url: page.url.clone(), namespaces: Vec::new(), titles: false });
    assert!(matches!(trap.describe().await, Err(BackendError::NotTheProtocol { .. })));
}

/// A LlamaFarm with two projects; every unknown path is a web page.
pub fn llamafarm(request: &Request) -> Answer {
    match request.path.as_str() {
        "/info" => Answer::json(include_str!("../../testdata/llamafarm/info.json")),
        "/health" => Answer::json(r#"{"status":"healthy","summary":"all components are healthy","components":[],"seeds":[]}"#),
        "/v1/projects/default" => Answer::json(include_str!("../../testdata/llamafarm/projects.json")),
        path if path.ends_with("/datasets/?include_extra_details=true") => {
            Answer::json(include_str!("../../testdata/llamafarm/datasets.json"))
        }
        path if path.starts_with("/v1/projects/default/") => mock::chat(request, Duration::ZERO),
        _ => Answer::html(),
    }
}
