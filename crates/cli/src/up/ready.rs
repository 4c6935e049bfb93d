//! When is a planet ready? When every site runs what it should and every host answers at every
//! PoP.

use std::{net::SocketAddr, time::Duration};

use api::derived::SiteStatusView;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// What is not yet as it should be, in one sentence; `None` when all is well. `wanted` are the
/// sites, as `SITE.TENANT`.
pub(super) fn missing(sites: &[SiteStatusView], wanted: &[String]) -> Option<String> {
    for name in wanted {
        let Some(view) = sites.iter().find(|view| view.site == *name) else {
            return Some(format!("{name} has not reported"));
        };
        let Some(status) = view.status.as_ref().filter(|_| view.connected) else {
            return Some(format!("{name} is not connected"));
        };
        if let Some(reason) = &status.refused {
            return Some(format!("{name} refused a revision: {reason}"));
        }
        if status.applied != view.wanted {
            let (applied, wanted) = (status.applied, view.wanted);
            return Some(format!(
                "{name} runs revision {applied}, wanted is {wanted}"
            ));
        }
        if let Some(failure) = status.listener_failures.first() {
            return Some(format!("{name} cannot listen: {failure}"));
        }
    }
    None
}

/// `GET /` for `host` at `address`: what is wrong, if it is not answered with 200.
pub(super) async fn unanswered(address: SocketAddr, host: &str) -> Option<String> {
    let asked = tokio::time::timeout(PATIENCE, ask(address, host)).await;
    let why = match asked {
        Ok(Ok(StatusCode::OK)) => return None,
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error,
        Err(_) => format!("nothing within {} ms", PATIENCE.as_millis()),
    };
    Some(format!("{host} at {address}: {why}"))
}

async fn ask(address: SocketAddr, host: &str) -> Result<StatusCode, String> {
    let told = |error: &dyn std::error::Error| base::Chain(error).to_string();
    let stream = runtime::net::tcp_connect(address, PATIENCE)
        .await
        .map_err(|e| told(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| told(&e))?;
    let request = Request::get("/")
        .header(header::HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(|e| told(&e))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let response = tokio::select! {
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    response
        .map(|response| response.status())
        .map_err(|e| told(&e))
}

#[cfg(test)]
mod tests {
    use api::derived::NodeStatus;

    use super::*;

    #[test]
    fn the_first_thing_missing_is_named() {
        let view = |site: &str, connected, applied, wanted| SiteStatusView {
            site: site.to_owned(),
            node: "n".to_owned(),
            connected,
            wanted,
            status: Some(NodeStatus {
                applied,
                ..NodeStatus::default()
            }),
        };
        let wanted = ["par.fabric".to_owned(), "aws.acme".to_owned()];
        let par = view("par.fabric", true, 5, 5);
        for (aws, text) in [
            (None, Some("aws.acme has not reported")),
            (
                Some(view("aws.acme", false, 5, 5)),
                Some("aws.acme is not connected"),
            ),
            (
                Some(view("aws.acme", true, 4, 5)),
                Some("aws.acme runs revision 4, wanted is 5"),
            ),
            (Some(view("aws.acme", true, 5, 5)), None),
        ] {
            let sites: Vec<_> = [par.clone()].into_iter().chain(aws).collect();
            assert_eq!(missing(&sites, &wanted).as_deref(), text);
        }
    }

    #[tokio::test]
    async fn a_demo_endpoint_answers() {
        let identity = lab::demo::Identity {
            tenant: "t".to_owned(),
            site: "s".to_owned(),
            endpoint: "e".to_owned(),
        };
        let demo = lab::demo::Demo::bind(identity, ([127, 0, 0, 1], 0).into()).expect("bound");
        let address = demo.address();
        tokio::select! {
            () = demo.run() => panic!("it runs for ever"),
            answer = unanswered(address, "x.example") => assert_eq!(answer, None),
        }
        assert!(
            unanswered(address, "x.example").await.is_some(),
            "it is gone"
        );
    }
}
