//! The official `openai` package for Python, as it comes from PyPI, against the endpoint.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::support::{MockOpenAi, Setup, in_time, mesh};

/// Given as `1`, the machine has no Python to test with.
const WITHOUT_PYTHON: &str = "ATMO_TEST_NO_PYTHON";

/// The interpreter that has the package; `make test` sets it up.
const INTERPRETER: &str = "ATMO_TEST_PYTHON";

fn interpreter() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/python-venv/bin/python");
    let path = std::env::var_os(INTERPRETER).map_or_else(default, PathBuf::from);
    assert!(path.exists(), "there is no {}: run `make test`, which sets it up, or set {WITHOUT_PYTHON}=1", path.display());
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_streams_from_the_other_node() {
    if std::env::var(WITHOUT_PYTHON).is_ok_and(|value| value == "1") {
        eprintln!("{WITHOUT_PYTHON}=1: the Python client is not tested");
        return;
    }
    let interpreter = interpreter();
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&provider, &[&visitor]).await;
    mesh::offers(&visitor, "far-model").await;

    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/python/openai_client.py");
    let mut command = Command::new(interpreter);
    command.arg(script).arg(visitor.url("/v1")).arg("far-model").stdin(Stdio::null()).kill_on_drop(true);
    command.env("NO_PROXY", "127.0.0.1");
    let output = in_time(Duration::from_secs(60), "the Python client", command.output()).await.expect("Python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", visitor.log());

    let report: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
    assert_eq!(report["models"], serde_json::json!(["far-model"]));
    assert_eq!(report["whole"], engine.answer());
    assert_eq!(report["streamed"], engine.answer());
    assert!(report["pieces"].as_u64().is_some_and(|pieces| pieces > 1), "{report}");
    assert_eq!(report["tokens"], 4);
    assert_eq!(report["routed_by_meaning"], engine.answer());
    assert_eq!(report["unknown_model"], serde_json::json!([404, "model_not_found"]));
    assert!(provider.is_named_by(report["node"].as_str().expect("text")), "{report}");
    assert_eq!(engine.requests()[0]["x_of_this_client"], "kept");
}
