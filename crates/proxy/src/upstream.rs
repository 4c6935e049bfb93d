//! Toward the endpoints: dialling, connections, the pool of idle ones, and the tries that wait.

pub(crate) mod conn;
pub(crate) mod connect;
mod h1;
pub(crate) mod h2;
pub(crate) mod pool;
pub(crate) mod tunnels;
pub(crate) mod waiting;

pub(crate) use conn::{RecvError, UpConn, Via};
pub(crate) use pool::{Pool, PoolKey};
pub(crate) use waiting::{Target, Waiting};
