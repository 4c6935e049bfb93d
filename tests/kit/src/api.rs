//! A client of the controller's API.

use std::{fs, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request};
use rustls::ClientConfig;
use serde_json::Value;

use crate::{
    client::Blocking,
    connection::{Connection, Reply, said},
    report::Controller,
};

/// The API, with the administrator's token and the CA from the report. A new connection each
/// request, so that it works across restarts of the controller.
#[derive(Debug)]
pub struct Api {
    blocking: Blocking,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    token: String,
}

impl Api {
    /// A client of this controller.
    ///
    /// # Panics
    /// The report's URL or CA cannot be used.
    #[must_use]
    pub fn new(controller: &Controller) -> Self {
        let authority = controller
            .url
            .strip_prefix("https://")
            .expect("an https URL");
        let address = authority.parse().expect("an address and port");
        let pem = fs::read(&controller.ca).expect("the CA's file");
        let roots = runtime::tls::pem::certificates(&pem).expect("PEM");
        let config = runtime::tls::client(&roots, &[b"http/1.1"]).expect("a usable CA");
        let token = controller.token.clone();
        Api {
            blocking: Blocking::new(),
            address,
            config,
            token,
        }
    }

    /// Another bearer token; an empty one sends none.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// One request; `path` begins with `/api/v1`.
    ///
    /// # Errors
    /// A sentence, when no whole answer came within 15 s.
    pub fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply, String> {
        let bytes = body.map(|body| Bytes::from(body.to_string()));
        self.send(method, path, bytes.unwrap_or_default())
    }

    /// One request with a body that need not be JSON.
    ///
    /// # Errors
    /// A sentence, when no whole answer came within 15 s.
    pub fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("accept", "application/json");
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body).map_err(said)?;
        let host = self.address.ip().to_string();
        self.blocking.wait(async {
            let config = Arc::clone(&self.config);
            let tasks = &self.blocking.tasks;
            let mut connection = Connection::secure(tasks, self.address, &host, config).await?;
            connection.send(request).await
        })
    }

    /// `GET path`, which must be answered with 200 and JSON.
    ///
    /// # Panics
    /// It is not.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let reply = self.ask(Method::GET, path, None).expect("the API answers");
        assert_eq!(
            reply.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        reply.json().expect("JSON")
    }
}
