//! RFC 9113, rule by rule, over raw frames: what a server has to do about what a client may not
//! do, and, in `endpoint`, what a client has to do about a server. A test's name begins with the
//! section. Each is a row: frames, and what comes of them.

/// Rows of `name: [frames] => expectation`, a test each.
macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident: [$($frame:expr),* $(,)?] => $expect:expr;)*) => {
        $(
            $(#[$doc])*
            #[tokio::test]
            async fn $name() {
                crate::tests::rfc9113::wire::check(&[$($frame),*], $expect).await;
            }
        )*
    };
}

mod endpoint;
mod floods;
mod flow;
mod frames;
mod http;
mod kinds;
mod starting;
mod streams;
pub(super) mod wire;
