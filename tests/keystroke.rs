//! Keystroke → ghost text, over stdio, with the binary that an editor starts.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{WORDS, Workspace, trained};

/// Longest time that anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The protocol's error code of a cancelled request.
const REQUEST_CANCELLED: i64 = -32800;

/// One editor and its server.
struct Editor {
    server: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<Value>,
    last_id: i64,
}

impl Editor {
    fn start(workspace: &Workspace) -> Self {
        let mut server = workspace
            .command()
            .arg("lsp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let stdin = server.stdin.take();
        let mut stdout = BufReader::new(server.stdout.take().expect("stdout is piped"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            while let Some(message) = read_message(&mut stdout) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Self { server, stdin, messages, last_id: 0 }
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string();
        let stdin = self.stdin.as_mut().expect("stdin is open");
        write!(stdin, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("the server reads");
        stdin.flush().expect("the server reads");
    }

    fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Sends a request and returns its id.
    fn request(&mut self, method: &str, params: Value) -> i64 {
        self.last_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params }));
        self.last_id
    }

    /// The response to `id`. What the server asks meanwhile is answered with null.
    #[track_caller]
    fn response(&mut self, id: i64) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = match self.messages.recv_timeout(left) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("no response to {id} in {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the server closed stdout before it answered {id}"),
            };
            if message.get("method").is_some() {
                if let Some(asked) = message.get("id") {
                    let answer = json!({ "jsonrpc": "2.0", "id": asked, "result": null });
                    self.send(&answer);
                }
            } else if message["id"] == id {
                return message;
            }
        }
    }

    fn initialize(&mut self, root: &Path) -> Value {
        let params = json!({
            "processId": std::process::id(),
            "rootUri": uri(root),
            "workspaceFolders": [{ "uri": uri(root), "name": "sample" }],
            "capabilities": {
                "general": { "positionEncodings": ["utf-8", "utf-16"] },
                "textDocument": { "inlineCompletion": { "dynamicRegistration": false } }
            },
            "initializationOptions": { "threads": 1 }
        });
        let id = self.request("initialize", params);
        let answer = self.response(id);
        self.notify("initialized", json!({}));
        answer
    }

    fn ask(&mut self, file: &Path, line: usize, character: usize) -> i64 {
        self.request(
            "textDocument/inlineCompletion",
            json!({
                "textDocument": { "uri": uri(file) },
                "position": { "line": line, "character": character },
                "context": { "triggerKind": 2 }
            }),
        )
    }

    /// The first ghost text. The workspace is loaded in the background; until then nothing is suggested.
    #[track_caller]
    fn ghost_text(&mut self, file: &Path, line: usize, character: usize) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let id = self.ask(file, line, character);
            let answer = self.response(id);
            let items = if answer["result"].is_array() { &answer["result"] } else { &answer["result"]["items"] };
            if let Some(item) = items.get(0) {
                return item.clone();
            }
            assert!(items.is_array(), "an empty answer is a list, never null: {answer}");
            assert!(Instant::now() < deadline, "no ghost text in {PATIENCE:?}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[track_caller]
    fn shut_down(&mut self) {
        let id = self.request("shutdown", Value::Null);
        let answer = self.response(id);
        assert!(answer.get("error").is_none(), "{answer}");
        self.notify("exit", Value::Null);
    }

    /// The exit code, without closing stdin.
    #[track_caller]
    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.server.try_wait().expect("the server is our child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server is still there after {PATIENCE:?}");
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        // It has mostly ended by itself; a failing test must not leave it behind.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn read_message(input: &mut impl BufRead) -> Option<Value> {
    let mut n_bytes = None;
    loop {
        let mut header = String::new();
        if input.read_line(&mut header).ok()? == 0 {
            return None;
        }
        match header.trim_end() {
            "" => break,
            header => {
                if let Some(length) = header.strip_prefix("Content-Length: ") {
                    n_bytes = Some(length.parse().expect("a length is a number"));
                }
            }
        }
    }
    let mut body = vec![0; n_bytes.expect("a message states its length")];
    input.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).expect("a message is JSON"))
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// The text up to the cursor of a method that is about to use the one field that all parts have.
fn typed() -> (String, usize, usize) {
    let text = format!("impl super::part0::{} {{\n    pub fn first(&self) -> Option<u32> {{\n        self.", WORDS[1]);
    (text, 2, 13)
}

#[test]
fn a_keystroke_becomes_ghost_text() {
    let workspace = trained();
    let file = workspace.root.join("src/ghost.rs"); // only the editor has it
    let mut editor = Editor::start(workspace);
    let capabilities = editor.initialize(&workspace.root);
    assert!(!capabilities["result"]["capabilities"]["inlineCompletionProvider"].is_null(), "{capabilities}");
    let (text, line, character) = typed();
    let document = json!({ "uri": uri(&file), "languageId": "rust", "version": 1, "text": text });
    editor.notify("textDocument/didOpen", json!({ "textDocument": document }));
    // One keystroke: the field's first letter.
    let here = json!({ "line": line, "character": character });
    editor.notify(
        "textDocument/didChange",
        json!({
            "textDocument": { "uri": uri(&file), "version": 2 },
            "contentChanges": [{ "range": { "start": here, "end": here }, "text": &WORDS[4][..1] }]
        }),
    );
    let item = editor.ghost_text(&file, line, character + 1);
    assert!(item["insertText"].as_str().is_some_and(|text| text.contains(&WORDS[4][1..])), "{item}");
    assert_eq!(item["range"]["end"], json!({ "line": line, "character": character + 1 }), "{item}");
    editor.shut_down();
    assert_eq!(editor.exit_code(), Some(0));
}

#[test]
fn a_cancelled_request_is_answered_as_cancelled_and_the_next_one_with_ghost_text() {
    let workspace = trained();
    let file = workspace.root.join("src/ghost.rs");
    let mut editor = Editor::start(workspace);
    editor.initialize(&workspace.root);
    let (text, line, character) = typed();
    let document = json!({ "uri": uri(&file), "languageId": "rust", "version": 1, "text": text });
    editor.notify("textDocument/didOpen", json!({ "textDocument": document }));
    editor.ghost_text(&file, line, character); // from now on there is a completion to cancel
    // An answer may overtake its cancellation, so it is tried again until one does not, with another text each time,
    // since completions are cached.
    let deadline = Instant::now() + PATIENCE;
    for version in 2.. {
        let changes = json!([{ "text": format!("//! {version}\n{text}") }]);
        let document = json!({ "uri": uri(&file), "version": version });
        editor.notify("textDocument/didChange", json!({ "textDocument": document, "contentChanges": changes }));
        let id = editor.ask(&file, line + 1, character);
        editor.notify("$/cancelRequest", json!({ "id": id }));
        let answer = editor.response(id);
        match answer["error"]["code"].as_i64() {
            Some(code) => {
                assert_eq!(code, REQUEST_CANCELLED, "{answer}");
                break;
            }
            None => assert!(!answer["result"].is_null(), "{answer}"),
        }
        assert!(Instant::now() < deadline, "no request could be cancelled in {PATIENCE:?}");
    }
    editor.ghost_text(&file, line + 1, character);
}

#[test]
fn exit_without_shutdown_is_a_failure() {
    let workspace = trained();
    let mut editor = Editor::start(workspace);
    editor.initialize(&workspace.root);
    editor.notify("exit", Value::Null);
    assert_eq!(editor.exit_code(), Some(1));
}

#[test]
fn the_server_ends_when_its_input_does() {
    let workspace = trained();
    let mut editor = Editor::start(workspace);
    editor.initialize(&workspace.root);
    drop(editor.stdin.take());
    assert_eq!(editor.exit_code(), Some(1));
}
