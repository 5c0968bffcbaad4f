//! `atmo bench`: measures on this machine, with nothing but itself and what is installed.

use std::net::SocketAddr;
use std::process::ExitCode;

use serde_json::Value;

use super::session::{Session, Stop};
use super::{BenchCommand, print};
use crate::bench::mock;
use crate::bench::proxy::{self, Plan};
use crate::control::CommandError;

pub async fn bench(session: &Session, command: BenchCommand) -> Result<ExitCode, Stop> {
    match command {
        BenchCommand::Mock => mock::serve().await?,
        BenchCommand::Proxy { rounds, requests, slow_streams, mock, beside } => {
            let plan =
                Plan { rounds: rounds as usize, requests: requests as usize, slow_streams: slow_streams as usize, mock, beside };
            let measured = proxy::measure(plan, print::aside).await;
            let measured = measured.map_err(|error| CommandError::failed(format!("{error:#}")))?;
            if session.json { print::json(&measured)? } else { print_ways(&measured)? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `litellm=127.0.0.1:4000`
pub fn beside(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("not NAME=HOST:PORT")?;
    Ok((name.to_owned(), address.parse().map_err(|_| format!("`{address}` is not HOST:PORT"))?))
}

fn print_ways(measured: &Value) -> Result<(), Stop> {
    let ways = measured["ways"].as_array().map_or(&[][..], Vec::as_slice);
    let head = ["WAY", "AT ONCE", "P50 us", "P99 us", "ADDED P50", "ADDED P99", "REQUESTS/S", "CPU us"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for way in ways {
        for row in way["requests"].as_array().into_iter().flatten() {
            let figures =
                ["concurrency", "p50_us", "p99_us", "added_p50_us", "added_p99_us", "requests_per_second", "cpu_us_per_request"];
            let mut line = vec![print::show(&way["way"])];
            line.extend(figures.map(|figure| rounded(&row[figure])));
            lines.push(line);
        }
    }
    print::line(&print::align(&lines))?;
    let head = [
        "WAY",
        "FIRST TOKEN us",
        "ADDED",
        "GAP P50 us",
        "GAP P99 us",
        "IDLE MiB",
        "BUSY MiB",
        "AFTER MiB",
        "KiB A STREAM",
        "GAP P99 us OF MANY",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for way in ways {
        let mib = |field: &str| format!("{:.1}", way["memory"][field].as_f64().unwrap_or(0.0) / (1 << 20) as f64);
        let slow = &way["slow_streams"];
        lines.push(vec![
            print::show(&way["way"]),
            rounded(&way["first_token_us"]),
            rounded(&way["added_first_token_us"]),
            rounded(&way["gap_p50_us"]),
            rounded(&way["gap_p99_us"]),
            mib("idle_bytes"),
            mib("plateau_bytes"),
            mib("after_bytes"),
            slow["bytes_per_stream"].as_f64().map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes / 1024.0)),
            rounded(&slow["gap_p99_us"]),
        ]);
    }
    Ok(print::line(&format!("\n{}", print::align(&lines)))?)
}

fn rounded(figure: &Value) -> String {
    figure.as_f64().map_or_else(|| "-".to_owned(), |figure| format!("{figure:.0}"))
}
