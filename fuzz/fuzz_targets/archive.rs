//! Any bytes as an archive: opened, and all rows read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlops::archive::reader::ArchiveSource;
use mlops::engine::cancel::Cancel;
use mlops::engine::{Part, RowSource};

fuzz_target!(|bytes: &[u8]| {
    let Ok(archive) = ArchiveSource::of(Box::new(bytes.to_vec()), "fuzz".to_owned(), &Cancel::new()) else { return };
    for shape in archive.shapes() {
        let _ = archive.read(shape, Part::ALL, &mut |_| Ok(()));
    }
});
