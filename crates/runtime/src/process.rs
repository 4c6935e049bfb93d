//! This process and its parent.

use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Asks the kernel to kill this process when the thread that started it ends.
///
/// # Errors
/// The kernel refused, or the parent was gone already (`ConnectionAborted`).
pub fn die_with_parent() -> io::Result<()> {
    let before = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that died before the call sends no signal; its place is taken by another.
    if getppid() != before || before.is_none() {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the parent is gone",
        ));
    }
    Ok(())
}
