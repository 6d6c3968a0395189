//! Server-sent events (HTML Living Standard, 9.2): those of the daemon are read, those for pages
//! are written.

use axum::body::Bytes;
use serde::Serialize;

/// Most bytes of an event that is read.
const LONGEST: usize = 64 << 10;

/// Returns an event for pages.
pub(crate) fn write(kind: &str, id: Option<u64>, data: &impl Serialize) -> Bytes {
    let mut text = format!("event: {kind}\n").into_bytes();
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    // JSON has no line ends, and there is nothing in the data that it cannot say.
    let _ = serde_json::to_writer(&mut text, data);
    text.extend_from_slice(b"\n\n");
    text.into()
}

/// Reads the daemon's events, which come in any pieces.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    rest: Vec<u8>,
    data: String,
    id: Option<u64>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// The number of the last event.
    pub(crate) id: Option<u64>,
    /// Its data; empty for a sign of life.
    pub(crate) data: String,
}

impl Parser {
    /// Takes a piece; calls `each` with what is complete.
    pub(crate) fn take(&mut self, piece: &[u8], mut each: impl FnMut(Read)) {
        self.rest.extend_from_slice(piece);
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[begin..begin + length]);
            begin += length + 1;
            if let Some(data) = line.strip_prefix("data: ") {
                data.clone_into(&mut self.data);
            } else if let Some(id) = line.strip_prefix("id: ") {
                self.id = id.parse().ok();
            } else if line.is_empty() {
                each(Read { id: self.id, data: std::mem::take(&mut self.data) });
            }
        }
        self.rest.drain(..begin);
        if self.rest.len() > LONGEST {
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": still here\nid: 6\n\nid: 7\ndata: {\"a\":\"ä\"}\n\nid: 8\ndata: {}\n\nid: 9";

    #[test]
    fn events_are_read_whatever_the_pieces() {
        for size in 1..STREAM.len() {
            let (mut parser, mut read) = (Parser::default(), Vec::new());
            for piece in STREAM.as_bytes().chunks(size) {
                parser.take(piece, |event| read.push((event.id, event.data)));
            }
            let wanted = [(Some(6), ""), (Some(7), "{\"a\":\"ä\"}"), (Some(8), "{}")];
            assert_eq!(read, wanted.map(|(id, data)| (id, data.to_owned())), "{size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut parser = Parser::default();
        for _ in 0..100 {
            parser.take(&[b'x'; 4096], |_| panic!());
        }
        assert!(parser.rest.len() <= LONGEST + 4096);
    }

    #[test]
    fn no_data_ends_an_event() {
        let text = write("change", Some(3), &"two\nlines\r<img>");
        assert_eq!(text, "event: change\nid: 3\ndata: \"two\\nlines\\r<img>\"\n\n");
    }
}
