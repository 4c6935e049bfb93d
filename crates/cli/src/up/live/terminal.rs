//! The terminal: a screen of our own, keys as they are pressed, and everything as it was afterwards.
//!
//! Lines and echo are off, signals are on: Ctrl-C is SIGINT here as everywhere. What restores it: the
//! end of [`Terminal`], which also comes with SIGINT or SIGTERM, which end `up`, and with a panic; before a panic
//! speaks, its hook has left the screen.

use std::io::{self, IsTerminal, Write};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the corner, and after a line and after the last one: what was there goes.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\n";
const END: &str = "\x1b[J";
/// What turns a control character off (`_POSIX_VDISABLE`).
const OFF: u8 = 0;
/// Keys that wait; whoever reads them waits when there are more.
const PRESSED: usize = 16;
/// A terminal that does not say how large it is.
const SIZE: (usize, usize) = (80, 24);

/// A terminal that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
    keys: mpsc::Receiver<Vec<u8>>,
}

/// Does somebody sit there?
pub(crate) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !is_dumb && io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Terminal {
    /// Takes the terminal of standard input and output.
    pub(super) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut ours = before.clone();
        ours.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        // Reading waits for a tenth of a second, so that whoever reads notices that it is to end.
        ours.special_codes[SpecialCodeIndex::VMIN] = 0;
        ours.special_codes[SpecialCodeIndex::VTIME] = 1;
        // Whoever suspends or quits by them would leave the terminal as it is now.
        ours.special_codes[SpecialCodeIndex::VSUSP] = OFF;
        ours.special_codes[SpecialCodeIndex::VQUIT] = OFF;
        tcsetattr(io::stdin(), OptionalActions::Drain, &ours)?;
        let (pressed, keys) = mpsc::channel(PRESSED);
        let terminal = Terminal { before, keys };
        let keyboard = std::thread::Builder::new().name("keys".to_owned());
        keyboard.spawn(move || listen(&pressed))?;
        write(ENTER)?;
        let speak = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Not by way of the lock, which another thread may hold.
            rustix::io::write(io::stdout(), LEAVE.as_bytes()).ok();
            speak(panic);
        }));
        Ok(terminal)
    }

    /// Columns and lines.
    pub(super) fn size() -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            Ok(_) | Err(_) => SIZE,
        }
    }

    /// The keys that are pressed next; none when the terminal is gone. Cancel safe.
    pub(super) async fn keys(&mut self) -> Option<Vec<u8>> {
        self.keys.recv().await
    }

    /// Shows lines instead of those before.
    pub(super) fn show(lines: &[String]) -> io::Result<()> {
        write(&format!("{HOME}{}{END}", lines.join(END_OF_LINE)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nobody is left to be told that the terminal is gone.
        write(LEAVE).ok();
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).ok();
    }
}

/// Reads keys until nobody wants them any more.
fn listen(pressed: &mpsc::Sender<Vec<u8>>) {
    let mut octets = [0; 64];
    while !pressed.is_closed() {
        match rustix::io::read(io::stdin(), &mut octets) {
            // Nothing for a tenth of a second; a terminal that is gone says so.
            Ok(0) if tcgetattr(io::stdin()).is_ok() => {}
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return,
            Ok(n) => {
                let keys = octets.get(..n).unwrap_or_default().to_vec();
                if pressed.blocking_send(keys).is_err() {
                    return;
                }
            }
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}
