//! Writes `assets/routing/exemplars.i8`, the vectors of the exemplars in `exemplars.toml`. To be run after every change of that file.

use std::path::Path;

use atmo_capabilities::embed::rten::RtenEmbedder;
use atmo_capabilities::embed::space;
use atmo_capabilities::exemplars::vectors;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(vectors::PATH);
    let bytes = vectors::encode(&RtenEmbedder::load()?, &space::minilm_mean())?;
    std::fs::write(&path, &bytes)?;
    println!("{} bytes written to {}", bytes.len(), path.display());
    Ok(())
}
