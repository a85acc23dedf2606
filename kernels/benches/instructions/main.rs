//! Instructions of the hot loops, counted: `cargo bench -p nanochat-kernels --bench instructions`.
//!
//! Each operation runs alone under `valgrind --tool=callgrind`, once N and once 2N times; the difference over N is what
//! one run takes, without start and preparation. Valgrind knows no AVX-512 and no AVX-VNNI, so the scalar and the AVX2
//! routines are counted. The counts are compared with `instructions.csv` in this folder: a difference of more than 2 %
//! (the layout of a loop may move by an instruction or two) ends with exit code 1. `-- --bless` rewrites the table:
//! after an intended change, or with another compiler than the one it names.
//!
//! Without valgrind it says so on stderr and counts nothing.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's output is its table")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nanochat_kernels::attention::{Heads, Rope, Rows};
use nanochat_kernels::head::{HeadBits, PreparedHead};
use nanochat_kernels::rows::Norm;
use nanochat_kernels::{
    Activation, Int8Rows, Isa, KvBits, KvCache, Plan, Pool, Prepared, ScaleGroup, Shape, TernaryMatrix, Write,
};

/// Relative difference that is not a change.
const TOLERANCE: f64 = 0.02;
/// Runs of the shorter of the two counts.
const N_RUNS: u64 = 4;
/// The model's hot loops, at sizes of d512 ff1536 where a scalar run is not too long.
const OPS: [&str; 10] = [
    "gemv 512x512",
    "gemv 512x512 groups of 128",
    "gemm 6 rows 512x512",
    "gemm 6 rows 512x512 groups of 128",
    "head of 8 bits 1024x512",
    "head of 4 bits 1024x512",
    "attention 256 keys",
    "quantize 512",
    "norm 512",
    "swiglu norm 1536",
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [op, isa, n_runs] => {
            run(op, isa, n_runs.parse().expect("a number of runs"));
            ExitCode::SUCCESS
        }
        ["--bless"] => compare(true),
        [] => compare(false),
        _ => panic!("no such arguments: {args:?}"),
    }
}

/// Runs one operation `n_runs` times.
fn run(op: &str, isa: &str, n_runs: u64) {
    let isa = Isa::available().into_iter().find(|known| known.name() == isa).expect("an instruction set of this CPU");
    let pool = Pool::new(1);
    let wave = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let repeat = |f: &mut dyn FnMut()| (0..n_runs).for_each(|_| f());
    let quantized = |n: usize, cols: usize| {
        let mut rows = Int8Rows::new(cols);
        rows.quantize(isa, &pool, &wave(n * cols));
        rows
    };
    let product = |group: ScaleGroup, n: usize| {
        let matrix = TernaryMatrix::quantize(&wave(512 * 512), Shape { rows: 512, cols: 512 }, group);
        let prepared = Prepared::new(&[&matrix], Plan { isa, ..Plan::default() });
        let (x, mut y) = (quantized(n, 512), vec![0.0; n * 512]);
        repeat(&mut || prepared.gemm(&pool, &x, &mut y, Write::Store));
    };
    let head = |bits: HeadBits| {
        let values: Vec<i8> = (0..1024 * 512).map(|i| (i * 37 % 15) as i8 - 7).collect();
        let head = PreparedHead::new(512, &values, &[0.01; 1024], bits, isa);
        let (x, mut y) = (quantized(1, 512), vec![0.0; 1024]);
        repeat(&mut || head.gemm(&pool, &x, &mut y));
    };
    let gain = vec![1.0f32; 1536];
    match op {
        "gemv 512x512" => product(ScaleGroup::Row, 1),
        "gemv 512x512 groups of 128" => product(ScaleGroup::Columns(128), 1),
        "gemm 6 rows 512x512" => product(ScaleGroup::Row, 6),
        "gemm 6 rows 512x512 groups of 128" => product(ScaleGroup::Columns(128), 6),
        "head of 8 bits 1024x512" => head(HeadBits::Eight),
        "head of 4 bits 1024x512" => head(HeadBits::Four),
        "attention 256 keys" => {
            let mut cache = KvCache::new(Heads { n_heads: 8, n_kv_heads: 2, head_dim: 64 }, 256, KvBits::default());
            let angles = wave(256 * 32);
            let rope = Rope { cos: &angles, sin: &angles };
            let (kv, q, mut out) = (wave(256 * 256), wave(512), vec![0.0; 512]);
            cache.append(isa, &pool, Rows { x: &kv, stride: 256, n: 256, first: 0 }, rope);
            let queries = Rows { x: &q, stride: 512, n: 1, first: 255 };
            repeat(&mut || cache.attend(isa, &pool, queries, rope, &mut out));
        }
        "quantize 512" => {
            let (x, mut rows) = (wave(512), Int8Rows::new(512));
            repeat(&mut || rows.quantize(isa, &pool, &x));
        }
        "norm 512" => {
            let (x, mut rows) = (wave(512), Int8Rows::new(512));
            repeat(&mut || rows.rms_norm(isa, &pool, &x, Norm { gain: &gain[..512], eps: 1e-5 }));
        }
        "swiglu norm 1536" => {
            let (mut x, mut rows) = (wave(2 * 1536), Int8Rows::new(1536));
            repeat(&mut || rows.gated_rms_norm(isa, &pool, &mut x, Activation::Silu, Norm { gain: &gain, eps: 1e-5 }));
        }
        _ => panic!("no such operation: {op}"),
    }
}

fn compare(bless: bool) -> ExitCode {
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no valgrind");
        return ExitCode::SUCCESS;
    }
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/instructions.csv");
    let expected = read(&table);
    let mut lines = format!("# {}\nop,isa,instructions\n", compiler());
    let mut n_changed = 0;
    for op in OPS {
        for isa in ["scalar", "avx2"] {
            let Some(count) = count(op, isa) else {
                eprintln!("skipped: {op} on {isa}, which valgrind does not offer here");
                continue;
            };
            lines.push_str(&format!("{op},{isa},{count}\n"));
            let before = expected.get(&(op.to_owned(), isa.to_owned())).copied();
            let change = before.map(|before| count as f64 / before as f64 - 1.0);
            let changed = change.is_none_or(|change| change.abs() > TOLERANCE);
            n_changed += usize::from(changed);
            let change = change.map_or("new".into(), |change| format!("{:+.2} %", change * 100.0));
            println!("{op:<34} {isa:<7} {count:>10} {change:>10}{}", if changed { "  CHANGED" } else { "" });
        }
    }
    if bless {
        std::fs::write(&table, lines).expect("the table is next to the sources");
    } else if n_changed > 0 {
        eprintln!("{n_changed} counts differ by more than {} %; `-- --bless` takes them", TOLERANCE * 100.0);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn read(table: &PathBuf) -> BTreeMap<(String, String), u64> {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    let rows = text.lines().filter_map(|line| {
        let (rest, count) = line.rsplit_once(',')?;
        let (op, isa) = rest.rsplit_once(',')?;
        Some(((op.to_owned(), isa.to_owned()), count.parse().ok()?))
    });
    rows.collect()
}

/// Instructions of one run, or `None` where the instruction set is not to be had.
fn count(op: &str, isa: &str) -> Option<u64> {
    let once = collected(op, isa, N_RUNS)?;
    let twice = collected(op, isa, 2 * N_RUNS)?;
    Some((twice - once) / N_RUNS)
}

fn collected(op: &str, isa: &str, n_runs: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .args([op, isa, &n_runs.to_string()])
        .output()
        .ok()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().find_map(|line| line.split_once("Collected :"));
    output.status.success().then(|| line?.1.trim().parse().ok())?
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc built this");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
