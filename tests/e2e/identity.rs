//! A client's certificate, of which only the ingress knows, decides at the other end of a tunnel.

use std::{path::Path, process::Command, time::Duration};

use kit::{Turn, wait_until};
use serde_json::json;

use crate::{
    clients::program,
    examples::skip,
    planet,
    support::{acme, fetch, node_metric},
};

const HOST: &str = "till.acme.example";
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_gateway_judges_by_the_certificate_that_a_pop_saw() {
    let Some(curl) = program("curl") else {
        return skip("certificates through a tunnel", "curl (apt install curl)");
    };
    let example =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/14-client-certificates");
    let manifests = std::fs::read_to_string(example.join("clients.yaml")).expect("manifests");
    let authority = pem(&manifests);
    let turn = Turn::beside();
    let planet = planet(&turn);
    let mut tenant = fetch(&planet.api(), "/api/v1/tenants/acme");
    let hosts = tenant["spec"]["publicHosts"].as_array_mut();
    hosts.expect("hosts").push(HOST.into());
    let mut objects = vec![tenant];
    let endpoint = planet.endpoint("cart-1.aws").address.to_string();
    let rules = json!([{ "name": "tills", "action": { "allow": {} },
        "client": { "identities": [{ "name": "uri", "type": "Prefix",
            "value": "spiffe://acme.example/till" }] } },
        { "name": "others", "action": { "deny": {} } }]);
    let asked = json!({ "mode": "AllowInsecureFallback", "caCertificates": authority });
    for (kind, spec) in [
        ("ServicePolicy", json!({ "rules": rules })),
        (
            "Certificate",
            json!({ "hosts": [HOST], "source": "selfSigned" }),
        ),
        (
            "Service",
            json!({ "port": 80, "policies": ["till"],
            "origins": [{ "sites": ["aws"], "addresses": [endpoint] }] }),
        ),
        (
            "LoadBalancer",
            json!({ "hosts": [HOST], "ports": [],
            "tls": { "certificates": ["till"], "clientCertificates": asked },
            "advertise": [{ "public": {} }], "routes": [{ "backendRefs": [{ "name": "till" }] }] }),
        ),
    ] {
        objects.push(json!({ "kind": kind, "metadata": acme("till"), "spec": spec }));
    }
    // A document a line is YAML, too.
    let lines = objects.iter().map(|object| format!("--- {object}\n"));
    let applied = planet.sealane_with(&["apply", "-f", "-"], &lines.collect::<String>());
    let _ = applied.good();
    let par = planet.pop("par").https;
    let ask = |shows: Option<&str>| {
        let mut command = Command::new(&curl);
        command.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}"]);
        command.args(["--connect-to", &format!("::{par}")]);
        if let Some(shows) = shows {
            command
                .arg("--cert")
                .arg(example.join(format!("shown/{shows}.pem")));
        }
        // Before the load balancer is there, there is no certificate for the name: then it fails.
        let output = command.arg(format!("https://{HOST}/")).output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
    };
    wait_until("the till answers", SOON, || {
        let known = ask(Some("till-7"));
        (known == "200").then_some(()).ok_or(known)
    });
    let decided = |action, rule| {
        let labels = format!(
            "sealane_policy_decisions_total{{tenant=\"acme\",lb=\"shop/till\",\
             policy=\"shop/till\",rule=\"{rule}\",action=\"{action}\",effect=\"enforce\"}}"
        );
        node_metric(&planet, "aws", &labels)
    };
    let before = decided("allow", "tills");
    assert!(before > 0, "the gateway judged the first request");
    assert_eq!(ask(None), "403");
    assert_eq!(ask(Some("desk-1")), "403");
    assert_eq!(ask(Some("till-7")), "200");
    assert_eq!(decided("allow", "tills"), before + 1);
}

/// The first certificate in the manifests.
fn pem(manifests: &str) -> String {
    let end = "-----END CERTIFICATE-----";
    let lines = manifests.lines().map(str::trim);
    let lines = lines.skip_while(|line| !line.starts_with("-----BEGIN CERTIFICATE"));
    let mut text = String::new();
    for line in lines {
        text += line;
        text.push('\n');
        if line == end {
            break;
        }
    }
    text
}
