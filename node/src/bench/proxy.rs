//! `atmo bench proxy`: the latency, CPU and memory that a node puts between a client and an engine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::{Connection, Streamed};
use super::processes::{self, Running};

/// Requests at once, in turn.
pub const CONCURRENCIES: [usize; 4] = [1, 8, 16, 64];
const SLOW_PAUSE: Duration = Duration::from_millis(200);
/// Memory that is no longer needed is looked at after this time.
const SETTLE: Duration = Duration::from_secs(4);
/// Requests before anything is measured.
const WARM_UP: usize = 200;

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rounds: usize,
    /// Requests of each way and concurrency in a round.
    pub requests: usize,
    /// Streams at once for the memory and the jitter of many slow ones; 0 leaves them out.
    pub slow_streams: usize,
    /// A mock engine that runs already; otherwise one is started.
    pub mock: Option<SocketAddr>,
    /// Other proxies before that mock, with their names; nothing is known of their CPU and memory.
    pub beside: Vec<(String, SocketAddr)>,
}

/// One way from the client to the engine.
struct Way {
    name: String,
    address: SocketAddr,
    /// `None` for the way without anything in between.
    between: Option<Running>,
    runs: Vec<Run>,
    streams: Vec<Streamed>,
}

/// All rounds at one concurrency.
#[derive(Default)]
struct Run {
    took: Vec<Duration>,
    elapsed: Duration,
    cpu: Duration,
}

/// Measures all ways; `progress` is told what is being done.
pub async fn measure(plan: Plan, progress: impl Fn(&str)) -> anyhow::Result<Value> {
    progress("starting a mock engine, nginx, one node, two nodes");
    let started = if plan.mock.is_none() { Some(processes::mock().await?) } else { None };
    let mock = plan.mock.or(started.as_ref().map(|mock| mock.address)).context("there is no mock engine")?;
    let mut ways = vec![Way::new("direct", mock, None)];
    if let Some(nginx) = processes::nginx(mock).await? {
        ways.push(Way::new("nginx", nginx.address, Some(nginx)));
    }
    for (name, running) in [("node", processes::node(mock).await?), ("two nodes", processes::two_nodes(mock).await?)] {
        ways.push(Way::new(name, running.address, Some(running)));
    }
    ways.extend(plan.beside.iter().map(|(name, address)| Way::new(name, *address, None)));
    for way in &ways {
        requests(way.address, 8, WARM_UP).await?;
    }
    let idle: Vec<u64> = ways.iter().map(Way::resident).collect();
    for round in 0..plan.rounds {
        progress(&format!("round {} of {}", round + 1, plan.rounds));
        for (place, concurrency) in CONCURRENCIES.into_iter().enumerate() {
            for way in &mut ways {
                way.run(place, concurrency, plan.requests).await?;
            }
        }
        for way in &mut ways {
            let mut connection = Connection::open(way.address, true, Duration::from_micros(500)).await?;
            for _ in 0..plan.requests.div_ceil(50) {
                way.streams.push(connection.stream().await?);
            }
        }
    }
    let plateau: Vec<u64> = ways.iter().map(Way::resident).collect();
    let mut slow = Vec::new();
    for way in ways.iter().filter(|_| plan.slow_streams > 0) {
        progress(&format!("{} slow streams at once: {}", plan.slow_streams, way.name));
        slow.push(slow_streams(way, plan.slow_streams).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let reports = ways.iter().enumerate().map(|(place, way)| {
        let memory = json!({ "idle_bytes": idle[place], "plateau_bytes": plateau[place], "after_bytes": way.resident() });
        way.report(&ways[0], memory, slow.get(place).cloned())
    });
    Ok(json!({ "rounds": plan.rounds, "requests_per_round": plan.requests, "ways": reports.collect::<Vec<_>>() }))
}

impl Way {
    fn new(name: &str, address: SocketAddr, between: Option<Running>) -> Self {
        Self { name: name.to_owned(), address, between, runs: CONCURRENCIES.map(|_| Run::default()).into(), streams: Vec::new() }
    }

    fn resident(&self) -> u64 {
        self.between.as_ref().map_or(0, |running| running.usage().resident)
    }

    fn cpu(&self) -> Duration {
        self.between.as_ref().map_or(Duration::ZERO, |running| running.usage().cpu)
    }

    async fn run(&mut self, place: usize, concurrency: usize, count: usize) -> anyhow::Result<()> {
        let (cpu, since) = (self.cpu(), Instant::now());
        let took = requests(self.address, concurrency, count).await?;
        let (elapsed, cpu) = (since.elapsed(), self.cpu().saturating_sub(cpu));
        let run = &mut self.runs[place];
        run.took.extend(took);
        run.elapsed += elapsed;
        run.cpu += cpu;
        Ok(())
    }

    fn report(&self, direct: &Self, memory: Value, slow: Option<Value>) -> Value {
        let rows = CONCURRENCIES.iter().zip(self.runs.iter().zip(&direct.runs)).map(|(concurrency, (run, bare))| {
            let (p50, p99) = (percentile(&run.took, 50), percentile(&run.took, 99));
            json!({
                "concurrency": concurrency,
                "p50_us": micros(p50),
                "p99_us": micros(p99),
                "added_p50_us": micros(p50) - micros(percentile(&bare.took, 50)),
                "added_p99_us": micros(p99) - micros(percentile(&bare.took, 99)),
                "requests_per_second": (run.took.len() as f64 / run.elapsed.as_secs_f64()).round(),
                "cpu_us_per_request": (run.cpu.as_secs_f64() * 1e6 / run.took.len() as f64).round(),
            })
        });
        let first = |way: &Self| {
            let first: Vec<Duration> = way.streams.iter().map(|streamed| streamed.first).collect();
            micros(percentile(&first, 50))
        };
        let gap = |way: &Self, share| {
            let gaps: Vec<Duration> = way.streams.iter().flat_map(|streamed| streamed.gaps.iter().copied()).collect();
            micros(percentile(&gaps, share))
        };
        json!({
            "way": self.name,
            "requests": rows.collect::<Vec<_>>(),
            "first_token_us": first(self),
            "added_first_token_us": first(self) - first(direct),
            "gap_p50_us": gap(self, 50),
            "gap_p99_us": gap(self, 99),
            "tokens": self.streams.iter().map(|streamed| u64::from(streamed.tokens)).sum::<u64>(),
            "memory": memory,
            "slow_streams": slow,
        })
    }
}

/// Whole answers over `concurrency` connections, `count` in all.
async fn requests(address: SocketAddr, concurrency: usize, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut clients = JoinSet::new();
    for client in 0..concurrency {
        let own = count / concurrency + usize::from(client < count % concurrency);
        clients.spawn(async move {
            let mut connection = Connection::open(address, false, Duration::ZERO).await?;
            let mut took = Vec::with_capacity(own);
            for _ in 0..own {
                took.push(connection.ask().await?);
            }
            Ok::<_, std::io::Error>(took)
        });
    }
    let mut took = Vec::with_capacity(count);
    while let Some(one) = clients.join_next().await {
        took.extend(one??);
    }
    Ok(took)
}

/// Many streams with a pause of 200 ms between tokens, as a busy engine has it: the memory each takes, and how evenly their tokens come.
async fn slow_streams(way: &Way, count: usize) -> anyhow::Result<Value> {
    let before = way.resident();
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let address = way.address;
        clients.spawn(async move { Connection::open(address, true, SLOW_PAUSE).await?.stream().await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let during = way.resident();
    let (mut gaps, mut tokens) = (Vec::new(), 0u64);
    while let Some(streamed) = clients.join_next().await {
        let streamed = streamed??;
        tokens += u64::from(streamed.tokens);
        gaps.extend(streamed.gaps);
    }
    Ok(json!({
        "streams": count,
        "tokens": tokens,
        "tokens_expected": count as u64 * u64::from(super::mock::TOKENS),
        "bytes_per_stream": during.saturating_sub(before) / count as u64,
        "gap_p50_us": micros(percentile(&gaps, 50)),
        "gap_p99_us": micros(percentile(&gaps, 99)),
    }))
}

fn percentile(took: &[Duration], share: usize) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e7).round() / 10.0
}
