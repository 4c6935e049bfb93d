//! Where the API is: flags and environment, then a home's `cli.env`, then the newest running `up`.
//!
//! Every running `sealane up` leaves a link `sealane-UID/run-PID` to its home below
//! `$XDG_RUNTIME_DIR` (or `/tmp`), and `current` beside it for the newest, so that a second
//! terminal needs no flags. The folder must belong to this user; a link counts only while its
//! `up` answers on its socket.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt, fs::PermissionsExt, fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{args::Connection, error::Failure};

/// The file in a home that says where its API is.
pub(crate) const ENV_FILE: &str = "cli.env";
/// The socket in a home on which its `up` listens.
pub(crate) const UP_SOCKET: &str = "up.sock";
const MAX_TOKEN_BYTES: usize = 4096;
const MAX_CA_BYTES: usize = 64 << 10;
const MAX_ENV_BYTES: usize = 64 << 10;
/// The most links that are looked at.
const MAX_RUNS: usize = 256;

/// Everything a client of the API needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// `https://HOST:PORT`.
    pub(crate) server: http::Uri,
    /// PEM text of the only CA that is trusted.
    pub(crate) ca: Vec<u8>,
    /// The bearer token. Secret.
    pub(crate) token: String,
}

/// The three places, wherever they were said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) server: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
}

impl Context {
    /// Finds the API.
    ///
    /// # Errors
    /// Usage, if nothing says where it is, or what is said cannot be used.
    pub(crate) fn find(connection: &Connection) -> Result<Self, Failure> {
        Context::load(places(connection, &runs_folder())?)
    }

    /// Reads what the places name.
    pub(crate) fn load(places: Places) -> Result<Self, Failure> {
        let missing = |flag: &str| {
            Failure::usage(format!("{flag} is missing"))
                .fix("give --server, --ca and --token-file together, or --home of a `sealane up`")
        };
        let server = places.server.ok_or_else(|| missing("--server"))?;
        let ca = places.ca.ok_or_else(|| missing("--ca"))?;
        let token_file = places.token_file.ok_or_else(|| missing("--token-file"))?;
        let uri: http::Uri = server
            .parse()
            .ok()
            .filter(|uri: &http::Uri| uri.scheme_str() == Some("https") && uri.host().is_some())
            .ok_or_else(|| {
                Failure::usage(format!("{server:?} is not the URL of an API"))
                    .at("--server")
                    .fix("write https://HOST:PORT")
            })?;
        let read = |path: &Path, limit, flag: &str| {
            runtime::file::read_limited(path, limit).map_err(|error| {
                Failure::usage(format!("{} cannot be read: {error}", path.display())).at(flag)
            })
        };
        let ca = read(&ca, MAX_CA_BYTES, "--ca")?;
        let token = read(&token_file, MAX_TOKEN_BYTES, "--token-file")?;
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let what = format!("{} holds no token", token_file.display());
            return Err(Failure::usage(what).at("--token-file"));
        }
        Ok(Context {
            server: uri,
            ca,
            token,
        })
    }
}

/// The home that is meant: the given one, or that of the newest running `up`.
pub(crate) fn home(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(home) => Ok(home.to_owned()),
        None => running(&runs_folder()).ok_or_else(|| {
            Failure::usage("no `sealane up` of this user is running")
                .fix("start one, or name its folder with --home DIR")
        }),
    }
}

/// What says where the API is, weakest last: flags and environment, home, running `up`.
fn places(connection: &Connection, runs: &Path) -> Result<Places, Failure> {
    let said = Places {
        server: connection.server.clone(),
        ca: connection.ca.clone(),
        token_file: connection.token_file.clone(),
    };
    if said.server.is_some() && said.ca.is_some() && said.token_file.is_some() {
        return Ok(said);
    }
    let home = match &connection.home {
        Some(home) => home.clone(),
        None if said != Places::default() => return Ok(said),
        None => running(runs).ok_or_else(|| {
            Failure::usage("nothing says where the API is, and no `sealane up` of this user runs")
                .fix(
                    "start `sealane up`, or give --server URL --ca FILE --token-file FILE \
                     (SEALANE_SERVER, SEALANE_CA, SEALANE_TOKEN_FILE), or --home DIR",
                )
        })?,
    };
    let file = home.join(ENV_FILE);
    let text = runtime::file::read_limited(&file, MAX_ENV_BYTES).map_err(|error| {
        Failure::usage(format!("{} cannot be read: {error}", file.display()))
            .at("--home")
            .fix("is this the home of a `sealane up`, and is it ready?")
    })?;
    let from_home = parse_env(&String::from_utf8_lossy(&text));
    Ok(Places {
        server: said.server.or(from_home.server),
        ca: said.ca.or(from_home.ca),
        token_file: said.token_file.or(from_home.token_file),
    })
}

/// Reads `export NAME='value'` lines; other lines are passed over.
fn parse_env(text: &str) -> Places {
    let mut places = Places::default();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let value = unquote(value);
        match name {
            "SEALANE_SERVER" => places.server = Some(value),
            "SEALANE_CA" => places.ca = Some(value.into()),
            "SEALANE_TOKEN_FILE" => places.token_file = Some(value.into()),
            _ => {}
        }
    }
    places
}

/// The text of a `cli.env`, which a shell can read too.
pub(crate) fn env_text(server: &str, ca: &Path, token_file: &Path) -> String {
    format!(
        "export SEALANE_SERVER={}\nexport SEALANE_CA={}\nexport SEALANE_TOKEN_FILE={}\n",
        quote(server),
        quote(&ca.display().to_string()),
        quote(&token_file.display().to_string())
    )
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn unquote(text: &str) -> String {
    let inner = text
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''));
    inner.map_or_else(|| text.to_owned(), |inner| inner.replace(r"'\''", "'"))
}

/// The folder of the links of this user's running `up`s.
pub(crate) fn runs_folder() -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_dir())
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    base.join(format!("sealane-{}", user()))
}

/// This user as the machine numbers it: `up --net ns` is root of a user namespace of its own.
fn user() -> u32 {
    let user = rustix::process::geteuid().as_raw();
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&maps, user).unwrap_or(user)
}

/// A user of this namespace in that around it (user_namespaces(7)).
fn outside(maps: &str, user: u32) -> Option<u32> {
    maps.lines().find_map(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count))) =
            (words.next(), words.next(), words.next())
        else {
            return None;
        };
        let offset = user.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// The home of the newest `up` that answers.
fn running(runs: &Path) -> Option<PathBuf> {
    if !is_ours(runs) {
        return None;
    }
    let mut links: Vec<(SystemTime, PathBuf)> = fs::read_dir(runs)
        .ok()?
        .take(MAX_RUNS)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry
                .file_name()
                .to_str()?
                .starts_with("run-")
                .then_some(())?;
            let made = entry.metadata().ok()?.modified().ok()?;
            Some((made, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    links.sort_by_key(|link| std::cmp::Reverse(link.0));
    let current = fs::read_link(runs.join("current")).ok();
    current
        .into_iter()
        .chain(links.into_iter().map(|(_, home)| home))
        .find(|home| UnixStream::connect(home.join(UP_SOCKET)).is_ok())
}

/// Only a folder of our own, closed to others, may say whom we give our token.
fn is_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| {
        found.is_dir()
            && found.uid() == rustix::process::geteuid().as_raw()
            && found.mode() & 0o077 == 0
    })
}

/// This run's link; gone when dropped.
#[derive(Debug)]
pub(crate) struct RunLink {
    runs: PathBuf,
    link: PathBuf,
    home: PathBuf,
}

impl RunLink {
    /// Makes `home` the newest running one. Links that lead nowhere are removed.
    pub(crate) fn make(runs: &Path, home: &Path) -> io::Result<Self> {
        match fs::create_dir(runs) {
            Ok(()) => fs::set_permissions(runs, fs::Permissions::from_mode(0o700))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if !is_ours(runs) {
            let what = format!("{} is not a folder of this user alone", runs.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        for entry in fs::read_dir(runs)?.take(MAX_RUNS).flatten() {
            if !entry.path().exists() {
                fs::remove_file(entry.path()).ok(); // another `up` may have been faster
            }
        }
        let link = runs.join(format!("run-{}", std::process::id()));
        fs::remove_file(&link).ok(); // of a process with our number, long gone
        symlink(home, &link)?;
        let fresh = runs.join(format!(".current-{}", std::process::id()));
        fs::remove_file(&fresh).ok();
        symlink(home, &fresh)?;
        fs::rename(&fresh, runs.join("current"))?;
        Ok(RunLink {
            runs: runs.to_owned(),
            link,
            home: home.to_owned(),
        })
    }
}

impl Drop for RunLink {
    fn drop(&mut self) {
        fs::remove_file(&self.link).ok();
        let current = self.runs.join("current");
        if fs::read_link(&current).is_ok_and(|home| home == self.home) {
            fs::remove_file(current).ok();
        }
        fs::remove_dir(&self.runs).ok(); // succeeds for the last one
    }
}

#[cfg(test)]
mod tests;
