#!/usr/bin/env python3
"""Loyalty points: a participant in distributed transactions, over gRPC.

A branch's payload is a JSON object: {"account": "ada", "points": 50}. Positive points are added, negative
ones are taken. Prepare reserves, commit adds or takes, rollback gives back. The rules are in ../journal.py.
"""

import argparse
import concurrent.futures
import contextlib
import logging
import pathlib
import random
import sqlite3
import sys
import threading
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "generated"), str(HERE.parent)]
try:
    import grpc
    from dtc.v1 import participant_pb2 as wire, participant_pb2_grpc, recovery_pb2, recovery_pb2_grpc, types_pb2
except ImportError as error:
    sys.exit(f"{error}. Install requirements.txt and make the stubs: README.md has a line for each.")
from journal import COMMITTED, ROLLED_BACK, Fenced, Journal, Malformed, Refusal, announce, parse

MOST_POINTS = 1_000_000_000


class Points:
    """The domain. What is taken is held from prepare on, so that two branches can't take the same points."""

    SCHEMA = ["""CREATE TABLE IF NOT EXISTS accounts (
        account TEXT PRIMARY KEY, balance INTEGER NOT NULL,
        held INTEGER NOT NULL CHECK (held BETWEEN 0 AND balance)) STRICT"""]

    @staticmethod
    def reserve(db, payload):
        fields = dict(payload.json.items())
        account, points = fields.get("account"), fields.get("points")
        if not isinstance(account, str) or not 1 <= len(account) <= 64 or not account.isprintable():
            raise Refusal("INVALID_PAYLOAD", f"account: {account!r:.80} is not a name of 1 to 64 printable characters")
        # JSON's numbers come as doubles. The limit keeps them exact, and sums far from 64 bits.
        if not isinstance(points, float) or not points.is_integer() or not 1 <= abs(points) <= MOST_POINTS:
            raise Refusal("INVALID_PAYLOAD", f"points: {points!r:.80} is not a whole number from 1 to {MOST_POINTS}"
                                             " or the negative of one")
        if points < 0:
            held = db.execute("UPDATE accounts SET held = held + ?2 WHERE account = ?1 AND balance - held >= ?2",
                              [account, int(-points)])
            if held.rowcount == 0:
                raise Refusal("NOT_ENOUGH_POINTS", f"points: account {account!r} has less than {-points:.0f} to take")
        return {"account": account, "points": int(points)}

    @staticmethod
    def commit(db, work):
        if work["points"] < 0:
            db.execute("UPDATE accounts SET balance = balance + :points, held = held + :points"
                       " WHERE account = :account", work)
        else:
            db.execute("INSERT INTO accounts VALUES (:account, :points, 0)"
                       " ON CONFLICT DO UPDATE SET balance = balance + :points", work)

    @staticmethod
    def rollback(db, work):
        if work["points"] < 0:
            db.execute("UPDATE accounts SET held = held + :points WHERE account = :account", work)


@contextlib.contextmanager
def errors_as_status(context):
    try:
        yield
    except Malformed as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except Fenced as error:
        abort(context, grpc.StatusCode.FAILED_PRECONDITION, "FENCED", str(error), ("dtc-epoch", str(error.known)),
              ("dtc-incarnation", error.incarnation))
    except sqlite3.Error as error:  # before COMMIT: nothing happened, and it will be sent again
        logging.exception("the storage failed")
        context.abort(grpc.StatusCode.INTERNAL, f"the storage failed: {error}")


def abort(context, status, code, message, *metadata):
    """An error of the protocol. gRPC, frameworks and proxies use the same statuses: dtc-code says that this is ours."""
    context.set_trailing_metadata([("dtc-code", code), *metadata])
    context.abort(status, message)


def who_and_what(request):
    it = request.origin
    return parse(it.coordinator_id, it.epoch, it.incarnation, request.transaction_id, request.branch, it.recovery_address)


class Participant(participant_pb2_grpc.ParticipantServiceServicer):
    def __init__(self, journal):
        self.journal = journal

    def Prepare(self, request, context):
        answer = wire.PrepareResponse(vote=types_pb2.VOTE_COMMIT, journal_id=self.journal.id)
        with errors_as_status(context):
            try:  # request.one_phase may be ignored: the decision then comes as for any other branch
                canonical = request.payload.SerializeToString(deterministic=True)
                self.journal.prepare(*who_and_what(request), request.payload, canonical)
            except Refusal as refusal:
                answer.vote = types_pb2.VOTE_ABORT
                answer.abort_reason.code, answer.abort_reason.message = refusal.code, str(refusal)
                answer.abort_reason.participant = "points"
        return answer

    def Commit(self, request, context):
        with errors_as_status(context):
            state = self.journal.decide(*who_and_what(request), COMMITTED)
        if state is None:
            abort(context, grpc.StatusCode.NOT_FOUND, "UNKNOWN_BRANCH", f"journal {self.journal.id} does not know it")
        if state == ROLLED_BACK:
            abort(context, grpc.StatusCode.ABORTED, "ROLLED_BACK", "the branch was rolled back here before")
        return wire.CommitResponse(journal_id=self.journal.id)

    def Rollback(self, request, context):
        with errors_as_status(context):
            state = self.journal.decide(*who_and_what(request), ROLLED_BACK, request.compensate)
        if state is None:
            abort(context, grpc.StatusCode.NOT_FOUND, "UNKNOWN_BRANCH", f"journal {self.journal.id} does not know it")
        return wire.RollbackResponse(journal_id=self.journal.id, committed=state == COMMITTED)

    def Link(self, requests, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "one call a message, please")


def resolve_doubts(journal):
    """Asks about branches that stay prepared: at the start, when a coordinator has a new run, and every so often."""
    seen, wait = None, 1.0
    while True:
        settled = False
        try:
            doubts = journal.in_doubt()
            # What was prepared since the last look is most likely just being decided. At the start all of it is old.
            old = [doubt for doubt in doubts if seen is None or doubt in seen]
            seen = set(doubts)
            addresses = {address for *_, address in old}
            settled = all([ask(journal, address, [it for it in old if it[-1] == address]) for address in addresses])
        except Exception:  # this thread may not end: nobody else asks
            logging.exception("could not ask about branches in doubt")
        wait = 1.0 if settled else min(wait * 2, 30.0)
        if journal.newer_run.wait(wait * random.uniform(0.5, 1)):
            journal.newer_run.clear()
            wait = 1.0


def ask(journal, address, doubts):
    """True if all were settled. A promise ends with one of the two decisions, never with any other answer or none."""
    if not address:
        logging.error("%d in doubt, and nobody to ask: start the coordinator with --advertise", len(doubts))
        return False
    settled = True
    with grpc.insecure_channel(urllib.parse.urlsplit(address).netloc) as channel:
        recovery = recovery_pb2_grpc.RecoveryServiceStub(channel)
        for key, epoch, incarnation, _ in doubts:
            question = recovery_pb2.GetOutcomeRequest(**key._asdict(), epoch=epoch, incarnation=incarnation)
            try:
                answer = recovery.GetOutcome(question, timeout=5)
                it = answer.origin
                origin, _ = parse(it.coordinator_id, it.epoch, it.incarnation, key.transaction_id, key.branch,
                                  it.recovery_address)
                if answer.outcome == wire.BRANCH_OUTCOME_NOT_MINE or origin.coordinator_id != key.coordinator_id:
                    logging.error("%s: in doubt, and %s says it is not its own: a person has to look", key, address)
                    settled = False
                elif answer.outcome in (wire.BRANCH_OUTCOME_COMMITTED, wire.BRANCH_OUTCOME_ABORTED):
                    state = COMMITTED if answer.outcome == wire.BRANCH_OUTCOME_COMMITTED else ROLLED_BACK
                    logging.info("%s: was in doubt, is %s", key, journal.decide(origin, key, state))
                else:
                    settled = False  # not decided yet
            except grpc.RpcError as error:
                logging.warning("%d in doubt, no answer from %r: %s", len(doubts), address, error.details())
                return False
            except (Malformed, Fenced, sqlite3.Error) as error:
                logging.warning("%s: in doubt, and the answer does not count: %s", key, error)
                settled = False
    return settled


def main():
    flags = argparse.ArgumentParser(description="Loyalty points, a participant in distributed transactions")
    flags.add_argument("--listen", default="127.0.0.1:7111", metavar="HOST:PORT", help="port 0 takes a free one")
    flags.add_argument("--data", default="points", type=pathlib.Path, metavar="FOLDER", help="made if it is missing")
    flags.add_argument("--port-file", type=pathlib.Path, metavar="FILE", help="gets the port once requests are served")
    flags = flags.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    journal = Journal(flags.data, "points.db", Points)
    # With so_reuseport, gRPC's default, a second process would get some of this one's calls.
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(Participant(journal), server)
    port = server.add_insecure_port(flags.listen)
    server.start()
    threading.Thread(target=resolve_doubts, args=[journal], daemon=True).start()
    if flags.port_file:
        announce(flags.port_file, port)
    logging.info("serving on port %d, journal %s", port, journal.id)
    server.wait_for_termination()  # may be killed at any moment: that is what the journal is for


if __name__ == "__main__":
    main()
