use std::os::unix::net::UnixListener;

use super::*;

#[test]
fn env_round_trips_through_odd_paths() {
    let text = env_text(
        "https://127.0.0.1:1",
        Path::new("/a b/c'd"),
        Path::new("/t"),
    );
    let places = parse_env(&text);
    assert_eq!(places.server.as_deref(), Some("https://127.0.0.1:1"));
    assert_eq!(places.ca.as_deref(), Some(Path::new("/a b/c'd")));
    assert_eq!(places.token_file.as_deref(), Some(Path::new("/t")));
}

#[test]
fn flags_go_before_the_home() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = env_text("https://home:1", Path::new("/ca"), Path::new("/token"));
    fs::write(folder.path().join(ENV_FILE), text).expect("written");
    let connection = Connection {
        server: Some("https://flag:1".to_owned()),
        home: Some(folder.path().to_owned()),
        ..Connection::default()
    };
    let places = places(&connection, Path::new("/nowhere")).expect("found");
    assert_eq!(places.server.as_deref(), Some("https://flag:1"));
    assert_eq!(places.ca.as_deref(), Some(Path::new("/ca")));
}

#[test]
fn the_newest_running_home_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let runs = folder.path().join("runs");
    let homes = ["old", "new"].map(|name| {
        let home = folder.path().join(name);
        fs::create_dir(&home).expect("made");
        home
    });
    assert_eq!(running(&runs), None);
    let old_socket = UnixListener::bind(homes[0].join(UP_SOCKET)).expect("bound");
    let new_socket = UnixListener::bind(homes[1].join(UP_SOCKET)).expect("bound");
    let old = RunLink::make(&runs, &homes[0]).expect("linked");
    // The same process: its second link takes the place of the first.
    fs::rename(&old.link, runs.join("run-1")).expect("renamed");
    let new = RunLink::make(&runs, &homes[1]).expect("linked");
    assert_eq!(running(&runs).as_ref(), Some(&homes[1]));
    drop(new_socket);
    assert_eq!(
        running(&runs).as_ref(),
        Some(&homes[0]),
        "the newest does not answer"
    );
    drop((new, old_socket));
    assert_eq!(running(&runs), None);
    assert!(!runs.join("current").exists());
}

#[test]
fn a_folder_that_others_may_write_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let runs = folder.path().join("runs");
    let home = folder.path().join("home");
    fs::create_dir(&home).expect("made");
    let _socket = UnixListener::bind(home.join(UP_SOCKET)).expect("bound");
    let _link = RunLink::make(&runs, &home).expect("linked");
    fs::set_permissions(&runs, fs::Permissions::from_mode(0o777)).expect("opened");
    assert_eq!(running(&runs), None);
}

#[test]
fn what_is_missing_is_named() {
    let connection = Connection {
        server: Some("https://x:1".to_owned()),
        ..Connection::default()
    };
    let places = places(&connection, Path::new("/nowhere")).expect("taken as it is");
    let failure = Context::load(places).expect_err("no CA");
    assert!(failure.to_string().contains("--ca is missing"), "{failure}");
    let none = super::places(&Connection::default(), Path::new("/nowhere")).expect_err("nothing");
    assert_eq!(none.exit().code(), 2);
    for bad in ["http://x:1", "x", "https://"] {
        let places = Places {
            server: Some(bad.to_owned()),
            ca: Some("/ca".into()),
            token_file: Some("/t".into()),
        };
        let failure = Context::load(places).expect_err(bad);
        assert!(
            failure.to_string().contains("https://HOST:PORT"),
            "{failure}"
        );
    }
}

#[test]
fn a_user_is_known_by_the_number_it_has_outside() {
    let root_of_ours = "         0       1000          1\n";
    assert_eq!(outside(root_of_ours, 0), Some(1000));
    assert_eq!(outside(root_of_ours, 1), None);
    let machine = "         0          0 4294967295\n";
    assert_eq!(outside(machine, 1000), Some(1000));
    assert_eq!(outside("", 7), None);
    assert_eq!(outside("0 x 1\n0 5 1\n", 0), Some(5));
}
