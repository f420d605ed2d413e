//! A private, throw-away PostgreSQL cluster: temporary folder, Unix socket only, gone afterwards. For demonstrations,
//! rehearsals and tests; it never touches a cluster that is there already.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::connect::Postgres;
use crate::domain::address::{PgAddress, shown};
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::store::scratch::Scratch;

/// A running cluster; dropping it stops it and removes its folder.
pub struct PrivateCluster {
    folder: Scratch,
    server: Child,
}

/// The role that owns everything in a private cluster.
const ROLE: &str = "mlops";
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// The folder of PostgreSQL's programs: the one that was named, else on the search path, else where Debian and others
/// put them, the newest first. `None`: not installed.
pub fn programs(named: Option<&Path>, search_path: &[PathBuf]) -> Option<PathBuf> {
    let has = |folder: &Path| folder.join("initdb").exists() && folder.join("postgres").exists();
    if let Some(folder) = named {
        return has(folder).then(|| folder.to_owned());
    }
    let mut places: Vec<PathBuf> = search_path.to_vec();
    for root in ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt"] {
        let Ok(entries) = fs::read_dir(root) else { continue };
        let mut versions: Vec<PathBuf> = entries.flatten().map(|e| e.path().join("bin")).collect();
        versions.sort_by_key(|p| {
            let name = p.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
            std::cmp::Reverse(name.and_then(|n| n.trim_start_matches("postgresql@").parse::<u32>().ok()).unwrap_or(0))
        });
        places.extend(versions);
    }
    places.into_iter().find(|p| has(p))
}

impl PrivateCluster {
    /// Makes and starts a cluster with the programs in `programs`; run as root, it runs as another user, because
    /// PostgreSQL refuses root.
    ///
    /// # Errors
    /// Target: a program failed, with its own words.
    pub fn start(programs: &Path, work_dir: &Path) -> Outcome<PrivateCluster> {
        // A socket's path may have 107 bytes.
        let base = if work_dir.as_os_str().len() > 60 { Path::new("/tmp") } else { work_dir };
        let failed = |e: std::io::Error| Failure::target(format!("a private PostgreSQL in {}: {e}", shown(base)));
        let folder = Scratch::new("mlops-postgres-", base)?;
        let user = unprivileged_user();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).map_err(failed)?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).map_err(failed)?;
        }
        let data = folder.path().join("data");
        let mut initdb = program(&programs.join("initdb"), user, folder.path());
        initdb
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", ROLE, "--pgdata"])
            .arg(&data);
        let output = initdb.stdin(Stdio::null()).output().map_err(failed)?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::target(format!("initdb failed: {}", words.trim())));
        }
        let log = fs::File::create(folder.path().join("log")).map_err(failed)?;
        let mut server = program(&programs.join("postgres"), user, folder.path());
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        // Nothing in it has to outlive a crash.
        for setting in
            ["listen_addresses=", "fsync=off", "full_page_writes=off", "max_wal_size=4GB", "shared_buffers=256MB"]
        {
            server.args(["-c", setting]);
        }
        tracing::info!(folder = %folder.path().display(), "starting a private PostgreSQL");
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().map_err(failed)?;
        let mut cluster = PrivateCluster { folder, server };
        cluster.wait()?;
        Ok(cluster)
    }

    /// The address of a database in it.
    pub fn address(&self, database: &str) -> PgAddress {
        PgAddress {
            hosts: vec![(self.folder.path().display().to_string(), None)],
            user: Some(ROLE.to_owned()),
            database: Some(database.to_owned()),
            ..PgAddress::default()
        }
    }

    /// Makes an empty database in it.
    ///
    /// # Errors
    /// Target: the cluster failed.
    pub fn create_database(&self, name: &str) -> Outcome<PgAddress> {
        let mut client = Postgres::new(&self.address("postgres"), "private", &Cancel::new())?.connect()?;
        client
            .batch_execute(&format!("CREATE DATABASE {}", crate::domain::ddl::quote(name)))
            .map_err(|e| super::target_failure("making a database", &e))?;
        Ok(self.address(name))
    }

    fn wait(&mut self) -> Outcome<()> {
        let begun = Instant::now();
        let postgres = Postgres::new(&self.address("postgres"), "private", &Cancel::new())?;
        loop {
            if postgres.connect().is_ok() {
                return Ok(());
            }
            let ended = matches!(self.server.try_wait(), Ok(Some(_)));
            if ended || begun.elapsed() > START {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(Failure::target(format!("the private PostgreSQL did not start: {}", last.join(" / "))));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for PrivateCluster {
    fn drop(&mut self) {
        let pid = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // SIGINT: PostgreSQL's fast shutdown, which ends all its sessions.
            let _ = kill_process(pid, Signal::INT);
        }
        let begun = Instant::now();
        while matches!(self.server.try_wait(), Ok(None)) {
            if begun.elapsed() > STOP {
                let _ = self.server.kill();
                let _ = self.server.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A program of PostgreSQL's, as the other user when this is root, and with a clean environment: PG* variables of the
/// operator's must not reach a private cluster. Where util-linux' `setpriv` is there, the program ends with this
/// process even if this process is killed.
fn program(path: &Path, user: Option<(u32, u32)>, folder: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut command = if setpriv.exists() {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "INT"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").env("HOME", folder).current_dir(folder);
    if let Some((uid, gid)) = user {
        command.gid(gid).uid(uid);
    }
    // Its own group: Ctrl-C on the terminal is for mlops, which then stops the server itself.
    command.process_group(0);
    command
}

/// Whom to run PostgreSQL as when this process is root: its usual user, else nobody.
fn unprivileged_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).or(Some((65534, 65534)))
}
