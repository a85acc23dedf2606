//! A file's bytes in large pages. They are read, consumed and freed: on small pages, page faults cost more than
//! reading.

use std::fmt;
use std::io::{self, Read};

use super::{AlignedBytes, LARGE};

/// Bytes read from a file, in 2 MB pages of their own where the system gives them.
#[derive(Clone)]
pub struct LargeBytes(AlignedBytes);

impl LargeBytes {
    /// Reads `len` bytes, or as many as there are. Only what is read takes memory, so a false length costs nothing.
    pub fn read(from: &mut impl Read, len: usize) -> io::Result<Self> {
        // A heap buffer would be zeroed in full at once, so it grows instead.
        let mut bytes = AlignedBytes::own_pages(len).unwrap_or_else(|| AlignedBytes::zeroed(len.min(LARGE)));
        let mut n_read = 0;
        while n_read < len {
            if n_read == bytes.as_slice().len() {
                bytes.resize(n_read.saturating_mul(2).min(len));
            }
            match from.read(&mut bytes.as_mut_slice()[n_read..]) {
                Ok(0) => break,
                Ok(n) => n_read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if n_read < bytes.as_slice().len() {
            bytes.resize(n_read);
        }
        Ok(Self(bytes))
    }

    /// The bytes that were read.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl From<&[u8]> for LargeBytes {
    fn from(mut bytes: &[u8]) -> Self {
        let len = bytes.len();
        Self::read(&mut bytes, len).expect("memory can be read")
    }
}

impl PartialEq for LargeBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl fmt::Debug for LargeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and is interrupted now and then.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = out.len().min(70_001).min(self.0.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn no_more_bytes_are_read_than_asked_for_or_available() {
        let file: Vec<u8> = (0..3 << 20).map(|i: u32| (i * 31 % 251) as u8).collect();
        for len in [0, 1, 5000, LARGE - 1, LARGE, LARGE + 1, 3 << 20, (3 << 20) + 1, 1 << 30] {
            let bytes = LargeBytes::read(&mut Slow(&file, 0), len).expect("it is only slow");
            assert_eq!(bytes.as_slice(), &file[..len.min(file.len())], "{len}");
            assert_eq!(bytes, LargeBytes::from(&file[..len.min(file.len())]));
        }
    }

    #[test]
    fn a_failed_read_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        assert!(LargeBytes::read(&mut Broken, 10).is_err());
    }
}
