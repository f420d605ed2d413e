//! Promotions whose answers are lost, that are killed, overtaken or locked out: what is told is true, and the next one
//! ends what was left open.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::promotions::{Registry, View, shared};
use crate::support::relay::{Fate, Relay};
use crate::support::{Killed, Said, folder, rounds, wait_for};

const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops";
const GATEWAY: &str = "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow";
const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\nConnection: close\r\n\r\nPermission denied";

const TRANSITION: &str = "/model-versions/transition-stage ";
const ALIAS: &str = "/registered-models/alias ";
const TAG: &str = "/model-versions/set-tag ";

/// A model with a champion, a challenger and a relay of its own before the server.
struct Scene {
    registry: &'static Registry,
    relay: Relay,
    home: tempfile::TempDir,
    model: String,
    mode: &'static str,
}

/// The port of an address.
fn port(url: &str) -> u16 {
    url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap()
}

impl Scene {
    /// Version 1 is champion; 2 and 3 may become it.
    fn new(registry: &'static Registry, model: &str, mode: &'static str) -> Scene {
        let relay = Relay::before(port(&registry.server.url));
        let scene = Scene { registry, relay, home: folder(), model: format!("{model} by {mode}"), mode };
        for _ in 0..3 {
            registry.register(&scene.model, json!({}));
        }
        scene.promote(1).expect(0);
        scene
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.registry.program(self.home(), arguments);
        command.env("MLFLOW_TRACKING_URI", format!("http://127.0.0.1:{}", self.relay.port));
        command.args(["--model", &self.model, "--mode", self.mode, "--yes"]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).args(["--output", "json"]).output().unwrap())
    }

    fn promote(&self, version: u64) -> Said {
        self.run(&["promote", "--version", &version.to_string()])
    }

    /// The fate of the first so many requests (all: 0) whose first line holds these words, after so many others of them.
    fn fate(&self, words: &'static str, after: u32, times: u32, fate: Fate) {
        let met = AtomicU32::new(0);
        self.relay.judge(move |head| {
            let line = head.lines().next().unwrap_or_default();
            if !line.contains(words) {
                return Fate::Through;
            }
            let turn = met.fetch_add(1, Ordering::SeqCst);
            if turn < after || (times > 0 && turn >= after + times) { Fate::Through } else { fate }
        });
    }

    fn calm(&self) {
        self.relay.judge(|_| Fate::Through);
    }

    fn view(&self) -> View {
        self.registry.view(&self.model)
    }

    /// Who is champion, by each mark; `None`: nobody, or a mark that this mode does not set.
    fn marks(&self) -> (Vec<u64>, Option<u64>) {
        let view = self.view();
        (view.in_stage("Production").into_iter().collect(), view.under("champion"))
    }

    /// That one version is champion, by all marks of this mode.
    #[track_caller]
    fn champion(&self, version: u64) {
        let staged = if self.mode == "alias" { vec![] } else { vec![version] };
        assert_eq!(self.marks(), (staged, (self.mode != "stage").then_some(version)), "{}", self.model);
    }

    /// The states of the records, as the tags tell them.
    fn states(&self) -> Vec<(u64, String)> {
        let history = self.registry.history(&self.model);
        let records = history["records"].as_array().unwrap().iter();
        records.map(|r| (r["version"].as_u64().unwrap(), r["state"].as_str().unwrap().to_owned())).collect()
    }

    #[track_caller]
    fn last_state(&self, version: u64, state: &str) {
        assert_eq!(self.states().last(), Some(&(version, state.to_owned())), "{}", self.model);
    }
}

fn message(said: &Said) -> String {
    said.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
}

fn warnings(said: &Said) -> String {
    said.json()["warnings"].to_string()
}

/// The calls that change who is champion, each with each fault.
fn the_switch_is_told_truly(mode: &'static str) {
    let registry = shared("2.9.2");
    let calls: &[&'static str] = match mode {
        "stage" => &[TRANSITION],
        "alias" => &[ALIAS],
        _ => &[ALIAS, TRANSITION],
    };
    let faults = [
        ("500 after", Fate::Denied(FAILED), true),
        ("cut after", Fate::Swallowed, true),
        ("cut in the answer", Fate::Cut(3), true),
        ("500 before", Fate::Instead(FAILED), false),
        ("cut before", Fate::Lost, false),
    ];
    std::thread::scope(|scope| {
        for call in calls {
            for (name, fate, committed) in faults {
                scope.spawn(move || {
                    let path = call.trim().rsplit('/').next().unwrap();
                    let scene = Scene::new(registry, &format!("{path} {name}"), mode);
                    scene.fate(call, 0, 1, fate);
                    let said = scene.promote(2);
                    scene.calm();
                    if committed {
                        let result = said.expect(0).json()["result"].clone();
                        assert_eq!(result["ended"], "done", "{name}: {result}");
                        scene.champion(2);
                        scene.last_state(2, "done");
                    } else {
                        let said = said.expect(8);
                        let back = mode == "both" && *call == TRANSITION;
                        let words = if back { "@champion is put back as it was" } else { "nothing was changed" };
                        assert!(message(&said).contains(words), "{name}: {}", message(&said));
                        scene.champion(1);
                        scene.last_state(2, "undone");
                        // Nothing is left open, and the next one goes through.
                        let again = scene.promote(2).expect(0);
                        assert_eq!(again.json()["warnings"], json!([]), "{name}");
                        scene.champion(2);
                    }
                    scene.run(&["rollback"]).expect(0);
                    scene.champion(1);
                });
            }
        }
    });
}

#[test]
fn a_lost_answer_to_a_change_of_stage_is_told_truly() {
    the_switch_is_told_truly("stage");
}

#[test]
fn a_lost_answer_to_a_change_of_alias_is_told_truly() {
    the_switch_is_told_truly("alias");
}

#[test]
fn a_lost_answer_is_told_truly_where_both_change() {
    the_switch_is_told_truly("both");
}

/// An answer that is given up may come later than anybody looks: what came of it is found out by the next one.
#[test]
fn what_the_server_may_still_do_is_not_called_undone() {
    let registry = shared("2.9.2");
    std::thread::scope(|scope| {
        for comes in [true, false] {
            scope.spawn(move || {
                let scene = Scene::new(registry, &format!("gateway {comes}"), "stage");
                scene.fate(TRANSITION, 0, 1, Fate::Instead(GATEWAY));
                let said = scene.promote(2).expect(4);
                scene.calm();
                assert_eq!(said.json()["result"]["ended"], "open");
                assert!(
                    warnings(&said).contains("whether it is done, or will be, is not known"),
                    "{}",
                    warnings(&said)
                );
                scene.last_state(2, "begun");
                scene.champion(1);
                if comes {
                    registry.transition(&scene.model, 2, "Production");
                }
                let next = scene.promote(3).expect(0);
                let words = if comes { "which is done: its record is complete" } else { "nothing was changed" };
                assert!(warnings(&next).contains(words), "{}", warnings(&next));
                let state = if comes { "done" } else { "undone" };
                assert!(scene.states().contains(&(2, state.to_owned())), "{:?}", scene.states());
                scene.champion(3);
            });
        }
        scope.spawn(move || {
            let scene = Scene::new(registry, "thought undone", "stage");
            scene.fate(TRANSITION, 0, 1, Fate::Lost);
            scene.promote(2).expect(8);
            scene.calm();
            scene.last_state(2, "undone");
            registry.transition(&scene.model, 2, "Production");
            let next = scene.promote(3).expect(0);
            assert!(warnings(&next).contains("its record is complete now"), "{}", warnings(&next));
            assert!(scene.states().contains(&(2, "done".to_owned())), "{:?}", scene.states());
            scene.run(&["rollback"]).expect(0);
            scene.champion(2);
        });
    });
}

/// A record that cannot be left, before the switch, after it, with the version that came and the one that went.
#[test]
fn a_lost_record_is_told_and_completed() {
    let registry = shared("2.9.2");
    let scene = |name: &str| Scene::new(registry, name, "both");
    std::thread::scope(|scope| {
        for (name, fate) in
            [("500 after", Fate::Denied(FAILED)), ("cut after", Fate::Swallowed), ("cut before", Fate::Lost)]
        {
            for turn in 0..3 {
                scope.spawn(move || {
                    // The one is found there, the other is sent again.
                    let scene = scene(&format!("record {turn} {name}"));
                    scene.fate(TAG, turn, 1, fate);
                    let said = scene.promote(2).expect(0);
                    assert_eq!(said.json()["warnings"], json!([]), "{name} {turn}");
                    scene.champion(2);
                    scene.last_state(2, "done");
                });
            }
        }
        scope.spawn(|| {
            let scene = scene("the first record fails");
            let before = scene.view();
            scene.fate(TAG, 0, 0, Fate::Instead(FAILED));
            let said = scene.promote(2).expect(8);
            assert!(message(&said).contains("nothing was changed"), "{}", message(&said));
            assert_eq!(scene.view(), before);
        });
        for (after, words) in [(1, "its record could not be completed"), (2, "could not be told who took its place")] {
            scope.spawn(move || {
                let scene = scene(&format!("record {after} fails"));
                scene.fate(TAG, after, 0, Fate::Instead(FAILED));
                let said = scene.promote(2).expect(4);
                scene.calm();
                assert_eq!(said.json()["result"]["ended"], "unrecorded");
                assert!(warnings(&said).contains(words), "{}", warnings(&said));
                scene.champion(2);
                // Whoever comes next completes it: it was done, whatever is there by then.
                let next = if after == 1 {
                    registry.transition(&scene.model, 3, "Production");
                    scene.promote(1).expect(0)
                } else {
                    scene.promote(3).expect(0)
                };
                let complete = warnings(&next).contains("its record is complete now");
                assert_eq!(complete, after == 1, "{}", warnings(&next));
                let last = if after == 1 { 1 } else { 3 };
                assert_eq!(scene.states(), [1, 2, last].map(|v| (v, "done".to_owned())));
                scene.run(&["rollback"]).expect(0);
                scene.champion(2);
            });
        }
    });
}

/// The alias is set, and the stage is refused for good.
#[test]
fn a_half_done_switch_is_undone_or_told() {
    let registry = shared("2.9.2");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let scene = Scene::new(registry, "refused", "both");
            scene.fate(TRANSITION, 0, 0, Fate::Instead(FORBIDDEN));
            let said = scene.promote(2).expect(3);
            let message = message(&said);
            assert!(
                message.contains("may not do that") && message.contains("@champion is put back as it was"),
                "{message}"
            );
            scene.calm();
            scene.champion(1);
            scene.last_state(2, "undone");
        });
        scope.spawn(|| {
            // The first champion of all: the alias is taken away again.
            let relay = Relay::before(port(&registry.server.url));
            let scene = Scene { registry, relay, home: folder(), model: "refused at first".to_owned(), mode: "both" };
            registry.register(&scene.model, json!({}));
            scene.fate(TRANSITION, 0, 0, Fate::Instead(FORBIDDEN));
            scene.promote(1).expect(3);
            scene.calm();
            assert_eq!(scene.marks(), (vec![], None));
        });
        scope.spawn(|| {
            // Nor can it be put back.
            let scene = Scene::new(registry, "stuck", "both");
            let aliases = AtomicU32::new(0);
            scene.relay.judge(move |head| {
                let line = head.lines().next().unwrap_or_default();
                let stuck = line.contains(ALIAS) && aliases.fetch_add(1, Ordering::SeqCst) > 0;
                if stuck || line.contains(TRANSITION) { Fate::Instead(FORBIDDEN) } else { Fate::Through }
            });
            let said = scene.promote(2).expect(4);
            assert_eq!(said.json()["result"]["ended"], "open");
            assert!(warnings(&said).contains("@champion names version 2, which was not put into Production"));
            assert_eq!(scene.marks(), (vec![1], Some(2)));
            scene.last_state(2, "begun");
            scene.calm();
            // A dry run tells of it, and leaves it.
            let told = scene.run(&["promote", "--version", "3", "--dry-run"]).expect(0);
            assert!(warnings(&told).contains("did not come to its end"), "{}", warnings(&told));
            assert_eq!(scene.marks(), (vec![1], Some(2)));
            let next = scene.promote(3).expect(0);
            assert!(warnings(&next).contains("@champion is put back as it was"), "{}", warnings(&next));
            scene.champion(3);
            scene.run(&["rollback"]).expect(0);
            scene.champion(1);
        });
    });
}

/// What another client does between the switch and the look at what came of it.
#[test]
fn another_clients_change_in_the_same_moment_is_seen() {
    type Change = fn(&Registry, &str);
    let beside: Change = |r, m| {
        r.told(&json!({"do": "transition", "model": m, "version": 3, "stage": "Production"}));
    };
    let (away, instead): (Change, Change) =
        (|r, m| r.transition(m, 2, "Archived"), |r, m| r.transition(m, 3, "Production"));
    let alias: Change = |r, m| r.alias(m, "champion", 3);
    let registry = shared("2.9.2");
    let cases: [(&str, &str, &'static str, Change, i32, &str); 7] = [
        (
            "beside",
            TRANSITION,
            "stage",
            beside,
            0,
            "put version 3 into Production in the same moment: version 2 was put there again, alone",
        ),
        (
            "beside",
            TRANSITION,
            "both",
            beside,
            0,
            "put version 3 into Production in the same moment: version 2 was put there again, alone",
        ),
        (
            "away",
            TRANSITION,
            "both",
            away,
            0,
            "took version 2 out of Production in the same moment: version 2 was put there again, alone",
        ),
        (
            "instead",
            TRANSITION,
            "stage",
            instead,
            4,
            "version 2 was put there and is not there alone now (in the stage: 3)",
        ),
        ("instead", TRANSITION, "both", instead, 4, "in the stage: 3; under the alias: 2"),
        ("alias", ALIAS, "alias", alias, 4, "under the alias: 3"),
        ("alias", TRANSITION, "both", alias, 4, "in the stage: 2; under the alias: 3"),
    ];
    for (name, call, mode, change, code, words) in cases {
        let scene = Scene::new(registry, &format!("{name} in the same moment"), mode);
        let (model, mut turn) = (scene.model.clone(), 0);
        scene.relay.judge(move |head| {
            // At the first request after the one that switches.
            match (turn, head.lines().next().unwrap_or_default().contains(call)) {
                (0, true) => turn = 1,
                (1, _) => {
                    turn = 2;
                    change(registry, &model);
                }
                _ => {}
            }
            Fate::Through
        });
        let said = scene.promote(2).expect(code);
        scene.calm();
        let told = format!("{} {}", message(&said), warnings(&said));
        assert!(told.contains("another client") && told.contains(words), "{name} {mode}: {told}");
        let history = scene.registry.history(&scene.model);
        if code == 0 {
            scene.champion(2);
            scene.last_state(2, "done");
        } else {
            scene.last_state(2, "overtaken");
            // It is nobody's champion in the history; the other client's is one that mlops did not make.
            let champions = history["champions"].as_array().unwrap();
            let of = |version: u64| champions.iter().find(|c| c["version"] == version && c["ended"] == false);
            assert!(of(3).is_some_and(|c| c["by_mlops"] == false && c["since"].is_null()), "{history}");
            assert!(champions.iter().all(|c| c["version"] != 2 || c["by_mlops"] == false), "{history}");
        }
        // Whatever it was, the next one leaves one champion.
        scene.promote(1).expect(0);
        scene.champion(1);
    }
}

/// One that was begun elsewhere may still be at it, where no lock is shared; what it left is judged by what is there.
#[test]
fn one_that_was_begun_on_another_machine_is_left_time() {
    let registry = shared("3.4.0");
    let begun = |scene: &Scene, at: &str| {
        let record = json!({
            "id": "elsewhere", "at": at, "action": "promote", "version": 2, "from": "None", "to": {"stage": "Production"},
            "former": 1, "before": {"staged": [1]}, "by": "bob@elsewhere", "state": "begun", "model": scene.model,
        });
        registry.tag(&scene.model, 2, "mlops.promote.elsewhere", &record.to_string());
    };
    let (now, old) = (jiff::Timestamp::now().to_string(), "2026-01-01T00:00:00Z");
    let scene = Scene::new(registry, "begun elsewhere", "stage");
    begun(&scene, &now);
    let before = scene.view();
    let said = scene.promote(3).expect(10);
    assert!(message(&said).contains("bob@elsewhere puts version 2 into Production right now"), "{}", message(&said));
    assert_eq!(scene.view(), before);
    // Two minutes later it is over.
    let past = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_mins(2)).unwrap();
    begun(&scene, &past.to_string());
    let said = scene.promote(3).expect(0);
    assert!(warnings(&said).contains("was cut off before its switch: nothing was changed"), "{}", warnings(&said));
    scene.champion(3);

    let scene = Scene::new(registry, "long ago", "stage");
    begun(&scene, old);
    registry.transition(&scene.model, 2, "Production");
    let said = scene.promote(3).expect(0);
    assert!(warnings(&said).contains("was cut off after its switch, which is done"), "{}", warnings(&said));
    // Nobody can know whether it was done before the other client came.
    let scene = Scene::new(registry, "long ago and changed since", "stage");
    begun(&scene, old);
    registry.transition(&scene.model, 3, "Production");
    let said = scene.promote(1).expect(0);
    assert!(warnings(&said).contains("another client changed Production (in the stage: 3)"), "{}", warnings(&said));
    let states: Vec<(u64, String)> = scene.states().into_iter().filter(|(version, _)| *version == 2).collect();
    assert_eq!(states, [(2, "overtaken".to_owned())]);
    scene.champion(1);
}

/// What becomes of the program at a request.
#[derive(Clone, Copy)]
struct Blow {
    signal: Signal,
    at: usize,
    /// Whether the server still hears of it.
    heard: bool,
}

impl Scene {
    /// Promotes a version and strikes at that request; the exit code (`None`: the signal ended it), and whether there was
    /// such a request. When it returns the server has done all that it was asked for.
    fn struck(&self, version: u64, blow: Blow) -> (Option<i32>, bool) {
        let pid: Arc<Mutex<Option<Pid>>> = Arc::default();
        let (known, seen) = (pid.clone(), Arc::new(AtomicU32::new(0)));
        let (count, at) = (seen.clone(), blow.at);
        // Before the first request is judged its sender is known.
        let mut held = pid.lock().unwrap();
        self.relay.judge(move |_| {
            let turn = count.fetch_add(1, Ordering::SeqCst) as usize;
            if turn != at {
                return Fate::Through;
            }
            let pid = known.lock().unwrap().unwrap();
            let _ = kill_process(pid, blow.signal);
            if blow.heard { Fate::Through } else { Fate::Lost }
        });
        let mut command = self.command(&["promote", "--version", &version.to_string()]);
        let mut child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        *held = Some(Pid::from_child(&child.0));
        drop(held);
        let code = child.0.wait().unwrap().code();
        wait_for("the server's rest", Duration::from_secs(60), || self.relay.is_idle().then_some(()));
        self.calm();
        (code, seen.load(Ordering::SeqCst) as usize > at)
    }

    /// What is left is the state before, after or in between; the next one says what was open and ends with one champion.
    fn is_ended_by_the_next(&self, old: u64, new: u64) -> &'static str {
        let marks = self.marks();
        let left = match marks {
            (ref staged, Some(alias)) if *staged == [old] && alias == old => "before",
            (ref staged, Some(alias)) if *staged == [new] && alias == new => "after",
            (ref staged, Some(alias)) if *staged == [old] && alias == new => "in between",
            _ => panic!("{marks:?} with {old} and {new}"),
        };
        let open = self.states().iter().filter(|(_, state)| state == "begun").count();
        assert!(open <= 1 && (left != "in between" || open == 1), "{left} {open}");
        let next = 6 - old - new;
        let said = self.promote(next).expect(0);
        let settled = warnings(&said);
        let words = match left {
            "before" => "was cut off before its switch: nothing was changed",
            "after" => "was cut off after its switch, which is done",
            _ => "was cut off in the middle: @champion is put back as it was",
        };
        assert_eq!(settled.contains(words), open == 1, "{left}: {settled}");
        self.champion(next);
        assert!(self.states().iter().all(|(_, state)| state != "begun"));
        // The history knows who was champion, and who was not.
        let story: Vec<u64> = self.states().iter().filter(|(_, s)| s == "done").map(|(version, _)| *version).collect();
        let ended = if left == "after" { &[old, new, next][..] } else { &[old, next] };
        assert!(story.ends_with(ended), "{left}: {story:?} {ended:?}");
        left
    }
}

/// Killed at each of its requests, before and after the server heard of it.
#[test]
fn a_promotion_that_is_killed_is_ended_by_the_next() {
    let scene = Scene::new(shared("2.9.2"), "killed", "both");
    let (mut old, mut left, mut at) = (1, Vec::new(), 0);
    loop {
        let mut met = false;
        for heard in [true, false] {
            let new = old % 3 + 1;
            let (_, there) = scene.struck(new, Blow { signal: Signal::KILL, at, heard });
            met |= there;
            left.push(scene.is_ended_by_the_next(old, new));
            old = 6 - old - new;
        }
        if !met {
            break;
        }
        at += 1;
    }
    let count = |what| left.iter().filter(|l| **l == what).count();
    println!(
        "killed at {at} requests: {} before, {} in between, {} after",
        count("before"),
        count("in between"),
        count("after")
    );
    assert!(at > 10 && count("before") > 3 && count("in between") > 0 && count("after") > 3);
}

#[test]
fn a_promotion_that_is_killed_at_random_is_ended_by_the_next() {
    let scene = Scene::new(shared("2.9.2"), "killed at random", "both");
    let begun = Instant::now();
    scene.promote(2).expect(0);
    let whole = begun.elapsed();
    let mut old = 2;
    for round in 0..rounds() {
        let new = old % 3 + 1;
        let mut command = scene.command(&["promote", "--version", &new.to_string()]);
        let mut child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // Spread over the whole of it, in no order.
        std::thread::sleep(whole * (round * 7 % 10 + 1) / 10);
        let _ = kill_process(Pid::from_child(&child.0), Signal::KILL);
        child.0.wait().unwrap();
        wait_for("the server's rest", Duration::from_secs(60), || scene.relay.is_idle().then_some(()));
        scene.is_ended_by_the_next(old, new);
        old = 6 - old - new;
    }
}

/// An interrupt ends it in order: never with 0, and nothing is left open once the switch was begun.
#[test]
fn a_promotion_that_is_interrupted_says_so() {
    let scene = Scene::new(shared("2.9.2"), "interrupted", "both");
    let (mut old, mut at) = (1, 0);
    loop {
        let (signal, wanted) = if at % 2 == 0 { (Signal::TERM, 143) } else { (Signal::INT, 130) };
        let new = old % 3 + 1;
        let (code, met) = scene.struck(new, Blow { signal, at, heard: true });
        if !met {
            assert_eq!(code, Some(0));
            break;
        }
        assert_eq!(code, Some(wanted), "at request {at}");
        let left = scene.is_ended_by_the_next(old, new);
        assert_ne!(left, "in between", "at request {at}");
        old = 6 - old - new;
        at += 1;
    }
    assert!(at > 10, "{at}");
}

/// Waits until the plan is made, which is told before the lock is taken.
fn planned(scene: &Scene, version: u64, more: &[&str]) -> (Killed, BufReader<std::process::ChildStderr>) {
    let mut command = scene.command(&["promote", "--version", &version.to_string()]);
    let mut child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("Plan: ") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "no plan was told");
    }
    (Killed(child), told)
}

fn ended(mut child: Killed, mut told: BufReader<std::process::ChildStderr>) -> Said {
    let (mut out, mut err) = (String::new(), String::new());
    told.read_to_string(&mut err).unwrap();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    Said { code: child.0.wait().unwrap().code().unwrap_or(-1), out, err }
}

/// Another mlops on this machine, as far as its lock is concerned.
fn held(scene: &Scene) -> File {
    let folder = scene.home().join("state/promote");
    let lock = fs::read_dir(folder).unwrap().flatten().next().unwrap().path();
    let file = File::options().append(true).open(lock).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn a_registry_that_changes_after_the_plan_is_left_alone() {
    type Change = fn(&Scene);
    let registry = shared("3.4.0");
    let changes: [(&str, Change, &str); 5] = [
        (
            "another champion",
            |s| s.registry.transition(&s.model, 3, "Production"),
            "Production and @champion was changed",
        ),
        ("another alias", |s| s.registry.alias(&s.model, "champion", 3), "Production and @champion was changed"),
        ("the same champion by another", |s| s.registry.transition(&s.model, 2, "Production"), "was changed"),
        ("it is archived", |s| s.registry.transition(&s.model, 2, "Archived"), "version 2 was moved to Archived"),
        (
            "it is deleted",
            |s| drop(s.registry.told(&json!({"do": "delete", "model": s.model, "version": 2}))),
            "version 2 was deleted",
        ),
    ];
    for (name, change, words) in changes {
        let scene = Scene::new(registry, name, "both");
        let lock = held(&scene);
        let (child, told) = planned(&scene, 2, &[]);
        change(&scene);
        let before = scene.view();
        drop(lock);
        let said = ended(child, told).expect(10);
        assert!(said.err.contains(words) && said.err.contains("nothing was done"), "{name}: {}", said.err);
        assert_eq!(scene.view(), before, "{name}");
    }
    // The lock of the database: those on other machines take it, too.
    let scene = Scene::new(registry, "across machines", "both");
    let database = registry.database.as_ref().unwrap();
    let mut session = database.client();
    let lock = |session: &mut postgres::Client, function: &str| {
        let sql = format!("SELECT {function}(hashtext('mlops'), hashtext($1))");
        session.execute(&sql, &[&format!("promote {}", scene.model)]).unwrap();
    };
    lock(&mut session, "pg_advisory_lock");
    let (child, told) = planned(&scene, 2, &["--backend-store-uri", &registry.store]);
    registry.transition(&scene.model, 3, "Production");
    lock(&mut session, "pg_advisory_unlock");
    let said = ended(child, told).expect(10);
    assert!(said.err.contains("nothing was done"), "{}", said.err);
    assert_eq!(scene.marks(), (vec![3], Some(1)));
}

#[test]
fn a_lock_that_is_held_for_good_is_told() {
    let registry = shared("3.4.0");
    let (here, there) = (Scene::new(registry, "held here", "both"), Scene::new(registry, "held there", "both"));
    let _file = held(&here);
    let mut session = registry.database.as_ref().unwrap().client();
    let name = format!("promote {}", there.model);
    session.execute("SELECT pg_advisory_lock(hashtext('mlops'), hashtext($1))", &[&name]).unwrap();
    let waiting = [planned(&here, 2, &[]), planned(&there, 2, &["--backend-store-uri", &registry.store])];
    let begun = Instant::now();
    for ((child, told), scene) in waiting.into_iter().zip([&here, &there]) {
        let said = ended(child, told).expect(10);
        assert!(said.err.contains("promotes"), "{}", said.err);
        scene.champion(1);
        assert_eq!(scene.states(), [(1, "done".to_owned())]);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// A state folder that takes nothing: with the database locked it works and warns, else nothing would keep others away.
#[test]
fn a_state_folder_that_takes_nothing_is_told() {
    let registry = shared("3.4.0");
    let scene = Scene::new(registry, "no state", "stage");
    fs::write(scene.home().join("a file"), "").unwrap();
    let state = scene.home().join("a file/state");
    let run = |version: &str, more: &[&str]| {
        let mut command = scene.command(&["promote", "--version", version]);
        Said::of(command.env("MLOPS_STATE_DIR", &state).args(more).args(["--output", "json"]).output().unwrap())
    };
    let said = run("2", &["--backend-store-uri", &registry.store]).expect(0);
    let told = warnings(&said);
    for words in ["only the database keeps other mlops away", "only the tags tell of it"] {
        assert!(told.contains(words), "{told}");
    }
    scene.champion(2);
    let said = run("3", &[]).expect(3);
    assert!(message(&said).contains("cannot be used"), "{}", message(&said));
    scene.champion(2);
    // The tags are enough for the way back.
    let mut back = scene.command(&["rollback"]);
    back.env("MLOPS_STATE_DIR", &state).args(["--backend-store-uri", &registry.store]);
    Said::of(back.output().unwrap()).expect(0);
    scene.champion(1);
}

/// A damaged line costs no other, and is counted.
#[test]
fn a_log_that_was_cut_is_told() {
    let scene = Scene::new(shared("2.9.2"), "cut log", "stage");
    scene.promote(2).expect(0);
    let log = scene.home().join("state/promotions.jsonl");
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 30]).unwrap();
    let said = scene.run(&["rollback"]).expect(0);
    assert!(warnings(&said).contains("1 lines of the log of promotions cannot be read"), "{}", warnings(&said));
    scene.champion(1);
    let history: Value = scene.registry.json(scene.home(), 0, &["models", "history", &scene.model])["result"].clone();
    assert_eq!(history["champions"].as_array().unwrap().len(), 3, "{history}");
}
