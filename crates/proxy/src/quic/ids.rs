//! Connection IDs that say, to us alone, whose worker they are.
//!
//! ```text
//!   nonce (7 octets) │ owner ⊕ mask (2) │ check (4)      mask, check = hash(nonce)
//! ```
//! The kernel gives a datagram to a worker by the addresses it comes from and goes to; a client
//! whose address changes may come to another worker, who hands it over by this. The hash is keyed
//! anew with each process, so that nobody outside learns from two IDs whether they belong together
//! (RFC 9000 §5.1), and those of another process are seen not to be ours. It is no proof: who
//! guesses a check has one worker look for a connection that it does not have.

use std::hash::{BuildHasher, RandomState};

use quinn::{ConnectionId, ConnectionIdGenerator};

const NONCE: usize = 7;
const OWNER: usize = 2;
const CHECK: usize = 4;
/// Octets of an ID.
pub(super) const LENGTH: usize = NONCE + OWNER + CHECK;

/// Makes and reads the IDs of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    hash: RandomState,
}

impl Ids {
    /// The worker whose connection an ID is, if it is one of ours.
    fn owner(&self, id: &[u8]) -> Option<u16> {
        let id: &[u8; LENGTH] = id.try_into().ok()?;
        let (nonce, rest) = id.split_first_chunk::<NONCE>()?;
        let (owner, check) = rest.split_first_chunk::<OWNER>()?;
        let (mask, expected) = self.keyed(*nonce);
        (check == expected).then(|| u16::from_be_bytes(*owner) ^ mask)
    }

    fn made(&self, nonce: [u8; NONCE], owner: u16) -> [u8; LENGTH] {
        let (mask, check) = self.keyed(nonce);
        let mut id = [0; LENGTH];
        let owner = (owner ^ mask).to_be_bytes();
        let octets = nonce.into_iter().chain(owner).chain(check);
        id.iter_mut().zip(octets).for_each(|(place, b)| *place = b);
        id
    }

    fn keyed(&self, nonce: [u8; NONCE]) -> (u16, [u8; CHECK]) {
        let [a, b, c, d, e, f, ..] = self.hash.hash_one(nonce).to_be_bytes();
        (u16::from_be_bytes([a, b]), [c, d, e, f])
    }
}

/// Makes the IDs of one worker.
pub(super) struct Generator {
    pub(super) ids: Ids,
    pub(super) owner: u16,
}

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE];
        let random = runtime::tls::provider().secure_random;
        // A system without randomness has no TLS either: the handshake fails.
        let _ = random.fill(&mut nonce);
        ConnectionId::new(&self.ids.made(nonce, self.owner))
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The worker whose a datagram is, if it says so: by the destination ID of its first packet (RFC
/// 8999 §5). What does not is whoever's it came to.
pub(super) fn owner(ids: &Ids, datagram: &[u8]) -> Option<u16> {
    let (first, rest) = datagram.split_first()?;
    let id = if first & 0x80 == 0 {
        rest.get(..LENGTH)?
    } else {
        let (length, rest) = rest.get(4..)?.split_first()?;
        rest.get(..usize::from(*length))?
    };
    ids.owner(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_whose_it_is() {
        let ids = Ids::default();
        for owner in [0, 1, 7, 300] {
            let mut generator = Generator {
                ids: ids.clone(),
                owner,
            };
            let (id, other) = (generator.generate_cid(), generator.generate_cid());
            assert_ne!(id, other);
            assert_eq!(ids.owner(&id), Some(owner));
            let short = [&[0x40][..], &id, &[7; 30]].concat();
            assert_eq!(super::owner(&ids, &short), Some(owner));
            let long = [&[0xc0, 0, 0, 0, 1, 13][..], &id, &[0; 30]].concat();
            assert_eq!(super::owner(&ids, &long), Some(owner));
            // Chosen by a client, cut off, or of another process.
            let chosen = [&[0xc0, 0, 0, 0, 1, 8][..], &[9; 40]].concat();
            assert_eq!(super::owner(&ids, &chosen), None);
            assert_eq!(super::owner(&ids, &short[..13]), None);
            assert_eq!(super::owner(&Ids::default(), &short), None);
        }
        assert_eq!(super::owner(&ids, &[]), None);
    }
}
