//! Socket options without a safe wrapper, by number.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C, align(8))]
struct Md5Signature {
    /// `struct sockaddr_storage`: family, then the address where its family keeps it; port 0.
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: u32,
    key: [u8; libc::TCP_MD5SIG_MAXKEYLEN],
}

const _: () = assert!(size_of::<Md5Signature>() == 216);

/// Sets the key for `peer`; an empty one removes it. `key` has at most 80 octets, more are cut.
pub(super) fn set_md5(socket: BorrowedFd<'_>, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut signature = Md5Signature {
        address: sockaddr(peer),
        flags: 0,
        prefix_length: 0,
        key_length: 0,
        interface: 0,
        key: [0; libc::TCP_MD5SIG_MAXKEYLEN],
    };
    for (to, from) in signature.key.iter_mut().zip(key) {
        *to = *from;
        signature.key_length += 1;
    }
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature)
}

/// Sets the least TTL (or hop limit) that is not dropped; 0 accepts all.
pub(super) fn set_least_ttl(socket: BorrowedFd<'_>, ipv6: bool, ttl: u8) -> io::Result<()> {
    let (level, name) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MINTTL)
    };
    set(socket, level, name, &libc::c_int::from(ttl))
}

/// Asks for the TTL of each datagram.
pub(super) fn set_recv_ttl(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    set(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, &on)
}

/// Has a listener keep connections until something has come over them, for about so many seconds at
/// most; 0 gives them out at once.
pub(super) fn set_defer_accept(socket: BorrowedFd<'_>, seconds: libc::c_int) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

/// `struct sockaddr_in` or `sockaddr_in6` without a port, in a `sockaddr_storage`.
fn sockaddr(ip: IpAddr) -> [u8; 128] {
    let mut octets = [0; 128];
    let family = match ip {
        IpAddr::V4(ip) => {
            octets[4..8].copy_from_slice(&ip.octets());
            libc::AF_INET
        }
        IpAddr::V6(ip) => {
            octets[8..24].copy_from_slice(&ip.octets());
            libc::AF_INET6
        }
    };
    let family = u16::try_from(family).expect("both families are small numbers");
    octets[..2].copy_from_slice(&family.to_ne_bytes());
    octets
}

/// `setsockopt` with a plain value; `T` is the type the option documents.
#[expect(
    unsafe_code,
    reason = "no safe wrapper knows TCP_MD5SIG, TCP_DEFER_ACCEPT, IP_MINTTL, IPV6_MINHOPCOUNT and \
              IP_RECVTTL"
)]
fn set<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("an option is small");
    // SAFETY: the descriptor is open while it is borrowed; the pointer and the length describe
    // `value`, which lives through the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
