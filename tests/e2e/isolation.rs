//! A gateway listens to nobody, and through a tunnel nothing but published Services answers.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use base::{Name, NetworkId, SiteId, SiteName, SlotId, TenantId};
use kit::runtime::Tasks;
use kit::{
    Client, Connection, Planet, Turn,
    bgp::{
        EndpointHealth, Key, LocalRoute, Rd, RouteTarget, Seq, SiteHealth, State, Value as Fact,
    },
    figure,
    http::{Method, Request},
    member::{Member, SyncStream, each, link_up, pause, run, soon, until},
    process,
    speaker::{PeerConfig, Speaker, SpeakerConfig},
    tunnel::{EndpointRef, Links, OpenError, StreamHead},
    wait_until,
    words::sync::{Down, Update},
};
use serde_json::{Value, json};

use crate::{
    ACME, BLUE, planet,
    support::{acme, at, fetch, logged, node_metric, put, token},
};

/// The AS of every fabric.
const ASN: u32 = 4_200_000_000;
/// The port of the demo applications, and of their Services.
const PORT: u16 = 18_000;
/// Where PoPs accept tunnels.
const TUNNELS: u16 = 17_443;

const STREAMS_REFUSED: &str = "sealane_proxy_streams_refused_total";
const CONTROL_REFUSED: &str = "sealane_control_streams_refused_total";
const SYNC_REFUSED: &str = "sealane_sync_streams_refused_total";
const NOT_ADMITTED: &str = "sealane_tunnel_peers_refused_total{cause=\"not-admitted\"}";

#[test]
fn a_gateway_has_no_open_socket() {
    let turn = Turn::beside();
    let planet = planet(&turn);
    let mut client = Client::new();
    for host in [ACME, BLUE] {
        for pop in &planet.report.pops {
            let reply = client.get(pop.http, host, "/").expect("an answer");
            assert_eq!(reply.status, 200);
        }
    }
    for gateway in &planet.report.gateways {
        let (open, other) = ip_sockets(gateway.pid);
        assert!(open.is_empty(), "{}: {open:?}", gateway.name);
        assert!(!other.is_empty(), "{} has tunnels", gateway.name);
        let admin = planet.state(&gateway.name).join("admin.sock");
        assert!(has_unix_listener(
            gateway.pid,
            admin.to_str().expect("a plain path")
        ));
        figure(format_args!(
            "sockets: {} has {} connections and nothing open",
            gateway.name,
            other.len()
        ));
    }
    // The same look finds what is open where something should be.
    let (open, _) = ip_sockets(planet.pop("par").pid);
    assert!(open.len() >= 3, "{open:?}");
}

/// The IP sockets a process holds: those that strangers could reach, and the others.
fn ip_sockets(pid: u32) -> (Vec<process::Socket>, Vec<process::Socket>) {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/net")).expect("a namespace");
    assert_eq!(
        namespace(&pid.to_string()),
        namespace("self"),
        "its sockets are in our tables"
    );
    let inodes = process::socket_inodes(pid);
    assert!(!inodes.is_empty(), "its descriptors can be read");
    let all = process::sockets().into_iter();
    all.filter(|socket| inodes.contains(&socket.inode))
        .partition(process::Socket::is_open)
}

/// Does the process listen on this Unix socket?
fn has_unix_listener(pid: u32, path: &str) -> bool {
    let inodes = process::socket_inodes(pid);
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).expect("a table");
    // Num RefCount Protocol Flags Type St Inode Path; the flag 0x10000 is SO_ACCEPTCON.
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, "00010000", _, _, inode, found] = fields.as_slice() else {
            return false;
        };
        *found == path && inode.parse().is_ok_and(|inode| inodes.contains(&inode))
    })
}

/// The immutable number of an object.
fn id(planet: &Planet, path: &str) -> u32 {
    let object = planet.api().get(path);
    let id = object["metadata"]["id"].as_u64().expect("an id");
    u32::try_from(id).expect("a small number")
}

/// What a PoP would say to get at acme's cart in aws.
fn honest(aws: u32, address: SocketAddr) -> StreamHead {
    StreamHead {
        endpoint: Some(EndpointRef {
            site: SiteId(aws),
            network: NetworkId(0),
            address,
        }),
        lb: Some("shop/cart".to_owned()),
        ..StreamHead::to(format!("cart.shop.acme:{PORT}"))
    }
}

/// The status with which a stream is refused; 200 if it is not.
fn status<S>(opened: &Result<S, OpenError>) -> u16 {
    match opened {
        Ok(_) => 200,
        Err(OpenError::Refused { status, .. }) => status.as_u16(),
        Err(error) => panic!("neither accepted nor refused: {error}"),
    }
}

/// Every one of these is refused with the status beside it.
async fn refused(links: &Links, site: &SiteName, heads: &[(&str, StreamHead, u16)]) {
    for (what, head, expected) in heads {
        let opened = links.open(site, head).await;
        assert_eq!(status(&opened), *expected, "{what}: {opened:?}");
    }
}

/// Reserved names that no other site may ask for.
const RESERVED: [&str; 8] = [
    "sync.controller.sealane.internal",
    "join.controller.sealane.internal",
    "sync.pop.sealane.internal",
    "sync.factory.acme.sealane.internal",
    "bgp.factory.acme.sealane.internal",
    "bgp.nyc.fabric.sealane.internal",
    "admin.sealane.internal",
    "sealane.internal",
];

#[test]
fn through_a_tunnel_a_gateway_serves_its_published_services_and_nothing_else() {
    let turn = Turn::beside();
    let planet = planet(&turn);
    let api = planet.api();
    let here = at(&planet, 50, TUNNELS);
    // One more PoP, which this test plays; and a Service that no load balancer offers.
    put(
        &api,
        &json!({ "kind": "Site", "metadata": { "name": "ams" },
        "spec": { "role": "pop", "nodes": [{ "name": "n0", "tunnel": { "bind": [here] } }] } }),
    );
    put(
        &api,
        &json!({ "kind": "Service", "metadata": acme("secret"),
        "spec": { "port": PORT, "origins": [
            { "sites": ["aws"], "addresses": [planet.endpoint("cart-2.aws").address] }] } }),
    );
    let mut aws_site = fetch(&api, "/api/v1/tenants/acme/sites/aws");
    aws_site["spec"]["attach"] = json!({ "count": 3 });
    put(&api, &aws_site);
    put(
        &api,
        &json!({ "kind": "Site", "metadata": { "tenant": "blue", "name": "rogue" },
        "spec": { "role": "gateway", "nodes": [{ "name": "n0" }] } }),
    );
    let (pop, blue) = (token(&api, None, "ams"), token(&api, Some("blue"), "rogue"));
    let aws: SiteName = "aws.acme".parse().expect("a site");
    let number = id(&planet, "/api/v1/tenants/acme/sites/aws");
    run(async {
        // A gateway cannot be dialled; but it dials this address. Blue does not become a PoP there.
        let impostor = Member::join(&blue).await;
        let stranger = impostor.start(&[here], &[]).await;
        wait_until(
            "aws refuses blue's gateway",
            Duration::from_secs(10),
            || match node_metric(&planet, "aws", NOT_ADMITTED) {
                0 => Err("not yet"),
                _ => Ok(()),
            },
        );
        assert!(!stranger.links.table().reaches(&aws));
        // It is counted before it is written.
        wait_until(
            "aws says so once",
            Duration::from_secs(10),
            || match logged(&planet, "aws", &["not-admitted"]).len() {
                1 => Ok(()),
                lines => Err(format!("{lines} lines")),
            },
        );
        stranger.control.drain().await;

        let member = Member::join(&pop).await;
        let mut tunnel = member.start(&[here], &[]).await;
        while link_up(&mut tunnel).await.site() != Some(&aws) {}
        let address = planet.endpoint("cart-1.aws").address;
        let good = honest(number, address);
        wait_until(
            "aws knows the new PoP and the secret",
            Duration::from_secs(10),
            || {
                let sites = api.get("/api/v1/sitestatus");
                let items = sites["items"].as_array().expect("items");
                let aws = items
                    .iter()
                    .find(|item| item["site"] == "aws.acme")
                    .expect("aws");
                if aws["status"]["applied"] == aws["wanted"] {
                    Ok(())
                } else {
                    Err(aws.to_string())
                }
            },
        );
        let stream = tunnel
            .links
            .open(&aws, &good)
            .await
            .expect("what is published answers");
        let tasks = Tasks::new("test");
        let mut connection = Connection::http1(&tasks, stream).await.expect("HTTP");
        let request = Request::get("/")
            .header("host", ACME)
            .body(Default::default());
        let reply = connection
            .send(request.expect("a request"))
            .await
            .expect("an answer");
        assert_eq!(reply.story().expect("a story").address, address);

        let before = node_metric(&planet, "aws", STREAMS_REFUSED);
        let heads = crafted(&planet, &good);
        refused(&tunnel.links, &aws, &heads).await;
        let swept = sweep(&tunnel.links, &aws, &good).await;
        let counted = node_metric(&planet, "aws", STREAMS_REFUSED) - before;
        assert_eq!(counted, heads.len() as u64 + swept);

        let before = node_metric(&planet, "aws", CONTROL_REFUSED);
        for authority in RESERVED {
            let head = StreamHead {
                authority: authority.to_owned(),
                ..good.clone()
            };
            assert_eq!(
                status(&tunnel.links.open(&aws, &head).await),
                404,
                "{authority}"
            );
            assert_eq!(
                status(&tunnel.links.open_control(&aws, &head).await),
                404,
                "{authority}"
            );
        }
        let counted = node_metric(&planet, "aws", CONTROL_REFUSED) - before;
        assert_eq!(counted, 2 * RESERVED.len() as u64);
        figure(format_args!(
            "crafted streams: {} to aws from a PoP, all refused and counted",
            heads.len() as u64 + swept + 2 * RESERVED.len() as u64
        ));
        tunnel.control.drain().await;
    });
}

/// Heads that a PoP could send and should not get anywhere with.
fn crafted(planet: &Planet, good: &StreamHead) -> Vec<(&'static str, StreamHead, u16)> {
    let endpoint = good.endpoint.expect("an endpoint");
    let factory = SiteId(id(planet, "/api/v1/tenants/acme/sites/factory"));
    let with = |change: &dyn Fn(&mut EndpointRef)| {
        let mut endpoint = endpoint;
        change(&mut endpoint);
        StreamHead {
            endpoint: Some(endpoint),
            ..good.clone()
        }
    };
    let to = |authority: &str| StreamHead {
        authority: authority.to_owned(),
        ..good.clone()
    };
    let lb = |lb: &str| StreamHead {
        lb: Some(lb.to_owned()),
        ..good.clone()
    };
    let address = |name: &str| {
        let address = planet.endpoint(name).address;
        with(&|endpoint| endpoint.address = address)
    };
    let secret = |lb: &str| StreamHead {
        authority: format!("secret.shop.acme:{PORT}"),
        lb: Some(lb.to_owned()),
        ..address("cart-2.aws")
    };
    let local: SocketAddr = ([127, 0, 0, 1], PORT).into();
    vec![
        (
            "no endpoint",
            StreamHead {
                endpoint: None,
                ..good.clone()
            },
            400,
        ),
        (
            "no load balancer",
            StreamHead {
                lb: None,
                ..good.clone()
            },
            400,
        ),
        (
            "another site",
            with(&|endpoint| endpoint.site = factory),
            404,
        ),
        (
            "a site that is not there",
            with(&|endpoint| endpoint.site = SiteId(9999)),
            404,
        ),
        (
            "another network",
            with(&|endpoint| endpoint.network = NetworkId(1)),
            404,
        ),
        ("an endpoint of blue", address("cart-1.shop"), 404),
        ("an endpoint of factory", address("cart-1.factory"), 404),
        (
            "the gateway itself",
            with(&|endpoint| endpoint.address = local),
            404,
        ),
        ("another load balancer", lb("shop/other"), 404),
        ("a load balancer without its namespace", lb("cart"), 404),
        ("blue's Service", to(&format!("cart.shop.blue:{PORT}")), 404),
        (
            "a Service that is not there",
            to(&format!("other.shop.acme:{PORT}")),
            404,
        ),
        (
            "another namespace",
            to(&format!("cart.other.acme:{PORT}")),
            404,
        ),
        ("no port", to("cart.shop.acme"), 400),
        ("no Service", to("localhost:22"), 400),
        ("an address", to("127.0.0.1:22"), 400),
        ("an unpublished Service", secret("shop/secret"), 404),
        (
            "an unpublished Service, another's offer",
            secret("shop/cart"),
            404,
        ),
    ]
}

/// Asks for every other port of an endpoint's address and of its Service; how many were refused.
async fn sweep(links: &Links, site: &SiteName, good: &StreamHead) -> u64 {
    let began = kit::runtime::now();
    let ports = (1..=u16::MAX).filter(|port| *port != PORT);
    let endpoints = ports.clone().map(|port| {
        let mut endpoint = good.endpoint.expect("an endpoint");
        endpoint.address.set_port(port);
        StreamHead {
            endpoint: Some(endpoint),
            ..good.clone()
        }
    });
    let services = ports.step_by(16).map(|port| StreamHead {
        authority: format!("cart.shop.acme:{port}"),
        ..good.clone()
    });
    let heads = endpoints.chain(services);
    let statuses = each(heads, 64, async |head| {
        status(&links.open(site, &head).await)
    })
    .await;
    let refused = statuses.iter().filter(|status| **status == 404).count();
    assert_eq!(refused, statuses.len());
    figure(format_args!(
        "port sweep: {refused} streams refused in {:.1?}",
        kit::runtime::now().since(began)
    ));
    refused as u64
}

#[test]
fn a_gateway_of_one_tenant_gets_nowhere_near_another() {
    let turn = Turn::beside();
    let planet = planet(&turn);
    let api = planet.api();
    put(
        &api,
        &json!({ "kind": "Site", "metadata": { "tenant": "blue", "name": "rogue" },
        "spec": { "role": "gateway", "nodes": [{ "name": "n0" }] } }),
    );
    let token = token(&api, Some("blue"), "rogue");
    let par: SiteName = "par.fabric".parse().expect("a site");
    let aws = id(&planet, "/api/v1/tenants/acme/sites/aws");
    run(async {
        let member = Member::join(&token).await;
        let mut tunnel = member.start(&[], &[at(&planet, 10, TUNNELS)]).await;
        assert_eq!(link_up(&mut tunnel).await.site(), Some(&par));
        streams_to_a_pop(&planet, &tunnel.links, &par, aws).await;
        let update = own_intent(&planet, &member, &tunnel.links, &par).await;
        routes_of_another(&planet, &member, &tunnel.links, &par, &update).await;
        tunnel.control.drain().await;
    });
}

/// Through a PoP there is no way to any gateway, least of all to another tenant's.
async fn streams_to_a_pop(planet: &Planet, links: &Links, par: &SiteName, aws: u32) {
    let good = honest(aws, planet.endpoint("cart-1.aws").address);
    let from = |site: &str| StreamHead {
        origin: Some(site.parse().expect("a site")),
        ..good.clone()
    };
    let own = StreamHead {
        authority: format!("cart.shop.blue:{PORT}"),
        ..good.clone()
    };
    let (acme, blue): (Name, Name) = (
        "acme".parse().expect("a name"),
        "blue".parse().expect("a name"),
    );
    let sealed = |tenant: &Name, origin: Option<&str>| StreamHead {
        origin: origin.map(|site| site.parse().expect("a site")),
        via: vec!["aws.acme".parse().expect("a site")],
        ..StreamHead::sealed(tenant)
    };
    let heads = [
        ("acme's Service", good.clone(), 403),
        ("as if it were aws", from("aws.acme"), 400),
        ("as if it were a PoP", from("nyc.fabric"), 400),
        ("sealed, to acme's site", sealed(&acme, None), 403),
        ("sealed, of its own tenant", sealed(&blue, None), 403),
        (
            "sealed, as if from a PoP",
            sealed(&acme, Some("nyc.fabric")),
            403,
        ),
        ("its own tenant's Service elsewhere", own, 404),
        (
            "no endpoint",
            StreamHead {
                endpoint: None,
                ..good.clone()
            },
            400,
        ),
    ];
    let before = node_metric(planet, "par", STREAMS_REFUSED);
    refused(links, par, &heads).await;
    let counted = node_metric(planet, "par", STREAMS_REFUSED) - before;
    assert_eq!(counted, heads.len() as u64);
    let by_peer = planet.admin("par", Method::GET, "/refusals");
    let mine = json!({ "peer": "rogue.blue", "rule": "other-tenant", "count": 4 });
    let items = by_peer["items"].as_array().expect("items");
    assert!(items.contains(&mine), "{by_peer}");

    // Whoever has a link has nothing to seal on it, and gets no handshake for it.
    let forged = StreamHead {
        origin: "nyc.fabric".parse().ok(),
        ..StreamHead::sealed(&acme)
    };
    for head in [StreamHead::sealed(&blue), forged] {
        assert_eq!(status(&links.open(par, &head).await), 403);
    }
    let by_peer = planet.admin("par", Method::GET, "/refusals");
    let mine = json!({ "peer": "rogue.blue", "rule": "bad-seal", "count": 2 });
    let items = by_peer["items"].as_array().expect("items");
    assert!(items.contains(&mine), "{by_peer}");

    let before = node_metric(planet, "par", CONTROL_REFUSED);
    for authority in RESERVED {
        let head = StreamHead::to(authority);
        assert_eq!(
            status(&links.open_control(par, &head).await),
            404,
            "{authority}"
        );
    }
    let counted = node_metric(planet, "par", CONTROL_REFUSED) - before;
    assert_eq!(counted, RESERVED.len() as u64);
}

/// Site-sync gives a site its own intent only. Returns what this one gets.
async fn own_intent(planet: &Planet, member: &Member, links: &Links, par: &SiteName) -> Update {
    let before = node_metric(planet, "par", SYNC_REFUSED);
    for name in ["aws.acme", "shop.blue", "par.fabric"] {
        let head = StreamHead {
            origin: name.parse().ok(),
            ..StreamHead::to("sync.sealane.internal")
        };
        let stream = links.open_control(par, &head).await.expect("a stream");
        let mut sync = SyncStream::on(stream);
        let hello = kit::words::sync::Up::Hello(kit::words::sync::Hello {
            site: name.parse().expect("a site"),
            node: "n0".parse().expect("a node"),
            have: None,
            time: kit::runtime::wall(),
        });
        sync.send(&hello).await.expect("sent");
        match sync.next_down().await {
            Some(Down::Refused { reason }) => assert!(reason.contains("rogue.blue"), "{reason}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(node_metric(planet, "par", SYNC_REFUSED) - before, 3);
    assert_eq!(logged(planet, "par", &["site-sync is refused"]).len(), 1);

    let head = StreamHead::to("sync.sealane.internal");
    let stream = links.open_control(par, &head).await.expect("a stream");
    let mut sync = SyncStream::on(stream);
    sync.send(&member.hello(None)).await.expect("sent");
    let Some(Down::Signed(signed)) = sync.next_down().await else {
        panic!("no intent");
    };
    let update = kit::plan::open(
        &member.verifier,
        member.site(),
        &signed,
        kit::runtime::wall(),
    );
    let update = update.expect("signed for this site");
    let text = serde_json::to_string(&update).expect("JSON");
    assert!(!text.contains("acme"), "{text}");
    update
}

/// Routes of another tenant, and of others' sites, are counted and change nothing.
async fn routes_of_another(
    planet: &Planet,
    member: &Member,
    links: &Links,
    par: &SiteName,
    update: &Update,
) {
    let row = |site: &SiteName| {
        let found = update.sites.iter().flatten().find(|row| row.name == *site);
        found.expect("a row of the site table")
    };
    let (me, pop) = (row(member.site()), row(par));
    let (node, reflector) = (me.nodes[0].id, pop.nodes[0].id);
    let acme = TenantId(id(planet, "/api/v1/tenants/acme"));
    let aws = SiteId(id(planet, "/api/v1/tenants/acme/sites/aws"));
    let tasks = Tasks::new("test");
    let (speaker, handle, _events) = Speaker::new(SpeakerConfig::new(node, ASN));
    tasks.spawn_local("speaker", speaker.run());
    let peer = PeerConfig::reflector(reflector, me.tenant);
    let stream = soon("par takes a BGP session", async {
        loop {
            let head = StreamHead::to("bgp.sealane.internal");
            match links.open_control(par, &head).await {
                Ok(stream) => return stream,
                // Not a neighbour before par has the new site table.
                Err(_) => pause(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    let session = handle.session(peer, stream);
    tasks.spawn_local("session", async move { drop(session.await) });
    let before = seen(planet, aws);
    assert!(!before.0.is_empty());
    let endpoint = planet.endpoint("cart-1.aws").address;
    let say = |rd: SiteId, site: SiteId, tenant: TenantId, port: u16| LocalRoute {
        key: Key::Endpoint {
            rd: Rd {
                site: rd,
                slot: SlotId(0),
            },
            service: kit::pki::service_id(
                &"shop".parse().expect("a name"),
                &"cart".parse().expect("a name"),
            ),
            site,
            network: NetworkId(0),
            address: endpoint.ip(),
            port,
            protocol: 6,
        },
        value: Fact::endpoint(&EndpointHealth {
            state: State::Unhealthy,
            seq: Seq(u32::MAX / 2),
            ..EndpointHealth::default()
        }),
        route_targets: vec![RouteTarget {
            tenant,
            selector: RouteTarget::SERVICE,
        }],
        extra: Vec::new(),
    };
    let site_down = LocalRoute {
        key: Key::Site {
            rd: Rd {
                site: aws,
                slot: SlotId(0),
            },
            site: aws,
        },
        value: Fact::site(&SiteHealth {
            state: State::Withdrawn,
            seq: Seq(u32::MAX / 2),
            ..SiteHealth::default()
        }),
        route_targets: vec![RouteTarget {
            tenant: acme,
            selector: RouteTarget::SITE,
        }],
        extra: Vec::new(),
    };
    let all = [
        say(aws, aws, acme, PORT),
        site_down,
        say(me.id, aws, acme, PORT),
        say(me.id, me.id, acme, PORT),
        // And one it may say: so the others went all the way.
        say(me.id, me.id, me.tenant, PORT + 1),
    ];
    for route in all {
        handle.originate(route).await.expect("the speaker runs");
    }
    let expected = json!({
        "speaks for another site": 2,
        "key and RD name different sites": 1,
        "route target not granted": 1,
    });
    let neighbor = until("par has heard all five", || {
        let all = planet.admin("par", Method::GET, "/neighbors");
        let items = all["items"].as_array().expect("items").clone();
        let id = json!(kit::bgp::PeerId(node.0).to_string());
        let found = items.into_iter().find(|item| item["id"] == id);
        match found {
            Some(found) if found["received"] == 5 => Ok(found),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(neighbor["refused"], expected, "{neighbor}");
    assert_eq!(seen(planet, aws), before);
    let mut client = Client::new();
    for _ in 0..20 {
        let reply = client
            .get(planet.pop("par").http, ACME, "/")
            .expect("an answer");
        assert_eq!(reply.story().expect("a story").site, "aws");
    }
    figure("a gateway of blue: 9 streams, 8 reserved names, 3 site-syncs and 4 routes refused");
    tasks.drain(Duration::ZERO).await;
}

/// What par believes about acme: states of routes from aws, and its endpoints as it picks them.
fn seen(planet: &Planet, aws: SiteId) -> (BTreeMap<String, Value>, Vec<Value>) {
    let routes = planet.admin("par", Method::GET, "/routes");
    let items = routes["items"].as_array().expect("items").iter();
    let of_aws = items.filter(|item| {
        let key = item["key"].as_str().expect("a key");
        key.contains(&format!("site {aws} ")) || key.contains(&format!(" rd {aws}:"))
    });
    let states = of_aws.map(|item| {
        let paths = item["paths"].as_array().expect("paths").iter();
        let said = paths.map(|path| json!([path["originator"], path["state"], path["stale"]]));
        (item["key"].to_string(), Value::Array(said.collect()))
    });
    let endpoints = planet.admin("par", Method::GET, "/endpoints");
    let endpoints = endpoints.as_array().expect("endpoints").iter();
    let of_acme = |view: &&Value| view["service"] == "cart.shop.acme";
    let endpoints = endpoints.filter(of_acme);
    let views = endpoints.map(|view| json!([view["address"], view["health"], view["reachable"]]));
    (states.collect(), views.collect())
}
