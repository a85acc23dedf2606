//! Packages → streams → index, with parts of it to use until it is done.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use super::files::{self, Hash};
use super::stream::{PackageText, Skipped, Stream};
use super::{Cache, Event, KnownPackage, Request, Wanted, identity};
use crate::memory::Library;
use crate::memory::index::{self, Index, Names, TokenWriter};
use crate::text::tokenizer::{END, TokenId, Tokenizer};
use crate::{Cancel, Cancelled};

/// Tokens of the first part that is handed out; each further one has four times as many. The last, which would be the
/// largest, is never made: the whole index is ready as soon.
const FIRST_PART: usize = 1 << 20;
/// Most tokens of all parts together: they are on the heap.
const MOST_IN_PARTS: usize = 6 << 20;

/// The stream of one package, and what went wrong.
struct Encoded {
    stream: Stream,
    skipped: Vec<Skipped>,
    /// Whether its stream in the cache was damaged.
    damaged: bool,
    failure: Option<io::Error>,
}

/// Why the index is not on the disk.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cancelled")]
    Cancelled(#[from] Cancelled),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Makes the index of all packages and stores it. Where it cannot be stored, its parts are returned.
pub(super) fn build(
    cache: &Cache,
    wanted: &Wanted<'_>,
    request: &Request<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Library, Cancelled> {
    let n_threads = request.n_threads.clamp(1, wanted.packages.len().max(1));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, made) = sync_channel(n_threads);
        for _ in 0..n_threads {
            let (sender, next) = (sender.clone(), &next);
            // Each thread has a tokenizer, for its cache of pre-tokens is for one at a time.
            let tokenizer = request.tokenizer.clone();
            scope.spawn(move || {
                while let Some((i, known)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    wanted.packages.get(i).map(|known| (i, known))
                } {
                    if request.cancel.is_cancelled() || sender.send((i, make(cache, known, &tokenizer))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut reader = InOrder { made, waiting: BTreeMap::new(), due: 0, n: wanted.packages.len() };
        let mut parts = Parts::default();
        match write(cache, request, &mut reader, &mut parts, tell) {
            Ok(library) => Ok(library),
            Err(Failure::Cancelled(cancelled)) => Err(cancelled),
            Err(Failure::Io(error)) => {
                tell(Event::NotKept { reason: error.to_string() });
                // As much as may be on the heap.
                while parts.n_tokens < MOST_IN_PARTS
                    && let Some(made) = reader.next(request.cancel)?
                {
                    made.stream.files.into_iter().for_each(|(name, tokens)| parts.add(name, &tokens));
                }
                parts.close();
                Ok(parts.library)
            }
        }
    })
}

/// The stream of one package, from the cache or encoded now.
fn make(cache: &Cache, known: &KnownPackage<'_>, tokenizer: &Tokenizer) -> Encoded {
    let mut damaged = false;
    if let Some(key) = known.key
        && let Ok(bytes) = fs::read(cache.stream_path(&key))
    {
        if let Some(stream) = Stream::from_bytes(&bytes, &key) {
            files::touch(&cache.stream_path(&key));
            return Encoded { stream, skipped: Vec::new(), damaged, failure: None };
        }
        damaged = true;
    }
    let text = PackageText::read(known.package, tokenizer);
    let path = cache.stream_path(&text.key);
    let kept = fs::read(&path).ok().and_then(|bytes| Stream::from_bytes(&bytes, &text.key));
    if kept.is_some() {
        files::touch(&path);
    }
    let mut failure = None;
    let stream = kept.unwrap_or_else(|| {
        let stream = text.encode(tokenizer);
        failure = files::write(&path, &stream.to_bytes()).err();
        stream
    });
    // A package that changed while it was read is read again the next time.
    if failure.is_none() && known.package.stamp().hash == known.stamp {
        failure = files::write_stamp(&known.path, &known.stamp, &text.key).err();
    }
    Encoded { stream, skipped: text.skipped, damaged, failure }
}

/// Gives the streams of the threads in the order of the packages. Streams that are early wait without a bound: if the
/// first package is slow, all the others may, at two bytes a token.
struct InOrder {
    made: Receiver<(usize, Encoded)>,
    waiting: BTreeMap<usize, Encoded>,
    due: usize,
    n: usize,
}

impl InOrder {
    /// `None` after the last package.
    fn next(&mut self, cancel: &Cancel) -> Result<Option<Encoded>, Cancelled> {
        if self.due == self.n {
            return Ok(None);
        }
        loop {
            cancel.check()?;
            if let Some(made) = self.waiting.remove(&self.due) {
                self.due += 1;
                return Ok(Some(made));
            }
            // The threads end early only where they were cancelled.
            let (i, made) = self.made.recv().map_err(|_| Cancelled)?;
            self.waiting.insert(i, made);
        }
    }
}

/// Indexes of the first packages, ready before the whole is.
#[derive(Default)]
struct Parts {
    library: Library,
    n_tokens: usize,
    /// The files of the current part, and their tokens.
    open: Vec<(String, Vec<TokenId>)>,
    n_open: usize,
}

impl Parts {
    fn add(&mut self, name: String, tokens: &[u8]) {
        self.n_open += tokens.len() / 2;
        self.n_tokens += tokens.len() / 2;
        let tokens = tokens.chunks_exact(2).map(|bytes| TokenId::from_le_bytes([bytes[0], bytes[1]]));
        self.open.push((name, tokens.collect()));
    }

    /// Whether the current part is full.
    fn is_full(&self) -> bool {
        self.n_open >= FIRST_PART << (2 * self.library.0.len())
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.library.0.push(Arc::new(Index::build(std::mem::take(&mut self.open))));
            self.n_open = 0;
        }
    }
}

fn write(
    cache: &Cache,
    request: &Request<'_>,
    reader: &mut InOrder,
    parts: &mut Parts,
    tell: &mut dyn FnMut(Event),
) -> Result<Library, Failure> {
    let file = files::temporary_for(&cache.folder.join("indexes").join("new"))?;
    let mut failure = None;
    let written = index::write(file.as_file(), request.n_threads, request.cancel, |writer| {
        let mut names = Names::default();
        let mut keys: Vec<Hash> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(made) = reader.next(request.cancel)? {
            keys.push(made.stream.key);
            if made.damaged {
                let path = cache.stream_path(&made.stream.key);
                tell(Event::Damaged { path, reason: "it is not the expected stream".to_owned() });
            }
            made.skipped.into_iter().for_each(|(what, reason)| tell(Event::Skipped { what, reason }));
            failure = failure.take().or(made.failure);
            for (name, tokens) in made.stream.files {
                // The same file in two versions of a package counts once.
                if seen.insert(blake3::hash(&tokens)) {
                    add(writer, &mut names, parts, name, &tokens)?;
                }
            }
            if parts.is_full() && parts.n_tokens < MOST_IN_PARTS {
                parts.close();
                tell(Event::Partial(parts.library.clone()));
            }
        }
        // The current part is kept: it is all there is if the rest cannot be written.
        Ok::<_, Failure>((names, identity(request.tokenizer, &keys)))
    });
    // Before the error that cancelling causes: nothing is wrong with the disk then.
    request.cancel.check()?;
    let identity = written?;
    if let Some(error) = failure {
        tell(Event::NotKept { reason: error.to_string() });
    }
    file.as_file().sync_all()?;
    let path = cache.index_path(&identity);
    file.persist(&path).map_err(|error| error.error)?;
    let opened = Index::open(&path, &identity).map_err(|broken| io::Error::other(broken.to_string()))?;
    Ok(Library(vec![Arc::new(opened)]))
}

fn add(
    writer: &mut TokenWriter<'_>,
    names: &mut Names,
    parts: &mut Parts,
    name: String,
    tokens: &[u8],
) -> io::Result<()> {
    let range = writer.write(tokens)?;
    writer.write(&END.to_le_bytes())?;
    names.add(name.clone(), range);
    if parts.n_tokens < MOST_IN_PARTS {
        parts.add(name, tokens);
    }
    Ok(())
}
