//! Where the messages of an HTTP/1.1 connection begin and end (RFC 9112): pure, and fed in any pieces.

/// A longer head or chunk line is somebody's mistake or attack; it is passed on and not understood.
const LONGEST_HEAD: usize = 64 << 10;

/// The bytes make no sense as HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Collects a head.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    line_start: usize,
}

impl Head {
    /// Takes bytes up to the end of the head; says how many, and whether that is where it ends.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Progress), Malformed> {
        for (index, byte) in bytes.iter().enumerate() {
            self.bytes.push(*byte);
            if *byte == b'\n' {
                let line = trim(&self.bytes[self.line_start..]);
                if line.is_empty() {
                    if self.line_start > 0 {
                        return Ok((index + 1, Progress::Complete));
                    }
                    // Empty lines before a head are skipped (section 2.2).
                    self.bytes.clear();
                }
                self.line_start = self.bytes.len();
            }
            if self.bytes.len() > LONGEST_HEAD {
                return Err(Malformed);
            }
        }
        Ok((bytes.len(), Progress::Incomplete))
    }

    /// The first line, in its three parts; the last may be empty or missing.
    pub(super) fn first_line(&self) -> Result<[&str; 3], Malformed> {
        let line = self.lines().next().ok_or(Malformed)?;
        let line = str::from_utf8(line).map_err(|_| Malformed)?;
        let mut parts = line.splitn(3, ' ');
        Ok([
            parts.next().ok_or(Malformed)?,
            parts.next().ok_or(Malformed)?,
            parts.next().unwrap_or_default(),
        ])
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == b'\n').map(trim)
    }

    /// What the fields say about the body.
    pub(super) fn fields(&self) -> Result<Fields, Malformed> {
        let mut fields = Fields::default();
        for line in self.lines().skip(1).take_while(|line| !line.is_empty()) {
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.ok_or(Malformed)?);
            // A name with spaces is a smuggler's, a line that begins with one continues another.
            if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) {
                return Err(Malformed);
            }
            let value = value[1..].trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length = str::from_utf8(value).map_err(|_| Malformed)?.parse();
                if !digits || fields.length.is_some() {
                    return Err(Malformed);
                }
                fields.length = Some(length.map_err(|_| Malformed)?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if fields.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                fields.is_chunked = true;
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                fields.upgrades = true;
            }
        }
        match (fields.length, fields.is_chunked) {
            (Some(_), true) => Err(Malformed),
            _ => Ok(fields),
        }
    }
}

fn trim(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether something ended with the bytes that were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Incomplete,
    Complete,
}

/// What matters of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) length: Option<u64>,
    pub(super) is_chunked: bool,
    pub(super) upgrades: bool,
}

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Body {
    /// This many bytes.
    Length(u64),
    /// The line before a chunk: its digits so far.
    ChunkSize(Vec<u8>),
    /// Bytes of a chunk with the line end behind it.
    Chunk(u64),
    /// Fields behind the last chunk: bytes so far in all lines and in this one.
    Trailer { total: usize, line: usize },
}

impl Body {
    /// Takes bytes up to the end of the body; says how many, and whether that is where it ends.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Progress), Malformed> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match self {
                Self::Length(left) => {
                    at += skip(left, rest.len());
                    return Ok(match left {
                        0 => (at, Progress::Complete),
                        _ => (at, Progress::Incomplete),
                    });
                }
                Self::Chunk(left) => {
                    at += skip(left, rest.len());
                    if *left > 0 {
                        return Ok((at, Progress::Incomplete));
                    }
                    *self = Self::ChunkSize(Vec::new());
                }
                Self::ChunkSize(line) => {
                    let Some(byte) = rest.first() else {
                        return Ok((at, Progress::Incomplete));
                    };
                    at += 1;
                    line.push(*byte);
                    if line.len() > LONGEST_HEAD {
                        return Err(Malformed);
                    }
                    if *byte == b'\n' {
                        *self = match chunk_size(line)? {
                            0 => Self::Trailer { total: 0, line: 0 },
                            size => Self::Chunk(size.checked_add(2).ok_or(Malformed)?),
                        };
                    }
                }
                Self::Trailer { total, line } => {
                    let Some(byte) = rest.first() else {
                        return Ok((at, Progress::Incomplete));
                    };
                    at += 1;
                    *total += 1;
                    if *total > LONGEST_HEAD {
                        return Err(Malformed);
                    }
                    match byte {
                        b'\n' if *line == 0 => return Ok((at, Progress::Complete)),
                        b'\n' => *line = 0,
                        b'\r' => {}
                        _ => *line += 1,
                    }
                }
            }
        }
    }
}

/// Takes as much of `left` as there is.
fn skip(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
    *left -= taken as u64;
    taken
}

/// `1a;extension`
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let line = trim(line);
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed);
    }
    let digits = str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed)
}
