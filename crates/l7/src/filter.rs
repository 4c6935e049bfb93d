//! What a route does with a request and its response on the way.

mod cors;
mod headers;
mod url;

use std::{sync::Arc, time::Duration};

use base::Rng;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::Cluster;

pub use cors::{Cors, Origin, OriginError};
pub use headers::HeaderEdits;
pub use url::{NewPath, Redirect, Rewrite};

/// What a route does beside forwarding. The default does nothing.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Headers on the way to the endpoint.
    pub request: HeaderEdits,
    /// Headers on the way to the client.
    pub response: HeaderEdits,
    /// Host and path as the endpoint sees them.
    pub rewrite: Rewrite,
    /// Who gets copies.
    pub mirrors: Vec<Mirror>,
    /// Which foreign pages may read the answers.
    pub cors: Option<Cors>,
    /// Some wait before anything else.
    pub delay: Option<Delay>,
    /// Some are answered by a status.
    pub abort: Option<Abort>,
}

/// Of so many in a hundred; 100 and more: all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl Percent {
    /// Is it this one?
    #[must_use]
    pub fn is_drawn(self, rng: &mut Rng) -> bool {
        self.0 >= 100 || rng.below(100) < u64::from(self.0)
    }
}

/// A copy of the request; its answer is thrown away.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where it goes.
    pub cluster: Arc<Cluster>,
    /// Of how many.
    pub percent: Percent,
}

/// Requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// So long.
    pub duration: Duration,
    /// So many.
    pub percent: Percent,
}

/// Requests that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// With this.
    pub status: StatusCode,
    /// So many.
    pub percent: Percent,
}

/// An answer without asking anybody.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// Its status.
    pub status: StatusCode,
    /// What it is, if it has a body.
    pub content_type: HeaderValue,
    /// Its body.
    pub body: Bytes,
}
