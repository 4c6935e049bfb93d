//! site-sync: intent goes down, status comes up; one JSON line a message on a byte stream (an
//! HTTP/2 CONNECT to [`AUTHORITY`]), over mutual TLS.
//!
//! The node sends [`Up`], its first line is [`Up::Hello`]; the other side sends [`Down`]. Intent
//! is in [`Signed`] envelopes whose payload is the exact text of an [`Update`]: a PoP that relays
//! them can neither change nor mix them. A chain starts with a full update (`base: None`) and goes
//! on with deltas, each based on the revision before it; whoever stores the chain (the node, the
//! PoPs it is attached to) can replay it without the controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use base::{Name, NetworkId, NodeId, Revision, SiteId, SiteName, SlotId, TenantId, WallTime};
use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::{Object, ObjectKey, derived::NodeStatus};

/// The reserved authority of site-sync.
pub const AUTHORITY: &str = "sync.sealane.internal";

/// The reserved authority under which a PoP passes a join on to the controller.
pub const JOIN_AUTHORITY: &str = "join.sealane.internal";

/// The longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 32 << 20;

/// The most deltas in a chain before a full update begins a new one.
pub const MAX_DELTAS: usize = 64;

/// From the node (or a PoP on its behalf).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Up {
    /// The first line.
    Hello(Hello),
    /// The revision is compiled and serving.
    Ack(Revision),
    /// The revision does not compile here, or its envelope is wrong: the last good one serves.
    Reject {
        /// The revision; 0 if the envelope could not be opened.
        revision: Revision,
        /// One sentence.
        reason: String,
    },
    /// How things are; sent on change, at most once a second, and every 10 s.
    Status(Box<NodeStatus>),
    /// From the data half to its control half only, after [`Up::Hello`]: the chain it has on disk,
    /// in order, so that control knows the bundle without any other site.
    Stored(Signed),
    /// From the data half to its control half only: what the proxy saw of an endpoint.
    Trouble(Trouble),
    /// From the data half to its control half only: the VIPs that have a healthy endpoint now.
    Vips(BTreeSet<IpAddr>),
    /// From the data half to its control half only: the links that are up now, one for each site at
    /// the other end.
    Links(Vec<Link>),
    /// From the data half to its control half only: what runs at the site's own endpoints, of each
    /// service that says how much these take well; one that is not named has nothing running.
    Running(Vec<Running>),
    /// A certificate for this PKCS#10 request (base64 DER), with the same identity, please.
    Renew {
        /// The request.
        csr: String,
    },
}

/// A link of the node, as it measures it: the best of those to one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// The site at the other end.
    pub peer: SiteName,
    /// The round trip, in microseconds, once it was measured.
    pub rtt_us: Option<u64>,
    /// Its variation, in microseconds.
    pub jitter_us: u64,
    /// The part of what goes there and back that is lost, in 1/65535.
    #[serde(default)]
    pub loss: u16,
    /// How full it is, in percent.
    #[serde(default)]
    pub load: u8,
    /// Kilobits a second that the node could send on it; 0: that is not known.
    #[serde(default)]
    pub capacity_kbit_s: u32,
}

/// What runs of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Running {
    /// The owner.
    pub tenant: TenantId,
    /// The service.
    pub service: base::ServiceId,
    /// Requests (or connections, or flows) that run now, from whatever site they came.
    pub requests: u32,
}

/// What the egress proxy saw of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trouble {
    /// The owner.
    pub tenant: TenantId,
    /// The service.
    pub service: base::ServiceId,
    /// The endpoint, in this site.
    pub address: std::net::SocketAddr,
    /// What happened.
    pub kind: TroubleKind,
}

/// What the egress proxy saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TroubleKind {
    /// A connection was refused: nobody listens.
    Refused,
    /// A connection or an answer failed in another way.
    Failed,
    /// An idle connection was closed by the endpoint: nothing is wrong yet, but look at once.
    Suspect,
}

/// Who asks, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The site.
    pub site: SiteName,
    /// The node of it.
    pub node: Name,
    /// The last revision it has on disk; deltas may follow it directly.
    pub have: Option<Revision>,
    /// Its clock.
    pub time: WallTime,
}

/// To the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Down {
    /// The controller's (or the caching PoP's) clock.
    Time(WallTime),
    /// Intent.
    Signed(Signed),
    /// The answer to [`Up::Renew`]: the chain, base64 DER, the leaf first.
    Certificate {
        /// The chain.
        chain: Vec<String>,
    },
    /// The answer cannot be given; the stream is closed after it.
    Refused {
        /// One sentence.
        reason: String,
    },
}

/// An update and the controller's signature over exactly its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// The JSON text of an [`Update`].
    pub payload: String,
    /// ECDSA P-256 with SHA-256 over `payload`, base64.
    pub signature: String,
    /// The signer's certificate chain, base64 DER.
    pub chain: Vec<String>,
}

/// A [`Signed`] envelope holds text that is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the envelope is not base64")]
pub struct NotBase64(&'static str);

impl Signed {
    /// An envelope around `payload`.
    #[must_use]
    pub fn new<T: AsRef<[u8]>>(payload: String, signature: &[u8], chain: &[T]) -> Self {
        Signed {
            payload,
            signature: encode(signature),
            chain: encode_chain(chain),
        }
    }

    /// The signature's bytes.
    ///
    /// # Errors
    /// It is not base64.
    pub fn signature_bytes(&self) -> Result<Vec<u8>, NotBase64> {
        decode(&self.signature).ok_or(NotBase64("signature"))
    }

    /// The signer's certificates, DER.
    ///
    /// # Errors
    /// One is not base64.
    pub fn chain_der(&self) -> Result<Vec<Vec<u8>>, NotBase64> {
        decode_chain(&self.chain).ok_or(NotBase64("chain"))
    }
}

/// Standard base64.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes of standard base64; `None` if it is not.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Each certificate of a chain as base64.
#[must_use]
pub fn encode_chain<T: AsRef<[u8]>>(chain: &[T]) -> Vec<String> {
    chain.iter().map(|der| encode(der.as_ref())).collect()
}

/// The certificates of a chain (8 at most) as DER; `None` if one is not base64.
#[must_use]
pub fn decode_chain(chain: &[String]) -> Option<Vec<Vec<u8>>> {
    if chain.len() > 8 {
        return None;
    }
    chain.iter().map(|text| decode(text)).collect()
}

/// A change of what one site should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Update {
    /// The planet, so that no other planet's update fits.
    pub planet: String,
    /// The site it is for.
    pub site: SiteName,
    /// The revision it changes; `None` for a full update, which replaces everything.
    pub base: Option<Revision>,
    /// The revision it leads to.
    pub revision: Revision,
    /// When it was signed.
    pub issued: WallTime,
    /// New and changed resources.
    pub put: Vec<Object>,
    /// Resources this site no longer needs.
    pub delete: Vec<ObjectKey>,
    /// The site table, when it changed.
    pub sites: Option<Vec<SiteEntry>>,
}

/// One row of the signed site table: what a site is entitled to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteEntry {
    /// The site.
    pub name: SiteName,
    /// Its number.
    pub id: SiteId,
    /// Its owner; 0 for PoPs.
    pub tenant: TenantId,
    /// Is it a PoP?
    pub pop: bool,
    /// Is it a gateway with which the reader, another of the same tenant, may have links?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mesh: bool,
    /// Of a PoP, for gateways: its region, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Name>,
    /// Its nodes, with their BGP Identifiers.
    pub nodes: Vec<NodeEntry>,
    /// Its slots.
    pub slots: Vec<SlotEntry>,
}

/// One node of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeEntry {
    /// Its name.
    pub name: Name,
    /// Its BGP Identifier.
    pub id: NodeId,
    /// For sites that dial: the addresses at which the reader's site reaches this node.
    pub dial: Vec<std::net::SocketAddr>,
}

/// What a (site, slot) stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlotEntry {
    /// The slot.
    pub slot: SlotId,
    /// The tenant its routes belong to.
    pub tenant: TenantId,
    /// The network; 0 for the owner's application facts.
    pub network: NetworkId,
}

/// Everything one site runs: what a chain of updates adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The revision it stands at; 0 when empty.
    pub revision: Revision,
    /// The resources, shared by the bundles that one update after the other leads to.
    pub resources: BTreeMap<ObjectKey, Arc<Object>>,
    /// The site table.
    pub sites: Vec<SiteEntry>,
}

/// Why an update does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// It is a delta on a state that is not the bundle's.
    #[error("the delta is based on revision {base}, but revision {have} is here")]
    Gap {
        /// What it is based on.
        base: Revision,
        /// What is here.
        have: Revision,
    },
    /// It leads back, or nowhere: a replay.
    #[error("revision {revision} is not newer than {have}: a replay")]
    Replay {
        /// What it leads to.
        revision: Revision,
        /// What is here.
        have: Revision,
    },
}

impl Bundle {
    /// The bundle after `update`; `self` stays as it is.
    ///
    /// # Errors
    /// See [`FitError`]. Planet, site and signature are the caller's to check first.
    pub fn with(&self, update: Update) -> Result<Bundle, FitError> {
        if update.revision <= self.revision {
            return Err(FitError::Replay {
                revision: update.revision,
                have: self.revision,
            });
        }
        let mut next = match update.base {
            None => Bundle::default(),
            Some(base) if base == self.revision => self.clone(),
            Some(base) => {
                return Err(FitError::Gap {
                    base,
                    have: self.revision,
                });
            }
        };
        next.revision = update.revision;
        let put = update.put.into_iter();
        let mut put = put.map(|object| (object.key(), Arc::new(object))).collect();
        next.resources.append(&mut put);
        for key in &update.delete {
            next.resources.remove(key);
        }
        if let Some(sites) = update.sites {
            next.sites = sites;
        }
        Ok(next)
    }
}

/// The first and only message of a joining node, one JSON line on ALPN `sealane-join/1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The Token's id.
    pub token: String,
    /// The Token's secret.
    pub secret: String,
    /// PKCS#10 (base64 DER) for the node's key.
    pub csr: String,
    /// The node's clock: more than an hour off is refused.
    pub time: WallTime,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum JoinReply {
    /// Welcome.
    #[serde(rename_all = "camelCase")]
    Welcome {
        /// The node's certificate chain, base64 DER, the leaf first.
        chain: Vec<String>,
        /// The fabric CA's certificate, base64 DER.
        ca: String,
        /// The planet.
        planet: String,
        /// The controller's clock.
        time: WallTime,
    },
    /// No.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// Stable: `token-unknown`, `token-spent`, `token-expired`, `clock`, `bad-request`,
        /// `unavailable`.
        code: String,
        /// One sentence that says what to do.
        reason: String,
        /// The controller's clock.
        time: WallTime,
    },
}

/// The largest join message, in bytes.
pub const MAX_JOIN_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests;
