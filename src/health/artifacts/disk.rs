//! How full the disk below the artifacts is.

use super::bytes;
use crate::artifact::Disk;
use crate::domain::health::{Bound, Limits, Reading, Status, Unit};

/// Where nobody has set limits: a disk that loses its last tenth has weeks, one with 3 % left has days.
const USUAL: Limits = Limits { warning: Some(Bound::AtLeast(10.0)), critical: Some(Bound::AtLeast(3.0)) };

/// `artifacts.disk`: the share that is free, of its bytes or of the files that it can hold, whichever is less.
pub fn judge(disk: Disk, limits: Limits) -> Reading {
    const ID: &str = "artifacts.disk";
    let limits = if limits == Limits::default() { USUAL } else { limits };
    let share = |free: u64, total: u64| if total == 0 { None } else { Some(100.0 * free as f64 / total as f64) };
    let Some(space) = share(disk.free, disk.total) else {
        // Some network file systems tell nothing.
        return Reading::ok(ID, "the file system does not tell how large it is");
    };
    let files = share(disk.free_files, disk.files).unwrap_or(100.0);
    let (free, total) = (bytes(disk.free), bytes(disk.total));
    if files < space && limits.judge(files) > limits.judge(space) {
        let summary = format!(
            "{files:.1} % of its inodes are free ({} of {}), and {free} of {total}",
            disk.free_files, disk.files
        );
        return Reading::measured(ID, files, Unit::Percent, limits, summary)
            .most(100.0)
            .cause("many small files: each takes an inode, whatever its size")
            .hint("df -i; `mlflow gc` removes the artifacts of deleted runs");
    }
    let reading = Reading::measured(ID, space, Unit::Percent, limits, format!("{free} of {total} free ({space:.1} %)"))
        .most(100.0);
    if limits.judge(space) > Status::Ok {
        return reading.hint("df -h; `mlflow gc` removes the artifacts of deleted runs");
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(free: u64, files: u64, free_files: u64) -> Disk {
        Disk { total: 1000, free, files, free_files }
    }

    #[test]
    fn space_and_inodes_are_both_judged() {
        let none = Limits::default();
        for (disk, status, value) in [
            (disk(500, 100, 90), Status::Ok, 50.0),
            (disk(100, 100, 90), Status::Ok, 10.0),
            (disk(99, 100, 90), Status::Warning, 9.9),
            (disk(29, 100, 90), Status::Critical, 2.9),
            (disk(0, 100, 90), Status::Critical, 0.0),
            // btrfs counts no inodes.
            (disk(500, 0, 0), Status::Ok, 50.0),
            (disk(500, 100, 5), Status::Warning, 5.0),
            (disk(500, 100, 0), Status::Critical, 0.0),
            // Fewer inodes than bytes, and both are fine: bytes are what people ask for.
            (disk(500, 100, 40), Status::Ok, 50.0),
            (disk(50, 100, 4), Status::Warning, 5.0),
        ] {
            let reading = judge(disk, none);
            let measure = reading.measure.expect("a number");
            assert_eq!((reading.status, measure.value), (status, value), "{disk:?}: {}", reading.summary);
        }
        let untold = judge(Disk { total: 0, free: 0, files: 0, free_files: 0 }, none);
        assert_eq!((untold.status, untold.measure), (Status::Ok, None));
    }

    #[test]
    fn configured_limits_win() {
        let limits = Limits { warning: None, critical: Some(Bound::AtLeast(60.0)) };
        assert_eq!(judge(disk(500, 100, 90), limits).status, Status::Critical);
        let low = Limits { warning: Some(Bound::AtLeast(1.0)), critical: None };
        assert_eq!(judge(disk(20, 100, 90), low).status, Status::Ok);
    }
}
