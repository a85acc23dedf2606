use super::*;

fn manifest() -> Manifest {
    let config = Config { norm_eps: 1e-5, ..Config::default() };
    let training = Training {
        corpus_hash: "c0".to_owned(),
        n_files: 3,
        n_tokens: 1_000_000,
        n_steps: 200,
        fingerprint: Fingerprint::default(),
    };
    let hash = "0".repeat(64);
    let sections = NAMES.iter().map(|name| Section { name: (*name).to_owned(), size: 4, hash: hash.clone() }).collect();
    let record = Record {
        weights_hash: hash.clone(),
        model_bits_per_byte: 0.1 + 0.2,
        memory_bits_per_byte: 1e-7,
        blend_bits_per_byte: 2.0,
    };
    Manifest {
        version: 7,
        lineage: vec!["ab".to_owned()],
        licences: vec!["MIT OR Apache-2.0".to_owned()],
        record: Some(record),
        sections,
        ..Manifest::new("my-\"wörkspace\"", config, training)
    }
}

fn text(manifest: &Manifest) -> String {
    String::from_utf8(manifest.to_bytes()).expect("JSON is UTF-8")
}

fn refusal(text: &str) -> String {
    Manifest::parse(text.as_bytes()).expect_err("it is not in order").to_string()
}

// The signature is over these bytes, and the reader compares them: a serialiser that wrote a number or an
// escape in another way would refuse every older file.
#[test]
fn the_canonical_form_is_exactly_this() {
    let zeros = "0".repeat(64);
    let expected = format!(
        concat!(
            r#"{{"format":1,"min_reader":1,"model_id":"my-\"wörkspace\"","version":7,"lineage":["ab"],"#,
            r#""config":{{"d_model":512,"n_layers":6,"n_heads":8,"n_kv_heads":2,"d_ff":1536,"vocab_size":12288,"#,
            r#""n_streams":1,"context":2048,"rope_theta":10000,"norm_eps":0.00001,"scales":"matrix"}},"#,
            r#""training":{{"corpus_hash":"c0","n_files":3,"n_tokens":1000000,"n_steps":200}},"#,
            r#""licences":["MIT OR Apache-2.0"],"record":{{"weights_hash":"{zeros}","#,
            r#""model_bits_per_byte":0.30000000000000004,"memory_bits_per_byte":0.0000001,"blend_bits_per_byte":2}},"#,
            r#""sections":[{{"name":"tokenizer","size":4,"hash":"{zeros}"}},"#,
            r#"{{"name":"weights","size":4,"hash":"{zeros}"}},{{"name":"blend","size":4,"hash":"{zeros}"}}]}}"#,
        ),
        zeros = zeros
    );
    assert_eq!(text(&manifest()), expected);
}

#[test]
fn a_manifest_reads_back_as_it_was_written() {
    let bytes = manifest().to_bytes();
    assert_eq!(Manifest::parse(&bytes).expect("canonical"), manifest());
    let plain = Manifest { record: None, ..manifest() };
    assert_eq!(Manifest::parse(&plain.to_bytes()).expect("canonical"), plain);
}

#[test]
fn another_form_of_the_same_manifest_is_refused() {
    let text = text(&manifest());
    for form in [
        text.replacen(':', ": ", 1),
        format!("{text}\n"),
        text.replace("ö", "\\u00f6"),
        text.replace(r#""format":1,"min_reader":1"#, r#""min_reader":1,"format":1"#),
        text.replace("10000,", "1e4,"),
        text.replace("0.30000000000000004", "0.300000000000000040"),
    ] {
        assert!(refusal(&form).contains("canonical"), "{form}");
    }
}

#[test]
fn unknown_double_and_missing_fields_are_refused() {
    let text = text(&manifest());
    assert!(refusal(&text.replacen('{', r#"{"extra":1,"#, 1)).contains("unknown field"));
    assert!(refusal(&text.replacen('{', r#"{"format":1,"#, 1)).contains("duplicate field"));
    assert!(refusal(&text.replace(r#""version":7,"#, "")).contains("missing field"));
    assert!(refusal("").contains("EOF"));
    assert!(refusal("\u{0}").contains("expected value"));
}

#[test]
fn a_newer_file_is_told_from_a_broken_one() {
    let newer = r#"{"format":9,"min_reader":2,"something":"new"}"#;
    assert!(matches!(
        Manifest::parse(newer.as_bytes()),
        Err(CheckpointError::NewerFormat { min_reader: 2, newest: FORMAT })
    ));
    // A newer writer may still write what this reader knows.
    let compatible = Manifest { format: 2, ..manifest() };
    assert_eq!(Manifest::parse(&compatible.to_bytes()).expect("min_reader is 1"), compatible);
    assert!(refusal(&text(&Manifest { format: 0, ..manifest() })).contains("contradict"));
}

#[test]
fn contents_that_no_signer_should_sign_are_refused() {
    let section = |name: &str| Section { name: name.to_owned(), size: 4, hash: String::new() };
    let swapped = ["weights", "tokenizer", "blend"].map(section).to_vec();
    let double = ["tokenizer", "weights", "blend", "blend"].map(section).to_vec();
    let missing = ["tokenizer", "weights"].map(section).to_vec();
    let not_a_model = Config { n_heads: 7, ..Config::default() };
    let negative = Record { model_bits_per_byte: -1.0, ..Record::default() };
    for (manifest, reason) in [
        (Manifest { sections: swapped, ..manifest() }, "sections"),
        (Manifest { sections: double, ..manifest() }, "sections"),
        (Manifest { sections: missing, ..manifest() }, "sections"),
        (Manifest { model_id: String::new(), ..manifest() }, "model_id"),
        (Manifest { model_id: "x".repeat(129), ..manifest() }, "model_id"),
        (Manifest { model_id: "\u{1b}[31m".to_owned(), ..manifest() }, "control character"),
        (Manifest { licences: vec!["MIT\n".to_owned()], ..manifest() }, "control character"),
        (Manifest { version: MAX_VERSION + 1, ..manifest() }, "version"),
        (Manifest { config: not_a_model, ..manifest() }, "architecture"),
        (Manifest { record: Some(negative), ..manifest() }, "record"),
    ] {
        let message = refusal(&text(&manifest));
        assert!(message.contains(reason), "{message} should mention {reason}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn a_figure_that_is_not_a_number_has_no_json_and_is_refused() {
    let record = Record { blend_bits_per_byte: f64::NAN, ..Record::default() };
    assert!(refusal(&text(&Manifest { record: Some(record), ..manifest() })).contains("null"));
}
