//! The processes of this machine that listen on a port (Linux): who they are and since when, so that a server that was
//! started anew is told from one that never stopped. Nothing is known of another machine's, or of another user's.

use std::collections::BTreeSet;
use std::fs;
use std::net::ToSocketAddrs;

use crate::domain::server::ServerAddress;

/// A process: its number, its start in the kernel's ticks since the machine's (proc(5), `starttime`), and its name.
pub(super) type Process = (u32, u64, String);

/// Processes that are looked at.
const MOST: usize = 100_000;

/// Those that listen where the server is; `None`: nobody can say from here.
pub(super) fn listeners(server: &ServerAddress) -> Option<BTreeSet<Process>> {
    let port = server.port.unwrap_or(if server.secure { 443 } else { 80 });
    let near = (server.host.as_str(), port).to_socket_addrs().ok()?.any(|a| a.ip().is_loopback());
    if !near {
        return None;
    }
    let mut sockets = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = fs::read_to_string(table) else { continue };
        sockets.extend(text.lines().skip(1).filter_map(|line| listening(line, port)));
    }
    let found: BTreeSet<Process> = holders(&sockets);
    // A listener of another user has no holder that is seen.
    (!found.is_empty() && !sockets.is_empty()).then_some(found)
}

/// The inode of a socket that listens on the port (proc(5), /proc/net/tcp; state 0A is LISTEN).
fn listening(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let (_, hex) = local.rsplit_once(':')?;
    (u16::from_str_radix(hex, 16) == Ok(port) && state == "0A").then(|| format!("socket:[{inode}]"))
}

fn holders(sockets: &BTreeSet<String>) -> BTreeSet<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).take(MOST);
    let holds = |pid: &u32| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten()
            .filter_map(|e| fs::read_link(e.path()).ok())
            .any(|to| to.to_str().is_some_and(|to| sockets.contains(to)))
    };
    pids.filter(holds).filter_map(|pid| Some((pid, started(pid)?, name(pid)))).collect()
}

/// The 22nd field; the second is the name, in parentheses, and may hold anything.
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// What it is called: whether MLflow was started anew, or a proxy before it.
fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    crate::domain::harmless::short(name.trim(), 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_this_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = |port| ServerAddress::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let found = listeners(&server(port)).unwrap();
        assert!(
            found.iter().any(|(pid, start, name)| *pid == std::process::id() && *start > 0 && !name.is_empty()),
            "{found:?}"
        );
        drop(socket);
        assert_eq!(listeners(&server(port)), None);
        assert_eq!(listeners(&ServerAddress::parse("http://192.0.2.1:5000").unwrap()), None);
    }
}
