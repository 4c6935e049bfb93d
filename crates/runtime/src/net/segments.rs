//! What TCP itself counts of a connection.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

/// What this side sent, since the connection began, and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// All segments with data, each as often as it was sent.
    pub sent: u32,
    /// Those that were sent again since the other side did not acknowledge them. Of those of which
    /// it said that it had them already (RFC 2883), none was lost.
    pub lost: u32,
    /// Those that were sent and are not acknowledged.
    pub flying: u32,
    /// Octets that the other side has acknowledged.
    pub acknowledged: u64,
    /// Octets a second at which they were delivered last while there was more to send
    /// (draft-cheng-iccrg-delivery-rate-estimation), or faster while there was not.
    pub delivery_rate: u64,
    /// Was it the latter?
    pub app_limited: bool,
    /// Octets a second at which the congestion control lets segments go.
    pub pacing_rate: u64,
    /// Microseconds for which the other side's window held back what was to be sent.
    pub window_limited_us: u64,
}

impl Segments {
    /// Did what was to be sent wait for the network nearly all the time since `before`, which was so
    /// many microseconds earlier?
    ///
    /// No, if the application had nothing more to send or the receiver took no more; and no, while the
    /// congestion control still looks for what the network carries: then it sends twice as fast as
    /// what it sent is delivered, or faster (BBR 2.89 times in STARTUP and 1.25 times at most after
    /// it, Linux's others 2 times in slow start and 1.2 times after it).
    #[must_use]
    pub fn waited(&self, before: &Segments, us: u64) -> bool {
        let delivered = self.acknowledged.saturating_sub(before.acknowledged);
        let held = self
            .window_limited_us
            .saturating_sub(before.window_limited_us);
        // What is said of the rate may be old.
        let all_the_time =
            delivered.saturating_mul(2_000_000) > self.delivery_rate.saturating_mul(us);
        let found = self.pacing_rate < self.delivery_rate.saturating_mul(8) / 5;
        delivered > 0 && !self.app_limited && all_the_time && found && held < us / 4
    }
}

/// Where fields of `TCP_INFO` are; all of them are there since Linux 4.19.
mod field {
    use std::mem::offset_of;

    use libc::tcp_info;

    /// Bits: the first is tcpi_delivery_rate_app_limited. libc has no name for them everywhere.
    pub(super) const BITS: usize = offset_of!(tcp_info, tcpi_snd_rcv_wscale) + 1;
    pub(super) const UNACKED: usize = offset_of!(tcp_info, tcpi_unacked);
    pub(super) const RETRANS: usize = offset_of!(tcp_info, tcpi_total_retrans);
    pub(super) const PACING_RATE: usize = offset_of!(tcp_info, tcpi_pacing_rate);
    pub(super) const BYTES_ACKED: usize = offset_of!(tcp_info, tcpi_bytes_acked);
    pub(super) const DATA_SEGS_OUT: usize = offset_of!(tcp_info, tcpi_data_segs_out);
    pub(super) const DELIVERY_RATE: usize = offset_of!(tcp_info, tcpi_delivery_rate);
    pub(super) const RWND_LIMITED: usize = offset_of!(tcp_info, tcpi_rwnd_limited);
    pub(super) const DSACK_DUPS: usize = offset_of!(tcp_info, tcpi_dsack_dups);
    pub(super) const END: usize = DSACK_DUPS + size_of::<u32>();
}

/// Ask the kernel (`TCP_INFO`): it knows what was lost, which nobody above TCP sees but as delay, and
/// how fast what was sent is delivered.
///
/// # Errors
/// It is no TCP socket, or the kernel is older than 4.19.
#[expect(unsafe_code, reason = "no safe wrapper knows these fields of TCP_INFO")]
pub fn segments(socket: BorrowedFd<'_>) -> io::Result<Segments> {
    let mut info = [0_u8; mem::size_of::<libc::tcp_info>()];
    let mut length = libc::socklen_t::try_from(info.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` octets
    // into `info`, which lives through the call, and says how many in `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(length).is_ok_and(|length| length < field::END) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let [bits] = at(&info, field::BITS);
    let short = |field| u32::from_ne_bytes(at(&info, field));
    let long = |field| u64::from_ne_bytes(at(&info, field));
    Ok(Segments {
        sent: short(field::DATA_SEGS_OUT),
        lost: short(field::RETRANS).saturating_sub(short(field::DSACK_DUPS)),
        flying: short(field::UNACKED),
        acknowledged: long(field::BYTES_ACKED),
        delivery_rate: long(field::DELIVERY_RATE),
        app_limited: bits & if cfg!(target_endian = "big") { 0x80 } else { 1 } != 0,
        pacing_rate: long(field::PACING_RATE),
        window_limited_us: long(field::RWND_LIMITED),
    })
}

/// So many octets from there on; zeros if there are not so many.
fn at<const N: usize>(info: &[u8], offset: usize) -> [u8; N] {
    let from = info.get(offset..).unwrap_or_default();
    from.first_chunk().copied().unwrap_or([0; N])
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
        let first = segments(near.as_fd()).expect("TCP");
        assert_eq!((first.sent, first.lost), (0, 0));
        for n in 1..=3 {
            near.write_all(b"a few").expect("written");
            let counted = segments(near.as_fd()).expect("TCP");
            assert_eq!((counted.sent, counted.lost), (n, 0));
            // On loopback that is at once.
            let octets = counted.acknowledged - first.acknowledged;
            assert_eq!((counted.flying, octets), (0, 5 * u64::from(n)));
        }
        // Nobody waits for so little.
        let counted = segments(near.as_fd()).expect("TCP");
        assert!(
            counted.app_limited && counted.pacing_rate > 0,
            "{counted:?}"
        );
        assert!(!counted.waited(&first, 1000));
        let file = std::fs::File::open("/dev/null").expect("opened");
        assert!(segments(file.as_fd()).is_err());
    }

    #[test]
    fn what_waits_for_the_network_and_what_does_not() {
        // 10 Mbit/s for 300 ms.
        let (rate, us) = (1_250_000, 300_000);
        let full = Segments {
            acknowledged: rate * us / 1_000_000,
            delivery_rate: rate,
            pacing_rate: rate * 5 / 4,
            ..Segments::default()
        };
        let waited = |now: Segments| now.waited(&Segments::default(), us);
        assert!(waited(full));
        let not = [
            (
                "for the application",
                Segments {
                    app_limited: true,
                    ..full
                },
            ),
            (
                "now",
                Segments {
                    acknowledged: full.acknowledged / 3,
                    ..full
                },
            ),
            (
                "as it still looks",
                Segments {
                    pacing_rate: rate * 2,
                    ..full
                },
            ),
            (
                "for the receiver",
                Segments {
                    window_limited_us: us / 2,
                    ..full
                },
            ),
            ("at all", Segments::default()),
        ];
        for (why, segments) in not {
            assert!(!waited(segments), "{why}");
        }
    }
}
