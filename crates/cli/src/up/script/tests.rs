//! Scripts that are good, and one for each way to be wrong.

use super::*;

fn args() -> UpArgs {
    UpArgs::default()
}

fn parse(text: &str) -> Result<Script, Vec<Failure>> {
    // Manifests are found from here.
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/20-scenario/x.yaml"
    );
    Script::parse(Path::new(path), text, &args())
}

#[test]
fn the_examples_are_good() {
    for name in [
        "20-scenario/cut.yaml",
        "20-scenario/endpoint.yaml",
        "21-spill-by-load/spill.yaml",
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        let read = Script::read(&Path::new(folder).join(name), &args());
        let script = read.unwrap_or_else(|failures| panic!("{failures:?}"));
        assert!(script.about.is_some() && script.steps.len() > 10);
    }
}

#[test]
fn what_is_said_is_what_is_done() {
    let script = parse(
        "net: ns
topology: world
steps:
- name: users
  load: { url: 'http://cart.acme.example/a?b', at: [par, nyc], from: shop, rate: 50, timeout: 2s,
          status: 404, headers: { x-a: b } }
- { name: cut, lab: [cut par-nyc, degrade factory-lte-nyc --loss 1.5], within: 3s }
- { pause: [cart-1.aws, par] }
- { expect: { since: cut, failed: 2, answeredBy: aws } }
",
    );
    let script = script.expect("good");
    assert_eq!(
        (script.setting.net, script.setting.topology),
        (Net::Ns, Shape::World)
    );
    let labels: Vec<&str> = script
        .steps
        .iter()
        .map(|step| step.label.as_str())
        .collect();
    assert_eq!(
        labels,
        [
            "users: load 50/s http://cart.acme.example/a?b at par, nyc, from shop",
            "cut: lab cut par-nyc, degrade factory-lte-nyc --loss 1.5",
            "pause cart-1.aws, par",
            "expect users since cut",
        ]
    );
    let [users, cut, _, expect] = script.steps.as_slice() else {
        panic!("four steps");
    };
    let Action::Load(load) = &users.action else {
        panic!("{users:?}");
    };
    assert_eq!(
        (load.rate, load.status, load.timeout),
        (50, 404, Duration::from_secs(2))
    );
    assert_eq!(
        (users.line, cut.line, cut.within),
        (4, 7, Duration::from_secs(3))
    );
    let Action::Expect { since, bounds, .. } = &expect.action else {
        panic!("{expect:?}");
    };
    assert_eq!((*since, bounds.failed), (Some(1), Some(2)));
    // Without words of its own, it is as any `up`.
    let script = parse(r#"{"steps":[{"wait":"1s"}]}"#).expect("JSON is YAML");
    assert_eq!(
        (script.setting.net, script.setting.topology),
        (Net::Loopback, Shape::Small)
    );
}

fn refused(text: &str, line: usize, told: &str) {
    let failures = parse(text).expect_err(text);
    let failure = failures.first().expect("one");
    assert_eq!(failure.exit(), Exit::Usage, "{text}");
    let said = failure.to_string();
    assert!(said.contains(told), "{text}\n{said}");
    assert!(said.contains(&format!("x.yaml:{line}")), "{text}\n{said}");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, line, told) in [
        ("stepps: []", 1, "unknown field `stepps`"),
        ("steps: []", 1, "a script has 1 to 500"),
        ("steps:\n- wait: 5", 2, "\"5\" is not a duration"),
        ("steps:\n- wait: 5x", 2, "\"5x\" is not a duration"),
        ("steps:\n- wait: 2h", 2, "1ms to 1h"),
        (
            "steps:\n- { wait: 1s, kill: par }",
            2,
            "a step is one action, and this has 2",
        ),
        ("steps:\n- name: x", 2, "one of apply, load, lab"),
        (
            "steps:\n- { wait: 1s, within: 1s }",
            2,
            "leave `within` out",
        ),
        (
            "steps:\n- wait: 1s\n- kill: moon",
            3,
            "there is no process \"moon\"",
        ),
        ("steps:\n- kill: []", 2, "nobody is named"),
        (
            "steps:\n- lab: cutt aws-par",
            2,
            "unrecognized subcommand 'cutt'",
        ),
        ("steps:\n- lab: cut", 2, "required arguments"),
        ("steps:\n- lab: cut aws-moon", 2, "one of aws-par, aws-nyc"),
        (
            "steps:\n- lab:\n  - list\n  - degrade aws-par --loss 1",
            3,
            "net: ns",
        ),
        ("steps:\n- lab: wan x", 2, "not for scripts"),
        ("steps:\n- lab: list --home /", 2, "without --home"),
        (
            "steps:\n- lab: demo par sick",
            2,
            "one of cart-1.aws, cart-1.factory",
        ),
        ("steps:\n- lab: demo 127.0.0.1:1 sick", 2, "its name"),
        (
            "net: ns\nsteps:\n- lab: flush-nat par",
            3,
            "there is no gateway \"par\"",
        ),
        (
            "steps:\n- expect: { failed: 0 }",
            2,
            "no load has begun before",
        ),
        ("steps:\n- until: {}", 2, "this is not one condition"),
        (
            "steps:\n- until: { ready: false }",
            2,
            "this is not one condition",
        ),
        (
            "steps:\n- until: { way: { from: par, to: moon } }",
            2,
            "no site \"moon\"",
        ),
        ("steps:\n- apply: absent.yaml", 2, "cannot be read"),
        (
            "topology: wide\nnet: moon\nsteps: []",
            2,
            "unknown variant `moon`",
        ),
    ] {
        refused(text, line, told);
    }
    // All of it is told.
    let failures = parse("steps:\n- kill: moon\n- wait: 1s\n- kill: sun").expect_err("two");
    assert_eq!(failures.len(), 2);
}

#[test]
fn what_is_wrong_with_loads_and_expectations_is_told() {
    let load = "- { name: u, load: { url: 'http://a.example/' } }";
    for (text, line, told) in [
        (
            "steps:\n- load: { url: 'http://a.example/' }",
            2,
            "this load has no name",
        ),
        (
            "steps:\n- { name: u, load: { url: 'https://a.example/' } }",
            2,
            "is not such a URL",
        ),
        (
            "steps:\n- { name: u, load: { url: 'http://a:81/' } }",
            2,
            "on their port 80",
        ),
        (
            "steps:\n- { name: u, load: { url: 'http://a/', at: moon } }",
            2,
            "no PoP \"moon\"",
        ),
        (
            "steps:\n- { name: u, load: { url: 'http://1.2.3.4/', at: par } }",
            2,
            "leave `at` out",
        ),
        (
            "steps:\n- { name: u, load: { url: 'http://a/', from: aws } }",
            2,
            "in one network",
        ),
        (
            "steps:\n- { name: u, load: { url: 'http://a/', rate: 0 } }",
            2,
            "1 to 5000",
        ),
        (
            "steps:\n- { name: u, load: { url: 'http://a/', status: 99 } }",
            2,
            "99 is no status",
        ),
        (
            &format!("steps:\n{load}\n- expect: {{}}"),
            3,
            "nothing is expected",
        ),
        (
            &format!("steps:\n{load}\n- expect: {{ fail: 0 }}"),
            3,
            "unknown field `fail`",
        ),
        (
            &format!("steps:\n{load}\n- expect: {{ failed: 0, load: v }}"),
            3,
            "no load \"v\"",
        ),
        (
            &format!("steps:\n{load}\n- expect: {{ failed: 0, since: v }}"),
            3,
            "one of u",
        ),
        (
            &format!("steps:\n{load}\n{load}"),
            3,
            "two steps have the name u",
        ),
    ] {
        refused(text, line, told);
    }
}

#[test]
fn arguments_and_script_do_not_contradict_each_other() {
    let text = "topology: world\nsteps: [{ wait: 1s }]";
    let with = |topology| {
        let args = UpArgs {
            topology,
            net: Some(Net::Ns),
            ..args()
        };
        Script::parse(Path::new("x.yaml"), text, &args)
    };
    for topology in [None, Some(Shape::World)] {
        let script = with(topology).expect("good");
        assert_eq!(
            (script.setting.topology, script.setting.net),
            (Shape::World, Net::Ns)
        );
    }
    let failures = with(Some(Shape::Wide)).expect_err("another");
    assert!(
        failures[0]
            .to_string()
            .contains("the script is for world, not for --topology wide")
    );
}
