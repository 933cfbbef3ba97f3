//! Messages of HTTP/1.1, as much as a proxy has to know of them: where one ends.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The most of a head.
const HEAD_BYTES: usize = 64 * 1024;

/// A request, or an answer whose head says how long it is.
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

/// What a server answers.
pub enum Answer {
    Whole(Message),
    /// It goes on until the connection ends: the head, what came after it so far, and where the rest comes from.
    Stream(String, Vec<u8>, TcpStream),
}

impl Message {
    /// Reads a request; `None` when the connection ended before one began.
    pub async fn read(stream: &mut TcpStream) -> Result<Option<Self>> {
        let Some((head, rest)) = read_head(stream).await? else { return Ok(None) };
        let length = content_length(&head).unwrap_or(0);
        Ok(Some(Self { body: read_body(stream, rest, length).await?, head }))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The same head with another body, and a length that fits it.
    pub fn with_body(&self, body: Vec<u8>) -> Self {
        let lines = self.head.trim_end().lines().filter(|line| !is_header(line, "content-length"));
        let head = lines.map(|line| format!("{line}\r\n")).collect::<String>();
        Self { head: format!("{head}content-length: {}\r\n\r\n", body.len()), body }
    }

    /// An answer that the server did not write.
    pub fn made_up(status: &str, content_type: &str, more: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{more}content-length: {length}\r\n\r\n");
        Self { head, body: body.as_bytes().to_vec() }
    }

    /// Brings a request to the server on a connection of its own and waits for the answer.
    pub async fn deliver(&self, server: SocketAddr) -> Result<Answer> {
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (first, rest) = self.head.split_once("\r\n").ok_or(ErrorKind::InvalidData)?;
        stream.write_all(format!("{first}\r\nconnection: close\r\n{rest}").as_bytes()).await?;
        stream.write_all(&self.body).await?;
        let (head, rest) = read_head(&mut stream).await?.ok_or(ErrorKind::UnexpectedEof)?;
        let lines = head.trim_end().lines().filter(|line| !is_header(line, "connection"));
        let head = lines.map(|line| format!("{line}\r\n")).collect::<String>() + "\r\n";
        match content_length(&head) {
            Some(length) => Ok(Answer::Whole(Self { body: read_body(&mut stream, rest, length).await?, head })),
            None => Ok(Answer::Stream(head, rest, stream)),
        }
    }
}

/// The head with the empty line at its end, and what was read of the body with it.
async fn read_head(stream: &mut TcpStream) -> Result<Option<(String, Vec<u8>)>> {
    let mut read = Vec::new();
    loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(at + 4);
            let head = String::from_utf8(read).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
            return Ok(Some((head, rest)));
        }
        if read.len() > HEAD_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        match stream.read_buf(&mut read).await? {
            0 if read.is_empty() => return Ok(None),
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

async fn read_body(stream: &mut TcpStream, mut body: Vec<u8>, length: usize) -> Result<Vec<u8>> {
    let read = body.len();
    body.resize(length, 0);
    stream.read_exact(&mut body[read.min(length)..]).await?;
    Ok(body)
}

fn content_length(head: &str) -> Option<usize> {
    let line = head.lines().find(|line| is_header(line, "content-length"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

fn is_header(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}
