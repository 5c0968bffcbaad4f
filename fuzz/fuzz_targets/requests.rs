//! Requests of every dialect: any bytes are a request or an error, and a request is an OpenAI body with a model.
#![no_main]

use atmo_dialects::{Asked, anthropic, ollama, responses};
use libfuzzer_sys::fuzz_target;

const NOW: &str = "2026-01-01T00:00:00Z";

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let clock = || -> ollama::Clock { Box::new(|| 0) };
    let asked = match kind % 7 {
        0 => ollama::chat(body, NOW, clock()),
        1 => ollama::generate(body, NOW, clock()),
        2 => ollama::embed(body, clock()),
        3 => ollama::embeddings(body),
        4 => anthropic::messages(body, "id"),
        5 => responses::responses(body, "id", 0),
        _ => {
            _ = anthropic::count_tokens(body);
            _ = ollama::load_request(ollama::Route::Chat, body).map(|load| load.answer(NOW));
            return;
        }
    };
    if let Ok(Asked { body, .. }) = asked {
        assert!(body.is_object());
    }
});
