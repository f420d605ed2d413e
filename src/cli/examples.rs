//! Two commands or more for each command, as people type them, and help that flows in any width.

use clap::Command;

/// Path of the command, and its examples; those that other help texts hold already are not repeated here.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "migrate sqlite-to-pg",
        "  mlops migrate sqlite-to-pg --source mlflow.db --target postgresql://mlflow@db/mlflow --dry-run
  mlops migrate sqlite-to-pg --source mlflow.db --target postgresql://mlflow@db/mlflow --certificate moved.json
  mlops migrate sqlite-to-pg --source mlflow.db --rehearse",
    ),
    (
        "migrate export",
        "  mlops migrate export mlflow.db --file store.tar
  mlops migrate export postgresql://mlflow@db/mlflow --file store.tar --compression zstd
  mlops migrate export mlflow.db --file - | ssh db mlops migrate import - --target postgresql:///mlflow",
    ),
    (
        "migrate import",
        "  mlops migrate import store.tar --target postgresql://mlflow@db/mlflow
  mlops migrate import store.tar --target /srv/mlflow/copy.db",
    ),
    (
        "migrate verify",
        "  mlops migrate verify --source mlflow.db --target postgresql://mlflow@db/mlflow
  mlops migrate verify --source store.tar --target postgresql://mlflow@db/mlflow --output json",
    ),
    ("db info", "  mlops db info mlflow.db\n  mlops db info postgresql://mlflow@db/mlflow --output json"),
    (
        "db doctor",
        "  mlops db doctor postgresql://mlflow@db/mlflow
  mlops db doctor postgresql://mlflow@db/mlflow --print > mend.sql
  mlops db doctor postgresql://mlflow@db/mlflow --fix --yes",
    ),
    ("backup list", "  mlops backup list --from /backup/mlflow\n  mlops backup list --output json"),
    ("backup show", "  mlops backup show latest --from /backup/mlflow\n  mlops backup show /media/stick/mlflow.tar"),
    (
        "backup verify",
        "  mlops backup verify latest --from /backup/mlflow
  mlops backup verify latest --drill --from /backup/mlflow
  mlops backup verify --all --read-data-subset 1/7 --from /backup/mlflow",
    ),
    (
        "backup prune",
        "  mlops backup prune --from /backup/mlflow --keep-daily 7 --keep-weekly 5 --dry-run
  mlops backup prune --from /backup/mlflow --keep-daily 7 --keep-weekly 5 --yes",
    ),
    (
        "backup pin",
        "  mlops backup pin latest --from /backup/mlflow
  mlops backup pin 20261122T031500Z-0a1b2c3d --from s3://backups/mlflow",
    ),
    (
        "backup unpin",
        "  mlops backup unpin latest --from /backup/mlflow
  mlops backup unpin 20261122T031500Z-0a1b2c3d --from s3://backups/mlflow",
    ),
    (
        "backup create",
        "  mlops backup create --to /backup/mlflow
  mlops backup create --to s3://backups/mlflow --output json",
    ),
    (
        "restore",
        "  mlops restore latest --from /backup/mlflow --to postgresql://mlflow@db/mlflow --artifact-root /srv/mlflow/artifacts
  mlops restore latest --from /backup/mlflow --to copy.db --experiment forecast --no-artifacts",
    ),
    (
        "cleanup experiments",
        "  mlops cleanup experiments --older-than 180d --name 'scratch-*'
  mlops cleanup experiments --older-than 180d --name 'scratch-*' --yes",
    ),
    (
        "cleanup runs",
        "  mlops cleanup runs --older-than 30d --status FAILED --status KILLED
  mlops cleanup runs --older-than 90d --keep-best 5 --metric rmse --lower --yes",
    ),
    ("cleanup policy", "  mlops cleanup policy\n  mlops cleanup policy --yes --ping https://hc-ping.com/UUID"),
    ("cleanup undo", "  mlops cleanup undo\n  mlops cleanup undo 20261122T031500Z-0a1b2c3d --yes"),
    ("rollback", "  mlops rollback --model energy --dry-run\n  mlops rollback --model energy --yes"),
    (
        "verify persistence",
        "  mlops verify persistence --restart-cmd 'systemctl restart mlflow' --report page.md
  mlops verify persistence --restart compose:mlflow
  mlops verify persistence --pause",
    ),
    (
        "verify snapshot",
        "  mlops verify snapshot --file before.snapshot
  mlops verify snapshot --file before.snapshot --backend-store-uri postgresql://mlflow@db/mlflow",
    ),
    (
        "verify compare",
        "  mlops verify compare --file before.snapshot --allow-upgrade
  mlops verify compare --file before.snapshot --frozen --report page.md",
    ),
    (
        "verify deployment",
        "  mlops verify deployment --report page.md
  mlops verify deployment --service 'gateway=http://gateway:8080/health where .models > 0'",
    ),
    (
        "verify concurrency",
        "  mlops verify concurrency --writers 20
  mlops verify concurrency --writers 100 --duration 60s --max-p95 500ms --max-errors 0",
    ),
    ("demo", "  mlops demo\n  mlops demo --only-sample --file sample.db"),
    (
        "completions",
        "  mlops completions bash > /etc/bash_completion.d/mlops
  mlops completions zsh > ~/.zfunc/_mlops",
    ),
    ("man", "  mlops man /usr/local/share/man/man1\n  mlops man ./man"),
];

/// Every command with its examples, and with text that flows.
pub(super) fn shown(command: Command) -> Command {
    with(command, "")
}

fn with(mut command: Command, path: &str) -> Command {
    let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let more = EXAMPLES.iter().find(|(of, _)| *of == path).map(|(_, text)| format!("Examples:\n{text}"));
    let parts: Vec<String> = [flowing(&own), more.unwrap_or_default()].into_iter().filter(|p| !p.is_empty()).collect();
    if !parts.is_empty() {
        command = command.after_help(parts.join("\n\n"));
    }
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name());
        with(sub, path.trim_start())
    })
}

/// Lines that only a writer's editor broke become one again: the terminal breaks them where it ends. What begins with a
/// blank, and what follows a colon, stands as it is.
fn flowing(text: &str) -> String {
    let mut out = String::new();
    let mut open = false;
    for line in text.lines() {
        let plain = !line.is_empty() && !line.starts_with(' ');
        if !out.is_empty() {
            out.push_str(if open && plain { " " } else { "\n" });
        }
        out.push_str(line);
        open = plain && !line.ends_with(':');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The words of a shell line, as far as the examples use a shell: quotes, comments, pipes and redirections.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
        for c in line.chars() {
            match c {
                '\'' => (quoted, any) = (!quoted, true),
                '#' | '|' | '>' if !quoted && !any && word.is_empty() => return words,
                c if c.is_whitespace() && !quoted => {
                    if any || !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    any = false;
                }
                c => word.push(c),
            }
        }
        if any || !word.is_empty() {
            words.push(word);
        }
        words
    }

    fn each(command: &Command, path: &str, told: &mut Vec<(String, String)>) {
        for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name()).trim_start().to_owned();
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            if sub.has_subcommands() {
                each(sub, &path, told);
            } else {
                told.push((path, help));
            }
        }
    }

    #[test]
    fn every_command_has_two_examples_that_are_understood() {
        let definition = crate::cli::definition();
        let mut all = Vec::new();
        each(&definition, "", &mut all);
        assert!(all.len() > 35, "{}", all.len());
        for (path, help) in &all {
            let (_, examples) = help.split_once("Examples:").unwrap_or_else(|| panic!("{path} has no examples"));
            let joined = examples.replace("\\\n", " ");
            let lines: Vec<&str> = joined.lines().filter(|l| l.contains("mlops ")).collect();
            assert!(lines.len() >= 2, "{path}: {examples}");
            for line in lines {
                let from = line.find("mlops ").expect("it is there");
                let words = words(line.get(from..).expect("a boundary"));
                if let Err(error) = crate::cli::Cli::command().try_get_matches_from(&words) {
                    panic!("{path}: {line}\n{error}");
                }
            }
        }
        for (path, _) in EXAMPLES {
            assert!(all.iter().any(|(known, _)| known == path), "there is no {path}");
        }
    }

    #[test]
    fn only_what_an_editor_broke_flows() {
        assert_eq!(flowing("a\nb\n\nExamples:\n  c\n  d\ne\nf"), "a b\n\nExamples:\n  c\n  d\ne f");
    }
}
