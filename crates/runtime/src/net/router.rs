//! TCP toward foreign routers: who may speak at all (TCP-MD5, RFC 2385), from how far (GTSM,
//! RFC 5082), and from which of our addresses.
//!
//! A listener serves many neighbours, so what differs between them is set in two places: keys on
//! the listener by the neighbour's address ([`set_md5`]), everything else on the accepted
//! connection ([`prepare`]). All segments leave with DSCP CS6 (RFC 4594 §3.2: routing protocols)
//! and without Nagle's delay.
//!
//! ```
//! # let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # rt.block_on(async {
//! use runtime::net::router::{self, Options, Reach};
//! use std::time::Duration;
//!
//! let listener = router::listener(([127, 0, 0, 1], 0).into()).expect("a port");
//! let options = Options { reach: Reach::Within { hops: 1 }, ..Options::default() };
//! let address = listener.local_addr().expect("an address");
//! let (dialled, accepted) = tokio::join!(
//!     router::connect(address, &options, Duration::from_secs(5)),
//!     listener.accept(),
//! );
//! router::prepare(&accepted.expect("accepted").0, &options).expect("options");
//! dialled.expect("connected");
//! # });
//! ```

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::option;

/// DSCP CS6 in the place it has in the octet TOS or traffic class.
const TOS_CS6: u32 = 0xC0;
/// The TTL that cannot be reached from farther away (RFC 5082 §3).
pub(super) const TTL_MAX: u8 = 255;

/// How far away the neighbour may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The system's own TTL, and any TTL is accepted: neighbours inside our AS.
    #[default]
    Any,
    /// We send with this TTL and accept any: `1` for a neighbour on the same link, more for
    /// eBGP multihop.
    Ttl(u8),
    /// GTSM (RFC 5082): we send 255 and the kernel drops what has passed `hops` routers or more.
    /// `1` is a neighbour on the same link; 0 counts as 1.
    Within {
        /// How many links away the neighbour is.
        hops: u8,
    },
}

impl Reach {
    /// The TTL to send with, if it is not the system's.
    const fn ttl(self) -> Option<u8> {
        match self {
            Reach::Any => None,
            Reach::Ttl(ttl) => Some(ttl),
            Reach::Within { .. } => Some(TTL_MAX),
        }
    }

    /// The least TTL to accept.
    const fn least(self) -> u8 {
        match self {
            Reach::Any | Reach::Ttl(_) => 0,
            Reach::Within { hops: 0 } => TTL_MAX,
            Reach::Within { hops } => TTL_MAX - (hops - 1),
        }
    }
}

/// A TCP-MD5 key (RFC 2385): 1 to 80 octets. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Key(Vec<u8>);

/// Why octets are no TCP-MD5 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Md5KeyError {
    /// No octets at all.
    #[error("a TCP-MD5 key must not be empty")]
    Empty,
    /// More octets than the kernel takes.
    #[error("a TCP-MD5 key has at most {max} octets, not {0}", max = Md5Key::MAX)]
    TooLong(usize),
}

impl Md5Key {
    /// The longest key, in octets (Linux; RFC 2385 §4.5 asks for at least 80).
    pub const MAX: usize = libc::TCP_MD5SIG_MAXKEYLEN;

    /// A key of these octets.
    ///
    /// # Errors
    /// No octets, or more than [`MAX`](Self::MAX).
    pub fn new(octets: impl Into<Vec<u8>>) -> Result<Self, Md5KeyError> {
        let octets = octets.into();
        match octets.len() {
            0 => Err(Md5KeyError::Empty),
            1..=Self::MAX => Ok(Md5Key(octets)),
            length => Err(Md5KeyError::TooLong(length)),
        }
    }
}

impl fmt::Debug for Md5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Key(..)")
    }
}

/// What one neighbour's connections need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The key both sides share. It matters when dialling only: what arrives is checked with the
    /// listener's keys ([`set_md5`]).
    pub md5: Option<Md5Key>,
    /// How far away the neighbour may be.
    pub reach: Reach,
    /// Which of our addresses to dial from; an IPv6 link-local one needs its scope. Its port is 0
    /// unless it matters.
    pub source: Option<SocketAddr>,
    /// How long sent octets may stay unacknowledged before the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`); `None`: as the system says, minutes. The hold time is a good value.
    pub user_timeout: Option<Duration>,
}

/// Listens on `address` for routers: `SO_REUSEADDR`, IPv6 only on an IPv6 address, CS6. Answers
/// leave with TTL 255, which GTSM neighbours demand of the handshake and nobody else minds.
///
/// # Errors
/// What the system said: address taken, not ours, no permission (BGP's port 179 needs
/// `CAP_NET_BIND_SERVICE`).
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_ttl(&socket, address.is_ipv6(), TTL_MAX)?;
    socket.bind(&address.into())?;
    socket.listen(super::BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Gives a listener (or a connection) the key for `peer`, replaces it, or with `None` takes it
/// away; taking away what is not there is no error. With a key the kernel drops every segment
/// from `peer` that is not signed with it; without one, every signed segment. Connections that
/// are already accepted keep the key they were accepted with.
///
/// # Errors
/// What the system said; `ENOPROTOOPT` is a kernel without TCP-MD5.
pub fn set_md5(socket: &impl AsFd, peer: IpAddr, key: Option<&Md5Key>) -> io::Result<()> {
    let octets = key.map_or(&[][..], |key| &key.0);
    match option::set_md5(socket.as_fd(), peer, octets) {
        Err(error) if key.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Lets a listener (or a connection) drop in the kernel what comes from farther than `reach`: for
/// a listener all of whose neighbours use GTSM, so that not even a SYN from elsewhere is answered.
///
/// # Errors
/// What the system said.
pub fn set_reach(socket: &impl AsFd, reach: Reach) -> io::Result<()> {
    let ipv6 = SockRef::from(socket).domain()? == Domain::IPV6;
    if let Some(ttl) = reach.ttl() {
        set_ttl(&SockRef::from(socket), ipv6, ttl)?;
    }
    option::set_least_ttl(socket.as_fd(), ipv6, reach.least())
}

/// Prepares an accepted connection for the neighbour it turned out to be. The key and the address
/// of `options` are not looked at: the listener has decided both.
///
/// # Errors
/// What the system said; the connection must then not be used.
pub fn prepare(stream: &TcpStream, options: &Options) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    set_class(&socket, stream.local_addr()?.is_ipv6())?;
    socket.set_tcp_user_timeout(options.user_timeout)?;
    set_reach(stream, options.reach)
}

/// Does the system know a way to an address? The default route is one; routes that forbid
/// (`unreachable`, `blackhole`, `prohibit`) are none. Sends nothing.
#[must_use]
pub fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // The port is of no meaning: a datagram socket looks for its way when it is connected.
    let socket = std::net::UdpSocket::bind((any, 0));
    socket.is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}

/// Dials `address` within `timeout` with everything in `options`. A neighbour with another key
/// does not refuse, it is silent: `TimedOut`.
///
/// # Errors
/// What the system said; `TimedOut`; `InvalidInput` if `source` is of the other family.
pub async fn connect(
    address: SocketAddr,
    options: &Options,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = socket(address)?;
    if let Some(source) = options.source {
        if source.is_ipv6() != address.is_ipv6() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the source address is of another family than the neighbour's",
            ));
        }
        socket.bind(&source.into())?;
    }
    if options.md5.is_some() {
        set_md5(&socket, address.ip(), options.md5.as_ref())?;
    }
    socket.set_tcp_user_timeout(options.user_timeout)?;
    set_reach(&socket, options.reach)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    tokio::time::timeout(timeout, socket.connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A socket for `address` with what every connection to a router has.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    set_class(&socket, address.is_ipv6())?;
    Ok(socket)
}

/// The TTL of each datagram is told with it.
pub(super) fn set_recv_ttl(socket: BorrowedFd<'_>) -> io::Result<()> {
    option::set_recv_ttl(socket)
}

pub(super) fn set_class(socket: &Socket, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        socket.set_tclass_v6(TOS_CS6)
    } else {
        socket.set_tos_v4(TOS_CS6)
    }
}

pub(super) fn set_ttl(socket: &Socket, ipv6: bool, ttl: u8) -> io::Result<()> {
    if ipv6 {
        socket.set_unicast_hops_v6(ttl.into())
    } else {
        socket.set_ttl_v4(ttl.into())
    }
}

#[cfg(test)]
mod tests;
