//! The golden answers in `testdata/responses` were read by OpenAI's own Python client, event by event and with its stream
//! accumulator.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::responses;
use crate::{Asked, Event, Reader, RequestError, Usage};

const CHUNKS: &str = include_str!("../../testdata/responses/chunks.sse");

fn ask(body: &Value) -> Result<Asked, RequestError> {
    responses(body.to_string().as_bytes(), "0a1b", 1_760_000_000)
}

/// The chat completion that a request with `more` becomes, less what every one has.
fn chat(more: Value) -> Value {
    let mut body = json!({ "model": "m", "input": "Hi" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut chat = ask(&body).unwrap().body;
    let fields = chat.as_object_mut().unwrap();
    assert_eq!((fields.shift_remove("model"), fields.shift_remove("stream")), (Some("m".into()), Some(false.into())));
    if fields["messages"] == json!([{ "role": "user", "content": "Hi" }]) {
        fields.shift_remove("messages");
    }
    chat
}

fn messages(input: Value) -> Value {
    chat(json!({ "input": input }))["messages"].take()
}

/// What a client is told that asked with `more`.
fn told(more: Value, events: Vec<Event>) -> String {
    let mut body = json!({ "model": "m", "input": "Hi" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut teller = ask(&body).unwrap().teller;
    let mut out = Vec::new();
    events.into_iter().for_each(|event| teller.tell(event, &mut out));
    assert!(teller.streams() || out.is_empty());
    teller.end(&mut out);
    String::from_utf8(out).unwrap()
}

/// Reads the backend's bytes, cut at `cuts`, and tells them.
fn through(more: &Value, chunks: &[u8], cuts: &[usize]) -> String {
    let mut teller = ask(more).unwrap().teller;
    let mut reader = Reader::new("text/event-stream");
    let mut out = Vec::new();
    for cut in cuts.windows(2) {
        reader.push(&chunks[cut[0]..cut[1]]).unwrap().into_iter().for_each(|event| teller.tell(event, &mut out));
    }
    reader.finish().unwrap().into_iter().for_each(|event| teller.tell(event, &mut out));
    teller.end(&mut out);
    String::from_utf8(out).unwrap()
}

/// A request that sets whatever an answer echoes.
fn full(stream: bool) -> Value {
    json!({
        "model": "auto", "input": "Weather?", "instructions": "Be brief.", "stream": stream,
        "max_output_tokens": 99, "temperature": 0.5, "top_p": 0.9, "user": "me", "metadata": { "k": "v" },
        "parallel_tool_calls": false, "tool_choice": "auto", "truncation": "auto",
        "reasoning": { "effort": "low", "summary": "auto" }, "store": true,
        "text": {
            "verbosity": "low",
            "format": { "type": "json_schema", "name": "s", "schema": { "type": "object" }, "strict": true },
        },
        "tools": [{
            "type": "function", "name": "weather", "description": "d", "parameters": { "type": "object" }, "strict": false,
        }],
    })
}

fn names(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("event: response.")).collect()
}

fn last(stream: &str) -> Value {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
    serde_json::from_str::<Value>(data).unwrap()["response"].take()
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

fn finish(reason: &str) -> Event {
    Event::Finish(reason.to_owned())
}

#[test]
fn a_text_is_a_message_of_the_user() {
    let asked = ask(&json!({ "model": "m", "input": "Hi", "instructions": "Be brief.", "stream": true })).unwrap();
    let said = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi" }]);
    let expected = json!({ "model": "m", "messages": said, "stream": true, "stream_options": { "include_usage": true } });
    assert_eq!(asked.body, expected);
    assert_eq!(asked.teller.content_type(), "text/event-stream");
    assert_eq!(ask(&json!({ "model": "m", "input": "Hi" })).unwrap().teller.content_type(), "application/json");
}

#[test]
fn items_are_messages() {
    let input = json!([
        { "role": "developer", "content": [{ "type": "input_text", "text": "a" }, { "type": "input_text", "text": "b" }] },
        { "role": "system", "content": "c" },
        { "type": "message", "role": "user", "content": [
            { "type": "input_text", "text": "See" },
            { "type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low" },
            { "type": "input_image", "image_url": "https://x/y.png" },
            { "type": "input_audio", "input_audio": { "data": "AA==", "format": "wav" } },
        ] },
        { "type": "reasoning", "id": "rs_1", "summary": [] },
        { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
          "content": [{ "type": "output_text", "text": "I look.", "annotations": [] }] },
        { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}", "status": "completed" },
        { "type": "function_call", "call_id": "c2", "name": "g", "arguments": "" },
        { "type": "function_call_output", "call_id": "c1", "output": "1" },
        { "type": "function_call_output", "call_id": "c2", "output": [{ "type": "input_text", "text": "2" }] },
        { "role": "assistant", "content": [{ "type": "refusal", "refusal": "No." }] },
        { "role": "developer", "content": "later" },
    ]);
    let calls = json!([
        { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } },
        { "id": "c2", "type": "function", "function": { "name": "g", "arguments": "" } },
    ]);
    let seen = json!([
        { "type": "text", "text": "See" },
        { "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==", "detail": "low" } },
        { "type": "image_url", "image_url": { "url": "https://x/y.png" } },
        { "type": "input_audio", "input_audio": { "data": "AA==", "format": "wav" } },
    ]);
    let expected = json!([
        { "role": "system", "content": "a\nb\n\nc" },
        { "role": "user", "content": seen },
        { "role": "assistant", "content": "I look.", "tool_calls": calls },
        { "role": "tool", "tool_call_id": "c1", "content": "1" },
        { "role": "tool", "tool_call_id": "c2", "content": "2" },
        { "role": "assistant", "content": "No." },
        { "role": "system", "content": "later" },
    ]);
    assert_eq!(messages(input), expected);
}

#[test]
fn a_call_before_its_text_is_the_same_message() {
    let input = json!([
        { "type": "function_call", "call_id": "c1", "name": "f", "arguments": { "a": 1 } },
        { "role": "assistant", "content": "I look." },
    ]);
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } });
    assert_eq!(messages(input), json!([{ "role": "assistant", "content": "I look.", "tool_calls": [call] }]));
}

#[test]
fn every_option_has_its_counterpart() {
    let tool = json!({ "type": "function", "name": "f", "description": "d", "parameters": { "type": "object" }, "strict": null });
    let function = json!({ "name": "f", "description": "d", "parameters": { "type": "object" } });
    let tools = json!([{ "type": "function", "function": function }]);
    let schema = json!({ "name": "s", "schema": {}, "strict": true });
    for (more, expected) in [
        (json!({ "max_output_tokens": 9 }), json!({ "max_tokens": 9 })),
        (json!({ "top_logprobs": 2 }), json!({ "logprobs": true, "top_logprobs": 2 })),
        (json!({ "top_logprobs": 0, "temperature": null }), json!({})),
        (
            json!({ "temperature": 0, "top_p": 1, "user": "me", "seed": 7 }),
            json!({ "temperature": 0, "top_p": 1, "user": "me", "seed": 7 }),
        ),
        (json!({ "atmo": { "max_cost": 1 } }), json!({ "atmo": { "max_cost": 1 } })),
        (json!({ "store": true, "metadata": { "a": "b" }, "truncation": "auto", "include": [], "nonsense": 1 }), json!({})),
        (json!({ "reasoning": { "effort": "low", "summary": "auto" } }), json!({ "reasoning_effort": "low" })),
        (json!({ "text": { "verbosity": "low", "format": { "type": "text" } } }), json!({ "verbosity": "low" })),
        (json!({ "text": { "format": { "type": "json_object" } } }), json!({ "response_format": { "type": "json_object" } })),
        (
            json!({ "text": { "format": { "type": "json_schema", "name": "s", "schema": {}, "strict": true } } }),
            json!({ "response_format": { "type": "json_schema", "json_schema": schema } }),
        ),
        (json!({ "tools": [], "tool_choice": "auto", "parallel_tool_calls": false }), json!({})),
        (
            json!({ "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false }),
            json!({ "tools": tools, "tool_choice": "required", "parallel_tool_calls": false }),
        ),
        (
            json!({ "tools": [tool], "tool_choice": { "type": "function", "name": "f" } }),
            json!({ "tools": tools, "tool_choice": { "type": "function", "function": { "name": "f" } } }),
        ),
    ] {
        assert_eq!(chat(more), expected);
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let part = |part: Value| json!({ "input": [{ "role": "user", "content": [part] }] });
    let function = json!({ "type": "function", "name": "f" });
    let beside = json!({ "model": "m", "input": "Hi", "tools": [{ "type": "web_search" }, function] });
    assert_eq!(ask(&beside).ok().map(|asked| asked.body["tools"].as_array().map(Vec::len)), Some(Some(1)));
    for (more, param, word) in [
        (json!({ "model": " " }), "model", "model"),
        (json!({ "input": null }), "input", "input"),
        (json!({ "input": [] }), "input", "empty"),
        (json!({ "input": [{}] }), "input", "input[0]"),
        (json!({ "input": [{ "role": "king", "content": "" }] }), "input", "role"),
        (json!({ "input": [{ "role": "user", "content": 7 }] }), "input", "content"),
        (json!({ "input": [{ "type": "computer_call" }] }), "input", "computer_call"),
        (json!({ "input": [{ "type": "item_reference", "id": "x" }] }), "input", "stored"),
        (json!({ "input": [{ "type": "function_call", "name": "f" }] }), "input", "call_id"),
        (json!({ "input": [{ "type": "function_call_output", "output": "" }] }), "input", "call_id"),
        (part(json!({ "type": "input_file", "file_id": "x" })), "input", "input_file"),
        (part(json!({ "type": "input_image", "file_id": "x" })), "input", "image_url"),
        (part(json!({ "text": "x" })), "input", "type"),
        (json!({ "instructions": [] }), "instructions", "instructions"),
        (json!({ "tools": {} }), "tools", "list"),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools", "tools[0]`: tools of type `web_search"),
        (json!({ "tools": [function, { "type": "mcp" }] }), "tools", "tools[1]`: tools of type `mcp"),
        (json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] }), "tools", "name"),
        (json!({ "tools": [function], "tool_choice": { "type": "file_search" } }), "tool_choice", "file_search"),
        (json!({ "tools": [function], "tool_choice": 7 }), "tool_choice", "tool_choice"),
        (json!({ "text": "x" }), "text", "object"),
        (json!({ "text": { "format": { "type": "grammar" } } }), "text.format", "json_schema"),
        (json!({ "reasoning": true }), "reasoning", "object"),
        (json!({ "stream": "yes" }), "stream", "true"),
        (json!({ "previous_response_id": "resp_1" }), "previous_response_id", "whole conversation"),
        (json!({ "conversation": { "id": "x" } }), "conversation", "whole conversation"),
        (json!({ "prompt": { "id": "x" } }), "prompt", "stored"),
        (json!({ "background": true }), "background", "/v1/jobs"),
    ] {
        let mut body = json!({ "model": "m", "input": "Hi" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = ask(&body).err().unwrap();
        assert_eq!(error.param, Some(param), "{more}");
        assert!(error.message.contains(word), "{more}: {error}");
    }
    assert_eq!(responses(b"[]", "x", 0).err().unwrap().param, None);
}

#[test]
fn a_streamed_answer_is_told_as_openai_does() {
    let told = through(&full(true), CHUNKS.as_bytes(), &[0, CHUNKS.len()]);
    assert_eq!(told, include_str!("../../testdata/responses/stream.sse"));
}

#[test]
fn a_whole_answer_is_what_its_stream_ends_with() {
    let whole = through(&full(false), CHUNKS.as_bytes(), &[0, CHUNKS.len()]);
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(whole, serde_json::from_str::<Value>(include_str!("../../testdata/responses/whole.json")).unwrap());
    assert_eq!(whole, last(include_str!("../../testdata/responses/stream.sse")));
}

#[test]
fn an_answer_cut_short_is_incomplete() {
    let usage = Event::Usage(Usage { prompt: 1, ..Usage::default() });
    let stream = told(json!({ "stream": true }), vec![text("He"), finish("length"), usage]);
    assert_eq!(stream, include_str!("../../testdata/responses/incomplete.sse"));
    for (reason, status, details) in [
        ("length", "incomplete", json!({ "reason": "max_output_tokens" })),
        ("content_filter", "incomplete", json!({ "reason": "content_filter" })),
        ("stop", "completed", Value::Null),
    ] {
        let whole: Value = serde_json::from_str(&told(json!({}), vec![text("He"), finish(reason)])).unwrap();
        assert_eq!((&whole["status"], &whole["output"][0]["status"]), (&status.into(), &status.into()));
        assert_eq!(whole["incomplete_details"], details);
    }
}

#[test]
fn a_stream_that_breaks_off_has_failed() {
    let mut teller = ask(&json!({ "model": "m", "input": "Hi", "stream": true })).unwrap().teller;
    let mut out = Vec::new();
    teller.tell(text("He"), &mut out);
    teller.broken_off("the backend is gone", &mut out);
    let stream = String::from_utf8(out.clone()).unwrap();
    assert_eq!(stream, include_str!("../../testdata/responses/failed.sse"));
    teller.tell(text("llo"), &mut out);
    teller.end(&mut out);
    assert_eq!(out.len(), stream.len());
}

#[test]
fn an_error_of_the_backend_is_told_streamed_or_whole() {
    let fault = || vec![text("He"), Event::Fault { message: "out of memory".into() }, text("llo")];
    let streamed = told(json!({ "stream": true }), fault());
    assert_eq!(names(&streamed)[5..], ["failed"]);
    let whole: Value = serde_json::from_str(&told(json!({}), fault())).unwrap();
    assert_eq!(whole["error"], json!({ "code": "server_error", "message": "out of memory" }));
    assert_eq!((&whole["status"], &whole["output"][0]["status"]), (&"failed".into(), &"incomplete".into()));
    assert_eq!(last(&streamed)["error"], whole["error"]);
}

#[test]
fn a_refusal_is_a_part_of_its_own() {
    let stream = told(json!({ "stream": true }), vec![text("I"), Event::Refusal("No.".into()), finish("stop")]);
    assert_eq!(stream, include_str!("../../testdata/responses/refusal.sse"));
}

#[test]
fn an_empty_answer_is_one_too() {
    let stream = told(json!({ "stream": true }), vec![]);
    assert_eq!(names(&stream), ["created", "in_progress", "completed"]);
    assert_eq!(last(&stream)["output"], json!([]));
}

#[test]
fn an_answer_of_too_many_pieces_is_cut() {
    let turns = (0..9_999).map(|turn| if turn % 2 == 0 { text("a") } else { Event::Thought("b".into()) });
    let whole: Value = serde_json::from_str(&told(json!({}), turns.collect())).unwrap();
    assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(whole["output"].as_array().unwrap().len(), 2_048);
}

proptest! {
    #[test]
    fn wherever_the_backend_is_cut_the_client_is_told_the_same(
        mut cuts in prop::collection::vec(0..CHUNKS.len(), 0..9), stream in any::<bool>(),
    ) {
        cuts.extend([0, CHUNKS.len()]);
        cuts.sort_unstable();
        let once = through(&full(stream), CHUNKS.as_bytes(), &[0, CHUNKS.len()]);
        prop_assert_eq!(through(&full(stream), CHUNKS.as_bytes(), &cuts), once);
    }

    #[test]
    fn any_request_is_read_without_a_panic(body in request(), bytes in prop::collection::vec(any::<u8>(), 0..99)) {
        _ = responses(&bytes, "x", 0);
        if let Ok(asked) = ask(&body) {
            let mut teller = asked.teller;
            let mut out = Vec::new();
            [text("a"), finish("stop")].into_iter().for_each(|event| teller.tell(event, &mut out));
            teller.end(&mut out);
            prop_assert!(!out.is_empty());
        }
    }

    #[test]
    fn any_events_make_a_stream_that_adds_up(events in prop::collection::vec(event(), 0..30)) {
        let stream = told(json!({ "stream": true }), events.clone());
        let whole: Value = serde_json::from_str(&told(json!({}), events)).unwrap();
        prop_assert_eq!(&last(&stream), &whole);
        let count = |name: &str| names(&stream).iter().filter(|other| **other == name).count();
        prop_assert_eq!(count("output_item.added"), whole["output"].as_array().unwrap().len());
        prop_assert!(whole["status"] == "failed" || count("output_item.added") == count("output_item.done"));
        prop_assert!(whole["status"] == "failed" || count("content_part.added") == count("content_part.done"));
    }
}

fn event() -> impl Strategy<Value = Event> {
    let said = "[a-c\"é]{1,3}";
    prop_oneof![
        said.prop_map(Event::Text),
        said.prop_map(Event::Thought),
        said.prop_map(Event::Refusal),
        (0..3usize, "[ab]").prop_map(|(place, id)| Event::Call { place, id, name: "f".into() }),
        (0..3usize, said).prop_map(|(place, json)| Event::Arguments { place, json }),
        "stop|length".prop_map(Event::Finish),
        Just(Event::Fault { message: "x".into() }),
    ]
}

/// JSON of the words that matter, in any shape.
fn request() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "model",
        "input",
        "instructions",
        "type",
        "role",
        "content",
        "text",
        "format",
        "tools",
        "tool_choice",
        "function",
        "name",
        "user",
        "assistant",
        "system",
        "message",
        "function_call",
        "function_call_output",
        "call_id",
        "arguments",
        "output",
        "input_image",
        "image_url",
        "reasoning",
        "effort",
        "stream",
        "top_logprobs",
        "json_schema",
        "schema",
        "input_text",
        "refusal",
        "metadata",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,5}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 60, 5, move |inner| {
        let fields = prop::collection::vec((word.clone(), inner.clone()), 0..6);
        let object =
            fields.prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>());
        prop_oneof![prop::collection::vec(inner, 0..4).prop_map(Value::from), object]
    });
    (value.clone(), value.clone(), value).prop_map(|(all, input, tools)| {
        let mut body = json!({ "model": "m", "input": input, "tools": tools });
        if let Value::Object(fields) = all {
            body.as_object_mut().into_iter().for_each(|body| body.extend(fields.clone()));
        }
        body
    })
}
