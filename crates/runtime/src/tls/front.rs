//! The order in which a front takes cipher suites.

use std::sync::Arc;

use rustls::{CipherSuite, ServerConfig, crypto::CryptoProvider};

/// A server's TLS for clients of all kinds: whether AES or ChaCha20 is the client's word, since it
/// knows what its machine does quickly; of the keys of AES the short come first, as in the list of
/// Mozilla's intermediate configuration, since SHA-256 comes with them.
#[derive(Clone, Debug)]
pub struct Front {
    theirs: Arc<ServerConfig>,
    aes: Arc<ServerConfig>,
}

impl Front {
    /// `config` must have been made with [`provider`].
    pub(super) fn new(config: ServerConfig) -> Self {
        let mut aes = config.clone();
        aes.ignore_client_order = true;
        Front {
            theirs: Arc::new(config),
            aes: Arc::new(aes),
        }
    }

    /// For a client that offers `suites`, its favourite first.
    #[must_use]
    pub fn config(&self, suites: &[CipherSuite]) -> Arc<ServerConfig> {
        let prefers_aes = suites.iter().find_map(|suite| is_aes(*suite));
        Arc::clone(match prefers_aes {
            Some(true) => &self.aes,
            Some(false) | None => &self.theirs,
        })
    }
}

const AES_128: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];
const AES_256: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];
const CHACHA20: [CipherSuite; 3] = [
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Is it one of AES, if it is one that we know?
fn is_aes(suite: CipherSuite) -> Option<bool> {
    if AES_128.contains(&suite) || AES_256.contains(&suite) {
        return Some(true);
    }
    CHACHA20.contains(&suite).then_some(false)
}

/// The provider with AES of 128 bits before all others of its version of TLS.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&super::provider());
    // Stable, and a version is settled before a suite is.
    provider
        .cipher_suites
        .sort_by_key(|suite| !AES_128.contains(&suite.suite()));
    Arc::new(provider)
}
