//! Several corpora as one: each sequence is drawn from one of them, by its share.

use std::ops::Range;
use std::sync::Arc;

use nanochat_engine::rng::Rng;

use super::batch::Batch;
use super::documents::Documents;

/// Corpora and how often each is drawn from.
pub struct Mixture {
    parts: Vec<(f32, Documents)>,
    seed: u64,
}

impl Mixture {
    /// A mixture of corpora with their weights, which need not sum to 1.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(parts: Vec<(f32, Documents)>, seed: u64) -> Self {
        assert!(!parts.is_empty(), "a mixture has a part");
        Self { parts, seed }
    }

    /// Sequences of a step. Which corpus one comes from, and what is drawn there, follows from its step and index
    /// alone.
    pub fn batch(&self, step: usize, sequences: Range<usize>) -> Batch {
        if let [(_, only)] = &self.parts[..] {
            return only.batch(step, sequences);
        }
        let batches: Vec<Batch> = sequences.map(|idx| self.part(step, idx).batch(step, idx..idx + 1)).collect();
        fn join<T: Copy>(batches: &[Batch], field: fn(&Batch) -> &Arc<Vec<T>>) -> Arc<Vec<T>> {
            Arc::new(batches.iter().flat_map(|batch| field(batch).iter().copied()).collect())
        }
        Batch {
            tokens: join(&batches, |batch| &batch.tokens),
            targets: join(&batches, |batch| &batch.targets),
            weights: join(&batches, |batch| &batch.weights),
            starts: join(&batches, |batch| &batch.starts),
            seq_len: batches.first().map_or(1, |batch| batch.seq_len),
        }
    }

    fn part(&self, step: usize, sequence: usize) -> &Documents {
        let mut rng =
            Rng::new(self.seed ^ (((step as u64) << 20) | sequence as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let total: f32 = self.parts.iter().map(|(share, _)| share).sum();
        let mut left = rng.uniform() * total;
        for (share, documents) in &self.parts {
            if left < *share {
                return documents;
            }
            left -= share;
        }
        &self.parts[0].1 // the sum was rounded
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nanochat_engine::Tokenizer;
    use nanochat_engine::workspace::sources::SourceFile;

    use super::*;
    use crate::Recipe;

    fn documents(text: &str) -> Documents {
        let file = SourceFile { name: "a.rs".into(), path: PathBuf::from("a.rs"), text: text.repeat(200) };
        let data = Recipe::load("test").expect("it is built in").data;
        Documents::new(Arc::new(Tokenizer::bytes()), &[file], Arc::default(), &data, 3)
    }

    #[test]
    fn sequences_come_from_each_part_as_often_as_its_share_says() {
        let mixture = Mixture::new(vec![(3.0, documents("aaaa\n")), (1.0, documents("bbbb\n"))], 1);
        let batch = mixture.batch(7, 0..200);
        let a = u32::from(nanochat_engine::text::tokenizer::FIRST_BYTE) + u32::from(b'a');
        let n_first = batch.tokens.chunks(batch.seq_len).filter(|sequence| sequence.contains(&a)).count();
        assert!((130..170).contains(&n_first), "{n_first} of 200");
        let again = mixture.batch(7, 150..200);
        assert_eq!(batch.tokens[150 * batch.seq_len..], again.tokens[..]);
    }
}
