use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::{Asked, Operation, Reader, RequestError};

const NOW: &str = "2026-11-02T08:00:00Z";
const PNG: &str = "iVBORw0KGgoAAAANSUhEUg==";

/// A clock that is a millisecond later whenever it is asked.
fn clock() -> Clock {
    let asked = AtomicU64::new(0);
    Box::new(move || (asked.fetch_add(1, Ordering::Relaxed) + 1) * 1_000_000)
}

fn asked(route: Route, body: &Value) -> Result<Asked, RequestError> {
    let body = body.to_string();
    match route {
        Route::Chat => chat(body.as_bytes(), NOW, clock()),
        Route::Generate => generate(body.as_bytes(), NOW, clock()),
        Route::Embed => embed(body.as_bytes(), clock()),
        Route::Embeddings => embeddings(body.as_bytes()),
    }
}

fn told(route: Route, body: Value) -> Value {
    asked(route, &body).unwrap_or_else(|error| panic!("{body}: {error}")).body
}

/// What a client gets for this answer of a backend, cut at these places.
fn answer(route: Route, body: &Value, content_type: &str, bytes: &[u8], cuts: &[usize]) -> String {
    let mut teller = asked(route, body).unwrap().teller;
    let mut reader = Reader::new(content_type);
    let mut out = Vec::new();
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let mut from = 0;
    for end in ends {
        reader.push(&bytes[from..end]).unwrap().into_iter().for_each(|event| teller.tell(event, &mut out));
        from = end;
    }
    reader.finish().unwrap().into_iter().for_each(|event| teller.tell(event, &mut out));
    teller.end(&mut out);
    String::from_utf8(out).unwrap()
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn streamed(route: Route, body: &Value) -> Vec<Value> {
    lines(&answer(route, body, "text/event-stream", STREAM.as_bytes(), &[]))
}

const STREAM: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hé\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\"\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"c2\",\"function\":{\"name\":\"g\",\"arguments\":\"\"}},{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":9}}\n\n",
    "data: [DONE]\n\n",
);

fn hello() -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }] })
}

#[test]
fn a_chat_streams_unless_it_says_otherwise() {
    let body = json!({
        "model": "qwen3:8b",
        "messages": [{ "role": "system", "content": "Be brief." }, { "role": "User", "content": "Hi" }],
        "keep_alive": "5m",
    });
    let expected = json!({
        "model": "qwen3:8b",
        "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi" }],
        "stream": true, "stream_options": { "include_usage": true },
    });
    assert_eq!(told(Route::Chat, body), expected);

    let mut body = hello();
    body["stream"] = json!(false);
    assert_eq!(told(Route::Chat, body.clone()), json!({ "model": "m", "messages": body["messages"], "stream": false }));
    assert!(!asked(Route::Chat, &body).unwrap().teller.streams());
}

#[test]
fn results_of_tools_find_their_calls() {
    let tool = json!({ "function": { "name": "f", "description": "d", "parameters": { "type": "object" } } });
    let body = json!({
        "model": "m", "stream": false, "tools": [tool], "tool_choice": "auto",
        "messages": [
            { "role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                { "function": { "name": "f", "arguments": { "a": 1 } } }, { "function": { "name": "g" } },
                { "id": "x", "function": { "name": "f", "arguments": {} } },
            ] },
            { "role": "tool", "content": "7", "tool_name": "g" },
            { "role": "tool", "content": "8", "tool_call_id": "x" },
            { "role": "tool", "content": "9" },
            { "role": "tool", "content": "10", "name": "f" },
        ],
    });
    let call = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let expected = json!({
        "model": "m", "stream": false, "tool_choice": "auto",
        "tools": [{ "type": "function", "function": { "name": "f", "description": "d", "parameters": { "type": "object" } } }],
        "messages": [
            { "role": "assistant", "content": null, "reasoning_content": "hm",
              "tool_calls": [call("call_0", "f", "{\"a\":1}"), call("call_1", "g", "{}"), call("x", "f", "{}")] },
            { "role": "tool", "content": "7", "name": "g", "tool_call_id": "call_1" },
            { "role": "tool", "content": "8", "tool_call_id": "x" },
            { "role": "tool", "content": "9", "tool_call_id": "call_0" },
            { "role": "tool", "content": "10", "name": "f", "tool_call_id": "call_2" },
        ],
    });
    assert_eq!(told(Route::Chat, body), expected);
}

#[test]
fn images_become_data_urls() {
    let url = |image: &str| {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "What?", "images": [image] }] });
        told(Route::Chat, body)["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap().to_owned()
    };
    for (image, mime) in
        [(PNG, "png"), ("/9j/4AAQSkZJRg==", "jpeg"), ("R0lGODlhAQABAA==", "gif"), ("UklGRiQAAABXRUJQVlA4IA==", "webp")]
    {
        assert_eq!(url(image), format!("data:image/{mime};base64,{image}"));
    }
    assert_eq!(url("iVBORw0KGgoA\nAAAN\r\n"), "data:image/png;base64,iVBORw0KGgoAAAAN");
    assert_eq!(url("data:image/bmp;base64,Qk0="), "data:image/bmp;base64,Qk0=");

    let body = json!({ "model": "m", "prompt": "What?", "images": [PNG], "system": "Look." });
    let image = json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{PNG}") } });
    let expected = json!([
        { "role": "system", "content": "Look." },
        { "role": "user", "content": [image, { "type": "text", "text": "What?" }] },
    ]);
    assert_eq!(told(Route::Generate, body)["messages"], expected);
}

#[test]
fn every_option_has_its_name() {
    let mut body = hello();
    body["stream"] = json!(false);
    body["options"] = json!({
        "temperature": 0.8, "top_p": 0.9, "top_k": 40.0, "min_p": 0, "typical_p": 0.7, "seed": 42, "num_predict": 100,
        "num_keep": 5, "stop": ["\n", "user:"], "repeat_penalty": 1.2, "repeat_last_n": -1, "presence_penalty": 1.5, "frequency_penalty": 1.0,
        "mirostat": 1, "mirostat_tau": 0.8, "mirostat_eta": 0.6, "num_ctx": 1024, "num_gpu": 1, "penalize_newline": true,
        "numa": null,
    });
    let expected = json!({
        "model": "m", "messages": body["messages"], "stream": false,
        "temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0, "typical_p": 0.7, "seed": 42, "max_tokens": 100, "n_keep": 5,
        "stop": ["\n", "user:"], "repeat_penalty": 1.2, "repetition_penalty": 1.2, "repeat_last_n": -1, "presence_penalty": 1.5,
        "frequency_penalty": 1.0, "mirostat": 1, "mirostat_tau": 0.8, "mirostat_eta": 0.6,
    });
    assert_eq!(told(Route::Chat, body.clone()), expected);

    body["options"] = json!({ "num_predict": -1, "seed": -1, "stop": "x", "temperature": null });
    assert_eq!(
        told(Route::Chat, body.clone()),
        json!({ "model": "m", "messages": body["messages"], "stream": false, "stop": ["x"] })
    );
}

#[test]
fn formats_and_thinking() {
    let with = |field: &str, value: Value| {
        let mut body = hello();
        body[field] = value;
        told(Route::Chat, body)
    };
    let schema = json!({ "type": "object", "properties": {} });
    assert_eq!(with("format", json!("json"))["response_format"], json!({ "type": "json_object" }));
    assert_eq!(
        with("format", schema.clone())["response_format"],
        json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } })
    );
    assert_eq!(with("format", json!("")), told(Route::Chat, hello()));

    for (think, effort, switches) in [
        (json!(true), Value::Null, json!({ "enable_thinking": true, "thinking": true })),
        (json!(false), json!("none"), json!({ "enable_thinking": false, "thinking": false })),
        (json!("high"), json!("high"), json!({ "enable_thinking": true, "thinking": true, "reasoning_effort": "high" })),
    ] {
        let told = with("think", think);
        assert_eq!((&told["reasoning_effort"], &told["chat_template_kwargs"]), (&effort, &switches));
    }
}

#[test]
fn a_prompt_is_a_chat_and_a_raw_one_a_completion() {
    let body = json!({
        "model": "m", "prompt": "Hi", "system": "", "suffix": "", "template": "{{ .Prompt }}", "raw": false, "context": [],
    });
    let chat = asked(Route::Generate, &body).unwrap();
    assert_eq!(chat.operation, Operation::Chat);
    assert_eq!(chat.body["messages"], json!([{ "role": "user", "content": "Hi" }]));

    let body = json!({ "model": "m", "prompt": "[INST] Hi", "raw": true, "stream": false, "options": { "num_predict": 3 } });
    let raw = asked(Route::Generate, &body).unwrap();
    assert_eq!(raw.operation, Operation::Complete);
    assert_eq!(raw.body, json!({ "model": "m", "prompt": "[INST] Hi", "stream": false, "max_tokens": 3 }));

    let body = json!({ "model": "m", "prompt": "def f(", "suffix": "return", "stream": false });
    let between = asked(Route::Generate, &body).unwrap();
    assert_eq!(between.operation, Operation::Complete);
    assert_eq!(between.body, json!({ "model": "m", "prompt": "def f(", "suffix": "return", "stream": false }));
}

#[test]
fn what_is_wrong_is_named() {
    let with = |field: &str, value: Value| {
        let mut body = hello();
        body[field] = value;
        body
    };
    let message = |message: Value| json!({ "model": "m", "messages": [message] });
    for (route, body, param) in [
        (Route::Chat, json!([]), None),
        (Route::Chat, json!({ "messages": [] }), Some("messages")),
        (Route::Chat, with("model", json!("")), Some("model")),
        (Route::Chat, with("model", json!(7)), Some("model")),
        (Route::Chat, with("stream", json!("yes")), Some("stream")),
        (Route::Chat, with("format", json!("yaml")), Some("format")),
        (Route::Chat, with("think", json!("a lot")), Some("think")),
        (Route::Chat, with("tools", json!([{ "name": "f" }])), Some("tools")),
        (Route::Chat, with("options", json!([])), Some("options")),
        (Route::Chat, with("options", json!({ "temperature": "hot" })), Some("options")),
        (Route::Chat, with("options", json!({ "stop": [1] })), Some("options")),
        (Route::Chat, message(json!("Hi")), Some("messages")),
        (Route::Chat, message(json!({ "content": "Hi" })), Some("messages")),
        (Route::Chat, message(json!({ "role": "user", "content": 1 })), Some("messages")),
        (Route::Chat, message(json!({ "role": "user", "images": ["AAAA"] })), Some("images")),
        (Route::Chat, message(json!({ "role": "user", "images": ["iVBORw0KGgo\",\""] })), Some("images")),
        (Route::Chat, message(json!({ "role": "assistant", "tool_calls": [{ "function": {} }] })), Some("messages")),
        (Route::Generate, json!({ "model": "m" }), Some("prompt")),
        (Route::Generate, json!({ "model": "m", "prompt": "Hi", "context": [1] }), Some("context")),
        (Route::Generate, json!({ "model": "m", "prompt": "Hi", "raw": true, "system": "s" }), Some("system")),
        (Route::Generate, json!({ "model": "m", "prompt": "Hi", "suffix": "s", "images": [PNG] }), Some("images")),
        (Route::Embed, json!({ "model": "m", "input": [1] }), Some("input")),
        (Route::Embed, json!({ "model": "m", "input": "a", "dimensions": "b" }), Some("dimensions")),
        (Route::Embeddings, json!({ "model": "m", "prompt": ["a"] }), Some("prompt")),
    ] {
        let error = asked(route, &body).err().unwrap_or_else(|| panic!("{body} was taken"));
        assert_eq!(error.param, param, "{body}: {error}");
    }
}

#[test]
fn requests_for_nothing_load_and_unload() {
    let load = |route, body: Value| load_request(route, body.to_string().as_bytes());
    let chat = load(Route::Chat, json!({ "model": "m", "messages": [] })).unwrap();
    assert_eq!(
        chat.answer(NOW),
        json!({
            "model": "m", "created_at": NOW, "done": true, "done_reason": "load",
            "message": { "role": "assistant", "content": "" },
        })
    );
    let generate = load(Route::Generate, json!({ "model": "m", "keep_alive": 0 })).unwrap();
    assert_eq!(
        generate.answer(NOW),
        json!({ "model": "m", "created_at": NOW, "response": "", "done": true, "done_reason": "unload" })
    );
    assert_eq!(
        load(Route::Embed, json!({ "model": "m", "input": "" })).unwrap().answer(NOW),
        json!({ "model": "m", "embeddings": [] })
    );
    assert_eq!(load(Route::Embeddings, json!({ "model": "m" })).unwrap().answer(NOW), json!({ "embedding": [] }));

    for (keep_alive, unload) in [
        (json!(0.0), true),
        (json!("0"), true),
        (json!("0m0s"), true),
        (json!("10s"), false),
        (json!(-1), false),
        (json!("x"), false),
    ] {
        let body = json!({ "model": "m", "prompt": "", "keep_alive": keep_alive });
        assert_eq!(load(Route::Generate, body).unwrap().unload, unload, "{keep_alive}");
    }
    for body in [hello(), json!({ "messages": [] }), json!({ "model": "m", "messages": 7 }), json!(7)] {
        assert_eq!(load(Route::Chat, body.clone()), None, "{body}");
    }
}

#[test]
fn a_streamed_chat_is_told_line_by_line() {
    let line = |message: Value| json!({ "model": "m", "created_at": NOW, "message": message, "done": false });
    let expected = [
        line(json!({ "role": "assistant", "content": "", "thinking": "hm" })),
        line(json!({ "role": "assistant", "content": "Hé" })),
        line(json!({ "role": "assistant", "content": "", "tool_calls": [
            { "id": "c1", "function": { "index": 0, "name": "f", "arguments": { "a": 1 } } },
            { "id": "c2", "function": { "index": 1, "name": "g", "arguments": {} } },
        ] })),
        json!({
            "model": "m", "created_at": NOW, "message": { "role": "assistant", "content": "" }, "done": true,
            "done_reason": "stop", "total_duration": 2_000_000, "load_duration": 0, "prompt_eval_count": 4, "prompt_eval_duration": 1_000_000,
            "eval_count": 9, "eval_duration": 1_000_000,
        }),
    ];
    assert_eq!(streamed(Route::Chat, &hello()), expected);
}

#[test]
fn a_streamed_completion_has_a_response_instead_of_a_message() {
    let lines = streamed(Route::Generate, &json!({ "model": "m", "prompt": "Hi" }));
    assert_eq!(lines[0], json!({ "model": "m", "created_at": NOW, "response": "", "thinking": "hm", "done": false }));
    assert_eq!(lines[1], json!({ "model": "m", "created_at": NOW, "response": "Hé", "done": false }));
    assert_eq!((&lines[3]["response"], &lines[3]["done"], &lines[3]["eval_count"]), (&json!(""), &json!(true), &json!(9)));
}

#[test]
fn a_whole_answer_is_one_object() {
    let mut body = hello();
    body["stream"] = json!(false);
    let call = json!({ "id": "c1", "function": { "name": "f", "arguments": "{\"a\":[1]}" } });
    let said = json!({ "content": "Hi", "reasoning_content": "hm", "tool_calls": [call] });
    let backend = json!({
        "choices": [{ "index": 0, "finish_reason": "length", "message": said }],
        "usage": { "prompt_tokens": 4, "completion_tokens": 9 },
    });
    let out = answer(Route::Chat, &body, "application/json", backend.to_string().as_bytes(), &[]);
    let expected = json!({
        "model": "m", "created_at": NOW, "done": true, "done_reason": "length",
        "message": { "role": "assistant", "content": "Hi", "thinking": "hm",
            "tool_calls": [{ "id": "c1", "function": { "index": 0, "name": "f", "arguments": { "a": [1] } } }] },
        "total_duration": 2_000_000, "load_duration": 0, "prompt_eval_count": 4, "prompt_eval_duration": 2_000_000,
        "eval_count": 9, "eval_duration": 2_000_000,
    });
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
    assert!(!out.ends_with('\n'));

    let body = json!({ "model": "m", "prompt": "Hi", "raw": true, "stream": false });
    let backend = br#"{"choices":[{"index":0,"finish_reason":"stop","text":"there"}]}"#;
    let out: Value = serde_json::from_str(&answer(Route::Generate, &body, "application/json", backend, &[])).unwrap();
    assert_eq!((&out["response"], &out["done_reason"]), (&json!("there"), &json!("stop")));
}

#[test]
fn arguments_cut_off_are_no_call() {
    let stream = STREAM.replace(":1}", ":").replace("tool_calls\"}]", "length\"}]");
    let lines = lines(&answer(Route::Chat, &hello(), "text/event-stream", stream.as_bytes(), &[]));
    assert_eq!(
        lines[2]["message"],
        json!({ "role": "assistant", "content": "{\"a\":",
            "tool_calls": [{ "id": "c2", "function": { "index": 1, "name": "g", "arguments": {} } }] })
    );
    assert_eq!(lines[3]["done_reason"], "length");
}

#[test]
fn what_breaks_off_ends_with_an_error() {
    let error = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
    let stream = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"H\"}}}}]}}\n\n{error}data: [DONE]\n\n");
    let out = answer(Route::Chat, &hello(), "text/event-stream", stream.as_bytes(), &[]);
    assert_eq!(lines(&out)[1..], [json!({ "error": "out of memory" })]);

    let mut teller = asked(Route::Chat, &hello()).unwrap().teller;
    let mut out = Vec::new();
    teller.broken_off("the node left", &mut out);
    assert_eq!(out, b"{\"error\":\"the node left\"}\n");
    assert_eq!(teller.content_type(), "application/x-ndjson");

    let fault = Fault { status: 404, kind: "invalid_request_error", message: "model 'm' not found", param: None, code: None };
    assert_eq!(super::fault(&fault), json!({ "error": "model 'm' not found" }));
}

#[test]
fn vectors() {
    let backend = br#"{"data":[{"index":0,"embedding":[0.1,-2]},{"index":1,"embedding":[1e300]}],"usage":{"prompt_tokens":5}}"#;
    let body = json!({ "model": "m", "input": ["a", "b"], "truncate": true, "dimensions": 2, "options": {} });
    assert_eq!(told(Route::Embed, body.clone()), json!({ "model": "m", "input": ["a", "b"], "dimensions": 2 }));
    assert_eq!(
        answer(Route::Embed, &body, "application/json", backend, &[]),
        r#"{"model":"m","embeddings":[[0.1,-2.0],[0.0]],"total_duration":1000000,"load_duration":0,"prompt_eval_count":5}"#
    );
    let body = json!({ "model": "m", "prompt": "a" });
    assert_eq!(told(Route::Embeddings, body.clone()), json!({ "model": "m", "input": "a" }));
    assert_eq!(answer(Route::Embeddings, &body, "application/json", backend, &[]), r#"{"embedding":[0.1,-2.0]}"#);
}

fn qwen() -> Model {
    Model {
        name: "qwen2.5:7b".into(),
        family: "qwen2".into(),
        parameters_b: Some(7.6),
        quantization: "Q4_K_M".into(),
        context_length: Some(32_768),
        tools: true,
        can_chat: true,
        digest: "ab".repeat(32),
        size_bytes: 4_683_087_332,
        modified_at: NOW.into(),
        node: "attic".into(),
        ..Model::default()
    }
}

#[test]
fn models_are_listed() {
    let details = json!({
        "parent_model": "", "format": "gguf", "family": "qwen2", "families": ["qwen2"], "parameter_size": "7.6B",
        "quantization_level": "Q4_K_M", "node": "attic",
    });
    let digest = "ab".repeat(32);
    let expected = json!({ "models": [{
        "name": "qwen2.5:7b", "model": "qwen2.5:7b", "modified_at": NOW, "size": 4_683_087_332_u64, "digest": digest,
        "details": details,
    }] });
    assert_eq!(tags(&[qwen()]), expected);
    let expected = json!({ "models": [{
        "name": "qwen2.5:7b", "model": "qwen2.5:7b", "size": 4_683_087_332_u64, "digest": digest, "details": details,
        "expires_at": "2318-01-01T00:00:00Z", "size_vram": 4_683_087_332_u64, "context_length": 32_768,
    }] });
    assert_eq!(ps(&[qwen()]), expected);
    assert_eq!(version("0.12.6"), json!({ "version": "0.12.6" }));
}

#[test]
fn a_model_is_shown() {
    let shown = show(&qwen());
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
    let info = json!({
        "general.architecture": "qwen2", "general.basename": "qwen2.5:7b", "general.parameter_count": 7_600_000_000_u64,
        "qwen2.context_length": 32_768,
    });
    assert_eq!(shown["model_info"], info);

    let shown = show(&Model { dimensions: Some(768), embeds: true, parameters_b: Some(0.137), ..Model::default() });
    assert_eq!(shown["capabilities"], json!(["embedding"]));
    assert_eq!(
        (&shown["details"]["parameter_size"], &shown["model_info"]["unknown.embedding_length"]),
        (&json!("137M"), &json!(768))
    );
    assert_eq!(shown["modified_at"], "0001-01-01T00:00:00Z");
}

/// Any JSON, of the words that requests are made of.
fn any_json() -> impl Strategy<Value = Value> {
    let words = "model|messages|prompt|input|role|user|assistant|tool|content|images|tool_calls|function|name|arguments|tools\
        |options|stop|seed|format|json|think|keep_alive|raw|suffix|context|iVBORw0KGgo|UklGRiQAAABXRUJQ|UklGRiQAAAé";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((words, inner), 0..8).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn wherever_an_answer_is_cut_it_is_told_the_same(mut cuts in prop::collection::vec(0..STREAM.len(), 0..9)) {
        cuts.sort_unstable();
        let (route, body) = (Route::Chat, hello());
        let told = answer(route, &body, "text/event-stream", STREAM.as_bytes(), &cuts);
        prop_assert_eq!(lines(&told), streamed(route, &body));
    }

    #[test]
    fn any_request_is_read_without_a_panic(value in any_json(), field in "messages|options|tools|images|format|think|suffix") {
        let mut said = json!({ "model": "m", "prompt": "Hi", "messages": [{ "role": "assistant" }, { "role": "tool" }] });
        said[field.as_str()] = value.clone();
        let mut message = hello();
        message["messages"] = json!([value, { "role": "assistant", "tool_calls": value }, { "role": "tool", "content": value }]);
        for body in [value, said, message] {
            for route in [Route::Chat, Route::Generate, Route::Embed, Route::Embeddings] {
                _ = asked(route, &body);
                _ = load_request(route, body.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        _ = chat(&bytes, NOW, clock());
        _ = load_request(Route::Chat, &bytes);
    }
}
