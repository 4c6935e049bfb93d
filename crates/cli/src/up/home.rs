//! The folder of one planet: state, logs, sockets, and the loopback network it was made for.

use std::{
    fs, io,
    net::Ipv4Addr,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use lab::topology::Subnet;

use crate::{args::UpArgs, context::UP_SOCKET, error::Failure};

/// The folder of the nodes' states in a home.
pub(crate) const NODES: &str = "nodes";
/// What `up --json` printed, for `sealane lab`.
pub(crate) const REPORT: &str = "up.json";
/// The relay's control socket in a home.
pub(crate) const RELAY_SOCKET: &str = "relay.sock";
/// The control socket of the Internet between namespaces, in a home.
pub(crate) const WAN_SOCKET: &str = "wan.sock";
/// A Unix socket's path has at most 107 bytes; the longest below a home is
/// `nodes/factory/admin.sock` and the temporary name it may be made under.
const MAX_HOME_BYTES: usize = 70;
const MAX_LOG_TAIL: usize = 8 << 10;
/// How many lines of a log are shown when a process fails to start.
const TAIL_LINES: usize = 12;

/// The folder, and the temporary one it may be.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Home {
    /// Makes or opens the folder that the arguments ask for.
    pub(crate) fn open(args: &UpArgs) -> Result<Self, Failure> {
        let wrong = |error: io::Error| {
            Failure::usage(format!("the home cannot be made: {error}")).at("--home")
        };
        let home = match &args.home {
            Some(given) => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(given)
                    .map_err(wrong)?;
                Home {
                    path: fs::canonicalize(given).map_err(wrong)?,
                    temporary: None,
                }
            }
            None => {
                let mut folder = tempfile::Builder::new()
                    .prefix("sealane-")
                    .tempdir()
                    .map_err(wrong)?;
                folder.disable_cleanup(args.keep);
                let path = fs::canonicalize(folder.path()).map_err(wrong)?;
                Home {
                    path,
                    temporary: (!args.keep).then_some(folder),
                }
            }
        };
        let length = home.path.as_os_str().as_bytes().len();
        if length > MAX_HOME_BYTES {
            let what = format!("the home's path has {length} bytes, {MAX_HOME_BYTES} at most");
            return Err(Failure::usage(what)
                .at(home.path.display().to_string())
                .fix(
                    "Unix sockets below it would not work: choose a shorter path (TMPDIR, --home)",
                ));
        }
        for folder in ["logs", "tokens", "manifests", NODES] {
            let path = home.path.join(folder);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(wrong)?;
        }
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join(UP_SOCKET)
    }

    pub(crate) fn node(&self, site: &str) -> PathBuf {
        self.path.join(NODES).join(site)
    }

    pub(crate) fn token(&self, site: &str) -> PathBuf {
        self.path.join("tokens").join(site)
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.path.join("logs").join(format!("{process}.log"))
    }

    /// The last lines of a process's log, for people.
    pub(crate) fn log_tail(&self, process: &str) -> String {
        let path = self.log(process);
        let bytes = fs::read(&path).unwrap_or_default(); // no log: nothing to show
        let tail = &bytes[bytes.len().saturating_sub(MAX_LOG_TAIL)..];
        let text = String::from_utf8_lossy(tail).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        let shown: Vec<String> = last.iter().map(|line| crate::text::shown(line)).collect();
        format!(
            "its log {} ends:\n    {}",
            path.display(),
            shown.join("\n    ")
        )
    }

    /// Writes a file of ours whole, for this user alone.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        runtime::file::write_atomic(&path, bytes, 0o600).map_err(|error| {
            Failure::refused(format!("a file cannot be written: {error}"))
                .at(path.display().to_string())
        })?;
        Ok(path)
    }

    /// Holds the loopback network this home was made for, or a free one for a new home.
    pub(crate) fn subnet(&self) -> Result<Subnet, Failure> {
        let wrong = |error: lab::topology::SubnetError| {
            Failure::refused(base::Chain(&error).to_string())
                .fix("`up` needs the loopback network 127.0.0.0/8, as Linux has it")
        };
        let known = runtime::file::read_limited(&self.join("subnet"), 64).ok();
        let known = known.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(network) = known.and_then(|text| text.trim().parse::<Ipv4Addr>().ok()) else {
            let subnet = Subnet::hold().map_err(wrong)?;
            self.write("subnet", format!("{}\n", subnet.network()).as_bytes())?;
            return Ok(subnet);
        };
        Subnet::try_hold(network).map_err(wrong)?.ok_or_else(|| {
            Failure::refused(format!(
                "this home lives on {network}/24, which another run uses"
            ))
            .at(self.path.display().to_string())
            .fix("stop the other `sealane up`, or use another --home")
        })
    }

    /// Removes the folder if it is a temporary one.
    pub(crate) fn close(self) {
        if let Some(folder) = self.temporary {
            folder.close().ok(); // the janitor tries again
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(home: Option<PathBuf>) -> UpArgs {
        UpArgs {
            home,
            ..UpArgs::default()
        }
    }

    #[test]
    fn a_home_keeps_its_network() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::open(&args(Some(folder.path().join("h")))).expect("opened");
        let subnet = home.subnet().expect("held");
        let network = subnet.network();
        let failure = home.subnet().expect_err("held already");
        assert!(
            failure.to_string().contains("another run uses"),
            "{failure}"
        );
        drop(subnet);
        assert_eq!(home.subnet().expect("held again").network(), network);
    }

    #[test]
    fn a_temporary_home_goes_and_a_long_one_is_refused() {
        let home = Home::open(&args(None)).expect("opened");
        let path = home.path().to_owned();
        assert!(home.is_temporary() && path.join("logs").is_dir());
        home.close();
        assert!(!path.exists());
        let folder = tempfile::tempdir().expect("a folder");
        let long = folder.path().join("x".repeat(100));
        let failure = Home::open(&args(Some(long))).expect_err("too long");
        assert_eq!(failure.exit().code(), 2);
    }
}
