use super::*;

#[test]
fn files_hold_documents() {
    let text = "\
# a comment
kind: Tenant
metadata: {name: acme}
spec: {publicHosts: ['*.acme.example']}
---
---
{\"kind\": \"Namespace\", \"metadata\": {\"tenant\": \"acme\", \"name\": \"shop\"}, \"spec\": {}}
";
    let objects = parse(text).expect("two documents");
    let keys: Vec<String> = objects
        .iter()
        .map(|object| object.key().to_string())
        .collect();
    assert_eq!(keys, ["tenants/acme", "tenants/acme/namespaces/shop"]);
    assert_eq!(parse("").expect("nothing"), []);
}

#[test]
fn the_document_and_the_field_are_named() {
    let good = "kind: Tenant\nmetadata: {name: a}\n---\n";
    for (text, document, code, pointer) in [
        (
            "kind: Tenant\nmetadata: {name: a, x: 1}",
            2,
            "unknown-field",
            Some("/metadata/x"),
        ),
        ("kind: [", 2, "bad-manifest", None),
        ("just words", 2, "bad-value", Some("")),
        (
            "kind: Tenant\nkind: Tenant\nmetadata: {name: a}",
            2,
            "bad-manifest",
            None,
        ),
        ("1: 2", 2, "unknown-field", Some("/1")),
    ] {
        let error = parse(&format!("{good}{text}")).expect_err(text);
        let found = (
            error.document,
            error.problem.code.as_str(),
            error.problem.pointer.as_deref(),
        );
        assert_eq!(found, (document, code, pointer), "{text}\n{error}");
    }
}

#[test]
fn everything_is_bounded() {
    let long = "a".repeat(MAX_FILE_BYTES + 1);
    assert_eq!(parse(&long).expect_err("too long").problem.status, 413);
    let tenant = "kind: Tenant\nmetadata: {name: a}\n";
    let many = vec![tenant; MAX_DOCUMENTS + 1].join("---\n");
    assert_eq!(parse(&many).expect_err("too many").problem.status, 413);
    let hosts = "h.example,".repeat(MAX_OBJECT_BYTES / 10 + 1);
    let large = format!("{tenant}spec: {{publicHosts: [{hosts}]}}");
    assert_eq!(parse(&large).expect_err("too large").problem.status, 413);
    for depth in [900, 100_000] {
        let deep = format!("kind: {}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(
            parse(&deep).expect_err("too deep").problem.code,
            "bad-manifest"
        );
    }
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        let last = format!("*a{},", n - 1).repeat(10);
        laughs += &format!("a{n}: &a{n} [{last}]\n");
    }
    assert_eq!(
        parse(&laughs).expect_err("too much").problem.code,
        "bad-manifest"
    );
    // One list, repeated: as much as the list times its aliases.
    let list = "x,".repeat(100_000);
    let again = "*l,".repeat(100_000);
    let square = format!("a: &l [{list}]\nb: [{again}]\n");
    assert_eq!(parse(&square).expect_err("too much").problem.status, 413);
}
