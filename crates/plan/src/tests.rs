//! Through the room's door: ids, projection, envelopes; and the world that all tests share.

mod policies;

use std::{sync::Arc, time::Duration};

use api::{
    Object, ObjectKey, Spec,
    sync::{Bundle, FitError, Signed, Update},
};
use base::{Revision, SiteName, WallTime};

use crate::{Chain, Ids, OpenError, Projection, World, check_put, dial, open, project};

pub(crate) const NOW: WallTime = WallTime::from_unix_seconds(1_800_000_000);

/// Two PoPs, three gateways of two tenants, two services with the same name.
const WORLD: &str = "
kind: Tenant
metadata: {name: acme}
spec: {publicHosts: ['*.acme.example']}
---
kind: Tenant
metadata: {name: blue}
spec: {publicHosts: ['*.blue.example']}
---
{kind: Namespace, metadata: {tenant: acme, name: shop}, spec: {}}
---
{kind: Namespace, metadata: {tenant: acme, name: lab}, spec: {}}
---
{kind: Namespace, metadata: {tenant: blue, name: shop}, spec: {}}
---
kind: Site
metadata: {name: par}
spec:
  role: pop
  nodes:
  - name: n1
    tunnel:
      bind: ['127.1.0.1:7000']
      advertise: [{address: '127.1.0.2:7000', from: aws.acme}, {address: '127.1.0.3:7000', from: nyc}]
    public: {bind: ['127.1.0.1'], portMap: {80: 8080, 443: 8443}}
---
kind: Site
metadata: {name: nyc}
spec:
  role: pop
  nodes:
  - name: n1
    tunnel: {bind: ['127.2.0.1:7000'], advertise: [{address: '127.2.0.9:7000', from: any}]}
    public: {bind: ['127.2.0.1']}
---
{kind: Site, metadata: {tenant: acme, name: aws}, spec: {role: gateway, nodes: [{name: n1}, {name: n2}]}}
---
{kind: Site, metadata: {tenant: acme, name: factory}, spec: {role: gateway, nodes: [{name: n1}], attach: {count: 1}}}
---
{kind: Site, metadata: {tenant: blue, name: shop}, spec: {role: gateway, nodes: [{name: n1}]}}
---
{kind: Token, metadata: {tenant: acme, name: join}, spec: {site: factory}}
---
kind: Service
metadata: {tenant: acme, namespace: shop, name: cart}
spec:
  port: 8080
  origins:
  - {sites: [aws], addresses: ['10.0.0.1', '10.0.0.2:9090'], weight: 50}
  - {sites: [factory], addresses: ['10.0.0.1']}
  healthCheck: {http: {path: /healthz}, interval: 300ms, timeout: 300ms, fall: 2, rise: 3}
---
kind: Service
metadata: {tenant: acme, namespace: shop, name: hidden}
spec: {port: 81, origins: [{sites: [aws], addresses: ['10.0.0.7']}]}
---
kind: Service
metadata: {tenant: blue, namespace: shop, name: cart}
spec: {port: 8080, origins: [{sites: [shop], addresses: ['10.0.0.1']}]}
---
kind: LoadBalancer
metadata: {tenant: acme, namespace: shop, name: web}
spec:
  hosts: [cart.acme.example]
  tls: {certificates: [web]}
  advertise: [{public: {}}]
  routes: [{backendRefs: [{name: cart}]}]
---
kind: LoadBalancer
metadata: {tenant: blue, namespace: shop, name: web}
spec:
  hosts: [cart.blue.example]
  advertise: [{pops: [par]}]
  routes: [{backendRefs: [{name: cart}]}]
";

pub(crate) fn manifest(text: &str) -> Object {
    let mut objects = api::manifest::parse(text).expect(text);
    assert_eq!(objects.len(), 1, "{text}");
    objects.remove(0)
}

pub(crate) fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

/// The shared world, with a key and a chain for acme.
pub(crate) fn world() -> World {
    let mut objects = api::manifest::parse(WORLD).expect("manifests");
    let hosts = ["cart.acme.example".to_owned(), "*.acme.example".to_owned()];
    let (chain, key) = pki::self_signed(&hosts, NOW, Duration::from_secs(86_400)).expect("a pair");
    let mut pem = manifest(
        "{kind: Certificate, metadata: {tenant: acme, namespace: shop, name: web},
          spec: {hosts: [cart.acme.example], source: pem}}",
    );
    if let Spec::Certificate(spec) = &mut pem.spec {
        (spec.certificate, spec.private_key) = (Some(chain), Some(key));
    }
    objects.push(pem);
    World::new(objects)
}

pub(crate) fn put(world: &World, object: Object) -> World {
    let objects = world.objects().values().map(|object| (**object).clone());
    World::new(objects.chain([object]))
}

pub(crate) fn key(text: &str) -> ObjectKey {
    text.parse().expect(text)
}

pub(crate) fn ids(world: &World) -> Ids {
    let mut ids = Ids::default();
    assert!(ids.allocate(world));
    ids
}

/// What `site` runs, at `revision`.
pub(crate) fn bundle(world: &World, ids: &Ids, at: &str, revision: u64) -> Bundle {
    let Projection { resources, sites } = project(world, ids, &site(at));
    Bundle {
        revision: Revision(revision),
        resources,
        sites,
    }
}

#[test]
fn the_shared_world_is_good() {
    let world = world();
    for object in world.objects().values() {
        check_put(&world, object, NOW).expect("every resource is good beside the others");
    }
}

#[test]
fn each_site_gets_what_it_needs_and_nothing_else() {
    let world = world();
    let ids = ids(&world);
    let acme = [
        "tenants/acme",
        "tenants/acme/namespaces/shop/services/cart",
        "tenants/acme/namespaces/shop/loadbalancers/web",
    ];
    let blue = acme.map(|path| path.replace("acme", "blue"));
    let blue: Vec<&str> = blue.iter().map(String::as_str).collect();
    let certificate = "tenants/acme/namespaces/shop/certificates/web";
    let hidden = "tenants/acme/namespaces/shop/services/hidden";
    for (at, resources, sites) in [
        (
            "par.fabric",
            [&acme[..], &blue, &[certificate, "sites/par"]].concat(),
            vec![
                "par.fabric",
                "nyc.fabric",
                "aws.acme",
                "factory.acme",
                "shop.blue",
            ],
        ),
        (
            "nyc.fabric",
            [&acme[..], &[certificate, "sites/nyc"]].concat(),
            vec![
                "par.fabric",
                "nyc.fabric",
                "aws.acme",
                "factory.acme",
                "shop.blue",
            ],
        ),
        (
            "aws.acme",
            [&acme[..], &[hidden, "tenants/acme/sites/aws"]].concat(),
            vec!["par.fabric", "nyc.fabric", "aws.acme", "factory.acme"],
        ),
        (
            "factory.acme",
            [&acme[..], &["tenants/acme/sites/factory"]].concat(),
            vec!["par.fabric", "nyc.fabric", "aws.acme", "factory.acme"],
        ),
        (
            "shop.blue",
            [&blue[..], &["tenants/blue/sites/shop"]].concat(),
            vec!["par.fabric", "nyc.fabric", "shop.blue"],
        ),
        ("gone.acme", vec![], vec![]),
    ] {
        let projection = project(&world, &ids, &site(at));
        let mut have: Vec<String> = projection
            .resources
            .keys()
            .map(ToString::to_string)
            .collect();
        let mut want: Vec<String> = resources.iter().map(|s| (*s).to_owned()).collect();
        have.sort();
        want.sort();
        assert_eq!(have, want, "{at}");
        let mut have: Vec<String> = projection
            .sites
            .iter()
            .map(|s| s.name.to_string())
            .collect();
        let mut want: Vec<String> = sites.iter().map(|s| (*s).to_owned()).collect();
        have.sort();
        want.sort();
        assert_eq!(have, want, "{at}");
    }
}

#[test]
fn a_gateway_gets_own_origins_and_no_secrets() {
    let world = world();
    let ids = ids(&world);
    let addresses = |at: &str| -> Vec<String> {
        let world = World::from(project(&world, &ids, &site(at)).resources);
        let cart = world
            .services()
            .find(|(o, _)| o.metadata.name.as_str() == "cart");
        let (_, spec) = cart.expect("cart");
        spec.origins
            .iter()
            .flat_map(|o| o.addresses.clone())
            .collect()
    };
    assert_eq!(addresses("aws.acme"), ["10.0.0.1", "10.0.0.2:9090"]);
    assert_eq!(addresses("factory.acme"), ["10.0.0.1"]);
    assert_eq!(addresses("par.fabric"), [""; 0]);
    for at in ["aws.acme", "factory.acme", "shop.blue"] {
        let projection = project(&world, &ids, &site(at));
        let text = format!("{projection:?}");
        assert!(!text.contains("PRIVATE"), "{at}");
        let other = if at == "shop.blue" { "acme" } else { "blue" };
        assert!(!text.contains(other), "{at} heard of {other}");
        for object in projection.resources.values() {
            if let Spec::LoadBalancer(spec) = &object.spec {
                assert!(spec.tls.is_none(), "{at}");
            }
        }
    }
    let pop = format!("{:?}", project(&world, &ids, &site("par.fabric")));
    assert!(pop.contains("PRIVATE"), "a PoP terminates TLS");
}

#[test]
fn a_gateway_with_a_vip_gets_what_it_offers_and_its_own_routers() {
    let router = |at: &str| {
        manifest(&format!(
            "{{kind: BGPPeer, metadata: {{tenant: acme, name: of-{at}}}, spec: {{site: {at},
              peerAddress: 192.0.2.1, peerASN: 65001, localASN: 65010}}}}"
        ))
    };
    let vip = manifest(
        "{kind: LoadBalancer, metadata: {tenant: acme, namespace: shop, name: inside},
          spec: {hosts: [in.acme.example], tls: {certificates: [web]},
                 advertise: [{sites: [factory], vip: 192.0.2.10}],
                 routes: [{backendRefs: [{name: hidden}]}]}}",
    );
    let mut world = world();
    for object in [router("factory"), router("aws"), vip] {
        world = put(&world, object);
    }
    let mut ids = ids(&world);
    ids.allocate(&world);
    let has = |at: &str, path: &str| {
        let projection = project(&world, &ids, &site(at));
        projection.resources.contains_key(&key(path))
    };
    let shop = |rest: &str| format!("tenants/acme/namespaces/shop/{rest}");
    assert!(has("factory.acme", &shop("loadbalancers/inside")));
    assert!(has("factory.acme", &shop("certificates/web")));
    assert!(has("factory.acme", &shop("services/hidden")));
    assert!(has("factory.acme", "tenants/acme/bgppeers/of-factory"));
    assert!(!has("factory.acme", "tenants/acme/bgppeers/of-aws"));
    // The endpoints' site hears who may come in; nobody else of it.
    assert!(has("aws.acme", &shop("loadbalancers/inside")));
    assert!(!has("aws.acme", &shop("certificates/web")));
    for at in ["par.fabric", "nyc.fabric", "shop.blue"] {
        assert!(!has(at, &shop("loadbalancers/inside")), "{at}");
        assert!(!has(at, "tenants/acme/bgppeers/of-aws"), "{at}");
    }
}

#[test]
fn what_does_not_concern_a_site_changes_nothing_there() {
    let world = world();
    let mut ids = ids(&world);
    let before = |at: &str, ids: &Ids| project(&world, ids, &site(at));
    for (change, same, other) in [
        (
            "{kind: Namespace, metadata: {tenant: acme, name: new}, spec: {}}",
            vec![
                "par.fabric",
                "nyc.fabric",
                "aws.acme",
                "factory.acme",
                "shop.blue",
            ],
            vec![],
        ),
        (
            "{kind: Tenant, metadata: {name: acme}, spec: {publicHosts: ['*.acme.example', x.org]}}",
            vec![
                "par.fabric",
                "nyc.fabric",
                "aws.acme",
                "factory.acme",
                "shop.blue",
            ],
            vec![],
        ),
        (
            "{kind: Service, metadata: {tenant: blue, namespace: shop, name: cart},
              spec: {port: 8081, origins: [{sites: [shop], addresses: ['10.0.0.1']}]}}",
            vec!["nyc.fabric", "aws.acme", "factory.acme"],
            vec!["par.fabric", "shop.blue"],
        ),
        (
            "{kind: Service, metadata: {tenant: acme, namespace: shop, name: hidden},
              spec: {port: 81, origins: [{sites: [aws], addresses: ['10.0.0.8']}]}}",
            vec!["par.fabric", "nyc.fabric", "factory.acme", "shop.blue"],
            vec!["aws.acme"],
        ),
        (
            "{kind: Site, metadata: {tenant: blue, name: new}, spec: {role: gateway, nodes: [{name: n1}]}}",
            vec!["aws.acme", "factory.acme"],
            vec!["par.fabric", "nyc.fabric", "shop.blue"],
        ),
    ] {
        let object = manifest(change);
        check_put(&world, &object, NOW).expect(change);
        let changed = put(&world, object);
        ids.allocate(&changed);
        for at in same {
            assert_eq!(
                project(&changed, &ids, &site(at)),
                before(at, &ids),
                "{at}: {change}"
            );
        }
        for at in other {
            assert_ne!(
                project(&changed, &ids, &site(at)),
                before(at, &ids),
                "{at}: {change}"
            );
        }
    }
    // What the server writes on an object is no change either.
    let objects = world.objects().values().map(|object| (**object).clone());
    let touched = World::new(objects.map(|mut object| {
        object.metadata.revision = Some(Revision(99));
        object.metadata.uid = Some("x".to_owned());
        let annotations = &mut object.metadata.annotations;
        annotations.insert("a".to_owned(), "b".to_owned());
        object
    }));
    for at in ["par.fabric", "aws.acme"] {
        assert_eq!(project(&touched, &ids, &site(at)), before(at, &ids), "{at}");
    }
}

/// Whom a gateway dials beside PoPs, and whom it admits: `SITE SITE, SITE`.
fn meshed(world: &World, at: &str) -> String {
    let bundle = bundle(world, &ids(world), at, 7);
    let me = crate::Me {
        site: site(at),
        node: "n1".parse().expect("a name"),
    };
    let compiled = crate::compile(&bundle, &me, &crate::Cells::new());
    let fabric = compiled.expect("it compiles").fabric;
    let dials = fabric.mesh.keys().map(|site| site.site.to_string());
    let peers = fabric.peers.iter().filter(|site| !site.is_pop());
    let peers = peers.map(|site| site.site.to_string());
    let words = |all: Vec<String>| all.join(" ");
    format!("{}, {}", words(dials.collect()), words(peers.collect()))
}

#[test]
fn gateways_of_one_tenant_that_are_meshed_dial_whoever_gives_out_addresses() {
    let gateway = |tenant: &str, name: &str, tunnel: &str, mesh: &str| {
        let nodes = format!("[{{name: n1{tunnel}}}]");
        manifest(&format!(
            "{{kind: Site, metadata: {{tenant: {tenant}, name: {name}}}, \
             spec: {{role: gateway, nodes: {nodes}{mesh}}}}}"
        ))
    };
    let (full, listens) = (
        ", mesh: {topology: full}",
        ", tunnel: {bind: ['127.9.0.1:7000']}",
    );
    let plain = world();
    assert_eq!(meshed(&plain, "aws.acme"), ", ");
    // Both have to say so.
    let one = put(&plain, gateway("acme", "factory", listens, full));
    assert_eq!(meshed(&one, "aws.acme"), ", ");
    assert_eq!(meshed(&one, "factory.acme"), ", ");
    let both = put(&one, gateway("acme", "aws", "", full));
    assert_eq!(meshed(&both, "aws.acme"), "factory, factory");
    assert_eq!(meshed(&both, "factory.acme"), ", aws");
    // Where either could, one does.
    let two = put(&both, gateway("acme", "aws", listens, full));
    let dialled = [meshed(&two, "aws.acme"), meshed(&two, "factory.acme")];
    let once = |of: &str| dialled.iter().filter(|said| said.starts_with(of)).count();
    assert_eq!(once(", "), 1, "{dialled:?}");
    // Another tenant's is none, and a PoP dials no gateway.
    let third = put(&two, gateway("blue", "shop", listens, full));
    assert_eq!(meshed(&third, "shop.blue"), ", ");
    let rows = project(&third, &ids(&third), &site("par.fabric")).sites;
    let gateways = rows.iter().filter(|row| !row.pop);
    let nodes: Vec<_> = gateways.flat_map(|row| &row.nodes).collect();
    assert!(nodes.iter().all(|node| node.dial.is_empty()));
    // Addresses for some only.
    let tunnel = ", tunnel: {bind: ['127.9.0.1:7000'], \
                  advertise: [{address: '127.9.0.2:7000', from: other}]}";
    let given = put(&both, gateway("acme", "factory", tunnel, full));
    assert_eq!(meshed(&given, "aws.acme"), ", factory");
}

#[test]
fn a_gateway_dials_the_pops_that_it_selects_and_knows_their_regions() {
    let world = put(
        &world(),
        manifest(
            "{kind: Site, metadata: {name: tyo, labels: {tier: edge}}, spec: {role: pop,
             location: {region: asia}, nodes: [{name: n1, tunnel: {bind: ['127.3.0.1:7000']}}]}}",
        ),
    );
    let fabric = |world: &World, at: &str| {
        let bundle = bundle(world, &ids(world), at, 7);
        let me = crate::Me {
            site: site(at),
            node: "n1".parse().expect("a name"),
        };
        let compiled = crate::compile(&bundle, &me, &crate::Cells::new());
        compiled.expect("it compiles").fabric
    };
    let pops = |world: &World, at: &str| {
        let pops = fabric(world, at).pops;
        let shown = pops.into_iter().map(|pop| {
            let region = pop.region.map(|region| region.to_string());
            format!("{} {}", pop.site, region.unwrap_or_default())
        });
        shown.collect::<std::collections::BTreeSet<String>>()
    };
    let all = pops(&world, "factory.acme");
    assert_eq!(
        all.into_iter().collect::<Vec<_>>(),
        ["nyc.fabric ", "tyo.fabric asia"]
    );
    let world = put(
        &world,
        manifest(
            "{kind: Site, metadata: {tenant: acme, name: factory}, spec: {role: gateway,
             nodes: [{name: n1}], attach: {popSelector: {matchLabels: {tier: edge}}}}}",
        ),
    );
    let selected = pops(&world, "factory.acme");
    assert_eq!(
        selected.into_iter().collect::<Vec<_>>(),
        ["tyo.fabric asia"]
    );
    // Nobody has the label any more: whoever answers where its Token says is spoken to all the same,
    // or nobody could say it anything else.
    let world = put(
        &world,
        manifest(
            "{kind: Site, metadata: {name: tyo}, spec: {role: pop, location: {region: asia},
             nodes: [{name: n1, tunnel: {bind: ['127.3.0.1:7000']}}]}}",
        ),
    );
    let fabric = fabric(&world, "factory.acme");
    assert!(fabric.pops.is_empty());
    let peers = ["nyc.fabric", "par.fabric", "tyo.fabric"].map(site);
    assert!(
        peers.iter().all(|pop| fabric.peers.contains(pop)),
        "{:?}",
        fabric.peers
    );
    // A PoP needs to know no regions.
    let rows = project(&world, &ids(&world), &site("par.fabric")).sites;
    assert!(rows.iter().all(|row| row.region.is_none()));
}

#[test]
fn a_node_is_dialled_where_it_says() {
    let world = world();
    for (at, reader, want) in [
        ("par.fabric", "aws.acme", "127.1.0.2:7000"),
        ("par.fabric", "nyc.fabric", "127.1.0.3:7000"),
        // Who is not among those that it gives addresses to does not dial it.
        ("par.fabric", "shop.blue", ""),
        ("nyc.fabric", "shop.blue", "127.2.0.9:7000"),
        ("aws.acme", "par.fabric", ""),
    ] {
        let (_, spec) = world.site(&site(at)).expect("a site");
        let have: Vec<String> = dial(&spec.nodes[0], &site(reader))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(have.join(" "), want, "{at} from {reader}");
    }
}

#[test]
fn numbers_are_never_reused() {
    let full = world();
    let mut ids = ids(&full);
    assert!(!ids.allocate(&full), "nothing new");
    let lb = key("tenants/acme/namespaces/shop/loadbalancers/web");
    let (aws, blue) = (site("aws.acme"), "blue".parse().expect("a name"));
    let node = "n1".parse().expect("a name");
    let before = (
        ids.site(&aws),
        ids.node(&aws, &node),
        ids.tenant(&blue),
        ids.load_balancer(&lb),
    );
    assert!(before.0.is_some() && before.1.is_some() && before.2.is_some() && before.3.is_some());
    // Everything goes away, something new comes: it gets new numbers, and the old ones wait.
    let mut empty = ids.clone();
    assert!(!empty.allocate(&World::default()));
    let json = serde_json::to_string(&empty).expect("JSON");
    let mut again: Ids = serde_json::from_str(&json).expect("the same");
    assert!(again.allocate(&World::new([
        manifest("{kind: Tenant, metadata: {name: carol}, spec: {}}"),
        manifest("{kind: Site, metadata: {name: tyo}, spec: {role: pop, nodes: [{name: n1}]}}"),
    ])));
    let new = again.site(&site("tyo.fabric"));
    let mut all: Vec<_> = full.sites().map(|(name, ..)| again.site(&name)).collect();
    assert!(!all.contains(&new) && new.is_some_and(|id| id.0 != 0));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
    let after = (
        again.site(&aws),
        again.node(&aws, &node),
        again.tenant(&blue),
        again.load_balancer(&lb),
    );
    assert_eq!(after, before);
    assert_eq!(
        again
            .tenant(&"fabric".parse().expect("a name"))
            .map(|id| id.0),
        Some(0)
    );
}

#[test]
fn derived_numbers_are_stable() {
    let world = world();
    let ids = Ids::derive(&world).expect("no collision");
    assert_eq!(Ids::derive(&world).expect("no collision"), ids);
    assert_ne!(ids.site(&site("aws.acme")), ids.site(&site("factory.acme")));
    assert!(project(&world, &ids, &site("par.fabric")).sites.len() == 5);
}

#[test]
fn a_tenant_in_a_pop_has_a_slot_of_its_own() {
    let world = put(
        &world(),
        manifest(
            "{kind: Service, metadata: {tenant: blue, namespace: shop, name: edge},
              spec: {port: 80, origins: [{sites: [par], addresses: ['10.0.0.5']}]}}",
        ),
    );
    let ids = ids(&world);
    let slots: Vec<_> = ids
        .slots(&site("par.fabric"))
        .map(|(slot, t)| (slot.0, t))
        .collect();
    let blue = ids.tenant(&"blue".parse().expect("a name")).expect("blue");
    assert_eq!(slots, [(1, blue)]);
    assert_eq!(ids.slots(&site("aws.acme")).count(), 0);

    // The PoP probes it although nothing is offered there, and knows it for the tenant's.
    let service = "tenants/blue/namespaces/shop/services/edge";
    let par = project(&world, &ids, &site("par.fabric"));
    assert!(par.resources.contains_key(&key(service)));
    let nyc = project(&world, &ids, &site("nyc.fabric"));
    assert!(!nyc.resources.contains_key(&key(service)));
}

struct Controller {
    signer: pki::Signer,
    verifier: pki::Verifier,
}

fn controller(planet: &str) -> Controller {
    let planet = planet.parse().expect("a planet");
    let ca = pki::Authority::create(&planet, NOW).expect("a CA");
    let key = pki::NodeKey::generate().expect("a key");
    let signer =
        pki::Signer::new(&key, ca.issue_signer(&key, NOW).expect("chain")).expect("signer");
    Controller {
        signer,
        verifier: pki::Verifier::new(&[ca.certificate_der()]).expect("verifier"),
    }
}

fn update(base: Option<u64>, revision: u64) -> Update {
    let world = world();
    let bundle = bundle(&world, &ids(&world), "aws.acme", revision);
    Update {
        planet: "earth.example".to_owned(),
        site: site("aws.acme"),
        base: base.map(Revision),
        revision: Revision(revision),
        issued: NOW,
        put: {
            let resources = bundle.resources.into_values();
            resources.map(Arc::unwrap_or_clone).collect()
        },
        delete: Vec::new(),
        sites: Some(bundle.sites),
    }
}

impl Controller {
    fn sign(&self, update: &Update) -> Signed {
        self.sign_text(serde_json::to_string(update).expect("JSON"))
    }

    fn sign_text(&self, payload: String) -> Signed {
        let signature = self.signer.sign(payload.as_bytes()).expect("a signature");
        Signed::new(payload, &signature, self.signer.chain())
    }
}

#[test]
fn only_what_the_controller_signed_for_this_site_is_opened() {
    let earth = controller("earth.example");
    let here = site("aws.acme");
    let sees = |signed: &Signed| open(&earth.verifier, &here, signed, NOW);
    let good = earth.sign(&update(None, 5));
    assert_eq!(sees(&good).expect("good"), update_of(&good));
    let changed = |change: &dyn Fn(&mut Signed)| {
        let mut signed = good.clone();
        change(&mut signed);
        sees(&signed)
    };
    let truncated = changed(&|s| s.payload.truncate(s.payload.len() - 1));
    assert!(matches!(
        truncated,
        Err(OpenError::Forged(pki::VerifyError::Signature))
    ));
    let forged = changed(&|s| s.payload = s.payload.replace("\"revision\":5", "\"revision\":6"));
    assert!(matches!(
        forged,
        Err(OpenError::Forged(pki::VerifyError::Signature))
    ));
    let other = earth.sign(&update(None, 6)).signature;
    let mixed = changed(&|s| s.signature.clone_from(&other));
    assert!(matches!(mixed, Err(OpenError::Forged(_))));
    assert!(matches!(
        changed(&|s| s.signature.insert(0, '!')),
        Err(OpenError::Damaged(_))
    ));
    assert!(matches!(
        changed(&|s| s.chain[0].insert(0, '!')),
        Err(OpenError::Damaged(_))
    ));
    assert!(matches!(
        changed(&|s| s.chain.clear()),
        Err(OpenError::Forged(_))
    ));
    // Another planet's controller, and an impostor of this one.
    for planet in ["mars.example", "earth.example"] {
        let signed = controller(planet).sign(&update(None, 5));
        assert!(
            matches!(sees(&signed), Err(OpenError::Forged(_))),
            "{planet}"
        );
    }
    let for_other = Update {
        site: site("factory.acme"),
        ..update(None, 5)
    };
    assert!(matches!(
        sees(&earth.sign(&for_other)),
        Err(OpenError::NotForUs(..))
    ));
    let of_mars = Update {
        planet: "mars.example".to_owned(),
        ..update(None, 5)
    };
    assert!(matches!(
        sees(&earth.sign(&of_mars)),
        Err(OpenError::NotForUs(..))
    ));
    for text in ["", "{}", "[", "null", "{\"planet\":1}"] {
        let signed = earth.sign_text(text.to_owned());
        assert!(
            matches!(sees(&signed), Err(OpenError::Payload(_))),
            "{text}"
        );
    }
}

fn update_of(signed: &Signed) -> Update {
    serde_json::from_str(&signed.payload).expect("an update")
}

#[test]
fn a_chain_never_goes_back() {
    let earth = controller("earth.example");
    let here = site("aws.acme");
    let (mut chain, mut bare) = (Chain::default(), Chain::without_envelopes());
    let mut take = |base: Option<u64>, revision: u64| {
        let signed = earth.sign(&update(base, revision));
        let also = bare.take(&earth.verifier, &here, signed.clone(), NOW).ok();
        assert_eq!(bare.envelopes(), []);
        let said = match chain.take(&earth.verifier, &here, signed, NOW) {
            Ok(newer) => {
                assert_eq!(also, Some(newer));
                if newer { "newer" } else { "aside" }
            }
            Err(OpenError::Fit(FitError::Gap { .. })) => "gap",
            Err(OpenError::Fit(FitError::Replay { .. })) => "replay",
            Err(error) => panic!("{error}"),
        };
        assert_eq!(bare.bundle(), chain.bundle());
        (said, chain.bundle().revision.0, chain.envelopes().len())
    };
    for (base, revision, want) in [
        (Some(3), 4, ("gap", 0, 0)),
        (None, 5, ("newer", 5, 1)),
        (None, 5, ("replay", 5, 1)),
        (Some(5), 7, ("newer", 7, 2)),
        (Some(5), 7, ("replay", 7, 2)),
        (Some(5), 6, ("replay", 7, 2)),
        (Some(8), 9, ("gap", 7, 2)),
        // A cache that is older than this node leads on from where it is.
        (None, 4, ("aside", 7, 2)),
        (Some(4), 6, ("aside", 7, 2)),
        (Some(6), 10, ("newer", 10, 3)),
        (Some(7), 8, ("replay", 10, 3)),
        (None, 11, ("newer", 11, 1)),
    ] {
        assert_eq!(take(base, revision), want, "{base:?} → {revision}");
    }
    let forged = Signed {
        payload: "{}".to_owned(),
        ..earth.sign(&update(Some(11), 12))
    };
    assert!(matches!(
        chain.take(&earth.verifier, &here, forged, NOW),
        Err(OpenError::Forged(_))
    ));
    assert_eq!(chain.bundle().revision.0, 11);
}
