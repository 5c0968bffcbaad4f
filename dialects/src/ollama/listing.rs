//! What Ollama says of models: `/api/tags`, `/api/ps`, `/api/show`, `/api/version`.

use serde_json::{Value, json};

/// When a model that nobody unloads expires: far enough that Ollama's command line says "Forever".
const NEVER: &str = "2318-01-01T00:00:00Z";
/// What Go writes for a time that is not known; clients parse the field, so it cannot be empty.
const UNKNOWN_TIME: &str = "0001-01-01T00:00:00Z";

/// A model as it is listed. Texts are empty where nothing is known.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Model {
    pub name: String,
    /// Its architecture: `qwen2`, `llama`.
    pub family: String,
    /// Billions of parameters.
    pub parameters_b: Option<f64>,
    /// `Q4_K_M`
    pub quantization: String,
    /// Tokens.
    pub context_length: Option<u64>,
    /// Of its vectors.
    pub dimensions: Option<u64>,
    pub tools: bool,
    pub vision: bool,
    pub embeds: bool,
    pub can_chat: bool,
    /// 64 hex digits.
    pub digest: String,
    pub size_bytes: u64,
    /// RFC 3339.
    pub modified_at: String,
    /// Where it lives; told among the details, where Ollama has no such field.
    pub node: String,
}

/// `GET /api/tags`: what there is.
pub fn tags(models: &[Model]) -> Value {
    json!({ "models": models.iter().map(Model::tag).collect::<Vec<_>>() })
}

/// `GET /api/ps`: what is loaded.
pub fn ps(models: &[Model]) -> Value {
    json!({ "models": models.iter().map(Model::process).collect::<Vec<_>>() })
}

/// `POST /api/show`: all that is known of one model.
pub fn show(model: &Model) -> Value {
    json!({
        "license": "", "modelfile": format!("FROM {}\n", model.name), "parameters": "", "template": "", "system": "",
        "details": model.details(), "model_info": model.info(), "capabilities": model.capabilities(),
        "modified_at": model.modified(),
    })
}

/// `GET /api/version`. Clients compare it with the version that brought what they need, so it must be one of Ollama's.
pub fn version(version: &str) -> Value {
    json!({ "version": version })
}

impl Model {
    fn tag(&self) -> Value {
        json!({
            "name": self.name, "model": self.name, "modified_at": self.modified(), "size": self.size_bytes, "digest": self.digest,
            "details": self.details(),
        })
    }

    fn process(&self) -> Value {
        json!({
            "name": self.name, "model": self.name, "size": self.size_bytes, "digest": self.digest, "details": self.details(),
            "expires_at": NEVER, "size_vram": self.size_bytes, "context_length": self.context_length.unwrap_or(0),
        })
    }

    fn details(&self) -> Value {
        json!({
            "parent_model": "", "format": "gguf", "family": self.family, "families": [self.family],
            "parameter_size": self.parameters_b.map(parameter_size).unwrap_or_default(), "quantization_level": self.quantization,
            "node": self.node,
        })
    }

    fn info(&self) -> Value {
        let family = if self.family.is_empty() { "unknown" } else { &self.family };
        let mut info = json!({ "general.architecture": family, "general.basename": self.name });
        let parameters = self.parameters_b.map(|billions| (billions * 1e9).round() as u64);
        for (key, value) in [
            ("general.parameter_count".to_owned(), parameters),
            (format!("{family}.context_length"), self.context_length),
            (format!("{family}.embedding_length"), self.dimensions),
        ] {
            if let Some(value) = value {
                info[key] = json!(value);
            }
        }
        info
    }

    fn capabilities(&self) -> Vec<&'static str> {
        let all = [(self.can_chat, "completion"), (self.tools, "tools"), (self.vision, "vision"), (self.embeds, "embedding")];
        all.iter().filter(|(can, _)| *can).map(|(_, word)| *word).collect()
    }

    fn modified(&self) -> &str {
        if self.modified_at.is_empty() { UNKNOWN_TIME } else { &self.modified_at }
    }
}

/// As Ollama writes it: `7.6B`, `8B`, `134.52M`.
fn parameter_size(billions: f64) -> String {
    let whole = |number: f64| number == number.floor();
    match billions * 1e3 {
        millions if millions < 1e3 && whole(millions) => format!("{millions:.0}M"),
        millions if millions < 1e3 => format!("{millions:.2}M"),
        _ if whole(billions) => format!("{billions:.0}B"),
        _ => format!("{billions:.1}B"),
    }
}
