//! Connections as libpq makes them: a server with TLS and certificates made here, and psql beside to agree on what is
//! taken and what is refused.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use crate::support::secrets::RIGHT;
use crate::support::{Said, folder, migrate, mlops, programs, removed_at_exit, sample, wait_for};

/// A cluster on a port of 127.0.0.1 and a socket, and the certificates beside it:
/// `ca`, `other` (authorities), `server` (by ca, for localhost), `client` (by ca, for cert_user), `stranger` (by other).
#[derive(Clone)]
struct Server {
    folder: PathBuf,
    port: u16,
    programs: PathBuf,
}

const HBA: &str = "
local     all all              trust
hostssl   all only_tls   all   trust
hostnossl all only_plain all   trust
host      all either     all   trust
host      all reader     all   trust
host      all owner      all   trust
hostssl   all cert_user  all   cert
hostssl   all both_user  all   scram-sha-256 clientcert=verify-full
host      all scram_user all   scram-sha-256
";
const ROLES: &str = "
CREATE ROLE only_tls LOGIN; CREATE ROLE only_plain LOGIN; CREATE ROLE either LOGIN; CREATE ROLE cert_user LOGIN;
CREATE ROLE owner SUPERUSER LOGIN; CREATE ROLE reader LOGIN; ALTER ROLE reader SET default_transaction_read_only = on;
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram_user LOGIN PASSWORD 'r1ght-5c02de'; CREATE ROLE both_user LOGIN PASSWORD 'r1ght-5c02de';
";

pub(crate) fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn authority(folder: &Path, name: &str) {
    openssl(folder, &format!("req -x509 {NEW_KEY} -keyout {name}.key -out {name}.crt -days 30 -subj /CN=mlops-{name}"));
}

/// A certificate with these extensions; without any it is what PostgreSQL's documentation makes.
fn certificate(folder: &Path, name: &str, subject: &str, by: &str, extensions: &str) {
    openssl(folder, &format!("req -new {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={subject}"));
    let mut sign =
        format!("x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -days 30 -out {name}.crt");
    if !extensions.is_empty() {
        fs::write(folder.join("extensions"), extensions).unwrap();
        sign.push_str(" -extfile extensions");
    }
    openssl(folder, &sign);
}

pub(crate) fn certificates(folder: &Path) {
    authority(folder, "ca");
    authority(folder, "other");
    certificate(folder, "server", "elsewhere", "ca", "subjectAltName=DNS:localhost\n");
    certificate(folder, "client", "cert_user", "ca", "basicConstraints=CA:FALSE\n");
    certificate(folder, "client2", "both_user", "ca", "basicConstraints=CA:FALSE\n");
    certificate(folder, "stranger", "cert_user", "other", "basicConstraints=CA:FALSE\n");
    // Lists of what the authority revoked: nothing, and then the server's certificate.
    fs::write(
        folder.join("ca.conf"),
        "[ca]\ndefault_ca=x\n[x]\ndatabase=index\ncrlnumber=number\nserial=serial\ndefault_md=sha256\ndefault_crl_days=30\n[p]\ncommonName=supplied\n",
    )
    .unwrap();
    fs::write(folder.join("index"), "").unwrap();
    fs::write(folder.join("number"), "01\n").unwrap();
    fs::write(folder.join("serial"), "01\n").unwrap();
    let ca = "ca -config ca.conf -keyfile ca.key -cert ca.crt";
    openssl(folder, &format!("{ca} -gencrl -out nothing.crl"));
    openssl(folder, &format!("{ca} -revoke server.crt"));
    openssl(folder, &format!("{ca} -gencrl -out revoked.crl"));
}

/// The server's own copy of a certificate and its key.
fn install(folder: &Path, name: &str, user: Option<(u32, u32)>) {
    for (from, to) in [("crt", "data/server.crt"), ("key", "data/server.key")] {
        let to = folder.join(to);
        fs::copy(folder.join(format!("{name}.{from}")), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = user {
            chown(&to, Some(uid), Some(gid)).unwrap();
        }
    }
}

/// PostgreSQL refuses root.
fn other_user() -> Option<(u32, u32)> {
    let number = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().ok()
    };
    if number(&["-u"]) != Some(0) {
        return None;
    }
    let of = |name: &str| Some((number(&["-u", name])?, number(&["-g", name])?));
    of("postgres").or_else(|| of("nobody"))
}

/// The server, and the children that end with it.
fn start() -> (Server, [Child; 2]) {
    let programs = programs(15);
    let folder = tempfile::Builder::new().prefix("mlops-tls-").tempdir().unwrap().keep();
    let reaper = removed_at_exit(folder.to_str().unwrap());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    certificates(&folder);
    let user = other_user();
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::create_dir(folder.join("socket")).unwrap();
    for own in [&data, &folder.join("socket")] {
        if let Some((uid, gid)) = user {
            chown(own, Some(uid), Some(gid)).unwrap();
        }
    }
    let program = |name: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]).arg(programs.join(name)).arg("-D").arg(&data);
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir(&data).stdin(Stdio::null());
        if let Some((uid, gid)) = user {
            command.gid(gid).uid(uid);
        }
        command
    };
    let made = program("initdb").args(["--auth=trust", "--locale=C", "--encoding=UTF8", "-N", "-U", "root"]).output();
    let made = Said::of(made.unwrap()).expect(0);
    assert!(made.out.contains("Success"), "{}", made.err);
    fs::write(data.join("pg_hba.conf"), HBA).unwrap();
    fs::copy(folder.join("ca.crt"), data.join("ca.crt")).unwrap();
    install(&folder, "server", user);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut server = program("postgres");
    server.arg("-k").arg(folder.join("socket")).args(["-p", &port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "fsync=off",
        "ssl=on",
        "ssl_ca_file=ca.crt",
        "shared_buffers=16MB",
        "timezone=UTC",
    ] {
        server.args(["-c", setting]);
    }
    let mut child = server.stdout(Stdio::null()).stderr(log).process_group(0).spawn().unwrap();
    let server = Server { folder: folder.clone(), port, programs };
    let socket = server.socket("root", "postgres", "");
    wait_for("a server with TLS", Duration::from_secs(30), || {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(folder.join("log")).unwrap());
        (TcpStream::connect(("127.0.0.1", port)).is_ok() && server.psql(&folder, &socket, "SELECT 1", &[]).code == 0)
            .then_some(())
    });
    server.psql(&folder, &socket, ROLES, &[]).expect(0);
    server.psql(&folder, &socket, "CREATE DATABASE db", &[]).expect(0);
    (server, [child, reaper])
}

/// The one server of this process; it ends with the thread that started it, which therefore never ends by itself.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(kept)
}

fn kept() -> Server {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let (server, _children) = start();
        send.send(server).unwrap();
        loop {
            std::thread::park();
        }
    });
    receive.recv().expect("a server with TLS")
}

impl Server {
    fn url(&self, user: &str, host: &str, parameters: &str) -> String {
        format!("postgresql://{user}@{host}:{}/db?{parameters}", self.port)
    }

    fn socket(&self, user: &str, database: &str, parameters: &str) -> String {
        let folder = self.folder.join("socket");
        format!("postgresql://{user}@/{database}?host={}&port={}&{parameters}", folder.display(), self.port)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// `sslcert` and `sslkey`.
    fn client(&self, name: &str) -> String {
        format!("sslcert={}&sslkey={}", self.file(&format!("{name}.crt")), self.file(&format!("{name}.key")))
    }

    fn psql(&self, home: &Path, url: &str, sql: &str, env: &[(&str, &str)]) -> Said {
        let mut command = Command::new(self.programs.join("psql"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).envs(env.iter().copied());
        Said::of(command.args(["-XwqAt", "-c", sql, url]).stdin(Stdio::null()).output().unwrap())
    }

    /// Whether mlops is let in, and what it said. The database is empty, so what comes after the connection is a no.
    fn mlops(&self, home: &Path, url: &str, env: &[(&str, &str)]) -> (bool, Said) {
        let mut command = mlops(home);
        command.args(["db", "info", "-q", url]).envs(env.iter().copied());
        let said = Said::of(command.output().unwrap());
        let taken = said.code == 0 || said.err.contains("not an MLflow database");
        assert!(taken || [2, 3, 6].contains(&said.code), "{url}: {}", said.err);
        assert!(taken || !said.err.contains("internal"), "{url}: {}", said.err);
        (taken, said)
    }

    /// mlops and psql agree that this address is taken, or is not.
    #[track_caller]
    fn both(&self, home: &Path, url: &str, env: &[(&str, &str)], taken: bool) -> Said {
        let (ours, said) = self.mlops(home, url, env);
        let psql = self.psql(home, url, "SELECT 1", env);
        assert_eq!(psql.code == 0, taken, "psql {url} {env:?}: {}{}", psql.out, psql.err);
        assert_eq!(ours, taken, "mlops {url} {env:?}: {}", said.err);
        said
    }
}

#[test]
fn every_sslmode_takes_and_refuses_what_psql_does() {
    let (home, server) = (folder(), server());
    let mut cases = Vec::new();
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        for authority in ["", "ca", "other"] {
            for host in ["localhost", "127.0.0.1"] {
                for user in ["only_tls", "only_plain", "either"] {
                    cases.push((mode, authority, host, user));
                }
            }
        }
    }
    let check = |cases: &[(&str, &str, &str, &str)]| {
        for (mode, authority, host, user) in cases {
            // "SSL Support", table of modes; and any authority that is named is asked.
            let verified = match *mode {
                "verify-full" => *authority == "ca" && *host == "localhost",
                "verify-ca" => *authority == "ca",
                _ => *authority != "other",
            };
            let plain = *user != "only_tls" && ["disable", "allow", "prefer"].contains(mode);
            let tls = *user != "only_plain" && *mode != "disable" && verified;
            let mut parameters = format!("sslmode={mode}");
            if !authority.is_empty() {
                parameters.push_str(&format!("&sslrootcert={}", server.file(&format!("{authority}.crt"))));
            }
            server.both(home.path(), &server.url(user, host, &parameters), &[], plain || tls);
        }
    };
    std::thread::scope(|scope| {
        for half in cases.chunks(cases.len().div_ceil(2)) {
            scope.spawn(|| check(half));
        }
    });
}

#[test]
fn a_store_moves_over_verified_tls() {
    let (home, server) = (folder(), server());
    let parameters = format!("sslmode=verify-full&sslrootcert={}", server.file("ca.crt"));
    server.psql(home.path(), &server.socket("root", "postgres", ""), "CREATE DATABASE moved", &[]).expect(0);
    let url = server.url("owner", "localhost", &parameters).replace("/db?", "/moved?");
    migrate(home.path(), &sample(2_000), &url, &["--jobs", "3"]).expect(0);
    server.mlops(home.path(), &url, &[]).1.expect(0);
}

#[test]
fn client_certificates() {
    let (home, server) = (folder(), server());
    let url = |user: &str, more: &str| server.url(user, "localhost", &format!("sslmode=require&{more}"));
    server.both(home.path(), &url("cert_user", &server.client("client")), &[], true);
    server.both(home.path(), &url("cert_user", &server.client("client2")), &[], false);
    server.both(home.path(), &url("cert_user", &server.client("stranger")), &[], false);
    server.both(home.path(), &url("cert_user", ""), &[], false);
    let env = [("PGSSLCERT", &*server.file("client.crt")), ("PGSSLKEY", &*server.file("client.key"))];
    server.both(home.path(), &url("cert_user", ""), &env, true);
    // clientcert=verify-full beside a password.
    let password = [("PGPASSWORD", RIGHT)];
    server.both(home.path(), &url("both_user", &server.client("client2")), &password, true);
    server.both(home.path(), &url("both_user", &server.client("client2")), &[("PGPASSWORD", "wrong")], false);
    server.both(home.path(), &url("both_user", &server.client("client")), &password, false);
    server.both(home.path(), &url("both_user", ""), &password, false);

    // Keys that are not fit.
    let key = home.path().join("client.key");
    fs::copy(server.file("client.key"), &key).unwrap();
    let with_key =
        |key: &Path| url("cert_user", &format!("sslcert={}&sslkey={}", server.file("client.crt"), key.display()));
    for (mode, taken) in [(0o644, false), (0o604, false), (0o600, true), (0o400, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let said = server.both(home.path(), &with_key(&key), &[], taken);
        assert!(taken || (said.code == 3 && said.err.contains("chmod 600")), "{}", said.err);
    }
    openssl(home.path(), "ec -in client.key -aes256 -passout pass:hunter2 -out encrypted.key");
    fs::set_permissions(home.path().join("encrypted.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let said = server.both(home.path(), &with_key(&home.path().join("encrypted.key")), &[], false);
    assert!(said.code == 3 && said.err.contains("is encrypted") && said.err.contains("openssl pkey"), "{}", said.err);
    let said = server.both(home.path(), &with_key(Path::new("/nowhere.key")), &[], false);
    assert!(said.code == 3 && said.err.contains("/nowhere.key"), "{}", said.err);
    let mixed = format!("sslcert={}&sslkey={}", server.file("client.crt"), server.file("client2.key"));
    let said = server.both(home.path(), &url("cert_user", &mixed), &[], false);
    assert!(said.err.contains("do not belong together"), "{}", said.err);
}

#[test]
fn files_in_the_home_folder_count_as_in_psql() {
    let (home, server) = (folder(), server());
    let own = home.path().join(".postgresql");
    fs::create_dir(&own).unwrap();
    let place = |from: &str, to: &str| fs::copy(server.file(from), own.join(to)).unwrap();
    let url = |user: &str, mode: &str| server.url(user, "localhost", &format!("sslmode={mode}"));
    place("ca.crt", "root.crt");
    server.both(home.path(), &url("either", "verify-full"), &[], true);
    place("other.crt", "root.crt");
    server.both(home.path(), &url("either", "verify-full"), &[], false);
    server.both(home.path(), &url("either", "require"), &[], false);
    server.both(home.path(), &url("either", "prefer"), &[], true);
    server.both(home.path(), &url("only_tls", "prefer"), &[], false);
    place("ca.crt", "root.crt");
    place("client.crt", "postgresql.crt");
    let said = server.both(home.path(), &url("cert_user", "require"), &[], false);
    assert!(said.err.contains(".postgresql/postgresql.key"), "{}", said.err);
    place("client.key", "postgresql.key");
    server.both(home.path(), &url("cert_user", "require"), &[], true);
    place("nothing.crl", "root.crl");
    server.both(home.path(), &url("either", "verify-full"), &[], true);
    place("revoked.crl", "root.crl");
    server.both(home.path(), &url("either", "verify-full"), &[], false);
}

#[test]
fn limits_on_tls() {
    let (home, server) = (folder(), server());
    let ca = server.file("ca.crt");
    for (parameters, taken) in [
        (format!("sslmode=verify-full&sslrootcert={ca}&sslcrl={}", server.file("nothing.crl")), true),
        (format!("sslmode=verify-full&sslrootcert={ca}&sslcrl={}", server.file("revoked.crl")), false),
        ("sslmode=require&ssl_min_protocol_version=TLSv1.3".to_owned(), true),
        ("sslmode=require&ssl_max_protocol_version=TLSv1.2".to_owned(), true),
        ("sslmode=require&ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2".to_owned(), false),
        ("sslmode=require&sslsni=0".to_owned(), true),
        ("ssl=true".to_owned(), true),
        ("requiressl=1".to_owned(), true),
        ("sslmode=perhaps".to_owned(), false),
    ] {
        server.both(home.path(), &server.url("only_tls", "localhost", &parameters), &[], taken);
    }
    // These psql 15 does not know.
    for (parameters, taken, words) in [
        ("sslrootcert=system", false, "TLS handshake"),
        ("sslrootcert=system&sslmode=require", false, "sslmode=verify-full"),
        ("sslnegotiation=direct&sslmode=require", false, "no connection"),
        ("sslnegotiation=direct&sslmode=prefer", false, "exclude each other"),
        ("sslnegotiation=postgres&sslmode=require", true, ""),
        ("sslcertmode=require", false, "`sslcertmode` is not served"),
        ("sslmode=verify-full&sslrootcert=/nowhere.crt", false, "/nowhere.crt"),
    ] {
        let (ours, said) = server.mlops(home.path(), &server.url("only_tls", "localhost", parameters), &[]);
        assert!(ours == taken && said.err.contains(words), "{parameters}: {}", said.err);
    }
    let system = server.url("only_tls", "localhost", "sslrootcert=system");
    assert!(server.mlops(home.path(), &system, &[("SSL_CERT_FILE", &ca)]).0);
    let wrong_name = system.replace("localhost", "127.0.0.1");
    assert!(!server.mlops(home.path(), &wrong_name, &[("SSL_CERT_FILE", &ca)]).0);
}

#[test]
fn passwords_and_where_they_come_from() {
    let (home, server) = (folder(), server());
    let url = |parameters: &str| server.url("scram_user", "localhost", parameters);
    let right = [("PGPASSWORD", RIGHT)];
    for (parameters, taken) in [
        ("sslmode=require&channel_binding=require", true),
        ("sslmode=require&channel_binding=disable", true),
        ("sslmode=disable&channel_binding=require", false),
        ("sslmode=disable", true),
        ("channel_binding=perhaps", false),
    ] {
        server.both(home.path(), &url(parameters), &right, taken);
        server.both(home.path(), &url(parameters), &[("PGPASSWORD", "wrong")], false);
    }
    server.both(home.path(), &server.url("either", "localhost", "channel_binding=require"), &[], false);
    server.both(home.path(), &url(""), &[("PGCHANNELBINDING", "require"), right[0]], true);
    let said = server.both(home.path(), &url(""), &[], false);
    assert!(said.err.contains("hint: the server wants a password"), "{}", said.err);

    let write = |name: &str, text: String, mode: u32| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let line = |password: &str| format!("# ours\nlocalhost:{}:db:scram_user:{password}\n", server.port);
    write(".pgpass", line(RIGHT), 0o600);
    server.both(home.path(), &url(""), &[], true);
    server.both(home.path(), &url("").replace("localhost", "127.0.0.1"), &[], false);
    let said = server.both(home.path(), &url(&format!("passfile={}", write("p", line("wrong"), 0o600))), &[], false);
    assert!(said.err.contains("the password came from "), "{}", said.err);
    server.both(home.path(), &url(""), &[("PGPASSFILE", &write("q", line(RIGHT), 0o400))], true);
    write(".pgpass", line(RIGHT), 0o640);
    let said = server.both(home.path(), &url(""), &[], false);
    assert!(said.err.contains("others have access to it: chmod 600"), "{}", said.err);
}

#[test]
fn services_and_the_environment() {
    let (home, server) = (folder(), server());
    let port = server.port.to_string();
    let file = home.path().join(".pg_service.conf");
    fs::write(
        &file,
        format!(
            "# all of them\n[other]\nhost=nowhere.invalid\n\n[mlflow]\nhost=localhost\nport={port}\ndbname=db\n\
             user=only_tls\nsslmode=verify-full\nsslrootcert={}\n",
            server.file("ca.crt")
        ),
    )
    .unwrap();
    server.both(home.path(), "postgresql://", &[("PGSERVICE", "mlflow")], true);
    server.both(home.path(), "postgresql:///?service=mlflow", &[("PGHOST", "nowhere.invalid")], true);
    server.both(home.path(), "postgresql:///?service=mlflow&sslmode=disable", &[], false);
    server.both(home.path(), "postgresql:///?service=mlflow&host=127.0.0.1", &[], false);
    let said = server.both(home.path(), "postgresql:///?service=missing", &[], false);
    assert!(said.code == 3 && said.err.contains("\"missing\" is not defined"), "{}", said.err);
    let moved = home.path().join("moved");
    fs::rename(&file, &moved).unwrap();
    server.both(home.path(), "postgresql:///?service=mlflow", &[], false);
    let env = [("PGSERVICE", "mlflow"), ("PGSERVICEFILE", moved.to_str().unwrap())];
    server.both(home.path(), "postgresql://", &env, true);
    fs::rename(&moved, home.path().join("pg_service.conf")).unwrap();
    let env = [("PGSERVICE", "mlflow"), ("PGSYSCONFDIR", home.path().to_str().unwrap())];
    server.both(home.path(), "postgresql://", &env, true);

    let env = [("PGHOST", "localhost"), ("PGPORT", &*port), ("PGUSER", "only_tls"), ("PGDATABASE", "db")];
    server.both(home.path(), "postgresql://", &env, true);
    for (more, taken) in [
        (("PGSSLMODE", "disable"), false),
        (("PGSSLMODE", "verify-full"), false),
        (("PGREQUIRESSL", "1"), true),
        (("PGHOSTADDR", "127.0.0.1"), true),
        (("PGAPPNAME", "x"), true),
        (("PGREQUIREPEER", "nobody"), true),
    ] {
        let mut all = env.to_vec();
        all.push(more);
        if more.0 == "PGREQUIREPEER" {
            // Without a socket it means nothing to psql; here it is never taken for granted.
            assert!(!server.mlops(home.path(), "postgresql://", &all).0);
        } else {
            server.both(home.path(), "postgresql://", &all, taken);
        }
    }
}

#[test]
fn sockets_several_hosts_and_numeric_addresses() {
    let (home, server) = (folder(), server());
    let (port, ca) = (server.port, server.file("ca.crt"));
    server.both(home.path(), &server.socket("either", "db", ""), &[], true);
    server.both(home.path(), &server.socket("either", "db", "sslmode=verify-full"), &[], true);
    // Port 1 of this machine: nobody there.
    let hosts =
        |hosts: &str, user: &str, more: &str| format!("postgresql://{user}@{hosts}/db?connect_timeout=5&{more}");
    let two = format!("127.0.0.1:1,localhost:{port}");
    server.both(home.path(), &hosts(&two, "either", ""), &[], true);
    server.both(home.path(), &hosts("127.0.0.1:1,localhost:1", "either", ""), &[], false);
    let socket = server.folder.join("socket").display().to_string();
    server.both(home.path(), &hosts("", "either", &format!("host=127.0.0.1,{socket}&port=1,{port}")), &[], true);
    // A host that refuses this user ends the search.
    let both = format!("localhost:{port},localhost:{port}");
    server.both(home.path(), &hosts(&both, "nobody", ""), &[], false);
    for (user, wanted, taken) in [
        ("either", "any", true),
        ("either", "read-write", true),
        ("either", "read-only", false),
        ("reader", "read-only", true),
        ("reader", "read-write", false),
        ("reader", "primary", true),
        ("either", "standby", false),
        ("either", "prefer-standby", true),
        ("either", "perhaps", false),
    ] {
        server.both(home.path(), &hosts(&two, user, &format!("target_session_attrs={wanted}")), &[], taken);
    }
    for (host, more, taken) in [
        ("nowhere.invalid", "sslmode=require&hostaddr=127.0.0.1".to_owned(), true),
        ("nowhere.invalid", format!("sslmode=verify-full&hostaddr=127.0.0.1&sslrootcert={ca}"), false),
        ("localhost", format!("sslmode=verify-full&hostaddr=127.0.0.1&sslrootcert={ca}"), true),
        ("localhost", "hostaddr=localhost".to_owned(), false),
        ("localhost", "hostaddr=127.0.0.1,127.0.0.1".to_owned(), false),
        ("localhost", "colour=red".to_owned(), false),
        ("localhost", "keepalives=0&tcp_user_timeout=1000&connect_timeout=1".to_owned(), true),
        ("localhost", "connect_timeout=soon".to_owned(), false),
    ] {
        server.both(home.path(), &server.url("either", host, &more), &[], taken);
    }
    // A server that takes the connection and says nothing: the next one is asked.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let alone = format!("postgresql://either@127.0.0.1:{silent_port}/db?connect_timeout=2");
    let (_, said) = server.mlops(home.path(), &alone, &[]);
    assert!(said.err.contains("no answer within 2 s"), "{}", said.err);
    let two = format!("postgresql://either@127.0.0.1:{silent_port},localhost:{port}/db?connect_timeout=2");
    server.both(home.path(), &two, &[], true);
    let (_, said) = server.mlops(home.path(), &server.url("either", "localhost", "sslrootcrt=x"), &[]);
    assert!(said.code == 3 && said.err.contains("the nearest that is known: sslrootcert"), "{}", said.err);
}

#[test]
fn certificates_by_the_recipes_of_postgresqls_documentation() {
    let (home, server) = (folder(), kept());
    let user = other_user();
    // Signed without extensions: version 1 with OpenSSL before 3.2, and the host's name in the common name only.
    certificate(&server.folder, "plain", "localhost", "ca", "");
    // Signed by itself, which makes it an authority to OpenSSL.
    openssl(
        &server.folder,
        &format!("req -new -x509 -days 30 {NEW_KEY} -keyout self.key -out self.crt -subj /CN=localhost"),
    );
    certificate(&server.folder, "numeric", "localhost", "ca", "subjectAltName=IP:127.0.0.1\n");
    certificate(&server.folder, "wild", "*.0.0.1", "ca", "subjectAltName=DNS:*.localdomain\n");
    let superuser = server.socket("root", "postgres", "");
    for (name, root, host, full) in [
        ("plain", "ca", "localhost", true),
        ("plain", "ca", "127.0.0.1", false),
        ("plain", "other", "localhost", false),
        ("self", "self", "localhost", true),
        ("self", "self", "127.0.0.1", false),
        ("self", "ca", "localhost", false),
        ("numeric", "ca", "127.0.0.1", true),
        ("numeric", "ca", "localhost", true),
        ("wild", "ca", "localhost", false),
        ("wild", "ca", "127.0.0.1", true),
    ] {
        install(&server.folder, name, user);
        server.psql(home.path(), &superuser, "SELECT pg_reload_conf()", &[]).expect(0);
        let now = fs::read_to_string(server.file(&format!("{name}.crt"))).unwrap();
        wait_for("the new certificate", Duration::from_secs(10), || {
            let arguments = ["s_client", "-starttls", "postgres", "-connect"];
            let mut command = Command::new("openssl");
            command.args(arguments).arg(format!("127.0.0.1:{}", server.port)).stdin(Stdio::null());
            String::from_utf8_lossy(&command.output().unwrap().stdout).contains(now.trim()).then_some(())
        });
        let url = |mode: &str| {
            let root = server.file(&format!("{root}.crt"));
            server.url("only_tls", host, &format!("sslmode={mode}&sslrootcert={root}"))
        };
        server.both(home.path(), &url("verify-full"), &[], full);
        let known = root == "self" || (root == "ca" && name != "self");
        server.both(home.path(), &url("verify-ca"), &[], known);
        server.both(home.path(), &server.url("only_tls", host, "sslmode=require"), &[], true);
        server.both(
            home.path(),
            &server.url("only_tls", host, "sslmode=require&ssl_max_protocol_version=TLSv1.2"),
            &[],
            true,
        );
    }
}
