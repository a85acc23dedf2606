//! How fast files become tokens: `cargo bench -p nanochat-train --bench corpus -- FOLDER [--threads N] [--show]`.
//!
//! Each folder in FOLDER with a `Cargo.toml` is a dependency (`~/.cargo/registry/src/*` is such a FOLDER); where there
//! is none, FOLDER itself is. Files are read once before, so that the disk is not measured. Prints MB of source per
//! second from the walk to the synced shards, by stage, by the clock and by processor time (what as many idle cores
//! would give), and what was left out; with `--show` each file of it. The vocabulary is learned from a sample, which is
//! not timed.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "common/cpu.rs"]
mod cpu;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role};
use nanochat_train::data::corpus::{Corpus, GatheredFiles};
use nanochat_train::data::forgotten::Forgotten;
use nanochat_train::data::licence::{Allowed, PERMISSIVE};
use nanochat_train::data::shards::{FILE_NAME, Shards};
use nanochat_train::data::tokenizer;
use nanochat_train::pool::Pool;

// As the product has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes that the vocabulary is learned from.
const SAMPLE: usize = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let shows = args.iter().any(|arg| arg == "--show");
    let args: Vec<String> = args.into_iter().filter(|arg| arg != "--show").collect();
    let (folder, n_threads) = match &args[..] {
        [folder] => (folder, 2),
        [folder, option, n] if option == "--threads" => (folder, n.parse()?),
        _ => {
            return Err("usage: cargo bench -p nanochat-train --bench corpus -- FOLDER [--threads N] [--show]".into());
        }
    };
    let sources = sources(Path::new(folder))?;
    let pool = Pool::new(n_threads)?;
    let (files, _) = sources.collect(&[Role::Dependency]);
    let megabytes = files.iter().map(|file| file.text.len()).sum::<usize>() as f64 / 1e6;
    println!("{} packages, {} files, {megabytes:.1} MB", sources.packages.len(), files.len());
    drop(files);

    let allowed = Allowed::new(PERMISSIVE)?;
    let clock = Clock::start(n_threads);
    let gathered = GatheredFiles::gather(&sources, Some(&allowed), &Forgotten::default(), &pool);
    let gathering = clock.stop();
    report("files to filtered, scrubbed text", megabytes, gathering);

    let mut n_bytes = 0;
    let step = (gathered.dependencies.len() / 500).max(1);
    let sample = gathered.dependencies.iter().step_by(step).map(|file| file.text.as_str());
    let sample: Vec<&str> = sample.take_while(|text| (n_bytes += text.len(), n_bytes < SAMPLE).1).collect();
    let tokenizer = tokenizer::learn(sample.into_iter(), 8192)?;

    let kept = gathered.dependencies.iter().map(|file| file.text.len()).sum::<usize>() as f64 / 1e6;
    let mut corpus = Corpus::split(gathered.dependencies, 0.02, 1)?;
    corpus.hash = "measured".to_owned();
    let state = tempfile::tempdir()?;
    let clock = Clock::start(n_threads);
    let (shards, made) = Shards::of(state.path(), &corpus, &tokenizer, &pool)?;
    let encoding = clock.stop();
    report("text to shards (of what is kept)", kept, encoding);
    report("files to shards", megabytes, (gathering.0 + encoding.0, gathering.1 + encoding.1));
    let clock = Clock::start(1);
    Shards::of(state.path(), &corpus, &tokenizer, &pool)?;
    report("shards that are there, opened and checked", kept, clock.stop());
    let bytes = std::fs::metadata(state.path().join(FILE_NAME))?.len();
    let n_tokens = shards.n_tokens(0..shards.documents().len());
    println!("{kept:.1} MB kept, {n_tokens} tokens, {} files tokenised, shards of {bytes} bytes", made.n_tokenised);

    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, reason) in &gathered.skipped {
        if shows {
            println!("{}: {reason}", path.display());
        }
        *reasons.entry(reason.split_once(" of ").map_or(reason.as_str(), |(what, _)| what)).or_default() += 1;
    }
    println!("left out: {reasons:#?}, {} secrets", gathered.n_scrubbed);
    Ok(())
}

/// Seconds by the clock and of processor time per thread.
struct Clock {
    start: Instant,
    cpu_start: f64,
    n_threads: usize,
}

impl Clock {
    fn start(n_threads: usize) -> Self {
        Self { start: Instant::now(), cpu_start: cpu::cpu_seconds(), n_threads }
    }

    fn stop(&self) -> (f64, f64) {
        let cpu_s = (cpu::cpu_seconds() - self.cpu_start) / self.n_threads as f64;
        (self.start.elapsed().as_secs_f64(), cpu_s)
    }
}

fn report(what: &str, megabytes: f64, (wall_s, cpu_s): (f64, f64)) {
    println!(
        "{what:45} {:8.1} MB/s by the clock ({wall_s:.2} s), {:8.1} by processor time ({cpu_s:.2} s)",
        megabytes / wall_s,
        megabytes / cpu_s
    );
}

fn sources(folder: &Path) -> Result<Sources, Box<dyn Error>> {
    let root = folder.canonicalize()?;
    let inside = std::fs::read_dir(&root)?.collect::<Result<Vec<_>, _>>()?;
    let mut folders: Vec<PathBuf> = inside.into_iter().map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.join("Cargo.toml").is_file());
    folders.sort();
    if folders.is_empty() {
        folders.push(root.clone());
    }
    let packages = folders.into_iter().map(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (name, version) = split_version(&name);
        let (edition, licence) = ("2021".to_owned(), Some("MIT".to_owned()));
        Package { name, version, edition, licence, folder, role: Role::Dependency }
    });
    Ok(Sources { packages: packages.collect(), root })
}

/// `name-1.2.3` in its two parts.
fn split_version(name: &str) -> (String, String) {
    let at =
        name.match_indices('-').map(|(at, _)| at).find(|at| name[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    match at {
        Some(at) => (name[..at].to_owned(), name[at + 1..].to_owned()),
        None => (name.to_owned(), "0.0.0".to_owned()),
    }
}
