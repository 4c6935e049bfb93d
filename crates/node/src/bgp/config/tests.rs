//! Good files and bad ones; a bad one names the field and says what would be right.

use std::path::Path;

use speaker::server::{Filter, Kind, NextHopChoice, policy::Condition};

use super::*;

const GUIDE: &str = include_str!("../../../../../docs/operate/bgp.md");

fn load(text: &str) -> Result<ServerConfig, String> {
    parse(Path::new("bgp.yaml"), text).map_err(|error| error.to_string())
}

/// A file with one neighbour, of these fields.
fn with(neighbor: &str) -> String {
    format!("asn: 65000\nrouterId: 10.0.0.1\nneighbors:\n- {{ {neighbor} }}\n")
}

/// A file with one policy of one statement, with these fields.
fn with_statement(fields: &str) -> String {
    format!(
        "asn: 65000\nrouterId: 10.0.0.1\npolicies:\n  p:\n    statements:\n    - {{ name: s, {fields} }}\n"
    )
}

#[test]
fn what_is_left_out_is_usual() {
    let config = load(&with("address: 10.0.1.1, asn: 65001")).expect("good");
    let neighbor = &config.neighbors[0];
    assert_eq!((neighbor.port, neighbor.kind), (179, Kind::External));
    assert_eq!(neighbor.hold_time, Duration::from_secs(90));
    assert_eq!(neighbor.families.len(), 1);
    assert_eq!(neighbor.families[0].family, Family::IPV4);
    assert_eq!(neighbor.next_hop, NextHopChoice::Own);
    // RFC 8212.
    assert_eq!(
        (&*neighbor.import, &*neighbor.export),
        (&Filter::Reject, &Filter::Reject)
    );
    let inside = load(&with("address: '2001:db8::1', asn: 65000, client: true")).expect("good");
    let neighbor = &inside.neighbors[0];
    assert_eq!(neighbor.families[0].family, Family::IPV6);
    assert_eq!(
        (neighbor.kind, neighbor.next_hop),
        (Kind::Client, NextHopChoice::Unchanged)
    );
    assert_eq!(
        (&*neighbor.import, &*neighbor.export),
        (&Filter::Accept, &Filter::Accept)
    );
}

#[test]
fn a_bad_field_is_named_with_what_would_be_right() {
    let neighbor = "address: 10.0.1.1, asn: 65001";
    for (text, at, sentence) in [
        (with("address: 10.0.1.1, asn: 65001, pasive: true"), "neighbors[0]", "unknown field `pasive`"),
        ("asn: 0\nrouterId: 10.0.0.1".to_owned(), "asn", "RFC 7607"),
        ("asn: 1\nrouterId: 0.0.0.0".to_owned(), "routerId", "RFC 6286"),
        ("asn: 1\nrouterId: 10.0.0.1\nshards: 65".to_owned(), "shards", "from 1 to 64"),
        (with("address: 10.0.1.1, asn: 0"), "neighbors[0].asn", "RFC 7607"),
        (with(&format!("{neighbor}, client: true")), "neighbors[0].client", "in our own AS"),
        (with("address: 10.0.1.1, asn: 65000, routeServer: true"), "neighbors[0].routeServer", "in another AS"),
        (with(&format!("{neighbor}, holdTime: 1s")), "neighbors[0].holdTime", "from 3s"),
        (with(&format!("{neighbor}, holdTime: 90")), "neighbors[0].holdTime", "90s"),
        (with(&format!("{neighbor} }}\n- {{ {neighbor}")), "neighbors[1].address", "another neighbour"),
        (with(&format!("{neighbor}, families: [ipv5]")), "neighbors[0].families", "vpnv4"),
        (with(&format!("{neighbor}, addPath: {{ send: some }}")), "neighbors[0].addPath.send", "all"),
        (with(&format!("{neighbor}, nextHop: me")), "neighbors[0].nextHop", "self"),
        (with(&format!("{neighbor}, import: ours")), "neighbors[0].import", "there are accept, reject"),
        (with(&format!("{neighbor}, password: {}", "x".repeat(81))), "neighbors[0].password", "at most 80"),
        ("asn: 1\nrouterId: 10.0.0.1\nroutes:\n- { prefix: 10.0.0.0/33, nextHop: 10.0.0.1 }".to_owned(), "routes[0].prefix", "10.0.0.0/8"),
        ("asn: 1\nrouterId: 10.0.0.1\nroutes:\n- { prefix: 10.0.0.0/8, nextHop: 10.0.0.1, communities: ['1:x'] }".to_owned(), "routes[0].communities", "65000:1"),
        ("asn: 1\nrouterId: 10.0.0.1\npolicies:\n  accept: {}".to_owned(), "policies.accept", "taken"),
        ("asn: 1\nrouterId: 10.0.0.1\npolicies:\n  p: { default: next }".to_owned(), "policies.p.default", "accept"),
        (with_statement("match: {}"), "policies.p.statements[0]", "missing field `then`"),
        (with_statement("then: maybe"), "policies.p.statements[0].then", "`next`"),
        (with_statement("match: { prefix: [] }, then: next"), "policies.p.statements[0].match", "`prefixes`"),
        (with_statement("match: { prefixes: ['10.0.0.1/8'] }, then: next"), "policies.p.statements[0].match.prefixes[0]", "10.0.0.1/8"),
        (with_statement("match: { communities: { any: ['65000:x'] } }, then: next"), "match.communities.any[0]", "NO_EXPORT"),
        (with_statement("match: { asPath: { regex: '(65001' } }, then: next"), "match.asPath.regex", "(65001"),
        (with_statement("match: { asPath: { contains: ['9-1'] } }, then: next"), "match.asPath.contains[0]", "65100-65199"),
        (with_statement("match: { asPath: { length: {} } }, then: next"), "match.asPath.length", "min"),
        (with_statement("match: { med: { min: 9, max: 1 } }, then: next"), "match.med", "min is more"),
        (with_statement("set: { med: more }, then: next"), "set.med", "`remove`"),
        (with_statement("set: { prepend: 0 }, then: next"), "set.prepend", "1 to 32"),
        (with_statement("set: { prepend: { asn: 0, times: 1 } }, then: next"), "set.prepend", "1 to 32"),
        (with_statement("set: { nextHop: us }, then: next"), "set.nextHop", "unchanged"),
        (with_statement("set: { origin: bgp }, then: next"), "set.origin", "`igp`"),
        (with_statement("set: { communities: { add: ['65000:*'] } }, then: next"), "set.communities.add[0]", "65000:1"),
    ] {
        let error = load(&text).expect_err(&text);
        assert!(error.starts_with("bgp.yaml: "), "{error}");
        assert!(error.contains(at) && error.contains(sentence), "{at}: {sentence}: {error}");
    }
}

#[test]
fn all_of_a_policy_is_read() {
    let text = "
asn: 65000
routerId: 10.0.0.1
neighbors:
- { address: 10.0.1.1, asn: 65001, import: in, export: all }
policies:
  all: { statements: [ { name: all, then: accept } ] }
  in:
    statements:
    - name: everything
      match:
        prefixes: ['10.0.0.0/8 ge 16 le 24', '2001:db8::/32 le 48']
        communities: { any: ['65000:*', 'rt:65000:1', '65000:1:*'], all: [BLACKHOLE], none: [NO_EXPORT] }
        asPath: { regex: '^65001 .*$', originates: [65001, 65100-65199], contains: [1], neighbor: [65001], length: { max: 10 } }
        families: [ipv4, ipv6]
        nextHop: ['10.0.1.0/24 le 32']
        origin: igp
        med: { min: 1 }
        localPref: 100
      set:
        localPref: 200
        med: '+10'
        communities: { replace: ['65000:1', 'rt:65000:1'], remove: ['65000:*'], add: [NO_EXPORT, '65000:1:2'] }
        prepend: { asn: 65001, times: 2 }
        nextHop: self
        origin: incomplete
      then: next
    default: accept
";
    let config = load(text).expect("good");
    let neighbor = &config.neighbors[0];
    assert_eq!(*neighbor.export, Filter::Accept, "it need not be asked");
    let Filter::Policy(policy) = &*neighbor.import else {
        panic!("a policy");
    };
    let statement = &policy.statements[0];
    // One for each field, two for `all` and `none` of communities beside `any`.
    assert_eq!(statement.conditions.len(), 14);
    let of_three = |condition: &Condition| matches!(condition, Condition::AnyOf(c) if c.len() == 3);
    let any = statement.conditions.iter().filter(|c| of_three(c)).count();
    assert_eq!(any, 1, "communities of three sizes");
    assert_eq!(statement.actions.len(), 10);
    assert!(policy.names_own_next_hop());
}

/// The files in the guide are good ones.
#[test]
fn the_guide_s_files_are_good() {
    let blocks = GUIDE.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```"));
    let mut files = 0;
    for (block, _) in blocks.filter(|(block, _)| block.contains("routerId")) {
        load(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
        files += 1;
    }
    assert!(files >= 3, "{files} files");
}

/// Every field has its place in the guide.
#[test]
fn the_guide_has_every_field() {
    for text in [
        "x: 1",
        &with("x: 1"),
        &with("address: 10.0.0.1, asn: 1, addPath: { x: 1 }"),
        &with("address: 10.0.0.1, asn: 1, gracefulRestart: { x: 1 }"),
        &with("address: 10.0.0.1, asn: 1, bfd: { x: 1 }"),
        "asn: 1\nrouterId: 10.0.0.1\nroutes: [ { x: 1 } ]",
        "asn: 1\nrouterId: 10.0.0.1\npolicies: { p: { x: 1 } }",
        &with_statement("x: 1"),
        &with_statement("match: { x: 1 }"),
        &with_statement("match: { communities: { x: 1 } }"),
        &with_statement("match: { asPath: { x: 1 } }"),
        &with_statement("set: { x: 1 }"),
        &with_statement("set: { communities: { x: 1 } }"),
    ] {
        let error = load(text).expect_err("x is no field");
        let (_, fields) = error.split_once("expected").expect(&error);
        for field in fields.split('`').skip(1).step_by(2) {
            let known = [
                format!("`{field}`"),
                format!("`{field}."),
                format!(".{field}`"),
            ];
            assert!(
                known.iter().any(|known| GUIDE.contains(known)),
                "{field} is not explained"
            );
        }
    }
}
