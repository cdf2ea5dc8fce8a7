//! Docker's API, as far as the agent asks it.

use std::{collections::BTreeMap, io, path::Path};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Asks and returns the body of a 200. HTTP/1.0, so that the answer ends with the connection.
///
/// # Errors
///
/// `InvalidData` for any other answer; `UnexpectedEof` when the connection ends without one.
pub(super) async fn get(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let stream = ask(socket, path).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    body(&answer)
}

async fn ask(socket: &Path, path: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())
        .await?;
    Ok(stream)
}

/// An answer that goes on, in lines.
#[derive(Debug)]
pub(super) struct Lines {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// Asks for an answer that goes on; it has begun when this returns.
///
/// # Errors
///
/// As [`get`].
pub(super) async fn follow(socket: &Path, path: &str) -> io::Result<Lines> {
    let mut lines = Lines {
        stream: BufReader::new(ask(socket, path).await?),
        line: Vec::new(),
    };
    let mut head = Vec::new();
    loop {
        match lines.line().await? {
            Some(line) => head.extend_from_slice(line),
            None => break,
        }
        if head.ends_with(b"\r\n\r\n") || head.len() as u64 > LONGEST_ANSWER {
            break;
        }
    }
    body(&head)?;
    Ok(lines)
}

impl Lines {
    /// The next line with its end; `None` after the last.
    pub(super) async fn line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut limited = (&mut self.stream).take(LONGEST_ANSWER);
        let count = limited.read_until(b'\n', &mut self.line).await?;
        Ok((count > 0).then_some(&self.line))
    }
}

fn body(answer: &[u8]) -> io::Result<Vec<u8>> {
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let ok = answer.starts_with(b"HTTP/1.") && answer.get(8..12) == Some(b" 200");
    match head {
        Some(end) if ok => Ok(answer[end + 4..].to_vec()),
        _ => {
            let line = answer
                .split(|byte| *byte == b'\r')
                .next()
                .unwrap_or_default();
            let line = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("docker answered {line:?}"),
            ))
        }
    }
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Components", default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Version")]
    version: String,
}

/// Versions by component from the answer to `/version`; empty when it cannot be read.
pub(super) fn versions(body: &[u8]) -> BTreeMap<String, String> {
    let Ok(version) = serde_json::from_slice::<Version>(body) else {
        return BTreeMap::new();
    };
    let engine = ("docker".to_owned(), version.version);
    let components = version
        .components
        .into_iter()
        .filter(|component| component.name != "Engine")
        .map(|component| (component.name, component.version));
    components.chain([engine]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nOK").unwrap(), b"OK");
        let error = body(b"HTTP/1.0 503 Service Unavailable\r\n\r\nx").unwrap_err();
        insta::assert_snapshot!(error, @r#"docker answered "HTTP/1.0 503 Service Unavailable""#);
        assert_eq!(body(b"").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn versions_of_a_real_daemon() {
        let answer = br#"{"Platform":{"Name":""},"Version":"26.1.5+dfsg1","ApiVersion":"1.45",
            "Components":[{"Name":"Engine","Version":"26.1.5+dfsg1","Details":{}},
            {"Name":"containerd","Version":"1.7.24"},{"Name":"runc","Version":"1.1.15"}]}"#;
        let versions = versions(answer);
        assert_eq!(versions["docker"], "26.1.5+dfsg1");
        assert_eq!(versions["containerd"], "1.7.24");
        assert_eq!(versions.len(), 3);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = body(&bytes);
            let _ = versions(&bytes);
        }
    }
}
