//! Golden files: what the rules of decoding make of a file, a cursor and the tokens that a predictor chooses; one
//! file of cases per rule.
//!
//! ```text
//! # a comment
//! === the name of a case, to which the fields up to the next belong
//! text: g(first, sec$0)␊
//! says: ond);
//! shown: ond
//! stop: bracket
//! ```
//!
//! A value follows its key and one space, or, where it has several lines, is below it and indented by four spaces; line
//! breaks are between its lines and not after the last. Empty lines are passed over. In a value
//!
//! ```text
//! ␠ ␉ ␍ ␊         are a space, a tab and the two line breaks where they would not be seen
//! │               separates tokens
//! ⟨C3 A9⟩         are bytes
//! ⟨300 × ab⟩      is a text 300 times
//! ⟨nothing⟩       is no bytes
//! ⟨END⟩ ⟨PREFIX⟩ ⟨SUFFIX⟩ ⟨SNIPPET⟩    are tokens without bytes
//! ```

use std::collections::{BTreeSet, HashMap};

use super::Stop;
use super::generated::GeneratedText;
use crate::Tokenizer;
use crate::prompt::Prompt;
use crate::text::tokenizer::{END, FIRST_BYTE, FIRST_MERGE, PREFIX, SNIPPET, SUFFIX, TokenId};
use crate::text::{Scanner, verdict};

#[test]
fn what_precedes_the_cursor_is_written_again() {
    check("healing.txt", include_str!("golden/healing.txt"), &HEALING);
}

#[test]
fn a_text_ends_with_its_lines_and_before_a_bracket_that_is_not_its_own() {
    check("stop.txt", include_str!("golden/stop.txt"), &STOP);
}

#[test]
fn what_follows_already_is_trimmed() {
    check("trim.txt", include_str!("golden/trim.txt"), &TRIM);
}

#[test]
fn a_completion_has_its_verdict() {
    check("verdict.txt", include_str!("golden/verdict.txt"), &VERDICT);
}

#[test]
fn loops_are_cut_and_rulers_and_arrays_are_not() {
    check("repetition.txt", include_str!("golden/repetition.txt"), &REPETITION);
}

/// Panics with every case that does not hold.
fn check(file: &str, content: &str, rule: &Rule) {
    let failures =
        failures(file, content, rule).unwrap_or_else(|Malformed { line, why }| panic!("{file}:{line}: {why}"));
    assert!(failures.is_empty(), "{} values differ:\n{}", failures.len(), failures.join("\n"));
}

/// Fields of a case by their keys, in the order of the file.
type Fields<'a> = Vec<(&'a str, Vec<Piece>)>;

struct Rule {
    /// The fields that go in. All others are what should come out.
    inputs: &'static [&'static str],
    apply: fn(&Case<'_>) -> Result<Fields<'static>, Malformed>,
}

const HEALING: Rule = Rule { inputs: &["text", "tokens", "asked"], apply: heal };
const STOP: Rule = Rule { inputs: &["text", "lines", "says", "tokens"], apply: write };
const REPETITION: Rule = Rule { inputs: &["text", "lines", "tokens"], apply: write };
const TRIM: Rule = Rule { inputs: &["text", "says"], apply: trim };
const VERDICT: Rule = Rule { inputs: &["text", "says"], apply: judge };

fn heal(case: &Case<'_>) -> Result<Fields<'static>, Malformed> {
    let (healed, mut outcome) = decode(case)?;
    outcome.push(("healed", plain(healed)));
    Ok(outcome)
}

fn write(case: &Case<'_>) -> Result<Fields<'static>, Malformed> {
    let (_, outcome) = decode(case)?;
    Ok(outcome)
}

fn trim(case: &Case<'_>) -> Result<Fields<'static>, Malformed> {
    let (prefix, suffix) = case.at_cursor()?;
    let shown = Scanner::after(prefix).trim_overlap(case.text("says")?, suffix);
    Ok(vec![("shown", plain(shown))])
}

fn judge(case: &Case<'_>) -> Result<Fields<'static>, Malformed> {
    let (prefix, suffix) = case.at_cursor()?;
    let verdict = verdict::check(prefix, case.text("says")?, suffix);
    Ok(vec![("verdict", plain(format!("{verdict:?}").to_lowercase()))])
}

/// Tokens that a prompt may have: as many as a context of 2,048 leaves to it.
const BUDGET: usize = 2000;

/// The bytes that are written again; then `shown` and `stop` where tokens are predicted, and `allowed` where tokens
/// are asked about.
fn decode(case: &Case<'_>) -> Result<(Vec<u8>, Fields<'static>), Malformed> {
    let (prefix, suffix) = case.at_cursor()?;
    let max_lines: usize = match case.value("lines") {
        Some(_) => case.text("lines")?.parse().map_err(|_| case.malformed("lines are counted by a number"))?,
        None => 1,
    };
    let (tokens, asked) = (case.value("tokens"), case.value("asked"));
    let tokenizer = tokenizer(tokens.into_iter().chain(asked).flatten())
        .ok_or_else(|| case.malformed("a token is longer than tokens are"))?;
    let ids = |pieces: &[Piece]| -> Result<Vec<TokenId>, Malformed> {
        let ids = pieces.iter().map(|piece| token(&tokenizer, piece));
        ids.collect::<Option<_>>().ok_or_else(|| case.malformed("a token has bytes"))
    };

    let prompt = Prompt { path: "live.rs", prefix, suffix, ..Prompt::default() };
    let healed = prompt.tokens(&tokenizer, BUDGET).healed;
    let predicted = match (tokens, case.value("says")) {
        (None, None) => None,
        (Some(tokens), None) => Some(ids(tokens)?),
        (None, Some(_)) => {
            let bytes = healed.iter().chain(case.bytes("says")?);
            Some(bytes.map(|byte| FIRST_BYTE + TokenId::from(*byte)).collect())
        }
        (Some(_), Some(_)) => return Err(case.malformed("a prediction is in bytes or in tokens")),
    };
    let mut text = GeneratedText::new(&prompt, max_lines, healed.clone());
    let stop = predicted.map(|predicted| decode_as(&predicted, &tokenizer, &mut text));
    let mut outcome = Vec::new();
    if let Some(asked) = asked {
        let asked_ids = ids(asked)?;
        let allowed = asked.iter().zip(asked_ids).filter(|(_, token)| may_come(*token, &tokenizer, &text));
        let mut allowed: Vec<Piece> = allowed.map(|(piece, _)| piece.clone()).collect();
        if allowed.is_empty() {
            allowed = plain("");
        }
        outcome.push(("allowed", allowed));
    }
    if let Some(stop) = stop {
        outcome.push(("shown", plain(text.trimmed(suffix).unwrap_or_default())));
        outcome.push(("stop", plain(stop)));
    }
    Ok((healed, outcome))
}

/// Writes predicted tokens as the search does, and tells why it stopped.
fn decode_as(predicted: &[TokenId], tokenizer: &Tokenizer, text: &mut GeneratedText) -> String {
    for &token in predicted {
        if !may_come(token, tokenizer, text) {
            return "refused".to_owned();
        }
        let bytes = tokenizer.token_bytes(token);
        // Where one line is asked for, the search takes its end as one choice and does not write the break.
        let may_end = text.line_may_end() && bytes.starts_with(b"\n");
        let stop = if token == END { Some(Stop::End) } else { text.push(token, bytes) };
        if may_end && stop != Some(Stop::Lines) {
            return "none, although the line may end".to_owned();
        }
        if let Some(stop) = stop {
            return format!("{stop:?}").to_lowercase();
        }
    }
    "none".to_owned()
}

/// Whether the rules leave a token any probability.
fn may_come(token: TokenId, tokenizer: &Tokenizer, text: &GeneratedText) -> bool {
    let mut probabilities = vec![1.0; tokenizer.vocab_size()];
    text.forbid(tokenizer, &mut probabilities);
    probabilities[usize::from(token)] > 0.0
}

/// Of bytes, and of pieces that are joined from the left: each beginning of a piece is a token too.
fn tokenizer<'p>(pieces: impl Iterator<Item = &'p Piece>) -> Option<Tokenizer> {
    let byte = |byte: u8| FIRST_BYTE + TokenId::from(byte);
    let mut merges = Vec::new();
    let mut made: HashMap<&[u8], TokenId> = HashMap::new();
    for piece in pieces {
        let Piece::Bytes(bytes) = piece else { continue };
        let Some(&first) = bytes.first() else { continue };
        let mut left = byte(first);
        for end in 2..=bytes.len() {
            left = *made.entry(&bytes[..end]).or_insert_with(|| {
                merges.push((left, byte(bytes[end - 1])));
                FIRST_MERGE + (merges.len() - 1) as TokenId
            });
        }
    }
    Tokenizer::from_merges(merges).ok()
}

/// The token that a piece is, if it has bytes or is a special.
fn token(tokenizer: &Tokenizer, piece: &Piece) -> Option<TokenId> {
    match piece {
        Piece::Special(token) => Some(*token),
        Piece::Bytes(bytes) => {
            let mut tokens = tokenizer.tokens_compatible_with(bytes).into_iter();
            tokens.find(|token| tokenizer.token_bytes(*token) == bytes.as_slice())
        }
    }
}

/// The values of a case that are not as they should be.
fn failures(file: &str, content: &str, rule: &Rule) -> Result<Vec<String>, Malformed> {
    let mut failures = Vec::new();
    for case in read(content)? {
        let outcome = (rule.apply)(&case)?;
        let stated = case.fields.iter().map(|(key, _)| *key).filter(|key| !rule.inputs.contains(key));
        let keys: BTreeSet<&str> = stated.chain(outcome.iter().map(|(key, _)| *key)).collect();
        for key in keys {
            let (expected, got) = (value(&case.fields, key), value(&outcome, key));
            if expected != got {
                let (expected, got) = (written(expected), written(got));
                let (line, name) = (case.line, case.name);
                let values = format!("{key} expected {expected}\n    {key} got      {got}");
                failures.push(format!("{file}:{line}: {name}\n    {values}"));
            }
        }
    }
    Ok(failures)
}

struct Case<'a> {
    name: &'a str,
    line: usize,
    fields: Fields<'a>,
}

/// What is between two `│` of a value.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Bytes(Vec<u8>),
    Special(TokenId),
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq)]
struct Malformed {
    line: usize,
    why: &'static str,
}

impl Case<'_> {
    fn value(&self, key: &str) -> Option<&[Piece]> {
        value(&self.fields, key)
    }

    /// The value of a field that must be there and is no list.
    fn bytes(&self, key: &str) -> Result<&[u8], Malformed> {
        match self.value(key) {
            Some([Piece::Bytes(bytes)]) => Ok(bytes),
            _ => Err(self.malformed("a field that the rule needs is missing or is a list")),
        }
    }

    fn text(&self, key: &str) -> Result<&str, Malformed> {
        std::str::from_utf8(self.bytes(key)?).map_err(|_| self.malformed("a text is UTF-8"))
    }

    /// Prefix and suffix.
    fn at_cursor(&self) -> Result<(&str, &str), Malformed> {
        let parts = self.text("text")?.split_once("$0").filter(|(_, suffix)| !suffix.contains("$0"));
        parts.ok_or_else(|| self.malformed("a text has one cursor"))
    }

    fn malformed(&self, why: &'static str) -> Malformed {
        Malformed { line: self.line, why }
    }
}

fn value<'f>(fields: &'f [(&str, Vec<Piece>)], key: &str) -> Option<&'f [Piece]> {
    fields.iter().find(|(found, _)| *found == key).map(|(_, value)| value.as_slice())
}

fn plain(text: impl Into<Vec<u8>>) -> Vec<Piece> {
    vec![Piece::Bytes(text.into())]
}

const INDENT: &str = "    ";
const PICTURES: [(&str, &str); 4] = [("␠", " "), ("␉", "\t"), ("␍", "\r"), ("␊", "\n")];
const SPECIALS: [(&str, TokenId); 4] =
    [("⟨END⟩", END), ("⟨PREFIX⟩", PREFIX), ("⟨SUFFIX⟩", SUFFIX), ("⟨SNIPPET⟩", SNIPPET)];

fn read(content: &str) -> Result<Vec<Case<'_>>, Malformed> {
    if let Some(at) = content.lines().position(|line| line.ends_with(char::is_whitespace)) {
        return Err(Malformed { line: at + 1, why: "a space at the end of a line is written ␠" });
    }
    let mut cases: Vec<Case<'_>> = Vec::new();
    let lines = content.lines().enumerate().map(|(i, line)| (i + 1, line));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).peekable();
    while let Some((line_no, line)) = lines.next() {
        let malformed = |why: &'static str| Malformed { line: line_no, why };
        if let Some(name) = line.strip_prefix("=== ") {
            if cases.iter().any(|case| case.name == name) {
                return Err(malformed("another case has this name"));
            }
            cases.push(Case { name, line: line_no, fields: Vec::new() });
            continue;
        }
        let (key, rest) = line.split_once(':').ok_or(malformed("this is neither a case nor a field"))?;
        let case = cases.last_mut().ok_or(malformed("a field belongs to a case"))?;
        if case.value(key).is_some() {
            return Err(malformed("the case has this field already"));
        }
        let written = if rest.is_empty() {
            let mut block = Vec::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with(INDENT)) {
                block.push(&line[INDENT.len()..]);
            }
            block.join("\n")
        } else {
            let inline = rest.strip_prefix(' ').filter(|inline| !inline.starts_with(' '));
            inline.ok_or(malformed("one space precedes a value; more are written ␠"))?.to_owned()
        };
        let pieces: Result<Vec<Piece>, _> = written.split('│').map(piece).collect();
        case.fields.push((key, pieces.map_err(malformed)?));
    }
    if cases.is_empty() { Err(Malformed { line: 1, why: "a file has cases" }) } else { Ok(cases) }
}

fn piece(written: &str) -> Result<Piece, &'static str> {
    if written.is_empty() {
        return Err("nothing is written ⟨nothing⟩");
    }
    if let Some((_, special)) = SPECIALS.iter().find(|(name, _)| *name == written) {
        return Ok(Piece::Special(*special));
    }
    let text = PICTURES.iter().fold(written.to_owned(), |text, (picture, plain)| text.replace(*picture, plain));
    let mut bytes = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('⟨') {
        let (mark, after) = after.split_once('⟩').ok_or("a mark ends with ⟩")?;
        bytes.extend_from_slice(before.as_bytes());
        bytes.extend(marked(mark)?);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(Piece::Bytes(bytes))
}

fn marked(mark: &str) -> Result<Vec<u8>, &'static str> {
    if mark == "nothing" {
        return Ok(Vec::new());
    }
    if let Some((n, text)) = mark.split_once(" × ") {
        let n: usize = n.parse().map_err(|_| "a text is repeated by a number")?;
        return Ok(text.repeat(n).into_bytes());
    }
    mark.split(' ').map(|byte| u8::from_str_radix(byte, 16).map_err(|_| "a mark is none of those there are")).collect()
}

/// A value as files write it, but with each space as its picture.
fn written(value: Option<&[Piece]>) -> String {
    let Some(pieces) = value else { return "no such field".to_owned() };
    let pieces: Vec<String> = pieces.iter().map(written_piece).collect();
    pieces.join("│")
}

fn written_piece(piece: &Piece) -> String {
    let bytes = match piece {
        Piece::Special(token) => {
            let special = SPECIALS.iter().find(|(_, special)| special == token);
            return special.expect("no other is read").0.to_owned();
        }
        Piece::Bytes(bytes) if bytes.is_empty() => return "⟨nothing⟩".to_owned(),
        Piece::Bytes(bytes) => bytes,
    };
    let mut written = String::new();
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().to_owned();
        written += &PICTURES.iter().fold(valid, |text, (picture, plain)| text.replace(*plain, picture));
        chunk.invalid().iter().for_each(|byte| written += &format!("⟨{byte:02X}⟩"));
    }
    written
}

#[test]
fn a_case_that_does_not_hold_is_told_with_what_came_of_it() {
    let content = "\
# Two cases.

=== it holds
text: g($0)␊
says: a)
shown: a

=== it does not
text: g($0)␊
says: a b)
shown: a)
show: ⟨C3 28⟩│⟨END⟩
";
    let failures = failures("trim.txt", content, &TRIM).expect("well formed");
    assert_eq!(
        failures,
        [
            "trim.txt:8: it does not\n    show expected ⟨C3⟩(│⟨END⟩\n    show got      no such field",
            "trim.txt:8: it does not\n    shown expected a)\n    shown got      a␠b",
        ]
    );
    let unstated = "=== a\ntext: g($0)\nsays: a)\n";
    assert_eq!(self::failures("a", unstated, &TRIM).expect("well formed").len(), 1, "what comes out must be stated");
}

#[test]
#[should_panic(expected = "trim.txt:1: a\n    shown expected b\n    shown got      a")]
fn a_case_that_does_not_hold_fails_its_test() {
    check("trim.txt", "=== a\ntext: g($0)\nsays: a)\nshown: b\n", &TRIM);
}

#[test]
fn values_are_read_as_they_are_written() {
    let content = "=== a\ntext:\n    fn f() {\n\n        $0␊\n# no part of it\n    }␊\nsays: ␠a: ⟨3 × b␠⟩⟨C3 A9⟩ c│⟨END⟩│⟨nothing⟩\n";
    let cases = read(content).expect("well formed");
    let [case] = &cases[..] else { panic!("one case") };
    assert_eq!((case.name, case.line, case.fields.len()), ("a", 1, 2));
    assert_eq!(case.at_cursor(), Ok(("fn f() {\n    ", "\n\n}\n")));
    let says = [Piece::Bytes(" a: b b b é c".into()), Piece::Special(END), Piece::Bytes(Vec::new())];
    assert_eq!(case.value("says"), Some(&says[..]));
    assert_eq!(case.value("shown"), None);
}

#[test]
fn malformed_files_are_refused() {
    let token_of_65_bytes = "=== a\ntext: $0\ntokens: ⟨65 × x⟩\n";
    for (content, line, why) in [
        ("", 1, "a file has cases"),
        ("# === a\n", 1, "a file has cases"),
        ("text: $0\n", 1, "a field belongs to a case"),
        ("=== a\n\ntext $0\n", 3, "this is neither a case nor a field"),
        ("===\ntext: $0\n", 1, "this is neither a case nor a field"),
        ("=== a\ntext: $0\n    b\n", 3, "this is neither a case nor a field"),
        ("=== a\ntext: $0\n=== a\n", 3, "another case has this name"),
        ("=== a\ntext: $0\ntext: $0\n", 3, "the case has this field already"),
        ("=== a\ntext: $0 \n", 2, "a space at the end of a line is written ␠"),
        ("=== a\ntext:\n    $0\n    \n", 4, "a space at the end of a line is written ␠"),
        ("=== a\ntext:  $0\n", 2, "one space precedes a value; more are written ␠"),
        ("=== a\ntext:$0\n", 2, "one space precedes a value; more are written ␠"),
        ("=== a\ntext:\nsays: b\n", 2, "nothing is written ⟨nothing⟩"),
        ("=== a\ntext: $0\ntokens: b││c\n", 3, "nothing is written ⟨nothing⟩"),
        ("=== a\ntext: $0⟨C3\n", 2, "a mark ends with ⟩"),
        ("=== a\ntext: $0⟨C3A9⟩\n", 2, "a mark is none of those there are"),
        ("=== a\ntext: $0⟨⟩\n", 2, "a mark is none of those there are"),
        ("=== a\ntext: $0⟨x × b⟩\n", 2, "a text is repeated by a number"),
        ("=== a\n=== b\ntext: $0\n", 1, "a field that the rule needs is missing or is a list"),
        ("=== a\ntext: b│$0\n", 1, "a field that the rule needs is missing or is a list"),
        ("=== a\ntext: ⟨END⟩\n", 1, "a field that the rule needs is missing or is a list"),
        ("=== a\ntext: ⟨FF⟩$0\n", 1, "a text is UTF-8"),
        ("=== a\ntext: b\n", 1, "a text has one cursor"),
        ("=== a\ntext: $0b$0\n", 1, "a text has one cursor"),
        ("=== a\ntext: $0\nlines: many\n", 1, "lines are counted by a number"),
        ("=== a\ntext: $0\nsays: b\ntokens: b\n", 1, "a prediction is in bytes or in tokens"),
        ("=== a\ntext: $0\ntokens: ⟨nothing⟩\n", 1, "a token has bytes"),
        (token_of_65_bytes, 1, "a token is longer than tokens are"),
    ] {
        assert_eq!(failures("stop.txt", content, &STOP), Err(Malformed { line, why }), "{content:?}");
    }
}
