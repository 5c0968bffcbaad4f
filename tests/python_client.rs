//! The official clients for Python, as they come from PyPI, against the endpoint: those of OpenAI, Ollama and Anthropic.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Manner, MockOpenAi, Node, Setup, in_time, mesh};

/// Given as `1`, the machine has no Python to test with.
const WITHOUT_PYTHON: &str = "ATMO_TEST_NO_PYTHON";

/// The interpreter that has the packages; `make test` sets it up.
const INTERPRETER: &str = "ATMO_TEST_PYTHON";

/// The names of the models: one speaks, one calls the tool that it is offered, one makes vectors.
const SPEAKER: &str = "far-model";
const CALLER: &str = "calling-model";
const EMBEDDER: &str = "nomic-embed-text";

/// `None` where the machine is said to have no Python.
fn interpreter() -> Option<PathBuf> {
    if std::env::var(WITHOUT_PYTHON).is_ok_and(|value| value == "1") {
        eprintln!("{WITHOUT_PYTHON}=1: the Python clients are not tested");
        return None;
    }
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/python-venv/bin/python");
    let path = std::env::var_os(INTERPRETER).map_or_else(default, PathBuf::from);
    assert!(path.exists(), "there is no {}: run `make test`, which sets it up, or set {WITHOUT_PYTHON}=1", path.display());
    Some(path)
}

/// Runs one of the scripts against a node and hands back what it saw.
async fn report(interpreter: &Path, script: &str, arguments: &[&str], asked: &Node) -> Value {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/python").join(script);
    let mut command = Command::new(interpreter);
    command.arg(script).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.env("NO_PROXY", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = in_time(Duration::from_secs(60), "the Python client", command.output()).await.expect("Python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", asked.log());
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// A node that has the models, and one that has none, whose endpoint is asked.
struct Far {
    speaker: MockOpenAi,
    caller: MockOpenAi,
    provider: Node,
    visitor: Node,
}

impl Far {
    async fn start() -> Self {
        let speaker = MockOpenAi::start("engine", &[SPEAKER, EMBEDDER]).await;
        let caller = MockOpenAi::start("caller", &[CALLER]).await;
        caller.behaves(Manner::Calling);
        let provider = Setup::new("provider").config(&speaker.config()).config(&caller.config()).start().await;
        let visitor = Setup::new("visitor").start().await;
        mesh::form(&provider, &[&visitor]).await;
        for model in [SPEAKER, CALLER, EMBEDDER] {
            mesh::offers(&visitor, model).await;
        }
        Self { speaker, caller, provider, visitor }
    }

    /// The request to the engine that fits; fails the test where there is none.
    fn request(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let requests = self.speaker.requests();
        let found = requests.iter().find(|request| fits(request));
        found.cloned().unwrap_or_else(|| panic!("no request {what} among {requests:#?}"))
    }

    /// The request that tells what a tool said; fails the test unless the call before it is told as well.
    fn assert_tool_was_told(&self, said: &str) {
        let told = self.request("tells what the tool said", |request| last_message(request)["role"] == "tool");
        assert_eq!(last_message(&told)["content"], said, "{told}");
        let call = &told["messages"][1]["tool_calls"][0];
        assert_eq!(call["function"]["name"], "weather", "{told}");
        assert_eq!(call["id"], last_message(&told)["tool_call_id"], "{told}");
        let arguments = call["function"]["arguments"].as_str().expect("arguments are text");
        assert_eq!(serde_json::from_str::<Value>(arguments).expect("JSON"), json!({"city": "Paris"}));
    }

    /// Both requests that offered the tool, whole and as a stream.
    fn assert_tool_was_offered(&self) {
        let requests = self.caller.requests();
        assert_eq!(requests.iter().map(|request| request["stream"] == true).collect::<Vec<_>>(), [false, true]);
        for request in &requests {
            assert_eq!(request["tools"][0]["function"]["name"], "weather", "{request}");
            assert_eq!(request["tools"][0]["function"]["parameters"]["required"], json!(["city"]), "{request}");
        }
    }
}

fn last_message(request: &Value) -> &Value {
    request["messages"].as_array().and_then(|messages| messages.last()).unwrap_or(&Value::Null)
}

/// What each script reports of its tools.
fn assert_called(report: &Value, answer: &str) {
    let called = json!([["weather", {"city": "Bern"}]]);
    assert_eq!(report["tools"], json!({"called": called, "called_in_stream": called, "answered": answer}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_streams_from_the_other_node() {
    let Some(interpreter) = interpreter() else { return };
    let engine = MockOpenAi::start("engine", &[SPEAKER]).await;
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&provider, &[&visitor]).await;
    mesh::offers(&visitor, SPEAKER).await;

    let report = report(&interpreter, "openai_client.py", &[&visitor.url("/v1"), SPEAKER], &visitor).await;
    assert_eq!(report["models"], json!([SPEAKER]));
    assert_eq!(report["whole"], engine.answer());
    assert_eq!(report["streamed"], engine.answer());
    assert!(report["pieces"].as_u64().is_some_and(|pieces| pieces > 1), "{report}");
    assert_eq!(report["tokens"], 4);
    assert_eq!(report["routed_by_meaning"], engine.answer());
    assert_eq!(report["unknown_model"], json!([404, "model_not_found"]));
    assert!(provider.is_named_by(report["node"].as_str().expect("text")), "{report}");
    // What no API knows is the owner's to say, and no other node's.
    assert_eq!(engine.requests()[0].get("x_of_this_client"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_ollama_client_speaks_with_the_other_node() {
    let Some(interpreter) = interpreter() else { return };
    let far = Far::start().await;
    let report = report(&interpreter, "ollama_client.py", &[&far.visitor.url(""), SPEAKER, CALLER, EMBEDDER], &far.visitor).await;
    let answer = far.speaker.answer();

    assert_eq!(report["models"], json!([CALLER, SPEAKER, EMBEDDER]));
    assert_eq!(report["loaded"], report["models"]);
    assert_eq!(report["whole"], json!({"model": SPEAKER, "text": answer, "done": [true, "stop"], "tokens": [7, 4]}));
    let streamed = json!({"text": answer, "pieces": 4, "thinking": "", "done": [true, "stop"], "tokens": [7, 4], "timed": true});
    assert_eq!(report["streamed"], streamed);
    assert_eq!(report["generated_in_stream"], streamed);
    for one in ["latest", "generated", "formatted"] {
        assert_eq!(report[one], answer, "{one}");
    }
    assert_eq!(report["thought"], json!([null, answer]), "the engine tells no thoughts");
    assert_eq!(report["asynchronous"], json!({"whole": answer, "streamed": answer}));
    let vector = json!([1.0, 0.5, -0.25]);
    assert_eq!(report["embedded"], json!({"several": [vector, vector], "one": [vector], "former": vector}));
    assert_called(&report, &answer);
    for (error, status) in [("unknown_model", 404), ("unknown_shown", 404), ("wrong", 400)] {
        assert_eq!(report[error][0], status, "{error}: {report}");
    }

    let sampled = far.request("has a seed", |request| request["seed"] == 7);
    assert_eq!((&sampled["temperature"], &sampled["max_tokens"]), (&json!(0.5), &json!(50)));
    far.request("asks to think", |request| request["chat_template_kwargs"]["enable_thinking"] == true);
    let formatted = far.request("has a format", |request| request["response_format"]["type"] == "json_schema");
    assert_eq!(formatted["response_format"]["json_schema"]["schema"]["required"], json!(["city"]));
    far.assert_tool_was_offered();
    far.assert_tool_was_told("sunny in Paris");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_anthropic_client_speaks_with_the_other_node() {
    let Some(interpreter) = interpreter() else { return };
    let far = Far::start().await;
    let report = report(&interpreter, "anthropic_client.py", &[&far.visitor.url(""), SPEAKER, CALLER], &far.visitor).await;
    let answer = far.speaker.answer();

    assert!(far.provider.is_named_by(report["node"].as_str().expect("text")), "{report}");
    let whole = json!({
        "kind": ["message", "assistant", SPEAKER], "text": answer, "thinking": "", "called": [], "stopped": "end_turn",
        "tokens": [7, 4],
    });
    assert_eq!(report["whole"], whole);
    assert_eq!(report["thought"], whole, "the engine tells no thoughts");
    let mut streamed = whole;
    streamed["pieces"] = json!(4);
    streamed["events"] = json!([
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]);
    assert_eq!(report["streamed"], streamed);
    assert_eq!((&report["seen"], &report["formatted"]), (&json!(answer), &json!(answer)));
    assert_eq!(report["asynchronous"], json!({"whole": answer, "streamed": answer}));
    assert!(report["counted"].as_u64().is_some_and(|tokens| tokens > 0), "{report}");
    assert_called(&report, &answer);
    assert_eq!(report["unknown_model"], json!([404, "not_found_error"]));
    assert_eq!(report["wrong"], json!([400, "invalid_request_error"]));

    let first = far.request("has a system prompt", |request| request["messages"][0]["role"] == "system");
    assert_eq!(first["messages"][0]["content"], "Be short.", "{first}");
    let sampling = (&first["max_tokens"], &first["temperature"], &first["stop"]);
    assert_eq!(sampling, (&json!(50), &json!(0.5), &json!(["END"])));
    far.request("asks to think", |request| request["reasoning_effort"] == "low");
    far.request("has a format", |request| request["response_format"]["type"] == "json_schema");
    far.request("shows an image", |request| last_message(request)["content"][0]["type"] == "image_url");
    far.assert_tool_was_offered();
    assert_eq!(far.caller.requests()[0]["tool_choice"], "required");
    far.assert_tool_was_told("sunny");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_of_responses_speaks_with_the_other_node() {
    let Some(interpreter) = interpreter() else { return };
    let far = Far::start().await;
    let report = report(&interpreter, "responses_client.py", &[&far.visitor.url("/v1"), SPEAKER, CALLER], &far.visitor).await;
    let answer = far.speaker.answer();

    assert_eq!(report["models"], json!([CALLER, SPEAKER, EMBEDDER]));
    assert!(far.provider.is_named_by(report["node"].as_str().expect("text")), "{report}");
    let whole = json!({
        "kind": ["response", "completed", SPEAKER], "text": answer, "items": ["message"], "called": [], "tokens": [7, 4, 11],
    });
    assert_eq!(report["whole"], whole);
    assert_eq!(report["thought"], whole, "the engine tells no thoughts");
    let mut streamed = whole;
    streamed["streamed"] = json!(answer);
    streamed["pieces"] = json!(4);
    streamed["in_order"] = json!(true);
    streamed["events"] = json!([
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]);
    assert_eq!(report["streamed"], streamed);
    assert_eq!(report["formatted"], answer);
    assert_eq!(report["asynchronous"], json!({"whole": answer, "streamed": answer, "final": answer}));
    assert_called(&report, &answer);
    assert_eq!(report["unknown_model"], json!([404, "model_not_found", "model"]));
    assert_eq!(report["not_stored"], json!([400, null, "previous_response_id"]));
    assert_eq!(report["wrong"], json!([400, null, "input"]));

    let first = far.request("has instructions", |request| request["messages"][0]["content"] == "Be short.");
    assert_eq!(first["temperature"], 0.5, "{first}");
    far.request("asks to think", |request| request["reasoning_effort"] == "low");
    far.request("has a format", |request| request["response_format"]["json_schema"]["name"] == "city");
    far.assert_tool_was_offered();
    assert_eq!(far.caller.requests()[0]["tool_choice"], "required");
    far.assert_tool_was_told("sunny");
}
