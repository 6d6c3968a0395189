//! Checks frames and their checksums with tcpdump.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::Command;

use tempfile::TempDir;

/// A capture file to which frames are added (the classic pcap format), and their number.
pub(crate) struct TcpdumpCheck {
    what: String,
    dir: TempDir,
    file: BufWriter<File>,
    frames: usize,
}

impl TcpdumpCheck {
    pub(crate) fn new(what: &str) -> TcpdumpCheck {
        let dir = tempfile::tempdir().unwrap();
        let mut file = BufWriter::new(File::create(dir.path().join("pcap")).unwrap());
        // Magic number, version 2.4, time zone, accuracy, longest record, Ethernet.
        for field in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 1 << 18, 1] {
            file.write_all(&field.to_le_bytes()).unwrap();
        }
        TcpdumpCheck { what: what.to_owned(), dir, file, frames: 0 }
    }

    pub(crate) fn add(&mut self, frame: &[u8]) {
        let len = frame.len() as u32;
        for field in [0, 0, len, len] {
            self.file.write_all(&field.to_le_bytes()).unwrap();
        }
        self.file.write_all(frame).unwrap();
        self.frames += 1;
    }

    /// Asserts that every frame is complete with correct checksums; returns the number of frames.
    pub(crate) fn finish(mut self) -> usize {
        self.file.flush().unwrap();
        // By standard input: where it runs as another user, it need not find the file.
        let output = Command::new("tcpdump")
            .args(["-nn", "-vv", "-S", "-t", "-r", "-"])
            .stdin(File::open(self.dir.path().join("pcap")).unwrap())
            .output()
            .unwrap_or_else(|error| panic!("tcpdump: {error}; run scripts/install.sh test"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tcpdump at {}: {error}", self.what);
        let text = String::from_utf8_lossy(&output.stdout);
        let bad = ["incorrect", " bad ", "[bad ", "no cksum", "truncated", "[|", "invalid"];
        if let Some(line) = text.lines().find(|line| bad.iter().any(|word| line.contains(word))) {
            panic!("tcpdump at {}: {line}", self.what);
        }
        let right = text.matches("(correct)").count() + text.matches("[udp sum ok]").count();
        assert_eq!(right, self.frames, "frames with a right checksum at {}", self.what);
        self.frames
    }
}
