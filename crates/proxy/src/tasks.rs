//! The tasks of the proxy and the queues between them.
//!
//! ```text
//!            node (any thread)
//!   store()    set_listeners()  serve_stream()     endpoint_down()         events
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
//! A socket for datagrams has one task, and each flow one of its own, to which 64 datagrams wait;
//! more are dropped and counted.
//!
//! Nothing is shared between workers but the snapshot, the endpoints' counters and the metrics.
//! A worker takes no lock and never waits for the node. Within a connection there is one task
//! that reads and writes both sides in turn, so backpressure is a matter of not polling: a side
//! that cannot take more (64 KiB unsent) is not given more, and then the other is not read.
//!
//! Drain: listeners stop, HTTP/2 says GOAWAY, running requests finish, idle connections get a while
//! for one more request, whose answer says that it was the last, and what is left at the deadline
//! is dropped. News of endpoints is taken to the end.
