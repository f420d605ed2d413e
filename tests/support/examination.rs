//! A stack on a bad day, and the same on a good one, as checks would tell of them.

use jiff::{SignedDuration, Timestamp};
use mlops::domain::health::{Bound, Examination, Limits, Reading, Status, Unit, follow_dependencies};

fn at_most(warning: f64, critical: f64) -> Limits {
    Limits { warning: Some(Bound::AtMost(warning)), critical: Some(Bound::AtMost(critical)) }
}

fn at_least(critical: f64) -> Limits {
    Limits { warning: None, critical: Some(Bound::AtLeast(critical)) }
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

/// PostgreSQL is stopped, and that is not all.
pub(crate) fn bad_day() -> Examination {
    let hostile = "nightly|`rm -rf`\u{1b}[31m\n<script>*x*</script> @channel";
    let mut connect = Reading::critical(
        "database.connect",
        "PostgreSQL at db.example.org:5432 takes no connection: connection refused",
    )
    .cause("the server is stopped, or listens elsewhere: port 5432 answers with a reset, the host answers")
    .hint("look on db.example.org: `systemctl status postgresql`, `journalctl -u postgresql -n 50`")
    .evidence(["db.example.org is 10.20.0.7".into(), "10.20.0.7:5432 connection refused after 2 ms".into()]);
    connect.since = at("2026-11-21T07:12:40Z");
    let mut newest = Reading::measured(
        "activity.nightly.newest",
        187_200.0,
        Unit::Seconds,
        at_most(86_400.0, 172_800.0),
        format!("the newest run of 3 experiments is {hostile}"),
    )
    .hint("see why the job did not start: `systemctl list-timers`")
    .needs("server.ready");
    newest.since = at("2026-11-19T10:00:00Z");
    let mut stuck = Reading::measured(
        "activity.nightly.running",
        93_600.0,
        Unit::Seconds,
        at_most(86_400.0, 172_800.0),
        "7 runs are RUNNING; the oldest, of forecast-north, began 26 hours ago and its last metric came 25 hours ago",
    )
    .cause("the process ended without telling the server: it was killed, or lost its connection")
    .evidence((1..=7).map(|n| format!("run {n:032x} of forecast-north, begun 2026-11-20T0{n}:00:00Z")));
    stuck.since = at("2026-11-21T07:47:00Z");
    let mut held = Reading::ok("probe.energy", "answered 503 in place of 200");
    held.held = Some((1, 3));
    let mut weak = Reading::measured(
        "metrics.champion.r2",
        0.8123,
        Unit::Number,
        at_least(0.85),
        "model demand, version 41 (champion)",
    );
    weak.since = at("2026-11-01T09:00:00Z");
    let mut readings = vec![
        connect,
        Reading::ok("database.revision", ""),
        Reading::ok("database.size", ""),
        Reading::ok("database.connections", ""),
        Reading::ok("database.path", "not a file"),
        Reading::measured("server.live", 0.0123, Unit::Seconds, Limits::default(), "answers /health with 200"),
        Reading::critical("server.ready", "a search over experiments was answered with 500 after 4.1 s"),
        Reading::ok("server.version", "3.17.2"),
        Reading::ok("server.search-latency", ""),
        Reading::measured(
            "server.certificate",
            777_600.0,
            Unit::Seconds,
            Limits { warning: Some(Bound::AtLeast(1_209_600.0)), critical: Some(Bound::AtLeast(259_200.0)) },
            "expires on 2026-11-30, issued by R13",
        )
        .hint("renew it: `certbot renew`"),
        Reading::measured("server.clock", -0.4, Unit::Seconds, Limits::default(), "the server's clock is behind"),
        Reading::ok("artifacts.root", "/srv/mlflow/artifacts is a folder"),
        Reading::measured("artifacts.disk", 18.4, Unit::Percent, at_least(5.0), "free on /srv").most(100.0),
        Reading::measured("artifacts.size", 1.25e12, Unit::Bytes, Limits::default(), "in 1,204,331 files").most(2.0e12),
        Reading::unknown("artifacts.growth", "not measured: the first run was 6 h ago, growth needs 24 h"),
        Reading::ok("artifacts.versions", ""),
        Reading::ok("registry.versions", ""),
        Reading::ok("registry.production", ""),
        newest,
        stuck,
        weak,
        Reading::warning("security.server", "no password is asked at http://mlflow.example.org:5000, beyond loopback")
            .hint("start it with `--app-name basic-auth`, or put a proxy with a password before it"),
        Reading::measured("probe.weather", 1_204.0, Unit::Count, at_least(1.0), "records found in .data.weather"),
        held,
    ];
    follow_dependencies(&mut readings);
    // What was seen before the layer below broke is told by itself here.
    for reading in readings.iter_mut().filter(|r| r.id == "activity.nightly.newest") {
        *reading = Reading::measured(
            "activity.nightly.newest",
            187_200.0,
            Unit::Seconds,
            at_most(86_400.0, 172_800.0),
            format!("the newest run of 3 experiments is {hostile}"),
        )
        .hint("see why the job did not start: `systemctl list-timers`");
        reading.since = at("2026-11-19T10:00:00Z");
    }
    Examination {
        left: vec![(
            "database.integrity".to_owned(),
            "quick_check reads all of a file: above 268.4 MB with --deep only".to_owned(),
        )],
        stack: vec![
            ("server", "https://mlflow.example.org".into()),
            ("database", "postgresql://mlflow:***@db.example.org/mlflow".into()),
            ("artifacts", "/srv/mlflow/artifacts".into()),
        ],
        at: at("2026-11-21T09:47:12Z").unwrap(),
        took: SignedDuration::from_millis(4_215),
        readings,
    }
}

/// The same stack when all is well.
pub(crate) fn good_day() -> Examination {
    let mut examination = bad_day();
    examination.readings.retain(|r| r.status == Status::Ok && r.held.is_none());
    examination.took = SignedDuration::from_millis(214);
    examination
}
