//! Follows the requests and responses of one connection, to find the responses to container starts: pure.
//!
//! Whatever is not understood, and everything after it, is passed on as it is: then nothing is held back
//! any more. The same goes for a connection that is upgraded or whose response ends with it.

use std::collections::VecDeque;

use super::framing::{Body, Fields, Head, Malformed, Progress};

/// One connection between a docker client and docker.
#[derive(Debug)]
pub(super) struct Exchange {
    sent: Side,
    received: Side,
    /// Requests without a response so far, oldest first.
    waiting: VecDeque<Asked>,
    /// The container of the start that was found last and has not been told.
    asked_now: Option<String>,
    /// What docker answered to a start and the client has not been given.
    held: Vec<u8>,
}

/// How far one direction is.
#[derive(Debug)]
enum Side {
    Head(Head),
    Body(Body),
    /// Not looked at any more.
    Opaque,
}

impl Side {
    fn head() -> Self {
        Self::Head(Head::default())
    }
}

/// What a response depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// HEAD: the response has no body, whatever it says.
    OnlyHead,
    /// CONNECT, or an upgrade: what follows the response may be anything.
    Tunnel,
    /// Start, or restart, of the container with this id or name.
    Start(String),
    Other,
}

/// Most requests that a client sends ahead; with more the connection is not followed any longer.
const MOST_AHEAD: usize = 1000;

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            sent: Side::head(),
            received: Side::head(),
            waiting: VecDeque::new(),
            asked_now: None,
            held: Vec::new(),
        }
    }

    /// Whether nothing will be held back any more.
    pub(super) fn is_opaque(&self) -> bool {
        matches!(self.received, Side::Opaque) && self.held.is_empty()
    }

    /// The client sent these bytes; returns how many were looked at, and the container whose start is
    /// asked for by them. They are docker's, in any case.
    pub(super) fn sent(&mut self, bytes: &[u8]) -> (usize, Option<String>) {
        if matches!(self.received, Side::Opaque) {
            return (bytes.len(), None);
        }
        let mut at = 0;
        while at < bytes.len() {
            match self.follow_sent(&bytes[at..]) {
                Ok(taken) => at += taken,
                Err(Malformed) => {
                    self.sent = Side::Opaque;
                    continue;
                }
            }
            if let Some(container) = self.asked_now.take() {
                return (at, Some(container));
            }
        }
        (at, None)
    }

    fn follow_sent(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match &mut self.sent {
            Side::Opaque => Ok(bytes.len()),
            Side::Body(body) => {
                let (taken, progress) = body.take(bytes)?;
                if progress == Progress::Complete {
                    self.sent = Side::head();
                }
                Ok(taken)
            }
            Side::Head(head) => {
                let (taken, progress) = head.take(bytes)?;
                if progress == Progress::Incomplete {
                    return Ok(taken);
                }
                let (asked, fields) = request(head)?;
                if self.waiting.len() >= MOST_AHEAD {
                    return Err(Malformed);
                }
                self.sent = match asked {
                    // The client may go on with another protocol before it has an answer.
                    Asked::Tunnel => Side::Opaque,
                    _ => body(fields).map_or_else(Side::head, Side::Body),
                };
                if let Asked::Start(container) = &asked {
                    self.asked_now = Some(container.clone());
                }
                self.waiting.push_back(asked);
                Ok(taken)
            }
        }
    }

    /// Docker sent these bytes. What may go to the client is appended to `out`; returns how many bytes
    /// were looked at, and the container whose start succeeded there, if one did. Then the answer is
    /// held back until [`release`](Self::release) or [`replace`](Self::replace).
    pub(super) fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> (usize, Option<String>) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let step = match &mut self.received {
                Side::Opaque => Ok((rest.len(), Progress::Incomplete)),
                Side::Body(body) => body.take(rest),
                // An answer to nothing.
                Side::Head(_) if self.waiting.is_empty() => Err(Malformed),
                Side::Head(head) => head.take(rest),
            };
            let Ok((taken, progress)) = step else {
                self.received = Side::Opaque;
                self.release(out);
                continue;
            };
            let destination = if self.holds() {
                &mut self.held
            } else {
                &mut *out
            };
            destination.extend_from_slice(&rest[..taken]);
            at += taken;
            if progress == Progress::Complete
                && let Some(container) = self.completed(out)
            {
                return (at, Some(container));
            }
        }
        (at, None)
    }

    fn holds(&self) -> bool {
        let is_start = matches!(self.waiting.front(), Some(Asked::Start(_)));
        is_start && matches!(self.received, Side::Head(_))
    }

    /// A head or a body of docker's is complete.
    fn completed(&mut self, out: &mut Vec<u8>) -> Option<String> {
        let Side::Head(head) = &self.received else {
            self.received = Side::head();
            return None;
        };
        let response = response(head);
        let (status, fields) = match response {
            // The response proper follows.
            Ok((100 | 102..=199, _)) => {
                self.received = Side::head();
                self.release(out);
                return None;
            }
            Ok(response) => response,
            Err(Malformed) => {
                self.received = Side::Opaque;
                self.release(out);
                return None;
            }
        };
        let asked = self.waiting.pop_front();
        self.received = match (status, &asked) {
            (101, _) | (200..=299, Some(Asked::Tunnel)) => Side::Opaque,
            (204 | 304, _) | (_, Some(Asked::OnlyHead)) => Side::head(),
            // Without a length it ends with the connection.
            _ if !fields.is_chunked && fields.length.is_none() => Side::Opaque,
            _ => body(fields).map_or_else(Side::head, Side::Body),
        };
        match (status, asked) {
            (204, Some(Asked::Start(container))) => Some(container),
            _ => {
                self.release(out);
                None
            }
        }
    }

    /// Passes on what was held.
    pub(super) fn release(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Passes on `answer` instead of what was held.
    pub(super) fn replace(&mut self, answer: &[u8], out: &mut Vec<u8>) {
        self.held.clear();
        out.extend_from_slice(answer);
    }
}

/// Reads the head of a request.
fn request(head: &Head) -> Result<(Asked, Fields), Malformed> {
    let [method, target, version] = head.first_line()?;
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(Malformed);
    }
    let fields = head.fields()?;
    let asked = match method {
        _ if fields.upgrades => Asked::Tunnel,
        "CONNECT" => Asked::Tunnel,
        "HEAD" => Asked::OnlyHead,
        "POST" => started(target).map_or(Asked::Other, Asked::Start),
        _ => Asked::Other,
    };
    Ok((asked, fields))
}

/// The container that a request to this target starts: `/containers/ID/start` or `restart`, with or
/// without a version before and a query behind it.
fn started(target: &str) -> Option<String> {
    let path = target.split('?').next()?;
    let mut segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let is_version = |segment: &&str| {
        let number = segment.strip_prefix('v');
        number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    };
    if segments.first().is_some_and(is_version) {
        segments.remove(0);
    }
    match segments[..] {
        ["containers", id, "start" | "restart"] => {
            // Nothing that would have to be decoded: no id and no name needs it.
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            (!id.is_empty() && id.chars().all(plain)).then(|| id.to_owned())
        }
        _ => None,
    }
}

/// Reads the head of a response.
fn response(head: &Head) -> Result<(u16, Fields), Malformed> {
    let [version, status, _] = head.first_line()?;
    let is_http = matches!(version, "HTTP/1.1" | "HTTP/1.0");
    match status.parse() {
        Ok(number @ 100..=999) if is_http && status.len() == 3 => Ok((number, head.fields()?)),
        _ => Err(Malformed),
    }
}

/// The body that a head announces.
fn body(fields: Fields) -> Option<Body> {
    match fields.length {
        _ if fields.is_chunked => Some(Body::ChunkSize(Vec::new())),
        Some(0) | None => None,
        Some(length) => Some(Body::Length(length)),
    }
}

#[cfg(test)]
mod tests;
