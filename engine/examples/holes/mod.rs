//! Lines of a crate's files to be completed: what the examples that calibrate read.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use nanochat_engine::rng::Rng;
use nanochat_engine::sources::{Role, SourceFile};
use nanochat_engine::{Memory, Sources, Tokenizer};

/// Files of one crate, and lines of one file, at most: large crates shall not outvote small ones.
const MAX_FILES: usize = 12;
const MAX_LINES: usize = 10;

/// The files of one crate.
pub(crate) struct Crate(Vec<SourceFile>);

impl Crate {
    pub(crate) fn read(folder: &Path) -> Self {
        Self(Sources::folder(folder).collect(&[Role::Member]).0)
    }

    /// A memory of all files; the one that is written is left out by its name.
    pub(crate) fn memory(&self, tokenizer: &Tokenizer) -> Arc<Memory> {
        let streams = self.0.iter().map(|file| (file.name.clone(), tokenizer.encode(file.text.as_bytes()))).collect();
        Arc::new(Memory::build(streams))
    }

    /// Files that are not small, and lines in them.
    pub(crate) fn holes(&self) -> Vec<(&SourceFile, Vec<Range<usize>>)> {
        let large: Vec<&SourceFile> = self.0.iter().filter(|file| file.text.len() >= 2048).collect();
        let mut rng = Rng::new(20_261_123);
        let some = large.iter().step_by(large.len().div_ceil(MAX_FILES).max(1));
        some.map(|file| (*file, holes(&file.text, &mut rng))).collect()
    }
}

/// Lines to be completed, whole or from a character of their middle half on.
fn holes(text: &str, rng: &mut Rng) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        let first = start + line.len() - line.trim_start().len();
        start += line.len();
        let n_letters = content.chars().filter(|c| c.is_alphanumeric()).count();
        if n_letters >= 4 && !content.starts_with("//") && first > start - line.len() {
            lines.push(first..first + content.len());
        }
    }
    rng.shuffle(&mut lines);
    lines.truncate(MAX_LINES);
    for line in &mut lines {
        if rng.below(2) == 0 {
            let at = line.start + line.len() / 4 + rng.below(line.len() / 2 + 1);
            line.start = text.floor_char_boundary(at).max(line.start);
        }
    }
    lines
}
