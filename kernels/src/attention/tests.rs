use super::*;

fn wave(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
}

/// Rows `[q, k, v]` of `n` tokens, and a rope that rotates each position differently.
struct Case {
    heads: Heads,
    n: usize,
    stride: usize,
    rows: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Case {
    fn new(heads: Heads, n: usize) -> Self {
        let Heads { n_heads, n_kv_heads, head_dim } = heads;
        let stride = (n_heads + 2 * n_kv_heads) * head_dim + 3;
        let rows =
            (0..n).flat_map(|t| wave(stride, t as f32 * 1.7).into_iter().map(move |x| x * (1.0 + t as f32 % 5.0)));
        let angles = || (0..n * head_dim / 2).map(|i| i as f32 * 0.13);
        Self {
            heads,
            n,
            stride,
            rows: rows.collect(),
            cos: angles().map(f32::cos).collect(),
            sin: angles().map(f32::sin).collect(),
        }
    }

    fn rope(&self) -> Rope<'_> {
        Rope { cos: &self.cos, sin: &self.sin }
    }

    fn q_len(&self) -> usize {
        self.heads.n_heads * self.heads.head_dim
    }

    /// Appends and attends tokens in batches of these lengths; the whole output.
    fn run(&self, isa: Isa, n_threads: usize, batches: &[usize]) -> Vec<f32> {
        self.run_in(KvBits::Eight, isa, n_threads, batches)
    }

    fn run_in(&self, bits: KvBits, isa: Isa, n_threads: usize, batches: &[usize]) -> Vec<f32> {
        let (pool, mut cache) = (Pool::new(n_threads), KvCache::new(self.heads, self.n, bits));
        let mut out = vec![f32::NAN; self.n * self.q_len()];
        let mut first = 0;
        for n in batches.iter().filter(|n| **n > 0) {
            let of =
                |skip: usize| Rows { x: &self.rows[first * self.stride + skip..], stride: self.stride, n: *n, first };
            cache.append(isa, &pool, of(self.q_len()), self.rope());
            cache.attend(isa, &pool, of(0), self.rope(), &mut out[first * self.q_len()..][..n * self.q_len()]);
            first += n;
        }
        assert_eq!(first, self.n);
        out
    }

    /// A head of a row, rotated unless it is a value.
    fn head(&self, t: usize, head: usize, turn: bool) -> Vec<f64> {
        let (hd, half) = (self.heads.head_dim, self.heads.head_dim / 2);
        let x = &self.rows[t * self.stride + head * hd..][..hd];
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let turned = |d: usize| {
            let (cos, sin) = (self.cos[t * half + d % half], self.sin[t * half + d % half]);
            let (cos, sin, low, high) = (f64::from(cos), f64::from(sin), x[d % half], x[d % half + half]);
            if d < half { low * cos - high * sin } else { low * sin + high * cos }
        };
        if turn { (0..hd).map(turned).collect() } else { x }
    }
}

const HEADS: [(Heads, usize); 6] = [
    (Heads { n_heads: 8, n_kv_heads: 2, head_dim: 64 }, 150),
    (Heads { n_heads: 6, n_kv_heads: 2, head_dim: 16 }, 64),
    (Heads { n_heads: 4, n_kv_heads: 2, head_dim: 6 }, 1),
    (Heads { n_heads: 5, n_kv_heads: 1, head_dim: 40 }, 65),
    (Heads { n_heads: 3, n_kv_heads: 3, head_dim: 10 }, 66),
    (Heads { n_heads: 12, n_kv_heads: 1, head_dim: 128 }, 70),
];

#[test]
fn every_instruction_set_number_of_threads_and_batch_gives_the_same_bits() {
    for (heads, n) in HEADS {
        let case = Case::new(heads, n);
        let expected = case.run(Isa::SCALAR, 1, &vec![1; n]);
        assert!(expected.iter().all(|x| x.is_finite()));
        for isa in Isa::available() {
            for n_threads in [1, 2, 3] {
                assert!(case.run(isa, n_threads, &[n]) == expected, "{heads:?} {} {n_threads}", isa.name());
                assert!(case.run(isa, n_threads, &vec![1; n]) == expected, "{heads:?} {} one by one", isa.name());
                if n > 9 {
                    assert!(case.run(isa, n_threads, &[7, n - 9, 2]) == expected, "{heads:?} {}", isa.name());
                }
            }
        }
    }
}

#[test]
fn attention_agrees_with_f64_within_the_rounding_of_its_operands() {
    for (heads, n) in HEADS {
        let case = Case::new(heads, n);
        let Heads { n_heads, n_kv_heads, head_dim } = heads;
        let root = (head_dim as f64).sqrt();
        let absmax = |x: &[f64]| x.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let out = case.run(Isa::best(), 1, &[n]);
        let plain = case.run_in(KvBits::ThirtyTwo, Isa::best(), 2, &[n - n / 3, n / 3]);
        let (mut error, mut size) = (0.0, 0.0);
        for t in 0..n {
            for head in 0..n_heads {
                let kv_head = head / (n_heads / n_kv_heads);
                let q = case.head(t, head, true);
                let keys: Vec<_> = (0..=t).map(|s| case.head(s, n_heads + kv_head, true)).collect();
                let values: Vec<_> = (0..=t).map(|s| case.head(s, n_heads + n_kv_heads + kv_head, false)).collect();
                let scores: Vec<f64> =
                    keys.iter().map(|k| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / root).collect();
                let top = scores.iter().fold(f64::NEG_INFINITY, |top, s| top.max(*s));
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                let p: Vec<f64> = scores.iter().map(|s| (s - top).exp() / total).collect();
                // Rounding moves each entry of q and of k by at most half a step, so a score by at most `off`, and
                // a share by a factor within e^±2·off.
                let half_step = |x: &[f64]| absmax(x) / 254.0;
                let off = keys.iter().map(|k| {
                    let (q_off, k_off) = (half_step(&q), half_step(k));
                    let both = q.iter().zip(k).map(|(q, k)| q.abs() * k_off + k.abs() * q_off + q_off * k_off);
                    both.sum::<f64>() / root
                });
                let share = (2.0 * off.fold(0.0f64, f64::max)).exp();
                let mut allowed = 0.0;
                for (p, values) in p.chunks(POSITIONS).zip(values.chunks(POSITIONS)) {
                    let value = values.iter().map(|v| absmax(v)).fold(0.0f64, f64::max);
                    let mass: f64 = p.iter().sum();
                    // The share's factor, half a step of the values, half a step of 255 of the largest weight.
                    let largest = p.iter().zip(values).map(|(p, v)| p * absmax(v)).fold(0.0f64, f64::max);
                    allowed += mass * (share - 1.0) * value
                        + mass * share * value / 254.0
                        + p.len() as f64 * share * largest / 510.0;
                }
                for d in 0..head_dim {
                    let exact: f64 = p.iter().zip(&values).map(|(p, v)| p * v[d]).sum();
                    let got = f64::from(out[(t * n_heads + head) * head_dim + d]);
                    // f32 itself adds some 1e-6 of the largest value.
                    assert!((got - exact).abs() <= allowed + 1e-5, "{got} for {exact} ± {allowed}");
                    // At most 150 shares, each off by a few units of 2⁻²⁴ of scores below 300.
                    let got_plain = f64::from(plain[(t * n_heads + head) * head_dim + d]);
                    assert!((got_plain - exact).abs() <= 5e-4, "{got_plain} for {exact} in 32 bits");
                    error += (got - exact).powi(2);
                    size += exact.powi(2);
                }
            }
        }
        // Roundings are as often up as down: what remains is far below the bound of each.
        let relative = (error / size).sqrt();
        assert!(relative < 0.02, "{heads:?}: {relative}");
    }
}

#[test]
fn a_fork_attends_as_the_original_does_and_leaves_it_alone() {
    let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 10 };
    let (case, mut other) = (Case::new(heads, 140), Case::new(heads, 140));
    other.rows.iter_mut().for_each(|x| *x = -*x);
    let pool = Pool::new(1);
    let rows = |case: &Case, skip: usize, n: usize, first: usize| {
        let stride = case.stride;
        (case.rows[first * stride + skip..].to_vec(), stride, n, first)
    };
    let append = |cache: &mut KvCache, case: &Case, n: usize, first: usize| {
        let (x, stride, n, first) = rows(case, case.q_len(), n, first);
        cache.append(Isa::best(), &pool, Rows { x: &x, stride, n, first }, case.rope());
    };
    for bits in [KvBits::Eight, KvBits::ThirtyTwo] {
        let mut original = KvCache::new(heads, 200, bits);
        assert_eq!(original.n_bytes(), 0, "no memory is taken before anything is written");
        append(&mut original, &case, 140, 0);
        let attend = |cache: &KvCache, at: usize| {
            let (x, stride, n, first) = rows(&case, 0, 1, at);
            let mut out = vec![0.0; case.q_len()];
            cache.attend(Isa::best(), &pool, Rows { x: &x, stride, n, first }, case.rope(), &mut out);
            out
        };
        let (last, mut n_different) = (attend(&original, 139), 0);
        for len in [0, 1, 63, 64, 65, 128, 139] {
            let (mut same, mut different) = (original.fork(len), original.fork(len));
            append(&mut same, &case, 1, len);
            append(&mut different, &other, 1, len);
            assert_eq!(attend(&same, len), attend(&original, len), "{len}");
            n_different += usize::from(attend(&different, len) != attend(&original, len));
            assert_eq!(attend(&original, 139), last, "{len}");
            assert!(same.n_bytes() > 0 && same.n_bytes() <= original.n_bytes());
        }
        assert!(n_different > 2, "{n_different}: a share can be too small to change the output");
    }
}

#[test]
fn an_outlying_score_and_values_of_zero_give_finite_results() {
    let heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: 16 };
    let mut case = Case::new(heads, 70);
    case.rows.iter_mut().for_each(|x| *x *= 1e-3);
    case.rows[3 * case.stride + 16..][..16].fill(3e4);
    case.rows[69 * case.stride..][..16].fill(1e3);
    case.rows[10 * case.stride..][..48].fill(0.0);
    let out = case.run(Isa::best(), 1, &[70]);
    assert!(out.iter().all(|x| x.is_finite()));
    assert_eq!(out, case.run(Isa::SCALAR, 1, &[70]));
}
