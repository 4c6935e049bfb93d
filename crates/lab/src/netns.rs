//! Network namespaces without privileges: made, entered, and wired by `ip` and `nft`.
//!
//! A namespace lives as long as its descriptor or a process inside it, so nothing is left behind
//! however everything ends.

use std::{
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::{
    process::{getegid, geteuid},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// Why a network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The system allows this user no namespaces.
    #[error("this user may not make network namespaces")]
    Forbidden(#[source] io::Error),
    /// A namespace could not be made or entered.
    #[error("network namespace {name:?}")]
    Namespace {
        /// Its name here.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program is not installed.
    #[error("`{program}` could not be started; Debian has it in the package {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program refused what it was told.
    #[error("`{program}` in namespace {name:?} refused: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The namespace.
        name: String,
        /// Its words, and what it was told.
        said: String,
    },
}

/// Become root of a user namespace of our own, unless we are root: then this process may make
/// network namespaces. Only before there is a second thread.
///
/// # Errors
/// [`NetnsError::Forbidden`]: the system allows no user namespaces.
#[expect(unsafe_code, reason = "see below")]
pub fn become_root() -> Result<(), NetnsError> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(());
    }
    // SAFETY: no descriptors are unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|error| NetnsError::Forbidden(error.into()))?;
    // Ourselves and nobody else (user_namespaces(7)).
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {} 1", user.as_raw())),
        ("/proc/self/gid_map", format!("0 {} 1", group.as_raw())),
    ];
    for (path, map) in maps {
        fs::write(path, map).map_err(NetnsError::Forbidden)?;
    }
    Ok(())
}

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// A new one with nothing in it but `lo`, which is up.
    ///
    /// # Errors
    /// [`NetnsError::Namespace`].
    #[expect(unsafe_code, reason = "see below")]
    pub fn new(name: &str) -> Result<Self, NetnsError> {
        let made = aside(|| -> io::Result<OwnedFd> {
            // SAFETY: no descriptors are unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
            Ok(fs::File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made.map_err(|source| NetnsError::Namespace {
            name: name.to_owned(),
            source,
        })?;
        let namespace = Namespace {
            name: name.to_owned(),
            fd: Arc::new(fd),
        };
        namespace.ip(&["link set lo up".to_owned()])?;
        Ok(namespace)
    }

    /// Its name here; the system knows it by its descriptor only.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where another process of this user finds it while this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Does something on a thread inside.
    ///
    /// # Errors
    /// What `work` says, or [`NetnsError::Namespace`] without it having begun.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, NetnsError> {
        let done = aside(|| {
            enter(self.fd.as_fd())?;
            work()
        });
        done.map_err(|source| NetnsError::Namespace {
            name: self.name.clone(),
            source,
        })
    }

    /// Has a command run inside.
    #[expect(unsafe_code, reason = "see below")]
    pub fn start_inside(&self, command: &mut Command) {
        let fd = Arc::clone(&self.fd);
        // SAFETY: between fork and exec one system call is made and nothing is allocated.
        unsafe { command.pre_exec(move || enter(fd.as_fd())) };
    }

    /// Tells `ip` these lines.
    ///
    /// # Errors
    /// `ip` is missing, or refused one of them.
    pub fn ip(&self, lines: &[String]) -> Result<(), NetnsError> {
        self.tell("ip", "iproute2", &["-batch", "-"], &lines.join("\n"))
    }

    /// Gives `nft` these rules.
    ///
    /// # Errors
    /// `nft` is missing, or refused them.
    pub fn nft(&self, rules: &str) -> Result<(), NetnsError> {
        self.tell("nft", "nftables", &["-f", "-"], rules)
    }

    fn tell(
        &self,
        program: &'static str,
        package: &'static str,
        arguments: &[&str],
        text: &str,
    ) -> Result<(), NetnsError> {
        let missing = |source| NetnsError::Missing {
            program,
            package,
            source,
        };
        let mut command = Command::new(program);
        // Where they are, though it is not on every user's PATH.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]),
        );
        command
            .args(arguments)
            .env("PATH", path.unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        self.start_inside(&mut command);
        let mut child = command.spawn().map_err(missing)?;
        if let Some(mut input) = child.stdin.take() {
            // Who does not listen says why below.
            let _ = input.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().map_err(missing)?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(NetnsError::Refused {
            program,
            name: self.name.clone(),
            said: format!("{words}\n{text}"),
        })
    }
}

/// Does something on a thread of its own, which may go into other namespaces.
pub(crate) fn aside<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// This thread goes into a namespace.
fn enter(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        fd,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// This thread goes into the namespace at a path, such as [`Namespace::path`].
///
/// # Errors
/// There is none, or this user may not.
pub fn enter_path(path: &std::path::Path) -> io::Result<()> {
    enter(fs::File::open(path)?.as_fd())
}
