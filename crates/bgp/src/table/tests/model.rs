//! A planet of neighbours around one shard, and what each of them has heard so far.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::wire::{Scratch, UpdateContext, UpdateFindings, decode, encode, frame};
use crate::{Trust, table::*};

/// What a neighbour holds: by family, path id and key, the attributes and the value.
pub(super) type Heard = BTreeMap<(Family, u32, Vec<u8>), (Vec<u8>, Vec<u8>)>;

pub(super) struct Planet {
    pub(super) shard: Shard,
    now: Instant,
    configs: BTreeMap<u16, PeerConfig>,
    heard: BTreeMap<u16, Heard>,
    messages: BTreeMap<u16, usize>,
    ended: BTreeMap<(u16, Family), usize>,
    named: BTreeMap<(u16, Family), usize>,
}

impl Planet {
    pub(super) fn new(asn: u32, families: &[Family]) -> Self {
        let config = ShardConfig {
            asn,
            node: NodeId(99),
            families: families.to_vec(),
            seed: 7,
            deferred: false,
            holds_ends: false,
            watched: Vec::new(),
            tells_constraint: true,
        };
        Planet {
            shard: Shard::new(config),
            now: Instant::from_nanos(1),
            configs: BTreeMap::new(),
            heard: BTreeMap::new(),
            messages: BTreeMap::new(),
            ended: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }

    pub(super) fn up(&mut self, at: u16, mut config: PeerConfig) {
        if config.families.is_empty() {
            config.families = self
                .shard
                .config
                .families
                .iter()
                .map(|f| spoken(*f))
                .collect();
        }
        self.heard.insert(at, Heard::new());
        self.configs.insert(at, config.clone());
        self.shard.peer_up(PeerIndex(at), config);
    }

    pub(super) fn down(&mut self, at: u16, keep: &[Family]) {
        self.heard.remove(&at);
        self.shard.peer_down(PeerIndex(at), keep);
    }

    pub(super) fn announce(&mut self, at: u16, family: Family, keys: &[Vec<u8>], a: &[u8]) {
        self.say(at, family, 0, keys, Some(a));
    }

    pub(super) fn withdraw(&mut self, at: u16, family: Family, keys: &[Vec<u8>]) {
        self.say(at, family, 0, keys, None);
    }

    pub(super) fn say(
        &mut self,
        at: u16,
        family: Family,
        path_id: u32,
        keys: &[Vec<u8>],
        attributes: Option<&[u8]>,
    ) {
        let value: &[u8] = if family == Family::VPNV4 {
            &[0, 1, 1]
        } else {
            &[]
        };
        let mut octets = Vec::new();
        for key in keys {
            encode(family, Some(path_id), key, value, &mut octets);
        }
        let section = Section {
            family,
            add_path: true,
            octets: &octets,
        };
        let peer = PeerIndex(at);
        match attributes {
            Some(attributes) => {
                let _ = self.shard.announce(peer, &section, attributes, |_| true);
            }
            None => self.shard.withdraw(peer, &section, |_| true),
        }
    }

    pub(super) fn end_of_rib(&mut self, at: u16, family: Family) {
        self.shard.end_of_rib(PeerIndex(at), family);
    }

    /// One turn; is there more?
    pub(super) fn turn(&mut self) -> bool {
        let mut out = Vec::new();
        let poll = self
            .shard
            .poll(self.now, &mut |to, octets| out.push((to.clone(), octets)));
        for (to, octets) in out {
            for peer in to.iter() {
                self.hear(peer.0, &octets);
            }
        }
        while let Some(notice) = self.shard.poll_notice() {
            if let Notice::TableSent(peer, family) = notice {
                *self.ended.entry((peer.0, family)).or_default() += 1;
                self.check_ended(peer, family);
            }
        }
        match poll {
            Poll::Idle => false,
            Poll::More => true,
            Poll::Wait(until) => {
                self.now = until;
                true
            }
        }
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn hear(&mut self, at: u16, octets: &[u8]) {
        let config = self.configs.get(&at).expect("a neighbour").clone();
        let heard = self
            .heard
            .get_mut(&at)
            .expect("octets for one that is down");
        let families: Vec<Family> = config.families.iter().map(|f| f.family).collect();
        let with_ids = config.families.iter().filter(|f| f.add_path_send > 0);
        let context = UpdateContext {
            four_octet_as: config.four_octet_as,
            ebgp: config.kind.is_external(),
            families,
            add_path: with_ids.map(|f| f.family).collect(),
            extended_next_hop: Vec::new(),
        };
        let mut rest = octets;
        while !rest.is_empty() {
            let (_, length) = frame(rest, 65535)
                .expect("a good frame")
                .expect("a whole message");
            let mut scratch = Scratch::default();
            let mut findings = UpdateFindings::default();
            let body = &rest[19..length];
            let update = decode(body, &context, &mut scratch, &mut findings).expect("good");
            assert_eq!(findings.treated_as_withdrawn, 0);
            for section in update.withdrawn.iter().flatten() {
                section.for_each(false, |nlri| {
                    *self.named.entry((at, section.family)).or_default() += 1;
                    heard.remove(&(section.family, nlri.path_id, nlri.key.to_vec()));
                });
            }
            for (section, attributes) in update.announced.iter().zip(update.attributes) {
                let Some(section) = section else { continue };
                let attributes = attributes.expect("good attributes");
                section.for_each(true, |nlri| {
                    *self.named.entry((at, section.family)).or_default() += 1;
                    heard.insert(
                        (section.family, nlri.path_id, nlri.key.to_vec()),
                        (attributes.to_vec(), nlri.value.to_vec()),
                    );
                });
            }
            *self.messages.entry(at).or_default() += 1;
            rest = &rest[length..];
        }
    }

    pub(super) fn heard(&self, at: u16) -> &Heard {
        &self.heard[&at]
    }

    pub(super) fn heard_of(&self, at: u16, family: Family) -> usize {
        self.heard(at).keys().filter(|key| key.0 == family).count()
    }

    pub(super) fn messages(&self, at: u16) -> usize {
        self.messages.get(&at).copied().unwrap_or(0)
    }

    pub(super) fn ended(&self, at: u16) -> bool {
        self.ended.keys().any(|(peer, _)| *peer == at)
    }

    /// How many routes it was told of, withdrawals included.
    pub(super) fn named(&self, at: u16, family: Family) -> usize {
        self.named.get(&(at, family)).copied().unwrap_or(0)
    }

    pub(super) fn ended_of(&self, at: u16, family: Family) -> usize {
        self.ended.get(&(at, family)).copied().unwrap_or(0)
    }

    /// Whoever is told that this was all has heard all that its group was told.
    fn check_ended(&self, peer: PeerIndex, family: Family) {
        let Some(heard) = self.heard.get(&peer.0) else {
            return;
        };
        let table = self.shard.position(family).map(|at| &self.shard.tables[at]);
        let table = table.expect("a family of the table");
        let group = table.groups.iter().find(|g| g.members.contains(peer));
        let group = group.expect("a member's group");
        // What it has asked for since comes behind the end.
        let later = |at| {
            group
                .next_walk
                .as_ref()
                .is_some_and(|w| w.owed.contains(at))
        };
        if !self.shard.review.is_empty() || !self.shard.next_review.is_empty() {
            return;
        }
        for at in 0..table.dests.end() {
            let told = group.told.get(at);
            let targets = self.shard.attributes.facts(told.attributes).targets;
            let hears = !table.constrained || self.shard.interest.of(targets).contains(peer);
            let dest = table.dests.get(at);
            let current = dest.best().is_some_and(|best| best.peer == told.source);
            if told != group::Told::default()
                && current
                && told.source != peer
                && hears
                && !later(at)
            {
                let key = (family, 0, dest.key.to_vec());
                assert!(heard.contains_key(&key), "{peer:?} has not heard {key:?}");
            }
        }
    }

    pub(super) fn is_up(&self, at: u16) -> bool {
        self.heard.contains_key(&at)
    }

    /// Everybody that is up holds what it would be told if it came now, and nothing else.
    pub(super) fn check(&self) {
        for (at, heard) in &self.heard {
            let config = &self.configs[at];
            for spoken in &config.families {
                let expected = self.expected(*at, config, spoken);
                let mut got: Vec<Vec<u8>> = heard
                    .keys()
                    .filter(|key| key.0 == spoken.family)
                    .map(|key| key.2.clone())
                    .collect();
                got.sort();
                let mut keys: Vec<Vec<u8>> = expected.iter().map(|e| e.0.clone()).collect();
                keys.sort();
                assert_eq!(got, keys, "neighbour {at}, {}", spoken.family);
                for (key, length) in expected {
                    let of_key = heard
                        .iter()
                        .filter(|(k, _)| k.0 == spoken.family && k.2 == key);
                    let lengths: Vec<usize> = of_key
                        .map(|(_, (attributes, _))| AttributesView(attributes).as_path().len())
                        .collect();
                    assert!(
                        lengths.contains(&length),
                        "neighbour {at}: a path of length {length} is not in {lengths:?}"
                    );
                }
            }
        }
    }

    /// Keys and lengths of AS_PATH that a neighbour is to hold, from the table's own view.
    fn expected(&self, at: u16, config: &PeerConfig, spoken: &PeerFamily) -> Vec<(Vec<u8>, usize)> {
        let (views, _) = self.shard.routes(spoken.family, 0, usize::MAX, |_| true);
        let mut expected = Vec::new();
        for view in views {
            let count = usize::from(spoken.add_path_send.max(1));
            let kind = |peer: PeerIndex| self.configs.get(&peer.0).map(|config| config.kind);
            let told = view.paths.iter().filter(|path| {
                (spoken.add_path_send == 0 || path.reachable)
                    && (spoken.add_path_send == 0
                        || config.kind != Kind::NonClient
                        || kind(path.peer) != Some(Kind::NonClient))
            });
            for path in told.take(count) {
                let source = path.peer;
                // RFC 4684 §3.2 i: whoever asked hears that it is asked for.
                let answered = spoken.family == Family::RTC && config.kind == Kind::Client;
                let own = source == PeerIndex(at) && !answered;
                if own || !path.reachable || !self.wants(at, config, spoken.family, path) {
                    continue;
                }
                let own = usize::from(config.kind == Kind::External);
                let length = AttributesView(&path.attributes).as_path().len() + own;
                expected.push((view.key.clone(), length));
            }
        }
        expected
    }

    fn wants(&self, at: u16, config: &PeerConfig, family: Family, path: &PathView) -> bool {
        if !config.constrained || family != Family::VPNV4 {
            return true;
        }
        let (asked, _) = self.shard.routes(Family::RTC, 0, usize::MAX, |_| true);
        asked.iter().any(|route| {
            let its_own = route.paths.iter().any(|p| p.peer == PeerIndex(at));
            let view = AttributesView(&path.attributes);
            let target = view.extended_communities().next().unwrap_or_default();
            its_own && (route.key == [0] || route.key.get(5..) == Some(&target[..]))
        })
    }
}

pub(super) fn spoken(family: Family) -> PeerFamily {
    PeerFamily {
        family,
        add_path_send: 0,
        max_routes: 1_000_000,
        count: RouteCount::default(),
    }
}

pub(super) fn external(at: u16, asn: u32) -> PeerConfig {
    PeerConfig {
        asn,
        node: NodeId(u32::from(at)),
        address: IpAddr::from([127, 0, 0, u8::try_from(at).unwrap_or(0)]),
        kind: Kind::External,
        families: vec![spoken(Family::IPV4)],
        max_message: 4096,
        four_octet_as: true,
        knows_long_lived: false,
        long_lived: Vec::new(),
        constrained: false,
        next_hop: NextHop::Own(OwnAddresses {
            v4: Some([127, 0, 0, 99]),
            v6: None,
        }),
        trust: Trust::Policy,
        import: Arc::new(Filter::Accept),
        export: Arc::new(Filter::Accept),
    }
}

/// A client of all the planet's families.
pub(super) fn client(at: u16, asn: u32) -> PeerConfig {
    PeerConfig {
        kind: Kind::Client,
        next_hop: NextHop::Unchanged,
        families: Vec::new(),
        ..external(at, asn)
    }
}

/// The `i`th prefix of a length.
pub(super) fn prefix(i: u32, bits: u8) -> Vec<u8> {
    let octets = (i << (32 - u32::from(bits))).to_be_bytes();
    let mut key = vec![bits];
    key.extend_from_slice(&octets[..usize::from(bits).div_ceil(8)]);
    key
}

pub(super) fn vpn(rd: u8, i: u8) -> Vec<u8> {
    vec![24, 0, 1, 0, 0, 0, rd, 0, 0, 10, rd, i]
}

pub(super) fn wanted(tenant: u8) -> Vec<u8> {
    vec![96, 0, 0, 253, 232, 1, 2, 0, 0, 0, tenant, 0, 2]
}

/// From outside: an AS_PATH that begins with `asn` and is `length` long.
pub(super) fn attributes(asn: u32, length: u8) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0, 0x40, 2, 2 + 4 * length, 2, length];
    for at in 0..length {
        out.extend((asn + 10_000 * u32::from(at)).to_be_bytes());
    }
    out.extend([0x80, 14, 4, 10, 0, 0, 1]);
    out
}

/// From inside our AS.
pub(super) fn internal(node: u8) -> Vec<u8> {
    vec![
        0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100, 0x80, 14, 4, 10, 0, 0, node,
    ]
}

/// The same, with a next hop of a VPN and a route target.
pub(super) fn with_target(tenant: u8) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
    out.extend([0x80, 14, 12, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    out.extend([0xC0, 16, 8, 1, 2, 0, 0, 0, tenant, 0, 2]);
    out
}
