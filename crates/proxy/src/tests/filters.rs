//! What a route does beside forwarding, seen from both ends.

use std::time::Duration;

use balance::Health::Healthy;
use http::{HeaderName, HeaderValue, StatusCode};
use l7::{
    Action, Cors, Delay, DirectResponse, HeaderEdits, Mirror, NewPath, Origin, Percent, Redirect,
    Retry, Rewrite, Timeouts,
};

use super::world::{Manner, Spot, World};

fn edits(text: &'static str) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    for word in text.split(' ') {
        let (how, field) = word.split_at(1);
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_static(value);
        match how {
            "=" => edits.set(name, value),
            "+" => edits.add(name, value),
            _ => edits.remove(name),
        }
    }
    edits
}

#[tokio::test]
async fn requests_and_responses_are_edited() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    world.route(|route| {
        route.filters.request = edits("=x-set=1 +x-add=2 -x-gone");
        route.filters.response = edits("=x-answer=3 -content-type");
        route.filters.rewrite = Rewrite {
            host: Some("inner.example:81".into()),
            path: Some(NewPath::Prefix("/new".into())),
        };
        route.filters.cors = Some(Cors {
            origins: vec![Origin::new("https://shop.example").expect("an origin")],
            ..Cors::default()
        });
    });
    let response = world
        .raw(
            "GET /./a//b?q=1 HTTP/1.1\r\nHost: cart.acme.example\r\nX-Set: 0\r\nX-Add: 0\r\n\
             X-Gone: 0\r\nOrigin: https://shop.example\r\n\r\n",
        )
        .await;
    let (head, seen) = response.split_once("\r\n\r\n").expect("a response");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("\r\nx-answer: 3"), "{head}");
    assert!(head.contains("\r\naccess-control-allow-origin: https://shop.example"));
    assert!(
        seen.starts_with("one\nGET /new/a/b?q=1 HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(seen.contains("\r\nhost: inner.example:81\r\n"), "{seen}");
    assert!(seen.contains("\r\nx-set: 1\r\n") && !seen.contains("x-set: 0"));
    assert!(seen.contains("\r\nx-add: 0\r\n") && seen.contains("\r\nx-add: 2\r\n"));
    assert!(!seen.contains("x-gone"), "{seen}");
}

#[tokio::test]
async fn paths_that_are_none_are_refused() {
    let world = World::new().await;
    for path in ["/../a", "/%2e%2E/a", "/a%0", "/a%00b", "/a\\b"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n");
        let response = world.raw(&request).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{path} {response}");
    }
}

#[tokio::test]
async fn a_route_may_answer_itself() {
    let world = World::new().await;
    world.route(|route| {
        route.action = Action::Redirect(Redirect {
            tls: Some(true),
            host: None,
            path: None,
            port: None,
            status: StatusCode::MOVED_PERMANENTLY,
        });
    });
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 301 "), "{response}");
    assert!(response.contains("\r\nlocation: https://cart.acme.example/\r\n"));
    world.route(|route| {
        route.action = Action::Respond(DirectResponse {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static("text/html"),
            body: "<p>".into(),
        });
    });
    let response = world.ask("GET").await;
    assert!(
        response.ends_with("content-length: 3\r\n\r\n<p>"),
        "{response}"
    );
    let response = world
        .raw("HEAD / HTTP/1.1\r\nHost: cart.acme.example\r\nConnection: close\r\n\r\n")
        .await;
    let end = "content-length: 3\r\nconnection: close\r\n\r\n";
    assert!(response.ends_with(end), "{response}");
    world.route(|route| {
        route.action = Action::Respond(DirectResponse {
            status: StatusCode::NO_CONTENT,
            content_type: HeaderValue::from_static("text/html"),
            body: "".into(),
        });
    });
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 204 "), "{response}");
    assert!(!response.contains("content-"), "{response}");
}

#[tokio::test]
async fn a_delay_on_purpose() {
    let world = World::new().await;
    world.route(|route| {
        route.filters.delay = Some(Delay {
            duration: Duration::from_millis(80),
            percent: Percent(100),
        });
    });
    let before = runtime::now();
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(runtime::now().since(before) >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_repeated_elsewhere() {
    let world = World::new().await;
    let slow = Spot::new("slow", Manner::Hang).await;
    let good = Spot::new("good", Manner::Echo).await;
    world.endpoints(&[(slow.address, Healthy), (good.address, Healthy)]);
    world.route(|route| {
        route.timeouts = Timeouts {
            request: None,
            backend_request: Some(Duration::from_millis(100)),
        };
    });
    let response = world.ask("GET").await;
    assert!(response.contains("\r\n\r\ngood\n"), "{response}");
    assert_eq!((slow.served(), good.served()), (1, 1));
    // One that may have had an effect is not.
    let response = world
        .raw("POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    assert_eq!((slow.served(), good.served()), (2, 1));
}

#[tokio::test]
async fn an_answer_that_counts_as_a_failure_is_asked_for_elsewhere() {
    let world = World::new().await;
    let bad = "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno";
    let bad = Spot::new("bad", Manner::Raw(bad, false)).await;
    let good = Spot::new("good", Manner::Echo).await;
    world.endpoints(&[(bad.address, Healthy), (good.address, Healthy)]);
    let retry = |tries| Retry {
        tries,
        codes: vec![StatusCode::SERVICE_UNAVAILABLE],
        backoff: Duration::from_millis(1),
        hedge: None,
    };
    world.route(|route| route.retry = retry(3));
    for (method, answer, served) in [
        ("GET", "HTTP/1.1 200 ", (1, 1)),
        ("DELETE", "HTTP/1.1 200 ", (2, 2)),
        ("POST", "HTTP/1.1 503 ", (3, 2)),
    ] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: 0\r\n\r\n");
        let response = world.raw(&request).await;
        assert!(response.starts_with(answer), "{method} {response}");
        assert_eq!((bad.served(), good.served()), served, "{method}");
    }
    // The last try's answer is the client's, whatever it says.
    world.endpoints(&[(bad.address, Healthy)]);
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 503 ") && response.ends_with("\r\n\r\nno"));
    assert_eq!(bad.served(), 6);
    world.route(|route| route.retry = retry(1));
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 503 "));
    assert_eq!(bad.served(), 7);
}

#[tokio::test]
async fn a_mirror_gets_a_copy() {
    let world = World::new().await;
    let mut spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    // The same service: its endpoint sees each request twice.
    let cluster = world.cluster();
    world.route(|route| {
        route.filters.mirrors.push(Mirror {
            cluster,
            percent: Percent(100),
        });
    });
    let mut served = 0;
    for body in ["", "hello"] {
        let length = body.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let response = world.raw(&request).await;
        assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{response}");
        served += 2;
        while spot.served() < served {
            spot.arrived.recv().await.expect("arrives");
        }
    }
    // A body too long to be kept is not copied.
    let long = "x".repeat(100 << 10);
    let length = long.len();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: {length}\r\n\r\n{long}"
    );
    let response = world.raw(&request).await;
    assert!(response.ends_with(&long));
    assert_eq!(spot.served(), served + 1);
}
