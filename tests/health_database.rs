//! The layer *database* of `mlops health` and the addresses of *security*: each test breaks a real database and sees that
//! check turn, and no unrelated one.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mlops::domain::address::StoreAddress;
use mlops::domain::health::checks::CHECKS;
use mlops::domain::health::settings::{Amount, HealthSettings, Judgement};
use mlops::domain::health::{Reading, Status, follow_dependencies};
use mlops::engine::cancel::Cancel;
use mlops::health::database::{Question, Seen, ask, expected};
use mlops::health::security;

use crate::support::proxy::Proxy;
use crate::support::secrets::RIGHT;
use crate::support::{Database, folder, migrate, postgres, sample, wait_for};

/// A question for all checks of the layer but the place of a file: test folders are temporary.
fn question(address: StoreAddress, work: &Path, seconds: u64) -> Question {
    let wanted = CHECKS.iter().map(|c| c.id.to_owned()).filter(|id| id != "database.path").collect();
    Question {
        address,
        wanted,
        settings: HealthSettings::default(),
        deep: false,
        deadline: Instant::now() + Duration::from_secs(seconds),
        work_dir: work.to_owned(),
        id: "health-test".to_owned(),
        cancel: Cancel::new(),
    }
}

/// What is found, as the runner judges it.
fn found(question: Question) -> (Vec<Reading>, Seen) {
    let mut readings = Vec::new();
    let seen = ask(question, &mut |reading| readings.push(reading));
    follow_dependencies(&mut readings);
    (readings, seen)
}

fn look(address: StoreAddress) -> (Vec<Reading>, Seen) {
    let work = folder();
    found(question(address, work.path(), 30))
}

fn of<'a>(readings: &'a [Reading], id: &str) -> &'a Reading {
    readings.iter().find(|r| r.id == id).unwrap_or_else(|| panic!("{id} is not told: {readings:#?}"))
}

/// The checks that are not fine by themselves: what only stands on another is left out.
fn turned(readings: &[Reading]) -> Vec<(&str, Status)> {
    let own = readings.iter().filter(|r| r.status != Status::Ok && r.root().is_none());
    own.map(|r| (r.id.as_str(), r.status)).collect()
}

/// A database with MLflow's rows.
fn filled(name: &str) -> Database {
    static MADE: Mutex<bool> = Mutex::new(false);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*made {
        let home = folder();
        migrate(home.path(), &sample(2_000), &postgres(15).database("health_base").url(), &["-q"]).expect(0);
        *made = true;
    }
    postgres(15).database_like(name, "health_base")
}

fn address(database: &Database) -> StoreAddress {
    StoreAddress::Postgres(Box::new(database.address.clone()))
}

fn parse(url: &str) -> StoreAddress {
    StoreAddress::parse(url).unwrap()
}

fn limited(id: &str, warning: f64) -> HealthSettings {
    let (layer, name) = id.split_once('.').unwrap();
    let judgement = Judgement { warning: Some(Amount::Number(warning)), ..Judgement::default() };
    let mut settings = HealthSettings::default();
    settings.limits.entry(layer.to_owned()).or_default().insert(name.to_owned(), judgement);
    settings
}

#[test]
fn a_sound_postgres_is_well_and_every_check_is_told_once() {
    let database = filled("health_sound");
    let (readings, seen) = look(address(&database));
    assert_eq!(turned(&readings), [], "{readings:#?}");
    let mut ids: Vec<&str> = readings.iter().map(|r| r.id.as_str()).collect();
    let left: Vec<&str> = seen.left.iter().map(|(id, _)| *id).collect();
    assert_eq!(left, ["database.statements"], "the extension is not there");
    let mut wanted = expected(&address(&database)).to_vec();
    wanted.retain(|id| !left.contains(id));
    ids.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    assert_eq!(seen.revision.as_deref(), Some("dc11669786a5"));
    assert!(!seen.experiments.is_empty());
    assert!(of(&readings, "database.size").measure.unwrap().value > 1e6);
    let connections = of(&readings, "database.connections").measure.unwrap();
    assert!(connections.value > 0.0 && connections.value < 90.0);
    assert!(of(&readings, "database.schema").summary == "as MLflow makes it");
}

#[test]
fn a_connection_that_fails_says_why() {
    let server = postgres(15);
    let database = filled("health_refused");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = parse(&format!("postgresql://mlflow:hunter2@127.0.0.1:{port}/mlflow"));
    let mut absent = database.address.clone();
    absent.database = Some("health_absent".to_owned());
    database.execute("DROP ROLE IF EXISTS health_few; CREATE ROLE health_few LOGIN CONNECTION LIMIT 1");
    let mut few = database.address.clone();
    few.user = Some("health_few".to_owned());
    let few_database = Database { address: few.clone(), programs: database.programs.clone() };
    let _only = few_database.client();
    let mut socket = database.address.clone();
    socket.hosts = vec![("/nowhere".to_owned(), None)];
    let pg = |address| StoreAddress::Postgres(Box::new(address));
    scram_role(&server.maintenance(), "health_scram");
    let mut wrong = database.address;
    wrong.user = Some("health_scram".to_owned());
    let nothing = wrong.clone();
    wrong.password = Some("hunter2".into());
    for (address, cause) in [
        (gone, "does not run"),
        (pg(absent), "no database of that name"),
        (pg(few), "connections are in use"),
        (pg(socket), "socket is in another folder"),
        (pg(wrong), "password is wrong"),
        (pg(nothing), "asks for a password"),
    ] {
        let (readings, _) = look(address);
        assert_eq!(turned(&readings), [("database.connect", Status::Critical)], "{readings:#?}");
        let connect = of(&readings, "database.connect");
        assert!(connect.cause.as_deref().unwrap_or_default().contains(cause), "{connect:#?}");
        assert!(connect.hint.is_some() && connect.measure.is_none());
        assert_eq!(of(&readings, "database.schema").root(), Some("database.connect"));
        assert!(!format!("{readings:?}").contains("hunter2"), "a password is told");
    }
}

/// A role of the shared cluster that needs its password, which is [`RIGHT`].
pub(crate) fn scram_role(admin: &Database, role: &str) {
    static CHANGED: Mutex<()> = Mutex::new(());
    let _one = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    admin.execute(&format!(
        "SET password_encryption = 'scram-sha-256'; DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD '{RIGHT}'"
    ));
    let file = admin.socket().with_file_name("data").join("pg_hba.conf");
    let rules = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("local all {role} scram-sha-256\n{rules}")).unwrap();
    admin.execute("SELECT pg_reload_conf()");
    let mut stranger = admin.address.clone();
    stranger.user = Some(role.to_owned());
    wait_for("the rule", Duration::from_secs(20), || {
        let postgres = mlops::store::postgres::connect::Postgres::new(&stranger, "test", &Cancel::new()).unwrap();
        postgres.connect().is_err().then_some(())
    });
}

fn through(proxy: &Proxy, host: &str, database: &Database, user: &str) -> StoreAddress {
    let name = database.address.database.as_deref().unwrap();
    parse(&format!("postgresql://{user}@{host}:{}/{name}", proxy.port))
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let database = filled("health_stalled");
    for at_once in [true, false] {
        let proxy = Proxy::before(database.socket());
        if at_once {
            proxy.stall();
        }
        let work = folder();
        let question = question(through(&proxy, "127.0.0.1", &database, "mlops"), work.path(), 3);
        let begun = Instant::now();
        let mut readings = Vec::new();
        ask(question, &mut |reading| {
            // In the middle: the first answers were given.
            proxy.stall();
            readings.push(reading);
        });
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let told = readings.len();
        follow_dependencies(&mut readings);
        assert_eq!(told, expected(&address(&database)).len(), "{readings:#?}");
        let turned = turned(&readings);
        assert_eq!(turned.len(), 1, "{readings:#?}");
        assert_eq!(turned[0].1, Status::Critical);
        assert_eq!(turned[0].0 == "database.connect", at_once, "{turned:?}");
        assert_ne!(of(&readings, "database.schema").status, Status::Ok);
    }
}

#[test]
fn a_statement_that_waits_is_counted_and_named() {
    let database = filled("health_blocked");
    let mut holder = database.client();
    holder.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(4711)").unwrap();
    let mut waiter = database.client();
    let token = waiter.cancel_token();
    let waiting = std::thread::spawn(move || waiter.batch_execute("SELECT pg_advisory_lock(4711), 'hunter2'"));
    let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND objid = 4711";
    wait_for("the wait", Duration::from_secs(20), || (database.number(sql) == 1).then_some(()));
    let work = folder();
    let mut asked = question(address(&database), work.path(), 30);
    let (readings, _) = found(asked.clone());
    assert_eq!(turned(&readings), [], "two who just met are no problem: {readings:#?}");
    asked.settings = limited("database.blocked", 0.0);
    asked.deadline = Instant::now() + Duration::from_secs(30);
    let (readings, _) = found(asked);
    assert_eq!(turned(&readings), [("database.blocked", Status::Warning)], "{readings:#?}");
    let blocked = of(&readings, "database.blocked");
    assert_eq!(blocked.measure.unwrap().value, 1.0);
    assert!(blocked.evidence[0].contains("SELECT pg_advisory_lock(4711), '...'"), "{blocked:#?}");
    assert!(blocked.evidence[0].contains("idle in transaction"), "{blocked:#?}");
    assert!(blocked.hint.as_deref().unwrap().contains("pg_terminate_backend("));
    assert!(!format!("{readings:?}").contains("hunter2"));
    token.cancel_query(postgres::NoTls).unwrap();
    assert!(waiting.join().unwrap().is_err());
}

#[test]
fn an_open_transaction_has_an_age() {
    let database = filled("health_long");
    let mut open = database.client();
    open.batch_execute("BEGIN; SELECT 1").unwrap();
    let work = folder();
    let mut question = question(address(&database), work.path(), 30);
    question.settings = limited("database.longest-transaction", 0.0);
    let (readings, _) = found(question);
    assert_eq!(turned(&readings), [("database.longest-transaction", Status::Warning)], "{readings:#?}");
    let longest = of(&readings, "database.longest-transaction");
    assert!(longest.summary.contains("idle in transaction"), "{longest:#?}");
    drop(open);
}

#[test]
fn what_the_doctor_finds_turns_the_schema_alone() {
    let database = filled("health_sequence");
    database.execute("SELECT setval('experiments_experiment_id_seq', 1, false)");
    let (readings, _) = look(address(&database));
    assert_eq!(turned(&readings), [("database.schema", Status::Critical)], "{readings:#?}");
    let schema = of(&readings, "database.schema");
    assert!(schema.evidence[0].contains("sequence-behind"), "{schema:#?}");
    assert!(schema.hint.as_deref().unwrap().contains("mlops db doctor"));
    let database = filled("health_index");
    database.execute("DROP INDEX index_metrics_run_uuid");
    let (readings, _) = look(address(&database));
    assert_eq!(turned(&readings), [("database.schema", Status::Warning)], "{readings:#?}");
}

#[test]
fn another_revision_is_named() {
    let database = filled("health_revision");
    for (change, status, words) in [
        (
            "UPDATE alembic_version SET version_num = 'ffffffffffff'",
            Status::Unknown,
            "is not one that this mlops knows",
        ),
        ("UPDATE alembic_version SET version_num = '71994744cf8e'", Status::Critical, "the version table says"),
        ("INSERT INTO alembic_version VALUES ('dc11669786a5')", Status::Critical, "names 2 revisions"),
        ("DELETE FROM alembic_version", Status::Critical, "interrupted creation"),
    ] {
        database.execute(change);
        let (readings, seen) = look(address(&database));
        assert_eq!(turned(&readings), [("database.revision", status)], "{change}: {readings:#?}");
        assert!(of(&readings, "database.revision").summary.contains(words), "{readings:#?}");
        assert_eq!(seen.revision, None);
    }
    let (readings, _) = look(address(&postgres(15).database("health_empty")));
    assert_eq!(turned(&readings), [("database.revision", Status::Critical)], "{readings:#?}");
}

#[test]
fn a_role_without_rights_is_told_which() {
    let database = filled("health_rights");
    database.execute("DROP ROLE IF EXISTS health_nobody; CREATE ROLE health_nobody LOGIN");
    let mut own = database.address.clone();
    own.user = Some("health_nobody".to_owned());
    let _other = database.client();
    let (readings, _) = look(StoreAddress::Postgres(Box::new(own)));
    let expected = [("database.longest-transaction", Status::Unknown), ("database.revision", Status::Unknown)];
    assert_eq!(turned(&readings), expected, "{readings:#?}");
    assert!(of(&readings, "database.longest-transaction").hint.as_deref().unwrap().contains("GRANT pg_monitor"));
    assert!(of(&readings, "database.revision").hint.as_deref().unwrap().contains("pg_read_all_data"));
}

#[test]
fn pg_stat_statements_that_is_not_loaded_is_no_problem_until_it_is_asked_for() {
    let database = filled("health_statements");
    database.execute("CREATE SCHEMA stats; CREATE EXTENSION pg_stat_statements SCHEMA stats");
    let (_, seen) = look(address(&database));
    let (id, why) = &seen.left[0];
    assert!(*id == "database.statements" && why.contains("shared_preload_libraries"), "{seen:#?}");
    let work = folder();
    let mut question = question(address(&database), work.path(), 30);
    question.settings = limited("database.statements", 1.0);
    let (readings, _) = found(question);
    assert_eq!(of(&readings, "database.statements").status, Status::Unknown);
}

/// A file with MLflow's rows in a folder of its own.
fn file() -> (tempfile::TempDir, PathBuf) {
    let place = folder();
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    (place, file)
}

fn sqlite(file: &Path) -> StoreAddress {
    StoreAddress::Sqlite(file.to_owned())
}

#[test]
fn a_sound_sqlite_file_is_well_and_untouched() {
    let (place, file) = file();
    let before = fs::read(&file).unwrap();
    let (readings, seen) = look(sqlite(&file));
    assert_eq!(turned(&readings), [], "{readings:#?}");
    assert_eq!(readings.len(), expected(&sqlite(&file)).len() - 1);
    assert_eq!(seen.revision.as_deref(), Some("dc11669786a5"));
    assert_eq!(of(&readings, "database.size").measure.unwrap().value, before.len() as f64);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn a_sqlite_file_that_is_none_says_why() {
    let (place, file) = file();
    fs::write(place.path().join("empty.db"), "").unwrap();
    fs::write(place.path().join("text.db"), "hello").unwrap();
    drop(file);
    for (name, words) in [("absent.db", "moved or deleted"), ("empty.db", "first start"), ("text.db", "wrote over it")]
    {
        let (readings, _) = look(sqlite(&place.path().join(name)));
        assert_eq!(turned(&readings), [("database.connect", Status::Critical)], "{readings:#?}");
        assert!(
            of(&readings, "database.connect").cause.as_deref().unwrap_or_default().contains(words),
            "{readings:#?}"
        );
    }
}

#[test]
fn a_place_that_does_not_keep_a_file_is_a_warning() {
    let (_place, file) = file();
    let work = folder();
    for (path, words) in [(file.clone(), "temporary"), (PathBuf::from("mlflow.db"), "relative")] {
        let mut question = question(sqlite(&path), work.path(), 30);
        question.wanted = vec!["database.path".to_owned()];
        let (readings, _) = found(question);
        // Where the tests' own folder is none for temporary files, only the relative one is seen.
        if words == "relative" || file.starts_with("/tmp") {
            assert_eq!(turned(&readings), [("database.path", Status::Warning)]);
            assert!(readings[0].summary.contains(words), "{readings:#?}");
        }
    }
}

#[test]
fn a_damaged_page_turns_the_integrity_alone() {
    let (_place, file) = file();
    let table = "SELECT rootpage FROM sqlite_master WHERE name = 'metrics'";
    let connection = rusqlite::Connection::open(&file).unwrap();
    let page: u32 = connection.query_row(table, [], |r| r.get(0)).unwrap();
    let size: u32 = connection.query_row("PRAGMA page_size", [], |r| r.get(0)).unwrap();
    drop(connection);
    let mut raw = fs::OpenOptions::new().write(true).open(&file).unwrap();
    raw.seek(SeekFrom::Start(u64::from(page - 1) * u64::from(size))).unwrap();
    raw.write_all(&[0xff; 64]).unwrap();
    drop(raw);
    let (readings, _) = look(sqlite(&file));
    assert_eq!(turned(&readings), [("database.integrity", Status::Critical)], "{readings:#?}");
    assert_eq!(of(&readings, "database.schema").root(), Some("database.integrity"));
}

#[test]
fn another_revision_of_a_sqlite_file_is_named() {
    let (_place, file) = file();
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'", []).unwrap();
    drop(connection);
    let (readings, _) = look(sqlite(&file));
    assert_eq!(turned(&readings), [("database.revision", Status::Unknown)], "{readings:#?}");
}

#[test]
fn a_file_that_stays_locked_takes_no_connection() {
    let (_place, file) = file();
    let writer = rusqlite::Connection::open(&file).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE; DELETE FROM latest_metrics").unwrap();
    let (readings, _) = look(sqlite(&file));
    assert_eq!(turned(&readings), [("database.connect", Status::Critical)], "{readings:#?}");
    assert!(of(&readings, "database.connect").summary.contains("stayed locked"));
    writer.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_stranger_who_is_let_in_is_critical_and_no_tls_a_warning() {
    let server = postgres(15);
    let database = filled("health_stranger");
    scram_role(&server.maintenance(), "health_guarded");
    let proxy = Proxy::before(database.socket());
    let judge = |address: &StoreAddress| {
        security::database(address, "health-test", Instant::now() + Duration::from_secs(20), &Cancel::new())
    };
    // Linux takes 0.0.0.0 as this machine, and it is no loopback address.
    let open = judge(&through(&proxy, "0.0.0.0", &database, "mlops"));
    assert_eq!(open.status, Status::Critical, "{open:#?}");
    let guarded = judge(&through(&proxy, "0.0.0.0", &database, &format!("health_guarded:{RIGHT}")));
    assert_eq!(guarded.status, Status::Warning, "{guarded:#?}");
    assert!(guarded.summary.contains("without TLS") && !format!("{guarded:?}").contains(RIGHT));
    assert_eq!(judge(&through(&proxy, "127.0.0.1", &database, "mlops")).status, Status::Ok);
    assert_eq!(judge(&address(&database)).status, Status::Ok);
    proxy.stall();
    let begun = Instant::now();
    assert_eq!(judge(&through(&proxy, "0.0.0.0", &database, "mlops")).status, Status::Unknown);
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_file_that_everybody_may_write_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let (_place, file) = file();
    let judge = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        security::database(&sqlite(&file), "health-test", until, &Cancel::new()).status
    };
    assert_eq!((judge(0o644), judge(0o666)), (Status::Ok, Status::Warning));
}
