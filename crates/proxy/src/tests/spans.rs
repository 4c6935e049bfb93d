//! What collectors are told of a request, at both ends of a tunnel.

use std::time::Duration;

use balance::Health::Healthy;
use bytes::Bytes;
use l7::{Limits, Retry};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use super::world::{Manner, PATIENCE, Spot, World};
use crate::Spans;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

type Batches = mpsc::Receiver<(Bytes, u64)>;

async fn world(ratio: f64) -> (World, Batches, Batches) {
    let (pop, from_pop) = Spans::new(ratio);
    let (gateway, from_gateway) = Spans::new(ratio);
    let spans = [Some(pop), Some(gateway)];
    let world = World::told("par.fabric", Limits::default(), spans).await;
    (world, from_pop, from_gateway)
}

/// The spans of the next batch.
async fn spans(batches: &mut Batches) -> Vec<Value> {
    let batch = timeout(PATIENCE, batches.recv()).await.expect("in time");
    let (octets, count) = batch.expect("a batch");
    let list = octets.strip_suffix(b",").expect("a comma");
    let list = [b"[", list, b"]"].concat();
    let list: Vec<Value> = serde_json::from_slice(&list).expect("JSON");
    assert_eq!(list.len() as u64, count);
    list
}

fn of<'s>(span: &'s Value, name: &str) -> Option<&'s str> {
    let attributes = span["attributes"].as_array().expect("a list");
    let found = attributes.iter().find(|one| one["key"] == name)?;
    let value = &found["value"];
    value.get("stringValue").or(value.get("intValue"))?.as_str()
}

#[tokio::test]
async fn both_ends_of_a_tunnel_are_in_one_trace() {
    let (world, mut from_pop, mut from_gateway) = world(0.0).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let request = format!(
        "GET /a?b=c HTTP/1.1\r\nHost: cart.acme.example\r\n\
         Traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n\r\n"
    );
    let response = world.raw(&request).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let from_pop = &spans(&mut from_pop).await;
    let [at_pop, tried] = &from_pop[..] else {
        panic!("{from_pop:?}");
    };
    let at_gateway = &spans(&mut from_gateway).await[0];
    for span in [at_pop, tried, at_gateway] {
        assert_eq!(span["traceId"], TRACE);
        assert_eq!(of(span, "http.response.status_code"), Some("200"));
        assert_eq!(of(span, "sealane.service"), Some("cart.shop.acme"));
    }
    for span in [at_pop, at_gateway] {
        assert_eq!(of(span, "url.path"), Some("/a"));
    }
    assert_eq!(at_pop["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(tried["parentSpanId"], at_pop["spanId"]);
    assert_eq!(at_gateway["parentSpanId"], tried["spanId"]);
    assert_eq!(tried["kind"], 3);
    assert_eq!(of(at_pop, "sealane.side"), Some("ingress"));
    assert_eq!(of(at_pop, "sealane.site"), Some("aws.acme"));
    assert_eq!(of(at_gateway, "sealane.side"), Some("egress"));
    // The endpoint goes on with the gateway's.
    let seen = format!(
        "traceparent: 00-{TRACE}-{}-01",
        at_gateway["spanId"].as_str().expect("an id")
    );
    assert!(response.contains(&seen), "{seen} in {response}");
}

#[tokio::test]
async fn parents_and_the_ratio_say_who_is_told() {
    let (world, mut from_pop, _) = world(1.0).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let not = format!("00-{TRACE}-b7ad6b7169203331-00");
    let request =
        format!("GET / HTTP/1.1\r\nHost: cart.acme.example\r\nTraceparent: {not}\r\n\r\n");
    let response = world.raw(&request).await;
    assert!(
        response.contains(&format!("traceparent: {not}")),
        "{response}"
    );
    world
        .raw("GET /next HTTP/1.1\r\nHost: nobody.example\r\n\r\n")
        .await;
    // Only the second is told, and that it found nobody.
    let told = spans(&mut from_pop).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(of(&told[0], "url.path"), Some("/next"));
    assert_eq!(of(&told[0], "error.type"), Some("no-such-host"));
    assert_eq!(told[0].get("parentSpanId"), None);
}

#[tokio::test]
async fn each_try_is_told() {
    let (world, mut from_pop, mut from_gateway) = world(1.0).await;
    let nobody = Spot::nobody().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(nobody, Healthy), (spot.address, Healthy)]);
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let told = spans(&mut from_pop).await;
    let [request, refused, good] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(of(request, "sealane.tries"), Some("2"));
    for (tried, port, error, status, again) in [
        (refused, nobody.port(), Some("refused"), None, None),
        (good, spot.address.port(), None, Some("200"), Some("1")),
    ] {
        assert_eq!(tried["parentSpanId"], request["spanId"]);
        assert_eq!(of(tried, "server.port"), Some(&*port.to_string()));
        assert_eq!(of(tried, "error.type"), error);
        assert_eq!(of(tried, "http.response.status_code"), status);
        assert_eq!(of(tried, "http.request.resend_count"), again);
    }
    // Each has its own where it leaves the tunnel.
    let mut below = Vec::new();
    while below.len() < 2 {
        below.extend(spans(&mut from_gateway).await);
    }
    assert_eq!(below[0]["parentSpanId"], refused["spanId"]);
    assert_eq!(below[1]["parentSpanId"], good["spanId"]);
}

#[tokio::test]
async fn a_try_that_is_given_up_is_told() {
    let (world, mut from_pop, _) = world(1.0).await;
    let slow = Spot::new("one", Manner::Hang).await;
    let quick = Spot::new("two", Manner::Echo).await;
    world.endpoints(&[(slow.address, Healthy), (quick.address, Healthy)]);
    world.route(|route| {
        route.retry = Retry {
            hedge: Some(Duration::from_millis(1)),
            ..Retry::default()
        };
    });
    let response = world.ask("GET").await;
    assert!(response.contains("\r\n\r\ntwo\n"), "{response}");
    let told = spans(&mut from_pop).await;
    let [_, first, second] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(of(first, "error.type"), Some("given-up"));
    assert_eq!(first["status"]["code"], 2);
    assert_eq!(of(second, "http.response.status_code"), Some("200"));
}

#[tokio::test]
async fn a_collector_that_is_slow_holds_nobody_up() {
    let (world, from_pop, from_gateway) = world(1.0).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    // Nobody takes them any more.
    drop((from_pop, from_gateway));
    let dropped = || {
        let text = world.metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("sealane_proxy_spans_dropped_total "));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    let end = runtime::now() + PATIENCE;
    while dropped() == 0 && runtime::now() < end {
        let response = world.ask("GET").await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
    assert!(dropped() > 0_u64);
}
