//! Every clause of the contract of places of files, for a folder and for objects of S3 behind a real protocol server.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use mlops::artifact::files::{Entry, Files, LOCK, Met, Shelf, There};
use mlops::artifact::{Folder, LockPace, Objects, Patience, S3, shelf};
use mlops::domain::artifact_address::ArtifactAddress;
use mlops::domain::failure::{Failure, Kind, Outcome};
use mlops::domain::object_storage::S3Access;
use mlops::engine::cancel::Cancel;
use tokio::runtime::{Handle, Runtime};

use crate::artifacts::{ObjectStore, object_store};
use crate::support::relay::{BUSY, Fate, Relay};
use crate::support::{Killed, folder, wait_for};

const MIB: usize = 1 << 20;

/// Short enough for a test, long enough for a busy machine.
fn patience() -> Patience {
    let lock = LockPace {
        refresh: Duration::from_millis(300),
        look: Duration::from_millis(100),
        held: Duration::from_millis(1600),
        dead: Duration::from_millis(2500),
    };
    Patience { answer: Duration::from_secs(20), lock, ..Patience::default() }
}

fn runtime() -> Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let make = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    RUNTIME.get_or_init(make).handle().clone()
}

fn objects(access: &S3Access, bucket: &str, key: &str, work: &Path) -> Objects {
    let bucket = S3::new(access.clone()).bucket(bucket, key).unwrap();
    Objects::new(bucket, runtime(), work, Cancel::new()).patient(patience())
}

fn write(place: &dyn Shelf, path: &str, content: &[u8], there: There) -> Outcome<bool> {
    let mut staged = place.stage()?;
    staged.write_all(content).unwrap();
    place.put(staged, path, there)
}

fn read(place: &dyn Shelf, path: &str) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    place.open(path).unwrap()?.reader.read_to_end(&mut content).unwrap();
    Some(content)
}

fn walk(place: &dyn Shelf, below: &str) -> (BTreeMap<String, Entry>, BTreeMap<String, String>) {
    let (mut files, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
    let mut each = |met| {
        match met {
            Met::File(entry) => assert!(files.insert(entry.path.clone(), entry).is_none(), "told twice"),
            Met::Unreadable { path, why } => assert!(unreadable.insert(path, why).is_none(), "told twice"),
        }
        Ok(())
    };
    place.walk(below, &mut each).unwrap();
    (files, unreadable)
}

fn names(place: &dyn Shelf, below: &str) -> Vec<String> {
    let (files, unreadable) = walk(place, below);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    files.into_keys().collect()
}

/// Bytes that are nowhere alike.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.rotate_right(23).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What holds for every place. `other` is the same place, as another run has it.
fn conforms(place: &dyn Shelf, other: &dyn Shelf) {
    // Nothing is there.
    assert_eq!(names(place, ""), Vec::<String>::new());
    assert_eq!(names(place, "a/b"), Vec::<String>::new());
    assert!(place.stat("a").unwrap().is_none() && place.open("a").unwrap().is_none());

    // Files, seen from elsewhere.
    let odd = "ä ö/%41 +&?#'~.txt";
    for (path, content) in [("a/b/one", "1"), ("a/two", "zwei"), ("a-b/x", ""), ("ab", "b"), (odd, "odd")] {
        assert!(write(place, path, content.as_bytes(), There::Stays).unwrap(), "{path}");
        assert_eq!(read(other, path).unwrap(), content.as_bytes());
    }
    place.settle().unwrap();
    assert_eq!(names(other, ""), ["a-b/x", "a/b/one", "a/two", "ab", odd]);
    assert_eq!(names(other, "a"), ["a/b/one", "a/two"], "what only begins alike is not below it");
    assert_eq!(names(other, "a/b"), ["a/b/one"]);
    assert_eq!(names(other, "a/two"), ["a/two"], "a file itself");
    assert_eq!(names(other, "a/t"), Vec::<String>::new());
    assert_eq!(names(other, "a/two/below"), Vec::<String>::new());
    for path in ["a/b", "a/t", "a/two/below", "", "a//two", "/a/two", "../a/two", "a/./two", "a/two/"] {
        assert!(other.stat(path).unwrap().is_none() && other.open(path).unwrap().is_none(), "{path}");
    }
    // One and the same in a walk, by itself, and open.
    for (path, entry) in walk(other, "").0 {
        assert_eq!(entry.bytes, read(other, &path).unwrap().len() as u64);
        assert_eq!(other.stat(&path).unwrap().unwrap().bytes, entry.bytes);
        assert_eq!(other.open(&path).unwrap().unwrap().entry.path, path);
    }
    // A walk ends where its caller wants it to.
    let mut seen = 0;
    let ended = other.walk("", &mut |_| {
        seen += 1;
        Err(Failure::differs("enough"))
    });
    assert_eq!((ended.unwrap_err().message.as_str(), seen), ("enough", 1));

    // Stays and replaced.
    assert!(!write(place, "a/two", b"other", There::Stays).unwrap());
    assert_eq!(read(other, "a/two").unwrap(), b"zwei");
    assert!(write(place, "a/two", b"other", There::Replaced).unwrap());
    assert_eq!(read(other, "a/two").unwrap(), b"other");

    // A staged file can be read and counts for nothing before it is put.
    let content = noise(40 * MIB + 7);
    let mut staged = place.stage().unwrap();
    content.chunks(100_000).for_each(|piece| staged.write_all(piece).unwrap());
    staged.flush().unwrap();
    staged.rewind().unwrap();
    let mut back = Vec::new();
    staged.read_to_end(&mut back).unwrap();
    assert!(back == content);
    assert_eq!(names(other, "").len(), 5);
    drop(place.stage().unwrap());
    assert!(place.put(staged, "large/one", There::Stays).unwrap());
    assert!(read(other, "large/one").unwrap() == content, "40 MiB in several parts");
    assert!(!write(place, "large/one", &content, There::Stays).unwrap(), "large and there already");
    assert!(write(place, "large/one", &content[1..], There::Replaced).unwrap());
    assert!(read(other, "large/one").unwrap() == content[1..]);

    // Paths that lead elsewhere.
    for path in ["", "a//b", "/etc/mlops", "../up", "a/../b", "a/"] {
        assert_eq!(write(place, path, b"x", There::Replaced).unwrap_err().kind, Kind::Target, "{path}");
        assert_eq!(place.remove(path).unwrap_err().kind, Kind::Target, "{path}");
    }
    for below in ["a//b", "../up", "/etc"] {
        assert_eq!(place.walk(below, &mut |_| Ok(())).unwrap_err().kind, Kind::Source, "{below}");
    }

    // Removed, and once more.
    for path in ["large/one", "large/one", "a/b/one", "never/was", "a/two/below"] {
        place.remove(path).unwrap();
        assert!(other.stat(path).unwrap().is_none());
    }
    place.settle().unwrap();
    assert_eq!(names(other, ""), ["a-b/x", "a/two", "ab", odd]);

    // For one run alone.
    let lease = place.lock("backup 1 on host (pid 2)").unwrap();
    lease.held().unwrap();
    assert_eq!(lease.warning(), None);
    let failure = other.lock("second").err().unwrap();
    assert_eq!(failure.kind, Kind::Locked);
    assert!(failure.message.contains("backup 1 on host (pid 2)"), "{failure}");
    lease.held().unwrap();
    drop(lease);
    let begun = Instant::now();
    other.lock("second").unwrap().held().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "a dropped one is free at once");
}

#[test]
fn a_folder_keeps_the_contract() {
    let home = folder();
    let root = home.path().join("place");
    fs::create_dir(&root).unwrap();
    conforms(&Folder::new(&root), &Folder::new(&root));
    assert!(!root.join("large").exists(), "a folder that became empty is gone");
    let private = home.path().join("deep/private");
    let place = Folder::new(&private).private();
    write(&place, "a/b", b"x", There::Stays).unwrap();
    place.lock("me").unwrap().held().unwrap();
    for (path, mode) in [("", 0o700), ("a", 0o700), ("a/b", 0o600), ("lock", 0o600)] {
        let seen = fs::metadata(private.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(seen, mode, "{path} {seen:o}");
    }
    drop(place);
    assert_eq!(fs::read_dir(&private).unwrap().count(), 2, "no staging stays");
}

#[test]
fn one_of_many_takes_a_path() {
    let home = folder();
    let place = Folder::new(home.path());
    for round in 0..20 {
        let path = format!("deep/{round}/one");
        let took = std::thread::scope(|scope| {
            let hands: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn({
                        let (p, path) = (&place, &path);
                        move || write(p, path, &[n], There::Stays).unwrap()
                    })
                })
                .collect();
            hands.into_iter().map(|h| h.join().unwrap()).filter(|took| *took).count()
        });
        assert_eq!(took, 1);
    }
}

#[test]
fn a_folder_that_is_not_there_is_not_an_empty_one() {
    let home = folder();
    fs::write(home.path().join("file"), "x").unwrap();
    for (path, says) in [("volume/mlruns", "is not there"), ("file", "is no folder")] {
        let failure = Folder::new(&home.path().join(path)).walk("", &mut |_| Ok(())).unwrap_err();
        assert_eq!(failure.kind, Kind::Source);
        assert!(failure.message.contains(says), "{failure}");
    }
    let gone = Folder::new(&home.path().join("volume"));
    assert_eq!(gone.walk("0/run", &mut |_| Ok(())).unwrap_err().kind, Kind::Source);
    assert!(gone.stat("0/run").unwrap().is_none());
    // And one that cannot be made.
    let failure = Folder::new(&home.path().join("file/below")).stage().err().unwrap();
    assert_eq!(failure.kind, Kind::Target);
    let place = Folder::new(home.path());
    assert_eq!(write(&place, "file/below", b"x", There::Stays).unwrap_err().kind, Kind::Target);
}

#[test]
fn what_is_in_a_folder_and_cannot_be_read_is_told() {
    let home = folder();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("sub/file"), "inside").unwrap();
    fs::write(home.path().join("secret"), "outside").unwrap();
    symlink("sub/file", root.join("link")).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("sub", root.join("folder-link")).unwrap();
    symlink("..", root.join("sub/loop")).unwrap();
    let deep = root.join(vec!["d"; 200].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "x").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not-\xff-utf8")), "x").unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());

    let place = Folder::new(&root);
    let (files, mut unreadable) = walk(&place, "");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["link", "sub/file"]);
    let depth = unreadable.iter().find(|(path, _)| path.starts_with("d/")).unwrap();
    assert!(depth.1.contains("deeper than"), "{depth:?}");
    let depth = depth.0.clone();
    unreadable.remove(&depth);
    let expected = [
        ("dangling", "leads nowhere"),
        ("folder-link", "a symbolic link to a folder"),
        ("not-\u{fffd}-utf8", "not UTF-8"),
        ("out", "leads out of"),
        ("pipe", "no regular file"),
        ("sub/loop", "a symbolic link to a folder"),
    ];
    assert_eq!(unreadable.len(), expected.len(), "{unreadable:?}");
    for (path, why) in expected {
        assert!(unreadable[path].contains(why), "{path}: {unreadable:?}");
    }
    assert_eq!(read(&place, "link").unwrap(), b"inside");
    assert_eq!(place.stat("link").unwrap().unwrap().bytes, 6);
    for path in ["out", "dangling"] {
        assert_eq!(place.open(path).err().unwrap().kind, Kind::Source, "{path}");
        assert_eq!(place.stat(path).unwrap_err().kind, Kind::Source, "{path}");
    }
    for path in ["pipe", "sub", "folder-link"] {
        assert!(place.open(path).unwrap().is_none() && place.stat(path).unwrap().is_none(), "{path}");
    }
    assert!(walk(&place, "out").1["out"].contains("leads out of"));

    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(root.join("sub"), fs::Permissions::from_mode(0o000)).unwrap();
        assert!(walk(&place, "").1["sub"].contains("denied"));
        assert_eq!(place.open("sub/file").err().unwrap().kind, Kind::Source);
        fs::set_permissions(root.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_file_that_changes_is_another_one() {
    let home = folder();
    let place = Folder::new(home.path());
    let file = home.path().join("file");
    fs::write(&file, "one").unwrap();
    assert_eq!(place.stat("file").unwrap().unwrap().changed, None, "it may change again within the clock's tick");
    let told = || place.stat("file").unwrap().unwrap().changed;
    let first = wait_for("a time of change that tells", Duration::from_secs(10), told);
    assert_eq!(told().unwrap(), first);
    // Another content of the same length, and the old time put back.
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "two").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let second = wait_for("a time of change that tells", Duration::from_secs(10), told);
    assert_ne!(first, second);
    // A time that has not come yet tells nothing.
    let later = SystemTime::now() + Duration::from_secs(3600);
    fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    assert_eq!(told(), None);
}

/// Holds the lock of a file, and says so, until it is killed.
fn holder(file: &Path) -> Killed {
    let script = "import fcntl,sys,time\nf=open(sys.argv[1],'a')\nfcntl.flock(f,fcntl.LOCK_EX)\n\
                  f.write('the holder');f.flush();print('held',flush=True);time.sleep(600)";
    let mut child: Child =
        Command::new("python3").args(["-c", script]).arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    Killed(child)
}

#[test]
fn what_a_killed_run_held_and_staged_does_not_last() {
    let home = folder();
    let place = Folder::new(home.path());
    let child = holder(&home.path().join(LOCK));
    let failure = place.lock("me").err().unwrap();
    assert_eq!(failure.kind, Kind::Locked);
    assert!(failure.message.contains("is in use by the holder"), "{failure}");
    drop(child);
    let lease = place.lock("me").unwrap();
    assert_eq!(fs::read_to_string(home.path().join(LOCK)).unwrap(), "me");
    // Somebody removes it: whoever comes now would hold another one.
    fs::remove_file(home.path().join(LOCK)).unwrap();
    assert_eq!(lease.held().unwrap_err().kind, Kind::Locked);
    drop(lease);

    let staging = |name: &str| {
        let staging = home.path().join(format!(".mlops-staging-{name}"));
        fs::create_dir(&staging).unwrap();
        fs::write(staging.join("part"), "of a file").unwrap();
        fs::write(staging.join(".owner"), "").unwrap();
        staging
    };
    let (dead, alive) = (staging("dead"), staging("alive"));
    let child = holder(&alive.join(".owner"));
    write(&place, "a", b"x", There::Stays).unwrap();
    assert!(!dead.exists() && alive.exists());
    assert_eq!(names(&place, ""), ["a"], "what is staged is no file of the place");
    drop(child);
    drop(place.lock("me").unwrap());
    assert!(!alive.exists());
    assert!(write(&place, "b", b"x", There::Stays).unwrap(), "a run's own staging stays");
}

fn started() -> (tempfile::TempDir, ObjectStore) {
    let home = folder();
    let store = object_store(home.path(), &[]);
    (home, store)
}

#[test]
fn objects_keep_the_contract() {
    let (home, store) = started();
    let work = home.path().join("work");
    let place = |key: &str| objects(&store.access, "artifacts", key, &work);
    conforms(&place("places/one"), &place("places/one"));
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0, "what is staged has no name");

    // Pages.
    let many = names(&place(""), "many");
    assert_eq!(many.len(), 1100);
    assert_eq!(names(&place("many"), "3").len(), 110);
    assert_eq!(place("").place(), "s3://artifacts");

    // A walk, HEAD and GET tell the same.
    let odd = place("odd");
    let (files, unreadable) = walk(&odd, "");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["plain"]);
    assert!(files["plain"].changed.is_some());
    assert_eq!(odd.stat("plain").unwrap().unwrap(), files["plain"]);
    assert_eq!(odd.open("plain").unwrap().unwrap().entry, files["plain"]);
    let strange: Vec<&str> = unreadable.keys().map(String::as_str).collect();
    assert_eq!(strange, ["a//b", "full/", "tab\tin it"], "and no folder that is none");
    write(&odd, "plain", b"y", There::Replaced).unwrap();
    assert_ne!(odd.stat("plain").unwrap().unwrap().changed, files["plain"].changed);

    // An object and others below it.
    write(&odd, "both", b"x", There::Stays).unwrap();
    write(&odd, "both/below", b"x", There::Stays).unwrap();
    assert_eq!(names(&odd, "both"), ["both", "both/below"]);

    // By its address.
    let s3 = S3::new(store.access.clone());
    let at = |address: &str| shelf(&ArtifactAddress::parse(address), &s3, &runtime(), &work, &Cancel::new()).unwrap();
    assert_eq!(names(&*at("s3://artifacts/root").unwrap(), ""), ["1/model/MLmodel"]);
    assert_eq!(at(home.path().to_str().unwrap()).unwrap().place(), home.path().to_str().unwrap());
    assert!(at("mlflow-artifacts:/x").is_none());

    // A bucket that is missing, or takes nothing.
    let missing = objects(&store.access, "missing", "x", &work);
    for failure in [
        missing.walk("", &mut |_| Ok(())).unwrap_err(),
        missing.stat("a").unwrap_err(),
        missing.open("a").err().unwrap(),
    ] {
        assert_eq!((failure.kind, failure.message.contains("is not there")), (Kind::Source, true), "{failure}");
    }
    for failure in [
        write(&missing, "a", b"x", There::Stays).unwrap_err(),
        missing.lock("me").err().unwrap(),
        write(&objects(&store.access, "forbidden", "", &work), "a", b"x", There::Stays).unwrap_err(),
    ] {
        assert_eq!(failure.kind, Kind::Target, "{failure}");
    }
}

/// A place behind a relay, and the same without it.
struct Faulty {
    relay: Relay,
    behind: Objects,
    direct: Objects,
    home: tempfile::TempDir,
    store: ObjectStore,
}

fn faulty() -> Faulty {
    let (home, store) = started();
    let url = store.access.endpoint.clone().unwrap();
    let relay = Relay::before(url.rsplit_once(':').unwrap().1.parse().unwrap());
    let direct = objects(&store.access, "artifacts", "place", home.path());
    let behind = objects(&through(&store.access, &relay), "artifacts", "place", home.path());
    Faulty { relay, behind, direct, home, store }
}

fn through(access: &S3Access, relay: &Relay) -> S3Access {
    S3Access { endpoint: Some(format!("http://localhost:{}", relay.port)), ..access.clone() }
}

/// The same fate for the first so many requests whose head holds this.
fn first(count: usize, word: &'static str, fate: Fate) -> impl FnMut(&str) -> Fate + Send + 'static {
    let mut left = count;
    move |head| {
        if left == 0 || !head.contains(word) {
            return Fate::Through;
        }
        left -= 1;
        fate
    }
}

fn is_told(error: &io::Error) -> &Failure {
    error.get_ref().and_then(|e| e.downcast_ref::<Failure>()).expect("a failure")
}

#[test]
fn an_object_whose_connection_is_cut_is_read_to_its_end_or_not_at_all() {
    let it = faulty();
    let content = noise(5 * MIB);
    write(&it.direct, "one", &content, There::Stays).unwrap();
    let whole = || {
        let mut back = Vec::new();
        let mut opened = it.behind.open("one").unwrap().unwrap();
        opened.reader.read_to_end(&mut back).map(|_| back)
    };

    it.relay.judge(first(4, "GET", Fate::Cut(MIB)));
    assert!(whole().unwrap() == content);
    assert!(it.relay.asked().len() >= 5, "{:?}", it.relay.asked());
    it.relay.judge(first(2, "GET", BUSY));
    assert!(whole().unwrap() == content, "two refusals are waited out");

    it.relay.judge(first(usize::MAX, "GET", Fate::Cut(1)));
    let error = whole().unwrap_err();
    assert!(is_told(&error).message.contains("s3://artifacts/place/one"), "{error}");
    assert!(it.relay.asked().len() < 40, "it ends");

    // It is another one when it is asked for again.
    let other = objects(&it.store.access, "artifacts", "place", it.home.path());
    let mut asked = 0;
    it.relay.judge(move |_| {
        asked += 1;
        match asked {
            1 => Fate::Cut(MIB),
            2 => {
                write(&other, "one", &noise(5 * MIB + 1)[1..], There::Replaced).unwrap();
                Fate::Through
            }
            _ => Fate::Through,
        }
    });
    let error = whole().unwrap_err();
    assert_eq!(is_told(&error).kind, Kind::Source);
    assert!(error.to_string().contains("was changed while it was read"), "{error}");

    // Refused from the beginning.
    it.relay.judge(first(usize::MAX, "", BUSY));
    for failure in [
        it.behind.open("one").err().unwrap(),
        it.behind.stat("one").unwrap_err(),
        it.behind.walk("", &mut |_| Ok(())).unwrap_err(),
    ] {
        assert_eq!(failure.kind, Kind::Source, "{failure}");
        assert!(failure.message.contains("SlowDown") || failure.message.contains("503"), "{failure}");
    }
    // A list that is cut is no list.
    it.relay.judge(first(usize::MAX, "list-type", Fate::Cut(400)));
    let cut = objects(&through(&it.store.access, &it.relay), "artifacts", "", it.home.path());
    let mut met = 0;
    let failure = cut.walk("many", &mut |_| {
        met += 1;
        Ok(())
    });
    assert!(failure.is_err() && met == 0);
}

#[test]
fn an_object_is_written_whole_or_not_at_all() {
    let it = faulty();
    let (small, large) = (noise(1000), noise(40 * MIB));
    for there in [There::Stays, There::Replaced] {
        it.relay.judge(first(usize::MAX, "PUT", BUSY));
        let failure = write(&it.behind, "refused", &small, there).unwrap_err();
        assert_eq!(failure.kind, Kind::Target);
        assert!(
            failure.message.contains("s3://artifacts/place/refused: the object store failed (SlowDown)"),
            "{failure}"
        );

        it.relay.judge(first(2, "PUT", BUSY));
        assert!(write(&it.behind, "refused", &small, there).unwrap(), "two refusals are waited out");
        it.direct.remove("refused").unwrap();

        it.relay.judge(first(usize::MAX, "PUT", Fate::Lost));
        let failure = write(&it.behind, "lost", &small, there).unwrap_err();
        assert_eq!(failure.kind, Kind::Unreachable, "{failure}");

        // It was written, and nobody said so.
        it.relay.judge(first(1, "PUT", Fate::Swallowed));
        assert!(write(&it.behind, "swallowed", &small, there).unwrap());
        assert_eq!(read(&it.direct, "swallowed").unwrap(), small);
        it.direct.remove("swallowed").unwrap();

        it.relay.judge(first(usize::MAX, "partNumber=2", BUSY));
        let failure = write(&it.behind, "parts", &large, there).unwrap_err();
        assert_eq!(failure.kind, Kind::Target, "{failure}");
        let asked = it.relay.asked();
        assert!(asked.iter().any(|l| l.starts_with("DELETE") && l.contains("uploadId")), "{asked:?}");
        it.relay.judge(first(1, "partNumber=2", Fate::Lost));
        assert!(write(&it.behind, "parts", &large, there).unwrap(), "a part is sent again");
        assert!(read(&it.direct, "parts").unwrap() == large);
        it.direct.remove("parts").unwrap();

        it.relay.judge(first(usize::MAX, "POST /artifacts/place/parts?uploadId", BUSY));
        let failure = write(&it.behind, "parts", &large, there).unwrap_err();
        assert_eq!(failure.kind, Kind::Target, "{failure}");
        it.relay.judge(first(1, "POST /artifacts/place/parts?uploadId", Fate::Swallowed));
        assert!(write(&it.behind, "completed", &large, there).unwrap());
        it.direct.remove("completed").unwrap();
        assert_eq!(names(&it.direct, ""), Vec::<String>::new());
    }
    it.relay.judge(first(usize::MAX, "DELETE", BUSY));
    write(&it.direct, "stays", b"x", There::Stays).unwrap();
    assert_eq!(it.behind.remove("stays").unwrap_err().kind, Kind::Target);

    // Another's, written while the answer was waited for: it stays, and that is said.
    it.relay.judge(first(1, "PUT", Fate::Lost));
    assert!(!write(&it.behind, "stays", b"y", There::Stays).unwrap());

    // A server without conditional writes.
    let refuses = "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    it.relay.judge(first(usize::MAX, "if-none-match", Fate::Instead(refuses)));
    assert!(!write(&it.behind, "stays", b"y", There::Stays).unwrap());
    assert!(write(&it.behind, "new", b"y", There::Stays).unwrap());
    assert_eq!(read(&it.direct, "stays").unwrap(), b"x");
}

#[test]
fn waiting_for_objects_ends() {
    let it = faulty();
    write(&it.direct, "one", &noise(MIB), There::Stays).unwrap();
    it.relay.judge(|_| Fate::Silent);
    let access = through(&it.store.access, &it.relay);
    let short = Patience { answer: Duration::from_secs(1), part: Duration::from_secs(1), ..patience() };
    let place = objects(&access, "artifacts", "place", it.home.path()).patient(short);
    let begun = Instant::now();
    assert_eq!(place.stat("one").unwrap_err().kind, Kind::Unreachable);
    assert_eq!(place.lock("me").err().map(|f| f.kind), Some(Kind::Unreachable));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    let cancel = Cancel::new();
    let bucket = S3::new(access).bucket("artifacts", "place").unwrap();
    let place = Objects::new(bucket, runtime(), it.home.path(), cancel.clone());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| place.open("one").err().unwrap());
        wait_for("the request", Duration::from_secs(10), || (!it.relay.asked().is_empty()).then_some(()));
        cancel.cancel(2);
        assert_eq!(waits.join().unwrap().kind, Kind::Interrupted(2));
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(place.settle().unwrap_err().kind, Kind::Interrupted(2));
}

#[test]
fn a_lock_in_s3_lasts_as_long_as_its_holder() {
    let it = faulty();
    // A dead run's, and something that is no lock of ours at all.
    for left in ["{\"who\": \"a dead run\", \"id\": \"1\"}", "no lock"] {
        write(&it.direct, LOCK, left.as_bytes(), There::Replaced).unwrap();
        let begun = Instant::now();
        let lease = it.direct.lock("second").unwrap();
        assert!(begun.elapsed() >= patience().lock.dead, "it was watched before");
        lease.held().unwrap();
        drop(lease);
        assert!(it.direct.stat(LOCK).unwrap().is_none(), "it is gone with its lease");
    }

    // One whose refreshes do not get through is given up before another may take it.
    let held = it.behind.lock("first").unwrap();
    it.relay.judge(first(1, "PUT", Fate::Swallowed));
    wait_for("refreshes", Duration::from_secs(10), || (it.relay.asked().len() > 4).then_some(()));
    held.held().expect("an answer that was lost does no harm");
    it.relay.judge(first(usize::MAX, "PUT", BUSY));
    let taken = std::thread::scope(|scope| {
        let second = scope.spawn(|| it.direct.lock("second"));
        let doubted = wait_for("doubt", Duration::from_secs(10), || held.held().err());
        assert_eq!(doubted.kind, Kind::Locked);
        assert!(!second.is_finished(), "the first holder doubts before the second holds");
        second.join().unwrap()
    });
    // The watch may have begun before the last refresh: then its holder was alive.
    let taken = taken.or_else(|_| it.direct.lock("second")).unwrap();
    it.relay.judge(|_| Fate::Through);
    let lost = wait_for("the loss", Duration::from_secs(10), || {
        held.held().err().filter(|f| f.message.contains("was lost to second"))
    });
    assert_eq!(lost.kind, Kind::Locked);
    drop(held);
    taken.held().unwrap();
    assert!(it.direct.stat(LOCK).unwrap().is_some(), "another's lock is left alone");
    drop(taken);

    // Servers that refuse conditions, and that take no notice of them.
    let refuses = "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let ignores = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for answer in [refuses, ignores] {
        it.relay.judge(first(usize::MAX, "PUT", Fate::Instead(answer)));
        let lease = it.behind.lock("me").unwrap();
        lease.held().unwrap();
        assert!(lease.warning().unwrap().contains("no conditional writes"));
    }
}
