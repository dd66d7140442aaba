//! The journal's promises, on real files.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use super::*;

const SMALL: JournalConfig = JournalConfig {
    segment_bytes: 4096,
    sync: true,
};

fn open(dir: &Path) -> (Journal, Vec<Replayed>) {
    Journal::open(dir, SMALL).unwrap()
}

fn payloads(replayed: &[Replayed]) -> Vec<&str> {
    replayed
        .iter()
        .map(|one| std::str::from_utf8(&one.payload).unwrap())
        .collect()
}

async fn append(journal: &Journal, text: &str) -> Ticket {
    journal.append(text.as_bytes().to_vec()).await.unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "seg"))
        .collect();
    found.sort();
    found
}

/// Waits for what the writing thread brings about by itself.
async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

/// Overwrites the first place where `text` stands in the file.
fn damage(path: &Path, text: &str) {
    let bytes = std::fs::read(path).unwrap();
    let at = bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&vec![b'#'; text.len()]).unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_is_replayed_when_nobody_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, replayed) = open(dir.path());
    assert!(replayed.is_empty() && journal.has_room());
    append(&journal, "one").await;
    append(&journal, "").await;
    append(&journal, "three").await;
    assert_eq!(journal.unsettled(), 3);
    drop(journal);

    let (journal, replayed) = open(dir.path());
    assert_eq!(payloads(&replayed), ["one", "", "three"]);
    assert_eq!(
        (journal.unsettled(), journal.damage()),
        (3, Damage::default())
    );
    drop(journal);
    assert_eq!(
        open(dir.path()).1,
        replayed,
        "until settled, at every start"
    );
}

#[tokio::test]
async fn what_is_settled_before_close_is_not_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for round in 0..5 {
        let ticket = append(&journal, &format!("outcome {round}")).await;
        journal.settled(ticket);
    }
    append(&journal, "open").await;
    journal.close().await;
    assert!(!journal.has_room());
    assert!(matches!(
        journal.append(vec![1]).await,
        Err(JournalError::Closed)
    ));
    journal.close().await;
    drop(journal);

    let (journal, replayed) = open(dir.path());
    assert_eq!(payloads(&replayed), ["open"]);
    journal.settled(replayed[0].ticket);
    journal.close().await;
    drop(journal);
    assert!(open(dir.path()).1.is_empty());
}

#[tokio::test]
async fn a_checkpoint_is_written_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for round in 0..20 {
        let ticket = append(&journal, &format!("outcome {round}")).await;
        journal.settled(ticket);
    }
    let segment = segments(dir.path()).remove(0);
    let records = || {
        let bytes = std::fs::read(&segment).unwrap();
        record::read(Header::decode(&bytes).unwrap(), &bytes).entries
    };
    until("a checkpoint", || {
        matches!(records().last(), Some((_, Entry::Checkpoint(21))))
    })
    .await;
    drop(journal);
    assert!(open(dir.path()).1.is_empty());
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_new_outcomes_are_safe_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    append(&journal, "kept").await;
    append(&journal, "torn-torn-torn").await;
    drop(journal);
    damage(&segments(dir.path())[0], "torn-torn");

    let (journal, replayed) = open(dir.path());
    assert_eq!(payloads(&replayed), ["kept"]);
    assert_eq!(
        journal.damage(),
        Damage::default(),
        "a cut tail is no damage"
    );
    append(&journal, "after").await;
    drop(journal);
    assert_eq!(payloads(&open(dir.path()).1), ["kept", "after"]);
}

#[tokio::test]
async fn damage_in_the_middle_loses_only_what_it_hit_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for text in ["first", "second", "third"] {
        append(&journal, text).await;
    }
    drop(journal);
    damage(&segments(dir.path())[0], "second");

    let (journal, replayed) = open(dir.path());
    assert_eq!(payloads(&replayed), ["first", "third"]);
    assert_eq!(
        journal.damage(),
        Damage {
            records_lost: 1,
            segments_lost: 0
        }
    );
}

#[tokio::test]
async fn a_segment_without_a_sound_header_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    append(&journal, "lost").await;
    drop(journal);
    let segment = segments(dir.path()).remove(0);
    damage(&segment, "PRJRNL01");

    let (journal, replayed) = open(dir.path());
    assert!(replayed.is_empty());
    assert_eq!(
        journal.damage(),
        Damage {
            records_lost: 0,
            segments_lost: 1
        }
    );
    assert!(segment.with_extension("damaged").exists());
    append(&journal, "next").await;
    drop(journal);
    assert_eq!(payloads(&open(dir.path()).1), ["next"]);
}

#[tokio::test]
async fn segments_roll_over_and_settled_ones_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let stuck = append(&journal, "stuck").await;
    let text = "x".repeat(500);
    for _ in 0..200 {
        let ticket = append(&journal, &text).await;
        journal.settled(ticket);
    }
    // The oldest segment is held by one outcome; those between it and the current one are free.
    until("freed segments", || segments(dir.path()).len() <= 2).await;
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(
        files <= 4,
        "{files} files for 25 segments' worth of outcomes"
    );
    assert_eq!(journal.unsettled(), 1);
    drop(journal);

    let (journal, replayed) = open(dir.path());
    assert_eq!(replayed[0].ticket, stuck);
    assert_eq!(payloads(&replayed)[0], "stuck");
    assert!(
        replayed.len() <= 16,
        "at most what two segments hold: freed ones are gone"
    );
    drop(journal);
}

#[tokio::test]
async fn unsettled_outcomes_survive_any_number_of_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let texts: Vec<_> = (0..100)
        .map(|n| format!("{n:03}{}", "y".repeat(300)))
        .collect();
    for text in &texts {
        append(&journal, text).await;
    }
    drop(journal);
    for _ in 0..3 {
        let (_journal, replayed) = open(dir.path());
        assert_eq!(payloads(&replayed), texts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_appends_at_once_get_a_thousand_tickets() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        segment_bytes: 64 << 10,
        sync: true,
    };
    let (journal, _) = Journal::open(dir.path(), config.clone()).unwrap();
    let journal = Arc::new(journal);
    let tasks: Vec<_> = (0..1000)
        .map(|n| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                (
                    append(&journal, &format!("{n}:{}", "z".repeat(200))).await,
                    n,
                )
            })
        })
        .collect();
    let mut expected = BTreeMap::new();
    for task in tasks {
        let (ticket, n) = task.await.unwrap();
        assert!(expected.insert(ticket, n).is_none());
        if n % 2 == 0 {
            journal.settled(ticket);
        }
    }
    assert_eq!(journal.unsettled(), 500);
    drop(journal);

    let (_journal, replayed) = Journal::open(dir.path(), config).unwrap();
    for one in &replayed {
        let n = expected.remove(&one.ticket).unwrap();
        assert!(one.payload.starts_with(format!("{n}:").as_bytes()));
    }
    assert!(
        expected.values().all(|n| n % 2 == 0),
        "every unsettled one came back"
    );
}

#[tokio::test]
async fn other_segment_sizes_read_the_same_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    append(&journal, "old size").await;
    drop(journal);
    let larger = JournalConfig {
        segment_bytes: 16384,
        sync: false,
    };
    let (journal, replayed) = Journal::open(dir.path(), larger).unwrap();
    assert_eq!(payloads(&replayed), ["old size"]);
    append(&journal, &"n".repeat(10_000)).await;
    drop(journal);
    assert_eq!(open(dir.path()).1.len(), 2);
}

#[tokio::test]
async fn sizes_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = JournalConfig {
        segment_bytes: 100,
        sync: true,
    };
    assert!(matches!(
        Journal::open(dir.path(), tiny),
        Err(JournalError::SegmentTooSmall(100))
    ));
    let (journal, _) = open(dir.path());
    let max = 4096 - HEADER_BYTES - RECORD_BYTES;
    let error = journal.append(vec![0; max + 1]).await.unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { bytes, .. } if bytes == max + 1));
    journal.append(vec![0; max]).await.unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(
        Journal::open(&file, SMALL),
        Err(JournalError::Open { .. })
    ));
}

/// A directory where the next spare should be stands for a disk that gives no space: nothing can
/// be created, what exists can be written.
#[tokio::test]
async fn without_a_spare_the_gate_closes_before_the_last_segment_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    until("a spare", || dir.path().join("spare").exists()).await;
    let obstacle = dir.path().join("spare.new");
    std::fs::create_dir(&obstacle).unwrap();

    let mut while_gate_closed = 0;
    let error = loop {
        match journal.append(vec![b'r'; 300]).await {
            Ok(_) if journal.has_room() => assert_eq!(while_gate_closed, 0),
            Ok(_) => while_gate_closed += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Write { .. }), "{error}");
    assert!(
        while_gate_closed >= 4,
        "half a segment was kept for what is in flight"
    );
    assert!(!journal.has_room());
    let recorded = journal.unsettled();

    std::fs::remove_dir(&obstacle).unwrap();
    until("room", || journal.has_room()).await;
    append(&journal, "again").await;
    drop(journal);
    let (_journal, replayed) = open(dir.path());
    assert_eq!(
        replayed.len(),
        recorded + 1,
        "nothing acknowledged was lost on the way"
    );
}

/// The same on a disk that is really full. Mounting one takes a privilege most users lack.
#[tokio::test]
async fn a_full_disk_is_reported_with_its_own_error_and_recovered_from() {
    let home = tempfile::tempdir().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(home.path())
        .stderr(std::process::Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a_full_disk_is_reported_...: cannot mount a small tmpfs");
        return;
    }
    let _unmount = Unmount(home.path().to_owned());
    let dir = home.path().join("journal");
    let (journal, _) = open(&dir);
    until("a spare", || dir.join("spare").exists()).await;
    let ballast = home.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}

    let source = loop {
        match journal.append(vec![b'r'; 300]).await {
            Ok(_) => {}
            Err(JournalError::Write { source }) => break source,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(!journal.has_room());
    let recorded = journal.unsettled();

    std::fs::remove_file(&ballast).unwrap();
    drop(file);
    until("room", || journal.has_room()).await;
    append(&journal, "again").await;
    drop(journal);
    let (journal, replayed) = open(&dir);
    assert_eq!(replayed.len(), recorded + 1);
    drop(journal);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
