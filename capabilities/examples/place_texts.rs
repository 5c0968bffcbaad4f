//! Reads texts, one a line, and writes where the built-in model places them: 384 little-endian f32 each. For `training/`.

use std::io::{Read, Write};

use atmo_capabilities::embed::Embedder;
use atmo_capabilities::embed::rten::RtenEmbedder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut texts = String::new();
    std::io::stdin().read_to_string(&mut texts)?;
    let texts: Vec<&str> = texts.lines().collect();
    let mut out = std::io::stdout().lock();
    for vector in RtenEmbedder::load()?.embed(&texts)? {
        out.write_all(&vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(())
}
