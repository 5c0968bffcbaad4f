//! `atmo mesh backup` and `atmo mesh restore`: the mesh's root key, out of the machine and back into one.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use zeroize::Zeroizing;

use super::mesh::now_ms;
use super::session::{Session, Stop};
use crate::control::{CommandError, Request};
use crate::membership::{self, MembershipError};
use crate::platform;
use crate::root_backup::{self, BACKUP_BYTES_MAX, Root};
use crate::store::{self, Seed};

/// Longest passphrase file.
const PASSPHRASE_BYTES_MAX: u64 = 4 << 10;

pub async fn backup(session: &Session, out: Option<PathBuf>, passphrase_file: Option<PathBuf>) -> Result<ExitCode, Stop> {
    // Reading needs no lock, so this works beside the running node.
    let stored = store::peek(&session.data_dir)?.1.ok_or(MembershipError::None)?;
    let Some(root) = &stored.root else {
        return Err(CommandError::failed(
            "the mesh's root key is not in this folder: only the node that founded the mesh has it, or one that it was restored on",
        )
        .into());
    };
    let out = out.unwrap_or_else(|| format!("atmosphere-root-{}.txt", stored.mesh.short()).into());
    let passphrase = passphrase(passphrase_file.as_deref(), true)?;
    let sealed = root_backup::seal(&Root { key: root.key(), name: stored.name.clone() }, &passphrase);
    write_new(&out, sealed.map_err(CommandError::usage)?.as_bytes())?;
    match session.node().await {
        Some(node) => _ = node.request(Request::RootExported { mesh: stored.mesh.to_string() }, |_| Ok(())).await?,
        None => membership::note_export(&session.store()?, &stored.mesh)?,
    }
    let file = out.display().to_string();
    let line = format!(
        "the mesh's root key is in {file}; keep it elsewhere, and the passphrase elsewhere again: both together are the mesh"
    );
    session.say(&json!({ "file": file, "mesh": membership::mesh_json(&stored.mesh, stored.name.as_deref()) }), &line)
}

pub async fn restore(session: &Session, file: PathBuf, passphrase_file: Option<PathBuf>) -> Result<ExitCode, Stop> {
    let text = read_bounded(&file, BACKUP_BYTES_MAX as u64)?;
    let passphrase = passphrase(passphrase_file.as_deref(), false)?;
    let Root { key, name } = root_backup::open(&text, &passphrase).map_err(CommandError::failed)?;
    let store = session.store()?;
    let restored = membership::restore(&store, Seed::of(&key), name, now_ms())?;
    store.save_root_exported(&restored.mesh)?;
    let line = format!(
        "this node holds the root of the mesh {} and every role in it; members find it on the local network, or join with a code of its",
        restored.label()
    );
    session.say(&restored.to_json(), &line)
}

/// From the file, else typed, twice where a mistake would cost the backup.
fn passphrase(file: Option<&Path>, twice: bool) -> Result<Zeroizing<String>, Stop> {
    if let Some(file) = file {
        let text = Zeroizing::new(read_bounded(file, PASSPHRASE_BYTES_MAX)?);
        return Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()));
    }
    if !io::stdin().is_terminal() {
        return Err(CommandError::usage("nobody is there to type a passphrase: add --passphrase-file FILE").into());
    }
    let typed = typed("passphrase: ")?;
    if twice && typed != self::typed("once more: ")? {
        return Err(CommandError::usage("the two passphrases differ; nothing was written").into());
    }
    Ok(typed)
}

fn typed(prompt: &str) -> Result<Zeroizing<String>, Stop> {
    let mut err = io::stderr();
    write!(err, "{prompt}")?;
    err.flush()?;
    let mut line = Zeroizing::new(String::new());
    platform::without_echo(|| io::stdin().lock().read_line(&mut line))?;
    writeln!(err)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_bounded(file: &Path, bytes_max: u64) -> Result<String, Stop> {
    let named = |cause: io::Error| CommandError::failed(format_args!("{}: {cause}", file.display()));
    if std::fs::metadata(file).map_err(named)?.len() > bytes_max {
        return Err(CommandError::failed(format_args!("{} is far too large", file.display())).into());
    }
    Ok(std::fs::read_to_string(file).map_err(named)?)
}

/// A file of its owner alone; one that is there already is left as it is.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    let named = |cause: io::Error| match cause.kind() {
        io::ErrorKind::AlreadyExists => {
            CommandError::failed(format_args!("{} is there already; name another with --out", path.display()))
        }
        _ => CommandError::failed(format_args!("{}: {cause}", path.display())),
    };
    let mut file = platform::create_new_private_file(path).map_err(named)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        _ = std::fs::remove_file(path);
    }
    Ok(written.map_err(named)?)
}
