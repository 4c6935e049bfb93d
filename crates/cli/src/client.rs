//! A client of the API: HTTP/1.1 over TLS, one trusted CA, one connection that is kept.

use std::{sync::Arc, time::Duration};

use api::{Object, ObjectKey, Problem, derived::SiteStatusView};
use base::Revision;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{context::Context, error::Failure};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// A connection to the API, opened when first needed and again when it broke.
#[derive(Debug)]
pub(crate) struct Client {
    context: Context,
    tls: Arc<rustls::ClientConfig>,
    tasks: runtime::Tasks,
    sender: Option<Sender>,
}

/// A list, and the revision it was read at.
#[derive(Debug, Deserialize)]
struct List<T> {
    items: Vec<T>,
    revision: Revision,
}

/// What a `put` did.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    /// The object as it is now.
    pub(crate) object: Object,
    /// Was it made?
    pub(crate) created: bool,
}

impl Client {
    pub(crate) fn new(context: Context) -> Result<Self, Failure> {
        let roots = runtime::tls::pem::certificates(&context.ca)
            .map_err(|error| Failure::usage(chain(&error)).at("--ca"))?;
        let tls = runtime::tls::client(&roots, &[b"http/1.1"])
            .map_err(|error| Failure::usage(chain(&error)).at("--ca"))?;
        Ok(Client {
            context,
            tls,
            tasks: runtime::Tasks::new("cli"),
            sender: None,
        })
    }

    /// One object; `None` if there is none.
    pub(crate) async fn read(&mut self, key: &ObjectKey) -> Result<Option<Object>, Failure> {
        let path = format!("/api/v1/{key}");
        match self.call(Method::GET, &path, None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (_, body) => parse(&path, &body).map(Some),
        }
    }

    /// Everything in a collection, `loadbalancers` or `tenants/acme/sites`, and the revision it was
    /// read at.
    pub(crate) async fn list(
        &mut self,
        collection: &str,
    ) -> Result<(Vec<Object>, Revision), Failure> {
        let path = format!("/api/v1/{collection}");
        let (_, body) = self.found(Method::GET, &path, None).await?;
        parse::<List<Object>>(&path, &body).map(|list| (list.items, list.revision))
    }

    /// Creates or replaces.
    pub(crate) async fn put(&mut self, object: &Object, dry_run: bool) -> Result<Put, Failure> {
        let query = if dry_run { "?dryRun=true" } else { "" };
        let path = format!("/api/v1/{}{query}", object.key());
        let body = serde_json::to_vec(object)
            .map_err(|error| Failure::refused(format!("the object has no JSON form: {error}")))?;
        let (status, body) = self.found(Method::PUT, &path, Some(body)).await?;
        let object = parse(&path, &body)?;
        Ok(Put {
            object,
            created: status == StatusCode::CREATED,
        })
    }

    /// Deletes; false if there was nothing.
    pub(crate) async fn delete(&mut self, key: &ObjectKey) -> Result<bool, Failure> {
        let (status, _) = self
            .call(Method::DELETE, &format!("/api/v1/{key}"), None)
            .await?;
        Ok(status != StatusCode::NOT_FOUND)
    }

    /// What every node said last.
    pub(crate) async fn sites(&mut self) -> Result<Vec<SiteStatusView>, Failure> {
        let path = "/api/v1/sitestatus";
        let (_, body) = self.found(Method::GET, path, None).await?;
        parse::<List<SiteStatusView>>(path, &body).map(|list| list.items)
    }

    /// The body of a stream of changes after `after`.
    pub(crate) async fn watch(
        &mut self,
        collection: &str,
        after: Revision,
    ) -> Result<Incoming, Failure> {
        let path = format!("/api/v1/{collection}?watch=true&revision={after}");
        let request = self.request(Method::GET, &path, None, "text/event-stream")?;
        let mut sender = self.connect().await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| self.lost(&chain(&e)))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let body = self.body(response.into_body()).await?;
        Err(problem(status, &path, &body))
    }

    /// As `call`, where 404 is a failure too.
    async fn found(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let (status, body) = self.call(method, path, body).await?;
        if status == StatusCode::NOT_FOUND {
            return Err(problem(status, path, &body));
        }
        Ok((status, body))
    }

    /// One request; a failure for every status but 2xx and 404.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let request = self.request(method, path, body, "application/json")?;
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let asked = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| self.lost(&chain(&e)))?;
            let status = response.status();
            Ok::<_, Failure>((status, self.body(response.into_body()).await?))
        };
        let (status, body) = tokio::time::timeout(ANSWER, asked)
            .await
            .map_err(|_| self.lost(&format!("no answer within {} s", ANSWER.as_secs())))??;
        self.sender = Some(sender);
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok((status, body));
        }
        Err(problem(status, path, &body))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        accept: &str,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let authority = self.context.server.authority().map_or("", |a| a.as_str());
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", self.context.token),
            )
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Failure::usage(format!("the request cannot be made: {error}")))
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let connecting = async {
            let host = self.context.server.host().unwrap_or_default();
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let port = self.context.server.port_u16().unwrap_or(443);
            let name = ServerName::try_from(bare.to_owned()).map_err(|e| chain(&e))?;
            let stream = TcpStream::connect((bare, port))
                .await
                .map_err(|e| chain(&e))?;
            stream.set_nodelay(true).map_err(|e| chain(&e))?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|e| chain(&e))?;
            hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| chain(&e))
        };
        let (sender, connection) = tokio::time::timeout(CONNECT, connecting)
            .await
            .map_err(|_| self.lost(&format!("no connection within {} s", CONNECT.as_secs())))?
            .map_err(|why: String| self.lost(&why))?;
        self.tasks.spawn("connection", async move {
            // Whoever uses the connection is told of the error.
            connection.await.ok();
        });
        Ok(sender)
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, Failure> {
        let collected = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|e| self.lost(&e.to_string()))
    }

    fn lost(&self, why: &str) -> Failure {
        Failure::unreachable(format!("the API cannot be reached: {why}"))
            .at(self.context.server.to_string())
            .fix("is the controller running, and are --server and --ca its own?")
    }
}

/// The failure that an answer tells of.
pub(crate) fn problem(status: StatusCode, path: &str, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Failure::from(problem),
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            let what = format!("the API answered {status} without saying why: {text:?}");
            Failure::refused(what)
                .at(path)
                .fix("is --server the URL of a sealane controller?")
        }
    }
}

fn parse<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::refused(format!("the API's answer is not understood: {error}"))
            .at(path)
            .fix("use the sealane of the controller's version")
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    base::Chain(error).to_string()
}

#[cfg(test)]
mod tests;
