//! Held-out figures: quick ones from the training graph, final ones from the engine that will serve the model.

use std::collections::HashMap;
use std::sync::Arc;

use nanochat_engine::complete::Predictors;
use nanochat_engine::memory::{Blend, Library, Memory, Samples, Schedule, Tier};
use nanochat_engine::score::Score;
use nanochat_engine::text::tokenizer::TokenId;
use nanochat_engine::workspace::sources::SourceFile;
use nanochat_engine::{Cancel, Cancelled, Checkpoint, Completer, Tokenizer};
use nanochat_eval::stats::{self, Value};

use crate::data::batch::{Batch, NO_TARGET};
use crate::data::documents::windows;
use crate::data::shards::{Shards, Split};
use crate::model::Graph;
use crate::pool::Pool;

/// Held-out text for measuring while training.
///
/// ```
/// use nanochat_engine::Tokenizer;
/// use nanochat_engine::workspace::sources::SourceFile;
/// use nanochat_train::measure::ValidationSet;
/// use nanochat_train::model::{Graph, Params};
/// use nanochat_train::pool::Pool;
///
/// let text = "fn main() {}\n".to_owned();
/// let file = SourceFile { name: "main.rs".into(), path: "main.rs".into(), text };
/// let held_out = ValidationSet::new(&Tokenizer::bytes(), &[file], 32, 8);
/// let params = Params::init(&"d32 l1 h1 kv1 ff32 v264 n1".parse()?, 1);
/// let graph = Graph::new(&params, nanochat_kernels::Precision::F32);
/// let bits = held_out.bits_per_byte(&graph, &Pool::new(1)?)?;
/// assert!((bits - 8.0).abs() < 1.0, "fresh weights know nothing of bytes: {bits}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ValidationSet {
    batches: Vec<Batch>,
    n_bytes: usize,
}

impl ValidationSet {
    /// At most `n_windows` of `seq_len` tokens, spread evenly over the files.
    pub fn new(tokenizer: &Tokenizer, files: &[SourceFile], seq_len: usize, n_windows: usize) -> Self {
        let all: Vec<Batch> = files.iter().flat_map(|file| windows(tokenizer, file.text.as_bytes(), seq_len)).collect();
        let step = all.len().div_ceil(n_windows).max(1);
        Self::of(tokenizer, all.into_iter().step_by(step).collect())
    }

    /// A set of these batches, whose targets are measured.
    pub fn of(tokenizer: &Tokenizer, batches: Vec<Batch>) -> Self {
        let targets = batches.iter().flat_map(|batch| batch.targets.iter().filter(|t| **t != NO_TARGET));
        let n_bytes = targets.map(|t| tokenizer.token_bytes(*t as TokenId).len()).sum();
        Self { batches, n_bytes }
    }

    /// Bits per byte of the model alone. Windows other than the first of a file start without the text before them, so
    /// this is a little above what the engine scores.
    pub fn bits_per_byte(&self, graph: &Graph<'_>, pool: &Pool) -> candle_core::Result<f64> {
        let losses = pool.map(self.batches.len(), |idx| {
            let loss = graph.loss(&self.batches[idx], 1.0, false)?;
            Ok::<f64, candle_core::Error>(f64::from(loss.to_vec1::<f32>()?[0]))
        });
        let nats: f64 = losses.into_iter().sum::<candle_core::Result<f64>>()?;
        Ok(nats / std::f64::consts::LN_2 / self.n_bytes as f64)
    }
}

/// Held-out text in two halves: one to calibrate the blend on, one to report on. Whole files where there are
/// several; a single one is cut at the line in its middle.
pub fn halves(held_out: &[SourceFile]) -> (Vec<SourceFile>, Vec<SourceFile>) {
    if let [file] = held_out {
        let middle = file.text.as_bytes()[..file.text.len() / 2].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let part = |text: &str| SourceFile { text: text.to_owned(), ..file.clone() };
        let (calibrate, report) = file.text.split_at(middle);
        let calibrate = (!calibrate.is_empty()).then(|| part(calibrate));
        return (calibrate.into_iter().collect(), vec![part(report)]);
    }
    // The largest first to whichever half is smaller: the halves come out nearly equal.
    let mut order: Vec<&SourceFile> = held_out.iter().collect();
    order.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then_with(|| a.name.cmp(&b.name)));
    let (mut calibrate, mut report) = (Vec::new(), Vec::new());
    let size = |files: &[SourceFile]| files.iter().map(|file| file.text.len()).sum::<usize>();
    for file in order {
        if size(&report) <= size(&calibrate) { report.push(file.clone()) } else { calibrate.push(file.clone()) }
    }
    (calibrate, report)
}

/// Name of the file to leave out of [`memory`] while scoring: none, as the memory holds no held-out text. In a
/// workspace of one file the held-out part has the name of the part that the memory holds.
const NO_FILE: &str = "";

/// The memory over the training files, in the same tiers as when serving.
pub fn memory(shards: &Shards) -> Arc<Memory> {
    let streams = |splits: &[Split]| -> Vec<(String, Vec<TokenId>)> {
        let documents = shards.documents().iter().enumerate().filter(|(_, document)| splits.contains(&document.split));
        documents.map(|(idx, document)| (document.name.clone(), shards.tokens(idx))).collect()
    };
    let memory = Memory::build(streams(&[Split::Train]));
    let dependencies = streams(&[Split::Dependency, Split::Replay]);
    Arc::new(match dependencies.is_empty() {
        true => memory,
        false => memory.with_tier(Tier::Dependencies, Library::index(dependencies)),
    })
}

/// Calibrates the blend on `files`, which neither model nor memory has seen. At most [`MAX_SCORED`] bytes.
pub fn calibrate(
    checkpoint: &Checkpoint,
    memory: &Arc<Memory>,
    files: &[SourceFile],
    n_threads: usize,
    cancel: &Cancel,
) -> Result<Blend, Cancelled> {
    let mut completer = Completer::new(checkpoint, n_threads);
    completer.set_memory(memory.clone());
    let (mut beside, mut alone) = (Samples::default(), Samples::default());
    for text in scored(files) {
        cancel.check()?;
        completer.sample(NO_FILE, text, &mut beside, &mut alone);
    }
    let mut blend = checkpoint.blend.clone();
    blend.calibrate(&beside, &alone, Schedule::ADAPT);
    Ok(blend)
}

/// Bits per byte of the held-out text that neither training nor the calibration of the blend has seen (half of the
/// held-out files), as the engine scores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HeldOut {
    /// Bits per byte of the model alone.
    pub model: f64,
    /// Bits per byte of the memory alone, which indexes the training files.
    pub memory: f64,
    /// Bits per byte of the blend of model and memory.
    pub blend: f64,
    /// Bits per byte of the unigram distribution of the held-out tokens themselves: a lower bound for a model that has
    /// learned nothing but token frequencies.
    pub unigram: f64,
    /// Bits per byte of the model alone on held-out files of dependencies, where dependencies are replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general: Option<f64>,
}

/// Cost of a held-out file, in bits.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FileBits {
    /// Name of the file in its workspace.
    pub name: String,
    /// Number of bytes scored.
    pub n_bytes: usize,
    /// Bits of the model alone.
    pub model: f64,
    /// Bits of the blend.
    pub blend: f64,
}

/// The figures of all files together, and of each.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Bits per byte over all files together.
    pub total: HeldOut,
    /// Bits of each file.
    pub files: Vec<FileBits>,
}

impl Figures {
    /// How much less `after` costs than this, with intervals over files; `None` where there are too few of them, or
    /// others.
    pub fn gain(&self, after: &Self) -> Option<Gain> {
        let pairs: Vec<_> = self.files.iter().zip(&after.files).filter(|(a, b)| a.name == b.name).collect();
        // One file says nothing of how files differ.
        if pairs.len() < 2 || pairs.len() != self.files.len().max(after.files.len()) {
            return None;
        }
        let gain = |bits: fn(&FileBits) -> f64| {
            let parts = pairs.iter().map(|(b, a)| (b.name.as_str(), bits(b) - bits(a), b.n_bytes as f64));
            stats::ratio(&parts.collect::<Vec<_>>(), GAIN_SEED)
        };
        Some(Gain { model: gain(|file| file.model), blend: gain(|file| file.blend) })
    }
}

/// Seed of the resampling.
const GAIN_SEED: u64 = 1;

/// Bits per byte that a run has saved on files that it held out, each with a 95 % interval over these files.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Gain {
    /// Bits saved by the model alone.
    pub model: Value,
    /// Bits saved by the blend.
    pub blend: Value,
}

/// Bits per byte of a checkpoint on `files`, as it will be served. At most [`MAX_SCORED`] bytes.
pub fn held_out(
    checkpoint: &Checkpoint,
    memory: &Arc<Memory>,
    files: &[SourceFile],
    n_threads: usize,
    cancel: &Cancel,
) -> Result<Figures, Cancelled> {
    let mut completer = Completer::new(checkpoint, n_threads);
    completer.set_memory(memory.clone());
    let (mut of_files, mut memory) = (Vec::with_capacity(files.len()), Score::default());
    let bits = |p: f32| -f64::from(p.max(f32::MIN_POSITIVE)).log2();
    for (file, text) in files.iter().zip(scored(files)) {
        cancel.check()?;
        let mut of_file = FileBits { name: file.name.clone(), n_bytes: text.len(), model: 0.0, blend: 0.0 };
        completer.set_predictors(Predictors::Blend);
        completer.observe(NO_FILE, text, &mut |seen| {
            of_file.model += bits(seen.p_model);
            of_file.blend += bits(seen.p);
        });
        completer.set_predictors(Predictors::MemoryOnly);
        memory += completer.score(NO_FILE, text);
        of_files.push(of_file);
    }
    let n_bytes = of_files.iter().map(|file| file.n_bytes).sum::<usize>() as f64;
    let total = HeldOut {
        model: of_files.iter().map(|file| file.model).sum::<f64>() / n_bytes,
        memory: memory.bits_per_byte(),
        blend: of_files.iter().map(|file| file.blend).sum::<f64>() / n_bytes,
        unigram: unigram(&checkpoint.tokenizer, scored(files)),
        general: None,
    };
    Ok(Figures { total, files: of_files })
}

/// Bytes that a figure is taken on, in some seconds.
pub const MAX_SCORED: usize = 128 << 10;

/// The start of each file, in equal parts where all are more than [`MAX_SCORED`] bytes.
fn scored(files: &[SourceFile]) -> impl Iterator<Item = &[u8]> {
    let total: usize = files.iter().map(|file| file.text.len()).sum();
    files.iter().map(move |file| {
        let share = (file.text.len() as f64 * (MAX_SCORED as f64 / total as f64).min(1.0)) as usize;
        &file.text.as_bytes()[..share]
    })
}

/// Entropy of the files' own token frequencies, in bits per byte.
fn unigram<'a>(tokenizer: &Tokenizer, texts: impl Iterator<Item = &'a [u8]>) -> f64 {
    let mut counts: HashMap<TokenId, usize> = HashMap::new();
    let (mut n_tokens, mut n_bytes) = (0usize, 0usize);
    for text in texts {
        let tokens = tokenizer.encode(text);
        n_tokens += tokens.len();
        n_bytes += text.len();
        for token in tokens {
            *counts.entry(token).or_default() += 1;
        }
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable(); // sums in one order
    let bits: f64 = counts.iter().map(|n| *n as f64 * (n_tokens as f64 / *n as f64).log2()).sum();
    bits / n_bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), path: name.into(), text: text.into() }
    }

    #[test]
    fn the_unigram_entropy_of_two_equal_bytes_is_one_bit() {
        assert_eq!(unigram(&Tokenizer::bytes(), scored(&[file("a", "abab"), file("b", "ba")])), 1.0);
        assert_eq!(unigram(&Tokenizer::bytes(), scored(&[file("a", "aaaa")])), 0.0);
    }

    #[test]
    fn halves_are_disjoint_and_the_report_is_never_empty() {
        let (calibrate, report) = halves(&[file("a", "one\ntwo\nthree\nfour\n")]);
        assert_eq!((calibrate[0].text.as_str(), report[0].text.as_str()), ("one\ntwo\n", "three\nfour\n"));
        let (calibrate, report) = halves(&[file("a", "no newline")]);
        assert_eq!((calibrate.len(), report.len()), (0, 1));
        let (calibrate, report) = halves(&[file("a", "aa"), file("b", "bbb"), file("c", "cc")]);
        assert_eq!(report.iter().map(|f| &f.name).collect::<Vec<_>>(), ["b"]);
        assert_eq!(calibrate.iter().map(|f| &f.name).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn a_gain_has_an_interval_over_files_and_one_file_has_none() {
        let of = |bits: &[f64]| Figures {
            total: HeldOut::default(),
            files: (0..)
                .zip(bits)
                .map(|(i, bits)| FileBits { name: format!("f{i}.rs"), n_bytes: 100, model: *bits, blend: bits / 2.0 })
                .collect(),
        };
        let gain = of(&[100.0, 120.0, 90.0]).gain(&of(&[80.0, 90.0, 80.0])).expect("three files");
        assert!((gain.model.value - 0.2).abs() < 1e-9 && (gain.blend.value - 0.1).abs() < 1e-9, "{gain:?}");
        assert!(gain.model.low < gain.model.value && gain.model.value < gain.model.high, "{gain:?}");
        assert!(of(&[100.0]).gain(&of(&[80.0])).is_none());
        assert!(of(&[100.0, 90.0]).gain(&of(&[80.0])).is_none(), "other files");
    }

    #[test]
    fn a_validation_set_counts_the_bytes_of_its_targets() {
        let watch = ValidationSet::new(&Tokenizer::bytes(), &[file("a", "fn main() {}\n")], 8, 100);
        assert_eq!(watch.n_bytes, 13);
        assert_eq!(watch.batches.iter().map(Batch::n_targets).sum::<usize>(), 13);
    }
}
