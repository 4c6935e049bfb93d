//! A change is live everywhere at once and cuts nothing; what is no change of the controller's is
//! refused.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use base::{Instant, SiteName};
use kit::{
    Client, Http2, Planet, Turn, figure,
    member::{Member, SyncStream, foreign_authority, link_up, run, soon, until},
    pki::{Authority, NodeKey, Signer},
    process::Signal,
    store::{Op, Options, Store},
    tunnel::{Incoming, Stream, StreamHead, Tunnel},
    wait_until,
    words::sync::{Down, Signed, Up, Update},
};
use serde_json::{Value, json};

use crate::{
    ACME, SLACK, load, pass, planet,
    support::{api_metric, at, fetch, logged, node_metric, put, token},
};

const LIVE: Duration = Duration::from_millis(500);
const CART: &str = "/api/v1/tenants/acme/namespaces/shop/loadbalancers/cart";
const CHANGES: u32 = 5;
/// A download of 5 s.
const DOWNLOAD: &str = "/download?bytes=15000000&rate=3000000";

#[test]
fn a_changed_route_is_live_at_once_and_cuts_nothing() {
    let turn = Turn::alone();
    let planet = planet(&turn);
    let mut balancer = fetch(&planet.api(), CART);
    let route = |path: &str| json!({ "matches": [{ "path": { "value": path } }], "backendRefs": [{ "name": "cart" }] });
    balancer["spec"]["routes"] = json!([route("/download"), route("/open")]);
    put(&planet.api(), &balancer);
    let pops = || planet.report.pops.iter();
    for pop in pops() {
        wait_until("only two routes", Duration::from_secs(5), || {
            let reply = Client::new().get(pop.http, ACME, "/n0").expect("an answer");
            if reply.status == 404 {
                Ok(())
            } else {
                Err(reply.status)
            }
        });
    }
    let mut kept: Vec<Http2> = pops()
        .map(|pop| Http2::connect(pop.https, ACME).expect("a connection"))
        .collect();
    let mut open = || {
        for connection in &mut kept {
            assert_eq!(
                connection.get("/open").expect("the same connection").status,
                200
            );
        }
    };
    open();
    std::thread::scope(|scope| {
        let addresses = || pops().map(|pop| pop.http);
        let downloads: Vec<_> = addresses()
            .map(|pop| scope.spawn(move || Client::new().get(pop, ACME, DOWNLOAD)))
            .collect();
        pass(Duration::from_millis(300));
        let manifest = planet.folder().join("cart.json");
        for n in 0..CHANGES {
            let path = format!("/n{n}");
            let routes = balancer["spec"]["routes"].as_array_mut().expect("routes");
            routes.push(route(&path));
            // As a user would have it: without what the server wrote.
            let meta = json!({ "tenant": "acme", "namespace": "shop", "name": "cart" });
            let mut said = balancer.clone();
            said["metadata"] = meta;
            fs::write(&manifest, said.to_string()).expect("written");
            let ask = |pop| {
                let path = path.clone();
                scope.spawn(move || first_200(pop, &path))
            };
            let seen: Vec<_> = addresses().map(ask).collect();
            let began = kit::runtime::now();
            let _ = planet
                .sealane(&["apply", "-f", manifest.to_str().expect("plain")])
                .good();
            let applied = kit::runtime::now();
            for (pop, seen) in pops().zip(seen) {
                let seen = seen.join().expect("it is live");
                figure(format_args!(
                    "change: live at {} {:?} after `apply` began, {:?} after it ended",
                    pop.name,
                    seen.since(began),
                    seen.since(applied)
                ));
                assert!(seen.since(began) <= LIVE * SLACK);
            }
        }
        assert!(
            !downloads
                .iter()
                .any(std::thread::ScopedJoinHandle::is_finished)
        );
        for download in downloads {
            let reply = download.join().expect("no panic").expect("not cut");
            assert_eq!((reply.status, reply.body.len()), (200, 15_000_000));
        }
    });
    open();
}

/// Asks until the path is there; when the answer came.
fn first_200(pop: SocketAddr, path: &str) -> Instant {
    let mut client = Client::new();
    let began = kit::runtime::now();
    loop {
        let reply = client.get(pop, ACME, path).expect("an answer");
        let now = kit::runtime::now();
        match reply.status {
            200 => return now,
            404 => assert!(
                now.since(began) < Duration::from_secs(10),
                "{path} is never there"
            ),
            other => panic!("{path}: {other}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

const UPDATES_REFUSED: &str = "sealane_updates_refused_total";
const REJECTED: &str = "sealane_controller_refused_total{cause=\"update-rejected\"}";

#[test]
fn an_update_that_is_not_the_controllers_is_refused() {
    let turn = Turn::beside();
    let planet = planet(&turn);
    let api = planet.api();
    let here = at(&planet, 50, 17_443);
    // A PoP that has gone bad: this test plays it. aws asks it for intent too.
    put(
        &api,
        &json!({ "kind": "Site", "metadata": { "name": "rogue" },
        "spec": { "role": "pop", "nodes": [{ "name": "n0", "tunnel": { "bind": [here] } }] } }),
    );
    let mut site = fetch(&api, "/api/v1/tenants/acme/sites/aws");
    site["spec"]["attach"] = json!({ "count": 3 });
    put(&api, &site);
    let admission = token(&api, None, "rogue");
    run(async {
        let member = Member::join(&admission).await;
        let mut tunnel = member.start(&[here], &[]).await;
        let aws: SiteName = "aws.acme".parse().expect("a site");
        while link_up(&mut tunnel).await.site() != Some(&aws) {}
        let (mut sync, _) = asked(&mut tunnel).await;
        // Whatever is under way has arrived when aws has what the PoPs have.
        let genuine = cached(&planet, "par", "aws");
        let last = genuine.last().expect("an envelope").clone();
        let now = update_of(&last);
        let applied = || planet.admin("aws", kit::http::Method::GET, "/status")["applied"].clone();
        until("aws is up to date", || {
            if applied() == json!(now.revision.0) {
                Ok(())
            } else {
                Err(applied().to_string())
            }
        })
        .await;
        let other = cached(&planet, "par", "factory").remove(0);
        let forged = forgeries(&member, &last, other);
        for (what, signed) in &forged {
            let refused = node_metric(&planet, "aws", UPDATES_REFUSED);
            let rejected = api_metric(&api, REJECTED);
            sync.send(&Down::Signed(signed.clone()))
                .await
                .expect("sent");
            until(what, || {
                match node_metric(&planet, "aws", UPDATES_REFUSED) - refused {
                    0 => Err("not refused".to_owned()),
                    _ => Ok(()),
                }
            })
            .await;
            until(what, || match api_metric(&api, REJECTED) - rejected {
                0 => Err("not told".to_owned()),
                _ => Ok(()),
            })
            .await;
            assert_eq!(applied(), json!(now.revision.0), "{what}");
            serves_from_aws(&planet, what);
        }
        let told = logged(
            &planet,
            "aws",
            &["an update is refused; the last good one serves"],
        );
        assert_eq!(told.len(), forged.len(), "{told:?}");
        // Replays: everything that came before, again. None of it leads back.
        for signed in &genuine {
            sync.send(&Down::Signed(signed.clone()))
                .await
                .expect("sent");
        }
        // A torn line ends the stream, and aws asks again with what it has.
        sync.send_bytes(b"{\"signed\":{\"payl").await.expect("sent");
        drop(sync);
        let (mut sync, have) = asked(&mut tunnel).await;
        assert_eq!(have, Some(now.revision));
        sync.send_bytes(b"{\"signed\":{}}\n").await.expect("sent");
        let (_, have) = asked(&mut tunnel).await;
        assert_eq!(have, Some(now.revision));
        assert_eq!(applied(), json!(now.revision.0));
        serves_from_aws(&planet, "after replays");
        tunnel.control.drain().await;
        figure(format_args!(
            "bad intent: {} kinds refused by aws, told and counted",
            forged.len() + 3
        ));
    });
    // aws still takes what the controller says.
    let mut balancer = fetch(&api, CART);
    balancer["metadata"]["labels"] = json!({ "changed": "yes" });
    put(&api, &balancer);
    runs_what_it_should(&planet, "aws.acme");
}

/// Envelopes that say something else than the controller did.
fn forgeries(member: &Member, last: &Signed, other: Signed) -> Vec<(&'static str, Signed)> {
    let now = update_of(last);
    // Everything that it has is to go.
    let evil = |base| {
        let update = Update {
            base,
            revision: base::Revision(now.revision.0 + 1000),
            put: Vec::new(),
            delete: now.put.iter().map(kit::words::Object::key).collect(),
            ..now.clone()
        };
        serde_json::to_string(&update).expect("JSON")
    };
    let with = |payload: String| Signed {
        payload,
        ..last.clone()
    };
    let mut unsigned = last.clone();
    unsigned.signature.clear();
    let half = last.payload.get(..last.payload.len() / 2);
    let foreign = foreign_authority(member.identity.planet());
    vec![
        ("changed after signing", with(evil(None))),
        (
            "a delta, changed after signing",
            with(evil(Some(now.revision))),
        ),
        (
            "signed by another CA's controller",
            signed_by(&foreign, evil(None)),
        ),
        (
            "signed by the PoP itself",
            signed_as_pop(member, evil(None)),
        ),
        ("truncated", with(half.unwrap_or_default().to_owned())),
        ("without a signature", unsigned),
        ("the intent of another site", other),
    ]
}

/// The next site-sync stream that aws opens here, and what it says it has.
async fn asked(tunnel: &mut Tunnel) -> (SyncStream<Stream>, Option<base::Revision>) {
    let incoming: Incoming = soon("aws asks for intent", async {
        loop {
            let incoming = tunnel.reserved.recv().await.expect("the tunnels run");
            if incoming.head.authority == "sync.sealane.internal" {
                return incoming;
            }
            incoming.refuse(kit::http::StatusCode::SERVICE_UNAVAILABLE, "not yet");
        }
    })
    .await;
    assert_eq!(incoming.head, StreamHead::to("sync.sealane.internal"));
    let mut sync = SyncStream::on(incoming.accept().expect("accepted"));
    match sync.next::<Up>().await {
        Some(Up::Hello(hello)) => (sync, hello.have),
        other => panic!("no hello: {other:?}"),
    }
}

/// What a PoP keeps for a gateway of acme.
fn cached(planet: &Planet, pop: &str, site: &str) -> Vec<Signed> {
    let file = planet.state(pop).join(format!("cache/{site}.acme.ndjson"));
    // It writes what it has while it serves already.
    let (text, _) = kit::wait_until("a cache", std::time::Duration::from_secs(10), || {
        fs::read_to_string(&file).map_err(|error| error.to_string())
    });
    text.lines()
        .map(|line| serde_json::from_str(line).expect("an envelope"))
        .collect()
}

fn update_of(signed: &Signed) -> Update {
    serde_json::from_str(&signed.payload).expect("an update")
}

fn signed_by(authority: &Authority, payload: String) -> Signed {
    let key = NodeKey::generate().expect("a key");
    let chain = authority
        .issue_signer(&key, kit::runtime::wall())
        .expect("issued");
    let signer = Signer::new(&key, chain).expect("a signer");
    let signature = signer.sign(payload.as_bytes()).expect("signed");
    Signed::new(payload, &signature, signer.chain())
}

/// A good signature by a key of the fabric, but not the controller's.
fn signed_as_pop(member: &Member, payload: String) -> Signed {
    let other = foreign_authority(member.identity.planet());
    let chain = other
        .issue_signer(&member.key, kit::runtime::wall())
        .expect("issued");
    let signer = Signer::new(&member.key, chain).expect("a signer");
    let signature = signer.sign(payload.as_bytes()).expect("signed");
    Signed::new(payload, &signature, &member.chain)
}

fn serves_from_aws(planet: &Planet, what: &str) {
    let reply = Client::new()
        .get(planet.pop("par").http, ACME, "/")
        .expect(what);
    assert_eq!(reply.story().expect(what).site, "aws", "{what}");
}

/// Waits until a site is connected and runs the revision it should.
fn runs_what_it_should(planet: &Planet, site: &str) {
    let api = planet.api();
    wait_until(
        "the site runs what it should",
        Duration::from_secs(15),
        || {
            let sites = api.get("/api/v1/sitestatus");
            let items = sites["items"].as_array().expect("items");
            let found = items
                .iter()
                .find(|item| item["site"] == site)
                .expect("the site");
            let runs = found["connected"] == true
                && found["status"]["applied"] == found["wanted"]
                && found["status"]["refused"].is_null();
            if runs { Ok(()) } else { Err(found.to_string()) }
        },
    );
}

#[test]
fn a_damaged_bundle_on_disk_is_refused_and_healed() {
    let turn = Turn::beside();
    let mut planet = planet(&turn);
    let bundle = planet.state("aws").join("bundle.ndjson");
    let cache = planet.state("par").join("cache/aws.acme.ndjson");
    let good = fs::read_to_string(&bundle).expect("a bundle");
    let forge = |text: &str| text.replace("18000", "18001");
    let other = fs::read_to_string(planet.state("factory").join("bundle.ndjson"));
    let damaged = [
        ("forged", forge(&good)),
        (
            "truncated",
            good.get(..good.len() / 2).expect("plain text").to_owned(),
        ),
        ("another site's", other.expect("a bundle")),
        ("no bundle", "nonsense\n".to_owned()),
    ];
    for (what, text) in damaged {
        planet.signal("aws", Signal::KILL);
        fs::write(&bundle, text).expect("written");
        // What the PoP has for it is no better.
        let kept = fs::read_to_string(&cache).expect("a cache");
        fs::write(&cache, forge(&kept)).expect("written");
        let began = kit::runtime::now();
        planet.restart("aws");
        runs_what_it_should(&planet, "aws.acme");
        wait_until("aws serves", Duration::from_secs(10), || {
            let reply = Client::new().get(planet.pop("par").http, ACME, "/")?;
            let site = reply.story()?.site;
            if site == "aws" { Ok(()) } else { Err(site) }
        });
        let took = kit::runtime::now().since(began);
        figure(format_args!(
            "damaged bundle ({what}): healed {took:?} after the start"
        ));
        let healed = fs::read_to_string(&bundle).expect("a bundle");
        assert!(!healed.contains("18001"), "{what}");
    }
    // Forged and another site's; the other two are no envelopes at all.
    assert_eq!(
        logged(&planet, "aws", &["an envelope on disk is refused"]).len(),
        2
    );
    assert_eq!(
        logged(&planet, "par", &["refused a relayed update"]).len(),
        1
    );
}

#[test]
fn a_bundle_that_does_not_compile_leaves_the_last_good_one_serving() {
    let turn = Turn::beside();
    let mut planet = planet(&turn);
    let load = load(&planet);
    planet.signal("controller", Signal::KILL);
    wait_until(
        "the controller ends",
        Duration::from_secs(5),
        || match kit::process::Process::read(planet.pid_of("controller")) {
            Some(process) if process.is_alive() => Err("it runs"),
            Some(_) | None => Ok(()),
        },
    );
    // What no API accepts: as if a check had been forgotten.
    let key = "/objects/tenants/acme/namespaces/shop/loadbalancers/cart";
    rewrite(
        &planet.home().join("controller/store.db"),
        key,
        |balancer| {
            balancer["spec"]["tls"]["certificates"] = json!(["nowhere"]);
        },
    );
    planet.restart("controller");
    let (said, took) = wait_until("status tells", Duration::from_secs(15), || {
        let ran = planet.sealane(&["status"]);
        let refusals = ran.stdout.matches("refused a revision and serves").count();
        if refusals == 2 {
            Ok(ran)
        } else {
            Err(format!("{ran:?}"))
        }
    });
    figure(format_args!(
        "a bundle that does not compile: in `status` after {took:?}"
    ));
    assert_eq!(said.code, 1);
    assert!(
        said.stdout.contains("certificates/nowhere"),
        "{}",
        said.stdout
    );
    for pop in ["par", "nyc"] {
        let told = logged(
            &planet,
            pop,
            &["does not compile; the last good one serves"],
        );
        assert_eq!(told.len(), 1, "{told:?}");
    }
    assert_eq!(api_metric(&planet.api(), REJECTED), 2);
    pass(Duration::from_secs(1));
    let manifest = planet.home().join("manifests/40-cart-acme.yaml");
    let _ = planet
        .sealane(&["apply", "-f", manifest.to_str().expect("plain")])
        .good();
    wait_until("nothing is wrong", Duration::from_secs(15), || {
        let ran = planet.sealane(&["status"]);
        if ran.code == 0 {
            Ok(())
        } else {
            Err(ran.stdout + &ran.stderr)
        }
    });
    let records = load.stop();
    let failed: Vec<_> = records
        .iter()
        .filter(|record| record.has_failed())
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}: {:?}",
        failed.len(),
        records.len(),
        failed.first()
    );
}

/// Changes a record behind the controller's back.
fn rewrite(database: &Path, key: &str, change: impl FnOnce(&mut Value)) {
    run(async {
        // The last thread of a killed process lets go of the lock a moment after it counts as dead.
        let (store, _) = wait_until("the store's lock", Duration::from_secs(5), || {
            Store::open_sqlite(database, Options::default()).map_err(|error| error.to_string())
        });
        let entry = store.get(key).await.expect("read").expect("an entry");
        let mut value = serde_json::from_slice(&entry.value).expect("JSON");
        change(&mut value);
        let op = Op::put(key, value.to_string());
        store.transact(vec![op]).await.expect("written");
        store.close().await;
    });
}
