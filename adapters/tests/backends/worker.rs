//! The built-in engine as it really is: a child process with llama.cpp and the tiny model in it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use atmo_adapters::conformance::{Expected, body, call, chat, conforms, execute};
use atmo_adapters::llama_cpp::{BUILT_IN_NAME, GgufModel, LlamaCpp, LlamaCppConfig, WorkerCommand, model_file};
use atmo_adapters::{Backend, BackendError, Call, Health, Operation, Reply};
use atmo_protocol::Slug;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::harness::cases;

/// The first argument that turns this executable into the worker, into a node to be killed, and into a stop-watch.
pub const WORKER: &str = "worker";
pub const NODE: &str = "be-a-node";
pub const MEASURE: &str = "measure";

const TINY: Expected<'static> = Expected { chat_slug: BUILT_IN_NAME, kind: "llm" };
/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(10);

cases![
    the_built_in_engine_conforms,
    many_streams_share_one_worker,
    the_same_question_has_the_same_answer,
    a_user_cannot_write_control_tokens,
    stop_strings_limits_and_completions,
    what_cannot_be_done_is_refused_by_name,
    a_prompt_that_does_not_fit_is_refused,
    cancelling_frees_the_slot,
    a_crash_costs_its_requests_and_nothing_else,
    crashing_again_and_again_is_down_with_the_signal_and_comes_back,
    a_stopped_worker_is_replaced,
    an_idle_worker_is_ended,
    shutting_down_ends_the_worker,
    a_killed_node_leaves_no_worker,
    a_changed_model_file_never_reaches_the_worker,
];

fn config() -> LlamaCppConfig {
    let program = std::env::current_exe().expect("the test knows its executable");
    LlamaCppConfig::built_in(WorkerCommand { program, args: vec![WORKER.into()] })
}

fn engine() -> LlamaCpp {
    LlamaCpp::new(config())
}

fn asking(text: &str, more: Value) -> Call {
    let mut fields = json!({"messages": [{"role": "user", "content": text}]});
    fields.as_object_mut().expect("it is an object").extend(more.as_object().expect("it is an object").clone());
    chat(TINY, fields)
}

/// A request that runs until it is stopped or the context is full.
fn endless() -> Call {
    asking("Tell me about streaming.", json!({"stream": true, "max_tokens": 900, "temperature": 2.0, "frequency_penalty": -2.0}))
}

async fn answer(engine: &LlamaCpp, call: Call) -> Value {
    let reply = execute(engine, call).await;
    assert_eq!(reply.status, 200);
    serde_json::from_slice(&body(reply).await).expect("an answer is JSON")
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("an answer has text")
}

async fn refused(engine: &LlamaCpp, call: Call) -> Value {
    let reply = execute(engine, call).await;
    assert_eq!(reply.status, 400);
    let answer: Value = serde_json::from_slice(&body(reply).await).expect("a refusal is JSON");
    answer["error"].clone()
}

async fn first_chunk(reply: &mut Reply) {
    let chunk = tokio::time::timeout(PATIENCE, reply.chunks.next()).await.expect("the first chunk comes in time");
    chunk.expect("there is one").expect("it is no error");
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "it did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: the process is a worker that this test started.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0, "the worker {pid} is there");
}

/// Whether the process lives; a zombie does not.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn the_built_in_engine_conforms() {
    let engine = engine();
    assert_eq!(engine.worker_pid(), None, "no worker before the first request");
    conforms(&engine, TINY).await;
    assert!(engine.worker_pid().is_some());
    engine.shut_down().await;
}

async fn many_streams_share_one_worker() {
    let engine = engine();
    let calls = (0..12).map(|i| answer(&engine, asking(["What is a peer?", "Who are you?", "What is 2 + 3?"][i % 3], json!({}))));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| !text(answer).is_empty()));
    assert_eq!(text(&answers[2]), text(&answers[5]), "the same sum has the same result");
    engine.shut_down().await;
}

async fn the_same_question_has_the_same_answer() {
    let engine = LlamaCpp::new(LlamaCppConfig { slots: 1, ..config() });
    let ask = async |more: Value| text(&answer(&engine, asking("What is a mesh?", more)).await).to_owned();
    let plain = ask(json!({})).await;
    assert!(plain.to_lowercase().contains("mesh"), "{plain}");
    assert_eq!(plain, ask(json!({})).await);
    let warm = json!({"temperature": 1.5, "seed": 7, "top_p": 0.95});
    assert_eq!(ask(warm.clone()).await, ask(warm).await, "a seed makes chance repeatable");
    engine.shut_down().await;
}

async fn a_user_cannot_write_control_tokens() {
    let engine = engine();
    let tokens = async |content: String| {
        let answer = answer(&engine, asking(&content, json!({"max_tokens": 1}))).await;
        answer["usage"]["prompt_tokens"].as_u64().expect("usage is a number")
    };
    let (none, ten) = (tokens("hi".into()).await, tokens(format!("hi{}", "<|im_end|>".repeat(10))).await);
    assert!(ten >= none + 30, "ten control tokens would be ten tokens more, not {}", ten - none);
    engine.shut_down().await;
}

async fn stop_strings_limits_and_completions() {
    let engine = engine();
    let whole = answer(&engine, asking("What is a mesh?", json!({}))).await;
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let stop = text(&whole).split(' ').nth(2).expect("it says more than two words").to_owned();
    let stopped = answer(&engine, asking("What is a mesh?", json!({"stop": [stop]}))).await;
    assert_eq!(text(&stopped), text(&whole).split(&stop).next().expect("there is a first part"));
    let short = answer(&engine, asking("What is a mesh?", json!({"max_tokens": 2}))).await;
    assert_eq!((&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]), (&json!("length"), &json!(2)));
    let completion =
        Call { operation: Operation::Complete, body: r#"{"prompt":"A mesh is","max_tokens":5}"#.into(), ..chat(TINY, json!({})) };
    let completed = answer(&engine, completion).await;
    assert_eq!((&completed["object"], completed["choices"][0]["text"].is_string()), (&json!("text_completion"), true));
    engine.shut_down().await;
}

async fn what_cannot_be_done_is_refused_by_name() {
    let engine = engine();
    let error = refused(&engine, asking("hi", json!({"tools": [{"type": "function"}]}))).await;
    assert_eq!((&error["param"], &error["type"]), (&json!("tools"), &json!("invalid_request_error")));
    let embed = Call { operation: Operation::Embed, body: r#"{"input":"x"}"#.into(), ..chat(TINY, json!({})) };
    assert!(
        refused(&engine, embed).await["message"].as_str().is_some_and(|message| message.contains("chats and completions alone"))
    );
    assert_eq!(engine.worker_pid(), None, "none of this needs a worker");
}

async fn a_prompt_that_does_not_fit_is_refused() {
    let engine = engine();
    for long in ["word ".repeat(2_000), "x".repeat(1 << 20)] {
        assert_eq!(refused(&engine, asking(&long, json!({}))).await["code"], "context_length_exceeded");
    }
    assert!(!text(&answer(&engine, asking("hi", json!({}))).await).is_empty());
    engine.shut_down().await;
}

async fn cancelling_frees_the_slot() {
    let engine = LlamaCpp::new(LlamaCppConfig { slots: 1, ..config() });
    let mut running = execute(&engine, endless()).await;
    first_chunk(&mut running).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(execute(&engine, endless()).await);
    }
    drop(waiting);
    drop(running);
    let start = Instant::now();
    assert!(!text(&answer(&engine, asking("hi", json!({}))).await).is_empty());
    let took = start.elapsed();
    println!("    answered {took:?} after four endless requests were dropped");
    assert!(took < Duration::from_millis(500), "{took:?}");
    engine.shut_down().await;
}

async fn a_crash_costs_its_requests_and_nothing_else() {
    let engine = engine();
    let mut running = execute(&engine, endless()).await;
    first_chunk(&mut running).await;
    let pid = engine.worker_pid().expect("it runs");
    signal(pid, libc::SIGSTOP);
    let before_the_first_byte = execute(&engine, asking("hi", json!({"stream": true})));
    tokio::select! {
        _ = before_the_first_byte => panic!("a stopped worker accepts nothing"),
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
    let unanswered = engine.execute(asking("hi", json!({})));
    let crash = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        signal(pid, libc::SIGABRT);
        signal(pid, libc::SIGCONT);
    };
    let (outcome, ()) = tokio::join!(unanswered, crash);
    assert!(matches!(&outcome, Err(BackendError::Failed { cause, .. }) if cause.contains("SIGABRT")), "{outcome:?}");
    let rest: Vec<_> = running.chunks.collect().await;
    assert!(matches!(rest.last(), Some(Err(BackendError::Failed { .. }))), "{rest:?}");
    let told = rest.iter().filter_map(|chunk| chunk.as_ref().ok()).next_back().expect("the client is told in the stream");
    assert!(String::from_utf8_lossy(told).contains("backend_failed"), "{told:?}");
    assert!(matches!(engine.health().await, Health::Degraded(why) if why.contains("SIGABRT")));
    assert!(!text(&answer(&engine, asking("hi", json!({}))).await).is_empty(), "the next request finds a new worker");
    assert_ne!(engine.worker_pid(), Some(pid));
    engine.shut_down().await;
}

async fn crashing_again_and_again_is_down_with_the_signal_and_comes_back() {
    let engine = engine();
    for crash in 0..3 {
        let end = Instant::now() + PATIENCE;
        // Between crashes requests are refused at once, not held.
        while engine.execute(asking("hi", json!({}))).await.is_err() {
            assert!(Instant::now() < end, "it starts again after crash {crash}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let pid = engine.worker_pid().expect("it answered");
        signal(pid, libc::SIGILL);
        until("the crash is noticed", || engine.worker_pid() != Some(pid)).await;
    }
    let health = engine.health().await;
    assert!(
        matches!(&health, Health::Down(why) if why.contains("SIGILL") && why.contains("AVX2") && why.contains("3 times")),
        "{health:?}"
    );
    let start = Instant::now();
    assert!(engine.execute(asking("hi", json!({}))).await.is_err());
    assert!(start.elapsed() < Duration::from_millis(200), "a request does not wait for a long back-off");
    // Only a request starts it again, so once it may start it must be on offer again.
    let end = Instant::now() + PATIENCE;
    while !matches!(engine.health().await, Health::Degraded(why) if why.contains("with the next request")) {
        assert!(Instant::now() < end, "it is no longer down when its wait is over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!text(&answer(&engine, asking("hi", json!({}))).await).is_empty());
    engine.shut_down().await;
}

async fn a_stopped_worker_is_replaced() {
    let engine = engine();
    answer(&engine, asking("hi", json!({}))).await;
    let pid = engine.worker_pid().expect("it runs");
    signal(pid, libc::SIGSTOP);
    let outcome = tokio::time::timeout(PATIENCE, engine.execute(asking("hi", json!({})))).await;
    let outcome = outcome.expect("a request does not wait for ever");
    assert!(matches!(&outcome, Err(BackendError::Failed { cause, .. }) if cause.contains("did not answer")), "{outcome:?}");
    until("the stopped worker is gone", || !lives(pid)).await;
    let end = Instant::now() + PATIENCE;
    while engine.execute(asking("hi", json!({}))).await.is_err() {
        assert!(Instant::now() < end, "a new worker takes its place");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    engine.shut_down().await;
}

async fn an_idle_worker_is_ended() {
    let engine = LlamaCpp::new(LlamaCppConfig { idle_unload: Duration::from_millis(300), ..config() });
    answer(&engine, asking("hi", json!({}))).await;
    let pid = engine.worker_pid().expect("it runs");
    until("the idle worker is ended", || engine.worker_pid().is_none() && !lives(pid)).await;
    assert_eq!(engine.health().await, Health::Up, "ending an idle worker is no failure");
    answer(&engine, asking("hi", json!({}))).await;
    engine.shut_down().await;
}

async fn shutting_down_ends_the_worker() {
    let engine = engine();
    let mut running = execute(&engine, endless()).await;
    first_chunk(&mut running).await;
    let pid = engine.worker_pid().expect("it runs");
    engine.shut_down().await;
    assert!(!lives(pid));
    assert!(engine.execute(asking("hi", json!({}))).await.is_err());

    // A backend that is merely dropped leaves nothing behind either.
    let engine = self::engine();
    answer(&engine, asking("hi", json!({}))).await;
    let pid = engine.worker_pid().expect("it runs");
    drop(engine);
    until("the worker of a dropped backend is gone", || !lives(pid)).await;
}

/// Started by the next test: uses the engine, says its worker's process, and waits to be killed.
pub fn be_a_node() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let engine = engine();
        let mut running = execute(&engine, endless()).await;
        first_chunk(&mut running).await;
        println!("{}", engine.worker_pid().expect("it runs"));
        std::io::stdout().flush().expect("the test listens");
        tokio::time::sleep(PATIENCE).await;
    });
    ExitCode::FAILURE
}

async fn a_killed_node_leaves_no_worker() {
    kill_a_node(|_| {}).await;
    // A worker that is stuck does not see its input end; the kernel takes it along all the same.
    kill_a_node(|worker| signal(worker, libc::SIGSTOP)).await;
}

async fn kill_a_node(before: impl FnOnce(u32)) {
    let program = std::env::current_exe().expect("the test knows its executable");
    let mut node = Command::new(program).arg(NODE).stdout(Stdio::piped()).spawn().expect("the node starts");
    let mut line = String::new();
    BufReader::new(node.stdout.take().expect("it is piped")).read_line(&mut line).expect("the node speaks");
    let worker: u32 = line.trim().parse().expect("it says a process id");
    assert!(lives(worker));
    before(worker);
    node.kill().expect("the node is there");
    node.wait().expect("it ends");
    until("the worker follows its node", || !lives(worker)).await;
}

async fn a_changed_model_file_never_reaches_the_worker() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("atmo tiny.gguf");
    std::fs::write(&path, model_file::BUILT_IN).expect("the folder is writable");
    let model = GgufModel::import(&path).expect("it is a model");
    let engine = LlamaCpp::new(LlamaCppConfig { context: 512, ..LlamaCppConfig::file("file", model, config().worker) });
    let offer = engine.describe().await.expect("the header is readable").offers.remove(0);
    assert_eq!((offer.slug.as_str(), offer.body.name.as_str()), ("atmo-tiny", "atmo tiny"));
    // With its own template, cut at marks, it answers as with ChatML.
    let asked = asking("What is a mesh?", json!({"temperature": 0}));
    assert!(text(&answer(&engine, asked).await).to_lowercase().contains("mesh"));
    engine.shut_down().await;

    let model = GgufModel { blake3: GgufModel::import(&path).expect("it is a model").blake3, path: path.clone() };
    let engine = LlamaCpp::new(LlamaCppConfig::file("file", model, config().worker));
    std::fs::write(&path, &model_file::BUILT_IN[..1 << 20]).expect("the folder is writable");
    let slug = Slug::from_name("atmo tiny");
    let outcome = engine.execute(call(slug, json!({"messages": [{"role": "user", "content": "hi"}]}))).await;
    assert!(matches!(&outcome, Err(BackendError::Failed { cause, .. }) if cause.contains("truncated")), "{outcome:?}");
    assert!(matches!(engine.describe().await, Err(BackendError::Failed { .. })));
    assert_eq!(engine.worker_pid(), None);
}

/// `cargo test --release -p atmo-adapters --test backends -- measure`: how fast the worker is here.
pub fn measure() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let mut firsts = Vec::new();
        for _ in 0..10 {
            let (engine, start) = (engine(), Instant::now());
            let mut reply = execute(&engine, asking("What is a peer?", json!({"stream": true}))).await;
            first_chunk(&mut reply).await;
            firsts.push(start.elapsed());
            engine.shut_down().await;
        }
        firsts.sort();
        println!("spawn to first token: p50 {:?}, max {:?}", firsts[firsts.len() / 2], firsts[firsts.len() - 1]);
        for streams in [1, 4] {
            measure_streams(streams).await;
        }
    });
    ExitCode::SUCCESS
}

async fn measure_streams(streams: usize) {
    let engine = engine();
    answer(&engine, asking("hi", json!({}))).await;
    let pid = engine.worker_pid().expect("it runs");
    let (start, before) = (Instant::now(), cpu_ms(pid));
    let counts = futures::future::join_all((0..streams).map(|_| tokens_of_many(&engine))).await;
    let tokens: u64 = counts.iter().sum();
    let (cpu, wall) = ((cpu_ms(pid) - before) as f64, start.elapsed().as_secs_f64());
    println!(
        "{streams} streams: {tokens} tokens, {:.3} ms of CPU per token, {:.0} tokens/s",
        cpu / tokens as f64,
        tokens as f64 / wall
    );
    println!("worker: {} MB resident", resident_mb(pid));
    engine.shut_down().await;
}

/// Tokens of a hundred greedy answers, one after the other; their prompts count for nothing, though they cost.
async fn tokens_of_many(engine: &LlamaCpp) -> u64 {
    let mut tokens = 0;
    for _ in 0..100 {
        let answer = answer(engine, asking("Tell me about streaming.", json!({}))).await;
        tokens += answer["usage"]["completion_tokens"].as_u64().unwrap_or(0);
    }
    tokens
}

/// User and system time of a process.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks * 10
}

fn resident_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_or(0, |kilobytes: u64| kilobytes >> 10)
}
