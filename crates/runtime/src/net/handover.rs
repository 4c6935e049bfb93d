//! Listening sockets, handed from one process to the next (unix(7), `SCM_RIGHTS`): connections
//! that wait in them are lost by neither.
//!
//! For each socket a record of 64 octets, which is the address it was asked for (it may have
//! another one now, if that was port 0) and zeros, with the descriptor; the taker says one octet
//! for each. The last record is empty and has none.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

/// Octets of a record.
const RECORD: usize = 64;
/// The most sockets that are taken.
const MOST: usize = 4096;

/// Give copies of these sockets away.
///
/// # Errors
/// What the system said, or the taker went away.
pub async fn give(stream: &mut UnixStream, sockets: &[(SocketAddr, OwnedFd)]) -> io::Result<()> {
    for (address, socket) in sockets {
        let mut record = [0; RECORD];
        let text = address.to_string();
        let place = record.get_mut(..text.len());
        place
            .ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(text.as_bytes());
        stream
            .async_io(Interest::WRITABLE, || send(stream.as_fd(), &record, socket))
            .await?;
        stream.read_u8().await?;
    }
    stream.write_all(&[0; RECORD]).await
}

fn send(stream: BorrowedFd<'_>, record: &[u8; RECORD], socket: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(record)],
        &mut control,
        SendFlags::empty(),
    )?;
    if sent == RECORD {
        return Ok(());
    }
    Err(io::ErrorKind::WriteZero.into())
}

/// Take the sockets that are given.
///
/// # Errors
/// What the system said; the other side says something else, or more than 4,096 sockets.
pub async fn take(stream: &mut UnixStream) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut taken = Vec::new();
    while taken.len() <= MOST {
        let (record, socket) = stream
            .async_io(Interest::READABLE, || receive(stream.as_fd()))
            .await?;
        let text = record.split(|octet| *octet == 0).next().unwrap_or_default();
        let Some(socket) = socket else {
            return match text {
                [] => Ok(taken),
                _ => Err(io::ErrorKind::InvalidData.into()),
            };
        };
        let address = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok());
        taken.push((address.ok_or(io::ErrorKind::InvalidData)?, socket));
        stream.write_u8(0).await?;
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn receive(stream: BorrowedFd<'_>) -> io::Result<([u8; RECORD], Option<TcpListener>)> {
    let mut record = [0; RECORD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut record)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut socket = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut sockets) = message {
            socket = sockets.next();
        }
    }
    match received.bytes {
        RECORD => Ok((record, socket.map(TcpListener::from))),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::*;
    use crate::net::{Share, tcp_listener};

    #[tokio::test]
    async fn who_waits_in_a_socket_is_served_by_the_next_process() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let first = tcp_listener(any, Share::ReusePort).expect("a socket");
        let address = first.local_addr().expect("an address");
        let mut waiting = TcpStream::connect(address).await.expect("connected");
        let copy = first.as_fd().try_clone_to_owned().expect("a copy");
        let second = copy.try_clone().expect("a copy");
        let sockets = [(any, copy), (address, second)];
        let (mut old, mut new) = UnixStream::pair().expect("a pair");
        let (given, taken) = tokio::join!(give(&mut old, &sockets), take(&mut new));
        given.expect("given");
        let mut taken = taken.expect("taken");
        drop((first, sockets));
        assert_eq!(taken.len(), 2);
        assert_eq!(taken.pop().expect("two").0, address);
        let (asked, socket) = taken.pop().expect("one");
        assert_eq!(
            (asked, socket.local_addr().expect("an address")),
            (any, address)
        );
        let socket = tokio::net::TcpListener::from_std(socket).expect("a socket");
        let (mut served, _) = socket.accept().await.expect("accepted");
        served.write_all(b"x").await.expect("written");
        assert_eq!(waiting.read_u8().await.expect("read"), b'x');
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        for text in [&b"short"[..], &[b'x'; RECORD][..]] {
            let (mut old, mut new) = UnixStream::pair().expect("a pair");
            old.write_all(text).await.expect("written");
            let taking = tokio::time::timeout(Duration::from_secs(10), take(&mut new));
            assert!(taking.await.expect("in time").is_err());
        }
        let (old, mut new) = UnixStream::pair().expect("a pair");
        drop(old);
        assert!(take(&mut new).await.is_err());
    }
}
