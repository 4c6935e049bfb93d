//! What a put or a delete means, decided against the world at one revision; nothing is written
//! here.

use std::{collections::BTreeSet, time::Duration};

use api::{CertificateSource, CertificateSpec, Object, ObjectKey, Problem, Spec, TokenSpec};
use base::{Revision, WallTime};
use pki::{NewToken, Token};
use plan::Ids;
use store::Op;

use super::{
    Issuer, State,
    join::site_of,
    records::{self, Material, TokenRecord},
};
use crate::redact;

/// How long a certificate holds that the controller made by itself: no browser trusts it, so
/// nothing is won by a shorter life.
const SELF_SIGNED: Duration = Duration::from_secs(3650 * 86_400);
/// The most tunnel addresses in a Token.
const MAX_ADDRESSES: usize = 16;

/// What a put comes to.
pub(super) enum Decision {
    /// The object is like that already.
    Unchanged(Box<Object>),
    /// To be committed with this transaction.
    Change(Vec<Op>, Box<Change>),
}

/// A change that may be committed.
pub(super) struct Change {
    /// As it will be, but for its revision, which is that of the state before.
    pub(super) object: Object,
    pub(super) created: bool,
    /// Of a new Token: the line to show once.
    pub(super) token: Option<String>,
    ids: Option<Ids>,
    beside: Beside,
}

/// What changes beside the object.
enum Beside {
    Nothing,
    Material(Material),
    NoMaterial,
    Token(TokenRecord),
}

impl Change {
    /// Makes `state` what it is after the change was committed by `revision`.
    pub(super) fn apply(self, state: &mut State, revision: Revision) {
        let Change {
            mut object,
            ids,
            beside,
            ..
        } = self;
        let key = object.key();
        object.metadata.revision = Some(revision);
        if let Some(ids) = ids {
            state.ids = ids;
            state.ids_revision = Some(revision);
        }
        match beside {
            Beside::Nothing => {}
            Beside::Material(material) => {
                state.material.insert(key.clone(), material);
            }
            Beside::NoMaterial => {
                state.material.remove(&key);
            }
            Beside::Token(record) => {
                state.tokens.insert(key.clone(), (record, revision));
            }
        }
        state.world.insert(object);
    }
}

pub(super) fn put(
    state: &State,
    issuer: &Issuer,
    object: Object,
    now: WallTime,
) -> Result<Decision, Problem> {
    let key = object.key();
    let existing = state.world.find(&key);
    check_based_on(&key, &object, existing)?;
    let mut object = redact::restore(object, existing)?;
    object.status = None;
    carry_over(&mut object, existing, now)?;
    if let Some(existing) = existing {
        let same = existing.spec == object.spec
            && existing.metadata.labels == object.metadata.labels
            && existing.metadata.annotations == object.metadata.annotations;
        if same {
            return Ok(Decision::Unchanged(Box::new(existing.clone())));
        }
    }
    check_immutable(&object, existing)?;
    plan::check_put(&state.world, &object, now)?;
    let mut world = state.world.clone();
    world.insert(object.clone());
    let mut ids = state.ids.clone();
    let ids = ids.allocate(&world).then_some(ids);
    ids.as_ref().unwrap_or(&state.ids).stamp(&mut object);
    let mut ops = vec![records::object_op(&object)?];
    if let Some(ids) = &ids {
        ops.push(records::ids_op(ids, state.ids_revision)?);
    }
    let mut token = None;
    let beside = match &object.spec {
        Spec::Certificate(spec) => certificate(state, &key, spec, now)?,
        Spec::Token(spec) if existing.is_none() => {
            let (line, record) = new_token(state, issuer, &object, spec, now)?;
            token = Some(line);
            Beside::Token(record)
        }
        Spec::Token(_)
        | Spec::Tenant(_)
        | Spec::Namespace(_)
        | Spec::Site(_)
        | Spec::ServicePolicy(_)
        | Spec::Service(_)
        | Spec::LoadBalancer(_)
        | Spec::BgpPeer(_)
        | Spec::Link(_) => Beside::Nothing,
    };
    match &beside {
        Beside::Nothing => {}
        Beside::Material(material) => ops.push(records::material_op(&key, material)?),
        Beside::NoMaterial => ops.push(records::material_gone(&key)),
        Beside::Token(record) => ops.push(records::token_op(&key, record, None)?),
    }
    let created = existing.is_none();
    Ok(Decision::Change(
        ops,
        Box::new(Change {
            object,
            created,
            token,
            ids,
            beside,
        }),
    ))
}

pub(super) fn delete(
    state: &State,
    key: &ObjectKey,
    based_on: Option<Revision>,
) -> Result<Vec<Op>, Problem> {
    let Some(existing) = state.world.find(key) else {
        return Err(
            Problem::new(404, "not-found", format!("{key} does not exist")).about(key.to_string()),
        );
    };
    if let Some(based_on) = based_on
        && existing.metadata.revision != Some(based_on)
    {
        return Err(conflict(key, based_on, Some(existing)));
    }
    plan::check_delete(&state.world, key)?;
    Ok(records::delete_ops(key, existing.metadata.revision))
}

/// A put that names a revision or an incarnation must be based on the present one.
fn check_based_on(
    key: &ObjectKey,
    object: &Object,
    existing: Option<&Object>,
) -> Result<(), Problem> {
    if let Some(based_on) = object.metadata.revision
        && existing.and_then(|e| e.metadata.revision) != Some(based_on)
    {
        return Err(conflict(key, based_on, existing));
    }
    if let (Some(uid), Some(existing)) = (&object.metadata.uid, existing)
        && existing.metadata.uid.as_ref() != Some(uid)
    {
        let title = "the object was deleted and created again since it was read: read it again";
        return Err(Problem::new(409, "conflict", title).about(key.to_string()));
    }
    Ok(())
}

fn conflict(key: &ObjectKey, based_on: Revision, existing: Option<&Object>) -> Problem {
    let title = match existing.and_then(|e| e.metadata.revision) {
        Some(current) => format!(
            "the change is based on revision {based_on}, but the object is at revision {current}: \
             read it again and change that, or leave metadata.revision out"
        ),
        None => format!(
            "the change is based on revision {based_on}, but the object does not exist: \
             leave metadata.revision out to create it"
        ),
    };
    Problem {
        pointer: Some("/metadata/revision".to_owned()),
        ..Problem::new(409, "conflict", title)
    }
    .about(key.to_string())
}

/// The server's fields: those of the existing object, or new ones.
fn carry_over(
    object: &mut Object,
    existing: Option<&Object>,
    now: WallTime,
) -> Result<(), Problem> {
    let metadata = &mut object.metadata;
    metadata.updated_at = Some(now.to_string());
    if let Some(existing) = existing {
        metadata.uid.clone_from(&existing.metadata.uid);
        metadata.id = existing.metadata.id;
        metadata.revision = existing.metadata.revision;
        metadata
            .created_at
            .clone_from(&existing.metadata.created_at);
    } else {
        let bytes = pki::random::<16>().map_err(|e| internal(&e))?;
        metadata.uid = Some(bytes.iter().map(|b| format!("{b:02x}")).collect());
        metadata.id = None;
        metadata.revision = None;
        metadata.created_at = Some(now.to_string());
    }
    Ok(())
}

/// A Token is what it is: its secret has been given away.
fn check_immutable(object: &Object, existing: Option<&Object>) -> Result<(), Problem> {
    match (&object.spec, existing) {
        (
            Spec::Token(new),
            Some(Object {
                spec: Spec::Token(old),
                ..
            }),
        ) if new != old => {
            let title = "a Token cannot be changed: delete it and create another";
            Err(Problem::field("immutable", "/spec", title).about(object.key().to_string()))
        }
        _ => Ok(()),
    }
}

/// The key and chain of a certificate that the controller makes itself.
fn certificate(
    state: &State,
    key: &ObjectKey,
    spec: &CertificateSpec,
    now: WallTime,
) -> Result<Beside, Problem> {
    let have = state.material.get(key);
    match spec.source {
        CertificateSource::Pem if have.is_some() => Ok(Beside::NoMaterial),
        CertificateSource::Pem => Ok(Beside::Nothing),
        CertificateSource::SelfSigned => {
            let hosts: Vec<String> = spec.hosts.iter().map(|h| h.as_str().to_owned()).collect();
            if have.is_some_and(|material| material.hosts == hosts) {
                return Ok(Beside::Nothing);
            }
            let (certificate, private_key) =
                pki::self_signed(&hosts, now, SELF_SIGNED).map_err(|e| {
                    let title = base::Chain(&e).to_string();
                    Problem::field("bad-value", "/spec/hosts", title).about(key.to_string())
                })?;
            Ok(Beside::Material(Material {
                hosts,
                certificate,
                private_key,
            }))
        }
    }
}

/// The line to show once, and what is kept.
fn new_token(
    state: &State,
    issuer: &Issuer,
    object: &Object,
    spec: &TokenSpec,
    now: WallTime,
) -> Result<(String, TokenRecord), Problem> {
    let key = object.key();
    let missing = || {
        Problem::field(
            "dangling-reference",
            "/spec/site",
            "the site does not exist",
        )
        .about(key.to_string())
    };
    let site = site_of(&key, object).ok_or_else(missing)?;
    let (_, site_spec) = state.world.site(&site).ok_or_else(missing)?;
    let node = match (&spec.node, site_spec.nodes.as_slice()) {
        (Some(wanted), nodes) => nodes.iter().find(|node| node.name == *wanted),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let node = node.ok_or_else(|| {
        let title = format!("name one of the nodes of site {site}");
        Problem::field("bad-value", "/spec/node", title).about(key.to_string())
    })?;
    let addresses = if site.is_pop() {
        issuer.addresses.clone()
    } else {
        let dialled: BTreeSet<String> = state
            .world
            .sites()
            .filter(|(name, ..)| name.is_pop())
            .flat_map(|(.., pop)| pop.nodes.iter().flat_map(|node| plan::dial(node, &site)))
            .map(|address| address.to_string())
            .collect();
        dialled.into_iter().take(MAX_ADDRESSES).collect()
    };
    if addresses.is_empty() {
        let title = "no PoP gives out an address to this site: create the Site of a PoP first, or name \
             the site, or any, in nodes/tunnel/advertise of one";
        return Err(
            Problem::field("dangling-reference", "/spec/site", title).about(key.to_string())
        );
    }
    let token = Token::generate(NewToken {
        id: key.to_string(),
        ca_sha256: issuer.authority.spki_sha256(),
        addresses,
        expires_at: now + spec.valid_for.0,
        site,
        planet: issuer.planet.clone(),
    })
    .map_err(|e| internal(&e))?;
    let record = TokenRecord {
        secret_hash: token.secret_hash(),
        expires_at: token.expires_at,
        node: node.name.clone(),
        spent: None,
    };
    Ok((token.to_string(), record))
}

fn internal(error: &dyn std::error::Error) -> Problem {
    Problem::new(500, "internal", base::Chain(error).to_string())
}
