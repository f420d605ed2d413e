//! How a file's content lies in a backup's pool: a frame of Zstandard's, named by the SHA-256 of what is in it, and a
//! seal over the stored bytes. `zstd -d` unpacks it: it passes over the seal, which is a skippable frame (RFC 8878, 3.1.2).

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::archive::layout::hex;

/// The lowest at which tables of numbers become no larger than by gzip (benches/backup.py).
const LEVEL: i32 = 5;
/// A skippable frame's magic number, and the bytes that follow: a SHA-256.
const SEAL_HEAD: [u8; 8] = [0x50, 0x2A, 0x4D, 0x18, 32, 0, 0, 0];
/// Bytes of a seal.
const SEAL: usize = 40;
/// What is read at once.
const STEP: usize = 256 << 10;

/// The path of a content in a store of backups.
pub fn path(sha256: &str) -> String {
    format!("artifacts/sha256/{}/{sha256}.zst", sha256.get(..2).unwrap_or_default())
}

/// The content's name in a path of the pool.
pub fn of_path(path: &str) -> Option<&str> {
    let (folder, name) = path.strip_prefix("artifacts/sha256/")?.split_once('/')?;
    let name = name.strip_suffix(".zst")?;
    let plain = name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (plain && name.starts_with(folder)).then_some(name)
}

/// A content that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of the content.
    pub sha256: String,
    /// Its bytes.
    pub bytes: u64,
    /// Stored bytes, seal included.
    pub stored: u64,
}

/// Hashes and counts what is written to another.
pub(super) struct Tally<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Tally<W> {
    pub(super) fn new(out: W) -> Tally<W> {
        Tally { out, hash: Sha256::new(), bytes: 0 }
    }

    /// What it was written to, how many bytes that were, and their SHA-256.
    pub(super) fn end(self) -> (W, u64, String) {
        (self.out, self.bytes, hex(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What went wrong on which side.
#[derive(Debug)]
pub enum Side {
    /// Reading.
    From(io::Error),
    /// Writing.
    To(io::Error),
}

/// Packs what `from` gives into `to`. `each` hears of every step's bytes and may end it.
///
/// # Errors
/// Either side's, or that of `each`.
pub fn pack(
    from: &mut dyn Read,
    to: &mut dyn Write,
    each: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Packed, Side> {
    let tally = Tally::new(to);
    let mut packer = zstd::stream::write::Encoder::new(tally, LEVEL).map_err(Side::To)?;
    packer.include_checksum(true).map_err(Side::To)?;
    let mut content = Sha256::new();
    let mut bytes = 0u64;
    let mut buffer = vec![0; STEP];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Side::From(e)),
        };
        let step = buffer.get(..read).unwrap_or_default();
        content.update(step);
        packer.write_all(step).map_err(Side::To)?;
        bytes += read as u64;
        each(read as u64).map_err(Side::From)?;
    }
    let tally = packer.finish().map_err(Side::To)?;
    let (out, seal, stored) = (tally.out, tally.hash.finalize(), tally.bytes);
    out.write_all(&SEAL_HEAD).and_then(|()| out.write_all(&seal)).map_err(Side::To)?;
    Ok(Packed { sha256: hex(&content.finalize()), bytes, stored: stored + SEAL as u64 })
}

/// Passes on all but the last bytes, which are kept, and hashes what is passed on.
struct Unsealed<R> {
    from: R,
    hash: Sha256,
    /// What has come and may be the seal.
    tail: Vec<u8>,
    ended: bool,
    stored: u64,
}

impl<R: Read> Unsealed<R> {
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; STEP];
        while !self.ended && self.tail.len() <= SEAL {
            match self.from.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.stored += read as u64;
                    self.tail.extend(buffer.get(..read).unwrap_or_default());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Unsealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let ready = self.tail.len().saturating_sub(SEAL).min(buffer.len());
        let given = self.tail.get(..ready).unwrap_or_default();
        self.hash.update(given);
        if let Some(buffer) = buffer.get_mut(..ready) {
            buffer.copy_from_slice(given);
        }
        self.tail.drain(..ready);
        Ok(ready)
    }
}

/// What is wrong with a content of the pool.
#[derive(Debug)]
pub enum Fault {
    /// It is not what was stored: why.
    Damaged(String),
    /// It could not be read.
    Unread(io::Error),
    /// `to` did not take it.
    Unwritten(io::Error),
}

/// Unpacks a stored content into `to` and checks every byte of it: the seal, the frame, and that it is `sha256`.
///
/// # Errors
/// As [`Fault`] says; then what went into `to` means nothing.
pub fn unpack(
    from: &mut dyn Read,
    sha256: &str,
    to: &mut dyn Write,
    each: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Packed, Fault> {
    let damaged = |why: &str| Fault::Damaged(why.to_owned());
    let inner = Unsealed { from, hash: Sha256::new(), tail: Vec::new(), ended: false, stored: 0 };
    let mut unpacker =
        zstd::stream::read::Decoder::with_buffer(io::BufReader::with_capacity(STEP, inner)).map_err(Fault::Unread)?;
    unpacker = unpacker.single_frame();
    let mut content = Sha256::new();
    let mut bytes = 0u64;
    let mut buffer = vec![0; STEP];
    loop {
        let read = match unpacker.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if is_unread(&e) => return Err(Fault::Unread(e)),
            Err(e) => return Err(Fault::Damaged(e.to_string())),
        };
        let step = buffer.get(..read).unwrap_or_default();
        content.update(step);
        to.write_all(step).map_err(Fault::Unwritten)?;
        bytes += read as u64;
        each(read as u64).map_err(Fault::Unread)?;
    }
    let mut rest = unpacker.finish();
    let mut more = [0; 1];
    match rest.read(&mut more) {
        Ok(0) => {}
        Ok(_) => return Err(damaged("something follows its frame")),
        Err(e) => return Err(Fault::Unread(e)),
    }
    let inner = rest.into_inner();
    let seal: Vec<u8> = SEAL_HEAD.into_iter().chain(inner.hash.finalize()).collect();
    if inner.tail != seal {
        return Err(damaged("its seal is not that of its bytes"));
    }
    if hex(&content.finalize()) != sha256 {
        return Err(damaged("its content has another SHA-256 than its name"));
    }
    Ok(Packed { sha256: sha256.to_owned(), bytes, stored: inner.stored })
}

/// Whether a decoder's reader failed, and not the decoder: an error of the system's has a number, one that a reader of
/// this house makes carries a failure; a decoder's own has neither.
pub(super) fn is_unread(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || error.get_ref().is_some_and(|e| e.is::<crate::domain::failure::Failure>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: &[u8]) -> (Packed, Vec<u8>) {
        let mut out = Vec::new();
        let packed = pack(&mut &*content, &mut out, &mut |_| Ok(())).expect("packed");
        assert_eq!(packed.stored, out.len() as u64);
        (packed, out)
    }

    fn unpacked(stored: &[u8], sha256: &str) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        unpack(&mut &*stored, sha256, &mut out, &mut |_| Ok(())).map(|_| out)
    }

    #[test]
    fn what_is_packed_comes_back() {
        let long: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for content in [&b""[..], b"x", b"hello hello hello", &long] {
            let (packed, stored) = packed(content);
            assert_eq!(unpacked(&stored, &packed.sha256).expect("whole"), content);
            assert_eq!(of_path(&path(&packed.sha256)), Some(packed.sha256.as_str()));
        }
        for other in ["artifacts/sha256/ab/x.zst", "artifacts/sha256/ab", "x"] {
            assert_eq!(of_path(other), None);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        for content in [&b""[..], &b"some text, some text, some more text, 0123456789".repeat(3)] {
            let (packed, stored) = packed(content);
            for bit in 0..8 * stored.len() {
                let mut damaged = stored.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(unpacked(&damaged, &packed.sha256), Err(Fault::Damaged(_))), "bit {bit}");
            }
            for end in 0..stored.len() {
                assert!(matches!(unpacked(&stored[..end], &packed.sha256), Err(Fault::Damaged(_))), "cut at {end}");
            }
            let more = [&stored[..], b"x"].concat();
            assert!(matches!(unpacked(&more, &packed.sha256), Err(Fault::Damaged(_))));
        }
    }
}
