//! A line of UDP between a dialler and a listener: as fast, and for as large datagrams, as a test says.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// What waits for a line is dropped when it would take longer.
const QUEUE: Duration = Duration::from_millis(50);

pub(super) struct Line {
    /// Where to dial.
    pub(super) address: SocketAddr,
    most: Arc<AtomicUsize>,
}

impl Line {
    /// A line to `listener`, toward which it carries `rate` octets a second, and back whatever comes.
    /// Its threads end with the test.
    pub(super) fn to(listener: SocketAddr, rate: u64) -> io::Result<Self> {
        let near = Arc::new(UdpSocket::bind(("127.0.0.1", 0))?);
        let far = Arc::new(UdpSocket::bind(("127.0.0.1", 0))?);
        far.connect(listener)?;
        let most = Arc::new(AtomicUsize::new(usize::MAX));
        let line = Line {
            address: near.local_addr()?,
            most: Arc::clone(&most),
        };
        let (sent, leaving) = mpsc::sync_channel::<(base::Instant, Vec<u8>)>(1 << 16);
        let (near_, far_, most_) = (Arc::clone(&near), Arc::clone(&far), Arc::clone(&most));
        thread::spawn(move || {
            let mut came_from = None;
            let mut free = runtime::now();
            let mut octets = [0; 1 << 16];
            while let Ok((length, from)) = near_.recv_from(&mut octets) {
                if came_from.replace(from).is_none() {
                    let (near, far, most) = (near_.clone(), far_.clone(), most_.clone());
                    thread::spawn(move || come_back(&near, &far, from, &most));
                }
                let now = runtime::now();
                let waits = free.since(now);
                if length <= most_.load(Ordering::Relaxed) && waits < QUEUE {
                    let takes = Duration::from_micros(length as u64 * 1_000_000 / rate);
                    free = now + waits + takes;
                    if sent.send((free, octets[..length].to_vec())).is_err() {
                        return;
                    }
                }
            }
        });
        thread::spawn(move || {
            while let Ok((at, octets)) = leaving.recv() {
                thread::sleep(at.since(runtime::now()));
                // Lost is lost.
                let _ = far.send(&octets);
            }
        });
        Ok(line)
    }

    /// Datagrams of more octets are lost from now on.
    pub(super) fn takes(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }
}

fn come_back(near: &UdpSocket, far: &UdpSocket, to: SocketAddr, most: &AtomicUsize) {
    let mut octets = [0; 1 << 16];
    while let Ok(length) = far.recv(&mut octets) {
        if length <= most.load(Ordering::Relaxed) {
            // See above.
            let _ = near.send_to(&octets[..length], to);
        }
    }
}
