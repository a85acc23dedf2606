//! Our ternary products and ggml's, interleaved in one process: `cargo bench -p nanochat-kernels --bench ternary`.
//!
//! `NANOCHAT_GGML` names the folder with `libggml-base.so` and `libggml-cpu.so`; without it only our side runs. One
//! JSON object per line on stdout:
//!
//! ```text
//! op         gemv       hot: the same matrix again and again, once untimed; both sides get quantised input
//!            gemv_dram  cycling through copies that together exceed every cache
//!            gemm       128 rows; both sides quantise f32 input in each run (ggml: a graph with one ggml_mul_mat)
//! routine    ours by instruction set, or tq2_0
//! group      row, or columns that share a scale
//! gops       2 · rows · cols · batch per second, median of the rounds;  gops_best: of the fastest round
//! peak       gops over the int8 peak of this routine's own instruction, measured in this run
//! ratio_tq2_0, ratio_row      median over the rounds of: the peer's time (our per-row scales' time) over ours
//! ```
//!
//! One thread, timed by its own CPU clock, so that time in which another process had the core does not count. Each
//! round runs a burst of every entry, so that a slow spell of the machine affects all of them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's output is its table")]
#![expect(unsafe_code, reason = "the peer is a C library")]

mod ggml;

use std::path::Path;
use std::time::{Duration, Instant};

use ggml::Ggml;
use nanochat_kernels::{Int8Rows, Isa, Plan, Pool, Prepared, ScaleGroup, Shape, TernaryMatrix, Write, ceiling};
use serde_json::json;

/// Rows × columns: from a small model to BitNet 2B (768² … 6912 × 2560), then qkv, o, gate+up and down of d512 ff1536.
const SHAPES: [(usize, usize); 8] =
    [(768, 768), (768, 2048), (2560, 2560), (6912, 2560), (768, 512), (512, 512), (3072, 512), (512, 1536)];
const BATCH: usize = 128;
/// Six times an L3 of 32 MB.
const COLD_BYTES: usize = 192 << 20;
/// For each operation and shape.
const BUDGET: Duration = Duration::from_millis(1500);
const BURST: Duration = Duration::from_micros(400);
const MIN_ROUNDS: usize = 9;

fn main() {
    // Cargo passes `--bench`; words name the operations or shapes wanted, e.g. `gemv 768x768`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let (ops, shapes): (Vec<_>, Vec<_>) = wanted.iter().partition(|word| word.starts_with('g'));
    let ggml = std::env::var_os("NANOCHAT_GGML").map(|folder| {
        Ggml::open(Path::new(&folder)).unwrap_or_else(|error| panic!("NANOCHAT_GGML={}: {error}", folder.display()))
    });
    if ggml.is_none() {
        eprintln!("NANOCHAT_GGML is not set: no peer, our side only");
    }
    let peaks: Vec<(Isa, f64)> = Isa::available().into_iter().map(|isa| (isa, ceiling::int8_gops(isa))).collect();
    for (isa, gops) in &peaks {
        println!("{}", json!({"op": "ceiling_int8", "routine": isa.name(), "gops": round(*gops)}));
    }
    for n_threads in [1, std::thread::available_parallelism().map_or(1, usize::from)] {
        let gb_per_s = ceiling::read_gb_per_s(&Pool::new(n_threads));
        println!("{}", json!({"op": "ceiling_read", "threads": n_threads, "gb_per_s": round(gb_per_s)}));
    }
    for (rows, cols) in SHAPES {
        if !shapes.is_empty() && !shapes.iter().any(|word| **word == format!("{rows}x{cols}")) {
            continue;
        }
        for op in ["gemv", "gemv_dram", "gemm"] {
            if ops.is_empty() || ops.iter().any(|word| **word == op) {
                Case::new(Shape { rows, cols }, ggml.as_ref(), &peaks).run(op);
            }
        }
    }
}

/// One shape, its weights and its input.
struct Case<'a> {
    shape: Shape,
    ggml: Option<&'a Ggml>,
    peaks: &'a [(Isa, f64)],
    trits: Vec<f32>,
    x: Vec<f32>,
    pool: Pool,
}

/// An operation that is timed: `run(i)` is its i-th call.
struct Entry<'a> {
    routine: &'static str,
    group: String,
    peak: Option<f64>,
    run: Box<dyn FnMut(usize) + 'a>,
}

impl<'a> Case<'a> {
    fn new(shape: Shape, ggml: Option<&'a Ggml>, peaks: &'a [(Isa, f64)]) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 33
        };
        let trits = (0..shape.rows * shape.cols).map(|_| (random() % 3) as f32 - 1.0).collect();
        let x = (0..BATCH * shape.cols).map(|_| (random() % 2001) as f32 * 1e-3 - 1.0).collect();
        Self { shape, ggml, peaks, trits, x, pool: Pool::new(1) }
    }

    /// Each packed separately: a clone would be on the heap, not where weights are.
    fn prepared(&self, isa: Isa, group: ScaleGroup, n_copies: impl Fn(usize) -> usize) -> Vec<Prepared> {
        let trits = self.trits.iter().map(|trit| *trit as i8).collect();
        let scales = vec![1.0; group.n_scales(self.shape)];
        let matrix = TernaryMatrix::from_trits(self.shape, group, trits, scales).expect("ternary by construction");
        let prepared = || Prepared::new(&[&matrix], Plan { isa, ..Plan::default() });
        let first = prepared();
        let n_more = n_copies(first.n_bytes()) - 1;
        std::iter::once(first).chain((0..n_more).map(|_| prepared())).collect()
    }

    fn quantized(&self, n: usize) -> Int8Rows {
        let mut rows = Int8Rows::new(self.shape.cols);
        rows.quantize(Isa::best(), &self.pool, &self.x[..n * self.shape.cols]);
        rows
    }

    fn run(&self, op: &str) {
        let batch = if op == "gemm" { BATCH } else { 1 };
        let mut entries = self.peer(op);
        for (isa, peak) in self.peaks {
            if *isa == Isa::SCALAR && op != "gemv" {
                continue;
            }
            entries.push(self.ours(op, *isa, ScaleGroup::Row, *peak));
            if op != "gemv_dram" && *isa != Isa::SCALAR {
                for width in [64, 128, 256] {
                    entries.push(self.ours(op, *isa, ScaleGroup::Columns(width), *peak));
                }
            }
        }
        let times = measure(&mut entries, op != "gemv_dram");
        let ops = 2.0 * (self.shape.rows * self.shape.cols * batch) as f64;
        let has_peer = entries[0].routine == "tq2_0";
        let mut row_idx = 0;
        for (i, entry) in entries.iter().enumerate() {
            if entry.group == "row" {
                row_idx = i;
            }
            let against =
                |other: usize| median(times[other].iter().zip(&times[i]).map(|(other, own)| other / own).collect());
            let gops = ops / median(times[i].clone()) / 1e9;
            let best = ops / times[i].iter().copied().fold(f64::INFINITY, f64::min) / 1e9;
            let mut line = json!({
                "op": op, "rows": self.shape.rows, "cols": self.shape.cols, "batch": batch,
                "routine": entry.routine, "group": entry.group, "gops": round(gops), "gops_best": round(best),
            });
            if let Some(peak) = entry.peak {
                line["peak"] = json!(round(gops / peak));
                line["ratio_row"] = json!(round(against(row_idx)));
                if has_peer {
                    line["ratio_tq2_0"] = json!(round(against(0)));
                }
            }
            println!("{line}");
        }
    }

    fn peer(&self, op: &str) -> Vec<Entry<'a>> {
        let Some(ggml) = self.ggml else { return Vec::new() };
        let (rows, cols) = (self.shape.rows, self.shape.cols);
        let run: Box<dyn FnMut(usize)> = if op == "gemm" {
            let mut product = ggml.product(&self.trits, cols, &self.x);
            product.run();
            self.compare(product.output(), BATCH);
            Box::new(move |_| product.run())
        } else {
            let packed = ggml.pack(&self.trits, cols);
            let quantized = ggml.quantize(&self.x[..cols]);
            let mut y = vec![0.0f32; rows];
            ggml.gemv(&packed, &quantized, cols, &mut y);
            self.compare(&y, 1);
            let n_copies = if op == "gemv_dram" { COLD_BYTES.div_ceil(packed.len()) } else { 1 };
            let copies = vec![packed; n_copies];
            Box::new(move |i| ggml.gemv(&copies[i % n_copies], &quantized, cols, &mut y))
        };
        vec![Entry { routine: "tq2_0", group: "256".into(), peak: None, run }]
    }

    fn ours(&self, op: &str, isa: Isa, group: ScaleGroup, peak: f64) -> Entry<'_> {
        let copies = self.prepared(isa, group, |bytes| if op == "gemv_dram" { COLD_BYTES.div_ceil(bytes) } else { 1 });
        let pool = &self.pool;
        let run: Box<dyn FnMut(usize)> = if op == "gemm" {
            let mut y = vec![0.0f32; BATCH * self.shape.rows];
            let mut rows = self.quantized(BATCH);
            Box::new(move |_| {
                rows.quantize(isa, pool, &self.x);
                copies[0].gemm(pool, &rows, &mut y, Write::Store);
            })
        } else {
            let mut y = vec![0.0f32; self.shape.rows];
            let rows = self.quantized(1);
            Box::new(move |i| copies[i % copies.len()].gemm(pool, &rows, &mut y, Write::Store))
        };
        let group = match group {
            ScaleGroup::Columns(width) => width.to_string(),
            _ => "row".into(),
        };
        Entry { routine: isa.name(), group, peak: Some(peak), run }
    }

    /// Checks that the peer's result equals ours within what quantising by 256 columns instead of by row changes.
    fn compare(&self, theirs: &[f32], n: usize) {
        let mut ours = vec![0.0f32; n * self.shape.rows];
        let prepared = self.prepared(Isa::best(), ScaleGroup::Row, |_| 1);
        prepared[0].gemm(&self.pool, &self.quantized(n), &mut ours, Write::Store);
        // Each input in ±1 is off by at most half of 1/127 on either side; errors of random sign add as √cols.
        let bound = 6.0 / 127.0 * (self.shape.cols as f32).sqrt();
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((ours - theirs).abs() <= bound, "ggml gives {theirs}, ours is {ours}");
        }
    }
}

/// Seconds per call, `[entry][round]`.
fn measure(entries: &mut [Entry<'_>], hot: bool) -> Vec<Vec<f64>> {
    let mut n_calls = vec![0usize; entries.len()];
    let bursts: Vec<usize> = entries
        .iter_mut()
        .map(|entry| {
            // Twice: the first call touches the pages.
            (entry.run)(0);
            let start = cpu_seconds();
            (entry.run)(1);
            (BURST.as_secs_f64() / (cpu_seconds() - start)).ceil().max(1.0) as usize
        })
        .collect();
    let mut times = vec![Vec::new(); entries.len()];
    let start = Instant::now();
    while start.elapsed() < BUDGET || times[0].len() < MIN_ROUNDS {
        for (i, entry) in entries.iter_mut().enumerate() {
            if hot {
                // The other entries have displaced the caches since.
                (entry.run)(0);
            }
            let start = cpu_seconds();
            for _ in 0..bursts[i] {
                (entry.run)(n_calls[i]);
                n_calls[i] += 1;
            }
            times[i].push((cpu_seconds() - start) / bursts[i] as f64);
        }
    }
    times
}

/// CPU time of this thread, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Four digits are more than the noise leaves.
fn round(x: f64) -> f64 {
    let unit = 10f64.powf(3.0 - x.abs().max(1e-9).log10().floor());
    (x * unit).round() / unit
}
