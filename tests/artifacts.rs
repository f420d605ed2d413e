//! The layer *artifacts* of `mlops health` on real folders, a real S3 protocol server and real MLflow servers: each
//! thing that is broken turns its own check and no other.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mlops::artifact::{ArtifactStore, PROBE_NAME, Presence, S3};
use mlops::domain::artifact_address::ArtifactAddress;
use mlops::domain::failure::Kind;
use mlops::domain::health::{Limits, Reading, Status};
use mlops::domain::object_storage::{S3Access, S3Key};
use mlops::domain::server::{Connection, ServerAddress};
use mlops::domain::tracking::View;
use mlops::engine::cancel::Cancel;
use mlops::health::artifacts::{self, Artifacts, NONE_GONE};
use mlops::mlflow::{Bounds, Client};

use crate::flows::Server;
use crate::support::{Killed, environment, folder, root, secrets, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);
const ID: &str = "20260114T071500Z-0123abcd";

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

fn place(address: &str, s3: &S3, server: Option<&str>) -> Artifacts {
    let bounds = Bounds { connect: Duration::from_secs(5), call: PATIENCE };
    let server = server.map(|url| Client::new(&Connection::to(ServerAddress::parse(url).unwrap()), bounds).unwrap());
    let root = (!address.is_empty()).then(|| ArtifactAddress::parse(address));
    Artifacts { root, s3: s3.clone(), server }
}

fn local(path: &Path) -> Artifacts {
    place(path.to_str().unwrap(), &S3::new(S3Access::default()), None)
}

/// What each check says, by the last part of its id; those that say nothing are left out.
fn all(place: &Artifacts, patience: Duration) -> BTreeMap<String, Reading> {
    let none = Limits::default();
    let cancel = Cancel::new();
    wait(async {
        let readings = [
            artifacts::root(place, patience).await,
            artifacts::disk(place, none, patience).await,
            artifacts::size(place, none, false, &cancel, patience).await,
            artifacts::versions(place, NONE_GONE, artifacts::MOST, patience).await,
            artifacts::write_tag(place, ID, none, patience).await,
            artifacts::write(place, ID, none, patience).await,
        ];
        readings.into_iter().flatten().map(|r| (r.id.clone(), r)).collect()
    })
}

/// The checks that are not fine.
fn broken(readings: &BTreeMap<String, Reading>) -> Vec<(&str, Status)> {
    readings.values().filter(|r| r.status != Status::Ok).map(|r| (r.id.as_str(), r.status)).collect()
}

fn tree(folder: &Path) {
    for (name, size) in [("0/a/artifacts/model.pkl", 1000), ("0/a/artifacts/sub/deep/x", 20), ("1/b/y", 3)] {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, vec![b'x'; size]).unwrap();
    }
    fs::create_dir(folder.join("empty")).unwrap();
}

#[test]
fn a_folder_that_is_well() {
    let home = folder();
    tree(home.path());
    let outside = folder();
    fs::write(outside.path().join("huge"), vec![0; 1 << 20]).unwrap();
    std::os::unix::fs::symlink(outside.path(), home.path().join("link")).unwrap();
    std::os::unix::fs::symlink(home.path(), home.path().join("1/loop")).unwrap();
    let left = home.path().join(format!("{PROBE_NAME}20200101T000000Z-00000000"));
    fs::write(&left, "of a run that was killed").unwrap();
    let young = home.path().join(format!("{PROBE_NAME}29990101T000000Z-00000000"));
    fs::write(&young, "").unwrap();

    let readings = all(&local(home.path()), PATIENCE);
    assert_eq!(broken(&readings), [], "{readings:#?}");
    let ids: Vec<&str> = readings.keys().map(String::as_str).collect();
    assert_eq!(ids, ["artifacts.disk", "artifacts.root", "artifacts.size", "artifacts.write"]);
    let size = &readings["artifacts.size"];
    let stale = "of a run that was killed".len() as f64;
    assert_eq!(size.measure.unwrap().value, 1023.0 + stale);
    assert_eq!(size.summary, "1.0 KiB in 5 files; 2 symbolic links not followed");
    assert!(!left.exists() && young.exists(), "a stale probe is removed and a young one is not");
    fs::remove_file(young).unwrap();
    assert!(probes(home.path()).is_empty());
    let disk = readings["artifacts.disk"].measure.unwrap();
    assert!(disk.value > 0.0 && disk.value <= 100.0, "{disk:?}");
}

fn probes(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|e| e.path());
    entries.filter(|p| p.to_str().unwrap().contains(PROBE_NAME)).collect()
}

#[test]
fn a_folder_that_is_gone_or_is_none_or_takes_nothing() {
    let home = folder();
    tree(home.path());
    let file = home.path().join("0/a/artifacts/model.pkl");
    for (path, says) in [
        (home.path().join("volume/mlruns"), "the nearest folder that is there is "),
        (file.clone(), "is not a folder"),
        (file.join("below"), "a file stands where a folder should be"),
    ] {
        let readings = all(&local(&path), PATIENCE);
        let root = &readings["artifacts.root"];
        assert_eq!(root.status, Status::Critical, "{readings:#?}");
        assert!(root.summary.contains(says), "{}", root.summary);
        assert!(readings.values().all(|r| r.status != Status::Ok || r.id == "artifacts.disk"), "{readings:#?}");
    }
    // A file system that takes no file, also from root.
    let readings = all(&local(Path::new("/proc/self/fdinfo")), PATIENCE);
    assert_eq!(broken(&readings), [("artifacts.write", Status::Critical)], "{readings:#?}");
}

/// The program of the test itself runs on a small file system of its own, which needs a namespace.
#[test]
fn a_disk_that_is_full_or_read_only_or_out_of_inodes() {
    let made = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status();
    if !made.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no namespaces here, so no small file system of one's own");
        return;
    }
    for (options, fill, says, disk) in [
        ("size=200k", "head -c 1M /dev/zero > \"$M/fill\" || true", "is full", Status::Critical),
        ("size=200k", "mount -o remount,ro \"$M\"", "read-only", Status::Ok),
        ("size=10M,nr_inodes=20", "for i in $(seq 30); do touch \"$M/$i\"; done || true", "is full", Status::Critical),
        ("size=1M", "head -c 970k /dev/zero > \"$M/fill\"", "", Status::Warning),
    ] {
        let home = folder();
        let script = format!(
            "M={}; mount -t tmpfs -o {options} none \"$M\" && {{ {fill}; }} 2>/dev/null; exec \"$@\"",
            home.path().display()
        );
        let output = Command::new("unshare")
            .args(["-rm", "sh", "-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "artifacts::told_of_a_folder", "--ignored", "--nocapture"])
            .env("MLOPS_TEST_FOLDER", home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line =
            |id: &str| said.lines().find_map(|l| l.strip_prefix(&format!("{id}: "))).unwrap_or_default().to_owned();
        assert!(output.status.success(), "{options}: {said} {}", String::from_utf8_lossy(&output.stderr));
        assert!(line("artifacts.disk").starts_with(disk.word()), "{options}: {said}");
        assert!(line("artifacts.root").starts_with("ok"), "{options}: {said}");
        let write = line("artifacts.write");
        assert!(if says.is_empty() { write.starts_with("ok") } else { write.contains(says) }, "{options}: {said}");
    }
}

#[test]
#[ignore = "a part of another test, which runs it on a file system of its own"]
fn told_of_a_folder() {
    let Ok(path) = std::env::var("MLOPS_TEST_FOLDER") else { return };
    for reading in all(&local(Path::new(&path)), PATIENCE).values() {
        println!("\n{}: {} {}", reading.id, reading.status.word(), reading.summary);
    }
    assert!(probes(Path::new(&path)).is_empty());
}

#[test]
fn counting_ends_in_time_and_says_that_it_is_not_all() {
    let home = folder();
    for folder in 0..40 {
        let path = home.path().join(folder.to_string());
        fs::create_dir(&path).unwrap();
        (0..250).for_each(|file| fs::write(path.join(file.to_string()), b"x").unwrap());
    }
    let place = local(home.path());
    let size =
        |needed, patience| wait(artifacts::size(&place, Limits::default(), needed, &Cancel::new(), patience)).unwrap();
    assert_eq!(size(false, PATIENCE).summary, "9.8 KiB in 10,000 files");
    let short = Duration::from_millis(2);
    let (shown, judged) = (size(false, short), size(true, short));
    // So short a time may be over before the first file is seen: then nothing is known at all.
    for (reading, status) in [(shown, Status::Ok), (judged, Status::Unknown)] {
        assert!(reading.measure.is_none(), "a part is never a number: {reading:?}");
        if reading.summary.contains("at least") {
            assert_eq!(reading.status, status, "{reading:?}");
        } else {
            assert_eq!((reading.status, reading.summary.contains("no answer")), (Status::Unknown, true), "{reading:?}");
        }
    }
    let cancelled = Cancel::new();
    cancelled.cancel(2);
    let store = ArtifactStore::Local(home.path().to_owned());
    let failure = wait(store.inventory(&cancelled, PATIENCE)).unwrap_err();
    assert_eq!(failure.kind, Kind::Interrupted(2));
}

/// moto's server, as long as it is kept.
pub(crate) struct ObjectStore {
    pub(crate) access: S3Access,
    pub(crate) _process: Killed,
}

pub(crate) fn object_store(home: &Path, more: &[&str]) -> ObjectStore {
    let ready = home.join("objects");
    let log = fs::File::create(home.join("objects.log")).unwrap();
    let child = Command::new(environment("moto").join("bin/python"))
        .arg(root().join("tests/mlflow/object_store.py"))
        .arg("--ready-file")
        .arg(&ready)
        .args(more)
        .env("HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut process = Killed(child);
    let told = wait_for("the object store", Duration::from_secs(90), || {
        if let Some(status) = process.0.try_wait().unwrap() {
            panic!("{status}: {}", fs::read_to_string(home.join("objects.log")).unwrap());
        }
        fs::read_to_string(&ready).ok()
    });
    let told: BTreeMap<String, String> = serde_json::from_str(&told).unwrap();
    secrets::plant(&told["secret"]);
    let key = S3Key { id: told["id"].clone(), secret: told["secret"].clone().into(), session_token: None };
    let access = S3Access {
        endpoint: Some(told["url"].clone()),
        key: Some(key),
        key_from: "the test".to_owned(),
        ..S3Access::default()
    };
    ObjectStore { access, _process: process }
}

#[test]
fn objects_of_s3() {
    let home = folder();
    let store = object_store(home.path(), &[]);
    let s3 = S3::new(store.access.clone());
    for bucket in ["s3://artifacts/many", "s3://artifacts/new/prefix", "s3://artifacts"] {
        let readings = all(&place(bucket, &s3, None), PATIENCE);
        assert_eq!(broken(&readings), [], "{readings:#?}");
        let ids: Vec<&str> = readings.keys().map(String::as_str).collect();
        assert_eq!(ids, ["artifacts.root", "artifacts.size", "artifacts.write"], "no disk is told of");
    }
    let size = |bucket| all(&place(bucket, &s3, None), PATIENCE)["artifacts.size"].summary.clone();
    assert_eq!(size("s3://artifacts/many"), "10.7 KiB in 1,100 files", "more than a page, and no probe stays");
    assert_eq!(size("s3://artifacts/root"), "1 B in 1 file", "what only begins alike is not below it");
    for (address, wanted) in [
        ("s3://artifacts/root/1/model", Presence::There),
        ("s3://artifacts/root/1/model/MLmodel", Presence::There),
        ("s3://artifacts/root/1/mod", Presence::Gone),
        ("s3://artifacts/roo", Presence::Gone),
    ] {
        let found = ArtifactStore::at(&ArtifactAddress::parse(address), &s3).unwrap().unwrap();
        assert_eq!(wait(found.holds_something(PATIENCE)).unwrap(), wanted, "{address}");
    }

    let wrong = |change: &dyn Fn(&mut S3Access)| {
        let mut access = store.access.clone();
        change(&mut access);
        S3::new(access)
    };
    let secret = "hunter2".to_owned();
    let bad_secret = wrong(&|a| a.key.as_mut().unwrap().secret = secret.clone().into());
    let stranger = wrong(&|a| a.key.as_mut().unwrap().id = "AKIASTRANGER".to_owned());
    let nobody = wrong(&|a| a.key = None);
    let elsewhere = wrong(&|a| a.endpoint = Some("http://127.0.0.1:1".to_owned()));
    for (bucket, s3, says) in [
        ("s3://missing", &s3, "the bucket missing is not there"),
        ("s3://artifacts", &bad_secret, "the key is not taken (SignatureDoesNotMatch)"),
        ("s3://artifacts", &stranger, "the key is not taken (InvalidAccessKeyId)"),
        ("s3://artifacts", &nobody, "no key for S3"),
        ("s3://artifacts", &elsewhere, "no answer from http://127.0.0.1:1: Connection refused"),
    ] {
        let begun = Instant::now();
        let readings = all(&place(bucket, s3, None), PATIENCE);
        let root = &readings["artifacts.root"];
        assert_eq!(root.status, Status::Critical, "{readings:#?}");
        assert!(root.summary.contains(says) && root.hint.is_some(), "{root:#?}");
        assert!(!format!("{readings:?}").contains("hunter2"));
        assert!(begun.elapsed() < PATIENCE, "{bucket} took {:?}", begun.elapsed());
    }
    // May be listed and not written.
    let readings = all(&place("s3://forbidden", &s3, None), PATIENCE);
    assert_eq!(broken(&readings), [("artifacts.write", Status::Critical)], "{readings:#?}");
    assert!(readings["artifacts.write"].summary.contains("this key may not do that (AccessDenied)"), "{readings:#?}");
}

#[test]
fn objects_behind_tls() {
    let home = folder();
    crate::tls::certificates(home.path());
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let store = object_store(home.path(), &["--certificate", &path("server.crt"), "--key", &path("server.key")]);
    let look = |change: &dyn Fn(&mut S3Access)| {
        let mut access = store.access.clone();
        change(&mut access);
        all(&place("s3://artifacts/root", &S3::new(access), None), PATIENCE)
    };
    let known = look(&|a| a.ca_file = Some(home.path().join("ca.crt")));
    assert_eq!(broken(&known), [], "{known:#?}");
    let any = look(&|a| a.insecure = true);
    assert_eq!(broken(&any), [], "{any:#?}");
    let stranger = look(&|a| a.ca_file = Some(home.path().join("other.crt")));
    assert!(stranger["artifacts.root"].summary.contains("certificate"), "{stranger:#?}");
}

#[test]
fn an_object_store_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut reading = stream.try_clone().unwrap();
            std::thread::spawn(move || reading.read(&mut [0; 4096]));
            open.push(stream);
        }
    });
    let key = S3Key { id: "id".into(), secret: "hunter2".to_owned().into(), session_token: None };
    let access = S3Access { endpoint: Some(format!("http://127.0.0.1:{port}")), key: Some(key), ..S3Access::default() };
    let patience = Duration::from_secs(1);
    let begun = Instant::now();
    let readings = all(&place("s3://artifacts", &S3::new(access), None), patience);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(readings["artifacts.root"].status, Status::Critical);
    assert!(readings["artifacts.root"].summary.contains("no answer within 1 s"), "{readings:#?}");
}

fn versions(release: &str, proxied: bool) {
    let home = folder();
    let store = format!("sqlite:///{}", home.path().join("mlflow.db").display());
    let server = Server::start(release, &store, home.path(), if proxied { &["--serve-artifacts"] } else { &[] });
    let said = server.script("versions.py", &[]).expect(0);
    let places: BTreeMap<String, String> = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    let roots = home.path().join("artifacts");
    let s3 = S3::new(S3Access::default());
    let root = if proxied { "" } else { roots.to_str().unwrap() };
    let place = place(root, &s3, Some(&server.url));

    let look = || all(&place, PATIENCE);
    let readings = look();
    assert_eq!(broken(&readings), [], "{readings:#?}");
    let healthy = readings["artifacts.versions"].summary.clone();
    let count = if release.starts_with('2') { 5 } else { 7 };
    assert_eq!(healthy, format!("{count} versions have their artifacts"), "{readings:#?}");

    for (name, path) in &places {
        let (here, away) = (roots.join(path), home.path().join("away"));
        fs::rename(&here, &away).unwrap();
        let readings = look();
        assert_eq!(broken(&readings), [("artifacts.versions", Status::Critical)], "{name}: {readings:#?}");
        let reading = &readings["artifacts.versions"];
        let lost: Vec<&str> = reading.evidence.iter().map(|l| l.split(' ').next().unwrap()).collect();
        let same = match name.as_str() {
            "copied" => vec!["copied", "copied-from"],
            "logged" => vec!["logged", "logged-by-run"],
            one => vec![one],
        };
        let mut sorted = lost.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, same, "{reading:#?}");
        fs::rename(&away, &here).unwrap();
    }
    // An empty folder is as good as none.
    let folder = roots.join(&places["placed"]);
    fs::remove_file(folder.join("MLmodel")).unwrap();
    assert_eq!(broken(&look()), [("artifacts.versions", Status::Critical)]);
    fs::write(folder.join("MLmodel"), "flavors: {}").unwrap();
    let readings = look();
    assert_eq!(readings["artifacts.versions"].summary, healthy);

    // A hundred runs of the check leave one experiment and no file.
    let client = place.server.as_ref().unwrap();
    let experiments = wait(async {
        let mut pages = client.experiments("", View::All, 1000);
        let mut all = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            all.extend(page);
        }
        all
    });
    let names: Vec<&str> = experiments.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names.iter().filter(|n| **n == artifacts::EXPERIMENT).count(), 1, "{names:?}");
    let probe = experiments.iter().find(|e| e.name == artifacts::EXPERIMENT).unwrap();
    assert!(probe.tags.iter().any(|(key, value)| key == "mlops.probe" && value == ID), "{probe:?}");
    assert!(
        fs::read_dir(roots.join(&probe.id)).is_ok_and(|mut d| d.next().is_none()) || !roots.join(&probe.id).exists()
    );

    // Somebody tidied up: the experiment comes back.
    server.script("delete_experiment.py", &["--id", &probe.id]).expect(0);
    let readings = look();
    assert_eq!(broken(&readings), [], "{readings:#?}");
    assert!(readings["server.write"].summary.contains("was deleted and is restored"), "{readings:#?}");

    // The root of all: through the proxy nobody can tell, but the versions can.
    fs::rename(&roots, home.path().join("unmounted")).unwrap();
    let readings = look();
    let ids: Vec<&str> = broken(&readings).iter().map(|(id, _)| *id).collect();
    assert!(ids.contains(&"artifacts.versions"), "{readings:#?}");
    assert_eq!(ids.contains(&"artifacts.root"), !proxied, "{readings:#?}");
    let port = server.url.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    drop(server);
    // Its web server ends by itself when the process that minds it is gone.
    wait_for("the end of the server", Duration::from_secs(30), || TcpStream::connect(("127.0.0.1", port)).err());
    let away = Instant::now();
    let readings = all(&place, Duration::from_secs(5));
    assert!(away.elapsed() < Duration::from_secs(40));
    assert_eq!(readings["artifacts.versions"].status, Status::Unknown, "{readings:#?}");
    assert_eq!(readings["server.write"].status, Status::Critical, "{readings:#?}");
}

#[test]
fn versions_that_lost_their_artifacts_on_2_9_2() {
    versions("2.9.2", false);
    versions("2.9.2", true);
}

#[test]
fn versions_that_lost_their_artifacts_on_3_4_0() {
    versions("3.4.0", false);
    versions("3.4.0", true);
}
