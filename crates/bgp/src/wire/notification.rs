//! NOTIFICATION (RFC 4271 §4.5) and the names of its codes.

use std::fmt;

use bytes::Bytes;

use crate::cursor::len8;

use super::{HEADER, MAX_MESSAGE, MessageKind, message};

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// What the code says it carries; at most 258 octets are kept: a shutdown text inside a hard reset.
    pub data: Vec<u8>,
}

impl Notification {
    /// Cease, administrative shutdown (RFC 4486).
    pub const SHUTDOWN: (u8, u8) = (6, 2);
    /// Cease: BFD down (RFC 9384).
    pub const BFD_DOWN: (u8, u8) = (6, 10);
    /// Cease, administrative reset (RFC 4486).
    pub const RESET: (u8, u8) = (6, 4);
    /// Hold timer expired.
    pub const HOLD_TIMER: (u8, u8) = (4, 0);
    /// Send hold timer expired (RFC 9687).
    pub const SEND_HOLD_TIMER: (u8, u8) = (8, 0);
    const KEPT: usize = 258;

    /// A notification without data.
    #[must_use]
    pub const fn new(code: u8, subcode: u8) -> Self {
        Notification {
            code,
            subcode,
            data: Vec::new(),
        }
    }

    /// A notification with the start of `data`.
    #[must_use]
    pub fn with_data(code: u8, subcode: u8, data: &[u8]) -> Self {
        Notification {
            code,
            subcode,
            data: data.iter().take(Self::KEPT).copied().collect(),
        }
    }

    /// Administrative shutdown, and why (RFC 9003): at most 255 octets of `text`.
    #[must_use]
    pub fn shutdown(text: &str) -> Self {
        Self::with_text(Self::SHUTDOWN, text)
    }

    /// Administrative reset, and why (RFC 9003): at most 255 octets of `text`.
    #[must_use]
    pub fn reset(text: &str) -> Self {
        Self::with_text(Self::RESET, text)
    }

    fn with_text((code, subcode): (u8, u8), text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(255)];
        let mut data = vec![len8(text.len())];
        data.extend_from_slice(text.as_bytes());
        Self::with_data(code, subcode, &data)
    }

    /// The operator's words in a shutdown or reset (RFC 9003 §2), without control characters.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let told = [Self::SHUTDOWN, Self::RESET].contains(&(self.code, self.subcode));
        let (length, rest) = self.data.split_first().filter(|_| told)?;
        let text = rest.get(..usize::from(*length))?;
        let text = String::from_utf8_lossy(text);
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        (!text.is_empty()).then_some(text)
    }

    /// Read the body of a NOTIFICATION; too short a body reads as zeros.
    #[must_use]
    pub fn decode(body: &[u8]) -> Self {
        let at = |i: usize| body.get(i).copied().unwrap_or(0);
        Self::with_data(at(0), at(1), body.get(2..).unwrap_or_default())
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = vec![self.code, self.subcode];
        body.extend(self.data.iter().take(MAX_MESSAGE - HEADER - 2));
        message(MessageKind::Notification, &body)
    }

    /// The name of the code, for logs.
    #[must_use]
    pub const fn name(&self) -> NotificationName {
        match self.code {
            1 => NotificationName::Header,
            2 => NotificationName::Open,
            3 => NotificationName::Update,
            4 => NotificationName::HoldTimer,
            5 => NotificationName::StateMachine,
            6 => NotificationName::Cease,
            7 => NotificationName::RouteRefresh,
            8 => NotificationName::SendHoldTimer,
            _ => NotificationName::Other,
        }
    }
}

impl From<(u8, u8)> for Notification {
    fn from((code, subcode): (u8, u8)) -> Self {
        Notification::new(code, subcode)
    }
}

/// The error codes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationName {
    /// 1, message header error.
    Header,
    /// 2, OPEN message error.
    Open,
    /// 3, UPDATE message error.
    Update,
    /// 4, hold timer expired.
    HoldTimer,
    /// 5, finite state machine error (RFC 6608).
    StateMachine,
    /// 6, cease (RFC 4486).
    Cease,
    /// 7, ROUTE-REFRESH message error (RFC 7313).
    RouteRefresh,
    /// 8, send hold timer expired (RFC 9687).
    SendHoldTimer,
    /// None of these.
    Other,
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.name() {
            NotificationName::Header => "message header error",
            NotificationName::Open => "OPEN message error",
            NotificationName::Update => "UPDATE message error",
            NotificationName::HoldTimer => "hold timer expired",
            NotificationName::StateMachine => "finite state machine error",
            NotificationName::Cease => "cease",
            NotificationName::RouteRefresh => "ROUTE-REFRESH message error",
            NotificationName::SendHoldTimer => "send hold timer expired",
            NotificationName::Other => "unknown error",
        };
        write!(f, "{name} ({}/{})", self.code, self.subcode)?;
        match self.text() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}
