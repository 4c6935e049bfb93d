//! What a node keeps on disk: who it is, and the last good state.
//!
//! ```text
//! STATE/node.json      planet, site, node, bootstrap addresses
//! STATE/node.key       its key (PKCS#8 PEM, 0600)
//! STATE/node.pem       its certificate chain
//! STATE/ca.pem         the fabric CA
//! STATE/bundle.ndjson  the chain of signed updates it runs
//! STATE/facts          what was announced last, if the data part is a process of its own
//! STATE/sequence       high-water mark of BGP sequence numbers
//! STATE/keys/          keys of token issuers, as they were fetched last
//! STATE/cache/         at a PoP: the chains of the gateways attached to it
//! STATE/admin.sock     its admin socket (0600)
//! STATE/node.sock      where the control part finds the data part, if they are two processes (0600)
//! STATE/control.sock   then: the control part's admin socket (0600)
//! ```

use std::{
    borrow::Borrow,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use api::sync::Signed;
use base::{Name, SiteName};
use runtime::{file, tls::Credentials};
use serde::{Deserialize, Serialize};

/// The most a file of a node may hold.
const MAX_FILE: usize = 64 << 20;

/// Who the node is and whom it asks first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeFile {
    pub(crate) planet: String,
    pub(crate) site: SiteName,
    pub(crate) node: Name,
    /// Of a gateway: tunnel addresses of PoPs. Of a PoP: the controller's fabric addresses.
    pub(crate) bootstrap: Vec<SocketAddr>,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("{path}: cannot be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path}: {reason}; move it away to begin anew with a new Token")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct State {
    dir: PathBuf,
}

/// Key, chain and trust of a node that has joined.
pub(crate) struct Material {
    pub(crate) node: NodeFile,
    pub(crate) key: pki::NodeKey,
    pub(crate) credentials: Credentials,
    pub(crate) verifier: pki::Verifier,
}

impl State {
    /// The state in `dir`, which is made if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        let state = State {
            dir: dir.to_owned(),
        };
        let wrong = |source| StateError::File {
            path: dir.to_owned(),
            source,
        };
        for folder in ["cache", "keys"] {
            std::fs::create_dir_all(dir.join(folder)).map_err(wrong)?;
        }
        Ok(state)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Has a node joined with this state?
    pub(crate) fn has_joined(&self) -> bool {
        self.path("node.json").exists()
    }

    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, StateError> {
        let path = self.path(name);
        file::read_limited(&path, MAX_FILE).map_err(|source| StateError::File { path, source })
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), StateError> {
        let path = self.path(name);
        file::write_atomic(&path, bytes, mode).map_err(|source| StateError::File { path, source })
    }

    fn text(&self, name: &str) -> Result<String, StateError> {
        let damaged = |_| self.damaged(name, "is not text");
        String::from_utf8(self.read(name)?).map_err(damaged)
    }

    fn damaged(&self, name: &str, reason: impl ToString) -> StateError {
        StateError::Damaged {
            path: self.path(name),
            reason: reason.to_string(),
        }
    }

    /// Everything that joining left.
    pub(crate) fn material(&self) -> Result<Material, StateError> {
        let node: NodeFile = serde_json::from_slice(&self.read("node.json")?)
            .map_err(|e| self.damaged("node.json", e))?;
        let key = pki::NodeKey::from_pem(&self.text("node.key")?)
            .map_err(|e| self.damaged("node.key", base::Chain(&e)))?;
        let chain = pki::chain_from_pem(&self.text("node.pem")?)
            .map_err(|e| self.damaged("node.pem", base::Chain(&e)))?;
        let verifier = pki::Verifier::from_pem(&self.text("ca.pem")?)
            .map_err(|e| self.damaged("ca.pem", base::Chain(&e)))?;
        let credentials = credentials(&key, chain);
        Ok(Material {
            node,
            key,
            credentials,
            verifier,
        })
    }

    /// Keep what joining brought; `node.json` last, because it says that the rest is there.
    pub(crate) fn save_material(
        &self,
        node: &NodeFile,
        key: &pki::NodeKey,
        chain: &[Vec<u8>],
        ca: &[u8],
    ) -> Result<(), StateError> {
        self.save_key(key)?;
        self.write("ca.pem", pki::certificate_pem(ca).as_bytes(), 0o644)?;
        self.save_chain(chain)?;
        let text = serde_json::to_vec_pretty(node).map_err(|e| self.damaged("node.json", e))?;
        self.write("node.json", &text, 0o644)
    }

    /// The key, if there is a good one: also before a certificate came back for it.
    pub(crate) fn key(&self) -> Option<pki::NodeKey> {
        pki::NodeKey::from_pem(&self.text("node.key").ok()?).ok()
    }

    pub(crate) fn save_key(&self, key: &pki::NodeKey) -> Result<(), StateError> {
        self.write("node.key", key.to_pem().as_bytes(), 0o600)
    }

    /// Keep a renewed certificate.
    pub(crate) fn save_chain<T: AsRef<[u8]>>(&self, chain: &[T]) -> Result<(), StateError> {
        self.write("node.pem", pki::chain_pem(chain).as_bytes(), 0o644)
    }

    /// The chain of signed updates in a file; empty if there is none. A line that is no envelope
    /// ends it.
    pub(crate) fn chain(&self, name: &str) -> Vec<Signed> {
        let text = self.read(name).unwrap_or_default();
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines
            .map_while(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    /// Keep a chain.
    pub(crate) fn save_signed(
        &self,
        name: &str,
        chain: &[impl Borrow<Signed>],
    ) -> Result<(), StateError> {
        let mut text = Vec::new();
        for signed in chain {
            serde_json::to_writer(&mut text, signed.borrow()).map_err(|e| self.damaged(name, e))?;
            text.push(b'\n');
        }
        self.write(name, &text, 0o600)
    }

    /// The high-water mark of BGP sequence numbers.
    pub(crate) fn sequence(&self) -> Option<plan::Seq> {
        let text = self.text("sequence").ok()?;
        Some(plan::Seq(text.trim().parse().ok()?))
    }

    pub(crate) fn save_sequence(&self, seq: plan::Seq) -> Result<(), StateError> {
        self.write("sequence", seq.0.to_string().as_bytes(), 0o644)
    }
}

/// Chain and key as TLS takes them.
pub(crate) fn credentials<T: AsRef<[u8]>>(key: &pki::NodeKey, chain: Vec<T>) -> Credentials {
    Credentials {
        chain: chain
            .into_iter()
            .map(|der| der.as_ref().to_vec().into())
            .collect(),
        key: rustls_pki_types::PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into(),
    }
}
