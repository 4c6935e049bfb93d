//! What frames that ask for nothing may cost (RFC 9113 §10.5).

use std::time::Duration;

use base::Instant;

use super::frame::{Code, Head, kind};

/// What they may cost, beyond what was earned, in a span of [`SPAN`].
const ALLOWANCE: u32 = 1_000;
const SPAN: Duration = Duration::from_secs(10);
/// So many octets that the client is sent earn one: who gets much has windows to open.
const OCTETS: usize = 16;

#[derive(Debug)]
pub(super) struct Thrift {
    balance: u32,
    /// When the allowance was last given.
    given: Instant,
}

impl Thrift {
    pub(super) const fn new(now: Instant) -> Self {
        Thrift {
            balance: ALLOWANCE,
            given: now,
        }
    }

    fn earn(&mut self, much: u32) {
        self.balance = self.balance.saturating_add(much).min(ALLOWANCE);
    }

    /// So many octets go to the client.
    pub(super) fn sent(&mut self, octets: usize) {
        let earned = u32::try_from(octets / OCTETS).unwrap_or(u32::MAX);
        self.earn(earned);
    }

    /// A request earns; what asks for nothing costs, and most what has to be answered. The clock
    /// is read only when the allowance is used up.
    pub(super) fn charge(&mut self, head: Head, now: impl Fn() -> Instant) -> Result<(), Code> {
        let cost = match head.kind {
            kind::HEADERS => {
                self.earn(1);
                return Ok(());
            }
            // Looked at without its padding.
            kind::DATA => return Ok(()),
            kind::PING => 3,
            kind::SETTINGS | kind::RST_STREAM => 2,
            _ => 1,
        };
        self.pay(cost, now)
    }

    /// Something costs so much.
    pub(super) fn pay(&mut self, cost: u32, now: impl Fn() -> Instant) -> Result<(), Code> {
        if self.balance < cost {
            let now = now();
            if now.since(self.given) < SPAN {
                return Err(Code::EnhanceYourCalm);
            }
            self.given = now;
            self.balance = ALLOWANCE;
        }
        let left = self.balance.checked_sub(cost);
        self.balance = left.ok_or(Code::EnhanceYourCalm)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Head = Head {
        length: 8,
        kind: kind::PING,
        flags: 0,
        stream: 0,
    };

    fn pings(thrift: &mut Thrift, count: u32, now: Instant) -> Result<(), Code> {
        (0..count).try_for_each(|_| thrift.charge(PING, || now))
    }

    #[test]
    fn a_flood_is_what_brings_nothing_for_long() {
        let begin = Instant::ZERO;
        let mut thrift = Thrift::new(begin);
        assert_eq!(pings(&mut thrift, 333, begin), Ok(()));
        assert_eq!(pings(&mut thrift, 1, begin), Err(Code::EnhanceYourCalm));
        // Whoever takes ten seconds for it is only slow, and who is sent much may say much.
        let later = begin + SPAN;
        assert_eq!(pings(&mut thrift, 333, later), Ok(()));
        for _ in 0..10 {
            thrift.sent(100_000);
            assert_eq!(pings(&mut thrift, 330, later), Ok(()));
        }
        assert!(pings(&mut thrift, 330, later).is_err());
    }
}
