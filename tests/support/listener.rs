//! A small HTTP server that keeps what it is asked, and answers as it is told: also badly, or not at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What it does with a request.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// This status and text.
    Says(u16, &'static str),
    /// A redirect to another address.
    Moved(&'static str),
    /// It takes the request and says nothing.
    Hangs,
    /// It takes the request and closes the connection.
    Closes,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) head: Vec<String>,
    pub(crate) body: String,
}

/// Listens on a free port of this machine, as long as the test process lives.
pub(crate) struct Listener {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Listener {
    /// It gives these answers in turn, the last one for ever.
    pub(crate) fn new(answers: &[Answer]) -> Listener {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (kept, answers) = (asked.clone(), answers.to_vec());
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in socket.incoming().flatten() {
                let Some(request) = read(&stream) else { continue };
                let turn = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(request);
                    kept.len() - 1
                };
                match answers.get(turn).or(answers.last()) {
                    Some(Answer::Says(status, text)) => say(&stream, *status, "", text),
                    Some(Answer::Moved(to)) => say(&stream, 301, &format!("Location: {to}\r\n"), ""),
                    Some(Answer::Hangs) => open.push(stream),
                    Some(Answer::Closes) | None => drop(stream),
                }
            }
        });
        Listener { port, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines.iter().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    (!lines.is_empty()).then(|| Asked {
        line: lines.remove(0),
        head: lines.iter().map(|l| l.to_lowercase()).collect(),
        body: String::from_utf8(body).unwrap(),
    })
}

fn say(mut stream: &TcpStream, status: u16, head: &str, text: &str) {
    let length = text.len();
    let _ =
        write!(stream, "HTTP/1.1 {status} Status\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{text}");
}
