//! Where captured frames go: to lines of text, or to a file that ends with a whole block whatever
//! happens.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use trama_capture::pcapng::{Block, Reader};
use trama_capture::text;

/// Where frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Lines on standard output.
    Lines,
    /// A pcapng file on standard output.
    StandardOutput,
    /// A pcapng file.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Lines | Place::StandardOutput => f.write_str("standard output"),
            Place::File(path) => path.display().fmt(f),
        }
    }
}

/// The form of the output.
enum Form {
    Lines { link_level: bool },
    Blocks,
}

/// What is written to.
struct Target {
    out: Box<dyn Write>,
    /// The same, if it is a file that can be cut, and how much of it is whole.
    file: Option<(File, u64)>,
}

/// What becomes of a capture.
pub(crate) struct Output {
    place: Place,
    form: Form,
    /// Once the capture has begun: until then, a file keeps what it has.
    target: Option<Target>,
    reader: Reader,
    /// Names of the ports.
    ports: Vec<String>,
    /// Frames that were written.
    pub(super) captured: u64,
    /// Frames that were missed.
    pub(super) missed: u64,
    /// Why ports ended.
    pub(super) ends: Vec<String>,
}

impl Target {
    fn open(place: &Place) -> io::Result<Target> {
        let Place::File(path) = place else {
            return Ok(Target { out: Box::new(io::stdout()), file: None });
        };
        let file = File::create(path)?;
        let is_plain = file.metadata()?.is_file();
        let cut = is_plain.then(|| file.try_clone()).transpose()?;
        Ok(Target { out: Box::new(file), file: cut.map(|file| (file, 0)) })
    }
}

impl Output {
    pub(crate) fn new(place: Place, link_level: bool) -> Output {
        let form = if place == Place::Lines { Form::Lines { link_level } } else { Form::Blocks };
        let (reader, ports, ends) = (Reader::default(), Vec::new(), Vec::new());
        Output { place, form, target: None, reader, ports, captured: 0, missed: 0, ends }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether anything was written.
    pub(super) fn has_begun(&self) -> bool {
        self.target.is_some()
    }

    /// Takes a piece of the capture, and writes what it makes whole.
    ///
    /// # Errors
    /// The file cannot be made, or the output fails; a file is cut to what is whole. Or the piece
    /// is not of a capture.
    pub(crate) fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        self.reader.push(piece);
        let (mut written, mut frames) = (Vec::new(), 0);
        while let Some((bytes, block)) = self.reader.next().map_err(io::Error::other)? {
            match block {
                Block::Section => self.ports.clear(),
                Block::Interface(interface) => self.ports.push(interface.name.into_owned()),
                Block::Frame(frame) => {
                    frames += 1;
                    if let Form::Lines { link_level } = self.form {
                        let port = self.ports.get(frame.interface as usize);
                        let port = port.map_or("?", String::as_str);
                        written.extend(text::line(&frame, port, link_level).bytes());
                        written.push(b'\n');
                    }
                }
                Block::Statistics(end) => {
                    self.missed += end.missed;
                    let port = self.ports.get(end.interface as usize);
                    if let (Some(port), Some(comment)) = (port, end.comment) {
                        self.ends.push(format!("{port}: {comment}"));
                    }
                }
            }
            if matches!(self.form, Form::Blocks) {
                written.extend_from_slice(bytes);
            }
        }
        self.write(&written)?;
        self.captured += frames;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let target = match &mut self.target {
            Some(target) => target,
            none => none.insert(Target::open(&self.place)?),
        };
        let written = target.out.write_all(bytes).and_then(|()| target.out.flush());
        if let Some((file, whole)) = &mut target.file {
            match written {
                Ok(()) => *whole += bytes.len() as u64,
                // Half a block is of no use; if it cannot be cut either, it stays.
                Err(_) => drop(file.set_len(*whole)),
            }
        }
        written
    }
}
