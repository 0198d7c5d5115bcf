//! A client that costs little: the load shares its processors with what it loads.
//!
//! HTTP/1.1 with one request at a time on a connection that stays open, and a WebSocket that only counts what comes.

use std::{net::SocketAddr, ops::Range, time::Duration};

use axum::body::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::with_capacity(16 * 1024) }
    }

    /// Sends a request and returns the body of its answer, which must be a 200. Who is told to come back later does.
    pub async fn ask(&mut self, request: &[u8]) -> &[u8] {
        loop {
            self.stream.write_all(request).await.unwrap();
            let body = self.read().await;
            let head = &self.buffer[..body.start];
            match &head[..12] {
                b"HTTP/1.1 200" => return &self.buffer[body],
                b"HTTP/1.1 429" => {
                    let seconds = header(head, "retry-after").and_then(|text| text.parse().ok()).unwrap();
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => panic!("{}", String::from_utf8_lossy(&self.buffer)),
            }
        }
    }

    /// Reads an answer, and returns where its body is.
    async fn read(&mut self) -> Range<usize> {
        self.buffer.clear();
        let mut body: Option<Range<usize>> = None;
        loop {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the server hung up");
            body = body.or_else(|| body_of(&self.buffer));
            if let Some(body) = body.take_if(|body| self.buffer.len() >= body.end) {
                return body;
            }
        }
    }
}

fn body_of(buffer: &[u8]) -> Option<Range<usize>> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let length: usize = header(&buffer[..head], "content-length").unwrap().parse().unwrap();
    Some(head..head + length)
}

/// The value of a header of an answer.
fn header(head: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(head).unwrap().to_ascii_lowercase();
    let (_, rest) = text.split_once(&format!("\r\n{name}: "))?;
    Some(rest.split_once('\r')?.0.to_owned())
}

/// A POST to `/graphql`.
pub fn post(token: Option<&str>, body: &str) -> Bytes {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "POST /graphql HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\naccept: application/json\r\n\
         {authorization}content-length: {length}\r\n\r\n{body}"
    )
    .into()
}

/// The same request of a browser, which takes its answer compressed.
pub fn compressed(request: &Bytes) -> Bytes {
    let text = std::str::from_utf8(request).unwrap();
    text.replacen("accept: ", "accept-encoding: gzip, deflate, br, zstd\r\naccept: ", 1).into()
}

/// A WebSocket that is open.
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await.unwrap();
        let mut buffer = Vec::with_capacity(2 * 1024);
        loop {
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "the server hung up");
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                assert!(buffer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&buffer));
                buffer.drain(..end + 4);
                return Self { stream, buffer };
            }
        }
    }

    /// A text frame, masked with zeros (RFC 6455, section 5.3).
    pub async fn say(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match u8::try_from(text.len()) {
            Ok(short @ 0..126) => frame.push(0x80 | short),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The text of the next message; a ping is nothing to count and is not answered, for no run is so long.
    pub async fn hear(&mut self) -> Option<String> {
        loop {
            if let Some((opcode, head, length)) = frame(&self.buffer)
                && self.buffer.len() >= head + length
            {
                let payload: Vec<u8> = self.buffer.drain(..head + length).skip(head).collect();
                if opcode == 1 {
                    return Some(String::from_utf8(payload).unwrap());
                }
                continue;
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

fn frame(buffer: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*buffer.first()?, *buffer.get(1)?);
    let (head, length) = match second & 0x7f {
        126 => (4, u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]).into()),
        127 => panic!("no message here is so long"),
        short => (2, short.into()),
    };
    Some((first & 0x0f, head, length))
}
