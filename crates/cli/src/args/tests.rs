use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    crate::parse_from(
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    )
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_should_parse_parses() {
    for line in [
        "sealane up",
        "sealane up --json --home /tmp/x --keep",
        "sealane up --net ns --topology world --split",
        "sealane up --script s.yaml --check",
        "sealane up --no-live",
        "sealane up --script s.yaml --net ns --json --home /tmp/x",
        "sealane controller --state d --listen 127.0.0.1:1 --fabric 127.0.0.1:2",
        "sealane controller --state d --listen [::1]:1 --fabric 127.0.0.1:2 --planet earth \
         --node-certificate-lifetime 30s --fabric-advertise a.example:1 10.0.0.1:2",
        "sealane node --state d",
        "sealane node --state d --token @file",
        "sealane node --state d --workers 2 --access-log none",
        "sealane node --state d --bundle m --site par --node par-1 --check",
        "sealane apply -f a.yaml -f b --dry-run",
        "sealane apply -f -",
        "sealane get services -A -o yaml",
        "sealane get lb web -t acme -n shop --watch",
        "sealane get routes --node-state d",
        "sealane describe site par",
        "sealane delete service cart -t acme -n shop",
        "sealane delete -f d",
        "sealane diff -f d",
        "sealane status -o json",
        "sealane status --server https://x:1 --ca c --token-file t",
        "sealane lab --home d relay set aws-par 40ms",
        "sealane lab relay list --home d",
        "sealane lab cut aws-par",
        "sealane lab relay --config f",
        "sealane lab demo cart-1.aws sick",
        "sealane lab demo 127.0.0.1:80 slow 200",
        "sealane lab demo --listen 127.0.0.1:80 --tenant a --site b --name c",
        "sealane lab restart aws",
        "sealane lab restart control.aws",
        "sealane lab reset-bgp par 0.0.0.3",
        "sealane lab janitor a b",
        "sealane lab load a",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_should_not_parse_is_a_usage_error() {
    for line in [
        "sealane",
        "sealane up --check",
        "sealane controller --state d",
        "sealane controller --state d --listen 127.0.0.1 --fabric 127.0.0.1:2",
        "sealane controller --state d --listen 127.0.0.1:1 --fabric 127.0.0.1:2 --planet A_b",
        "sealane node",
        "sealane node --state d --bundle m",
        "sealane node --state d --check",
        "sealane node --state d --bundle m --site s --token t",
        "sealane apply",
        "sealane delete",
        "sealane delete service",
        "sealane delete service cart -f d",
        "sealane lab relay",
        "sealane lab relay --config f list",
        "sealane lab relay set aws-par fast",
        "sealane lab demo",
        "sealane lab demo cart-1.aws",
        "sealane lab demo cart-1.aws slow",
        "sealane lab demo --listen 127.0.0.1:80",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn lifetimes_are_bounded() {
    assert_eq!(lifetime("90d"), Ok(Duration::from_secs(90 * 86_400)));
    assert_eq!(lifetime("30s"), Ok(Duration::from_secs(30)));
    for bad in ["", "9s", "4000d", "d", "-1d", "1w"] {
        assert!(lifetime(bad).is_err(), "{bad}");
    }
}

#[test]
fn all_overrules_the_environment() {
    let selection = Selection {
        tenant: "acme".parse().ok(),
        namespace: None,
        all: true,
    };
    assert_eq!(selection.tenant(), None);
}

#[test]
fn an_admission_is_read_from_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let args = |token: String| {
        let state = folder.path().display().to_string();
        let words = ["sealane", "node", "--state", &state, "--token", &token];
        match crate::parse_from(words) {
            Ok(Command::Node(args)) => args,
            other => panic!("not a node: {other:?}"),
        }
    };
    let in_file = args(format!("@{}", file.display()));
    assert_eq!(in_file.admission().expect_err("missing").exit().code(), 2);
    std::fs::write(&file, "sealane1.x\n").expect("written");
    assert_eq!(
        in_file.admission().expect("read").as_deref(),
        Some("sealane1.x")
    );
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(folder.path().join("node.json"), "{}").expect("joined");
    assert_eq!(in_file.admission().expect("not needed"), None);
    let direct = args("sealane1.y".to_owned());
    assert_eq!(
        direct.admission().expect("given").as_deref(),
        Some("sealane1.y")
    );
}
