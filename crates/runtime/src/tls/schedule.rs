//! The key schedule of TLS 1.3 (RFC 8446 §7.1) over HMAC of aws-lc-rs.
//!
//! Rustls has it over the HKDF of aws-lc-rs, which keeps what it is given and extracts anew for
//! each secret that is expanded; a handshake derives some twenty. Here a key is prepared once.

use aws_lc_rs::hmac;
use rustls::{
    SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CipherSuiteCommon,
        hmac::{Hmac, Key, Tag},
        tls13::{Hkdf, HkdfUsingHmac},
    },
};

static SHA256: HkdfUsingHmac<'static> = HkdfUsingHmac(&Sha(hmac::HMAC_SHA256));
static SHA384: HkdfUsingHmac<'static> = HkdfUsingHmac(&Sha(hmac::HMAC_SHA384));

/// `suite` with this key schedule, if it has one.
pub(super) fn prepared(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(suite) = suite else {
        return suite;
    };
    let hkdf_provider: &'static dyn Hkdf = match suite.common.hash_provider.output_len() {
        32 => &SHA256,
        48 => &SHA384,
        _ => return SupportedCipherSuite::Tls13(suite),
    };
    // As long as the process, as those of rustls: there are three.
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider,
        aead_alg: suite.aead_alg,
        quic: suite.quic,
    })))
}

struct Sha(hmac::Algorithm);

impl Hmac for Sha {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        Box::new(Prepared(hmac::Key::new(self.0, key)))
    }

    fn hash_output_len(&self) -> usize {
        self.0.tag_len()
    }
}

struct Prepared(hmac::Key);

impl Key for Prepared {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        for piece in middle {
            context.update(piece);
        }
        context.update(last);
        Tag::new(context.sign().as_ref())
    }

    fn tag_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}
