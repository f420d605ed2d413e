//! The frame of an entry: a POSIX ustar header (IEEE Std 1003.1, "pax", "ustar Interchange Format").
//!
//! An archive uses one form of it only: regular files of mode 644 of user 0. A header that is not byte for byte what
//! [`Frame::header`] makes of its name, size and time is refused, so that no bit of it can change unseen.

/// The unit of a tar file in bytes.
pub const BLOCK: usize = 512;
/// What a header's size field can say in digits, and more than any entry of an archive has. Beyond that it is binary, as
/// GNU tar writes it (its manual, "Basic Tar Format").
pub const MAX_BYTES: u64 = 0o77_777_777_777;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The entry's name; at most 100 bytes.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its time of modification in seconds of Unix time.
    pub seconds: u64,
}

impl Frame {
    /// The header.
    pub fn header(&self) -> Vec<u8> {
        let sum: u64 = self.block(b"        ").iter().map(|b| u64::from(*b)).sum();
        self.block(format!("{sum:06o}\0 ").as_bytes())
    }

    fn block(&self, checksum: &[u8]) -> Vec<u8> {
        let (size, seconds) = (size(self.bytes), format!("{:011o}", self.seconds));
        let fields: [(&[u8], usize); 16] = [
            (self.name.as_bytes(), 100),
            (b"0000644", 8),
            (b"0000000", 8),
            (b"0000000", 8),
            (&size, 12),
            (seconds.as_bytes(), 12),
            (checksum, 8),
            (b"0", 1),
            (b"", 100),
            (b"ustar", 6),
            (b"00", 2),
            (b"root", 32),
            (b"root", 32),
            (b"0000000", 8),
            (b"0000000", 8),
            (b"", 155 + 12),
        ];
        let mut block = Vec::with_capacity(BLOCK);
        let mut end = 0;
        for (text, width) in fields {
            end += width;
            block.extend(text.iter().take(width));
            block.resize(end, 0);
        }
        block
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the header's place.
    pub fn parse(block: &[u8]) -> Result<Frame, String> {
        let field = |from: usize, len: usize| {
            let bytes = block.get(from..from + len).unwrap_or_default();
            bytes.split(|b| *b == 0).next().unwrap_or_default()
        };
        let name = std::str::from_utf8(field(0, 100)).map_err(|_| "a name that is not text".to_owned())?.to_owned();
        let number = |from: usize| {
            let digits = std::str::from_utf8(field(from, 12)).unwrap_or_default();
            u64::from_str_radix(digits, 8).ok().filter(|n| *n <= MAX_BYTES)
        };
        let binary = block.get(124..136).and_then(|size| size.strip_prefix(&[0x80, 0, 0, 0]));
        let binary = binary.and_then(|size| size.try_into().ok()).map(u64::from_be_bytes);
        match field(156, 1) {
            b"0" => {}
            b"1" => return Err(format!("`{}` is a hard link", name.escape_debug())),
            b"2" => return Err(format!("`{}` is a symbolic link", name.escape_debug())),
            _ => return Err(format!("`{}` is not a regular file", name.escape_debug())),
        }
        let frame = match (binary.or_else(|| number(124)), number(136)) {
            (Some(bytes), Some(seconds)) => Frame { name, bytes, seconds },
            _ => return Err(format!("the header of `{}` has a number that is none", name.escape_debug())),
        };
        if frame.header() == block {
            Ok(frame)
        } else {
            Err(format!("the header of `{}` is damaged", frame.name.escape_debug()))
        }
    }

    /// Bytes of zeros after the entry, up to a whole block.
    pub fn padding(&self) -> usize {
        let over = usize::try_from(self.bytes % BLOCK as u64).unwrap_or(0);
        if over == 0 { 0 } else { BLOCK - over }
    }
}

/// The field of a size.
fn size(bytes: u64) -> Vec<u8> {
    if bytes <= MAX_BYTES {
        return format!("{bytes:011o}").into_bytes();
    }
    [[0x80, 0, 0, 0].as_slice(), &bytes.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_of_a_header_is_found() {
        for bytes in [8_388_608, MAX_BYTES + 1] {
            let frame = Frame { name: "data/metrics.copy.0001.gz".to_owned(), bytes, seconds: 1_790_000_000 };
            let header = frame.header();
            assert_eq!((header.len(), Frame::parse(&header)), (BLOCK, Ok(frame)));
            for bit in 0..8 * BLOCK {
                let mut damaged = header.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Frame::parse(&damaged).is_err(), "bit {bit}");
            }
        }
        assert!(Frame::parse(&[]).is_err());
    }
}
