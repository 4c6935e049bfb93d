//! The value of a Link route.

use super::{Value, head};
use crate::{
    cursor::Cursor,
    mesh::{Measure, Seq, State},
};

/// The value of a Link route (type 6): the tunnel from a to b, as a measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkHealth {
    /// The tunnel's state.
    pub state: State,
    /// None is defined yet; sent as 0, received as they come.
    pub flags: u8,
    /// Round trip, in µs.
    pub rtt: Measure,
    /// Its variation, in µs.
    pub jitter: Measure,
    /// Loss in 1/65535.
    pub loss: u16,
    /// Bandwidth in kbit/s; 0 where nobody measured.
    pub bandwidth_kbit_s: u32,
    /// The value's age at its originator.
    pub seq: Seq,
    /// Of what sort it is, if somebody said so.
    pub grade: Option<LinkGrade>,
    /// Share of the bandwidth that is used, in 1/65535; 0 where nobody measured, or there is room.
    pub load: u16,
}

/// Of what sort a link is: what follows the seq, where it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkGrade {
    /// 0 internet, 1 backbone, 2 direct, 3 peering, 4 transit; another counts as internet.
    pub class: u8,
    /// How many times as long as it is it counts; 0 is 1.
    pub cost: u16,
}

impl LinkHealth {
    /// The octets up to and including seq, which is the last field that is always there.
    pub(in crate::mesh) const LEN: usize = 16;

    pub(super) fn encode(&self) -> Value {
        // A load stands behind what is not said too.
        let unsaid = (self.load > 0).then_some(LinkGrade { class: 0, cost: 1 });
        let grade = self.grade.or(unsaid).map(|grade| {
            let [high, low] = grade.cost.to_be_bytes();
            [grade.class, 0, high, low]
        });
        let load = self.load.to_be_bytes();
        Value::of(&[
            &head(self.state, self.flags),
            &self.rtt.bits().to_be_bytes(),
            &self.jitter.bits().to_be_bytes(),
            &self.loss.to_be_bytes(),
            &self.bandwidth_kbit_s.to_be_bytes(),
            &self.seq.0.to_be_bytes(),
            grade.as_ref().map_or(&[], |grade| grade),
            if self.load > 0 { &load } else { &[] },
        ])
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(octets);
        Some(LinkHealth {
            state: State::in_head(c.u8()?)?,
            flags: c.u8()?,
            rtt: Measure::from_bits(c.u16()?),
            jitter: Measure::from_bits(c.u16()?),
            loss: c.u16()?,
            bandwidth_kbit_s: c.u32()?,
            seq: Seq(c.u32()?),
            grade: LinkGrade::decode(&mut c),
            load: c.u16().unwrap_or_default(),
        })
    }
}

impl LinkGrade {
    fn decode(c: &mut Cursor<'_>) -> Option<Self> {
        let class = c.u8()?;
        let _reserved = c.u8()?;
        let cost = c.u16()?;
        Some(LinkGrade { class, cost })
    }
}
