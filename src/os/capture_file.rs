//! Capture files as streams of octets: plain, compressed with gzip or zstd, or standard input.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// Octets asked of the system at once, in front of a decompressor.
const CHUNK: usize = 1 << 18;

/// Opens a capture; `-` is standard input. What it is compressed with, if anything, its first octets tell.
///
/// # Errors
/// When it cannot be opened or read.
pub fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return unpacked(io::stdin());
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    unpacked(file)
}

/// Whether it is a file that reading never waits for.
pub fn is_regular(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.is_file())
}

fn unpacked(mut source: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut first = Vec::new();
    source.by_ref().take(4).read_to_end(&mut first)?;
    let gzip = first.starts_with(&[0x1f, 0x8b]);
    let zstd = first == [0x28, 0xb5, 0x2f, 0xfd];
    let whole = Cursor::new(first).chain(source);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, whole)))
    } else if zstd {
        Box::new(Zstd { frame: None, source: Some(BufReader::with_capacity(CHUNK, Box::new(whole))) })
    } else {
        Box::new(whole)
    })
}

type Packed = BufReader<Box<dyn Read>>;

/// Frames of zstd, one behind the other (RFC 8878 §3.1).
struct Zstd {
    frame: Option<StreamingDecoder<Packed, ruzstd::decoding::FrameDecoder>>,
    source: Option<Packed>,
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.source = self.frame.take().map(StreamingDecoder::into_inner);
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            if io::BufRead::fill_buf(&mut source)?.is_empty() {
                return Ok(0);
            }
            let frame = StreamingDecoder::new(source)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}")))?;
            self.frame = Some(frame);
        }
    }
}
