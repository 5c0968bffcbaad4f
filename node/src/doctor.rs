//! `atmo doctor`: what could keep a node on this machine from working, each with the next step.
//!
//! Runs with or without a node: a running one is asked over its control socket, otherwise the folder, the ports and the engines are looked
//! at from here. Leaves nothing changed and never sends an inference request. Absent: the network beyond this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atmo_protocol::Chain;
use serde::Serialize;
use serde_json::Value;

use crate::config::{Config, Flags, Lookup};
use crate::control::{Client, Request};
use crate::membership::rfc3339;
use crate::{platform, store};

/// No clock of a working machine stands before the day these lines were written.
const CLOCK_MIN_S: u64 = 1_763_683_200;
/// A certificate that ends within this time is worth a warning.
const EXPIRY_WARNING_MS: u64 = 14 * 86_400_000;
/// The running node has this long to answer.
const NODE_WAIT: Duration = Duration::from_secs(5);
/// The API has this long to accept a connection.
const API_WAIT: Duration = Duration::from_secs(2);
/// Engines have this long to show themselves.
const ENGINES_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub detail: String,
    /// What to do about it.
    pub next: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), next: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, detail: detail.into(), next: Some(next.into()) }
    }

    fn fail(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, detail: detail.into(), next: Some(next.into()) }
    }
}

/// Looks at everything, in the order in which things depend on each other.
pub async fn examine(data_dir: &Path, environment: Lookup<'_>) -> Vec<Check> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut checks = vec![clock(now_s), folder(data_dir)];
    let status = ask_node(data_dir).await;
    checks.push(node(data_dir, status.as_ref()));
    checks.push(membership(data_dir, now_s * 1000));
    let config = Config::load(data_dir.to_owned(), &Flags::default(), environment);
    match (&status, &config) {
        (Some(status), _) => running(&mut checks, status).await,
        (None, Ok(config)) => stopped(&mut checks, config, environment).await,
        (None, Err(error)) => checks.push(Check::fail("configuration", error.to_string(), "correct it as it says")),
    }
    checks.push(hardware().await);
    checks
}

/// For people: one line per check, its next step below it.
pub fn report(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        lines.push(format!("{verdict}  {:width$}  {}", check.name, check.detail));
        lines.extend(check.next.iter().map(|next| format!("{:1$}-> {next}", "", width + 8)));
    }
    lines.join("\n")
}

/// What the running node says of itself.
async fn ask_node(data_dir: &Path) -> Option<Value> {
    let client = Client::connect(data_dir).await?;
    tokio::time::timeout(NODE_WAIT, client.request(Request::Doctor, |_| Ok(()))).await.ok()?.ok()
}

fn clock(now_s: u64) -> Check {
    let now = rfc3339(now_s * 1000);
    if now_s < CLOCK_MIN_S {
        return Check::fail("clock", format!("stands at {now}"), "set it (NTP does): certificates and codes depend on it");
    }
    Check::ok("clock", now)
}

fn folder(data_dir: &Path) -> Check {
    const NAME: &str = "data folder";
    let shown = data_dir.display();
    let readable = |file: &&&str| platform::mode_open_to_others(&data_dir.join(file)).is_ok_and(|bits| bits != 0);
    if let Some(file) = store::SECRET_FILES.iter().find(readable) {
        let path = data_dir.join(file).display().to_string();
        return Check::fail(NAME, format!("{path} can be read by other users"), format!("chmod 600 {path}"));
    }
    match platform::mode_open_to_others(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok(NAME, format!("{shown} is made by the first start"))
        }
        Err(error) => {
            Check::fail(NAME, format!("{shown}: {error}"), "make it readable for this user, or name another with --data-dir")
        }
        Ok(0) => match store::try_writing(data_dir) {
            Ok(()) => Check::ok(NAME, shown.to_string()),
            Err(error) => Check::fail(
                NAME,
                format!("{shown} cannot be written: {error}"),
                "make room or make it writable: no node starts without",
            ),
        },
        Ok(_) => Check::warn(NAME, format!("{shown} can be opened by other users"), format!("chmod 700 {shown}")),
    }
}

fn node(data_dir: &Path, status: Option<&Value>) -> Check {
    match (status, store::holder_of(data_dir)) {
        (Some(status), _) => Check::ok("node", format!("{} is running", status["name"].as_str().unwrap_or("a node"))),
        (None, None) => Check::ok("node", "not running; `atmo up` starts it"),
        (None, Some(holder)) => {
            let process = holder.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            Check::fail("node", format!("{process} holds the data folder and does not answer"), "end it, then `atmo up`")
        }
    }
}

fn membership(data_dir: &Path, now_ms: u64) -> Check {
    let stored = match store::peek(data_dir) {
        Ok((_, Some(stored))) => stored,
        Ok((_, None)) => return Check::ok("membership", "in no mesh yet: the first `atmo up` makes a private one"),
        Err(error) => return Check::fail("membership", error.to_string(), "restore the file, or `atmo leave` and join again"),
    };
    let name = stored.name.clone().unwrap_or_else(|| stored.mesh.short());
    let member = Chain::decode(&stored.chain).and_then(|chain| chain.verify(&stored.mesh));
    match member {
        Err(error) => Check::fail("membership", format!("{name}: {error}"), "`atmo leave`, then join with a new code"),
        Ok(member) => expiry(&name, member.expires_ms, now_ms),
    }
}

fn expiry(name: &str, expires_ms: u64, now_ms: u64) -> Check {
    const NEXT: &str = "`atmo leave`, then join with a new code from `atmo invite`";
    let until = rfc3339(expires_ms);
    match expires_ms.checked_sub(now_ms) {
        None | Some(0) => Check::fail("membership", format!("{name}: the certificate expired at {until}"), NEXT),
        Some(left) if left < EXPIRY_WARNING_MS => {
            Check::warn("membership", format!("{name}: the certificate ends at {until}"), NEXT)
        }
        Some(_) => Check::ok("membership", format!("{name}, until {until}")),
    }
}

/// What a running node can be asked and reached at.
async fn running(checks: &mut Vec<Check>, status: &Value) {
    checks.push(match status["api"].as_str().and_then(|api| api.parse::<SocketAddr>().ok()) {
        None => Check::ok("api", "none in this mode"),
        Some(api) => reachable(api).await,
    });
    let listen: Vec<&str> = status["listen"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    checks.push(match (listen.is_empty(), status["mode"] == "standalone") {
        (_, true) => Check::ok("listening", "a standalone node touches no network"),
        (true, false) => {
            Check::fail("listening", "nowhere: no other node can connect", "see the node's log; another --listen may work")
        }
        (false, false) => Check::ok("listening", listen.join(", ")),
    });
    let distrusted = status["distrusted"].as_array().map(Vec::as_slice).unwrap_or_default();
    checks.extend(distrusted.iter().map(|capability| {
        let word = |field: &str| capability[field].as_str().unwrap_or_default();
        Check::warn("capability", format!("{}: {}", word("name"), word("why")), "ask its owner which build of atmo announces it")
    }));
    let backends = status["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    checks.extend(backends.iter().map(backend));
    if backends.is_empty() {
        checks.push(no_engine());
    }
}

async fn reachable(api: SocketAddr) -> Check {
    match tokio::time::timeout(API_WAIT, tokio::net::TcpStream::connect(api)).await {
        Ok(Ok(_)) => Check::ok("api", format!("http://{api}/v1")),
        _ => Check::fail(
            "api",
            format!("{api} accepts no connection"),
            "see the node's log; a firewall on loopback is the usual cause",
        ),
    }
}

/// One backend of a running node, in the words of its status.
fn backend(backend: &Value) -> Check {
    let word = |field: &str| backend[field].as_str().unwrap_or_default();
    let (name, state, detail) = (word("name"), word("state"), word("detail"));
    let text = if detail.is_empty() { format!("{name}: {state}") } else { format!("{name}: {state}, {detail}") };
    match state {
        "down" => Check::fail("backend", text, "start it, or take it out of the configuration"),
        "degraded" => Check::warn("backend", text, "see the backend's own log"),
        _ => Check::ok("backend", text),
    }
}

/// What a node that is about to start will find.
async fn stopped(checks: &mut Vec<Check>, config: &Config, environment: Lookup<'_>) {
    checks.push(match TcpListener::bind(config.api.address) {
        Ok(_) => Check::ok("api", format!("{} is free", config.api.address)),
        Err(error) => {
            Check::warn("api", format!("{}: {error}", config.api.address), "another program has it: choose another with --api")
        }
    });
    checks.push(ports(crate::config::LISTEN_PORT));
    let found =
        tokio::time::timeout(ENGINES_WAIT, atmo_adapters::discover::discover(environment, &[config.api.address.port()])).await;
    let found = found.unwrap_or_default();
    checks.extend(found.iter().map(|engine| Check::ok("backend", format!("{:?} answers at {}", engine.protocol, engine.url))));
    if found.is_empty() && config.backends.is_empty() {
        checks.push(no_engine());
    }
}

/// The default port, UDP and TCP. Taken is no error: another is then chosen.
fn ports(port: u16) -> Check {
    let any = (Ipv4Addr::UNSPECIFIED, port);
    match UdpSocket::bind(any).map(drop).and_then(|()| TcpListener::bind(any).map(drop)) {
        Ok(()) => Check::ok("listening", format!("UDP and TCP {port} are free")),
        Err(error) => Check::warn(
            "listening",
            format!("port {port}: {error}"),
            "a free one is chosen at the start; open that one in the firewall",
        ),
    }
}

fn no_engine() -> Check {
    const NEXT: &str = "start Ollama, llama-server or another engine, or name one under [[backends]]";
    Check::warn("backend", "no engine found: only the built-in demonstration model can answer", NEXT)
}

async fn hardware() -> Check {
    let hardware = atmo_adapters::hardware::detect().await;
    let mut parts = vec![hardware.cpu.model.clone(), format!("{} cores, {} threads", hardware.cpu.cores, hardware.cpu.threads)];
    parts.push(format!("{} of {} GiB memory free", hardware.memory_available_bytes >> 30, hardware.memory_bytes >> 30));
    parts.extend(hardware.nvidia.iter().map(|gpu| format!("{} ({} GiB)", gpu.name, gpu.memory_bytes >> 30)));
    parts.retain(|part| !part.is_empty());
    let text = parts.join(", ");
    if cfg!(target_arch = "x86_64") && !hardware.cpu.avx2 {
        return Check::fail(
            "hardware",
            text,
            "this processor lacks AVX2, which the built-in engine needs: start with --no-builtin",
        );
    }
    Check::ok("hardware", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_that_is_not_ok_has_a_next_step() {
        let checks = [
            clock(0),
            clock(CLOCK_MIN_S),
            expiry("home", 5, 5),
            expiry("home", 6, 5),
            expiry("home", u64::MAX / 2, 5),
            no_engine(),
        ];
        let verdicts: Vec<Verdict> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Fail, Verdict::Ok, Verdict::Fail, Verdict::Warn, Verdict::Ok, Verdict::Warn]);
        assert!(checks.iter().all(|check| check.next.is_some() == (check.verdict != Verdict::Ok)));
        let text = report(&checks);
        assert!(text.starts_with("FAIL  clock") && text.contains("\n                  -> set it"), "{text}");
    }

    #[test]
    fn a_folder_that_others_can_read_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        assert_eq!(folder(&dir).verdict, Verdict::Ok, "it is made by the first start");
        drop(store::Store::open(&dir).unwrap());
        assert_eq!(folder(&dir).verdict, Verdict::Ok);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(folder(&dir).verdict, Verdict::Warn);
        std::fs::set_permissions(dir.join("node.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let check = folder(&dir);
        assert!(check.verdict == Verdict::Fail && check.next.is_some_and(|next| next.starts_with("chmod 600 ")));
    }

    #[test]
    fn a_folder_that_is_held_without_a_node_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let held = store::Store::open(dir.path()).unwrap();
        let check = node(dir.path(), None);
        assert!(check.verdict == Verdict::Fail && check.detail.contains(&std::process::id().to_string()), "{check:?}");
        drop(held);
        assert_eq!(node(dir.path(), None).verdict, Verdict::Ok);
        assert_eq!(membership(dir.path(), 0).verdict, Verdict::Ok);
    }

    #[test]
    fn a_backend_that_is_down_fails() {
        let down = backend(&serde_json::json!({"name": "vllm", "state": "down", "detail": "refused"}));
        assert_eq!((down.verdict, down.detail.as_str()), (Verdict::Fail, "vllm: down, refused"));
        assert_eq!(backend(&serde_json::json!({"name": "ollama", "state": "up"})).verdict, Verdict::Ok);
    }
}
