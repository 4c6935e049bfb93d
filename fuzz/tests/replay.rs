//! Everything that was found worth keeping goes through its target again.

use std::{fs, path::Path};

use fuzz::TARGETS;

#[test]
fn the_corpus_breaks_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let files = fs::read_dir(&folder).expect("each target has a corpus");
        let mut files: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{}: an empty corpus", target.name);
        for file in files {
            let octets = fs::read(&file).expect("readable");
            println!("{}", file.display());
            (target.run)(&octets);
        }
    }
}

#[test]
fn a_target_that_is_given_nothing_is_content() {
    for target in TARGETS {
        (target.run)(&[]);
        (target.run)(&[0xFF; 64]);
    }
}
