//! Every backend against its engine: servers as hand-written mocks, llama.cpp as it really is.
//!
//! The test executable has a harness of its own, because it is also the worker process that it starts, and a node that is killed.

use std::process::ExitCode;

#[path = "backends/discovery.rs"]
mod discovery;
#[path = "backends/harness.rs"]
mod harness;
#[path = "backends/mock.rs"]
mod mock;
#[path = "backends/servers.rs"]
mod servers;
#[cfg(feature = "llama-cpp")]
#[path = "backends/worker.rs"]
mod worker;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    #[cfg(feature = "llama-cpp")]
    match args.first().map(String::as_str) {
        Some(worker::WORKER) => {
            let code = atmo_adapters::llama_cpp::worker::run(args.into_iter().skip(1));
            return ExitCode::from(code as u8);
        }
        Some(worker::NODE) => return worker::be_a_node(),
        Some(worker::MEASURE) => return worker::measure(),
        _ => {}
    }
    let mut cases = servers::cases();
    cases.extend(discovery::cases());
    #[cfg(feature = "llama-cpp")]
    cases.extend(worker::cases());
    harness::run(&cases, &args)
}
