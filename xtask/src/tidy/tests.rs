use super::*;
use crate::tree::{Dependency, Package, Source};

const HOUSE: &str = "# Map\n```engines\nbase bgp\n```\n```edges\nnode proxy → bgp\n```\n";

/// A house in order: two rooms, one binary, the papers.
fn house() -> Tree {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let package = |name: &str, folder: &str| Package {
        name: name.to_owned(),
        folder: folder.to_owned(),
        ..Package::default()
    };
    let mut sealane = package("sealane", "crates/sealane");
    sealane.binaries = 1;
    Tree {
        packages: vec![
            package("bgp", "crates/bgp"),
            package("node", "crates/node"),
            sealane,
        ],
        sources: vec![
            source(
                "Cargo.toml",
                "[workspace.dependencies]\nbase = { path = \"x\" }\n\n[x]\n",
            ),
            source("docs/architecture.md", HOUSE),
            source("docs/dependencies.md", "# Dependencies\n"),
        ],
    }
}

/// What tidy says of a house to which one file was added.
fn with_file(path: &str, text: &str) -> Report {
    let mut tree = house();
    tree.sources.push(Source {
        path: path.to_owned(),
        text: text.to_owned(),
    });
    tidy(&tree).expect("it can be read")
}

fn with_dependency(room: &str, dependency: Dependency) -> Report {
    let mut tree = house();
    let package = tree
        .packages
        .iter_mut()
        .find(|package| package.name == room)
        .expect("a room");
    package.dependencies.push(dependency);
    tidy(&tree).expect("it can be read")
}

fn room(name: &str, dev: bool) -> Dependency {
    Dependency {
        name: name.to_owned(),
        ours: true,
        dev,
    }
}

fn assert_says(report: &Report, what: &str) {
    let [violation] = report.violations.as_slice() else {
        panic!("not one: {report}")
    };
    assert!(
        violation.contains(what),
        "{violation:?} does not say {what:?}"
    );
}

#[test]
fn a_house_in_order_has_nothing_to_report() {
    assert_eq!(tidy(&house()).expect("it can be read"), Report::default());
}

#[test]
fn edges_are_those_of_the_paper() {
    for allowed in [room("bgp", false), room("base", false), room("kit", true)] {
        assert_eq!(with_dependency("node", allowed), Report::default());
    }
    let report = with_dependency("node", room("controller", false));
    assert_says(
        &report,
        "crates/node/Cargo.toml: the edge node → controller",
    );
    assert_says(&with_dependency("node", room("kit", false)), "node → kit");
    assert_says(&with_dependency("bgp", room("node", true)), "bgp → node");
}

#[test]
fn sealane_has_the_only_binary() {
    let mut tree = house();
    tree.packages[0].binaries = 1;
    assert_says(
        &tidy(&tree).expect("it can be read"),
        "the only package with a binary",
    );
}

#[test]
fn an_engine_depends_on_no_shell_crate() {
    let tokio = |dev| Dependency {
        name: "tokio".to_owned(),
        ours: false,
        dev,
    };
    let mut tree = house();
    let manifest = "[workspace.dependencies]\ntokio = \"1\"\n";
    manifest.clone_into(&mut tree.sources[0].text);
    "- **tokio**: tasks.\n".clone_into(&mut tree.sources[2].text);
    for (package, dev, fine) in [(0, false, false), (0, true, true), (1, false, true)] {
        let mut tree = tree.clone();
        tree.packages[package].dependencies.push(tokio(dev));
        let report = tidy(&tree).expect("it can be read");
        assert_eq!(report.violations.is_empty(), fine, "{report}");
    }
}

#[test]
fn an_engine_is_pure() {
    for (text, what) in [
        ("use std::time::Instant;", "std::time::Instant"),
        (
            "use std::{time::{self, Duration}}; fn f() { time::SystemTime::now(); }",
            "SystemTime",
        ),
        (
            "use std::net as n; fn f() { n::TcpStream::connect(\"\"); }",
            "std::net::TcpStream",
        ),
        ("fn f() { std::fs::read(\"x\"); }", "std::fs"),
        (
            "fn f() { println!(\"{:?}\", std::env::var(\"x\")); }",
            "std::env",
        ),
        ("use std::thread::*;", "std::thread"),
        ("fn f(r: tokio::sync::mpsc::Sender<u8>) {}", "tokio"),
        ("fn f() { rand::random::<u8>(); }", "rand"),
        ("static mut N: u8 = 0;", "a global, N"),
        (
            "static N: std::sync::atomic::AtomicU8 = z();",
            "a global, N",
        ),
    ] {
        assert_says(&with_file("crates/bgp/src/x.rs", text), what);
        let report = with_file("crates/node/src/x.rs", text);
        assert_eq!(report, Report::default(), "a shell may: {text}");
        let report = with_file("crates/bgp/src/x/tests.rs", text);
        assert_eq!(report, Report::default(), "tests may: {text}");
        let report = with_file(
            "crates/bgp/src/x.rs",
            &format!("#[cfg(test)] mod t {{ {text} }}"),
        );
        assert_eq!(report, Report::default(), "tests may: {text}");
    }
    for text in [
        "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;",
        "use base::Instant; fn f(now: Instant) -> Instant { now }",
        "static TABLE: [u8; 2] = [1, 2];",
        "fn f() { let tokio_like = 1; let _ = tokio_like; }",
    ] {
        assert_eq!(
            with_file("crates/bgp/src/x.rs", text),
            Report::default(),
            "{text}"
        );
    }
}

#[test]
fn sizes_are_reported_and_limited() {
    let function = |lines: usize| format!("fn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2));
    assert_eq!(
        with_file("crates/node/src/x.rs", &function(70)),
        Report::default()
    );
    let report = with_file("crates/node/src/x.rs", &function(71));
    assert_eq!(
        report.notes,
        ["crates/node/src/x.rs:1: fn long has 71 lines, aim at 70"]
    );
    assert_says(
        &with_file("crates/node/src/x.rs", &function(121)),
        "more than 120",
    );
    let file = "// a line\n".repeat(1001);
    assert_says(
        &with_file("crates/node/src/x.rs", &file),
        "this file has 1001 lines",
    );
    let tests = format!("#[cfg(test)]\nmod tests {{\n{file}fn f() {{}}\n}}\n");
    assert_eq!(with_file("crates/node/src/x.rs", &tests), Report::default());
    assert_eq!(
        with_file("crates/node/src/x/tests.rs", &file),
        Report::default()
    );
}

#[test]
fn attributes_and_unsafe_have_their_rules() {
    for (text, what) in [
        ("#[allow(dead_code)] fn f() {}", "instead of `#[allow]`"),
        ("#![allow(dead_code)]", "instead of `#[allow]`"),
        ("#[expect(dead_code)] fn f() {}", "gives its reason"),
        ("#[test] #[ignore] fn f() {}", "no test"),
        ("fn f() { unsafe { g() } }", "may say `unsafe`"),
        ("unsafe fn f() {}", "may say `unsafe`"),
        ("unsafe impl Send for X {}", "may say `unsafe`"),
    ] {
        assert_says(&with_file("crates/node/src/x.rs", text), what);
    }
    assert_says(
        &with_file("crates/node/src/lib.rs", "fn f() {}"),
        "opens with an essay",
    );
    let fine = "#[expect(dead_code, reason = \"x\")] fn f() {}";
    assert_eq!(with_file("crates/node/src/x.rs", fine), Report::default());
}

#[test]
fn files_are_named_after_their_module_and_speak_of_no_machine() {
    assert_says(
        &with_file("crates/node/src/x/mod.rs", ""),
        "name it after its module",
    );
    let path = concat!("see /wo", "rk/x\n");
    assert_says(&with_file("README.md", path), "README.md:1: speaks of");
}

#[test]
fn every_dependency_has_its_sentence() {
    let mut tree = house();
    tree.sources[0]
        .text
        .push_str("[workspace.dependencies]\nserde = \"1\"\n");
    tree.sources[0].text = "[workspace.dependencies]\n# note\nserde = \"1\"\n".to_owned();
    let report = tidy(&tree).expect("it can be read");
    assert_says(&report, "serde has no sentence");
    assert_eq!(report.notes, ["Cargo.toml: nobody uses serde"]);
    "- **serde**: JSON.\n- **old**: gone.\n".clone_into(&mut tree.sources[2].text);
    assert_says(
        &tidy(&tree).expect("it can be read"),
        "old is not a dependency any more",
    );
}

#[test]
fn papers_that_cannot_be_read_are_errors() {
    let mut tree = house();
    "```engines\n```\n".clone_into(&mut tree.sources[1].text);
    assert!(
        tidy(&tree)
            .expect_err("no edges")
            .to_string()
            .contains("no block `edges`")
    );
    tree.sources.remove(1);
    assert!(tidy(&tree).is_err());
}

#[test]
fn the_repository_is_tidy() {
    let report = tidy(&Tree::read().expect("the working tree")).expect("it can be read");
    println!("{report}");
    assert!(report.violations.is_empty(), "\n{report}");
}
