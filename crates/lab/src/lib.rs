//! The laboratory: what stands between and behind the sites when a whole planet runs on one
//! machine.
//!
//! What it is: [`relay`] is the distance between sites, a TCP relay that delivers every byte
//! half a round trip later and can be told to cut or to fall silent; [`demo`] is an
//! application that says who it is and can be told to be slow or sick; [`load`] is its users, who
//! ask at a steady rate and remember what became of it; [`topology`] says which
//! sites, applications and round trips `up` starts and on which loopback addresses. The same
//! planet in network namespaces is [`world`]: sites behind NAT, with [`wan`] between them, which
//! carries packets and can delay, lose and cut; [`netns`] makes namespaces, and [`publish`] opens
//! doors into them.
//!
//! What it is not: it knows nothing of Sealane's own protocols, and it is not on the way of any
//! production byte.
//!
//! The way of a byte through the relay: accepted socket → [`relay`] stamps it on arrival and
//! queues it (at most [`relay::QUEUE_BOUND`] bytes a direction, then reading stops) → after
//! the pair's one-way delay it is written to the other socket. FIN and RST travel the same way.
//!
//! ```no_run
//! use std::time::Duration;
//! # async fn example() -> Result<(), lab::relay::RelayError> {
//! let config = lab::relay::Config {
//!     control: None,
//!     pairs: vec![lab::relay::Pair {
//!         name: "aws-par".to_owned(),
//!         listen: "127.80.1.100:17443".parse().expect("an address"),
//!         target: "127.80.1.10:17443".parse().expect("an address"),
//!         one_way: Duration::from_micros(2_500),
//!     }],
//! };
//! lab::relay::Relay::bind(config)?.run().await;
//! # Ok(())
//! # }
//! ```

mod control;
pub mod demo;
pub mod load;
pub mod netns;
pub mod publish;
pub mod relay;
mod tasks;
mod timer;
pub mod topology;
pub mod wan;
pub mod world;
