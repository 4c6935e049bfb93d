//! This process and its parent.

use std::io;

use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};

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

/// How many descriptors this process may have open: as many as the system lets us, which is
/// asked for first (the limit that shells set is often 1,024).
#[must_use]
pub fn descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let wanted = Rlimit {
            current: limit.maximum,
            ..limit
        };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            limit = wanted;
        }
    }
    limit.current.unwrap_or(u64::MAX)
}
