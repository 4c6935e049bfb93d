//! What a verb can end with besides success, and how it is told.

use std::{fmt, io};

use api::Problem;

/// How a command ended, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and nothing is wrong.
    Done,
    /// 1: refused, or something is wrong (`status`), or there are differences (`diff`).
    Refused,
    /// 2: the command cannot be understood or lacks something.
    Usage,
    /// 3: the other side cannot be reached.
    Unreachable,
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        }
    }
}

/// Why a verb failed: what is wrong, where, and what to do.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    what: String,
    place: Option<String>,
    remedy: Option<String>,
    /// The API's stable word for it.
    code: Option<String>,
    /// The reader of our output went away; nobody is left to be told.
    silent: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Failure {
            exit,
            what: what.into(),
            place: None,
            remedy: None,
            code: None,
            silent: false,
        }
    }

    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Failure::new(Exit::Refused, what)
    }

    /// What was asked for makes no sense.
    pub fn usage(what: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, what)
    }

    pub(crate) fn unreachable(what: impl Into<String>) -> Self {
        Failure::new(Exit::Unreachable, what)
    }

    /// The same failure, told with its place in front of the place it has.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        let place = place.into();
        self.place = Some(match self.place {
            None => place,
            Some(inner) => format!("{place}: {inner}"),
        });
        self
    }

    /// The same failure, with what to do about it.
    pub(crate) fn fix(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same failure, with one more thing to know.
    pub(crate) fn fix_also(mut self, more: &str) -> Self {
        self.remedy = Some(match self.remedy {
            None => more.to_owned(),
            Some(remedy) => format!("{remedy}\n         {more}"),
        });
        self
    }

    /// Is this what the API calls `code`?
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// What is wrong, in one sentence.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.silent { Exit::Done } else { self.exit }
    }

    /// Is there nobody left to be told?
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent
    }
}

impl fmt::Display for Failure {
    /// Up to three lines: what is wrong, where, what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(place) = &self.place {
            write!(f, "\n  where: {place}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  to do: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let mut failure = Failure::refused(format!("{} ({})", problem.title, problem.code));
        let place = match (&problem.object, &problem.pointer) {
            (Some(object), Some(pointer)) => Some(format!("{object} {pointer}")),
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        };
        failure.code = Some(problem.code.clone());
        if let Some(place) = place.filter(|place| !place.trim().is_empty()) {
            failure = failure.at(place);
        }
        match remedy(&problem) {
            Some(remedy) => failure.fix(remedy),
            None => failure,
        }
    }
}

/// What to do about a problem, where its own sentence does not say so already.
fn remedy(problem: &Problem) -> Option<&'static str> {
    match problem.code.as_str() {
        "conflict" => Some(
            "somebody changed it in the meantime: look at `sealane diff -f`, then apply again, \
             without metadata.revision in the manifest",
        ),
        "dangling-reference" => {
            Some("apply what is referred to first, or in the same `sealane apply`")
        }
        "unauthorized" | "forbidden" => Some(
            "give the administrator's token with --token-file (the controller wrote it to \
             admin.token in its --state folder)",
        ),
        "too-large" => Some("split it, or leave out what does not belong there"),
        "unknown-kind" | "no-such-kind" => Some("`sealane get --help` lists the kinds"),
        _ => match problem.status {
            401 | 403 => Some("give the administrator's token with --token-file"),
            429 | 503 => Some("wait a moment and try again"),
            500..=599 => Some("look at the controller's log"),
            _ => None,
        },
    }
}

/// A failure to write our own output. A closed pipe (`| head`) is not worth a word.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let silent = error.kind() == io::ErrorKind::BrokenPipe;
        Failure {
            silent,
            ..Failure::refused(format!("the output could not be written: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_what_to_do() {
        let problem = Problem::field(
            "dangling-reference",
            "/spec/routes/0",
            "there is no Service",
        )
        .about("tenants/acme/namespaces/shop/loadbalancers/web");
        let failure = Failure::from(problem).at("web.yaml, document 2");
        assert_eq!(
            failure.to_string(),
            "error: there is no Service (dangling-reference)\n  \
             where: web.yaml, document 2: tenants/acme/namespaces/shop/loadbalancers/web \
             /spec/routes/0\n  \
             to do: apply what is referred to first, or in the same `sealane apply`"
        );
        assert_eq!(failure.exit().code(), 1);
    }

    #[test]
    fn a_bare_problem_is_one_line() {
        let problem = Problem::new(404, "not-found", "there is no Site \"x\"");
        assert_eq!(
            Failure::from(problem).to_string(),
            "error: there is no Site \"x\" (not-found)"
        );
    }

    #[test]
    fn a_closed_pipe_is_silent() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.is_silent());
        assert_eq!(failure.exit(), Exit::Done);
    }
}
