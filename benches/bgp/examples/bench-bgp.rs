//! `cargo xtask bench bgp`: BGP daemons side by side.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    bench_bgp::run(&bench_bgp::Arguments::parse())
}
