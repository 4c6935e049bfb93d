//! The live view of `sealane up`, in a terminal of the test's own.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use kit::{Turn, figure, process::Signal, wait_until};

use crate::examples::skip;

/// How long a planet may take until the view is there, and whatever is to be seen.
const SOON: Duration = Duration::from_secs(60);
/// The other screen, and back.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const LINE_ENDS: &str = "\x1b[K";
const KEYS: &str = "keys: e kill an endpoint";

/// `up` in a pseudo-terminal that `script` makes.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    folder: tempfile::TempDir,
}

impl Terminal {
    /// None where there is no `script`.
    fn start(arguments: &str, term: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (before, after, code) = (path("before"), path("after"), path("code"));
        let program = env!("CARGO_BIN_EXE_sealane");
        let line = format!(
            "trap : INT; stty rows 40 cols 120; stty -g > {before}; {program} up {arguments}; \
             echo $? > {code}; stty -g > {after}"
        );
        let mut command = Command::new("script");
        for name in ["SEALANE_HOME", "SEALANE_SERVER", "SEALANE_LOG"] {
            command.env_remove(name);
        }
        command
            .args(["-qec", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", term)
            .env("TMPDIR", folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(File::create(path("shown")).expect("a file"));
        let mut child = command.spawn().ok()?;
        let keys = child.stdin.take().expect("it was asked for");
        Some(Terminal {
            child,
            keys,
            folder,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shown(&self) -> String {
        let octets = fs::read(self.path("shown")).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("heard");
        self.keys.flush().expect("heard");
    }

    /// Waits until a line that holds this is shown; the line.
    fn sees(&self, words: &str) -> String {
        self.sees_both(words, "")
    }

    /// The same, and this too.
    fn sees_both(&self, words: &str, more: &str) -> String {
        let (line, _) = wait_until(words, SOON, || {
            let shown = self.shown();
            let mut lines = shown.lines();
            let line = lines.find(|line| line.contains(words) && line.contains(more));
            line.map(str::to_owned).ok_or(shown)
        });
        line
    }

    /// Waits for the end of a measurement; tells it.
    fn measured(&self, what: &str) -> String {
        let line = self.sees_both(&format!("{what}: "), ", slowest ");
        let line = line.split(LINE_ENDS).next().unwrap_or_default().to_owned();
        figure(format_args!("live: {line}"));
        line
    }

    /// The process of `up` itself.
    fn up(&self) -> u32 {
        let all = kit::process::descendants(self.child.id());
        let ours = |process: &&kit::process::Process| {
            process.command.starts_with(env!("CARGO_BIN_EXE_sealane"))
        };
        all.iter().find(ours).expect("it runs").pid
    }

    /// Waits for the end of it: everything shown. The terminal is as it was.
    fn ends(mut self) -> String {
        wait_until("the end", SOON, || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}: {}", self.shown())),
        });
        let read = |name: &str| fs::read_to_string(self.path(name)).expect(name);
        let shown = self.shown();
        assert_eq!(read("code").trim(), "0", "{shown}");
        assert_eq!(read("after"), read("before"), "{shown}");
        shown
    }
}

#[test]
fn a_terminal_shows_the_planet_and_its_keys_act() {
    let _turn = Turn::alone();
    let Some(mut terminal) = Terminal::start("", "xterm") else {
        return skip("the live view", "script (bsdutils)");
    };
    terminal.sees(KEYS);
    terminal.sees("par.fabric  ");
    terminal.press("e");
    terminal.sees("kill which endpoint?");
    terminal.press("1");
    let killed = terminal.measured("cart-1.aws killed");
    assert!(killed.contains("killed: 0 of "), "{killed}");
    terminal.press("u");
    terminal.measured("cart-1.aws started again");
    // The first line: of aws to par.
    terminal.press("l");
    terminal.sees("cut which line?");
    terminal.press("1");
    terminal.measured("aws-par cut");
    terminal.press("u");
    terminal.measured("aws-par healed");
    terminal.press("q");
    let shown = terminal.ends();
    let (before, rest) = shown.split_once(ENTER).expect("the other screen");
    assert!(before.contains("Ctrl-C stops everything"), "{shown}");
    let (_, after) = rest.split_once(LEAVE).expect("and back");
    assert_eq!(after.trim(), "stopping", "{shown}");
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let _turn = Turn::beside();
    let Some(terminal) = Terminal::start("", "xterm") else {
        return skip("the live view", "script (bsdutils)");
    };
    terminal.sees(KEYS);
    kit::process::signal(terminal.up(), Signal::TERM);
    let shown = terminal.ends();
    assert!(shown.contains(LEAVE), "{shown}");
}

#[test]
fn without_a_live_view_a_terminal_gets_lines() {
    let _turn = Turn::beside();
    for (arguments, term) in [("--no-live", "xterm"), ("", "dumb")] {
        let Some(mut terminal) = Terminal::start(arguments, term) else {
            return skip("the live view", "script (bsdutils)");
        };
        terminal.sees("Ctrl-C stops everything.");
        // As somebody at the keyboard does.
        terminal.press("\x03");
        let shown = terminal.ends();
        assert!(
            !shown.contains(ENTER) && shown.contains("stopping"),
            "{shown}"
        );
    }
}
