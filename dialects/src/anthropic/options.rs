//! What a request asks besides its messages: how to sample, which tools there are, how much to think.

use serde_json::{Value, json};

use super::{Fields, given, list, text_in, wrong};
use crate::RequestError;

/// Fields that mean the same on both sides, or that only OpenAI's side knows, and our own.
const PASSED: [&str; 8] = [
    "atmo",
    "frequency_penalty",
    "logit_bias",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "seed",
];
/// Most tokens of thought that count as low and as medium effort (guesses: a page, and the most that such models use on their own).
const BUDGET_LOW_MAX: u64 = 4096;
const BUDGET_MEDIUM_MAX: u64 = 16_384;

/// The model that is asked for.
pub fn model(fields: &Fields) -> Result<&str, RequestError> {
    match given(fields, "model").map(Value::as_str) {
        None => Err(wrong("model")("Field required".to_owned())),
        Some(None) => Err(wrong("model")("Input should be a valid string".to_owned())),
        Some(Some("")) => Err(wrong("model")("String should have at least 1 character".to_owned())),
        Some(Some(model)) => Ok(model),
    }
}

/// Whether the answer is wanted as it comes.
pub fn streams(fields: &Fields) -> Result<bool, RequestError> {
    let stream = given(fields, "stream").unwrap_or(&Value::Bool(false));
    stream.as_bool().ok_or_else(|| wrong("stream")("Input should be a valid boolean".to_owned()))
}

/// The OpenAI request without its messages, and without what [`Thinking`] says.
pub fn read(fields: &Fields) -> Result<Fields, RequestError> {
    let mut body = Fields::new();
    for name in PASSED {
        body.extend(given(fields, name).map(|value| (name.to_owned(), value.clone())));
    }
    body.insert("model".to_owned(), model(fields)?.into());
    body.insert("max_tokens".to_owned(), max_tokens(fields)?.into());
    add_sampling(fields, &mut body)?;
    add_format(fields, &mut body)?;
    let tools = tools(fields)?;
    if !tools.is_empty() {
        body.insert("tools".to_owned(), tools.into());
        add_choice(fields, &mut body).map_err(wrong("tool_choice"))?;
    }
    let user = given(fields, "metadata").and_then(|metadata| metadata.get("user_id")).filter(|user| user.is_string());
    body.extend(user.map(|user| ("user".to_owned(), user.clone())));
    Ok(body)
}

/// Zero is allowed: it asks to read the request and to say nothing.
fn max_tokens(fields: &Fields) -> Result<u64, RequestError> {
    let tokens = given(fields, "max_tokens").ok_or_else(|| wrong("max_tokens")("Field required".to_owned()))?;
    tokens.as_u64().ok_or_else(|| wrong("max_tokens")("Input should be a valid integer that is not negative".to_owned()))
}

fn add_sampling(fields: &Fields, body: &mut Fields) -> Result<(), RequestError> {
    for name in ["temperature", "top_p", "top_k"] {
        let Some(value) = given(fields, name) else { continue };
        if !value.is_number() {
            return Err(wrong(name)("Input should be a valid number".to_owned()));
        }
        body.insert(name.to_owned(), value.clone());
    }
    let Some(stops) = given(fields, "stop_sequences") else { return Ok(()) };
    let stops = list(stops).map_err(wrong("stop_sequences"))?;
    if let Some(place) = stops.iter().position(|stop| !stop.is_string()) {
        return Err(wrong("stop_sequences")(format!("{place}: Input should be a valid string")));
    }
    if !stops.is_empty() {
        body.insert("stop".to_owned(), stops.into());
    }
    Ok(())
}

/// `output_config.format`, and `output_format` as it was called before.
fn add_format(fields: &Fields, body: &mut Fields) -> Result<(), RequestError> {
    let format = given(fields, "output_config").and_then(|config| config.get("format")).filter(|format| !format.is_null());
    let Some(format) = format.or_else(|| given(fields, "output_format")) else { return Ok(()) };
    let error = wrong("output_config");
    match text_in(format, "type").map_err(&error)? {
        "json_schema" => {}
        kind => return Err(error(format!("format: the type `{kind}` is not known"))),
    }
    let schema = format.get("schema").filter(|schema| schema.is_object());
    let schema = schema.ok_or_else(|| error("format.schema: Input should be an object".to_owned()))?;
    let schema = json!({ "name": "answer", "schema": schema, "strict": true });
    body.insert("response_format".to_owned(), json!({ "type": "json_schema", "json_schema": schema }));
    Ok(())
}

/// The tools that a model may call, in OpenAI's shape.
pub fn tools(fields: &Fields) -> Result<Vec<Value>, RequestError> {
    let Some(tools) = given(fields, "tools") else { return Ok(Vec::new()) };
    let read = |(place, one)| tool(one).map_err(|what| wrong("tools")(format!("{place}: {what}")));
    list(tools).map_err(wrong("tools"))?.iter().enumerate().map(read).collect()
}

fn tool(tool: &Value) -> Result<Value, String> {
    if let Some(kind) = tool.get("type").and_then(Value::as_str).filter(|kind| *kind != "custom") {
        return Err(format!("the server tool `{kind}` is not available here, only tools of the type `custom` are"));
    }
    let schema = tool.get("input_schema").filter(|schema| schema.is_object());
    let schema = schema.ok_or("input_schema: Input should be an object")?;
    let mut function = json!({ "name": text_in(tool, "name")?, "parameters": schema });
    for name in ["description", "strict"] {
        if let Some(value) = tool.get(name).filter(|value| !value.is_null()) {
            function[name] = value.clone();
        }
    }
    Ok(json!({ "type": "function", "function": function }))
}

fn add_choice(fields: &Fields, body: &mut Fields) -> Result<(), String> {
    let Some(choice) = given(fields, "tool_choice") else { return Ok(()) };
    let told = match text_in(choice, "type")? {
        "auto" => json!("auto"),
        "any" => json!("required"),
        "none" => json!("none"),
        "tool" => json!({ "type": "function", "function": { "name": text_in(choice, "name")? } }),
        kind => return Err(format!("the type `{kind}` is not one of `auto`, `any`, `tool` and `none`")),
    };
    body.insert("tool_choice".to_owned(), told);
    if let Some(alone) = choice.get("disable_parallel_tool_use").and_then(Value::as_bool) {
        body.insert("parallel_tool_calls".to_owned(), (!alone).into());
    }
    Ok(())
}

/// How much a model shall think, and whether its thoughts are told.
///
/// `disabled` is the effort `none`. `enabled` has the effort of its budget, unless `output_config.effort` names one; `adaptive` leaves it
/// to the model unless that does. Of that the default, `high`, says nothing, and what is above it is OpenAI's `high`. Thoughts are told
/// only to who asked for them: clients that did not take the first block for the answer's text.
pub struct Thinking {
    pub effort: Option<&'static str>,
    pub told: bool,
}

impl Thinking {
    pub fn read(fields: &Fields) -> Result<Self, RequestError> {
        let named = effort(fields);
        let Some(thinking) = given(fields, "thinking") else { return Ok(Self { effort: named, told: false }) };
        let told = thinking.get("display").is_none_or(|display| display != "omitted");
        match text_in(thinking, "type").map_err(wrong("thinking"))? {
            "disabled" => Ok(Self { effort: Some("none"), told: false }),
            "enabled" => Ok(Self { effort: named.or_else(|| budget(thinking)), told }),
            "adaptive" | "between_tools" => Ok(Self { effort: named, told }),
            kind => Err(wrong("thinking")(format!("the type `{kind}` is not one of `enabled`, `disabled` and `adaptive`"))),
        }
    }
}

fn effort(fields: &Fields) -> Option<&'static str> {
    match given(fields, "output_config")?.get("effort")?.as_str()? {
        "low" => Some("low"),
        "medium" => Some("medium"),
        "xhigh" | "max" => Some("high"),
        _ => None,
    }
}

fn budget(thinking: &Value) -> Option<&'static str> {
    let tokens = thinking.get("budget_tokens")?.as_u64()?;
    let steps = [(BUDGET_LOW_MAX, "low"), (BUDGET_MEDIUM_MAX, "medium"), (u64::MAX, "high")];
    steps.into_iter().find(|(most, _)| tokens <= *most).map(|(_, effort)| effort)
}
