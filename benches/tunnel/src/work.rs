//! What both ends do on a stream, whatever carries it.

use std::{future::Future, pin::Pin, rc::Rc};

use anyhow::{Result, bail};
use futures_util::future::try_join;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// A stream.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

pub(crate) type Stream = Box<dyn Duplex>;

/// Opens streams to the other end.
pub(crate) trait Open {
    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Stream>>>>;
}

pub(crate) type Opener = Rc<dyn Open>;

/// Octets of a small request and its answer.
pub(crate) const QUESTION: usize = 128;
pub(crate) const ANSWER: usize = 1024;
/// Octets of a big transfer that are written and read at once.
pub(crate) const PIECE: usize = 64 << 10;

const BULK: u8 = b'b';
const SMALL: u8 = b's';

/// The server's part, until the client ends.
pub(crate) async fn serve(mut stream: Stream) -> Result<()> {
    match stream.read_u8().await? {
        BULK => {
            let (mut room, mut total) = (vec![0; PIECE], 0_u64);
            loop {
                match stream.read(&mut room).await? {
                    0 => break,
                    count => total += count as u64,
                }
            }
            stream.write_u64(total).await?;
        }
        SMALL => {
            let (mut question, answer) = ([0; QUESTION], [7; ANSWER]);
            while stream.read_exact(&mut question).await.is_ok() {
                stream.write_all(&answer).await?;
                stream.flush().await?;
            }
        }
        _ => bail!("it is not known what to do"),
    }
    Ok(stream.shutdown().await?)
}

/// What whoever stands in between does: passes on what comes, both ways.
pub(crate) async fn pass(near: Stream, next: &Opener) -> Result<()> {
    let far = next.open().await?;
    let (from_near, to_near) = tokio::io::split(near);
    let (from_far, to_far) = tokio::io::split(far);
    try_join(copy(from_near, to_far), copy(from_far, to_near)).await?;
    Ok(())
}

async fn copy(mut from: ReadHalf<Stream>, mut to: WriteHalf<Stream>) -> Result<()> {
    let mut room = vec![0; PIECE];
    loop {
        match from.read(&mut room).await? {
            0 => break,
            count => to.write_all(room.get(..count).unwrap_or_default()).await?,
        }
    }
    Ok(to.shutdown().await?)
}

/// A stream for small requests.
pub(crate) async fn begin(opener: &Opener) -> Result<Stream> {
    let mut stream = opener.open().await?;
    stream.write_all(&[SMALL]).await?;
    Ok(stream)
}

/// One small request.
pub(crate) async fn ask(stream: &mut Stream) -> Result<()> {
    stream.write_all(&[1; QUESTION]).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; ANSWER]).await?;
    Ok(())
}

/// Sends until it is over; octets that have arrived.
pub(crate) async fn send(opener: &Opener, over: impl Fn() -> bool) -> Result<u64> {
    let mut stream = opener.open().await?;
    stream.write_all(&[BULK]).await?;
    let piece = vec![9; PIECE];
    while !over() {
        stream.write_all(&piece).await?;
    }
    stream.shutdown().await?;
    Ok(stream.read_u64().await?)
}
