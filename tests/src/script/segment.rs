//! TCP segments in the notation of scripts.

use etherparse::{TcpHeader, TcpOptionElement};

/// A TCP segment, with sequence numbers relative to the SYNs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// Acknowledgement number.
    pub ack: Option<u32>,
    /// The SYN flag.
    pub syn: bool,
    /// The FIN flag.
    pub fin: bool,
    /// The RST flag.
    pub rst: bool,
    /// The urgent pointer, relative to the segment's first byte.
    pub urgent: Option<u16>,
    /// The window field of the header.
    pub window: Option<u16>,
    /// The maximum segment size.
    pub mss: Option<u16>,
    /// The window scale option: `None` if it does not matter, `Some(None)` if absent.
    pub scale: Option<Option<u8>>,
    /// The payload.
    pub data: Vec<u8>,
}

/// The window of segments that do not state one.
const WINDOW: u16 = 60_000;

impl Segment {
    /// Parses the words of a script.
    #[track_caller]
    pub fn parse(words: &str) -> Segment {
        let mut segment = Segment::default();
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some(("ack", value)) => segment.ack = Some(number(value)),
                Some(("urg", value)) => segment.urgent = Some(number(value)),
                Some(("win", value)) => segment.window = Some(number(value)),
                Some(("mss", value)) => segment.mss = Some(number(value)),
                Some(("scale", "no")) => segment.scale = Some(None),
                Some(("scale", value)) => segment.scale = Some(Some(number(value))),
                Some(_) => panic!("{word} is not part of a segment"),
                None => segment.parse_word(word),
            }
        }
        segment
    }

    #[track_caller]
    fn parse_word(&mut self, word: &str) {
        match word {
            "syn" => self.syn = true,
            "fin" => self.fin = true,
            "rst" => self.rst = true,
            _ => {
                let (first, text) = word.split_once(':').unwrap_or((word, ""));
                (self.sequence, self.data) = (number(first), data(text));
            }
        }
    }

    /// Returns the sequence number after its last.
    pub fn end(&self) -> u32 {
        self.sequence + self.data.len() as u32 + u32::from(self.syn) + u32::from(self.fin)
    }

    /// Returns whether a received segment matches the expected one.
    pub fn matches(&self, wanted: &Segment) -> bool {
        let Segment { window, mss, scale, .. } = wanted.clone();
        let asked = Segment {
            window: window.and(self.window),
            mss: mss.and(self.mss),
            scale: scale.and(self.scale),
            ..self.clone()
        };
        asked == *wanted
    }

    /// Returns its header; `first` are the initial sequence numbers of sender and receiver.
    pub fn header(&self, source: u16, destination: u16, first: [u32; 2]) -> TcpHeader {
        let sequence = first[0].wrapping_add(self.sequence);
        let window = self.window.unwrap_or(WINDOW);
        let mut header = TcpHeader::new(source, destination, sequence, window);
        (header.syn, header.fin, header.rst) = (self.syn, self.fin, self.rst);
        if let Some(ack) = self.ack {
            (header.ack, header.acknowledgment_number) = (true, first[1].wrapping_add(ack));
        }
        if let Some(urgent) = self.urgent {
            (header.urg, header.urgent_pointer) = (true, urgent);
        }
        let mss = self.mss.map(TcpOptionElement::MaximumSegmentSize);
        let scale = self.scale.flatten().map(TcpOptionElement::WindowScale);
        let options: Vec<_> = mss.into_iter().chain(scale).collect();
        header.set_options(&options).expect("options fit");
        header
    }

    /// Returns the segment with this header; `first` are the initial sequence numbers of receiver
    /// and sender.
    pub fn read(header: &TcpHeader, data: Vec<u8>, first: [u32; 2]) -> Segment {
        let (mut mss, mut scale) = (None, None);
        for option in header.options_iterator() {
            match option.expect("a valid option") {
                TcpOptionElement::MaximumSegmentSize(size) => mss = Some(size),
                TcpOptionElement::WindowScale(shift) => scale = Some(shift),
                _ => {}
            }
        }
        Segment {
            sequence: header.sequence_number.wrapping_sub(first[1]),
            ack: header.ack.then(|| header.acknowledgment_number.wrapping_sub(first[0])),
            syn: header.syn,
            fin: header.fin,
            rst: header.rst,
            urgent: header.urg.then_some(header.urgent_pointer),
            window: Some(header.window_size),
            mss,
            scale: Some(scale),
            data,
        }
    }
}

/// Parses data in the notation of scripts.
#[track_caller]
pub(super) fn data(text: &str) -> Vec<u8> {
    match text.split_once('*') {
        Some((count, letter)) => letter.repeat(number(count)).into_bytes(),
        None => text.as_bytes().to_vec(),
    }
}

#[track_caller]
fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number of a segment"))
}
