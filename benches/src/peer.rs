//! Both ends of every measured connection, with nothing but the standard library.
//!
//! The same functions run in this process and, as the static program `colima-bench-peer`, in a guest: ways
//! into the guest are then compared with equal clients and equal servers.
//!
//! Besides docker's API there is a server of our own, [`serve`]. A client says with its first byte what it
//! wants: an echo, a sink that counts, or a source.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

const ECHO: u8 = b'e';
const SINK: u8 = b's';
const SOURCE: u8 = b'f';

/// Bytes per system call.
const BLOCK: usize = 64 * 1024;

/// A peer that says nothing for this long has failed. An emulated guest is slow, not dead.
const PATIENCE: Duration = Duration::from_secs(300);

/// Serves [`echo`], [`send`] and [`receive`] on a socket that is made at `path`, for ever.
///
/// # Errors
///
/// When the socket cannot be made or accepts no more.
pub fn serve(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept()?;
        // A client that fails notices by itself.
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: UnixStream) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    stream.read_exact(&mut block[..1])?;
    match block[0] {
        ECHO => stream.write_all(&[ECHO]),
        SINK => {
            let mut count = 0_u64;
            loop {
                match stream.read(&mut block)? {
                    0 => break,
                    length => count += length as u64,
                }
            }
            stream.write_all(&count.to_be_bytes())
        }
        SOURCE => {
            let mut count = [0; 8];
            stream.read_exact(&mut count)?;
            write_zeros(&mut stream, u64::from_be_bytes(count))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn write_zeros(to: &mut impl Write, count: u64) -> io::Result<()> {
    let written = io::copy(
        &mut BufReader::with_capacity(BLOCK, io::repeat(0).take(count)),
        to,
    )?;
    debug_assert_eq!(written, count);
    Ok(())
}

/// A new connection to [`serve`] until one byte came back.
///
/// # Errors
///
/// When the connection fails.
pub fn echo(path: &Path) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut stream = connect(path)?;
    stream.write_all(&[ECHO])?;
    stream.read_exact(&mut [0])?;
    Ok(begin.elapsed())
}

/// `count` bytes to [`serve`], until it confirms how many arrived.
///
/// # Errors
///
/// When the connection fails, or bytes got lost.
pub fn send(path: &Path, count: u64) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut stream = connect(path)?;
    stream.write_all(&[SINK])?;
    write_zeros(&mut stream, count)?;
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived)?;
    let elapsed = begin.elapsed();
    exactly(u64::from_be_bytes(arrived), count)?;
    Ok(elapsed)
}

/// `count` bytes from [`serve`].
///
/// # Errors
///
/// When the connection fails, or bytes are missing.
pub fn receive(path: &Path, count: u64) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut stream = connect(path)?;
    stream.write_all(&[SOURCE])?;
    stream.write_all(&count.to_be_bytes())?;
    let mut block = vec![0; BLOCK];
    let mut arrived = 0;
    loop {
        match stream.read(&mut block)? {
            0 => break,
            length => arrived += length as u64,
        }
    }
    let elapsed = begin.elapsed();
    exactly(arrived, count)?;
    Ok(elapsed)
}

fn exactly(arrived: u64, count: u64) -> io::Result<()> {
    if arrived == count {
        return Ok(());
    }
    let text = format!("{arrived} of {count} bytes arrived");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
}

/// A new connection to docker's API until it has answered `GET /_ping`.
///
/// # Errors
///
/// When the connection fails, or the answer is not 200.
pub fn ping(docker: &Path) -> io::Result<Duration> {
    let begin = Instant::now();
    request(docker, "GET /_ping", &[])?;
    Ok(begin.elapsed())
}

/// `docker import` of a tree with one file of `count` bytes that do not compress; `seed` makes them
/// different from those of other calls, so that no store has them already. The image is removed again,
/// outside of the measured time.
///
/// # Errors
///
/// When the connection fails, or docker refuses.
pub fn import(docker: &Path, count: usize, seed: u64) -> io::Result<Duration> {
    let body = tar(count, seed);
    let begin = Instant::now();
    let head = format!("POST /images/create?fromSrc=-&repo=bench-import&tag=s{seed}");
    request(docker, &head, &body)?;
    let elapsed = begin.elapsed();
    let head = format!("DELETE /images/bench-import:s{seed}?force=1");
    request(docker, &head, &[])?;
    Ok(elapsed)
}

/// One request on a connection of its own; reads the answer to its end.
fn request(docker: &Path, head: &str, body: &[u8]) -> io::Result<()> {
    let mut stream = connect(docker)?;
    let head = format!(
        "{head} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream);
    reader.read_until(b'\n', &mut answer)?;
    reader.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200") && !contains(&answer, b"errorDetail") {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&answer).into_owned(),
    ))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// A tar archive (POSIX.1-1988 ustar) with the file `data`.
fn tar(count: usize, seed: u64) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"data");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{count:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = header.to_vec();
    // xorshift64; its state must not be zero.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while archive.len() < header.len() + count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        archive.extend_from_slice(&state.to_le_bytes());
    }
    archive.truncate(header.len() + count);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// Removes a socket that an earlier run left.
///
/// # Errors
///
/// When it is there and cannot be removed.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap()).ok();
            }
        });
        echo(&path).unwrap();
        send(&path, 200_001).unwrap();
        receive(&path, 200_001).unwrap();
    }

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        fs::write(&path, tar(1000, 7)).unwrap();
        let listed = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&path)
            .output();
        let listed = listed.unwrap();
        assert!(listed.status.success(), "{listed:?}");
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(text.contains("1000") && text.contains("data"), "{text}");
        assert_ne!(tar(1000, 7), tar(1000, 8));
    }
}
