//! A corpus as tokens in a mapped file: the text need not stay in memory, and nothing is tokenised twice.
//!
//! ```text
//! "NCSHARD2" · u64 length of header · header (JSON: hashes, merges, licences, documents) · u16 tokens · blake3 of all this
//! ```
//!
//! The file says all that a run wants to know of a corpus, so that one can be carried to a machine that has no sources:
//! [`unpack`].
//!
//! All numbers are little-endian. Documents follow each other without gaps, in the order of the corpus. Written to a
//! temporary file, synced, then renamed. Reading checks every length against what is left, the hash, and that the
//! tokens of each document are as many bytes as it says; a file that fails is rebuilt from the text.
//!
//! ```text
//! same tokenizer and corpus  mapped as it is
//! same tokenizer             documents of the same content are copied, the others tokenised
//! otherwise                  all are tokenised, by all workers
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nanochat_engine::mapped::Mapped;
use nanochat_engine::workspace::sources::SourceFile;
use nanochat_engine::workspace::store::write_durably;
use nanochat_engine::{TokenId, Tokenizer};
use serde::{Deserialize, Serialize};

use super::corpus::Corpus;
use crate::pool::Pool;

/// The file inside the state folder.
pub const FILE_NAME: &str = "corpus.ncs";

const MAGIC: &[u8; 8] = b"NCSHARD2";
/// A document takes about 200 bytes of it.
const MAX_HEADER: u64 = 256 << 20;
const HASH: usize = blake3::OUT_LEN;
/// Text of one piece of work: enough to fill a tokenizer's cache, and there are many pieces.
const PIECE: usize = 2 << 20;

/// Side of the split that a document is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// A member's file that is trained on.
    Train,
    /// A dependency's file that is trained on.
    Dependency,
    /// A dependency's file that reminds a base of what it knows.
    Replay,
    /// A member's file that is held out.
    HeldOut,
    /// A dependency's file that is held out.
    General,
}

impl Split {
    fn is_trained(self) -> bool {
        match self {
            Self::Train | Self::Dependency | Self::Replay => true,
            Self::HeldOut | Self::General => false,
        }
    }
}

/// A file of the corpus as tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardDocument {
    /// Name of the file, as [`SourceFile::name`].
    pub name: String,
    /// Side of the split.
    pub split: Split,
    /// Index of its first token.
    pub first: usize,
    /// Number of its tokens.
    pub n_tokens: usize,
    /// Number of bytes of its text.
    pub n_bytes: usize,
    /// blake3 of its text, in hex.
    content: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// [`Tokenizer::hash`], in hex.
    tokenizer: String,
    /// In the order of their ranks.
    merges: Vec<(TokenId, TokenId)>,
    /// [`Corpus::hash`].
    corpus: String,
    /// [`Corpus::licences`].
    licences: Vec<String>,
    /// [`Corpus::within_one_file`].
    within_one_file: bool,
    documents: Vec<ShardDocument>,
}

/// A corpus as tokens.
#[derive(Debug)]
pub struct Shards {
    bytes: Mapped,
    corpus: String,
    documents: Vec<ShardDocument>,
    /// Range of the tokens in the file, two bytes each.
    tokens: Range<usize>,
}

/// Where [`Shards::of`] got the tokens from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizeStats {
    /// Number of documents tokenised now; the others had stored tokens.
    pub n_tokenised: usize,
    /// What is wrong with the older file, if it was damaged.
    pub damaged: Option<&'static str>,
}

/// Why shards cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The file system refused.
    #[error("token shards {path}: {source}")]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("token shards {path} are damaged ({reason}); delete the file; the next run rebuilds it")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the bytes.
        reason: &'static str,
    },
    /// A file that was carried here is not what was written there.
    #[error(
        "{path} is not a packed corpus ({reason}); copy it once more, or make one with `cargo nanochat train --pack FILE`"
    )]
    Packed {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the bytes.
        reason: &'static str,
    },
}

/// A corpus from a file of shards, and the tokenizer that its tokens are of.
pub fn unpack(path: &Path) -> Result<(Corpus, Tokenizer), ShardError> {
    let failed = |source| ShardError::Io { path: path.to_owned(), source };
    let bytes = File::open(path).and_then(|file| Mapped::map(&file)).map_err(failed)?;
    unpacked(&bytes).map_err(|reason| ShardError::Packed { path: path.to_owned(), reason })
}

fn unpacked(bytes: &[u8]) -> Result<(Corpus, Tokenizer), &'static str> {
    let (header, _, _) = stated(bytes)?;
    let tokenizer = Tokenizer::from_merges(header.merges).map_err(|_| "its merges are no tokenizer")?;
    let Some((Header { corpus: hash, licences, within_one_file, documents, .. }, tokens)) = parse(bytes, &tokenizer)?
    else {
        return Err("its merges are not those of its tokenizer");
    };
    let mut corpus = Corpus { licences, within_one_file, ..Corpus::default() };
    for ShardDocument { name, split, first, n_tokens, n_bytes, .. } in documents {
        let mut text = Vec::with_capacity(n_bytes);
        token_ids(&bytes[tokens.clone()][2 * first..2 * (first + n_tokens)])
            .for_each(|token| text.extend_from_slice(tokenizer.token_bytes(token)));
        let text = String::from_utf8(text).map_err(|_| "a document is no text")?;
        let files = match split {
            Split::Train => &mut corpus.train,
            Split::Dependency => &mut corpus.dependencies,
            Split::Replay => &mut corpus.replay,
            Split::HeldOut => &mut corpus.held_out,
            Split::General => &mut corpus.general,
        };
        files.push(SourceFile { path: name.clone().into(), name, text });
    }
    corpus.hash = corpus.hashed();
    if corpus.hash != hash || corpus.train.is_empty() || corpus.held_out.is_empty() {
        return Err("it is not the corpus that it says");
    }
    Ok((corpus, tokenizer))
}

impl Shards {
    /// The tokens of a corpus, from `folder` as far as they are there, and kept there. Nobody else may write to the
    /// folder.
    pub fn of(
        folder: &Path,
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        pool: &Pool,
    ) -> Result<(Self, TokenizeStats), ShardError> {
        let path = folder.join(FILE_NAME);
        let mut made = TokenizeStats::default();
        let old = match Self::open(&path, tokenizer) {
            Ok(Some(old)) if old.corpus == corpus.hash => return Ok((old, made)),
            Ok(old) => old,
            Err(ShardError::Damaged { reason, .. }) => {
                made.damaged = Some(reason);
                None
            }
            Err(error) => return Err(error),
        };
        let (shards, n_tokenised) = Self::write_from(&path, corpus, tokenizer, old, pool)?;
        Ok((shards, TokenizeStats { n_tokenised, ..made }))
    }

    /// Writes the tokens of a corpus to a file, which is replaced.
    pub fn write(path: &Path, corpus: &Corpus, tokenizer: &Tokenizer, pool: &Pool) -> Result<Self, ShardError> {
        Ok(Self::write_from(path, corpus, tokenizer, None, pool)?.0)
    }

    fn write_from(
        path: &Path,
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        old: Option<Self>,
        pool: &Pool,
    ) -> Result<(Self, usize), ShardError> {
        let failed = |source| ShardError::Io { path: path.to_owned(), source };
        let n_tokenised = write(path, corpus, tokenizer, old, pool).map_err(failed)?;
        match Self::open(path, tokenizer)? {
            Some(shards) => Ok((shards, n_tokenised)),
            None => Err(failed(io::Error::from(io::ErrorKind::NotFound))),
        }
    }

    /// Maps the file at `path` and checks all of it; `None` where there is none, or one of another tokenizer.
    pub fn open(path: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>, ShardError> {
        let bytes = match File::open(path).and_then(|file| Mapped::map(&file)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ShardError::Io { path: path.to_owned(), source }),
        };
        match parse(&bytes, tokenizer) {
            Ok(Some((Header { corpus, documents, .. }, tokens))) => Ok(Some(Self { bytes, corpus, documents, tokens })),
            Ok(None) => Ok(None),
            Err(reason) => Err(ShardError::Damaged { path: path.to_owned(), reason }),
        }
    }

    /// Its documents: the members', the dependencies', those held out; each by name.
    pub fn documents(&self) -> &[ShardDocument] {
        &self.documents
    }

    /// Indices of the documents that are trained on.
    pub fn trained(&self) -> Range<usize> {
        0..self.documents.iter().take_while(|document| document.split.is_trained()).count()
    }

    /// Tokens of the documents in `range`.
    pub fn n_tokens(&self, range: Range<usize>) -> usize {
        self.documents[range].iter().map(|document| document.n_tokens).sum()
    }

    /// The tokens of a document.
    pub fn tokens(&self, idx: usize) -> Vec<TokenId> {
        token_ids(self.bytes_of(idx)).collect()
    }

    /// The text of a document, by the tokenizer that the shards were opened with.
    pub fn text(&self, idx: usize, tokenizer: &Tokenizer) -> String {
        let mut bytes = Vec::with_capacity(self.documents[idx].n_bytes);
        token_ids(self.bytes_of(idx)).for_each(|token| bytes.extend_from_slice(tokenizer.token_bytes(token)));
        String::from_utf8(bytes).expect("its hash is that of what was written, the tokens of a text")
    }

    fn bytes_of(&self, idx: usize) -> &[u8] {
        let ShardDocument { first, n_tokens, .. } = self.documents[idx];
        &self.bytes[self.tokens.clone()][2 * first..2 * (first + n_tokens)]
    }
}

fn token_ids(bytes: &[u8]) -> impl Iterator<Item = TokenId> {
    bytes.as_chunks::<2>().0.iter().map(|token| TokenId::from_le_bytes(*token))
}

/// The header, the bytes after it, and all bytes but the hash.
fn stated(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), &'static str> {
    let (stated, hash) = bytes.split_last_chunk::<HASH>().ok_or("too short")?;
    let (magic, rest) = stated.split_first_chunk::<8>().ok_or("too short")?;
    if magic != MAGIC {
        return Err("not token shards of this version");
    }
    let (len, rest) = rest.split_first_chunk::<8>().ok_or("too short")?;
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER || len > rest.len() as u64 {
        return Err("header longer than the file");
    }
    if blake3::hash(stated) != *hash {
        return Err("it does not have its hash");
    }
    let (header, tokens) = rest.split_at(len as usize);
    let header = serde_json::from_slice(header).map_err(|_| "header is not valid")?;
    Ok((header, tokens, stated))
}

/// The header and the range of the tokens; `None` for those of another tokenizer.
fn parse(bytes: &[u8], tokenizer: &Tokenizer) -> Result<Option<(Header, Range<usize>)>, &'static str> {
    let (header, tokens, stated) = stated(bytes)?;
    if header.tokenizer != hex(tokenizer) {
        return Ok(None);
    }
    let mut end = 0usize;
    for document in &header.documents {
        if document.first != end {
            return Err("documents do not follow each other");
        }
        end = end.checked_add(document.n_tokens).filter(|end| *end <= tokens.len() / 2).ok_or("too few tokens")?;
        let range = 2 * document.first..2 * end;
        let n_bytes: usize = token_ids(&tokens[range]).map(|token| tokenizer.token_bytes(token).len()).sum();
        if n_bytes != document.n_bytes {
            return Err("a document is not as long as it says");
        }
    }
    if header.documents.is_sorted_by_key(|document| !document.split.is_trained()) && 2 * end == tokens.len() {
        let start = stated.len() - tokens.len();
        return Ok(Some((header, start..stated.len())));
    }
    Err("tokens or documents are out of place")
}

fn hex(tokenizer: &Tokenizer) -> String {
    blake3::Hash::from(tokenizer.hash()).to_hex().to_string()
}

/// Writes the shards of a corpus. Returns how many documents were tokenised.
fn write(path: &Path, corpus: &Corpus, tokenizer: &Tokenizer, old: Option<Shards>, pool: &Pool) -> io::Result<usize> {
    let splits = [
        (Split::Train, &corpus.train),
        (Split::Dependency, &corpus.dependencies),
        (Split::Replay, &corpus.replay),
        (Split::HeldOut, &corpus.held_out),
        (Split::General, &corpus.general),
    ];
    let files: Vec<(Split, &SourceFile)> =
        splits.into_iter().flat_map(|(split, files)| files.iter().map(move |file| (split, file))).collect();
    let known: HashMap<&str, usize> = match &old {
        Some(old) => old.documents.iter().enumerate().map(|(idx, document)| (document.content.as_str(), idx)).collect(),
        None => HashMap::new(),
    };
    let pieces = pieces(&files);
    let encoded = pool.map(pieces.len(), |i| {
        // Each piece has a tokenizer, for its cache of pre-tokens is for one at a time.
        let tokenizer = tokenizer.clone();
        let mut scratch = Vec::new();
        let encode = |(_, file): &(Split, &SourceFile)| {
            let content = blake3::hash(file.text.as_bytes()).to_hex().to_string();
            if let (Some(old), Some(idx)) = (&old, known.get(content.as_str())) {
                return (content, old.bytes_of(*idx).to_vec(), false);
            }
            scratch.clear();
            tokenizer.encode_into(file.text.as_bytes(), &mut scratch, |_, _| ());
            (content, scratch.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>(), true)
        };
        files[pieces[i].clone()].iter().map(encode).collect::<Vec<_>>()
    });
    let encoded: Vec<(String, Vec<u8>, bool)> = encoded.into_iter().flatten().collect();
    let n_tokenised = encoded.iter().filter(|(_, _, is_new)| *is_new).count();
    let (mut documents, mut tokens, mut first) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()), 0);
    for ((split, file), (content, bytes, _)) in files.into_iter().zip(encoded) {
        let (name, n_tokens) = (file.name.clone(), bytes.len() / 2);
        documents.push(ShardDocument { name, split, first, n_tokens, n_bytes: file.text.len(), content });
        tokens.push(bytes);
        first += n_tokens;
    }
    let header = serde_json::to_vec(&Header {
        tokenizer: hex(tokenizer),
        merges: tokenizer.merges().to_vec(),
        corpus: corpus.hash.clone(),
        licences: corpus.licences.clone(),
        within_one_file: corpus.within_one_file,
        documents,
    })?;
    // Where the system does not replace a file that is mapped, it has to be let go of first.
    drop(known);
    drop(old);
    write_durably(path, |out| {
        let mut hasher = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            out.write_all(bytes)
        };
        put(MAGIC)?;
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        tokens.iter().try_for_each(|tokens| put(tokens))?;
        out.write_all(hasher.finalize().as_bytes())
    })?;
    Ok(n_tokenised)
}

/// Files next to each other, about [`PIECE`] bytes together.
fn pieces(files: &[(Split, &SourceFile)]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let (mut start, mut n_bytes) = (0, 0);
    for (idx, (_, file)) in files.iter().enumerate() {
        n_bytes += file.text.len();
        if n_bytes >= PIECE || idx + 1 == files.len() {
            pieces.push(start..idx + 1);
            (start, n_bytes) = (idx + 1, 0);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), path: name.into(), text: text.into() }
    }

    fn corpus(last: &str) -> Corpus {
        let files = vec![
            file("a.rs", include_str!("filter.rs")),
            file("b.rs", "fn übung() {}\n"),
            file("c.rs", include_str!("dedup.rs")),
            file("d.rs", last),
        ];
        let mut corpus = Corpus::split(files, 0.2, 1).expect("four files");
        corpus.dependencies = vec![file("dep-1.0.0/src/lib.rs", "pub fn dependency() {}\n")];
        corpus.hash = blake3::hash(last.as_bytes()).to_hex().to_string();
        corpus
    }

    fn learned() -> Tokenizer {
        tokenizer::learn([include_str!("filter.rs")].into_iter(), 600).expect("text has pairs")
    }

    fn pool() -> Pool {
        Pool::new(2).expect("threads start")
    }

    #[test]
    fn every_text_comes_back_from_its_tokens() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (corpus, tokenizer) = (corpus("fn d() {}\n"), learned());
        let (shards, made) = Shards::of(folder.path(), &corpus, &tokenizer, &pool()).expect("it can be written");
        assert_eq!(made, TokenizeStats { n_tokenised: 5, damaged: None });
        let files: Vec<&SourceFile> = corpus.trained().chain(&corpus.held_out).collect();
        assert_eq!(shards.documents().len(), files.len());
        for (idx, file) in files.iter().enumerate() {
            assert_eq!(shards.documents()[idx].name, file.name);
            assert_eq!(shards.text(idx, &tokenizer), file.text);
            assert_eq!(shards.tokens(idx), tokenizer.encode(file.text.as_bytes()));
        }
        assert_eq!(shards.trained(), 0..corpus.trained().count());
        assert_eq!(shards.documents()[shards.trained().end - 1].split, Split::Dependency);
    }

    #[test]
    fn only_what_has_changed_is_tokenised() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let tokenizer = learned();
        let n_tokenised = |corpus: &Corpus, tokenizer: &Tokenizer| {
            let (shards, made) = Shards::of(folder.path(), corpus, tokenizer, &pool()).expect("it can be written");
            for (idx, file) in corpus.trained().chain(&corpus.held_out).enumerate() {
                assert_eq!(shards.text(idx, tokenizer), file.text);
            }
            made.n_tokenised
        };
        assert_eq!(n_tokenised(&corpus("fn d() {}\n"), &tokenizer), 5);
        assert_eq!(n_tokenised(&corpus("fn d() {}\n"), &tokenizer), 0);
        assert_eq!(n_tokenised(&corpus("fn other() {}\n"), &tokenizer), 1);
        assert_eq!(n_tokenised(&corpus("fn other() {}\n"), &Tokenizer::bytes()), 5);
    }

    #[test]
    fn damaged_shards_are_made_anew() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (corpus, tokenizer) = (corpus("fn d() {}\n"), learned());
        Shards::of(folder.path(), &corpus, &tokenizer, &pool()).expect("it can be written");
        let path = folder.path().join(FILE_NAME);
        let mut bytes = std::fs::read(&path).expect("it was written");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).expect("writable");
        let error = Shards::open(&path, &tokenizer).expect_err("it is damaged").to_string();
        assert!(error.contains("does not have its hash") && error.contains("delete the file"), "{error}");
        let (_, made) = Shards::of(folder.path(), &corpus, &tokenizer, &pool()).expect("it can be written");
        assert_eq!(made, TokenizeStats { n_tokenised: 5, damaged: Some("it does not have its hash") });
        std::fs::write(&path, b"").expect("writable");
        let (_, made) = Shards::of(folder.path(), &corpus, &tokenizer, &pool()).expect("it can be written");
        assert_eq!(made.damaged, Some("too short"));
    }

    /// A small file's bytes.
    fn written() -> (Vec<u8>, Tokenizer) {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let files = vec![file("a.rs", "fn a() {}\n"), file("b.rs", "fn b() {}\n")];
        let corpus = Corpus::split(files, 0.5, 1).expect("two files");
        let tokenizer = Tokenizer::bytes();
        Shards::of(folder.path(), &corpus, &tokenizer, &pool()).expect("it can be written");
        (std::fs::read(folder.path().join(FILE_NAME)).expect("it was written"), tokenizer)
    }

    #[test]
    fn a_corpus_can_be_carried_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut corpus = corpus("fn d() {}\n");
        corpus.replay = vec![file("other-1.0.0/src/lib.rs", "pub fn replayed() {}\n")];
        corpus.general = vec![file("other-1.0.0/src/held.rs", "pub fn held() {}\n")];
        corpus.licences = vec!["MIT".to_owned()];
        corpus.hash = corpus.hashed();
        let path = folder.path().join(FILE_NAME);
        Shards::of(folder.path(), &corpus, &learned(), &pool()).expect("it can be written");
        let (carried, tokenizer) = unpack(&path).expect("it was written");
        assert_eq!(tokenizer.hash(), learned().hash());
        assert_eq!(carried, corpus);

        let whole = std::fs::read(&path).expect("it was written");
        for (what, bytes) in [("half", &whole[..whole.len() / 2]), ("text", b"fn main() {}"), ("nothing", b"")] {
            std::fs::write(&path, bytes).expect("writable");
            let error = unpack(&path).expect_err(what).to_string();
            assert!(error.contains("--pack"), "{what}: {error}");
        }
        // A name that was changed is not in the hash of the corpus, though the file has its own.
        let (header, tokens, _) = stated(&whole).expect("it is whole");
        let header = serde_json::to_string(&header).expect("it was json").replace("b.rs", "c.rs");
        std::fs::write(&path, forged(&header, tokens)).expect("writable");
        let error = unpack(&path).expect_err("its hash is wrong").to_string();
        assert!(error.contains("not the corpus that it says"), "{error}");
    }

    #[test]
    fn every_truncation_and_every_added_byte_is_damage() {
        let (bytes, tokenizer) = written();
        assert!(parse(&bytes, &tokenizer).is_ok_and(|found| found.is_some()));
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len], &tokenizer).is_err(), "{len} of {} bytes", bytes.len());
        }
        assert!(parse(&[bytes, vec![0]].concat(), &tokenizer).is_err());
    }

    #[test]
    fn every_flipped_byte_is_damage() {
        let (bytes, tokenizer) = written();
        for idx in 0..bytes.len() {
            for flip in [1, 0x80, 0xFF] {
                let mut bytes = bytes.clone();
                bytes[idx] ^= flip;
                assert!(parse(&bytes, &tokenizer).is_err(), "byte {idx}");
            }
        }
    }

    /// Whole in itself, whatever it says.
    fn forged(header: &str, tokens: &[u8]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &(header.len() as u64).to_le_bytes(), header.as_bytes(), tokens].concat();
        bytes.extend(blake3::hash(&bytes).as_bytes());
        bytes
    }

    #[test]
    fn a_header_that_lies_is_damage_though_its_hash_is_right() {
        let tokenizer = Tokenizer::bytes();
        let document = |first: &str, n_tokens: &str, n_bytes: &str| {
            let name = "\"name\":\"a\",\"split\":\"train\",\"content\":\"\"";
            format!("{{{name},\"first\":{first},\"n_tokens\":{n_tokens},\"n_bytes\":{n_bytes}}}")
        };
        let header = |documents: &[String]| {
            format!(
                "{{\"tokenizer\":\"{}\",\"merges\":[],\"corpus\":\"c\",\"licences\":[],\"within_one_file\":false,\"documents\":[{}]}}",
                hex(&tokenizer),
                documents.join(",")
            )
        };
        let tokens = [8, 0, 9, 0, 10, 0];
        let most = u64::MAX.to_string();
        let checked = |documents: &[String]| parse(&forged(&header(documents), &tokens), &tokenizer).map(|_| ());
        assert_eq!(checked(&[document("0", "3", "3")]), Ok(()));
        for documents in [
            vec![document("0", "2", "2")],
            vec![document("0", "4", "4")],
            vec![document("1", "2", "2")],
            vec![document("0", &most, "3")],
            vec![document("0", "2", "2"), document("2", &most, "1")],
            vec![document("0", "3", "4")],
            vec![document("0", "2", "2"), document("1", "1", "1")],
            vec![],
        ] {
            assert!(checked(&documents).is_err(), "{documents:?}");
        }
        let mut long = forged("{}", &tokens);
        long[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(parse(&long, &tokenizer).err(), Some("header longer than the file"));
    }
}
