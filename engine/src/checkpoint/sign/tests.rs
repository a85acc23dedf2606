use proptest::prelude::*;

use super::*;

// Made by minisign 0.11 (`minisign -G -W`, `minisign -S -t 'trusted: tamper with me'`).
const REAL_KEY: &str = "untrusted comment: minisign public key DF77AE99750A82C9
RWTJggp1ma533xN0XVK1D7JDq5XIl9ObXPh7RU6Jxv7jPolJLw7LhfbO
";
const REAL_MESSAGE: &[u8] = b"nanochat: a message with a \xff byte and no newline";
const REAL_SIGNATURE: &str = "untrusted comment: untrusted comment by minisign
RUTJggp1ma5338/YZDNA5eEMgqwFe4AVkEKLWathPTX3r7mM0y6jnGtDDVNbtVmBHdvhu/I8FIAFGoOOH49+dA1bwkFg0v/YYgo=
trusted comment: trusted: tamper with me
MaevEDjg29SplVxgofmpAcIHkyGbT/dgAAm9+uBTu64Ny43g2o4rXXW5wE+1an69A1dC0KvMf/4bsUPD6CVFCw==
";

fn real() -> (PublicKey, Signature) {
    (REAL_KEY.parse().expect("minisign wrote it"), REAL_SIGNATURE.parse().expect("minisign wrote it"))
}

fn secret(seed: u8) -> SecretKey {
    SecretKey { id: KeyId([seed; 8]), key: SigningKey::from_bytes(&[seed; 32]) }
}

#[test]
fn a_signature_by_real_minisign_verifies() {
    let (key, signature) = real();
    assert_eq!(key.verify(REAL_MESSAGE, &signature), Ok(()));
    assert_eq!(key.id().to_string(), "DF77AE99750A82C9");
    assert_eq!(signature.trusted_comment, "trusted: tamper with me");
}

#[test]
fn texts_of_real_minisign_are_written_back_byte_for_byte() {
    let (key, signature) = real();
    assert_eq!(key.to_string(), REAL_KEY);
    assert_eq!(signature.to_string(), REAL_SIGNATURE);
}

#[test]
fn a_changed_message_or_trusted_comment_does_not_verify() {
    let (key, signature) = real();
    assert_eq!(key.verify(b"another message", &signature), Err(SignError::Mismatch { id: key.id() }));
    let commented = Signature { trusted_comment: "trusted: tampered with".to_owned(), ..signature };
    assert_eq!(key.verify(REAL_MESSAGE, &commented), Err(SignError::Mismatch { id: key.id() }));
}

#[test]
fn what_a_key_signs_its_public_key_verifies_and_another_does_not() {
    let signature: Signature = secret(1).sign(b"message", "comment").expect("one line").parse().expect("ours");
    assert_eq!(secret(1).public().verify(b"message", &signature), Ok(()));
    let other = secret(2).public();
    assert!(matches!(other.verify(b"message", &signature), Err(SignError::OtherKey { .. })));
    let same_id = PublicKey { id: signature.key_id, ..other };
    assert!(matches!(same_id.verify(b"message", &signature), Err(SignError::Mismatch { .. })));
}

#[test]
fn every_flipped_bit_of_a_signature_is_refused() {
    let key = secret(1);
    let text = key.sign(b"message", "comment").expect("one line");
    let untrusted = COMMENT.len()..COMMENT.len() + UNTRUSTED_COMMENT.len();
    for position in (0..text.len()).filter(|position| !untrusted.contains(position)) {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= 1 << bit;
            let parsed = String::from_utf8(bytes).ok().and_then(|text| text.parse::<Signature>().ok());
            let accepted = parsed.is_some_and(|signature| key.public().verify(b"message", &signature).is_ok());
            assert!(!accepted, "byte {position}, bit {bit}");
        }
    }
}

#[test]
fn a_second_form_of_the_same_signature_is_refused() {
    let text = secret(1).sign(b"message", "comment").expect("one line");
    for form in [
        text.replace('\n', "\r\n"),
        text.trim_end().to_owned(),
        format!("{text}\n"),
        format!("\n{text}"),
        text.replace("==\n", "\n"),
    ] {
        assert!(matches!(form.parse::<Signature>(), Err(SignError::Signature { .. })), "{form:?}");
    }
    // S + L is the same number modulo the group order L, in another form.
    let mut signature: Signature = text.parse().expect("ours");
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10u8,
    ];
    let mut carry = 0;
    for (byte, add) in signature.signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert!(matches!(secret(1).public().verify(b"message", &signature), Err(SignError::Mismatch { .. })));
}

#[test]
fn a_signature_of_the_old_kind_without_prehash_is_refused_by_name() {
    let old = REAL_SIGNATURE.replace("\nRUT", "\nRWT");
    let error = old.parse::<Signature>().expect_err("not prehashed");
    assert!(error.to_string().contains("old kind"), "{error}");
}

#[test]
fn weak_keys_are_refused() {
    // The neutral element: every message has a valid signature under it.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let line = pack(PUBLIC, KeyId([7; 8]), &neutral);
    assert_eq!(line.parse::<PublicKey>(), Err(SignError::WeakKey { id: KeyId([7; 8]) }));
}

#[test]
fn a_public_key_reads_from_its_file_or_its_line() {
    let (key, _) = real();
    let line = REAL_KEY.lines().nth(1).expect("two lines");
    for text in [REAL_KEY.replace('\n', "\r\n"), line.to_owned(), format!("  {line}\n")] {
        assert_eq!(text.parse(), Ok(key.clone()), "{text:?}");
    }
    for text in ["", "untrusted comment: x", "RWQ=", "\u{7f}", &REAL_KEY.repeat(2), REAL_SIGNATURE] {
        assert!(matches!(text.parse::<PublicKey>(), Err(SignError::PublicKey { .. })), "{text:?}");
    }
}

#[test]
fn a_secret_key_reads_back_and_does_not_show_itself() {
    let key = SecretKey::generate().expect("the system has randomness");
    let read = SecretKey::from_text(&key.to_text()).expect("ours");
    assert_eq!(read.public(), key.public());
    assert_eq!(read.to_text(), key.to_text());
    assert_eq!(format!("{key:?}"), format!("SecretKey({})", key.public().id()));
    assert_ne!(SecretKey::generate().expect("the system has randomness").public(), key.public());
    let public_instead = SecretKey::from_text(&key.public().to_string());
    assert!(matches!(public_instead, Err(SignError::SecretKey { .. })));
}

#[test]
fn a_comment_of_two_lines_is_not_signed() {
    assert_eq!(secret(1).sign(b"", "one\ntwo"), Err(SignError::Comment));
}

#[test]
fn a_key_id_reads_back_and_nothing_else_reads_as_one() {
    let id = KeyId([0xC9, 0x82, 0x0A, 0x75, 0x99, 0xAE, 0x77, 0xDF]);
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in ["", "DF77", "+F77AE99750A82C9", "DF77AE99750A82C9 ", "GF77AE99750A82C9"] {
        assert!(text.parse::<KeyId>().is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,200}|(untrusted comment: .*\n)?[A-Za-z0-9+/=]{0,120}\n(trusted comment: .*\n)?.*") {
        let _ = text.parse::<PublicKey>();
        let _ = text.parse::<Signature>();
        let _ = SecretKey::from_text(&text);
    }
}
