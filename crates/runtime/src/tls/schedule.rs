//! The key schedule of TLS 1.3 (RFC 8446 §7.1) over one-shot hashes of aws-lc-rs.
//!
//! Rustls has it over the HKDF of aws-lc-rs, which keeps what it is given and extracts anew for
//! each secret that is expanded; a handshake derives some twenty. A context of its HMAC is copied
//! and cleaned for each, which takes longer than to hash a block of key again: what is hashed here
//! is short.

use aws_lc_rs::digest::{self, Algorithm};
use rustls::{
    SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CipherSuiteCommon,
        hmac::{Hmac, Key, Tag},
        tls13::{Hkdf, HkdfUsingHmac},
    },
};
use zeroize::Zeroize;

static SHA256: HkdfUsingHmac<'static> = HkdfUsingHmac(&Sha(&digest::SHA256));
static SHA384: HkdfUsingHmac<'static> = HkdfUsingHmac(&Sha(&digest::SHA384));

/// The longest block of these hashes.
const BLOCK: usize = 128;
/// A message and a block before it that are hashed where they were put together.
const SHORT: usize = 512;

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

struct Sha(&'static Algorithm);

impl Hmac for Sha {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        let mut block = [0; BLOCK];
        // RFC 2104 §2: what is longer than a block is hashed first.
        if key.len() > self.0.block_len() {
            let key = digest::digest(self.0, key);
            fill(&mut block, &[key.as_ref()]);
        } else {
            fill(&mut block, &[key]);
        }
        Box::new(Prepared {
            hash: self.0,
            block,
        })
    }

    fn hash_output_len(&self) -> usize {
        self.0.output_len()
    }
}

/// A key, as long as a block.
struct Prepared {
    hash: &'static Algorithm,
    block: [u8; BLOCK],
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.block.zeroize();
    }
}

impl Prepared {
    /// The hash of the key, each octet of it changed by `pad`, and of a message behind it.
    fn hashed(&self, pad: u8, message: &[&[u8]]) -> digest::Digest {
        let block_length = self.hash.block_len();
        let length = message.iter().map(|piece| piece.len()).sum::<usize>();
        let mut whole = [0; SHORT];
        let (key_block, rest) = whole.split_at_mut(block_length);
        for (place, octet) in key_block.iter_mut().zip(&self.block) {
            *place = octet ^ pad;
        }
        let (hashed, end) = if length <= rest.len() {
            let end = block_length + fill(rest, message);
            let hashed = digest::digest(self.hash, whole.get(..end).unwrap_or_default());
            (hashed, end)
        } else {
            let mut context = digest::Context::new(self.hash);
            context.update(key_block);
            message.iter().for_each(|piece| context.update(piece));
            (context.finish(), block_length)
        };
        // Octet by octet: no more than there is.
        whole.get_mut(..end).unwrap_or_default().zeroize();
        hashed
    }
}

impl Key for Prepared {
    /// RFC 2104 §2.
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        // A label and its context (RFC 8446 §7.1) have six pieces.
        let mut pieces = [&[][..]; 10];
        let inner = match pieces.get_mut(..middle.len() + 2) {
            Some(message) => {
                message[0] = first;
                message[1..=middle.len()].copy_from_slice(middle);
                message[middle.len() + 1] = last;
                self.hashed(0x36, message)
            }
            None => self.hashed(0x36, &[&[first][..], middle, &[last]].concat()),
        };
        Tag::new(self.hashed(0x5c, &[inner.as_ref()]).as_ref())
    }

    fn tag_len(&self) -> usize {
        self.hash.output_len()
    }
}

/// Put pieces one behind the other; how many octets that are. There is room for them.
fn fill(out: &mut [u8], pieces: &[&[u8]]) -> usize {
    let mut end = 0;
    for piece in pieces {
        if let Some(place) = out.get_mut(end..end + piece.len()) {
            place.copy_from_slice(piece);
            end += piece.len();
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;

    use super::*;

    /// The same as aws-lc-rs says, for keys and messages of all lengths, in any pieces.
    #[test]
    fn it_is_hmac() {
        let octets: Vec<u8> = (0..2000u32).map(|at| (at * 7 % 251) as u8).collect();
        for (sha, theirs) in [
            (Sha(&digest::SHA256), hmac::HMAC_SHA256),
            (Sha(&digest::SHA384), hmac::HMAC_SHA384),
        ] {
            for key in [0, 1, 32, 48, 63, 64, 65, 127, 128, 129, 500] {
                let key = &octets[..key];
                let (ours, theirs) = (sha.with_key(key), hmac::Key::new(theirs, key));
                for length in [0, 1, 32, 300, 383, 384, 385, 447, 448, 449, 512, 2000] {
                    let message = &octets[..length];
                    let expected = hmac::sign(&theirs, message);
                    let (one, two) = message.split_at(length / 3);
                    let many: Vec<&[u8]> = two.chunks(37).collect();
                    for tag in [
                        ours.sign(&[message]),
                        ours.sign_concat(one, &[two], &[]),
                        ours.sign_concat(one, &many, &[]),
                    ] {
                        assert_eq!(tag.as_ref(), expected.as_ref(), "{length}");
                    }
                }
            }
        }
    }
}
