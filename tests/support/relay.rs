//! A relay in front of an HTTP server that refuses, cuts off or swallows what it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It goes through.
    Through,
    /// The server does not hear of it: this answer comes instead.
    Instead(&'static str),
    /// The server does not hear of it, and the connection is cut.
    Lost,
    /// The server does it, and this answer comes in place of its own.
    Denied(&'static str),
    /// The server does it, and its answer is cut after so many bytes of its body.
    Cut(usize),
    /// The server does it, and no answer comes.
    Swallowed,
    /// The server does not hear of it, and nothing is said.
    Silent,
}

/// The answer of a server that has too much to do.
pub(crate) const BUSY: Fate = Fate::Instead(
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: 85\r\nConnection: \
     close\r\n\r\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
);

type Judge = Box<dyn FnMut(&str) -> Fate + Send>;

/// Listens on a free port of this machine.
pub(crate) struct Relay {
    pub(crate) port: u16,
    judge: Arc<Mutex<Judge>>,
    lines: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) fn before(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let judge: Arc<Mutex<Judge>> = Arc::new(Mutex::new(Box::new(|_| Fate::Through)));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let open: Arc<AtomicUsize> = Arc::default();
        let (judging, list, count) = (judge.clone(), lines.clone(), open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (judge, lines, open) = (judging.clone(), list.clone(), count.clone());
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    pass(&client, port, &judge, &lines);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Relay { port: own, judge, lines, open }
    }

    /// From now on each request's fate is asked for, by its head.
    pub(crate) fn judge(&self, judge: impl FnMut(&str) -> Fate + Send + 'static) {
        *self.judge.lock().unwrap() = Box::new(judge);
        self.lines.lock().unwrap().clear();
    }

    /// Whether nothing is under way: what the server does for one who is gone is done.
    pub(crate) fn is_idle(&self) -> bool {
        // Connections are taken in turn: when an empty one has been, so has all that came before it.
        let mut empty = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        empty.shutdown(Shutdown::Write).unwrap();
        let _ = empty.read(&mut [0]);
        self.open.load(Ordering::SeqCst) == 0
    }

    /// The first lines of what was asked since then.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// One request; the connection ends with it.
fn pass(client: &TcpStream, port: u16, judge: &Mutex<Judge>, lines: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    lines.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
    let fate = (judge.lock().unwrap())(&head);
    let mut client = client;
    match fate {
        Fate::Instead(answer) => client.write_all(answer.as_bytes()).ok()?,
        Fate::Silent => std::thread::sleep(Duration::from_secs(30)),
        Fate::Lost => {}
        Fate::Through | Fate::Denied(_) | Fate::Cut(_) | Fate::Swallowed => {
            let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
            // No header that is signed.
            let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            server.write_all(head.as_bytes()).ok()?;
            server.write_all(&body).ok()?;
            let mut answer = Vec::new();
            server.read_to_end(&mut answer).ok()?;
            if let Fate::Denied(instead) = fate {
                answer = instead.into();
            }
            let head = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            let most = match fate {
                Fate::Cut(most) => answer.len().min(head + most),
                Fate::Swallowed => 0,
                _ => answer.len(),
            };
            client.write_all(&answer[..most]).ok()?;
        }
    }
    client.shutdown(Shutdown::Both).ok()
}
