//! The controller through its two doors: the API and the fabric listener, over real sockets.

mod api_door;
mod fabric_door;
mod harness;
mod seed;
