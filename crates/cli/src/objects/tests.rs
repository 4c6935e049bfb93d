use api::derived::{EndpointView, NodeStatus, SiteStatusView};

use super::*;
use crate::files;

fn objects(text: &str) -> Vec<Object> {
    files::parse("x", text)
        .expect("parses")
        .into_iter()
        .map(|d| d.object)
        .collect()
}

#[test]
fn every_kind_has_its_columns() {
    let text = include_str!("../../../../examples/01-cart/40-cart-acme.yaml");
    let lines: Vec<String> = objects(text)
        .iter()
        .flat_map(|object| table(object.kind, std::slice::from_ref(object), &[]).lines())
        .collect();
    assert_eq!(
        lines,
        [
            "TENANT  NAMESPACE  NAME  HOSTS              SOURCE",
            "acme    shop       cart  cart.acme.example  selfSigned",
            "TENANT  NAMESPACE  NAME  PORT   ORIGINS",
            "acme    shop       cart  18000  awsx3,factoryx2",
            "TENANT  NAMESPACE  NAME  HOSTS              PORTS              TO",
            "acme    shop       cart  cart.acme.example  http:80,https:443  cart",
        ]
    );
}

fn site(name: &str, connected: bool) -> SiteStatusView {
    let endpoint = |service: &str, address: &str| EndpointView {
        service: service.to_owned(),
        site: "aws.acme".to_owned(),
        address: address.to_owned(),
        health: "healthy".to_owned(),
        reachable: true,
        rtt_us: Some(5_100),
        load_per_mille: None,
        share_per_mille: None,
    };
    SiteStatusView {
        site: name.to_owned(),
        node: "n".to_owned(),
        connected,
        wanted: 7,
        status: Some(NodeStatus {
            applied: 6,
            endpoints: vec![
                endpoint("cart.shop.acme", "b:1"),
                endpoint("pay.shop.acme", "a:1"),
            ],
            ..NodeStatus::default()
        }),
    }
}

#[test]
fn sites_show_what_runs_there() {
    let manifest = include_str!("../../../../examples/01-cart/20-sites.yaml");
    let live = [site("par.fabric", true), site("aws.acme", false)];
    let lines = table(Kind::Site, &objects(manifest), &live).lines();
    assert_eq!(
        lines,
        [
            "TENANT  NAME     ROLE     CONNECTED  APPLIED  WANTED",
            "-       par      pop      yes        6        7",
            "-       nyc      pop      never      -        -",
            "acme    aws      gateway  no         6        7",
            "acme    factory  gateway  never      -        -",
            "blue    shop     gateway  never      -        -",
        ]
    );
}

#[test]
fn endpoints_are_filtered_by_service_namespace_and_tenant() {
    let sites = [site("par.fabric", true), site("nyc.fabric", true)];
    let count = |line: &str| {
        let words = ["sealane", "get", "endpoints"]
            .into_iter()
            .chain(line.split_whitespace());
        let Ok(crate::Command::Verb(crate::Verb::Get(args))) = crate::parse_from(words) else {
            panic!("{line} is a get");
        };
        seen(&sites, &args).len()
    };
    for (line, found) in [
        ("", 4),
        ("cart", 2),
        ("-t acme", 4),
        ("-t blue", 0),
        ("pay -t acme -n shop", 2),
    ] {
        assert_eq!(count(line), found, "{line:?}");
    }
}

#[test]
fn the_smallest_collection_is_listed() {
    let name = |text: &str| text.parse::<Name>().expect("a name");
    let selection = |tenant: Option<&str>, namespace: Option<&str>| Selection {
        tenant: tenant.map(name),
        namespace: namespace.map(name),
        all: false,
    };
    for (kind, tenant, namespace, path) in [
        (Kind::Service, None, None, "services"),
        (Kind::Service, None, Some("shop"), "services"),
        (Kind::Service, Some("acme"), None, "tenants/acme/services"),
        (
            Kind::Service,
            Some("acme"),
            Some("shop"),
            "tenants/acme/namespaces/shop/services",
        ),
        (Kind::Site, Some("acme"), Some("shop"), "tenants/acme/sites"),
        (Kind::Tenant, Some("acme"), None, "tenants"),
    ] {
        assert_eq!(collection(kind, &selection(tenant, namespace)), path);
    }
}
