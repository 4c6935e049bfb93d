//! `cargo xtask bench proxy`: HTTP proxies side by side.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    bench_proxy::run(&bench_proxy::Arguments::parse())
}
