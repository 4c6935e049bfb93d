//! One JSON value a line, both ways, on any byte stream.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// The reading half: lines up to a bound.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    io: BufReader<R>,
    most: usize,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(io: R, most: usize) -> Self {
        Lines {
            io: BufReader::new(io),
            most,
            line: Vec::new(),
        }
    }

    /// The next value; `None` at the end of the stream. Not cancel safe once a line was begun: the
    /// caller drops the stream when it stops waiting.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.line.clear();
        let limit = u64::try_from(self.most)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let read = (&mut self.io)
            .take(limit)
            .read_until(b'\n', &mut self.line)
            .await?;
        if read == 0 {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            let kind = if read > self.most {
                "the line is too long"
            } else {
                "the stream ends in a line"
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, kind));
        }
        serde_json::from_slice(&self.line)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// Write one value as a line, and flush.
pub(crate) async fn send<T: Serialize>(
    io: &mut (impl AsyncWrite + Unpin),
    value: &T,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    io.write_all(&line).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], most: usize) -> io::Result<Option<u32>> {
        Lines::new(bytes, most).next().await
    }

    #[tokio::test]
    async fn lines_are_bounded_and_whole() {
        assert_eq!(read(b"17\n", 8).await.expect("a line"), Some(17));
        assert_eq!(read(b"", 8).await.expect("the end"), None);
        for bad in [&b"17"[..], b"123456789\n", b"x\n", b"\n"] {
            assert!(read(bad, 8).await.is_err(), "{bad:?}");
        }
    }
}
