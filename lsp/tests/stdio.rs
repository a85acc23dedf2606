//! The real binary over its real stdin and stdout.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Server {
    child: Child,
    _home: tempfile::TempDir,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let child = Command::new(env!("CARGO_BIN_EXE_nanochat-lsp"))
            .args(args)
            .env("NANOCHAT_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Self { child, _home: home }
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        write!(stdin, "Content-Length: {}\r\n\r\n{text}", text.len()).expect("the server listens");
        stdin.flush().expect("the server listens");
    }

    /// Reads until the answer to `id`; everything on stdout must be protocol.
    fn response(&mut self, id: u32) -> Value {
        let mut stdout = BufReader::with_capacity(1, self.child.stdout.as_mut().expect("a pipe"));
        loop {
            let mut length = None;
            loop {
                let mut line = String::new();
                stdout.read_line(&mut line).expect("the server writes");
                match line.trim_end() {
                    "" => break,
                    line => length = length.or(line.strip_prefix("Content-Length: ").map(str::to_owned)),
                }
            }
            let length = length.expect("each message has a length").parse().expect("a number");
            let mut body = vec![0; length];
            stdout.read_exact(&mut body).expect("the whole message");
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            if message["id"] == json!(id) {
                return message;
            }
        }
    }

    fn initialize(&mut self, process_id: Option<u32>) {
        let params = json!({"processId": process_id, "rootUri": null, "capabilities": {}});
        self.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}));
        let response = self.response(1);
        assert_eq!(response["result"]["capabilities"]["inlineCompletionProvider"], json!(true), "{response}");
        self.send(&json!({"jsonrpc": "2.0", "method": "initialized", "params": {}}));
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server is still running");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn exit_after_shutdown_is_a_success_though_stdin_stays_open() {
    let mut server = Server::start(&["--stdio"]);
    server.initialize(None);
    server.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "shutdown", "params": null}));
    assert_eq!(server.response(2)["result"], Value::Null);
    server.send(&json!({"jsonrpc": "2.0", "method": "exit"}));
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn exit_without_shutdown_is_a_failure() {
    let mut server = Server::start(&[]);
    server.initialize(None);
    server.send(&json!({"jsonrpc": "2.0", "method": "exit"}));
    assert_eq!(server.end().code(), Some(1));
}

#[test]
fn the_end_of_stdin_ends_the_server() {
    let mut server = Server::start(&[]);
    server.initialize(None);
    server.child.stdin = None;
    assert_eq!(server.end().code(), Some(1));
}

#[cfg(unix)]
#[test]
fn it_ends_with_the_editor_though_stdin_stays_open() {
    let mut editor = Command::new("sleep").arg("60").spawn().expect("a process to watch");
    let mut server = Server::start(&["--clientProcessId", &editor.id().to_string()]);
    server.initialize(Some(editor.id()));
    editor.kill().expect("it is our child");
    editor.wait().expect("it is our child");
    assert_eq!(server.end().code(), Some(1));
}
