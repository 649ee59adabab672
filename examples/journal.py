"""What a participant has promised and what became of it: the protocol's rules over one SQLite file.

Used by both Python examples; it knows nothing of gRPC, HTTP or any domain. Two things hold everywhere:
- The journal and the domain's tables are written in the same SQLite transaction.
- What a method returns or raises is on disk by then: an answer can leave only after COMMIT has returned.

A domain is anything with four parts. Its functions run in the journal's transaction:
- SCHEMA: its tables, as a list of statements that may run at every start.
- reserve(db, payload): takes hold of all that commit will need, or raises Refusal. Returns a dict (JSON).
- commit(db, work) and rollback(db, work): get that dict and cannot refuse.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import sys
import threading
import uuid
from typing import NamedTuple

PREPARED, COMMITTED, ROLLED_BACK = "prepared", "committed", "rolled back"
SCHEMA = [
    "CREATE TABLE IF NOT EXISTS journal (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), id TEXT NOT NULL) STRICT",
    """CREATE TABLE IF NOT EXISTS coordinators (  -- the newest run seen of each
        coordinator_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, incarnation TEXT NOT NULL,
        recovery_address TEXT NOT NULL) STRICT""",
    """CREATE TABLE IF NOT EXISTS branches (
        transaction_id TEXT, branch INTEGER, coordinator_id TEXT,
        state TEXT NOT NULL CHECK (state IN ('prepared', 'committed', 'rolled back')),
        payload_hash TEXT, work TEXT,     -- what was promised; NULL in a tombstone
        epoch INTEGER, incarnation TEXT,  -- the run that prepared it: questions name it
        code TEXT, message TEXT,          -- why it was refused
        decided_at TEXT,                  -- for people, and for whoever deletes old rows
        PRIMARY KEY (transaction_id, branch, coordinator_id)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS in_doubt ON branches (state) WHERE state = 'prepared'",
]


class Refusal(Exception):
    """No: the branch cannot be done."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Malformed(Exception):
    """The request breaks the protocol: nothing was done."""


class Fenced(Exception):
    """The coordinator's run was replaced by a newer one: nothing was done."""

    def __init__(self, origin, known, incarnation):
        super().__init__(f"coordinator {origin.coordinator_id}: epoch {origin.epoch} was presented, but epoch {known}"
                         " of another run is known; this run was replaced")
        self.known = known
        self.incarnation = incarnation


class Origin(NamedTuple):
    """The run of a coordinator that speaks."""
    coordinator_id: str
    epoch: int
    incarnation: str
    recovery_address: str


class Key(NamedTuple):
    """A branch."""
    transaction_id: str
    branch: int
    coordinator_id: str


def parse(coordinator_id, epoch, incarnation, transaction_id, branch, recovery_address=""):
    """Who speaks, and about which branch."""
    def number(field, value, least, most):
        if type(value) is not int or not least <= value <= most:
            raise Malformed(f"{field}: {value!r:.80} is not a whole number from {least} to {most}")
        return value

    def identity(field, text):
        try:
            return str(uuid.UUID(text))
        except (ValueError, AttributeError, TypeError):
            raise Malformed(f"{field}: {text!r:.80} is not a UUID") from None

    coordinator_id = identity("coordinator_id", coordinator_id)
    return (Origin(coordinator_id, number("epoch", epoch, 1, 2**63 - 1), identity("incarnation", incarnation),
                   recovery_address),
            Key(identity("transaction_id", transaction_id), number("branch", branch, 0, 2**32 - 1), coordinator_id))


class Journal:
    def __init__(self, folder, name, domain):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)  # or a power cut takes the new folder with all that is in it
        self.domain, self.lock, self.newer_run = domain, threading.Lock(), threading.Event()
        # autocommit (None): this module writes every BEGIN and COMMIT itself
        self.db = sqlite3.connect(folder / name, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA fullfsync = ON")  # macOS needs it, others ignore it
        if self.db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            sys.exit(f"{folder}: SQLite cannot keep a write-ahead log here; is it a network drive?")
        # What a killed process wrote last may be in the page cache only: put it on disk first, then act on it.
        if self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] != 0:
            sys.exit(f"{folder}: another process is using the database")
        with self.transaction() as db:
            for statement in [*SCHEMA, *domain.SCHEMA]:
                db.execute(statement)
            db.execute("INSERT OR IGNORE INTO journal VALUES (1, ?)", [str(uuid.uuid4())])
            self.id = db.execute("SELECT id FROM journal").fetchone()[0]

    @contextlib.contextmanager
    def transaction(self):
        """One at a time, all or nothing, and on disk when it is left."""
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                if self.db.in_transaction:  # some errors make SQLite roll back by itself
                    self.db.execute("ROLLBACK")
                raise
            try:
                self.db.execute("COMMIT")
            except BaseException as error:
                # It may be on disk or not, so any answer could be wrong. Say nothing; the next start finds out.
                print(f"COMMIT failed, stopping: {error}", file=sys.stderr, flush=True)
                os._exit(70)

    def prepare(self, origin, key, payload, canonical):
        """Returns the work that was promised, or raises Refusal. `canonical`: the payload's bytes, to compare."""
        digest = hashlib.sha256(canonical).hexdigest()
        with self.transaction() as db:
            self.fence(db, origin)
            known = self.find(db, key)
            if known is None:
                work, refusal = self.reserve(db, origin, key, payload, digest)
            elif known["state"] == ROLLED_BACK:
                work, refusal = None, Refusal(known["code"] or "ROLLED_BACK",
                                              known["message"] or "the branch was rolled back before")
            elif known["payload_hash"] != digest:
                work, refusal = None, Refusal("OTHER_PAYLOAD", "the branch was prepared with another payload")
            else:  # a duplicate gets the first answer
                work, refusal = json.loads(known["work"]), None
        if refusal:
            raise refusal
        return work

    def reserve(self, db, origin, key, payload, digest):
        db.execute("SAVEPOINT domain")
        try:
            work = self.domain.reserve(db, payload)
        except Refusal as refusal:
            db.execute("ROLLBACK TO domain")  # what it wrote goes, the reason stays for duplicates
            self.insert(db, key, ROLLED_BACK, code=refusal.code, message=str(refusal))
            return None, refusal
        self.insert(db, key, PREPARED, payload_hash=digest, work=json.dumps(work),
                    epoch=origin.epoch, incarnation=origin.incarnation)
        return work, None

    def decide(self, origin, key, state, compensate=False):
        """Commits or rolls back. Returns the branch's state afterwards; None if it was never seen, or is lost.

        What is decided stays as it is, so decision numbers need no comparing here."""
        with self.transaction() as db:
            self.fence(db, origin)
            known = self.find(db, key)
            if known is None:
                if state == COMMITTED or compensate:
                    return None  # it was promised, somewhere: what is not known here is never acknowledged
                self.insert(db, key, ROLLED_BACK)  # a tombstone: its prepare may still be on the way
                return ROLLED_BACK
            if known["state"] != PREPARED:
                return known["state"]
            apply = self.domain.commit if state == COMMITTED else self.domain.rollback
            apply(db, json.loads(known["work"]))
            db.execute("UPDATE branches SET state = ?, decided_at = datetime('now')"
                       " WHERE transaction_id = ? AND branch = ? AND coordinator_id = ?", (state, *key))
            return state

    def fence(self, db, origin):
        known = db.execute("SELECT epoch, incarnation FROM coordinators WHERE coordinator_id = ?",
                           [origin.coordinator_id]).fetchone()
        if known == (origin.epoch, origin.incarnation):
            return
        if known is not None and origin.epoch <= known[0]:
            raise Fenced(origin, *known)
        db.execute("INSERT OR REPLACE INTO coordinators VALUES (?, ?, ?, ?)", origin)
        self.newer_run.set()  # it may know what became of the branches in doubt

    @staticmethod
    def find(db, key):
        columns = ("state", "payload_hash", "work", "code", "message")
        row = db.execute(f"SELECT {', '.join(columns)} FROM branches"
                         " WHERE transaction_id = ? AND branch = ? AND coordinator_id = ?", key).fetchone()
        return None if row is None else dict(zip(columns, row))

    @staticmethod
    def insert(db, key, state, **columns):
        columns = {**key._asdict(), "state": state, **columns}
        db.execute(f"INSERT INTO branches ({', '.join(columns)}, decided_at)"
                   f" VALUES ({', '.join('?' * len(columns))}, {'NULL' if state == PREPARED else 'datetime()'})",
                   list(columns.values()))

    def in_doubt(self):
        """Key, epoch, incarnation and recovery address of all that is promised and undecided."""
        with self.lock:
            rows = self.db.execute("SELECT transaction_id, branch, coordinator_id, b.epoch, b.incarnation,"
                                   " recovery_address FROM branches b JOIN coordinators USING (coordinator_id)"
                                   " WHERE state = 'prepared'").fetchall()
        return [(Key(*row[:3]), *row[3:]) for row in rows]


def sync(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def announce(port_file, port):
    """Tells scripts the port: all of it or nothing, and only once requests are served."""
    written = port_file.with_name(port_file.name + ".new")
    written.write_text(f"{port}\n")
    os.replace(written, port_file)
