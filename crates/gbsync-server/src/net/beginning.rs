//! The first bytes of a connection, which tell HTTP/1 from HTTP/2.
//!
//! Invariant: what was read here is handed on together with what came behind it. A reader that is first given a few bytes alone
//! makes room twice, and keeps it for as long as the connection lasts.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// What a connection with HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of it with which no request of HTTP/1 begins.
const TELLING: usize = 3;

/// What was read of a connection to tell what it speaks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    bytes: [u8; PREFACE.len()],
    length: usize,
}

impl Beginning {
    /// Reads as little as tells what is spoken.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it does not come in time, [`io::ErrorKind::UnexpectedEof`] when it never will.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), patience: Duration) -> io::Result<Self> {
        let mut beginning = Self { bytes: [0; PREFACE.len()], length: 0 };
        let reading = async {
            while beginning.length < beginning.wanted() {
                let wanted = beginning.wanted();
                let read = stream.read(&mut beginning.bytes[beginning.length..wanted]).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                beginning.length += read;
            }
            Ok(beginning)
        };
        timeout(patience, reading).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no request came")))
    }

    /// How many bytes are needed: the whole preface where it is one, so that nobody stops in the middle of it.
    fn wanted(&self) -> usize {
        let is_http2 = self.length >= TELLING && self.is_http2();
        if is_http2 { PREFACE.len() } else { TELLING }
    }

    /// Whether HTTP/2 is spoken.
    pub(super) fn is_http2(&self) -> bool {
        self.bytes().starts_with(&PREFACE[..TELLING]) && PREFACE.starts_with(self.bytes())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn read(pieces: &[&[u8]]) -> io::Result<(bool, Vec<u8>)> {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        for piece in pieces {
            theirs.write_all(piece).await?;
        }
        let beginning = Beginning::read(&mut ours, Duration::from_millis(50)).await?;
        drop(theirs);
        Ok((beginning.is_http2(), beginning.bytes().to_vec()))
    }

    #[tokio::test]
    async fn three_bytes_tell_http_1_and_the_whole_preface_http_2() {
        assert_eq!(read(&[b"P", b"OST / HTTP/1.1"]).await.expect("it is enough"), (false, b"POS".to_vec()));
        let preface = PREFACE.to_vec();
        assert_eq!(read(&[&PREFACE[..5], &PREFACE[5..], b"more"]).await.expect("it is enough"), (true, preface));
        // What begins like a preface and is none is told to be so by who speaks HTTP/1.
        assert!(!read(&[b"PRI / HTTP/1.1\r\nhost: a\r\n\r\n"]).await.expect("it is enough").0);
    }

    #[tokio::test]
    async fn who_stops_in_the_middle_of_the_preface_is_not_waited_for() {
        let error = read(&[&PREFACE[..20]]).await.expect_err("four bytes are missing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
