//! Plain HTTP to one server: JSON in, JSON out, with limits on time and size.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use nanochat_engine::Cancel;
use serde_json::Value as Json;
use ureq::http::Uri;

use super::ServerError;

/// A request that finds the server gone or busy is sent again after these waits, milliseconds.
const WAITS_MS: [u64; 3] = [100, 400, 1600];
/// A completion is a few kilobytes.
const MAX_BODY_BYTES: u64 = 8 << 20;
/// Most characters of a server's message in an error.
const MAX_MESSAGE_CHARS: usize = 300;

/// A server that was named on the command line.
#[derive(Debug)]
pub(super) struct Http {
    agent: ureq::Agent,
    /// Without `/` at its end.
    base: String,
    timeout: Duration,
}

/// What came back: an HTTP status and a JSON body.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// `None` where the body is no JSON.
    pub(super) body: Option<Json>,
}

impl Http {
    /// Checks the address. Nothing is sent yet.
    pub(super) fn new(url: &str, timeout: Duration, allow_remote: bool) -> Result<Self, ServerError> {
        let bad = |why| ServerError::Url { url: url.to_owned(), why };
        if url.starts_with("https://") {
            return Err(bad("TLS is not supported; name a plain http server on this machine"));
        }
        if !url.starts_with("http://") {
            return Err(bad("it does not start with http://"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("it is no address"))?;
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a user in it would be sent in the clear"));
        }
        if uri.query().is_some() {
            return Err(bad("it has a query; the paths of the API are added to it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if !allow_remote && !is_this_machine(host, uri.port_u16().unwrap_or(80)) {
            return Err(ServerError::Remote { host: host.to_owned() });
        }
        let config = ureq::Agent::config_builder()
            .proxy(None) // a proxy from the environment would carry the code away
            .max_redirects(0) // and so would a redirect
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5).min(timeout)))
            .timeout_global(Some(timeout))
            .user_agent("nanochat-eval")
            .build();
        let base = url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
        Ok(Self { agent: config.into(), base, timeout })
    }

    /// Address of the server.
    pub(super) fn url(&self) -> &str {
        &self.base
    }

    pub(super) fn get(&self, path: &str, cancel: &Cancel) -> Result<Reply, ServerError> {
        self.ask(path, None, cancel)
    }

    pub(super) fn post(&self, path: &str, body: &Json, cancel: &Cancel) -> Result<Reply, ServerError> {
        self.ask(path, Some(body), cancel)
    }

    /// Every request may be repeated: nothing on the server is changed by it.
    fn ask(&self, path: &str, body: Option<&Json>, cancel: &Cancel) -> Result<Reply, ServerError> {
        let mut waits = WAITS_MS.into_iter();
        loop {
            cancel.check()?;
            let reply = self.try_once(path, body);
            let is_passing = match &reply {
                Ok(reply) => [429, 502, 503].contains(&reply.status),
                Err(ureq::Error::Io(error)) => error.kind() != io::ErrorKind::ConnectionRefused,
                Err(_) => false,
            };
            match waits.next() {
                Some(wait_ms) if is_passing => std::thread::sleep(Duration::from_millis(wait_ms)),
                _ => return reply.map_err(|error| self.error(path, error)),
            }
        }
    }

    fn try_once(&self, path: &str, body: Option<&Json>) -> Result<Reply, ureq::Error> {
        let url = format!("{}{path}", self.base);
        let mut response = match body {
            None => self.agent.get(url).call()?,
            Some(body) => {
                self.agent.post(url).header("content-type", "application/json").send(body.to_string().as_bytes())?
            }
        };
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec()?;
        Ok(Reply { status, body: serde_json::from_slice(&text).ok() })
    }

    fn error(&self, path: &str, error: ureq::Error) -> ServerError {
        let url = self.base.clone();
        match error {
            ureq::Error::Timeout(_) => ServerError::TimedOut { url, seconds: self.timeout.as_secs_f64() },
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => ServerError::Unreachable { url },
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                ServerError::Unreachable { url }
            }
            error => ServerError::Http { url, path: path.to_owned(), why: error.to_string() },
        }
    }
}

impl Reply {
    /// The body of a successful response, otherwise the server's error.
    pub(super) fn json(self, http: &Http, path: &str) -> Result<Json, ServerError> {
        let (url, path) = (http.url().to_owned(), path.to_owned());
        match (self.status, self.body) {
            (200..=299, Some(body)) => Ok(body),
            (200..=299, None) => Err(ServerError::NotJson { url, path }),
            (404 | 405, _) => Err(ServerError::NotFound { url, path }),
            (status, body) => {
                let message = body.as_ref().map(message_of).filter(|message| !message.is_empty());
                let message = message.unwrap_or_else(|| "no reason given".to_owned());
                Err(ServerError::Status { url, path, status, message })
            }
        }
    }

    /// `error.type` (llama.cpp) or `error.code` (OpenAI, llama-cpp-python) where the prompt is too long.
    pub(super) fn is_too_long(&self) -> bool {
        let field = |name: &str| self.body.as_ref().and_then(|body| body["error"][name].as_str());
        self.status >= 400
            && (field("type") == Some("exceed_context_size_error") || field("code") == Some("context_length_exceeded"))
    }
}

/// Servers put their words in `error.message`, `message` or FastAPI's `detail`.
fn message_of(body: &Json) -> String {
    let places = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    let message = places.iter().find(|place| place.is_string()).and_then(|place| place.as_str()).unwrap_or_default();
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ").chars().take(MAX_MESSAGE_CHARS).collect()
}

/// Whether every address of the host is a loopback address.
fn is_this_machine(host: &str, port: u16) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.is_loopback();
    }
    // Other names could mean another machine at the next look-up.
    host.eq_ignore_ascii_case("localhost")
        && (host, port).to_socket_addrs().is_ok_and(|mut addresses| addresses.all(|address| address.ip().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, allow_remote: bool) -> Result<String, String> {
        let http = Http::new(url, Duration::from_secs(1), allow_remote);
        http.map(|http| http.base).map_err(|error| error.to_string())
    }

    #[test]
    fn this_machine_is_asked_unless_another_is_allowed() {
        for url in ["http://localhost:8080", "http://127.0.0.1:1/", "http://[::1]:8080/v1", "http://127.8.9.1/v1/"] {
            assert!(check(url, false).is_ok(), "{url}");
        }
        for url in
            ["http://192.168.1.7:8080", "http://localhost.example.org", "http://[2001:db8::1]:1", "http://1.1.1.1"]
        {
            let error = check(url, false).expect_err(url);
            assert!(error.contains("--allow-remote"), "{error}");
            assert!(check(url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_named_with_the_reason() {
        for (url, why) in [
            ("https://localhost:8080", "TLS"),
            ("localhost:8080", "http://"),
            ("http://", "address"),
            ("ftp://localhost", "http://"),
            ("http://me:secret@localhost", "in the clear"),
            ("http://localhost?x=1", "query"),
            ("", "http://"),
        ] {
            let error = check(url, true).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
        }
        assert_eq!(check("http://localhost:1/api/v1/", false), Ok("http://localhost:1/api".to_owned()));
    }

    #[test]
    fn a_servers_own_words_are_found() {
        for (body, words) in [
            (r#"{"error":{"message":"no\n model"}}"#, "no model"),
            (r#"{"error":"busy"}"#, "busy"),
            (r#"{"detail":"Not allowed"}"#, "Not allowed"),
            (r#"{"detail":[{"loc":1}]}"#, ""),
            ("[]", ""),
        ] {
            assert_eq!(message_of(&serde_json::from_str(body).expect("json")), words);
        }
    }
}
