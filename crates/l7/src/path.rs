//! The path of a request, made normal: what is matched is what the endpoint sees.

use std::borrow::Cow;

/// A path with one spelling (RFC 3986 §6.2.2): no `.` and `..` segments, no empty segments, no
/// percent-encoded letter, digit, `-`, `.`, `_` or `~`, other encodings in capitals. Without
/// that, `/%61dmin` or `//admin` would pass a rule for `/admin` that the endpoint does not know.
///
/// `None`: it does not begin with `/`, leaves the root, has a malformed encoding or NUL, or a
/// backslash, which some take for a slash. `*` stays as it is.
#[must_use]
pub fn normal_path(path: &str) -> Option<Cow<'_, str>> {
    if path == "*" {
        return Some(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return None;
    }
    if is_normal(path.as_bytes()) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decoded(path)?;
    let mut out = String::with_capacity(decoded.len());
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                let parent = out.rfind('/')?;
                out.truncate(parent);
            }
            // An empty last one is the path's final slash.
            "" => {}
            _ => {
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        if last {
            out.push('/');
        }
    }
    Some(Cow::Owned(out))
}

fn is_normal(path: &[u8]) -> bool {
    let mut before = b' ';
    for &octet in path {
        let odd = match octet {
            b'%' | b'\\' => true,
            b'/' | b'.' => before == b'/',
            _ => false,
        };
        if odd {
            return false;
        }
        before = octet;
    }
    true
}

/// Without needless encodings.
fn decoded(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        let (before, encoded) = rest.split_at(at);
        out.push_str(before);
        let digits = encoded.strip_prefix('%')?.get(..2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        match u8::from_str_radix(digits, 16).ok()? {
            0 => return None,
            octet if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) => {
                out.push(char::from(octet));
            }
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = encoded.get(3..)?;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_a_path() {
        for (path, expect) in [
            ("/", Some("/")),
            ("*", Some("*")),
            ("/a/b", Some("/a/b")),
            ("/a/b/", Some("/a/b/")),
            ("/a.b/c..d", Some("/a.b/c..d")),
            ("/...", Some("/...")),
            ("/.hidden", Some("/.hidden")),
            ("//", Some("/")),
            ("//a///b//", Some("/a/b/")),
            ("/a/./b", Some("/a/b")),
            ("/a/.", Some("/a/")),
            ("/a/..", Some("/")),
            ("/a/../", Some("/")),
            ("/a/b/../c", Some("/a/c")),
            ("/a/b/..", Some("/a/")),
            ("/a//../b", Some("/b")),
            ("/..", None),
            ("/a/../../b", None),
            ("/%61dmin", Some("/admin")),
            ("/a/%2e%2e/b", Some("/b")),
            ("/a/%2E", Some("/a/")),
            ("/%2e%2e/b", None),
            ("/a%2fb", Some("/a%2Fb")),
            ("/a%20b%c3%a4", Some("/a%20b%C3%A4")),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%+1", None),
            ("/a%00", None),
            ("/a\\b", None),
            ("/a%5Cb", Some("/a%5Cb")),
            ("/%25%61", Some("/%25a")),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(normal_path(path).as_deref(), expect, "{path}");
            if let Some(normal) = expect {
                assert_eq!(normal_path(normal).as_deref(), Some(normal), "{path} twice");
            }
        }
    }
}
