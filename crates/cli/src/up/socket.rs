//! `HOME/up.sock`: how another terminal speaks with a running `up`. One JSON line each way.

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::process::Crew;
use crate::error::Failure;

/// The longest line, newline included.
const MAX_LINE_BYTES: u64 = 4096;
/// How long `up` waits for a question, and a client for the answer.
const ASKING: Duration = Duration::from_secs(1);
const ANSWERING: Duration = Duration::from_secs(5);

/// What `up` can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// Start a process that ended again.
    Restart {
        /// Which.
        name: String,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Answer {
    /// Started, with this number.
    Restarted {
        /// The new process.
        pid: u32,
    },
    /// Nothing was done, and why: three lines for people.
    Refused(String),
}

/// Asks the `up` whose socket this is.
pub(crate) async fn ask(socket: &Path, ask: &Ask) -> Result<Answer, Failure> {
    let lost = |error: io::Error| {
        Failure::unreachable(format!("the `sealane up` does not answer: {error}"))
            .at(socket.display().to_string())
            .fix("is it running?")
    };
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        write(&mut stream, ask).await?;
        read(&mut stream)
            .await?
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    match tokio::time::timeout(ANSWERING, talk).await {
        Ok(answer) => answer.map_err(lost),
        Err(_) => Err(lost(io::ErrorKind::TimedOut.into())),
    }
}

/// Answers one client; whatever it does wrong is its own loss. Says what was done.
pub(super) async fn answer(mut stream: UnixStream, crew: &mut Crew) -> Option<String> {
    if !runtime::net::same_user(&stream).unwrap_or(false) {
        return None;
    }
    let asked = tokio::time::timeout(ASKING, read::<Ask>(&mut stream))
        .await
        .ok()?;
    let (answer, done) = match asked {
        Ok(None) => return None, // it only wanted to know whether we are here
        Err(error) => (
            Answer::Refused(format!("error: not a question: {error}")),
            None,
        ),
        Ok(Some(Ask::Restart { name })) => match crew.restart(&name) {
            Ok(pid) => (
                Answer::Restarted { pid },
                Some(format!("{name} was started again (pid {pid})")),
            ),
            Err(failure) => (Answer::Refused(failure.to_string()), None),
        },
    };
    // A client that went away misses its answer.
    tokio::time::timeout(ASKING, write(&mut stream, &answer))
        .await
        .ok();
    done
}

async fn write(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<Option<T>> {
    let mut line = String::new();
    let read = BufReader::new(stream.take(MAX_LINE_BYTES))
        .read_line(&mut line)
        .await?;
    if read == 0 {
        Ok(None)
    } else {
        Ok(Some(serde_json::from_str(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restart_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("up.sock");
        let listener = runtime::net::unix_listener(&path).expect("bound");
        let mut crew = Crew::new("/bin/true".into());
        let question = Ask::Restart {
            name: "aws".to_owned(),
        };
        let serve = async {
            let (stream, _) = listener.accept().await.expect("accepted");
            answer(stream, &mut crew).await
        };
        let (answer, done) = tokio::join!(ask(&path, &question), serve);
        assert_eq!(done, None);
        let Answer::Refused(why) = answer.expect("an answer") else {
            panic!("there is no such process");
        };
        assert!(why.contains("there is no process \"aws\""), "{why}");
    }
}
