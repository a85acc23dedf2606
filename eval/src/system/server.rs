//! Another system: a server that completes code, OpenAI-compatible or llama.cpp.
//!
//! ```text
//! connect:  /v1/models, /props → model, family → its tokens known? → one token as a trial
//! complete: window of the file → template → /v1/completions or /infill, temperature 0 → text
//! ```
//!
//! The server keeps its own caches, as it would when an editor uses it. Code is sent to this machine only, unless the
//! user allows another.

mod fim;
mod http;

use std::time::Duration;

use nanochat_engine::{Cancel, Cancelled};
use serde_json::{Value as Json, json};

use super::{Completion, System, SystemError, Task, limits};
use crate::holes::HoleKind;

pub use fim::Fim;
use fim::Template;
use http::{Http, Reply};

/// Bytes of the file before and after the cursor that are sent: about the 2,048 tokens that our own model reads.
const WINDOW: (usize, usize) = (6 << 10, 2 << 10);
/// Below this many bytes a window is not halved again.
const MIN_WINDOW: usize = 256;
const COMPLETIONS: &str = "/v1/completions";
const INFILL: &str = "/infill";

/// Which server to use, and how.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `http://localhost:8080`, with or without `/v1`.
    pub url: String,
    /// The prompt format; `None` derives it from the model's name, or uses `/infill` where the server is llama.cpp.
    pub fim: Option<Fim>,
    /// Which of the server's models; `None` where it has one.
    pub model: Option<String>,
    /// Time limit of one request.
    pub timeout: Duration,
    /// Whether code may be sent to another machine.
    pub allow_remote: bool,
}

/// A server that passed the checks of [`Server::connect`].
#[derive(Debug)]
pub struct Server {
    http: Http,
    name: String,
    /// The server's name for it; empty if it has none.
    model: String,
    fim: Fim,
    /// Whether the server returns the probabilities of its tokens.
    has_probabilities: bool,
}

/// Why a server cannot take part.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is not a usable URL.
    #[error("`{url}` cannot be asked: {why}")]
    Url {
        /// The address as the user gave it.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The host is another machine, and the user did not allow that.
    #[error(
        "{host} is not this machine, and the code around each hole would be sent to it; add --allow-remote if it may"
    )]
    Remote {
        /// The host of the address.
        host: String,
    },
    /// No server listens at the address.
    #[error("nothing answers at {url}; start the server, or correct the port")]
    Unreachable {
        /// Address of the server.
        url: String,
    },
    /// The server exceeded the time limit.
    #[error("{url} did not answer within {seconds} s; give it longer with --system-timeout, or a smaller model")]
    TimedOut {
        /// Address of the server.
        url: String,
        /// The limit in seconds.
        seconds: f64,
    },
    /// The server lacks a path of the API.
    #[error("{url} has no {path}; is it an OpenAI-compatible or llama.cpp server, and a completion (not chat) model?")]
    NotFound {
        /// Address of the server.
        url: String,
        /// Path of the request.
        path: String,
    },
    /// The server answers with an error status.
    #[error("{url}{path} answers status {status}: {message}")]
    Status {
        /// Address of the server.
        url: String,
        /// Path of the request.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The server's error message, shortened.
        message: String,
    },
    /// The response is not JSON.
    #[error("{url}{path} answers, but not with JSON; is another program listening there?")]
    NotJson {
        /// Address of the server.
        url: String,
        /// Path of the request.
        path: String,
    },
    /// The response lacks a field.
    #[error("{url}{path} answers without {field}; is it an OpenAI-compatible or llama.cpp server?")]
    Form {
        /// Address of the server.
        url: String,
        /// Path of the request.
        path: String,
        /// Name of the missing field.
        field: &'static str,
    },
    /// The connection broke, or the response is not HTTP.
    #[error("asking {url}{path}: {why}")]
    Http {
        /// Address of the server.
        url: String,
        /// Path of the request.
        path: String,
        /// The HTTP client's message.
        why: String,
    },
    /// The server has several models and none was chosen.
    #[error("the server at {url} has several models ({models}); name one with --system-model")]
    Models {
        /// Address of the server.
        url: String,
        /// Names of the models, separated by commas.
        models: String,
    },
    /// The model's special tokens cannot be derived from its name.
    #[error(
        "the fill-in-the-middle tokens of `{model}` are not known; say --fim qwen, starcoder, codegemma or deepseek"
    )]
    Family {
        /// The server's name for the model.
        model: String,
    },
    /// The model's vocabulary lacks the special tokens.
    #[error(
        "`{model}` does not know the token {token}: it was not trained to fill in the middle, or needs another --fim"
    )]
    NoToken {
        /// The server's name for the model.
        model: String,
        /// The first special token that the model splits.
        token: String,
    },
    /// Even a small window of the file exceeds the server's context.
    #[error("the context of {url} does not hold {bytes} bytes of code; start it with a longer one")]
    Context {
        /// Address of the server.
        url: String,
        /// Size of the smallest window that was tried.
        bytes: usize,
    },
    /// The caller cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Server {
    /// Queries the server and requests one token, so that errors show before a long run.
    pub fn connect(options: &ServerOptions, cancel: &Cancel) -> Result<Self, ServerError> {
        let http = Http::new(&options.url, options.timeout, options.allow_remote)?;
        let models = models(&http, cancel)?;
        let props =
            optional(&http, "/props", cancel)?.filter(|props| props.get("default_generation_settings").is_some());
        let model = match (&options.model, models.as_slice()) {
            (Some(model), _) => model.clone(),
            (None, [model]) => model.clone(),
            (None, []) => props.as_ref().and_then(|props| props["model_path"].as_str()).unwrap_or_default().to_owned(),
            (None, models) => {
                return Err(ServerError::Models { url: http.url().to_owned(), models: models.join(", ") });
            }
        };
        let told = props.as_ref().and_then(|props| Fim::of_model(props["model_path"].as_str()?));
        let fim = match options.fim.or_else(|| Fim::of_model(&model)).or(told) {
            Some(fim) => fim,
            None if props.is_some() => Fim::Infill,
            None if models.is_empty() => {
                return Err(ServerError::NotFound { url: http.url().to_owned(), path: "/v1/models".to_owned() });
            }
            None => return Err(ServerError::Family { model }),
        };
        let mut server = Self { name: short(&model, http.url()), http, model, fim, has_probabilities: true };
        if let Some(template) = fim.template() {
            server.check_tokens(&template, cancel)?;
        }
        let trial = Task { file: "", kind: HoleKind::LineTail, prefix: "fn main() {\n    let x = ", suffix: "\n}\n" };
        match server.ask(&trial, 1, cancel) {
            // Some refuse a request for probabilities that they were not started with.
            Err(ServerError::Status { .. }) if fim != Fim::Infill => {
                server.has_probabilities = false;
                server.ask(&trial, 1, cancel)?;
            }
            answer => drop(answer?),
        }
        Ok(server)
    }

    /// The prompt format in use.
    pub fn fim(&self) -> Fim {
        self.fim
    }

    /// A known special token is one token, perhaps after the one that starts every text. Servers without a tokenizer
    /// endpoint are trusted.
    fn check_tokens(&self, template: &Template, cancel: &Cancel) -> Result<(), ServerError> {
        for token in [template.prefix, template.suffix, template.middle] {
            // llama.cpp, vLLM and llama-cpp-python, each with its own name of the field.
            let body = json!({
                "model": self.model, "content": token, "prompt": token, "input": token,
                "add_special": false, "add_special_tokens": false, "parse_special": true,
            });
            for path in ["/tokenize", "/extras/tokenize"] {
                let reply = self.http.post(path, &body, cancel)?;
                let tokens =
                    reply.body.as_ref().filter(|_| reply.status == 200).and_then(|body| body["tokens"].as_array());
                if tokens.is_some_and(|tokens| tokens.len() > 2) {
                    return Err(ServerError::NoToken { model: self.name.clone(), token: token.to_owned() });
                }
                if tokens.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Requests with smaller and smaller windows until one fits the server's context.
    fn ask(&self, task: &Task<'_>, max_tokens: usize, cancel: &Cancel) -> Result<Completion, ServerError> {
        let path = if self.fim == Fim::Infill { INFILL } else { COMPLETIONS };
        let (mut n_before, mut n_after) = WINDOW;
        loop {
            let (prefix, suffix) = window(task, n_before, n_after);
            let reply = self.http.post(path, &self.body(task.kind, prefix, suffix, max_tokens), cancel)?;
            if !reply.is_too_long() {
                return self.answer(path, reply);
            }
            (n_before, n_after) = (n_before / 2, n_after / 2);
            if n_before + n_after < MIN_WINDOW {
                return Err(ServerError::Context { url: self.http.url().to_owned(), bytes: 2 * (n_before + n_after) });
            }
        }
    }

    fn body(&self, kind: HoleKind, prefix: &str, suffix: &str, max_tokens: usize) -> Json {
        let ends_with_line = limits(kind).max_lines == 1;
        let line = ends_with_line.then_some("\n");
        let Some(template) = self.fim.template() else {
            return json!({
                "input_prefix": prefix, "input_suffix": suffix, "prompt": "", "n_predict": max_tokens,
                "temperature": 0.0, "stop": line.into_iter().collect::<Vec<_>>(), "stream": false,
            });
        };
        let mut body = json!({
            "prompt": template.prompt(prefix, suffix), "max_tokens": max_tokens, "temperature": 0.0,
            "stop": template.stops().chain(line).collect::<Vec<_>>(), "stream": false,
        });
        if !self.model.is_empty() {
            body["model"] = json!(self.model);
        }
        if self.has_probabilities {
            body["logprobs"] = json!(1);
        }
        body
    }

    fn answer(&self, path: &str, reply: Reply) -> Result<Completion, ServerError> {
        let body = reply.json(&self.http, path)?;
        let missing = |field| ServerError::Form { url: self.http.url().to_owned(), path: path.to_owned(), field };
        let count = |value: &Json| value.as_u64().and_then(|count| usize::try_from(count).ok());
        if self.fim == Fim::Infill {
            let text = body["content"].as_str().ok_or_else(|| missing("content"))?;
            return Ok(Completion { tokens: count(&body["tokens_predicted"]), ..Some(text.to_owned()).into() });
        }
        let choice = &body["choices"][0];
        let text = choice["text"].as_str().ok_or_else(|| missing("choices[0].text"))?;
        Ok(Completion {
            tokens: count(&body["usage"]["completion_tokens"]),
            confidence: confidence(&choice["logprobs"]),
            ..Some(text.to_owned()).into()
        })
    }
}

impl System for Server {
    fn name(&self) -> &str {
        &self.name
    }

    fn complete(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError> {
        Ok(self.ask(task, limits(task.kind).max_tokens, cancel)?)
    }
}

/// The JSON of a path that not every server has.
fn optional(http: &Http, path: &str, cancel: &Cancel) -> Result<Option<Json>, ServerError> {
    let reply = http.get(path, cancel)?;
    Ok(reply.body.filter(|_| (200..=299).contains(&reply.status)))
}

/// Names of the server's models; empty if it does not list them.
fn models(http: &Http, cancel: &Cancel) -> Result<Vec<String>, ServerError> {
    let reply = http.get("/v1/models", cancel)?;
    if reply.status == 404 {
        return Ok(Vec::new());
    }
    let body = reply.json(http, "/v1/models")?;
    let models = body["data"].as_array().ok_or_else(|| ServerError::Form {
        url: http.url().to_owned(),
        path: "/v1/models".to_owned(),
        field: "data",
    })?;
    Ok(models.iter().filter_map(|model| Some(model["id"].as_str()?.to_owned())).collect())
}

/// Geometric mean of the tokens' probabilities: `token_logprobs` (OpenAI's completions) or `content[].logprob`
/// (llama.cpp). A token without one, as the first may be, is left out.
fn confidence(logprobs: &Json) -> Option<f64> {
    let tokens: Vec<f64> = match (logprobs["token_logprobs"].as_array(), logprobs["content"].as_array()) {
        (Some(tokens), _) => tokens.iter().filter_map(Json::as_f64).collect(),
        (None, Some(tokens)) => tokens.iter().filter_map(|token| token["logprob"].as_f64()).collect(),
        (None, None) => return None,
    };
    let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
    (!tokens.is_empty()).then(|| mean.exp().clamp(0.0, 1.0))
}

/// The last `n_before` bytes before the cursor and the first `n_after` after the hole, in whole lines where there is
/// a line end to cut at.
fn window<'a>(task: &Task<'a>, n_before: usize, n_after: usize) -> (&'a str, &'a str) {
    let start = task.prefix.ceil_char_boundary(task.prefix.len().saturating_sub(n_before));
    let mut prefix = &task.prefix[start..];
    if start > 0
        && let Some(line_end) = prefix.find('\n')
    {
        prefix = &prefix[line_end + 1..];
    }
    let mut suffix = &task.suffix[..task.suffix.floor_char_boundary(n_after)];
    if suffix.len() < task.suffix.len()
        && let Some(line_end) = suffix.rfind('\n')
    {
        suffix = &suffix[..=line_end];
    }
    (prefix, suffix)
}

/// A model's name for the table: of a path its file, without what every file has.
fn short(model: &str, url: &str) -> String {
    let file = model.rsplit(['/', '\\']).next().unwrap_or(model);
    let name = file.strip_suffix(".gguf").unwrap_or(file).trim();
    let name: String = name.chars().filter(|c| !c.is_control() && *c != ',').take(48).collect();
    if name.is_empty() { url.trim_start_matches("http://").to_owned() } else { name }
}

#[cfg(test)]
mod tests;
