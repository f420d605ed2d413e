//! A TCP proxy in front of a database's socket that can cut every connection, or keep all of them and say nothing more.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Listens on a free port of this machine.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    open: Arc<Mutex<Vec<(TcpStream, UnixStream)>>>,
    passed: Arc<AtomicU64>,
    stalled: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn before(socket: PathBuf) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open: Arc<Mutex<Vec<(TcpStream, UnixStream)>>> = Arc::default();
        let passed = Arc::new(AtomicU64::new(0));
        let stalled = Arc::new(AtomicBool::new(false));
        let (list, count, silent) = (open.clone(), passed.clone(), stalled.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                list.lock().unwrap().push((client.try_clone().unwrap(), server.try_clone().unwrap()));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (counter, flag) = (count.clone(), silent.clone());
                std::thread::spawn(move || pump(from, to, &counter, &flag));
                let (counter, flag) = (count.clone(), silent.clone());
                std::thread::spawn(move || pump(server, client, &counter, &flag));
            }
        });
        Proxy { port, open, passed, stalled }
    }

    /// Bytes that went through so far, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// From now on connections are taken and kept, and not a byte goes through any of them.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    /// New connections go through again; those that are stalled have lost bytes, so they are cut.
    pub(crate) fn flow(&self) {
        self.stalled.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Cuts every connection that is open.
    pub(crate) fn cut(&self) {
        for (client, server) in self.open.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: impl Read, mut to: impl Write, passed: &AtomicU64, stalled: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n != 0 && stalled.load(Ordering::SeqCst) {
            continue;
        }
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        passed.fetch_add(n as u64, Ordering::SeqCst);
    }
}
