//! How often the symbols are wrong about code that compiles: `symbols FOLDER…`
//!
//! Each folder is a crate. Each line of its files is looked at as if it were being written, with the other files'
//! symbols: members that "are missing" there are its mistakes.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;
use std::time::Instant;

use nanochat_engine::Sources;
use nanochat_engine::memory::{N_TIERS, Symbols, Tier};
use nanochat_engine::symbols::CursorSymbols;
use nanochat_engine::workspace::sources::Role;

/// A file of which more lines are looked at is left there.
const MOST_LINES: usize = 300;

fn main() {
    let (mut n_lines, mut there, mut missing, mut wrong, mut seconds) = (0usize, 0u64, 0u64, 0u64, 0.0);
    for folder in std::env::args().skip(1).map(PathBuf::from) {
        let (files, _) = Sources::folder(&folder).collect(&[Role::Member]);
        let mut tables = <[Symbols; N_TIERS]>::default();
        tables[Tier::Workspace as usize] = Symbols::of_files(&files, false);
        for file in &files {
            let mut start = 0;
            for line in file.text.split_inclusive('\n').take(MOST_LINES) {
                let (before, after) = (&file.text[..start], &file.text[start + line.len()..]);
                start += line.len();
                let started = Instant::now();
                let found = CursorSymbols::of(&tables, &file.name, before, after).members(line, 0);
                seconds += started.elapsed().as_secs_f64();
                n_lines += 1;
                there += u64::from(found.n_existing);
                missing += u64::from(found.n_missing);
                wrong += u64::from(found.n_wrong_calls);
                if found.n_missing + found.n_wrong_calls > 0 {
                    println!(
                        "{}: {} missing, {} wrong: {}",
                        file.name,
                        found.n_missing,
                        found.n_wrong_calls,
                        line.trim()
                    );
                }
            }
        }
    }
    println!("{n_lines} lines: {there} members there, {missing} said to be missing, {wrong} calls said to be wrong");
    println!("{:.3} ms a line", 1000.0 * seconds / n_lines.max(1) as f64);
}
