//! What a TCP connection sent and the other side's kernel has not acknowledged.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The octets that were written to a TCP connection and are not acknowledged yet (`SIOCOUTQ`,
/// tcp(7)). The other side's process need not read them to acknowledge them: if this stays above 0
/// for long the way between the two is broken, not its process busy.
///
/// # Errors
/// It is no TCP socket.
#[expect(unsafe_code, reason = "no safe wrapper knows SIOCOUTQ")]
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut octets: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes one int, into `octets`,
    // which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if result == 0 {
        Ok(u64::try_from(octets).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, os::fd::AsFd};

    use super::*;

    #[test]
    fn what_nobody_takes_is_counted_and_what_the_kernel_took_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let mut near = std::net::TcpStream::connect(address).expect("connected");
        let (far, _) = listener.accept().expect("accepted");
        near.write_all(b"a few").expect("written");
        // On loopback it is acknowledged at once, although nobody reads.
        assert_eq!(unacknowledged(near.as_fd()).expect("TCP"), 0);
        near.set_nonblocking(true).expect("set");
        while near.write(&[0; 65_536]).is_ok() {}
        assert!(unacknowledged(near.as_fd()).expect("TCP") > 0);
        drop(far);
        let file = tempfile::tempfile().expect("a file");
        assert!(unacknowledged(file.as_fd()).is_err());
    }
}
