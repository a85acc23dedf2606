use std::collections::HashMap;

use proptest::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Model, Trainer};

use super::*;

const SAMPLE: &str = r#"//! A sample.
use std::collections::HashMap;

/// Counts words — “naïvely”.
pub fn count_words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    // Every line counts.
    for line in text.lines() {
        for word in line.split_whitespace() {
            *counts.entry(word.to_string()).or_insert(0usize) += 1;
        }
    }

    counts
}

pub struct Matrix { rows: usize, cols: usize, values: Vec<f32> }

impl Matrix {
    pub fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols, values: vec![0.0; rows * cols] }
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }
}
"#;

/// The test's own byte map: byte b is the character U+0100 + b.
fn mapped(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from_u32(0x100 + u32::from(byte)).expect("below the surrogates")).collect()
}

/// Merges that the `tokenizers` crate learns from `text`, less those that make a token a second time.
fn learn(text: &str, vocab_size: usize) -> Vec<(TokenId, TokenId)> {
    let mut words: HashMap<String, u64> = HashMap::new();
    for pretoken in pretokens(text.as_bytes()) {
        *words.entry(mapped(pretoken)).or_default() += 1;
    }
    let mut trainer = BpeTrainer::builder().vocab_size(vocab_size).show_progress(false).min_frequency(2).build();
    trainer
        .feed(words.iter().flat_map(|(word, &n)| std::iter::repeat_n(word.clone(), n as usize)), |word| {
            Ok(vec![word.to_owned()])
        })
        .expect("words are fed as they are");
    let mut model = BPE::default();
    let _: Vec<AddedToken> = trainer.train(&mut model).expect("training a small model");
    let json: serde_json::Value = serde_json::to_value(&model).expect("the model has a JSON form");
    let mut ids: HashMap<String, TokenId> =
        (0..=255u8).map(|byte| (mapped(&[byte]), FIRST_BYTE + TokenId::from(byte))).collect();
    let mut merges = Vec::new();
    for merge in json["merges"].as_array().expect("merges are a list") {
        let (left, right) = match merge {
            serde_json::Value::String(both) => both.split_once(' ').expect("two parts"),
            pair => (pair[0].as_str().expect("text"), pair[1].as_str().expect("text")),
        };
        let joined = format!("{left}{right}");
        if !ids.contains_key(&joined) {
            merges.push((ids[left], ids[right]));
            ids.insert(joined, FIRST_MERGE + merges.len() as TokenId - 1);
        }
    }
    merges
}

pub(crate) fn sample() -> Tokenizer {
    static SAMPLE_TOKENIZER: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    SAMPLE_TOKENIZER
        .get_or_init(|| Tokenizer::from_merges(learn(&SAMPLE.repeat(3), 600)).expect("learned merges are well formed"))
        .clone()
}

/// The `tokenizers` crate's model with the same merges.
fn oracle(tokenizer: &Tokenizer) -> BPE {
    let text = |id: TokenId| mapped(tokenizer.token_bytes(id));
    let vocab = (FIRST_BYTE..tokenizer.vocab_size() as TokenId).map(|id| (text(id), u32::from(id))).collect();
    let merges = tokenizer.merges().iter().map(|&(left, right)| (text(left), text(right))).collect();
    BPE::new(vocab, merges)
}

fn oracle_tokens(oracle: &BPE, text: &[u8]) -> Vec<TokenId> {
    pretokens(text)
        .flat_map(|pretoken| oracle.tokenize(&mapped(pretoken)).expect("every byte is in the vocabulary"))
        .map(|token| token.id as TokenId)
        .collect()
}

fn rust_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\n",
        "\n    ",
        "\r\n",
        "\r\n\t",
        "\r",
        "\n\n        ",
        " ",
        "    ",
        "\t",
        "fn",
        " let",
        "count_words",
        "::",
        "();",
        "->",
        "=>",
        " => {",
        "//",
        "// a comment\n",
        "0x1F",
        " 12.5f32",
        "é",
        "“",
        "\u{0}",
        "self.",
        "r#\"",
        "'a",
        "}",
        "{",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_come_back(text in prop::collection::vec(any::<u8>(), 0..400)) {
        for tokenizer in [Tokenizer::bytes(), sample()] {
            let tokens = tokenizer.encode(&text);
            prop_assert!(tokens.iter().all(|&token| token >= N_SPECIALS));
            prop_assert_eq!(tokenizer.decode(&tokens), text.clone());
        }
    }

    #[test]
    fn pretokens_are_the_text_and_never_too_long(text in rust_like()) {
        prop_assert_eq!(pretokens(text.as_bytes()).collect::<Vec<_>>().concat(), text.as_bytes());
        prop_assert!(pretokens(text.as_bytes()).all(|pretoken| (1..=MAX_PRETOKEN).contains(&pretoken.len())));
    }

    #[test]
    fn tokens_are_those_of_the_tokenizers_crate(text in rust_like(), noise in prop::collection::vec(any::<u8>(), 0..40)) {
        let tokenizer = sample();
        let text = [text.as_bytes(), &noise].concat();
        let tokens = tokenizer.encode(&text);
        prop_assert_eq!(&tokens, &oracle_tokens(&oracle(&tokenizer), &text));
        // A second time from the cache.
        prop_assert_eq!(tokenizer.encode(&text), tokens);
    }

    #[test]
    fn compatible_tokens_are_those_that_can_spell_the_bytes(bytes in prop::sample::select(vec![
        "", "l", "le", "let", " le", "\n", "\n   ", "count", "usize)", "é", "\u{1}\u{2}",
    ])) {
        let tokenizer = sample();
        let slow: Vec<TokenId> = (FIRST_BYTE..tokenizer.vocab_size() as TokenId)
            .filter(|&id| {
                let token = tokenizer.token_bytes(id);
                token.starts_with(bytes.as_bytes()) || bytes.as_bytes().starts_with(token)
            })
            .collect();
        prop_assert_eq!(tokenizer.tokens_compatible_with(bytes.as_bytes()), slow);
    }
}

fn split(text: &str) -> Vec<&str> {
    pretokens(text.as_bytes()).map(|pretoken| std::str::from_utf8(pretoken).expect("cut at characters here")).collect()
}

#[test]
fn text_is_cut_where_a_rust_reader_would() {
    assert_eq!(
        split("fn a() -> u8 {\n    b::c();\n}"),
        ["fn", " a", "()", " ->", " u8", " {", "\n    ", "b", "::", "c", "();", "\n", "}"]
    );
}

#[test]
fn a_line_break_keeps_blank_lines_and_indentation() {
    assert_eq!(split("a;\n\n    b"), ["a", ";", "\n\n    ", "b"]);
    assert_eq!(split("a;\r\n\tb"), ["a", ";", "\r\n\t", "b"]);
    assert_eq!(split("a \n \n  b\r"), ["a", " ", "\n ", "\n  ", "b", "\r"]);
    assert_eq!(split("x   = 1"), ["x", "  ", " =", " 1"]);
}

#[test]
fn a_line_break_with_its_indentation_becomes_one_token() {
    let tokenizer = sample();
    let tokens = tokenizer.encode(b"\n        ");
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    assert_eq!(tokenizer.token_bytes(tokens[0]), b"\n        ");
}

#[test]
fn a_comment_does_not_swallow_the_next_line() {
    let text = "    // Every line counts.\n    for line in text.lines() {\r\n}\n";
    let tokenizer = sample();
    let back = tokenizer.decode(&tokenizer.encode(text.as_bytes()));
    assert_eq!(String::from_utf8(back).expect("it was UTF-8").lines().count(), text.lines().count());
    assert_eq!(tokenizer.encode(text.as_bytes()), tokenizer.encode(text.as_bytes()));
}

#[test]
fn a_megabyte_on_one_line_takes_linear_time() {
    let tokenizer = sample();
    for text in [b"QUJD".repeat(250_000), b" ".repeat(1_000_000), b"(".repeat(1_000_000), b"\n".repeat(1_000_000)] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
    }
}

#[test]
fn threads_that_share_a_tokenizer_agree() {
    let tokenizer = sample();
    let expected = tokenizer.encode(SAMPLE.as_bytes());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(tokenizer.encode(SAMPLE.as_bytes()), expected)));
        }
    });
}

#[test]
fn specials_and_unknown_ids_decode_to_nothing() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.decode(&[END, FIRST_BYTE + 65, SUFFIX, 7, 9999, TokenId::MAX]), b"A");
}

const A: TokenId = FIRST_BYTE + b'a' as TokenId;
const B: TokenId = FIRST_BYTE + b'b' as TokenId;

#[test]
fn merges_of_specials_or_of_what_comes_after_are_refused() {
    let error = |merges| Tokenizer::from_merges(merges).expect_err("malformed");
    assert_eq!(error(vec![(END, A)]), TokenizerError::Undefined { index: 0 });
    assert_eq!(error(vec![(A, B), (A, 7)]), TokenizerError::Undefined { index: 1 });
    assert_eq!(error(vec![(A, FIRST_MERGE)]), TokenizerError::Undefined { index: 0 });
    assert_eq!(error(vec![(A, B), (FIRST_MERGE + 1, A)]), TokenizerError::Undefined { index: 1 });
    assert_eq!(error(vec![(TokenId::MAX, A)]), TokenizerError::Undefined { index: 0 });
}

#[test]
fn merges_that_make_the_same_bytes_are_refused() {
    let merges = vec![(A, B), (B, A), (FIRST_MERGE, A), (A, FIRST_MERGE + 1)];
    assert_eq!(Tokenizer::from_merges(merges).expect_err("aba twice"), TokenizerError::Duplicate { index: 3 });
    assert_eq!(Tokenizer::from_merges(vec![(A, B), (A, B)]).expect_err("ab"), TokenizerError::Duplicate { index: 1 });
}

#[test]
fn tokens_that_grow_too_long_are_refused() {
    // Doubling: 2, 4, .. 64 bytes, then 128.
    let merges = (0..7).map(|i| if i == 0 { (A, A) } else { (FIRST_MERGE + i - 1, FIRST_MERGE + i - 1) }).collect();
    assert_eq!(Tokenizer::from_merges(merges).expect_err("128 bytes"), TokenizerError::TooLarge { index: 6 });
}

#[test]
fn a_vocabulary_beyond_the_limit_is_refused() {
    let first = FIRST_BYTE..FIRST_MERGE;
    let merges: Vec<_> = first.clone().flat_map(|a| first.clone().map(move |b| (a, b))).take(VOCAB_LIMIT).collect();
    let most = VOCAB_LIMIT - 1 - usize::from(FIRST_MERGE);
    assert_eq!(Tokenizer::from_merges(merges[..most].to_vec()).expect("the limit").vocab_size(), VOCAB_LIMIT - 1);
    assert_eq!(Tokenizer::from_merges(merges).expect_err("too many"), TokenizerError::TooLarge { index: most });
}

#[test]
fn the_hash_names_the_merges() {
    let one = Tokenizer::from_merges(vec![(A, B), (B, A)]).expect("well formed");
    let other = Tokenizer::from_merges(vec![(B, A), (A, B)]).expect("well formed");
    assert_ne!(one.hash(), other.hash());
    assert_eq!(one.hash(), one.clone().hash());
}
