//! CONNECT: a client asks by name for a published service, and gets a connection to it (RFC 9110
//! §9.3.6).

use std::rc::Rc;

use balance::{Connection, InFlight};
use base::LbId;
use http::{HeaderValue, Method, StatusCode, header};
use l7::{Fault, Layer4, ListenerProtocol};

use crate::{
    alarm::Alarm,
    answer::{Answer, answer},
    attempt::Place,
    downstream::{Client, ConnInfo, Request},
    exchange,
    http1::Framing,
    io::Io,
    layer4::{self, Asked, Story, claims, dial},
    offers::WITHDRAWN,
    pipe::Moved,
    relay::{RelayError, tunnel},
    upstream::{UpConn, Via},
    worker::Worker,
};

/// Serve one request at a listener that is for CONNECT alone, and record it.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    info: &ConnInfo,
    lb: LbId,
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    request: &Request,
) {
    let Some(to) = worker.snapshot().table.layer4(lb).cloned() else {
        // The load balancer is gone, and soon the listener.
        return client.abort();
    };
    let (mut story, mut said) = (Story::begin(), exchange::Story::default());
    let seat = worker.layer4.take(to.lb, to.limits.lb_connections);
    let seat = seat.filter(|_| claims(worker, info, &to));
    let found = match &seat {
        Some(_) => find(worker, info, &to, request, &mut story).await,
        None => {
            worker.metrics.connections_refused.inc();
            Err(refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many",
                Fault::Us,
            ))
        }
    };
    match found {
        Ok((io, counted, _in_flight)) => {
            worker.metrics.layer4.inc();
            let mut up = UpConn::http1(io, Via::Tcp, counted);
            up.switch();
            said.status = StatusCode::OK.as_u16();
            let idle = to.limits.upgrade_idle_timeout;
            let offered = || {
                worker
                    .offers
                    .has(info.port, ListenerProtocol::Connect(to.lb))
            };
            let withdrawn = worker.offers.withdrawn(to.limits.drain_timeout, offered);
            let moving = async {
                client.connected().map_err(RelayError::Client)?;
                tunnel(client, alarm, &mut up, idle, None, &mut said).await
            };
            let ended = tokio::select! {
                biased;
                ended = moving => ended.map_err(|error| match error {
                    RelayError::Client(_) => ("client-gone", Fault::Client),
                    RelayError::Upstream(_) => ("reset", Fault::Upstream),
                    RelayError::Idle => ("idle", Fault::Client),
                }),
                () = withdrawn => Err(WITHDRAWN),
            };
            if let Err(error) = ended {
                said.error = Some(error);
                client.abort();
            }
        }
        Err(reply) => answer(client, &request.method, reply, &mut said).await,
    }
    story.moved = Moved {
        there: said.bytes_in,
        back: said.bytes_out,
    };
    story.error = said.error;
    let asked = Asked {
        method: request.method.as_str(),
        host: &request.authority,
        protocol: request.protocol,
        status: said.status,
    };
    story.record(worker, info, &to, &asked);
}

type Found = (Io, Connection, InFlight);

/// A connection to whom the client asks for, or why there is none.
async fn find(
    worker: &Rc<Worker>,
    info: &ConnInfo,
    to: &Layer4,
    request: &Request,
    story: &mut Story,
) -> Result<Found, Answer> {
    if request.method != Method::CONNECT {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut reply = refusal(status, "connect-only", Fault::Client);
        let allow = HeaderValue::from_static("CONNECT");
        reply.fields.append(&header::ALLOW, &allow);
        return Err(reply);
    }
    if request.framing != Framing::None {
        let status = StatusCode::BAD_REQUEST;
        return Err(refusal(status, "bad-body", Fault::Client));
    }
    let cluster = to.asked(&request.authority);
    let cluster =
        cluster.ok_or_else(|| refusal(StatusCode::FORBIDDEN, "not-published", Fault::Client))?;
    story.service = Some(cluster.service.clone());
    let dialling = async |place: &Place<'_>| dial(worker, place, to.limits.connect_timeout).await;
    let reached = layer4::reach(worker, to, cluster, info, story, dialling).await;
    let ((io, counted), in_flight) = reached.map_err(|(code, fault)| {
        let status = match code {
            "timeout" => StatusCode::GATEWAY_TIMEOUT,
            "no-endpoint" | "circuit-open" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        refusal(status, code, fault)
    })?;
    Ok((io, counted, in_flight))
}

fn refusal(status: StatusCode, code: &'static str, fault: Fault) -> Answer {
    let reason = match code {
        "connect-only" => "only CONNECT is served here",
        "bad-body" => "a CONNECT has no body",
        "not-published" => "no such service is published here",
        "too-many" => "too many connections",
        _ => "the service could not be reached",
    };
    Answer::refusal(status, code, reason, fault)
}
