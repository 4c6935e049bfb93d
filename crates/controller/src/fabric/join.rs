//! One join: a line in, a line out.

use std::{io, time::Duration};

use api::sync::{JoinReply, JoinRequest, MAX_JOIN_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::lines::{self, Lines};
use crate::{ledger::Ledger, metrics::Meters};

/// How long a whole join may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads a request and answers it; `peer` is who brought it.
pub(super) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    ledger: &Ledger,
    meters: &Meters,
    peer: &str,
) {
    let exchanged = tokio::time::timeout(LIMIT, exchange(stream, ledger)).await;
    match exchanged.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(JoinReply::Welcome { .. }) => meters.joined("welcome"),
        Ok(JoinReply::Refused { code, reason, .. }) => {
            meters.joined(outcome(&code));
            meters.refuse(outcome(&code), peer, &reason);
        }
        Err(error) => {
            meters.joined("broken");
            meters.refuse("join-broken", peer, &error);
        }
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ledger: &Ledger,
) -> io::Result<JoinReply> {
    let refused = |code: &str, reason: String| JoinReply::Refused {
        code: code.to_owned(),
        reason,
        time: runtime::wall(),
    };
    let request: io::Result<Option<JoinRequest>> =
        Lines::new(&mut stream, MAX_JOIN_BYTES).next().await;
    let reply = match request {
        Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Some(request)) => match ledger.join(request).await {
            Ok(reply) => reply,
            Err(problem) => refused("unavailable", problem.title),
        },
        Err(error) => refused(
            "bad-request",
            format!("the request cannot be read: {error}"),
        ),
    };
    lines::send(&mut stream, &reply).await?;
    stream.shutdown().await?;
    Ok(reply)
}

/// The code as a label from a closed set.
fn outcome(code: &str) -> &'static str {
    [
        "token-unknown",
        "token-spent",
        "token-expired",
        "clock",
        "bad-request",
    ]
    .into_iter()
    .find(|known| *known == code)
    .unwrap_or("unavailable")
}
