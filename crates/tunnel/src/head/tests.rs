use super::*;

fn full() -> StreamHead {
    StreamHead {
        authority: "cart.shop.acme:80".to_owned(),
        endpoint: Some("7/0/10.0.0.1:8080".parse().expect("an endpoint")),
        lb: Some("shop/cart".to_owned()),
        client: Some(
            "192.0.2.1:51000/[2001:db8::1]:80"
                .parse()
                .expect("a client"),
        ),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        origin: Some("aws.acme".parse().expect("a site")),
        node: Some("n1".parse().expect("a name")),
        via: ["nyc.fabric", "shop.acme"]
            .map(|site| site.parse().expect("a site"))
            .into(),
    }
}

#[test]
fn heads_round_trip() {
    for head in [full(), StreamHead::to("bgp.sealane.internal")] {
        let request = head.to_request().expect("valid");
        assert_eq!(StreamHead::from_request(&request).as_ref(), Ok(&head));
        let text = head.to_text().expect("valid");
        assert_eq!(StreamHead::from_text(&text), Ok(head));
    }
}

#[test]
fn texts_that_are_no_head_are_named() {
    use HeadError::{Authority, Field, Method, Text};
    let many = format!("CONNECT a:1 HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(33));
    for (text, error) in [
        ("", Text),
        ("CONNECT a:1 HTTP/1.1\r\n", Text),
        ("CONNECT a:1 HTTP/1.1\r\n\r\nmore", Text),
        ("\0\u{ff}", Text),
        (&many, Text),
        ("GET / HTTP/1.1\r\n\r\n", Method),
        ("CONNECT http://a/ HTTP/1.1\r\n\r\n", Authority),
        ("CONNECT A:1 HTTP/1.1\r\n\r\n", Authority),
        (
            "CONNECT a:1 HTTP/1.1\r\nsealane-lb: a/b\r\nsealane-lb: a/b\r\n\r\n",
            Field("sealane-lb"),
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nsealane-via: a.b,\r\n\r\n",
            Field("sealane-via"),
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nsealane-via: a.b,a.b,a.b,a.b,a.b\r\n\r\n",
            Field("sealane-via"),
        ),
    ] {
        assert_eq!(StreamHead::from_text(text.as_bytes()), Err(error), "{text}");
    }
}

#[test]
fn endpoints_have_one_spelling() {
    for good in ["7/0/10.0.0.1:80", "4294967295/65535/[2001:db8::1]:443"] {
        assert_eq!(
            good.parse::<EndpointRef>().map(|e| e.to_string()),
            Ok(good.to_owned())
        );
    }
    for bad in [
        "",
        "7/0",
        "7/0/10.0.0.1",
        "07/0/10.0.0.1:80",
        "+7/0/10.0.0.1:80",
        "7/65536/10.0.0.1:80",
        "7/0/10.0.0.1:080",
        "7/0/[2001:DB8::1]:443",
        "7/0/10.0.0.1:80/",
        "-1/0/10.0.0.1:80",
        "7/0/localhost:80",
    ] {
        assert_eq!(bad.parse::<EndpointRef>(), Err(EndpointRefError), "{bad}");
    }
}

#[test]
fn reserved_names_are_exact() {
    for reserved in [
        "sealane.internal",
        "bgp.sealane.internal",
        "x.sealane.internal:9",
    ] {
        assert!(StreamHead::to(reserved).is_reserved(), "{reserved}");
    }
    for service in [
        "evilsealane.internal",
        "sealane.internal.acme",
        "cart.shop.acme:80",
    ] {
        assert!(!StreamHead::to(service).is_reserved(), "{service}");
    }
}

#[test]
fn what_we_would_not_read_we_do_not_write() {
    for authority in [
        "", ":80", "a:0", "a:080", "a:65536", "a:+1", "A", "a_b", "a@b", "a b",
    ] {
        let refused = StreamHead::to(authority).to_request().err();
        assert_eq!(refused, Some(HeadError::Authority), "{authority}");
    }
    assert!(StreamHead::to("a".repeat(256)).to_request().is_err());
    let lb = |text: &str| {
        StreamHead {
            lb: Some(text.to_owned()),
            ..full()
        }
        .to_request()
        .is_ok()
    };
    let via = |sites: usize| {
        StreamHead {
            via: vec!["a.b".parse().expect("a site"); sites],
            ..full()
        }
        .to_request()
        .is_ok()
    };
    assert!(via(MAX_VIA) && !via(MAX_VIA + 1));
    assert!(lb("shop/cart"));
    assert!(!lb("") && !lb("a b") && !lb("a\r\nb") && !lb(&"x".repeat(513)));
}

#[test]
fn crafted_requests_are_refused() {
    let base = || {
        Request::builder()
            .method("CONNECT")
            .uri("cart.shop.acme:80")
    };
    let read = |request: Result<Request<()>, http::Error>| {
        StreamHead::from_request(&request.expect("built"))
    };
    assert!(read(base().body(())).is_ok());
    assert!(read(base().header("x-later", "1").body(())).is_ok());
    assert_eq!(read(base().method("GET").body(())), Err(HeadError::Method));
    assert_eq!(
        read(base().uri("/path").body(())),
        Err(HeadError::Authority)
    );
    assert_eq!(
        read(base().uri("CART.shop.acme:80").body(())),
        Err(HeadError::Authority)
    );
    assert_eq!(
        read(base().uri("user@cart:80").body(())),
        Err(HeadError::Authority)
    );
    for (name, value) in [
        ("sealane-endpoint", "7/0/10.0.0.1"),
        ("sealane-endpoint", ""),
        ("sealane-lb", "a b"),
        ("sealane-client", "192.0.2.1:1"),
        ("sealane-client", "192.0.2.1:01/192.0.2.2:1"),
        ("sealane-client", "192.0.2.1:1/192.0.2.2:1/192.0.2.3:1"),
        ("sealane-lb", "\u{e9}"),
        ("sealane-origin", "aws"),
    ] {
        let error = read(base().header(name, value).body(()));
        assert_eq!(error, Err(HeadError::Field(name)), "{name}: {value}");
    }
    let twice = base()
        .header("sealane-lb", "a")
        .header("sealane-lb", "b")
        .body(());
    assert_eq!(read(twice), Err(HeadError::Field("sealane-lb")));
}
