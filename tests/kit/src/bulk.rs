//! One connection of TCP that carries as much as it can, for comparison.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// Sends for so long, with this congestion control.
///
/// # Errors
/// What the system said: it does not have that one, or nobody listens.
pub fn send(to: SocketAddr, congestion: &str, during: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    socket2::SockRef::from(&stream).set_tcp_congestion(congestion.as_bytes())?;
    let octets = vec![0; 64 << 10];
    let end = runtime::now() + during;
    while runtime::now() < end {
        stream.write_all(&octets)?;
    }
    Ok(())
}

/// Takes one connection and reads until it ends; octets a second, from the first on.
///
/// # Errors
/// What the system said.
pub fn receive(at: SocketAddr) -> io::Result<u64> {
    let (mut stream, _) = TcpListener::bind(at)?.accept()?;
    drain(&mut stream, None)
}

/// Reads until the end, or for so long; octets a second, from the first on.
///
/// # Errors
/// What the system said.
pub fn drain(stream: &mut TcpStream, during: Option<Duration>) -> io::Result<u64> {
    let mut octets = vec![0; 64 << 10];
    let mut count = stream.read(&mut octets)?;
    let began = runtime::now();
    while during.is_none_or(|during| runtime::now().since(began) < during) {
        match stream.read(&mut octets)? {
            0 => break,
            more => count += more,
        }
    }
    let took = runtime::now().since(began).as_millis().max(1);
    let count = u128::try_from(count).unwrap_or_default();
    Ok(u64::try_from(count * 1000 / took).unwrap_or(u64::MAX))
}
