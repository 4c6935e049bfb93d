//! A VIP beside a gateway: its router is told of it exactly while it serves. `examples/03-vip` at
//! other addresses, with `sealane bgp` as the router.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use kit::{Client, Planet, Role, Turn, figure, http::Method, process::Signal, wait_until};
use serde_json::Value;

use crate::{SLACK, options, support::fetch};

/// How soon a router knows that nobody is left, or that somebody is back.
const GONE: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(15);

/// The example's text at this planet's addresses.
fn example(planet: &Planet, name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/03-vip/");
    let text = fs::read_to_string(format!("{folder}{name}")).expect("the example");
    let [a, b, c] = planet.network();
    text.replace("127.0.99.", &format!("{a}.{b}.{c}."))
}

struct Router {
    state: std::path::PathBuf,
    _role: Role,
}

impl Router {
    fn start(planet: &Planet) -> Self {
        let folder = planet.folder();
        let (file, state) = (folder.join("router.yaml"), folder.join("router"));
        fs::write(&file, example(planet, "router.yaml")).expect("written");
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let args = ["bgp", "--config", &text(&file), "--state", &text(&state)];
        let program = Path::new(env!("CARGO_BIN_EXE_sealane"));
        let role = Role::start(program, &args, &folder.join("router.log"));
        Router { state, _role: role }
    }

    /// Its best path to anything.
    fn path(&self) -> Result<Value, String> {
        let socket = self.state.join("admin.sock");
        let reply = kit::admin::ask(&socket, Method::GET, "/routes?family=ipv4")?;
        let all: Value = reply.json()?;
        match all["items"].as_array().map(Vec::as_slice) {
            Some([one]) => Ok(one.clone()),
            Some(_) | None => Err(all.to_string()),
        }
    }

    fn has(&self, what: &str) -> Value {
        wait_until(what, SOON, || self.path()).0
    }

    /// Waits until it knows of nothing; how long after now.
    fn has_none(&self, what: &str) -> Duration {
        let began = kit::runtime::now();
        wait_until(what, GONE * SLACK, || match self.path() {
            Ok(path) => Err(path.to_string()),
            Err(_) => Ok::<(), String>(()),
        });
        kit::runtime::now().since(began)
    }
}

#[test]
fn a_router_is_told_of_a_vip_exactly_while_it_serves() {
    let turn = Turn::alone();
    let mut planet = Planet::start(&turn, options());
    let router = Router::start(&planet);
    let manifests = planet.folder().join("vip.yaml");
    fs::write(&manifests, example(&planet, "vip.yaml")).expect("written");
    let _ = planet
        .sealane(&["apply", "-f", manifests.to_str().expect("a plain path")])
        .good();
    let [a, b, c] = planet.network();
    let route = router.has("the VIP");
    assert_eq!(route["route"], format!("{a}.{b}.{c}.80/32"));
    let path = &route["paths"][0];
    assert_eq!(path["nextHop"], format!("{a}.{b}.{c}.2"), "{route}");
    assert_eq!(path["asPath"], "65010");
    assert_eq!(path["communities"][0], "65010:80");
    let vip: SocketAddr = ([a, b, c, 80], 8080).into();
    let ask = || Client::new().get(vip, "cart.acme.example", "/");
    let reply = ask().expect("it serves");
    assert_eq!(reply.story().expect("a story").site, "aws");

    // What both sign with is shown to nobody.
    let peer = "/api/v1/tenants/acme/bgppeers/rack";
    let shown = planet.api().get(peer).to_string();
    assert!(
        shown.contains("redacted") && !shown.contains("s3cret"),
        "{shown}"
    );
    let mut same = fetch(&planet.api(), peer);
    same["metadata"]["labels"] = serde_json::json!({ "row": "7" });
    crate::support::put(&planet.api(), &same);
    let neighbors = planet.admin("aws", Method::GET, "/neighbors").to_string();
    assert!(neighbors.contains(r#""router":"rack""#), "{neighbors}");

    // Its endpoints die one after the other, those in the other gateway too, which serve here over a
    // PoP: it stays until the last.
    let [first, second, last] = ["cart-1.aws", "cart-2.aws", "cart-3.aws"];
    for endpoint in [first, second, "cart-1.factory", "cart-2.factory"] {
        planet.signal(endpoint, Signal::KILL);
    }
    std::thread::sleep(GONE * 2);
    router.has("the VIP of the last endpoint");
    assert_eq!(ask().expect("it serves").status, 200);
    planet.signal(last, Signal::KILL);
    let after = router.has_none("the last endpoint is dead");
    figure(format_args!(
        "a VIP is withdrawn from a router {after:?} after SIGKILL of its last endpoint"
    ));
    assert_eq!(ask().expect("an answer").status, 503);

    planet.restart(first);
    let (_, back) = wait_until("the VIP again", SOON, || router.path());
    figure(format_args!(
        "and told again {back:?} after an endpoint came back"
    ));

    // The gateway dies.
    planet.signal("aws", Signal::KILL);
    let after = router.has_none("the gateway is dead");
    figure(format_args!(
        "a VIP is withdrawn from a router {after:?} after SIGKILL of the gateway"
    ));
    planet.restart("aws");
    router.has("the VIP of the gateway that came back");

    // Nobody speaks to the router any more.
    let _ = planet
        .sealane(&["delete", "peer", "rack", "--tenant", "acme"])
        .good();
    router.has_none("the BGPPeer is deleted");
    assert_eq!(ask().expect("it still serves").status, 200);
}
