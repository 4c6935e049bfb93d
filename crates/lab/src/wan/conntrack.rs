//! What a router remembers of connections.

use std::io::{self, Read, Write};

use socket2::{Protocol, Socket, Type};

/// Of a message's own header and that of netfilter behind it, in octets.
const LENGTH: u8 = 20;
/// `NLMSG_ERROR`, which with the error 0 says yes (netlink(7)).
const ERROR: u16 = 2;

/// Forgets all connections of this thread's network namespace.
///
/// The message is `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK` without a tuple
/// (linux/netfilter/nfnetlink_conntrack.h).
pub(super) fn flush() -> io::Result<()> {
    let netfilter = Protocol::from(libc::NETLINK_NETFILTER);
    let mut socket = Socket::new(libc::AF_NETLINK.into(), Type::RAW, Some(netfilter))?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let mut message = Vec::with_capacity(LENGTH.into());
    message.extend_from_slice(&u32::from(LENGTH).to_ne_bytes());
    // Which message, of which subsystem.
    message.extend_from_slice(&u16::from_be_bytes([1, 2]).to_ne_bytes());
    // `NLM_F_REQUEST | NLM_F_ACK`.
    message.extend_from_slice(&5_u16.to_ne_bytes());
    // Its number, and whose it is; then any family, version 0 and resource 0.
    message.resize(LENGTH.into(), 0);
    socket.write_all(&message)?;
    let mut answer = [0; 256];
    let length = socket.read(&mut answer)?;
    let answer = answer.get(..length).unwrap_or_default();
    let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok());
    let code = answer.get(16..20).and_then(|code| code.try_into().ok());
    match (kind.map(u16::from_ne_bytes), code.map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
