//! Values: the volatile state carried in an NLRI beside its key.

mod endpoint;
mod http_route;
mod link;
mod policy;
mod service;
mod site;

use std::{fmt, sync::Arc};

use super::{Key, Seq, State};
use crate::cursor::len8;

pub use endpoint::EndpointHealth;
pub use http_route::HttpTarget;
pub use link::{LinkGrade, LinkHealth};
pub use policy::PolicyReference;
pub use service::ServiceHealth;
pub use site::SiteHealth;

/// Why octets are not a value of their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Ends before its last field, or is over 255 octets.
    #[error("the value has {0} octets")]
    Length(usize),
    /// A state number that is not defined.
    #[error("state {0} is not defined")]
    State(u8),
}

const INLINE: usize = 22;

#[derive(Clone)]
enum Octets {
    Inline(u8, [u8; INLINE]),
    Heap(Arc<[u8]>),
}

/// A value exactly as received, so that it is passed on unchanged, trailing octets included; at
/// most 255 octets, without an allocation up to 22.
#[derive(Clone)]
pub struct Value(Octets);

impl Value {
    /// The version of the head this node writes.
    pub const VERSION: u8 = 0;

    /// The value of a Site route.
    #[must_use]
    pub fn site(health: &SiteHealth) -> Value {
        health.encode()
    }

    /// The value of a Service-at-site route.
    #[must_use]
    pub fn service(health: &ServiceHealth) -> Value {
        health.encode()
    }

    /// The value of an Endpoint route.
    #[must_use]
    pub fn endpoint(health: &EndpointHealth) -> Value {
        health.encode()
    }

    /// The value of an HTTP route.
    #[must_use]
    pub fn http_route(target: &HttpTarget) -> Value {
        target.encode()
    }

    /// The value of a policy reference.
    #[must_use]
    pub fn policy(reference: &PolicyReference) -> Value {
        reference.encode()
    }

    /// The value of a Link route.
    #[must_use]
    pub fn link(health: &LinkHealth) -> Value {
        health.encode()
    }

    /// The fields one after the other.
    fn of(fields: &[&[u8]]) -> Value {
        let len = fields.iter().map(|field| field.len()).sum();
        if len > INLINE {
            return Value(Octets::Heap(fields.concat().into()));
        }
        let mut all = [0; INLINE];
        let mut rest = &mut all[..];
        for field in fields {
            let (to, tail) = rest.split_at_mut(field.len());
            to.copy_from_slice(field);
            rest = tail;
        }
        Value(Octets::Inline(len8(len), all))
    }

    /// Judge the octets that came with `key`; of an unknown type any octets are good.
    ///
    /// # Errors
    /// What is wrong with them; such a route is treated as withdrawn.
    pub fn decode(key: &Key, octets: &[u8]) -> Result<Value, ValueError> {
        let least = match key {
            Key::Site { .. } => Some(SiteHealth::LEN),
            Key::Service { .. } => Some(ServiceHealth::LEN),
            Key::Endpoint { .. } => Some(EndpointHealth::LEN),
            Key::HttpRoute { .. } => Some(HttpTarget::LEN),
            Key::Policy { .. } => Some(PolicyReference::LEN),
            Key::Link { .. } => Some(LinkHealth::LEN),
            Key::Unknown { .. } => None,
        };
        let bad_length = ValueError::Length(octets.len());
        if octets.len() > usize::from(u8::MAX) {
            return Err(bad_length);
        }
        if let Some(least) = least {
            let head = octets.first().filter(|_| octets.len() >= least);
            let head = head.ok_or(bad_length)?;
            State::in_head(*head).ok_or(ValueError::State(head & 0xF))?;
        }
        if octets.len() > INLINE {
            return Ok(Value(Octets::Heap(octets.into())));
        }
        Ok(Value::of(&[octets]))
    }

    /// The octets on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Octets::Inline(len, all) => &all[..usize::from(*len)],
            Octets::Heap(all) => all,
        }
    }

    /// The head's version (0…15) if there is a head.
    #[must_use]
    pub fn version(&self) -> Option<u8> {
        self.as_bytes().first().map(|b| b >> 4)
    }

    /// The state in the head; `None` if there is no head or its number is not defined.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.as_bytes().first().and_then(|b| State::in_head(*b))
    }

    /// Read as the value of a Site route; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_site(&self) -> Option<SiteHealth> {
        SiteHealth::decode(self.as_bytes())
    }

    /// Read as the value of a Service-at-site route; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_service(&self) -> Option<ServiceHealth> {
        ServiceHealth::decode(self.as_bytes())
    }

    /// Read as the value of an Endpoint route; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_endpoint(&self) -> Option<EndpointHealth> {
        EndpointHealth::decode(self.as_bytes())
    }

    /// Read as the value of an HTTP route; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_http_route(&self) -> Option<HttpTarget> {
        HttpTarget::decode(self.as_bytes())
    }

    /// Read as the value of a policy reference; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_policy(&self) -> Option<PolicyReference> {
        PolicyReference::decode(self.as_bytes())
    }

    /// Read as the value of a Link route; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_link(&self) -> Option<LinkHealth> {
        LinkHealth::decode(self.as_bytes())
    }

    /// The seq of a value that came with `key`; `None` for unknown types.
    #[must_use]
    pub fn seq(&self, key: &Key) -> Option<Seq> {
        match key {
            Key::Site { .. } => self.as_site().map(|v| v.seq),
            Key::Service { .. } => self.as_service().map(|v| v.seq),
            Key::Endpoint { .. } => self.as_endpoint().map(|v| v.seq),
            Key::HttpRoute { .. } => self.as_http_route().map(|v| v.seq),
            Key::Policy { .. } => self.as_policy().map(|v| v.seq),
            Key::Link { .. } => self.as_link().map(|v| v.seq),
            Key::Unknown { .. } => None,
        }
    }
}

/// The head of every value.
const fn head(state: State, flags: u8) -> [u8; 2] {
    [Value::VERSION << 4 | state.number(), flags]
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(")?;
        for b in self.as_bytes() {
            write!(f, "{b:02x}")?;
        }
        f.write_str(")")
    }
}
