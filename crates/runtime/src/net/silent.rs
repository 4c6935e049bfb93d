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

/// Prepares a listener: its connections have TCP_NODELAY, and where clients speak first they come
/// only once a client has, or after about a second, so that nobody sleeps and wakes again for its
/// first octets. It may be called again. Failing is not an error.
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
    use std::time::Duration;

    use tokio::{
        io::AsyncWriteExt as _,
        net::TcpStream,
        time::{error::Elapsed, timeout},
    };

    use super::*;
    use crate::net::{Share, tcp_listener};

    /// When who need not wait has come, also on a busy machine; shorter than a second.
    const SOON: Duration = Duration::from_millis(700);
    /// When who says nothing comes at last: the first repetition is after a second.
    const LATE: Duration = Duration::from_secs(10);

    async fn comes(listener: &TcpListener, within: Duration) -> Result<TcpStream, Elapsed> {
        let accepted = timeout(within, listener.accept()).await?;
        Ok(accepted.expect("a connection").0)
    }

    #[tokio::test]
    async fn where_clients_speak_first_they_come_when_they_have() {
        let listener = tcp_listener(([127, 0, 0, 1], 0).into(), Share::Exclusive).expect("a port");
        let address = listener.local_addr().expect("an address");
        tune_listener(&listener, true);
        let mut client = TcpStream::connect(address).await.expect("connected");
        assert!(comes(&listener, SOON).await.is_err(), "it has said nothing");
        client.write_all(b"x").await.expect("sent");
        let taken = comes(&listener, LATE).await.expect("it has");
        assert!(taken.nodelay().expect("an option"));
        let silent = TcpStream::connect(address).await.expect("connected");
        let _ = comes(&listener, LATE).await.expect("in the end");
        tune_listener(&listener, false);
        let other = TcpStream::connect(address).await.expect("connected");
        let _ = comes(&listener, SOON).await.expect("at once");
        drop((silent, other));
    }
}
