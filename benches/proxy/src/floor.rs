//! As little as a proxy over sockets can do: octets are copied from connection to connection as they
//! come, on one thread. Nothing is parsed, chosen, counted or written down, so that four system
//! calls a request are all that is left.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context, Result};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, EventData, EventFlags},
};

/// Holds any request and any answer that is asked of it, so that one read takes what is there.
const BUFFER: usize = 64 << 10;
/// Of one wake-up.
const EVENTS: usize = 1 << 10;
/// The event of the listener; each other number is that of a connection's end.
const LISTENER: u64 = u64::MAX;

/// Give each connection one of its own to the origin, and copy, until the process ends.
pub(crate) fn serve(address: SocketAddr, origin: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).context("the floor's address")?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
    let data = EventData::new_u64(LISTENER);
    epoll::add(&poll, &listener, data, EventFlags::IN).context("watching the listener")?;
    let mut pairs: Vec<Option<[TcpStream; 2]>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = vec![0; BUFFER];
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None).context("waiting")?;
        for event in &events {
            let end = event.data.u64();
            if end == LISTENER {
                let pair = join(&listener, origin)?;
                for (side, stream) in (0..).zip(&pair) {
                    let data = EventData::new_u64(2 * pairs.len() as u64 + side);
                    epoll::add(&poll, stream, data, EventFlags::IN | EventFlags::ET)
                        .context("watching a connection")?;
                }
                pairs.push(Some(pair));
                continue;
            }
            let (pair, side) = (usize::try_from(end / 2)?, usize::try_from(end % 2)?);
            if let Some([client, server]) = &mut pairs[pair] {
                let (from, to) = if side == 0 {
                    (client, server)
                } else {
                    (server, client)
                };
                if !copy(from, to, &mut buffer).unwrap_or(false) {
                    pairs[pair] = None;
                }
            }
        }
    }
}

fn join(listener: &TcpListener, origin: SocketAddr) -> Result<[TcpStream; 2]> {
    let (client, _) = listener.accept().context("accepting")?;
    let server = TcpStream::connect(origin).context("the origin")?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok([client, server])
}

/// Does it go on?
fn copy(from: &mut TcpStream, to: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<bool> {
    let octets = from.read(buffer)?;
    to.write_all(&buffer[..octets])?;
    Ok(octets > 0)
}
