#!/usr/bin/env python3
"""The rules that a participant must keep, tried on the Python examples as processes of their own.

    python3 examples/test_participants.py

Both are held to the same rules; where the protocols differ, the classes at the end say how.
"""

import concurrent.futures
import http.client
import importlib.util
import json
import pathlib
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

HERE = pathlib.Path(__file__).resolve().parent
MISSING = [name for name in ("grpc", "grpc_tools", "google.protobuf")
           if importlib.util.find_spec(name.partition(".")[0]) is None]
NO_GRPC = f"the gRPC participant is not tested: no {', '.join(MISSING)} (see python-grpc/requirements.txt)"
PROTOS = ["dtc/v1/types.proto", "dtc/v1/participant.proto", "dtc/v1/recovery.proto"]


def setUpModule():
    if MISSING:
        print(NO_GRPC, file=sys.stderr)


def new_id():
    return str(uuid.uuid4())


def until(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)


class Run:
    """Who speaks: a run of a coordinator."""

    def __init__(self, epoch=3, coordinator_id=None, recovery_address=""):
        self.coordinator_id, self.epoch, self.incarnation = coordinator_id or new_id(), epoch, new_id()
        self.recovery_address = recovery_address

    def again(self, epoch):
        return Run(epoch, self.coordinator_id, self.recovery_address)


class Rules:
    """Answers are ('yes', output), ('no', code), ('malformed', sentence), ('fenced', epoch), ('done', None),
    ('unknown', None), ('rolled back', None), ('committed', None). There is one `last` item; `state` is it now."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="participant-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.process = None
        self.addCleanup(lambda: self.process and self.kill())
        self.start()
        self.run_ = Run()
        self.transaction = new_id()

    def start(self):
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        log = open(self.folder / "log", "a")
        self.addCleanup(log.close)
        self.process = subprocess.Popen(
            [sys.executable, HERE / self.script, "--listen", "127.0.0.1:0", "--data", self.folder / "data",
             "--port-file", port_file, *self.flags], stderr=log)
        until(lambda: port_file.exists() or self.process.poll() is not None, "the port file")
        self.assertIsNone(self.process.poll(), (self.folder / "log").read_text())
        self.assertRegex(port_file.read_text(), r"\A\d+\n\Z")
        self.port = int(port_file.read_text())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def hang_up(self):
        pass

    def killed(self):
        self.kill()
        self.start()

    def prepare(self, payload=None, run=None, transaction=None, branch=0):
        return self.call("prepare", run or self.run_, transaction or self.transaction, branch,
                         self.last if payload is None else payload)

    def commit(self, run=None, transaction=None, branch=0):
        return self.call("commit", run or self.run_, transaction or self.transaction, branch)

    def rollback(self, run=None, transaction=None, branch=0):
        return self.call("rollback", run or self.run_, transaction or self.transaction, branch)

    # The states of a branch.

    def test_prepare_reserves_and_commit_makes_it_final_once(self):
        first = self.prepare()
        self.assertEqual(first, ("yes", self.output))
        self.assertEqual(self.prepare(), first)
        self.assertEqual(self.state(), "reserved")
        self.assertEqual(self.commit(), ("done", None))
        self.assertEqual(self.commit(), ("done", None))
        self.assertEqual(self.prepare(), first)
        self.assertEqual(self.state(), "redeemed")

    def test_rollback_gives_back_once(self):
        self.prepare()
        self.assertEqual(self.rollback(), ("done", None))
        self.assertEqual(self.rollback(), ("done", None))
        self.assertEqual(self.state(), "free")
        self.assertEqual(self.prepare(transaction=new_id())[0], "yes")
        self.assertEqual(self.rollback(), ("done", None))
        self.assertEqual(self.state(), "reserved", "a late rollback undid another transaction's reservation")

    def test_another_payload_under_a_branch_is_refused_and_changes_nothing(self):
        self.prepare()
        self.assertEqual(self.prepare(self.other), ("no", "OTHER_PAYLOAD"))
        self.assertEqual(self.prepare(self.invalid[0]), ("no", "OTHER_PAYLOAD"))
        self.assertEqual(self.commit(), ("done", None))
        self.assertEqual(self.state(), "redeemed")
        self.assertEqual(self.prepare(self.other), ("no", "OTHER_PAYLOAD"))

    def test_a_prepare_that_comes_after_its_rollback_is_refused_even_after_a_restart(self):
        self.assertEqual(self.rollback(), ("done", None))
        self.assertEqual(self.prepare(), ("no", "ROLLED_BACK"))
        self.killed()
        self.assertEqual(self.prepare(), ("no", "ROLLED_BACK"))
        self.assertEqual(self.state(), "free")

    def test_commit_of_an_unknown_branch_is_never_acknowledged(self):
        self.assertEqual(self.commit(), ("unknown", None))
        self.prepare()
        self.assertEqual(self.commit(transaction=new_id()), ("unknown", None))
        self.assertEqual(self.commit(branch=1), ("unknown", None))
        self.assertEqual(self.state(), "reserved")

    def test_a_decided_branch_tells_what_it_did_and_stays_so(self):
        self.prepare()
        self.commit()
        self.assertEqual(self.rollback(), ("committed", None))
        self.assertEqual(self.state(), "redeemed")
        other = new_id()
        self.rollback(transaction=other)
        self.assertEqual(self.commit(transaction=other), ("rolled back", None))

    def test_a_refusal_is_kept(self):
        self.prepare()
        late = new_id()
        refusal = self.prepare(transaction=late)
        self.assertEqual(refusal, ("no", self.taken))
        self.rollback()
        self.assertEqual(self.state(), "free")
        self.assertEqual(self.prepare(transaction=late), refusal, "a duplicate got another answer than the first")
        self.assertEqual(self.commit(transaction=late), ("rolled back", None))
        self.assertEqual(self.state(), "free")

    def test_a_payload_that_makes_no_sense_is_refused_at_once(self):
        for payload in self.invalid:
            with self.subTest(payload=payload):
                self.assertEqual(self.prepare(payload, transaction=new_id()), ("no", "INVALID_PAYLOAD"))
        self.assertEqual(self.state(), "free")

    # Crashes.

    def test_a_promise_outlives_kill_9(self):
        self.prepare()
        for _ in range(2):
            self.killed()
            self.assertEqual(self.state(), "reserved")
        self.assertEqual(self.prepare(transaction=new_id()), ("no", self.taken))
        self.assertEqual(self.commit(), ("done", None))
        self.killed()
        self.assertEqual(self.state(), "redeemed")
        self.assertEqual(self.commit(), ("done", None))

    def test_what_was_answered_is_there_after_kill_9_in_the_middle_of_traffic(self):
        promised, committed = [], []

        def work(thread):
            for number in range(thread, 10_000, 4):
                transaction = new_id()
                try:
                    if self.prepare(self.many(number), transaction=transaction)[0] == "yes":
                        promised.append(transaction)
                    if number % 2 and self.commit(transaction=transaction)[0] == "done":
                        committed.append(transaction)
                except OSError:
                    return

        threads = [threading.Thread(target=work, args=[thread]) for thread in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(promised) > 20 and committed, "some branches")
        self.process.kill()
        for thread in threads:
            thread.join()
        self.killed()
        for transaction in promised:
            self.assertEqual(self.commit(transaction=transaction), ("done", None))
        for transaction in committed:
            self.assertEqual(self.rollback(transaction=transaction), ("committed", None))

    # The fence.

    def test_an_older_run_is_refused_even_after_a_restart(self):
        older, newer = self.run_, self.run_.again(epoch=4)
        self.prepare(run=older)
        self.assertEqual(self.rollback(run=newer, transaction=new_id()), ("done", None))
        for _ in range(2):
            for call in (self.prepare, self.commit, self.rollback):
                self.assertEqual(call(run=older), ("fenced", 4))
            self.assertEqual(self.prepare(run=older, transaction=new_id()), ("fenced", 4))
            self.assertEqual(self.state(), "reserved")
            self.killed()
        self.assertEqual(self.commit(run=newer), ("done", None))
        self.assertEqual(self.state(), "redeemed")

    def test_another_incarnation_of_an_epoch_is_refused(self):
        self.prepare()
        copy = self.run_.again(epoch=3)
        for call in (self.prepare, self.commit, self.rollback):
            self.assertEqual(call(run=copy), ("fenced", 3))
        self.assertEqual(self.commit(), ("done", None))

    def test_a_newer_run_is_kept_even_where_the_answer_is_no(self):
        self.commit(run=self.run_.again(epoch=9))
        self.assertEqual(self.rollback(), ("fenced", 9))

    def test_coordinators_do_not_touch_each_other(self):
        self.prepare()
        other = Run(epoch=1)
        self.assertEqual(self.commit(run=other), ("unknown", None))
        self.assertEqual(self.rollback(run=other), ("done", None))
        self.assertEqual(self.commit(), ("done", None))

    # Many at once.

    def test_of_many_that_want_the_last_one_gets_it(self):
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: self.prepare(transaction=new_id()), range(24)))
        self.assertEqual(sorted(answers, key=str), sorted([("no", self.taken)] * 23 + [("yes", self.output)], key=str))
        self.assertEqual(self.state(), "reserved")

    def test_of_many_duplicates_one_counts(self):
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            self.assertEqual(set(pool.map(lambda _: self.prepare()[0], range(24))), {"yes"})
            self.assertEqual(set(pool.map(lambda _: self.commit()[0], range(24))), {"done"})
        self.assertEqual(self.state(), "redeemed")

    def test_prepare_and_rollback_at_the_same_time_leave_nothing_reserved(self):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for _ in range(30):
                transaction = new_id()
                prepare = pool.submit(self.prepare, transaction=transaction)
                self.assertEqual(pool.submit(self.rollback, transaction=transaction).result(), ("done", None))
                prepare.result()
                self.assertEqual(self.state(), "free")

    # Requests that break the protocol.

    def test_a_malformed_request_gets_a_sentence(self):
        cases = {"epoch": [0, 2**63], "coordinator_id": ["", "me"], "incarnation": ["x"]}
        for field, values in cases.items():
            for value in values:
                for call in (self.prepare, self.commit, self.rollback):
                    with self.subTest(field=field, value=value, call=call.__name__):
                        run = Run()
                        setattr(run, field, value)
                        answer, sentence = call(run=run)
                        self.assertEqual(answer, "malformed")
                        self.assertIn(field, sentence)
        answer, sentence = self.prepare(transaction="7")
        self.assertEqual(answer, "malformed")
        self.assertIn("transaction_id: '7'", sentence)
        self.assertEqual(self.state(), "free")


class HttpTest(Rules, unittest.TestCase):
    script = "python-http/participant.py"
    flags = ["--voucher", "LAST=10", "--voucher", "OTHER=5"] + [
        part for number in range(1000) for part in ("--voucher", f"V{number}=1")]
    last, other, output, taken = {"code": "LAST"}, {"code": "OTHER"}, {"worth": 10}, "VOUCHER_NOT_FREE"
    invalid = [{"code": 7}, {}, [], "LAST", 1, {"code": ""}, {"code": "x" * 65}, {"code": "\ud800"}, {"code": ["LAST"]}]

    def many(self, number):
        return {"code": f"V{number}"}

    def setUp(self):
        self.connections, self.open = threading.local(), []
        super().setUp()

    def hang_up(self):
        self.connections = threading.local()
        while self.open:
            self.open.pop().close()

    def post(self, path, body, headers={}):
        """On a connection that is kept, as a coordinator does it."""
        if not hasattr(self.connections, "it"):
            self.connections.it = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            self.open.append(self.connections.it)
        try:
            self.connections.it.request("POST", path, body, headers)
            answer = self.connections.it.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error

    def body(self, run, transaction, branch, payload=None):
        return json.dumps({"transaction_id": transaction, "branch": branch, "coordinator_id": run.coordinator_id,
                           "epoch": run.epoch, "incarnation": run.incarnation, "payload": payload})

    def call(self, call, run, transaction, branch, payload=None):
        status, answer, headers = self.post(f"/{call}", self.body(run, transaction, branch, payload))
        if status == 200:
            return ("yes", answer) if call == "prepare" else ("done", None)
        self.assertGreater(len(answer["message"]), 10)
        if status == 412:
            return "fenced", int(headers["Dtc-Epoch"])
        if status == 400:
            return "malformed", answer["message"]
        if call != "prepare":
            return {("commit", 409, "ROLLED_BACK"): "rolled back", ("commit", 404, "UNKNOWN_BRANCH"): "unknown",
                    ("rollback", 409, "COMMITTED"): "committed"}[call, status, answer["code"]], None
        self.assertEqual(status, 409)
        return "no", answer["code"]

    def state(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/vouchers/LAST")
        voucher = json.loads(connection.getresponse().read())
        connection.close()
        self.assertEqual((voucher["code"], voucher["worth"]), ("LAST", 10))
        return voucher["state"]

    def test_bodies_that_are_not_what_they_should_be(self):
        good = json.loads(self.body(self.run_, self.transaction, 0, self.last))
        bodies = ["", "{", "[]", "7", "null", b"\xff", "[" * 100_000, "1" * 5000]
        for field in ("transaction_id", "branch", "coordinator_id", "epoch", "incarnation"):
            bodies += [json.dumps({**good, field: value}) for value in (None, -1, 1.5, True, "", [], {})]
            bodies.append(json.dumps({name: value for name, value in good.items() if name != field}))
        for body in bodies:
            for call in ("prepare", "commit", "rollback"):
                status, answer, _ = self.post(f"/{call}", body)
                self.assertEqual((status, answer["code"]), (400, "MALFORMED"), f"{call} {body[:200]}")
                self.assertGreater(len(answer["message"]), 10)
        self.assertEqual(self.prepare()[0], "yes", "the connection is out of step")

    def test_a_body_of_no_known_length_ends_the_connection(self):
        for length in ("", "x", "-1", "1" * 5000):
            with self.subTest(length=length[:10]), socket.create_connection(("127.0.0.1", self.port), timeout=10) as it:
                it.sendall(f"POST /prepare HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
                answer = b"".join(iter(lambda: it.recv(4096), b""))
                self.assertTrue(answer.startswith(b"HTTP/1.1 400"), answer)

    def test_a_body_that_ends_early_does_nothing(self):
        body = self.body(self.run_, self.transaction, 0, self.last)
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as it:
            it.sendall(f"POST /prepare HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 1}\r\n\r\n{body}".encode())
            it.shutdown(socket.SHUT_WR)
            self.assertIn(b" 400 ", it.recv(4096))
        self.assertEqual(self.state(), "free")

    def test_a_prepare_whose_connection_is_gone_does_not_outlive_its_rollback(self):
        for _ in range(30):
            transaction = new_id()
            body = self.body(self.run_, transaction, 0, self.last)
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as it:
                it.sendall(f"POST /prepare HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            self.assertEqual(self.rollback(transaction=transaction), ("done", None))
            self.assertEqual(self.prepare(transaction=transaction)[0], "no")
            self.assertEqual(self.state(), "free")

    def test_paths_that_are_not_there(self):
        status, answer, _ = self.post("/vouchers", "{}")
        self.assertEqual((status, answer["code"]), (404, "NO_SUCH_PATH"))


@unittest.skipIf(MISSING, NO_GRPC)
class GrpcTest(Rules, unittest.TestCase):
    script = "python-grpc/participant.py"
    flags = []
    last, other = {"account": "ada", "points": -10}, {"account": "ada", "points": -9}
    output, taken = None, "NOT_ENOUGH_POINTS"
    invalid = [{"account": "ada", "points": 0}, {}, {"account": 7, "points": 5}, {"account": "ada", "points": 1.5},
               {"account": "ada", "points": "5"}, {"account": "", "points": 5}, {"account": "x" * 65, "points": 5},
               {"account": "ada", "points": 2_000_000_000}, {"account": "ada", "points": float("nan")},
               {"account": "ada", "points": True}, {"account": ["ada"], "points": {"a": 1}}]

    @classmethod
    def setUpClass(cls):
        generated = HERE / "python-grpc/generated"
        if not (generated / "dtc/v1/recovery_pb2_grpc.py").exists():
            generated.mkdir(exist_ok=True)
            subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", HERE.parent / "proto",
                            f"--python_out={generated}", f"--grpc_python_out={generated}", *PROTOS], check=True)
        sys.path.insert(0, str(generated))
        global grpc, wire, services, recovery_pb2, recovery_services, types
        import grpc
        from dtc.v1 import participant_pb2 as wire, participant_pb2_grpc as services, types_pb2 as types
        from dtc.v1 import recovery_pb2, recovery_pb2_grpc as recovery_services

    def many(self, number):
        return {"account": f"a{number}", "points": 1}

    def setUp(self):
        self.channel = None
        self.journals = set()
        super().setUp()
        add = new_id()
        self.assertEqual(self.prepare({"account": "ada", "points": 10}, transaction=add)[0], "yes")
        self.assertEqual(self.commit(transaction=add), ("done", None))
        self.addCleanup(lambda: self.assertEqual(len(self.journals), 1, "the journal's id changed"))

    def hang_up(self):
        self.channel.close()

    def start(self):
        super().start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = services.ParticipantServiceStub(self.channel)

    def call(self, call, run, transaction, branch, payload=None):
        request = {"prepare": wire.PrepareRequest, "commit": wire.CommitRequest, "rollback": wire.RollbackRequest}[call]()
        for field in ("coordinator_id", "epoch", "incarnation", "recovery_address"):
            setattr(request.origin, field, getattr(run, field))
        request.transaction_id, request.branch = transaction, branch
        if payload is not None:
            request.payload.json.update(payload)
            request.one_phase = True  # may be ignored
        else:
            request.decision_number = 1
        try:
            answer = getattr(self.stub, call.capitalize())(request, timeout=10)
        except grpc.RpcError as error:
            status = error.code().name
            if status == "FAILED_PRECONDITION":
                return "fenced", int(dict(error.trailing_metadata())["dtc-epoch"])
            known = {("INVALID_ARGUMENT", call): "malformed", ("NOT_FOUND", "commit"): "unknown",
                     ("ABORTED", "commit"): "rolled back"}
            if (status, call) not in known:
                raise ConnectionError(error.details()) from error
            return known[status, call], error.details() if status == "INVALID_ARGUMENT" else None
        self.journals.add(answer.journal_id)
        if call == "rollback" and answer.committed:
            return "committed", None
        if call != "prepare":
            return "done", None
        if answer.vote == types.VOTE_COMMIT:
            return "yes", None
        self.assertEqual(answer.vote, types.VOTE_ABORT)
        self.assertGreater(len(answer.abort_reason.message), 10)
        self.assertEqual(answer.abort_reason.participant, "points")
        return "no", answer.abort_reason.code

    def state(self):
        with sqlite3.connect(self.folder / "data/points.db") as db:
            row = db.execute("SELECT balance, held FROM accounts WHERE account = 'ada'").fetchone()
        db.close()
        return {(10, 0): "free", (10, 10): "reserved", (0, 0): "redeemed"}[row]

    def test_the_link_is_declined(self):
        with self.assertRaises(grpc.RpcError) as raised:
            next(self.stub.Link(iter([wire.LinkRequest()]), timeout=10))
        self.assertEqual(raised.exception.code().name, "UNIMPLEMENTED")

    # In doubt. The coordinator that is asked is this class.

    def recovery(self):
        questions, case = [], self

        class Recovery(recovery_services.RecoveryServiceServicer):
            outcome, origin = wire.BRANCH_OUTCOME_PENDING, None

            def GetOutcome(self, question, context):
                questions.append(question)
                origin = self.origin or case.run_
                return recovery_pb2.GetOutcomeResponse(
                    outcome=self.outcome, decision_number=1, origin=wire.Origin(
                        coordinator_id=origin.coordinator_id, epoch=origin.epoch, incarnation=origin.incarnation))

        recovery = Recovery()
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        recovery_services.add_RecoveryServiceServicer_to_server(recovery, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        self.run_ = Run(recovery_address=f"http://127.0.0.1:{port}")
        return recovery, questions

    def asked(self, questions):
        """Until it has asked twice: by then it has done what it does with the first answer."""
        count = len(questions) + 2
        until(lambda: len(questions) >= count, "questions")

    def test_in_doubt_it_asks_until_the_decision_is_known(self):
        for outcome, state in ((wire.BRANCH_OUTCOME_ABORTED, "free"), (wire.BRANCH_OUTCOME_COMMITTED, "redeemed")):
            recovery, questions = self.recovery()
            self.transaction = new_id()
            self.assertEqual(self.prepare(branch=5)[0], "yes")
            self.asked(questions)
            self.assertEqual(self.state(), "reserved")
            question = questions[0]
            self.assertEqual((question.coordinator_id, question.epoch, question.incarnation),
                             (self.run_.coordinator_id, self.run_.epoch, self.run_.incarnation))
            self.assertEqual((question.transaction_id, question.branch), (self.transaction, 5))
            recovery.outcome = outcome
            until(lambda: self.state() == state, f"it is {state}")

    def test_in_doubt_after_a_restart_it_asks_within_seconds(self):
        recovery, questions = self.recovery()
        self.prepare()
        self.kill()
        recovery.outcome = wire.BRANCH_OUTCOME_COMMITTED
        self.start()
        until(lambda: self.state() == "redeemed", "it is committed", seconds=5)
        self.assertEqual(self.commit(), ("done", None))

    def test_not_mine_leaves_it_in_doubt_and_is_logged(self):
        recovery, questions = self.recovery()
        recovery.outcome = wire.BRANCH_OUTCOME_NOT_MINE
        self.prepare()
        self.asked(questions)
        self.assertEqual(self.state(), "reserved")
        self.assertIn("not its own", (self.folder / "log").read_text())
        recovery.outcome = wire.BRANCH_OUTCOME_COMMITTED
        until(lambda: self.state() == "redeemed", "it is committed")

    def test_the_word_of_another_coordinator_or_of_an_older_run_does_not_count(self):
        recovery, questions = self.recovery()
        self.prepare()
        recovery.outcome, recovery.origin = wire.BRANCH_OUTCOME_ABORTED, Run()
        self.killed()  # it asks at once then
        self.asked(questions)
        self.assertEqual(self.state(), "reserved")
        recovery.origin = self.run_.again(epoch=2)
        self.killed()  # it asks at once then
        self.asked(questions)
        self.assertEqual(self.state(), "reserved")
        recovery.outcome, recovery.origin = wire.BRANCH_OUTCOME_COMMITTED, self.run_.again(epoch=8)
        self.killed()
        until(lambda: self.state() == "redeemed", "it is committed")
        self.assertEqual(self.commit(), ("fenced", 8))


class StorageTest(unittest.TestCase):
    def test_after_a_commit_that_failed_nothing_more_is_said(self):
        # A foreign key that is checked at COMMIT makes it fail.
        script = """if True:
            import pathlib, sys
            sys.path.insert(0, sys.argv[1])
            import journal
            class Domain:
                SCHEMA = ["CREATE TABLE a (id INTEGER PRIMARY KEY, b REFERENCES a DEFERRABLE INITIALLY DEFERRED)"]
                def reserve(db, payload):
                    db.execute("INSERT INTO a VALUES (1, 7)")
                    return {}
            it = journal.Journal(pathlib.Path(sys.argv[2]), "test.db", Domain)
            it.db.execute("PRAGMA foreign_keys = ON")
            id = it.id
            try:
                print("answered", it.prepare(*journal.parse(id, 1, id, id, 0), None, b""))
            finally:
                print("went on")
        """
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-c", script, HERE, folder], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (70, ""), done.stderr)
        self.assertIn("COMMIT failed", done.stderr)

    def test_what_a_refused_prepare_wrote_is_undone_and_the_refusal_kept(self):
        script = """if True:
            import pathlib, sys
            sys.path.insert(0, sys.argv[1])
            import journal
            class Domain:
                SCHEMA = ["CREATE TABLE a (id INTEGER PRIMARY KEY)"]
                def reserve(db, payload):
                    db.execute("INSERT INTO a VALUES (1)")
                    raise journal.Refusal("NO", "the second half could not be done")
            it = journal.Journal(pathlib.Path(sys.argv[2]), "test.db", Domain)
            for _ in range(2):
                try:
                    it.prepare(*journal.parse(it.id, 1, it.id, it.id, 0), None, b"")
                except journal.Refusal as refusal:
                    print(refusal.code, it.db.execute("SELECT count(*) FROM a").fetchone())
        """
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-c", script, HERE, folder], capture_output=True, text=True)
        self.assertEqual(done.stdout, "NO (0,)\nNO (0,)\n", done.stderr)


if __name__ == "__main__":
    unittest.main()
