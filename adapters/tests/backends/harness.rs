//! A small test harness that speaks as much of libtest's command line as `cargo test` and nextest use.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// No test takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

pub type Case = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// Names async functions as tests.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The tests of this file.
        pub fn cases() -> Vec<crate::harness::Case> {
            vec![$((stringify!($name), || Box::pin($name()))),*]
        }
    };
}
pub(crate) use cases;

pub fn run(cases: &[Case], args: &[String]) -> ExitCode {
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        if !has("--ignored") {
            cases.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| if has("--exact") { name == *filter } else { name.contains(*filter) })
    };
    let chosen: Vec<&Case> = cases.iter().filter(|(name, _)| wanted(name)).collect();
    println!("\nrunning {} tests", chosen.len());
    let failed = chosen.iter().filter(|case| !passes(case)).count();
    println!("\ntest result: {}. {} passed; {failed} failed\n", if failed == 0 { "ok" } else { "FAILED" }, chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes((name, test): &Case) -> bool {
    let (start, test) = (Instant::now(), *test);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    let outcome = runtime.block_on(async { tokio::time::timeout(TIMEOUT, tokio::spawn(test())).await });
    runtime.shutdown_timeout(Duration::from_secs(2));
    let passed = matches!(outcome, Ok(Ok(())));
    println!("test {name} ... {} ({:.2} s)", if passed { "ok" } else { "FAILED" }, start.elapsed().as_secs_f32());
    passed
}
