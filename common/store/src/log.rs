//! The write-ahead log, looked at before SQLite opens it.
//!
//! SQLite goes as far as the first frame that is not whole, and drops the rest
//! without a word. After a loss of power that is right: with
//! `synchronous=FULL` at most the last commit was not synced. Where two commits
//! and more stand behind such a frame, one of them was synced and perhaps
//! promised: that is damage, and must not pass for a loss of power.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read},
    path::Path,
};

use crate::{Damaged, OpenError, place::beside};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Read one way round, or the other, by the last bit.
const MAGIC: u32 = 0x377f_0682;
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;

type Checksum = [u32; 2];

/// Refuses a database whose log is damaged in the middle.
pub(crate) fn check(database: &Path) -> Result<(), OpenError> {
    let path = beside(database, "-wal");
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => {
            return Err(OpenError::Io { action: "cannot read", path, cause });
        }
    };
    match damage(&mut BufReader::with_capacity(1 << 20, log)) {
        Ok(None) => Ok(()),
        Ok(Some(damaged)) => Err(OpenError::Damaged { path, damaged }),
        Err(cause) => Err(OpenError::Io { action: "cannot read", path, cause }),
    }
}

fn damage(log: &mut impl Read) -> io::Result<Option<Damaged>> {
    let mut header = [0; HEADER];
    if !fill(log, &mut header)? || number(&header, 0) & !1 != MAGIC {
        return Ok(None);
    }
    let big_endian = number(&header, 0) & 1 == 1;
    let page_size = number(&header, 8);
    if !PAGE_SIZES.contains(&page_size) || !page_size.is_power_of_two() {
        return Ok(None);
    }
    let salts = &header[16..24];
    let mut before = [number(&header, 24), number(&header, 28)];
    let mut broken = (sum([0, 0], &header[..24], big_endian) != before).then_some(0);
    let (mut lost, mut place) = (0, 0_u64);
    let mut frame = vec![0; FRAME_HEADER + page_size as usize];
    while fill(log, &mut frame)? {
        place += 1;
        let (start, page) = frame.split_at(FRAME_HEADER);
        let stored = [number(start, 16), number(start, 20)];
        let whole = sum(sum(before, &start[..8], big_endian), page, big_endian) == stored
            && start[8..16] == *salts;
        before = stored;
        match broken {
            None if !whole => broken = Some(place),
            // Its second number is not 0 in the last frame of a commit.
            Some(_) if whole && number(start, 4) != 0 => lost += 1,
            _ => {}
        }
    }
    Ok(broken.filter(|_| lost > 1).map(|frame| {
        let why =
            format!("checksum mismatch, with {lost} commits behind it, which SQLite would drop");
        Damaged::at(format!("frame {frame}"), why)
    }))
}

/// SQLite's checksum, from `before` on.
fn sum(before: Checksum, bytes: &[u8], big_endian: bool) -> Checksum {
    let word = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    bytes.chunks_exact(8).fold(before, |[one, two], pair| {
        let one = one.wrapping_add(word(pair)).wrapping_add(two);
        [one, two.wrapping_add(word(&pair[4..])).wrapping_add(one)]
    })
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// False at the end of the file, or in the last piece of it.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::*;

    /// A log of five commits, a frame each, that nobody has checkpointed.
    fn log() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE notes (note TEXT); PRAGMA wal_checkpoint(TRUNCATE);",
            )
            .unwrap();
        for note in 0..5 {
            connection.execute("INSERT INTO notes VALUES (?1)", [note]).unwrap();
        }
        fs::read(folder.path().join("some.db-wal")).unwrap()
    }

    fn at(frame: usize) -> usize {
        HEADER + frame * (FRAME_HEADER + 4096)
    }

    fn is_damaged(log: &[u8]) -> bool {
        damage(&mut &log[..]).unwrap().is_some()
    }

    #[test]
    fn a_whole_log_and_one_that_ends_early_are_taken() {
        let log = log();
        assert_eq!(log.len(), at(5));
        assert!(!is_damaged(&log));
        for end in [0, 10, HEADER, at(1), at(4), at(4) + 100, log.len() - 1] {
            assert!(!is_damaged(&log[..end]), "cut off at {end}");
        }
    }

    #[test]
    fn a_last_commit_that_was_not_synced_is_a_loss_of_power() {
        let mut last = log();
        last[at(4) + 1000] ^= 1;
        assert!(!is_damaged(&last));
        let mut one_before = log();
        one_before[at(3) + 1000] ^= 1;
        assert!(!is_damaged(&one_before), "one commit stands behind it, and may be part of it");
    }

    /// The same log as a machine of the other byte order writes it.
    fn in_the_other_order(mut log: Vec<u8>) -> Vec<u8> {
        log[3] |= 1;
        let mut before = sum([0, 0], &log[..24], true);
        let put = |log: &mut [u8], at: usize, sums: Checksum| {
            log[at..at + 4].copy_from_slice(&sums[0].to_be_bytes());
            log[at + 4..at + 8].copy_from_slice(&sums[1].to_be_bytes());
        };
        put(&mut log, 24, before);
        for frame in 0..5 {
            let (start, end) = (at(frame), at(frame + 1));
            before = sum(before, &log[start..start + 8], true);
            before = sum(before, &log[start + FRAME_HEADER..end], true);
            put(&mut log, start + 16, before);
        }
        log
    }

    #[test]
    fn a_log_is_read_in_the_byte_order_that_it_names() {
        let mut log = in_the_other_order(log());
        assert!(!is_damaged(&log));
        log[at(1) + 1000] ^= 1;
        assert!(is_damaged(&log));
    }

    #[test]
    fn what_is_no_log_is_not_judged() {
        let mut log = log();
        log[at(1) + 1000] ^= 1;
        assert!(is_damaged(&log));
        log[0] ^= 1;
        assert!(!is_damaged(&log));
    }

    /// A log of four commits, a frame each, of which the first is not whole.
    fn damaged_log(page_size: u32) -> Vec<u8> {
        let mut log = [MAGIC, 3_007_000, page_size, 0, 1, 2].map(u32::to_be_bytes).concat();
        let mut sums = sum([0, 0], &log, false);
        log.extend(sums.map(u32::to_be_bytes).concat());
        for number in 1..=4 {
            let start = [number, number].map(u32::to_be_bytes).concat();
            let page = vec![7; page_size as usize];
            sums = sum(sum(sums, &start, false), &page, false);
            let rest = [1, 2, sums[0], sums[1]].map(u32::to_be_bytes).concat();
            log.extend([start, rest, page].concat());
        }
        log[HEADER + FRAME_HEADER] ^= 1;
        log
    }

    #[test]
    fn a_log_with_pages_of_a_size_that_sqlite_has_not_is_not_judged() {
        for (page_size, is_judged) in
            [(256, false), (512, true), (768, false), (65_536, true), (131_072, false)]
        {
            assert_eq!(is_damaged(&damaged_log(page_size)), is_judged, "{page_size}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_read_is_an_error_and_not_a_loss_of_power() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        check(&path).expect("there is none");
        fs::create_dir(beside(&path, "-wal")).unwrap();
        assert!(matches!(check(&path), Err(OpenError::Io { .. })), "a folder");
        fs::write(&path, "").unwrap();
        let below = path.join("other.db");
        assert!(matches!(check(&below), Err(OpenError::Io { .. })), "below a file");
    }

    #[test]
    fn what_was_synced_behind_a_frame_that_is_not_whole_is_not_dropped() {
        for offset in [0, 4, 8, 16, FRAME_HEADER, FRAME_HEADER + 4095] {
            let mut log = log();
            log[at(1) + offset] ^= 1;
            assert!(is_damaged(&log), "byte {offset} of the frame");
        }
        let mut log = log();
        log[20] ^= 1;
        log[28] ^= 1;
        assert!(!is_damaged(&log), "nothing tells such a log from an older one");
    }
}
