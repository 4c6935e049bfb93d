//! The state folder: what must be there before anything can be served.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use base::WallTime;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pki::{Authority, NodeKey, Planet};
use runtime::file;

/// The largest file read from the folder, in bytes.
const MAX_FILE: usize = 64 << 10;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The file system refused.
    #[error("{step} {path} failed")]
    File {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is not a text")]
    Text {
        /// Which.
        path: PathBuf,
    },
    /// The authority's file is damaged.
    #[error("{path} does not hold the fabric CA")]
    Authority {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: pki::IssueError,
    },
    /// A key is damaged or could not be made.
    #[error("{path} does not hold a private key")]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: pki::KeyError,
    },
    /// The folder belongs to another planet.
    #[error("the state folder belongs to planet {have}, not {wanted}: give another --home")]
    OtherPlanet {
        /// The folder's.
        have: Planet,
        /// The one asked for.
        wanted: Planet,
    },
}

/// What the state folder holds.
pub(crate) struct Home {
    folder: PathBuf,
    pub(crate) authority: Arc<Authority>,
    /// The controller's own key: fabric listener, API and bundle signatures.
    pub(crate) key: NodeKey,
    pub(crate) admin_token: String,
}

impl Home {
    /// Opens the folder, and fills what is missing: the CA, the key, the administrator's token.
    pub(crate) fn open(folder: &Path, planet: &Planet, now: WallTime) -> Result<Self, HomeError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("creating", folder))?;
        let authority = Arc::new(authority(&folder.join("ca.pem"), planet, now)?);
        let key = controller_key(&folder.join("controller-key.pem"))?;
        let admin_token = admin_token(&folder.join("admin.token"))?;
        let home = Home {
            folder: folder.to_owned(),
            authority,
            key,
            admin_token,
        };
        home.write(
            "api-ca.pem",
            home.authority.certificate_pem().as_bytes(),
            0o644,
        )?;
        Ok(home)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
        let path = self.path(name);
        file::write_atomic(&path, bytes, mode).map_err(failed("writing", &path))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), HomeError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing", &path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn authority(path: &Path, planet: &Planet, now: WallTime) -> Result<Authority, HomeError> {
    let wrong = |source| HomeError::Authority {
        path: path.to_owned(),
        source,
    };
    let Some(pem) = read(path)? else {
        let authority = Authority::create(planet, now).map_err(wrong)?;
        write_secret(path, &authority.to_pem())?;
        return Ok(authority);
    };
    let authority = Authority::from_pem(&pem).map_err(wrong)?;
    if authority.planet() != planet {
        let (have, wanted) = (authority.planet().clone(), planet.clone());
        return Err(HomeError::OtherPlanet { have, wanted });
    }
    Ok(authority)
}

fn controller_key(path: &Path) -> Result<NodeKey, HomeError> {
    let wrong = |source| HomeError::Key {
        path: path.to_owned(),
        source,
    };
    if let Some(pem) = read(path)? {
        return NodeKey::from_pem(&pem).map_err(wrong);
    }
    let key = NodeKey::generate().map_err(wrong)?;
    write_secret(path, &key.to_pem())?;
    Ok(key)
}

fn admin_token(path: &Path) -> Result<String, HomeError> {
    if let Some(token) = read(path)?
        .map(|t| t.trim_ascii().to_owned())
        .filter(|t| t.len() >= 32)
    {
        return Ok(token);
    }
    let bytes = pki::random::<32>().map_err(|source| HomeError::Key {
        path: path.to_owned(),
        source,
    })?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    write_secret(path, &format!("{token}\n"))?;
    Ok(token)
}

fn read(path: &Path) -> Result<Option<String>, HomeError> {
    match file::read_limited(path, MAX_FILE) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| HomeError::Text {
                path: path.to_owned(),
            }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("reading", path)(e)),
    }
}

fn write_secret(path: &Path, text: &str) -> Result<(), HomeError> {
    file::write_atomic(path, text.as_bytes(), 0o600).map_err(failed("writing", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |source| HomeError::File { step, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_kept_and_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let now = WallTime::from_unix_seconds(1_800_000_000);
        let open = |planet: &str| Home::open(&path, &planet.parse().expect("a planet"), now);
        let first = open("earth.example").expect("made");
        let again = open("earth.example").expect("read");
        assert_eq!(first.admin_token, again.admin_token);
        assert_eq!(first.key.spki_sha256(), again.key.spki_sha256());
        assert_eq!(first.authority.spki_sha256(), again.authority.spki_sha256());
        for (name, mode) in [
            ("", 0o700),
            ("ca.pem", 0o600),
            ("controller-key.pem", 0o600),
            ("admin.token", 0o600),
            ("api-ca.pem", 0o644),
        ] {
            let found = fs::metadata(path.join(name))
                .expect(name)
                .permissions()
                .mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
        let public = fs::read_to_string(path.join("api-ca.pem")).expect("read");
        assert!(!public.contains("PRIVATE KEY"));
        let error = open("mars.example").err().expect("another planet");
        assert!(matches!(error, HomeError::OtherPlanet { .. }), "{error}");
        fs::write(path.join("ca.pem"), "no PEM").expect("written");
        let error = open("earth.example").err().expect("damaged");
        assert!(matches!(error, HomeError::Authority { .. }), "{error}");
    }
}
