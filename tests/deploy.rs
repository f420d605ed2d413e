//! What packages the program: the Dockerfiles and each file of `deploy/` read by the programs that will read them,
//! their command lines run on a real stack, the completions asked on a terminal, scripts linted, the binary's size.

use std::fs;
use std::process::Command;

use crate::support::{Said, environment, folder, root};

/// `tests/deploy/check.py` tells what is wrong, and on stderr what it had to skip.
#[track_caller]
fn checked(what: &str) {
    let work = folder();
    let mut command = Command::new(environment("deploy").join("bin/python"));
    command.arg("-B").arg(root().join("tests/deploy/check.py")).arg(what);
    command.args(["--mlops", env!("CARGO_BIN_EXE_mlops"), "--work", work.path().to_str().unwrap()]);
    let said = Said::of(command.output().unwrap()).expect(0);
    eprint!("{}", said.err);
}

#[test]
fn hadolint_finds_nothing_in_the_dockerfiles() {
    checked("images");
}

#[test]
fn docker_compose_takes_the_stack_with_passwords_and_refuses_it_without() {
    checked("compose");
}

#[test]
fn the_schemas_of_kubernetes_take_every_resource() {
    checked("kubernetes");
}

#[test]
fn systemd_takes_every_unit_and_finds_little_exposed() {
    checked("systemd");
}

#[test]
fn promtool_sees_every_alert_fire_when_it_should() {
    checked("prometheus");
}

#[test]
fn every_command_line_of_the_deployments_runs_on_a_real_stack() {
    checked("lines");
}

#[test]
fn the_scheduler_of_the_container_goes_on_waits_and_ends() {
    checked("schedule");
}

#[test]
fn shellcheck_finds_nothing_in_any_script() {
    checked("scripts");
}

#[test]
fn completions_answer_in_bash_zsh_and_fish() {
    checked("completions");
}

#[test]
fn the_shipped_binary_is_small_and_has_no_symbols() {
    if cfg!(debug_assertions) {
        eprintln!("skipped: this is not the release profile");
        return;
    }
    let binary = fs::read(env!("CARGO_BIN_EXE_mlops")).unwrap();
    assert!(binary.len() < 25_000_000, "{} bytes", binary.len());
    assert!(!binary.windows(8).any(|name| name == b".symtab\0"), "it is not stripped");
}
