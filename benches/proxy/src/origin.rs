//! The origin: HTTP/1.1 with as little work as possible, on one thread.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

/// 1 KiB, and 1 MiB at `/1m`.
const SMALL: usize = 1 << 10;
const LARGE: usize = 1 << 20;

/// Answer every request until the process ends.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("a runtime")?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind(address)
            .await
            .context("the origin's address")?;
        loop {
            let (stream, _) = listener.accept().await.context("accepting")?;
            #[expect(
                clippy::disallowed_methods,
                reason = "a bench uses no room of ours; the process is killed in the end"
            )]
            tokio::task::spawn_local(async move {
                // A connection that breaks is over.
                let _ = attend(stream).await;
            });
        }
    })
}

fn answer(body: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: text/plain\r\ncontent-length: {body}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + body, b'x');
    answer
}

async fn attend(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (small, large) = (answer(SMALL), answer(LARGE));
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        // Requests have no body here.
        while let Some(end) = buffer.windows(4).position(|octets| octets == b"\r\n\r\n") {
            let answer = if buffer.starts_with(b"GET /1m ") {
                &large
            } else {
                &small
            };
            stream.write_all(answer).await?;
            buffer.drain(..end + 4);
        }
    }
}
