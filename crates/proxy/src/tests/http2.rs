//! HTTP/2 toward endpoints, and from clients in plain text.

use std::net::SocketAddr;

use balance::Health::Healthy;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::world::{Manner, PATIENCE, Spot, World};

/// An endpoint that speaks HTTP/2: it answers piece by piece as the request comes, then with
/// trailers. At `/refuse` it refuses the first stream of each connection; at `/loaded` it says in
/// its trailers that half of it is in use, by ten requests a second.
pub(super) async fn endpoint() -> (SocketAddr, runtime::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = runtime::Tasks::new("endpoint");
    let inner = tasks.clone();
    tasks.spawn("accept", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let streams = inner.clone();
            inner.spawn("connection", async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                let mut first = true;
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let refuses = request.uri().path() == "/refuse" && std::mem::take(&mut first);
                    streams.spawn("stream", attend(request, respond, refuses));
                }
            });
        }
    });
    (address, tasks)
}

async fn attend(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    refuses: bool,
) {
    if refuses {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return;
    }
    let (parts, mut body) = request.into_parts();
    let said = format!(
        "{} {} {} te={:?};",
        parts.method,
        parts
            .uri
            .authority()
            .map_or("", |authority| authority.as_str()),
        parts.uri.path(),
        parts
            .headers
            .get("te")
            .map(|te| te.to_str().unwrap_or_default()),
    );
    let mut send = respond
        .send_response(Response::new(()), false)
        .expect("sent");
    send.send_data(Bytes::from(said), false).expect("sent");
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        send.send_data(piece, false).expect("sent");
    }
    let asked = body.trailers().await.ok().flatten().unwrap_or_default();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    if let Some(value) = asked.get("x-asked") {
        trailers.insert("x-said", value.clone());
    }
    if parts.uri.path() == "/loaded" {
        let report = "CQAAAAAAAOA/MQAAAAAAACRA".parse().expect("a value");
        trailers.insert("endpoint-load-metrics-bin", report);
    }
    send.send_trailers(trailers).expect("sent");
}

pub(super) type Client = h2::client::SendRequest<Bytes>;

/// A client in plain text that begins with HTTP/2.
pub(super) async fn client(world: &World) -> (Client, runtime::Tasks) {
    let tcp = TcpStream::connect(world.http).await.expect("connected");
    let (client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    let tasks = runtime::Tasks::new("client");
    tasks.spawn("connection", async move {
        let _ = connection.await;
    });
    (client.ready().await.expect("ready"), tasks)
}

pub(super) fn post(path: &str) -> Request<()> {
    let url = format!("http://cart.acme.example{path}");
    let request = Request::post(url).header("te", "trailers");
    request.body(()).expect("a request")
}

async fn next(body: &mut h2::RecvStream) -> String {
    let piece = timeout(PATIENCE, body.data()).await.expect("in time");
    let piece = piece.expect("a piece").expect("no error");
    let _ = body.flow_control().release_capacity(piece.len());
    String::from_utf8(piece.to_vec()).expect("text")
}

#[tokio::test]
async fn both_ways_piece_by_piece_with_trailers() {
    let world = World::new().await;
    let (address, _endpoint) = endpoint().await;
    world.speak_http2();
    world.endpoints(&[(address, Healthy)]);
    let (mut client, _tasks) = client(&world).await;
    let (response, mut send) = client.send_request(post("/chat"), false).expect("sent");
    // The answer begins before the question has ended, and follows it word by word.
    let response = timeout(PATIENCE, response)
        .await
        .expect("in time")
        .expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let head = next(&mut body).await;
    assert_eq!(head, "POST cart.acme.example /chat te=Some(\"trailers\");");
    for word in ["one", "two", "three"] {
        send.send_data(Bytes::from(word), false).expect("sent");
        assert_eq!(next(&mut body).await, word);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-asked", "7".parse().expect("a value"));
    send.send_trailers(trailers).expect("sent");
    assert!(
        timeout(PATIENCE, body.data())
            .await
            .expect("in time")
            .is_none()
    );
    let trailers = body.trailers().await.expect("no error").expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-said"], "7");
    // Many at a time share what is there.
    let mut running = Vec::new();
    for _ in 0..50 {
        client = client.ready().await.expect("ready");
        running.push(client.send_request(post("/"), true).expect("sent").0);
    }
    for response in running {
        let response = timeout(PATIENCE, response).await.expect("in time");
        assert_eq!(response.expect("a response").status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_again_whatever_it_asks() {
    let world = World::new().await;
    let (address, _endpoint) = endpoint().await;
    world.speak_http2();
    world.endpoints(&[(address, Healthy)]);
    let (mut client, _tasks) = client(&world).await;
    let (response, _) = client.send_request(post("/refuse"), true).expect("sent");
    let response = timeout(PATIENCE, response)
        .await
        .expect("in time")
        .expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_endpoint_that_does_not_speak_it() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Raw("HTTP/1.1 400 Bad Request\r\n\r\n", true)).await;
    world.speak_http2();
    world.endpoints(&[(spot.address, Healthy)]);
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 502 "));
    // Clients of either version are served side by side.
    let (address, _endpoint) = endpoint().await;
    world.endpoints(&[(address, Healthy)]);
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(response.contains("GET cart.acme.example / te=Some(\"trailers\");"));
    assert!(response.contains("\r\ngrpc-status: 0\r\n"), "{response}");
}

/// What is no URI for an HTTP/2 library is not another path either.
#[tokio::test]
async fn odd_octets_in_a_target_are_encoded() {
    let world = World::new().await;
    let (address, _endpoint) = endpoint().await;
    world.speak_http2();
    world.endpoints(&[(address, Healthy)]);
    let odd = "GET /a<b>`\"^{|}?<`> HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
    let response = world.raw(odd).await;
    let path = " /a%3Cb%3E%60%22%5E%7B%7C%7D te=";
    assert!(response.contains(path), "{response}");
}
