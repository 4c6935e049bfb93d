//! A site that has more requests than it takes well: a part goes to the next-nearest one, and comes
//! back when there are fewer.

use std::{fs, path::Path, time::Duration};

use kit::{Load, Planet, Record, Turn, figure, http::Method, runtime::now, wait_until};
use serde_json::Value;

use crate::{SLACK, cart, options, pass, scenario::holds};

const EXAMPLE: &str = "../../examples/21-spill-by-load";
const ENDPOINTS: [&str; 3] = ["cart-1.aws", "cart-2.aws", "cart-3.aws"];
const SLOW_MS: &str = "300";
/// Two times as many as aws takes well, when each takes so long …
const MANY: u32 = 100;
/// … and less than half as many.
const FEW: u32 = 20;
/// Until a part of them goes to factory, and until all of fewer go to aws again.
const SPILLED: Duration = Duration::from_secs(30);
const RETURNED: Duration = Duration::from_secs(60);
/// What is looked at.
const RECENT: Duration = Duration::from_secs(3);

/// Of a hundred requests that began lately, how many aws answered.
fn near_percent(load: &Load) -> usize {
    let since = now();
    let records = load.records();
    let recent = |record: &&Record| since.since(record.start) < RECENT;
    percent(records.iter().filter(recent))
}

fn percent<'r>(records: impl Iterator<Item = &'r Record>) -> usize {
    let stories: Vec<_> = records.filter_map(Record::story).collect();
    let near = stories.iter().filter(|story| story.site == "aws").count();
    near * 100 / stories.len().max(1)
}

/// What was asked; every answer is good.
fn all_good(load: Load) -> Vec<Record> {
    let records = load.stop();
    let failed = records.iter().find(|record| record.has_failed());
    assert!(failed.is_none(), "{failed:?}");
    records
}

/// What par says of aws: its load and what it gets, in thousandths.
fn said(planet: &Planet) -> (Value, Value) {
    let all = planet.admin("par", Method::GET, "/endpoints");
    let mut views = all.as_array().into_iter().flatten();
    let aws = views.find(|view| {
        let of = |field: &str, is: &str| view[field] == is;
        of("site", "aws.acme") && of("service", "cart.shop.acme")
    });
    let aws = aws.expect("an endpoint in aws");
    (aws["loadPerMille"].clone(), aws["sharePerMille"].clone())
}

#[test]
fn what_a_site_does_not_take_well_goes_to_the_next_and_comes_back() {
    let turn = Turn::alone();
    // What runs is told from the one half of a node to the other, here from process to process.
    let planet = Planet::start(&turn, options().arg("--split"));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
    let manifest = fs::read_to_string(manifest.join("cart.yaml")).expect("the example");
    let [a, b, c] = planet.network();
    let manifest = manifest.replace("127.80.1.", &format!("{a}.{b}.{c}."));
    let _ = planet.sealane_with(&["apply", "-f", "-"], &manifest).good();
    for endpoint in ENDPOINTS {
        let _ = planet
            .sealane(&["lab", "demo", endpoint, "slow", SLOW_MS])
            .good();
    }
    wait_until("par to hear how loaded aws is", RETURNED, || {
        let (load, share) = said(&planet);
        if load == 0 && share.is_null() {
            return Ok(());
        }
        Err(format!("{load}, {share}"))
    });
    let par = || vec![cart(planet.pop("par").http)];

    let began = now();
    let load = Load::start(par(), MANY);
    pass(RECENT);
    wait_until(
        "a third of the requests at factory",
        SPILLED * SLACK,
        || match near_percent(&load) {
            near @ ..67 => Ok(near),
            near => Err(format!("{near} % at aws")),
        },
    );
    let spilled = now().since(began);
    pass(Duration::from_secs(15));
    let settled = now();
    pass(Duration::from_secs(10));
    let (is_loaded, gets) = said(&planet);
    let why = planet.sealane(&["why", "http://cart.acme.example/", "--node-state", "par"]);
    let why = why.good().stdout;
    let records = all_good(load);
    let near = percent(records.iter().filter(|record| record.start >= settled));
    figure(format_args!(
        "loaded: {MANY} requests a second of {SLOW_MS} ms where 15 at a time are taken well: the first \
         third is elsewhere after {spilled:?}; then {near} % at the nearest, which says it is loaded \
         by {is_loaded} ‰ and gets {gets} ‰; {} answered, 0 failed",
        records.len()
    ));
    assert!((10..=67).contains(&near), "{near} %");
    assert!(why.contains("load there"), "{why}");

    let fewer = now();
    let load = Load::start(par(), FEW);
    pass(RECENT);
    wait_until(
        "all requests at aws",
        RETURNED * SLACK,
        || match near_percent(&load) {
            100 => Ok(()),
            near => Err(format!("{near} % at aws")),
        },
    );
    let returned = now().since(fewer);
    let records = all_good(load);
    figure(format_args!(
        "loaded: with {FEW} a second all are at the nearest after {returned:?}; {} answered, 0 failed",
        records.len()
    ));
}

#[test]
fn the_script_of_the_example_holds() {
    let _turn = Turn::alone();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
    holds(&script.join("spill.yaml"));
}
