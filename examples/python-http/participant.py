#!/usr/bin/env python3
"""Vouchers: a participant in distributed transactions, over HTTP, with nothing but the standard library.

A branch's payload is {"code": "SPRING-10"}. Prepare reserves the voucher and answers what it is worth, commit
redeems it, rollback makes it free again. The rules are in ../journal.py.

POST /prepare, /commit, /rollback: for the coordinator. GET /vouchers/{code}: the voucher's state.
"""

import argparse
import http.server
import json
import logging
import pathlib
import sqlite3
import sys
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from journal import COMMITTED, ROLLED_BACK, Fenced, Journal, Malformed, Refusal, announce, parse


class Vouchers:
    """The domain. A voucher is reserved from prepare on, so that two branches can't have the same one."""

    SCHEMA = ["""CREATE TABLE IF NOT EXISTS vouchers (
        code TEXT PRIMARY KEY, worth INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('free', 'reserved', 'redeemed'))) STRICT"""]

    @staticmethod
    def reserve(db, payload):
        code = payload.get("code") if isinstance(payload, dict) else None
        if not isinstance(code, str) or not 1 <= len(code) <= 64 or not code.isprintable():
            raise Refusal("INVALID_PAYLOAD", f"code: {code!r:.80} is not a code of 1 to 64 printable characters")
        taken = db.execute("UPDATE vouchers SET state = 'reserved' WHERE code = ? AND state = 'free' RETURNING worth",
                           [code]).fetchone()
        if taken is None:
            raise Refusal("VOUCHER_NOT_FREE", f"code: {code!r} is unknown, reserved or redeemed")
        return {"code": code, "worth": taken[0]}

    @staticmethod
    def commit(db, work):
        db.execute("UPDATE vouchers SET state = 'redeemed' WHERE code = :code", work)

    @staticmethod
    def rollback(db, work):
        db.execute("UPDATE vouchers SET state = 'free' WHERE code = :code", work)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"   # keep-alive: the coordinator has a pool of connections
    disable_nagle_algorithm = True  # else answers wait for the client's delayed acknowledgement
    wbufsize = -1                   # an answer leaves in one piece
    timeout = 90                    # seconds for which an idle connection, and its thread, is kept

    def do_POST(self):
        calls = {"/prepare": self.prepare, "/commit": self.commit, "/rollback": self.rollback}
        try:
            body = self.read_json()
            call = calls.get(self.path)
            if call is None:
                return self.answer(404, "NO_SUCH_PATH", f"there is no {self.path:.80}")
            who_and_what = parse(*(body.get(field) for field in
                                   ("coordinator_id", "epoch", "incarnation", "transaction_id", "branch")))
            call(*who_and_what, body)
        except Malformed as error:
            self.answer(400, "MALFORMED", str(error))
        except Fenced as error:
            known = {"Dtc-Epoch": str(error.known), "Dtc-Incarnation": error.incarnation}
            self.answer(412, "FENCED", str(error), headers=known)
        except sqlite3.Error as error:  # before COMMIT: nothing happened, and it will be sent again
            logging.exception("the storage failed")
            self.answer(503, "STORAGE_FAILED", f"the storage failed: {error}")

    def prepare(self, origin, key, body):
        payload = body.get("payload")
        try:
            work = self.server.journal.prepare(origin, key, payload, json.dumps(payload, sort_keys=True).encode())
        except Refusal as refusal:
            return self.answer(409, refusal.code, str(refusal))
        self.send(200, {"worth": work["worth"]})  # handed back as 'output'; the journal has it anyway

    def commit(self, origin, key, _):
        state = self.server.journal.decide(origin, key, COMMITTED)
        if state is None:
            self.answer(404, "UNKNOWN_BRANCH", "no such branch was ever prepared here")
        elif state == ROLLED_BACK:
            self.answer(409, "ROLLED_BACK", "the branch was rolled back here before")
        else:
            self.send(200, {})

    def rollback(self, origin, key, body):
        state = self.server.journal.decide(origin, key, ROLLED_BACK, body.get("compensate") is True)
        if state is None:
            self.answer(404, "UNKNOWN_BRANCH", "no such branch was ever prepared here")
        elif state == COMMITTED:
            self.answer(409, "COMMITTED", "the branch was committed here before")
        else:
            self.send(200, {})

    def do_GET(self):
        _, folder, code = (urllib.parse.unquote(self.path).split("/", 2) + [""] * 2)[:3]
        with self.server.journal.transaction() as db:
            found = db.execute("SELECT code, worth, state FROM vouchers WHERE code = ?", [code]).fetchone()
        if folder != "vouchers" or found is None:
            return self.answer(404, "NOT_FOUND", f"there is no {self.path:.80}")
        self.send(200, dict(zip(("code", "worth", "state"), found)))

    def read_json(self):
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) <= 7):
            self.close_connection = True  # what follows can't be told from the next request
            raise Malformed(f"Content-Length: {length!r:.80} is not a number of bytes below 10 million")
        text = self.rfile.read(int(length))
        if len(text) < int(length):
            self.close_connection = True
            raise Malformed("the body ended early")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise Malformed("the body is not a JSON object")
        return body

    def answer(self, status, code, message, headers={}):
        self.send(status, {"code": code, "message": message}, headers)

    def send(self, status, body, headers={}):
        text = json.dumps(body).encode()
        self.send_response(status)
        # The journal's id with each answer: it is how a database that was lost is found out.
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)),
                            "Dtc-Journal-Id": self.server.journal.id, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_request(self, code="-", size="-"):
        logging.debug("%s: %s", self.requestline, code)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # connections that may wait to be accepted; the default is 5
    allow_reuse_port = False  # a second process may not get some of this one's calls


def voucher(text):
    code, worth = text.split("=")
    return code, int(worth)


def main():
    flags = argparse.ArgumentParser(description="Vouchers, a participant in distributed transactions")
    flags.add_argument("--listen", default="127.0.0.1:7112", metavar="HOST:PORT", help="port 0 takes a free one")
    flags.add_argument("--data", default="vouchers", type=pathlib.Path, metavar="FOLDER", help="made if it is missing")
    flags.add_argument("--port-file", type=pathlib.Path, metavar="FILE", help="gets the port once requests are served")
    flags.add_argument("--voucher", action="append", default=[], type=voucher, metavar="CODE=WORTH",
                       help="issued if it is not known")
    flags = flags.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    journal = Journal(flags.data, "vouchers.db", Vouchers)
    with journal.transaction() as db:
        db.executemany("INSERT OR IGNORE INTO vouchers VALUES (?, ?, 'free')", flags.voucher)
    host, _, port = flags.listen.rpartition(":")
    server = Server((host, int(port)), Handler)
    server.journal = journal
    if flags.port_file:
        announce(flags.port_file, server.server_port)  # it listens already: who connects now is served in a moment
    logging.info("serving on port %d, journal %s", server.server_port, journal.id)
    server.serve_forever()  # may be killed at any moment: that is what the journal is for


if __name__ == "__main__":
    main()
