//! One loopback /24 for one run.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use base::Rng;
use socket2::{Domain, Socket, Type};

/// The guard's port on host .254: above the range that Linux gives to outgoing connections.
const GUARD_PORT: u16 = 61_000;

/// How many subnets are tried.
const TRIES: u64 = 256;

/// A 127.R.S.0/24 (R in 64..=250) that no other run uses as long as this value lives.
///
/// A socket bound to 127.R.S.254:61000 without address reuse guards it, so the kernel decides
/// between parallel runs and frees the subnet whatever way the process ends.
#[derive(Debug)]
pub struct Subnet {
    network: Ipv4Addr,
    /// Held, never used.
    _guard: Socket,
}

/// Why no subnet could be held.
#[derive(Debug, thiserror::Error)]
pub enum SubnetError {
    /// Every subnet tried is held by another run.
    #[error("{TRIES} loopback subnets were tried and all are in use by other runs")]
    AllTaken,
    /// The guard could not be bound for another reason.
    #[error("a guard could not be bound in loopback subnet {network}/24")]
    Guard {
        /// The subnet.
        network: Ipv4Addr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Subnet {
    /// Holds a random free subnet.
    ///
    /// # Errors
    /// 256 subnets were taken, or the machine has no 127.0.0.0/8.
    pub fn hold() -> Result<Self, SubnetError> {
        let mut rng = Rng::new(RandomState::new().hash_one(std::process::id()));
        for _ in 0..TRIES {
            let octet = |n: u64| u8::try_from(n).unwrap_or(u8::MAX);
            let (r, s) = (octet(64 + rng.below(187)), octet(rng.below(256)));
            if let Some(subnet) = Self::try_hold(Ipv4Addr::new(127, r, s, 0))? {
                return Ok(subnet);
            }
        }
        Err(SubnetError::AllTaken)
    }

    /// Holds this very /24; `None` if another run does.
    ///
    /// # Errors
    /// The guard cannot be bound for another reason than that it is held.
    pub fn try_hold(network: Ipv4Addr) -> Result<Option<Self>, SubnetError> {
        let [a, b, c, _] = network.octets();
        let network = Ipv4Addr::new(a, b, c, 0);
        match guard(SocketAddr::from(([a, b, c, 254], GUARD_PORT))) {
            Ok(guard) => Ok(Some(Subnet {
                network,
                _guard: guard,
            })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(source) => Err(SubnetError::Guard { network, source }),
        }
    }

    /// The network's address, 127.R.S.0.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }
}

/// Bound and not listening: nothing can connect, and a second bind fails. Close-on-exec, so a
/// child does not prolong it.
fn guard(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
