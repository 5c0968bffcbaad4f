//! What stands between the client and the mock engine, each in a process of its own that ends with the bench.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Something is up within this time, or it does not come up.
const START_WAIT: Duration = Duration::from_secs(20);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// One process or several, with the address to ask.
pub struct Running {
    pub address: SocketAddr,
    children: Vec<Child>,
    _folders: Vec<TempDir>,
}

impl Running {
    /// CPU time of the processes, and the memory they hold.
    pub fn usage(&self) -> Usage {
        let ids = self.children.iter().filter_map(Child::id);
        ids.map(Usage::of)
            .fold(Usage::default(), |sum, one| Usage { cpu: sum.cpu + one.cpu, resident: sum.resident + one.resident })
    }
}

/// What processes have used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes.
    pub resident: u64,
}

impl Usage {
    /// Of a process and the processes it started.
    fn of(id: u32) -> Self {
        let own = crate::platform::process_usage(id).unwrap_or_default();
        let children = crate::platform::child_processes(id);
        children.into_iter().map(Self::of).fold(Self { cpu: own.0, resident: own.1 }, |sum, one| Self {
            cpu: sum.cpu + one.cpu,
            resident: sum.resident + one.resident,
        })
    }
}

/// The mock engine.
pub async fn mock() -> anyhow::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "mock"]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let out = child.stdout.take().context("the mock engine has no output")?;
    let line = tokio::time::timeout(START_WAIT, BufReader::new(out).lines().next_line()).await??;
    let address = line.context("the mock engine ended")?.parse()?;
    Ok(Running { address, children: vec![child], _folders: Vec::new() })
}

/// nginx with kept connections to the mock and nothing else; `None` where it is not installed.
pub async fn nginx(mock: SocketAddr) -> anyhow::Result<Option<Running>> {
    let folder = tempfile::tempdir()?;
    let address = free_address()?;
    let dir = folder.path().display();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};\n\
         keepalive_requests 1000000; upstream mock {{ server {mock}; keepalive 256; keepalive_requests 1000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}\n"
    );
    let path = folder.path().join("nginx.conf");
    std::fs::write(&path, config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&path).arg("-p").arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    wait_for(address).await.context("nginx")?;
    Ok(Some(Running { address, children: vec![child], _folders: vec![folder] }))
}

/// A node that has the mock as its backend.
pub async fn node(mock: SocketAddr) -> anyhow::Result<Running> {
    let (address, child, folder) =
        start_node(&format!("[[backends]]\nkind = \"openai\"\nurl = \"http://{mock}/v1\"\n"), None).await?;
    offers(address).await?;
    Ok(Running { address, children: vec![child], _folders: vec![folder] })
}

/// A node without backends that asks one that has the mock.
pub async fn two_nodes(mock: SocketAddr) -> anyhow::Result<Running> {
    let backend = format!("[[backends]]\nkind = \"openai\"\nurl = \"http://{mock}/v1\"\n");
    let (_, provider, provider_folder) = start_node(&backend, None).await?;
    let code = invite(provider_folder.path()).await?;
    let (address, asker, asker_folder) = start_node("", Some(&code)).await?;
    offers(address).await?;
    Ok(Running { address, children: vec![asker, provider], _folders: vec![asker_folder, provider_folder] })
}

async fn start_node(config: &str, code: Option<&str>) -> anyhow::Result<(SocketAddr, Child, TempDir)> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("atmo.toml"), format!("{config}\n[limits]\napi_requests = 4096\nmesh_requests = 4096\n"))?;
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["up", "--no-discover", "--no-builtin", "--no-mdns", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    command.arg("--api").arg(address.to_string()).arg("--data-dir").arg(folder.path());
    code.iter().for_each(|code| _ = command.args(["--join", code]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn()?;
    wait_for(address).await.context("a node")?;
    Ok((address, child, folder))
}

async fn invite(folder: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["invite", "--json", "--data-dir"]).arg(folder).stdin(Stdio::null());
    let output = tokio::time::timeout(START_WAIT, command.output()).await??;
    let invite: Value = serde_json::from_slice(&output.stdout).context("no invitation")?;
    Ok(invite["code"].as_str().context("no invitation")?.to_owned())
}

/// Waits until something is offered there.
async fn offers(address: SocketAddr) -> anyhow::Result<()> {
    let looking = async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        loop {
            let ready = client.get(format!("http://{address}/ready")).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(START_WAIT, looking).await.context("the mock engine is not offered")?
}

async fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    let looking = async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(START_WAIT, looking).await.context("does not listen")
}

/// A port that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
