//! How many lines of other people's code are taken for secrets: `secrets [--show] FOLDER…`
//!
//! Each folder is a package. With `--show` the place and the rule of each finding are printed, never the secret itself.

#![expect(clippy::print_stdout, reason = "an example's output is its figures")]

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsString;
use std::path::Path;

use nanochat_engine::workspace::sources::{Role, SourceFile};
use nanochat_engine::{Sources, text::secrets};

#[derive(Default)]
struct Counts {
    n_files: usize,
    n_lines: usize,
    n_findings: usize,
    /// Lines that findings cover.
    n_found: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let is_option = |argument: &OsString| argument == "--show";
    let (options, folders): (Vec<OsString>, Vec<OsString>) = std::env::args_os().skip(1).partition(is_option);
    if folders.is_empty() {
        return Err("usage: secrets [--show] FOLDER…".into());
    }
    let mut counts = Counts::default();
    for folder in &folders {
        for file in files(Path::new(folder)) {
            count(&file, !options.is_empty(), &mut counts);
        }
    }
    let Counts { n_files, n_lines, n_findings, n_found } = counts;
    let share = 100.0 * n_found as f64 / n_lines.max(1) as f64;
    println!("{n_lines} lines of {n_files} files, {n_findings} findings on {n_found} lines: {share:.4} %");
    Ok(())
}

fn files(folder: &Path) -> Vec<SourceFile> {
    Sources::folder(folder).collect(&[Role::Member]).0
}

fn count(file: &SourceFile, shows: bool, counts: &mut Counts) {
    let line_of = |at: usize| file.text[..at].matches('\n').count();
    let mut lines = BTreeSet::new();
    for secrets::Finding { range, rule } in secrets::find(&file.text) {
        let first = line_of(range.start);
        lines.extend(first..=line_of(range.end));
        counts.n_findings += 1;
        if shows {
            println!("{}:{}: {rule}", file.path.display(), first + 1);
        }
    }
    counts.n_files += 1;
    counts.n_lines += file.text.lines().count();
    counts.n_found += lines.len();
}
