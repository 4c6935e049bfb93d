//! The MESH family: the frame of its NLRI, its six route types, and types we do not know, which
//! pass through unread. `docs/protocol/mesh.md` says what every octet means.
//!
//! ```text
//! route type (1) | key length (2, 8…512) | value length (1) | key: RD (8) … | value …
//! ```

pub mod bytes;
mod facts;
mod key;
mod measure;
mod seq;
mod state;
mod value;

pub use facts::Facts;
pub use key::{
    Host, HttpMatch, Key, KeyError, PathKind, PathMatch, PathText, PolicySetId, Rd, TunnelId,
};
pub use measure::Measure;
pub use seq::Seq;
pub use state::State;
pub use value::{
    EndpointHealth, HttpTarget, LinkGrade, LinkHealth, PolicyReference, ServiceHealth, SiteHealth,
    Value, ValueError,
};

/// The longest key, RD included.
const MAX_KEY: usize = 512;
/// The RD that starts every key.
const RD_LEN: usize = 8;
