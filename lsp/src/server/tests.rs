//! Whole sessions through pipes, with an engine that the test provides.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::{Cancel, Completion, Limits, Memory, Stop};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::task::JoinHandle;

use crate::context::Query;
use crate::loader::{EngineSource, Setup, SilenceReason};
use crate::request::execute_command::STATUS;
use crate::request::inline_completion::LOADING_TIMEOUT;
use crate::worker::Engine;

/// What a test's engine completes a query with.
type Reply = Arc<dyn Fn(&Query, &Cancel) -> Option<String> + Send + Sync>;

struct TestEngine(Reply);

impl Engine for TestEngine {
    fn complete(&mut self, query: &Query, _: &Limits, cancel: &Cancel) -> Result<Option<Completion>, CompleteError> {
        let text = (self.0)(query, cancel);
        // A completion that starts with a question mark has a low confidence.
        let confidence = if text.as_ref().is_some_and(|text| text.starts_with('?')) { 0.05 } else { 1.0 };
        cancel.check()?;
        let completion = |text| Completion {
            text,
            stop: Stop::Lines,
            confidence,
            sources: vec![],
            n_reused: 0,
            n_prompt: 0,
            n_generated: 0,
        };
        Ok(text.map(completion))
    }

    fn set_memory(&mut self, _: Arc<Memory>) {}
}

/// Loads engines as soon as the test allows it.
struct TestSource {
    reply: Result<Reply, SilenceReason>,
    permit: Option<mpsc::Receiver<()>>,
    /// The one folder that is in a workspace; without it, every folder is.
    workspace_folder: Option<&'static str>,
}

impl TestSource {
    fn new(reply: Result<Reply, SilenceReason>) -> Self {
        Self { reply, permit: None, workspace_folder: None }
    }
}

impl EngineSource for TestSource {
    fn load(&mut self, setup: &Setup) -> Result<Box<dyn Engine>, SilenceReason> {
        if let Some(permit) = self.permit.take() {
            permit.recv().expect("the test lets it load");
        }
        if self.workspace_folder.is_some_and(|folder| !setup.folders.contains(&PathBuf::from(folder))) {
            return Err(SilenceReason::NoWorkspace("no workspace".to_owned()));
        }
        let reply = self.reply.clone()?;
        Ok(Box::new(TestEngine(reply)))
    }

    fn has_changed(&mut self) -> bool {
        false
    }

    fn tuning(&self) -> Option<crate::tuner::Tuning> {
        None
    }

    fn memory(&mut self) -> Option<Arc<Memory>> {
        None
    }
}

/// An editor at the other end of the pipes.
struct Editor {
    to_server: Option<DuplexStream>,
    from_server: BufReader<DuplexStream>,
    server: JoinHandle<bool>,
    /// Messages read while waiting for others.
    unread: Vec<Value>,
}

impl Editor {
    fn start(source: TestSource) -> Self {
        let (to_server, input) = tokio::io::duplex(1 << 20);
        let (output, from_server) = tokio::io::duplex(1 << 20);
        let server = tokio::spawn(crate::serve::run(input, output, source, None));
        let from_server = BufReader::new(from_server);
        Self { to_server: Some(to_server), from_server, server, unread: vec![] }
    }

    /// An editor that has one document open, and an engine that is ready.
    async fn ready(text: &str, reply: impl Fn(&Query, &Cancel) -> Option<String> + Send + Sync + 'static) -> Self {
        let mut editor = Self::start(TestSource::new(Ok(Arc::new(reply))));
        editor.initialize(&["utf-8"]).await;
        editor.open(text).await;
        editor.until_ready().await;
        editor
    }

    async fn send(&mut self, message: Value) {
        let text = message.to_string();
        let message = format!("Content-Length: {}\r\n\r\n{text}", text.len());
        let pipe = self.to_server.as_mut().expect("the test has not closed it");
        pipe.write_all(message.as_bytes()).await.expect("the server listens");
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.send(json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    async fn request(&mut self, id: u32, method: &str, params: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    }

    /// The first message that fits, of those already read or still to come.
    async fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(idx) = self.unread.iter().position(&fits) {
            return self.unread.remove(idx);
        }
        loop {
            let message = tokio::time::timeout(Duration::from_secs(20), self.read()).await.expect("a message in time");
            if fits(&message) {
                return message;
            }
            self.unread.push(message);
        }
    }

    async fn read(&mut self) -> Value {
        let mut header = String::new();
        while !header.ends_with("\r\n\r\n") {
            let n_read = self.from_server.read_line(&mut header).await.expect("the server writes");
            assert!(n_read > 0, "the server closed its output");
        }
        let length = header.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        self.from_server.read_exact(&mut body).await.expect("the whole message");
        serde_json::from_slice(&body).expect("JSON")
    }

    async fn response(&mut self, id: u32) -> Value {
        self.find(|message| message["id"] == json!(id) && message.get("method").is_none()).await
    }

    async fn initialize(&mut self, encodings: &[&str]) -> Value {
        let capabilities = json!({"general": {"positionEncodings": encodings}});
        let params = json!({"processId": null, "rootUri": "file:///nowhere", "capabilities": capabilities});
        self.initialize_with(params).await
    }

    async fn initialize_with(&mut self, params: Value) -> Value {
        self.request(0, "initialize", params).await;
        let response = self.response(0).await;
        self.notify("initialized", json!({})).await;
        response
    }

    async fn open(&mut self, text: &str) {
        let document = json!({"uri": "file:///a.rs", "languageId": "rust", "version": 1, "text": text});
        self.notify("textDocument/didOpen", json!({"textDocument": document})).await;
    }

    async fn change(&mut self, version: i32, changes: Value) {
        let document = json!({"uri": "file:///a.rs", "version": version});
        self.notify("textDocument/didChange", json!({"textDocument": document, "contentChanges": changes})).await;
    }

    async fn insert(&mut self, version: i32, line: u32, character: u32, text: &str) {
        let at = json!({"line": line, "character": character});
        self.change(version, json!([{"range": {"start": at, "end": at}, "text": text}])).await;
    }

    async fn request_completion(&mut self, id: u32, line: u32, character: u32) {
        self.request(id, "textDocument/inlineCompletion", inline(line, character, json!({"triggerKind": 2}))).await;
    }

    /// The items suggested at a position.
    async fn suggest(&mut self, id: u32, line: u32, character: u32) -> Value {
        self.request_completion(id, line, character).await;
        self.response(id).await["result"].take()
    }

    /// Whether a message that pops up has been read so far.
    fn was_shown_a_message(&self) -> bool {
        self.unread.iter().any(|message| message["method"] == "window/showMessage")
    }

    async fn until_ready(&mut self) {
        self.find(|message| message["params"]["message"] == json!("ready")).await;
    }

    async fn status(&mut self, id: u32) -> Value {
        self.request(id, "workspace/executeCommand", json!({"command": STATUS})).await;
        self.response(id).await["result"].take()
    }
}

fn inline(line: u32, character: u32, context: Value) -> Value {
    json!({
        "textDocument": {"uri": "file:///a.rs"}, "position": {"line": line, "character": character},
        "context": context,
    })
}

/// The text of the only item.
fn text(items: &Value) -> &str {
    assert_eq!(items.as_array().map(Vec::len), Some(1), "{items}");
    items[0]["insertText"].as_str().expect("a plain text")
}

#[tokio::test]
async fn the_handshake_announces_the_capabilities() {
    let reply: Reply = Arc::new(|_, _| None);
    let mut editor = Editor::start(TestSource::new(Ok(reply)));
    let mut response = editor.initialize(&["utf-16", "utf-8"]).await;
    response["result"]["serverInfo"]["version"] = json!("[version]");
    insta::assert_json_snapshot!(response["result"]);
}

#[tokio::test]
async fn a_suggestion_ends_at_the_cursor_and_reports_its_acceptance() {
    let mut editor = Editor::ready("fn main() {\n    let x = \n}\n", |query, _| {
        assert_eq!((query.text.prefix.as_str(), query.text.suffix.as_str()), ("fn main() {\n    let x = ", "\n}\n"));
        Some("1;\n    ".to_owned())
    })
    .await;
    let items = editor.suggest(1, 1, 12).await;
    insta::assert_json_snapshot!(items);
    let command = &items[0]["command"];
    let accepted = json!({"command": command["command"], "arguments": command["arguments"]});
    editor.request(2, "workspace/executeCommand", accepted).await;
    assert_eq!(editor.response(2).await["result"], Value::Null);
    let status = editor.status(3).await;
    assert_eq!(status["state"], "ready");
    assert_eq!((&status["counts"]["accepted"], &status["counts"]["acceptedCharacters"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn a_request_sees_every_edit_before_it() {
    let mut editor = Editor::ready("", |query, _| Some(format!("[{}]", query.text.prefix))).await;
    for digit in 1..=8u32 {
        editor.insert(digit as i32 + 1, 0, digit - 1, &digit.to_string()).await;
    }
    let items = editor.suggest(1, 0, 8).await;
    assert_eq!(text(&items), "[12345678]");
}

#[tokio::test]
async fn edits_are_in_the_agreed_encoding() {
    let reply: Reply = Arc::new(|query, _| Some(format!("[{}|{}]", query.text.prefix, query.text.suffix)));
    let mut editor = Editor::start(TestSource::new(Ok(reply)));
    // Nothing offered: utf-16.
    let response = editor.initialize(&[]).await;
    assert_eq!(response["result"]["capabilities"]["positionEncoding"], "utf-16");
    editor.open("é𝄞x\r\ny").await;
    editor.until_ready().await;
    let range = json!({"start": {"line": 0, "character": 1}, "end": {"line": 0, "character": 3}});
    editor.change(2, json!([{"range": range, "text": "ü"}])).await;
    let items = editor.suggest(1, 0, 2).await;
    assert_eq!(text(&items), "[éü|x\ny]");
    assert_eq!(items[0]["range"]["end"], json!({"line": 0, "character": 2}));
}

#[tokio::test]
async fn a_newer_request_replaces_the_older_which_is_answered_with_nothing() {
    let (started, starts) = mpsc::channel();
    let mut editor = Editor::ready("ab", move |query, cancel| {
        started.send(()).expect("the test waits");
        // One token at a time, until it is cancelled.
        while query.text.prefix == "a" && !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some("new".to_owned())
    })
    .await;
    editor.request_completion(1, 0, 1).await;
    let _starts = tokio::task::spawn_blocking(move || starts.recv().map(|()| starts))
        .await
        .expect("no panic")
        .expect("it started");
    editor.request_completion(2, 0, 2).await;
    assert_eq!(editor.response(1).await["result"], json!([]));
    assert_eq!(text(&editor.response(2).await["result"]), "new");
}

#[tokio::test]
async fn an_edit_discards_the_completion_under_way() {
    let (started, starts) = mpsc::channel();
    let mut editor = Editor::ready("a", move |_, cancel| {
        started.send(()).expect("the test waits");
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some("stale".to_owned())
    })
    .await;
    editor.request_completion(1, 0, 1).await;
    let _starts = tokio::task::spawn_blocking(move || starts.recv().map(|()| starts))
        .await
        .expect("no panic")
        .expect("it started");
    editor.insert(2, 0, 1, "b").await;
    assert_eq!(editor.response(1).await["result"], json!([]));
}

#[tokio::test]
async fn cancelling_stops_the_engine_within_one_token() {
    let (events, log) = mpsc::channel();
    let mut editor = Editor::ready("a", move |_, cancel| {
        events.send("started").expect("the test listens");
        // One token per turn; the flag is checked once per token.
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(2));
        }
        events.send("stopped").expect("the test listens");
        None
    })
    .await;
    editor.request_completion(7, 0, 1).await;
    let log = tokio::task::spawn_blocking(move || {
        assert_eq!(log.recv(), Ok("started"));
        log
    });
    let log = log.await.expect("the engine started");
    editor.notify("$/cancelRequest", json!({"id": 7})).await;
    assert_eq!(editor.response(7).await["error"]["code"], json!(-32800));
    let stopped = tokio::task::spawn_blocking(move || log.recv_timeout(Duration::from_secs(10)));
    assert_eq!(stopped.await.expect("no panic"), Ok("stopped"));
}

#[tokio::test]
async fn typing_what_is_shown_does_not_need_the_engine() {
    let (seen, prefixes) = mpsc::channel();
    let mut editor = Editor::ready("x.", move |query, _| {
        seen.send(query.text.prefix.clone()).expect("the test listens");
        Some("unwrap();".to_owned())
    })
    .await;
    assert_eq!(text(&editor.suggest(1, 0, 2).await), "unwrap();");
    editor.insert(2, 0, 2, "unw").await;
    let items = editor.suggest(2, 0, 5).await;
    assert_eq!(text(&items), "rap();");
    assert_eq!(items[0]["range"]["start"], json!({"line": 0, "character": 5}));
    editor.insert(3, 0, 5, "x").await;
    assert_eq!(text(&editor.suggest(3, 0, 6).await), "unwrap();");
    assert_eq!(prefixes.try_iter().collect::<Vec<_>>(), ["x.", "x.unwx"]);
    assert_eq!(editor.status(4).await["counts"]["typedThrough"], json!(1));
}

#[tokio::test]
async fn the_text_of_a_document_is_copied_once_a_request() {
    let (seen, texts) = mpsc::channel();
    let mut editor = Editor::ready("x.", move |query, _| {
        seen.send(Arc::downgrade(&query.text)).expect("the test listens");
        Some("len()".to_owned())
    })
    .await;
    assert_eq!(text(&editor.suggest(1, 0, 2).await), "len()");
    let mut params = inline(0, 0, json!({"triggerKind": 2}));
    params["textDocument"]["uri"] = json!("file:///b.rs");
    let document = json!({"uri": "file:///b.rs", "languageId": "rust", "version": 1, "text": ""});
    editor.notify("textDocument/didOpen", json!({"textDocument": document})).await;
    editor.request(2, "textDocument/inlineCompletion", params).await;
    assert_eq!(text(&editor.response(2).await["result"]), "len()");
    // The worker dropped the first query before it took up the second: only the shown suggestion can hold its text.
    let first = texts.recv().expect("two requests").upgrade();
    assert_eq!(first.expect("the shown suggestion shares the engine's text").prefix, "x.");
}

#[tokio::test]
async fn a_selected_menu_item_is_continued_in_its_range() {
    let mut editor = Editor::ready("x.unw", |query, _| {
        assert_eq!(query.text.prefix, "x.unwrap");
        Some("();".to_owned())
    })
    .await;
    let range = json!({"start": {"line": 0, "character": 2}, "end": {"line": 0, "character": 5}});
    for (id, kind) in [(1, 1), (2, 0)] {
        let context = json!({"triggerKind": kind, "selectedCompletionInfo": {"range": range, "text": "unwrap"}});
        editor.request(id, "textDocument/inlineCompletion", inline(0, 5, context)).await;
        let items = editor.response(id).await["result"].take();
        assert_eq!(text(&items), "unwrap();");
        assert_eq!(items[0]["range"], range);
    }
}

#[tokio::test]
async fn a_low_confidence_suggestion_is_shown_only_when_invoked() {
    let mut editor = Editor::ready("a\n", |_, _| Some("?;".to_owned())).await;
    assert_eq!(editor.suggest(1, 0, 1).await, json!([]));
    assert_eq!(editor.status(2).await["counts"]["withheld"], 1);
    editor.request(3, "textDocument/inlineCompletion", inline(0, 1, json!({"triggerKind": 1}))).await;
    assert_eq!(text(&editor.response(3).await["result"]), "?;");
    editor.change(2, json!([{"text": "b\n"}])).await;
    editor.notify("workspace/didChangeConfiguration", json!({"settings": {"nanochat": {"minConfidence": 5}}})).await;
    assert_eq!(text(&editor.suggest(4, 0, 1).await), "?;");
}

#[tokio::test]
async fn a_request_made_while_loading_waits_for_the_engine() {
    let (let_load, permit) = mpsc::channel();
    let reply: Reply = Arc::new(|query, _| Some(format!("[{}]", query.text.prefix)));
    let mut editor = Editor::start(TestSource { permit: Some(permit), ..TestSource::new(Ok(reply)) });
    editor.initialize(&["utf-8"]).await;
    editor.open("a").await;
    editor.request_completion(1, 0, 1).await;
    assert_eq!(editor.status(2).await["state"], "loading");
    editor.insert(2, 0, 1, "b").await;
    assert_eq!(editor.response(1).await["result"], json!([]), "it was about an older text");
    editor.request_completion(3, 0, 1).await;
    editor.request_completion(4, 0, 2).await;
    assert_eq!(editor.response(3).await["result"], json!([]), "the newer request replaced it");
    let_load.send(()).expect("the loader waits");
    assert_eq!(text(&editor.response(4).await["result"]), "[ab]");
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_long_for_the_engine() {
    let (let_load, permit) = mpsc::channel();
    let reply: Reply = Arc::new(|_, _| None);
    let mut editor = Editor::start(TestSource { permit: Some(permit), ..TestSource::new(Ok(reply)) });
    editor.initialize(&["utf-8"]).await;
    editor.open("a").await;
    let started = tokio::time::Instant::now();
    assert_eq!(editor.suggest(1, 0, 1).await, json!([]));
    assert!((LOADING_TIMEOUT..LOADING_TIMEOUT * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
    let_load.send(()).expect("the loader waits");
}

#[tokio::test]
async fn a_waiting_request_is_answered_as_soon_as_loading_fails() {
    let (let_load, permit) = mpsc::channel();
    let silence = SilenceReason::Other("no checkpoint".to_owned());
    let mut editor = Editor::start(TestSource { permit: Some(permit), ..TestSource::new(Err(silence)) });
    editor.initialize(&["utf-8"]).await;
    editor.open("a").await;
    let started = std::time::Instant::now();
    editor.request_completion(1, 0, 1).await;
    editor.status(2).await;
    let_load.send(()).expect("the loader waits");
    assert_eq!(editor.response(1).await["result"], json!([]));
    assert!(started.elapsed() < LOADING_TIMEOUT);
}

#[tokio::test]
async fn a_single_file_loads_its_workspace_and_shows_no_message_before() {
    let reply: Reply = Arc::new(|_, _| Some("text".to_owned()));
    let mut editor = Editor::start(TestSource { workspace_folder: Some("/"), ..TestSource::new(Ok(reply)) });
    let options = json!({"trusted": true, "threads": 2});
    editor.initialize_with(json!({"processId": null, "capabilities": {}, "initializationOptions": options})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(editor.status(1).await["state"], "loading");
    editor.open("a").await;
    editor.until_ready().await;
    assert_eq!(text(&editor.suggest(2, 0, 1).await), "text");
    assert!(!editor.was_shown_a_message());
}

#[tokio::test]
async fn the_folder_of_a_file_opened_during_the_first_load_is_tried_too() {
    let (let_load, permit) = mpsc::channel();
    let reply: Reply = Arc::new(|_, _| Some("text".to_owned()));
    let source = TestSource { permit: Some(permit), workspace_folder: Some("/"), ..TestSource::new(Ok(reply)) };
    let mut editor = Editor::start(source);
    editor.initialize(&["utf-8"]).await;
    editor.open("a").await;
    editor.request_completion(1, 0, 1).await;
    editor.status(2).await;
    let_load.send(()).expect("the loader waits");
    assert_eq!(text(&editor.response(1).await["result"]), "text");
    assert!(!editor.was_shown_a_message());
}

#[tokio::test]
async fn the_reason_for_silence_is_shown_once() {
    let reason = "no checkpoint; run `cargo nanochat train`".to_owned();
    let mut editor = Editor::start(TestSource::new(Err(SilenceReason::Other(reason.clone()))));
    editor.initialize(&["utf-8"]).await;
    editor.open("a").await;
    let notice = editor.find(|message| message["method"] == "window/showMessage").await;
    assert_eq!(notice["params"]["message"], json!(format!("nanochat: {reason}")));
    editor.notify("textDocument/didSave", json!({"textDocument": {"uri": "file:///a.rs"}})).await;
    for id in 1..4 {
        assert_eq!(editor.suggest(id, 0, 1).await, json!([]));
    }
    assert_eq!(editor.status(9).await["reason"], json!(reason));
    assert!(!editor.was_shown_a_message());
}

#[tokio::test]
async fn an_engine_that_panics_is_restarted() {
    let mut editor = Editor::ready("a", |query, _| {
        assert!(query.text.prefix != "a", "planted");
        Some("fine".to_owned())
    })
    .await;
    assert_eq!(editor.suggest(1, 0, 1).await, json!([]));
    editor.find(|message| message["params"]["message"].as_str().is_some_and(|text| text.contains("engine"))).await;
    editor.insert(2, 0, 1, "b").await;
    let mut id = 2;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let items = editor.suggest(id, 0, 2).await;
        if items != json!([]) {
            assert_eq!(text(&items), "fine");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "it was not restarted");
        tokio::time::sleep(Duration::from_millis(5)).await;
        id += 1;
    }
}

#[tokio::test]
async fn an_engine_that_always_panics_stays_off() {
    let mut editor = Editor::ready("a", |_, _| panic!("planted")).await;
    let mut id = 1;
    while editor.status(id).await["state"] != "silent" {
        assert!(id < 100, "it is restarted for ever");
        assert_eq!(editor.suggest(id + 1, 0, 1).await, json!([]));
        id += 2;
    }
    editor.notify("textDocument/didSave", json!({"textDocument": {"uri": "file:///a.rs"}})).await;
    editor.notify("workspace/didChangeConfiguration", json!({"settings": {"threads": 2}})).await;
    assert_eq!(editor.suggest(200, 0, 1).await, json!([]));
    // Time for a load that must not happen.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let status = editor.status(201).await;
    assert!(status["reason"].as_str().is_some_and(|reason| reason.contains("is off")), "{status}");
}

#[tokio::test]
async fn suggestions_have_unix_line_ends_and_are_recognised_in_documents_with_others() {
    let mut editor = Editor::ready("{\r\n}\r\n", |query, _| {
        assert_eq!((query.text.prefix.as_str(), query.text.suffix.as_str()), ("{", "\n}\n"));
        Some("\n  a();\n  b();".to_owned())
    })
    .await;
    assert_eq!(text(&editor.suggest(1, 0, 1).await), "\n  a();\n  b();");
    editor.insert(2, 0, 1, "\r\n  a();\r\n").await;
    assert_eq!(text(&editor.suggest(2, 2, 0).await), "  b();");
}

#[tokio::test]
async fn malformed_positions_and_unknown_documents_are_harmless() {
    let mut editor = Editor::ready("aé\n", |query, _| Some(format!("[{}]", query.text.prefix))).await;
    let items = editor.suggest(1, 4_000_000_000, 4_000_000_000).await;
    assert_eq!(text(&items), "[aé\n]");
    assert_eq!(items[0]["range"]["end"], json!({"line": 1, "character": 0}));
    assert_eq!(text(&editor.suggest(2, 0, 2).await), "[a]");
    let mut params = inline(0, 0, json!({"triggerKind": 2}));
    params["textDocument"]["uri"] = json!("file:///closed.rs");
    editor.request(3, "textDocument/inlineCompletion", params.clone()).await;
    assert_eq!(editor.response(3).await["result"], json!([]));
    params["position"]["line"] = json!(-1);
    editor.request(4, "textDocument/inlineCompletion", params).await;
    assert_eq!(editor.response(4).await["error"]["code"], json!(-32602));
    let reversed = json!({"start": {"line": 9, "character": 9}, "end": {"line": 0, "character": 1}});
    editor.change(2, json!([{"range": reversed, "text": "z"}])).await;
    assert_eq!(text(&editor.suggest(5, 0, 2).await), "[az]");
}

#[tokio::test]
async fn invalid_settings_are_reported_by_name() {
    let mut editor = Editor::ready("", |_, _| None).await;
    editor.notify("workspace/didChangeConfiguration", json!({"settings": {"nanochat": {"maxLine": 2}}})).await;
    let notice = editor.find(|message| message["params"]["type"] == json!(2)).await;
    assert!(notice["params"]["message"].as_str().expect("a text").contains("`maxLine`"), "{notice}");
}

#[tokio::test]
async fn it_exits_as_the_protocol_says() {
    // (sends shutdown, sends exit). Only `shutdown` makes the end a success. The input stays open where `exit` is sent.
    for (shutdown, exit) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut editor = Editor::ready("a", |_, _| None).await;
        if shutdown {
            editor.send(json!({"jsonrpc": "2.0", "id": 1, "method": "shutdown", "params": null})).await;
            assert_eq!(editor.response(1).await.get("result"), Some(&Value::Null));
        }
        if exit {
            editor.send(json!({"jsonrpc": "2.0", "method": "exit"})).await;
        } else {
            editor.to_server = None;
        }
        let ended = tokio::time::timeout(Duration::from_secs(5), editor.server).await.expect("it ends");
        assert_eq!(ended.expect("no panic"), shutdown, "shutdown {shutdown}, exit {exit}");
    }
}

#[tokio::test]
async fn the_end_of_the_input_cancels_work_under_way() {
    let (events, log) = mpsc::channel();
    let mut editor = Editor::ready("a", move |_, cancel| {
        events.send("started").expect("the test listens");
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        events.send("stopped").expect("the test listens");
        None
    })
    .await;
    editor.request_completion(1, 0, 1).await;
    let log = tokio::task::spawn_blocking(move || {
        assert_eq!(log.recv(), Ok("started"));
        log
    });
    let log = log.await.expect("the engine started");
    editor.to_server = None;
    let ended = tokio::time::timeout(Duration::from_secs(5), editor.server).await.expect("it ends");
    assert!(!ended.expect("no panic"));
    assert_eq!(log.recv_timeout(Duration::from_secs(5)), Ok("stopped"));
}
