//! Every command of the guides and of the README, run as it stands, against a real stack.
//!
//! Blocks marked `sh` of a guide are one script. Settings (`toml`), lines for cron (`crontab`), for Nagios (`nagios`), for a
//! container (`dockerfile`) and metrics (`prometheus`) are tried in their place; `bash` is for `recipes.rs`, `text` is
//! no command. `MLOPS_TEST_SHOW=1` shows what is typed and said. `tests/guides/<guide>.sh` is what was there before the reader came, `tests/guides/bin` are the words that
//! restart and install: they act on the test's own server.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mlops::store::postgres::private::PrivateCluster;
use secrecy::ExposeSecret;

use crate::artifacts::{ObjectStore, object_store};
use crate::support::listener::{Answer, Listener};
use crate::support::{Said, environment, programs, removed_at_exit, root};

/// The longest that a guide may take.
const SECONDS: &str = "400";
/// The machine that a guide is about: folders of its own, PostgreSQL, an object store, and a server that the script starts.
struct World {
    place: PathBuf,
    /// What a guide says, and what is meant here.
    table: Vec<(&'static str, String)>,
    socket: String,
    variables: Vec<(&'static str, String)>,
    _postgres: PrivateCluster,
    _objects: Option<ObjectStore>,
    _listener: Listener,
    _alive: File,
}

impl World {
    fn new(name: &str, with_objects: bool) -> World {
        // A stack below /tmp is one that `verify` and `health` complain of.
        let cache = environment("mlflow-3.17.2").parent().unwrap().to_owned();
        let place = tempfile::Builder::new().prefix(&format!("guide-{name}-")).tempdir_in(cache).unwrap().keep();
        std::mem::forget(removed_at_exit(place.to_str().unwrap()));
        let at = |below: &str| place.join(below).to_str().unwrap().to_owned();
        for folder in
            ["home", "tmp", "bin", "srv/mlflow/artifacts", "etc/mlflow", "etc/mlops", "var/lib/mlops", "backup"]
        {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::create_dir_all(at("var/lib/node_exporter")).unwrap();
        let bin = programs(15);
        let postgres = PrivateCluster::start(&bin, &std::env::temp_dir()).unwrap();
        let socket = postgres.address("postgres").hosts[0].0.clone();
        let objects = with_objects.then(|| object_store(Path::new(&at("tmp")), &["--empty"]));
        let listener = Listener::new(&[Answer::Says(200, "ok")]);
        let hook = |path: &str| format!("http://127.0.0.1:{}/{path}", listener.port);
        let server = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // The test's end closes it, and with it goes the server.
        Said::of(Command::new("mkfifo").arg(at("alive")).output().unwrap()).expect(0);
        let alive = OpenOptions::new().read(true).write(true).open(at("alive")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mlops"), at("bin/mlops")).unwrap();
        let path =
            [at("bin"), at_root("tests/guides/bin"), bin.to_str().unwrap().to_owned(), std::env::var("PATH").unwrap()];
        let mut variables = vec![
            ("HOME", at("home")),
            ("TMPDIR", at("tmp")),
            ("PATH", path.join(":")),
            ("WORLD", place.to_str().unwrap().to_owned()),
            ("ROOT", at_root("")),
            ("PORT", server.port().to_string()),
            ("MLOPS_STATE_DIR", at("var/lib/mlops")),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        if let Some(key) = objects.as_ref().and_then(|o| o.access.key.as_ref()) {
            variables.push(("AWS_ACCESS_KEY_ID", key.id.clone()));
            variables.push(("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret().to_owned()));
        }
        let endpoint = objects.as_ref().and_then(|o| o.access.endpoint.clone());
        let table = vec![
            ("http://mlflow:5000", format!("http://{server}")),
            ("http://localhost:5000", format!("http://{server}")),
            ("http://minio:9000", endpoint.unwrap_or_default()),
            ("s3://mlflow-", "s3://artifacts/".to_owned()),
            ("https://hc-ping.com/UUID", hook("ping")),
            ("https://hooks.slack.com/services/T000/B000/XXXX", hook("chat")),
            ("/srv/", at("srv/")),
            ("/backup/", at("backup/")),
            ("/media/", at("media/")),
            ("/etc/", at("etc/")),
            ("/var/lib/", at("var/lib/")),
        ];
        let (_postgres, _objects, _listener, _alive) = (postgres, objects, listener, alive);
        World { place, table, socket, variables, _postgres, _objects, _listener, _alive }
    }

    /// A guide's text with the addresses of this machine; `postgresql://mlflow@db/mlflow` is a database behind a socket.
    fn meant(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (turn, (said, _)) in self.table.iter().enumerate() {
            text = text.replace(said, &format!("\u{1}{turn}\u{2}"));
        }
        for (turn, (_, here)) in self.table.iter().enumerate() {
            text = text.replace(&format!("\u{1}{turn}\u{2}"), here);
        }
        let mut parts = text.split("@db/");
        let mut meant = parts.next().unwrap().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            meant.push_str(&format!("@/{}?host={}{}", &part[..end], self.socket, &part[end..]));
        }
        meant
    }

    fn bash(&self, script: &str) -> Said {
        let file = self.place.join("tmp/script.sh");
        fs::write(&file, script).unwrap();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", SECONDS, "bash", "-euo", "pipefail"]).arg(&file).env_clear();
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).current_dir(self.place.join("home"));
        Said::of(command.stdin(Stdio::null()).output().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.bash("systemctl stop mlflow");
        if std::thread::panicking() {
            let log = fs::read_to_string(self.place.join("tmp/server.log")).unwrap_or_default();
            eprintln!("the server said: {}", &log[log.len().saturating_sub(2000)..]);
        }
        let _ = fs::remove_dir_all(&self.place);
    }
}

pub(crate) fn at_root(below: &str) -> String {
    root().join(below).to_str().unwrap().to_owned()
}

/// A fenced block: the line that it begins at, its language, its text.
pub(crate) type Block = (usize, String, String);

pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => blocks.push((number + 2, language.to_owned(), String::new())),
            (None, true) => blocks.last_mut().unwrap().2.push_str(&format!("{line}\n")),
            _ => {}
        }
        open ^= line.starts_with("```");
    }
    assert!(!open, "a block has no end");
    blocks
}

/// What bash is given for a block. `; echo "exit $?"  # 5` tells a code that is meant, and has to be that.
fn script(guide: &str, (line, language, text): &Block) -> String {
    let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let tried = |command: &str| format!("sh -eu <<'TRIED'\n{command}\nTRIED\n");
    let body = match language.as_str() {
        "sh" => text
            .lines()
            .map(|line| match line.split_once("; echo \"exit $?\"") {
                Some((command, meant)) => {
                    let meant = meant.trim().trim_start_matches("# ").split(' ').next().unwrap();
                    assert!(meant.parse::<u8>().is_ok(), "{guide}: {line}: say the code");
                    format!("{command} && is 0 {meant} || is $? {meant}\n")
                }
                None => format!("{line}\n"),
            })
            .collect(),
        "toml" => {
            let file = text.lines().next().and_then(|l| l.strip_prefix("# ")).expect("the file in the first line");
            format!(
                "cat > {file} <<'TRIED'\n{text}TRIED\nexport MLOPS_CONFIG={file}\nmlops config show --output json | grep -q '\"exit\": *0'\n"
            )
        }
        "crontab" => lines()
            .map(|line| {
                assert!(!line.contains('%'), "cron makes a line break of %: {line}");
                let fields: Vec<&str> = line.splitn(6, ' ').collect();
                assert!(fields[..5].iter().all(|f| f.chars().all(|c| "0123456789*/,-".contains(c))), "{line}");
                tried(fields[5])
            })
            .collect(),
        "nagios" => {
            let command = lines().filter_map(|l| l.strip_prefix("command_line")).map(str::trim);
            command.map(|c| format!("({c}) | tee /dev/stderr | grep -Eq '^[A-Z]+ (OK|WARNING)[ :-].*[|]'\n")).collect()
        }
        "dockerfile" => lines().filter_map(|l| l.split_once(" CMD ")).map(|(_, command)| tried(command)).collect(),
        "prometheus" => {
            let names = lines().map(|l| l.split(['{', ' ']).next().unwrap());
            names.map(|name| format!("grep -q '^{name}[{{ ]' /var/lib/node_exporter/mlops.prom\n")).collect()
        }
        "bash" | "text" => String::new(),
        other => panic!("{guide}:{line}: what is `{other}`?"),
    };
    format!("echo '== {guide}:{line}' >&2\n{body}")
}

const IS: &str = "is() { echo \"exit $1\"; [ \"$1\" = \"$2\" ] || { echo \"meant: $2\" >&2; exit 99; }; }\n";

/// Sets the stage and does what the guide says.
#[track_caller]
fn follow(guide: &str) {
    let name = guide.trim_start_matches("docs/").trim_end_matches(".md");
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let text = read(guide);
    let world = World::new(name, text.contains("s3://"));
    let before = read("tests/guides/stack.sh") + &read(&format!("tests/guides/{name}.sh"));
    world.bash(&world.meant(&before)).expect(0);
    let all: String = blocks(&text).iter().map(|block| script(guide, block)).collect();
    let shown = std::env::var_os("MLOPS_TEST_SHOW").is_some();
    let said = world.bash(&world.meant(&format!("{}{IS}{all}", if shown { "exec 2>&1\nset -x\n" } else { "" })));
    if shown {
        eprintln!("{}", said.out);
    }
    said.expect(0);
}

macro_rules! guides {
    ($($name:ident: $guide:literal,)*) => {
        $(#[test] fn $name() { follow($guide); })*
        /// The pages that are followed.
        pub(crate) const GUIDES: &[&str] = &[$($guide),*];
    };
}

guides! {
    readme: "README.md",
    archive: "docs/archive.md",
    backup: "docs/backup.md",
    configuration: "docs/configuration.md",
    filestore: "docs/filestore.md",
    health: "docs/health.md",
    postgresql: "docs/postgresql.md",
    promotion: "docs/promotion.md",
    restart: "docs/restart.md",
    retention: "docs/retention.md",
    troubleshooting: "docs/troubleshooting.md",
}
