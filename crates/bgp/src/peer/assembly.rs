//! From octets to messages: whole ones are borrowed, only a torn one is kept.

use crate::wire::{self, MAX_MESSAGE, MessageKind, Notification};

/// What became of the octets.
pub(super) enum Piece<'a> {
    /// A message.
    Whole(Message<'a>),
    /// More octets are needed; these are all taken.
    Torn,
    /// There is no message here and never will be.
    Bad(Notification),
}

/// One message: kind and body.
pub(super) struct Message<'a> {
    pub(super) kind: MessageKind,
    pub(super) body: &'a [u8],
}

/// The start of a message whose end has not come yet; never more than one message.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    torn: Vec<u8>,
    /// `torn` is a whole message that was lent out.
    lent: bool,
}

impl Assembly {
    /// Take one message off the front of `octets`, or all of them if they do not make one.
    /// `longest` bounds what is accepted and so what is kept; an OPEN and a KEEPALIVE are never
    /// longer than 4096 octets (RFC 8654 §3).
    pub(super) fn take<'p, 'o: 'p>(
        &'p mut self,
        octets: &mut &'o [u8],
        longest: usize,
    ) -> Piece<'p> {
        if std::mem::take(&mut self.lent) {
            self.torn.clear();
            self.torn.shrink_to(MAX_MESSAGE);
        }
        if self.torn.is_empty() {
            return match wire::frame(octets, longest) {
                Ok(Some((kind, length))) => {
                    let (message, rest) = octets.split_at(length);
                    *octets = rest;
                    whole(kind, message)
                }
                Ok(None) => {
                    self.torn.extend_from_slice(octets);
                    *octets = &[];
                    Piece::Torn
                }
                Err(notification) => Piece::Bad(notification),
            };
        }
        loop {
            let wanted = wanted(&self.torn, longest).saturating_sub(self.torn.len());
            let (head, rest) = octets.split_at(wanted.min(octets.len()));
            self.torn.extend_from_slice(head);
            *octets = rest;
            match wire::frame(&self.torn, longest) {
                Ok(Some((kind, _))) => {
                    self.lent = true;
                    return whole(kind, &self.torn);
                }
                Ok(None) if octets.is_empty() => return Piece::Torn,
                // The header is there now; go on to the end it tells.
                Ok(None) => {}
                Err(notification) => return Piece::Bad(notification),
            }
        }
    }

    /// How many octets are kept.
    pub(super) const fn kept(&self) -> usize {
        if self.lent { 0 } else { self.torn.len() }
    }
}

fn whole(kind: MessageKind, message: &[u8]) -> Piece<'_> {
    Piece::Whole(Message {
        kind,
        body: &message[wire::HEADER..],
    })
}

/// How long the message that begins so is to its header, or, once that is there, to its end.
fn wanted(torn: &[u8], longest: usize) -> usize {
    match torn.get(..wire::HEADER) {
        Some(header) => usize::from(u16::from_be_bytes([header[16], header[17]])).min(longest),
        None => wire::HEADER,
    }
}
