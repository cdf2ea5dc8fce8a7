//! Fields of packets: big-endian numbers, and byte strings behind their length.

use bytes::{Buf as _, Bytes};

/// The bytes are no packet of the kind expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub struct Malformed;

/// A packet with its length in front, ready to be sent.
///
/// The content of a file is not copied into the packet: it is sent behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    head: Vec<u8>,
    tail: Bytes,
}

impl Frame {
    pub(crate) fn new(kind: u8) -> Self {
        let mut head = Vec::with_capacity(64);
        head.extend([0, 0, 0, 0, kind]);
        Self {
            head,
            tail: Bytes::new(),
        }
    }

    /// Appends bytes behind their length; they must be the last field.
    pub(crate) fn put_last(&mut self, bytes: Bytes) {
        length(bytes.len()).put(self);
        self.tail = bytes;
    }

    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.head.extend_from_slice(bytes);
    }

    /// The first part of the frame, with its length, and the part behind it, which may be empty.
    #[must_use]
    pub fn into_parts(mut self) -> (Vec<u8>, Bytes) {
        let length = length(self.head.len() - 4 + self.tail.len());
        self.head[..4].copy_from_slice(&length.to_be_bytes());
        (self.head, self.tail)
    }

    /// The frame without its length, as the receiver decodes it.
    #[must_use]
    pub fn payload(self) -> Bytes {
        let (mut head, tail) = self.into_parts();
        head.drain(..4);
        head.extend_from_slice(&tail);
        head.into()
    }
}

/// Lengths are limited far below 4 GiB where packets are made.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A value with a place in a packet.
pub trait Field: Sized {
    /// Appends the value.
    fn put(&self, frame: &mut Frame);

    /// Takes a value off the front.
    ///
    /// # Errors
    ///
    /// The bytes do not begin with one.
    fn take(bytes: &mut Bytes) -> Result<Self, Malformed>;
}

impl Field for u8 {
    fn put(&self, frame: &mut Frame) {
        frame.put_raw(&[*self]);
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        bytes.try_get_u8().map_err(|_| Malformed)
    }
}

impl Field for u32 {
    fn put(&self, frame: &mut Frame) {
        frame.put_raw(&self.to_be_bytes());
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        bytes.try_get_u32().map_err(|_| Malformed)
    }
}

impl Field for u64 {
    fn put(&self, frame: &mut Frame) {
        frame.put_raw(&self.to_be_bytes());
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        bytes.try_get_u64().map_err(|_| Malformed)
    }
}

impl Field for i64 {
    fn put(&self, frame: &mut Frame) {
        frame.put_raw(&self.to_be_bytes());
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        bytes.try_get_i64().map_err(|_| Malformed)
    }
}

impl Field for Bytes {
    fn put(&self, frame: &mut Frame) {
        length(self.len()).put(frame);
        frame.put_raw(self);
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        let length = u32::take(bytes)? as usize;
        if length > bytes.len() {
            return Err(Malformed);
        }
        Ok(bytes.split_to(length))
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, frame: &mut Frame) {
        match self {
            None => 0u8.put(frame),
            Some(value) => {
                1u8.put(frame);
                value.put(frame);
            }
        }
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        match u8::take(bytes)? {
            0 => Ok(None),
            1 => T::take(bytes).map(Some),
            _ => Err(Malformed),
        }
    }
}

/// A count and that many values. A value has at least one byte, so the count is checked before
/// anything is allocated.
impl<T: Field> Field for Vec<T> {
    fn put(&self, frame: &mut Frame) {
        length(self.len()).put(frame);
        for value in self {
            value.put(frame);
        }
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        let count = u32::take(bytes)? as usize;
        if count > bytes.len() {
            return Err(Malformed);
        }
        // Values grow in memory: room is made as they come, not for the count that was claimed.
        let mut values = Self::with_capacity(count.min(64));
        for _ in 0..count {
            values.push(T::take(bytes)?);
        }
        Ok(values)
    }
}

/// Makes a structure a field: its fields in order.
macro_rules! fields {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::sftp::Field for $name {
            fn put(&self, frame: &mut $crate::sftp::Frame) {
                $($crate::sftp::Field::put(&self.$field, frame);)*
            }

            fn take(bytes: &mut bytes::Bytes) -> Result<Self, $crate::sftp::Malformed> {
                Ok(Self { $($field: $crate::sftp::Field::take(bytes)?),* })
            }
        }
    };
}

/// Makes an enumeration without data a field: one byte.
macro_rules! byte_enum {
    ($name:ident { $($variant:ident = $value:literal),* $(,)? }) => {
        impl $crate::sftp::Field for $name {
            fn put(&self, frame: &mut $crate::sftp::Frame) {
                let byte: u8 = match self { $(Self::$variant => $value),* };
                $crate::sftp::Field::put(&byte, frame);
            }

            fn take(bytes: &mut bytes::Bytes) -> Result<Self, $crate::sftp::Malformed> {
                match <u8 as $crate::sftp::Field>::take(bytes)? {
                    $($value => Ok(Self::$variant),)*
                    _ => Err($crate::sftp::Malformed),
                }
            }
        }
    };
}

pub(crate) use {byte_enum, fields};
