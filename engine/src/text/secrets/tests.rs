use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

// The generators know the formats from their makers' documents and share nothing with the rules.
const DIGITS: &str = "0123456789";
const HEX: &str = "0123456789abcdef";
const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE36: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE62: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const URL64: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
const TYPED: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!%-_.~$*";

fn draw(rng: &mut Rng, alphabet: &str, n: usize) -> String {
    (0..n).map(|_| char::from(alphabet.as_bytes()[rng.below(alphabet.len())])).collect()
}

fn bytes(rng: &mut Rng, n: usize) -> Vec<u8> {
    (0..n).map(|_| rng.below(256) as u8).collect()
}

fn one_of<T: Copy>(rng: &mut Rng, items: &[T]) -> T {
    items[rng.below(items.len())]
}

/// A secret and what is written of it: a URL around a password, else the same.
struct Sample {
    written: String,
    secret: String,
}

impl From<String> for Sample {
    fn from(secret: String) -> Self {
        Self { written: secret.clone(), secret }
    }
}

type Generator = fn(&mut Rng) -> Sample;

/// What fits on a line, by the rule that is to find it.
const ON_A_LINE: &[(&str, Generator)] = &[
    ("aws-access-key-id", |rng| (one_of(rng, &["AKIA", "ASIA"]).to_owned() + &draw(rng, BASE32, 16)).into()),
    ("github-token", |rng| {
        (one_of(rng, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"]).to_owned() + &draw(rng, BASE62, 36)).into()
    }),
    ("github-token", |rng| format!("github_pat_{}_{}", draw(rng, BASE62, 22), draw(rng, BASE62, 59)).into()),
    ("gitlab-token", |rng| format!("glpat-{}", draw(rng, URL64, 20)).into()),
    ("slack-token", |rng| {
        let kind = one_of(rng, &["xoxb", "xoxp"]);
        format!("{kind}-{}-{}-{}", draw(rng, DIGITS, 12), draw(rng, DIGITS, 13), draw(rng, BASE62, 24)).into()
    }),
    ("slack-token", |rng| {
        format!("xapp-1-A{}-{}-{}", draw(rng, BASE36, 10), draw(rng, DIGITS, 13), draw(rng, HEX, 64)).into()
    }),
    ("slack-webhook", |rng| {
        let parts = [draw(rng, BASE36, 10), draw(rng, BASE36, 10), draw(rng, BASE62, 24)];
        let secret = format!("hooks.slack.com/services/T{}/B{}/{}", parts[0], parts[1], parts[2]);
        Sample { written: format!("https://{secret}"), secret }
    }),
    ("stripe-key", |rng| format!("sk_{}_{}", "live", draw(rng, BASE62, 24)).into()),
    ("stripe-key", |rng| format!("rk_{}_{}", "live", draw(rng, BASE62, 99)).into()),
    ("google-key", |rng| format!("AIza{}", draw(rng, URL64, 35)).into()),
    ("google-key", |rng| format!("GOCSPX-{}", draw(rng, URL64, 28)).into()),
    ("crates-io-token", |rng| format!("cio{}", draw(rng, BASE62, 32)).into()),
    ("npm-token", |rng| format!("npm_{}", draw(rng, BASE62, 36)).into()),
    ("pypi-token", |rng| {
        let macaroon = [b"\x02\x01\x08pypi.org\x02".to_vec(), bytes(rng, 110)].concat();
        format!("pypi-{}", URL_SAFE_NO_PAD.encode(macaroon)).into()
    }),
    ("anthropic-key", |rng| format!("sk-ant-api03-{}AA", draw(rng, URL64, 93)).into()),
    ("openai-key", |rng| format!("sk-{}T3BlbkFJ{}", draw(rng, BASE62, 20), draw(rng, BASE62, 20)).into()),
    ("openai-key", |rng| format!("sk-proj-{}T3BlbkFJ{}", draw(rng, URL64, 74), draw(rng, URL64, 74)).into()),
    ("sendgrid-key", |rng| format!("SG.{}.{}", draw(rng, URL64, 22), draw(rng, URL64, 43)).into()),
    ("twilio-key", |rng| format!("SK{}", draw(rng, HEX, 32)).into()),
    ("digitalocean-token", |rng| format!("dop_v1_{}", draw(rng, HEX, 64)).into()),
    ("huggingface-token", |rng| format!("hf_{}", draw(rng, LETTERS, 34)).into()),
    ("age-key", |rng| {
        // 32 bytes and a checksum of 6 characters, in fives of bits.
        let body = draw(rng, "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 58).to_uppercase();
        format!("AGE-SECRET-KEY-1{body}").into()
    }),
    ("minisign-key", |rng| {
        let is_encrypted = rng.below(2) == 0;
        let limits: Vec<u8> = [1u64 << 25, 1 << 30].iter().flat_map(|limit| limit.to_le_bytes()).collect();
        let (kdf, salt) = if is_encrypted { (*b"Sc", bytes(rng, 32)) } else { ([0; 2], vec![0; 32]) };
        let limits = if is_encrypted { limits } else { vec![0; 16] };
        let key = [b"Ed".to_vec(), kdf.to_vec(), b"B2".to_vec(), salt, limits, bytes(rng, 104)].concat();
        STANDARD.encode(key).into()
    }),
    ("jwt", |rng| {
        let (subject, time) = (draw(rng, BASE62, 8), draw(rng, DIGITS, 9));
        let payload = format!("{{\"sub\":\"{subject}\",\"iat\":1{time}}}");
        let parts = [br#"{"alg":"HS256","typ":"JWT"}"#.to_vec(), payload.into_bytes(), bytes(rng, 32)];
        parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".").into()
    }),
    ("url-password", |rng| {
        let scheme = one_of(rng, &["postgres", "https", "amqp", "redis", "mongodb+srv"]);
        let user = one_of(rng, &["app", "deploy", "svc_7"]);
        let n = 8 + rng.below(17);
        let secret = draw(rng, TYPED, n);
        Sample { written: format!("{scheme}://{user}:{secret}@db.internal:5432/main"), secret }
    }),
];

/// None of these is under a telling name.
const CONTEXTS: &[&str] = &[
    "    let client = Client::new(\"§\");\n",
    "    let client = Client::new(r#\"§\"#, 1);\n",
    "value = \"§\"\n",
    "value = '§'\n",
    "    // it was § until May\n",
    "VALUE=§\n",
    "    write(\"A=1\\nVALUE=§\\nB=2\\n\");\n",
    "    write(\"\\n§\\n\");\n",
    "    let client = Client::new(\"§",
];

fn has(text: &str, secret: &str, rule: &str) -> bool {
    find(text).iter().any(|finding| finding.rule == rule && &text[finding.range.clone()] == secret)
}

#[test]
fn of_each_format_nearly_all_are_found_whatever_is_around() {
    for (i, (rule, generator)) in ON_A_LINE.iter().enumerate() {
        let mut rng = Rng::new(i as u64);
        let mut missed = Vec::new();
        for n in 0..25 * CONTEXTS.len() {
            let sample = generator(&mut rng);
            let text = format!("fn f() {{\n{}", CONTEXTS[n % CONTEXTS.len()].replace('§', &sample.written));
            if !has(&text, &sample.secret, rule) {
                missed.push(text);
            }
        }
        assert!(missed.len() * 20 <= 25 * CONTEXTS.len(), "{rule}: {} missed, {missed:?}", missed.len());
    }
}

/// Names as they are written in lower case; the contexts write them as variables where they need to.
const NAMES: &[&str] =
    &["api_key", "client_secret", "dbPassword", "access-token", "aws_secret_access_key", "signing_key_2", "token"];

/// `@` is the name, `^` the same in capitals.
const NAMED: &[&str] = &[
    "    let @ = \"§\";\n",
    "    @: \"§\".to_owned(),\n",
    "const ^: &str = \"§\";\n",
    "static ^: &'static str = r#\"§\"#;\n",
    "    let @: Option<String> = Some(String::from(\"§\"));\n",
    "@ = \"§\"\n",
    "@   = '§'\n",
    "^=§\n",
    "    // @: \"§\"\n",
    "    let client = Client::new().@(\"§\");\n",
    "    request.header(\"@\", r\"§\");\n",
    "    let body = \"{ \\\"@\\\": \\\"§\\\" }\";\n",
    "    run(\"tool --@=§\");\n",
    "    get(\"https://host/list?a=1&@=§&b=2\");\n",
    "    if @ == \"§\" {}\n",
    "    let @ =\n        \"§\";\n",
    "    request.header(\"@\",\n        r#\"§\"#,\n    );\n",
    "    let @ = \"§",
];

const VALUES: &[(&str, Generator)] = &[
    ("letters and digits", |rng| {
        let n = 16 + rng.below(25);
        draw(rng, BASE62, n).into()
    }),
    ("hex", |rng| {
        let n = one_of(rng, &[32, 40, 64]);
        draw(rng, HEX, n).into()
    }),
    ("base64", |rng| {
        let n = one_of(rng, &[16, 24, 32]);
        STANDARD.encode(bytes(rng, n)).into()
    }),
    ("base64 for URLs", |rng| draw(rng, URL64, 43).into()),
];

#[test]
fn a_random_value_is_found_by_the_name_it_has() {
    for (i, (kind, generator)) in VALUES.iter().enumerate() {
        let mut rng = Rng::new(100 + i as u64);
        let mut missed = Vec::new();
        for (name, context) in NAMES.iter().flat_map(|name| NAMED.iter().map(move |context| (name, context))) {
            let sample = generator(&mut rng);
            let named = context.replace('@', name).replace('^', &name.to_uppercase().replace('-', "_"));
            let text = named.replace('§', &sample.secret);
            if !has(&text, &sample.secret, "named-secret") {
                missed.push(text);
            }
        }
        assert!(missed.len() * 20 <= NAMES.len() * NAMED.len(), "{kind}: {} missed, {missed:?}", missed.len());
    }
}

/// The lines of a private key in each way that source text holds one; the second line on is base64.
fn key_blocks(rng: &mut Rng) -> Vec<(Vec<String>, String)> {
    let label = one_of(rng, &["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]);
    let n = 48 + rng.below(1200);
    let key = STANDARD.encode(bytes(rng, n));
    let body: Vec<String> = key.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let (begin, end) = (format!("-----BEGIN {label}PRIVATE KEY-----"), format!("-----END {label}PRIVATE KEY-----"));
    let all: Vec<String> = [begin].into_iter().chain(body.clone()).chain([end]).collect();
    let with_fields = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0F3C\n\n";
    let texts = vec![
        format!("const KEY: &str = r#\"\n{}\n\"#;\n", all.join("\n")),
        format!("const KEY: &str = \"{}\\n\";\n", all.join("\\n")),
        format!("const KEY: &str = \"\\\n    {}\";\n", all.join("\\n\\\n    ")),
        format!("const KEY: &str = concat!(\n    \"{}\"\n);\n", all.join("\\n\",\n    \"")),
        format!("const KEY: &[&[u8]] = &[b\"{}\"];\n", all.join("\", b\"")),
        format!("/// {}\nfn f() {{}}\n", all.join("\n/// ")),
        format!("key: |\n  {}\n", all.join("\n  ")),
        format!("{}\n{with_fields}{}\n", all[0], all[1..].join("\n")),
        format!("const KEY: &str = \"{}", all[..all.len() - 1].join("\\n")),
    ];
    texts.into_iter().map(|text| (body.clone(), text)).collect()
}

#[test]
fn private_keys_are_found_on_lines_and_in_literals() {
    let mut rng = Rng::new(7);
    for _ in 0..40 {
        for (body, text) in key_blocks(&mut rng) {
            let findings = find(&text);
            let [Finding { range, rule: "private-key" }] = &findings[..] else { panic!("{findings:?} in {text}") };
            // Where nothing ends the key, its last line may be a word after it.
            let least = if text.contains("-----END") { 4 } else { 16 };
            for line in body.iter().filter(|line| line.len() >= least) {
                let at = text.find(line.as_str()).expect("it was written");
                assert!(range.start <= at && at + line.len() <= range.end, "{line} is left of {text}");
            }
            let clean = scrub(&text);
            assert!(body.iter().all(|line| line.len() < 16 || !clean.contains(line.as_str())), "{clean}");
            assert_eq!(clean.lines().count(), text.lines().count());
            assert!(clean.contains("PRIVATE KEY-----"), "{clean}");
        }
    }
}

/// Texts with secrets in them, one for each rule and context.
fn samples() -> Vec<String> {
    let mut rng = Rng::new(3);
    let mut texts = Vec::new();
    for (_, generator) in ON_A_LINE {
        texts.extend(CONTEXTS.iter().map(|context| context.replace('§', &generator(&mut rng).written)));
    }
    for context in NAMED {
        let named = context.replace('@', "api_key").replace('^', "API_KEY");
        texts.push(named.replace('§', &draw(&mut rng, BASE62, 32)));
    }
    texts.extend(key_blocks(&mut rng).into_iter().map(|(_, text)| text));
    texts
}

#[test]
fn what_looks_alike_is_no_secret() {
    for text in [
        // Made up.
        "let id = \"AKIAIOSFODNN7EXAMPLE\";",
        "aws_secret_access_key = \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\"",
        "let token = \"ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\";",
        "// ghp_1234567890abcdefghijklmnopqrstuvwxyz",
        "let key = \"sk-your-key-here-0123\";",
        "ANTHROPIC_API_KEY=sk-ant-api03-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "api_key = \"${API_KEY_FROM_ENV_1}\"",
        "API_KEY=$API_KEY_FROM_ENV_2_AND_3",
        "password: \"<the-password-of-user-1-and-2>\",",
        "secret = \"changeme-changeme-123-4\"",
        "let token = \"{user}-{host}-a1B2c3D4e5F6g7H8\";",
        "let token = \"aaaaaaaaaaaaaaaaaaaa1b2\";",
        "client_secret: \"my_super_secret_value_1_of_2\"",
        // Names that mean something else, or no value.
        "let token = concat!(\"pRm7Wq2Zt9\", \"Lx4Kd8Vb3N\");",
        "let token = format!(\"pRm7Wq2Zt9Lx4Kd8Vb3N{}\", 1);",
        "Token::Ident => \"pRm7Wq2Zt9Lx4Kd8Vb3N\",",
        "tokenizer: \"pRm7Wq2Zt9Lx4Kd8Vb3N\",",
        "token_kind(\"pRm7Wq2Zt9Lx4Kd8Vb3N\")",
        "secret_name = \"pRm7Wq2Zt9Lx4Kd8Vb3N\"",
        "// The token: one of\nconst NAME: &str = \"pRm7Wq2Zt9Lx4Kd8Vb3N\";",
        "[\"&state=csrf_token\", \"&challenge=pRm7Wq2Zt9Lx4Kd8Vb3N\"]",
        "let token = next(); let name = \"pRm7Wq2Zt9Lx4Kd8Vb3N\";",
        // Values that are names.
        "token = \"x86_64-unknown-linux-gnu\"",
        "password: \"correct-horse-battery-staple\",",
        "token: \"ApplicationTokenForUserTwo\",",
        "bearer(\"application/vnd.github.v3+json\")",
        "let token = \"2024-01-01T00:00:00Z\";",
        "API_TOKEN=some_function_of_two_names()",
        "let credential = \"https://host/9fQ2xK7vL4mP1sT8\";",
        // Prefixes of words.
        "npm_config_registry_of_the_whole_workspace_2",
        "hf_hub_download_the_whole_repository_at_once_3",
        "sk-folding-cube sk-circle-fade-dot-and-more-of-it-12",
        "cio_error_of_a_reader_that_is_gone_in_the_middle",
        "ASIAPACIFIC AKIA SK SKIPPED_0123456789abcdef0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9 and eyJhbGciOiJIUzI1NiJ9.x",
        "SG.short.short",
        "AGE-SECRET-KEY-1 then 58 characters",
        // URLs.
        "\"https://git@host/path:8080\"",
        "\"http://localhost:8080/a@b\"",
        "\"postgres://user:password@localhost/db\"",
        "\"https://user:pa55Word7@www.example.com/\"",
        "\"postgres://{user}:{password}@{host}\"",
        "\"postgres://app:$DB_PASSWORD1@host\"",
        "\"ftp://guest:guest123@host\"",
        "\"amqp://svc:my_pass@host\"",
        // Keys that are public, and code about keys.
        "const BEGIN: &str = \"-----BEGIN PRIVATE KEY-----\";\nconst END: &str = \"-----END PRIVATE KEY-----\";\n",
        "(b\"-----BEGIN RSA PRIVATE KEY-----\", PrivateKeyKindPkcs1, b\"-----END RSA PRIVATE KEY-----\")",
        "",
        "é\\",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----\\",
        "token='",
        "://",
        "\\n",
    ] {
        assert_eq!(find(&format!("{text}\n")), [], "{text}");
    }
}

#[test]
fn hashes_and_data_are_no_secrets() {
    let mut rng = Rng::new(11);
    for _ in 0..200 {
        let (commit, sha256) = (draw(&mut rng, HEX, 40), draw(&mut rng, HEX, 64));
        let uuid: Vec<String> = [8, 4, 4, 4, 12].map(|n| draw(&mut rng, HEX, n)).to_vec();
        let data = STANDARD.encode(bytes(&mut rng, 300));
        let certificate: Vec<&str> = (0..data.len() / 64).map(|i| &data[64 * i..64 * (i + 1)]).collect();
        for text in [
            format!("rev = \"{commit}\"\n"),
            format!("    assert_eq!(blake3(b\"abc\"), \"{sha256}\");\n    let key = hex(\"{sha256}\");\n"),
            format!("checksum = \"{sha256}\"\n"),
            format!("    let id = Uuid::parse_str(\"{}\")?;\n", uuid.join("-")),
            format!("    let data = \"{data}\";\n    let url = \"data:image/png;base64,{data}\";\n"),
            format!("untrusted comment: minisign public key 1\nRWQ{}\n", &data[..53]),
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", certificate.join("\n")),
        ] {
            assert_eq!(find(&text), [], "{text}");
        }
    }
}

#[test]
fn what_is_found_is_replaced_and_nothing_else() {
    let key = draw(&mut Rng::new(5), BASE62, 24);
    let with = |stripe: &str, key: &str| {
        format!("// é\nlet a = f(\"{stripe}\", r#\"postgres://app:{key}@host/\"#); // ö\nlet token = b\"{key}\";\n")
    };
    let (text, clean) = (with(&format!("sk_{}_{key}", "live"), &key), with("xxxxxxxx", "xxxxxxxx"));
    let (scrubbed, n_found) = scrub_counted(&text);
    assert_eq!((&*scrubbed, n_found), (clean.as_str(), 3));
    let findings = find(&text);
    let rules: Vec<&str> = findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["stripe-key", "url-password", "named-secret"]);
    assert!(matches!(scrub(&clean), Cow::Borrowed(same) if same == clean));
}

#[test]
fn a_token_under_a_telling_name_is_one_secret() {
    let token = format!("ghp_{}", draw(&mut Rng::new(6), BASE62, 36));
    let findings = find(&format!("let token: Token = Token::from(\"{token}\");\n"));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].rule, "github-token");
}

#[test]
fn rust_still_parses_without_its_secrets() {
    for text in samples() {
        let is_rust = |text: &str| text.parse::<proc_macro2::TokenStream>().is_ok();
        assert!(!is_rust(&text) || is_rust(&scrub(&text)), "{text} became {}", scrub(&text));
    }
}

#[test]
fn one_long_line_of_anything_is_read_once() {
    // For each of these, a rule that restarts at every byte would need hours.
    for piece in [
        "token=",
        "token:",
        "token='",
        "api-key-",
        "eyJ-",
        "eyJa.",
        "eyJaaaa",
        "sk-ant-",
        "ghp_",
        "a://b:",
        "a://b:c@",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\n",
        "AAAA",
        "\\",
        "\"",
        "é",
        "SG.",
        "//",
        "a: ",
    ] {
        assert_eq!(find(&piece.repeat((1 << 20) / piece.len())), [], "{piece}");
    }
}

#[test]
fn every_rule_is_tested_and_documented() {
    let rules: BTreeSet<&str> = format::FORMATS
        .iter()
        .map(|format| format.rule)
        .chain([format::JWT, format::SENDGRID, url::RULE, named::RULE, key_block::RULE])
        .collect();
    let mut tested: BTreeSet<&str> = ON_A_LINE.iter().map(|(rule, _)| *rule).collect();
    tested.extend(["named-secret", "private-key"]); // by tests of their own
    assert_eq!(rules, tested);
    let page = include_str!("../../../../docs/reference/secrets.md");
    let documented: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(rule, _)| rule).collect();
    assert_eq!(rules, documented);
}

/// Pieces of texts with secrets, cut and joined anywhere.
fn texts() -> impl Strategy<Value = String> {
    let fragments: Vec<String> = samples().iter().flat_map(|text| pieces(text)).collect();
    let fragment = prop::sample::select(fragments);
    prop::collection::vec(prop_oneof![4 => fragment, 1 => "[ -~\n]{0,12}", 1 => "\\PC{0,6}"], 0..16)
        .prop_map(|parts| parts.concat())
}

/// The whole, its halves, and its words.
fn pieces(text: &str) -> Vec<String> {
    let middle = text.floor_char_boundary(text.len() / 2);
    let mut pieces = vec![text.to_owned(), text[..middle].to_owned(), text[middle..].to_owned()];
    pieces.extend(text.split_inclusive([' ', '"', '=', '\n']).map(str::to_owned));
    pieces
}

proptest! {
    #[test]
    fn what_is_found_is_in_order_on_boundaries_of_characters(text in texts()) {
        let mut from = 0;
        for finding in find(&text) {
            prop_assert!(from <= finding.range.start && finding.range.start < finding.range.end);
            prop_assert!(text.is_char_boundary(finding.range.start) && text.is_char_boundary(finding.range.end));
            from = finding.range.end;
        }
        prop_assert!(from <= text.len());
    }

    #[test]
    fn a_scrubbed_text_has_its_lines_and_no_secrets(text in texts()) {
        let (clean, n_found) = scrub_counted(&text);
        prop_assert_eq!(clean.matches('\n').count(), text.matches('\n').count());
        prop_assert_eq!(clean.matches('"').count(), text.matches('"').count());
        prop_assert!(find(&clean).is_empty(), "{}", clean);
        prop_assert_eq!(matches!(clean, Cow::Borrowed(_)), n_found == 0);
        prop_assert!(matches!(scrub(&clean), Cow::Borrowed(_)));
    }
}
