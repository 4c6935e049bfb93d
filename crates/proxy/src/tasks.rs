//! The tasks of the proxy and the queues between them.
//!
//! ```text
//!            node (any thread)
//!   store()    set_listeners()  serve_stream/trunk()  endpoint_down()      events
//!     │               │               │                   │                  ▲
//!  ArcSwap       commands (1024 a worker)          news (4096 a worker)   1024, all workers
//!     │               │  full: wait /  │ full: 503        │ full: flag,      │ full: drop,
//!     │               │                │                  │ all look again   │ count
//!  ┌──┼───────────────▼────────────────▼──────────────────▼──────────────────┼─────────┐
//!  │  │           main task of worker 0 … n−1 (a thread each)                │         │
//!  │  │               │                │                  │ wakes            │         │
//!  │  │          listener × address  stream × tunnel   waiting tries      reaper       │
//!  │  │               │                stream             ▲               (idle        │
//!  │  │          connection × client     │                │                connections)│
//!  │  └─ read at ─▶ exchange ◀───────────┘ ── registers ──┘                  │         │
//!  │    each request  │ h2: a task a stream                                  │         │
//!  │                  └──────────── takes from, puts into ────────▶ pool ◀───┘         │
//!  └──────────────────┼────────────────────────────────────────────────────────────────┘
//!                     ▼ records (8192, all workers; full: drop, count)
//!                access-log thread
//! ```
//!
//! A socket for QUIC has an endpoint of the `quinn` crate, which has a task for itself and one a
//! connection; a connection's streams are one task of ours, as with HTTP/2. At a socket 256 clients
//! wait to be looked at, and 256 datagrams that came to another worker; more are dropped. Within
//! `quinn` events go from an endpoint to its connections without a bound of their own: as many as
//! datagrams are read in one turn. When an address is given up, each connection gets a socket of
//! its own, with a task that hands on what comes to it.
//!
//! A data connection of a link (`tunnel::Trunk`) is a task of one worker, outside of turns: what it
//! reads it gives to its streams, each served as one from the tunnels' thread, and what these write
//! it sends. It ends when all else has.
//!
//! A socket for datagrams has one task, and each flow one of its own, to which 64 datagrams wait;
//! more are dropped and counted.
//!
//! Nothing is shared between workers but the inboxes for datagrams of QUIC, the snapshot, the endpoints' counters and the metrics.
//! A worker takes no lock and never waits for the node. Within a connection there is one task
//! that reads and writes both sides in turn, so backpressure is a matter of not polling: a side
//! that cannot take more (64 KiB unsent) is not given more, and then the other is not read.
//!
//! Drain: listeners stop, HTTP/2 and HTTP/3 say GOAWAY, running requests finish, idle connections
//! get a while for one more request, whose answer says that it was the last, and what is left at
//! the deadline is dropped. News of endpoints is taken to the end.
