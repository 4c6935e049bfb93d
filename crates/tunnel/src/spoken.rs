//! A head and the answer to it as octets, where nothing else frames them: on a stream of QUIC, and
//! inside a sealed one.
//!
//! ```text
//! who opens it:  length (2)  head, as text (StreamHead)  then octets of the stream
//! the other:     0           then octets of the stream, or
//!                1  status (2)  length (2)  a few words
//! ```

use std::io;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    head::{HeadError, MAX_HEAD_BYTES, StreamHead},
    links::OpenError,
};

/// The answer that the stream is taken.
pub(crate) const YES: u8 = 0;
const NO: u8 = 1;
const MAX_REASON: usize = 256;

/// What opens a stream.
///
/// # Errors
/// A part of the head does not keep its bounds.
pub(crate) fn opening(head: &StreamHead) -> Result<Vec<u8>, HeadError> {
    let text = head.to_text()?;
    let length = u16::try_from(text.len()).map_err(|_| HeadError::Text)?;
    let mut whole = Vec::with_capacity(2 + text.len());
    whole.extend_from_slice(&length.to_be_bytes());
    whole.extend_from_slice(&text);
    Ok(whole)
}

/// Asks for a stream, and waits for the answer.
///
/// # Errors
/// [`OpenError::Refused`], or [`OpenError::Closed`].
pub(crate) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    opening: &[u8],
) -> Result<(), OpenError> {
    let closed = |source| OpenError::Closed {
        head_sent: true,
        source,
    };
    let sent = async {
        stream.write_all(opening).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    if sent.await.map_err(closed)? == YES {
        return Ok(());
    }
    let (status, reason) = reason(stream).await.map_err(closed)?;
    Err(OpenError::Refused { status, reason })
}

async fn reason(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(StatusCode, String)> {
    let status = StatusCode::from_u16(stream.read_u16().await?);
    let length = usize::from(stream.read_u16().await?).min(MAX_REASON);
    let mut reason = vec![0; length];
    stream.read_exact(&mut reason).await?;
    Ok((
        status.map_err(|_| io::ErrorKind::InvalidData)?,
        String::from_utf8_lossy(&reason).into_owned(),
    ))
}

/// Waits for what is asked for.
///
/// # Errors
/// It broke; or what is wrong with the head, which is to be refused.
pub(crate) async fn hear(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<StreamHead, HeadError>> {
    let length = stream.read_u16().await?;
    if u32::from(length) > MAX_HEAD_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; usize::from(length)];
    stream.read_exact(&mut text).await?;
    Ok(StreamHead::from_text(&text))
}

/// The answer that it is refused, with a few words (visible ASCII, the first 256).
pub(crate) fn refusal(status: StatusCode, reason: &str) -> Vec<u8> {
    let visible = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let words: String = reason.chars().filter(visible).take(MAX_REASON).collect();
    let length = u16::try_from(words.len()).unwrap_or_default();
    let mut answer = vec![NO];
    answer.extend_from_slice(&status.as_u16().to_be_bytes());
    answer.extend_from_slice(&length.to_be_bytes());
    answer.extend_from_slice(words.as_bytes());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_is_heard_and_bounded() {
        let head = StreamHead::to("cart.shop.acme:80");
        let opening = opening(&head).expect("a head");
        assert_eq!(hear(&mut &*opening).await.expect("whole"), Ok(head));
        assert!(hear(&mut &opening[..9]).await.is_err());
        let mut long = vec![0xff; 70_000];
        assert!(hear(&mut &*long).await.is_err());
        long[..2].copy_from_slice(&[0, 9]);
        assert_eq!(
            hear(&mut &*long).await.expect("whole"),
            Err(HeadError::Text)
        );

        let many = "no\r\n".repeat(1_000);
        let answer = refusal(StatusCode::FORBIDDEN, &many);
        assert_eq!(answer.first(), Some(&NO));
        let (status, said) = reason(&mut &answer[1..]).await.expect("a refusal");
        assert_eq!((status, said), (StatusCode::FORBIDDEN, "no".repeat(128)));
    }
}
