//! What is said of links.

use api::{LinkSpec, Object, Problem};
use base::Name;

use super::{bad, dangling};
use crate::{
    World,
    world::{gateway, pop},
};

pub(super) fn link(world: &World, object: &Object, spec: &LinkSpec) -> Result<(), Problem> {
    if spec.a == spec.b {
        return Err(bad("/spec/b", "a link leads to another site"));
    }
    let mut pops = 0;
    for (pointer, name) in [("/spec/a", &spec.a), ("/spec/b", &spec.b)] {
        pops += usize::from(is_pop(world, object, pointer, name)?);
    }
    match (&object.metadata.tenant, pops) {
        (None, _) | (Some(_), 1) => {}
        (Some(_), 0) => return Err(bad("/spec/b", "a gateway's Link is one to a PoP: name one")),
        (Some(_), _) => {
            let title = "a tenant says nothing of links between PoPs: one end is a gateway";
            return Err(bad("/spec/a", title));
        }
    }
    if !(1..=LinkSpec::MOST_COST).contains(&spec.cost) {
        return Err(bad("/spec/cost", "1 to 1000"));
    }
    let ends = |spec: &LinkSpec| {
        let (a, b) = (spec.a.clone(), spec.b.clone());
        if a < b { (a, b) } else { (b, a) }
    };
    let twin = world.links().find(|(other, link)| {
        other.key() != object.key()
            && other.metadata.tenant == object.metadata.tenant
            && ends(link) == ends(spec)
    });
    match twin {
        None => Ok(()),
        Some((twin, _)) => Err(bad(
            "/spec/a",
            format!("{} is this link already", twin.key()),
        )),
    }
}

/// Is an end a PoP? Else it is a gateway of the tenant.
fn is_pop(world: &World, object: &Object, at: &str, name: &Name) -> Result<bool, Problem> {
    let Some(tenant) = &object.metadata.tenant else {
        let known = world.site(&pop(name)).is_some();
        return match known {
            true => Ok(true),
            false => Err(dangling(at, "PoP", name.as_str())),
        };
    };
    if world.site(&gateway(tenant, name)).is_some() {
        return Ok(false);
    }
    match world.site(&pop(name)) {
        Some(_) => Ok(true),
        None => Err(dangling(at, "site", name.as_str())),
    }
}
