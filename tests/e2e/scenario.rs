//! `sealane up --script`: the scripts of the example, and one that expects too much.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use kit::{Turn, figure, process::Signal, wait_until};
use serde_json::Value;

use crate::examples::SOON;

fn example(name: &str) -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/20-scenario");
    examples.join(name)
}

/// `sealane up --script`, and no trace of the tester's own planets.
fn up(folder: &Path, script: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
    for name in ["SEALANE_HOME", "SEALANE_SERVER", "SEALANE_LOG"] {
        command.env_remove(name);
    }
    command
        .args(["up", "--script"])
        .arg(script)
        .args(more)
        .env("TMPDIR", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null());
    command
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The documents that it printed: what `up --json` says, one a step, and the summary.
fn documents(output: &Output) -> Vec<Value> {
    let text = text(&output.stdout);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"));
    text.lines().map(parse).collect()
}

/// Runs a script that is to hold; tells its figures.
pub(crate) fn holds(script: &Path) -> Value {
    let name = script.file_name().expect("a file").display();
    let folder = tempfile::tempdir().expect("a folder");
    let output = up(folder.path(), script, &["--json"]).output();
    let output = output.expect("it runs");
    let said = documents(&output);
    assert!(
        output.status.success(),
        "{said:#?}\n{}",
        text(&output.stderr)
    );
    assert!(said[0]["startup_ms"].is_u64(), "{said:#?}");
    let [.., summary] = said.as_slice() else {
        panic!("{said:#?}");
    };
    for step in said.iter().filter(|document| document["step"].is_u64()) {
        let (action, took, load) = (&step["action"], &step["took_ms"], &step["loads"]["users"]);
        if load.is_object() {
            figure(format_args!(
                "{name}: {action}: {took} ms, {} asked, {} failed, slowest {} µs",
                load["sent"], load["failed"], load["slowest_us"]
            ));
        }
        assert_eq!(step["result"], "ok", "{step}");
    }
    assert_eq!(
        said.len() as u64,
        2 + summary["steps"].as_u64().expect("a count")
    );
    assert_eq!(
        (&summary["result"], &summary["skipped"]),
        (&Value::from("ok"), &Value::from(0))
    );
    assert_eq!(summary["loads"]["users"]["failed"], 0, "{summary}");
    // Nothing is left.
    let files = fs::read_dir(folder.path()).expect("our folder").flatten();
    let homes: Vec<_> = files.filter(|file| file.file_name() != "sealane").collect();
    assert!(homes.is_empty(), "{homes:?}");
    summary.clone()
}

#[test]
fn a_line_is_cut_under_load_and_nobody_notices() {
    let _turn = Turn::alone();
    let summary = holds(&example("cut.yaml"));
    assert!(
        summary["loads"]["users"]["good"].as_u64() > Some(1000),
        "{summary}"
    );
}

#[test]
fn processes_are_killed_under_load_and_come_back() {
    let _turn = Turn::alone();
    holds(&example("endpoint.yaml"));
}

#[test]
fn what_does_not_hold_is_said_and_ends_with_1() {
    let _turn = Turn::beside();
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("wrong.yaml");
    let steps = "steps:
- { name: users, load: { url: 'http://cart.acme.example/', at: par, rate: 50 } }
- wait: 300ms
- name: gone
  kill: par
- expect: { since: users, answeredBy: shop }
- wait: 300ms
- expect: { since: gone, failed: 0 }
- until: { ready: true }
  within: 2500ms
- lab: list
";
    fs::write(&script, steps).expect("written");
    let output = up(folder.path(), &script, &[]).output().expect("it runs");
    let (said, complaints) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{complaints}");
    let place = |line: usize| format!("({}:{line})", script.display());
    for words in [
        "1/8 ok ",
        "3/8 ok ",
        "4/8 FAILED ",
        "6/8 FAILED ",
        "7/8 FAILED ",
        "8/8 skipped ",
        "not by shop alone",
        "failed, 0 at most",
        // It took longer than two seconds.
        "… 2 s, until every site is connected",
        "not within 2s500ms; last: par.fabric is not connected",
        "FAILED: 3 of 8 steps, 1 not run",
        &format!("step 4 {}", place(6)),
        &format!("step 6 {}", place(8)),
        "stopping",
    ] {
        assert!(
            said.contains(words),
            "{words:?} is missing in\n{said}{complaints}"
        );
    }
}

#[test]
fn a_script_that_is_wrong_starts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("wrong.yaml");
    let steps = "net: ns\nsteps:\n- lab: cut aws-moon\n- wait: 1s\n- expect: { failed: 0 }\n";
    fs::write(&script, steps).expect("written");
    for more in [&[][..], &["--check"], &["--json"]] {
        let output = up(folder.path(), &script, more).output().expect("it runs");
        let complaints = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{complaints}");
        assert_eq!(text(&output.stdout), "");
        for words in [
            "there is no line \"aws-moon\"",
            "wrong.yaml:3, steps[0].lab",
            "one of aws-par, aws-nyc",
            "wrong.yaml:5, steps[2].expect.load",
        ] {
            assert!(
                complaints.contains(words),
                "{words:?} is missing in\n{complaints}"
            );
        }
    }
    let good = up(folder.path(), &example("cut.yaml"), &["--check"]).output();
    let good = good.expect("it runs");
    assert!(good.status.success() && text(&good.stdout).contains("nothing wrong"));
    assert_eq!(fs::read_dir(folder.path()).expect("our folder").count(), 1);
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    let _turn = Turn::beside();
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("long.yaml");
    fs::write(&script, "steps:\n- wait: 1ms\n- wait: 1h\n").expect("written");
    let log = folder.path().join("said");
    let file = fs::File::create(&log).expect("a file");
    let mut child = up(folder.path(), &script, &[])
        .stdout(file)
        .spawn()
        .expect("it runs");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the first step", SOON * 3, || {
        let said = read();
        said.contains("1/2 ok").then_some(()).ok_or(said)
    });
    kit::process::signal(child.id(), Signal::INT);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", read());
    assert!(
        read().contains("interrupted: 1 of 2 steps had ended"),
        "{}",
        read()
    );
    let homes = fs::read_dir(folder.path()).expect("our folder").flatten();
    let names = homes.map(|file| file.file_name().display().to_string());
    let names: Vec<String> = names.filter(|name| name.starts_with("sealane-")).collect();
    assert!(names.is_empty(), "{names:?}");
}
