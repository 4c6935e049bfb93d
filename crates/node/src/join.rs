//! Joining: a Token becomes a certificate.

use std::{io, net::SocketAddr, time::Duration};

use api::sync::{JoinReply, JoinRequest, MAX_JOIN_BYTES, decode, decode_chain, encode};
use base::{Backoff, Rng, WallTime};

use crate::{
    lines::{Lines, send},
    state::{NodeFile, State, StateError},
};

/// A clock this far off is worth a warning.
const CLOCK_WARN: Duration = Duration::from_secs(300);

/// How often all addresses are tried before joining gives up.
const ROUNDS: u32 = 30;

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailure {
    /// The Token is no Token.
    #[error("the Token cannot be read: copy the whole line that starts with sealane1.")]
    Token(#[source] pki::TokenError),
    /// Its time is over.
    #[error("the Token expired at {0}: create a new one with 'sealane apply'")]
    Expired(WallTime),
    /// The other side said no.
    #[error("joining was refused ({code}): {reason}")]
    Refused {
        /// Stable word.
        code: String,
        /// Sentence.
        reason: String,
    },
    /// Nobody answered.
    #[error("none of {addresses:?} let this node join; the last said")]
    Unreachable {
        /// Whom it tried.
        addresses: Vec<String>,
        /// Why the last failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer makes no sense.
    #[error("the answer to joining cannot be used: {0}")]
    Answer(String),
    /// Key trouble.
    #[error("no key could be made")]
    Key(#[source] pki::KeyError),
    /// Disk trouble.
    #[error("what joining brought cannot be kept")]
    State(#[source] StateError),
}

/// Join with `token` and keep key and certificate in `state`.
///
/// A failed attempt is repeated with the same key, also by a process that was killed and started
/// again, so that an answer lost on the way costs nothing: the Token gives the same certificate to
/// the same key for ten minutes.
pub(crate) async fn join(state: &State, token: &str) -> Result<(), JoinFailure> {
    let token: pki::Token = token.trim().parse().map_err(JoinFailure::Token)?;
    if token.is_expired(runtime::wall()) {
        return Err(JoinFailure::Expired(token.expires_at));
    }
    let bootstrap: Vec<SocketAddr> = token
        .addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    let key = key_in(state)?;
    let csr = key.csr_der().map_err(JoinFailure::Key)?;
    let reply = ask_around(&token, &bootstrap, &csr).await?;
    let JoinReply::Welcome {
        chain,
        ca,
        planet,
        time,
    } = reply
    else {
        return Err(refused(reply));
    };
    if time.distance(runtime::wall()) > CLOCK_WARN {
        tracing::warn!(ours = %runtime::wall(), theirs = %time, "clock is far from the controller's");
    }
    let bad = |what: &str| JoinFailure::Answer(what.to_owned());
    let chain = decode_chain(&chain).ok_or_else(|| bad("the chain is not base64"))?;
    let ca = decode(&ca).ok_or_else(|| bad("the CA is not base64"))?;
    let verifier = pki::Verifier::pinned(&[ca.as_slice()], &token.ca_sha256)
        .map_err(|e| bad(&base::Chain(&e).to_string()))?;
    let identity = verifier
        .identify(&chain, runtime::wall())
        .map_err(|e| bad(&base::Chain(&e).to_string()))?;
    let (Some(site), Some(node)) = (identity.site().cloned(), identity.node_name().cloned()) else {
        return Err(bad("the certificate is not a node's"));
    };
    if site != token.site {
        return Err(bad("the certificate is for another site than the Token"));
    }
    let node = NodeFile {
        planet,
        site,
        node,
        bootstrap,
    };
    state
        .save_material(&node, &key, &chain, &ca)
        .map_err(JoinFailure::State)
}

/// The key of an earlier attempt, or a new one that is kept before anybody hears of it.
fn key_in(state: &State) -> Result<pki::NodeKey, JoinFailure> {
    if let Some(key) = state.key() {
        return Ok(key);
    }
    let key = pki::NodeKey::generate().map_err(JoinFailure::Key)?;
    state.save_key(&key).map_err(JoinFailure::State)?;
    Ok(key)
}

fn refused(reply: JoinReply) -> JoinFailure {
    match reply {
        JoinReply::Refused { code, reason, .. } => JoinFailure::Refused { code, reason },
        JoinReply::Welcome { .. } => JoinFailure::Answer("no refusal".to_owned()),
    }
}

async fn ask_around(
    token: &pki::Token,
    addresses: &[SocketAddr],
    csr: &[u8],
) -> Result<JoinReply, JoinFailure> {
    let request = JoinRequest {
        token: token.id.clone(),
        secret: encode(&token.secret),
        csr: encode(csr),
        time: runtime::wall(),
    };
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut rng = Rng::new(runtime::now().as_nanos());
    let mut last: Box<dyn std::error::Error + Send + Sync> = "the Token names no address".into();
    for _ in 0..ROUNDS {
        for address in addresses {
            match ask(*address, token.ca_sha256, &request).await {
                Ok(JoinReply::Refused { code, reason, .. }) if code == "unavailable" => {
                    last = reason.into();
                }
                Ok(reply) => return Ok(reply),
                Err(e) => last = e,
            }
            tracing::debug!(%address, error = %last, "joining has to be tried again");
        }
        tokio::time::sleep(backoff.next_wait(&mut rng)).await;
    }
    Err(JoinFailure::Unreachable {
        addresses: token.addresses.clone(),
        source: last,
    })
}

async fn ask(
    address: SocketAddr,
    pin: [u8; 32],
    request: &JoinRequest,
) -> Result<JoinReply, Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = tunnel::join_dial(address, pin).await?;
    send(&mut stream, request).await?;
    let mut lines = Lines::new(stream, MAX_JOIN_BYTES);
    let answer = tokio::time::timeout(tunnel::JOIN_TIMEOUT, lines.next()).await??;
    Ok(answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_attempt_has_the_same_key() {
        let name = format!("sealane-join-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let state = State::open(&dir).expect("a folder");
        let first = key_in(&state).expect("a key").spki_sha256();
        assert_eq!(key_in(&state).expect("a key").spki_sha256(), first);
        assert!(!state.has_joined());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
