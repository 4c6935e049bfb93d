//! One probe: a connect, or a request.

use std::{net::SocketAddr, time::Duration};

use plan::{HttpProbe, ProbeOutcome, ProbeResult, Target, TargetKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The most of an answer that is read: the status line is all that matters.
const HEAD: usize = 512;

/// Probe once; never takes longer than the target's timeout.
pub(crate) async fn probe(key: TargetKey, target: &Target) -> ProbeResult {
    if target.blind {
        return ProbeResult {
            outcome: ProbeOutcome::Success,
            rtt: None,
        };
    }
    let start = runtime::now();
    let port = target.port.unwrap_or(key.address.port());
    let address = SocketAddr::new(key.address.ip(), port);
    let outcome = tokio::time::timeout(target.timeout, attempt(address, target)).await;
    let outcome = outcome.unwrap_or(ProbeOutcome::Failure);
    let rtt: Option<Duration> =
        (outcome == ProbeOutcome::Success).then(|| runtime::now().since(start));
    ProbeResult { outcome, rtt }
}

async fn attempt(address: SocketAddr, target: &Target) -> ProbeOutcome {
    let mut stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            return ProbeOutcome::Refused;
        }
        Err(_) => return ProbeOutcome::Failure,
    };
    if !target.preamble.is_empty() && stream.write_all(&target.preamble).await.is_err() {
        return ProbeOutcome::Failure;
    }
    match &target.http {
        None => ProbeOutcome::Success,
        Some(http) => match ask(&mut stream, address, http).await {
            Ok(status) if http.expect.contains(&status) => ProbeOutcome::Success,
            Ok(_) | Err(_) => ProbeOutcome::Failure,
        },
    }
}

async fn ask(
    stream: &mut TcpStream,
    address: SocketAddr,
    http: &HttpProbe,
) -> std::io::Result<u16> {
    let host = http.host.clone().unwrap_or_else(|| address.to_string());
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {host}\r\nuser-agent: sealane-probe\r\nconnection: close\r\n\r\n",
        http.path
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; HEAD];
    let mut have = 0;
    while !head[..have].contains(&b'\n') && have < HEAD {
        match stream.read(&mut head[have..]).await? {
            0 => break,
            n => have += n,
        }
    }
    status_of(&head[..have]).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// The status code of a response's first line (RFC 9112 §4).
fn status_of(head: &[u8]) -> Option<u16> {
    let rest = head
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let code = std::str::from_utf8(rest.get(..3)?).ok()?;
    let ends = matches!(rest.get(3), Some(b' ' | b'\r' | b'\n'));
    code.parse().ok().filter(|_| ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        for (head, status) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Some(200)),
            (b"HTTP/1.0 503 \r\n", Some(503)),
            (b"HTTP/1.1 204\r\n", Some(204)),
            (b"HTTP/1.1 2000\r\n", None),
            (b"HTTP/2 200\r\n", None),
            (b"", None),
        ] {
            assert_eq!(status_of(head), status, "{head:?}");
        }
    }
}
