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

    /// The next value; `None` at the end of the stream. Dropping the future loses nothing: what
    /// was read of a line is gone on with by the next call.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let left = self.most.saturating_add(1).saturating_sub(self.line.len());
        (&mut self.io)
            .take(u64::try_from(left).unwrap_or(u64::MAX))
            .read_until(b'\n', &mut self.line)
            .await?;
        if self.line.is_empty() {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.line);
        if line.last() != Some(&b'\n') {
            let kind = if line.len() > self.most {
                "the line is too long"
            } else {
                "the stream ends in a line"
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, kind));
        }
        serde_json::from_slice(&line)
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

    #[tokio::test]
    async fn a_reader_that_stops_waiting_loses_nothing() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut lines = Lines::new(near, 8);
        for part in [&b"1"[..], b"2", b"34"] {
            far.write_all(part).await.expect("there is room");
            let next = lines.next::<u32>();
            tokio::select! {
                biased;
                line = next => panic!("{line:?} is not whole"),
                () = tokio::task::yield_now() => {}
            }
        }
        far.write_all(b"5\n6\n").await.expect("there is room");
        assert_eq!(lines.next().await.expect("a line"), Some(12345_u32));
        assert_eq!(lines.next().await.expect("a line"), Some(6_u32));
        far.write_all(b"12345").await.expect("there is room");
        tokio::select! {
            biased;
            line = lines.next::<u32>() => panic!("{line:?} is not whole"),
            () = tokio::task::yield_now() => {}
        }
        far.write_all(b"6789\n").await.expect("there is room");
        assert!(lines.next::<u32>().await.is_err(), "nine are too many");
    }
}
