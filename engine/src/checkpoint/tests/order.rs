//! The order of verification: a file with two faults reports the one that is looked at first. Each test
//! plants the fault of its step and that of the next.

use super::*;

/// A file in which anything can be wrong, with a signature that fits unless told otherwise.
struct Forge {
    manifest: Manifest,
    sections: [Vec<u8>; 3],
    key: SecretKey,
    raw: Option<Vec<u8>>,
}

impl Forge {
    fn new() -> Self {
        let key = key();
        let checkpoint = tiny_checkpoint();
        let manifest = checkpoint.write(io::sink(), &key).expect("it is in order");
        let [tokenizer, blend] = sections::encode(&checkpoint.tokenizer, &checkpoint.blend);
        Self { manifest, sections: [tokenizer, checkpoint.weights.as_bytes().to_vec(), blend], key, raw: None }
    }

    fn bytes(&self) -> Vec<u8> {
        let manifest = self.raw.clone().unwrap_or_else(|| self.manifest.to_bytes());
        let signature = self.key.sign(&manifest, "forged").expect("one line").into_bytes();
        let mut bytes = Vec::new();
        Head { manifest, signature }.write(&mut bytes).expect("a Vec takes every byte");
        [bytes, self.sections.concat()].concat()
    }

    fn trust(&self) -> Trust {
        Trust::in_key(self.key.public(), "forger")
    }

    fn marked(&self) -> Trust {
        let mark = ((self.key.public().id(), self.manifest.model_id.clone()), self.manifest.version + 1);
        Trust { marks: [mark].into(), ..self.trust() }
    }

    fn rehash(&mut self) {
        for (section, bytes) in self.manifest.sections.iter_mut().zip(&self.sections) {
            *section =
                Section { size: bytes.len() as u64, hash: blake3::hash(bytes).to_string(), name: section.name.clone() };
        }
    }
}

/// Where the signature starts in a file.
fn signature_at(forge: &Forge) -> usize {
    format::MAGIC.len() + 8 + forge.manifest.to_bytes().len()
}

#[test]
fn an_honest_forge_opens() {
    let forge = Forge::new();
    Checkpoint::open(forge.bytes().as_slice(), &forge.trust()).expect("nothing is wrong with it");
}

#[test]
fn the_header_is_bounded_before_the_signature_is_looked_at() {
    let forge = Forge::new();
    let mut bytes = forge.bytes();
    bytes[12..16].copy_from_slice(&5000u32.to_le_bytes());
    let at = signature_at(&forge);
    bytes[at] = b'?';
    assert!(matches!(refusal(&bytes, &Trust::default()), CheckpointError::TooLarge { part: "signature", .. }));
}

#[test]
fn the_signatures_text_is_read_before_its_key_is_looked_up() {
    let forge = Forge::new();
    let mut bytes = forge.bytes();
    let at = signature_at(&forge);
    bytes[at] = b'?';
    assert!(matches!(refusal(&bytes, &Trust::default()), CheckpointError::Signature { .. }));
}

#[test]
fn an_unknown_key_is_reported_before_a_bad_hash() {
    let mut forge = Forge::new();
    forge.sections[1][0] ^= 1;
    let error = refusal(&forge.bytes(), &Trust::default());
    assert!(matches!(error, CheckpointError::UnknownKey { key } if key == forge.key.public().id()));
    let message = error.to_string();
    assert!(message.contains(&forge.key.public().id().to_string()), "{message}");
    assert!(message.contains("cargo nanochat key trust"), "{message}");
}

#[test]
fn an_unknown_key_is_reported_before_its_manifest_is_parsed() {
    let forge = Forge { raw: Some(b"{ not json".to_vec()), ..Forge::new() };
    assert!(matches!(refusal(&forge.bytes(), &Trust::default()), CheckpointError::UnknownKey { .. }));
}

#[test]
fn the_signature_is_checked_before_revocation() {
    let forge = Forge::new();
    let mut bytes = forge.bytes();
    bytes[16] ^= 1; // within the manifest
    let trust = Trust { revoked: vec![forge.key.public()], ..forge.trust() };
    assert!(matches!(refusal(&bytes, &trust), CheckpointError::BadSignature { .. }));
}

#[test]
fn the_signature_is_checked_before_the_manifest_is_parsed() {
    let forge = Forge::new();
    let mut bytes = forge.bytes();
    bytes[16] = b'!';
    assert!(matches!(refusal(&bytes, &forge.trust()), CheckpointError::BadSignature { .. }));
}

#[test]
fn a_key_with_a_known_id_does_not_pass_for_it() {
    // An id is chosen by whoever makes the key: only the key itself proves anything.
    let forge = Forge::new();
    let bytes = forge.bytes();
    let stranger = Forge::new();
    let id = forge.key.public().id();
    let line = stranger.key.public().to_base64();
    let impostor: PublicKey = with_id(&line, id).parse().expect("a key with another id");
    assert_eq!(impostor.id(), id);
    assert!(matches!(refusal(&bytes, &Trust::in_key(impostor, "x")), CheckpointError::BadSignature { .. }));
}

#[test]
fn a_revoked_key_is_reported_before_its_manifest_is_parsed() {
    let forge = Forge { raw: Some(b"{ not json".to_vec()), ..Forge::new() };
    let trust = Trust { revoked: vec![forge.key.public()], ..forge.trust() };
    assert!(matches!(refusal(&forge.bytes(), &trust), CheckpointError::RevokedKey { .. }));
}

#[test]
fn a_revoked_key_is_reported_before_a_rollback_and_also_if_it_was_never_trusted() {
    let forge = Forge::new();
    let revoked = vec![forge.key.public()];
    for trust in [Trust { revoked: revoked.clone(), ..forge.marked() }, Trust { revoked, ..Trust::default() }] {
        assert!(matches!(refusal(&forge.bytes(), &trust), CheckpointError::RevokedKey { .. }));
    }
}

#[test]
fn a_revoked_key_stays_revoked_under_another_id() {
    let forge = Forge::new();
    let renamed: PublicKey =
        with_id(&forge.key.public().to_base64(), key().public().id()).parse().expect("a key with another id");
    let trust = Trust { revoked: vec![renamed], ..forge.trust() };
    assert!(matches!(refusal(&forge.bytes(), &trust), CheckpointError::RevokedKey { .. }));
}

#[test]
fn a_rollback_is_reported_before_sizes() {
    let mut forge = Forge::new();
    forge.manifest.sections[1].size += 1;
    let error = refusal(&forge.bytes(), &forge.marked());
    assert!(matches!(error, CheckpointError::Rollback { found: 0, mark: 1, .. }), "{error}");
    assert!(error.to_string().contains("get the newer file"), "{error}");
}

#[test]
fn the_version_of_the_mark_itself_is_accepted() {
    let mut forge = Forge::new();
    let trust = forge.marked();
    forge.manifest.version += 1;
    Checkpoint::open(forge.bytes().as_slice(), &trust).expect("the same version as before");
    let other_model = Trust { marks: [((forge.key.public().id(), "another".to_owned()), 99)].into(), ..forge.trust() };
    Checkpoint::open(forge.bytes().as_slice(), &other_model).expect("marks are per model");
}

#[test]
fn sizes_are_reported_before_hashes() {
    let mut forge = Forge::new();
    forge.sections[0][0] ^= 1;
    let mut bytes = forge.bytes();
    bytes.push(0);
    assert!(matches!(refusal(&bytes, &forge.trust()), CheckpointError::TrailingBytes));
    bytes.truncate(bytes.len() - 2);
    assert!(matches!(refusal(&bytes, &forge.trust()), CheckpointError::Truncated { part } if part == "blend"));
}

#[test]
fn hashes_are_reported_before_contents() {
    let mut forge = Forge::new();
    forge.sections[1][0] = 0x80; // −128
    assert!(
        matches!(refusal(&forge.bytes(), &forge.trust()), CheckpointError::Hash { section } if section == "weights")
    );
    forge.rehash();
    let error = refusal(&forge.bytes(), &forge.trust());
    assert!(matches!(error, CheckpointError::Section { section: "weights", source: SectionError::Int8 }));
}

#[test]
fn swapped_hashes_are_refused() {
    let mut forge = Forge::new();
    let hash = forge.manifest.sections[0].hash.clone();
    forge.manifest.sections[0].hash = std::mem::replace(&mut forge.manifest.sections[2].hash, hash);
    let error = refusal(&forge.bytes(), &forge.trust());
    assert!(matches!(error, CheckpointError::Hash { section } if section == "tokenizer"));
}

#[test]
fn a_record_about_other_weights_is_refused() {
    let mut forge = Forge::new();
    forge.manifest.record = Some(Record { weights_hash: "0".repeat(64), ..Record::default() });
    assert!(matches!(refusal(&forge.bytes(), &forge.trust()), CheckpointError::Record));
}

#[test]
fn a_signed_manifest_of_a_giant_is_refused_without_its_memory() {
    let mut forge = Forge::new();
    forge.manifest.config = Config { d_model: 8192, n_layers: 128, d_ff: 32768, vocab_size: 32768, ..tiny_config() };
    let error = refusal(&forge.bytes(), &forge.trust());
    assert!(matches!(error, CheckpointError::Section { section: "weights", source: SectionError::Length { .. } }));
    // Even one whose sizes agree with each other.
    let CheckpointError::Section { source: SectionError::Length { expected, .. }, .. } = error else {
        unreachable!("it was matched above")
    };
    forge.manifest.sections[1].size = expected;
    assert!(matches!(refusal(&forge.bytes(), &forge.trust()), CheckpointError::TooLarge { .. }));

    let mut forge = Forge::new();
    forge.manifest.config.vocab_size = usize::MAX;
    assert!(matches!(refusal(&forge.bytes(), &forge.trust()), CheckpointError::Config(_)));
}

#[test]
fn a_false_size_costs_no_memory() {
    // A shape whose section is just below the cap, in a file of a few kilobytes: `take` grows as bytes arrive.
    let mut forge = Forge::new();
    forge.manifest.config = Config {
        d_model: 4096,
        n_layers: 30,
        n_heads: 32,
        n_kv_heads: 8,
        d_ff: 8192,
        vocab_size: 8192,
        ..tiny_config()
    };
    let error = refusal(&forge.bytes(), &forge.trust());
    let CheckpointError::Section { source: SectionError::Length { expected, .. }, .. } = error else {
        panic!("{error}")
    };
    assert!((format::MAX_SECTIONS / 2..format::MAX_SECTIONS).contains(&expected), "{expected}");
    forge.manifest.sections[1].size = expected;
    assert!(
        matches!(refusal(&forge.bytes(), &forge.trust()), CheckpointError::Truncated { part } if part == "weights")
    );
}

/// A public key's line with another id in it.
fn with_id(line: &str, id: KeyId) -> String {
    use base64::Engine as _;
    let standard = base64::engine::general_purpose::STANDARD;
    let mut bytes = standard.decode(line).expect("our own line");
    let number = u64::from_str_radix(&id.to_string(), 16).expect("16 hex digits");
    bytes[2..10].copy_from_slice(&number.to_le_bytes());
    standard.encode(bytes)
}
