//! What TCP itself counts of a connection.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The segments with data that this side sent, since the connection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// All of them, each as often as it was sent.
    pub sent: u32,
    /// Those that were sent again since the other side did not acknowledge them. Of those of which
    /// it said that it had them already (RFC 2883), none was lost.
    pub lost: u32,
    /// Those that were sent and are not acknowledged.
    pub flying: u32,
    /// Octets that the other side has acknowledged.
    pub acknowledged: u64,
}

/// Ask the kernel (`TCP_INFO`): it knows what was lost, which nobody above TCP sees but as delay.
///
/// # Errors
/// It is no TCP socket, or the kernel is older than 4.19.
#[expect(unsafe_code, reason = "no safe wrapper knows these fields of TCP_INFO")]
pub fn segments(socket: BorrowedFd<'_>) -> io::Result<Segments> {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&info);
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` octets
    // into `info`, which lives through the call, and says how many in `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let needed = mem::offset_of!(libc::tcp_info, tcpi_dsack_dups) + mem::size_of::<u32>();
    if usize::try_from(length).is_ok_and(|length| length < needed) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Segments {
        sent: info.tcpi_data_segs_out,
        lost: info.tcpi_total_retrans.saturating_sub(info.tcpi_dsack_dups),
        flying: info.tcpi_unacked,
        acknowledged: info.tcpi_bytes_acked,
    })
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, os::fd::AsFd};

    use super::*;

    #[test]
    fn what_is_sent_is_counted_and_on_loopback_nothing_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let mut near = std::net::TcpStream::connect(address).expect("connected");
        let (_far, _) = listener.accept().expect("accepted");
        near.set_nodelay(true).expect("set");
        let before = segments(near.as_fd()).expect("TCP");
        assert_eq!((before.sent, before.lost), (0, 0));
        for n in 1..=3 {
            near.write_all(b"a few").expect("written");
            let counted = segments(near.as_fd()).expect("TCP");
            assert_eq!((counted.sent, counted.lost), (n, 0));
            // On loopback that is at once.
            let octets = counted.acknowledged - before.acknowledged;
            assert_eq!((counted.flying, octets), (0, 5 * u64::from(n)));
        }
        let file = std::fs::File::open("/dev/null").expect("opened");
        assert!(segments(file.as_fd()).is_err());
    }
}
