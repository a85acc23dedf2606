//! The memory on the sources of a registry: `cargo bench -p nanochat-engine --bench memory -- FOLDER [MILLION_TOKENS]`.
//!
//! FOLDER holds unpacked packages; as many of them are taken, in name order, as have about so many tokens (25 where
//! nothing is said). Prints how long indexing takes and how large the index is, what a second start takes, and what a
//! lookup and a keystroke cost. Seconds and milliseconds are by the clock, and next to them the time on cores, which a
//! busy machine does not stretch; microseconds are on a core. `$NANOCHAT_CHECKPOINT` names a checkpoint in a home,
//! `HOME_FOLDER:PATH`, whose tokenizer is used; without it merges are made of the first packages' words.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::collections::HashMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nanochat_engine::memory::{LiveBuffer, Lookup, Memory, Tier};
use nanochat_engine::rng::Rng;
use nanochat_engine::symbols::CursorSymbols;
use nanochat_engine::text::tokenizer::{FIRST_BYTE, FIRST_MERGE, MAX_TOKEN_BYTES, pretokens};
use nanochat_engine::workspace::cache::{Cache, Event, Request};
use nanochat_engine::workspace::sources::{Package, Role, Sources};
use nanochat_engine::{Cancel, TokenId, Tokenizer};
use rustix::time::{ClockId, clock_gettime};

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
    if packages.is_empty() {
        println!("{folder} holds no unpacked packages; nothing was measured");
        return;
    }
    let sources = Sources { root: PathBuf::from(folder), packages: packages.iter().take(40).cloned().collect() };
    let texts: Vec<String> = sources.collect(&[Role::Dependency]).0.into_iter().map(|file| file.text).collect();
    let tokenizer = tokenizer(&texts);
    println!("{} packages, vocabulary {}", packages.len(), tokenizer.vocab_size());

    let all: String = texts.concat().chars().take(8 << 20).collect();
    let fresh = tokenizer.clone();
    let mut n_tokens = 0;
    let microseconds = times(1, |_| n_tokens = fresh.encode(all.as_bytes()).len())[0];
    let (rate, ratio) = (all.len() as f64 / microseconds, all.len() as f64 / n_tokens as f64);
    println!("encoding          {rate:.0} MB/s on one core, {ratio:.2} bytes/token");

    let home = tempfile::tempdir().expect("a temporary folder");
    let cache = Cache::at(home.path());
    let cancel = Cancel::new();
    let request = Request { packages: &packages, tokenizer: &tokenizer, n_threads: N_THREADS, cancel: &cancel };
    let (started, cores) = (Instant::now(), on_core(ClockId::ProcessCPUTime));
    let mut n_skipped = 0;
    let is_done = AtomicBool::new(false);
    let (library, peak) = std::thread::scope(|scope| {
        let peak = scope.spawn(|| {
            let mut peak = 0.0f64;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(resident("RssAnon:"));
                std::thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        let library = cache.library(&request, &mut |event| match event {
            Event::Partial(part) => {
                let (seconds, n_tokens) = (started.elapsed().as_secs_f64(), part.n_tokens() as f64);
                println!("  after {seconds:.2} s    {:.1} M tokens", n_tokens / 1e6);
            }
            Event::Skipped { .. } => n_skipped += 1,
            other => println!("  {other:?}"),
        });
        is_done.store(true, Ordering::Relaxed);
        (library.expect("nobody cancels"), peak.join().expect("it only reads"))
    });
    let (seconds, cores) = (started.elapsed().as_secs_f64(), (on_core(ClockId::ProcessCPUTime) - cores) / 1e6);
    let n_tokens = library.n_tokens() as f64;
    println!(
        "indexing          {:.1} M tokens in {seconds:.2} s, {cores:.2} s of one core: {:.2} M/s; {n_skipped} files left out",
        n_tokens / 1e6,
        n_tokens / 1e6 / seconds
    );
    println!("private memory    {peak:.0} MB at most meanwhile, that of the program included");
    let on_disk = |folder: &str| {
        let entries = std::fs::read_dir(home.path().join(folder)).expect("the cache wrote it");
        entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).sum::<u64>() as f64
    };
    let [index, streams, stamps] = ["indexes", "streams", "stamps"].map(|folder| on_disk(folder) / n_tokens);
    let sum = index + streams + stamps;
    println!("on disk           {sum:.2} bytes/token: index {index:.2}, streams {streams:.2}, stamps {stamps:.3}");
    drop(library);

    let before = resident("RssAnon:");
    let mut starts: Vec<(f64, f64)> = (0..5)
        .map(|_| {
            let (started, cores) = (Instant::now(), on_core(ClockId::ProcessCPUTime));
            drop(cache.library(&request, &mut |_| ()).expect("nobody cancels"));
            (started.elapsed().as_secs_f64() * 1e3, (on_core(ClockId::ProcessCPUTime) - cores) / 1e3)
        })
        .collect();
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("warm start        {:.0} ms, {:.0} ms of one core (median of 5)", starts[2].0, starts[2].1);
    let library = cache.library(&request, &mut |_| ()).expect("nobody cancels");
    println!("resident private  {:.1} MB more than without", resident("RssAnon:") - before);

    let before = resident("RssAnon:");
    let started = Instant::now();
    let symbols = cache.symbols(&request, &mut |_| ()).expect("nobody cancels");
    let cold = started.elapsed().as_secs_f64();
    let started = Instant::now();
    drop(cache.symbols(&request, &mut |_| ()).expect("nobody cancels"));
    let warm = started.elapsed().as_secs_f64() * 1e3;
    let (n, megabytes) = (symbols.len(), symbols.n_bytes() as f64 / 1e6);
    println!("symbols           {n} in {cold:.2} s, warm {warm:.0} ms, {megabytes:.1} MB");
    println!("resident private  {:.1} MB more than without them", resident("RssAnon:") - before);

    // A 2,000-line file that is not indexed exactly as it is: two files of the sources, cut together.
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
    let mut live = Arc::new(LiveBuffer::default());
    Arc::make_mut(&mut live).update(
        &tokenizer,
        "live.rs",
        &file.as_bytes()[..file.len() / 2],
        &file.as_bytes()[file.len() / 2..],
    );
    let memory = workspace.with_tier(Tier::Dependencies, library).with_symbols(Tier::Dependencies, symbols);
    let memory = memory.with_buffer(Arc::clone(&live));
    let middle = file[..file.len() / 2].rfind('\n').map_or(0, |at| at + 1);
    let each = times(200, |_| {
        let around = CursorSymbols::of(memory.symbols(), "live.rs", &file[..middle], &file[middle..]);
        black_box(around.members("let total = self.lines.iter().map(|line| line.len()).sum();", 8));
    });
    println!("members           {:.0} µs median around a line of that file", each[100]);
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

/// Microseconds that this thread, or all of them, were on a core.
fn on_core(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Microseconds of each call on a core, in order.
fn times(n: usize, mut call: impl FnMut(usize)) -> Vec<f64> {
    let mut times: Vec<f64> = (0..n)
        .map(|i| {
            let started = on_core(ClockId::ThreadCPUTime);
            call(i);
            on_core(ClockId::ThreadCPUTime) - started
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
        let store = nanochat_engine::workspace::store::Store::at(home);
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
