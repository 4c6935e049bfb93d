//! One request.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::Target;
use crate::tasks::Crew;

/// Idle connections kept for each target.
const KEPT: usize = 64;
/// Of an answer's body, what is looked at; the rest is read and forgotten.
const LOOK: usize = 64 << 10;
/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

type Sender = http1::SendRequest<Empty<Bytes>>;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Who answered, if it was a demo application: its endpoint and its site.
    pub by: Option<(String, String)>,
}

/// What a demo application says of itself.
#[derive(Deserialize)]
struct Story {
    endpoint: String,
    site: String,
}

/// Asks once, on a connection of its own.
///
/// # Errors
/// There was no answer, in a sentence.
pub async fn ask(target: &Target, patience: Duration) -> Result<Answer, String> {
    let crew = Arc::new(Crew::new("ask", 1));
    let pool = Pool::new(target.clone(), 0, crew);
    let asked = tokio::time::timeout(patience, async {
        let mut sender = pool.connect().await?;
        pool.send(&mut sender).await
    });
    let slow = || Err(format!("nothing within {} ms", patience.as_millis()));
    asked.await.unwrap_or_else(|_| slow())
}

/// A target and its idle connections.
#[derive(Debug)]
pub(super) struct Pool {
    target: Target,
    status: u16,
    idle: Mutex<Vec<Sender>>,
    /// Drives the connections.
    crew: Arc<Crew>,
}

impl Pool {
    pub(super) fn new(target: Target, status: u16, crew: Arc<Crew>) -> Self {
        Pool {
            target,
            status,
            idle: Mutex::default(),
            crew,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks once; who answered as wanted, or what went wrong.
    pub(super) async fn ask(&self) -> Result<Option<(String, String)>, String> {
        let used = {
            let mut idle = self.idle();
            idle.retain(|sender| !sender.is_closed());
            let at = idle.iter().rposition(Sender::is_ready);
            at.map(|at| idle.swap_remove(at))
        };
        let mut sender = match used {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = self.send(&mut sender).await?;
        {
            let mut idle = self.idle();
            if idle.len() < KEPT && !sender.is_closed() {
                idle.push(sender);
            }
        }
        if answer.status.as_u16() != self.status {
            return Err(format!("status {}", answer.status.as_u16()));
        }
        Ok(answer.by)
    }

    async fn connect(&self) -> Result<Sender, String> {
        let stream = runtime::net::tcp_connect(self.target.address, CONNECT)
            .await
            .map_err(|error| said("no connection", &error))?;
        let place = self.crew.try_place().ok_or("too many connections")?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| said("no connection", &error))?;
        self.crew.start("connection", place, async move {
            // What breaks it, its request hears too.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn send(&self, sender: &mut Sender) -> Result<Answer, String> {
        let target = &self.target;
        let mut request = Request::get(&target.path).header(header::HOST, &target.host);
        for (name, value) in &target.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| said("no request", &error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| said("no answer", &error))?;
        let status = response.status();
        let body = look(response.into_body()).await?;
        let story: Option<Story> = serde_json::from_slice(&body).ok();
        Ok(Answer {
            status,
            by: story.map(|story| (story.endpoint, story.site)),
        })
    }
}

/// Reads a body to its end; its beginning.
async fn look(mut body: Incoming) -> Result<Bytes, String> {
    let mut seen = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| said("half an answer", &error))?;
        if let Some(octets) = frame.data_ref() {
            let room = LOOK.saturating_sub(seen.len()).min(octets.len());
            seen.extend_from_slice(octets.get(..room).unwrap_or_default());
        }
    }
    Ok(seen.freeze())
}

fn said(what: &str, error: &(dyn Error + 'static)) -> String {
    format!("{what}: {}", base::Chain(error))
}
