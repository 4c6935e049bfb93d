//! The 24 bytes that tie the connections of a link together.
//!
//! ```text
//! 0        8       10    11     12      13    14    16       24
//! "SEALANE\0" version role  trunk  uplink  first cost  link id   (network byte order)
//! ```
//! The dialler sends one on each connection, right after TLS; the acceptor answers with the same,
//! where `role` is the answer: 0 for welcome, or why not. `trunk` is the number of a data
//! connection among those of its link, in an answer how many of them the acceptor asks for; of a spare
//! connection it is the number of the data connection that it belongs to, and `cost` its own.
//! `uplink` is the number of the uplink that the dialler goes over, 0 if it has but one, and `cost`
//! how many times as long as it is that counts; in an answer the first is 0, and the second a number
//! by which the processes of one node are told apart. The lowest bit of `first`
//! says that the dialler wants the link to go before those of another transport, the next one that
//! whoever speaks, here or in an answer, stands by to take the place of another process of its node
//! ([`crate::standing`]), the third that it takes packets ([`crate::packets`]), and the fourth that
//! the first two octets of `link id` are such a number of the dialler's process. Only then does
//! HTTP/2 begin, or what data connections speak.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::standing::Standing;

const MAGIC: &[u8; 8] = b"SEALANE\0";
const VERSION: u16 = 1;
const LEN: usize = 24;
/// In `first`.
const FIRST: u8 = 1;
const STANDS_BY: u8 = 2;
const PACKETS: u8 = 4;
const PROCESS: u8 = 8;
/// Where in the number of a link that of its dialler's process begins.
const PROCESS_AT: u32 = 48;
/// Uplinks of a dialler at the most: over each it may have links.
const MOST_UPLINKS: u8 = 8;

/// What a connection of a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Pings and reserved streams; the dialler is the HTTP/2 client.
    Control,
    /// Streams opened by the dialler.
    Forward,
    /// Streams opened by the acceptor: the dialler is the HTTP/2 server.
    Reverse,
    /// Streams of both, without HTTP/2; any number of these, once the link is up.
    Data,
    /// Bulk of streams of a data connection; without HTTP/2 as well.
    Spare,
    /// All of a link that goes over QUIC.
    Quic,
}

impl Role {
    /// Those over TCP.
    pub(crate) const ALL: [Role; 5] = [
        Role::Control,
        Role::Forward,
        Role::Reverse,
        Role::Data,
        Role::Spare,
    ];
    /// Those that a link begins with.
    pub(crate) const FIRST: [Role; 3] = [Role::Control, Role::Forward, Role::Reverse];

    /// The name in TLS (RFC 7301).
    pub(crate) const fn alpn(self) -> &'static [u8] {
        match self {
            Role::Control => b"sealane-control/1",
            Role::Forward => b"sealane/1",
            Role::Reverse => b"sealane-rev/1",
            Role::Data => b"sealane-data/1",
            Role::Spare => b"sealane-spare/1",
            Role::Quic => b"sealane-quic/1",
        }
    }

    pub(crate) fn from_alpn(name: &[u8]) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.alpn() == name)
    }

    /// Its place in [`Role::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Role::Control => 0,
            Role::Forward => 1,
            Role::Reverse => 2,
            Role::Data => 3,
            Role::Spare => 4,
            Role::Quic => 5,
        }
    }

    /// What a preface calls it.
    const fn code(self) -> u8 {
        match self {
            Role::Control => 0,
            Role::Forward => 1,
            Role::Reverse => 2,
            Role::Data => 3,
            Role::Quic => 4,
            Role::Spare => 5,
        }
    }
}

/// The acceptor's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Welcome,
    /// The peer is of another planet, unknown or revoked.
    NotAdmitted,
    /// Too many at once.
    Busy,
    /// An answer of a later version.
    Other(u8),
}

impl Answer {
    const fn code(self) -> u8 {
        match self {
            Answer::Welcome => 0,
            Answer::NotAdmitted => 1,
            Answer::Busy => 2,
            Answer::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            0 => Answer::Welcome,
            1 => Answer::NotAdmitted,
            2 => Answer::Busy,
            code => Answer::Other(code),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PrefaceError {
    #[error("connection closed before its preface")]
    Io(#[from] std::io::Error),
    #[error("preface is not Sealane's")]
    Magic,
    #[error("preface has version {0}, we speak {VERSION}")]
    Version(u16),
    #[error("preface does not fit the connection")]
    Role,
}

/// What stands in one.
#[derive(Clone, Copy, Debug, Default)]
struct Preface {
    code: u8,
    trunk: u8,
    uplink: u8,
    first: u8,
    cost: u16,
    link: u64,
}

impl Preface {
    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[10] = self.code;
        bytes[11] = self.trunk;
        bytes[12] = self.uplink;
        bytes[13] = self.first;
        bytes[14..16].copy_from_slice(&self.cost.to_be_bytes());
        bytes[16..].copy_from_slice(&self.link.to_be_bytes());
        bytes
    }
}

async fn read<T: AsyncRead + Unpin>(io: &mut T) -> Result<Preface, PrefaceError> {
    let mut magic = [0; 8];
    io.read_exact(&mut magic).await?;
    if &magic != MAGIC {
        return Err(PrefaceError::Magic);
    }
    let version = io.read_u16().await?;
    let code = io.read_u8().await?;
    let trunk = io.read_u8().await?;
    let uplink = io.read_u8().await?;
    let first = io.read_u8().await?;
    let cost = io.read_u16().await?;
    let link = io.read_u64().await?;
    if version == VERSION {
        Ok(Preface {
            code,
            trunk,
            uplink,
            first,
            cost,
            link,
        })
    } else {
        Err(PrefaceError::Version(version))
    }
}

/// What a process says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) standing: Standing,
    /// A number that it has drawn: another process of its node has another one. 0: it has none.
    pub(crate) process: u16,
    /// It takes packets.
    pub(crate) packets: bool,
}

impl Introduction {
    /// In `first`. A process that leaves begins no link, and answers none.
    const fn bits(self) -> u8 {
        let stands_by = match self.standing {
            Standing::StandsBy => STANDS_BY,
            Standing::Serves | Standing::Leaves => 0,
        };
        let packets = if self.packets { PACKETS } else { 0 };
        stands_by | packets
    }

    const fn read(first: u8, process: u16) -> Self {
        Introduction {
            standing: Standing::first(first & STANDS_BY != 0),
            process,
            packets: first & PACKETS != 0,
        }
    }

    /// The number of a link that it dials, of what it has drawn: its own is the first part.
    pub(crate) const fn link(self, drawn: u64) -> u64 {
        match self.process {
            0 => drawn,
            process => (process as u64) << PROCESS_AT | drawn & ((1 << PROCESS_AT) - 1),
        }
    }
}

/// What a connection is in its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) link: u64,
    pub(crate) role: Role,
    /// Its number among data connections, or that of the one it belongs to.
    pub(crate) trunk: u8,
    /// The number of the uplink it goes over (0: the only one), and its cost; of a spare connection
    /// its own number.
    pub(crate) uplink: (u8, u16),
    /// It is to go before a link of another transport.
    pub(crate) first: bool,
    pub(crate) dialler: Introduction,
}

/// What an acceptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    /// How many data connections it asks for.
    pub(crate) trunks: u8,
    pub(crate) acceptor: Introduction,
}

/// The dialler's part: says what the connection is, whose link has its number from
/// [`Introduction::link`]; returns the answer.
pub(crate) async fn propose<T>(io: &mut T, part: Part) -> Result<Answered, PrefaceError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let proposed = Preface {
        code: part.role.code(),
        trunk: part.trunk,
        uplink: part.uplink.0,
        first: (u8::from(part.first) * FIRST)
            | part.dialler.bits()
            | (u8::from(part.dialler.process != 0) * PROCESS),
        cost: part.uplink.1,
        link: part.link,
    };
    io.write_all(&proposed.encode()).await?;
    io.flush().await?;
    let answer = read(io).await?;
    if answer.link == part.link {
        Ok(Answered {
            answer: Answer::from_code(answer.code),
            trunks: answer.trunk,
            acceptor: Introduction::read(answer.first, answer.cost),
        })
    } else {
        Err(PrefaceError::Role)
    }
}

/// The acceptor's first part: what a connection of this role is.
pub(crate) async fn expect<T>(io: &mut T, role: Role) -> Result<Part, PrefaceError>
where
    T: AsyncRead + Unpin,
{
    let proposed = read(io).await?;
    let process = match proposed.first & PROCESS {
        0 => 0,
        _ => (proposed.link >> PROCESS_AT) as u16,
    };
    if proposed.code == role.code() && proposed.uplink <= MOST_UPLINKS {
        Ok(Part {
            link: proposed.link,
            role,
            trunk: proposed.trunk,
            uplink: (proposed.uplink, proposed.cost),
            first: proposed.first & FIRST != 0,
            dialler: Introduction::read(proposed.first, process),
        })
    } else {
        Err(PrefaceError::Role)
    }
}

/// The acceptor's second part: its answer.
pub(crate) async fn answer<T>(io: &mut T, answer: Answered, link: u64) -> Result<(), PrefaceError>
where
    T: AsyncWrite + Unpin,
{
    let answer = Preface {
        code: answer.answer.code(),
        trunk: answer.trunks,
        first: answer.acceptor.bits(),
        cost: answer.acceptor.process,
        link,
        ..Preface::default()
    };
    io.write_all(&answer.encode()).await?;
    io.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_agree() {
        let (mut dialler, mut acceptor) = tokio::io::duplex(64);
        let introduction = Introduction {
            standing: Standing::StandsBy,
            process: 4712,
            packets: true,
        };
        let proposed = Part {
            link: introduction.link(u64::MAX),
            role: Role::Data,
            trunk: 3,
            uplink: (2, 300),
            first: true,
            dialler: introduction,
        };
        let answered = Answered {
            answer: Answer::NotAdmitted,
            trunks: 2,
            acceptor: Introduction {
                process: 4711,
                ..introduction
            },
        };
        let (asked, part) = tokio::join!(propose(&mut dialler, proposed), async {
            let part = expect(&mut acceptor, Role::Data).await.expect("a preface");
            answer(&mut acceptor, answered, part.link)
                .await
                .expect("answered");
            part
        });
        assert_eq!(asked.expect("an answer"), answered);
        assert_eq!(part, proposed);
        assert_eq!(part.link << 16, u64::MAX << 16, "what was drawn");
    }

    #[tokio::test]
    async fn foreign_bytes_are_named() {
        let link = 9 << PROCESS_AT | 9;
        let good = Preface {
            code: 1,
            link,
            ..Preface::default()
        };
        let good = good.encode();
        let change = |at: usize, to: u8| {
            let mut bytes = good;
            bytes[at] = to;
            bytes
        };
        let read = async |bytes: &[u8]| expect(&mut &bytes[..], Role::Forward).await;
        // Of an earlier version, the number of whose link says nothing.
        let part = read(&good).await.expect("a preface");
        assert_eq!((part.link, part.dialler), (link, Introduction::default()));
        assert!(matches!(
            read(&change(0, b'G')).await,
            Err(PrefaceError::Magic)
        ));
        assert!(matches!(
            read(&change(9, 2)).await,
            Err(PrefaceError::Version(2))
        ));
        assert!(matches!(
            read(&change(10, 0)).await,
            Err(PrefaceError::Role)
        ));
        assert!(matches!(read(&good[..20]).await, Err(PrefaceError::Io(_))));
    }
}
