//! Ed25519 in minisign's form: anyone can verify with a tool we did not write.
//!
//! ```text
//! signature text = comment line, base64("ED" ‖ key id ‖ S), trusted comment line, base64(G)
//! S = Ed25519(BLAKE2b-512(message))        G = Ed25519(S ‖ trusted comment)
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};
use ed25519_dalek::{Signature as Ed25519, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// The first line of every signature that is written. minisign does not sign this line, so a checkpoint,
/// which may not differ by a byte, allows no other.
pub const UNTRUSTED_COMMENT: &str = "signature by a nanochat key";

const COMMENT: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";
const PUBLIC: [u8; 2] = *b"Ed"; // minisign's mark of a public key, and of a signature without prehash
const PREHASHED: [u8; 2] = *b"ED"; // minisign's mark of a signature over BLAKE2b-512
const SECRET: [u8; 2] = *b"nk"; // nanochat's own: an unencrypted seed
const KEY_LEN: usize = 2 + 8 + 32;
const SIGNATURE_LEN: usize = 2 + 8 + 64;

/// Names a key; minisign shows it as 16 hex digits. It is chosen by the key's owner and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyId([u8; 8]);

/// A public key: minisign's 8-byte key id and 32 bytes. Never a weak key. Displays as a minisign `.pub` file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey {
    id: KeyId,
    key: [u8; 32],
}

/// A signing key; only the seed is kept, and it is wiped when dropped.
pub struct SecretKey {
    id: KeyId,
    key: SigningKey,
}

/// A parsed minisign signature. Nothing in it is proven before [`PublicKey::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The first line, without its label; it is not signed.
    pub untrusted_comment: String,
    /// The id of the key that claims to have signed.
    pub key_id: KeyId,
    /// The third line, without its label; it is signed together with the signature.
    pub trusted_comment: String,
    signature: [u8; 64],
    global: [u8; 64],
}

/// Why a key or a signature is malformed or does not match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The text is not a public key.
    #[error("this is not a minisign public key ({reason}); give a `.pub` file or its line that begins with `RW`")]
    PublicKey {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is not a secret key.
    #[error(
        "this is not a nanochat secret key ({reason}); restore the file from a copy, or move it away to have a new key made"
    )]
    SecretKey {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is not a key id.
    #[error("`{0}` is not a key id; write its 16 hex digits as `minisign` shows them")]
    KeyId(String),
    /// The key would verify signatures that its owner did not make.
    #[error("key {id} is weak and verifies signatures that nobody made; ask its owner for another")]
    WeakKey {
        /// The id of the key.
        id: KeyId,
    },
    /// The text is not a signature.
    #[error("this is not a minisign signature ({reason}); get the file again")]
    Signature {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The signature is by another key.
    #[error("this is signed by key {found}, not by {expected}; use the public key of its signer")]
    OtherKey {
        /// The id of the key that was to verify it.
        expected: KeyId,
        /// The id of the key that claims to have signed.
        found: KeyId,
    },
    /// The message or the trusted comment is not what was signed.
    #[error("this is not what key {id} signed; get it again from its source")]
    Mismatch {
        /// The id of the key that was to verify it.
        id: KeyId,
    },
    /// A comment contains a control character, which could break its line.
    #[error("a trusted comment holds a control character; remove it")]
    Comment,
    /// The system gave no randomness.
    #[error("the system gave no randomness for a new key ({0}); try again")]
    Random(String),
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl FromStr for KeyId {
    type Err = SignError;

    fn from_str(text: &str) -> Result<Self, SignError> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(|number| Self(number.to_le_bytes())).ok_or_else(|| SignError::KeyId(text.escape_debug().to_string()))
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for KeyId {
    type Error = SignError;

    fn try_from(text: String) -> Result<Self, SignError> {
        text.parse()
    }
}

impl PublicKey {
    /// The id by which the key is named.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether both are the same Ed25519 key, whatever ids they carry.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// The one line that `minisign -P` takes.
    pub fn to_base64(&self) -> String {
        pack(PUBLIC, self.id, &self.key)
    }

    /// Checks that this key signed exactly `message` and the signature's trusted comment.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignError> {
        if signature.key_id != self.id {
            return Err(SignError::OtherKey { expected: self.id, found: signature.key_id });
        }
        let mismatch = |_| SignError::Mismatch { id: self.id };
        let key = VerifyingKey::from_bytes(&self.key).map_err(mismatch)?;
        // Strict: no small-order parts, and S below the group order, so that a signature has one form only.
        key.verify_strict(&Blake2b512::digest(message), &Ed25519::from_bytes(&signature.signature))
            .map_err(mismatch)?;
        let comment = [&signature.signature, signature.trusted_comment.as_bytes()].concat();
        key.verify_strict(&comment, &Ed25519::from_bytes(&signature.global)).map_err(mismatch)
    }

    fn new(id: KeyId, key: [u8; 32]) -> Result<Self, SignError> {
        let point = VerifyingKey::from_bytes(&key)
            .map_err(|_| SignError::PublicKey { reason: "its bytes are not a point of the curve" })?;
        if point.is_weak() { Err(SignError::WeakKey { id }) } else { Ok(Self { id, key }) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{COMMENT}minisign public key {}\n{}\n", self.id, self.to_base64())
    }
}

impl FromStr for PublicKey {
    type Err = SignError;

    /// Reads a `.pub` file, with any line ends, or its second line alone.
    fn from_str(text: &str) -> Result<Self, SignError> {
        let line = key_line(text).map_err(|reason| SignError::PublicKey { reason })?;
        let (id, key) = unpack::<KEY_LEN, 32>(PUBLIC, line).map_err(|reason| SignError::PublicKey { reason })?;
        Self::new(id, key)
    }
}

impl SecretKey {
    /// A new key, from the system's randomness.
    pub fn generate() -> Result<Self, SignError> {
        let (mut id, mut seed) = ([0; 8], [0; 32]);
        getrandom::fill(&mut id).map_err(|error| SignError::Random(error.to_string()))?;
        getrandom::fill(&mut seed).map_err(|error| SignError::Random(error.to_string()))?;
        Ok(Self { id: KeyId(id), key: SigningKey::from_bytes(&seed) })
    }

    /// The public key, with which others verify.
    pub fn public(&self) -> PublicKey {
        PublicKey { id: self.id, key: self.key.verifying_key().to_bytes() }
    }

    /// The text of a `.minisig` file over `message`. The comment is one line that is signed with it.
    pub fn sign(&self, message: &[u8], trusted_comment: &str) -> Result<String, SignError> {
        if trusted_comment.contains(char::is_control) {
            return Err(SignError::Comment);
        }
        let signature = self.key.sign(&Blake2b512::digest(message)).to_bytes();
        let global = self.key.sign(&[&signature, trusted_comment.as_bytes()].concat()).to_bytes();
        let parsed = Signature {
            untrusted_comment: UNTRUSTED_COMMENT.to_owned(),
            key_id: self.id,
            trusted_comment: trusted_comment.to_owned(),
            signature,
            global,
        };
        Ok(parsed.to_string())
    }

    /// Two lines of text that hold the seed **unencrypted**: a comment, and base64 of `nk` ‖ key id ‖ seed.
    pub fn to_text(&self) -> String {
        format!(
            "{COMMENT}nanochat secret key {}, not encrypted; keep it to yourself\n{}\n",
            self.id,
            pack(SECRET, self.id, self.key.as_bytes())
        )
    }

    /// Reads what [`SecretKey::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self, SignError> {
        let line = key_line(text).map_err(|reason| SignError::SecretKey { reason })?;
        let (id, seed) = unpack::<KEY_LEN, 32>(SECRET, line).map_err(|reason| SignError::SecretKey { reason })?;
        Ok(Self { id, key: SigningKey::from_bytes(&seed) })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { untrusted_comment, key_id, trusted_comment, signature, global } = self;
        let (signature, global) = (pack(PREHASHED, *key_id, signature), STANDARD.encode(global));
        write!(f, "{COMMENT}{untrusted_comment}\n{signature}\n{TRUSTED}{trusted_comment}\n{global}\n")
    }
}

impl FromStr for Signature {
    type Err = SignError;

    /// Reads a `.minisig` file: exactly four lines, each with its `\n`. What parses displays as the same text.
    fn from_str(text: &str) -> Result<Self, SignError> {
        let bad = |reason| SignError::Signature { reason };
        let body = text.strip_suffix('\n').ok_or(bad("it does not end with a line end"))?;
        let lines: [&str; 4] = match body.splitn(5, '\n').collect::<Vec<_>>().try_into() {
            Ok(lines) => lines,
            Err(_) => return Err(bad("it does not have four lines")),
        };
        let [untrusted_comment, packed, trusted_comment, global] = lines;
        let untrusted_comment = untrusted_comment.strip_prefix(COMMENT).ok_or(bad("it has no comment"))?;
        let trusted_comment = trusted_comment.strip_prefix(TRUSTED).ok_or(bad("it has no trusted comment"))?;
        // minisign separates its own fields with tabs; anything else would reach terminals.
        if [untrusted_comment, trusted_comment].iter().any(|text| text.contains(|c: char| c.is_control() && c != '\t'))
        {
            return Err(bad("a comment holds a control character"));
        }
        let (key_id, signature) = unpack::<SIGNATURE_LEN, 64>(PREHASHED, packed).map_err(bad)?;
        let global = STANDARD.decode(global).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            untrusted_comment: untrusted_comment.to_owned(),
            key_id,
            trusted_comment: trusted_comment.to_owned(),
            signature,
            global: global.ok_or(bad("its last line is not 64 bytes of base64"))?,
        })
    }
}

/// base64 of mark ‖ key id ‖ payload.
fn pack(mark: [u8; 2], id: KeyId, payload: &[u8]) -> String {
    STANDARD.encode([&mark, &id.0[..], payload].concat())
}

/// The key id and the payload of `LEN` packed bytes.
fn unpack<const LEN: usize, const PAYLOAD: usize>(
    mark: [u8; 2],
    line: &str,
) -> Result<(KeyId, [u8; PAYLOAD]), &'static str> {
    let bytes = STANDARD.decode(line).map_err(|_| "its second line is not base64")?;
    if bytes.len() != LEN {
        return Err("it does not have the right length");
    }
    if bytes[..2] != mark {
        return Err(match &bytes[..2] {
            b"Ed" => "it is of minisign's old kind, without a prehash",
            _ => "it is of another kind",
        });
    }
    let id = bytes[2..10].try_into().expect("eight bytes of a checked length");
    let payload = bytes[10..].try_into().map_err(|_| "it does not have the right length")?;
    Ok((KeyId(id), payload))
}

/// The line of a key file that holds the key: the only one, or the second after a comment.
fn key_line(text: &str) -> Result<&str, &'static str> {
    let mut lines = text.trim_end().lines();
    let first = lines.next().ok_or("it is empty")?;
    let line = if first.starts_with(COMMENT.trim_end()) { lines.next().ok_or("it has only a comment")? } else { first };
    if lines.next().is_some() { Err("it has too many lines") } else { Ok(line.trim()) }
}

#[cfg(test)]
mod tests;
