//! `mlops db init`: role, database and tables on real servers, from nothing, again, after an interruption, and beside
//! what is there with other properties.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mlops::domain::address::StoreAddress;
use mlops::store::postgres::private::PrivateCluster;

use crate::flows;
use crate::support::secrets::AWKWARD as PASSWORD;
use crate::support::{
    Database, Said, folder, migrate, mlops, postgres, programs, python, run, sample, verify, wait_for,
};

fn init(home: &Path, url: &str, more: &[&str]) -> Said {
    let mut command = mlops(home);
    command.args(["db", "init", "-vv"]).args((!url.is_empty()).then_some(url)).args(more).env("DB_PASSWORD", PASSWORD);
    let said = Said::of(command.output().unwrap());
    for text in [&said.out, &said.err] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("SCRAM-SHA-256$") || more.contains(&"--print"), "{text}");
    }
    said
}

/// The states of the steps by their words.
fn states(said: &Said) -> Vec<(String, String)> {
    let document = said.json();
    assert_eq!(document["schema"], "mlops.db.init.v1");
    let text = |step: &serde_json::Value, key: &str| step[key].as_str().unwrap().to_owned();
    document["result"]["steps"].as_array().unwrap().iter().map(|s| (text(s, "step"), text(s, "state"))).collect()
}

#[track_caller]
fn all(said: &Said, state: &str) {
    assert!(states(said).iter().all(|(_, s)| s == state), "{}", said.out);
}

/// The database that was made, as its own role.
fn own(admin: &Database, role: &str, database: &str) -> Database {
    let mut address = admin.address.clone();
    address.user = Some(role.to_owned());
    address.database = Some(database.to_owned());
    Database { address, programs: admin.programs.clone() }
}

fn made_once_and_found_again(version: u32) {
    let home = folder();
    let server = postgres(version);
    let admin = server.maintenance();
    let arguments = ["--role", "once", "--password-env", "DB_PASSWORD", "--output", "json"];
    let planned = init(home.path(), &admin.url(), &[&arguments[..], &["--dry-run"]].concat()).expect(0);
    all(&planned, "would_be_made");
    assert_eq!(admin.number("SELECT count(*) FROM pg_roles WHERE rolname = 'once'"), 0, "a dry run makes nothing");

    all(&init(home.path(), &admin.url(), &arguments).expect(0), "made");
    let facts = "SELECT concat_ws(' ', rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, pg_encoding_to_char(encoding), datallowconn,
                        datconnlimit, has_database_privilege('public', d.oid, 'CONNECT'))
                 FROM pg_roles r JOIN pg_database d ON datdba = r.oid WHERE rolname = 'once' AND datname = 'once'";
    assert_eq!(admin.texts(facts), ["t f f f UTF8 t -1 f"]);
    let before = admin.texts("SELECT concat(r.xmin, ' ', d.xmin) FROM pg_authid r, pg_database d WHERE rolname = 'once' AND datname = 'once'");
    all(&init(home.path(), &admin.url(), &arguments).expect(0), "was_there");
    let said = init(home.path(), &admin.url(), &["--role", "once"]).expect(0);
    assert!(said.out.contains("Everything is there already"), "{}", said.out);
    let after = admin.texts("SELECT concat(r.xmin, ' ', d.xmin) FROM pg_authid r, pg_database d WHERE rolname = 'once' AND datname = 'once'");
    assert_eq!(before, after, "the second run changed something");

    let own = own(&admin, "once", "once");
    migrate(home.path(), &sample(2_000), &own.url(), &["-q"]).expect(0);
    verify(home.path(), sample(2_000).to_str().unwrap(), &own.url()).expect(0);
    own.execute("CREATE TEMPORARY TABLE t (x int); CREATE TABLE more (x int)");
    all(&init(home.path(), &admin.url(), &arguments).expect(0), "was_there");
    assert!(
        init(home.path(), &admin.url(), &["--role", "once", "--schema", "2.9.2"]).expect(9).err.contains("not empty")
    );
}

#[test]
fn made_once_and_found_again_on_postgresql_15() {
    made_once_and_found_again(15);
}

#[test]
fn made_once_and_found_again_on_postgresql_18() {
    made_once_and_found_again(18);
}

#[test]
fn the_password_works_and_stands_in_no_log() {
    let home = folder();
    let cluster = PrivateCluster::start(&programs(15), &std::env::temp_dir()).unwrap();
    let admin = Database { address: cluster.address("postgres"), programs: programs(15) };
    let place = Path::new(&admin.address.hosts[0].0).to_owned();
    admin.execute("ALTER SYSTEM SET log_statement = 'all'");
    fs::write(place.join("data/pg_hba.conf"), "local all mlops trust\nlocal all all scram-sha-256\n").unwrap();
    admin.execute("SELECT pg_reload_conf()");
    wait_for("the new settings", Duration::from_secs(10), || {
        (admin.texts("SHOW log_statement") == ["all"]).then_some(())
    });
    let file = home.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let from_file = ["--password-file", file.to_str().unwrap()];
    let said = init(home.path(), &admin.url(), &from_file).expect(0);
    assert!(said.out.contains("postgresql://mlflow:***@") && said.out.contains("percent-encoded"), "{}", said.out);

    let mut own = own(&admin, "mlflow", "mlflow");
    own.address.password = Some(PASSWORD.to_owned().into());
    assert_eq!(own.texts("SELECT current_user::text"), ["mlflow"]);
    let psql = |password: &str| {
        let mut psql = Command::new(programs(15).join("psql"));
        psql.args(["-X", "-h", place.to_str().unwrap(), "-U", "mlflow", "-c", "SELECT 1"]).env("PGPASSWORD", password);
        psql.stdin(Stdio::null()).output().unwrap().status.success()
    };
    assert!(psql(PASSWORD) && !psql("another"));

    // Another password is a change, which needs consent; then the old one is no more.
    let another = home.path().join("another");
    fs::write(&another, "another").unwrap();
    let arguments = ["--password-file", another.to_str().unwrap()];
    let said = init(home.path(), &admin.url(), &arguments).expect(9);
    assert!(said.err.contains("it has another one (ALTER ROLE \"mlflow\" PASSWORD '***'"), "{}", said.err);
    init(home.path(), &admin.url(), &[&arguments[..], &["--dry-run"]].concat()).expect(9);
    assert!(psql(PASSWORD));
    init(home.path(), &admin.url(), &[&arguments[..], &["--yes"]].concat()).expect(0);
    assert!(psql("another") && !psql(PASSWORD));

    // An administrator who may not read verifiers finds it out by logging in.
    admin.execute("CREATE ROLE boss LOGIN CREATEROLE CREATEDB PASSWORD 'another'; GRANT mlflow TO boss");
    let url = admin.url().replace("mlops@", "boss:another@");
    let said = init(home.path(), &url, &[&arguments[..], &["--output", "json"]].concat()).expect(0);
    all(&said, "was_there");
    assert!(states(&said).contains(&("password".to_owned(), "was_there".to_owned())), "{}", said.out);
    let said = init(home.path(), &url, &from_file).expect(9);
    assert!(said.err.contains("it has another one"), "{}", said.err);

    let log = fs::read_to_string(place.join("log")).unwrap();
    assert!(log.contains("CREATE ROLE \"mlflow\""), "statements are not logged: this proves nothing");
    assert!(!log.contains("hunter2"));
    // Once: the test itself, for the administrator.
    assert_eq!(log.matches("PASSWORD 'another'").count(), 1);
}

#[test]
fn a_password_that_is_none_is_refused() {
    let home = folder();
    let (empty, two) = (home.path().join("empty"), home.path().join("two"));
    fs::write(&empty, "\n").unwrap();
    fs::write(&two, "one\ntwo\n").unwrap();
    for (arguments, words) in [
        (["--password-env", "NOT_SET"], "NOT_SET: it is not set"),
        (["--password-file", empty.to_str().unwrap()], "is empty"),
        (["--password-file", two.to_str().unwrap()], "more than one line"),
        (["--password-file", "/nowhere"], "/nowhere"),
    ] {
        let said = init(home.path(), "postgresql://postgres@localhost/", &arguments).expect(3);
        assert!(said.err.contains(words), "{}", said.err);
    }
}

/// An empty schema as a release's own first start makes it, the rows of its migrations included.
fn mlflows_own(release: &str, database: &Database) {
    let code = "import sys, sqlalchemy as s, mlflow.store.db.utils as u
u._initialize_tables(s.create_engine(sys.argv[1]))";
    let output = Command::new(python(release)).args(["-c", code, &database.sqlalchemy()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn dump(database: &Database, what: &str) -> String {
    let mut command = Command::new(database.programs.join("pg_dump"));
    command.args([what, "--no-owner", "--inserts", "-h", &database.address.hosts[0].0]);
    command.args(["-U", "mlops", "-d", database.address.database.as_deref().unwrap()]);
    crate::support::without_keys(&Said::of(command.output().unwrap()).expect(0).out)
}

fn tables_are_mlflows_own(release: &str, version: u32) {
    let home = folder();
    let server = postgres(version);
    let admin = server.maintenance();
    let native = server.database(&format!("native_{release}"));
    mlflows_own(release, &native);
    let name = format!("init {release}");
    let arguments = ["--role", &name, "--schema", release, "--output", "json"];
    let said = init(home.path(), &admin.url(), &arguments).expect(0);
    all(&said, "made");
    let store = said.json()["result"]["backend_store_uri"].as_str().unwrap().to_owned();
    let own = own(&admin, &name, &name);
    for what in ["--schema-only", "--data-only"] {
        assert!(dump(&native, what) == dump(&own, what), "{what} differs for {release}");
    }
    assert_eq!(
        own.texts("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"),
        [name.as_str()]
    );
    all(&init(home.path(), &admin.url(), &arguments).expect(0), "was_there");

    let place = folder();
    let server =
        flows::Server::start(release, &store.replace("postgresql:", "postgresql+psycopg2:"), place.path(), &[]);
    server.script("fill.py", &["--artifact-dir", place.path().join("own").to_str().unwrap()]).expect(0);
    server.exercise();
    drop(server);
    assert_eq!(own.number("SELECT count(*) FROM experiments WHERE experiment_id = 0 AND name = 'Default'"), 1);
    all(&init(home.path(), &admin.url(), &arguments).expect(0), "was_there");
    let other = if release == "2.9.2" { "3.4.0" } else { "2.9.2" };
    let said = init(home.path(), &admin.url(), &["--role", &name, "--schema", other]).expect(9);
    assert!(said.err.contains("not empty") && said.err.contains("mlflow db upgrade"), "{}", said.err);
}

#[test]
fn tables_are_mlflows_own_2_9_2() {
    tables_are_mlflows_own("2.9.2", 15);
}

#[test]
fn tables_are_mlflows_own_3_4_0() {
    tables_are_mlflows_own("3.4.0", 15);
}

#[test]
fn tables_are_mlflows_own_3_17_2() {
    tables_are_mlflows_own("3.17.2", 18);
}

#[test]
fn what_is_asked_for_wrongly_is_told() {
    let home = folder();
    let url = "postgresql://postgres@localhost/";
    for (arguments, words) in [
        (["--schema", "2.9.7"], "the nearest is 2.9.2"),
        (["--schema", "acf3f17fdcc8"], "the nearest is acf3f17fdcc7 (MLflow 2.8.0 to"),
        (["--role", "pg_mlflow"], "reserves the name"),
        (["--database", "template1"], "what other databases are made of"),
        (["--role", &"ü".repeat(32)], "63 bytes"),
    ] {
        let said = init(home.path(), url, &arguments).expect(2);
        assert!(said.err.contains(words), "{}", said.err);
    }
    assert!(run(home.path(), &["db", "init", "mlflow.db"]).expect(2).err.contains("SQLite needs no role"));
    run(home.path(), &["db", "init"]).expect(2);
    assert!(run(home.path(), &["db", "init", "postgresql://x@127.0.0.1:1/"]).expect(7).err.contains("no connection"));
}

fn who_lacks_the_rights_is_told_the_statement(version: u32) {
    let home = folder();
    let admin = postgres(version).maintenance();
    admin.execute("DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN");
    let clerk = own(&admin, "clerk", "postgres");
    let arguments = ["--role", "by_clerk", "--schema", "3.4.0", "--output", "json"];
    let said = init(home.path(), &clerk.url(), &arguments).expect(7);
    let hint = said.json()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("ALTER ROLE \"clerk\" CREATEROLE CREATEDB;"), "{hint}");
    init(home.path(), &clerk.url(), &[&arguments[..], &["--dry-run"]].concat()).expect(7);
    admin.execute("ALTER ROLE clerk CREATEROLE CREATEDB");
    // With these it is enough: he joins the role that he makes.
    let said = init(home.path(), &clerk.url(), &arguments).expect(0);
    all(&said, "made");
    assert!(states(&said).iter().any(|(part, _)| part == "membership"), "{}", said.out);
    all(&init(home.path(), &clerk.url(), &arguments).expect(0), "was_there");
    assert_eq!(
        own(&admin, "by_clerk", "by_clerk")
            .texts("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"),
        ["by_clerk"]
    );

    // A database that he may not even connect to.
    admin.execute("DROP ROLE IF EXISTS closed");
    init(home.path(), &admin.url(), &["--role", "closed"]).expect(0);
    let said = init(home.path(), &clerk.url(), &["--role", "closed"]).expect(7);
    assert!(said.err.contains("GRANT \"closed\" TO \"clerk\";"), "{}", said.err);

    // Somebody else's role: since PostgreSQL 16 CREATEROLE is not enough to join it.
    admin.execute("CREATE ROLE others LOGIN");
    let said = init(home.path(), &clerk.url(), &["--role", "others"]);
    if version < 16 {
        said.expect(0);
    } else {
        let said = said.expect(7);
        assert!(said.err.contains("GRANT \"others\" TO \"clerk\";"), "{}", said.err);
        assert_eq!(admin.number("SELECT count(*) FROM pg_database WHERE datname = 'others'"), 0);
        admin.execute("GRANT others TO clerk");
        init(home.path(), &clerk.url(), &["--role", "others"]).expect(0);
    }
}

#[test]
fn who_lacks_the_rights_is_told_the_statement_on_postgresql_15() {
    who_lacks_the_rights_is_told_the_statement(15);
}

#[test]
fn who_lacks_the_rights_is_told_the_statement_on_postgresql_18() {
    who_lacks_the_rights_is_told_the_statement(18);
}

const ODD: &[&str] =
    &["O'Brien \"q\"", "UPPER", "größe=1 host=x", "back\\slash", "sp ace", "a;b--", "%41 :x {y}", "$user"];

#[test]
fn odd_names_are_names() {
    let home = folder();
    for version in [15, 18] {
        let admin = postgres(version).maintenance();
        for name in ODD {
            let database = format!("{name} db");
            let arguments =
                ["--role", name, "--database", &database, "--output", "json", "--password-env", "DB_PASSWORD"];
            all(&init(home.path(), &admin.url(), &[&arguments[..], &["--schema", "2.9.2"]].concat()).expect(0), "made");
            all(
                &init(home.path(), &admin.url(), &[&arguments[..], &["--schema", "2.9.2"]].concat()).expect(0),
                "was_there",
            );
            let own = own(&admin, name, &database);
            assert_eq!(own.texts("SELECT current_user::text || current_database()"), [format!("{name}{database}")]);
            // The address that it tells leads there.
            let said = init(home.path(), &admin.url(), &arguments).json();
            let told = said["result"]["backend_store_uri"].as_str().unwrap().replace(":***@", "@");
            let StoreAddress::Postgres(address) = StoreAddress::parse(&told).unwrap() else { panic!("{told}") };
            assert_eq!((address.user, address.database), (own.address.user, own.address.database), "{told}");
        }
    }
}

/// What was begun by a run that ended between two steps.
#[test]
fn an_interrupted_run_is_completed() {
    let home = folder();
    let admin = postgres(15).maintenance();
    let closed =
        "CREATE DATABASE cut OWNER cut ENCODING 'UTF8' TEMPLATE template0 ALLOW_CONNECTIONS false CONNECTION LIMIT 0";
    for (begun, made) in [
        (vec!["CREATE ROLE cut LOGIN"], vec!["database", "connect", "schema", "tables"]),
        (vec!["CREATE ROLE cut LOGIN", closed], vec!["connect", "schema", "tables"]),
        (
            vec![
                "CREATE ROLE cut LOGIN",
                closed,
                "REVOKE CONNECT ON DATABASE cut FROM PUBLIC",
                "ALTER DATABASE cut ALLOW_CONNECTIONS true CONNECTION LIMIT -1",
            ],
            vec!["tables"],
        ),
    ] {
        for sql in begun {
            admin.execute(sql);
        }
        let said =
            init(home.path(), &admin.url(), &["--role", "cut", "--schema", "3.4.0", "--output", "json"]).expect(0);
        let found: Vec<String> = states(&said).into_iter().filter(|(_, s)| s == "made").map(|(p, _)| p).collect();
        assert_eq!(found, made);
        all(
            &init(home.path(), &admin.url(), &["--role", "cut", "--schema", "3.4.0", "--output", "json"]).expect(0),
            "was_there",
        );
        assert_eq!(own(&admin, "cut", "cut").tables().len(), 33);
        admin.execute("DROP DATABASE cut WITH (FORCE)");
        admin.execute("DROP ROLE cut");
    }
}

/// Killed at any moment, the next run ends with the whole.
#[test]
fn a_killed_run_is_completed() {
    let home = folder();
    let admin = postgres(15).maintenance();
    for round in 0..crate::support::rounds() {
        let arguments = ["db", "init", &admin.url(), "--role", "killed", "--schema", "3.17.2", "--output", "json"];
        let mut child = mlops(home.path()).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(round) * 37 % 400));
        let _ = child.kill();
        child.wait().unwrap();
        Said::of(mlops(home.path()).args(arguments).output().unwrap()).expect(0);
        all(&Said::of(mlops(home.path()).args(arguments).output().unwrap()).expect(0), "was_there");
        assert_eq!(own(&admin, "killed", "killed").tables().len(), 65);
        admin.execute("DROP DATABASE killed WITH (FORCE)");
        admin.execute("DROP ROLE killed");
    }
}

#[test]
fn what_is_there_is_changed_only_with_consent() {
    let home = folder();
    let admin = postgres(15).maintenance();
    admin.execute("CREATE ROLE other; CREATE ROLE differs NOLOGIN CREATEDB VALID UNTIL '2020-01-01'");
    admin.execute("CREATE DATABASE differs OWNER other TEMPLATE template0");
    let arguments = ["--role", "differs", "--schema", "2.9.2"];
    let said = init(home.path(), &admin.url(), &arguments).expect(9);
    for words in [
        "it may not log in",
        "VALID UNTIL is past",
        "ALTER ROLE \"differs\" LOGIN",
        "it belongs to other (ALTER DATABASE \"differs\" OWNER TO \"differs\";)",
    ] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    let said = init(home.path(), &admin.url(), &[&arguments[..], &["--dry-run"]].concat()).expect(9);
    assert!(
        said.out.contains("would be changed") && said.out.contains("Note: every role of this server"),
        "{}",
        said.out
    );
    let login = "SELECT count(*) FROM pg_roles WHERE rolname = 'differs' AND rolcanlogin";
    assert_eq!(admin.number(login), 0);
    let said = init(home.path(), &admin.url(), &[&arguments[..], &["--yes"]].concat()).expect(0);
    assert!(said.out.contains("has CREATEDB, which MLflow does not need"), "{}", said.out);
    assert_eq!(admin.number(login), 1);
    assert_eq!(own(&admin, "differs", "differs").tables().len(), 16);
    let said = init(home.path(), &admin.url(), &arguments).expect(0);
    assert!(said.out.contains("Everything is there already"), "{}", said.out);

    // Rights that somebody took away are given again.
    let owner = own(&admin, "differs", "differs");
    admin.execute("ALTER DATABASE differs OWNER TO differs");
    let mut inside = owner.address.clone();
    inside.user = admin.address.user.clone();
    let inside = Database { address: inside, programs: admin.programs.clone() };
    inside.execute(
        "ALTER SCHEMA public OWNER TO mlops; REVOKE ALL ON SCHEMA public FROM PUBLIC, differs, pg_database_owner",
    );
    init(home.path(), &admin.url(), &["--role", "differs"]).expect(0);
    owner.execute("CREATE TABLE public.more (x int)");
    inside.execute("DROP SCHEMA public CASCADE");
    init(home.path(), &admin.url(), &arguments).expect(0);
    assert_eq!(owner.tables().len(), 16);

    // What cannot be changed.
    admin.execute("CREATE DATABASE latin_init ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let said = init(home.path(), &admin.url(), &["--role", "nobody", "--database", "latin_init"]).expect(7);
    assert!(said.err.contains("an encoding cannot be changed"), "{}", said.err);
    assert_eq!(admin.number("SELECT count(*) FROM pg_roles WHERE rolname = 'nobody'"), 0, "nothing was begun");

    // Somebody's tables: found before anything is made.
    let taken = postgres(15).database("taken");
    taken.execute("CREATE TABLE experiments (x int)");
    let said =
        init(home.path(), &admin.url(), &["--role", "nobody", "--database", "taken", "--schema", "2.9.2"]).expect(9);
    assert!(said.err.contains("not empty"), "{}", said.err);
    assert_eq!(admin.number("SELECT count(*) FROM pg_roles WHERE rolname = 'nobody'"), 0, "nothing was begun");
}

#[test]
fn a_cluster_of_another_encoding_gets_a_utf8_database() {
    let home = folder();
    let cluster = PrivateCluster::start(&programs(15), &std::env::temp_dir()).unwrap();
    let admin = Database { address: cluster.address("postgres"), programs: programs(15) };
    let made = |name: &str| {
        init(home.path(), &admin.url(), &["--role", name, "--schema", "2.9.2"]).expect(0);
        let facts = "SELECT concat_ws(' ', pg_encoding_to_char(encoding), datcollate, datctype) FROM pg_database WHERE datname = ";
        admin.texts(&format!("{facts} '{name}'")).concat()
    };
    // The cluster has the locale C, which goes with any encoding.
    let set = "UPDATE pg_database SET encoding = pg_char_to_encoding('SQL_ASCII') WHERE datname = 'template0'";
    admin.execute(set);
    assert_eq!(made("ascii"), "UTF8 C C");
    // And now one that goes with LATIN1 only.
    admin.execute("UPDATE pg_database SET encoding = pg_char_to_encoding('LATIN1'), datcollate = 'de_DE', datctype = 'de_DE' WHERE datname = 'template0'");
    let utf8 = admin.texts(
        "SELECT collcollate::text FROM pg_collation WHERE collcollate IN ('C.utf8', 'C.UTF-8') AND collprovider = 'c'",
    );
    let locale = utf8.first().map_or("C", String::as_str);
    assert_eq!(made("latin"), format!("UTF8 {locale} {locale}"));
}

#[test]
fn two_at_once_do_not_trip() {
    let home = folder();
    // A server of its own: the lock is held for long.
    let cluster = PrivateCluster::start(&programs(18), &std::env::temp_dir()).unwrap();
    let admin = Database { address: cluster.address("postgres"), programs: programs(18) };
    let arguments = ["db", "init", &admin.url(), "--role", "twins", "--schema", "3.4.0", "--output", "json"];
    let children: Vec<_> = (0..4)
        .map(|_| mlops(home.path()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let said: Vec<Said> = children.into_iter().map(|c| Said::of(c.wait_with_output().unwrap()).expect(0)).collect();
    let makers = said.iter().filter(|s| states(s).iter().any(|(_, state)| state == "made")).count();
    assert_eq!(makers, 1);

    // Who holds the lock for long.
    let mut holder = admin.client();
    holder.batch_execute("SELECT pg_advisory_lock(hashtext('mlops'), hashtext('db init'))").unwrap();
    let said = init(home.path(), &admin.url(), &["--role", "late"]).expect(10);
    assert!(said.err.contains("makes roles and databases"), "{}", said.err);
}

#[test]
fn the_printed_script_does_the_same() {
    let home = folder();
    let admin = postgres(18).maintenance();
    for (index, name) in ODD.iter().enumerate() {
        let database = format!("{name} printed");
        let role = format!("{name} p");
        let mut arguments = vec!["--print", "--role", &role, "--database", &database];
        if index % 2 == 0 {
            arguments.extend(["--password-env", "DB_PASSWORD", "--schema", "3.17.2"]);
        }
        // No server is needed for it, nor an address.
        let script = init(home.path(), "", &arguments).expect(0).out;
        assert_eq!(script.contains("SCRAM-SHA-256$4096:"), index % 2 == 0, "{script}");
        let file = home.path().join("init.sql");
        fs::write(&file, &script).unwrap();
        for _ in 0..2 {
            let mut psql = Command::new(admin.programs.join("psql"));
            psql.args(["-X", "-q", "-h", &admin.address.hosts[0].0, "-U", "mlops", "-d", "postgres", "-f"]).arg(&file);
            let said = Said::of(psql.stdin(Stdio::null()).output().unwrap()).expect(0);
            assert!(said.err.is_empty(), "{}", said.err);
        }
        // What it made is what is made without it.
        let mut again = vec!["--role", &role, "--database", &database, "--output", "json"];
        again.extend(arguments.iter().skip(5));
        all(&init(home.path(), &admin.url(), &again).expect(0), "was_there");
    }
    let document = init(home.path(), "", &["--print", "--output", "json"]).expect(0).json();
    assert!(document["result"]["script"].as_str().unwrap().contains("CREATE ROLE"), "{document}");
}
