//! Cost of collection cycles and scrapes, and how it grows with the size of the node.
//!
//! Criterion measures times. Allocations, which do not depend on the machine, are printed before each benchmark.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod allocations;
mod cycle;
mod fixed_workload;
mod node;
mod parse;
mod render;
mod scrape;

use criterion::Criterion;

fn main() {
    if fixed_workload::run() {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    cycle::benches(&mut criterion);
    render::benches(&mut criterion);
    parse::benches(&mut criterion);
    criterion.final_summary();
    scrape::report();
}
