//! One JSON message a line.

use std::{io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A peer that does not take a line within this time is too slow and is cut.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The message as a line, with its line feed.
pub(crate) fn line(message: &impl Serialize) -> serde_json::Result<Bytes> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Reads lines of at most `limit` bytes.
pub(super) struct Lines<R> {
    from: R,
    limit: usize,
    /// Received, not yet given out; never much longer than `limit`.
    buffer: BytesMut,
    /// What of `buffer` is known to hold no line feed.
    searched: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(from: R, limit: usize) -> Self {
        Lines {
            from,
            limit,
            buffer: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next message; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            let unsearched = &self.buffer[self.searched..];
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
                return serde_json::from_slice(&line).map(Some).map_err(invalid);
            }
            self.searched = self.buffer.len();
            if self.searched > self.limit {
                let error = format!("a line has more than {} bytes", self.limit);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                let cut = !self.buffer.is_empty();
                return if cut {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(None)
                };
            }
        }
    }
}

/// Writes a line within a bound of time.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), line: &[u8]) -> io::Result<()> {
    let write = async {
        to.write_all(line).await?;
        to.flush().await
    };
    tokio::time::timeout(WRITE_TIMEOUT, write)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Writes a message within a bound of time.
pub(super) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    write(to, &line(message)?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_whole() {
        let mut lines = Lines::new(&b"1\n22\n333"[..], 100);
        assert_eq!(lines.next::<u32>().await.expect("a line"), Some(1));
        assert_eq!(lines.next::<u32>().await.expect("a line"), Some(22));
        let error = lines.next::<u32>().await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let long = [b'1'; 5000];
        let error = Lines::new(&long[..], 100)
            .next::<u32>()
            .await
            .expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = Lines::new(&b"{\n"[..], 100)
            .next::<u32>()
            .await
            .expect_err("not JSON");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
