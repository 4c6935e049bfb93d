//! The chores of the repository, as a library so that the tests run them too.
//!
//! What it is: [`ci`] runs every check a change must pass, in the order of their cost; [`tidy()`]
//! checks what no compiler knows: the allowed edges between rooms, the purity of engines, the
//! sizes of functions and files, forbidden attributes, and that every dependency has its
//! sentence. The rules are read from `docs/architecture.md`, so the paper and the check cannot
//! disagree. [`bench()`] and [`fuzz`] build and start programs of their own.
//!
//! What it is not: a build system. `cargo run --release -- up` and `cargo test --release` need
//! nothing of it.
//!
//! The way of data: `cargo metadata` and the files of the working tree → [`Tree`] → one pass of
//! each rule → a [`Report`] of violations (which fail) and notes (which do not).
//!
//! ```no_run
//! let report = xtask::tidy(&xtask::Tree::read()?)?;
//! assert!(report.violations.is_empty(), "{report}");
//! # anyhow::Ok(())
//! ```

mod bench;
mod ci;
mod fuzz;
mod tidy;
mod tree;

pub use bench::bench;
pub use ci::ci;
pub use fuzz::{fuzz, fuzz_targets};
pub use tidy::{Report, tidy, tidy_or_fail};
pub use tree::{Dependency, Package, Source, Tree};
