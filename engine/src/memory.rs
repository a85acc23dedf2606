//! What was written before, near and far: the longest match of the context in each tier, and what followed it.
//!
//! ```text
//! File          the live buffer            LiveBuffer: links between equal contexts, changed with each edit
//! Open          the other open files       Index on the heap
//! Workspace     its other files            Index on the heap
//! Dependencies  the locked sources         Library: an Index in a mapped file that all servers share
//! Std           the standard library       the same
//!
//! context → Lookup (per tier: how long it matched, what followed) → Blend (mixed into the model's distribution)
//! context + suffix → InfillCandidate (rests of lines between the same text on both sides)
//! ```
//!
//! With the texts goes what their types have: [`crate::symbols`].
//!
//! A file counts once, in the nearest tier that has it.

mod lookup;
mod infill;
pub(crate) mod index;
mod buffer;
mod blend;
mod calibrate;

use std::ops::Range;
use std::sync::Arc;

use crate::Tokenizer;
pub use crate::symbols::Symbols;
use crate::text::SourceFile;
use crate::text::tokenizer::TokenId;
pub use crate::tier::{N_TIERS, Tier};
#[cfg(test)]
pub(crate) use blend::N_WEIGHTS;
pub use blend::{Blend, BlendError, Mixture};
pub use buffer::LiveBuffer;
pub use calibrate::{Samples, Schedule};
use index::Index;
pub use infill::{InfillCandidate, InfillQuery};
pub use lookup::{Lookup, Order};

/// The longest match that is looked for, in tokens.
pub const MAX_MATCH: usize = 32;

/// Token streams of files, indexed by their contexts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    live: Option<Arc<LiveBuffer>>,
    /// Names of the files of the open tier.
    open: Arc<[String]>,
    /// By tier; that of the live file stays empty.
    tiers: [Vec<Shard>; N_TIERS],
    symbols: [Symbols; N_TIERS],
}

/// One index of a tier.
#[derive(Clone, Debug)]
struct Shard {
    index: Arc<Index>,
    /// Positions of the files that a nearer tier has, in order: they do not count here.
    excluded: Arc<[Range<u32>]>,
}

/// The indexes of one tier: a single one, or those that are ready while it is being made. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Library(pub(crate) Vec<Arc<Index>>);

impl Library {
    /// Indexes files on the heap: (path, tokens).
    pub fn index(files: Vec<(String, Vec<TokenId>)>) -> Self {
        Self(vec![Arc::new(Index::build(files))])
    }

    /// Tokens of all indexed files.
    pub fn n_tokens(&self) -> usize {
        self.0.iter().map(|index| index.n_tokens()).sum()
    }

    /// Bytes of the indexes: in mapped files, and on the heap.
    pub fn n_bytes(&self) -> (usize, usize) {
        self.0
            .iter()
            .map(|index| index.size())
            .fold((0, 0), |(mapped, heap), (n, is_heap)| if is_heap { (mapped, heap + n) } else { (mapped + n, heap) })
    }
}

/// The open files other than the live one, indexed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OpenFiles {
    names: Arc<[String]>,
    library: Library,
}

impl OpenFiles {
    /// Indexes open files, each given as (path, tokens).
    pub fn index(files: Vec<(String, Vec<TokenId>)>) -> Self {
        let names = files.iter().map(|(path, _)| path.clone()).collect();
        Self { names, library: Library::index(files) }
    }
}

impl Memory {
    /// A memory of a workspace's files: (path, tokens). The order does not matter to what is predicted. An `END` inside
    /// a stream is a boundary: it is never predicted and no match crosses it.
    pub fn build(files: Vec<(String, Vec<TokenId>)>) -> Self {
        Self::default().with_tier(Tier::Workspace, Library::index(files))
    }

    /// A memory of a workspace's files: their text, and what their types have.
    ///
    /// ```
    /// use nanochat_engine::memory::{Lookup, Tier};
    /// use nanochat_engine::text::SourceFile;
    /// use nanochat_engine::{Memory, Tokenizer};
    ///
    /// let text = "let total = 0;\nfor item in items {\n    total += item;\n}\n".to_owned();
    /// let file = SourceFile { name: "src/sum.rs".into(), path: "src/sum.rs".into(), text };
    /// let tokenizer = Tokenizer::bytes(); // one token per byte
    /// let memory = Memory::of_files(&[file], &tokenizer);
    ///
    /// let mut lookup = Lookup::default();
    /// memory.lookup(&tokenizer.encode(b"for item in item"), "", &mut lookup);
    /// let longest = &lookup.tiers[Tier::Workspace as usize][0];
    /// assert_eq!(longest.len, 16, "the whole context occurs");
    /// let (token, count) = longest.next[0];
    /// assert_eq!((tokenizer.token_bytes(token), count), (&b"s"[..], 1));
    /// ```
    pub fn of_files(files: &[SourceFile], tokenizer: &Tokenizer) -> Self {
        let stream = |file: &SourceFile| (file.name.clone(), tokenizer.encode(file.text.as_bytes()));
        Self::build(files.iter().map(stream).collect()).with_symbols(Tier::Workspace, Symbols::of_files(files, false))
    }

    /// This memory with the files of a tier replaced.
    ///
    /// # Panics
    /// For [`Tier::File`], which [`Memory::with_buffer`] sets.
    #[must_use]
    pub fn with_tier(mut self, tier: Tier, library: Library) -> Self {
        assert!(tier != Tier::File, "the live file is set by `with_buffer`, not as a library");
        let shards = library.0.into_iter().map(|index| Shard { index, excluded: Arc::default() });
        self.tiers[tier as usize] = shards.collect();
        self.update_excluded();
        self
    }

    /// This memory with these files as the open ones. Their saved copies no longer count.
    #[must_use]
    pub fn with_open(mut self, files: OpenFiles) -> Self {
        self.open = files.names;
        self.with_tier(Tier::Open, files.library)
    }

    /// This memory with the symbols of a tier replaced.
    #[must_use]
    pub fn with_symbols(mut self, tier: Tier, symbols: Symbols) -> Self {
        self.symbols[tier as usize] = symbols;
        self
    }

    /// The symbols of each tier: what its types have.
    pub fn symbols(&self) -> &[Symbols; N_TIERS] {
        &self.symbols
    }

    /// This memory with the live text of one file in place of its saved copy.
    #[must_use]
    pub fn with_buffer(&self, live: Arc<LiveBuffer>) -> Self {
        let mut memory = self.clone();
        memory.live = Some(live);
        memory.update_excluded();
        memory
    }

    /// As [`Memory::with_buffer`], for a file of these tokens. Put `END` where the cursor is, so that the memory does
    /// not hold that the suffix follows the prefix. Costs what the one file costs.
    pub fn with_overlay(&self, path: String, tokens: Vec<TokenId>) -> Self {
        self.with_buffer(Arc::new(LiveBuffer::of_tokens(path, &tokens)))
    }

    /// Tokens that count: those of the live buffer and of all indexes, without excluded files.
    pub fn n_tokens(&self) -> usize {
        let live = self.live.as_ref().map_or(0, |live| live.n_tokens());
        let shards = self.tiers.iter().flatten();
        live + shards
            .map(|shard| shard.index.n_tokens() - shard.excluded.iter().map(ExactSizeIterator::len).sum::<usize>())
            .sum::<usize>()
    }

    /// What each tier knows of what follows `context`, outside the file `exclude`.
    pub fn lookup(&self, context: &[TokenId], exclude: &str, out: &mut Lookup) {
        out.clear();
        if let Some(live) = self.live.as_ref().filter(|live| live.path() != exclude) {
            live.orders(context, &mut out.tiers[Tier::File as usize]);
        }
        self.lookup_indexes(context, exclude, out);
    }

    /// What is known of the live file's token `next` when the file, `tokens`, is read from its start.
    pub fn lookup_within(&self, tokens: &[TokenId], next: usize, out: &mut Lookup) {
        out.clear();
        if let Some(live) = &self.live {
            live.orders_within(next, &mut out.tiers[Tier::File as usize]);
        }
        self.lookup_indexes(&tokens[..next], "", out);
    }

    /// Infill candidates: rests of lines that occur between the text before the cursor and the text after it, or next
    /// to the longest matches of one of the two.
    pub fn infill(&self, query: &InfillQuery<'_>, out: &mut Vec<InfillCandidate>) {
        out.clear();
        let after = &query.after[..query.after.len().min(infill::MOST_TOKENS)];
        let query = InfillQuery { after, ..*query };
        if let Some(live) = &self.live {
            live.infill(&query, out);
        }
        for (tier, shards) in Tier::ALL.into_iter().zip(&self.tiers) {
            shards.iter().for_each(|shard| shard.index.infill(tier, &query, &shard.excluded, out));
        }
    }

    /// Fills all tiers but that of the live file.
    fn lookup_indexes(&self, context: &[TokenId], exclude: &str, out: &mut Lookup) {
        for (shards, orders) in self.tiers.iter().zip(&mut out.tiers) {
            let look = |shard: &Shard, orders: &mut Vec<Order>| {
                let excluded = if exclude.is_empty() { 0..0 } else { shard.index.file(exclude) };
                if excluded.is_empty() {
                    return shard.index.orders(context, &shard.excluded, orders);
                }
                shard.index.orders(context, &sorted_nonempty([&shard.excluded[..], &[excluded]].concat()), orders);
            };
            match shards.as_slice() {
                [] => {}
                [shard] => look(shard, orders),
                shards => {
                    let mut all = Vec::new();
                    for shard in shards {
                        look(shard, orders);
                        all.append(orders);
                    }
                    *orders = merge_orders(all);
                }
            }
        }
    }

    /// Sets what each shard leaves out: the live file, and the open files outside their own tier.
    fn update_excluded(&mut self) {
        let live = self.live.as_ref().map(|live| live.path());
        for (tier, shards) in Tier::ALL.into_iter().zip(&mut self.tiers) {
            let open: &[String] = if tier == Tier::Open { &[] } else { &self.open };
            for shard in shards {
                let names = open.iter().map(String::as_str).chain(live);
                let mut excluded = sorted_nonempty(names.map(|name| shard.index.file(name)).collect());
                excluded.dedup();
                if *shard.excluded != excluded[..] {
                    shard.excluded = excluded.into();
                }
            }
        }
    }
}

/// The ranges that are not empty, sorted by their start.
fn sorted_nonempty(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// The orders of several shards, as if they were one index; for shards that are not joined yet. A shard that skipped a
/// length adds nothing to it.
fn merge_orders(mut all: Vec<Order>) -> Vec<Order> {
    all.sort_by_key(|order| std::cmp::Reverse(order.len));
    let mut orders: Vec<Order> = Vec::new();
    for same in all.chunk_by(|a, b| a.len == b.len) {
        let tokens = same.iter().flat_map(|order| &order.next);
        let tokens = tokens.flat_map(|(token, count)| std::iter::repeat_n(*token, *count as usize)).collect();
        let order = index::order_of(same[0].len as usize, tokens);
        let last = orders.last().map_or(0, |order| order.total);
        if orders.len() < lookup::MAX_ORDERS && last < lookup::ENOUGH && order.total >= 2 * last {
            orders.push(order);
        }
    }
    orders
}

#[cfg(test)]
mod tests;
