//! The machine by itself, with octets carried by hand; and connections over TLS between threads.

mod aside;
mod bulk;
mod machine;
mod threads;
mod wire;
