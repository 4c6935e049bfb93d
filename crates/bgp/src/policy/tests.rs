//! By data: text in, verdicts and octets out.

mod community;
mod evaluate;
mod path;
mod prefix;

/// Octets of the canonical attributes `list`: (flags, code, value), all short.
fn attributes(list: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![];
    for (flags, code, value) in list {
        let length = u8::try_from(value.len()).expect("short");
        out.extend([*flags, *code, length]);
        out.extend_from_slice(value);
    }
    out
}

/// An AS_PATH value: `"1 2 {3 4}"`; a set is a segment of its own, as is what is in parentheses
/// (a confederation sequence).
fn as_path(text: &str) -> Vec<u8> {
    let mut out = vec![];
    let mut close = |kind: u8, members: &mut Vec<u32>| {
        if !members.is_empty() {
            out.extend([kind, u8::try_from(members.len()).expect("short")]);
            out.extend(members.drain(..).flat_map(u32::to_be_bytes));
        }
    };
    let (mut kind, mut members) = (2, vec![]);
    let spaced = ["{", "}", "(", ")"]
        .iter()
        .fold(text.to_owned(), |text, mark| {
            text.replace(mark, &format!(" {mark} "))
        });
    for word in spaced.split_whitespace() {
        match word {
            "{" | "}" | "(" | ")" => {
                close(kind, &mut members);
                kind = match word {
                    "{" => 1,
                    "(" => 3,
                    _ => 2,
                };
            }
            asn => members.push(asn.parse().expect("an AS number")),
        }
    }
    close(kind, &mut members);
    out
}
