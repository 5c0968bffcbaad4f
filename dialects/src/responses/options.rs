//! The fields of a request as those of a chat completion.

use serde_json::{Value, json};

use super::messages::messages;
use super::{Fields, given, short};
use crate::RequestError;

/// Tools that one request may hold; OpenAI takes 128.
const TOOLS_MAX: usize = 1_024;

/// Fields that both APIs have, and those that engines read in a chat completion beyond OpenAI's.
const PASSED_ON: [&str; 18] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "chat_template_kwargs",
    "user",
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "priority",
    "atmo",
];

/// The fields of a body, less those that only a store could honour.
pub fn fields(body: &[u8]) -> Result<Fields, RequestError> {
    let Ok(Value::Object(request)) = serde_json::from_slice(body) else {
        return Err(RequestError::new(None, "the body is not a JSON object"));
    };
    let stored = "nothing is stored here: send the whole conversation as `input`";
    for (field, message) in [
        ("previous_response_id", stored),
        ("conversation", stored),
        ("prompt", "no prompts are stored here: send the prompt itself as `instructions` and `input`"),
    ] {
        if given(&request, field).is_some() {
            return Err(RequestError::new(Some(field), format!("`{field}` is not supported: {message}")));
        }
    }
    if request.get("background") == Some(&Value::Bool(true)) {
        let message = "`background` is not supported: send work that nobody waits for to /v1/jobs";
        return Err(RequestError::new(Some("background"), message));
    }
    Ok(request)
}

/// The chat completion that is asked for.
pub fn chat(request: &Fields) -> Result<Fields, RequestError> {
    let mut chat = Fields::new();
    let model = given(request, "model").filter(|model| model.as_str().is_some_and(|model| !model.trim().is_empty()));
    let model = model.ok_or_else(|| RequestError::new(Some("model"), "`model` is missing or no text"))?;
    chat.insert("model".to_owned(), model.clone());
    chat.insert("messages".to_owned(), Value::Array(messages(request)?));
    add_tools(request, &mut chat)?;
    add_text(request, &mut chat)?;
    add_reasoning(request, &mut chat)?;
    if let Some(count) = given(request, "max_output_tokens") {
        // Every engine knows this name; not all know `max_completion_tokens`.
        chat.insert("max_tokens".to_owned(), count.clone());
    }
    if let Some(count) = given(request, "top_logprobs").filter(|count| **count != 0) {
        chat.insert("logprobs".to_owned(), true.into());
        chat.insert("top_logprobs".to_owned(), count.clone());
    }
    for field in PASSED_ON {
        copy(request, field, &mut chat, field);
    }
    add_stream(request, &mut chat)?;
    Ok(chat)
}

fn copy(from: &Fields, field: &str, to: &mut Fields, name: &str) {
    if let Some(value) = given(from, field) {
        to.insert(name.to_owned(), value.clone());
    }
}

/// Without a tool the fields about tools say nothing, and OpenAI's chat completions refuse them.
fn add_tools(request: &Fields, chat: &mut Fields) -> Result<(), RequestError> {
    let tools = match given(request, "tools") {
        None => return Ok(()),
        Some(Value::Array(tools)) if tools.len() <= TOOLS_MAX => tools,
        Some(_) => return Err(RequestError::new(Some("tools"), format!("`tools` must be a list of at most {TOOLS_MAX} tools"))),
    };
    // Agents list OpenAI's own tools beside theirs whether they need them or not; a model without them answers as well as it can.
    let has_function = tools.iter().any(|tool| tool.get("type").is_some_and(|kind| kind == "function"));
    let offered = tools.iter().enumerate().filter(|(_, tool)| !has_function || !is_hosted(tool));
    let tools: Vec<Value> = offered.map(|(index, entry)| tool(index, entry)).collect::<Result<_, _>>()?;
    if tools.is_empty() {
        return Ok(());
    }
    chat.insert("tools".to_owned(), Value::Array(tools));
    if let Some(choice) = given(request, "tool_choice") {
        chat.insert("tool_choice".to_owned(), tool_choice(choice)?);
    }
    copy(request, "parallel_tool_calls", chat, "parallel_tool_calls");
    Ok(())
}

/// A tool that runs at OpenAI rather than at the client.
fn is_hosted(tool: &Value) -> bool {
    const HOSTED: [&str; 5] = ["web_search", "file_search", "code_interpreter", "image_generation", "tool_search"];
    let kind = tool.get("type").and_then(Value::as_str).unwrap_or_default();
    HOSTED.iter().any(|hosted| kind.starts_with(hosted))
}

fn tool(index: usize, tool: &Value) -> Result<Value, RequestError> {
    let wrong = |message: String| RequestError::new(Some("tools"), format!("`tools[{index}]`: {message}"));
    let fields = tool.as_object().ok_or_else(|| wrong("a tool must be an object".to_owned()))?;
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(kind) => {
            let message = format!("tools of type `{}` are not supported, only `function`", short(kind));
            return Err(wrong(message));
        }
        None => return Err(wrong("a tool needs a `type`".to_owned())),
    }
    if tool.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(wrong("`name` is missing or no text".to_owned()));
    }
    let mut function = Fields::new();
    for field in ["name", "description", "parameters", "strict"] {
        copy(fields, field, &mut function, field);
    }
    Ok(json!({ "type": "function", "function": function }))
}

fn tool_choice(choice: &Value) -> Result<Value, RequestError> {
    let name = choice.get("name").and_then(Value::as_str);
    match (choice.as_str(), choice.get("type").and_then(Value::as_str), name) {
        (Some(_), ..) => Ok(choice.clone()),
        (_, Some("function"), Some(name)) => Ok(json!({ "type": "function", "function": { "name": name } })),
        (_, Some(kind), _) if kind != "function" => {
            Err(RequestError::new(Some("tool_choice"), format!("`tool_choice` of type `{}` is not supported", short(kind))))
        }
        _ => Err(RequestError::new(Some("tool_choice"), "`tool_choice` must be a text or name a function")),
    }
}

fn add_text(request: &Fields, chat: &mut Fields) -> Result<(), RequestError> {
    let Some(text) = object(request, "text")? else { return Ok(()) };
    copy(text, "verbosity", chat, "verbosity");
    let Some(format) = given(text, "format") else { return Ok(()) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => return Ok(()),
        Some("json_object") => chat.insert("response_format".to_owned(), json!({ "type": "json_object" })),
        Some("json_schema") => chat.insert("response_format".to_owned(), json_schema(format)),
        _ => {
            let message = "`text.format` must be of type text, json_object or json_schema";
            return Err(RequestError::new(Some("text.format"), message));
        }
    };
    Ok(())
}

fn json_schema(format: &Value) -> Value {
    let mut schema = Fields::new();
    for field in ["name", "description", "schema", "strict"] {
        if let Some(fields) = format.as_object() {
            copy(fields, field, &mut schema, field);
        }
    }
    json!({ "type": "json_schema", "json_schema": schema })
}

fn add_reasoning(request: &Fields, chat: &mut Fields) -> Result<(), RequestError> {
    if let Some(reasoning) = object(request, "reasoning")? {
        copy(reasoning, "effort", chat, "reasoning_effort");
    }
    Ok(())
}

fn add_stream(request: &Fields, chat: &mut Fields) -> Result<(), RequestError> {
    let streams = match given(request, "stream") {
        None => false,
        Some(Value::Bool(streams)) => *streams,
        Some(_) => return Err(RequestError::new(Some("stream"), "`stream` must be true or false")),
    };
    chat.insert("stream".to_owned(), streams.into());
    if streams {
        chat.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    }
    Ok(())
}

fn object<'a>(request: &'a Fields, field: &'static str) -> Result<Option<&'a Fields>, RequestError> {
    match given(request, field) {
        None => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(RequestError::new(Some(field), format!("`{field}` must be an object"))),
    }
}
