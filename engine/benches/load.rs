//! From a checkpoint's file to a model that answers: `cargo bench -p nanochat-engine --bench load [-- SHAPE]`.
//!
//! Each load is a process of its own, so that it pays for its page faults; the file is in the page cache. Prints the
//! median and the minimum of the runs in milliseconds, by the clock and as the loading thread's time on a core, which a
//! busy machine does not stretch; then resident memory.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::collections::HashSet;
use std::fs::File;
use std::process::Command;

use nanochat_engine::checkpoint::{Manifest, PackedWeights, SecretKey, Training, Trust};
use nanochat_engine::memory::Blend;
use nanochat_engine::rng::Rng;
use nanochat_engine::text::tokenizer::{FIRST_BYTE, FIRST_MERGE};
use nanochat_engine::{Cancel, Checkpoint, Config, Model, Session, TokenId, Tokenizer, model::weights};
use nanochat_kernels::LargeBytes;
use rustix::time::{ClockId, clock_gettime};

const N_RUNS: usize = 20;
const STAGES: [&str; 7] = ["open", "model", "session", "ready", "(read)", "(hash)", "(signature)"];
const MEMORY: [&str; 3] = ["ready MB", "2,048 tokens MB", "peak MB"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [mode, path, public_key, n_threads] = args.as_slice()
        && mode == "child"
    {
        let trust = Trust::in_key(public_key.parse().expect("the parent's key"), "bench");
        child(path, &trust, n_threads.parse().expect("the parent's number"));
        return;
    }
    let shape = args.first().map_or("d512 l6 h8 kv2 ff1536 v12288 n1", String::as_str);
    let config: Config = shape.parse().expect("a valid shape");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.ncz");
    let key = SecretKey::generate().expect("the system has randomness");
    let checkpoint = Checkpoint {
        manifest: Manifest::new("bench", config.clone(), Training::default()),
        tokenizer: tokenizer(config.vocab_size).into(),
        weights: PackedWeights::pack(&weights::random(&config, 1)).expect("they fit").into(),
        blend: Blend::default(),
    };
    checkpoint.write(File::create(&path).expect("a new file"), &key).expect("it is in order");
    let n_bytes = path.metadata().expect("it was written").len();
    println!("{config}: {:.1} MB on disk; median (minimum) of {N_RUNS} processes, ms", n_bytes as f64 / 1e6);
    for n_threads in [1, 2] {
        let runs: Vec<Vec<f64>> = (0..N_RUNS)
            .map(|_| {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.arg("child").arg(&path).arg(key.public().to_base64()).arg(n_threads.to_string());
                let output = command.output().expect("it starts");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let text = String::from_utf8(output.stdout).expect("numbers");
                text.split_whitespace().map(|number| number.parse().expect("a number")).collect()
            })
            .collect();
        println!("{n_threads} threads");
        let column = |i: usize| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[i]).collect();
            values.sort_by(f64::total_cmp);
            format!("{:>8.2} ({:.2})", values[values.len() / 2], values[0])
        };
        for (i, name) in STAGES.iter().enumerate() {
            println!("  {name:<16} {:<18} on a core {}", column(i), column(STAGES.len() + i));
        }
        for (i, name) in MEMORY.iter().enumerate() {
            println!("  {name:<16} {}", column(2 * STAGES.len() + i));
        }
    }
}

/// Loads once and prints a number for each of [`STAGES`], twice, and [`MEMORY`].
fn child(path: &str, trust: &Trust, n_threads: usize) {
    let mut laps = vec![now()];
    let mut lap = || laps.push(now());
    let checkpoint = Checkpoint::open(File::open(path).expect("the parent wrote it"), trust).expect("in order");
    lap();
    let model = Model::new(&checkpoint.weights.view(), n_threads);
    lap();
    let mut session = Session::new(model);
    drop(checkpoint);
    lap();
    let mut memory = vec![resident("VmRSS:")];
    let config = session.model().config().clone();
    let tokens: Vec<TokenId> = (0..config.context).map(|i| (i * 7919 % config.vocab_size) as TokenId).collect();
    session.rebase(&tokens, &Cancel::new()).expect("not cancelled");
    memory.extend([resident("VmRSS:"), resident("VmHWM:")]);

    // Parts of `open`, warm, for comparison.
    lap();
    let n_bytes = std::fs::metadata(path).expect("it is there").len() as usize;
    let file = File::open(path).and_then(|mut file| LargeBytes::read(&mut file, n_bytes)).expect("it was read before");
    lap();
    let bytes = file.as_slice();
    std::hint::black_box(blake3::hash(bytes));
    lap();
    let len = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (manifest, rest) = bytes[16..].split_at(len(8));
    let signature = std::str::from_utf8(&rest[..len(12)]).expect("text").parse().expect("a signature");
    trust.keys[0].key.verify(manifest, &signature).expect("it was verified before");
    lap();
    for clock in 0..2 {
        let stage = |from: usize, to: usize| laps[to][clock] - laps[from][clock];
        let stages = [stage(0, 1), stage(1, 2), stage(2, 3), stage(0, 3), stage(4, 5), stage(5, 6), stage(6, 7)];
        stages.iter().for_each(|milliseconds| print!("{milliseconds} "));
    }
    println!("{}", memory.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
}

/// Milliseconds by the clock, and that this thread was on a core.
fn now() -> [f64; 2] {
    let milliseconds = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    [milliseconds(ClockId::Monotonic), milliseconds(ClockId::ThreadCPUTime)]
}

/// A line of this process's status in MB; NaN where there is none to read.
fn resident(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = status.lines().find_map(|text| text.strip_prefix(line)?.trim().split(' ').next()?.parse::<f64>().ok());
    number.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}

/// As many merges as the vocabulary has room for, of tokens as long as in code.
fn tokenizer(vocab_size: usize) -> Tokenizer {
    let mut rng = Rng::new(1);
    let mut texts: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut seen: HashSet<Vec<u8>> = texts.iter().cloned().collect();
    let mut merges = Vec::new();
    while usize::from(FIRST_MERGE) + merges.len() < vocab_size {
        let mut pick = |n: usize| (rng.uniform() * n as f32) as usize;
        let (left, right) = (pick(texts.len()), pick(256));
        let joined = [texts[left].as_slice(), &texts[right]].concat();
        if joined.len() <= 12 && seen.insert(joined.clone()) {
            merges.push((FIRST_BYTE + left as TokenId, FIRST_BYTE + right as TokenId));
            texts.push(joined);
        }
    }
    Tokenizer::from_merges(merges).expect("each joins what is there to something new")
}
