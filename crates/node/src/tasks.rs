//! The threads of a node, their tasks and the queues between them.
//!
//! ```text
//!  main ── admin socket ──queries(16)──▶ data
//!
//!  thread data: brain ◀─ tunnel events(64), routes(16), site-sync down(256), proxy events(1024),
//!                        compiled(16), ticks        ─▶ workers: snapshot (one pointer), listeners,
//!               site-sync (to control)                 endpoint cells, endpoint down
//!               speaker ◀─ one BGP session ─▶ control
//!               control-stream … (spliced, one a stream)
//!  thread control: brain ◀─ probed, compiled(1024), tap(1024), timers
//!               probe … (one an endpoint), speaker, bgp-neighbor … (one a neighbour)
//!               sync-downstream …, sync-uplink … (lines 64)
//!  thread tunnel (twice: the links between sites, and the one between the halves)
//!  threads proxy-N: see `proxy::tasks`
//!  As two processes, each has a main of its own: node-sock in data takes the pipes of control's
//!  link (8 halves of links at most), and control waits for a data part and works as long as it lives.
//! ```
//! | queue | full |
//! |---|---|
//! | queries | the admin client waits |
//! | routes, compiled, probed, tap, site-sync down | the sender waits |
//! | site-sync up | the line is dropped: status and acknowledgements are said again |
//! | proxy events | dropped and counted: the prober finds out by itself |
