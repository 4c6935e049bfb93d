//! Nothing that traffic needs comes from the controller, and what it acknowledged is never lost.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use base::{Instant, Rng};
use kit::{
    Api, Client, LoneController, Planet, Turn, figure, http::Method, process::Signal, wait_until,
};
use serde_json::{Value, json};

use crate::{
    ACME, SLACK, load, pass, planet,
    support::{path_of, put},
};

/// How soon a gateway that was started again serves.
const BACK: Duration = Duration::from_secs(5);

#[test]
fn traffic_failover_and_a_gateways_restart_go_on_without_the_controller() {
    let turn = Turn::alone();
    let mut planet = planet(&turn);
    let load = load(&planet);
    planet.signal("controller", Signal::KILL);
    pass(Duration::from_secs(1));

    // An endpoint dies: failed over as ever.
    let victim = planet.endpoint("cart-1.aws").address;
    planet.signal("cart-1.aws", Signal::KILL);
    let killed = kit::runtime::now();
    pass(Duration::from_secs(1));

    // A gateway dies and comes back by what it has on disk.
    planet.signal("aws", Signal::KILL);
    let (gone, _) = wait_until("requests go to factory", Duration::from_secs(4), || {
        site_at_par(&planet).and_then(|site| {
            if site == "factory" {
                Ok(kit::runtime::now())
            } else {
                Err(site)
            }
        })
    });
    let by_disk = comes_back(&mut planet);

    // And again without its bundle: a PoP's cache has it.
    planet.signal("aws", Signal::KILL);
    wait_until("requests go to factory", Duration::from_secs(4), || {
        site_at_par(&planet).and_then(|site| if site == "factory" { Ok(()) } else { Err(site) })
    });
    let bundle = planet.state("aws").join("bundle.ndjson");
    fs::remove_file(&bundle).expect("a bundle on disk");
    let by_cache = comes_back(&mut planet);
    assert!(bundle.exists(), "what came from the cache is kept");

    let records = load.stop();
    let failed: Vec<_> = records
        .iter()
        .filter(|record| record.has_failed())
        .collect();
    let late = |at: Instant| {
        let mut late = records.iter().filter(|record| record.start > at);
        late.any(|record| record.story().is_some_and(|story| story.address == victim))
    };
    figure(format_args!(
        "without the controller: {} requests, {} failed; a gateway is back {by_disk:?} after its \
         start by its disk, {by_cache:?} by a PoP's cache",
        records.len(),
        failed.len(),
    ));
    assert!(failed.is_empty(), "{:?}", failed.first());
    assert!(records.iter().any(|record| record.start > gone));
    assert!(
        !late(killed + Duration::from_millis(200) * SLACK),
        "the dead endpoint was chosen"
    );

    // With the controller again everything is as it should be.
    planet.restart("controller");
    planet.restart("cart-1.aws");
    wait_until("nothing is wrong", Duration::from_secs(20), || {
        let ran = planet.sealane(&["status"]);
        if ran.code == 0 {
            Ok(())
        } else {
            Err(ran.stdout + &ran.stderr)
        }
    });
}

/// Starts aws again; how long until par prefers it again.
fn comes_back(planet: &mut Planet) -> Duration {
    planet.restart("aws");
    let (_, took) = wait_until("aws serves again", BACK * SLACK, || {
        let site = site_at_par(planet)?;
        if site == "aws" { Ok(()) } else { Err(site) }
    });
    took
}

/// Who answers at par.
fn site_at_par(planet: &Planet) -> Result<String, String> {
    let reply = Client::new().get(planet.pop("par").http, ACME, "/")?;
    Ok(reply.story()?.site)
}

const KILLS: u32 = 100;
/// Different objects the writer puts.
const OBJECTS: u32 = 40;

/// What the writer knows: what was acknowledged, and the one change under way.
#[derive(Default)]
struct Log {
    /// By path: what was acknowledged, `None` for a deletion.
    acknowledged: BTreeMap<String, Option<Value>>,
    /// Sent, and not yet answered.
    under_way: Option<(String, Option<Value>)>,
    /// Revisions and bytes of all acknowledgements.
    revision: u64,
    count: u64,
    bytes: usize,
}

#[test]
fn a_hundred_kills_lose_no_acknowledged_write() {
    let _turn = Turn::beside();
    let folder = tempfile::tempdir().expect("a folder");
    let log = Mutex::new(Log::default());
    let began = kit::runtime::now();
    let mut controller = start(folder.path());
    put(
        &controller.api(),
        &json!({ "kind": "Tenant", "metadata": { "name": "t" }, "spec": {} }),
    );
    let done = AtomicBool::new(false);
    let (hand_over, apis) = mpsc::sync_channel::<Api>(1);
    hand_over.send(controller.api()).expect("room for one");
    std::thread::scope(|scope| {
        let (log, done) = (&log, &done);
        scope.spawn(move || write(log, &apis, done));
        let finish = Finish(done);
        let mut rng = Rng::new(7);
        for kill in 0..KILLS {
            let written = lock(log).count;
            let more = 1 + rng.next_u64() % 8;
            wait_until("acknowledgements", Duration::from_secs(10), || {
                let count = lock(log).count;
                if count >= written + more {
                    Ok(())
                } else {
                    Err(count)
                }
            });
            std::thread::sleep(Duration::from_micros(rng.next_u64() % 4000));
            controller.role.kill();
            controller = start(folder.path());
            let api = controller.api();
            compare(&mut lock(log), &api, kill);
            hand_over.send(api).expect("the writer waits for it");
        }
        drop((finish, hand_over));
    });
    let took = kit::runtime::now().since(began);
    let log = lock(&log);
    figure(format_args!(
        "kill -9 of the controller: {KILLS} in {took:.1?}, {} acknowledged changes ({} bytes), \
         nothing lost",
        log.count, log.bytes
    ));
    assert!(took <= Duration::from_secs(60) * SLACK, "{took:?}");
    assert_eq!(controller.role.stop(), 0);
}

/// Ends the writer, whatever way the test goes.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn start(folder: &Path) -> LoneController {
    LoneController::start(Path::new(env!("CARGO_BIN_EXE_sealane")), folder, &[])
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts and deletes for ever; after a change of unknown outcome it waits for the next controller.
fn write(log: &Mutex<Log>, apis: &mpsc::Receiver<Api>, done: &AtomicBool) {
    let mut rng = Rng::new(1);
    for api in apis {
        while !done.load(Ordering::Relaxed) {
            let name = format!("n{}", rng.next_u64() % u64::from(OBJECTS));
            let object = json!({ "kind": "Namespace",
                "metadata": { "tenant": "t", "name": name,
                    "annotations": { "text": format!("{:x}", rng.next_u64()).repeat(40) } },
                "spec": {} });
            let path = path_of(&object);
            let known = matches!(lock(log).acknowledged.get(&path), Some(Some(_)));
            let deletes = known && rng.next_u64().is_multiple_of(8);
            let sent = (!deletes).then_some(object);
            lock(log).under_way = Some((path.clone(), sent.clone()));
            let answer = match &sent {
                Some(object) => api.ask(Method::PUT, &path, Some(object)),
                None => api.ask(Method::DELETE, &path, None),
            };
            let Ok(answer) = answer else { break };
            let mut log = lock(log);
            log.under_way = None;
            let text = String::from_utf8_lossy(&answer.body);
            assert!((200..300).contains(&answer.status), "{path}: {text}");
            log.count += 1;
            log.bytes += answer.body.len();
            let now = sent.map(|_| kept(answer.json().expect("an object")));
            if let Some(object) = &now {
                let revision = revision_of(object);
                assert!(revision > log.revision, "{revision} after {}", log.revision);
                log.revision = revision;
            }
            log.acknowledged.insert(path, now);
        }
    }
}

/// The object without what is made anew for each answer.
fn kept(mut object: Value) -> Value {
    object.as_object_mut().expect("an object").remove("status");
    object
}

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["revision"].as_u64().expect("a revision")
}

/// Everything acknowledged is there, byte for byte, and nothing else but perhaps the one change
/// that was under way.
fn compare(log: &mut Log, api: &Api, kill: u32) {
    let list = api.get("/api/v1/tenants/t/namespaces");
    let items = list["items"].as_array().expect("items");
    let mut found: BTreeMap<String, Value> = items
        .iter()
        .map(|item| (path_of(item), kept(item.clone())))
        .collect();
    let at = list["revision"].as_u64().expect("a revision");
    assert!(
        at >= log.revision,
        "kill {kill}: revision {at}, acknowledged {}",
        log.revision
    );
    if let Some((path, sent)) = log.under_way.take() {
        let now = found.get(&path).cloned();
        let was = log.acknowledged.get(&path).cloned().flatten();
        let happened = now != was
            && match (&now, &sent) {
                (None, None) => true,
                (Some(now), Some(sent)) => {
                    now["metadata"]["annotations"] == sent["metadata"]["annotations"]
                        && revision_of(now) > log.revision
                }
                (None, Some(_)) | (Some(_), None) => false,
            };
        if happened {
            if let Some(now) = &now {
                log.revision = revision_of(now);
            }
            log.acknowledged.insert(path, now);
        }
    }
    for (path, acknowledged) in &log.acknowledged {
        let now = found.remove(path);
        let bytes = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        assert_eq!(bytes(&now), bytes(acknowledged), "kill {kill}: {path}");
    }
    assert!(found.is_empty(), "kill {kill}: {found:?}");
}
