//! The worked examples in `docs/format/` are what the commands print of the small member ([`super::member`]).
//! `UPDATE_GOLDENFILES=1` writes them into the pages anew.

use std::path::{Path, PathBuf};

use super::{good, member};

const BEGIN: &str = "<!-- example: quorate util ";
const END: &str = "<!-- end of example -->";

/// The page with every example in it made anew, by the command that its mark names.
fn made(page: &str, dir: &Path) -> (String, usize) {
    let mut text = String::new();
    let mut rest = page;
    let mut examples = 0;
    while let Some((head, tail)) = rest.split_once(BEGIN) {
        let (line, tail) =
            tail.split_once(" -->\n").expect("the mark of an example ends with its line");
        let (_, tail) = tail.split_once(END).expect("an example ends");
        let out = match line.split_once("SNAPSHOT") {
            Some((before, after)) => {
                let file = dir.join("member/incoming").join(member::SNAPSHOT);
                good(&format!("{before}DIR{after}"), &file)
            }
            None => good(line, dir),
        };
        let shown = line.replace("DIR", "m.etcd").replace("SNAPSHOT", member::SNAPSHOT);
        text.push_str(&format!(
            "{head}{BEGIN}{line} -->\n```text\n$ quorate util {shown}\n{out}```\n{END}"
        ));
        rest = tail;
        examples += 1;
    }
    text.push_str(rest);
    (text, examples)
}

#[test]
fn the_pages_show_what_the_commands_print() {
    let update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/format");
    for name in ["wal.md", "store.md", "tables.md", "snapshot.md"] {
        let path = root.join(name);
        let page = std::fs::read_to_string(&path).unwrap();
        let (wanted, examples) = made(&page, dir.path());
        assert!(examples > 0, "{name} has a worked example");
        if update {
            std::fs::write(&path, &wanted).unwrap();
        } else {
            assert!(
                page == wanted,
                "{name} does not show what is printed; UPDATE_GOLDENFILES=1 writes it anew"
            );
        }
    }
}
