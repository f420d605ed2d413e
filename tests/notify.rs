//! Pings and webhooks against a listener that keeps what it is asked: delivered, refused, hung, cut, not there.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlops::domain::health::Status;
use mlops::notify::ping::Ping;
use mlops::notify::{SecretAddress, Sender, webhook};
use secrecy::SecretString;

use crate::support::examination::{bad_day, good_day};
use crate::support::listener::{Answer, Listener};
use crate::support::secrets::KEY;

fn sender() -> Sender {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Sender::new(tls, None).unwrap().patience(Duration::from_secs(3), Duration::from_millis(400))
}

fn address(port: u16, path: &str) -> SecretAddress {
    SecretAddress::parse(&SecretString::from(format!("http://127.0.0.1:{port}/{path}"))).unwrap()
}

/// The path, the run's id, and the text of each request.
fn pings(listener: &Listener) -> Vec<(String, String, String)> {
    let parts = |line: &str| {
        let path = line.strip_prefix("POST ").and_then(|l| l.strip_suffix(" HTTP/1.1")).unwrap().to_owned();
        let (path, rid) = path.split_once("rid=").unwrap();
        (path.to_owned(), rid.to_owned())
    };
    listener
        .asked()
        .iter()
        .map(|asked| {
            let (path, rid) = parts(&asked.line);
            (path, rid, asked.body.clone())
        })
        .collect()
}

#[test]
fn a_ping_says_start_and_then_how_it_went() {
    for (path, well, expected) in [
        (KEY, true, ["/5f0a1b2c-s3cr3t/start?", "/5f0a1b2c-s3cr3t?"]),
        ("5f0a1b2c-s3cr3t/", false, ["/5f0a1b2c-s3cr3t/start?", "/5f0a1b2c-s3cr3t/fail?"]),
        ("key/slug?create=1", true, ["/key/slug/start?create=1&", "/key/slug?create=1&"]),
    ] {
        let listener = Listener::new(&[Answer::Says(200, "OK")]);
        let ping = Ping::start(sender(), address(listener.port, path));
        let text = format!("CRITICAL\u{1b}[2J {}", "ü".repeat(9_000));
        assert_eq!(ping.finish(well, &text), Vec::<String>::new());
        let asked = pings(&listener);
        assert_eq!(asked.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(asked[0].1, asked[1].1, "one rid");
        assert_eq!(asked[0].2, "");
        assert!(asked[1].2.starts_with("CRITICAL\\u{1b}[2J ü") && asked[1].2.len() <= 10_000);
        let head = &listener.asked()[1].head;
        assert!(head.iter().any(|h| h.starts_with("user-agent: mlops ")), "{head:?}");
    }
}

#[test]
fn a_ping_is_tried_again_and_its_failure_is_a_warning_without_the_key() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (answers, requests, words) in [
        (&[Answer::Says(500, "<html>/5f0a1b2c-s3cr3t</html>")][..], 6, "answered 500"),
        (&[Answer::Hangs], 6, "no answer in time (tried 3 times)"),
        (&[Answer::Closes], 6, "the connection broke"),
        (&[Answer::Says(404, "not found")], 2, "answered 404 Not Found: not found"),
        (&[Answer::Says(200, "OK (not found)")], 2, ": not found"),
        (&[Answer::Moved("https://other.example/5f0a1b2c-s3cr3t")], 2, "redirects are not followed"),
        (&[], 0, "no connection: "),
    ] {
        let listener = Listener::new(answers);
        let port = if answers.is_empty() { closed } else { listener.port };
        let begun = Instant::now();
        let ping = Ping::start(sender(), address(port, KEY));
        assert!(begun.elapsed() < Duration::from_millis(200), "a run does not wait for its monitor");
        let warnings = ping.finish(true, "fine");
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert_eq!(listener.asked().len(), requests, "{words}");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for (warning, what) in warnings.iter().zip(["ping (start): ", "ping (success): "]) {
            let wanted = format!("{what}http://127.0.0.1:{port}/***: ");
            assert!(warning.starts_with(&wanted) && warning.contains(words), "{warning}: {words}");
            assert!(!warning.contains("5f0a") && !warning.contains("s3cr3t"), "{warning}");
        }
    }
    // One bad answer is forgiven.
    let listener = Listener::new(&[Answer::Says(200, "OK"), Answer::Says(503, ""), Answer::Says(200, "OK")]);
    assert!(Ping::start(sender(), address(listener.port, KEY)).finish(true, "fine").is_empty());
    assert_eq!(listener.asked().len(), 3);
}

#[test]
fn a_webhook_tells_a_change_once() {
    let listener = Listener::new(&[Answer::Says(503, ""), Answer::Says(200, "ok")]);
    let text = webhook::change(Some(Status::Ok), &bad_day(), "ops-1");
    webhook::send(&sender(), &address(listener.port, KEY), &text).unwrap();
    let asked = listener.asked();
    assert_eq!(asked.len(), 2, "a server that says it is busy is asked again");
    assert!(asked[1].head.contains(&"content-type: application/json; charset=utf-8".to_owned()), "{asked:?}");
    let body: serde_json::Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(body, serde_json::json!({"text": text}));

    // What may have arrived is not sent twice.
    for answer in [Answer::Hangs, Answer::Closes] {
        let listener = Listener::new(&[answer]);
        let failure = webhook::send(&sender(), &address(listener.port, KEY), &text).unwrap_err();
        assert!(failure.message.ends_with("it may have arrived"), "{failure}");
        assert_eq!(listener.asked().len(), 1);
    }
    let listener = Listener::new(&[Answer::Says(404, "no_service")]);
    let failure = webhook::send(&sender(), &address(listener.port, KEY), &text).unwrap_err();
    let shown = format!("http://127.0.0.1:{}/***: answered 404 Not Found: no_service", listener.port);
    assert_eq!((failure.message, listener.asked().len()), (shown, 1));
}

#[test]
fn a_message_names_what_changed_and_calls_nobody() {
    let text = webhook::change(Some(Status::Warning), &bad_day(), "ops-1");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], ":rotating_light: *MLflow WARNING → CRITICAL* seen from ops-1");
    assert!(
        lines[1].starts_with("server `https://mlflow.example.org`, database `postgresql://mlflow:***@db"),
        "{text}"
    );
    assert!(lines[2].starts_with("First broken: `database.connect` PostgreSQL at db.example.org"), "{text}");
    assert!(lines[2].ends_with("(8 checks stand on it)"), "{text}");
    assert!(lines[3].starts_with("• CRITICAL: `activity.nightly.newest` "), "{text}");
    assert!(text.contains("• and 1 more\nWhat to do: look on db.example.org: 'systemctl"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains("<script") && !text.contains("@channel"), "{text}");
    let fine = webhook::change(Some(Status::Critical), &good_day(), "ops-1");
    assert!(fine.starts_with(":white_check_mark: *MLflow CRITICAL → OK* seen from ops-1\n"), "{fine}");
    assert!(fine.contains("\nAll 8 checks are ok.\n"), "{fine}");
    assert!(webhook::change(None, &good_day(), "h").starts_with(":white_check_mark: *MLflow OK* seen from h\n"));
}
