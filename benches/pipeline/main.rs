//! What a cycle and a scrape cost, and how that grows with the node.
//!
//! Times are criterion's; allocations, which do not depend on the machine, stand before each of them.

#![expect(clippy::unwrap_used, reason = "a bench that cannot begin has nothing to tell")]

mod allocations;
mod counted;
mod cycle;
mod node;
mod parse;
mod render;
mod scrape;

use criterion::Criterion;

fn main() {
    if counted::run() {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    cycle::benches(&mut criterion);
    render::benches(&mut criterion);
    parse::benches(&mut criterion);
    criterion.final_summary();
    scrape::tell();
}
