//! proxy
#![expect(missing_docs, dead_code, unused_imports)]
mod http1;
mod io;
pub use io::{BoxDuplex, Duplex};
