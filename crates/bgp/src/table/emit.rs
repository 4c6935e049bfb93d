//! From changes to octets: what goes to the same receivers is put into as few messages, and
//! these into as few writes, as they allow.

use bytes::Bytes;

use super::{
    filter::Chosen,
    group::{GroupKey, Told, World, order},
    interest::TargetsId,
    intern::AttributesId,
    peers::{Kind, NextHop, OwnAddresses, PeerIndex, PeerSet},
};
use crate::wire::{AttributesView, Edit, Encoding, Family, Set, UpdateBuilder, rewrite};

/// Octets handed out at once; more are cut at a message's end.
const CHUNK: usize = 64 * 1024;

/// Who of a group's hearing members hears an item. Plain numbers, so that items can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    All,
    /// All but the one it came from.
    AllBut(PeerIndex),
    Only(PeerIndex),
    /// Those that want these route targets, but not the one it came from.
    Wanting(TargetsId, PeerIndex),
    /// Those that did, but not the one it came from.
    Heard(TargetsId, PeerIndex),
    /// Those that heard the first and do not hear the second.
    Losing([(TargetsId, PeerIndex); 2]),
}

impl Target {
    /// Who hears what the group is told.
    pub(super) fn hearers(world: &World<'_>, told: Told) -> Target {
        if world.constrained {
            Target::Wanting(targets(world, told), told.source)
        } else {
            Target::AllBut(told.source)
        }
    }

    /// Who heard what is no more.
    pub(super) fn heard(world: &World<'_>, old: Told) -> Target {
        if world.tells_source {
            Target::All
        } else if world.constrained {
            Target::Heard(targets(world, old), old.source)
        } else {
            Target::AllBut(old.source)
        }
    }

    /// Who heard the old and does not hear the new.
    pub(super) fn losers(world: &World<'_>, old: Told, new: Told) -> Option<Target> {
        if !world.constrained {
            return (old.source != new.source).then_some(Target::Only(new.source));
        }
        let pair = [old, new].map(|told| (targets(world, told), told.source));
        (pair[0] != pair[1]).then_some(Target::Losing(pair))
    }

    pub(super) fn resolve(self, world: &World<'_>, members: &PeerSet) -> PeerSet {
        let members = members.clone();
        match self {
            Target::All => members,
            Target::AllBut(source) => members.without(source),
            Target::Only(peer) => members.and(&[peer].into_iter().collect()),
            Target::Wanting(targets, source) => {
                members.and(world.interest.of(targets)).without(source)
            }
            Target::Heard(targets, source) => {
                members.and(&world.interest.heard(targets)).without(source)
            }
            Target::Losing([(old, old_source), (new, new_source)]) => {
                let hear = world.interest.of(new).clone().without(new_source);
                members
                    .and(&world.interest.heard(old))
                    .without(old_source)
                    .minus(&hear)
            }
        }
    }
}

fn targets(world: &World<'_>, told: Told) -> TargetsId {
    world.attributes.facts(told.attributes).targets
}

/// One route to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) withdraw: bool,
    pub(super) target: Target,
    pub(super) attributes: AttributesId,
    pub(super) source: PeerIndex,
    /// What a policy decided about them.
    pub(super) chosen: Chosen,
    pub(super) at: u32,
    /// The position of the path whose value is told.
    pub(super) path: u32,
    /// The path id told, in an add-path group.
    pub(super) own_id: u32,
}

/// Takes octets for a set of neighbours.
pub type Sink<'a> = dyn FnMut(&PeerSet, Bytes) + 'a;

/// Collects messages for one set of receivers until it changes.
pub(super) struct Emit<'a> {
    sink: &'a mut Sink<'a>,
    chunk: Vec<u8>,
    attributes: Vec<u8>,
    /// Routes whose attributes leave no room for them in a message.
    pub(super) oversized: u64,
    pub(super) routes: u64,
}

impl<'a> Emit<'a> {
    pub(super) fn new(sink: &'a mut Sink<'a>) -> Self {
        Emit {
            sink,
            chunk: Vec::new(),
            attributes: Vec::new(),
            oversized: 0,
            routes: 0,
        }
    }

    /// Sort, encode and hand out.
    pub(super) fn tell(
        &mut self,
        key: &GroupKey,
        world: &World<'_>,
        members: &PeerSet,
        items: &mut [Item],
    ) {
        // Stable, so routes of equal attributes keep the order in which they came.
        items.sort_by_key(order);
        for run in items.chunk_by(|a, b| a.target == b.target && a.withdraw == b.withdraw) {
            let Some(first) = run.first() else {
                continue;
            };
            let receivers = first.target.resolve(world, members);
            if receivers.is_empty() {
                continue;
            }
            if first.withdraw {
                self.withdraw(key, world, run, &receivers);
            } else {
                let said = |item: &Item| (item.source, item.attributes, item.chosen);
                let same = |a: &Item, b: &Item| said(a) == said(b);
                for run in run.chunk_by(same) {
                    self.announce(key, world, run, &receivers);
                }
            }
            self.hand_out(&receivers);
        }
    }

    fn hand_out(&mut self, receivers: &PeerSet) {
        if !self.chunk.is_empty() {
            let chunk = std::mem::take(&mut self.chunk);
            (self.sink)(receivers, Bytes::from(chunk));
        }
    }

    fn withdraw(&mut self, key: &GroupKey, world: &World<'_>, run: &[Item], to: &PeerSet) {
        let encoding = encoding(key);
        let mut rest = run;
        while !rest.is_empty() {
            let mut update = UpdateBuilder::withdraw(&mut self.chunk, world.family, &encoding);
            for item in rest {
                let dest = world.dests.get(item.at);
                if !update.push(item.own_id, &dest.key, &[]) {
                    break;
                }
            }
            let count = update.count();
            update.finish();
            self.routes += count as u64;
            rest = self.skip_unless(count, rest);
            if self.chunk.len() >= CHUNK {
                self.hand_out(to);
            }
        }
    }

    fn announce(&mut self, key: &GroupKey, world: &World<'_>, run: &[Item], to: &PeerSet) {
        let Some(first) = run.first() else {
            return;
        };
        let encoding = encoding(key);
        let mut attributes = std::mem::take(&mut self.attributes);
        outgoing(key, world, first, &mut attributes);
        let mut rest = run;
        while !rest.is_empty() {
            let update =
                UpdateBuilder::announce(&mut self.chunk, world.family, &encoding, &attributes);
            let Some(mut update) = update else {
                // What they were told before is no longer so.
                self.oversized += rest.len() as u64;
                self.withdraw(key, world, rest, to);
                break;
            };
            for item in rest {
                let dest = world.dests.get(item.at);
                let value = dest.paths().get(item.path as usize);
                let value = value.map_or(&[][..], |path| &path.value);
                if !update.push(item.own_id, &dest.key, value) {
                    break;
                }
            }
            let count = update.count();
            update.finish();
            self.routes += count as u64;
            if count == 0 {
                self.withdraw(key, world, &rest[..1], to);
            }
            rest = self.skip_unless(count, rest);
            if self.chunk.len() >= CHUNK {
                self.hand_out(to);
            }
        }
        self.attributes = attributes;
    }

    /// What is left behind `count` items; one that does not even fit alone is left out.
    fn skip_unless<'i>(&mut self, count: usize, items: &'i [Item]) -> &'i [Item] {
        self.oversized += u64::from(count == 0);
        items.get(count.max(1)..).unwrap_or_default()
    }
}

const fn encoding(key: &GroupKey) -> Encoding {
    Encoding {
        max_message: key.max_message,
        four_octet_as: key.four_octet_as,
        add_path: key.add_path > 0,
    }
}

const MULTI_EXIT_DISC: u8 = 4;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;

/// What is done to all attributes on their way to such a neighbour.
fn outgoing(key: &GroupKey, world: &World<'_>, item: &Item, out: &mut Vec<u8>) {
    let octets = world.attributes.octets(item.attributes);
    let view = AttributesView(octets);
    let source = world.peer(item.source).map(|peer| &peer.config);
    let from_outside = source.is_none_or(|source| source.kind.is_external());
    let own = match &key.next_hop {
        NextHop::Own(own) if !item.chosen.next_hop => {
            own_next_hop(own, world.family, view.next_hop())
        }
        NextHop::Own(_) | NextHop::Unchanged | NextHop::UnchangedUnlessAsked(_) => None,
    };
    let node = world.node.0.to_be_bytes();
    let mut edit = Edit::default();
    match key.kind {
        Kind::External => {
            edit.prepend = Some((world.asn, 1));
            edit.next_hop = own;
            edit.local_pref = Set::Remove;
            // RFC 4271 §5.1.4: a MED goes one AS far, but for one that our policy has chosen.
            let foreign = source.is_some_and(|source| source.kind.is_external());
            edit.strip = if foreign && !item.chosen.med {
                &[MULTI_EXIT_DISC, ORIGINATOR_ID, CLUSTER_LIST]
            } else {
                &[ORIGINATOR_ID, CLUSTER_LIST]
            };
        }
        Kind::RouteServerClient => {
            edit.local_pref = Set::Remove;
            edit.strip = &[ORIGINATOR_ID, CLUSTER_LIST];
            if source.is_none() {
                edit.next_hop = own;
            }
        }
        // Who said it is not to be forgotten: to our other half we are the same node.
        Kind::Local => edit.originator = source.map(|source| source.node),
        Kind::Client | Kind::NonClient => {
            if view.local_pref().is_none() {
                edit.local_pref = Set::To(super::intern::DEFAULT_LOCAL_PREF);
            }
            if from_outside {
                edit.next_hop = own;
            } else if let Some(source) = source.filter(|source| source.kind != Kind::Local) {
                edit.originator = Some(source.node);
                edit.cluster = Some(world.node);
            }
            if world.tells_source {
                // RFC 4684 §3.2 i: also who said it is to take it.
                edit.strip = &[ORIGINATOR_ID];
                edit.originator = Some(world.node);
                edit.next_hop = Some(&node);
            }
        }
    }
    out.clear();
    rewrite(octets, &edit, out);
}

/// Our address in the form of the one that it replaces.
pub(super) fn own_next_hop<'a>(
    own: &'a OwnAddresses,
    family: Family,
    told: &[u8],
) -> Option<&'a [u8]> {
    // Only addresses: VPN next hops carry an RD, MESH ones are node ids.
    if family.safi != 1 {
        return None;
    }
    let (v4, v6) = (own.v4.as_ref().map(<[u8; 4]>::as_slice), own.v6.as_deref());
    match (family.afi, told.len()) {
        (1, 0 | 4) => v4.or(v6),
        (1 | 2, _) => v6,
        _ => None,
    }
}
