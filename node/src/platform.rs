//! Everything that differs between operating systems: folders, locks, private files, the control socket's place, signals, memory.
//!
//! A port is this one file. Written for Linux and macOS; whatever a platform lacks answers "unknown" rather than failing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;
use rustix::fs::FlockOperation;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The folder's name below the platform's folder for application data.
const APPLICATION: &str = "atmosphere";
/// Longest path of a Unix socket that works everywhere (Linux takes 107 bytes, macOS 103).
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// `/atmo-`, 16 digits of a hash, `.sock`.
const SOCKET_NAME_BYTES: usize = 27;
/// Shown when the host has no name of its own.
const NAMELESS: &str = "node";

/// Where a node keeps its data unless told otherwise: `~/.local/share/atmosphere`, `~/Library/Application Support/atmosphere`.
pub fn default_data_dir() -> Option<PathBuf> {
    etcetera::base_strategy::choose_native_strategy().ok().map(|folders| folders.data_dir().join(APPLICATION))
}

/// The machine's name, for want of a better one.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let first = name.split('.').next().unwrap_or_default();
    if first.is_empty() { NAMELESS.to_owned() } else { first.to_owned() }
}

/// Creates `dir` for its owner alone, with its parents. One that exists is left as it is.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Creates or empties a file that only its owner can read.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Opens a file that only its owner can read, to write behind its end; creates it where there is none.
pub fn append_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Whether an open file has no name any more: what is written to it is gone once it is closed.
pub fn is_unlinked(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() == 0)
}

/// The addresses that this machine's own connections leave from, loopback last. Nothing is sent: connecting a UDP socket only chooses.
pub fn outgoing_addresses() -> Vec<IpAddr> {
    // Addresses reserved for documentation stand for "anywhere outside".
    let outside: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ];
    let leaves_from = |(any, far): (IpAddr, IpAddr)| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((far, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let found = outside.into_iter().filter_map(leaves_from).filter(|ip| !ip.is_loopback());
    found.chain([Ipv4Addr::LOCALHOST.into()]).collect()
}

/// The bits of `path` that let others read or change it; 0 when only its owner can.
pub fn mode_open_to_others(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077)
}

/// A file that was not there before, which nobody but its owner may read.
pub fn create_new_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Runs `read` while the terminal shows nothing of what is typed.
pub fn without_echo<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let read = read();
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    read
}

/// Makes a rename or a new file in `dir` survive a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens or creates the file whose lock stands for the data folder.
pub fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Opens the lock file of a folder that a node may be using, to see whether one is.
pub fn open_existing_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

/// Takes the lock of an open file without waiting; `false` when another process holds it. The kernel lets go when the process ends,
/// however it ends.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The control socket of a data folder: inside it, or in the runtime folder under a hash where that path would be too long.
pub fn control_socket_path(data_dir: &Path) -> io::Result<PathBuf> {
    let data_dir = fs::canonicalize(data_dir)?;
    let inside = data_dir.join("control.sock");
    if inside.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(inside);
    }
    let hash = blake3::hash(data_dir.as_os_str().as_bytes()).to_hex();
    Ok(runtime_dir()?.join(format!("atmo-{}.sock", &hash[..16])))
}

/// A folder of this user for sockets, with a short path.
fn runtime_dir() -> io::Result<PathBuf> {
    let short = |dir: &PathBuf| dir.as_os_str().len() + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES_MAX;
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| short(dir) && owned_by_us(dir)) {
        return Ok(dir);
    }
    let dir = Path::new("/tmp").join(format!("atmo-{}", rustix::process::geteuid().as_raw()));
    create_private_dir(&dir)?;
    if owned_by_us(&dir) && mode_open_to_others(&dir)? == 0 {
        return Ok(dir);
    }
    let cause = format!("{} belongs to somebody else; set XDG_RUNTIME_DIR or use a shorter --data-dir", dir.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, cause))
}

fn owned_by_us(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

/// Listens on a socket that only its owner can open. Nothing may exist at `path`.
pub fn bind_private_socket(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether a process of user `uid` may command this node: its own user, or root.
pub fn may_control(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// The signals that ask a process to end.
#[derive(Debug)]
pub struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// From now on these signals no longer end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The name of the next one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Gives memory that the allocator holds but nothing uses back to the operating system.
pub fn release_unused_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the memory behind bytes that were compiled in; the next use reads them from the binary again.
pub fn release_static_range(bytes: &'static [u8]) {
    let page = page_bytes();
    let start = (bytes.as_ptr() as usize).next_multiple_of(page);
    let end = (bytes.as_ptr() as usize + bytes.len()) / page * page;
    if cfg!(target_os = "linux") && start < end {
        // SAFETY: the whole pages inside a compiled-in constant are a read-only mapping of the binary: the kernel reads them again on
        // the next access, so their contents never change.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Resident memory of this process, where the platform says.
pub fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_bytes() as u64)
}

fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant of the running system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Whether an error means that the disk, or the user's share of it, is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// CPU time and resident bytes of another process of ours, where the platform says.
pub fn process_usage(id: u32) -> Option<(Duration, u64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field behind it.
    let behind: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = behind.get(11)?.parse::<u64>().ok()? + behind.get(12)?.parse::<u64>().ok()?;
    // SAFETY: sysconf reads a constant of the running system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
    let statm = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some((Duration::from_secs_f64(ticks as f64 / per_second), pages * page_bytes() as u64))
}

/// The processes that a process started and that still run; empty where the platform does not say.
pub fn child_processes(id: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
