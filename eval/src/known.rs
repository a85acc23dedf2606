//! What an answer may be known from: the workspace without its held-out files, by name and by text.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nanochat_engine::sources::SourceFile;
use nanochat_engine::{Memory, Tokenizer};

/// (held out, known). `held_out` names files as [`SourceFile::name`] does. A file whose text is that of a held-out
/// one is in neither part: it would give the answers away.
pub fn known_files(files: Vec<SourceFile>, held_out: &[PathBuf]) -> (Vec<SourceFile>, Vec<SourceFile>) {
    let names: HashSet<String> = held_out.iter().map(|path| slashed(path)).collect();
    let (held, mut known): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| names.contains(&file.name));
    let texts: HashSet<&str> = held.iter().map(|file| file.text.as_str()).collect();
    known.retain(|file| !texts.contains(file.text.as_str()));
    (held, known)
}

/// A memory of these files and no others.
pub fn memory_of(tokenizer: &Tokenizer, files: &[SourceFile]) -> Memory {
    Memory::build(files.iter().map(|file| (file.name.clone(), tokenizer.encode(file.text.as_bytes()))).collect())
}

/// A relative path as [`SourceFile::name`] has it. A `\` is a letter of the name where it separates nothing.
pub(crate) fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), path: name.into(), text: text.into() }
    }

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn a_copy_of_a_held_out_file_is_not_known() {
        let files = vec![file("src/a.rs", "fn a() {}"), file("src/b.rs", "fn a() {}"), file("src/c.rs", "fn c() {}")];
        let (held, known) = known_files(files, &["src/a.rs".into()]);
        assert_eq!((names(&held), names(&known)), (vec!["src/a.rs"], vec!["src/c.rs"]));
        let memory = memory_of(&Tokenizer::bytes(), &known);
        assert_eq!(memory.n_tokens(), known[0].text.len());
    }

    #[cfg(unix)]
    #[test]
    fn a_backslash_is_part_of_a_name() {
        let files = vec![file("a/b.rs", "1"), file("a\\b.rs", "2")];
        let (held, known) = known_files(files, &["a\\b.rs".into()]);
        assert_eq!((names(&held), names(&known)), (vec!["a\\b.rs"], vec!["a/b.rs"]));
    }
}
