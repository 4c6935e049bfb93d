//! What lies in the store: `/objects/PATH`, and beside it `/internal/…` which no API shows.

use api::{Kind, Object, ObjectKey, Problem};
use base::{Name, Revision, SiteName, WallTime};
use plan::World;
use serde::{Deserialize, Serialize};
use store::{Entry, Expect, Op, Store, StoreError};

use super::State;

/// Objects, by their path: JSON without revision and status.
pub(crate) const OBJECTS: &str = "/objects/";
/// The allocation table.
const IDS: &str = "/internal/ids";
/// What the controller made for `selfSigned` certificates, by their path.
const MATERIAL: &str = "/internal/certificates/";
/// What is kept of Tokens, by their path.
const TOKENS: &str = "/internal/tokens/";
/// SHA-256 of the public key each node joined with, by `NODE.SITE.TENANT`: only this key renews.
const NODES: &str = "/internal/nodes/";

/// Why the world cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store refused.
    #[error("the store cannot be listed")]
    Store(#[source] StoreError),
    /// An entry is not what this version writes.
    #[error("the store's entry {key:?} cannot be read")]
    Entry {
        /// Which.
        key: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The key of an entry is not one this version writes.
    #[error("the store has an unknown entry {0:?}; was it written by a newer version?")]
    Key(String),
}

/// A chain and its key that the controller made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Material {
    /// The hosts it was made for.
    pub(crate) hosts: Vec<String>,
    pub(crate) certificate: String,
    pub(crate) private_key: String,
}

/// What is kept of a Token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenRecord {
    /// SHA-256 of the secret.
    pub(crate) secret_hash: [u8; 32],
    pub(crate) expires_at: WallTime,
    /// The node it admits.
    pub(crate) node: Name,
    pub(crate) spent: Option<Spent>,
}

/// How a Token was spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spent {
    pub(crate) at: WallTime,
    /// SHA-256 of the public key in the request.
    pub(crate) key_hash: [u8; 32],
    /// The chain that was issued, base64 DER.
    pub(crate) chain: Vec<String>,
}

impl TokenRecord {
    /// The chain that was issued for it.
    pub(crate) fn chain(&self) -> &[String] {
        self.spent.as_ref().map_or(&[], |spent| &spent.chain)
    }
}

/// Everything at one revision.
pub(crate) async fn load(store: &Store) -> Result<State, LoadError> {
    let listing = store.list("/").await.map_err(LoadError::Store)?;
    let mut state = State {
        revision: listing.revision,
        ..State::default()
    };
    let mut objects = Vec::new();
    for (key, entry) in listing.entries {
        let wrong = |source| LoadError::Entry {
            key: key.clone(),
            source,
        };
        let path = |prefix: &str| {
            let path = key.strip_prefix(prefix)?;
            Some(
                path.parse::<ObjectKey>()
                    .map_err(|_| LoadError::Key(key.clone())),
            )
        };
        if key.starts_with(OBJECTS) {
            objects.push(object_from(&entry.value, entry.modified).map_err(wrong)?);
        } else if key == IDS {
            state.ids = serde_json::from_slice(&entry.value).map_err(wrong)?;
            state.ids_revision = Some(entry.modified);
        } else if let Some(path) = path(MATERIAL) {
            state
                .material
                .insert(path?, serde_json::from_slice(&entry.value).map_err(wrong)?);
        } else if let Some(path) = path(TOKENS) {
            let record = token_record(&entry).map_err(wrong)?;
            state.tokens.insert(path?, (record, entry.modified));
        } else if let Some(node) = key.strip_prefix(NODES) {
            let key_hash = serde_json::from_slice(&entry.value).map_err(wrong)?;
            state.node_keys.insert(node.to_owned(), key_hash);
        } else {
            return Err(LoadError::Key(key));
        }
    }
    state.world = World::new(objects);
    Ok(state)
}

fn token_record(entry: &Entry) -> Result<TokenRecord, serde_json::Error> {
    serde_json::from_slice(&entry.value)
}

/// The object of a stored value that was put by `revision`.
pub(crate) fn object_from(value: &[u8], revision: Revision) -> Result<Object, serde_json::Error> {
    let mut object: Object = serde_json::from_slice(value)?;
    object.metadata.revision = Some(revision);
    Ok(object)
}

/// Puts an object that was last put by the revision in its metadata; none: that does not exist.
pub(crate) fn object_op(object: &Object) -> Result<Op, Problem> {
    let mut stored = object.clone();
    stored.metadata.revision = None;
    stored.status = None;
    let op = Op::put(format!("{OBJECTS}{}", object.key()), json(&stored)?);
    Ok(op.expect(expected(object.metadata.revision)))
}

pub(crate) fn ids_op(ids: &plan::Ids, was: Option<Revision>) -> Result<Op, Problem> {
    Ok(Op::put(IDS, json(ids)?).expect(expected(was)))
}

pub(crate) fn material_op(key: &ObjectKey, material: &Material) -> Result<Op, Problem> {
    Ok(Op::put(format!("{MATERIAL}{key}"), json(material)?))
}

pub(crate) fn token_op(
    key: &ObjectKey,
    record: &TokenRecord,
    was: Option<Revision>,
) -> Result<Op, Problem> {
    Ok(Op::put(format!("{TOKENS}{key}"), json(record)?).expect(expected(was)))
}

/// The name under which a node's key is kept.
pub(crate) fn node_name(site: &SiteName, node: &Name) -> String {
    format!("{node}.{site}")
}

pub(crate) fn node_key_op(node: &str, key_hash: &[u8; 32]) -> Result<Op, Problem> {
    Ok(Op::put(format!("{NODES}{node}"), json(key_hash)?))
}

/// Removes an object and what is kept beside it.
pub(crate) fn delete_ops(key: &ObjectKey, was: Option<Revision>) -> Vec<Op> {
    let mut ops = vec![Op::delete(format!("{OBJECTS}{key}")).expect(expected(was))];
    match key.kind {
        Kind::Certificate => ops.push(material_gone(key)),
        Kind::Token => ops.push(Op::delete(format!("{TOKENS}{key}"))),
        Kind::Tenant | Kind::Namespace | Kind::Site => {}
        Kind::ServicePolicy | Kind::Service | Kind::LoadBalancer => {}
        Kind::BgpPeer | Kind::Link => {}
    }
    ops
}

/// Removes what was made for a certificate.
pub(crate) fn material_gone(key: &ObjectKey) -> Op {
    Op::delete(format!("{MATERIAL}{key}"))
}

fn expected(was: Option<Revision>) -> Expect {
    was.map_or(Expect::Absent, Expect::Revision)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|e| {
        Problem::new(
            500,
            "internal",
            format!("the record cannot be written: {e}"),
        )
    })
}
