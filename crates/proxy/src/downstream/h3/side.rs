//! A client's unidirectional streams.

use std::{future::poll_fn, rc::Rc};

use quinn::{ReadError, RecvStream};

use super::{Shared, error};
use crate::http3::{
    Code,
    control::{self, Decoder, Purpose},
    frame::varint,
};

/// The longest type of a stream.
const TYPE: usize = 8;

/// Read one until it ends, which those that matter must not (RFC 9114 §6.2.1).
pub(super) async fn read(shared: Rc<Shared>, mut recv: RecvStream) {
    let Some(kind) = kind(&mut recv).await else {
        return;
    };
    let purpose = Purpose::of(kind);
    let good = match purpose {
        Ok(Purpose::Unknown) => {
            // It may be gone already.
            let _ = recv.stop(error(Code::StreamCreationError));
            return;
        }
        Ok(purpose) => first(&shared, purpose),
        Err(code) => Err(code),
    };
    let mut decoder = Decoder::default();
    let mut take = |octets: &[u8]| match purpose {
        Ok(Purpose::Control) => shared.control.borrow_mut().read(octets),
        Ok(Purpose::Encoder) => control::encoder(octets),
        Ok(Purpose::Decoder) => decoder.read(octets),
        Ok(Purpose::Unknown) | Err(_) => Ok(()),
    };
    let mut taken = good;
    while taken.is_ok() {
        taken = match recv.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => take(&chunk.bytes),
            Ok(None) | Err(ReadError::Reset(_)) => Err(Code::ClosedCriticalStream),
            // The connection is over.
            Err(_) => return,
        };
    }
    if let Err(code) = taken {
        shared.refuse(code);
    }
}

/// There is one of each (RFC 9114 §6.2.1, RFC 9204 §4.2).
fn first(shared: &Shared, purpose: Purpose) -> Result<(), Code> {
    let bit = 1 << purpose as u8;
    let before = shared.sides.replace(shared.sides.get() | bit);
    let new = before & bit == 0;
    new.then_some(()).ok_or(Code::StreamCreationError)
}

/// What it is for. One that ends before says nothing (RFC 9114 §6.2).
async fn kind(recv: &mut RecvStream) -> Option<u64> {
    let mut octets = [0; TYPE];
    let mut have = 0;
    loop {
        // Octet by octet: it may come in pieces, and says itself how long it is.
        let room = octets.get_mut(have..=have)?;
        have += poll_fn(|cx| recv.poll_read(cx, room))
            .await
            .ok()
            .filter(|n| *n > 0)?;
        if let Some((kind, _)) = varint(octets.get(..have)?) {
            return Some(kind);
        }
    }
}
