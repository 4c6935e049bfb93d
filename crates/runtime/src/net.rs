//! Sockets with the options we always want.

pub mod handover;
pub mod hops;
mod option;
pub mod router;
mod segments;
mod unacked;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::AsFd as _, unix::net as std_unix},
    path::Path,
    time::Duration,
};

use rustix::fs::Mode;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixListener, UnixStream};

pub use segments::{Segments, segments};
pub use unacked::unacknowledged;

/// Connections the kernel completes for us before we accept them, as far as `net.core.somaxconn`
/// allows: of one more the client hears nothing, and asks again after a second.
const BACKLOG: i32 = 4096;
/// How long the kernel waits for a client's first octets, in seconds: until it first repeats its
/// own part of the handshake.
const SILENCE: libc::c_int = 1;
/// Octets that the system takes of a tunnel's connection beyond what it may send at once: what is
/// urgent waits behind these.
const UNSENT: u32 = 128 << 10;
/// The same where nothing is urgent.
const UNSENT_BULK: u32 = 512 << 10;

/// Who else may listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nobody.
    Exclusive,
    /// Other sockets of the same user (`SO_REUSEPORT`): one a core.
    ReusePort,
}

/// Listens on `address` with `SO_REUSEADDR`. An IPv6 socket takes IPv6 only. What connects has
/// TCP_NODELAY.
///
/// # Errors
/// What the system said: address taken, not ours, no permission.
pub fn tcp_listener(address: SocketAddr, share: Share) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if share == Share::ReusePort {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes datagrams at `address`. An IPv6 socket takes IPv6 only.
///
/// # Errors
/// What the system said: address taken, not ours, no permission.
pub fn udp_listener(address: SocketAddr, share: Share) -> io::Result<UdpSocket> {
    UdpSocket::from_std(udp_bound(address, share)?)
}

/// The same, for an endpoint that makes its own of the socket.
///
/// # Errors
/// What the system said: address taken, not ours, no permission.
pub fn udp_bound(address: SocketAddr, share: Share) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    // Who shares and wants any port gets, of datagrams, also one that others share already.
    let before = share == Share::ReusePort && address.port() != 0;
    if before {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if share == Share::ReusePort && !before {
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

/// A socket for datagrams to `address` and from it, and from nobody else, by a way that is the
/// system's to choose, or by another.
///
/// # Errors
/// What the system said: no such interface, not our address.
pub fn udp_toward(address: SocketAddr, source: Option<&Source>) -> io::Result<std::net::UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = match source {
        None => udp_bound(SocketAddr::new(any, 0), Share::Exclusive)?,
        Some(Source::Address(from)) => udp_bound(SocketAddr::new(*from, 0), Share::Exclusive)?,
        Some(Source::Interface(name)) => {
            let socket = udp_bound(SocketAddr::new(any, 0), Share::Exclusive)?;
            SockRef::from(&socket).bind_device(Some(name.as_bytes()))?;
            socket
        }
    };
    SockRef::from(&socket).connect(&address.into())?;
    Ok(socket)
}

/// Takes datagrams at `local`, which others share (`SO_REUSEPORT`), from `peer` alone: they come
/// here and to none of those that are not connected.
///
/// # Errors
/// What the system said.
pub fn udp_connected(local: SocketAddr, peer: SocketAddr) -> io::Result<UdpSocket> {
    let socket = udp_listener(local, Share::ReusePort)?;
    SockRef::from(&socket).connect(&peer.into())?;
    Ok(socket)
}

/// Has a socket of [`udp_listener`] take nothing more from anybody, so that what comes goes to
/// others at its address: it is connected to itself. It goes on sending to whom it is told.
///
/// # Errors
/// What the system said.
pub fn udp_retire(socket: &UdpSocket) -> io::Result<()> {
    let mut own = socket.local_addr()?;
    if own.ip().is_unspecified() {
        own.set_ip(match own {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    SockRef::from(socket).connect(&own.into())
}

/// Connects to `address` within `timeout`, with TCP_NODELAY.
///
/// # Errors
/// What the system said; `TimedOut`.
pub async fn tcp_connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Over which of a machine's ways a connection leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From this address of the machine; which way that is, its routes by source say (`ip rule`).
    Address(IpAddr),
    /// Through this interface (`SO_BINDTODEVICE`), which needs a route of its own: a default route
    /// with a greater metric will do.
    Interface(String),
}

/// The same as [`tcp_connect`], by a way that is not the system's to choose.
///
/// # Errors
/// What the system said: no such interface, not our address; `TimedOut`.
pub async fn tcp_connect_from(
    source: &Source,
    address: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    match source {
        Source::Address(from) => socket.bind(SocketAddr::new(*from, 0))?,
        Source::Interface(name) => socket.bind_device(Some(name.as_bytes()))?,
    }
    let stream = tokio::time::timeout(timeout, socket.connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Prepares a listener: where clients speak first, and at once, connections come with a client's
/// first octets, or after about a second without (TCP_DEFER_ACCEPT, tcp(7)), so that nobody sleeps
/// and wakes again for these. Those that have not come are reset when the listener is closed. It
/// may be called again. Failing is not an error.
pub fn tune_listener(listener: &TcpListener, clients_first: bool) {
    let seconds = if clients_first { SILENCE } else { 0 };
    if let Err(error) = option::set_defer_accept(listener.as_fd(), seconds) {
        tracing::trace!(%error, "socket option refused");
    }
}

/// Prepares a connection between nodes: TCP_NODELAY, little unsent in the kernel
/// (TCP_NOTSENT_LOWAT), and BBR where the kernel has it and lets us (a lossy path costs cubic most
/// of its throughput). Failing is not an error.
pub fn tune_tunnel(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    for tuned in [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_congestion(b"bbr"),
        socket.set_tcp_notsent_lowat(UNSENT),
    ] {
        if let Err(error) = tuned {
            tracing::trace!(%error, "socket option refused");
        }
    }
}

/// Prepares one that was prepared so for a single stream that is long: more may be unsent in the
/// kernel, and whoever only reads notices that its path is gone. Failing is not an error.
pub fn tune_bulk(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    for tuned in [
        socket.set_tcp_keepalive(&alive),
        socket.set_tcp_notsent_lowat(UNSENT_BULK),
    ] {
        if let Err(error) = tuned {
            tracing::trace!(%error, "socket option refused");
        }
    }
}

/// Has the connection reset when it is closed, so that its peer cannot take that for an orderly
/// end; what is not sent by then is lost. Failing is not an error.
pub fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::trace!(%error, "socket option refused");
    }
}

/// Listens on a Unix socket that only this user may open (mode 0600 from its first moment). A
/// socket file that nobody listens on is replaced.
///
/// # Errors
/// What the system said; `AddrInUse` if somebody listens there.
pub fn unix_listener(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        match std_unix::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    bind_unix(path)
}

/// The same in the place of whoever listens there: those who come from now on come to us.
///
/// # Errors
/// What the system said.
pub fn unix_listener_instead(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension("next");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = bind_unix(&beside)?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode of the socket's inode.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Does the process at the other end belong to our user?
///
/// # Errors
/// The system could not tell.
pub fn same_user(stream: &UnixStream) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

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
    async fn listeners_share_only_when_asked() {
        let first = tcp_listener(([127, 0, 0, 1], 0).into(), Share::ReusePort).expect("a port");
        let address = first.local_addr().expect("an address");
        let second = tcp_listener(address, Share::ReusePort).expect("shared");
        assert!(tcp_listener(address, Share::Exclusive).is_err());
        drop((first, second));
        let error = tcp_connect(address, Duration::from_secs(5))
            .await
            .expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// Of some thirty thousand ports, four hundred drawn without a look would hardly all differ.
    #[test]
    fn any_port_for_datagrams_is_nobody_elses_and_may_be_shared() {
        let bound = |port| {
            let socket = udp_bound(([127, 0, 0, 1], port).into(), Share::ReusePort);
            let socket = socket.expect("a port");
            let port = socket.local_addr().expect("an address").port();
            (socket, port)
        };
        let all: Vec<_> = (0..400).map(|_| bound(0)).collect();
        let ports: BTreeSet<u16> = all.iter().map(|(_, port)| *port).collect();
        assert_eq!(ports.len(), all.len());
        let (first, port) = bound(0);
        let (second, _) = bound(port);
        let to = first.local_addr().expect("an address");
        for _ in 0..64 {
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
            sender.send_to(b"x", to).expect("sent");
        }
        let mut octet = [0];
        for socket in [first, second] {
            // On loopback it is there once it was sent.
            socket.recv(&mut octet).expect("its part");
        }
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

    #[tokio::test]
    async fn a_connected_socket_hears_its_peer_and_a_retired_one_nobody() {
        let bind = |address| std::net::UdpSocket::bind(address).expect("a port");
        let (known, other) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        let old = udp_listener(([127, 0, 0, 1], 0).into(), Share::ReusePort).expect("a port");
        let at = old.local_addr().expect("an address");
        let kept = udp_connected(at, known.local_addr().expect("an address")).expect("shared");
        udp_retire(&old).expect("retired");
        let new = udp_listener(at, Share::ReusePort).expect("shared");
        for (from, to) in [(&known, &kept), (&other, &new)] {
            let mine = from.local_addr().expect("an address");
            for octet in 0..20 {
                from.send_to(&[octet], at).expect("sent");
                let mut got = [0; 8];
                assert_eq!(to.recv_from(&mut got).await.expect("heard"), (1, mine));
                assert_eq!(got[0], octet);
            }
        }
        assert!(old.try_recv_from(&mut [0; 8]).is_err(), "it hears nobody");
        assert_eq!(
            old.send_to(b"a", other.local_addr().expect("one"))
                .await
                .ok(),
            Some(1)
        );
        assert_eq!(other.recv_from(&mut [0; 8]).expect("heard"), (1, at));
    }

    #[tokio::test]
    async fn a_unix_socket_is_ours_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.sock");
        let listener = unix_listener(&path).expect("bound");
        let mode = std::fs::metadata(&path)
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = unix_listener(&path).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let (stream, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        let (stream, _accepted) = (stream.expect("connected"), accepted.expect("accepted"));
        assert!(same_user(&stream).expect("credentials"));
        let next = unix_listener_instead(&path).expect("bound");
        let (stream, accepted) = tokio::join!(UnixStream::connect(&path), next.accept());
        assert!(stream.is_ok() && accepted.is_ok(), "the next one is asked");
        drop((listener, next));
        unix_listener(&path).expect("the stale socket is replaced");
    }

    #[test]
    fn a_socket_toward_somebody_hears_nobody_else() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let (peer, stranger) = (
            std::net::UdpSocket::bind(local).expect("bound"),
            std::net::UdpSocket::bind(local).expect("bound"),
        );
        let socket = udp_toward(peer.local_addr().expect("bound"), None).expect("made");
        let own = socket.local_addr().expect("bound");
        stranger.send_to(b"stranger", own).expect("sent");
        peer.send_to(b"peer", own).expect("sent");
        let mut datagram = [0; 16];
        // On loopback what was sent is there.
        let length = socket.recv(&mut datagram).expect("one came");
        assert_eq!(&datagram[..length], b"peer");
        let error = socket.recv(&mut datagram).expect_err("no other came");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
