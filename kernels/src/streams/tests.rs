use super::*;

fn wave(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7 + seed).sin()).collect()
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    match n {
        2 => vec![vec![0, 1], vec![1, 0]],
        _ => {
            let all = |i: usize| [i / 64, i / 16 % 4, i / 4 % 4, i % 4];
            (0..256).map(all).filter(|p| (0..4).all(|i| p.contains(&i))).map(|p| p.to_vec()).collect()
        }
    }
}

struct Case {
    n: usize,
    d: usize,
    weights: Vec<f32>,
    biases: Vec<f32>,
    gain: Vec<f32>,
    n_tokens: usize,
}

/// Streams, hidden, coefficients, quantised rows with scales, and the sum of the streams after another mixing.
type Outcome = (Vec<f32>, Vec<f32>, Vec<f32>, Vec<i8>, Vec<f32>, Vec<f32>);

impl Case {
    fn new(n: usize, d: usize) -> Self {
        let n_outputs = 2 * n + permutations(n).len();
        let weights = wave(n_outputs * n * d, 1.0).iter().map(|w| w * 0.1).collect();
        Self { n, d, weights, biases: wave(n_outputs, 2.0), gain: wave(d, 3.0), n_tokens: 3 }
    }

    fn input(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Self { n, d, n_tokens, .. } = *self;
        (wave(n_tokens * n * d, 4.0), wave(n_tokens * d, 5.0), wave(n_tokens * (n + n * n), 6.0))
    }

    fn run(&self, isa: Isa, n_threads: usize, has_output: bool) -> Outcome {
        let mixer = Mixer::new(&self.weights, &self.biases, permutations(self.n), 1e-5);
        let (mut x, mut hidden, mut coefficients) = self.input();
        let mut rows = Int8Rows::new(self.d);
        let norm = Norm { gain: &self.gain, eps: 1e-5 };
        let streams = Streams { x: &mut x, hidden: &mut hidden, coefficients: &mut coefficients };
        rows.mixed_rms_norm(isa, &Pool::new(n_threads), &mixer, streams, has_output, norm);
        let mut total = vec![f32::NAN; self.n_tokens * self.d];
        for (token, total) in total.chunks_exact_mut(self.d).enumerate() {
            let of = |buffer: &[f32], width: usize| buffer[token * width..][..width].to_vec();
            let (x, hidden) = (of(&x, self.n * self.d), of(&hidden, self.d));
            sum_streams(isa, &mixer, &x, &hidden, &of(&coefficients, mixer.n_coefficients()), total);
        }
        let values = (0..self.n_tokens).flat_map(|i| rows.row(i).to_vec()).collect();
        (x, hidden, coefficients, values, rows.scales().to_vec(), total)
    }
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
    for n in [2, 4] {
        for d in [1, 15, 16, 40, 64, 130] {
            for has_output in [false, true] {
                let case = Case::new(n, d);
                let expected = case.run(Isa::SCALAR, 1, has_output);
                for isa in Isa::available() {
                    assert!(case.run(isa, 2, has_output) == expected, "{n} streams of {d}, {}", isa.name());
                }
            }
        }
    }
}

#[test]
fn the_pass_agrees_with_the_formulas_in_f64() {
    for (n, d) in [(2, 64), (2, 33), (4, 48)] {
        for has_output in [false, true] {
            let case = Case::new(n, d);
            let (x, f, before) = case.input();
            let (got_x, hidden, coefficients, values, scales, total) = case.run(Isa::best(), 1, has_output);
            let near = |got: f32, exact: f64, what: &str| {
                // Sums of at most 4·48 products of numbers near 1, each rounded to 2⁻²⁴, and exponentials of them.
                assert!((f64::from(got) - exact).abs() < 5e-5, "{what}: {got} for {exact}");
            };
            for token in 0..case.n_tokens {
                let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
                let old = wide(&x[token * n * d..][..n * d]);
                let f = wide(&f[token * d..][..d]);
                let before = wide(&before[token * (n + n * n)..][..n + n * n]);
                let mix = |x: &[f64], f: &[f64], c: &[f64]| -> Vec<f64> {
                    let at = |i: usize, col: usize| {
                        c[i] * f[col] + (0..n).map(|j| c[n + i * n + j] * x[j * d + col]).sum::<f64>()
                    };
                    (0..n * d).map(|k| at(k / d, k % d)).collect()
                };
                let x = if has_output { mix(&old, &f, &before) } else { old };
                let inverse = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / (n * d) as f64 + 1e-5).sqrt();
                let z: Vec<f64> = case
                    .weights
                    .chunks_exact(n * d)
                    .zip(&case.biases)
                    .map(|(w, b)| {
                        w.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>() * inverse + f64::from(*b)
                    })
                    .collect();
                let sigma = |z: f64| 1.0 / (1.0 + (-z).exp());
                let total_c: f64 = z[2 * n..].iter().map(|z| z.exp()).sum();
                let mut c = vec![0.0; n + n * n];
                for i in 0..n {
                    c[i] = 2.0 * sigma(z[n + i]);
                }
                for (z, permutation) in z[2 * n..].iter().zip(permutations(n)) {
                    for (i, j) in permutation.into_iter().enumerate() {
                        c[n + i * n + j] += z.exp() / total_c;
                    }
                }
                for i in 0..n {
                    // Doubly stochastic, by construction.
                    let row: f32 = (0..n).map(|j| coefficients[token * (n + n * n) + n + i * n + j]).sum();
                    near(row, 1.0, "a row of res");
                }
                let h: Vec<f64> = (0..d).map(|col| (0..n).map(|i| sigma(z[i]) * x[i * d + col]).sum::<f64>()).collect();
                let rms = 1.0 / (h.iter().map(|h| h * h).sum::<f64>() / d as f64 + 1e-5).sqrt();
                for k in 0..n * d {
                    near(got_x[token * n * d + k], x[k], "streams");
                }
                for k in 0..n + n * n {
                    near(coefficients[token * (n + n * n) + k], c[k], "coefficients");
                }
                let scale = f64::from(scales[token]);
                let after = mix(&x, &h, &c);
                for col in 0..d {
                    near(hidden[token * d + col], h[col], "hidden");
                    let normed = h[col] * rms * f64::from(case.gain[col]);
                    let step = f64::from(values[token * d + col]) * scale;
                    assert!((step - normed).abs() <= scale * 0.501 + 5e-5, "{step} for {normed}");
                    near(total[token * d + col], (0..n).map(|i| after[i * d + col]).sum(), "the sum");
                }
            }
        }
    }
}
