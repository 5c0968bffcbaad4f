use proptest::prelude::*;
use serde_json::{Value, json};

use super::{count_tokens, counted, fault, messages};
use crate::sse::SseParser;
use crate::{Event, Fault, Operation, Reader};

fn asked(request: &Value) -> Value {
    let asked = messages(request.to_string().as_bytes(), "7f").unwrap();
    assert_eq!(asked.operation, Operation::Chat);
    asked.body
}

/// What of the messages becomes of these.
fn said(messages: Value) -> Value {
    asked(&json!({ "model": "m", "max_tokens": 9, "messages": messages }))["messages"].take()
}

fn error(request: &Value) -> (Option<&'static str>, String) {
    let error = messages(request.to_string().as_bytes(), "7f").err().expect("a request that is wrong");
    (error.param, error.message)
}

/// A request for an answer of this kind.
fn request(streams: bool) -> Vec<u8> {
    let thinking = json!({ "type": "adaptive" });
    let request = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "a" }], "stream": streams,
        "thinking": thinking });
    request.to_string().into_bytes()
}

fn chunk(choice: Value) -> String {
    format!("data: {}\n\n", json!({ "choices": [choice] }))
}

fn delta(delta: Value) -> String {
    chunk(json!({ "index": 0, "delta": delta }))
}

fn finish(reason: &str) -> String {
    let usage = json!({ "prompt_tokens": 14, "completion_tokens": 9, "prompt_tokens_details": { "cached_tokens": 4 } });
    let last = chunk(json!({ "index": 0, "delta": {}, "finish_reason": reason }));
    format!("{last}data: {}\n\ndata: [DONE]\n\n", json!({ "choices": [], "usage": usage }))
}

fn call(index: usize, function: Value) -> Value {
    let id = function.get("name").map(|_| format!("c{index}"));
    json!({ "tool_calls": [{ "index": index, "id": id, "function": function }] })
}

/// An answer of a backend in which the arguments of two calls interleave.
fn backend() -> String {
    [
        delta(json!({ "role": "assistant", "content": "" })),
        delta(json!({ "reasoning_content": "hm" })),
        delta(json!({ "reasoning_content": "m" })),
        delta(json!({ "content": "Hé" })),
        delta(json!({ "content": "llo" })),
        delta(call(0, json!({ "name": "f", "arguments": "" }))),
        delta(call(0, json!({ "arguments": "{\"a\":\"}" }))),
        delta(call(1, json!({ "name": "g", "arguments": "{\"b\"" }))),
        delta(call(0, json!({ "arguments": "\\\"\"" }))),
        delta(call(1, json!({ "arguments": ":2" }))),
        delta(call(0, json!({ "arguments": "}" }))),
        delta(call(1, json!({ "arguments": "}" }))),
        finish("tool_calls"),
    ]
    .concat()
}

/// What the client gets for this answer, fed in these pieces.
fn told<'a>(request: &[u8], pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut teller = messages(request, "7f").unwrap().teller;
    let mut reader = Reader::new("text/event-stream");
    let mut out = Vec::new();
    let mut tell = |events: Vec<Event>| events.into_iter().for_each(|event| teller.tell(event, &mut out));
    pieces.for_each(|piece| tell(reader.push(piece).unwrap()));
    tell(reader.finish().unwrap());
    teller.end(&mut out);
    String::from_utf8(out).unwrap()
}

fn whole(backend: &str) -> Value {
    serde_json::from_str(&told(&request(false), [backend.as_bytes()].into_iter())).unwrap()
}

/// The events of a stream, each under the name that its data has.
fn events(stream: &str) -> Vec<Value> {
    let mut events = Vec::new();
    for event in SseParser::new().push(stream.as_bytes()) {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(event.event.as_deref(), data["type"].as_str());
        events.push(data);
    }
    events
}

fn streamed(backend: &str) -> Vec<Value> {
    events(&told(&request(true), [backend.as_bytes()].into_iter()))
}

fn start(index: usize, block: Value) -> Value {
    json!({ "type": "content_block_start", "index": index, "content_block": block })
}

fn piece(index: usize, delta: Value) -> Value {
    json!({ "type": "content_block_delta", "index": index, "delta": delta })
}

fn arguments(index: usize, json: &str) -> Value {
    piece(index, json!({ "type": "input_json_delta", "partial_json": json }))
}

fn stop(index: usize) -> Value {
    json!({ "type": "content_block_stop", "index": index })
}

fn usage(input: u64, cached: u64, output: u64) -> Value {
    json!({ "input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached, "output_tokens": output })
}

#[test]
fn every_option_has_its_field() {
    let body = asked(&json!({
        "model": "m", "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }], "stream": true,
        "system": [{ "type": "text", "text": "Be", "cache_control": { "type": "ephemeral" } }, { "type": "text", "text": "brief" }],
        "stop_sequences": ["A", "B"], "temperature": 0.5, "top_p": 0.9, "top_k": 40, "metadata": { "user_id": "u1" },
        "tools": [
            { "name": "f", "description": "does", "input_schema": { "type": "object" }, "cache_control": {} },
            { "type": "custom", "name": "g", "input_schema": { "type": "object" }, "strict": true },
        ],
        "tool_choice": { "type": "tool", "name": "f", "disable_parallel_tool_use": true },
        "thinking": { "type": "enabled", "budget_tokens": 10_000 },
        "output_config": { "format": { "type": "json_schema", "schema": { "type": "object" } } },
        "atmo": { "max_cost": 0.02, "x": null }, "seed": 3, "service_tier": "auto", "container": "c",
    }));
    let expected = json!({
        "model": "m", "max_tokens": 100, "stream": true, "stream_options": { "include_usage": true },
        "messages": [{ "role": "system", "content": "Be\nbrief" }, { "role": "user", "content": "hi" }],
        "stop": ["A", "B"], "temperature": 0.5, "top_p": 0.9, "top_k": 40, "user": "u1",
        "tools": [
            { "type": "function", "function": { "name": "f", "description": "does", "parameters": { "type": "object" } } },
            { "type": "function", "function": { "name": "g", "parameters": { "type": "object" }, "strict": true } },
        ],
        "tool_choice": { "type": "function", "function": { "name": "f" } }, "parallel_tool_calls": false,
        "reasoning_effort": "medium",
        "response_format": { "type": "json_schema",
            "json_schema": { "name": "answer", "schema": { "type": "object" }, "strict": true } },
        "atmo": { "max_cost": 0.02, "x": null }, "seed": 3,
    });
    assert_eq!(body, expected);
}

#[test]
fn a_small_request_stays_small() {
    let body = asked(&json!({ "model": "m", "max_tokens": 0, "messages": [{ "role": "user", "content": "hi" }], "tools": [],
        "tool_choice": { "type": "auto" }, "stop_sequences": [], "system": null, "metadata": {} }));
    let said = json!([{ "role": "user", "content": "hi" }]);
    assert_eq!(body, json!({ "model": "m", "max_tokens": 0, "stream": false, "messages": said }));
}

#[test]
fn tools_are_chosen_and_thought_is_measured() {
    let with = |name: &str, value: Value| {
        let mut request = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "a" }],
            "tools": [{ "name": "f", "input_schema": {} }] });
        request[name] = value;
        asked(&request)
    };
    for (kind, choice) in [("auto", "auto"), ("any", "required"), ("none", "none")] {
        let body = with("tool_choice", json!({ "type": kind }));
        assert_eq!((&body["tool_choice"], body.get("parallel_tool_calls")), (&json!(choice), None));
    }
    assert_eq!(with("tool_choice", json!({ "type": "any", "disable_parallel_tool_use": false }))["parallel_tool_calls"], true);
    for (thinking, effort) in [
        (json!({ "type": "disabled" }), json!("none")),
        (json!({ "type": "adaptive" }), Value::Null),
        (json!({ "type": "enabled", "budget_tokens": 1024 }), json!("low")),
        (json!({ "type": "enabled", "budget_tokens": 32_000 }), json!("high")),
    ] {
        assert_eq!(with("thinking", thinking)["reasoning_effort"], effort);
    }
    for (effort, told) in [("low", json!("low")), ("high", Value::Null), ("max", json!("high"))] {
        assert_eq!(with("output_config", json!({ "effort": effort }))["reasoning_effort"], told);
    }
}

#[test]
fn a_conversation_keeps_its_order() {
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "aGk=" } });
    let said = said(json!([
        { "role": "system", "content": "S" },
        { "role": "user", "content": [{ "type": "text", "text": "one" }, { "type": "text", "text": "two" }] },
        { "role": "user", "content": "three" },
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "hm", "signature": "s" }, { "type": "redacted_thinking", "data": "x" },
            { "type": "text", "text": "Let me " }, { "type": "text", "text": "look." },
            { "type": "tool_use", "id": "t1", "name": "f", "input": { "a": 1 } },
            { "type": "tool_use", "id": "t2", "name": "g", "input": {} },
        ] },
        { "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "t1", "content": "done" },
            { "type": "tool_result", "tool_use_id": "t2", "is_error": true,
                "content": [{ "type": "text", "text": "broken" }, image] },
            { "type": "text", "text": "and?" },
        ] },
        { "role": "assistant", "content": [{ "type": "thinking", "thinking": "only", "signature": "" }] },
    ]));
    let expected = json!([
        { "role": "system", "content": "S" },
        { "role": "user", "content": "one\ntwo\nthree" },
        { "role": "assistant", "content": "Let me look.", "tool_calls": [
            { "id": "t1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } },
            { "id": "t2", "type": "function", "function": { "name": "g", "arguments": "{}" } },
        ] },
        { "role": "tool", "tool_call_id": "t1", "content": "done" },
        { "role": "tool", "tool_call_id": "t2", "content": "Error: broken" },
        { "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,aGk=" } },
            { "type": "text", "text": "and?" },
        ] },
    ]);
    assert_eq!(said, expected);
}

#[test]
fn results_without_text_and_calls_without_words_are_told() {
    let said = said(json!([
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "f" }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t" }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t",
            "content": [{ "type": "image", "source": { "type": "url", "url": "http://i" } }] }] },
    ]));
    let expected = json!([
        { "role": "assistant", "content": null,
            "tool_calls": [{ "id": "t", "type": "function", "function": { "name": "f", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "t", "content": "" },
        { "role": "tool", "tool_call_id": "t", "content": "The image follows." },
        { "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "http://i" } }] },
    ]);
    assert_eq!(said, expected);
}

#[test]
fn documents_are_read_as_text() {
    let said = said(json!([{ "role": "user", "content": [
        { "type": "document", "title": "T", "context": "C", "source": { "type": "text", "media_type": "text/plain", "data": "D" } },
        { "type": "document", "source": { "type": "content", "content": [{ "type": "text", "text": "E" }] } },
        { "type": "document", "source": { "type": "content", "content": "F" } },
        { "type": "search_result", "title": "G", "source": "H", "content": [{ "type": "text", "text": "I" }] },
    ] }]));
    assert_eq!(said, json!([{ "role": "user", "content": "T\nC\nD\nE\nF\nG\nH\nI" }]));
}

#[test]
fn what_cannot_be_told_is_named() {
    let fine = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "a" }] });
    let block = |block: Value| json!([{ "role": "user", "content": [block] }]);
    for (name, value, param, message) in [
        ("model", Value::Null, "model", "model: Field required"),
        ("max_tokens", Value::Null, "max_tokens", "max_tokens: Field required"),
        ("max_tokens", json!(-1), "max_tokens", "max_tokens: Input should be a valid integer that is not negative"),
        ("messages", Value::Null, "messages", "messages: Field required"),
        ("messages", json!([]), "messages", "messages: at least one message is required"),
        ("messages", json!("a"), "messages", "messages: Input should be a valid list"),
        ("messages", json!([{ "role": "user" }]), "messages", "messages: 0: content: Field required"),
        (
            "messages",
            json!([{ "role": "tool" }]),
            "messages",
            "messages: 0: role: `tool` is not one of `user`, `assistant` and `system`",
        ),
        (
            "messages",
            block(json!({ "type": "document", "source": { "type": "base64" } })),
            "messages",
            "messages: 0: content.0: source.type: a document cannot be given as `base64` here, only as `text` or `content`",
        ),
        (
            "messages",
            block(json!({ "type": "container_upload" })),
            "messages",
            "messages: 0: content.0: blocks of the type `container_upload` cannot be read here",
        ),
        (
            "messages",
            block(json!({ "type": "tool_use" })),
            "messages",
            "messages: 0: content.0: a message of `user` cannot hold a `tool_use`",
        ),
        (
            "tools",
            json!([{ "type": "web_search_20250305", "name": "web_search" }]),
            "tools",
            "tools: 0: the server tool `web_search_20250305` is not available here, only tools of the type `custom` are",
        ),
        ("stream", json!("yes"), "stream", "stream: Input should be a valid boolean"),
        ("temperature", json!("hot"), "temperature", "temperature: Input should be a valid number"),
        ("stop_sequences", json!(["a", 1]), "stop_sequences", "stop_sequences: 1: Input should be a valid string"),
        ("system", json!(7), "system", "system: Input should be a valid list"),
    ] {
        let mut request = fine.clone();
        request[name] = value;
        assert_eq!(error(&request), (Some(param), message.to_owned()));
    }
    assert_eq!(messages(b"[]", "7f").err().unwrap().param, None);
    assert_eq!(messages(b"{", "7f").err().unwrap().param, None);
}

#[test]
fn a_stream_has_one_block_open_at_a_time() {
    let message = json!({ "id": "msg_7f", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(0, 0, 0) });
    let tool = |id: &str, name: &str| json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
    let expected = [
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "ping" }),
        start(0, json!({ "type": "thinking", "thinking": "", "signature": "" })),
        piece(0, json!({ "type": "thinking_delta", "thinking": "hm" })),
        piece(0, json!({ "type": "thinking_delta", "thinking": "m" })),
        piece(0, json!({ "type": "signature_delta", "signature": "" })),
        stop(0),
        start(1, json!({ "type": "text", "text": "" })),
        piece(1, json!({ "type": "text_delta", "text": "Hé" })),
        piece(1, json!({ "type": "text_delta", "text": "llo" })),
        stop(1),
        start(2, tool("c0", "f")),
        arguments(2, "{\"a\":\"}"),
        arguments(2, "\\\"\""),
        arguments(2, "}"),
        stop(2),
        start(3, tool("c1", "g")),
        arguments(3, "{\"b\":2"),
        arguments(3, "}"),
        stop(3),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use", "stop_sequence": null }, "usage": usage(10, 4, 9) }),
        json!({ "type": "message_stop" }),
    ];
    assert_eq!(streamed(&backend()), expected);
}

#[test]
fn a_whole_answer_says_the_same() {
    let expected = json!({
        "id": "msg_7f", "type": "message", "role": "assistant", "model": "m",
        "content": [
            { "type": "thinking", "thinking": "hmm", "signature": "" },
            { "type": "text", "text": "Héllo" },
            { "type": "tool_use", "id": "c0", "name": "f", "input": { "a": "}\"" } },
            { "type": "tool_use", "id": "c1", "name": "g", "input": { "b": 2 } },
        ],
        "stop_reason": "tool_use", "stop_sequence": null, "usage": usage(10, 4, 9),
    });
    assert_eq!(whole(&backend()), expected);
}

#[test]
fn every_end_has_its_reason() {
    let text = delta(json!({ "content": "a" }));
    let called = delta(call(0, json!({ "name": "f", "arguments": "{" })));
    let refused = delta(json!({ "refusal": "no" }));
    for (said, reason, told) in [
        (&text, "stop", "end_turn"),
        (&text, "length", "max_tokens"),
        (&text, "content_filter", "refusal"),
        (&text, "tool_calls", "end_turn"),
        (&called, "stop", "tool_use"),
        (&called, "length", "max_tokens"),
        (&refused, "stop", "refusal"),
    ] {
        let backend = format!("{said}{}", finish(reason));
        assert_eq!(whole(&backend)["stop_reason"], told);
        let events = streamed(&backend);
        assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], told);
    }
}

#[test]
fn arguments_that_are_no_object_become_one() {
    for (arguments, input) in [
        ("", json!({})),
        ("null", json!({})),
        ("{\"a\":1} trailing", json!({ "a": 1 })),
        ("{\"a\":", json!({ "INVALID_JSON": "{\"a\":" })),
        ("[1]", json!({ "INVALID_JSON": "[1]" })),
    ] {
        let said = json!({ "tool_calls": [{ "index": 0, "function": { "name": "f", "arguments": arguments } }] });
        let answer = whole(&format!("{}{}", delta(said), finish("tool_calls")));
        assert_eq!(answer["content"], json!([{ "type": "tool_use", "id": "toolu_7f_0", "name": "f", "input": input }]));
    }
}

#[test]
fn a_call_that_never_ends_holds_the_others_to_the_end() {
    let backend = [
        delta(call(0, json!({ "name": "f", "arguments": "" }))),
        delta(json!({ "content": "a" })),
        delta(call(1, json!({ "name": "g", "arguments": "{}" }))),
        delta(json!({ "content": "b" })),
        finish("tool_calls"),
    ]
    .concat();
    let streamed = streamed(&backend);
    let order = streamed.iter().filter_map(|event| event["content_block"]["type"].as_str());
    assert_eq!(order.collect::<Vec<_>>(), ["tool_use", "text", "tool_use", "text"]);
    assert_eq!(streamed.iter().filter(|event| event["type"] == "content_block_stop").count(), 4);
}

#[test]
fn thoughts_are_told_only_to_who_asked() {
    for thinking in [Value::Null, json!({ "type": "disabled" }), json!({ "type": "adaptive", "display": "omitted" })] {
        let request = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "a" }],
            "thinking": thinking });
        let answer = told(request.to_string().as_bytes(), [backend().as_bytes()].into_iter());
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["content"][0]["type"], "text");
    }
}

#[test]
fn nothing_is_told_behind_an_error() {
    let text = || Event::Text("a".into());
    let mut out = Vec::new();
    let mut teller = messages(&request(true), "7f").unwrap().teller;
    teller.tell(text(), &mut out);
    out.clear();
    teller.broken_off("gone", &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        format!("event: error\ndata: {}\n\n", json!({ "type": "error", "error": { "type": "api_error", "message": "gone" } }))
    );
    let mut teller = messages(&request(true), "7f").unwrap().teller;
    out.clear();
    teller.tell(Event::Fault { message: "bad".into() }, &mut out);
    teller.tell(text(), &mut out);
    teller.broken_off("gone", &mut out);
    teller.end(&mut out);
    let error = json!({ "type": "error", "error": { "type": "api_error", "message": "bad" } });
    assert_eq!(events(std::str::from_utf8(&out).unwrap()), [error]);
}

#[test]
fn an_empty_answer_is_a_message() {
    let empty = streamed(&finish("stop"));
    let kinds: Vec<_> = empty.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message_start", "ping", "message_delta", "message_stop"]);
    assert_eq!(whole(&finish("stop"))["content"], json!([]));
}

#[test]
fn what_waits_is_bounded() {
    let mut teller = messages(&request(true), "7f").unwrap().teller;
    let mut out = Vec::new();
    teller.tell(Event::Call { place: 0, id: "c".into(), name: "f".into() }, &mut out);
    for _ in 0..2000 {
        teller.tell(Event::Text("a".into()), &mut out);
        teller.tell(Event::Thought("b".into()), &mut out);
    }
    teller.end(&mut out);
    let events = events(std::str::from_utf8(&out).unwrap());
    let told = |name: &str| events.iter().filter_map(|event| event["delta"][name].as_str()).map(str::len).sum::<usize>();
    assert_eq!((told("text"), told("thinking")), (2000, 2000));
    assert_eq!(events.iter().filter(|event| event["type"] == "content_block_start").count(), 512);
}

#[test]
fn a_count_reads_all_text() {
    let request = json!({ "model": "m", "system": "S", "tools": [{ "name": "f", "input_schema": { "type": "object" } }], "messages": [
        { "role": "user", "content": [{ "type": "text", "text": "one" },
            { "type": "image", "source": { "type": "url", "url": "http://i" } }] },
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "f", "input": { "a": 1 } }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "done" }] },
    ] });
    let text = count_tokens(request.to_string().as_bytes()).unwrap();
    let tool = json!({ "name": "f", "parameters": { "type": "object" } });
    assert_eq!(text, format!("system\nS\nuser\none\nassistant\nf\n{{\"a\":1}}\ntool\ndone\n{tool}\n"));
    assert_eq!(counted(7), json!({ "input_tokens": 7 }));
    assert_eq!(count_tokens(b"{}").unwrap_err().param, Some("model"));
}

#[test]
fn errors_have_their_kind() {
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "api_error"),
        (529, "overloaded_error"),
    ] {
        let told = fault(&Fault { status, kind: "x", message: "why", param: None, code: None });
        assert_eq!(told, json!({ "type": "error", "error": { "type": kind, "message": "why" } }));
    }
}

/// JSON that is often nearly a request.
fn any_json() -> impl Strategy<Value = Value> {
    const WORDS: &str =
        "user|assistant|system|text|image|document|tool_use|tool_result|base64|url|content|enabled|auto|tool|custom|é";
    const NAMES: &str = "type|role|content|text|source|data|id|name|input|tool_use_id|media_type|url|input_schema";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        WORDS.prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(NAMES, inner, 0..5).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn wherever_the_answer_is_cut_it_is_told_the_same(mut cuts in prop::collection::vec(0..backend().len(), 0..9),
                                                      streams in any::<bool>()) {
        let backend = backend();
        let once = told(&request(streams), [backend.as_bytes()].into_iter());
        cuts.extend([0, backend.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &backend.as_bytes()[cut[0]..cut[1]]);
        prop_assert_eq!(told(&request(streams), pieces), once);
    }

    #[test]
    fn any_request_is_read_without_a_panic(mut fields in prop::collection::btree_map(
        "model|max_tokens|messages|system|tools|tool_choice|thinking|output_config|metadata|stop_sequences", any_json(), 0..9)) {
        _ = messages(json!(fields).to_string().as_bytes(), "x");
        fields.insert("model".into(), json!("m"));
        fields.insert("max_tokens".into(), json!(1));
        _ = messages(json!(fields).to_string().as_bytes(), "x");
        _ = count_tokens(json!(fields).to_string().as_bytes());
    }

    #[test]
    fn any_blocks_are_read_without_a_panic(blocks in prop::collection::vec(any_json(), 0..6), role in "user|assistant") {
        let request = json!({ "model": "m", "max_tokens": 1, "messages": [{ "role": role, "content": blocks }] });
        _ = messages(request.to_string().as_bytes(), "x");
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        _ = messages(&bytes, "x");
        _ = count_tokens(&bytes);
    }

    #[test]
    fn calls_that_interleave_are_told_one_after_the_other(order in prop::collection::vec(0..4usize, 0..60)) {
        const ARGUMENTS: &str = "{\"a\":{\"b\":\"}\\\"{\"},\"c\":[]}";
        let mut teller = messages(&request(true), "7f").unwrap().teller;
        let (mut out, mut said, mut places) = (Vec::new(), [0; 4], Vec::new());
        for call in order.into_iter().chain((0..4).flat_map(|call| [call; ARGUMENTS.len()])) {
            let place = places.iter().position(|known| *known == call).unwrap_or_else(|| {
                places.push(call);
                teller.tell(Event::Call { place: places.len() - 1, id: format!("c{call}"), name: "f".into() }, &mut out);
                places.len() - 1
            });
            if said[call] < ARGUMENTS.len() {
                teller.tell(Event::Arguments { place, json: ARGUMENTS[said[call]..=said[call]].into() }, &mut out);
                said[call] += 1;
            }
        }
        teller.end(&mut out);
        let (mut open, mut inputs) = (None, Vec::<String>::new());
        for event in events(std::str::from_utf8(&out).unwrap()) {
            match event["type"].as_str().unwrap() {
                "content_block_start" => {
                    prop_assert_eq!(open.replace(event["index"].clone()), None);
                    inputs.push(String::new());
                }
                "content_block_delta" => {
                    prop_assert_eq!(open.as_ref(), Some(&event["index"]));
                    inputs.last_mut().unwrap().push_str(event["delta"]["partial_json"].as_str().unwrap());
                }
                "content_block_stop" => prop_assert_eq!(open.take(), Some(event["index"].clone())),
                _ => {}
            }
        }
        prop_assert_eq!(inputs, [ARGUMENTS; 4]);
    }
}
