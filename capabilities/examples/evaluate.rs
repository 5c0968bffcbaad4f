//! Routes labelled sets (JSON files named as arguments) and prints one line for each: what `atmo route eval` says in full.

use atmo_capabilities::embed::rten::RtenEmbedder;
use atmo_capabilities::route::eval::evaluate;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let embedder = RtenEmbedder::load()?;
    println!("{:24} {:>5} {:>5} {:>8} {:>9} {:>8}", "set", "top-1", "top-3", "coverage", "precision", "unserved");
    for path in std::env::args().skip(1) {
        let (report, _) = evaluate(&std::fs::read_to_string(&path)?, &embedder, &|| 0)?;
        let name = path.rsplit('/').next().unwrap_or(&path);
        let unserved = format!("{}/{}", report.unserved.accepted, report.unserved.n);
        let [top1, top3, coverage, precision] = [report.top1, report.top3, report.coverage, report.precision];
        println!("{name:24} {top1:5.3} {top3:5.3} {coverage:8.3} {precision:9.3} {unserved:>8}");
    }
    Ok(())
}
