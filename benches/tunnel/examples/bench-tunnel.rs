//! `cargo xtask bench tunnel`: ways to carry streams, side by side.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    bench_tunnel::run(&bench_tunnel::Arguments::parse())
}
