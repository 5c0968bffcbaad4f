//! Where a library of ONNX Runtime may lie, and opening it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::Environment;

use super::{EmbedError, unusable};

/// Names the library to use, as other programs over ONNX Runtime read it.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// Where the system's own loader is told to look.
const LOADER_VARIABLE: &str = if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };

/// Where a library may lie, the likeliest first: absolute paths, of which none need exist. The environment comes in through `lookup`.
///
/// Who sets `ORT_DYLIB_PATH` gets that library or none; one that is relative is so to `executable_dir`. Else it may lie beside the
/// executable, or where the system's loader looks. Of Windows' own directories none is named: some versions have one older than 1.17 there.
pub fn library_candidates(lookup: &dyn Fn(&str) -> Option<String>, executable_dir: Option<&Path>) -> Vec<PathBuf> {
    let absolute = |path: PathBuf| executable_dir.map_or(path.clone(), |dir| dir.join(path));
    if let Some(named) = lookup(LIBRARY_VARIABLE).filter(|named| !named.is_empty()) {
        return Some(absolute(named.into())).filter(|path| path.is_absolute()).into_iter().collect();
    }
    let told = lookup(LOADER_VARIABLE).filter(|_| cfg!(unix)).unwrap_or_default();
    let beside = executable_dir.map(Path::to_owned);
    let directories = beside.into_iter().chain(std::env::split_paths(&told)).chain(loader_directories());
    let directories = directories.filter(|directory| directory.is_absolute());
    directories.flat_map(|directory| file_names().iter().map(move |name| directory.join(name))).collect()
}

/// What a library is called: by those who link against it, then by those who only run it.
fn file_names() -> &'static [&'static str] {
    match std::env::consts::OS {
        "windows" => &["onnxruntime.dll"],
        "macos" => &["libonnxruntime.dylib"],
        _ => &["libonnxruntime.so", "libonnxruntime.so.1"],
    }
}

fn loader_directories() -> Vec<PathBuf> {
    match std::env::consts::OS {
        "windows" => Vec::new(),
        "macos" => vec!["/opt/homebrew/lib".into(), "/usr/local/lib".into()],
        _ => {
            let of_architecture = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
            ["/usr/local/lib", &of_architecture, "/usr/lib64", "/usr/lib"].map(PathBuf::from).into()
        }
    }
}

/// The library that this process has opened: it stays so.
struct Opened {
    library: PathBuf,
    environment: Option<Environment>,
}

static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

/// The environment of `library`, which is opened where none is yet. Opening runs its code: only for a file that the user put there.
pub(super) fn open(library: &Path) -> Result<Environment, EmbedError> {
    if !library.is_absolute() {
        return Err(unusable(format!("{} is not an absolute path", library.display())));
    }
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(other) = opened.as_ref().filter(|opened| opened.library != library) {
        return Err(unusable(format!("{} is already open, and stays so until a restart", other.library.display())));
    }
    if let Some(environment) = opened.as_ref().and_then(|opened| opened.environment.clone()) {
        return Ok(environment);
    }
    let builder = ort::init_from(library).map_err(refused)?;
    let opened = opened.insert(Opened { library: library.to_owned(), environment: None });
    // Its makers' own builds report on models and runs unless told not to.
    let environment = builder.with_telemetry(false).build().map_err(unusable)?;
    opened.environment = Some(environment.clone());
    Ok(environment)
}

/// With what the system's loader says, which the error itself leaves out.
fn refused(error: LoadDynamicError) -> EmbedError {
    match &error {
        LoadDynamicError::Dlopen { error: loader, .. } => {
            unusable(loader.source().map_or(error.to_string(), |said| format!("{error}: {said}")))
        }
        _ => unusable(error),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn candidates(variables: &[(&str, &str)], executable_dir: Option<&str>) -> Vec<PathBuf> {
        let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        library_candidates(&lookup, executable_dir.map(Path::new))
    }

    #[test]
    fn a_named_library_is_the_only_candidate() {
        assert_eq!(
            candidates(&[(LIBRARY_VARIABLE, "/opt/ort.so"), (LOADER_VARIABLE, "/lib")], Some("/bin")),
            ["/opt/ort.so"].map(PathBuf::from)
        );
        assert_eq!(candidates(&[(LIBRARY_VARIABLE, "lib/ort.so")], Some("/bin")), ["/bin/lib/ort.so"].map(PathBuf::from));
        assert!(candidates(&[(LIBRARY_VARIABLE, "lib/ort.so")], None).is_empty(), "relative to nothing");
        assert_eq!(candidates(&[(LIBRARY_VARIABLE, "")], Some("/bin")), candidates(&[], Some("/bin")));
    }

    #[test]
    fn the_executable_comes_before_the_loader_and_nothing_is_relative() {
        let found = candidates(&[(LOADER_VARIABLE, "/told:relative::/told/too")], Some("/bin"));
        let mut directories: Vec<&Path> = found.iter().filter_map(|path| path.parent()).collect();
        directories.dedup();
        assert_eq!(directories[..3], ["/bin", "/told", "/told/too"].map(Path::new));
        assert_eq!(directories[3..], loader_directories());
        for path in &found {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert!(path.is_absolute() && name.starts_with("libonnxruntime."), "{}", path.display());
        }
    }
}
