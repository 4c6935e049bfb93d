//! Of what sort a link is, and what that is worth.

use std::{fmt, time::Duration};

/// Over what a link goes, as somebody said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkClass {
    /// A line of one's own, or one that is paid for its quality.
    Backbone,
    /// A cable between the two sites.
    Direct,
    /// The two networks meet.
    Peering,
    /// Over a network that both pay.
    Transit,
    /// Over whatever there is: what is not said.
    #[default]
    Internet,
}

impl LinkClass {
    /// How much of a link's length counts, in percent: of two ways that are not much different the
    /// better sort is taken.
    #[must_use]
    pub const fn percent(self) -> u32 {
        match self {
            LinkClass::Backbone | LinkClass::Direct => 70,
            LinkClass::Peering => 80,
            LinkClass::Transit => 90,
            LinkClass::Internet => 100,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            LinkClass::Backbone => "backbone",
            LinkClass::Direct => "direct",
            LinkClass::Peering => "peering",
            LinkClass::Transit => "transit",
            LinkClass::Internet => "internet",
        }
    }
}

/// A link's class, and how many times as long as it is it counts beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grade {
    /// Its class.
    pub class: LinkClass,
    /// 1 or more.
    pub cost: u16,
}

impl Default for Grade {
    fn default() -> Self {
        Grade {
            class: LinkClass::Internet,
            cost: 1,
        }
    }
}

impl Grade {
    /// As long as a link of so long counts.
    #[must_use]
    pub fn weigh(self, rtt: Duration) -> Duration {
        rtt * self.class.percent() / 100 * u32::from(self.cost)
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class.as_str())?;
        match self.cost {
            0 | 1 => Ok(()),
            cost => write!(f, " cost {cost}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_sorts_come_first_and_what_is_not_said_is_as_it_was() {
        let far = Duration::from_millis(100);
        let of = |class, cost| Grade { class, cost }.weigh(far);
        assert_eq!(Grade::default().weigh(far), far);
        assert!(of(LinkClass::Backbone, 1) < of(LinkClass::Transit, 1));
        assert!(of(LinkClass::Transit, 1) < of(LinkClass::Internet, 1));
        assert_eq!(of(LinkClass::Internet, 1), far);
        assert_eq!(of(LinkClass::Backbone, 3), Duration::from_millis(210));
        let class = LinkClass::Transit;
        assert_eq!(Grade { class, cost: 1 }.to_string(), "transit");
        assert_eq!(Grade { class, cost: 2 }.to_string(), "transit cost 2");
    }
}
