//! Ranking and speech to text, where a backend has them: asked here, and from another node.

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::node::client;
use crate::support::{MockOpenAi, Node, mesh};

const RANKER: &str = "bge-reranker-v2-m3";
const LISTENER: &str = "whisper-large-v3";
const BOUNDARY: &str = "------------------------d74496d66958873e";

/// A recording that looks like a form in places.
const RECORDING: &[u8] =
    b"RIFF\x24\x00\x00\x00WAVEfmt \r\n--\r\n\x00\xff\xfe--------------------------d7\r\n\r\nname=\"model\"\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_ranked_here_and_from_another_node() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct", RANKER]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, RANKER).await;
    for node in [&provider, &visitor] {
        for model in [RANKER, "auto"] {
            let asked = json!({"model": model, "query": "What is a mesh?", "documents": ["a", "b", "c"], "top_n": 3, "x_of_this_client": 1});
            let answer = node.post("/v1/rerank", &asked).await;
            assert_eq!(answer.status(), 200);
            assert!(answer.headers()["x-atmo-capability"].to_str().expect("text").contains(RANKER));
            let told: Value = answer.json().await.expect("an answer is JSON");
            let order: Vec<u64> =
                told["results"].as_array().expect("a list").iter().filter_map(|result| result["index"].as_u64()).collect();
            assert_eq!(order, [2, 1, 0]);
            let received = engine.requests().pop().expect("it was asked");
            assert_eq!(received["model"], RANKER);
            for field in ["query", "documents", "top_n"] {
                assert_eq!(received[field], asked[field], "{field}");
            }
            assert_eq!(
                received.get("x_of_this_client").is_some(),
                node.name() == "provider",
                "a member says no more than is known"
            );
        }
    }
    // A chat model ranks nothing, and a ranker does not chat.
    let asked = json!({"model": "qwen2.5-7b-instruct", "query": "q", "documents": ["a"]});
    assert_eq!(visitor.post("/v1/rerank", &asked).await.status(), 404);
    assert_eq!(visitor.chat(RANKER, false).await.status(), 404);
    assert_eq!(visitor.post("/v1/rerank", &json!({"model": RANKER, "documents": ["a"]})).await.status(), 400);
}

fn part(name: &str, value: &str) -> Vec<u8> {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

fn recording() -> Vec<u8> {
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n";
    [format!("--{BOUNDARY}\r\n{head}").as_bytes(), RECORDING, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

async fn transcribe(node: &Node, form: Vec<u8>) -> Response {
    let request = client().post(node.url("/v1/audio/transcriptions"));
    let request = request.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}")).body(form);
    request.send().await.expect("an answer comes")
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_written_down_here_and_from_another_node() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct", LISTENER]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, LISTENER).await;
    for node in [&provider, &visitor] {
        for model in [LISTENER, "auto"] {
            let answer = transcribe(node, form(&[part("model", model), recording(), part("language", "de")])).await;
            assert_eq!(answer.status(), 200);
            assert!(answer.headers()["x-atmo-capability"].to_str().expect("text").contains(LISTENER));
            assert_eq!(answer.json::<Value>().await.expect("an answer is JSON")["text"], "hello there");
            let upload = engine.uploads().pop().expect("it was asked");
            assert!(
                upload.content_type.starts_with("multipart/form-data") && upload.content_type.contains(BOUNDARY),
                "{upload:?}"
            );
            // The model has the engine's own name, and every other byte is as it was.
            let expected = form(&[part("model", LISTENER), recording(), part("language", "de")]);
            assert_eq!(upload.body, expected, "{}", String::from_utf8_lossy(&upload.body));
        }
        let plain = transcribe(node, form(&[recording(), part("model", LISTENER), part("response_format", "text")])).await;
        assert_eq!(plain.status(), 200);
        assert!(plain.headers()["content-type"].to_str().expect("text").starts_with("text/plain"));
        assert_eq!(plain.text().await.expect("it is text"), "hello there\n");

        let unknown = transcribe(node, form(&[part("model", LISTENER), part("n_discard", "-1"), recording()])).await;
        assert_eq!(unknown.status(), 200);
        let upload = engine.uploads().pop().expect("it was asked");
        let kept = String::from_utf8_lossy(&upload.body).contains("n_discard");
        assert_eq!(kept, node.name() == "provider", "a member says no more than is known");
        assert!(upload.body.windows(RECORDING.len()).any(|window| window == RECORDING), "the recording is whole");
    }
    let before = engine.uploads().len();
    assert_eq!(transcribe(&visitor, form(&[recording()])).await.status(), 400, "no model");
    assert_eq!(transcribe(&visitor, b"{\"model\": \"whisper-large-v3\"}".to_vec()).await.status(), 400, "no form");
    assert_eq!(transcribe(&visitor, form(&[part("model", "no-such-model"), recording()])).await.status(), 404);
    assert_eq!(transcribe(&visitor, form(&[part("model", "qwen2.5-7b-instruct"), recording()])).await.status(), 404);
    assert_eq!(engine.uploads().len(), before);
}
