//! `cargo xtask`: the chores of the repository.

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of the repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything a change must pass: format, lints, tidy, tests, docs.
    Ci,
    /// The rules no compiler knows: edges, purity, sizes, papers.
    Tidy,
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Ci => xtask::ci(),
        Chore::Tidy => xtask::tidy_or_fail(),
    }
}
