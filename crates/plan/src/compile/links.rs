//! Of what sort this site's links are.

use std::collections::BTreeMap;

use api::{LinkKind, LinkSpec};
use base::SiteName;
use bgp::LinkGrade;
use path::{Grade, LinkClass, Load};

use crate::World;

pub(super) fn compile(world: &World, site: &SiteName) -> BTreeMap<SiteName, Grade> {
    let links = world.links_of(site);
    links.map(|(_, spec, far)| (far, grade(spec))).collect()
}

fn grade(spec: &LinkSpec) -> Grade {
    let class = match spec.kind {
        LinkKind::Backbone => LinkClass::Backbone,
        LinkKind::Direct => LinkClass::Direct,
        LinkKind::Peering => LinkClass::Peering,
        LinkKind::Transit => LinkClass::Transit,
        LinkKind::Internet => LinkClass::Internet,
    };
    let cost = spec.cost;
    Grade { class, cost }
}

/// As a Link route says it; nothing where there is nothing to say.
pub(crate) fn said(grade: Grade) -> Option<LinkGrade> {
    let class = match grade.class {
        LinkClass::Internet => 0,
        LinkClass::Backbone => 1,
        LinkClass::Direct => 2,
        LinkClass::Peering => 3,
        LinkClass::Transit => 4,
    };
    let cost = grade.cost;
    (grade != Grade::default()).then_some(LinkGrade { class, cost })
}

/// As a Link route says it.
pub(crate) fn heard(said: Option<LinkGrade>) -> Grade {
    let Some(said) = said else {
        return Grade::default();
    };
    let class = match said.class {
        1 => LinkClass::Backbone,
        2 => LinkClass::Direct,
        3 => LinkClass::Peering,
        4 => LinkClass::Transit,
        _ => LinkClass::Internet,
    };
    let cost = said.cost.clamp(1, LinkSpec::MOST_COST);
    Grade { class, cost }
}

/// As a Link route says it, in 1/65535.
pub(crate) fn said_load(load: Load) -> u16 {
    let parts = u32::from(load.percent()) * u32::from(u16::MAX);
    u16::try_from((parts + 50) / 100).unwrap_or(u16::MAX)
}

/// As a Link route says it.
pub(crate) fn heard_load(said: u16) -> Load {
    let whole = u32::from(u16::MAX);
    let percent = (u32::from(said) * 100 + whole / 2) / whole;
    Load::of(u8::try_from(percent).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        for class in [
            LinkClass::Internet,
            LinkClass::Backbone,
            LinkClass::Direct,
            LinkClass::Peering,
            LinkClass::Transit,
        ] {
            for cost in [1, 7] {
                let grade = Grade { class, cost };
                assert_eq!(heard(said(grade)), grade);
            }
        }
        assert_eq!(said(Grade::default()), None);
        for load in (0..=100).map(Load::of) {
            assert_eq!(heard_load(said_load(load)), load);
        }
        assert_eq!(said_load(Load::FULL), u16::MAX);
        // What a later version says, or somebody who is not bound by ours.
        let later = LinkGrade { class: 9, cost: 0 };
        assert_eq!(heard(Some(later)), Grade::default());
        let dear = LinkGrade {
            class: 0,
            cost: u16::MAX,
        };
        assert_eq!(heard(Some(dear)).cost, 1000);
    }
}
