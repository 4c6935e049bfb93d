//! Waiting and telling.

use std::{fmt::Display, io::Write, time::Duration};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks `look` until it says `Ok`, every 10 ms, and returns what it found and how long it took.
///
/// # Panics
/// With what `look` said last, when `bound` has passed.
pub fn wait_until<T, E: Display>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> (T, Duration) {
    let began = runtime::now();
    loop {
        let last = match look() {
            Ok(found) => return (found, runtime::now().since(began)),
            Err(last) => last,
        };
        assert!(
            runtime::now().since(began) < bound,
            "{what}: not within {bound:?}; last: {last}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// Prints one measured figure as a line `figure: …`, also when the test runner captures output.
pub fn figure(text: impl Display) {
    // One write: lines of parallel tests stay whole. Nobody to tell if it fails.
    let line = format!("figure: {text}\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
}
