//! Which foreign pages may read answers (Fetch standard §3.3, "CORS protocol").

use http::{HeaderName, HeaderValue, Method, header};

use crate::{Fields, fields::Known};

/// An origin that is let in: `*`, `https://shop.example`, `https://*.shop.example:8443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Everyone.
    Any,
    /// Exactly this, in lower case.
    Exact(String),
    /// `scheme://`, one or more labels, and this, which begins with a dot.
    Under(String, String),
}

/// A text that is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not `*`, `SCHEME://HOST` or `SCHEME://*.HOST`, with a port where it is not the scheme's own"
)]
pub struct OriginError;

impl Origin {
    /// Read one.
    ///
    /// # Errors
    /// It is none.
    pub fn new(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Origin::Any);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, host) = text.split_once("://").ok_or(OriginError)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
        let named = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
        let rest = host.strip_prefix('*').unwrap_or(host);
        let under = rest.len() < host.len();
        if !named || rest.len() < 2 || !rest.chars().all(plain) || under && !rest.starts_with('.') {
            return Err(OriginError);
        }
        Ok(if under {
            Origin::Under(format!("{scheme}://"), rest.to_owned())
        } else {
            Origin::Exact(text)
        })
    }

    fn is(&self, origin: &str) -> bool {
        match self {
            Origin::Any => true,
            Origin::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Origin::Under(scheme, suffix) => {
                let origin = origin.to_ascii_lowercase();
                let rest = origin.strip_prefix(scheme.as_str());
                let label = rest.and_then(|rest| rest.strip_suffix(suffix.as_str()));
                label.is_some_and(|label| !label.is_empty() && !label.contains(['/', ':', '@']))
            }
        }
    }
}

/// What foreign pages may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Who.
    pub origins: Vec<Origin>,
    /// With cookies?
    pub credentials: bool,
    /// `access-control-allow-methods`; `*` for every one.
    pub methods: Option<HeaderValue>,
    /// `access-control-allow-headers`; `*` for every one.
    pub headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub expose: Option<HeaderValue>,
    /// `access-control-max-age`.
    pub max_age: Option<HeaderValue>,
}

const TRUE: HeaderValue = HeaderValue::from_static("true");
const ALL: HeaderValue = HeaderValue::from_static("*");
const ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const OURS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];

impl Cors {
    /// The headers of the answer to a preflight, if the request is one. A stranger gets none that
    /// lets it in.
    #[must_use]
    pub fn preflight(&self, method: &Method, asked: &Fields) -> Option<Fields> {
        let origin = asked.first(Known::Origin)?;
        let wanted = asked.get(&header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if method != Method::OPTIONS {
            return None;
        }
        let mut answer = Fields::default();
        if self.let_in(origin, &mut answer) {
            let wanted_headers = asked.get(&header::ACCESS_CONTROL_REQUEST_HEADERS);
            let lists = [
                (
                    header::ACCESS_CONTROL_ALLOW_METHODS,
                    &self.methods,
                    Some(wanted),
                ),
                (
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    &self.headers,
                    wanted_headers,
                ),
                (header::ACCESS_CONTROL_MAX_AGE, &self.max_age, None),
            ];
            for (name, allowed, wanted) in lists {
                // To a request with cookies a star is only a star.
                let said = match allowed {
                    Some(all) if self.credentials && *all == ALL => wanted,
                    other => other.as_ref().map(HeaderValue::as_bytes),
                };
                if let Some(said) = said {
                    answer.append_with(&name, |out| out.extend_from_slice(said));
                }
            }
        }
        Some(answer)
    }

    /// Say in an answer who may read it, instead of what the endpoint said about that.
    pub fn apply(&self, origin: Option<&[u8]>, answer: &mut Fields) {
        for name in &OURS {
            answer.remove(name);
        }
        let Some(origin) = origin else {
            // Whoever keeps the answer is not to give it to those that ask with an origin.
            if !self.is_open() {
                answer.append(&header::VARY, &ORIGIN);
            }
            return;
        };
        if self.let_in(origin, answer)
            && let Some(expose) = &self.expose
        {
            answer.append(&header::ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }

    /// Is the answer the same for everyone?
    fn is_open(&self) -> bool {
        !self.credentials && self.origins.contains(&Origin::Any)
    }

    fn let_in(&self, origin: &[u8], answer: &mut Fields) -> bool {
        if self.is_open() {
            answer.append(&header::ACCESS_CONTROL_ALLOW_ORIGIN, &ALL);
            return true;
        }
        answer.append(&header::VARY, &ORIGIN);
        let text = std::str::from_utf8(origin).unwrap_or_default();
        if !self.origins.iter().any(|allowed| allowed.is(text)) {
            return false;
        }
        answer.append_with(&header::ACCESS_CONTROL_ALLOW_ORIGIN, |out| {
            out.extend_from_slice(origin);
        });
        if self.credentials {
            answer.append(&header::ACCESS_CONTROL_ALLOW_CREDENTIALS, &TRUE);
        }
        true
    }
}
