//! The model's bytes, verified before any engine sees them.
//!
//! llama.cpp loads most damaged files without a word and answers nonsense, or aborts; so a file is hashed against what was recorded when
//! it was imported, each time it changed on disk. The built-in model lives in the executable and is handed to the worker as an anonymous
//! file in memory, so that one copied binary works and nothing is left on disk.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use super::gguf::{Gguf, GgufError};

/// The built-in model: `assets/tiny-llm` tells how it was made.
pub static BUILT_IN: &[u8] = include_bytes!("../../assets/tiny-llm/atmo-tiny-q8_0.gguf");
/// blake3 of [`BUILT_IN`].
const BUILT_IN_BLAKE3: &str = "6cf00749c7aedb5309d4559f874100e12ba49a2bf89637cb493bb1b290d9cece";

/// Which model to run.
#[derive(Clone, Debug)]
pub enum ModelSource {
    BuiltIn,
    File(GgufModel),
}

/// A GGUF file, and what it was when it was imported.
#[derive(Clone, Debug)]
pub struct GgufModel {
    pub path: PathBuf,
    /// Hex, as recorded at import; without it only the file's shape is checked.
    pub blake3: Option<String>,
}

impl GgufModel {
    /// Imports a file: reads it whole once and records its hash. Blocking.
    pub fn import(path: &Path) -> Result<Self, ModelFileError> {
        Gguf::read_file(path)?;
        Ok(Self { path: path.to_owned(), blake3: Some(hash_file(path)?) })
    }
}

/// A model file that must not be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("the model file cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("the model file changed since it was imported (blake3 {found:.16}..., recorded {recorded:.16}...): import it again")]
    Changed { found: String, recorded: String },
    #[error("the model inside this executable is damaged: install atmo again")]
    BuiltInDamaged,
}

/// Remembers which state of a file was found good, since hashing gigabytes takes seconds.
#[derive(Debug, Default)]
pub struct Verifier {
    good: Mutex<Option<FileState>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct FileState {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// Remembers a file's header, which holds the whole vocabulary and is asked for every few seconds.
#[derive(Debug, Default)]
pub struct HeaderCache {
    known: Mutex<Option<(FileState, Gguf)>>,
}

impl HeaderCache {
    /// The header, read again only if the file changed. Blocking.
    pub fn read(&self, model: &ModelSource) -> Result<Gguf, GgufError> {
        let mut known = self.known.lock().expect("nothing panics while it holds the header");
        let state = match model {
            ModelSource::BuiltIn => FileState { bytes: BUILT_IN.len() as u64, modified: None },
            ModelSource::File(model) => FileState::of(&model.path)?,
        };
        if let Some((_, gguf)) = known.as_ref().filter(|(read, _)| *read == state) {
            return Ok(gguf.clone());
        }
        let gguf = match model {
            ModelSource::BuiltIn => Gguf::read(std::io::Cursor::new(BUILT_IN), state.bytes)?,
            ModelSource::File(model) => Gguf::read_file(&model.path)?,
        };
        *known = Some((state, gguf.clone()));
        Ok(gguf)
    }
}

impl Verifier {
    /// Checks the file unless nothing about it changed since it was found good. Blocking.
    pub fn verify(&self, model: &GgufModel) -> Result<(), ModelFileError> {
        let state = FileState::of(&model.path)?;
        if self.good.lock().expect("nothing panics while it holds the state").as_ref() == Some(&state) {
            return Ok(());
        }
        Gguf::read_file(&model.path)?;
        if let Some(recorded) = &model.blake3 {
            let found = hash_file(&model.path)?;
            if !found.eq_ignore_ascii_case(recorded) {
                return Err(ModelFileError::Changed { found, recorded: recorded.clone() });
            }
        }
        *self.good.lock().expect("nothing panics while it holds the state") = Some(state);
        Ok(())
    }
}

/// Checks the model inside the executable; a few milliseconds.
pub fn verify_built_in() -> Result<(), ModelFileError> {
    if blake3::hash(BUILT_IN).to_hex().as_str() == BUILT_IN_BLAKE3 { Ok(()) } else { Err(ModelFileError::BuiltInDamaged) }
}

fn hash_file(path: &Path) -> Result<String, std::io::Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The built-in model where a child process can open it.
#[derive(Debug)]
pub struct PlacedModel {
    pub path: PathBuf,
    /// Kept open, and inherited by the child, for as long as the child may open the path.
    #[cfg(target_os = "linux")]
    pub memory: std::os::fd::OwnedFd,
}

/// Puts the built-in model into an anonymous, sealed file in memory.
#[cfg(target_os = "linux")]
pub fn place_built_in() -> std::io::Result<PlacedModel> {
    use std::io::Write as _;
    use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
    // SAFETY: the name is a C string; the result is checked before it is owned.
    let fd = unsafe { libc::memfd_create(c"atmo-model".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(BUILT_IN)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: a plain system call on a descriptor that is owned here.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(PlacedModel { path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(), memory: file.into() })
}

/// Writes the built-in model to a file beside others of its kind, atomically; the name is its hash, so that it is written once.
#[cfg(not(target_os = "linux"))]
pub fn place_built_in() -> std::io::Result<PlacedModel> {
    let path = std::env::temp_dir().join(format!("atmo-tiny-{}.gguf", &BUILT_IN_BLAKE3[..16]));
    if hash_file(&path).is_ok_and(|hash| hash == BUILT_IN_BLAKE3) {
        return Ok(PlacedModel { path });
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    std::fs::write(&partial, BUILT_IN)?;
    std::fs::rename(&partial, &path)?;
    Ok(PlacedModel { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_model_is_what_was_compiled_in() {
        assert_eq!(blake3::hash(BUILT_IN).to_hex().as_str(), BUILT_IN_BLAKE3);
        verify_built_in().unwrap();
    }

    #[test]
    fn a_changed_or_truncated_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, BUILT_IN).unwrap();
        let model = GgufModel::import(&path).unwrap();
        let verifier = Verifier::default();
        verifier.verify(&model).unwrap();
        verifier.verify(&model).unwrap();

        let mut flipped = BUILT_IN.to_vec();
        flipped[BUILT_IN.len() - 9] ^= 1;
        std::fs::write(&path, [&flipped[..], b"x"].concat()).unwrap();
        assert!(matches!(verifier.verify(&model), Err(ModelFileError::Changed { .. })));
        std::fs::write(&path, &BUILT_IN[..100_000]).unwrap();
        assert!(matches!(verifier.verify(&model), Err(ModelFileError::Gguf(GgufError::Truncated { .. }))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(verifier.verify(&model), Err(ModelFileError::Unreadable(_))));
    }
}
