//! The cases, out of their files (`data/smuggling/README.md` says how they are written).

/// What is to come of what a client says.
#[derive(Clone, Debug)]
pub(super) struct Expect {
    pub(super) statuses: Vec<u16>,
    /// Is a request more answered?
    pub(super) open: bool,
    /// How many requests the endpoint sees.
    pub(super) requests: usize,
}

/// What is to come of a case.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Client(Expect),
    /// A status, `reset` or `goaway`, or several of them with `|` between them.
    Stream {
        what: String,
        requests: usize,
    },
    /// `None`: any status.
    Endpoint {
        status: Option<u16>,
        whole: bool,
    },
}

/// A request over HTTP/2.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) head: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) data: Vec<Vec<u8>>,
    pub(super) trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) client: Vec<u8>,
    pub(super) endpoint: Vec<u8>,
    pub(super) said: Said,
    pub(super) ends: bool,
    pub(super) method: String,
    pub(super) outcome: Outcome,
    /// At the other end of a tunnel; `None`: it is not played there.
    pub(super) egress: Option<Expect>,
    pub(super) by_egress: bool,
}

impl Case {
    /// The status that a broken answer may have had.
    pub(super) fn status(&self) -> Option<u16> {
        match &self.outcome {
            Outcome::Endpoint { status, whole } => status.filter(|_| !whole),
            Outcome::Client(_) | Outcome::Stream { .. } => None,
        }
    }
}

/// All cases of a file, one for each value.
pub(super) fn parse(text: &str) -> Vec<Case> {
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut all = Vec::new();
    for part in text.split(|line| line.starts_with("== ")).skip(1) {
        let values: Vec<&str> = part.iter().filter_map(|line| of(line, "with")).collect();
        let values = if values.is_empty() { vec![""] } else { values };
        let single = values.len() == 1;
        for value in values {
            let name = if single {
                String::new()
            } else {
                format!(" [{value}]")
            };
            all.push(case(part, value, name));
        }
    }
    // Names stand in the lines that divide; they come in the same order.
    let names = text.iter().filter_map(|line| line.strip_prefix("== "));
    let counts = text.split(|line| line.starts_with("== ")).skip(1);
    let names = names.zip(counts).flat_map(|(name, part)| {
        let values = part
            .iter()
            .filter(|line| of(line, "with").is_some())
            .count();
        std::iter::repeat_n(name, values.max(1))
    });
    for (case, name) in all.iter_mut().zip(names.collect::<Vec<_>>()) {
        case.name.insert_str(0, name);
    }
    all
}

/// What stands behind a word at the beginning of a line.
fn of<'l>(line: &'l str, word: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(word)?;
    if rest.is_empty() {
        return Some("");
    }
    rest.strip_prefix(' ')
}

fn case(lines: &[&str], value: &str, name: String) -> Case {
    let mut case = Case {
        name,
        client: Vec::new(),
        endpoint: Vec::new(),
        said: Said::default(),
        ends: false,
        method: "GET".to_owned(),
        outcome: Outcome::Endpoint {
            status: None,
            whole: false,
        },
        egress: None,
        by_egress: false,
    };
    let mut expected = None;
    let mut egress = None;
    for line in lines {
        let filled = line.replace("{}", value);
        if of(line, "with").is_some() || line.is_empty() {
        } else if let Some(text) = of(&filled, ">") {
            whole_line(&mut case.client, text);
        } else if let Some(text) = of(&filled, "<") {
            whole_line(&mut case.endpoint, text);
        } else if let Some(text) = of(&filled, "h") {
            case.said.head.push(field(text));
        } else if let Some(text) = of(&filled, "t") {
            case.said.trailers.push(field(text));
        } else if let Some(text) = of(&filled, "d") {
            case.said.data.push(octets(text));
        } else if *line == "end" {
            case.ends = true;
        } else if let Some(method) = of(line, "ask") {
            method.clone_into(&mut case.method);
        } else if let Some(text) = of(line, "->") {
            expected = Some(text);
        } else if let Some(text) = of(line, "egress ->") {
            egress = Some(text);
        } else {
            panic!("what is this? {line}");
        }
    }
    let expected = expected.expect("every case says what comes of it");
    let words: Vec<&str> = expected.split(' ').collect();
    case.outcome = if !case.client.is_empty() {
        let expect = client(expected);
        case.egress = match egress {
            None => Some(expect.clone()),
            Some("none") => None,
            Some(text) => Some(client(text)),
        };
        Outcome::Client(expect)
    } else if case.said.head.is_empty() {
        let status = words[0].parse().ok();
        let whole = words.get(1).is_none_or(|word| *word == "whole");
        Outcome::Endpoint { status, whole }
    } else {
        let requests = words[1].parse().expect("a count");
        let what = words[0].to_owned();
        Outcome::Stream { what, requests }
    };
    case
}

fn client(text: &str) -> Expect {
    let mut expect = Expect {
        statuses: Vec::new(),
        open: false,
        requests: 0,
    };
    let words: Vec<&str> = text.split(' ').collect();
    let [statuses @ .., state, requests] = &words[..] else {
        panic!("what is this? {text}");
    };
    assert!(["open", "closed"].contains(state), "{text}");
    expect.open = *state == "open";
    expect.requests = requests.parse().expect("a count");
    expect.statuses = statuses
        .iter()
        .map(|s| s.parse().expect("a status"))
        .collect();
    expect
}

/// A line and its CRLF, unless a `\` at its end says that it has none.
fn whole_line(out: &mut Vec<u8>, text: &str) {
    let escapes = text.len() - text.trim_end_matches('\\').len();
    if escapes % 2 == 1 {
        out.extend(octets(&text[..text.len() - 1]));
    } else {
        out.extend(octets(text));
        out.extend(b"\r\n");
    }
}

/// `NAME: VALUE`; a name may begin with a colon.
fn field(text: &str) -> (Vec<u8>, Vec<u8>) {
    let at = text[1..].find(": ").expect("a field") + 1;
    (octets(&text[..at]), octets(&text[at + 2..]))
}

/// What text stands for.
fn octets(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '{'
            && let Some(end) = rest.find('}')
            && let Some((what, count)) = rest[1..end].rsplit_once('*')
            && let Ok(count) = count.parse()
        {
            out.extend(octets(what).repeat(count));
            rest = &rest[end + 1..];
            continue;
        }
        if first != '\\' {
            out.extend(first.to_string().as_bytes());
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (octet, length) = match rest.as_bytes().get(1) {
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'0') => (0, 2),
            Some(b'\\') => (b'\\', 2),
            Some(b'x') => (u8::from_str_radix(&rest[2..4], 16).expect("digits"), 4),
            other => panic!("what is this? {other:?} in {text}"),
        };
        out.push(octet);
        rest = &rest[length..];
    }
    out
}

#[test]
fn texts_and_octets() {
    for (text, expect) in [
        (r"a\r\n\t\0\\\xff", &b"a\r\n\t\0\\\xff"[..]),
        ("{x*3}{ab*2}", b"xxxabab"),
        (r"{\x00*2}", b"\0\0"),
        ("{GET}", b"{GET}"),
    ] {
        assert_eq!(octets(text), expect, "{text}");
    }
    assert_eq!(
        field(":path: /a: b"),
        (b":path".to_vec(), b"/a: b".to_vec())
    );
}
