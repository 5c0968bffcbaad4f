//! GGUF files that the configuration names: imported once, then held to the hash that was recorded.

use std::path::Path;
use std::sync::Arc;

use atmo_adapters::Backend;
use atmo_adapters::llama_cpp::{GgufModel, LlamaCpp, LlamaCppConfig, WorkerCommand};

use crate::store::Store;

/// The model inside this executable.
pub fn built_in() -> Result<Arc<dyn Backend>, String> {
    Ok(Arc::new(LlamaCpp::new(LlamaCppConfig::built_in(worker()?))))
}

/// The model in the file `path`. The first time it is read whole and its hash recorded; from then on a file that differs is refused when
/// it is used. A deliberate change is accepted by removing `models.json` from the data folder.
pub async fn of_file(name: &str, path: &Path, store: &Arc<Store>) -> Result<Arc<dyn Backend>, String> {
    let (path, store) = (path.to_owned(), Arc::clone(store));
    let import = tokio::task::spawn_blocking(move || import(&path, &store)).await;
    let model = import.map_err(|panic| panic.to_string())??;
    Ok(Arc::new(LlamaCpp::new(LlamaCppConfig::file(name, model, worker()?))))
}

fn import(path: &Path, store: &Store) -> Result<GgufModel, String> {
    let named = |cause: String| format!("{}: {cause}", path.display());
    if let Some(recorded) = store.model_hash(path).map_err(|error| error.to_string())? {
        return Ok(GgufModel { path: path.to_owned(), blake3: Some(recorded) });
    }
    tracing::info!(model = %path.display(), "importing a model: its hash is recorded");
    let model = GgufModel::import(path).map_err(|error| named(error.to_string()))?;
    if let Some(hash) = &model.blake3 {
        store.record_model(path, hash).map_err(|error| error.to_string())?;
    }
    Ok(model)
}

fn worker() -> Result<WorkerCommand, String> {
    let program = std::env::current_exe().map_err(|error| format!("this executable cannot be found again: {error}"))?;
    Ok(WorkerCommand { program, args: vec!["worker".into()] })
}
