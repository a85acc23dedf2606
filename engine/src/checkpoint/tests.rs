use nanochat_kernels::{ScaleGroup, Shape, TernaryMatrix};
use proptest::prelude::*;

use super::*;
use crate::Config;
use crate::model::weights::{
    AttentionWeights, BlockWeights, Int8Matrix, MhcWeights, MlpWeights, Weights, n_permutations,
};
use crate::rng::Rng;

mod order;

/// The smallest model there can be.
pub(crate) fn tiny_config() -> Config {
    Config {
        d_model: 8,
        n_layers: 1,
        n_heads: 1,
        n_kv_heads: 1,
        d_ff: 8,
        vocab_size: 264,
        n_streams: 1,
        context: 16,
        scales: ScaleGroup::Matrix,
        ..Config::default()
    }
}

/// Weights of this shape, all of them different.
pub(crate) fn random_weights(config: &Config, seed: u64) -> Weights {
    let rng = &mut Rng::new(seed);
    let (d, ff, kv) = (config.d_model, config.d_ff, config.kv_dim());
    let normals = |rng: &mut Rng, n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<_>>();
    let ternary = |rng: &mut Rng, rows: usize, cols: usize| {
        TernaryMatrix::quantize(&normals(rng, rows * cols), Shape { rows, cols }, config.scales)
    };
    let mhc = |rng: &mut Rng| {
        let (n, p) = (config.n_streams, n_permutations(config.n_streams));
        (n > 1).then(|| MhcWeights {
            alpha_pre: rng.normal(),
            alpha_post: rng.normal(),
            alpha_res: rng.normal(),
            w_pre: normals(rng, n * d * n),
            w_post: normals(rng, n * d * n),
            w_res: normals(rng, n * d * p),
            b_pre: normals(rng, n),
            b_post: normals(rng, n),
            b_res: normals(rng, p),
        })
    };
    let embed = Int8Matrix::quantize(&normals(rng, config.vocab_size * d), config.vocab_size, d);
    let block = |_| BlockWeights {
        attn: AttentionWeights {
            mhc: mhc(rng),
            norm: normals(rng, d),
            q: ternary(rng, d, d),
            k: ternary(rng, kv, d),
            v: ternary(rng, kv, d),
            norm_out: normals(rng, d),
            o: ternary(rng, d, d),
        },
        mlp: MlpWeights {
            mhc: mhc(rng),
            norm: normals(rng, d),
            gate: ternary(rng, ff, d),
            up: ternary(rng, ff, d),
            norm_down: normals(rng, ff),
            down: ternary(rng, d, ff),
        },
    };
    let blocks = (0..config.n_layers).map(block).collect();
    Weights { config: config.clone(), embed, blocks, norm_final: normals(&mut Rng::new(seed + 1), d) }
}

/// A checkpoint that nobody signed yet.
pub(crate) fn tiny_checkpoint() -> Checkpoint {
    let config = tiny_config();
    Checkpoint {
        manifest: Manifest::new("tiny", config.clone(), Training::default()),
        tokenizer: Arc::new(Tokenizer::bytes()),
        weights: Arc::new(PackedWeights::pack(&random_weights(&config, 3)).expect("they fit")),
        blend: Blend::rough(),
    }
}

fn key() -> SecretKey {
    SecretKey::generate().expect("the system has randomness")
}

fn write(checkpoint: &Checkpoint, key: &SecretKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    checkpoint.write(&mut bytes, key).expect("it is in order");
    bytes
}

fn refusal(bytes: &[u8], trust: &Trust) -> CheckpointError {
    Checkpoint::open(bytes, trust).expect_err("it is not in order")
}

#[test]
fn a_checkpoint_reads_back_bit_for_bit() {
    let key = key();
    let config = Config { vocab_size: 266, n_streams: 2, ..tiny_config() };
    let record = Record { model_bits_per_byte: 2.1, ..Record::default() };
    let checkpoint = Checkpoint {
        manifest: Manifest {
            version: 4,
            record: Some(record),
            ..Manifest::new("round trip", config.clone(), Training::default())
        },
        tokenizer: Arc::new(Tokenizer::from_merges(vec![(8, 9), (264, 10)]).expect("defined in order")),
        weights: Arc::new(PackedWeights::pack(&random_weights(&config, 5)).expect("they fit")),
        blend: Blend::default(),
    };
    let mut bytes = Vec::new();
    let manifest = checkpoint.write(&mut bytes, &key).expect("it is in order");
    let read = Checkpoint::open(bytes.as_slice(), &Trust::in_key(key.public(), "me")).expect("nobody touched it");
    assert_eq!(read.manifest, manifest);
    assert_eq!(read.weights, checkpoint.weights);
    assert_eq!(read.tokenizer.merges(), checkpoint.tokenizer.merges());
    assert_eq!(read.blend, checkpoint.blend);
    assert_eq!(write(&read, &key), bytes, "written again it is the same file");

    assert_eq!((manifest.format, manifest.min_reader), (FORMAT, FORMAT));
    assert_eq!(manifest.sections[1].hash, checkpoint.weights_hash());
    assert_eq!(manifest.record.expect("it had one").weights_hash, manifest.sections[1].hash);
}

// The steps of `docs/reference/checkpoint.md`, which stock minisign was seen to accept.
#[test]
fn manifest_and_signature_can_be_cut_out_and_verified_without_the_reader() {
    let key = key();
    let bytes = write(&tiny_checkpoint(), &key);
    let len = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (m, s) = (len(8), len(12));
    let manifest = &bytes[16..16 + m];
    let signature = std::str::from_utf8(&bytes[16 + m..16 + m + s]).expect("text");
    assert_eq!(key.public().verify(manifest, &signature.parse().expect("minisign's form")), Ok(()));
    let manifest = Manifest::parse(manifest).expect("canonical");
    let mut at = 16 + m + s;
    for section in &manifest.sections {
        let end = at + section.size as usize;
        assert_eq!(blake3::hash(&bytes[at..end]).to_string(), section.hash);
        at = end;
    }
    assert_eq!(at, bytes.len());
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let key = key();
    let trust = Trust::in_key(key.public(), "me");
    let bytes = write(&tiny_checkpoint(), &key);
    Checkpoint::open(bytes.as_slice(), &trust).expect("nobody touched it");
    for position in 0..bytes.len() {
        for flip in [0x01, 0x20, 0xff] {
            let mut tampered = bytes.clone();
            tampered[position] ^= flip;
            let message = refusal(&tampered, &trust).to_string();
            assert!(message.contains("; ") && !message.contains('\n'), "{position}: {message:?}");
        }
    }
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let key = key();
    let trust = Trust::in_key(key.public(), "me");
    let bytes = write(&tiny_checkpoint(), &key);
    for len in 1..bytes.len() {
        assert!(matches!(refusal(&bytes[..len], &trust), CheckpointError::Truncated { .. }), "{len}");
    }
}

#[test]
fn a_byte_after_the_end_is_refused() {
    let key = key();
    let mut bytes = write(&tiny_checkpoint(), &key);
    bytes.push(0);
    assert!(matches!(refusal(&bytes, &Trust::in_key(key.public(), "me")), CheckpointError::TrailingBytes));
}

#[test]
fn foreign_files_are_named() {
    for (bytes, found) in [
        (&b""[..], Foreign::Empty),
        (b"GGUF\x03\0\0\0\x01", Foreign::Gguf),
        (b"[package]\nname = \"x\"\n", Foreign::Text),
        (b"hi", Foreign::Text),
        (b"\x7fELF\x02\x01\x01\0", Foreign::Other),
    ] {
        let error = refusal(bytes, &Trust::default());
        assert!(matches!(error, CheckpointError::Foreign { found: is } if is == found), "{error}");
    }
    // A transfer that touched the line ends.
    let converted = [b"\x89NCZ\n\x1a\n".as_slice(), &[0; 64]].concat();
    assert!(matches!(refusal(&converted, &Trust::default()), CheckpointError::Foreign { .. }));
}

#[test]
fn lengths_beyond_the_caps_are_refused_before_anything_is_read() {
    let header = |manifest: u32, signature: u32| {
        [&format::MAGIC[..], &manifest.to_le_bytes(), &signature.to_le_bytes()].concat()
    };
    for (bytes, part) in [(header(u32::MAX, 0), "manifest"), (header(10, u32::MAX), "signature")] {
        let error = refusal(&bytes, &Trust::default());
        assert!(matches!(error, CheckpointError::TooLarge { part: is, .. } if is == part), "{error}");
    }
    assert!(matches!(refusal(&header(1 << 20, 4096), &Trust::default()), CheckpointError::Truncated { .. }));
}

#[test]
fn a_reader_that_fails_is_an_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    assert!(matches!(Checkpoint::open(Broken, &Trust::default()), Err(CheckpointError::Io(_))));
}

#[test]
fn what_the_reader_would_refuse_is_not_written() {
    let unnamed = Manifest { model_id: String::new(), ..tiny_checkpoint().manifest };
    let other_shape = Manifest { config: Config::default(), ..tiny_checkpoint().manifest };
    let others_record = Record { weights_hash: "0".repeat(64), ..Record::default() };
    let others_record = Manifest { record: Some(others_record), ..tiny_checkpoint().manifest };
    let too_many = Tokenizer::from_merges(vec![(8, 9)]).expect("defined in order");
    let mut no_blend = Blend::rough();
    no_blend.memory_only.out[0] = f32::NAN;
    for (checkpoint, reason) in [
        (Checkpoint { manifest: unnamed, ..tiny_checkpoint() }, "model_id"),
        (Checkpoint { manifest: other_shape, ..tiny_checkpoint() }, "architecture"),
        (Checkpoint { manifest: others_record, ..tiny_checkpoint() }, "record"),
        (Checkpoint { tokenizer: Arc::new(too_many), ..tiny_checkpoint() }, "265 tokens"),
        (Checkpoint { blend: no_blend, ..tiny_checkpoint() }, "blend"),
    ] {
        let mut bytes = Vec::new();
        let error = checkpoint.write(&mut bytes, &key()).expect_err("it is not in order").to_string();
        assert!(error.contains(reason) && bytes.is_empty(), "{error} should mention {reason}");
    }
    let mut infinite = random_weights(&tiny_config(), 1);
    infinite.norm_final[0] = f32::INFINITY;
    assert_eq!(PackedWeights::pack(&infinite), Err(SectionError::Number { what: "a norm" }));
}

#[test]
fn an_inspection_proves_only_what_a_trusted_key_signed() {
    let key = key();
    let bytes = write(&tiny_checkpoint(), &key);
    let inspect = |bytes: &[u8], trust: &Trust| Checkpoint::inspect(bytes, trust).expect("it has a header");

    let known = inspect(&bytes, &Trust::in_key(key.public(), "Ada"));
    assert_eq!(known.verdict.expect("trusted").name, "Ada");
    assert!(known.is_whole);

    let unknown = inspect(&bytes, &Trust::default());
    assert_eq!(unknown.key_id, key.public().id());
    assert!(matches!(unknown.verdict, Err(CheckpointError::UnknownKey { .. })));
    assert_eq!(unknown.claims.expect("readable").model_id, "tiny");
    assert!(unknown.is_whole);

    let mut damaged = bytes.clone();
    *damaged.last_mut().expect("it has bytes") ^= 1;
    let damaged = inspect(&damaged, &Trust::in_key(key.public(), "Ada"));
    assert!(matches!(damaged.verdict, Err(CheckpointError::Hash { .. })));
    assert!(!damaged.is_whole);

    let mut altered = bytes.clone();
    altered[format::MAGIC.len() + 8] = b'!'; // the manifest's first byte
    let altered = inspect(&altered, &Trust::in_key(key.public(), "Ada"));
    assert!(matches!(altered.verdict, Err(CheckpointError::BadSignature { .. })));
    assert!(altered.claims.is_none() && !altered.is_whole);

    let trust = Trust { revoked: vec![key.public()], ..Trust::in_key(key.public(), "Ada") };
    assert!(matches!(inspect(&bytes, &trust).verdict, Err(CheckpointError::RevokedKey { .. })));
    assert!(Checkpoint::inspect(&b"text"[..], &trust).is_err());
}

#[test]
fn an_inspection_and_open_agree_wherever_a_byte_changed() {
    let key = key();
    let trust = Trust::in_key(key.public(), "me");
    let bytes = write(&tiny_checkpoint(), &key);
    for position in (0..bytes.len()).step_by(7) {
        let mut tampered = bytes.clone();
        tampered[position] ^= 0x10;
        let verdict = Checkpoint::inspect(tampered.as_slice(), &trust).and_then(|inspection| inspection.verdict);
        let verdict = verdict.expect_err("it was tampered with").to_string();
        assert_eq!(verdict, refusal(&tampered, &trust).to_string(), "{position}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), with_magic: bool) {
        let bytes = if with_magic { [&format::MAGIC[..], &bytes].concat() } else { bytes };
        prop_assert!(Checkpoint::open(bytes.as_slice(), &Trust::default()).is_err());
        let _ = Checkpoint::inspect(bytes.as_slice(), &Trust::default());
    }

    #[test]
    fn any_mutation_of_a_file_is_refused_and_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        inserted in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let key = key();
        let trust = Trust::in_key(key.public(), "me");
        let original = write(&tiny_checkpoint(), &key);
        let mut bytes = original.clone();
        let at = cut.index(bytes.len());
        bytes.splice(at..(at + inserted.len() / 2).min(original.len()), inserted);
        for (index, byte) in changes {
            *index.get_mut(&mut bytes) = byte;
        }
        let opened = Checkpoint::open(bytes.as_slice(), &trust);
        prop_assert_eq!(opened.is_ok(), bytes == original);
        let _ = Checkpoint::inspect(bytes.as_slice(), &Trust::default());
    }
}
