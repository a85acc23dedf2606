//! The bytes of an index: their layout, how they are written to a file, and how a damaged file is refused.
//!
//! ```text
//! header   magic, version, counts, tokenizer, set of files; a hash of each section; a hash of all this
//! tokens   order   keys   files   names      each starts at a multiple of eight; no byte is left over
//! ```
//!
//! Opening hashes every byte, two sections at a time: about 50 ms for 25M tokens. So an index only ever answers what
//! was written, and the time is bounded by its length, which the counts in the header must give exactly. Hashing less
//! would be faster, and would answer from a flipped bit.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use super::{BLOCK, Index, PAD, last_four, sort};
use crate::Cancel;
use crate::mapped::Mapped;

/// Where the first section starts.
pub(super) const HEADER: usize = 320;
const MAGIC: [u8; 8] = *b"ncindex\n";
/// Changes with the layout, the order of the positions, and what files are left out.
const VERSION: u32 = 1;
const HASH: usize = 32;
/// Bytes after the order, so that its last position can be read as eight bytes.
const ORDER_TAIL: usize = 8;
const SECTIONS: [&str; 4] = ["tokens", "order", "keys", "files"];
/// More would not be read in a reasonable time, and no set of dependencies has as many.
pub(super) const MOST_TOKENS: u64 = 1 << 31;

/// What an index was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexId {
    /// The tokenizer's [`crate::Tokenizer::hash`].
    pub(crate) tokenizer: [u8; HASH],
    /// A hash of all files that were indexed.
    pub(crate) set: [u8; HASH],
}

/// Why a file is not an index that can be used. The index is then rebuilt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not an index of this version")]
    Foreign,
    #[error("its header is damaged")]
    Header,
    #[error("it is of another tokenizer or other files")]
    Other,
    #[error("its length is not what its header says")]
    Length,
    #[error("its {0} are damaged")]
    Section(&'static str),
}

/// Where the bytes are.
#[derive(Debug)]
pub(super) enum Bytes {
    Heap(Vec<u8>),
    Mapped(Mapped),
}

impl Bytes {
    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// Counts, and the sections that follow from them.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) n_tokens: usize,
    pub(super) n_order: usize,
    pub(super) n_files: usize,
    /// Bits of one position of the order.
    pub(super) bits: u32,
    pub(super) tokens: Range<usize>,
    pub(super) order: Range<usize>,
    pub(super) keys: Range<usize>,
    /// Three numbers of each file: where its name ends, where its tokens start and end.
    pub(super) files: Range<usize>,
    pub(super) names: Range<usize>,
}

impl Layout {
    /// `None` for counts that no index has.
    pub(super) fn new([n_tokens, n_order, n_files, names_len]: [u64; 4]) -> Option<Self> {
        if n_tokens > MOST_TOKENS || n_order > n_tokens || n_files > n_tokens || names_len > u64::from(u32::MAX) {
            return None;
        }
        let count = |n: u64| usize::try_from(n).ok();
        let (n_tokens, n_order, n_files) = (count(n_tokens)?, count(n_order)?, count(n_files)?);
        let bits = usize::BITS - n_tokens.leading_zeros();
        let mut end = HEADER;
        let mut section = |len: usize| {
            let start = end.checked_next_multiple_of(8)?;
            end = start.checked_add(len)?;
            Some(start..end)
        };
        Some(Self {
            n_tokens,
            n_order,
            n_files,
            bits,
            tokens: section(n_tokens.checked_mul(2)?)?,
            order: section(n_order.checked_mul(bits as usize)?.div_ceil(8).checked_add(ORDER_TAIL)?)?,
            keys: section(n_order.div_ceil(BLOCK).checked_mul(8)?)?,
            files: section(n_files.checked_mul(12)?)?,
            names: section(count(names_len)?)?,
        })
    }

    fn counts(&self) -> [u64; 4] {
        [self.n_tokens as u64, self.n_order as u64, self.n_files as u64, self.names.len() as u64]
    }

    /// What is hashed together: each section with the gap before it, `files` and `names` as one.
    fn sections(&self) -> [Range<usize>; 4] {
        let (order, keys) = (self.order.end, self.keys.end);
        [self.tokens.clone(), self.tokens.end..order, order..keys, keys..self.names.end]
    }
}

/// Names of files and the ranges of their tokens.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<(String, Range<u32>)>);

impl Names {
    /// Adds a file. Files of one name must be added one after the other.
    pub(crate) fn add(&mut self, name: String, tokens: Range<u32>) {
        self.0.push((name, tokens));
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|(name, _)| name.len() as u64).sum()
    }
}

/// The i-th number of a section; 0 beyond it.
#[inline]
pub(super) fn number(section: &[u8], i: usize) -> u32 {
    let bytes = section.get(4 * i..4 * i + 4);
    bytes.map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
}

/// An index of `tokens` on the heap.
pub(super) fn on_heap(tokens: &[u8], names: Names) -> (Bytes, Layout) {
    let mut bytes = vec![0; HEADER];
    bytes.extend(tokens);
    // A workspace is small, and the cores have completions to compute: one thread.
    let (layout, _) =
        write_after_tokens(&mut bytes, tokens, names, 1, &Cancel::new()).expect("writing to memory does not fail");
    (Bytes::Heap(bytes), layout)
}

/// Writes an index to `file`, which is empty: the tokens by `write_tokens`, which returns the names of the files and
/// the identity of the set, then the other sections. Once cancelled it ends with [`io::ErrorKind::Interrupted`].
pub(crate) fn write<E: From<io::Error>>(
    file: &File,
    n_threads: usize,
    cancel: &Cancel,
    write_tokens: impl FnOnce(&mut TokenWriter<'_>) -> Result<(Names, IndexId), E>,
) -> Result<IndexId, E> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&[0; HEADER])?;
    let mut writer = TokenWriter { out: &mut out, hasher: blake3::Hasher::new(), n_tokens: 0 };
    writer.write(&[0; 2 * PAD])?;
    let (names, identity) = write_tokens(&mut writer)?;
    let (n_tokens, tokens_hash) = (writer.n_tokens, *writer.hasher.finalize().as_bytes());
    out.flush()?;
    let map = Mapped::map(file)?;
    let tokens = map.get(HEADER..HEADER + 2 * n_tokens).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let (layout, [order_hash, keys_hash, files_hash]) = write_after_tokens(&mut out, tokens, names, n_threads, cancel)?;
    // What is mapped is not written to, and the header is.
    drop(map);
    out.flush()?;
    drop(out);

    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend([0; 4]);
    header.extend(layout.counts().iter().flat_map(|count| count.to_le_bytes()));
    header.extend(identity.tokenizer);
    header.extend(identity.set);
    [tokens_hash, order_hash, keys_hash, files_hash].iter().for_each(|hash| header.extend(hash));
    header.resize(HEADER - HASH, 0);
    header.extend(blake3::hash(&header).as_bytes());
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    Ok(identity)
}

/// Takes the tokens of an index that is being written.
pub(crate) struct TokenWriter<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    n_tokens: usize,
}

impl TokenWriter<'_> {
    /// Appends tokens, two bytes each. Returns their positions.
    pub(crate) fn write(&mut self, tokens: &[u8]) -> io::Result<Range<u32>> {
        let n_tokens = self.n_tokens + tokens.len() / 2;
        if n_tokens as u64 > MOST_TOKENS {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "an index has at most 2,147,483,648 tokens"));
        }
        self.hasher.update(tokens);
        self.out.write_all(tokens)?;
        let start = std::mem::replace(&mut self.n_tokens, n_tokens);
        Ok(start as u32..n_tokens as u32)
    }
}

/// Writes the sections after the tokens. Returns their hashes.
fn write_after_tokens(
    out: &mut dyn Write,
    tokens: &[u8],
    mut names: Names,
    n_threads: usize,
    cancel: &Cancel,
) -> io::Result<(Layout, [[u8; HASH]; 3])> {
    names.0.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.start.cmp(&b.1.start)));
    let n_order = sort::count(tokens);
    let counts = [tokens.len() as u64 / 2, n_order as u64, names.0.len() as u64, names.len()];
    let layout = Layout::new(counts).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut out = SectionWriter { out, at: layout.tokens.end, hasher: blake3::Hasher::new() };

    out.start(&layout.order)?;
    let mut keys = Vec::with_capacity(layout.keys.len());
    let mut packer = Packer { bits: layout.bits, held: 0, n_held: 0, bytes: Vec::new() };
    let mut rank = 0;
    sort::sort(tokens, n_threads, &mut |positions| {
        // The first error ends the threads, each after the range that it is at.
        if cancel.is_cancelled() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        for &at in positions {
            if rank % BLOCK == 0 {
                keys.extend(last_four(tokens, at as usize).to_le_bytes());
            }
            rank += 1;
            packer.push(at);
        }
        out.write(&packer.bytes)?;
        packer.bytes.clear();
        io::Result::Ok(())
    })?;
    packer.finish();
    out.write(&packer.bytes)?;
    let order_hash = out.end();

    out.start(&layout.keys)?;
    out.write(&keys)?;
    let keys_hash = out.end();

    out.start(&layout.files)?;
    let mut end = 0;
    for (name, tokens) in &names.0 {
        end += name.len() as u32;
        [end, tokens.start, tokens.end].iter().try_for_each(|number| out.write(&number.to_le_bytes()))?;
    }
    out.pad(&layout.names)?;
    names.0.iter().try_for_each(|(name, _)| out.write(name.as_bytes()))?;
    let files_hash = out.end();
    Ok((layout, [order_hash, keys_hash, files_hash]))
}

/// Writes sections one after the other, each aligned, and hashes them.
struct SectionWriter<'a> {
    out: &'a mut dyn Write,
    at: usize,
    hasher: blake3::Hasher,
}

impl SectionWriter<'_> {
    fn start(&mut self, section: &Range<usize>) -> io::Result<()> {
        self.hasher.reset();
        self.pad(section)
    }

    fn pad(&mut self, section: &Range<usize>) -> io::Result<()> {
        let n = section.start - self.at;
        self.write(&[0; 8][..n])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.at += bytes.len();
        self.out.write_all(bytes)
    }

    fn end(&self) -> [u8; HASH] {
        *self.hasher.finalize().as_bytes()
    }
}

/// Packs positions without gaps, the first in the lowest bits.
struct Packer {
    bits: u32,
    held: u64,
    n_held: u32,
    bytes: Vec<u8>,
}

impl Packer {
    fn push(&mut self, position: u32) {
        self.held |= u64::from(position) << self.n_held;
        self.n_held += self.bits;
        if self.n_held >= 32 {
            self.bytes.extend((self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.n_held -= 32;
        }
    }

    fn finish(&mut self) {
        let n_bytes = self.n_held.div_ceil(8) as usize;
        self.bytes.extend(&self.held.to_le_bytes()[..n_bytes]);
        self.bytes.extend([0; ORDER_TAIL]);
    }
}

impl Index {
    /// Maps the index at `path`, once every byte of it is known to be what was written.
    pub(crate) fn open(path: &Path, identity: &IndexId) -> Result<Self, IndexError> {
        let file = File::open(path)?;
        let map = Mapped::map(&file)?;
        let header: &[u8; HEADER] = map.first_chunk().ok_or(IndexError::Foreign)?;
        let (stated, own_hash) = header.split_at(HEADER - HASH);
        let mut rest = stated;
        let mut take = |n: usize| rest.split_off(..n).expect("the fields are shorter than the header");
        if take(8) != MAGIC || take(4) != VERSION.to_le_bytes() {
            return Err(IndexError::Foreign);
        }
        if blake3::hash(stated).as_bytes() != own_hash {
            return Err(IndexError::Header);
        }
        take(4);
        let counts = [0; 4].map(|_| u64::from_le_bytes(take(8).try_into().expect("eight bytes were taken")));
        if take(HASH) != identity.tokenizer || take(HASH) != identity.set {
            return Err(IndexError::Other);
        }
        let layout = Layout::new(counts).ok_or(IndexError::Length)?;
        if layout.names.end != map.len() {
            return Err(IndexError::Length);
        }
        let hashes = SECTIONS.map(|_| take(HASH));
        let sections = layout.sections();
        let check = |i: usize| {
            let found = blake3::hash(&map[sections[i].clone()]);
            if found.as_bytes() == hashes[i] { Ok(()) } else { Err(IndexError::Section(SECTIONS[i])) }
        };
        std::thread::scope(|scope| {
            // The order is longer than all the others together.
            let order = scope.spawn(|| check(1));
            [0, 2, 3].into_iter().try_for_each(check)?;
            order.join().expect("hashing does not panic")
        })?;
        Ok(Self { bytes: Bytes::Mapped(map), layout })
    }
}
