//! The 24 bytes that tie the connections of a link together.
//!
//! ```text
//! 0        8     10    11      16       24
//! "SEALANE\0" version role  zero  link id   (network byte order)
//! ```
//! The dialler sends one on each connection, right after TLS; the acceptor answers with the same,
//! where `role` is the answer: 0 for welcome, or why not. Only then does HTTP/2 begin.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: &[u8; 8] = b"SEALANE\0";
const VERSION: u16 = 1;
const LEN: usize = 24;

/// What a connection of a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Pings and reserved streams; the dialler is the HTTP/2 client.
    Control,
    /// Streams opened by the dialler.
    Forward,
    /// Streams opened by the acceptor: the dialler is the HTTP/2 server.
    Reverse,
}

impl Role {
    pub(crate) const ALL: [Role; 3] = [Role::Control, Role::Forward, Role::Reverse];

    /// The name in TLS (RFC 7301).
    pub(crate) const fn alpn(self) -> &'static [u8] {
        match self {
            Role::Control => b"sealane-control/1",
            Role::Forward => b"sealane/1",
            Role::Reverse => b"sealane-rev/1",
        }
    }

    pub(crate) fn from_alpn(name: &[u8]) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.alpn() == name)
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Role::Control => 0,
            Role::Forward => 1,
            Role::Reverse => 2,
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

fn encode(code: u8, link: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
    bytes[10] = code;
    bytes[16..].copy_from_slice(&link.to_be_bytes());
    bytes
}

async fn read<T: AsyncRead + Unpin>(io: &mut T) -> Result<(u8, u64), PrefaceError> {
    let mut magic = [0; 8];
    io.read_exact(&mut magic).await?;
    if &magic != MAGIC {
        return Err(PrefaceError::Magic);
    }
    let version = io.read_u16().await?;
    let code = io.read_u8().await?;
    let mut zero = [0; 5];
    io.read_exact(&mut zero).await?;
    let link = io.read_u64().await?;
    if version == VERSION {
        Ok((code, link))
    } else {
        Err(PrefaceError::Version(version))
    }
}

/// The dialler's part: says `role` and `link`, returns the answer.
pub(crate) async fn propose<T>(io: &mut T, role: Role, link: u64) -> Result<Answer, PrefaceError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let code = u8::try_from(role.index()).map_err(|_| PrefaceError::Role)?;
    io.write_all(&encode(code, link)).await?;
    io.flush().await?;
    let (code, echoed) = read(io).await?;
    if echoed == link {
        Ok(Answer::from_code(code))
    } else {
        Err(PrefaceError::Role)
    }
}

/// The acceptor's first part: the link a connection of this role belongs to.
pub(crate) async fn expect<T>(io: &mut T, role: Role) -> Result<u64, PrefaceError>
where
    T: AsyncRead + Unpin,
{
    let (code, link) = read(io).await?;
    if usize::from(code) == role.index() {
        Ok(link)
    } else {
        Err(PrefaceError::Role)
    }
}

/// The acceptor's second part.
pub(crate) async fn answer<T>(io: &mut T, answer: Answer, link: u64) -> Result<(), PrefaceError>
where
    T: AsyncWrite + Unpin,
{
    io.write_all(&encode(answer.code(), link)).await?;
    io.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_agree() {
        let (mut dialler, mut acceptor) = tokio::io::duplex(64);
        let (asked, link) = tokio::join!(propose(&mut dialler, Role::Reverse, 7), async {
            let link = expect(&mut acceptor, Role::Reverse)
                .await
                .expect("a preface");
            answer(&mut acceptor, Answer::NotAdmitted, link)
                .await
                .expect("answered");
            link
        });
        assert_eq!((asked.expect("an answer"), link), (Answer::NotAdmitted, 7));
    }

    #[tokio::test]
    async fn foreign_bytes_are_named() {
        let good = encode(1, 9);
        let change = |at: usize, to: u8| {
            let mut bytes = good;
            bytes[at] = to;
            bytes
        };
        let read = async |bytes: &[u8]| expect(&mut &bytes[..], Role::Forward).await;
        assert!(matches!(read(&good).await, Ok(9)));
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
