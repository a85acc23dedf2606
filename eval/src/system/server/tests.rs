use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// One request as it arrived.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    body: Json,
}

/// A stub with just enough HTTP/1.1 for a real client: one connection after the other, one response each.
struct Stub {
    url: String,
    requests: Receiver<Request>,
}

impl Stub {
    /// `answer` returns (status, body) for each request.
    fn start(answer: impl Fn(&Request) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if serve(stream, &answer, &sender).is_none() {
                    return; // the test has ended
                }
            }
        });
        Self { url, requests }
    }

    fn options(&self) -> ServerOptions {
        ServerOptions {
            url: self.url.clone(),
            fim: None,
            model: None,
            timeout: Duration::from_secs(20),
            allow_remote: false,
        }
    }

    fn connect(&self) -> Result<Server, ServerError> {
        Server::connect(&self.options(), &Cancel::new())
    }

    /// What was posted to `path`, in order.
    fn posted(&self, path: &str) -> Vec<Json> {
        let of_path = |request: &Request| request.method == "POST" && request.path == path;
        self.requests.try_iter().filter(of_path).map(|request| request.body).collect()
    }
}

fn serve(stream: TcpStream, answer: &impl Fn(&Request) -> (u16, String), sender: &Sender<Request>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Some(()) };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Json::Null);
    let request = Request { method: method.to_owned(), path: path.to_owned(), body };
    let (status, text) = answer(&request);
    let kept = sender.send(request).ok();
    let location = if status == 302 { format!("location: {text}\r\n") } else { String::new() };
    let head = format!("HTTP/1.1 {status} X\r\n{location}content-length: {}\r\nconnection: close\r\n\r\n", text.len());
    let _ = reader.get_mut().write_all((head + &text).as_bytes());
    kept
}

/// An OpenAI-compatible server with one model.
fn openai(model: &'static str) -> impl Fn(&Request) -> (u16, String) + Send {
    move |request| match request.path.as_str() {
        "/v1/models" => (200, json!({ "data": [{ "id": model }] }).to_string()),
        "/v1/completions" => {
            let choice = json!({ "text": "1 + 2;", "logprobs": { "token_logprobs": [null, -0.5, -1.5] } });
            (200, json!({ "choices": [choice], "usage": { "completion_tokens": 3 } }).to_string())
        }
        _ => (404, String::new()),
    }
}

fn task(kind: HoleKind) -> Task<'static> {
    Task { file: "src/a.rs", kind, prefix: "fn f() -> u8 {\n    let x = ", suffix: "\n    x\n}\n" }
}

fn fill(server: &mut Server, kind: HoleKind) -> Completion {
    server.complete(&task(kind), &Cancel::new()).expect("the stub answers")
}

fn error_of(stub: &Stub) -> String {
    stub.connect().expect_err("it cannot take part").to_string()
}

#[test]
fn each_family_is_asked_in_its_own_words() {
    for (model, fim, prompt, end) in [
        (
            "Qwen/Qwen2.5-Coder-0.5B",
            Fim::Qwen,
            "<|fim_prefix|>fn f() -> u8 {\n    let x = <|fim_suffix|>\n    x\n}\n<|fim_middle|>",
            "<|endoftext|>",
        ),
        (
            "bigcode/starcoder2-3b",
            Fim::StarCoder,
            "<fim_prefix>fn f() -> u8 {\n    let x = <fim_suffix>\n    x\n}\n<fim_middle>",
            "<file_sep>",
        ),
        (
            "codegemma-2b.gguf",
            Fim::CodeGemma,
            "<|fim_prefix|>fn f() -> u8 {\n    let x = <|fim_suffix|>\n    x\n}\n<|fim_middle|>",
            "<|file_separator|>",
        ),
        (
            "deepseek-coder-1.3b-base",
            Fim::DeepSeek,
            "<｜fim▁begin｜>fn f() -> u8 {\n    let x = <｜fim▁hole｜>\n    x\n}\n<｜fim▁end｜>",
            "<｜end▁of▁sentence｜>",
        ),
    ] {
        let stub = Stub::start(openai(model));
        let mut server = stub.connect().expect("it is told by its name");
        assert_eq!(server.fim(), fim);
        let answer = fill(&mut server, HoleKind::LineTail);
        assert_eq!((answer.text.as_deref(), answer.tokens), (Some("1 + 2;"), Some(3)));
        assert!((answer.confidence.expect("it is stated") - (-1.0f64).exp()).abs() < 1e-12);
        let posted = stub.posted("/v1/completions");
        let body = posted.last().expect("it was asked");
        assert_eq!(body["prompt"], prompt);
        assert_eq!(body["model"], model);
        assert_eq!(
            (&body["temperature"], &body["stream"], &body["max_tokens"]),
            (&json!(0.0), &json!(false), &json!(48))
        );
        let stops = body["stop"].as_array().expect("stops");
        assert!(stops.contains(&json!(end)) && stops.contains(&json!("\n")), "{stops:?}");
        fill(&mut server, HoleKind::Statement);
        let body = &stub.posted("/v1/completions")[0];
        assert!(!body["stop"].as_array().expect("stops").contains(&json!("\n")));
        assert_eq!(body["max_tokens"], 96);
    }
}

#[test]
fn llama_cpp_is_asked_through_infill_where_the_family_is_not_known() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/props" => (200, json!({ "default_generation_settings": {}, "model_path": "/m/Mine-1B.gguf" }).to_string()),
        "/infill" => (200, json!({ "content": "7;", "tokens_predicted": 2 }).to_string()),
        _ => (404, "File Not Found".to_owned()),
    });
    let mut server = stub.connect().expect("it has /props");
    assert_eq!((server.name(), server.fim()), ("Mine-1B", Fim::Infill));
    let answer = fill(&mut server, HoleKind::Statement);
    assert_eq!(answer, Completion { tokens: Some(2), ..Some("7;".to_owned()).into() });
    let posted = stub.posted("/infill");
    let expected = json!({
        "input_prefix": "fn f() -> u8 {\n    let x = ", "input_suffix": "\n    x\n}\n", "prompt": "",
        "n_predict": 96, "temperature": 0.0, "stop": [], "stream": false,
    });
    assert_eq!(posted.last(), Some(&expected));
}

#[test]
fn the_command_line_overrules_the_name() {
    let stub = Stub::start(openai("my-finetune"));
    assert!(error_of(&stub).contains("--fim qwen"));
    let options = ServerOptions { fim: Some(Fim::StarCoder), model: Some("other".to_owned()), ..stub.options() };
    let server = Server::connect(&options, &Cancel::new()).expect("the family is stated");
    assert_eq!((server.name(), server.fim()), ("other", Fim::StarCoder));
    assert_eq!(stub.posted("/v1/completions")[0]["model"], "other");
}

#[test]
fn a_model_without_the_special_tokens_is_refused() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/v1/models" => (200, json!({ "data": [{ "id": "qwen-chat" }] }).to_string()),
        "/tokenize" if request.body["content"] == "<|fim_suffix|>" => {
            (200, json!({ "tokens": [27, 91, 12] }).to_string())
        }
        "/tokenize" => (200, json!({ "tokens": [7] }).to_string()),
        _ => (404, String::new()),
    });
    let error = error_of(&stub);
    assert!(error.contains("`qwen-chat`") && error.contains("<|fim_suffix|>") && error.contains("--fim"), "{error}");
}

#[test]
fn infill_without_tokens_in_the_model_file_tells_the_servers_reason() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/props" => (200, json!({ "default_generation_settings": {} }).to_string()),
        "/infill" => {
            let error =
                json!({ "code": 501, "message": "Infill is not supported by this model: prefix token is missing." });
            (501, json!({ "error": error }).to_string())
        }
        _ => (404, String::new()),
    });
    let error = error_of(&stub);
    assert!(error.contains("501") && error.contains("prefix token is missing"), "{error}");
}

#[test]
fn nothing_there_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let options = ServerOptions { url, fim: None, model: None, timeout: Duration::from_secs(20), allow_remote: false };
    let error = Server::connect(&options, &Cancel::new()).expect_err("nothing listens").to_string();
    assert!(error.contains("nothing answers") && error.contains("start the server"), "{error}");
}

#[test]
fn another_kind_of_server_is_told_from_one_that_completes() {
    let page = Stub::start(|_| (200, "<!doctype html><title>files</title>".to_owned()));
    assert!(error_of(&page).contains("not with JSON"));
    let empty = Stub::start(|_| (404, String::new()));
    assert!(error_of(&empty).contains("has no /v1/models"));
    let other = Stub::start(|_| (200, "[1, 2]".to_owned()));
    assert!(error_of(&other).contains("without data"));
    let chat = Stub::start(|request| match request.path.as_str() {
        "/v1/models" => (200, json!({ "data": [{ "id": "qwen" }] }).to_string()),
        _ => (404, String::new()),
    });
    let error = error_of(&chat);
    assert!(error.contains("has no /v1/completions") && error.contains("chat"), "{error}");
    let odd = Stub::start(|request| match request.path.as_str() {
        "/v1/models" => (200, json!({ "data": [{ "id": "qwen" }] }).to_string()),
        _ => (200, json!({ "choices": [] }).to_string()),
    });
    assert!(error_of(&odd).contains("without choices[0].text"));
}

#[test]
fn several_models_are_listed() {
    let stub = Stub::start(|_| (200, json!({ "data": [{ "id": "a" }, { "id": "b" }] }).to_string()));
    let error = error_of(&stub);
    assert!(error.contains("(a, b)") && error.contains("--system-model"), "{error}");
}

#[test]
fn a_busy_server_is_asked_again() {
    let n_asked = std::sync::atomic::AtomicUsize::new(0);
    let ready = openai("qwen");
    let stub = Stub::start(move |request| {
        let n = n_asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if n < 2 { (503, json!({ "error": { "message": "Loading model" } }).to_string()) } else { ready(request) }
    });
    assert!(stub.connect().is_ok());
}

#[test]
fn probabilities_are_not_asked_for_where_they_are_refused() {
    let ready = openai("qwen");
    let stub = Stub::start(move |request| {
        if request.body.get("logprobs").is_some() {
            return (500, json!({ "error": { "message": "logprobs need logits_all" } }).to_string());
        }
        ready(request)
    });
    let mut server = stub.connect().expect("it answers without");
    assert_eq!(fill(&mut server, HoleKind::LineTail).text.as_deref(), Some("1 + 2;"));
}

#[test]
fn a_short_context_is_met_with_a_smaller_window() {
    let ready = openai("qwen");
    let too_long = json!({ "error": { "code": "context_length_exceeded", "message": "too long" } }).to_string();
    let stub = Stub::start(move |request| match request.body["prompt"].as_str() {
        Some(prompt) if prompt.len() > 2000 => (400, too_long.clone()),
        _ => ready(request),
    });
    let mut server = stub.connect().expect("the trial is short");
    let (prefix, suffix) = ("    before();\n".repeat(900), "    after();\n".repeat(900));
    let task = Task { file: "a.rs", kind: HoleKind::NextLine, prefix: &prefix, suffix: &suffix };
    assert!(server.complete(&task, &Cancel::new()).is_ok());
    let prompts = stub.posted("/v1/completions");
    let last = prompts.last().and_then(|body| body["prompt"].as_str()).expect("it was asked");
    assert!((500..=2000).contains(&last.len()), "{}", last.len());
    assert!(last.starts_with("<|fim_prefix|>    before();\n") && last.contains("after();\n<|fim_middle|>"), "{last}");

    let tiny = Stub::start(|request| match request.path.as_str() {
        "/v1/models" => (200, json!({ "data": [{ "id": "qwen" }] }).to_string()),
        "/v1/completions" => (400, json!({ "error": { "type": "exceed_context_size_error" } }).to_string()),
        _ => (404, String::new()),
    });
    assert!(error_of(&tiny).contains("context"));
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Stub::start(openai("qwen"));
    let url = elsewhere.url.clone();
    let stub = Stub::start(move |request| (302, format!("{url}{}", request.path)));
    assert!(error_of(&stub).contains("302"));
    assert_eq!(elsewhere.requests.try_iter().count(), 0);
}

#[test]
fn a_silent_server_is_given_up_after_the_time_that_was_stated() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let options =
        ServerOptions { url, fim: None, model: None, timeout: Duration::from_millis(200), allow_remote: false };
    let error = Server::connect(&options, &Cancel::new()).expect_err("nobody answers").to_string();
    assert!(error.contains("within 0.2 s") && error.contains("--system-timeout"), "{error}");
    drop(listener);
}

#[test]
fn a_cancelled_run_asks_nothing() {
    let stub = Stub::start(openai("qwen"));
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(
        Server::connect(&stub.options(), &cancel).expect_err("it is cancelled"),
        ServerError::Cancelled(Cancelled)
    );
    assert_eq!(stub.requests.try_iter().count(), 0);
}

#[test]
fn windows_are_whole_lines() {
    let task = Task { file: "a.rs", kind: HoleKind::NextLine, prefix: "aaaa\nbbbb\ncc ", suffix: " dd\nee\nff\n" };
    assert_eq!(window(&task, 7, 6), ("cc ", " dd\n"));
    assert_eq!(window(&task, 7, 7), ("cc ", " dd\nee\n"));
    assert_eq!(window(&task, 9, 7).0, "bbbb\ncc ");
    assert_eq!(window(&task, 100, 100), (task.prefix, task.suffix));
    let task = Task { file: "a.rs", kind: HoleKind::NextLine, prefix: "größe", suffix: "größe" };
    assert_eq!(window(&task, 3, 3), ("ße", "gr")); // no line end: cut at a letter
}
