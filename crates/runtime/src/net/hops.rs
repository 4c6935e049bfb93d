//! UDP that knows how far a datagram came: for BFD (RFC 5881 §5), which believes only what no
//! router has passed on.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::router::{TTL_MAX, set_class, set_ttl};

/// Where the source port of a BFD session is to lie (RFC 5881 §4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// One datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Octets of it in the buffer.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Its TTL or hop limit when it came.
    pub ttl: Option<u8>,
}

/// Listens on `address` for datagrams whose TTL is told.
///
/// # Errors
/// What the system said.
pub fn udp_listener(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = udp(address)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_recv_hoplimit_v6(true)?;
    } else {
        set_recv_ttl(&socket)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that sends to `to` alone, with TTL 255 and CS6, from one port of RFC 5881's range and
/// from `local` if that is given. `number` says where in the range to begin to look.
///
/// # Errors
/// What the system said; no port of the range is free.
pub fn udp_sender(to: SocketAddr, local: Option<IpAddr>, number: u32) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv6() {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    };
    let ports = u32::from(SOURCE_PORTS.end() - SOURCE_PORTS.start()) + 1;
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for step in 0..64 {
        let offset = number.wrapping_mul(0x9E37_79B9).wrapping_add(step) % ports;
        let port = SOURCE_PORTS.start() + u16::try_from(offset).unwrap_or(0);
        let socket = udp(to)?;
        set_ttl(&socket, to.is_ipv6(), TTL_MAX)?;
        set_class(&socket, to.is_ipv6())?;
        match socket.bind(&SocketAddr::new(local.unwrap_or(any), port).into()) {
            Ok(()) => {
                socket.connect(&to.into())?;
                return UdpSocket::from_std(socket.into());
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Waits for a datagram; what does not fit into `buffer` is cut off.
///
/// # Errors
/// What the system said.
pub async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    socket
        .async_io(Interest::READABLE, || receive_now(socket, buffer))
        .await
}

/// Room for a few control messages, aligned as the kernel writes them.
#[repr(C, align(8))]
struct Control([u8; 128]);

#[expect(unsafe_code, reason = "no safe wrapper knows IP_TTL and IPV6_HOPLIMIT")]
fn receive_now(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut control = Control([0; 128]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let (mut length, mut ttl) = (0, None);
    // SAFETY: every pointer in `message` is to something that lives through the call and is as
    // long as its length says; the kernel writes within these. A zeroed `msghdr` is a good one.
    // What `CMSG_FIRSTHDR` and `CMSG_NXTHDR` return is null or lies within `control`, which the
    // kernel has filled; the value of these two options is an int, read without alignment.
    let (_, from) = unsafe {
        SockAddr::try_init(|storage, size| {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_name = storage.cast();
            message.msg_namelen = *size;
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.0.len() as _;
            let fd = socket.as_fd().as_raw_fd();
            let count = libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT);
            length = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
            *size = message.msg_namelen;
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                let kind = ((*header).cmsg_level, (*header).cmsg_type);
                if kind == (libc::IPPROTO_IP, libc::IP_TTL)
                    || kind == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
                {
                    let value: libc::c_int = libc::CMSG_DATA(header)
                        .cast::<libc::c_int>()
                        .read_unaligned();
                    ttl = u8::try_from(value).ok();
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
            Ok(())
        })?
    };
    let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Datagram { length, from, ttl })
}

fn set_recv_ttl(socket: &Socket) -> io::Result<()> {
    super::router::set_recv_ttl(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use super::{receive, udp_listener, udp_sender};

    #[tokio::test]
    async fn a_datagram_tells_its_ttl() {
        for ip in ["127.0.0.1", "::1"] {
            let ip: std::net::IpAddr = ip.parse().expect("an address");
            let listener = udp_listener((ip, 0).into()).expect("loopback");
            let to = listener.local_addr().expect("an address");
            let sender = udp_sender(to, Some(ip), 7).expect("a port");
            assert!(sender.local_addr().expect("an address").port() >= 49152);
            sender.send(b"hello").await.expect("sent");
            let mut buffer = [0; 64];
            let got = receive(&listener, &mut buffer).await.expect("received");
            assert_eq!((got.length, got.ttl), (5, Some(255)));
            assert_eq!(got.from, sender.local_addr().expect("an address"));
        }
    }
}
