//! The memory on the sources of a registry: `cargo bench -p nanochat-engine --bench memory -- FOLDER [MILLION_TOKENS]`.
//!
//! FOLDER holds unpacked packages; as many of them are taken, in name order, as have about so many tokens (25 where nothing
//! is said). Prints how long indexing takes and how large the index is, what a second start takes, and what a lookup and
//! a keystroke cost. `$NANOCHAT_CHECKPOINT` names a checkpoint in a home, `HOME_FOLDER:PATH`, whose tokenizer is used;
//! without it merges are learned from the first packages.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::collections::HashMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nanochat_engine::memory::cache::{Cache, Event, Request};
use nanochat_engine::memory::{LiveFile, Lookup, Memory, Tier};
use nanochat_engine::rng::Rng;
use nanochat_engine::sources::{Package, Role, Sources};
use nanochat_engine::tokenizer::{FIRST_BYTE, FIRST_MERGE, MAX_TOKEN_BYTES, pretokens};
use nanochat_engine::{Cancel, TokenId, Tokenizer};

/// Tokens of the vocabulary where none is given.
const VOCABULARY: usize = 8192;
/// What merges are learned from.
const LEARNED_FROM: usize = 2 << 20;
/// Bytes a token, roughly, to choose packages by.
const BYTES_PER_TOKEN: u64 = 3;
/// Packages with more are bindings, and are left out by the cache too.
const LARGE: u64 = 8 << 20;
const N_LOOKUPS: usize = 4000;
const N_THREADS: usize = 2;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let Some(folder) = args.first() else {
        println!("give a folder of unpacked packages; nothing was measured");
        return;
    };
    let millions: u64 = args.get(1).map_or(25, |text| text.parse().expect("a number of million tokens"));
    let mut packages = packages(Path::new(folder));
    let mut left = millions * 1_000_000 * BYTES_PER_TOKEN;
    packages.retain(|package| {
        let n_bytes = package.stamp().n_bytes;
        let is_taken = (1..=LARGE.min(left)).contains(&n_bytes);
        left -= if is_taken { n_bytes } else { 0 };
        is_taken
    });
    let sources = Sources { root: PathBuf::from(folder), packages: packages.iter().take(40).cloned().collect() };
    let texts: Vec<String> = sources.collect(&[Role::Dependency]).0.into_iter().map(|file| file.text).collect();
    let tokenizer = tokenizer(&texts);
    println!("{} packages, vocabulary {}", packages.len(), tokenizer.vocab_size());

    let all: String = texts.concat().chars().take(8 << 20).collect();
    let started = Instant::now();
    let n_tokens = tokenizer.clone().encode(all.as_bytes()).len();
    let rate = all.len() as f64 / 1e6 / started.elapsed().as_secs_f64();
    println!("encoding          {rate:.0} MB/s on one thread, {:.2} bytes/token", all.len() as f64 / n_tokens as f64);

    let home = tempfile::tempdir().expect("a temporary folder");
    let cache = Cache::at(home.path());
    let cancel = Cancel::new();
    let request = Request { packages: &packages, tokenizer: &tokenizer, n_threads: N_THREADS, cancel: &cancel };
    let started = Instant::now();
    let mut n_skipped = 0;
    let library = cache.library(&request, &mut |event| match event {
        Event::Partial(part) => {
            println!("  after {:.2} s   {:.1} M tokens", started.elapsed().as_secs_f64(), part.n_tokens() as f64 / 1e6);
        }
        Event::Skipped { .. } => n_skipped += 1,
        other => println!("  {other:?}"),
    });
    let library = library.expect("nobody cancels");
    let (seconds, n_tokens) = (started.elapsed().as_secs_f64(), library.n_tokens() as f64);
    let rate = n_tokens / 1e6 / seconds;
    println!(
        "indexing          {:.1} M tokens in {seconds:.2} s, {rate:.2} M/s; {n_skipped} files left out",
        n_tokens / 1e6
    );
    println!(
        "peak while at it  {:.0} MB private now, {:.0} MB with mapped pages",
        resident("RssAnon:"),
        resident("VmHWM:")
    );
    let on_disk = |folder: &str| {
        let entries = std::fs::read_dir(home.path().join(folder)).expect("the cache wrote it");
        entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).sum::<u64>() as f64
    };
    let [index, streams, stamps] = ["indexes", "streams", "stamps"].map(|folder| on_disk(folder) / n_tokens);
    let sum = index + streams + stamps;
    println!("on disk           {sum:.2} bytes/token: index {index:.2}, streams {streams:.2}, stamps {stamps:.3}");
    drop(library);

    let before = resident("RssAnon:");
    let starts = times(5, |_| drop(cache.library(&request, &mut |_| ()).expect("nobody cancels")));
    println!("warm start        {:.0} ms (median of 5)", starts[2] / 1e3);
    let library = cache.library(&request, &mut |_| ()).expect("nobody cancels");
    println!("resident private  {:.1} MB more than without", resident("RssAnon:") - before);

    // A 2,000-line file that is not indexed exactly as it stands: two files of the sources, cut together.
    let file: String = texts
        .iter()
        .filter(|text| text.len() > 20_000)
        .flat_map(|text| text.lines().take(500))
        .take(2000)
        .fold(String::new(), |text, line| text + line + "\n");
    let workspace = Memory::build(
        texts
            .iter()
            .take(200)
            .enumerate()
            .map(|(i, text)| (format!("{i}.rs"), tokenizer.encode(text.as_bytes())))
            .collect(),
    );
    let mut live = Arc::new(LiveFile::default());
    Arc::make_mut(&mut live).update(
        &tokenizer,
        "live.rs",
        &file.as_bytes()[..file.len() / 2],
        &file.as_bytes()[file.len() / 2..],
    );
    let memory = workspace.with_tier(Tier::Dependencies, library).with_live(Arc::clone(&live));
    let tokens = tokenizer.encode(file.as_bytes());
    let mut rng = Rng::new(1);
    let mut lookup = Lookup::default();
    let each = times(N_LOOKUPS, |_| {
        let end = 32 + (rng.uniform() * (tokens.len() - 32) as f32) as usize;
        memory.lookup(&tokens[end - 32..end], "", &mut lookup);
        black_box(&lookup);
    });
    println!("lookup, all tiers {:.1} µs median, {:.1} µs p99", each[N_LOOKUPS / 2], each[N_LOOKUPS * 99 / 100]);

    let typed = "    let total: usize = lines.iter().map(|line| line.len()).sum();\n";
    drop(memory);
    let at = file[..file.len() / 2].rfind('\n').map_or(0, |at| at + 1);
    let (mut prefix, suffix) = (file[..at].to_owned(), &file[at..]);
    Arc::make_mut(&mut live).update(&tokenizer, "live.rs", prefix.as_bytes(), suffix.as_bytes());
    let keystrokes = times(typed.len(), |i| {
        prefix.push_str(&typed[i..=i]);
        Arc::make_mut(&mut live).update(&tokenizer, "live.rs", prefix.as_bytes(), suffix.as_bytes());
    });
    let n = keystrokes.len();
    println!(
        "keystroke         {:.1} µs median, {:.1} µs worst, in {} lines",
        keystrokes[n / 2],
        keystrokes[n - 1],
        file.lines().count()
    );
    let jumps = times(20, |i| {
        let at = (0..file.len() * (i + 1) / 21).rev().find(|at| file.is_char_boundary(*at)).unwrap_or(0);
        Arc::make_mut(&mut live).update(&tokenizer, "live.rs", &file.as_bytes()[..at], &file.as_bytes()[at..]);
    });
    println!("jump of 100 lines {:.0} µs median", jumps[10]);
}

/// Microseconds of each call, in order.
fn times(n: usize, mut call: impl FnMut(usize)) -> Vec<f64> {
    let mut times: Vec<f64> = (0..n)
        .map(|i| {
            let started = Instant::now();
            call(i);
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn packages(folder: &Path) -> Vec<Package> {
    let entries = std::fs::read_dir(folder).expect("a folder that can be listed").flatten();
    let mut packages: Vec<Package> = entries
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| Package {
            name: entry.file_name().to_string_lossy().into_owned(),
            version: "0".to_owned(),
            edition: "2024".to_owned(),
            licence: None,
            folder: entry.path(),
            role: Role::Dependency,
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

/// Merges of the most frequent pre-tokens: not those that training finds, but about as many bytes a token.
fn tokenizer(texts: &[String]) -> Tokenizer {
    if let Ok(named) = std::env::var("NANOCHAT_CHECKPOINT") {
        let (home, path) = named.split_once(':').expect("HOME_FOLDER:PATH");
        let store = nanochat_engine::store::Store::at(home);
        return (*store.open_checkpoint(Path::new(path)).expect("a checkpoint of this home").tokenizer).clone();
    }
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    let mut n_read = 0;
    for text in texts {
        pretokens(text.as_bytes()).for_each(|pretoken| *counts.entry(pretoken).or_default() += 1);
        n_read += text.len();
        if n_read > LEARNED_FROM {
            break;
        }
    }
    let mut words: Vec<(&[u8], usize)> = counts.into_iter().filter(|(word, _)| word.len() > 1).collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut ids: HashMap<Vec<u8>, TokenId> =
        (0..=255u8).map(|byte| (vec![byte], FIRST_BYTE + TokenId::from(byte))).collect();
    let mut merges = Vec::new();
    for (word, _) in words {
        for end in 2..=word.len().min(MAX_TOKEN_BYTES) {
            if usize::from(FIRST_MERGE) + merges.len() >= VOCABULARY {
                break;
            }
            if !ids.contains_key(&word[..end]) {
                merges.push((ids[&word[..end - 1]], FIRST_BYTE + TokenId::from(word[end - 1])));
                ids.insert(word[..end].to_vec(), FIRST_MERGE + (merges.len() - 1) as TokenId);
            }
        }
    }
    Tokenizer::from_merges(merges).expect("each joins what is there to something new")
}

/// A line of this process's status in MB; NaN where there is none to read.
fn resident(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = status.lines().find_map(|text| text.strip_prefix(line)?.trim().split(' ').next()?.parse::<f64>().ok());
    number.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}
