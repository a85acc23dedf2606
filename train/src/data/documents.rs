//! Files to packed training sequences, in the engine's prompt format.
//!
//! What sequence `i` of step `s` holds follows from (seed, s, i) alone, so a resumed run sees the same text. Documents
//! share a sequence but do not see each other. Some holes follow what a prompt puts before them: a snippet of another
//! file of the package, and the declarations of the types used nearby. Their tokens are targets like any others; the
//! tokens at the end of a hole count more.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use nanochat_engine::Tokenizer;
use nanochat_engine::prompt::{DECLARED, Snippet, document};
use nanochat_engine::rng::Rng;
use nanochat_engine::symbols::declarations;
use nanochat_engine::text::tokenizer::{END, N_SPECIALS, TokenId};
use nanochat_engine::workspace::sources::SourceFile;

use super::batch::{Batch, NO_TARGET};
use super::packages::Packages;
use super::recipe::DataRecipe;
use super::shards::Shards;

/// Draws documents from files: from their text, or from shards that hold it as tokens. Both give the same batches.
pub struct Documents {
    tokenizer: Arc<Tokenizer>,
    texts: Texts,
    packages: Arc<Packages>,
    /// Byte offset of each file in the concatenation of all.
    offsets: Vec<usize>,
    n_bytes: usize,
    bytes_per_token: f64,
    seq_len: usize,
    fim_rate: f32,
    snippet_rate: f32,
    declared_rate: f32,
    seed: u64,
}

/// Where the text is.
enum Texts {
    Files(Vec<SourceFile>),
    /// The documents of the shards with these indices.
    Shards(Arc<Shards>, Vec<usize>),
}

/// How much more the end of a hole counts than the rest, and over how many tokens that falls to a third.
const MORE: f32 = 4.0;
const REACH: f32 = 24.0;
/// The least room worth filling with another document.
const MIN_ROOM: usize = 24;

impl Documents {
    /// Over files, at least one of them not empty, which `packages` numbers as they are here.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        files: &[SourceFile],
        packages: Arc<Packages>,
        data: &DataRecipe,
        seed: u64,
    ) -> Self {
        let n_tokens = files.iter().map(|file| tokenizer.encode(file.text.as_bytes()).len()).sum();
        let lengths: Vec<usize> = files.iter().map(|file| file.text.len()).collect();
        Self::over(tokenizer, Texts::Files(files.to_vec()), packages, &lengths, n_tokens, (data, seed))
    }

    /// Over the documents of shards with these indices, at least one of them not empty; `packages` numbers them as the
    /// shards do. Each is turned back into text where it is drawn from, whole: cuts are at characters and lines, which
    /// token borders do not follow.
    pub fn from_shards(
        tokenizer: Arc<Tokenizer>,
        shards: Arc<Shards>,
        doc_indices: Vec<usize>,
        packages: Arc<Packages>,
        data: &DataRecipe,
        seed: u64,
    ) -> Self {
        let documents = doc_indices.iter().map(|doc_idx| &shards.documents()[*doc_idx]);
        let n_tokens = documents.clone().map(|document| document.n_tokens).sum();
        let lengths: Vec<usize> = documents.map(|document| document.n_bytes).collect();
        Self::over(tokenizer, Texts::Shards(shards, doc_indices), packages, &lengths, n_tokens, (data, seed))
    }

    fn over(
        tokenizer: Arc<Tokenizer>,
        texts: Texts,
        packages: Arc<Packages>,
        lengths: &[usize],
        n_tokens: usize,
        (data, seed): (&DataRecipe, u64),
    ) -> Self {
        let mut n_bytes = 0;
        let mut offsets = Vec::with_capacity(lengths.len());
        for len in lengths {
            offsets.push(n_bytes);
            n_bytes += len;
        }
        let bytes_per_token = n_bytes as f64 / n_tokens.max(1) as f64;
        let DataRecipe { seq_len, fim_rate, snippet_rate, declared_rate, .. } = *data;
        Self {
            tokenizer,
            texts,
            packages,
            offsets,
            n_bytes,
            bytes_per_token,
            seq_len,
            fim_rate,
            snippet_rate,
            declared_rate,
            seed,
        }
    }

    /// The number that packages and shards give a file.
    fn doc_idx(&self, file_idx: usize) -> usize {
        match &self.texts {
            Texts::Files(_) => file_idx,
            Texts::Shards(_, doc_indices) => doc_indices[file_idx],
        }
    }

    fn name(&self, doc_idx: usize) -> &str {
        match &self.texts {
            Texts::Files(files) => &files[doc_idx].name,
            Texts::Shards(shards, _) => &shards.documents()[doc_idx].name,
        }
    }

    fn text(&self, doc_idx: usize) -> Cow<'_, str> {
        match &self.texts {
            Texts::Files(files) => Cow::Borrowed(&files[doc_idx].text),
            Texts::Shards(shards, _) => Cow::Owned(shards.text(doc_idx, &self.tokenizer)),
        }
    }

    /// Bytes of a file.
    fn len(&self, doc_idx: usize) -> usize {
        match &self.texts {
            Texts::Files(files) => files[doc_idx].text.len(),
            Texts::Shards(shards, _) => shards.documents()[doc_idx].n_bytes,
        }
    }

    /// The sequences `range` of one step.
    pub fn batch(&self, step: usize, range: Range<usize>) -> Batch {
        let mut packed = PackedRows::default();
        for sequence in range {
            let mut rng = Rng::new(self.seed ^ (step as u64).rotate_left(40) ^ (sequence as u64).rotate_left(20));
            // A stream counts its state up: from states as near as places are, two streams might meet.
            let mut rng = Rng::new(rng.next_u64());
            self.fill(&mut rng, &mut packed);
        }
        packed.finish(self.seq_len)
    }

    fn fill(&self, rng: &mut Rng, packed: &mut PackedRows) {
        let mut room = self.seq_len;
        while room > 0 {
            let document = self.draw(rng, room.max(MIN_ROOM));
            room -= packed.push(&document, self.seq_len - room, room);
        }
    }

    /// A document of about `room` tokens, perhaps more.
    fn draw(&self, rng: &mut Rng, room: usize) -> PromptDocument {
        let at = rng.below(self.n_bytes);
        let file_idx = self.offsets.partition_point(|offset| *offset <= at) - 1;
        let doc_idx = self.doc_idx(file_idx);
        let text = self.text(doc_idx);
        let at = at - self.offsets[file_idx];
        let budget = self.bytes_of(room);
        if rng.uniform() >= self.fim_rate {
            return PromptDocument { tokens: self.stretch(text.as_bytes(), at, budget), is_hole: false };
        }
        // A short room at the end of a sequence is left to the hole.
        let has_room = room > self.seq_len / 2;
        let mut comes = |rate: f32| rng.uniform() < rate && has_room;
        let (has_snippet, is_declared) = (comes(self.snippet_rate), comes(self.declared_rate));
        let snippet = if has_snippet { self.snippet(rng, doc_idx) } else { None };
        let n_taken = snippet.as_ref().map_or(0, |(path, text)| path.len() + text.len());
        let mut budget = budget.saturating_sub(n_taken);
        let mut most_declared = 0;
        if is_declared {
            most_declared = (self.bytes_of(self.seq_len) as f32 * (0.07 + 0.07 * rng.uniform())) as usize;
            budget = budget.saturating_sub(most_declared);
        }
        let window = hole(rng, text.as_bytes(), at, budget);
        let declared = self.declared(rng, doc_idx, &text, window, most_declared);
        let mut snippets: Vec<Snippet<'_>> = Vec::new();
        snippets.extend(snippet.as_ref().map(|(path, text)| Snippet { path, text }));
        snippets.extend((!declared.is_empty()).then_some(Snippet { path: DECLARED, text: &declared }));
        let HoleWindow { start, cut, end } = window;
        let tokens = document(&self.tokenizer, &snippets, &text.as_bytes()[start..end], cut - start);
        PromptDocument { tokens, is_hole: true }
    }

    fn bytes_of(&self, n_tokens: usize) -> usize {
        (n_tokens as f64 * self.bytes_per_token) as usize
    }

    /// Whole lines of another file of the package and its name, of an eighth to a quarter of a sequence; `None` if
    /// there is none.
    fn snippet(&self, rng: &mut Rng, doc_idx: usize) -> Option<(&str, String)> {
        let package = self.packages.of_file(doc_idx)?;
        let others = || package.files.iter().copied().filter(|other| *other != doc_idx);
        let mut at = rng.below(others().map(|other| self.len(other)).sum::<usize>().max(1));
        let other = others().find(|other| {
            let is_there = at < self.len(*other);
            at -= if is_there { 0 } else { self.len(*other) };
            is_there
        })?;
        let text = self.text(other);
        let start = line_start(text.as_bytes(), at);
        let n_bytes = self.bytes_of(self.seq_len) as f32 * (0.125 + 0.125 * rng.uniform());
        let end = char_boundary(text.as_bytes(), (start + n_bytes as usize).min(text.len()));
        let window = &text[start..end];
        let window = window.rfind('\n').map_or(window, |line_end| &window[..=line_end]);
        Some((self.name(other), window.to_owned()))
    }

    /// Declarations of the types named near a line in the later half of the text before the cut: in a prompt they are
    /// named before the cursor, and the text at the cursor is not known.
    fn declared(&self, rng: &mut Rng, doc_idx: usize, text: &str, hole: HoleWindow, most_bytes: usize) -> String {
        let Some(package) = self.packages.of_file(doc_idx).filter(|_| most_bytes > 0) else { return String::new() };
        let HoleWindow { start, cut, .. } = hole;
        let at = cut - ((cut - start) as f32 * 0.5 * rng.uniform()) as usize;
        let before = &text[..line_start(text.as_bytes(), at)];
        let after = &text[char_boundary(text.as_bytes(), cut)..];
        declarations(&package.symbols, self.name(doc_idx), before, after, most_bytes)
    }

    /// Text from the line around `at` on, as if there were nothing after the cursor.
    fn stretch(&self, text: &[u8], at: usize, budget: usize) -> Vec<TokenId> {
        // Near its start a file is read from its start, as the engine scores it.
        let start = if at < budget / 2 { 0 } else { line_start(text, at) };
        let end = (start + budget * 5 / 4).min(text.len());
        let window = &text[start..end];
        let mut tokens = document(&self.tokenizer, &[], window, window.len());
        if end < text.len() && tokens.last() == Some(&END) {
            tokens.pop(); // the file continues
        }
        tokens
    }
}

/// A window of a text, and where in it the middle of a hole ends.
#[derive(Clone, Copy)]
struct HoleWindow {
    start: usize,
    cut: usize,
    end: usize,
}

/// A hole whose middle ends at a cut near `at`, with the text on both sides.
fn hole(rng: &mut Rng, text: &[u8], at: usize, budget: usize) -> HoleWindow {
    // Half of the holes end where a line does, as most completions do; the others anywhere.
    let cut = if rng.uniform() < 0.5 {
        text[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |i| at + i)
    } else {
        char_boundary(text, at)
    };
    let after = (budget as f32 * 0.3 * rng.uniform()) as usize;
    let before = (budget * 9 / 10).saturating_sub(after);
    let start = if cut <= before { 0 } else { line_start(text, cut - before) };
    let end = char_boundary(text, (cut + after).min(text.len()));
    HoleWindow { start, cut, end }
}

/// The start of the line that holds `at`.
fn line_start(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1)
}

/// The nearest start of a character at or before `at`.
fn char_boundary(text: &[u8], mut at: usize) -> usize {
    while at > 0 && at < text.len() && text[at] & 0xC0 == 0x80 {
        at -= 1;
    }
    at
}

/// A text in the prompt's format.
struct PromptDocument {
    tokens: Vec<TokenId>,
    /// Whether it ends at a cursor, with the text after that given first.
    is_hole: bool,
}

impl PromptDocument {
    /// How much the token at `idx` counts as a target. The last tokens before the cursor count more: prompts
    /// end there, and they are few of a hole's tokens.
    fn weight(&self, idx: usize) -> f32 {
        match self.is_hole {
            true => 1.0 + MORE * (-((self.tokens.len() - 1 - idx) as f32) / REACH).exp(),
            false => 1.0,
        }
    }
}

#[derive(Default)]
struct PackedRows {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    starts: Vec<u32>,
}

impl PackedRows {
    /// Appends at most `room` tokens of a document that starts at `start` of its sequence; returns how many.
    fn push(&mut self, document: &PromptDocument, start: usize, room: usize) -> usize {
        let PromptDocument { tokens, .. } = document;
        let len = tokens.len().min(room);
        for (i, token) in tokens[..len].iter().enumerate() {
            self.tokens.push(u32::from(*token));
            let next = tokens.get(i + 1).copied();
            self.weights.push(if i + 1 < tokens.len() { document.weight(i + 1) } else { 1.0 });
            // SNIPPET, SUFFIX and PREFIX are given, never predicted; END is.
            let target = next.filter(|t| *t >= N_SPECIALS || *t == END);
            self.targets.push(target.map_or(NO_TARGET, u32::from));
            self.starts.push(start as u32);
        }
        len
    }

    fn finish(self, seq_len: usize) -> Batch {
        let [tokens, targets, starts] = [self.tokens, self.targets, self.starts].map(Arc::new);
        Batch { tokens, targets, weights: Arc::new(self.weights), starts, seq_len }
    }
}

/// A text as sequences that together have each of its tokens as a target once.
/// The first starts as a whole document, the others in the middle of the text.
pub fn windows(tokenizer: &Tokenizer, text: &[u8], seq_len: usize) -> Vec<Batch> {
    let tokens = document(tokenizer, &[], text, text.len());
    let mut batches = Vec::new();
    let mut at = 0;
    while at + 1 < tokens.len() {
        let end = (at + seq_len).min(tokens.len() - 1);
        let mut packed = PackedRows::default();
        packed.push(&PromptDocument { tokens: tokens[at..=end].to_vec(), is_hole: false }, 0, end - at);
        // What ends the document is not part of the text.
        for target in &mut packed.targets {
            if *target == u32::from(END) {
                *target = NO_TARGET;
            }
        }
        batches.push(packed.finish(end - at));
        at = end;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;
    use crate::data::corpus::Corpus;
    use crate::data::tokenizer::learn;
    use crate::pool::Pool;
    use nanochat_engine::text::tokenizer::{FIRST_BYTE, PREFIX, SNIPPET, SUFFIX};

    /// Files of Rust that do not change when the sources do: what is drawn from them stays the same.
    const SAMPLE: &str = include_str!("documents/schedule.txt");

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), path: name.into(), text: text.into() }
    }

    fn files() -> [SourceFile; 4] {
        let text = include_str!("documents/documents.txt");
        [file("a.rs", text), file("b.rs", "fn übung() {}\n"), file("c.rs", "é"), file("d.rs", SAMPLE)]
    }

    fn data(seq_len: usize, fim_rate: f32, snippet_rate: f32) -> DataRecipe {
        DataRecipe {
            seq_len,
            fim_rate,
            snippet_rate,
            declared_rate: 0.0,
            ..Recipe::load("test").expect("it is built in").data
        }
    }

    fn packages(files: &[SourceFile]) -> Arc<Packages> {
        let pool = Pool::new(1).expect("threads start");
        let names = files.iter().map(|file| Some(&*file.name));
        Arc::new(Packages::of(names, |idx| files[idx].text.clone(), &pool))
    }

    fn documents(seq_len: usize, fim_rate: f32, snippet_rate: f32) -> Documents {
        let data = data(seq_len, fim_rate, snippet_rate);
        Documents::new(Arc::new(Tokenizer::bytes()), &files(), packages(&files()), &data, 7)
    }

    #[test]
    fn shards_give_the_same_batches_as_the_text() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let pool = Pool::new(2).expect("threads start");
        let tokenizer = Arc::new(learn([SAMPLE].into_iter(), 700).expect("text has pairs"));
        let mut corpus = Corpus::split(files().to_vec(), 0.1, 3).expect("four files");
        corpus.dependencies = vec![file("dep-1.0.0/src/lib.rs", "/// Größe\npub fn größe() -> usize {\n    7\n}\n")];
        let trained: Vec<SourceFile> = corpus.trained().cloned().collect();
        let doc_indices: Vec<usize> = (0..trained.len()).collect();
        let data = data(128, 0.6, 0.5);
        let packages = packages(&trained);
        let from_text = Documents::new(tokenizer.clone(), &trained, packages.clone(), &data, 7);
        let (shards, _) = Shards::of(folder.path(), &corpus, &tokenizer, &pool).expect("writable");
        let shards = Arc::new(shards);
        let from_shards =
            Documents::from_shards(tokenizer.clone(), shards, doc_indices.clone(), packages.clone(), &data, 7);
        // Once more, from what the first run kept.
        let (shards, made) = Shards::of(folder.path(), &corpus, &tokenizer, &pool).expect("readable");
        assert_eq!(made.n_tokenised, 0);
        let again = Documents::from_shards(tokenizer, Arc::new(shards), doc_indices, packages, &data, 7);
        for step in 0..40 {
            let batch = from_text.batch(step, 0..4);
            for other in [from_shards.batch(step, 0..4), again.batch(step, 0..4)] {
                assert_eq!(batch.tokens, other.tokens);
                assert_eq!(batch.targets, other.targets);
                assert_eq!(batch.starts, other.starts);
            }
        }
    }

    #[test]
    fn a_batch_follows_from_its_place_alone() {
        let documents = documents(64, 0.5, 0.5);
        let batch = documents.batch(3, 0..4);
        assert_eq!(batch.tokens.len(), 4 * 64);
        let again = documents.batch(3, 2..4);
        assert_eq!(batch.tokens[2 * 64..], again.tokens[..]);
        assert_ne!(batch.tokens, documents.batch(4, 0..4).tokens);
    }

    #[test]
    fn targets_are_the_next_tokens_of_the_same_document() {
        let batch = documents(64, 0.5, 0.5).batch(0, 0..64);
        assert!(batch.n_targets() > 0);
        for i in 0..batch.tokens.len() - 1 {
            let target = batch.targets[i];
            let last_of_sequence = i % 64 == 63;
            if target != NO_TARGET && !last_of_sequence && batch.starts[i] == batch.starts[i + 1] {
                assert_eq!(target, batch.tokens[i + 1]);
            }
            assert!(batch.starts[i] as usize <= i % 64);
            assert!(target == NO_TARGET || target == u32::from(END) || target >= u32::from(N_SPECIALS));
        }
    }

    #[test]
    fn holes_have_a_suffix_that_joins_the_prefix() {
        let documents = documents(64, 1.0, 0.0);
        let mut rng = Rng::new(1);
        let mut n_with_suffix = 0;
        for _ in 0..100 {
            let tokens = documents.draw(&mut rng, 64).tokens;
            let prefix_at = tokens.iter().position(|t| *t == PREFIX).expect("a document has a prefix");
            assert_eq!(tokens[0], SUFFIX);
            assert_eq!(tokens.last(), Some(&END));
            let bytes = |tokens: &[TokenId]| -> Vec<u8> {
                tokens.iter().filter(|t| **t >= FIRST_BYTE).map(|t| (t - FIRST_BYTE) as u8).collect()
            };
            let whole = [bytes(&tokens[prefix_at..]), bytes(&tokens[..prefix_at])].concat();
            let whole = String::from_utf8(whole).expect("cut at characters");
            assert!(files().iter().any(|file| file.text.contains(&whole)), "{whole:?}");
            n_with_suffix += usize::from(prefix_at > 1);
        }
        assert!(n_with_suffix > 50);
    }

    #[test]
    fn snippets_are_lines_of_another_file_and_leave_room_for_the_hole() {
        let documents = documents(512, 1.0, 0.5);
        let mut rng = Rng::new(1);
        let text =
            |tokens: &[TokenId]| String::from_utf8(documents.tokenizer.decode(tokens)).expect("whole characters");
        let (mut n_snippets, mut n_long) = (0, 0);
        for _ in 0..200 {
            let tokens = documents.draw(&mut rng, 512).tokens;
            let at = |special| tokens.iter().position(|token| *token == special);
            let (suffix, prefix) = (at(SUFFIX).expect("a suffix"), at(PREFIX).expect("a prefix"));
            if at(SNIPPET).is_none() {
                continue;
            }
            n_snippets += 1;
            assert!(tokens.len() <= 512 + 120, "a hole starts with its line: {}", tokens.len());
            let snippet = text(&tokens[..suffix]);
            let (path, lines) = snippet.split_once('\n').expect("a path line");
            let files = files();
            let other = files.iter().find(|file| file.name == path).expect("a file's name");
            assert!(other.text.contains(lines) && lines.len() <= 128, "{lines:?}");
            n_long += usize::from(lines.len() >= 32);
            let whole = text(&tokens[prefix..]) + &text(&tokens[suffix..prefix]);
            assert!(files.iter().any(|file| file.name != path && file.text.contains(&whole)), "{whole:?}");
        }
        assert!((60..140).contains(&n_snippets), "{n_snippets} of 200");
        assert!(n_long * 10 > n_snippets * 8, "{n_long} of {n_snippets}");
        assert!(!documents.draw(&mut rng, 256).tokens.contains(&SNIPPET));
    }

    #[test]
    fn what_types_nearby_have_comes_before_a_hole() {
        let types = "pub struct Store {\n    pub root: u8,\n}\n";
        let text = "fn f(store: &Store) {\n    store.root;\n}\n".repeat(40);
        let files = [file("src/a.rs", &text), file("src/types.rs", types)];
        let data = DataRecipe { declared_rate: 0.5, ..data(512, 1.0, 0.0) };
        let documents = Documents::new(Arc::new(Tokenizer::bytes()), &files, packages(&files), &data, 7);
        let mut rng = Rng::new(1);
        let mut n_declared = 0;
        for _ in 0..200 {
            let tokens = documents.draw(&mut rng, 512).tokens;
            assert!(tokens.len() <= 512 + 60, "a hole starts with its line: {}", tokens.len());
            if tokens[0] == SNIPPET {
                let text = String::from_utf8(documents.tokenizer.decode(&tokens)).expect("whole characters");
                assert!(text.starts_with("types\nStore .root: u8\n"), "{text}");
                n_declared += 1;
            }
        }
        assert!((60..140).contains(&n_declared), "{n_declared} of 200");
    }

    #[test]
    fn the_end_of_a_hole_counts_more() {
        let weight = |idx, is_hole| PromptDocument { tokens: vec![END; 400], is_hole }.weight(idx);
        assert_eq!(weight(399, true), 1.0 + MORE);
        assert!((399 - 24..399).all(|idx| weight(idx, true) < weight(idx + 1, true) && weight(idx, true) > 2.4));
        assert!(weight(0, true) < 1.001 && weight(399, false) == 1.0);
        let weights = |fim_rate| documents(96, fim_rate, 0.0).batch(7, 0..4).weights;
        assert!(weights(0.0).iter().all(|weight| *weight == 1.0));
        assert!(weights(1.0).iter().sum::<f32>() > 1.5 * 96.0 * 4.0);
    }

    #[test]
    fn windows_cover_a_text_once() {
        let text = SAMPLE.as_bytes();
        let batches = windows(&Tokenizer::bytes(), text, 100);
        let targets: usize = batches.iter().map(Batch::n_targets).sum();
        assert_eq!(targets, text.len());
    }
}
