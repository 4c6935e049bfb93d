//! Did the speaker before us end without a word?

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file that is there while a speaker runs. One that was left behind, on the same boot of the
/// system, tells that the speaker before us ended without a word and that what it told still
/// holds (RFC 4724 §4.1).
pub(crate) struct Mark(PathBuf);

impl Mark {
    /// The one in a state folder.
    pub(crate) fn new(state: &Path) -> Self {
        Mark(state.join("running"))
    }

    /// Which boot of the system this is.
    fn boot() -> io::Result<String> {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
    }

    /// Was it left behind?
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            (std::fs::read_to_string(&self.0), Self::boot()),
            (Ok(left), Ok(boot)) if left == boot
        )
    }

    /// A speaker runs.
    pub(crate) fn set(&self) -> io::Result<()> {
        std::fs::write(&self.0, Self::boot()?)
    }

    /// It ends, and its neighbours know.
    pub(crate) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.0)
    }
}
