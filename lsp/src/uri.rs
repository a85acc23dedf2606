//! `file:` URIs to paths.

use std::path::PathBuf;

/// The local path that a `file:` URI names; `None` for other schemes, other hosts and bad escapes.
pub(crate) fn to_path(uri: &str) -> Option<PathBuf> {
    let rest = uri.strip_prefix("file://")?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return None;
    }
    let path = String::from_utf8(unescape(path)?).ok()?;
    // A URI writes `c:/code` as `/c:/code`.
    let drive = path.as_bytes().get(1).is_some_and(u8::is_ascii_alphabetic) && path.as_bytes().get(2) == Some(&b':');
    Some(PathBuf::from(if drive { &path[1..] } else { &path }))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_become_paths() {
        let path = |uri| to_path(uri).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(path("file:///a/b%20c/%C3%A9.rs").as_deref(), Some("/a/b c/é.rs"));
        assert_eq!(path("file://localhost/a.rs").as_deref(), Some("/a.rs"));
        assert_eq!(path("file:///c%3A/a.rs").as_deref(), Some("c:/a.rs"));
        assert_eq!(path("untitled:Untitled-1"), None);
        assert_eq!(path("file://server/a.rs"), None);
        assert_eq!(path("file:///a%2"), None);
        assert_eq!(path("file:///a%zz"), None);
        assert_eq!(path("file:///a%ff"), None);
    }
}
