//! The secrets that tests plant - in addresses, variables, files, in what servers say - and what finds them where none may
//! be. [`Said::of`](super::Said::of), through which every command of every test goes, refuses a text that holds one.
//!
//! A new secret belongs in this list. Passwords of tests that are words of English (`right`, `another`) do not: they
//! stand in honest sentences too.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use flate2::read::MultiGzDecoder;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The password of users and roles, and the last part of secret addresses.
pub(crate) const SECRET: &str = "hunter2-9f2c";
/// A password with all that addresses, SQL and shells treat in a way of their own.
pub(crate) const AWKWARD: &str = "hunter2: größer@'\"\\%";
/// The password of roles that the server of a test takes.
pub(crate) const RIGHT: &str = "r1ght-5c02de";
/// The key in the path of a monitor's or a chat's address.
pub(crate) const KEY: &str = "5f0a1b2c-s3cr3t";
/// A bearer token.
pub(crate) const TOKEN: &str = "t0k3n-8d41c7";
/// What signs an address of an object: `?sig=`, `X-Amz-Signature=`.
pub(crate) const SIGNATURE: &str = "s1g-77e0b4/+x=";
/// The secret half of a key of S3, of the wrong length on purpose: no server takes it.
pub(crate) const S3_SECRET: &str = "s3k3y/5b90e1+wJalr";

/// What stands in the environment of every command of every test and changes nothing of what it does. Those that mlops
/// reads are not among them where a test could tell: half a key of S3 is an error, a token is a way of asking who is
/// there, and a password for PostgreSQL makes another hint of a refusal.
pub(crate) const SURROUNDINGS: [(&str, &str); 6] = [
    ("MLFLOW_FLASK_SERVER_SECRET_KEY", "fl4sk-2c9d10"),
    ("MLFLOW_CRYPTO_KEK_PASSPHRASE", "p4ssphr4se-b81c22"),
    ("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "cGxhbnRlZC13ZWJob29rLWtleS1vZi10ZXN0cy0wMSE="),
    ("DATABASE_URL", "postgresql://app:d4t4b4se-6a03f5@db.example.org/app"),
    ("SLACK_WEBHOOK_URL", "https://hooks.example.org/services/T0/B0/sl4ck-90c1de"),
    ("VAULT_TOKEN", "hvs.v4ult-3e7710"),
];

/// All of them. A password of a longer text stands for it.
const PLANTED: [&str; 17] = [
    AWKWARD,
    RIGHT,
    KEY,
    TOKEN,
    SIGNATURE,
    S3_SECRET,
    // Whatever follows: hunter2-9f2c, hunter2-not.
    "hunter2",
    "hunter3",
    "hunter4",
    "t0k3n",
    "s3ss10n-e41f77",
    "fl4sk-2c9d10",
    "p4ssphr4se-b81c22",
    "cGxhbnRlZC13ZWJob29rLWtleS1vZi10ZXN0cy0wMSE=",
    "d4t4b4se-6a03f5",
    "sl4ck-90c1de",
    "v4ult-3e7710",
];

/// In which users these passwords are those of, for `Authorization: Basic`.
const USERS: [&str; 4] = ["ada", "u", "admin", "mlops"];

/// One form of a secret.
struct Needle {
    bytes: Vec<u8>,
    form: &'static str,
    of: String,
}

static NEEDLES: Mutex<Vec<Needle>> = Mutex::new(Vec::new());

/// Adds one that is known only while tests run, such as the key of an object store.
pub(crate) fn plant(secret: &str) {
    let mut needles = NEEDLES.lock().unwrap_or_else(PoisonError::into_inner);
    listed(&mut needles);
    if !needles.iter().any(|n| n.of == secret) {
        needles.extend(forms(secret));
    }
}

fn listed(needles: &mut Vec<Needle>) {
    if needles.is_empty() {
        needles.extend(PLANTED.iter().flat_map(|secret| forms(secret)));
        // Whole, for the end of a short password is lost at the two odd alignments.
        for user in USERS {
            needles.extend(forms(&format!("{user}:{SECRET}")).into_iter().filter(|n| n.form.starts_with("base64")));
        }
    }
}

/// As browsers, as Python's `quote`, as `application/x-www-form-urlencoded`.
const LEFT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const IN_PATHS: AsciiSet = LEFT.remove(b'/');

/// All forms in which it may stand somewhere.
fn forms(secret: &str) -> Vec<Needle> {
    let json = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let ascii = |text: &str| {
        let mut out = String::new();
        for c in json(text).chars() {
            let mut units = [0; 2];
            match c.is_ascii() {
                true => out.push(c),
                false => c.encode_utf16(&mut units).iter().for_each(|u| out.push_str(&format!("\\u{u:04x}"))),
            }
        }
        out
    };
    let encoded = |set: &'static AsciiSet| utf8_percent_encode(secret, set).to_string();
    let (whole, usual, path) = (encoded(NON_ALPHANUMERIC), encoded(&LEFT), encoded(&IN_PATHS));
    let debug = format!("{secret:?}");
    let mut all = vec![
        ("raw", secret.to_owned()),
        ("JSON", json(secret)),
        ("JSON twice", json(&json(secret))),
        ("JSON in ASCII", ascii(secret)),
        ("quoted by Rust", debug[1..debug.len() - 1].to_owned()),
        ("quoted for SQL", secret.replace('\'', "''")),
        ("quoted for a shell", secret.replace('\'', "'\\''")),
        ("percent-encoded", whole.to_lowercase()),
        ("percent-encoded", usual.to_lowercase()),
        ("form-encoded", usual.replace("%20", "+")),
        ("percent-encoded", path),
        ("percent-encoded", usual),
        ("percent-encoded", whole),
    ];
    for offset in 0..3 {
        for engine in [&STANDARD, &URL_SAFE] {
            all.push((
                "base64",
                inside(&engine.encode([&[b'x'; 2][..offset.min(2)], secret.as_bytes()].concat()), offset, secret.len()),
            ));
        }
    }
    let mut needles: Vec<Needle> = Vec::new();
    for (form, text) in all {
        if !needles.iter().any(|n| n.bytes == text.as_bytes()) {
            needles.push(Needle { bytes: text.into_bytes(), form, of: secret.to_owned() });
        }
    }
    needles
}

/// The characters of a base64 text that only those bytes decide, so many behind its beginning.
fn inside(text: &str, offset: usize, bytes: usize) -> String {
    text[(offset * 8).div_ceil(6)..((offset + bytes) * 8 / 6)].to_owned()
}

/// The first secret in this, in whatever form, with what stands around it.
pub(crate) fn found(bytes: &[u8]) -> Option<String> {
    let mut needles = NEEDLES.lock().unwrap_or_else(PoisonError::into_inner);
    listed(&mut needles);
    let (needle, at) = needles.iter().find_map(|n| Some((n, memchr::memmem::find(bytes, &n.bytes)?)))?;
    let around = &bytes[at.saturating_sub(120)..bytes.len().min(at + needle.bytes.len() + 60)];
    Some(format!("the secret {} ({}) in: {}", needle.of, needle.form, String::from_utf8_lossy(around)))
}

/// A text that a command said.
#[track_caller]
pub(crate) fn none_in(what: &str, bytes: &[u8]) {
    if let Some(found) = found(bytes) {
        panic!("{what} holds {found}\n\nwhole:\n{}", String::from_utf8_lossy(bytes));
    }
}

/// Each file below that holds one, gzip and tar unpacked, but for those that `data` names: rows of the database are
/// what they are, and so are the files of an artifact store. Names are those inside archives as well: `x.tar/data/runs`.
pub(crate) fn below(folder: &Path, data: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut leaks = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let name = path.strip_prefix(folder).unwrap().display().to_string();
        if data(&name) {
            continue;
        }
        leaks.extend(found(name.as_bytes()).map(|found| format!("the name of {name}: {found}")));
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()))
            }
            // What is gone by now holds nothing.
            Ok(meta) if meta.is_file() => {
                if let Ok(bytes) = fs::read(&path) {
                    within(&name, &bytes, data, &mut leaks);
                }
            }
            _ => {}
        }
    }
    leaks
}

fn within(name: &str, bytes: &[u8], data: &dyn Fn(&str) -> bool, leaks: &mut Vec<String>) {
    if data(name) {
        return;
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut text = Vec::new();
        // What is cut off is searched as far as it goes.
        let _ = MultiGzDecoder::new(bytes).read_to_end(&mut text);
        return within(name.strip_suffix(".gz").unwrap_or(name), &text, data, leaks);
    }
    if bytes.get(257..262) == Some(b"ustar") {
        let mut rest = bytes;
        while let Some((head, after)) = rest.split_at_checked(512).filter(|(head, _)| head[0] != 0) {
            let text = |from: usize, to: usize| {
                String::from_utf8_lossy(&head[from..to]).trim_end_matches(['\0', ' ']).to_owned()
            };
            let size = usize::from_str_radix(text(124, 135).trim(), 8).unwrap_or(0).min(after.len());
            within(&format!("{name}/{}", text(0, 100)), &after[..size], data, leaks);
            rest = after.get(size.next_multiple_of(512)..).unwrap_or_default();
        }
        return;
    }
    leaks.extend(found(bytes).map(|found| format!("{name}: {found}")));
}

/// Command lines of processes that a run of mlops has started: anybody on a machine reads them.
pub(crate) fn in_command_lines() -> Vec<String> {
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_mlops")).unwrap();
    let mut leaks = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let at = |file: &str| entry.path().join(file);
        let Ok(stat) = fs::read_to_string(at("stat")) else { continue };
        // The name in brackets may hold anything.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        let Some(parent) = parent else { continue };
        let of = |path: PathBuf| fs::read_link(path).ok();
        if of(Path::new("/proc").join(parent).join("exe")) == Some(program.clone())
            && of(at("exe")).as_ref() != Some(&program)
        {
            let line = fs::read(at("cmdline")).unwrap_or_default();
            // A command that the operator wrote is run as it is written, with what they put into it.
            if line.starts_with(b"sh\0-c\0") {
                continue;
            }
            leaks.extend(found(&line).map(|found| format!("a command line: {found}")));
        }
    }
    leaks
}

#[test]
fn secrets_are_found_in_each_form_and_nothing_else_is() {
    let header = |user: &str, password: &str| STANDARD.encode(format!("{user}:{password}"));
    let awkward = serde_json::json!({ "a": AWKWARD }).to_string();
    for text in [
        SECRET.to_owned(),
        format!("http://ada:{SECRET}@h"),
        format!("?sig={}", utf8_percent_encode(SIGNATURE, NON_ALPHANUMERIC)),
        utf8_percent_encode(AWKWARD, &LEFT).to_string(),
        utf8_percent_encode(AWKWARD, &LEFT).to_string().to_lowercase(),
        awkward.clone(),
        serde_json::json!({ "in": awkward }).to_string(),
        format!("{AWKWARD:?}"),
        format!("ALTER ROLE x PASSWORD '{}'", AWKWARD.replace('\'', "''")),
        "\"hunter2: gr\\u00f6\\u00dfer@'\\\"\\\\%\"".to_owned(),
        format!("Basic {}", header("ada", SECRET)),
        // At each alignment, whoever the user is.
        header("a", KEY),
        header("ab", KEY),
        header("abc", KEY),
        URL_SAFE.encode(format!("x:{SIGNATURE}")),
    ] {
        assert!(found(text.as_bytes()).is_some(), "{text}");
        assert!(found(format!("before {text} after").as_bytes()).is_some(), "{text}");
    }
    for text in ["", "hunter", "http://ada:***@h:5000/x?sig=***", "the right password of another", "Basic YWRhOnJpZ2h0"]
    {
        assert_eq!(found(text.as_bytes()), None);
    }
    assert!(std::panic::catch_unwind(|| none_in("a text", format!("to {KEY}").as_bytes())).is_err());
    plant("kn0wn-later");
    assert!(found(b"a kn0wn-later b").is_some());
}

#[test]
fn secrets_are_found_in_files_and_not_in_data() {
    use std::io::Write;
    let folder = super::folder();
    let packed = |text: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    let path = |name: &str| folder.path().join(name);
    for part in ["data", "other"] {
        fs::create_dir_all(path(part)).unwrap();
        fs::write(path(part).join("a.gz"), packed(SECRET)).unwrap();
        fs::write(path(part).join("b"), TOKEN).unwrap();
        fs::write(path(part).join("c"), "nothing").unwrap();
    }
    let tar = Command::new("tar").args(["cf", "x.tar", "data", "other"]).current_dir(folder.path()).status().unwrap();
    assert!(tar.success());
    let data = |name: &str| name.starts_with("data/") || name.starts_with("x.tar/data/");
    let mut leaks = below(folder.path(), &data);
    leaks.sort();
    let names: Vec<&str> = leaks.iter().map(|l| l.split(": ").next().unwrap()).collect();
    assert_eq!(names, ["other/a", "other/b", "x.tar/other/a", "x.tar/other/b"]);
}
