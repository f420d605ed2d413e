//! A TCP proxy in front of a database's socket that can cut every connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Listens on a free port of this machine.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    open: Arc<Mutex<Vec<(TcpStream, UnixStream)>>>,
    passed: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) fn before(socket: PathBuf) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open: Arc<Mutex<Vec<(TcpStream, UnixStream)>>> = Arc::default();
        let passed = Arc::new(AtomicU64::new(0));
        let (list, count) = (open.clone(), passed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                list.lock().unwrap().push((client.try_clone().unwrap(), server.try_clone().unwrap()));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counter = count.clone();
                std::thread::spawn(move || pump(from, to, &counter));
                let counter = count.clone();
                std::thread::spawn(move || pump(server, client, &counter));
            }
        });
        Proxy { port, open, passed }
    }

    /// Bytes that went through so far, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Cuts every connection that is open.
    pub(crate) fn cut(&self) {
        for (client, server) in self.open.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: impl Read, mut to: impl Write, passed: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        passed.fetch_add(n as u64, Ordering::SeqCst);
    }
}
