//! One stack with a password or a token wherever one can stand, every command on it - those that work, and those that
//! are refused, cut off, or told the secret by what they ask - and a search for any of them in all that is said and
//! written.
//!
//! Not searched: rows of MLflow's tables and files of artifacts in archives, backups and databases, which are copies of
//! what people stored and have to be exact; and what this test itself writes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::artifacts::{ObjectStore, object_store};
use crate::flows::Server;
use crate::health_database::scram_role;
use crate::support::listener::{Answer, Listener};
use crate::support::secrets::{
    AWKWARD, KEY, RIGHT, S3_SECRET, SECRET, SIGNATURE, TOKEN, below, found, in_command_lines, plant,
};
use crate::support::{Database, folder, migrate, mlops, postgres, root, sample};
use crate::targets::auth_store;

/// Says back what it was asked with, as proxies and frameworks in debug mode do. The first part of the path says how.
fn parrot() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream));
        }
    });
    port
}

fn answer(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
    reader.take(length.unwrap_or(0)).read_to_end(&mut Vec::new()).ok()?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let given = head.lines().find(|l| l.to_lowercase().starts_with("authorization: ")).unwrap_or("Authorization: none");
    // As it was sent, and as somebody who debugs reads it.
    let plain = given.rsplit(' ').next().and_then(|word| STANDARD.decode(word).ok()).unwrap_or_default();
    let said = format!(
        "{given} ({}) is refused at {path}: could not connect to postgresql://leaky:{RIGHT}@db/mlflow, nor with host=db \
         password={RIGHT}; retry https://ada:{SECRET}@blob.example.org/x?sv=1&sig={SIGNATURE}&token={TOKEN}",
        String::from_utf8_lossy(&plain),
    );
    let error = |code: &str| serde_json::json!({"error_code": code, "message": said}).to_string();
    let xml =
        || format!("<Error><Code>AccessDenied</Code><Message>{said}</Message><Resource>{path}</Resource></Error>");
    let (status, more, body) = match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "failed" => (500, String::new(), error("INTERNAL_ERROR")),
        "refused" => (400, String::new(), error("INVALID_PARAMETER_VALUE")),
        "coded" => (400, String::new(), serde_json::json!({"error_code": said, "message": said}).to_string()),
        "forbidden" => (403, String::new(), said.clone()),
        "unknown" => (401, String::new(), said.clone()),
        "detail" => (422, String::new(), serde_json::json!({"detail": said}).to_string()),
        "moved" => (302, format!("Location: https://ada:{SECRET}@login.example.org/sso?token={TOKEN}\r\n"), String::new()),
        "odd" => (200, String::new(), serde_json::json!({"experiments": said, "runs": said, "model_versions": said, "registered_models": said, "registered_model": said, "version": said}).to_string()),
        "objects" => (403, String::new(), xml()),
        "list" => (500, String::new(), xml()),
        "cut" => return None,
        _ => (200, String::new(), said.clone()),
    };
    let length = body.len();
    let first = format!("HTTP/1.1 {status} Status\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(first.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()
}

/// A pooler of PostgreSQL's that repeats how it was asked to connect.
fn pooler() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let text = format!(
                    "no such server: postgresql://leaky:{RIGHT}@db/mlflow (host=db user=leaky password={RIGHT}), tried {RIGHT}"
                );
                let mut fields = Vec::new();
                for (kind, value) in
                    [('S', "FATAL"), ('V', "FATAL"), ('C', "08P01"), ('M', &text), ('D', &text), ('H', &text)]
                {
                    fields.push(u8::try_from(kind).unwrap());
                    fields.extend(value.as_bytes());
                    fields.push(0);
                }
                fields.push(0);
                let mut message = vec![b'E'];
                message.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
                message.extend(fields);
                let _ = stream.write_all(&message);
            });
        }
    });
    port
}

/// Where everything is, and what was found.
struct Scene {
    /// What mlops writes.
    home: tempfile::TempDir,
    /// What this test writes.
    place: tempfile::TempDir,
    server: Server,
    objects: ObjectStore,
    database: Database,
    auth: Database,
    made: Value,
    parrot: u16,
    pooler: u16,
    hook: Listener,
    config: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    leaks: Vec<String>,
    /// Commands that ended otherwise than they should have: a leak is looked for in what a command does, not in that it
    /// does not run at all.
    astray: Vec<String>,
    run: BTreeSet<String>,
}

/// The database of basic-auth, one of its own.
fn users(place: &Path) -> Database {
    let (file, database) = (place.join("basic_auth.db"), postgres(15).database("secrets_auth"));
    auth_store(&rusqlite::Connection::open(&file).unwrap());
    migrate(place, &file, &database.url(), &[]).expect(0);
    database
}

impl Scene {
    fn new() -> Scene {
        let (home, place) = (folder(), folder());
        let path = place.path().to_owned();
        let objects = object_store(&path, &["--empty"]);
        let key = objects.access.key.as_ref().unwrap();
        plant(key.secret.expose_secret());
        let database = postgres(15).database("secrets");
        scram_role(&database, "leaky");
        database.execute("ALTER ROLE leaky SUPERUSER");
        let given = path.join("objects");
        let more =
            ["--serve-artifacts", "--object-store", given.to_str().unwrap(), "--artifact-root", "s3://artifacts/root"];
        let backend = database.sqlalchemy().replace("mlops@", &format!("leaky:{RIGHT}@"));
        let server = Server::start("3.4.0", &backend, &path, &more);
        let said = server.script("registry.py", &[]).expect(0);
        let made = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
        let hook = Listener::new(&[Answer::Says(200, "ok")]);
        let mut scene = Scene {
            home,
            place,
            server,
            objects,
            database,
            auth: users(&path),
            made,
            parrot: parrot(),
            pooler: pooler(),
            hook,
            config: String::new(),
            seen: Mutex::default(),
        };
        scene.places_of_others();
        scene.config = scene.written("mlops.toml", &scene.settings());
        scene
    }

    /// Addresses of other stores in the database, with what opens them.
    fn places_of_others(&self) {
        let user = format!("ada:{SECRET}@");
        let signed = format!("?sv=2024&sig={SIGNATURE}&X-Amz-Signature={TOKEN}");
        self.database.execute(&format!(
            "UPDATE runs SET artifact_uri = 'ftp://{user}files.example.org/runs/' || run_uuid WHERE name = 'sweep';
             UPDATE runs SET artifact_uri = 'https://blob.example.org/runs/' || run_uuid || '{signed}' WHERE name = 'worse';
             UPDATE model_versions SET source = 'https://{user}blob.example.org/model{signed}' WHERE name = 'doubled';
             UPDATE model_versions SET source = 's3://{user}artifacts/model', storage_location = 's3://{user}artifacts/model'
             WHERE name = 'gone';
             UPDATE model_versions SET source = 'abfss://{user}box.dfs.example.org/model{signed}', storage_location = NULL WHERE name = 'a@b';
             INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time) VALUES
             ('elsewhere', 'wasbs://{user}box.blob.example.org/x{signed}', 'active', 1000, 1000),
             ('away', 'mlflow-artifacts://{user}mlflow.example.org/x', 'deleted', 1000, 1000);
             INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, end_time, lifecycle_stage, deleted_time, artifact_uri,
             source_type, source_name, user_id) SELECT repeat('d', 32), 'old', experiment_id, 'FINISHED', 1000, 2000, 'deleted', 3000,
             'sftp://{user}files.example.org/old{signed}', 'LOCAL', 'https://{user}git.example.org/x.git', 'ann'
             FROM experiments WHERE name = 'away';
             INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, end_time, lifecycle_stage, artifact_uri,
             source_type, source_name, user_id) SELECT repeat('e', 32), 'stale', experiment_id, 'FAILED', 1000, 2000, 'active',
             'sftp://{user}files.example.org/stale{signed}', 'LOCAL', '', 'ann' FROM experiments WHERE name = 'elsewhere';
             INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.source.git.repoURL', 'https://{user}git.example.org/x.git', repeat('e', 32));
             INSERT INTO params (key, value, run_uuid) VALUES ('dsn', 'postgresql://leaky:{RIGHT}@db/features', repeat('e', 32));"
        ));
    }

    /// A file of the test's own, that only its owner reads.
    fn written(&self, name: &str, text: &str) -> String {
        let path = self.place.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// The PostgreSQL database with its password.
    fn store(&self) -> String {
        self.of(&self.database, RIGHT)
    }

    fn of(&self, database: &Database, password: &str) -> String {
        database.sqlalchemy().replace("mlops@", &format!("leaky:{password}@"))
    }

    fn url(&self) -> String {
        self.server.url.replace("http://", &format!("http://ada:{SECRET}@"))
    }

    /// The server that repeats what it is told.
    fn at(&self, how: &str) -> String {
        format!("http://ada:{SECRET}@127.0.0.1:{}/{how}", self.parrot)
    }

    fn settings(&self) -> String {
        let key = self.objects.access.key.as_ref().unwrap();
        let (port, endpoint) = (self.hook.port, self.objects.access.endpoint.as_ref().unwrap());
        let (url, store, parrot) = (self.url(), self.store(), self.at("failed"));
        let (id, secret) = (&key.id, key.secret.expose_secret());
        let auth = self.of(&self.auth, RIGHT);
        format!(
            "tracking_uri = \"{url}\"\nbackend_store_uri = \"{store}\"\nauth_store_uri = \"{auth}\"\n\
             artifact_root = \"s3://artifacts/root\"\n\
             [s3]\nendpoint_url = \"{endpoint}\"\naccess_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n\
             [notify]\nping = \"http://127.0.0.1:{port}/{KEY}?token={TOKEN}\"\n\
             webhook = \"http://127.0.0.1:{port}/services/{KEY}?token={TOKEN}\"\n\
             [[probe]]\nname = \"page\"\nurl = \"{parrot}/page?token={TOKEN}\"\n\
             [[probe]]\nname = \"said\"\nurl = \"{said}\"\nexpect = [\".a > 1\"]\n\
             [[probe]]\nname = \"moved\"\nurl = \"{moved}\"\n\
             [[probe]]\nname = \"sql\"\nquery = \"SELECT 'postgresql://leaky:{RIGHT}@db/x'\"\ndatabase = \"{store}\"\nexpect = [\"sql > 1\"]\n\
             [[probe]]\nname = \"pool\"\nquery = \"SELECT 1\"\ndatabase = \"{pool}\"\n\
             [[probe]]\nname = \"shell\"\ncommand = \"echo curl: cannot open http://ada:{SECRET}@127.0.0.1/?token={TOKEN} >&2; exit 3\"\n\
             [[probe]]\nname = \"word\"\ncommand = \"echo http://ada:{SECRET}@127.0.0.1/?token={TOKEN}\"\nexpect = [\"word > 1\"]\n\
             [promote.models.\"by-run\"]\ncheck = [\"echo could not reach http://ada:{SECRET}@127.0.0.1/?token={TOKEN} >&2; exit 1\"]\n\
             [[cleanup.policy]]\nkind = \"runs\"\nolder_than = \"90d\"\n\
             [[cleanup.policy]]\nkind = \"purge\"\nolder_than = \"90d\"\n\
             [[cleanup.policy]]\nkind = \"orphans\"\nolder_than = \"24h\"\n",
            said = self.at("said"),
            moved = self.at("moved"),
            pool = self.pool(),
        )
    }

    fn pool(&self) -> String {
        format!("postgresql://leaky:{RIGHT}@127.0.0.1:{}/mlflow?sslmode=disable", self.pooler)
    }

    /// Runs a command and keeps what it tells that it should not.
    fn run(&self, codes: &[i32], arguments: &[&str]) -> String {
        self.run_with(codes, &[], arguments)
    }

    fn run_with(&self, codes: &[i32], environment: &[(&str, &str)], arguments: &[&str]) -> String {
        let mut command = mlops(self.home.path());
        // What reaches the server over its own way is not what this is about; what nobody asks for is never told.
        command.env("MLOPS_CONFIG", &self.config).env("PGPASSWORD", TOKEN).env("PGAPPNAME", "secrets");
        command.env("ROLE_PASSWORD", AWKWARD).envs(environment.iter().copied());
        let output = command.args(arguments).args(["-vv"]).output().unwrap();
        let code = output.status.code().unwrap_or(-1);
        let words = arguments.join(" ");
        let mut seen = self.seen.lock().unwrap();
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            seen.leaks.extend(found(bytes).map(|found| format!("{words}\n    {name}: {found}")));
        }
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if !codes.contains(&code) || String::from_utf8_lossy(&output.stderr).contains("panicked") {
            let err = String::from_utf8_lossy(&output.stderr);
            let err: Vec<&str> = err.lines().filter(|l| !l.contains(" INFO ") && !l.contains("DEBUG ")).collect();
            let tail = |text: &str| text.chars().skip(text.chars().count().saturating_sub(900)).collect::<String>();
            seen.astray.push(format!("{words}: {code}, not {codes:?}\n{}\n{}", tail(&out), tail(&err.join("\n"))));
        }
        seen.run.insert(words);
        out
    }

    /// The same for people and as a document, of what changes nothing.
    fn both(&self, codes: &[i32], arguments: &[&str]) -> String {
        self.run(codes, arguments);
        self.run(codes, &[arguments, &["--output", "json"]].concat())
    }
}

/// Moving, looking at and mending databases.
fn databases(scene: &Scene) {
    let path = |name: &str| scene.path(name);
    let source = sample(2_000).display().to_string();
    let store = scene.store();
    let server = postgres(15);
    let [to, from_archive, pooled, hurt] = ["a", "b", "c", "d"].map(|name| server.database(&format!("secrets_{name}")));
    let [to, other, wrong] = [scene.of(&to, RIGHT), scene.of(&from_archive, RIGHT), scene.of(&pooled, SECRET)];
    let moved = ["migrate", "sqlite-to-pg", "--source", &source, "--target"];
    scene.both(&[0], &[&moved[..], &[&to, "--dry-run"]].concat());
    scene.run(&[0], &[&moved[..], &[&to, "--certificate", &path("certificate.json"), "--progress", "json"]].concat());
    scene.both(&[9], &[&moved[..], &[&to]].concat());
    scene.both(&[7], &[&moved[..], &[&wrong]].concat());
    scene.both(&[7], &[&moved[..], &[&scene.pool()]].concat());
    // What refuses a statement says so in words that name where it stands.
    hurt.execute(&format!(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION
         'could not connect to postgresql://leaky:{RIGHT}@db/audit' USING DETAIL = 'host=db password={RIGHT}',
         HINT = 'see https://ada:{SECRET}@wiki.example.org/?token={TOKEN}'; END$$;
         CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse();"
    ));
    scene.both(&[7], &[&moved[..], &[&scene.of(&hurt, RIGHT)]].concat());
    scene.both(&[0], &["db", "info", &store]);
    scene.both(&[0, 5], &["db", "doctor", &store]);
    scene.both(&[0, 5], &["db", "doctor", &to, "--print"]);
    scene.both(&[0], &["db", "doctor", &to, "--fix", "--yes"]);
    for command in ["info", "doctor"] {
        scene.both(&[6], &["db", command, &wrong]);
        scene.both(&[6], &["db", command, &scene.pool()]);
        scene.run(&[6], &["db", command, &format!("postgresql://leaky:{RIGHT}@127.0.0.1:1/d?connect_timeout=2")]);
        for bad in [
            "mysql://leaky:PW@h/d",
            "postgresql://leaky:PW@h:port/d",
            "postgresql:leaky:PW@h/d",
            "postgresql://leaky:PW@h/d?password=PW&colour=PW",
        ] {
            scene.both(&[2, 3], &["db", command, &bad.replace("PW", SECRET)]);
        }
    }

    let archive = path("store.tar");
    scene.run(&[0], &["migrate", "export", &store, "--file", &archive, "--dry-run"]);
    scene.run(
        &[0],
        &["migrate", "export", &store, "--file", &archive, "--certificate", &path("export.json"), "--output", "json"],
    );
    scene.both(&[6], &["migrate", "export", &wrong, "--file", &path("none.tar")]);
    scene.run(&[0], &["migrate", "import", &archive, "--target", &other, "--certificate", &path("import.json")]);
    scene.both(&[7], &["migrate", "import", &archive, "--target", &scene.pool()]);
    // Others work on that store meanwhile.
    scene.both(&[0, 5], &["migrate", "verify", "--source", &store, "--target", &archive]);
    from_archive.execute(
        "UPDATE runs SET artifact_uri = artifact_uri || '/x'; UPDATE model_versions SET source = source || 'x'",
    );
    scene.both(&[5], &["migrate", "verify", "--source", &store, "--target", &other]);

    let maintenance = scene.of(&server.maintenance(), RIGHT);
    let names = ["--role", "secrets_role", "--database", "secrets_e", "--password-env", "ROLE_PASSWORD"];
    scene.both(&[0], &[&["db", "init", &maintenance], &names[..], &["--print"]].concat());
    scene.run(&[0], &[&["db", "init", &maintenance], &names[..], &["--schema", "3.4.0", "--yes"]].concat());
    scene.run(&[0], &[&["db", "init", &maintenance], &names[..], &["--output", "json"]].concat());
    scene.both(&[7], &[&["db", "init", &scene.pool()], &names[..]].concat());
    scene.run(&[0], &["demo", "--only-sample", "--metrics", "2000", "--file", &path("demo.db"), "--output", "json"]);
    scene.run(&[7], &["demo", "--metrics", "2000", "--file", &path("demo2.db"), "--target", &wrong]);
}

fn backups(scene: &Scene) {
    let place = scene.path("backups");
    let from = ["--from", place.as_str()];
    scene.run(&[2], &["backup", "create", "--to", &place, "--dry-run"]);
    let said = scene.run(&[0, 4], &["backup", "--to", &place, "--output", "json"]);
    let id = serde_json::from_str::<Value>(&said)
        .map_or_else(|_| "latest".to_owned(), |d| d["result"]["id"].as_str().unwrap_or("latest").to_owned());
    scene.run(&[0, 4], &["backup", "create", "--file", &scene.path("backup.tar")]);
    scene.both(&[0], &[&["backup", "list"], &from[..]].concat());
    scene.both(&[0], &[&["backup", "show", &id], &from[..]].concat());
    scene.both(&[0], &[&["backup", "verify", "--all"], &from[..]].concat());
    scene.run(&[0], &[&["backup", "verify", "--drill", &id], &from[..]].concat());
    scene
        .both(&[0, 4, 6, 7], &[&["backup", "verify", "--drill", "--drill-on", &scene.pool(), &id], &from[..]].concat());
    for command in ["pin", "unpin"] {
        scene.both(&[0], &[&["backup", command, &id], &from[..]].concat());
    }
    scene.both(&[0], &[&["backup", "prune", "--keep-last", "1", "--dry-run"], &from[..]].concat());
    scene.run(&[0], &[&["backup", "prune", "--keep-last", "1", "--yes"], &from[..]].concat());
    let (again, artifacts) = (postgres(15).database("secrets_again"), scene.path("restored"));
    let restored = ["restore", &id, "--from", &place, "--artifact-root", &artifacts, "--to"];
    let (to, auth) = (scene.of(&again, RIGHT), scene.path("auth.db"));
    scene.both(&[0], &[&restored[..], &[&to, "--auth-to", &auth, "--dry-run"]].concat());
    scene.run(&[0, 4], &[&restored[..], &[&to, "--auth-to", &auth, "--yes"]].concat());
    scene.both(&[9], &[&restored[..], &[&to, "--auth-to", &auth]].concat());
    scene.both(&[7], &[&restored[..], &[&scene.of(&again, SECRET), "--auth-to", &auth]].concat());
    scene.both(&[7], &[&restored[..], &[&scene.pool(), "--auth-to", &auth]].concat());

    // What fails: the database, the object store, the place of backups, whoever is told of it.
    let parrot = format!("http://127.0.0.1:{}/objects", scene.parrot);
    let endpoint = [("MLFLOW_S3_ENDPOINT_URL", parrot.as_str())];
    let stranger = [
        ("AWS_ACCESS_KEY_ID", "AKIASTRANGER"),
        ("AWS_SECRET_ACCESS_KEY", S3_SECRET),
        ("AWS_SESSION_TOKEN", "s3ss10n-e41f77"),
    ];
    let hooks = [("MLOPS_NOTIFY_WEBHOOK", scene.at("forbidden")), ("MLOPS_NOTIFY_PING", scene.at("moved"))];
    let hooks: Vec<(&str, &str)> = hooks.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let places =
        [["s3://artifacts/backups", "ftp://ada:PW@h/x?sig=PW"], ["s3://forbidden/x", "s3://ada:PW@artifacts/x"]];
    for (output, places) in ["table", "json"].into_iter().zip(places) {
        let create = ["backup", "--to", &place, "--output", output];
        scene.run(&[6], &[&create[..], &["--backend-store-uri", &scene.pool()]].concat());
        scene.run_with(&[3, 4, 6, 8], &endpoint, &create);
        scene.run_with(&[3, 4, 6, 8], &stranger, &create);
        scene.run_with(&[0, 4], &hooks, &create);
        for far in places {
            let far = far.replace("PW", SECRET);
            scene.run_with(
                &[0, 2, 3, 4, 6, 7, 8, 11],
                &endpoint,
                &["backup", "list", "--from", &far, "--output", output],
            );
            scene.run_with(&[2, 3, 6, 7, 8, 11], &stranger, &["backup", "--to", &far, "--output", output]);
            scene.run(&[2, 3, 4, 6, 7, 8, 9], &[&create[..], &["--artifact-root", &far]].concat());
        }
    }
}

/// Health in all its forms, well and not.
fn looks(scene: &Scene) {
    for output in ["table", "json", "nagios", "prometheus", "markdown"] {
        scene.run(&[0, 1, 2, 3], &["health", "--output", output, "--timeout", "10s"]);
    }
    let (textfile, incident) = (scene.path("mlops.prom"), scene.path("incident.md"));
    scene.run(
        &[0, 1, 2, 3],
        &["health", "--deep", "--textfile", &textfile, "--incident", &incident, "--backup-to", &scene.path("backups")],
    );
    scene.both(&[0], &["health", "--dry-run"]);
    let (pool, store) = (scene.pool(), scene.store());
    let wrong = store.replace(RIGHT, SECRET);
    for (how, output) in [
        ("failed", "table"),
        ("forbidden", "json"),
        ("unknown", "markdown"),
        ("moved", "nagios"),
        ("odd", "json"),
        ("cut", "table"),
    ] {
        let url = scene.at(how);
        let hook = format!("{url}/{KEY}?token={TOKEN}");
        let store = if how == "failed" { &pool } else { &wrong };
        scene.run(
            &[2, 3],
            &[
                "health",
                "--output",
                output,
                "--timeout",
                "8s",
                "--tracking-uri",
                &url,
                "--backend-store-uri",
                store,
                "--notify",
                &hook,
                "--ping",
                &hook,
            ],
        );
    }
    let endpoint = format!("http://127.0.0.1:{}/objects", scene.parrot);
    scene.run_with(
        &[1, 2, 3],
        &[("MLFLOW_S3_ENDPOINT_URL", &endpoint)],
        &["health", "--only", "artifacts.*", "--output", "json"],
    );
}

/// The registry, clean-ups and verifications of the server itself.
fn stack(scene: &Scene) {
    let path = |name: &str| scene.path(name);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (good, logged) = (text(&scene.made["good"]["id"]), text(&scene.made["logged"]["id"]));
    scene.both(&[0], &["models", "list", "--metric", "rmse"]);
    for what in ["forecast", "doubled", "doubled/1", "gone/1", "a@b/1", "by-run/1", &logged] {
        scene.both(&[0, 2], &["models", "show", what]);
    }
    scene.both(&[0, 4], &["models", "export"]);
    scene.run(&[0, 4], &["models", "export", "--files", &path("exported")]);
    scene.run(&[0], &["models", "register", "--run", &good, "--name", "made", "--dry-run"]);
    scene.run(&[0], &["models", "register", "--run", &good, "--name", "made", "--output", "json"]);
    for address in [
        "https://ada:PW@blob.example.org/x?sig=PW",
        "s3://ada:PW@artifacts/x",
        "https://artifacts.example.org/nothing?X-Amz-Signature=PW",
    ] {
        scene.both(
            &[0, 2, 3, 5, 6, 8],
            &["models", "register", "--source", &address.replace("PW", SECRET), "--name", "made", "--dry-run"],
        );
    }
    let promoted =
        |codes: &[i32], more: &[&str]| scene.run(codes, &[&["promote", "--model", "forecast"], more].concat());
    promoted(&[0], &["--version", "4", "--dry-run"]);
    promoted(&[0], &["--version", "4", "--yes", "--reason", "because", "--output", "json"]);
    scene.both(&[0], &["rollback", "--model", "forecast", "--dry-run"]);
    scene.run(&[0], &["rollback", "--model", "forecast", "--yes", "--output", "json"]);
    scene.both(&[5], &["promote", "--model", "by-run", "--latest", "--to", "Staging", "--yes"]);
    scene.both(&[0, 5, 9], &["promote", "--model", "doubled", "--version", "1", "--yes", "--require-signature"]);
    scene.both(&[0], &["models", "history", "forecast"]);

    let snapshot = path("a.snap");
    scene.run(&[0], &["verify", "snapshot", "--file", &snapshot]);
    scene.run(&[0], &["verify", "snapshot", "--file", &path("b.snap"), "--output", "json"]);
    scene.both(&[0, 5], &["verify", "compare", "--file", &snapshot, "--report", &path("same.md")]);
    scene.run(&[0, 4, 5], &["verify", "deployment", "--report", &path("deployment.md"), "--output", "json"]);
    let service = format!("probe={}/x?token={TOKEN}", scene.at("failed"));
    scene.run(&[0, 2, 4, 5, 8], &["verify", "deployment", "--service", &service, "--report", &path("service.md")]);
    let writers = ["verify", "concurrency", "--writers", "1", "--runs", "1", "--metrics", "2"];
    scene.run(&[0, 5], &[&writers[..], &["--report", &path("writers.md"), "--output", "json"]].concat());
    let restart = format!("echo cannot reach http://ada:{SECRET}@127.0.0.1/?token={TOKEN} >&2; exit 1");
    for output in ["table", "json"] {
        let report = path(&format!("restart-{output}.md"));
        let persistence =
            ["verify", "persistence", "--restart-cmd", &restart, "--experiments", "1", "--output", output];
        scene.run(&[7], &[&persistence[..], &["--report", &report]].concat());
    }

    scene.both(&[0], &["cleanup", "runs", "--older-than", "90d", "--dry-run"]);
    let done = scene.run(&[0], &["cleanup", "runs", "--older-than", "90d", "--yes", "--output", "json"]);
    let batch = serde_json::from_str::<Value>(&done).map_or(String::new(), |d| text(&d["result"]["batch"]));
    scene.both(&[0], &["cleanup", "undo"]);
    scene.run(&[0, 2], &["cleanup", "undo", &batch, "--yes"]);
    scene.both(&[0], &["cleanup", "experiments", "--older-than", "90d", "--name", "else*", "--dry-run"]);
    scene.both(&[0, 4], &["cleanup", "policy", "--dry-run"]);
    scene.both(&[0, 4, 6, 9], &["cleanup", "orphans", "--sole-owner", "--dry-run"]);
    scene.both(&[4, 9], &["cleanup", "purge", "--older-than", "1d"]);
    scene.both(&[0, 4], &["cleanup", "purge", "--older-than", "1d", "--dry-run"]);
    scene.run(
        &[0, 4],
        &["cleanup", "purge", "--older-than", "1d", "--backup-first", &path("purged.tar"), "--yes", "--output", "json"],
    );
    // Run and version are as they were, and their places are others.
    scene.database.execute(
        "UPDATE runs SET artifact_uri = artifact_uri || '&x=1' WHERE name = 'worse';
         UPDATE model_versions SET source = source || '&x=1' WHERE name = 'doubled'; DELETE FROM tags WHERE run_uuid = repeat('e', 32)",
    );
    scene.both(&[5], &["verify", "compare", "--file", &snapshot, "--report", &path("other.md")]);
}

/// Every command that asks a server, of one that says back what it was told.
fn parroted(scene: &Scene) {
    let file = scene.path("p.snap");
    let commands: [&[&str]; 14] = [
        &["models", "list"],
        &["models", "show", "forecast"],
        &["models", "show", "forecast/3"],
        &["models", "history", "forecast"],
        &["models", "export"],
        &["models", "register", "--run", "a", "--name", "made"],
        &["promote", "--model", "forecast", "--latest", "--yes"],
        &["rollback", "--model", "forecast", "--yes"],
        &["cleanup", "runs", "--older-than", "90d", "--yes"],
        &["cleanup", "experiments", "--older-than", "90d", "--yes"],
        &["cleanup", "undo", "20260101T000000Z-00000000", "--yes"],
        &["verify", "snapshot", "--file", &file],
        &["verify", "deployment"],
        &["verify", "concurrency", "--writers", "1", "--runs", "1"],
    ];
    for (number, how) in
        ["failed", "refused", "coded", "forbidden", "unknown", "detail", "moved", "odd"].iter().enumerate()
    {
        for (turn, command) in commands.iter().enumerate() {
            let report = scene.path(&format!("parrot-{number}-{turn}.md"));
            let url = scene.at(how);
            let mut arguments = [command, &["--tracking-uri", &url][..]].concat();
            if (number + turn) % 2 == 0 {
                arguments.extend(["--output", "json"]);
            }
            if command[0] == "verify" && command[1] != "snapshot" {
                arguments.extend(["--report", &report]);
            }
            scene.run(&[2, 3, 5, 6, 7, 8], &arguments);
        }
    }
    // A token in the place of user and password.
    let url = format!("http://127.0.0.1:{}/failed", scene.parrot);
    for output in ["table", "json"] {
        let token = [("MLFLOW_TRACKING_TOKEN", TOKEN)];
        scene.run_with(&[8], &token, &["models", "list", "--tracking-uri", &url, "--output", output]);
    }
    // A password with all that is written otherwise in an address, in JSON, in a header.
    let named = [("MLFLOW_TRACKING_USERNAME", "ada"), ("MLFLOW_TRACKING_PASSWORD", AWKWARD)];
    for how in ["failed", "detail", "forbidden", "odd"] {
        let url = format!("http://127.0.0.1:{}/{how}", scene.parrot);
        scene.run_with(&[3, 8], &named, &["models", "list", "--tracking-uri", &url]);
    }
    for url in ["ftp://ada:PW@h/", "http://ada:PW@/", "http://ada:PW@h:port/", "http://ada:pa/PW@h/", "ada:PW@h"] {
        scene.both(&[2], &["models", "list", "--tracking-uri", &url.replace("PW", SECRET)]);
    }
    // No store is told of, so these fail for their database or for want of one.
    let (pool, wrong) = (scene.pool(), scene.store().replace(RIGHT, SECRET));
    for store in [&pool, &wrong] {
        scene.both(&[6, 7], &["cleanup", "purge", "--older-than", "1d", "--yes", "--backend-store-uri", store]);
        scene.both(&[6, 7], &["cleanup", "orphans", "--sole-owner", "--yes", "--backend-store-uri", store]);
        scene.both(&[4, 6, 7], &["cleanup", "policy", "--yes", "--backend-store-uri", store]);
        scene.both(&[6, 7], &["verify", "persistence", "--restart-cmd", "true", "--backend-store-uri", store]);
    }
}

/// Settings: good ones, bad ones, those that stand elsewhere.
fn settings(scene: &Scene) {
    scene.both(&[0], &["config", "show"]);
    scene.both(&[0, 5], &["config", "check"]);
    let stranger = [
        ("AWS_ACCESS_KEY_ID", "AKIASTRANGER"),
        ("AWS_SECRET_ACCESS_KEY", S3_SECRET),
        ("AWS_SESSION_TOKEN", "s3ss10n-e41f77"),
    ];
    scene.run_with(&[5], &stranger, &["config", "check", "--output", "json"]);
    let (two, empty) =
        (scene.written("two", &format!("{SECRET}\n{TOKEN}\n")), scene.written("one", &format!("{SECRET}\n")));
    let told = format!("echo {SECRET}; echo the vault refuses the password {SECRET} of ada >&2; exit 7");
    for (number, (text, code)) in [
        (format!("tracking_uri = \"{}\"\ntracking_token_command = \"{told}\"\n", scene.server.url), [3, 5]),
        (format!("tracking_password_file = \"{two}\"\ntracking_username = \"ada\"\n"), [3, 5]),
        (format!("tracking_password_file = \"{empty}\"\ntracking_password = \"{SECRET}\"\n"), [3, 3]),
        ("tracking_token_env = \"HOOK\"\n".to_owned(), [0, 5]),
        (format!("backend_store_uri_command = \"echo postgresql:/{SECRET}@h/d\"\n"), [2, 5]),
        (format!("backend_store_uri = \"postgresql://leaky:{SECRET}@h:port/d\"\n"), [2, 5]),
        (format!("tracking_uri = \"http//ada:{SECRET}@h\"\n"), [2, 5]),
        (format!("tracking_pasword = \"{SECRET}\"\n"), [3, 3]),
        (format!("tracking_password = [\"{SECRET}\"]\n"), [3, 3]),
        (format!("tracking_password = \"{SECRET}\nx = 1\n"), [3, 3]),
        (format!("tracking_password = {SECRET}\n"), [3, 3]),
        (format!("[s3]\nsecret_access_key = {{ a = \"{SECRET}\" }}\n"), [3, 3]),
        (format!("[s3]\nsecret_access_key = \"{SECRET}\"\n"), [0, 5]),
        (format!("[s3]\nsecret_acess_key = \"{SECRET}\"\n"), [3, 3]),
        (format!("[notify]\nwebhook = [\"https://h/{KEY}\"]\n"), [3, 3]),
        (format!("[notify]\nwebhook = \"hooks/{KEY}\"\nping = \"ftp://h/{KEY}\"\n"), [3, 3]),
        (format!("[profile.x]\nbackend_store_password = \"{SECRET}\"\n[profile.x.notify]\nping = 7{SECRET}\n"), [3, 3]),
    ]
    .into_iter()
    .enumerate()
    {
        let file = scene.written("try.toml", &text);
        let hook = format!("http://h/{KEY}");
        for (turn, command) in ["show", "check"].into_iter().enumerate() {
            let output = if (number + turn) % 2 == 0 { "table" } else { "json" };
            scene.run_with(
                &[0, 2, code[0], code[1]],
                &[("HOOK", &hook)],
                &["config", command, "--config", &file, "--output", output],
            );
        }
        scene.run(&[0, 1, 2, 3], &["health", "--config", &file, "--timeout", "3s", "--skip", "*"]);
        scene.run(&[0, 2, 3, 8], &["models", "list", "--config", &file]);
    }
    let first = scene.path("first.toml");
    let init = ["config", "init", &first, "--tracking-uri", &scene.url()[..], "--backend-store-uri", &scene.store()];
    scene.run(&[0], &[&init[..], &["--dry-run"]].concat());
    scene.run(&[0], &[&init[..], &["--output", "json"]].concat());
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    scene.run(&[0], &["completions", "bash"]);
    scene.run(&[0], &["man", &scene.path("man")]);
}

/// Each command that the help lists.
fn all_commands() -> Vec<String> {
    let help = fs::read_to_string(root().join("tests/golden/transcripts/help.txt")).unwrap();
    let all: Vec<&str> = help.lines().filter_map(|l| l.strip_prefix("==== mlops ")).collect();
    let leaf = |name: &&&str| **name == "backup" || !all.iter().any(|other| other.starts_with(&format!("{name} ")));
    all.iter().filter(leaf).map(|name| (*name).to_owned()).collect()
}

/// Rows of MLflow's tables, files of artifacts and SQLite databases: copies of what people have stored. And the one file
/// whose job it is to hold what it was told, readable by its owner alone.
fn data(name: &str) -> bool {
    if name == "first.toml" {
        return true;
    }
    let database = Path::new(name).extension().is_some_and(|e| e == "db");
    let rows = name.contains("/data/") && name.contains(".copy");
    database || rows || name.starts_with("restored/") || name.starts_with("backups/pool/")
}

#[test]
fn no_secret_is_told_or_written_by_any_command() {
    let scene = Scene::new();
    let (watched, over) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (shared, watched, over) = (&scene, &watched, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                watched.lock().unwrap().extend(in_command_lines());
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let all: [fn(&Scene); 6] = [databases, backups, looks, stack, parroted, settings];
        let workers: Vec<_> = all.map(|work| scope.spawn(move || work(shared))).into_iter().collect();
        let ended: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|end| end.unwrap());
    });
    let mut seen = scene.seen.into_inner().unwrap();
    seen.leaks.extend(watched.into_inner().unwrap());
    let files = below(scene.home.path(), &data);
    seen.leaks.extend(files);
    // Whoever is told hears the address, which is theirs, and nothing else.
    for asked in scene.hook.asked() {
        seen.leaks.extend(found(asked.body.as_bytes()).map(|found| format!("what the hook was told: {found}")));
    }
    for name in all_commands() {
        let ran = seen.run.iter().any(|words| *words == name || words.starts_with(&format!("{name} ")));
        assert!(ran, "`mlops {name}` is not among the commands of this test");
    }
    assert!(
        seen.leaks.is_empty() && seen.astray.is_empty(),
        "{} leaks:\n{}\n\n{} astray:\n{}",
        seen.leaks.len(),
        seen.leaks.join("\n"),
        seen.astray.len(),
        seen.astray.join("\n----\n")
    );
}
