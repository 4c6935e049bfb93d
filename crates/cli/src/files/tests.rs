use super::*;

const SERVICE: &str = "kind: Service\nmetadata: {tenant: acme, namespace: shop, name: cart}\n\
                       spec: {port: 80, origins: []}\n";
const TENANT: &str = "kind: Tenant\nmetadata: {name: acme}\nspec: {}\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    folder
}

#[test]
fn what_is_referred_to_goes_first() {
    let two = format!("---\n---\n{SERVICE}---\n{TENANT}");
    let folder = folder(&[
        ("b.yaml", &two),
        ("a/ns.yml", NAMESPACE),
        ("notes.txt", "{"),
    ]);
    let read = read(&[folder.path().to_owned()]).expect("read");
    let order: Vec<String> = read.iter().map(|d| label(&d.object)).collect();
    assert_eq!(order, ["tenant/acme", "namespace/shop", "service/cart"]);
    assert!(
        read[0].place.ends_with("b.yaml, document 3"),
        "{}",
        read[0].place
    );
    assert!(
        read[2].place.ends_with("b.yaml, document 2"),
        "{}",
        read[2].place
    );
}

const NAMESPACE: &str = "kind: Namespace\nmetadata: {tenant: acme, name: shop}\nspec: {}\n";

#[test]
fn every_wrong_file_is_told_with_its_document() {
    let bad = format!("{TENANT}---\nkind: Tenant\nmetadata: {{name: x}}\nspec: {{color: 1}}\n");
    let folder = folder(&[
        ("1.yaml", &bad),
        ("2.yaml", "kind: [\n"),
        ("3.yaml", TENANT),
    ]);
    let failures = read(&[folder.path().to_owned()]).expect_err("two are wrong");
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].contains("1.yaml, document 2: /spec/color"),
        "{}",
        texts[0]
    );
    assert!(texts[0].contains("unknown field `color`"), "{}", texts[0]);
    assert!(texts[1].contains("2.yaml, document 1"), "{}", texts[1]);
}

#[test]
fn the_same_object_twice_is_refused() {
    let folder = folder(&[("1.yaml", TENANT), ("2.yaml", TENANT)]);
    let failures = read(&[folder.path().to_owned()]).expect_err("twice");
    let text = failures[0].to_string();
    assert!(text.contains("tenant/acme is there twice"), "{text}");
    assert!(
        text.contains("1.yaml, document 1; ") && text.contains("2.yaml, document 1"),
        "{text}"
    );
}

#[test]
fn too_much_and_nothing_are_told() {
    let folder = folder(&[("big.yaml", &"#".repeat(10 << 20)), ("none/x.txt", "")]);
    let big = read(&[folder.path().join("big.yaml")]).expect_err("10 MiB");
    assert!(big[0].to_string().contains("more than 8 MiB"), "{}", big[0]);
    let none = read(&[folder.path().join("none")]).expect_err("nothing");
    assert_eq!(none[0].exit().code(), 2);
    let missing = read(&[folder.path().join("missing.yaml")]).expect_err("missing");
    assert!(
        missing[0].to_string().contains("No such file"),
        "{}",
        missing[0]
    );
}
