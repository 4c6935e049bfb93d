//! Which routes a daemon has told: one bit each.

use std::ops::Range;

use anyhow::{Result, bail};

use crate::wire::{self, Family, HEADER};

/// A change of the one route that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It was announced.
    Announced,
    /// It was withdrawn.
    Withdrawn,
}

/// Reads framing and NLRI, nothing else.
#[derive(Debug)]
pub(crate) struct Counter {
    family: Family,
    bits: Vec<u64>,
    have: u32,
    limit: u32,
    watched: Option<u32>,
    own: Range<u32>,
    /// What the last octets said about the watched route.
    pub(crate) sights: Vec<Sight>,
    /// Routes that are none of ours.
    pub(crate) foreign: u64,
}

impl Counter {
    /// For routes below `limit`, one of which may be watched. Those of `own` are not counted:
    /// a daemon may tell them to whom it has them from (RFC 4271 does not forbid it), or not.
    pub(crate) fn new(
        family: Family,
        limit: u32,
        watched: Option<u32>,
        own: Range<u32>,
    ) -> Counter {
        let words = usize::try_from(limit.div_ceil(64)).unwrap_or(0);
        Counter {
            family,
            bits: vec![0; words],
            have: 0,
            limit,
            watched,
            own,
            sights: Vec::new(),
            foreign: 0,
        }
    }

    /// Routes announced and not withdrawn.
    pub(crate) fn have(&self) -> u32 {
        self.have
    }

    /// Takes all whole messages; returns how many octets they had.
    pub(crate) fn feed(&mut self, octets: &[u8]) -> Result<usize> {
        let mut taken = 0;
        while let Some((header, _)) = octets[taken..].split_first_chunk::<HEADER>() {
            let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
            if header[..16] != [0xff; 16] || length < HEADER {
                bail!("the framing is lost");
            }
            let Some(body) = octets[taken..].get(HEADER..length) else {
                break;
            };
            match header[18] {
                2 if self.update(body).is_none() => bail!("an UPDATE overruns: {body:02x?}"),
                2 | 4 | 5 => {}
                3 => bail!(
                    "NOTIFICATION {}/{}",
                    body.first().unwrap_or(&0),
                    body.get(1).unwrap_or(&0)
                ),
                kind => bail!("a message of type {kind}"),
            }
            taken += length;
        }
        Ok(taken)
    }

    /// Nothing: a length overruns.
    fn update(&mut self, body: &[u8]) -> Option<()> {
        let (withdrawn, body) = sized(body)?;
        let (mut attributes, announced) = sized(body)?;
        self.routes(Family::Ipv4, withdrawn, Sight::Withdrawn)?;
        while let [flags, code, rest @ ..] = attributes {
            let (value, rest) = if flags & 0x10 == 0 {
                let (length, rest) = rest.split_first()?;
                rest.split_at_checked(usize::from(*length))?
            } else {
                sized(rest)?
            };
            if let 14 | 15 = code {
                let (afi, value) = value.split_first_chunk::<2>()?;
                let (safi, mut nlri) = value.split_first()?;
                if *code == 14 {
                    let (length, next_hop) = nlri.split_first()?;
                    nlri = next_hop.get(usize::from(*length) + 1..)?;
                }
                let sight = if *code == 14 {
                    Sight::Announced
                } else {
                    Sight::Withdrawn
                };
                if let Some(family) = Family::from_code((u16::from_be_bytes(*afi), *safi)) {
                    self.routes(family, nlri, sight)?;
                }
            }
            attributes = rest;
        }
        if !attributes.is_empty() {
            return None;
        }
        self.routes(Family::Ipv4, announced, Sight::Announced)
    }

    fn routes(&mut self, family: Family, mut octets: &[u8], sight: Sight) -> Option<()> {
        while !octets.is_empty() {
            let (index, length) = wire::index(family, octets)?;
            if family == self.family {
                self.route(index, sight);
            }
            octets = &octets[length..];
        }
        Some(())
    }

    fn route(&mut self, index: u32, sight: Sight) {
        if index >= self.limit {
            self.foreign += 1;
            return;
        }
        if self.own.contains(&index) {
            return;
        }
        let word = usize::try_from(index / 64).ok();
        let Some(word) = word.and_then(|word| self.bits.get_mut(word)) else {
            return;
        };
        let bit = 1 << (index % 64);
        match sight {
            Sight::Announced => {
                self.have += u32::from(*word & bit == 0);
                *word |= bit;
            }
            Sight::Withdrawn => {
                self.have -= u32::from(*word & bit != 0);
                *word &= !bit;
            }
        }
        if self.watched == Some(index) {
            self.sights.push(sight);
        }
    }
}

fn sized(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
