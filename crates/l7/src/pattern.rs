//! Regular expressions of linear time.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// The most octets of an expression's text.
const MAX_TEXT: usize = 1024;
/// The most octets of a compiled expression, and of what a match may keep for speed.
const MAX_COMPILED: usize = 64 << 10;

/// A regular expression that has to match the whole of what it is compared with. It takes time
/// linear in that, whatever it says: there is no look-around and no back reference.
#[derive(Clone)]
pub struct Pattern {
    whole: Regex,
    text: String,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// 1,024 octets at most.
    #[error("a regular expression of more than 1,024 octets")]
    Long,
    /// It would take more than 64 KiB.
    #[error("a regular expression that takes too much memory: use smaller repetitions")]
    Large,
    /// It is malformed.
    #[error("{0}")]
    Syntax(String),
}

impl Pattern {
    /// Compile a text.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_TEXT {
            return Err(PatternError::Long);
        }
        // Alone first: a parenthesis too many must not close ours.
        compile(text)?;
        Ok(Pattern {
            whole: compile(&format!(r"\A(?:{text})\z"))?,
            text: text.to_owned(),
        })
    }

    /// Does it match all of `octets`?
    #[must_use]
    pub fn is_match(&self, octets: &[u8]) -> bool {
        self.whole.is_match(octets)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn compile(text: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .build();
    built.map_err(|error| {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return PatternError::Large;
        }
        // The last line says what, those before it where, with a drawing.
        let text = error.to_string();
        let line = text.lines().last().unwrap_or_default();
        PatternError::Syntax(line.trim_start_matches("error: ").to_owned())
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_has_to_match() {
        for (text, octets, expect) in [
            ("/a|/b", "/a", true),
            ("/a|/b", "/ab", false),
            ("/v[0-9]+/.*", "/v12/x", true),
            (r"/\w+", "/a_9", true),
            ("(?i)/A", "/a", true),
            ("", "", true),
            ("", "a", false),
            ("^/a$", "/a", true),
        ] {
            let pattern = Pattern::new(text).expect(text);
            assert_eq!(
                pattern.is_match(octets.as_bytes()),
                expect,
                "{text} {octets}"
            );
        }
    }

    #[test]
    fn what_is_no_pattern() {
        assert!(matches!(Pattern::new("a)(b"), Err(PatternError::Syntax(_))));
        assert!(matches!(
            Pattern::new(r"(a)\1"),
            Err(PatternError::Syntax(_))
        ));
        assert!(matches!(
            Pattern::new("(?=a)"),
            Err(PatternError::Syntax(_))
        ));
        assert_eq!(Pattern::new("(a{1000}){1000}"), Err(PatternError::Large));
        assert_eq!(Pattern::new(&"a".repeat(1025)), Err(PatternError::Long));
        // Text that costs others exponential time.
        let pattern = Pattern::new("(a*)*b").expect("a pattern");
        assert!(!pattern.is_match("a".repeat(10_000).as_bytes()));
    }
}
