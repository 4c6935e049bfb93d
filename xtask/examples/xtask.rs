//! `cargo xtask`: the chores of the repository.

use std::io::Write as _;

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
    /// Measures; release builds, and a machine that does nothing else.
    Bench {
        #[command(subcommand)]
        bench: Bench,
    },
    /// Looks for octets that break a decoder or a machine.
    Fuzz {
        /// What to fuzz; without it, the targets are named.
        target: Option<String>,
        /// For how long.
        #[arg(default_value_t = 60)]
        seconds: u32,
        /// Add the least that reaches as much to the committed corpus.
        #[arg(long)]
        keep: bool,
    },
    /// The rules no compiler knows: edges, purity, sizes, papers.
    Tidy,
}

#[derive(Subcommand)]
enum Bench {
    /// BGP daemons side by side: `cargo xtask bench bgp --help`.
    #[command(disable_help_flag = true)]
    Bgp {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// HTTP proxies side by side: `cargo xtask bench proxy --help`.
    #[command(disable_help_flag = true)]
    Proxy {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Ways to carry streams, side by side: `cargo xtask bench tunnel --help`.
    #[command(disable_help_flag = true)]
    Tunnel {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Bench {
            bench: Bench::Bgp { arguments },
        } => xtask::bench("bgp", &arguments),
        Chore::Bench {
            bench: Bench::Proxy { arguments },
        } => xtask::bench("proxy", &arguments),
        Chore::Bench {
            bench: Bench::Tunnel { arguments },
        } => xtask::bench("tunnel", &arguments),
        Chore::Ci => xtask::ci(),
        Chore::Fuzz {
            target: None,
            seconds: _,
            keep: _,
        } => {
            for target in xtask::fuzz_targets()? {
                writeln!(std::io::stdout(), "{target}")?;
            }
            Ok(())
        }
        Chore::Fuzz {
            target: Some(target),
            seconds,
            keep,
        } => xtask::fuzz(&target, seconds, keep),
        Chore::Tidy => xtask::tidy_or_fail(),
    }
}
