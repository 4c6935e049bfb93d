//! Whom a listener gives out, and when.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use socket2::SockRef;
use tokio::net::TcpListener;

/// How long the kernel waits for a client's first octets, in seconds: until it first repeats its
/// own part of the handshake.
const SILENCE: libc::c_int = 1;

/// Prepares a listener: its connections have TCP_NODELAY, and where clients speak first, and at
/// once, they come with a client's first octets, or after about a second without, so that nobody
/// sleeps and wakes again for these. Those that have not come are reset when the listener is
/// closed. It may be called again. Failing is not an error.
pub fn tune_listener(listener: &TcpListener, clients_first: bool) {
    let seconds = if clients_first { SILENCE } else { 0 };
    for tuned in [
        SockRef::from(listener).set_tcp_nodelay(true),
        defer_accept(listener, seconds),
    ] {
        if let Err(error) = tuned {
            tracing::trace!(%error, "socket option refused");
        }
    }
}

/// `TCP_DEFER_ACCEPT` (tcp(7)).
#[expect(unsafe_code, reason = "no safe wrapper knows TCP_DEFER_ACCEPT")]
fn defer_accept(listener: &impl AsFd, seconds: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed; the kernel reads `length` octets of
    // `seconds`, which lives through the call and is as long.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{io::AsyncWriteExt as _, net::TcpStream};

    use super::*;
    use crate::net::{Share, tcp_listener};

    fn listener(clients_first: bool) -> (TcpListener, SocketAddr) {
        let listener = tcp_listener(([127, 0, 0, 1], 0).into(), Share::Exclusive).expect("a port");
        let address = listener.local_addr().expect("an address");
        tune_listener(&listener, clients_first);
        (listener, address)
    }

    async fn connect(address: SocketAddr) -> (TcpStream, SocketAddr) {
        let client = TcpStream::connect(address).await.expect("connected");
        let local = client.local_addr().expect("an address");
        (client, local)
    }

    #[tokio::test]
    async fn who_speaks_comes_before_who_is_silent() {
        let (listener, address) = listener(true);
        let (_silent, first) = connect(address).await;
        let (mut speaks, second) = connect(address).await;
        speaks.write_all(b"x").await.expect("sent");
        for expected in [second, first] {
            let (taken, from) = listener.accept().await.expect("a connection");
            assert_eq!(from, expected);
            assert!(taken.nodelay().expect("an option"));
        }
    }

    #[tokio::test]
    async fn who_need_not_speak_comes_at_once() {
        let ((waits, other), (listener, address)) = (listener(true), listener(true));
        tune_listener(&listener, false);
        let (_silent, _) = connect(other).await;
        let (_also, from) = connect(address).await;
        tokio::select! {
            biased;
            taken = listener.accept() => assert_eq!(taken.expect("a connection").1, from),
            _ = waits.accept() => panic!("it waited as long as one that is to speak"),
        }
    }
}
