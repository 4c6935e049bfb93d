//! One interface, frame by frame (packet(7)).

use std::{
    io::{self, Read, Write},
    os::fd::AsRawFd,
};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyGuard},
};

/// IPv4 (IEEE 802 numbers).
const IPV4: u16 = 0x0800;
/// What the system may keep for us while we are busy, in octets.
const BUFFER: usize = 8 << 20;

/// An interface from which only IPv4 is read.
#[derive(Debug)]
pub(super) struct Port(AsyncFd<Socket>);

impl Port {
    #[expect(
        unsafe_code,
        reason = "the safe constructor is deprecated in favour of this one"
    )]
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        // With a protocol it would get frames of all interfaces before it is bound to one.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        let index = name_to_index(&socket, interface)?;
        socket.bind(&address(index)?)?;
        // Without privileges it may be less.
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        // SAFETY: the socket is open, and the `AsyncFd` owns it: nobody closes or replaces it
        // before the `AsyncFd` is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Port(socket.map_err(io::Error::from)?))
    }

    /// Waits until there may be frames.
    pub(super) async fn readable(&self) -> Readable<'_> {
        match self.0.readable().await {
            Ok(guard) => Readable(guard),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        }
    }

    /// Sends a frame. What there is no room for is lost, as on a wire.
    pub(super) fn write(&self, frame: &[u8]) {
        let _ = self.0.get_ref().write(frame);
    }
}

/// An interface that may have frames.
pub(super) struct Readable<'p>(AsyncFdReadyGuard<'p, Socket>);

impl Readable<'_> {
    /// The next frame's length; `None`: there is none now.
    pub(super) fn read(&mut self, space: &mut [u8]) -> Option<usize> {
        let read = self.0.try_io(|socket| socket.get_ref().read(space));
        // An error is the interface going down: there is nothing more either.
        read.ok()?.ok()
    }
}

/// Where frames of IPv4 on an interface are.
#[expect(unsafe_code, reason = "see below")]
fn address(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    let link = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: IPV4.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the storage has room for every kind of address (socket(7)), and as many octets are
    // said to be initialised as are written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(link);
            *length = libc::socklen_t::try_from(size_of_val(&link)).map_err(io::Error::other)?;
            Ok(())
        })?
    };
    Ok(address)
}

/// Has an interface of this thread's namespace send what a wire would carry: packets no longer than
/// its MTU, with their checksums (ethtool(8): `tx`, `sg`, `tso`, `gso` off).
///
/// # Errors
/// There is no such interface, or this user may not.
#[expect(unsafe_code, reason = "see below")]
pub fn offloads_off(interface: &str) -> io::Result<()> {
    /// `ETHTOOL_STSO`, `ETHTOOL_SGSO`, `ETHTOOL_SSG`, `ETHTOOL_STXCSUM` (linux/ethtool.h).
    const OFFLOADS: [u32; 4] = [0x1f, 0x24, 0x19, 0x17];
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    for offload in OFFLOADS {
        // `struct ethtool_value`: which, and zero for off.
        let mut value = [offload, 0];
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: value.as_mut_ptr().cast(),
            },
        };
        // The last octet stays zero.
        let name = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
        for (to, from) in name.zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        // SAFETY: the request and the value it points to are valid and of the kind that
        // SIOCETHTOOL with such a command reads and writes.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
