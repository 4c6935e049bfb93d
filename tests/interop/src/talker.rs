//! A peer whose every octet the test decides, and which keeps all it hears.

use std::{
    io::{Read, Write},
    net::IpAddr,
    process::{ChildStdin, ChildStdout},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    lab::{Node, Process},
    pcap::Side,
    setup::Family,
    wire::{self, Open},
};
pub use wire::Update;

/// Dials, then carries octets both ways until the other end closes; `/dev/tcp` is bash's own. The
/// loop waits for a listener.
const BRIDGE: &str = "exec 4<&0
until { exec 3<>\"/dev/tcp/$0/179\"; } 2>/dev/null; do sleep 0.02; done
cat <&4 >&3 & cat <&3; kill $!";

/// One session from a node to a daemon.
pub struct Talker {
    node: Node,
    to: IpAddr,
    open: Open,
    heard: Arc<Mutex<Heard>>,
    process: Option<Process>,
}

#[derive(Default)]
struct Heard {
    octets: Vec<(Side, Vec<u8>)>,
    updates: Vec<Update>,
    established: bool,
    closed: Option<String>,
    stdin: Option<ChildStdin>,
}

impl Heard {
    fn say(&mut self, octets: &[u8]) {
        self.octets.push((Side::Test, octets.to_vec()));
        let sent = self.stdin.as_mut().map(|stdin| stdin.write_all(octets));
        if let Some(Err(error)) = sent {
            self.closed = Some(error.to_string());
        }
    }
}

impl Talker {
    /// Dials and waits until the session is established; dials again while it is turned away.
    #[must_use]
    pub fn connect(node: Node, to: IpAddr, open: Open) -> Self {
        let mut talker = Talker {
            node,
            to,
            open,
            heard: Arc::default(),
            process: None,
        };
        talker.dial();
        let what = format!("{}'s session with {to}", talker.node.name());
        kit::wait_until(&what, talker.node.remaining(), || {
            let (established, closed) = {
                let heard = talker.heard();
                (heard.established, heard.closed.clone())
            };
            match closed {
                Some(reason) => {
                    talker.dial();
                    Err(reason)
                }
                None if established => Ok(()),
                None => Err("neither established nor closed".to_owned()),
            }
        });
        talker
    }

    fn dial(&mut self) {
        let mut command = self.node.command("bash");
        command.arg("-c").arg(BRIDGE).arg(self.to.to_string());
        let (process, stdin, stdout) = self.node.pipe(command);
        let heard = Heard {
            stdin: Some(stdin),
            ..Heard::default()
        };
        self.heard = Arc::new(Mutex::new(heard));
        self.process = Some(process);
        self.say(&wire::open(&self.open));
        let heard = Arc::clone(&self.heard);
        std::thread::spawn(move || listen(&heard, stdout));
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    /// Sends octets.
    pub fn say(&self, octets: &[u8]) {
        self.heard().say(octets);
    }

    /// Every UPDATE heard so far.
    ///
    /// # Panics
    /// One of them could not be read.
    #[must_use]
    pub fn updates(&self) -> Vec<Update> {
        self.heard().updates.clone()
    }

    /// Everything said and heard on the session, for [`crate::pcap`].
    #[must_use]
    pub fn octets(&self) -> Vec<(Side, Vec<u8>)> {
        self.heard().octets.clone()
    }

    /// Whether a route was ever withdrawn.
    #[must_use]
    pub fn was_withdrawn(&self, family: Family, route: &str) -> bool {
        let of = |one: &(Family, String)| one.0 == family && one.1 == route;
        self.heard()
            .updates
            .iter()
            .any(|update| update.withdrawn.iter().any(of))
    }

    /// Waits for the announcement of a route: the last one heard, if nothing withdrew it since.
    #[must_use]
    pub fn wait_announced(&self, family: Family, route: &str) -> Update {
        self.wait(&format!("{family} {route}"), |update| {
            match last(update, family, route) {
                Some((update, true)) => Some(update.clone()),
                Some((_, false)) | None => None,
            }
        })
    }

    /// Waits until a route that was announced is withdrawn.
    pub fn wait_withdrawn(&self, family: Family, route: &str) {
        let what = format!("the end of {family} {route}");
        self.wait(&what, |updates| match last(updates, family, route) {
            Some((_, false)) => Some(()),
            Some((_, true)) | None => None,
        });
    }

    /// Waits until the other end closes the session.
    pub fn wait_closed(&self) {
        let what = format!("the end of {}'s session", self.node.name());
        kit::wait_until(&what, self.node.remaining(), || {
            self.heard().closed.clone().ok_or("still open")
        });
    }

    fn wait<T>(&self, what: &str, look: impl Fn(&[Update]) -> Option<T>) -> T {
        let what = format!("{} hears {what}", self.node.name());
        let look = || {
            let heard = self.heard();
            look(&heard.updates).ok_or_else(|| format!("{:?} {:?}", heard.closed, heard.updates))
        };
        kit::wait_until(&what, self.node.remaining(), look).0
    }
}

/// The last word about a route: whether it was announced.
fn last<'u>(updates: &'u [Update], family: Family, route: &str) -> Option<(&'u Update, bool)> {
    let of = |one: &(Family, String)| one.0 == family && one.1 == route;
    updates.iter().rev().find_map(|update| {
        let announced = update.announced.iter().any(of);
        (announced || update.withdrawn.iter().any(of)).then_some((update, announced))
    })
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until the end, and answers what the session needs.
fn listen(heard: &Mutex<Heard>, mut stdout: ChildStdout) {
    let (mut inbox, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let count = match stdout.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        inbox.extend(&buffer[..count]);
        let mut heard = lock(heard);
        while let Some((length, kind)) = whole(&inbox) {
            let message: Vec<u8> = inbox.drain(..length).collect();
            take(&mut heard, kind, &message);
        }
    }
    let mut heard = lock(heard);
    heard
        .closed
        .get_or_insert_with(|| "closed by the other end".to_owned());
    heard.stdin = None;
}

/// The length and the type of the first message, once it is whole.
fn whole(inbox: &[u8]) -> Option<(usize, u8)> {
    let length = usize::from(u16::from_be_bytes([*inbox.get(16)?, *inbox.get(17)?]));
    (length >= 19 && inbox.len() >= length).then(|| (length, inbox[18]))
}

fn take(heard: &mut Heard, kind: u8, message: &[u8]) {
    heard.octets.push((Side::Peer, message.to_vec()));
    match kind {
        1 => heard.say(&wire::keepalive()),
        2 => match Update::read(&message[19..]) {
            Ok(update) => heard.updates.push(update),
            Err(error) => heard.closed = Some(format!("unreadable, {error}: {message:02x?}")),
        },
        3 => heard.closed = Some(format!("NOTIFICATION {:02x?}", &message[19..])),
        4 => {
            // The first ends the opening; each later one is answered, which keeps the hold timer.
            if heard.established {
                heard.say(&wire::keepalive());
            }
            heard.established = true;
        }
        _ => {}
    }
}
