//! Who was champion when, as the tags of the versions and the log of the state folder tell, and where the registry
//! itself tells otherwise.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::place::{Aliases, Place, Registered, Stage};
use super::record::{Action, Record, State};

/// A record and who tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The record.
    pub record: Record,
    /// Whether a tag in the registry does.
    pub by_tags: bool,
    /// Whether the log of the state folder does.
    pub by_log: bool,
}

/// A time in which one version stood in a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Reign {
    /// The place: `Production`, `@champion`, or both.
    pub place: String,
    /// The version.
    pub version: u64,
    /// Since when; `None`: a client that is not mlops put it there.
    pub since: Option<Timestamp>,
    /// Until when; `None`: until now, or `ended` says.
    pub until: Option<Timestamp>,
    /// Whether it is over.
    pub ended: bool,
    /// What put it there; `None`: not mlops.
    pub told: Option<Told>,
}

/// The records of both, each once, in the order of their time. Of two that tell of one promotion the one counts that
/// knows how it ended.
pub fn merge(tags: Vec<Record>, log: Vec<Record>) -> Vec<Told> {
    let mut all: BTreeMap<String, Told> = BTreeMap::new();
    let known = tags.into_iter().map(|r| (r, true)).chain(log.into_iter().map(|r| (r, false)));
    for (record, by_tags) in known {
        match all.get_mut(&record.id) {
            None => {
                let told = Told { by_tags, by_log: !by_tags, record };
                all.insert(told.record.id.clone(), told);
            }
            Some(told) => {
                told.by_tags |= by_tags;
                told.by_log |= !by_tags;
                // What is done is done, whoever thought otherwise; else the later one knows more.
                let rank = |r: &Record| (r.state == State::Done, r.state != State::Begun, r.at);
                let end = if rank(&record) >= rank(&told.record) { &record } else { &told.record };
                let (state, at) = (end.state, end.at);
                // The log has the whole text of what a tag had to shorten.
                if !by_tags {
                    told.record = record;
                }
                (told.record.state, told.record.at) = (state, at);
            }
        }
    }
    let mut all: Vec<Told> = all.into_values().collect();
    all.sort_by(|a, b| (a.record.at, &a.record.id).cmp(&(b.record.at, &b.record.id)));
    all
}

/// A stage that holds one version, or an alias.
enum Line<'a> {
    Stage(Stage),
    Alias(&'a str),
}

impl Line<'_> {
    fn place(&self) -> Place {
        match self {
            Line::Stage(stage) => Place { stage: Some(*stage), alias: None },
            Line::Alias(alias) => Place { stage: None, alias: Some((*alias).to_owned()) },
        }
    }

    fn is_of(&self, record: &Record) -> bool {
        match self {
            Line::Stage(stage) => record.to.stage == Some(*stage),
            Line::Alias(alias) => record.to.alias.as_deref() == Some(*alias),
        }
    }

    fn before(&self, record: &Record) -> Option<u64> {
        match self {
            Line::Stage(_) => record.before.staged.last().copied(),
            Line::Alias(_) => record.before.aliased,
        }
    }
}

/// Who was champion when: in Production, and under the alias. Where both tell the same it is told once.
pub fn reigns(told: &[Told], registered: &Registered, aliases: &Aliases) -> Vec<Reign> {
    let staged = line(told, registered, &Line::Stage(Stage::Production));
    let aliased = line(told, registered, &Line::Alias(&aliases.champion));
    let key = |reign: &Reign| (reign.version, reign.since, reign.until, reign.ended);
    if !staged.is_empty() && staged.iter().map(key).eq(aliased.iter().map(key)) {
        let both = format!("{} and @{}", Stage::Production.word(), aliases.champion);
        return staged.into_iter().map(|reign| Reign { place: both.clone(), ..reign }).collect();
    }
    staged.into_iter().chain(aliased).collect()
}

fn line(told: &[Told], registered: &Registered, line: &Line<'_>) -> Vec<Reign> {
    let place = line.place();
    let mut reigns: Vec<Reign> = Vec::new();
    let foreign =
        |version| Reign { place: place.to_string(), version, since: None, until: None, ended: false, told: None };
    for one in told.iter().filter(|one| one.record.state == State::Done && line.is_of(&one.record)) {
        let record = &one.record;
        let last = reigns.last().map(|reign| reign.version);
        if let Some(before) = line.before(record).filter(|before| last != Some(*before)) {
            reigns.iter_mut().filter(|r| !r.ended).for_each(|r| r.ended = true);
            reigns.push(foreign(before));
        }
        let nobody = line.before(record).is_none();
        for open in reigns.iter_mut().filter(|reign| !reign.ended) {
            open.ended = true;
            open.until = (!nobody).then_some(record.at);
        }
        reigns.push(Reign { since: Some(record.at), told: Some(one.clone()), ..foreign(record.version) });
    }
    let standing = registered.standing(&place);
    let now: Vec<u64> = standing.staged.iter().copied().chain(standing.aliased).collect();
    for open in reigns.iter_mut().filter(|reign| !reign.ended && !now.contains(&reign.version)) {
        open.ended = true;
    }
    let last = reigns.last().filter(|reign| !reign.ended).map(|reign| reign.version);
    reigns.extend(now.into_iter().filter(|version| last != Some(*version)).map(foreign));
    reigns
}

/// The champion that a rollback goes back to: the one that the present champion took the place of when it was promoted.
/// Each rollback takes away what it went back over, so that the next one goes back further and comes to an end.
pub fn former(told: &[Told], champion: u64, place: &Place) -> Option<u64> {
    let same = |record: &Record| {
        (place.stage.is_some() && record.to.stage == place.stage)
            || (place.alias.is_some() && record.to.alias == place.alias)
    };
    // Those that can be gone back to, the newest last; and whose place each one took when it was promoted last.
    let (mut line, mut took): (Vec<u64>, BTreeMap<u64, Option<u64>>) = Default::default();
    let before = |line: &[u64], version: u64| {
        let at = line.iter().rposition(|one| *one == version)?;
        Some(line.iter().take(at).next_back().copied())
    };
    for record in told.iter().map(|one| &one.record).filter(|r| r.state == State::Done && same(r)) {
        match record.action {
            Action::Promote => {
                line.extend(record.former.filter(|former| line.last() != Some(former)));
                line.push(record.version);
                took.insert(record.version, record.former);
            }
            Action::Rollback => match line.iter().rposition(|one| *one == record.version) {
                Some(at) => line.truncate(at + 1),
                None => {
                    line.clear();
                    line.extend(took.get(&record.version).copied().flatten());
                    line.push(record.version);
                }
            },
        }
    }
    before(&line, champion).unwrap_or_else(|| took.get(&champion).copied().flatten())
}

#[cfg(test)]
mod tests {
    use super::super::place::Mode;
    use super::super::place::tests::{aliases, registered};
    use super::super::record::tests::record;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn story(mode: Mode, steps: &[(i64, Action, u64, Option<u64>)]) -> Vec<Told> {
        let place = Place::of_champion(mode, &aliases());
        let made = |(second, action, version, former): &(i64, Action, u64, Option<u64>)| Record {
            at: at(*second),
            action: *action,
            ..record(&format!("{second:04}"), *version, place.clone(), *former)
        };
        merge(steps.iter().map(made).collect(), Vec::new())
    }

    fn shown(reigns: &[Reign]) -> Vec<(u64, Option<i64>, Option<i64>, bool)> {
        let second = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        reigns.iter().map(|r| (r.version, second(r.since), second(r.until), r.ended)).collect()
    }

    #[test]
    fn the_story_is_told_with_what_others_did() {
        use Action::{Promote, Rollback};
        let steps =
            [(10, Promote, 1, None), (20, Promote, 2, Some(1)), (30, Rollback, 1, Some(2)), (50, Promote, 4, Some(3))];
        let told = story(Mode::Both, &steps);
        let model = registered(&["Archived", "Archived", "Archived", "Production"], &[("champion", 4)]);
        let reigns = reigns(&told, &model, &aliases());
        assert_eq!(
            shown(&reigns),
            [
                (1, Some(10), Some(20), true),
                (2, Some(20), Some(30), true),
                (1, Some(30), None, true),
                (3, None, Some(50), true),
                (4, Some(50), None, false),
            ]
        );
        assert!(reigns.iter().all(|r| r.place == "Production and @champion"));
        // Somebody moved the stage since then, and not the alias.
        let moved = registered(&["Production", "Archived", "Archived", "None"], &[("champion", 4)]);
        let reigns = super::reigns(&told, &moved, &aliases());
        let (staged, aliased): (Vec<Reign>, Vec<Reign>) = reigns.into_iter().partition(|r| r.place == "Production");
        assert_eq!(shown(&staged)[4..], [(4, Some(50), None, true), (1, None, None, false)]);
        assert_eq!(shown(&aliased)[4..], [(4, Some(50), None, false)]);
    }

    #[test]
    fn a_rollback_goes_back_further_each_time() {
        use Action::{Promote, Rollback};
        let place = Place::of_champion(Mode::Stage, &aliases());
        let steps =
            [(10, Promote, 1, None), (20, Promote, 2, Some(1)), (30, Promote, 3, Some(2)), (40, Rollback, 2, Some(3))];
        let told = story(Mode::Stage, &steps);
        assert_eq!(former(&told, 3, &place), Some(2));
        assert_eq!(former(&told, 2, &place), Some(1));
        assert_eq!(former(&told, 1, &place), None);
        assert_eq!(former(&told, 2, &Place::of_champion(Mode::Alias, &aliases())), None);
        // One that was champion twice: the way back ends.
        let mut steps = vec![
            (10, Promote, 1, None),
            (20, Promote, 2, Some(1)),
            (30, Promote, 1, Some(2)),
            (40, Promote, 3, Some(1)),
        ];
        let mut way = Vec::new();
        let mut champion = 3;
        while let Some(next) = former(&story(Mode::Stage, &steps), champion, &place) {
            way.push(next);
            steps.push((40 + way.len() as i64, Rollback, next, Some(champion)));
            champion = next;
            assert!(way.len() < 10, "{way:?}");
        }
        assert_eq!(way, [1, 2, 1]);
        // To a version that was left long ago, and on from there as its promotion tells.
        steps.push((60, Rollback, 3, Some(1)));
        assert_eq!(former(&story(Mode::Stage, &steps), 3, &place), Some(1));
        // Another client's champion is one to go back to.
        let foreign = [(10, Promote, 1, None), (20, Promote, 3, Some(2))];
        assert_eq!(former(&story(Mode::Stage, &foreign), 3, &place), Some(2));
        assert_eq!(former(&story(Mode::Stage, &foreign), 2, &place), Some(1));
    }

    #[test]
    fn the_log_and_the_tags_are_one_story() {
        let place = Place::of_champion(Mode::Stage, &aliases());
        let begun = Record { state: State::Begun, ..record("a", 1, place.clone(), None) };
        let done = Record { reason: Some("long".to_owned()), ..record("a", 1, place.clone(), None) };
        let told = merge(vec![begun.clone(), record("b", 2, place, None)], vec![done.clone()]);
        assert_eq!(told.len(), 2);
        assert_eq!((told[0].record.state, told[0].by_tags, told[0].by_log), (State::Done, true, true));
        assert_eq!(told[0].record.reason.as_deref(), Some("long"));
        assert_eq!((told[1].by_tags, told[1].by_log), (true, false));
        assert_eq!(merge(vec![done.clone()], vec![begun])[0].record.state, State::Done);
        let undone = Record { state: State::Undone, at: at(99), ..done.clone() };
        assert_eq!(merge(vec![done], vec![undone])[0].record.state, State::Done, "whoever thought otherwise");
    }
}
