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
    /// The server does it, and one bit in the middle of its answer's body is another one.
    Altered,
    /// The server does it twice, one after the other; the second answer comes.
    Doubled,
    /// The server does it, and no answer comes.
    Swallowed,
    /// The server does not hear of it, and nothing is said.
    Silent,
    /// The connection is cut, and the server hears of it when another request is [`Fate::Last`].
    Held,
    /// What is held goes to the server, is done there, and then this goes through.
    Last,
}

/// The answer of a server that has too much to do.
pub(crate) const BUSY: Fate = Fate::Instead(
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: 85\r\nConnection: \
     close\r\n\r\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
);

type Judge = Box<dyn FnMut(&str, &[u8]) -> Fate + Send>;
/// Heads and bodies.
type Held = Mutex<Vec<(String, Vec<u8>)>>;

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
        let judge: Arc<Mutex<Judge>> = Arc::new(Mutex::new(Box::new(|_, _| Fate::Through)));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let open: Arc<AtomicUsize> = Arc::default();
        let (judging, list, count) = (judge.clone(), lines.clone(), open.clone());
        let held: Arc<Held> = Arc::default();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (judge, lines, open, held) = (judging.clone(), list.clone(), count.clone(), held.clone());
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    pass(&client, port, &judge, &lines, &held);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Relay { port: own, judge, lines, open }
    }

    /// From now on each request's fate is asked for, by its head.
    pub(crate) fn judge(&self, mut judge: impl FnMut(&str) -> Fate + Send + 'static) {
        self.judge_whole(move |head, _| judge(head));
    }

    /// The same by its head and its body.
    pub(crate) fn judge_whole(&self, judge: impl FnMut(&str, &[u8]) -> Fate + Send + 'static) {
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

/// What the server says to a request.
fn asked(port: u16, head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    // No header that is signed.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(head.as_bytes()).ok()?;
    server.write_all(body).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    Some(answer)
}

/// One request; the connection ends with it.
fn pass(client: &TcpStream, port: u16, judge: &Mutex<Judge>, lines: &Mutex<Vec<String>>, held: &Held) -> Option<()> {
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
    let fate = (judge.lock().unwrap())(&head, &body);
    let mut client = client;
    match fate {
        Fate::Instead(answer) => client.write_all(answer.as_bytes()).ok()?,
        Fate::Silent => std::thread::sleep(Duration::from_secs(30)),
        Fate::Lost => {}
        Fate::Held => held.lock().unwrap().push((head, body)),
        Fate::Last
        | Fate::Through
        | Fate::Denied(_)
        | Fate::Cut(_)
        | Fate::Swallowed
        | Fate::Altered
        | Fate::Doubled => {
            let times = if matches!(fate, Fate::Doubled) { 2 } else { 1 };
            if matches!(fate, Fate::Last) {
                for (head, body) in held.lock().unwrap().drain(..) {
                    asked(port, &head, &body)?;
                }
            }
            let mut answer = Vec::new();
            for _ in 0..times {
                answer = asked(port, &head, &body)?;
            }
            if let Fate::Altered = fate {
                // What is sent in chunks has their sizes around it.
                let body = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
                let middle = body.midpoint(answer.len());
                *answer.get_mut(middle)? ^= 1;
            }
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
