//! Learns byte-level BPE merges from the training files. Deterministic: ties go to the smaller pair.

use std::collections::{HashMap, HashSet};

use nanochat_engine::text::tokenizer::{FIRST_BYTE, FIRST_MERGE, MAX_TOKEN_BYTES, pretokens};
use nanochat_engine::{TokenId, Tokenizer};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::tokenizer::Trainer;

/// Learning merges from the training files failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("learning the tokenizer failed: {reason}")]
pub struct TokenizerError {
    /// What the trainer of merges reported.
    pub reason: String,
}

/// At most `vocab_size` tokens; fewer where the texts have no more pairs that occur twice.
pub fn learn<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab_size: usize) -> Result<Tokenizer, TokenizerError> {
    let failed = |error: tokenizers::Error| TokenizerError { reason: error.to_string() };
    let n_merges = vocab_size.saturating_sub(usize::from(FIRST_MERGE));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(256 + n_merges)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet((0..=255).map(to_char).collect::<HashSet<char>>().into_iter().collect())
        .max_token_length(Some(MAX_TOKEN_BYTES))
        .build();
    // The library counts strings; each byte becomes one character and pre-tokens are ours.
    trainer
        .feed(texts, |text| {
            Ok(pretokens(text.as_bytes()).map(|part| part.iter().map(|b| to_char(*b)).collect()).collect())
        })
        .map_err(failed)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;
    let json = serde_json::to_value(&model).map_err(|e| TokenizerError { reason: e.to_string() })?;
    let merges = json["merges"].as_array().ok_or(TokenizerError { reason: "no merges".to_owned() })?;
    let mut ids: HashMap<String, TokenId> =
        (0..=255u8).map(|b| (to_char(b).to_string(), FIRST_BYTE + TokenId::from(b))).collect();
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        let part = |idx: usize| merge[idx].as_str().ok_or(TokenizerError { reason: "odd merge".to_owned() });
        let (left, right) = (part(0)?, part(1)?);
        let (Some(left_id), Some(right_id)) = (ids.get(left).copied(), ids.get(right).copied()) else {
            return Err(TokenizerError { reason: "a merge of unknown tokens".to_owned() });
        };
        let joined = format!("{left}{right}");
        // Two pairs may spell the same bytes; the first one names the token.
        if ids.contains_key(&joined) || pairs.len() == n_merges {
            continue;
        }
        ids.insert(joined, FIRST_MERGE + pairs.len() as TokenId);
        pairs.push((left_id, right_id));
    }
    Tokenizer::from_merges(pairs).map_err(|e| TokenizerError { reason: e.to_string() })
}

/// One character per byte. The mapping is our own, not GPT-2's: it is not used outside this file.
fn to_char(byte: u8) -> char {
    char::from_u32(0x100 + u32::from(byte)).expect("0x100..0x200 are characters")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learned() -> Tokenizer {
        learn([include_str!("corpus.rs"), include_str!("../recipe.rs")].into_iter(), 1000).expect("text has pairs")
    }

    #[test]
    fn merges_shorten_text_and_keep_newlines() {
        let tokenizer = learned();
        let text = include_str!("../schedule.rs").as_bytes();
        let tokens = tokenizer.encode(text);
        assert_eq!(tokenizer.decode(&tokens), text);
        assert!(tokens.len() * 2 < text.len(), "{} tokens for {} bytes", tokens.len(), text.len());
        assert!(tokenizer.vocab_size() <= 1000 && tokenizer.vocab_size() > 800);
        assert!(tokens.iter().any(|t| tokenizer.token_bytes(*t).starts_with(b"\n    ")));
    }

    #[test]
    fn learning_twice_gives_the_same_tokenizer() {
        assert_eq!(learned().hash(), learned().hash());
    }

    proptest! {
        #[test]
        fn every_byte_string_comes_back(bytes: Vec<u8>) {
            let tokenizer = learn(["fn main() {\n    println!();\n}\nfn main() {\n    println!();\n}\n"].into_iter(), 300)
                .expect("text has pairs");
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&bytes)), bytes);
        }
    }
}
