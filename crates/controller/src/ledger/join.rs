//! May this node join? A Token is good once.

use std::time::Duration;

use api::{
    Kind, Object, ObjectKey, Problem, Spec,
    sync::{JoinRequest, decode, encode_chain},
};
use base::{Name, SiteName, WallTime};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pki::{Identity, Token};

use super::{
    Issuer, State,
    records::{Spent, TokenRecord},
};

/// How long the same key gets the same answer again.
const REPEAT: Duration = Duration::from_secs(600);
/// Clocks further apart than this are worth a line in the log.
pub(crate) const SKEW: Duration = Duration::from_secs(300);
/// Clocks further apart than this make certificates useless: no joining.
const MAX_SKEW: Duration = Duration::from_secs(3600);

/// Why not.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// As in [`api::sync::JoinReply::Refused`].
    pub(crate) code: &'static str,
    pub(crate) reason: String,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal {
            code: "unavailable",
            reason: problem.title,
        }
    }
}

/// A node that may join.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It did already, with the same key a moment ago.
    Repeat { chain: Vec<String>, node: String },
    /// The Token is to be spent with this record.
    New {
        key: ObjectKey,
        record: Box<TokenRecord>,
        node: String,
    },
}

pub(crate) fn decide(
    state: &State,
    issuer: &Issuer,
    request: &JoinRequest,
    now: WallTime,
) -> Result<Admission, Refusal> {
    let (key, record) = known(state, request)?;
    let skew = request.time.distance(now);
    if skew > MAX_SKEW {
        let reason = format!(
            "the node's clock says {} and the controller's {now}: set the clocks, then join again",
            request.time
        );
        return Err(Refusal {
            code: "clock",
            reason,
        });
    }
    if skew > SKEW {
        let (node, here) = (request.time.to_string(), now.to_string());
        tracing::warn!(token = %key, node, here, "the clock of a joining node is off");
    }
    let bad = |reason: String| Refusal {
        code: "bad-request",
        reason,
    };
    let csr = decode(&request.csr)
        .ok_or_else(|| bad("the certificate request is not base64".to_owned()))?;
    let key_hash = pki::csr_key_sha256(&csr).map_err(|e| bad(base::Chain(&e).to_string()))?;
    let (site, node) = admitted(state, &key, record)?;
    let name = format!("{node}.{site}");
    if let Some(spent) = &record.spent {
        if spent.key_hash == key_hash && spent.at.distance(now) <= REPEAT {
            return Ok(Admission::Repeat {
                chain: spent.chain.clone(),
                node: name,
            });
        }
        let reason = format!("the token was used at {}: create another one", spent.at);
        return Err(Refusal {
            code: "token-spent",
            reason,
        });
    }
    if now >= record.expires_at {
        let reason = format!(
            "the token ended at {}: create another one",
            record.expires_at
        );
        return Err(Refusal {
            code: "token-expired",
            reason,
        });
    }
    let identity = Identity::node(issuer.planet.clone(), site, node);
    let chain = issuer
        .authority
        .issue(&csr, &identity, now, issuer.lifetime)
        .map_err(|e| bad(base::Chain(&e).to_string()))?;
    let spent = Spent {
        at: now,
        key_hash,
        chain: encode_chain(&chain),
    };
    let record = Box::new(TokenRecord {
        spent: Some(spent),
        ..record.clone()
    });
    Ok(Admission::New {
        key,
        record,
        node: name,
    })
}

/// The Token that the request proves to hold.
fn known<'a>(
    state: &'a State,
    request: &JoinRequest,
) -> Result<(ObjectKey, &'a TokenRecord), Refusal> {
    // Whoever writes the secret may pad it, and use either alphabet of RFC 4648.
    let secret: String = request
        .secret
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    let secret = URL_SAFE_NO_PAD.decode(secret).unwrap_or_default();
    let found = request.token.parse::<ObjectKey>().ok().and_then(|key| {
        let (record, _) = state.tokens.get(&key)?;
        Some((key, record))
    });
    // An unknown Token costs the same comparison as a wrong secret.
    let hash = found
        .as_ref()
        .map_or([0; 32], |(_, record)| record.secret_hash);
    let holds = Token::secret_matches(&hash, &secret);
    found.filter(|_| holds).ok_or_else(|| Refusal {
        code: "token-unknown",
        reason: "there is no such token (any more), or its secret is another: create one".into(),
    })
}

/// The site and node the Token admits, if they still exist.
fn admitted(
    state: &State,
    key: &ObjectKey,
    record: &TokenRecord,
) -> Result<(SiteName, Name), Refusal> {
    let gone = |what: String| Refusal {
        code: "bad-request",
        reason: format!("{what} does not exist any more: create it, and another token"),
    };
    let site = state
        .world
        .find(key)
        .and_then(|token| site_of(key, token))
        .ok_or_else(|| gone("the token".to_owned()))?;
    let (_, spec) = state
        .world
        .site(&site)
        .ok_or_else(|| gone(format!("the site {site}")))?;
    if !spec.nodes.iter().any(|node| node.name == record.node) {
        return Err(gone(format!("the node {} of the site {site}", record.node)));
    }
    Ok((site, record.node.clone()))
}

/// The site a Token is for.
pub(super) fn site_of(key: &ObjectKey, token: &Object) -> Option<SiteName> {
    match &token.spec {
        Spec::Token(spec) => {
            let site = ObjectKey {
                kind: Kind::Site,
                name: spec.site.clone(),
                ..key.clone()
            };
            Some(site.site_name())
        }
        Spec::Tenant(_)
        | Spec::Namespace(_)
        | Spec::Site(_)
        | Spec::ServicePolicy(_)
        | Spec::Service(_)
        | Spec::LoadBalancer(_)
        | Spec::Certificate(_)
        | Spec::BgpPeer(_)
        | Spec::Link(_) => None,
    }
}

#[cfg(test)]
mod tests;
