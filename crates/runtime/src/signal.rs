//! Signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP: each one says that the configuration is to be read again.
#[derive(Debug)]
pub struct Reload(Signal);

impl Reload {
    /// Hear it from now on; it ends the process no more.
    ///
    /// # Errors
    /// The handler could not be installed.
    pub fn hear() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Reload)
    }

    /// The next one; several at a time may be one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for SIGINT or SIGTERM and names it.
///
/// # Errors
/// The handler could not be installed.
pub async fn shutdown() -> io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
