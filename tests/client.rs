//! The REST client against real servers: it reads what MLflow's own client reads, to the end and nothing twice, with
//! every way to say who asks, and names what is wrong where it cannot.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mlops::domain::failure::Kind;
use mlops::domain::server::{Connection, Credentials, ServerAddress};
use mlops::domain::tracking::{
    Experiment, LoggedModel, MetricPoint, ModelVersion, Pairs, RegisteredModel, Run, View, value,
};
use mlops::mlflow::{Bounds, Client, Fault, Pages, Reply, Runs, Trouble, certificate};
use serde_json::{Value, json};

use crate::flows::Server;
use crate::support::secrets::TOKEN;
use crate::support::{Killed, Said, folder, root};
use crate::tls;

const BOUNDS: Bounds = Bounds { connect: Duration::from_secs(5), call: Duration::from_secs(60) };

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

fn connection(uri: &str) -> Connection {
    Connection::to(ServerAddress::parse(uri).unwrap())
}

fn client(uri: &str) -> Client {
    Client::new(&connection(uri), BOUNDS).unwrap()
}

async fn all<T: Send + 'static>(mut pages: Pages<T>) -> Reply<Vec<T>> {
    let mut all = Vec::new();
    while let Some(page) = pages.next().await? {
        assert!(!page.is_empty());
        all.extend(page);
    }
    Ok(all)
}

fn bits(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{:016x}", value.to_bits()) }
}

fn map(pairs: &Pairs) -> Value {
    pairs.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect::<serde_json::Map<_, _>>().into()
}

fn point(p: &MetricPoint) -> Value {
    json!([bits(p.value), p.timestamp, p.step])
}

fn experiment(e: &Experiment) -> Value {
    json!({ "id": e.id, "name": e.name, "artifact_location": e.artifact_location, "deleted": e.deleted,
            "created": e.created, "updated": e.updated, "tags": map(&e.tags) })
}

fn run(r: &Run) -> Value {
    let metrics: serde_json::Map<_, _> = r.metrics.iter().map(|(key, p)| (key.clone(), point(p))).collect();
    json!({ "id": r.id, "name": r.name, "experiment_id": r.experiment_id, "status": r.status, "start": r.start,
            "end": r.end, "deleted": r.deleted, "artifact_uri": r.artifact_uri, "metrics": metrics,
            "params": map(&r.params), "tags": map(&r.tags) })
}

fn version(v: &ModelVersion) -> Value {
    let mut aliases = v.aliases.clone();
    aliases.sort();
    json!({ "name": v.name, "version": v.version, "status": v.status, "status_message": v.status_message,
            "stage": v.stage, "source": v.source, "run_id": v.run_id, "created": v.created, "updated": v.updated,
            "description": v.description, "aliases": aliases, "tags": map(&v.tags) })
}

fn versions(mut versions: Vec<ModelVersion>) -> Value {
    versions.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
    versions.iter().map(version).collect()
}

fn model(m: &RegisteredModel) -> Value {
    json!({ "name": m.name, "created": m.created, "updated": m.updated, "description": m.description,
            "latest_versions": versions(m.latest_versions.clone()), "aliases": map(&m.aliases), "tags": map(&m.tags) })
}

fn logged(m: &LoggedModel) -> Value {
    let mut metrics: Vec<(&str, String, i64, i64)> =
        m.metrics.iter().map(|m| (m.key.as_str(), bits(m.point.value), m.point.timestamp, m.point.step)).collect();
    metrics.sort();
    json!({ "id": m.id, "experiment_id": m.experiment_id, "name": m.name, "status": m.status,
            "artifact_uri": m.artifact_uri, "source_run_id": m.source_run_id, "created": m.created,
            "updated": m.updated, "metrics": metrics, "params": map(&m.params), "tags": map(&m.tags) })
}

async fn files(client: &Client, run: &str) -> Reply<Value> {
    let (mut found, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for file in all(client.run_artifacts(run, &folder)).await? {
            found.push((file.path.clone(), file.folder, file.size));
            if file.folder {
                folders.push(file.path);
            }
        }
    }
    found.sort();
    Ok(json!(found))
}

/// Everything that the client reads, in the form of `client_answers.py`. Pages are small, so that there are several.
async fn read(client: &Client, wanted: &Value) -> Reply<Value> {
    let mut experiments = all(client.experiments("", View::All, 3)).await?;
    experiments.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<String> = experiments.iter().map(|e| e.id.clone()).collect();
    let mut runs =
        all(client.runs(&Runs { experiments: &ids, filter: "", view: View::All, order_by: &[], page: 7 })).await?;
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    let mut history = BTreeMap::new();
    for run in &runs {
        assert_eq!(client.run(&run.id).await?.as_ref().map(self::run), Some(self::run(run)));
        for (key, _) in &run.metrics {
            let mut points: Vec<(i64, i64, String)> = all(client.metric_history(&run.id, key, 100))
                .await?
                .iter()
                .map(|p| (p.timestamp, p.step, bits(p.value)))
                .collect();
            points.sort();
            history.insert(format!("{} {key}", run.id), points);
        }
    }
    for e in &experiments {
        assert_eq!(client.experiment(&e.id).await?.as_ref(), Some(e));
        assert_eq!(client.experiment_by_name(&e.name).await?.as_ref(), Some(e));
    }
    let mut models = all(client.registered_models("")).await?;
    models.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut alias, mut latest) = (BTreeMap::new(), BTreeMap::new());
    for m in &models {
        latest.insert(m.name.clone(), versions(client.latest_versions(&m.name, &[]).await?.unwrap()));
        for (name, _) in &m.aliases {
            let found = client.model_version_by_alias(&m.name, name).await?.unwrap();
            alias.insert(format!("{} {name}", m.name), version(&found));
        }
    }
    let mut found_logged = match client.logged_models(&ids, "", 2).await? {
        None => None,
        Some(pages) => Some(all(pages).await?),
    };
    if let Some(found) = &mut found_logged {
        found.sort_by(|a, b| a.id.cmp(&b.id));
        for m in found.iter() {
            assert_eq!(client.logged_model(&m.id).await?.as_ref().map(logged), Some(logged(m)));
        }
    }
    let mut artifacts = serde_json::Map::new();
    for run in wanted["artifacts"].as_object().unwrap().keys() {
        artifacts.insert(run.clone(), files(client, run).await?);
    }
    Ok(json!({
        "experiments": experiments.iter().map(experiment).collect::<Value>(),
        "runs": runs.iter().map(self::run).collect::<Value>(),
        "history": history,
        "models": models.iter().map(model).collect::<Value>(),
        "versions": versions(all(client.model_versions("")).await?),
        "alias": alias, "latest": latest,
        "logged": found_logged.map(|l| l.iter().map(logged).collect::<Value>()),
        "artifacts": artifacts,
    }))
}

#[track_caller]
fn same(ours: &Value, theirs: &Value) {
    for (part, theirs) in theirs.as_object().unwrap() {
        let ours = &ours[part];
        let (Some(left), Some(right)) = (ours.as_array(), theirs.as_array()) else {
            assert!(ours == theirs, "{part}: {ours:#}\n{theirs:#}");
            continue;
        };
        for (left, right) in left.iter().zip(right) {
            assert!(left == right, "{part}: {left:#}\n{right:#}");
        }
        assert_eq!(left.len(), right.len(), "{part}");
    }
}

/// A release with a filled store, read by both clients, and then what only a living server shows.
fn reads_what_mlflow_reads(release: &str, more: &[&str]) -> (Server, tempfile::TempDir) {
    let place = folder();
    let store = format!("sqlite:///{}", place.path().join("mlflow.db").display());
    let server = Server::start(release, &store, place.path(), &[&["--serve-artifacts"], more].concat());
    // MLflow's own client finds the API of older releases beside the prefix only.
    let bare = server.url.strip_suffix("/team/ml").unwrap_or(&server.url);
    let own = place.path().join("own").to_str().unwrap().to_owned();
    server.script("fill.py", &["--tracking-uri", bare, "--artifact-dir", &own]).expect(0);
    let theirs = server.script("client_answers.py", &["--tracking-uri", bare]).expect(0).json();
    let client = client(&server.url);
    wait(async {
        let ours = read(&client, &theirs).await.unwrap();
        same(&ours, &theirs);
        assert!(ours["runs"].as_array().unwrap().len() > 40, "so few runs prove nothing");
        assert_eq!(client.version().await.unwrap().value, release);
        let live = client.once().live().await.unwrap();
        assert_eq!((live.value.as_str(), live.exchange.status), ("OK", 200));
        let skew = jiff::Timestamp::now().duration_since(live.exchange.date.unwrap()).as_secs();
        assert!(skew.abs() < 10, "{skew}");
        absent(&client).await;
        refusals(&client).await;
        grows_while_it_is_read(&client).await;
        proxied(&client, release).await;
    });
    (server, place)
}

async fn absent(client: &Client) {
    assert_eq!(client.experiment("999999").await.unwrap(), None);
    assert_eq!(client.experiment_by_name("no such").await.unwrap(), None);
    assert_eq!(client.run("0123456789abcdef0123456789abcdef").await.unwrap(), None);
    assert_eq!(client.model_version_by_alias("no such", "champion").await.unwrap(), None);
    let models = all(client.registered_models("")).await.unwrap();
    assert_eq!(client.model_version_by_alias(&models[0].name, "nobody").await.unwrap(), None);
    assert_eq!(client.latest_versions("no such", &["Production"]).await.unwrap(), None);
    assert_eq!(client.logged_model("m-0123456789abcdef0123456789abcdef").await.unwrap(), None);
}

async fn refusals(client: &Client) {
    let trouble = client.experiments("nonsense ! filter", View::All, 5).next().await.unwrap_err();
    assert_eq!(trouble.fault, Fault::Api { code: "INVALID_PARAMETER_VALUE".to_owned() });
    assert!(trouble.failure.message.contains("INVALID_PARAMETER_VALUE"), "{}", trouble.failure);
    let taken = client.create_experiment("Default").await.unwrap_err();
    assert_eq!(taken.fault, Fault::Api { code: "RESOURCE_ALREADY_EXISTS".to_owned() });
}

/// The newest come first, so each new experiment shifts those that were not read yet onto the page after.
async fn grows_while_it_is_read(client: &Client) {
    let before: Vec<String> =
        all(client.experiments("", View::All, 1000)).await.unwrap().into_iter().map(|e| e.id).collect();
    let mut pages = client.experiments("", View::All, 4);
    let (mut told, mut made) = (Vec::new(), 0);
    while let Some(page) = pages.next().await.unwrap() {
        told.extend(page.into_iter().map(|e| e.id));
        assert_eq!(pages.exchange().unwrap().status, 200);
        if made < 9 {
            for _ in 0..3 {
                let id = client.create_experiment(&format!("between pages {made}")).await.unwrap();
                client.set_experiment_tag(&id, "made", "in between").await.unwrap();
                let made_now = client.experiment(&id).await.unwrap().unwrap();
                assert_eq!(value(&made_now.tags, "made"), Some("in between"));
                made += 1;
            }
        }
    }
    assert_eq!(made, 9);
    let mut once = told.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), told.len(), "told twice: {told:?}");
    assert!(before.iter().all(|id| told.contains(id)), "{before:?} {told:?}");
}

async fn proxied(client: &Client, release: &str) {
    let path = "mlops-probe/täst 1+&=/file.bin";
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    client.upload(path, bytes.clone(), Duration::from_secs(30)).await.unwrap();
    let listed = client.proxied("mlops-probe/täst 1+&=").await.unwrap();
    let files: Vec<_> = listed.iter().map(|f| (f.path.as_str(), f.folder, f.size)).collect();
    assert_eq!(files, [("file.bin", false, Some(3_000_000))]);
    let mut download = client.download(path).await.unwrap();
    let mut back = Vec::new();
    while let Some(chunk) = download.chunk().await.unwrap() {
        back.extend(chunk);
    }
    assert!(back == bytes);
    client.delete(if release == "2.9.2" { "mlops-probe/täst 1+&=" } else { path }).await.unwrap();
    assert!(client.proxied("mlops-probe/täst 1+&=").await.unwrap().is_empty());
    let gone = client.download(path).await.err().unwrap();
    let missing = Fault::Api { code: "RESOURCE_DOES_NOT_EXIST".to_owned() };
    let wanted = if release == "3.17.2" { missing } else { Fault::Server(500) };
    assert_eq!(gone.fault, wanted, "{}", gone.failure);
}

#[test]
fn mlflow_2_9_2_is_read_as_its_own_client_reads_it() {
    let (server, _place) = reads_what_mlflow_reads("2.9.2", &[]);
    wait(async {
        let client = client(&server.url);
        assert_eq!(client.server_info().await.unwrap(), None);
        assert!(client.logged_models(&["0".to_owned()], "", 5).await.unwrap().is_none());
    });
}

#[test]
fn mlflow_3_4_0_is_read_under_a_static_prefix() {
    let (server, _place) = reads_what_mlflow_reads("3.4.0", &["--static-prefix", "/team/ml"]);
    let address = ServerAddress::parse(&server.url).unwrap();
    assert_eq!(address.prefix, "/team/ml");
    wait(async {
        assert_eq!(client(&format!("{}/", server.url)).live().await.unwrap().value, "OK");
        let wrong = ServerAddress { prefix: "/team/other".to_owned(), ..address };
        let trouble = client(&wrong.to_string()).experiments("", View::All, 5).next().await.unwrap_err();
        assert_eq!(trouble.fault, Fault::NotFound);
        assert!(trouble.failure.hint.unwrap().contains("--static-prefix"));
    });
}

#[test]
fn the_newest_mlflow_is_read_also_behind_tls() {
    let (server, place) = reads_what_mlflow_reads("3.17.2", &[]);
    wait(async {
        let info = client(&server.url).server_info().await.unwrap().unwrap();
        assert_eq!((info.store_type.as_deref(), info.workspaces), (Some("SqlStore"), false));
        let workspace = Connection { workspace: Some("team".to_owned()), ..connection(&server.url) };
        let trouble = search(&workspace).await.unwrap_err();
        assert_eq!(trouble.fault, Fault::Api { code: "FEATURE_DISABLED".to_owned() });
        assert!(trouble.failure.hint.unwrap().contains("unset MLFLOW_WORKSPACE"));
        another_host(&server.url).await;
        behind_tls(&server.url, place.path()).await;
    });
}

async fn search(connection: &Connection) -> Reply<Vec<Experiment>> {
    all(Client::new(connection, BOUNDS).unwrap().experiments("", View::Active, 100)).await
}

/// A relay to the server; its port.
pub(crate) fn relay(url: &str, more: &[&str]) -> (Killed, u16) {
    let to = url.strip_prefix("http://").unwrap();
    let mut child = Command::new("python3")
        .arg(root().join("tests/mlflow/relay.py"))
        .args(["--to", to])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Killed(child), line.trim().parse().unwrap())
}

async fn another_host(url: &str) {
    let (_relay, port) = relay(url, &["--host", "127.0.0.2"]);
    let there = connection(&format!("http://127.0.0.2:{port}"));
    let trouble = search(&there).await.unwrap_err();
    assert_eq!(trouble.fault, Fault::HostRefused);
    let hint = trouble.failure.hint.unwrap();
    assert!(hint.contains("--allowed-hosts") && hint.contains(&format!("127.0.0.2:{port}")), "{hint}");
    assert_eq!(Client::new(&there, BOUNDS).unwrap().live().await.unwrap().value, "OK");
}

#[track_caller]
fn tls_trouble(reply: Reply<Vec<Experiment>>, says: &str, hint: &str) {
    let trouble = reply.unwrap_err();
    assert_eq!((&trouble.fault, trouble.failure.kind), (&Fault::Tls, Kind::Unreachable), "{}", trouble.failure);
    assert!(trouble.failure.message.contains(says), "{}", trouble.failure);
    assert!(trouble.failure.hint.as_deref().unwrap_or_default().contains(hint), "{:?}", trouble.failure);
}

async fn behind_tls(url: &str, place: &Path) {
    tls::certificates(place);
    tls::openssl(
        place,
        &format!(
            "req -new -x509 -days 30 {} -keyout self.key -out self.crt -subj /CN=me -addext subjectAltName=DNS:localhost",
            tls::NEW_KEY
        ),
    );
    // Valid for a day that is over.
    tls::openssl(place, &format!("req -new {} -keyout old.key -out old.csr -subj /CN=localhost", tls::NEW_KEY));
    std::fs::write(place.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
    tls::openssl(
        place,
        "ca -batch -config ca.conf -keyfile ca.key -cert ca.crt -policy p -rand_serial -notext -extfile san -outdir . \
         -startdate 20200101000000Z -enddate 20200102000000Z -in old.csr -out old.crt",
    );
    let file = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let serve = |name: &str, more: &[&str]| {
        let (cert, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        relay(url, &[&["--cert", &cert, "--key", &key], more].concat())
    };
    let to = |host: &str, port: u16, authority: &str| {
        let ca_file = Some(file(authority).into()).filter(|_| !authority.is_empty());
        Connection { ca_file, ..connection(&format!("https://{host}:{port}")) }
    };

    let (_server, port) = serve("server", &[]);
    assert!(search(&to("localhost", port, "ca.crt")).await.is_ok());
    assert!(search(&Connection { insecure: true, ..to("127.0.0.1", port, "") }).await.is_ok());
    tls_trouble(search(&to("localhost", port, "other.crt")).await, "authority", "MLFLOW_TRACKING_SERVER_CERT_PATH");
    tls_trouble(search(&to("localhost", port, "")).await, "authority", "MLFLOW_TRACKING_SERVER_CERT_PATH");
    tls_trouble(search(&to("127.0.0.1", port, "ca.crt")).await, "not for the name 127.0.0.1", "name");
    let folder = place.join("authorities");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(place.join("ca.crt"), folder.join("ca.pem")).unwrap();
    assert!(search(&to("localhost", port, "authorities")).await.is_ok());

    let (_server, own) = serve("self", &[]);
    assert!(search(&to("localhost", own, "self.crt")).await.is_ok());
    tls_trouble(search(&to("localhost", own, "ca.crt")).await, "authority", "MLFLOW_TRACKING_SERVER_CERT_PATH");
    tls_trouble(search(&to("127.0.0.1", own, "self.crt")).await, "not for the name 127.0.0.1", "name");

    let (_server, old) = serve("old", &[]);
    tls_trouble(search(&to("localhost", old, "ca.crt")).await, "expired", "new certificate");
    let shown = certificate(&to("localhost", old, "ca.crt"), BOUNDS).await.unwrap().unwrap();
    assert_eq!(
        (shown.not_after.to_string().as_str(), shown.subject.as_str()),
        ("2020-01-02T00:00:00Z", "CN=localhost")
    );
    assert_eq!(certificate(&connection(url), BOUNDS).await.unwrap(), None);

    let (_server, asking) = serve("server", &["--client-ca", &file("ca.crt")]);
    let with = |name: &str| {
        let pair = ["crt", "key"].map(|e| std::fs::read_to_string(place.join(format!("{name}.{e}"))).unwrap());
        std::fs::write(place.join(format!("{name}.pem")), pair.concat()).unwrap();
        let client_certificate = Some(file(&format!("{name}.pem")).into());
        Connection { client_certificate, ..to("localhost", asking, "ca.crt") }
    };
    assert!(search(&with("client")).await.is_ok());
    let bare = to("localhost", asking, "ca.crt");
    for refused in [with("stranger"), bare.clone()] {
        // The relay hangs up, with or without an alert that says why.
        let trouble = search(&refused).await.unwrap_err();
        assert!([Fault::Tls, Fault::Connect].contains(&trouble.fault), "{}", trouble.failure);
        assert!(trouble.failure.hint.unwrap().contains("MLFLOW_TRACKING_CLIENT_CERT_PATH"));
    }
    let keyless = Connection { client_certificate: Some(file("client.crt").into()), ..bare };
    assert_eq!(Client::new(&keyless, BOUNDS).err().unwrap().kind, Kind::Configuration);

    // The wrong scheme, both ways.
    let plain = url.replace("http://127.0.0.1", "https://localhost");
    tls_trouble(search(&connection(&plain)).await, "does not speak TLS", "http://");
    let trouble = search(&connection(&format!("http://localhost:{port}"))).await.unwrap_err();
    assert_eq!(trouble.fault, Fault::Connect);
    assert!(trouble.failure.hint.unwrap().contains("https://"));
}

#[test]
fn basic_auth_of_mlflow_takes_the_right_password_only() {
    let place = folder();
    let store = format!("sqlite:///{}", place.path().join("mlflow.db").display());
    let server = Server::start("2.9.2", &store, place.path(), &["--basic-auth", "admin:p@ss: w/rd"]);
    let with = |user: &str| server.url.replace("http://", &format!("http://{user}"));
    wait(async {
        let right = connection(&with("admin:p%40ss%3A w%2Frd@"));
        assert_eq!(search(&right).await.unwrap().len(), 1);
        let wrong = search(&connection(&with("admin:hunter2@"))).await.unwrap_err();
        let none = search(&connection(&server.url)).await.unwrap_err();
        let bearer = Connection { credentials: Credentials::Bearer(TOKEN.into()), ..connection(&server.url) };
        for trouble in [wrong, none, search(&bearer).await.unwrap_err()] {
            assert_eq!((&trouble.fault, trouble.failure.kind), (&Fault::Unauthorized, Kind::Configuration));
            let text = format!("{:?}", trouble.failure);
            assert!(text.contains("MLFLOW_TRACKING_USERNAME"), "{text}");
            assert!(!text.contains("hunter2") && !text.contains(TOKEN), "{text}");
        }
    });
}

/// A server that gives these answers, one to a connection, and what it was asked.
fn canned(answers: &[&str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let answers: Vec<String> = answers.iter().map(|&a| a.to_owned()).collect();
    let thread = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 64 << 10];
            let n = stream.read(&mut request).unwrap();
            asked.push(String::from_utf8_lossy(&request[..n]).into_owned());
            let _ = stream.write_all(answer.as_bytes());
        }
        asked
    });
    (url, thread)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

const NOTHING: &str = r#"{"experiments": []}"#;

async fn fault(url: &str) -> Trouble {
    client(url).once().experiments("", View::All, 5).next().await.unwrap_err()
}

#[test]
fn what_is_safe_is_asked_again_and_nothing_else() {
    let busy = answer("503 Busy", "Retry-After: 1\r\n", "wait");
    let (url, server) = canned(&[&busy, "", &answer("200 OK", "", NOTHING)]);
    let begun = Instant::now();
    let found = wait(async { search(&connection(&url)).await }).unwrap();
    assert!(found.is_empty() && begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(server.join().unwrap().len(), 3);

    let (url, server) = canned(&[&busy]);
    let trouble = wait(async { client(&url).create_experiment("x").await }).unwrap_err();
    assert_eq!(trouble.fault, Fault::Server(503));
    assert_eq!(server.join().unwrap().len(), 1);

    let (url, server) = canned(&[&busy]);
    assert_eq!(wait(fault(&url)).fault, Fault::Server(503));
    server.join().unwrap();

    // A pause that does not fit the time that is left is not made.
    let (url, server) = canned(&[&answer("503 Busy", "Retry-After: 3600\r\n", "wait")]);
    let begun = Instant::now();
    assert_eq!(wait(async { search(&connection(&url)).await }).unwrap_err().fault, Fault::Server(503));
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.join().unwrap();
}

#[test]
fn credentials_go_nowhere_else() {
    let (elsewhere, other) = canned(&[&answer("200 OK", "", NOTHING)]);
    let away = answer("307 Moved", &format!("Location: {elsewhere}/login?x=y\r\n"), "");
    let (url, server) = canned(&[&away]);
    let with_user = url.replace("http://", "http://ada:hunter2@");
    let trouble = wait(fault(&with_user));
    assert_eq!(trouble.fault, Fault::Malformed);
    assert!(trouble.failure.message.contains(&format!("{elsewhere}/login")), "{}", trouble.failure);
    let asked = server.join().unwrap();
    // base64 of ada:hunter2.
    assert!(asked[0].to_lowercase().contains("authorization: basic ywrhomh1bnrlcji="), "{}", asked[0]);
    assert!(!other.is_finished());
}

#[test]
fn lists_that_do_not_end_and_answers_that_are_none() {
    let page = |id: u32, token: &str| {
        let experiments = format!(r#"{{"experiments": [{{"experiment_id": "{id}"}}], "next_page_token": "{token}"}}"#);
        answer("200 OK", "", &experiments)
    };
    let (url, server) = canned(&[&page(1, "a"), &page(2, "b"), &page(1, "a")]);
    let trouble = wait(async { search(&connection(&url)).await }).unwrap_err();
    assert!(trouble.failure.message.contains("circle"), "{}", trouble.failure);
    assert_eq!(server.join().unwrap().len(), 3);

    let login = "<!doctype html><title>Sign in</title>";
    for (given, wanted, says) in [
        (answer("200 OK", "", login), Fault::Malformed, "a web page"),
        (answer("200 OK", "", "{\"experiments\": 5}"), Fault::Malformed, "expected"),
        (answer("404 Not Found", "", "<!doctype html>"), Fault::NotFound, "there is no"),
        (answer("404 Not Found", "", "{\"detail\":\"Not Found\"}"), Fault::NotFound, "there is no"),
        (answer("404 Not Found", "", "{\"error_code\":\"ENDPOINT_NOT_FOUND\"}"), Fault::NotFound, "there is no"),
        (answer("403 Forbidden", "", "Permission denied"), Fault::Forbidden, "Permission denied"),
        (answer("502 Bad Gateway", "", login), Fault::Server(502), "a web page"),
        (
            answer("500 Error", "", "{\"error_code\":\"INTERNAL_ERROR\",\"message\":\"no\\ndisk\"}"),
            Fault::Server(500),
            "no disk",
        ),
        ("no HTTP at all\r\n\r\n".to_owned(), Fault::Connect, "invalid HTTP"),
        (String::new(), Fault::Connect, "connection closed"),
        (answer("200 OK", "", NOTHING).replace("Content-Length: ", "Content-Length: 9"), Fault::Connect, "end of file"),
    ] {
        let (url, server) = canned(&[&given]);
        let trouble = wait(fault(&url));
        assert_eq!(trouble.fault, wanted, "{given}: {}", trouble.failure);
        assert!(trouble.failure.message.contains(says), "{given}: {}", trouble.failure);
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_is_not_there_or_says_nothing_is_given_up_in_time() {
    let bounds = Bounds { connect: Duration::from_millis(300), call: Duration::from_millis(700) };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let begun = Instant::now();
    let trouble = wait(async { Client::new(&connection(&url), bounds).unwrap().live().await }).unwrap_err();
    assert_eq!((&trouble.fault, trouble.failure.kind), (&Fault::Timeout, Kind::Unreachable));
    assert!(trouble.failure.message.contains("no answer within 0.7 s"), "{}", trouble.failure);
    assert!(trouble.took >= Duration::from_millis(600) && begun.elapsed() < Duration::from_secs(3));
    drop(silent);
    let trouble = wait(async { Client::new(&connection(&url), bounds).unwrap().live().await }).unwrap_err();
    assert_eq!(trouble.fault, Fault::Connect);
    assert!(trouble.failure.message.contains("refused"), "{}", trouble.failure);
    assert!(trouble.failure.hint.unwrap().contains("MLFLOW_TRACKING_URI"));
    let trouble = wait(fault("http://nowhere.invalid:5000"));
    assert_eq!(trouble.fault, Fault::Connect);
}

#[test]
fn config_show_masks_the_password_of_the_server() {
    let home = folder();
    let shown = |uri: &str| -> Said {
        let said = crate::support::run(home.path(), &["config", "show", "--tracking-uri", uri]).expect(0);
        assert!(!said.out.contains("hunter2"), "{}", said.out);
        said
    };
    assert!(shown("https://ada:hunter2@mlflow.example.com/ml").out.contains("https://ada:***@mlflow.example.com/ml"));
    shown("ada:hunter2@mlflow.example.com");
}
